//! Every form of file and folder gives the tensors that are in it.

use binade_cpu as _;
use binade_tensor::{Class, DType};
use binade_weights::{FileDType, Weights};

use crate::common::*;

const MATRIX: Pickled<'static> =
    Pickled { name: "w", class: "FloatStorage", key: "0", numel: 6, offset: 0, shape: &[2, 3], strides: &[3, 1] };
const VALUES: [f32; 6] = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
const WHOLE: [f64; 6] = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];

fn open(name: &str, bytes: &[u8]) -> Weights {
    let (_folder, path) = file(name, bytes);
    // The mapping outlives the name.
    Weights::open(&path).unwrap()
}

#[test]
fn safetensors_are_read() {
    let weights = open("a.safetensors", &floats(&[("b", &[2], &[7.0, 8.0]), ("w", &[2, 3], &VALUES)]));
    assert_eq!(
        weights.entries().map(|e| (&*e.name, &e.shape[..])).collect::<Vec<_>>(),
        [("b", &[2][..]), ("w", &[2, 3])]
    );
    assert_eq!((values(&weights, "b"), values(&weights, "w")), (vec![7.0, 8.0], WHOLE.to_vec()));
}

#[test]
fn a_zip_archive_of_torch_save_is_read() {
    let members: [(&str, &[u8]); 4] = [
        ("archive/data.pkl", &pickle(&[MATRIX])),
        ("archive/byteorder", b"little"),
        ("archive/data/0", &bytes(&VALUES)),
        ("archive/version", b"3\n"),
    ];
    let weights = open("pytorch_model.bin", &zip(&members));
    assert_eq!(values(&weights, "w"), WHOLE);
    assert_eq!(weights.get("w").unwrap().dtype, FileDType::F32);
}

#[test]
fn a_file_of_torch_save_before_zip_is_read() {
    let tensors = [MATRIX, Pickled { name: "part", offset: 4, shape: &[2], strides: &[1], ..MATRIX }];
    let weights = open("model.pt", &legacy(&pickle(&tensors), true, &[("0", &VALUES)]));
    assert_eq!((values(&weights, "w"), values(&weights, "part")), (WHOLE.to_vec(), vec![5.0, 6.0]));
}

/// A matrix that was transposed before it was saved, and a convolution's weight with channels last.
#[test]
fn tensors_in_another_order_of_memory_are_read_in_row_major_order() {
    let strided = Pickled { name: "t", shape: &[3, 2], strides: &[1, 3], ..MATRIX };
    let image = Pickled { name: "c", shape: &[1, 2, 1, 3], strides: &[6, 1, 6, 2], ..MATRIX };
    let members: [(&str, &[u8]); 2] = [("a/data.pkl", &pickle(&[strided, image])), ("a/data/0", &bytes(&VALUES))];
    let weights = open("model.pth", &zip(&members));
    assert_eq!(values(&weights, "t"), [1.0, 4.0, 2.0, 5.0, 3.0, 6.0]);
    assert_eq!(values(&weights, "c"), [1.0, 3.0, 5.0, 2.0, 4.0, 6.0]);
}

/// More rows, columns and elements than a tile, a block and a thread's share.
#[test]
fn large_tensors_in_another_order_are_read_whole() {
    let (rows, columns) = (301i32, 517i32);
    let numbers: Vec<f32> = (0..rows * columns).map(|i| i as f32).collect();
    let strided =
        Pickled { name: "t", numel: rows * columns, shape: &[columns, rows], strides: &[1, columns], ..MATRIX };
    let members: [(&str, &[u8]); 2] = [("a/data.pkl", &pickle(&[strided])), ("a/data/0", &bytes(&numbers))];
    let found = values(&open("model.pth", &zip(&members)), "t");
    let at = |c: i32, r: i32| (r * columns + c) as f64;
    let expected: Vec<f64> = (0..columns).flat_map(|c| (0..rows).map(move |r| at(c, r))).collect();
    assert!(found == expected);
}

#[test]
fn a_state_dict_within_a_checkpoint_is_found() {
    let object = [b"\x80\x02}(".to_vec(), text("epoch"), int(3), text("state_dict"), pickle(&[MATRIX])[2..].to_vec()];
    let object = object.concat();
    // The inner pickle's end, then the outer's.
    let object = [&object[..object.len() - 1], b"u."].concat();
    let weights = open("model.ckpt", &legacy(&object, true, &[("0", &VALUES)]));
    assert_eq!(values(&weights, "w"), WHOLE);
}

