//! Accumulation groups, several optimisers, and losses that have gradients in them: each one step, whole or not at all.

use binade_amp::{Error, GradScaler, LossScale, Policy, Result, StepOutcome, Training, grad};
use binade_autograd::{Var, scope};
use binade_cpu as _;
use binade_nn::{
    Adam, AdamW, BatchNorm2d, Checkpointed, Dropout, Ema, Layer, Linear, Module, Optimizer, Param, Schedule, Sgd,
    Visitor, load_state_dict, state_dict,
};
use binade_tensor::op::{Reduction, Unary};
use binade_tensor::{Array, DType};

/// A net with running statistics and, if asked, randomness.
#[derive(Clone, Module)]
struct Net {
    first: Linear,
    norm: Option<BatchNorm2d>,
    drop: Dropout,
    last: Linear,
}

impl Net {
    fn new(norm: bool, drop: f64) -> Net {
        scope::with_key(3, 0, || Net {
            first: Linear::new(6, 8).unwrap(),
            norm: norm.then(|| BatchNorm2d::new(8).unwrap()),
            drop: Dropout::new(drop).unwrap(),
            last: Linear::new(8, 2).unwrap(),
        })
    }
}

impl Layer for Net {
    fn run(&self, x: &Var) -> binade_nn::Result<Var> {
        let mut h = self.first.forward(x)?;
        if let Some(norm) = &self.norm {
            h = norm.forward(&h.unsqueeze(2)?.unsqueeze(3)?)?.flatten(1)?;
        }
        self.last.forward(&self.drop.forward(&h.unary(Unary::Relu)?)?)
    }
}

/// Rows `from..to` of a fixed batch.
fn rows(from: usize, to: usize) -> Var {
    let values: Vec<f32> = (from * 6..to * 6).map(|i| (i as f32 * 0.37).sin()).collect();
    Var::from_slice(&values, &[to - from, 6]).unwrap()
}

/// Mean loss over some rows, and how many they are.
fn loss(net: &impl Layer, (from, to): (usize, usize)) -> Result<(Var, f64)> {
    let y = net.forward(&rows(from, to))?;
    let target = Var::from_slice(&vec![0.5f32; (to - from) * 2], &[to - from, 2])?;
    Ok((y.mse_loss(&target, Reduction::Mean)?, (to - from) as f64))
}

fn sgd() -> Sgd {
    Sgd { lr: 1.0, ..Sgd::default() }
}

fn training(net: &Net, policy: Policy, scale: LossScale) -> Training {
    let mut training = Training::new(Optimizer::new(net, AdamW::default()).unwrap(), policy, scale).unwrap();
    (training.clip, training.seed) = (Some(0.5), 0);
    training.schedule = Schedule::Exponential { gamma: 0.9 };
    training.ema = Some(Ema::new(net, 0.9).unwrap());
    training
}

fn bits(arrays: impl IntoIterator<Item = (String, Array)>) -> Vec<u64> {
    arrays.into_iter().flat_map(|(_, a)| a.to_f64_vec().unwrap()).map(f64::to_bits).collect()
}

/// Every bit that a step may change, but for the iteration and the loss scale.
fn state(net: &Net, t: &Training) -> Vec<u64> {
    let mut out = bits(state_dict(net));
    let all = t.state().unwrap();
    out.extend(bits(all.tensors()));
    out.extend(all.optimizers.iter().flat_map(|o| &o.params).map(|p| p.steps));
    out.extend([all.step, all.ema.unwrap().steps]);
    out
}

/// Gradients of a step over parts, as the change that plain SGD makes.
fn gradients(parts: &[(usize, usize)]) -> (Vec<f64>, f64, f64) {
    let net = Net::new(false, 0.0);
    let before: Vec<f64> = state_dict(&net).iter().flat_map(|(_, a)| a.to_f64_vec().unwrap()).collect();
    let optimizer = Optimizer::new(&net, sgd()).unwrap();
    let mut training = Training::new(optimizer, Policy::OFF, LossScale::Off).unwrap();
    let step = training.step_over(parts, |&part| loss(&net, part)).unwrap();
    assert_eq!((step.outcome, training.iteration, training.step), (StepOutcome::Applied, 1, 1));
    let after = state_dict(&net).into_iter().flat_map(|(_, a)| a.to_f64_vec().unwrap());
    (before.iter().zip(after).map(|(a, b)| a - b).collect(), step.grad_norm, step.loss)
}

