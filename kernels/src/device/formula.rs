//! Prints [recordings](crate::text::record) as CUDA functions. Each operation rounds once, as on the CPU.

use core::fmt::Write;

use super::code::Definition;
use crate::arithmetic::Arithmetic;
use crate::text::record::{
    Body, Double, Operator, Recording, Single, Step, Symbol, record as record_symbols,
};

/// How CUDA says one precision.
#[derive(Clone, Copy)]
struct Precision {
    number: &'static str,
    /// Behind the names of functions.
    suffix: &'static str,
}

/// Prints the functions that compute the results of `body` in single or double precision: `number name(number x0, …)`, one
/// for each result. Returns their definitions, the last ones being these, and their names.
pub fn functions<const IS_DOUBLE: bool>(
    name: &str,
    inputs: usize,
    body: impl FnOnce(&[Symbol<IS_DOUBLE>]) -> Vec<Symbol<IS_DOUBLE>>,
) -> (Vec<Definition>, Vec<String>) {
    let recording = record_symbols(inputs, body);
    let precision = match IS_DOUBLE {
        true => Precision { number: "double", suffix: "_f64" },
        false => Precision { number: "float", suffix: "_f32" },
    };
    print(&recording, precision, name, inputs)
}

/// Prints a function of one number in single or double precision.
pub(crate) fn unary(
    name: &str,
    is_double: bool,
    singles: impl FnOnce(Single) -> Single,
    doubles: impl FnOnce(Double) -> Double,
) -> (Vec<Definition>, String) {
    let (definitions, mut names) = match is_double {
        true => functions::<true>(name, 1, |x| vec![doubles(x[0])]),
        false => functions::<false>(name, 1, |x| vec![singles(x[0])]),
    };
    (definitions, names.remove(0))
}

/// Prints `exp_of` and `ln_of`, overloads for both precisions by which the files of ops call them.
pub(crate) fn exp_and_ln() -> Vec<Definition> {
    let mut definitions = Vec::new();
    for is_double in [false, true] {
        let (exp, exp_name) = unary("exp", is_double, |x| x.exp(), |x| x.exp());
        let (ln, ln_name) = unary("ln", is_double, |x| x.ln(), |x| x.ln());
        definitions.extend(exp.into_iter().chain(ln));
        let number = if is_double { "double" } else { "float" };
        let text = [("exp_of", exp_name), ("ln_of", ln_name)].map(|(name, of)| {
            format!("DEVICE {number} {name}({number} x) {{ return {of}(x); }}\n")
        });
        definitions.push(Definition { name: format!("exp_ln_{number}"), text: text.concat() });
    }
    definitions
}

fn print(
    recording: &Recording,
    precision: Precision,
    name: &str,
    inputs: usize,
) -> (Vec<Definition>, Vec<String>) {
    let Precision { number, suffix } = precision;
    let called = |place: usize| format!("nn_{}{suffix}", recording.functions[place].0);
    let mut definitions = Vec::new();
    for (place, (_, body)) in recording.functions.iter().enumerate() {
        let lines = lines(body, body.results[0], precision, &called);
        let text = format!("DEVICE {number} {}({number} x0) {{\n{lines}}}\n", called(place));
        definitions.push(Definition { name: called(place), text });
    }
    let parameters: Vec<_> = (0..inputs).map(|input| format!("{number} x{input}")).collect();
    let parameters = parameters.join(", ");
    let mut names = Vec::new();
    for &result in &recording.body.results {
        let lines = lines(&recording.body, result, precision, &called);
        // Two formulas of one name may differ in their settings.
        let own = format!("{name}_{:08x}{suffix}", hash(&lines));
        let text = format!("DEVICE {number} {own}({parameters}) {{\n{lines}}}\n");
        definitions.push(Definition { name: own.clone(), text });
        names.push(own);
    }
    (definitions, names)
}

/// FNV-1a: the same on all machines, so that sources are.
pub(crate) fn hash(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

/// Prints the steps that a result needs, a line each, and returns it.
fn lines(
    body: &Body,
    result: usize,
    precision: Precision,
    called: &dyn Fn(usize) -> String,
) -> String {
    let mut needed = vec![false; body.steps.len()];
    needed[result] = true;
    for (place, step) in body.steps.iter().enumerate().rev() {
        match *step {
            Step::Apply(operator, of) if needed[place] => {
                of[..operator.arity()].iter().for_each(|&of| needed[of] = true);
            }
            Step::Call(_, of) if needed[place] => needed[of] = true,
            _ => {}
        }
    }
    let mut text = String::new();
    for (place, step) in body.steps.iter().enumerate().filter(|&(place, _)| needed[place]) {
        let is_mask = matches!(step, Step::Apply(Operator::Less | Operator::Equal, _));
        let ty = if is_mask { "bool" } else { precision.number };
        let right = match *step {
            Step::Input(input) => format!("x{input}"),
            Step::Number(bits) => literal(f64::from_bits(bits), precision),
            Step::Apply(operator, of) => apply(operator, of, precision),
            Step::Call(of, x) => format!("{}(v{x})", called(of)),
        };
        // Writing to a string does not fail.
        let _ = writeln!(text, "    const {ty} v{place} = {right};");
    }
    text + &format!("    return v{result};\n")
}

/// Prints an operation.
fn apply(operator: Operator, [a, b, c]: [usize; 3], precision: Precision) -> String {
    match operator {
        Operator::Add => format!("add_rn(v{a}, v{b})"),
        Operator::Sub => format!("sub_rn(v{a}, v{b})"),
        Operator::Mul => format!("mul_rn(v{a}, v{b})"),
        Operator::Div => format!("div_rn(v{a}, v{b})"),
        Operator::MulAdd => format!("fma_rn(v{a}, v{b}, v{c})"),
        Operator::Sqrt => format!("sqrt_rn(v{a})"),
        Operator::Max => format!("v{a} > v{b} ? v{a} : v{b}"),
        Operator::Min => format!("v{a} < v{b} ? v{a} : v{b}"),
        Operator::Abs => format!("abs_of(v{a})"),
        Operator::Round => format!("round_of(v{a})"),
        Operator::Trunc => format!("trunc_of(v{a})"),
        Operator::Less => format!("v{a} < v{b}"),
        Operator::Equal => format!("v{a} == v{b}"),
        Operator::Select => format!("v{a} ? v{b} : v{c}"),
        Operator::Scale => format!("scale(v{a}, v{b})"),
        Operator::Mantissa => format!("mantissa(v{a})"),
        Operator::Exponent => format!("exponent(v{a})"),
        Operator::HugeSin => {
            format!("v{a} ? ({})sin((double)v{b}) : v{c}", precision.number)
        }
        Operator::HugeCos => {
            format!("v{a} ? ({})cos((double)v{b}) : v{c}", precision.number)
        }
    }
}

/// Prints a number by its bits.
fn literal(x: f64, precision: Precision) -> String {
    match precision.number {
        "double" => format!("__longlong_as_double({:#x}ll) /* {x:e} */", x.to_bits()),
        _ => format!("__int_as_float({:#x}) /* {x:e} */", (x as f32).to_bits()),
    }
}
