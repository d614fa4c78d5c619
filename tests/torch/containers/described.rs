//! Containers of modules and of parameters: what is described before spawning lives, learns and is saved
//! under torch's names.

use ndarray::{Array1, Array3, ArrayD, Axis};
use neurarch::prelude::*;

/// `y = heads.right(Σ scales[i] · layers[i](x)) + gains.shift`, by the names of its children alone.
#[derive(Component, Clone, Debug, PartialEq)]
struct Net {
    layers: ModuleList,
    heads: ModuleDict,
    scales: ParameterList,
    gains: ParameterDict,
}

impl Module for Net {
    fn declare(&self, declare: &mut Declare) {
        declare.child("layers", self.layers.clone());
        declare.child("heads", self.heads.clone());
        declare.child("scales", self.scales.clone());
        declare.child("gains", self.gains.clone());
    }

    fn forward(&self, call: &Call<'_>, x: Var) -> Var {
        let layers = call.children_of("layers").into_iter().enumerate();
        let scaled = layers.map(|(number, layer)| {
            call.child(&layer, &x) * call.parameter(&format!("scales.{number}"))
        });
        let sum = scaled.reduce(|sum, y| sum + y).unwrap_or(x);
        call.child("heads.right", &sum) + call.parameter("gains.shift")
    }
}

fn net() -> Net {
    let layers = ModuleList::from_iter((0..3).map(|_| Linear::new(2, 4)));
    let heads = [("z", Tanh.into_module()), ("right", Linear::new(4, 3).into_module())];
    let scales = [1.0, 2.0, 3.0].map(|value| Parameter::full([4], value));
    let gains = [("shift", Parameter::randn([3])), ("a", Parameter::rand([2, 2]))];
    Net {
        layers,
        heads: ModuleDict::from_named(heads).unwrap(),
        scales: scales.into(),
        gains: ParameterDict::from_named(gains).unwrap(),
    }
}

fn spawn() -> (World, Entity) {
    let mut world = World::new();
    let population = world.spawn_population(&net(), 3, Seed(5)).unwrap().id();
    (world, population)
}

fn parameter(world: &mut World, root: Entity, name: &str) -> ArrayD<f32> {
    world.module_mut(root).unwrap().parameter::<f32>(name).unwrap().to_owned()
}

/// torch: `list(Net().state_dict())`.
const KEYS: [&str; 13] = [
    "layers.0.weight",
    "layers.0.bias",
    "layers.1.weight",
    "layers.1.bias",
    "layers.2.weight",
    "layers.2.bias",
    "heads.right.weight",
    "heads.right.bias",
    "scales.0",
    "scales.1",
    "scales.2",
    "gains.shift",
    "gains.a",
];

#[test]
fn entries_have_torchs_names() {
    let (mut world, population) = spawn();
    let root = world.population(population).unwrap().models()[0];
    assert_eq!(world.module_mut(root).unwrap().parameter_names().unwrap(), KEYS);
    let state = world.module_mut(root).unwrap().state_dict().unwrap();
    assert_eq!(state.iter().map(|tensor| tensor.name.as_str()).collect::<Vec<_>>(), KEYS);
}

#[test]
fn parameters_start_with_the_numbers_they_were_given() {
    let (mut world, population) = spawn();
    let models = world.population(population).unwrap().models().to_vec();
    let shifts = models.iter().map(|&root| parameter(&mut world, root, "gains.shift"));
    let shifts: Vec<_> = shifts.collect();
    assert!(shifts[0] != shifts[1] && shifts[1] != shifts[2], "each draws its own");
    for &root in &models {
        let twos = ArrayD::from_elem(vec![4], 2.0);
        assert_eq!(parameter(&mut world, root, "scales.1"), twos);
        let uniform = parameter(&mut world, root, "gains.a");
        assert!(uniform.iter().all(|x| (0.0..1.0).contains(x)) && uniform.shape() == [2, 2]);
    }
}

#[test]
fn lists_of_other_first_numbers_do_not_share_them() {
    let mut world = World::new();
    for value in [1.0, 2.0] {
        let scales = ParameterList::from([Parameter::full([2], value)]);
        let list = Net { scales, layers: ModuleList::new(), ..net() };
        let population = world.spawn_population(&list, 1, Seed(0)).unwrap().id();
        let root = world.population(population).unwrap().models()[0];
        let expected = ArrayD::from_elem(vec![2], value as f32);
        assert_eq!(parameter(&mut world, root, "scales.0"), expected);
    }
}

