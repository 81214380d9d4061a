//! PyTorch's functional names as calls of this library.

use anyhow::{Result, anyhow};
use binade::autograd::{Conv3d, KlReduction, Var, scope};
use binade::nn::{BatchNorm2d, Buffer, Layer as _, Mode, Param};
use binade::tensor::op::{
    Attention, Compare, Conv2d, CrossEntropy, Epilogue, Interpolation, MatMul, PadMode, Pool, PoolKind,
};
use binade::tensor::{Array, Class, DType, Op, Shape};
use serde_json::Value;

use super::inputs::Inputs;

/// An int64 0/1 mask as bool.
fn mask(var: &Var) -> Result<Var> {
    let zero = Array::full(var.array().device(), DType::I64, Shape::SCALAR, 0.0, Class::Indices)?;
    Ok(var.compare(Compare::Ne, &Var::constant(zero))?)
}

/// The operator's result; `None` where it does not exist here.
pub fn apply(op: &str, i: &Inputs<'_>) -> Result<Option<Var>> {
    let x = || i.get("input");
    let (a, b) = (|| i.get("a"), || i.get("b"));
    let target = || i.get("target");
    let keepdim = i.flag("keepdim");
    let dim = i.list("dim").first().copied().unwrap_or(-1);
    Ok(Some(match op {
        "abs" => x()?.abs()?,
        "neg" => x()?.neg()?,
        "square" => x()?.square()?,
        "sqrt" => x()?.sqrt()?,
        "rsqrt" => x()?.rsqrt()?,
        "reciprocal" => x()?.reciprocal()?,
        "exp" => x()?.exp()?,
        "expm1" => x()?.expm1()?,
        "log" => x()?.log()?,
        "log1p" => x()?.log1p()?,
        "tanh" => x()?.tanh()?,
        "sigmoid" => x()?.sigmoid()?,
        "relu" => x()?.relu()?,
        "silu" => x()?.silu()?,
        "gelu" if i.text("approximate", "none") == "tanh" => x()?.gelu_tanh()?,
        "gelu" => x()?.gelu()?,
        "cos" => x()?.cos()?,
        "sin" => x()?.sin()?,
        "tan" => x()?.tan()?,
        "asin" => x()?.asin()?,
        "acos" => x()?.acos()?,
        "atan" => x()?.atan()?,
        "sinh" => x()?.sinh()?,
        "cosh" => x()?.cosh()?,
        "asinh" => x()?.asinh()?,
        "acosh" => x()?.acosh()?,
        "atanh" => x()?.atanh()?,
        "erf" => x()?.erf()?,
        "erfc" => x()?.erfc()?,
        "erfinv" => x()?.erfinv()?,
        "exp2" => x()?.exp2()?,
        "log2" => x()?.log2()?,
        "log10" => x()?.log10()?,
        "sign" => x()?.sign()?,
        "floor" => x()?.floor()?,
        "ceil" => x()?.ceil()?,
        "round" => x()?.round()?,
        "trunc" => x()?.trunc()?,
        "logsigmoid" => x()?.logsigmoid()?,
        "relu6" => x()?.relu6()?,
        "mish" => x()?.mish()?,
        "selu" => x()?.selu()?,
        "hardsigmoid" => x()?.hardsigmoid()?,
        "hardswish" => x()?.hardswish()?,
        "softsign" => x()?.softsign()?,
        "leaky_relu" => x()?.leaky_relu_with(i.number("negative_slope", 0.01))?,
        "elu" => x()?.elu_with(i.number("alpha", 1.0))?,
        "celu" => x()?.celu_with(i.number("alpha", 1.0))?,
        "softplus" => x()?.softplus_with(i.number("beta", 1.0))?,
        "hardtanh" => x()?.hardtanh(i.number("min_val", -1.0), i.number("max_val", 1.0))?,
        "clamp" => {
            let limit = |name: &str| i.attrs.get(name).and_then(Value::as_f64);
            x()?.clamp(limit("min"), limit("max"))?
        }
        "glu" => x()?.glu(dim)?,
        "prelu" => {
            // One slope per channel, which is dimension 1.
            let weight = i.get("weight")?;
            let mut shape = vec![1isize; x()?.shape().rank().max(1)];
            let at = usize::from(shape.len() > 1 && weight.shape().numel() > 1);
            shape[at] = weight.shape().numel() as isize;
            x()?.prelu(&weight.reshape(&shape)?)?
        }
        "pow" => match i.attrs.get("exponent").and_then(Value::as_f64) {
            Some(exponent) => x()?.pow_scalar(exponent)?,
            None => a()?.pow(b()?)?,
        },
        "atan2" => a()?.atan2(b()?)?,
        "fmod" => a()?.fmod(b()?)?,
        "addcmul" => a()?.addcmul(b()?, i.get("c")?, i.number("value", 1.0))?,
        "addcdiv" => a()?.addcdiv(b()?, i.get("c")?, i.number("value", 1.0))?,
        "lerp" => a()?.lerp(b()?, i.get("c")?)?,
        "flip" => x()?.flip(&i.list("dims"))?,
        "roll" => x()?.roll(&i.list("shifts"), &i.list("dims"))?,
        "pad" => {
            let mode = match i.text("mode", "constant") {
                "reflect" => PadMode::Reflect,
                "replicate" => PadMode::Replicate,
                "circular" => PadMode::Circular,
                _ => PadMode::Constant(i.number("value", 0.0)),
            };
            x()?.pad(&i.list("pad"), mode)?
        }
        "adaptive_avg_pool1d" | "adaptive_avg_pool2d" | "adaptive_avg_pool3d" => {
            let size = i.list("output_size");
            let spatial = x()?.shape().rank() - 2;
            let size: Vec<usize> = (0..spatial).map(|d| size[d.min(size.len() - 1)] as usize).collect();
            x()?.adaptive_avg_pool(&size)?
        }
        "upsample_nearest1d" | "upsample_nearest2d" | "upsample_nearest3d" => upsample(i, Interpolation::Nearest)?,
        "upsample_linear1d" | "upsample_bilinear2d" | "upsample_trilinear3d" => {
            upsample(i, Interpolation::Linear { align_corners: i.flag("align_corners") })?
        }
        "upsample_bicubic2d" => upsample(i, Interpolation::Cubic { align_corners: i.flag("align_corners") })?,
        "add" => a()?.add(b()?)?,
        "sub" => a()?.sub(b()?)?,
        "mul" => a()?.mul(b()?)?,
        "div" => a()?.div(b()?)?,
        "maximum" => a()?.maximum(b()?)?,
        "minimum" => a()?.minimum(b()?)?,
        "where" => a()?.where_(&mask(i.get("condition")?)?, b()?)?,
        "sum" => x()?.sum(&i.list("dim"), keepdim)?,
        "mean" => x()?.mean(&i.list("dim"), keepdim)?,
        "amax" => x()?.amax(&i.list("dim"), keepdim)?,
        "amin" => x()?.amin(&i.list("dim"), keepdim)?,
        "var" => x()?.var(&i.list("dim"), i.number("correction", 1.0), keepdim)?,
        "std" => x()?.std(&i.list("dim"), i.number("correction", 1.0), keepdim)?,
        "prod" => x()?.prod(&i.list("dim"), keepdim)?,
        "logsumexp" => x()?.logsumexp(&i.list("dim"), keepdim)?,
        "vector_norm" => x()?.vector_norm(i.number("ord", 2.0), &i.list("dim"), keepdim)?,
        "norm" => x()?.vector_norm(i.number("p", 2.0), &i.list("dim"), keepdim)?,
        "cumsum" => x()?.cumsum(dim)?,
        "cumprod" => x()?.cumprod(dim)?,
        "gather" => x()?.gather(dim, i.get("index")?)?,
        "scatter_add" => x()?.scatter_add(dim, i.get("index")?, i.get("src")?)?,
        "index_select" => x()?.index_select(dim, i.get("index")?)?,
        "sort" => x()?.sort(dim, i.flag("descending"))?.0,
        "topk" => {
            x()?.topk(
                i.number("k", 1.0) as usize,
                dim,
                i.attrs.get("largest").and_then(Value::as_bool).unwrap_or(true),
            )?
            .0
        }
        "tril" => x()?.tril(i.number("diagonal", 0.0) as isize)?,
        "triu" => x()?.triu(i.number("diagonal", 0.0) as isize)?,
        "normalize" => x()?.normalize(i.number("p", 2.0), i.number("dim", 1.0) as isize, i.number("eps", 1e-12))?,
        "cosine_similarity" => a()?.cosine_similarity(b()?, i.number("dim", 1.0) as isize, i.number("eps", 1e-8))?,
        "masked_fill" => x()?.masked_fill(&mask(i.get("mask")?)?, i.number("value", 0.0))?,
        "dot" => a()?.dot(b()?)?,
        "outer" => a()?.outer(b()?)?,
        "einsum" => Var::einsum(i.text("equation", ""), &[a()?, b()?])?,
        "repeat" => x()?.repeat(&i.list("repeats").iter().map(|&n| n as usize).collect::<Vec<_>>())?,
        "nll_loss" => {
            x()?.nll_loss(target()?, i.tensors.get("weight"), i.number("ignore_index", -100.0) as i64, i.reduction())?
        }
        "matmul" | "bmm" => a()?.matmul(b()?)?,
        "addmm" => binade::autograd::apply(
            Op::MatMul(MatMul::plain(Epilogue { bias: true, act: None })),
            &[a()?, b()?, i.get("bias")?],
        )?,
        "linear" => x()?.linear(i.get("weight")?, i.tensors.get("bias"), None)?,
        "conv2d" => {
            let conv = Conv2d {
                stride: i.pair("stride", [1, 1]),
                padding: i.pair("padding", [0, 0]),
                dilation: i.pair("dilation", [1, 1]),
                groups: i.number("groups", 1.0) as usize,
            };
            x()?.conv2d(i.get("weight")?, i.tensors.get("bias"), conv, None)?
        }
        "conv1d" | "conv_transpose1d" => {
            let along = |name: &str, default: usize| i.list(name).first().map_or(default, |&v| v as usize);
            let conv = Conv2d {
                stride: [1, along("stride", 1)],
                padding: [0, along("padding", 0)],
                dilation: [1, along("dilation", 1)],
                groups: i.number("groups", 1.0) as usize,
            };
            let (weight, bias) = (i.get("weight")?, i.tensors.get("bias"));
            if op == "conv1d" {
                x()?.conv1d(weight, bias, conv)?
            } else {
                x()?.conv_transpose1d(weight, bias, conv, along("output_padding", 0))?
            }
        }
        "conv3d" => {
            let triple = |name: &str, default: usize| {
                let list = i.list(name);
                std::array::from_fn(|d| list.get(d.min(list.len().max(1) - 1)).map_or(default, |&v| v as usize))
            };
            let conv = Conv3d {
                stride: triple("stride", 1),
                padding: triple("padding", 0),
                dilation: triple("dilation", 1),
                groups: i.number("groups", 1.0) as usize,
            };
            x()?.conv3d(i.get("weight")?, i.tensors.get("bias"), conv)?
        }
        "conv_transpose2d" => {
            let conv = Conv2d {
                stride: i.pair("stride", [1, 1]),
                padding: i.pair("padding", [0, 0]),
                dilation: i.pair("dilation", [1, 1]),
                groups: i.number("groups", 1.0) as usize,
            };
            x()?.conv_transpose2d(i.get("weight")?, i.tensors.get("bias"), conv, i.pair("output_padding", [0, 0]))?
        }
        "max_pool2d" | "avg_pool2d" => {
            let kernel = i.pair("kernel_size", [1, 1]);
            let kind = if op == "max_pool2d" { PoolKind::Max } else { PoolKind::Avg };
            let plain = Pool::new(kind, kernel, i.pair("stride", kernel), i.pair("padding", [0, 0]));
            x()?.pool2d(Pool {
                dilation: i.pair("dilation", [1, 1]),
                ceil: i.flag("ceil_mode"),
                count_padding: i.attrs.get("count_include_pad").and_then(Value::as_bool).unwrap_or(true),
                ..plain
            })?
        }
        "max_pool1d" | "avg_pool1d" => {
            let along = |name: &str, default: usize| i.list(name).first().map_or(default, |&v| v as usize);
            let kernel = along("kernel_size", 1);
            let (stride, padding) = (along("stride", kernel), along("padding", 0));
            if op == "max_pool1d" {
                x()?.max_pool1d(kernel, stride, padding)?
            } else {
                x()?.avg_pool1d(kernel, stride, padding)?
            }
        }
        "adaptive_max_pool1d" | "adaptive_max_pool2d" => {
            let size = i.list("output_size");
            let spatial = x()?.shape().rank() - 2;
            let size: Vec<usize> = (0..spatial).map(|d| size[d.min(size.len() - 1)] as usize).collect();
            x()?.adaptive_max_pool(&size)?
        }
        "softmax" => x()?.softmax(dim)?,
        "log_softmax" => x()?.log_softmax(dim)?,
        "masked_softmax" => {
            let x = x()?;
            let low = Array::full(x.array().device(), x.dtype(), Shape::SCALAR, f64::NEG_INFINITY, Class::Activations)?;
            Var::constant(low).where_(&mask(i.get("mask")?)?, x)?.softmax(dim)?
        }
        "layer_norm" => x()?.layer_norm(i.list("normalized_shape").len(), i.affine(), i.number("eps", 1e-5))?,
        "group_norm" => x()?.group_norm(i.number("num_groups", 1.0) as usize, i.affine(), i.number("eps", 1e-5))?,
        "rms_norm" => {
            let eps = i.number("eps", f64::from(f32::EPSILON));
            x()?.rms_norm(i.list("normalized_shape").len(), i.tensors.get("weight"), eps)?
        }
        "instance_norm" => x()?.instance_norm(i.affine(), i.number("eps", 1e-5))?,
        "batch_norm" => batch_norm(i)?,
        "cross_entropy" => {
            let loss = CrossEntropy {
                smoothing: i.number("label_smoothing", 0.0),
                ignore_index: i.number("ignore_index", -100.0) as i64,
                reduction: i.reduction(),
            };
            x()?.cross_entropy(i.get("target")?, loss)?
        }
        "mse_loss" => x()?.mse_loss(target()?, i.reduction())?,
        "l1_loss" => x()?.l1_loss(target()?, i.reduction())?,
        "smooth_l1_loss" => x()?.smooth_l1_loss(target()?, i.number("beta", 1.0), i.reduction())?,
        "huber_loss" => x()?.huber_loss(target()?, i.number("delta", 1.0), i.reduction())?,
        "binary_cross_entropy" => x()?.bce(target()?, i.tensors.get("weight"), i.reduction())?,
        "binary_cross_entropy_with_logits" => {
            x()?.bce_with_logits(target()?, i.tensors.get("weight"), i.tensors.get("pos_weight"), i.reduction())?
        }
        "kl_div" => {
            let batch = i.text("reduction", "mean") == "batchmean";
            let reduction = if batch { KlReduction::BatchMean } else { KlReduction::By(i.reduction()) };
            x()?.kl_div(target()?, i.flag("log_target"), reduction)?
        }
        "poisson_nll_loss" => {
            let log_input = i.attrs.get("log_input").and_then(Value::as_bool).unwrap_or(true);
            x()?.poisson_nll_loss(target()?, log_input, i.flag("full"), i.number("eps", 1e-8), i.reduction())?
        }
        "hinge_embedding_loss" => x()?.hinge_embedding_loss(target()?, i.number("margin", 1.0), i.reduction())?,
        "soft_margin_loss" => x()?.soft_margin_loss(target()?, i.reduction())?,
        "margin_ranking_loss" => {
            i.get("input1")?.margin_ranking_loss(i.get("input2")?, target()?, i.number("margin", 0.0), i.reduction())?
        }
        "cosine_embedding_loss" => i.get("input1")?.cosine_embedding_loss(
            i.get("input2")?,
            target()?,
            i.number("margin", 0.0),
            i.reduction(),
        )?,
        "triplet_margin_loss" => {
            let (margin, p) = (i.number("margin", 1.0), i.number("p", 2.0));
            i.get("anchor")?.triplet_margin_loss(i.get("positive")?, i.get("negative")?, margin, p, i.reduction())?
        }
        "gaussian_nll_loss" => {
            x()?.gaussian_nll_loss(target()?, i.get("var")?, i.number("eps", 1e-6), i.reduction())?
        }
        "scaled_dot_product_attention" => {
            let scale = i.attrs.get("scale").and_then(Value::as_f64);
            let attention = Attention { causal: i.flag("is_causal"), scale, ..Attention::default() };
            let (q, k, v) = (i.get("q")?, i.get("k")?, i.get("v")?);
            match i.tensors.get("mask").or(i.tensors.get("attn_mask")) {
                Some(m) if m.dtype().is_float() => q.attention_masked(k, v, m, attention)?,
                Some(m) => q.attention_masked(k, v, &mask(m)?, attention)?,
                None => q.attention(k, v, attention)?,
            }
        }
        "embedding" => i.get("weight")?.embedding(x()?)?,
        "cat" => Var::cat(&[a()?, b()?], dim)?,
        "stack" => Var::stack(&[a()?, b()?], dim)?,
        "dropout" if !i.flag("training") => {
            scope::with_training(false, || Ok::<_, anyhow::Error>(x()?.dropout(i.number("p", 0.5))?))?
        }
        "expand" => x()?.expand(&i.list("shape").iter().map(|&d| d as usize).collect::<Vec<_>>())?,
        "narrow" => x()?.narrow(dim, i.number("start", 0.0) as usize, i.number("length", 0.0) as usize)?,
        "transpose_reshape" => match i.list("dims").as_slice() {
            [a, b] => x()?.transpose(*a, *b)?.reshape(&i.list("shape"))?,
            other => return Err(anyhow!("transpose_reshape needs two dims, got {other:?}")),
        },
        _ => return Ok(None),
    }))
}

