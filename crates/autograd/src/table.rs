//! The backward table: for every operator, what is saved and the gradient of each input. Exhaustive: an operator without a row
//! does not compile.

use std::sync::Arc;

use binade_tensor::op::{
    Backward, Binary, Builder, Conv2d, Distribution, Epilogue, NormKind, PadMode, PoolKind, Reduce, Resample, Saved, Scan,
    Scatter, Unary, View,
};
use binade_tensor::{DType, Device, Dims, Layout, Meta, Op, Shape};
use smallvec::{SmallVec, smallvec};

use crate::value::Value;
use crate::{Error, Result};

/// Gradients of the inputs, in order; `None` where not needed.
pub(crate) type Grads<V> = SmallVec<[Option<V>; 2]>;

/// Saved inputs and outputs, in order; `None` where not saved.
pub(crate) type Values<V> = SmallVec<[Option<V>; 2]>;

/// Which inputs and outputs the gradient needs, one bit each.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Saves {
    inputs: u16,
    outputs: u16,
}

impl Saves {
    const NONE: Saves = Saves { inputs: 0, outputs: 0 };

    fn inputs(indices: &[usize]) -> Saves {
        Saves { inputs: indices.iter().map(|i| 1 << i).sum(), outputs: 0 }
    }

    fn and_outputs(self, indices: &[usize]) -> Saves {
        Saves { outputs: indices.iter().map(|i| 1 << i).sum(), ..self }
    }

    pub(crate) fn input(self, i: usize) -> bool {
        i < 16 && self.inputs >> i & 1 == 1
    }

    pub(crate) fn output(self, i: usize) -> bool {
        i < 16 && self.outputs >> i & 1 == 1
    }
}

/// Why an operator has no gradient; `None` if it has one.
pub(crate) fn reason_not_differentiable(op: &Op) -> Option<&'static str> {
    match op {
        Op::Scan { .. } | Op::Gather { .. } | Op::Scatter { .. } | Op::Sort { .. } | Op::ConvTranspose2d { .. } => None,
        Op::Custom(_) => None,
        Op::Compare(_) => Some("a comparison is constant almost everywhere"),
        Op::ArgMax { .. } => Some("an index is not a differentiable value"),
        Op::Random {
            distribution: Distribution::Uniform { .. } | Distribution::Normal { .. } | Distribution::Permutation,
            ..
        } => Some("random values depend on no input"),
        Op::Fill { .. } | Op::Range { .. } => Some("a constant depends on no input"),
        Op::Backward(_) => None,
        Op::Unary(_) | Op::Binary(_) | Op::Scalar { .. } | Op::Where | Op::Reduce { .. } => None,
        Op::MatMul(_) | Op::MatMulOf { .. } | Op::Conv2d(..) => None,
        Op::Pool(_) | Op::Softmax { .. } | Op::Norm(_) | Op::CrossEntropy(_) | Op::Attention(_) | Op::Embedding => None,
        Op::Loss { .. } | Op::Ternary { .. } | Op::Resample(_) => None,
        Op::Cat { .. } | Op::Dropout { .. } | Op::Cast(_) | Op::StochasticCast { .. } | Op::Copy | Op::View(_) => None,
    }
}

