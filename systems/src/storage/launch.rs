//! The one call into the executor: arrays, checked, become the rows that [`queue::run`] works on.
#![expect(unsafe_code, reason = "the executor takes addresses")]

mod read_only;

use std::marker::PhantomData;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};

use bevy_ecs::prelude::*;
use neurarch_kernels::cpu::tile::{RowList, Rows};
use neurarch_kernels::execute::executor::{Binding, Gather, Sink, Source, Stage};
use neurarch_kernels::execute::queue;
use neurarch_kernels::execute::queue::{Direction, Work};
use neurarch_kernels::ir::dtype::Element;
use neurarch_kernels::ir::rng_key::RngKey;
use neurarch_kernels::ir::shape::Type;
use neurarch_kernels::ir::trace::panic_message;
use neurarch_kernels::plan::Plan;

use crate::errors::BindError;
use crate::storage::bind::{Bound, Located, Together};
use crate::storage::blocks::Blocks;
use crate::storage::members::Members;
use crate::storage::recording::Recording;

pub(crate) use read_only::ReadOnly;

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

/// Item numbers, all of them below the number of items.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Order<'a> {
    numbers: &'a [u32],
    items: usize,
}

impl<'a> Order<'a> {
    /// Checks the numbers.
    ///
    /// # Errors
    ///
    /// The largest number, if it is too large.
    pub(crate) fn new(numbers: &'a [u32], items: usize) -> Result<Self, u32> {
        match numbers.iter().copied().max() {
            Some(largest) if largest as usize >= items => Err(largest),
            _ => Ok(Order { numbers, items }),
        }
    }
}

impl Picked<'_> {
    fn gather(self) -> Gather {
        let items = self.bytes.len() / self.item_bytes.max(1);
        Gather { data: self.bytes.as_ptr(), items, item_bytes: self.item_bytes }
    }
}

impl<'a> Read<'a> {
    /// Reads the array itself, once.
    pub(crate) fn new(bytes: &'a [u8], stride: usize) -> Self {
        Read { bytes, stride, offset: 0, step_bytes: 0, picked: None }
    }

    /// Reads items of `data`, picked by item numbers.
    pub(crate) fn picked(order: Order<'a>, stride: usize, data: &'a [u8]) -> Self {
        let picked = Some(Picked { bytes: data, item_bytes: data.len() / order.items.max(1) });
        let bytes = bytemuck::cast_slice(order.numbers);
        Read { bytes, stride, offset: 0, step_bytes: 0, picked }
    }

    /// Copies the numbers of a model at a step, of type `ty`.
    ///
    /// # Panics
    ///
    /// If the array is shorter.
    pub(crate) fn copy(&self, model: usize, step: usize, ty: &Type) -> Vec<u8> {
        let start = model * self.stride + self.offset + step * self.step_bytes;
        let Some(Picked { bytes, item_bytes }) = self.picked else {
            return self.bytes[start..][..ty.size_bytes()].to_vec();
        };
        let items = ty.shape.first().copied().unwrap_or(1);
        let numbers =
            self.bytes[start..][..items * size_of::<u32>()].chunks_exact(size_of::<u32>());
        let item = |number: &[u8]| bytemuck::pod_read_unaligned::<u32>(number) as usize;
        let items = numbers.flat_map(|number| &bytes[item(number) * item_bytes..][..item_bytes]);
        items.copied().collect()
    }

    /// Says where the first step's numbers start, and how far on the next step's are.
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
    /// Pairs (0, row) for the members in their order, if rows are not by index.
    rows: Option<&'a Listed>,
    array: PhantomData<&'a mut [u8]>,
}

/// Rows of an array for the members of a launch, in their order; all are different.
#[derive(Clone, Debug)]
pub(crate) struct Listed {
    rows: RowList,
    /// One more than the largest.
    end: usize,
}

