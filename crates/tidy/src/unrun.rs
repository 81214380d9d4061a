//! A library whose manifest has `test = false`, so that it is not compiled a second time for no test, has none.

use crate::source::{Finding, Tree};

pub fn check(tree: &Tree) -> Vec<Finding> {
    let untested = |manifest: &str| {
        let (_, lib) = manifest.split_once("[lib]\n")?;
        let lib = lib.split("\n[").next()?;
        Some(lib.lines().any(|line| line == "test = false"))
    };
    let crates = tree.files.iter().filter_map(|file| {
        let folder = file.path.strip_suffix("Cargo.toml")?;
        untested(&file.text)?.then(|| format!("{folder}src/"))
    });
    let mut found = Vec::new();
    for folder in crates {
        for file in tree.with_extension("rs").filter(|file| file.path.starts_with(&folder)) {
            for (i, line) in file.text.lines().enumerate() {
                if ["#[test]", "#[cfg(test)]"].contains(&line.trim()) {
                    found.push(file.finding(i + 1, "never runs: the manifest says `test = false`"));
                }
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::check;
    use crate::source::Tree;

    #[test]
    fn a_test_that_never_runs_is_found() {
        let found = |manifest: &str| {
            let source = "fn f() {}\n\n#[cfg(test)]\nmod tests {\n    #[test]\n    fn g() {}\n}\n";
            let files =
                [("crates/a/Cargo.toml", manifest), ("crates/a/src/b.rs", source), ("crates/a/tests/c.rs", source)];
            check(&Tree::of(&files)).iter().map(|f| f.line).collect::<Vec<_>>()
        };
        assert_eq!(found("[package]\n\n[lib]\ntest = false\n\n[dependencies]\n"), [3, 5]);
        assert!(found("[lib]\nproc-macro = true\n\n[[bin]]\ntest = false\n").is_empty());
    }
}
