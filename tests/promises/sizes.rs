//! Whatever sizes a layer is described with: it is spawned, or an error says why not.

use neurarch::components::module::{Declare, DynModule, Init};
use neurarch::prelude::*;
use proptest::prelude::*;

use crate::known::Known;

/// Sizes at which sums and products overflow, or nothing is left.
fn sizes() -> impl Strategy<Value = usize> {
    let powers = (0..64_u32).prop_map(|power| 1_usize << power);
    let near = (powers, -1_isize..=1).prop_map(|(power, step)| power.wrapping_add_signed(step));
    prop_oneof![Just(0), 1..9_usize, near, Just(usize::MAX), Just(isize::MAX as usize)]
}

/// Layers of all kinds that take sizes.
fn layers([a, b, c, d]: [usize; 4]) -> Vec<Box<dyn DynModule>> {
    macro_rules! list {
        ($($module:expr),* $(,)?) => { vec![$(Box::new($module) as Box<dyn DynModule>),*] };
    }
    let [flag, other] = [a % 2 == 0, b % 2 == 0];
    list![
        Linear { bias: flag, ..Linear::new(a, b) },
        LazyLinear::new(a),
        Bilinear::new(a, b, c),
        FusedLinearReLU::new(a, b),
        Conv1d { groups: c, ..Conv1d::new(a, b, d) },
        Conv2d { groups: c, bias: flag, ..Conv2d::new(a, b, [c, d]) },
        Conv3d { groups: d, ..Conv3d::new(a, b, c) },
        LazyConv2d::new(a, b),
        ConvTranspose1d { groups: c, ..ConvTranspose1d::new(a, b, d) },
        ConvTranspose2d { groups: d, ..ConvTranspose2d::new(a, b, c) },
        BatchNorm1d { affine: flag, ..BatchNorm1d::new(a) },
        BatchNorm2d::new(b),
        InstanceNorm2d { affine: true, ..InstanceNorm2d::new(a) },
        GroupNorm::new(a, b),
        LayerNorm::new([a, b]),
        RMSNorm::new([a, b, c]),
        LocalResponseNorm::new(a),
        Embedding { padding_idx: Some(c as isize), ..Embedding::new(a, b) },
        EmbeddingBag { padding_idx: Some(c as isize), ..EmbeddingBag::new(a, b) },
        RNN { num_layers: c, bidirectional: flag, bias: other, ..RNN::new(a, b) },
        GRU { num_layers: c, bidirectional: other, ..GRU::new(a, b) },
        LSTM { num_layers: c, bidirectional: flag, proj_size: d, ..LSTM::new(a, b) },
        LSTMCell::new(a, b),
        GRUCell::new(a, b),
        MultiheadAttention { kdim: Some(c), vdim: Some(d), ..MultiheadAttention::new(a, b) },
        MultiheadAttention { add_bias_kv: flag, ..MultiheadAttention::new(a, b) },
        TransformerEncoderLayer { dim_feedforward: c, ..TransformerEncoderLayer::new(a, b) },
        TransformerEncoder::new(TransformerEncoderLayer::new(a, b), c),
        TransformerDecoder::new(TransformerDecoderLayer::new(a, b), d),
        Transformer { num_encoder_layers: c, num_decoder_layers: d, ..Transformer::new(a, b) },
        PixelShuffle::new(a),
        PixelUnshuffle::new(b),
        ChannelShuffle::new(c),
        AvgPool2d::new(a),
        MaxPool1d::new(b),
        Unfold::new([a, b]),
        Fold::new([a, b], [c, d]),
        ZeroPad2d::new(a as isize),
        Unflatten::new(1, [a as isize, b as isize]),
        ParameterList::from([Parameter::zeros([a, b]), Parameter::zeros([c, d])]),
        BareModule::new().parameter("w", [a, b, c], Init::Ones).buffer("b", [d], true),
        AdaptiveLogSoftmaxWithLoss::new(a, b, [c, d]),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn no_size_of_a_layer_panics(sizes in [sizes(), sizes(), sizes(), sizes()], dtype in 0..2_usize) {
        let dtype = [Dtype::F32, Dtype::F64][dtype];
        for module in layers(sizes) {
            let mut world = World::new();
            let repr = module.repr();
            prop_assert!(!repr.is_empty());
            // What fits the memory of a large machine would be filled for a long time.
            if bytes(&*module).is_some_and(|bytes| (1 << 22..1 << 44).contains(&bytes)) {
                continue;
            }
            let settings = PopulationSettings { dtype, ..PopulationSettings::default() };
            let spawned = world.spawn_population_with(&*module, settings).map(|brains| brains.id());
            if let Ok(population) = spawned {
                let root = world.population(population).unwrap().models()[0];
                world.part(root).state_dict().unwrap();
                world.despawn(population);
            }
        }
    }
}

/// Counts the bytes that the parameters of a module and all below it take in single precision, a kilobyte for the module
/// and for each parameter; or `None` if it has more of them than a module may have.
fn bytes(module: &dyn DynModule) -> Option<u128> {
    let mut declared = Declare::default();
    module.declare(&mut declared);
    if declared.refused().is_some() {
        return None;
    }
    let own = declared.parameters.iter().chain(&declared.buffers);
    let own = own.map(|of| {
        of.shape
            .iter()
            .fold(4_u128, |n, &size| n.saturating_mul(size as u128))
            .saturating_add(1 << 10)
    });
    let below = declared.children.iter().map(|(_, child)| bytes(&**child));
    own.map(Some).chain(below).try_fold(1_u128 << 10, |sum, bytes| Some(sum.saturating_add(bytes?)))
}
