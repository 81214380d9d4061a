//! Random streams: they differ from each other by default, and a seed repeats them.

use binade_cpu as _;
use std::cell::RefCell;

use binade_amp::{LossScale, Policy, Result, Training};
use binade_autograd::{Var, scope};
use binade_nn::{Init, Linear, Optimizer, Sgd};
use binade_tensor::op::Distribution;

const UNIFORM: Distribution = Distribution::Uniform { low: 0.0, high: 1.0 };

fn draw() -> Vec<f32> {
    Var::random(UNIFORM, &[64]).unwrap().array().to_vec().unwrap()
}

/// What two random operators draw in each of some steps.
fn drawn(training: &mut Training, layer: &Linear, steps: usize) -> Vec<Vec<f32>> {
    let seen = RefCell::new(Vec::new());
    for _ in 0..steps {
        let step = training.step(|| -> Result<Var> {
            seen.borrow_mut().extend([draw(), draw()]);
            Ok(layer.weight.var().square()?.sum(&[], false)?)
        });
        let _ = step.unwrap();
    }
    seen.into_inner()
}

fn training(layer: &Linear) -> Training {
    let optimizer = Optimizer::new(layer, Sgd { lr: 0.1, ..Sgd::default() }).unwrap();
    Training::new(optimizer, Policy::OFF, LossScale::Off).unwrap()
}

fn differ(draws: &[Vec<f32>]) {
    for (i, a) in draws.iter().enumerate() {
        assert!(draws[..i].iter().all(|b| a != b), "draw {i} is one of those before");
    }
}

#[test]
fn operators_iterations_and_trainings_draw_other_numbers() {
    let layer = Linear::new(2, 2).unwrap();
    let mut draws = drawn(&mut training(&layer), &layer, 3);
    draws.extend(drawn(&mut training(&layer), &layer, 3));
    assert_eq!(draws.len(), 12);
    differ(&draws);
}

#[test]
fn a_seed_repeats_a_training_and_another_does_not() {
    let layer = Linear::new(2, 2).unwrap();
    let with = |seed| {
        let mut t = training(&layer);
        t.seed = seed;
        drawn(&mut t, &layer, 2)
    };
    assert_eq!(with(7), with(7));
    differ(&[with(7), with(8)].concat());
    let repeated = || scope::with_key(3, 4, || training(&layer).seed);
    assert_eq!(repeated(), repeated());
}

#[test]
fn initial_values_share_no_stream_with_the_first_step() {
    let layer = Linear::new(2, 2).unwrap();
    for seed in [0, 1] {
        let mut t = training(&layer);
        t.seed = seed;
        let initial = || Init::Uniform { low: 0.0, high: 1.0 }.array(&[64]).unwrap().to_vec::<f32>().unwrap();
        let mut draws =
            vec![initial(), scope::with_key(seed, 0, initial), scope::with_key(seed, 0, || (initial(), initial()).1)];
        draws.extend(drawn(&mut t, &layer, 1));
        differ(&draws);
    }
}

#[test]
fn threads_draw_other_numbers_and_those_of_a_name_repeat_theirs() {
    let on =
        |name: &str| std::thread::Builder::new().name(name.into()).spawn(|| (draw(), draw())).unwrap().join().unwrap();
    let unnamed = || std::thread::spawn(|| (draw(), draw())).join().unwrap();
    let all = [on("reader 1"), on("reader 2"), on("reader 1"), unnamed(), unnamed(), (draw(), draw())];
    differ(&all.into_iter().flat_map(|(a, b)| [a, b]).collect::<Vec<_>>());
    let keyed = || std::thread::spawn(|| scope::with_key(5, 6, draw)).join().unwrap();
    assert_eq!(keyed(), keyed());
}
