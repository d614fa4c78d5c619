//! Watching one brain: hooks on its layers write down what they gave.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use bevy::prelude::*;
use neurarch::plugin::BrainOf;
use neurarch::prelude::{NeurarchWorld, RemovableHandle, Tree};

use crate::simulation::Swarm;

/// The paths of the layers whose results are shown.
const LAYERS: [&str; 3] = ["1", "3", "5"];

/// The brain that is watched.
#[derive(Resource, Default)]
pub(crate) struct Watched {
    /// Its body.
    pub(crate) body: Option<Entity>,
    /// The number of the next brain.
    next: usize,
    hooks: Vec<RemovableHandle>,
    recorded: Arc<Mutex<BTreeMap<String, Vec<f32>>>>,
}

impl Watched {
    /// Returns what the layers gave last, in their order.
    pub(crate) fn layers(&self) -> Vec<Vec<f32>> {
        let recorded = self.recorded.lock();
        recorded.map_or(Vec::new(), |recorded| recorded.values().cloned().collect())
    }
}

/// Watches the next brain: a model with hooks, which runs apart from the others while it has them.
pub(crate) fn next(world: &mut World) -> Result<(), BevyError> {
    let brains = world.resource::<Swarm>().brains;
    let mut watched = world.remove_resource::<Watched>().unwrap_or_default();
    watched.hooks.drain(..).for_each(|hook| _ = hook.remove());
    let recorded = Arc::new(Mutex::new(BTreeMap::new()));
    let mut population = world.population_mut(brains)?;
    let index = watched.next % population.models()?.len().max(1);
    let root = population.models()?[index];
    for path in LAYERS {
        let record = recorded.clone();
        watched.hooks.push(population.model(index)?.at(path)?.register_forward_hook(
            move |at, _, y| {
                let y = at.array::<f32>(y.and_then(Tree::leaf).ok_or("no result")?)?;
                record
                    .lock()
                    .map_err(|_| "poisoned")?
                    .insert(at.path.to_owned(), y.iter().copied().collect());
                Ok(None)
            },
        )?);
    }
    watched.body = world.get::<BrainOf>(root).map(|of| of.0);
    (watched.next, watched.recorded) = (index + 97, recorded);
    world.insert_resource(watched);
    Ok(())
}
