//! No file of Rust over 400 lines, no line over 120 columns.

use crate::source::{Finding, Tree};

const LINES: usize = 400;
const COLUMNS: usize = 120;

pub fn check(tree: &Tree) -> Vec<Finding> {
    let mut found = Vec::new();
    for file in tree.with_extension("rs") {
        let lines = file.text.lines().count();
        if lines > LINES {
            found.push(file.finding(lines, format!("{lines} lines; at most {LINES}")));
        }
        for (i, line) in file.text.lines().enumerate() {
            let columns = line.chars().count();
            if columns > COLUMNS {
                found.push(file.finding(i + 1, format!("{columns} columns; at most {COLUMNS}")));
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
    fn long_files_and_long_lines_are_found() {
        let (good, long) = ("x\n".repeat(400), "x\n".repeat(401));
        let (wide, wider) = (format!("//{}\n", "é".repeat(118)), format!("\n//{}\n", "é".repeat(119)));
        let tree = Tree::of(&[("good.rs", &good), ("long.rs", &long), ("wide.rs", &wide), ("wider.rs", &wider)]);
        let found: Vec<_> = check(&tree).into_iter().map(|f| (f.path, f.line)).collect();
        assert_eq!(found, [("long.rs".to_string(), 401), ("wider.rs".to_string(), 2)]);
    }
}
