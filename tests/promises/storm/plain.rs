//! The plain reference: models as structs, weights as arrays of their own, forward and backward as loops.

use ndarray::{Array2, ArrayD, Axis, Ix1, Ix2, IxDyn};
use neurarch::prelude::RemovableHandle;

pub const BATCH: usize = 2;
pub const INPUTS: usize = 3;
pub const HIDDEN: usize = 4;
pub const OUTPUTS: usize = 2;
pub const LR: f64 = 0.02;
pub const MOMENTUM: f64 = 0.9;
/// What a weight under weight norm is computed from: lengths of rows, and rows.
pub const ORIGINALS: [&str; 2] =
    ["parametrizations.weight.original0", "parametrizations.weight.original1"];

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
    /// A `Linear` from its first call on.
    Lazy {
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
    pub gradient: Option<ArrayD<f64>>,
    pub frozen: bool,
    /// Whether it gets its shape and numbers in the first call.
    pub waits: bool,
}

impl Parameter {
    pub fn new(name: &str, value: Option<ArrayD<f64>>) -> Self {
        let momentum = ArrayD::zeros(value.as_ref().map_or(IxDyn(&[]), |value| value.raw_dim()));
        let (gradient, frozen, waits) = (None, false, false);
        Parameter { name: name.to_owned(), value, momentum, gradient, frozen, waits }
    }

