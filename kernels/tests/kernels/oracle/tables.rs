//! Numbers that whole numbers name: rows of tables, classes, places of windows, taps.

use neurarch_kernels::testing::Array;

use super::interpreter::{Call, Compute, coordinates, place};

pub(crate) const TABLE: &[(&str, Compute)] = &[
    ("embedding", |call| vec![embedding(call, &|_| 1.0)]),
    ("embedding_second_gradient", |call| {
        let named = named(call, call.x[1].ty.shape[0]);
        vec![embedding(call, &|row| part(call, row, &named))]
    }),
    ("embedding_gradient", |call| {
        let [rows, columns] = call.outputs[0].shape[..] else { panic!("a matrix") };
        let named = named(call, rows);
        let mut table = vec![0.0; rows * columns];
        for (item, &row) in call.x[0].elements.iter().enumerate() {
            if let Some(row) = index(row, rows) {
                for column in 0..columns {
                    let dy = call.x[1].elements[item * columns + column];
                    table[row * columns + column] += dy * part(call, row, &named);
                }
            }
        }
        vec![table]
    }),
    ("one_hot", |call| {
        let (axis, classes) = (call.number("dim=") as usize, call.number("num_classes=") as usize);
        let ignored = call.after("ignore_index=").strip_prefix("Some(");
        let ignored: Option<f64> = ignored
            .and_then(|text| text.split_once(')'))
            .map(|(i, _)| i.parse().expect("a number"));
        let x = &call.x[0];
        let of = |mut at: Vec<usize>| {
            let class = at.remove(axis.min(at.len() - 1));
            let named = x.elements[place(&x.ty.shape, &at)];
            match index(named, classes) {
                _ if Some(named) == ignored => 0.0,
                Some(named) => f64::from(u8::from(named == class)),
                None => f64::NAN,
            }
        };
        vec![coordinates(&call.outputs[0].shape).into_iter().map(of).collect()]
    }),
    ("label_counts", |call| {
        let classes = call.x[0].ty.shape.last().copied().unwrap_or(1);
        let line = |labels: &[f64]| {
            let mut counts = vec![0.0; classes];
            for &label in labels.iter().take_while(|label| **label >= 0.0) {
                match index(label, classes) {
                    Some(label) => counts[label] += 1.0,
                    None => counts.fill(f64::NAN),
                }
            }
            counts
        };
        vec![call.x[0].elements.chunks(classes.max(1)).flat_map(line).collect()]
    }),
    ("pick", |call| {
        let (channels, own) = channels(call, call.number("axes=") as usize);
        let y = (0..channels).flat_map(|channel| {
            let x = &call.x[0].elements[channel * own[0]..][..own[0]];
            let places = &call.x[1].elements[channel * own[1]..][..own[1]];
            places.iter().map(|&place| index(place, x.len()).map_or(0.0, |place| x[place]))
        });
        vec![y.collect()]
    }),
    ("place", |call| {
        let size = call.list("size=");
        let (channels, own) = channels(call, size.len());
        let mut y = vec![0.0; call.outputs[0].shape.numel()];
        let of_channel: usize = size.iter().product();
        for channel in 0..channels {
            let y = &mut y[channel * of_channel..][..of_channel];
            let mut is_lost = false;
            for i in channel * own[0]..(channel + 1) * own[0] {
                let x = call.x[0].elements[i];
                match index(call.x[1].elements[i], of_channel) {
                    Some(place) if call.has("Added") => y[place] += x,
                    Some(place) => y[place] = x,
                    None => is_lost = true,
                }
            }
            if is_lost && call.has("Assigned") {
                y.fill(f64::NAN);
            }
        }
        vec![y]
    }),
    ("max_pool", max_pool),
    ("resample", |call| {
        let mut x = call.x[0].clone();
        for along in call.attributes.split("dim=").skip(1) {
            let (axis, taps) = along.split_once(' ').expect("an axis, then taps");
            x = resample(&x, axis.parse().expect("an axis"), taps);
        }
        vec![x.elements]
    }),
];

/// A whole number below `size`.
fn index(x: f64, size: usize) -> Option<usize> {
    (x >= 0.0 && x < size as f64).then_some(x as usize)
}

/// How often each row is named.
fn named(call: &Call<'_>, rows: usize) -> Vec<f64> {
    let count = |row| call.x[0].elements.iter().filter(|&&x| index(x, rows) == Some(row)).count();
    (0..rows).map(|row| count(row) as f64).collect()
}

