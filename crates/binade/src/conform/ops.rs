//! PyTorch's functional names as calls of this library.

use std::collections::HashMap;

use anyhow::{Result, anyhow};
use binade::autograd::{Var, scope};
use binade::nn::{BatchNorm2d, Buffer, Layer, Param};
use binade::tensor::op::{Attention, Compare, Conv2d, CrossEntropy, Epilogue, Reduction};
use binade::tensor::{Array, Class, DType, Op, Shape};
use serde_json::Value;

/// Inputs and attributes of a case, by PyTorch's names.
pub struct Inputs<'a> {
    tensors: &'a HashMap<String, Var>,
    attrs: &'a Value,
}

impl<'a> Inputs<'a> {
    pub fn new(tensors: &'a HashMap<String, Var>, attrs: &'a Value) -> Inputs<'a> {
        Inputs { tensors, attrs }
    }

    fn get(&self, name: &str) -> Result<&'a Var> {
        self.tensors.get(name).ok_or_else(|| anyhow!("the case lacks input '{name}'"))
    }

    fn number(&self, name: &str, default: f64) -> f64 {
        self.attrs.get(name).and_then(Value::as_f64).unwrap_or(default)
    }

    fn flag(&self, name: &str) -> bool {
        self.attrs.get(name).and_then(Value::as_bool).unwrap_or(false)
    }

    fn text(&self, name: &str, default: &'a str) -> &'a str {
        self.attrs.get(name).and_then(Value::as_str).unwrap_or(default)
    }

    /// A number or a list of numbers; empty when absent or null.
    fn list(&self, name: &str) -> Vec<isize> {
        match self.attrs.get(name) {
            Some(Value::Array(items)) => items.iter().filter_map(|v| v.as_i64().map(|i| i as isize)).collect(),
            Some(value) => value.as_i64().map(|i| i as isize).into_iter().collect(),
            None => Vec::new(),
        }
    }

    /// A number for both directions, or a pair.
    fn pair(&self, name: &str, default: [usize; 2]) -> [usize; 2] {
        match self.list(name).as_slice() {
            [both] => [*both as usize; 2],
            [h, w] => [*h as usize, *w as usize],
            _ => default,
        }
    }

    fn reduction(&self) -> Reduction {
        match self.text("reduction", "mean") {
            "sum" => Reduction::Sum,
            "none" => Reduction::None,
            _ => Reduction::Mean,
        }
    }

    /// Weight and bias of a norm.
    fn affine(&self) -> Option<(&'a Var, &'a Var)> {
        Some((self.tensors.get("weight")?, self.tensors.get("bias")?))
    }
}

/// An int64 0/1 mask as bool.
fn mask(var: &Var) -> Result<Var> {
    let zero = Array::full(var.array().device(), DType::I64, Shape::SCALAR, 0.0, Class::Indices)?;
    Ok(var.compare(Compare::Ne, &Var::constant(zero))?)
}

/// The operator's result; `None` where it does not exist here.
pub fn apply(op: &str, i: &Inputs<'_>) -> Result<Option<Var>> {
    let x = || i.get("input");
    let (a, b) = (|| i.get("a"), || i.get("b"));
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
        "matmul" | "bmm" => a()?.matmul(b()?)?,
        "addmm" => binade::autograd::apply(Op::MatMul(Epilogue { bias: true, act: None }), &[a()?, b()?, i.get("bias")?])?,
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
        "max_pool2d" | "avg_pool2d" => {
            let kernel = i.pair("kernel_size", [1, 1]);
            let (stride, padding) = (i.pair("stride", kernel), i.pair("padding", [0, 0]));
            if op == "max_pool2d" { x()?.max_pool2d(kernel, stride, padding)? } else { x()?.avg_pool2d(kernel, stride, padding)? }
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
        "batch_norm" => batch_norm(i)?,
        "cross_entropy" => {
            let loss = CrossEntropy {
                smoothing: i.number("label_smoothing", 0.0),
                ignore_index: i.number("ignore_index", -100.0) as i64,
                reduction: i.reduction(),
            };
            x()?.cross_entropy(i.get("target")?, loss)?
        }
        "mse_loss" => x()?.mse_loss(i.get("target")?, i.reduction())?,
        "scaled_dot_product_attention" if !i.tensors.contains_key("mask") => {
            let attention = Attention { causal: i.flag("is_causal"), scale: i.attrs.get("scale").and_then(Value::as_f64) };
            i.get("q")?.attention(i.get("k")?, i.get("v")?, attention)?
        }
        "embedding" => i.get("weight")?.embedding(x()?)?,
        "cat" => Var::cat(&[a()?, b()?], dim)?,
        "stack" => {
            let at = if dim < 0 { dim + a()?.shape().rank() as isize + 1 } else { dim } as usize;
            Var::cat(&[&a()?.unsqueeze(at)?, &b()?.unsqueeze(at)?], at as isize)?
        }
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
        num_batches_tracked: Buffer::new(Array::full(x.array().device(), DType::I64, Shape::SCALAR, 0.0, Class::Weights)?),
        momentum: i.number("momentum", 0.1),
        eps: i.number("eps", 1e-5),
    };
    let y = scope::with_training(i.flag("training"), || layer.forward(x))?;
    scope::commit()?;
    Ok(y)
}
