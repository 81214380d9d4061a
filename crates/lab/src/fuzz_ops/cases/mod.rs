//! Random cases: an operator with its attributes and operands that fit it, family by family.

mod elements;
mod products;
mod quantised;
mod rows;

use binade::tensor::op::{Reduction, Unary};
use binade::tensor::{Array, DType, Device, Op, Result};

use super::draw::{Draw, Range, Values, bools, bytes, floats, indices};
use elements::{binary, compare, creation, losses, movement, scalar, selection, ternary, unary};
use products::{attention, conv_transpose2d, conv2d, matmul, pool};
use quantised::quantised;
use rows::{gather, norm, reduce, scan, softmax, sort};

/// One operator and its operands.
#[derive(Debug)]
pub struct Case {
    pub op: Op,
    pub ins: Vec<Array>,
    /// Whether gradients of gradients are taken too.
    pub twice: bool,
    /// How far values of the upstream gradient go.
    pub range: Range,
}

/// Elements of an operand: the naive reference must stay quick.
const NUMEL: usize = 3000;

/// Makes operands: those of one case mostly share a dtype.
struct Operands<'a> {
    draw: &'a mut Draw,
    device: &'a Device,
    dtype: DType,
    mixed: bool,
    /// How far values go.
    range: Range,
    ins: Vec<Array>,
}

impl Operands<'_> {
    /// An operand whose values have whatever the case looks for.
    fn any(&mut self, dims: &[usize]) -> Result<()> {
        let values = Values::draw(self.draw, self.range);
        self.of(dims, values)
    }

    fn of(&mut self, dims: &[usize], values: Values) -> Result<()> {
        let dtype = if self.mixed { self.draw.dtype() } else { self.dtype };
        self.ins.push(floats(self.draw, self.device, dtype, dims, values)?);
        Ok(())
    }

    /// A second operand: ordinary half of the time.
    fn other(&mut self, dims: &[usize]) -> Result<()> {
        if self.draw.flip() { self.of(dims, Values::Ordinary) } else { self.any(dims) }
    }

    fn index(&mut self, dims: &[usize], below: usize) -> Result<()> {
        self.ins.push(indices(self.draw, self.device, dims, below)?);
        Ok(())
    }

    fn integers(&mut self, dims: &[usize]) -> Result<()> {
        self.ins.push(bytes(self.draw, self.device, dims)?);
        Ok(())
    }

    fn mask(&mut self, dims: &[usize]) -> Result<()> {
        self.ins.push(bools(self.draw, self.device, dims)?);
        Ok(())
    }
}

impl Case {
    /// The case of these random numbers; its operands are on `device`.
    pub fn draw(draw: &mut Draw, device: &Device) -> Result<Case> {
        let (dtype, mixed) = (draw.dtype(), draw.one_in(3));
        let family = FAMILIES[draw.below(FAMILIES.len())];
        let mut operands = Operands { draw, device, dtype, mixed, range: Range::Whole, ins: Vec::new() };
        let op = family(&mut operands)?;
        let (ins, range) =
            (operands.ins, if operands.range == Range::Whole { Range::Products } else { operands.range });
        // Second order through large operands takes long and shows nothing new.
        let twice = draw.one_in(4) && !of_inference(&op) && ins.iter().map(Array::numel).sum::<usize>() < 1000;
        Ok(Case { op, ins, twice, range })
    }
}

/// Whether it is for inference, and has no gradient.
pub fn of_inference(op: &Op) -> bool {
    matches!(op, Op::QuantisedMatMul(_) | Op::QuantisedConv2d(_))
}

type Family = fn(&mut Operands<'_>) -> Result<Op>;

/// Families with much code below them stand here more than once.
const FAMILIES: [Family; 28] = [
    unary,
    binary,
    binary,
    scalar,
    ternary,
    compare,
    selection,
    reduce,
    reduce,
    scan,
    gather,
    sort,
    matmul,
    matmul,
    matmul,
    conv2d,
    conv2d,
    conv_transpose2d,
    pool,
    softmax,
    norm,
    norm,
    losses,
    attention,
    attention,
    movement,
    creation,
    quantised,
];

/// An operand of at least one dimension, and one of its dimensions.
fn with_dim(o: &mut Operands<'_>) -> Result<(Vec<usize>, usize)> {
    let rank = o.draw.within(1, 4);
    let dims = o.draw.shape_of_rank(rank, NUMEL);
    o.any(&dims)?;
    let dim = o.draw.below(rank);
    Ok((dims, dim))
}

/// Activations that are fused with other operators: their slopes are small, as the bounds of the fused ones assume. All
/// functions, fused, are compared with their definition by tests of the registry.
const ACTIVATIONS: [Unary; 9] = [
    Unary::Relu,
    Unary::Gelu,
    Unary::GeluTanh,
    Unary::Silu,
    Unary::Mish,
    Unary::Tanh,
    Unary::Sigmoid,
    Unary::Hardswish,
    Unary::Softsign,
];

fn reduction(o: &mut Operands<'_>) -> Reduction {
    o.draw.pick(&[Reduction::None, Reduction::Mean, Reduction::Sum])
}
