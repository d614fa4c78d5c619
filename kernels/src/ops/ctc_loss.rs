//! Connectionist temporal classification: minus the logarithm of the probability of a sequence of labels,
//! summed over all ways to stretch it over the frames.
//!
//! The recursions are those of Graves et al. (2006), as in torch, in double precision. Lengths and labels that
//! do not fit make an item's loss NaN, where torch raises. The gradient is torch's: that of logits, for it
//! takes the inputs to be logarithms of softmax, `exp(x) - posterior`.
//!
//! Source: `torch.nn.functional.ctc_loss`.

use core::marker::PhantomData;

use crate::arithmetic::elementary;
use crate::cpu::kernel::{Cpu, Kernel};
use crate::cpu::tile::Tile;
use crate::ir::dtype::Dtype;
use crate::ir::op::{Ask, GradientAt, Op, OpError};
use crate::ir::shape::{Operand, Shape, Type};
use crate::ir::trace::{Function, Var};
use crate::ops::elementwise::number::Number;
use crate::ops::elementwise::pointwise::computes;
use crate::ops::reduction::lines::{carve, scratch_bytes};
use crate::ops::reduction::reduce::Reduction;

/// What both ops know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Settings {
    blank: usize,
    zero_infinity: bool,
}

/// The loss of each item; inputs logarithms of probabilities `[frames, items, classes]`, targets `[items,
/// labels]` or `[labels of all]`, and the lengths of both, `[items]`.
#[derive(Clone, Copy, Debug)]
struct CtcLoss(Settings);

/// The gradient of the logarithms; inputs those of [`CtcLoss`] and the gradient of the losses.
#[derive(Clone, Copy, Debug)]
struct CtcGradient(Settings);

impl Settings {
    fn attributes(self) -> String {
        format!("blank={} zero_infinity={}", self.blank, self.zero_infinity)
    }

    /// Checks the inputs and gives the type of the losses.
    fn loss_type(self, inputs: &[Type]) -> Result<Type, OpError> {
        let [log_probs, targets, input_lengths, target_lengths, ..] = inputs else {
            return Err(OpError(format!("ctc_loss: expected 4 inputs, got {}", inputs.len())));
        };
        computes("ctc_loss", log_probs)?;
        let [_, items, classes] = *log_probs.shape else {
            return Err(OpError(format!(
                "log_probs must be 2D or 3D (given {}D)",
                log_probs.shape.rank()
            )));
        };
        if self.blank >= classes {
            return Err(OpError("blank must be in label range".into()));
        }
        for (name, lengths) in
            [("input_lengths", input_lengths), ("target_lengths", target_lengths)]
        {
            if *lengths.shape != [items] {
                return Err(OpError(format!("{name} must be of size batch_size")));
            }
            if lengths.dtype != Dtype::I64 {
                return Err(OpError(format!("{name} must be integral")));
            }
        }
        let fits = match targets.shape.rank() {
            1 => true,
            2 => targets.shape[0] == items,
            _ => false,
        };
        if !fits || targets.dtype != Dtype::I64 {
            return Err(OpError(format!(
                "Expected targets of i64 with size [{items}, labels] or [labels], got {targets}"
            )));
        }
        Ok(Type::new(log_probs.dtype, [items]))
    }

    fn kernel(self, inputs: &[Operand], is_gradient: bool) -> Box<dyn Kernel> {
        let (shape, targets) = (&inputs[0].ty.shape, &inputs[1].ty.shape);
        let sizes = Sizes {
            frames: shape[0],
            items: shape[1],
            classes: shape[2],
            labels: targets[targets.rank() - 1],
            padded: targets.rank() == 2,
        };
        match inputs[0].ty.dtype {
            Dtype::F64 => {
                Box::new(CtcKernel::<f64> { of: self, sizes, is_gradient, number: PhantomData })
            }
            _ => Box::new(CtcKernel::<f32> { of: self, sizes, is_gradient, number: PhantomData }),
        }
    }
}

