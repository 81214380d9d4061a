//! The parser: tokens to a [`Module`].

mod body;

use crate::ast::{Function, Init, Module, Statement, Variable};
use crate::error::{Error, Result};
use crate::lex::{Token, tokens};
use crate::types::{Space, Type};

/// Tokens and the place in them.
struct Parser<'a> {
    tokens: Vec<(Token<'a>, u32)>,
    at: usize,
    /// The last `.loc`.
    loc: crate::ast::Loc,
}

impl Module {
    /// Reads the text of a module.
    ///
    /// # Errors
    /// [`Error::Parse`] where the text is not PTX, [`Error::Unsupported`] for a directive that is not known.
    /// Opcodes are judged when the module is loaded.
    ///
    /// ```
    /// let module = binade_ptx::Module::parse(".version 7.0\n.target sm_80\n.address_size 64\n")?;
    /// assert_eq!((module.version, module.target.as_str()), ((7, 0), "sm_80"));
    /// # Ok::<(), binade_ptx::Error>(())
    /// ```
    pub fn parse(text: &str) -> Result<Module> {
        let mut p = Parser { tokens: tokens(text)?, at: 0, loc: Default::default() };
        p.module()
    }

    /// The names of the kernels, in the order of the text.
    pub fn kernels(&self) -> impl Iterator<Item = &str> {
        self.functions.iter().filter(|f| f.entry && f.body.is_some()).map(|f| f.name.as_str())
    }
}

/// What may be written before a type or name in a declaration.
#[derive(Default)]
struct Attributes {
    align: Option<usize>,
}

impl<'a> Parser<'a> {
    fn module(&mut self) -> Result<Module> {
        self.directive(".version")?;
        let version = match self.next() {
            Some(Token::F64(bits)) => {
                let text = f64::from_bits(bits).to_string();
                let (major, minor) = text.split_once('.').unwrap_or((&text, "0"));
                (major.parse().unwrap_or(0), minor.parse().unwrap_or(0))
            }
            other => return Err(self.unexpected(other, "a version such as 7.0")),
        };
        self.directive(".target")?;
        let target = self.word("a target such as sm_80")?.to_string();
        while self.eat(',') {
            self.word("an option of the target")?;
        }
        let mut module = Module { version, target, files: Vec::new(), variables: Vec::new(), functions: Vec::new() };
        while let Some(token) = self.next() {
            let Token::Word(word) = token else {
                return Err(self.unexpected(Some(token), "a directive"));
            };
            match word {
                ".address_size" => match self.int("64")? {
                    64 => {}
                    other => return Err(self.unsupported(&format!(".address_size {other}"), "only 64 is")),
                },
                ".file" => {
                    let number = self.int("the number of the file")? as u32;
                    let Some(Token::Text(name)) = self.next() else {
                        return Err(self.error("expected the file's name in quotes"));
                    };
                    let name = name.to_string();
                    while self.eat(',') {
                        self.int("time or size of the file")?;
                    }
                    module.files.push((number, name));
                }
                ".section" => self.skip_section()?,
                ".pragma" => self.skip_to(';'),
                ".visible" | ".weak" | ".common" | ".extern" => {}
                ".entry" | ".func" => module.functions.push(self.function(word == ".entry")?),
                ".global" | ".const" | ".shared" => {
                    let space = Space::from_name(&word[1..]).unwrap_or(Space::Global);
                    self.variables(space, &mut module.variables)?;
                }
                other => return Err(self.unsupported(other, "an unknown directive")),
            }
        }
        Ok(module)
    }

    /// After `.entry` or `.func`: results, name, parameters, directives, body or `;`.
    fn function(&mut self, entry: bool) -> Result<Function> {
        let returns = if self.peek_punct('(') { self.parameters()? } else { Vec::new() };
        // `.func .noreturn (…) name` has attributes before the name.
        while self.eat_word(".noreturn") {}
        let returns = if self.peek_punct('(') { self.parameters()? } else { returns };
        let line = self.line();
        let name = self.word("the name of the function")?.to_string();
        let params = if self.peek_punct('(') { self.parameters()? } else { Vec::new() };
        let mut max_threads = None;
        loop {
            if self.eat(';') {
                return Ok(Function { name, entry, returns, params, max_threads, body: None, line });
            }
            if self.peek_punct('{') {
                break;
            }
            match self.word("a directive, `{` or `;`")? {
                ".maxntid" | ".reqntid" => {
                    let mut threads = self.int("a number of threads")?;
                    while self.eat(',') {
                        threads = threads.saturating_mul(self.int("a number of threads")?);
                    }
                    max_threads = Some(threads.min(u32::MAX as u64) as u32);
                }
                ".minnctapersm" | ".maxnreg" | ".maxclusterrank" => {
                    self.int("a number")?;
                }
                ".noreturn" => {}
                ".pragma" => self.skip_to(';'),
                other => return Err(self.unsupported(other, "an unknown directive of a function")),
            }
        }
        self.loc = Default::default();
        let body = self.body()?;
        Ok(Function { name, entry, returns, params, max_threads, body: Some(body), line })
    }

