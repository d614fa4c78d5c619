//! Reads operands, and gives them out by kind.

use std::collections::HashMap;

use super::declarations::{Parser, Result, Scope};
use super::op::{Address, Special, StateSpace, Target, Value};
use super::token::Token;
use super::types::Type;
use crate::error::{ParseError, ParseErrorKind};

/// An operand as it is written.
#[derive(Clone, Debug)]
pub(super) enum Operand {
    Value(Value),
    /// `[base + offset]`
    Address(Value, u64),
    /// `{a, b}`
    Vector(Vec<Operand>),
    /// `(a, b)`
    List(Vec<Operand>),
    /// `a|b`
    Pair(Target, Target),
    Label(u32),
    Labels(Vec<u32>),
    /// A function, of which nothing is known yet.
    Name(String),
    /// `_`
    Nothing,
}

impl Parser<'_> {
    pub(super) fn operand(
        &mut self,
        scope: &Scope,
        lists: &HashMap<String, Vec<u32>>,
    ) -> Result<Operand> {
        match self.peek() {
            Some(Token::Mark('{')) => Ok(Operand::Vector(self.operands('}', scope, lists)?)),
            Some(Token::Mark('(')) => Ok(Operand::List(self.operands(')', scope, lists)?)),
            Some(Token::Mark('[')) => {
                self.skip(1);
                let Operand::Value(base) = self.single(scope, lists)? else {
                    return self.unexpected("an address");
                };
                let offset = if self.eat('+') || self.is('-') { self.number()? } else { 0 };
                self.expect(']', "`]`")?;
                Ok(Operand::Address(base, offset))
            }
            _ => self.single(scope, lists),
        }
    }

    fn operands(
        &mut self,
        end: char,
        scope: &Scope,
        lists: &HashMap<String, Vec<u32>>,
    ) -> Result<Vec<Operand>> {
        self.skip(1);
        let mut all = Vec::new();
        while !self.eat(end) {
            all.push(self.single(scope, lists)?);
            self.eat(',');
        }
        Ok(all)
    }

    /// Reads an operand that has no brackets.
    fn single(&mut self, scope: &Scope, lists: &HashMap<String, Vec<u32>>) -> Result<Operand> {
        match self.peek() {
            Some(Token::Mark('!')) => {
                self.skip(1);
                let name = self.word()?;
                match self.look_up(scope, name) {
                    Some(Value::Predicate(p)) => Ok(Operand::Value(Value::NotPredicate(p))),
                    _ => self.fail(ParseErrorKind::UnknownName(name.to_owned())),
                }
            }
            Some(Token::Mark('-') | Token::Number(_)) => {
                Ok(Operand::Value(Value::Constant(self.number()?)))
            }
            Some(Token::Word(word)) => {
                self.skip(1);
                let operand = self.named(word, scope, lists);
                if !self.eat('|') {
                    return Ok(operand);
                }
                let second = self.word()?;
                match (target(&operand), target(&self.named(second, scope, lists))) {
                    (Some(first), Some(second)) => Ok(Operand::Pair(first, second)),
                    _ => self.fail(ParseErrorKind::UnknownName(second.to_owned())),
                }
            }
            _ => self.unexpected("an operand"),
        }
    }

    fn named(&self, word: &str, scope: &Scope, lists: &HashMap<String, Vec<u32>>) -> Operand {
        if word == "_" {
            Operand::Nothing
        } else if let Some(value) = self.look_up(scope, word) {
            Operand::Value(value)
        } else if let Some(special) = special(word) {
            Operand::Value(Value::Special(special))
        } else if word == "WARP_SZ" {
            Operand::Value(Value::Constant(32))
        } else if let Some(label) = scope.labels.get(word).filter(|_| !lists.contains_key(word)) {
            Operand::Label(*label)
        } else if let Some(labels) = lists.get(word) {
            Operand::Labels(labels.clone())
        } else {
            Operand::Name(word.to_owned())
        }
    }
}

