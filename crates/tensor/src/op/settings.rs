//! Domains of operators' numbers, PyTorch's where it has one, so that none of them makes a result NaN without a word.

use super::{Binary, Distribution, Loss, Op};
use crate::{Error, Result};

/// Fails unless the operator's numbers lie in their domains.
pub(super) fn check(op: &Op) -> Result<()> {
    let unless = |ok: bool, what: &str, allowed: &str, found: f64| {
        if ok {
            Ok(())
        } else {
            Err(Error::Argument { op: op.name(), message: format!("{what} must be {allowed}, got {found}") })
        }
    };
    if let Op::Norm(norm) = op {
        unless(norm.eps >= 0.0 && (norm.eps as f32).is_finite(), "eps", "at least 0 and finite in f32", norm.eps)?;
    }
    if let Op::Loss { loss, parameter, .. } = op {
        let p = *parameter;
        unless(!p.is_nan(), "the loss's number", "a number", p)?;
        unless(*loss != Loss::Huber || p > 0.0, "delta", "above 0", p)?;
        unless(*loss != Loss::SmoothL1 || p >= 0.0, "beta", "at least 0", p)?;
        unless(*loss != Loss::PoissonNllRate || p >= 0.0, "eps", "at least 0", p)?;
    }
    if let Op::Scalar { op: Binary::Celu, value, reversed: false } = op {
        unless(*value != 0.0 && !value.is_nan(), "alpha", "a number other than 0", *value)?;
    }
    if let Op::Random { distribution: Distribution::Uniform { low, high }, .. } = op {
        unless(
            low <= high && (high - low).is_finite(),
            "the range from low to high",
            "finite and not below 0",
            high - low,
        )?;
    }
    if let Op::Random { distribution: Distribution::Normal { mean, std }, .. } = op {
        unless(mean.is_finite(), "the mean", "finite", *mean)?;
        unless(*std >= 0.0 && std.is_finite(), "the standard deviation", "at least 0 and finite", *std)?;
    }
    Ok(())
}
