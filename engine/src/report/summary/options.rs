//! [`SummaryOptions`]: what a model is called with, and what its summary shows.

use crate::kernels::ir::dtype::Dtype;
use crate::kernels::ir::shape::Shape;
use crate::kernels::ir::tree::{Arguments, Tree};
use crate::systems::execute::step::calls::InputSize;

/// What a model is called with for its [`Summary`](super::Summary), and what the text shows: torchinfo's arguments.
///
/// # Example
///
/// Two arrays, a keyword argument, and the time of each layer:
///
/// ```
/// use neurarch::prelude::*;
/// use neurarch::report::summary::{Column, SummaryOptions};
///
/// let options = SummaryOptions::new([16]).input_dtype(Dtype::I64) // token numbers
///     .input([16, 3]) // their features
///     .keyword("mask", [16])
///     .depth(2)
///     .columns([Column::OutputSize, Column::MultAdds, Column::Time])
///     .timed(true);
/// ```
///
/// Source: the arguments of `torchinfo.summary`.
#[derive(Clone, Debug)]
pub struct SummaryOptions {
    pub(super) inputs: Arguments<InputSize>,
    pub(super) depth: usize,
    pub(super) timed: bool,
    columns: Option<Vec<Column>>,
}

/// A column of the text, with torchinfo's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Column {
    /// `input_size`.
    InputSize,
    /// `output_size`.
    OutputSize,
    /// `num_params`.
    NumParams,
    /// `params_percent`.
    ParamsPercent,
    /// `kernel_size`.
    KernelSize,
    /// `mult_adds`.
    MultAdds,
    /// `trainable`.
    Trainable,
    /// Bytes of the parameters; torchinfo has them in the totals alone.
    ParamBytes,
    /// Bytes of the result; torchinfo has them in the totals alone.
    OutputBytes,
    /// How long the call took, which torchinfo does not measure.
    Time,
}

impl Column {
    /// torchinfo's columns, in the order of its documentation.
    pub const TORCHINFO: [Column; 7] = [
        Column::InputSize,
        Column::OutputSize,
        Column::NumParams,
        Column::ParamsPercent,
        Column::KernelSize,
        Column::MultAdds,
        Column::Trainable,
    ];
}

fn array(size: impl Into<Shape>) -> Tree<InputSize> {
    Tree::Leaf(InputSize { size: size.into(), dtype: None })
}

impl SummaryOptions {
    /// Calls with one array of that size, batch included, of the models' element type; shows three levels below the module.
    pub fn new(input_size: impl Into<Shape>) -> Self {
        Self::of(Arguments::one(array(input_size)))
    }

    /// Calls with any arguments: numbers and flags, tuples and dictionaries of arrays.
    pub fn of(inputs: Arguments<InputSize>) -> Self {
        SummaryOptions { inputs, depth: 3, timed: false, columns: None }
    }

    /// Adds an array to those that the module is called with.
    #[must_use]
    pub fn input(mut self, input_size: impl Into<Shape>) -> Self {
        self.inputs.positional.push(array(input_size));
        self
    }

    /// Adds an array as a keyword argument.
    #[must_use]
    pub fn keyword(mut self, name: &str, input_size: impl Into<Shape>) -> Self {
        self.inputs = self.inputs.with(name, array(input_size));
        self
    }

    /// Says of which type the elements of the array are that was added last: the last keyword argument, or else the last
    /// positional one.
    #[must_use]
    pub fn input_dtype(mut self, input_dtype: Dtype) -> Self {
        let Arguments { positional, keyword } = &mut self.inputs;
        let last = keyword.last_mut().map(|(_, tree)| tree).or(positional.last_mut());
        if let Some(last) = last {
            let all = std::mem::take(last);
            *last = all.map(&mut |of| InputSize { dtype: Some(input_dtype), ..of });
        }
        self
    }

    /// Says how many levels below the module text shows. Rows are of all levels.
    #[must_use]
    pub fn depth(self, depth: usize) -> Self {
        SummaryOptions { depth, ..self }
    }

    /// Has each call timed: one model computes a forward pass op by op.
    #[must_use]
    pub fn timed(self, timed: bool) -> Self {
        SummaryOptions { timed, ..self }
    }

    /// Says which columns text shows; without it, the size of the result and the parameters, and the time if it is measured.
    #[must_use]
    pub fn columns(self, columns: impl IntoIterator<Item = Column>) -> Self {
        SummaryOptions { columns: Some(columns.into_iter().collect()), ..self }
    }

    pub(super) fn shown_columns(&self) -> Vec<Column> {
        let default = [Column::OutputSize, Column::NumParams];
        let time = self.timed.then_some(Column::Time);
        self.columns.clone().unwrap_or_else(|| default.into_iter().chain(time).collect())
    }
}
