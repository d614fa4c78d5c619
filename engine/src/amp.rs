//! `torch.amp`: autocast, and gradient scalers.

#[doc(inline)]
pub use crate::components::amp::{GradScaler, ScalerState};
#[doc(inline)]
pub use crate::kernels::ir::autocast::Autocast;
#[doc(inline)]
pub use crate::kernels::ir::device::Device;
#[doc(inline)]
pub use crate::systems::amp::ScalerError;
#[doc(inline)]
pub use crate::systems::structure::mode::{
    autocast, autocast_mode, is_autocast_available, is_autocast_enabled, set_autocast_mode,
};
