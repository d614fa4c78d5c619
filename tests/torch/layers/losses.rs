//! Losses as modules and as what training takes: one formula, torch's printed form, each model's own numbers.

use ndarray::{Array2, Array3, ArrayD, Axis, array, s};
use neurarch::components::losses::LossCall;
use neurarch::prelude::*;

/// A network whose forward pass gives its loss.
#[derive(Component, Clone, Debug, PartialEq)]
#[component(immutable)]
struct WithLoss<L: Module>(L);

impl<L: Module> Module for WithLoss<L> {
    fn declare(&self, declare: &mut Declare) {
        declare.child("net", Linear::new(3, 4)).child("loss", self.0.clone());
    }

    fn forward_with(&self, call: &Call<'_>, arguments: Arguments) -> Tree {
        match call.named_values(arguments, ["x", "y"]) {
            Some([x, y]) => call.child_with("loss", Arguments::each([call.child("net", &x), y])),
            None => call.trace.poison().into(),
        }
    }

    fn structural(&self) -> Self {
        WithLoss(Module::structural(&self.0))
    }
}

const MODELS: usize = 3;

fn batch() -> Array3<f32> {
    Array3::from_shape_fn((MODELS, 5, 3), |(m, i, j)| {
        ((m * 7 + i * 5 + j * 3) % 11) as f32 / 5.0 - 1.0
    })
}

/// Targets from 0 to 1.
fn targets() -> Array3<f32> {
    Array3::from_shape_fn((MODELS, 5, 4), |(m, i, j)| ((m + i * 3 + j * 5) % 9) as f32 / 8.0)
}

