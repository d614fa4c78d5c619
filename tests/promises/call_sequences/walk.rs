//! A population, beside it what each of its models must be, and calls made on both.

use std::collections::HashMap;

use ndarray::{Array2, Array3};
use neurarch::components::module::mode::Mode;
use neurarch::prelude::*;
use neurarch::systems::amp::ScalerError;
use neurarch::systems::execute::step::StepError;
use neurarch::systems::structure::mode;

use super::plain::{Numbers, Pass, SIZES, is_near};

/// What may be called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Deed {
    Forward(usize),
    ForwardOfWrongShape,
    ForwardWithInputGradient,
    ForwardWithoutGradients,
    Loss,
    LossOfWrongTargets,
    ScaleLoss,
    Backward,
    BackwardFrom,
    Step,
    ZeroGrad,
    TrainStep,
    Clone,
    Spawn,
    DespawnFirst,
    DespawnLast,
    Overwrite,
    Perturb,
    WeightNorm,
    Append,
    HookAll,
    HookFirst,
    Toggle,
}

pub(super) const ALL: [Deed; 24] = [
    Deed::Forward(2),
    Deed::Forward(3),
    Deed::ForwardOfWrongShape,
    Deed::ForwardWithInputGradient,
    Deed::ForwardWithoutGradients,
    Deed::Loss,
    Deed::LossOfWrongTargets,
    Deed::ScaleLoss,
    Deed::Backward,
    Deed::BackwardFrom,
    Deed::Step,
    Deed::ZeroGrad,
    Deed::TrainStep,
    Deed::Clone,
    Deed::Spawn,
    Deed::DespawnFirst,
    Deed::DespawnLast,
    Deed::Overwrite,
    Deed::Perturb,
    Deed::WeightNorm,
    Deed::Append,
    Deed::HookAll,
    Deed::HookFirst,
    Deed::Toggle,
];

const RATE: f64 = 0.1;
const SCALE: f64 = 2.0;

/// What a model must be.
#[derive(Clone, Default)]
struct Model {
    parameters: Numbers,
    gradients: Numbers,
    /// Counts the edits of its structure.
    structure: usize,
    /// Counts the hooks of its own.
    hooks: usize,
    /// Whether it has an optimizer and a scaler.
    learns: bool,
}

/// A model's part in the last forward pass.
struct Ran {
    pass: Pass,
    structure: usize,
    evaluates: bool,
}

/// What the last forward pass must have left.
struct Tape {
    of: HashMap<Entity, Ran>,
    items: usize,
    has_graph: bool,
    /// What `backward` would start from.
    loss: Option<HashMap<Entity, Vec<f64>>>,
    /// Whether parameters were written to since.
    is_outdated: bool,
    /// Whether models were told apart by hooks since.
    is_split: bool,
}

/// See the module.
pub(super) struct Walk {
    world: World,
    population: Entity,
    models: HashMap<Entity, Model>,
    tape: Option<Tape>,
    is_training: bool,
    /// Counts the hooks on all models.
    hooks: usize,
    calls: usize,
}

type Outcome = Result<(), String>;

fn check(is_right: bool, what: impl FnOnce() -> String) -> Outcome {
    if is_right { Ok(()) } else { Err(what()) }
}

fn brains(world: &mut World, population: Entity) -> Result<PopulationMut<'_>, String> {
    world.population_mut(population).map_err(|error| error.to_string())
}

fn part(world: &mut World, module: Entity) -> Result<ModuleMut<'_>, String> {
    world.module_mut(module).map_err(|error| error.to_string())
}

impl Walk {
    pub(super) fn new() -> Self {
        let mut world = World::new();
        let model = Sequential::new()
            .push(Linear::new(SIZES[0], SIZES[1]))
            .push(Linear::new(SIZES[1], SIZES[2]))
            // Asks in which mode it is.
            .push(Dropout { p: 0.0 });
        let population = world.spawn_population(&model, 2, Seed(1)).unwrap().id();
        world
            .population_mut(population)
            .unwrap()
            .insert(SGD { lr: RATE, ..SGD::default() })
            .unwrap();
        world
            .population_mut(population)
            .unwrap()
            .insert(GradScaler { init_scale: SCALE, ..GradScaler::default() })
            .unwrap();
        let mut walk = Walk {
            world,
            population,
            models: HashMap::new(),
            tape: None,
            is_training: true,
            hooks: 0,
            calls: 0,
        };
        walk.read();
        walk
    }