impl Op for CtcLoss {
    fn name(&self) -> &'static str {
        "ctc_loss"
    }

    fn attributes(&self) -> String {
        self.0.attributes()
    }

    fn outputs(&self, inputs: &[Type]) -> Result<Vec<Type>, OpError> {
        Ok(vec![self.0.loss_type(inputs)?])
    }

    fn cost(&self, inputs: &[Type], _: &[Type]) -> usize {
        40 * inputs[0].shape[0] * (2 * inputs[1].shape.numel() + inputs[0].shape[1])
    }

    fn kernels(&self, ask: &mut Ask<'_>) {
        ask.give::<Cpu>(|inputs, _| self.0.kernel(inputs, false));
    }

    fn gradient(&self, at: &GradientAt<'_>) -> Vec<Option<Var>> {
        let gradient = at.gradients[0].as_ref().map(|dy| {
            let inputs: Vec<_> = at.inputs.iter().chain([dy]).collect();
            dy.trace().apply(CtcGradient(self.0), &inputs)
        });
        vec![gradient, None, None, None]
    }
}

impl Op for CtcGradient {
    fn name(&self) -> &'static str {
        "ctc_loss_gradient"
    }

    fn attributes(&self) -> String {
        self.0.attributes()
    }

    fn outputs(&self, inputs: &[Type]) -> Result<Vec<Type>, OpError> {
        let loss = self.0.loss_type(inputs)?;
        match inputs.get(4) {
            Some(dy) if *dy == loss => Ok(vec![inputs[0].clone()]),
            _ => Err(OpError(format!("ctc_loss_gradient: expected a gradient of {loss}"))),
        }
    }

    fn cost(&self, inputs: &[Type], _: &[Type]) -> usize {
        2 * CtcLoss(self.0).cost(inputs, &[]) + 40 * inputs[0].shape.numel()
    }

    fn kernels(&self, ask: &mut Ask<'_>) {
        ask.give::<Cpu>(|inputs, _| self.0.kernel(inputs, true));
    }
}

/// The sizes of the inputs.
#[derive(Clone, Copy, Debug)]
struct Sizes {
    frames: usize,
    items: usize,
    classes: usize,
    /// Labels of each item, or of all.
    labels: usize,
    /// Whether each item has labels of its own, with others behind them.
    padded: bool,
}

struct CtcKernel<T> {
    of: Settings,
    sizes: Sizes,
    is_gradient: bool,
    number: PhantomData<T>,
}

/// One item: its frames, and its labels with blanks before, between and behind them.
struct Item<'a, T> {
    log_probs: &'a [T],
    labels: &'a [i64],
    /// Frames that count.
    frames: usize,
    blank: usize,
    /// Where the item's classes start in a frame.
    start: usize,
    /// Numbers of a frame.
    stride: usize,
}

impl<T: Number> Item<'_, T> {
    /// Counts the states: labels and blanks.
    fn states(&self) -> usize {
        2 * self.labels.len() + 1
    }

    /// Gives the class of a state.
    fn class(&self, state: usize) -> usize {
        if state.is_multiple_of(2) { self.blank } else { self.labels[state / 2] as usize }
    }

    fn log_prob(&self, frame: usize, class: usize) -> f64 {
        self.log_probs[frame * self.stride + self.start + class].into()
    }

    /// Fills the logarithms of the probabilities to be in each state at each frame, having begun in the first
    /// or second, and gives the loss.
    fn forward(&self, alpha: &mut [f64]) -> f64 {
        let states = self.states();
        if self.frames == 0 {
            return if self.labels.is_empty() { 0.0 } else { f64::INFINITY };
        }
        alpha[..states].fill(f64::NEG_INFINITY);
        for (state, alpha) in alpha[..states.min(2)].iter_mut().enumerate() {
            *alpha = self.log_prob(0, self.class(state));
        }
        for frame in 1..self.frames {
            let (before, now) = alpha[(frame - 1) * states..].split_at_mut(states);
            for state in 0..states {
                let class = self.class(state);
                let step = state.checked_sub(1).map_or(f64::NEG_INFINITY, |from| before[from]);
                let skip = state.checked_sub(2).filter(|&from| self.class(from) != class);
                let skip = skip.map_or(f64::NEG_INFINITY, |from| before[from]);
                now[state] = log_sum([before[state], step, skip]) + self.log_prob(frame, class);
            }
        }
        let last = &alpha[(self.frames - 1) * states..][..states];
        let before_blank = if states > 1 { last[states - 2] } else { f64::NEG_INFINITY };
        -log_sum([last[states - 1], before_blank, f64::NEG_INFINITY])
    }

    /// Fills `posterior`, at each frame from the last on, with the logarithms of the probabilities of all that
    /// passes through each class, and gives them to `each`.
    fn backward(
        &self,
        alpha: &[f64],
        [beta, next, posterior]: [&mut [f64]; 3],
        mut each: impl FnMut(usize, &[f64]),
    ) {
        let states = self.states();
        let (mut beta, mut next) = (&mut beta[..states], &mut next[..states]);
        for frame in (0..self.frames).rev() {
            posterior.fill(f64::NEG_INFINITY);
            for state in 0..states {
                let class = self.class(state);
                let ways = if frame + 1 == self.frames {
                    if state + 2 >= states { 0.0 } else { f64::NEG_INFINITY }
                } else {
                    let step = next.get(state + 1).copied().unwrap_or(f64::NEG_INFINITY);
                    let skip = next.get(state + 2).filter(|_| self.class(state + 2) != class);
                    let skip = skip.copied().unwrap_or(f64::NEG_INFINITY);
                    log_sum([next[state], step, skip])
                };
                beta[state] = ways + self.log_prob(frame, class);
                let through = alpha[frame * states + state] + beta[state];
                posterior[class] = log_sum([posterior[class], through, f64::NEG_INFINITY]);
            }
            each(frame, posterior);
            core::mem::swap(&mut beta, &mut next);
        }
    }
}