/// What the gradient of a row is multiplied by.
fn part(call: &Call<'_>, row: usize, named: &[f64]) -> f64 {
    match call.after("padding_idx=").starts_with(&format!("Some({row})")) {
        true => 0.0,
        false if call.after("scale_grad_by_freq=").starts_with("true") => 1.0 / named[row],
        false => 1.0,
    }
}

fn embedding(call: &Call<'_>, part: &dyn Fn(usize) -> f64) -> Vec<f64> {
    let [indices, table] = call.x else { panic!("two inputs") };
    let [rows, columns] = table.ty.shape[..] else { panic!("a matrix") };
    let line = |&x: &f64| -> Vec<f64> {
        let element = |column: usize| {
            index(x, rows)
                .map_or(f64::NAN, |row| table.elements[row * columns + column] * part(row))
        };
        (0..columns).map(element).collect()
    };
    indices.elements.iter().flat_map(line).collect()
}

/// The number of channels, and of each input's elements in one.
fn channels(call: &Call<'_>, spatial: usize) -> (usize, Vec<usize>) {
    let shape = &call.x[0].ty.shape;
    let channels = shape[..shape.rank() - spatial].iter().product();
    let own = |x: &Array| x.ty.shape[x.ty.shape.rank() - spatial..].iter().product();
    (channels, call.x.iter().map(own).collect())
}

/// The greatest number of each window `[0..2:1 2..4:1] [0..3:1]`, and its place.
fn max_pool(call: &Call<'_>) -> Vec<Vec<f64>> {
    let parsed = |text: &str| -> Vec<usize> {
        let numbers = text.split(['.', ':']).filter(|number| !number.is_empty());
        numbers.map(|number| number.parse().expect("a number")).collect()
    };
    let windows: Vec<Vec<Vec<usize>>> = call
        .attributes
        .split(['[', ']'])
        .filter(|axis| !axis.trim().is_empty())
        .map(|axis| axis.split(' ').map(parsed).collect())
        .collect();
    let shape = &call.x[0].ty.shape;
    let first = shape.rank() - windows.len();
    let (mut y, mut places) = (Vec::new(), Vec::new());
    for at in coordinates(&call.outputs[0].shape) {
        let (mut most, mut of_most) = (f64::NEG_INFINITY, None);
        let sizes: Vec<_> = at[first..]
            .iter()
            .zip(&windows)
            .map(|(&i, windows)| {
                windows[i][1].saturating_sub(windows[i][0]).div_ceil(windows[i][2])
            })
            .collect();
        for within in coordinates(&sizes) {
            let spatial: Vec<_> = within
                .iter()
                .zip(&at[first..])
                .zip(&windows)
                .map(|((&k, &i), windows)| windows[i][0] + k * windows[i][2])
                .collect();
            let x = call.x[0].elements[place(shape, &[&at[..first], &spatial[..]].concat())];
            if of_most.is_none() || x > most || x.is_nan() {
                (most, of_most) = (x, Some(place(&shape[first..], &spatial)));
            }
        }
        y.push(most);
        // A window of nothing has the place at which it would start.
        let starts: Vec<_> = at[first..].iter().zip(&windows).map(|(&i, of)| of[i][0]).collect();
        places.push(of_most.unwrap_or_else(|| place(&shape[first..], &starts)) as f64);
    }
    vec![y, places]
}

/// Maps an axis by taps: `4 -> [0 1 2*0.5+3*0.5 -]`.
fn resample(x: &Array, axis: usize, taps: &str) -> Array {
    let rows = taps.split_once('[').and_then(|(_, rows)| rows.split_once(']')).expect("rows").0;
    let term = |term: &str| -> (usize, f64) {
        let (from, weight) = term.split_once('*').unwrap_or((term, "1"));
        (from.parse().expect("a number"), weight.parse().expect("a weight"))
    };
    let row = |row: &str| -> Vec<(usize, f64)> {
        if row == "-" { Vec::new() } else { row.split('+').map(term).collect() }
    };
    let rows: Vec<_> = rows.split(' ').filter(|row| !row.is_empty()).map(row).collect();
    let mut sizes = x.ty.shape.to_vec();
    sizes[axis] = rows.len();
    let of = |at: Vec<usize>| {
        rows[at[axis]]
            .iter()
            .map(|&(from, weight)| {
                let mut own = at.clone();
                own[axis] = from;
                weight * x.elements[place(&x.ty.shape, &own)]
            })
            .sum()
    };
    let elements = coordinates(&sizes).into_iter().map(of).collect();
    Array { ty: neurarch_kernels::ir::shape::Type::new(x.ty.dtype, sizes), elements }
}
