//! Cases of single operators: products, convolutions, norms and elementwise functions.

use std::rc::Rc;

use anyhow::{Result, bail};
use binade::autograd::{Var, no_grad, scope};
use binade::nn::{BatchNorm2d, Conv2d, Layer, LayerNorm};
use binade::tensor::Array;
use binade::tensor::op::{Conv2d as Geometry, Unary};
use binade::train::Precision;
use serde_json::json;

use super::cases::{Case, compare, dtype, f64s, normal, nothing, policy, tolerance};

pub fn gemm(n: usize, precision: Precision) -> Result<Case> {
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

/// Rows times a weight of 33.5M elements, as a layer holds it: `[out, in]`. Its bytes are the limit.
pub fn skinny(rows: usize, precision: Precision) -> Result<Case> {
    const OUT: usize = 4096;
    const IN: usize = 8192;
    let (x, w) = (normal(&[rows, IN], 1)?.cast(dtype(precision))?, normal(&[OUT, IN], 2)?.cast(dtype(precision))?);
    let (cx, cw) = (x.clone(), w.clone());
    Ok(Case {
        name: format!("skinny{rows}x{OUT}x{IN}"),
        run: Box::new(move || {
            no_grad(|| x.linear(&w, None, None))?;
            Ok(())
        }),
        check: Box::new(move || {
            // The first and the last outputs: all of them in f64 would take far longer than the measurement.
            let found = no_grad(|| cx.linear(&cw, None, None))?;
            for first in [0, OUT - 40] {
                let exact = f64s(&cx)?.linear(&f64s(&cw.narrow(0, first, 40)?)?, None, None)?;
                compare(&found.narrow(1, first, 40)?, &exact, tolerance(precision))?;
            }
            Ok(())
        }),
        flops: 2.0 * (rows * OUT * IN) as f64,
        rate: None,
        extra: Box::new(move |ms| {
            let bytes = (OUT * IN * dtype(precision).size()) as f64;
            vec![("weight_gb_per_s", json!(super::round(bytes / ms / 1e6)))]
        }),
    })
}

/// Name, batch, channels in and out, size, groups.
pub type Convolution = (&'static str, usize, usize, usize, usize, usize);

pub const CONVOLUTIONS: [Convolution; 4] = [
    ("conv32x3x32-64", 32, 3, 64, 32, 1),
    ("conv32x64x32-128", 32, 64, 128, 32, 1),
    ("conv8x256x16-256", 8, 256, 256, 16, 1),
    ("dwconv32x128x32", 32, 128, 128, 32, 128),
];

pub fn convolution(shape: Convolution, backward: bool, precision: Precision, batch: Option<usize>) -> Result<Case> {
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

pub fn micro(kind: &'static str, backward: bool, precision: Precision) -> Result<Case> {
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
            Ok(())
        }),
        flops: 0.0,
        rate: None,
        extra: Box::new(|_| vec![("elems", json!(32 * 512 * 1024))]),
    })
}
