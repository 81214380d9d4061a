//! Text as tokens: [`Vocabulary`] says which, [`Corpus`] is a text of them to learn from.

mod corpus;
mod decoder;
mod stop;
mod tokens;
mod vocabulary;

pub use corpus::{Corpus, Tokenizer};
pub use decoder::Decoder;
pub use stop::Stop;
pub use vocabulary::Vocabulary;