/// What the gradient needs, given which inputs need one. The second operand of a product is saved only for the first's sake.
pub(crate) fn saves(op: &Op, needs: &[bool]) -> Saves {
    let unary = |saved: Saved| match saved {
        Saved::Input => Saves::inputs(&[0]),
        Saved::Output => Saves::NONE.and_outputs(&[0]),
        Saved::Nothing => Saves::NONE,
    };
    let product = || match (needs[0], needs[1]) {
        (true, true) => Saves::inputs(&[0, 1]),
        (true, false) => Saves::inputs(&[1]),
        (false, true) => Saves::inputs(&[0]),
        (false, false) => Saves::NONE,
    };
    let contraction = |epilogue: &Epilogue| match epilogue.act.map(|act| act.saved()) {
        Some(Saved::Output) => product().and_outputs(&[0]),
        // The bias (which lives anyway) completes the definition that second-order gradients go through.
        Some(Saved::Input) => Saves { inputs: product().inputs | (epilogue.bias as u16) << 2, outputs: 0b10 },
        Some(Saved::Nothing) | None => product(),
    };
    match op {
        Op::Unary(row) => unary(row.saved()),
        Op::Binary(Binary::Add | Binary::Sub) => Saves::NONE,
        Op::Binary(Binary::Mul) => product(),
        Op::Binary(Binary::Div) if !needs[1] => Saves::inputs(&[1]),
        // Slopes of a limited or powered value depend on both operands.
        Op::Binary(_) => Saves::inputs(&[0, 1]),
        Op::Scalar { op: Binary::Add | Binary::Sub | Binary::Mul, .. } | Op::Scalar { op: Binary::Div, reversed: false, .. } => {
            Saves::NONE
        }
        Op::Scalar { .. } => Saves::inputs(&[0]),
        Op::Where => Saves::inputs(&[0]),
        Op::Reduce { kind: Reduce::Sum | Reduce::Mean, .. } => Saves::NONE,
        Op::Reduce { .. } => Saves::inputs(&[0]).and_outputs(&[0]),
        Op::MatMul(epilogue) | Op::Conv2d(_, epilogue) => contraction(epilogue),
        Op::ConvTranspose2d { .. } => product(),
        // The slope needs the argument too.
        Op::MatMulOf { .. } if needs[0] => Saves::inputs(&[0, 1]),
        Op::MatMulOf { .. } => product(),
        // The gradient finds the largest again: an output that was only copied or flattened need not wait for it.
        Op::Pool(pool) if pool.kind == PoolKind::Max => Saves::inputs(&[0]),
        Op::Pool(_) => Saves::NONE,
        Op::Softmax { .. } => Saves::NONE.and_outputs(&[0]),
        // x, weights (which live anyway) and statistics; an activation's argument is computed again from them.
        Op::Norm(norm) => Saves { inputs: u16::MAX, outputs: if norm.kind == NormKind::Fixed { 0 } else { 0b110 } },
        Op::Scan { kind: Scan::Sum, .. } => Saves::NONE,
        Op::Scan { kind: Scan::Prod, .. } => Saves::inputs(&[0]),
        Op::Gather { .. } | Op::Scatter { .. } => Saves::inputs(&[1]),
        Op::Sort { .. } => Saves::NONE.and_outputs(&[1]),
        Op::CrossEntropy(_) => Saves::inputs(&[0, 1]),
        Op::Loss { .. } => Saves::inputs(&[0, 1]),
        Op::Ternary { .. } => Saves::inputs(&[0, 1, 2]),
        Op::Resample(_) => Saves::NONE,
        Op::Attention(_) => Saves::inputs(&[0, 1, 2, 3]).and_outputs(&[0, 1]),
        Op::Embedding => Saves::inputs(&[1]),
        Op::Cat { .. } | Op::Dropout { .. } | Op::Cast(_) | Op::StochasticCast { .. } | Op::Copy | Op::View(_) => Saves::NONE,
        Op::Custom(_) => Saves { inputs: u16::MAX, outputs: 1 },
        // Through their definition, which needs all inputs.
        Op::Backward(_) => Saves { inputs: u16::MAX, outputs: 0 },
        Op::Compare(_) | Op::ArgMax { .. } | Op::Random { .. } | Op::Fill { .. } | Op::Range { .. } => Saves::NONE,
    }
}

/// How a first output is computed again.
pub(crate) struct Recipe {
    pub(crate) op: Op,
    /// Inputs and outputs of the operator, numbered as saved values.
    pub(crate) operands: SmallVec<[usize; 5]>,
    /// Whether what was computed first saw an operand before it was rounded.
    pub(crate) unrounded: bool,
}

/// How the first output of an operator with so many inputs is computed again by one elementwise pass over values that its gradient saves
/// (or that are computed again themselves): then whoever needs the output saves nothing. `None` where nothing is gained, and for a sum, whose
/// gradient saves nothing: see [`crate::saved::addends`].
pub(crate) fn again(op: &Op, inputs: usize) -> Option<Recipe> {
    let recipe = |op: Op, operands: SmallVec<[usize; 5]>| Some(Recipe { op, operands, unrounded: false });
    match op {
        Op::Unary(row) if row.saved() == Saved::Input => recipe(op.clone(), smallvec![0]),
        Op::Binary(Binary::Mul) => recipe(op.clone(), smallvec![0, 1]),
        Op::MatMul(epilogue) | Op::Conv2d(_, epilogue) => {
            let act = epilogue.act.filter(|act| act.saved() == Saved::Input)?;
            Some(Recipe { op: Op::Unary(act), operands: smallvec![inputs + 1], unrounded: true })
        }
        Op::Norm(norm) if norm.kind == NormKind::Fixed => recipe(op.clone(), (0..inputs).collect()),
        Op::Norm(norm) => recipe(Op::Backward(Backward::Renormalise(*norm)), (0..inputs + 3).filter(|i| *i != inputs).collect()),
        Op::Cast(_) | Op::Copy | Op::View(_) => recipe(op.clone(), smallvec![0]),
        Op::Unary(_)
        | Op::Binary(_)
        | Op::Scalar { .. }
        | Op::Compare(_)
        | Op::Where
        | Op::Reduce { .. }
        | Op::ArgMax { .. }
        | Op::Scan { .. }
        | Op::Gather { .. }
        | Op::Scatter { .. }
        | Op::Sort { .. }
        | Op::MatMulOf { .. }
        | Op::ConvTranspose2d { .. }
        | Op::Pool(_)
        | Op::Softmax { .. }
        | Op::CrossEntropy(_)
        | Op::Loss { .. }
        | Op::Ternary { .. }
        | Op::Resample(_)
        | Op::Attention(_)
        | Op::Embedding
        | Op::Cat { .. }
        | Op::Dropout { .. }
        | Op::Random { .. }
        | Op::Fill { .. }
        | Op::Range { .. }
        | Op::StochasticCast { .. }
        | Op::Custom(_)
        | Op::Backward(_) => None,
    }
}

/// What a gradient is computed from.
pub(crate) struct Context<'a, V> {
    op: &'a Op,
    path: &'a Arc<str>,
    metas: &'a [Meta],
    needs: SmallVec<[bool; 4]>,
    values: Values<V>,
    /// In place of the first input, where it is an activation of a value.
    activated: Option<(Unary, V)>,
    device: &'a Device,
}

