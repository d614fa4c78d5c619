//! [`train_step_accumulated`]: one training step on a batch that is run in parts.

use bevy_ecs::prelude::*;
use ndarray::Array1;
use neurarch_components::losses::{Loss, Reduction};
use neurarch_kernels::ir::dtype::{Dtype, Element, bf16, f16};

use super::backward::choose_losses;
use super::check::{check_array, check_targets, models};
use super::{backward_scaled, forward, loss, step, zero_grad};
use crate::compile::array::{Called, Input};
use crate::errors::StepError;
use crate::execute::cohort::Cohort;
use crate::execute::run::{Run, with_run};

/// Makes one training step on a batch in `micro_batches` parts, one after the other: the gradients of all parts are
/// summed, then the optimizers update once. Only the activations of one part are in memory at a time.
///
/// The batch is cut along the first axis of each model's arrays, as `torch.Tensor.chunk` cuts it: into parts of one size,
/// but for the last one, and fewer parts if there are not enough items. The result is that of
/// [`train_step`](super::train_step) on the whole batch within rounding, where the loss is a mean over the items or their
/// sum ([`Loss::reduction`]): a part counts by its share of the items, or whole.
///
/// As in torch, this is not so
/// * of a mean over weighted items: with class weights, or targets that are ignored, each part is divided by its own
///   weight, and counts by its share of the items nonetheless. `Reduction::Sum` has no such divisor;
/// * of a `BatchNorm` in training mode, which sees one part at a time, and moves its running statistics once for each;
/// * of dropout, which draws new numbers for each part.
///
/// It makes the calls of the loop, to the same bits: [`zero_grad`](super::zero_grad), then for each part
/// [`forward`](super::forward()), [`loss`](super::loss()) and [`backward_scaled`](super::backward_scaled()), and
/// [`step`](super::step()) in the end. So hooks are called for each part, and parameters have the gradient of the whole
/// batch after it. A loop of one's own may clip the gradients before the step.
///
/// # Shape
///
/// `x` and `targets` are `[models, batch, ..]` or shared; the result is `[models]`, each model's loss of the whole batch.
///
/// # Errors
///
/// As [`train_step`](super::train_step), and if there are no micro-batches, or `x` and `targets` are not of as many
/// items. Nothing is changed then. If a hook or a kernel fails in the middle, running statistics and gradients are what the
/// parts before it made of them; parameters are as they were.
///
/// # Example
///
/// ```
/// # use bevy_ecs::prelude::*;
/// # use neurarch_components::layers::Linear;
/// # use neurarch_components::losses::MSELoss;
/// # use neurarch_components::optimizer::SGD;
/// # use neurarch_kernels::ir::dtype::Dtype;
/// # use neurarch_systems::execute::step::train_step_accumulated;
/// # use neurarch_systems::optim::insert::insert_with;
/// # use neurarch_systems::structure::spawn::spawn_population;
/// # let mut world = World::new();
/// let brains = spawn_population(&mut world, &Linear::new(3, 2), 10, 10, 0, Dtype::F32)?;
/// insert_with(&mut world, brains, |_| SGD { lr: 0.1, ..SGD::default() })?;
/// let (x, y) = (ndarray::Array3::<f32>::ones((10, 512, 3)), ndarray::Array3::<f32>::ones((10, 512, 2)));
/// let losses = train_step_accumulated(&mut world, brains, &x, &y, &MSELoss::default(), 16)?; // 16 times 32 items
/// assert_eq!(losses.len(), 10);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Source: the loop of `(loss / n).backward()` and one `optimizer.step()`; `accumulate_grad_batches` of Lightning.
pub fn train_step_accumulated<'a, 'b, X: Element, Y: Element>(
    world: &mut World,
    population: Entity,
    x: impl Into<Input<'a, X>>,
    targets: impl Into<Input<'b, Y>>,
    loss: &impl Loss,
    micro_batches: usize,
) -> Result<Array1<X::Float>, StepError> {
    let arrays = (x.into(), targets.into());
    let parts = MicroBatches::new(world, population, arrays, loss, micro_batches)?;
    zero_grad(world, population, true)?;
    let losses = parts.accumulate(world, |_| Ok::<_, StepError>(()))?;
    step(world, population)?;
    Ok(losses)
}

/// A batch in parts that fit the models.
pub(crate) struct MicroBatches<'a, 'b, 'l, X: Element, Y: Element, L> {
    population: Entity,
    x: Input<'a, X>,
    targets: Input<'b, Y>,
    loss: &'l L,
    items: usize,
    /// Items of each part but the last.
    size: usize,
}

