//! Every [`Module`] is a [`DynModule`].

use std::any::Any;

use bevy_ecs::prelude::*;
use neurarch_kernels::ir::dtype::Dtype;
use neurarch_kernels::ir::shape::Shape;
use neurarch_kernels::ir::trace::Var;
use neurarch_kernels::ir::tree::{Arguments, Tree};

use crate::column::{self, RowBundle};
use crate::module::call::Call;
use crate::module::registry::ModuleTypes;
use crate::module::{Declare, DynModule, ExtraStateError, Init, Module, NoInverse};
use crate::state::{Loading, LocalMetadata, StateDict, Tensor};

impl<M: Module> DynModule for M {
    fn type_name(&self) -> &'static str {
        Module::type_name(self)
    }

    fn rust_name(&self) -> &'static str {
        core::any::type_name::<M>()
    }

    fn version(&self) -> u32 {
        Module::version(self)
    }

    fn may_lack(&self, name: &str, version: Option<u32>) -> bool {
        Module::may_lack(self, name, version)
    }

    fn get_extra_state(&self) -> Option<Tensor> {
        Module::get_extra_state(self)
    }

    fn with_extra_state(&self, state: &Tensor) -> Result<Box<dyn DynModule>, ExtraStateError> {
        let mut module = self.clone();
        module.set_extra_state(state)?;
        Ok(Box::new(module))
    }

    fn save_to_state_dict(
        &self,
        saved: &mut StateDict,
        prefix: &str,
        metadata: &mut LocalMetadata,
    ) {
        Module::save_to_state_dict(self, saved, prefix, metadata);
    }

    fn load_from_state_dict(
        &self,
        state: &mut StateDict,
        prefix: &str,
        metadata: &LocalMetadata,
        loading: &mut Loading<'_>,
    ) {
        Module::load_from_state_dict(self, state, prefix, metadata, loading);
    }

    fn attributes(&self) -> &'static [&'static str] {
        Module::attributes(self)
    }

    fn declare(&self, declare: &mut Declare) {
        Module::declare(self, declare);
    }

    fn reset(&self, parameter: &str) -> Init {
        Module::reset(self, parameter)
    }

    fn reset_below(&self, path: &str, shape: &Shape) -> Option<Init> {
        Module::reset_below(self, path, shape)
    }

    fn forward_with(&self, call: &Call<'_>, arguments: Arguments) -> Tree {
        Module::forward_with(self, call, arguments)
    }

    fn right_inverse(&self, call: &Call<'_>, tensor: Var) -> Result<Tree, NoInverse> {
        Module::right_inverse(self, call, tensor)
    }

    fn uses_training(&self) -> bool {
        Module::uses_training(self)
    }

    fn converted_dtype(&self, name: &str, dtype: Dtype) -> Dtype {
        Module::converted_dtype(self, name, dtype)
    }

    fn is_lazy(&self) -> bool {
        Module::is_lazy(self)
    }

    fn initialize_parameters(
        &self,
        call: &Call<'_>,
        arguments: &Arguments,
    ) -> Option<Box<dyn DynModule>> {
        Module::initialize_parameters(self, call, arguments)
    }

    fn materialize(&self, name: &str, shape: &Shape) -> Option<Box<dyn DynModule>> {
        Module::materialize(self, name, shape)
    }

    fn listed(&self) -> Option<Box<dyn Iterator<Item = &dyn DynModule> + '_>> {
        Module::listed(self)
    }

    fn joins_alike_in_repr(&self) -> bool {
        Module::joins_alike_in_repr(self)
    }

    fn structural(&self) -> Box<dyn DynModule> {
        Box::new(Module::structural(self))
    }

    fn scalar(&self, name: &str) -> Option<f64> {
        Module::scalar(self, name)
    }

    fn extra_repr(&self) -> String {
        Module::extra_repr(self)
    }

    fn is_like(&self, other: &dyn DynModule) -> bool {
        let other = (other as &dyn Any).downcast_ref::<M>();
        other.is_some_and(|other| Module::structural(self) == Module::structural(other))
    }

    fn equals(&self, other: &dyn DynModule) -> bool {
        (other as &dyn Any).downcast_ref::<M>() == Some(self)
    }

    fn clone_box(&self) -> Box<dyn DynModule> {
        Box::new(self.clone())
    }

    fn register(&self, world: &mut World) {
        ModuleTypes::register::<M>(world);
    }

    fn constructed(&self, module: &mut EntityWorldMut<'_>) {
        Module::constructed(self, module);
    }

    fn insert_into(&self, entity: &mut EntityWorldMut<'_>) {
        column::insert(entity, self.spawned());
    }

    fn insert_with(&self, columns: &mut RowBundle, entity: &mut EntityWorldMut<'_>) {
        columns.insert_with(entity, self.spawned());
    }
}
