//! [`Row`]: one call of a module, with torchinfo's columns.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use serde::{Serialize, Serializer};

use super::parameters::{Numbered, elements, sum};
use crate::components::module::NoModule;
use crate::components::module::blueprint::Blueprint;
use crate::kernels::ir::shape::Type;
use crate::kernels::ir::tree::{Arguments, Tree};
use crate::systems::execute::step::calls::{ModuleCall, ModuleCalls};

/// One call of a module. A container that is not called, as a `ModuleList`, has a row without sizes.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Row {
    /// The module's dotted path in its model.
    pub path: String,
    /// Its name in its parent: torchinfo's `var_name`.
    pub name: String,
    /// The name of its type.
    pub class_name: String,
    /// How many modules are between it and the one that is summarized, itself included.
    pub depth: usize,
    /// Which row of this depth it is, from 1.
    pub depth_index: usize,
    /// Whether it has no children.
    pub is_leaf: bool,
    /// Whether it was called before.
    pub is_recursive: bool,
    /// The size of the first array that it is called with.
    pub input_size: Vec<usize>,
    /// The size of the first array that it gives.
    pub output_size: Vec<usize>,
    /// The number of elements of its parameters and of those below it.
    pub num_params: u64,
    /// Those of them that need a gradient.
    pub trainable_params: u64,
    /// The number of elements that this row alone accounts for: each parameter belongs to the first row of its module, or of the
    /// nearest module above that has a row.
    pub own_params: u64,
    /// `own_params` in percent of all parameters.
    pub params_percent: f64,
    /// The setting `kernel_size`, if the module prints one.
    pub kernel_size: Option<KernelSize>,
    /// Multiply-adds of the call: of a module with children, those of the leaves below.
    pub mult_adds: u64,
    /// Whether its parameters need gradients.
    pub trainable: Trainable,
    /// Bytes of its parameters and of those below it.
    pub param_bytes: u64,
    /// Bytes of the first array that it gives.
    pub output_bytes: u64,
    /// How long the call took, in JSON in seconds, if it was [timed](super::SummaryOptions::timed).
    #[serde(serialize_with = "seconds")]
    pub time: Option<Duration>,
}

fn seconds<S: Serializer>(time: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    time.map(|time| time.as_secs_f64()).serialize(serializer)
}

/// The size of a kernel: one number for all axes, or one for each.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum KernelSize {
    /// One number for all axes.
    All(usize),
    /// A number for each axis.
    Each(Vec<usize>),
}

/// Whether parameters need gradients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Trainable {
    /// All of them.
    True,
    /// None of them.
    False,
    /// Some of them.
    Partial,
    /// There are no parameters.
    #[serde(rename = "--")]
    Nothing,
}

/// Lists the rows of a pass.
pub(super) fn of(calls: &ModuleCalls) -> Vec<Row> {
    let places = Places::new(calls);
    let mut listed: Vec<(usize, Option<&ModuleCall>)> = Vec::new();
    let called: HashSet<_> = calls.calls.iter().map(|call| call.position).collect();
    // The modules above the last one, from the first level on.
    let mut above: Vec<usize> = Vec::new();
    for call in &calls.calls {
        let depth = places.depth(call.position);
        for (level, module) in places.above(call.position).into_iter().enumerate() {
            if above.get(level) != Some(&module) {
                above.truncate(level);
                above.push(module);
                listed.push((module, None));
            }
        }
        above.truncate(depth.saturating_sub(1));
        if depth > 0 {
            above.push(call.position);
        }
        listed.push((call.position, Some(call)));
    }
    let (mut called_yet, mut listed_yet) = (HashSet::new(), called);
    let mut counts: Vec<usize> = Vec::new();
    let mut rows: Vec<Row> = Vec::with_capacity(listed.len());
    for (position, call) in listed {
        let known = if call.is_some() { &mut called_yet } else { &mut listed_yet };
        let mut row = places.row(position, call);
        row.is_recursive = !known.insert(position);
        counts.resize(counts.len().max(row.depth + 1), 0);
        counts[row.depth] += 1;
        row.depth_index = counts[row.depth];
        rows.push(row);
    }
    places.share_out(&mut rows);
    for place in (0..rows.len()).rev() {
        let (at, after) = rows[place..].split_first_mut().expect("the place is in the list");
        if !at.is_leaf {
            let below = after.iter().take_while(|row| row.depth > at.depth);
            at.mult_adds = sum(below.filter(|row| row.is_leaf).map(|row| row.mult_adds));
        }
    }
    rows
}

