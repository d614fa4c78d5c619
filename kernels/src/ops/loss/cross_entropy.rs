//! Cross entropy of logits with class indices: softmax and negative log-likelihood in one op.
//!
//! For item `i` with target `t`, class weights `w`, smoothing `ε` and `C` classes,
//!
//! ```text
//! loss_i = -(1 - ε) · w_t · log p_t - ε/C · Σ_c w_c · log p_c,    p = softmax(x)
//! ```
//!
//! and `mean` divides the sum of these by the sum of `w_t`. Ignored items count for nothing. An item whose
//! target is no class has a loss of NaN: a kernel cannot fail, so targets are checked before, by
//! [`check_targets`].
//!
//! Loss, gradient and both at once run the same code (`CrossEntropyKernel`), so the bits are the same.
//! Sums over classes are taken in their order, each item in a lane of its own; sums over items in the
//! order of [`crate::ops::reduction::reduce`].
//!
//! Source: `torch.nn.functional.cross_entropy` with class indices.

use std::sync::Arc;

mod curvature;
mod kernel;
mod on_device;
mod settings;

use kernel::CrossEntropyKernel;
use settings::{Settings, class_axis};

use crate::cpu::kernel::{Cpu, Kernel};
use crate::cpu::vector_kernel::vector_kernel;
use crate::device::code::Cuda;
use crate::ir::dtype::Dtype;
use crate::ir::op::{Ask, GradientAt, Op, OpError, WithGradient};
use crate::ir::shape::{Layout, Operand, Shape, Type};
use crate::ir::trace::{Function, Var};
use crate::ops::elementwise::pointwise::{computes, layout_like, same_dtype};
use crate::ops::reduction::reduce::Reduction;

/// The loss; inputs logits, targets, smoothing and perhaps weights.
#[derive(Clone, Copy, Debug)]
struct CrossEntropy(Settings);

/// The gradient of the logits; inputs those of [`CrossEntropy`] and the gradient of the loss.
#[derive(Clone, Copy, Debug)]
struct CrossEntropyGradient(Settings);

/// Loss and gradient at once, so that exponentials are computed once; inputs as for
/// [`CrossEntropyGradient`].
#[derive(Clone, Copy, Debug)]
struct CrossEntropyWithGradient(Settings);

/// A class index that is out of range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("Target {target} is out of bounds.")]
pub struct TargetError {
    /// The target.
    pub target: i64,
    /// Where it stands.
    pub index: usize,
}

/// Checks that every target is a class or `ignore_index`.
///
/// # Errors
///
/// The first one that is not, in torch's words.
pub fn check_targets(
    targets: &[i64],
    classes: usize,
    ignore_index: i64,
) -> Result<(), TargetError> {
    let is_wrong = |&target: &i64| {
        target != ignore_index && usize::try_from(target).map_or(true, |target| target >= classes)
    };
    match targets.iter().position(is_wrong) {
        Some(index) => Err(TargetError { target: targets[index], index }),
        None => Ok(()),
    }
}

impl Var {
    /// Gives the cross entropy of these logits with class indices.
    ///
    /// # Shape
    ///
    /// `self` is `[items, classes]` or `[items, classes, ..]`, or `[classes]` for one item; `target` is
    /// `[items]`, `[items, ..]` or `[]`, of i64; `weight` is `[classes]`; `label_smoothing` is `[]`. The
    /// loss is `[]`, or as `target` if `reduction` is [`Reduction::None`]. Only the logits get a
    /// gradient.
    ///
    /// Source: `torch.nn.functional.cross_entropy`.
    #[must_use]
    pub fn cross_entropy(
        &self,
        target: &Var,
        weight: Option<&Var>,
        label_smoothing: &Var,
        ignore_index: i64,
        reduction: Reduction,
    ) -> Var {
        self.trace().function(
            Function::of_same("cross_entropy_loss"),
            &[Some(self), Some(target), weight, Some(label_smoothing)],
            |cast| {
                cast(self).plain_cross_entropy(
                    &cast(target),
                    weight.map(cast).as_ref(),
                    &cast(label_smoothing),
                    ignore_index,
                    reduction,
                )
            },
        )
    }

