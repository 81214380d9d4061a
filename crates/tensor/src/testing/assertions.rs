//! Error bounds as assertions of property tests.

use proptest::test_runner::TestCaseError;

use super::check_op;
use crate::format::Format;
use crate::{Array, DType, Device, Op};

/// Fails where `found` is further from `exact` than `ulps` units in the last place of the format. It fails too where
/// one is NaN or infinite and the other not what rounding gives.
///
/// # Errors
/// The distance and both values.
pub fn assert_within_ulps(format: Format, found: f64, exact: f64, ulps: f64) -> std::result::Result<(), TestCaseError> {
    let rounded = format.round(exact);
    if found == rounded || found.is_nan() && exact.is_nan() {
        return Ok(());
    }
    let off = (found - exact).abs() / format.ulp(exact);
    if off <= ulps {
        Ok(())
    } else {
        Err(TestCaseError::fail(format!("{found:e} is {off} ulp from {exact:e}, allowed {ulps}")))
    }
}

/// Fails where an operator, of the library or a [`crate::op::CustomOp`], is further from its definition than it states.
///
/// # Errors
/// The first element that is; the operator fails.
pub fn assert_op(op: &Op, ins: &[Array], device: &Device, dtype: DType) -> std::result::Result<(), TestCaseError> {
    match check_op(op, ins, device, dtype) {
        Ok((_, None)) => Ok(()),
        Ok((_, Some(failure))) => Err(TestCaseError::fail(failure)),
        Err(error) => Err(TestCaseError::fail(error.to_string())),
    }
}
