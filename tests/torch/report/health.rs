//! Health of gradients: the recipe `check_gradient_health`, by torch's numbers.

use ndarray::{Array, Array1, Array2, Array3, ArrayD, Axis, array};
use neurarch::functions::step::set_gradient;
use neurarch::prelude::*;
use neurarch::report::health::GradientHealth;

fn net() -> Sequential {
    Sequential::new().push(Linear::new(2, 3)).push(Tanh).push(Linear::new(3, 1))
}

/// Makes models whose parameters are `torch.linspace(-1, 1, numel)`, and one backward pass of theirs.
fn trained(world: &mut World, models: usize) -> Entity {
    let mut brains = world.spawn_population(&net(), models, Seed(7)).unwrap();
    for (name, shape) in [("0.weight", vec![3, 2]), ("0.bias", vec![3]), ("2.weight", vec![1, 3])] {
        let numel: usize = shape.iter().product();
        let one = Array1::linspace(-1.0_f32, 1.0, numel).into_shape_with_order(shape).unwrap();
        let all = one.insert_axis(Axis(0));
        let all = ndarray::concatenate(Axis(0), &vec![all.view(); models]).unwrap();
        brains.unstack(name, all.view()).unwrap();
    }
    brains.unstack("2.bias", Array2::from_elem((models, 1), -1.0_f32).view()).unwrap();
    let x = array![[1.0_f32, 2.0], [3.0, -1.0], [0.5, 0.25]];
    brains.forward(Input::shared(x.view())).unwrap();
    let y = array![[1.0_f32], [0.0], [2.0]];
    brains.loss::<f32, f32>(Input::shared(y.view()), &MSELoss::default()).unwrap();
    brains.backward().unwrap();
    brains.id()
}

fn close(got: f64, want: f64) {
    assert!((got - want).abs() < 1e-6, "{got}, not {want}");
}

/// ```text
/// net = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1))
/// for p in net.parameters(): p.data = torch.linspace(-1, 1, p.numel()).reshape(p.shape)
/// x, y = torch.tensor([[1., 2.], [3., -1.], [.5, .25]]), torch.tensor([[1.], [0.], [2.]])
/// nn.MSELoss()(net(x), y).backward()
/// for p in net.parameters(): p.grad.norm(2), p.grad.abs().mean(), p.grad.abs().max()
/// ```
#[test]
fn norms_are_torchs() {
    let mut world = World::new();
    let brains = trained(&mut world, 2);
    let brains = world.population(brains).unwrap();
    let health = brains.model(1).unwrap().check_gradient_health().unwrap();
    let torch = [
        ("0.weight", 0.17228731513023376, 0.050484638661146164, 0.13197581470012665),
        ("0.bias", 0.12035917490720749, 0.05506756901741028, 0.10309970378875732),
        ("2.weight", 0.4068397879600525, 0.19460977613925934, 0.38024407625198364),
        ("2.bias", 0.14505714178085327, 0.14505714178085327, 0.14505714178085327),
    ];
    assert_eq!(health.parameters.len(), torch.len());
    for (of, (name, norm, mean, max)) in health.parameters.iter().zip(torch) {
        assert_eq!(of.name, name);
        close(of.norm, norm);
        close(of.mean, mean);
        close(of.max, max);
    }
    close(health.total_norm, 0.480343041365376);
    close(health.average_norm, 0.120085760341344);
    assert!(health.is_healthy() && health.messages().is_empty());
    assert!(health.to_string().ends_with(
        "2.bias    norm 0.145057\nTotal gradient norm: 0.480343\nAverage gradient norm: 0.120086"
    ));
    let layer = world.module(brains.model(1).unwrap().named_modules().unwrap()[3].1).unwrap();
    let below = layer.check_gradient_health().unwrap();
    let names: Vec<_> = below.parameters.iter().map(|of| of.name.as_str()).collect();
    assert_eq!(names, ["weight", "bias"]);
}

fn set(world: &mut World, model: usize, name: &str, numbers: ArrayD<f32>) {
    let population = world.query::<&neurarch::components::population::Population>();
    let mut population = population;
    let root = population.single(world).unwrap().models()[model];
    set_gradient(world, root, name, Some(numbers.view())).unwrap();
}

