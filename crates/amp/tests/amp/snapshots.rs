//! Snapshots of a training: it goes on bit for bit, or nothing changes.

use crate::net::{Net, full_training, state, training};
use binade_amp::{Dynamic, Error, LossScale, Result, Training, TrainingState};
use binade_autograd::Var;
use binade_cpu as _;
use binade_nn::{Ema, Module as _, Schedule, load_state_dict, state_dict};

/// Six steps, the second of them with a gradient that overflows f16 at the present scale but not at a lower one, and a
/// measurement after each.
fn steps(net: &Net, t: &mut Training, which: std::ops::Range<usize>) {
    for i in which {
        let factor = if i == 1 { 1e5 } else { 1.0 };
        let _ = t.step(|| -> Result<Var> { Ok((&net.loss()? * factor)?) }).unwrap();
        t.plateau.as_mut().unwrap().observe([3.0, 2.0, 2.5, 1.0, 1.5, 0.5][i]).unwrap();
    }
}

#[test]
fn a_training_goes_on_bit_for_bit_after_its_snapshot_was_written_and_read() {
    let scale = LossScale::Dynamic(Dynamic { init_scale: 64.0, growth_interval: 2, ..Dynamic::default() });
    let whole = Net::new();
    let mut t = full_training(&whole, scale);
    steps(&whole, &mut t, 0..6);

    let first = Net::new();
    let mut t1 = full_training(&first, scale);
    steps(&first, &mut t1, 0..3);
    let saved = t1.state().unwrap();
    let (text, tensors) = (serde_json::to_string(&saved).unwrap(), saved.tensors());
    let model = state_dict(&first);

    // Other settings, all of which the snapshot knows better.
    let second = Net::new();
    let mut t2 = training(&second, LossScale::dynamic());
    (t2.schedule, t2.clip) = (Schedule::Constant, None);
    t2.ema = Some(Ema::new(&second, 0.1).unwrap());
    load_state_dict(&second, &model).unwrap();
    let read: TrainingState = serde_json::from_str(&text).unwrap();
    t2.load(&read.with_tensors(&tensors).unwrap()).unwrap();
    assert_eq!((t2.iteration, t2.step), (3, 2), "a skipped step counts for randomness, not for the schedule");
    let scaler = t2.scaler.state().unwrap();
    assert_eq!((scaler.scale, scaler.growth_tracker), (32.0, 1));
    assert_eq!(t2.scaler.config(), scale);
    steps(&second, &mut t2, 3..6);
    assert_eq!(state(&second, &t2), state(&whole, &t));
    assert_eq!((t2.scaler.state().unwrap(), t2.iteration), (t.scaler.state().unwrap(), t.iteration));
    assert_eq!(t2.plateau, t.plateau);
    assert_eq!(t2.optimizers[0].lr(), t.optimizers[0].lr());
}

#[test]
fn a_snapshot_does_not_follow_the_training_and_brings_it_back() {
    let net = Net::new();
    let mut t = full_training(&net, LossScale::Static(8.0));
    steps(&net, &mut t, 0..1);
    let before = state(&net, &t);
    let (saved, best) = (t.state().unwrap(), net.deep_copy().unwrap());
    steps(&net, &mut t, 2..5);
    assert_ne!(state(&net, &t), before);
    load_state_dict(&net, &state_dict(&best)).unwrap();
    t.load(&saved).unwrap();
    assert_eq!(state(&net, &t), before);
}

#[test]
fn a_snapshot_that_does_not_fit_changes_nothing() {
    let net = Net::new();
    let mut t = full_training(&net, LossScale::Dynamic(Dynamic { init_scale: 64.0, ..Dynamic::default() }));
    steps(&net, &mut t, 0..1);
    let good = t.state().unwrap();
    steps(&net, &mut t, 2..3);
    let before = (state(&net, &t), serde_json::to_string(&t.state().unwrap()).unwrap());
    type Damage = fn(&mut TrainingState);
    let damages: [(&str, Damage); 10] = [
        ("loss scaling", |s| s.loss_scale = LossScale::Off),
        ("averages", |s| s.ema = None),
        ("the plateau", |s| s.plateau = None),
        ("an average", |s| drop(s.ema.as_mut().unwrap().tensors.pop())),
        ("a moment", |s| drop(s.optimizers[0].tensors.pop())),
        ("the scale", |s| s.scaler.scale = f32::INFINITY),
        ("the hysteresis", |s| s.scaler.hysteresis = 7),
        ("the schedule", |s| s.schedule = Schedule::Exponential { gamma: f64::NAN }),
        ("clipping", |s| s.clip = Some(-1.0)),
        ("the factor", |s| s.optimizers[0].lr_factor = f64::NAN),
    ];
    for (what, damage) in damages {
        let mut bad = good.clone();
        damage(&mut bad);
        assert!(t.load(&bad).is_err(), "{what}");
        assert_eq!((state(&net, &t), serde_json::to_string(&t.state().unwrap()).unwrap()), before, "{what}");
    }
    let mut tensors = good.tensors();
    tensors.push(("model.weight".into(), tensors[0].1.clone()));
    assert!(matches!(good.with_tensors(&tensors), Err(Error::State(_))));
}

#[test]
fn scaler_states_that_no_scaler_has_are_refused() {
    let mut scaler = binade_amp::GradScaler::new(LossScale::dynamic()).unwrap();
    let good = scaler.state().unwrap();
    for scale in [0.0, -4.0, 1e-42, f32::INFINITY, f32::NAN] {
        let refused = scaler.load_state(binade_amp::ScalerState { scale, ..good });
        assert!(matches!(refused, Err(Error::Setting { what: "loss scale", .. })), "{scale}");
    }
    assert!(serde_json::from_str::<binade_amp::ScalerState>(r#"{"scale":1.0,"growth_tracker":-1}"#).is_err());
    assert_eq!(scaler.state().unwrap(), good);
    scaler.load_state(binade_amp::ScalerState { scale: 3.5, growth_tracker: 1999, ..good }).unwrap();
    assert_eq!((scaler.loss_scale(), scaler.state().unwrap().growth_tracker), (3.5, 1999));
    // The state of a scaler of f16 does not scale losses in f32.
    let mut off = binade_amp::GradScaler::new(LossScale::Off).unwrap();
    off.load_state(good).unwrap();
    assert_eq!(off.loss_scale(), 1.0);
}
