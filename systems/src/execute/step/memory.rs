//! How much memory models take, as columns, tapes and plans know it: [`held_bytes`], [`workspace_bytes_since`], [`of_call`].

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bevy_ecs::prelude::*;
use neurarch_components::column::row_bytes;
use neurarch_components::population::Population;
use neurarch_kernels::ir::dtype::Element;
use neurarch_kernels::ir::op::Boundary;
use neurarch_kernels::ir::program::Program;
use neurarch_kernels::ir::shape::Type;

use super::check::check_array;
use crate::compile::array::{Input, TypeRef};
use crate::compile::entrance::Entrance;
use crate::compile::plans::{Kind, Planned, Plans, Request};
use crate::compile::trace::{self, Inputs, Scheme};
use crate::errors::{StepError, room};
use crate::execute::cohort::Cohort;
use crate::execute::run::{self, with_run};
use crate::structure::spot::locate;
use crate::structure::target::Target;

/// Returns the bytes that the models of all populations hold between calls: the columns of parameters, buffers, gradients and
/// optimizer state, and what the last forward passes kept.
pub fn held_bytes(world: &mut World) -> usize {
    let mut populations = world.query::<(Entity, &Population)>();
    let all: Vec<_> =
        populations.iter(world).map(|(id, found)| (id, column_bytes(found))).collect();
    all.into_iter().map(|(id, columns)| columns + run::tape_bytes(world, id)).sum()
}

/// Returns the bytes of the columns of a population's models.
fn column_bytes(population: &Population) -> usize {
    let of_group = population.groups().iter().map(|group| {
        let columns = group.contents.iter().flat_map(|contents| contents.columns());
        let row: usize = columns.map(|(_, _, ty)| row_bytes(ty.size_bytes())).sum();
        row * group.members.len()
    });
    of_group.sum()
}

/// Returns how many calls of models there were so far: see [`workspace_bytes_since`].
pub fn calls(world: &World) -> u64 {
    world.get_resource::<Plans>().map_or(0, Plans::calls)
}

/// Returns the bytes in which the neediest plan computes that a call ran after so many [`calls`]: an arena for each model that
/// is worked on at a time. What runs op by op has no plan, and is not counted.
pub fn workspace_bytes_since(world: &World, calls: u64) -> usize {
    world.get_resource::<Plans>().map_or(0, |plans| plans.workspace_bytes_since(calls))
}

/// What a forward pass of models takes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CallMemory {
    /// Each module without children that is called, in the order of the calls; a module that is called twice stands where it
    /// was first, with the figures of the last call.
    pub modules: Vec<ModuleMemory>,
    /// Bytes at the most: columns, results, what is kept for `backward`, and arenas.
    pub peak: usize,
}

/// What a call of a module leaves in memory, of all models.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModuleMemory {
    /// The module's dotted path.
    pub name: String,
    /// Bytes more, or less, than after the call before.
    pub memory_delta: i64,
    /// Bytes in use after it, the columns among them.
    pub current_memory: usize,
    /// Bytes of its results.
    pub output_size: usize,
}

/// Says what a forward pass of models, or of the module at a path of all of them, would take with inputs `x`. It is planned, not
/// run: nothing is changed.
///
/// # Shape
///
/// `x` is `[models, ..]` or shared; of one model's module, without the axis of models.
///
/// # Errors
///
/// As [`forward`](super::forward()): among others, if the activations do not fit the memory that is free. And if
/// the models read numbers in the middle of the pass, so that it cannot be planned.
pub fn of_call<'a, X: Element>(
    world: &mut World,
    target: impl Into<Target>,
    x: impl Into<Input<'a, X>>,
) -> Result<CallMemory, StepError> {
    let x = x.into();
    let (population, path, is_one, x) = match target.into() {
        Target::All => return Err(StepError::AllModules),
        Target::Population(population, path) => (population, path, None, x.erase()),
        Target::Module(of) if world.get::<Population>(of).is_some() => {
            (of, String::new(), None, x.erase())
        }
        Target::Module(module) => {
            let at = locate(world, module)?;
            let path = at.blueprint(world).positions[at.position].path.clone();
            (at.population, path, Some((at.group, at.member as u32)), x.erase_of_one())
        }
    };
    let columns = world.get::<Population>(population).map_or(0, column_bytes);
    let entry = Entrance::of(&path, None);
    with_run(world, population, |world, run| {
        if is_one.is_none() {
            check_array(run.models, "x", x)?;
        }
        run.enter(entry.as_ref());
        let keeps_gradients = run.keeps_gradients;
        let mut found = CallMemory { peak: columns, ..CallMemory::default() };
        for cohort in &run.cohorts.list {
            let models = match is_one {
                None => cohort.places.len(),
                Some((group, member)) => {
                    let is_here = group == cohort.at.group && cohort.places.contains(&member);
                    usize::from(is_here)
                }
            };
            if models > 0 {
                let keeps = keeps_gradients && cohort.keeps_tape && is_one.is_none();
                of_cohort(world, cohort, x.ty(), (models, keeps), &mut found)?;
            }
        }
        room::check_free(found.peak - columns)?;
        let mut current = columns as i64;
        for module in &mut found.modules {
            current += module.memory_delta;
            module.current_memory = usize::try_from(current).unwrap_or(0);
        }
        Ok(found)
    })
}

