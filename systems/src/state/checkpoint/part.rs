//! [`Part`]: which models of a checkpoint are asked for, and where they go.

use std::ops::{Bound, RangeBounds};

use bevy_ecs::prelude::*;
use neurarch_components::population::tree::Model;

use super::error::CheckpointError;
use super::index::{GroupEntry, ModuleEntry, PopulationEntry};
use super::open::Checkpoint;

/// Some models of a population in a checkpoint.
pub(super) struct Part<'a> {
    pub(super) checkpoint: &'a Checkpoint,
    /// The population's number.
    population: usize,
    /// Structures of which there are such models.
    groups: Vec<Chosen<'a>>,
}

/// Some models of a structure.
pub(super) struct Chosen<'a> {
    pub(super) checkpoint: &'a Checkpoint,
    pub(super) entry: &'a GroupEntry,
    /// Which members of the group in the file.
    pub(super) members: Vec<u32>,
    /// The indices that they have where they go, ascending.
    pub(super) indices: Vec<u32>,
}

impl<'a> Chosen<'a> {
    /// Returns the modules of the structure.
    pub(super) fn entries(&self) -> &'a [ModuleEntry] {
        self.entry.modules.of(&self.checkpoint.index().modules)
    }

    /// Pairs the entities that their modules were with those that they are, by position and model.
    pub(super) fn entities(
        &self,
        modules: &[Vec<Entity>],
    ) -> Result<Vec<(Entity, Entity)>, CheckpointError> {
        let mut pairs = Vec::new();
        for (entry, entities) in self.entries().iter().zip(modules) {
            let before = self.checkpoint.numbers::<u64>(entry.entities)?;
            let before = self.members.iter().map(|&member| before[member as usize]);
            let before = before.map(Entity::try_from_bits).zip(entities);
            pairs.extend(before.filter_map(|(old, &new)| Some((old?, new))));
        }
        Ok(pairs)
    }

    /// Gives the models, by their roots, the numbers that they had.
    pub(super) fn set_numbers(
        &self,
        world: &mut World,
        roots: &[Entity],
    ) -> Result<(), CheckpointError> {
        let numbers = self.checkpoint.numbers::<u64>(self.entry.numbers)?;
        for (&root, &member) in roots.iter().zip(&self.members) {
            if let Some(mut model) = world.get_mut::<Model>(root) {
                model.number = numbers[member as usize];
            }
        }
        Ok(())
    }

    /// Chooses those of them that go to some indices, which ascend.
    pub(super) fn within(&self, indices: &[u32]) -> Chosen<'a> {
        let Chosen { checkpoint, entry, .. } = *self;
        let all = self.members.iter().copied().zip(self.indices.iter().copied());
        let chosen = all.filter(|(_, index)| indices.binary_search(index).is_ok());
        let (members, indices) = chosen.unzip();
        Chosen { checkpoint, entry, members, indices }
    }
}

impl<'a> Part<'a> {
    /// Chooses models by pairs of an index here and one where it goes; all, to the indices that they had, without a list.
    pub(super) fn over(
        checkpoint: &'a Checkpoint,
        population: usize,
        models: Option<&[(usize, usize)]>,
    ) -> Result<Self, CheckpointError> {
        let all = checkpoint.models(population);
        let all = all.ok_or(CheckpointError::NoSuchPopulation {
            index: population,
            populations: checkpoint.populations(),
        })?;
        let Some(models) = models else { return Part::all(checkpoint, population) };
        let from: Vec<_> = models.iter().map(|&(from, _)| from).collect();
        let places = places(&from, all)?;
        let to = |index: u32| Some(models[places[index as usize]? as usize].1 as u32);
        Part::new(checkpoint, population, to)
    }

    /// Chooses all models, at the indices that they had.
    pub(super) fn all(
        checkpoint: &'a Checkpoint,
        population: usize,
    ) -> Result<Self, CheckpointError> {
        Part::new(checkpoint, population, Some)
    }

    /// Chooses some models, in the order in which they are listed.
    pub(super) fn some(
        checkpoint: &'a Checkpoint,
        population: usize,
        models: &[usize],
    ) -> Result<Self, CheckpointError> {
        let pairs: Vec<_> = models.iter().copied().zip(0..).collect();
        Part::over(checkpoint, population, Some(&pairs))
    }

