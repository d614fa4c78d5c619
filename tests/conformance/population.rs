//! Every layer in a population of three with different weights equals three separate runs, bit for bit: forward,
//! gradients and what it keeps. The layers are those of the recorded cases, and the ones listed here.

use core::ops::Range;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use ndarray::{ArrayD, Axis, IxDyn, stack};
use neurarch::components::module::DynModule;
use neurarch::kernels::ir::dtype::Element;
use neurarch::prelude::*;
use neurarch::state::checkpoint;
use neurarch::state::checkpoint::Checkpoint;
use neurarch::systems::execute::step::input_gradients;

use crate::runner::case::{Case, Checked, Fields, Stop};
use crate::runner::modules::{self, Numbers};
use crate::runner::tensors::array;

const MODELS: usize = 3;

/// Names of torch.nn that are no layers to call by themselves, each with the test that runs it in populations.
const OTHERS: [(&str, &str); 6] = [
    ("Module", "the trait"),
    ("ModuleDict", "tests/torch/modules/eager.rs"),
    ("ModuleList", "tests/torch/modules/eager.rs"),
    ("Parameter", "tests/torch/modules/eager.rs"),
    ("ParameterDict", "tests/torch/modules/eager.rs"),
    ("ParameterList", "tests/torch/modules/eager.rs"),
];

/// A floating element type.
trait Real: Element {
    fn scaled(self, factor: f64) -> Self;

    fn of(number: f64) -> Self;

    fn bits(self) -> u64;
}

impl Real for f32 {
    fn scaled(self, factor: f64) -> Self {
        self * factor as f32
    }

    fn of(number: f64) -> Self {
        number as f32
    }

    fn bits(self) -> u64 {
        self.to_bits().into()
    }
}

impl Real for f64 {
    fn scaled(self, factor: f64) -> Self {
        self * factor
    }

    fn of(number: f64) -> Self {
        number
    }

    fn bits(self) -> u64 {
        self.to_bits()
    }
}

/// What makes each model another one: its numbers are those of the first times this.
fn factor(model: usize) -> f64 {
    1.0 - 0.125 * model as f64
}

/// A layer, and what it is called with.
struct Subject<'a> {
    name: &'a str,
    module: Box<dyn DynModule>,
    dtype: Dtype,
    is_training: bool,
    /// What the first model has; empty leaves what the layers draw.
    state: Vec<(&'a str, &'a Tensor)>,
    /// Of the first model, each with whether its gradient is asked for.
    inputs: Vec<(Numbers, bool)>,
    arguments: Arguments<usize>,
}

impl<'a> Subject<'a> {
    /// Reads a case of the group `modules`.
    fn of(case: &Case<'a>) -> Checked<Self> {
        let mut inputs = Vec::new();
        for (index, input) in case.json.list("inputs")?.iter().enumerate() {
            let numbers = Numbers::of(case.expect(&format!("input/{index}"))?)?;
            inputs.push((numbers, input.flag("requires_grad")));
        }
        Ok(Subject {
            name: case.id,
            module: modules::module(case)?,
            dtype: if case.json.text("dtype")? == "f64" { Dtype::F64 } else { Dtype::F32 },
            is_training: case.json.text("mode")? != "eval",
            state: case.below("state"),
            inputs,
            arguments: modules::arguments(case, &mut Vec::new())?,
        })
    }

    /// Makes one of a layer that is called with an array of that shape.
    fn new(name: &'a str, layer: Box<dyn DynModule>, shape: &[usize]) -> Self {
        let count = shape.iter().product::<usize>();
        let numbers = (0..count).map(|i| (0.7 * i as f32 + 0.2).sin()).collect();
        let x = ArrayD::from_shape_vec(IxDyn(shape), numbers).unwrap();
        Subject {
            name,
            module: layer,
            dtype: Dtype::F32,
            is_training: true,
            state: Vec::new(),
            inputs: vec![(Numbers::F32(x), true)],
            arguments: Arguments::each([0]),
        }
    }
}