/// `ln Σ exp`; minus infinity if all are.
fn log_sum(terms: [f64; 3]) -> f64 {
    let most = terms.into_iter().fold(f64::NEG_INFINITY, f64::max);
    let most = if most == f64::NEG_INFINITY { 0.0 } else { most };
    elementary::ln(terms.into_iter().map(|term| elementary::exp(term - most)).sum()) + most
}

impl<T: Number> CtcKernel<T> {
    /// Gives the elements of scratch memory: `alpha`, two lines of `beta`, and one of classes.
    fn scratch(&self) -> [usize; 4] {
        let states = 2 * self.sizes.labels + 1;
        let [beta, classes] = if self.is_gradient { [states, self.sizes.classes] } else { [0; 2] };
        [self.sizes.frames.max(1) * states, beta, beta, classes]
    }

    /// Finds an item whose labels begin at `first`; `None` if something does not fit.
    fn item<'a>(
        &self,
        number: usize,
        first: usize,
        log_probs: &'a [T],
        targets: &'a [i64],
        [frames, labels]: [i64; 2],
    ) -> Option<Item<'a, T>> {
        let Sizes { items, classes, padded, labels: most, .. } = self.sizes;
        let frames = usize::try_from(frames).ok().filter(|&frames| frames <= self.sizes.frames)?;
        let labels = usize::try_from(labels).ok()?;
        let first = if padded { number * most } else { first };
        let of_item =
            if padded { targets.get(first..first + most)? } else { targets.get(first..)? };
        let labels = of_item.get(..labels)?;
        let is_class = |label: &i64| usize::try_from(*label).is_ok_and(|label| label < classes);
        labels.iter().all(is_class).then_some(Item {
            log_probs,
            labels,
            frames,
            blank: self.of.blank,
            start: number * classes,
            stride: items * classes,
        })
    }
}

