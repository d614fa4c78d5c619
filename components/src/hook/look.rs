//! Hooks that only look, as their type says: they return nothing.

use neurarch_kernels::ir::trace::Var;
use neurarch_kernels::ir::tree::{Arguments, Tree};

use super::{At, Callback, Gradients, HookError, HookKind};

/// What the function of a hook returns: nothing if it only looks, else an answer or an error.
///
/// # Example
///
/// ```
/// # use neurarch_components::hook::{HookAnswer, HookError};
/// fn only_looks<T, R: HookAnswer<T>>(_: impl Fn() -> R) -> bool {
///     R::ONLY_LOOKS
/// }
/// assert!(only_looks::<Option<u8>, _>(|| ()));
/// assert!(!only_looks::<Option<u8>, _>(|| Ok(None)));
/// assert!(!only_looks::<Option<u8>, _>(|| Err("no".into())));
/// assert!(!only_looks::<Option<u8>, _>(|| panic!("at the disco")));
/// ```
pub trait HookAnswer<T> {
    /// Whether it can neither change what the hook is told of nor be an error.
    const ONLY_LOOKS: bool;

    /// Returns the answer.
    ///
    /// # Errors
    ///
    /// What the hook failed with.
    fn into_answer(self) -> Result<T, HookError>;
}

impl<T: Default> HookAnswer<T> for () {
    const ONLY_LOOKS: bool = true;

    fn into_answer(self) -> Result<T, HookError> {
        Ok(T::default())
    }
}

impl<T> HookAnswer<T> for Result<T, HookError> {
    const ONLY_LOOKS: bool = false;

    fn into_answer(self) -> Result<T, HookError> {
        self
    }
}

/// Names what a function returns.
#[doc(hidden)]
pub trait Returns {
    /// What it returns.
    type Output;
}

impl<R> Returns for fn() -> R {
    type Output = R;
}

/// What a function that never returns returns: a hook that always panics.
type Never = <fn() -> ! as Returns>::Output;

impl<T> HookAnswer<T> for Never {
    const ONLY_LOOKS: bool = false;

    fn into_answer(self) -> Result<T, HookError> {
        self
    }
}

