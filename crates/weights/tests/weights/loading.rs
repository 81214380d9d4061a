//! Weights into modules: what fits, what is refused, and what is lost on the way.

use std::path::Path;

use binade_autograd::scope::{self, Stored};
use binade_cpu as _;
use binade_nn::{Buffer, Linear, Module, Param, Visitor, state_dict, without_initial_values};
use binade_tensor::{Array, Class, DType, Shape};
use binade_weights::{Error, LoadOptions, Report, Source, Sources, Weights, load};

use crate::common::*;

#[derive(Clone, Module)]
struct Net {
    first: Linear,
    head: Linear,
    tied: Param,
    count: Buffer,
}

fn net() -> Net {
    let (first, head) = (Linear::new(3, 4).unwrap(), Linear::without_bias(3, 2).unwrap());
    let device = scope::device().unwrap();
    let count = Array::full(&device, DType::I64, Shape::SCALAR, 0.0, Class::Weights).unwrap();
    Net { tied: head.weight.clone(), first, head, count: Buffer::new(count) }
}

fn numbers(n: usize, from: f32) -> Vec<f32> {
    (0..n).map(|i| from + i as f32).collect()
}

/// A file with everything that [`net`] has, its integers as `I64`.
fn whole() -> Vec<(&'static str, Vec<usize>, Vec<f32>)> {
    vec![
        ("first.weight", vec![4, 3], numbers(12, 0.0)),
        ("first.bias", vec![4], numbers(4, 100.0)),
        ("head.weight", vec![2, 3], numbers(6, 200.0)),
    ]
}

