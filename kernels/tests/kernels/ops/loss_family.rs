//! The losses of torch, and what they are made of, against plain loops and the slope of their own forward.

use neurarch_kernels::ir::dtype::Dtype;
use neurarch_kernels::ir::trace::Var;
use neurarch_kernels::ops::index::embedding_bag::{BagMode, EmbeddingBagSettings};
use neurarch_kernels::ops::reduction::reduce::Reduction;
use neurarch_kernels::passes::differentiate::backward;
use neurarch_kernels::testing::{Array, check_gradient_of, evaluate};

/// Numbers of no pattern from `low` to `high`.
fn numbers(shape: &[usize], low: f64, high: f64, seed: u32) -> Array {
    Array::from_fn(Dtype::F64, shape, |i| {
        let n = (i as u32).wrapping_mul(0x9e37_79b9).wrapping_add(seed.wrapping_mul(0x85eb_ca6b));
        let n = (n ^ (n >> 15)).wrapping_mul(0x2c1b_3c6d);
        low + (high - low) * f64::from(n ^ (n >> 12)) / f64::from(u32::MAX)
    })
}

fn indices(shape: &[usize], elements: &[f64]) -> Array {
    Array::new(Dtype::I64, shape, elements)
}

fn close(found: &Array, expected: &[f64]) {
    assert_eq!(found.elements.len(), expected.len(), "{:?}", found.ty);
    for (&found, &expected) in found.elements.iter().zip(expected) {
        let error = (found - expected).abs() / expected.abs().max(1.0);
        assert!(error < 1e-10 || (found.is_nan() && expected.is_nan()), "{found}, not {expected}");
    }
}

/// Compares a loss of two values with a loop over them, in both dtypes, and its gradients with slopes.
fn elementwise(
    build: impl Fn(&Var, &Var) -> Var,
    inputs: &[Array; 2],
    wrt: &[usize],
    exact: impl Fn(f64, f64) -> f64,
) {
    let expected = inputs[0].elements.iter().zip(&inputs[1].elements).map(|(&x, &t)| exact(x, t));
    let expected: Vec<_> = expected.collect();
    close(&evaluate(|v| build(&v[0], &v[1]), inputs, &[]), &expected);
    check_gradient_of(|v| build(&v[0], &v[1]), inputs, wrt, 1e-6);
    let single = inputs.clone().map(|of| Array::new(Dtype::F32, of.ty.shape, of.elements));
    let found = evaluate(|v| build(&v[0], &v[1]), &single, &[]);
    for (found, expected) in found.elements.iter().zip(&expected) {
        assert!(
            (found - expected).abs() < 1e-5 * expected.abs().max(1.0),
            "{found}, not {expected}"
        );
    }
}

const NONE: Reduction = Reduction::None;

#[test]
fn regression_losses_follow_their_definitions_and_slopes() {
    let inputs = [numbers(&[3, 5], -2.0, 2.0, 1), numbers(&[3, 5], -2.0, 2.0, 2)];
    elementwise(|x, t| x.l1_loss(t, NONE), &inputs, &[0, 1], |x, t| (x - t).abs());
    let huber = |x: f64, t: f64| match (x - t).abs() {
        d if d < 0.7 => 0.5 * d * d,
        d => 0.7 * (d - 0.35),
    };
    elementwise(
        |x, t| x.huber_loss(t, &x.trace().constant(0.7, x.dtype(), []), NONE),
        &inputs,
        &[0, 1],
        huber,
    );
    let smooth = |x: f64, t: f64| match (x - t).abs() {
        d if d < 0.7 => 0.5 * d * d / 0.7,
        d => d - 0.35,
    };
    let beta = |x: &Var| x.trace().constant(0.7, x.dtype(), []);
    elementwise(|x, t| x.smooth_l1_loss(t, &beta(x), NONE), &inputs, &[0, 1], smooth);
    let nothing = |x: &Var| x.trace().constant(0.0, x.dtype(), []);
    elementwise(
        |x, t| x.smooth_l1_loss(t, &nothing(x), NONE),
        &inputs,
        &[0, 1],
        |x, t| (x - t).abs(),
    );
}

