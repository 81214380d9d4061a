//! Folders of networks without text: written, read, drawn from; LoRA; autoencoders that overflow.

use std::path::Path;

use binade_amp::{LossScale, Policy, Training};
use binade_autograd::{Var, eval, no_grad, scope};
use binade_cpu as _;
use binade_diffusion::{
    Condition, Denoiser, Guidance, ImagePipeline, Kind, LORA_FILE, Sampler, SchedulerConfig, VaePrecision, draw,
    merge_lora, save_lora,
};
use binade_models::{
    AutoencoderKL, AutoencoderKLConfig, OneOrEach, UNet2DConditionConfig, UNet2DConditionModel, UNet2DConfig,
    UNet2DModel,
};
use binade_nn::{AdamW, Module, Optimizer, read_safetensors};
use binade_tensor::op::Reduction;
use binade_tensor::{Array, Class, DType, Device, f16};
use binade_weights::{SaveOptions, Sources, save};

fn unet(classes: Option<usize>) -> Denoiser {
    let config = UNet2DConfig {
        sample_size: 8.into(),
        in_channels: 4,
        out_channels: 4,
        block_out_channels: vec![8, 16],
        down_block_types: vec!["DownBlock2D".into(), "AttnDownBlock2D".into()],
        up_block_types: vec!["AttnUpBlock2D".into(), "UpBlock2D".into()],
        norm_num_groups: 4,
        layers_per_block: 1,
        num_class_embeds: classes,
        ..UNet2DConfig::default()
    };
    scope::with_key(5, 0, || UNet2DModel::new(&config).unwrap()).into()
}

fn vae() -> AutoencoderKL {
    let config = AutoencoderKLConfig {
        block_out_channels: vec![8, 8],
        down_block_types: vec!["DownEncoderBlock2D".into(); 2],
        up_block_types: vec!["UpDecoderBlock2D".into(); 2],
        norm_num_groups: 4,
        scaling_factor: 0.7,
        ..AutoencoderKLConfig::default()
    };
    scope::with_key(6, 0, || AutoencoderKL::new(&config).unwrap())
}

fn values(x: &Var) -> Vec<f64> {
    x.array().to_f64_vec().unwrap()
}

fn quietly<T>(f: impl FnOnce() -> T) -> T {
    no_grad(|| eval(|| scope::with_key(9, 0, f)))
}

fn noise(n: usize) -> Var {
    Var::normal(0.0, 1.0, &[n, 4, 8, 8]).unwrap()
}

fn guidance(scale: f64) -> Guidance {
    Guidance::new(scale, 0.0).unwrap()
}

#[test]
fn a_folder_is_read_as_it_was_written() {
    let folder = tempfile::tempdir().unwrap();
    let classes: Vec<String> = ["cat", "dog"].map(String::from).into();
    let scheduler = SchedulerConfig { clip_sample: None, ..SchedulerConfig::new(Kind::Ddim) };
    let written = ImagePipeline { unet: unet(Some(3)), vae: Some(vae()), scheduler, classes };
    written.save(folder.path()).unwrap();
    assert!(ImagePipeline::is_in(folder.path()).unwrap());
    let read = ImagePipeline::open(folder.path()).unwrap();
    assert_eq!((&read.scheduler, &read.classes), (&written.scheduler, &written.classes));
    assert_eq!((read.label("dog").unwrap(), read.label("2").unwrap(), read.no_class()), (1, 2, Some(2)));
    let unknown = read.label("bird").unwrap_err().to_string();
    assert!(unknown.contains("bird") && unknown.contains("cat, dog"), "{unknown}");
    let sampler = Sampler::new(&read.scheduler, 3, 0.0).unwrap();
    let image = |pipeline: &ImagePipeline| {
        quietly(|| {
            let (label, none) = (Var::from_slice(&[1i64], &[1]).unwrap(), Var::from_slice(&[2i64], &[1]).unwrap());
            let labels = [&label, &none].map(Condition::Labels);
            let drawn = draw(&pipeline.unet, &noise(1), labels, &sampler, guidance(2.0), |_, _| Ok(())).unwrap();
            let (image, fault) = pipeline.decode(&drawn, VaePrecision::Fp32).unwrap();
            assert!(fault.is_none());
            assert_eq!(**image.shape(), [1, 3, 16, 16]);
            values(&image)
        })
    };
    assert_eq!(image(&read), image(&written));
    assert_eq!(read.vae.unwrap().config().scaling_factor, 0.7);
}

