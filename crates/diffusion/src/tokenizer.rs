//! [`Tokenizer`]: CLIP's byte-level BPE, from `vocab.json` and `merges.txt`.

use std::collections::HashMap;
use std::path::Path;

use serde_json::Value;

use crate::{Error, Result};

/// The pairs that are merged, earliest first, and the numbers of what they become.
#[derive(Clone, Debug)]
pub struct Tokenizer {
    vocabulary: HashMap<String, i64>,
    ranks: HashMap<(String, String), usize>,
    start: i64,
    end: i64,
    pad: i64,
    /// Tokens of every text, with the two at its ends.
    pub length: usize,
}

/// A text as the encoder reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tokens {
    /// As many as the encoder reads, with start, end and padding.
    pub ids: Vec<i64>,
    /// The words that did not fit and were cut off, as the tokenizer writes them; empty mostly.
    pub cut: String,
}

const START: &str = "<|startoftext|>";
const END: &str = "<|endoftext|>";
/// What ends a word in the vocabulary.
const LAST: &str = "</w>";

impl Tokenizer {
    /// Of a folder with `vocab.json` and `merges.txt`, and perhaps `tokenizer_config.json` and
    /// `special_tokens_map.json`.
    ///
    /// # Errors
    /// A file that is missing or is not what it should be.
    pub fn open(folder: &Path) -> Result<Tokenizer> {
        let read = |name: &str| -> Result<String> {
            let path = folder.join(name);
            std::fs::read_to_string(&path).map_err(|e| Error::File { path, message: e.to_string() })
        };
        let bad = |name: &str, message: String| Error::File { path: folder.join(name), message };
        let vocabulary: HashMap<String, i64> =
            serde_json::from_str(&read("vocab.json")?).map_err(|e| bad("vocab.json", e.to_string()))?;
        let merges = read("merges.txt")?;
        let optional = |name: &str| -> Result<Value> {
            if !folder.join(name).exists() {
                return Ok(Value::Null);
            }
            serde_json::from_str(&read(name)?).map_err(|e| bad(name, e.to_string()))
        };
        let (config, special) = (optional("tokenizer_config.json")?, optional("special_tokens_map.json")?);
        // A token is its text, or an object with it.
        let pad = [&special["pad_token"], &config["pad_token"]]
            .into_iter()
            .find_map(|pad| pad.as_str().or_else(|| pad["content"].as_str()).map(str::to_string));
        let length = config["model_max_length"].as_u64().filter(|n| (3..=100_000).contains(n)).unwrap_or(77);
        Tokenizer::new(vocabulary, &merges, pad.as_deref(), length as usize)
            .map_err(|e| bad("vocab.json", e.to_string()))
    }

    /// Of a vocabulary and the lines of a `merges.txt`. Texts are padded with `pad`, by default the token that ends
    /// them.
    ///
    /// # Errors
    /// A line of merges that is no pair; a vocabulary without the tokens of start, end and padding.
    pub fn new(vocabulary: HashMap<String, i64>, merges: &str, pad: Option<&str>, length: usize) -> Result<Tokenizer> {
        let mut ranks = HashMap::new();
        for line in merges.lines().filter(|line| !line.starts_with("#version") && !line.trim().is_empty()) {
            let Some((a, b)) = line.trim_end().split_once(' ') else {
                return Err(Error::Setting(format!("a merge is a pair of words, got {line:?}")));
            };
            let rank = ranks.len();
            ranks.entry((a.to_string(), b.to_string())).or_insert(rank);
        }
        let of = |token: &str| {
            let id = vocabulary.get(token).copied();
            id.ok_or_else(|| Error::Setting(format!("the vocabulary has no token {token:?}")))
        };
        let (start, end) = (of(START)?, of(END)?);
        let pad = pad.map_or(Ok(end), of)?;
        Ok(Tokenizer { start, end, pad, ranks, vocabulary, length })
    }

