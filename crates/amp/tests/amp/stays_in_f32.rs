//! What stays in f32 in a training in 16 bit, since it would lose its digits or its range.

use binade_amp::{StepOutcome, autocast};
use binade_autograd::{Gradients, Var, no_grad};
use binade_cpu as _;
use binade_nn::{Adagrad, Adam, AdamW, BatchNorm2d, Layer as _, Lion, Optimizer, Param, RmsProp, Rule, Sgd};
use binade_tensor::op::{CrossEntropy, Reduction};
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

// ---- optimisers in 16 bit

#[test]
fn a_zero_gradient_moves_no_16_bit_weight() {
    for eps in [1e-8, 1e-16] {
        let rules: [Rule; 5] = [
            Adam { eps, ..Adam::default() }.into(),
            AdamW { eps, weight_decay: 0.0, ..AdamW::default() }.into(),
            Adagrad { eps, ..Adagrad::default() }.into(),
            RmsProp { eps, ..RmsProp::default() }.into(),
            Lion::default().into(),
        ];
        for rule in rules {
            for dtype in [DType::F16, DType::BF16] {
                let param = Param::new(full(dtype, &[4], 1.0));
                let name = rule.update.name();
                let mut o = Optimizer::empty().with_group(vec![("w".into(), param.clone())], rule.clone()).unwrap();
                let mut g = Gradients::default();
                g.insert(param.id(), full(dtype, &[4], 0.0));
                (0..3).for_each(|_| assert_eq!(o.step(&g).unwrap(), StepOutcome::Applied));
                assert_eq!(param.array().to_f64_vec().unwrap(), [1.0; 4], "{name} {dtype} {eps}");
            }
        }
    }
}

// ---- what stays in f32

#[test]
fn stays_in_f32_master_weights() {
    let param = Param::new(full(DType::BF16, &[1], 1.0));
    let mut o =
        Optimizer::empty().with_group(vec![("w".into(), param.clone())], Sgd { lr: 1.0, ..Sgd::default() }).unwrap();
    let mut g = Gradients::default();
    g.insert(param.id(), full(DType::F32, &[1], -1e-3));
    (0..1000).for_each(|_| assert_eq!(o.step(&g).unwrap(), StepOutcome::Applied));
    let state = o.state_dict().unwrap().tensors;
    assert_eq!((state[0].0.as_str(), state[0].1.dtype(), param.dtype()), ("w.master", DType::F32, DType::BF16));
    assert!((param.array().item().unwrap() - 2.0).abs() <= 2f64.powi(-7));
}

#[test]
fn stays_in_f32_loss() {
    for low in [DType::F16, DType::BF16] {
        // 64,000 classes: p − 1 and the loss against f64.
        let (n, classes) = (2, 64_000);
        let values: Vec<f32> = (0..n * classes).map(|i| (i as f32 * 0.01).sin() * 4.0).collect();
        let logits = half(&values, &[n, classes], low);
        let target = [7usize, 63_999];
        let index =
            Var::constant(Array::from_slice(&Device::cpu(), &target.map(|t| t as i64), &[n], Class::Indices).unwrap());
        let loss = autocast(low, || logits.cross_entropy(&index, CrossEntropy::default())).unwrap();
        assert_eq!(loss.dtype(), DType::F32);
        let exact: f64 = logits
            .array()
            .to_f64_vec()
            .unwrap()
            .chunks(classes)
            .zip(target)
            .map(|(row, t)| row.iter().map(|v| v.exp()).sum::<f64>().ln() - row[t])
            .sum::<f64>()
            / n as f64;
        assert!((loss.item().unwrap() - exact).abs() <= 1e-6 * exact, "{low}");
        let gradient = loss.backward().unwrap().get(&logits).unwrap().to_f64_vec().unwrap();
        // At the target: (p − 1)/n, rounded once.
        assert!((gradient[7] + 0.5).abs() <= 0.5 * 2f64.powi(-7) + 1e-5);
    }
}

#[test]
fn stays_in_f32_softmax() {
    // 512 equal logits: a running sum of bf16 ones would stall at 256.
    let y = half(&[3.0; 512], &[512], DType::BF16).softmax(-1).unwrap();
    assert_eq!(y.array().to_f64_vec().unwrap(), [1.0 / 512.0; 512]);
    let wide = autocast(DType::BF16, || half(&[3.0; 512], &[512], DType::BF16).softmax(-1)).unwrap();
    assert_eq!(wide.dtype(), DType::F32);
}

