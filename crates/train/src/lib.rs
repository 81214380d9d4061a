//! Training loop, data sets, checkpoints, metrics and reports.

#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

mod answers;
mod augment;
mod batch;
mod checkpoint;
mod config;
mod data;
mod error;
mod fit;
mod folder;
mod gallery;
mod idx;
mod image_set;
pub mod images;
pub mod interrupt;
mod language;
mod lock;
mod metrics;
mod noise;
mod optimizer;
mod picture;
mod pictures;
mod pixels;
mod progress;
mod rand_augment;
mod recipe;
mod report;
mod resize;
mod run;
mod sealed;
mod summary;
mod task;
mod text;

pub use answers::Answers;
pub use augment::{Augment, Flip};
pub use batch::{Batch, Check, epoch_order};
pub use config::{Config, Precision};
pub use data::{Data, InMemory, Numbers, Sample, SampleResult, Splits, Values};
pub use error::{Error, Result};
pub use fit::{Callback, Output, fit};
pub use gallery::Picture;
pub use language::Language;
pub use metrics::{EpochMetrics, EvaluationMetrics, Metrics, Record, StepMetrics};
pub use noise::Noised;
pub use optimizer::OptimizerChoice;
pub use picture::{grid, png, write_png};
pub use pictures::{Pictures, Unconditional};
pub use pixels::Pixels;
pub use rand_augment::RandAugment;
pub use report::report;
pub use resize::{Filter, Resize};
pub use run::{Build, Run, RunConfig, Trainer, train};
pub use summary::{PeakBytes, Summary, table};
pub use task::{Classify, Made, Regress, Score, Task, TextUnit, Views};
pub use text::{Corpus, Decoder, Stop, Tokenizer, Vocabulary};
