//! [`repr`]: live modules as text, read with `&World`: edits that nothing has settled yet are printed, too.

use bevy_ecs::prelude::*;
use neurarch_components::layers::ModuleList;
use neurarch_components::module::registry::ModuleTypes;
use neurarch_components::module::repr::with_children;
use neurarch_components::population::Population;

use crate::edit::lookup::named_children;
use crate::structure::spot::owner;

/// Prints a module and all below it as torch does, what has several names under each of them; a population as a list of its
/// models, those together that look the same; `None` if the entity is neither.
///
/// Source: `torch.nn.Module.__repr__`, and that of `ModuleList`.
pub fn repr(world: &World, entity: Entity) -> Option<String> {
    let Some(population) = world.get::<Population>(entity) else {
        return print(world, entity, &mut Vec::new());
    };
    let models = population.models().iter();
    let models = models.filter_map(|&root| print(world, root, &mut Vec::new()));
    let models: Vec<_> = models.map(|model| ("", model)).collect();
    let list = with_children(&ModuleList::new(), &models);
    Some(list.replacen("ModuleList", "Population", 1))
}

/// Prints a module; `above` are those that it is printed in.
fn print(world: &World, module: Entity, above: &mut Vec<Entity>) -> Option<String> {
    let module = owner(world, module);
    let types = world.get_resource::<ModuleTypes>()?;
    let own = types.module(world.get_entity(module).ok()?)?;
    if above.contains(&module) {
        return Some(format!("{}(...)", own.type_name()));
    }
    above.push(module);
    let children: Vec<_> = named_children(world, module)
        .filter_map(|(name, child)| Some((name, print(world, child.entity, above)?)))
        .collect();
    above.pop();
    let children: Vec<_> = children.iter().map(|(name, text)| (&**name, text.clone())).collect();
    Some(with_children(own, &children))
}