#[test]
fn binary_losses_follow_their_definitions_and_slopes() {
    let inputs = [numbers(&[2, 6], 0.05, 0.95, 3), numbers(&[2, 6], 0.0, 1.0, 4)];
    let exact = |x: f64, t: f64| -(t * x.ln() + (1.0 - t) * (-x).ln_1p());
    elementwise(|x, t| x.binary_cross_entropy(t, None, NONE), &inputs, &[0, 1], exact);
    let logits = [numbers(&[2, 6], -4.0, 4.0, 5), inputs[1].clone()];
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    let with_logits = |x: &Var, t: &Var| x.binary_cross_entropy_with_logits(t, None, None, NONE);
    elementwise(with_logits, &logits, &[0, 1], |x, t| exact(sigmoid(x), t));
    let positive = |x: &Var, t: &Var| {
        let weight = x.trace().constant(3.0, x.dtype(), [6]);
        x.binary_cross_entropy_with_logits(t, Some(&weight), Some(&weight), NONE)
    };
    let by_hand =
        |x: f64, t: f64| -3.0 * (3.0 * t * sigmoid(x).ln() + (1.0 - t) * sigmoid(-x).ln());
    elementwise(positive, &logits, &[0, 1], by_hand);
    let signs = Array::from_fn(Dtype::F64, [2, 6], |i| if i % 3 == 0 { -1.0 } else { 1.0 });
    let signed = [logits[0].clone(), signs];
    elementwise(|x, t| x.soft_margin_loss(t, NONE), &signed, &[0], |x, t| (-x * t).exp().ln_1p());
    let margin = |x: &Var| x.trace().constant(0.8, x.dtype(), []);
    let hinge = |x: f64, t: f64| if t == 1.0 { x } else { (0.8 - x).max(0.0) };
    elementwise(|x, t| x.hinge_embedding_loss(t, &margin(x), NONE), &signed, &[0], hinge);
}

#[test]
fn certainty_costs_at_most_a_hundred() {
    let inputs = [
        Array::new(Dtype::F32, [3], [0.0, 1.0, 1.0]),
        Array::new(Dtype::F32, [3], [1.0, 0.0, 1.0]),
    ];
    let y = evaluate(|v| v[0].binary_cross_entropy(&v[1], None, NONE), &inputs, &[]);
    assert_eq!(y.elements, [100.0, 100.0, 0.0]);
}

#[test]
fn likelihoods_follow_their_definitions_and_slopes() {
    let inputs = [numbers(&[4, 3], -2.0, 1.0, 6), numbers(&[4, 3], 0.1, 2.5, 7)];
    elementwise(|x, t| x.kl_div(t, false), &inputs, &[0, 1], |x, t| t * (t.ln() - x));
    elementwise(|x, t| x.kl_div(t, true), &inputs, &[0, 1], |x, t| t.exp() * (t - x));
    let eps = |x: &Var| x.trace().constant(1e-8, x.dtype(), []);
    let poisson = |x: &Var, t: &Var| x.poisson_nll_loss(t, true, true, &eps(x), NONE);
    let stirling = |t: f64| match t > 1.0 {
        true => t * t.ln() - t + 0.5 * (std::f64::consts::TAU * t).ln(),
        false => 0.0,
    };
    elementwise(poisson, &inputs, &[0, 1], |x, t| x.exp() - t * x + stirling(t));
    let zero = [inputs[0].clone(), Array::from_fn(Dtype::F64, [4, 3], |_| 0.0)];
    close(&evaluate(|v| v[0].kl_div(&v[1], false), &zero, &[]), &[0.0; 12]);
    let var = numbers(&[4, 1], 0.2, 2.0, 8);
    let all = [inputs[0].clone(), inputs[1].clone(), var];
    let gaussian = |v: &[Var]| v[0].gaussian_nll_loss(&v[1], &v[2], true, &eps(&v[0]), NONE);
    let expected = (0..12).map(|i| {
        let (x, t, var) = (all[0].elements[i], all[1].elements[i], all[2].elements[i / 3]);
        0.5 * (var.ln() + (x - t).powi(2) / var + std::f64::consts::TAU.ln())
    });
    close(&evaluate(gaussian, &all, &[]), &expected.collect::<Vec<_>>());
    check_gradient_of(gaussian, &all, &[0, 1, 2], 1e-6);
}

