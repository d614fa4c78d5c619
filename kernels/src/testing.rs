//! The oracles that kernels answer to: slopes measured by differences, distances in roundings, and the
//! same numbers in another layout.
#![expect(unsafe_code, reason = "tiles are put together from buffers owned here")]

mod planned;

pub use planned::{planned, planned_program};

use crate::arithmetic::elementary;
use crate::cpu::kernel;
use crate::cpu::tile::{Rows, Tile, View};
use crate::ir::dtype::{Dtype, Element, bf16, f16};
use crate::ir::op::claims::Claims;
use crate::ir::op::{Op, OpError, claims};
use crate::ir::program::{Origin, Program};
use crate::ir::rng_key::RngKey;
use crate::ir::shape::{Layout, Operand, Shape, Type};
use crate::ir::trace::{Trace, Var};
use crate::memory::{AlignedBytes, padded};
use crate::passes::differentiate::backward;

/// The elements of one value of one model, row-major, in double precision whatever their dtype.
#[derive(Clone, Debug, PartialEq)]
pub struct Array {
    /// Element type and shape.
    pub ty: Type,
    /// The elements, row-major.
    pub elements: Vec<f64>,
}

impl Array {
    /// Joins a type and elements, which are rounded to it.
    ///
    /// # Panics
    ///
    /// If there are not as many elements as the shape says.
    pub fn new(dtype: Dtype, shape: impl Into<Shape>, elements: impl Into<Vec<f64>>) -> Self {
        let ty = Type::new(dtype, shape);
        let mut elements = elements.into();
        assert_eq!(elements.len(), ty.shape.numel(), "{ty} has as many elements");
        elements.iter_mut().for_each(|x| *x = rounded(*x, dtype));
        Array { ty, elements }
    }

    /// Gives an array of `f(i)` for element `i`, counted row-major.
    pub fn from_fn(dtype: Dtype, shape: impl Into<Shape>, f: impl FnMut(usize) -> f64) -> Self {
        let shape = shape.into();
        let elements: Vec<f64> = (0..shape.numel()).map(f).collect();
        Array::new(dtype, shape, elements)
    }
}

fn rounded(x: f64, dtype: Dtype) -> f64 {
    match dtype {
        Dtype::F64 => x,
        Dtype::I64 => x as i64 as f64,
        Dtype::Bool => f64::from(u8::from(x != 0.0)),
        Dtype::F16 => f16::from_f32(x as f32).to_f64(),
        Dtype::BF16 => bf16::from_f32(x as f32).to_f64(),
        Dtype::F32 => f64::from(x as f32),
    }
}

/// Gives how many random cases a property test tries: `PROPTEST_CASES` of the environment, or `usual`.
pub fn cases(usual: u32) -> u32 {
    let wanted = std::env::var("PROPTEST_CASES").ok();
    wanted.and_then(|cases| cases.parse().ok()).unwrap_or(usual)
}

/// Computes an op for one model whose inputs lie in the given layouts, row-major where there is none.
///
/// # Panics
///
/// If the op does not take these inputs.
pub fn run_op(op: &dyn Op, inputs: &[Array], layouts: &[Option<Layout>]) -> Vec<Array> {
    run_op_keyed(op, inputs, layouts, RngKey::default(), 0)
}

