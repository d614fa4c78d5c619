//! The update rule of stochastic gradient descent, in place.
//!
//! ```text
//! g ← g + weight_decay · p
//! b ← momentum · b + (1 - dampening) · g        (b ← g at the first step)
//! g ← g + momentum · b  if nesterov, else b
//! p ← p - lr · g
//! ```
//!
//! where the two lines in the middle are left out if there is no momentum. Source: `torch.optim.SGD`.

use std::sync::Arc;

use super::rule;
use crate::cpu::kernel::Cpu;
use crate::cpu::simd::{Float, Lanes, Simd};
use crate::device::code::Cuda;
use crate::ir::dtype::Dtype;
use crate::ir::op::{Around, Ask, InHalves, Op, OpError};
use crate::ir::shape::Type;
use crate::ir::trace::Var;
use crate::ops::update::on_device::OnDevice;
use crate::ops::update::rule::{Rule, decayed};

/// What decides the formula of [`Var::sgd`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SgdSettings {
    /// Which of the counts of steps is this parameter's.
    pub index: usize,
    /// Whether to look ahead along the direction; without momentum it says nothing.
    pub nesterov: bool,
    /// Whether to climb.
    pub maximize: bool,
}

/// The numbers of [`Var::sgd`], each f64 of shape `[]`.
#[derive(Clone, Copy, Debug)]
pub struct SgdRates<'a> {
    /// Learning rate.
    pub lr: &'a Var,
    /// Multiple of the parameter that is added to its gradient.
    pub weight_decay: &'a Var,
}

/// What momentum adds to [`Var::sgd`].
#[derive(Clone, Copy, Debug)]
pub struct SgdMomentum<'a> {
    /// The direction so far, torch's `momentum_buffer`; it is not read at the first step.
    pub buffer: &'a Var,
    /// How much of it is kept; f64 of shape `[]`.
    pub momentum: &'a Var,
    /// How much of the gradient it leaves out; f64 of shape `[]`.
    pub dampening: &'a Var,
}

/// What [`Var::sgd`] gives; to be stored in the slots of its inputs.
#[derive(Clone, Debug)]
pub struct SgdUpdate {
    /// The parameter.
    pub parameter: Var,
    /// The direction, if there is momentum.
    pub buffer: Option<Var>,
    /// The counts of steps, one of them higher by 1.
    pub steps: Var,
}

