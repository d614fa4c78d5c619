//! The update rules of Adam and AdamW, in place.
//!
//! ```text
//! m ← m + (g - m) · (1 - β₁)        v ← β₂ · v + (1 - β₂) · g²
//! p ← p - lr / (1 - β₁ᵗ) · m / (√v / √(1 - β₂ᵗ) + eps)
//! ```
//!
//! where, with amsgrad, `v` in the last line is the greatest `v` so far, `g` has `weight_decay · p` added to it (Adam), or `p` was first multiplied by
//! `1 - lr · weight_decay` (AdamW). What is the same for all elements is computed in double precision,
//! then rounded. Source: `torch.optim.Adam` and `AdamW`; a quotient by `√(1 - β₂ᵗ)` is a product by its
//! reciprocal here, one rounding apart.

use core::cell::Cell;
use std::sync::Arc;

use super::rule;
use crate::arithmetic::elementary;
use crate::cpu::kernel::Cpu;
use crate::cpu::simd::{Float, Lanes, Simd};
use crate::device::POWER;
use crate::device::code::{Cuda, Definition, DeviceCode, element};
use crate::ir::dtype::Dtype;
use crate::ir::op::{Around, Ask, InHalves, Op, OpError};
use crate::ir::shape::{Operand, Type};
use crate::ir::trace::Var;
use crate::ops::update::rule::Rule;

/// What decides the formula of [`Var::adam`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AdamSettings {
    /// Which of the counts of steps is this parameter's.
    pub index: usize,
    /// Whether weight decay shrinks the parameter itself: AdamW.
    pub decoupled: bool,
    /// Whether to climb.
    pub maximize: bool,
}

/// The numbers of [`Var::adam`], each f64 of shape `[]`.
#[derive(Clone, Copy, Debug)]
pub struct AdamRates<'a> {
    /// Learning rate.
    pub lr: &'a Var,
    /// How much of the mean gradient is kept.
    pub beta1: &'a Var,
    /// How much of the mean square is kept.
    pub beta2: &'a Var,
    /// What is added to the root of the mean square.
    pub eps: &'a Var,
    /// Multiple of the parameter that is added to its gradient, or, decoupled and times `lr`, subtracted
    /// from it.
    pub weight_decay: &'a Var,
}

/// What [`Var::adam`] gives; to be stored in the slots of its inputs.
#[derive(Clone, Debug)]
pub struct AdamUpdate {
    /// The parameter.
    pub parameter: Var,
    /// The mean gradient, torch's `exp_avg`.
    pub exp_avg: Var,
    /// The mean square, torch's `exp_avg_sq`.
    pub exp_avg_sq: Var,
    /// The counts of steps, one of them higher by 1.
    pub steps: Var,
}

impl Var {
    /// Updates a parameter by Adam's rule; see [the module](self).
    ///
    /// # Shape
    ///
    /// `gradient`, `exp_avg` and `exp_avg_sq` have the type of `self`; `steps` is `[k]` of f32, and
    /// [`AdamSettings::index`] says which of its counts is meant.
    ///
    /// Source: `torch.optim.Adam`, `torch.optim.AdamW`.
    pub fn adam(
        &self,
        gradient: &Var,
        (exp_avg, exp_avg_sq): (&Var, &Var),
        steps: &Var,
        rates: &AdamRates<'_>,
        settings: AdamSettings,
    ) -> AdamUpdate {
        let AdamRates { lr, beta1, beta2, eps, weight_decay } = *rates;
        let inputs =
            [self, gradient, exp_avg, exp_avg_sq, steps, lr, beta1, beta2, eps, weight_decay];
        let [parameter, exp_avg, exp_avg_sq, steps] =
            self.trace().apply_n(AdamOp { settings, amsgrad: false, half: None }, &inputs);
        AdamUpdate { parameter, exp_avg, exp_avg_sq, steps }
    }

