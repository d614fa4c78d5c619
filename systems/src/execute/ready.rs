//! [`Ready`]: a plan with the numbers of a cohort's members.

use std::sync::Arc;

use bevy_ecs::prelude::*;
use neurarch_components::losses::DynLoss;
use neurarch_components::module::mode::Bits;
use neurarch_components::module::registry::ModuleTypes;
use neurarch_components::population::group::Group;
use neurarch_kernels::ir::program::{Scalar, ScalarOf};
use neurarch_kernels::ir::rng_key::RngKey;

use crate::compile::plans::Planned;
use crate::compile::trace::Scheme;
use crate::errors::StepError;
use crate::execute::keys::Keys;
use crate::storage::launch::{Job, Read};
use crate::storage::write_detector::WriteDetector;
use crate::structure::optimizers::Optimizers;

/// A plan with the numbers of a cohort's members.
pub(crate) struct Ready {
    pub(crate) planned: Arc<Planned>,
    /// The loss as it was last seen.
    pub(crate) loss: Option<Box<dyn DynLoss>>,
    /// The gradients that there were when it was traced, for programs that depend on it.
    pub(crate) has_gradient: Option<Bits>,
    /// The value of scalar `s` for member `m` at `s · members + m`.
    pub(crate) scalars: Vec<f64>,
    pub(crate) watch: WriteDetector,
    /// Whether the columns that it needs are known to be there.
    pub(crate) has_columns: bool,
    /// What this takes, by an estimate; counted as the plan's.
    pub(crate) bytes: usize,
}

impl Drop for Ready {
    fn drop(&mut self) {
        self.planned.remove_bytes(self.bytes);
    }
}

impl Ready {
    /// What its plan does once without random numbers, on what is read here.
    pub(crate) fn job<'a>(&'a self, inputs: &'a [Read<'a>]) -> Job<'a> {
        let Planned { plan, places, written, .. } = &*self.planned;
        let (scalars, keys) = (self.scalars.as_slice(), &[][..]);
        Job {
            plan,
            steps: 1,
            first_step: 0,
            inputs,
            outputs: places,
            first_array: 0,
            scalars,
            written,
            keys,
        }
    }

    /// Reads the scalars of members at some places of the group anew, and leaves those of all others. `before` and `now` are
    /// the members' places, as they were and as they are.
    pub(crate) fn take_over(
        &mut self,
        world: &World,
        scheme: &Scheme,
        group: &Group,
        [before, now]: [&[u32]; 2],
        changed: &[u32],
    ) -> Result<(), StepError> {
        self.watch.follow(world, group)?;
        let mut written = changed.to_vec();
        if !self.watch.written(world, &mut written) {
            self.watch = WriteDetector::default();
            return Ok(());
        }
        let slots = &self.planned.plan.program.scalars;
        if self.scalars.len() != slots.len() * before.len() {
            self.watch = WriteDetector::default();
            return Ok(());
        }
        written.sort_unstable();
        written.dedup();
        written.retain(|place| now.binary_search(place).is_ok());
        // Whose number was known, by its place among the members.
        let mut known = before.iter().copied().enumerate().peekable();
        let kept = now.iter().map(|&place| {
            while known.next_if(|&(_, other)| other < place).is_some() {}
            known.next_if(|&(_, other)| other == place).map(|(member, _)| member)
        });
        let kept: Vec<Option<usize>> = kept.collect();
        let mut all = Vec::with_capacity(slots.len() * now.len());
        for (number, slot) in slots.iter().enumerate() {
            let own = &self.scalars[number * before.len()..][..before.len()];
            let first = all.len();
            all.extend(kept.iter().map(|kept| kept.map_or(0.0, |member| own[member])));
            let read = read_scalar(world, scheme, group, &written, slot, self.loss.as_deref())?;
            for (place, value) in written.iter().zip(read) {
                if let Ok(member) = now.binary_search(place) {
                    all[first + member] = value;
                }
            }
        }
        self.scalars = all;
        Ok(())
    }

    /// Keeps the numbers of some of the members, by their places; they are read anew the next time.
    pub(crate) fn select(&mut self, members: &[usize]) {
        let n_scalars = self.planned.plan.program.scalars.len();
        let known = (self.scalars.len() / n_scalars.max(1)).max(1);
        let of_scalars = self.scalars.chunks_exact(known);
        self.scalars =
            of_scalars.flat_map(|of| members.iter().map(move |&member| of[member])).collect();
        self.watch = WriteDetector::default();
    }

    /// Says that what was written so far has been read.
    pub(crate) fn look_again(&mut self, world: &mut World) {
        self.watch.look_again(world);
    }

    /// Returns the random states of the members, if its plan draws numbers.
    pub(crate) fn keys<'a>(&self, keys: &'a Keys) -> &'a [RngKey] {
        if self.planned.is_random { keys.get() } else { &[] }
    }
}

/// Reads a scalar of the members at `places`, one number each.
pub(crate) fn read_scalar(
    world: &World,
    scheme: &Scheme,
    group: &Group,
    places: &[u32],
    scalar: &Scalar,
    loss: Option<&dyn DynLoss>,
) -> Result<Vec<f64>, StepError> {
    let missing = || {
        let path = scheme.blueprint.positions.get(scalar.position).map(|at| at.path.clone());
        StepError::Scalar { path: path.unwrap_or_default(), name: scalar.name }
    };
    let modules = group.modules.get(scalar.position).ok_or_else(missing)?;
    if let ScalarOf::Optimizer { group: number } = scalar.of {
        check_optimizers(world, group, places, (scalar.position, number))?;
    }
    let entities = places.iter().map(|&place| modules[place as usize]);
    let read = |entity: Entity| match scalar.of {
        ScalarOf::Loss => loss?.scalar(scalar.name),
        ScalarOf::Module => {
            let types = world.get_resource::<ModuleTypes>()?;
            types.module(world.get_entity(entity).ok()?)?.scalar(scalar.name)
        }
        ScalarOf::Optimizer { group } => {
            let optimizers = world.get_resource::<Optimizers>()?;
            optimizers.on(world, entity)?.group(group)?.scalar(scalar.name)
        }
    };
    entities.map(|entity| read(entity).ok_or_else(missing)).collect()
}

/// Checks a parameter group of the optimizers that the members at `places` have at a position.
fn check_optimizers(
    world: &World,
    group: &Group,
    places: &[u32],
    (position, number): (usize, usize),
) -> Result<(), StepError> {
    let Some(optimizers) = world.get_resource::<Optimizers>() else { return Ok(()) };
    for &place in places {
        let own = optimizers.on(world, group.modules[position][place as usize]);
        let Some(own) = own.and_then(|own| own.group(number)) else { continue };
        let model = group.members[place as usize] as usize;
        own.check().map_err(|source| StepError::Optimizer { model, source })?;
    }
    Ok(())
}
