//! Modules whose children, parameters and slots are fields: what is derived computes what is written by hand.

use ndarray::{Array2, Array3, ArrayD, Axis, array};
use neurarch::components::module::DynModule;
use neurarch::components::optimizer::{Optimizer, Update};
use neurarch::components::population::Population;
use neurarch::kernels::ops::update::sgd::{SgdRates, SgdSettings};
use neurarch::prelude::*;

const MODELS: usize = 3;

#[derive(Module, Component, Clone)]
struct Residual {
    norm: LayerNorm,
    fc1: Linear,
    fc2: Linear,
}

impl Residual {
    fn new(features: usize) -> Self {
        Residual {
            norm: LayerNorm::new([features]),
            fc1: Linear::new(features, 2 * features),
            fc2: Linear::new(2 * features, features),
        }
    }
}

impl Forward for Residual {
    fn forward(&self, call: &Call<'_>, x: Var) -> Var {
        let h = self.fc1(call, self.norm(call, &x)).relu();
        x + self.fc2(call, h)
    }
}

/// The same without a derive.
#[derive(Component, Clone, Debug, PartialEq)]
struct ByHand {
    features: usize,
}

impl Module for ByHand {
    fn declare(&self, declare: &mut Declare) {
        declare.child("norm", LayerNorm::new([self.features]));
        declare.child("fc1", Linear::new(self.features, 2 * self.features));
        declare.child("fc2", Linear::new(2 * self.features, self.features));
    }

    fn forward(&self, call: &Call<'_>, x: Var) -> Var {
        let h = call.child("fc1", &call.child("norm", &x)).relu();
        &x + call.child("fc2", &h)
    }
}

fn batch(features: usize) -> Array3<f32> {
    let value = |(m, i, f)| ((m * 5 + i * 3 + f) % 7) as f32 / 3.0 - 1.0;
    Array3::from_shape_fn((MODELS, 6, features), value)
}

fn train(module: &impl Module, loss: &impl Loss) -> (World, Entity, Vec<f32>) {
    let mut world = World::new();
    let models = world.spawn_population(module, MODELS, Seed(2)).unwrap().id();
    world
        .population_mut(models)
        .unwrap()
        .insert_with(|i| SGD { lr: 0.01 * (1 + i) as f64, ..SGD::default() })
        .unwrap();
    let (x, y) = (batch(4), Array3::<f32>::ones((MODELS, 6, 4)));
    let losses = (0..3).flat_map(|_| {
        world.population_mut(models).unwrap().train_step(&x, &y, loss).unwrap().to_vec()
    });
    let losses = losses.collect();
    (world, models, losses)
}

#[test]
fn a_derived_block_trains_to_the_bits_of_one_by_hand() {
    let loss = MSELoss::default();
    let (mut world, models, losses) = train(&Residual::new(4), &loss);
    let (mut by_hand, others, expected) = train(&ByHand { features: 4 }, &loss);
    assert_eq!(losses, expected);
    assert_eq!(
        world.population_mut(models).unwrap().stacked_state_dict().unwrap(),
        by_hand.population_mut(others).unwrap().stacked_state_dict().unwrap()
    );
    let root = world.population(models).unwrap().models()[0];
    assert_eq!(world.module_mut(root).unwrap().class_name().unwrap(), "Residual");
}

#[test]
fn children_are_no_part_of_equality_and_a_new_child_is_called() {
    assert_eq!(Residual::new(4), Residual::new(8));
    assert_eq!(format!("{:?}", Residual::new(4)), "Residual { .. }");
    let mut world = World::new();
    let models = world.spawn_population(&Residual::new(4), MODELS, Seed(2)).unwrap().id();
    let roots = world.population(models).unwrap().models().to_vec();
    for &root in &roots {
        world.module_mut(root).unwrap().set_submodule("fc2", Dropout { p: 0.0 }, true).unwrap();
        world
            .module_mut(root)
            .unwrap()
            .set_submodule("fc1", Linear::new(4, 4).without_bias(), true)
            .unwrap();
    }
    let (x, zero) = (batch(4), Array3::<f32>::zeros((MODELS, 4, 4)));
    world.population_mut(models).unwrap().unstack("fc1.weight", zero.view()).unwrap();
    assert_eq!(world.population_mut(models).unwrap().forward(&x).unwrap(), x.into_dyn());
    assert_eq!(world.get::<Population>(models).unwrap().groups().len(), 1);
}

/// `y = x · scale + shift - mean`, which lets `mean` be.
#[derive(Module, Component, Clone)]
struct Affine {
    scale: Parameter,
    shift: Option<Parameter>,
    #[buffer]
    mean: Parameter,
    #[buffer(persistent = false)]
    seen: Parameter,
}

