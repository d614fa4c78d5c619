//! [`Sums`]: gradients of shared parameters, summed over the models while these go back.

use bevy_ecs::prelude::*;
use neurarch_components::column::shared::SharedTensors;
use neurarch_kernels::cpu::row_sum::RowSum;
use neurarch_kernels::ir::program::Role;
use neurarch_kernels::memory::{AlignedBytes, padded};

use super::order::{Chunk, Chunks};
use crate::compile::plans::Planned;
use crate::errors::StepError;
use crate::execute::cohort::{Cohort, Cohorts};
use crate::execute::route::Route;
use crate::storage::launch::{Buffers, Job, Output, Read, Write};

/// The gradients that the models of a cohort which ran eagerly have of shared parameters: the place of each
/// among what the population shares, and the rows of all members side by side.
pub(crate) type EagerGradients = Vec<(usize, Vec<u8>)>;

/// Gradients of shared parameters, in the making.
pub(crate) struct Sums {
    of: Vec<Summed>,
    /// Bytes that the gradients of one model take.
    row_bytes: usize,
    /// The gradients of a chunk's models; lent by [`Chunks`].
    rows: AlignedBytes,
}

/// The gradient of one parameter.
struct Summed {
    /// The parameter's place among what is shared.
    place: usize,
    /// Where it lies in a model's row.
    offset: usize,
    bytes: usize,
    sum: RowSum,
}

impl Sums {
    /// Prepares for what a population shares; `None` if it shares nothing that has gradients.
    pub(crate) fn of(world: &World, population: Entity) -> Option<Self> {
        let tensors = world.get::<SharedTensors>(population)?;
        let mut row_bytes = 0;
        let parameters = tensors.iter().filter(|(_, of)| of.role == Role::Parameter);
        let floats = parameters.filter(|(_, of)| of.ty.dtype.is_float());
        let of = floats.map(|(place, of)| {
            let (offset, bytes) = (row_bytes, of.ty.size_bytes());
            row_bytes += padded(bytes);
            Summed { place, offset, bytes, sum: RowSum::new(&of.ty) }
        });
        let of: Vec<_> = of.collect();
        (!of.is_empty()).then(|| Sums { of, row_bytes, rows: AlignedBytes::default() })
    }

    /// Returns the bytes that the gradients of one model take.
    pub(crate) fn row_bytes(&self) -> usize {
        self.row_bytes
    }

    /// Returns the place of each parameter that some model had a gradient of, and the sum.
    pub(crate) fn finish(self) -> Vec<(usize, Vec<u8>)> {
        let all = self.of.into_iter();
        all.filter_map(|of| Some((of.place, of.sum.finish()?))).collect()
    }

    /// Says where a parameter's gradient goes.
    fn output(&self, place: usize) -> Output {
        let found = self.of.iter().find(|of| of.place == place);
        let offset = found.map_or(0, |of| of.offset);
        Output { array: 1, offset, step_bytes: 0 }
    }

    /// Puts the gradients of members that ran eagerly where those of the others are.
    fn take(&mut self, chunk: &Chunk, number: usize, gradients: &EagerGradients) {
        for (place, all) in gradients {
            let Some(of) = self.of.iter().find(|of| of.place == *place) else { continue };
            let (offset, bytes) = (of.offset, of.bytes);
            for (row, &(cohort, member)) in chunk.models.iter().enumerate() {
                if cohort as usize == number {
                    let from = &all[member as usize * bytes..][..bytes];
                    self.rows.bytes_mut()[row * self.row_bytes + offset..][..bytes]
                        .copy_from_slice(from);
                }
            }
        }
    }

    /// Adds the gradients of a chunk's models, of those cohorts that have one.
    fn add(&mut self, chunk: &Chunk, has: impl Fn(usize, usize) -> bool) {
        let (row_bytes, all) = (self.row_bytes, self.rows.bytes());
        for Summed { place, offset, bytes, sum } in &mut self.of {
            let rows = chunk.models.iter().enumerate();
            let rows = rows.filter(|(_, (cohort, _))| has(*cohort as usize, *place));
            let rows = rows.map(|(row, _)| &all[row * row_bytes + *offset..][..*bytes]);
            sum.add(&rows.collect::<Vec<_>>());
        }
    }
}

/// A pass back through all models of a population.
pub(crate) struct Pass<'a> {
    /// For each cohort, its route.
    pub(crate) chosen: &'a dyn Fn(usize) -> Route,
    /// What a plan reads.
    pub(crate) inputs: &'a dyn Fn(&Planned) -> Vec<Read<'a>>,
    /// For each cohort, what it found if it ran eagerly.
    pub(crate) eager: &'a [(usize, EagerGradients)],
}

/// The array of a pass that has an output of its own: the losses.
pub(crate) struct Losses<'a> {
    pub(crate) bytes: &'a mut [u8],
    /// Bytes from model to model.
    pub(crate) stride: usize,
    /// Where a step's loss lies in a row.
    pub(crate) offset: usize,
}

/// Runs plans on all models, chunk by chunk in the order of their numbers, and sums the gradients that they
/// give of shared parameters.
pub(crate) fn run_summed(
    world: &mut World,
    cohorts: &mut Cohorts,
    chunks: &mut Chunks,
    buffers: &mut Buffers,
    sums: &mut Sums,
    pass: &Pass<'_>,
    mut losses: Option<Losses<'_>>,
) -> Result<(), StepError> {
    let eager = |cohort: usize| pass.eager.iter().find(|(of, _)| *of == cohort).map(|(_, of)| of);
    std::mem::swap(&mut sums.rows, &mut chunks.rows);
    for chunk in &mut chunks.list {
        sums.rows.reserve(sums.row_bytes * chunk.models.len());
        for number in 0..chunk.parts.len() {
            let cohort = chunk.parts[number].cohort;
            if let Some(gradients) = eager(cohort) {
                sums.take(chunk, cohort, gradients);
                continue;
            }
            let Cohort { ready, keys, .. } = &cohorts.list[cohort];
            let Some(ready) = (pass.chosen)(cohort).planned(ready) else { continue };
            let planned = &ready.planned;
            let inputs = (pass.inputs)(planned);
            let own = losses.iter().map(|of| Output { array: 0, offset: of.offset, step_bytes: 0 });
            let shared = planned.shared.iter().map(|&place| sums.output(place));
            let outputs: Vec<_> = own.chain(shared).collect();
            let own_keys = ready.keys(keys);
            let (scalars, keys, at, rows) = chunk.parts[number].pick(ready, own_keys);
            let job = Job { outputs: &outputs, scalars, keys, ..ready.job(&inputs) };
            let first = match &mut losses {
                Some(losses) => Write::new(&mut *losses.bytes, losses.stride),
                None => Write::new::<u8>(&mut [], 0),
            };
            let gradients = Write::listed(sums.rows.bytes_mut(), sums.row_bytes, rows);
            let mut queue = buffers.queue();
            queue.push(at, [job]);
            queue.launch(world, &mut [first, gradients], buffers)?;
        }
        sums.add(chunk, |cohort, place| match eager(cohort) {
            Some(gradients) => gradients.iter().any(|(own, _)| *own == place),
            None => {
                let ready = (pass.chosen)(cohort).planned(&cohorts.list[cohort].ready);
                ready.is_some_and(|ready| ready.planned.shared.contains(&place))
            }
        });
    }
    std::mem::swap(&mut sums.rows, &mut chunks.rows);
    Ok(())
}