impl Listed {
    /// Takes the rows.
    ///
    /// # Panics
    ///
    /// If two are the same.
    pub(crate) fn new(rows: impl Iterator<Item = u32>) -> Self {
        let rows: RowList = rows.map(|row| (0, row)).collect();
        let mut sorted = rows.as_slice().to_vec();
        sorted.sort_unstable();
        assert!(sorted.is_sorted_by(|a, b| a < b), "each member has a row of its own");
        let end = sorted.last().map_or(0, |&(_, last)| last as usize + 1);
        Listed { rows, end }
    }
}

impl<'a> Write<'a> {
    /// Writes to `elements`, `stride` bytes from model to model.
    pub(crate) fn new<T: Element>(elements: &'a mut [T], stride: usize) -> Self {
        let bytes: &mut [u8] = bytemuck::cast_slice_mut(elements);
        let (base, len) = (bytes.as_mut_ptr(), bytes.len());
        Write { base, len, stride, rows: None, array: PhantomData }
    }

    /// Writes to no array: for outputs that are not there.
    pub(crate) fn nothing() -> Self {
        Write::new::<u8>(&mut [], 0)
    }

    /// Writes to other rows than those of the members' indices.
    pub(crate) fn listed<T: Element>(
        elements: &'a mut [T],
        stride: usize,
        rows: &'a Listed,
    ) -> Self {
        Write { rows: Some(rows), ..Write::new(elements, stride) }
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
#[derive(Clone, Copy)]
pub(crate) struct Job<'a> {
    /// What is run.
    pub(crate) plan: &'a Plan,
    /// How often.
    pub(crate) steps: usize,
    /// How many steps of the same call come before: random states are that much further on.
    pub(crate) first_step: usize,
    /// The plan's inputs, in order.
    pub(crate) inputs: &'a [Read<'a>],
    /// The plan's outputs, in order; no two of them at one place.
    pub(crate) outputs: &'a [Output],
    /// The array that the outputs call the first: those of a population come one behind the other.
    pub(crate) first_array: usize,
    /// The plan's scalars: that of scalar `s` for member `m` at `s · members + m`.
    pub(crate) scalars: &'a [f64],
    /// Which slots the plan writes.
    pub(crate) written: &'a [bool],
    /// The members' random states; empty if the plan draws no numbers.
    pub(crate) keys: &'a [RngKey],
}

/// Memory that launches use again, so that a steady one allocates nothing. Empty in between.
#[derive(Default)]
pub(crate) struct Buffers {
    tasks: Vec<Task<'static>>,
    jobs: Vec<Job<'static>>,
    placed: Vec<Placed<'static>>,
    bases: Vec<*mut u8>,
    slots: Vec<Rows<'static>>,
    sources: Vec<Source<'static>>,
    sinks: Vec<Sink<'static>>,
    stages: Vec<Stage<'static>>,
    works: Vec<Work<'static>>,
    inputs: Vec<Read<'static>>,
    outputs: Vec<Output>,
}

// SAFETY: the vectors are empty between launches, so no address crosses threads in them.
unsafe impl Send for Buffers {}
// SAFETY: as above; nothing is reached through a shared reference.
unsafe impl Sync for Buffers {}

impl Buffers {
    /// Lends memory for lists of inputs and outputs.
    pub(crate) fn take<'a>(&mut self) -> (Vec<Read<'a>>, Vec<Output>) {
        let mut outputs = core::mem::take(&mut self.outputs);
        outputs.clear();
        (recycle(core::mem::take(&mut self.inputs)), outputs)
    }

    /// Takes the memory back.
    pub(crate) fn put(&mut self, inputs: Vec<Read<'_>>, outputs: Vec<Output>) {
        (self.inputs, self.outputs) = (recycle(inputs), outputs);
    }

    /// Lends memory for a queue.
    pub(crate) fn queue<'a>(&mut self) -> Queue<'a> {
        let tasks = recycle(core::mem::take(&mut self.tasks));
        Queue { tasks, jobs: recycle(core::mem::take(&mut self.jobs)) }
    }
}

