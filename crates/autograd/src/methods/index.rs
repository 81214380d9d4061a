//! Selection by index.

use binade_tensor::op::{Compare, Numerics, Reduction, Scatter};
use binade_tensor::{Array, Class, DType, Error as TensorError, Op, Shape};

use super::composed;
use super::loss::reduced;
use crate::{Result, Var, apply, apply_all, scope};

/// Selection by index (i64) and by mask. Indices that are out of range are errors; where gradients meet, they add in
/// f32 in order.
impl Var {
    /// Rows of self `[V, D]` at `index`.
    ///
    /// # Errors
    /// An index is out of range.
    pub fn embedding(&self, index: &Var) -> Result<Var> {
        apply(Op::Embedding, &[self, index])
    }

    /// As [`Var::embedding`], where the row `padding` gets no gradient (PyTorch's `padding_idx`).
    ///
    /// # Errors
    /// An index is out of range, or `padding` is.
    pub fn embedding_padded(&self, index: &Var, padding: usize) -> Result<Var> {
        let rows = self.shape().first().copied().unwrap_or(0);
        if padding >= rows {
            return Err(TensorError::IndexOutOfRange {
                op: "embedding",
                index: padding as i64,
                size: rows,
                what: "rows",
            }
            .into());
        }
        let y = self.embedding(index)?;
        let padded = index.compare_scalar(Compare::Eq, padding as f64)?.unsqueeze(index.shape().rank())?;
        y.detach().where_(&padded, &y)
    }

    /// `y[…, i, …] = x[…, index[…, i, …], …]` along `dim`; the index has x's rank and in every other dimension at most
    /// its extent.
    ///
    /// # Errors
    /// Ranks or extents do not fit; an index is out of range.
    pub fn gather(&self, dim: isize, index: &Var) -> Result<Var> {
        apply(Op::Gather { dim: self.shape().dim("gather", dim)? }, &[self, index])
    }

    /// Self with elements of `src` added at `index` along `dim`, equal indices in order.
    ///
    /// # Errors
    /// As [`Var::gather`]; the index is larger than `src`.
    pub fn scatter_add(&self, dim: isize, index: &Var, src: &Var) -> Result<Var> {
        apply(Op::Scatter { kind: Scatter::Add, dim: self.shape().dim("scatter_add", dim)? }, &[self, index, src])
    }

    /// Self with elements set to those of `src` at `index` along `dim`; of equal indices the last wins.
    ///
    /// # Errors
    /// As [`Var::scatter_add`].
    pub fn scatter(&self, dim: isize, index: &Var, src: &Var) -> Result<Var> {
        apply(Op::Scatter { kind: Scatter::Set, dim: self.shape().dim("scatter", dim)? }, &[self, index, src])
    }

    /// The slices of `dim` at the positions of a one-dimensional index.
    ///
    /// # Errors
    /// The index has more dimensions; an index is out of range.
    pub fn index_select(&self, dim: isize, index: &Var) -> Result<Var> {
        let at = self.shape().dim("index_select", dim)?;
        if index.shape().rank() != 1 || self.shape().rank() == 0 {
            let message = format!("takes a tensor with dimensions and an index [n], got shape {:?}", index.shape());
            return Err(TensorError::Argument { op: "index_select", message }.into());
        }
        let n = index.shape()[0];
        let mut shape = self.shape().to_vec();
        let mut column = vec![1isize; shape.len()];
        (shape[at], column[at]) = (n, n as isize);
        self.gather(dim, &index.reshape(&column)?.expand(&shape)?)
    }

    /// `x[i₀, i₁, …]`: index tensors (i64, broadcast against each other, negative from the end) for the leading
    /// dimensions.
    ///
    /// # Errors
    /// More indices than dimensions; indices that do not broadcast or are out of range.
    pub fn index(&self, indices: &[&Var]) -> Result<Var> {
        let (rows, flat) = self.flat_index("index", indices)?;
        let features: usize = self.shape()[indices.len()..].iter().product();
        let picked = self.reshape(&[rows as isize, features as isize])?.embedding(&flat)?;
        let shape: Vec<isize> =
            flat.shape().iter().chain(&self.shape()[indices.len()..]).map(|&d| d as isize).collect();
        picked.reshape(&shape)
    }

    /// Self with `x[i₀, i₁, …]` set to `values`, or increased by them if `accumulate`; values broadcast to the indexed
    /// shape.
    ///
    /// # Errors
    /// As [`Var::index`]; the values do not broadcast.
    pub fn index_put(&self, indices: &[&Var], values: &Var, accumulate: bool) -> Result<Var> {
        let (rows, flat) = self.flat_index("index_put", indices)?;
        let tail = &self.shape()[indices.len()..];
        let features: usize = tail.iter().product();
        let n = flat.shape().numel();
        let shape: Vec<usize> = flat.shape().iter().chain(tail).copied().collect();
        let values = values.expand(&shape)?.reshape(&[n as isize, features as isize])?;
        let index = flat.reshape(&[n as isize, 1])?.expand(&[n, features])?;
        let kind = if accumulate { Scatter::Add } else { Scatter::Set };
        let table = self.reshape(&[rows as isize, features as isize])?;
        let original: Vec<isize> = self.shape().iter().map(|&d| d as isize).collect();
        apply(Op::Scatter { kind, dim: 0 }, &[&table, &index, &values])?.reshape(&original)
    }

