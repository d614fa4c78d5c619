//! Finds the plan of a cohort for what is asked, its scalars up to date.

use bevy_ecs::prelude::*;
use neurarch_components::losses::DynLoss;
use neurarch_components::module::registry::ModuleTypes;
use neurarch_kernels::ir::program::ScalarOf;

use crate::compile::plans::{Kind, Plans, Request};
use crate::errors::{StepError, room};
use crate::execute::cohort::Cohort;
use crate::execute::ready::{Ready, read_scalar};
use crate::storage::write_detector::WriteDetector;
use crate::structure::optimizers::Optimizers;
use crate::structure::population::population;

impl Cohort {
    /// Returns the place in [`ready`](Cohort::ready) of the plan for `request`, made at first use, its
    /// scalars up to date.
    pub(crate) fn prepare(
        &mut self,
        world: &mut World,
        of: Entity,
        request: &Request<'_>,
    ) -> Result<usize, StepError> {
        let scheme = &self.scheme;
        let answers = |ready: &Ready| {
            ready.planned.answers(request)
                && ready.planned.autocast == scheme.autocast
                && ready.planned.entry == scheme.entry
                && ready.has_gradient.as_ref().is_none_or(|known| *known == scheme.has_gradient)
                && match (&ready.loss, request.loss) {
                    (None, None) => true,
                    (Some(own), Some(other)) => own.equals(other) || own.is_like(other),
                    _ => false,
                }
        };
        let known = self.ready.iter().position(answers);
        let place = match known {
            Some(place) => place,
            None => {
                let depends =
                    matches!(request.kind, Kind::Backward | Kind::Step | Kind::ZeroGradients);
                let planned = Plans::of(world, self.blueprint, scheme, request)?;
                room::check_free(planned.workspace_bytes(self.places.len()))?;
                let scalars = planned.plan.program.scalars.len() * self.places.len();
                let bytes = size_of::<Ready>() + scalars * size_of::<f64>();
                planned.add_bytes(bytes);
                self.ready.push(Ready {
                    planned,
                    loss: request.loss.map(DynLoss::clone_box),
                    has_gradient: depends.then(|| scheme.has_gradient.clone()),
                    scalars: Vec::new(),
                    watch: WriteDetector::default(),
                    has_columns: false,
                    bytes,
                });
                self.ready[self.ready.len() - 1].planned.mark_used(self.call, self.places.len());
                Plans::evict(world);
                self.ready.len() - 1
            }
        };
        self.ready[place].planned.mark_used(self.call, self.places.len());
        self.refresh_scalars(world, of, place, request.loss)?;
        Ok(place)
    }

    /// Reads the scalars of a plan again if somebody wrote to their components.
    fn refresh_scalars(
        &mut self,
        world: &mut World,
        of: Entity,
        place: usize,
        loss: Option<&dyn DynLoss>,
    ) -> Result<(), StepError> {
        let ready = &mut self.ready[place];
        if ready.planned.plan.program.scalars.is_empty() {
            return Ok(());
        }
        let group = &population(world, of)?.groups()[self.at.group];
        let is_new_loss = match (&ready.loss, loss) {
            (Some(known), Some(loss)) => !known.equals(loss),
            _ => false,
        };
        if !is_new_loss && !ready.watch.is_stale(world, group) {
            return Ok(());
        }
        if is_new_loss {
            ready.loss = loss.map(DynLoss::clone_box);
        }
        let slots = &ready.planned.plan.program.scalars;
        let optimizers = world.resource::<Optimizers>();
        let types = world.get_resource::<ModuleTypes>();
        let (mut scalars, mut columns) = (Vec::new(), Vec::new());
        for slot in slots {
            scalars.extend(read_scalar(world, &self.scheme, group, &self.places, slot, loss)?);
            match slot.of {
                ScalarOf::Loss => {}
                ScalarOf::Module => {
                    let modules = &group.modules[slot.position];
                    let first = modules.first().and_then(|&first| world.get_entity(first).ok());
                    let id = first.zip(types).and_then(|(first, types)| types.id(first));
                    columns.extend(id.map(|id| (slot.position, id)));
                }
                ScalarOf::Optimizer { .. } => {
                    // All members have the same there, or another cohort.
                    let first = self.places.first().map(|&place| place as usize);
                    let module = first.and_then(|first| group.modules[slot.position].get(first));
                    let id = module.and_then(|&module| optimizers.id_on(world, module));
                    columns.extend(id.map(|id| (slot.position, id)));
                }
            }
        }
        ready.scalars = scalars;
        ready.watch = WriteDetector::of_members(world, group, &self.places, columns);
        ready.watch.look(world);
        Ok(())
    }
}
