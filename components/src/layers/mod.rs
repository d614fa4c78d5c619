//! Layers: components that say what a module computes, named as torch names them, one file a family.

pub mod activation;
pub mod adaptive;
pub mod attention;
pub mod bare;
pub mod batchnorm;
pub mod bilinear;
pub mod conv;
pub mod conv_transpose;
pub mod distance;
pub mod dropout;
pub mod flatten;
pub mod fold;
pub mod fused_linear_relu;
pub mod instancenorm;
pub mod lazy;
pub mod lazy_norm_conv;
pub mod linear;
pub mod module_dict;
pub mod module_list;
pub mod nonlinear;
pub mod normalization;
pub mod padding;
pub mod parameter;
pub mod parameter_dict;
pub mod parameter_list;
pub mod per_axis;
pub mod pooling;
pub mod recurrent;
pub mod recurrent_cell;
mod recurrent_stack;
pub mod response_norm;
pub mod rrelu;
pub mod sequential;
pub mod shuffle;
pub mod sparse;
pub mod transformer;
pub mod transformer_layer;
pub mod unpool;
pub mod upsample;

use bevy_ecs::world::World;

pub use crate::layers::activations::activation::{
    Approximate, ELU, GELU, Identity, LeakyReLU, LogSoftmax, ReLU, SiLU, Sigmoid, Softmax,
    Softplus, Tanh,
};
pub use crate::layers::activations::nonlinear::{
    CELU, GLU, Hardshrink, Hardsigmoid, Hardswish, Hardtanh, LogSigmoid, Mish, PReLU, ReLU6, SELU,
    Softmax2d, Softmin, Softshrink, Softsign, Tanhshrink, Threshold, Unflatten,
};
pub use crate::layers::activations::rrelu::RReLU;
pub use crate::layers::containers::bare::BareModule;
pub use crate::layers::containers::module_dict::ModuleDict;
pub use crate::layers::containers::module_list::ModuleList;
pub use crate::layers::containers::parameter::Parameter;
pub use crate::layers::containers::parameter_dict::ParameterDict;
pub use crate::layers::containers::parameter_list::ParameterList;
pub use crate::layers::containers::sequential::Sequential;
pub use crate::layers::lazy::norm_conv::{
    LazyBatchNorm1d, LazyBatchNorm2d, LazyBatchNorm3d, LazyConv1d, LazyConv2d, LazyConv3d,
    LazyConvTranspose1d, LazyConvTranspose2d, LazyConvTranspose3d, LazyInstanceNorm1d,
    LazyInstanceNorm2d, LazyInstanceNorm3d,
};
pub use crate::layers::norm::batchnorm::{BatchNorm1d, BatchNorm2d, BatchNorm3d, SyncBatchNorm};
pub use crate::layers::norm::instancenorm::{InstanceNorm1d, InstanceNorm2d, InstanceNorm3d};
pub use crate::layers::norm::normalization::{GroupNorm, LayerNorm, RMSNorm};
pub use crate::layers::norm::response_norm::{CrossMapLRN2d, LocalResponseNorm};
pub use crate::layers::recurrent::cell::{GRUCell, LSTMCell, Nonlinearity, RNNCell};
pub use crate::layers::spatial::adaptive::{
    AdaptiveAvgPool1d, AdaptiveAvgPool2d, AdaptiveAvgPool3d, AdaptiveMaxPool1d, AdaptiveMaxPool2d,
    AdaptiveMaxPool3d, FractionalMaxPool2d, FractionalMaxPool3d, OutputSize,
};
pub use crate::layers::spatial::conv::{Conv1d, Conv2d, Conv3d, Padding, PaddingMode, Sizes};
pub use crate::layers::spatial::conv_transpose::{
    ConvTranspose1d, ConvTranspose2d, ConvTranspose3d,
};
pub use crate::layers::spatial::fold::{Fold, Unfold};
pub use crate::layers::spatial::padding::{
    CircularPad1d, CircularPad2d, CircularPad3d, ConstantPad1d, ConstantPad2d, ConstantPad3d,
    ReflectionPad1d, ReflectionPad2d, ReflectionPad3d, ReplicationPad1d, ReplicationPad2d,
    ReplicationPad3d, Sides, ZeroPad1d, ZeroPad2d, ZeroPad3d,
};
pub use crate::layers::spatial::per_axis::PerAxis;
pub use crate::layers::spatial::pooling::{
    AvgPool1d, AvgPool2d, AvgPool3d, LPPool1d, LPPool2d, LPPool3d, MaxPool1d, MaxPool2d, MaxPool3d,
};
pub use crate::layers::spatial::shuffle::{ChannelShuffle, PixelShuffle, PixelUnshuffle};
pub use crate::layers::spatial::unpool::{MaxUnpool1d, MaxUnpool2d, MaxUnpool3d};
pub use crate::layers::spatial::upsample::{
    ForAxes, InterpolateMode, Upsample, UpsamplingBilinear2d, UpsamplingNearest2d,
};
pub use crate::layers::transformer::layer::{
    Activation, TransformerDecoderLayer, TransformerEncoderLayer,
};
pub use attention::MultiheadAttention;
pub use bilinear::Bilinear;
pub use distance::{CosineSimilarity, PairwiseDistance};
pub use dropout::{AlphaDropout, Dropout, Dropout1d, Dropout2d, Dropout3d, FeatureAlphaDropout};
pub use flatten::Flatten;
pub use fused_linear_relu::FusedLinearReLU;
pub use lazy::LazyLinear;
pub use linear::{Linear, NonDynamicallyQuantizableLinear};
pub use recurrent::{GRU, LSTM, RNN};
pub use sparse::{BagMode, Embedding, EmbeddingBag};
pub use transformer::{Transformer, TransformerDecoder, TransformerEncoder};

