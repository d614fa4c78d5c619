//! [`Symbol`]: a number that stands for what is computed with it, and the [`Recording`] that it is a part of.
//!
//! A symbol is an index into the recording of its thread, and so is `Copy`, as [`Primitive`] wants it.

use core::cell::RefCell;
use std::collections::HashMap;

use crate::arithmetic::{Function, Primitive};

/// A number that is recorded: its place among the steps.
#[derive(Clone, Copy, Debug)]
pub struct Symbol<const IS_DOUBLE: bool>(usize);

/// A number of single precision that is recorded.
pub type Single = Symbol<false>;

/// A number of double precision that is recorded.
pub type Double = Symbol<true>;

/// The result of a comparison that is recorded: its place among the steps.
#[derive(Clone, Copy, Debug)]
pub struct SymbolMask(usize);

/// An operation of [`Primitive`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operator {
    /// `a + b`.
    Add,
    /// `a - b`.
    Sub,
    /// `a · b`.
    Mul,
    /// `a / b`.
    Div,
    /// `a · b + c`, rounded once.
    MulAdd,
    /// `√a`.
    Sqrt,
    /// The larger of `a` and `b`, else `b`.
    Max,
    /// The smaller of `a` and `b`, else `b`.
    Min,
    /// `|a|`.
    Abs,
    /// The nearest whole number, ties to even.
    Round,
    /// The whole part.
    Trunc,
    /// Whether `a < b`: a mask.
    Less,
    /// Whether `a = b`: a mask.
    Equal,
    /// `b` where the mask `a` is set, `c` elsewhere.
    Select,
    /// `a · 2ᵇ`.
    Scale,
    /// The mantissa of `a`, in `[1, 2)`.
    Mantissa,
    /// The exponent of `a`.
    Exponent,
    /// Crate `libm`'s sine of `b` where the mask `a` is set, `c` elsewhere.
    HugeSin,
    /// The same of the cosine.
    HugeCos,
}

impl Operator {
    /// Returns how many steps it takes.
    pub fn arity(self) -> usize {
        use Operator::{
            Abs, Exponent, HugeCos, HugeSin, Mantissa, MulAdd, Round, Select, Sqrt, Trunc,
        };
        match self {
            Sqrt | Abs | Round | Trunc | Mantissa | Exponent => 1,
            MulAdd | Select | HugeSin | HugeCos => 3,
            _ => 2,
        }
    }
}

/// One step of a recording. Steps are named by their places.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// The input of that number.
    Input(usize),
    /// A number, as the bits of a double.
    Number(u64),
    /// An operation on as many of three steps as it takes; the others are 0.
    Apply(Operator, [usize; 3]),
    /// A function, by its place in [`Recording::functions`], of a step.
    Call(usize, usize),
}

/// The steps that lead from inputs to results, each after those that it needs and none twice.
#[derive(Clone, Debug, Default)]
pub struct Body {
    /// The steps.
    pub steps: Vec<Step>,
    /// The places of the results.
    pub results: Vec<usize>,
    places: HashMap<Step, usize>,
}

impl Body {
    fn place(&mut self, step: Step) -> usize {
        *self.places.entry(step).or_insert_with(|| {
            self.steps.push(step);
            self.steps.len() - 1
        })
    }
}

/// What was recorded.
#[derive(Clone, Debug, Default)]
pub struct Recording {
    /// The elementary functions by their names, each after those that it calls.
    pub functions: Vec<(String, Body)>,
    /// What was asked for.
    pub body: Body,
}

/// A recording that goes on.
#[derive(Default)]
struct Recorder {
    functions: Vec<(String, Body)>,
    /// The body that is recorded, and those that wait for it: a function is recorded at its first call.
    body: Body,
    waiting: Vec<Body>,
}

thread_local! {
    static RECORDER: RefCell<Option<Recorder>> = const { RefCell::new(None) };
}

/// Runs `change` on what this thread records; gives 0 if it records nothing.
fn with_recorder(change: impl FnOnce(&mut Recorder) -> usize) -> usize {
    RECORDER.with_borrow_mut(|recorder| recorder.as_mut().map_or(0, change))
}

fn place(step: Step) -> usize {
    with_recorder(|recorder| recorder.body.place(step))
}

