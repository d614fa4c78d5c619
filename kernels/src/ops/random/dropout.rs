//! Dropout: each element becomes 0 with probability `p`, the others are divided by `1 - p`.
//!
//! Element number `i`, counted features first ([`Shape::features_first`](crate::ir::shape::Shape)), is kept if
//! the upper 24 bits of word `i` of the draw are below `(1 - p) · 2²⁴`: so the mask depends on the model
//! and the step, not on how anything lies in memory. The mask, with the factor in it, is an output of its
//! own, for the gradient.
//!
//! Source: `torch.nn.functional.dropout`; the random numbers are others.

use core::marker::PhantomData;

use rayon::prelude::*;

use crate::arithmetic::Arithmetic;
use crate::cpu::kernel::{Cpu, Kernel};
use crate::cpu::random::{Draw, GROUP};
use crate::cpu::simd::{Float, Simd, Vectorized, dispatch};
use crate::cpu::tile::Tile;
use crate::ir::dtype::Dtype;
use crate::ir::op::{Ask, GradientAt, Op, OpError};
use crate::ir::shape::{Layout, Operand, Type};
use crate::ir::trace::Var;
use crate::ops::elementwise::pointwise::{
    Formula, WORTH_SPLITTING, apply, apply_split, computes, layout_like, same_dtype,
};
use crate::ops::elementwise::walk::Walk;
use crate::ops::reduction::lines::{carve, scratch_bytes};

/// Inputs `x` and `p`, outputs `y` and the mask.
#[derive(Clone, Copy, Debug)]
struct Dropout;

impl Op for Dropout {
    fn name(&self) -> &'static str {
        "dropout"
    }

    fn outputs(&self, inputs: &[Type]) -> Result<Vec<Type>, OpError> {
        let [x, p] = inputs else {
            return Err(OpError(format!("dropout: expected 2 inputs, got {}", inputs.len())));
        };
        computes("dropout", x)?;
        same_dtype("dropout", x, p)?;
        if p.shape.rank() != 0 {
            return Err(OpError(format!("dropout: expected a p of shape [], got {}", p.shape)));
        }
        Ok(vec![x.clone(), x.clone()])
    }

    fn takes_any_layout(&self, _: usize) -> bool {
        true
    }

    fn layouts(&self, inputs: &[Operand], outputs: &[Type]) -> Vec<Layout> {
        vec![layout_like(&inputs[..1], &outputs[0].shape); 2]
    }

    fn is_random(&self) -> bool {
        true
    }

    fn kernels(&self, ask: &mut Ask<'_>) {
        ask.give::<Cpu>(|inputs, outputs| match outputs[0].ty.dtype {
            Dtype::F64 => Box::new(DropoutKernel::<f64>::new(&inputs[0], &outputs[0])),
            _ => Box::new(DropoutKernel::<f32>::new(&inputs[0], &outputs[0])),
        });
    }

    fn gradient(&self, at: &GradientAt<'_>) -> Vec<Option<Var>> {
        match &at.gradients[0] {
            Some(dy) => vec![Some(dy * &at.outputs[1]), None],
            // The mask alone does not depend on `x`.
            None => vec![at.zero(0), None],
        }
    }
}

impl Var {
    /// Sets each element to 0 with probability `p` and divides the others by `1 - p`; `p`, from 0 to 1,
    /// is `[]` and gets no gradient.
    ///
    /// Source: `torch.nn.functional.dropout` while training.
    #[must_use]
    pub fn dropout(&self, p: &Var) -> Var {
        let [y, _] = self.trace().apply_n(Dropout, &[self, p]);
        y
    }
}

/// `x · mask`, and the mask.
#[derive(Clone, Copy, Debug)]
struct Masked;

impl Formula<2, 2> for Masked {
    fn name(&self) -> &'static str {
        "masked"
    }

    #[inline(always)]
    fn apply<A: Arithmetic>(self, [x, mask]: [A; 2]) -> [A; 2] {
        [x.mul(mask), mask]
    }

    fn gradient(self, at: &GradientAt<'_>) -> Vec<Option<Var>> {
        // A part of the kernel of dropout; it is never recorded.
        vec![None; at.inputs.len()]
    }
}

/// `x`, and a mask of ones: what probability 0 gives.
#[derive(Clone, Copy, Debug)]
struct Kept;

