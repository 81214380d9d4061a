//! Policies as values: tables, exceptions, strings, recommendations, weight gradients.

use binade_amp::{CastPolicy, Error, Hardware, LossScale, Policy, Purpose, Table, autocast};
use binade_autograd::{Var, no_grad, scope};
use binade_cpu as _;
use binade_nn::{Layer, Linear, Module, Sequential};
use binade_tensor::op::Reduction;
use binade_tensor::{Array, Class, DType};

fn leaf(dims: &[usize]) -> Var {
    let n: usize = dims.iter().product();
    let values: Vec<f32> = (0..n).map(|i| 0.1 + (i as f32 * 0.61).sin().abs()).collect();
    Var::leaf(Array::from_slice(&scope::device().unwrap(), &values, dims, Class::Weights).unwrap())
}

fn bits(a: &Array) -> Vec<u64> {
    a.to_f64_vec().unwrap().into_iter().map(f64::to_bits).collect()
}

/// Dtypes of (matmul, softmax, mean, layer norm, cat of mixed dtypes, relu of f32, binary cross-entropy); `None` for an
/// error.
fn dtypes(policy: &Policy) -> [Option<DType>; 7] {
    let (x, half) = (leaf(&[4, 4]), leaf(&[4, 4]).cast(DType::BF16).unwrap());
    let p = leaf(&[4]).sigmoid().unwrap();
    policy.run(|| {
        [
            x.matmul(&x),
            half.softmax(-1),
            half.mean(&[], false),
            half.layer_norm(1, None, 1e-5),
            Var::cat(&[&x, &half], 0),
            x.relu(),
            p.bce(&p, None, Reduction::Mean),
        ]
        .map(|y| y.ok().map(|y| y.dtype()))
    })
}

#[test]
fn each_table_gives_its_dtypes() {
    let (low, f32) = (Some(DType::BF16), Some(DType::F32));
    let of = |table| dtypes(&Policy::autocast(DType::BF16).with_table(table));
    assert_eq!(of(Table::Torch), [low, f32, low, f32, f32, f32, None]);
    assert_eq!(of(Table::TorchCpu), [low, low, low, low, f32, f32, f32]);
    // Paddle's bf16 black list is empty.
    assert_eq!(of(Table::PaddleO1), [low, low, low, low, f32, f32, f32]);
    assert_eq!(of(Table::PaddleO2), [low, low, low, low, low, low, low]);
    assert_eq!(of(Table::PaddleOd), [low, f32, f32, f32, f32, f32, f32]);
    assert_eq!(of(Table::Uniform), [low, low, low, low, low, low, low]);
    assert_eq!(dtypes(&Policy::OFF), [f32, low, low, low, f32, f32, f32]);
    // Its f16 black list is not.
    let x = leaf(&[4, 4]).cast(DType::F16).unwrap();
    let o2 = Policy::autocast(DType::F16).with_table(Table::PaddleO2);
    assert_eq!(o2.run(|| x.mean(&[], false)).unwrap().dtype(), DType::F32);
}

#[test]
fn exceptions_go_by_operator_and_layer_and_the_last_wins() {
    #[derive(Clone, Module)]
    struct Net {
        body: Linear,
        head: Linear,
    }
    use binade_nn::Visitor;
    let net = Net { body: Linear::new(4, 4).unwrap(), head: Linear::new(4, 2).unwrap() };
    net.assign_names();
    let x = leaf(&[2, 4]);
    let run = |policy: &Policy| {
        policy.run(|| {
            let h = net.body.forward(&x).unwrap();
            (h.dtype(), net.head.forward(&h).unwrap().dtype())
        })
    };
    let base = Policy::autocast(DType::F16);
    assert_eq!(run(&base), (DType::F16, DType::F16));
    let head = base.clone().except("*", "head", CastPolicy::F32).unwrap();
    assert_eq!(run(&head), (DType::F16, DType::F32));
    let all =
        base.clone().except("mat*", "*", CastPolicy::F32).unwrap().except("matmul", "b?dy", CastPolicy::Lower).unwrap();
    assert_eq!(run(&all), (DType::F16, DType::F32));
    assert!(matches!(base.except("[", "*", CastPolicy::F32), Err(Error::Policy(_))));
}

