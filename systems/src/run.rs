//! [`Run`]: what a population keeps from one call to the next: cohorts, the tape, memory to use again.

use bevy_ecs::prelude::*;
use neurarch_components::losses::DynLoss;
use neurarch_components::mode::Mode;
use neurarch_kernels::cpu::memory::AlignedBytes;
use neurarch_kernels::dtype::Dtype;
use neurarch_kernels::program::{Role, Slot};
use neurarch_kernels::shape::Type;

use crate::access;
use crate::array::Erased;
use crate::cohort::{self, Cohorts};
use crate::eager::Recorded;
use crate::hooks::Shared;
use crate::launch::{Buffers, Members, Read};
use crate::step::StepError;

/// What a population keeps from one call to the next; a component of its entity.
#[derive(Component, Default)]
pub(crate) struct Kept(Option<Box<Run>>);

/// See [`Kept`].
#[derive(Default)]
pub(crate) struct Run {
    pub(crate) cohorts: Cohorts,
    pub(crate) buffers: Buffers,
    pub(crate) tape: Tape,
    pub(crate) loss: LossArrays,
    /// The places in [`Cohort::ready`] of the plans of this call, cohort after cohort; [`EAGER`] for those
    /// that run eagerly.
    pub(crate) chosen: Vec<usize>,
    /// For each cohort that ran forward eagerly, its record.
    pub(crate) recorded: Vec<Option<Recorded>>,
    /// The hooks of all models, if there are any.
    pub(crate) shared: Option<Shared>,
}

/// The place of no plan: the cohort runs eagerly, or not at all.
pub(crate) const EAGER: usize = usize::MAX;

/// Takes the run out of the world, so that both can be used, regroups its cohorts if need be, and puts
/// it back.
pub(crate) fn with_run<R>(
    world: &mut World,
    population: Entity,
    work: impl FnOnce(&mut World, &mut Run) -> Result<R, StepError>,
) -> Result<R, StepError> {
    cohort::population(world, population)?;
    let kept = world.get_mut::<Kept>(population).and_then(|mut kept| kept.0.take());
    let mut run = kept.unwrap_or_default();
    let result = run.refresh(world, population).and_then(|()| work(world, &mut run));
    if let Some(mut kept) = world.get_mut::<Kept>(population) {
        kept.0 = Some(run);
    } else if let Ok(mut population) = world.get_entity_mut(population) {
        population.insert(Kept(Some(run)));
    }
    result
}

/// Says whether there was a loss since the last forward pass, and no backward pass since.
pub(crate) fn has_loss(world: &World, population: Entity) -> bool {
    let run = world.get::<Kept>(population).and_then(|kept| kept.0.as_ref());
    run.is_some_and(|run| run.tape.start == Start::Loss)
}

/// Gives the gradient of the last input, if a backward pass found it: its type, and a row for each model.
pub(crate) fn input_gradient(world: &World, population: Entity) -> Option<(&Type, &[u8])> {
    let run = world.get::<Kept>(population)?.0.as_ref()?;
    run.tape.dx.as_ref().map(|(ty, bytes)| (ty, bytes.as_slice()))
}

impl Run {
    /// Regroups the cohorts if need be, and finds out which of them run eagerly.
    pub(crate) fn refresh(
        &mut self,
        world: &mut World,
        population: Entity,
    ) -> Result<(), StepError> {
        self.cohorts.refresh(world, population)?;
        if self.cohorts.forget_hooks_that_are_gone(world, population)? {
            self.cohorts.refresh(world, population)?;
        }
        self.shared = Shared::of(world, population);
        for cohort in &mut self.cohorts.list {
            cohort.is_eager = self.shared.is_some() || cohort.scheme.mode.hooked;
        }
        Ok(())
    }

    /// Says whether some models have modules that become others when they are first called.
    pub(crate) fn has_lazy(&self) -> bool {
        self.cohorts.list.iter().any(|cohort| cohort.is_lazy)
    }

    /// Gives the type of the first output of the chosen plans, one a cohort; `None` if none is planned.
    pub(crate) fn first_output(&self) -> Option<&Type> {
        let mut planned = self.cohorts.list.iter().zip(&self.chosen);
        planned.find_map(|(cohort, &chosen)| cohort.ready.get(chosen)?.planned.outputs.first())
    }

    /// Adds the columns that the chosen plans need and that are not there yet, such as those of an
    /// optimizer that came; says whether there were any. Plans have to be chosen anew then.
    ///
    /// `of` gives the cohort that a place in [`chosen`](Run::chosen) is for.
    pub(crate) fn add_columns(
        &mut self,
        world: &mut World,
        population: Entity,
        of: impl Fn(usize) -> usize,
    ) -> Result<bool, StepError> {
        let mut added = false;
        for (number, &chosen) in self.chosen.iter().enumerate() {
            let cohort = &mut self.cohorts.list[of(number)];
            let group = cohort.at.group;
            let Some(ready) = cohort.ready.get_mut(chosen) else { continue };
            if !ready.has_columns {
                let slots = ready.planned.plan.program.slots.iter();
                let is_own = |slot: &&Slot| matches!(slot.role, Role::Parameter | Role::Buffer);
                let companions: Vec<_> = slots.filter(|slot| !is_own(slot)).cloned().collect();
                added |= access::add_columns(world, population, group, &companions);
                ready.has_columns = true;
            }
        }
        if added {
            self.refresh(world, population)?;
        }
        Ok(added)
    }