impl<'a, V: Value> Context<'a, V> {
    pub(crate) fn new(
        op: &'a Op,
        path: &'a Arc<str>,
        metas: &'a [Meta],
        needs: SmallVec<[bool; 4]>,
        values: Values<V>,
        activated: Option<(Unary, V)>,
        device: &'a Device,
    ) -> Context<'a, V> {
        Context { op, path, metas, needs, values, activated, device }
    }

    /// A saved input.
    fn input(&self, i: usize) -> Result<&V> {
        self.values.get(i).and_then(Option::as_ref).ok_or(Error::Released { op: self.op.name(), path: self.path.clone() })
    }

    /// A saved output.
    fn output(&self, i: usize) -> Result<&V> {
        self.input(self.metas.len() + i)
    }

    fn dtype(&self, i: usize) -> DType {
        self.metas[i].dtype
    }

    fn shape(&self, i: usize) -> &'a Shape {
        &self.metas[i].layout.shape
    }

    fn run(&self, op: Op, ins: &[&V], want: DType) -> Result<V> {
        V::run(op, ins, self.device, want)
    }

    /// As [`Context::run`], where the gradient `g` may give its memory to the result.
    fn run_over(&self, op: Op, g: V, kept: &[&V], want: DType) -> Result<V> {
        V::run_over(op, smallvec![g], kept, self.device, want)
    }

    fn view(&self, value: &V, view: View) -> Result<V> {
        self.run(Op::View(view), &[value], value.array().dtype())
    }

    fn cast(&self, value: V, dtype: DType) -> Result<V> {
        if value.array().dtype() == dtype { Ok(value) } else { self.run(Op::Cast(dtype), &[&value], dtype) }
    }

    /// A copy in row-major order, if the value is not.
    fn contiguous(&self, value: &V) -> Result<V> {
        let array = value.array();
        if array.layout().is_contiguous() { Ok(value.clone()) } else { self.run(Op::Copy, &[value], array.dtype()) }
    }

    /// A constant.
    fn full(&self, dtype: DType, shape: Shape, value: f64) -> Result<V> {
        self.run(Op::Fill { value, shape }, &[], dtype)
    }

    /// `g` in the shape and dtype of input `i`: broadcast dimensions are summed, in f32.
    fn fit(&self, g: V, i: usize) -> Result<V> {
        let (shape, dtype) = (self.shape(i), self.dtype(i));
        if g.shape() == shape {
            return self.cast(g, dtype);
        }
        let lead = g.shape().rank() - shape.rank();
        let mut dims: Option<Dims> = None;
        for d in 0..g.shape().rank() {
            if d < lead || shape[d - lead] == 1 && g.shape()[d] != 1 {
                dims = Some(dims.map_or(Dims::one(d), |dims| dims.with(d)));
            }
        }
        let summed = match dims {
            Some(dims) => self.run(Op::Reduce { kind: Reduce::Sum, dims, keepdim: true }, &[&g], dtype)?,
            None => self.cast(g, dtype)?,
        };
        self.view(&summed, View::Reshape(*shape))
    }

    /// The gradient in front of an epilogue's activation, for which alone an output was saved.
    fn before_act(&mut self, epilogue: &Epilogue, g: V) -> Result<V> {
        let Some(act) = epilogue.act else { return Ok(g) };
        let dtype = g.dtype();
        let output = match act.saved() {
            Saved::Output => 0,
            Saved::Input => 1,
            Saved::Nothing => return self.run(Op::Backward(Backward::Unary(act)), &[&g, &g], dtype),
        };
        let before = self.run_over(Op::Backward(Backward::Unary(act)), g, &[self.output(output)?], dtype)?;
        self.release(self.metas.len() + output);
        Ok(before)
    }

    /// Gives up a saved input or output that has served: its memory is there for the gradients still to come.
    fn release(&mut self, i: usize) {
        if let Some(value) = self.values.get_mut(i) {
            *value = None;
        }
        if i == 0 {
            self.activated = None;
        }
    }

    /// The gradients of a contraction's two operands, that of the smaller one first: it is all that reads the larger one, whose own gradient can then
    /// take the memory.
    fn contraction(
        &mut self,
        first: impl Fn(&Self) -> Result<V>,
        mut second: impl FnMut(&Self) -> Result<V>,
    ) -> Result<Grads<V>> {
        let mut grads: Grads<V> = smallvec![None, None];
        let larger = usize::from(self.shape(0).numel() < self.shape(1).numel());
        for i in [1 - larger, larger] {
            if self.needs[i] {
                grads[i] = Some(if i == 0 { first(self)? } else { second(self)? });
            }
            self.release(1 - i);
        }
        Ok(grads)
    }
}

