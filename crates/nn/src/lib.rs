//! Layers, losses and optimisers that keep norms, softmax, losses and optimiser state in f32.
