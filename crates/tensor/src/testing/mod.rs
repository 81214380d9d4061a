//! What numerical code is tested with: error bounds as assertions, and proptest strategies for shapes, layouts and
//! values that look for trouble. Feature `testing`, for `[dev-dependencies]`; feature `oracle` has the checks without
//! proptest.
//!
//! ```
//! use binade_tensor::testing::{assert_within_ulps, values};
//! use binade_tensor::{DType, f16, format::Format};
//! use proptest::prelude::*;
//!
//! // A user's function, in f16: the length of a vector. Squares would overflow from 256 on; scaling prevents it.
//! fn length(x: f16, y: f16) -> f16 {
//!     let (x, y) = (x.to_f32(), y.to_f32());
//!     f16::from_f32(x.hypot(y))
//! }
//!
//! let mut runner = proptest::test_runner::TestRunner::default();
//! runner
//!     .run(&(values(DType::F16), values(DType::F16)), |(x, y)| {
//!         let found = length(f16::from_f64(x), f16::from_f64(y)).to_f64();
//!         assert_within_ulps(Format::F16, found, x.hypot(y), 0.51)?;
//!         Ok(())
//!     })
//!     .unwrap();
//! ```

#[cfg(feature = "testing")]
mod assertions;
mod bounds;
#[cfg(feature = "testing")]
mod empties;
#[cfg(feature = "testing")]
mod strategies;

#[cfg(feature = "testing")]
pub use assertions::{assert_op, assert_within_ulps};
pub use bounds::{Check, Exact, check_op};
#[cfg(feature = "testing")]
pub use empties::empties;
#[cfg(feature = "testing")]
pub use strategies::{array, array_of, layouts, shapes, values};
