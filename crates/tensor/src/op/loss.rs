//! Elementwise losses of a prediction x, a target t and a parameter p: one row each, reduced in the same pass.

use smallvec::smallvec;

use super::bound::Bound;
use super::check::{Check, Outs};
use super::family::{Family, Numerics};
use super::program::{Builder, Value};
use super::{Backward, Binary, Op, Reduce, Unary, View, trace};
use crate::number::Number;
use crate::samples::{Inputs, Sampler};
use crate::{Array, Dims, Result, Shape};

/// How a loss is reduced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reduction {
    /// One loss per element.
    None,
    /// Mean.
    Mean,
    /// Sum.
    Sum,
}

/// A loss row as a type.
pub trait LossRow: Copy + Send + Sync + 'static {
    /// The loss of one element.
    fn f<N: Number>(x: N, t: N, p: N) -> N;
    /// Its derivative by the prediction.
    fn dx<N: Number>(x: N, t: N, p: N) -> N;
    /// Its derivative by the target.
    fn dt<N: Number>(x: N, t: N, p: N) -> N;
}

/// Code generic over the row, run by [`Loss::visit`].
pub trait LossVisitor {
    /// Result.
    type Output;
    /// Runs for row `R`.
    fn visit<R: LossRow>(self) -> Self::Output;
}

