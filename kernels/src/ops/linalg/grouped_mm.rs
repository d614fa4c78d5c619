//! `grouped_mm`: products of groups of rows or columns, whose ends are values, each with a matrix of its own.
//!
//! Each group is multiplied as it would be alone (`multiply`): how follows from its sizes. The transposed operands of
//! a gradient are read where they lie.
//!
//! Source: `torch.nn.functional.grouped_mm`.

use core::marker::PhantomData;

use super::matmul::strides;
use crate::cpu::gemm::{BiasAxis, Finish, Product, Strides, WORTH_SPLITTING};
use crate::cpu::kernel::{Cpu, Kernel};
use crate::cpu::product::multiply;
use crate::cpu::scratch::with_scratch;
use crate::cpu::simd::Float;
use crate::cpu::tile::Tile;
use crate::ir::dtype::Dtype;
use crate::ir::op::{Ask, GradientAt, Mixing, Op, OpError};
use crate::ir::shape::{Operand, Type};
use crate::ir::trace::{Function, Var};
use crate::ops::elementwise::pointwise::computes;

/// The product of two matrices, one of which is or both of which are cut into groups. The third input has the ends.
#[derive(Clone, Copy, Debug)]
struct GroupedMm;

/// What the ends cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cut {
    /// The rows of `a`, hence of the result; `b` has a matrix for each group.
    Rows,
    /// The columns of `b`, hence of the result; `a` has a matrix for each group.
    Columns,
    /// The columns of `a` and the rows of `b`; the result has a matrix for each group.
    Inner,
}

impl Var {
    /// Multiplies groups of matrices: group `i` goes from the end of the one before it to place `offs[i]` of the axis
    /// that is cut.
    ///
    /// `offs` are values: they may differ from model to model and from step to step within one plan. What lies
    /// behind the last group is ignored; where it would be in the result stands 0.
    ///
    /// # Shape
    ///
    /// | `self`      | `mat_b`     | `offs`  | result      | what is cut                           |
    /// |-------------|-------------|---------|-------------|---------------------------------------|
    /// | `[m, k]`    | `[g, k, n]` | `[g]`   | `[m, n]`    | rows of `self`                        |
    /// | `[g, m, k]` | `[k, n]`    | `[g]`   | `[m, n]`    | columns of `mat_b`                    |
    /// | `[m, k]`    | `[k, n]`    | `[g]`   | `[g, m, n]` | columns of `self` and rows of `mat_b` |
    /// | `[g, m, k]` | `[g, k, n]` | none    | `[g, m, n]` | nothing                               |
    ///
    /// # Example
    ///
    /// Two experts, of which the first gets one token and the second two:
    ///
    /// ```
    /// # use neurarch_kernels::ir::dtype::Dtype;
    /// # use neurarch_kernels::testing::{Array, evaluate};
    /// let tokens = Array::new(Dtype::F32, [3, 1], [1.0, 2.0, 3.0]);
    /// let experts = Array::new(Dtype::F32, [2, 1, 1], [10.0, 100.0]);
    /// let offs = Array::new(Dtype::I64, [2], [1.0, 3.0]);
    /// let y = evaluate(|v| v[0].grouped_mm(&v[1], Some(&v[2])), &[tokens, experts, offs], &[]);
    /// assert_eq!(y.elements, [10.0, 200.0, 300.0]);
    /// ```
    ///
    /// Source: `torch.nn.functional.grouped_mm`, whose `offs` are of int32, whose strides must be multiples of 16
    /// bytes, and which takes no f64. Its `bias` and `out_dtype` are left out: it refuses any bias and any other type
    /// than that of the matrices. `offs` that fall, or are not from 0 to the size of the axis, make all of the result
    /// NaN; torch goes by the slices that they would be in Python, and leaves what is behind the last group, in
    /// results and gradients, as memory was.
    #[must_use]
    pub fn grouped_mm(&self, mat_b: &Var, offs: Option<&Var>) -> Var {
        let trace = self.trace();
        if trace.error().is_some() {
            return trace.poison();
        }
        if let Err(message) = check(self.ty(), mat_b.ty(), offs.map(Var::ty)) {
            return trace.fail(message);
        }
        let inputs = [Some(self), Some(mat_b)];
        trace.function(Function::of_same("grouped_mm"), &inputs, |cast| match offs {
            Some(offs) => cast(self).by_groups(&cast(mat_b), offs),
            None => cast(self).matmul(&cast(mat_b)),
        })
    }