/// The gradient of each input that needs one, in the input's dtype (of a cast perhaps a narrower one).
pub(crate) fn gradients<V: Value>(op: &Op, c: &mut Context<'_, V>, g: V) -> Result<Grads<V>> {
    // Evaluated only if input i needs a gradient.
    let needs = c.needs.clone();
    let when = |i: usize, f: &dyn Fn() -> Result<V>| -> Result<Option<V>> { if needs[i] { f().map(Some) } else { Ok(None) } };
    Ok(match op {
        Op::Unary(row) => {
            let op = Op::Backward(Backward::Unary(*row));
            smallvec![Some(match row.saved() {
                Saved::Input => c.run_over(op, g, &[c.input(0)?], c.dtype(0))?,
                Saved::Output => c.run_over(op, g, &[c.output(0)?], c.dtype(0))?,
                Saved::Nothing => c.run(op, &[&g, &g], c.dtype(0))?,
            })]
        }
        Op::Binary(row) => {
            let partial = |i: usize, g: V| -> Result<V> {
                let rhs = i == 1;
                let (dtype, wide) = (g.dtype(), if g.shape() == c.shape(i) { c.dtype(i) } else { c.dtype(i).accum() });
                let product = match (row, rhs) {
                    (Binary::Add, _) | (Binary::Sub, false) => g,
                    (Binary::Sub, true) => c.run_over(Op::Unary(Unary::Neg), g, &[], dtype)?,
                    (Binary::Mul, _) => c.run_over(Op::Binary(Binary::Mul), g, &[c.input(1 - i)?], wide)?,
                    (Binary::Div, false) => c.run_over(Op::Binary(Binary::Div), g, &[c.input(1)?], wide)?,
                    (Binary::Fmod, false) => g,
                    _ => {
                        let op = Op::Backward(Backward::Binary { op: *row, rhs });
                        c.run_over(op, g, &[c.input(0)?, c.input(1)?], wide)?
                    }
                };
                c.fit(product, i)
            };
            // The last operand has the gradient for itself, unless something else keeps it.
            match (c.needs[0], c.needs[1]) {
                (true, true) => smallvec![Some(partial(0, g.clone())?), Some(partial(1, g)?)],
                (true, false) => smallvec![Some(partial(0, g)?), None],
                (false, true) => smallvec![None, Some(partial(1, g)?)],
                (false, false) => smallvec![None, None],
            }
        }
        Op::Scalar { op: row, value, reversed } => {
            let (value, reversed) = (*value, *reversed);
            let times = |op: Binary| Op::Scalar { op, value, reversed: false };
            let grad = match (row, reversed) {
                (Binary::Add, _) | (Binary::Sub, false) => c.cast(g, c.dtype(0))?,
                (Binary::Sub, true) => c.run_over(Op::Unary(Unary::Neg), g, &[], c.dtype(0))?,
                (Binary::Mul, _) => c.run_over(times(Binary::Mul), g, &[], c.dtype(0))?,
                (Binary::Div, false) => c.run_over(times(Binary::Div), g, &[], c.dtype(0))?,
                _ => c.run_over(Op::Backward(Backward::Scalar { op: *row, value, reversed }), g, &[c.input(0)?], c.dtype(0))?,
            };
            smallvec![Some(grad)]
        }
        Op::Where => {
            let zero = c.full(g.dtype(), Shape::SCALAR, 0.0)?;
            let pick = |i: usize| -> Result<V> {
                let (a, b) = if i == 1 { (&g, &zero) } else { (&zero, &g) };
                c.fit(c.run(Op::Where, &[c.input(0)?, a, b], g.dtype())?, i)
            };
            smallvec![None, when(1, &|| pick(1))?, when(2, &|| pick(2))?]
        }
        Op::Reduce { kind, dims, .. } => {
            let shape = c.shape(0);
            let kept = dims.reduce(shape, true);
            let g = c.view(&g, View::Reshape(kept))?;
            let grad = match kind {
                Reduce::Sum => c.view(&c.cast(g, c.dtype(0))?, View::Expand(*shape))?,
                Reduce::Mean => {
                    let n = dims.count(shape) as f64;
                    let share = c.run(Op::Scalar { op: Binary::Div, value: n, reversed: false }, &[&g], c.dtype(0))?;
                    c.view(&share, View::Expand(*shape))?
                }
                Reduce::Max
                | Reduce::Min
                | Reduce::Var { .. }
                | Reduce::Std { .. }
                | Reduce::Prod
                | Reduce::LogSumExp
                | Reduce::Norm { .. } => {
                    let y = c.view(c.output(0)?, View::Reshape(kept))?;
                    c.run(Op::Backward(Backward::Reduce { kind: *kind, dims: *dims }), &[&g, &y, c.input(0)?], c.dtype(0))?
                }
            };
            smallvec![Some(grad)]
        }
        Op::Scan { kind: Scan::Sum, dim, reverse } => {
            smallvec![Some(c.run(Op::Scan { kind: Scan::Sum, dim: *dim, reverse: !reverse }, &[&g], c.dtype(0))?)]
        }
        Op::Scan { kind: Scan::Prod, dim, reverse } => {
            // The reverse product is the product of the reversed tensor.
            let turn = |v: &V| -> Result<V> {
                if !reverse || v.shape().rank() == 0 {
                    return Ok(v.clone());
                }
                c.run(Op::Resample(Resample::Flip(Dims::one(*dim))), &[v], v.dtype())
            };
            let dx = c.run(Op::Backward(Backward::CumProd { dim: *dim }), &[&turn(&g)?, &turn(c.input(0)?)?], c.dtype(0))?;
            smallvec![Some(turn(&dx)?)]
        }
        Op::Gather { dim } => {
            let op = Op::Backward(Backward::Gather { dim: *dim, shape: *c.shape(0) });
            smallvec![Some(c.run(op, &[&g, c.input(1)?], c.dtype(0))?), None]
        }
        Op::Scatter { kind, dim } => {
            let index = c.input(1)?;
            let kept = || match kind {
                Scatter::Add => c.cast(g.clone(), c.dtype(0)),
                Scatter::Set => {
                    let zeros = c.full(g.dtype(), *index.shape(), 0.0)?;
                    c.run(Op::Scatter { kind: Scatter::Set, dim: *dim }, &[&g, index, &zeros], c.dtype(0))
                }
            };
            // Of src only the part that the index covers was used.
            let taken = || {
                let mut part = c.run(Op::Gather { dim: *dim }, &[&g, index], c.dtype(2))?;
                for d in 0..index.shape().rank() {
                    if part.shape()[d] != c.shape(2)[d] {
                        let mut shape = *part.shape();
                        shape[d] = c.shape(2)[d];
                        part = c.run(Op::Backward(Backward::Narrow { dim: d, start: 0, shape }), &[&part], c.dtype(2))?;
                    }
                }
                Ok(part)
            };
            smallvec![when(0, &kept)?, None, when(2, &taken)?]
        }
        Op::Sort { dim, .. } => {
            let op = Op::Backward(Backward::Gather { dim: *dim, shape: *c.shape(0) });
            smallvec![Some(c.run(op, &[&g, c.output(1)?], c.dtype(0))?)]
        }
        Op::MatMul(epilogue) => {
            let g = c.before_act(epilogue, g)?;
            linear(c, &g, None, epilogue.bias)?
        }
        Op::MatMulOf { act, bias } => linear(c, &g, Some(*act), *bias)?,
        Op::Conv2d(conv, epilogue) => {
            let g = c.before_act(epilogue, g)?;
            // Recorded, each is an operator of its own, which has a gradient.
            let alike = c.metas[1..].iter().all(|w| w.dtype == c.dtype(1));
            if !V::RECORDED && conv.is_depthwise(c.shape(1)) && alike && c.needs.iter().all(|need| *need) {
                let op = Op::Backward(Backward::Depthwise { conv: *conv, bias: epilogue.bias });
                let outs = V::run_all(op, &[&g, c.input(0)?, c.input(1)?], c.device, c.dtype(0))?;
                return Ok(outs.into_iter().map(Some).collect());
            }
            let input = Op::Backward(Backward::Conv2dInput { conv: *conv, shape: *c.shape(0) });
            let weight = Op::Backward(Backward::Conv2dWeight { conv: *conv, shape: *c.shape(1) });
            let dx = |c: &Context<'_, V>| c.run(input.clone(), &[&g, c.input(1)?], c.dtype(0));
            let dw = |c: &Context<'_, V>| c.run(weight.clone(), &[&g, c.input(0)?], c.dtype(1));
            let pixels = Dims::one(0).with(2).with(3);
            let mut grads = c.contraction(dx, dw)?;
            if epilogue.bias {
                grads
                    .push(when(2, &|| c.run(Op::Reduce { kind: Reduce::Sum, dims: pixels, keepdim: false }, &[&g], c.dtype(2)))?);
            }
            grads
        }
        Op::ConvTranspose2d { conv, bias, .. } => {
            let weight = Op::Backward(Backward::Conv2dWeight { conv: *conv, shape: *c.shape(1) });
            let dx = |c: &Context<'_, V>| c.run(Op::Conv2d(*conv, Epilogue::default()), &[&g, c.input(1)?], c.dtype(0));
            let dw = |c: &Context<'_, V>| c.run(weight.clone(), &[c.input(0)?, &g], c.dtype(1));
            let pixels = Dims::one(0).with(2).with(3);
            let mut grads = c.contraction(dx, dw)?;
            if *bias {
                grads
                    .push(when(2, &|| c.run(Op::Reduce { kind: Reduce::Sum, dims: pixels, keepdim: false }, &[&g], c.dtype(2)))?);
            }
            grads
        }
        Op::Pool(pool) => {
            let op = Op::Backward(Backward::Pool { pool: *pool, shape: *c.shape(0) });
            smallvec![Some(match pool.kind {
                PoolKind::Max => c.run(op, &[&g, c.input(0)?], c.dtype(0))?,
                PoolKind::Avg => c.run(op, &[&g], c.dtype(0))?,
            })]
        }
        Op::Softmax { dim, log } => {
            smallvec![Some(c.run(Op::Backward(Backward::Softmax { dim: *dim, log: *log }), &[&g, c.output(0)?], c.dtype(0))?)]
        }
        Op::Norm(norm) => {
            let mut ins: SmallVec<[&V; 6]> = smallvec![&g];
            for i in 0..=norm.weights_of_gradient() {
                ins.push(c.input(i)?);
            }
            match norm.kind {
                NormKind::Fixed => ins.extend([c.input(1 + norm.weights())?, c.input(2 + norm.weights())?]),
                NormKind::Layer { .. } | NormKind::Rms { .. } | NormKind::Group { .. } | NormKind::Batch => {
                    ins.extend([c.output(1)?, c.output(2)?]);
                }
            }
            let outs = V::run_all(Op::Backward(Backward::Norm(*norm)), &ins, c.device, c.dtype(0))?;
            let mut grads: Grads<V> = outs.into_iter().zip(&c.needs).map(|(a, need)| need.then_some(a)).collect();
            grads.resize(c.metas.len(), None);
            grads
        }
        Op::CrossEntropy(loss) => {
            let op = Op::Backward(Backward::CrossEntropy(*loss));
            smallvec![Some(c.run(op, &[&g, c.input(0)?, c.input(1)?], c.dtype(0))?), None]
        }
        Op::Loss { loss, parameter, reduction } => {
            let slope = |i: usize| {
                let backward = Backward::Loss { loss: *loss, parameter: *parameter, reduction: *reduction, target: i == 1 };
                c.run(Op::Backward(backward), &[&g, c.input(0)?, c.input(1)?], c.dtype(i))
            };
            smallvec![when(0, &|| slope(0))?, when(1, &|| slope(1))?]
        }
        Op::Ternary { op, value } => {
            let partial = |i: usize| {
                let op = Op::Backward(Backward::Ternary { op: *op, value: *value, operand: i });
                let wide = if g.shape() == c.shape(i) { c.dtype(i) } else { c.dtype(i).accum() };
                c.fit(c.run(op, &[&g, c.input(0)?, c.input(1)?, c.input(2)?], wide)?, i)
            };
            smallvec![when(0, &|| partial(0))?, when(1, &|| partial(1))?, when(2, &|| partial(2))?]
        }
        Op::Resample(map) => {
            let op = Op::Backward(Backward::Resample { map: *map, shape: *c.shape(0) });
            smallvec![Some(c.run(op, &[&g], c.dtype(0))?)]
        }
        Op::Attention(attention) => {
            if attention.mask && c.needs[3] {
                let reason = "the mask's own gradient needs all scores; Var::attention_masked writes them out for such a mask";
                return Err(Error::NotDifferentiable { op: op.name(), path: c.path.clone(), reason });
            }
            let mut ins: SmallVec<[&V; 7]> = smallvec![&g, c.input(0)?, c.input(1)?, c.input(2)?, c.output(0)?, c.output(1)?];
            if attention.mask {
                ins.push(c.input(3)?);
            }
            let backward = |joined: bool| Op::Backward(Backward::Attention { attention: *attention, joined });
            let alike = c.dtype(1) == c.dtype(0) && c.dtype(2) == c.dtype(0) && c.needs[..3] == [true; 3];
            let outs: SmallVec<[V; 3]> = match parts_of_one(c.input(0)?.layout(), c.input(1)?.layout(), c.input(2)?.layout()) {
                // The gradient of the tensor they are parts of, which then need not be put together.
                Some(layout) if alike && !V::RECORDED => {
                    let all = V::run_laid_out(backward(true), &ins, c.device, Meta { dtype: c.dtype(0), layout })?;
                    (0..3)
                        .map(|start| {
                            c.view(&c.view(&all, View::Narrow { dim: 0, start, length: 1 })?, View::Reshape(*c.shape(start)))
                        })
                        .collect::<Result<_>>()?
                }
                Some(_) | None => V::run_all(backward(false), &ins, c.device, c.dtype(0))?,
            };
            let masked = attention.mask.then_some(None);
            outs.into_iter()
                .enumerate()
                .map(|(i, a)| when(i, &|| c.cast(a.clone(), c.dtype(i))))
                .chain(masked.map(Ok))
                .collect::<Result<_>>()?
        }
        Op::Embedding => {
            let op = Op::Backward(Backward::Embedding { rows: c.shape(0)[0] });
            smallvec![Some(c.run(op, &[&g, c.input(1)?], c.dtype(0))?), None]
        }
        Op::Cat { dim } => {
            let mut start = 0;
            let mut grads = Grads::<V>::new();
            for i in 0..c.metas.len() {
                let length = c.shape(i)[*dim];
                let part = || c.cast(c.view(&g, View::Narrow { dim: *dim, start, length })?, c.dtype(i));
                grads.push(when(i, &part)?);
                start += length;
            }
            grads
        }
        Op::Dropout { .. } => smallvec![Some(c.run_over(op.clone(), g, &[], c.dtype(0))?)],
        // Rounding has slope 1 on average: the gradient passes through. The walk widens what a wider tensor needs, once, after it
        // has added the gradients of all uses.
        Op::Cast(_) | Op::StochasticCast { .. } | Op::Copy => {
            let widens = g.dtype().is_half() && !c.dtype(0).is_half();
            smallvec![Some(if widens { g } else { c.cast(g, c.dtype(0))? })]
        }
        Op::View(view) => smallvec![Some(match view {
            View::Permute(axes) => c.view(&g, View::Permute(inverse(axes)))?,
            View::Reshape(_) => {
                let g = if g.layout().reshape(c.shape(0)).is_some() { g } else { c.contiguous(&g)? };
                c.view(&g, View::Reshape(*c.shape(0)))?
            }
            View::Narrow { dim, start, .. } => {
                c.run(Op::Backward(Backward::Narrow { dim: *dim, start: *start, shape: *c.shape(0) }), &[&g], c.dtype(0))?
            }
            View::Expand(_) => c.fit(g, 0)?,
        })],
        Op::Custom(custom) => {
            let mut values = vec![g.clone()];
            for i in 0..c.metas.len() {
                values.push(c.input(i)?.clone());
            }
            values.push(c.output(0)?.clone());
            let metas: Vec<Meta> = values.iter().map(|v| v.array().meta()).collect();
            let mut builder = Builder::new(&metas);
            let ins: Vec<_> = (0..c.metas.len()).map(|i| builder.input(i + 1)).collect();
            let (upstream, out) = (builder.input(0), builder.input(metas.len() - 1));
            let wanted = custom.backward(&mut builder, upstream, &ins, out)?;
            let program = builder.finish(&wanted.iter().flatten().copied().collect::<Vec<_>>());
            let mut found = program.run(&values, |op, ins, want| c.run(op.clone(), ins, want))?.into_iter();
            let mut grads = Grads::<V>::new();
            for i in 0..c.metas.len() {
                let gradient = if wanted.get(i).is_some_and(Option::is_some) { found.next() } else { None };
                grads.push(match gradient {
                    Some(gradient) if c.needs[i] => Some(c.fit(gradient, i)?),
                    Some(_) | None => None,
                });
            }
            grads
        }
        Op::Backward(backward) => return adjoint(backward, c, &g),
        Op::Compare(_) | Op::ArgMax { .. } | Op::Random { .. } | Op::Fill { .. } | Op::Range { .. } => {
            let reason = reason_not_differentiable(op).unwrap_or("it has no gradient");
            return Err(Error::NotDifferentiable { op: op.name(), path: c.path.clone(), reason });
        }
    })
}

