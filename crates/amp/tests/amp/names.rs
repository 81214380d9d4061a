//! Exceptions by layer hold whatever was made of the model or of its parts, and names of operators and layers that do
//! not exist are told.

use binade_amp::{CastPolicy, Error, LossScale, Policy, Training};
use binade_autograd::{Var, checkpoint, scope};
use binade_cpu as _;
use binade_nn::{Layer, Linear, Module, MultiHeadAttention, Optimizer, Param, Sequential, Sgd, Visitor, state_dict};
use binade_tensor::{Array, Class, DType};

#[derive(Clone, Module)]
struct Net {
    back: Linear,
    head: Linear,
}

impl Net {
    fn new() -> Net {
        Net { back: Linear::new(4, 4).unwrap(), head: Linear::new(4, 2).unwrap() }
    }

    fn forward(&self, x: &Var) -> binade_nn::Result<Var> {
        self.head.forward(&self.back.forward(x)?)
    }
}

fn data(dims: &[usize]) -> Var {
    let n: usize = dims.iter().product();
    let values: Vec<f32> = (0..n).map(|i| 0.1 + (i as f32 * 0.61).sin()).collect();
    Var::constant(Array::from_slice(&scope::device().unwrap(), &values, dims, Class::Activations).unwrap())
}

fn f32_head() -> Policy {
    Policy::autocast(DType::F16).except("*", "head", CastPolicy::F32).unwrap()
}

/// Dtypes of (body, head) under `policy`.
fn dtypes(net: &Net, policy: &Policy) -> [DType; 2] {
    policy.run(|| {
        let h = net.back.forward(&data(&[1, 4])).unwrap();
        [h.dtype(), net.head.forward(&h).unwrap().dtype()]
    })
}

#[test]
fn an_exception_for_a_layer_holds_whatever_was_made_of_the_model_and_its_parts() {
    let wanted = [DType::F16, DType::F32];
    type Made = fn(&Net);
    let made: [(&str, Made); 8] = [
        ("names", |n| n.assign_names()),
        ("an optimiser", |n| drop(Optimizer::new(n, Sgd::default()).unwrap())),
        ("a list of parameters", |n| {
            drop(Optimizer::empty().with_group(n.named_parameters(), Sgd::default()).unwrap())
        }),
        ("a state dict", |n| drop(state_dict(n))),
        ("an optimiser of the head, then one of all", |n| {
            drop(Optimizer::new(&n.head, Sgd::default()).unwrap());
            drop(Optimizer::new(n, Sgd::default()).unwrap());
        }),
        ("an optimiser of a parameter, then one of all", |n| {
            drop(Optimizer::new(&n.head.weight, Sgd::default()).unwrap());
            drop(Optimizer::new(n, Sgd::default()).unwrap());
        }),
        ("one of all, then one of the head", |n| {
            drop(Optimizer::new(n, Sgd::default()).unwrap());
            drop(Optimizer::new(&n.head, Sgd::default()).unwrap());
        }),
        ("one of all, then one of a list with its parts", |n| {
            drop(Optimizer::new(n, Sgd::default()).unwrap());
            drop(Optimizer::new(&vec![n.head.clone(), n.back.clone()], Sgd::default()).unwrap());
        }),
    ];
    for (what, make) in made {
        let net = Net::new();
        make(&net);
        assert_eq!(dtypes(&net, &f32_head()), wanted, "{what}");
        let path = net.head.weight.place().map(|place| place.path().to_string());
        assert!(what.contains("list with") || path.is_some_and(|path| path.starts_with("head")), "{what}");
    }
}

#[test]
fn a_layer_without_name_is_refused_where_the_policy_names_layers_and_only_there() {
    let net = Net::new();
    let error = f32_head().run(|| net.back.forward(&data(&[1, 4]))).unwrap_err().to_string();
    assert!(error.contains("assign_names"), "{error}");
    assert_eq!(dtypes(&net, &Policy::autocast(DType::F16)), [DType::F16; 2]);
    let everywhere = Policy::autocast(DType::F16).except("matmul", "*", CastPolicy::F32).unwrap();
    assert_eq!(dtypes(&net, &everywhere), [DType::F32; 2]);
}

