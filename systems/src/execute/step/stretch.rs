//! [`Stretch`]: training steps on minibatches of one size, cut from a call's arrays or from a data set.

use neurarch_kernels::ir::tree::Arguments;

use crate::compile::array::{Erased, Sizes, TypeRef};
use crate::compile::trace::Inputs;
use crate::storage::launch::Read;

/// Some steps on minibatches of one size.
#[derive(Clone, Copy)]
pub(super) struct Stretch<'a> {
    /// The types of what the models are called with.
    pub(super) types: &'a [TypeRef<'a>],
    /// How these are nested; `None` if they are one value.
    pub(super) structure: Option<&'a Arguments<usize>>,
    pub(super) target: TypeRef<'a>,
    /// Where the first of what the models are called with is read, if it is not in `more`.
    pub(super) first: Option<Read<'a>>,
    pub(super) more: &'a [Read<'a>],
    /// Where the targets are read.
    pub(super) targets: Read<'a>,
    pub(super) steps: usize,
}

impl<'a> Stretch<'a> {
    /// One step on whole arrays; `types` is that of `x`.
    pub(super) fn once(types: &'a [TypeRef<'a>; 1], x: Erased<'a>, targets: Erased<'a>) -> Self {
        Stretch {
            types,
            structure: None,
            target: targets.ty(),
            first: Some(Read::new(x.bytes, x.stride())),
            more: &[],
            targets: Read::new(targets.bytes, targets.stride()),
            steps: 1,
        }
    }

    /// Lists what is read: what the models are called with, then the targets.
    pub(super) fn reads(&self) -> impl Iterator<Item = Read<'a>> + use<'a> {
        self.first.into_iter().chain(self.more.iter().copied()).chain([self.targets])
    }

    /// Returns the types of what the models are called with, and how these are nested.
    pub(super) fn inputs(&self) -> Inputs<'a> {
        let types = self.types.iter().map(|ty| ty.to_type()).collect();
        Inputs { types, structure: self.structure }
    }
}

/// Cuts `[models, steps, batch, ..]` into steps.
pub(super) fn stacked<'a>(
    types: &'a [TypeRef<'a>],
    x: Erased<'a>,
    targets: Erased<'a>,
    steps: usize,
) -> Stretch<'a> {
    let read = |array: Erased<'a>| {
        let row = array.stride();
        Read::new(array.bytes, row).at(0, row / steps.max(1))
    };
    Stretch {
        types,
        structure: None,
        target: TypeRef { dtype: targets.dtype, shape: &targets.shape[1..] },
        first: Some(read(x)),
        more: &[],
        targets: read(targets),
        steps,
    }
}

/// Cuts each epoch into full minibatches and a smaller one.
///
/// `item_bytes` are the bytes from item to item where inputs and targets are read, and `epoch_items` the items from
/// epoch to epoch: none where each epoch reads the same.
pub(super) fn epochs<'a>(
    [full, last]: [Stretch<'a>; 2],
    epochs: usize,
    sizes: &Sizes,
    (item_bytes, epoch_items): ([usize; 2], usize),
) -> Vec<Stretch<'a>> {
    let cut = |part: Stretch<'a>, steps: usize, start: usize, batch: usize| {
        let at = |read: Read<'a>, bytes: usize| read.at(start * bytes, batch * bytes);
        let first = part.first.map(|read| at(read, item_bytes[0]));
        Stretch { first, targets: at(part.targets, item_bytes[1]), steps, ..part }
    };
    let mut parts = Vec::new();
    // Of no items, epochs may be any number.
    for epoch in 0..if sizes.items > 0 { epochs } else { 0 } {
        let start = epoch * epoch_items;
        let steps = sizes.items / sizes.batch;
        if steps > 0 {
            parts.push(cut(full, steps, start, sizes.batch));
        }
        if !sizes.items.is_multiple_of(sizes.batch) {
            parts.push(cut(last, 1, start + steps * sizes.batch, 0));
        }
    }
    parts
}
