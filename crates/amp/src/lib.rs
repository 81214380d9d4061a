//! Autocast policies and loss scaling: mixed precision training with the semantics of PyTorch.
