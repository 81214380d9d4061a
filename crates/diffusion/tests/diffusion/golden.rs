//! What diffusers' schedulers give, where `BINADE_GOLDEN` says.

use std::collections::BTreeMap;
use std::path::Path;

use binade_autograd::Var;
use binade_cpu as _;
use binade_diffusion::{Kind, Prediction, Sampler, SchedulerConfig, Spacing, Step};
use binade_nn::read_safetensors;
use binade_tensor::Class;
use serde_json::{Value, json};

fn far(ours: &[f64], wanted: &[f64]) -> f64 {
    assert_eq!(ours.len(), wanted.len());
    let size = wanted.iter().filter(|w| w.is_finite()).map(|w| w.abs()).fold(1e-30, f64::max);
    let same = |a: f64, b: f64| a.is_nan() == b.is_nan() && a.is_infinite() == b.is_infinite();
    assert!(ours.iter().zip(wanted).all(|(a, b)| same(*a, *b)), "NaN and infinities in other places");
    ours.iter().zip(wanted).filter(|(_, w)| w.is_finite()).map(|(a, b)| (a - b).abs() / size).fold(0.0, f64::max)
}

#[test]
fn schedules_times_and_steps_are_those_of_the_library() {
    let Ok(golden) = std::env::var("BINADE_GOLDEN") else {
        eprintln!("SKIPPED: BINADE_GOLDEN is not set, so no golden schedule is compared");
        return;
    };
    let folder = Path::new(&golden).join("models/schedulers");
    let mut names: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.sort();
    assert!(!names.is_empty());
    for path in names {
        let (tensors, metadata) = read_safetensors(&path, Class::Workspace).unwrap();
        let tensors: BTreeMap<_, _> = tensors.into_iter().collect();
        let values = |name: &str| tensors[name].to_f64_vec().unwrap();
        let var = |name: &str| Var::constant(tensors[name].clone());
        let mut config = json!({"_class_name": "DDIMScheduler", "prediction_type": "v_prediction",
            "clip_sample": false, "steps_offset": 1});
        for (key, value) in &metadata {
            let lower = value.to_lowercase();
            config[key] = serde_json::from_str(&lower).unwrap_or_else(|_| Value::String(value.clone()));
        }
        let config = SchedulerConfig::of(&config).unwrap();
        let schedule = config.schedule().unwrap();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        // PyTorch's tables are f32: a product of a thousand factors.
        let kept = far(schedule.kept(), &values("alphas_cumprod"));
        let betas = far(schedule.betas(), &values("betas"));
        assert!(betas < 1e-4 && kept < 2e-6, "{name}: betas {betas:.1e} kept {kept:.1e}");
        let times: Vec<i64> = tensors["timesteps"].to_vec().unwrap();
        let noisy = schedule.add_noise(&var("x"), &var("noise"), &times).unwrap();
        let velocity = schedule.velocity(&var("x"), &var("noise"), &times).unwrap();
        let noisy = far(&noisy.array().to_f64_vec().unwrap(), &values("noisy"));
        let velocity = far(&velocity.array().to_f64_vec().unwrap(), &values("velocity"));
        assert!(noisy < 1e-5 && velocity < 1e-5, "{name}: noisy {noisy:.1e} velocity {velocity:.1e}");
        let spacings =
            [("leading", Spacing::Leading), ("trailing", Spacing::Trailing), ("linspace", Spacing::Linspace)];
        for (key, spacing) in spacings {
            for steps in [1usize, 20, 50, 333] {
                let Some(wanted) = tensors.get(&format!("ddim_timesteps.{key}.{steps}")) else { continue };
                let config = SchedulerConfig { timestep_spacing: spacing, kind: Kind::Ddim, ..config.clone() };
                let sampler = Sampler::new(&config, steps, 0.0).unwrap();
                let found: Vec<i64> = sampler.steps.iter().map(|step| step.time as i64).collect();
                assert_eq!(found, wanted.to_vec::<i64>().unwrap(), "{name} {key} {steps}");
            }
            // The eleventh of fifty steps.
            let times: Vec<i64> = tensors[&format!("ddim_timesteps.{key}.50")].to_vec().unwrap();
            let t = times[10] as usize;
            for prediction in [Prediction::Epsilon, Prediction::VPrediction, Prediction::Sample] {
                let step = Step::ddim(&schedule, prediction, t, schedule.kept()[t - 20], 0.0, None);
                let next = step.next(&var("x"), &var("eps"), &mut Vec::new()).unwrap();
                let far = far(
                    &next.array().to_f64_vec().unwrap(),
                    &values(&format!("ddim_prev.{key}.{}", prediction.name())),
                );
                assert!(far < 2e-6, "{name} {key} {prediction:?}: {far:.1e}");
            }
        }
    }
}
