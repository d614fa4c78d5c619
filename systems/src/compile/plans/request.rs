//! [`Request`]: a program that is asked for, and what is remembered of one.

use neurarch_components::losses::DynLoss;
use neurarch_kernels::ir::shape::Type;
use neurarch_kernels::ir::trace::TraceError;
use neurarch_kernels::ir::tree::Arguments;

use crate::compile::array::TypeRef;
use crate::compile::script::Kinds;
use crate::compile::trace::Scheme;

/// What a program does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Input `x`; outputs `y`, then what hooks see.
    Forward,
    /// Input `x`; outputs `y`, what hooks see, then the saved values of the tape.
    Tape,
    /// Inputs the gradient of `y`, then the saved values; stores gradients, outputs what hooks see, then gradients of
    /// what is shared.
    Backward,
    /// Inputs `y`, the target, the loss's arrays; outputs the loss, then the gradient of `y` unless the
    /// loss is an array.
    Loss,
    /// Stores parameters and optimizer state.
    Step,
    /// Stores zeros to the gradients that there are.
    ZeroGradients,
    /// Inputs `x`, the target, the loss's arrays; outputs the loss, then the gradients of what is shared, then what
    /// hooks see; stores as [`Kind::Step`].
    TrainStep,
}

/// A program that is asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request<'a> {
    pub(crate) kind: Kind,
    /// The types of what the model is called with, or of its result for [`Kind::Loss`].
    pub(crate) inputs: &'a [TypeRef<'a>],
    /// How these are nested; `None` if they are one value.
    pub(crate) structure: Option<&'a Arguments<usize>>,
    /// For [`Kind::Backward`], which floating results have a gradient; all have if it is empty.
    pub(crate) given: &'a [bool],
    /// The type of the target.
    pub(crate) target: Option<TypeRef<'a>>,
    pub(crate) loss: Option<&'a dyn DynLoss>,
    /// The kinds of hooks at each position, in forward and backward passes that are also to give what hooks see.
    pub(crate) watched: &'a [Kinds],
}

/// A [`Request`], but for its loss and for what hooks watch.
pub(super) struct Asked {
    pub(super) kind: Kind,
    pub(super) inputs: Vec<Type>,
    pub(super) structure: Option<Arguments<usize>>,
    pub(super) given: Vec<bool>,
    pub(super) target: Option<Type>,
}

impl Asked {
    pub(super) fn of(request: &Request<'_>) -> Self {
        Asked {
            kind: request.kind,
            inputs: request.inputs.iter().map(|ty| ty.to_type()).collect(),
            structure: request.structure.cloned(),
            given: request.given.to_vec(),
            target: request.target.map(TypeRef::to_type),
        }
    }

    /// Returns whether a request is this one.
    pub(super) fn is(&self, request: &Request<'_>) -> bool {
        let is = |own: &Option<Type>, asked: Option<TypeRef<'_>>| match (own, asked) {
            (None, None) => true,
            (Some(own), Some(asked)) => asked.is(own),
            _ => false,
        };
        let mut inputs = self.inputs.iter().zip(request.inputs);
        self.kind == request.kind
            && self.inputs.len() == request.inputs.len()
            && inputs.all(|(own, asked)| asked.is(own))
            && self.structure.as_ref() == request.structure
            && self.given == request.given
            && is(&self.target, request.target)
    }
}

/// Returns whether programs of one request are the same for models of a scheme that is known, and of another one.
pub(super) fn are_alike(
    (known, own): (&Scheme, Option<&dyn DynLoss>),
    (scheme, request): (&Scheme, &Request<'_>),
) -> bool {
    let is_like = match (own, request.loss) {
        (None, None) => true,
        (Some(own), Some(asked)) => own.is_like(asked),
        _ => false,
    };
    let (needs_gradients, needs_optimizers) = match request.kind {
        Kind::Forward | Kind::Tape | Kind::Loss => (false, false),
        Kind::Backward | Kind::ZeroGradients => (true, false),
        Kind::Step => (true, true),
        Kind::TrainStep => (false, true),
    };
    is_like
        && known.mode == scheme.mode
        && known.autocast == scheme.autocast
        && known.entry == scheme.entry
        && (!needs_gradients || known.has_gradient == scheme.has_gradient)
        && (!needs_optimizers || known.optimizers == scheme.optimizers)
}

/// A program that cannot be planned, since it reads numbers of values in its middle.
pub(super) struct Reader {
    scheme: Scheme,
    loss: Option<Box<dyn DynLoss>>,
    asked: Asked,
    /// What its recording ended with.
    pub(super) error: TraceError,
}

impl Reader {
    pub(super) fn new(scheme: &Scheme, request: &Request<'_>, error: TraceError) -> Self {
        let loss = request.loss.map(DynLoss::clone_box);
        Reader { scheme: scheme.clone(), loss, asked: Asked::of(request), error }
    }

    /// Returns whether `request` asks for this program, for models of `scheme`. Who watches makes no difference.
    pub(super) fn answers(&self, scheme: &Scheme, request: &Request<'_>) -> bool {
        self.asked.is(request) && are_alike((&self.scheme, self.loss.as_deref()), (scheme, request))
    }
}