pub use crate::containers::{ContainerError, IntoModule, LiveModule, Slice};
use crate::losses;
use crate::module::registry::ModuleTypes;
use crate::parametrizations::{ParametrizationList, Parametrizations};

/// Makes all layers of this crate known to the world, so that one is noticed on an entity even if none of
/// its kind was ever spawned with a model. A module type of your own is known from the first model that has
/// it, or from [`ModuleTypes::register`] on.
pub fn register(world: &mut World) {
    ModuleTypes::register::<AdaptiveAvgPool1d>(world);
    ModuleTypes::register::<AdaptiveAvgPool2d>(world);
    ModuleTypes::register::<AdaptiveAvgPool3d>(world);
    ModuleTypes::register::<AdaptiveMaxPool1d>(world);
    ModuleTypes::register::<AdaptiveMaxPool2d>(world);
    ModuleTypes::register::<AdaptiveMaxPool3d>(world);
    ModuleTypes::register::<AlphaDropout>(world);
    ModuleTypes::register::<AvgPool1d>(world);
    ModuleTypes::register::<AvgPool2d>(world);
    ModuleTypes::register::<AvgPool3d>(world);
    ModuleTypes::register::<BareModule>(world);
    ModuleTypes::register::<BatchNorm1d>(world);
    ModuleTypes::register::<BatchNorm2d>(world);
    ModuleTypes::register::<BatchNorm3d>(world);
    ModuleTypes::register::<Bilinear>(world);
    ModuleTypes::register::<CELU>(world);
    ModuleTypes::register::<ChannelShuffle>(world);
    ModuleTypes::register::<CircularPad1d>(world);
    ModuleTypes::register::<CircularPad2d>(world);
    ModuleTypes::register::<CircularPad3d>(world);
    ModuleTypes::register::<ConstantPad1d>(world);
    ModuleTypes::register::<ConstantPad2d>(world);
    ModuleTypes::register::<ConstantPad3d>(world);
    ModuleTypes::register::<Conv1d>(world);
    ModuleTypes::register::<Conv2d>(world);
    ModuleTypes::register::<Conv3d>(world);
    ModuleTypes::register::<ConvTranspose1d>(world);
    ModuleTypes::register::<ConvTranspose2d>(world);
    ModuleTypes::register::<ConvTranspose3d>(world);
    ModuleTypes::register::<CosineSimilarity>(world);
    ModuleTypes::register::<CrossMapLRN2d>(world);
    ModuleTypes::register::<Dropout1d>(world);
    ModuleTypes::register::<Dropout2d>(world);
    ModuleTypes::register::<Dropout3d>(world);
    ModuleTypes::register::<Dropout>(world);
    ModuleTypes::register::<ELU>(world);
    ModuleTypes::register::<Embedding>(world);
    ModuleTypes::register::<EmbeddingBag>(world);
    ModuleTypes::register::<FeatureAlphaDropout>(world);
    ModuleTypes::register::<Flatten>(world);
    ModuleTypes::register::<Fold>(world);
    ModuleTypes::register::<FractionalMaxPool2d>(world);
    ModuleTypes::register::<FractionalMaxPool3d>(world);
    ModuleTypes::register::<FusedLinearReLU>(world);
    ModuleTypes::register::<GELU>(world);
    ModuleTypes::register::<GLU>(world);
    ModuleTypes::register::<GRU>(world);
    ModuleTypes::register::<GRUCell>(world);
    ModuleTypes::register::<GroupNorm>(world);
    ModuleTypes::register::<Hardshrink>(world);
    ModuleTypes::register::<Hardsigmoid>(world);
    ModuleTypes::register::<Hardswish>(world);
    ModuleTypes::register::<Hardtanh>(world);
    ModuleTypes::register::<Identity>(world);
    ModuleTypes::register::<InstanceNorm1d>(world);
    ModuleTypes::register::<InstanceNorm2d>(world);
    ModuleTypes::register::<InstanceNorm3d>(world);
    ModuleTypes::register::<LPPool1d>(world);
    ModuleTypes::register::<LPPool2d>(world);
    ModuleTypes::register::<LPPool3d>(world);
    ModuleTypes::register::<LSTM>(world);
    ModuleTypes::register::<LSTMCell>(world);
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
    ModuleTypes::register::<LocalResponseNorm>(world);
    ModuleTypes::register::<LogSigmoid>(world);
    ModuleTypes::register::<LogSoftmax>(world);
    ModuleTypes::register::<MaxPool1d>(world);
    ModuleTypes::register::<MaxPool2d>(world);
    ModuleTypes::register::<MaxPool3d>(world);
    ModuleTypes::register::<MaxUnpool1d>(world);
    ModuleTypes::register::<MaxUnpool2d>(world);
    ModuleTypes::register::<MaxUnpool3d>(world);
    ModuleTypes::register::<Mish>(world);
    ModuleTypes::register::<ModuleDict>(world);
    ModuleTypes::register::<ModuleList>(world);
    ModuleTypes::register::<MultiheadAttention>(world);
    ModuleTypes::register::<NonDynamicallyQuantizableLinear>(world);
    ModuleTypes::register::<PReLU>(world);
    ModuleTypes::register::<PairwiseDistance>(world);
    ModuleTypes::register::<ParameterDict>(world);
    ModuleTypes::register::<ParameterList>(world);
    ModuleTypes::register::<ParametrizationList>(world);
    ModuleTypes::register::<Parametrizations>(world);
    ModuleTypes::register::<PixelShuffle>(world);
    ModuleTypes::register::<PixelUnshuffle>(world);
    ModuleTypes::register::<RMSNorm>(world);
    ModuleTypes::register::<RReLU>(world);
    ModuleTypes::register::<RNN>(world);
    ModuleTypes::register::<RNNCell>(world);
    ModuleTypes::register::<ReLU6>(world);
    ModuleTypes::register::<ReLU>(world);
    ModuleTypes::register::<ReflectionPad1d>(world);
    ModuleTypes::register::<ReflectionPad2d>(world);
    ModuleTypes::register::<ReflectionPad3d>(world);
    ModuleTypes::register::<ReplicationPad1d>(world);
    ModuleTypes::register::<ReplicationPad2d>(world);
    ModuleTypes::register::<ReplicationPad3d>(world);
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
    ModuleTypes::register::<SyncBatchNorm>(world);
    ModuleTypes::register::<Tanh>(world);
    ModuleTypes::register::<Tanhshrink>(world);
    ModuleTypes::register::<Threshold>(world);
    ModuleTypes::register::<Transformer>(world);
    ModuleTypes::register::<TransformerDecoder>(world);
    ModuleTypes::register::<TransformerDecoderLayer>(world);
    ModuleTypes::register::<TransformerEncoder>(world);
    ModuleTypes::register::<TransformerEncoderLayer>(world);
    ModuleTypes::register::<Unflatten>(world);
    ModuleTypes::register::<Unfold>(world);
    ModuleTypes::register::<Upsample>(world);
    ModuleTypes::register::<UpsamplingBilinear2d>(world);
    ModuleTypes::register::<UpsamplingNearest2d>(world);
    ModuleTypes::register::<ZeroPad1d>(world);
    ModuleTypes::register::<ZeroPad2d>(world);
    ModuleTypes::register::<ZeroPad3d>(world);
    losses::register(world);
}