/// The modules of a structure, seen from the one that is called.
struct Places<'a> {
    calls: &'a ModuleCalls,
    numbered: Numbered<'a>,
    /// For each position, that of the last name of the module: torchinfo shows it there.
    home: Vec<usize>,
}

impl<'a> Places<'a> {
    fn new(calls: &'a ModuleCalls) -> Self {
        let positions = &calls.blueprint.positions;
        let mut home: Vec<_> = (0..positions.len()).collect();
        for position in calls.blueprint.subtree(calls.position) {
            home[positions[position].alias.unwrap_or(position)] = position;
        }
        Places { calls, numbered: Numbered::new(&calls.blueprint), home }
    }

    fn blueprint(&self) -> &'a Blueprint {
        &self.calls.blueprint
    }

    /// Lists the modules between the one that is called and another, from the top.
    fn above(&self, mut position: usize) -> Vec<usize> {
        let mut all = Vec::new();
        while position != self.calls.position
            && let Some(parent) = self.blueprint().positions[self.home[position]].parent
            && parent != self.calls.position
        {
            all.push(parent);
            position = parent;
        }
        all.reverse();
        all
    }

    fn depth(&self, position: usize) -> usize {
        if position == self.calls.position { 0 } else { self.above(position).len() + 1 }
    }

    /// Gives each parameter to one row.
    fn share_out(&self, rows: &mut [Row]) {
        let blueprint = self.blueprint();
        let mut first: HashMap<&str, usize> = HashMap::new();
        for (place, row) in rows.iter().enumerate() {
            first.entry(&row.path).or_insert(place);
        }
        let first = |position: usize| first.get(&*blueprint.positions[position].path).copied();
        let mut own = vec![0; rows.len()];
        let all: HashSet<_> = blueprint.parameters_below(self.calls.position).into_iter().collect();
        for (position, index) in all {
            let mut at = Some(position);
            while let Some(position) = at.filter(|&position| first(position).is_none()) {
                at = blueprint.positions[position].parent;
            }
            let row = at.and_then(first).unwrap_or(0);
            own[row] += elements(&blueprint.positions[position].parameters[index]);
        }
        let total: u64 = own.iter().sum();
        for (row, own) in rows.iter_mut().zip(own) {
            row.own_params = own;
            row.params_percent = if total == 0 { 0.0 } else { 100.0 * own as f64 / total as f64 };
        }
    }

    /// Makes a row without what depends on the others.
    fn row(&self, position: usize, call: Option<&ModuleCall>) -> Row {
        let (blueprint, frozen) = (self.blueprint(), &self.calls.frozen);
        let at = &blueprint.positions[position];
        let parameters = self.numbered.below(position);
        let trainable = parameters.iter().filter(|(number, _)| !frozen.contains(*number));
        let trainable_params = trainable.map(|(_, of)| elements(of)).sum();
        let num_params = parameters.iter().map(|(_, of)| elements(of)).sum();
        let input = call.and_then(|call| first_input(&call.inputs));
        let output = call.and_then(|call| first(&call.result));
        let size = |ty: Option<&Type>| ty.map(|ty| ty.shape.to_vec()).unwrap_or_default();
        let is_none = |&child: &usize| blueprint.positions[child].module.is::<NoModule>();
        let class_name = blueprint.class_name(position).into_owned();
        let is_leaf = at.children.iter().all(is_none);
        let mult_adds = match output {
            Some(output) if is_leaf => mult_adds(blueprint, position, &class_name, &output.shape),
            _ => 0,
        };
        Row {
            path: at.path.clone(),
            name: blueprint.positions[self.home[position]].name.clone(),
            class_name,
            depth: self.depth(position),
            depth_index: 0,
            is_leaf,
            is_recursive: false,
            input_size: size(input),
            output_size: size(output),
            num_params,
            trainable_params,
            own_params: 0,
            params_percent: 0.0,
            kernel_size: kernel_size(&at.module.extra_repr()),
            mult_adds,
            trainable: match (num_params, trainable_params) {
                (0, _) => Trainable::Nothing,
                (_, 0) => Trainable::False,
                (all, some) if all == some => Trainable::True,
                _ => Trainable::Partial,
            },
            param_bytes: parameters.iter().map(|(_, of)| of.ty.size_bytes() as u64).sum(),
            output_bytes: output.map_or(0, |ty| ty.size_bytes() as u64),
            time: call.and_then(|call| call.time),
        }
    }
}

