//! Files as other programs write them, byte by byte.
#![allow(dead_code)]

use std::io::Write;
use std::path::{Path, PathBuf};

use binade_weights::{Error, Weights};

/// A safetensors file of a header and the bytes after it.
pub fn safetensors(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat()
}

/// A safetensors file of f32 tensors, in this order.
pub fn floats(tensors: &[(&str, &[usize], &[f32])]) -> Vec<u8> {
    let (mut entries, mut data) = (Vec::new(), Vec::new());
    for (name, shape, values) in tensors {
        let start = data.len();
        data.extend(values.iter().flat_map(|v| v.to_le_bytes()));
        let end = data.len();
        entries.push(format!(r#""{name}":{{"dtype":"F32","shape":{shape:?},"data_offsets":[{start},{end}]}}"#));
    }
    safetensors(&format!("{{{}}}", entries.join(",")), &data)
}

/// A tensor as a pickle describes it.
#[derive(Clone)]
pub struct Pickled<'a> {
    pub name: &'a str,
    pub class: &'a str,
    pub key: &'a str,
    pub numel: i32,
    pub offset: i32,
    pub shape: &'a [i32],
    pub strides: &'a [i32],
}

pub fn text(text: &str) -> Vec<u8> {
    [&b"X"[..], &(text.len() as u32).to_le_bytes(), text.as_bytes()].concat()
}

pub fn int(value: i32) -> Vec<u8> {
    [&b"J"[..], &value.to_le_bytes()].concat()
}

pub fn tuple(items: &[i32]) -> Vec<u8> {
    [&b"("[..], &items.iter().flat_map(|n| int(*n)).collect::<Vec<u8>>(), b"t"].concat()
}

/// The pickle of a state dict, as `torch.save` writes it but for what it remembers.
pub fn pickle(tensors: &[Pickled<'_>]) -> Vec<u8> {
    let mut out = b"\x80\x02ccollections\nOrderedDict\n)R(".to_vec();
    for t in tensors {
        out.extend(text(t.name));
        out.extend(b"ctorch._utils\n_rebuild_tensor_v2\n((");
        out.extend(text("storage"));
        out.extend(format!("ctorch\n{}\n", t.class).bytes());
        out.extend([text(t.key), text("cpu"), int(t.numel), b"tQ".to_vec()].concat());
        out.extend([int(t.offset), tuple(t.shape), tuple(t.strides)].concat());
        out.extend(b"\x89ccollections\nOrderedDict\n)RtR");
    }
    out.extend(b"u}");
    out.extend(text("_metadata"));
    out.extend(b"}sb.");
    out
}

/// An archive of members, stored as they are.
pub fn zip(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut out = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let stored = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    for (name, bytes) in members {
        out.start_file(*name, stored).unwrap();
        out.write_all(bytes).unwrap();
    }
    out.finish().unwrap().into_inner()
}

/// A file of `torch.save` before zip: `little` is what the machine says, storages have keys and values.
pub fn legacy(object: &[u8], little: bool, storages: &[(&str, &[f32])]) -> Vec<u8> {
    let mut out = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.\x80\x02M\xe9\x03.".to_vec();
    out.extend(
        [b"\x80\x02}".to_vec(), text("little_endian"), vec![if little { 0x88 } else { 0x89 }], b"s.".to_vec()].concat(),
    );
    out.extend(object);
    out.extend(b"\x80\x02](");
    storages.iter().for_each(|(key, _)| out.extend(text(key)));
    out.extend(b"e.");
    for (_, values) in storages {
        out.extend((values.len() as i64).to_le_bytes());
        out.extend(values.iter().flat_map(|v| v.to_le_bytes()));
    }
    out
}

pub fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

/// A file in a folder of its own, which is removed when the first is dropped.
pub fn file(name: &str, bytes: &[u8]) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    (folder, path)
}

/// What is said when a file of these bytes is opened, without its path.
pub fn refusal(name: &str, bytes: &[u8]) -> String {
    let (_folder, path) = file(name, bytes);
    let error = Weights::open(&path).expect_err("this file is to be refused");
    assert!(matches!(error, Error::Format { .. } | Error::Forbidden { .. }), "{error}");
    error.to_string().replacen(&format!("{}: ", path.display()), "", 1)
}

pub fn values(weights: &Weights, name: &str) -> Vec<f64> {
    weights.array(name, binade_tensor::Class::Weights).unwrap().to_f64_vec().unwrap()
}

pub fn write(folder: &Path, name: &str, bytes: &[u8]) {
    std::fs::write(folder.join(name), bytes).unwrap();
}