#[test]
fn forward_reaches_what_containers_hold() {
    let (mut world, population) = spawn();
    let x = Array3::from_shape_fn((3, 5, 2), |(model, item, i)| {
        (model * 7 + item * 2 + i) as f32 / 10.0 - 1.0
    });
    let y = world.population_mut(population).unwrap().forward(&x).unwrap();
    let models = world.population(population).unwrap().models().to_vec();
    for (model, root) in models.into_iter().enumerate() {
        let mut of = |name: &str| parameter(&mut world, root, name);
        let matrix = |x: ArrayD<f32>| x.into_dimensionality::<ndarray::Ix2>().unwrap();
        let x = x.index_axis(Axis(0), model);
        let mut sum = ndarray::Array2::<f32>::zeros((5, 4));
        for layer in 0..3 {
            let weight = matrix(of(&format!("layers.{layer}.weight")));
            let y = x.dot(&weight.t()) + of(&format!("layers.{layer}.bias"));
            sum = sum
                + matrix(y)
                    * of(&format!("scales.{layer}")).into_dimensionality::<ndarray::Ix1>().unwrap();
        }
        let head = sum.dot(&matrix(of("heads.right.weight")).t());
        let expected = head + of("heads.right.bias") + of("gains.shift");
        let given = y.index_axis(Axis(0), model);
        let error = (&given - &expected).iter().fold(0.0_f32, |most, x| most.max(x.abs()));
        assert!(error < 1e-5, "model {model} is off by {error}");
    }
}

#[test]
fn parameters_of_containers_learn() {
    let (mut world, population) = spawn();
    world.population_mut(population).unwrap().insert(Adam { lr: 0.01, ..Adam::default() }).unwrap();
    let root = world.population(population).unwrap().models()[2];
    let before = KEYS.map(|name| parameter(&mut world, root, name));
    let (x, y) = (Array3::<f32>::ones((3, 4, 2)), Array3::<f32>::zeros((3, 4, 3)));
    let loss = MSELoss::default();
    let first: Array1<f32> =
        world.population_mut(population).unwrap().train_step(&x, &y, &loss).unwrap();
    for _ in 0..50 {
        world.population_mut(population).unwrap().train_step(&x, &y, &loss).unwrap();
    }
    let last: Array1<f32> =
        world.population_mut(population).unwrap().train_step(&x, &y, &loss).unwrap();
    assert!(last.iter().zip(&first).all(|(last, first)| last < first), "{first} to {last}");
    for (name, before) in KEYS.iter().zip(before) {
        // Nothing is computed with `gains.a`.
        assert_eq!(parameter(&mut world, root, name) == before, *name == "gains.a", "{name}");
    }
}

#[test]
fn more_models_of_containers_can_be_spawned() {
    let (mut world, population) = spawn();
    world.population_mut(population).unwrap().spawn_models(2).unwrap();
    let x = Array3::<f32>::ones((5, 1, 2));
    assert_eq!(world.population_mut(population).unwrap().forward(&x).unwrap().shape(), [5, 1, 3]);
    let last = world.population(population).unwrap().models()[4];
    assert_eq!(world.module_mut(last).unwrap().parameter_names().unwrap(), KEYS);
}

/// Calls one name, with `x` as its input.
#[derive(Component, Clone, Debug, PartialEq)]
struct Caller {
    net: Net,
    called: &'static str,
}

impl Module for Caller {
    fn declare(&self, declare: &mut Declare) {
        declare.child("net", self.net.clone());
    }

    fn forward(&self, call: &Call<'_>, x: Var) -> Var {
        match self.called.split_once(' ') {
            Some(("parameter", name)) => call.parameter(name),
            Some(("children", path)) => {
                call.children_of(path).iter().fold(x, |x, child| call.child(child, &x))
            }
            _ => call.child(self.called, &x),
        }
    }
}

