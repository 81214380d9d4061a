//! Reductions and scans.

use binade_tensor::op::{Binary, Compare, Numerics, Reduce, Scan};
use binade_tensor::{DType, Dims, Op};

use super::composed;
use crate::{Result, Var, apply};

/// Reductions and running sums. Dimensions may be negative; an empty list means all.
impl Var {
    fn reduce(&self, kind: Reduce, name: &'static str, dims: &[isize], keepdim: bool) -> Result<Var> {
        let dims = Dims::new(name, self.shape(), dims)?;
        apply(Op::Reduce { kind, dims, keepdim }, &[self])
    }

    /// Sum, accumulated in f32.
    ///
    /// # Errors
    /// A dimension is out of range.
    pub fn sum(&self, dims: &[isize], keepdim: bool) -> Result<Var> {
        self.reduce(Reduce::Sum, "sum", dims, keepdim)
    }

    /// Mean; the sum never overflows the storage dtype.
    ///
    /// # Errors
    /// As [`Var::sum`].
    pub fn mean(&self, dims: &[isize], keepdim: bool) -> Result<Var> {
        self.reduce(Reduce::Mean, "mean", dims, keepdim)
    }

    /// Largest element.
    ///
    /// # Errors
    /// As [`Var::sum`]; a reduced dimension is empty.
    pub fn amax(&self, dims: &[isize], keepdim: bool) -> Result<Var> {
        self.reduce(Reduce::Max, "amax", dims, keepdim)
    }

    /// Smallest element.
    ///
    /// # Errors
    /// As [`Var::amax`].
    pub fn amin(&self, dims: &[isize], keepdim: bool) -> Result<Var> {
        self.reduce(Reduce::Min, "amin", dims, keepdim)
    }

    /// Variance with `correction` subtracted from the count (PyTorch's default is 1).
    ///
    /// # Errors
    /// As [`Var::sum`].
    pub fn var(&self, dims: &[isize], correction: f64, keepdim: bool) -> Result<Var> {
        self.reduce(Reduce::Var { correction }, "var", dims, keepdim)
    }

    /// Index (i64) of the first largest element along `dim`.
    ///
    /// # Errors
    /// As [`Var::amax`].
    pub fn argmax(&self, dim: isize, keepdim: bool) -> Result<Var> {
        apply(Op::ArgMax { dim: self.shape().dim("argmax", dim)?, keepdim }, &[self])
    }

    /// Standard deviation with `correction` subtracted from the count (PyTorch's default is 1).
    ///
    /// # Errors
    /// A dimension is out of range; the same for the other reductions.
    pub fn std(&self, dims: &[isize], correction: f64, keepdim: bool) -> Result<Var> {
        self.reduce(Reduce::Std { correction }, "std", dims, keepdim)
    }

    /// Product. f32 inside autocast.
    ///
    /// # Errors
    /// A dimension is out of range.
    pub fn prod(&self, dims: &[isize], keepdim: bool) -> Result<Var> {
        self.reduce(Reduce::Prod, "prod", dims, keepdim)
    }

    /// `ln Σ eˣ` without overflow. f32 inside autocast.
    ///
    /// # Errors
    /// A dimension is out of range.
    pub fn logsumexp(&self, dims: &[isize], keepdim: bool) -> Result<Var> {
        self.reduce(Reduce::LogSumExp, "logsumexp", dims, keepdim)
    }

    /// `(Σ|x|ᵖ)^(1/p)`; p may be 0, ∞ or −∞ (PyTorch's `vector_norm`). f32 inside autocast.
    ///
    /// # Errors
    /// A dimension is out of range.
    pub fn vector_norm(&self, p: f64, dims: &[isize], keepdim: bool) -> Result<Var> {
        self.reduce(Reduce::Norm { p }, "norm", dims, keepdim)
    }

    /// Whether any element is not 0 (bool).
    ///
    /// # Errors
    /// A dimension is out of range.
    pub fn any(&self, dims: &[isize], keepdim: bool) -> Result<Var> {
        let found = self.logical_not()?.logical_not()?.cast(DType::F32)?.sum(dims, keepdim)?;
        found.compare_scalar(Compare::Gt, 0.0)
    }

    /// Whether no element is 0 (bool).
    ///
    /// # Errors
    /// A dimension is out of range.
    pub fn all(&self, dims: &[isize], keepdim: bool) -> Result<Var> {
        self.logical_not()?.any(dims, keepdim)?.logical_not()
    }

