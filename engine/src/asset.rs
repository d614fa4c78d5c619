//! Weights as assets of a Bevy app, with the feature `asset`: a file that the asset server loads goes into models, and again
//! whenever it was changed.
//!
//! * [`WeightsPlugin`]: adds the asset [`Weights`], its loader, and the system that puts weights into models.
//! * [`UseWeights`]: a component of a population's entity, or of a model's: which weights it has.

use bevy_app::prelude::*;
use bevy_asset::io::Reader;
use bevy_asset::prelude::*;
use bevy_asset::{AssetLoader, LoadContext};
use bevy_ecs::prelude::*;
use bevy_reflect::TypePath;

use crate::bevy::write;
use crate::components::warnings::Warnings;
use crate::systems::state::weights;
#[doc(inline)]
pub use crate::systems::state::weights::{WeightsError, WeightsOptions};

/// What a file has for models: a checkpoint of neurarch, or safetensors.
#[derive(Asset, TypePath, Debug)]
pub struct Weights(pub weights::Weights);

/// Has weights put into a module and all below it, or into all models of a population, once they are loaded and whenever
/// their file was changed. Models that are spawned later have weights of their own until then.
///
/// # Example
///
/// ```no_run
/// use bevy_app::{App, TaskPoolPlugin};
/// use bevy_asset::{AssetPlugin, AssetServer};
/// use neurarch::asset::{UseWeights, WeightsPlugin};
/// use neurarch::prelude::*;
///
/// let mut app = App::new();
/// app.add_plugins((TaskPoolPlugin::default(), AssetPlugin::default(), WeightsPlugin));
/// let brains = app.world_mut().spawn_population(&Linear::new(4, 2), 100, Seed(7))?.id();
/// let weights = app.world().resource::<AssetServer>().load("brains/walker.safetensors");
/// app.world_mut().entity_mut(brains).insert(UseWeights::new(weights));
/// app.run();
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Component, Clone, Debug)]
pub struct UseWeights {
    /// Which.
    pub weights: Handle<Weights>,
    /// How they are put into the models.
    pub options: WeightsOptions,
}

impl UseWeights {
    /// Puts tensors into each model alike, of a checkpoint each model into the one of its index.
    pub fn new(weights: Handle<Weights>) -> Self {
        UseWeights { weights, options: WeightsOptions::default() }
    }
}

/// Weights were put into models.
#[derive(Message, Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct WeightsPut {
    /// The entity with [`UseWeights`].
    pub entity: Entity,
    /// Which weights.
    pub weights: AssetId<Weights>,
}

/// Weights do not fit the models that are to have them. These are as they were.
#[derive(Message, Debug)]
pub struct WeightsFailed {
    /// The entity with [`UseWeights`].
    pub entity: Entity,
    /// Which weights.
    pub weights: AssetId<Weights>,
    /// Why.
    pub error: WeightsError,
}

/// Loads [`Weights`]: `.checkpoint`, `.rkyv` and `.safetensors`. Other names need the type to be given, as
/// `load::<Weights>("brain")`; what a file is, its first bytes say.
#[derive(TypePath, Debug, Default)]
pub struct WeightsLoader;

impl AssetLoader for WeightsLoader {
    type Asset = Weights;
    type Settings = ();
    type Error = WeightsError;

    async fn load(
        &self,
        reader: &mut dyn Reader,
        (): &(),
        context: &mut LoadContext<'_>,
    ) -> Result<Weights, WeightsError> {
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes).await?;
        Ok(Weights(weights::Weights::from_bytes(&bytes, context.path().path())?))
    }

    fn extensions(&self) -> &[&str] {
        &["checkpoint", "rkyv", "safetensors"]
    }
}

/// Adds the asset [`Weights`] to an app that has Bevy's `AssetPlugin`, and puts weights into models in `PreUpdate`.
#[derive(Clone, Copy, Debug, Default)]
pub struct WeightsPlugin;

impl Plugin for WeightsPlugin {
    fn build(&self, app: &mut App) {
        app.init_asset::<Weights>()
            .init_asset_loader::<WeightsLoader>()
            .add_message::<WeightsPut>()
            .add_message::<WeightsFailed>()
            .add_systems(PreUpdate, put_weights);
    }
}

/// Puts weights into models: those of a [`UseWeights`] that was inserted or changed, once they are loaded, and those that were
/// loaded anew. Tells it by [`WeightsPut`] and [`WeightsFailed`].
pub fn put_weights(
    world: &mut World,
    events: &mut bevy_ecs::system::SystemState<MessageReader<'_, '_, AssetEvent<Weights>>>,
    users: &mut QueryState<(Entity, Ref<'static, UseWeights>)>,
    mut waiting: Local<'_, Vec<Entity>>,
) {
    let Ok(mut events) = events.get_mut(world) else { return };
    let (mut added, mut modified) = (Vec::new(), Vec::new());
    for event in events.read() {
        match event {
            AssetEvent::Added { id } => added.push(*id),
            AssetEvent::Modified { id } => modified.push(*id),
            _ => {}
        }
    }
    let due = users.iter(world).filter(|(entity, of)| {
        let id = of.weights.id();
        // Who found them there when it came does not take them once more when they are said to be there.
        let is_added = added.contains(&id) && waiting.contains(entity);
        of.is_changed() || is_added || modified.contains(&id)
    });
    let due = due.map(|(entity, of)| (entity, UseWeights::clone(&of)));
    let mut due: Vec<(Entity, UseWeights)> = due.collect();
    if due.is_empty() {
        return;
    }
    waiting.retain(|entity| {
        world.get::<UseWeights>(*entity).is_some() && due.iter().all(|(other, _)| other != entity)
    });
    due.sort_unstable_by_key(|(entity, _)| *entity);
    world.resource_scope(|world, assets: Mut<'_, Assets<Weights>>| {
        for (entity, of) in due {
            let id = of.weights.id();
            let Some(found) = assets.get(id) else {
                waiting.push(entity);
                continue;
            };
            match found.0.put(world, entity, of.options) {
                Ok(()) => write(world, [WeightsPut { entity, weights: id }]),
                Err(error) => {
                    Warnings::of(world).warn("weights", &format!("{entity}: {error}"));
                    write(world, [WeightsFailed { entity, weights: id, error }]);
                }
            }
        }
    });
}
