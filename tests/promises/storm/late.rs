//! The storm between a forward pass and the way back: right gradients of that pass, or an error that is due.

use std::collections::HashMap;

use ndarray::{Array2, ArrayD, Axis, Ix2};
use neurarch::bevy_ecs::hierarchy::Children;
use neurarch::prelude::*;
use neurarch::systems::execute::step::StepError;

use super::checks::assert_close;
use super::plain::{BATCH, LR, Layer, Model, OUTPUTS, Pass};
use super::{Group, Storm};

/// A pass and what its result was compared with.
type Ran = (Pass, Array2<f64>);

/// The models of a forward pass, as they were.
struct Then {
    models: HashMap<Entity, (Model, Option<Ran>)>,
    /// The layers of each root: another may take the place of one like it.
    children: HashMap<Entity, Vec<Entity>>,
    is_overwritten: bool,
}

impl Storm {
    /// Makes a pass forward and back, and something else between both.
    pub(super) fn change_late(&mut self) {
        let group = self.group();
        let entity = self.groups[group].entity;
        let Some(mut then) = self.pass(group) else { return };
        for _ in 0..self.random.below(3) {
            then.is_overwritten |= self.change(group);
        }
        match self.world.population_mut(entity).unwrap().backward() {
            Ok(()) => self.take_gradients(group, then),
            Err(error) => {
                let is_due = self.is_due(group, &then, &error);
                assert!(is_due, "{error}");
                let Group { roots, models, .. } = &mut self.groups[group];
                for (root, model) in roots.iter().zip(models) {
                    for (name, _) in model.state() {
                        let gradient = self.world.module_mut(*root).unwrap().gradient::<f64>(&name);
                        assert!(gradient.is_err() || gradient.unwrap().is_none());
                    }
                }
            }
        }
        self.world.population_mut(entity).unwrap().zero_grad().unwrap();
    }

    /// Makes a forward pass with its losses, if a model is active.
    fn pass(&mut self, group: usize) -> Option<Then> {
        let x = self.input(group);
        let target = self.random.array(&[self.groups[group].models.len(), BATCH, OUTPUTS]);
        let entity = self.groups[group].entity;
        if self.groups[group].models.iter().all(|model| !model.active) {
            return None;
        }
        self.world.population_mut(entity).unwrap().forward(&x).unwrap();
        self.settle(group);
        let losses = self
            .world
            .population_mut(entity)
            .unwrap()
            .loss::<f64, f64>(&target, &MSELoss::default())
            .unwrap();
        let Group { models, roots, hooks, .. } = &mut self.groups[group];
        let mut then = Then {
            models: HashMap::new(),
            children: roots.iter().map(|&root| (root, children(&self.world, root))).collect(),
            is_overwritten: false,
        };
        for (index, (model, &root)) in models.iter().zip(&*roots).enumerate() {
            let ran = model.active.then(|| {
                let x = x.index_axis(Axis(0), index).to_owned();
                let target = target.index_axis(Axis(0), index).to_owned();
                let target = target.into_dimensionality::<Ix2>().unwrap();
                let pass = model.forward(x, hooks, &mut self.ledger);
                let expected = ndarray::arr0(model.clone().backward(&pass, &target)).into_dyn();
                let got = ndarray::arr0(losses[[index]]).into_dyn();
                assert_close(&got, &expected, &format!("loss of model {index}: {model:?}"));
                (pass, target)
            });
            then.models.insert(root, (model.clone(), ran));
        }
        Some(then)
    }

    /// Does anything but a pass; says whether numbers may have been written that were the same before.
    fn change(&mut self, group: usize) -> bool {
        match self.random.below(12) {
            0 => self.spawn(),
            1 => self.despawn(),
            2 => self.clone_models(),
            3 => self.tag(),
            4 => self.edit(),
            5 => self.parametrize(),
            6 => {
                self.overwrite();
                return true;
            }
            7 => self.load(),
            8 => self.change_mode(),
            9 => self.activate(),
            10 => self.set_one(group),
            _ => self.fail(),
        }
        false
    }

