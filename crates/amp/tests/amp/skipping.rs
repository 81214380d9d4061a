//! Steps that are skipped: the same in every precision and in every way to write a step, what they cost, and when it is
//! enough.

use binade_cpu as _;
use std::cell::Cell;

use binade_amp::{Blame, Dynamic, Error, GradScaler, LossScale, Origin, Policy, Result, StepOutcome, Training};
use binade_autograd::{Gradients, Var, scope};
use binade_nn::{Layer, Linear, Module, Optimizer, Param, Sgd, Visitor};
use binade_tensor::op::CrossEntropy;
use binade_tensor::{Array, Class, DType};

fn array(values: &[f32], shape: &[usize]) -> Array {
    Array::from_slice(&scope::device().unwrap(), values, shape, Class::Activations).unwrap()
}

/// A layer, and a parameter that is 0 at first.
#[derive(Clone, Module)]
struct Net {
    layer: Linear,
    zero: Param,
}

impl Net {
    fn new() -> Net {
        Net { layer: Linear::new(2, 3).unwrap(), zero: Param::new(array(&[0.0], &[1])) }
    }

    fn optimizer(&self) -> Optimizer {
        Optimizer::new(self, Sgd { lr: 0.1, ..Sgd::default() }).unwrap()
    }

    fn weights(&self) -> Vec<f32> {
        self.layer.weight.array().to_vec().unwrap()
    }

    fn loss(&self, event: Event) -> Result<Var> {
        let x = array(&[0.5, if event == Event::InputNan { f32::NAN } else { -1.0 }], &[1, 2]);
        let y = self.layer.forward(&Var::constant(x))?;
        let label = if event == Event::AllIgnored { CrossEntropy::default().ignore_index } else { 1 };
        let label = Var::constant(Array::from_slice(&scope::device().unwrap(), &[label], &[1], Class::Indices)?);
        let loss = y.cross_entropy(&label, CrossEntropy::default())?;
        // The zero has a gradient in any case.
        Ok(match event {
            Event::InfiniteGradient => {
                let zero = self.zero.var();
                loss.add(&zero.sub(&zero.detach())?.square()?.sqrt()?.sum(&[], false)?)?
            }
            Event::Overflow => loss.add(&(&self.zero.var().sum(&[], false)? * 1e38)?)?,
            Event::Good | Event::AllIgnored | Event::InputNan => loss.add(&self.zero.var().sum(&[], false)?)?,
        })
    }
}

/// What may befall a step.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Event {
    Good,
    /// The loss is NaN, the mean over nothing; the gradients are finite.
    AllIgnored,
    /// Loss and gradients are NaN.
    InputNan,
    /// The loss is finite, the gradient at no scale.
    InfiniteGradient,
    /// The gradient is finite at scales below 3.
    Overflow,
}

fn settings() -> [(Policy, LossScale); 5] {
    [
        (Policy::OFF, LossScale::Off),
        (Policy::autocast(DType::BF16), LossScale::Off),
        (Policy::autocast(DType::F16), LossScale::Static(8.0)),
        (Policy::autocast(DType::F16), LossScale::dynamic()),
        (Policy::OFF, LossScale::dynamic()),
    ]
}

/// The ways to write a step.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Way {
    Training,
    Typed,
    WrittenOut,
    WrittenOutWithClipping,
    /// The optimiser alone, for precisions without scaling.
    Plain,
}

/// A step in one of the ways: outcome, whether the weights are finite and whether they moved, and the scale after.
fn take(way: Way, event: Event, policy: &Policy, scale: LossScale) -> (StepOutcome, bool, bool, f64) {
    let net = Net::new();
    let before = net.weights();
    let mut optimizer = net.optimizer();
    let mut scaler = GradScaler::new(scale).unwrap();
    let run = || policy.run(|| net.loss(event)).unwrap();
    let outcome = match way {
        Way::Training => {
            let mut training = Training::new(optimizer, policy.clone(), scale).unwrap();
            let outcome = training.step(|| net.loss(event)).unwrap().outcome;
            scaler = training.scaler;
            outcome
        }
        Way::Typed => {
            let scaled = scaler.backward(&run()).unwrap();
            scaled.unscale(&mut scaler, &optimizer).unwrap().step(&mut scaler, &mut optimizer).unwrap()
        }
        Way::WrittenOut | Way::WrittenOutWithClipping => {
            let mut grads = scaler.scale(&run()).unwrap().backward().unwrap();
            if way == Way::WrittenOutWithClipping {
                scaler.unscale(&optimizer, &mut grads).unwrap();
                binade_nn::clip_grad_norm(&mut grads, 1.0).unwrap();
            }
            let outcome = scaler.step(&mut optimizer, &grads).unwrap();
            scaler.update().unwrap();
            outcome
        }
        Way::Plain => optimizer.step(&run().backward().unwrap()).unwrap(),
    };
    let after = net.weights();
    (outcome, after.iter().all(|w| w.is_finite()), after != before, scaler.loss_scale())
}

