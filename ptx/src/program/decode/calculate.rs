//! Arithmetic, comparisons, conversions.

use super::super::declarations::Result;
use super::super::op::{
    Class, Comparison, Compute, Conversion, FloatMode, FloatOp, IntegerOp, Logic, Op, Permute,
    Relation, Rounding, Sum, Value,
};
use super::super::operand::{Operand, Statement};
use super::super::types::{Float, Type};
use super::{compute, rounding};

pub(super) fn mov(s: &mut Statement<'_>) -> Result<Op> {
    let bits = s.ty()?.bits();
    match s.operands.as_slice() {
        [Operand::Vector(_), _] => {
            let to = s.vector_targets(0)?.into_iter().map(|(target, _)| target).collect();
            Ok(Op::Unpack { to, from: s.value(1)?, bits })
        }
        [_, Operand::Vector(_)] => {
            Ok(Op::Pack { to: s.target(0)?, from: s.vector_values(1)?, bits })
        }
        _ => compute(s, Compute::Copy { bits }, 1),
    }
}

pub(super) fn arithmetic(s: &mut Statement<'_>) -> Result<Op> {
    match s.ty()? {
        Type::Predicate => predicate(s),
        Type::Float(format) => float(s, format),
        ty => integer(s, ty),
    }
}

fn logic(name: &str) -> Option<Logic> {
    match name {
        "and" => Some(Logic::And),
        "or" => Some(Logic::Or),
        "xor" => Some(Logic::Xor),
        _ => None,
    }
}

fn predicate(s: &mut Statement<'_>) -> Result<Op> {
    let to = s.target(0)?;
    if s.name == "not" {
        return Ok(Op::Predicate {
            logic: Logic::Xor,
            to,
            from: [s.value(1)?, Value::Constant(1)],
        });
    }
    match logic(s.name) {
        Some(logic) => Ok(Op::Predicate { logic, to, from: [s.value(1)?, s.value(2)?] }),
        None => s.unsupported(),
    }
}

fn float(s: &mut Statement<'_>, format: Float) -> Result<Op> {
    let (op, count) = match s.name {
        "add" => (FloatOp::Add, 2),
        "sub" => (FloatOp::Sub, 2),
        "mul" => (FloatOp::Mul, 2),
        "fma" | "mad" => (FloatOp::Fma, 3),
        "div" => (FloatOp::Div, 2),
        "min" => (FloatOp::Min, 2),
        "max" => (FloatOp::Max, 2),
        "abs" => (FloatOp::Abs, 1),
        "neg" => (FloatOp::Neg, 1),
        "sqrt" => (FloatOp::Sqrt, 1),
        "rsqrt" => (FloatOp::ReciprocalSqrt, 1),
        "rcp" => (FloatOp::Reciprocal, 1),
        "ex2" => (FloatOp::Exp2, 1),
        "lg2" => (FloatOp::Log2, 1),
        "sin" => (FloatOp::Sin, 1),
        "cos" => (FloatOp::Cos, 1),
        "tanh" => (FloatOp::Tanh, 1),
        "copysign" => (FloatOp::CopySign, 2),
        _ => return s.unsupported(),
    };
    let approximate = s.take("approx") | s.take("full");
    // Halves keep subnormal numbers without being told to.
    s.ignore(&["noftz"]);
    let mode = FloatMode {
        op,
        format,
        rounding: rounding(s),
        flush: s.take("ftz"),
        saturate: s.take("sat"),
        nan: s.take("NaN"),
        approximate,
    };
    let directed = match format {
        Float::Single => matches!(
            op,
            FloatOp::Add
                | FloatOp::Sub
                | FloatOp::Mul
                | FloatOp::Fma
                | FloatOp::Div
                | FloatOp::Sqrt
                | FloatOp::Reciprocal
        ),
        Float::Double => matches!(op, FloatOp::Add | FloatOp::Sub | FloatOp::Mul),
        _ => false,
    };
    let is_transcendental =
        matches!(op, FloatOp::Exp2 | FloatOp::Log2 | FloatOp::Sin | FloatOp::Cos | FloatOp::Tanh);
    if mode.rounding != Rounding::Nearest && !directed
        || is_transcendental && format == Float::Double
    {
        return s.unsupported();
    }
    compute(s, Compute::Float(mode), count)
}

