use super::*;

fn dynamic(init_scale: f64, growth_factor: f64, backoff_factor: f64, growth_interval: u32) -> Dynamic {
    Dynamic { init_scale, growth_factor, backoff_factor, growth_interval, ..Dynamic::default() }
}

fn run(config: LossScale, outcomes: &[bool]) -> Vec<ScalerState> {
    let mut state = config.start().unwrap();
    outcomes.iter().map(|&bad| (state = config.next(state, bad), state).1).collect()
}

#[test]
fn test_grad_scaling_update_scale() {
    let states = run(LossScale::Dynamic(dynamic(4.0, 2.0, 0.25, 2)), &[false, false, true]);
    let seen: Vec<_> = states.iter().map(|s| (s.scale, s.growth_tracker)).collect();
    assert_eq!(seen, [(4.0, 1), (8.0, 0), (2.0, 0)]);
}

#[test]
fn test_grad_scale_will_not_overflow() {
    assert_eq!(run(LossScale::Dynamic(dynamic(1e38, 16.0, 0.5, 1)), &[false])[0].scale, 1e38);
}

#[test]
fn the_inverse_of_the_scale_stays_finite_and_the_collapse_is_seen() {
    for (name, preset) in LossScale::presets() {
        let states = run(preset, &[true; 400]);
        for s in &states {
            assert!(s.scale > 0.0 && (1.0 / s.scale).is_finite(), "{name}: {}", s.scale);
            assert!(!matches!(preset, LossScale::Dynamic(d) if (s.scale as f64) < d.min_scale), "{name}");
        }
        assert!(states[399].in_vain > preset.patience(), "{name}");
    }
    // DeepSpeed gives up at the first bad step at the minimum: one for its hysteresis, 32 halvings, then one more.
    let states = run(LossScale::deepspeed(), &[true; 34]);
    assert_eq!((states[32].in_vain, states[33].in_vain, LossScale::deepspeed().patience()), (0, 1, 0));
}

#[test]
fn bad_steps_without_a_lower_scale_are_counted_until_a_good_one() {
    for config in [LossScale::Off, LossScale::Static(8.0), LossScale::Dynamic(dynamic(2f64.powi(-126), 2.0, 0.5, 100))]
    {
        let states = run(config, &[true, true, false, true]);
        let seen: Vec<_> = states.iter().map(|s| s.in_vain).collect();
        // 2⁻¹²⁶ is the smallest scale there is.
        assert_eq!(seen, [1, 2, 0, 1], "{config:?}");
    }
}

#[test]
fn an_interval_lowered_below_the_tracker_still_grows() {
    let mut state = run(LossScale::dynamic(), &[false; 15])[14];
    state = LossScale::Dynamic(dynamic(65536.0, 2.0, 0.5, 10)).next(state, false);
    assert_eq!((state.scale, state.growth_tracker), (131072.0, 0));
}

/// The automaton written the other way round: from the whole history, with counts of events instead of a state.
fn from_history(d: Dynamic, history: &[bool]) -> (f64, u32) {
    let (mut scale, mut good, mut bad) = (d.init_scale, 0, 0);
    for &found in history {
        if found {
            (good, bad) = (0, bad + 1);
            if bad >= d.hysteresis {
                scale = (scale * d.backoff_factor).max(d.min_scale);
                if d.refill == Refill::GoodStepOrBackoff {
                    bad = 0;
                }
            }
            continue;
        }
        good += 1;
        if d.refill != Refill::Growth {
            bad = 0;
        }
        if good == d.growth_interval + d.growth_lag {
            scale = (scale * d.growth_factor).min(d.max_scale);
            (good, bad) = (d.growth_lag, 0);
        }
    }
    (scale, good)
}

/// Every preset, intervals 1 to 3, hysteresis 1 to 3, every way to refill, all sequences of outcomes up to length
/// 12. All prefixes of a sequence are checked with it, so only the longest are enumerated.
#[test]
fn all_sequences_up_to_length_12_agree_with_a_second_automaton() {
    let presets = LossScale::presets().map(|(name, preset)| match preset {
        LossScale::Dynamic(d) => (name, d),
        other => panic!("{name} is {other:?}"),
    });
    let refills = [Refill::Growth, Refill::GoodStep, Refill::GoodStepOrBackoff];
    // Small ranges, so that the smallest and largest scales are reached as well.
    let narrow = ("narrow", Dynamic { init_scale: 4.0, min_scale: 1.0, max_scale: 16.0, ..Dynamic::default() });
    for (name, preset) in presets.into_iter().chain([narrow]) {
        for (growth_interval, hysteresis) in (1..=3).flat_map(|i| (1..=3).map(move |h| (i, h))) {
            for refill in refills {
                let d = Dynamic { growth_interval, hysteresis, refill, ..preset };
                for sequence in 0..1u32 << 12 {
                    let outcomes: Vec<bool> = (0..12).map(|i| sequence >> i & 1 == 1).collect();
                    let states = run(LossScale::Dynamic(d), &outcomes);
                    let (scale, tracker) = from_history(d, &outcomes);
                    let last = states[11];
                    assert_eq!((last.scale as f64, last.growth_tracker), (scale, tracker), "{name} {d:?} {outcomes:?}");
                    // Shorter ones are prefixes of those that end in good steps.
                    if let Some(n) = outcomes.iter().rposition(|&bad| bad).filter(|n| n % 3 == 0) {
                        let (scale, tracker) = from_history(d, &outcomes[..=n]);
                        assert_eq!((states[n].scale as f64, states[n].growth_tracker), (scale, tracker));
                    }
                }
            }
        }
    }
}

#[test]
fn every_setting_survives_serialisation() {
    for (name, preset) in LossScale::presets() {
        let text = serde_json::to_string(&preset).unwrap();
        assert_eq!(serde_json::from_str::<LossScale>(&text).unwrap(), preset, "{name}");
    }
}

#[test]
fn settings_outside_their_domain_are_refused() {
    let base = Dynamic::default();
    for bad in [
        dynamic(1.0, 1.0, 0.5, 1),
        dynamic(1.0, 2.0, 1.0, 1),
        dynamic(1.0, 2.0, 0.0, 1),
        dynamic(1.0, 2.0, -0.5, 1),
        dynamic(0.0, 2.0, 0.5, 1),
        dynamic(1.0, 2.0, 0.5, 0),
        dynamic(1e39, 2.0, 0.5, 1),
        dynamic(1.0, f64::NAN, 0.5, 1),
        Dynamic { hysteresis: 0, ..base },
        Dynamic { min_scale: 1e6, ..base },
        Dynamic { max_scale: 1.0, ..base },
    ] {
        assert!(matches!(LossScale::Dynamic(bad).start(), Err(Error::Setting { .. })), "{bad:?}");
    }
    // The inverse of 1e-42 is no f32.
    for scale in [0.0, -4.0, 1e-42, 1e39, f64::INFINITY, f64::NAN] {
        assert!(matches!(LossScale::Static(scale).start(), Err(Error::Setting { .. })), "{scale}");
        assert!(LossScale::Dynamic(Dynamic { init_scale: scale, min_scale: 0.0, ..base }).start().is_err(), "{scale}");
    }
}
