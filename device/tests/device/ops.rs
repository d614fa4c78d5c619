//! Ops one by one, fused and as kernels of their own; and a list of the files that have no device code.

use std::fs;
use std::path::{Path, PathBuf};

use neurarch_kernels::arithmetic::activation::Approximate;
use neurarch_kernels::ir::dtype::Dtype;
use neurarch_kernels::ir::shape::Type;
use neurarch_kernels::ir::trace::{Trace, Var};
use neurarch_kernels::ops::attention::scaled_dot_product::AttentionOptions;
use neurarch_kernels::ops::reduction::reduce::Reduction;
use neurarch_kernels::passes::differentiate::backward;

use crate::mlp::compare;
use crate::nvrtc;

/// Compares the outputs of `build`, of inputs of these shapes, in both precisions.
fn check(shapes: &[&[usize]], build: impl Fn(&[Var]) -> Vec<Var>) {
    if !nvrtc::is_there() {
        return;
    }
    for dtype in [Dtype::F32, Dtype::F64] {
        let trace = Trace::new();
        let inputs: Vec<_> =
            shapes.iter().map(|&shape| trace.input(Type::new(dtype, shape))).collect();
        let outputs = build(&inputs);
        compare(trace.finish(&outputs).expect("it can be recorded"), 2, 2, 3);
    }
}

#[test]
fn formulas_have_the_bits_of_the_cpu() {
    check(&[&[3, 5], &[5], &[3, 1]], |v| {
        let x = &v[0];
        let sums = [x + &v[1], x * &v[2], x / &v[1]];
        let activations = [x.tanh(), x.sigmoid(), x.relu(), x.silu(), x.gelu(Approximate::None)];
        sums.into_iter().chain(activations).collect()
    });
}

#[test]
fn reductions_have_the_bits_of_the_cpu() {
    check(&[&[3, 20, 2], &[600]], |v| {
        let (x, long) = (&v[0], &v[1]);
        let of_axes = [x.sum(&[1], false), x.mean(&[0, 2], true), x.amax(&[-1], false)];
        let of_permuted = [x.permute(&[2, 0, 1]).sum(&[0, 2], false), x.sum(&[], false)];
        let of_long = [long.sum(&[], false), long.amax(&[], false)];
        of_axes.into_iter().chain(of_permuted).chain(of_long).collect()
    });
}

#[test]
fn copies_have_the_bits_of_the_cpu() {
    check(&[&[3, 4], &[3, 2]], |v| {
        let joined = Var::cat(&[&v[0], &v[1]], 1);
        let parts = [joined.slice(1, 1..5), joined.transpose(0, 1), joined.reshape([2, 9])];
        parts.into_iter().chain([v[1].reshape([3, 2, 1]).expand([3, 2, 4]), joined]).collect()
    });
}

#[test]
fn rows_and_parts_have_the_bits_of_the_cpu() {
    check(&[&[4, 3], &[2, 3]], |v| {
        let (x, part) = (&v[0], &v[1]);
        let rows = [x.select_rows(&[2, 0]), part.put_rows(&[3, 1], 5, -0.5)];
        let slices = [x.slice(0, 1..3), x.slice(1, 0..2).transpose(0, 1)];
        let gradients = slices.iter().map(|y| {
            let dy = y.square();
            backward(x.trace(), &[(y.clone(), dy)], &v[..1]).remove(0).expect("it has a gradient")
        });
        let gradients: Vec<_> = gradients.collect();
        rows.into_iter().chain(gradients).chain([x.tril(0), x.tril(-2), x.tril(9)]).collect()
    });
}

#[test]
fn conversions_have_the_bits_of_the_cpu() {
    check(&[&[5, 7]], |v| {
        let x = &v[0];
        // Beyond what a whole number holds, infinities and NaN.
        let edges = [x * 1e30, x / 0.0, (x / 0.0) * 0.0, x * 1e-6];
        let all: Vec<_> = [x.clone(), x * 300.0].into_iter().chain(edges).collect();
        let through = |to: Dtype| all.iter().map(move |x| x.to(to).to(Dtype::F64));
        let types = [Dtype::F32, Dtype::F64, Dtype::I64, Dtype::Bool, Dtype::F16, Dtype::BF16];
        types.into_iter().flat_map(through).collect()
    });
}

#[test]
fn products_have_the_bits_of_the_cpu() {
    check(&[&[2, 1, 5, 8], &[3, 8, 4], &[2, 1, 5, 8], &[300, 6]], |v| {
        let (a, b, c, long) = (&v[0], &v[1], &v[2], &v[3]);
        let turned = long.transpose(0, 1).matmul(long);
        vec![a.matmul(b), a.matmul(&c.transpose(-2, -1)), turned]
    });
}