    /// Says whether it is one of [`ORIGINALS`].
    fn is_original(&self) -> bool {
        ORIGINALS.contains(&&*self.name)
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
            Kind::Linear { inputs, outputs, bias }
            | Kind::Fused { inputs, outputs, bias }
            | Kind::Lazy { inputs, outputs, bias } => {
                let bias = bias.then(|| random.array(&[outputs]));
                let weight = random.array(&[outputs, inputs]);
                let all = [("weight", Some(weight)), ("bias", bias)];
                let waits = matches!(kind, Kind::Lazy { .. });
                let parameter = |(name, value): (&str, Option<_>)| Parameter {
                    waits: waits && value.is_some(),
                    ..Parameter::new(name, value)
                };
                all.map(parameter).to_vec()
            }
            _ => Vec::new(),
        };
        let (buffers, hooks) = (Vec::new(), Vec::new());
        Layer { name: name.to_owned(), kind, parameters, buffers, training: true, hooks, tag: None }
    }

    /// The dotted name of something in it.
    pub fn path(&self, name: &str) -> String {
        match self.tensors().as_str() {
            "" => name.to_owned(),
            own => format!("{own}.{name}"),
        }
    }

    /// The path of the module that has its tensors.
    pub fn tensors(&self) -> String {
        match self.kind {
            Kind::Fused { .. } => format!("{}.linear", self.name),
            _ => self.name.clone(),
        }
    }

    pub fn parameter(&mut self, name: &str) -> Option<&mut Parameter> {
        self.parameters.iter_mut().find(|parameter| parameter.name == name)
    }

    /// Adds a parameter of the module's own, behind the others.
    pub fn add(&mut self, parameter: Parameter) {
        let place = self.parameters.iter().position(Parameter::is_original);
        self.parameters.insert(place.unwrap_or(self.parameters.len()), parameter);
    }

    fn value(&self, name: &str) -> Option<&ArrayD<f64>> {
        let found = self.parameters.iter().find(|parameter| parameter.name == name);
        found.and_then(|parameter| parameter.value.as_ref())
    }

    fn matrix(&self, name: &str) -> Option<Array2<f64>> {
        let found = self.value(name)?.clone();
        Some(found.into_dimensionality::<Ix2>().expect("a weight is a matrix"))
    }

    fn originals(&self) -> Option<[Array2<f64>; 2]> {
        let [lengths, rows] = ORIGINALS;
        self.matrix(lengths).zip(self.matrix(rows)).map(<[_; 2]>::from)
    }

    pub fn weight(&self) -> Array2<f64> {
        let computed = || self.originals().map(|[lengths, v]| &v * &(lengths / row_lengths(&v)));
        self.matrix("weight").or_else(computed).expect("a linear layer has a weight")
    }

    pub fn is_normed(&self) -> bool {
        self.value(ORIGINALS[0]).is_some()
    }

    /// Puts weight norm on the weight.
    pub fn norm(&mut self) {
        let place = self.parameters.iter().position(|parameter| parameter.name == "weight");
        let weight = self.parameters.remove(place.expect("a linear layer has a weight"));
        let lengths = row_lengths(&matrix_of(&weight)).into_dyn();
        for (name, value) in ORIGINALS.into_iter().zip([Some(lengths), weight.value]) {
            let original = Parameter::new(name, value);
            self.parameters.push(Parameter { frozen: weight.frozen, ..original });
        }
    }

    /// Makes the weight a parameter again, the last one.
    pub fn unnorm(&mut self) {
        let weight = self.weight().into_dyn();
        let (originals, others): (Vec<_>, Vec<_>) =
            self.parameters.drain(..).partition(Parameter::is_original);
        self.parameters = others;
        let frozen = originals.iter().all(|original| original.frozen);
        self.parameters.push(Parameter { frozen, ..Parameter::new("weight", Some(weight)) });
    }

    /// Gives a weight under weight norm numbers through the inverse.
    pub fn assign(&mut self, weight: Array2<f64>) {
        let lengths = row_lengths(&weight).into_dyn();
        for (name, value) in ORIGINALS.into_iter().zip([lengths, weight.into_dyn()]) {
            self.parameter(name).expect("a weight under weight norm").value = Some(value);
        }
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
            Kind::Lazy { .. } => unreachable!("a layer that was called is lazy no more"),
            Kind::Fused { .. } => self.affine(x).mapv(|y| y.max(0.0)),
            Kind::Tanh => x.mapv(f64::tanh),
            Kind::ReLU => x.mapv(|x| x.max(0.0)),
            Kind::Mood => x.mapv(|x| x * mood),
        }
    }

    /// Goes back through the layer, and gives what learns its gradient; `y` is what `forward` gave.
    fn backward(&mut self, x: &Array2<f64>, y: &Array2<f64>, mut dy: Array2<f64>) -> Array2<f64> {
        let mood = if self.training { 0.5 } else { 0.75 };
        match self.kind {
            Kind::Root | Kind::Identity => return dy,
            Kind::Tanh => return dy * y.mapv(|y| 1.0 - y * y),
            Kind::ReLU => return dy * y.mapv(|y| if y > 0.0 { 1.0 } else { 0.0 }),
            Kind::Mood => return dy * mood,
            Kind::Fused { .. } => dy *= &y.mapv(|y| if y > 0.0 { 1.0 } else { 0.0 }),
            Kind::Linear { .. } | Kind::Lazy { .. } => {}
        }
        let dx = dy.dot(&self.weight());
        let dw = dy.t().dot(x);
        let mut gradients = vec![("bias", dy.sum_axis(Axis(0)).into_dyn())];
        match self.originals() {
            None => gradients.push(("weight", dw.into_dyn())),
            Some([lengths, v]) => {
                let own = row_lengths(&v);
                let unit = v / &own;
                let along = (&dw * &unit).sum_axis(Axis(1)).insert_axis(Axis(1));
                let across = (dw - &unit * &along) * (lengths / own);
                gradients.extend(ORIGINALS.into_iter().zip([along.into_dyn(), across.into_dyn()]));
            }
        }
        for (name, gradient) in gradients {
            let learns =
                |parameter: &&mut Parameter| !parameter.frozen && parameter.value.is_some();
            if let Some(parameter) = self.parameter(name).filter(learns) {
                parameter.gradient = Some(gradient);
            }
        }
        dx
    }

    /// What decides which models can overwrite each other.
    pub fn signature(&self) -> String {
        let parameters = self.parameters.iter().map(|parameter| {
            let shape = parameter.value.as_ref().map(|value| value.shape().to_vec());
            (parameter.name.as_str(), shape, parameter.waits)
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
    pub fn new(is_lazy: bool, random: &mut Random) -> Self {
        let linear = |inputs, outputs| match is_lazy {
            true => Kind::Lazy { inputs, outputs, bias: true },
            false => Kind::Linear { inputs, outputs, bias: true },
        };
        let kinds = [Kind::Root, linear(INPUTS, HIDDEN), Kind::Tanh, linear(HIDDEN, OUTPUTS)];
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

    /// Goes back from the mean squared error; gives the loss.
    pub fn backward(&mut self, pass: &Pass, target: &Array2<f64>) -> f64 {
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

    /// Makes a step with the gradients, which are gone then.
    pub fn update(&mut self, rate: f64) {
        for parameter in self.layers.iter_mut().flat_map(|layer| &mut layer.parameters) {
            if let (Some(value), Some(gradient)) = (&mut parameter.value, parameter.gradient.take())
            {
                parameter.momentum = &parameter.momentum * MOMENTUM + gradient;
                value.scaled_add(-rate, &parameter.momentum);
            }
        }
    }

    /// Names what has no shape yet.
    pub fn waiting(&self) -> Vec<String> {
        let names = |layer: &Layer| {
            let waiting = layer.parameters.iter().filter(|parameter| parameter.waits);
            waiting.map(|parameter| layer.path(&parameter.name)).collect::<Vec<_>>()
        };
        self.layers.iter().flat_map(names).collect()
    }

    /// Says what has no shape yet.
    pub fn wait_for(&mut self, names: &[String]) {
        for layer in &mut self.layers {
            let prefix = layer.path("");
            for parameter in &mut layer.parameters {
                parameter.waits = names.contains(&format!("{prefix}{}", parameter.name));
            }
        }
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

    /// The tensors of a `state_dict` that have a shape, in torch's order, to be read or changed.
    pub fn state<'a>(&'a mut self) -> Vec<(String, &'a mut ArrayD<f64>)> {
        let mut all = Vec::new();
        for layer in &mut self.layers {
            let prefix = layer.path("");
            let parameters = layer.parameters.iter_mut().filter(|parameter| !parameter.waits);
            let (originals, own): (Vec<_>, Vec<_>) =
                parameters.partition(|parameter| parameter.is_original());
            let named = |parameter: &'a mut Parameter| {
                let name = format!("{prefix}{}", parameter.name);
                parameter.value.as_mut().map(|value| (name, value))
            };
            all.extend(own.into_iter().filter_map(named));
            for buffer in layer.buffers.iter_mut().filter(|buffer| buffer.persistent) {
                all.push((format!("{prefix}{}", buffer.name), &mut buffer.value));
            }
            all.extend(originals.into_iter().filter_map(named));
        }
        all
    }
}

fn matrix_of(parameter: &Parameter) -> Array2<f64> {
    let value = parameter.value.clone().expect("a weight has numbers");
    value.into_dimensionality::<Ix2>().expect("a weight is a matrix")
}

/// Computes the length of each row, as a column.
fn row_lengths(rows: &Array2<f64>) -> Array2<f64> {
    rows.map_axis(Axis(1), |row| row.dot(&row).sqrt()).insert_axis(Axis(1))
}
