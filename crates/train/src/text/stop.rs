//! [`Stop`]: text that comes in pieces, up to where it shall end.

/// Lets text through up to the first of some words, which is left out.
#[derive(Clone, Debug)]
pub struct Stop {
    words: Vec<String>,
    /// What may be the beginning of such a word.
    held: String,
    found: bool,
}

impl Stop {
    /// At any of these words; an empty one is none.
    pub fn new(words: &[String]) -> Stop {
        let words = words.iter().filter(|word| !word.is_empty()).cloned().collect();
        Stop { words, held: String::new(), found: false }
    }

    /// What is sure to come before a word after another piece; nothing behind one.
    pub fn push(&mut self, piece: &str) -> String {
        if self.found {
            return String::new();
        }
        self.held.push_str(piece);
        if let Some(at) = self.words.iter().filter_map(|word| self.held.find(word)).min() {
            self.found = true;
            self.held.truncate(at);
            return std::mem::take(&mut self.held);
        }
        let ends = self.held.char_indices().map(|(at, _)| at);
        let mut beginnings = ends.filter(|&at| self.words.iter().any(|word| word.starts_with(&self.held[at..])));
        let sure = beginnings.next().unwrap_or(self.held.len());
        let rest = self.held.split_off(sure);
        std::mem::replace(&mut self.held, rest)
    }

    /// Whether a word came.
    pub fn found(&self) -> bool {
        self.found
    }

    /// What was held back, where no more comes.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }
}