    /// Updates a parameter by Adam's rule with the greatest mean square so far, torch's `max_exp_avg_sq`;
    /// gives that too.
    ///
    /// # Shape
    ///
    /// As [`adam`](Var::adam); the greatest mean square is like the others.
    ///
    /// Source: `torch.optim.Adam(amsgrad=True)`.
    pub fn amsgrad(
        &self,
        gradient: &Var,
        (exp_avg, exp_avg_sq, greatest): (&Var, &Var, &Var),
        steps: &Var,
        rates: &AdamRates<'_>,
        settings: AdamSettings,
    ) -> (AdamUpdate, Var) {
        let AdamRates { lr, beta1, beta2, eps, weight_decay } = *rates;
        let inputs = [self, gradient, exp_avg, exp_avg_sq, greatest, steps];
        let inputs: Vec<_> =
            inputs.into_iter().chain([lr, beta1, beta2, eps, weight_decay]).collect();
        let [parameter, exp_avg, exp_avg_sq, greatest, steps] =
            self.trace().apply_n(AdamOp { settings, amsgrad: true, half: None }, &inputs);
        (AdamUpdate { parameter, exp_avg, exp_avg_sq, steps }, greatest)
    }
}

#[derive(Clone, Copy, Debug)]
struct AdamOp {
    settings: AdamSettings,
    amsgrad: bool,
    /// The half that parameter and states lie in; the gradient is of singles then, and rounded to it.
    half: Option<Dtype>,
}

impl AdamOp {
    fn states(&self) -> usize {
        if self.amsgrad { 3 } else { 2 }
    }

    /// Returns the device code: parameter, states and counts are changed in the outputs.
    fn on_device(&self, outputs: &[Operand]) -> DeviceCode {
        let (number, numel) = (element(&outputs[0]), outputs[0].ty.shape.numel());
        let AdamSettings { index, decoupled, maximize } = self.settings;
        let states = self.states();
        let first = 3 + states + 5;
        let of = |operand: usize| format!("{{{operand}}}");
        let greatest = if self.amsgrad { of(first + 3) } else { "nullptr".to_owned() };
        let rates: Vec<_> = (0..5).map(|rate| of(3 + states + rate) + "[0]").collect();
        let call = format!(
            "adam<T, {number}, {numel}, {decoupled}, {maximize}, {}>(t, {}, {{1}}, {}, {}, {greatest}, {} + {index}, {}, \
             (AdamStep<{number}> *){{s}});",
            self.amsgrad,
            of(first),
            of(first + 1),
            of(first + 2),
            of(first + 1 + states),
            rates.join(", ")
        );
        let definitions = vec![
            Definition::file("power", POWER),
            Definition::file("adam", include_str!("device/adam.cu")),
        ];
        DeviceCode { definitions, call, scratch_bytes: 64, width: numel }
    }
}

impl Op for AdamOp {
    fn name(&self) -> &'static str {
        if self.settings.decoupled { "adamw" } else { "adam" }
    }

    fn attributes(&self) -> String {
        let AdamSettings { index, maximize, .. } = self.settings;
        let own = rule::attributes(index, &[("amsgrad", self.amsgrad), ("maximize", maximize)]);
        self.half.map(|half| format!("{own} half={half}")).unwrap_or(own)
    }

    fn outputs(&self, inputs: &[Type]) -> Result<Vec<Type>, OpError> {
        let counts = (self.states(), 5);
        rule::types_in(self.half, self.name(), inputs, counts, self.settings.index)
    }

    fn in_place(&self) -> &[(usize, usize)] {
        rule::in_place(self.states())
    }

    fn kernels(&self, ask: &mut Ask<'_>) {
        ask.give::<Cpu>(|inputs, _| {
            let (rule, index, ty) = (AdamRule(self.settings), self.settings.index, &inputs[0].ty);
            match self.amsgrad {
                true => rule::kernel_in_halves::<_, 3, 5>(rule, index, ty),
                false => rule::kernel_in_halves::<_, 2, 5>(rule, index, ty),
            }
        });
        if self.half.is_none() {
            ask.give::<Cuda>(|_, outputs| Box::new(self.on_device(outputs)));
        }
    }

    fn in_halves(&self, around: &Around<'_>) -> Option<InHalves> {
        let (half, inputs) = rule::in_halves(around, self.states())?;
        let op = AdamOp { half: Some(half), ..*self };
        self.half.is_none().then(|| InHalves { op: Arc::new(op), inputs, narrows: true })
    }
}

