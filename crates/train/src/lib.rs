//! Training loop, data sets, checkpoints, metrics and reports.
