//! Products, and what convolutions share with them.

use binade_tensor::op::{Epilogue, MatMul, Saved, Unary, View};
use binade_tensor::{Op, Shape};
use smallvec::{SmallVec, smallvec};

use super::derivative::Derivative;
use super::row::{Row, Saves};
use super::{Context, Grads};
use crate::Result;
use crate::saved::{Made, Recipe};
use crate::value::Value;

impl Row for MatMul {
    fn saves(&self, needs: &[bool]) -> Saves {
        match self.prologue {
            // The definition needs all inputs.
            _ if self.is_gradient() => Saves::ALL_INPUTS,
            // The slope needs the argument too.
            Some(_) if needs[0] => saves(&self.epilogue, &[true, true]),
            Some(_) | None => saves(&self.epilogue, needs),
        }
    }

    fn again(&self, inputs: usize) -> Option<Recipe> {
        again(&self.epilogue, inputs)
    }

    fn gradients<V: Value>(&self, c: &mut Context<'_, V>, g: V) -> Result<Grads<V>> {
        if self.is_gradient() {
            return Derived.adjoint(c, &g);
        }
        let g = c.before_act(&self.epilogue, g)?;
        linear(c, &g, self.prologue.map(|p| p.act), self.epilogue.bias)
    }

    /// The gradient by the right operand computes an activation of the left one as it packs it.
    fn takes_argument_of(&self, input: usize) -> bool {
        input == 0 && self.prologue.is_none() && !self.is_gradient()
    }

    fn before_activation(&self) -> Option<Op> {
        Some(Op::MatMul(MatMul { epilogue: Epilogue { act: None, ..self.epilogue }, ..*self }))
    }

    fn through_definition(&self, _recorded: bool) -> bool {
        self.is_gradient()
    }

    fn is_derivative(&self) -> bool {
        self.is_gradient()
    }
}

/// A product that only the backward pass has.
struct Derived;

impl Derivative for Derived {}

/// Of a contraction: its operands, and what its activation's slope is written in.
pub(super) fn saves(epilogue: &Epilogue, needs: &[bool]) -> Saves {
    let product = Saves::product(needs);
    match epilogue.act.map(|act| act.saved()) {
        Some(Saved::Output) => product.and_outputs(&[0]),
        Some(Saved::Input) => product.and_outputs(&[1]),
        Some(Saved::Nothing) | None => product,
    }
}

/// The activation of a contraction, from its saved argument. The one computed first saw it before it was rounded.
pub(super) fn again(epilogue: &Epilogue, inputs: usize) -> Option<Recipe> {
    let act = epilogue.act.filter(|act| act.saved() == Saved::Input)?;
    let recipe = Recipe::new(Op::Unary(act), smallvec![inputs + 1], Made::Activation(act));
    Some(Recipe { unrounded: true, ..recipe })
}

impl<V: Value> Context<'_, V> {
    /// The gradient in front of an epilogue's activation, for which alone an output was saved.
    pub(super) fn before_act(&mut self, epilogue: &Epilogue, g: V) -> Result<V> {
        let Some(act) = epilogue.act else { return Ok(g) };
        let (dtype, outputs) = (g.dtype(), self.metas.len());
        // The first output is the result, the second its argument.
        let before = self.before(act, g, self.saved(outputs + 1), self.saved(outputs), dtype)?;
        self.release(outputs);
        self.release(outputs + 1);
        Ok(before)
    }

    /// The gradients of a contraction's two operands, that of the smaller one first: it is all that reads the larger
    /// one, whose own gradient can then take the memory.
    pub(super) fn contraction(
        &mut self,
        first: impl Fn(&Self) -> Result<V>,
        mut second: impl FnMut(&Self) -> Result<V>,
    ) -> Result<Grads<V>> {
        let mut grads: Grads<V> = smallvec![None, None];
        let larger = usize::from(self.shape(0).numel() < self.shape(1).numel());
        for i in [1 - larger, larger] {
            if self.needs[i] {
                grads[i] = Some(if i == 0 { first(self)? } else { second(self)? });
            }
            self.release(1 - i);
        }
        Ok(grads)
    }
}

