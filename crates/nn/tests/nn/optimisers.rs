//! Optimisers against their formulas in f64, schedules over groups, averages.

use binade_autograd::{Gradients, scope};
use binade_cpu as _;
use binade_nn::*;
use binade_tensor::{Array, ArrayMut, Class, DType, Device, Grad, Layout, Shape, Slot, Update};

fn values(device: &Device, n: usize, stream: u64) -> Array {
    let v: Vec<f32> = (0..n).map(|i| ((i as u64 * 37 + stream * 101) % 211) as f32 / 100.0 - 1.0).collect();
    Array::from_slice(device, &v, &[n], Class::Weights).unwrap()
}

/// Three steps of an update of a parameter of this shape on a device; the parameter and its state afterwards.
fn run(device: &Device, update: &Update, shape: &[usize], scalars: &[f32]) -> Vec<Vec<f64>> {
    let values = |stream| {
        let flat = values(device, shape.iter().product(), stream);
        flat.with_layout(Layout::contiguous(Shape::new(shape).unwrap())).unwrap()
    };
    let param = values(1);
    let zeros = |shape| Array::full(device, DType::F32, shape, 0.0, Class::Optimizer).unwrap();
    let state: Vec<Array> = update.states(param.shape()).into_iter().map(zeros).collect();
    for step in 0..3 {
        let grad = values(10 + step);
        let scalars = Array::from_slice(device, scalars, &[scalars.len()], Class::Optimizer).unwrap();
        let mut slots = [Slot {
            param: Some(ArrayMut::new("test", &param).unwrap()),
            master: None,
            grad: Grad::Read(&grad),
            state: state.iter().map(|s| ArrayMut::new("test", s).unwrap()).collect(),
            first: step == 0,
        }];
        device.update(update, &scalars, &mut slots).unwrap();
    }
    state.iter().chain([&param]).map(|a| a.to_f64_vec().unwrap()).collect()
}

#[test]
fn every_elementwise_rule_follows_its_formula() {
    let rules = [
        Update::Ema,
        Update::Adagrad { weight_decay: 0.1, eps: 1e-10, initial: 0.5 },
        Update::RmsProp { alpha: 0.9, eps: 1e-8, weight_decay: 0.1, momentum: 0.0, centered: false },
        Update::RmsProp { alpha: 0.9, eps: 1e-8, weight_decay: 0.0, momentum: 0.8, centered: false },
        Update::RmsProp { alpha: 0.9, eps: 1e-4, weight_decay: 0.0, momentum: 0.8, centered: true },
        Update::RmsProp { alpha: 0.9, eps: 1e-4, weight_decay: 0.0, momentum: 0.0, centered: true },
        Update::Lion { betas: [0.9, 0.99], weight_decay: 0.1 },
    ];
    for update in rules {
        // Across a task's edge.
        let (ours, exact) = (
            run(&Device::cpu(), &update, &[20_000], &[0.01, 0.25]),
            run(&Device::reference(), &update, &[20_000], &[0.01, 0.25]),
        );
        for (ours, exact) in ours.iter().zip(&exact) {
            for (o, e) in ours.iter().zip(exact) {
                // The reference rounds its state to f32 as well; near 0 a sign may differ by the rounding of its
                // argument.
                let allowed = 1e-5 * e.abs().max(1.0);
                assert!((o - e).abs() <= allowed, "{update:?}: {o} instead of {e}");
            }
        }
    }
}

#[test]
fn the_reference_has_adafactor_too() {
    let update = Update::Adafactor { decay: -0.8, eps: [1e-7, 1e-3], clip: 0.7, weight_decay: 0.1 };
    // A vector, a matrix, and matrices of which one is a row and one a column.
    for shape in [&[30][..], &[5, 6], &[3, 2, 5], &[2, 1, 7], &[2, 7, 1]] {
        let on = |device| run(&device, &update, shape, &[0.05, 3.0, 0.5]);
        for (ours, exact) in on(Device::cpu()).iter().zip(on(Device::reference())) {
            for (o, e) in ours.iter().zip(exact) {
                assert!((o - e).abs() <= 2e-6 * e.abs().max(0.1), "{shape:?}: {o} instead of {e}");
            }
        }
    }
}

