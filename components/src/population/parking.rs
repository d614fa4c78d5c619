//! [`Parking`] and [`Parked`]: dead models whose rows wait for a birth.

use bevy_ecs::lifecycle::HookContext;
use bevy_ecs::prelude::*;
use bevy_ecs::world::DeferredWorld;
use serde::{Deserialize, Serialize};

use crate::population::Population;
use crate::population::tree::Model;

/// A population whose dead models are parked, not despawned: a component of its entity.
///
/// A birth takes a parked model before it spawns one, so that neither deaths nor births move a row.
#[derive(Component, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parking {
    /// The parked models, the last one that died at the end; some may be gone. `None` until they are first asked for.
    #[serde(skip)]
    free: Option<Vec<Entity>>,
}

/// A dead model that waits for a birth: a component of its root, beside a [`Mode`](crate::module::mode::Mode) that is
/// inactive. It keeps its entities, its index and its rows.
#[derive(Component, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[component(storage = "SparseSet", on_insert = list)]
pub struct Parked;

impl Parking {
    /// Returns whether the parked models are listed.
    pub fn is_listed(&self) -> bool {
        self.free.is_some()
    }

    /// Says which models are parked.
    pub fn set_listed(&mut self, free: Vec<Entity>) {
        self.free = Some(free);
    }

    /// Takes the last one of the listed models that `is_fit` says.
    pub fn take(&mut self, is_fit: impl Fn(Entity) -> bool) -> Option<Entity> {
        let free = self.free.as_mut()?;
        let place = free.iter().rposition(|&root| is_fit(root))?;
        Some(free.remove(place))
    }
}

/// Lists a model with the parked ones of its population.
fn list(mut world: DeferredWorld<'_>, context: HookContext) {
    let Some(&Model { population, .. }) = world.get::<Model>(context.entity) else { return };
    if world.get::<Population>(population).is_some()
        && let Some(mut parking) = world.get_mut::<Parking>(population)
        && let Some(free) = &mut parking.free
    {
        free.push(context.entity);
    }
}
