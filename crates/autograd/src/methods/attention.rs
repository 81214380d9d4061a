//! Attention, also with masks and dropout, and rotary position embedding.

use binade_tensor::op::{Attention, Numerics};
use binade_tensor::{Error as TensorError, Op};

use super::composed;
use crate::constants::{LARGEST, kept};
use crate::{Result, Var, apply, scope};

/// Which pairs of features a rotary embedding turns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rotary {
    /// Feature i with i + D/2 (GPT-NeoX, Llama).
    Halves,
    /// Feature 2i with 2i + 1 (GPT-J, the paper).
    Interleaved,
}

impl Var {
    /// Scaled dot-product attention with self as queries `[…, T, D]`, keys `[…, S, D]`, values `[…, S, E]`.
    ///
    /// # Errors
    /// Shapes do not fit.
    pub fn attention(&self, keys: &Var, values: &Var, attention: Attention) -> Result<Var> {
        apply(Op::Attention(attention), &[self, keys, values])
    }

    /// [`Var::attention`] with a mask that broadcasts to `[…, T, S]`: bool (true takes part) or float (added to the
    /// scores). A float mask that wants a gradient makes the scores a tensor; else they exist tile by tile.
    ///
    /// # Errors
    /// Shapes do not fit.
    pub fn attention_masked(&self, keys: &Var, values: &Var, mask: &Var, attention: Attention) -> Result<Var> {
        let op = Op::Attention(Attention { mask: true, ..attention });
        let ins = [self, keys, values, mask];
        if !(mask.requires_grad() && scope::is_grad_enabled()) {
            return apply(op, &ins);
        }
        let metas: Vec<_> = ins.iter().map(|v| v.array().meta()).collect();
        let Some(program) = op.compose(&metas)? else { return apply(op, &ins) };
        let inputs = ins.map(Var::clone);
        let outs = program.run(&inputs, |op, ins, _want| apply(op.clone(), ins))?;
        outs[0].cast(self.dtype())
    }

    /// Attention whose weights drop out with probability `p` in training mode, from the scope's stream.
    ///
    /// # Errors
    /// As [`Var::attention_masked`].
    pub fn attention_dropout(
        &self,
        keys: &Var,
        values: &Var,
        mask: Option<&Var>,
        p: f64,
        attention: Attention,
    ) -> Result<Var> {
        super::random::probability("scaled_dot_product_attention", p)?;
        let attention = if scope::is_training() && p > 0.0 {
            Attention { dropout: p, key: scope::next_key(), ..attention }
        } else {
            attention
        };
        match mask {
            Some(mask) => self.attention_masked(keys, values, mask, attention),
            None => self.attention(keys, values, attention),
        }
    }

    /// Rotary position embedding (Su et al. 2021) of `[…, T, D]`: pairs of features turned by `(offset +
    /// t)·theta^(−2i/D)` (theta is 10000 in the paper). Angles, their sines and cosines are f32; the gradient is the
    /// turn backwards.
    ///
    /// # Errors
    /// D is odd.
    pub fn rotary(&self, offset: usize, theta: f64, pairs: Rotary) -> Result<Var> {
        let rank = self.shape().rank();
        if rank < 2 || !self.shape()[rank - 1].is_multiple_of(2) {
            let expected = "expected […, T, D] with even D".into();
            return Err(TensorError::Shape { op: "rotary", expected, shapes: vec![*self.shape()] }.into());
        }
        let (t, half) = (self.shape()[rank - 2], self.shape()[rank - 1] / 2);
        // In f64: an f32 angle of 10⁵ radians would be off by 2⁻⁸.
        let angle = |at: f64, i: usize| at * theta.powf(-(i as f64) / half as f64);
        // Those of all positions up to a power of two, if they are few enough: a text that grows wants later ones.
        let all = offset.checked_add(t).and_then(usize::checked_next_power_of_two);
        let few = all.filter(|all| all.saturating_mul(half).saturating_mul(size_of::<f32>()) <= LARGEST);
        let (first, rows) = few.map_or((offset, t), |all| (0, all));
        let table = |what: &'static str, f: fn(f64) -> f64| -> Result<Var> {
            let make =
                || (0..rows * half).map(|n| f(angle(first as f64 + (n / half) as f64, n % half)) as f32).collect();
            let numbers = [first, rows, half, theta.to_bits() as usize];
            let table = kept::<f32>(self.array().device(), what, &numbers, &[rows, half], make)?;
            Var::constant(table).narrow(0, offset - first, t)
        };
        let (cos, sin) = (table("cosines", f64::cos)?, table("sines", f64::sin)?);
        let turn = |a: &Var, b: &Var| -> Result<[Var; 2]> {
            Ok([a.mul(&cos)?.sub(&b.mul(&sin)?)?, b.mul(&cos)?.add(&a.mul(&sin)?)?])
        };
        composed(Numerics::Neutral, [self], |[x]| match pairs {
            Rotary::Halves => {
                let [a, b] = turn(&x.narrow(-1, 0, half)?, &x.narrow(-1, half, half)?)?;
                Var::cat(&[&a, &b], -1)
            }
            Rotary::Interleaved => {
                let mut split: Vec<isize> = x.shape().iter().map(|&d| d as isize).collect();
                let whole = split.clone();
                split.splice(rank - 1.., [half as isize, 2]);
                let x = x.reshape(&split)?;
                let part = |i: usize| x.narrow(-1, i, 1)?.squeeze(-1);
                let [a, b] = turn(&part(0)?, &part(1)?)?;
                Var::stack(&[&a, &b], -1)?.reshape(&whole)
            }
        })
    }
}
