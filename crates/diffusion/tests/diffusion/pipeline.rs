//! A folder of Stable Diffusion that diffusers wrote, with its latents and its image, where `BINADE_GOLDEN` says.

use std::collections::BTreeMap;
use std::path::Path;

use binade_autograd::{Var, eval, no_grad};
use binade_cpu as _;
use binade_diffusion::{Guidance, Pipeline, Sampler};
use binade_nn::read_safetensors;
use binade_tensor::Class;

fn values(x: &Var) -> Vec<f64> {
    x.array().to_f64_vec().unwrap()
}

#[test]
fn images_from_the_same_noise_are_those_of_the_library() {
    let Ok(golden) = std::env::var("BINADE_GOLDEN") else {
        eprintln!("SKIPPED: BINADE_GOLDEN is not set, so no golden pipeline is run");
        return;
    };
    let folder = Path::new(&golden).join("models/pipeline");
    let (tensors, metadata) = read_safetensors(&folder.join("case.safetensors"), Class::Workspace).unwrap();
    let tensors: BTreeMap<_, _> = tensors.into_iter().collect();
    let pipeline = Pipeline::open(&folder).unwrap();
    let (steps, guidance) = (metadata["steps"].parse().unwrap(), metadata["guidance"].parse().unwrap());
    let sampler = Sampler::new(&pipeline.scheduler, steps, 0.0).unwrap();
    let times: Vec<i64> = sampler.steps.iter().map(|step| step.time as i64).collect();
    assert_eq!(times, tensors["timesteps"].to_vec::<i64>().unwrap());
    let ids = |name: &str| tensors[name].to_vec::<i64>().unwrap();
    let wanted = tensors["latents"].to_f64_vec().unwrap();
    let far = |ours: &[f64], wanted: &[f64]| {
        let size = wanted.iter().map(|w| w.abs()).fold(0.0, f64::max);
        ours.iter().zip(wanted).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max) / size
    };
    no_grad(|| {
        eval(|| {
            let (text, without) = (pipeline.encode(&ids("in.prompt_ids")), pipeline.encode(&ids("in.negative_ids")));
            let noise = Var::constant(tensors["in.latents"].clone());
            let size = noise.array().numel();
            let latents = pipeline.denoise(
                &noise,
                [&text.unwrap(), &without.unwrap()],
                &sampler,
                Guidance::new(guidance, 0.0).unwrap(),
                |done, x| {
                    let far = far(&values(x), &wanted[(done - 1) * size..done * size]);
                    assert!(far < 1e-4, "latents after step {done}: {far:.1e}");
                    Ok(())
                },
            );
            let image = pipeline.decode(&latents.unwrap()).unwrap();
            // Two of 255 shades of what goes from −1 to 1 are 0.016.
            let far = far(&values(&image), &tensors["out"].to_f64_vec().unwrap());
            assert!(far < 1e-3, "image: {far:.1e}");
        });
    });
}

#[test]
fn other_pipelines_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let open = |index: &str| {
        std::fs::write(folder.path().join("model_index.json"), index).unwrap();
        Pipeline::open(folder.path()).err().unwrap().to_string()
    };
    let xl =
        open(r#"{"_class_name": "StableDiffusionXLPipeline", "text_encoder_2": ["transformers", "CLIPTextModel"]}"#);
    assert!(xl.contains("StableDiffusionXLPipeline") && xl.contains("text_encoder_2"), "{xl}");
    assert!(open(r#"{"_class_name": "StableDiffusionPipeline"}"#).contains("scheduler is missing"));
    assert!(open("[1]").contains("no JSON object"));
    assert!(open("{").contains("model_index.json"));
    let whole = open(r#"{"_class_name": "StableDiffusionPipeline", "scheduler": ["diffusers", "DDIMScheduler"]}"#);
    assert!(whole.contains("scheduler_config.json"), "{whole}");
}
