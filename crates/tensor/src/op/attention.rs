//! Scaled dot-product attention.

use smallvec::smallvec;

use super::bound::Bound;
use super::check::{Check, Outs};
use super::family::{Family, Numerics};
use super::program::{Builder, Value};
use super::softmax::softmax;
use super::{Backward, Binary, Compare, Op, View};
use crate::samples::{Inputs, KEY, Sampler};
use crate::{Array, Class, DType, Key, Layout, Meta, Result, Shape};

/// Attention attributes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Attention {
    /// Position t sees positions 0..=t only.
    pub causal: bool,
    /// Factor of q·k; `None` for 1/√D.
    pub scale: Option<f64>,
    /// Whether a mask is the last input.
    pub mask: bool,
    /// Probability with which an attention weight becomes 0 (the others are divided by 1 − p).
    pub dropout: f64,
    /// Random stream of the dropout.
    pub key: Key,
}

impl Family for Attention {
    fn name(&self) -> &'static str {
        "scaled_dot_product_attention"
    }

    fn numerics(&self) -> Numerics {
        Numerics::Lower
    }

    fn outs(&self, check: &Check<'_>) -> Result<Outs> {
        let (attention, ins) = (self, check.ins);
        check.count(3 + attention.mask as usize)?;
        check.floats(0..3)?;
        if !(0.0..1.0).contains(&attention.dropout) {
            return check.argument(format!("dropout must lie in 0 to 1, got {}", attention.dropout));
        }
        let (out, lse) = shapes(check, ins.get(3))?;
        // Then the result, with its heads side by side, is a view of it.
        let inside = ins[0].layout.order()[..] == [0, 2, 1, 3];
        let layout = if inside { Layout::with_order(out, &[0, 2, 1, 3]) } else { Layout::contiguous(out) };
        Ok(smallvec![check.float(layout), check.stats(lse)])
    }

    /// Scores of D products go through exp; then a mean of S values.
    fn bound(&self, _ins: &[&Array]) -> Bound {
        Bound::Terms(1.0)
    }

    fn samples(&self, s: &Sampler<'_>) -> Vec<Inputs> {
        if !self.mask {
            let cross = vec![s.x(&[1, 4, 5, 3], 1), s.x(&[1, 2, 67, 3], 2), s.x(&[1, 2, 67, 2], 3)];
            let same = s.vary(vec![s.x(&[2, 70, 16], 1), s.x(&[2, 70, 16], 2), s.x(&[2, 70, 8], 3)]);
            return [same, vec![cross]].concat();
        }
        let seen = s.one(&Op::Compare(Compare::Lt), &[&s.x(&[70, 66], 4), &s.x(&[1], 5)]);
        let [q, k, v] = [s.x(&[2, 4, 70, 8], 1), s.x(&[2, 2, 66, 8], 2), s.x(&[2, 2, 66, 4], 3)];
        let bias = vec![q.clone(), k.clone(), v.clone(), s.x(&[2, 1, 70, 66], 4)];
        // Each row sees at least its first key.
        vec![vec![q, k, v, first_column(&seen)], bias]
    }

    fn define(&self, b: &mut Builder) -> Result<Option<Value>> {
        Ok(Some(attend(b, self)?))
    }
}

/// A bool matrix with its first column true.
fn first_column(mask: &Array) -> Array {
    let columns = mask.shape()[1];
    let values: Vec<bool> = (0..mask.numel())
        .zip(mask.to_f64_vec().expect("on the host"))
        .map(|(i, v)| i % columns == 0 || v != 0.0)
        .collect();
    Array::from_slice(mask.device(), &values, mask.shape(), Class::Indices).expect("samples fit in memory")
}

/// Shapes of the result and of the log-sum-exp.
fn shapes(check: &Check<'_>, mask: Option<&Meta>) -> Result<(Shape, Shape)> {
    let [q, k, v] = [0, 1, 2].map(|i| check.ins[i].shape());
    let r = q.rank();
    // Batches are equal; heads of q are a multiple of those of k and v.
    let batches = |a: &Shape| a[..r.saturating_sub(3)] == q[..r.saturating_sub(3)];
    let shared = |q: usize, k: usize| q == k || k > 0 && q.is_multiple_of(k);
    let heads = || r < 3 || k[r - 3] == v[r - 3] && shared(q[r - 3], k[r - 3]);
    let fits = r >= 2 && k.rank() == r && v.rank() == r && batches(k) && batches(v) && heads();
    if !fits || q[r - 1] != k[r - 1] || k[r - 2] != v[r - 2] {
        return check.shape("q […, T, D], k […, S, D], v […, S, E], heads of q a multiple of those of k and v");
    }
    if let Some(mask) = mask {
        let mut scores = Shape::from_slice(&q[..r - 1]);
        scores.push(k[r - 2]);
        if scores.broadcast(mask.shape()) != Some(scores) || !(mask.dtype.is_float() || mask.dtype == DType::Bool) {
            return check.shape(&format!("a bool or float mask that broadcasts to {scores:?}"));
        }
    }
    let mut lse = Shape::from_slice(&q[..r - 1]);
    let rows = lse;
    lse.push(v[r - 1]);
    Ok((lse, rows))
}