/// As [`run_op`], with a random state and the number of the draw.
///
/// # Panics
///
/// If the op does not take these inputs.
pub fn run_op_keyed(
    op: &dyn Op,
    inputs: &[Array],
    layouts: &[Option<Layout>],
    key: RngKey,
    draw: u32,
) -> Vec<Array> {
    let types: Vec<_> = inputs.iter().map(|input| input.ty.clone()).collect();
    let outputs = op.outputs(&types).unwrap_or_else(|error| panic!("{}: {error}", op.name()));
    let mut operands: Vec<_> = types.iter().cloned().map(Operand::row_major).collect();
    for (operand, layout) in operands.iter_mut().zip(layouts) {
        if let Some(layout) = layout {
            operand.layout = layout.clone();
        }
    }
    operands.iter().for_each(Operand::assert_addressable);
    let must = |error: OpError| -> ! { panic!("{}: {error}", op.name()) };
    let in_place = Claims::of(op, &types, &outputs).unwrap_or_else(|e| must(e)).in_place;
    let results = claims::outputs(op, &operands, &outputs).unwrap_or_else(|e| must(e));
    let mut rows: Vec<_> = operands
        .iter()
        .zip(inputs)
        .map(|(operand, input)| write(operand, &input.elements))
        .chain(results.iter().map(|result| guarded(&result.ty)))
        .collect();
    for &(input, output) in &in_place {
        rows[inputs.len() + output] = write(&results[output], &inputs[input].elements);
    }
    let mut views: Vec<_> = operands
        .iter()
        .chain(&results)
        .zip(&mut rows)
        .map(|(operand, rows)| View {
            rows: Rows::Strided { base: rows.as_mut_ptr(), stride: 0 },
            numel: operand.ty.shape.numel(),
            element_bytes: operand.ty.dtype.size_bytes(),
        })
        .collect();
    let ids: Vec<u32> = (0..views.len() as u32).collect();
    in_place.iter().for_each(|&(input, _)| views[input] = View::ELSEWHERE);
    let (of_inputs, of_outputs) = ids.split_at(inputs.len());
    let made = kernel::prepare(op, &operands, &results);
    let (kernel, scratch_bytes) = made.unwrap_or_else(|e| must(e));
    let mut scratch = AlignedBytes::new(scratch_bytes);
    let keys = [key];
    // SAFETY: every view is of a buffer of its own that lives as long as the tile; an input that is changed in place is
    // no view.
    let mut tile = unsafe {
        Tile::new(1, &views, of_inputs, of_outputs, scratch.bytes_mut()).with_keys(&keys, draw)
    };
    kernel.run(&mut tile);
    results
        .iter()
        .zip(&rows[inputs.len()..])
        .map(|(operand, row)| {
            let (elements, padding) = row.bytes().split_at(operand.ty.size_bytes());
            let is_whole = padding.iter().all(|&byte| byte == GUARD);
            assert!(is_whole, "{} wrote behind its output", op.name());
            Array { ty: operand.ty.clone(), elements: read(operand, elements) }
        })
        .collect()
}

/// What lies behind the elements of a row and must stay.
const GUARD: u8 = 0xa5;

/// A row whose elements are zero and whose padding, with one more line, is [`GUARD`].
fn guarded(ty: &Type) -> AlignedBytes {
    let mut row = AlignedBytes::new(padded(ty.size_bytes()) + 64);
    row.bytes_mut()[ty.size_bytes()..].fill(GUARD);
    row
}

/// Gives the offset of each element, row-major, in its layout.
fn offsets(operand: &Operand) -> Vec<usize> {
    let mut offsets = vec![0; usize::from(operand.ty.shape.numel() > 0)];
    for (&size, &stride) in operand.ty.shape.iter().zip(operand.layout.iter()) {
        offsets =
            offsets.iter().flat_map(|start| (0..size).map(move |i| start + i * stride)).collect();
    }
    offsets
}

fn write(operand: &Operand, elements: &[f64]) -> AlignedBytes {
    fn put<T: Element>(row: &mut AlignedBytes, at: usize, x: T) {
        let size = size_of::<T>();
        row.bytes_mut()[at * size..(at + 1) * size].copy_from_slice(bytemuck::bytes_of(&x));
    }
    let mut row = guarded(&operand.ty);
    for (at, &x) in offsets(operand).into_iter().zip(elements) {
        match operand.ty.dtype {
            Dtype::F64 => put(&mut row, at, x),
            Dtype::I64 => put(&mut row, at, x as i64),
            Dtype::Bool => put(&mut row, at, u8::from(x != 0.0)),
            Dtype::F16 => put(&mut row, at, f16::from_f32(x as f32)),
            Dtype::BF16 => put(&mut row, at, bf16::from_f32(x as f32)),
            Dtype::F32 => put(&mut row, at, x as f32),
        }
    }
    row
}