    fn by_groups(&self, mat_b: &Var, offs: &Var) -> Var {
        self.trace().apply(GroupedMm, &[self, mat_b, offs])
    }
}

/// Checks the inputs, in torch's words.
fn check(a: &Type, b: &Type, offs: Option<&Type>) -> Result<(), String> {
    if a.dtype != b.dtype {
        return Err(format!(
            "Expected mat_a and mat_b to have the same dtype, got {} and {}",
            a.dtype, b.dtype
        ));
    }
    for (name, ty) in [("mat_a", a), ("mat_b", b)] {
        if !ty.dtype.is_float() {
            return Err(format!(
                "Expected {name} to be Float32, BFloat16 or Float16 matrix, got {}",
                ty.dtype
            ));
        }
        if !matches!(ty.shape.rank(), 2 | 3) {
            return Err(format!("{name} has to be 2 or 3d"));
        }
    }
    let (a_rank, b_rank) = (a.shape.rank(), b.shape.rank());
    if a.shape[a_rank - 1] != b.shape[b_rank - 2] {
        return Err("contraction dimension of mat_a and mat_b must match".to_owned());
    }
    let is_cut = a_rank == 2 || b_rank == 2;
    if offs.is_some() != is_cut {
        return Err(
            "Have to provide offsets if there is a 2d matrix, or no offset if both matrices are 3d"
                .to_owned(),
        );
    }
    let Some(offs) = offs else {
        return match a.shape[0] == b.shape[0] {
            true => Ok(()),
            false => Err("batched dimension has to match".to_owned()),
        };
    };
    let [groups] = *offs.shape else { return Err("offs has to be 1D".to_owned()) };
    if offs.dtype != Dtype::I64 {
        return Err(format!("Offsets have to be int64, got {}", offs.dtype));
    }
    let batch = [a, b].into_iter().find(|ty| ty.shape.rank() == 3);
    match batch.is_none_or(|ty| ty.shape[0] == groups) {
        true => Ok(()),
        false => Err("matrix batch sizes have to match".to_owned()),
    }
}

impl Op for GroupedMm {
    fn name(&self) -> &'static str {
        "grouped_mm"
    }

    fn mixing(&self) -> Mixing {
        Mixing::Same
    }

    fn outputs(&self, inputs: &[Type]) -> Result<Vec<Type>, OpError> {
        let [a, b, offs] = inputs else {
            return Err(OpError(format!("grouped_mm: expected 3 inputs, got {}", inputs.len())));
        };
        check(a, b, Some(offs)).map_err(OpError)?;
        computes("grouped_mm", a)?;
        let (m, n) = (a.shape[a.shape.rank() - 2], b.shape[b.shape.rank() - 1]);
        Ok(vec![match Cut::of(a, b) {
            Cut::Inner => Type::new(a.dtype, [offs.shape[0], m, n]),
            Cut::Rows | Cut::Columns => Type::new(a.dtype, [m, n]),
        }])
    }

    fn takes_layout(&self, input: usize, operand: &Operand) -> bool {
        let is_line = |operand| {
            let lie = strides(operand, false);
            lie.row == 1 || lie.column == 1
        };
        if input < 2 { is_line(operand) } else { operand.is_row_major() }
    }

    fn cost(&self, inputs: &[Type], _: &[Type]) -> usize {
        2 * Groups::of(&inputs.iter().cloned().map(Operand::row_major).collect::<Vec<_>>()).work()
    }

    fn kernels(&self, ask: &mut Ask<'_>) {
        ask.give::<Cpu>(|inputs, _| {
            let groups = Groups::of(inputs);
            match inputs[0].ty.dtype {
                Dtype::F64 => Box::new(GroupsKernel::<f64>::new(groups)),
                _ => Box::new(GroupsKernel::<f32>::new(groups)),
            }
        });
    }

    fn gradient(&self, at: &GradientAt<'_>) -> Vec<Option<Var>> {
        let [a, b, offs] = at.inputs else { return Vec::new() };
        let Some(dy) = &at.gradients[0] else {
            return vec![None; 3];
        };
        let da = at.needs[0].then(|| dy.by_groups(&b.mt(), offs));
        let db = at.needs[1].then(|| a.mt().by_groups(dy, offs));
        vec![da, db, None]
    }
}