/// The gradients of backward kernels that are linear in each input: the kernels of a convolution are each other's adjoints.
/// The others go through their definition in primitives.
fn adjoint<V: Value>(backward: &Backward, c: &Context<'_, V>, g: &V) -> Result<Grads<V>> {
    let when = |i: usize, f: &dyn Fn() -> Result<V>| if c.needs[i] { f().map(Some) } else { Ok(None) };
    let plain = |conv: &Conv2d| Op::Conv2d(*conv, Epilogue::default());
    Ok(match backward {
        Backward::Conv2dInput { conv, .. } => {
            let weight = Op::Backward(Backward::Conv2dWeight { conv: *conv, shape: *c.shape(1) });
            smallvec![
                when(0, &|| c.run(plain(conv), &[g, c.input(1)?], c.dtype(0)))?,
                when(1, &|| c.run(weight.clone(), &[c.input(0)?, g], c.dtype(1)))?
            ]
        }
        Backward::Conv2dWeight { conv, .. } => {
            let input = Op::Backward(Backward::Conv2dInput { conv: *conv, shape: *c.shape(1) });
            smallvec![
                when(0, &|| c.run(plain(conv), &[c.input(1)?, g], c.dtype(0)))?,
                when(1, &|| c.run(input.clone(), &[c.input(0)?, g], c.dtype(1)))?
            ]
        }
        Backward::Pool { pool, .. } if pool.kind == PoolKind::Avg => smallvec![Some(c.run(Op::Pool(*pool), &[g], c.dtype(0))?)],
        // Which element was largest does not change with x.
        Backward::Pool { pool, .. } => {
            let op = Op::Backward(Backward::PoolSelect { pool: *pool, shape: *c.shape(0) });
            smallvec![Some(c.run(op, &[g, c.input(1)?], c.dtype(0))?), None]
        }
        Backward::PoolSelect { pool, .. } => {
            let op = Op::Backward(Backward::Pool { pool: *pool, shape: *c.shape(0) });
            smallvec![Some(c.run(op, &[g, c.input(1)?], c.dtype(0))?), None]
        }
        // The constant of a padding has no part in a gradient.
        Backward::Resample { map, .. } => {
            let map = match *map {
                Resample::Pad { before, after, mode: PadMode::Constant(_) } => {
                    Resample::Pad { before, after, mode: PadMode::Constant(0.0) }
                }
                map => map,
            };
            smallvec![Some(c.run(Op::Resample(map), &[g], c.dtype(0))?)]
        }
        Backward::Gather { dim, .. } => {
            smallvec![Some(c.run(Op::Gather { dim: *dim }, &[g, c.input(1)?], c.dtype(0))?), None]
        }
        Backward::Embedding { .. } => smallvec![Some(c.run(Op::Embedding, &[g, c.input(1)?], c.dtype(0))?), None],
        Backward::Narrow { dim, start, .. } => {
            smallvec![Some(c.view(g, View::Narrow { dim: *dim, start: *start, length: c.shape(0)[*dim] })?)]
        }
        Backward::Unary(_)
        | Backward::Binary { .. }
        | Backward::Scalar { .. }
        | Backward::Reduce { .. }
        | Backward::CumProd { .. }
        | Backward::Softmax { .. }
        | Backward::Depthwise { .. }
        | Backward::MatMulOf { .. }
        | Backward::Norm(_)
        | Backward::Renormalise(_)
        | Backward::CrossEntropy(_)
        | Backward::Loss { .. }
        | Backward::Ternary { .. }
        | Backward::Attention { .. } => {
            let reason = "it is differentiated through its definition, which needs all inputs";
            return Err(Error::NotDifferentiable { op: c.op.name(), path: c.path.clone(), reason });
        }
    })
}

