//! Reads the declarations of a module: variables, parameters, functions.

use std::collections::HashMap;

use super::op::{Area, Value};
use super::token::{Token, tokenize};
use super::types::Type;
use super::{Function, Place, Program, Variable};
use crate::error::{ParseError, ParseErrorKind};

pub(super) type Result<T> = std::result::Result<T, ParseError>;

/// No device has more of it for a block, a thread, a function or a module.
const MOST_SHARED: u64 = 228 << 10;
const MOST_LOCAL: u64 = 512 << 10;
const MOST_PARAMETERS: u64 = 1 << 16;
const MOST_REGISTERS: u64 = 1 << 20;
const MOST_VARIABLES: u64 = 64 << 20;

/// What names mean, by scope.
#[derive(Default)]
pub(super) struct Scope {
    pub(super) values: HashMap<String, Value>,
    pub(super) labels: HashMap<String, u32>,
    /// Registers declared as `%r<12>`: prefix, first, how many, whether predicates.
    pub(super) ranges: Vec<(String, u32, u32, bool)>,
    /// The bits of each register.
    pub(super) bits: Vec<u32>,
}

pub(super) struct Parser<'t> {
    tokens: Vec<(Token<'t>, u32)>,
    at: usize,
    pub(super) program: Program,
    /// The module's variables.
    names: HashMap<String, Value>,
    variable_bytes: u64,
    pub(super) opcodes: HashMap<String, u32>,
}

/// The name, size and alignment that a declaration gives, and its first bytes.
struct Declared {
    name: String,
    bytes: u64,
    align: u64,
    first: Vec<u8>,
}

pub(super) fn parse(text: &str) -> Result<Program> {
    let mut parser = Parser {
        tokens: tokenize(text)?,
        at: 0,
        program: Program::default(),
        names: HashMap::new(),
        variable_bytes: 0,
        opcodes: HashMap::new(),
    };
    while parser.at < parser.tokens.len() {
        parser.declaration()?;
    }
    Ok(parser.program)
}

/// Puts `bytes` behind what is there already, and returns their offset.
fn place(
    used: &mut usize,
    bytes: u64,
    align: u64,
    most: u64,
    what: &'static str,
    line: u32,
) -> Result<usize> {
    let too_large = |size| ParseError { line, kind: ParseErrorKind::TooLarge { what, size, most } };
    let offset = (*used as u64).checked_next_multiple_of(align.max(1)).ok_or(too_large(align))?;
    let end = offset.saturating_add(bytes);
    if end > most {
        return Err(too_large(end));
    }
    *used = end as usize;
    Ok(offset as usize)
}

