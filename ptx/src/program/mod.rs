//! Programs: what a text of PTX declares, ready to run.

mod body;
mod declarations;
mod decode;
mod op;
mod operand;
mod token;
mod types;

use std::collections::HashMap;
use std::sync::Arc;

pub(crate) use op::*;
pub(crate) use types::{Float, Type};

use crate::error::ParseError;

/// A variable of the module in device memory.
#[derive(Clone, Debug)]
pub(crate) struct Variable {
    pub(crate) name: String,
    pub(crate) bytes: Vec<u8>,
}

/// A parameter's place among the parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) offset: usize,
    pub(crate) bytes: usize,
}

/// A kernel or function.
#[derive(Clone, Debug, Default)]
pub(crate) struct Function {
    pub(crate) name: String,
    pub(crate) is_kernel: bool,
    pub(crate) parameters: Vec<Place>,
    pub(crate) results: Vec<Place>,
    /// Room for parameters, results, and what calls pass.
    pub(crate) parameter_bytes: usize,
    pub(crate) local_bytes: usize,
    /// The kernel's own variables in shared memory.
    pub(crate) shared_bytes: usize,
    pub(crate) registers: usize,
    pub(crate) predicates: usize,
    pub(crate) code: Vec<Instruction>,
    /// The instruction that each label stands before.
    pub(crate) labels: Vec<u32>,
    pub(crate) max_threads: Option<u32>,
    /// The line of its last brace.
    pub(crate) last_line: u32,
}

/// A module of PTX, parsed.
#[derive(Clone, Debug, Default)]
pub struct Program {
    pub(crate) target: String,
    pub(crate) variables: Vec<Variable>,
    /// Shared memory of the module's variables and of functions.
    pub(crate) common_shared: usize,
    pub(crate) functions: Vec<Function>,
    pub(crate) by_name: HashMap<String, usize>,
    pub(crate) opcodes: Vec<String>,
    /// Tells programs apart; a clone is the same program.
    pub(crate) identity: Arc<()>,
}

/// What a kernel declares.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Kernel {
    /// Its name, mangled if the source was C++ without `extern "C"`.
    pub name: String,
    /// Offset and size in bytes of each parameter.
    pub parameters: Vec<(usize, usize)>,
    /// Bytes of static shared memory.
    pub shared_bytes: usize,
    /// Bytes of local memory of a thread.
    pub local_bytes: usize,
    /// The most threads of a block, if declared.
    pub max_threads: Option<u32>,
}

impl Program {
    /// Reads the text of a PTX module.
    ///
    /// # Errors
    ///
    /// [`ParseError`], with the line, if the text is not PTX or has an instruction that is not supported.
    pub fn parse(text: &str) -> Result<Program, ParseError> {
        declarations::parse(text)
    }

    /// Returns the architecture that the text names, such as `sm_90`.
    pub fn target(&self) -> &str {
        &self.target
    }

    /// Returns all kernels, in the order of the text.
    pub fn kernels(&self) -> impl Iterator<Item = Kernel> {
        self.functions.iter().filter(|f| f.is_kernel).map(|f| Kernel {
            name: f.name.clone(),
            parameters: f.parameters.iter().map(|p| (p.offset, p.bytes)).collect(),
            shared_bytes: self.common_shared.next_multiple_of(16) + f.shared_bytes,
            local_bytes: f.local_bytes,
            max_threads: f.max_threads,
        })
    }

    /// Returns the variables of the module in device memory: names and sizes in bytes.
    pub fn variables(&self) -> impl Iterator<Item = (&str, usize)> {
        self.variables.iter().map(|v| (v.name.as_str(), v.bytes.len()))
    }
}