impl Cut {
    fn of(a: &Type, b: &Type) -> Cut {
        match (a.shape.rank(), b.shape.rank()) {
            (_, 3) => Cut::Rows,
            (3, _) => Cut::Columns,
            _ => Cut::Inner,
        }
    }
}

/// Where the products of all groups lie.
#[derive(Clone, Copy, Debug)]
struct Groups {
    cut: Cut,
    /// The product of a group that is as large as the axis.
    whole: Product,
    /// Elements from a group's matrices `A`, `B` and `C` to the next one's; 0 where there is one for all.
    per_group: [usize; 3],
    /// Elements of `A`, `B` and `C` from one place of the axis that is cut to the next.
    per_place: [usize; 3],
}

impl Groups {
    fn of(inputs: &[Operand]) -> Self {
        let (a, b) = (&inputs[0], &inputs[1]);
        let cut = Cut::of(&a.ty, &b.ty);
        let (of_a, of_b) = (strides(a, false), strides(b, false));
        let (m, k) = (a.ty.shape[a.ty.shape.rank() - 2], a.ty.shape[a.ty.shape.rank() - 1]);
        let n = b.ty.shape[b.ty.shape.rank() - 1];
        let of_c = Strides { row: n, column: 1 };
        let whole = Product {
            m,
            n,
            k,
            a: of_a,
            b: of_b,
            c: of_c,
            bias: BiasAxis::Columns,
            finish: Finish::Sum,
        };
        let (per_group, per_place) = match cut {
            Cut::Rows => ([0, b.layout[0], 0], [of_a.row, 0, of_c.row]),
            Cut::Columns => ([a.layout[0], 0, 0], [0, of_b.column, of_c.column]),
            Cut::Inner => ([0, 0, m * n], [of_a.column, of_b.row, 0]),
        };
        Groups { cut, whole, per_group, per_place }
    }

    /// Gives how many places the axis has that is cut.
    fn places(&self) -> usize {
        match self.cut {
            Cut::Rows => self.whole.m,
            Cut::Columns => self.whole.n,
            Cut::Inner => self.whole.k,
        }
    }

    /// Gives the product of a group of so many places.
    fn product(&self, places: usize) -> Product {
        match self.cut {
            Cut::Rows => Product { m: places, ..self.whole },
            Cut::Columns => Product { n: places, ..self.whole },
            Cut::Inner => Product { k: places, ..self.whole },
        }
    }

    /// Says where the matrices `A`, `B` and `C` of a group begin that starts at some place of the axis.
    fn starts(&self, group: usize, start: usize) -> [usize; 3] {
        core::array::from_fn(|of| group * self.per_group[of] + start * self.per_place[of])
    }

    /// Counts the bytes of working memory of one group.
    fn scratch_bytes<T>(&self) -> usize {
        self.whole.scratch_elements() * size_of::<T>()
    }

    /// Counts the multiply-adds of all groups, at most.
    fn work(&self) -> usize {
        self.whole.m * self.whole.n * self.whole.k
    }
}

/// Computes the product of each group.
struct GroupsKernel<T> {
    groups: Groups,
    of: PhantomData<T>,
}

impl<T: Float> GroupsKernel<T> {
    fn new(groups: Groups) -> Self {
        GroupsKernel { groups, of: PhantomData }
    }

    /// Computes the products of one model.
    fn compute(
        &self,
        [a, b]: [&[T]; 2],
        ends: &[i64],
        c: &mut [T],
        scratch: &mut [T],
        split: bool,
    ) {
        let places = self.groups.places();
        let is_place = |&end: &i64| usize::try_from(end).is_ok_and(|end| end <= places);
        if !ends.is_sorted() || !ends.iter().all(is_place) {
            c.fill(T::from_f64(f64::NAN));
            return;
        }
        c.fill(T::default());
        let all = Several { groups: &self.groups, a, b, ends, first: 0, start: 0, c, base: 0 };
        // The columns of a result lie among each other.
        match split && self.groups.cut != Cut::Columns {
            true => all.split(),
            false => all.compute(scratch, split),
        }
    }
}