    fn plain_cross_entropy(
        &self,
        target: &Var,
        weight: Option<&Var>,
        label_smoothing: &Var,
        ignore_index: i64,
        reduction: Reduction,
    ) -> Var {
        let settings = Settings { ignore_index, reduction, has_weight: weight.is_some() };
        let inputs: Vec<_> = [self, target, label_smoothing].into_iter().chain(weight).collect();
        self.trace().apply(CrossEntropy(settings), &inputs)
    }
}

impl Settings {
    /// Counts the inputs of the loss.
    fn n_inputs(self) -> usize {
        3 + usize::from(self.has_weight)
    }

    fn attributes(self) -> String {
        let weighted = if self.has_weight { " weighted" } else { "" };
        let (ignore_index, reduction) = (self.ignore_index, self.reduction.name());
        format!("ignore_index={ignore_index} reduction={reduction}{weighted}")
    }

    /// Checks the inputs of the loss and gives its type.
    fn loss_type(self, inputs: &[Type]) -> Result<Type, OpError> {
        let [logits, targets, smoothing, weight @ ..] = inputs else {
            return Err(OpError(format!(
                "cross_entropy: expected {} inputs, got {}",
                self.n_inputs(),
                inputs.len()
            )));
        };
        computes("cross_entropy", logits)?;
        let rank = logits.shape.rank();
        if rank == 0 {
            return Err(OpError("cross_entropy: expected logits of 1 or more dimensions".into()));
        }
        let axis = class_axis(&logits.shape);
        let (items, classes) = (&logits.shape, logits.shape[axis]);
        if classes == 0 || classes > MAX_CLASSES {
            return Err(OpError(format!(
                "cross_entropy: expected 1 to {MAX_CLASSES} classes, got {classes}"
            )));
        }
        let expected: Shape =
            (0..rank).filter(|&other| other != axis).map(|other| items[other]).collect();
        if targets.shape != expected {
            if rank == 2 && targets.shape.rank() == 1 {
                return Err(OpError(format!(
                    "Expected input batch_size ({}) to match target batch_size ({}).",
                    items[0], targets.shape[0]
                )));
            }
            return Err(OpError(format!("Expected target size {expected}, got {}", targets.shape)));
        }
        if targets.dtype != Dtype::I64 {
            return Err(OpError(format!(
                "cross_entropy: expected targets of i64, got {}",
                targets.dtype
            )));
        }
        same_dtype("cross_entropy", logits, smoothing)?;
        if smoothing.shape.rank() != 0 {
            return Err(OpError(format!(
                "cross_entropy: expected a label_smoothing of shape [], got {}",
                smoothing.shape
            )));
        }
        if let Some(weight) = weight.first().filter(|_| self.has_weight) {
            same_dtype("cross_entropy", logits, weight)?;
            if *weight.shape != [classes] {
                return Err(OpError(format!(
                    "weight tensor should be defined either for all {classes} classes or no \
                     classes but got weight tensor of shape: {}",
                    weight.shape
                )));
            }
        }
        let shape = match self.reduction {
            Reduction::None => expected,
            Reduction::Mean | Reduction::Sum => Shape::scalar(),
        };
        Ok(Type { dtype: logits.dtype, shape })
    }

    fn kernel(
        self,
        inputs: &[Operand],
        gradient: Option<&Operand>,
        has_loss: bool,
    ) -> Box<dyn Kernel> {
        match inputs[0].ty.dtype {
            Dtype::F64 => {
                vector_kernel(CrossEntropyKernel::<f64>::new(self, &inputs[0], gradient, has_loss))
            }
            _ => {
                vector_kernel(CrossEntropyKernel::<f32>::new(self, &inputs[0], gradient, has_loss))
            }
        }
    }
}

