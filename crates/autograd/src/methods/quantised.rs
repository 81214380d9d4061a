//! Products with weights of 8-bit integers.

use binade_tensor::Op;
use binade_tensor::op::{Conv2d, Epilogue, QuantisedConv2d, QuantisedMatMul, Unary};

use crate::{Result, Var, apply};

/// For inference: gradients do not go through them.
impl Var {
    /// `act(self @ weightᵀ·scale + bias)` with an i8 weight `[out, in]`, a scale for each output `[out]`, bias `[out]`,
    /// self `[…, in]`. With `own`, a scalar, self is rounded to 8-bit integers that stand for multiples of it, and the
    /// sums of integers are exact; else it is read as it is.
    ///
    /// # Errors
    /// Shapes or dtypes do not fit.
    pub fn quantised_linear(
        &self,
        weight: &Var,
        scale: &Var,
        own: Option<&Var>,
        bias: Option<&Var>,
        act: Option<Unary>,
    ) -> Result<Var> {
        let epilogue = Epilogue { bias: bias.is_some(), act };
        let op = Op::QuantisedMatMul(QuantisedMatMul { integer: own.is_some(), epilogue });
        let ins: Vec<&Var> = [self, weight, scale].into_iter().chain(own).chain(bias).collect();
        apply(op, &ins)
    }

    /// `act(conv2d(self, weight)·scale + bias)` with an i8 weight `[O, C, KH, KW]`, scales and bias `[O]`, self `[N, C,
    /// H, W]`. Self is rounded to 8-bit integers that stand for multiples of the scalar `own`.
    ///
    /// # Errors
    /// Shapes or dtypes do not fit; several groups.
    pub fn quantised_conv2d(
        &self,
        weight: &Var,
        scale: &Var,
        own: &Var,
        bias: Option<&Var>,
        conv: Conv2d,
        act: Option<Unary>,
    ) -> Result<Var> {
        let epilogue = Epilogue { bias: bias.is_some(), act };
        let ins: Vec<&Var> = [self, weight, scale, own].into_iter().chain(bias).collect();
        apply(Op::QuantisedConv2d(QuantisedConv2d { conv, epilogue }), &ins)
    }
}
