//! Tasks: accumulation, averages, evaluation, callbacks and samples of every kind of training, and exact resume of all.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use binade_autograd::Var;
use binade_cpu as _;
use binade_nn::{Dropout, Embedding, Layer, Linear, Module, Optimizer, Sgd, Visitor};
use binade_tensor::op::Reduction;
use binade_tensor::{Class, DType};
use binade_train::{
    Batch, Classify, Config, Corpus, Data, Error, InMemory, Language, Made, Metrics, Noised, Numbers, Precision,
    Result, Run, RunConfig, Splits, Task, Tokenizer, Trainer, train,
};

/// One character after the other, with dropout.
#[derive(Clone, Module)]
struct Bigram {
    table: Embedding,
    drop: Dropout,
    head: Linear,
}

impl Layer for Bigram {
    fn run(&self, tokens: &Var) -> binade_nn::Result<Var> {
        self.head.forward(&self.drop.forward(&self.table.forward(tokens)?)?)
    }
}

fn corpus() -> Corpus {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("text");
    let text: String = (0..600).map(|i| ["ab", "ba", "c\n"][(i * i + i / 3) % 3]).collect();
    std::fs::write(&path, text).unwrap();
    Corpus::open(&path, &Tokenizer::Characters).unwrap()
}

/// A text of 20 tokens that are drawn from what the model expects of the one before.
fn written(corpus: &Corpus, model: &Bigram) -> Result<String> {
    let mut tokens = vec![0u32];
    for _ in 0..20 {
        let last = Var::from_slice(&[i64::from(tokens[tokens.len() - 1])], &[1, 1])?;
        let expected = model.forward(&last)?.reshape(&[1, -1])?.cast(DType::F32)?.softmax(-1)?;
        tokens.push(expected.multinomial(1, false)?.item()? as u32);
    }
    Ok(corpus.vocabulary().decode(&tokens[1..]))
}

fn language() -> (Language<'static, Bigram>, Splits) {
    let corpus = corpus();
    let (task, data) = Language::new(&corpus, 6, 50, 8).unwrap();
    (task.writing(move |model| written(&corpus, model)), data)
}

fn bigram() -> binade_nn::Result<Bigram> {
    Ok(Bigram { table: Embedding::new(4, 8)?, drop: Dropout::new(0.1)?, head: Linear::new(8, 4)? })
}

/// Everything that a run may remember: averages, parts of a step, a partial last step, checkpoints of several epochs.
fn everything() -> Config {
    let (evaluate_every, ema) = (Some(3), Some(0.9));
    Config {
        epochs: 3,
        batch_size: 4,
        accumulate: 3,
        ema,
        evaluate_every,
        keep_last: 2,
        keep_best: true,
        ..Config::default()
    }
}

fn run_config(folder: &Path, fit: Config, precisions: &[Precision]) -> RunConfig {
    RunConfig { fit, precisions: precisions.into(), out: Some(folder.into()), quiet: true, ..RunConfig::default() }
}

fn tensors(path: &Path) -> Vec<(String, Vec<u64>)> {
    let (all, _) = binade_nn::read_safetensors(path, Class::Workspace).unwrap();
    all.into_iter().map(|(n, a)| (n, a.to_f64_vec().unwrap().into_iter().map(f64::to_bits).collect())).collect()
}

fn metrics(folder: &Path) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(folder.join("metrics.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn of_kind(folder: &Path, kind: &str) -> Vec<serde_json::Value> {
    metrics(folder).into_iter().filter(|line| line["kind"] == kind).collect()
}

#[test]
fn a_language_run_that_is_stopped_and_resumed_has_the_bits_of_one_that_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let (whole, parts) = (folder.path().join("whole"), folder.path().join("parts"));
    let (task, data) = language();
    let end = train(bigram, &task, &data, &run_config(&whole, everything(), &Precision::ALL)).unwrap();

    // 5 steps an epoch, 15 in all: stopped in the middle of epochs. Not by `interrupt`, which stops all of a process.
    let mut resume = false;
    let mut stops = 0;
    let resumed = loop {
        let config = RunConfig { resume, ..run_config(&parts, everything(), &Precision::ALL) };
        let mut steps = 0;
        let stop: binade_train::Callback<'_> = Box::new(move |metrics, _| {
            steps += matches!(metrics, Metrics::Step(_)) as u64;
            Ok(if steps == 7 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        });
        match Trainer::new(bigram, &task, &data).with_callback(stop).run(&config) {
            Err(Error::Stopped { .. }) => (resume, stops) = (true, stops + 1),
            other => break other.unwrap(),
        }
    };
    assert!(stops >= 6, "{stops}");
    for precision in Precision::ALL {
        for file in ["checkpoint", "best"] {
            let file = format!("{file}-{}.safetensors", precision.name());
            let (a, b) = (tensors(&whole.join(&file)), tensors(&parts.join(&file)));
            assert!(file.starts_with("best") || a.iter().any(|(name, _)| name.starts_with("ema.")), "{file}");
            assert_eq!(a, b, "{file}");
        }
    }
    let without_time = |folder: &Path| {
        let lines = metrics(folder).into_iter().map(|mut line| {
            // How far batches were prepared ahead is not the same twice, nor is what they take.
            ["seconds", "peak_bytes"].iter().for_each(|name| drop(line.as_object_mut().unwrap().remove(*name)));
            line
        });
        lines.collect::<Vec<_>>()
    };
    assert_eq!(without_time(&whole), without_time(&parts));
    assert_eq!(end.made, resumed.made);
}

