//! Attention.

use binade_tensor::op::{Attention, AttentionBackward, Backward, View};
use binade_tensor::{Layout, Meta, Op, Shape};
use smallvec::{SmallVec, smallvec};

use super::derivative::Derivative;
use super::row::{Row, Saves};
use super::{Context, Grads};
use crate::value::Value;
use crate::{Error, Result};

impl Row for Attention {
    fn saves(&self, _needs: &[bool]) -> Saves {
        Saves::inputs(&[0, 1, 2, 3]).and_outputs(&[0, 1])
    }

    fn gradients<V: Value>(&self, c: &mut Context<'_, V>, g: V) -> Result<Grads<V>> {
        if self.mask && c.needs[3] {
            let reason =
                "the mask's own gradient needs all scores; Var::attention_masked writes them out for such a mask";
            return Err(Error::NotDifferentiable { op: c.op.name(), path: c.path.clone(), reason });
        }
        let mut ins: SmallVec<[&V; 7]> =
            smallvec![&g, c.input(0)?, c.input(1)?, c.input(2)?, c.output(0)?, c.output(1)?];
        if self.mask {
            ins.push(c.input(3)?);
        }
        let backward = |joined: bool| Op::Backward(Backward::Attention { attention: *self, joined });
        let alike = c.dtype(1) == c.dtype(0) && c.dtype(2) == c.dtype(0) && c.needs[..3] == [true; 3];
        let outs: SmallVec<[V; 3]> =
            match parts_of_one(c.input(0)?.layout(), c.input(1)?.layout(), c.input(2)?.layout()) {
                // The gradient of the tensor they are parts of, which then need not be put together.
                Some(layout) if alike && !V::RECORDED => {
                    let all = V::run_laid_out(backward(true), &ins, c.device, Meta { dtype: c.dtype(0), layout })?;
                    (0..3)
                        .map(|start| {
                            c.view(
                                &c.view(&all, View::Narrow { dim: 0, start, length: 1 })?,
                                View::Reshape(*c.shape(start)),
                            )
                        })
                        .collect::<Result<_>>()?
                }
                Some(_) | None => V::run_all(backward(false), &ins, c.device, c.dtype(0))?,
            };
        let masked = self.mask.then_some(None);
        let grad = |(i, a): (usize, V)| if c.needs[i] { c.cast(a, c.dtype(i)).map(Some) } else { Ok(None) };
        outs.into_iter().enumerate().map(grad).chain(masked.map(Ok)).collect()
    }

    fn through_definition(&self, recorded: bool) -> bool {
        recorded
    }
}

/// The layout `[3, …]` of the tensor that three of one shape were cut from, if they are all of it and lie in it evenly.
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

impl Derivative for AttentionBackward {}