    /// Index (i64) of the first smallest element along `dim`; NaN counts as smallest.
    ///
    /// # Errors
    /// The dimension is empty or out of range.
    pub fn argmin(&self, dim: isize, keepdim: bool) -> Result<Var> {
        if self.dtype().is_float() {
            return self.detach().neg()?.argmax(dim, keepdim);
        }
        // The negative of the smallest integer is none.
        let first = self.topk(1, dim, false)?.1;
        if keepdim || self.shape().rank() == 0 { Ok(first) } else { first.squeeze(dim) }
    }

    /// The largest elements along `dim` and the index (i64) of the first of each, which gets the whole gradient.
    ///
    /// # Errors
    /// The dimension is empty or out of range.
    pub fn max_dim(&self, dim: isize, keepdim: bool) -> Result<(Var, Var)> {
        self.picked(dim, self.argmax(dim, true)?, keepdim)
    }

    /// As [`Var::max_dim`] for the smallest.
    ///
    /// # Errors
    /// The dimension is empty or out of range.
    pub fn min_dim(&self, dim: isize, keepdim: bool) -> Result<(Var, Var)> {
        self.picked(dim, self.argmin(dim, true)?, keepdim)
    }

    fn picked(&self, dim: isize, index: Var, keepdim: bool) -> Result<(Var, Var)> {
        let values = self.gather(dim, &index)?;
        if keepdim || self.shape().rank() == 0 {
            Ok((values, index))
        } else {
            Ok((values.squeeze(dim)?, index.squeeze(dim)?))
        }
    }

    /// Variance and mean.
    ///
    /// # Errors
    /// A dimension is out of range.
    pub fn var_mean(&self, dims: &[isize], correction: f64, keepdim: bool) -> Result<(Var, Var)> {
        Ok((self.var(dims, correction, keepdim)?, self.mean(dims, keepdim)?))
    }

    /// Running sum. f32 inside autocast.
    ///
    /// # Errors
    /// The dimension is out of range.
    pub fn cumsum(&self, dim: isize) -> Result<Var> {
        apply(Op::Scan { kind: Scan::Sum, dim: self.shape().dim("cumsum", dim)?, reverse: false }, &[self])
    }

    /// Running product. f32 inside autocast.
    ///
    /// # Errors
    /// The dimension is out of range.
    pub fn cumprod(&self, dim: isize) -> Result<Var> {
        apply(Op::Scan { kind: Scan::Prod, dim: self.shape().dim("cumprod", dim)?, reverse: false }, &[self])
    }

    /// `x / max(‖x‖ₚ, eps)` along `dim` (PyTorch: p = 2, dim = 1, eps = 1e-12). f32 inside autocast.
    ///
    /// # Errors
    /// The dimension is out of range.
    pub fn normalize(&self, p: f64, dim: isize, eps: f64) -> Result<Var> {
        composed(Numerics::F32, [self], |[x]| {
            let unit = x.unit(p, dim, eps)?;
            let x = x.div(&unit)?;
            let limit = unit.scalar(Binary::Div, eps, true)?;
            x.div(&x.vector_norm(p, &[dim], true)?.clamp_min(&limit)?)
        })
    }

    /// The power of two that the largest magnitude along `dim`, or `eps`, is measured in. At the ends of the range a
    /// norm leaves it or has few digits, though quotients by it do not.
    pub(super) fn unit(&self, p: f64, dim: isize, eps: f64) -> Result<Var> {
        let at = self.shape().dim("normalize", dim)?;
        // What is counted, and not measured, has no unit.
        if p == 0.0 || self.shape().get(at) == Some(&0) {
            return self.constant_like(1.0);
        }
        let most = if self.dtype() == DType::F64 { 1023.0 } else { 127.0 };
        let largest = self.detach().abs()?.amax(&[dim], true)?.scalar(Binary::Maximum, eps, false)?;
        largest.log2()?.floor()?.scalar(Binary::Minimum, most, false)?.exp2()
    }

    /// `x·y / (max(‖x‖, eps)·max(‖y‖, eps))` along `dim` (PyTorch: dim = 1, eps = 1e-8). f32 inside autocast.
    ///
    /// # Errors
    /// Shapes do not broadcast; the dimension is out of range.
    pub fn cosine_similarity(&self, other: &Var, dim: isize, eps: f64) -> Result<Var> {
        composed(Numerics::F32, [self, other], |[a, b]| {
            a.normalize(2.0, dim, eps)?.mul(&b.normalize(2.0, dim, eps)?)?.sum(&[dim], false)
        })
    }
}