/// By `size` or `scale_factor`, each a number or a list.
fn upsample(i: &Inputs<'_>, mode: Interpolation) -> Result<Var> {
    let x = i.get("input")?;
    let spatial = x.shape().rank() - 2;
    let size = i.list("size");
    if !size.is_empty() {
        let size: Vec<usize> = (0..spatial).map(|d| size[d.min(size.len() - 1)] as usize).collect();
        return Ok(x.interpolate(&size, mode)?);
    }
    let factors: Vec<f64> = match i.attrs.get("scale_factor") {
        Some(Value::Array(items)) => items.iter().filter_map(Value::as_f64).collect(),
        Some(value) => vec![value.as_f64().unwrap_or(1.0); spatial],
        None => return Err(anyhow!("upsampling needs size or scale_factor")),
    };
    Ok(x.interpolate_by(&factors, mode)?)
}

/// Through the layer, so that the running statistics are those of the layer: their arrays are the case's inputs.
fn batch_norm(i: &Inputs<'_>) -> Result<Var> {
    let x = i.get("input")?;
    let (weight, bias) = i.affine().ok_or_else(|| anyhow!("batch_norm needs weight and bias"))?;
    let buffer = |name: &str| -> Result<Buffer> { Ok(Buffer::new(i.get(name)?.array().clone())) };
    let layer = BatchNorm2d {
        weight: Param::from_leaf(weight).ok_or_else(|| anyhow!("the weight is no leaf"))?,
        bias: Param::from_leaf(bias).ok_or_else(|| anyhow!("the bias is no leaf"))?,
        running_mean: buffer("running_mean")?,
        running_var: buffer("running_var")?,
        num_batches_tracked: Buffer::new(Array::full(
            x.array().device(),
            DType::I64,
            Shape::SCALAR,
            0.0,
            Class::Weights,
        )?),
        momentum: i.number("momentum", 0.1),
        eps: i.number("eps", 1e-5),
        mode: Mode::default(),
    };
    Ok(scope::with_training(i.flag("training"), || layer.forward(x))?)
}
