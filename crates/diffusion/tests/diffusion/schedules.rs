//! Noise schedules, objectives and samplers against formulas in f64 that share nothing with the library's.

use binade_amp::Policy;
use binade_autograd::{Var, scope};
use binade_cpu as _;
use binade_diffusion::{
    BetaSchedule, Guidance, Kind, NoiseSchedule, Objective, Prediction, Sampler, SchedulerConfig, Spacing, Weighting,
};
use binade_tensor::DType;
use proptest::prelude::*;

const SCHEDULES: [BetaSchedule; 4] =
    [BetaSchedule::Linear, BetaSchedule::ScaledLinear, BetaSchedule::SquaredCosine, BetaSchedule::Sigmoid];
const PREDICTIONS: [Prediction; 3] = [Prediction::Epsilon, Prediction::Sample, Prediction::VPrediction];
const SPACINGS: [Spacing; 3] = [Spacing::Leading, Spacing::Trailing, Spacing::Linspace];

fn policies() -> [Policy; 3] {
    [Policy::OFF, Policy::autocast(DType::F16), Policy::autocast(DType::BF16)]
}

fn schedule(beta: BetaSchedule) -> NoiseSchedule {
    NoiseSchedule::new(beta.betas(1000, 0.00085, 0.012)).unwrap()
}

fn scaled_linear() -> NoiseSchedule {
    schedule(BetaSchedule::ScaledLinear)
}

fn values(x: &Var) -> Vec<f64> {
    x.array().to_f64_vec().unwrap()
}

fn var(values: &[f64], shape: &[usize]) -> Var {
    Var::from_slice(&values.iter().map(|&v| v as f32).collect::<Vec<_>>(), shape).unwrap()
}

#[test]
fn every_time_has_noise_in_every_precision() {
    for policy in policies() {
        for beta in SCHEDULES {
            let schedule = schedule(beta);
            let times: Vec<i64> = (0..1000).collect();
            let (x, noise) = (var(&[1.0; 1000], &[1000, 1]), var(&[-1.0; 1000], &[1000, 1]));
            let noisy = policy.run(|| schedule.add_noise(&x, &noise, &times).unwrap());
            assert_eq!(noisy.dtype(), DType::F32);
            let noisy = values(&noisy);
            for t in 0..1000 {
                let (keep, add) = schedule.weights(t);
                assert!(noisy[t] < 1.0 && (noisy[t] - (keep - add)).abs() < 2e-7, "{beta:?} {t}: {}", noisy[t]);
                assert!(t == 0 || noisy[t] < noisy[t - 1], "{beta:?}: time {t} has no more noise than the one before");
            }
        }
    }
}

#[test]
fn min_snr_weights_are_those_of_the_paper() {
    let weights = |prediction| {
        let objective =
            Objective { weighting: Weighting::MinSnr(5.0), ..Objective::new(scaled_linear(), prediction).unwrap() };
        [0, 100, 250, 500, 999].map(|t| objective.weight(t))
    };
    let near = |found: [f64; 5], wanted: [f64; 5]| {
        let far = found.iter().zip(wanted).find(|(f, w)| (**f - w).abs() > 1e-3 * w + 1e-5);
        assert!(far.is_none(), "{found:?} is not {wanted:?}");
    };
    near(weights(Prediction::Epsilon), [0.00425, 0.5914, 1.0, 1.0, 1.0]);
    near(weights(Prediction::VPrediction), [0.00425, 0.5289, 0.6738, 0.2763, 0.00466]);
}