#[test]
fn a_language_run_reports_perplexity_and_what_the_model_writes() {
    let folder = tempfile::tempdir().unwrap();
    let (task, data) = language();
    let config = run_config(folder.path(), everything(), &[Precision::Fp32]);
    let run = train(bigram, &task, &data, &config).unwrap();
    let [Made::Text(text)] = &run.made[0][..] else { panic!("{:?}", run.made) };
    assert!(text.chars().count() == 20 && text.chars().all(|c| "abc\n".contains(c)), "{text:?}");
    let summary = &run.summaries[0];
    let perplexity = summary.test_perplexity().unwrap();
    assert!(summary.test_accuracy.is_none() && (perplexity.ln() - summary.test_loss.unwrap()).abs() < 1e-12);
    let (bits, unit) = summary.test_bits().unwrap();
    assert!(unit == "character" && (bits - perplexity.log2()).abs() < 1e-12);
    assert_eq!(summary.unit, "tokens");
    // 13 batches of 4 in 5 steps of 3 or fewer; every third step is evaluated too.
    assert_eq!(of_kind(folder.path(), "step").len(), 15);
    let evaluated: Vec<_> = of_kind(folder.path(), "evaluation").iter().map(|e| e["iteration"].as_u64()).collect();
    assert_eq!(evaluated, [3, 6, 9, 12, 15].map(Some));
    let positive =
        |e: &serde_json::Value| e["test_perplexity"].as_f64() > Some(1.0) && e["test_bits"].as_f64() > Some(0.0);
    assert!(of_kind(folder.path(), "epoch").iter().all(positive));
    let page = std::fs::read_to_string(folder.path().join("report.html")).unwrap();
    assert!(
        page.contains("test perplexity")
            && page.contains("bits per character")
            && page.contains("<pre>")
            && page.contains("tokens/s")
    );
    let kept = |epoch: u64| folder.path().join(format!("checkpoint-fp32.epoch-{epoch}.safetensors"));
    assert!(!kept(1).exists() && kept(2).exists() && kept(3).exists());
    assert_eq!(tensors(&kept(3)), tensors(&folder.path().join("checkpoint-fp32.safetensors")));
}

fn classes(n: usize) -> InMemory {
    let x: Vec<f32> = (0..n * 3).map(|i| (i as f32 * 0.37).sin()).collect();
    let y: Vec<usize> = (0..n).map(|i| (x[3 * i] > 0.0) as usize).collect();
    InMemory::classes(x, &[3], &y).unwrap()
}

static TWO: Classify = Classify::new(2);

fn classified(folder: &Path, fit: Config) -> Run {
    let data = Splits::new(classes(38), classes(16));
    train(|| Linear::new(3, 2), &TWO, &data, &run_config(folder, fit, &[Precision::Fp32])).unwrap()
}

#[test]
fn accumulated_batches_train_as_batches_of_all_their_samples() {
    let folder = tempfile::tempdir().unwrap();
    let run = |name: &str, batch_size: usize, accumulate: usize| {
        let folder = folder.path().join(name);
        let fit = Config { epochs: 2, batch_size, accumulate, ..Config::default() };
        let summary = classified(&folder, fit).summaries.remove(0);
        let losses: Vec<f64> = of_kind(&folder, "step").iter().map(|s| s["loss"].as_f64().unwrap()).collect();
        let weights = tensors(&folder.join("checkpoint-fp32.safetensors")).into_iter();
        let model: Vec<f64> = weights
            .filter(|(name, _)| name.starts_with("model."))
            .flat_map(|(_, bits)| bits.into_iter().map(f64::from_bits))
            .collect();
        (losses, model, summary.train_loss)
    };
    // 38 samples: 16, 16 and 6, of which the last is 4 and 2.
    let (whole, parts) = (run("whole", 16, 1), run("parts", 4, 4));
    assert_eq!((whole.0.len(), parts.0.len()), (6, 6));
    let near = |a: &[f64], b: &[f64], most: f64| a.iter().zip(b).all(|(a, b)| (a - b).abs() < most);
    assert!(near(&whole.0, &parts.0, 1e-6), "{whole:?} {parts:?}");
    assert!(near(&whole.1, &parts.1, 1e-4) && (whole.2 - parts.2).abs() < 1e-6);
}

