//! Tests that nobody runs. Some are in a library whose manifest has `test = false`, which spares a second compilation.
//! Others are in a file that the `main.rs` of a program of tests beside it does not name.

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
    found.extend(unnamed(tree));
    found
}

fn unnamed(tree: &Tree) -> Vec<Finding> {
    let mut found = Vec::new();
    let mains = tree.with_extension("rs").filter_map(|file| Some((file.path.strip_suffix("main.rs")?, &file.text)));
    for (folder, main) in mains.filter(|(folder, _)| folder.contains("/tests/")) {
        for file in tree.with_extension("rs") {
            let module = file.path.strip_prefix(folder).and_then(|name| name.strip_suffix(".rs"));
            let named = |module: &str| main.lines().any(|line| line == format!("mod {module};"));
            if module.is_some_and(|m| m != "main" && !m.contains('/') && !named(m)) {
                found.push(file.finding(1, "never runs: the main.rs beside it does not name it"));
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

    #[test]
    fn a_file_of_tests_that_no_program_names_is_found() {
        let of = |main: &str| {
            let files = [
                ("crates/a/tests/all/main.rs", main),
                ("crates/a/tests/all/b.rs", ""),
                ("crates/a/tests/all/c/d.rs", ""),
                ("crates/a/tests/e.rs", ""),
            ];
            check(&Tree::of(&files)).into_iter().map(|f| f.path).collect::<Vec<_>>()
        };
        assert_eq!(of("mod bb;\n// mod b;\n"), ["crates/a/tests/all/b.rs"]);
        assert!(of("mod b;\n").is_empty());
    }
}
