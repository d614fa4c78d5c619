//! What tests compare: the bits of all parameters.

use neurarch::prelude::*;

/// Gives the bits of all parameters of each model.
pub(crate) fn bits(world: &mut World, population: Entity) -> Vec<Vec<u32>> {
    let models = world.population(population).expect("a population").models().to_vec();
    let bits = |root| {
        let names = world.module_mut(root).unwrap().parameter_names().expect("a model");
        let numbers = names
            .iter()
            .map(|name| world.module_mut(root).unwrap().parameter::<f32>(name).expect("of f32"));
        numbers.flatten().map(f32::to_bits).collect()
    };
    models.into_iter().map(bits).collect()
}
