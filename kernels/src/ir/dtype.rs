//! Element types, known at run time ([`Dtype`]) and at compile time ([`Element`]).

use core::fmt;

pub use half::{bf16, f16};

/// The type of a value's elements, with torch's meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Dtype {
    /// IEEE 754 single precision: `torch.float32`.
    F32,
    /// IEEE 754 double precision: `torch.float64`.
    F64,
    /// IEEE 754 half precision: `torch.float16`. Computed in single precision and rounded.
    F16,
    /// The upper half of a single: `torch.bfloat16`. Computed in single precision and rounded.
    BF16,
    /// Signed 64-bit integers, as class indices are: `torch.int64`.
    I64,
    /// One byte, 0 or 1: `torch.bool`.
    Bool,
}

impl Dtype {
    /// Gives the size of one element in bytes.
    pub const fn size_bytes(self) -> usize {
        match self {
            Dtype::F64 | Dtype::I64 => 8,
            Dtype::F32 => 4,
            Dtype::F16 | Dtype::BF16 => 2,
            Dtype::Bool => 1,
        }
    }

    /// Gives the name that torch prints it under: `torch.float32`.
    pub const fn torch_name(self) -> &'static str {
        match self {
            Dtype::F32 => "torch.float32",
            Dtype::F64 => "torch.float64",
            Dtype::F16 => "torch.float16",
            Dtype::BF16 => "torch.bfloat16",
            Dtype::I64 => "torch.int64",
            Dtype::Bool => "torch.bool",
        }
    }

    /// Says whether this is one of the two floating-point types of 16 bits.
    pub const fn is_half(self) -> bool {
        matches!(self, Dtype::F16 | Dtype::BF16)
    }

    /// Gives the smallest floating-point type that holds the numbers of both: `self` if it is `other`, f32 for
    /// the two halves.
    ///
    /// Source: `torch.promote_types`, of floating-point types.
    #[must_use]
    pub const fn promoted(self, other: Dtype) -> Dtype {
        match (self, other) {
            (Dtype::F64, _) | (_, Dtype::F64) => Dtype::F64,
            (Dtype::F16, Dtype::F16) => Dtype::F16,
            (Dtype::BF16, Dtype::BF16) => Dtype::BF16,
            _ => Dtype::F32,
        }
    }

    /// Says whether gradients exist for this type.
    pub const fn is_float(self) -> bool {
        matches!(self, Dtype::F32 | Dtype::F64 | Dtype::F16 | Dtype::BF16)
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Dtype::F32 => "f32",
            Dtype::F64 => "f64",
            Dtype::F16 => "f16",
            Dtype::BF16 => "bf16",
            Dtype::I64 => "i64",
            Dtype::Bool => "bool",
        })
    }
}

/// A Rust type whose values lie in columns and arenas as they are: those below and no others, for what is at an address
/// is read as such a type because its [`DTYPE`](Element::DTYPE) says so.
pub trait Element: sealed::Sealed + bytemuck::Pod + Send + Sync + fmt::Debug + PartialEq {
    /// What models make of arrays of such elements, unless said otherwise: the type itself if it is floating, f32
    /// if it is none.
    type Float: Element;

    /// The type at run time.
    const DTYPE: Dtype;
}

impl Element for f32 {
    type Float = f32;
    const DTYPE: Dtype = Dtype::F32;
}

impl Element for f64 {
    type Float = f64;
    const DTYPE: Dtype = Dtype::F64;
}

impl Element for f16 {
    type Float = f16;
    const DTYPE: Dtype = Dtype::F16;
}

impl Element for bf16 {
    type Float = bf16;
    const DTYPE: Dtype = Dtype::BF16;
}

impl Element for i64 {
    type Float = f32;
    const DTYPE: Dtype = Dtype::I64;
}

/// A `bool` in memory: bytemuck's `Pod` needs every bit pattern to be a value.
impl Element for u8 {
    type Float = f32;
    const DTYPE: Dtype = Dtype::Bool;
}

mod sealed {
    /// Keeps [`Element`](super::Element) to this file.
    pub trait Sealed {}

    impl Sealed for f32 {}
    impl Sealed for f64 {}
    impl Sealed for super::f16 {}
    impl Sealed for super::bf16 {}
    impl Sealed for i64 {}
    impl Sealed for u8 {}
}
