//! Reference networks for mixed precision training.

mod small_cnn;

pub use small_cnn::{SmallCnn, SmallCnnConfig};
