//! The component types that are saved from the start.

use core::any::TypeId;
use core::fmt::Debug;

use bevy_ecs::prelude::*;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::cbor::{decode, name_of};
use super::copies::adopting;
use super::error::SavedError;
use super::types::{SavedTypes, Value, add, add_component, add_module, write};
use super::{groups, scheduler};
use crate::amp::GradScaler;
use crate::builtin;
use crate::column::shared::SharedTensors;
use crate::module::Module;
use crate::module::dtypes::Dtypes;
use crate::module::mode::{Draws, HasGradient, Mode};
use crate::module::registered::{Attributes, Registered};
use crate::module::registry::Modules;
use crate::optimizer::*;
use crate::parametrizations::{RegisteredAgain, WeightNormed};
use crate::population::parking::{Parked, Parking};
use crate::population::tie::{SharedModule, Ties};
use crate::population::tree::ModuleName;
use crate::scheduler::*;

/// Takes the types of a list one after the other.
pub(super) trait Types: Modules {
    /// Takes the next component type that is no module.
    fn component<T: Component + Clone + Debug + Serialize + DeserializeOwned>(&mut self);

    /// Takes the next optimizer, and [`ParamGroups`] of it.
    fn optimizer<O: Optimizer + Serialize + DeserializeOwned>(&mut self);

    /// Takes the next rule of schedulers.
    fn scheduler<R: LRScheduler + Serialize + DeserializeOwned>(&mut self);
}

/// Registers all types that are saved from the start.
pub(super) fn register(world: &mut World) -> Result<(), SavedError> {
    /// Registers types, until one cannot be.
    struct Registering<'w> {
        world: &'w mut World,
        so_far: Result<(), SavedError>,
    }

    impl Registering<'_> {
        fn next(&mut self, register: impl FnOnce(&mut World) -> Result<(), SavedError>) {
            if self.so_far.is_ok() {
                self.so_far = register(self.world);
            }
        }
    }

    impl Modules for Registering<'_> {
        fn add<M: Module + Serialize + DeserializeOwned>(&mut self) {
            self.next(|world| add_module::<M>(world, &name_of::<M>()));
        }
    }

    impl Types for Registering<'_> {
        fn component<T: Component + Clone + Debug + Serialize + DeserializeOwned>(&mut self) {
            self.next(|world| add_component::<T>(world, &name_of::<T>()));
        }

        fn optimizer<O: Optimizer + Serialize + DeserializeOwned>(&mut self) {
            self.component::<O>();
            self.next(groups::add_groups::<O>);
        }

        fn scheduler<R: LRScheduler + Serialize + DeserializeOwned>(&mut self) {
            self.next(|world| world.resource_mut::<SavedTypes>().rules.add::<R>());
        }
    }

    let mut registering = Registering { world, so_far: Ok(()) };
    registering.next(mode);
    registering.next(scheduler::register);
    list(&mut registering);
    registering.so_far
}

/// Whether a model has hooks, and whether it runs within `cached`, is not for files.
fn mode(world: &mut World) -> Result<(), SavedError> {
    add::<Mode>(world, &name_of::<Mode>(), write::<Mode>, |_, bytes| {
        let adopt = |mode: &mut Mode, there: Option<&Mode>| {
            (mode.hooked, mode.cached) = there.map_or((false, false), |it| (it.hooked, it.cached));
            Ok(())
        };
        Ok(Box::new(Value::adopting(decode::<Mode>(bytes)?, adopt)))
    })?;
    let copies = || {
        adopting::<Mode>(|mode, there| {
            (mode.hooked, mode.cached) = there.map_or((false, false), |it| (it.hooked, it.cached));
        })
    };
    world.resource_mut::<SavedTypes>().copy_as(TypeId::of::<Mode>(), copies);
    Ok(())
}

/// Lists the types of this crate that are saved. Rules that are functions alone ([`LambdaLR`], [`MultiplicativeLR`]) have no
/// settings that could be.
pub(super) fn list(types: &mut impl Types) {
    builtin::list(types);

    types.optimizer::<ASGD>();
    types.optimizer::<Adadelta>();
    types.optimizer::<Adafactor>();
    types.optimizer::<Adagrad>();
    types.optimizer::<Adam>();
    types.optimizer::<AdamW>();
    types.optimizer::<Adamax>();
    types.component::<LBFGS>();
    types.optimizer::<Muon>();
    types.optimizer::<NAdam>();
    types.optimizer::<RAdam>();
    types.optimizer::<RMSprop>();
    types.optimizer::<Rprop>();
    types.optimizer::<SGD>();
    types.optimizer::<SparseAdam>();

    types.scheduler::<ChainedScheduler>();
    types.scheduler::<ConstantLR>();
    types.scheduler::<CosineAnnealingLR>();
    types.scheduler::<CosineAnnealingWarmRestarts>();
    types.scheduler::<CyclicLR>();
    types.scheduler::<ExponentialLR>();
    types.scheduler::<LinearLR>();
    types.scheduler::<MultiStepLR>();
    types.scheduler::<OneCycleLR>();
    types.scheduler::<PolynomialLR>();
    types.scheduler::<ReduceLROnPlateau>();
    types.scheduler::<SWALR>();
    types.scheduler::<SequentialLR>();
    types.scheduler::<StepLR>();

    types.component::<Attributes>();
    types.component::<AveragedModel>();
    types.component::<Draws>();
    types.component::<Dtypes>();
    types.component::<GradScaler>();
    types.component::<HasGradient>();
    types.component::<LbfgsState>();
    types.component::<Metric>();
    types.component::<ModuleName>();
    types.component::<Parked>();
    types.component::<Parking>();
    types.component::<Registered>();
    types.component::<RegisteredAgain>();
    types.component::<SharedModule>();
    types.component::<SharedTensors>();
    types.component::<Ties>();
    types.component::<WeightNormed>();
}
