//! What tests compare: the bits of all parameters.

use neurarch::prelude::*;

/// Gives the bits of all parameters of each model.
pub(crate) fn bits(world: &mut World, population: Entity) -> Vec<Vec<u32>> {
    let models = world.models(population).expect("a population").to_vec();
    let bits = |root| {
        let names = world.parameter_names(root).expect("a model");
        let numbers = names.iter().map(|name| world.parameter::<f32>(root, name).expect("of f32"));
        numbers.flatten().map(f32::to_bits).collect()
    };
    models.into_iter().map(bits).collect()
}
