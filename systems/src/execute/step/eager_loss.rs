//! Losses that read numbers, model by model: no plan computes them.

use ndarray::{ArrayD, IxDyn};
use neurarch_components::losses::DynLoss;
use neurarch_kernels::ir::autocast::Autocast;
use neurarch_kernels::ir::dtype::Element;
use neurarch_kernels::ir::eager::{Eager, ReadError};
use neurarch_kernels::ir::shape::Type;
use neurarch_kernels::ir::trace::{Trace, Var};
use neurarch_kernels::passes::differentiate;

use super::check::{check_dtype, result_shape, shaped};
use crate::compile::array::Erased;
use crate::errors::StepError;
use crate::execute::eager::{self, Given};
use crate::execute::loss_arrays::LossArrays;
use crate::execute::run::Run;
use crate::execute::tape::Start;

/// The loss of one model.
struct OfModel {
    ty: Type,
    bytes: Vec<u8>,
    /// That of what the model gave, if the loss is one number that depends on it.
    gradient: Option<Vec<u8>>,
}

/// Computes the loss of the last forward pass, whose results are of type `y`.
///
/// # Errors
///
/// As [`loss`](super::loss), and if the losses of models are of several shapes.
pub(super) fn loss<T: Element>(
    run: &mut Run,
    (loss, y): (&dyn DynLoss, &Type),
    targets: Erased<'_>,
) -> Result<ArrayD<T>, StepError> {
    let n_models = run.models.count;
    let Run { cohorts, tape, loss: arrays, .. } = run;
    let (y_bytes, target) = (y.size_bytes(), targets.ty().to_type());
    let mut made: Vec<(usize, OfModel)> = Vec::new();
    for cohort in &cohorts.list {
        for index in cohort.at.members.indices() {
            let of = [
                row(y, tape.outputs.bytes(), index * y_bytes),
                row(&target, targets.bytes, index * targets.stride()),
            ];
            made.push((index, of_model(cohort.scheme.autocast, (loss, arrays), of)?));
        }
    }
    let ty = made.first().map(|(_, of)| of.ty.clone()).ok_or(StepError::Inactive)?;
    if let Some((_, other)) = made.iter().find(|(_, of)| of.ty != ty) {
        let (expected, given) = (ty.shape, other.ty.shape.clone());
        return Err(StepError::Shape { array: "loss", expected, given });
    }
    check_dtype("result", y.dtype, T::DTYPE)?;
    let shape = result_shape("result", n_models, &ty, T::DTYPE)?;
    let mut losses = bytemuck::zeroed_vec::<T>(shape.iter().product());
    let all: &mut [u8] = bytemuck::cast_slice_mut(&mut losses);
    tape.gradient.reserve(y_bytes * n_models);
    let gradients = &mut tape.gradient.bytes_mut()[..y_bytes * n_models];
    gradients.fill(0);
    for (index, OfModel { ty, bytes, gradient }) in made {
        all[index * ty.size_bytes()..][..ty.size_bytes()].copy_from_slice(&bytes);
        if let Some(gradient) = gradient {
            gradients[index * y_bytes..][..y_bytes].copy_from_slice(&gradient);
        }
    }
    tape.given.clear();
    tape.start = if ty.shape.rank() == 0 { Start::Loss } else { Start::LossArray };
    Ok(shaped(IxDyn(&shape), losses))
}

/// Returns the row of a type that begins at a byte.
fn row<'a>(ty: &Type, bytes: &'a [u8], at: usize) -> Given<'a> {
    let rows = vec![&bytes[at..][..ty.size_bytes()]];
    Given { ty: ty.clone(), rows, needs_gradient: false }
}

fn of_model(
    autocast: Option<Autocast>,
    (loss, arrays): (&dyn DynLoss, &LossArrays),
    [y, target]: [Given<'_>; 2],
) -> Result<OfModel, StepError> {
    let mut eager = Eager::new(1, Vec::new());
    let own = loss.clone_box();
    eager.set_scalar_source(Box::new(move |scalar| Some(vec![own.scalar(scalar.name)?])));
    let trace = Trace::eager(eager);
    let y = y.record(&trace);
    let result = y.clone().into();
    let record = || eager::record_loss(&trace, loss, arrays, result, &target);
    let loss = trace.autocast(autocast, record);
    let mut gradient = None;
    if loss.shape().rank() == 0 && trace.error().is_none() {
        let one = trace.constant(1.0, loss.dtype(), []);
        let of_loss = [(loss.clone(), one)];
        let found = differentiate::backward(&trace, &of_loss, std::slice::from_ref(&y));
        gradient = found.into_iter().flatten().next();
    }
    let (_, eager) = trace.pause()?;
    let read = |var: &Var| {
        let (ty, bytes) = eager.read_bytes(var.id().ok_or(ReadError::Poisoned)?)?;
        Ok::<_, ReadError>((ty.clone(), bytes))
    };
    let (ty, bytes) = read(&loss)?;
    let gradient = gradient.as_ref().map(read).transpose()?.map(|(_, bytes)| bytes);
    Ok(OfModel { ty, bytes, gradient })
}