fn integer(s: &mut Statement<'_>, ty: Type) -> Result<Op> {
    let bits = ty.bits();
    let product = s.choose(&[("lo", 0), ("hi", 1), ("wide", 2)]).unwrap_or(0);
    let (writes, reads) = (s.take("cc"), matches!(s.name, "addc" | "subc" | "madc"));
    if writes || reads {
        let sum = match (s.name, product) {
            ("add" | "addc", _) => Sum::Add,
            ("sub" | "subc", _) => Sum::Subtract,
            ("mad" | "madc", 0) => Sum::ProductLow,
            ("mad" | "madc", 1) => Sum::ProductHigh { signed: ty.is_signed() },
            _ => return s.unsupported(),
        };
        let [a, b, c, _] = match sum {
            Sum::Add | Sum::Subtract => {
                s.values(1, 2).map(|[a, b, ..]| [a, Value::Constant(0), b, b])?
            }
            _ => s.values(1, 3)?,
        };
        return Ok(Op::Carry { sum, reads, writes, bits, to: s.target(0)?, from: [a, b, c] });
    }
    let funnel = s.choose(&[("l", true), ("r", false)]);
    let wrap = s.take("wrap");
    s.ignore(&["clamp"]);
    let permute = [
        ("f4e", Permute::Forward4),
        ("b4e", Permute::Backward4),
        ("rc8", Permute::Replicate8),
        ("ecl", Permute::EdgeClampLeft),
        ("ecr", Permute::EdgeClampRight),
        ("rc16", Permute::Replicate16),
    ];
    let (op, count) = match s.name {
        "add" => (IntegerOp::Add, 2),
        "sub" => (IntegerOp::Sub, 2),
        "mul" => ([IntegerOp::MulLow, IntegerOp::MulHigh, IntegerOp::MulWide][product], 2),
        "mad" => ([IntegerOp::MadLow, IntegerOp::MadHigh, IntegerOp::MadWide][product], 3),
        "div" => (IntegerOp::Div, 2),
        "rem" => (IntegerOp::Rem, 2),
        "min" => (IntegerOp::Min, 2),
        "max" => (IntegerOp::Max, 2),
        "abs" => (IntegerOp::Abs, 1),
        "neg" => (IntegerOp::Neg, 1),
        "and" => (IntegerOp::And, 2),
        "or" => (IntegerOp::Or, 2),
        "xor" => (IntegerOp::Xor, 2),
        "not" => (IntegerOp::Not, 1),
        "cnot" => (IntegerOp::LogicalNot, 1),
        "shl" => (IntegerOp::ShiftLeft, 2),
        "shr" => (IntegerOp::ShiftRight, 2),
        "shf" => match funnel {
            Some(true) => (IntegerOp::FunnelLeft { wrap }, 3),
            Some(false) => (IntegerOp::FunnelRight { wrap }, 3),
            None => return s.unsupported(),
        },
        "lop3" => (IntegerOp::Table, 4),
        "prmt" => (IntegerOp::Permute(s.choose(&permute).unwrap_or(Permute::Selector)), 3),
        "bfe" => (IntegerOp::ExtractField, 3),
        "bfi" => (IntegerOp::InsertField, 4),
        "bfind" => (IntegerOp::FindHighest { shift: s.take("shiftamt") }, 1),
        "popc" => (IntegerOp::CountOnes, 1),
        "clz" => (IntegerOp::LeadingZeros, 1),
        "brev" => (IntegerOp::ReverseBits, 1),
        "sad" => (IntegerOp::AbsoluteDifference, 3),
        "bmsk" => (IntegerOp::Mask, 2),
        "dp4a" if s.types.len() == 2 && s.types[0] == s.types[1] => (IntegerOp::Dot, 3),
        _ => return s.unsupported(),
    };
    if s.take("sat") {
        return s.unsupported();
    }
    compute(s, Compute::Integer { op, bits, signed: ty.is_signed() }, count)
}