/// Finds the array that torchinfo shows of positional arguments: the first.
fn first_input(arguments: &Arguments<Type>) -> Option<&Type> {
    arguments.positional.first().and_then(first)
}

/// Finds the array that torchinfo shows of a value: the first of a tuple, the last of a dictionary.
fn first(tree: &Tree<Type>) -> Option<&Type> {
    match tree {
        Tree::Leaf(ty) => Some(ty),
        Tree::Tuple(items) => items.first().and_then(first),
        Tree::Dict(items) => items.last().and_then(|(_, item)| first(item)),
        Tree::Packed(packed) => Some(&packed.data),
        Tree::None | Tree::Number(_) | Tree::Flag(_) => None,
    }
}

/// Counts the multiply-adds of a call of a module without children, by torchinfo's rule: each element of `weight` and `bias`
/// once for each item of the batch, in convolutions once for each item and place; of other parameters whose names have one of
/// these words in them, as in recurrent layers, once for each item and time step. Other parameters are not counted.
///
/// Source: `LayerInfo.calculate_macs`.
fn mult_adds(blueprint: &Blueprint, position: usize, class_name: &str, output: &[usize]) -> u64 {
    let product = |sizes: &mut dyn Iterator<Item = &usize>| -> u64 {
        sizes.fold(1, |product: u64, &size| product.saturating_mul(size as u64))
    };
    let mut seen = HashSet::new();
    let at = &blueprint.positions[position];
    let own = at
        .parameters
        .iter()
        .enumerate()
        .filter(|(index, of)| seen.insert(of.tied.unwrap_or((position, *index))));
    let macs = own.map(|(_, of)| {
        let times = match of.name.as_str() {
            "weight" | "bias" if class_name.contains("Conv") => {
                product(&mut output.iter().take(1).chain(output.iter().skip(2)))
            }
            "weight" | "bias" => product(&mut output.iter().take(1)),
            name if name.contains("weight") || name.contains("bias") => {
                product(&mut output.iter().take(2))
            }
            _ => 0,
        };
        times.saturating_mul(elements(of))
    });
    sum(macs)
}

/// Reads the setting `kernel_size` from what a module prints: `kernel_size=2`, `kernel_size=(3, 3)`.
fn kernel_size(extra_repr: &str) -> Option<KernelSize> {
    let (_, rest) = extra_repr.split_once("kernel_size=")?;
    if let Some(rest) = rest.strip_prefix('(') {
        let sizes =
            rest.split_once(')')?.0.split(',').map(str::trim).filter(|size| !size.is_empty());
        return sizes.map(|size| size.parse().ok()).collect::<Option<_>>().map(KernelSize::Each);
    }
    let end = rest.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(rest.len());
    rest[..end].parse().ok().map(KernelSize::All)
}