/// Looks at the arguments of a call.
pub type LookForwardPre = dyn FnMut(&At<'_>, &Arguments) + Send;
/// Looks at arguments and result of a call.
pub type LookForward = dyn FnMut(&At<'_>, &Arguments, Option<&Tree>) + Send;
/// Looks at the gradients of a module's outputs.
pub type LookBackwardPre = dyn FnMut(&At<'_>, &[Option<Var>]) + Send;
/// Looks at the gradients of a module's inputs, and of its outputs.
pub type LookBackward = dyn FnMut(&At<'_>, &[Option<Var>], &[Option<Var>]) + Send;
/// Looks at the gradient of a parameter of that name.
pub type LookGradient = dyn FnMut(&At<'_>, &str, &Var) + Send;

/// A function that looks at what a hook of some kind is told of.
///
/// A pass whose hooks are all such is not copied before it is made, since none can send it back. Should one
/// of them panic, or compute what cannot be, the call is an error, and what it wrote by then stays.
pub enum Look {
    /// As a [`ForwardPreHook`](super::ForwardPreHook).
    ForwardPre(Box<LookForwardPre>),
    /// As a [`ForwardHook`](super::ForwardHook).
    Forward(Box<LookForward>),
    /// As a [`BackwardPreHook`](super::BackwardPreHook).
    BackwardPre(Box<LookBackwardPre>),
    /// As a [`BackwardHook`](super::BackwardHook).
    Backward(Box<LookBackward>),
    /// As a [`GradientHook`](super::GradientHook); the parameter's own name, such as `weight`.
    Gradient(String, Box<LookGradient>),
    /// As a [`PostAccumulateGradHook`](super::PostAccumulateGradHook); the parameter's own name.
    PostAccumulateGrad(String, Box<LookGradient>),
}

impl Look {
    /// Returns the kind.
    pub fn kind(&self) -> HookKind {
        match self {
            Look::ForwardPre(_) => HookKind::ForwardPre,
            Look::Forward(_) => HookKind::Forward,
            Look::BackwardPre(_) => HookKind::BackwardPre,
            Look::Backward(_) => HookKind::Backward,
            Look::Gradient(..) => HookKind::Gradient,
            Look::PostAccumulateGrad(..) => HookKind::PostAccumulateGrad,
        }
    }
}

impl Callback {
    /// Makes a forward pre-hook of a function: one that only looks if it returns nothing.
    pub fn forward_pre<R: HookAnswer<Option<Arguments>>>(
        mut hook: impl FnMut(&At<'_>, &Arguments) -> R + Send + 'static,
    ) -> Callback {
        match R::ONLY_LOOKS {
            true => Callback::Look(Look::ForwardPre(Box::new(move |at, arguments| {
                drop(hook(at, arguments));
            }))),
            false => Callback::ForwardPre(Box::new(move |at, arguments| {
                hook(at, arguments).into_answer()
            })),
        }
    }

    /// Makes a forward hook of a function: one that only looks if it returns nothing.
    pub fn forward<R: HookAnswer<Option<Tree>>>(
        mut hook: impl FnMut(&At<'_>, &Arguments, Option<&Tree>) -> R + Send + 'static,
    ) -> Callback {
        match R::ONLY_LOOKS {
            true => Callback::Look(Look::Forward(Box::new(move |at, arguments, result| {
                drop(hook(at, arguments, result));
            }))),
            false => Callback::Forward(Box::new(move |at, arguments, result| {
                hook(at, arguments, result).into_answer()
            })),
        }
    }

    /// Makes a full backward pre-hook of a function: one that only looks if it returns nothing.
    pub fn backward_pre<R: HookAnswer<Option<Gradients>>>(
        mut hook: impl FnMut(&At<'_>, &[Option<Var>]) -> R + Send + 'static,
    ) -> Callback {
        match R::ONLY_LOOKS {
            true => Callback::Look(Look::BackwardPre(Box::new(move |at, outputs| {
                drop(hook(at, outputs));
            }))),
            false => {
                Callback::BackwardPre(Box::new(move |at, outputs| hook(at, outputs).into_answer()))
            }
        }
    }

    /// Makes a full backward hook of a function: one that only looks if it returns nothing.
    pub fn backward<R: HookAnswer<Option<Gradients>>>(
        mut hook: impl FnMut(&At<'_>, &[Option<Var>], &[Option<Var>]) -> R + Send + 'static,
    ) -> Callback {
        match R::ONLY_LOOKS {
            true => Callback::Look(Look::Backward(Box::new(move |at, inputs, outputs| {
                drop(hook(at, inputs, outputs));
            }))),
            false => Callback::Backward(Box::new(move |at, inputs, outputs| {
                hook(at, inputs, outputs).into_answer()
            })),
        }
    }

    /// Makes a backward hook that is not full of a function.
    pub fn non_full_backward<R: HookAnswer<Option<Gradients>>>(
        mut hook: impl FnMut(&At<'_>, &[Option<Var>], &[Option<Var>]) -> R + Send + 'static,
    ) -> Callback {
        Callback::NonFullBackward(Box::new(move |at, inputs, outputs| {
            hook(at, inputs, outputs).into_answer()
        }))
    }

    /// Makes a gradient hook of the parameter of that name of a function: one that only looks if it returns nothing.
    pub fn gradient<R: HookAnswer<Option<Var>>>(
        parameter: &str,
        mut hook: impl FnMut(&At<'_>, &str, &Var) -> R + Send + 'static,
    ) -> Callback {
        let parameter = parameter.to_owned();
        match R::ONLY_LOOKS {
            true => Callback::Look(Look::Gradient(
                parameter,
                Box::new(move |at, name, gradient| drop(hook(at, name, gradient))),
            )),
            false => Callback::Gradient(
                parameter,
                Box::new(move |at, name, gradient| hook(at, name, gradient).into_answer()),
            ),
        }
    }

    /// Makes a post-accumulate-grad hook of the parameter of that name of a function: one that cannot fail if it
    /// returns nothing.
    pub fn post_accumulate_grad<R: HookAnswer<()>>(
        parameter: &str,
        mut hook: impl FnMut(&At<'_>, &str, &Var) -> R + Send + 'static,
    ) -> Callback {
        let parameter = parameter.to_owned();
        match R::ONLY_LOOKS {
            true => Callback::Look(Look::PostAccumulateGrad(
                parameter,
                Box::new(move |at, name, gradient| drop(hook(at, name, gradient))),
            )),
            false => Callback::PostAccumulateGrad(
                parameter,
                Box::new(move |at, name, gradient| hook(at, name, gradient).into_answer()),
            ),
        }
    }
}