/// Takes the relation of a comparison, and what it returns of NaN.
fn relation(s: &mut Statement<'_>, ty: Type) -> Option<(Relation, bool)> {
    use Relation::{
        Equal, Greater, GreaterOrEqual, Less, LessOrEqual, NotEqual, Ordered, Unordered,
    };
    let is_float = matches!(ty, Type::Float(_));
    let table = [
        ("eq", (Equal, false)),
        ("ne", (NotEqual, false)),
        ("lt", (Less, false)),
        ("le", (LessOrEqual, false)),
        ("gt", (Greater, false)),
        ("ge", (GreaterOrEqual, false)),
        ("lo", (Less, false)),
        ("ls", (LessOrEqual, false)),
        ("hi", (Greater, false)),
        ("hs", (GreaterOrEqual, false)),
        ("equ", (Equal, true)),
        ("neu", (NotEqual, true)),
        ("ltu", (Less, true)),
        ("leu", (LessOrEqual, true)),
        ("gtu", (Greater, true)),
        ("geu", (GreaterOrEqual, true)),
        ("num", (Ordered, false)),
        ("nan", (Unordered, true)),
    ];
    let table = if is_float { &table[..] } else { &table[..10] };
    s.choose(table)
}

pub(super) fn compare(s: &mut Statement<'_>) -> Result<Op> {
    let ty = s.ty()?;
    if matches!(ty, Type::Float(Float::HalfPair | Float::BrainPair)) || ty == Type::Predicate {
        return s.unsupported();
    }
    let flush = s.take("ftz");
    let Some((relation, or_unordered)) = relation(s, ty) else { return s.unsupported() };
    let combine = s.choose(&[("and", Logic::And), ("or", Logic::Or), ("xor", Logic::Xor)]);
    let [a, b, c, _] = s.values(1, if combine.is_some() { 3 } else { 2 })?;
    let comparison = Comparison { relation, or_unordered, ty, flush };
    let combine = combine.map(|logic| (logic, c));
    Ok(Op::Compare { comparison, to: s.targets(0)?, from: [a, b], combine })
}

pub(super) fn select(s: &mut Statement<'_>) -> Result<Op> {
    let bits = s.types.first().map_or(32, |ty| ty.bits());
    if s.name == "selp" {
        return compute(s, Compute::Select { bits }, 3);
    }
    s.ignore(&["ftz"]);
    let by = s.ty()?;
    compute(s, Compute::SelectBySign { bits, by }, 3)
}

pub(super) fn test(s: &mut Statement<'_>) -> Result<Op> {
    let table = [
        ("finite", Class::Finite),
        ("infinite", Class::Infinite),
        ("number", Class::Number),
        ("notanumber", Class::NotANumber),
        ("normal", Class::Normal),
        ("subnormal", Class::Subnormal),
    ];
    match (s.choose(&table), s.ty()?) {
        (Some(class), Type::Float(format @ (Float::Single | Float::Double))) => {
            compute(s, Compute::Test { class, format }, 1)
        }
        _ => s.unsupported(),
    }
}

pub(super) fn convert(s: &mut Statement<'_>) -> Result<Op> {
    let [to, from] = s.types[..] else { return s.unsupported() };
    let integral = [
        ("rni", Rounding::Nearest),
        ("rzi", Rounding::Zero),
        ("rmi", Rounding::Down),
        ("rpi", Rounding::Up),
    ];
    let conversion = Conversion {
        to,
        from,
        rounding: rounding(s),
        integral: s.choose(&integral),
        flush: s.take("ftz"),
        saturate: s.take("sat"),
        relu: s.take("relu"),
        register_bits: s.bits_of(0),
    };
    let is_pair = |ty| matches!(ty, Type::Float(Float::HalfPair | Float::BrainPair));
    let is_half = |ty| matches!(ty, Type::Float(Float::Half | Float::Brain));
    let is_wrong = to == Type::Predicate
        || from == Type::Predicate
        || is_pair(from)
        || is_pair(to) && from != Type::Float(Float::Single)
        || conversion.relu && !is_pair(to) && !is_half(to)
        || conversion.rounding != Rounding::Nearest
            && to != Type::Float(Float::Single)
            && !(is_half(to) || is_pair(to))
            && to != Type::Float(Float::Double);
    if is_wrong {
        return s.unsupported();
    }
    compute(s, Compute::Convert(conversion), if is_pair(to) { 2 } else { 1 })
}
