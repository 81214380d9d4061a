//! The elementwise kernels are written by the rows of the table that every backend has: the files in `kernels/` are
//! what is written here. `BINADE_WRITE_ROWS=1 cargo test --test cuda rows` writes them anew.

mod emit;
mod text;

// The f32 functions of the CPU, compiled for numbers that write code.
#[allow(dead_code, unused_imports, unused_macros, missing_docs)]
#[path = "../../../../cpu/src/simd/lanes.rs"]
mod lanes;
#[allow(dead_code, unused_imports, missing_docs)]
#[path = "../../../../cpu/src/simd/math/mod.rs"]
mod math;
#[allow(dead_code, unused_imports, missing_docs)]
#[path = "../../../../cpu/src/simd/table.rs"]
mod table;
/// What `lanes.rs` wants of the tiles: code that is written has none.
#[allow(dead_code)]
mod amx {
    pub struct Segment {
        pub a: usize,
        pub b: usize,
        pub len: usize,
    }
}

use std::path::Path;

#[test]
fn the_kernels_of_rows_are_what_the_rows_write() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels");
    for (name, text) in [
        ("unary.cu", text::unary()),
        ("binary.cu", text::binary()),
        ("ternary.cu", text::ternary()),
        ("loss.cu", text::loss()),
        ("functions.cuh", text::functions()),
    ] {
        let path = folder.join(name);
        if std::env::var_os("BINADE_WRITE_ROWS").is_some() {
            std::fs::write(&path, &text).unwrap();
        }
        let there = std::fs::read_to_string(&path).unwrap_or_default();
        let differs = there.lines().zip(text.lines()).position(|(a, b)| a != b);
        assert!(
            there == text,
            "{name} is not what the rows write, first in line {:?}: run the test with BINADE_WRITE_ROWS=1",
            differs.map(|line| line + 1)
        );
    }
}