    fn roots(&self) -> Vec<Entity> {
        self.world.population(self.population).unwrap().models().to_vec()
    }

    /// Takes what the models are for right.
    fn read(&mut self) {
        let roots = self.roots();
        self.models.retain(|root, _| roots.contains(root));
        for root in roots {
            let known =
                self.models.get(&root).map_or((0, 0), |model| (model.structure, model.hooks));
            let (structure, hooks) = known;
            let learns = self.world.get::<SGD>(root).is_some()
                && self.world.get::<GradScaler>(root).is_some();
            let mut model = Model { structure, hooks, learns, ..Model::default() };
            for name in self.world.module_mut(root).unwrap().parameter_names().unwrap() {
                let numbers = self.world.module_mut(root).unwrap().parameter::<f32>(&name).unwrap();
                model.parameters.insert(name.clone(), numbers.iter().map(|&x| x.into()).collect());
                if let Some(gradient) =
                    self.world.module_mut(root).unwrap().gradient::<f32>(&name).unwrap()
                {
                    model.gradients.insert(name, gradient.iter().map(|&x| x.into()).collect());
                }
            }
            self.models.insert(root, model);
        }
    }

    /// Tells states apart by all but numbers: what later calls must do follows from it.
    pub(super) fn state(&self) -> String {
        let roots = self.roots();
        let of_model = |root: &Entity| {
            let Model { structure, hooks, learns, gradients, .. } = &self.models[root];
            let ran = self.tape.as_ref().and_then(|tape| tape.of.get(root));
            let ran = ran.map(|ran| (ran.structure, ran.evaluates));
            let gradients: Vec<_> = gradients.keys().collect();
            format!("{structure} {hooks} {learns} {gradients:?} {} {ran:?}", self.evaluates(*root))
        };
        let tape = self.tape.as_ref().map(|tape| {
            let left = tape.of.keys().filter(|root| !roots.contains(root)).count();
            let Tape { items, has_graph, is_outdated, is_split, .. } = tape;
            (*items, *has_graph, tape.loss.is_some(), *is_outdated, *is_split, left)
        });
        let models: Vec<_> = roots.iter().map(of_model).collect();
        format!("{models:?} {tape:?} {} {}", self.is_training, self.hooks)
    }

    /// Compares the models with what they must be.
    fn compare(&mut self) -> Outcome {
        for root in self.roots() {
            let model = self.models[&root].clone();
            for (name, expected) in &model.parameters {
                let found = self.world.module_mut(root).unwrap().parameter::<f32>(name).unwrap();
                check(is_near(found.as_slice().unwrap(), expected), || {
                    format!("{name} is {found} and not {expected:?}")
                })?;
                let found = self.world.module_mut(root).unwrap().gradient::<f32>(name).unwrap();
                let expected = model.gradients.get(name);
                let is_right = match (&found, expected) {
                    (None, None) => true,
                    (Some(found), Some(expected)) => is_near(found.as_slice().unwrap(), expected),
                    _ => false,
                };
                check(is_right, || {
                    format!("the gradient of {name} is {found:?} and not {expected:?}")
                })?;
            }
        }
        Ok(())
    }

    /// Makes numbers that are others in each call, for each model and item.
    fn inputs(&self, models: usize, items: usize, features: usize) -> Array3<f32> {
        Array3::from_shape_fn((models, items, features), |(model, item, feature)| {
            ((self.calls * 5 + model * 7 + item * 3 + feature * 11) % 13) as f32 / 13.0 - 0.4
        })
    }

    fn targets(models: usize, items: usize) -> Array2<i64> {
        Array2::from_shape_fn((models, items), |(model, item)| ((model + item) % SIZES[2]) as i64)
    }

    fn passes(&self, x: &Array3<f32>) -> Vec<(Entity, Pass)> {
        let rows = x.outer_iter().map(|x| x.iter().map(|&x| f64::from(x)).collect());
        let of =
            |(root, x): (Entity, Vec<f64>)| (root, Pass::new(&self.models[&root].parameters, x));
        self.roots().into_iter().zip(rows).map(of).collect()
    }