#[test]
fn what_cannot_be_called_is_an_error() {
    let no_forward = |name: &str, kind: &str| {
        format!("{name} ({kind}): Module [{kind}] is missing the required \"forward\" function")
    };
    let cases = [
        ("net.layers", no_forward("net.layers", "ModuleList")),
        ("net.heads", no_forward("net.heads", "ModuleDict")),
        ("net.scales", "net.scales (ParameterList): ParameterList should not be called.".into()),
        ("net.gains", "net.gains (ParameterDict): ParameterDict should not be called.".into()),
        ("", "Caller: 'Caller' object has no attribute ''".into()),
        ("net.layers.", "Caller: 'ModuleList' object has no attribute ''".into()),
        ("net.layers.3", "Caller: 'ModuleList' object has no attribute '3'".into()),
        ("net.other.0", "Caller: 'Net' object has no attribute 'other'".into()),
        ("children net.other", "Caller: 'Net' object has no attribute 'other'".into()),
        ("parameter net.scales.3", "Caller: 'ParameterList' object has no attribute '3'".into()),
        ("parameter nets.scales.3", "Caller: 'Caller' object has no attribute 'nets'".into()),
        ("parameter ", "Caller: 'Caller' object has no attribute ''".into()),
        ("parameter weight", "Caller: 'Caller' object has no attribute 'weight'".into()),
    ];
    for (called, words) in cases {
        let mut world = World::new();
        let caller = Caller { net: net(), called };
        let population = world.spawn_population(&caller, 1, Seed(0)).unwrap().id();
        let error = world
            .population_mut(population)
            .unwrap()
            .forward(&Array3::<f32>::ones((1, 1, 2)))
            .unwrap_err();
        assert_eq!(error.to_string(), words, "{called}");
    }
}

#[test]
fn names_that_torch_would_not_take_are_not_spawned() {
    let cases = [
        (ModuleDict::new().push_named("keys", Tanh), "heads: attribute 'keys' already exists"),
        (
            ModuleDict::new().push_named("a.b", Tanh),
            "heads: module name can't contain \".\", got: a.b",
        ),
    ];
    for (heads, words) in cases {
        let mut world = World::new();
        let net = Net { heads, ..net() };
        let error = world.spawn_population(&net, 1, Seed(0)).unwrap_err();
        assert_eq!(error.to_string(), words);
    }
}

#[test]
fn parameters_are_floating_numbers() {
    for dtype in [Dtype::I64, Dtype::Bool] {
        let scales = ParameterList::from([Parameter::ones([2]).with_dtype(dtype)]);
        let mut world = World::new();
        let net = Net { scales, ..net() };
        let error = world.spawn_population(&net, 1, Seed(0)).unwrap_err();
        let words = "Only Tensors of floating point and complex dtype can require gradients";
        assert_eq!(error.to_string(), format!("scales.0: {words}"));
    }
}

#[test]
fn a_parameter_may_have_a_dtype_of_its_own() {
    let gains =
        [("shift", Parameter::zeros([3])), ("a", Parameter::ones([2]).with_dtype(Dtype::F64))];
    let net = Net { gains: ParameterDict::from_named(gains).unwrap(), ..net() };
    let mut world = World::new();
    let population = world.spawn_population(&net, 2, Seed(0)).unwrap().id();
    world.population_mut(population).unwrap().insert(Adam::default()).unwrap();
    let root = world.population(population).unwrap().models()[1];
    let ones = ArrayD::from_elem(vec![2], 1.0_f64);
    assert_eq!(world.module_mut(root).unwrap().parameter::<f64>("gains.a").unwrap(), ones);
    let (x, y) = (Array3::<f32>::ones((2, 4, 2)), Array3::<f32>::zeros((2, 4, 3)));
    world.population_mut(population).unwrap().train_step(&x, &y, &MSELoss::default()).unwrap();
    assert_eq!(world.module_mut(root).unwrap().parameter::<f64>("gains.a").unwrap(), ones);
}

#[test]
fn descriptions_print_as_in_torch() {
    let net = Net { scales: net().scales.slice(..1).unwrap(), ..net() };
    assert_eq!(
        repr(&net),
        "\
Net(
  (layers): ModuleList(
    (0-2): 3 x Linear(in_features=2, out_features=4, bias=True)
  )
  (heads): ModuleDict(
    (z): Tanh()
    (right): Linear(in_features=4, out_features=3, bias=True)
  )
  (scales): ParameterList(  (0): Parameter containing: [torch.float32 of size 4])
  (gains): ParameterDict(
      (shift): Parameter containing: [torch.FloatTensor of size 3]
      (a): Parameter containing: [torch.FloatTensor of size 2x2]
  )
)"
    );
}
