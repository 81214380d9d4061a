use crate::cpu::planes::Work;
use crate::op::{Conv2d, Epilogue};
use crate::{Array, ArrayMut, Result};
pub(super) fn forward(_: &Work<'_>, _: &Conv2d, _: Epilogue, _: &[&Array], _: &[&[u8]], _: &mut [ArrayMut<'_>]) -> Result<bool> { Ok(false) }
pub(super) fn input_backward(_: &Work<'_>, _: &Conv2d, _: &[&Array], _: &[&[u8]], _: Option<(&Array, &[u8])>, _: &mut ArrayMut<'_>) -> Result<bool> { Ok(false) }
pub(super) fn weight_backward(_: &Work<'_>, _: &Conv2d, _: &[&Array], _: &[&[u8]], _: &mut ArrayMut<'_>) -> Result<bool> { Ok(false) }
