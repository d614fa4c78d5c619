//! What the second gradient of cross entropy needs beside softmax: how much each item weighs.

use core::marker::PhantomData;

use super::{CrossEntropyGradient, Settings, class_axis};
use crate::cpu::kernel::{Cpu, Kernel};
use crate::cpu::sum::sum_of;
use crate::cpu::tile::Tile;
use crate::ir::dtype::Dtype;
use crate::ir::op::{Ask, GradientAt, Op, OpError};
use crate::ir::shape::{Shape, Type};
use crate::ir::trace::Var;
use crate::ops::elementwise::number::Number;
use crate::ops::reduction::lines::{carve, scratch_bytes};
use crate::ops::reduction::reduce::Reduction;

/// For each item `∂loss · ((1 - ε) w_t + ε/C Σ w)`, divided by the sum of `w_t` for `mean`: what its `p` is
/// multiplied by in the gradient of the logits. 0 for an ignored item. Inputs as for [`CrossEntropyGradient`].
#[derive(Clone, Copy, Debug)]
struct CrossEntropyScale(Settings);

impl Settings {
    /// Records the gradients of the inputs of [`CrossEntropyGradient`], given that of its output.
    pub(super) fn second_gradient(self, at: &GradientAt<'_>) -> Vec<Option<Var>> {
        let mut gradients = vec![None; at.inputs.len()];
        let Some(g) = &at.gradients[0] else { return gradients };
        let (logits, of_loss) = (&at.inputs[0], self.n_inputs());
        let axis = class_axis(logits.shape());
        let inputs: Vec<_> = at.inputs.iter().collect();
        let sum = |x: Var| x.sum(&[axis as isize], true);
        gradients[0] = at.needs[0].then(|| {
            let p = logits.softmax(axis as isize);
            let scale = g.trace().apply(CrossEntropyScale(self), &inputs);
            let g = g * scale.reshape(with_one(logits.shape(), axis));
            &p * (&g - sum(&g * &p))
        });
        gradients[of_loss] = at.needs[of_loss].then(|| {
            let unit = self.for_unit_loss(at.inputs);
            let unit = g.trace().apply(CrossEntropyGradient(self), &unit.each());
            self.reduce(&(g * unit), &[axis as isize])
        });
        gradients
    }

    /// Gives inputs with a gradient of the loss of 1.
    fn for_unit_loss(self, inputs: &[Var]) -> UnitLoss<'_> {
        let dloss = &inputs[self.n_inputs()];
        let one = dloss.trace().constant(1.0, dloss.dtype(), dloss.shape().clone());
        UnitLoss { inputs: &inputs[..self.n_inputs()], one }
    }

    /// Adds up over `axes` if each item has a loss of its own, over all otherwise.
    fn reduce(self, x: &Var, axes: &[isize]) -> Var {
        match self.reduction {
            Reduction::None if axes.is_empty() => x.clone(),
            Reduction::None => x.sum(axes, false),
            Reduction::Mean | Reduction::Sum => x.sum(&[], false),
        }
    }
}

/// Inputs of [`CrossEntropyGradient`], the last one replaced.
struct UnitLoss<'a> {
    inputs: &'a [Var],
    one: Var,
}

impl UnitLoss<'_> {
    fn each(&self) -> Vec<&Var> {
        self.inputs.iter().chain([&self.one]).collect()
    }
}

fn with_one(shape: &Shape, axis: usize) -> Shape {
    (0..shape.rank()).map(|other| if other == axis { 1 } else { shape[other] }).collect()
}

impl Op for CrossEntropyScale {
    fn name(&self) -> &'static str {
        "cross_entropy_scale"
    }

    fn attributes(&self) -> String {
        self.0.attributes()
    }

    fn outputs(&self, inputs: &[Type]) -> Result<Vec<Type>, OpError> {
        let gradient = CrossEntropyGradient(self.0).outputs(inputs)?;
        Ok(vec![Type { shape: inputs[1].shape.clone(), ..gradient[0].clone() }])
    }

    fn takes_any_layout(&self, input: usize) -> bool {
        // The logits are not read.
        input == 0
    }

    fn kernels(&self, ask: &mut Ask<'_>) {
        ask.give::<Cpu>(|inputs, _| {
            let (settings, items) = (self.0, inputs[1].ty.shape.numel());
            let classes = inputs[0].ty.shape[class_axis(&inputs[0].ty.shape)];
            match inputs[0].ty.dtype {
                Dtype::F64 => Box::new(ScaleKernel::<f64>(settings, items, classes, PhantomData)),
                _ => Box::new(ScaleKernel::<f32>(settings, items, classes, PhantomData)),
            }
        });
    }

    fn gradient(&self, at: &GradientAt<'_>) -> Vec<Option<Var>> {
        let mut gradients = vec![None; at.inputs.len()];
        let of_loss = self.0.n_inputs();
        gradients[0] = at.zero(0);
        gradients[of_loss] = at.gradients[0].as_ref().filter(|_| at.needs[of_loss]).map(|g| {
            let unit = self.0.for_unit_loss(at.inputs);
            self.0.reduce(&(g * g.trace().apply(*self, &unit.each())), &[])
        });
        gradients
    }
}

/// The kernel for so many items and classes.
struct ScaleKernel<T>(Settings, usize, usize, PhantomData<T>);

impl<T: Number> Kernel for ScaleKernel<T> {
    fn run(&self, tile: &mut Tile<'_>) {
        let ScaleKernel(settings, items, classes, _) = *self;
        let one = T::from_f64(1.0);
        for model in 0..tile.models() {
            let (inputs, mut outputs, scratch) = tile.model(model).split();
            let (targets, smoothing) = (inputs.get::<i64>(1), inputs.get::<T>(2)[0]);
            let class_weights = settings.has_weight.then(|| inputs.get::<T>(3));
            let dloss = inputs.get::<T>(settings.n_inputs());
            let scales = outputs.take::<T>();
            let [weights] = carve::<T, 1>(scratch, [items]);
            for (weight, &target) in weights.iter_mut().zip(targets) {
                *weight = if target == settings.ignore_index {
                    T::default()
                } else {
                    class_weights.map_or(one, |all| {
                        let class = usize::try_from(target).unwrap_or(usize::MAX);
                        all.get(class).copied().unwrap_or(T::from_f64(f64::NAN))
                    })
                };
            }
            let all_weights = class_weights
                .map_or(T::from_f64(classes as f64), |all| sum_of(all, |weight| weight));
            let share = smoothing / T::from_f64(classes as f64) * all_weights;
            let total = match settings.reduction {
                Reduction::Mean => sum_of(weights, |weight| weight),
                Reduction::None | Reduction::Sum => one,
            };
            let each = scales.iter_mut().zip(weights.iter().zip(targets));
            for (item, (scale, (weight, target))) in each.enumerate() {
                let dloss =
                    if settings.reduction == Reduction::None { dloss[item] } else { dloss[0] };
                let of_item = (one - smoothing) * *weight + share;
                let is_ignored = *target == settings.ignore_index;
                *scale = if is_ignored { T::default() } else { dloss / total * of_item };
            }
        }
    }

    fn scratch_bytes(&self) -> usize {
        scratch_bytes::<T>(&[self.1])
    }
}
