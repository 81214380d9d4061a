//! Settings of policies are carried out: parameters in 16 bit with f32 masters, results in f32; and each is written as
//! it is read.

use binade_amp::{CastPolicy, LossScale, Policy, StepOutcome, Table, Training};
use binade_autograd::{Var, scope};
use binade_cpu as _;
use binade_nn::{BatchNorm2d, Conv2d, Layer, LayerNorm, Module, Optimizer, Param, Sgd, Visitor};
use binade_tensor::op::CrossEntropy;
use binade_tensor::{Array, Class, DType, Shape};

#[derive(Clone, Module)]
struct Net {
    conv: Conv2d,
    batch: BatchNorm2d,
    layer: LayerNorm,
}

impl Net {
    fn new() -> Net {
        Net {
            conv: Conv2d::new(1, 3, 1).unwrap(),
            batch: BatchNorm2d::new(3).unwrap(),
            layer: LayerNorm::new(3).unwrap(),
        }
    }

    /// `[4, 1, 2, 2]` to `[4, 3]`.
    fn forward(&self, x: &Var) -> binade_nn::Result<Var> {
        self.layer.forward(&self.batch.forward(&self.conv.forward(x)?)?.mean(&[2, 3], false)?)
    }
}

fn images() -> Var {
    let values: Vec<f32> = (0..16).map(|i| (i as f32 * 0.7).sin()).collect();
    Var::constant(Array::from_slice(&scope::device().unwrap(), &values, &[4, 1, 2, 2], Class::Activations).unwrap())
}

fn loss(net: &Net) -> binade_amp::Result<Var> {
    let labels =
        Var::constant(Array::from_slice(&scope::device().unwrap(), &[0i64, 1, 2, 0], &[4], Class::Indices).unwrap());
    Ok(net.forward(&images())?.cross_entropy(&labels, CrossEntropy::default())?)
}

/// Dtypes of the weights of (convolution, batch norm, layer norm), of the model's result, and of its loss.
fn dtypes(policy: &str) -> [DType; 5] {
    let policy = Policy::parse(policy).unwrap();
    let net = policy.build(Net::new);
    let (y, loss) = policy.run(|| (net.forward(&images()).unwrap(), loss(&net).unwrap()));
    let [conv, batch, layer] = [&net.conv.weight, &net.batch.weight, &net.layer.weight].map(|p| p.dtype());
    [conv, batch, layer, y.dtype(), loss.dtype()]
}

#[test]
fn parameters_computation_and_losses_have_the_dtypes_a_policy_says() {
    let (f32, f16, bf16) = (DType::F32, DType::F16, DType::BF16);
    assert_eq!(dtypes("apex:O2"), [f16, f32, f16, f16, f32]);
    assert_eq!(dtypes("apex:O3"), [f16, f16, f16, f16, f16]);
    assert_eq!(dtypes("half"), [f16; 5]);
    assert_eq!(dtypes("p=bf16,c=bf16,o=f32"), [bf16, bf16, bf16, bf16, f32]);
    assert_eq!(dtypes("p=bf16,c=f32"), [bf16, bf16, bf16, f32, f32]);
    assert_eq!(dtypes("p=f32,c=f16,o=f32"), [f32, f32, f32, f16, f32]);
    assert_eq!(dtypes("torch:f16")[0], f32);
}

#[test]
fn parameters_in_16_bit_train_from_f32_masters() {
    let policy = Policy::parse("p=bf16,c=bf16,o=f32").unwrap();
    let net = scope::with_key(1, 0, || policy.build(Net::new));
    let start = net.conv.weight.array().to_f64_vec().unwrap();
    // Steps that bf16 alone would lose.
    let mut training =
        Training::new(Optimizer::new(&net, Sgd { lr: 1e-4, ..Sgd::default() }).unwrap(), policy, LossScale::Off)
            .unwrap();
    for _ in 0..50 {
        let step = training.step(|| loss(&net)).unwrap();
        assert_eq!(step.outcome, StepOutcome::Applied);
    }
    let state = training.optimizers[0].state_dict().unwrap();
    let master = state
        .tensors
        .iter()
        .find(|entry| entry.0 == "conv.weight.master")
        .map(|entry| entry.1.to_f64_vec().unwrap())
        .unwrap();
    assert_ne!(master, start);
    let rounded = |v: &f64| half(*v);
    assert_eq!(net.conv.weight.array().to_f64_vec().unwrap(), master.iter().map(rounded).collect::<Vec<_>>());
}

