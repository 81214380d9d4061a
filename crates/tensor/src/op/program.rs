//! [`Program`]: operators applied one after the other, as data; and [`Builder`], which writes one.

use smallvec::SmallVec;

use super::{Binary, Compare, MatMul, Op, Reduce, Unary, View};
use crate::{DType, Dims, Layout, Meta, Result, Shape};

/// A straight-line program over tensors: the definition of a fused operator in primitives (see [`Op::compose`]).
#[derive(Clone, Debug, PartialEq)]
pub struct Program {
    steps: Vec<Step>,
    outputs: SmallVec<[Value; 3]>,
}

/// A tensor of a program: an input, or the first output of a step, counted in that order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Value(usize);

#[derive(Clone, Debug, PartialEq)]
struct Step {
    op: Op,
    ins: SmallVec<[Value; 3]>,
    want: DType,
}

impl Program {
    /// Runs the steps on `inputs`; `run(op, ins, want)` gives the first output of an operator with floats in `want`.
    ///
    /// # Errors
    /// As `run`.
    pub fn run<V: Clone, E>(
        &self,
        inputs: &[V],
        mut run: impl FnMut(&Op, &[&V], DType) -> std::result::Result<V, E>,
    ) -> std::result::Result<SmallVec<[V; 3]>, E> {
        let mut values: Vec<V> = inputs.to_vec();
        for step in &self.steps {
            let value = {
                let ins: SmallVec<[&V; 3]> = step.ins.iter().map(|v| &values[v.0]).collect();
                run(&step.op, &ins, step.want)?
            };
            values.push(value);
        }
        Ok(self.outputs.iter().map(|v| values[v.0].clone()).collect())
    }

    /// The operators in order.
    pub fn ops(&self) -> impl Iterator<Item = &Op> {
        self.steps.iter().map(|step| &step.op)
    }
}

/// Writes a [`Program`] and knows shape and dtype of every value. Floats are computed in one dtype, the widest
/// computing type among the inputs, so that a definition rounds as rarely as the kernel it defines.
#[derive(Clone, Debug)]
pub struct Builder {
    metas: Vec<Meta>,
    steps: Vec<Step>,
    want: DType,
}

impl Builder {
    /// For inputs of these shapes and dtypes.
    pub fn new(inputs: &[Meta]) -> Builder {
        let wide = inputs.iter().any(|m| m.dtype == DType::F64);
        Builder { metas: inputs.to_vec(), steps: Vec::new(), want: if wide { DType::F64 } else { DType::F32 } }
    }

    /// The program with these results.
    pub fn finish(self, outputs: &[Value]) -> Program {
        Program { steps: self.steps, outputs: outputs.iter().copied().collect() }
    }

    /// Input `i`.
    pub fn input(&self, i: usize) -> Value {
        Value(i)
    }

    /// Shape of a value.
    pub fn shape(&self, v: Value) -> Shape {
        *self.metas[v.0].shape()
    }

    /// Dtype of a value.
    pub fn dtype(&self, v: Value) -> DType {
        self.metas[v.0].dtype
    }

    /// Appends an operator.
    ///
    /// # Errors
    /// As [`Op::outs`].
    pub fn op(&mut self, op: Op, ins: &[Value]) -> Result<Value> {
        let metas: SmallVec<[Meta; 3]> = ins.iter().map(|v| self.metas[v.0]).collect();
        let out = op.outs(&metas, self.want)?[0];
        self.metas.push(out);
        self.steps.push(Step { op, ins: ins.iter().copied().collect(), want: self.want });
        Ok(Value(self.metas.len() - 1))
    }

    /// A unary function.
    ///
    /// # Errors
    /// As [`Op::outs`], for this and the following methods.
    pub fn unary(&mut self, row: Unary, x: Value) -> Result<Value> {
        self.op(Op::Unary(row), &[x])
    }

    /// A binary function, with broadcasting.
    ///
    /// # Errors
    /// Shapes do not broadcast.
    pub fn binary(&mut self, row: Binary, a: Value, b: Value) -> Result<Value> {
        self.op(Op::Binary(row), &[a, b])
    }

    /// `f(x, value)`.
    ///
    /// # Errors
    /// As [`Op::outs`].
    pub fn scalar(&mut self, op: Binary, x: Value, value: f64) -> Result<Value> {
        self.op(Op::Scalar { op, value, reversed: false }, &[x])
    }

    /// A constant.
    ///
    /// # Errors
    /// As [`Op::outs`].
    pub fn fill(&mut self, value: f64, shape: Shape) -> Result<Value> {
        self.op(Op::Fill { value, shape }, &[])
    }

    /// A comparison.
    ///
    /// # Errors
    /// Shapes do not broadcast.
    pub fn compare(&mut self, row: Compare, a: Value, b: Value) -> Result<Value> {
        self.op(Op::Compare(row), &[a, b])
    }

    /// `condition ? a : b`.
    ///
    /// # Errors
    /// Shapes do not broadcast.
    pub fn select(&mut self, condition: Value, a: Value, b: Value) -> Result<Value> {
        self.op(Op::Where, &[condition, a, b])
    }

    /// A reduction that keeps its dimensions.
    ///
    /// # Errors
    /// As [`Op::outs`].
    pub fn reduce(&mut self, kind: Reduce, x: Value, dims: Dims) -> Result<Value> {
        self.op(Op::Reduce { kind, dims, keepdim: true }, &[x])
    }

    /// `a @ b`.
    ///
    /// # Errors
    /// Shapes do not fit.
    pub fn matmul(&mut self, a: Value, b: Value) -> Result<Value> {
        self.op(Op::MatMul(MatMul::default()), &[a, b])
    }

    /// Another shape.
    ///
    /// # Errors
    /// Another number of elements.
    pub fn reshape(&mut self, x: Value, shape: Shape) -> Result<Value> {
        if self.shape(x) == shape {
            return Ok(x);
        }
        // Layouts at run time may differ from those known here, so strided values are always copied.
        let dense =
            if self.metas[x.0].layout.is_contiguous() && x.0 >= self.inputs() { x } else { self.op(Op::Copy, &[x])? };
        self.op(Op::View(View::Reshape(shape)), &[dense])
    }

    fn inputs(&self) -> usize {
        self.metas.len() - self.steps.len()
    }

    /// The last two dimensions exchanged.
    ///
    /// # Errors
    /// Fewer than two dimensions.
    pub fn transpose(&mut self, x: Value) -> Result<Value> {
        let rank = self.shape(x).rank();
        let mut axes: Vec<usize> = (0..rank).collect();
        if rank >= 2 {
            axes.swap(rank - 2, rank - 1);
        }
        self.op(Op::View(View::Permute(Shape::from_slice(&axes))), &[x])
    }

    /// The value in a dtype.
    ///
    /// # Errors
    /// As [`Op::outs`].
    pub fn cast(&mut self, x: Value, dtype: DType) -> Result<Value> {
        if self.dtype(x) == dtype { Ok(x) } else { self.op(Op::Cast(dtype), &[x]) }
    }

    /// A vector `[C]` in the shape `[1, C, 1, …]` of a tensor of `rank` dimensions.
    ///
    /// # Errors
    /// As [`Builder::reshape`].
    pub fn per_channel(&mut self, x: Value, rank: usize) -> Result<Value> {
        let mut shape = vec![1; rank];
        shape[1] = self.shape(x).numel();
        self.reshape(x, Shape::from_slice(&shape))
    }

    /// The layout a value would have in row-major order.
    pub fn dense(&self, v: Value) -> Meta {
        Meta { dtype: self.dtype(v), layout: Layout::contiguous(self.shape(v)) }
    }
}
