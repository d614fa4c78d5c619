//! Signing: the entity tree of a model becomes its blueprint, again after each change of its structure.
//!
//! What changed is known from lifecycle hooks of the layer components and of `Registered`, from the tables that the modules lie
//! in, and from the change ticks of `Children` (whose order fires nothing). `change::sign` looks at those models alone and
//! changes nothing: it gives a `ChangeSet`. `apply::apply` carries that out: a model that changed moves to the group of its
//! new blueprint, its neighbors stay where they are.

use bevy_ecs::prelude::*;

use crate::draw::Draw;
pub use crate::errors::SignError;
use crate::structure::membership::check;

mod apply;
mod change;
mod look;

pub(crate) use change::would_change;
pub use look::Signed;
pub(crate) use look::look_away;

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

/// [`refresh`], which says how what is new draws its first numbers.
pub(crate) fn refresh_drawing(
    world: &mut World,
    population: Entity,
    draw: Draw,
) -> Result<(), SignError> {
    if check(world, population)?.is_stale() {
        apply::regroup(world, population);
    }
    let mut signed = Signed::take(world, population);
    let changes = change::sign(world, population, &mut signed);
    signed.put_back(world, population);
    apply::apply(world, population, changes, draw)
}
