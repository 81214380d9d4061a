//! `cargo xtask CMD …` builds the `binade` binary in release mode and runs `binade CMD …`.

fn main() {}
