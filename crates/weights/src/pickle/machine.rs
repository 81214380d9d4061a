//! [`Machine`]: reads a pickle into [`Value`]s. Classes are looked up in a list, calls make tensors of numbers, and
//! nothing else can happen.

use std::collections::HashMap;
use std::rc::Rc;

use super::make::{Refused, Result};
use super::value::{Class, Id, Value};

/// Bytes of the longest pickle: names, shapes and strides, without the numbers.
const LONGEST: usize = 64 << 20;
/// Most values of a pickle.
const MOST: usize = 1 << 22;
/// Most values that wait, and so the deepest nesting.
const DEEPEST: usize = 1 << 20;
/// Most characters of a text.
const TEXT: usize = 1 << 20;

/// What has been read, and what waits to be used.
pub(super) struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    values: Vec<Value>,
    stack: Vec<Id>,
    marks: Vec<usize>,
    memo: HashMap<u32, Id>,
    /// Tensors that were made.
    pub(super) tensors: usize,
}

/// A pickle that was read.
pub(super) struct Read {
    values: Vec<Value>,
    root: Id,
    /// Bytes up to its end.
    pub(super) end: usize,
}

impl Read {
    /// All values, in the order in which they were read.
    pub(super) fn values(&self) -> impl Iterator<Item = &Value> {
        self.values.iter()
    }

    pub(super) fn root(&self) -> &Value {
        self.get(self.root)
    }

    pub(super) fn get(&self, id: Id) -> &Value {
        &self.values[id as usize]
    }
}

/// Reads the pickle at the start of these bytes.
pub(super) fn read(bytes: &[u8]) -> Result<Read> {
    let bytes = &bytes[..bytes.len().min(LONGEST)];
    let mut machine =
        Machine { bytes, at: 0, values: vec![], stack: vec![], marks: vec![], memo: HashMap::new(), tensors: 0 };
    while machine.step()? {}
    let root = machine.pop()?;
    Ok(Read { values: machine.values, root, end: machine.at })
}

