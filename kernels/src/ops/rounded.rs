//! Ops in single precision whose results are rounded to a half: what is left of a conversion to it and back.
//!
//! `Rounded` is an op of another kind with its results rounded where they were written, `Round` the rounding alone. The
//! pass [`halves`](crate::plan::halves) puts them into plans; nothing records them.

use core::any::Any;
use core::marker::PhantomData;
use std::sync::Arc;

use crate::cpu::kernel::{Cpu, Kernel};
use crate::cpu::simd::Simd;
use crate::cpu::simd::halves::{Stored, round_in_place};
use crate::cpu::tile::{Tile, VectorKernel, run_vectors};
use crate::ir::dtype::{Dtype, bf16, f16};
use crate::ir::op::{Around, Ask, InHalves, Op, OpError};
use crate::ir::shape::{Layout, Operand, Type};
use crate::ops::activation::relu::{Relu, ReluGradient};
use crate::ops::elementwise::pointwise::{Pointwise, computes, layout_like};

/// An op with one output, which is rounded to a half and stays in single precision.
#[derive(Clone, Debug)]
struct Rounded {
    op: Arc<dyn Op>,
    to: Dtype,
    /// Whether a ReLU follows.
    relu: bool,
}

/// Gives the op that rounds the results of one with one output to a half.
pub(crate) fn rounded(op: Arc<dyn Op>, to: Dtype) -> Arc<dyn Op> {
    Arc::new(Rounded { op, to, relu: false })
}

/// Gives the half that the results of an op are rounded to as the last thing that it does, if they are.
pub(crate) fn rounds_to(op: &dyn Op) -> Option<Dtype> {
    let op: &dyn Any = op;
    let round = op.downcast_ref().map(|Round { to }| *to);
    round.or_else(|| op.downcast_ref().map(|Rounded { to, .. }| *to))
}

/// Gives the op whose results one rounds that [`rounded`] gave.
pub(crate) fn unrounded(op: &dyn Op) -> Option<&Arc<dyn Op>> {
    let Rounded { op, relu, .. } = (op as &dyn Any).downcast_ref()?;
    (!relu).then_some(op)
}

impl Op for Rounded {
    fn name(&self) -> &'static str {
        self.op.name()
    }

    fn attributes(&self) -> String {
        let own = format!("rounded={}{}", self.to, if self.relu { " relu" } else { "" });
        let attributes = self.op.attributes();
        if attributes.is_empty() { own } else { format!("{attributes} {own}") }
    }

    fn outputs(&self, inputs: &[Type]) -> Result<Vec<Type>, OpError> {
        self.op.outputs(inputs)
    }

    fn takes_any_layout(&self, input: usize) -> bool {
        self.op.takes_any_layout(input)
    }

    fn takes_layout(&self, input: usize, operand: &Operand) -> bool {
        self.op.takes_layout(input, operand)
    }

    fn layouts(&self, inputs: &[Operand], outputs: &[Type]) -> Vec<Layout> {
        self.op.layouts(inputs, outputs)
    }

    fn is_random(&self) -> bool {
        self.op.is_random()
    }

    fn cost(&self, inputs: &[Type], outputs: &[Type]) -> usize {
        let numel = outputs.iter().map(|ty| ty.shape.numel()).fold(0, usize::saturating_add);
        self.op.cost(inputs, outputs).saturating_add(numel)
    }

    fn kernels(&self, ask: &mut Ask<'_>) {
        let relu = self.relu;
        ask.give_changed::<Cpu>(&*self.op, |kernel| match self.to {
            Dtype::F16 => Box::new(ThenRound::<f16> { kernel, relu, of: PhantomData }),
            _ => Box::new(ThenRound::<bf16> { kernel, relu, of: PhantomData }),
        });
    }

    fn fuse_activation(&self, next: &dyn Op) -> Option<Arc<dyn Op>> {
        if self.relu {
            return None;
        }
        let rounded = Rounded::clone(self);
        if Pointwise::<Relu, 1, 1>::of(next).is_some() {
            return Some(Arc::new(Rounded { relu: true, ..rounded }));
        }
        // Rounding before it or after is the same: it puts zeros in the place of some numbers.
        Pointwise::<ReluGradient, 2, 1>::of(next)?;
        let op = self.op.fuse_activation(next)?;
        Some(Arc::new(Rounded { op, ..rounded }))
    }

    fn in_halves(&self, around: &Around<'_>) -> Option<InHalves> {
        let outputs = [Some(self.to)];
        let found = self.op.in_halves(&Around { outputs: &outputs, ..*around })?;
        (!self.relu && !found.narrows).then_some(found)
    }
}

/// A kernel whose output is rounded behind it.
struct ThenRound<H> {
    kernel: Box<dyn Kernel>,
    relu: bool,
    of: PhantomData<H>,
}

impl<H: Stored<f32>> Kernel for ThenRound<H> {
    fn run(&self, tile: &mut Tile<'_>) {
        self.kernel.run(tile);
        run_vectors(self, tile);
    }

    fn scratch_bytes(&self) -> usize {
        self.kernel.scratch_bytes()
    }

    fn table_bytes(&self) -> usize {
        size_of_val(&*self.kernel) + self.kernel.table_bytes()
    }
}

impl<H: Stored<f32>> VectorKernel for ThenRound<H> {
    #[inline(always)]
    fn run<S: Simd>(&self, tile: &mut Tile<'_>) {
        let models = tile.models();
        let (_, mut outputs, _) = tile.operands();
        let mut y = outputs.take::<f32>();
        for model in 0..models {
            round_in_place::<H, S>(y.at(model), self.relu);
        }
    }
}

/// Rounds numbers in single precision to those of a half.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Round {
    /// The half.
    pub(crate) to: Dtype,
}

impl Op for Round {
    fn name(&self) -> &'static str {
        "round_to"
    }

    fn attributes(&self) -> String {
        format!("dtype={}", self.to)
    }

    fn outputs(&self, inputs: &[Type]) -> Result<Vec<Type>, OpError> {
        let [x] = inputs else {
            return Err(OpError(format!("round_to: expected 1 input, got {}", inputs.len())));
        };
        computes("round_to", x)?;
        Ok(vec![x.clone()])
    }

    fn takes_any_layout(&self, _: usize) -> bool {
        true
    }

    fn layouts(&self, inputs: &[Operand], outputs: &[Type]) -> Vec<Layout> {
        vec![layout_like(inputs, &outputs[0].shape)]
    }

    fn kernels(&self, ask: &mut Ask<'_>) {
        let copy: fn(&mut Tile<'_>) = |tile| {
            for model in 0..tile.models() {
                let (inputs, mut outputs, _) = tile.model(model).split();
                outputs.take::<f32>().copy_from_slice(inputs.get(0));
            }
        };
        ask.give::<Cpu>(|_, _| {
            let kernel: Box<dyn Kernel> = Box::new(copy);
            match self.to {
                Dtype::F16 => Box::new(ThenRound::<f16> { kernel, relu: false, of: PhantomData }),
                _ => Box::new(ThenRound::<bf16> { kernel, relu: false, of: PhantomData }),
            }
        });
    }
}
