//! What a kernel sees: some models of a cohort, and for each operand where their elements lie.
#![expect(unsafe_code, reason = "operands are rows of columns and of arenas, given by address")]

use core::marker::PhantomData;
use core::ops::Range;
use core::ptr;

use super::simd::{Simd, Vectorized, dispatch};
use crate::cpu::kernel::Kernel;
use crate::ir::dtype::Element;

/// Where the rows of one operand lie.
#[derive(Clone, Copy, Debug)]
pub enum Rows<'a> {
    /// Row `i` lies `i · stride` bytes behind `base`. A stride of 0 is one row shared by all.
    Strided {
        /// Address of row 0.
        base: *mut u8,
        /// Bytes from row to row.
        stride: usize,
    },
    /// Row `i` is row `rows[i].1` of segment `rows[i].0`.
    Listed {
        /// For each segment, the address of its row 0.
        segments: &'a [*mut u8],
        /// Bytes from row to row, in every segment.
        stride: usize,
        /// For each row, its segment and its place in it.
        rows: &'a [(u32, u32)],
        /// The runs of rows that follow one another without a gap, in order; none if they are short.
        runs: &'a [Run],
        /// Bytes to add: where the operand starts in a row.
        offset: usize,
    },
}

impl<'a> Rows<'a> {
    /// Rows that nobody reads or writes.
    pub const NONE: Rows<'static> = Rows::Strided { base: ptr::null_mut(), stride: 0 };

    /// Gives the address of row `i`.
    #[inline(always)]
    pub fn at(&self, i: usize) -> *mut u8 {
        match *self {
            Rows::Strided { base, stride } => base.wrapping_add(i * stride),
            Rows::Listed { segments, stride, rows, offset, .. } => {
                let (segment, row) = rows[i];
                segments[segment as usize].wrapping_add(row as usize * stride + offset)
            }
        }
    }

    /// Gives the bytes from row to row, if they lie evenly apart.
    #[inline(always)]
    fn stride(&self) -> Option<usize> {
        match *self {
            Rows::Strided { stride, .. } => Some(stride),
            Rows::Listed { .. } => None,
        }
    }

    /// Gives the rows of some models. Listed rows that follow one another become strided ones, so that a list
    /// with few gaps costs next to nothing.
    ///
    /// # Panics
    ///
    /// If there are fewer rows.
    pub fn part(&self, models: &Range<usize>) -> Rows<'a> {
        match *self {
            Rows::Strided { base, stride } => {
                Rows::Strided { base: base.wrapping_add(models.start * stride), stride }
            }
            Rows::Listed { segments, stride, rows, runs, offset } => {
                let (before, after) = split(runs, models);
                let run = match before.last().filter(|_| after.is_empty()) {
                    Some(run) => Some(run.from(models.start)),
                    None => {
                        let rows = &rows[models.clone()];
                        rows.first().copied().filter(|_| runs.is_empty() && is_run(rows))
                    }
                };
                match run {
                    _ if models.is_empty() => Rows::NONE,
                    Some((segment, row)) => {
                        let base = segments[segment as usize];
                        Rows::Strided {
                            base: base.wrapping_add(row as usize * stride + offset),
                            stride,
                        }
                    }
                    None => {
                        let rows = &rows[models.clone()];
                        Rows::Listed { segments, stride, rows, runs: &[], offset }
                    }
                }
            }
        }
    }

    /// Lists the runs that begin behind the first of some models, as far as they are known.
    fn gaps_in(&self, models: &Range<usize>) -> &'a [Run] {
        match *self {
            Rows::Listed { runs, .. } => split(runs, models).1,
            Rows::Strided { .. } => &[],
        }
    }

    /// Counts the gaps between the rows of some models, as far as they are known.
    pub(super) fn gaps(&self, models: &Range<usize>) -> usize {
        self.gaps_in(models).len()
    }

    /// Counts how many of the models, from the first on, have rows without a gap, as far as gaps are known.
    pub(super) fn until_gap(&self, models: &Range<usize>) -> usize {
        let first = self.gaps_in(models).first();
        first.map_or(models.end, |run| run.start as usize) - models.start
    }

    /// Gives the same rows, each `bytes` further on.
    pub fn offset(&self, bytes: usize) -> Rows<'a> {
        match *self {
            Rows::Strided { base, stride } => {
                Rows::Strided { base: base.wrapping_add(bytes), stride }
            }
            Rows::Listed { segments, stride, rows, runs, offset } => {
                Rows::Listed { segments, stride, rows, runs, offset: offset + bytes }
            }
        }
    }
}

