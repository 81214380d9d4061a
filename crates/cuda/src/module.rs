//! The PTX that ships with the crate, a module per family of operators, loaded when a kernel of it first runs.

use std::io::Read;
use std::sync::OnceLock;

use flate2::read::GzDecoder;

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

            /// The PTX as `build.rs` compresses it.
            const fn compressed(self) -> &'static [u8] {
                match self { $(Module::$name => include_bytes!(concat!(env!("OUT_DIR"), "/", $file, ".ptx.gz")),)* }
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
    /// Matrix products on tensor cores of capability 7.5.
    ProductSm75, "product_sm75";
    /// Matrix products on tensor cores of capability 8.0 and more.
    ProductSm80, "product_sm80";
    /// Normalisations.
    Norm, "norm";
    /// Multi-tensor passes.
    Update, "update";
    /// Gathering, scattering, embeddings.
    Index, "index";
    /// Convolutions.
    Conv, "conv";
    /// Convolutions on tensor cores of capability 7.5.
    ConvSm75, "conv_sm75";
    /// Convolutions on tensor cores of capability 8.0 and more.
    ConvSm80, "conv_sm80";
    /// Attention.
    Attention, "attention";
    /// Attention on tensor cores of capability 7.5.
    AttentionSm75, "attention_sm75";
    /// Attention on tensor cores of capability 8.0 and more.
    AttentionSm80, "attention_sm80";
    /// Pooling, linear maps of dimensions.
    Window, "window";
}

impl Module {
    /// The PTX: the file of the module in `kernels/`.
    pub fn text(self) -> &'static str {
        const COUNT: usize = Module::ALL.len();
        static TEXTS: [OnceLock<String>; COUNT] = [const { OnceLock::new() }; COUNT];
        TEXTS[self as usize].get_or_init(|| {
            let mut text = String::new();
            // What the build wrote is whole: a gzip file has a checksum, and the tests compare each with its source.
            let read = GzDecoder::new(self.compressed()).read_to_string(&mut text);
            debug_assert!(read.is_ok(), "{}: {read:?}", self.name());
            text
        })
    }
}