#[test]
fn class_losses_follow_their_definitions_and_slopes() {
    let x = numbers(&[3, 4], -2.0, 2.0, 9);
    let (target, weight) = (indices(&[3], &[1.0, 3.0, -100.0]), numbers(&[4], 0.5, 2.0, 10));
    let all = [x.clone(), target, weight.clone()];
    let nll = |reduction| move |v: &[Var]| v[0].nll_loss(&v[1], Some(&v[2]), -100, reduction);
    let w = &weight.elements;
    let parts = [-x.elements[1] * w[1], -x.elements[7] * w[3], 0.0];
    close(&evaluate(nll(NONE), &all, &[]), &parts);
    let mean = parts.iter().sum::<f64>() / (w[1] + w[3]);
    close(&evaluate(nll(Reduction::Mean), &all, &[]), &[mean]);
    check_gradient_of(nll(Reduction::Mean), &all, &[0], 1e-6);

    let target = indices(&[3], &[1.0, 3.0, 0.0]);
    let all = [x.clone(), target.clone(), weight.clone()];
    let margin = |v: &Var| v.trace().constant(0.9, v.dtype(), []);
    for p in [1, 2] {
        let loss = move |v: &[Var]| {
            v[0].multi_margin_loss(&v[1], p, &margin(&v[0]), Some(&v[2]), Reduction::None)
        };
        let expected = (0..3).map(|item| {
            let (line, t) = (&x.elements[item * 4..][..4], target.elements[item] as usize);
            let lead = |c: usize| (0.9 - line[t] + line[c]).max(0.0).powi(p as i32);
            w[t] * (0..4).filter(|&c| c != t).map(lead).sum::<f64>() / 4.0
        });
        close(&evaluate(loss, &all, &[]), &expected.collect::<Vec<_>>());
        check_gradient_of(loss, &all, &[0], 1e-6);
    }

    let lists = [[3.0, 0.0, -1.0, 1.0], [-1.0, 2.0, 2.0, 2.0], [1.0, 1.0, 2.0, -1.0]];
    let all = [x.clone(), indices(&[3, 4], lists.as_flattened())];
    let loss = |v: &[Var]| v[0].multilabel_margin_loss(&v[1], Reduction::None);
    let expected = lists.iter().enumerate().map(|(item, list)| {
        let line = &x.elements[item * 4..][..4];
        let targets: Vec<_> = list.iter().take_while(|&&t| t >= 0.0).map(|&t| t as usize).collect();
        let others = (0..4).filter(|c| !targets.contains(c));
        let lead =
            |t: usize| others.clone().map(|c| (1.0 - line[t] + line[c]).max(0.0)).sum::<f64>();
        targets.iter().map(|&t| lead(t)).sum::<f64>() / 4.0
    });
    close(&evaluate(loss, &all, &[]), &expected.collect::<Vec<_>>());
    check_gradient_of(loss, &all, &[0], 1e-6);

    let probabilities = numbers(&[3, 4], 0.0, 1.0, 11);
    let all = [x.clone(), probabilities.clone(), weight.clone()];
    let loss = |v: &[Var]| {
        let smoothing = v[0].trace().constant(0.1, v[0].dtype(), []);
        v[0].cross_entropy_of_probabilities(&v[1], Some(&v[2]), &smoothing, Reduction::Mean)
    };
    let expected = (0..12).map(|i| {
        let line = &x.elements[i / 4 * 4..][..4];
        let log_p = x.elements[i] - line.iter().map(|x| x.exp()).sum::<f64>().ln();
        -w[i % 4] * (0.9 * probabilities.elements[i] + 0.025) * log_p
    });
    close(&evaluate(loss, &all, &[]), &[expected.sum::<f64>() / 3.0]);
    check_gradient_of(loss, &all, &[0, 1], 1e-6);
}