/// Gives the losses of a population whose modules are called with targets, and the gradient of its weights.
fn called<L: Module>(
    loss: &L,
    first: u64,
    x: &Array3<f32>,
    y: &ArrayD<f32>,
) -> (Vec<f32>, ArrayD<f32>) {
    let mut world = World::new();
    let settings = PopulationSettings {
        models: x.len_of(Axis(0)),
        seed: 4,
        first_number: first,
        ..PopulationSettings::default()
    };
    let population = world.spawn_population_with(&WithLoss(loss.clone()), settings).unwrap().id();
    let inputs = Arguments::each([AnyInput::from(x), AnyInput::from(y)]);
    let found = world.population_mut(population).unwrap().forward_with::<f32>(inputs).unwrap();
    let losses = found.leaves()[0].iter().copied().collect();
    let ones = ArrayD::<f32>::ones(vec![x.len_of(Axis(0))]);
    let ones: [Option<AnyInput<'_>>; 1] = [Some(AnyInput::from(&ones))];
    world.population_mut(population).unwrap().backward_with(&ones).unwrap();
    let gradients: Vec<_> = world
        .population(population)
        .unwrap()
        .models()
        .to_vec()
        .into_iter()
        .map(|model| {
            world.module_mut(model).unwrap().gradient::<f32>("net.weight").unwrap().unwrap()
        })
        .collect();
    let views: Vec<_> = gradients.iter().map(|gradient| gradient.view()).collect();
    (losses, ndarray::stack(Axis(0), &views).unwrap())
}

/// The same with the loss behind the model.
fn trained<L: Loss>(loss: &L, x: &Array3<f32>, y: &ArrayD<f32>) -> (Vec<f32>, ArrayD<f32>) {
    let mut world = World::new();
    let settings = PopulationSettings { models: MODELS, seed: 4, ..PopulationSettings::default() };
    let net = Sequential::from_named([("net", Linear::new(3, 4))]).unwrap();
    let population = world.spawn_population_with(&net, settings).unwrap().id();
    world.population_mut(population).unwrap().forward(x).unwrap();
    let losses = world.population_mut(population).unwrap().loss::<f32, f32>(y, loss).unwrap();
    world.population_mut(population).unwrap().backward().unwrap();
    let gradients: Vec<_> = world
        .population(population)
        .unwrap()
        .models()
        .to_vec()
        .into_iter()
        .map(|model| {
            world.module_mut(model).unwrap().gradient::<f32>("net.weight").unwrap().unwrap()
        })
        .collect();
    let views: Vec<_> = gradients.iter().map(|gradient| gradient.view()).collect();
    (losses.iter().copied().collect(), ndarray::stack(Axis(0), &views).unwrap())
}

fn check<L: Loss + Component>(loss: &L) {
    let (x, y) = (batch(), targets().into_dyn());
    let all = called(loss, 0, &x, &y);
    let behind = trained(loss, &x, &y);
    assert_eq!(all, behind, "{loss:?}: as a module, and behind the model");
    for model in 0..MODELS {
        let alone = called(
            loss,
            model as u64,
            &x.slice(s![model..=model, .., ..]).to_owned(),
            &y.slice_axis(Axis(0), (model..model + 1).into()).to_owned(),
        );
        assert_eq!(alone.0[0].to_bits(), all.0[model].to_bits(), "{loss:?}");
        assert_eq!(alone.1.index_axis(Axis(0), 0), all.1.index_axis(Axis(0), model), "{loss:?}");
    }
}

#[test]
fn a_loss_is_one_formula_as_a_module_and_behind_a_model_and_the_same_alone() {
    check(&L1Loss::default());
    check(&MSELoss { reduction: Reduction::Sum });
    check(&HuberLoss { delta: 0.4, ..HuberLoss::default() });
    check(&SmoothL1Loss { beta: 0.4, ..SmoothL1Loss::default() });
    check(&CrossEntropyLoss {
        label_smoothing: 0.1,
        weight: Some(vec![1.0, 2.0, 0.5, 1.5]),
        ..CrossEntropyLoss::default()
    });
    check(&BCEWithLogitsLoss {
        pos_weight: Some(array![1.0, 2.0, 3.0, 4.0].into_dyn()),
        weight: Some(array![[0.5]].into_dyn()),
        ..BCEWithLogitsLoss::default()
    });
    check(&KLDivLoss { reduction: KLDivReduction::BatchMean, log_target: false });
    check(&SoftMarginLoss::default());
    check(&HingeEmbeddingLoss { margin: 0.3, ..HingeEmbeddingLoss::default() });
    check(&MultiLabelSoftMarginLoss::default());
    check(&PoissonNLLLoss { full: true, ..PoissonNLLLoss::default() });
}

#[test]
fn a_loss_of_classes_names_the_target_that_is_none_before_it_trains() {
    let mut world = World::new();
    let net = Sequential::new().push(Linear::new(3, 4)).push(LogSoftmax { dim: -1 });
    let population = world.spawn_population(&net, 2, Seed(0)).unwrap().id();
    world.population_mut(population).unwrap().insert(SGD::default()).unwrap();
    let x = Array3::<f32>::zeros((2, 2, 3));
    let loss = NLLLoss { weight: Some(vec![1.0; 4]), ..NLLLoss::default() };
    let wrong = array![[0_i64, 1], [-100, 4]];
    let error =
        world.population_mut(population).unwrap().train_step(&x, &wrong, &loss).unwrap_err();
    assert_eq!(error.to_string(), "Target 4 is out of bounds (model 1, item 1: expected 0 to 3)");
    let right = array![[0_i64, 1], [-100, 3]];
    let losses = world.population_mut(population).unwrap().train_step(&x, &right, &loss).unwrap();
    assert!(losses.iter().all(|loss: &f32| loss.is_finite()));
}

#[test]
fn weights_of_a_loss_are_buffers_that_each_model_has_of_its_own() {
    let loss = MultiMarginLoss { weight: Some(vec![1.0, 2.0]), ..MultiMarginLoss::default() };
    let mut world = World::new();
    let population = world.spawn_population(&loss, 2, Seed(0)).unwrap().id();
    assert_eq!(
        world.population_mut(population).unwrap().stack::<f32>("weight").unwrap(),
        array![[1.0, 2.0], [1.0, 2.0]].into_dyn()
    );
    let second = world.population(population).unwrap().models()[1];
    world.module_mut(second).unwrap().set_parameter("weight", array![3.0_f32, 4.0].view()).unwrap();
    let (x, y) = (array![[0.5_f32, 0.5], [0.5, 0.5]].into_dyn(), array![1_i64, 1].into_dyn());
    let inputs = Arguments::each([AnyInput::from(&x), AnyInput::from(&y)]);
    let losses = world.population_mut(population).unwrap().forward_with::<f32>(inputs).unwrap();
    assert_eq!(*losses.leaves()[0], array![1.0, 2.0].into_dyn());
}

#[test]
fn errors_are_pythons_and_torchs() {
    let mut world = World::new();
    let population = world.spawn_population(&BCELoss::default(), 1, Seed(0)).unwrap().id();
    let x = Array2::<f32>::zeros((1, 3));
    let mut error = |inputs: Arguments<AnyInput<'_>>| {
        world
            .population_mut(population)
            .unwrap()
            .forward_with::<f32>(inputs)
            .unwrap_err()
            .to_string()
    };
    let one = error(Arguments::each([AnyInput::from(&x)]));
    assert_eq!(one, "BCELoss: BCELoss.forward() missing 1 required positional argument: 'target'");
    let y = Array2::<f32>::zeros((1, 2));
    let sizes = error(Arguments::each([AnyInput::from(&x), AnyInput::from(&y)]));
    assert_eq!(
        sizes,
        "BCELoss: Using a target size (torch.Size([2])) that is different to the input size \
         (torch.Size([3])) is deprecated. Please ensure they have the same size."
    );
}

