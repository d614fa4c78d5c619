//! The storm's passes and comparisons: what the models give, what they are, and what is refused.

use std::sync::atomic::Ordering;

use ndarray::{Array3, ArrayD, Axis, Ix2};
use neurarch::hooks::{At, Target};
use neurarch::nn::Value;
use neurarch::prelude::*;
use neurarch::systems::state::dict::StateDictError;

use super::plain::{BATCH, INPUTS, LR, OUTPUTS};
use super::{Group, MOST_MODELS, READ_EVERY, Storm, Tag, optimizer};

/// Sums of both run in another order; numbers are compared and taken over often enough that it does not add up.
const TOLERANCE: f64 = 1e-9;
/// A model whose weights grow beyond this starts anew.
const MOST_WEIGHT: f64 = 4.0;

pub(super) fn assert_close(got: &ArrayD<f64>, expected: &ArrayD<f64>, what: &str) {
    let is_close = |(a, b): (&f64, &f64)| (a - b).abs() <= TOLERANCE * (1.0 + b.abs());
    let is_close = got.shape() == expected.shape() && got.iter().zip(expected).all(is_close);
    assert!(is_close, "{what}: got {got}, expected {expected}");
}

impl Storm {
    /// Draws an input for each model of a population.
    pub(super) fn input(&mut self, group: usize) -> Array3<f64> {
        let x = self.random.array(&[self.groups[group].models.len(), BATCH, INPUTS]);
        x.into_dimensionality().unwrap()
    }

    pub(super) fn forward(&mut self) {
        let group = self.group();
        let x = self.input(group);
        let y = self.world.population_mut(self.groups[group].entity).unwrap().forward(&x);
        if self.groups[group].models.iter().all(|model| !model.active) {
            assert!(y.is_err());
            return;
        }
        let y = y.unwrap();
        self.settle(group);
        let Group { models, hooks, .. } = &mut self.groups[group];
        for (index, model) in models.iter().enumerate() {
            let got = y.index_axis(Axis(0), index).to_owned();
            let x = x.index_axis(Axis(0), index).to_owned();
            let expected = match model.active {
                true => model.forward(x, hooks, &mut self.ledger).y.into_dyn(),
                false => ArrayD::zeros(got.raw_dim()),
            };
            assert_close(&got, &expected, &format!("result of model {index}: {model:?}"));
        }
    }

    pub(super) fn step(&mut self) {
        let group = self.group();
        let x = self.input(group);
        let Group { entity, models, roots, .. } = &self.groups[group];
        let target = self.random.array(&[models.len(), BATCH, OUTPUTS]);
        // Numbers that nobody knows yet are read behind a step that changes none.
        let is_known = models.iter().all(|model| model.waiting().is_empty());
        let rate = if is_known { LR } else { 0.0 };
        for &root in roots {
            self.world.entity_mut(root).insert(SGD { lr: rate, ..optimizer() });
        }
        let losses = self.world.population_mut(*entity).unwrap().train_step(
            &x,
            &target,
            &MSELoss::default(),
        );
        for &root in roots {
            self.world.entity_mut(root).insert(optimizer());
        }
        if models.iter().all(|model| !model.active) {
            return;
        }
        let losses = losses.unwrap();
        self.settle(group);
        let Group { models, hooks, .. } = &mut self.groups[group];
        for (index, model) in models.iter_mut().enumerate().filter(|(_, model)| model.active) {
            let x = x.index_axis(Axis(0), index).to_owned();
            let target = target.index_axis(Axis(0), index).to_owned();
            let target = target.into_dimensionality::<Ix2>().unwrap();
            let pass = model.forward(x, hooks, &mut self.ledger);
            let expected = ndarray::arr0(model.backward(&pass, &target)).into_dyn();
            model.update(rate);
            let got = ndarray::arr0(losses[index]).into_dyn();
            assert_close(&got, &expected, &format!("loss of model {index}: {model:?}"));
        }
    }

