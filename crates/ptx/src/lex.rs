//! Words, numbers and punctuation of PTX, each with its line.

use crate::error::{Error, Result};

/// A token.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Token<'a> {
    /// An identifier, directive or opcode; dots and `::` belong to it: `.reg`, `%tid.x`, `ld.shared::cta.b32`.
    Word(&'a str),
    /// An integer literal.
    Int(u64),
    /// `0f3F800000`.
    F32(u32),
    /// `0d3FF0000000000000` or a decimal literal.
    F64(u64),
    /// A quoted string.
    Text(&'a str),
    /// A punctuation character.
    Punct(char),
}

/// The tokens of `text` with the line each begins in.
pub(crate) fn tokens(text: &str) -> Result<Vec<(Token<'_>, u32)>> {
    let bytes = text.as_bytes();
    let (mut out, mut at, mut line) = (Vec::new(), 0, 1);
    while at < bytes.len() {
        let c = bytes[at];
        match c {
            b'\n' => {
                line += 1;
                at += 1;
            }
            b' ' | b'\t' | b'\r' => at += 1,
            b'/' if bytes.get(at + 1) == Some(&b'/') => {
                at += text[at..].find('\n').unwrap_or(text.len() - at);
            }
            b'/' if bytes.get(at + 1) == Some(&b'*') => {
                let end = text[at + 2..].find("*/").ok_or_else(|| parse(line, "a comment that does not end"))?;
                line += text[at..at + 2 + end].matches('\n').count() as u32;
                at += end + 4;
            }
            b'"' => {
                let end = text[at + 1..].find('"').ok_or_else(|| parse(line, "a string that does not end"))?;
                let inner = &text[at + 1..at + 1 + end];
                out.push((Token::Text(inner), line));
                line += inner.matches('\n').count() as u32;
                at += end + 2;
            }
            b'0'..=b'9' => {
                let end = at + bytes[at..].iter().take_while(|&&b| b.is_ascii_alphanumeric() || b == b'.').count();
                out.push((number(&text[at..end], line)?, line));
                at = end;
            }
            _ if word_start(c) => {
                let start = at;
                at += 1;
                while at < bytes.len() {
                    if word_part(bytes[at]) {
                        at += 1;
                    } else if bytes[at] == b':' && bytes.get(at + 1) == Some(&b':') {
                        at += 2;
                    } else {
                        break;
                    }
                }
                out.push((Token::Word(&text[start..at]), line));
            }
            _ if b",;:()[]{}<>@!|=+-~&".contains(&c) => {
                out.push((Token::Punct(c as char), line));
                at += 1;
            }
            _ => {
                let c = text[at..].chars().next().unwrap_or('?');
                return Err(parse(line, &format!("the character {c:?}, which PTX does not have")));
            }
        }
    }
    Ok(out)
}

fn parse(line: u32, what: &str) -> Error {
    Error::Parse { line, message: format!("found {what}") }
}

fn word_start(c: u8) -> bool {
    c.is_ascii_alphabetic() || matches!(c, b'_' | b'$' | b'%' | b'.')
}

fn word_part(c: u8) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, b'_' | b'$' | b'.')
}

fn number(word: &str, line: u32) -> Result<Token<'static>> {
    let bad = || parse(line, &format!("the number `{word}`, which is malformed"));
    if let Some(digits) = word.strip_prefix("0f").or(word.strip_prefix("0F")) {
        return match digits.len() {
            8 => u32::from_str_radix(digits, 16).map(Token::F32).map_err(|_| bad()),
            _ => Err(bad()),
        };
    }
    if let Some(digits) = word.strip_prefix("0d").or(word.strip_prefix("0D")) {
        return match digits.len() {
            16 => u64::from_str_radix(digits, 16).map(Token::F64).map_err(|_| bad()),
            _ => Err(bad()),
        };
    }
    if word.contains('.') {
        return word.parse().map(|v: f64| Token::F64(v.to_bits())).map_err(|_| bad());
    }
    let digits = word.strip_suffix('U').unwrap_or(word);
    let parsed = if let Some(hex) = digits.strip_prefix("0x").or(digits.strip_prefix("0X")) {
        u64::from_str_radix(hex, 16)
    } else if let Some(binary) = digits.strip_prefix("0b").or(digits.strip_prefix("0B")) {
        u64::from_str_radix(binary, 2)
    } else if digits.len() > 1 && digits.starts_with('0') {
        u64::from_str_radix(&digits[1..], 8)
    } else {
        digits.parse()
    };
    parsed.map(Token::Int).map_err(|_| bad())
}