    /// The tokens of a text: lower case, with single spaces, cut where it is too long.
    ///
    /// # Errors
    /// A piece that the vocabulary lacks, which one with all bytes in it has not.
    pub fn encode(&self, text: &str) -> Result<Tokens> {
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase();
        let mut ids = vec![self.start];
        let mut cut = String::new();
        for word in words(&text) {
            let special = [(START, self.start), (END, self.end)].into_iter().find(|(token, _)| *token == word);
            let pieces = match special {
                Some((token, _)) => vec![token.to_string()],
                None => self.merged(&word),
            };
            for piece in pieces {
                let id = self.vocabulary.get(&piece).copied();
                let id = id.ok_or_else(|| Error::Setting(format!("the vocabulary has no token {piece:?}")))?;
                if ids.len() + 1 < self.length {
                    ids.push(id);
                } else {
                    cut.push_str(&self.shown(&piece));
                }
            }
        }
        ids.push(self.end);
        ids.resize(self.length, self.pad);
        Ok(Tokens { ids, cut: cut.trim_end().to_string() })
    }

    /// A piece as a reader knows it.
    fn shown(&self, piece: &str) -> String {
        let (piece, space) = piece.strip_suffix(LAST).map_or((piece, ""), |piece| (piece, " "));
        let bytes: Vec<u8> = piece.chars().filter_map(|c| (0..=255).find(|&byte| letter(byte) == c)).collect();
        String::from_utf8_lossy(&bytes).into_owned() + space
    }

    /// The pieces of a word, after all merges.
    fn merged(&self, word: &str) -> Vec<String> {
        let mut pieces: Vec<String> = word.bytes().map(|byte| letter(byte).to_string()).collect();
        if let Some(last) = pieces.last_mut() {
            last.push_str(LAST);
        }
        loop {
            let rank = |i: usize| self.ranks.get(&(pieces[i].clone(), pieces[i + 1].clone())).copied();
            let best = (0..pieces.len().saturating_sub(1)).filter_map(|i| Some((rank(i)?, i))).min();
            let Some((_, at)) = best else { return pieces };
            let (first, second) = (pieces[at].clone(), pieces[at + 1].clone());
            let mut next = Vec::with_capacity(pieces.len());
            let mut i = 0;
            while i < pieces.len() {
                if i + 1 < pieces.len() && pieces[i] == first && pieces[i + 1] == second {
                    next.push(format!("{first}{second}"));
                    i += 2;
                } else {
                    next.push(std::mem::take(&mut pieces[i]));
                    i += 1;
                }
            }
            pieces = next;
        }
    }
}

/// The printable character that stands for a byte in the vocabulary.
fn letter(byte: u8) -> char {
    let plain = |b: u8| matches!(b, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    if plain(byte) {
        return char::from(byte);
    }
    // The others are counted from 256 on.
    let before = (0..byte).filter(|&b| !plain(b)).count() as u32;
    char::from_u32(256 + before).unwrap_or('?')
}

/// Special tokens, endings after an apostrophe, runs of letters, single digits, runs of what else is no space.
fn words(text: &str) -> Vec<String> {
    let mut out = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let endings = ["'s", "'t", "'re", "'ve", "'m", "'ll", "'d"];
        let fixed = [START, END].into_iter().chain(endings).find(|fixed| rest.starts_with(fixed));
        let length = if let Some(fixed) = fixed {
            fixed.len()
        } else if first.is_whitespace() {
            rest = &rest[first.len_utf8()..];
            continue;
        } else if first.is_alphabetic() {
            run(rest, char::is_alphabetic)
        } else if first.is_numeric() {
            first.len_utf8()
        } else {
            run(rest, |c| !c.is_whitespace() && !c.is_alphabetic() && !c.is_numeric())
        };
        out.push(rest[..length].to_string());
        rest = &rest[length..];
    }
    out
}

/// Bytes at the start whose characters all are so.
fn run(text: &str, is: impl Fn(char) -> bool) -> usize {
    text.char_indices().find(|(_, c)| !is(*c)).map_or(text.len(), |(i, _)| i)
}