/// The layout of three tensors of one shape that are cut from one as a tensor of them, `[3, …]`, if they are all of it and lie in it evenly.
fn parts_of_one(q: &Layout, k: &Layout, v: &Layout) -> Option<Layout> {
    let step = k.offset.checked_sub(q.offset)?;
    let even = v.offset.checked_sub(k.offset) == Some(step);
    if !even || [k, v].iter().any(|x| x.shape != q.shape || x.strides != q.strides) || q.strides.last() != Some(&1) {
        return None;
    }
    let with = |first: usize, rest: &Shape| Shape::new(&[&[first], &rest[..]].concat()).ok();
    let layout = Layout { shape: with(3, &q.shape)?, strides: with(step, &q.strides)?, offset: 0 };
    layout.is_dense().then_some(layout)
}

/// The permutation that undoes another.
pub(crate) fn inverse(axes: &Shape) -> Shape {
    let mut inverse = *axes;
    axes.iter().enumerate().for_each(|(i, &a)| inverse[a] = i);
    inverse
}

/// The array with its last two dimensions exchanged.
fn transposed<V: Value>(c: &Context<'_, V>, array: &V) -> Result<V> {
    let rank = array.shape().rank();
    let mut axes: SmallVec<[usize; 8]> = (0..rank).collect();
    axes.swap(rank - 2, rank - 1);
    c.view(array, View::Permute(Shape::new(&axes)?))
}