    /// Does what is refused, and changes nothing.
    pub(super) fn fail(&mut self) {
        let at = self.model();
        let (root, entity) = (self.root(at), self.groups[at.0].entity);
        let number = || Value::parameter(ndarray::arr1(&[1.0]).view());
        match self.random.below(9) {
            0 => assert!(
                self.world.module_mut(root).unwrap().register_parameter("a.b", number()).is_err()
            ),
            1 => assert!(
                self.world.module_mut(root).unwrap().register_parameter("0", number()).is_err()
            ),
            2 => assert!(
                self.world.population_mut(entity).unwrap().overwrite(&[MOST_MODELS + 9]).is_err()
            ),
            3 => assert!(self.world.module_mut(root).unwrap().delattr("none").is_err()),
            4 => {
                let target = [Target::from((entity, "none")), Target::from((entity, "0.none"))];
                let look = |_: &At<'_>, _: &Arguments| Ok(None);
                for target in target {
                    assert!(self.world.target_mut(target).register_forward_pre_hook(look).is_err());
                }
            }
            5 => {
                let (_, module) = self.layer(at);
                let look = |_: &At<'_>, _: &str, _: &Var| Ok(());
                let hook = self
                    .world
                    .module_mut(module)
                    .unwrap()
                    .register_post_accumulate_grad_hook("none", look);
                assert!(hook.is_err());
            }
            6 => {
                // What is saved and loaded is as it was.
                let saved = self.world.module_mut(root).unwrap().training_state().unwrap();
                self.world.module_mut(root).unwrap().load_training_state(&saved).unwrap();
                assert_eq!(self.world.module_mut(root).unwrap().training_state().unwrap(), saved);
            }
            7 => {
                // A module that is part of no model has no say.
                let stray = self.world.spawn(LazyLinear::new(2)).id();
                assert!(self.world.module_mut(stray).unwrap().delattr("weight").is_err());
                assert!(
                    self.world
                        .module_mut(stray)
                        .unwrap()
                        .register_forward_pre_hook(|_, _| Ok(None))
                        .is_err()
                );
                self.world.despawn(stray);
            }
            _ => {
                let models = &self.groups[at.0].models;
                let (first, signature) = (models.len() - 1, models[0].signature());
                let mut parents: Vec<_> = (0..models.len()).collect();
                parents[0] = first;
                if models[first].signature() != signature {
                    assert!(
                        self.world.population_mut(entity).unwrap().overwrite(&parents).is_err()
                    );
                }
            }
        }
    }

    /// Now and then reads all models with `&World`: that gives what an exclusive call gives, or says that it cannot know it.
    pub(super) fn read(&mut self, done: usize) {
        if !done.is_multiple_of(READ_EVERY) {
            return;
        }
        let roots = self.groups.iter().flat_map(|group| &group.roots);
        let read = |&root: &Entity| (root, Parameters::from(&self.world).state_dict(root));
        let read: Vec<_> = roots.map(read).collect();
        for (root, given) in read {
            let expected = self.world.module_mut(root).unwrap().state_dict().unwrap();
            match given {
                Ok(given) => {
                    self.read += 1;
                    assert_eq!(given, expected);
                }
                Err(error) => {
                    self.refused += 1;
                    assert!(matches!(error, StateDictError::Unsettled(_)), "{error}");
                    let parameters = Parameters::from(&self.world);
                    assert_eq!(parameters.state_dict(root).unwrap(), expected);
                }
            }
        }
    }

    /// Compares everything, and takes over the last bits.
    pub(super) fn check(&mut self) {
        for group in 0..self.groups.len() {
            let (entity, roots) = (self.groups[group].entity, self.groups[group].roots.clone());
            assert_eq!(self.world.population(entity).unwrap().models(), roots);
            for (model, &root) in roots.iter().enumerate() {
                let got = self.world.module_mut(root).unwrap().state_dict().unwrap();
                let (waiting, got): (Vec<_>, Vec<_>) =
                    got.into_iter().partition(Tensor::is_uninitialized);
                let waiting: Vec<_> = waiting.into_iter().map(|tensor| tensor.name).collect();
                assert_eq!(waiting, self.groups[group].models[model].waiting());
                let got = StateDict::from(got);
                let mut expected = self.groups[group].models[model].state();
                let names: Vec<_> = expected.iter().map(|(name, _)| name.as_str()).collect();
                assert_eq!(got.keys().collect::<Vec<_>>(), names);
                let mut most = 0.0_f64;
                for (got, (name, expected)) in got.iter().zip(&mut expected) {
                    let got = got.to_array::<f64>().unwrap();
                    assert_close(&got, expected, name);
                    most = got.iter().fold(most, |most, number| most.max(number.abs()));
                    **expected = got;
                }
                if most > MOST_WEIGHT {
                    for (_, value) in expected {
                        *value = self.random.array(value.shape());
                    }
                    self.write((group, model));
                }
                self.check_layers((group, model));
            }
            self.forward();
        }
        let counted: Vec<_> =
            self.counters.iter().map(|counter| counter.load(Ordering::Relaxed)).collect();
        assert_eq!(counted, self.ledger);
    }

    fn check_layers(&mut self, at: (usize, usize)) {
        let root = self.root(at);
        let layers = self.plain(at).layers.clone();
        let names: Vec<_> = self.world.module_mut(root).unwrap().named_children().unwrap();
        let names: Vec<_> = names.into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, layers[1..].iter().map(|of| of.name.clone()).collect::<Vec<_>>());
        for layer in &layers {
            let module = self.world.module_mut(root).unwrap().at(&layer.name).unwrap().id();
            assert_eq!(self.world.get::<Tag>(module).map(|tag| tag.0), layer.tag);
            for buffer in layer.buffers.iter().filter(|buffer| !buffer.persistent) {
                let got = self
                    .world
                    .module_mut(root)
                    .unwrap()
                    .parameter::<f64>(&layer.path(&buffer.name))
                    .unwrap();
                assert_close(&got, &buffer.value, &buffer.name);
            }
        }
    }
}
