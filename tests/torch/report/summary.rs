//! Summaries are torchinfo's: `tests/golden/summary.py` wrote `summary.txt`, and says by which versions.

use neurarch::kernels::ir::shape::Shape;
use neurarch::prelude::*;
use neurarch::report::summary::{
    Column, KernelSize, PopulationSummary, Summary, SummaryOptions, Trainable,
};

const GOLDEN: &str = include_str!("../../golden/summary.txt");

/// Returns what torchinfo printed of a model.
fn golden(name: &str) -> String {
    let mut parts = GOLDEN.split("\n### ");
    let part = parts.find_map(|part| part.strip_prefix(&format!("{name}\n")));
    part.unwrap_or_else(|| panic!("there is no {name}")).trim_end().to_owned()
}

fn of(module: &impl Module, options: SummaryOptions) -> Summary {
    let mut world = World::new();
    let mut models = world.spawn_population(module, 3, Seed(7)).unwrap();
    models.model(1).unwrap().summary(options).unwrap()
}

fn sized(size: impl Into<Shape>) -> SummaryOptions {
    SummaryOptions::new(size).columns(Column::TORCHINFO)
}

/// Compares with torchinfo's text but for some lines: pairs of what a line of torchinfo's has and what ours has in its place.
fn compare(name: &str, summary: &Summary, other: &[(&str, &str)]) {
    let mut expected = golden(name);
    for (torchinfo, ours) in other {
        assert!(expected.contains(torchinfo), "{name}: {torchinfo}");
        expected = expected.replacen(torchinfo, ours, 1);
    }
    let text = summary.to_string();
    for (text, expected) in text.lines().zip(expected.lines()) {
        assert_eq!(text, expected, "{name}");
    }
    assert_eq!(text.lines().count(), expected.lines().count(), "{name}");
}

fn mlp() -> Sequential {
    Sequential::new().push(Linear::new(4, 16)).push(Tanh).push(Linear::new(16, 2))
}

fn lenet() -> Sequential {
    let features = Sequential::new()
        .push(Conv2d { padding: 2.into(), ..Conv2d::new(1, 6, 5) })
        .push(ReLU)
        .push(MaxPool2d::new(2))
        .push(Conv2d::new(6, 16, 5))
        .push(ReLU)
        .push(MaxPool2d::new(2));
    let classifier = Sequential::new()
        .push(Flatten::default())
        .push(Linear::new(400, 120))
        .push(ReLU)
        .push(Linear::new(120, 84))
        .push(ReLU)
        .push(Linear::new(84, 10));
    Sequential::new().push(features).push(classifier)
}

/// The residual block of a `ResNet`, whose activation is called twice.
#[derive(Module, Component, Clone)]
struct Block {
    conv1: Conv2d,
    bn1: BatchNorm2d,
    relu: ReLU,
    conv2: Conv2d,
    bn2: BatchNorm2d,
    downsample: Sequential,
}

impl Block {
    fn new(inputs: usize, outputs: usize, stride: usize) -> Self {
        let conv = |inputs, size, stride: usize, padding: usize| Conv2d {
            stride: [stride; 2],
            padding: padding.into(),
            bias: false,
            ..Conv2d::new(inputs, outputs, size)
        };
        Block {
            conv1: conv(inputs, 3, stride, 1),
            bn1: BatchNorm2d::new(outputs),
            relu: ReLU,
            conv2: conv(outputs, 3, 1, 1),
            bn2: BatchNorm2d::new(outputs),
            downsample: Sequential::new()
                .push(conv(inputs, 1, stride, 0))
                .push(BatchNorm2d::new(outputs)),
        }
    }
}

impl Forward for Block {
    fn forward(&self, call: &Call<'_>, x: Var) -> Var {
        let y = self.relu(call, self.bn1(call, self.conv1(call, &x)));
        let y = self.bn2(call, self.conv2(call, y));
        self.relu(call, y + self.downsample(call, x))
    }
}

#[derive(Module, Component, Clone)]
struct Twice {
    inner: Sequential,
    out: Linear,
}

impl Twice {
    fn new() -> Self {
        let inner = Sequential::new().push(Linear::new(6, 6)).push(ReLU);
        Twice { inner, out: Linear::new(6, 3) }
    }
}

impl Forward for Twice {
    fn forward(&self, call: &Call<'_>, x: Var) -> Var {
        let x = self.inner(call, x);
        let x = self.inner(call, x);
        self.out(call, x)
    }
}

#[derive(Module, Component, Clone)]
struct Tied {
    embedding: Embedding,
    decoder: Linear,
}