#[test]
fn a_target_that_is_no_class_makes_its_loss_nan() {
    let x = numbers(&[2, 3], -1.0, 1.0, 12);
    let all = [x.clone(), indices(&[2], &[3.0, 1.0])];
    let nll = evaluate(|v| v[0].nll_loss(&v[1], None, -100, NONE), &all, &[]);
    assert!(nll.elements[0].is_nan() && nll.elements[1].is_finite());
    let margin = |v: &Var| v.trace().constant(1.0, v.dtype(), []);
    let lead =
        evaluate(|v| v[0].multi_margin_loss(&v[1], 1, &margin(&v[0]), None, NONE), &all, &[]);
    assert!(lead.elements[0].is_nan() && lead.elements[1].is_finite());
    let all = [x, indices(&[2, 3], &[0.0, 5.0, -1.0, 1.0, -1.0, 9.0])];
    let lead = evaluate(|v| v[0].multilabel_margin_loss(&v[1], NONE), &all, &[]);
    assert!(lead.elements[0].is_nan() && lead.elements[1].is_finite());
}

#[test]
fn distances_follow_their_definitions_and_slopes() {
    let all = [numbers(&[3, 4], -2.0, 2.0, 13), numbers(&[3, 4], -2.0, 2.0, 14)];
    let eps = |v: &Var| v.trace().constant(0.01, v.dtype(), []);
    let line = |of: &Array, item: usize| of.elements[item * 4..][..4].to_vec();
    let difference = |item: usize| {
        let (a, b) = (line(&all[0], item), line(&all[1], item));
        a.into_iter().zip(b).map(|(a, b)| (a - b + 0.01).abs()).collect::<Vec<_>>()
    };
    for p in [1.0, 1.5, 2.0, 3.0, 0.5, f64::INFINITY, f64::NEG_INFINITY] {
        let distance = |v: &[Var]| v[0].pairwise_distance(&v[1], p, &eps(&v[0]), false);
        let norm = |sizes: Vec<f64>| match p {
            f64::INFINITY => sizes.into_iter().fold(0.0, f64::max),
            f64::NEG_INFINITY => sizes.into_iter().fold(f64::INFINITY, f64::min),
            p => sizes.into_iter().map(|x| x.powf(p)).sum::<f64>().powf(1.0 / p),
        };
        close(&evaluate(distance, &all, &[]), &[0, 1, 2].map(|item| norm(difference(item))));
        // The root of a sum of roots is too steep for differences.
        if p >= 1.0 {
            check_gradient_of(distance, &all, &[0, 1], 1e-6);
        }
    }
    let cosine = |v: &[Var]| v[0].cosine_similarity(&v[1], 1, &eps(&v[0]));
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let expected = [0, 1, 2].map(|item| {
        let (a, b) = (line(&all[0], item), line(&all[1], item));
        dot(&a, &b) / (dot(&a, &a) * dot(&b, &b)).sqrt()
    });
    close(&evaluate(cosine, &all, &[]), &expected);
    check_gradient_of(cosine, &all, &[0, 1], 1e-6);
    let three = [all[0].clone(), all[1].clone(), Array::new(Dtype::F64, [3], [1.0, -1.0, -1.0])];
    let embedding =
        |v: &[Var]| v[0].cosine_embedding_loss(&v[1], &v[2], &(eps(&v[0]) * 10.0), NONE);
    let expected = [1.0 - expected[0], (expected[1] - 0.1).max(0.0), (expected[2] - 0.1).max(0.0)];
    close(&evaluate(embedding, &three, &[]), &expected);
    check_gradient_of(embedding, &three, &[0, 1], 1e-6);
    let three = [all[0].clone(), all[1].clone(), numbers(&[3, 4], -2.0, 2.0, 15)];
    for swap in [false, true] {
        let triplet = |v: &[Var]| {
            let distance = |a: &Var, b: &Var| a.pairwise_distance(b, 2.0, &eps(a), false);
            let margin = v[0].trace().constant(1.0, v[0].dtype(), []);
            v[0].triplet_margin_with_distance_loss(&v[1], &v[2], distance, &margin, swap, NONE)
        };
        check_gradient_of(triplet, &three, &[0, 1, 2], 1e-6);
    }
}