    /// Makes a call, and says what is wrong with what became of it.
    pub(super) fn call(&mut self, deed: Deed) -> Outcome {
        self.calls += 1;
        let n = self.roots().len();
        match deed {
            Deed::Forward(items) => self.forward(items, true, false)?,
            Deed::ForwardWithoutGradients => self.forward(3, false, false)?,
            Deed::ForwardWithInputGradient => self.forward(2, true, true)?,
            Deed::ForwardOfWrongShape => {
                let x = self.inputs(n, 2, SIZES[0] + 1);
                check(brains(&mut self.world, self.population)?.forward(&x).is_err(), || {
                    "a wrong shape passed".into()
                })?;
            }
            Deed::Loss => self.loss(false)?,
            Deed::LossOfWrongTargets => self.loss(true)?,
            Deed::ScaleLoss => self.scale_loss()?,
            Deed::Backward => self.backward(false)?,
            Deed::BackwardFrom => self.backward(true)?,
            Deed::Step => self.step()?,
            Deed::ZeroGrad => {
                brains(&mut self.world, self.population)?
                    .zero_grad()
                    .map_err(|error| error.to_string())?;
                self.models.values_mut().for_each(|model| model.gradients.clear());
            }
            Deed::TrainStep => self.train_step()?,
            _ => self.change(deed)?,
        }
        self.compare()
    }

    fn forward(&mut self, items: usize, has_graph: bool, wants_input: bool) -> Outcome {
        let x = self.inputs(self.roots().len(), items, SIZES[0]);
        let passes = self.passes(&x);
        let input = if wants_input { Input::from(&x).requires_grad() } else { Input::from(&x) };
        let population = self.population;
        let given = match has_graph {
            true => brains(&mut self.world, population)?.forward(input),
            false => self.world.no_grad(|world| world.population_mut(population)?.forward(input)),
        };
        let y = match given {
            Ok(y) => y,
            Err(StepError::Inactive) if passes.is_empty() => return Ok(()),
            Err(error) => return Err(error.to_string()),
        };
        for ((_, pass), y) in passes.iter().zip(y.outer_iter()) {
            let found: Vec<f32> = y.iter().copied().collect();
            check(is_near(&found, &pass.y), || {
                format!("a result is {found:?} and not {:?}", pass.y)
            })?;
        }
        let ran = |(root, pass)| {
            let (structure, evaluates) = (self.models[&root].structure, self.evaluates(root));
            (root, Ran { pass, structure, evaluates })
        };
        self.tape = Some(Tape {
            of: passes.into_iter().map(ran).collect(),
            items,
            has_graph,
            loss: None,
            is_outdated: false,
            is_split: false,
        });
        Ok(())
    }

    fn evaluates(&self, root: Entity) -> bool {
        self.world.get::<Mode>(root).is_some_and(|mode| mode.evaluating.contains(0))
    }

    /// Says whether the models have the modes of the last forward pass.
    fn has_modes(&self) -> bool {
        let ran = |root: &Entity| self.tape.as_ref()?.of.get(root);
        self.roots()
            .iter()
            .all(|root| ran(root).is_none_or(|ran| ran.evaluates == self.evaluates(*root)))
    }

    /// Says whether an error may be told of the last forward pass.
    fn is_due(&self, error: &StepError) -> bool {
        let roots = self.roots();
        let Some(tape) = &self.tape else {
            return matches!(error, StepError::NoForward(_) | StepError::NoLoss);
        };
        match error {
            StepError::NoForward(_) => !tape.has_graph,
            StepError::NoLoss => tape.loss.is_none(),
            StepError::Inactive => roots.is_empty(),
            StepError::Spawned { model } => !tape.of.contains_key(&roots[*model]),
            StepError::Edited { model } => {
                let ran = tape.of.get(&roots[*model]);
                ran.is_some_and(|ran| ran.structure != self.models[&roots[*model]].structure)
            }
            StepError::Changed => !self.has_modes() || tape.is_split,
            StepError::Modified { .. } => tape.is_outdated,
            _ => false,
        }
    }

    /// Says whether there is a result of the last forward pass for each model.
    fn can_go_on(&self) -> bool {
        let is_there = |root: &Entity| {
            let ran = self.tape.as_ref().and_then(|tape| tape.of.get(root));
            ran.is_some_and(|ran| ran.structure == self.models[root].structure)
        };
        let roots = self.roots();
        !roots.is_empty() && roots.iter().all(is_there)
    }

