//! The storm's weight norm: put on and taken off, and names on modules that have it.

use ndarray::Ix2;
use neurarch::nn::Value;
use neurarch::prelude::*;

use super::Storm;
use super::plain::{Kind, Parameter};

impl Storm {
    pub(super) fn parametrize(&mut self) {
        let at = self.model();
        let (layer, module) = self.tensors(at);
        match self.random.below(4) {
            0 => self.norm(at, layer, module),
            1 => {
                let result =
                    self.world.module_mut(module).unwrap().remove_parametrizations("weight", true);
                let layer = &mut self.plain(at).layers[layer];
                assert_eq!(result.is_ok(), layer.is_normed(), "{result:?}: {layer:?}");
                if layer.is_normed() {
                    layer.unnorm();
                }
            }
            _ => self.name(at, layer, module),
        }
    }

    fn norm(&mut self, at: (usize, usize), layer: usize, module: Entity) {
        if self.plain(at).layers[layer].is_normed() {
            return;
        }
        let result = self.world.module_mut(module).unwrap().weight_norm("weight", Some(0));
        let layer = &mut self.plain(at).layers[layer];
        let weight = layer.parameter("weight").filter(|weight| !weight.waits);
        assert_eq!(result.is_ok(), weight.is_some(), "{result:?}: {layer:?}");
        if result.is_ok() {
            layer.norm();
        }
    }

    /// Registers, assigns and deletes the name of a weight.
    fn name(&mut self, at: (usize, usize), layer: usize, module: Entity) {
        let known = &self.groups[at.0].models[at.1].layers[layer];
        let (Kind::Linear { inputs, outputs, .. } | Kind::Fused { inputs, outputs, .. }) =
            known.kind
        else {
            return;
        };
        let (root, path) = (self.root(at), known.path("weight"));
        let is_normed = known.is_normed();
        let numbers = self.random.array(&[outputs, inputs]);
        let parameter = || Value::parameter(numbers.view());
        if is_normed {
            let exists = "attribute 'weight' already exists";
            let errors = [
                self.world.module_mut(module).unwrap().register_parameter("weight", parameter()),
                self.world.module_mut(module).unwrap().register_parameter("weight", Value::None),
                self.world.module_mut(module).unwrap().register_buffer(
                    "weight",
                    Value::tensor(numbers.view()),
                    true,
                ),
                self.world
                    .module_mut(module)
                    .unwrap()
                    .register_module("weight", Value::module(Tanh))
                    .map(drop),
                self.world.module_mut(module).unwrap().setattr("weight", parameter()),
            ];
            for error in errors.map(Result::unwrap_err) {
                assert_eq!(error.to_string(), exists);
            }
            assert!(self.world.module_mut(module).unwrap().delattr("weight").is_err());
            assert!(
                self.world.module_mut(root).unwrap().set_parameter(&path, numbers.view()).is_err()
            );
        }
        let value = if is_normed { Value::tensor(numbers.view()) } else { parameter() };
        self.world.module_mut(module).unwrap().setattr("weight", value).unwrap();
        let layer = &mut self.plain(at).layers[layer];
        match layer.parameter("weight") {
            Some(weight) => *weight = Parameter::new("weight", Some(numbers)),
            None => layer.assign(numbers.into_dimensionality::<Ix2>().unwrap()),
        }
        let expected = self.plain(at).layers.iter().find(|of| of.path("weight") == path);
        let expected = expected.unwrap().weight().into_dyn();
        let computed = self.world.module_mut(module).unwrap().tensor::<f64>("weight").unwrap();
        super::checks::assert_close(&computed, &expected, &path);
    }
}
