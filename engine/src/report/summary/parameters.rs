//! [`Numbered`]: the parameters of a structure, and how many elements they have.

use std::collections::HashSet;

use crate::components::module::blueprint::{Blueprint, Parameter};

/// Adds numbers up to the greatest that there is: sizes are described, and may be any.
pub(super) fn sum(numbers: impl Iterator<Item = u64>) -> u64 {
    numbers.fold(0, u64::saturating_add)
}

/// Counts the elements of a parameter; none if its shape is not known yet.
pub(super) fn elements(parameter: &Parameter) -> u64 {
    if parameter.uninitialized { 0 } else { parameter.ty.shape.numel() as u64 }
}

/// The parameters of a structure, with their numbers in the order of `named_parameters()`.
pub(super) struct Numbered<'a> {
    blueprint: &'a Blueprint,
    /// The number of each position's first parameter.
    first: Vec<usize>,
}

impl<'a> Numbered<'a> {
    pub(super) fn new(blueprint: &'a Blueprint) -> Self {
        let mut next = 0;
        let first = blueprint.positions.iter().map(|at| {
            next += at.parameters.len();
            next - at.parameters.len()
        });
        Numbered { first: first.collect(), blueprint }
    }

    /// Lists the parameters of a module and of all below it, each once, but for those whose shapes are not known yet.
    pub(super) fn below(&self, position: usize) -> Vec<(usize, &'a Parameter)> {
        let mut seen = HashSet::new();
        let all = self.blueprint.parameters_below(position).into_iter();
        let all = all.filter(|at| seen.insert(*at)).map(|(position, index)| {
            (self.first[position] + index, &self.blueprint.positions[position].parameters[index])
        });
        all.filter(|(_, of)| !of.uninitialized).collect()
    }
}