impl Var {
    /// Updates a parameter by gradient descent; see [the module](self).
    ///
    /// # Shape
    ///
    /// `gradient` and the momentum's buffer have the type of `self`; `steps` is `[k]` of f32, and
    /// [`SgdSettings::index`] says which of its counts is meant.
    ///
    /// Source: `torch.optim.SGD`.
    pub fn sgd(
        &self,
        gradient: &Var,
        steps: &Var,
        rates: &SgdRates<'_>,
        momentum: Option<&SgdMomentum<'_>>,
        settings: SgdSettings,
    ) -> SgdUpdate {
        let trace = self.trace();
        let SgdRates { lr, weight_decay } = *rates;
        match momentum {
            None => {
                let op = SgdOp { settings, has_momentum: false, half: None };
                let inputs = [self, gradient, steps, lr, weight_decay];
                let [parameter, steps] = trace.apply_n(op, &inputs);
                SgdUpdate { parameter, buffer: None, steps }
            }
            Some(&SgdMomentum { buffer, momentum, dampening }) => {
                let op = SgdOp { settings, has_momentum: true, half: None };
                let inputs = [self, gradient, buffer, steps, lr, weight_decay, momentum, dampening];
                let [parameter, buffer, steps] = trace.apply_n(op, &inputs);
                SgdUpdate { parameter, buffer: Some(buffer), steps }
            }
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct SgdOp {
    settings: SgdSettings,
    has_momentum: bool,
    /// The half that parameter and buffer lie in; the gradient is of singles then, and rounded to it.
    half: Option<Dtype>,
}

impl Op for SgdOp {
    fn name(&self) -> &'static str {
        "sgd"
    }

    fn attributes(&self) -> String {
        let SgdSettings { index, nesterov, maximize } = self.settings;
        let own = rule::attributes(index, &[("nesterov", nesterov), ("maximize", maximize)]);
        self.half.map(|half| format!("{own} half={half}")).unwrap_or(own)
    }

    fn outputs(&self, inputs: &[Type]) -> Result<Vec<Type>, OpError> {
        let counts = if self.has_momentum { (1, 4) } else { (0, 2) };
        rule::types_in(self.half, "sgd", inputs, counts, self.settings.index)
    }

    fn in_place(&self) -> &[(usize, usize)] {
        rule::in_place(usize::from(self.has_momentum))
    }

    fn kernels(&self, ask: &mut Ask<'_>) {
        ask.give::<Cpu>(|inputs, _| {
            let (index, ty) = (self.settings.index, &inputs[0].ty);
            match self.has_momentum {
                true => rule::kernel_in_halves(MomentumRule(self.settings), index, ty),
                false => rule::kernel_in_halves(PlainRule(self.settings), index, ty),
            }
        });
        if self.half.is_none() {
            ask.give::<Cuda>(|_, outputs| {
                let SgdSettings { index, nesterov, maximize } = self.settings;
                let (name, text, counts) = match self.has_momentum {
                    true => ("momentum", include_str!("device/momentum.cu"), (1, 4)),
                    false => ("sgd", include_str!("device/sgd.cu"), (0, 2)),
                };
                let flags = [("nesterov", nesterov), ("maximize", maximize)];
                let of = OnDevice { name, text, flags: &flags, reads_states: false };
                Box::new(of.code(index, counts, outputs))
            });
        }
    }

    fn in_halves(&self, around: &Around<'_>) -> Option<InHalves> {
        let (half, inputs) = rule::in_halves(around, usize::from(self.has_momentum))?;
        let op = SgdOp { half: Some(half), ..*self };
        self.half.is_none().then(|| InHalves { op: Arc::new(op), inputs, narrows: true })
    }
}

#[derive(Clone, Copy)]
struct PlainRule(SgdSettings);

impl Rule<0, 2> for PlainRule {
    /// `-lr` and `weight_decay`.
    type Step<T: Float> = [T; 2];

    #[inline(always)]
    fn step<T: Float>(self, [lr, decay]: [f64; 2], _: f64) -> [T; 2] {
        [T::from_f64(-lr), T::from_f64(decay)]
    }

    #[inline(always)]
    fn update<T: Float, S: Simd>(
        self,
        &[size, decay]: &[T; 2],
        p: T::Lanes<S>,
        g: T::Lanes<S>,
        states: [T::Lanes<S>; 0],
    ) -> (T::Lanes<S>, [T::Lanes<S>; 0]) {
        let g = decayed::<T, S>(self.0.maximize, decay, p, g);
        (g.mul_add(T::Lanes::<S>::splat(size), p), states)
    }
}

#[derive(Clone, Copy)]
struct MomentumRule(SgdSettings);

/// A step's numbers.
#[derive(Clone, Copy, Default)]
struct MomentumStep<T> {
    /// `-lr`
    size: T,
    decay: T,
    momentum: T,
    /// `1 - dampening`
    new: T,
    is_first: bool,
}

impl Rule<1, 4> for MomentumRule {
    type Step<T: Float> = MomentumStep<T>;

    #[inline(always)]
    fn step<T: Float>(
        self,
        [lr, decay, momentum, dampening]: [f64; 4],
        step: f64,
    ) -> MomentumStep<T> {
        MomentumStep {
            size: T::from_f64(-lr),
            decay: T::from_f64(decay),
            momentum: T::from_f64(momentum),
            new: T::from_f64(1.0 - dampening),
            is_first: step == 1.0,
        }
    }

    #[inline(always)]
    fn update<T: Float, S: Simd>(
        self,
        step: &MomentumStep<T>,
        p: T::Lanes<S>,
        g: T::Lanes<S>,
        [b]: [T::Lanes<S>; 1],
    ) -> (T::Lanes<S>, [T::Lanes<S>; 1]) {
        let all = |x: T| T::Lanes::<S>::splat(x);
        let g = decayed::<T, S>(self.0.maximize, step.decay, p, g);
        let momentum = all(step.momentum);
        let b = if step.is_first { g } else { g.mul_add(all(step.new), b.mul(momentum)) };
        let direction = if self.0.nesterov { b.mul_add(momentum, g) } else { b };
        (direction.mul_add(all(step.size), p), [b])
    }
}
