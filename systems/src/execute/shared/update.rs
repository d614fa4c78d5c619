//! What becomes of a summed gradient: it is added to the one that there is, or an optimizer takes it, once.

use bevy_ecs::prelude::*;
use neurarch_components::column::shared::{SharedRow, SharedTensor, SharedTensors};
use neurarch_components::column::{RowBundle, row, row_mut};
use neurarch_components::optimizer::Update;
use neurarch_kernels::ir::dtype::Dtype;
use neurarch_kernels::ir::eager::Eager;
use neurarch_kernels::ir::program::{Role, Slot};
use neurarch_kernels::ir::shape::Type;
use neurarch_kernels::ir::trace::{Trace, Var};

use crate::compile::trace::gradient_of;
use crate::errors::StepError;
use crate::execute::cohort::Cohort;
use crate::execute::hooks::{OuterHooks, Runner};
use crate::execute::run::Run;
use crate::structure::optimizers::Optimizers;
use crate::structure::population::population;

/// Returns whether the population has an optimizer of its own, for what its models share.
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
        let mut tell = |cohort: &Cohort, shared: Option<OuterHooks>, own: Option<usize>| {
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
        let hooked = run.cohorts.list.iter().filter(|cohort| cohort.has_own_hooks());
        let hooked = hooked.flat_map(|cohort| {
            let models = cohort.at.members.indices().zip(&cohort.places);
            models.map(move |(model, &place)| (model, cohort, place as usize))
        });
        let mut hooked: Vec<_> = hooked.collect();
        hooked.sort_unstable_by_key(|&(model, ..)| model);
        for (_, cohort, place) in hooked {
            tell(cohort, None, Some(place))?;
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
            group: 0,
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
