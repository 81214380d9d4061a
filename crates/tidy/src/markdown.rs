//! Markdown has one sentence per line, none of them long.

use crate::source::{Finding, Tree};

/// Words of a sentence.
const WORDS: usize = 30;

pub fn check(tree: &Tree) -> Vec<Finding> {
    let mut found = Vec::new();
    for file in tree.with_extension("md") {
        for (line, text, next) in prose(&file.text) {
            if let Some(second) = second_sentence(text) {
                found.push(file.finding(line, format!("a second sentence on the line: {second:.20}")));
            } else if !ends(text) && next {
                found.push(file.finding(line, "a sentence that goes on in the next line"));
            }
            let words = text.split_whitespace().filter(|word| word.chars().any(char::is_alphanumeric)).count();
            if words > WORDS {
                found.push(file.finding(line, format!("a sentence of {words} words; at most {WORDS}")));
            }
        }
    }
    found
}

/// Lines of prose, counted from 1, and whether the next line goes on in the same paragraph. Code, tables, headings and
/// pictures are none.
fn prose(text: &str) -> Vec<(usize, &str, bool)> {
    let (mut fenced, mut lines) = (false, Vec::new());
    for line in text.lines() {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        let other = fenced
            || fence
            || line.trim().is_empty()
            || ["|", "#", "    ", "!["].iter().any(|start| line.starts_with(start));
        lines.push((!other).then(|| line.trim()));
    }
    let goes_on = |i: usize| lines.get(i + 1).copied().flatten().is_some_and(|next| !item(next));
    (0..lines.len()).filter_map(|i| Some((i + 1, lines[i]?, goes_on(i)))).collect()
}

/// Whether a line begins an item of a list.
fn item(line: &str) -> bool {
    let number = line.trim_start_matches(|c: char| c.is_ascii_digit());
    line.starts_with("- ") || line.starts_with("* ") || (number.len() < line.len() && number.starts_with(". "))
}

/// Whether a line is the end of a sentence, or of what leads up to a list or code.
fn ends(line: &str) -> bool {
    line.trim_end_matches(['*', '`', ')', '"', '_']).ends_with(['.', '!', '?', ':'])
}

/// What begins on a line after the end of a sentence.
fn second_sentence(line: &str) -> Option<&str> {
    let mut code = false;
    let text = if item(line) { line.split_once(' ')?.1 } else { line };
    for (i, c) in text.char_indices() {
        code ^= c == '`';
        let after = &text[i + c.len_utf8()..];
        let rest = after.trim_start_matches(['*', ')', '"']);
        let Some(rest) = rest.strip_prefix(' ').filter(|_| !code && matches!(c, '.' | '!' | '?')) else { continue };
        let begins = rest.trim_start_matches(['*', '(', '"', '[']).starts_with(|c: char| c.is_uppercase() || c == '`');
        let short = ["al", "e.g", "i.e", "vs"].iter().any(|word| text[..i].ends_with(word));
        if begins && !short {
            return Some(rest);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::check;
    use crate::source::Tree;

    fn found(text: &str) -> Vec<(usize, String)> {
        check(&Tree::of(&[("a.md", text)])).into_iter().map(|f| (f.line, f.what)).collect()
    }

    #[test]
    fn two_sentences_on_a_line_are_found() {
        for text in ["It is. `This` too.\n", "x\n\n- It is (so.) But.\n", "**Never.** Or.\n", "Is it? It is.\n"] {
            let found = found(text);
            assert!(found.len() == 1 && found[0].1.contains("second sentence"), "{text}: {found:?}");
        }
    }

    #[test]
    fn a_sentence_over_two_lines_is_found() {
        let found = found("It goes\non.\n- and\n  on.\n");
        assert_eq!(found.iter().map(|f| f.0).collect::<Vec<_>>(), [1, 3]);
    }

    #[test]
    fn a_long_sentence_is_found() {
        assert_eq!(found(&format!("{}.\n", ["word"; 30].join(" "))), []);
        assert_eq!(found(&format!("{}.\n", ["word"; 31].join(" "))).len(), 1);
    }

    #[test]
    fn code_tables_and_headings_are_no_prose() {
        let text = "# A. B\n\n| a. B | c |\n\n```rust\nlet a. B\n```\n\n    a. B\n\nSee `a. B`:\n- one\n- two\n\n\
                    1. One.\n2. Two.\n";
        assert_eq!(found(text), []);
        assert_eq!(found("By Micikevicius et al. 2018, 1.5 times.\n"), []);
    }
}