/// The layers that no recorded case has, by torch's name.
fn unrecorded() -> Vec<Subject<'static>> {
    let line = |name, layer| Subject::new(name, layer, &[2, 4, 5]);
    let square = |name, layer| Subject::new(name, layer, &[2, 4, 5, 6]);
    let cube = |name, layer| Subject::new(name, layer, &[2, 4, 3, 5, 4]);
    let mut classes = Subject::new("NLLLoss2d", Box::new(NLLLoss2d::default()), &[2, 4, 3]);
    let targets = ArrayD::from_shape_fn(vec![2, 3], |i| ((i[0] + 2 * i[1]) % 4) as i64);
    classes.inputs.push((Numbers::I64(targets), false));
    classes.arguments = Arguments::each([0, 1]);
    let of_classes = LinearCrossEntropyLoss {
        bias: true,
        weight: Some(vec![1.0, 0.5, 2.0]),
        label_smoothing: 0.1,
        ..LinearCrossEntropyLoss::new(4, 3)
    };
    let mut linear = Subject::new("LinearCrossEntropyLoss", Box::new(of_classes), &[5, 4]);
    let targets = ArrayD::from_shape_fn(vec![5], |i| (i[0] % 3) as i64);
    linear.inputs.push((Numbers::I64(targets), false));
    linear.arguments = Arguments::each([0, 1]);
    vec![
        classes,
        linear,
        line("SyncBatchNorm", Box::new(SyncBatchNorm::new(4))),
        square("FractionalMaxPool2d", Box::new(FractionalMaxPool2d::with_ratio(2, 0.5))),
        cube("FractionalMaxPool3d", Box::new(FractionalMaxPool3d::with_ratio(2, 0.6))),
        line("LazyLinear", Box::new(LazyLinear::new(3))),
        line("LazyBatchNorm1d", Box::<LazyBatchNorm1d>::default()),
        square("LazyBatchNorm2d", Box::<LazyBatchNorm2d>::default()),
        cube("LazyBatchNorm3d", Box::<LazyBatchNorm3d>::default()),
        line("LazyInstanceNorm1d", Box::<LazyInstanceNorm1d>::default()),
        square("LazyInstanceNorm2d", Box::<LazyInstanceNorm2d>::default()),
        cube("LazyInstanceNorm3d", Box::<LazyInstanceNorm3d>::default()),
        line("LazyConv1d", Box::new(LazyConv1d::new(3, 2))),
        square("LazyConv2d", Box::new(LazyConv2d::new(3, 2))),
        cube("LazyConv3d", Box::new(LazyConv3d::new(3, 2))),
        line("LazyConvTranspose1d", Box::new(LazyConvTranspose1d::new(3, 2))),
        square("LazyConvTranspose2d", Box::new(LazyConvTranspose2d::new(3, 2))),
        cube("LazyConvTranspose3d", Box::new(LazyConvTranspose3d::new(3, 2))),
    ]
}

/// Stacks the numbers of some models.
fn stacked<T: Clone>(x: &ArrayD<T>, models: Range<usize>, of: impl Fn(T, usize) -> T) -> ArrayD<T> {
    let each: Vec<_> = models.map(|model| x.mapv(|x| of(x, model))).collect();
    stack(Axis(0), &each.iter().map(|x| x.view()).collect::<Vec<_>>()).unwrap()
}

fn set<T: Element>(
    world: &mut World,
    root: Entity,
    name: &str,
    tensor: &Tensor,
    of: impl Fn(T) -> T,
) -> Checked {
    Ok(world.module_mut(root)?.set_parameter(name, array::<T>(tensor)?.mapv(of).view())?)
}

/// A name, and the bits of numbers; `None` for a gradient that is not there.
type Line = (String, Option<Vec<u64>>);

/// What becomes of models between two passes.
#[derive(Clone, Copy, PartialEq)]
enum Between {
    Nothing,
    /// They are saved and restored.
    Restored,
    /// They are converted to double precision and back: all at once where they lie, then one of them alone.
    Converted,
}

