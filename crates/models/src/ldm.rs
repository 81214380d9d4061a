//! Names of single-file checkpoints of Stable Diffusion, as CompVis' code has them:
//! `model.diffusion_model.input_blocks…`, `first_stage_model…`, `cond_stage_model…`.

use std::collections::{BTreeMap, BTreeSet};

use binade_weights::{Source, Sources};

use crate::AnyModel;

/// What the names of each of a file's models begin with.
const UNET: &str = "model.diffusion_model.";
const VAE: &str = "first_stage_model.";
const TEXT: &str = "cond_stage_model.transformer.text_model.";

/// What the names of a model begin with in such a file; `None` for models that none has.
fn prefix(model: &AnyModel) -> Option<&'static str> {
    match model {
        AnyModel::UNet2DCondition(_) => Some(UNET),
        AnyModel::AutoencoderKL(_) => Some(VAE),
        AnyModel::ClipText(_) => Some(TEXT),
        _ => None,
    }
}

/// Whether these are the names of such a file.
pub fn is_ldm(stored: &BTreeSet<String>) -> bool {
    [UNET, VAE, TEXT].iter().any(|prefix| stored.iter().any(|name| name.starts_with(prefix)))
}

/// Where a model's tensors are in such a file; `None` for models that none has. What the file holds of other models is
/// left out.
pub(crate) fn sources(model: &AnyModel, stored: &BTreeSet<String>) -> Option<Sources> {
    let prefix = prefix(model)?;
    let params = model.module().named_parameters();
    let names: Vec<&str> = params.iter().map(|(name, _)| name.as_str()).collect();
    let extents = Extents::of(&names);
    let mut sources = BTreeMap::new();
    for (name, param) in &params {
        let (theirs, as_convolution) = match model {
            AnyModel::UNet2DCondition(_) => (unet(name, &extents), false),
            AnyModel::AutoencoderKL(_) => vae(name, &extents),
            AnyModel::ClipText(_) => (name.clone(), false),
            _ => continue,
        };
        let theirs = format!("{prefix}{theirs}");
        let source = match &param.shape()[..] {
            &[rows, columns] if as_convolution => Source::Reshaped(theirs, vec![rows, columns, 1, 1]),
            _ => Source::Tensor(theirs),
        };
        sources.insert(name.clone(), source);
    }
    // Other models, averages, and tables of the noise.
    let ignored = stored.iter().filter(|name| !name.starts_with(prefix)).cloned().collect();
    Some(Sources { sources, ignored })
}

/// What positions are counted by.
struct Extents {
    /// Residual blocks of a level on the way down.
    layers: usize,
    /// Levels.
    levels: usize,
    /// Levels on the way up with attention.
    attends: BTreeSet<usize>,
}

impl Extents {
    fn of(names: &[&str]) -> Extents {
        let count = |before: &str, after: &str| {
            let at = |name: &&str| name.strip_prefix(before)?.split_once(after)?.0.parse::<usize>().ok();
            names.iter().filter_map(at).max().map_or(0, |last| last + 1)
        };
        let encoder = if names.iter().any(|name| name.starts_with("encoder.")) { "encoder." } else { "" };
        let attention = |name: &&str| {
            let (level, rest) = name.strip_prefix("up_blocks.")?.split_once('.')?;
            rest.starts_with("attentions.").then(|| level.parse().ok())?
        };
        Extents {
            layers: count(&format!("{encoder}down_blocks.0.resnets."), "."),
            levels: count(&format!("{encoder}down_blocks."), "."),
            attends: names.iter().filter_map(attention).collect(),
        }
    }
}

/// A name of the form `blocks.LEVEL.PART.INDEX.REST`.
fn position<'a>(name: &'a str, blocks: &str) -> Option<(usize, &'a str, usize, &'a str)> {
    let mut parts = name.strip_prefix(blocks)?.splitn(4, '.');
    let (level, part, index) = (parts.next()?, parts.next()?, parts.next()?);
    Some((level.parse().ok()?, part, index.parse().ok()?, parts.next()?))
}

/// Of a residual block of the U-Net.
fn residual(rest: &str) -> String {
    const NAMES: [(&str, &str); 6] = [
        ("norm1.", "in_layers.0."),
        ("conv1.", "in_layers.2."),
        ("norm2.", "out_layers.0."),
        ("conv2.", "out_layers.3."),
        ("time_emb_proj.", "emb_layers.1."),
        ("conv_shortcut.", "skip_connection."),
    ];
    renamed(rest, &NAMES)
}

