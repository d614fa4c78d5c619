//! Elements that are moved: no arithmetic but conversions.

use neurarch_kernels::ir::dtype::Dtype;
use neurarch_kernels::testing::Array;

use super::interpreter::{Call, Compute, broadcast, coordinates, place};

pub(crate) const TABLE: &[(&str, Compute)] = &[
    ("reshape", copy),
    ("contiguous", copy),
    ("detach", copy),
    ("enter", copy),
    ("leave", copy),
    ("expand", |call| {
        let of = |at: Vec<usize>| broadcast(&call.x[0], &at);
        vec![coordinates(&call.outputs[0].shape).into_iter().map(of).collect()]
    }),
    ("permute", |call| {
        let axes = call.list("dims=");
        from(call, |at| {
            let mut own = vec![0; axes.len()];
            axes.iter().zip(at).for_each(|(&axis, &i)| own[axis] = i);
            own
        })
    }),
    ("slice", |call| {
        let (axis, start) = (call.number("dim=") as usize, range(call).0);
        from(call, |at| moved(at, axis, start))
    }),
    ("slice_gradient", |call| {
        let (axis, (start, end)) = (call.number("dim=") as usize, range(call));
        let x = &call.x[0];
        let of = |at: Vec<usize>| match (start..end).contains(&at[axis]) {
            true => {
                let mut own = at;
                own[axis] -= start;
                x.elements[place(&x.ty.shape, &own)]
            }
            false => 0.0,
        };
        vec![coordinates(&call.outputs[0].shape).into_iter().map(of).collect()]
    }),
    ("split", |call| {
        let axis = call.number("dim=") as usize;
        let mut start = 0;
        let parts = call.outputs.iter().map(|ty| {
            let x = &call.x[0];
            let of = |at: Vec<usize>| x.elements[place(&x.ty.shape, &moved(&at, axis, start))];
            let part = coordinates(&ty.shape).into_iter().map(of).collect();
            start += ty.shape[axis];
            part
        });
        parts.collect()
    }),
    ("cat", |call| {
        let axis = call.number("dim=") as usize;
        let of = |mut at: Vec<usize>| {
            let mut inputs = call.x.iter();
            loop {
                let x: &Array = inputs.next().expect("one of the inputs has it");
                match at[axis].checked_sub(x.ty.shape[axis]) {
                    None => return x.elements[place(&x.ty.shape, &at)],
                    Some(rest) => at[axis] = rest,
                }
            }
        };
        vec![coordinates(&call.outputs[0].shape).into_iter().map(of).collect()]
    }),
    ("select_rows", |call| {
        let rows = call.list("");
        from(call, |at| moved_to(at, rows[at[0]]))
    }),
    ("put_rows", |call| {
        let rows = call.list("");
        let fill: f64 = call.after("others ").parse().expect("a number");
        let x = &call.x[0];
        let of = |at: Vec<usize>| match rows.iter().position(|&row| row == at[0]) {
            Some(row) => x.elements[place(&x.ty.shape, &moved_to(&at, row))],
            None => fill,
        };
        vec![coordinates(&call.outputs[0].shape).into_iter().map(of).collect()]
    }),
    ("tril", |call| {
        let diagonal = call.number("diagonal=");
        let x = &call.x[0];
        let of = |(at, &x): (Vec<usize>, &f64)| {
            let [.., row, column] = at[..] else { panic!("matrices") };
            if column as i64 <= (row as i64).saturating_add(diagonal) { x } else { 0.0 }
        };
        vec![coordinates(&x.ty.shape).into_iter().zip(&x.elements).map(of).collect()]
    }),
    ("to", |call| {
        let ty = &call.outputs[0];
        let x = &call.x[0].elements;
        // Numbers of singles are doubles here, and stay so.
        let is_exact =
            matches!((call.x[0].ty.dtype, ty.dtype), (Dtype::F32, Dtype::F32 | Dtype::F64));
        match is_exact || ty.dtype == Dtype::F64 {
            true => vec![x.clone()],
            false => vec![Array::new(ty.dtype, ty.shape.clone(), x.clone()).elements],
        }
    }),
    ("centers", |call| {
        let (n, corners) = (call.outputs[0].shape.numel(), call.has("align_corners=true"));
        let of = |i: usize| match corners {
            true if n == 1 => 0.0,
            true => 2.0 * i as f64 / (n as f64 - 1.0) - 1.0,
            false => (2.0 * i as f64 + 1.0) / n as f64 - 1.0,
        };
        vec![(0..n).map(of).collect()]
    }),
    ("increment", |call| vec![call.x[0].elements.iter().map(|x| x + 1.0).collect()]),
];

/// Passes all inputs on.
fn copy(call: &Call<'_>) -> Vec<Vec<f64>> {
    call.x.iter().map(|x| x.elements.clone()).collect()
}

/// Reads each element of the output from a place of the input.
fn from(call: &Call<'_>, own: impl Fn(&[usize]) -> Vec<usize>) -> Vec<Vec<f64>> {
    let x = &call.x[0];
    let of = |at: Vec<usize>| x.elements[place(&x.ty.shape, &own(&at))];
    vec![coordinates(&call.outputs[0].shape).into_iter().map(of).collect()]
}

fn moved(at: &[usize], axis: usize, by: usize) -> Vec<usize> {
    at.iter().enumerate().map(|(i, &at)| if i == axis { at + by } else { at }).collect()
}

fn moved_to(at: &[usize], row: usize) -> Vec<usize> {
    [row].into_iter().chain(at[1..].iter().copied()).collect()
}

/// The range of `dim=0 2..5`.
fn range(call: &Call<'_>) -> (usize, usize) {
    let words = call.attributes.split(' ').find_map(|word| word.split_once(".."));
    let (start, end) = words.expect("a range");
    (start.parse().expect("a number"), end.parse().expect("a number"))
}