impl Forward for Affine {
    fn forward(&self, call: &Call<'_>, x: Var) -> Var {
        let y = x * self.scale(call) - self.mean(call) + self.seen(call);
        self.shift(call).map_or(y.clone(), |shift| y + shift)
    }

    fn uses_training(&self) -> bool {
        false
    }

    fn extra_repr(&self) -> String {
        format!("{}", self.scale.shape)
    }
}

fn affine(shift: Option<Parameter>) -> Affine {
    let (scale, mean) = (Parameter::full([2], 3.0), Parameter::ones([2]));
    Affine { scale, shift, mean, seen: Parameter::zeros([]) }
}

#[test]
fn parameters_and_buffers_are_fields() {
    let x = array![[[1.0_f32, 2.0]]];
    for (shift, names, y) in [
        (Some(Parameter::full([2], 0.5)), &["scale", "shift", "mean"][..], [2.5_f32, 5.5]),
        (None, &["scale", "mean"], [2.0, 5.0]),
    ] {
        let mut world = World::new();
        let models = world.spawn_population(&affine(shift), 1, Seed(1)).unwrap().id();
        assert_eq!(
            world.population_mut(models).unwrap().forward(&x).unwrap(),
            array![[[y[0], y[1]]]].into_dyn()
        );
        let state = world.population_mut(models).unwrap().stacked_state_dict().unwrap();
        assert_eq!(state.iter().map(|tensor| tensor.name.as_str()).collect::<Vec<_>>(), names);
        let root = world.population(models).unwrap().models()[0];
        let buffers = world.module_mut(root).unwrap().named_buffers().unwrap();
        assert_eq!(buffers.iter().map(|of| &*of.name).collect::<Vec<_>>(), ["mean", "seen"]);
    }
    assert_eq!(repr(&affine(None)), "Affine([2])");
    assert!(!Module::uses_training(&affine(None)));
    assert_ne!(affine(None), affine(Some(Parameter::zeros([2]))));
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Sign {
    Plus,
    Minus,
}

fn at_least_0(number: f64) -> f64 {
    number.max(0.0)
}

/// `y = ±(gain · fc(x) + low + high)`.
#[derive(Module, Component, Clone)]
#[component(summary_tick)]
struct Gain {
    fc: Linear,
    #[scalar(read = at_least_0)]
    gain: f64,
    #[scalar("low", "high")]
    range: (f64, f64),
    #[setting]
    sign: Sign,
}

impl Forward for Gain {
    fn forward(&self, call: &Call<'_>, x: Var) -> Var {
        let dtype = x.dtype();
        let y = self.fc(call, &x) * self.gain(call, dtype);
        let y = y + self.low(call, dtype) + self.high(call, dtype);
        if self.sign == Sign::Minus { -y } else { y }
    }
}

#[test]
fn models_that_differ_in_slots_alone_share_a_structure() {
    let module = |gain: f64, sign| Gain { fc: Linear::new(4, 2), gain, range: (gain, -0.25), sign };
    let mut world = World::new();
    let models = world.spawn_population(&module(0.0, Sign::Plus), MODELS, Seed(1)).unwrap().id();
    let roots = world.population(models).unwrap().models().to_vec();
    for (gain, &root) in [-1.0, 2.0, 4.0].into_iter().zip(&roots) {
        world.entity_mut(root).insert(module(gain, Sign::Plus));
    }
    let groups = |world: &World| world.get::<Population>(models).unwrap().groups().len();
    let y = world.population_mut(models).unwrap().forward(&batch(4)).unwrap();
    assert_eq!(groups(&world), 1);
    let weight = world.population_mut(models).unwrap().stack::<f32>("fc.weight").unwrap();
    let bias = world.population_mut(models).unwrap().stack::<f32>("fc.bias").unwrap();
    for (model, gain) in [(0, -1.0_f32), (1, 2.0), (2, 4.0)] {
        let x = batch(4).index_axis_move(Axis(0), model);
        let [weight, bias] = [&weight, &bias].map(|of| of.index_axis(Axis(0), model).to_owned());
        let weight: Array2<f32> = weight.into_dimensionality().unwrap();
        let expected = (x.dot(&weight.t()) + bias) * gain.max(0.0) + gain - 0.25;
        let found: ArrayD<f32> = y.index_axis(Axis(0), model).to_owned();
        assert!(found.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-5), "{model}");
    }
    world.entity_mut(roots[1]).insert(module(2.0, Sign::Minus));
    let negated = world.population_mut(models).unwrap().forward(&batch(4)).unwrap();
    assert_eq!(groups(&world), 2);
    assert_eq!(negated.index_axis(Axis(0), 1), -&y.index_axis(Axis(0), 1));
    assert_eq!(negated.index_axis(Axis(0), 2), y.index_axis(Axis(0), 2));
}

