//! Elementwise kernels and casts. Those of rows with two operands are in [`binary`].

mod binary;

pub(super) use binary::{BinaryKernel, binary, compare, select};

use super::extremes::{self, Formula};
use super::operand::{
    BLOCK, Buffer, Compute, Operand, elements, fill, fill_as, fill_over, fill_with, in_storage, memory_order,
};
use super::table::{SLOPES, Table, VALUES, look_up};
use super::ties::{break_ties, may_tie};
use crate::kernel::{In, Out};
use crate::simd::{Beside, Isa, Lanes, Map1, Map2, Number, Real, Stored};
use binade_tensor::integers::Integer;
use binade_tensor::op::{Saved, Unary, UnaryRow, UnaryVisitor};
use binade_tensor::{Array, DType, MAX_RANK, bf16, f16};

/// The inputs of an elementwise kernel in the memory order of its output.
pub(super) fn operands<'a>(ins: &[In<'a>], out: &Array) -> smallvec::SmallVec<[Operand<'a>; 3]> {
    let order: smallvec::SmallVec<[usize; MAX_RANK]> = memory_order(out.layout());
    let operand = |x: &In<'a>| {
        let operand = Operand::new(*x, out.shape(), &order);
        if std::sync::Arc::ptr_eq(x.storage(), out.storage()) { operand.over() } else { operand }
    };
    ins.iter().map(operand).collect()
}

fn map1<C: Compute, F: Map1 + Sync>(isa: Isa, f: F, x: &Operand<'_>, out: &mut Out<'_>) {
    if in_storage!(out.array().dtype(), map1_dense::<C>(isa, f, x, out)).is_none() {
        map1_blocks::<C, F>(isa, f, x, out);
    }
}

/// Through registers alone, if the operand is dense and of the output's type T; else `None`.
fn map1_dense<C: Compute, T: Stored<C>>(
    isa: Isa,
    f: impl Map1 + Sync,
    x: &Operand<'_>,
    out: &mut Out<'_>,
) -> Option<()> {
    let dense = x.dense_or_over::<T>()?;
    fill_over::<T>(out, x.is_over(), |start, old, y| C::map1(isa, f, dense.part(start, y.len(), old), y));
    Some(())
}

fn map1_blocks<C: Compute, F: Map1 + Sync>(isa: Isa, f: F, x: &Operand<'_>, out: &mut Out<'_>) {
    fill_with::<C, _>(isa, out, x.is_over(), Buffer::<C>::new, |buffer, start, old, y| {
        C::map1(isa, f, x.block_in(isa, start, y.len(), old, buffer), y);
    });
}

fn map2<C: Compute, F: Map2 + Sync>(isa: Isa, f: F, a: &Operand<'_>, b: &Operand<'_>, out: &mut Out<'_>) {
    if in_storage!(out.array().dtype(), map2_dense::<C>(isa, f, a, b, out)).is_none() {
        map2_blocks::<C, F>(isa, f, a, b, out);
    }
}

/// As [`map1_dense`].
fn map2_dense<C: Compute, T: Stored<C>>(
    isa: Isa,
    f: impl Map2 + Sync,
    a: &Operand<'_>,
    b: &Operand<'_>,
    out: &mut Out<'_>,
) -> Option<()> {
    let (x, z) = (a.dense_or_over::<T>()?, b.dense_or_over::<T>()?);
    fill_over::<T>(out, a.is_over() || b.is_over(), |start, old, y| {
        C::map2(isa, f, x.part(start, y.len(), old), z.part(start, y.len(), old), y);
    });
    Some(())
}

fn map2_blocks<C: Compute, F: Map2 + Sync>(isa: Isa, f: F, a: &Operand<'_>, b: &Operand<'_>, out: &mut Out<'_>) {
    let scratch = || (Buffer::<C>::new(), Buffer::<C>::new());
    fill_with::<C, _>(isa, out, a.is_over() || b.is_over(), scratch, |(pa, pb), start, old, y| {
        C::map2(isa, f, a.block_in(isa, start, y.len(), old, pa), b.block_in(isa, start, y.len(), old, pb), y);
    });
}

