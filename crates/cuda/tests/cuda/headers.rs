//! What each file of kernels says of itself.

use std::path::Path;

use binade_cuda::Module;

/// The words that it has to say, in their order, after what it computes.
const WORDS: [&str; 4] = ["Shapes", "Tiling", "Needs", "Checked against"];

/// What is missing of the comment that a source begins with.
fn missing(source: &str) -> Option<String> {
    let lines: Vec<&str> = source.lines().map_while(|line| line.strip_prefix("//")).map(str::trim).collect();
    let of = |word: &str| lines.iter().position(|line| line.starts_with(&format!("{word}: ")));
    let Some(first) = of(WORDS[0]) else { return Some(WORDS[0].into()) };
    let said = |line: &&str| line.len() > 20;
    if !lines[..first].iter().any(said) {
        return Some("what it computes".into());
    }
    let places = WORDS.map(of);
    let wrong = places.windows(2).position(|pair| pair[1].is_none() || pair[0] >= pair[1]);
    if let Some(at) = wrong {
        return Some(WORDS[at + 1].into());
    }
    let needs = places[2].map_or("", |at| lines[at]);
    let says = needs.contains(" registers to a thread, ") && needs.contains("shared memory");
    (!says).then(|| "registers and shared memory".into())
}

#[test]
fn every_file_of_kernels_says_what_it_computes_of_which_shapes_how_it_is_tiled_what_it_needs_and_what_checks_it() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels");
    for module in Module::ALL {
        let source = std::fs::read_to_string(folder.join(format!("{}.cu", module.name()))).unwrap();
        assert_eq!(missing(&source), None, "{}.cu", module.name());
    }
    assert_eq!(missing("// Adds a number to each element.\n// Shapes: any.\n").as_deref(), Some("Tiling"));
}