impl<'a, 'b, 'l, X: Element, Y: Element, L: Loss> MicroBatches<'a, 'b, 'l, X, Y, L> {
    /// Cuts a batch, and checks all that can be known before anything runs.
    pub(crate) fn new(
        world: &mut World,
        population: Entity,
        (x, targets): (Input<'a, X>, Input<'b, Y>),
        loss: &'l L,
        micro_batches: usize,
    ) -> Result<Self, StepError> {
        let refuse = |reason: String| Err(StepError::MicroBatches(reason));
        if micro_batches == 0 {
            return refuse("expected at least 1, got 0".into());
        }
        let (Some(&items), Some(&of_targets)) = (x.shape().first(), targets.shape().first()) else {
            return refuse("expected x and targets with an axis of items, got none".into());
        };
        if items != of_targets {
            return refuse(format!(
                "expected as many targets as items ({items}), got {of_targets}"
            ));
        }
        let size = items.div_ceil(micro_batches).max(1);
        let parts = MicroBatches { population, x, targets, loss, items, size };
        let mut sizes = [size.min(items), items % size];
        if sizes[1] == 0 {
            sizes[1] = sizes[0];
        }
        for items in &sizes[..if sizes[0] == sizes[1] { 1 } else { 2 }] {
            parts.check(world, *items)?;
        }
        Ok(parts)
    }

    /// Finds the plans of parts of so many items, which are none if a module or the loss cannot take them.
    fn check(&self, world: &mut World, items: usize) -> Result<(), StepError> {
        let (x, part) = (self.x.items(0..items), self.targets.items(0..items));
        // All of them, so that each class index is looked at.
        let targets = self.targets.erase();
        with_run(world, self.population, |world, run| {
            check_array(run.models, "targets", targets)?;
            let called = Called { arrays: &[x.erase()], structure: None, entry: None };
            forward::prepare(world, run, self.population, &called)?;
            run.begin_step(world, self.population)?;
            let keeps_tape = |cohort: &Cohort| cohort.keeps_tape || cohort.is_watched;
            if !run.keeps_gradients || !run.cohorts.list.iter().any(keeps_tape) {
                return Err(StepError::NoForward("backward"));
            }
            let Some(results) = run.planned_results().cloned() else { return Ok(()) };
            let given = results.types.len();
            let y = results.only().ok_or(StepError::Results { expected: 1, given })?;
            let Run { cohorts, chosen, .. } = run;
            choose_losses(world, cohorts, chosen, y, (self.loss, part.erase().ty()))?;
            check_targets(self.loss.targets(y), targets, targets.shape.iter().product())?;
            let ready = cohorts.list.iter().zip(&*chosen);
            let mut ready = ready.filter_map(|(cohort, route)| route.ready(&cohort.ready));
            match ready.any(|ready| ready.planned.outputs[0].shape.rank() > 0) {
                true => Err(StepError::NotScalar),
                false => Ok(()),
            }
        })
    }

    /// Runs part after part, and sums their gradients and losses. `scale` is called before each part goes back from its
    /// loss.
    pub(crate) fn accumulate<E: From<StepError>>(
        &self,
        world: &mut World,
        mut scale: impl FnMut(&mut World) -> Result<(), E>,
    ) -> Result<Array1<X::Float>, E> {
        let MicroBatches { population, ref x, ref targets, loss: of, items, size } = *self;
        let mut losses = vec![0.0; models(world, population)?];
        let mut start = 0;
        loop {
            let part = start..items.min(start + size);
            let share = match of.reduction() {
                Reduction::Mean if items > 0 => part.len() as f64 / items as f64,
                _ => 1.0,
            };
            forward(world, population, x.items(part.clone()))?;
            let of_part = loss::<X::Float, Y>(world, population, targets.items(part.clone()), of)?;
            for (sum, loss) in losses.iter_mut().zip(to_f64(&of_part.into_raw_vec_and_offset().0)) {
                *sum += share * loss;
            }
            scale(world)?;
            backward_scaled(world, population, share)?;
            start = part.end;
            if start >= items {
                return Ok(of_f64(&losses).into());
            }
        }
    }
}

/// Widens floating numbers.
fn to_f64<T: Element>(numbers: &[T]) -> Vec<f64> {
    let bytes = bytemuck::cast_slice(numbers);
    match T::DTYPE {
        Dtype::F64 => widened::<f64>(bytes),
        Dtype::F16 => widened::<f16>(bytes),
        Dtype::BF16 => widened::<bf16>(bytes),
        Dtype::F32 | Dtype::I64 | Dtype::Bool => widened::<f32>(bytes),
    }
}

fn widened<T: bytemuck::Pod + Into<f64>>(bytes: &[u8]) -> Vec<f64> {
    bytemuck::cast_slice::<u8, T>(bytes).iter().map(|&number| number.into()).collect()
}

/// Rounds numbers to a floating type.
fn of_f64<T: Element>(numbers: &[f64]) -> Vec<T> {
    let numbers = numbers.iter().copied();
    match T::DTYPE {
        Dtype::F64 => bytemuck::pod_collect_to_vec(&numbers.collect::<Vec<_>>()),
        Dtype::F16 => bytemuck::pod_collect_to_vec(&numbers.map(f16::from_f64).collect::<Vec<_>>()),
        Dtype::BF16 => {
            bytemuck::pod_collect_to_vec(&numbers.map(bf16::from_f64).collect::<Vec<_>>())
        }
        Dtype::F32 | Dtype::I64 | Dtype::Bool => {
            bytemuck::pod_collect_to_vec(&numbers.map(|number| number as f32).collect::<Vec<_>>())
        }
    }
}