fn half(v: f64) -> f64 {
    let array = Array::from_slice(&scope::device().unwrap(), &[v as f32], &[1], Class::Workspace).unwrap();
    array.cast(DType::BF16, Class::Workspace).unwrap().item().unwrap()
}

#[test]
fn parameters_that_a_policy_would_store_otherwise_are_refused() {
    for policy in ["apex:O2", "apex:O3", "half", "p=bf16", "p=bf16,c=f32"] {
        let (policy, net) = (Policy::parse(policy).unwrap(), Net::new());
        let error = policy.run(|| net.forward(&images())).unwrap_err().to_string();
        assert!(error.contains("Policy::build"), "{error}");
        let mut training =
            Training::new(Optimizer::new(&net, Sgd::default()).unwrap(), policy, LossScale::Off).unwrap();
        assert!(training.step(|| loss(&net)).is_err());
    }
}

#[test]
fn a_policy_that_stores_nothing_in_16_bit_takes_parameters_as_they_are() {
    let net = Policy::parse("half").unwrap().build(Net::new);
    net.assign_names();
    let exception = |policy: Policy| policy.except("softmax", "conv", CastPolicy::F32).unwrap();
    let y = exception(Policy::autocast(DType::F16)).run(|| net.conv.forward(&images())).unwrap();
    assert_eq!(y.dtype(), DType::F16);
    // One that does takes those in f64 as they are: no policy touches them.
    let wide = Param::new(
        Array::full(net.conv.weight.array().device(), DType::F64, Shape::SCALAR, 2.0, Class::Weights).unwrap(),
    );
    let y = Policy::parse("half").unwrap().run(|| wide.var().square()).unwrap();
    assert_eq!((y.dtype(), y.item().unwrap()), (DType::F64, 4.0));
}

#[test]
fn an_output_that_no_policy_would_carry_out_is_refused() {
    for text in ["p=f32,c=f32,o=f16", "c=f16,o=bf16", "p=f16,c=f32,o=f16"] {
        assert!(Policy::parse(text).unwrap_err().to_string().contains("output"), "{text}");
    }
}

#[test]
fn every_policy_is_written_as_it_is_read() {
    let names = [
        "off",
        "f16",
        "bf16",
        "f32",
        "torch:f16",
        "torch:bf16",
        "torch-cpu:f16",
        "torch-cpu:bf16",
        "apex:O2",
        "apex:O3",
        "paddle-o1:f16",
        "paddle-o2:bf16",
        "paddle-od:f16",
        "p=f32,c=bf16,o=f32",
        "p=bf16,c=f32,o=f32",
        "p=f32,c=f16,o=any,table=paddle-o2",
        "p=f16,c=f16,o=f32,batch_norm=f32,wgrad=f32",
        "torch:f16,residual=low,wgrad=f32,except=softmax@blocks.*=lower",
        "off,except=*@*=f32_out",
    ];
    for name in names {
        let policy = Policy::parse(name).unwrap();
        assert_eq!(Policy::parse(&policy.to_string()).unwrap(), policy, "{name} as {policy}");
    }
    for name in &names[..13] {
        assert_eq!(Policy::parse(name).unwrap().to_string(), *name);
    }
    assert_eq!(Policy::apex(1).unwrap().to_string(), "torch:f16");
    let built = Policy::autocast(DType::F16).with_table(Table::Uniform).except("*", "head", CastPolicy::F32).unwrap();
    assert_eq!(Policy::parse(&built.to_string()).unwrap(), built);
    for bad in [
        "torch:f16,p=f32",
        "f16,nothing=1",
        "torch:f16,except=softmx@*=f32",
        "torch:f16,except=softmax=f32",
        "off,table=torch",
    ] {
        assert!(Policy::parse(bad).is_err(), "{bad}");
    }
}