/// `g·bᵀ`, batch dimensions of a that were broadcast summed.
fn matmul_lhs<V: Value>(c: &Context<'_, V>, g: &V) -> Result<V> {
    let b = transposed(c, c.input(1)?)?;
    let want = if g.shape().rank() == c.shape(0).rank() { c.dtype(0) } else { c.dtype(0).accum() };
    let product = c.run(Op::MatMul(Epilogue::default()), &[g, &b], want)?;
    c.fit(product, 0)
}

/// The gradients of a product's operands, of which the left one is perhaps an activation `of` what is given, and of its bias.
fn linear<V: Value>(c: &mut Context<'_, V>, g: &V, of: Option<Unary>, bias: bool) -> Result<Grads<V>> {
    let wants_sums = bias && c.needs[2];
    let mut sums = None;
    let mut dw = |c: &Context<'_, V>| {
        let (dw, with) = matmul_rhs(c, g, of, wants_sums)?;
        sums = with;
        Ok(dw)
    };
    let mut grads = match of {
        None => c.contraction(|c| matmul_lhs(c, g), dw)?,
        // The argument is read for both gradients.
        Some(act) => {
            let dx = || c.run_over(Op::Backward(Backward::Unary(act)), matmul_lhs(c, g)?, &[c.input(0)?], c.dtype(0));
            let dx = if c.needs[0] { Some(dx()?) } else { None };
            smallvec![dx, if c.needs[1] { Some(dw(c)?) } else { None }]
        }
    };
    if bias {
        grads.push(if wants_sums && sums.is_none() { Some(c.fit(g.clone(), 2)?) } else { sums });
    }
    Ok(grads)
}

