//! `embedding_bag`: sums, means or maxima of rows of a table, chosen by bags of whole numbers.
//!
//! Source: `torch.nn.functional.embedding_bag`. A number that names no row makes its bag NaN and has no
//! gradient, offsets that are not in order make all bags NaN, where torch raises.

use core::marker::PhantomData;
use core::ops::Range;

use super::scatter::{Scatter, sum_rows};
use crate::cpu::kernel::{Cpu, Kernel};
use crate::cpu::simd::Simd;
use crate::cpu::sum::{sum_of, sum_of_pairs};
use crate::cpu::tile::{ModelInputs, Tile, VectorKernel, vector_kernel};
use crate::ir::dtype::Dtype;
use crate::ir::op::{Ask, GradientAt, Op, OpError};
use crate::ir::shape::{Operand, Type};
use crate::ir::trace::Var;
use crate::ops::elementwise::number::Number;
use crate::ops::elementwise::pointwise::{computes, same_dtype};
use crate::ops::reduction::lines::{carve, scratch_bytes};

/// What becomes of the rows of a bag.
///
/// Source: the argument `mode` of `torch.nn.EmbeddingBag`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum BagMode {
    /// They are added up.
    Sum,
    /// They are averaged.
    #[default]
    Mean,
    /// The largest number of each column is taken.
    Max,
}

impl BagMode {
    /// Gives torch's name.
    pub fn name(self) -> &'static str {
        match self {
            BagMode::Sum => "sum",
            BagMode::Mean => "mean",
            BagMode::Max => "max",
        }
    }
}

/// How [`Var::embedding_bag`] chooses and joins rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct EmbeddingBagSettings {
    /// What becomes of the rows of a bag.
    pub mode: BagMode,
    /// The row that counts for nothing.
    pub padding_idx: Option<usize>,
    /// Whether the gradient of a row is divided by how often it is named.
    pub scale_grad_by_freq: bool,
    /// Whether the last offset is the end of the last bag.
    pub include_last_offset: bool,
}

/// What all ops know; inputs are the indices, the table, and perhaps offsets and weights of the indices.
#[derive(Clone, Copy, Debug)]
struct Bags {
    of: EmbeddingBagSettings,
    has_offsets: bool,
    has_weights: bool,
}

/// The bags.
#[derive(Clone, Copy, Debug)]
struct EmbeddingBag(Bags);

/// The gradient of the table; inputs those of [`EmbeddingBag`] and the gradient of the bags.
#[derive(Clone, Copy, Debug)]
struct TableGradient(Bags);

/// The gradient of the weights of the indices; inputs as for [`TableGradient`].
#[derive(Clone, Copy, Debug)]
struct WeightsGradient(Bags);

impl Bags {
    fn n_inputs(self) -> usize {
        2 + usize::from(self.has_offsets) + usize::from(self.has_weights)
    }

    fn attributes(self) -> String {
        let EmbeddingBagSettings { mode, padding_idx, scale_grad_by_freq, include_last_offset } =
            self.of;
        let mode = mode.name();
        format!(
            "mode={mode} padding_idx={padding_idx:?} scale_grad_by_freq={scale_grad_by_freq} \
             include_last_offset={include_last_offset} offsets={} weights={}",
            self.has_offsets, self.has_weights
        )
    }

    /// Checks the inputs and gives the type of the bags.
    fn bags_type(self, inputs: &[Type]) -> Result<Type, OpError> {
        let fail = |message: String| Err(OpError(message));
        let (Some(index), Some(table)) = (inputs.first(), inputs.get(1)) else {
            return fail(format!("embedding_bag: got {} inputs", inputs.len()));
        };
        computes("embedding_bag", table)?;
        let Type { shape, dtype } = table;
        if shape.rank() != 2 {
            return fail(format!(
                "weight has to be a 2D Tensor, but got Tensor of dimension {}",
                shape.rank()
            ));
        }
        if index.dtype != Dtype::I64 {
            return fail(format!(
                "Expected tensor for argument #1 'indices' to have scalar type Long; but got {} instead",
                index.dtype
            ));
        }
        if self.has_weights {
            let weights = inputs.get(self.n_inputs() - 1).unwrap_or(table);
            same_dtype("embedding_bag", table, weights)?;
            if self.of.mode != BagMode::Sum {
                return fail(format!(
                    "embedding_bag: per_sample_weights was not None. per_sample_weights is only supported \
                     for mode='sum' (got mode='{}'). Please open a feature request on GitHub.",
                    self.of.mode.name()
                ));
            }
            if weights.shape != index.shape {
                return fail(format!(
                    "embedding_bag: If per_sample_weights (torch.Size({})) is not None, then it must have \
                     the same shape as the input (torch.Size({}))",
                    weights.shape, index.shape
                ));
            }
        }
        if self.of.mode == BagMode::Max && self.of.scale_grad_by_freq {
            return fail("max mode does not support scaling the gradient by the frequency".into());
        }
        let bags = match (index.shape.rank(), inputs.get(2).filter(|_| self.has_offsets)) {
            (2, None) => index.shape[0],
            (2, Some(_)) => {
                return fail(
                    "if input is 2D, then offsets has to be None, as input is treated is a mini-batch of \
                     fixed length sequences."
                        .into(),
                );
            }
            (1, Some(offsets)) if offsets.dtype == Dtype::I64 && offsets.shape.rank() == 1 => {
                let last = usize::from(self.of.include_last_offset);
                let Some(bags) = offsets.shape[0].checked_sub(last) else {
                    return fail(
                        "include_last_offset: number of offset should be at least 1".into(),
                    );
                };
                bags
            }
            (1, Some(_)) => return fail("offsets has to be a 1D Tensor".into()),
            (1, None) => return fail("offsets has to be a 1D Tensor but got None".into()),
            (rank, _) => {
                return fail(format!(
                    "input has to be 1D or 2D Tensor, but got Tensor of dimension {rank}"
                ));
            }
        };
        Ok(Type::new(*dtype, [bags, shape[1]]))
    }