#[test]
fn snr_weights_make_every_loss_that_of_the_noise() {
    let objective =
        |prediction| Objective { weighting: Weighting::Snr, ..Objective::new(scaled_linear(), prediction).unwrap() };
    let times = [0i64, 300, 999];
    let (x, noise) = (var(&[0.3, -0.8, 0.5], &[3, 1]), var(&[1.2, 0.1, -0.7], &[3, 1]));
    // A network that finds the noise wrongly by 0.1, whatever it is asked for.
    let wrong = var(&[1.3, 0.2, -0.6], &[3, 1]);
    for t in 0..3 {
        let loss = |prediction| {
            let objective = objective(prediction);
            let part = |v: &Var| v.narrow(0, t, 1).unwrap();
            let at = [times[t]];
            let (noisy, wanted) = objective.pose(&part(&x), &part(&noise), &at).unwrap();
            let (keep, add) = objective.schedule.weights(at[0] as usize);
            let image = (values(&noisy)[0] - add * values(&part(&wrong))[0]) / keep;
            let found = match prediction {
                Prediction::Epsilon => values(&part(&wrong))[0],
                Prediction::Sample => image,
                Prediction::VPrediction => keep * values(&part(&wrong))[0] - add * image,
            };
            objective.loss(&var(&[found], &[1, 1]), &wanted, &at).unwrap().item().unwrap()
        };
        for prediction in PREDICTIONS {
            let found = loss(prediction);
            assert!((found - 0.01).abs() < 2e-4, "{prediction:?} at {}: {found}", times[t]);
        }
    }
}

#[test]
fn noise_is_not_predicted_where_the_last_time_is_noise_alone() {
    let zero = scaled_linear().with_zero_terminal_snr();
    assert_eq!((zero.kept()[999], zero.snr(999)), (0.0, 0.0));
    assert!((zero.kept()[0] - scaled_linear().kept()[0]).abs() < 1e-15);
    assert!(Objective::new(zero.clone(), Prediction::Epsilon).unwrap_err().to_string().contains("zero terminal SNR"));
    assert!(Objective::new(zero, Prediction::VPrediction).is_ok());
    let text = r#"{"_class_name": "DDIMScheduler", "rescale_betas_zero_snr": true}"#;
    assert!(SchedulerConfig::read(text).unwrap_err().to_string().contains("zero terminal SNR"));
}

#[test]
fn settings_out_of_range_are_refused_with_their_values() {
    let objective = Objective::new(scaled_linear(), Prediction::Epsilon).unwrap();
    let weighted = |gamma| Objective { weighting: Weighting::MinSnr(gamma), ..objective.clone() }.checked();
    for gamma in [0.0, -1.0, f64::NAN] {
        assert!(weighted(gamma).unwrap_err().to_string().contains(&format!("got {gamma}")));
    }
    assert!(Objective { noise_offset: -0.1, ..objective.clone() }.checked().is_err());
    for (steps, eta) in [(0, 0.0), (1001, 0.0), (20, 1.5), (20, f64::NAN)] {
        assert!(Sampler::new(&SchedulerConfig::new(Kind::Ddim), steps, eta).is_err(), "{steps} {eta}");
    }
    assert!(Guidance::new(f64::NAN, 0.0).is_err() && Guidance::new(7.5, 1.5).is_err());
    assert!(NoiseSchedule::new(vec![]).is_err() && NoiseSchedule::new(vec![0.5, f64::NAN]).is_err());
    let x = var(&[0.0], &[1, 1]);
    assert!(scaled_linear().add_noise(&x, &x, &[1000]).is_err() && scaled_linear().add_noise(&x, &x, &[-1]).is_err());
}

#[test]
fn guidance_of_1_and_0_are_the_two_outputs_to_the_bit() {
    let (a, b) = (var(&[0.1, 0.7, -3.3], &[1, 3]), var(&[0.3, -0.2, 1.7], &[1, 3]));
    let of = |scale| values(&Guidance::new(scale, 0.0).unwrap().of(Some(&a), Some(&b)).unwrap());
    assert_eq!((of(1.0), of(0.0)), (values(&a), values(&b)));
    let wanted: Vec<f64> = values(&a).iter().zip(values(&b)).map(|(a, b)| b + 7.5 * (a - b)).collect();
    assert!(of(7.5).iter().zip(&wanted).all(|(x, y)| (x - y).abs() < 1e-5));
    // Rescaled as a whole it has the deviation of the conditional output.
    let rescaled = Guidance::new(7.5, 1.0).unwrap().of(Some(&a), Some(&b)).unwrap();
    let std = |v: &Var| v.std(&[1], 1.0, false).unwrap().item().unwrap();
    assert!((std(&rescaled) - std(&a)).abs() < 1e-5);
}