/// `f(x)` of a unary row.
struct Forward<'a, 'b, C>(Isa, &'a Operand<'a>, &'a mut Out<'b>, std::marker::PhantomData<C>);

#[derive(Clone, Copy)]
struct F<R>(R2<R>);
/// A row without a value: rows are only types.
type R2<R> = std::marker::PhantomData<fn() -> R>;

impl<R: UnaryRow> Map1 for F<R> {
    #[inline(always)]
    fn eval<L: Lanes>(self, x: L) -> L {
        R::f(x)
    }
}

impl<C: Compute> UnaryVisitor for Forward<'_, '_, C> {
    type Output = ();
    fn visit<R: UnaryRow>(self) {
        let Forward(isa, x, out, _) = self;
        if const { !may_tie::<R>() } {
            return map1::<C, _>(isa, F::<R>(R2::default()), x, out);
        }
        let dtype = out.array().dtype();
        if dtype.is_half() && C::DTYPE == DType::F32 {
            return half::<R>(isa, x, out);
        }
        if dtype != C::DTYPE || map1_dense::<C, C>(isa, F::<R>(R2::default()), x, out).is_none() {
            map1_blocks::<C, _>(isa, F::<R>(R2::default()), x, out);
        }
    }
}

/// Results that round correctly to a 16-bit format.
fn rounded<R: UnaryRow>(isa: Isa, dtype: DType, x: &[f32], y: &mut [f32]) {
    f32::map1(isa, F::<R>(R2::default()), x, y);
    break_ties::<R>(isa, dtype, x, y);
}

fn rounded_table<R: UnaryRow>(isa: Isa, dtype: DType, n: usize) -> Option<&'static Table<u16>> {
    VALUES.get(isa, R::ROW, dtype, n, &|x, codes| {
        let mut y = [0.0; BLOCK];
        rounded::<R>(isa, dtype, x, &mut y[..x.len()]);
        f32::store(isa, &y[..x.len()], bytemuck::cast_slice_mut(codes), dtype);
    })
}

/// The table of a row in a 16-bit format, where its results are looked up and `n` of them are worth making it.
pub(super) fn value_table(isa: Isa, row: Unary, dtype: DType, n: usize) -> Option<&'static Table<u16>> {
    struct Find(Isa, DType, usize);
    impl UnaryVisitor for Find {
        type Output = Option<&'static Table<u16>>;
        fn visit<R: UnaryRow>(self) -> Self::Output {
            if may_tie::<R>() { rounded_table::<R>(self.0, self.1, self.2) } else { None }
        }
    }
    row.visit(Find(isa, dtype, n))
}

/// A 16-bit output correctly rounded: looked up where the input has its format, else computed and rounded block by
/// block.
fn half<R: UnaryRow>(isa: Isa, x: &Operand<'_>, out: &mut Out<'_>) {
    let (dtype, n) = (out.array().dtype(), out.array().numel());
    let compute = |x: &[f32], y: &mut [f32]| rounded::<R>(isa, dtype, x, y);
    if x.dtype() == dtype
        && let Some(codes) = x.codes()
        && let Some(table) = rounded_table::<R>(isa, dtype, n)
    {
        return fill_as::<u16>(out, |start, y| look_up(table, &codes[start..start + y.len()], y, None));
    }
    fill_with(isa, out, x.is_over(), Buffer::new, |buffer, start, old, y| {
        compute(x.block_in(isa, start, y.len(), old, buffer), y)
    });
}

pub(super) fn unary<C: Compute>(isa: Isa, row: Unary, x: &Operand<'_>, out: &mut Out<'_>) {
    row.visit(Forward::<C>(isa, x, out, std::marker::PhantomData));
}

/// Applies a unary row to a slice in place: the activation of an epilogue.
pub(super) fn activate<C: Compute>(isa: Isa, row: Unary, x: &[C], y: &mut [C]) {
    struct Slice<'a, C>(Isa, &'a [C], &'a mut [C]);
    impl<C: Compute> UnaryVisitor for Slice<'_, C> {
        type Output = ();
        fn visit<R: UnaryRow>(self) {
            C::map1(self.0, F::<R>(R2::default()), self.1, self.2);
        }
    }
    row.visit(Slice(isa, x, y));
}

