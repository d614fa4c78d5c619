//! [`SharedOptimizers`]: who updates shared parameters.

use bevy_ecs::prelude::*;
use neurarch_components::column::shared::{SharedTensor, SharedTensors};
use neurarch_components::optimizer::{DynOptimizer, Update};
use neurarch_kernels::ir::dtype::Dtype;
use neurarch_kernels::ir::program::{Role, Slot};
use neurarch_kernels::ir::shape::Type;
use neurarch_kernels::ir::trace::Trace;

use crate::compile::trace::NearestOptimizer;
use crate::errors::StepError;
use crate::execute::cohort::Cohorts;
use crate::structure::optimizers::{Optimizers, group_of};
use crate::structure::population::population;

/// The optimizers of shared parameters, as they were last compared.
#[derive(Default)]
pub(crate) struct SharedOptimizers {
    /// As of which look at the models' optimizers.
    of: Option<u64>,
    /// The parameter group of each, by its place.
    list: Vec<(usize, Box<dyn DynOptimizer>)>,
}

impl SharedOptimizers {
    /// Finds the optimizer of each shared parameter: the population's own, or else the one that all models
    /// which are active have for it.
    ///
    /// # Errors
    ///
    /// [`StepError::SharedOptimizer`] if models have different ones.
    pub(crate) fn refresh(
        &mut self,
        world: &World,
        of: Entity,
        cohorts: &Cohorts,
    ) -> Result<(), StepError> {
        if self.of == Some(cohorts.rated) {
            return Ok(());
        }
        let optimizers = world.resource::<Optimizers>();
        if let Some(own) = optimizers.on(world, of) {
            self.of = None;
            let shared = world.get::<SharedTensors>(of).into_iter().flat_map(SharedTensors::iter);
            let shared = shared.filter(|(_, of)| of.role == Role::Parameter);
            let of_place = |(place, of): (usize, &SharedTensor)| {
                let group = group_of(own, "", &of.name, &of.ty.shape);
                Some((place, own.group(group)?.clone_box()))
            };
            self.list = shared.filter_map(of_place).collect();
            return self.check_rules(world, of);
        }
        self.of = None;
        self.list.clear();
        let mut first: Vec<(usize, usize)> = Vec::new();
        for cohort in &cohorts.list {
            let group = &population(world, of)?.groups()[cohort.at.group];
            for (place, parameter) in cohort.scheme.shared() {
                let nearest = &cohort.scheme.optimizers[parameter.slot.position];
                let Some(NearestOptimizer { owner, optimizer }) = nearest else { continue };
                let modules = &group.modules[*owner];
                let path = &cohort.scheme.blueprint.positions[*owner].path;
                let Slot { name, ty, .. } = &parameter.slot;
                let number = group_of(&**optimizer, path, name, &ty.shape);
                for (&at, other) in cohort.places.iter().zip(cohort.at.members.indices()) {
                    let own = optimizers.on(world, modules[at as usize]);
                    let Some(own) = own.and_then(|own| own.group(number)) else { continue };
                    match self.list.iter().position(|(known, _)| *known == place) {
                        None => {
                            self.list.push((place, own.clone_box()));
                            first.push((place, other));
                        }
                        Some(known) if !self.list[known].1.equals(own) => {
                            let name = parameter.slot.name;
                            return Err(StepError::SharedOptimizer {
                                name,
                                first: first[known].1,
                                other,
                            });
                        }
                        Some(_) => {}
                    }
                }
            }
        }
        self.check_rules(world, of)?;
        self.of = Some(cohorts.rated);
        Ok(())
    }

    /// Checks that the rules take the parameters: before anything is updated.
    fn check_rules(&self, world: &World, of: Entity) -> Result<(), StepError> {
        let Some(tensors) = world.get::<SharedTensors>(of) else { return Ok(()) };
        for (place, optimizer) in &self.list {
            let Some(SharedTensor { name, ty, .. }) = tensors.get(*place) else { continue };
            let trace = Trace::new();
            let slot = |role, ty: &Type| {
                let (name, ty) = (name.clone(), ty.clone());
                trace.slot(Slot { name, role, position: 0, index: 0, ty })
            };
            let states = 0..optimizer.states().len() as u8;
            let states: Vec<_> = states.map(|state| slot(Role::State(state), ty)).collect();
            let update = Update {
                trace: &trace,
                owner: 0,
                group: 0,
                index: 0,
                parameter: &slot(Role::Parameter, ty),
                gradient: &slot(Role::Gradient, ty),
                states: &states,
                steps: &slot(Role::Steps, &Type::new(Dtype::F32, [1])),
            };
            let who = format_args!("{name}: the optimizer");
            trace.contain(who, || optimizer.structural().update(&update));
            if let Some(error) = trace.error() {
                return Err(error.into());
            }
        }
        Ok(())
    }

    pub(crate) fn of(&self, place: usize) -> Option<&dyn DynOptimizer> {
        self.list.iter().find(|(own, _)| *own == place).map(|(_, of)| &**of)
    }
}
