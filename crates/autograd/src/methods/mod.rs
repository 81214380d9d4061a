//! The operators as methods of [`Var`], under PyTorch's names.

mod attention;
mod conv;
mod ctc;
mod elementwise;
mod index;
mod linalg;
mod loss;
mod random;
mod reduce;
mod resample;

pub use attention::Rotary;
pub use conv::Conv3d;
pub use ctc::Ctc;
pub use loss::KlReduction;

use binade_tensor::op::{
    Attention, Binary, Compare, Conv2d, CrossEntropy, Distribution, Epilogue, Norm, NormKind, Pool, PoolKind, Reduce, Unary, View,
};
use binade_tensor::{Array, Arrays, DType, Dims, Error as TensorError, Op, Shape};

use crate::{Result, Var, apply, apply_all, scope};

macro_rules! unary_methods {
    ($($method:ident, $variant:ident, $name:literal;)*) => {
        /// Elementwise functions of one tensor; see [`Unary`] for the formulas.
        impl Var {$(
            #[doc = concat!("[`Unary::", stringify!($variant), "`], elementwise.\n\n# Errors\nThe dtype is not a float.")]
            pub fn $method(&self) -> Result<Var> {
                apply(Op::Unary(Unary::$variant), &[self])
            }
        )*}
    };
}
binade_tensor::for_each_unary!(unary_methods);

macro_rules! binary_methods {
    ($($method:ident, $variant:ident, $name:literal;)*) => {
        /// Elementwise functions of two tensors, with broadcasting; see [`Binary`].
        impl Var {$(
            #[doc = concat!("[`Binary::", stringify!($variant), "`], elementwise with broadcasting.\n\n# Errors\nShapes do not broadcast.")]
            pub fn $method(&self, other: &Var) -> Result<Var> {
                apply(Op::Binary(Binary::$variant), &[self, other])
            }
        )*}
    };
}
binade_tensor::for_each_binary!(binary_methods);

macro_rules! operators {
    ($($trait:ident, $method:ident;)*) => {$(
        impl std::ops::$trait<&Var> for &Var {
            type Output = Result<Var>;
            fn $method(self, other: &Var) -> Result<Var> {
                Var::$method(self, other)
            }
        }
        impl std::ops::$trait<f64> for &Var {
            type Output = Result<Var>;
            fn $method(self, value: f64) -> Result<Var> {
                self.scalar(scalar_row(stringify!($method)), value, false)
            }
        }
    )*};
}
operators! { Add, add; Sub, sub; Mul, mul; Div, div; }

const fn scalar_row(method: &str) -> Binary {
    match method.as_bytes()[0] {
        b'a' => Binary::Add,
        b's' => Binary::Sub,
        b'm' => Binary::Mul,
        _ => Binary::Div,
    }
}

/// Comparisons and choice.
impl Var {
    /// `f(x, value)`, or `f(value, x)` when `reversed`.
    ///
    /// # Errors
    /// The dtype is not a float.
    pub fn scalar(&self, op: Binary, value: f64, reversed: bool) -> Result<Var> {
        apply(Op::Scalar { op, value, reversed }, &[self])
    }

    /// Elementwise comparison, bool.
    ///
    /// # Errors
    /// Shapes do not broadcast.
    pub fn compare(&self, compare: Compare, other: &Var) -> Result<Var> {
        apply(Op::Compare(compare), &[self, other])
    }

    /// `condition ? self : other`.
    ///
    /// # Errors
    /// The condition is not bool; shapes do not broadcast.
    pub fn where_(&self, condition: &Var, other: &Var) -> Result<Var> {
        apply(Op::Where, &[condition, self, other])
    }
}

/// Reductions. Dimensions may be negative; an empty list means all.
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
}

/// Contractions, f32 accumulation.
impl Var {
    /// `self @ other` in every rank, as PyTorch's matmul: vectors are rows or columns, leading dimensions broadcast.
    ///
    /// # Errors
    /// Inner extents differ; batches do not broadcast.
    pub fn matmul(&self, other: &Var) -> Result<Var> {
        let a = if self.shape().rank() == 1 { self.unsqueeze(0)? } else { self.clone() };
        let b = if other.shape().rank() == 1 { other.unsqueeze(1)? } else { other.clone() };
        let mut out = apply(Op::MatMul(Epilogue::default()), &[&a, &b])?;
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
        let op = Op::MatMul(Epilogue { bias: bias.is_some(), act });
        let y = match bias {
            Some(bias) => apply(op, &[&x, &w, bias])?,
            None => apply(op, &[&x, &w])?,
        };
        if self.shape().rank() == 1 { y.squeeze(0) } else { Ok(y) }
    }