    fn parameters(&mut self) -> Result<Vec<Variable>> {
        self.expect('(')?;
        let mut out = Vec::new();
        while !self.eat(')') {
            if !out.is_empty() {
                self.expect(',')?;
            }
            let space = match self.word("`.param` or `.reg`")? {
                // A register as parameter is storage of its own to the interpreter: both are passed by value.
                ".param" | ".reg" => Space::Param,
                other => return Err(self.error(&format!("expected `.param` or `.reg`, found `{other}`"))),
            };
            let (ty, attributes) = self.type_of_declaration()?;
            out.push(self.declarator(space, ty, &attributes)?);
        }
        Ok(out)
    }

    /// After the space of a declaration: its variables up to `;`.
    fn variables(&mut self, space: Space, out: &mut Vec<Variable>) -> Result<()> {
        let (ty, attributes) = self.type_of_declaration()?;
        loop {
            out.push(self.declarator(space, ty, &attributes)?);
            if !self.eat(',') {
                return self.expect(';');
            }
        }
    }

    /// `.align 8 .b8`, with the attributes of pointers skipped; a vector type is its element type with its alignment.
    fn type_of_declaration(&mut self) -> Result<(Type, Attributes)> {
        let mut attributes = Attributes::default();
        let (mut ty, mut pointer, mut vector) = (None, false, 1);
        while let Some(Token::Word(word)) = self.peek() {
            let Some(name) = word.strip_prefix('.') else { break };
            self.at += 1;
            match name {
                "align" => {
                    let align = self.int("an alignment")? as usize;
                    // The alignment after `.ptr` is of what it points to.
                    if !pointer {
                        attributes.align = Some(align);
                    }
                }
                "ptr" => pointer = true,
                "v2" => vector = 2,
                "v4" => vector = 4,
                _ if pointer && Space::from_name(name).is_some() => {}
                _ => match Type::from_name(name) {
                    Some(found) => ty = Some(found),
                    None => return Err(self.unsupported(word, "an unknown attribute of a declaration")),
                },
            }
        }
        let ty = ty.ok_or_else(|| self.error("expected a type such as `.b32`"))?;
        if vector > 1 {
            return Err(self.unsupported(&format!(".v{vector}"), "variables of a vector type are not"));
        }
        if let Some(align) = attributes.align
            && !align.is_power_of_two()
        {
            return Err(self.error(&format!("the alignment {align} is not a power of two")));
        }
        Ok((ty, attributes))
    }

    fn declarator(&mut self, space: Space, ty: Type, attributes: &Attributes) -> Result<Variable> {
        let line = self.line();
        let name = self.word("a name")?.to_string();
        let mut elements = Some(1usize);
        while self.eat('[') {
            if self.eat(']') {
                elements = None;
                continue;
            }
            let extent = self.int("an extent")? as usize;
            elements = elements.and_then(|n| n.checked_mul(extent)).filter(|n| n.checked_mul(ty.size()).is_some());
            if elements.is_none() {
                return Err(self.error(&format!("the extent {extent} is too large")));
            }
            self.expect(']')?;
        }
        let (mut init, mut initialised) = (Vec::new(), false);
        if self.eat('=') {
            initialised = true;
            self.initialiser(ty, &mut init)?;
        }
        if let (None, true) = (elements, initialised) {
            elements = Some(init.len());
        }
        let align = attributes.align.unwrap_or(ty.size());
        Ok(Variable { name, space, ty, align, elements, init, initialised, line })
    }

