//! Cross-entropy of logits and class indices.

use crate::kernel::{Context, In, Out};
use rayon::prelude::*;

use super::{Buffer, ExpDistance, row_exp, row_max, scale};
use crate::operand::{Compute, Operand, elements, ln};
use crate::rows::{fill_rows, order_with_last, write};
use crate::simd::Isa;
use crate::tasks::Tasks as _;
use binade_tensor::op::{CrossEntropy, Reduction};
use binade_tensor::{Error, Result};

/// Target classes, checked.
fn targets<'a>(loss: &CrossEntropy, target: In<'a>, classes: usize) -> Result<std::borrow::Cow<'a, [i64]>> {
    let n = target.numel();
    let all = elements::<i64>(target.bytes);
    let values = if target.layout().is_contiguous() {
        std::borrow::Cow::Borrowed(&all[target.layout().offset..][..n])
    } else {
        let order: Vec<usize> = (0..target.shape().rank()).collect();
        let mut values = vec![0i64; n];
        Operand::new(target, target.shape(), &order).runs(0, n, |from, stride, range| {
            values[range].iter_mut().enumerate().for_each(|(i, v)| *v = all[from + i * stride]);
        });
        std::borrow::Cow::Owned(values)
    };
    match values.iter().find(|&&t| t != loss.ignore_index && !(0..classes as i64).contains(&t)) {
        Some(&index) => Err(Error::IndexOutOfRange { op: "cross_entropy", index, size: classes, what: "classes" }),
        None => Ok(values),
    }
}

pub(crate) fn cross_entropy<C: Compute>(
    isa: Isa,
    loss: &CrossEntropy,
    ins: &[In<'_>],
    out: &mut Out<'_>,
) -> Result<()> {
    let shape = ins[0].shape();
    let (classes, rows) = (shape[1], ins[1].numel());
    let target = targets(loss, ins[1], classes)?;
    let operand = Operand::new(ins[0], shape, &order_with_last(shape.rank(), |d| d == 1));
    let values: Vec<f64> = (0..rows).into_par_iter().with_min_len((4096 / classes.max(1)).max(1)).list(|row| {
        if target[row] == loss.ignore_index {
            return 0.0;
        }
        let mut buffer = Buffer::<C>::new(classes);
        let x = operand.block(isa, row * classes, classes, buffer.get());
        // ln Σ exp(x − max) and x − max are kept apart: their difference does not cancel against a large max.
        // In f64 the distance of the largest numbers is finite.
        let max = row_max(isa, x);
        let rest = ln(C::sum(isa, ExpDistance, x, max)).as_f64();
        let nll = |v: C| rest - (v.as_f64() - max.as_f64());
        let mut value = (1.0 - loss.smoothing) * nll(x[target[row] as usize]);
        if loss.smoothing > 0.0 {
            value += loss.smoothing * x.iter().map(|&v| nll(v)).sum::<f64>() / classes as f64;
        }
        value
    });
    match loss.reduction {
        Reduction::None => write(isa, &values, out),
        Reduction::Sum => write(isa, &[total(&values)], out),
        Reduction::Mean => write(isa, &[total(&values) / counted(loss, &target)], out),
    }
    Ok(())
}

/// A sum by halves, whose error hardly grows with the number of terms.
fn total(values: &[f64]) -> f64 {
    if values.len() <= 16 {
        return values.iter().sum();
    }
    let (left, right) = values.split_at(values.len() / 2);
    total(left) + total(right)
}

/// Number of targets that count.
fn counted(loss: &CrossEntropy, target: &[i64]) -> f64 {
    target.iter().filter(|&&t| t != loss.ignore_index).count() as f64
}

/// `g·(softmax − target)`; inputs g, logits, target. The softmax is normalised by its own sum: a saved log-sum-exp
/// would carry its rounding into every probability.
pub(crate) fn cross_entropy_backward<C: Compute>(
    cx: Context<'_>,
    loss: &CrossEntropy,
    ins: &[In<'_>],
    out: &mut Out<'_>,
) -> Result<()> {
    let isa = cx.isa;
    let shape = ins[1].shape();
    let classes = shape[1];
    let target = targets(loss, ins[2], classes)?;
    let order = order_with_last(shape.rank(), |d| d == 1);
    let operand = Operand::new(ins[1], shape, &order);
    let rows_order: Vec<usize> = (0..ins[2].shape().rank()).collect();
    let g = Operand::new(ins[0], ins[2].shape(), &rows_order);
    let divisor = C::from_f64(if loss.reduction == Reduction::Mean { counted(loss, &target) } else { 1.0 });
    fill_rows::<C, ()>(cx, out, &order, classes, |row, to| {
        if target[row] == loss.ignore_index {
            return to.fill(C::zero());
        }
        let mut pg = [C::zero()];
        g.load(isa, row, &mut pg);
        let mut buffer = Buffer::<C>::new(classes);
        let x = operand.block(isa, row * classes, classes, buffer.get());
        let inverse = C::one() / row_exp(isa, x, row_max(isa, x), to);
        scale(isa, inverse, to);
        let uniform = C::from_f64(loss.smoothing / classes as f64);
        to.iter_mut().for_each(|p| *p = *p - uniform);
        let class = &mut to[target[row] as usize];
        *class = *class - C::from_f64(1.0 - loss.smoothing);
        let factor = pg[0] / divisor;
        to.iter_mut().for_each(|p| *p *= factor);
    })?;
    Ok(())
}