#[test]
fn an_exception_for_a_layer_holds_for_all_that_it_holds() {
    let net =
        Sequential::new().then(Sequential::new().then(Linear::new(4, 4).unwrap())).then(Linear::new(4, 4).unwrap());
    net.assign_names();
    let policy = Policy::autocast(DType::F16).except("*", "0", CastPolicy::F32).unwrap();
    assert_eq!(policy.run(|| net.forward(&data(&[1, 4]))).unwrap().dtype(), DType::F16);
    let policy = Policy::autocast(DType::F16).except("*", "1", CastPolicy::F32).unwrap();
    assert_eq!(policy.run(|| net.forward(&data(&[1, 4]))).unwrap().dtype(), DType::F32);
}

#[test]
fn a_layer_of_two_models_has_a_name_in_each() {
    #[derive(Module)]
    struct Other {
        body: Linear,
        last: Linear,
    }
    let net = Net::new();
    let other = Other { body: net.back.clone(), last: Linear::new(4, 4).unwrap() };
    net.assign_names();
    other.assign_names();
    for name in ["back", "body"] {
        let policy = Policy::autocast(DType::F16).except("*", name, CastPolicy::F32).unwrap();
        assert_eq!(dtypes(&net, &policy), [DType::F32, DType::F16], "{name}");
        let last = policy.run(|| other.last.forward(&other.body.forward(&data(&[1, 4])).unwrap()));
        assert_eq!(last.unwrap().dtype(), DType::F16);
    }
}

#[test]
fn an_operator_that_does_not_exist_is_refused_with_the_one_that_was_meant() {
    let base = Policy::autocast(DType::F16);
    for (typo, meant) in [
        ("softmx", "softmax"),
        ("attention", "scaled_dot_product_attention"),
        ("layernorm", "layer_norm"),
        ("linear", "matmul"),
    ] {
        match base.clone().except(typo, "*", CastPolicy::F32) {
            Err(Error::Policy(message)) => assert!(message.contains(&format!("did you mean {meant:?}?")), "{message}"),
            other => panic!("{typo}: {other:?}"),
        }
    }
    // Views and casts are no policy's business, gradients follow their operators.
    for never in ["reshape", "cast", "softmax_backward", "xyz*"] {
        assert!(base.clone().except(never, "*", CastPolicy::F32).is_err(), "{never}");
    }
}

#[test]
fn a_layer_that_no_model_of_the_step_has_is_told_before_anything_changes() {
    let net = Net::new();
    let policy = Policy::autocast(DType::F16).except("*", "haed", CastPolicy::F32).unwrap();
    let mut training =
        Training::new(Optimizer::new(&net, Sgd::default()).unwrap(), policy.clone(), LossScale::Off).unwrap();
    let before = net.head.weight.array().to_vec::<f32>().unwrap();
    let x = data(&[3, 4]);
    let step = training.step(|| -> binade_amp::Result<Var> { Ok(net.forward(&x)?.sum(&[], false)?) });
    let error = step.unwrap_err().to_string();
    assert!(error.contains("did you mean \"head\"?"), "{error}");
    assert_eq!(net.head.weight.array().to_vec::<f32>().unwrap(), before);
    // In a loop of one's own.
    assert!(policy.check_layers().is_err());
    // Models of one structure have the same layers, told once.
    let policy = Policy::autocast(DType::F16).except("*", "nothing of the kind", CastPolicy::F32).unwrap();
    for net in [Net::new(), Net::new()] {
        net.assign_names();
        policy.run(|| net.forward(&x)).unwrap();
    }
    let error = policy.check_layers().unwrap_err().to_string();
    assert_eq!(error.matches("\"head\"").count(), 1, "{error}");
    // A part of the model is enough to know the whole.
    let policy = f32_head();
    policy.run(|| net.back.forward(&x)).unwrap();
    policy.check_layers().unwrap();
}