fn target(operand: &Operand) -> Option<Target> {
    match operand {
        Operand::Value(Value::Register(register)) => Some(Target::Register(*register)),
        Operand::Value(Value::Predicate(predicate)) => Some(Target::Predicate(*predicate)),
        Operand::Nothing => Some(Target::Nothing),
        _ => None,
    }
}

fn special(name: &str) -> Option<Special> {
    let (base, axis) = name.rsplit_once('.').unwrap_or((name, ""));
    let axis = match axis {
        "x" => Some(0),
        "y" => Some(1),
        "z" => Some(2),
        _ => None,
    };
    Some(match base {
        "%tid" => Special::Thread(axis?),
        "%ntid" => Special::Threads(axis?),
        "%ctaid" => Special::Block(axis?),
        "%nctaid" => Special::Blocks(axis?),
        "%laneid" => Special::Lane,
        "%warpid" => Special::Warp,
        "%nwarpid" => Special::Warps,
        "%lanemask_lt" => Special::LanesBelow,
        "%lanemask_le" => Special::LanesUpTo,
        "%lanemask_eq" => Special::LaneBit,
        "%lanemask_ge" => Special::LanesFrom,
        "%lanemask_gt" => Special::LanesAbove,
        "%clock" | "%clock64" | "%clock_hi" | "%globaltimer" | "%globaltimer_lo" => Special::Clock,
        "%dynamic_smem_size" => Special::DynamicShared,
        "%total_smem_size" => Special::TotalShared,
        "%smid" | "%gridid" => Special::Zero,
        _ => return None,
    })
}

/// An instruction as it is written: opcode, modifiers, operands.
pub(super) struct Statement<'t> {
    word: &'t str,
    line: u32,
    /// The opcode up to its first dot.
    pub(super) name: &'t str,
    modifiers: Vec<&'t str>,
    pub(super) types: Vec<Type>,
    pub(super) operands: Vec<Operand>,
    /// The bits of each register.
    bits: &'t [u32],
}

impl<'t> Statement<'t> {
    pub(super) fn new(word: &'t str, operands: Vec<Operand>, bits: &'t [u32], line: u32) -> Self {
        let mut parts = word.split('.');
        let name = parts.next().unwrap_or_default();
        let (mut modifiers, mut types) = (Vec::new(), Vec::new());
        for part in parts {
            match Type::parse(part) {
                Some(ty) => types.push(ty),
                None => modifiers.push(part),
            }
        }
        Statement { word, line, name, modifiers, types, operands, bits }
    }

    /// Says whether there is such a modifier, and removes it.
    pub(super) fn take(&mut self, modifier: &str) -> bool {
        match self.modifiers.iter().position(|m| *m == modifier) {
            Some(at) => {
                self.modifiers.remove(at);
                true
            }
            None => false,
        }
    }

    /// Removes modifiers that mean nothing here.
    pub(super) fn ignore(&mut self, modifiers: &[&str]) {
        self.modifiers.retain(|m| !modifiers.contains(m));
    }

    /// Removes all modifiers that begin so.
    pub(super) fn ignore_beginning(&mut self, start: &str) {
        self.modifiers.retain(|m| !m.starts_with(start));
    }

    /// Takes the first of the modifiers that the table names.
    pub(super) fn choose<T: Copy>(&mut self, table: &[(&str, T)]) -> Option<T> {
        table.iter().find(|(name, _)| self.take(name)).map(|(_, value)| *value)
    }

    /// An error if a modifier is left that nobody took.
    pub(super) fn done(&self) -> Result<()> {
        if self.modifiers.is_empty() { Ok(()) } else { self.unsupported() }
    }

    pub(super) fn unsupported<T>(&self) -> Result<T> {
        self.fail(ParseErrorKind::Unsupported(self.word.to_owned()))
    }

    pub(super) fn wrong<T>(&self) -> Result<T> {
        self.fail(ParseErrorKind::Operands(self.word.to_owned()))
    }