    fn initialiser(&mut self, ty: Type, out: &mut Vec<Init>) -> Result<()> {
        if self.eat('{') {
            while !self.eat('}') {
                self.initialiser(ty, out)?;
                if !self.eat(',') {
                    self.expect('}')?;
                    return Ok(());
                }
            }
            return Ok(());
        }
        let negative = self.eat('-');
        let sign = |v: u64| if negative { v.wrapping_neg() } else { v };
        let init = match self.next() {
            Some(Token::Int(v)) => Init::Bits(sign(v)),
            Some(Token::F32(v)) if ty == Type::F32 => Init::Bits(v as u64 ^ ((negative as u64) << 31)),
            Some(Token::F64(v)) if ty == Type::F64 => Init::Bits(v ^ ((negative as u64) << 63)),
            Some(Token::F64(v)) if ty == Type::F32 => {
                let value = f64::from_bits(v) as f32;
                Init::Bits((if negative { -value } else { value }).to_bits() as u64)
            }
            Some(Token::Word("generic")) => {
                self.expect('(')?;
                let name = self.word("a variable")?.to_string();
                self.expect(')')?;
                Init::Address { name, offset: self.offset()? }
            }
            Some(Token::Word(name)) => Init::Address { name: name.to_string(), offset: self.offset()? },
            other => return Err(self.unexpected(other, "a value of an initialiser")),
        };
        out.push(init);
        Ok(())
    }

    /// `+8`, `-8`, `+-8`, or nothing.
    fn offset(&mut self) -> Result<i64> {
        let plus = self.eat('+');
        let minus = self.eat('-');
        if !plus && !minus {
            return Ok(0);
        }
        let value = self.int("an offset")? as i64;
        Ok(if minus { value.wrapping_neg() } else { value })
    }

    /// Debug sections hold nothing that runs.
    fn skip_section(&mut self) -> Result<()> {
        self.word("the name of the section")?;
        self.expect('{')?;
        self.skip_to('}');
        Ok(())
    }

    fn skip_to(&mut self, end: char) {
        while let Some(token) = self.next() {
            if token == Token::Punct(end) {
                return;
            }
        }
    }

    fn peek(&self) -> Option<Token<'a>> {
        self.tokens.get(self.at).map(|t| t.0.clone())
    }

    fn next(&mut self) -> Option<Token<'a>> {
        let token = self.peek();
        self.at += 1;
        token
    }

    fn line(&self) -> u32 {
        self.tokens.get(self.at).or(self.tokens.last()).map_or(1, |t| t.1)
    }

    fn peek_punct(&self, c: char) -> bool {
        matches!(self.tokens.get(self.at), Some((Token::Punct(p), _)) if *p == c)
    }

    fn eat(&mut self, c: char) -> bool {
        let found = self.peek_punct(c);
        self.at += found as usize;
        found
    }

    fn eat_word(&mut self, word: &str) -> bool {
        let found = matches!(self.tokens.get(self.at), Some((Token::Word(w), _)) if *w == word);
        self.at += found as usize;
        found
    }

    fn expect(&mut self, c: char) -> Result<()> {
        if self.eat(c) {
            return Ok(());
        }
        let found = self.next();
        Err(self.unexpected(found, &format!("`{c}`")))
    }

    fn directive(&mut self, name: &str) -> Result<()> {
        match self.next() {
            Some(Token::Word(word)) if word == name => Ok(()),
            other => Err(self.unexpected(other, &format!("`{name}`"))),
        }
    }

    fn word(&mut self, what: &str) -> Result<&'a str> {
        match self.next() {
            Some(Token::Word(word)) => Ok(word),
            other => Err(self.unexpected(other, what)),
        }
    }

    fn int(&mut self, what: &str) -> Result<u64> {
        match self.next() {
            Some(Token::Int(value)) => Ok(value),
            other => Err(self.unexpected(other, what)),
        }
    }

    /// An error about the token just taken.
    fn unexpected(&self, found: Option<Token<'_>>, expected: &str) -> Error {
        let found = match found {
            Some(Token::Word(w)) => format!("`{w}`"),
            Some(Token::Punct(c)) => format!("`{c}`"),
            Some(Token::Int(v)) => format!("the number {v}"),
            Some(Token::F32(v)) => format!("the number {}", f32::from_bits(v)),
            Some(Token::F64(v)) => format!("the number {}", f64::from_bits(v)),
            Some(Token::Text(t)) => format!("the string {t:?}"),
            None => "the end of the text".to_string(),
        };
        Error::Parse { line: self.last_line(), message: format!("expected {expected}, found {found}") }
    }

    fn error(&self, message: &str) -> Error {
        Error::Parse { line: self.last_line(), message: message.to_string() }
    }

    fn unsupported(&self, form: &str, reason: &str) -> Error {
        Error::Unsupported { line: self.last_line(), form: form.to_string(), reason: reason.to_string() }
    }

    fn last_line(&self) -> u32 {
        self.tokens.get(self.at.saturating_sub(1)).or(self.tokens.last()).map_or(1, |t| t.1)
    }
}

/// Statements are parsed by the other half of the parser.
type Statements = Vec<Statement>;
