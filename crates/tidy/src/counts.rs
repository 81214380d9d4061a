//! How many files a new operator, optimiser or dtype touches, counted by one that is there: those that name it.

use crate::source::{File, Finding, Tree};

/// A kind of thing, and one of it that is as any new one would be.
struct Kind {
    what: &'static str,
    /// What the one that is there is called, as whole words: as a type, and as functions of kernels.
    names: &'static [&'static str],
    /// Crates whose files count.
    crates: &'static [&'static str],
    most: usize,
}

/// The core, its kernels, plans, gradients and policies.
const CORE: &[&str] = &["tensor", "cpu", "plan", "autograd", "amp"];

/// ARCHITECTURE.md has these numbers as a table.
const KINDS: [Kind; 9] = [
    Kind { what: "a fused operator with gradient", names: &["Embedding", "embedding"], crates: CORE, most: 8 },
    Kind { what: "an elementwise operator", names: &["Hardswish"], crates: CORE, most: 2 },
    Kind { what: "an elementwise operator of two tensors", names: &["Prelu"], crates: CORE, most: 2 },
    Kind { what: "an elementwise loss", names: &["SoftMargin"], crates: CORE, most: 3 },
    Kind { what: "an optimiser", names: &["Lion"], crates: &["tensor", "cpu", "nn"], most: 3 },
    // A float dtype has its format and its conversions besides.
    Kind { what: "a dtype", names: &["U32"], crates: &["tensor", "cpu", "autograd", "amp", "nn", "train"], most: 10 },
    Kind { what: "a layer", names: &["GroupNorm"], crates: &["nn"], most: 2 },
    Kind { what: "a model", names: &["SmallCnn"], crates: &["models"], most: 3 },
    Kind { what: "a data set", names: &["FashionMnist"], crates: &["train", "binade"], most: 2 },
];

pub fn check(tree: &Tree) -> Vec<Finding> {
    KINDS.iter().flat_map(|kind| of_kind(kind, tree)).collect()
}

fn of_kind(kind: &Kind, tree: &Tree) -> Vec<Finding> {
    let counts = |file: &&File| {
        let within = kind.crates.iter().any(|name| file.path.starts_with(&format!("crates/{name}/src/")));
        within && words(&file.text).any(|word| kind.names.contains(&word))
    };
    let found: Vec<&File> = tree.library().filter(counts).collect();
    let paths: Vec<&str> = found.iter().map(|file| file.path.as_str()).collect();
    let what = match paths.len() {
        // Then nothing is counted: a renamed representative must be renamed here.
        0 => format!("{} is counted by {:?}, which no file names", kind.what, kind.names),
        n if n > kind.most => {
            format!("{} touches {n} files, counted by {:?}; at most {}: {paths:?}", kind.what, kind.names, kind.most)
        }
        _ => return Vec::new(),
    };
    let path = paths.last().copied().unwrap_or("ARCHITECTURE.md").to_string();
    vec![Finding { path, line: 1, what }]
}

/// The words of a text that are code: comments name things without being touched by them.
fn words(text: &str) -> impl Iterator<Item = &str> {
    let code = text.lines().map(|line| line.split_once("//").map_or(line, |(code, _)| code));
    code.flat_map(|line| line.split(|c: char| !c.is_alphanumeric() && c != '_'))
}

#[cfg(test)]
mod tests {
    use super::{Kind, of_kind};
    use crate::source::Tree;

    const KIND: Kind = Kind { what: "a thing", names: &["Thing", "thing"], crates: &["a", "b"], most: 2 };

    #[test]
    fn files_that_name_it_are_counted() {
        let two = [("crates/a/src/x.rs", "enum E { Thing }"), ("crates/b/src/y.rs", "fn f() { thing::<C>() }")];
        assert!(of_kind(&KIND, &Tree::of(&two)).is_empty());
        let three = [&two[..], &[("crates/a/src/z.rs", "use e::Thing;")]].concat();
        let found = of_kind(&KIND, &Tree::of(&three));
        assert!(found.len() == 1 && found[0].what.contains("3 files") && found[0].what.contains("z.rs"), "{found:?}");
    }

    #[test]
    fn comments_other_words_tests_and_other_crates_do_not_count() {
        let files = [
            ("crates/a/src/x.rs", "enum E { Thing }"),
            ("crates/a/src/y.rs", "/// A [`Thing`].\nstruct Things;"),
            ("crates/a/src/tests.rs", "Thing"),
            ("crates/a/tests/x.rs", "Thing"),
            ("crates/c/src/x.rs", "Thing"),
            ("crates/b/src/y.rs", "fn something() {}"),
        ];
        assert!(of_kind(&KIND, &Tree::of(&files)).is_empty());
    }

    #[test]
    fn a_name_that_is_nowhere_counts_nothing_and_is_told() {
        let found = of_kind(&KIND, &Tree::of(&[("crates/a/src/x.rs", "")]));
        assert!(found.len() == 1 && found[0].what.contains("no file names"), "{found:?}");
    }
}
