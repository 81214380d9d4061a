//! Running sums and products.

use binade_tensor::op::{Backward, CumProdBackward, Resample, Scan, ScanOp};
use binade_tensor::{Dims, Op};
use smallvec::smallvec;

use super::derivative::Derivative;
use super::row::{Row, Saves};
use super::{Context, Grads};
use crate::Result;
use crate::value::Value;

impl Row for ScanOp {
    fn saves(&self, _needs: &[bool]) -> Saves {
        match self.kind {
            Scan::Sum => Saves::NONE,
            Scan::Prod => Saves::inputs(&[0]),
        }
    }

    fn gradients<V: Value>(&self, c: &mut Context<'_, V>, g: V) -> Result<Grads<V>> {
        let ScanOp { kind, dim, reverse } = *self;
        let dx = match kind {
            Scan::Sum => c.run(Op::Scan { kind, dim, reverse: !reverse }, &[&g], c.dtype(0))?,
            Scan::Prod => {
                // The reverse product is the product of the reversed tensor.
                let turn = |v: &V| -> Result<V> {
                    if !reverse || v.shape().rank() == 0 {
                        return Ok(v.clone());
                    }
                    c.run(Op::Resample(Resample::Flip(Dims::one(dim))), &[v], v.dtype())
                };
                let op = Op::Backward(Backward::CumProd { dim });
                turn(&c.run(op, &[&turn(&g)?, &turn(c.input(0)?)?], c.dtype(0))?)?
            }
        };
        Ok(smallvec![Some(dx)])
    }
}

impl Derivative for CumProdBackward {}