#[test]
fn a_step_ends_the_same_in_every_precision_and_every_way_to_write_it() {
    use StepOutcome::{Applied, Skipped};
    let expected = |event| match event {
        Event::Good => (Applied, true, true),
        Event::AllIgnored => (Applied, true, false),
        Event::InputNan | Event::InfiniteGradient | Event::Overflow => (Skipped, true, false),
    };
    for event in [Event::Good, Event::AllIgnored, Event::InputNan, Event::InfiniteGradient, Event::Overflow] {
        for (policy, scale) in settings() {
            for way in [Way::Training, Way::Typed, Way::WrittenOut, Way::WrittenOutWithClipping, Way::Plain] {
                if way == Way::Plain && scale != LossScale::Off || event == Event::Overflow && scale == LossScale::Off {
                    continue;
                }
                let (outcome, finite, moved, after) = take(way, event, &policy, scale);
                assert_eq!((outcome, finite, moved), expected(event), "{way:?}, {event:?}, {policy:?}, {scale:?}");
                // Only `Training` runs the step again, and so knows what a lower scale does to an infinite gradient.
                let lowered = event == Event::Overflow || event == Event::InfiniteGradient && way != Way::Training;
                let before = scale.start().unwrap().scale as f64;
                let factor = if lowered && matches!(scale, LossScale::Dynamic(_)) { 0.5 } else { 1.0 };
                assert_eq!(after, before * factor, "{way:?}, {event:?}, {policy:?}, {scale:?}");
            }
        }
    }
}

#[test]
fn a_plain_optimiser_skips_a_gradient_that_is_not_finite_and_looks_at_its_own_only() {
    let (own, other) = (Param::new(array(&[1.0], &[1])), Param::new(array(&[1.0], &[1])));
    let mut optimizer =
        Optimizer::empty().with_group(vec![("w".into(), own.clone())], Sgd { lr: 1.0, ..Sgd::default() }).unwrap();
    let mut grads = Gradients::default();
    grads.insert(own.id(), array(&[0.25], &[1]));
    grads.insert(other.id(), array(&[f32::NAN], &[1]));
    assert_eq!(optimizer.step(&grads).unwrap(), StepOutcome::Applied);
    grads.insert(own.id(), array(&[f32::NEG_INFINITY], &[1]));
    assert_eq!(optimizer.step(&grads).unwrap(), StepOutcome::Skipped);
    assert_eq!(own.array().item().unwrap(), 0.75);
}

#[test]
fn training_ends_after_so_many_skipped_steps_at_every_scale_and_names_the_operator() {
    for (policy, scale) in settings() {
        for event in [Event::InputNan, Event::InfiniteGradient] {
            for blame in [true, false] {
                let net = Net::new();
                let mut t = Training::new(net.optimizer(), policy.clone(), scale).unwrap();
                // Without blame nobody knows that no lower scale helps, unless the loss says so: the scale falls first.
                if !blame && event == Event::InfiniteGradient && matches!(scale, LossScale::Dynamic(_)) {
                    continue;
                }
                (t.blame, t.scaler) = (blame, t.scaler.with_patience(3));
                assert_eq!(t.step(|| net.loss(Event::Good)).unwrap().outcome, StepOutcome::Applied);
                for _ in 0..3 {
                    assert_eq!(t.step(|| net.loss(event)).unwrap().outcome, StepOutcome::Skipped);
                }
                let error = t.step(|| net.loss(event)).unwrap_err();
                let Error::Stalled { steps: 4, blame: Some(blame), .. } = &error else {
                    panic!("{scale:?}, {event:?}: {error}")
                };
                assert!(error.to_string().contains(&blame.op), "{error}");
                assert_eq!(blame.origin == Origin::Inherited, event == Event::InputNan, "{error}");
                assert_eq!(t.iteration, 4);
            }
        }
    }
}

