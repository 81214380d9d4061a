//! What a gradient needs of an operator's inputs and outputs, and what can be computed again.

use binade_tensor::Op;
use binade_tensor::op::{Backward, Binary, Distribution, Epilogue, NormKind, PoolKind, Reduce, Saved, Scan};
use smallvec::{SmallVec, smallvec};

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

/// What the gradient needs, given which inputs need one. The second operand of a product is saved only for the first's
/// sake.
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
        Some(Saved::Input) => product().and_outputs(&[1]),
        Some(Saved::Nothing) | None => product(),
    };
    match op {
        Op::Unary(row) => unary(row.saved()),
        Op::Binary(Binary::Add | Binary::Sub) => Saves::NONE,
        Op::Binary(Binary::Mul) => product(),
        Op::Binary(Binary::Div) if !needs[1] => Saves::inputs(&[1]),
        // Slopes of a limited or powered value depend on both operands.
        Op::Binary(_) => Saves::inputs(&[0, 1]),
        Op::Scalar { op: Binary::Add | Binary::Sub | Binary::Mul, .. }
        | Op::Scalar { op: Binary::Div, reversed: false, .. } => Saves::NONE,
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
        Op::Cat { .. } | Op::Dropout { .. } | Op::Cast(_) | Op::StochasticCast { .. } | Op::Copy | Op::View(_) => {
            Saves::NONE
        }
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

/// How the first output of an operator with so many inputs is computed again by one elementwise pass over values that
/// its gradient saves (or that are computed again themselves): then whoever needs the output saves nothing. `None`
/// where nothing is gained, and for a sum, whose gradient saves nothing: see [`crate::saved::addends`].
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
        Op::Norm(norm) => {
            recipe(Op::Backward(Backward::Renormalise(*norm)), (0..inputs + 3).filter(|i| *i != inputs).collect())
        }
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