#[test]
fn parts_give_the_gradients_of_the_whole_batch_the_last_smaller_part_too() {
    type Rows = (usize, usize);
    let cases: [(&[Rows], Rows); 3] = [
        (&[(0, 8), (8, 16), (16, 24), (24, 32)], (0, 32)),
        (&[(0, 8), (8, 16), (16, 19)], (0, 19)),
        (&[(0, 1), (1, 19)], (0, 19)),
    ];
    for (parts, whole) in cases {
        let ((a, norm_a, loss_a), (b, norm_b, loss_b)) = (gradients(parts), gradients(&[whole]));
        let worst = a.iter().zip(&b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        assert!(worst <= 1e-6, "{parts:?}: {worst:e}");
        assert!((norm_a - norm_b).abs() < 1e-6 && (loss_a - loss_b).abs() < 1e-6, "{parts:?}");
    }
    // Not the mean of means.
    let unweighted = {
        let (a, b) = (gradients(&[(0, 16)]).0, gradients(&[(16, 19)]).0);
        a.into_iter().zip(b).map(|(a, b)| (a + b) / 2.0).collect::<Vec<_>>()
    };
    let weighted = gradients(&[(0, 16), (16, 19)]).0;
    assert!(weighted.iter().zip(&unweighted).any(|(a, b)| (a - b).abs() > 1e-3));
}

#[test]
fn an_infinity_in_any_part_skips_the_group_as_one_step_and_is_blamed() {
    let parts = [(0, 8), (8, 16), (16, 20)];
    for bad in 0..3 {
        let net = Net::new(true, 0.25);
        let mut t = training(&net, Policy::autocast(DType::F16), LossScale::dynamic());
        t.scaler.set_scale(1024.0).unwrap();
        let good = t.step_over(&parts, |&part| loss(&net, part)).unwrap();
        assert_eq!((good.outcome, good.count), (StepOutcome::Applied, 20.0));
        let before = state(&net, &t);
        let step = t.step_over(&parts, |&part| -> Result<(Var, f64)> {
            let (value, count) = loss(&net, part)?;
            Ok((if part == parts[bad] { (&value * 3e6)? } else { value }, count))
        });
        let step = step.unwrap();
        assert_eq!((step.outcome, t.iteration, t.scaler.loss_scale()), (StepOutcome::Skipped, 2, 512.0), "part {bad}");
        assert_eq!(state(&net, &t), before, "part {bad}");
        let blame = step.blame.expect("an operator is at fault");
        assert!(blame.backward && blame.fitting_scale.is_some(), "part {bad}: {blame}");
    }
}

#[test]
fn running_statistics_of_all_parts_are_made_with_the_step() {
    let net = Net::new(true, 0.0);
    let tracked = || net.norm.as_ref().unwrap().num_batches_tracked.array().item().unwrap();
    let mut t = training(&net, Policy::OFF, LossScale::Off);
    let mut group = t.group();
    for part in [(0, 8), (8, 16), (16, 24)] {
        let net = &net;
        group.add(move || loss(net, part)).unwrap();
        assert_eq!(tracked(), 0.0);
    }
    let _ = group.step().unwrap();
    assert_eq!(tracked(), 3.0);
}

#[test]
fn a_part_has_a_random_stream_of_its_own_and_the_first_that_of_a_whole_step() {
    let net = Net::new(false, 0.5);
    let losses = |parts: &[(usize, usize)]| {
        let mut t = training(&net.deep_copy().unwrap(), Policy::OFF, LossScale::Off);
        let seen = std::sync::Mutex::new(Vec::new());
        let record = |&part: &(usize, usize)| -> Result<_> {
            let (value, count) = loss(&net, part)?;
            seen.lock().unwrap().push(value.item()?.to_bits());
            Ok((value, count))
        };
        let mut group = t.group();
        for part in parts {
            group.add(|| record(part)).unwrap();
        }
        group.discard();
        seen.into_inner().unwrap()
    };
    let twice = losses(&[(0, 8), (0, 8)]);
    assert_ne!(twice[0], twice[1]);
    assert_eq!(twice[0], losses(&[(0, 8)])[0]);
    assert_eq!(twice, losses(&[(0, 8), (0, 8)]));
}

#[test]
fn recomputed_parts_give_the_same_bits() {
    let run = |recompute: bool| {
        let net = Net::new(true, 0.25);
        let mut t = training(&net, Policy::autocast(DType::BF16), LossScale::Off);
        let again = Checkpointed::new(net.clone());
        for _ in 0..2 {
            let step = t.step_over(&[(0, 8), (8, 16), (16, 19)], |&part| {
                if recompute { loss(&again, part) } else { loss(&net, part) }
            });
            assert_eq!(step.unwrap().outcome, StepOutcome::Applied);
        }
        state(&net, &t)
    };
    assert_eq!(run(false), run(true));
}

#[test]
fn a_group_that_ends_without_a_step_is_an_error_that_says_what_to_do() {
    let net = Net::new(false, 0.0);
    let mut t = training(&net, Policy::OFF, LossScale::Off);
    let before = state(&net, &t);
    let lose = |t: &mut Training| {
        let mut group = t.group();
        group.add(|| loss(&net, (0, 8))).unwrap();
        group.add(|| loss(&net, (8, 16))).unwrap();
    };
    lose(&mut t);
    assert!(matches!(t.state(), Err(Error::GroupWithoutStep { parts: 2 })));
    let error = t.step(|| Ok::<_, Error>(loss(&net, (0, 8))?.0)).map(drop).unwrap_err();
    assert!(error.to_string().contains("2 part(s)") && error.to_string().contains("Group::step"), "{error}");
    assert!(error.to_string().contains("Group::discard"));
    assert_eq!(state(&net, &t), before);
    assert!(t.step(|| Ok::<_, Error>(loss(&net, (0, 8))?.0)).is_ok());

    let mut group = t.group();
    group.add(|| loss(&net, (0, 8))).unwrap();
    group.discard();
    let mut group = t.group();
    group.add(|| loss(&net, (0, 8))).unwrap();
    assert!(group.add(|| Err(Error::EmptyGroup)).is_err());
    drop(group);
    assert!(matches!(t.group::<Error>().step(), Err(Error::EmptyGroup)));
    for count in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        let error = t.step_over(&[()], |()| Ok::<_, Error>((loss(&net, (0, 8))?.0, count))).map(drop).unwrap_err();
        assert!(error.to_string().contains("count of a part must be above 0 and finite"), "{error}");
    }
    assert_eq!(t.iteration, 1);
    assert!(t.step(|| Ok::<_, Error>(loss(&net, (0, 8))?.0)).is_ok());
}

