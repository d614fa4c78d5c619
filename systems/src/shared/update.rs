//! What becomes of a summed gradient: it is added to the one that there is, or an optimizer takes it, once.

use bevy_ecs::prelude::*;
use neurarch_components::column::{RowBundle, row, row_mut};
use neurarch_components::optimizer::{DynOptimizer, Update};
use neurarch_components::shared::{SharedRow, SharedTensor, SharedTensors};
use neurarch_kernels::dtype::Dtype;
use neurarch_kernels::program::eager::Eager;
use neurarch_kernels::program::trace::{Trace, Var};
use neurarch_kernels::program::{Role, Slot};
use neurarch_kernels::shape::Type;

use crate::cohort::Cohort;
use crate::cohort::Cohorts;
use crate::hooks::{Runner, Shared};
use crate::optim::Optimizers;
use crate::population::population;
use crate::run::Run;
use crate::step::StepError;
use crate::trace::gradient_of;

/// The optimizers of shared parameters, as they were last compared.
#[derive(Default)]
pub(crate) struct SharedOptimizers {
    /// As of which look at the models' optimizers.
    of: Option<u64>,
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
        let optimizers = world.resource::<Optimizers>();
        if let Some(own) = optimizers.on(world, of) {
            self.of = None;
            let shared = world.get::<SharedTensors>(of).into_iter().flat_map(SharedTensors::iter);
            let shared = shared.filter(|(_, of)| of.role == Role::Parameter);
            self.list = shared.map(|(place, _)| (place, own.clone_box())).collect();
            return self.check_rules(world, of);
        }
        if self.of == Some(cohorts.rated) {
            return Ok(());
        }
        self.of = None;
        self.list.clear();
        let mut first: Vec<(usize, usize)> = Vec::new();
        for cohort in &cohorts.list {
            let group = &population(world, of)?.groups()[cohort.at.group];
            for (place, parameter) in cohort.scheme.shared() {
                let Some(owner) = &cohort.scheme.groups[parameter.slot.position] else { continue };
                let modules = &group.modules[owner.owner];
                for (&at, other) in cohort.places.iter().zip(cohort.at.members.indices()) {
                    let Some(own) = optimizers.on(world, modules[at as usize]) else { continue };
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

/// Says whether the population has an optimizer of its own, for what its models share.
pub(crate) fn has_optimizer(world: &World, population: Entity) -> bool {
    let optimizers = world.get_resource::<Optimizers>();
    optimizers.is_some_and(|optimizers| optimizers.on(world, population).is_some())
}

/// Adds summed gradients to those that shared parameters have.
pub(crate) fn accumulate(
    world: &mut World,
    run: &Run,
    population: Entity,
    sums: Vec<(usize, Vec<u8>)>,
) -> Result<(), StepError> {
    let mut all = Vec::with_capacity(sums.len());
    for (place, sum) in sums {
        let Some(one) = One::of(world, population, place, &sum) else { continue };
        let gradient = one.watched(world, run, Hooked::Gradient, &one.gradient)?;
        let slot = gradient_of(&one.slot);
        let before = one.has_gradient.then(|| one.load(world, slot.clone()));
        let whole = before.map_or(gradient.clone(), |before| &before + &gradient);
        one.watched(world, run, Hooked::Accumulated, &whole)?;
        let to = one.trace.slot(slot);
        one.trace.store(&to, &whole);
        all.push(one);
    }
    for one in all {
        one.write(world)?;
        set_gradient(world, population, one.place, true);
    }
    Ok(())
}

/// Updates shared parameters by summed gradients, which hooks see first.
pub(crate) fn update(
    world: &mut World,
    run: &Run,
    population: Entity,
    sums: Vec<(usize, Vec<u8>)>,
) -> Result<(), StepError> {
    let mut all = Vec::with_capacity(sums.len());
    for (place, sum) in sums {
        let Some(one) = One::of(world, population, place, &sum) else { continue };
        let gradient = one.watched(world, run, Hooked::Gradient, &one.gradient)?;
        one.watched(world, run, Hooked::Accumulated, &gradient)?;
        all.extend(one.updated(world, run, &gradient)?);
    }
    all.iter().try_for_each(|one| one.write(world))
}

/// Updates that were computed and are not written yet.
pub(crate) struct Updates(Vec<One>);

impl Updates {
    pub(crate) fn write(self, world: &mut World) -> Result<(), StepError> {
        self.0.iter().try_for_each(|one| one.write(world))
    }
}

/// Computes the updates of the shared parameters that have a gradient.
pub(crate) fn step(world: &World, run: &Run, population: Entity) -> Result<Updates, StepError> {
    let tensors = world.get::<SharedTensors>(population).into_iter().flat_map(SharedTensors::iter);
    let with_gradient = tensors.filter(|(_, of)| of.has_gradient);
    let gradients = with_gradient.filter_map(|(index, of)| {
        let key = SharedRow { owner: population, index }.key(Role::Gradient, &of.ty);
        Some((index, row(world, population, key)?[..of.ty.size_bytes()].to_vec()))
    });
    let mut all = Vec::new();
    for (place, gradient) in gradients {
        let Some(one) = One::of(world, population, place, &gradient) else { continue };
        let gradient = one.gradient.clone();
        all.extend(one.updated(world, run, &gradient)?);
    }
    Ok(Updates(all))
}

/// Takes the gradients of all that a population shares away: to none, or to zeros where there are any.
pub(crate) fn zero(world: &mut World, population: Entity, set_to_none: bool) {
    let places = world.get::<SharedTensors>(population).into_iter().flat_map(SharedTensors::iter);
    let places: Vec<_> = places.map(|(place, _)| place).collect();
    places.into_iter().for_each(|place| zero_at(world, population, place, set_to_none));
}

/// [`zero`] of one of them.
pub(crate) fn zero_at(world: &mut World, population: Entity, index: usize, set_to_none: bool) {
    let tensors = world.get::<SharedTensors>(population);
    let Some(of) = tensors.and_then(|tensors| tensors.get(index)).filter(|of| of.has_gradient)
    else {
        return;
    };
    let key = SharedRow { owner: population, index }.key(Role::Gradient, &of.ty);
    if set_to_none {
        set_gradient(world, population, index, false);
    } else if let Some(row) = row_mut(world, population, key) {
        row.fill(0);
    }
}

fn set_gradient(world: &mut World, population: Entity, place: usize, has_gradient: bool) {
    if let Some(mut tensors) = world.get_mut::<SharedTensors>(population)
        && let Some(of) = tensors.get_mut(place)
    {
        of.has_gradient = has_gradient;
    }
}

/// What a hook of a parameter is told of.
#[derive(Clone, Copy)]
enum Hooked {
    Gradient,
    Accumulated,
}

/// A shared parameter and its summed gradient, recorded as those of one model.
struct One {
    population: Entity,
    place: usize,
    has_gradient: bool,
    slot: Slot,
    trace: Trace,
    gradient: Var,
}

impl One {
    fn of(world: &World, population: Entity, place: usize, sum: &[u8]) -> Option<Self> {
        let SharedTensor { name, ty, has_gradient, .. } =
            world.get::<SharedTensors>(population)?.get(place)?.clone();
        let trace = Trace::eager(Eager::new(1, Vec::new()));
        let gradient = trace.input_of_rows(ty.clone(), std::iter::once(sum));
        let slot = Slot { name, role: Role::Parameter, position: 0, index: place, ty };
        Some(One { population, place, has_gradient, slot, trace, gradient })
    }

    /// Tells the hooks of the parameter, each once: those of all modules and of the population, then those of
    /// single models. Gives what is in the gradient's place afterwards.
    fn watched(
        &self,
        world: &World,
        run: &Run,
        what: Hooked,
        gradient: &Var,
    ) -> Result<Var, StepError> {
        let mut gradient = gradient.clone();
        let mut tell = |cohort: &Cohort, shared: Option<Shared>, own: Option<usize>| {
            let of = cohort.scheme.shared_trainable();
            let found = of.into_iter().find(|(place, _)| *place == self.place);
            let Some((_, parameter)) = found else { return Ok(false) };
            let group = &population(world, self.population)?.groups()[cohort.at.group];
            let runner = Runner::new(world, &cohort.scheme.blueprint, shared, group, own, 1);
            let (position, name) = (parameter.slot.position, parameter.slot.own_name());
            match what {
                Hooked::Gradient => runner.gradient(&self.trace, position, name, &mut gradient),
                Hooked::Accumulated => runner.accumulated(&self.trace, position, name, &gradient),
            }
            match runner.take_failure() {
                Some(failure) => Err(failure),
                None => Ok(true),
            }
        };
        if let Some(shared) = &run.shared {
            for cohort in &run.cohorts.list {
                if tell(cohort, Some(shared.clone()), None)? {
                    break;
                }
            }
        }
        for cohort in run.cohorts.list.iter().filter(|cohort| cohort.scheme.mode.hooked) {
            tell(cohort, None, cohort.places.first().map(|&place| place as usize))?;
        }
        if let Some(error) = self.trace.error() {
            return Err(error.into());
        }
        Ok(gradient)
    }

    fn row(&self) -> SharedRow {
        SharedRow { owner: self.population, index: self.place }
    }

    /// Reads a row of the parameter or a companion; zeros if there is none yet.
    fn load(&self, world: &World, slot: Slot) -> Var {
        let key = self.row().key(slot.role, &slot.ty);
        let zeros = vec![0; slot.ty.size_bytes()];
        let bytes = row(world, self.population, key).map_or(&zeros[..], |row| &row[..zeros.len()]);
        self.trace.set_slot((slot.role, slot.position, slot.index), std::iter::once(bytes));
        self.trace.slot(slot)
    }

    /// Computes the update of the parameter by its optimizer, if it has one.
    fn updated(
        mut self,
        world: &World,
        run: &Run,
        gradient: &Var,
    ) -> Result<Option<Self>, StepError> {
        let Some(optimizer) = run.shared_optimizers.of(self.place) else { return Ok(None) };
        let Some(id) = gradient.id() else { return Ok(None) };
        let (_, recorded) = self.trace.pause()?;
        let (_, bytes) = recorded.read_bytes(id)?;
        let mut eager = Eager::new(1, Vec::new());
        let rates = optimizer.clone_box();
        eager.set_scalar_source(Box::new(move |scalar| Some(vec![rates.scalar(scalar.name)?])));
        self.trace = Trace::eager(eager);
        let gradient = self.trace.input_of_rows(self.slot.ty.clone(), std::iter::once(&bytes[..]));
        let companion = |role| Slot { role, ..self.slot.clone() };
        let states = 0..optimizer.states().len() as u8;
        let states: Vec<_> =
            states.map(|state| self.load(world, companion(Role::State(state)))).collect();
        let counts = Slot { ty: Type::new(Dtype::F32, [1]), ..companion(Role::Steps) };
        let steps = self.load(world, counts);
        let parameter = self.load(world, self.slot.clone());
        let update = Update {
            trace: &self.trace,
            owner: 0,
            index: 0,
            parameter: &parameter,
            gradient: &gradient,
            states: &states,
            steps: &steps,
        };
        let rule = optimizer.structural();
        let who = format_args!("{}: the optimizer", self.slot.name);
        if let Some(after) = self.trace.contain(who, || rule.update(&update)) {
            self.trace.store(&steps, &after);
        }
        match self.trace.error() {
            Some(error) => Err(error.into()),
            None => Ok(Some(self)),
        }
    }

    /// Writes what was stored; columns of companions come at their first use.
    fn write(&self, world: &mut World) -> Result<(), StepError> {
        let (program, eager) = self.trace.pause()?;
        for (slot, value) in program.stores {
            let slot = &program.slots[slot];
            let (_, bytes) = eager.read_bytes(value)?;
            let key = self.row().key(slot.role, &slot.ty);
            if row(world, self.population, key).is_none() {
                let mut bundle = RowBundle::new(world, [key], None);
                if let Ok(mut entity) = world.get_entity_mut(self.population) {
                    bundle.insert(&mut entity);
                }
            }
            if let Some(row) = row_mut(world, self.population, key) {
                row[..bytes.len()].copy_from_slice(&bytes);
            }
        }
        Ok(())
    }
}
