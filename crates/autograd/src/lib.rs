//! Reverse-mode differentiation over mixed-precision tensors.
