//! Softmax and normalisation.

use binade_tensor::op::{Norm, NormKind, Unary};
use binade_tensor::{Arrays, Op};

use crate::{Result, Var, apply, apply_all};

/// Softmax and normalisation.
impl Var {
    /// Softmax along `dim`.
    ///
    /// # Errors
    /// The dimension is out of range.
    pub fn softmax(&self, dim: isize) -> Result<Var> {
        apply(Op::Softmax { dim: self.shape().dim("softmax", dim)?, log: false }, &[self])
    }

    /// Logarithm of the softmax along `dim`.
    ///
    /// # Errors
    /// The dimension is out of range.
    pub fn log_softmax(&self, dim: isize) -> Result<Var> {
        apply(Op::Softmax { dim: self.shape().dim("log_softmax", dim)?, log: true }, &[self])
    }

    /// Layer norm over the last `dims` dimensions, with weight and bias of their shape.
    ///
    /// # Errors
    /// Shapes do not fit.
    pub fn layer_norm(&self, dims: usize, affine: Option<(&Var, &Var)>, eps: f64) -> Result<Var> {
        self.norm(NormKind::Layer { dims }, affine, None, eps, None).map(|(y, _)| y)
    }

    /// Group norm of `[N, C, …]`, with weight and bias `[C]`.
    ///
    /// # Errors
    /// Shapes do not fit.
    pub fn group_norm(&self, groups: usize, affine: Option<(&Var, &Var)>, eps: f64) -> Result<Var> {
        self.norm(NormKind::Group { groups }, affine, None, eps, None).map(|(y, _)| y)
    }

    /// RMS norm over the last `dims` dimensions, with a weight of their shape.
    ///
    /// # Errors
    /// Shapes do not fit.
    pub fn rms_norm(&self, dims: usize, weight: Option<&Var>, eps: f64) -> Result<Var> {
        let norm = Norm { kind: NormKind::Rms { dims }, eps, affine: weight.is_some(), act: None };
        let ins: Vec<&Var> = std::iter::once(self).chain(weight).collect();
        apply(Op::Norm(norm), &ins)
    }

    /// Instance norm of `[N, C, …]`: each channel of each sample by itself, with weight and bias `[C]`.
    ///
    /// # Errors
    /// Shapes do not fit.
    pub fn instance_norm(&self, affine: Option<(&Var, &Var)>, eps: f64) -> Result<Var> {
        let groups = self.shape().get(1).copied().unwrap_or(1);
        self.group_norm(groups, affine, eps)
    }

    /// Any normalisation, with an activation applied in the same pass; `statistics` are mean and variance for
    /// [`NormKind::Fixed`]. Also returns all outputs of [`Op::Norm`].
    ///
    /// # Errors
    /// Shapes do not fit.
    pub fn norm(
        &self,
        kind: NormKind,
        affine: Option<(&Var, &Var)>,
        statistics: Option<(&Var, &Var)>,
        eps: f64,
        act: Option<Unary>,
    ) -> Result<(Var, Arrays)> {
        let mut ins = vec![self];
        ins.extend(affine.iter().flat_map(|(w, b)| [*w, *b]));
        ins.extend(statistics.iter().flat_map(|(m, v)| [*m, *v]));
        apply_all(Op::Norm(Norm { kind, eps, affine: affine.is_some(), act }), &ins)
    }
}