    /// Chooses models of several checkpoints, each of which has a part of one population as its first: by the order of their
    /// numbers.
    pub(super) fn of_shards(
        shards: &'a [Checkpoint],
        models: impl RangeBounds<usize>,
    ) -> Result<Vec<Self>, CheckpointError> {
        let none = CheckpointError::NoSuchPopulation { index: 0, populations: 0 };
        let first = shards.first().and_then(|of| of.index().populations.first()).ok_or(none)?;
        let mut numbers = Vec::new();
        for (shard, checkpoint) in shards.iter().enumerate() {
            let of = checkpoint.index().populations.first();
            let is_of = |of: &&PopulationEntry| of.seed == first.seed && of.dtype == first.dtype;
            let wrong = || CheckpointError::Shard { path: checkpoint.path().to_owned() };
            of.filter(is_of).ok_or_else(wrong)?;
            for group in checkpoint.groups(0) {
                let of_group = checkpoint.numbers::<u64>(group.numbers)?;
                let indices = checkpoint.numbers::<u32>(group.indices)?;
                numbers
                    .extend(of_group.into_iter().zip(indices).map(|(n, index)| (n, shard, index)));
            }
        }
        numbers.sort_unstable();
        if let Some(pair) = numbers.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            let path = shards[pair[1].1].path().to_owned();
            return Err(CheckpointError::Shard { path });
        }
        let chosen = range(models, numbers.len());
        let mut places: Vec<_> =
            shards.iter().map(|of| vec![None; of.models(0).unwrap_or(0)]).collect();
        for (place, (_, shard, index)) in numbers[chosen].iter().enumerate() {
            if let Some(of) = places[*shard].get_mut(*index as usize) {
                *of = Some(place as u32);
            }
        }
        let parts = shards.iter().zip(&places);
        parts.map(|(of, places)| Part::new(of, 0, |index| places[index as usize])).collect()
    }

    /// Chooses models by their indices, to each of which `place` gives the one that it is to have.
    fn new(
        checkpoint: &'a Checkpoint,
        population: usize,
        place: impl Fn(u32) -> Option<u32>,
    ) -> Result<Self, CheckpointError> {
        let mut groups = Vec::new();
        for (entry, indices) in
            checkpoint.groups(population).iter().zip(checkpoint.indices(population)?)
        {
            let members = (0..).zip(indices);
            let chosen = members.filter_map(|(member, index)| Some((place(index)?, member)));
            let mut chosen: Vec<(u32, u32)> = chosen.collect();
            chosen.sort_unstable();
            let (indices, members) = chosen.into_iter().unzip();
            groups.push(Chosen { checkpoint, entry, members, indices });
        }
        groups.retain(|group: &Chosen<'_>| !group.members.is_empty());
        Ok(Part { checkpoint, population, groups })
    }

    /// Returns the population's entry in the index.
    pub(super) fn entry(&self) -> &'a PopulationEntry {
        &self.checkpoint.index().populations[self.population]
    }

    /// Lists the structures.
    pub(super) fn groups(&self) -> impl Iterator<Item = &Chosen<'a>> {
        self.groups.iter()
    }

    /// Checks all that is going to be read of the file: all of it if all models are chosen.
    pub(super) fn verify(&self) -> Result<(), CheckpointError> {
        let chosen: usize = self.groups.iter().map(|group| group.members.len()).sum();
        if chosen as u64 == self.entry().models {
            return self.checkpoint.verify();
        }
        let index = self.checkpoint.index();
        for column in self.entry().columns.of(&index.columns) {
            self.checkpoint.section(column.rows)?;
        }
        for group in &self.groups {
            for column in group.entries().iter().flat_map(|of| of.columns.of(&index.columns)) {
                self.checkpoint.check_rows(column, &group.members)?;
            }
        }
        Ok(())
    }
}

/// Returns for each of `all` models its place among some that are asked for.
pub(super) fn places(models: &[usize], all: usize) -> Result<Vec<Option<u32>>, CheckpointError> {
    let mut places = vec![None; all];
    for (place, &model) in models.iter().enumerate() {
        let missing = CheckpointError::NoSuchModel { index: model, models: all };
        let at = places.get_mut(model).ok_or(missing)?;
        if at.replace(place as u32).is_some() {
            return Err(CheckpointError::Twice { index: model });
        }
    }
    Ok(places)
}

/// Cuts a range to so many models.
pub(super) fn range(models: impl RangeBounds<usize>, all: usize) -> std::ops::Range<usize> {
    let start = match models.start_bound() {
        Bound::Included(&start) => start,
        Bound::Excluded(&start) => start.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match models.end_bound() {
        Bound::Included(&end) => end.saturating_add(1),
        Bound::Excluded(&end) => end,
        Bound::Unbounded => all,
    };
    start.min(all)..end.clamp(start.min(all), all)
}

impl Checkpoint {
    /// Returns the indices of the members of each group of a population: all there are, each once.
    pub(super) fn indices(&self, population: usize) -> Result<Vec<Vec<u32>>, CheckpointError> {
        let groups = self.groups(population).iter();
        let indices = groups.map(|group| self.numbers::<u32>(group.indices));
        let indices = indices.collect::<Result<Vec<_>, _>>()?;
        let mut all: Vec<u32> = indices.iter().flatten().copied().collect();
        all.sort_unstable();
        let are_all = all.iter().enumerate().all(|(place, &index)| place == index as usize);
        match are_all && indices.iter().all(|of| of.is_sorted()) {
            true => Ok(indices),
            false => Err(CheckpointError::index("the indices of models are not each there once")),
        }
    }
}