impl Forward for Tied {
    fn declare(&self, declare: &mut Declare) {
        declare.tie("decoder.weight", "embedding.weight");
    }

    fn forward(&self, call: &Call<'_>, x: Var) -> Var {
        self.decoder(call, self.embedding(call, x))
    }
}

/// Two arrays and a keyword argument, a list that is not called, a parameter of its own.
#[derive(Component, Clone, Debug, PartialEq)]
struct Several;

impl Module for Several {
    fn declare(&self, declare: &mut Declare) {
        declare.child("embedding", Embedding::new(10, 4));
        declare.child("join", Bilinear::new(4, 3, 2));
        declare.child("layers", ModuleList::from([Linear::new(2, 2), Linear::new(2, 2)]));
        declare.parameter("scale", [2]);
    }

    fn forward_with(&self, call: &Call<'_>, mut arguments: Arguments) -> Tree {
        let mask = arguments.take("mask");
        let Some([words, features]) = call.values(arguments) else {
            return call.trace.poison().into();
        };
        let embedded = call.child("embedding", &words);
        let joined = call.child_with("join", Arguments::each([embedded, features]));
        let mut y = call.one_value("join", joined);
        for layer in call.each("layers") {
            y = layer(&y);
        }
        let mask = mask.and_then(|mask| mask.leaf().cloned());
        let mask = mask.unwrap_or_else(|| call.trace.fail("expected a mask"));
        (y * call.parameter("scale") * mask).into()
    }
}

/// A module with two names, which is shown under the second.
#[derive(Component, Clone, Debug, PartialEq)]
struct Alias;

impl Module for Alias {
    fn declare(&self, declare: &mut Declare) {
        declare.child("block", Sequential::new().push(Linear::new(3, 3)).push(Tanh));
        declare.share("first", "block.0");
    }

    fn forward(&self, call: &Call<'_>, x: Var) -> Var {
        call.child("block", &call.child("first", &x))
    }
}

#[test]
fn texts_are_torchinfos() {
    compare("mlp", &of(&mlp(), sized([32, 4])), &[]);
    compare("mlp by default", &of(&mlp(), SummaryOptions::new([32, 4])), &[]);
    compare("lenet", &of(&lenet(), sized([8, 1, 28, 28])), &[]);
    compare("lenet depth 1", &of(&lenet(), sized([8, 1, 28, 28]).depth(1)), &[]);
    compare("block", &of(&Block::new(8, 16, 2), sized([2, 8, 16, 16])), &[]);
    let lstm = LSTM { num_layers: 2, batch_first: true, ..LSTM::new(5, 7) };
    compare("lstm", &of(&lstm, sized([3, 11, 5])), &[]);
    compare("twice", &of(&Twice::new(), sized([5, 6])), &[]);
}

#[test]
fn parameters_of_no_leaf_have_bytes() {
    let layer = TransformerEncoderLayer {
        dim_feedforward: 32,
        batch_first: true,
        ..TransformerEncoderLayer::new(16, 4)
    };
    // torchinfo leaves out the 1,088 of the attention, which it counts all the same.
    let bytes = ("Params size (MB): 0.00", "Params size (MB): 0.01");
    compare("encoder", &of(&layer, sized([2, 9, 16])), &[bytes]);
}

#[test]
fn several_inputs_of_several_types() {
    let options = sized([3]).input_dtype(Dtype::I64).input([3, 3]).keyword("mask", [2]);
    compare("several", &of(&Several, options), &[]);
}

#[test]
fn tied_parameters_are_counted_once() {
    let tied =
        Tied { embedding: Embedding::new(10, 4), decoder: Linear::new(4, 10).without_bias() };
    let summary = of(&tied, sized([3, 7]).input_dtype(Dtype::I64));
    // torchinfo counts them twice, and gives the rest to the model: -50 %.
    let root = "--                        -50.00%";
    let other = [
        (root, "--                             --"),
        ("40                         50.00%", "40                        100.00%"),
        ("40                         50.00%", "40                             --"),
        ("Total params: 80", "Total params: 40"),
        ("Trainable params: 80", "Trainable params: 40"),
    ];
    compare("tied", &summary, &other);
    assert_eq!((summary.total_params, summary.param_bytes), (40, 160));
    let own: Vec<_> = summary.rows.iter().map(|row| (row.num_params, row.own_params)).collect();
    assert_eq!(own, [(40, 0), (40, 40), (40, 0)]);
}

