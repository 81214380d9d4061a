//! [`Corpus`]: a text as tokens, and windows of it.

use std::io::Read;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use binade_tensor::Key;

use super::Vocabulary;
use super::tokens::{TokenFile, Tokens};
use crate::data::{Sample, SampleResult};
use crate::{Data, Error, Result, Splits};

/// How a text becomes tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tokenizer {
    /// Every character is one, numbered in the order of those that the text has.
    Characters,
    /// By a vocabulary that is known before the text, as that of a model which learns on.
    Known(Vocabulary),
}

/// A text as tokens.
#[derive(Clone, Debug)]
pub struct Corpus {
    vocabulary: Vocabulary,
    tokens: Arc<Tokens>,
    /// Another text to evaluate on; else it is the last tenth of the one.
    held_out: Option<Arc<Tokens>>,
    checksum: u32,
    /// For messages.
    path: PathBuf,
}

impl Corpus {
    /// Nine plays of Shakespeare, embedded: 1,150,844 characters, 76 different ones.
    ///
    /// # Errors
    /// A known vocabulary of characters that lacks one of them; or of numbers alone, for which text is none.
    pub fn shakespeare(tokenizer: &Tokenizer) -> Result<Corpus> {
        const PACKED: &[u8] = include_bytes!("../../data/shakespeare.txt.gz");
        let path = PathBuf::from("embedded text");
        let mut text = String::new();
        flate2::read::GzDecoder::new(PACKED).read_to_string(&mut text).map_err(Error::io(&path))?;
        Corpus::of_text(&text, &path, tokenizer)
    }

    /// The text of a file in UTF-8, or the tokens of a file whose name ends in `.bin`: nanoGPT's (16 bits each, and
    /// nothing else) or llm.c's (a header, then 16 or 32 bits). Of a folder it is `train.bin`, and `val.bin` is what is
    /// evaluated on. Such a file is read as it is needed.
    ///
    /// # Errors
    /// A file that cannot be read, is not UTF-8 or not tokens, or is empty; what the known vocabulary does not have;
    /// [`Tokenizer::Characters`] for a file of tokens, which does not say what they stand for.
    pub fn open(path: &Path, tokenizer: &Tokenizer) -> Result<Corpus> {
        if path.is_dir() {
            let corpus = Corpus::open(&path.join("train.bin"), tokenizer)?;
            return corpus.with_held_out(&path.join("val.bin"));
        }
        if !is_tokens(path) {
            return Corpus::of_text(&read_text(path)?, path, tokenizer);
        }
        let Tokenizer::Known(vocabulary) = tokenizer else {
            return Err(Error::Data {
                path: path.into(),
                expected: "a vocabulary for its tokens".into(),
                found: "that of its characters asked for, and it has numbers only".into(),
            });
        };
        Corpus::new(vocabulary.clone(), Tokens::File(TokenFile::open(path)?), path)
    }

    /// With another text to evaluate on than the last tenth: a file as [`Corpus::open`] reads it.
    ///
    /// # Errors
    /// As [`Corpus::open`], with this vocabulary.
    pub fn with_held_out(mut self, path: &Path) -> Result<Corpus> {
        let other = Corpus::open(path, &Tokenizer::Known(self.vocabulary.clone()))?;
        self.held_out = Some(other.tokens);
        self.checksum = self.checksum.rotate_left(1) ^ other.checksum;
        Ok(self)
    }

    /// A text; `path` is for messages.
    fn of_text(text: &str, path: &Path, tokenizer: &Tokenizer) -> Result<Corpus> {
        let bad = |expected: String, found: String| Error::Data { path: path.into(), expected, found };
        if text.is_empty() {
            return Err(bad("text".into(), "an empty file".into()));
        }
        let vocabulary = match tokenizer {
            Tokenizer::Characters => Vocabulary::of_characters(text),
            Tokenizer::Known(known) => known.clone(),
        };
        let tokens =
            vocabulary.encode(text).map_err(|e| bad(format!("a text in {}", vocabulary.name()), e.to_string()));
        Corpus::new(vocabulary, Tokens::Memory(tokens?), path)
    }

    fn new(vocabulary: Vocabulary, tokens: Tokens, path: &Path) -> Result<Corpus> {
        let checksum = tokens.check(path, vocabulary.size())?;
        Ok(Corpus { vocabulary, tokens: Arc::new(tokens), held_out: None, checksum, path: path.into() })
    }

    /// What its tokens stand for.
    pub fn vocabulary(&self) -> &Vocabulary {
        &self.vocabulary
    }