/// `aᵀ·g`, or `f(a)ᵀ·g`. A weight shared by all batches takes one product over the flattened batch. Where that packs g row by row, and `sums` asks for them,
/// the sums of g for the bias as well.
fn matmul_rhs<V: Value>(c: &Context<'_, V>, g: &V, of: Option<Unary>, sums: bool) -> Result<(V, Option<V>)> {
    let strides = &c.metas[1].layout.strides;
    // b is a transposed weight: its gradient in the weight's own memory order needs no copy later.
    let turned = c.shape(1).rank() == 2 && strides[0] < strides[1] && g.numel() > 0;
    // A second output has no history.
    let sums = sums && !V::RECORDED && c.dtype(1) == c.dtype(2);
    let activated = match of {
        Some(act) => Some((act, c.input(0)?.clone())),
        None => c.activated.clone(),
    };
    let (a, act) = match &activated {
        Some((act, x)) if turned => (x.clone(), Some(*act)),
        Some((act, x)) => (c.run(Op::Unary(*act), &[x], c.dtype(0))?, None),
        None => (c.input(0)?.clone(), None),
    };
    let a = &a;
    let flat = |x: &V| -> Result<V> {
        let last = x.shape()[x.shape().rank() - 1];
        let shape = Shape::new(&[x.numel() / last.max(1), last])?;
        let x = if x.layout().reshape(&shape).is_some() { x.clone() } else { c.contiguous(x)? };
        c.view(&x, View::Reshape(shape))
    };
    if c.shape(1).rank() == 2 && g.numel() > 0 && a.numel() > 0 {
        let (a, g) = (flat(a)?, flat(g)?);
        if turned {
            let op = if act.is_some() || sums {
                Op::Backward(Backward::MatMulOf { act, sums })
            } else {
                Op::MatMul(Epilogue::default())
            };
            let mut outs = V::run_all(op, &[&transposed(c, &g)?, &a], c.device, c.dtype(1))?;
            let sums = if outs.len() > 1 { outs.pop() } else { None };
            return Ok((transposed(c, &outs[0])?, sums));
        }
        return Ok((c.run(Op::MatMul(Epilogue::default()), &[&transposed(c, &a)?, &g], c.dtype(1))?, None));
    }
    let product = c.run(Op::MatMul(Epilogue::default()), &[&transposed(c, a)?, g], c.dtype(1).accum())?;
    Ok((c.fit(product, 1)?, None))
}
