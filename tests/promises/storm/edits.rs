//! The storm's edits of structure: tensors, layers and their order, by torch's ways and by bevy's.

use neurarch::bevy_ecs::hierarchy::{ChildOf, Children};
use neurarch::nn::Value;
use neurarch::prelude::*;
use neurarch::systems::edit::fuse::{fuse_linear_relu, unfuse_linear_relu};

use super::plain::{Buffer, HIDDEN, INPUTS, Kind, Layer, OUTPUTS, Parameter};
use super::{Mood, Storm, Tag, write_layer};

/// Layers without tensors.
const PLAIN: [Kind; 4] = [Kind::Tanh, Kind::ReLU, Kind::Identity, Kind::Mood];
const MOST_LAYERS: usize = 8;

fn value(kind: Kind) -> Value {
    match kind {
        Kind::Linear { inputs, outputs, bias } => {
            Value::module(Linear { in_features: inputs, out_features: outputs, bias })
        }
        Kind::Fused { inputs, outputs, bias } => {
            let linear = Linear { in_features: inputs, out_features: outputs, bias };
            Value::module(FusedLinearReLU::from(linear))
        }
        Kind::Lazy { outputs, bias, .. } => {
            Value::module(LazyLinear { bias, ..LazyLinear::new(outputs) })
        }
        Kind::Tanh => Value::module(Tanh),
        Kind::ReLU => Value::module(ReLU),
        Kind::Identity => Value::module(Identity),
        Kind::Mood | Kind::Root => Value::module(Mood),
    }
}

impl Storm {
    /// Edits the structure of a model.
    pub(super) fn edit(&mut self) {
        let at = self.model();
        match self.random.below(12) {
            0 | 1 => self.register_tensor(at),
            2 => self.delete_tensor(at),
            3 => self.toggle_bias(at),
            4 | 5 => self.append(at),
            6 => self.take_last(at),
            7 => self.set_submodule(at),
            8 => self.insert_component(at),
            9 => self.swap(at),
            10 => self.fuse(at),
            _ => drop(self.world.spawn((Tag(7), ChildOf(self.root(at))))),
        }
    }

    fn register_tensor(&mut self, at: (usize, usize)) {
        let (layer, module) = self.tensors(at);
        let number = self.random.below(3);
        let length = 1 + self.random.below(3);
        let numbers = self.random.array(&[length]);
        let layer = &mut self.groups[at.0].models[at.1].layers[layer];
        match number {
            0 => {
                let name = "buffer";
                let persistent = numbers.len() > 1;
                let value = Value::buffer(numbers.view(), persistent);
                self.world
                    .module_mut(module)
                    .unwrap()
                    .register_buffer(name, value, persistent)
                    .unwrap();
                let buffer = Buffer { name: name.to_owned(), value: numbers, persistent };
                match layer.buffers.iter_mut().find(|buffer| buffer.name == name) {
                    Some(known) => *known = buffer,
                    None => layer.buffers.push(buffer),
                }
                let taken =
                    self.world.module_mut(module).unwrap().register_parameter(name, Value::None);
                assert!(taken.is_err());
            }
            _ => {
                let name = format!("extra{number}");
                let value = Value::parameter(numbers.view());
                self.world.module_mut(module).unwrap().register_parameter(&name, value).unwrap();
                let parameter = Parameter::new(&name, Some(numbers));
                match layer.parameter(&name) {
                    Some(known) => *known = parameter,
                    None => layer.add(parameter),
                }
            }
        }
    }

    fn delete_tensor(&mut self, at: (usize, usize)) {
        let (layer, module) = self.tensors(at);
        let layer = &mut self.groups[at.0].models[at.1].layers[layer];
        for name in ["extra1", "extra2", "buffer"] {
            let before = layer.parameters.len() + layer.buffers.len();
            layer.parameters.retain(|parameter| parameter.name != name);
            layer.buffers.retain(|buffer| buffer.name != name);
            let was_there = layer.parameters.len() + layer.buffers.len() < before;
            assert_eq!(self.world.module_mut(module).unwrap().delattr(name).is_ok(), was_there);
        }
    }

    fn toggle_bias(&mut self, at: (usize, usize)) {
        let (layer, module) = self.tensors(at);
        let layer = &mut self.groups[at.0].models[at.1].layers[layer];
        let (Kind::Linear { outputs, .. } | Kind::Fused { outputs, .. }) = layer.kind else {
            return;
        };
        let Some(bias) = layer.parameter("bias") else { return };
        let numbers = bias.value.is_none().then(|| self.random.array(&[outputs]));
        let value = numbers.as_ref().map(|numbers| Value::parameter(numbers.view()));
        self.world
            .module_mut(module)
            .unwrap()
            .setattr("bias", value.unwrap_or(Value::None))
            .unwrap();
        *bias = Parameter::new("bias", numbers);
    }

    fn append(&mut self, at: (usize, usize)) {
        let layers = &self.groups[at.0].models[at.1].layers;
        if layers.len() >= MOST_LAYERS {
            return;
        }
        let used = layers.iter().filter_map(|layer| layer.name.parse::<usize>().ok()).max();
        let name = (used.unwrap_or(0) + 1).to_string();
        let bias = self.random.one_in(2);
        let (inputs, outputs) = (OUTPUTS, OUTPUTS);
        let kind = match self.random.below(PLAIN.len() + 3) {
            plain if plain < PLAIN.len() => PLAIN[plain],
            number if number == PLAIN.len() => Kind::Lazy { inputs, outputs, bias },
            _ => Kind::Linear { inputs, outputs, bias },
        };
        let layer = Layer::new(&name, kind, &mut self.random);
        let root = self.root(at);
        self.world.module_mut(root).unwrap().register_module(&name, value(kind)).unwrap();
        write_layer(&mut self.world, root, &layer);
        self.plain(at).layers.push(layer);
    }

