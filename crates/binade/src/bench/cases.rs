//! The cases: what runs, how it is checked, and what it counts as.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use anyhow::{Result, bail, ensure};
use binade::amp::{LossScale, Policy, Training};
use binade::autograd::{Var, no_grad, scope};
use binade::models::{Gpt, GptConfig, ResNet, ResNetConfig, SmallCnn, SmallCnnConfig, UNet, UNetConfig, Vit, VitConfig};
use binade::nn::{AdamW, BatchNorm2d, Conv2d, Layer, LayerNorm, Module, Optimizer};
use binade::tensor::op::{Conv2d as Geometry, CrossEntropy, Distribution, Reduction, Unary};
use binade::tensor::{Array, Class, DType, Device};
use binade::train::Precision;
use serde_json::{Value, json};

/// One measurement.
pub struct Case {
    /// As in `torch_bench.py`.
    pub name: String,
    /// One run.
    pub run: Box<dyn FnMut() -> Result<()>>,
    /// Fails if the result is wrong.
    pub check: Box<dyn Fn() -> Result<()>>,
    /// Floating-point operations of one run; 0 where not stated.
    pub flops: f64,
    /// What a run does per second: unit and count.
    pub rate: Option<(&'static str, f64)>,
    /// More fields of the JSON line.
    pub extra: Box<dyn Fn() -> Vec<(&'static str, Value)>>,
}

type Build = Box<dyn FnOnce() -> Result<Case>>;

/// The measurements of a group, in the order of `torch_bench.py`, each built when it is its turn.
pub fn cases(group: &str, precision: Precision, n: Option<usize>) -> Result<Vec<Build>> {
    let mut out: Vec<Build> = Vec::new();
    match group {
        "gemm" => {
            for size in [512, 1024, 2048] {
                out.push(Box::new(move || gemm(size, precision)));
            }
        }
        "conv" => {
            for shape in CONVOLUTIONS {
                for backward in [false, true] {
                    out.push(Box::new(move || convolution(shape, backward, precision, n)));
                }
            }
        }
        "micro" => {
            for kind in ["softmax", "gelu", "layernorm", "batchnorm"] {
                for backward in [false, true] {
                    out.push(Box::new(move || micro(kind, backward, precision)));
                }
            }
        }
        "cnn" | "resnet18" | "vit" | "gpt" | "unet" => {
            let name = group.to_string();
            out.push(Box::new(move || training(&name, precision, n)));
        }
        other => bail!("no case {other}; there are gemm, conv, micro, cnn, resnet18, vit, gpt, unet"),
    }
    Ok(out)
}

fn dtype(precision: Precision) -> DType {
    match precision {
        Precision::Fp32 => DType::F32,
        Precision::Fp16 => DType::F16,
        Precision::Bf16 => DType::BF16,
    }
}

fn policy(precision: Precision) -> Policy {
    match precision {
        Precision::Fp32 => Policy::OFF,
        _ => Policy::autocast(dtype(precision)),
    }
}

fn normal(dims: &[usize], seed: u64) -> Result<Var> {
    Ok(scope::with_key(seed, 0, || Var::random(Distribution::Normal { mean: 0.0, std: 1.0 }, dims))?)
}

fn integers(dims: &[usize], below: i64) -> Result<Var> {
    let values: Vec<i64> = (0..dims.iter().product::<usize>() as i64).map(|i| i * 7919 % 104_729 % below).collect();
    Ok(Var::constant(Array::from_slice(&Device::cpu(), &values, dims, Class::Indices)?))
}

/// Largest difference, as a part of the largest value, that a result in this precision may have.
fn tolerance(precision: Precision) -> f64 {
    match precision {
        Precision::Fp32 => 1e-5,
        Precision::Fp16 => 2f64.powi(-10),
        Precision::Bf16 => 2f64.powi(-7),
    }
}

fn compare(found: &Var, exact: &Var, tolerance: f64) -> Result<()> {
    let (found, exact) = (found.array().to_f64_vec()?, exact.array().to_f64_vec()?);
    let largest = exact.iter().fold(0.0f64, |m, v| m.max(v.abs()));
    let worst =
        found.iter().zip(&exact).fold(0.0f64, |m, (a, b)| m.max(if a.is_finite() { (a - b).abs() } else { f64::INFINITY }));
    ensure!(worst <= tolerance * largest, "off by {:.2e} of the largest value, allowed {tolerance:.2e}", worst / largest);
    Ok(())
}

fn f64s(x: &Var) -> Result<Var> {
    Ok(Var::leaf(x.array().cast(DType::F64, Class::Activations)?))
}

fn nothing() -> Box<dyn Fn() -> Vec<(&'static str, Value)>> {
    Box::new(Vec::new)
}

fn gemm(n: usize, precision: Precision) -> Result<Case> {
    let (a, b) = (normal(&[n, n], 1)?.cast(dtype(precision))?, normal(&[n, n], 2)?.cast(dtype(precision))?);
    let (ca, cb) = (a.clone(), b.clone());
    Ok(Case {
        name: format!("gemm{n}"),
        run: Box::new(move || {
            no_grad(|| a.matmul(&b))?;
            Ok(())
        }),
        check: Box::new(move || {
            let found = no_grad(|| ca.matmul(&cb))?.narrow(0, 5, 3)?;
            compare(&found, &f64s(&ca.narrow(0, 5, 3)?)?.matmul(&f64s(&cb)?)?, tolerance(precision))
        }),
        flops: 2.0 * (n as f64).powi(3),
        rate: None,
        extra: nothing(),
    })
}

/// Name, batch, channels in and out, size, groups.
type Convolution = (&'static str, usize, usize, usize, usize, usize);

const CONVOLUTIONS: [Convolution; 4] = [
    ("conv32x3x32-64", 32, 3, 64, 32, 1),
    ("conv32x64x32-128", 32, 64, 128, 32, 1),
    ("conv8x256x16-256", 8, 256, 256, 16, 1),
    ("dwconv32x128x32", 32, 128, 128, 32, 128),
];

fn convolution(shape: Convolution, backward: bool, precision: Precision, batch: Option<usize>) -> Result<Case> {
    let (name, n, inputs, outputs, size, groups) = shape;
    let n = batch.unwrap_or(n);
    let geometry = Geometry { padding: [1, 1], groups, ..Geometry::default() };
    let layer = scope::with_key(3, 0, || Conv2d::with(inputs, outputs, [3, 3], geometry, true))?;
    // The weight is cast in the region, as in a training step; the input arrives in 16 bit, from a layer before.
    // Channels lie last in memory, as they do between layers.
    let image = |channels: usize, seed: u64| -> Result<Var> {
        Ok(normal(&[n, size, size, channels], seed)?.cast(dtype(precision))?.permute(&[0, 3, 1, 2])?)
    };
    let x = Var::leaf(image(inputs, 4)?.array().clone());
    let g = image(outputs, 5)?;
    let policy = policy(precision);
    let (cx, cg, cl, cp) = (x.clone(), g.clone(), layer.clone(), policy.clone());
    let weight = layer.clone();
    Ok(Case {
        name: format!("{name}_{}", if backward { "fwdbwd" } else { "fwd" }),
        run: Box::new(move || {
            if backward {
                policy.run(|| layer.forward(&x))?.backward_with(g.array())?;
            } else {
                no_grad(|| policy.run(|| layer.forward(&x)))?;
            }
            Ok(())
        }),
        check: Box::new(move || {
            let (x, g) = (Var::leaf(cx.narrow(0, 0, 1)?.array().clone()), cg.narrow(0, 0, 1)?);
            let y = cp.run(|| cl.forward(&x))?;
            let (wide, w, b) =
                (f64s(&x)?, f64s(&weight.weight.var())?, weight.bias.as_ref().map(|b| f64s(&b.var())).transpose()?);
            let exact = wide.conv2d(&w, b.as_ref(), geometry, None)?;
            // Weights are rounded once more than the operands of a bare product.
            compare(&y, &exact, 2.0 * tolerance(precision))?;
            if backward {
                let (grads, exact) = (y.backward_with(g.array())?, exact.backward_with(f64s(&g)?.array())?);
                let pair = |a: Option<&Array>, b: Option<&Array>| match (a, b) {
                    (Some(a), Some(b)) => {
                        compare(&Var::constant(a.clone()), &Var::constant(b.clone()), 2.0 * tolerance(precision))
                    }
                    _ => bail!("no gradient"),
                };
                pair(grads.get(&x), exact.get(&wide))?;
                pair(grads.by_id(weight.weight.id()), exact.get(&w))?;
            }
            Ok(())
        }),
        flops: 2.0 * (n * size * size * outputs * inputs / groups * 9) as f64 * if backward { 3.0 } else { 1.0 },
        rate: None,
        extra: nothing(),
    })
}

fn micro(kind: &'static str, backward: bool, precision: Precision) -> Result<Case> {
    let dims: &[usize] = if kind == "batchnorm" { &[32, 64, 128, 64] } else { &[32 * 512, 1024] };
    let x = Var::leaf(normal(dims, 1)?.cast(dtype(precision))?.array().clone());
    let g = normal(dims, 2)?.cast(dtype(precision))?;
    let (layer_norm, batch_norm) = (LayerNorm::new(1024)?, BatchNorm2d::new(64)?);
    let forward = move |x: &Var| -> Result<Var> {
        Ok(match kind {
            "softmax" => x.softmax(-1)?,
            "gelu" => x.unary(Unary::Gelu)?,
            "layernorm" => layer_norm.forward(x)?,
            _ => batch_norm.forward(x)?,
        })
    };
    let forward = Rc::new(forward);
    let (cx, cg, cf) = (x.clone(), g.clone(), forward.clone());
    Ok(Case {
        name: format!("{kind}_{}", if backward { "fwdbwd" } else { "fwd" }),
        run: Box::new(move || {
            if backward {
                forward(&x)?.backward_with(g.array())?;
            } else {
                no_grad(|| forward(&x))?;
            }
            scope::discard();
            Ok(())
        }),
        check: Box::new(move || {
            let part = |v: &Var| -> Result<Var> { Ok(Var::leaf(v.narrow(0, 0, 2)?.array().clone())) };
            let (x, g) = (part(&cx)?, part(&cg)?);
            let (y, wide) = (cf(&x)?, f64s(&x)?);
            let exact = cf(&wide)?;
            compare(&y, &exact, tolerance(precision))?;
            if backward {
                let (grads, exact) = (y.backward_with(g.array())?, exact.backward_with(f64s(&g)?.array())?);
                match (grads.get(&x), exact.get(&wide)) {
                    (Some(a), Some(b)) => {
                        compare(&Var::constant(a.clone()), &Var::constant(b.clone()), 4.0 * tolerance(precision))?;
                    }
                    _ => bail!("no gradient"),
                }
            }
            scope::discard();
            Ok(())
        }),
        flops: 0.0,
        rate: None,
        extra: Box::new(|| vec![("elems", json!(32 * 512 * 1024))]),
    })
}

/// A loss over a fixed batch.
type Loss = Rc<dyn Fn() -> Result<Var>>;

fn loss<M: Module + 'static>(model: M, f: impl Fn(&M) -> Result<Var> + 'static) -> (Optimizer, usize, Loss) {
    let optimizer = Optimizer::new(&model, AdamW { lr: 1e-4, ..AdamW::default() });
    (optimizer, model.parameter_count(), Rc::new(move || f(&model)))
}

/// A whole training step: forward, loss, backward, unscaling, clipping at 1, AdamW.
fn training(name: &str, precision: Precision, n: Option<usize>) -> Result<Case> {
    let batch = n.unwrap_or(match name {
        "cnn" => 128,
        "vit" => 64,
        "unet" => 8,
        _ => 16,
    });
    let classify = |y: &Var, target: &Var| -> Result<Var> { Ok(y.cross_entropy(target, CrossEntropy::default())?) };
    let images = |size: usize| -> Result<(Var, Var)> { Ok((normal(&[batch, 3, size, size], 1)?, integers(&[batch], 10)?)) };
    let (optimizer, parameters, loss) = scope::with_key(7, 0, || -> Result<_> {
        Ok(match name {
            "cnn" => {
                let config = SmallCnnConfig { in_channels: 3, size: 32, ..SmallCnnConfig::default() };
                let (x, t) = images(32)?;
                loss(SmallCnn::new(&config)?, move |m| classify(&m.forward(&x)?, &t))
            }
            "resnet18" => {
                let (x, t) = images(64)?;
                loss(ResNet::new(&ResNetConfig::default())?, move |m| classify(&m.forward(&x)?, &t))
            }
            "vit" => {
                let (x, t) = images(32)?;
                loss(Vit::new(&VitConfig::default())?, move |m| classify(&m.forward(&x)?, &t))
            }
            "gpt" => {
                let (x, t) = (integers(&[batch, 256], 65)?, integers(&[batch * 256], 65)?);
                loss(Gpt::new(&GptConfig::default())?, move |m| classify(&m.forward(&x)?.reshape(&[-1, 65])?, &t))
            }
            _ => {
                let (x, y) = (normal(&[batch, 3, 32, 32], 1)?, normal(&[batch, 3, 32, 32], 2)?);
                let t = integers(&[batch], 1000)?;
                loss(UNet::new(&UNetConfig::default())?, move |m| Ok(m.forward(&x, &t)?.mse_loss(&y, Reduction::Mean)?))
            }
        })
    })?;
    let scale = if precision == Precision::Fp16 { LossScale::dynamic() } else { LossScale::Off };
    let mut training = Training::new(optimizer, policy(precision), scale)?;
    training.clip = Some(1.0);
    training.blame = false;
    let losses = Rc::new(RefCell::new(Vec::new()));
    let saved = Rc::new(Cell::new(0));
    let device = Device::cpu();
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
            ensure!(losses.iter().all(|l| l.is_finite()) && (losses.len() < 8 || last < first), "losses {first} to {last}");
            Ok(())
        }),
        flops: 0.0,
        rate: Some(if name == "gpt" { ("tok_per_s", (batch * 256) as f64) } else { ("img_per_s", batch as f64) }),
        extra: Box::new(move || {
            let losses = all.borrow();
            let peak = device.memory().peak_total.saturating_sub(base);
            vec![
                ("batch", json!(batch)),
                ("params", json!(parameters)),
                ("loss_first", json!(super::round(losses[0]))),
                ("loss_last", json!(super::round(losses[losses.len() - 1]))),
                ("saved_mib", json!(super::round(saved.get() as f64 / 1048576.0))),
                ("peak_mib", json!(super::round(peak as f64 / 1048576.0))),
            ]
        }),
    })
}