#[test]
fn every_type_of_a_file_is_read_as_what_holds_its_values() {
    let header = |dtype: &str, bytes: usize| {
        let numel = 2;
        format!(r#"{{"w":{{"dtype":"{dtype}","shape":[{numel}],"data_offsets":[0,{bytes}]}}}}"#)
    };
    let cases: [(&str, &[u8], DType, [f64; 2]); 9] = [
        ("F64", &[1.5f64.to_le_bytes(), (-2f64).to_le_bytes()].concat(), DType::F64, [1.5, -2.0]),
        ("F16", &[0, 0x3e, 0, 0xc0], DType::F16, [1.5, -2.0]),
        ("BF16", &[0xc0, 0x3f, 0, 0xc0], DType::BF16, [1.5, -2.0]),
        ("I64", &[7i64.to_le_bytes(), (-9i64).to_le_bytes()].concat(), DType::I64, [7.0, -9.0]),
        ("I32", &[7i32.to_le_bytes(), (-9i32).to_le_bytes()].concat(), DType::I64, [7.0, -9.0]),
        ("I16", &[7i16.to_le_bytes(), (-9i16).to_le_bytes()].concat(), DType::I64, [7.0, -9.0]),
        ("I8", &[7, 0xf7], DType::I8, [7.0, -9.0]),
        ("U8", &[7, 0xf7], DType::I64, [7.0, 247.0]),
        ("BOOL", &[0, 2], DType::Bool, [0.0, 1.0]),
    ];
    for (dtype, bytes, memory, expected) in cases {
        let weights = open("a.safetensors", &safetensors(&header(dtype, bytes.len()), bytes));
        let array = weights.array("w", Class::Weights).unwrap();
        assert_eq!((array.dtype(), array.to_f64_vec().unwrap()), (memory, expected.to_vec()), "{dtype}");
    }
}

#[test]
fn a_type_that_is_not_read_fails_where_it_is_asked_for() {
    let known = r#""q":{"dtype":"F8_E4M3","shape":[2],"data_offsets":[0,2]}"#;
    let header = format!(r#"{{{known},"n":{{"dtype":"F7_NEW","shape":[3],"data_offsets":[2,4]}}}}"#);
    let weights = open("a.safetensors", &safetensors(&header, &[1, 2, 3, 4]));
    for name in ["q", "n"] {
        let error = weights.array(name, Class::Weights).unwrap_err().to_string();
        let dtype = weights.get(name).unwrap().dtype.name().to_string();
        assert!(error.contains(name) && error.contains(&dtype), "{error}");
    }
}

#[test]
fn shards_and_half_precision_variants_are_found_in_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    let (one, two) = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors");
    write(folder.path(), one, &floats(&[("a", &[1], &[1.0])]));
    write(folder.path(), two, &floats(&[("b", &[1], &[2.0])]));
    let index = format!(r#"{{"metadata":{{"total_size":8}},"weight_map":{{"a":"{one}","b":"{two}"}}}}"#);
    write(folder.path(), "model.safetensors.index.json", index.as_bytes());
    let weights = Weights::open(folder.path()).unwrap();
    assert_eq!((values(&weights, "a"), values(&weights, "b")), (vec![1.0], vec![2.0]));
    assert_eq!(weights.files().count(), 2);

    let folder = tempfile::tempdir().unwrap();
    let variant = "diffusion_pytorch_model.fp16.safetensors";
    write(folder.path(), variant, &floats(&[("half", &[1], &[1.0])]));
    assert_eq!(Weights::open(folder.path()).unwrap().names().into_iter().collect::<Vec<_>>(), ["half"]);
    // Whole precision is taken where there is one.
    write(folder.path(), "diffusion_pytorch_model.safetensors", &floats(&[("whole", &[1], &[1.0])]));
    assert_eq!(Weights::open(folder.path()).unwrap().names().into_iter().collect::<Vec<_>>(), ["whole"]);
}

#[test]
fn one_file_of_any_name_is_found_and_of_several_none() {
    let folder = tempfile::tempdir().unwrap();
    assert!(Weights::open(folder.path()).unwrap_err().to_string().contains("no weights"));
    write(folder.path(), "resnet50.safetensors", &floats(&[("a", &[1], &[1.0])]));
    assert!(Weights::open(folder.path()).is_ok());
    write(folder.path(), "other.pth", b"");
    let error = Weights::open(folder.path()).unwrap_err().to_string();
    assert!(error.contains("other.pth, resnet50.safetensors"), "{error}");
}

#[test]
fn ranges_count_what_a_format_would_lose() {
    let numbers = [0.0, 70000.0, 65519.0, -65520.0, 1e-8, 6e-8, 6.2e-5, f32::NAN, f32::INFINITY, 1e-40];
    let weights = open("a.safetensors", &floats(&[("w", &[10], &numbers)]));
    let range = weights.range("w", &[DType::F16, DType::BF16]).unwrap();
    assert_eq!((range.count, range.zeros, range.nan, range.infinite), (10, 1, 1, 1));
    assert_eq!((range.min, range.max, range.max_abs), (-65520.0, 70000.0, 70000.0));
    let lost: Vec<_> = range.losses.iter().map(|l| (l.dtype, l.overflow, l.zero, l.subnormal)).collect();
    assert_eq!(lost, [(DType::F16, 2, 2, 1), (DType::BF16, 0, 0, 1)]);
}

/// The counts are what rounding gives, at and beside every edge of both formats.
#[test]
fn what_is_lost_is_what_rounding_makes_of_each_value() {
    let edges = [2f32.powi(-25), 2f32.powi(-24), 2f32.powi(-14), 65504.0, 65520.0, 2f32.powi(-126), 3.39e38, f32::MAX];
    let edges =
        edges.into_iter().chain([f32::from_bits(0x8000), f32::from_bits(0x7f_8000), f32::from_bits(0x7f7f_8000)]);
    let half = 2f32.powi(-14) - 2f32.powi(-25);
    for edge in edges.chain([half]) {
        for bits in edge.to_bits() - 2..=(edge.to_bits() + 2).min(f32::MAX.to_bits()) {
            let value = f32::from_bits(bits);
            let weights = open("a.safetensors", &floats(&[("w", &[1], &[value])]));
            let range = weights.range("w", &[DType::F16, DType::BF16]).unwrap();
            let (f16, bf16) = (half::f16::from_f32(value), half::bf16::from_f32(value));
            let f16 = (f16.is_infinite(), f16.to_f32() == 0.0, f16.classify() == std::num::FpCategory::Subnormal);
            let bf16 = (bf16.is_infinite(), bf16.to_f32() == 0.0, bf16.classify() == std::num::FpCategory::Subnormal);
            for (loss, found) in range.losses.iter().zip([f16, bf16]) {
                let counted = (loss.overflow == 1, loss.zero == 1, loss.subnormal == 1);
                assert_eq!(counted, found, "{value:e} in {}", loss.dtype);
            }
        }
    }
}