    /// Checks an answer: an error has to be due, and so has a result.
    fn judge<T>(&self, answer: Result<T, StepError>, is_due: bool) -> Result<Option<T>, String> {
        match answer {
            Ok(_) if !is_due => Err("it went on, from nothing".into()),
            Ok(answer) => Ok(Some(answer)),
            Err(error) if self.is_due(&error) => Ok(None),
            Err(error) => Err(error.to_string()),
        }
    }

    fn loss(&mut self, is_wrong: bool) -> Outcome {
        let roots = self.roots();
        let mut targets =
            Self::targets(roots.len(), self.tape.as_ref().map_or(2, |tape| tape.items));
        if is_wrong {
            targets.fill(99);
        }
        let loss = CrossEntropyLoss::default();
        let answer = brains(&mut self.world, self.population)?.loss::<f32, i64>(&targets, &loss);
        if is_wrong && matches!(answer, Err(StepError::Target { .. })) {
            return Ok(());
        }
        let Some(losses) = self.judge(answer, self.can_go_on() && !is_wrong)? else {
            return Ok(());
        };
        let Some(tape) = &mut self.tape else { return Ok(()) };
        let mut gradients = HashMap::new();
        for ((root, targets), &found) in roots.iter().zip(targets.outer_iter()).zip(&losses) {
            let targets: Vec<_> = targets.iter().map(|&target| target as usize).collect();
            let (expected, dy) = tape.of[root].pass.loss(&targets);
            check(is_near(&[found], &[expected]), || {
                format!("a loss is {found} and not {expected}")
            })?;
            gradients.insert(*root, dy);
        }
        tape.loss = Some(gradients);
        Ok(())
    }

    fn scale_loss(&mut self) -> Outcome {
        let has_loss = self.tape.as_ref().is_some_and(|tape| tape.loss.is_some());
        let answer = match brains(&mut self.world, self.population)?.scale_loss() {
            Ok(()) => Ok(()),
            Err(ScalerError::Step(error)) => Err(error),
            Err(_) if self.models.values().any(|model| !model.learns) => return Ok(()),
            Err(error) => return Err(error.to_string()),
        };
        // Of no models, all losses are scaled.
        let is_due = has_loss && (self.can_go_on() || self.models.is_empty());
        if self.judge(answer, is_due)?.is_some() {
            let losses = self.tape.as_mut().and_then(|tape| tape.loss.as_mut());
            losses.into_iter().flat_map(HashMap::values_mut).flatten().for_each(|dy| *dy *= SCALE);
        }
        Ok(())
    }

    fn backward(&mut self, is_given: bool) -> Outcome {
        let roots = self.roots();
        let items = self.tape.as_ref().map_or(2, |tape| tape.items);
        let given = self.inputs(roots.len(), items, SIZES[2]);
        let answer = match is_given {
            true => brains(&mut self.world, self.population)?.backward_from(&given),
            false => brains(&mut self.world, self.population)?.backward(),
        };
        let has_start = |tape: &Tape| tape.has_graph && (is_given || tape.loss.is_some());
        let can_start = self.tape.as_ref().is_some_and(has_start) && self.has_modes();
        if self.judge(answer, can_start && self.can_go_on())?.is_none() {
            return Ok(());
        }
        let Some(tape) = &mut self.tape else { return Ok(()) };
        for (root, given) in roots.iter().zip(given.outer_iter()) {
            let given = given.iter().map(|&x| f64::from(x)).collect();
            let dy = if is_given { given } else { tape.loss.as_ref().unwrap()[root].clone() };
            let gradients = &mut self.models.get_mut(root).unwrap().gradients;
            tape.of[root].pass.backward(&dy, gradients);
        }
        (tape.has_graph, tape.loss) = (false, None);
        Ok(())
    }

    /// Checks an answer of what needs optimizers; says whether it was made.
    fn updates(&mut self, answer: Result<(), StepError>) -> Result<bool, String> {
        match answer {
            Err(StepError::NoOptimizer { model }) if !self.models[&self.roots()[model]].learns => {
                Ok(false)
            }
            Err(StepError::Inactive) if self.models.is_empty() => Ok(false),
            Err(error) => Err(error.to_string()),
            Ok(()) if self.models.values().any(|model| !model.learns) => {
                Err("a model has no optimizer".into())
            }
            Ok(()) => {
                self.tape.iter_mut().for_each(|tape| tape.is_outdated = true);
                Ok(true)
            }
        }
    }