/// Rows that follow one another without a gap.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    /// The first model.
    start: u32,
    /// Its segment and its row there.
    row: (u32, u32),
}

impl Run {
    /// Gives the row of a model of the run.
    fn from(&self, model: usize) -> (u32, u32) {
        (self.row.0, self.row.1 + (model as u32 - self.start))
    }
}

/// Gives the runs up to that of the first of some models, and those that begin behind it.
fn split<'a>(runs: &'a [Run], models: &Range<usize>) -> (&'a [Run], &'a [Run]) {
    let (before, after) =
        runs.split_at(runs.partition_point(|run| run.start as usize <= models.start));
    (before, &after[..after.partition_point(|run| (run.start as usize) < models.end)])
}

/// Says whether rows follow one another without a gap.
fn is_run(rows: &[(u32, u32)]) -> bool {
    let Some(&(segment, first)) = rows.first() else { return true };
    let follow = |(row, at): (u32, &(u32, u32))| *at == (segment, row);
    (first..).zip(rows).map(follow).fold(true, |all, each| all & each)
}

/// Rows of models, each a segment and a place in it; and where they follow one another.
#[derive(Clone, Debug, Default)]
pub struct RowList {
    rows: Vec<(u32, u32)>,
    runs: Vec<Run>,
}

impl RowList {
    /// Shorter runs, on average, are not worth a look.
    const WORTH_A_LOOK: usize = 16;

    /// Takes the row of the next model.
    #[inline]
    pub fn push(&mut self, (segment, row): (u32, u32)) {
        let row = (segment, row);
        let model = self.rows.len();
        if self.runs.last().is_none_or(|run| run.from(model) != row) {
            self.runs.push(Run { start: model as u32, row });
        }
        self.rows.push(row);
    }

    /// Forgets all rows.
    pub fn clear(&mut self) {
        self.rows.clear();
        self.runs.clear();
    }

    /// Gives memory back that is not used.
    pub fn shrink_to_fit(&mut self) {
        self.rows.shrink_to_fit();
        self.runs.shrink_to_fit();
    }

    /// Views them.
    #[inline]
    pub fn as_slice(&self) -> &[(u32, u32)] {
        &self.rows
    }

    /// Lists the runs: of which models, from which segment and row on.
    pub fn runs(&self) -> impl Iterator<Item = (Range<usize>, (u32, u32))> + '_ {
        let ends = self.runs.iter().skip(1).map(|run| run.start as usize);
        let ends = ends.chain([self.rows.len()]);
        self.runs.iter().zip(ends).map(|(run, end)| (run.start as usize..end, run.row))
    }

    /// Gives the rows, `stride` bytes apart in segments that begin at these addresses.
    #[inline]
    pub fn of<'a>(&'a self, segments: &'a [*mut u8], stride: usize) -> Rows<'a> {
        let is_worth = self.runs.len() * Self::WORTH_A_LOOK <= self.rows.len();
        let runs = if is_worth { self.runs.as_slice() } else { &[] };
        let listed = Rows::Listed { segments, stride, rows: &self.rows, runs, offset: 0 };
        match *self.runs {
            [] => Rows::NONE,
            [_] => Rows::Strided { base: listed.at(0), stride },
            _ => listed,
        }
    }
}

impl Extend<(u32, u32)> for RowList {
    fn extend<I: IntoIterator<Item = (u32, u32)>>(&mut self, rows: I) {
        rows.into_iter().for_each(|row| self.push(row));
    }
}

impl FromIterator<(u32, u32)> for RowList {
    fn from_iter<I: IntoIterator<Item = (u32, u32)>>(rows: I) -> Self {
        let mut list = RowList::default();
        list.extend(rows);
        list
    }
}

// SAFETY: rows are addresses and give access to nothing by themselves. Whoever makes a `Tile` of them
// answers for what is read and written, and by which thread.
unsafe impl Send for Rows<'_> {}
// SAFETY: as above.
unsafe impl Sync for Rows<'_> {}

/// One operand of a kernel: its rows and the number of its elements.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// Where each model's elements lie.
    pub rows: Rows<'a>,
    /// Elements a model.
    pub numel: usize,
    /// Size of one element in bytes.
    pub element_bytes: usize,
}

impl View<'static> {
    /// An input that is changed in place: its elements are an output's, which alone gives access to them. No element
    /// has this size, so that whoever asks for it is refused.
    pub(crate) const ELSEWHERE: View<'static> =
        View { rows: Rows::NONE, numel: 0, element_bytes: 0 };
}