/// `g · f'` at `x`, into `y`: the gradient in front of a fused activation. What `x` holds afterwards is left open.
pub(super) fn before_activation<C: Compute>(isa: Isa, row: Unary, g: &[C], x: &mut [C], y: &mut [C]) {
    struct Slice<'a, C>(Isa, &'a [C], &'a [C], &'a mut [C]);
    impl<C: Compute> UnaryVisitor for Slice<'_, C> {
        type Output = ();
        fn visit<R: UnaryRow>(self) {
            C::map2(self.0, Df::<R>(R2::default()), self.1, self.2, self.3);
        }
    }
    if row.saved() == Saved::Output {
        activate(isa, row, x, y);
        x.copy_from_slice(y);
    }
    row.visit(Slice(isa, g, x, y));
}

/// `g · f'(saved)`.
struct Gradient<'a, 'b, C>(Isa, &'a Operand<'a>, &'a Operand<'a>, &'a mut Out<'b>, std::marker::PhantomData<C>);

#[derive(Clone, Copy)]
struct Df<R>(R2<R>);

impl<R: UnaryRow> Map2 for Df<R> {
    #[inline(always)]
    fn eval<L: Lanes>(self, g: L, saved: L) -> L {
        g * R::df(saved)
    }
}

impl<R: UnaryRow> Slope for Df<R> {
    fn slope<N: Number>(self, saved: N) -> N {
        R::df(saved)
    }
}

/// `f'(saved)`, for tables.
#[derive(Clone, Copy)]
struct SlopeOf<R>(R2<R>);

impl<R: UnaryRow> Map1 for SlopeOf<R> {
    #[inline(always)]
    fn eval<L: Lanes>(self, saved: L) -> L {
        R::df(saved)
    }
}

/// Whether the derivative costs more than looking it up: those written in the output are a few operations.
const fn has_costly_slope<R: UnaryRow>() -> bool {
    may_tie::<R>() && matches!(R::ROW.saved(), Saved::Input) && !R::ROW.has_extreme_slope()
}

/// `g · slope(x)` of a row with one operand.
trait Slope: Map2 + Sync {
    fn slope<N: Number>(self, x: N) -> N;
}

/// That product, element by element.
struct SlopeAgain<'a, C, F>(F, &'a [C], &'a [C]);

impl<C: Compute, F: Slope> Formula for SlopeAgain<'_, C, F> {
    fn at<N: Number>(&self, i: usize) -> N {
        let SlopeAgain(f, g, x) = self;
        N::splat(g[i].as_f64()) * f.slope(N::splat(x[i].as_f64()))
    }
}