    /// Fails unless the dtype is one of those that `holds` takes.
    fn is_of(&self, op: &'static str, rule: &str, holds: impl Fn(DType) -> bool) -> Result<()> {
        if holds(self.dtype()) {
            return Ok(());
        }
        Err(TensorError::Argument { op, message: format!("{rule}, got {}", self.dtype()) }.into())
    }

    /// The extent of the indexed dimensions together, and one index into them.
    fn flat_index(&self, op: &'static str, indices: &[&Var]) -> Result<(usize, Var)> {
        if indices.is_empty() || indices.len() > self.shape().rank() {
            let message =
                format!("takes one index per leading dimension, got {} for {:?}", indices.len(), self.shape());
            return Err(TensorError::Argument { op, message }.into());
        }
        let mut shape = Shape::SCALAR;
        for index in indices {
            index.is_of(op, "indices are i64", |dtype| dtype == DType::I64)?;
            shape = shape.broadcast(index.shape()).ok_or_else(|| TensorError::Shape {
                op,
                expected: "expected index tensors that broadcast".into(),
                shapes: indices.iter().map(|i| *i.shape()).collect(),
            })?;
        }
        let mut flat = vec![0i64; shape.numel()];
        for (index, &extent) in indices.iter().zip(self.shape().iter()) {
            let values = index.expand(&shape)?.array().to_vec::<i64>()?;
            for (flat, value) in flat.iter_mut().zip(values) {
                let n = extent as i64;
                let place = if value < 0 { value + n } else { value };
                if !(0..n).contains(&place) {
                    return Err(
                        TensorError::IndexOutOfRange { op, index: value, size: extent, what: "elements" }.into()
                    );
                }
                *flat = *flat * n + place;
            }
        }
        let rows = self.shape()[..indices.len()].iter().product();
        let device = self.array().device();
        Ok((rows, Var::constant(Array::from_slice(device, &flat, &shape, Class::Indices)?)))
    }

    /// The elements where the mask (bool, of self's shape after broadcasting) is true, in one dimension.
    ///
    /// # Errors
    /// The mask is not bool, or does not broadcast.
    pub fn masked_select(&self, mask: &Var) -> Result<Var> {
        mask.is_of("masked_select", "the mask is bool", |dtype| dtype == DType::Bool)?;
        let shape: Vec<usize> = self.shape().to_vec();
        let hits = mask.expand(&shape)?.array().to_f64_vec()?;
        let places: Vec<i64> = hits.iter().zip(0..).filter(|(hit, _)| **hit != 0.0).map(|(_, i)| i).collect();
        let index = Array::from_slice(self.array().device(), &places, &[places.len()], Class::Indices)?;
        self.reshape(&[-1])?.index_select(0, &Var::constant(index))
    }

    /// Values in sorted order along `dim` and their positions (i64). NaN is larger than any number; equal elements keep
    /// their order.
    ///
    /// # Errors
    /// The dimension is out of range.
    pub fn sort(&self, dim: isize, descending: bool) -> Result<(Var, Var)> {
        let n = self.shape().get(self.shape().dim("sort", dim)?).copied().unwrap_or(1);
        self.sorted("sort", dim, descending, n)
    }

    /// Positions (i64) of the elements in sorted order.
    ///
    /// # Errors
    /// The dimension is out of range.
    pub fn argsort(&self, dim: isize, descending: bool) -> Result<Var> {
        Ok(self.sort(dim, descending)?.1)
    }

    /// The `k` largest (or smallest) elements along `dim`, sorted, and their positions (i64).
    ///
    /// # Errors
    /// There are fewer than `k`.
    pub fn topk(&self, k: usize, dim: isize, largest: bool) -> Result<(Var, Var)> {
        self.sorted("topk", dim, largest, k)
    }

    fn sorted(&self, op: &'static str, dim: isize, descending: bool, length: usize) -> Result<(Var, Var)> {
        let dim = self.shape().dim(op, dim)?;
        let (values, outs) = apply_all(Op::Sort { dim, descending, length }, &[self])?;
        Ok((values, Var::constant(outs[1].clone())))
    }

