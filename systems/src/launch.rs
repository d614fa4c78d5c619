//! The one call into the executor: arrays, checked, become the rows that [`executor::run`] works on.
#![expect(unsafe_code, reason = "the executor takes addresses")]

use std::marker::PhantomData;

use neurarch_kernels::cpu::executor::{self, Binding, Gather, Sink, Source, Stage};
use neurarch_kernels::cpu::tile::{Key, Rows};
use neurarch_kernels::dtype::Element;
use neurarch_kernels::passes::plan::Plan;

use crate::bind::Bound;

/// Some models of a population: all of them, or a strictly increasing list of indices.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Members {
    population: usize,
    /// Pairs (0, index), as the executor's listed rows are, if not all are members.
    some: Option<Vec<(u32, u32)>>,
}

impl Members {
    /// Makes the set of `indices`, which increase strictly, in a population of that size.
    pub(crate) fn new(population: usize, indices: Vec<u32>) -> Self {
        assert!(indices.is_sorted_by(|a, b| a < b), "indices increase strictly");
        assert!(indices.last().is_none_or(|&last| (last as usize) < population));
        let all = indices.len() == population;
        let some = (!all).then(|| indices.into_iter().map(|index| (0, index)).collect());
        Members { population, some }
    }

    /// Counts the members.
    pub(crate) fn len(&self) -> usize {
        self.some.as_ref().map_or(self.population, Vec::len)
    }

    /// Gives the members' indices in the population.
    pub(crate) fn indices(&self) -> impl Iterator<Item = usize> + '_ {
        let listed = self.some.as_deref();
        (0..self.len()).map(move |i| listed.map_or(i, |some| some[i].1 as usize))
    }

    /// Gives the members' indices if not all models are members.
    pub(crate) fn listed(&self) -> Option<&[(u32, u32)]> {
        self.some.as_deref()
    }

    fn end(&self) -> usize {
        self.some
            .as_ref()
            .map_or(self.population, |some| some.last().map_or(0, |l| l.1 as usize + 1))
    }
}

/// An array with a row for each model of a population, or one row for all, to read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Read<'a> {
    bytes: &'a [u8],
    /// Bytes from model to model; 0 if all share a row.
    pub(crate) stride: usize,
    /// Where the first step's numbers start in a row.
    pub(crate) offset: usize,
    /// Bytes from step to step.
    pub(crate) step_bytes: usize,
    picked: Option<Picked<'a>>,
}

/// A data set from which item numbers pick.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Picked<'a> {
    bytes: &'a [u8],
    item_bytes: usize,
}

impl<'a> Read<'a> {
    /// Reads the array itself, once.
    pub(crate) fn new(bytes: &'a [u8], stride: usize) -> Self {
        Read { bytes, stride, offset: 0, step_bytes: 0, picked: None }
    }

    /// Reads items of `data`, picked by item numbers: `None` if a number is too large.
    pub(crate) fn picked(
        numbers: &'a [u32],
        stride: usize,
        data: &'a [u8],
        items: usize,
    ) -> Option<Self> {
        let largest = numbers.iter().copied().max();
        if largest.is_some_and(|largest| largest as usize >= items) {
            return None;
        }
        let picked = Some(Picked { bytes: data, item_bytes: data.len() / items.max(1) });
        let bytes = bytemuck::cast_slice(numbers);
        Some(Read { bytes, stride, offset: 0, step_bytes: 0, picked })
    }

    /// Moves the first step.
    pub(crate) fn at(self, offset: usize, step_bytes: usize) -> Self {
        Read { offset, step_bytes, ..self }
    }
}

/// An array with a row for each model of a population, to write.
#[derive(Debug)]
pub(crate) struct Write<'a> {
    base: *mut u8,
    len: usize,
    stride: usize,
    array: PhantomData<&'a mut [u8]>,
}

impl<'a> Write<'a> {
    /// Writes to `elements`, `stride` bytes from model to model.
    pub(crate) fn new<T: Element>(elements: &'a mut [T], stride: usize) -> Self {
        let bytes: &mut [u8] = bytemuck::cast_slice_mut(elements);
        Write { base: bytes.as_mut_ptr(), len: bytes.len(), stride, array: PhantomData }
    }
}

/// Where a stage's output goes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    /// Which of the arrays to write.
    pub(crate) array: usize,
    /// Where the first step's numbers start in a row.
    pub(crate) offset: usize,
    /// Bytes from step to step.
    pub(crate) step_bytes: usize,
}

/// Some steps of one plan.
pub(crate) struct Job<'a> {
    /// What is run.
    pub(crate) plan: &'a Plan,
    /// How often.
    pub(crate) steps: usize,
    /// The plan's slots, in order.
    pub(crate) slots: &'a Bound<'a>,
    /// The plan's inputs, in order.
    pub(crate) inputs: &'a [Read<'a>],
    /// The plan's outputs, in order; no two of them at one place.
    pub(crate) outputs: &'a [Output],
    /// The plan's scalars: that of scalar `s` for member `m` at `s · members + m`.
    pub(crate) scalars: &'a [f64],
    /// The members' random states; empty if the plan draws no numbers.
    pub(crate) keys: &'a [Key],
}

/// Memory that launches use again, so that a steady one allocates nothing.
#[derive(Default)]
pub(crate) struct Buffers {
    bases: Vec<*mut u8>,
    sources: Vec<Source<'static>>,
    sinks: Vec<Sink<'static>>,
    stages: Vec<Stage<'static>>,
}

// SAFETY: the vectors are empty between launches, so no address crosses threads in them.
unsafe impl Send for Buffers {}
// SAFETY: as above; nothing is reached through a shared reference.
unsafe impl Sync for Buffers {}