#[test]
fn a_folder_of_another_pipeline_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("model_index.json"), r#"{"_class_name": "KandinskyPipeline"}"#).unwrap();
    let error = ImagePipeline::open(folder.path()).err().unwrap().to_string();
    assert!(error.contains("KandinskyPipeline"), "{error}");
}

/// A library's folder may have its files beside the index.
#[test]
fn files_beside_the_index_are_found() {
    let folder = tempfile::tempdir().unwrap();
    unet(None).save(folder.path()).unwrap();
    let index = r#"{"_class_name": "DDPMPipeline", "scheduler": ["diffusers", "DDPMScheduler"],
        "unet": ["diffusers", "UNet2DModel"]}"#;
    std::fs::write(folder.path().join("model_index.json"), index).unwrap();
    std::fs::write(folder.path().join("scheduler_config.json"), SchedulerConfig::new(Kind::Ddpm).write()).unwrap();
    let read = ImagePipeline::open(folder.path()).unwrap();
    assert!(read.vae.is_none() && read.classes.is_empty());
    assert!(read.label("0").unwrap_err().to_string().contains("no table of classes"));
}

#[test]
fn guidance_of_1_and_0_draws_what_the_class_and_no_class_draw() {
    let unet = unet(Some(3));
    let sampler = Sampler::new(&SchedulerConfig::new(Kind::Ddim), 4, 0.0).unwrap();
    let label = |label: i64| Var::from_slice(&[label; 2], &[2]).unwrap();
    let (class, none) = (label(0), label(2));
    let drawn = |labels: [Condition<'_>; 2], scale: f64| {
        quietly(|| values(&draw(&unet, &noise(2), labels, &sampler, guidance(scale), |_, _| Ok(())).unwrap()))
    };
    let both = [&class, &none].map(Condition::Labels);
    assert_eq!(drawn(both, 1.0), drawn([both[0], Condition::Nothing], 1.0));
    assert_eq!(drawn(both, 0.0), drawn([both[1], Condition::Nothing], 1.0));
    assert_ne!(drawn(both, 1.0), drawn(both, 0.0));
    let without = quietly(|| {
        draw(&unet, &noise(2), [both[0], Condition::Nothing], &sampler, guidance(3.0), |_, _| Ok(()))
            .unwrap_err()
            .to_string()
    });
    assert!(without.contains("one that stands for none"), "{without}");
}

fn waves(shape: &[usize]) -> Var {
    let x: Vec<f32> = (0..shape.iter().product()).map(|i: usize| (i as f32 * 0.7).sin()).collect();
    Var::from_slice(&x, shape).unwrap()
}

fn conditioned() -> Denoiser {
    let config = UNet2DConditionConfig {
        block_out_channels: vec![8, 16],
        down_block_types: vec!["CrossAttnDownBlock2D".into(), "DownBlock2D".into()],
        up_block_types: vec!["UpBlock2D".into(), "CrossAttnUpBlock2D".into()],
        norm_num_groups: 4,
        layers_per_block: OneOrEach::One(1),
        attention_head_dim: OneOrEach::One(2),
        cross_attention_dim: OneOrEach::One(6),
        ..UNet2DConditionConfig::default()
    };
    scope::with_key(7, 0, || UNet2DConditionModel::new(&config).unwrap()).into()
}

fn answer(unet: &Denoiser) -> Vec<f64> {
    let (x, t) = (waves(&[1, 4, 8, 8]), Var::from_slice(&[7.0f32], &[1]).unwrap());
    quietly(|| {
        let text = waves(&[1, 5, 6]);
        let condition = if unet.takes_text() { Condition::Text(&text) } else { Condition::Nothing };
        values(&unet.forward(&x, &t, condition).unwrap())
    })
}

