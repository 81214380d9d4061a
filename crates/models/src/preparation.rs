//! [`Preparation`]: what is done to an image before a model sees it, as its library says.

use serde_json::{Value, json};

use crate::{Error, Keys, Result};

/// How values between pixels are made, where an image gets another size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filter {
    /// The nearest pixel.
    Nearest,
    /// Between two pixels.
    Bilinear,
    /// Between four, with a = −½.
    Bicubic,
    /// Lanczos' window of three.
    Lanczos,
}

/// What is done to an image before a model sees it: another size, a cut, and per channel `(value/255 − mean)/std`.
#[derive(Clone, Debug, PartialEq)]
pub struct Preparation {
    /// Height and width of what the model sees.
    pub size: [usize; 2],
    /// What the shorter side becomes before the middle is cut out; `None` where the whole image gets the size.
    pub shorter: Option<usize>,
    /// How the size is changed.
    pub filter: Filter,
    /// Of each channel, from 0 to 1.
    pub mean: Vec<f64>,
    /// Of each channel.
    pub std: Vec<f64>,
}

/// By their numbers in transformers and Pillow.
const FILTERS: [Filter; 4] = [Filter::Nearest, Filter::Lanczos, Filter::Bilinear, Filter::Bicubic];

/// Those of ImageNet, which timm takes by default.
const MEAN: [f64; 3] = [0.485, 0.456, 0.406];
const STD: [f64; 3] = [0.229, 0.224, 0.225];

impl Preparation {
    /// What timm's `pretrained_cfg` says, for a model whose images have this size by default.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config): values that are not built.
    pub fn of_timm(pretrained_cfg: &Value, size: [usize; 2]) -> Result<Preparation> {
        let nothing = json!({});
        let cfg = if pretrained_cfg.is_object() { pretrained_cfg } else { &nothing };
        let keys = ["input_size", "crop_pct", "crop_mode", "interpolation", "mean", "std"];
        let of: serde_json::Map<String, Value> =
            keys.iter().filter_map(|key| Some((key.to_string(), cfg.get(key)?.clone()))).collect();
        let mut keys = Keys::new("pretrained_cfg", &Value::Object(of))?;
        let size = keys.optional("input_size").map_or(size, |[_, height, width]: [usize; 3]| [height, width]);
        let share: f64 = keys.or("crop_pct", 0.875);
        let mode: String = keys.or("crop_mode", "center".into());
        // The whole image, out of proportion, as timm's "squash".
        let whole = mode == "squash";
        if !whole && (mode != "center" || size[0] != size[1]) {
            keys.problem(format!("crop_mode is {mode:?} for images of {size:?}: only \"center\" for squares is built"));
        }
        if !(share > 0.0 && share <= 1.0) {
            keys.problem(format!("crop_pct is {share}, and must be above 0 and at most 1"));
        }
        let name: String = keys.or("interpolation", "bilinear".into());
        let filter = Filter::named(&name, &mut keys);
        let preparation = Preparation {
            size,
            // timm rounds down.
            shorter: (!whole).then_some((size[0] as f64 / share) as usize),
            filter,
            mean: keys.or("mean", MEAN.into()),
            std: keys.or("std", STD.into()),
        };
        keys.finish()?;
        Ok(preparation)
    }

    /// As timm's `pretrained_cfg`, from which [`Preparation::of_timm`] makes it again.
    pub fn to_timm(&self, channels: usize) -> Value {
        let [height, width] = self.size;
        let mut cfg = json!({
            "input_size": [channels, height, width], "interpolation": self.filter.name(), "crop_mode": "center",
            "mean": self.mean, "std": self.std,
        });
        match self.shorter {
            Some(shorter) => cfg["crop_pct"] = json!(share(height, shorter)),
            None => cfg["crop_mode"] = json!("squash"),
        }
        cfg
    }