/// `g · slope(x)` block by block, where an element may need a wider range, or all do.
fn slope_recomputed<C: Compute, F: Slope>(isa: Isa, f: F, all: bool, [g, x]: [&Operand<'_>; 2], out: &mut Out<'_>) {
    let scratch = || (Buffer::<C>::new(), Buffer::<C>::new());
    fill_with::<C, _>(isa, out, g.is_over() || x.is_over(), scratch, |(pg, px), start, old, y| {
        let n = y.len();
        let (g, x) = (g.block_in(isa, start, n, old, pg), x.block_in(isa, start, n, old, px));
        C::map2(isa, f, g, x, y);
        let again = SlopeAgain(f, g, x);
        if all { extremes::recompute_all(y, again) } else { extremes::recompute([x], y, again) }
    });
}

impl<C: Compute> UnaryVisitor for Gradient<'_, '_, C> {
    type Output = ();
    fn visit<R: UnaryRow>(self) {
        let Gradient(isa, g, saved, out, _) = self;
        if const { R::ROW.has_extreme_slope() } {
            return slope_recomputed::<C, _>(isa, Df::<R>(R2::default()), false, [g, saved], out);
        }
        if const { !has_costly_slope::<R>() } {
            return map2::<C, _>(isa, Df::<R>(R2::default()), g, saved, out);
        }
        let dense = match out.array().dtype() {
            DType::F16 => half_gradient::<R, f16>(isa, g, saved, out),
            DType::BF16 => half_gradient::<R, bf16>(isa, g, saved, out),
            dtype if dtype == C::DTYPE => map2_dense::<C, C>(isa, Df::<R>(R2::default()), g, saved, out),
            DType::F32 | DType::F64 | DType::I64 | DType::U32 | DType::I8 | DType::Bool => None,
        };
        if dense.is_none() {
            map2_blocks::<C, _>(isa, Df::<R>(R2::default()), g, saved, out);
        }
    }
}

/// As [`map2_dense`] in a 16-bit format, with the derivative looked up: in f32, multiplied and rounded once as ever.
fn half_gradient<R: UnaryRow, T: Stored<f32>>(
    isa: Isa,
    g: &Operand<'_>,
    saved: &Operand<'_>,
    out: &mut Out<'_>,
) -> Option<()> {
    let dense = g.dense_or_over::<T>()?;
    let codes = saved.codes().filter(|_| saved.dtype() == T::DTYPE)?;
    let slope = |x: &[f32], y: &mut [f32]| f32::map1(isa, SlopeOf::<R>(R2::default()), x, y);
    let table = SLOPES.get(isa, R::ROW, T::DTYPE, out.array().numel(), &slope)?;
    fill_over::<T>(out, g.is_over(), |start, old, y| {
        let mut slopes = [0.0; BLOCK];
        for (i, y) in y.chunks_mut(BLOCK).enumerate() {
            let (from, n) = (start + i * BLOCK, y.len());
            let g = dense.part(from, n, old);
            look_up(table, &codes[from..from + n], &mut slopes[..n], Some(Beside::new(g, y)));
            f32::map2(isa, Product, g, &slopes[..n], y);
        }
    });
    Some(())
}

pub(super) fn unary_backward<C: Compute>(
    isa: Isa,
    row: Unary,
    g: &Operand<'_>,
    saved: &Operand<'_>,
    out: &mut Out<'_>,
) {
    row.visit(Gradient::<C>(isa, g, saved, out, std::marker::PhantomData));
}

/// The last step of a gradient.
#[derive(Clone, Copy)]
struct Product;

impl Map2 for Product {
    #[inline(always)]
    fn eval<L: Lanes>(self, a: L, b: L) -> L {
        a * b
    }
}

/// Copies and casts: load in the computing type, store in the output's.
pub(super) fn cast<C: Compute>(isa: Isa, x: &Operand<'_>, out: &mut Out<'_>) {
    fill::<C>(isa, out, |start, y| x.load(isa, start, y));
}

/// Copies and casts of integers and booleans, in integers.
pub(super) fn cast_integers(x: &Operand<'_>, out: &mut Out<'_>) {
    /// Of elements `S`, to `T` that are stored as `U`.
    fn to<S: Integer, T: Integer, U: bytemuck::Pod>(
        x: &Operand<'_>,
        stored: impl Fn(T) -> U + Sync,
        out: &mut Out<'_>,
    ) {
        let all = elements::<S>(x.values().bytes);
        fill_as::<U>(out, |start, y| {
            x.runs(start, y.len(), |from, stride, range| {
                y[range]
                    .iter_mut()
                    .enumerate()
                    .for_each(|(i, y)| *y = stored(T::from_integer(all[from + i * stride].as_integer())));
            });
        });
    }
    fn from<S: Integer>(x: &Operand<'_>, out: &mut Out<'_>) {
        match out.array().dtype() {
            DType::F64 => to::<S, f64, f64>(x, |v| v, out),
            DType::F32 => to::<S, f32, f32>(x, |v| v, out),
            DType::F16 => to::<S, f16, f16>(x, |v| v, out),
            DType::BF16 => to::<S, bf16, bf16>(x, |v| v, out),
            DType::I64 => to::<S, i64, i64>(x, |v| v, out),
            DType::U32 => to::<S, u32, u32>(x, |v| v, out),
            DType::I8 => to::<S, i8, i8>(x, |v| v, out),
            DType::Bool => to::<S, bool, u8>(x, |v| v as u8, out),
        }
    }
    binade_tensor::with_element!(x.dtype(), S => from::<S>(x, out));
}
