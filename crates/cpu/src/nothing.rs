//! Operators that have nothing to add up: convolutions over no channels, attention of no keys or of vectors without
//! elements. Kernels divide their work by these extents. Here what is summed over becomes one zero, and a gradient
//! through nothing is zeros.

use binade_tensor::op::{Attention, Backward};
use binade_tensor::{Array, ArrayMut, Class, Layout, Meta, Op, Result, Shape};

use super::{Cpu, draws};
use crate::kernel::{In, Out};

impl Cpu {
    /// A convolution of no channels, or `turned` its gradient by the input of no output channels: as one over a channel
    /// of zeros per group.
    pub(super) fn convolve_nothing(
        &self,
        op: &Op,
        groups: usize,
        turned: bool,
        ins: &[In<'_>],
        outs: &mut [Out<'_>],
    ) -> Result<()> {
        let (x, w) = (ins[0].shape(), ins[1].shape());
        let [outer, inner] = if turned { [groups, w[1]] } else { [w[0], 1] };
        let image = self.zeros(&ins[0], &[x[0], groups, x[2], x[3]])?;
        let weight = self.zeros(&ins[1], &[outer, inner, w[2], w[3]])?;
        self.run_with(op, &[&image, &weight], &ins[2..], outs)
    }

    /// Attention where some of q, k and v are empty.
    pub(super) fn attend_nothing(&self, attention: &Attention, ins: &[In<'_>], outs: &mut [Out<'_>]) -> Result<()> {
        let [q, k] = [&ins[0], &ins[1]];
        if k.shape()[k.shape().rank() - 2] == 0 {
            draws::constant(self.isa(), 0.0, &mut outs[0]);
            // As of any query that sees no key: from it the gradient gets zeros.
            draws::constant(self.isa(), f64::INFINITY, &mut outs[1]);
            return Ok(());
        }
        let (q, k, scale) = match q.numel() {
            0 => (self.one_zero(q)?, self.one_zero(k)?, Some(1.0)),
            _ => (Array::clone(q), Array::clone(k), attention.scale),
        };
        let op = Op::Attention(Attention { scale, ..*attention });
        if ins[2].numel() > 0 {
            return self.run_with(&op, &[&q, &k], &ins[2..], outs);
        }
        // Values without elements: only the log-sum-exp is wanted.
        let (out, v) = (self.one_zero(outs[0].array())?, self.one_zero(&ins[2])?);
        let mut target = ArrayMut::new(op.name(), &out)?;
        let [_, lse] = outs else { return Ok(()) };
        let mut outs = [Out::new(op.name(), &mut target)?, lse.again()];
        self.run_with(&op, &[&q, &k, &v], &ins[3..], &mut outs)
    }

    /// The gradient where some of g, q, k and v are empty.
    pub(super) fn attend_nothing_backward(
        &self,
        attention: &Attention,
        ins: &[In<'_>],
        outs: &mut [Out<'_>],
    ) -> Result<()> {
        let (g, v) = (&ins[0], &ins[3]);
        if g.numel() == 0 || v.numel() == 0 {
            outs.iter_mut().for_each(|out| draws::constant(self.isa(), 0.0, out));
            return Ok(());
        }
        // Queries and keys have no elements: only the values have a gradient.
        let attention = Attention { scale: Some(1.0), ..*attention };
        let op = Op::Backward(Backward::Attention { attention, joined: false });
        let (q, k) = (self.one_zero(&ins[1])?, self.one_zero(&ins[2])?);
        let [dq, dk, dv] = [&q, &k, &**v].map(|x| self.zeros(x, x.shape()));
        let grads = [dq?, dk?, dv?];
        let mut targets = grads.iter().map(|d| ArrayMut::new(op.name(), d)).collect::<Result<Vec<_>>>()?;
        let mut to = targets.iter_mut().map(|to| Out::new(op.name(), to)).collect::<Result<Vec<_>>>()?;
        self.run_with(&op, &[g, &q, &k], &ins[3..], &mut to)?;
        drop(to);
        drop(targets);
        self.run_with(&Op::Copy, &[&grads[2]], &[], &mut outs[2..])
    }

    /// Runs an operator on arrays made here and on inputs.
    fn run_with(&self, op: &Op, made: &[&Array], ins: &[In<'_>], outs: &mut [Out<'_>]) -> Result<()> {
        let guards = made.iter().map(|x| x.storage().read(op.name())).collect::<Result<Vec<_>>>()?;
        let made = made.iter().zip(&guards).map(|(x, guard)| In::new(op.name(), x, Some(guard)));
        let mut all = made.collect::<Result<Vec<_>>>()?;
        all.extend_from_slice(ins);
        self.run_on(op, &all, outs)
    }

    fn zeros(&self, like: &Array, dims: &[usize]) -> Result<Array> {
        let layout = Layout::contiguous(Shape::new(dims)?);
        let array = Array::alloc(like.device(), Meta { dtype: like.dtype(), layout }, Class::Workspace)?;
        let mut to = ArrayMut::new("zeros", &array)?;
        draws::constant(self.isa(), 0.0, &mut Out::new("zeros", &mut to)?);
        drop(to);
        Ok(array)
    }

    /// Vectors of one zero for vectors without elements: their products are the same, whatever the scale.
    fn one_zero(&self, x: &Array) -> Result<Array> {
        self.zeros(x, &[&x.shape()[..x.shape().rank() - 1], &[1]].concat())
    }
}