    /// As transformers' `preprocessor_config.json`, from which [`Preparation::of_transformers`] makes it again.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config): a cut out of 384 pixels or more, or of other than squares, for which
    /// transformers has no processor.
    pub fn to_transformers(&self) -> Result<Value> {
        let [height, width] = self.size;
        let resample = FILTERS.iter().position(|filter| *filter == self.filter);
        let mut config = json!({
            "do_resize": true, "do_rescale": true, "do_normalize": true, "rescale_factor": 1.0 / 255.0,
            "image_mean": self.mean, "image_std": self.std, "resample": resample,
        });
        match self.shorter {
            None => {
                config["image_processor_type"] = json!("ViTImageProcessor");
                config["size"] = json!({ "height": height, "width": width });
            }
            Some(shorter) if height == width && height < 384 => {
                config["image_processor_type"] = json!("ConvNextImageProcessor");
                config["size"] = json!({ "shortest_edge": height });
                config["crop_pct"] = json!(share(height, shorter));
            }
            Some(_) => {
                let problem = format!("transformers cuts no images of {height}×{width} out of larger ones");
                return Err(Error::Config { of: "preprocessor_config.json".into(), problems: vec![problem] });
            }
        }
        Ok(config)
    }

    /// What transformers' `preprocessor_config.json` says.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config): keys that are missing, not built or not known.
    pub fn of_transformers(config: &Value) -> Result<Preparation> {
        let mut keys = Keys::new("preprocessor_config.json", config)?;
        keys.harmless(&["image_processor_type", "feature_extractor_type", "processor_class", "_processor_class"]);
        keys.harmless(&["_valid_processor_keys", "return_tensors", "data_format", "input_data_format", "device"]);
        for key in ["do_resize", "do_rescale", "do_normalize", "do_center_crop", "do_convert_rgb"] {
            keys.only(key, &[json!(true)]);
        }
        keys.only("rescale_factor", &[json!(1.0 / 255.0), json!(0.00392156862745098)]);
        let size: Value = keys.required("size");
        let share: f64 = keys.or("crop_pct", 0.875);
        let side = |key: &str| size.get(key).and_then(Value::as_u64).map(|n| n as usize);
        let sides = side("height").zip(side("width")).map(<[usize; 2]>::from);
        let whole = size.as_u64().map(|n| [n as usize; 2]).or(sides);
        let (size, shorter) = match (whole, side("shortest_edge")) {
            (Some(size), _) => (size, None),
            // Larger images are squeezed whole by this processor.
            (None, Some(edge)) if edge < 384 => ([edge; 2], Some((edge as f64 / share) as usize)),
            (None, Some(edge)) => ([edge; 2], None),
            (None, None) => {
                keys.problem(format!("size is {size}, which is not built"));
                ([1; 2], None)
            }
        };
        let number: usize = keys.or("resample", 2);
        let filter = FILTERS.get(number).copied().unwrap_or_else(|| {
            keys.problem(format!("resample is {number}, which is not built"));
            Filter::Bilinear
        });
        let preparation =
            Preparation { size, shorter, filter, mean: keys.required("image_mean"), std: keys.required("image_std") };
        keys.finish()?;
        Ok(preparation)
    }
}

/// The share of which the size over it, rounded down, is the shorter side.
fn share(size: usize, shorter: usize) -> f64 {
    let exact = size as f64 / shorter.max(1) as f64;
    if (size as f64 / exact) as usize == shorter { exact } else { size as f64 / (shorter as f64 + 0.5) }
}

impl Filter {
    /// Its name in timm.
    fn name(self) -> &'static str {
        match self {
            Filter::Nearest => "nearest",
            Filter::Bilinear => "bilinear",
            Filter::Bicubic => "bicubic",
            Filter::Lanczos => "lanczos",
        }
    }

    fn named(name: &str, keys: &mut Keys) -> Filter {
        match name {
            "nearest" => Filter::Nearest,
            "bilinear" => Filter::Bilinear,
            "bicubic" => Filter::Bicubic,
            "lanczos" => Filter::Lanczos,
            other => {
                keys.problem(format!("interpolation is {other:?}, which is not built"));
                Filter::Bilinear
            }
        }
    }
}