#[test]
fn frozen_parameters_are_told_apart() {
    let mut world = World::new();
    let mut models = world.spawn_population(&mlp(), 4, Seed(7)).unwrap();
    let mut one = models.model(1).unwrap();
    one.set_requires_grad("0.weight", false).unwrap();
    one.at("2").unwrap().requires_grad_(false).unwrap();
    let summary = models.model(1).unwrap().summary(sized([32, 4])).unwrap();
    compare("mlp frozen", &summary, &[]);
    assert_eq!((summary.trainable_params, summary.non_trainable_params()), (16, 98));
    let trainable: Vec<_> = summary.rows.iter().map(|row| row.trainable).collect();
    let partial = Trainable::Partial;
    assert_eq!(trainable, [partial, partial, Trainable::Nothing, Trainable::False]);

    // The frozen one is a structure of its own; totals are of all.
    let PopulationSummary { structures, models, total_params, trainable_params, .. } =
        models.summary(sized([32, 4])).unwrap();
    let of_each: Vec<_> = structures.iter().map(|of| (of.models, of.trainable_params)).collect();
    assert_eq!(of_each, [(3, 114), (1, 16)]);
    assert_eq!((models, total_params, trainable_params), (4, 4 * 114, 3 * 114 + 16));
}

#[test]
fn a_module_with_two_names_is_shown_under_the_last() {
    let summary = of(&Alias, sized([2, 3]));
    // torchinfo counts the module under both names.
    let other = [
        ("--                        -50.00%", "--                             --"),
        ("12                         50.00%", "12                        100.00%"),
        ("12                         50.00%", "--                             --"),
        ("Total params: 24", "Total params: 12"),
        ("Trainable params: 24", "Trainable params: 12"),
    ];
    compare("alias", &summary, &other);
}

#[test]
fn populations_add_up() {
    let mut world = World::new();
    let mut models = world.spawn_population(&mlp(), 1_000, Seed(7)).unwrap();
    models.share_parameter("0.weight").unwrap();
    let summary = models.summary(SummaryOptions::new([32, 4])).unwrap();
    // 64 elements are there once.
    assert_eq!(summary.total_params, 1_000 * 50 + 64);
    assert_eq!(summary.non_trainable_params(), 0);
    assert_eq!(summary.param_bytes, 4 * summary.total_params);
    assert_eq!(summary.total_mult_adds, 1_000 * 3_648);
    assert_eq!(summary.structures.len(), 1);
    let text = summary.to_string();
    assert!(text.starts_with("1,000 models of this structure:\n====="), "{text}");
    assert!(text.ends_with(
        "All 1,000 models:\nTotal params: 50,064\nTrainable params: 50,064\nNon-trainable params: 0\n\
         Total mult-adds (M): 3.65\nParams size (MB): 0.20"
    ));
    let layer = models.at("2").summary(SummaryOptions::new([32, 16])).unwrap();
    assert_eq!((layer.total_params, layer.structures[0].rows.len()), (34_000, 1));
    assert_eq!(layer.structures[0].rows[0].path, "2");
}

#[test]
fn values_are_json() {
    let summary = of(&lenet(), SummaryOptions::new([8, 1, 28, 28]));
    assert_eq!(summary.rows[4].kernel_size, Some(KernelSize::All(2)));
    let json = serde_json::to_value(&summary).unwrap();
    assert_eq!(json["total_mult_adds"], 3_384_304);
    assert_eq!(json["rows"][2]["class_name"], "Conv2d");
    assert_eq!(json["rows"][2]["kernel_size"], serde_json::json!([5, 5]));
    assert_eq!(json["rows"][2]["output_size"], serde_json::json!([8, 6, 28, 28]));
    assert_eq!(json["rows"][2]["time"], serde_json::Value::Null);
    assert_eq!(json["rows"][3]["trainable"], "--");
}

/// Sums and output bytes: `(l.macs, l.output_bytes, l.param_bytes)` of torchinfo's `summary_list`, and its totals.
#[test]
fn bytes_are_torchinfos() {
    let summary = of(&lenet(), SummaryOptions::new([8, 1, 28, 28]));
    let Summary { param_bytes, output_bytes, input_bytes, .. } = summary;
    assert_eq!((param_bytes, output_bytes, input_bytes), (246_824, 417_152, 4 * 8 * 28 * 28));
    let row = &summary.rows[2];
    assert_eq!((row.mult_adds, row.output_bytes, row.param_bytes), (978_432, 150_528, 624));
    assert_eq!(summary.rows[1].mult_adds, 978_432 + 1_932_800);
}

