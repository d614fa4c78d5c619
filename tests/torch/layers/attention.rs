//! Attention and transformers: in populations, by finite differences, wholly masked, and refused as torch refuses.

use ndarray::{ArrayD, Axis, Dimension, IxDyn, Slice};
use neurarch::prelude::*;
use neurarch::systems::execute::step::input_gradients;

/// Arrays of a batch and their flags: values, then masks by name.
struct Given {
    values: Vec<ArrayD<f64>>,
    masks: Vec<(&'static str, ArrayD<u8>)>,
    flags: Vec<(&'static str, bool)>,
}

impl Given {
    /// Makes values of these shapes, for so many models.
    fn new(models: usize, shapes: &[&[usize]]) -> Self {
        let value = |(number, shape): (usize, &&[usize])| {
            let shape: Vec<_> = [models].into_iter().chain(shape.iter().copied()).collect();
            numbers(&shape, 0.7 + number as f64)
        };
        let values = shapes.iter().enumerate().map(value).collect();
        Given { values, masks: Vec::new(), flags: Vec::new() }
    }

    /// Adds a mask, the same for all models: true where `masked` says so of the index.
    fn mask(
        mut self,
        name: &'static str,
        shape: &[usize],
        masked: impl Fn(&[usize]) -> bool,
    ) -> Self {
        let flags = ArrayD::from_shape_fn(IxDyn(shape), |at| u8::from(masked(at.slice())));
        self.masks.push((name, flags));
        self
    }

    fn flag(mut self, name: &'static str, flag: bool) -> Self {
        self.flags.push((name, flag));
        self
    }

    /// The same for one of the models.
    fn of(&self, model: usize) -> Given {
        let one = |x: &ArrayD<f64>| x.slice_axis(Axis(0), Slice::from(model..model + 1)).to_owned();
        let values = self.values.iter().map(one).collect();
        Given { values, masks: self.masks.clone(), flags: self.flags.clone() }
    }

    fn arguments(&self) -> Arguments<AnyInput<'_>> {
        let values = self.values.iter().map(|x| Input::from(x).requires_grad().into());
        let mut arguments = Arguments::each(values);
        for (name, mask) in &self.masks {
            arguments = arguments.with(*name, Tree::Leaf(Input::shared(mask.view()).into()));
        }
        for &(name, flag) in &self.flags {
            arguments = arguments.with(name, Tree::Flag(flag));
        }
        arguments
    }
}

fn numbers(shape: &[usize], pitch: f64) -> ArrayD<f64> {
    let count = shape.iter().product::<usize>();
    let numbers = (0..count).map(|i| (pitch * i as f64 + 0.3).sin()).collect();
    ArrayD::from_shape_vec(IxDyn(shape), numbers).unwrap()
}

/// Layers with what they are called with, for so many models. Each has an option or more of its own.
fn cases(models: usize) -> Vec<(Box<dyn neurarch::components::module::DynModule>, Given)> {
    let causal = |at: &[usize]| at[1] > at[0];
    let attention = MultiheadAttention {
        kdim: Some(3),
        vdim: Some(5),
        add_bias_kv: true,
        add_zero_attn: true,
        ..MultiheadAttention::new(6, 2)
    };
    let first = TransformerEncoderLayer {
        dim_feedforward: 5,
        batch_first: true,
        norm_first: true,
        activation: Activation::module(Tanh),
        ..TransformerEncoderLayer::new(4, 2)
    };
    let encoder = TransformerEncoder::new(first, 2).with_norm(LayerNorm::new([4]));
    let decoder = TransformerDecoderLayer {
        dim_feedforward: 3,
        bias: false,
        activation: Activation::GELU,
        ..TransformerDecoderLayer::new(4, 1)
    };
    let transformer = Transformer {
        num_encoder_layers: 1,
        num_decoder_layers: 1,
        dim_feedforward: 3,
        ..Transformer::new(4, 2)
    };
    vec![
        (
            Box::new(attention),
            Given::new(models, &[&[3, 2, 6], &[4, 2, 3], &[4, 2, 5]])
                .mask("key_padding_mask", &[2, 4], |at| at == [1, 3])
                .mask("attn_mask", &[4, 3, 4], |at| at[0] == 2 && at[2] == 0)
                .flag("average_attn_weights", false),
        ),
        (
            Box::new(encoder),
            Given::new(models, &[&[2, 3, 4]]).mask("mask", &[3, 3], causal).flag("is_causal", true),
        ),
        (
            Box::new(TransformerDecoder::new(decoder, 2)),
            Given::new(models, &[&[3, 2, 4], &[2, 2, 4]]).mask("tgt_mask", &[3, 3], causal).mask(
                "memory_key_padding_mask",
                &[2, 2],
                |at| at == [0, 1],
            ),
        ),
        (Box::new(transformer), Given::new(models, &[&[3, 4], &[2, 4]])),
    ]
}

/// Spawns models with the numbers from `first` on; each has weights of its own.
fn spawn(
    layer: &dyn neurarch::components::module::DynModule,
    first: u64,
    models: usize,
) -> (World, Entity) {
    let mut world = World::new();
    let settings = PopulationSettings {
        models,
        first_number: first,
        dtype: Dtype::F64,
        ..PopulationSettings::default()
    };
    let population = world.spawn_population_with(layer, settings).unwrap().id();
    (world, population)
}

/// Runs forward and backward, and gives results, gradients of inputs and of parameters.
fn run(world: &mut World, population: Entity, given: &Given) -> Vec<ArrayD<f64>> {
    let y =
        world.population_mut(population).unwrap().forward_with::<f64>(given.arguments()).unwrap();
    let results: Vec<_> = y.leaves().into_iter().cloned().collect();
    // The same for every model.
    let dy: Vec<_> = results.iter().map(|y| numbers(&y.shape()[1..], 1.3)).collect();
    let dy: Vec<_> = dy.iter().map(|dy| Some(Input::shared(dy.view()).into())).collect();
    world.population_mut(population).unwrap().backward_with(&dy).unwrap();
    let of_inputs = input_gradients::<f64>(world, population).unwrap().into_iter().flatten();
    let mut all: Vec<_> = results.into_iter().chain(of_inputs).collect();
    let root = world.population(population).unwrap().models()[0];
    for name in world.module_mut(root).unwrap().parameter_names().unwrap() {
        let models = world.population(population).unwrap().models().to_vec();
        let of = models
            .iter()
            .map(|&root| world.module_mut(root).unwrap().gradient::<f64>(&name).unwrap());
        let of: Vec<_> = of.map(|of| of.unwrap().insert_axis(Axis(0))).collect();
        let views: Vec<_> = of.iter().map(|of| of.view()).collect();
        all.push(ndarray::concatenate(Axis(0), &views).unwrap());
    }
    all
}

#[test]
fn three_models_give_the_bits_of_three_separate_runs() {
    for (layer, given) in cases(3) {
        let (mut world, population) = spawn(&*layer, 0, 3);
        // In training mode: dropout of transformers draws from each model's own numbers.
        let together = run(&mut world, population, &given);
        for model in 0..3 {
            let (mut world, alone) = spawn(&*layer, model as u64, 1);
            let alone = run(&mut world, alone, &given.of(model));
            assert_eq!(alone.len(), together.len());
            for (alone, together) in alone.iter().zip(&together) {
                let together = together.index_axis(Axis(0), model);
                let same = alone.iter().zip(together).all(|(a, b)| a.to_bits() == b.to_bits());
                assert!(same, "{}: model {model}", layer.type_name());
            }
        }
    }
}

#[test]
fn gradients_are_the_slopes_of_forward() {
    const STEP: f64 = 1e-5;
    for (layer, mut given) in cases(1) {
        let (mut world, population) = spawn(&*layer, 0, 1);
        world.population_mut(population).unwrap().eval().unwrap();
        let root = world.population(population).unwrap().models()[0];
        let names = world.module_mut(root).unwrap().parameter_names().unwrap();
        // Biases are zero at first.
        for (number, name) in names.iter().enumerate() {
            let shape =
                world.module_mut(root).unwrap().parameter::<f64>(name).unwrap().shape().to_vec();
            let value = numbers(&shape, 1.1 + number as f64) * 0.5;
            world.module_mut(root).unwrap().set_parameter(name, value.view()).unwrap();
        }
        let gradients = run(&mut world, population, &given);
        let loss = |world: &mut World, given: &Given| {
            let y = world
                .population_mut(population)
                .unwrap()
                .forward_with::<f64>(given.arguments())
                .unwrap();
            let of = |y: &&ArrayD<f64>| (numbers(y.shape(), 1.3) * *y).sum();
            y.leaves().iter().map(of).sum::<f64>()
        };
        let near = |what: &str, gradient: f64, slope: f64| {
            let close = (gradient - slope).abs() < 1e-7 + 1e-6 * slope.abs();
            assert!(close, "{} {what}: {gradient}, not {slope}", layer.type_name());
        };
        let mut gradients = gradients.into_iter().rev();
        for name in names.iter().rev() {
            let gradient = gradients.next().unwrap();
            let value = world.module_mut(root).unwrap().parameter::<f64>(name).unwrap();
            for place in (0..value.len()).step_by(3) {
                let mut at = |step: f64| {
                    let mut moved = value.clone();
                    *moved.iter_mut().nth(place).unwrap() += step;
                    world.module_mut(root).unwrap().set_parameter(name, moved.view()).unwrap();
                    loss(&mut world, &given)
                };
                let slope = (at(STEP) - at(-STEP)) / (2.0 * STEP);
                near(name, *gradient.iter().nth(place).unwrap(), slope);
            }
            world.module_mut(root).unwrap().set_parameter(name, value.view()).unwrap();
        }
        for input in (0..given.values.len()).rev() {
            let gradient = gradients.next().unwrap();
            for place in 0..gradient.len() {
                let mut at = |step: f64| {
                    *given.values[input].iter_mut().nth(place).unwrap() += step;
                    let loss = loss(&mut world, &given);
                    *given.values[input].iter_mut().nth(place).unwrap() -= step;
                    loss
                };
                let slope = (at(STEP) - at(-STEP)) / (2.0 * STEP);
                near("input", *gradient.iter().nth(place).unwrap(), slope);
            }
        }
    }
}

/// torch: `MultiheadAttention(4, 2)(x, x, x, key_padding_mask=torch.ones(2, 3, dtype=torch.bool), ..)`.
#[test]
fn a_query_that_sees_nothing_gets_zero_without_weights_and_nan_with_them() {
    let attention = MultiheadAttention { batch_first: true, ..MultiheadAttention::new(4, 2) };
    for need_weights in [false, true] {
        let (mut world, population) = spawn(&attention, 0, 1);
        let given = Given::new(1, &[&[2, 3, 4], &[2, 3, 4], &[2, 3, 4]])
            .mask("key_padding_mask", &[2, 3], |at| at[0] == 0)
            .flag("need_weights", need_weights);
        let all = run(&mut world, population, &given);
        let masked = all[0].index_axis(Axis(0), 0).index_axis(Axis(0), 0).to_owned();
        match need_weights {
            true => assert!(masked.iter().all(|y| y.is_nan())),
            false => {
                // `out_proj.bias` is zero at first.
                assert!(masked.iter().all(|&y| y == 0.0));
                assert!(all.iter().flatten().all(|x| x.is_finite()), "no gradient is NaN");
            }
        }
    }
}

#[test]
fn dropout_of_weights_is_for_training_only() {
    let attention = MultiheadAttention { dropout: 1.0, ..MultiheadAttention::new(4, 2) };
    let (mut world, population) = spawn(&attention, 0, 1);
    let given = Given::new(1, &[&[3, 4], &[3, 4], &[3, 4]]);
    let y =
        world.population_mut(population).unwrap().forward_with::<f64>(given.arguments()).unwrap();
    assert!(y.leaves().into_iter().flatten().all(|&y| y == 0.0));
    world.population_mut(population).unwrap().eval().unwrap();
    let y =
        world.population_mut(population).unwrap().forward_with::<f64>(given.arguments()).unwrap();
    assert!(y.leaves().into_iter().flatten().all(|&y| y != 0.0));
}

#[test]
fn what_torch_refuses_is_refused_in_its_words() {
    let plain = MultiheadAttention::new(4, 2);
    let split = MultiheadAttention { kdim: Some(3), vdim: Some(2), ..plain };
    let given = |shapes: [&[usize]; 3]| Given::new(1, &shapes);
    let good = || given([&[2, 3, 4]; 3]);
    let no = |_: &[usize]| false;
    let hint = "Need attn_mask if specifying the is_causal hint. You may use the Transformer module method \
                `generate_square_subsequent_mask` to create this mask.";
    let refusals: [(MultiheadAttention, Given, &str); 16] = [
        (MultiheadAttention::new(4, 3), good(), "embed_dim must be divisible by num_heads"),
        (
            MultiheadAttention::new(4, 0),
            good(),
            "embed_dim and num_heads must be greater than 0, got embed_dim=4 and num_heads=0 instead",
        ),
        (
            plain,
            given([&[3, 4], &[2, 3, 4], &[3, 4]]),
            "For unbatched (2-D) `query`, expected `key` and `value` to be 2-D but found 3-D and 2-D tensors \
             respectively",
        ),
        (
            plain,
            given([&[4], &[4], &[4]]),
            "query should be unbatched 2D or batched 3D tensor but received 1-D query tensor",
        ),
        (
            plain,
            given([&[2, 3, 4], &[2, 3, 4], &[2, 4, 4]]),
            "key shape torch.Size([2, 3, 4]) does not match value shape torch.Size([2, 4, 4])",
        ),
        (
            plain,
            given([&[2, 3, 4], &[2, 3, 5], &[2, 3, 5]]),
            "mm: mat1 and mat2 shapes cannot be multiplied (6x5 and 4x4)",
        ),
        (
            plain,
            given([&[2, 3, 5], &[2, 3, 4], &[2, 3, 4]]),
            "was expecting embedding dimension of 4, but got 5",
        ),
        (
            plain,
            given([&[2, 3, 4], &[3, 5, 4], &[3, 5, 4]]),
            "shape '[3, 6, 2]' is invalid for input of size 60",
        ),
        (
            plain,
            good().mask("attn_mask", &[3, 3], no),
            "The shape of the 2D attn_mask is torch.Size([3, 3]), but should be (2, 2).",
        ),
        (
            plain,
            good().mask("attn_mask", &[2, 2, 2], no),
            "The shape of the 3D attn_mask is torch.Size([2, 2, 2]), but should be (6, 2, 2).",
        ),
        (plain, good().flag("is_causal", true), hint),
        (
            plain,
            good().mask("key_padding_mask", &[3, 3], no),
            "Expected key_padded_mask.shape[1] to be 2, but got 3",
        ),
        (
            plain,
            good().mask("key_padding_mask", &[2, 2], no),
            "Expected key_padded_mask.shape[0] to be 3, but got 2",
        ),
        (
            plain,
            good().flag("foo", true),
            "MultiheadAttention.forward() got an unexpected keyword argument 'foo'",
        ),
        (
            split,
            given([&[2, 3, 4], &[2, 3, 4], &[2, 3, 2]]),
            "expecting key weights shape of (4, 4), but got torch.Size([4, 3])",
        ),
        (
            split,
            given([&[2, 3, 4], &[2, 3, 3], &[4, 3, 2]]),
            "key's sequence and batch dims torch.Size([2, 3]) do not match value's torch.Size([4, 3])",
        ),
    ];
    for (layer, given, words) in refusals {
        let (mut world, population) = spawn(&layer, 0, 1);
        let error = world
            .population_mut(population)
            .unwrap()
            .forward_with::<f64>(given.arguments())
            .unwrap_err();
        let error = error.to_string();
        assert!(error.contains(words), "{error:?} instead of {words:?}");
    }
    for (given, words) in [
        (Given::new(1, &[&[2, 3, 4]]), "missing 1 required positional argument: 'tgt'"),
        (Given::new(1, &[&[2, 3, 4], &[2, 2, 4]]), "the batch number of src and tgt must be equal"),
        (
            Given::new(1, &[&[2, 3, 5], &[2, 3, 4]]),
            "the feature number of src and tgt must be equal to d_model",
        ),
    ] {
        let small = Transformer { dim_feedforward: 3, ..Transformer::new(4, 2) };
        let (mut world, population) = spawn(&small, 0, 1);
        let error = world
            .population_mut(population)
            .unwrap()
            .forward_with::<f64>(given.arguments())
            .unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
    }
}

#[test]
fn a_transformer_prints_as_torch_prints_it_and_draws_xavier_matrices() {
    let activation = Activation::module(ReLU);
    let transformer = Transformer {
        num_encoder_layers: 1,
        num_decoder_layers: 2,
        activation,
        ..Transformer::new(4, 2)
    };
    assert_eq!(repr(&transformer), REPR.trim());
    let (mut world, population) = spawn(&transformer, 0, 1);
    let root = world.population(population).unwrap().models()[0];
    assert_eq!(world.module_mut(root).unwrap().repr().unwrap(), REPR.trim());
    for (name, high) in [
        ("encoder.layers.0.linear1.weight", (6.0_f64 / 2052.0).sqrt()),
        ("decoder.layers.1.multihead_attn.out_proj.weight", (6.0_f64 / 8.0).sqrt()),
        ("decoder.layers.1.multihead_attn.in_proj_weight", (6.0_f64 / 16.0).sqrt()),
        ("encoder.layers.0.self_attn.out_proj.bias", 0.0),
    ] {
        let most = world
            .module_mut(root)
            .unwrap()
            .parameter::<f64>(name)
            .unwrap()
            .iter()
            .fold(0.0, |a: f64, b| a.max(b.abs()));
        assert!(most <= high && most >= 0.7 * high, "{name}: {most} of {high}");
    }
}

const REPR: &str = "
Transformer(
  (encoder): TransformerEncoder(
    (layers): ModuleList(
      (0): TransformerEncoderLayer(
        (self_attn): MultiheadAttention(
          (out_proj): NonDynamicallyQuantizableLinear(in_features=4, out_features=4, bias=True)
        )
        (linear1): Linear(in_features=4, out_features=2048, bias=True)
        (dropout): Dropout(p=0.1, inplace=False)
        (linear2): Linear(in_features=2048, out_features=4, bias=True)
        (norm1): LayerNorm((4,), eps=1e-05, elementwise_affine=True, bias=True)
        (norm2): LayerNorm((4,), eps=1e-05, elementwise_affine=True, bias=True)
        (dropout1): Dropout(p=0.1, inplace=False)
        (dropout2): Dropout(p=0.1, inplace=False)
        (activation): ReLU()
      )
    )
    (norm): LayerNorm((4,), eps=1e-05, elementwise_affine=True, bias=True)
  )
  (decoder): TransformerDecoder(
    (layers): ModuleList(
      (0-1): 2 x TransformerDecoderLayer(
        (self_attn): MultiheadAttention(
          (out_proj): NonDynamicallyQuantizableLinear(in_features=4, out_features=4, bias=True)
        )
        (multihead_attn): MultiheadAttention(
          (out_proj): NonDynamicallyQuantizableLinear(in_features=4, out_features=4, bias=True)
        )
        (linear1): Linear(in_features=4, out_features=2048, bias=True)
        (dropout): Dropout(p=0.1, inplace=False)
        (linear2): Linear(in_features=2048, out_features=4, bias=True)
        (norm1): LayerNorm((4,), eps=1e-05, elementwise_affine=True, bias=True)
        (norm2): LayerNorm((4,), eps=1e-05, elementwise_affine=True, bias=True)
        (norm3): LayerNorm((4,), eps=1e-05, elementwise_affine=True, bias=True)
        (dropout1): Dropout(p=0.1, inplace=False)
        (dropout2): Dropout(p=0.1, inplace=False)
        (dropout3): Dropout(p=0.1, inplace=False)
        (activation): ReLU()
      )
    )
    (norm): LayerNorm((4,), eps=1e-05, elementwise_affine=True, bias=True)
  )
)
";