/// One row per loss: variant, name, numeric class, f, ∂f/∂x, ∂f/∂t.
macro_rules! losses {
    ($($(#[$doc:meta])* $variant:ident, $name:literal, $class:ident,
       |$x:ident, $t:ident, $p:ident| $f:expr, $dx:expr, $dt:expr;)*) => {
        /// An elementwise loss. The classes are those of PyTorch's autocast lists.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Loss { $($(#[$doc])* $variant,)* }

        impl Loss {
            /// Every row.
            pub const ALL: &'static [Loss] = &[$(Loss::$variant),*];
            /// The operator's name.
            pub const fn name(self) -> &'static str { match self { $(Loss::$variant => $name),* } }
            /// Its numeric class.
            pub const fn numerics(self) -> Numerics { match self { $(Loss::$variant => Numerics::$class),* } }
            /// Runs `visitor` with the row as a type.
            pub fn visit<V: LossVisitor>(self, visitor: V) -> V::Output {
                match self { $(Loss::$variant => visitor.visit::<rows::$variant>()),* }
            }
        }

        $(#[allow(unused_variables)]
        impl LossRow for rows::$variant {
            #[inline(always)]
            fn f<N: Number>($x: N, $t: N, $p: N) -> N { $f }
            #[inline(always)]
            fn dx<N: Number>($x: N, $t: N, $p: N) -> N { $dx }
            #[inline(always)]
            fn dt<N: Number>($x: N, $t: N, $p: N) -> N { $dt }
        })*

        mod rows { $(#[derive(Clone, Copy)] pub struct $variant;)* }
    };
}

losses! {
    /// `(x − t)²`.
    Mse, "mse_loss", F32, |x, t, p| square(x - t), twice(x - t), -twice(x - t);
    /// `|x − t|`. The gradient at 0 is 0.
    L1, "l1_loss", F32, |x, t, p| (x - t).abs(), (x - t).sign(), -(x - t).sign();
    /// `|d| < p ? d²/2p : |d| − p/2` with d = x − t.
    SmoothL1, "smooth_l1_loss", F32, |x, t, p| smooth_l1(x - t, p), smooth_l1_slope(x - t, p),
        -smooth_l1_slope(x - t, p);
    /// `|d| ≤ p ? d²/2 : p·(|d| − p/2)` with d = x − t (Huber 1964).
    Huber, "huber_loss", F32, |x, t, p| huber(x - t, p), (x - t).max(-p).min(p), -(x - t).max(-p).min(p);
    /// `−t·ln σ(x) − (1 − t)·ln(1 − σ(x))` as `max(x, 0) − x·t + ln(1 + e^−|x|)`.
    BceWithLogits, "binary_cross_entropy_with_logits", F32, |x, t, p| bce_with_logits(x, t), x.sigmoid() - t, -x;
    /// `−t·ln x − (1 − t)·ln(1 − x)`, logarithms limited to −100 from below as in PyTorch. Unsafe in 16 bit: autocast
    /// bans it.
    Bce, "binary_cross_entropy", Banned, |x, t, p| bce(x, t), (x - t) / (x * (N::splat(1.0) - x)).max(N::splat(1e-12)),
        log_below(-x) - log_limited(x);
    /// `t·(ln t − x)` of log-probabilities x; 0 where t = 0, NaN where t < 0.
    KlDiv, "kl_div", F32, |x, t, p| unless_zero(x, t, t * (t.ln() - x)), -t,
        unless_zero(x, t, t.unless(t.eq(N::splat(0.0)), 1.0).ln() - x + N::splat(1.0));
    /// `eᵗ·(t − x)` of log-probabilities x and t.
    KlDivLog, "kl_div", F32, |x, t, p| t.exp() * (t - x), -t.exp(), t.exp() * (t - x + N::splat(1.0));
    /// `eˣ − t·x`: x is the logarithm of the rate.
    PoissonNll, "poisson_nll_loss", F32, |x, t, p| x.exp() - t * x, x.exp() - t, -x;
    /// `x − t·ln(x + p)`: x is the rate.
    PoissonNllRate, "poisson_nll_loss", F32, |x, t, p| x - t * (x + p).ln(), N::splat(1.0) - t / (x + p), -(x + p).ln();
    /// `t = 1 ? x : max(p − x, 0)` for labels t = ±1; NaN for a label NaN.
    HingeEmbedding, "hinge_embedding_loss", F32, |x, t, p| by_label(t, x, (p - x).max(N::splat(0.0))),
        by_label(t, N::splat(1.0), hinge_slope(x, p)), N::splat(0.0);
    /// `ln(1 + e^(−t·x))` for labels t = ±1.
    SoftMargin, "soft_margin_loss", F32, |x, t, p| soft_margin(t * x), -t * (-(t * x)).sigmoid(),
        -x * (-(t * x)).sigmoid();
}

#[inline(always)]
fn square<N: Number>(d: N) -> N {
    d * d
}

#[inline(always)]
fn twice<N: Number>(d: N) -> N {
    d + d
}

#[inline(always)]
fn smooth_l1<N: Number>(d: N, p: N) -> N {
    let (a, half) = (d.abs(), N::splat(0.5));
    // The quotient before the square, which may leave the range.
    N::select(a.lt(p), half * a * (a / p), a - half * p)
}

#[inline(always)]
fn smooth_l1_slope<N: Number>(d: N, p: N) -> N {
    N::select(d.abs().lt(p), d / p.unless(p.eq(N::splat(0.0)), 1.0), d.sign())
}

#[inline(always)]
fn huber<N: Number>(d: N, p: N) -> N {
    let (a, half) = (d.abs(), N::splat(0.5));
    N::select(a.le(p), half * a * a, p * (a - half * p))
}

#[inline(always)]
fn bce_with_logits<N: Number>(x: N, t: N) -> N {
    x.max(N::splat(0.0)) - x * t + (-x.abs()).exp().ln_1p()
}

/// `max(ln x, −100)`.
#[inline(always)]
fn log_limited<N: Number>(x: N) -> N {
    let limited = x.abs().lt(N::splat(3.7e-44));
    x.unless(limited, 1.0).ln().max(N::splat(-100.0)).unless(limited, -100.0)
}

/// `max(ln(1 + y), −100)`.
#[inline(always)]
fn log_below<N: Number>(y: N) -> N {
    let limited = y.eq(N::splat(-1.0));
    y.unless(limited, 0.0).ln_1p().max(N::splat(-100.0)).unless(limited, -100.0)
}

#[inline(always)]
fn bce<N: Number>(x: N, t: N) -> N {
    -(t * log_limited(x) + (N::splat(1.0) - t) * log_below(-x))
}

/// 0 where t is 0, and x where that is NaN; else `y`.
#[inline(always)]
fn unless_zero<N: Number>(x: N, t: N, y: N) -> N {
    N::select(t.eq(N::splat(0.0)), N::select(x.eq(x), N::splat(0.0), x), y)
}

/// One value for positive labels, another for the others; a label that is NaN itself.
#[inline(always)]
fn by_label<N: Number>(t: N, positive: N, other: N) -> N {
    N::select(N::splat(0.0).lt(t), positive, N::select(t.eq(t), other, t))
}

/// −1 inside the margin p, and 0 outside; NaN stays.
#[inline(always)]
fn hinge_slope<N: Number>(x: N, p: N) -> N {
    N::select(x.lt(p), N::splat(-1.0), N::select(x.eq(x), N::splat(0.0), x))
}

/// `ln(1 + e^−m)` without overflow.
#[inline(always)]
fn soft_margin<N: Number>(m: N) -> N {
    (-m).max(N::splat(0.0)) + (-m.abs()).exp().ln_1p()
}

/// [`Op::Loss`].
#[derive(Clone, Copy, Debug)]
pub struct LossOp {
    /// The formula.
    pub loss: Loss,
    /// Its parameter (β, δ, a margin), rounded to the computation's dtype; unused by some.
    pub parameter: f64,
    /// Mean over all elements, sum, or none.
    pub reduction: Reduction,
}

impl Family for LossOp {
    fn name(&self) -> &'static str {
        self.loss.name()
    }

    fn numerics(&self) -> Numerics {
        self.loss.numerics()
    }

    fn outs(&self, check: &Check<'_>) -> Result<Outs> {
        let (p, ins) = (self.parameter, check.ins);
        check.domain(!p.is_nan(), "the loss's number", "a number", p)?;
        check.domain(self.loss != Loss::Huber || p > 0.0, "delta", "above 0", p)?;
        check.domain(self.loss != Loss::SmoothL1 || p >= 0.0, "beta", "at least 0", p)?;
        check.domain(self.loss != Loss::PoissonNllRate || p >= 0.0, "eps", "at least 0", p)?;
        check.count(2)?;
        check.floats(0..2)?;
        check.same_shape(0, 1)?;
        Ok(smallvec![check.dense(self.reduction.shape(*ins[0].shape()))])
    }

    /// Terms may cancel (x·t against max(x, 0)); then a mean in blocks of 16 interleaved sums.
    fn bound(&self, _ins: &[&Array]) -> Bound {
        if self.reduction == Reduction::None { Bound::Scale(8.0) } else { Bound::Scale(32.0) }
    }

    fn samples(&self, s: &Sampler<'_>) -> Vec<Inputs> {
        let sizes: [&[usize]; 3] = [&[5, 7], &[3000], &[]];
        // Of equal losses the roundings add up.
        let equal = Op::View(View::Expand(Shape::from_slice(&[3000])));
        let equal = inputs(self.loss, s, &[]).iter().map(|one| s.one(&equal, &[one])).collect();
        sizes.iter().flat_map(|size| s.vary(inputs(self.loss, s, size))).chain([equal]).collect()
    }

    fn define(&self, b: &mut Builder) -> Result<Option<Value>> {
        let each = trace::loss(b, self.loss, self.parameter, None, b.input(0), b.input(1))?;
        Ok(Some(reduce_loss(b, self.reduction, each)?))
    }
}

/// Predictions and targets in the domain of a loss.
fn inputs(loss: Loss, s: &Sampler<'_>, size: &[usize]) -> Inputs {
    let (x, t) = (s.x(size, 1), s.x(size, 2));
    let run = |row: Unary, x: &Array| s.one(&Op::Unary(row), &[x]);
    let unit = |x: &Array| run(Unary::Sigmoid, x);
    match loss {
        Loss::Mse | Loss::L1 | Loss::SmoothL1 | Loss::Huber | Loss::KlDivLog => vec![x, t],
        Loss::BceWithLogits | Loss::KlDiv => vec![x, unit(&t)],
        Loss::Bce => vec![unit(&x), unit(&t)],
        Loss::PoissonNll => vec![x, run(Unary::Square, &t)],
        Loss::PoissonNllRate => vec![run(Unary::Square, &x), run(Unary::Square, &t)],
        Loss::HingeEmbedding | Loss::SoftMargin => vec![x, run(Unary::Sign, &t)],
    }
}

impl Reduction {
    /// Shape of a loss, of which each element has one.
    pub(super) fn shape(self, each: Shape) -> Shape {
        if self == Reduction::None { each } else { Shape::SCALAR }
    }
}

/// A loss per element, reduced.
pub(super) fn reduce_loss(b: &mut Builder, reduction: Reduction, each: Value) -> Result<Value> {
    let kind = match reduction {
        Reduction::None => return Ok(each),
        Reduction::Mean => Reduce::Mean,
        Reduction::Sum => Reduce::Sum,
    };
    let all = Dims::all(b.shape(each).rank());
    let total = b.reduce(kind, each, all)?;
    b.reshape(total, Shape::SCALAR)
}

/// [`Backward::Loss`].
#[derive(Clone, Copy, Debug)]
pub struct LossBackward {
    /// The loss.
    pub of: LossOp,
    /// By the target.
    pub target: bool,
}

impl Family for LossBackward {
    fn name(&self) -> &'static str {
        "loss_backward"
    }

    fn outs(&self, check: &Check<'_>) -> Result<Outs> {
        let ins = check.ins;
        check.count(3)?;
        check.same_shape(1, 2)?;
        if ins[1].shape().broadcast(ins[0].shape()) != Some(*ins[1].shape()) {
            return check.shape("the gradient of the loss, predictions and targets");
        }
        Ok(smallvec![check.like(1)])
    }

    /// Of the plain ones a difference, and products with the share and the gradient.
    fn bound(&self, _ins: &[&Array]) -> Bound {
        match self.of.loss {
            Loss::Mse | Loss::L1 | Loss::Huber | Loss::HingeEmbedding => Bound::Scale(3.0),
            Loss::SmoothL1 | Loss::BceWithLogits | Loss::Bce | Loss::KlDiv | Loss::KlDivLog => Bound::Scale(6.0),
            Loss::PoissonNll | Loss::PoissonNllRate | Loss::SoftMargin => Bound::Scale(6.0),
        }
    }

    fn samples(&self, s: &Sampler<'_>) -> Vec<Inputs> {
        let g = s.x(&self.of.reduction.shape(Shape::from_slice(&[5, 7])), 9);
        vec![[vec![g], inputs(self.of.loss, s, &[5, 7])].concat()]
    }

    fn define(&self, b: &mut Builder) -> Result<Option<Value>> {
        let (g, LossOp { loss, parameter, reduction }, target) = (b.input(0), &self.of, &self.target);
        let (x, t) = (b.input(1), b.input(2));
        let slope = trace::loss(b, *loss, *parameter, Some(*target as usize), x, t)?;
        let n = if *reduction == Reduction::Mean { b.shape(x).numel() as f64 } else { 1.0 };
        let share = b.scalar(Binary::Mul, slope, 1.0 / n)?;
        let product = b.binary(Binary::Mul, share, g)?;
        // A constant slope has no shape of its own.
        let shape = b.shape(x);
        let whole = b.shape(product) == shape;
        Ok(Some(if whole { product } else { b.op(Op::View(View::Expand(shape)), &[product])? }))
    }
}

pub(super) fn catalogue() -> Vec<Op> {
    let mut ops: Vec<Op> = Vec::new();
    for reduction in [Reduction::None, Reduction::Mean, Reduction::Sum] {
        for &loss in Loss::ALL {
            let parameter = 0.7;
            ops.push(Op::Loss { loss, parameter, reduction });
            ops.extend([false, true].map(|target| Op::Backward(Backward::Loss { loss, parameter, reduction, target })));
        }
    }
    ops
}
