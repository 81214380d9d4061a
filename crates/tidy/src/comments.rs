//! Documentation in the source has short sentences.

use crate::source::{Finding, Tree};

/// Words of a sentence, or of its part up to a colon or semicolon.
const WORDS: usize = 28;

pub fn check(tree: &Tree) -> Vec<Finding> {
    let mut found = Vec::new();
    for file in tree.library() {
        for (line, text) in paragraphs(&file.text) {
            for sentence in sentences(&text) {
                let words = sentence.split_whitespace().count();
                if words > WORDS {
                    let what = format!("a sentence of {words} words, at most {WORDS}: {sentence:.40}…");
                    found.push(file.finding(line, what));
                }
            }
        }
    }
    found
}

/// Paragraphs of documentation, with the line each begins in, counted from 1. Code, tables and headings are none.
fn paragraphs(source: &str) -> Vec<(usize, String)> {
    let (mut found, mut fenced): (Vec<(usize, String)>, bool) = (Vec::new(), false);
    let mut open = false;
    for (i, line) in source.lines().enumerate() {
        let line = line.trim_start();
        let Some(text) = line.strip_prefix("///").or(line.strip_prefix("//!")).map(str::trim) else {
            (open, fenced) = (false, false);
            continue;
        };
        let fence = text.starts_with("```");
        fenced ^= fence;
        if fenced || fence || text.is_empty() || text.starts_with(['|', '#']) {
            open = false;
            continue;
        }
        match found.last_mut().filter(|_| open && !text.starts_with("- ")) {
            Some((_, paragraph)) => *paragraph = format!("{paragraph} {text}"),
            None => found.push((i + 1, text.to_string())),
        }
        open = true;
    }
    found
}

fn sentences(paragraph: &str) -> Vec<&str> {
    let mut rest = paragraph;
    let mut found = Vec::new();
    while let Some(end) = [". ", ": ", "; ", "? ", "! "].iter().filter_map(|mark| rest.find(mark)).min() {
        found.push(&rest[..=end]);
        rest = &rest[end + 2..];
    }
    found.push(rest);
    found
}

#[cfg(test)]
mod tests {
    use super::check;
    use crate::source::Tree;

    fn lines(text: &str) -> Vec<usize> {
        check(&Tree::of(&[("crates/a/src/lib.rs", text)])).into_iter().map(|f| f.line).collect()
    }

    #[test]
    fn a_long_sentence_over_several_lines_is_found_where_its_paragraph_begins() {
        let words = |n: usize| ["word"; 7].join(" ") + &"\n/// a b c d e f g".repeat(n);
        assert_eq!(lines(&format!("/// {}.\n", words(3))), []);
        assert_eq!(lines(&format!("//! Short.\n\n/// {} more.\n", words(3))), [3]);
    }

    #[test]
    fn sentences_paragraphs_items_and_code_are_apart() {
        let part = ["word"; 20].join(" ");
        for between in [". ", ": ", "; ", "\n///\n/// ", "\n/// - ", "\n/// ```\n/// ", "\nfn f() {}\n/// "] {
            assert_eq!(lines(&format!("/// {part}{between}{part}\n")), [], "{between}");
        }
        let long = ["word"; 40].join(" ");
        assert_eq!(lines(&format!("/// ```\n/// {long}\n/// ```\n/// | {long} |\n// {long}\n")), []);
    }
}
