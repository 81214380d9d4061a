//! The functions of [`Lanes`](super::Lanes) against their bounds, and rounding to 16 bit, at every level of the
//! instruction set.

mod functions;
mod rounding;
