//! Functions and conversions in vectors.

mod functions;
mod rounding;
