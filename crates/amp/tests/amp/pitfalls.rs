//! What others fell into, one test each; docs/pitfalls.md maps the reports to them. And what stays in f32, as five
//! tests.

use binade_amp::{Dynamic, Error, GradScaler, LossScale, Policy, Refill, Result, StepOutcome, autocast};
use binade_autograd::{Gradients, Var, grad, scope};
use binade_cpu as _;
use binade_nn::{AdamW, Layer as _, Linear, Optimizer, Param, Sgd};
use binade_tensor::op::Reduction;
use binade_tensor::{Array, Class, DType, Device, Shape};

fn array(values: &[f32], dims: &[usize]) -> Array {
    Array::from_slice(&Device::cpu(), values, dims, Class::Weights).unwrap()
}

fn half(values: &[f32], dims: &[usize], dtype: DType) -> Var {
    Var::leaf(array(values, dims).cast(dtype, Class::Activations).unwrap())
}

fn full(dtype: DType, dims: &[usize], value: f64) -> Array {
    Array::full(&Device::cpu(), dtype, Shape::new(dims).unwrap(), value, Class::Weights).unwrap()
}

fn scaler(init_scale: f64) -> GradScaler {
    GradScaler::new(LossScale::Dynamic(Dynamic { init_scale, ..Dynamic::default() })).unwrap()
}

/// A parameter, its optimiser, and gradients for it.
fn one(values: &[f32], gradient: &[f32]) -> (Param, Optimizer, Gradients) {
    let param = Param::new(array(values, &[values.len()]));
    let optimizer =
        Optimizer::empty().with_group(vec![("w".into(), param.clone())], Sgd { lr: 1.0, ..Sgd::default() }).unwrap();
    let mut grads = Gradients::default();
    grads.insert(param.id(), array(gradient, &[gradient.len()]));
    (param, optimizer, grads)
}

// ---- the scaler

#[test]
fn every_order_of_calls_is_allowed_or_its_own_error() {
    let fresh = || (scaler(4.0), one(&[1.0], &[4.0]));
    let (mut s, (_, o, mut g)) = fresh();
    assert!(matches!(s.update(), Err(Error::NothingChecked)));
    s.unscale(&o, &mut g).unwrap();
    assert!(matches!(s.unscale(&o, &mut g), Err(Error::AlreadyUnscaled)));
    assert!(matches!(s.state(), Err(Error::MidStep)));
    s.update().unwrap();
    assert!(s.state().is_ok());
    let (mut s, (p, mut o, mut g)) = fresh();
    assert_eq!(s.step(&mut o, &g).unwrap(), StepOutcome::Applied);
    assert_eq!(p.array().item().unwrap(), 0.0);
    assert!(matches!(s.step(&mut o, &g), Err(Error::AlreadyStepped)));
    assert!(matches!(s.unscale(&o, &mut g), Err(Error::UnscaledAfterStep)));
    s.update().unwrap();
    assert_eq!(s.step(&mut o, &g).unwrap(), StepOutcome::Applied);
    let (mut s, (_, mut o, _)) = fresh();
    assert!(matches!(s.step(&mut o, &Gradients::default()), Err(Error::NoGradients)));
    assert!(matches!(s.step(&mut Optimizer::empty(), &fresh().1.2), Err(Error::NoGradients)));
}

#[test]
fn off_passes_everything_through() {
    let mut s = GradScaler::new(LossScale::Off).unwrap();
    let (p, mut o, mut g) = one(&[1.0], &[0.25]);
    s.unscale(&o, &mut g).unwrap();
    s.unscale(&o, &mut g).unwrap();
    assert_eq!(s.step(&mut o, &g).unwrap(), StepOutcome::Applied);
    s.update().unwrap();
    s.set_scale(7).unwrap();
    assert_eq!((p.array().item().unwrap(), s.loss_scale(), s.is_enabled()), (0.75, 1.0, false));
}

#[test]
fn test_grad_scaling_state_dict() {
    let config = |init_scale, growth_factor, backoff_factor, growth_interval| {
        LossScale::Dynamic(Dynamic { init_scale, growth_factor, backoff_factor, growth_interval, ..Dynamic::default() })
    };
    let (s0, mut s1) =
        (GradScaler::new(config(3.0, 4.0, 0.5, 2)).unwrap(), GradScaler::new(config(6.0, 7.0, 0.8, 1)).unwrap());
    s1.set_config(s0.config()).unwrap();
    s1.load_state(s0.state().unwrap()).unwrap();
    assert_eq!((s1.config(), s1.state().unwrap()), (s0.config(), s0.state().unwrap()));
}