impl<'t> Parser<'t> {
    pub(super) fn peek(&self) -> Option<Token<'t>> {
        self.peek_at(0)
    }

    pub(super) fn peek_at(&self, ahead: usize) -> Option<Token<'t>> {
        self.tokens.get(self.at + ahead).map(|t| t.0)
    }

    pub(super) fn skip(&mut self, tokens: usize) {
        self.at += tokens;
    }

    pub(super) fn line(&self) -> u32 {
        self.tokens.get(self.at).or(self.tokens.last()).map_or(0, |t| t.1)
    }

    pub(super) fn fail<T>(&self, kind: ParseErrorKind) -> Result<T> {
        Err(ParseError { line: self.line(), kind })
    }

    pub(super) fn unexpected<T>(&self, expected: &'static str) -> Result<T> {
        match self.peek() {
            None => self.fail(ParseErrorKind::End),
            Some(token) => {
                let got = match token {
                    Token::Word(word) | Token::Text(word) => format!("`{word}`"),
                    Token::Number(number) => number.to_string(),
                    Token::Mark(mark) => format!("`{mark}`"),
                };
                self.fail(ParseErrorKind::Unexpected { expected, got })
            }
        }
    }

    pub(super) fn is(&self, mark: char) -> bool {
        self.peek() == Some(Token::Mark(mark))
    }

    pub(super) fn eat(&mut self, mark: char) -> bool {
        let is = self.is(mark);
        self.at += usize::from(is);
        is
    }

    pub(super) fn expect(&mut self, mark: char, expected: &'static str) -> Result<()> {
        if self.eat(mark) { Ok(()) } else { self.unexpected(expected) }
    }

    pub(super) fn word(&mut self) -> Result<&'t str> {
        match self.peek() {
            Some(Token::Word(word)) => {
                self.at += 1;
                Ok(word)
            }
            _ => self.unexpected("a name"),
        }
    }

    /// Reads a number; a negative one in two's complement.
    pub(super) fn number(&mut self) -> Result<u64> {
        let negative = self.eat('-');
        match self.peek() {
            Some(Token::Number(number)) => {
                self.at += 1;
                Ok(if negative { number.wrapping_neg() } else { number })
            }
            _ => self.unexpected("a number"),
        }
    }

    /// Skips everything up to the end of the line.
    pub(super) fn skip_line(&mut self) {
        let line = self.line();
        while self.at < self.tokens.len() && self.line() == line {
            self.at += 1;
        }
    }

    /// Skips everything up to a semicolon, which it takes.
    pub(super) fn skip_statement(&mut self) {
        while self.peek().is_some() && !self.eat(';') {
            self.at += 1;
        }
    }

    /// Looks a name up: the function's first, then the module's.
    pub(super) fn look_up(&self, scope: &Scope, name: &str) -> Option<Value> {
        if let Some(value) = scope.values.get(name) {
            return Some(*value);
        }
        for (prefix, first, count, is_predicate) in scope.ranges.iter().rev() {
            if let Some(n) = name.strip_prefix(prefix.as_str()).and_then(|n| n.parse::<u32>().ok())
                && n < *count
            {
                let register = first + n;
                return Some(if *is_predicate {
                    Value::Predicate(register)
                } else {
                    Value::Register(register)
                });
            }
        }
        self.names.get(name).copied()
    }

    fn declaration(&mut self) -> Result<()> {
        match self.word()? {
            ".version" | ".address_size" => self.skip(1),
            ".target" => {
                self.program.target = self.word()?.to_owned();
                while self.eat(',') {
                    self.word()?;
                }
            }
            ".visible" | ".extern" | ".weak" | ".common" => {}
            ".entry" => self.function(true)?,
            ".func" => self.function(false)?,
            ".global" | ".const" => self.variable()?,
            ".shared" => {
                let value = self.shared(None)?;
                self.names.extend([value]);
            }
            ".file" | ".loc" => self.skip_line(),
            ".alias" | ".pragma" => self.skip_statement(),
            ".section" => {
                while self.peek().is_some() && !self.eat('}') {
                    self.skip(1);
                }
            }
            _ => {
                self.at -= 1;
                return self.unexpected("a declaration");
            }
        }
        Ok(())
    }

    /// Reads `.align 4 .b8 name[12]`, and `= {1, 2}` if there.
    fn declared(&mut self) -> Result<Declared> {
        let (mut align, mut ty, mut of_pointer) = (1, Type::Bits(8), false);
        loop {
            match self.word()? {
                // What a pointer points to has an alignment of its own.
                ".align" if of_pointer => {
                    self.number()?;
                }
                ".align" => align = self.number()?,
                ".ptr" => of_pointer = true,
                word => match word.strip_prefix('.') {
                    Some(word) => ty = Type::parse(word).unwrap_or(ty),
                    None => {
                        let mut count = 1_u64;
                        while self.eat('[') {
                            count =
                                count.saturating_mul(if self.is(']') { 0 } else { self.number()? });
                            self.expect(']', "`]`")?;
                        }
                        let mut first = Vec::new();
                        if self.eat('=') {
                            self.first_bytes(ty, &mut first)?;
                        }
                        let bytes = count.saturating_mul(ty.bytes() as u64);
                        return Ok(Declared {
                            name: word.to_owned(),
                            bytes,
                            align: align.max(ty.bytes() as u64),
                            first,
                        });
                    }
                },
            }
        }
    }

    fn first_bytes(&mut self, ty: Type, first: &mut Vec<u8>) -> Result<()> {
        if !self.eat('{') {
            first.extend_from_slice(&self.number()?.to_le_bytes()[..ty.bytes()]);
            return Ok(());
        }
        let mut depth = 1;
        while depth > 0 {
            match () {
                () if self.eat('}') => depth -= 1,
                () if self.eat('{') => depth += 1,
                () if self.eat(',') => {}
                () => first.extend_from_slice(&self.number()?.to_le_bytes()[..ty.bytes()]),
            }
        }
        Ok(())
    }

    fn variable(&mut self) -> Result<()> {
        let line = self.line();
        let declared = self.declared()?;
        self.expect(';', "`;`")?;
        self.variable_bytes = self.variable_bytes.saturating_add(declared.bytes);
        if self.variable_bytes > MOST_VARIABLES || declared.first.len() as u64 > declared.bytes {
            let size = self.variable_bytes.max(declared.first.len() as u64);
            let kind =
                ParseErrorKind::TooLarge { what: "bytes of variables", size, most: MOST_VARIABLES };
            return Err(ParseError { line, kind });
        }
        let mut bytes = declared.first;
        bytes.resize(declared.bytes as usize, 0);
        let number = self.program.variables.len() as u32;
        self.names.insert(declared.name.clone(), Value::Variable(number, 0));
        self.program.variables.push(Variable { name: declared.name, bytes });
        Ok(())
    }

    /// Reads a variable in shared memory, of the module or of a function.
    pub(super) fn shared(&mut self, function: Option<&mut Function>) -> Result<(String, Value)> {
        let line = self.line();
        let declared = self.declared()?;
        self.expect(';', "`;`")?;
        if declared.bytes == 0 {
            return Ok((declared.name, Value::Shared(Area::Dynamic, 0)));
        }
        let (area, used) = match function {
            Some(f) if f.is_kernel => (Area::Kernel, &mut f.shared_bytes),
            _ => (Area::Common, &mut self.program.common_shared),
        };
        let what = "bytes of shared memory";
        let offset = place(used, declared.bytes, declared.align, MOST_SHARED, what, line)?;
        Ok((declared.name, Value::Shared(area, offset as u64)))
    }

    pub(super) fn local(&mut self, f: &mut Function, scope: &mut Scope) -> Result<()> {
        let line = self.line();
        let declared = self.declared()?;
        self.expect(';', "`;`")?;
        let what = "bytes of local memory";
        let offset =
            place(&mut f.local_bytes, declared.bytes, declared.align, MOST_LOCAL, what, line)?;
        scope.values.insert(declared.name, Value::Local(offset as u64));
        Ok(())
    }

    pub(super) fn parameter(&mut self, f: &mut Function, scope: &mut Scope) -> Result<Place> {
        let line = self.line();
        let declared = self.declared()?;
        let what = "bytes of parameters";
        let used = &mut f.parameter_bytes;
        let offset = place(used, declared.bytes, declared.align, MOST_PARAMETERS, what, line)?;
        scope.values.insert(declared.name, Value::Parameter(offset as u64));
        Ok(Place { offset, bytes: declared.bytes as usize })
    }

    fn parameters(&mut self, f: &mut Function, scope: &mut Scope) -> Result<Vec<Place>> {
        self.expect('(', "`(`")?;
        let mut places = Vec::new();
        while !self.eat(')') {
            if self.word()? != ".param" {
                self.at -= 1;
                return self.unexpected("`.param`");
            }
            places.push(self.parameter(f, scope)?);
            self.eat(',');
        }
        Ok(places)
    }

    pub(super) fn registers(&mut self, f: &mut Function, scope: &mut Scope) -> Result<()> {
        let ty = self.word()?.strip_prefix('.').and_then(Type::parse);
        let Some(ty) = ty else { return self.unexpected("the type of registers") };
        let is_predicate = ty == Type::Predicate;
        loop {
            let line = self.line();
            let name = self.word()?.to_owned();
            let used = if is_predicate { &mut f.predicates } else { &mut f.registers };
            let count = if self.eat('<') {
                let count = self.number()?;
                self.expect('>', "`>`")?;
                let first = place(used, count, 1, MOST_REGISTERS, "registers", line)?;
                scope.ranges.push((name, first as u32, count as u32, is_predicate));
                count as usize
            } else {
                let first = place(used, 1, 1, MOST_REGISTERS, "registers", line)? as u32;
                let value =
                    if is_predicate { Value::Predicate(first) } else { Value::Register(first) };
                scope.values.insert(name, value);
                1
            };
            if !is_predicate {
                scope.bits.extend(std::iter::repeat_n(ty.bits(), count));
            }
            if !self.eat(',') {
                return self.expect(';', "`;`");
            }
        }
    }

    fn function(&mut self, is_kernel: bool) -> Result<()> {
        let mut f = Function { is_kernel, ..Function::default() };
        let mut scope = Scope::default();
        if !is_kernel && self.is('(') {
            f.results = self.parameters(&mut f, &mut scope)?;
        }
        f.name = self.word()?.to_owned();
        if self.is('(') {
            f.parameters = self.parameters(&mut f, &mut scope)?;
        }
        while let Some(Token::Word(word)) = self.peek() {
            self.skip(1);
            let mut product = 1_u64;
            while matches!(self.peek(), Some(Token::Number(_))) || self.is(',') {
                product =
                    if self.eat(',') { product } else { product.saturating_mul(self.number()?) };
            }
            if word == ".maxntid" || word == ".reqntid" {
                f.max_threads = Some(product.min(u64::from(u32::MAX)) as u32);
            }
        }
        if self.eat(';') {
            return Ok(());
        }
        self.expect('{', "`{` or `;`")?;
        self.body(&mut f, &mut scope)?;
        self.program.by_name.insert(f.name.clone(), self.program.functions.len());
        self.program.functions.push(f);
        Ok(())
    }
}