/// Makes whole numbers of floats.
#[derive(Component, Clone, Copy, Debug, PartialEq)]
#[component(immutable)]
struct Index;

impl Module for Index {
    fn forward(&self, _: &Call<'_>, x: Var) -> Var {
        x.to(Dtype::I64)
    }
}

#[test]
fn rows_that_are_too_long_are_shortened_for_good_before_they_are_updated() {
    for (rate, bag) in [(0.0, false), (0.1, false), (0.1, true)] {
        let mut world = World::new();
        let table = Embedding { max_norm: Some(1.0), ..Embedding::new(3, 2) };
        let bags =
            EmbeddingBag { max_norm: Some(1.0), mode: BagMode::Sum, ..EmbeddingBag::new(3, 2) };
        let net = Sequential::new().push(Index);
        let net = if bag { net.push(bags) } else { net.push(table) };
        let population = world.spawn_population(&net, 1, Seed(0)).unwrap().id();
        let root = world.population(population).unwrap().models()[0];
        let rows = array![[3.0_f32, 4.0], [0.3, 0.4], [6.0, 8.0]];
        world.module_mut(root).unwrap().set_parameter("1.weight", rows.view()).unwrap();
        world
            .population_mut(population)
            .unwrap()
            .insert(SGD { lr: rate, ..SGD::default() })
            .unwrap();
        // The gradient of the row that is named is that of Σ (y - 0)².
        let (index, target) = (array![[[0.0_f32]]], Array3::<f32>::zeros((1, 1, 2)).into_dyn());
        let target = if bag { target } else { target.insert_axis(Axis(1)) };
        let loss = MSELoss { reduction: Reduction::Sum };
        world.population_mut(population).unwrap().train_step(&index, &target, &loss).unwrap();
        let weight = world.module_mut(root).unwrap().parameter::<f32>("1.weight").unwrap();
        let factor = 1.0 - 2.0 * rate as f32;
        let expected = array![[0.6 * factor, 0.8 * factor], [0.3, 0.4], [6.0, 8.0]].into_dyn();
        assert!((&weight - &expected).iter().all(|x| x.abs() < 1e-6), "{weight} {expected}");
    }
}

/// A network that reads what an adaptive softmax predicts.
#[derive(Component, Clone, Debug, PartialEq)]
#[component(immutable)]
struct Predicts(AdaptiveLogSoftmaxWithLoss);