#[test]
fn test_grad_scaling_multiple() {
    // Two optimisers, an inf in one: it alone is skipped, and the common scale backs off once.
    let mut s = scaler(8.0);
    let (a, mut oa, ga) = one(&[1.0], &[8.0]);
    let (b, mut ob, gb) = one(&[1.0], &[f32::INFINITY]);
    assert_eq!(s.step(&mut oa, &ga).unwrap(), StepOutcome::Applied);
    assert_eq!(s.step(&mut ob, &gb).unwrap(), StepOutcome::Skipped);
    s.update().unwrap();
    assert_eq!((a.array().item().unwrap(), b.array().item().unwrap(), s.loss_scale()), (0.0, 1.0, 4.0));
}

#[test]
fn a_scaler_for_each_loss_keeps_a_bad_head_to_itself() {
    let (mut good, mut bad) = (scaler(8.0), scaler(8.0));
    let (_, mut oa, ga) = one(&[1.0], &[8.0]);
    let (_, mut ob, gb) = one(&[1.0], &[f32::NAN]);
    let _ = (good.step(&mut oa, &ga).unwrap(), bad.step(&mut ob, &gb).unwrap());
    good.update().unwrap();
    bad.update().unwrap();
    assert_eq!((good.loss_scale(), bad.loss_scale()), (8.0, 4.0));
}

#[test]
fn test_grad_scaling_accumulation() {
    let (w, x) = (Param::new(array(&[0.5, -0.25], &[2])), [1.0f32, 2.0, 3.0, 4.0]);
    let gradient = |scale: f64, parts: &[&[f32]]| {
        let mut s = scaler(scale);
        let o = Optimizer::empty().with_group(vec![("w".into(), w.clone())], AdamW::default()).unwrap();
        let mut sum = Gradients::default();
        for part in parts {
            let x = Var::constant(array(part, &[part.len() / 2, 2]));
            sum.add(s.scale(&w.var().mul(&x).unwrap().sum(&[], false).unwrap()).unwrap().backward().unwrap()).unwrap();
        }
        s.unscale(&o, &mut sum).unwrap();
        sum.by_id(w.id()).unwrap().to_vec::<f32>().unwrap()
    };
    assert_eq!(gradient(1024.0, &[&x[..2], &x[2..]]), gradient(1.0, &[&x]));
}

#[test]
fn gradients_of_16_bit_weights_are_accumulated_in_f32() {
    // In bf16 each of the small ones is lost beside 1.
    for (dtype, small) in [(DType::BF16, 2f64.powi(-9)), (DType::F16, 2f64.powi(-12))] {
        let param = Param::new(full(dtype, &[1], 1.0));
        let part = |value: f64| {
            let mut g = Gradients::default();
            g.insert(param.id(), full(dtype, &[1], value));
            g
        };
        let mut sum = part(1.0);
        (0..64).for_each(|_| sum.add(part(small)).unwrap());
        assert_eq!(sum.by_id(param.id()).unwrap().item().unwrap(), 1.0 + 64.0 * small, "{dtype}");
    }
}

#[test]
fn test_grad_scaling_clipping() {
    // Clipped after unscaling, the result is that of f32 without scaling.
    let clipped = |scale: f64| {
        let (p, mut o, mut g) = one(&[1.0, 1.0], &[(3.0 * scale) as f32, (4.0 * scale) as f32]);
        let mut s = scaler(scale);
        s.unscale(&o, &mut g).unwrap();
        assert_eq!(binade_nn::clip_grad_norm(&mut g, 1.0).unwrap(), 5.0);
        let _ = s.step(&mut o, &g).unwrap();
        p.array().to_vec::<f32>().unwrap()
    };
    assert_eq!(clipped(1.0), clipped(1024.0));
}

