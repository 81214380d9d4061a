//! Flips, shifts, padding, interpolation and adaptive pooling (see [`Resample`]).

use binade_tensor::op::{Interpolation, PadMode, Resample};
use binade_tensor::{Dims, Error as TensorError, Op, Shape};

use crate::{Result, Var, apply};

/// Linear maps of each dimension by itself.
impl Var {
    /// The elements of some dimensions in reverse order.
    ///
    /// # Errors
    /// A dimension is out of range or given twice.
    pub fn flip(&self, dims: &[isize]) -> Result<Var> {
        if dims.is_empty() {
            return Ok(self.clone());
        }
        apply(Op::Resample(Resample::Flip(Dims::new("flip", self.shape(), dims)?)), &[self])
    }

    /// Elements moved by `shifts` places along `dims`, those beyond the end to the start. Without dimensions the tensor
    /// is rolled as if it were flat, by the one shift.
    ///
    /// # Errors
    /// Not one shift per dimension; a dimension out of range.
    pub fn roll(&self, shifts: &[isize], dims: &[isize]) -> Result<Var> {
        if dims.is_empty() && shifts.len() == 1 {
            let shape: Vec<isize> = self.shape().iter().map(|&d| d as isize).collect();
            return self.reshape(&[-1])?.roll(shifts, &[0])?.reshape(&shape);
        }
        if shifts.len() != dims.len() {
            let message = format!("takes one shift per dimension, got {} for {}", shifts.len(), dims.len());
            return Err(TensorError::Argument { op: "roll", message }.into());
        }
        let mut places = Shape::new(&vec![0; self.shape().rank()])?;
        for (&shift, &dim) in shifts.iter().zip(dims) {
            let d = self.shape().dim("roll", dim)?;
            let n = self.shape().get(d).copied().unwrap_or(1).max(1);
            if let Some(place) = places.get_mut(d) {
                *place = (*place + shift.rem_euclid(n as isize) as usize) % n;
            }
        }
        apply(Op::Resample(Resample::Roll(places)), &[self])
    }

    /// Padding as `torch.nn.functional.pad`: pairs (before, after) from the last dimension backwards; negative counts
    /// cut off.
    ///
    /// # Errors
    /// An odd number of counts, more than the dimensions; a mode that takes more elements than there are.
    pub fn pad(&self, counts: &[isize], mode: PadMode) -> Result<Var> {
        let rank = self.shape().rank();
        if !counts.len().is_multiple_of(2) || counts.len() > 2 * rank {
            let message = format!("takes pairs of counts for at most {rank} dimensions, got {} counts", counts.len());
            return Err(TensorError::Argument { op: "pad", message }.into());
        }
        let mut x = self.clone();
        let (mut before, mut after) = (vec![0; rank], vec![0; rank]);
        for (i, pair) in counts.chunks(2).enumerate() {
            let d = rank - 1 - i;
            let (cut_front, cut_back) = (pair[0].min(0).unsigned_abs(), pair[1].min(0).unsigned_abs());
            let cut = cut_front.saturating_add(cut_back);
            (before[d], after[d]) = (pair[0].max(0) as usize, pair[1].max(0) as usize);
            if cut > 0 {
                let n = x.shape()[d];
                let Some(length) = n.checked_sub(cut) else {
                    let message = format!("cuts {cut} of {n} elements in dimension {d}");
                    return Err(TensorError::Argument { op: "pad", message }.into());
                };
                x = x.narrow(d as isize, cut_front, length)?;
            }
        }
        if before.iter().chain(&after).all(|&n| n == 0) {
            return Ok(x);
        }
        let map = Resample::Pad { before: Shape::new(&before)?, after: Shape::new(&after)?, mode };
        apply(Op::Resample(map), &[&x])
    }

    /// Spatial dimensions of `[N, C, …]` (one to three) at another size, as `interpolate(size = …)`. f32 inside
    /// autocast.
    ///
    /// # Errors
    /// Not one extent per spatial dimension.
    pub fn interpolate(&self, size: &[usize], mode: Interpolation) -> Result<Var> {
        let map = Resample::Interpolate { size: self.spatial("interpolate", size)?, mode, scale: None };
        apply(Op::Resample(map), &[self])
    }

    /// As [`Var::interpolate`] by factors: extents are multiplied and rounded down, positions use the given factors.
    ///
    /// # Errors
    /// Not one positive factor per spatial dimension.
    pub fn interpolate_by(&self, factors: &[f64], mode: Interpolation) -> Result<Var> {
        let extents: Vec<usize> =
            self.shape().iter().skip(2).zip(factors).map(|(&n, f)| (n as f64 * f) as usize).collect();
        if factors.len() + 2 != self.shape().rank() || !factors.iter().all(|f| f.is_finite() && *f > 0.0) {
            let message = format!("takes one positive factor per spatial dimension, got {factors:?}");
            return Err(TensorError::Argument { op: "interpolate", message }.into());
        }
        let mut scale = [1.0; 3];
        scale[..factors.len()].copy_from_slice(factors);
        let map = Resample::Interpolate { size: self.spatial("interpolate", &extents)?, mode, scale: Some(scale) };
        apply(Op::Resample(map), &[self])
    }

    /// Means over nearly equal windows of the spatial dimensions of `[N, C, …]`: PyTorch's adaptive average pooling in
    /// one to three dimensions.
    ///
    /// # Errors
    /// Not one extent per spatial dimension.
    pub fn adaptive_avg_pool(&self, size: &[usize]) -> Result<Var> {
        apply(Op::Resample(Resample::AdaptiveAvg { size: self.spatial("adaptive_avg_pool", size)? }), &[self])
    }

    fn spatial(&self, op: &'static str, size: &[usize]) -> Result<[usize; 3]> {
        if size.is_empty() || size.len() > 3 || size.len() + 2 != self.shape().rank() {
            let message =
                format!("takes one extent per spatial dimension of [N, C, …], got {size:?} for {:?}", self.shape());
            return Err(TensorError::Argument { op, message }.into());
        }
        let mut all = [1; 3];
        all[..size.len()].copy_from_slice(size);
        Ok(all)
    }
}
