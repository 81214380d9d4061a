//! Autocast's dtypes and regions, and the scaler with a real optimiser.

use binade_amp::{CastPolicy, GradScaler, LossScale, Policy, StepOutcome, autocast, autocast_with};
use binade_autograd::{Var, no_grad, scope};
use binade_cpu::{Cpu, Isa};
use binade_nn::{AdamW, BatchNorm2d, Layer, Linear, Module, Optimizer};
use binade_tensor::op::{Attention, Conv2d, CrossEntropy, Reduction};
use binade_tensor::{Array, Class, DType, Device};

fn tensor(dims: &[usize], dtype: DType) -> Var {
    let n: usize = dims.iter().product();
    let values: Vec<f32> = (0..n).map(|i| 0.1 + (i as f32 * 0.61).sin().abs()).collect();
    Var::leaf(
        Array::from_slice(&scope::device().unwrap(), &values, dims, Class::Weights)
            .unwrap()
            .cast(dtype, Class::Casts)
            .unwrap(),
    )
}

type Case = (&'static str, fn(&Var) -> binade_autograd::Result<Var>);

#[test]
fn each_operator_gives_the_dtype_of_its_class() {
    let lower: &[Case] = &[
        ("matmul", |x| x.matmul(x)),
        ("prelu", |x| x.prelu(x)),
        ("einsum", |x| Var::einsum("ij,jk->ik", &[x, x])),
        ("linear", |x| x.linear(x, None, None)),
        ("conv2d", |x| x.reshape(&[1, 1, 4, 4])?.conv2d(&x.reshape(&[1, 1, 4, 4])?, None, Conv2d::default(), None)),
        ("attention", |x| x.attention(x, x, Attention::default())),
    ];
    let f32: &[Case] = &[
        ("exp", Var::exp),
        ("log", Var::log),
        ("rsqrt", Var::rsqrt),
        ("reciprocal", Var::reciprocal),
        ("softmax", |x| x.softmax(-1)),
        ("log_softmax", |x| x.log_softmax(-1)),
        ("layer_norm", |x| x.layer_norm(1, None, 1e-5)),
        ("group_norm", |x| x.reshape(&[1, 4, 4])?.group_norm(2, None, 1e-5)),
        ("sum", |x| x.sum(&[], false)),
        ("mse_loss", |x| x.mse_loss(x, Reduction::Mean)),
        ("l1_loss", |x| x.l1_loss(x, Reduction::Mean)),
        ("bce_with_logits", |x| x.bce_with_logits(x, None, None, Reduction::Mean)),
        ("kl_div", |x| x.kl_div(x, false, binade_autograd::KlReduction::BatchMean)),
        ("nll_loss", |x| x.nll_loss(&Var::arange(0, 4)?, None, -100, Reduction::Mean)),
        ("cosine_similarity", |x| x.cosine_similarity(x, 1, 1e-8)),
        ("rms_norm", |x| x.rms_norm(1, None, 1e-5)),
        ("pow", |x| x.pow_scalar(2.0)),
        ("softplus", |x| x.softplus_with(1.0)),
        ("tan", Var::tan),
        ("prod", |x| x.prod(&[], false)),
        ("cumsum", |x| x.cumsum(0)),
        ("logsumexp", |x| x.logsumexp(&[], false)),
        ("norm", |x| x.vector_norm(2.0, &[], false)),
        ("interpolate", |x| x.reshape(&[1, 1, 4, 4])?.interpolate(&[8, 8], binade_tensor::op::Interpolation::Nearest)),
    ];
    let neutral: &[Case] = &[
        ("relu", Var::relu),
        ("mish", Var::mish),
        ("leaky_relu", |x| x.leaky_relu_with(0.1)),
        ("flip", |x| x.flip(&[0])),
        ("sort", |x| Ok(x.sort(0, false)?.0)),
        ("sin", Var::sin),
        ("gelu", Var::gelu),
        ("tanh", Var::tanh),
        ("sqrt", Var::sqrt),
        ("add", |x| x.add(x)),
        ("mean", |x| x.mean(&[], false)),
        ("cat", |x| Var::cat(&[x, x], 0)),
        ("max_pool2d", |x| x.reshape(&[1, 1, 4, 4])?.max_pool2d([2, 2], [2, 2], [0, 0])),
        ("embedding", |x| {
            x.embedding(&Var::constant(Array::from_slice(&scope::device().unwrap(), &[1i64], &[1], Class::Indices)?))
        }),
    ];
    for low in [DType::F16, DType::BF16] {
        for from in [DType::F32, low] {
            let x = tensor(&[4, 4], from);
            for (cases, want) in [(lower, low), (f32, DType::F32), (neutral, from)] {
                for (name, f) in cases {
                    assert_eq!(autocast(low, || f(&x)).unwrap().dtype(), want, "{name} of {from} in {low}");
                }
            }
            // Doubles are never cast.
            let double = tensor(&[4, 4], DType::F64);
            for (name, f) in lower.iter().chain(f32) {
                assert_eq!(autocast(low, || f(&double)).unwrap().dtype(), DType::F64, "{name}");
            }
        }
    }
}

#[test]
fn a_low_residual_stream_rounds_sums_with_a_16_bit_operand_and_no_others() {
    for low in [DType::F16, DType::BF16] {
        let policies = [
            Policy::autocast(low).with_low_residual(),
            Policy::parse(if low == DType::F16 { "torch:f16,residual=low" } else { "torch:bf16,residual=low" })
                .unwrap(),
        ];
        let (wide, half) = (tensor(&[4, 4], DType::F32), tensor(&[4, 4], low));
        for policy in policies {
            let sum = policy.run(|| &wide + &half).unwrap();
            let exact = (&wide + &half).unwrap();
            assert_eq!((sum.dtype(), exact.dtype()), (low, DType::F32));
            // One rounding of the exact sum, in either order of the operands.
            let rounded = exact.cast(low).unwrap().array().to_f64_vec().unwrap();
            assert_eq!(sum.array().to_f64_vec().unwrap(), rounded);
            assert_eq!(policy.run(|| &half + &wide).unwrap().array().to_f64_vec().unwrap(), rounded);
            // Losses and embeddings: no operand is 16-bit. Other operators promote as before.
            assert_eq!(policy.run(|| &wide + &wide).unwrap().dtype(), DType::F32);
            assert_eq!(policy.run(|| &wide - &half).unwrap().dtype(), DType::F32);
            let kept = policy.except("add", "*", CastPolicy::Promote).unwrap();
            assert_eq!(kept.run(|| &wide + &half).unwrap().dtype(), DType::F32, "an exception decides first");
        }
        assert_eq!(Policy::autocast(low).run(|| &wide + &half).unwrap().dtype(), DType::F32);
        assert_eq!(Policy::OFF.with_low_residual().run(|| &wide + &half).unwrap().dtype(), DType::F32, "off is off");
    }
}

#[test]
fn regions_nest_can_be_disabled_and_end_on_panic() {
    let x = tensor(&[2, 2], DType::F32);
    let dtype = || x.matmul(&x).unwrap().dtype();
    autocast(DType::BF16, || {
        assert_eq!(dtype(), DType::BF16);
        autocast(DType::F16, || assert_eq!(dtype(), DType::F16));
        autocast_with(&Policy::OFF, || assert_eq!(dtype(), DType::F32));
        assert_eq!(dtype(), DType::BF16);
    });
    assert_eq!(autocast(DType::F32, dtype), DType::F32);
    let _ = std::panic::catch_unwind(|| autocast(DType::F16, || panic!("inside")));
    assert_eq!(dtype(), DType::F32);
    // Another thread starts without a policy.
    autocast(DType::F16, || std::thread::scope(|s| s.spawn(|| assert_eq!(dtype(), DType::F32)).join().unwrap()));
}

#[test]
fn a_weight_changed_inside_a_region_is_cast_anew() {
    let w = tensor(&[2, 2], DType::F32);
    autocast(DType::F16, || {
        let before = w.matmul(&w).unwrap().array().to_f64_vec().unwrap();
        w.array()
            .copy_from(&Array::from_slice(&scope::device().unwrap(), &[9.0f32; 4], &[2, 2], Class::Weights).unwrap())
            .unwrap();
        let after = w.matmul(&w).unwrap().array().to_f64_vec().unwrap();
        assert_ne!(before, after);
        assert_eq!(after, [162.0; 4]);
    });
}

#[test]
fn no_grad_first_then_gradients_in_one_region() {
    let w = tensor(&[2, 2], DType::F32);
    let gradient = autocast(DType::F16, || {
        no_grad(|| w.matmul(&w)).unwrap();
        w.matmul(&w).unwrap().sum(&[], false).unwrap().backward().unwrap()
    });
    assert_eq!(gradient.get(&w).unwrap().dtype(), DType::F32);
}

#[test]
fn memory_is_constant_over_a_hundred_forwards_without_gradients() {
    // Other tests hold casts on the device that they share.
    let device = Device::new(Cpu::with_isa(Isa::detect()));
    scope::with_device(&device, || {
        let w = tensor(&[64, 64], DType::F32);
        let live = || device.memory().live(Class::Casts);
        let run = || autocast(DType::F16, || no_grad(|| w.matmul(&w)).unwrap());
        run();
        let before = live();
        (0..100).for_each(|_| drop(run()));
        assert_eq!(live(), before);
    });
}

/// A step whose loss is `factor` times too large for f16 gradients is skipped and changes nothing.
#[test]
fn a_skipped_step_changes_no_weight_no_state_and_no_running_statistic() {
    let (norm, head) = scope::with_key(1, 1, || (BatchNorm2d::new(2).unwrap(), Linear::new(8, 3).unwrap()));
    #[derive(Clone, Module)]
    struct Net {
        norm: BatchNorm2d,
        head: Linear,
    }
    use binade_nn::Visitor;
    let net = Net { norm, head };
    let mut optimizer = Optimizer::new(&net, AdamW::default()).unwrap();
    let mut scaler = GradScaler::new(LossScale::dynamic()).unwrap();
    let target = Var::constant(Array::from_slice(&scope::device().unwrap(), &[0i64, 1], &[2], Class::Indices).unwrap());
    let x = tensor(&[2, 2, 2, 2], DType::F32).detach();
    let snapshot = |net: &Net| -> Vec<Vec<f64>> {
        binade_nn::state_dict(net).iter().map(|(_, a)| a.to_f64_vec().unwrap()).collect()
    };
    let mut step = |factor: f64| {
        let loss = autocast(DType::F16, || {
            let h = net.norm.forward(&x).unwrap().flatten(1).unwrap();
            (&net.head.forward(&h).unwrap().cross_entropy(&target, CrossEntropy::default()).unwrap() * factor).unwrap()
        });
        let gradients = scaler.scale(&loss).unwrap().backward().unwrap();
        let outcome = scaler.step(&mut optimizer, &gradients).unwrap();
        scaler.update().unwrap();
        (outcome, scaler.loss_scale(), optimizer.steps().len())
    };
    let before = snapshot(&net);
    assert_eq!(step(1e6), (StepOutcome::Skipped, 32768.0, 0));
    assert_eq!(snapshot(&net), before);
    assert_eq!(step(1e-3).0, StepOutcome::Applied);
    let after = snapshot(&net);
    assert!(before.iter().zip(&after).all(|(b, a)| b != a), "every tensor moves in an applied step");
}

#[test]
fn misuse_of_the_scaler_is_an_error() {
    let w = tensor(&[2, 2], DType::F32);
    let mut scaler = GradScaler::new(LossScale::dynamic()).unwrap();
    let mut gradients = scaler.scale(&w.sum(&[], false).unwrap()).unwrap().backward().unwrap();
    let param = binade_nn::Param::from_leaf(&w).unwrap();
    let optimizer = Optimizer::empty().with_group(vec![("w".into(), param)], AdamW::default()).unwrap();
    scaler.unscale(&optimizer, &mut gradients).unwrap();
    assert!(scaler.unscale(&optimizer, &mut gradients).is_err());
    assert_eq!(gradients.get(&w).unwrap().to_vec::<f32>().unwrap(), [1.0; 4]);
    assert!(scaler.step(&mut Optimizer::empty(), &Default::default()).is_err());
}

#[test]
fn binary_cross_entropy_of_probabilities_is_refused_inside_a_region() {
    let (x, t) = (tensor(&[3], DType::F16).sigmoid().unwrap(), tensor(&[3], DType::F32).sigmoid().unwrap());
    let inside = autocast(DType::F16, || x.bce(&t, None, Reduction::Mean)).unwrap_err().to_string();
    assert!(
        inside.starts_with("binary_cross_entropy") && inside.contains("binary_cross_entropy_with_logits"),
        "{inside}"
    );
    assert!(autocast(DType::F16, || autocast_with(&Policy::OFF, || x.bce(&t, None, Reduction::Mean))).is_ok());
    assert!(x.bce(&t, None, Reduction::Mean).is_ok());
}