#[derive(Clone, Copy)]
struct AdamRule(AdamSettings);

/// A step's numbers.
#[derive(Clone, Copy, Default)]
struct Step<T> {
    /// `1 - β₁`
    new_mean: T,
    /// `β₂`
    old_square: T,
    /// `1 - β₂`
    new_square: T,
    /// `1 / √(1 - β₂ᵗ)`
    correction: T,
    eps: T,
    /// `-lr / (1 - β₁ᵗ)`
    size: T,
    /// `weight_decay`, or `1 - lr · weight_decay`.
    decay: T,
}

/// Betas and a step, and their [`corrections`].
type Known = Cell<([f64; 3], [f64; 2])>;

/// How many steps a thread remembers: some minibatches of one visit, which the next model sees as well.
const REMEMBERED: usize = 32;

thread_local! {
    /// By the step, the last [`corrections`] of this thread.
    static LAST: [Known; REMEMBERED] =
        const { [const { Cell::new(([f64::NAN; 3], [f64::NAN; 2])) }; REMEMBERED] };
}

/// Returns `1 - β₁ᵗ` and `1 / √(1 - β₂ᵗ)`.
///
/// Powers take longer than the update of fifty numbers, and ten thousand models with six parameters each ask
/// mostly for the same ones: a thread remembers its last ones.
#[inline(always)]
pub(super) fn corrections([beta1, beta2]: [f64; 2], step: f64) -> [f64; 2] {
    LAST.with(|last| {
        let last = &last[step as usize % REMEMBERED];
        let (known, corrections) = last.get();
        if known == [beta1, beta2, step] {
            return corrections;
        }
        let [power1, power2] = [beta1, beta2].map(|beta| elementary::pow(beta, step));
        let corrections = [1.0 - power1, 1.0 / (1.0 - power2).sqrt()];
        last.set(([beta1, beta2, step], corrections));
        corrections
    })
}

/// The third state, if there is one, is the greatest mean square.
impl<const STATES: usize> Rule<STATES, 5> for AdamRule {
    type Step<T: Float> = Step<T>;

    #[inline(always)]
    fn step<T: Float>(self, [lr, beta1, beta2, eps, weight_decay]: [f64; 5], step: f64) -> Step<T> {
        let decay = if self.0.decoupled { 1.0 - lr * weight_decay } else { weight_decay };
        let [of_mean, of_square] = corrections([beta1, beta2], step);
        Step {
            new_mean: T::from_f64(1.0 - beta1),
            old_square: T::from_f64(beta2),
            new_square: T::from_f64(1.0 - beta2),
            correction: T::from_f64(of_square),
            eps: T::from_f64(eps),
            size: T::from_f64(-lr / of_mean),
            decay: T::from_f64(decay),
        }
    }

    #[inline(always)]
    fn update<T: Float, S: Simd>(
        self,
        step: &Step<T>,
        p: T::Lanes<S>,
        g: T::Lanes<S>,
        mut states: [T::Lanes<S>; STATES],
    ) -> (T::Lanes<S>, [T::Lanes<S>; STATES]) {
        let all = |x: T| T::Lanes::<S>::splat(x);
        let (m, v) = (states[0], states[1]);
        let AdamSettings { decoupled, maximize, .. } = self.0;
        let (p, g) = rule::with_decay::<T, S>(decoupled, maximize, step.decay, p, g);
        let m = g.sub(m).mul_add(all(step.new_mean), m);
        // Where no gradient comes any more the mean fades; subnormal numbers would be a hundred times
        // slower than the zero that they stand for.
        let fades = m.abs().lt(all(T::from_f64(f64::from(f32::MIN_POSITIVE))));
        let m = T::Lanes::<S>::zero_where(fades, m);
        let v = g.mul(g).mul_add(all(step.new_square), v.mul(all(step.old_square)));
        (states[0], states[1]) = (m, v);
        let mut greatest = v;
        if STATES > 2 {
            greatest = rule::maximum::<T, S>(states[2], v);
            states[2] = greatest;
        }
        let root = greatest.sqrt().mul_add(all(step.correction), all(step.eps));
        (p.add(m.mul(all(step.size)).div(root)), states)
    }
}