impl Module for Predicts {
    fn declare(&self, declare: &mut Declare) {
        declare.child("softmax", self.0.clone());
    }

    fn forward(&self, call: &Call<'_>, x: Var) -> Var {
        let log_prob = self.0.log_prob(call, "softmax", &x);
        let best =
            self.0.predict(call, "softmax", &x).one_hot(1, self.0.n_classes, None, x.dtype());
        // The probability of the class that is predicted, and the sum of all.
        let picked = best.where_(&log_prob, &(&log_prob * 0.0)).sum(&[1], false);
        picked - log_prob.amax(&[1], false) + log_prob.exp().sum(&[1], false)
    }
}

#[test]
fn an_adaptive_softmax_predicts_its_most_likely_class() {
    let softmax = AdaptiveLogSoftmaxWithLoss {
        div_value: 2.0,
        ..AdaptiveLogSoftmaxWithLoss::new(4, 9, [3, 6])
    };
    let mut world = World::new();
    let population = world.spawn_population(&Predicts(softmax.clone()), 2, Seed(3)).unwrap().id();
    let x = Array3::from_shape_fn((2, 6, 4), |(m, i, j)| {
        ((m * 5 + i * 7 + j * 3) % 13) as f32 / 3.0 - 2.0
    });
    let y = world.population_mut(population).unwrap().forward(&x).unwrap();
    assert!(y.iter().all(|y: &f32| (y - 1.0).abs() < 1e-5), "{y}");
    let printed = repr(&softmax);
    assert!(
        printed.contains("(head): Linear(in_features=4, out_features=5, bias=False)"),
        "{printed}"
    );
}

/// The loss that an adaptive softmax gives.
#[derive(Clone, Debug, PartialEq)]
struct Given;

impl Loss for Given {
    fn forward_with(&self, call: &LossCall<'_>, result: Tree, _target: &Var) -> Var {
        let [_, loss] = result.leaves()[..] else { return call.trace.fail("expected two values") };
        loss.clone()
    }
}

#[test]
fn an_adaptive_softmax_trains_alike_watched_or_not() {
    let softmax = AdaptiveLogSoftmaxWithLoss {
        div_value: 2.0,
        ..AdaptiveLogSoftmaxWithLoss::new(4, 9, [3, 6])
    };
    let train = |is_watched: bool| {
        let mut world = World::new();
        let population = world.spawn_population(&softmax, 2, Seed(3)).unwrap().id();
        world.population_mut(population).unwrap().insert(Adam::default()).unwrap();
        if is_watched {
            world
                .population_mut(population)
                .unwrap()
                .register_forward_hook(|_, _, _| Ok(None))
                .unwrap();
        }
        let x = Array3::from_shape_fn((2, 2, 4), |(m, i, j)| (m * 5 + i * 7 + j * 3) as f32 / 9.0);
        // The last classes are in the first minibatch alone.
        for classes in [array![[0_i64, 7], [8, 4]], array![[0, 1], [2, 4]]] {
            let arguments = Arguments::each([AnyInput::from(&x), AnyInput::from(&classes)]);
            let unused = Array2::<f32>::zeros((2, 1));
            world
                .population_mut(population)
                .unwrap()
                .train_step_with::<f32, _>(arguments, &unused, &Given)
                .unwrap();
        }
        ["head.weight", "tail.0.1.weight", "tail.1.0.weight", "tail.1.1.weight"]
            .map(|name| world.population_mut(population).unwrap().stack::<f32>(name).unwrap())
    };
    assert_eq!(train(true), train(false));
}