fn read(operand: &Operand, row: &[u8]) -> Vec<f64> {
    fn get<T: Element>(row: &[u8], at: usize) -> T {
        let size = size_of::<T>();
        bytemuck::pod_read_unaligned(&row[at * size..(at + 1) * size])
    }
    let read = |at| match operand.ty.dtype {
        Dtype::F64 => get::<f64>(row, at),
        Dtype::I64 => get::<i64>(row, at) as f64,
        Dtype::Bool => f64::from(get::<u8>(row, at)),
        Dtype::F16 => get::<f16>(row, at).to_f64(),
        Dtype::BF16 => get::<bf16>(row, at).to_f64(),
        _ => f64::from(get::<f32>(row, at)),
    };
    offsets(operand).into_iter().map(read).collect()
}

/// Measures the slope of `f` at `x` by a central difference of fourth order, in double precision.
pub fn slope_of(f: impl Fn(f64) -> f64, x: f64) -> f64 {
    let h = 1e-3 * x.abs().max(1.0);
    (8.0 * (f(x + h) - f(x - h)) - (f(x + 2.0 * h) - f(x - 2.0 * h))) / (12.0 * h)
}

/// Counts the single-precision numbers between `a` and `b`: 0 if they are equal or both NaN.
pub fn ulps(a: f32, b: f32) -> u32 {
    if a == b || (a.is_nan() && b.is_nan()) {
        return 0;
    }
    if a.is_nan() || b.is_nan() {
        return u32::MAX;
    }
    // Numbers in their order, with both zeros at 0.
    let place = |x: f32| {
        let bits = i64::from(x.to_bits() & 0x7fff_ffff);
        if x.is_sign_negative() { -bits } else { bits }
    };
    u32::try_from(place(a).abs_diff(place(b))).unwrap_or(u32::MAX)
}

/// Says whether all numbers have the same bits, which tells zeros apart but not kinds of NaN.
pub fn same_bits(a: &[f64], b: &[f64]) -> bool {
    let same = |(a, b): (&f64, &f64)| a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan());
    a.len() == b.len() && a.iter().zip(b).all(same)
}

/// Lists the dense layouts of a shape: all orders of its axes.
pub fn layouts_of(shape: &Shape) -> Vec<Layout> {
    let mut orders: Vec<Vec<usize>> = vec![Vec::new()];
    for axis in 0..shape.rank() {
        orders = orders
            .iter()
            .flat_map(|order| {
                (0..=order.len()).map(|at| {
                    let mut order = order.clone();
                    order.insert(at, axis);
                    order
                })
            })
            .collect();
    }
    orders.iter().map(|order| shape.ordered(order)).collect()
}

/// Records `build` on inputs of the given types and computes it op by op; the inputs lie in `layouts`,
/// row-major where there is none.
///
/// # Panics
///
/// If it cannot be recorded.
pub fn evaluate(
    build: impl Fn(&[Var]) -> Var,
    inputs: &[Array],
    layouts: &[Option<Layout>],
) -> Array {
    let (trace, vars) = record(inputs);
    let y = build(&vars);
    let program = trace.finish(&[y]).unwrap_or_else(|error| panic!("{error}"));
    interpret(&program, inputs, layouts).swap_remove(0)
}

fn record(inputs: &[Array]) -> (Trace, Vec<Var>) {
    let trace = Trace::new();
    let vars = inputs.iter().map(|input| trace.input(input.ty.clone())).collect();
    (trace, vars)
}

/// Computes a program that reads only inputs and constants, and gives its outputs.
fn interpret(program: &Program, inputs: &[Array], layouts: &[Option<Layout>]) -> Vec<Array> {
    let mut values: Vec<Option<Array>> = vec![None; program.values.len()];
    let mut lies: Vec<Option<Layout>> = vec![None; program.values.len()];
    for (id, value) in program.values.iter().enumerate() {
        match value.origin {
            Origin::Input(input) => {
                values[id] = Some(inputs[input].clone());
                lies[id] = layouts.get(input).cloned().flatten();
            }
            Origin::Constant(number) => {
                let Type { dtype, shape } = value.ty.clone();
                values[id] = Some(Array::from_fn(dtype, shape, |_| number));
            }
            _ => {}
        }
    }
    for node in &program.nodes {
        let read = |&id: &usize| values[id].clone().expect("slots and scalars are not given here");
        let arrays: Vec<_> = node.inputs.iter().map(read).collect();
        let layouts: Vec<_> = node
            .inputs
            .iter()
            .enumerate()
            .map(|(number, &id)| {
                let ty = program.ty(id).clone();
                let layout = lies[id].clone()?;
                let operand = Operand { ty, layout };
                node.op.takes_layout(number, &operand).then_some(operand.layout)
            })
            .collect();
        let outputs = run_op_keyed(&*node.op, &arrays, &layouts, RngKey::default(), node.draw);
        for (&id, output) in node.outputs.iter().zip(outputs) {
            values[id] = Some(output);
        }
    }
    let read = |&id: &usize| values[id].clone().expect("outputs are computed");
    program.outputs.iter().map(read).collect()
}

