//! Lazy modules: they become what they are when shapes are known, in all models of a blueprint at once.

use std::cell::RefCell;
use std::sync::Arc;

use bevy_ecs::prelude::*;
use neurarch_components::module::DynModule;
use neurarch_components::module::blueprint::Blueprint;
use neurarch_components::module::call::{Call, Watcher};
use neurarch_components::module::registered::Registered;
use neurarch_components::module::registry::ModuleTypes;
use neurarch_components::population::blueprints::Blueprints;
use neurarch_components::population::tree::Model;
use neurarch_kernels::ir::dtype::Dtype;
use neurarch_kernels::ir::trace::Trace;
use neurarch_kernels::ir::tree::{Arguments, Tree};

use crate::compile::trace::{Inputs, Scheme};
use crate::errors::{AccessError, StepError};
use crate::execute::run::Run;
use crate::structure::population::population;
use crate::structure::sign;

/// Returns whether a model has parameters or buffers whose shapes are not known yet.
///
/// # Errors
///
/// If `root` is no model's root.
///
/// Source: `torch.nn.modules.lazy.LazyModuleMixin.has_uninitialized_params`.
pub fn has_uninitialized_params(world: &mut World, root: Entity) -> Result<bool, AccessError> {
    Ok(!uninitialized_params(world, root)?.is_empty())
}

/// Lists the dotted names of a model's parameters and buffers whose shapes are not known yet.
///
/// # Errors
///
/// If `root` is no model's root.
pub fn uninitialized_params(world: &mut World, root: Entity) -> Result<Vec<String>, AccessError> {
    let not_a_model = AccessError::NotAModel(root);
    let model = world.get::<Model>(root).ok_or(not_a_model.clone())?;
    sign::refresh(world, model.population)?;
    let id = world.get::<Model>(root).ok_or(not_a_model.clone())?.blueprint;
    let blueprint = world.resource::<Blueprints>().get(id).ok_or(not_a_model)?;
    let positions = blueprint.positions.iter().enumerate();
    let names = positions.flat_map(|(position, at)| {
        let all = at.parameters.iter().chain(&at.buffers).filter(|of| of.uninitialized);
        all.map(move |of| blueprint.path_below(position, &of.name))
    });
    Ok(names.collect())
}

/// Turns the lazy modules of a population that a call reaches into what they become.
///
/// # Errors
///
/// What a module says of arguments that do not fit. Nothing is changed then.
pub(crate) fn initialize(
    world: &mut World,
    run: &mut Run,
    of: Entity,
    inputs: &Inputs<'_>,
) -> Result<(), StepError> {
    let found = population(world, of)?;
    let dtype = found.dtype();
    let types = world.get_resource::<ModuleTypes>();
    let mut changes = Vec::new();
    for cohort in run.cohorts.list.iter_mut().filter(|cohort| cohort.is_lazy) {
        let group = &found.groups()[cohort.at.group];
        let entities = |position: usize| {
            let modules = &group.modules[position];
            cohort.places.iter().map(|&place| modules[place as usize]).collect::<Vec<_>>()
        };
        let live = |position: usize| -> Vec<&dyn DynModule> {
            let module = |entity| types?.module(world.get_entity(entity).ok()?);
            entities(position).into_iter().filter_map(module).collect()
        };
        let (all, _) = infer(&cohort.scheme, inputs, dtype, &live)?;
        for Becoming { position, each, .. } in all {
            changes.extend(entities(position).into_iter().zip(each));
        }
        // What no call of the root reaches stays lazy, and is not looked for again.
        cohort.is_lazy = cohort.scheme.entry.is_some();
    }
    if changes.is_empty() {
        return Ok(());
    }
    for (entity, module) in changes {
        module.register(world);
        let Ok(mut entity) = world.get_entity_mut(entity) else { continue };
        if let Some(mut registered) = entity.get::<Registered>().cloned() {
            registered.initialize(&*module, dtype);
            entity.insert(registered);
        }
        module.insert_into(&mut entity);
    }
    run.refresh(world, of)
}

/// A module that takes the place of a lazy one.
struct Becoming {
    position: usize,
    /// What the blueprint's module becomes.
    module: Box<dyn DynModule>,
    /// What that of each model becomes, which has settings of its own.
    each: Vec<Box<dyn DynModule>>,
}

/// Returns the modules of a position, one a model.
type Live<'a> = dyn Fn(usize) -> Vec<&'a dyn DynModule> + 'a;

/// Returns the structure that a call makes of one with lazy modules; nothing is changed.
///
/// # Errors
///
/// What a module says of arguments that do not fit.
pub(super) fn completed(
    scheme: &Scheme,
    inputs: &Inputs<'_>,
    dtype: Dtype,
) -> Result<Arc<Blueprint>, StepError> {
    Ok(infer(scheme, inputs, dtype, &|_| Vec::new())?.1)
}

/// Finds what each lazy module becomes that a call reaches, one after the other in the order of calls, and the structure that
/// they make.
fn infer<'a>(
    scheme: &Scheme,
    inputs: &Inputs<'_>,
    dtype: Dtype,
    live: &'a Live<'a>,
) -> Result<(Vec<Becoming>, Arc<Blueprint>), StepError> {
    let mut scheme = scheme.clone();
    let mut all = Vec::new();
    loop {
        let trace = Trace::new();
        let first = FirstLazy { live, found: RefCell::default() };
        scheme.call(&trace, inputs.record(&trace), Some(&first));
        match (first.found.into_inner(), trace.error()) {
            (Some(becoming), _) => {
                let blueprint: &mut Blueprint = Arc::make_mut(&mut scheme.blueprint);
                blueprint.replace(becoming.position, &*becoming.module, dtype);
                all.push(becoming);
            }
            // What comes behind a number that is read is reached by nobody here.
            (None, Some(error)) if error.needs_values => return Ok((all, scheme.blueprint)),
            (None, Some(error)) => return Err(error.into()),
            (None, None) => return Ok((all, scheme.blueprint)),
        }
    }
}

/// Stops at the first lazy module that is called, and keeps what it becomes.
struct FirstLazy<'a> {
    live: &'a Live<'a>,
    found: RefCell<Option<Becoming>>,
}

impl Watcher for FirstLazy<'_> {
    fn before(&self, call: &Call<'_>, arguments: Arguments) -> Arguments {
        let module = &call.at().module;
        if module.is_lazy()
            && let Some(module) = module.initialize_parameters(call, &arguments)
        {
            let position = call.position;
            let live = (self.live)(position);
            let becomes = |of: &&dyn DynModule| of.initialize_parameters(call, &arguments);
            let each = live.iter().filter_map(becomes).collect();
            *self.found.borrow_mut() = Some(Becoming { position, module, each });
            call.trace.fail("lazy");
        }
        arguments
    }

    fn after(&self, _: &Call<'_>, _: &Arguments, result: Option<Tree>) -> Option<Tree> {
        result
    }
}