#[test]
fn averages_are_what_is_evaluated_and_change_no_training() {
    let folder = tempfile::tempdir().unwrap();
    let run = |name: &str, ema: Option<f64>| {
        let folder = folder.path().join(name);
        let summary = classified(&folder, Config { epochs: 2, ema, lr: 0.05, ..Config::default() }).summaries.remove(0);
        let model: Vec<_> = tensors(&folder.join("checkpoint-fp32.safetensors"));
        (model.into_iter().filter(|(name, _)| name.starts_with("model.")).collect::<Vec<_>>(), summary.test_loss)
    };
    let (none, same, slow) = (run("none", None), run("same", Some(0.0)), run("slow", Some(0.999)));
    assert!(none.0 == same.0 && none.0 == slow.0);
    assert_eq!(none.1, same.1);
    assert_ne!(none.1, slow.1);
}

#[test]
fn a_trainer_takes_optimisers_and_callbacks_as_values() {
    let folder = tempfile::tempdir().unwrap();
    let data = Splits::new(classes(38), classes(16));
    let (mut seen, mut epochs) = (0, 0);
    let callback: binade_train::Callback<'_> = Box::new(|metrics, training| {
        match metrics {
            Metrics::Step(step) => seen += (training.iteration == step.iteration + 1) as usize,
            Metrics::Epoch(epoch) => epochs = epoch.epoch,
            Metrics::Evaluation(_) => {}
        }
        Ok(ControlFlow::Continue(()))
    });
    let trainer = Trainer::new(|| Linear::new(3, 2), &TWO, &data)
        .with_training(|model, config| {
            let rule = Sgd { lr: config.lr, momentum: 0.9, ..Sgd::default() };
            config.training_with(model, Optimizer::new(model, rule)?)
        })
        .with_callback(callback);
    let fit = Config { epochs: 2, batch_size: 16, ..Config::default() };
    trainer.run(&run_config(folder.path(), fit, &[Precision::Fp32])).unwrap();
    assert_eq!((seen, epochs), (6, 2));
    // Momentum alone: one tensor a parameter.
    let names = tensors(&folder.path().join("checkpoint-fp32.safetensors")).into_iter().map(|(name, _)| name);
    assert_eq!(names.filter(|name| name.starts_with("optimizer.")).count(), 2);
}

#[test]
fn a_run_is_not_resumed_as_another_task_or_with_other_arrays() {
    let folder = tempfile::tempdir().unwrap();
    let data = Splits::new(classes(38), classes(16));
    let started = run_config(folder.path(), Config { epochs: 1, ..Config::default() }, &[Precision::Fp32]);
    let build = || Linear::new(3, 2);
    train(build, &TWO, &data, &started).unwrap();
    let longer = RunConfig { fit: Config { epochs: 2, ..started.fit.clone() }, resume: true, ..started };
    let three = train(build, &Classify::new(3), &data, &longer).unwrap_err().to_string();
    assert!(three.contains("classification in 2 classes") && three.contains("in 3 classes"), "{three}");
    let renamed = InMemory::new().with("image", vec![0.5f32; 38 * 3], &[3]).unwrap();
    let renamed = renamed.with("class", vec![1i64; 38], &[]).unwrap();
    let error = train(build, &TWO, &Splits::new(renamed, classes(16)), &longer).unwrap_err().to_string();
    assert!(error.contains("input f32 [3]") && error.contains("image f32 [3]"), "{error}");
    let ema = RunConfig { fit: Config { ema: Some(0.9), ..longer.fit.clone() }, ..longer.clone() };
    assert!(train(build, &TWO, &data, &ema).unwrap_err().to_string().contains("ema = null, not 0.9"));
    // What is reported and kept may be another.
    let other = Config { evaluate_every: Some(1), keep_last: 3, keep_best: true, ..longer.fit.clone() };
    assert!(train(build, &TWO, &data, &RunConfig { fit: other, ..longer }).is_ok());
}