impl Formula<1, 2> for Kept {
    fn name(&self) -> &'static str {
        "kept"
    }

    #[inline(always)]
    fn apply<A: Arithmetic>(self, [x]: [A; 1]) -> [A; 2] {
        [x, A::splat(1.0)]
    }

    fn gradient(self, at: &GradientAt<'_>) -> Vec<Option<Var>> {
        // As that of `Masked`.
        vec![None; at.inputs.len()]
    }
}

struct DropoutKernel<T> {
    /// Visits `x` and the mask, which lies features first.
    walk: Walk<2>,
    /// Visits `x`.
    whole: Walk<1>,
    element: PhantomData<T>,
}

impl<T> DropoutKernel<T> {
    fn new(x: &Operand, y: &Operand) -> Self {
        let layout = y.ty.shape.features_first();
        let mask = Operand { ty: y.ty.clone(), layout };
        let walk = Walk::new(&[x.clone(), mask], y);
        DropoutKernel { walk, whole: Walk::new(std::slice::from_ref(x), y), element: PhantomData }
    }
}

impl<T: Float> Kernel for DropoutKernel<T> {
    fn run(&self, tile: &mut Tile<'_>) {
        let DropoutKernel { walk, whole, .. } = self;
        let is_split = tile.split() && walk.numel >= WORTH_SPLITTING;
        for model in 0..tile.models() {
            let model = tile.model(model);
            let (key, draw) = model.key();
            let (inputs, mut outputs, scratch) = model.split();
            let (x, p): (&[T], f64) = (inputs.get(0), inputs.get::<T>(1)[0].into());
            let y = [outputs.take::<T>(), outputs.take::<T>()];
            let work = Work { walk, whole, x, p, draw: Draw::new(key, draw), y, scratch };
            match is_split {
                true => work.split(),
                false => dispatch(work),
            }
        }
    }

    fn scratch_bytes(&self) -> usize {
        scratch_bytes::<T>(&[self.walk.numel])
    }
}

/// The dropout of one model.
struct Work<'a, T> {
    walk: &'a Walk<2>,
    whole: &'a Walk<1>,
    x: &'a [T],
    p: f64,
    draw: Draw,
    y: [&'a mut [T]; 2],
    scratch: &'a mut [u8],
}

impl<T: Float> Work<'_, T> {
    /// Computes it on the threads of the pool.
    fn split(self) {
        let Work { walk, whole, x, p, draw, y, scratch } = self;
        if p == 0.0 {
            apply_split(Kept, whole, [x], y);
            return;
        }
        /// Groups that a thread draws at a time.
        const GROUPS: usize = 512;
        let [mask] = carve::<T, 1>(scratch, [walk.numel]);
        let parts = mask.par_chunks_mut(GROUPS * GROUP).enumerate();
        parts.for_each(|(i, mask)| dispatch(Fill { mask, draw, first: i * GROUPS, p }));
        apply_split(Masked, walk, [x, &*mask], y);
    }
}

impl<T: Float> Vectorized for Work<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        let Work { walk, whole, x, p, draw, y, scratch } = self;
        if p == 0.0 {
            apply::<T, S, _, 1, 2>(Kept, whole, [x], y);
            return;
        }
        let [mask] = carve::<T, 1>(scratch, [walk.numel]);
        fill_mask(mask, draw, 0, p);
        apply::<T, S, _, 2, 2>(Masked, walk, [x, mask], y);
    }
}

/// The making of a part of a mask, from group `first` on.
struct Fill<'a, T> {
    mask: &'a mut [T],
    draw: Draw,
    first: usize,
    p: f64,
}

impl<T: Float> Vectorized for Fill<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        fill_mask(self.mask, self.draw, self.first, self.p);
    }
}

/// Fills `mask`, which begins with group `first` of the draw, with 0 and `1 / (1 - p)`.
#[inline(always)]
fn fill_mask<T: Float>(mask: &mut [T], draw: Draw, first: usize, p: f64) {
    let keep = 1.0 - p;
    // A number of 24 bits is below this one with probability `keep`, to within 2⁻²⁴.
    let below = (keep * f64::from(1_u32 << 24)).ceil() as u32;
    let factor = T::from_f64(if below == 0 { 0.0 } else { 1.0 / keep });
    let choose = |word: u32| {
        if word >> 8 < below { factor } else { T::default() }
    };
    for (group, part) in mask.chunks_mut(GROUP).enumerate() {
        let words = draw.words((first + group) as u32);
        for (element, word) in part.iter_mut().zip(words) {
            *element = choose(word);
        }
    }
}