#[test]
fn the_three_ways_to_write_a_step_give_the_same_bits() {
    // Powers of two for scales: their product with the clipping factor is exact.
    for scale in [LossScale::Off, LossScale::Static(1024.0)] {
        let parts = [(0, 8), (8, 16)];
        let nets = [(); 3].map(|()| Net::new(true, 0.0));
        let mut t = training(&nets[0], Policy::OFF, scale);
        let step = t.step_over(&parts, |&part| loss(&nets[0], part)).unwrap();

        let mut optimizer = Optimizer::new(&nets[1], AdamW::default()).unwrap();
        let mut scaler = GradScaler::new(scale).unwrap();
        let mut sum = scaler.backward(&loss(&nets[1], parts[0]).unwrap().0).unwrap();
        sum.add(scaler.backward(&loss(&nets[1], parts[1]).unwrap().0).unwrap()).unwrap();
        let mut grads = sum.unscale(&mut scaler, &optimizer).unwrap();
        grads.divide(2.0).unwrap();
        let weight = nets[1].first.weight.id();
        let shown = grads.by_id(weight).unwrap().unwrap().to_f64_vec().unwrap();
        assert_eq!(grads.clip_norm(0.5).unwrap(), step.grad_norm);
        assert_eq!(grads.step(&mut scaler, &mut optimizer).unwrap(), StepOutcome::Applied);

        let mut optimizer = Optimizer::new(&nets[2], AdamW::default()).unwrap();
        let mut scaler = GradScaler::new(scale).unwrap();
        let half = |part| (&loss(&nets[2], part).unwrap().0 * 0.5).unwrap();
        let mut sum = scaler.scale(&half(parts[0])).unwrap().backward().unwrap();
        sum.add(scaler.scale(&half(parts[1])).unwrap().backward().unwrap()).unwrap();
        scaler.unscale(&optimizer, &mut sum).unwrap();
        assert_eq!(sum.by_id(nets[2].first.weight.id()).unwrap().to_f64_vec().unwrap(), shown);
        binade_nn::clip_grad_norm(&mut sum, 0.5).unwrap();
        assert_eq!(scaler.step(&mut optimizer, &sum).unwrap(), StepOutcome::Applied);
        scaler.update().unwrap();

        let [a, b, c] = nets.map(|net| bits(state_dict(&net)));
        assert!(a == b && a == c, "{scale:?}");
    }
}