/// The state of a model's counter-based random numbers in one step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct Key {
    /// The population's seed.
    pub seed: u64,
    /// The model's number, which never changes.
    pub number: u64,
    /// How many steps the model has made.
    pub step: u64,
}

/// The models that a kernel is to compute, with their operands.
pub struct Tile<'a> {
    models: usize,
    views: &'a [View<'a>],
    inputs: &'a [u32],
    outputs: &'a [u32],
    scratch: &'a mut [u8],
    keys: &'a [Key],
    draw: u32,
    split: bool,
}

impl<'a> Tile<'a> {
    /// Puts a tile together; `inputs` and `outputs` are indices in `views`.
    ///
    /// # Safety
    ///
    /// For each model `m < models` and each view that is named, `rows.at(m)` is the address of `numel` elements of
    /// `element_bytes` bytes (0: nobody reads it), aligned for their type, initialized, and not written by anybody else
    /// while the tile lives; those of outputs are written by nobody else, are named once and overlap no other view.
    pub unsafe fn new(
        models: usize,
        views: &'a [View<'a>],
        inputs: &'a [u32],
        outputs: &'a [u32],
        scratch: &'a mut [u8],
    ) -> Self {
        Tile { models, views, inputs, outputs, scratch, keys: &[], draw: 0, split: false }
    }

    /// Adds the models' random states, and a number that tells this draw from the others of a step.
    #[must_use]
    pub fn with_keys(mut self, keys: &'a [Key], draw: u32) -> Self {
        (self.keys, self.draw) = (keys, draw);
        self
    }

    /// Allows kernels to split one model's work over the threads of the pool.
    #[must_use]
    pub fn with_split(mut self, split: bool) -> Self {
        self.split = split;
        self
    }

    /// Gives the number of models.
    #[inline(always)]
    pub fn models(&self) -> usize {
        self.models
    }

    /// Says whether a kernel should split one model's work over the threads of the pool.
    #[inline(always)]
    pub fn split(&self) -> bool {
        self.split
    }

    /// Gives the state of a model's random numbers, and the number of this draw in a step.
    #[inline(always)]
    pub fn key(&self, model: usize) -> (Key, u32) {
        (self.keys.get(model).copied().unwrap_or_default(), self.draw)
    }

    /// Gives the operands of all models, and scratch memory (zeroed at first, then as it was left).
    ///
    /// What is the same for all models is looked up once, before the loop over them; a small model's whole
    /// work takes no longer than looking its operands up.
    #[inline(always)]
    pub fn operands(&mut self) -> (Inputs<'_>, Outputs<'_>, &mut [u8]) {
        let Tile { models, views, inputs, outputs, ref mut scratch, .. } = *self;
        (
            Inputs { models, views, ids: inputs },
            Outputs { models, views, ids: outputs, next: 0, lifetime: PhantomData },
            scratch,
        )
    }

    /// Gives the operands of one model: the short way, for kernels that do much with each.
    #[inline(always)]
    pub fn model(&mut self, model: usize) -> Model<'_> {
        let (key, draw) = self.key(model);
        let (inputs, outputs, scratch) = self.operands();
        Model { model, inputs, outputs, scratch, key, draw }
    }
}

/// The inputs of a tile.
#[derive(Clone, Copy)]
pub struct Inputs<'t> {
    models: usize,
    views: &'t [View<'t>],
    ids: &'t [u32],
}

impl<'t> Inputs<'t> {
    /// Gives input `i` of every model.
    ///
    /// # Panics
    ///
    /// If there is no such input, it is [changed in place](crate::ir::op::Op::in_place), or its elements are not `T`.
    #[inline(always)]
    pub fn get<T: Element>(&self, i: usize) -> Input<'t, T> {
        let View { rows, numel, element_bytes } = self.views[self.ids[i] as usize];
        assert_eq!(
            element_bytes,
            size_of::<T>(),
            "a kernel reads the dtype it was made for, and what is changed in place through the output"
        );
        Input { models: self.models, rows, numel, elements: PhantomData }
    }
}

/// One input of every model of a tile.
#[derive(Clone, Copy)]
pub struct Input<'t, T> {
    models: usize,
    rows: Rows<'t>,
    numel: usize,
    elements: PhantomData<&'t [T]>,
}

impl<'t, T: Element> Input<'t, T> {
    /// Gives the number of elements of each model.
    #[inline(always)]
    pub(crate) fn numel(&self) -> usize {
        self.numel
    }

    /// Gives the bytes from one model's elements to the next one's, if they lie evenly apart.
    #[inline(always)]
    pub(super) fn stride(&self) -> Option<usize> {
        self.rows.stride()
    }