/// Adds what models of a cohort take.
fn of_cohort(
    world: &mut World,
    cohort: &Cohort,
    ty: TypeRef<'_>,
    (models, keeps): (usize, bool),
    found: &mut CallMemory,
) -> Result<(), StepError> {
    let scheme = &cohort.scheme;
    let request = Request {
        kind: if keeps { Kind::Tape } else { Kind::Forward },
        inputs: &[ty],
        structure: None,
        given: &[],
        target: None,
        loss: None,
        watched: &[],
    };
    let planned = Plans::of(world, cohort.blueprint, scheme, &request)?;
    let inputs = Inputs { types: vec![ty.to_type()], structure: None };
    let (recorded, _, _) = trace::forward(scheme, &inputs, &[])?;
    let all = planned.workspace_bytes(models);
    let at_once = all.checked_div(planned.plan.arena_bytes()).unwrap_or(0);
    let rows = planned.row_bytes().saturating_add(planned.tape_bytes).saturating_mul(models);
    found.peak = found.peak.saturating_add(rows).saturating_add(all);
    for call in leaf_calls(scheme, &recorded, &planned, (models, at_once)) {
        match found.modules.iter_mut().find(|known| known.name == call.name) {
            Some(known) => {
                known.memory_delta += call.memory_delta;
                known.output_size += call.output_size;
            }
            None => found.modules.push(call),
        }
    }
    Ok(())
}

/// Lists the calls of modules without children.
fn leaf_calls(
    scheme: &Scheme,
    recorded: &Program,
    planned: &Arc<Planned>,
    (models, at_once): (usize, usize),
) -> Vec<ModuleMemory> {
    let positions = &scheme.blueprint.positions;
    let leaves = positions.iter().filter(|at| at.children.is_empty()).map(|at| at.path.as_str());
    let leaves: HashSet<_> = leaves.collect();
    let mut outputs: HashMap<usize, usize> = HashMap::new();
    for node in &recorded.nodes {
        if node.op.boundary() == Some(Boundary::Leave) {
            let sizes = node.outputs.iter().map(|&id| recorded.ty(id)).map(Type::size_bytes);
            *outputs.entry(node.scope).or_default() += sizes.sum::<usize>();
        }
    }
    let mut after: HashMap<usize, usize> = HashMap::new();
    let program = &planned.plan.program;
    for (node, in_use) in program.nodes.iter().zip(planned.plan.in_use()) {
        let bytes = in_use.arena * at_once + in_use.outputs * models;
        after.insert(node.scope, bytes);
    }
    let mut calls: Vec<ModuleMemory> = Vec::new();
    let mut before = 0;
    for (scope, at) in recorded.scopes.iter().enumerate().skip(1) {
        if at.function.is_some() || !leaves.contains(&*at.path) {
            continue;
        }
        // What the plan joined with the next module leaves nothing of its own.
        let now = after.get(&scope).copied().unwrap_or(before);
        let call = ModuleMemory {
            name: at.path.to_string(),
            memory_delta: now as i64 - before as i64,
            current_memory: 0,
            output_size: outputs.get(&scope).map_or(0, |bytes| bytes * models),
        };
        before = now;
        match calls.iter_mut().find(|known| known.name == call.name) {
            Some(known) => *known = call,
            None => calls.push(call),
        }
    }
    calls
}
