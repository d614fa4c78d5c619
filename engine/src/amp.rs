//! `torch.amp`: autocast, and gradient scalers.

pub use crate::components::amp::{GradScaler, ScalerState};
pub use crate::systems::amp::ScalerError;
pub use crate::systems::structure::mode::{autocast, is_autocast_enabled};