    /// Tokens, without those held out in another text.
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// In words, with a checksum: another text is called otherwise.
    pub fn name(&self) -> String {
        format!("{} tokens of {}, checksum {:08x}", self.len(), self.vocabulary.name(), self.checksum)
    }

    /// How many tokens are trained on, and how many evaluated on.
    pub fn sizes(&self) -> [usize; 2] {
        self.parts().map(|(_, range)| range.len())
    }

    /// What is trained on and what is evaluated on.
    fn parts(&self) -> [(Arc<Tokens>, Range<usize>); 2] {
        let (tokens, len) = (&self.tokens, self.len());
        match &self.held_out {
            Some(other) => [(tokens.clone(), 0..len), (other.clone(), 0..other.len())],
            None => [(tokens.clone(), 0..len - len / 10), (tokens.clone(), len - len / 10..len)],
        }
    }

    /// Windows of `context` tokens and the token after each: for training `epoch` of them a pass at random places; for
    /// evaluation side by side, at most `evaluated`, of the held-out text. The arrays are `tokens` and `next`.
    ///
    /// # Errors
    /// A text that has no window; no windows asked for.
    pub fn splits(&self, context: usize, epoch: usize, evaluated: usize) -> Result<Splits> {
        if context == 0 || epoch == 0 || evaluated == 0 {
            return Err(Error::Config("context and numbers of windows must be at least 1".into()));
        }
        let parts = self.parts();
        if parts.iter().any(|(_, range)| range.len() <= context) {
            let wanted = match self.held_out {
                Some(_) => format!("at least {} tokens in each text, for windows of {context}", context + 1),
                None => format!("at least {} tokens, for windows of {context} in the last tenth", 10 * context + 10),
            };
            let found = parts.iter().map(|(_, range)| range.len().to_string()).collect::<Vec<_>>().join(" and ");
            return Err(Error::Data { path: self.path.clone(), expected: wanted, found });
        }
        let [train, test] = parts.map(|(tokens, range)| Windows { tokens, range, context, len: epoch, random: true });
        let len = ((test.range.len() - 1) / context).min(evaluated);
        Ok(Splits::new(train, Windows { len, random: false, ..test }))
    }

    /// How many characters or bytes a token is on the mean of those that `evaluated` windows predict, and which of the
    /// two; `None` where only numbers are known.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn per_token(&self, context: usize, evaluated: usize) -> Result<Option<(&'static str, f64)>> {
        let [_, (tokens, range)] = self.parts();
        let whole = (range.len().saturating_sub(1) / context).min(evaluated) * context;
        let predicted = tokens.read(range.start + 1..range.start + 1 + whole)?;
        let measured = self.vocabulary.measure(&predicted).filter(|(_, n)| *n > 0);
        Ok(measured.map(|(unit, n)| (unit, n as f64 / predicted.len() as f64)))
    }
}

/// Whether a file has tokens rather than text.
fn is_tokens(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "bin")
}

fn read_text(path: &Path) -> Result<String> {
    let bytes = std::fs::read(path).map_err(Error::io(path))?;
    String::from_utf8(bytes).map_err(|error| Error::Data {
        path: path.into(),
        expected: "text in UTF-8".into(),
        found: format!("something else at byte {}", error.utf8_error().valid_up_to()),
    })
}

/// Windows of a text.
struct Windows {
    tokens: Arc<Tokens>,
    range: Range<usize>,
    context: usize,
    len: usize,
    /// At places that the key draws, else side by side.
    random: bool,
}

impl Data for Windows {
    fn len(&self) -> usize {
        self.len
    }

    fn sample(&self, index: usize, key: Option<Key>) -> SampleResult {
        // The last has its next token within the range.
        let places = (self.range.len() - self.context) as u64;
        let at = match key.filter(|_| self.random) {
            Some(key) => ((u128::from(self.draw(key, index)) * u128::from(places)) >> 64) as u64,
            None => (index * self.context) as u64 % places,
        };
        let start = self.range.start + at as usize;
        let read = self.tokens.read(start..start + self.context + 1)?;
        let tokens: Vec<i64> = read.into_iter().map(i64::from).collect();
        let shape = [self.context];
        Ok(Sample::new().with("tokens", &tokens[..self.context], &shape).with("next", &tokens[1..], &shape))
    }
}

impl Windows {
    /// 64 random bits: texts may have more places than 32 can number.
    fn draw(&self, key: Key, index: usize) -> u64 {
        u64::from(key.bits(2 * index)) << 32 | u64::from(key.bits(2 * index + 1))
    }
}
