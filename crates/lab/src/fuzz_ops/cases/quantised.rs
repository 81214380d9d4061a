//! Products with weights of 8-bit integers.

use binade::tensor::op::{QuantisedConv2d, QuantisedMatMul};
use binade::tensor::{Op, Result};

use super::Operands;
use super::products::{epilogue, geometry};
use crate::fuzz_ops::draw::{Range, Values};

pub(super) fn quantised(o: &mut Operands<'_>) -> Result<Op> {
    o.range = Range::Products;
    if o.draw.flip() { matmul(o) } else { conv2d(o) }
}

/// A scale for each output, and one of what is multiplied; 1 leaves the sums as they are.
fn scales(o: &mut Operands<'_>, outputs: usize, own: bool) -> Result<()> {
    let values = if o.draw.flip() { Values::Equal(1.0) } else { Values::Positive };
    o.of(&[outputs], values)?;
    let step = o.draw.pick(&[1.0, 0.05, 0.01]);
    if own { o.of(&[], Values::Equal(step)) } else { Ok(()) }
}

fn matmul(o: &mut Operands<'_>) -> Result<Op> {
    let n = o.draw.extent(300);
    let rows = if o.draw.flip() { vec![o.draw.extent(300)] } else { o.draw.shape(3, 200) };
    // As many products as the reference does in some milliseconds.
    let k = o.draw.extent(1100).min(400_000 / (n * rows.iter().product::<usize>()).max(1));
    o.any(&[&rows[..], &[k]].concat())?;
    o.integers(&[n, k])?;
    let integer = !o.draw.one_in(3);
    scales(o, n, integer)?;
    let epilogue = epilogue(o);
    if epilogue.bias {
        o.of(&[n], Values::Ordinary)?;
    }
    Ok(Op::QuantisedMatMul(QuantisedMatMul { integer, epilogue }))
}

fn conv2d(o: &mut Operands<'_>) -> Result<Op> {
    let [inputs, outputs] = [o.draw.extent(33), o.draw.extent(33)];
    let (conv, kernel, size) = geometry(o, 1);
    let batch = o.draw.pick(&[0, 1, 1, 2, 3]);
    o.any(&[batch, inputs, size[0], size[1]])?;
    o.integers(&[outputs, inputs, kernel[0], kernel[1]])?;
    scales(o, outputs, true)?;
    let epilogue = epilogue(o);
    if epilogue.bias {
        o.of(&[outputs], Values::Ordinary)?;
    }
    Ok(Op::QuantisedConv2d(QuantisedConv2d { conv, epilogue }))
}