/// PyTorch's Adafactor for one matrix or vector, in f64.
fn adafactor(p: &mut [f64], grads: &[Vec<f64>], shape: &[usize], o: &Adafactor) {
    let (r, c) = if let [r, c] = shape { (*r, *c) } else { (1, p.len()) };
    let (mut rows, mut columns, mut v) = (vec![0.0; r], vec![0.0; c], vec![0.0; p.len()]);
    let rms = |x: &[f64]| (x.iter().map(|v| v * v).sum::<f64>() / x.len() as f64).sqrt();
    for (t, g) in grads.iter().enumerate() {
        let t = (t + 1) as f64;
        let w = t.powf(o.beta2_decay);
        let square = |i: usize, j: usize| g[i * c + j] * g[i * c + j];
        let estimate: Vec<f64> = if shape.len() == 2 {
            for (i, row) in rows.iter_mut().enumerate() {
                *row += w * ((0..c).map(|j| square(i, j)).sum::<f64>() / c as f64 - *row);
            }
            for (j, column) in columns.iter_mut().enumerate() {
                *column += w * ((0..r).map(|i| square(i, j)).sum::<f64>() / r as f64 - *column);
            }
            let mean = rows.iter().sum::<f64>() / r as f64;
            (0..p.len()).map(|k| rows[k / c] * columns[k % c] / mean).collect()
        } else {
            v.iter_mut().zip(g).for_each(|(v, g)| *v += w * (g * g - *v));
            v.clone()
        };
        let u: Vec<f64> = g.iter().zip(&estimate).map(|(g, v)| g / v.sqrt()).collect();
        let alpha = o.eps[1].max(rms(p)) * o.lr.min(1.0 / t.sqrt());
        let clip = (rms(&u) / o.clip).max(1.0);
        p.iter_mut().zip(&u).for_each(|(p, u)| *p = *p * (1.0 - o.lr * o.weight_decay) - alpha / clip * u);
    }
}

#[test]
fn adafactor_factors_matrices_and_not_vectors() {
    let rule = Adafactor { lr: 0.05, weight_decay: 0.1, ..Adafactor::default() };
    for shape in [&[4usize, 6][..], &[24]] {
        let start = values(&scope::device().unwrap(), 24, 1).to_f64_vec().unwrap();
        let grads: Vec<Vec<f64>> =
            (0..3).map(|k| values(&scope::device().unwrap(), 24, 20 + k).to_f64_vec().unwrap()).collect();
        let narrow = |v: &[f64]| v.iter().map(|&v| v as f32).collect::<Vec<_>>();
        let param =
            Param::new(Array::from_slice(&scope::device().unwrap(), &narrow(&start), shape, Class::Weights).unwrap());
        let mut optimizer = Optimizer::empty().with_group(vec![("w".into(), param.clone())], rule).unwrap();
        for g in &grads {
            let mut all = Gradients::default();
            all.insert(
                param.id(),
                Array::from_slice(&scope::device().unwrap(), &narrow(g), shape, Class::Gradients).unwrap(),
            );
            assert_eq!(optimizer.step(&all).unwrap(), StepOutcome::Applied);
        }
        let mut expected = start;
        adafactor(&mut expected, &grads, shape, &rule);
        for (o, e) in param.array().to_f64_vec().unwrap().iter().zip(&expected) {
            assert!((o - e).abs() <= 2e-6, "{shape:?}: {o} instead of {e}");
        }
    }
}

#[test]
fn groups_are_chosen_by_name_and_shape() {
    let model = Sequential::new().then(Linear::new(3, 2).unwrap()).then(LayerNorm::new(2).unwrap());
    let optimizer = Optimizer::grouped(&model, |name, _| AdamW {
        weight_decay: if name == "0.weight" { 0.1 } else { 0.0 },
        ..AdamW::default()
    })
    .unwrap();
    let names: Vec<Vec<&str>> =
        optimizer.groups().iter().map(|g| g.params.iter().map(|(n, _)| n.as_str()).collect()).collect();
    assert_eq!(names, [vec!["0.weight"], vec!["0.bias", "1.weight", "1.bias"]]);
}

#[test]
fn clipping_by_value_limits_each_element_and_keeps_nan() {
    let param = Param::new(values(&scope::device().unwrap(), 4, 1));
    let mut grads = Gradients::default();
    let g =
        Array::from_slice(&scope::device().unwrap(), &[-3.0f32, 0.5, f32::NAN, f32::INFINITY], &[4], Class::Gradients)
            .unwrap();
    grads.insert(param.id(), g);
    clip_grad_value(&mut grads, 1.0).unwrap();
    let clipped = grads.by_id(param.id()).unwrap().to_f64_vec().unwrap();
    assert_eq!((clipped[0], clipped[1], clipped[3]), (-1.0, 0.5, 1.0));
    assert!(clipped[2].is_nan());
}

