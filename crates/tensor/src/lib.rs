//! Tensors in f64, f32, f16 and bf16 with proven error bounds: compute in f32, store in 16 bit.