/// `softmax(q·kᵀ·scale)·v`.
fn attend(b: &mut Builder, attention: &Attention) -> Result<Value> {
    let (q, mut k, mut v) = (b.input(0), b.input(1), b.input(2));
    let rank = b.shape(q).rank();
    if rank >= 3 && b.shape(q)[rank - 3] != b.shape(k)[rank - 3] {
        // Each head of k and v serves as many heads of q.
        let shared = b.shape(q)[rank - 3] / b.shape(k)[rank - 3];
        for value in [&mut k, &mut v] {
            let shape = b.shape(*value);
            let (mut one, mut many, mut flat) = (shape.to_vec(), shape.to_vec(), shape);
            one.insert(rank - 2, 1);
            many.insert(rank - 2, shared);
            flat[rank - 3] *= shared;
            let split = b.reshape(*value, Shape::new(&one)?)?;
            let wide = b.op(Op::View(View::Expand(Shape::new(&many)?)), &[split])?;
            *value = b.op(Op::Copy, &[wide])?;
            *value = b.reshape(*value, flat)?;
        }
    }
    let (t, d, s) = (b.shape(q)[rank - 2], b.shape(q)[rank - 1], b.shape(k)[rank - 2]);
    let keys = b.transpose(k)?;
    let scores = b.matmul(q, keys)?;
    if s == 0 {
        // No largest score exists, nor is one needed.
        return b.matmul(scores, v);
    }
    let mut scores = b.scalar(Binary::Mul, scores, attention.scale.unwrap_or(1.0 / (d.max(1) as f64).sqrt()))?;
    if attention.causal {
        let rows = b.op(Op::Range { start: 0, length: t }, &[])?;
        let rows = b.reshape(rows, Shape::new(&[t, 1])?)?;
        let columns = b.op(Op::Range { start: 0, length: s }, &[])?;
        let seen = b.compare(Compare::Le, columns, rows)?;
        let hidden = b.fill(f64::NEG_INFINITY, Shape::SCALAR)?;
        scores = b.select(seen, scores, hidden)?;
    }
    if attention.mask {
        let mask = b.input(3);
        scores = if b.dtype(mask) == crate::DType::Bool {
            let hidden = b.fill(f64::NEG_INFINITY, Shape::SCALAR)?;
            b.select(mask, scores, hidden)?
        } else {
            b.binary(Binary::Add, scores, mask)?
        };
    }
    let mut p = softmax(b, scores, rank - 1, false)?;
    if attention.dropout > 0.0 {
        p = b.op(Op::Dropout { p: attention.dropout, key: attention.key }, &[p])?;
    }
    b.matmul(p, v)
}

/// [`Backward::Attention`].
#[derive(Clone, Copy, Debug)]
pub struct AttentionBackward {
    /// The operator.
    pub attention: Attention,
    /// Whether the gradients are one output of three parts, for q, k and v of one shape: `[3, …]`.
    pub joined: bool,
}

impl Family for AttentionBackward {
    fn name(&self) -> &'static str {
        "attention_backward"
    }

    fn outs(&self, check: &Check<'_>) -> Result<Outs> {
        let (AttentionBackward { attention, joined }, ins) = (self, check.ins);
        check.count(6 + attention.mask as usize)?;
        let shapes = shapes(&check.of(&ins[1..4]), ins.get(6))?;
        if [*ins[0].shape(), *ins[4].shape()] != [shapes.0; 2] || *ins[5].shape() != shapes.1 {
            return check.shape("the gradient of the result, q, k, v, the result and its log-sum-exp");
        }
        if *joined {
            check.same_shape(1, 2)?;
            check.same_shape(1, 3)?;
            return Ok(smallvec![check.dense(Shape::new(&[&[3], &ins[1].shape()[..]].concat())?)]);
        }
        Ok(smallvec![check.dense(*ins[1].shape()), check.dense(*ins[2].shape()), check.dense(*ins[3].shape())])
    }

    fn bound(&self, _ins: &[&Array]) -> Bound {
        Bound::Terms(1.0)
    }

    fn samples(&self, s: &Sampler<'_>) -> Vec<Inputs> {
        let AttentionBackward { attention, joined } = self;
        Op::Attention(*attention)
            .samples(s.device, s.dtype)
            .into_iter()
            .chain(to_itself(s, attention.mask))
            .filter(|ins| !joined || ins[1..3].iter().all(|a| a.shape() == ins[0].shape()))
            .map(|mut ins| {
                let mut outs = s.run(Op::Attention(*attention), &ins.iter().collect::<Vec<_>>());
                let mask = ins.split_off(3);
                let (lse, out) = (outs.remove(1), outs.remove(0));
                [vec![s.gradient(&out)], ins, vec![out, lse], mask].concat()
            })
            .collect()
    }
}

/// Queries, keys and values of one shape: heads in order with a bias, and inside positions with places that are seen.
fn to_itself(s: &Sampler<'_>, mask: bool) -> Vec<Inputs> {
    let inside = |i| {
        let x = s.x(&[2, 20, 3, 8], i);
        x.with_layout(x.layout().transpose(1, 2)).expect("a view of it")
    };
    let mut all: Vec<Inputs> = vec![[1, 2, 3].map(|i| s.x(&[2, 3, 20, 8], i)).into(), [1, 2, 3].map(inside).into()];
    if mask {
        let seen = s.one(&Op::Compare(Compare::Lt), &[&s.x(&[20, 20], 4), &s.x(&[1], 5)]);
        all[0].push(s.x(&[2, 1, 20, 20], 4));
        all[1].push(first_column(&seen));
    }
    all
}

pub(super) fn catalogue() -> Vec<Op> {
    let plain = Attention::default();
    let dropping = Attention { mask: true, dropout: 0.25, key: KEY, ..plain };
    let causal = Attention { causal: true, scale: Some(0.2), ..plain };
    let mut ops: Vec<Op> = Vec::new();
    for attention in [plain, causal, Attention { mask: true, ..plain }, dropping] {
        ops.push(Op::Attention(attention));
        ops.extend([false, true].map(|joined| Op::Backward(Backward::Attention { attention, joined })));
    }
    ops
}