    /// Checks that the gradient of the bags is the last input.
    fn with_gradient(self, inputs: &[Type]) -> Result<(), OpError> {
        let bags = self.bags_type(inputs)?;
        match inputs.get(self.n_inputs()) {
            Some(dy) if *dy == bags => Ok(()),
            _ => Err(OpError(format!("embedding_bag: expected a gradient of {bags}"))),
        }
    }

    fn kernel(self, inputs: &[Operand], what: What) -> Box<dyn Kernel> {
        let (index, table) = (&inputs[0].ty.shape, &inputs[1].ty);
        let bags = match self.has_offsets {
            true => inputs[2].ty.shape[0] - usize::from(self.of.include_last_offset),
            false => index[0],
        };
        let (of, sizes) = (self, [bags, table.shape[0], table.shape[1], index.numel()]);
        match table.dtype {
            Dtype::F64 => vector_kernel(BagKernel::<f64>::new(of, what, sizes)),
            _ => vector_kernel(BagKernel::<f32>::new(of, what, sizes)),
        }
    }
}

impl Op for EmbeddingBag {
    fn name(&self) -> &'static str {
        "embedding_bag"
    }

    fn attributes(&self) -> String {
        self.0.attributes()
    }

    fn outputs(&self, inputs: &[Type]) -> Result<Vec<Type>, OpError> {
        Ok(vec![self.0.bags_type(inputs)?])
    }

    fn kernels(&self, ask: &mut Ask<'_>) {
        ask.give::<Cpu>(|inputs, _| self.0.kernel(inputs, What::Bags));
    }

    fn gradient(&self, at: &GradientAt<'_>) -> Vec<Option<Var>> {
        let mut gradients = vec![None; at.inputs.len()];
        let Some(dy) = &at.gradients[0] else {
            return gradients;
        };
        let inputs: Vec<_> = at.inputs.iter().chain([dy]).collect();
        let weights = at.inputs.len() - 1;
        if at.needs[1] {
            gradients[1] = Some(dy.trace().apply(TableGradient(self.0), &inputs));
        }
        if self.0.has_weights && at.needs[weights] {
            gradients[weights] = Some(dy.trace().apply(WeightsGradient(self.0), &inputs));
        }
        gradients
    }
}

impl Op for TableGradient {
    fn name(&self) -> &'static str {
        "embedding_bag_gradient"
    }

    fn attributes(&self) -> String {
        self.0.attributes()
    }

    fn outputs(&self, inputs: &[Type]) -> Result<Vec<Type>, OpError> {
        self.0.with_gradient(inputs)?;
        Ok(vec![inputs[1].clone()])
    }

    fn kernels(&self, ask: &mut Ask<'_>) {
        ask.give::<Cpu>(|inputs, _| self.0.kernel(inputs, What::Table));
    }
}

impl Op for WeightsGradient {
    fn name(&self) -> &'static str {
        "embedding_bag_per_sample_weights_gradient"
    }

    fn attributes(&self) -> String {
        self.0.attributes()
    }

    fn outputs(&self, inputs: &[Type]) -> Result<Vec<Type>, OpError> {
        self.0.with_gradient(inputs)?;
        Ok(vec![inputs[self.0.n_inputs() - 1].clone()])
    }

    fn kernels(&self, ask: &mut Ask<'_>) {
        ask.give::<Cpu>(|inputs, _| self.0.kernel(inputs, What::Weights));
    }
}

