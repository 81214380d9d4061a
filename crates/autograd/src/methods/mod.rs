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
mod random;
mod reduce;
mod resample;
mod shape;

pub use attention::Rotary;
pub use conv::Conv3d;
pub use ctc::Ctc;
pub use loss::KlReduction;

use binade_tensor::Array;

use crate::Var;

impl From<Array> for Var {
    fn from(array: Array) -> Var {
        Var::constant(array)
    }
}