impl Machine<'_> {
    fn take(&mut self, n: usize) -> Result<&[u8]> {
        let end = self.at.checked_add(n).filter(|end| *end <= self.bytes.len());
        let end = end.ok_or("the pickle is cut off, or longer than any of weights")?;
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        Ok(self.take(N)?.try_into().unwrap_or([0; N]))
    }

    fn byte(&mut self) -> Result<usize> {
        Ok(self.take(1)?[0] as usize)
    }

    fn length(&mut self) -> Result<usize> {
        Ok(u32::from_le_bytes(self.array()?) as usize)
    }

    /// Up to the end of a line, without it.
    fn line(&mut self) -> Result<Rc<str>> {
        let rest = &self.bytes[self.at..];
        let end = rest.iter().take(TEXT).position(|b| *b == b'\n').ok_or("a line without an end")?;
        let text = text(&rest[..end])?;
        self.at += end + 1;
        Ok(text)
    }

    fn text(&mut self, n: usize) -> Result<Rc<str>> {
        if n > TEXT {
            return Err(format!("a text of {n} bytes").into());
        }
        text(self.take(n)?)
    }

    fn push(&mut self, value: Value) -> Result<()> {
        if self.values.len() >= MOST || self.stack.len() >= DEEPEST {
            return Err("more values than any pickle of weights has".into());
        }
        self.stack.push(self.values.len() as Id);
        self.values.push(value);
        Ok(())
    }

    /// Values above the last mark stay out of reach of those below it.
    fn pop(&mut self) -> Result<Id> {
        let floor = self.marks.last().copied().unwrap_or(0);
        if self.stack.len() <= floor {
            return Err("it takes a value where there is none".into());
        }
        Ok(self.stack.swap_remove(self.stack.len() - 1))
    }

    fn top(&self) -> Result<Id> {
        self.stack.last().copied().ok_or_else(|| "it takes a value where there is none".into())
    }

    /// The values above the last mark.
    fn since_mark(&mut self) -> Result<Vec<Id>> {
        let mark = self.marks.pop().ok_or("it goes back to a mark that it has not set")?;
        Ok(self.stack.split_off(mark.min(self.stack.len())))
    }

    fn remember(&mut self, place: u32) -> Result<()> {
        if self.memo.len() >= MOST {
            return Err("it remembers more than any pickle of weights".into());
        }
        let top = self.top()?;
        self.memo.insert(place, top);
        Ok(())
    }

    fn recall(&mut self, place: u32) -> Result<()> {
        let id = *self.memo.get(&place).ok_or("it recalls what it has not remembered")?;
        if self.stack.len() >= DEEPEST {
            return Err("more values than any pickle of weights has".into());
        }
        self.stack.push(id);
        Ok(())
    }

    pub(super) fn get(&self, id: Id) -> &Value {
        &self.values[id as usize]
    }

    fn class(&mut self, module: &str, name: &str) -> Result<()> {
        let class = Class::named(module, name).ok_or_else(|| Refused::Class(format!("{module}.{name}")))?;
        self.push(Value::Class(class))
    }

    /// One instruction; false after the last.
    fn step(&mut self) -> Result<bool> {
        match self.byte()? as u8 {
            // PROTO, FRAME: how the rest is written.
            0x80 => {
                let version = self.byte()?;
                if !(2..=5).contains(&version) {
                    return Err(format!("protocol {version} of pickle is not read").into());
                }
            }
            0x95 => drop(self.take(8)?),
            b'.' => return Ok(false),
            b'(' => {
                if self.marks.len() >= DEEPEST {
                    return Err("nested deeper than any pickle of weights".into());
                }
                self.marks.push(self.stack.len());
            }
            b'0' => drop(self.pop()?),
            b'1' => drop(self.since_mark()?),
            b'2' => {
                let top = self.top()?;
                self.stack.push(top);
            }
            b'N' => self.push(Value::None)?,
            0x88 => self.push(Value::Bool(true))?,
            0x89 => self.push(Value::Bool(false))?,
            b'J' => {
                let value = i32::from_le_bytes(self.array()?);
                self.push(Value::Int(value as i64))?;
            }
            b'K' => {
                let value = self.byte()?;
                self.push(Value::Int(value as i64))?;
            }
            b'M' => {
                let value = u16::from_le_bytes(self.array()?);
                self.push(Value::Int(value as i64))?;
            }
            0x8a => {
                let n = self.byte()?;
                self.long(n)?;
            }
            0x8b => {
                let n = self.length()?;
                self.long(n)?;
            }
            b'G' => {
                self.take(8)?;
                self.push(Value::Other)?;
            }
            b'X' | b'T' => {
                let n = self.length()?;
                let text = self.text(n)?;
                self.push(Value::Text(text))?;
            }
            0x8c | b'U' => {
                let n = self.byte()?;
                let text = self.text(n)?;
                self.push(Value::Text(text))?;
            }
            b'B' => {
                let n = self.length()?;
                self.take(n)?;
                self.push(Value::Bytes)?;
            }
            b'C' => {
                let n = self.byte()?;
                self.take(n)?;
                self.push(Value::Bytes)?;
            }
            b')' => self.push(Value::Tuple(vec![]))?,
            b']' => self.push(Value::List(vec![]))?,
            b'}' => self.push(Value::Dict(vec![]))?,
            0x8f => self.push(Value::Other)?,
            b't' => {
                let items = self.since_mark()?;
                self.push(Value::Tuple(items))?;
            }
            b'l' => {
                let items = self.since_mark()?;
                self.push(Value::List(items))?;
            }
            n @ 0x85..=0x87 => {
                let mut items = (0..=n - 0x85).map(|_| self.pop()).collect::<Result<Vec<Id>>>()?;
                items.reverse();
                self.push(Value::Tuple(items))?;
            }
            b'a' => {
                let item = self.pop()?;
                self.append(vec![item])?;
            }
            b'e' | 0x90 => {
                let items = self.since_mark()?;
                self.append(items)?;
            }
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?);
                self.set(vec![key, value])?;
            }
            b'u' => {
                let items = self.since_mark()?;
                self.set(items)?;
            }
            b'd' => {
                let items = self.since_mark()?;
                self.push(Value::Dict(vec![]))?;
                self.set(items)?;
            }
            b'q' => {
                let place = self.byte()?;
                self.remember(place as u32)?;
            }
            b'r' => {
                let place = self.length()?;
                self.remember(place as u32)?;
            }
            0x94 => self.remember(self.memo.len() as u32)?,
            b'h' => {
                let place = self.byte()?;
                self.recall(place as u32)?;
            }
            b'j' => {
                let place = self.length()?;
                self.recall(place as u32)?;
            }
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.class(&module, &name)?;
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                let (Value::Text(module), Value::Text(name)) = (self.get(module), self.get(name)) else {
                    return Err("a class without a name".into());
                };
                let (module, name) = (module.clone(), name.clone());
                self.class(&module, &name)?;
            }
            b'Q' => {
                let id = self.pop()?;
                let storage = self.storage(id)?;
                self.push(Value::Storage(Rc::new(storage)))?;
            }
            b'R' | 0x81 => {
                let (arguments, class) = (self.pop()?, self.pop()?);
                let made = self.call(class, arguments)?;
                self.push(made)?;
            }
            // BUILD: what an object remembers beside its items, as `_metadata` of a state dict.
            b'b' => drop(self.pop()?),
            other => return Err(format!("instruction {other:#04x}, which no pickle of weights has").into()),
        }
        Ok(true)
    }

    /// An integer of so many bytes.
    fn long(&mut self, n: usize) -> Result<()> {
        let bytes = self.take(n)?;
        let value = match bytes.last() {
            None => Value::Int(0),
            Some(last) if n <= 8 => {
                let mut whole = [if last & 0x80 == 0 { 0 } else { 0xff }; 8];
                whole[..n].copy_from_slice(bytes);
                Value::Int(i64::from_le_bytes(whole))
            }
            Some(_) => Value::Other,
        };
        self.push(value)
    }

    fn append(&mut self, items: Vec<Id>) -> Result<()> {
        let list = self.top()?;
        match &mut self.values[list as usize] {
            Value::List(list) => list.extend(items),
            // A set, of which nothing is asked.
            Value::Other => {}
            _ => return Err("it adds to what is no list".into()),
        }
        Ok(())
    }

    fn set(&mut self, items: Vec<Id>) -> Result<()> {
        let dict = self.top()?;
        let Value::Dict(dict) = &mut self.values[dict as usize] else {
            return Err("it sets an item of what is no dict".into());
        };
        if !items.len().is_multiple_of(2) {
            return Err("a key without a value".into());
        }
        dict.extend(items.chunks_exact(2).map(|pair| (pair[0], pair[1])));
        Ok(())
    }
}

fn text(bytes: &[u8]) -> Result<Rc<str>> {
    std::str::from_utf8(bytes).map(Rc::from).map_err(|_| "a text that is not UTF-8".into())
}