#[test]
fn a_vector_of_length_zero_has_a_gradient_of_zero() {
    let zero = Array::new(Dtype::F64, [2], [0.0, 0.0]);
    for p in [0.0, 0.5, 1.0, 2.0, 3.0] {
        let of = |v: &[Var]| {
            let y = v[0].vector_norm(p, 0, false);
            let one = y.trace().constant(1.0, Dtype::F64, []);
            backward(y.trace(), &[(y.clone(), one)], &[v[0].clone()])[0]
                .clone()
                .expect("a gradient")
        };
        assert_eq!(evaluate(of, std::slice::from_ref(&zero), &[]).elements, [0.0, 0.0], "{p}");
    }
}

/// The sum over all paths, written down one by one.
fn ctc_by_paths(log_probs: &[f64], classes: usize, frames: usize, labels: &[usize]) -> f64 {
    let mut total = 0.0;
    for path in 0..classes.pow(frames as u32) {
        let path: Vec<_> = (0..frames).map(|t| path / classes.pow(t as u32) % classes).collect();
        let mut collapsed = path.clone();
        collapsed.dedup();
        collapsed.retain(|&class| class != 0);
        if collapsed == labels {
            total +=
                path.iter().enumerate().map(|(t, c)| log_probs[t * classes + c]).sum::<f64>().exp();
        }
    }
    -f64::ln(total)
}

#[test]
fn ctc_is_the_sum_over_all_paths() {
    let logits = numbers(&[4, 2, 3], -1.0, 1.0, 16);
    let padded = indices(&[2, 2], &[1.0, 1.0, 2.0, 0.0]);
    let flat = indices(&[3], &[1.0, 1.0, 2.0]);
    let lengths = [indices(&[2], &[4.0, 3.0]), indices(&[2], &[2.0, 1.0])];
    let loss = |v: &[Var]| v[0].log_softmax(-1).ctc_loss(&v[1], &v[2], &v[3], 0, NONE, false);
    let log_probs = evaluate(|v| v[0].log_softmax(-1), std::slice::from_ref(&logits), &[]).elements;
    let of = |item: usize| -> Vec<f64> {
        (0..4).flat_map(|t| log_probs[(t * 2 + item) * 3..][..3].to_vec()).collect()
    };
    let expected = [ctc_by_paths(&of(0), 3, 4, &[1, 1]), ctc_by_paths(&of(1), 3, 3, &[2])];
    for targets in [padded, flat] {
        let all = [logits.clone(), targets, lengths[0].clone(), lengths[1].clone()];
        close(&evaluate(loss, &all, &[]), &expected);
        check_gradient_of(loss, &all, &[0], 1e-6);
    }
}

#[test]
fn ctc_of_labels_that_do_not_fit_is_infinite_zero_or_nan() {
    let logits = numbers(&[2, 1, 3], -1.0, 1.0, 17);
    let loss = |labels: &[f64], length: f64, zero_infinity: bool| {
        let labels = indices(&[1, labels.len()], labels);
        let all = [logits.clone(), labels, indices(&[1], &[2.0]), indices(&[1], &[length])];
        let of = |v: &[Var]| v[0].ctc_loss(&v[1], &v[2], &v[3], 0, NONE, zero_infinity);
        evaluate(of, &all, &[]).elements[0]
    };
    assert_eq!(loss(&[1.0, 1.0], 2.0, false), f64::INFINITY);
    assert_eq!(loss(&[1.0, 1.0], 2.0, true), 0.0);
    assert!(loss(&[7.0], 1.0, false).is_nan() && loss(&[1.0], 5.0, false).is_nan());
    assert!(loss(&[1.0], -1.0, true).is_nan());
}