#[test]
fn averages_follow_16_bit_parameters_in_f32() {
    let model = Sequential::new().then(Linear::without_bias(1, 1).unwrap());
    let weight = model.parameters().remove(0);
    weight
        .array()
        .copy_from(&Array::from_slice(&scope::device().unwrap(), &[1.0f32], &[1, 1], Class::Weights).unwrap())
        .unwrap();
    let mut ema = Ema::new(&model, 0.999).unwrap();
    weight
        .array()
        .copy_from(&Array::from_slice(&scope::device().unwrap(), &[2.0f32], &[1, 1], Class::Weights).unwrap())
        .unwrap();
    ema.update().unwrap();
    // The first decay is 1/10: the average moves nine tenths of the way.
    let average = ema.averages().next().unwrap().1.item().unwrap();
    assert!((average - 1.9).abs() < 1e-6, "{average}");
    ema.swap().unwrap();
    assert!((weight.array().item().unwrap() - 1.9).abs() < 1e-6);
    ema.swap().unwrap();
    assert_eq!(weight.array().item().unwrap(), 2.0);
}

#[test]
fn a_pass_over_many_tensors_has_the_bits_of_passes_over_each() {
    let device = scope::device().unwrap();
    let update = Update::Adam { betas: [0.9, 0.999], eps: 1e-8, weight_decay: 0.01, decoupled: true };
    let scalars = Array::from_slice(&device, &[0.01f32, 0.1, 0.03, 0.25], &[4], Class::Optimizer).unwrap();
    // Smaller than a block, a block's edge, several tasks; gradients in several dtypes; a 16-bit parameter with its
    // master.
    let sizes = [1, 17, 1024, 1025, 50_000];
    let stepped = |together: bool| {
        let cast = |a: Array, i: usize| a.cast([DType::F32, DType::F16, DType::BF16][i % 3], Class::Gradients).unwrap();
        let grads: Vec<Array> = sizes.iter().enumerate().map(|(i, &n)| cast(values(&device, n, i as u64), i)).collect();
        let masters: Vec<Array> = sizes.iter().map(|&n| values(&device, n, 7)).collect();
        let params: Vec<Array> = masters
            .iter()
            .enumerate()
            .map(|(i, m)| m.cast([DType::BF16, DType::F32][i % 2], Class::Weights).unwrap())
            .collect();
        let state: Vec<[Array; 2]> = sizes.iter().map(|&n| [8, 9].map(|s| values(&device, n, s))).collect();
        state.iter().for_each(|[_, v]| {
            v.copy_from(&Array::full(&device, DType::F32, *v.shape(), 0.5, Class::Optimizer).unwrap()).unwrap()
        });
        let slot = |i: usize| Slot {
            param: Some(ArrayMut::new("test", &params[i]).unwrap()),
            master: i.is_multiple_of(2).then(|| ArrayMut::new("test", &masters[i]).unwrap()),
            grad: Grad::Read(&grads[i]),
            state: state[i].iter().map(|s| ArrayMut::new("test", s).unwrap()).collect(),
            first: i == 3,
        };
        if together {
            device.update(&update, &scalars, &mut (0..sizes.len()).map(slot).collect::<Vec<_>>()).unwrap();
        } else {
            for i in 0..sizes.len() {
                device.update(&update, &scalars, &mut [slot(i)]).unwrap();
            }
        }
        let bits = |a: &Array| a.to_f64_vec().unwrap().into_iter().map(f64::to_bits).collect::<Vec<_>>();
        params.iter().chain(&masters).chain(state.iter().flatten()).map(bits).collect::<Vec<_>>()
    };
    assert_eq!(stepped(true), stepped(false));
}

#[test]
fn the_norm_of_scaled_gradients_is_exact_and_finite_only_if_all_products_are() {
    let device = scope::device().unwrap();
    let model = Linear::new(4, 3).unwrap();
    let ids: Vec<_> = Optimizer::new(&model, Sgd::default()).unwrap().param_ids().collect();
    let mut grads = Gradients::default();
    grads.insert(ids[0], values(&device, 40_001, 3).cast(DType::F16, Class::Gradients).unwrap());
    grads.insert(ids[1], values(&device, 33, 4));
    let all: Vec<f64> = grads.iter().flat_map(|(_, g)| g.to_f64_vec().unwrap()).collect();
    let exact = all.iter().map(|g| (g * 0.25).powi(2)).sum::<f64>().sqrt();
    let found = scaled_grad_norm(&grads, 0.25).unwrap();
    assert!((found - exact).abs() <= 1e-12 * exact, "{found} instead of {exact}");
    for (value, factor, finite) in [
        (f32::NAN, 1.0, false),
        (f32::INFINITY, 1.0, false),
        // The square does not fit f32, nor f16 before it.
        (1e30, 1.0, true),
        // A loss scale below 1: the product does not fit.
        (3e38, 2.0, false),
    ] {
        for at in [0, 16, 32] {
            let mut spoilt = vec![0.5f32; 33];
            spoilt[at] = value;
            grads.insert(ids[1], Array::from_slice(&device, &spoilt, &[33], Class::Gradients).unwrap());
            assert_eq!(scaled_grad_norm(&grads, factor).unwrap().is_finite(), finite, "{value} times {factor} at {at}");
        }
    }
}

