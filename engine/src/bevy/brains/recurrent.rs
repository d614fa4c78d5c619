//! [`think_recurrent`]: brains that remember, with their state in a component of each model.

use core::any::type_name;

use bevy_ecs::component::Mutable;
use bevy_ecs::error::{BevyError, Severity};
use bevy_ecs::prelude::*;
use bytemuck::Pod;
use ndarray::ArrayView2;

use crate::bevy::brains::think::{ThinkError, Thought, check};
use crate::components::population::Population;
use crate::components::population::tree::Model;
use crate::kernels::ir::tree::Arguments;
use crate::systems::compile::array::AnyInput;
use crate::systems::execute::step::forward_with;
use crate::systems::structure::mode::no_grad;

/// The state that a recurrent brain keeps from tick to tick: a component of its root.
///
/// It belongs to the model's number: one that is born in a parked model's place, and a clone, begin from zeros.
#[derive(Component, Clone, Copy, Debug, PartialEq)]
#[component(storage = "SparseSet")]
pub struct Hidden<State: Pod + Send + Sync> {
    /// The numbers.
    pub state: State,
    /// Whose they are.
    number: u64,
}

/// Makes a system as [`think`](crate::plugin::think) does, of brains that keep a state: a model takes the numbers of `In`
/// and of its state, and gives those of `Out` and of the next state.
///
/// The state is zero at first, and again when a model is born: see [`Hidden`]. All think in each tick.
///
/// # Errors
///
/// The system gives [`ThinkError`] with [`Severity::Warning`].
///
/// # Example
///
/// ```
/// use bevy_ecs::prelude::*;
/// use bytemuck::{Pod, Zeroable};
/// use neurarch::kernels::ir::tree::{Arguments, Tree};
/// use neurarch::plugin::{BrainCommands, think_recurrent};
/// use neurarch::prelude::*;
///
/// /// Adds up what it sees.
/// #[derive(Component, Clone, Debug, PartialEq)]
/// struct Sum;
///
/// impl Module for Sum {
///     fn forward_with(&self, call: &Call<'_>, arguments: Arguments) -> Tree {
///         match call.values(arguments) {
///             Some([x, sum]) => (&x + &sum, &x + &sum).into(),
///             None => call.trace.poison().into(),
///         }
///     }
/// }
///
/// #[derive(Component, Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
/// #[repr(C)]
/// struct Seen(f32);
///
/// #[derive(Component, Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
/// #[repr(C)]
/// struct Said(f32);
///
/// let mut world = World::new();
/// let brains = world.spawn_population(&Sum, 1, Seed(7))?.id();
/// let body = world.spawn((Seen(2.0), Said(0.0))).id();
/// world.commands().entity(body).with_brain(brains);
/// world.flush();
/// let mut schedule = Schedule::default();
/// schedule.add_systems(think_recurrent::<Seen, [f32; 1], Said>(brains));
/// (0..3).for_each(|_| schedule.run(&mut world));
/// assert_eq!(world.get::<Said>(body), Some(&Said(6.0)));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn think_recurrent<In, State, Out>(
    brains: Entity,
) -> impl FnMut(&mut World) -> Result<(), BevyError> + Send + Sync + 'static
where
    In: Component + Pod,
    State: Pod + Send + Sync,
    Out: Component<Mutability = Mutable> + Pod,
{
    let mut thought = Thought::<In, Out>::new(brains);
    let mut states = Vec::new();
    move |world: &mut World| {
        let made = remember::<In, State, Out>(world, brains, &mut thought, &mut states);
        made.map_err(|error| BevyError::new(Severity::Warning, error))
    }
}

/// Thinks once.
fn remember<In, State, Out>(
    world: &mut World,
    brains: Entity,
    thought: &mut Thought<In, Out>,
    states: &mut Vec<f32>,
) -> Result<(), ThinkError>
where
    In: Component + Pod,
    State: Pod + Send + Sync,
    Out: Component<Mutability = Mutable> + Pod,
{
    check::<State>()?;
    if !thought.gather(world)? {
        return Ok(());
    }
    let width = size_of::<State>() / size_of::<f32>();
    gather_states::<State>(world, brains, width, states);
    let models = thought.thinks().len();
    let x = ArrayView2::from_shape((models, Thought::<In, Out>::FEATURES), thought.inputs());
    let h = ArrayView2::from_shape((models, width), states.as_slice());
    let (Ok(x), Ok(h)) = (x, h) else { return Ok(()) };
    let arguments = Arguments::each([AnyInput::from(x), AnyInput::from(h)]);
    let made = no_grad(world, |world| forward_with::<f32>(world, brains, arguments));
    let made = made.map_err(|source| thought.error(world, source))?;
    let [y, next] = made.leaves()[..] else {
        return Err(ThinkError::Results {
            brain: thought.brain(world),
            given: made.leaves().len(),
        });
    };
    if y.len() != thought.outputs.len() {
        let (component, bytes) = (type_name::<Out>(), size_of::<Out>());
        return Err(ThinkError::Bytes { component, bytes });
    }
    if next.len() != states.len() {
        let (component, bytes) = (type_name::<State>(), size_of::<State>());
        return Err(ThinkError::Bytes { component, bytes });
    }
    thought.outputs.iter_mut().zip(y).for_each(|(own, &y)| *own = y);
    states.iter_mut().zip(next).for_each(|(own, &next)| *own = next);
    scatter_states::<State>(world, brains, width, thought.thinks(), states);
    thought.scatter(world);
    Ok(())
}

/// Copies the states of all models: zeros for those that have none of their own.
fn gather_states<State: Pod + Send + Sync>(
    world: &World,
    brains: Entity,
    width: usize,
    states: &mut Vec<f32>,
) {
    states.clear();
    let Some(found) = world.get::<Population>(brains) else { return };
    states.resize(found.len() * width, 0.0);
    for (&root, row) in found.models().iter().zip(states.chunks_exact_mut(width)) {
        let Ok(root) = world.get_entity(root) else { continue };
        if let Some((hidden, model)) = root.get::<Hidden<State>>().zip(root.get::<Model>())
            && hidden.number == model.number
        {
            bytemuck::cast_slice_mut(row).copy_from_slice(bytemuck::bytes_of(&hidden.state));
        }
    }
}

/// Writes the states of the models that thought.
fn scatter_states<State: Pod + Send + Sync>(
    world: &mut World,
    brains: Entity,
    width: usize,
    thinks: &[bool],
    states: &[f32],
) {
    let models = world.get::<Population>(brains).map(|found| found.models().to_vec());
    let rows = models.into_iter().flatten().zip(thinks).zip(states.chunks_exact(width));
    for ((root, _), row) in rows.filter(|((_, thinks), _)| **thinks) {
        let Ok(mut root) = world.get_entity_mut(root) else { continue };
        let Some(number) = root.get::<Model>().map(|model| model.number) else { continue };
        let state = bytemuck::pod_read_unaligned(bytemuck::cast_slice(row));
        match root.get_mut::<Hidden<State>>() {
            Some(mut own) => *own = Hidden { state, number },
            None => drop(root.insert(Hidden::<State> { state, number })),
        }
    }
}