/// Work that runs together: the tiles of all cohorts in one parallel run.
pub(crate) struct Queue<'a> {
    tasks: Vec<Task<'a>>,
    jobs: Vec<Job<'a>>,
}

/// What the members of one cohort do.
struct Task<'a> {
    at: &'a mut Located,
    /// Which jobs of the queue, one after another on each tile.
    jobs: Range<usize>,
    /// Whether all jobs have the same slots. Else each has a binding, and a visit, of its own.
    is_one_visit: bool,
}

/// A task whose rows are known.
struct Placed<'a> {
    members: &'a Members,
    slots: Slots<'a>,
    jobs: Range<usize>,
}

/// Where the rows of slots are.
enum Slots<'a> {
    /// In columns of a world.
    Bound(Bound<'a>),
    /// In memory that nobody writes to.
    ReadOnly(&'a [ReadOnly<'a>]),
}

impl Slots<'_> {
    fn len(&self) -> usize {
        match self {
            Slots::Bound(bound) => bound.len(),
            Slots::ReadOnly(columns) => columns.len(),
        }
    }

    fn rows(&self, slot: usize) -> Rows<'_> {
        match self {
            Slots::Bound(bound) => bound.rows(slot),
            Slots::ReadOnly(columns) => columns[slot].rows(),
        }
    }
}

impl Task<'_> {
    /// Returns the jobs of a visit.
    fn visit(&self, number: usize) -> Range<usize> {
        let Range { start, end } = self.jobs;
        match self.is_one_visit {
            true if number == 0 => start..end,
            false if start + number < end => start + number..start + number + 1,
            _ => start..start,
        }
    }
}

impl<'a> Queue<'a> {
    /// Adds jobs, all of which run on a tile of members before the next tile. Each member is in one task.
    pub(crate) fn push(&mut self, at: &'a mut Located, jobs: impl IntoIterator<Item = Job<'a>>) {
        let first = self.jobs.len();
        self.jobs.extend(jobs);
        let mut of_plans = self.jobs[first..].iter().map(|job| &job.plan.program.slots);
        let slots = of_plans.next();
        let is_one_visit = of_plans.all(|others| Some(others) == slots);
        self.tasks.push(Task { at, jobs: first..self.jobs.len(), is_one_visit });
    }