    fn fail<T>(&self, kind: ParseErrorKind) -> Result<T> {
        Err(ParseError { line: self.line, kind })
    }

    /// Returns the type, the last one if there are several.
    pub(super) fn ty(&self) -> Result<Type> {
        self.types.last().copied().map_or_else(|| self.unsupported(), Ok)
    }

    pub(super) fn value(&self, index: usize) -> Result<Value> {
        match self.operands.get(index) {
            Some(operand) => self.value_of(operand),
            None => self.wrong(),
        }
    }

    fn value_of(&self, operand: &Operand) -> Result<Value> {
        match operand {
            Operand::Value(value) => Ok(*value),
            Operand::Name(name) => self.fail(ParseErrorKind::UnknownName(name.clone())),
            _ => self.wrong(),
        }
    }

    /// Returns up to four values, from the operand at `first` on; 0 for those that are not there.
    pub(super) fn values(&self, first: usize, count: usize) -> Result<[Value; 4]> {
        if self.operands.len() != first + count {
            return self.wrong();
        }
        let mut all = [Value::Constant(0); 4];
        for (i, value) in all.iter_mut().take(count).enumerate() {
            *value = self.value(first + i)?;
        }
        Ok(all)
    }

    pub(super) fn target(&self, index: usize) -> Result<Target> {
        match self.operands.get(index).and_then(target) {
            Some(target) => Ok(target),
            None => self.wrong(),
        }
    }

    /// Returns the targets of `a` or `a|b`.
    pub(super) fn targets(&self, index: usize) -> Result<[Target; 2]> {
        match self.operands.get(index) {
            Some(Operand::Pair(a, b)) => Ok([*a, *b]),
            _ => Ok([self.target(index)?, Target::Nothing]),
        }
    }

    /// Returns the targets of `a` or `{a, b}`, and the bits of each.
    pub(super) fn vector_targets(&self, index: usize) -> Result<Vec<(Target, u32)>> {
        let one = |operand: &Operand| match target(operand) {
            Some(Target::Register(r)) => Ok((Target::Register(r), self.register_bits(r))),
            Some(target) => Ok((target, 64)),
            None => self.wrong(),
        };
        match self.operands.get(index) {
            Some(Operand::Vector(all)) => all.iter().map(one).collect(),
            Some(operand) => Ok(vec![one(operand)?]),
            None => self.wrong(),
        }
    }

    /// Returns the values of `a` or `{a, b}`.
    pub(super) fn vector_values(&self, index: usize) -> Result<Vec<Value>> {
        match self.operands.get(index) {
            Some(Operand::Vector(all)) => {
                all.iter().map(|operand| self.value_of(operand)).collect()
            }
            Some(operand) => Ok(vec![self.value_of(operand)?]),
            None => self.wrong(),
        }
    }

    pub(super) fn register_bits(&self, register: u32) -> u32 {
        self.bits.get(register as usize).copied().unwrap_or(64)
    }

    /// Returns the bits of the register at an operand; 64 if it is none.
    pub(super) fn bits_of(&self, index: usize) -> u32 {
        match self.operands.get(index) {
            Some(Operand::Value(Value::Register(register))) => self.register_bits(*register),
            _ => 64,
        }
    }

    /// Takes the state space among the modifiers.
    pub(super) fn space(&mut self) -> StateSpace {
        let table = [
            ("global", StateSpace::Global),
            ("const", StateSpace::Global),
            ("shared", StateSpace::Shared),
            ("shared::cta", StateSpace::Shared),
            ("local", StateSpace::Local),
            ("param", StateSpace::Parameter),
            ("param::entry", StateSpace::Parameter),
            ("param::func", StateSpace::Parameter),
        ];
        self.choose(&table).unwrap_or(StateSpace::Generic)
    }

    pub(super) fn address(&self, index: usize, space: StateSpace) -> Result<Address> {
        match self.operands.get(index) {
            Some(&Operand::Address(base, offset)) => Ok(Address { base, offset, space }),
            _ => self.wrong(),
        }
    }
}