    /// Gives the address of a model's elements.
    #[inline(always)]
    pub(super) fn address(&self, model: usize) -> *const T {
        self.rows.at(model).cast_const().cast()
    }

    /// Gives a model's elements, in the order of the input's layout.
    ///
    /// # Panics
    ///
    /// If there is no such model.
    #[inline(always)]
    pub fn at(&self, model: usize) -> &'t [T] {
        assert!(model < self.models, "a model of the tile");
        // SAFETY: whoever made the tile promised `numel` initialized elements at this address that
        // nobody writes while it lives; `Inputs::get` compared their size.
        unsafe { core::slice::from_raw_parts(self.rows.at(model).cast(), self.numel) }
    }
}

/// The outputs of a tile, each handed out once.
pub struct Outputs<'t> {
    models: usize,
    views: &'t [View<'t>],
    ids: &'t [u32],
    next: usize,
    lifetime: PhantomData<&'t mut u8>,
}

impl<'t> Outputs<'t> {
    /// Gives the next output of every model.
    ///
    /// # Panics
    ///
    /// If there is no further output or its elements are not `T`.
    #[inline(always)]
    pub fn take<T: Element>(&mut self) -> Output<'t, T> {
        let View { rows, numel, element_bytes } = self.views[self.ids[self.next] as usize];
        self.next += 1;
        assert_eq!(element_bytes, size_of::<T>(), "a kernel writes the dtype it was made for");
        Output { models: self.models, rows, numel, elements: PhantomData }
    }
}

/// One output of every model of a tile.
pub struct Output<'t, T> {
    models: usize,
    rows: Rows<'t>,
    numel: usize,
    elements: PhantomData<&'t mut [T]>,
}

impl<'t, T: Element> Output<'t, T> {
    /// Gives the number of elements of each model.
    #[inline(always)]
    pub(crate) fn numel(&self) -> usize {
        self.numel
    }

    /// Gives the bytes from one model's elements to the next one's, if they lie evenly apart.
    #[inline(always)]
    pub(super) fn stride(&self) -> Option<usize> {
        self.rows.stride()
    }

    /// Gives the address of a model's elements.
    #[inline(always)]
    pub(super) fn address(&self, model: usize) -> *mut T {
        self.rows.at(model).cast()
    }

    /// Gives a model's elements, in the order of the output's layout.
    ///
    /// # Panics
    ///
    /// If there is no such model.
    #[inline(always)]
    pub fn at(&mut self, model: usize) -> &mut [T] {
        self.elements_of(model)
    }

    /// Gives a model's elements, for as long as the tile is borrowed.
    #[inline(always)]
    fn into_model(self, model: usize) -> &'t mut [T] {
        self.elements_of(model)
    }

    #[inline(always)]
    fn elements_of<'s>(&self, model: usize) -> &'s mut [T]
    where
        't: 's,
    {
        assert!(model < self.models, "a model of the tile");
        // SAFETY: whoever made the tile promised `numel` initialized elements at this address that
        // overlap no other view; `Outputs::take` compared their size. Each output is handed out once, because
        // `next` moves on and `Tile::operands` borrows the tile exclusively, and gives out one model's elements
        // at a time, because its two callers borrow it exclusively or consume it.
        unsafe { core::slice::from_raw_parts_mut(self.rows.at(model).cast(), self.numel) }
    }
}

/// The operands of one model of a [`Tile`].
pub struct Model<'t> {
    model: usize,
    inputs: Inputs<'t>,
    outputs: Outputs<'t>,
    scratch: &'t mut [u8],
    key: Key,
    draw: u32,
}

impl<'t> Model<'t> {
    /// Splits into inputs, outputs and scratch memory (zeroed at first, then as it was left).
    #[inline(always)]
    pub fn split(self) -> (ModelInputs<'t>, ModelOutputs<'t>, &'t mut [u8]) {
        let Model { model, inputs, outputs, scratch, .. } = self;
        (ModelInputs { model, inputs }, ModelOutputs { model, outputs }, scratch)
    }

    /// Gives the state of this model's random numbers, and the number of this draw in a step.
    #[inline(always)]
    pub fn key(&self) -> (Key, u32) {
        (self.key, self.draw)
    }
}

/// The inputs of one model.
#[derive(Clone, Copy)]
pub struct ModelInputs<'t> {
    model: usize,
    inputs: Inputs<'t>,
}

