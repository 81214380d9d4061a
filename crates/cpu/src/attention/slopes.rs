//! Weights of scores and their slopes, element by element.

use crate::simd::{Lanes, Map1, Map2};

/// A weight of its score: `e^(x − lse)`. It is at most 1, which the exponential is not where the score of the forward
/// pass was rounded elsewhere, as on tiles, and is large.
#[derive(Clone, Copy)]
pub(crate) struct ExpMinus(pub(crate) f64);

impl Map1 for ExpMinus {
    #[inline(always)]
    fn eval<L: Lanes>(self, x: L) -> L {
        (x - L::splat(self.0)).min(L::splat(0.0)).exp()
    }
}

/// `p·(dp − delta)·scale`; 0 where p is, if dp and delta have overflowed: a hidden key has no part in it.
#[derive(Clone, Copy)]
pub(crate) struct ScoreSlope {
    pub(crate) delta: f64,
    pub(crate) scale: f64,
    /// Whether operands are finite. Else what is hidden is told apart.
    pub(crate) finite: bool,
}

impl Map2 for ScoreSlope {
    #[inline(always)]
    fn eval<L: Lanes>(self, p: L, dp: L) -> L {
        let (zero, slope) = (L::splat(0.0), p * (dp - L::splat(self.delta)) * L::splat(self.scale));
        if self.finite { L::select(p.eq(zero), zero, slope) } else { slope }
    }
}

/// NaN of what is not finite, else 0.
#[derive(Clone, Copy)]
pub(super) struct TimesZero;

impl Map2 for TimesZero {
    #[inline(always)]
    fn eval<L: Lanes>(self, x: L, _: L) -> L {
        x * L::splat(0.0)
    }
}
