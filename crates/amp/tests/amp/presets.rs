//! Presets of loss scales against the algorithms of the systems they are named after, each written down here as its own
//! source has it, step by step over long traces.

use binade_amp::{Dynamic, LossScale};
use binade_cpu as _;

/// What an original does with a step: its next scale, or the end of the run.
type Original = Box<dyn FnMut(bool) -> Option<f64>>;

/// Steps at the scale, growth at every `interval`th good one in a row, `lower` after a bad one: what PyTorch, apex,
/// Keras and jmp share.
fn counting(
    init: f64,
    interval: u32,
    mut grow: impl FnMut(f64) -> f64 + 'static,
    lower: impl Fn(f64) -> f64 + 'static,
) -> Original {
    let (mut scale, mut good) = (init, 0);
    Box::new(move |bad| {
        if bad {
            (scale, good) = (lower(scale), 0);
        } else {
            good += 1;
            if good == interval {
                (scale, good) = (grow(scale), 0);
            }
        }
        Some(scale)
    })
}

/// `DynamicGradScaler.update` of Megatron-LM.
fn megatron() -> Original {
    let (mut scale, mut growth_tracker, mut hysteresis_tracker) = (2f64.powi(32), 0, 2i64);
    Box::new(move |bad| {
        if bad {
            growth_tracker = 0;
            hysteresis_tracker -= 1;
            if hysteresis_tracker <= 0 {
                scale = (scale * 0.5).max(1.0);
            }
        } else {
            growth_tracker += 1;
            if growth_tracker == 1000 {
                (growth_tracker, hysteresis_tracker) = (0, 2);
                scale *= 2.0;
            }
        }
        Some(scale)
    })
}

/// `DynamicLossScaler.update_scale` of DeepSpeed, with `delayed_shift` 2.
fn deepspeed() -> Original {
    let (mut scale, mut iteration, mut last_overflow, mut hysteresis) = (2f64.powi(32), 0i64, -1i64, 2);
    Box::new(move |bad| {
        if bad {
            if hysteresis == 1 {
                if scale == 1.0 {
                    return None;
                }
                scale = (scale / 2.0).max(1.0);
            } else {
                hysteresis -= 1;
            }
            last_overflow = iteration;
        } else {
            let stable = iteration - last_overflow - 1;
            if stable > 0 && stable % 1000 == 0 {
                hysteresis = 2;
                scale *= 2.0;
            }
        }
        iteration += 1;
        Some(scale)
    })
}

/// `AmpScaler._update` of Paddle.
fn paddle(decr_every: u32) -> Original {
    let (mut scale, mut incr_count, mut decr_count) = (65536.0, 0, 0);
    Box::new(move |bad| {
        if bad {
            (incr_count, decr_count) = (0, decr_count + 1);
            if decr_count == decr_every {
                (scale, decr_count) = (scale * 0.5, 0);
            }
        } else {
            (incr_count, decr_count) = (incr_count + 1, 0);
            if incr_count == 2000 {
                (scale, incr_count) = (scale * 2.0, 0);
            }
        }
        Some(scale)
    })
}

/// Bad steps at the start, single and in rows, far apart and close together; then so many in a row that every floor
/// below 1 shows.
fn outcomes() -> Vec<bool> {
    let (mut trace, mut state) = (vec![true, false, true, true], 7u64);
    for _ in 0..24 {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        let (bad, good) = (
            1 + (state >> 60) as usize % 4,
            [1, 2, 999, 1000, 1001, 1999, 2000, 2001, 3002][(state >> 40) as usize % 9],
        );
        trace.extend(std::iter::repeat_n(true, bad));
        trace.extend(std::iter::repeat_n(false, good));
    }
    trace.extend([true; 60]);
    trace
}

#[track_caller]
fn agrees(preset: LossScale, mut original: Original) {
    let LossScale::Dynamic(Dynamic { patience, .. }) = preset else { panic!("{preset:?}") };
    let mut state = preset.start().unwrap();
    for (step, bad) in outcomes().into_iter().enumerate() {
        state = preset.next(state, bad);
        match original(bad) {
            Some(scale) => assert_eq!(state.scale as f64, scale, "after step {step}"),
            None => {
                assert!(state.in_vain > patience, "the original ends at step {step}");
                return;
            }
        }
        assert!(patience > 0 || state.in_vain == 0, "the original goes on after step {step}");
    }
}

#[test]
fn pytorch() {
    agrees(LossScale::dynamic(), counting(65536.0, 2000, |s| s * 2.0, |s| s * 0.5));
}

#[test]
fn apex() {
    agrees(LossScale::apex(), counting(65536.0, 2000, |s| (s * 2.0).min(2f64.powi(24)), |s| s / 2.0));
}

#[test]
fn keras() {
    agrees(LossScale::keras(), counting(32768.0, 2000, |s| s * 2.0, |s| s / 2.0));
}

#[test]
fn jmp() {
    agrees(LossScale::jmp(), counting(32768.0, 2000, |s| s * 2.0, |s| (s / 2.0).max(1.0)));
}

#[test]
fn megatron_lm() {
    agrees(LossScale::megatron(), megatron());
}

#[test]
fn deepspeed_grows_at_good_step_1001_and_ends_at_the_minimum() {
    agrees(LossScale::deepspeed(), deepspeed());
}

#[test]
fn paddle_has_no_floor() {
    agrees(LossScale::paddle(1), paddle(1));
    agrees(LossScale::paddle(2), paddle(2));
}
