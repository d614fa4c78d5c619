//! C source of elementwise programs.
//!
//! Compiled without contraction and without `-ffast-math` (`gcc -ffp-contract=off`), the source gives the bits of the
//! CPU's kernels: [`mul_add`](crate::arithmetic::Primitive::mul_add) is `fmaf` or `fma`, the elementary functions are
//! printed with it. Sines and cosines of numbers beyond 2¹⁶ in single and 2³⁰ in double precision are the C library's:
//! their bits may differ.

use core::fmt::Write;

use super::record::{Body, Operator, Recording, Step, Symbol, record};
use super::{Expression, Text};
use crate::arithmetic::Primitive;
use crate::ir::dtype::Dtype;
use crate::ir::op::{OpError, ask};
use crate::ir::program::{Node, Origin, Program};
use crate::ir::shape::{Operand, Shape};

/// What printed functions call, once in each file: [`function`]s follow it.
pub const PRELUDE: &str = concat!(
    "#include <math.h>\n#include <stddef.h>\n#include <stdint.h>\n#include <string.h>\n\n",
    include_str!("bits.c"),
    "\n",
);

/// Prints the C function `name` that computes the outputs of an elementwise program for one model.
///
/// `void name(const T *const x[], T *const y[])` takes the inputs of the program, then the slots, then the scalars, each
/// row-major, and writes its outputs.
///
/// # Errors
///
/// If the program breaks the grammar, an op is not elementwise, the values are not all singles or all doubles, an input does
/// not broadcast to the outputs, or there are stores.
pub fn function(program: &Program, name: &str) -> Result<String, OpError> {
    program.verify().map_err(|error| OpError(error.to_string()))?;
    let expressions = expressions_of(program)?;
    let dtype = dtype_of(program)?;
    let shape = shape_of(program)?;
    let mut sources = Vec::new();
    for value in &program.values {
        let source = match value.origin {
            Origin::Input(input) => input,
            Origin::Slot(slot) => program.inputs.len() + slot,
            Origin::Scalar(scalar) => program.inputs.len() + program.slots.len() + scalar,
            Origin::Constant(_) | Origin::Node { .. } => continue,
        };
        if value.ty.shape.broadcast(&shape).as_ref() != Some(&shape) {
            return Err(OpError(format!("expected {} to broadcast to {shape}", value.ty.shape)));
        }
        sources.push(format!("x[{source}][{}]", place_of(&value.ty.shape, &shape)));
    }
    let recording = match dtype {
        Dtype::F64 => {
            record(sources.len(), |x| compute(program, x, &expressions, |e, x| e.doubles(x)))
        }
        _ => record(sources.len(), |x| compute(program, x, &expressions, |e, x| e.singles(x))),
    };
    if recording.body.results.len() != program.outputs.len() {
        return Err(OpError("expected an expression for each output of an op".into()));
    }
    let language = match dtype {
        Dtype::F64 => DOUBLES,
        _ => SINGLES,
    };
    Ok(print(&recording, language, name, &sources, shape.numel()))
}

/// Gives the one type of all values.
fn dtype_of(program: &Program) -> Result<Dtype, OpError> {
    let mut dtypes = program.values.iter().map(|value| value.ty.dtype);
    match dtypes.next() {
        Some(dtype @ (Dtype::F32 | Dtype::F64)) if dtypes.all(|other| other == dtype) => Ok(dtype),
        _ => Err(OpError("expected values of one type, f32 or f64".into())),
    }
}

/// Gives the one shape of all outputs.
fn shape_of(program: &Program) -> Result<Shape, OpError> {
    if !program.stores.is_empty() {
        return Err(OpError("expected no stores".into()));
    }
    let mut shapes = program.outputs.iter().map(|&id| &program.ty(id).shape);
    match shapes.next() {
        Some(shape) if shapes.all(|other| other == shape) => Ok(shape.clone()),
        _ => Err(OpError("expected outputs of one shape".into())),
    }
}

