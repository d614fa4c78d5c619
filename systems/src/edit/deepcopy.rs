//! [`deepcopy`]: a module of a live model once more, to be put into any model.

use bevy_ecs::entity::EntityCloner;
use bevy_ecs::prelude::*;
use neurarch_components::containers::LiveModule;
use neurarch_components::module::mode::{Draws, HasGradient, Mode};
use neurarch_components::population::tree::{Columned, Model, ModuleName};

use crate::edit::registration::RegistrationError;
use crate::errors::AccessError;
use crate::structure::refit::strip_markers;
use crate::structure::spot::locate;

/// Copies a module and all below it, with parameters, buffers, optimizer state, hooks and the host's own components. The
/// copy is part of no model: an operation on a live container puts it into one, or it is despawned.
///
/// # Errors
///
/// If `module` is no module of a model, [`RegistrationError::InUse`] if a part of it is a second name of something
/// outside, or [`AccessError::Shared`] if the population shares a part. Nothing is changed then.
///
/// # Example
///
/// ```
/// # use bevy_ecs::prelude::*;
/// # use neurarch_components::layers::{Linear, Sequential};
/// # use neurarch_components::population::Population;
/// # use neurarch_kernels::ir::dtype::Dtype;
/// # use neurarch_systems::edit::{containers, deepcopy::deepcopy, lookup::get_submodule};
/// # use neurarch_systems::structure::spawn::spawn_population;
/// # let mut world = World::new();
/// let brain = Sequential::new().push(Linear::new(4, 4));
/// let brains = spawn_population(&mut world, &brain, 2, 2, 7, Dtype::F32)?;
/// let [first, second] = world.get::<Population>(brains).unwrap().models()[..] else { return Ok(()) };
/// let layer = get_submodule(&mut world, first, "0")?;
/// let copy = deepcopy(&mut world, layer)?;
/// containers::append(&mut world, second, copy)?;
/// assert_eq!(containers::len(&mut world, second)?, 2);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Source: `copy.deepcopy(module)`. Modes, and which parameters need gradients, are those of a new module.
pub fn deepcopy(world: &mut World, module: Entity) -> Result<LiveModule, RegistrationError> {
    let at = locate(world, module)?;
    let blueprint = at.blueprint(world);
    let below = blueprint.subtree(at.position);
    for position in below.clone() {
        let of = &blueprint.positions[position];
        if let Some(owner) = of.alias.filter(|owner| !below.contains(owner)) {
            let (name, by) = (of.path.clone(), blueprint.positions[owner].path.clone());
            return Err(RegistrationError::InUse { name, by });
        }
        for parameter in of.parameters.iter().chain(&of.buffers) {
            let name = blueprint.path_below(position, &parameter.name);
            if parameter.shared.is_some() {
                return Err(AccessError::Shared { name }.into());
            }
            if let Some((owner, index)) = parameter.tied.filter(|(at, _)| !below.contains(at)) {
                let by = &blueprint.positions[owner].parameters[index].name;
                return Err(RegistrationError::InUse { name, by: blueprint.path_below(owner, by) });
            }
        }
    }
    let original = at.group(world).modules[at.position][at.member];
    let copy = world.spawn_empty().id();
    let mut builder = EntityCloner::build_opt_out(world);
    builder.linked_cloning(true).deny::<(Model, Mode, HasGradient, Draws)>();
    builder.finish().clone_entity(world, original, copy);
    world.entity_mut(copy).remove::<(ChildOf, ModuleName)>();
    let mut open = vec![copy];
    while let Some(entity) = open.pop() {
        if let Some(columned) = world.get::<Columned>(entity) {
            let number = columned.contents().number;
            strip_markers(world, entity, number);
        }
        open.extend(world.get::<Children>(entity).into_iter().flat_map(|all| all.iter()));
    }
    Ok(LiveModule(copy))
}
