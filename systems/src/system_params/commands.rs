//! [`ParameterCommands`]: writing to models from a bevy system, when its commands are applied.

use bevy_ecs::prelude::*;
use ndarray::{Array, Dimension};
use neurarch_kernels::ir::dtype::Element;

use crate::errors::AccessError;
use crate::execute::step;
use crate::structure::access;

/// Writes to models by [`Commands`]: each call is what the one of `World` of that name is, made when the commands are
/// applied.
///
/// A system cannot write at once: a column that appears after a system's access was declared is no part of it.
///
/// An error then goes where bevy's own commands have theirs go, to the [`FallbackErrorHandler`]; the commands behind it are
/// applied all the same. `commands.queue_handled(set_parameter(..), handler)` has it go elsewhere.
///
/// [`FallbackErrorHandler`]: bevy_ecs::error::FallbackErrorHandler
///
/// # Example
///
/// ```
/// use bevy_ecs::prelude::*;
/// use neurarch_components::layers::Linear;
/// # use neurarch_kernels::ir::dtype::Dtype;
/// use neurarch_systems::system_params::commands::ParameterCommands;
/// use neurarch_systems::system_params::parameters::Parameters;
/// # use neurarch_systems::structure::spawn::spawn_population;
///
/// fn decay(
///     layers: Query<Entity, With<Linear>>,
///     parameters: Parameters,
///     mut commands: Commands,
/// ) -> Result {
///     for layer in &layers {
///         let bias = parameters.parameter::<f32>(layer, "bias")?;
///         commands.set_parameter(layer, "bias", &bias * 0.9 + 1.0);
///     }
///     Ok(())
/// }
///
/// # let mut world = World::new();
/// spawn_population(&mut world, &Linear::new(2, 3), 10, 10, 7, Dtype::F32)?;
/// let layer = world.query_filtered::<Entity, With<Linear>>().iter(&world).next().unwrap();
/// let mut schedule = Schedule::default();
/// schedule.add_systems(decay);
/// schedule.run(&mut world);
/// let bias = Parameters::from(&world).parameter::<f32>(layer, "bias")?;
/// assert_eq!(bias.as_slice(), Some(&[1.0; 3][..]));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait ParameterCommands {
    /// Overwrites a parameter or buffer by its dotted name from a module on: [`set_parameter`].
    fn set_parameter<T: Element, D: Dimension + 'static>(
        &mut self,
        module: Entity,
        name: impl Into<String>,
        numbers: Array<T, D>,
    );

    /// Overwrites a parameter or buffer of all models of a population with `[models, ..]`: [`unstack`].
    fn unstack<T: Element, D: Dimension + 'static>(
        &mut self,
        population: Entity,
        name: impl Into<String>,
        numbers: Array<T, D>,
    );

    /// Overwrites the gradient of a parameter of a model, or takes it away: [`set_gradient`].
    fn set_gradient<T: Element, D: Dimension + 'static>(
        &mut self,
        root: Entity,
        name: impl Into<String>,
        gradient: Option<Array<T, D>>,
    );
}

impl ParameterCommands for Commands<'_, '_> {
    fn set_parameter<T: Element, D: Dimension + 'static>(
        &mut self,
        module: Entity,
        name: impl Into<String>,
        numbers: Array<T, D>,
    ) {
        self.queue(set_parameter(module, name, numbers));
    }

    fn unstack<T: Element, D: Dimension + 'static>(
        &mut self,
        population: Entity,
        name: impl Into<String>,
        numbers: Array<T, D>,
    ) {
        self.queue(unstack(population, name, numbers));
    }

    fn set_gradient<T: Element, D: Dimension + 'static>(
        &mut self,
        root: Entity,
        name: impl Into<String>,
        gradient: Option<Array<T, D>>,
    ) {
        self.queue(set_gradient(root, name, gradient));
    }
}

/// Returns the [`Command`] that is [`access::write`]: it overwrites a parameter or buffer by its dotted name from a module
/// on.
pub fn set_parameter<T: Element, D: Dimension + 'static>(
    module: Entity,
    name: impl Into<String>,
    numbers: Array<T, D>,
) -> impl Command<Out = Result<(), AccessError>> {
    let name = name.into();
    move |world: &mut World| access::write(world, module, &name, numbers.view().into_dyn())
}

/// Returns the [`Command`] that is [`access::unstack`]: it overwrites a parameter or buffer of all models of a population
/// with `[models, ..]`.
pub fn unstack<T: Element, D: Dimension + 'static>(
    population: Entity,
    name: impl Into<String>,
    numbers: Array<T, D>,
) -> impl Command<Out = Result<(), AccessError>> {
    let name = name.into();
    move |world: &mut World| access::unstack(world, population, &name, numbers.view().into_dyn())
}

/// Returns the [`Command`] that is [`step::set_gradient`]: it overwrites the gradient of a parameter of a model, or takes it
/// away.
pub fn set_gradient<T: Element, D: Dimension + 'static>(
    root: Entity,
    name: impl Into<String>,
    gradient: Option<Array<T, D>>,
) -> impl Command<Out = Result<(), AccessError>> {
    let name = name.into();
    move |world: &mut World| {
        let gradient = gradient.as_ref().map(|gradient| gradient.view().into_dyn());
        step::set_gradient(world, root, &name, gradient)
    }
}
