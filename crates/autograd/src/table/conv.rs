//! Convolutions.

use binade_tensor::op::{
    Backward, Conv2d, Conv2dInput, Conv2dWeight, ConvTranspose2d, Convolution, Depthwise, Epilogue, Reduce, View,
};
use binade_tensor::{Dims, Op};
use smallvec::smallvec;

use super::derivative::Derivative;
use super::row::{Row, Saves};
use super::{Context, Grads, product};
use crate::Result;
use crate::saved::Recipe;
use crate::value::Value;

impl Row for Convolution {
    fn saves(&self, needs: &[bool]) -> Saves {
        product::saves(&self.epilogue, needs)
    }

    fn again(&self, inputs: usize) -> Option<Recipe> {
        product::again(&self.epilogue, inputs)
    }

    fn gradients<V: Value>(&self, c: &mut Context<'_, V>, g: V) -> Result<Grads<V>> {
        let Convolution { conv, epilogue } = *self;
        let g = c.before_act(&epilogue, g)?;
        // Recorded, each is an operator of its own, which has a gradient.
        let alike = c.metas[1..].iter().all(|w| w.dtype == c.dtype(1));
        if !V::RECORDED && conv.is_depthwise(c.shape(1)) && alike && c.needs.iter().all(|need| *need) {
            let op = Op::Backward(Backward::Depthwise { conv, bias: epilogue.bias });
            let outs = V::run_all(op, &[&g, c.input(0)?, c.input(1)?], c.device, c.dtype(0))?;
            return Ok(outs.into_iter().map(Some).collect());
        }
        let input = Op::Backward(Backward::Conv2dInput { conv, shape: *c.shape(0) });
        let weight = Op::Backward(Backward::Conv2dWeight { conv, shape: *c.shape(1) });
        let dx = |c: &Context<'_, V>| c.run(input.clone(), &[&g, c.input(1)?], c.dtype(0));
        let dw = |c: &Context<'_, V>| c.run(weight.clone(), &[&g, c.input(0)?], c.dtype(1));
        let mut grads = c.contraction(dx, dw)?;
        if epilogue.bias {
            grads.push(bias(c, &g)?);
        }
        Ok(grads)
    }

    fn before_activation(&self) -> Option<Op> {
        Some(Op::Conv2d(self.conv, Epilogue { act: None, ..self.epilogue }))
    }
}

/// The gradient of a bias, the third input.
fn bias<V: Value>(c: &Context<'_, V>, g: &V) -> Result<Option<V>> {
    let pixels = Dims::one(0).with(2).with(3);
    c.when(2, || c.run(Op::Reduce { kind: Reduce::Sum, dims: pixels, keepdim: false }, &[g], c.dtype(2)))
}

impl Row for ConvTranspose2d {
    fn saves(&self, needs: &[bool]) -> Saves {
        Saves::product(needs)
    }

    fn gradients<V: Value>(&self, c: &mut Context<'_, V>, g: V) -> Result<Grads<V>> {
        let conv = self.conv;
        let weight = Op::Backward(Backward::Conv2dWeight { conv, shape: *c.shape(1) });
        // An output padding of a stride or more leaves room for outputs of the convolution that no input has.
        let mut whole = *c.shape(0);
        for d in 0..2 {
            let span = conv.dilation[d] * (c.shape(1)[d + 2] - 1) + 1;
            whole[d + 2] = (g.shape()[d + 2] + 2 * conv.padding[d] - span) / conv.stride[d] + 1;
        }
        let dx = |c: &Context<'_, V>| {
            let mut dx = c.run(Op::Conv2d(conv, Epilogue::default()), &[&g, c.input(1)?], c.dtype(0))?;
            for d in (2..4).filter(|&d| whole[d] != c.shape(0)[d]) {
                dx = c.view(&dx, View::Narrow { dim: d, start: 0, length: c.shape(0)[d] })?;
            }
            Ok(dx)
        };
        let dw = |c: &Context<'_, V>| {
            let mut x = c.input(0)?.clone();
            for d in (2..4).filter(|&d| whole[d] != c.shape(0)[d]) {
                let mut shape = *x.shape();
                shape[d] = whole[d];
                x = c.run(Op::Backward(Backward::Narrow { dim: d, start: 0, shape }), &[&x], x.dtype())?;
            }
            c.run(weight.clone(), &[&x, &g], c.dtype(1))
        };
        let mut grads = c.contraction(dx, dw)?;
        if self.bias {
            grads.push(bias(c, &g)?);
        }
        Ok(grads)
    }
}

/// Without bias and activation.
fn plain(conv: &Conv2d) -> Op {
    Op::Conv2d(*conv, Epilogue::default())
}

impl Derivative for Conv2dInput {
    fn adjoint<V: Value>(&self, c: &Context<'_, V>, g: &V) -> Result<Grads<V>> {
        let conv = &self.conv;
        let weight = Op::Backward(Backward::Conv2dWeight { conv: *conv, shape: *c.shape(1) });
        Ok(smallvec![
            c.when(0, || c.run(plain(conv), &[g, c.input(1)?], c.dtype(0)))?,
            c.when(1, || c.run(weight, &[c.input(0)?, g], c.dtype(1)))?
        ])
    }
}

impl Derivative for Conv2dWeight {
    fn adjoint<V: Value>(&self, c: &Context<'_, V>, g: &V) -> Result<Grads<V>> {
        let conv = &self.conv;
        let input = Op::Backward(Backward::Conv2dInput { conv: *conv, shape: *c.shape(1) });
        Ok(smallvec![
            c.when(0, || c.run(plain(conv), &[c.input(1)?, g], c.dtype(0)))?,
            c.when(1, || c.run(input, &[c.input(0)?, g], c.dtype(1)))?
        ])
    }
}

/// Never recorded: a recorded gradient is made of the two above.
impl Derivative for Depthwise {}