#[test]
fn the_worst_models_come_first() {
    let mut world = World::new();
    let brains = trained(&mut world, 6);
    let bias = |numbers: [f32; 3]| Array::from_vec(numbers.to_vec()).into_dyn();
    set(&mut world, 1, "0.bias", bias([1e-8, -9e-8, 0.0]));
    set(&mut world, 2, "0.bias", bias([f32::NEG_INFINITY, 0.0, 0.0]));
    set(&mut world, 3, "0.bias", bias([f32::NAN, f32::INFINITY, 0.0]));
    set(&mut world, 4, "0.bias", bias([30.0, 40.0, 0.0]));
    let health = world.population(brains).unwrap().check_gradient_health().unwrap();
    let order: Vec<_> = health.models.iter().map(|model| model.index).collect();
    assert_eq!(order, [3, 2, 1, 4, 0, 5]);
    let messages = |place: usize| health.models[place].health.messages();
    assert_eq!(messages(0), ["NaN gradient found in 0.bias", "Inf gradient found in 0.bias"]);
    assert_eq!(messages(1), ["Inf gradient found in 0.bias"]);
    assert_eq!(messages(2), ["Very small gradients in 0.bias"]);
    assert!(messages(3).is_empty());
    let norms = health.column(|of| of.total_norm);
    assert!(norms[2].is_infinite() && norms[3].is_nan() && (norms[4] - 50.0).abs() < 0.01);
    assert_eq!(norms[0], norms[5]);
    assert_eq!(
        health.to_string(),
        "\
3 of 6 models have unhealthy gradients
model 3: NaN gradient found in 0.bias, Inf gradient found in 0.bias
model 2: Inf gradient found in 0.bias
model 1: Very small gradients in 0.bias"
    );
    let json = serde_json::to_value(&health).unwrap();
    assert_eq!(json["models"][2]["health"]["parameters"][1]["is_very_small"], true);
}

#[test]
fn parameters_without_gradients_are_left_out() {
    let mut world = World::new();
    let mut brains = world.spawn_population(&net(), 2, Seed(7)).unwrap();
    let id = brains.id();
    let none = brains.as_ref().unwrap().model(0).unwrap().check_gradient_health().unwrap();
    assert_eq!(
        (none.parameters.len(), none.total_norm, none.average_norm, none.is_healthy()),
        (0, 0.0, 0.0, true)
    );
    brains.at("0").set_requires_grad("weight", false).unwrap();
    brains.share_parameter("2.weight").unwrap();
    brains.forward(&Array3::<f32>::ones((2, 4, 2))).unwrap();
    brains.loss::<f32, f32>(&Array3::zeros((2, 4, 1)), &MSELoss::default()).unwrap();
    brains.backward().unwrap();
    let health = world.population(id).unwrap().model(0).unwrap().check_gradient_health().unwrap();
    let names = |of: &GradientHealth| -> Vec<String> {
        of.parameters.iter().map(|of| of.name.clone()).collect()
    };
    // What the population shares has its gradient, too.
    assert_eq!(names(&health), ["0.bias", "2.weight", "2.bias"]);
}

#[test]
fn other_precisions_are_measured() {
    for dtype in [Dtype::F64, Dtype::F16, Dtype::BF16] {
        let mut world = World::new();
        let settings = PopulationSettings { dtype, models: 1, ..PopulationSettings::default() };
        let brains = world.spawn_population_with(&Linear::new(1, 1), settings);
        let root = brains.unwrap().models().unwrap()[0];
        let one = |x: f64| Array::from_elem((1, 1), x).into_dyn();
        for (x, message) in [
            (f64::NAN, "NaN gradient found in weight"),
            (f64::INFINITY, "Inf gradient found in weight"),
        ] {
            let set = match dtype {
                Dtype::F64 => set_gradient(&mut world, root, "weight", Some(one(x).view())),
                Dtype::F16 => {
                    let half = one(x).mapv(neurarch::kernels::ir::dtype::f16::from_f64);
                    set_gradient(&mut world, root, "weight", Some(half.view()))
                }
                _ => {
                    let half = one(x).mapv(neurarch::kernels::ir::dtype::bf16::from_f64);
                    set_gradient(&mut world, root, "weight", Some(half.view()))
                }
            };
            set.unwrap();
            let health = world.module(root).unwrap().check_gradient_health().unwrap();
            assert_eq!(health.messages(), [message]);
        }
    }
}

#[test]
fn models_that_are_not_settled_are_an_error() {
    let mut world = World::new();
    let brains = trained(&mut world, 2);
    let root = world.population(brains).unwrap().models()[1];
    world.entity_mut(root).insert(Linear::new(2, 5));
    let error = world.population(brains).unwrap().check_gradient_health().unwrap_err();
    assert!(error.to_string().contains("model 1"), "{error}");
    let stone = world.spawn_empty().id();
    assert!(world.module(stone).unwrap().check_gradient_health().is_err());
}