/// Asks each op what it computes.
fn expressions_of(program: &Program) -> Result<Vec<Box<dyn Expression>>, OpError> {
    let operands = |ids: &[usize]| -> Vec<Operand> {
        ids.iter().map(|&id| Operand::row_major(program.ty(id).clone())).collect()
    };
    let of_node = |node: &Node| {
        ask::kernel::<Text>(&*node.op, &operands(&node.inputs), &operands(&node.outputs))
    };
    program.nodes.iter().map(of_node).collect()
}

/// Records a program whose values from outside are `x`, in their order. If an op gives other outputs than it has, there
/// are none.
fn compute<const IS_DOUBLE: bool>(
    program: &Program,
    x: &[Symbol<IS_DOUBLE>],
    expressions: &[Box<dyn Expression>],
    of: fn(&dyn Expression, &[Symbol<IS_DOUBLE>]) -> Vec<Symbol<IS_DOUBLE>>,
) -> Vec<Symbol<IS_DOUBLE>> {
    let mut x = x.iter().copied();
    let zero = Symbol::splat(0.0);
    let start = |origin| match origin {
        Origin::Constant(number) => Symbol::splat(number),
        Origin::Node { .. } => zero,
        _ => x.next().unwrap_or(zero),
    };
    let mut values: Vec<_> = program.values.iter().map(|value| value.origin).map(start).collect();
    for (node, expression) in program.nodes.iter().zip(expressions) {
        let inputs: Vec<_> = node.inputs.iter().map(|&id| values[id]).collect();
        let outputs = of(&**expression, &inputs);
        if outputs.len() != node.outputs.len() {
            return Vec::new();
        }
        for (&id, y) in node.outputs.iter().zip(outputs) {
            values[id] = y;
        }
    }
    program.outputs.iter().map(|&id| values[id]).collect()
}

/// Prints the place of element `i` of `shape` in a row-major array of shape `own` that broadcasts to it.
fn place_of(own: &Shape, shape: &Shape) -> String {
    if own == shape {
        return "i".to_owned();
    }
    let mut terms = Vec::new();
    let (mut inner, mut stride) = (1_usize, 1_usize);
    for axis in (0..shape.rank()).rev() {
        let size = (axis + own.rank()).checked_sub(shape.rank()).map_or(1, |axis| own[axis]);
        if size > 1 {
            terms.push(format!("i / {inner} % {size} * {stride}"));
            stride = stride.saturating_mul(size);
        }
        inner = inner.saturating_mul(shape[axis]);
    }
    if terms.is_empty() { "0".to_owned() } else { terms.join(" + ") }
}

/// How C says one precision.
#[derive(Clone, Copy)]
struct Language {
    number: &'static str,
    /// Behind the names of its functions.
    suffix: &'static str,
    /// Behind its literals.
    literal: &'static str,
}

const SINGLES: Language = Language { number: "float", suffix: "f", literal: "f" };
const DOUBLES: Language = Language { number: "double", suffix: "", literal: "" };

/// Prints a recording, the functions that it calls before it. Its inputs are the expressions `sources`.
fn print(
    recording: &Recording,
    language: Language,
    name: &str,
    sources: &[String],
    numel: usize,
) -> String {
    let number = language.number;
    let function = |place: usize| format!("{name}_{}", recording.functions[place].0);
    let mut text = String::new();
    for (place, (_, body)) in recording.functions.iter().enumerate() {
        text += &format!("static {number} {}({number} x) {{\n", function(place));
        text += &lines(body, language, "    ", |_| "x".to_owned(), &function);
        text += &format!("    return v{};\n}}\n\n", body.results[0]);
    }
    text += &format!("void {name}(const {number} *const x[], {number} *const y[]) {{\n");
    text += &format!("    for (size_t i = 0; i < {numel}; i++) {{\n");
    let source = |input: usize| sources[input].clone();
    text += &lines(&recording.body, language, "        ", source, &function);
    for (output, result) in recording.body.results.iter().enumerate() {
        text += &format!("        y[{output}][i] = v{result};\n");
    }
    text + "    }\n}\n"
}

