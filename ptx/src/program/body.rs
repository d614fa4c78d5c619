//! Reads the bodies of functions: declarations, labels, instructions.

use std::collections::HashMap;

use super::Function;
use super::declarations::{Parser, Result, Scope};
use super::decode::decode;
use super::op::{Instruction, Value};
use super::operand::Statement;
use super::token::Token;
use crate::error::ParseErrorKind;

impl Parser<'_> {
    /// Reads a body, whose brace has been read, up to its last brace.
    pub(super) fn body(&mut self, f: &mut Function, scope: &mut Scope) -> Result<()> {
        self.number_labels(f, scope)?;
        // An inner block's names hide the outer ones.
        let mut outer: Vec<(HashMap<String, Value>, usize)> = Vec::new();
        // `name: .branchtargets a, b;`
        let mut lists: HashMap<String, Vec<u32>> = HashMap::new();
        loop {
            match self.peek() {
                Some(Token::Mark('}')) => {
                    f.last_line = self.line();
                    self.skip(1);
                    match outer.pop() {
                        Some((values, ranges)) => {
                            scope.values = values;
                            scope.ranges.truncate(ranges);
                        }
                        None => return Ok(()),
                    }
                }
                Some(Token::Mark('{')) => {
                    self.skip(1);
                    outer.push((scope.values.clone(), scope.ranges.len()));
                }
                Some(Token::Mark('@')) => self.instruction(f, scope, &lists)?,
                Some(Token::Mark(';')) => self.skip(1),
                Some(Token::Word(word)) => match word {
                    ".reg" => {
                        self.skip(1);
                        self.registers(f, scope)?;
                    }
                    ".param" => {
                        self.skip(1);
                        self.parameter(f, scope)?;
                        self.expect(';', "`;`")?;
                    }
                    ".local" => {
                        self.skip(1);
                        self.local(f, scope)?;
                    }
                    ".shared" => {
                        self.skip(1);
                        let value = self.shared(Some(f))?;
                        scope.values.extend([value]);
                    }
                    ".pragma" => self.skip_statement(),
                    ".loc" => self.skip_line(),
                    _ if self.peek_at(1) == Some(Token::Mark(':')) => {
                        self.skip(2);
                        match self.peek() {
                            Some(Token::Word(".branchtargets")) => {
                                self.skip(1);
                                let labels = self.branch_targets(scope)?;
                                lists.insert(word.to_owned(), labels);
                            }
                            Some(Token::Word(".callprototype" | ".calltargets")) => {
                                self.skip_statement()
                            }
                            _ => {
                                if let Some(&label) = scope.labels.get(word) {
                                    f.labels[label as usize] = f.code.len() as u32;
                                }
                            }
                        }
                    }
                    _ => self.instruction(f, scope, &lists)?,
                },
                _ => return self.unexpected("an instruction"),
            }
        }
    }

    /// Numbers the labels of a body before its branches are read.
    fn number_labels(&self, f: &mut Function, scope: &mut Scope) -> Result<()> {
        let (mut ahead, mut depth) = (0, 1);
        while depth > 0 {
            match self.peek_at(ahead) {
                Some(Token::Mark('{')) => depth += 1,
                Some(Token::Mark('}')) => depth -= 1,
                Some(Token::Word(word)) if self.peek_at(ahead + 1) == Some(Token::Mark(':')) => {
                    scope.labels.insert(word.to_owned(), f.labels.len() as u32);
                    f.labels.push(u32::MAX);
                }
                None => return self.fail(ParseErrorKind::End),
                _ => {}
            }
            ahead += 1;
        }
        Ok(())
    }

    fn branch_targets(&mut self, scope: &Scope) -> Result<Vec<u32>> {
        let mut labels = Vec::new();
        while !self.eat(';') {
            let word = self.word()?;
            match scope.labels.get(word) {
                Some(label) => labels.push(*label),
                None => return self.fail(ParseErrorKind::UnknownName(word.to_owned())),
            }
            self.eat(',');
        }
        Ok(labels)
    }

    fn instruction(
        &mut self,
        f: &mut Function,
        scope: &Scope,
        lists: &HashMap<String, Vec<u32>>,
    ) -> Result<()> {
        let line = self.line();
        let mut guard = None;
        if self.eat('@') {
            let negated = self.eat('!');
            let name = self.word()?;
            match self.look_up(scope, name) {
                Some(Value::Predicate(p)) => guard = Some((p, negated)),
                _ => return self.fail(ParseErrorKind::UnknownName(name.to_owned())),
            }
        }
        let word = self.word()?;
        let mut operands = Vec::new();
        while !self.eat(';') {
            operands.push(self.operand(scope, lists)?);
            self.eat(',');
        }
        let op = decode(Statement::new(word, operands, &scope.bits, line))?;
        let opcode = *self.opcodes.entry(word.to_owned()).or_insert_with(|| {
            self.program.opcodes.push(word.to_owned());
            self.program.opcodes.len() as u32 - 1
        });
        f.code.push(Instruction { guard, op, opcode, line });
        Ok(())
    }
}