/// With the first of these beginnings that it has exchanged.
fn renamed(name: &str, names: &[(&str, &str)]) -> String {
    let found = names.iter().find_map(|(ours, theirs)| Some(format!("{theirs}{}", name.strip_prefix(ours)?)));
    found.unwrap_or_else(|| name.into())
}

/// diffusers numbers levels and what is in them; the original counts all blocks through.
fn unet(name: &str, extents: &Extents) -> String {
    const ENDS: [(&str, &str); 5] = [
        ("time_embedding.linear_1.", "time_embed.0."),
        ("time_embedding.linear_2.", "time_embed.2."),
        ("conv_in.", "input_blocks.0.0."),
        ("conv_norm_out.", "out.0."),
        ("conv_out.", "out.2."),
    ];
    let each = extents.layers + 1;
    if let Some((level, part, index, rest)) = position(name, "down_blocks.") {
        let block = each * level + index + 1;
        return match part {
            "resnets" => format!("input_blocks.{block}.0.{}", residual(rest)),
            "attentions" => format!("input_blocks.{block}.1.{rest}"),
            _ => format!("input_blocks.{}.0.op.{}", each * (level + 1), rest.trim_start_matches("conv.")),
        };
    }
    if let Some((level, part, index, rest)) = position(name, "up_blocks.") {
        let block = each * level + index;
        return match part {
            "resnets" => format!("output_blocks.{block}.0.{}", residual(rest)),
            "attentions" => format!("output_blocks.{block}.1.{rest}"),
            _ => {
                let place = if extents.attends.contains(&level) { 2 } else { 1 };
                format!("output_blocks.{}.{place}.{rest}", each * level + extents.layers)
            }
        };
    }
    if let Some(rest) = name.strip_prefix("mid_block.resnets.")
        && let Some((index, rest)) = rest.split_once('.')
    {
        let place = if index == "0" { 0 } else { 2 };
        return format!("middle_block.{place}.{}", residual(rest));
    }
    if let Some(rest) = name.strip_prefix("mid_block.attentions.0.") {
        return format!("middle_block.1.{rest}");
    }
    renamed(name, &ENDS)
}

/// The name, and whether its matrix is a 1×1 convolution there.
fn vae(name: &str, extents: &Extents) -> (String, bool) {
    const ATTENTION: [(&str, &str); 5] =
        [("group_norm.", "norm."), ("to_q.", "q."), ("to_k.", "k."), ("to_v.", "v."), ("to_out.0.", "proj_out.")];
    let half = ["encoder.", "decoder."].into_iter().find_map(|half| Some((half, name.strip_prefix(half)?)));
    let Some((half, name)) = half else { return (name.into(), false) };
    let shortcut = |rest: &str| renamed(rest, &[("conv_shortcut.", "nin_shortcut.")]);
    if let Some((level, part, index, rest)) = position(name, "down_blocks.") {
        let name = match part {
            "resnets" => format!("{half}down.{level}.block.{index}.{}", shortcut(rest)),
            _ => format!("{half}down.{level}.downsample.{rest}"),
        };
        return (name, false);
    }
    if let Some((level, part, index, rest)) = position(name, "up_blocks.") {
        // From the last level to the first.
        let level = (extents.levels - 1).saturating_sub(level);
        let name = match part {
            "resnets" => format!("{half}up.{level}.block.{index}.{}", shortcut(rest)),
            _ => format!("{half}up.{level}.upsample.{rest}"),
        };
        return (name, false);
    }
    if let Some(rest) = name.strip_prefix("mid_block.attentions.0.") {
        let matrix = rest.starts_with("to_") && rest.ends_with(".weight");
        return (format!("{half}mid.attn_1.{}", renamed(rest, &ATTENTION)), matrix);
    }
    if let Some(rest) = name.strip_prefix("mid_block.resnets.")
        && let Some((index, rest)) = rest.split_once('.')
    {
        let index = if index == "0" { 1 } else { 2 };
        return (format!("{half}mid.block_{index}.{}", shortcut(rest)), false);
    }
    (format!("{half}{}", renamed(name, &[("conv_norm_out.", "norm_out.")])), false)
}
