//! Convolutions.

use super::definition::{Definition, each};
#[cfg(feature = "oracle")]
use super::errors::Roundings;
use super::product::finish;
#[cfg(feature = "oracle")]
use super::product::{activated, weights};
use super::{Dense, unflatten};
use crate::Result;
#[cfg(feature = "oracle")]
use crate::op::Epilogue;
use crate::op::{Conv2d, Conv2dInput, Conv2dWeight, ConvTranspose2d, Convolution, Depthwise};

impl Definition for Convolution {
    fn evaluate(&self, x: &[Dense], shapes: &[Vec<usize>]) -> Result<Vec<Dense>> {
        Ok(finish(convolve(&self.conv, &x[0], &x[1], &shapes[0]), &self.epilogue, x, |i| i[1]))
    }

    #[cfg(feature = "oracle")]
    fn errors(&self, x: &[Dense], shapes: &[Vec<usize>], by: Roundings<'_>) -> Result<Vec<Vec<f64>>> {
        let plain = Convolution { epilogue: Epilogue { act: None, ..self.epilogue }, ..*self };
        activated(&plain, self.epilogue.act, x, &weights(x, by.dtypes), shapes, by)
    }
}

impl Definition for ConvTranspose2d {
    fn evaluate(&self, x: &[Dense], shapes: &[Vec<usize>]) -> Result<Vec<Dense>> {
        let (ConvTranspose2d { conv, bias, .. }, shape) = (self, &shapes[0]);
        let mut y = Dense::zeros(shape);
        products(conv, shape, &x[1].shape, &x[0].shape, |o, w, at| y.v[at] += x[0].v[o] * x[1].v[w]);
        Ok(vec![each(shapes, &|i| y.at(i) + if *bias { x[2].v[i[1]] } else { 0.0 })])
    }
}

/// Calls `f(output, weight, input)` with the flat positions of every product of a convolution.
fn products(conv: &Conv2d, x: &[usize], w: &[usize], out: &[usize], mut f: impl FnMut(usize, usize, usize)) {
    let (cg, og) = (w[1], w[0] / conv.groups);
    // Where a tap of the kernel lies in the input, if it does not lie in the padding.
    let inside = |d: usize, o: usize, k: usize| {
        let at = (o * conv.stride[d] + k * conv.dilation[d]).checked_sub(conv.padding[d]);
        at.filter(|at| *at < x[d + 2])
    };
    let mut flat = 0;
    for (n, channel) in (0..out[0]).flat_map(|n| (0..out[1]).map(move |channel| (n, channel))) {
        for (oy, ox) in (0..out[2]).flat_map(|oy| (0..out[3]).map(move |ox| (oy, ox))) {
            for c in 0..cg {
                let (w_plane, x_plane) = (channel * cg + c, n * x[1] + channel / og * cg + c);
                for ky in 0..w[2] {
                    let Some(y) = inside(0, oy, ky) else { continue };
                    for kx in 0..w[3] {
                        let Some(xx) = inside(1, ox, kx) else { continue };
                        f(flat, (w_plane * w[2] + ky) * w[3] + kx, (x_plane * x[2] + y) * x[3] + xx);
                    }
                }
            }
            flat += 1;
        }
    }
}

pub(super) fn convolve(conv: &Conv2d, x: &Dense, w: &Dense, shape: &[usize]) -> Dense {
    let mut out = Dense::zeros(shape);
    products(conv, &x.shape, &w.shape, shape, |o, wi, xi| out.v[o] += x.v[xi] * w.v[wi]);
    out
}

impl Definition for Conv2dInput {
    fn evaluate(&self, x: &[Dense], shapes: &[Vec<usize>]) -> Result<Vec<Dense>> {
        let (conv, g, shape) = (&self.conv, &x[0], &shapes[0]);
        let mut dx = Dense::zeros(shape);
        products(conv, shape, &x[1].shape, &g.shape, |o, w, xi| dx.v[xi] += g.v[o] * x[1].v[w]);
        Ok(vec![dx])
    }
}

impl Definition for Conv2dWeight {
    fn evaluate(&self, x: &[Dense], shapes: &[Vec<usize>]) -> Result<Vec<Dense>> {
        let (conv, g, shape) = (&self.conv, &x[0], &shapes[0]);
        let mut dw = Dense::zeros(shape);
        products(conv, &x[1].shape, shape, &g.shape, |o, w, xi| dw.v[w] += g.v[o] * x[1].v[xi]);
        Ok(vec![dw])
    }
}

impl Definition for Depthwise {
    fn evaluate(&self, x: &[Dense], _shapes: &[Vec<usize>]) -> Result<Vec<Dense>> {
        let (Depthwise { conv, bias }, g) = (self, &x[0]);
        let (mut dx, mut dw) = (Dense::zeros(&x[1].shape), Dense::zeros(&x[2].shape));
        products(conv, &x[1].shape, &x[2].shape, &g.shape, |o, w, xi| {
            dx.v[xi] += g.v[o] * x[2].v[w];
            dw.v[w] += g.v[o] * x[1].v[xi];
        });
        let mut outs = vec![dx, dw];
        if *bias {
            let mut db = Dense::zeros(&[conv.groups]);
            (0..g.v.len()).for_each(|o| db.add(&[unflatten(o, &g.shape)[1]], g.v[o]));
            outs.push(db);
        }
        Ok(outs)
    }
}
