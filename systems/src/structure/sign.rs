//! Signing: the entity tree of a model becomes its blueprint, again after each change of its structure.
//!
//! What changed is known from lifecycle hooks of the layer components and of `Registered`, from the tables that the modules lie
//! in, and from the change ticks of `Children` (whose order fires nothing). `change::sign` looks at those models alone and
//! changes nothing: it gives a `ChangeSet`. `apply::apply` carries that out: a model that changed moves to the group of its
//! new blueprint, its neighbors stay where they are.

use bevy_ecs::prelude::*;
use neurarch_components::population::tree::Model;

use crate::draw::Draw;
pub use crate::errors::SignError;
use crate::structure::membership::{Known, check, check_group, check_resources, place};

mod apply;
mod change;
mod look;

pub(crate) use change::would_change;
pub use look::Signed;
pub(crate) use look::look_away;

/// With more changes than these all models are signed, and the list is empty again.
const FEW_CHANGES: usize = 64;

/// A look at so many structures takes less than reading the tree of one model.
const FEW_STRUCTURES: usize = 16;

/// Signs the models of a population that changed, and gives parameters that are new their first numbers.
/// Cheap if none did: a few comparisons for each table, and one for each module with children.
///
/// # Errors
///
/// [`SignError`] of the first model that is none; it stays as it was, and is signed again next time. The
/// others are signed.
pub fn refresh(world: &mut World, population: Entity) -> Result<(), SignError> {
    refresh_drawing(world, population, Draw::First)
}

/// Brings one model up to date. Among many structures that takes a look at its own tree alone if nothing about it
/// changed, and little about others; else all models are [signed](refresh).
///
/// # Errors
///
/// As [`refresh`].
pub(crate) fn refresh_model(
    world: &mut World,
    population: Entity,
    root: Entity,
) -> Result<(), SignError> {
    let Known { population: found, blueprints, types } = check_resources(world, population)?;
    let told = types.changed().len();
    let has_many = found.groups().len() > FEW_STRUCTURES;
    if has_many && !found.is_stale() && told + found.unsigned().len() <= FEW_CHANGES {
        let group = world.get::<Model>(root).and_then(|model| place(found, root, model));
        if let Some((group, _)) = group {
            check_group(world, population, blueprints, &found.groups()[group])?;
        }
        if !would_change(world, population, root) {
            return Ok(());
        }
    }
    refresh(world, population)
}

/// [`refresh`], which says how what is new draws its first numbers.
pub(crate) fn refresh_drawing(
    world: &mut World,
    population: Entity,
    draw: Draw,
) -> Result<(), SignError> {
    let known = check(world, population)?;
    if look::is_quiet(world, population, known) {
        return Ok(());
    }
    if known.population.is_stale() {
        apply::regroup(world, population);
    }
    let mut signed = Signed::take(world, population);
    let changes = change::sign(world, population, &mut signed);
    signed.put_back(world, population);
    apply::apply(world, population, changes, draw)
}

#[cfg(test)]
mod tests {
    use neurarch_components::layers::{Linear, Sequential, Tanh};
    use neurarch_components::population::Population;
    use neurarch_kernels::ir::dtype::Dtype;

    use super::*;
    use crate::structure::access::module;
    use crate::structure::spawn::spawn_population;

    #[test]
    fn a_model_among_many_structures_is_signed_alone_while_little_changed() {
        let mut world = World::new();
        let net = Sequential::new().push(Linear::new(2, 3)).push(Tanh);
        let models = FEW_STRUCTURES + FEW_CHANGES + 3;
        let population = spawn_population(&mut world, &net, models, models, 1, Dtype::F32).unwrap();
        let roots = world.get::<Population>(population).unwrap().models().to_vec();
        let groups = |world: &World| world.get::<Population>(population).unwrap().groups().len();
        let edit = |world: &mut World, root: Entity, width: usize| {
            let linear = module(world, root, "0").unwrap();
            world.entity_mut(linear).insert(Linear::new(2, width));
        };
        let (some, others) = roots.split_at(FEW_STRUCTURES + 1);
        for (number, &root) in some.iter().enumerate() {
            edit(&mut world, root, 10 + number);
        }
        refresh(&mut world, population).unwrap();
        let before = groups(&world);
        assert_eq!(before, FEW_STRUCTURES + 2);
        edit(&mut world, others[0], 4);
        module(&mut world, others[1], "0").unwrap();
        assert_eq!(groups(&world), before, "the other model is as it was");
        module(&mut world, others[0], "0").unwrap();
        assert_eq!(groups(&world), before + 1);
        for &root in &others[1..] {
            edit(&mut world, root, 4);
        }
        module(&mut world, some[0], "0").unwrap();
        let all = world.get::<Population>(population).unwrap().groups();
        assert!(all.iter().any(|group| group.members.len() > FEW_CHANGES / 2));
    }
}
