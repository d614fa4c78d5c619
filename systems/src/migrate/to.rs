//! [`to`] and [`to_type`]: what is asked for, and whether it can be.

use bevy_ecs::prelude::*;
use neurarch_components::module::DynModule;
use neurarch_components::module::blueprint::Parameter;
use neurarch_kernels::ir::device::Device;
use neurarch_kernels::ir::dtype::Dtype;

use super::convert::convert;
use super::error::MigrateError;
use super::wanted::Wanted;
use crate::structure::target::Target;

/// Where modules are to go: an element type, a device, or both.
///
/// Source: the arguments of `torch.nn.Module.to`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct To {
    /// The type of floating parameters and buffers; `None` leaves it.
    pub dtype: Option<Dtype>,
    /// The device; `None` leaves it.
    pub device: Option<Device>,
    /// Whether a copy to a device may go on while the host does. The CPU's numbers are there at once.
    pub non_blocking: bool,
}

impl From<Dtype> for To {
    fn from(dtype: Dtype) -> Self {
        To { dtype: Some(dtype), ..To::default() }
    }
}

impl From<Device> for To {
    fn from(device: Device) -> Self {
        To { device: Some(device), ..To::default() }
    }
}

impl From<(Device, Dtype)> for To {
    fn from((device, dtype): (Device, Dtype)) -> Self {
        To { dtype: Some(dtype), device: Some(device), ..To::default() }
    }
}

/// Converts the floating parameters and buffers of modules, and of all below them, to an element type; their gradients and
/// optimizer state go with them. A tied parameter is converted wherever it is.
///
/// A population's own type changes when all of its models are converted from their roots. Models of one population may
/// differ in type; a pass over all of them needs one and says so.
///
/// Rows stay where they are as long as they are large enough, so that a whole population takes little more time than a
/// copy of its bytes. Some models of a population move to others of their types.
///
/// # Errors
///
/// If there is no such module, the type is not floating, the device is not there, or a parameter is shared with models that
/// are not to be converted. Nothing is changed then.
///
/// # Example
///
/// ```
/// # use bevy_ecs::prelude::*;
/// # use neurarch_components::layers::Linear;
/// # use neurarch_kernels::ir::dtype::Dtype;
/// # use neurarch_systems::migrate::to;
/// # use neurarch_systems::structure::access;
/// # use neurarch_systems::structure::spawn::spawn_population;
/// # let mut world = World::new();
/// let layers = spawn_population(&mut world, &Linear::new(1, 1), 3, 3, 7, Dtype::F32)?;
/// let biases = access::stack::<f32>(&mut world, layers, "bias", None)?;
/// to(&mut world, layers, Dtype::F64)?;
/// let doubles = access::stack::<f64>(&mut world, layers, "bias", None)?;
/// assert_eq!(doubles, biases.mapv(f64::from));
/// let error = to(&mut world, layers, Dtype::I64).unwrap_err().to_string();
/// assert!(error.ends_with("got desired dtype=torch.int64"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Source: `torch.nn.Module.to`. Optimizer state takes the parameter's type, as torch's `load_state_dict` gives it; torch's
/// `to` leaves it, and the next step fails.
pub fn to(
    world: &mut World,
    target: impl Into<Target>,
    to: impl Into<To>,
) -> Result<(), MigrateError> {
    let To { dtype, device, .. } = to.into();
    if let Some(dtype) = dtype.filter(|dtype| !dtype.is_float()) {
        return Err(MigrateError::NotFloating(dtype));
    }
    if let Some(device @ Device::Cuda(_)) = device {
        return Err(MigrateError::NoDevice(device));
    }
    let target = target.into();
    let whole = target.whole(world);
    let aims = target.aims(world)?;
    let Some(dtype) = dtype else { return Ok(()) };
    let chosen = |module: &dyn DynModule, of: &Parameter| match of.ty.dtype.is_float() {
        true => module.converted_dtype(&of.name, dtype),
        false => of.ty.dtype,
    };
    let wanted = Wanted::of(world, (whole, aims), Some(dtype), chosen)?;
    convert(world, wanted)
}

/// Converts all parameters and buffers, also those of whole numbers.
///
/// # Errors
///
/// As [`to`], of any type but that parameters which need gradients cannot be of whole numbers.
///
/// Source: `torch.nn.Module.type`.
pub fn to_type(
    world: &mut World,
    target: impl Into<Target>,
    dtype: Dtype,
) -> Result<(), MigrateError> {
    let target = target.into();
    let whole = target.whole(world);
    let aims = target.aims(world)?;
    let chosen = |module: &dyn DynModule, of: &Parameter| module.converted_dtype(&of.name, dtype);
    let floating = dtype.is_float().then_some(dtype);
    let wanted = Wanted::of(world, (whole, aims), floating, chosen)?;
    convert(world, wanted)
}