/// Prints the steps that the results need, a line each: `const float v3 = v1 + v2;`.
fn lines(
    body: &Body,
    language: Language,
    indent: &str,
    source: impl Fn(usize) -> String,
    function: &dyn Fn(usize) -> String,
) -> String {
    let mut needed = vec![false; body.steps.len()];
    body.results.iter().for_each(|&result| needed[result] = true);
    for (place, step) in body.steps.iter().enumerate().rev() {
        if needed[place] {
            match *step {
                Step::Apply(operator, of) => {
                    of[..operator.arity()].iter().for_each(|&of| needed[of] = true);
                }
                Step::Call(_, of) => needed[of] = true,
                Step::Input(_) | Step::Number(_) => {}
            }
        }
    }
    let mut text = String::new();
    for (place, step) in body.steps.iter().enumerate().filter(|&(place, _)| needed[place]) {
        let is_mask = matches!(step, Step::Apply(Operator::Less | Operator::Equal, _));
        let ty = if is_mask { "int" } else { language.number };
        let right = match *step {
            Step::Input(input) => source(input),
            Step::Number(bits) => literal(f64::from_bits(bits), language),
            Step::Apply(operator, of) => apply(operator, of, language.suffix),
            Step::Call(of, x) => format!("{}(v{x})", function(of)),
        };
        // Writing to a string does not fail.
        let _ = writeln!(text, "{indent}const {ty} v{place} = {right};");
    }
    text
}

/// Prints an operation; `f` is behind the names of functions of its precision.
fn apply(operator: Operator, [a, b, c]: [usize; 3], f: &str) -> String {
    match operator {
        Operator::Add => format!("v{a} + v{b}"),
        Operator::Sub => format!("v{a} - v{b}"),
        Operator::Mul => format!("v{a} * v{b}"),
        Operator::Div => format!("v{a} / v{b}"),
        Operator::MulAdd => format!("fma{f}(v{a}, v{b}, v{c})"),
        Operator::Sqrt => format!("sqrt{f}(v{a})"),
        Operator::Max => format!("v{a} > v{b} ? v{a} : v{b}"),
        Operator::Min => format!("v{a} < v{b} ? v{a} : v{b}"),
        Operator::Abs => format!("fabs{f}(v{a})"),
        Operator::Round => format!("rint{f}(v{a})"),
        Operator::Trunc => format!("trunc{f}(v{a})"),
        Operator::Less => format!("v{a} < v{b}"),
        Operator::Equal => format!("v{a} == v{b}"),
        Operator::Select => format!("v{a} ? v{b} : v{c}"),
        Operator::Scale => format!("scale{f}(v{a}, v{b})"),
        Operator::Mantissa => format!("mantissa{f}(v{a})"),
        Operator::Exponent => format!("exponent{f}(v{a})"),
        Operator::HugeSin => format!("v{a} ? sin(v{b}) : v{c}"),
        Operator::HugeCos => format!("v{a} ? cos(v{b}) : v{c}"),
    }
}

/// Prints a number so that it is read as the same bits: `0x1.8p1f`.
fn literal(x: f64, language: Language) -> String {
    if x.is_nan() {
        return "NAN".to_owned();
    }
    let sign = if x.is_sign_negative() { "-" } else { "" };
    if x.is_infinite() {
        return format!("{sign}INFINITY");
    }
    let bits = x.to_bits();
    let (fraction, exponent) = (bits & ((1 << 52) - 1), (bits >> 52 & 0x7ff) as i64);
    let (whole, exponent) = match (fraction, exponent) {
        (0, 0) => (0, 0),
        (_, 0) => (0, -1022),
        _ => (1, exponent - 1023),
    };
    format!("{sign}0x{whole}.{fraction:013x}p{exponent}{}", language.literal)
}