/// The parameter after steps with these gradients, all of one value.
fn trained(rule: impl Into<Rule>, start: f32, grads: &[f32]) -> f64 {
    let param = Param::new(Array::from_slice(&scope::device().unwrap(), &[start], &[1], Class::Weights).unwrap());
    let mut optimizer = Optimizer::empty().with_group(vec![("w".into(), param.clone())], rule).unwrap();
    for &g in grads {
        let mut all = Gradients::default();
        all.insert(param.id(), Array::from_slice(&scope::device().unwrap(), &[g], &[1], Class::Gradients).unwrap());
        let _ = optimizer.step(&all).unwrap();
    }
    param.array().item().unwrap()
}

fn near(found: f64, expected: f64) {
    assert!((found - expected).abs() <= 1e-6 * expected.abs(), "{found} instead of {expected}");
}

#[test]
fn adagrads_rate_decays_with_the_steps_of_the_parameter() {
    let rule = Adagrad { lr: 0.5, lr_decay: 0.25, ..Adagrad::default() };
    let (mut w, mut sum) = (1.0, 0.0f64);
    for (t, g) in [1.0, 2.0, -0.5].into_iter().enumerate() {
        sum += g * g;
        w -= 0.5 / (1.0 + 0.25 * t as f64) * g / (sum.sqrt() + 1e-10);
    }
    near(trained(rule, 1.0, &[1.0, 2.0, -0.5]), w);
}

#[test]
fn rmsprop_subtracts_the_mean_gradient_only_when_centered() {
    for centered in [false, true] {
        let rule = RmsProp { lr: 0.01, alpha: 0.5, eps: 1e-3, centered, ..RmsProp::default() };
        let (mut w, mut v, mut a) = (1.0, 0.0f64, 0.0f64);
        for g in [1.0, 2.0, 1.5] {
            v = 0.5 * v + 0.5 * g * g;
            a = 0.5 * a + 0.5 * g;
            let spread = if centered { v - a * a } else { v };
            w -= 0.01 * g / (spread.sqrt() + 1e-3);
        }
        near(trained(rule, 1.0, &[1.0, 2.0, 1.5]), w);
    }
}

#[test]
fn adafactors_eps_bound_small_gradients_and_small_parameters() {
    // One step: v = g², below eps₁², and a parameter whose root mean square is below eps₂.
    let rule = Adafactor { lr: 0.5, eps: [1e-2, 0.25], ..Adafactor::default() };
    near(trained(rule, 0.125, &[1e-3]), 0.125 - 0.25 * 0.5 * (1e-3 / 1e-2));
    // And neither where both are large.
    near(trained(rule, 4.0, &[0.5]), 4.0 - 4.0 * 0.5);
}

#[test]
fn every_group_steps_at_its_own_rate() {
    let [a, b] = [1.0f32, 1.0]
        .map(|v| Param::new(Array::from_slice(&scope::device().unwrap(), &[v], &[1], Class::Weights).unwrap()));
    let group = |name: &str, p: &Param| vec![(name.to_string(), p.clone())];
    let mut optimizer = Optimizer::empty().with_group(group("a", &a), Sgd { lr: 0.5, ..Sgd::default() }).unwrap();
    optimizer = optimizer.with_group(group("b", &b), Sgd { lr: 0.125, ..Sgd::default() }).unwrap();
    optimizer.set_lr_factor(0.5).unwrap();
    let mut grads = Gradients::default();
    for p in [&a, &b] {
        grads.insert(p.id(), Array::from_slice(&scope::device().unwrap(), &[1.0f32], &[1], Class::Gradients).unwrap());
    }
    let _ = optimizer.step(&grads).unwrap();
    assert_eq!((a.array().item().unwrap(), b.array().item().unwrap()), (0.75, 0.9375));
}
