//! [`Op::outs`]: shape, dtype and layout of every output, and every shape and dtype error.

use smallvec::{SmallVec, smallvec};

use super::check::Check;
use super::{Distribution, Epilogue, NormKind, Op, Reduce, Reduction, Saved, Scatter};
use crate::{DType, Dims, Error, Layout, Meta, Result, Shape};

/// Metas of the outputs.
pub type Outs = SmallVec<[Meta; 1]>;

impl Op {
    /// Shape, dtype and layout of every output for the given inputs. Float outputs have dtype `want`, statistics f32
    /// (f64 for f64), indices i64.
    ///
    /// # Errors
    /// [`Error::Shape`], [`Error::DType`] or [`Error::Argument`], naming the operator, for inputs it does not take.
    pub fn outs(&self, ins: &[Meta], want: DType) -> Result<Outs> {
        super::settings::check(self)?;
        let check = Check { op: self.name(), ins };
        let float = |layout: Layout| Meta { dtype: want, layout };
        let dense = |shape: Shape| float(Layout::contiguous(shape));
        let like = |i: usize| float(ins[i].layout.like(*ins[i].shape()));
        // Of elements that are only moved.
        let moved = |layout: Layout| -> Result<Meta> {
            Ok(Meta { dtype: check.moved((0..ins.len()).filter(|&i| self.moves(i)), want)?, layout })
        };
        let stats = |shape: Shape| Meta { dtype: stats_dtype(ins), layout: Layout::contiguous(shape) };
        Ok(match self {
            Op::Unary(_) | Op::Scalar { .. } | Op::Dropout { .. } => {
                check.count(1)?;
                check.floats(0..1)?;
                if let Op::Dropout { p, .. } = self
                    && !(0.0..=1.0).contains(p)
                {
                    return check.argument(format!("p must lie in 0 to 1, got {p}"));
                }
                // Draws are keyed by memory position: row-major, so that the same element draws the same whatever the
                // layout.
                if matches!(self, Op::Dropout { .. }) { smallvec![dense(*ins[0].shape())] } else { smallvec![like(0)] }
            }
            Op::Binary(_) => {
                check.count(2)?;
                check.floats(0..2)?;
                smallvec![float(check.broadcast(0..2)?)]
            }
            Op::Compare(_) => {
                check.count(2)?;
                smallvec![Meta { dtype: DType::Bool, layout: check.broadcast(0..2)? }]
            }
            Op::Where => {
                check.count(3)?;
                check.dtype(0, &[DType::Bool])?;
                smallvec![moved(check.broadcast(0..3)?)?]
            }
            Op::Reduce { dims, keepdim, kind } => {
                check.count(1)?;
                check.floats(0..1)?;
                let rank = ins[0].shape().rank();
                if let Some(dim) = dims.iter().find(|&d| d >= rank) {
                    return Err(Error::DimOutOfRange { op: check.op, dim: dim as isize, rank });
                }
                let n = dims.count(ins[0].shape());
                let extreme = match kind {
                    Reduce::Max | Reduce::Min => true,
                    Reduce::Norm { p } => *p < 0.0 || *p == f64::INFINITY,
                    Reduce::Sum | Reduce::Mean | Reduce::Prod | Reduce::LogSumExp => false,
                    Reduce::Var { .. } | Reduce::Std { .. } => false,
                };
                if n == 0 && extreme {
                    return check.argument(
                        "the largest of no elements does not exist; reduce over a dimension that is not empty".into(),
                    );
                }
                smallvec![dense(dims.reduce(ins[0].shape(), *keepdim))]
            }
            Op::Scan { dim, .. } => {
                check.count(1)?;
                check.floats(0..1)?;
                if ins[0].shape().rank() > 0 {
                    check.dim(0, *dim)?;
                }
                smallvec![like(0)]
            }
            Op::Sort { dim, length, .. } => {
                check.count(1)?;
                let mut shape = *ins[0].shape();
                let n = if shape.rank() == 0 { 1 } else { shape[check.dim(0, *dim)?] };
                if *length > n {
                    return check.argument(format!("{length} elements wanted of {n}"));
                }
                if let Some(extent) = shape.get_mut(*dim) {
                    *extent = *length;
                }
                let layout = Layout::contiguous(shape);
                smallvec![moved(layout)?, Meta { dtype: DType::I64, layout }]
            }
            Op::Gather { dim } => {
                check.count(2)?;
                check.dtype(1, &[DType::I64])?;
                check.along(*dim, ins[0].shape(), ins[1].shape())?;
                smallvec![moved(Layout::contiguous(*ins[1].shape()))?]
            }
            Op::Scatter { dim, kind } => {
                check.count(3)?;
                if *kind == Scatter::Add {
                    check.floats(0..1)?;
                    check.floats(2..3)?;
                }
                check.dtype(1, &[DType::I64])?;
                check.along(*dim, ins[0].shape(), ins[1].shape())?;
                let (index, src) = (ins[1].shape(), ins[2].shape());
                if index.rank() != src.rank() || index.iter().zip(src.iter()).any(|(i, s)| i > s) {
                    return check.shape("an index no larger than src");
                }
                smallvec![moved(Layout::contiguous(*ins[0].shape()))?]
            }
            Op::ArgMax { dim, keepdim } => {
                check.count(1)?;
                let dims = if ins[0].shape().rank() == 0 { Dims::all(0) } else { Dims::one(check.dim(0, *dim)?) };
                if dims.count(ins[0].shape()) == 0 {
                    return check.argument(
                        "the largest of no elements does not exist; use a dimension that is not empty".into(),
                    );
                }
                smallvec![Meta { dtype: DType::I64, layout: Layout::contiguous(dims.reduce(ins[0].shape(), *keepdim)) }]
            }
            Op::MatMul(epilogue) => {
                check.count(2 + epilogue.bias as usize)?;
                check.floats(0..ins.len())?;
                let shape = check.matmul(epilogue.bias)?;
                with_preactivation(epilogue, dense(shape))
            }
            Op::MatMulOf { bias, .. } => Op::MatMul(Epilogue { bias: *bias, act: None }).outs(ins, want)?,
            Op::Conv2d(conv, epilogue) => {
                check.count(2 + epilogue.bias as usize)?;
                check.floats(0..ins.len())?;
                let shape = check.conv2d(conv, epilogue.bias)?;
                with_preactivation(epilogue, float(Layout::channels_last(shape)))
            }
            Op::ConvTranspose2d { conv, output_padding, bias } => {
                check.count(2 + *bias as usize)?;
                check.floats(0..ins.len())?;
                smallvec![float(Layout::channels_last(check.conv_transpose2d(conv, output_padding, *bias)?))]
            }
            Op::Pool(pool) => {
                check.count(1)?;
                check.floats(0..1)?;
                let shape = check.pool(pool)?;
                smallvec![float(ins[0].layout.like(shape))]
            }
            Op::Softmax { dim, .. } => {
                check.count(1)?;
                check.floats(0..1)?;
                if ins[0].shape().rank() > 0 {
                    check.dim(0, *dim)?;
                }
                smallvec![like(0)]
            }
            Op::Norm(norm) => {
                let given = matches!(norm.kind, NormKind::Fixed);
                check.count(1 + norm.weights() + 2 * given as usize)?;
                check.floats(0..ins.len())?;
                let groups = check.norm(norm, &ins[1..])?;
                let statistics = stats(Shape::from_slice(&[groups]));
                match norm.kind {
                    NormKind::Layer { .. } | NormKind::Rms { .. } | NormKind::Group { .. } => {
                        smallvec![like(0), statistics, statistics]
                    }
                    NormKind::Batch => smallvec![like(0), statistics, statistics, statistics],
                    NormKind::Fixed => smallvec![like(0)],
                }
            }
            Op::CrossEntropy(loss) => {
                check.count(2)?;
                check.floats(0..1)?;
                let each = check.cross_entropy(loss)?;
                let shape = if loss.reduction == Reduction::None { each } else { Shape::SCALAR };
                smallvec![dense(shape)]
            }
            Op::Ternary { .. } => {
                check.count(3)?;
                check.floats(0..3)?;
                smallvec![float(check.broadcast(0..3)?)]
            }
            Op::Resample(map) => {
                check.count(1)?;
                if !map.is_exact() {
                    check.floats(0..1)?;
                }
                smallvec![moved(ins[0].layout.like(map.shape(ins[0].shape())?))?]
            }
            Op::Loss { reduction, .. } => {
                check.count(2)?;
                check.floats(0..2)?;
                check.same_shape(0, 1)?;
                smallvec![dense(if *reduction == Reduction::None { *ins[0].shape() } else { Shape::SCALAR })]
            }
            Op::Attention(attention) => {
                check.count(3 + attention.mask as usize)?;
                check.floats(0..3)?;
                if !(0.0..1.0).contains(&attention.dropout) {
                    return check.argument(format!("dropout must lie in 0 to 1, got {}", attention.dropout));
                }
                let (out, lse) = check.attention(ins.get(3))?;
                // Then the result, with its heads side by side, is a view of it.
                let inside = ins[0].layout.order()[..] == [0, 2, 1, 3];
                let layout = if inside { Layout::with_order(out, &[0, 2, 1, 3]) } else { Layout::contiguous(out) };
                smallvec![float(layout), stats(lse)]
            }
            Op::Embedding => {
                check.count(2)?;
                check.dtype(1, &[DType::I64, DType::U32])?;
                if ins[0].shape().rank() != 2 || ins[1].shape().rank() + 1 > crate::MAX_RANK {
                    return check.shape("a weight [rows, features] and indices of any shape");
                }
                let mut shape = *ins[1].shape();
                shape.push(ins[0].shape()[1]);
                smallvec![moved(Layout::contiguous(shape))?]
            }
            Op::Cat { dim } => {
                if ins.is_empty() {
                    return check.argument("at least one tensor is needed".into());
                }
                let dim = check.dim(0, *dim)?;
                let mut shape = *ins[0].shape();
                shape[dim] = 0;
                for meta in ins {
                    let mut other = *meta.shape();
                    if other.rank() == shape.rank() {
                        let extent = std::mem::replace(&mut other[dim], shape[dim]);
                        if other == shape {
                            let Some(sum) = shape[dim].checked_add(extent) else {
                                return check.shape("extents whose sum is a number of elements");
                            };
                            shape[dim] = sum;
                            continue;
                        }
                    }
                    return check.shape("shapes that differ in the concatenated dimension only");
                }
                smallvec![moved(ins[0].layout.like(shape))?]
            }
            Op::Random { distribution: Distribution::Permutation, shape, .. } => {
                check.count(0)?;
                if shape.rank() != 1 {
                    return check.argument(format!("a permutation has one dimension, got shape {shape:?}"));
                }
                smallvec![Meta { dtype: DType::I64, layout: Layout::contiguous(*shape) }]
            }
            Op::Random { distribution: Distribution::Uniform { .. } | Distribution::Normal { .. }, shape, .. }
            | Op::Fill { shape, .. } => {
                check.count(0)?;
                if matches!(self, Op::Random { .. }) && !want.is_float() {
                    return Err(Error::DType { op: check.op, expected: "a float dtype".into(), dtypes: vec![want] });
                }
                smallvec![dense(*shape)]
            }
            Op::Range { length, .. } => {
                check.count(0)?;
                smallvec![Meta { dtype: DType::I64, layout: Layout::contiguous(Shape::from_slice(&[*length])) }]
            }
            Op::Cast(dtype) => {
                check.count(1)?;
                smallvec![Meta { dtype: *dtype, layout: ins[0].layout.like(*ins[0].shape()) }]
            }
            Op::StochasticCast { dtype, .. } => {
                check.count(1)?;
                check.floats(0..1)?;
                if !dtype.is_half() {
                    return Err(Error::DType {
                        op: check.op,
                        expected: "f16 or bf16 as target".into(),
                        dtypes: vec![*dtype],
                    });
                }
                smallvec![Meta { dtype: *dtype, layout: Layout::contiguous(*ins[0].shape()) }]
            }
            Op::Copy => {
                check.count(1)?;
                smallvec![Meta { dtype: ins[0].dtype, layout: Layout::contiguous(*ins[0].shape()) }]
            }
            Op::View(view) => {
                check.count(1)?;
                smallvec![Meta { dtype: ins[0].dtype, layout: check.view(view)? }]
            }
            Op::Custom(custom) => {
                let shapes: Vec<Shape> = ins.iter().map(|m| *m.shape()).collect();
                custom.shapes(&shapes)?.into_iter().map(dense).collect()
            }
            Op::Backward(backward) => backward.outs(&check, want)?,
        })
    }
}

/// Statistics are f32, or f64 where the input is.
fn stats_dtype(ins: &[Meta]) -> DType {
    if ins[0].dtype == DType::F64 { DType::F64 } else { DType::F32 }
}

/// The output, and the value before the activation where the activation's derivative needs it.
fn with_preactivation(epilogue: &Epilogue, out: Meta) -> Outs {
    match epilogue.act {
        Some(act) if act.saved() == Saved::Input => smallvec![out, out],
        Some(_) | None => smallvec![out],
    }
}
