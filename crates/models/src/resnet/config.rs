//! Extents of residual networks, and their names in transformers.

use serde_json::{Map, Value, json};

use crate::timm::{self, Timm};
use crate::{Keys, Library};

/// What images go through before the first stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stem {
    /// A 7×7 convolution and a pooling, each of which halves the image.
    Halving,
    /// A 3×3 convolution that keeps the size, for small images.
    Keeping,
}

/// Extents of a [`ResNet`](crate::ResNet).
#[derive(Clone, Debug, PartialEq)]
pub struct ResNetConfig {
    /// Channels of the image.
    pub in_channels: usize,
    /// What comes before the stages.
    pub stem: Stem,
    /// Channels of the stem.
    pub stem_channels: usize,
    /// Channels of the stages' 3×3 convolutions, of at most four.
    pub channels: Vec<usize>,
    /// Blocks of each stage.
    pub blocks: Vec<usize>,
    /// Blocks of three convolutions, the last of which has four times as many channels, in place of two.
    pub bottleneck: bool,
    /// Whether the first stage halves the image too.
    pub halve_first: bool,
    /// Whether bottlenecks halve the image in their first convolution (the paper) or in the 3×3 (torchvision, timm).
    pub halve_early: bool,
    /// Classes; without any, the result is the mean over the image.
    pub classes: usize,
    /// Whether blocks begin as their shortcuts: the weights of their last norms are 0 at first.
    pub zero_init: bool,
    /// Whose names and `config.json` it has.
    pub library: Library,
    /// timm's name.
    pub architecture: String,
    /// timm's account of how images are prepared; null if there is none.
    pub pretrained_cfg: Value,
    /// Whether blocks are computed again for backward, in place of keeping their inner values.
    pub recompute: bool,
}

impl Default for ResNetConfig {
    /// ResNet-18 for CIFAR: a 3×3 stem, no pooling before the stages.
    fn default() -> Self {
        ResNetConfig { stem: Stem::Keeping, classes: 10, ..ResNetConfig::resnet18() }
    }
}

impl ResNetConfig {
    /// ResNet-18 for ImageNet.
    pub fn resnet18() -> ResNetConfig {
        ResNetConfig {
            in_channels: 3,
            stem: Stem::Halving,
            stem_channels: 64,
            channels: vec![64, 128, 256, 512],
            blocks: vec![2, 2, 2, 2],
            bottleneck: false,
            halve_first: false,
            halve_early: false,
            classes: 1000,
            zero_init: true,
            library: Library::Timm,
            architecture: "resnet18".into(),
            pretrained_cfg: Value::Null,
            recompute: false,
        }
    }

    /// With the stem and the first stage of so many channels, and twice as many in each next stage.
    #[must_use]
    pub fn with_width(self, width: usize) -> ResNetConfig {
        let channels = (0..self.blocks.len()).map(|stage| width << stage).collect();
        ResNetConfig { stem_channels: width, channels, ..self }
    }

    /// The extents of a `config.json` of timm or transformers.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config): every key that is missing, not built or not known.
    pub fn read(config: &Value) -> crate::Result<ResNetConfig> {
        let (config, mut keys) = match Library::of(config) {
            Library::Timm => ResNetConfig::read_timm(config),
            Library::Transformers => ResNetConfig::read_transformers(config),
        }?;
        config.problem().into_iter().for_each(|problem| keys.problem(problem));
        keys.finish()?;
        Ok(config)
    }

