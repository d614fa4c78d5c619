//! The plain reference: models as structs, weights as arrays of their own, forward and backward as loops.

use ndarray::{Array2, ArrayD, Axis, Ix1, Ix2, IxDyn};
use neurarch::prelude::RemovableHandle;

pub const BATCH: usize = 2;
pub const INPUTS: usize = 3;
pub const HIDDEN: usize = 4;
pub const OUTPUTS: usize = 2;
pub const LR: f64 = 0.02;
pub const MOMENTUM: f64 = 0.9;

/// Random numbers: `SplitMix64`.
pub struct Random(pub u64);

impl Random {
    /// Draws a number below `n`.
    pub fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let x = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (((x ^ (x >> 31)) >> 32) as usize * n) >> 32
    }

    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    pub fn array(&mut self, shape: &[usize]) -> ArrayD<f64> {
        ArrayD::from_shape_fn(IxDyn(shape), |_| self.below(1 << 20) as f64 / (1 << 19) as f64 - 1.0)
    }
}

/// What a layer computes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    Root,
    /// `bias` is what its type says, not whether there is one now.
    Linear {
        inputs: usize,
        outputs: usize,
        bias: bool,
    },
    Fused {
        inputs: usize,
        outputs: usize,
        bias: bool,
    },
    Tanh,
    ReLU,
    Identity,
    Mood,
}

#[derive(Clone, Debug)]
pub struct Parameter {
    pub name: String,
    /// `None` for a name without a tensor.
    pub value: Option<ArrayD<f64>>,
    pub momentum: ArrayD<f64>,
    pub frozen: bool,
}

impl Parameter {
    pub fn new(name: &str, value: Option<ArrayD<f64>>) -> Self {
        let momentum = ArrayD::zeros(value.as_ref().map_or(IxDyn(&[]), |value| value.raw_dim()));
        Parameter { name: name.to_owned(), value, momentum, frozen: false }
    }
}

#[derive(Clone, Debug)]
pub struct Buffer {
    pub name: String,
    pub value: ArrayD<f64>,
    pub persistent: bool,
}

/// A hook that multiplies what its module gives and is counted in a ledger.
#[derive(Clone, Debug)]
pub struct Hook {
    pub factor: f64,
    /// Its line in the ledger.
    pub line: usize,
    /// None reaches a hook that came with a clone.
    pub handle: Option<RemovableHandle>,
}

#[derive(Clone, Debug)]
pub struct Layer {
    pub name: String,
    pub kind: Kind,
    pub parameters: Vec<Parameter>,
    pub buffers: Vec<Buffer>,
    pub training: bool,
    pub hooks: Vec<Hook>,
    pub tag: Option<u32>,
}

impl Layer {
    pub fn new(name: &str, kind: Kind, random: &mut Random) -> Self {
        let parameters = match kind {
            Kind::Linear { inputs, outputs, bias } | Kind::Fused { inputs, outputs, bias } => {
                let bias = bias.then(|| random.array(&[outputs]));
                let weight = random.array(&[outputs, inputs]);
                vec![Parameter::new("weight", Some(weight)), Parameter::new("bias", bias)]
            }
            _ => Vec::new(),
        };
        let (buffers, hooks) = (Vec::new(), Vec::new());
        Layer { name: name.to_owned(), kind, parameters, buffers, training: true, hooks, tag: None }
    }

    /// The dotted name of something in it.
    pub fn path(&self, name: &str) -> String {
        match self.name.as_str() {
            "" => name.to_owned(),
            own => format!("{own}.{name}"),
        }
    }

    pub fn parameter(&mut self, name: &str) -> Option<&mut Parameter> {
        self.parameters.iter_mut().find(|parameter| parameter.name == name)
    }

    fn value(&self, name: &str) -> Option<&ArrayD<f64>> {
        let found = self.parameters.iter().find(|parameter| parameter.name == name);
        found.and_then(|parameter| parameter.value.as_ref())
    }

    fn weight(&self) -> Array2<f64> {
        let weight = self.value("weight").expect("a linear layer has a weight");
        weight.clone().into_dimensionality::<Ix2>().expect("a weight is a matrix")
    }

    fn affine(&self, x: &Array2<f64>) -> Array2<f64> {
        let weight = self.weight();
        let mut y = Array2::zeros((x.nrows(), weight.nrows()));
        for (x, mut y) in x.rows().into_iter().zip(y.rows_mut()) {
            for (row, y) in weight.rows().into_iter().zip(&mut y) {
                *y = row.iter().zip(x).map(|(w, x)| w * x).sum();
            }
        }
        if let Some(bias) = self.value("bias") {
            y += &bias.view().into_dimensionality::<Ix1>().expect("a bias is a vector");
        }
        y
    }

    fn forward(&self, x: &Array2<f64>) -> Array2<f64> {
        let mood = if self.training { 0.5 } else { 0.75 };
        match self.kind {
            Kind::Root | Kind::Identity => x.clone(),
            Kind::Linear { .. } => self.affine(x),
            Kind::Fused { .. } => self.affine(x).mapv(|y| y.max(0.0)),
            Kind::Tanh => x.mapv(f64::tanh),
            Kind::ReLU => x.mapv(|x| x.max(0.0)),
            Kind::Mood => x.mapv(|x| x * mood),
        }
    }