#[test]
fn bags_are_joined_as_they_are_said_to_be() {
    let table = numbers(&[5, 3], -1.0, 1.0, 18);
    let index = [1.0, 4.0, 1.0, 0.0, 2.0, 3.0, 1.0];
    let (flat, offsets) = (indices(&[7], &index), indices(&[4], &[0.0, 3.0, 3.0, 5.0]));
    let weights = numbers(&[7], 0.5, 1.5, 19);
    let bags: [&[usize]; 4] = [&[0, 1, 2], &[], &[3, 4], &[5, 6]];
    for mode in [BagMode::Sum, BagMode::Mean, BagMode::Max] {
        let settings = EmbeddingBagSettings { mode, padding_idx: Some(4), ..Default::default() };
        let all = [flat.clone(), table.clone(), offsets.clone()];
        let bag = |v: &[Var]| v[0].embedding_bag(&v[1], Some(&v[2]), None, settings);
        let expected = bags.iter().flat_map(|bag| {
            let rows: Vec<_> =
                bag.iter().map(|&i| index[i] as usize).filter(|&row| row != 4).collect();
            let numbers = |column| rows.iter().map(move |row| (row, column)).collect::<Vec<_>>();
            [0, 1, 2].map(|column| {
                let of = numbers(column).into_iter().map(|(row, c)| table.elements[row * 3 + c]);
                match mode {
                    _ if rows.is_empty() => 0.0,
                    BagMode::Sum => of.sum(),
                    BagMode::Mean => of.sum::<f64>() / rows.len() as f64,
                    BagMode::Max => of.fold(f64::NEG_INFINITY, f64::max),
                }
            })
        });
        close(&evaluate(bag, &all, &[]), &expected.collect::<Vec<_>>());
        let padded = EmbeddingBagSettings { padding_idx: None, ..settings };
        let slope = |v: &[Var]| v[0].embedding_bag(&v[1], Some(&v[2]), None, padded);
        check_gradient_of(slope, &all, &[1], 1e-6);
    }
    let all = [flat, table.clone(), offsets, weights];
    let settings = EmbeddingBagSettings { mode: BagMode::Sum, ..Default::default() };
    let bag = |v: &[Var]| v[0].embedding_bag(&v[1], Some(&v[2]), Some(&v[3]), settings);
    check_gradient_of(bag, &all, &[1, 3], 1e-6);
    let wrong = [indices(&[1, 2], &[0.0, 5.0]), table];
    let y = evaluate(|v| v[0].embedding_bag(&v[1], None, None, settings), &wrong, &[]);
    assert!(y.elements.iter().all(|y| y.is_nan()));
}

#[test]
fn rows_that_are_named_and_too_long_are_shortened() {
    let table = Array::new(Dtype::F64, [3, 2], [3.0, 4.0, 0.3, 0.4, 6.0, 8.0]);
    let all = [table, indices(&[3], &[0.0, 1.0, 0.0]), Array::new(Dtype::F64, [], [1.0])];
    let y = evaluate(|v| v[0].embedding_renorm(&v[1], &v[2], 2.0), &all, &[]);
    let scale = 1.0 / (5.0 + 1e-7);
    close(&y, &[3.0 * scale, 4.0 * scale, 0.3, 0.4, 6.0, 8.0]);
}

#[test]
fn bilinear_and_argmax_follow_their_definitions() {
    let all = [
        numbers(&[2, 3], -1.0, 1.0, 20),
        numbers(&[2, 4], -1.0, 1.0, 21),
        numbers(&[5, 3, 4], -1.0, 1.0, 22),
        numbers(&[5], -1.0, 1.0, 23),
    ];
    let product = |v: &[Var]| v[0].bilinear(&v[1], &v[2], Some(&v[3]));
    let expected = (0..10).map(|at| {
        let (item, out) = (at / 5, at % 5);
        let part = |i: usize, j: usize| {
            all[0].elements[item * 3 + i]
                * all[2].elements[(out * 3 + i) * 4 + j]
                * all[1].elements[item * 4 + j]
        };
        let sum: f64 = (0..12).map(|ij| part(ij / 4, ij % 4)).sum();
        sum + all[3].elements[out]
    });
    close(&evaluate(product, &all, &[]), &expected.collect::<Vec<_>>());
    check_gradient_of(product, &all, &[0, 1, 2, 3], 1e-6);
    let x = Array::new(Dtype::F64, [2, 3], [1.0, 3.0, 3.0, f64::NAN, 7.0, f64::NAN]);
    assert_eq!(evaluate(|v| v[0].argmax(-1), std::slice::from_ref(&x), &[]).elements, [1.0, 0.0]);
    assert_eq!(evaluate(|v| v[0].argmax(0), &[x], &[]).elements, [1.0, 1.0, 1.0]);
}
