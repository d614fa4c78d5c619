//! Rows of the first axis in another order, and put to other places: `select_rows` and `put_rows`. Each is the
//! other's gradient.

use core::fmt::Debug;
use std::sync::Arc;

use crate::cpu::kernel::{Cpu, Kernel};
use crate::cpu::tile::Tile;
use crate::device::code::{Cuda, Definition, DeviceCode, element};
use crate::device::formula::hash;
use crate::ir::dtype::{Dtype, Element};
use crate::ir::op::{Ask, GradientAt, Op, OpError};
use crate::ir::shape::{Operand, Shape, Type};
use crate::ir::trace::Var;

/// Row `i` of the output is row `rows[i]` of the input.
#[derive(Clone, Debug)]
struct SelectRows {
    rows: Arc<[usize]>,
}

/// Row `rows[i]` of the output is row `i` of the input; the others are filled.
#[derive(Clone, Debug)]
struct PutRows {
    rows: Arc<[usize]>,
    /// How many rows the output has.
    size: usize,
    fill: f64,
}

/// Checks that each of `rows` is below `size` and none is there twice.
fn check(op: &str, rows: &[usize], size: usize) -> Result<(), OpError> {
    let mut sorted = rows.to_vec();
    sorted.sort_unstable();
    if let Some(row) = sorted.last().filter(|&&row| row >= size) {
        return Err(OpError(format!("{op}: index {row} is out of bounds for size {size}")));
    }
    match sorted.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(OpError(format!("{op}: index {} is there twice", pair[0]))),
        None => Ok(()),
    }
}

/// Returns `ty` with another number of rows, and the number it has.
fn with_rows(op: &str, inputs: &[Type], rows: usize) -> Result<(Type, usize), OpError> {
    let [Type { dtype, shape }] = inputs else {
        return Err(OpError(format!("{op}: expected 1 input, got {}", inputs.len())));
    };
    let Some((&size, rest)) = shape.split_first() else {
        return Err(OpError(format!("{op}: expected at least 1 dimension, got 0")));
    };
    let shape: Shape = [rows].into_iter().chain(rest.iter().copied()).collect();
    Ok((Type { dtype: *dtype, shape }, size))
}

/// Copies row `from(i)` to row `to(i)` for each of `n` rows; all that is not written becomes `fill`.
fn copies<T: Element>(
    width: usize,
    fill: Option<T>,
    pairs: Vec<(usize, usize)>,
) -> Box<dyn Kernel> {
    Box::new(move |tile: &mut Tile<'_>| {
        for model in 0..tile.models() {
            let (inputs, mut outputs, _) = tile.model(model).split();
            let (x, y) = (inputs.get::<T>(0), outputs.take::<T>());
            if let Some(fill) = fill {
                y.fill(fill);
            }
            for &(from, to) in &pairs {
                y[to * width..][..width].copy_from_slice(&x[from * width..][..width]);
            }
        }
    })
}

fn kernel(output: &Operand, fill: Option<f64>, pairs: Vec<(usize, usize)>) -> Box<dyn Kernel> {
    let width = output.ty.shape[1..].iter().product();
    match output.ty.dtype {
        Dtype::F64 => copies::<f64>(width, fill, pairs),
        Dtype::F32 => copies(width, fill.map(|fill| fill as f32), pairs),
        Dtype::I64 => copies(width, fill.map(|fill| fill as i64), pairs),
        // Bytes: what has two of them has rows twice as long.
        other => {
            let fill = fill.map(|fill| u8::from(fill != 0.0));
            copies::<u8>(width * other.size_bytes(), fill, pairs)
        }
    }
}

/// Returns the device code that copies to each row of the output the row of the input that is its source, if it has one.
fn on_device(output: &Operand, fill: f64, sources: &[Option<usize>]) -> DeviceCode {
    let (numel, width) = (output.ty.shape.numel(), output.ty.shape[1..].iter().product::<usize>());
    let number = element(output);
    let fill = match output.ty.dtype {
        Dtype::F32 | Dtype::F64 => {
            format!("({number})__longlong_as_double({:#x}ll)", fill.to_bits())
        }
        Dtype::I64 => format!("(i64){:#x}ull", fill as i64),
        // As the CPU's, each of its bytes.
        Dtype::F16 | Dtype::BF16 => (257 * u32::from(fill != 0.0)).to_string(),
        Dtype::Bool => u32::from(fill != 0.0).to_string(),
    };
    let table: Vec<_> =
        sources.iter().map(|from| from.map_or(-1, |from| from as i64).to_string()).collect();
    let text = table.join(", ");
    let name = format!("rows_{:08x}", hash(&text));
    let text = format!("static __device__ const int {name}[] = {{{text}}};\n");
    let call = format!(
        "for (int i = t; i < {numel}; i += T) {{ const int from = {name}[i / {width}]; \
         {{1}}[i] = from < 0 ? {fill} : {{0}}[from * {width} + i % {width}]; }}"
    );
    let definitions = vec![Definition { name, text }];
    DeviceCode { definitions, call, scratch_bytes: 0, width: numel }
}

