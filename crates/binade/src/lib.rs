//! Mixed precision deep learning: f16 and bf16 training that is as good as f32.