/// The array with its last two dimensions exchanged.
fn transposed<V: Value>(c: &Context<'_, V>, array: &V) -> Result<V> {
    let rank = array.shape().rank();
    let mut axes: SmallVec<[usize; 8]> = (0..rank).collect();
    axes.swap(rank - 2, rank - 1);
    c.view(array, View::Permute(Shape::new(&axes)?))
}

/// `g·bᵀ`, batch dimensions of a that were broadcast summed.
fn matmul_lhs<V: Value>(c: &Context<'_, V>, g: &V) -> Result<V> {
    let b = transposed(c, c.input(1)?)?;
    let want = if g.shape().rank() == c.shape(0).rank() { c.dtype(0) } else { c.dtype(0).accum() };
    let product = c.run(Op::MatMul(MatMul::default()), &[g, &b], want)?;
    c.fit(product, 0)
}

/// The gradients of a product's operands, of which the left one is perhaps an activation `of` what is given, and of its
/// bias.
fn linear<V: Value>(c: &mut Context<'_, V>, g: &V, of: Option<Unary>, bias: bool) -> Result<Grads<V>> {
    let wants_sums = bias && c.needs[2];
    let mut sums = None;
    let mut dw = |c: &Context<'_, V>| {
        let (dw, with) = matmul_rhs(c, g, of, wants_sums)?;
        sums = with;
        Ok(dw)
    };
    let mut grads = match of {
        None => c.contraction(|c| matmul_lhs(c, g), dw)?,
        // The argument is read for both gradients.
        Some(act) => {
            let dx = || c.before(act, matmul_lhs(c, g)?, Some(c.input(0)?), None, c.dtype(0));
            let dx = if c.needs[0] { Some(dx()?) } else { None };
            smallvec![dx, if c.needs[1] { Some(dw(c)?) } else { None }]
        }
    };
    if bias {
        grads.push(if wants_sums && sums.is_none() { Some(c.fit(g.clone(), 2)?) } else { sums });
    }
    Ok(grads)
}

/// `aᵀ·g`, or `f(a)ᵀ·g`. A weight shared by all batches takes one product over the flattened batch. Where that packs g
/// row by row, and `sums` asks for them, the sums of g for the bias as well.
fn matmul_rhs<V: Value>(c: &Context<'_, V>, g: &V, of: Option<Unary>, sums: bool) -> Result<(V, Option<V>)> {
    let strides = &c.metas[1].layout.strides;
    // b is a transposed weight: its gradient in the weight's own memory order needs no copy later.
    let turned = c.shape(1).rank() == 2 && strides[0] < strides[1] && g.numel() > 0;
    // A second output has no history.
    let sums = sums && !V::RECORDED && c.dtype(1) == c.dtype(2);
    let activated = match of {
        Some(act) => Some((act, c.input(0)?.clone())),
        None => c.activated.clone(),
    };
    let (a, act) = match &activated {
        Some((act, x)) if turned => (x.clone(), Some(*act)),
        Some((act, x)) => (c.run(Op::Unary(*act), &[x], c.dtype(0))?, None),
        None => (c.input(0)?.clone(), None),
    };
    let a = &a;
    let flat = |x: &V| -> Result<V> {
        let last = x.shape()[x.shape().rank() - 1];
        let shape = Shape::new(&[x.numel() / last.max(1), last])?;
        let x = if x.layout().reshape(&shape).is_some() { x.clone() } else { c.contiguous(x)? };
        c.view(&x, View::Reshape(shape))
    };
    if c.shape(1).rank() == 2 && g.numel() > 0 && a.numel() > 0 {
        let (a, g) = (flat(a)?, flat(g)?);
        if turned {
            let op = Op::MatMul(MatMul::of_right(act, sums));
            let mut outs = V::run_all(op, &[&transposed(c, &g)?, &a], c.device, c.dtype(1))?;
            let sums = if outs.len() > 1 { outs.pop() } else { None };
            return Ok((transposed(c, &outs[0])?, sums));
        }
        return Ok((c.run(Op::MatMul(MatMul::default()), &[&transposed(c, &a)?, &g], c.dtype(1))?, None));
    }
    let product = c.run(Op::MatMul(MatMul::default()), &[&transposed(c, a)?, g], c.dtype(1).accum())?;
    Ok((c.fit(product, 1)?, None))
}