/// PyTorch's `_run_scaling_case`: the second of two batches in every three is bad; the scale is backed off, then grows,
/// and the weights are those of plain training without the bad batch.
#[test]
fn test_grad_scaling_autocast() {
    let build = || scope::with_key(9, 0, || (Linear::new(8, 8).unwrap(), Linear::new(8, 8).unwrap()));
    let run = |net: &(Linear, Linear), i: usize| -> Result<Var> {
        let x: Vec<f32> = (0..64).map(|k| ((k * 7 + i * 13) as f32 * 0.37).sin()).collect();
        let y: Vec<f32> = (0..64).map(|k| ((k * 5 + i * 11) as f32 * 0.53).cos()).collect();
        let x = Var::constant(array(&x, &[8, 8]));
        let out = autocast(DType::F16, || net.1.forward(&net.0.forward(&x)?))?;
        Ok(out.cast(DType::F32)?.mse_loss(&Var::constant(array(&y, &[8, 8])), Reduction::Mean)?)
    };
    let optimizer = |net: &(Linear, Linear)| {
        let params =
            [&net.0.weight, &net.1.weight].iter().enumerate().map(|(i, p)| (i.to_string(), (*p).clone())).collect();
        Optimizer::empty().with_group(params, Sgd { lr: 1.0, ..Sgd::default() }).unwrap()
    };
    let (scaled, control) = (build(), build());
    let (mut opt, mut plain) = (optimizer(&scaled), optimizer(&control));
    let mut s = GradScaler::new(LossScale::Dynamic(Dynamic {
        init_scale: 128.0,
        growth_factor: 2.0,
        backoff_factor: 0.5,
        growth_interval: 1,
        ..Dynamic::default()
    }))
    .unwrap();
    for i in 0..4 {
        let mut grads = s.scale(&run(&scaled, i).unwrap()).unwrap().backward().unwrap();
        if i == 2 {
            let id = scaled.1.weight.id();
            let mut bad = grads.by_id(id).unwrap().to_f64_vec().unwrap();
            bad[0] = f64::INFINITY;
            grads.insert(id, array(&bad.iter().map(|&v| v as f32).collect::<Vec<_>>(), &[8, 8]));
        }
        assert_eq!(s.step(&mut opt, &grads).unwrap() == StepOutcome::Skipped, i == 2);
        s.update().unwrap();
        if i != 2 {
            let _ = plain.step(&run(&control, i).unwrap().backward().unwrap()).unwrap();
        }
    }
    assert_eq!(s.loss_scale(), 128.0 * 2f64.powi(3) * 0.5);
    for (a, b) in [(&scaled.0, &control.0), (&scaled.1, &control.1)] {
        let (a, b) = (a.weight.array().to_f64_vec().unwrap(), b.weight.array().to_f64_vec().unwrap());
        assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() <= 1e-7 + 1e-5 * b.abs()), "{a:?} {b:?}");
    }
}

#[test]
fn test_grad_scaling_penalty() {
    // Gradients of gradients under f16 and scaling, against f32.
    let x: Vec<f32> = (0..32).map(|i| (i as f32 * 0.3).sin()).collect();
    let x = Var::constant(array(&x, &[8, 4]));
    let run = |policy: Policy, scale: f64| {
        let net = scope::with_key(2, 0, || Linear::new(4, 4)).unwrap();
        let (weight, mut s) = (net.weight.clone(), scaler(scale));
        let loss = policy.run(|| net.forward(&x).unwrap().square().unwrap().mean(&[], false)).unwrap();
        let first = grad(&s.scale(&loss).unwrap(), &[&weight.var()], None, true).unwrap().remove(0).unwrap();
        let penalty = (&first * (1.0 / s.loss_scale())).unwrap().square().unwrap().sum(&[], false).unwrap();
        let total = s.scale(&loss.cast(DType::F32).unwrap().add(&penalty).unwrap()).unwrap();
        let mut grads = total.backward().unwrap();
        assert!(!binade_nn::unscale(&mut grads, None, s.loss_scale()).unwrap());
        grads.by_id(weight.id()).unwrap().to_f64_vec().unwrap()
    };
    let (exact, found) = (run(Policy::OFF, 1.0), run(Policy::autocast(DType::F16), 1024.0));
    let largest = exact.iter().fold(0f64, |m, v| m.max(v.abs()));
    for (e, f) in exact.iter().zip(&found) {
        // Some twenty roundings to 11 bits, relative to the largest.
        assert!((e - f).abs() <= 20.0 * 2f64.powi(-11) * largest, "{f} instead of {e}");
    }
}

#[test]
fn a_product_that_overflows_in_unscaling_is_seen() {
    let mut s = scaler(2f64.powi(-20));
    let (p, mut o, g) = one(&[1.0], &[1e38]);
    assert_eq!(s.step(&mut o, &g).unwrap(), StepOutcome::Skipped);
    assert_eq!(p.array().item().unwrap(), 1.0);
}

#[test]
fn every_scale_has_a_finite_inverse_or_is_refused() {
    for exponent in -149..=127 {
        let scale = 2f64.powi(exponent);
        let mut s = scaler(1.0);
        match s.set_scale(scale) {
            Ok(()) => {
                let (p, mut o, g) = one(&[0.0], &[scale as f32]);
                assert_eq!(s.step(&mut o, &g).unwrap(), StepOutcome::Applied);
                assert_eq!(p.array().item().unwrap(), -1.0, "2^{exponent}");
            }
            Err(Error::Setting { .. }) => assert!(exponent < -126),
            Err(other) => panic!("{other}"),
        }
    }
    assert!(scaler(1.0).set_scale(f64::NAN).is_err());
}