    /// Runs everything.
    ///
    /// # Errors
    ///
    /// If a slot has no column, or rows are not apart: nothing runs then. If the kernel of an op panics: what was written
    /// before stays.
    ///
    /// # Panics
    ///
    /// If an array is shorter than the jobs need, which is a bug of the caller.
    pub(crate) fn launch(
        self,
        world: &mut World,
        arrays: &mut [Write<'_>],
        buffers: &mut Buffers,
    ) -> Result<(), BindError> {
        self.launch_seen(world, arrays, buffers, &mut |_| {})
    }

    /// [`launch`](Queue::launch), with a look at the rows before they are written: `see` is called with each binding.
    ///
    /// # Errors
    ///
    /// As [`launch`](Queue::launch).
    pub(crate) fn launch_seen(
        mut self,
        world: &mut World,
        arrays: &mut [Write<'_>],
        buffers: &mut Buffers,
        see: &mut dyn FnMut(&Bound<'_>),
    ) -> Result<(), BindError> {
        let visits = self.tasks.iter().map(|task| match task.is_one_visit {
            true => 1,
            false => task.jobs.len(),
        });
        let visits = visits.max().unwrap_or(0);
        let mut recording = world.remove_resource::<Recording>();
        let ran = (0..visits).try_for_each(|visit| {
            let manner = Manner::Whole(recording.as_mut());
            self.run(world, visit, (arrays, buffers), see, manner)
        });
        if let Some(recording) = recording {
            world.insert_resource(recording);
        }
        buffers.tasks = recycle(self.tasks);
        buffers.jobs = recycle(self.jobs);
        ran
    }

    /// [`launch`](Queue::launch) of some members of each task, as far as allowed. Each task has one job.
    ///
    /// # Errors
    ///
    /// As [`launch`](Queue::launch).
    pub(crate) fn launch_blocks(
        mut self,
        world: &mut World,
        arrays: &mut [Write<'_>],
        buffers: &mut Buffers,
        blocks: &Blocks<'_>,
    ) -> Result<(), BindError> {
        let mut recording = world.remove_resource::<Recording>();
        let manner = Manner::Blocks(blocks, recording.as_mut());
        let ran = self.run(world, 0, (arrays, buffers), &mut |_| {}, manner);
        if let Some(recording) = recording {
            world.insert_resource(recording);
        }
        ran
    }

    /// Binds and runs the jobs of a visit: all members, or some blocks of them.
    fn run(
        &mut self,
        world: &mut World,
        visit: usize,
        (arrays, buffers): (&mut [Write<'_>], &mut Buffers),
        see: &mut dyn FnMut(&Bound<'_>),
        manner: Manner<'_>,
    ) -> Result<(), BindError> {
        let Queue { tasks, jobs } = self;
        assert_arrays_apart(tasks, jobs);
        let direction = tasks.first().map_or(Direction::default(), |task| task.at.direction);
        let mut placed: Vec<Placed<'_>> = recycle(core::mem::take(&mut buffers.placed));
        let mut together = Together::new(world);
        for task in tasks {
            let visited = task.visit(visit);
            let Some(first) = jobs.get(visited.start).filter(|_| !visited.is_empty()) else {
                continue;
            };
            let Located { population, group, members, binder, direction } = &mut *task.at;
            *direction = direction.turned();
            let slots = &first.plan.program.slots;
            let of = (*population, *group, &*members);
            let bound = together.bind(binder, of, slots, first.written)?;
            placed.push(Placed { members, slots: Slots::Bound(bound), jobs: visited });
        }
        let bounds = placed.iter().filter_map(|placed| match &placed.slots {
            Slots::Bound(bound) => Some(bound),
            Slots::ReadOnly(_) => None,
        });
        together.check_apart(bounds.clone())?;
        bounds.for_each(see);
        let ran = run(&placed, jobs, (arrays, buffers), (direction, manner));
        buffers.placed = recycle(placed);
        ran
    }
}

/// Asserts that what models of one population write to no others do: rows are those of the models' indices.
fn assert_arrays_apart(tasks: &[Task<'_>], jobs: &[Job<'_>]) {
    let first = tasks.first().map(|task| task.at.population);
    if tasks.iter().all(|task| Some(task.at.population) == first) {
        return;
    }
    let mut owners: Vec<(usize, Entity)> = Vec::new();
    for task in tasks {
        for output in jobs[task.jobs.clone()].iter().flat_map(Job::outputs) {
            owners.push((output.array, task.at.population));
        }
    }
    owners.sort_unstable();
    owners.dedup();
    assert!(owners.is_sorted_by(|(a, _), (b, _)| a < b), "a population has arrays of its own");
}

/// Runs one job on the members of a cohort, with memory of its own.
///
/// # Errors
///
/// As [`Queue::launch`].
pub(crate) fn launch_alone(
    world: &mut World,
    at: &mut Located,
    job: Job<'_>,
) -> Result<(), BindError> {
    let mut buffers = Buffers::default();
    let mut queue = buffers.queue();
    queue.push(at, [job]);
    queue.launch(world, &mut [], &mut buffers)
}

/// Runs one job that writes to no slot on rows that are nobody's component: `columns` are those of the plan's slots.
///
/// # Errors
///
/// [`BindError::Kernel`] if the kernel of an op panics.
///
/// # Panics
///
/// If the plan writes to a slot, or an array or a column is shorter than it needs, which are bugs of the caller.
pub(crate) fn launch_read_only(
    members: &Members,
    job: Job<'_>,
    columns: &[ReadOnly<'_>],
    arrays: &mut [Write<'_>],
) -> Result<(), BindError> {
    let program = &job.plan.program;
    assert!(program.stores.is_empty(), "the plan writes to no slot");
    assert_eq!(columns.len(), program.slots.len(), "columns");
    for (column, slot) in columns.iter().zip(&program.slots) {
        column.check(members.len(), &slot.ty);
    }
    let placed = [Placed { members, slots: Slots::ReadOnly(columns), jobs: 0..1 }];
    let how = (Direction::default(), Manner::Whole(None));
    run(&placed, &[job], (arrays, &mut Buffers::default()), how)
}

/// How jobs run.
enum Manner<'a> {
    /// All members; a recording notes how long their ops take, if there is one.
    Whole(Option<&'a mut Recording>),
    /// Some blocks of them, likewise.
    Blocks(&'a Blocks<'a>, Option<&'a mut Recording>),
}

/// Runs jobs on slots that are bound.
///
/// # Errors
///
/// [`BindError::Kernel`] if the kernel of an op panics. What was written before stays.
fn run(
    placed: &[Placed<'_>],
    jobs: &[Job<'_>],
    (arrays, buffers): (&mut [Write<'_>], &mut Buffers),
    (direction, manner): (Direction, Manner<'_>),
) -> Result<(), BindError> {
    let is_whole = matches!(manner, Manner::Whole(_));
    assert!(is_whole || placed.iter().all(|of| of.jobs.len() == 1), "a stage for a task");
    // Nested loops: flattened iterators over tasks, jobs and arrays take as long as a tiny model's layer.
    let mut bases = core::mem::take(&mut buffers.bases);
    for Placed { jobs: of, .. } in placed {
        for job in &jobs[of.clone()] {
            let base = |read: &Read<'_>| read.bytes.as_ptr().wrapping_add(read.offset).cast_mut();
            bases.extend(job.inputs.iter().map(base));
        }
    }
    for Placed { jobs: of, .. } in placed {
        for job in &jobs[of.clone()] {
            let base = |output: Output| arrays[output.array].base.wrapping_add(output.offset);
            bases.extend(job.outputs().map(base));
        }
    }

    let mut slots = recycle(core::mem::take(&mut buffers.slots));
    for Placed { slots: of, .. } in placed {
        slots.extend((0..of.len()).map(|slot| of.rows(slot)));
    }
    let mut sources = recycle(core::mem::take(&mut buffers.sources));
    let mut sinks = recycle(core::mem::take(&mut buffers.sinks));
    let mut bases_left = bases.iter();
    for Placed { members, jobs: of, .. } in placed {
        for job in &jobs[of.clone()] {
            sources.extend(job.inputs.iter().zip(&mut bases_left).map(|(read, base)| Source {
                rows: members.rows(base, read.stride),
                step_bytes: read.step_bytes,
                gather: read.picked.map(Picked::gather),
            }));
        }
    }
    for Placed { members, jobs: of, .. } in placed {
        for job in &jobs[of.clone()] {
            sinks.extend(job.outputs().zip(&mut bases_left).map(|(output, base)| Sink {
                rows: arrays[output.array].rows(members, base),
                step_bytes: output.step_bytes,
            }));
        }
    }

    let mut stages = recycle(core::mem::take(&mut buffers.stages));
    let (mut slot, mut source, mut sink) = (0, 0, 0);
    for Placed { members, slots: own, jobs: of } in placed {
        for job in &jobs[of.clone()] {
            job.check(members, arrays);
            let binding = Binding {
                models: members.len(),
                slots: &slots[slot..slot + own.len()],
                inputs: &sources[source..source + job.inputs.len()],
                outputs: &sinks[sink..sink + job.outputs.len()],
                scalars: job.scalars,
                keys: job.keys,
            };
            source += job.inputs.len();
            sink += job.outputs.len();
            let (plan, first_step, steps) = (job.plan, job.first_step, job.steps);
            stages.push(Stage { plan, binding, first_step, steps });
        }
        slot += own.len();
    }
    let mut works = recycle(core::mem::take(&mut buffers.works));
    let mut stage = 0;
    works.extend(placed.iter().map(|Placed { jobs, .. }| {
        stage += jobs.len();
        Work::new(&stages[stage - jobs.len()..stage])
    }));
    // What the executor asks for: `Job::check` compared every input's and output's row with its array; each array is borrowed
    // (`Read` shared, `Write` exclusively) and the members' rows in it are disjoint, those of tasks as well as those of
    // one, since each member is in one task, and tasks of several populations have arrays of their own
    // (`assert_arrays_apart`); `Read::picked` compared item numbers with the data. `slots` are rows that
    // `Together::bind` took from columns of a world that it borrows exclusively while they live, one for each member, of
    // as many bytes as the slots' types say; `Together::check_apart` compared the rows of all tasks, and a row that
    // members share is only read, by an assertion there. `Listed` holds rows that are different. Rows of `ReadOnly` are in memory that is borrowed shared: `launch_read_only`
    // asserts that the plan writes to no slot, and `ReadOnly::check` that they lie there.
    let ran = match manner {
        // SAFETY: as said above; each stage is that of one task.
        Manner::Blocks(blocks, recording) => unsafe { blocks.run(&stages, recording) },
        Manner::Whole(recording) => {
            let all = || match recording {
                // SAFETY: as said above.
                None => unsafe { queue::run(&mut works, direction) },
                Some(recording) => {
                    // SAFETY: as said above.
                    recording.note(unsafe { queue::run_profiled(&mut works, direction) });
                }
            };
            catch_unwind(AssertUnwindSafe(all))
                .map_err(|panic| BindError::Kernel { message: panic_message(&*panic) })
        }
    };
    buffers.works = recycle(works);
    buffers.stages = recycle(stages);
    buffers.sinks = recycle(sinks);
    buffers.sources = recycle(sources);
    buffers.slots = recycle(slots);
    bases.clear();
    buffers.bases = bases;
    ran
}

impl Write<'_> {
    /// Returns the rows of the members, `base` the address of the first row.
    fn rows<'a>(&'a self, members: &'a Members, base: &'a *mut u8) -> Rows<'a> {
        match self.rows {
            None => members.rows(base, self.stride),
            Some(Listed { rows, .. }) => rows.of(core::slice::from_ref(base), self.stride),
        }
    }
}

impl Job<'_> {
    /// Lists the outputs by the arrays of the launch.
    fn outputs(&self) -> impl ExactSizeIterator<Item = Output> {
        let first = self.first_array;
        self.outputs.iter().map(move |of| Output { array: first + of.array, ..*of })
    }

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
        for (output, &value) in self.outputs().zip(&program.outputs) {
            let (array, ty) = (&arrays[output.array], program.ty(value));
            let in_row = output.offset + last_step * output.step_bytes + ty.size_bytes();
            let last_model = array.rows.map_or(last_model, |rows| rows.end.saturating_sub(1));
            let n_rows = |rows: &Listed| rows.rows.as_slice().len();
            let fits = array.rows.is_none_or(|rows| n_rows(rows) == members.len());
            assert!(fits, "each member has a row");
            assert!(last_model == 0 || in_row <= array.stride, "rows of an output are apart");
            assert!(last_model * array.stride + in_row <= array.len, "and lie in its array");
            let strides = [output.offset, output.step_bytes, array.stride, array.base.addr()];
            let element_bytes = ty.dtype.size_bytes();
            assert!(strides.iter().all(|n| n % element_bytes == 0), "an output is aligned");
        }
    }
}

/// Returns an empty vector with the memory of another whose elements differ in lifetimes alone.
fn recycle<A, B>(mut vector: Vec<A>) -> Vec<B> {
    const { assert!(size_of::<A>() == size_of::<B>() && align_of::<A>() == align_of::<B>()) };
    vector.clear();
    vector.into_iter().map(|_| unreachable!("the vector was just emptied")).collect()
}
