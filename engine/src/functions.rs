//! What methods of handles call: plain functions of a world and an entity, which say more of shapes and of torch than the
//! methods do. Exclusive systems call them, and whoever has no handle at hand.

#[doc(inline)]
pub use crate::systems::amp;
#[doc(inline)]
pub use crate::systems::edit::{containers, lookup, parametrize, registration};
#[doc(inline)]
pub use crate::systems::evolve;
#[doc(inline)]
pub use crate::systems::execute::{lazy, step};
#[doc(inline)]
pub use crate::systems::optim::{
    clip, insert, lbfgs, lr_scheduler, state_dict, swa_utils, update_bn,
};
#[doc(inline)]
pub use crate::systems::rollback;
#[doc(inline)]
pub use crate::systems::structure::{access, mode, shared, sign, spawn, tie, traverse, vector};
#[doc(inline)]
pub use crate::systems::system_params::columns;