/// Some groups of one model, one behind the other.
struct Several<'a, T> {
    groups: &'a Groups,
    a: &'a [T],
    b: &'a [T],
    /// Where they end.
    ends: &'a [i64],
    /// The number of the first.
    first: usize,
    /// Where it starts.
    start: usize,
    /// Their results, from element `base` on.
    c: &'a mut [T],
    base: usize,
}

impl<T: Float> Several<'_, T> {
    /// Computes one after the other.
    fn compute(self, scratch: &mut [T], split: bool) {
        let Several { groups, a, b, ends, first, mut start, c, base } = self;
        for (group, &end) in (first..).zip(ends) {
            let end = end as usize;
            let product = groups.product(end - start);
            if product.m * product.n * product.k > 0 {
                let [of_a, of_b, of_c] = groups.starts(group, start);
                multiply(product, [&a[of_a..], &b[of_b..]], &mut c[of_c - base..], scratch, split);
            }
            start = end;
        }
    }

    /// Shares them out on the threads of the pool, and a large one within itself.
    fn split(self) {
        let Several { groups, a, b, ends, first, start, c, base } = self;
        let last = ends.last().map_or(start, |&end| end as usize);
        let product = groups.product(last - start);
        let work = product.m * product.n * product.k;
        if ends.len() < 2 || work < WORTH_SPLITTING {
            let some = Several { groups, a, b, ends, first, start, c, base };
            with_scratch(groups.scratch_bytes::<T>(), |scratch| {
                some.compute(bytemuck::cast_slice_mut(scratch), true);
            });
            return;
        }
        let middle = usize::midpoint(start, last);
        let count = ends.partition_point(|&end| (end as usize) <= middle);
        let (upper, lower) = ends.split_at(count.clamp(1, ends.len() - 1));
        let next = upper.last().map_or(start, |&end| end as usize);
        let [.., of_c] = groups.starts(first + upper.len(), next);
        let (above, below) = c.split_at_mut(of_c - base);
        let upper = Several { groups, a, b, ends: upper, first, start, c: above, base };
        let first = first + upper.ends.len();
        let lower = Several { groups, a, b, ends: lower, first, start: next, c: below, base: of_c };
        rayon::join(|| upper.split(), || lower.split());
    }
}

impl<T: Float> Kernel for GroupsKernel<T> {
    fn run(&self, tile: &mut Tile<'_>) {
        let split = tile.split();
        for model in 0..tile.models() {
            let (inputs, mut outputs, scratch) = tile.model(model).split();
            let matrices = [inputs.get::<T>(0), inputs.get::<T>(1)];
            let scratch = bytemuck::cast_slice_mut(scratch);
            self.compute(matrices, inputs.get::<i64>(2), outputs.take::<T>(), scratch, split);
        }
    }

