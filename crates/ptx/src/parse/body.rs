//! Bodies of functions: declarations, labels, instructions and their operands.

use super::{Parser, Statements};
use crate::ast::{Instruction, Loc, Operand, Statement};
use crate::error::Result;
use crate::lex::Token;
use crate::types::{Space, Type};

impl Parser<'_> {
    /// `{` … `}`.
    pub(super) fn body(&mut self) -> Result<Statements> {
        self.expect('{')?;
        let mut out = Vec::new();
        while !self.eat('}') {
            if self.at >= self.tokens.len() {
                return Err(self.error("the body does not end"));
            }
            self.statement(&mut out)?;
        }
        Ok(out)
    }

    fn statement(&mut self, out: &mut Statements) -> Result<()> {
        if self.peek_punct('{') {
            let block = self.body()?;
            out.push(Statement::Block(block));
            return Ok(());
        }
        if self.eat(';') {
            return Ok(());
        }
        let line = self.line();
        let guard = if self.eat('@') {
            let negated = self.eat('!');
            Some((self.word("a predicate")?.to_string(), negated))
        } else {
            None
        };
        let word = self.word("an instruction")?;
        if guard.is_none() {
            if self.eat(':') {
                return self.after_label(word, out);
            }
            if word.starts_with('.') {
                return self.declaration(word, out);
            }
        }
        let mut operands = Vec::new();
        while !self.eat(';') {
            if !operands.is_empty() {
                self.expect(',')?;
            }
            operands.push(self.operand()?);
        }
        let opcode = word.to_string();
        out.push(Statement::Instruction(Instruction { guard, opcode, operands, line, loc: self.loc }));
        Ok(())
    }

    fn after_label(&mut self, label: &str, out: &mut Statements) -> Result<()> {
        if !self.eat_word(".branchtargets") {
            out.push(Statement::Label(label.to_string()));
            return Ok(());
        }
        let mut targets = Vec::new();
        loop {
            targets.push(self.word("a label")?.to_string());
            if !self.eat(',') {
                self.expect(';')?;
                out.push(Statement::Targets(label.to_string(), targets));
                return Ok(());
            }
        }
    }

    fn declaration(&mut self, word: &str, out: &mut Statements) -> Result<()> {
        match word {
            ".reg" => {
                let name = self.word("a type")?;
                let Some(ty) = name.strip_prefix('.').and_then(Type::from_name) else {
                    return Err(self.unsupported(name, "an unknown type of registers"));
                };
                loop {
                    let name = self.word("a register")?.to_string();
                    let mut count = None;
                    if self.eat('<') {
                        count = Some(self.int("a number of registers")?.min(1 << 24) as u32);
                        self.expect('>')?;
                    }
                    out.push(Statement::Registers { ty, name, count });
                    if !self.eat(',') {
                        return self.expect(';');
                    }
                }
            }
            ".shared" | ".local" | ".global" | ".const" | ".param" => {
                let space = Space::from_name(&word[1..]).unwrap_or(Space::Local);
                let mut found = Vec::new();
                self.variables(space, &mut found)?;
                out.extend(found.into_iter().map(Statement::Variable));
                Ok(())
            }
            ".loc" => {
                let file = self.int("the number of a file")? as u32;
                let line = self.int("a line")? as u32;
                self.int("a column")?;
                // Inlined code keeps the innermost line: that is where the fault is.
                self.loc = Loc { file, line };
                while self.eat(',') {
                    self.location_attribute()?;
                }
                Ok(())
            }
            ".pragma" => {
                self.skip_to(';');
                Ok(())
            }
            other => Err(self.unsupported(other, "an unknown directive of a body")),
        }
    }

    /// `function_name label` or `inlined_at file line column`.
    fn location_attribute(&mut self) -> Result<()> {
        match self.word("`function_name` or `inlined_at`")? {
            "function_name" => {
                self.word("a label")?;
                self.offset()?;
            }
            "inlined_at" => {
                for _ in 0..3 {
                    self.int("file, line, column")?;
                }
            }
            other => return Err(self.unsupported(other, "an unknown attribute of `.loc`")),
        }
        Ok(())
    }

    fn operand(&mut self) -> Result<Operand> {
        let operand = match self.next() {
            Some(Token::Word(name)) => {
                if self.eat('|') {
                    let second = self.word("a second destination")?;
                    return Ok(Operand::Pair(name.to_string(), second.to_string()));
                }
                match self.offset()? {
                    0 => Operand::Name(name.to_string()),
                    offset => Operand::Offset(name.to_string(), offset),
                }
            }
            Some(Token::Int(value)) => Operand::Int(value),
            Some(Token::F32(bits)) => Operand::F32(bits),
            Some(Token::F64(bits)) => Operand::F64(bits),
            Some(Token::Punct('-')) => match self.next() {
                Some(Token::Int(value)) => Operand::Int(value.wrapping_neg()),
                Some(Token::F32(bits)) => Operand::F32(bits ^ (1 << 31)),
                Some(Token::F64(bits)) => Operand::F64(bits ^ (1 << 63)),
                other => return Err(self.unexpected(other, "a number")),
            },
            Some(Token::Punct('!')) => Operand::Not(self.word("a predicate")?.to_string()),
            Some(Token::Punct('{')) => Operand::Vector(self.operands('}')?),
            Some(Token::Punct('(')) => Operand::List(self.operands(')')?),
            Some(Token::Punct('[')) => self.address()?,
            other => return Err(self.unexpected(other, "an operand")),
        };
        Ok(operand)
    }

    fn operands(&mut self, end: char) -> Result<Vec<Operand>> {
        let mut out = Vec::new();
        while !self.eat(end) {
            if !out.is_empty() {
                self.expect(',')?;
            }
            out.push(self.operand()?);
        }
        Ok(out)
    }

    fn address(&mut self) -> Result<Operand> {
        let base = self.operand()?;
        if self.eat(']') {
            return Ok(match base {
                Operand::Offset(name, offset) => Operand::Address(Box::new(Operand::Name(name)), offset),
                base => Operand::Address(Box::new(base), 0),
            });
        }
        let mut parts = vec![base];
        while self.eat(',') {
            parts.push(self.operand()?);
        }
        self.expect(']')?;
        Ok(Operand::Tensor(parts))
    }
}