/// What a kernel computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Bags,
    Table,
    Weights,
}

struct BagKernel<T> {
    of: Bags,
    what: What,
    bags: usize,
    rows: usize,
    columns: usize,
    indices: usize,
    t: PhantomData<T>,
}

/// The inputs of one model.
struct Model<'a, T> {
    indices: &'a [i64],
    table: &'a [T],
    offsets: Option<&'a [i64]>,
    weights: Option<&'a [T]>,
}

impl<T: Number> BagKernel<T> {
    fn new(of: Bags, what: What, [bags, rows, columns, indices]: [usize; 4]) -> Self {
        BagKernel { of, what, bags, rows, columns, indices, t: PhantomData }
    }

    fn model<'a>(&self, inputs: &ModelInputs<'a>) -> Model<'a, T> {
        let (has_offsets, weights) = (self.of.has_offsets, self.of.n_inputs() - 1);
        Model {
            indices: inputs.get(0),
            table: inputs.get(1),
            offsets: has_offsets.then(|| inputs.get(2)),
            weights: self.of.has_weights.then(|| inputs.get(weights)),
        }
    }

    /// Gives the places of a bag's indices; `None` if the offsets are wrong.
    fn bag(&self, model: &Model<'_, T>, bag: usize) -> Option<Range<usize>> {
        let n = model.indices.len();
        let Some(offsets) = model.offsets else {
            let size = n / self.bags.max(1);
            return Some(bag * size..(bag + 1) * size);
        };
        let place = |offset: i64| usize::try_from(offset).ok().filter(|&place| place <= n);
        let start = place(offsets[bag])?;
        let end = offsets.get(bag + 1).map_or(Some(n), |&end| place(end))?;
        (start <= end && offsets[0] == 0).then_some(start..end)
    }

    /// Lists a bag's indices that count: their places and rows, `None` for what is no row.
    fn rows<'a>(
        &'a self,
        model: &'a Model<'_, T>,
        bag: Range<usize>,
    ) -> impl Iterator<Item = (usize, Option<usize>)> + Clone + 'a {
        let row = |index: i64| usize::try_from(index).ok().filter(|&row| row < self.rows);
        let rows = bag.map(move |place| (place, row(model.indices[place])));
        rows.filter(|(_, row)| row.is_none() || *row != self.of.of.padding_idx)
    }

    /// Joins the rows of a bag.
    #[inline(always)]
    fn join(&self, model: &Model<'_, T>, bag: usize, y: &mut [T]) {
        let are_rows = |bag: &Range<usize>| self.rows(model, bag.clone()).all(|of| of.1.is_some());
        let Some(bag) = self.bag(model, bag).filter(are_rows) else {
            return y.fill(T::from_f64(f64::NAN));
        };
        let rows = self.rows(model, bag).filter_map(|(place, row)| {
            let weight = model.weights.map_or(T::from_f64(1.0), |weights| weights[place]);
            Some((&model.table[row? * self.columns..][..self.columns], weight))
        });
        if self.of.of.mode == BagMode::Max {
            y.fill(T::default());
            for (count, (row, _)) in rows.enumerate() {
                for (y, &x) in y.iter_mut().zip(row) {
                    *y = if count == 0 || larger(x, *y) { x } else { *y };
                }
            }
            return;
        }
        sum_rows(rows.clone(), y);
        let count = rows.count();
        if self.of.of.mode == BagMode::Mean && count > 0 {
            let count = T::from_f64(count as f64);
            y.iter_mut().for_each(|y| *y = *y / count);
        }
    }

    /// Computes the gradient of the table.
    #[inline(always)]
    fn scatter(&self, model: &Model<'_, T>, dy: &[T], scratch: &mut [u8], table: &mut [T]) {
        let columns = self.columns.max(1);
        let (listed, scratch) = scratch.split_at_mut(scratch_bytes::<usize>(&self.listed()));
        let [ends, items, bags] = carve::<usize, 3>(listed, self.listed());
        let [counts, shares] = carve::<T, 2>(scratch, [self.rows, self.indices]);
        if self.of.of.mode == BagMode::Max {
            for column in 0..self.columns {
                let most = (0..self.bags).map(|bag| self.most(model, bag, column));
                let named = Scatter::new(most, ends, &mut *items);
                for row in 0..self.rows {
                    let terms = named.of(row);
                    let sum = sum_of(terms, |bag| dy[bag * columns + column]);
                    table[row * columns + column] = sum;
                }
            }
            return;
        }
        self.count(model, counts);
        bags.fill(self.bags);
        for bag in 0..self.bags {
            let Some(places) = self.bag(model, bag) else { continue };
            let rows = self.rows(model, places);
            let size = T::from_f64(rows.clone().filter(|(_, row)| row.is_some()).count() as f64);
            for (place, row) in rows.filter_map(|(place, row)| Some((place, row?))) {
                let mut share = model.weights.map_or(T::from_f64(1.0), |weights| weights[place]);
                if self.of.of.scale_grad_by_freq {
                    share = share / counts[row];
                }
                if self.of.of.mode == BagMode::Mean {
                    share = share / size;
                }
                (bags[place], shares[place]) = (bag, share);
            }
        }
        let row = |(place, &index): (usize, &i64)| {
            usize::try_from(index).ok().filter(|_| bags[place] < self.bags)
        };
        let named = Scatter::new(model.indices.iter().enumerate().map(row), ends, items);
        for (row, sum) in table.chunks_exact_mut(columns).enumerate() {
            let terms = named.of(row).iter();
            sum_rows(
                terms.map(|&place| (&dy[bags[place] * columns..][..columns], shares[place])),
                sum,
            );
        }
    }

    /// Gives the row that has the largest number of a bag in a column.
    fn most(&self, model: &Model<'_, T>, bag: usize, column: usize) -> Option<usize> {
        let value = |row: usize| model.table[row * self.columns + column];
        let rows = self.rows(model, self.bag(model, bag)?).filter_map(|(_, row)| row);
        rows.reduce(|best, row| if larger(value(row), value(best)) { row } else { best })
    }

    /// Elements of scratch memory for lists: of rows, of indices or bags, of the bags of indices.
    fn listed(&self) -> [usize; 3] {
        [self.rows, self.indices.max(self.bags), self.indices]
    }

    /// Counts how often each row is named in all bags.
    fn count(&self, model: &Model<'_, T>, counts: &mut [T]) {
        counts.fill(T::default());
        for &index in model.indices {
            if let Some(count) = usize::try_from(index).ok().and_then(|row| counts.get_mut(row)) {
                *count = *count + T::from_f64(1.0);
            }
        }
    }
}

