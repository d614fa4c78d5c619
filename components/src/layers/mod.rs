//! Layers: components that say what a module computes, named as torch names them, one file a family.

pub mod activation;
pub mod attention;
pub mod bare;
pub mod batchnorm;
pub mod conv;
pub mod dropout;
pub mod flatten;
pub mod instancenorm;
pub mod lazy;
pub mod lazy_norm_conv;
pub mod linear;
pub mod module_dict;
pub mod module_list;
pub mod nonlinear;
pub mod normalization;
pub mod parameter;
pub mod parameter_dict;
pub mod parameter_list;
pub mod sequential;
pub mod sparse;
pub mod transformer;
pub mod transformer_layer;

use bevy_ecs::world::World;

pub use activation::{
    Approximate, ELU, GELU, Identity, LeakyReLU, LogSoftmax, ReLU, SiLU, Sigmoid, Softmax,
    Softplus, Tanh,
};
pub use attention::MultiheadAttention;
pub use bare::BareModule;
pub use batchnorm::{BatchNorm1d, BatchNorm2d, BatchNorm3d};
pub use conv::{
    Conv1d, Conv2d, Conv3d, ConvTranspose1d, ConvTranspose2d, ConvTranspose3d, Padding,
    PaddingMode, Sizes,
};
pub use dropout::Dropout;
pub use flatten::Flatten;
pub use instancenorm::{InstanceNorm1d, InstanceNorm2d, InstanceNorm3d};
pub use lazy::LazyLinear;
pub use lazy_norm_conv::{
    LazyBatchNorm1d, LazyBatchNorm2d, LazyBatchNorm3d, LazyConv1d, LazyConv2d, LazyConv3d,
    LazyConvTranspose1d, LazyConvTranspose2d, LazyConvTranspose3d, LazyInstanceNorm1d,
    LazyInstanceNorm2d, LazyInstanceNorm3d,
};
pub use linear::{Linear, NonDynamicallyQuantizableLinear};
pub use module_dict::ModuleDict;
pub use module_list::ModuleList;
pub use nonlinear::{
    CELU, GLU, Hardshrink, Hardsigmoid, Hardswish, Hardtanh, LogSigmoid, Mish, PReLU, ReLU6, SELU,
    Softmax2d, Softmin, Softshrink, Softsign, Tanhshrink, Threshold, Unflatten,
};
pub use normalization::{GroupNorm, LayerNorm, RMSNorm};
pub use parameter::Parameter;
pub use parameter_dict::ParameterDict;
pub use parameter_list::ParameterList;
pub use sequential::Sequential;
pub use sparse::Embedding;
pub use transformer::{Transformer, TransformerDecoder, TransformerEncoder};
pub use transformer_layer::{Activation, TransformerDecoderLayer, TransformerEncoderLayer};

pub use crate::containers::{ContainerError, IntoModule, Slice};
use crate::parametrizations::{ParametrizationList, Parametrizations};
use crate::registry::ModuleTypes;

/// Makes all layers of this crate known to the world, so that one is noticed on an entity even if none of
/// its kind was ever spawned with a model. A module type of your own is known from the first model that has
/// it, or from [`ModuleTypes::register`] on.
pub fn register(world: &mut World) {
    ModuleTypes::register::<BareModule>(world);
    ModuleTypes::register::<BatchNorm1d>(world);
    ModuleTypes::register::<BatchNorm2d>(world);
    ModuleTypes::register::<BatchNorm3d>(world);
    ModuleTypes::register::<CELU>(world);
    ModuleTypes::register::<Conv1d>(world);
    ModuleTypes::register::<Conv2d>(world);
    ModuleTypes::register::<Conv3d>(world);
    ModuleTypes::register::<ConvTranspose1d>(world);
    ModuleTypes::register::<ConvTranspose2d>(world);
    ModuleTypes::register::<ConvTranspose3d>(world);
    ModuleTypes::register::<Dropout>(world);
    ModuleTypes::register::<ELU>(world);
    ModuleTypes::register::<Embedding>(world);
    ModuleTypes::register::<Flatten>(world);
    ModuleTypes::register::<GELU>(world);
    ModuleTypes::register::<GLU>(world);
    ModuleTypes::register::<GroupNorm>(world);
    ModuleTypes::register::<Hardshrink>(world);
    ModuleTypes::register::<Hardsigmoid>(world);
    ModuleTypes::register::<Hardswish>(world);
    ModuleTypes::register::<Hardtanh>(world);
    ModuleTypes::register::<Identity>(world);
    ModuleTypes::register::<InstanceNorm1d>(world);
    ModuleTypes::register::<InstanceNorm2d>(world);
    ModuleTypes::register::<InstanceNorm3d>(world);
    ModuleTypes::register::<LayerNorm>(world);
    ModuleTypes::register::<LazyBatchNorm1d>(world);
    ModuleTypes::register::<LazyBatchNorm2d>(world);
    ModuleTypes::register::<LazyBatchNorm3d>(world);
    ModuleTypes::register::<LazyConv1d>(world);
    ModuleTypes::register::<LazyConv2d>(world);
    ModuleTypes::register::<LazyConv3d>(world);
    ModuleTypes::register::<LazyConvTranspose1d>(world);
    ModuleTypes::register::<LazyConvTranspose2d>(world);
    ModuleTypes::register::<LazyConvTranspose3d>(world);
    ModuleTypes::register::<LazyInstanceNorm1d>(world);
    ModuleTypes::register::<LazyInstanceNorm2d>(world);
    ModuleTypes::register::<LazyInstanceNorm3d>(world);
    ModuleTypes::register::<LazyLinear>(world);
    ModuleTypes::register::<LeakyReLU>(world);
    ModuleTypes::register::<Linear>(world);
    ModuleTypes::register::<LogSigmoid>(world);
    ModuleTypes::register::<LogSoftmax>(world);
    ModuleTypes::register::<ParametrizationList>(world);
    ModuleTypes::register::<Parametrizations>(world);
    ModuleTypes::register::<Mish>(world);
    ModuleTypes::register::<ModuleDict>(world);
    ModuleTypes::register::<ModuleList>(world);
    ModuleTypes::register::<MultiheadAttention>(world);
    ModuleTypes::register::<NonDynamicallyQuantizableLinear>(world);
    ModuleTypes::register::<PReLU>(world);
    ModuleTypes::register::<ParameterDict>(world);
    ModuleTypes::register::<ParameterList>(world);
    ModuleTypes::register::<RMSNorm>(world);
    ModuleTypes::register::<ReLU6>(world);
    ModuleTypes::register::<ReLU>(world);
    ModuleTypes::register::<SELU>(world);
    ModuleTypes::register::<Sequential>(world);
    ModuleTypes::register::<SiLU>(world);
    ModuleTypes::register::<Sigmoid>(world);
    ModuleTypes::register::<Softmax2d>(world);
    ModuleTypes::register::<Softmax>(world);
    ModuleTypes::register::<Softmin>(world);
    ModuleTypes::register::<Softplus>(world);
    ModuleTypes::register::<Softshrink>(world);
    ModuleTypes::register::<Softsign>(world);
    ModuleTypes::register::<Tanh>(world);
    ModuleTypes::register::<Tanhshrink>(world);
    ModuleTypes::register::<Threshold>(world);
    ModuleTypes::register::<Transformer>(world);
    ModuleTypes::register::<TransformerDecoder>(world);
    ModuleTypes::register::<TransformerDecoderLayer>(world);
    ModuleTypes::register::<TransformerEncoder>(world);
    ModuleTypes::register::<TransformerEncoderLayer>(world);
    ModuleTypes::register::<Unflatten>(world);
}