#[test]
fn value_clipping_of_the_typed_step_is_that_of_unscaled_gradients() {
    for policy in [Policy::OFF, Policy::autocast(DType::BF16)] {
        let net = Net::new(false, 0.0);
        let optimizer = Optimizer::new(&net, sgd()).unwrap();
        let mut scaler = GradScaler::new(LossScale::Static(64.0)).unwrap();
        let value = policy.run(|| loss(&net, (0, 8))).unwrap().0;
        let mut grads = scaler.backward(&value).unwrap().unscale(&mut scaler, &optimizer).unwrap();
        grads.divide(2.0).unwrap();
        let of = |grads: &binade_amp::UnscaledGradients| -> Vec<f64> {
            let each = net.parameters().into_iter().map(|p| grads.by_id(p.id()).unwrap().unwrap());
            each.flat_map(|a| a.to_f64_vec().unwrap()).collect()
        };
        let before = of(&grads);
        let limit = 0.3 * before.iter().fold(0.0, |m: f64, x| m.max(x.abs()));
        grads.clip_value(limit).unwrap();
        let after = of(&grads);
        let wanted = before.iter().map(|x| x.clamp(-limit, limit));
        assert!(after.iter().zip(wanted).all(|(a, b)| (a - b).abs() <= 1e-6 * limit), "{policy:?}");
        let norm = after.iter().map(|x| x * x).sum::<f64>().sqrt();
        assert!((grads.norm() - norm).abs() < 1e-6 * norm && before != after);
    }
}

/// Two optimisers with rules of their own over one net.
fn two(net: &Net) -> Training {
    let first = Optimizer::new(&net.first, AdamW::default()).unwrap();
    let last = Optimizer::new(&net.last, Sgd { lr: 0.1, momentum: 0.9, ..Sgd::default() }).unwrap();
    let mut t = Training::new(first, Policy::autocast(DType::F16), LossScale::dynamic()).unwrap().with_optimizer(last);
    (t.seed, t.clip) = (0, Some(0.5));
    t.scaler.set_scale(1024.0).unwrap();
    t
}

#[test]
fn several_optimisers_step_together_or_not_at_all() {
    let net = Net::new(false, 0.0);
    let mut t = two(&net);
    let of = |net: &Net| [bits(state_dict(&net.first)), bits(state_dict(&net.last))];
    let before = of(&net);
    let step = t.step(|| Ok::<_, Error>(loss(&net, (0, 8))?.0)).unwrap();
    assert!(step.outcome == StepOutcome::Applied && step.unclaimed.is_empty());
    let after = of(&net);
    assert!(before[0] != after[0] && before[1] != after[1]);
    // Gradients of the first layer alone are infinite.
    let spoilt = t.step(|| -> Result<Var> {
        let bad = (&net.first.weight.var().sum(&[], false)?.square()? * 1e38)?;
        Ok(loss(&net, (0, 8))?.0.add(&(&bad * 1e10)?)?)
    });
    assert_eq!((spoilt.unwrap().outcome, of(&net) == after), (StepOutcome::Skipped, true));
    let mut shared = two(&net).with_optimizer(Optimizer::new(&net.last, Adam::default()).unwrap());
    let error = shared.step(|| Ok::<_, Error>(loss(&net, (0, 8))?.0)).map(drop).unwrap_err();
    assert!(error.to_string().contains("weight"), "{error}");
    assert!(of(&net) == after);
}

#[test]
fn two_optimisers_clip_by_the_norm_of_all_gradients_as_one_does() {
    let run = |together: bool| {
        let net = Net::new(false, 0.0);
        let rule = AdamW::default();
        let mut t = if together {
            Training::new(Optimizer::new(&net, rule).unwrap(), Policy::OFF, LossScale::Off).unwrap()
        } else {
            let [first, last] = [&net.first, &net.last].map(|part| Optimizer::new(part, rule).unwrap());
            Training::new(first, Policy::OFF, LossScale::Off).unwrap().with_optimizer(last)
        };
        t.clip = Some(0.01);
        let steps = [(0, 8), (8, 16)].map(|part| t.step_over(&[part], |&part| loss(&net, part)).unwrap().grad_norm);
        (steps.map(f64::to_bits), bits(state_dict(&net)))
    };
    assert_eq!(run(true), run(false));
}

