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

pub use activation::{
    Approximate, ELU, GELU, Identity, LeakyReLU, LogSoftmax, ReLU, SiLU, Sigmoid, Softmax,
    Softplus, Tanh,
};
pub use adaptive::{
    AdaptiveAvgPool1d, AdaptiveAvgPool2d, AdaptiveAvgPool3d, AdaptiveMaxPool1d, AdaptiveMaxPool2d,
    AdaptiveMaxPool3d, FractionalMaxPool2d, FractionalMaxPool3d, OutputSize,
};
pub use attention::MultiheadAttention;
pub use bare::BareModule;
pub use batchnorm::{BatchNorm1d, BatchNorm2d, BatchNorm3d, SyncBatchNorm};
pub use bilinear::Bilinear;
pub use conv::{Conv1d, Conv2d, Conv3d, Padding, PaddingMode, Sizes};
pub use conv_transpose::{ConvTranspose1d, ConvTranspose2d, ConvTranspose3d};
pub use distance::{CosineSimilarity, PairwiseDistance};
pub use dropout::{AlphaDropout, Dropout, Dropout1d, Dropout2d, Dropout3d, FeatureAlphaDropout};
pub use flatten::Flatten;
pub use fold::{Fold, Unfold};
pub use fused_linear_relu::FusedLinearReLU;
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
pub use padding::{
    CircularPad1d, CircularPad2d, CircularPad3d, ConstantPad1d, ConstantPad2d, ConstantPad3d,
    ReflectionPad1d, ReflectionPad2d, ReflectionPad3d, ReplicationPad1d, ReplicationPad2d,
    ReplicationPad3d, Sides, ZeroPad1d, ZeroPad2d, ZeroPad3d,
};
pub use parameter::Parameter;
pub use parameter_dict::ParameterDict;
pub use parameter_list::ParameterList;
pub use per_axis::PerAxis;
pub use pooling::{
    AvgPool1d, AvgPool2d, AvgPool3d, LPPool1d, LPPool2d, LPPool3d, MaxPool1d, MaxPool2d, MaxPool3d,
};
pub use recurrent::{GRU, LSTM, RNN};
pub use recurrent_cell::{GRUCell, LSTMCell, Nonlinearity, RNNCell};
pub use response_norm::{CrossMapLRN2d, LocalResponseNorm};
pub use rrelu::RReLU;
pub use sequential::Sequential;
pub use shuffle::{ChannelShuffle, PixelShuffle, PixelUnshuffle};
pub use sparse::{BagMode, Embedding, EmbeddingBag};
pub use transformer::{Transformer, TransformerDecoder, TransformerEncoder};
pub use transformer_layer::{Activation, TransformerDecoderLayer, TransformerEncoderLayer};
pub use unpool::{MaxUnpool1d, MaxUnpool2d, MaxUnpool3d};
pub use upsample::{ForAxes, InterpolateMode, Upsample, UpsamplingBilinear2d, UpsamplingNearest2d};

pub use crate::containers::{ContainerError, IntoModule, LiveModule, Slice};