impl<T: Number> Kernel for CtcKernel<T> {
    fn run(&self, tile: &mut Tile<'_>) {
        let Sizes { frames, items, classes, .. } = self.sizes;
        for model in 0..tile.models() {
            let (inputs, mut outputs, scratch) = tile.model(model).split();
            let (log_probs, targets) = (inputs.get::<T>(0), inputs.get::<i64>(1));
            let lengths = [inputs.get::<i64>(2), inputs.get::<i64>(3)];
            let output = outputs.take::<T>();
            let [alpha, beta, next, posterior] = carve::<f64, 4>(scratch, self.scratch());
            let mut first = 0;
            for number in 0..items {
                let lengths = lengths.map(|lengths| lengths[number]);
                let item = self.item(number, first, log_probs, targets, lengths);
                first = first.saturating_add(usize::try_from(lengths[1]).unwrap_or(0));
                let loss = item.as_ref().map_or(f64::NAN, |item| item.forward(alpha));
                if !self.is_gradient {
                    output[number] = T::from_f64(loss);
                    continue;
                }
                let dy: f64 = inputs.get::<T>(4)[number].into();
                for frame in 0..frames {
                    let of_frame = &mut output[(frame * items + number) * classes..][..classes];
                    let fill = if item.is_some() { 0.0 } else { f64::NAN };
                    of_frame.fill(T::from_f64(fill));
                }
                let is_dropped = self.of.zero_infinity && loss == f64::INFINITY;
                let Some(item) = item.filter(|_| !is_dropped) else { continue };
                item.backward(
                    alpha,
                    [&mut *beta, &mut *next, &mut *posterior],
                    |frame, through| {
                        let of_frame = &mut output[(frame * items + number) * classes..][..classes];
                        for (class, (dx, through)) in of_frame.iter_mut().zip(through).enumerate() {
                            let log_prob = item.log_prob(frame, class);
                            let share = elementary::exp(through + loss - log_prob);
                            *dx = T::from_f64((elementary::exp(log_prob) - share) * dy);
                        }
                    },
                );
            }
        }
    }

    fn scratch_bytes(&self) -> usize {
        scratch_bytes::<f64>(&self.scratch())
    }
}

impl Var {
    /// Gives minus the logarithm of the probability of each item's labels under these logarithms of
    /// probabilities, reduced. The mean is that of losses divided by their numbers of labels. With
    /// `zero_infinity` an item whose labels do not fit into its frames has loss and gradient 0.
    ///
    /// # Shape
    ///
    /// `self` is `[frames, items, classes]`, `targets` is `[items, labels]` or `[labels of all]`, both lengths
    /// are `[items]`; for one item `[frames, classes]`, `[labels]` and `[]`. All but `self` are of i64. The
    /// loss is `[]`, or as the lengths if `reduction` is [`Reduction::None`].
    ///
    /// Source: `torch.nn.functional.ctc_loss`, whose gradient takes the inputs to be `log_softmax` of logits.
    #[must_use]
    pub fn ctc_loss(
        &self,
        targets: &Var,
        input_lengths: &Var,
        target_lengths: &Var,
        blank: usize,
        reduction: Reduction,
        zero_infinity: bool,
    ) -> Var {
        self.trace().function(
            Function::new("ctc_loss"),
            &[Some(self), Some(targets), Some(input_lengths), Some(target_lengths)],
            |cast| {
                cast(self).plain_ctc_loss(
                    &cast(targets),
                    &cast(input_lengths),
                    &cast(target_lengths),
                    blank,
                    reduction,
                    zero_infinity,
                )
            },
        )
    }

    fn plain_ctc_loss(
        &self,
        targets: &Var,
        input_lengths: &Var,
        target_lengths: &Var,
        blank: usize,
        reduction: Reduction,
        zero_infinity: bool,
    ) -> Var {
        if [self, targets, input_lengths, target_lengths].iter().any(|x| x.id().is_none()) {
            return self.trace().poison();
        }
        let is_single = self.shape().rank() == 2;
        let (log_probs, targets) = match is_single {
            true => {
                let [frames, classes] = [self.shape()[0], self.shape()[1]];
                let labels: Shape =
                    [1].into_iter().chain(targets.shape().iter().copied()).collect();
                (self.reshape([frames, 1, classes]), targets.reshape(labels))
            }
            false => (self.clone(), targets.clone()),
        };
        let flat = |lengths: &Var| {
            if lengths.shape().rank() == 0 { lengths.reshape([1]) } else { lengths.clone() }
        };
        let (input_lengths, target_lengths) = (flat(input_lengths), flat(target_lengths));
        let inputs = [&log_probs, &targets, &input_lengths, &target_lengths];
        let mut losses = self.trace().apply(CtcLoss(Settings { blank, zero_infinity }), &inputs);
        if zero_infinity {
            let is_infinite = losses.eq(&self.number(f64::INFINITY));
            losses = is_infinite.where_(&self.number(0.0), &losses);
        }
        match reduction {
            Reduction::None if is_single => losses.reshape([]),
            Reduction::Mean => {
                let lengths = target_lengths.to(self.dtype()).clamp_min(&self.number(1.0));
                (losses / lengths).mean(&[], false)
            }
            _ => reduction.apply(losses),
        }
    }
}