impl<'t> ModelInputs<'t> {
    /// Gives the elements of input `i`, in the order of its layout.
    ///
    /// # Panics
    ///
    /// If there is no such input, it is [changed in place](crate::ir::op::Op::in_place), or its elements are not `T`.
    #[inline(always)]
    pub fn get<T: Element>(&self, i: usize) -> &'t [T] {
        self.inputs.get(i).at(self.model)
    }

    /// Gives the number of inputs.
    pub fn len(&self) -> usize {
        self.inputs.ids.len()
    }

    /// Says whether there are no inputs.
    pub fn is_empty(&self) -> bool {
        self.inputs.ids.is_empty()
    }
}

/// The outputs of one model, each handed out once.
pub struct ModelOutputs<'t> {
    model: usize,
    outputs: Outputs<'t>,
}

impl<'t> ModelOutputs<'t> {
    /// Gives the elements of the next output, in the order of its layout.
    ///
    /// # Panics
    ///
    /// If there is no further output or its elements are not `T`.
    #[inline(always)]
    pub fn take<T: Element>(&mut self) -> &'t mut [T] {
        self.outputs.take().into_model(self.model)
    }
}

/// A kernel whose body is compiled for each instruction set.
pub trait VectorKernel: Send + Sync {
    /// Computes the outputs of every model in `tile`. Implementations are `#[inline(always)]`.
    fn run<S: Simd>(&self, tile: &mut Tile<'_>);

    /// See [`Kernel::scratch_bytes`].
    fn scratch_bytes(&self) -> usize {
        0
    }

    /// See [`Kernel::table_bytes`].
    fn table_bytes(&self) -> usize {
        0
    }
}

/// Makes the kernel that runs `kernel` with the best instructions that the machine has.
pub fn vector_kernel(kernel: impl VectorKernel + 'static) -> Box<dyn Kernel> {
    Box::new(ForEachSet(kernel))
}

/// Runs `kernel` with the best instructions that the machine has.
pub(crate) fn run_vectors(kernel: &impl VectorKernel, tile: &mut Tile<'_>) {
    // The kernel first: the compiler puts a tuple's code beside its first type.
    dispatch((kernel, tile));
}

struct ForEachSet<K>(K);

impl<K: VectorKernel> Kernel for ForEachSet<K> {
    fn run(&self, tile: &mut Tile<'_>) {
        run_vectors(&self.0, tile);
    }

    fn scratch_bytes(&self) -> usize {
        self.0.scratch_bytes()
    }

    fn table_bytes(&self) -> usize {
        self.0.table_bytes()
    }
}

impl<K: VectorKernel> Vectorized for (&K, &mut Tile<'_>) {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        let (kernel, tile) = self;
        kernel.run::<S>(tile);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn parts_lie_where_the_list_says(
            lengths in proptest::collection::vec((1_usize..60, 0_u32..3), 1..5),
            cut in any::<(prop::sample::Index, prop::sample::Index)>(),
        ) {
            let mut list = RowList::default();
            for (run, (length, segment)) in lengths.into_iter().enumerate() {
                // Runs lie in any order, and some follow the one before.
                let first = (run as u32 * 5 % 3) * 1000 + run as u32 * 60;
                list.extend((first..).take(length).map(|row| (segment, row)));
            }
            let (segments, rows) = ([ptr::null_mut::<u8>().wrapping_add(8); 3], list.as_slice());
            let listed = list.of(&segments, 8).offset(4);
            let [a, b] = [cut.0.index(rows.len() + 1), cut.1.index(rows.len() + 1)];
            let models = a.min(b)..a.max(b);
            let part = listed.part(&models);
            for (i, model) in models.clone().enumerate() {
                prop_assert_eq!(part.at(i), listed.at(model));
                prop_assert_eq!(part.at(i).addr(), rows[model].1 as usize * 8 + 12);
            }
            let follows = |i: usize| rows[i] == (rows[i - 1].0, rows[i - 1].1 + 1);
            let after = models.start + 1..models.end.max(models.start + 1);
            let gaps = after.filter(|&i| !follows(i)).count();
            prop_assert_eq!(part.stride().is_none(), gaps > 0);
            let starts: Vec<_> = list.runs().map(|(models, row)| (models.start, row)).collect();
            let expected = (0..rows.len()).filter(|&i| i == 0 || !follows(i));
            prop_assert_eq!(starts, expected.map(|i| (i, rows[i])).collect::<Vec<_>>());
            let are_known = matches!(listed, Rows::Listed { runs: [_, ..], .. });
            prop_assert_eq!(listed.gaps(&models), if are_known { gaps } else { 0 });
            let even = models.start..models.start + listed.until_gap(&models);
            prop_assert_eq!(listed.gaps(&even), 0);
            prop_assert!(even.end == models.end || !follows(even.end));
        }
    }
}