    fn read_timm(config: &Value) -> crate::Result<(ResNetConfig, Keys)> {
        let entry = |name: &str| {
            let (blocks, layers) = match name {
                "resnet18" => ("BasicBlock", [2, 2, 2, 2]),
                "resnet34" => ("BasicBlock", [3, 4, 6, 3]),
                "resnet26" => ("Bottleneck", [2, 2, 2, 2]),
                "resnet50" => ("Bottleneck", [3, 4, 6, 3]),
                "resnet101" => ("Bottleneck", [3, 4, 23, 3]),
                "resnet152" => ("Bottleneck", [3, 8, 36, 3]),
                _ => return None,
            };
            Some(json!({"block": blocks, "layers": layers}))
        };
        let Timm { architecture, args: mut keys, pretrained_cfg } = Timm::read(config, entry)?;
        let block: String = keys.required("block");
        let stem: String = keys.or("stem_type", String::new());
        let stem = match stem.as_str() {
            "" => Stem::Halving,
            // Ours: timm has no such stem, and its loader refuses the shape of this one's weight.
            "cifar" => Stem::Keeping,
            other => {
                keys.problem(format!("stem_type is {other:?}, which is not built"));
                Stem::Halving
            }
        };
        for (key, built) in [
            ("output_stride", json!(32)),
            ("global_pool", json!("avg")),
            ("cardinality", json!(1)),
            ("base_width", json!(64)),
            ("replace_stem_pool", json!(false)),
            ("block_reduce_first", json!(1)),
            ("down_kernel_size", json!(1)),
            ("avg_down", json!(false)),
            ("act_layer", json!("relu")),
            ("norm_layer", json!("batchnorm2d")),
            ("block_args", json!({})),
        ] {
            keys.only(key, &[built]);
        }
        for key in ["drop_rate", "drop_path_rate", "drop_block_rate"] {
            keys.only(key, &[json!(0), json!(0.0)]);
        }
        keys.only("aa_layer", &[]);
        // timm's plain stem has 64 channels whatever this says.
        let width: usize = keys.or("stem_width", 64);
        let channels: Vec<usize> = keys.or("channels", vec![64, 128, 256, 512]);
        let config = ResNetConfig {
            in_channels: keys.or("in_chans", 3),
            stem,
            stem_channels: if stem == Stem::Keeping { width } else { 64 },
            channels,
            blocks: keys.required("layers"),
            bottleneck: block == "Bottleneck",
            classes: keys.or("num_classes", 1000),
            zero_init: keys.or("zero_init_last", true),
            architecture,
            pretrained_cfg,
            ..ResNetConfig::resnet18()
        };
        if !["BasicBlock", "Bottleneck"].contains(&block.as_str()) {
            keys.problem(format!("block is {block:?}, which is not built"));
        }
        Ok((config, keys))
    }

    fn read_transformers(config: &Value) -> crate::Result<(ResNetConfig, Keys)> {
        let mut keys = Keys::new("the config.json of a ResNet of transformers", config)?;
        keys.transformers("resnet", &["ResNetForImageClassification"]);
        keys.only("hidden_act", &[json!("relu")]);
        // Of the backbone.
        keys.harmless(&["out_features", "out_indices", "stage_names", "tie_word_embeddings"]);
        let kind = keys.or("layer_type", "bottleneck".to_string());
        let bottleneck = kind == "bottleneck";
        if !bottleneck && kind != "basic" {
            keys.problem(format!("layer_type is {kind:?}, which is not built"));
        }
        let widths: Vec<usize> = keys.or("hidden_sizes", vec![256, 512, 1024, 2048]);
        if bottleneck && widths.iter().any(|width| !width.is_multiple_of(EXPANSION)) {
            keys.problem(format!("hidden_sizes is {widths:?}, and bottlenecks need multiples of {EXPANSION}"));
        }
        let config = ResNetConfig {
            in_channels: keys.or("num_channels", 3),
            stem_channels: keys.or("embedding_size", 64),
            channels: widths.iter().map(|width| if bottleneck { width / EXPANSION } else { *width }).collect(),
            blocks: keys.or("depths", vec![3, 4, 6, 3]),
            bottleneck,
            halve_first: keys.or("downsample_in_first_stage", false),
            halve_early: keys.or("downsample_in_bottleneck", false),
            classes: keys.labels(),
            zero_init: false,
            library: Library::Transformers,
            // As timm's model it is this one with all arguments given.
            architecture: if bottleneck { "resnet50" } else { "resnet18" }.into(),
            ..ResNetConfig::resnet18()
        };
        Ok((config, keys))
    }

