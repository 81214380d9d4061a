//! [`Vocabulary`]: what the tokens of a language model stand for.

use std::collections::{BTreeSet, HashMap};

use serde::{Deserialize, Serialize};
#[cfg(feature = "bpe")]
use tiktoken_rs::{CoreBPE, r50k_base_singleton};

use super::Decoder;
use crate::{Error, Result};

/// What tokens stand for: small enough to be kept beside the model that knows them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Vocabulary {
    /// Token i is the character at place i.
    Characters {
        /// All of them, none twice.
        characters: String,
    },
    /// GPT-2's pairs of bytes (tiktoken's `r50k_base`): 50,257 tokens, the last of which ends a text.
    #[cfg(feature = "bpe")]
    Gpt2,
    /// Only the numbers are known.
    Numbers {
        /// How many there are.
        size: usize,
    },
}

/// GPT-2's tokens, and the one that ends a text.
#[cfg(feature = "bpe")]
const GPT2: usize = 50_257;

impl Vocabulary {
    /// The characters of a text, in their order.
    pub fn of_characters(text: &str) -> Vocabulary {
        Vocabulary::Characters { characters: text.chars().collect::<BTreeSet<char>>().into_iter().collect() }
    }

    /// Tokens there are.
    pub fn size(&self) -> usize {
        match self {
            Vocabulary::Characters { characters } => characters.chars().count(),
            #[cfg(feature = "bpe")]
            Vocabulary::Gpt2 => GPT2,
            Vocabulary::Numbers { size } => *size,
        }
    }

    /// In words.
    pub fn name(&self) -> String {
        match self {
            Vocabulary::Characters { .. } => format!("{} characters", self.size()),
            #[cfg(feature = "bpe")]
            Vocabulary::Gpt2 => "GPT-2's pairs of bytes".into(),
            Vocabulary::Numbers { size } => format!("{size} numbers"),
        }
    }

    /// The tokens of a text; of [`Vocabulary::Numbers`] the text is the numbers, between spaces or commas.
    ///
    /// # Errors
    /// [`Error::Config`]: a character that is not there; a number that is none or not below the size.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        match self {
            Vocabulary::Characters { characters } => {
                let number: HashMap<char, u32> = characters.chars().zip(0..).collect();
                let token = |c: char| {
                    let unknown = || Error::Config(format!("the vocabulary of {} has no {c:?}", self.name()));
                    number.get(&c).copied().ok_or_else(unknown)
                };
                text.chars().map(token).collect()
            }
            #[cfg(feature = "bpe")]
            Vocabulary::Gpt2 => Ok(bpe().encode_ordinary(text)),
            Vocabulary::Numbers { size } => {
                let words = text.split(|c: char| c.is_whitespace() || c == ',').filter(|word| !word.is_empty());
                let token = |word: &str| {
                    let number = word.parse().ok().filter(|&n: &u32| (n as usize) < *size);
                    number.ok_or_else(|| Error::Config(format!("expected a token below {size}, got {word:?}")))
                };
                words.map(token).collect()
            }
        }
    }

    /// As [`Vocabulary::encode`], of what a model goes on from: GPT-2's `<|endoftext|>` is one token there.
    ///
    /// # Errors
    /// As [`Vocabulary::encode`].
    pub fn encode_prompt(&self, text: &str) -> Result<Vec<u32>> {
        match self {
            #[cfg(feature = "bpe")]
            Vocabulary::Gpt2 => Ok(bpe().encode_with_special_tokens(text)),
            Vocabulary::Characters { .. } | Vocabulary::Numbers { .. } => self.encode(text),
        }
    }

    /// The tokens that a model begins with where there is no prompt: the end of another text, or a line break, or the
    /// first token.
    pub fn beginning(&self) -> Vec<u32> {
        match self {
            #[cfg(feature = "bpe")]
            Vocabulary::Gpt2 => vec![GPT2 as u32 - 1],
            Vocabulary::Characters { .. } => self.encode("\n").unwrap_or_else(|_| vec![0]),
            Vocabulary::Numbers { .. } => vec![0],
        }
    }

    /// The text of tokens. What is no UTF-8 becomes U+FFFD; tokens that are not there are left out.
    pub fn decode(&self, tokens: &[u32]) -> String {
        let mut decoder = Decoder::new(self.clone());
        let mut text: String = tokens.iter().map(|&token| decoder.push(token)).collect();
        text.push_str(&decoder.finish());
        text
    }

    /// The bytes of a token; none of one that is not there.
    pub(super) fn spelled(&self, token: u32) -> Vec<u8> {
        match self {
            Vocabulary::Characters { characters } => {
                characters.chars().nth(token as usize).map_or_else(Vec::new, |c| c.to_string().into_bytes())
            }
            #[cfg(feature = "bpe")]
            Vocabulary::Gpt2 => bpe().decode_bytes(&[token]).unwrap_or_default(),
            Vocabulary::Numbers { .. } => format!(" {token}").into_bytes(),
        }
    }

    /// What bits are told per, and how many of these the tokens are; `None` where only numbers are known.
    pub(super) fn measure(&self, tokens: &[u32]) -> Option<(&'static str, usize)> {
        match self {
            Vocabulary::Characters { .. } => Some(("character", tokens.len())),
            #[cfg(feature = "bpe")]
            Vocabulary::Gpt2 => Some(("byte", bpe().decode_bytes(tokens).map_or(0, |bytes| bytes.len()))),
            Vocabulary::Numbers { .. } => None,
        }
    }

    /// Whether the token ends a text.
    #[cfg_attr(not(feature = "bpe"), expect(unused_variables, reason = "GPT-2's vocabulary alone has such a token"))]
    pub fn ends(&self, token: u32) -> bool {
        match self {
            #[cfg(feature = "bpe")]
            Vocabulary::Gpt2 => token as usize == GPT2 - 1,
            Vocabulary::Characters { .. } | Vocabulary::Numbers { .. } => false,
        }
    }
}

#[cfg(feature = "bpe")]
fn bpe() -> &'static CoreBPE {
    r50k_base_singleton()
}