fn save(path: &Path, tensors: &[(&str, Vec<usize>, Vec<f32>)]) -> Weights {
    let (mut entries, mut data) =
        (vec![r#""count":{"dtype":"I64","shape":[],"data_offsets":[0,8]}"#.to_string()], 7i64.to_le_bytes().to_vec());
    for (name, shape, values) in tensors {
        let start = data.len();
        data.extend(bytes(values));
        entries
            .push(format!(r#""{name}":{{"dtype":"F32","shape":{shape:?},"data_offsets":[{start},{}]}}"#, data.len()));
    }
    std::fs::write(path, safetensors(&format!("{{{}}}", entries.join(",")), &data)).unwrap();
    Weights::open(path).unwrap()
}

fn into(net: &Net, tensors: &[(&str, Vec<usize>, Vec<f32>)], options: LoadOptions) -> Result<Report, Error> {
    let folder = tempfile::tempdir().unwrap();
    load(net, &save(&folder.path().join("w"), tensors), &Sources::default(), &options)
}

fn values(net: &Net) -> Vec<Vec<f64>> {
    state_dict(net).iter().map(|(_, array)| array.to_f64_vec().unwrap()).collect()
}

fn misfit(result: Result<Report, Error>) -> Report {
    match result {
        Err(Error::Misfit { report, .. }) => *report,
        other => panic!("{other:?}"),
    }
}

#[test]
fn everything_comes_to_its_place_tied_weights_once() {
    let net = net();
    let report = into(&net, &whole(), LoadOptions::default()).unwrap();
    assert!(report.is_complete() && report.losses().is_empty());
    assert_eq!(net.first.weight.array().to_f64_vec().unwrap(), (0..12).map(f64::from).collect::<Vec<_>>());
    assert_eq!(net.tied.array().to_f64_vec().unwrap(), (200..206).map(f64::from).collect::<Vec<_>>());
    assert_eq!(net.count.array().to_f64_vec().unwrap(), [7.0]);
    // Under both names, with the same values.
    let both = [whole(), vec![("tied", vec![2, 3], numbers(6, 200.0))]].concat();
    assert!(into(&net, &both, LoadOptions::default()).is_ok());
}

#[test]
fn one_error_lists_all_that_does_not_fit_and_nothing_is_written() {
    let net = net();
    let before = values(&net);
    let tensors = vec![
        ("first.weight", vec![3, 4], numbers(12, 0.0)),
        ("head.weight", vec![2, 3], numbers(6, 0.0)),
        ("tied", vec![2, 3], numbers(6, 1.0)),
        ("extra", vec![1], vec![0.0]),
    ];
    let report = misfit(into(&net, &tensors, LoadOptions::default()));
    let text = report.to_string();
    for part in [
        "missing: first.bias [4]",
        "not in the model: extra [1]",
        "first.weight is [3, 4] and should be [4, 3]",
        "untied: head.weight and tied differ",
    ] {
        assert!(text.contains(part), "{text}");
    }
    assert_eq!(values(&net), before);
    // What fits is loaded where that is asked for, and the rest is told.
    let report = into(&net, &tensors, LoadOptions { strict: false, ..LoadOptions::default() }).unwrap();
    assert_eq!(
        (report.missing.len(), report.unexpected.len(), report.mismatched.len(), report.untied.len()),
        (1, 1, 1, 1)
    );
    assert_eq!(net.head.weight.array().to_f64_vec().unwrap(), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
}

#[test]
fn masks_and_position_ids_are_left_out() {
    let masks =
        vec![("h.0.attn.bias", vec![1], vec![1.0]), ("position_ids", vec![1], vec![0.0]), ("mine", vec![1], vec![0.0])];
    let folder = tempfile::tempdir().unwrap();
    let weights = save(&folder.path().join("w"), &[whole(), masks].concat());
    let sources = Sources { ignored: vec!["mine".into()], ..Sources::default() };
    let report = load(&net(), &weights, &sources, &LoadOptions::default()).unwrap();
    assert_eq!(report.ignored, ["h.0.attn.bias", "mine", "position_ids"]);
}

#[test]
fn sources_transpose_join_and_reshape() {
    let folder = tempfile::tempdir().unwrap();
    let transposed: Vec<f32> = (0..3).flat_map(|c| (0..4).map(move |r| (r * 3 + c) as f32)).collect();
    let tensors = vec![
        ("w", vec![3, 4], transposed),
        ("b1", vec![2], numbers(2, 100.0)),
        ("b2", vec![2], numbers(2, 102.0)),
        ("h", vec![2, 3, 1, 1], numbers(6, 200.0)),
    ];
    let weights = save(&folder.path().join("w"), &tensors);
    let sources = [
        ("first.weight", Source::Transposed("w".into())),
        ("first.bias", Source::Parts(vec!["b1".into(), "b2".into()])),
        ("head.weight", Source::Reshaped("h".into(), vec![2, 3, 1, 1])),
    ];
    let sources = sources.into_iter().map(|(name, source)| (name.to_string(), source)).collect();
    let (net, plain) = (net(), net());
    load(&net, &weights, &Sources { sources, ignored: vec![] }, &LoadOptions::default()).unwrap();
    into(&plain, &whole(), LoadOptions::default()).unwrap();
    assert_eq!(values(&net), values(&plain));
}

#[test]
fn half_precision_is_loaded_into_f32_parameters() {
    let folder = tempfile::tempdir().unwrap();
    let weight = r#""weight":{"dtype":"F16","shape":[2,1],"data_offsets":[0,4]}"#;
    let header = &format!(r#"{{{weight},"bias":{{"dtype":"BF16","shape":[2],"data_offsets":[4,8]}}}}"#);
    write(folder.path(), "w", &safetensors(header, &[0, 0x3e, 1, 0, 0xc0, 0x3f, 0, 0xc0]));
    let layer = Linear::new(1, 2).unwrap();
    load(&layer, &Weights::open(&folder.path().join("w")).unwrap(), &Sources::default(), &LoadOptions::default())
        .unwrap();
    assert_eq!(
        (layer.weight.dtype(), layer.weight.array().to_f64_vec().unwrap()),
        (DType::F32, vec![1.5, 2f64.powi(-24)])
    );
    assert_eq!(layer.bias.unwrap().array().to_f64_vec().unwrap(), [1.5, -2.0]);
}

fn half(f: impl FnOnce() -> Net) -> Net {
    scope::with_stored(Stored { params: DType::F16, batch_norm: DType::F32 }, f)
}

#[test]
fn what_overflows_in_a_narrower_dtype_is_an_error_unless_allowed() {
    let mut tensors = whole();
    tensors[1].2 = vec![70000.0, 1e-9, 1e-6, 1.0];
    let net = half(net);
    let before = values(&net);
    let report = misfit(into(&net, &tensors, LoadOptions::default()));
    let text = report.to_string();
    assert!(text.contains("first.bias: 1 overflow, 1 become 0, 1 become subnormal in f16, largest 7.0000e4"), "{text}");
    assert_eq!((report.loaded.len(), values(&net)), (1, before));
    let report = into(&net, &tensors, LoadOptions { allow_overflow: true, ..LoadOptions::default() }).unwrap();
    assert_eq!(report.losses().len(), 1);
    assert_eq!(net.first.bias.unwrap().array().to_f64_vec().unwrap()[..2], [f64::INFINITY, 0.0]);
}

#[test]
fn nan_in_weights_is_told_and_an_error_unless_allowed() {
    let mut tensors = whole();
    tensors[0].2[5] = f32::NAN;
    for net in [net(), half(net)] {
        let text = misfit(into(&net, &tensors, LoadOptions::default())).to_string();
        assert!(text.contains("NaN: 1 of first.weight") && !text.contains("bias"), "{text}");
        let report = into(&net, &tensors, LoadOptions { allow_nan: true, ..LoadOptions::default() }).unwrap();
        assert_eq!(report.losses(), ["NaN: 1 of first.weight"]);
        assert!(net.first.weight.array().to_f64_vec().unwrap()[5].is_nan());
    }
}

#[test]
fn a_tensor_in_use_is_an_error_before_anything_is_written() {
    let net = net();
    let before = values(&net);
    let held = net.tied.array();
    let guard = held.storage().read("test").unwrap();
    assert!(matches!(into(&net, &whole(), LoadOptions::default()), Err(Error::Nn(_))));
    drop(guard);
    assert_eq!(values(&net), before);
}

#[test]
fn a_type_that_is_not_read_fails_only_where_the_model_wants_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = |weight: &str| {
        let other = r#""other":{"dtype":"F8_E5M2","shape":[2],"data_offsets":[2,4]}"#;
        let header = format!(r#"{{"weight":{{"dtype":"{weight}","shape":[1,2],"data_offsets":[0,2]}},{other}}}"#);
        write(folder.path(), "w", &safetensors(&header, &[0; 4]));
        let options = LoadOptions { strict: false, ..LoadOptions::default() };
        load(
            &Linear::without_bias(2, 1).unwrap(),
            &Weights::open(&folder.path().join("w")).unwrap(),
            &Sources::default(),
            &options,
        )
    };
    let report = file("U8").unwrap();
    assert_eq!((report.unreadable.len(), report.unexpected.len()), (0, 1));
    assert!(file("F8_E4M3").unwrap().to_string().contains("cannot be read: weight is of type F8_E4M3"));
}

#[test]
fn a_model_without_initial_values_draws_on_as_with_them() {
    let draws = |f: &dyn Fn() -> Linear| {
        scope::with_key(3, 0, || {
            let layer = f();
            (layer.bias.unwrap().shape(), Linear::new(2, 2).unwrap().weight.array().to_f64_vec().unwrap())
        })
    };
    assert_eq!(draws(&|| Linear::new(3, 2).unwrap()), draws(&|| without_initial_values(|| Linear::new(3, 2).unwrap())));
}