    /// The `config.json` of the library whose model it is.
    pub fn write(&self) -> Value {
        let widths: Vec<usize> = self.channels.iter().map(|c| c * self.expansion()).collect();
        match self.library {
            Library::Timm => {
                let mut args = timm::object(json!({
                    "layers": self.blocks, "channels": self.channels, "num_classes": self.classes,
                    "in_chans": self.in_channels, "zero_init_last": self.zero_init, "global_pool": "avg",
                }));
                if self.stem == Stem::Keeping {
                    args.insert("stem_type".into(), json!("cifar"));
                    args.insert("stem_width".into(), json!(self.stem_channels));
                }
                timm::write(&self.architecture, args, &self.pretrained_cfg)
            }
            Library::Transformers => {
                let label = |i: usize| format!("LABEL_{i}");
                let names: Map<String, Value> = (0..self.classes).map(|i| (i.to_string(), label(i).into())).collect();
                let numbers: Map<String, Value> = (0..self.classes).map(|i| (label(i), i.into())).collect();
                json!({
                    "architectures": ["ResNetForImageClassification"], "model_type": "resnet",
                    "num_channels": self.in_channels, "embedding_size": self.stem_channels, "hidden_sizes": widths,
                    "depths": self.blocks, "layer_type": if self.bottleneck { "bottleneck" } else { "basic" },
                    "hidden_act": "relu", "downsample_in_first_stage": self.halve_first,
                    "downsample_in_bottleneck": self.halve_early, "id2label": names, "label2id": numbers,
                })
            }
        }
    }

    pub(super) fn expansion(&self) -> usize {
        if self.bottleneck { EXPANSION } else { 1 }
    }

    pub(super) fn problem(&self) -> Option<String> {
        let (stages, counts) = (self.channels.len(), self.blocks.len());
        if stages != counts || !(1..=4).contains(&stages) {
            return Some(format!("channels of {stages} stages and blocks of {counts}: one to four of both are built"));
        }
        let first = self.stem_channels * self.in_channels;
        let empty = self.channels.contains(&0) || self.blocks.contains(&0) || first == 0;
        empty.then(|| "a stage without channels or blocks".into())
    }
}

/// Channels of a bottleneck's result for one of its 3×3 convolution.
const EXPANSION: usize = 4;

/// What transformers calls a tensor.
pub(super) fn transformers_name(name: &str) -> String {
    let part = |at: &str| {
        let (kind, tensor) = at.split_once('.').unwrap_or((at, ""));
        match (kind.strip_prefix("conv"), kind.strip_prefix("bn")) {
            (Some(n), _) => (n.to_string(), format!("convolution.{tensor}")),
            (_, Some(n)) => (n.to_string(), format!("normalization.{tensor}")),
            _ => (String::new(), at.to_string()),
        }
    };
    let Some((stage, rest)) = name.strip_prefix("layer").and_then(|rest| rest.split_once('.')) else {
        return match name.strip_prefix("fc.") {
            Some(tensor) => format!("classifier.1.{tensor}"),
            None => format!("resnet.embedder.embedder.{}", part(name).1),
        };
    };
    let down = |n: usize| stage.parse::<usize>().unwrap_or(1) - n;
    let (block, at) = rest.split_once('.').unwrap_or((rest, ""));
    let at = match (at.strip_prefix("downsample.0."), at.strip_prefix("downsample.1.")) {
        (Some(tensor), _) => format!("shortcut.convolution.{tensor}"),
        (_, Some(tensor)) => format!("shortcut.normalization.{tensor}"),
        _ => {
            let (n, tensor) = part(at);
            format!("layer.{}.{tensor}", n.parse::<usize>().unwrap_or(1) - 1)
        }
    };
    format!("resnet.encoder.stages.{}.layers.{block}.{at}", down(1))
}
