//! [`Cuda`], the back end, and [`DeviceCode`], what an op gives to it.

use crate::ir::dtype::Dtype;
use crate::ir::op::Backend;
use crate::ir::shape::Operand;

/// NVIDIA's GPUs, programmed in CUDA C++.
#[derive(Clone, Copy, Debug)]
pub struct Cuda;

impl Backend for Cuda {
    const NAME: &'static str = "cuda";
    type Kernel = DeviceCode;
}

/// How one op is computed for one model by a group of `T` threads, of which the caller is number `t`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeviceCode {
    /// What the call needs, each after those that it needs. One text may be in many ops' lists and is emitted once.
    pub definitions: Vec<Definition>,
    /// A statement. `{0}`, `{1}`, … stand for typed addresses of the inputs, then of the outputs; `{s}` for that of the
    /// scratch memory; `t` and `T` are in scope. An input that is [changed in place](crate::ir::op::Op::in_place) has none.
    pub call: String,
    /// Bytes of scratch memory that one model needs, in shared memory, aligned to 16.
    pub scratch_bytes: usize,
    /// How many threads have work of their own. More only wait.
    pub width: usize,
}

/// A function, a type or a constant of CUDA C++.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Definition {
    /// Its name, unique in a source: two definitions of one name have one text.
    pub name: String,
    /// Its text.
    pub text: String,
}

impl Definition {
    /// Makes the definition that is the file of an op.
    pub(crate) fn file(name: &str, text: &str) -> Definition {
        Definition { name: name.to_owned(), text: text.to_owned() }
    }
}

impl DeviceCode {
    /// Puts addresses into the call.
    pub fn call_with(&self, operands: &[String], scratch: &str) -> String {
        let filled = self.call.replace("{s}", scratch);
        operands
            .iter()
            .enumerate()
            .fold(filled, |call, (number, operand)| call.replace(&format!("{{{number}}}"), operand))
    }
}

/// Returns the type of an element.
pub fn type_of(dtype: Dtype) -> &'static str {
    match dtype {
        Dtype::F32 => "float",
        Dtype::F64 => "double",
        Dtype::I64 => "i64",
        Dtype::F16 | Dtype::BF16 => "u16",
        Dtype::Bool => "u8",
    }
}

/// Returns the type of the elements of an operand.
pub(crate) fn element(operand: &Operand) -> &'static str {
    type_of(operand.ty.dtype)
}