#[test]
fn changes_of_low_rank_begin_as_none_train_alone_and_are_written_and_merged() {
    for unet in [unet(None), conditioned()] {
        let folder = tempfile::tempdir().unwrap();
        let plain = answer(&unet);
        let own = unet.named_parameters().len();
        let lora = scope::with_key(8, 0, || unet.deep_copy().unwrap().with_lora(2, 6.0).unwrap());
        assert_eq!(answer(&lora), plain, "at first they change nothing");
        let trained: Vec<_> = lora.named_parameters().into_iter().filter(|(_, p)| p.is_trainable()).collect();
        let [down, up] = [".lora.down.weight", ".lora.up.weight"];
        assert!(trained.iter().all(|(name, _)| name.ends_with(down) || name.ends_with(up)));
        assert_eq!(trained.len() + own, lora.named_parameters().len());
        for (_, param) in trained.iter().filter(|(name, _)| name.ends_with(up)) {
            param.array().copy_from((&waves(&param.shape()) * 0.05).unwrap().array()).unwrap();
        }
        let changed = answer(&lora);
        assert_ne!(changed, plain);
        let file = save_lora(&lora, 6.0, folder.path()).unwrap();
        assert_eq!(file.file_name().unwrap(), LORA_FILE);
        let (tensors, metadata) = read_safetensors(&file, Class::Workspace).unwrap();
        assert_eq!(metadata["format"], "pt");
        assert!(tensors.iter().all(|(name, _)| name.starts_with("unet.")));
        assert!(tensors.iter().any(|(name, _)| name.ends_with("to_out.0.lora.up.weight")));
        let layers = merge_lora(&[("unet", &unet)], folder.path(), 1.0).unwrap();
        assert_eq!(2 * layers, trained.len());
        let merged = answer(&unet);
        let far = merged.iter().zip(&changed).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        assert!(far < 1e-5, "{far}");
        // What was added is taken out again, but for rounding.
        merge_lora(&[("unet", &unet)], folder.path(), -1.0).unwrap();
        let far = answer(&unet).iter().zip(&plain).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        assert!(far < 1e-5, "{far}");
    }
}

#[test]
fn names_of_peft_and_alpha_are_read_and_others_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("lora.safetensors");
    let write = |tensors: &[(&str, &[usize])]| {
        let full = |shape: &[usize]| {
            Array::from_slice(&Device::cpu(), &vec![2.0f32; shape.iter().product()], shape, Class::Weights).unwrap()
        };
        let tensors: Vec<_> = tensors.iter().map(|(name, shape)| (name.to_string(), full(shape))).collect();
        binade_nn::write_safetensors(&path, &tensors, Default::default()).unwrap();
    };
    let layer = "unet.mid_block.attentions.0.to_q";
    let name = |end: &str| format!("{layer}{end}");
    let unet = unet(None);
    let weight = || {
        let found = unet.named_parameters().into_iter().find(|(n, _)| n == "mid_block.attentions.0.to_q.weight");
        found.unwrap().1.array().to_f64_vec().unwrap()
    };
    let before = weight();
    write(&[(&name(".lora_A.weight"), &[4, 16]), (&name(".lora_B.weight"), &[16, 4]), (&name(".alpha"), &[])]);
    assert_eq!(merge_lora(&[("unet", &unet)], &path, 0.5).unwrap(), 1);
    // 4 products of 2·2, times α/rank = 2/4, times 0.5.
    let far = weight().iter().zip(&before).map(|(a, b)| (a - b - 4.0).abs()).fold(0.0, f64::max);
    assert!(far < 1e-5, "{far}");
    let refused = |tensors: &[(&str, &[usize])], told: &str| {
        write(tensors);
        let before = weight();
        let error = merge_lora(&[("unet", &unet)], &path, 1.0).unwrap_err().to_string();
        assert!(error.contains(told), "{error}");
        assert_eq!(weight(), before);
    };
    refused(&[("unet.conv_in.weight", &[1])], "no name of a LoRA");
    refused(&[(&name(".lora.down.weight"), &[4, 16])], "one of the two matrices");
    refused(&[("unet.x.lora.down.weight", &[4, 16]), ("unet.x.lora.up.weight", &[16, 4])], "unet.x is no layer");
    refused(&[(&name(".lora.down.weight"), &[4, 8]), (&name(".lora.up.weight"), &[16, 4])], "[4, 8]");
    assert!(merge_lora(&[("unet", &unet)], Path::new("nowhere.safetensors"), 1.0).is_err());
}

/// Weights of the last layers of the encoder and the decoder that bring f16, and nothing else, beyond its range.
fn overflowing() -> AutoencoderKL {
    let vae = vae();
    for (name, param) in vae.named_parameters() {
        let factor = match name.as_str() {
            "encoder.conv_in.weight" | "decoder.conv_in.weight" => 4e3,
            "encoder.mid_block.resnets.0.conv1.weight" | "decoder.mid_block.resnets.0.conv1.weight" => 4e5,
            _ => continue,
        };
        let wide = (&Var::constant(param.array()) * factor).unwrap();
        param.array().copy_from(wide.array()).unwrap();
    }
    vae
}

