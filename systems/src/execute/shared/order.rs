//! [`Chunks`]: the models of all cohorts in the order of their numbers, some at a time.

use bevy_ecs::prelude::*;
use neurarch_components::population::Population;
use neurarch_components::population::tree::Model;
use neurarch_kernels::cpu::tile::Key;
use neurarch_kernels::memory::AlignedBytes;

use crate::compile::plans::Plans;
use crate::execute::cohort::{Cohort, Cohorts};
use crate::execute::ready::Ready;
use crate::storage::bind::Located;
use crate::storage::launch::Listed;
use crate::storage::members::Members;

/// Bytes of gradients that are there at a time: what a population of ten thousand has of a parameter of 800
/// numbers.
const CHUNK_BYTES: usize = 1 << 25;

/// How many models run at a time however long their gradients are: enough for all threads.
const LEAST: usize = 16;

/// The models of all cohorts in the order of their numbers, cut where their gradients of shared parameters
/// would take too much memory. Where it is cut changes no bit.
#[derive(Default)]
pub(crate) struct Chunks {
    /// Which grouping into cohorts this is about, and how many models a chunk has.
    of: Option<(u64, u64, usize)>,
    pub(super) list: Vec<Chunk>,
    /// The gradients of a chunk's models: memory to use again.
    pub(super) rows: AlignedBytes,
}

/// Some models, one behind the other in the order of numbers.
#[derive(Default)]
pub(super) struct Chunk {
    pub(super) parts: Vec<Part>,
    /// For each model in order, its cohort, and its place there.
    pub(super) models: Vec<(u32, u32)>,
}

/// The models of a chunk that are of one cohort.
pub(super) struct Part {
    /// The cohort's place in the list.
    pub(super) cohort: usize,
    pub(super) at: Located,
    /// Their places in the cohort; `None` if they are all of it.
    members: Option<Vec<u32>>,
    /// Their places in the chunk.
    pub(super) rows: Listed,
    scalars: Vec<f64>,
    keys: Vec<Key>,
}

impl Chunks {
    /// Lists the models anew if they, or their cohorts, are others; `row_bytes` is what a model's gradients
    /// take.
    pub(crate) fn refresh(
        &mut self,
        world: &World,
        population: Entity,
        cohorts: &Cohorts,
        row_bytes: usize,
    ) {
        let forced = world.get_resource::<Plans>().and_then(|plans| plans.chunk);
        let size = forced.unwrap_or((CHUNK_BYTES / row_bytes.max(1)).max(LEAST)).max(1);
        let version = world.get::<Population>(population).map_or(0, Population::version);
        let of = Some((cohorts.regrouped, version, size));
        if self.of == of {
            return;
        }
        self.of = of;
        self.list.clear();
        let Some(found) = world.get::<Population>(population) else { return };
        let mut models = Vec::with_capacity(found.len());
        for (number, cohort) in cohorts.list.iter().enumerate() {
            for (member, index) in cohort.at.members.indices().enumerate() {
                let model = world.get::<Model>(found.models()[index]);
                let own = model.map_or(u64::MAX, |model| model.number);
                models.push((own, number as u32, member as u32));
            }
        }
        models.sort_unstable();
        let chunks = models.chunks(size).map(|models| {
            let models = models.iter().map(|&(_, cohort, member)| (cohort, member)).collect();
            Chunk::new(models, cohorts, found.len())
        });
        self.list = chunks.collect();
    }
}

impl Chunk {
    fn new(models: Vec<(u32, u32)>, cohorts: &Cohorts, population: usize) -> Self {
        let parts = cohorts.list.iter().enumerate().filter_map(|(number, cohort)| {
            let rows = models.iter().enumerate();
            let own = rows.filter(|(_, (of, _))| *of as usize == number);
            let mut own: Vec<_> = own.map(|(row, &(_, member))| (member, row as u32)).collect();
            own.sort_unstable();
            Part::new(number, cohort, &own, population)
        });
        Chunk { parts: parts.collect(), models }
    }
}

impl Part {
    /// Makes the part of members of a cohort (ascending) with their places in the chunk; `None` if there are
    /// none.
    fn new(number: usize, cohort: &Cohort, own: &[(u32, u32)], population: usize) -> Option<Self> {
        let &(first, _) = own.first()?;
        let (located, indices) = (&cohort.at, cohort.at.members.indices().collect::<Vec<_>>());
        let index = |member: u32| indices[member as usize] as u32;
        let mut members = Members::first(population, index(first));
        own[1..].iter().for_each(|&(member, _)| members.push(index(member)));
        members.settle();
        let is_whole = own.len() == indices.len();
        Some(Part {
            cohort: number,
            at: Located::new(located.population, located.group, members),
            members: (!is_whole).then(|| own.iter().map(|&(member, _)| member).collect()),
            rows: Listed::new(own.iter().map(|&(_, row)| row)),
            scalars: Vec::new(),
            keys: Vec::new(),
        })
    }

    /// Picks the members' numbers out of those of the cohort; gives scalars and random states as a
    /// job takes them, and what else a launch of the part needs.
    pub(super) fn pick<'a>(
        &'a mut self,
        ready: &'a Ready,
        keys: &'a [Key],
    ) -> (&'a [f64], &'a [Key], &'a mut Located, &'a Listed) {
        let Part { at, members, rows, scalars, keys: own_keys, .. } = self;
        let Some(members) = members else { return (&ready.scalars, keys, at, rows) };
        scalars.clear();
        own_keys.clear();
        let n_scalars = ready.planned.plan.program.scalars.len();
        let of_cohort = ready.scalars.len() / n_scalars.max(1);
        for scalar in 0..n_scalars {
            let start = scalar * of_cohort;
            scalars.extend(members.iter().map(|&member| ready.scalars[start + member as usize]));
        }
        if !keys.is_empty() {
            own_keys.extend(members.iter().map(|&member| keys[member as usize]));
        }
        (scalars, own_keys, at, rows)
    }
}
