//! Hooks of a module, of a population, and of all modules.

use crate::components::hook::{
    At, Callback, Gradients, HookAnswer, HookError, HookOptions, Loading, RemovableHandle, StateAt,
};
use crate::components::state::{IncompatibleKeys, StateDict};
use crate::handles::TargetMut;
use crate::kernels::ir::trace::Var;
use crate::kernels::ir::tree::{Arguments, Tree};
use crate::systems::execute::hooks;
use crate::systems::execute::hooks::RegisterHookError;
/// Registers functions that are called where modules are.
///
/// The handle says for whom: a module's for one model, a population's or a position's for all models at once; the
/// functions in [`hooks`](crate::hooks) are for every module. Models whose hooks are of equal kinds at the same modules run
/// together, with the same bits; the others do not notice. Hooks of single models are called model by model, in the
/// order of the models. A model whose hook changes something has its pass made op by op, alone.
///
/// The return type of a function says what it may do. A function that returns nothing only observes. One that returns
/// `Ok(None)` may change something or fail another time, so what the pass writes is copied first. If a function that returns
/// nothing panics, or computes something invalid, in a training step or a backward pass, the call is an error, and what it
/// wrote by then stays. If another function fails, everything is as it was.
///
/// # Example
///
/// ```
/// use neurarch::prelude::*;
///
/// let mut world = World::new();
/// let brain = Sequential::new().push(Linear::new(2, 3)).push(Tanh);
/// let mut brains = world.spawn_population(&brain, 100, Seed(1))?;
///
/// // Doubles what the layer of every model gives, and so its gradients.
/// let handle = brains.at("0").register_forward_hook(|_, _, y| {
///     Ok(y.and_then(Tree::leaf).map(|y| (y * 2.0).into()))
/// })?;
/// let x = ndarray::Array3::<f32>::ones((100, 4, 2));
/// let doubled = brains.forward(&x)?;
/// assert!(handle.remove());
/// assert_ne!(brains.forward(&x)?, doubled);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Source: the `register_*_hook` methods of `torch.nn.Module`. Hooks always see keyword arguments: torch's
/// `with_kwargs=True`.
impl TargetMut<'_> {
    /// Registers a hook of any kind.
    ///
    /// # Errors
    ///
    /// If no model has such a module or parameter, so that the hook would never be called.
    pub fn register_hook_with(
        &mut self,
        callback: Callback,
        options: HookOptions,
    ) -> Result<RemovableHandle, RegisterHookError> {
        hooks::register(self.world, self.target.clone(), callback, options)
    }

    /// Registers a function of a call's arguments, which may give others, or return nothing:
    /// [`ForwardPreHook`](crate::components::hook::ForwardPreHook).
    ///
    /// # Errors
    ///
    /// As [`register_hook_with`](Self::register_hook_with).
    pub fn register_forward_pre_hook<R: HookAnswer<Option<Arguments>>>(
        &mut self,
        hook: impl FnMut(&At<'_>, &Arguments) -> R + Send + 'static,
    ) -> Result<RemovableHandle, RegisterHookError> {
        self.register_hook_with(Callback::forward_pre(hook), HookOptions::default())
    }

    /// Registers a function of a call's arguments and result, which may give another result, or return nothing:
    /// [`ForwardHook`](crate::components::hook::ForwardHook).
    ///
    /// # Errors
    ///
    /// As [`register_hook_with`](Self::register_hook_with).
    pub fn register_forward_hook<R: HookAnswer<Option<Tree>>>(
        &mut self,
        hook: impl FnMut(&At<'_>, &Arguments, Option<&Tree>) -> R + Send + 'static,
    ) -> Result<RemovableHandle, RegisterHookError> {
        self.register_hook_with(Callback::forward(hook), HookOptions::default())
    }

    /// Registers a function of the gradients of a call's outputs, which may give others, or return nothing:
    /// [`BackwardPreHook`](crate::components::hook::BackwardPreHook).
    ///
    /// # Errors
    ///
    /// As [`register_hook_with`](Self::register_hook_with).
    pub fn register_full_backward_pre_hook<R: HookAnswer<Option<Gradients>>>(
        &mut self,
        hook: impl FnMut(&At<'_>, &[Option<Var>]) -> R + Send + 'static,
    ) -> Result<RemovableHandle, RegisterHookError> {
        self.register_hook_with(Callback::backward_pre(hook), HookOptions::default())
    }

    /// Registers a function of the gradients of a call's inputs and of its outputs, which may give others for
    /// the inputs, or return nothing: [`BackwardHook`](crate::components::hook::BackwardHook).
    ///
    /// # Errors
    ///
    /// As [`register_hook_with`](Self::register_hook_with).
    pub fn register_full_backward_hook<R: HookAnswer<Option<Gradients>>>(
        &mut self,
        hook: impl FnMut(&At<'_>, &[Option<Var>], &[Option<Var>]) -> R + Send + 'static,
    ) -> Result<RemovableHandle, RegisterHookError> {
        self.register_hook_with(Callback::backward(hook), HookOptions::default())
    }

    /// Registers a function of gradients as [`register_full_backward_hook`](Self::register_full_backward_hook) does; a
    /// module cannot have hooks of both kinds.
    ///
    /// # Errors
    ///
    /// As [`register_hook_with`](Self::register_hook_with).
    ///
    /// Source: `torch.nn.Module.register_backward_hook`, which is deprecated. Where a module consists of several ops, torch's
    /// hook sees what the last of them has; this one always sees the gradients of the call's inputs, and the same warning
    /// is given.
    pub fn register_backward_hook<R: HookAnswer<Option<Gradients>>>(
        &mut self,
        hook: impl FnMut(&At<'_>, &[Option<Var>], &[Option<Var>]) -> R + Send + 'static,
    ) -> Result<RemovableHandle, RegisterHookError> {
        self.register_hook_with(Callback::non_full_backward(hook), HookOptions::default())
    }

    /// Registers a function of the gradient of a module's own parameter, which may give another, or return nothing:
    /// [`GradientHook`](crate::components::hook::GradientHook).
    ///
    /// # Errors
    ///
    /// As [`register_hook_with`](Self::register_hook_with).
    pub fn register_parameter_hook<R: HookAnswer<Option<Var>>>(
        &mut self,
        parameter: &str,
        hook: impl FnMut(&At<'_>, &str, &Var) -> R + Send + 'static,
    ) -> Result<RemovableHandle, RegisterHookError> {
        self.register_hook_with(Callback::gradient(parameter, hook), HookOptions::default())
    }

    /// Registers a function that sees the whole gradient of a module's own parameter after each backward
    /// pass: [`PostAccumulateGradHook`](crate::components::hook::PostAccumulateGradHook).
    ///
    /// # Errors
    ///
    /// As [`register_hook_with`](Self::register_hook_with).
    pub fn register_post_accumulate_grad_hook<R: HookAnswer<()>>(
        &mut self,
        parameter: &str,
        hook: impl FnMut(&At<'_>, &str, &Var) -> R + Send + 'static,
    ) -> Result<RemovableHandle, RegisterHookError> {
        self.register_hook_with(
            Callback::post_accumulate_grad(parameter, hook),
            HookOptions::default(),
        )
    }

    /// Registers a function that is called before a module's state is saved:
    /// [`StateDictPreHook`](crate::components::hook::StateDictPreHook).
    ///
    /// # Errors
    ///
    /// As [`register_hook_with`](Self::register_hook_with).
    pub fn register_state_dict_pre_hook(
        &mut self,
        hook: impl FnMut(&StateAt<'_>) -> Result<(), HookError> + Send + 'static,
    ) -> Result<RemovableHandle, RegisterHookError> {
        let callback = Callback::StateDictPre(Box::new(hook));
        self.register_hook_with(callback, HookOptions::default())
    }

    /// Registers a function of a state dict after a module and all below it were saved to it:
    /// [`StateDictHook`](crate::components::hook::StateDictHook).
    ///
    /// # Errors
    ///
    /// As [`register_hook_with`](Self::register_hook_with).
    pub fn register_state_dict_post_hook(
        &mut self,
        hook: impl FnMut(&StateAt<'_>, &mut StateDict) -> Result<(), HookError> + Send + 'static,
    ) -> Result<RemovableHandle, RegisterHookError> {
        let callback = Callback::StateDictPost(Box::new(hook));
        self.register_hook_with(callback, HookOptions::default())
    }

    /// Registers a function of a state dict before a module is loaded from it, which may rename keys:
    /// [`LoadStateDictPreHook`](crate::components::hook::LoadStateDictPreHook).
    ///
    /// # Errors
    ///
    /// As [`register_hook_with`](Self::register_hook_with).
    ///
    /// # Example
    ///
    /// ```
    /// # use neurarch::prelude::*;
    /// # let mut world = World::new();
    /// let mut layers = world.spawn_population(&Linear::new(2, 1).without_bias(), 3, Seed(1))?;
    /// layers.register_load_state_dict_pre_hook(|_, state, _| {
    ///     state.rename("w", "weight");
    ///     Ok(())
    /// })?;
    /// let old = StateDict::from_iter([Tensor::new("w", ndarray::array![[1.0_f32, 2.0]].view())]);
    /// layers.load_state_dict(&old)?;
    /// assert_eq!(layers.stack::<f32>("weight")?.sum(), 9.0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn register_load_state_dict_pre_hook(
        &mut self,
        hook: impl FnMut(&StateAt<'_>, &mut StateDict, &mut Loading<'_>) -> Result<(), HookError>
        + Send
        + 'static,
    ) -> Result<RemovableHandle, RegisterHookError> {
        let callback = Callback::LoadStateDictPre(Box::new(hook));
        self.register_hook_with(callback, HookOptions::default())
    }

    /// Registers a function of the keys that did not match after a module and all below it were loaded:
    /// [`LoadStateDictPostHook`](crate::components::hook::LoadStateDictPostHook).
    ///
    /// # Errors
    ///
    /// As [`register_hook_with`](Self::register_hook_with).
    pub fn register_load_state_dict_post_hook(
        &mut self,
        hook: impl FnMut(&StateAt<'_>, &mut IncompatibleKeys) -> Result<(), HookError> + Send + 'static,
    ) -> Result<RemovableHandle, RegisterHookError> {
        let callback = Callback::LoadStateDictPost(Box::new(hook));
        self.register_hook_with(callback, HookOptions::default())
    }
}