#[test]
fn an_autoencoder_that_overflows_gives_the_image_of_f32_and_names_the_layer() {
    let (images, latents) = (waves(&[2, 3, 16, 16]), waves(&[2, 4, 8, 8]));
    for (vae, overflows) in [(vae(), false), (overflowing(), true)] {
        let encoded = VaePrecision::Fp32.encode(&vae, &images).unwrap().0.mean;
        let decoded = VaePrecision::Fp32.decode(&vae, &latents).unwrap().0;
        let (found, fault) = VaePrecision::Fp16.encode(&vae, &images).unwrap();
        let (image, other) = VaePrecision::Fp16.decode(&vae, &latents).unwrap();
        assert_eq!(values(&found.mean) == values(&encoded), overflows);
        assert_eq!(values(&image) == values(&decoded), overflows);
        assert!(values(&image).iter().all(|x| x.is_finite()));
        let layers = [fault, other].map(|fault| fault.map(|blame| blame.layer));
        let wanted = ["encoder.mid_block.resnets.0.conv1", "decoder.mid_block.resnets.0.conv1"];
        assert_eq!(layers, wanted.map(|layer| overflows.then(|| layer.to_string())));
        let (chosen, measured) = VaePrecision::measured(&vae, &images).unwrap();
        let names: Vec<_> = measured.iter().map(|m| m.precision).collect();
        assert_eq!(names, VaePrecision::ALL);
        let of = |precision| measured.iter().find(|m| m.precision == precision).unwrap();
        assert_eq!(of(VaePrecision::Fp16).shades.is_infinite(), overflows);
        assert!(!overflows || chosen != VaePrecision::Fp16);
        assert!(of(chosen).latents <= 0.01 && of(chosen).shades <= 0.5, "{measured:?}");
    }
}

/// Weights stored in 16 bit are trained as f32 under every policy, and change by less than f16 could tell.
#[test]
fn a_folder_stored_in_f16_is_trained() {
    let folder = tempfile::tempdir().unwrap();
    let scheduler = SchedulerConfig::new(Kind::Ddim);
    ImagePipeline { unet: unet(None), vae: None, scheduler, classes: vec![] }.save(folder.path()).unwrap();
    let stored =
        SaveOptions { dtype: Some(DType::F16), stem: "diffusion_pytorch_model".into(), ..SaveOptions::default() };
    save(&unet(None), &folder.path().join("unet"), &Sources::default(), &stored).unwrap();
    for (policy, scale) in [
        (Policy::OFF, LossScale::Off),
        (Policy::autocast(DType::F16), LossScale::dynamic()),
        (Policy::autocast(DType::BF16), LossScale::Off),
    ] {
        let unet = ImagePipeline::open(folder.path()).unwrap().unet;
        assert!(unet.parameters().iter().all(|param| param.dtype() == DType::F32));
        let before: Vec<f64> = unet.parameters()[0].array().to_f64_vec().unwrap();
        assert!(before.iter().all(|&w| f64::from(f16::from_f64(w)) == w));
        let optimizer = Optimizer::new(&unet, AdamW { lr: 1e-5, ..AdamW::default() }).unwrap();
        let mut training = Training::new(optimizer, policy, scale).unwrap();
        let (x, t) = (waves(&[2, 4, 8, 8]), Var::from_slice(&[7.0f32, 400.0], &[2]).unwrap());
        let loss = || -> binade_amp::Result<Var> {
            let found = unet.forward(&x, &t, Condition::Nothing)?;
            Ok(found.mse_loss(&waves(&[2, 4, 8, 8]), Reduction::Mean).map_err(binade_nn::Error::from)?)
        };
        let losses: Vec<f64> = (0..8).map(|_| training.step(loss).unwrap().loss).collect();
        assert!(losses[7] < losses[0], "{losses:?}");
        let after: Vec<f64> = unet.parameters()[0].array().to_f64_vec().unwrap();
        let moved = |(a, b): (&f64, &f64)| a != b && (a - b).abs() < 2e-4;
        assert!(after.iter().zip(&before).filter(|&pair| moved(pair)).count() * 10 > 9 * before.len());
    }
}
