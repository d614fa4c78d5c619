//! The module types that are there before a user makes some.

use bevy_ecs::world::World;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::layers::*;
use crate::losses;
use crate::module::Module;
use crate::module::registry::{ModuleTypes, Modules};
use crate::parametrizations::*;

/// Makes all layers of this crate known to the world, so that one is noticed on an entity even if none of
/// its kind was ever spawned with a model. A module type of your own is known from the first model that has
/// it, or from [`ModuleTypes::register`] on.
pub fn register(world: &mut World) {
    /// Makes types known to a world.
    struct Known<'w>(&'w mut World);

    impl Modules for Known<'_> {
        fn add<M: Module + Serialize + DeserializeOwned>(&mut self) {
            ModuleTypes::register::<M>(self.0);
        }
    }

    list(&mut Known(world));
}

/// Lists the module types of this crate.
pub(crate) fn list(modules: &mut impl Modules) {
    modules.add::<AdaptiveAvgPool1d>();
    modules.add::<AdaptiveAvgPool2d>();
    modules.add::<AdaptiveAvgPool3d>();
    modules.add::<AdaptiveMaxPool1d>();
    modules.add::<AdaptiveMaxPool2d>();
    modules.add::<AdaptiveMaxPool3d>();
    modules.add::<AlphaDropout>();
    modules.add::<AvgPool1d>();
    modules.add::<AvgPool2d>();
    modules.add::<AvgPool3d>();
    modules.add::<BareModule>();
    modules.add::<BatchNorm1d>();
    modules.add::<BatchNorm2d>();
    modules.add::<BatchNorm3d>();
    modules.add::<Bilinear>();
    modules.add::<CELU>();
    modules.add::<ChannelShuffle>();
    modules.add::<CircularPad1d>();
    modules.add::<CircularPad2d>();
    modules.add::<CircularPad3d>();
    modules.add::<ConstantPad1d>();
    modules.add::<ConstantPad2d>();
    modules.add::<ConstantPad3d>();
    modules.add::<Conv1d>();
    modules.add::<Conv2d>();
    modules.add::<Conv3d>();
    modules.add::<ConvTranspose1d>();
    modules.add::<ConvTranspose2d>();
    modules.add::<ConvTranspose3d>();
    modules.add::<CosineSimilarity>();
    modules.add::<CrossMapLRN2d>();
    modules.add::<Dropout1d>();
    modules.add::<Dropout2d>();
    modules.add::<Dropout3d>();
    modules.add::<Dropout>();
    modules.add::<ELU>();
    modules.add::<Embedding>();
    modules.add::<EmbeddingBag>();
    modules.add::<FeatureAlphaDropout>();
    modules.add::<Flatten>();
    modules.add::<Fold>();
    modules.add::<FractionalMaxPool2d>();
    modules.add::<FractionalMaxPool3d>();
    modules.add::<FusedLinearReLU>();
    modules.add::<GELU>();
    modules.add::<GLU>();
    modules.add::<GRU>();
    modules.add::<GRUCell>();
    modules.add::<GroupNorm>();
    modules.add::<Hardshrink>();
    modules.add::<Hardsigmoid>();
    modules.add::<Hardswish>();
    modules.add::<Hardtanh>();
    modules.add::<Identity>();
    modules.add::<InstanceNorm1d>();
    modules.add::<InstanceNorm2d>();
    modules.add::<InstanceNorm3d>();
    modules.add::<LPPool1d>();
    modules.add::<LPPool2d>();
    modules.add::<LPPool3d>();
    modules.add::<LSTM>();
    modules.add::<LSTMCell>();
    modules.add::<LayerNorm>();
    modules.add::<LazyBatchNorm1d>();
    modules.add::<LazyBatchNorm2d>();
    modules.add::<LazyBatchNorm3d>();
    modules.add::<LazyConv1d>();
    modules.add::<LazyConv2d>();
    modules.add::<LazyConv3d>();
    modules.add::<LazyConvTranspose1d>();
    modules.add::<LazyConvTranspose2d>();
    modules.add::<LazyConvTranspose3d>();
    modules.add::<LazyInstanceNorm1d>();
    modules.add::<LazyInstanceNorm2d>();
    modules.add::<LazyInstanceNorm3d>();
    modules.add::<LazyLinear>();
    modules.add::<LeakyReLU>();
    modules.add::<Linear>();
    modules.add::<LocalResponseNorm>();
    modules.add::<LogSigmoid>();
    modules.add::<LogSoftmax>();
    modules.add::<MaxPool1d>();
    modules.add::<MaxPool2d>();
    modules.add::<MaxPool3d>();
    modules.add::<MaxUnpool1d>();
    modules.add::<MaxUnpool2d>();
    modules.add::<MaxUnpool3d>();
    modules.add::<Mish>();
    modules.add::<ModuleDict>();
    modules.add::<ModuleList>();
    modules.add::<MultiheadAttention>();
    modules.add::<NonDynamicallyQuantizableLinear>();
    modules.add::<NoModule>();
    modules.add::<NormalizeObservation>();
    modules.add::<Orthogonal>();
    modules.add::<PReLU>();
    modules.add::<PairwiseDistance>();
    modules.add::<ParameterDict>();
    modules.add::<ParameterList>();
    modules.add::<ParametrizationList>();
    modules.add::<Parametrizations>();
    modules.add::<PixelShuffle>();
    modules.add::<PixelUnshuffle>();
    modules.add::<RMSNorm>();
    modules.add::<RReLU>();
    modules.add::<RNN>();
    modules.add::<RNNCell>();
    modules.add::<ReLU6>();
    modules.add::<ReLU>();
    modules.add::<ReflectionPad1d>();
    modules.add::<ReflectionPad2d>();
    modules.add::<ReflectionPad3d>();
    modules.add::<ReplicationPad1d>();
    modules.add::<ReplicationPad2d>();
    modules.add::<ReplicationPad3d>();
    modules.add::<SELU>();
    modules.add::<Sequential>();
    modules.add::<SiLU>();
    modules.add::<Sigmoid>();
    modules.add::<Softmax2d>();
    modules.add::<Softmax>();
    modules.add::<Softmin>();
    modules.add::<Softplus>();
    modules.add::<Softshrink>();
    modules.add::<Softsign>();
    modules.add::<SpectralNorm>();
    modules.add::<SyncBatchNorm>();
    modules.add::<Tanh>();
    modules.add::<Tanhshrink>();
    modules.add::<Threshold>();
    modules.add::<Transformer>();
    modules.add::<TransformerDecoder>();
    modules.add::<TransformerDecoderLayer>();
    modules.add::<TransformerEncoder>();
    modules.add::<TransformerEncoderLayer>();
    modules.add::<Unflatten>();
    modules.add::<Unfold>();
    modules.add::<Upsample>();
    modules.add::<UpsamplingBilinear2d>();
    modules.add::<UpsamplingNearest2d>();
    modules.add::<WeightNorm>();
    modules.add::<ZeroPad1d>();
    modules.add::<ZeroPad2d>();
    modules.add::<ZeroPad3d>();
    losses::list(modules);
}
