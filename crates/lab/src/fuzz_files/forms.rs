//! A file of each form, and ways to damage it.

use std::io::Write;

/// Numbers of chance: splitmix64 (Steele et al. 2014).
pub struct Draw(u64);

impl Draw {
    pub fn new(seed: u64, number: u64) -> Draw {
        let mut draw = Draw(seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        draw.next();
        draw
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number from 0, below `n`.
    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }
}

/// Numbers at which arithmetic goes wrong.
const EDGES: [u64; 10] =
    [0, 1, 0x7f, 0xff, 0x7fff_ffff, 0xffff_ffff, 1 << 32, i64::MAX as u64, u64::MAX, 0x8000_0000_0000_0000];

fn bytes(n: usize) -> Vec<u8> {
    (0..n).flat_map(|i| (i as f32).to_le_bytes()).collect()
}

fn text(text: &str) -> Vec<u8> {
    [&b"X"[..], &(text.len() as u32).to_le_bytes(), text.as_bytes()].concat()
}

/// The pickle of a state dict of a matrix and a vector.
fn pickle() -> Vec<u8> {
    let mut out = b"\x80\x02ccollections\nOrderedDict\nq\x00)Rq\x01(".to_vec();
    let tensors = [("weight", "0", 6u8, &b"K\x02K\x03\x86K\x03K\x01\x86"[..]), ("bias", "1", 2, b"K\x02\x85K\x01\x85")];
    for (name, key, numel, shape) in tensors {
        out.extend(text(name));
        out.extend(b"ctorch._utils\n_rebuild_tensor_v2\n((");
        out.extend([text("storage"), b"ctorch\nFloatStorage\n".to_vec(), text(key), text("cpu")].concat());
        out.extend([b'K', numel, b't', b'Q', b'K', 0]);
        out.extend(shape);
        out.extend(b"\x89h\x00)RtR");
    }
    out.extend(b"u.");
    out
}

fn zip() -> Vec<u8> {
    let mut out = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let stored = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    let members =
        [("a/data.pkl", pickle()), ("a/byteorder", b"little".to_vec()), ("a/data/0", bytes(6)), ("a/data/1", bytes(2))];
    for (name, bytes) in members {
        // Writing to memory does not fail.
        let _written = out.start_file(name, stored).map(|()| out.write_all(&bytes));
    }
    out.finish().map(|out| out.into_inner()).unwrap_or_default()
}

fn legacy() -> Vec<u8> {
    let mut out = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.\x80\x02M\xe9\x03.\x80\x02}".to_vec();
    out.extend([text("little_endian"), b"\x88s.".to_vec(), pickle(), b"\x80\x02](".to_vec()].concat());
    out.extend([text("0"), text("1"), b"e.".to_vec()].concat());
    for n in [6usize, 2] {
        out.extend((n as u64).to_le_bytes());
        out.extend(bytes(n));
    }
    out
}

fn safetensors() -> Vec<u8> {
    let bias = r#""bias":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}"#;
    let weight = r#""weight":{"dtype":"F32","shape":[2,3],"data_offsets":[8,32]}"#;
    let header = format!(r#"{{"__metadata__":{{"format":"pt"}},{bias},{weight}}}"#);
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &bytes(8)].concat()
}

/// A whole file of weights of each form.
pub fn weights() -> Vec<(String, Vec<u8>)> {
    [safetensors(), zip(), legacy()].map(|bytes| ("w".to_string(), bytes)).into()
}

/// One of the files with a few changes, and which.
pub fn damaged(whole: &[(String, Vec<u8>)], draw: &mut Draw) -> (usize, Vec<u8>) {
    let which = draw.below(whole.len());
    let mut file = whole[which].1.clone();
    // A file that is empty is damaged, and nothing of it can be changed.
    let changes = if file.is_empty() { 0 } else { 1 + draw.below(4) };
    for _ in 0..changes {
        let at = draw.below(file.len());
        match draw.below(7) {
            0 => {
                if let Some(byte) = file.get_mut(at) {
                    *byte ^= 1 << draw.below(8);
                }
            }
            1 => file.truncate(at),
            2 => {
                let (width, value) = ([1, 2, 4, 8][draw.below(4)], EDGES[draw.below(EDGES.len())].to_le_bytes());
                file.iter_mut().skip(at).zip(&value[..width]).for_each(|(byte, value)| *byte = *value);
            }
            3 => {
                // A digit of a header, a length, an instruction.
                let byte = b"0123456789[]{}\",:-.()tRQKXJqh\x80\x85\x86"[draw.below(32)];
                file.iter_mut().skip(at).take(1).for_each(|old| *old = byte);
            }
            4 => {
                let end = (at + 1 + draw.below(24)).min(file.len());
                let piece = file[at.min(end)..end].to_vec();
                let to = draw.below(file.len());
                file.splice(to..to, piece);
            }
            5 => {
                let end = (at + 1 + draw.below(24)).min(file.len());
                file.drain(at.min(end)..end);
            }
            _ => {
                let other = &whole[draw.below(whole.len())].1;
                let from = draw.below(other.len());
                file.truncate(at);
                file.extend(&other[from..]);
            }
        }
    }
    (which, file)
}
