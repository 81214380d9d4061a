//! Files whose claims cannot be: each is refused, by what is wrong with it.

use binade_weights::Weights;

use crate::common::*;

fn header(text: &str, data: usize) -> String {
    refusal("a.safetensors", &safetensors(text, &vec![0; data]))
}

fn says(message: &str, parts: &[&str]) {
    assert!(parts.iter().all(|part| message.contains(part)), "{message}");
}

#[test]
fn headers_that_do_not_fit_their_file_are_refused() {
    let f32 =
        |shape: &str, from: u64, to: u64| format!(r#"{{"dtype":"F32","shape":{shape},"data_offsets":[{from},{to}]}}"#);
    says(&header(&format!(r#"{{"w":{}}}"#, f32("[2]", 0, 8)), 4), &["w", "beyond the file's end"]);
    says(&header(&format!(r#"{{"w":{}}}"#, f32("[2]", 8, 0)), 8), &["w", "backwards"]);
    says(&header(&format!(r#"{{"w":{}}}"#, f32("[3]", 0, 8)), 8), &["w", "does not fit its 8 bytes"]);
    says(&header(&format!(r#"{{"w":{}}}"#, f32("[4611686018427387904,4]", 0, 0)), 0), &["w", "does not fit"]);
    says(&header(&format!(r#"{{"w":{}}}"#, f32("[0,9223372036854775807,16]", 0, 0)), 0), &["w", "does not fit"]);
    let two = |a: &str, b: &str| format!(r#"{{"a":{a},"b":{b}}}"#);
    says(&header(&two(&f32("[2]", 0, 8), &f32("[2]", 4, 12)), 12), &["a", "b", "overlap"]);
    says(&header(&two(&f32("[1]", 0, 4), &f32("[1]", 8, 12)), 12), &["4 bytes before b"]);
    says(&header(&format!(r#"{{"w":{}}}"#, f32("[1]", 0, 4)), 9), &["5 bytes at the end"]);
    let twice = format!(r#"{{"w":{},"w":{}}}"#, f32("[1]", 0, 4), f32("[1]", 4, 8));
    says(&header(&twice, 8), &["twice in the header: w"]);
    says(&header(r#"{"w":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}"#, 4), &["does not parse"]);
    says(&header(r#"{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4],"more":1}}"#, 4), &["does not parse"]);
    says(&header(r#"{"w":"#, 4), &["does not parse"]);
}

#[test]
fn headers_of_impossible_length_are_refused() {
    let claim = |length: u64| [&length.to_le_bytes()[..], b"{}"].concat();
    says(&refusal("a.safetensors", &claim(u64::MAX)), &["header", "the most"]);
    says(&refusal("a.safetensors", &claim(100_000_001)), &["header", "the most"]);
    says(&refusal("a.safetensors", &claim(3)), &["truncated"]);
    says(&refusal("a.safetensors", b""), &["empty"]);
    says(&refusal("a.safetensors", b"{}"), &["neither"]);
    says(&refusal("a.bin", b"GIF89a and some more"), &["neither"]);
}

#[test]
fn every_truncation_of_every_form_is_refused() {
    let w = Pickled { name: "w", class: "FloatStorage", key: "0", numel: 2, offset: 0, shape: &[2], strides: &[1] };
    let object = pickle(&[w]);
    let forms = [
        floats(&[("w", &[2], &[1.0, 2.0])]),
        zip(&[("a/data.pkl", &object), ("a/data/0", &bytes(&[1.0, 2.0]))]),
        legacy(&object, true, &[("0", &[1.0, 2.0])]),
    ];
    for whole in forms {
        let (_folder, path) = file("w", &whole);
        assert!(Weights::open(&path).is_ok());
        for end in 0..whole.len() {
            refusal("w", &whole[..end]);
        }
    }
}

#[test]
fn indices_that_do_not_fit_their_shards_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let open = |index: &str| {
        write(folder.path(), "model.safetensors.index.json", index.as_bytes());
        Weights::open(folder.path()).unwrap_err().to_string()
    };
    write(folder.path(), "one", &floats(&[("a", &[1], &[1.0]), ("b", &[1], &[1.0])]));
    write(folder.path(), "two", &floats(&[("b", &[1], &[2.0]), ("c", &[1], &[1.0])]));
    says(&open(r#"{"weight_map":{"a":"one","z":"three","y":"four"}}"#), &["not there: four, three"]);
    says(&open(r#"{"weight_map":{"a":"one","c":"two"}}"#), &["in two shards: b in one and two"]);
    says(&open(r#"{"weight_map":{"a":"one","q":"one"}}"#), &["tensors that no shard has: q"]);
    says(&open(r#"{"weight_map":{"a":"../one"}}"#), &["no file beside it"]);
    says(&open(r#"{"weight_map":{"a":"/etc/passwd"}}"#), &["no file beside it"]);
    says(&open(r#"{"weight_map":{}}"#), &["no shard"]);
    says(&open("{}"), &["no index"]);
}

const W: Pickled<'static> =
    Pickled { name: "w", class: "FloatStorage", key: "0", numel: 4, offset: 0, shape: &[2, 2], strides: &[2, 1] };

fn pickled(object: &[u8]) -> String {
    refusal("model.bin", &zip(&[("a/data.pkl", object), ("a/data/0", &bytes(&[1.0; 4]))]))
}

#[test]
fn tensors_that_reach_past_their_storage_are_refused() {
    let cases: [(Pickled<'_>, &str); 7] = [
        (Pickled { offset: 1, ..W }, "reaches past its storage"),
        (Pickled { strides: &[3, 1], ..W }, "reaches past its storage"),
        (Pickled { shape: &[2, i32::MAX], strides: &[i32::MAX, i32::MAX], ..W }, "reaches past its storage"),
        (Pickled { numel: 5, ..W }, "claims 5 elements"),
        (Pickled { key: "1", ..W }, "storage 1, which is not there"),
        (Pickled { shape: &[-2, 2], ..W }, "-2 where a size must be"),
        (Pickled { strides: &[1], ..W }, "2 dimensions with 1 strides"),
    ];
    for (tensor, expected) in cases {
        says(&pickled(&pickle(&[tensor])), &[expected]);
    }
}

/// A few bytes that stand for gigabytes.
#[test]
fn a_tensor_that_repeats_its_elements_is_refused_where_it_is_asked_for() {
    let bomb = Pickled { shape: &[1 << 20, 1 << 20], strides: &[0, 0], ..W };
    let (_folder, path) = file(
        "m.bin",
        &zip(&[("a/data.pkl", &pickle(&[bomb, Pickled { name: "v", ..W }])), ("a/data/0", &bytes(&[1.0; 4]))]),
    );
    let weights = Weights::open(&path).unwrap();
    let error = weights.array("w", binade_tensor::Class::Weights).unwrap_err().to_string();
    says(&error, &["w repeats 4 elements"]);
    assert!(weights.range("v", &[]).is_ok());
}

#[test]
fn classes_that_weights_do_not_need_are_named_and_not_run() {
    let calls = [
        (&b"\x80\x02cos\nsystem\nX\x04\x00\x00\x00exit\x85R."[..], "os.system"),
        (b"\x80\x02c__builtin__\neval\nX\x01\x00\x00\x001\x85R.", "__builtin__.eval"),
        (b"\x80\x02ctorch.storage\n_load_from_bytes\n)R.", "torch.storage._load_from_bytes"),
        (b"\x80\x04\x8c\x05posix\x8c\x06system\x93.", "posix.system"),
        (b"\x80\x02ctorch.nn.modules.linear\nLinear\n)\x81.", "torch.nn.modules.linear.Linear"),
        (b"\x80\x02ctorch\nload\n.", "torch.load"),
    ];
    for (pickle, class) in calls {
        says(&pickled(pickle), &[class, "nothing was run"]);
        says(&refusal("model.pt", &legacy(pickle, true, &[])), &[class, "nothing was run"]);
    }
}

#[test]
fn broken_pickles_are_refused() {
    let cases: [(&[u8], &str); 14] = [
        (b"\x80\x02.", "no value"),
        (b"\x80\x02", "cut off"),
        (b"\x80\x07}.", "protocol 7"),
        (b"\x80\x02}.", "no state dict"),
        (b"\x80\x02N.", "no state dict"),
        (b"\x80\x02h\x00.", "recalls"),
        (b"\x80\x02t.", "mark"),
        (b"\x80\x02(0.", "no value"),
        (b"\x80\x02Na.", "no value"),
        (b"\x80\x02NNa.", "no list"),
        (b"\x80\x02}(Nu.", "a key without a value"),
        (b"\x80\x02NNR.", "calls what is no class"),
        (b"\x80\x02NQ.", "not named as PyTorch does"),
        (b"\x80\x02\xff.", "instruction 0xff"),
    ];
    for (pickle, expected) in cases {
        let message = pickled(pickle);
        assert!(message.contains(expected) || expected == "no value" && message.contains("there is none"), "{message}");
    }
}

#[test]
fn pickles_that_ask_for_more_than_weights_need_are_refused() {
    // Nested deeper, and more of everything, than any state dict.
    says(&pickled(&[&b"\x80\x02"[..], &b"(".repeat(1 << 21), b"."].concat()), &["nested deeper"]);
    says(&pickled(&[&b"\x80\x02"[..], &b"N".repeat(1 << 21), b"."].concat()), &["more values"]);
    says(&pickled(&[&b"\x80\x02"[..], &b"N0".repeat(1 << 23), b"."].concat()), &["more values"]);
    let long = [&b"\x80\x02X"[..], &u32::MAX.to_le_bytes(), b"."].concat();
    says(&pickled(&long), &["a text of 4294967295 bytes"]);
    // A list that holds itself is a value like another.
    says(&pickled(b"\x80\x02]q\x00h\x00a."), &["no state dict"]);
}

#[test]
fn archives_that_are_not_of_this_kind_are_refused() {
    let object = pickle(&[W]);
    let storage = bytes(&[1.0; 4]);
    let big = zip(&[("a/data.pkl", &object), ("a/byteorder", b"big"), ("a/data/0", &storage)]);
    says(&refusal("m.bin", &big), &["big", "little-endian"]);
    says(&refusal("m.bin", &zip(&[("a/readme", b"")])), &["without data.pkl"]);
    says(&refusal("m.bin", &zip(&[("a/data.pkl", &object), ("b/data.pkl", &object)])), &["two pickles"]);
    says(&refusal("m.pt", &legacy(&object, false, &[("0", &[1.0; 4])])), &["big-endian"]);
    says(&refusal("m.pt", b"\x80\x02}. but not of torch"), &["not of torch.save"]);
    says(&refusal("m.pt", &legacy(&object, true, &[("9", &[1.0; 4])])), &["storage 9 belongs to no tensor"]);
}

/// A member that says it is compressed, as those of a zip bomb are, and one that claims more than there is.
#[test]
fn compressed_and_oversized_members_are_refused() {
    let whole = zip(&[("a/data.pkl", &pickle(&[W])), ("a/data/0", &bytes(&[1.0; 4]))]);
    let directory = whole.windows(4).rposition(|w| w == b"PK\x01\x02").unwrap();
    let changed = |at: usize, bytes: &[u8]| {
        let mut file = whole.clone();
        file[directory + at..][..bytes.len()].copy_from_slice(bytes);
        refusal("m.bin", &file)
    };
    says(&changed(10, &8u16.to_le_bytes()), &["compressed"]);
    // Sizes, compressed and not.
    let sizes = [u32::MAX - 1; 2].map(u32::to_le_bytes).concat();
    says(&changed(20, &sizes), &["past the end"]);
}

#[test]
fn files_with_flipped_bits_never_panic() {
    let object = pickle(&[W]);
    let forms = [
        floats(&[("w", &[2, 2], &[1.0; 4])]),
        zip(&[("a/data.pkl", &object), ("a/data/0", &bytes(&[1.0; 4]))]),
        legacy(&object, true, &[("0", &[1.0; 4])]),
    ];
    for whole in forms {
        for bit in 0..8 * whole.len() {
            let mut flipped = whole.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let (_folder, path) = file("w", &flipped);
            if let Ok(weights) = Weights::open(&path) {
                weights.names().iter().for_each(|name| drop(weights.range(name, &[])));
            }
        }
    }
}