#[test]
fn stays_in_f32_norm() {
    // Values of ±200 over 10^5 elements: squares overflow f16, and eps = 1e-12 would be 0 in it.
    let values: Vec<f32> = (0..100_000).map(|i| if i % 2 == 0 { 200.0 } else { -200.0 }).collect();
    let y = half(&values, &[1, 100_000], DType::F16).layer_norm(1, None, 1e-12).unwrap();
    assert!(y.array().to_f64_vec().unwrap().iter().all(|v| v.abs() == 1.0));
    let flat = half(&[5.0; 64], &[1, 64], DType::F16).layer_norm(1, None, 1e-12).unwrap();
    assert_eq!(flat.array().to_f64_vec().unwrap(), [0.0; 64]);
}

#[test]
fn stays_in_f32_optimizer_state() {
    // β₂ = 0.999 is 1 in bf16 and 0.9999 is 1 in f16: then v would never move.
    for dtype in [DType::F16, DType::BF16] {
        let trajectory = |dtype: DType| {
            let param = Param::new(full(dtype, &[1], 1.0));
            let adam = Adam { betas: [0.9, 0.9999], ..Adam::default() };
            let mut o = Optimizer::empty().with_group(vec![("w".into(), param.clone())], adam).unwrap();
            let mut g = Gradients::default();
            g.insert(param.id(), full(dtype, &[1], 0.5));
            (0..100).for_each(|_| assert_eq!(o.step(&g).unwrap(), StepOutcome::Applied));
            let state = o.state_dict().unwrap().tensors;
            assert!(state.iter().all(|(_, a)| a.dtype() == DType::F32));
            state
                .iter()
                .filter(|(name, _)| !name.contains("master"))
                .map(|(_, a)| a.item().unwrap())
                .collect::<Vec<_>>()
        };
        assert_eq!(trajectory(dtype), trajectory(DType::F32));
    }
}

// ---- operators

#[test]
fn sums_and_means_accumulate_in_f32_and_overflow_only_if_the_result_does() {
    let sum = |v: f32, n: usize, d| half(&vec![v; n], &[n], d).sum(&[], false).unwrap().item().unwrap();
    assert_eq!((sum(1.0, 4096, DType::F16), sum(1.0, 4096, DType::BF16)), (4096.0, 4096.0));
    assert_eq!(half(&[1000.0; 100_000], &[100_000], DType::F16).mean(&[], false).unwrap().item().unwrap(), 1000.0);
    let wide = autocast(DType::F16, || half(&[1000.0; 100], &[100], DType::F16).sum(&[], false)).unwrap();
    assert_eq!((wide.dtype(), wide.item().unwrap()), (DType::F32, 100_000.0));
}

#[test]
fn statistics_of_a_million_f16_elements_of_200_are_those_of_f64() {
    let n = 1 << 20;
    let values: Vec<f32> = (0..n).map(|i| if (i * 2654435761) & 4096 == 0 { 200.0 } else { -200.0 }).collect();
    let x = half(&values, &[n / 1024, 1, 32, 32], DType::F16);
    let norm = BatchNorm2d::new(1).unwrap();
    let y = no_grad(|| norm.forward(&x)).unwrap().array().to_f64_vec().unwrap();
    let mean = values.iter().map(|&v| v as f64).sum::<f64>() / n as f64;
    let var = values.iter().map(|&v| (v as f64 - mean).powi(2)).sum::<f64>() / n as f64;
    let worst =
        y.iter().zip(&values).map(|(y, &v)| (y - (v as f64 - mean) / (var + 1e-5).sqrt()).abs()).fold(0.0, f64::max);
    assert!(worst <= 2f64.powi(-11), "{worst:e}");
    let running = norm.running_var.array().item().unwrap();
    let expected = 0.9 + 0.1 * var * n as f64 / (n - 1) as f64;
    assert!((running - expected).abs() <= 1e-5 * expected, "{running} {expected}");
}

#[test]
fn gradients_of_bce_with_logits_fit_f16_at_large_logits() {
    let x = half(&[80.0, -80.0, 80.0, -80.0], &[4], DType::F16);
    let t = Var::constant(array(&[1.0, 0.0, 0.0, 1.0], &[4]));
    let loss = autocast(DType::F16, || x.bce_with_logits(&t, None, None, Reduction::Sum)).unwrap();
    assert_eq!((loss.dtype(), loss.item().unwrap()), (DType::F32, 160.0));
    let g = loss.backward().unwrap().get(&x).unwrap().to_f64_vec().unwrap();
    assert_eq!((g[2], g[3]), (1.0, -1.0));
    assert!(g[0].abs() < 1e-6 && g[1].abs() < 1e-6);
}