    /// `act(self) @ weightᵀ + bias`, shapes as for [`Var::linear`]: the activation is computed as the product reads it and not written, as where a
    /// hidden layer's result has one use. Under autocast a wider self is rounded before it, as what a product gave is.
    ///
    /// # Errors
    /// Shapes do not fit.
    pub fn linear_of(&self, act: Unary, weight: &Var, bias: Option<&Var>) -> Result<Var> {
        if self.shape().rank() == 1 {
            return self.unsqueeze(0)?.linear_of(act, weight, bias)?.squeeze(0);
        }
        let (w, op) = (weight.transpose(0, 1)?, Op::MatMulOf { act, bias: bias.is_some() });
        match bias {
            Some(bias) => apply(op, &[self, &w, bias]),
            None => apply(op, &[self, &w]),
        }
    }

    /// `act(conv2d(self, weight) + bias)`: self `[N, C, H, W]`, weight `[O, C/groups, KH, KW]`, bias `[O]`.
    ///
    /// # Errors
    /// Shapes do not fit.
    pub fn conv2d(&self, weight: &Var, bias: Option<&Var>, conv: Conv2d, act: Option<Unary>) -> Result<Var> {
        let op = Op::Conv2d(conv, Epilogue { bias: bias.is_some(), act });
        match bias {
            Some(bias) => apply(op, &[self, weight, bias]),
            None => apply(op, &[self, weight]),
        }
    }

    /// Scaled dot-product attention with self as queries `[…, T, D]`, keys `[…, S, D]`, values `[…, S, E]`.
    ///
    /// # Errors
    /// Shapes do not fit.
    pub fn attention(&self, keys: &Var, values: &Var, attention: Attention) -> Result<Var> {
        apply(Op::Attention(attention), &[self, keys, values])
    }
}

/// Pooling, normalisation and losses.
impl Var {
    /// Max pooling of `[N, C, H, W]`.
    ///
    /// # Errors
    /// The window does not fit.
    pub fn max_pool2d(&self, kernel: [usize; 2], stride: [usize; 2], padding: [usize; 2]) -> Result<Var> {
        apply(Op::Pool(Pool::new(PoolKind::Max, kernel, stride, padding)), &[self])
    }

    /// Average pooling of `[N, C, H, W]`; padding counts, as in PyTorch.
    ///
    /// # Errors
    /// The window does not fit.
    pub fn avg_pool2d(&self, kernel: [usize; 2], stride: [usize; 2], padding: [usize; 2]) -> Result<Var> {
        apply(Op::Pool(Pool::new(PoolKind::Avg, kernel, stride, padding)), &[self])
    }

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

    /// Cross-entropy of logits `[N, C, …]` (self) and class indices (i64) `[N, …]`.
    ///
    /// # Errors
    /// Shapes do not fit; a class is out of range.
    pub fn cross_entropy(&self, target: &Var, loss: CrossEntropy) -> Result<Var> {
        apply(Op::CrossEntropy(loss), &[self, target])
    }
}

/// Shapes, dtypes, selection.
impl Var {
    /// Conversion to another dtype, nearest even; the gradient comes back in this tensor's dtype.
    ///
    /// # Errors
    /// Out of memory.
    pub fn cast(&self, dtype: DType) -> Result<Var> {
        if self.dtype() == dtype { Ok(self.clone()) } else { apply(Op::Cast(dtype), &[self]) }
    }

    /// Dimensions in another order, a view.
    ///
    /// # Errors
    /// `axes` is not a permutation.
    pub fn permute(&self, axes: &[isize]) -> Result<Var> {
        let axes = axes.iter().map(|&a| self.shape().dim("permute", a)).collect::<Result<Vec<_>, _>>()?;
        apply(Op::View(View::Permute(Shape::new(&axes)?)), &[self])
    }

    /// Two dimensions exchanged, a view.
    ///
    /// # Errors
    /// A dimension is out of range.
    pub fn transpose(&self, a: isize, b: isize) -> Result<Var> {
        let (a, b) = (self.shape().dim("transpose", a)?, self.shape().dim("transpose", b)?);
        let mut axes: Vec<usize> = (0..self.shape().rank()).collect();
        if !axes.is_empty() {
            axes.swap(a, b);
        }
        apply(Op::View(View::Permute(Shape::new(&axes)?)), &[self])
    }