/// The velocity of a network that knows that all images are `x0`: the sampler must find it.
fn knows(config: &SchedulerConfig, x0: f64, seen: &Var, time: f64) -> Var {
    let schedule = config.schedule().unwrap();
    let kept = |t: usize| match schedule.kept()[t] {
        0.0 => 2f64.powi(-24),
        kept => kept,
    };
    // Between times σ is interpolated, as samplers over σ do.
    let sigma = |t: usize| ((1.0 - kept(t)) / kept(t)).sqrt();
    let (low, high) = (time.floor() as usize, (time.floor() as usize + 1).min(999));
    let sigma = sigma(low) + (sigma(high) - sigma(low)) * time.fract();
    let keep = 1.0 / (1.0 + sigma * sigma).sqrt();
    let add = sigma * keep;
    let out = values(seen).into_iter().map(|x| {
        let noise = (x - keep * x0) / add;
        match config.prediction_type {
            Prediction::Epsilon => noise,
            Prediction::Sample => x0,
            Prediction::VPrediction => keep * noise - add * x0,
        }
    });
    var(&out.collect::<Vec<_>>(), seen.shape())
}

#[test]
fn every_sampler_finds_the_one_image_there_is() {
    // PNDM's steps of higher order are right only where there are many; a test of their own compares them.
    for kind in Kind::ALL.into_iter().filter(|kind| *kind != Kind::Pndm) {
        for prediction in PREDICTIONS {
            for spacing in SPACINGS {
                for steps in [1, 2, 3, 7, 20, 50, 333, 600, 999, 1000] {
                    let config = SchedulerConfig {
                        prediction_type: prediction,
                        timestep_spacing: spacing,
                        beta_schedule: BetaSchedule::ScaledLinear,
                        beta_start: 0.00085,
                        beta_end: 0.012,
                        steps_offset: 1,
                        clip_sample: None,
                        ..SchedulerConfig::new(kind)
                    };
                    let sampler = Sampler::new(&config, steps, 0.0).unwrap();
                    let evaluations = match kind {
                        Kind::Heun => 2 * steps - 1,
                        _ => steps,
                    };
                    assert_eq!(sampler.steps.len(), evaluations, "{config:?}");
                    let times = sampler.steps.iter().map(|step| step.time);
                    assert!(times.clone().all(|t| (0.0..=999.0).contains(&t)), "{config:?} {steps}");
                    let x0 = 0.6;
                    let found = scope::with_key(3, 0, || {
                        let noise = Var::normal(0.0, 1.0, &[1, 8]).unwrap();
                        sampler.run::<binade_diffusion::Error>(
                            &noise,
                            |x, t| Ok(knows(&config, x0, x, t)),
                            |_, x| {
                                assert!(values(x).iter().all(|x| x.is_finite() && x.abs() < 700.0));
                                Ok(())
                            },
                        )
                    });
                    let found = values(&found.unwrap());
                    // DDIM and DDPM end where the schedule's stride ends, not always at the image.
                    let last = sampler.steps.last().unwrap().time;
                    let stride = (1000 / steps) as f64;
                    let exact = !matches!(kind, Kind::Ddim | Kind::Ddpm) || last < stride;
                    let far = found.iter().map(|x| (x - x0).abs()).fold(0.0, f64::max);
                    assert!(!exact || far < 2e-3, "{kind:?} {prediction:?} {spacing:?} {steps}: {far}");
                    assert!(far < 4.0, "{kind:?} {prediction:?} {spacing:?} {steps}: {far}");
                }
            }
        }
    }
}