    fn step(&mut self) -> Outcome {
        let answer = brains(&mut self.world, self.population)?.step();
        if self.updates(answer)? {
            for model in self.models.values_mut() {
                descend(&mut model.parameters, &model.gradients);
            }
        }
        Ok(())
    }

    fn train_step(&mut self) -> Outcome {
        let x = self.inputs(self.roots().len(), 2, SIZES[0]);
        let targets = Self::targets(x.dim().0, 2);
        let passes = self.passes(&x);
        let loss = CrossEntropyLoss::default();
        let answer = brains(&mut self.world, self.population)?.train_step(&x, &targets, &loss);
        let losses = answer.as_ref().map(|losses| losses.to_vec()).unwrap_or_default();
        if !self.updates(answer.map(drop))? {
            return Ok(());
        }
        for (((root, pass), targets), found) in passes.iter().zip(targets.outer_iter()).zip(losses)
        {
            let targets: Vec<_> = targets.iter().map(|&target| target as usize).collect();
            let (expected, dy) = pass.loss(&targets);
            check(is_near(&[found], &[expected]), || {
                format!("a loss is {found} and not {expected}")
            })?;
            let mut gradients = Numbers::new();
            pass.backward(&dy, &mut gradients);
            descend(&mut self.models.get_mut(root).unwrap().parameters, &gradients);
        }
        Ok(())
    }

    /// Changes the population; what it is afterwards is taken for right.
    fn change(&mut self, deed: Deed) -> Outcome {
        let Walk { world, population, .. } = self;
        let (p, roots) = (*population, world.population(*population).unwrap().models().to_vec());
        let is_made = match deed {
            Deed::Clone => brains(world, p)?.clone_models(&[0]).is_ok(),
            Deed::Spawn => brains(world, p)?.spawn_models(1).is_ok(),
            Deed::DespawnFirst => roots.first().is_some_and(|&root| world.despawn(root)),
            Deed::DespawnLast => roots.last().is_some_and(|&root| world.despawn(root)),
            Deed::Overwrite => brains(world, p)?.overwrite(&vec![0; roots.len()]).is_ok(),
            Deed::Perturb => brains(world, p)?.perturb(Noise::normal(0.1)).is_ok(),
            Deed::WeightNorm => {
                // As in torch, it could be registered a second time, and no pass would work then.
                let layer = roots
                    .first()
                    .map(|&root| world.module_mut(root).unwrap().at("1").unwrap().id());
                let is_normed = layer
                    .is_some_and(|of| world.module(of).unwrap().is_parametrized(Some("weight")));
                !is_normed && brains(world, p)?.at("1").weight_norm("weight", Some(0)).is_ok()
            }
            Deed::Append => match roots.first() {
                Some(&root) => part(world, root)?.container().append(Identity).is_ok(),
                None => false,
            },
            Deed::HookAll => brains(world, p)?.register_forward_hook(|_, _, _| Ok(None)).is_ok(),
            Deed::HookFirst => match roots.first() {
                Some(&root) => part(world, root)?.register_forward_hook(|_, _, _| Ok(None)).is_ok(),
                None => false,
            },
            _ => {
                self.is_training = !self.is_training;
                let toggle = if self.is_training { mode::train } else { mode::eval };
                toggle(world, p).map_err(|error| error.to_string())?;
                true
            }
        };
        let first = roots.first().copied();
        let is_edited = |root: &Entity| match deed {
            Deed::WeightNorm => is_made,
            Deed::Append => is_made && Some(*root) == first,
            _ => false,
        };
        self.models
            .iter_mut()
            .filter(|(root, _)| is_edited(root))
            .for_each(|(_, of)| of.structure += 1);
        self.hooks += usize::from(deed == Deed::HookAll);
        let hooked = first.filter(|_| deed == Deed::HookFirst);
        hooked
            .and_then(|first| self.models.get_mut(&first))
            .into_iter()
            .for_each(|of| of.hooks += 1);
        if let Some(tape) = &mut self.tape {
            tape.is_outdated |= matches!(deed, Deed::Overwrite | Deed::Perturb);
            tape.is_split |= matches!(deed, Deed::HookFirst);
        }
        self.read();
        Ok(())
    }
}

/// Makes a step of gradient descent.
fn descend(parameters: &mut Numbers, gradients: &Numbers) {
    for (name, gradient) in gradients {
        let numbers = parameters.get_mut(name).into_iter().flatten();
        numbers.zip(gradient).for_each(|(number, gradient)| *number -= RATE * gradient);
    }
}