/// Layers in a row, perhaps a norm behind each, and two inputs.
#[derive(Module, Component, Clone)]
#[module(name = "Tower")]
struct Layers<A: Module> {
    left: Linear,
    right: Linear,
    layers: Vec<Linear>,
    more: ModuleList,
    norm: Option<LayerNorm>,
    activation: A,
    depth: usize,
}

impl<A: Module> Layers<A> {
    fn new(activation: A, norm: Option<LayerNorm>) -> Self {
        Layers {
            left: Linear::new(4, 5),
            right: Linear::new(4, 5),
            layers: vec![Linear::new(5, 5); 2],
            more: ModuleList::from([Linear::new(5, 3)]),
            norm,
            activation,
            depth: 3,
        }
    }
}

impl<A: Module> Forward for Layers<A> {
    fn forward_with(&self, call: &Call<'_>, arguments: Arguments) -> Tree {
        let Some([left, right]) = call.named_values(arguments, ["left", "right"]) else {
            return call.trace.poison().into();
        };
        let mut x = self.left(call, left) + self.right(call, right);
        for layer in self.layers(call).into_iter().chain(self.more(call)) {
            x = self.activation(call, layer(&x));
        }
        (self.norm(call, &x).unwrap_or_else(|| x.clone()), x).into()
    }

    fn extra_repr(&self) -> String {
        format!("depth={}", self.depth)
    }
}

#[test]
fn lists_options_and_several_inputs() {
    let x = batch(4);
    for norm in [None, Some(LayerNorm::new([3]))] {
        let has_norm = norm.is_some();
        let mut world = World::new();
        let models =
            world.spawn_population(&Layers::new(Tanh, norm), MODELS, Seed(1)).unwrap().id();
        let arguments =
            Arguments::each([AnyInput::from(&x)]).with("right", Tree::Leaf(AnyInput::from(&x)));
        let found = world.population_mut(models).unwrap().forward_with::<f32>(arguments).unwrap();
        let [normed, y] = found.leaves()[..] else { panic!("{found:?}") };
        assert_eq!(y.shape(), [MODELS, 6, 3]);
        assert_eq!(normed == y, !has_norm);
        let root = world.population(models).unwrap().models()[0];
        let names = world.module_mut(root).unwrap().parameter_names().unwrap();
        assert!(names.contains(&"layers.1.weight".to_owned()), "{names:?}");
        assert_eq!(names.contains(&"norm.weight".to_owned()), has_norm);
        // One layer less, in all models.
        world.population_mut(models).unwrap().at("layers").container().remove(1).unwrap();
        let arguments = Arguments::each([AnyInput::from(&x), AnyInput::from(&x)]);
        assert_ne!(
            world.population_mut(models).unwrap().forward_with::<f32>(arguments).unwrap().leaves()
                [1],
            y
        );
    }
    let printed = repr(&Layers::new(ReLU, None));
    let expected = "\
Tower(
  depth=3
  (left): Linear(in_features=4, out_features=5, bias=True)
  (right): Linear(in_features=4, out_features=5, bias=True)
  (layers): ModuleList(
    (0-1): 2 x Linear(in_features=5, out_features=5, bias=True)
  )
  (more): ModuleList(
    (0): Linear(in_features=5, out_features=3, bias=True)
  )
  (activation): ReLU()
)";
    assert_eq!(printed, expected);
}

/// Registers more than its fields.
#[derive(Module, Component, Clone)]
struct Heads {
    body: Linear,
    classes: Vec<usize>,
}

impl Forward for Heads {
    fn declare(&self, declare: &mut Declare) {
        declare.parameter("temperature", []);
        for (number, &classes) in self.classes.iter().enumerate() {
            declare.child(format!("head{number}"), Linear::new(3, classes));
        }
    }

    fn reset(&self, _: &str) -> Init {
        Init::Constant(2.0)
    }

    fn forward(&self, call: &Call<'_>, x: Var) -> Var {
        let body = self.body(call, x) * call.parameter("temperature");
        let heads = (0..self.classes.len()).map(|head| call.child(&format!("head{head}"), &body));
        Var::cat(&heads.collect::<Vec<_>>().iter().collect::<Vec<_>>(), -1)
    }
}

#[test]
fn what_is_no_field_is_declared_behind_them() {
    let mut world = World::new();
    let heads = Heads { body: Linear::new(4, 3), classes: vec![2, 4] };
    let models = world.spawn_population(&heads, MODELS, Seed(1)).unwrap().id();
    assert_eq!(
        world.population_mut(models).unwrap().forward(&batch(4)).unwrap().shape(),
        [MODELS, 6, 6]
    );
    let temperature = world.population_mut(models).unwrap().stack::<f32>("temperature").unwrap();
    assert_eq!(temperature, ndarray::Array1::from_elem(MODELS, 2.0_f32).into_dyn());
    assert_ne!(heads, Heads { classes: vec![2], ..heads.clone() });
}

