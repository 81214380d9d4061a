//! [`Corpus`]: a text as characters, and [`Language`]: predicting the next one.

use std::collections::{BTreeSet, HashMap};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use binade_autograd::{Var, scope};
use binade_nn::Layer;
use binade_tensor::op::CrossEntropy;
use binade_tensor::{Array, Class, DType, Key};

use crate::data::{Sample, SampleResult};
use crate::{Batch, Data, Error, Made, Result, Splits, Task};

/// A text of which every character is a token; tokens are numbered in the order of the characters.
#[derive(Clone, Debug)]
pub struct Corpus {
    characters: Vec<char>,
    tokens: Arc<[u32]>,
    /// For messages.
    path: PathBuf,
}

impl Corpus {
    /// Nine plays of Shakespeare, embedded: 1,150,844 characters, 76 different ones.
    ///
    /// # Errors
    /// None that is known.
    pub fn shakespeare() -> Result<Corpus> {
        const PACKED: &[u8] = include_bytes!("../data/shakespeare.txt.gz");
        let path = PathBuf::from("embedded text");
        let mut text = String::new();
        flate2::read::GzDecoder::new(PACKED).read_to_string(&mut text).map_err(Error::io(&path))?;
        Corpus::new(&text, path)
    }

    /// The text of a file in UTF-8.
    ///
    /// # Errors
    /// The file cannot be read, is not UTF-8, or is empty.
    pub fn read(path: &Path) -> Result<Corpus> {
        let bytes = std::fs::read(path).map_err(Error::io(path))?;
        let text = String::from_utf8(bytes).map_err(|error| Error::Data {
            path: path.into(),
            expected: "text in UTF-8".into(),
            found: format!("something else at byte {}", error.utf8_error().valid_up_to()),
        })?;
        Corpus::new(&text, path.into())
    }

    fn new(text: &str, path: PathBuf) -> Result<Corpus> {
        if text.is_empty() {
            return Err(Error::Data { path, expected: "text".into(), found: "an empty file".into() });
        }
        let characters: Vec<char> = text.chars().collect::<BTreeSet<char>>().into_iter().collect();
        let number: HashMap<char, u32> = characters.iter().zip(0..).map(|(&c, i)| (c, i)).collect();
        Ok(Corpus { tokens: text.chars().map(|c| number[&c]).collect(), characters, path })
    }

    /// Different characters.
    pub fn vocabulary(&self) -> usize {
        self.characters.len()
    }

    /// Characters.
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// Windows of `context` characters and the character after each: of the first nine tenths at random places, `epoch`
    /// of them a pass; of the last tenth side by side, at most `evaluated`. The arrays are `tokens` and `next`.
    ///
    /// # Errors
    /// A text that has no window in its last tenth; no windows asked for.
    pub fn splits(&self, context: usize, epoch: usize, evaluated: usize) -> Result<Splits> {
        let cut = self.tokens.len() - self.tokens.len() / 10;
        if context == 0 || epoch == 0 || evaluated == 0 {
            return Err(Error::Config("context and numbers of windows must be at least 1".into()));
        }
        if self.tokens.len() / 10 <= context {
            return Err(Error::Data {
                path: self.path.clone(),
                expected: format!(
                    "at least {} characters, for windows of {context} in its last tenth",
                    10 * context + 10
                ),
                found: self.tokens.len().to_string(),
            });
        }
        let of = |range: std::ops::Range<usize>, len, random| {
            let tokens = self.tokens.clone();
            Windows { tokens, range, context, len, random }
        };
        let whole = (self.tokens.len() - cut - 1) / context;
        let (train, test) = (of(0..cut, epoch, true), of(cut..self.tokens.len(), whole.min(evaluated), false));
        Ok(Splits::new(train, test))
    }

    /// The tokens of a text.
    ///
    /// # Errors
    /// [`Error::Config`]: a character that the corpus does not have.
    pub fn encode(&self, text: &str) -> Result<Vec<i64>> {
        let number = |c: char| {
            let found = self.characters.binary_search(&c);
            found
                .map(|i| i as i64)
                .map_err(|_| Error::Config(format!("the text has no {c:?}: the model cannot read it")))
        };
        text.chars().map(number).collect()
    }

    /// The text of tokens.
    pub fn decode(&self, tokens: &[i64]) -> String {
        tokens.iter().filter_map(|&t| self.characters.get(t as usize)).collect()
    }
}

/// Windows of a text.
struct Windows {
    tokens: Arc<[u32]>,
    range: std::ops::Range<usize>,
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
        let places = (self.range.len() - self.context) as u64;
        let at = match key.filter(|_| self.random) {
            Some(key) => (key.bits(index) as u64 * places) >> 32,
            None => (index * self.context) as u64 % places,
        };
        let from = &self.tokens[self.range.start + at as usize..][..self.context + 1];
        let tokens: Vec<i64> = from.iter().map(|&t| t as i64).collect();
        let shape = [self.context];
        Ok(Sample::new().with("tokens", &tokens[..self.context], &shape).with("next", &tokens[1..], &shape))
    }
}

/// Predicting each next token of windows of a text, by cross-entropy; the model takes indices `[B, T]` and gives logits
/// `[B, T, vocabulary]`. Counts are of tokens.
#[derive(Clone, Debug)]
pub struct Language {
    /// The text.
    pub corpus: Corpus,
    /// Longest sequence of the model.
    pub context: usize,
    /// Characters that the model writes at the end.
    pub written: usize,
}

impl<M: Layer> Task<M> for Language {
    fn name(&self) -> String {
        format!("language of {} characters, {} of context", self.corpus.vocabulary(), self.context)
    }

    fn loss(&self, model: &M, batch: &Batch) -> Result<(Var, f64)> {
        let (tokens, next) = (batch.get("tokens")?, batch.get("next")?);
        let (count, vocabulary) = (tokens.shape().numel(), self.corpus.vocabulary() as isize);
        let logits = model.forward(&tokens)?.reshape(&[-1, vocabulary])?; // (B·T, vocabulary)
        Ok((logits.cross_entropy(&next.reshape(&[-1])?, CrossEntropy::default())?, count as f64))
    }

    fn unit(&self) -> &'static str {
        "tokens"
    }

    fn has_perplexity(&self) -> bool {
        true
    }

    /// A text after a line break, each character drawn from what the model expects.
    fn samples(&self, model: &M) -> Result<Vec<Made>> {
        let start = self.corpus.encode("\n").unwrap_or_else(|_| vec![0]);
        Ok(vec![Made::Text(self.corpus.decode(&self.write(model, start, self.written)?[1..]))])
    }
}

impl Language {
    /// `n` more tokens after `tokens`, drawn from the scope's stream; the model sees the last [`Language::context`].
    ///
    /// # Errors
    /// The model fails.
    pub fn write(&self, model: &impl Layer, mut tokens: Vec<i64>, n: usize) -> Result<Vec<i64>> {
        for _ in 0..n {
            let seen = &tokens[tokens.len().saturating_sub(self.context)..];
            let device = model.device().map_or_else(scope::device, Ok)?;
            let seen = Array::from_slice(&device, seen, &[1, seen.len()], Class::Indices)?;
            let logits = model.forward(&Var::constant(seen))?; // (1, T, vocabulary)
            let last = logits.narrow(1, logits.shape()[1] - 1, 1)?.reshape(&[1, -1])?;
            tokens.push(last.cast(DType::F32)?.softmax(-1)?.multinomial(1, false)?.item()? as i64);
        }
        Ok(tokens)
    }
}
