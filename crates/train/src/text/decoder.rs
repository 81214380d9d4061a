//! [`Decoder`]: text out of tokens as they come.

use super::Vocabulary;

/// Makes text of tokens one by one: a character comes when all of its bytes are there.
#[derive(Clone, Debug)]
pub struct Decoder {
    vocabulary: Vocabulary,
    /// The beginning of a character.
    pending: Vec<u8>,
}

impl Decoder {
    /// Of the tokens of a vocabulary.
    pub fn new(vocabulary: Vocabulary) -> Decoder {
        Decoder { vocabulary, pending: Vec::new() }
    }

    /// What is whole after another token. Bytes that begin no character become U+FFFD.
    pub fn push(&mut self, token: u32) -> String {
        self.pending.extend(self.vocabulary.spelled(token));
        let mut text = String::new();
        let mut rest = Vec::new();
        let mut chunks = self.pending.utf8_chunks().peekable();
        while let Some(chunk) = chunks.next() {
            text.push_str(chunk.valid());
            let invalid = chunk.invalid();
            // At the end, a part that more bytes can complete.
            let unfinished = std::str::from_utf8(invalid).is_err_and(|error| error.error_len().is_none());
            if chunks.peek().is_none() && unfinished {
                rest = invalid.to_vec();
            } else if !invalid.is_empty() {
                text.push(char::REPLACEMENT_CHARACTER);
            }
        }
        self.pending = rest;
        text
    }

    /// What is left of a character that was not completed.
    pub fn finish(&mut self) -> String {
        String::from_utf8_lossy(&std::mem::take(&mut self.pending)).into_owned()
    }
}