/// Runs every job on every member, all jobs of a tile of models before the next tile.
///
/// # Panics
///
/// If an array is shorter than the jobs need, which is a bug of the caller.
pub(crate) fn launch(
    members: &Members,
    jobs: &[Job<'_>],
    arrays: &mut [Write<'_>],
    buffers: &mut Buffers,
) {
    if members.len() == 0 {
        return;
    }
    let n_inputs: usize = jobs.iter().map(|job| job.inputs.len()).sum();
    let mut bases = core::mem::take(&mut buffers.bases);
    bases.clear();
    let reads = jobs.iter().flat_map(|job| job.inputs);
    bases.extend(reads.map(|read| read.bytes.as_ptr().wrapping_add(read.offset).cast_mut()));
    let outputs = jobs.iter().flat_map(|job| job.outputs);
    bases.extend(outputs.map(|output| arrays[output.array].base.wrapping_add(output.offset)));

    let mut sources = recycle(core::mem::take(&mut buffers.sources));
    let mut sinks = recycle(core::mem::take(&mut buffers.sinks));
    for (base, read) in bases.iter().zip(jobs.iter().flat_map(|job| job.inputs)) {
        let gather = read.picked.map(|picked| Gather {
            data: picked.bytes.as_ptr(),
            items: picked.bytes.len() / picked.item_bytes.max(1),
            item_bytes: picked.item_bytes,
        });
        let rows = members.rows(base, read.stride);
        sources.push(Source { rows, step_bytes: read.step_bytes, gather });
    }
    for (base, output) in bases[n_inputs..].iter().zip(jobs.iter().flat_map(|job| job.outputs)) {
        let rows = members.rows(base, arrays[output.array].stride);
        sinks.push(Sink { rows, step_bytes: output.step_bytes });
    }

    let mut stages = recycle(core::mem::take(&mut buffers.stages));
    let (mut source, mut sink) = (0, 0);
    for job in jobs {
        job.check(members, arrays);
        let binding = Binding {
            models: members.len(),
            slots: job.slots.rows(),
            inputs: &sources[source..source + job.inputs.len()],
            outputs: &sinks[sink..sink + job.outputs.len()],
            scalars: job.scalars,
            keys: job.keys,
        };
        source += job.inputs.len();
        sink += job.outputs.len();
        stages.push(Stage { plan: job.plan, binding, steps: job.steps });
    }
    // SAFETY: `Job::check` compared every input's and output's row with its array, each array is
    // borrowed as it is used (`Read` shared, `Write` exclusively) and the members' rows in it are
    // disjoint; `Read::picked` compared item numbers with the data; `Bound` holds rows of columns of a
    // world that it borrows exclusively, one for each member.
    unsafe { executor::run(&stages) };
    buffers.stages = recycle(stages);
    buffers.sinks = recycle(sinks);
    buffers.sources = recycle(sources);
    bases.clear();
    buffers.bases = bases;
}

impl Members {
    fn rows<'a>(&'a self, base: &'a *mut u8, stride: usize) -> Rows<'a> {
        match &self.some {
            None => Rows::Strided { base: *base, stride },
            Some(_) if stride == 0 => Rows::Strided { base: *base, stride },
            Some(rows) => {
                Rows::Listed { segments: core::slice::from_ref(base), stride, rows, offset: 0 }
            }
        }
    }
}

impl Job<'_> {
    /// Asserts that every row lies in its array.
    fn check(&self, members: &Members, arrays: &[Write<'_>]) {
        let program = &self.plan.program;
        let last_step = self.steps.saturating_sub(1);
        let last_model = members.end().saturating_sub(1);
        assert_eq!(self.inputs.len(), program.inputs.len(), "inputs");
        assert_eq!(self.outputs.len(), program.outputs.len(), "outputs");
        for (read, ty) in self.inputs.iter().zip(&program.inputs) {
            let (bytes, element_bytes) = match read.picked {
                None => (ty.size_bytes(), ty.dtype.size_bytes()),
                Some(picked) => {
                    let items = ty.shape.first().copied().unwrap_or(1);
                    assert_eq!(items * picked.item_bytes, ty.size_bytes(), "items fit the input");
                    (items * size_of::<u32>(), size_of::<u32>())
                }
            };
            let end = read.offset + last_step * read.step_bytes + last_model * read.stride + bytes;
            assert!(end <= read.bytes.len(), "an input's rows lie in its array");
            let strides = [read.offset, read.step_bytes, read.stride, read.bytes.as_ptr().addr()];
            assert!(strides.iter().all(|n| n % element_bytes == 0), "an input is aligned");
        }
        for (output, &value) in self.outputs.iter().zip(&program.outputs) {
            let (array, ty) = (&arrays[output.array], program.ty(value));
            let in_row = output.offset + last_step * output.step_bytes + ty.size_bytes();
            assert!(last_model == 0 || in_row <= array.stride, "rows of an output are apart");
            assert!(last_model * array.stride + in_row <= array.len, "and lie in its array");
            let strides = [output.offset, output.step_bytes, array.stride, array.base.addr()];
            let element_bytes = ty.dtype.size_bytes();
            assert!(strides.iter().all(|n| n % element_bytes == 0), "an output is aligned");
        }
    }
}

/// Gives an empty vector with the memory of another whose elements differ in lifetimes alone.
fn recycle<A, B>(mut vector: Vec<A>) -> Vec<B> {
    const { assert!(size_of::<A>() == size_of::<B>() && align_of::<A>() == align_of::<B>()) };
    vector.clear();
    vector.into_iter().map(|_| unreachable!("the vector was just emptied")).collect()
}