#[test]
fn jmps_strings_follow_its_rules() {
    let of = |s: &str| Policy::parse(s).map(|p| (p.param(), p.compute(), p.output())).unwrap();
    let (f32, f16, bf16) = (DType::F32, DType::F16, DType::BF16);
    assert_eq!(of("p=f32,c=f16,o=f32"), (f32, Some(f16), Some(f32)));
    assert_eq!(of("c=bfloat16"), (f32, Some(bf16), Some(bf16)));
    assert_eq!(of("p=half"), (f16, Some(f16), Some(f16)));
    assert_eq!(of("params=float16,compute=f32,output=full"), (f16, None, Some(f32)));
    assert_eq!(of("bf16"), (bf16, Some(bf16), Some(bf16)));
    assert_eq!(of("off"), (f32, None, None));
    assert_eq!(Policy::parse("torch-cpu:bf16").unwrap(), Policy::torch_cpu(bf16));
    assert_eq!(Policy::parse("apex:O1").unwrap(), Policy::autocast(f16));
    for bad in ["p=f33", "q=f32", "p", "c=f16;o=f32", "apex:O4", "torch:int8", "nothing:f16", ""] {
        assert!(Policy::parse(bad).is_err(), "{bad:?}");
    }
}

#[test]
fn weight_gradients_are_rounded_as_pytorchs_are_or_kept_in_f32() {
    let (x, w) = (leaf(&[64, 4]).detach(), leaf(&[4, 8]));
    let gradient = |policy: &Policy| {
        let loss = policy.run(|| x.matmul(&w).unwrap().sum(&[], false)).unwrap();
        loss.backward().unwrap().get(&w).unwrap().clone()
    };
    let torch = gradient(&Policy::autocast(DType::BF16));
    let wide = gradient(&Policy::autocast(DType::BF16).with_f32_weight_gradients());
    assert_eq!((torch.dtype(), wide.dtype()), (DType::F32, DType::F32));
    let rounded =
        |a: &Array| a.cast(DType::BF16, Class::Workspace).unwrap().cast(DType::F32, Class::Workspace).unwrap();
    assert_ne!(bits(&wide), bits(&rounded(&wide)));
    assert_eq!(bits(&torch), bits(&rounded(&wide)));
}

#[test]
fn a_weight_used_twice_gets_the_sum_of_both_gradients_in_f32() {
    let (a, b, w) = (leaf(&[3, 4]).detach(), (&leaf(&[3, 4]).detach() * 1e-3).unwrap(), leaf(&[4, 4]));
    let one = |x: &Var| {
        let loss = autocast(DType::BF16, || x.matmul(&w).unwrap().sum(&[], false)).unwrap();
        loss.backward().unwrap().get(&w).unwrap().to_vec::<f32>().unwrap()
    };
    let both = autocast(DType::BF16, || {
        let (p, q) = (a.matmul(&w).unwrap().sum(&[], false).unwrap(), b.matmul(&w).unwrap().sum(&[], false).unwrap());
        p.add(&q).unwrap()
    });
    let found = both.backward().unwrap().get(&w).unwrap().to_vec::<f32>().unwrap();
    let expected: Vec<f32> = one(&a).iter().zip(one(&b)).map(|(p, q)| p + q).collect();
    assert_eq!(found, expected);
}

