//! Hooks: their types, and those that are called for every module. Hooks of one module, of the modules at a path of all
//! models, or of a population are registered by handles: [`TargetMut`](crate::TargetMut) has them.

use bevy_ecs::prelude::*;

#[doc(inline)]
pub use crate::components::hook::{
    At, BackwardHook, BackwardPreHook, Callback, ForwardHook, ForwardPreHook, GradientHook,
    Gradients, HookAnswer, HookError, HookGuard, HookKind, HookOptions, Hooks,
    LoadStateDictPostHook, LoadStateDictPreHook, Loading, PostAccumulateGradHook, RegisterAt,
    RegistrationHook, RemovableHandle, StateAt, StateDictHook, StateDictPreHook,
};
use crate::components::module::registered::Value;
use crate::kernels::ir::trace::Var;
use crate::kernels::ir::tree::{Arguments, Tree};
#[doc(inline)]
pub use crate::systems::execute::hooks::{RegisterHookError, Target, register};

/// Registers a function of the arguments of every call, of all modules.
///
/// # Errors
///
/// None so far.
///
/// Source: `torch.nn.modules.module.register_module_forward_pre_hook`.
pub fn register_module_forward_pre_hook<R: HookAnswer<Option<Arguments>>>(
    world: &mut World,
    hook: impl FnMut(&At<'_>, &Arguments) -> R + Send + 'static,
) -> Result<RemovableHandle, RegisterHookError> {
    register(world, Target::All, Callback::forward_pre(hook), HookOptions::default())
}

/// Registers a function of the arguments and the result of every call, of all modules.
///
/// # Errors
///
/// None so far.
///
/// Source: `torch.nn.modules.module.register_module_forward_hook`.
pub fn register_module_forward_hook<R: HookAnswer<Option<Tree>>>(
    world: &mut World,
    hook: impl FnMut(&At<'_>, &Arguments, Option<&Tree>) -> R + Send + 'static,
) -> Result<RemovableHandle, RegisterHookError> {
    register(world, Target::All, Callback::forward(hook), HookOptions::default())
}

/// Registers a function of the gradients of every call's outputs, of all modules.
///
/// # Errors
///
/// None so far.
///
/// Source: `torch.nn.modules.module.register_module_full_backward_pre_hook`.
pub fn register_module_full_backward_pre_hook<R: HookAnswer<Option<Gradients>>>(
    world: &mut World,
    hook: impl FnMut(&At<'_>, &[Option<Var>]) -> R + Send + 'static,
) -> Result<RemovableHandle, RegisterHookError> {
    register(world, Target::All, Callback::backward_pre(hook), HookOptions::default())
}

/// Registers a function of the gradients of every call's inputs and outputs, of all modules.
///
/// # Errors
///
/// None so far.
///
/// Source: `torch.nn.modules.module.register_module_full_backward_hook`.
pub fn register_module_full_backward_hook<R: HookAnswer<Option<Gradients>>>(
    world: &mut World,
    hook: impl FnMut(&At<'_>, &[Option<Var>], &[Option<Var>]) -> R + Send + 'static,
) -> Result<RemovableHandle, RegisterHookError> {
    register(world, Target::All, Callback::backward(hook), HookOptions::default())
}

/// Registers a function of each parameter that is registered in a live model, which may give another:
/// [`RegistrationHook`].
///
/// # Errors
///
/// None so far.
///
/// Source: `torch.nn.modules.module.register_module_parameter_registration_hook`.
pub fn register_module_parameter_registration_hook(
    world: &mut World,
    hook: impl FnMut(&RegisterAt<'_>, &Value) -> Result<Option<Value>, HookError> + Send + 'static,
) -> Result<RemovableHandle, RegisterHookError> {
    let callback = Callback::ParameterRegistration(Box::new(hook));
    register(world, Target::All, callback, HookOptions::default())
}

/// Registers a function of each buffer that is registered in a live model, which may give another:
/// [`RegistrationHook`].
///
/// # Errors
///
/// None so far.
///
/// Source: `torch.nn.modules.module.register_module_buffer_registration_hook`.
pub fn register_module_buffer_registration_hook(
    world: &mut World,
    hook: impl FnMut(&RegisterAt<'_>, &Value) -> Result<Option<Value>, HookError> + Send + 'static,
) -> Result<RemovableHandle, RegisterHookError> {
    let callback = Callback::BufferRegistration(Box::new(hook));
    register(world, Target::All, callback, HookOptions::default())
}

/// Registers a function of each child that is registered in a live model, which may give another:
/// [`RegistrationHook`].
///
/// # Errors
///
/// None so far.
///
/// Source: `torch.nn.modules.module.register_module_module_registration_hook`.
pub fn register_module_module_registration_hook(
    world: &mut World,
    hook: impl FnMut(&RegisterAt<'_>, &Value) -> Result<Option<Value>, HookError> + Send + 'static,
) -> Result<RemovableHandle, RegisterHookError> {
    let callback = Callback::ModuleRegistration(Box::new(hook));
    register(world, Target::All, callback, HookOptions::default())
}