/// What PNDM without Runge-Kutta steps makes of `x`, written as a loop over what it remembers, from Liu et al. (2022),
/// equations 9, 11 and 12, in f64.
fn pndm(config: &SchedulerConfig, steps: usize, mut x: f64, network: impl Fn(f64, f64) -> f64) -> f64 {
    let kept = config.schedule().unwrap().kept().to_vec();
    let end = if config.set_alpha_to_one { 1.0 } else { kept[0] };
    let stride = 1000 / steps;
    let transfer = |x: f64, output: f64, t: usize, to: Option<usize>| {
        let (a, b) = (kept[t], to.map_or(end, |to| kept[to]));
        let noise = match config.prediction_type {
            Prediction::VPrediction => a.sqrt() * output + (1.0 - a).sqrt() * x,
            _ => output,
        };
        (b / a).sqrt() * x - (b - a) * noise / (a * (1.0 - b).sqrt() + (a * (1.0 - a) * b).sqrt())
    };
    let times: Vec<usize> = (0..steps).rev().map(|i| i * stride + config.steps_offset).collect();
    let (mut seen, mut begun): (Vec<f64>, f64) = (Vec::new(), x);
    for (i, &t) in times.iter().enumerate() {
        if i == 1 {
            let mean = (network(x, t as f64) + seen[0]) / 2.0;
            x = transfer(begun, mean, t + stride, Some(t));
        }
        seen.insert(0, network(x, t as f64));
        begun = x;
        let slope = match seen[..] {
            [a] => a,
            [a, b] => (3.0 * a - b) / 2.0,
            [a, b, c] => (23.0 * a - 16.0 * b + 5.0 * c) / 12.0,
            [a, b, c, d, ..] => (55.0 * a - 59.0 * b + 37.0 * c - 9.0 * d) / 24.0,
            [] => unreachable!("one was put in"),
        };
        x = transfer(x, slope, t, t.checked_sub(stride));
    }
    x
}

