//! Products of matrices and vectors.

use binade_tensor::op::{Epilogue, MatMul, Unary};
use binade_tensor::{DType, Error as TensorError, Op};

use crate::{Result, Var, apply};

/// Products of vectors and matrices, accumulated in f32.
impl Var {
    /// `self @ other` in every rank, as PyTorch's matmul: vectors are rows or columns, leading dimensions broadcast.
    ///
    /// # Errors
    /// Inner extents differ; batches do not broadcast.
    pub fn matmul(&self, other: &Var) -> Result<Var> {
        let a = if self.shape().rank() == 1 { self.unsqueeze(0)? } else { self.clone() };
        let b = if other.shape().rank() == 1 { other.unsqueeze(1)? } else { other.clone() };
        let mut out = apply(Op::MatMul(MatMul::default()), &[&a, &b])?;
        if other.shape().rank() == 1 {
            out = out.squeeze(-1)?;
        }
        if self.shape().rank() == 1 {
            out = out.squeeze(if other.shape().rank() == 1 { -1 } else { -2 })?;
        }
        Ok(out)
    }

    /// `act(self @ weightᵀ + bias)` with weight `[out, in]`, bias `[out]`, self `[…, in]`.
    ///
    /// # Errors
    /// Shapes do not fit.
    pub fn linear(&self, weight: &Var, bias: Option<&Var>, act: Option<Unary>) -> Result<Var> {
        let x = if self.shape().rank() == 1 { self.unsqueeze(0)? } else { self.clone() };
        let w = weight.transpose(0, 1)?;
        let op = Op::MatMul(MatMul::plain(Epilogue { bias: bias.is_some(), act }));
        let y = match bias {
            Some(bias) => apply(op, &[&x, &w, bias])?,
            None => apply(op, &[&x, &w])?,
        };
        if self.shape().rank() == 1 { y.squeeze(0) } else { Ok(y) }
    }

    /// `act(self) @ weightᵀ + bias`, shapes as for [`Var::linear`]: the activation is computed as the product reads it
    /// and not written, as where a hidden layer's result has one use. Under autocast a wider self is rounded before it,
    /// as what a product gave is.
    ///
    /// # Errors
    /// Shapes do not fit.
    pub fn linear_of(&self, act: Unary, weight: &Var, bias: Option<&Var>) -> Result<Var> {
        if self.shape().rank() == 1 {
            return self.unsqueeze(0)?.linear_of(act, weight, bias)?.squeeze(0);
        }
        let (w, op) = (weight.transpose(0, 1)?, Op::MatMul(MatMul::of_left(act, bias.is_some())));
        match bias {
            Some(bias) => apply(op, &[self, &w, bias]),
            None => apply(op, &[self, &w]),
        }
    }

    /// `Σ a·b` of two vectors, accumulated in f32.
    ///
    /// # Errors
    /// Not two vectors of one length.
    pub fn dot(&self, other: &Var) -> Result<Var> {
        if self.shape().rank() != 1 || self.shape() != other.shape() {
            let expected = "expected two vectors of one length".into();
            return Err(TensorError::Shape { op: "dot", expected, shapes: vec![*self.shape(), *other.shape()] }.into());
        }
        self.matmul(other)
    }

    /// `a[i]·b[j]` of two vectors.
    ///
    /// # Errors
    /// Not two vectors.
    pub fn outer(&self, other: &Var) -> Result<Var> {
        if self.shape().rank() != 1 || other.shape().rank() != 1 {
            let expected = "expected two vectors".into();
            return Err(
                TensorError::Shape { op: "outer", expected, shapes: vec![*self.shape(), *other.shape()] }.into()
            );
        }
        self.unsqueeze(1)?.mul(&other.unsqueeze(0)?)
    }

    /// Batched product of `[B, m, k]` and `[B, k, n]`.
    ///
    /// # Errors
    /// Not three dimensions each, or extents that do not fit.
    pub fn bmm(&self, other: &Var) -> Result<Var> {
        if self.shape().rank() != 3 || other.shape().rank() != 3 || self.shape()[0] != other.shape()[0] {
            let expected = "expected [B, m, k] and [B, k, n]".into();
            return Err(TensorError::Shape { op: "bmm", expected, shapes: vec![*self.shape(), *other.shape()] }.into());
        }
        self.matmul(other)
    }

    /// `self + a @ b` with self a vector `[n]` or anything that broadcasts to `[m, n]`.
    ///
    /// # Errors
    /// Shapes do not fit.
    pub fn addmm(&self, a: &Var, b: &Var) -> Result<Var> {
        if self.shape().rank() == 1 {
            return apply(Op::MatMul(MatMul::plain(Epilogue { bias: true, act: None })), &[a, b, self]);
        }
        let product = a.matmul(b)?;
        // One operator as far as autocast is concerned: all three operands are narrowed.
        let narrow = crate::scope::rule().is_some() && product.dtype().is_half() && self.dtype() == DType::F32;
        product.add(&if narrow { self.cast(product.dtype())? } else { self.clone() })
    }
}