#[test]
fn an_operator_after_a_layer_does_not_belong_to_it() {
    let net = Net::new();
    net.assign_names();
    let (x, w) = (data(&[2, 4]), data(&[2, 2]));
    let policy = Policy::autocast(DType::BF16).except("*", "head", CastPolicy::F32).unwrap();
    let product = || w.matmul(&w).unwrap().dtype();
    for step in 0..2 {
        let (before, after) = policy.run(|| {
            let before = product();
            net.forward(&x).unwrap();
            (before, product())
        });
        assert_eq!((before, after), (DType::BF16, DType::BF16), "step {step}");
    }
    // Nor inside the whole, whose product is no layer's.
    assert_eq!(policy.run(|| net.within(product)), DType::BF16);
    assert_eq!(policy.run(|| net.head.within(product)), DType::F32);
}

#[test]
fn six_steps_in_one_go_are_three_and_three_on_a_fresh_thread() {
    let x = data(&[5, 4]);
    let w = data(&[4, 4]);
    let train = |net: &Net, t: &mut Training, steps: usize| {
        for _ in 0..steps {
            let loss = || -> binade_amp::Result<Var> {
                let mixed = x.matmul(&w)?;
                let y = net.forward(&mixed)?;
                Ok(y.matmul(&y.transpose(0, 1)?)?.square()?.mean(&[], false)?)
            };
            let _step = t.step(loss).unwrap();
        }
    };
    let new = || {
        let net = binade_autograd::scope::with_key(3, 0, Net::new);
        let t = Training::new(
            Optimizer::new(&net, Sgd { lr: 0.01, ..Sgd::default() }).unwrap(),
            f32_head(),
            LossScale::dynamic(),
        );
        (net, t.unwrap())
    };
    let (whole, mut t) = new();
    train(&whole, &mut t, 6);
    let (parts, mut t) = new();
    train(&parts, &mut t, 3);
    std::thread::scope(|s| s.spawn(|| train(&parts, &mut t, 3)).join().unwrap());
    let bits = |net: &Net| {
        net.parameters().iter().flat_map(|p| p.array().to_vec::<f32>().unwrap()).map(f32::to_bits).collect::<Vec<_>>()
    };
    assert_eq!(bits(&whole), bits(&parts));
}

#[test]
fn attention_belongs_to_the_module_that_runs_it_and_is_left_with_it() {
    #[derive(Module)]
    struct Model {
        attend: MultiHeadAttention,
        scale: Param,
    }
    let model = Model {
        attend: MultiHeadAttention::new(4, 2, 0.0).unwrap(),
        scale: Param::init(&[4], binade_nn::Init::Constant(1.0)).unwrap(),
    };
    model.assign_names();
    let x = data(&[1, 3, 4]);
    let policy =
        Policy::autocast(DType::F16).except("scaled_dot_product_attention", "attend", CastPolicy::Banned).unwrap();
    assert!(policy.run(|| model.attend.forward(&x, &x, None, false)).is_err());
    // A parameter of the model itself belongs to no layer of it.
    let policy = Policy::autocast(DType::F16).except("*", "attend", CastPolicy::F32).unwrap();
    let y = policy.run(|| {
        let y = model.attend.forward(&x, &x, None, false).unwrap().cast(DType::F16).unwrap();
        y.mul(&model.scale.var().cast(DType::F16).unwrap()).unwrap()
    });
    assert_eq!(y.dtype(), DType::F16);
}

#[test]
fn recomputation_makes_the_same_exceptions() {
    let net = Net::new();
    net.assign_names();
    let x = data(&[2, 4]);
    let gradient = |again: bool| {
        let loss = f32_head().run(|| {
            let h = net.back.forward(&x).unwrap();
            let head = net.head.clone();
            let f = move |ins: &[Var]| {
                head.forward(&ins[0]).map_err(|e| match e {
                    binade_nn::Error::Autograd(e) => e,
                    other => panic!("{other}"),
                })
            };
            let y = if again { checkpoint(f, &[&h]) } else { f(&[h]) };
            y.unwrap().square().unwrap().sum(&[], false).unwrap()
        });
        loss.backward().unwrap().by_id(net.back.weight.id()).unwrap().to_vec::<f32>().unwrap()
    };
    assert_eq!(gradient(true), gradient(false));
}
