//! The types that instructions name.

/// A floating point format; a pair is two halves in 32 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Float {
    Half,
    Brain,
    Single,
    Double,
    HalfPair,
    BrainPair,
}

/// The type of an operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Type {
    Predicate,
    /// Bits without a meaning: how many.
    Bits(u32),
    Unsigned(u32),
    Signed(u32),
    Float(Float),
}

impl Type {
    /// Reads a modifier such as `s32`.
    pub(crate) fn parse(word: &str) -> Option<Type> {
        Some(match word {
            "pred" => Type::Predicate,
            "f16" => Type::Float(Float::Half),
            "bf16" => Type::Float(Float::Brain),
            "f16x2" => Type::Float(Float::HalfPair),
            "bf16x2" => Type::Float(Float::BrainPair),
            "f32" => Type::Float(Float::Single),
            "f64" => Type::Float(Float::Double),
            _ => {
                let (letter, bits) = word.split_at_checked(1)?;
                let bits = match bits {
                    "8" => 8,
                    "16" => 16,
                    "32" => 32,
                    "64" => 64,
                    _ => return None,
                };
                match letter {
                    "b" => Type::Bits(bits),
                    "u" => Type::Unsigned(bits),
                    "s" => Type::Signed(bits),
                    _ => return None,
                }
            }
        })
    }

    /// Returns how many bits a value has.
    pub(crate) fn bits(self) -> u32 {
        match self {
            Type::Predicate => 1,
            Type::Bits(bits) | Type::Unsigned(bits) | Type::Signed(bits) => bits,
            Type::Float(Float::Half | Float::Brain) => 16,
            Type::Float(Float::Single | Float::HalfPair | Float::BrainPair) => 32,
            Type::Float(Float::Double) => 64,
        }
    }

    /// Returns how many bytes a value has in memory.
    pub(crate) fn bytes(self) -> usize {
        self.bits().div_ceil(8) as usize
    }

    pub(crate) fn is_signed(self) -> bool {
        matches!(self, Type::Signed(_))
    }
}