/// A `forward` that is not written is torch's error.
#[derive(Module, Component, Clone)]
struct Bare {
    fc: Linear,
}

impl Forward for Bare {}

#[test]
fn without_a_forward_a_call_fails_in_torchs_words() {
    let mut world = World::new();
    let models = world.spawn_population(&Bare { fc: Linear::new(4, 4) }, 1, Seed(1)).unwrap().id();
    let error = world
        .population_mut(models)
        .unwrap()
        .forward(&Array3::<f32>::zeros((1, 2, 4)))
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("Module [Bare] is missing the required \"forward\" function"),
        "{error}"
    );
}

/// Gradient descent of one's own.
#[derive(Component, Clone, Debug, PartialEq, Scalars)]
struct Descent {
    #[scalar]
    lr: f64,
    #[scalar("dampening", "weight_decay")]
    others: (f64, f64),
    maximize: bool,
}

#[scalars]
impl Optimizer for Descent {
    fn states(&self) -> &'static [&'static str] {
        &[]
    }

    fn update(&self, at: &Update<'_>) -> Var {
        let (lr, weight_decay) = (at.scalar("lr"), at.scalar("weight_decay"));
        let rates = SgdRates { lr: &lr, weight_decay: &weight_decay };
        let settings = SgdSettings { index: at.index, nesterov: false, maximize: self.maximize };
        let after = at.parameter.sgd(at.gradient, at.steps, &rates, None, settings);
        at.trace.store(at.parameter, &after.parameter);
        after.steps
    }
}

/// The mean square, times a number of its own.
#[derive(Component, Clone, Debug, PartialEq, Scalars)]
struct Weighted {
    #[scalar]
    weight: f64,
    #[structural(ones)]
    unused: Vec<f64>,
}

fn ones(numbers: &[f64]) -> Vec<f64> {
    vec![1.0; numbers.len()]
}

#[scalars]
impl Loss for Weighted {
    fn forward(&self, call: &LossCall<'_>, x: &Var, target: &Var) -> Var {
        (x - target).square().mean(&[], false) * call.scalar("weight", x.dtype())
    }
}

#[test]
fn optimizers_and_losses_have_the_slots_of_their_fields() {
    let descent = Descent { lr: 0.1, others: (0.0, 0.5), maximize: false };
    let erased: &dyn neurarch::components::optimizer::DynOptimizer = &descent;
    assert_eq!(erased.scalar_names(), ["lr", "dampening", "weight_decay"]);
    assert_eq!(erased.scalar("weight_decay"), Some(0.5));
    assert!(erased.is_like(&Descent { lr: 0.2, others: (1.0, 1.0), ..descent.clone() }));
    assert!(!erased.is_like(&Descent { maximize: true, ..descent.clone() }));

    let loss = Weighted { weight: 2.0, unused: vec![3.0] };
    assert_eq!(Loss::structural(&loss), Weighted { weight: 0.0, unused: vec![1.0] });
    let (_, _, losses) = train(&Residual::new(4), &loss);
    let (_, _, expected) = train(&Residual::new(4), &MSELoss::default());
    assert!((0..MODELS).all(|model| losses[model] == 2.0 * expected[model]));

    let run = |own: bool| {
        let mut world = World::new();
        let models = world.spawn_population(&Residual::new(4), MODELS, Seed(2)).unwrap().id();
        match own {
            true => {
                Optimizers::register::<Descent>(&mut world);
                world.population_mut(models).unwrap().insert(descent.clone()).unwrap();
            }
            false => {
                world
                    .population_mut(models)
                    .unwrap()
                    .insert(SGD { lr: 0.1, weight_decay: 0.5, ..SGD::default() })
                    .unwrap();
            }
        }
        let y = Array3::<f32>::ones((MODELS, 6, 4));
        for _ in 0..3 {
            world
                .population_mut(models)
                .unwrap()
                .train_step(&batch(4), &y, &MSELoss::default())
                .unwrap();
        }
        world.population_mut(models).unwrap().stacked_state_dict().unwrap()
    };
    assert_eq!(run(true), run(false));
}

#[test]
fn a_derived_module_is_any_other_ones_child() {
    let net = Sequential::new().push(Residual::new(4)).push(Residual::new(4));
    let first = net.values().next().unwrap();
    assert!(first.is::<Residual>());
    assert!(DynModule::is_like(first, &Residual::new(9)));
    let mut world = World::new();
    let models = world.spawn_population(&net, MODELS, Seed(1)).unwrap().id();
    assert_eq!(
        world.population_mut(models).unwrap().forward(&batch(4)).unwrap().shape(),
        [MODELS, 6, 4]
    );
}
