//! How images are prepared is read from what the libraries write.

use binade_models::{Filter, Preparation};
use serde_json::json;

#[test]
fn timm_resizes_the_shorter_side_and_cuts_out_the_middle() {
    let cfg = json!({"input_size": [3, 224, 224], "crop_pct": 0.9, "crop_mode": "center", "interpolation": "bicubic",
        "mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25], "tag": "x"});
    let found = Preparation::of_timm(&cfg, [32, 32]).unwrap();
    let expected = Preparation {
        size: [224, 224],
        shorter: Some(248),
        filter: Filter::Bicubic,
        mean: vec![0.5; 3],
        std: vec![0.25; 3],
    };
    assert_eq!(found, expected);
    // What is not said is as timm takes it.
    let found = Preparation::of_timm(&json!(null), [32, 32]).unwrap();
    assert_eq!((found.size, found.shorter, found.filter), ([32, 32], Some(36), Filter::Bilinear));
    assert_eq!(found.mean, [0.485, 0.456, 0.406]);
    for (cfg, told) in [
        (json!({"crop_mode": "border"}), "crop_mode is \"border\""),
        (json!({"crop_pct": 1.5}), "crop_pct is 1.5"),
        (json!({"interpolation": "box"}), "interpolation is \"box\""),
        (json!({"mean": 3}), "mean is 3"),
    ] {
        let error = Preparation::of_timm(&cfg, [32, 32]).unwrap_err().to_string();
        assert!(error.contains(told), "{error}");
    }
}

#[test]
fn transformers_gives_the_whole_image_a_size_or_cuts_it() {
    let vit = json!({"image_processor_type": "ViTImageProcessor", "do_resize": true, "do_rescale": true,
        "do_normalize": true, "size": {"height": 32, "width": 48}, "resample": 2, "rescale_factor": 0.00392156862745098,
        "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]});
    let found = Preparation::of_transformers(&vit).unwrap();
    assert_eq!((found.size, found.shorter, found.filter), ([32, 48], None, Filter::Bilinear));
    let mut resnet = vit.clone();
    (resnet["size"], resnet["crop_pct"], resnet["resample"]) = (json!({"shortest_edge": 224}), json!(0.875), json!(3));
    let found = Preparation::of_transformers(&resnet).unwrap();
    assert_eq!((found.size, found.shorter, found.filter), ([224, 224], Some(256), Filter::Bicubic));
    for (key, value, told) in [
        ("do_normalize", json!(false), "do_normalize is false"),
        ("size", json!({"longest_edge": 5}), "longest_edge"),
        ("resample", json!(9), "resample is 9"),
        ("tiles", json!(2), "tiles is 2, which is not known"),
        ("image_mean", json!(null), "image_mean is missing"),
    ] {
        let mut config = vit.clone();
        config[key] = value;
        let error = Preparation::of_transformers(&config).unwrap_err().to_string();
        assert!(error.contains(told), "{error}");
    }
}

#[test]
fn what_is_written_for_either_library_is_read_as_the_same() {
    let (mean, std) = (vec![0.25, 0.5, 0.75], vec![0.5; 3]);
    for (size, shorter, filter) in [
        ([32; 2], Some(32), Filter::Bilinear),
        ([224; 2], Some(256), Filter::Bicubic),
        ([99; 2], Some(123), Filter::Lanczos),
        ([48, 64], None, Filter::Nearest),
    ] {
        let written = Preparation { size, shorter, filter, mean: mean.clone(), std: std.clone() };
        assert_eq!(Preparation::of_timm(&written.to_timm(3), [7; 2]).unwrap(), written);
        assert_eq!(Preparation::of_transformers(&written.to_transformers().unwrap()).unwrap(), written);
    }
    let large = Preparation { size: [448; 2], shorter: Some(512), filter: Filter::Bicubic, mean, std };
    assert!(large.to_transformers().unwrap_err().to_string().contains("448×448"));
}