#[test]
fn rows_of_a_table_have_the_bits_of_the_cpu() {
    check(&[&[3, 7], &[5, 3], &[600]], |v| {
        // From 0 to 4, and some that the smaller tables do not have.
        let index = (&(&v[0] * &v[0]) * 1.2).to(Dtype::I64);
        let many = (&(&v[2] * &v[2]) * 0.3).to(Dtype::I64);
        let dtype = v[0].dtype();
        let mut all = vec![index.one_hot(1, 4, Some(2), dtype), index.one_hot(2, 5, None, dtype)];
        for (index, padding, by_frequency) in
            [(&index, Some(1), false), (&index, None, true), (&many, None, false)]
        {
            let y = index.embedding(&v[1], padding, by_frequency);
            let dy = &y * &y;
            let gradient = backward(v[0].trace(), &[(y.clone(), dy)], &v[1..2]).remove(0);
            all.extend([y, gradient.expect("it has a gradient")]);
        }
        all
    });
}

#[test]
fn places_of_the_largest_are_those_of_the_cpu() {
    check(&[&[3, 6, 4]], |v| {
        let with_nan = (&v[0] * 1e30).to(Dtype::I64).to(v[0].dtype()) / &v[0].relu();
        (0..3).flat_map(|axis| [v[0].argmax(axis), with_nan.argmax(axis)]).collect()
    });
}

#[test]
fn losses_have_the_bits_of_the_cpu() {
    check(&[&[7, 3], &[7, 3]], |v| vec![v[0].mse_loss(&v[1], Reduction::Mean)]);
    // By itself: together, the compiler reads the last of the 21 errors by a load of four, and the other three were never
    // written. They lie in the arena, and nothing depends on them.
    check(&[&[4, 4], &[4, 4]], |v| {
        // Labels up to the first number below 0.
        let labels = (&v[1] * 2.0).to(Dtype::I64);
        vec![v[0].multilabel_margin_loss(&labels, Reduction::Mean)]
    });
}

#[test]
fn attention_has_the_bits_of_the_cpu() {
    check(&[&[3, 8, 4], &[3, 8, 4], &[3, 8, 4]], |v| {
        [false, true]
            .into_iter()
            .flat_map(|is_causal| {
                let options = AttentionOptions { is_causal, ..AttentionOptions::default() };
                let y = v[0].scaled_dot_product_attention(&v[1], &v[2], options);
                let dy = &y * &y;
                let gradients = backward(v[0].trace(), &[(y.clone(), dy)], v);
                [y].into_iter().chain(gradients.into_iter().flatten())
            })
            .collect()
    });
}

#[test]
fn softmax_has_the_bits_of_the_cpu() {
    check(&[&[3, 18, 2], &[3, 18, 2]], |v| {
        let forward = [v[0].softmax(1), v[0].log_softmax(-1), v[0].safe_softmax(0)];
        let gradients = forward.iter().map(|y| {
            let pair = [(y.clone(), v[1].clone())];
            backward(v[0].trace(), &pair, &v[..1]).remove(0).expect("it has a gradient")
        });
        let gradients: Vec<_> = gradients.collect();
        forward.into_iter().chain(gradients).collect()
    });
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    let entries = fs::read_dir(folder).expect("the kernels lie beside this crate");
    for path in entries.map(|entry| entry.expect("it can be read").path()) {
        match path.is_dir() {
            true => sources(&path, found),
            false => found.push(path),
        }
    }
}

#[test]
fn ops_without_device_code_are_listed_and_become_fewer() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../kernels/src/ops");
    let mut files = Vec::new();
    sources(&root, &mut files);
    files.sort();
    let lacks = |path: &&PathBuf| {
        let text = fs::read_to_string(path).unwrap_or_default();
        // Rules of optimizers give what their text makes of it.
        let lacks_a_rule = text.contains("impl Named for") && !text.contains("ON_DEVICE");
        let gives = |backend| text.matches(&format!("give::<{backend}>")).count();
        lacks_a_rule || gives("Cpu") > gives("Cuda")
    };
    let name = |path: &PathBuf| {
        path.strip_prefix(&root).expect("it lies in it").to_string_lossy().into_owned()
    };
    let missing: Vec<_> = files.iter().filter(lacks).map(name).collect();
    insta::assert_snapshot!(missing.join("\n"));
}
