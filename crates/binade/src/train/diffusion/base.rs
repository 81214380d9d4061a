//! [`Base`]: a folder of diffusers that training goes on from.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use binade::autograd::{Var, eval, no_grad};
use binade::diffusion::{Denoiser, ImagePipeline, Pipeline, SchedulerConfig, part_folder};
use binade::models::AutoencoderKL;

/// What is known of a pipeline; its network is read again for each precision.
pub struct Base {
    folder: PathBuf,
    pub scheduler: SchedulerConfig,
    pub vae: Option<AutoencoderKL>,
    /// Channels of what the network takes.
    pub channels: usize,
    /// Rows of its table of classes.
    pub rows: Option<usize>,
    /// Of a network that is led by texts: what makes features of them.
    text: Option<Pipeline>,
}

impl Base {
    pub fn open(folder: &Path) -> Result<Base> {
        if ImagePipeline::is_in(folder)? {
            let ImagePipeline { unet, vae, scheduler, .. } = ImagePipeline::open(folder)?;
            let (channels, rows) = (unet.channels(), unet.labels());
            return Ok(Base { folder: folder.into(), scheduler, vae, channels, rows, text: None });
        }
        let pipeline = Pipeline::open(folder)?;
        let (scheduler, vae) = (pipeline.scheduler.clone(), Some(pipeline.vae.clone()));
        let channels = pipeline.unet.config().in_channels;
        Ok(Base { folder: folder.into(), scheduler, vae, channels, rows: None, text: Some(pipeline) })
    }

    /// The network with the folder's weights.
    pub fn network(&self) -> binade::diffusion::Result<Denoiser> {
        Denoiser::open(&part_folder(&self.folder, "unet"))
    }

    pub fn takes_text(&self) -> bool {
        self.text.is_some()
    }

    /// Features `[classes + 1, T, D]` of what is said of each class, `{}` being its name, and of nothing at all.
    pub fn texts(&self, prompt: &str, classes: &[String]) -> Result<Option<Var>> {
        let Some(pipeline) = &self.text else { return Ok(None) };
        let Some(tokenizer) = &pipeline.tokenizer else {
            bail!("{}: it has no tokenizer, which texts need", self.folder.display());
        };
        let said = classes.iter().map(|class| prompt.replace("{}", class)).chain([String::new()]);
        let mut all = Vec::new();
        for text in said {
            let tokens = tokenizer.encode(&text)?;
            ensure!(
                tokens.cut.is_empty(),
                "--prompt: {text:?} is longer than {} tokens, from {:?} on",
                tokenizer.length,
                tokens.cut
            );
            all.push(no_grad(|| eval(|| pipeline.encode(&tokens.ids)))?);
        }
        Ok(Some(Var::cat(&all.iter().collect::<Vec<_>>(), 0)?))
    }

    /// Copies all of the folder but the network into another.
    pub fn copy_others(&self, to: &Path) -> Result<()> {
        copy(&self.folder, to, true).with_context(|| format!("{} to {}", self.folder.display(), to.display()))
    }
}

fn copy(from: &Path, to: &Path, outermost: bool) -> std::io::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let (path, copied) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            if !(outermost && entry.file_name() == "unet") {
                copy(&path, &copied, false)?;
            }
        } else {
            std::fs::copy(&path, &copied)?;
        }
    }
    Ok(())
}