    /// The same elements in row-major order under another shape: a view where strides allow, else a copy. One extent may be
    /// -1: what is left over.
    ///
    /// # Errors
    /// The number of elements differs.
    pub fn reshape(&self, shape: &[isize]) -> Result<Var> {
        let shape = resolve(self.shape(), shape)?;
        let source = if self.array().layout().reshape(&shape).is_some() { self.clone() } else { apply(Op::Copy, &[self])? };
        apply(Op::View(View::Reshape(shape)), &[&source])
    }

    /// Dimensions from `start` on merged into one.
    ///
    /// # Errors
    /// The dimension is out of range.
    pub fn flatten(&self, start: isize) -> Result<Var> {
        let start = self.shape().dim("flatten", start)?;
        let tail: usize = self.shape()[start..].iter().product();
        let shape: Vec<isize> = self.shape()[..start].iter().map(|&d| d as isize).chain([tail as isize]).collect();
        self.reshape(&shape)
    }

    /// A new dimension of extent 1.
    ///
    /// # Errors
    /// The position is out of range.
    pub fn unsqueeze(&self, dim: usize) -> Result<Var> {
        let mut shape: Vec<usize> = self.shape().to_vec();
        shape.insert(dim.min(shape.len()), 1);
        apply(Op::View(View::Reshape(Shape::new(&shape)?)), &[self])
    }

    /// A dimension of extent 1 removed.
    ///
    /// # Errors
    /// The dimension is out of range or has another extent.
    pub fn squeeze(&self, dim: isize) -> Result<Var> {
        let dim = self.shape().dim("squeeze", dim)?;
        let mut shape: Vec<usize> = self.shape().to_vec();
        if shape.get(dim) == Some(&1) {
            shape.remove(dim);
        }
        apply(Op::View(View::Reshape(Shape::new(&shape)?)), &[self])
    }

    /// `length` elements of `dim` from `start`, a view.
    ///
    /// # Errors
    /// The range is out of bounds.
    pub fn narrow(&self, dim: isize, start: usize, length: usize) -> Result<Var> {
        apply(Op::View(View::Narrow { dim: self.shape().dim("narrow", dim)?, start, length }), &[self])
    }

    /// Broadcast to a shape, a view.
    ///
    /// # Errors
    /// The shape does not broadcast to it.
    pub fn expand(&self, shape: &[usize]) -> Result<Var> {
        apply(Op::View(View::Expand(Shape::new(shape)?)), &[self])
    }

    /// Concatenation along a dimension.
    ///
    /// # Errors
    /// No tensors, or shapes that differ elsewhere.
    pub fn cat(tensors: &[&Var], dim: isize) -> Result<Var> {
        let first = tensors
            .first()
            .ok_or_else(|| TensorError::Argument { op: "cat", message: "at least one tensor is needed".into() })?;
        apply(Op::Cat { dim: first.shape().dim("cat", dim)? }, tensors)
    }

    /// Rows of self `[V, D]` at `index`.
    ///
    /// # Errors
    /// An index is out of range.
    pub fn embedding(&self, index: &Var) -> Result<Var> {
        apply(Op::Embedding, &[self, index])
    }

    /// Dropout in training mode, the identity in evaluation. Draws from the scope's stream.
    ///
    /// # Errors
    /// `p` is outside 0 to 1.
    pub fn dropout(&self, p: f64) -> Result<Var> {
        if !scope::is_training() || p == 0.0 {
            return Ok(self.clone());
        }
        apply(Op::Dropout { p, key: scope::next_key() }, &[self])
    }

    /// Random values from the scope's stream, f32 on the CPU unless a cast rule says otherwise.
    ///
    /// # Errors
    /// The shape is too large.
    pub fn random(distribution: Distribution, shape: &[usize]) -> Result<Var> {
        apply(Op::Random { distribution, shape: Shape::new(shape)?, key: scope::next_key() }, &[])
    }
}

/// The shape asked for, with -1 resolved.
fn resolve(from: &Shape, shape: &[isize]) -> Result<Shape> {
    let known: usize = shape.iter().filter(|&&d| d >= 0).map(|&d| d as usize).product();
    let left = from.numel().checked_div(known).unwrap_or(0);
    let bad = shape.iter().filter(|&&d| d < 0).count() > 1 || shape.iter().any(|&d| d < -1);
    let dims: Vec<usize> = shape.iter().map(|&d| if d < 0 { left } else { d as usize }).collect();
    let out = Shape::new(&dims)?;
    if bad || out.numel() != from.numel() {
        return Err(TensorError::Shape {
            op: "reshape",
            expected: format!("expected as many elements as {shape:?} has"),
            shapes: vec![*from],
        }
        .into());
    }
    Ok(out)
}

impl From<Array> for Var {
    fn from(array: Array) -> Var {
        Var::constant(array)
    }
}