    /// Gives one parameter of a model other numbers.
    fn set_one(&mut self, group: usize) {
        let model = self.random.below(self.groups[group].models.len());
        let Group { roots, models, .. } = &mut self.groups[group];
        let mut all = models[model].state();
        let number = self.random.below(all.len());
        let (name, value) = &mut all[number];
        **value = self.random.array(value.shape());
        self.world.module_mut(roots[model]).unwrap().set_parameter(name, value.view()).unwrap();
    }

    /// Compares the gradients with those of the pass as it was, and makes a step with them.
    fn take_gradients(&mut self, group: usize, then: Then) {
        let Group { entity, models, roots, .. } = &mut self.groups[group];
        for (index, (model, &root)) in models.iter_mut().zip(&*roots).enumerate() {
            let ran = then.models.get(&root);
            let Some((mut before, Some((pass, target)))) =
                ran.map(|(before, ran)| (before.clone(), ran.as_ref()))
            else {
                assert!(!model.active, "model {index} was not in the pass");
                continue;
            };
            if !model.active {
                continue;
            }
            before.backward(pass, target);
            assert_eq!(model.signature(), before.signature(), "model {index}");
            for (layer, of) in model.layers.iter_mut().zip(before.layers) {
                let prefix = layer.path("");
                for (parameter, of) in layer.parameters.iter_mut().zip(of.parameters) {
                    if parameter.value.is_none() {
                        continue;
                    }
                    let name = format!("{prefix}{}", parameter.name);
                    parameter.gradient = of.gradient.filter(|_| !parameter.frozen);
                    let got: Option<ArrayD<f64>> =
                        self.world.module_mut(root).unwrap().gradient(&name).unwrap();
                    let what = format!("gradient of {name} of model {index}");
                    match (&got, &parameter.gradient) {
                        (Some(got), Some(expected)) => assert_close(got, expected, &what),
                        _ => assert_eq!(got, parameter.gradient, "{what}"),
                    }
                }
            }
        }
        if models.iter().any(|model| model.active) {
            self.world.population_mut(*entity).unwrap().step().unwrap();
            models.iter_mut().for_each(|model| model.update(LR));
        }
    }

    /// Says whether something happened that an error tells of.
    fn is_due(&self, group: usize, then: &Then, error: &StepError) -> bool {
        let Group { models, roots, .. } = &self.groups[group];
        let mut both = models.iter().zip(roots).filter(|(model, _)| model.active);
        let mut any = |is: &dyn Fn(&Model, &Model) -> bool| {
            let is = |(now, root): (&Model, &Entity)| {
                then.models.get(root).is_some_and(|(before, _)| is(now, before))
            };
            both.any(is)
        };
        match error {
            StepError::Inactive => models.iter().all(|model| !model.active),
            StepError::Spawned { model } => !then.models.contains_key(&roots[*model]),
            StepError::Activated { model } => {
                models[*model].active && then.models[&roots[*model]].1.is_none()
            }
            StepError::Edited { model } => {
                let root = roots[*model];
                models[*model].signature() != then.models[&root].0.signature()
                    || children(&self.world, root) != then.children[&root]
            }
            StepError::Changed => any(&|now, before| modes(now) != modes(before)),
            StepError::Modified { .. } => {
                then.is_overwritten || any(&|now, before| numbers(now) != numbers(before))
            }
            _ => false,
        }
    }
}

fn children(world: &World, root: Entity) -> Vec<Entity> {
    world.get::<Children>(root).into_iter().flatten().copied().collect()
}

fn numbers(model: &Model) -> Vec<&ArrayD<f64>> {
    let mut all = Vec::new();
    for layer in &model.layers {
        all.extend(layer.parameters.iter().filter_map(|parameter| parameter.value.as_ref()));
        all.extend(layer.buffers.iter().map(|buffer| &buffer.value));
    }
    all
}

/// Lists what trains, and what is frozen.
fn modes(model: &Model) -> Vec<(bool, Vec<bool>)> {
    let frozen =
        |layer: &Layer| layer.parameters.iter().map(|parameter| parameter.frozen).collect();
    model.layers.iter().map(|layer| (layer.training, frozen(layer))).collect()
}
