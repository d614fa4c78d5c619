//! Entities in components, on their way into a file and out of it.
//!
//! An entity of the same model is written as the place of its module, so that components of models that are alike have equal
//! bytes; any other one as it is.

use bevy_ecs::entity::{EntityGeneration, EntityHashMap, EntityIndex, EntityMapper};
use bevy_ecs::prelude::*;
use neurarch_components::population::group::Group;
use neurarch_components::population::tree::Columned;

/// The generation of an entity that is a place: none ever reaches it.
const PLACE: EntityGeneration = EntityGeneration::from_bits(u32::MAX);

/// Returns what stands in a file for the module at a position of the same model.
fn place(position: usize) -> Option<Entity> {
    let index = EntityIndex::from_raw_u32(u32::try_from(position).ok()?)?;
    Some(Entity::from_index_and_generation(index, PLACE))
}

/// Gives entities of one model their places.
pub(super) struct Places<'w> {
    pub(super) world: &'w World,
    /// The model's group, and its place there; none for a population.
    pub(super) of: Option<(&'w Group, usize)>,
}

impl EntityMapper for Places<'_> {
    fn get_mapped(&mut self, source: Entity) -> Entity {
        let Some((group, member)) = self.of else { return source };
        let position = self.world.get::<Columned>(source).map(|of| of.contents().position);
        let is_own = |&position: &usize| {
            let modules = group.modules.get(position);
            modules.and_then(|modules| modules.get(member)) == Some(&source)
        };
        position.filter(is_own).and_then(place).unwrap_or(source)
    }

    fn set_mapped(&mut self, _: Entity, _: Entity) {}
}

/// Gives places and entities of a file the entities that stand for them.
pub(super) struct Mapper<'a> {
    known: &'a EntityHashMap<Entity>,
    /// The modules of models, by position and model; none for a population.
    modules: &'a [Vec<Entity>],
    /// Which of these models.
    member: usize,
    /// Whether an entity was not known.
    pub(super) missed: bool,
}

impl<'a> Mapper<'a> {
    pub(super) fn new(
        known: &'a EntityHashMap<Entity>,
        modules: &'a [Vec<Entity>],
        member: usize,
    ) -> Self {
        Mapper { known, modules, member, missed: false }
    }
}

impl EntityMapper for Mapper<'_> {
    fn get_mapped(&mut self, source: Entity) -> Entity {
        let found = match source.generation() {
            PLACE => {
                let modules = self.modules.get(source.index_u32() as usize);
                modules.and_then(|modules| modules.get(self.member))
            }
            _ => self.known.get(&source),
        };
        self.missed |= found.is_none() && source != Entity::PLACEHOLDER;
        found.copied().unwrap_or(Entity::PLACEHOLDER)
    }

    fn set_mapped(&mut self, _: Entity, _: Entity) {}
}
