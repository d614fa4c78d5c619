//! What a kernel sees: some models of a cohort, and for each operand where their elements lie.
#![expect(unsafe_code, reason = "operands are rows of columns and of arenas, given by address")]

use core::marker::PhantomData;
use core::ptr;

use crate::dtype::Element;

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
            Rows::Listed { segments, stride, rows, offset } => {
                let (segment, row) = rows[i];
                segments[segment as usize].wrapping_add(row as usize * stride + offset)
            }
        }
    }

    /// Gives the rows from `start` on.
    pub fn from(&self, start: usize) -> Rows<'a> {
        match *self {
            Rows::Strided { base, stride } => {
                Rows::Strided { base: base.wrapping_add(start * stride), stride }
            }
            Rows::Listed { segments, stride, rows, offset } => {
                Rows::Listed { segments, stride, rows: &rows[start..], offset }
            }
        }
    }

    /// Gives the same rows, each `bytes` further on.
    pub fn offset(&self, bytes: usize) -> Rows<'a> {
        match *self {
            Rows::Strided { base, stride } => {
                Rows::Strided { base: base.wrapping_add(bytes), stride }
            }
            Rows::Listed { segments, stride, rows, offset } => {
                Rows::Listed { segments, stride, rows, offset: offset + bytes }
            }
        }
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
    /// `element_bytes` bytes, aligned for their type, initialized, and not written by anybody else while
    /// the tile lives; those of outputs are written by nobody else and overlap no other view.
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

    /// Gives the operands of one model.
    #[inline(always)]
    pub fn model(&mut self, model: usize) -> Model<'_> {
        debug_assert!(model < self.models);
        Model {
            model,
            views: self.views,
            inputs: self.inputs,
            outputs: self.outputs,
            scratch: self.scratch,
            key: self.keys.get(model).copied().unwrap_or_default(),
            draw: self.draw,
        }
    }
}

/// The operands of one model of a [`Tile`].
pub struct Model<'t> {
    model: usize,
    views: &'t [View<'t>],
    inputs: &'t [u32],
    outputs: &'t [u32],
    scratch: &'t mut [u8],
    key: Key,
    draw: u32,
}

/// The inputs of one model.
#[derive(Clone, Copy)]
pub struct Inputs<'t> {
    model: usize,
    views: &'t [View<'t>],
    ids: &'t [u32],
}

impl<'t> Inputs<'t> {
    /// Gives the elements of input `i`, in the order of its layout.
    ///
    /// # Panics
    ///
    /// If there is no such input or its elements are not `T`.
    #[inline(always)]
    pub fn get<T: Element>(&self, i: usize) -> &'t [T] {
        let view = &self.views[self.ids[i] as usize];
        assert_eq!(view.element_bytes, size_of::<T>(), "a kernel reads the dtype it was made for");
        // SAFETY: whoever made the tile promised `numel` initialized elements at this address that
        // nobody writes while it lives.
        unsafe { core::slice::from_raw_parts(view.rows.at(self.model).cast(), view.numel) }
    }

    /// Gives the number of inputs.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Says whether there are no inputs.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }
}

/// The outputs of one model, each handed out once.
pub struct Outputs<'t> {
    model: usize,
    views: &'t [View<'t>],
    ids: &'t [u32],
    next: usize,
    lifetime: PhantomData<&'t mut u8>,
}

impl<'t> Outputs<'t> {
    /// Gives the elements of the next output, in the order of its layout.
    ///
    /// # Panics
    ///
    /// If there is no further output or its elements are not `T`.
    #[inline(always)]
    pub fn take<T: Element>(&mut self) -> &'t mut [T] {
        let view = &self.views[self.ids[self.next] as usize];
        self.next += 1;
        assert_eq!(view.element_bytes, size_of::<T>(), "a kernel writes the dtype it was made for");
        // SAFETY: whoever made the tile promised `numel` initialized elements at this address that
        // overlap no other view; each output of a model is handed out once, because `next` moves on
        // and `Model::split` consumes the model, which borrows the tile exclusively.
        unsafe { core::slice::from_raw_parts_mut(view.rows.at(self.model).cast(), view.numel) }
    }
}

impl<'t> Model<'t> {
    /// Splits into inputs, outputs and scratch memory (zeroed at first, then as it was left).
    #[inline(always)]
    pub fn split(self) -> (Inputs<'t>, Outputs<'t>, &'t mut [u8]) {
        let Model { model, views, inputs, outputs, scratch, .. } = self;
        (
            Inputs { model, views, ids: inputs },
            Outputs { model, views, ids: outputs, next: 0, lifetime: PhantomData },
            scratch,
        )
    }

    /// Gives the state of this model's random numbers, and the number of this draw in a step.
    #[inline(always)]
    pub fn key(&self) -> (Key, u32) {
        (self.key, self.draw)
    }
}