    /// Checks that the first outputs of the chosen plans, one a cohort, fit one array.
    pub(crate) fn check_first_outputs(&self) -> Result<(), StepError> {
        let Some(first) = self.first_output() else { return Ok(()) };
        for (cohort, &chosen) in self.cohorts.list.iter().zip(&self.chosen) {
            let Some(ready) = cohort.ready.get(chosen) else { continue };
            let own = &ready.planned.outputs[0];
            if own != first {
                let (expected, given) = (first.shape.clone(), own.shape.clone());
                return Err(StepError::Shape { array: "result", expected, given });
            }
        }
        Ok(())
    }
}

/// What the last forward pass left behind.
#[derive(Default)]
pub(crate) struct Tape {
    /// The type of `x` in the last pass that wrote the tape.
    x: Option<Type>,
    /// Whether there is something to go back from.
    is_written: bool,
    /// The type of `y`; `None` before the first pass.
    pub(crate) y: Option<Type>,
    /// Whose pass it was.
    of: Vec<(Members, Mode)>,
    /// Saved values, a row for each model of the population.
    pub(crate) saved: AlignedBytes,
    /// Bytes of a row.
    pub(crate) stride: usize,
    /// `y`, a row for each model.
    pub(crate) outputs: AlignedBytes,
    /// The gradient of `y`, a row for each model.
    pub(crate) gradient: AlignedBytes,
    /// What `gradient` holds.
    pub(crate) start: Start,
    /// The gradient of `x`, a row for each model, if the last backward pass found one that was asked for.
    pub(crate) dx: Option<(Type, Vec<u8>)>,
}

/// What a backward pass would start from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Start {
    /// There was no loss since the last forward pass.
    #[default]
    Nothing,
    /// The gradient of a loss of one number.
    Loss,
    /// None, since the loss was an array.
    LossArray,
}

impl Tape {
    /// Forgets what `backward` would need.
    pub(crate) fn forget(&mut self) {
        self.is_written = false;
        self.start = Start::Nothing;
        self.dx = None;
    }

    /// Remembers a forward pass of these cohorts that gave `y`, whose type is known already.
    pub(crate) fn remember(&mut self, x: Erased<'_>, y: &[u8], run: &Cohorts) {
        self.outputs.reserve(y.len());
        self.outputs.bytes_mut()[..y.len()].copy_from_slice(y);
        if !self.is_of(run) {
            let of = run.list.iter();
            self.of = of.map(|c| (c.at.members.clone(), c.scheme.mode.clone())).collect();
        }
        self.is_written = run.list.iter().any(|cohort| cohort.keeps_tape || cohort.is_eager);
        if self.is_written && !self.x.as_ref().is_some_and(|known| x.ty().is(known)) {
            self.x = Some(x.ty().to_type());
        }
    }

    /// Gives the type of `x` in the pass to go back from, if there is one.
    pub(crate) fn x(&self) -> Option<&Type> {
        self.x.as_ref().filter(|_| self.is_written)
    }

    /// Says whether the last forward pass was of these cohorts.
    pub(crate) fn is_of(&self, cohorts: &Cohorts) -> bool {
        self.of.len() == cohorts.list.len()
            && self.of.iter().zip(&cohorts.list).all(|((members, mode), cohort)| {
                *members == cohort.at.members && *mode == cohort.scheme.mode
            })
    }
}

/// The arrays of the loss that was used last, in the dtype of the models.
#[derive(Default)]
pub(crate) struct LossArrays {
    loss: Option<Box<dyn DynLoss>>,
    dtype: Option<Dtype>,
    arrays: Vec<AlignedBytes>,
}

impl LossArrays {
    /// Converts the arrays of `loss`, unless they are those that are here.
    pub(crate) fn refresh(&mut self, loss: &dyn DynLoss, dtype: Dtype) {
        let is_known = self.loss.as_ref().is_some_and(|known| known.equals(loss));
        if is_known && self.dtype == Some(dtype) {
            return;
        }
        let convert = |array: &Vec<f64>| {
            let mut bytes = AlignedBytes::new(array.len() * dtype.size_bytes());
            let elements = bytes.bytes_mut().chunks_exact_mut(dtype.size_bytes());
            for (element, &number) in elements.zip(array) {
                match dtype {
                    Dtype::F64 => element.copy_from_slice(&number.to_ne_bytes()),
                    _ => element.copy_from_slice(&(number as f32).to_ne_bytes()),
                }
            }
            bytes
        };
        self.arrays = loss.arrays().iter().map(convert).collect();
        (self.loss, self.dtype) = (Some(loss.clone_box()), Some(dtype));
    }

    /// Lists the numbers of the arrays.
    pub(crate) fn bytes(&self) -> impl Iterator<Item = &[u8]> {
        self.arrays.iter().map(AlignedBytes::bytes)
    }

    /// Lists the arrays as all models read them.
    pub(crate) fn reads(&self) -> impl Iterator<Item = Read<'_>> {
        self.arrays.iter().map(|array| Read::new(array.bytes(), 0))
    }
}
