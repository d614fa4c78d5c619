//! Which components of this crate an inspector sees and edits, with the feature `reflect`.

use bevy_reflect::TypeRegistry;

use crate::layers::{
    AlphaDropout, Dropout, Dropout1d, Dropout2d, Dropout3d, ELU, FeatureAlphaDropout, LeakyReLU,
    Softplus,
};
use crate::optimizer::{
    ASGD, Adadelta, Adafactor, Adagrad, Adam, AdamW, Adamax, Muon, NAdam, RAdam, RMSprop, Rprop,
    SGD, SparseAdam,
};

/// Registers the optimizers, and the layers whose settings can be changed in a live model without another structure.
pub fn register(types: &mut TypeRegistry) {
    types.register::<ASGD>();
    types.register::<Adadelta>();
    types.register::<Adafactor>();
    types.register::<Adagrad>();
    types.register::<Adam>();
    types.register::<AdamW>();
    types.register::<Adamax>();
    types.register::<Muon>();
    types.register::<NAdam>();
    types.register::<RAdam>();
    types.register::<RMSprop>();
    types.register::<Rprop>();
    types.register::<SGD>();
    types.register::<SparseAdam>();

    types.register::<AlphaDropout>();
    types.register::<Dropout>();
    types.register::<Dropout1d>();
    types.register::<Dropout2d>();
    types.register::<Dropout3d>();
    types.register::<ELU>();
    types.register::<FeatureAlphaDropout>();
    types.register::<LeakyReLU>();
    types.register::<Softplus>();
}
