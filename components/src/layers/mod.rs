//! Layers: components that say what a module computes, named as torch names them, one file a family.

mod activations;
mod attention;
mod bilinear;
mod containers;
mod distance;
mod dropout;
mod flatten;
mod fused_linear_relu;
mod lazy;
mod linear;
pub(crate) mod norm;
mod recurrent;
mod sparse;
mod spatial;
mod transformer;

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
pub use crate::layers::norm::observation_norm::NormalizeObservation;
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
pub use crate::module::NoModule;
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
