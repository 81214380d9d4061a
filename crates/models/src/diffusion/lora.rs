//! Changes of low rank beside frozen weights (Hu et al., 2022).

use binade_autograd::Var;
use binade_nn::{Error, Init, Layer, Linear, Module, Param, Result, Visitor};

/// A linear layer, with a change of low rank where it has one: `x·Wᵀ + bias + scale·(x·downᵀ)·upᵀ`. Names are
/// diffusers': `weight`, `lora.down.weight` and `lora.up.weight`.
#[derive(Clone, Module)]
pub(crate) struct Adapted {
    #[module(flatten)]
    linear: Linear,
    lora: Option<Change>,
}

#[derive(Clone, Module)]
struct Change {
    /// `[rank, in]`
    down: Linear,
    /// `[out, rank]`
    up: Linear,
    scale: f64,
}

impl From<Linear> for Adapted {
    fn from(linear: Linear) -> Adapted {
        Adapted { linear, lora: None }
    }
}

impl Adapted {
    /// Adds a change that is none yet: `down` is drawn, `up` is 0.
    pub fn adapt(&mut self, rank: usize, scale: f64) -> Result<()> {
        let [outputs, inputs] = [0, 1].map(|d| self.linear.weight.shape()[d]);
        if rank == 0 || rank > inputs.min(outputs) {
            let message = format!("rank {rank} of a change to a matrix of {outputs} × {inputs}");
            return Err(Error::Config { layer: "LoRA", message });
        }
        let matrix =
            |shape: [usize; 2], init| Ok::<_, Error>(Linear { weight: Param::init(&shape, init)?, bias: None });
        let down = matrix([rank, inputs], Init::Normal { mean: 0.0, std: 1.0 / rank as f64 })?;
        self.lora = Some(Change { down, up: matrix([outputs, rank], Init::Constant(0.0))?, scale });
        Ok(())
    }

    /// Without the bias.
    pub fn forward_without_bias(&self, x: &Var) -> Result<Var> {
        self.within(|| {
            // A bias of 0: what is added changes no bit, and the product is the one with a bias.
            let nothing = self.linear.bias.as_ref().map(|bias| &bias.var() * 0.0).transpose()?;
            let y = x.linear(&self.linear.weight.var(), nothing.as_ref(), None)?;
            self.changed(y, x)
        })
    }

    fn changed(&self, y: Var, x: &Var) -> Result<Var> {
        let Some(Change { down, up, scale }) = &self.lora else { return Ok(y) };
        let change = up.forward(&down.forward(x)?)?;
        Ok((&y + &(&change * *scale)?)?)
    }
}

impl Layer for Adapted {
    fn run(&self, x: &Var) -> Result<Var> {
        self.changed(self.linear.forward(x)?, x)
    }
}

/// Freezes all parameters that are no part of a change of low rank.
pub(crate) fn freeze_others(model: &dyn Module) {
    for (name, param) in model.named_parameters() {
        param.set_trainable(name.contains(".lora."));
    }
}