/// Runs some of the models, forward, back and forward again; gives what each made.
fn run<T: Real>(
    subject: &Subject<'_>,
    models: Range<usize>,
    between: Between,
) -> Checked<Vec<Vec<Line>>> {
    let mut world = World::new();
    let mut population = world
        .spawn_population_with(
            &*subject.module,
            PopulationSettings {
                models: models.len(),
                dtype: T::DTYPE,
                first_number: models.start as u64,
                ..PopulationSettings::default()
            },
        )?
        .id();
    let mut roots = world.population(population)?.models().to_vec();
    for (&root, model) in roots.iter().zip(models.clone()) {
        for &(name, tensor) in &subject.state {
            let by = factor(model);
            match tensor.dtype() {
                Dtype::F32 => set::<f32>(&mut world, root, name, tensor, |x| x.scaled(by))?,
                Dtype::F64 => set::<f64>(&mut world, root, name, tensor, |x| x.scaled(by))?,
                Dtype::I64 => set::<i64>(&mut world, root, name, tensor, |x| x + model as i64)?,
                _ => set::<u8>(&mut world, root, name, tensor, |x| x)?,
            }
        }
    }
    if !subject.is_training {
        world.population_mut(population)?.eval()?;
    }
    let inputs: Vec<_> =
        subject.inputs.iter().map(|(x, needs)| (of_models(x, models.clone()), *needs)).collect();
    let arguments = || {
        let input = &mut |index: usize| input(&inputs[index].0, inputs[index].1);
        subject.arguments.clone().map(input)
    };
    let mut lines = vec![Vec::new(); models.len()];
    let can_go_back = subject.is_training || inputs.iter().any(|(_, needs)| *needs);
    for pass in ["first", "second"] {
        match between {
            Between::Restored if pass == "second" => {
                (world, population) = pass_on(&mut world, population)?;
                roots = world.population(population)?.models().to_vec();
            }
            Between::Converted if pass == "second" => {
                let mut brains = world.population_mut(population)?;
                brains.double()?.to(T::DTYPE)?;
                brains.model(0)?.double()?.to(T::DTYPE)?;
            }
            _ => {}
        }
        let result = world.population_mut(population)?.forward_any(arguments())?;
        let mut gradients = Vec::new();
        for (place, y) in result.leaves().into_iter().enumerate() {
            let name = format!("{pass} result {place}");
            match y {
                AnyArray::F32(y) => add(&mut lines, &name, y, |x| x.bits()),
                AnyArray::F64(y) => add(&mut lines, &name, y, |x| x.bits()),
                AnyArray::I64(y) => add(&mut lines, &name, y, |x| x as u64),
                AnyArray::Bool(y) => add(&mut lines, &name, y, u64::from),
                AnyArray::F16(_) | AnyArray::BF16(_) => {
                    return Err(Stop::Needs("results of halves".into()));
                }
            }
            let shape = match y {
                AnyArray::F32(y) => y.shape(),
                AnyArray::F64(y) => y.shape(),
                _ => continue,
            };
            let one = shape[1..].iter().product::<usize>();
            let of = |i: usize| T::of((1.3 * i as f64).cos());
            let one = ArrayD::from_shape_vec(IxDyn(&shape[1..]), (0..one).map(of).collect())?;
            gradients.push(stacked(&one, models.clone(), scaled));
        }
        if can_go_back {
            let given = gradients.iter().map(|gradient| Some(AnyInput::from(gradient)));
            world.population_mut(population)?.backward_with(&given.collect::<Vec<_>>())?;
            for (place, dx) in input_gradients::<T>(&world, population)?.into_iter().enumerate() {
                let name = format!("{pass} gradient of argument {place}");
                match dx {
                    Some(dx) => add(&mut lines, &name, &dx, Real::bits),
                    None => lines.iter_mut().for_each(|lines| lines.push((name.clone(), None))),
                }
            }
        }
        for (&root, lines) in roots.iter().zip(&mut lines) {
            for name in world.module_mut(root)?.parameter_names()? {
                let gradient = world.module_mut(root)?.gradient::<T>(&name)?;
                let bits = gradient.map(|gradient| gradient.mapv(Real::bits).into_iter().collect());
                lines.push((format!("{pass} gradient of {name}"), bits));
            }
            for tensor in &world.module_mut(root)?.state_dict()? {
                let bytes = tensor.little_endian().iter().map(|&byte| byte.into());
                lines.push((tensor.name.clone(), Some(bytes.collect())));
            }
        }
    }
    Ok(lines)
}

/// Saves a population, and restores it into another world.
fn pass_on(world: &mut World, population: Entity) -> Checked<(World, Entity)> {
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let file = format!("neurarch-{}-{number}.ckpt", std::process::id());
    let path = std::env::temp_dir().join(file);
    checkpoint::save(world, &[population], &path)?;
    let mut other = World::new();
    let restored = Checkpoint::open(&path)?.restore(&mut other)?;
    fs::remove_file(&path)?;
    Ok((other, restored.populations[0]))
}

fn scaled<T: Real>(x: T, model: usize) -> T {
    x.scaled(factor(model))
}

/// Gives each of some models an input of its own.
fn of_models(x: &Numbers, models: Range<usize>) -> Numbers {
    match x {
        Numbers::F32(x) => Numbers::F32(stacked(x, models, scaled)),
        Numbers::F64(x) => Numbers::F64(stacked(x, models, scaled)),
        Numbers::I64(x) => Numbers::I64(stacked(x, models, |x, _| x)),
        Numbers::Bool(x) => Numbers::Bool(stacked(x, models, |x, _| x)),
    }
}

