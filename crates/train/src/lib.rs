//! Training loop, data sets, checkpoints, metrics and reports.

mod checkpoint;
pub mod data;
mod error;
mod fit;
pub mod images;
pub mod interrupt;
mod metrics;
mod recipe;
mod report;
mod run;
mod summary;

pub use data::{Batch, Data, InMemory, Splits, Target};
pub use error::{Error, Result};
pub use fit::{Config, Precision, fit};
pub use metrics::{EpochMetrics, Metrics, Record, StepMetrics};
pub use report::report;
pub use run::{Run, RunConfig, train};
pub use summary::{PeakBytes, Summary, table};