#[test]
fn no_tensor_is_cast_twice_in_a_region() {
    use std::sync::{Arc, Mutex};
    let net = Sequential::new().then(Linear::new(8, 8).unwrap()).then(Linear::new(8, 8).unwrap());
    let x = leaf(&[2, 8]).detach();
    let seen = Arc::new(Mutex::new(Vec::<(u64, DType)>::new()));
    let sink = seen.clone();
    let observer: scope::Observer = Arc::new(move |event| {
        if let binade_tensor::Op::Cast(to) = event.op {
            sink.lock().unwrap().push((event.ins[0].storage().id(), *to));
        }
    });
    let losses = scope::with_observer(observer, || {
        autocast(DType::F16, || {
            no_grad(|| net.forward(&x)).unwrap();
            let h = net.forward(&x).unwrap();
            net.forward(&h).unwrap().sum(&[], false).unwrap()
        })
    });
    drop(losses);
    let casts = seen.lock().unwrap().clone();
    let weights: Vec<u64> = net.parameters().iter().map(|p| p.array().storage().id()).collect();
    for id in weights {
        assert_eq!(casts.iter().filter(|(from, _)| *from == id).count(), 1, "{casts:?}");
    }
}

#[test]
fn an_activation_is_cast_once_for_all_its_uses_in_a_region() {
    use std::sync::{Arc, Mutex};
    let attend = binade_nn::MultiHeadAttention::new(8, 2, 0.0).unwrap();
    let (x, y) = (leaf(&[1, 3, 8]).detach(), leaf(&[8, 3]));
    let product = || Ok(x.reshape(&[3, 8])?.matmul(&y)?.matmul(&y.transpose(0, 1)?)?);
    let attention = || attend.forward(&x, &x, None, false);
    type Forward<'a> = &'a dyn Fn() -> binade_nn::Result<Var>;
    let forwards: [(Forward<'_>, usize); 2] = [(&attention, 1), (&product, 1)];
    for (forward, uses) in forwards {
        for grad in [true, false] {
            let seen = Arc::new(Mutex::new(Vec::new()));
            let sink = seen.clone();
            let observer: scope::Observer = Arc::new(move |event| {
                if let binade_tensor::Op::Cast(_) = event.op {
                    sink.lock().unwrap().push(event.ins[0].storage().id());
                }
            });
            let run = || autocast(DType::F16, || (forward().unwrap(), forward().unwrap()));
            let (first, again) = scope::with_observer(observer, || if grad { run() } else { no_grad(run) });
            assert_eq!(bits(first.array()), bits(again.array()));
            let id = x.array().storage().id();
            assert_eq!(seen.lock().unwrap().iter().filter(|&&from| from == id).count(), uses);
        }
    }
}

#[test]
fn an_activation_changed_inside_a_region_is_cast_anew() {
    let (x, w) = (leaf(&[2, 2]).detach(), leaf(&[2, 2]));
    autocast(DType::F16, || {
        let before = bits(x.matmul(&w).unwrap().array());
        x.array()
            .copy_from(
                &Array::from_slice(&scope::device().unwrap(), &[9.0f32; 4], &[2, 2], Class::Activations).unwrap(),
            )
            .unwrap();
        assert_ne!(bits(x.matmul(&w).unwrap().array()), before);
    });
}

#[test]
fn preflight_recommends_by_what_autocast_would_have_in_f16() {
    use binade_amp::preflight::preflight;
    let net = scope::with_key(5, 0, || Linear::new(4, 4)).unwrap();
    let x = leaf(&[2000, 4]).detach();
    let recommended = |loss: &dyn Fn() -> binade_nn::Result<Var>| {
        let found = preflight(&net, || -> binade_amp::Result<Var> { Ok(loss()?) }).unwrap();
        (found.recommended, found.why)
    };
    // A sum is f32 under autocast, so that it may pass 65504.
    let summed = recommended(&|| Ok((&net.forward(&x)?.square()? * 1000.0)?.sum(&[], false)?));
    assert_eq!(summed.0, "f16", "{}", summed.1);
    // An activation in f16 may not.
    let wide = recommended(&|| Ok((&net.forward(&x)? * 1e6)?.mean(&[], false)?));
    assert_eq!(wide.0, "bf16");
    // Nor may an f32 result that a product takes.
    let taken = recommended(&|| Ok(net.forward(&(&x * 9.0)?.exp()?)?.log()?.mean(&[], false)?));
    assert!(taken.0 == "bf16" && taken.1.contains("exp"), "{}", taken.1);
}

#[test]
fn recommendations_scale_losses_exactly_where_f16_trains() {
    for hardware in Hardware::ALL {
        for purpose in [Purpose::Training, Purpose::Inference] {
            let r = Policy::recommend(hardware, purpose);
            let scaled = purpose == Purpose::Training && r.policy.compute() == Some(DType::F16);
            assert_eq!(r.loss_scale != LossScale::Off, scaled, "{hardware:?} {purpose:?}");
        }
    }
    let training = |h| Policy::recommend(h, Purpose::Training).policy.compute();
    assert_eq!(training(Hardware::CudaAmpere), Some(DType::BF16));
    assert_eq!(training(Hardware::CudaVolta), Some(DType::F16));
    assert_eq!(training(Hardware::Tpu), Some(DType::BF16));
    assert_eq!(training(Hardware::Cpu), Some(DType::BF16));
    assert_eq!(training(Hardware::CudaPascal), None);
}

#[test]
fn the_census_names_contractions_that_stay_in_f32() {
    use binade_amp::census;
    let net = Sequential::new().then(Linear::new(8, 8).unwrap()).then(Linear::new(8, 8).unwrap());
    net.assign_names();
    let x = leaf(&[2, 8]).detach();
    let loss = || -> binade_amp::Result<Var> { Ok(net.forward(&x)?.sum(&[], false)?) };
    let plain = census(&Policy::autocast(DType::F16), loss).unwrap();
    assert!(plain.wide_contractions.is_empty(), "{plain:?}");
    // Forward; a gradient by the input of the second; those of the weights, with their biases'.
    assert_eq!(plain.operators["matmul"][&DType::F16.to_string()], 2 + 1);
    assert_eq!(plain.operators["matmul_with_sums"][&DType::F16.to_string()], 2);
    assert!(plain.cast_bytes() > 0);
    let wide = census(&Policy::autocast(DType::F16).except("matmul", "1", CastPolicy::F32).unwrap(), loss).unwrap();
    assert_eq!(wide.wide_contractions[0], ("1".to_string(), "matmul".to_string()));
    assert_eq!(census(&Policy::OFF, loss).unwrap().cast_bytes(), 0);
}

#[test]
fn test_autocast_custom_cast_inputs() {
    let (x, double) = (leaf(&[2, 2]), Var::constant(leaf(&[2, 2]).array().cast(DType::F64, Class::Workspace).unwrap()));
    let run = || {
        binade_amp::with_cast_inputs(DType::F32, &[&x.cast(DType::F16).unwrap(), &double], |ins| {
            (ins[0].dtype(), ins[1].dtype(), ins[0].matmul(&ins[0]).unwrap().dtype())
        })
        .unwrap()
    };
    // Inside, inputs are cast and nothing else is; outside, nothing happens.
    assert_eq!(autocast(DType::F16, run), (DType::F32, DType::F64, DType::F32));
    assert_eq!(run(), (DType::F16, DType::F64, DType::F16));
}

#[test]
fn results_come_out_in_the_dtype_the_policy_wants() {
    let policy = Policy::parse("p=f32,c=f16,o=f32").unwrap();
    let x = leaf(&[2, 2]);
    let y = policy.run(|| x.matmul(&x)).unwrap();
    assert_eq!((y.dtype(), policy.cast_output(&y).unwrap().dtype()), (DType::F16, DType::F32));
    assert_eq!(Policy::autocast(DType::F16).cast_output(&y).unwrap().dtype(), DType::F16);
}