    fn scratch_bytes(&self) -> usize {
        self.groups.scratch_bytes::<T>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::autocast::Autocast;
    use crate::ir::device::Device;
    use crate::ir::trace::Trace;
    use crate::testing::{Array, check_gradient, check_layouts, evaluate, run_op};

    fn of(shape: &[usize], pitch: f64) -> Array {
        Array::from_fn(Dtype::F64, shape, |i| (pitch * i as f64 + 0.3).sin())
    }

    fn ends(ends: &[f64]) -> Array {
        Array::new(Dtype::I64, [ends.len()], ends)
    }

    /// Every cut, with an empty group and a place behind the last one.
    fn cases() -> [[Array; 3]; 3] {
        [
            [of(&[5, 3], 0.7), of(&[3, 3, 4], 1.1), ends(&[1.0, 1.0, 4.0])],
            [of(&[2, 4, 3], 0.7), of(&[3, 6], 1.1), ends(&[2.0, 5.0])],
            [of(&[2, 6], 0.7), of(&[6, 3], 1.1), ends(&[3.0, 3.0, 5.0])],
        ]
    }

    fn product(v: &[Var]) -> Var {
        v[0].grouped_mm(&v[1], v.get(2))
    }

    #[test]
    fn gradients_are_the_slopes_of_forward() {
        for case in cases() {
            check_gradient(product, &case, 1e-6);
            check_layouts(product, &case);
        }
        let batches = [of(&[2, 2, 3], 0.7), of(&[2, 3, 2], 1.1)];
        check_gradient(product, &batches, 1e-6);
    }

    #[test]
    fn groups_of_halves_give_halves_and_autocast_leaves_singles() {
        let trace = Trace::new();
        let of = |dtype, shape: &[usize]| trace.input(Type::new(dtype, shape));
        let ends = of(Dtype::I64, &[2]);
        for dtype in [Dtype::BF16, Dtype::F32] {
            let how = Autocast::new(Device::Cpu, Dtype::BF16);
            let (rows, all) = (of(dtype, &[4, 3]), of(dtype, &[2, 4, 3]));
            let each = of(dtype, &[2, 3, 2]);
            let [cut, whole] = trace.autocast(how, || {
                [rows.grouped_mm(&each, Some(&ends)), all.grouped_mm(&each, None)]
            });
            assert_eq!([cut.dtype(), whole.dtype()], [dtype; 2]);
        }
        assert_eq!(trace.error(), None);
    }

    #[test]
    fn offsets_that_fall_or_leave_the_axis_make_all_nan() {
        let [a, b, _] = &cases()[1];
        for bad in [[5.0, 2.0], [2.0, 7.0], [-1.0, 2.0]] {
            let y = run_op(&GroupedMm, &[a.clone(), b.clone(), ends(&bad)], &[]);
            assert!(y[0].elements.iter().all(|y| y.is_nan()), "{bad:?}");
        }
    }

    #[test]
    fn axes_without_elements_give_zeros() {
        let none = [of(&[3, 0], 0.7), of(&[2, 0, 2], 1.1), ends(&[1.0, 3.0])];
        assert_eq!(evaluate(product, &none, &[]).elements, [0.0; 6]);
        let no_groups = [of(&[3, 2], 0.7), of(&[0, 2, 2], 1.1), ends(&[])];
        assert_eq!(evaluate(product, &no_groups, &[]).elements, [0.0; 6]);
        let no_rows = [of(&[0, 2], 0.7), of(&[2, 2, 2], 1.1), ends(&[0.0, 0.0])];
        assert_eq!(evaluate(product, &no_rows, &[]).elements, [0.0; 0]);
    }

    #[test]
    fn what_torch_refuses_is_refused_in_its_words() {
        type Refusal<'a> = (&'a [&'a [usize]], [Dtype; 3], &'a str);
        let error = |shapes: &[&[usize]], dtypes: [Dtype; 3]| {
            let trace = Trace::new();
            let inputs = shapes.iter().zip(dtypes);
            let v: Vec<_> = inputs.map(|(&shape, of)| trace.input(Type::new(of, shape))).collect();
            let _ = product(&v);
            trace.error().map(|error| error.message).unwrap_or_default()
        };
        let usual = [Dtype::F32, Dtype::F32, Dtype::I64];
        let offsets =
            "Have to provide offsets if there is a 2d matrix, or no offset if both matrices are 3d";
        let refusals: [Refusal<'_>; 11] = [
            (&[&[4, 3], &[2, 3, 2]], usual, offsets),
            (&[&[2, 4, 3], &[2, 3, 2], &[2]], usual, offsets),
            (&[&[4, 3], &[2, 3, 2], &[1]], usual, "matrix batch sizes have to match"),
            (&[&[3, 4, 3], &[3, 2], &[2]], usual, "matrix batch sizes have to match"),
            (&[&[3, 4, 3], &[2, 3, 2]], usual, "batched dimension has to match"),
            (
                &[&[4, 3], &[2, 4, 2], &[2]],
                usual,
                "contraction dimension of mat_a and mat_b must match",
            ),
            (&[&[4], &[2, 4, 2], &[2]], usual, "mat_a has to be 2 or 3d"),
            (&[&[4, 4], &[1, 2, 4, 2], &[2]], usual, "mat_b has to be 2 or 3d"),
            (&[&[4, 3], &[2, 3, 2], &[1, 2]], usual, "offs has to be 1D"),
            (&[&[4, 3], &[2, 3, 2], &[2]], [Dtype::F32; 3], "Offsets have to be int64, got f32"),
            (
                &[&[4, 3], &[2, 3, 2], &[2]],
                [Dtype::F32, Dtype::BF16, Dtype::I64],
                "Expected mat_a and mat_b to have the same dtype, got f32 and bf16",
            ),
        ];
        for (shapes, dtypes, words) in refusals {
            assert_eq!(error(shapes, dtypes), words);
        }
    }
}