impl Op for CrossEntropy {
    fn name(&self) -> &'static str {
        "cross_entropy"
    }

    fn attributes(&self) -> String {
        self.0.attributes()
    }

    fn outputs(&self, inputs: &[Type]) -> Result<Vec<Type>, OpError> {
        Ok(vec![self.0.loss_type(inputs)?])
    }

    fn takes_any_layout(&self, input: usize) -> bool {
        input == 0
    }

    fn kernels(&self, ask: &mut Ask<'_>) {
        ask.give::<Cpu>(|inputs, _| self.0.kernel(inputs, None, true))
            .give::<Cuda>(|inputs, _| Box::new(on_device::code(self.0, inputs, None, true)));
    }

    fn gradient(&self, at: &GradientAt<'_>) -> Vec<Option<Var>> {
        let mut gradients = vec![None; at.inputs.len()];
        if let Some(dloss) = at.gradients[0].as_ref().filter(|_| at.needs[0]) {
            let inputs: Vec<_> = at.inputs.iter().chain([dloss]).collect();
            gradients[0] = Some(dloss.trace().apply(CrossEntropyGradient(self.0), &inputs));
        }
        gradients
    }

    fn fuse_gradient(&self) -> Option<WithGradient> {
        let gradient = Arc::new(CrossEntropyGradient(self.0));
        Some(WithGradient { gradient, both: Arc::new(CrossEntropyWithGradient(self.0)) })
    }
}

impl Op for CrossEntropyGradient {
    fn name(&self) -> &'static str {
        "cross_entropy_gradient"
    }

    fn attributes(&self) -> String {
        self.0.attributes()
    }

    fn outputs(&self, inputs: &[Type]) -> Result<Vec<Type>, OpError> {
        let loss = self.0.loss_type(inputs)?;
        match inputs.get(self.0.n_inputs()) {
            Some(dloss) if *dloss == loss => Ok(vec![inputs[0].clone()]),
            Some(dloss) => Err(OpError(format!(
                "cross_entropy_gradient: expected a gradient of {loss}, got {dloss}"
            ))),
            None => Err(OpError("cross_entropy_gradient: expected a gradient".into())),
        }
    }

    fn takes_any_layout(&self, input: usize) -> bool {
        input == 0
    }

    fn layouts(&self, inputs: &[Operand], outputs: &[Type]) -> Vec<Layout> {
        vec![layout_like(&inputs[..1], &outputs[0].shape)]
    }

    fn kernels(&self, ask: &mut Ask<'_>) {
        ask.give::<Cpu>(|inputs, outputs| self.0.kernel(inputs, Some(&outputs[0]), false))
            .give::<Cuda>(|inputs, outputs| {
                Box::new(on_device::code(self.0, inputs, Some(&outputs[0]), false))
            });
    }

    fn gradient(&self, at: &GradientAt<'_>) -> Vec<Option<Var>> {
        self.0.second_gradient(at)
    }
}

impl Op for CrossEntropyWithGradient {
    fn name(&self) -> &'static str {
        "cross_entropy_with_gradient"
    }

    fn attributes(&self) -> String {
        self.0.attributes()
    }

    fn outputs(&self, inputs: &[Type]) -> Result<Vec<Type>, OpError> {
        let loss = self.0.loss_type(inputs)?;
        let gradient = CrossEntropyGradient(self.0).outputs(inputs)?;
        Ok([vec![loss], gradient].concat())
    }

    fn takes_any_layout(&self, input: usize) -> bool {
        input == 0
    }

    fn layouts(&self, inputs: &[Operand], outputs: &[Type]) -> Vec<Layout> {
        vec![outputs[0].shape.row_major(), layout_like(&inputs[..1], &outputs[1].shape)]
    }

    fn kernels(&self, ask: &mut Ask<'_>) {
        ask.give::<Cpu>(|inputs, outputs| self.0.kernel(inputs, Some(&outputs[1]), true))
            .give::<Cuda>(|inputs, outputs| {
                Box::new(on_device::code(self.0, inputs, Some(&outputs[1]), true))
            });
    }
}

/// Class indices are compared as singles, which hold whole numbers up to here.
const MAX_CLASSES: usize = 1 << 24;
