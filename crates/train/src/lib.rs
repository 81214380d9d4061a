//! Training loop, data sets, checkpoints, metrics and reports.

#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

mod checkpoint;
pub mod data;
mod error;
mod fit;
mod idx;
pub mod images;
pub mod interrupt;
mod lock;
mod metrics;
mod progress;
mod recipe;
mod report;
mod run;
mod summary;

pub use data::{Batch, Data, InMemory, SampleResult, Splits, Target};
pub use error::{Error, Result};
pub use fit::{Config, Output, Precision, fit};
pub use metrics::{EpochMetrics, Metrics, Record, StepMetrics};
pub use report::report;
pub use run::{Run, RunConfig, train};
pub use summary::{PeakBytes, Summary, table};
