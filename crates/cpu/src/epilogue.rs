//! What is left to do after the sums of a contraction: bias, activation and the one rounding, a block of rows at a
//! time.

use crate::kernel::In;
use smallvec::SmallVec;

use super::elementwise::activate;
use super::operand::{BLOCK, Compute, Operand};
use crate::simd::{Isa, Lanes, Map2};
use binade_tensor::DType;
use binade_tensor::op::{Epilogue, Saved, Unary};

#[derive(Clone, Copy)]
struct Add;

impl Map2 for Add {
    #[inline(always)]
    fn eval<L: Lanes>(self, a: L, b: L) -> L {
        a + b
    }
}

/// The epilogue of a contraction on whole rows of the output.
pub(super) struct KernelEpilogue<C> {
    isa: Isa,
    epilogue: Epilogue,
    bias: Vec<C>,
    /// What sums are multiplied by before, one number for each column; empty for 1.
    scale: Vec<C>,
}

impl<C: Compute> KernelEpilogue<C> {
    pub(super) fn new(isa: Isa, epilogue: Epilogue, ins: &[In<'_>]) -> KernelEpilogue<C> {
        let mut bias = vec![C::zero(); if epilogue.bias { ins[2].numel() } else { 0 }];
        if epilogue.bias {
            Operand::new(ins[2], ins[2].shape(), &[0]).load(isa, 0, &mut bias);
        }
        KernelEpilogue { isa, epilogue, bias, scale: Vec::new() }
    }

    /// A bias alone, or nothing.
    pub(super) fn with_bias(isa: Isa, bias: Option<In<'_>>) -> KernelEpilogue<C> {
        let mut values = vec![C::zero(); bias.map_or(0, |bias| bias.numel())];
        if let Some(array) = bias {
            Operand::new(array, array.shape(), &[0]).load(isa, 0, &mut values);
        }
        let epilogue = Epilogue { bias: bias.is_some(), act: None };
        KernelEpilogue { isa, epilogue, bias: values, scale: Vec::new() }
    }

    /// Of sums that stand for multiples of a scale, and have no second output.
    pub(super) fn scaled(isa: Isa, act: Option<Unary>, bias: Option<In<'_>>, scale: Vec<C>) -> KernelEpilogue<C> {
        let with_bias = KernelEpilogue::with_bias(isa, bias);
        KernelEpilogue { epilogue: Epilogue { act, ..with_bias.epilogue }, scale, ..with_bias }
    }

    /// Multiplies by the scale, if there is one, and adds the bias of the columns `first..first + columns` of rows of
    /// length `n`. Then it stores the value before the activation if asked, applies the activation and stores the
    /// result. Row `i` of `acc` is at `i·ld`; `out` and `pre` are the bytes of whole rows.
    pub(super) fn rows(
        &self,
        acc: &mut [C],
        ld: usize,
        first: usize,
        columns: usize,
        n: usize,
        out: &mut [u8],
        pre: &mut [u8],
        dtype: DType,
    ) {
        if let Some(scale) = self.scale.get(first..first + columns) {
            for row in acc.chunks_mut(ld) {
                row.iter_mut().zip(scale).for_each(|(sum, &scale)| *sum *= scale);
            }
        }
        // Rows without gaps are taken several at a time, with as many copies of the bias.
        let dense = ld == columns && columns == n;
        let together = if dense { (BLOCK / n).max(1) } else { 1 };
        let mut bias = SmallVec::<[C; BLOCK]>::new();
        if let Some(part) = self.bias.get(first..first + columns) {
            (0..together).for_each(|_| bias.extend_from_slice(part));
        }
        let (size, mut buffers) = (dtype.size(), [[C::zero(); BLOCK]; 2]);
        for (i, rows) in acc.chunks_mut(together * ld).enumerate() {
            let len = if dense { rows.len() } else { columns };
            let bytes = (i * together * n + first) * size..(i * together * n + first + len) * size;
            let before = if pre.is_empty() { &mut [][..] } else { &mut pre[bytes.clone()] };
            self.stretch(
                &mut rows[..len],
                &bias[..if bias.is_empty() { 0 } else { len }],
                &mut out[bytes],
                before,
                dtype,
                &mut buffers,
            );
        }
    }

    /// A stretch of results with their biases.
    fn stretch(
        &self,
        values: &mut [C],
        bias: &[C],
        out: &mut [u8],
        pre: &mut [u8],
        dtype: DType,
        [buffer, after]: &mut [[C; BLOCK]; 2],
    ) {
        let (isa, size) = (self.isa, dtype.size());
        for at in (0..values.len()).step_by(BLOCK) {
            let len = BLOCK.min(values.len() - at);
            let (values, to) = (&values[at..at + len], &mut out[at * size..(at + len) * size]);
            let biased = |to: &mut [C]| C::map2(isa, Add, values, &bias[at..at + len], to);
            match self.epilogue.act {
                None if bias.is_empty() => C::store(isa, values, to, dtype),
                None if dtype == C::DTYPE => biased(super::operand::elements_mut(to)),
                None => {
                    biased(&mut buffer[..len]);
                    C::store(isa, &buffer[..len], to, dtype);
                }
                Some(act) => {
                    let before = if bias.is_empty() {
                        values
                    } else {
                        biased(&mut buffer[..len]);
                        &buffer[..len]
                    };
                    if act.saved() == Saved::Input && !pre.is_empty() {
                        C::store(isa, before, &mut pre[at * size..(at + len) * size], dtype);
                    }
                    if dtype == C::DTYPE {
                        activate(isa, act, before, super::operand::elements_mut(to));
                    } else {
                        activate(isa, act, before, &mut after[..len]);
                        C::store(isa, &after[..len], to, dtype);
                    }
                }
            }
        }
    }

    /// Whether there is an activation.
    pub(super) fn activates(&self) -> bool {
        self.epilogue.act.is_some()
    }

    /// The bias of each of `n` columns, for sums that begin with it, and what is then left to do.
    pub(super) fn apart(&self, n: usize) -> (Vec<C>, KernelEpilogue<C>) {
        let bias = if self.bias.is_empty() { vec![C::zero(); n] } else { self.bias.clone() };
        let epilogue = Epilogue { bias: false, ..self.epilogue };
        (bias, KernelEpilogue { isa: self.isa, epilogue, bias: Vec::new(), scale: self.scale.clone() })
    }

    /// Whether results are stored as they are.
    pub(super) fn is_plain(&self) -> bool {
        !self.epilogue.bias && self.epilogue.act.is_none() && self.scale.is_empty()
    }
}

/// Where the results of a contraction go.
pub(super) struct Target<'a, C> {
    pub(super) epilogue: &'a KernelEpilogue<C>,
    pub(super) dtype: DType,
    pub(super) out: &'a mut [u8],
    /// For the values before the activation; empty if nobody asks for them.
    pub(super) pre: &'a mut [u8],
}

/// Bytes of results, and of the values before their activation if they are kept.
pub(super) type Results<'a> = (&'a mut [u8], &'a mut [u8]);

/// Splits the bytes of the output, and of the value before the activation if there is one, into parts of `size` bytes.
pub(super) fn output_parts<'a>(out: &'a mut [u8], pre: &'a mut [u8], size: usize) -> Vec<Results<'a>> {
    let mut pre = pre.chunks_mut(size);
    out.chunks_mut(size).map(|o| (o, pre.next().unwrap_or_default())).collect()
}