#[test]
fn a_linear_cross_entropy_loss_is_a_linear_layer_and_a_cross_entropy() {
    let weight = vec![1.0, 2.0, 0.5];
    let loss = LinearCrossEntropyLoss {
        out_features: vec![2],
        bias: true,
        weight: Some(weight.clone()),
        label_smoothing: 0.2,
        ..LinearCrossEntropyLoss::new(4, 3)
    };
    let mut world = World::new();
    let population = world.spawn_population(&loss, 2, Seed(3)).unwrap().id();
    let second = world.population(population).unwrap().models()[1];
    let keys: Vec<_> =
        world.module_mut(second).unwrap().state_dict().unwrap().keys().map(str::to_owned).collect();
    assert_eq!(keys, ["weight", "linear.weight", "linear.bias"]);
    let x =
        Array3::from_shape_fn((2, 5, 4), |(m, i, j)| ((m * 5 + i * 7 + j * 3) % 13) as f32 / 6.0);
    let y = Array3::from_shape_fn((2, 5, 2), |(m, i, j)| ((m + i + j) % 3) as i64);
    let arguments = Arguments::each([AnyInput::from(&x), AnyInput::from(&y)]);
    let found = world.population_mut(population).unwrap().forward_with::<f32>(arguments).unwrap();
    let found = found.leaves()[0][[1]];
    // The same with two modules, of the second model.
    let layer = Linear::new(4, 6);
    let plain = world.spawn_population(&layer, 1, Seed(0)).unwrap().id();
    let root = world.population(plain).unwrap().models()[0];
    for name in ["weight", "bias"] {
        let numbers =
            world.module_mut(second).unwrap().parameter::<f32>(&format!("linear.{name}")).unwrap();
        world.module_mut(root).unwrap().set_parameter(name, numbers.view()).unwrap();
    }
    let x = x.slice(s![1..2, .., ..]).to_owned();
    let logits: ArrayD<f32> = world.population_mut(plain).unwrap().forward(&x).unwrap();
    let logits = logits.into_shape_with_order(vec![1, 5, 3, 2]).unwrap();
    let entropy = CrossEntropyLoss {
        weight: Some(weight),
        label_smoothing: 0.2,
        ..CrossEntropyLoss::default()
    };
    let entropies = world.spawn_population(&entropy, 1, Seed(0)).unwrap().id();
    let y = y.slice(s![1..2, .., ..]).to_owned();
    let arguments = Arguments::each([AnyInput::from(&logits), AnyInput::from(&y)]);
    let expected = world.population_mut(entropies).unwrap().forward_with::<f32>(arguments).unwrap();
    assert_eq!(found.to_bits(), expected.leaves()[0][[0]].to_bits());
}

#[test]
fn losses_are_printed_as_torch_does() {
    let printed = [
        (repr(&CrossEntropyLoss::default()), "CrossEntropyLoss()"),
        (repr(&NLLLoss2d::default()), "NLLLoss2d()"),
        (repr(&CTCLoss::default()), "CTCLoss()"),
        (
            repr(&LinearCrossEntropyLoss {
                out_features: vec![2],
                ..LinearCrossEntropyLoss::new(3, 5)
            }),
            "LinearCrossEntropyLoss(\n  in_features=3, num_classes=5, out_features=(2,), bias=False, \
             reduction=mean, ignore_index=None, label_smoothing=0.0, options=None\n  (linear): \
             Linear(in_features=3, out_features=10, bias=False)\n)",
        ),
        (repr(&TripletMarginLoss::default()), "TripletMarginLoss()"),
        (
            repr(&TripletMarginWithDistanceLoss::default()),
            "TripletMarginWithDistanceLoss(\n  (distance_function): PairwiseDistance()\n)",
        ),
        (repr(&CosineSimilarity::default()), "CosineSimilarity()"),
        (
            repr(&Embedding { max_norm: Some(1.0), norm_type: 3.0, ..Embedding::new(4, 2) }),
            "Embedding(4, 2, max_norm=1.0, norm_type=3.0)",
        ),
        (
            repr(&EmbeddingBag { padding_idx: Some(-1), ..EmbeddingBag::new(4, 2) }),
            "EmbeddingBag(4, 2, mode='mean', padding_idx=3)",
        ),
    ];
    for (printed, expected) in printed {
        assert_eq!(printed, expected);
    }
}