#[test]
fn times_are_measured_and_nothing_is_changed() {
    let mut world = World::new();
    let net = Sequential::new()
        .push(Linear::new(4, 8))
        .push(BatchNorm1d::new(8))
        .push(Dropout { p: 0.5 });
    let mut models = world.spawn_population(&net, 2, Seed(7)).unwrap();
    let before = models.stacked_state_dict().unwrap();
    let options = SummaryOptions::new([16, 4]).timed(true);
    let summary = models.model(1).unwrap().summary(options.clone()).unwrap();
    assert_eq!(models.stacked_state_dict().unwrap(), before);
    let times: Vec<_> = summary.rows.iter().map(|row| row.time.unwrap()).collect();
    assert!(times[0] >= times[1] + times[2] + times[3], "{times:?}");
    assert!(summary.to_string().lines().nth(1).unwrap().ends_with("Time"));
    let untimed = models.model(1).unwrap().summary(SummaryOptions::new([16, 4])).unwrap();
    assert!(untimed.rows.iter().all(|row| row.time.is_none()));
    // The models were in training mode, and are.
    let x = ndarray::Array3::<f32>::ones((2, 16, 4));
    models.forward(&x).unwrap();
    assert_ne!(models.stacked_state_dict().unwrap(), before);
    // What a pass kept for `backward` is kept.
    let loss = MSELoss::default();
    models.loss::<f32, f32>(&ndarray::Array3::zeros((2, 16, 8)), &loss).unwrap();
    models.model(0).unwrap().summary(options.clone()).unwrap();
    models.backward().unwrap();
    // A model that takes no part has shapes, but computes nothing.
    models.model(1).unwrap().set_active(false).unwrap();
    let error = models.model(1).unwrap().summary(options).unwrap_err();
    assert_eq!(error.to_string(), "no model of the population is active");
    models.model(1).unwrap().summary(SummaryOptions::new([16, 4])).unwrap();
}

/// Halves its input until the sum is below 1.
#[derive(Component, Clone, Debug, PartialEq)]
struct Shrink;

impl Module for Shrink {
    fn declare(&self, declare: &mut Declare) {
        declare.child("inner", Linear::new(2, 2));
    }

    fn forward(&self, call: &Call<'_>, mut x: Var) -> Var {
        for _ in 0..2 {
            x = call.child("inner", &x);
            match call.trace.item(&x.sum(&[], false)) {
                Some(sum) if sum > 1e9 => return x,
                Some(_) => {}
                None => return call.trace.poison(),
            }
        }
        x
    }
}

#[test]
fn a_forward_that_reads_numbers_is_computed() {
    let summary = of(&Shrink, SummaryOptions::new([3, 2]));
    let rows: Vec<_> = summary.rows.iter().map(|row| (&*row.path, row.is_recursive)).collect();
    assert_eq!(rows, [("", false), ("inner", false), ("inner", true)]);
    assert_eq!((summary.total_params, summary.total_mult_adds), (6, 2 * 3 * 6));
}

#[test]
fn lazy_modules_are_what_they_will_become() {
    let mut world = World::new();
    let net = Sequential::new().push(LazyLinear::new(8)).push(LazyLinear::new(2));
    let mut models = world.spawn_population(&net, 2, Seed(7)).unwrap();
    let summary = models.model(0).unwrap().summary(SummaryOptions::new([5, 3])).unwrap();
    assert_eq!(summary.total_params, 3 * 8 + 8 + 8 * 2 + 2);
    assert_eq!(summary.rows[1].class_name, "Linear");
    assert!(models.to_string().contains("LazyLinear"), "nothing is changed");
}

#[test]
fn what_does_not_fit_is_an_error_in_torchs_words() {
    let mut world = World::new();
    let mut models = world.spawn_population(&mlp(), 2, Seed(7)).unwrap();
    let error = models.summary(SummaryOptions::new([32, 5])).unwrap_err();
    let message = "0 (Linear): mat1 and mat2 shapes cannot be multiplied (32x5 and 4x16)";
    assert_eq!(error.to_string(), message);
    let error = models.summary(SummaryOptions::new([32, 4]).input_dtype(Dtype::F64)).unwrap_err();
    assert_eq!(error.to_string(), "x: expected f32, got f64");
    assert!(models.at("7").summary(SummaryOptions::new([32, 4])).is_err());
    let huge = SummaryOptions::new([usize::MAX / 2, 4]);
    assert!(models.summary(huge.clone()).is_err());
    assert!(models.summary(huge.timed(true)).is_err());
    for power in 30..usize::BITS {
        // Whatever is counted stays at the greatest number, or the sizes are refused.
        let summary = models.summary(SummaryOptions::new([1 << power, 4]));
        drop(summary.map(|summary| summary.to_string()));
    }
    let id = models.id();
    world.despawn(id);
    assert!(world.population_mut(id).is_err());
}