/// Checks that `build` gives the same bits for all layouts of its inputs, and returns them.
///
/// # Panics
///
/// If it does not.
pub fn check_layouts(build: impl Fn(&[Var]) -> Var, inputs: &[Array]) -> Array {
    let expected = evaluate(&build, inputs, &[]);
    let choices: Vec<_> = inputs.iter().map(|input| layouts_of(&input.ty.shape)).collect();
    let most = choices.iter().map(Vec::len).max().unwrap_or(1);
    // One input at a time, then all together.
    for input in 0..=inputs.len() {
        for choice in 0..most {
            let layouts: Vec<_> = choices
                .iter()
                .enumerate()
                .map(|(i, layouts)| {
                    let chosen = i == input || input == inputs.len();
                    chosen.then(|| layouts[choice % layouts.len()].clone())
                })
                .collect();
            let found = evaluate(&build, inputs, &layouts);
            assert!(
                same_bits(&found.elements, &expected.elements),
                "{layouts:?}: {found:?}, not {expected:?}"
            );
        }
    }
    expected
}

/// Checks the recorded gradient of `build` with respect to each input of f64: see
/// [`check_gradient_of`].
///
/// # Panics
///
/// If one is missing or is not the slope.
pub fn check_gradient(build: impl Fn(&[Var]) -> Var, inputs: &[Array], tolerance: f64) {
    let float = |&input: &usize| inputs[input].ty.dtype == Dtype::F64;
    let wrt: Vec<_> = (0..inputs.len()).filter(float).collect();
    check_gradient_of(build, inputs, &wrt, tolerance);
}

/// Checks the recorded gradient of `build` with respect to the inputs `wrt`, of f64, against the slope of
/// `Σ weight · y`, with weights that tell outputs apart.
///
/// # Panics
///
/// If one is missing, or differs from the measured slope by more than `tolerance`, relative to numbers
/// above 1.
pub fn check_gradient_of(
    build: impl Fn(&[Var]) -> Var,
    inputs: &[Array],
    wrt: &[usize],
    tolerance: f64,
) {
    let (trace, vars) = record(inputs);
    let y = build(&vars);
    let weights = Array::from_fn(Dtype::F64, y.shape().clone(), |i| {
        1.0 + elementary::cos(0.7 * i as f64) / 2.0
    });
    let dy = trace.input(weights.ty.clone());
    let of: Vec<_> = wrt.iter().map(|&input| vars[input].clone()).collect();
    let gradients: Vec<_> = backward(&trace, &[(y, dy)], &of)
        .into_iter()
        .map(|gradient| gradient.expect("each of these inputs has a gradient"))
        .collect();
    let program = trace.finish(&gradients).unwrap_or_else(|error| panic!("{error}"));
    let all: Vec<_> = inputs.iter().chain([&weights]).cloned().collect();
    for (&number, gradient) in wrt.iter().zip(interpret(&program, &all, &[])) {
        let input = &inputs[number];
        assert_eq!(gradient.ty, input.ty, "a gradient has the type of what it belongs to");
        for element in 0..input.elements.len() {
            let weighted = |x: f64| {
                let mut inputs = inputs.to_vec();
                inputs[number].elements[element] = x;
                let y = evaluate(&build, &inputs, &[]);
                y.elements.iter().zip(&weights.elements).map(|(y, w)| y * w).sum::<f64>()
            };
            let slope = slope_of(weighted, input.elements[element]);
            let found = gradient.elements[element];
            let error = (found - slope).abs() / slope.abs().max(1.0);
            assert!(
                error <= tolerance,
                "input {number}, element {element}: {found}, but the slope is {slope}"
            );
        }
    }
}