/// Records what `body` computes from `inputs` numbers. Symbols are of no use outside of it.
pub fn record<const IS_DOUBLE: bool>(
    inputs: usize,
    body: impl FnOnce(&[Symbol<IS_DOUBLE>]) -> Vec<Symbol<IS_DOUBLE>>,
) -> Recording {
    let outer = RECORDER.replace(Some(Recorder::default()));
    let x: Vec<_> = (0..inputs).map(|input| Symbol(place(Step::Input(input)))).collect();
    let results = body(&x).iter().map(|result| result.0).collect();
    let recorder = RECORDER.replace(outer).unwrap_or_default();
    Recording { functions: recorder.functions, body: Body { results, ..recorder.body } }
}

impl<const IS_DOUBLE: bool> Symbol<IS_DOUBLE> {
    fn apply<const N: usize>(operator: Operator, of: [usize; N]) -> Self {
        Symbol(place(applied(operator, of)))
    }
}

fn applied<const N: usize>(operator: Operator, of: [usize; N]) -> Step {
    let mut operands = [0; 3];
    operands[..N].copy_from_slice(&of);
    Step::Apply(operator, operands)
}

impl<const IS_DOUBLE: bool> Primitive for Symbol<IS_DOUBLE> {
    type Mask = SymbolMask;

    const IS_DOUBLE: bool = IS_DOUBLE;

    fn splat(x: f64) -> Self {
        let rounded = if IS_DOUBLE { x } else { f64::from(x as f32) };
        Symbol(place(Step::Number(rounded.to_bits())))
    }

    fn add(self, b: Self) -> Self {
        Self::apply(Operator::Add, [self.0, b.0])
    }

    fn sub(self, b: Self) -> Self {
        Self::apply(Operator::Sub, [self.0, b.0])
    }

    fn mul(self, b: Self) -> Self {
        Self::apply(Operator::Mul, [self.0, b.0])
    }

    fn div(self, b: Self) -> Self {
        Self::apply(Operator::Div, [self.0, b.0])
    }

    fn mul_add(self, b: Self, c: Self) -> Self {
        Self::apply(Operator::MulAdd, [self.0, b.0, c.0])
    }

    fn sqrt(self) -> Self {
        Self::apply(Operator::Sqrt, [self.0])
    }

    fn max(self, b: Self) -> Self {
        Self::apply(Operator::Max, [self.0, b.0])
    }

    fn min(self, b: Self) -> Self {
        Self::apply(Operator::Min, [self.0, b.0])
    }

    fn abs(self) -> Self {
        Self::apply(Operator::Abs, [self.0])
    }

    fn round(self) -> Self {
        Self::apply(Operator::Round, [self.0])
    }

    fn trunc(self) -> Self {
        Self::apply(Operator::Trunc, [self.0])
    }

    fn lt(self, b: Self) -> SymbolMask {
        SymbolMask(place(applied(Operator::Less, [self.0, b.0])))
    }

    fn eq(self, b: Self) -> SymbolMask {
        SymbolMask(place(applied(Operator::Equal, [self.0, b.0])))
    }

    fn select(mask: SymbolMask, then: Self, otherwise: Self) -> Self {
        Self::apply(Operator::Select, [mask.0, then.0, otherwise.0])
    }

    fn scale_by_power_of_two(self, n: Self) -> Self {
        Self::apply(Operator::Scale, [self.0, n.0])
    }

    fn mantissa_exponent(self) -> (Self, Self) {
        let mantissa = Self::apply(Operator::Mantissa, [self.0]);
        (mantissa, Self::apply(Operator::Exponent, [self.0]))
    }

    fn huge_sin(self, mask: SymbolMask, otherwise: Self) -> Self {
        Self::apply(Operator::HugeSin, [mask.0, self.0, otherwise.0])
    }

    fn huge_cos(self, mask: SymbolMask, otherwise: Self) -> Self {
        Self::apply(Operator::HugeCos, [mask.0, self.0, otherwise.0])
    }

    fn call<F: Function>(self, f: F) -> Self {
        let name = f.name();
        let known = RECORDER.with_borrow(|recorder| {
            recorder.as_ref()?.functions.iter().position(|(known, _)| *known == name)
        });
        let function = known.unwrap_or_else(|| {
            with_recorder(|recorder| {
                recorder.waiting.push(core::mem::take(&mut recorder.body));
                0
            });
            let result = f.of(Self(place(Step::Input(0)))).0;
            with_recorder(|recorder| {
                let caller = recorder.waiting.pop().unwrap_or_default();
                let body = core::mem::replace(&mut recorder.body, caller);
                recorder.functions.push((name, Body { results: vec![result], ..body }));
                recorder.functions.len() - 1
            })
        });
        Symbol(place(Step::Call(function, self.0)))
    }
}