fn input(x: &Numbers, needs_gradient: bool) -> AnyInput<'_> {
    fn of<T: Element>(x: &ArrayD<T>, needs_gradient: bool) -> AnyInput<'_> {
        let x = Input::from(x);
        if needs_gradient { x.requires_grad().into() } else { x.into() }
    }
    match x {
        Numbers::F32(x) => of(x, needs_gradient),
        Numbers::F64(x) => of(x, needs_gradient),
        Numbers::I64(x) => of(x, needs_gradient),
        Numbers::Bool(x) => of(x, needs_gradient),
    }
}

/// Adds the slice of each model.
fn add<T: Copy>(lines: &mut [Vec<Line>], name: &str, x: &ArrayD<T>, bits: impl Fn(T) -> u64) {
    for (lines, x) in lines.iter_mut().zip(x.axis_iter(Axis(0))) {
        lines.push((name.to_owned(), Some(x.iter().map(|&x| bits(x)).collect())));
    }
}

/// Compares a population of three with three of one model.
fn check<T: Real>(subject: &Subject<'_>) -> Checked {
    let together = run::<T>(subject, 0..MODELS, Between::Nothing)?;
    match run::<T>(subject, 0..MODELS, Between::Restored) {
        // A module of the runner's own holds a module of any type.
        Err(Stop::Differs(why)) if why.contains("runner::modules::Pre is not registered") => {
            crate::tell(&format!("{} is not restored from a checkpoint", subject.name));
        }
        restored => assert!(restored? == together, "{}: restored from a checkpoint", subject.name),
    }
    let converted = run::<T>(subject, 0..MODELS, Between::Converted)?;
    assert!(converted == together, "{}: converted and back", subject.name);
    for (model, together) in together.into_iter().enumerate() {
        let alone = run::<T>(subject, model..model + 1, Between::Nothing)?.remove(0);
        assert_eq!(alone.len(), together.len(), "{}", subject.name);
        for (alone, together) in alone.into_iter().zip(together) {
            assert_eq!(alone, together, "{}, model {model}", subject.name);
        }
    }
    Ok(())
}

fn check_any(subject: &Subject<'_>) -> Checked {
    match subject.dtype {
        Dtype::F64 => check::<f64>(subject),
        _ => check::<f32>(subject),
    }
}

/// Checks the recorded cases whose place leaves `part` when divided by `of`.
fn check_recorded(part: usize, of: usize) {
    let group = crate::read("modules");
    for case in group.cases().skip(part).step_by(of) {
        let checked = Subject::of(&case).and_then(|subject| check_any(&subject));
        match checked {
            Ok(()) => {}
            Err(Stop::Differs(what)) => panic!("{}: {what}", case.id),
            Err(Stop::Needs(what)) => crate::tell(&format!("{} skipped: {what}", case.id)),
        }
    }
}

#[test]
fn recorded_layers_are_the_same_alone_first_part() {
    check_recorded(0, 3);
}

#[test]
fn recorded_layers_are_the_same_alone_second_part() {
    check_recorded(1, 3);
}

#[test]
fn recorded_layers_are_the_same_alone_third_part() {
    check_recorded(2, 3);
}

#[test]
fn other_layers_are_the_same_alone() {
    for subject in unrecorded() {
        check_any(&subject).unwrap_or_else(|why| panic!("{}: {why:?}", subject.name));
    }
}

#[test]
fn every_layer_that_is_here_is_compared() {
    let group = crate::read("modules");
    let mut compared: BTreeSet<_> =
        group.cases().map(|case| case.json.text("module").unwrap().to_owned()).collect();
    compared.extend(unrecorded().into_iter().map(|subject| subject.name.to_owned()));
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/names.md");
    let page = fs::read_to_string(page).unwrap();
    let section = page.split("\n## ").find(|section| section.starts_with("torch.nn\n")).unwrap();
    let here =
        section.lines().filter_map(|line| line.strip_prefix("| `")?.strip_suffix("` | yes |"));
    let missing: Vec<_> = here
        .filter(|name| !compared.contains(*name))
        .filter(|name| OTHERS.iter().all(|(other, _)| other != name))
        .collect();
    assert!(missing.is_empty(), "never run in a population of three: {missing:?}");
}
