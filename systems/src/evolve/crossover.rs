//! Crossover: models become mixtures of two others.

use bevy_ecs::prelude::*;
use neurarch_kernels::cpu::random::{CROSSOVER, Draw, GROUP};

use super::EvolveError;
use super::family::{Family, advance, count, group, keys};

/// Makes every model a mixture of two: each parameter and buffer of model `i` is that of model
/// `parents[i].0` or that of model `parents[i].1`, with equal chances, as they were before.
///
/// A parameter comes whole, with its gradient and its optimizer state. The choice follows from the
/// population's seed, the model's number and how often the model has drawn random numbers: so the next call
/// chooses anew, and a model chooses the same alone or among others. Where both parents are one model
/// nothing is drawn. All else stays, as in [`overwrite`](super::overwrite).
///
/// # Shape
///
/// `parents` is `[models]`: pairs of indices.
///
/// # Errors
///
/// As [`overwrite`](super::overwrite), for either parent.
pub fn crossover(
    world: &mut World,
    population: Entity,
    parents: &[(usize, usize)],
) -> Result<(), EvolveError> {
    let families = Family::list(world, population, parents.iter().map(|&(a, b)| [a, b]))?;
    for family in families {
        let Some(of) = group(world, population, family.group) else { continue };
        let (_, columns) = count(of);
        let mut sources = vec![Vec::with_capacity(family.parents.len()); columns];
        for (key, parents) in keys(world, population, family.group).into_iter().zip(&family.parents)
        {
            let draw = Draw::new(key, CROSSOVER);
            let mut words = [0; GROUP];
            for (column, sources) in sources.iter_mut().enumerate() {
                let (word, bit) = (column / 32, column % 32);
                if word % GROUP == 0 && bit == 0 && parents[0] != parents[1] {
                    words = draw.words((word / GROUP) as u32);
                }
                sources.push(parents[(words[word % GROUP] >> bit & 1) as usize]);
            }
        }
        if columns > 0 {
            family.copy(world, population, sources)?;
        }
        let parents = family.parents.iter().enumerate();
        let mixed = parents.filter(|(_, [a, b])| a != b).map(|(place, _)| place);
        advance(world, population, family.group, mixed.collect::<Vec<_>>());
    }
    Ok(())
}