    /// Removes one of the layers that were appended.
    fn take_last(&mut self, at: (usize, usize)) {
        let layers = &mut self.groups[at.0].models[at.1].layers;
        let is_base = |layer: &Layer| matches!(&*layer.name, "" | "0" | "1" | "2");
        let Some(place) = layers.iter().rposition(|layer| !is_base(layer)) else { return };
        let name = layers.remove(place).name;
        let root = self.root(at);
        match self.random.one_in(2) {
            true => self.world.module_mut(root).unwrap().delattr(&name).unwrap(),
            false => {
                let module = self.world.module_mut(root).unwrap().at(&name).unwrap().id();
                self.world.despawn(module);
            }
        }
    }

    fn set_submodule(&mut self, at: (usize, usize)) {
        let layers = self.plain(at).layers.len();
        let place = 1 + self.random.below(layers - 1);
        let layer = &self.groups[at.0].models[at.1].layers[place];
        let name = layer.name.clone();
        let bias = self.random.one_in(2);
        let kind = match layer.kind {
            Kind::Linear { inputs, outputs, .. }
            | Kind::Fused { inputs, outputs, .. }
            | Kind::Lazy { inputs, outputs, .. } => match self.random.below(4) {
                0 if name != "2" => Kind::Fused { inputs, outputs, bias },
                1 => Kind::Lazy { inputs, outputs, bias },
                _ => Kind::Linear { inputs, outputs, bias },
            },
            _ => PLAIN[self.random.below(PLAIN.len())],
        };
        assert!(
            name != "0"
                || matches!(
                    kind,
                    Kind::Linear { inputs: INPUTS, outputs: HIDDEN, .. }
                        | Kind::Fused { .. }
                        | Kind::Lazy { .. }
                )
        );
        let root = self.root(at);
        self.world.module_mut(root).unwrap().setattr(&name, value(kind)).unwrap();
        let layer = Layer::new(&name, kind, &mut self.random);
        write_layer(&mut self.world, root, &layer);
        let old = std::mem::replace(&mut self.plain(at).layers[place], layer);
        // Its hooks went with it.
        assert!(old.hooks.iter().flat_map(|hook| &hook.handle).all(|handle| !handle.remove()));
    }

    /// Gives a layer without tensors of its own another component, as a Bevy program would.
    fn insert_component(&mut self, at: (usize, usize)) {
        let (layer, module) = self.layer(at);
        let layer = &mut self.groups[at.0].models[at.1].layers[layer];
        if !PLAIN.contains(&layer.kind) {
            return;
        }
        layer.kind = PLAIN[self.random.below(PLAIN.len())];
        let mut entity = self.world.entity_mut(module);
        match layer.kind {
            Kind::Tanh => entity.insert(Tanh),
            Kind::ReLU => entity.insert(ReLU),
            Kind::Identity => entity.insert(Identity),
            _ => entity.insert(Mood),
        };
    }

    /// Lets two neighboring layers that were appended change their places, which bevy tells nobody.
    fn swap(&mut self, at: (usize, usize)) {
        let layers = self.plain(at).layers.len();
        if layers < 6 {
            return;
        }
        let place = 4 + self.random.below(layers - 5);
        let [first, second] = [place, place + 1].map(|place| self.module(at, place));
        let root = self.root(at);
        let mut children = self.world.get_mut::<Children>(root).unwrap();
        let place_of =
            |children: &Children, of| children.iter().position(|child| *child == of).unwrap();
        let (a, b) = (place_of(&children, first), place_of(&children, second));
        children.swap(a, b);
        self.plain(at).layers.swap(place, place + 1);
    }

    /// Fuses, or takes apart, the first two layers that can be.
    fn fuse(&mut self, at: (usize, usize)) {
        let root = self.root(at);
        let layers = &mut self.groups[at.0].models[at.1].layers;
        for place in 1..layers.len() - 1 {
            let [first, second] = &mut layers[place..place + 2] else { continue };
            let names = (first.name.clone(), second.name.clone());
            // What is on a module stays on it: hooks and tags of a layer would be those of a part of it.
            if !first.hooks.is_empty() || first.tag.is_some() {
                continue;
            }
            match (first.kind, second.kind) {
                (Kind::Linear { inputs, outputs, bias }, Kind::ReLU) => {
                    fuse_linear_relu(&mut self.world, root, &names.0, &names.1).unwrap();
                    first.kind = Kind::Fused { inputs, outputs, bias };
                    second.kind = Kind::Identity;
                    return;
                }
                (Kind::Fused { inputs, outputs, bias }, Kind::Identity) => {
                    unfuse_linear_relu(&mut self.world, root, &names.0, &names.1).unwrap();
                    first.kind = Kind::Linear { inputs, outputs, bias };
                    second.kind = Kind::ReLU;
                    return;
                }
                _ => {
                    let result = fuse_linear_relu(&mut self.world, root, &names.0, &names.1);
                    assert!(result.is_err());
                }
            }
        }
    }
}
