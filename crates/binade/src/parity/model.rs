//! A case of a model: output, loss and every gradient.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Result, anyhow, bail};
use binade::autograd::{Var, scope};
use binade::models::AnyModel;
use binade::nn::Layer;
use binade::tensor::Array;
use binade::tensor::op::{CrossEntropy, Reduction};
use binade::weights::{LoadOptions, Source, Weights};

use super::Region;
use super::case::{Case, Verdict, square};

pub fn run(folder: &Path, regions: &[Region], recompute: bool) -> Result<Verdict> {
    let case = Case::open(folder)?;
    let (model, _) = AnyModel::open(folder, &LoadOptions::default())?;
    let model = model.recomputing(recompute);
    let stored = Weights::open(folder)?.names();
    let mut verdict = Verdict { layered: true, ..Verdict::default() };
    for &region in regions {
        compare(&case, &model, &stored, region, &mut verdict)?;
    }
    verdict.passed = verdict.lines.is_empty() && verdict.distances.iter().all(|d| d.fits());
    Ok(verdict)
}

/// What a model computed: gradients under the names and in the shapes of the file.
struct Computed {
    out: Vec<f64>,
    loss: f64,
    gradients: BTreeMap<String, Vec<f64>>,
}

fn compare(
    case: &Case,
    model: &AnyModel,
    stored: &BTreeSet<String>,
    region: Region,
    verdict: &mut Verdict,
) -> Result<()> {
    let trains = case.text("mode")? == "train";
    // Running statistics follow a training run, and belong to the file.
    let ours = scope::with_training(trains, || region.policy().run(|| compute(case, model, stored)))?;
    let mut wanted = BTreeMap::new();
    for name in case.gradients() {
        wanted.insert(name, case.values(&format!("ref.grad.{name}"))?);
    }
    let largest = wanted.values().map(|values| square(values.iter().copied())).fold(0.0, f64::max).sqrt();
    let out = case.distance(region, "out", None, [&ours.out, &case.values("ref.out")?], 0.0)?;
    verdict.distances.push(out);
    if region == Region::F32 {
        let loss = case.distance(region, "loss", None, [&[ours.loss], &case.values("ref.loss")?], 0.0)?;
        verdict.distances.push(loss);
    }
    for (name, gradient) in &ours.gradients {
        let Some(wanted) = wanted.remove(name.as_str()) else {
            verdict.lines.push(format!("  {}: a gradient of {name}, which is not recorded", region.name()));
            continue;
        };
        let distance = case.distance(region, name, Some(name), [gradient, &wanted], 1e-7 * largest)?;
        verdict.distances.push(distance);
    }
    let missing = wanted.into_keys().map(|name| format!("  {}: no gradient of {name}", region.name()));
    verdict.lines.extend(missing);
    Ok(())
}

fn compute(case: &Case, model: &AnyModel, stored: &BTreeSet<String>) -> Result<Computed> {
    let (out, loss) = out_and_loss(case, model)?;
    let gradients = loss.backward()?;
    let sources = model.sources(stored);
    let mut named = BTreeMap::new();
    for (name, param) in model.module().named_parameters() {
        if let Some(gradient) = gradients.by_id(param.id()) {
            named.extend(as_stored(&sources.of(&name), gradient)?);
        }
    }
    Ok(Computed { out: out.array().to_f64_vec()?, loss: loss.item()?, gradients: named })
}

/// A tensor of the model as the file has it: the reverse of loading.
fn as_stored(source: &Source, array: &Array) -> Result<Vec<(String, Vec<f64>)>> {
    let var = Var::constant(array.clone());
    Ok(match source {
        Source::Tensor(name) | Source::Reshaped(name, _) => vec![(name.clone(), array.to_f64_vec()?)],
        Source::Transposed(name) => vec![(name.clone(), var.transpose(0, 1)?.array().to_f64_vec()?)],
        Source::Parts(names) => {
            let values = array.to_f64_vec()?;
            let parts = values.chunks(values.len().div_ceil(names.len()).max(1)).map(<[f64]>::to_vec);
            names.iter().cloned().zip(parts).collect()
        }
    })
}

/// The model's output of the case's inputs, and the loss that the case names.
fn out_and_loss(case: &Case, model: &AnyModel) -> Result<(Var, Var)> {
    let labels = if case.has("in.class_labels") { Some(case.var("in.class_labels")?) } else { None };
    let out = match model {
        AnyModel::ResNet(model) => model.forward(&case.var("in.x")?)?,
        AnyModel::Vit(model) => model.forward(&case.var("in.x")?)?,
        AnyModel::Gpt(model) => model.forward(&case.var("in.input_ids")?)?,
        AnyModel::ClipText(model) => model.forward(&case.var("in.input_ids")?)?,
        AnyModel::UNet2DCondition(model) => {
            let text = case.var("in.encoder_hidden_states")?;
            model.forward(&case.var("in.sample")?, &case.var("in.timestep")?, &text, labels.as_ref())?
        }
        AnyModel::UNet2D(model) => {
            model.forward(&case.var("in.sample")?, &case.var("in.timestep")?, labels.as_ref())?
        }
        AnyModel::AutoencoderKL(model) => {
            let x = case.var("in.x")?;
            let latent = model.encode(&x)?;
            let out = model.decode(&latent.mean)?;
            let kl = latent.kl()?.mean(&[0], false)?;
            if !case.text("loss")?.starts_with("mse_plus_1e-3_kl") {
                bail!("no loss of an autoencoder is called {}", case.text("loss")?);
            }
            return Ok((out.clone(), (&out.mse_loss(&x, Reduction::Mean)? + &(&kl * 1e-3)?)?));
        }
    };
    let loss = match case.text("loss")? {
        "mse" => out.mse_loss(&case.var("in.target")?, Reduction::Mean)?,
        "cross_entropy" => out.cross_entropy(&case.var("in.y")?, CrossEntropy::default())?,
        "next_token_cross_entropy" => {
            let ids = case.var("in.input_ids")?;
            let &[_, length, classes] = &out.shape()[..] else { bail!("no logits: {:?}", out.shape()) };
            let logits = out.narrow(1, 0, length - 1)?.reshape(&[-1, classes as isize])?;
            logits.cross_entropy(&ids.narrow(1, 1, length - 1)?.reshape(&[-1])?, CrossEntropy::default())?
        }
        other => return Err(anyhow!("no loss is called {other}")),
    };
    Ok((out, loss))
}