#[test]
fn one_applied_step_begins_the_count_anew() {
    let net = Net::new();
    let mut t = Training::new(net.optimizer(), Policy::OFF, LossScale::Off).unwrap();
    t.scaler = t.scaler.with_patience(1);
    for event in [Event::InputNan, Event::Good].repeat(3) {
        let _ = t.step(|| net.loss(event)).unwrap();
    }
}

#[test]
fn a_written_out_loop_ends_after_so_many_skipped_steps_at_every_scale() {
    let (_, mut optimizer) = (Net::new(), Net::new().optimizer());
    let mut grads = Gradients::default();
    let id = optimizer.param_ids().next().unwrap();
    grads.insert(id, array(&[f32::NAN; 6], &[2, 3]));
    for scale in [
        LossScale::Off,
        LossScale::Static(8.0),
        LossScale::Dynamic(Dynamic { min_scale: 1.0, init_scale: 4.0, ..Dynamic::default() }),
    ] {
        let mut scaler = GradScaler::new(scale).unwrap();
        let lowered = if matches!(scale, LossScale::Dynamic(_)) { 2 } else { 0 };
        let ended = (0..100).position(|_| {
            assert_eq!(scaler.step(&mut optimizer, &grads).unwrap(), StepOutcome::Skipped);
            matches!(scaler.update(), Err(Error::Stalled { .. }))
        });
        assert_eq!(ended, Some(20 + lowered), "{scale:?}");
    }
}

/// Runs of the closure in each of some steps, and the last blame.
fn cost(
    policy: Policy,
    scale: LossScale,
    blame: bool,
    loss: impl Fn() -> Result<Var>,
    net: &Net,
) -> (Vec<u32>, Option<Blame>) {
    let mut t = Training::new(net.optimizer(), policy, scale).unwrap();
    t.blame = blame;
    let runs = Cell::new(0);
    let mut last = None;
    let steps = (0..4).map(|_| {
        runs.set(0);
        let step = t.step(|| -> Result<Var> {
            runs.set(runs.get() + 1);
            loss()
        });
        let step = step.unwrap();
        assert_eq!(step.outcome, StepOutcome::Skipped);
        last = step.blame;
        runs.get()
    });
    (steps.collect(), last)
}

#[test]
fn a_skipped_step_runs_at_most_four_times_and_twice_if_the_same_operator_is_at_fault_again() {
    let net = Net::new();
    let run = |policy, scale, event| cost(policy, scale, true, || net.loss(event), &net);
    let fits = |blame: Option<Blame>| blame.expect("a blame").fitting_scale;
    // Nothing is looked for where no scale is, and where the fault is before the scale.
    let (runs, blame) = run(Policy::OFF, LossScale::Off, Event::InfiniteGradient);
    assert_eq!((runs, fits(blame)), (vec![2; 4], None));
    let (runs, blame) = run(Policy::autocast(DType::F16), LossScale::dynamic(), Event::InputNan);
    assert_eq!((runs, fits(blame)), (vec![2; 4], None));
    // Looked for once, and in vain.
    let (runs, blame) = run(Policy::OFF, LossScale::dynamic(), Event::InfiniteGradient);
    assert_eq!((runs, fits(blame)), (vec![3, 2, 2, 2], None));
    // Found, and remembered while the scale is above.
    let (runs, blame) = run(Policy::OFF, LossScale::dynamic(), Event::Overflow);
    assert_eq!((runs, fits(blame)), (vec![4, 2, 2, 2], Some(2.0)));
    let (runs, blame) = cost(Policy::OFF, LossScale::dynamic(), false, || net.loss(Event::Overflow), &net);
    assert_eq!((runs, blame), (vec![1; 4], None));
}

#[test]
fn the_fitting_scale_is_the_largest_that_fits_wherever_f16_overflows() {
    let net = Net::new();
    // Slopes that overflow f16 at scales above 2^15.99 / slope.
    for exponent in [-30, -3, 0, 4, 12] {
        let slope = 1.5 * 2f64.powi(exponent);
        let loss = || -> Result<Var> {
            let narrow = net.zero.var().cast(DType::F16)?.sum(&[], false)?.cast(DType::F32)?;
            Ok((&narrow * slope)?)
        };
        let scale = 2f64.powi(exponent.max(0) + 20);
        let found = binade_amp::blame(scale, loss).unwrap();
        // 1.5 * 2^15 is the largest such number in f16.
        let fits = 2f64.powi(15 - exponent);
        assert_eq!(found.map(|b| b.fitting_scale), (fits < scale).then_some(Some(fits)), "slope {slope:e}");
    }
}
