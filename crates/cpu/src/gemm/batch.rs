//! The products of an operator: which dimensions are rows, columns and inner places, and where the matrices of each
//! product begin. Where all have the same right operand, and the left ones follow each other in memory, they are one
//! product with more rows.

use super::operand::Matrix;
use crate::kernel::In;
use crate::values::Values;
use binade_tensor::{Array, Layout, Shape};

/// The products of one operator: matrices in the last two dimensions, one product for each place of those before.
pub(crate) struct Batch<'a> {
    /// Rows, inner dimension and columns of each product.
    pub(crate) extents: [usize; 3],
    /// Whether all products have the same right operand.
    pub(crate) shares_b: bool,
    a: Matrix<'a>,
    b: Matrix<'a>,
    offsets: [Vec<usize>; 2],
}

impl<'a> Batch<'a> {
    pub(crate) fn new(shape: &Shape, ins: &[In<'a>]) -> Batch<'a> {
        let rank = shape.rank();
        let (mut m, n) = (shape[rank - 2], shape[rank - 1]);
        let k = ins[0].shape()[ins[0].shape().rank() - 1];
        let batch = shape.leading(rank - 2);
        // The batch dimensions, which were checked to broadcast, as storage offsets.
        let offsets = |array: &Array| -> Vec<usize> {
            let (layout, r) = (array.layout(), array.shape().rank());
            let head = Layout {
                shape: layout.shape.leading(r - 2),
                strides: layout.strides.leading(r - 2),
                offset: layout.offset,
            };
            head.expand(&batch).map_or_else(Vec::new, |l| indices(&l))
        };
        let (mut oa, mut ob) = (offsets(&ins[0]), offsets(&ins[1]));
        let matrix = |i: usize| {
            let (l, r) = (ins[i].layout(), ins[i].shape().rank());
            Matrix { values: Values::new(ins[i]), offset: 0, strides: [l.strides[r - 2], l.strides[r - 1]] }
        };
        let (a, b) = (matrix(0), matrix(1));
        let shares_b = ob.iter().all(|&o| o == ob[0]);
        if shares_b && oa.windows(2).all(|pair| pair[1] == pair[0] + m * a.strides[0]) {
            // One tall matrix.
            m *= oa.len();
            oa.truncate(1);
            ob.truncate(1);
        }
        Batch { extents: [m, k, n], shares_b, a, b, offsets: [oa, ob] }
    }

    /// The matrices of one product.
    pub(crate) fn operands(&self, i: usize) -> (Matrix<'a>, Matrix<'a>) {
        let [oa, ob] = &self.offsets;
        (Matrix { offset: oa[i], ..self.a }, Matrix { offset: ob[i], ..self.b })
    }
}

/// Storage index of every element of a layout, in row-major order.
fn indices(layout: &Layout) -> Vec<usize> {
    let mut out = vec![layout.offset];
    for d in 0..layout.shape.rank() {
        out = out.iter().flat_map(|&base| (0..layout.shape[d]).map(move |i| base + i * layout.strides[d])).collect();
    }
    out
}
