//! Training steps of the five networks.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use anyhow::{Result, ensure};
use binade::amp::{LossScale, Training};
use binade::autograd::{Var, no_grad, scope};
use binade::models::{
    Gpt, GptConfig, ResNet, ResNetConfig, SmallCnn, SmallCnnConfig, UNet, UNetConfig, Vit, VitConfig,
};
use binade::nn::{AdamW, Layer, Module, Optimizer};
use binade::tensor::op::{CrossEntropy, Reduction};
use binade::train::Precision;
use serde_json::json;

use super::cases::{Case, integers, normal, policy};
use super::memory::peak_rss_mib;
use super::timing::round;

/// What may differ from a network's own extents.
#[derive(Clone, Copy, Default)]
pub struct Size {
    /// Samples of a step.
    pub batch: Option<usize>,
    /// Channels of the first convolution (CNN, ResNet, U-Net) or features of a token (ViT, GPT); all others keep their
    /// proportions.
    pub width: Option<usize>,
    /// Whether the residual stream is kept in 16 bit.
    pub low_residual: bool,
}

/// The batch and the width of a network as `torch_bench.py` has it.
pub fn own_size(network: &str) -> (usize, usize) {
    match network {
        "cnn" => (128, 32),
        "resnet18" => (16, 64),
        "vit" => (64, 192),
        "gpt" => (16, 384),
        _ => (8, 64),
    }
}

/// A loss over a fixed batch.
type Loss = Rc<dyn Fn() -> Result<Var>>;

fn loss<M: Module + 'static>(model: M, f: impl Fn(&M) -> Result<Var> + 'static) -> Result<(Optimizer, usize, Loss)> {
    let optimizer = Optimizer::new(&model, AdamW { lr: 1e-4, ..AdamW::default() })?;
    Ok((optimizer, model.parameter_count(), Rc::new(move || f(&model))))
}

/// A whole training step: forward, loss, backward, unscaling, clipping at 1, AdamW.
pub fn training(name: &str, precision: Precision, size: Size) -> Result<Case> {
    let (batch, width) = own_size(name);
    let (batch, width) = (size.batch.unwrap_or(batch), size.width.unwrap_or(width));
    let classify = |y: &Var, target: &Var| -> Result<Var> { Ok(y.cross_entropy(target, CrossEntropy::default())?) };
    let images =
        |size: usize| -> Result<(Var, Var)> { Ok((normal(&[batch, 3, size, size], 1)?, integers(&[batch], 10)?)) };
    // Heads of 64 features, as both networks have by default.
    let heads = (width / 64).max(1);
    let (optimizer, parameters, loss) = scope::with_key(7, 0, || -> Result<_> {
        match name {
            "cnn" => {
                let channels = [width, 2 * width, 4 * width, 4 * width];
                let config =
                    SmallCnnConfig { in_channels: 3, size: 32, channels, fc: 8 * width, ..SmallCnnConfig::default() };
                let (x, t) = images(32)?;
                loss(SmallCnn::new(&config)?, move |m| classify(&m.forward(&x)?, &t))
            }
            "resnet18" => {
                let (x, t) = images(64)?;
                let config = ResNetConfig::default().with_width(width);
                loss(ResNet::new(&config)?, move |m| classify(&m.forward(&x)?, &t))
            }
            "vit" => {
                let (x, t) = images(32)?;
                let config = VitConfig::default().with_width(width, heads);
                loss(Vit::new(&config)?, move |m| classify(&m.forward(&x)?, &t))
            }
            "gpt" => {
                let (x, t) = (integers(&[batch, 256], 65)?, integers(&[batch * 256], 65)?);
                let config = GptConfig { features: width, heads, ..GptConfig::default() };
                loss(Gpt::new(&config)?, move |m| classify(&m.forward(&x)?.reshape(&[-1, 65])?, &t))
            }
            _ => {
                let (x, y) = (normal(&[batch, 3, 32, 32], 1)?, normal(&[batch, 3, 32, 32], 2)?);
                let t = integers(&[batch], 1000)?;
                let config = UNetConfig { base: width, ..UNetConfig::default() };
                loss(UNet::new(&config)?, move |m| Ok(m.forward(&x, &t)?.mse_loss(&y, Reduction::Mean)?))
            }
        }
    })?;
    let scale = if precision == Precision::Fp16 { LossScale::dynamic() } else { LossScale::Off };
    let policy = if size.low_residual { policy(precision).with_low_residual() } else { policy(precision) };
    let mut training = Training::new(optimizer, policy, scale)?;
    training.clip = Some(1.0);
    training.blame = false;
    let losses = Rc::new(RefCell::new(Vec::new()));
    let saved = Rc::new(Cell::new(0));
    let base_rss = peak_rss_mib();
    let device = scope::device()?;
    device.reset_peak_memory();
    let base = device.memory().live.iter().sum::<usize>();
    let mut step = {
        let (loss, losses, saved) = (loss.clone(), losses.clone(), saved.clone());
        move || -> Result<()> {
            let step = training.step(|| loss())?;
            losses.borrow_mut().push(step.loss);
            saved.set(step.saved_bytes);
            Ok(())
        }
    };
    // The first loss, in this precision and in f32.
    let exact = no_grad(|| loss())?.item()?;
    step()?;
    let first = losses.borrow()[0];
    let near = if precision == Precision::Fp32 { 1e-5 } else { 2e-2 };
    ensure!((first - exact).abs() <= near * exact.abs(), "{name}: the first loss is {first}, in f32 {exact}");
    let all = losses.clone();
    Ok(Case {
        name: name.to_string(),
        run: Box::new(step),
        check: Box::new(move || {
            let losses = losses.borrow();
            let (first, last) = (losses[0], losses[losses.len() - 1]);
            ensure!(
                losses.iter().all(|l| l.is_finite()) && (losses.len() < 8 || last < first),
                "losses {first} to {last}"
            );
            Ok(())
        }),
        flops: 0.0,
        rate: Some(if name == "gpt" { ("tok_per_s", (batch * 256) as f64) } else { ("img_per_s", batch as f64) }),
        extra: Box::new(move |_| {
            let losses = all.borrow();
            let peak = device.memory().peak_total.saturating_sub(base);
            vec![
                ("batch", json!(batch)),
                ("params", json!(parameters)),
                ("loss_first", json!(round(losses[0]))),
                ("loss_last", json!(round(losses[losses.len() - 1]))),
                ("saved_mib", json!(round(saved.get() as f64 / 1048576.0))),
                ("base_rss_mib", json!(base_rss)),
                ("peak_mib", json!(round(peak as f64 / 1048576.0))),
            ]
        }),
    })
}