#[test]
fn stable_diffusions_own_sampler_is_that_of_its_paper() {
    let text = r#"{"_class_name": "PNDMScheduler", "beta_end": 0.012, "beta_schedule": "scaled_linear",
        "beta_start": 0.00085, "clip_sample": false, "num_train_timesteps": 1000, "set_alpha_to_one": false,
        "skip_prk_steps": true, "steps_offset": 1, "trained_betas": null}"#;
    let network = |x: f64, t: f64| (3.0 * x).sin() * 0.4 + x * 0.5 + t / 4000.0;
    for prediction in [Prediction::Epsilon, Prediction::VPrediction] {
        let config = SchedulerConfig { prediction_type: prediction, ..SchedulerConfig::read(text).unwrap() };
        for steps in [1, 2, 3, 4, 5, 20, 50] {
            let sampler = Sampler::new(&config, steps, 0.0).unwrap();
            let start = [0.9, -1.3, 0.2];
            let of =
                |x: &Var, t: f64| Ok(var(&values(x).into_iter().map(|x| network(x, t)).collect::<Vec<_>>(), x.shape()));
            let found = sampler.run::<binade_diffusion::Error>(&var(&start, &[1, 3]), of, |_, _| Ok(())).unwrap();
            for (found, start) in values(&found).into_iter().zip(start) {
                let exact = pndm(&config, steps, start, network);
                assert!(
                    (found - exact).abs() < 2e-4 * exact.abs().max(1.0),
                    "{prediction:?} {steps}: {found}, {exact}"
                );
            }
        }
    }
    let without = text.replace("\"skip_prk_steps\": true, ", "");
    let refused = SchedulerConfig::read(&without).unwrap_err().to_string();
    assert!(refused.contains("skip_prk_steps"), "{refused}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Song et al. (2021), equation 12, written from the paper.
    #[test]
    fn a_step_of_ddim_is_that_of_the_paper(
        (t, back) in (1usize..1000, 1usize..500), (x, noise) in (-3.0f64..3.0, -3.0f64..3.0), eta in 0.0f64..1.0,
        which in 0usize..3,
    ) {
        let schedule = scaled_linear();
        let (a, b) = (schedule.kept()[t], t.checked_sub(back).map_or(1.0, |t| schedule.kept()[t]));
        let prediction = PREDICTIONS[which];
        let noisy = a.sqrt() * x + (1.0 - a).sqrt() * noise;
        let output = [noise, x, a.sqrt() * noise - (1.0 - a).sqrt() * x][which];
        let step = binade_diffusion::Step::ddim(&schedule, prediction, t, b, eta, None);
        let sigma = eta * ((1.0 - b) / (1.0 - a)).sqrt() * (1.0 - a / b).sqrt();
        let wanted = b.sqrt() * x + (1.0 - b - sigma * sigma).sqrt() * noise;
        let image = step.image[0] * noisy + step.image[1] * output;
        let found = step.next.x * noisy + step.next.x0 * image + step.next.output * output;
        prop_assert!((found - wanted).abs() < 1e-9 * (1.0 + 1.0 / a.sqrt()), "{found} {wanted}");
        prop_assert!((step.next.noise - sigma).abs() < 1e-12);
    }

    /// Ho et al. (2020), equations 6 and 7: the mean and the variance of what was before, given the image.
    #[test]
    fn a_step_of_ddpm_is_that_of_the_paper(t in 1usize..1000, x in -3.0f64..3.0, noisy in -3.0f64..3.0, large: bool) {
        let schedule = scaled_linear();
        let (a, b, beta) = (schedule.kept()[t], schedule.kept()[t - 1], schedule.betas()[t]);
        let step = binade_diffusion::Step::ddpm(&schedule, Prediction::Sample, t, b, large, None);
        let mean = b.sqrt() * beta / (1.0 - a) * x + (1.0 - beta).sqrt() * (1.0 - b) / (1.0 - a) * noisy;
        let variance = if large { beta } else { (1.0 - b) / (1.0 - a) * beta };
        prop_assert!((step.next.x * noisy + step.next.x0 * x - mean).abs() < 1e-10);
        prop_assert!((step.next.noise - variance.sqrt()).abs() < 1e-10);
    }

    #[test]
    fn configurations_are_read_as_they_are_written(
        kind in 0usize..Kind::ALL.len(), beta in 0usize..4, which in 0usize..3, spacing in 0usize..3, clip: bool,
    ) {
        let kind = Kind::ALL[kind];
        prop_assume!(kind != Kind::Pndm || PREDICTIONS[which] != Prediction::Sample);
        let config = SchedulerConfig {
            beta_schedule: SCHEDULES[beta],
            prediction_type: PREDICTIONS[which],
            timestep_spacing: SPACINGS[spacing],
            clip_sample: (clip && matches!(kind, Kind::Ddpm | Kind::Ddim | Kind::Heun)).then_some(2.0),
            fixed_large: kind == Kind::Ddpm && clip,
            ..SchedulerConfig::new(kind)
        };
        prop_assert_eq!(SchedulerConfig::read(&config.write()).unwrap(), config);
    }
}

#[test]
fn what_a_configuration_asks_for_and_is_not_built_is_named_with_its_value() {
    let read = |more: &str| {
        let text = format!(r#"{{"_class_name": "DPMSolverMultistepScheduler", {more}}}"#);
        SchedulerConfig::read(&text).unwrap_err().to_string()
    };
    for (more, told) in [
        (r#""use_karras_sigmas": true"#, "use_karras_sigmas is true"),
        (r#""thresholding": true"#, "thresholding is true"),
        (r#""solver_order": 3"#, "solver_order is 3"),
        (r#""algorithm_type": "sde-dpmsolver++""#, r#"algorithm_type is "sde-dpmsolver++""#),
        (r#""shift": 3.0"#, "shift is 3.0"),
        (r#""beta_schedule": "laplace""#, r#"beta_schedule is "laplace""#),
        (r#""variance_type": "learned_range""#, r#"variance_type is "learned_range""#),
    ] {
        assert!(read(more).contains(told), "{}", read(more));
    }
    let other = SchedulerConfig::read(r#"{"_class_name": "LMSDiscreteScheduler"}"#).unwrap_err().to_string();
    assert!(other.contains("LMSDiscreteScheduler") && other.contains("DDIMScheduler"), "{other}");
    // Python's spelling of a clipping that is off.
    assert!(SchedulerConfig::read(r#"{"_class_name": "DDIMScheduler", "lambda_min_clipped": -Infinity}"#).is_ok());
}
