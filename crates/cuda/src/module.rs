//! The PTX that ships with the crate, a module per family of operators, loaded when a kernel of it first runs.

macro_rules! modules {
    ($($(#[$doc:meta])* $name:ident, $file:literal;)*) => {
        /// A family's kernels.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Module { $($(#[$doc])* $name,)* }

        impl Module {
            /// Every module.
            pub const ALL: &'static [Module] = &[$(Module::$name),*];

            /// Its file in `kernels/`, without `.cu` or `.ptx`.
            pub const fn name(self) -> &'static str {
                match self { $(Module::$name => $file,)* }
            }

            /// The PTX.
            pub const fn text(self) -> &'static str {
                match self { $(Module::$name => include_str!(concat!("../kernels/", $file, ".ptx")),)* }
            }
        }
    };
}

modules! {
    /// Functions of one tensor.
    Unary, "unary";
    /// Functions of two tensors.
    Binary, "binary";
    /// Functions of three tensors.
    Ternary, "ternary";
    /// Losses.
    Loss, "loss";
    /// Copies, casts, fills, comparisons, selection.
    Copy, "copy";
    /// Random numbers and dropout.
    Random, "random";
    /// Reductions and scans.
    Reduce, "reduce";
    /// Softmax and cross-entropy.
    Softmax, "softmax";
    /// Matrix products.
    Product, "product";
    /// Normalisations.
    Norm, "norm";
    /// Multi-tensor passes.
    Update, "update";
    /// Gathering, scattering, embeddings.
    Index, "index";
    /// Convolutions.
    Conv, "conv";
    /// Attention.
    Attention, "attention";
    /// Pooling, linear maps of dimensions.
    Window, "window";
}