impl Op for SelectRows {
    fn name(&self) -> &'static str {
        "select_rows"
    }

    fn attributes(&self) -> String {
        format!("{:?}", self.rows)
    }

    fn outputs(&self, inputs: &[Type]) -> Result<Vec<Type>, OpError> {
        let (ty, size) = with_rows(self.name(), inputs, self.rows.len())?;
        check(self.name(), &self.rows, size)?;
        Ok(vec![ty])
    }

    fn kernels(&self, ask: &mut Ask<'_>) {
        ask.give::<Cpu>(|_, outputs| {
            let pairs = self.rows.iter().enumerate().map(|(to, &from)| (from, to)).collect();
            kernel(&outputs[0], None, pairs)
        })
        .give::<Cuda>(|_, outputs| {
            let sources: Vec<_> = self.rows.iter().copied().map(Some).collect();
            Box::new(on_device(&outputs[0], 0.0, &sources))
        });
    }

    fn gradient(&self, at: &GradientAt<'_>) -> Vec<Option<Var>> {
        let size = at.inputs[0].shape()[0];
        vec![at.gradients[0].as_ref().map(|dy| dy.put_rows(&self.rows, size, 0.0))]
    }
}

impl Op for PutRows {
    fn name(&self) -> &'static str {
        "put_rows"
    }

    fn attributes(&self) -> String {
        format!("{:?} of {}, others {:?}", self.rows, self.size, self.fill)
    }

    fn outputs(&self, inputs: &[Type]) -> Result<Vec<Type>, OpError> {
        let (ty, given) = with_rows(self.name(), inputs, self.size)?;
        check(self.name(), &self.rows, self.size)?;
        if given != self.rows.len() {
            let expected = self.rows.len();
            return Err(OpError(format!("put_rows: expected {expected} rows, got {given}")));
        }
        Ok(vec![ty])
    }

    fn kernels(&self, ask: &mut Ask<'_>) {
        ask.give::<Cpu>(|_, outputs| {
            let pairs: Vec<_> = self.rows.iter().copied().enumerate().collect();
            let fill = (pairs.len() < self.size).then_some(self.fill);
            kernel(&outputs[0], fill, pairs)
        })
        .give::<Cuda>(|_, outputs| {
            let mut sources = vec![None; self.size];
            for (from, &to) in self.rows.iter().enumerate() {
                sources[to] = Some(from);
            }
            Box::new(on_device(&outputs[0], self.fill, &sources))
        });
    }

    fn gradient(&self, at: &GradientAt<'_>) -> Vec<Option<Var>> {
        vec![at.gradients[0].as_ref().map(|dy| dy.select_rows(&self.rows))]
    }
}

impl Var {
    /// Gives the indices `rows` of the first axis, in that order, each at most once.
    ///
    /// Source: `torch.index_select(x, 0, rows)`, with numbers that are known while tracing.
    #[must_use]
    pub fn select_rows(&self, rows: &[usize]) -> Var {
        if self.shape().first() == Some(&rows.len())
            && rows.iter().enumerate().all(|(i, &r)| i == r)
        {
            return self.clone();
        }
        self.trace().apply(SelectRows { rows: rows.into() }, &[self])
    }

    /// Makes index `i` of the first axis index `rows[i]` of one of that size, each at most once; the other
    /// elements become `fill`.
    ///
    /// Source: `torch.full(.., fill).index_copy(0, rows, x)`.
    #[must_use]
    pub fn put_rows(&self, rows: &[usize], size: usize, fill: f64) -> Var {
        if rows.len() == size {
            let mut from = vec![0; size];
            for (i, &row) in rows.iter().enumerate() {
                if let Some(from) = from.get_mut(row) {
                    *from = i;
                }
            }
            return self.select_rows(&from);
        }
        self.trace().apply(PutRows { rows: rows.into(), size, fill }, &[self])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Array, check_gradient, evaluate};

    fn x() -> Array {
        Array::from_fn(Dtype::F64, [3, 2], |i| i as f64)
    }

    #[test]
    fn rows_are_chosen_and_put_back() {
        let chosen = evaluate(|v| v[0].select_rows(&[2, 0]), &[x()], &[]);
        assert_eq!(chosen.elements, [4.0, 5.0, 0.0, 1.0]);
        let put = evaluate(|v| v[0].put_rows(&[3, 0, 2], 4, -1.0), &[x()], &[]);
        assert_eq!(put.elements, [2.0, 3.0, -1.0, -1.0, 4.0, 5.0, 0.0, 1.0]);
        let turned = evaluate(|v| v[0].put_rows(&[1, 2, 0], 3, 0.0), &[x()], &[]);
        assert_eq!(turned.elements, [4.0, 5.0, 0.0, 1.0, 2.0, 3.0]);
    }

    #[test]
    fn gradients_go_back_to_where_rows_came_from() {
        check_gradient(|v| v[0].select_rows(&[2, 0]).square(), &[x()], 1e-6);
        check_gradient(|v| v[0].put_rows(&[3, 0, 2], 5, 2.0).square(), &[x()], 1e-6);
    }

    #[test]
    fn rows_that_are_not_there_are_refused() {
        let trace = crate::ir::trace::Trace::new();
        let x = trace.input(Type::new(Dtype::F32, [3, 2]));
        let _ = x.select_rows(&[3]);
        let error = trace.error().map(|error| error.message);
        assert_eq!(error.as_deref(), Some("select_rows: index 3 is out of bounds for size 3"));
    }
}