    /// 1 at each class and 0 elsewhere (i64), in a new last dimension.
    ///
    /// # Errors
    /// The classes are not integers; one is negative or not below `classes`.
    pub fn one_hot(&self, classes: usize) -> Result<Var> {
        self.is_of("one_hot", "classes are integers", |dtype| !dtype.is_float())?;
        if let Some(bad) = self.array().to_f64_vec()?.iter().find(|&&c| c < 0.0 || c >= classes as f64) {
            return Err(TensorError::IndexOutOfRange {
                op: "one_hot",
                index: *bad as i64,
                size: classes,
                what: "classes",
            }
            .into());
        }
        let hit = self.unsqueeze(self.shape().rank())?.compare(Compare::Eq, &self.range(0, classes)?)?;
        hit.cast(DType::I64)
    }

    /// The lower triangle of the last two dimensions up to a diagonal (0 the main one), zeros elsewhere.
    ///
    /// # Errors
    /// Fewer than two dimensions.
    pub fn tril(&self, diagonal: isize) -> Result<Var> {
        self.masked_fill(&self.above("tril", diagonal)?, 0.0)
    }

    /// The upper triangle of the last two dimensions from a diagonal (0 the main one) on, zeros elsewhere.
    ///
    /// # Errors
    /// Fewer than two dimensions.
    pub fn triu(&self, diagonal: isize) -> Result<Var> {
        self.masked_fill(&self.above("triu", diagonal.saturating_sub(1))?.logical_not()?, 0.0)
    }

    /// [`Var::arange`], where this tensor is.
    pub(super) fn range(&self, start: i64, length: usize) -> Result<Var> {
        scope::with_device(self.array().device(), || Var::arange(start, length))
    }

    /// Where the column lies beyond the row by more than `diagonal`.
    fn above(&self, op: &'static str, diagonal: isize) -> Result<Var> {
        let rank = self.shape().rank();
        if rank < 2 {
            let message = format!("takes at least two dimensions, got {:?}", self.shape());
            return Err(TensorError::Argument { op, message }.into());
        }
        let (rows, columns) = (self.shape()[rank - 2], self.shape()[rank - 1]);
        // Diagonals beyond the corners are all the same.
        let diagonal = diagonal.clamp(-(rows as isize) - 1, columns as isize);
        let rows = self.range(diagonal as i64, rows)?.reshape(&[-1, 1])?;
        self.range(0, columns)?.compare(Compare::Gt, &rows)
    }

    /// Likelihood of classes (i64 `[N, …]`) under log-probabilities (self, `[N, C, …]`): `−weight[t]·x[t]`, the mean
    /// divided by the sum of weights. Targets equal to `ignore_index` (PyTorch: −100) count for nothing. f32 inside
    /// autocast.
    ///
    /// # Errors
    /// Shapes do not fit; a class is out of range.
    pub fn nll_loss(&self, target: &Var, weight: Option<&Var>, ignore_index: i64, reduction: Reduction) -> Result<Var> {
        let rank = self.shape().rank();
        if rank < 2 || target.shape().rank() + 1 != rank {
            let shapes = vec![*self.shape(), *target.shape()];
            let expected = "expected log-probabilities [N, C, …] and classes [N, …]".into();
            return Err(TensorError::Shape { op: "nll_loss", expected, shapes }.into());
        }
        let one = self.constant_like(1.0)?;
        composed(Numerics::F32, [self, weight.unwrap_or(&one)], |[x, w]| {
            x.likelihood(target, weight.map(|_| w), ignore_index, reduction)
        })
    }

    fn likelihood(&self, target: &Var, weight: Option<&Var>, ignore_index: i64, reduction: Reduction) -> Result<Var> {
        // Of i64, as targets are: f64 does not tell large integers apart.
        let device = target.array().device();
        let ignored = Var::constant(match ignore_index as f64 {
            exact if exact as i64 == ignore_index && exact.abs() < i64::MAX as f64 => {
                Array::full(device, DType::I64, Shape::SCALAR, exact, Class::Indices)?
            }
            _ => Array::from_slice(device, &[ignore_index], &[], Class::Indices)?,
        });
        let counts = target.compare(Compare::Ne, &ignored)?;
        // An ignored target may be no class at all: class 0 stands in for it.
        let zeros = Var::constant(Array::full(device, DType::I64, *target.shape(), 0.0, Class::Indices)?);
        let safe = zeros.scatter_where(target, &counts)?;
        let picked = self.gather(1, &safe.unsqueeze(1)?)?.squeeze(1)?.neg()?;
        let share = match weight {
            Some(weight) => weight.index(&[&safe])?,
            None => picked.full_like(&[], 1.0)?,
        };
        let share = share.where_(&counts, &picked.constant_like(0.0)?)?;
        let each = picked.where_(&counts, &picked.constant_like(0.0)?)?.mul(&share)?;
        if reduction == Reduction::Mean {
            return each.sum(&[], false)?.div(&share.expand(each.shape())?.sum(&[], false)?);
        }
        reduced(&each, reduction)
    }

    /// Integers: `other` where the mask holds, else self.
    fn scatter_where(&self, other: &Var, mask: &Var) -> Result<Var> {
        other.where_(mask, self)
    }
}