    /// Goes back through the layer, and updates what learns; `y` is what `forward` gave.
    fn backward(&mut self, x: &Array2<f64>, y: &Array2<f64>, mut dy: Array2<f64>) -> Array2<f64> {
        let mood = if self.training { 0.5 } else { 0.75 };
        match self.kind {
            Kind::Root | Kind::Identity => return dy,
            Kind::Tanh => return dy * y.mapv(|y| 1.0 - y * y),
            Kind::ReLU => return dy * y.mapv(|y| if y > 0.0 { 1.0 } else { 0.0 }),
            Kind::Mood => return dy * mood,
            Kind::Fused { .. } => dy *= &y.mapv(|y| if y > 0.0 { 1.0 } else { 0.0 }),
            Kind::Linear { .. } => {}
        }
        let dx = dy.dot(&self.weight());
        let gradients =
            [("weight", dy.t().dot(x).into_dyn()), ("bias", dy.sum_axis(Axis(0)).into_dyn())];
        for (name, gradient) in gradients {
            let Some(parameter) = self.parameter(name).filter(|parameter| !parameter.frozen) else {
                continue;
            };
            if let Some(value) = &mut parameter.value {
                parameter.momentum = &parameter.momentum * MOMENTUM + gradient;
                value.scaled_add(-LR, &parameter.momentum);
            }
        }
        dx
    }

    /// What decides which models can overwrite each other.
    pub fn signature(&self) -> String {
        let parameters = self.parameters.iter().map(|parameter| {
            let shape = parameter.value.as_ref().map(|value| value.shape().to_vec());
            (parameter.name.as_str(), shape)
        });
        let buffers = self.buffers.iter();
        let buffers = buffers.map(|of| (of.name.as_str(), of.value.shape(), of.persistent));
        let (parameters, buffers): (Vec<_>, Vec<_>) = (parameters.collect(), buffers.collect());
        format!("{} {:?} {parameters:?} {buffers:?}", self.name, self.kind)
    }
}

#[derive(Clone, Debug)]
pub struct Model {
    /// The root, then its children in order.
    pub layers: Vec<Layer>,
    pub active: bool,
}

/// What each layer got and gave, the root last.
pub struct Pass {
    values: Vec<(Array2<f64>, Array2<f64>)>,
    factors: Vec<f64>,
    pub y: Array2<f64>,
}

impl Model {
    pub fn new(random: &mut Random) -> Self {
        let kinds = [
            Kind::Root,
            Kind::Linear { inputs: INPUTS, outputs: HIDDEN, bias: true },
            Kind::Tanh,
            Kind::Linear { inputs: HIDDEN, outputs: OUTPUTS, bias: true },
        ];
        let names = ["", "0", "1", "2"].into_iter().zip(kinds);
        let layers = names.map(|(name, kind)| Layer::new(name, kind, random)).collect();
        Model { layers, active: true }
    }

    /// Runs the model, with hooks of its population beside its own, and counts their calls in the ledger.
    pub fn forward(&self, x: Array2<f64>, shared: &[(String, Hook)], ledger: &mut [usize]) -> Pass {
        let (mut values, mut factors, mut x) = (Vec::new(), Vec::new(), x);
        for layer in self.layers[1..].iter().chain(&self.layers[..1]) {
            let y = layer.forward(&x);
            let of_all =
                shared.iter().filter(|(path, _)| *path == layer.name).map(|(_, hook)| hook);
            let hooks: Vec<_> = layer.hooks.iter().chain(of_all).collect();
            hooks.iter().for_each(|hook| ledger[hook.line] += 1);
            let factor = hooks.iter().map(|hook| hook.factor).product();
            let given = &y * factor;
            values.push((std::mem::replace(&mut x, given), y));
            factors.push(factor);
        }
        Pass { values, factors, y: x }
    }

    /// Makes a step by the mean squared error; gives the loss.
    pub fn step(&mut self, pass: Pass, target: &Array2<f64>) -> f64 {
        let difference = &pass.y - target;
        let count = difference.len() as f64;
        let mut dy = &difference * (2.0 / count);
        let n = self.layers.len();
        for (place, (x, y)) in pass.values.iter().enumerate().rev() {
            let layer = &mut self.layers[(place + 1) % n];
            dy = layer.backward(x, y, dy * pass.factors[place]);
        }
        difference.mapv(|d| d * d).sum() / count
    }

    pub fn signature(&self) -> String {
        self.layers.iter().map(|layer| layer.signature() + "; ").collect()
    }

    /// Takes over the numbers of a model of the same structure.
    pub fn overwrite(&mut self, parent: &Model) {
        for (layer, from) in self.layers.iter_mut().zip(&parent.layers) {
            for (parameter, from) in layer.parameters.iter_mut().zip(&from.parameters) {
                parameter.value.clone_from(&from.value);
                parameter.momentum.clone_from(&from.momentum);
            }
            for (buffer, from) in layer.buffers.iter_mut().zip(&from.buffers) {
                buffer.value.clone_from(&from.value);
            }
        }
    }

    /// The tensors of a `state_dict`, in torch's order, to be read or changed.
    pub fn state(&mut self) -> Vec<(String, &mut ArrayD<f64>)> {
        let mut all = Vec::new();
        for layer in &mut self.layers {
            let prefix = layer.path("");
            for parameter in &mut layer.parameters {
                let name = format!("{prefix}{}", parameter.name);
                all.extend(parameter.value.as_mut().map(|value| (name, value)));
            }
            for buffer in layer.buffers.iter_mut().filter(|buffer| buffer.persistent) {
                all.push((format!("{prefix}{}", buffer.name), &mut buffer.value));
            }
        }
        all
    }
}
