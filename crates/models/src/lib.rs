//! Reference networks for mixed precision training.