#[test]
fn three_hundred_bad_steps_end_in_an_error_above_the_smallest_scale() {
    let mut s =
        GradScaler::new(LossScale::Dynamic(Dynamic { min_scale: 1.0, refill: Refill::GoodStep, ..Dynamic::default() }))
            .unwrap();
    let (_, mut o, g) = one(&[1.0], &[f32::NAN]);
    let error = (0..300).find_map(|_| {
        assert_eq!(s.step(&mut o, &g).unwrap(), StepOutcome::Skipped);
        s.update().err()
    });
    assert!(matches!(error, Some(Error::Stalled { scale: 1.0, steps: 21, blame: None })), "{error:?}");
}

#[test]
fn an_optimiser_that_took_the_place_of_a_dropped_one_is_another() {
    let mut s = scaler(4.0);
    let (_, mut o, g) = one(&[1.0], &[4.0]);
    let _ = s.step(&mut o, &g).unwrap();
    drop(std::mem::replace(&mut o, Optimizer::empty()));
    let (_, mut o, g) = one(&[1.0], &[4.0]);
    assert_eq!(s.step(&mut o, &g).unwrap(), StepOutcome::Applied);
    assert_ne!(o.id(), o.clone().id());
}

#[test]
fn f16_gradients_are_widened_before_unscaling() {
    // 2^-10 / 65536 = 2^-26 is 0 in f16.
    let param = Param::new(full(DType::F16, &[1], 1.0));
    let o = Optimizer::empty().with_group(vec![("w".into(), param.clone())], Sgd::default()).unwrap();
    let mut g = Gradients::default();
    g.insert(param.id(), full(DType::F16, &[1], 2f64.powi(-10)));
    scaler(65536.0).unscale(&o, &mut g).unwrap();
    let unscaled = g.by_id(param.id()).unwrap();
    assert_eq!((unscaled.dtype(), unscaled.item().unwrap()), (DType::F32, 2f64.powi(-26)));
}

#[test]
fn duplicated_indices_whose_sum_overflows_are_seen() {
    // test_grad_scaling_unscale_sparse: 64000 twice at one index of an f16 weight.
    let weight = Param::new(full(DType::F16, &[3, 1], 1.0));
    let index = Var::constant(Array::from_slice(&Device::cpu(), &[1i64, 1], &[2], Class::Indices).unwrap());
    let rows = weight.var().embedding(&index).unwrap();
    let upstream = full(DType::F16, &[2, 1], 64000.0);
    let grads = rows.backward_with(&upstream).unwrap();
    let mut o = Optimizer::empty().with_group(vec![("w".into(), weight.clone())], Sgd::default()).unwrap();
    assert_eq!(scaler(1.0).step(&mut o, &grads).unwrap(), StepOutcome::Skipped);
}

#[test]
fn promotion_of_a_foreign_16_bit_dtype_names_both() {
    let (a, b) = (half(&[1.0], &[1], DType::F16), Var::leaf(array(&[1.0], &[1])));
    let error = autocast(DType::BF16, || a.atan2(&b)).unwrap_err().to_string();
    assert!(error.contains("f16") && error.contains("bf16") && error.contains("atan2"), "{error}");
}

#[test]
fn worker_threads_inherit_a_captured_scope_only() {
    let x = Var::leaf(array(&[1.0; 4], &[2, 2]));
    autocast(DType::BF16, || {
        let captured = scope::capture();
        let (plain, inherited) = std::thread::scope(|s| {
            let plain = s.spawn(|| x.matmul(&x).unwrap().dtype()).join().unwrap();
            (plain, s.spawn(|| scope::run_in(&captured, || x.matmul(&x).unwrap().dtype())).join().unwrap())
        });
        assert_eq!((plain, inherited), (DType::F32, DType::BF16));
    });
}

#[test]
fn backward_on_another_thread_gives_the_same_bits() -> Result<()> {
    let w = Var::leaf(array(&[0.3, -0.7, 1.1, 0.2], &[2, 2]));
    let loss = || autocast(DType::BF16, || w.matmul(&w).unwrap().sum(&[], false));
    let here = loss()?.backward()?;
    let other = loss()?;
    let there = std::thread::scope(|s| s.spawn(move || other.backward()).join().unwrap())?;
    let bits = |g: &Gradients| g.get(&w).unwrap().to_vec::<f32>().unwrap();
    assert_eq!(bits(&here), bits(&there));
    Ok(())
}