/// `a > b`, or NaN.
fn larger<T: Number>(a: T, b: T) -> bool {
    let (a, b): (f64, f64) = (a.into(), b.into());
    a > b || (a.is_nan() && !b.is_nan())
}

impl<T: Number> VectorKernel for BagKernel<T> {
    #[inline(always)]
    fn run<S: Simd>(&self, tile: &mut Tile<'_>) {
        let columns = self.columns;
        for model in 0..tile.models() {
            let (inputs, mut outputs, scratch) = tile.model(model).split();
            let (model, y) = (self.model(&inputs), outputs.take::<T>());
            if self.what == What::Bags {
                for bag in 0..self.bags {
                    self.join(&model, bag, &mut y[bag * columns..][..columns]);
                }
                continue;
            }
            let dy = inputs.get::<T>(self.of.n_inputs());
            if self.what == What::Table {
                self.scatter(&model, dy, scratch, y);
                continue;
            }
            y.fill(T::default());
            for bag in 0..self.bags {
                let dy = &dy[bag * columns..][..columns];
                let Some(places) = self.bag(&model, bag) else { continue };
                for (place, row) in self.rows(&model, places) {
                    let Some(row) = row else { continue };
                    let row = &model.table[row * columns..][..columns];
                    y[place] = sum_of_pairs(row, dy, |x, dy| x * dy);
                }
            }
        }
    }

    fn scratch_bytes(&self) -> usize {
        match self.what {
            What::Bags | What::Weights => 0,
            What::Table => {
                scratch_bytes::<usize>(&self.listed())
                    + scratch_bytes::<T>(&[self.rows, self.indices])
            }
        }
    }
}

impl Var {
    /// Joins for each bag of whole numbers the rows of `weight` that they name; an empty bag gives zeros.
    ///
    /// # Shape
    ///
    /// `self` is `[bags, n]` without `offsets`, or `[n]` with `offsets` `[bags]`, where each bag begins (and one
    /// more if `include_last_offset`), both in i64; `weight` is `[rows, columns]`; `per_sample_weights`, factors
    /// of rows for [`BagMode::Sum`], is as `self`. The result is `[bags, columns]`.
    ///
    /// Source: `torch.nn.functional.embedding_bag`.
    #[must_use]
    pub fn embedding_bag(
        &self,
        weight: &Var,
        offsets: Option<&Var>,
        per_sample_weights: Option<&Var>,
        settings: EmbeddingBagSettings,
    ) -> Var {
        let bags = Bags {
            of: settings,
            has_offsets: offsets.is_some(),
            has_weights: per_sample_weights.is_some(),
        };
        let inputs: Vec<_> =
            [self, weight].into_iter().chain(offsets).chain(per_sample_weights).collect();
        self.trace().apply(EmbeddingBag(bags), &inputs)
    }
}