// ---- noise in images

/// Removes noise by one linear layer.
#[derive(Clone, Module)]
struct Denoiser {
    layer: Linear,
}

struct Denoise;

impl Task<Denoiser> for Denoise {
    fn name(&self) -> String {
        "noise".into()
    }

    fn loss(&self, model: &Denoiser, batch: &Batch) -> Result<(Var, f64)> {
        // As much noise as image, whatever the time.
        let (image, noise) = (batch.get("image")?, batch.get("noise")?);
        let noisy = (&(&image * 0.7)? + &(&noise * 0.7)?)?;
        let time = (&batch.get("time")?.cast(binade_tensor::DType::F32)?.unsqueeze(1)? * 1e-3)?;
        let found = model.layer.forward(&Var::cat(&[&noisy, &time], 1)?)?;
        Ok((found.mse_loss(&noise, Reduction::Mean)?, batch.len() as f64))
    }

    fn samples(&self, _: &Denoiser) -> Result<Vec<Made>> {
        Ok(vec![Made::Image { width: 2, channels: 1, pixels: vec![0, 255, 128, 1] }])
    }
}

fn noised(n: usize) -> Noised {
    let images = InMemory::new().with("pixels", vec![0.25f32; n * 4], &[4]).unwrap();
    Noised { images: Arc::new(images), times: 1000, range: (2.0, -1.0), repeats: 1 }
}

#[test]
fn a_denoiser_trains_on_images_times_and_noise_and_shows_its_images() {
    let folder = tempfile::tempdir().unwrap();
    let fit = Config { epochs: 6, batch_size: 16, lr: 0.05, ..Config::default() };
    let config = run_config(folder.path(), fit, &Precision::ALL);
    let data = Splits::new(noised(128), noised(32));
    let run = train(|| Ok(Denoiser { layer: Linear::new(5, 4)? }), &Denoise, &data, &config).unwrap();
    // 1 is what the mean guesses.
    assert!(run.summaries.iter().all(|s| s.test_loss < Some(0.7)), "{:?}", run.summaries);
    let page = std::fs::read_to_string(folder.path().join("report.html")).unwrap();
    assert!(
        page.contains("What the model makes")
            && page.contains("data:image/png;base64,")
            && page.contains("Test loss by step")
    );
}

#[test]
fn noise_is_drawn_for_each_image_and_the_same_in_every_evaluation() {
    let data = noised(400);
    let f32s = |sample: &binade_train::Sample, name: &str| match &sample.get(name).unwrap().numbers {
        Numbers::F32(values) => values.clone(),
        other => panic!("{other:?}"),
    };
    let time = |sample: &binade_train::Sample| match &sample.get("time").unwrap().numbers {
        Numbers::I64(time) => time[0],
        other => panic!("{other:?}"),
    };
    let (mut sum, mut squares, mut times) = (0.0, 0.0, Vec::new());
    let key = binade_tensor::Key::new(1, 0);
    for i in 0..400 {
        let sample = data.sample(i, Some(key)).unwrap();
        assert_eq!(f32s(&sample, "image"), [-0.5; 4]);
        for n in f32s(&sample, "noise") {
            (sum, squares) = (sum + n as f64, squares + (n as f64).powi(2));
        }
        times.push(time(&sample));
    }
    assert!((sum / 1600.0).abs() < 0.1 && (squares / 1600.0 - 1.0).abs() < 0.1, "{sum} {squares}");
    assert!(times.iter().all(|t| (0..1000).contains(t)) && times.iter().any(|t| *t > 900));
    assert_eq!(data.sample(7, None).unwrap(), data.sample(7, None).unwrap());
    assert_ne!(data.sample(7, None).unwrap(), data.sample(8, None).unwrap());
    let other = Some(binade_tensor::Key::new(1, 1));
    assert_ne!(data.sample(7, Some(key)).unwrap(), data.sample(7, other).unwrap());
    // In evaluation from the first time to the last, evenly.
    let spread: Vec<i64> = [0, 100, 399].map(|i| time(&data.sample(i, None).unwrap())).to_vec();
    assert_eq!(spread, [0, 250, 999]);
    // What is repeated is another sample of the same image.
    let twice = Noised { repeats: 2, ..noised(400) };
    assert_eq!(twice.len(), 800);
    let (once, again) = (twice.sample(3, Some(key)).unwrap(), twice.sample(403, Some(key)).unwrap());
    assert_eq!(f32s(&once, "image"), f32s(&again, "image"));
    assert_ne!(f32s(&once, "noise"), f32s(&again, "noise"));
}
