//! The operators as methods of [`Var`], under PyTorch's names.

mod attention;
mod conv;
mod ctc;
mod einsum;
mod elementwise;
mod index;
mod linalg;
mod loss;
mod norm;
mod quantised;
mod random;
mod reduce;
mod resample;
mod shape;

pub use attention::Rotary;
pub use conv::Conv3d;
pub use ctc::Ctc;
pub use loss::KlReduction;

use binade_tensor::op::Numerics;
use binade_tensor::{Array, DType};

use crate::node::Hook;
use crate::{Result, Var, scope};

/// A method written in several operators, computed in f32 from 16-bit operands and rounded once, as one operator is:
/// `f` gets the operands widened. Inside autocast the result of a method of the class [`Numerics::F32`] stays f32.
pub(crate) fn composed<const N: usize>(
    numerics: Numerics,
    operands: [&Var; N],
    f: impl FnOnce([&Var; N]) -> Result<Var>,
) -> Result<Var> {
    let floats = operands.iter().map(|v| v.dtype()).filter(|d| d.is_float());
    let dtype = floats.reduce(DType::promote).unwrap_or(DType::F32);
    if !operands.iter().any(|v| v.dtype().is_half()) {
        return f(operands);
    }
    let wide = operands.iter().map(|v| if v.dtype().is_half() { v.cast(DType::F32) } else { Ok((*v).clone()) });
    let wide = wide.collect::<Result<Vec<Var>>>()?;
    let out = f(std::array::from_fn(|i| &wide[i]))?;
    if numerics == Numerics::F32 && scope::rule().is_some() { Ok(out) } else { out.cast(dtype) }
}

impl From<Array> for Var {
    fn from(array: Array) -> Var {
        Var::constant(array)
    }
}

impl Var {
    /// This loss times a loss scale. The product is made in f32: 65536 itself does not fit f16. Gradients that come
    /// through it know the scale.
    ///
    /// # Errors
    /// Out of memory.
    pub fn scaled(&self, scale: f64) -> Result<Var> {
        let wide = if self.dtype().is_half() { self.cast(DType::F32)? } else { self.clone() };
        let scaled = (&wide * scale)?;
        scaled.tie(Hook::Scale(scale));
        Ok(scaled)
    }
}