#[test]
fn a_training_of_two_optimisers_goes_on_from_its_state_bit_for_bit() {
    let step = |net: &Net, t: &mut Training| drop(t.step_over(&[(0, 8), (8, 11)], |&p| loss(net, p)).unwrap());
    let (net, other) = (Net::new(false, 0.25), Net::new(false, 0.25));
    let mut t = two(&net);
    step(&net, &mut t);
    let saved = t.state().unwrap();
    let header: binade_amp::TrainingState = serde_json::from_str(&serde_json::to_string(&saved).unwrap()).unwrap();
    let loaded = header.with_tensors(&saved.tensors()).unwrap();
    load_state_dict(&other, &state_dict(&net)).unwrap();
    let mut u = two(&other);
    u.load(&loaded).unwrap();
    for (net, t) in [(&net, &mut t), (&other, &mut u)] {
        (0..3).for_each(|_| step(net, t));
    }
    assert_eq!(bits(state_dict(&net)), bits(state_dict(&other)));
    assert_eq!(bits(t.state().unwrap().tensors()), bits(u.state().unwrap().tensors()));
    let mut one = training(&Net::new(false, 0.25), Policy::autocast(DType::F16), LossScale::dynamic());
    one.ema = None;
    let error = one.load(&loaded).unwrap_err().to_string();
    assert!(error.contains("2 optimiser(s), this training 1"), "{error}");
}

/// The square of a critic's slope by its input; `factor` makes the slope small or large, `k` the loss.
fn penalty(weight: &Param, factor: f64, k: f64) -> Result<Var> {
    let x = Var::leaf(Var::from_slice(&[0.5f32, -1.0, 2.0, 0.25], &[2, 2])?.array().clone());
    let judged = (&x.matmul(&weight.var())?.sum(&[], false)? * factor)?;
    let slope = grad(&judged, &[&x])?.remove(0).expect("it reads x");
    Ok((&slope.square()?.sum(&[], false)? * (k / (factor * factor)))?)
}

/// The gradient by the weight over `k`, and the loss over it.
fn of_penalty(policy: Policy, scale: LossScale, factor: f64, k: f64) -> (Vec<f64>, f64) {
    let start = [0.5f32, -0.25, 0.75, 1.0];
    let weight = Param::new(Var::from_slice(&start, &[2, 2]).unwrap().array().clone());
    let group = vec![("weight".into(), weight.clone())];
    let optimizer = Optimizer::empty().with_group(group, Sgd { lr: 1.0 / k, ..sgd() }).unwrap();
    let mut t = Training::new(optimizer, policy, scale).unwrap();
    let mut steps = (0..40).map(|_| t.step(|| penalty(&weight, factor, k)).unwrap());
    let step = steps.find(|step| step.outcome == StepOutcome::Applied).expect("a scale that fits");
    let after = weight.array().to_f64_vec().unwrap();
    (start.iter().zip(after).map(|(a, b)| *a as f64 - b).collect(), step.loss / k)
}

#[test]
fn gradients_in_a_loss_are_taken_at_the_scale_and_divided_by_it() {
    let (wanted, loss) = of_penalty(Policy::OFF, LossScale::Off, 1.0, 1.0);
    assert!(loss > 1.0 && wanted.iter().all(|g| g.abs() > 0.1), "{wanted:?}");
    let near = |(found, of): (Vec<f64>, f64)| {
        (of - loss).abs() < 2e-3 * loss && found.iter().zip(&wanted).all(|(a, b)| (a - b).abs() < 5e-3 * b.abs())
    };
    let (f16, small) = (|| Policy::autocast(DType::F16), 2f64.powi(-14));
    // 2⁻²⁷ is 0 in f16: at the scale it is not.
    assert!(near(of_penalty(f16(), LossScale::Static(4096.0), 2f64.powi(-27), small)));
    assert!(!near(of_penalty(f16(), LossScale::Off, 2f64.powi(-27), small)));
    // Too large at the first scale: it is lowered until the slope fits.
    assert!(near(of_penalty(f16(), LossScale::dynamic(), 16.0, 1.0)));
    let mut scaler = GradScaler::new(LossScale::Static(4096.0)).unwrap();
    let x = Var::leaf(Var::from_slice(&[3.0f32], &[1]).unwrap().array().clone());
    let sum = x.square().unwrap().sum(&[], false).unwrap();
    assert_eq!(scaler.grad(&sum, &[&x]).unwrap().remove(0).unwrap().item().unwrap(), 6.0);
}
