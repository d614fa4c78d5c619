//! Actions are drawn by what belongs to a model alone, with the frequencies and densities of `torch.distributions`.

use neurarch::bevy_ecs::system::RunSystemOnce;
use neurarch::plugin::{
    ActionStream, ActionStreams, BrainCommands, categorical, categorical_log_prob, gaussian,
    gaussian_log_prob,
};

use super::{models, world};

/// ```text
/// l = torch.tensor([0.5, -1.0, 2.0, 0.0])
/// [Categorical(logits=l).log_prob(torch.tensor(i)).item() for i in range(4)]
/// masked = torch.where(torch.tensor([True, True, False, True]), l, -1e8)
/// [Categorical(logits=masked).log_prob(torch.tensor(i)).item() for i in (0, 1, 3)]
/// Normal(torch.tensor([0.5, -2.0]), torch.tensor([-0.5, 0.3]).exp()).log_prob(torch.tensor([1.0, -1.0])).sum()
/// ```
#[test]
fn log_probs_are_those_of_torch() {
    let logits = [0.5, -1.0, 2.0, 0.0];
    let close = |a: f32, b: f32| assert!((a - b).abs() <= 1e-6 * b.abs().max(1.0), "{a} {b}");
    for (class, expected) in
        [-1.842_349_5, -3.342_349_5, -0.342_349_53, -2.342_349_5].into_iter().enumerate()
    {
        close(categorical_log_prob(&logits, None, class), expected);
    }
    let mask = [true, true, false, true];
    for (class, expected) in [(0, -0.604_130_6), (1, -2.104_130_7), (3, -1.104_130_7)] {
        close(categorical_log_prob(&logits, Some(&mask), class), expected);
    }
    assert_eq!(categorical_log_prob(&logits, Some(&mask), 2), f32::NEG_INFINITY);
    assert_eq!(categorical_log_prob(&logits, None, 4), f32::NEG_INFINITY);
    close(gaussian_log_prob([0.5, -2.0], [-0.5, 0.3], [1.0, -1.0]), -2.252_068);
}

#[test]
fn classes_are_as_frequent_as_their_probabilities_and_masked_ones_never_come() {
    let logits = [0.5, -1.0, 2.0, 0.0];
    let mask = [true, true, false, true];
    for mask in [None, Some(&mask[..])] {
        let mut counts = [0_u32; 4];
        for tick in 0..20_000 {
            let mut random = ActionStream::new(1, 2, tick);
            counts[categorical(&mut random, &logits, mask).unwrap()] += 1;
        }
        for (class, &count) in counts.iter().enumerate() {
            let p = f64::from(categorical_log_prob(&logits, mask, class)).exp();
            let deviation = (20_000.0 * p * (1.0 - p)).sqrt();
            assert!((f64::from(count) - 20_000.0 * p).abs() <= 4.0 * deviation, "{class}: {count}");
        }
    }
}

#[test]
fn logits_at_the_edge_are_drawn_or_not() {
    let draw = |logits: &[f32], mask: Option<&[bool]>| {
        categorical(&mut ActionStream::new(0, 0, 0), logits, mask)
    };
    assert_eq!(draw(&[], None), None);
    assert_eq!(draw(&[1.0, 2.0], Some(&[false, false])), None);
    assert_eq!(draw(&[f32::NEG_INFINITY, f32::NAN], None), None);
    assert_eq!(draw(&[f32::NEG_INFINITY, -3e38, f32::NAN], None), Some(1));
    assert_eq!(draw(&[1.0, f32::INFINITY, 3.0], None), Some(1));
    assert_eq!(draw(&[1.0, 2.0, 3.0], Some(&[false, true])), Some(1), "beyond the mask");
}

#[test]
fn normal_draws_have_their_mean_and_deviation() {
    let (mut sums, mut squares) = ([0.0; 2], [0.0; 2]);
    let n = 20_000;
    for tick in 0..n {
        let drawn = gaussian(&mut ActionStream::new(4, 5, tick), [1.0, -2.0], [0.0, -1.0]);
        for i in 0..2 {
            sums[i] += f64::from(drawn[i]);
            squares[i] += f64::from(drawn[i]).powi(2);
        }
    }
    for (i, (mean, std)) in [(1.0, 1.0), (-2.0, (-1.0_f64).exp())].into_iter().enumerate() {
        let found = sums[i] / n as f64;
        assert!((found - mean).abs() < 4.0 * std / (n as f64).sqrt(), "{found}");
        let found = (squares[i] / n as f64 - found * found).sqrt();
        assert!((found / std - 1.0).abs() < 4.0 / (2.0 * n as f64).sqrt(), "{found}");
    }
}

#[test]
fn what_a_model_draws_follows_from_its_number_and_the_tick() {
    let (mut world, brains) = world(3);
    let all = models(&world, brains);
    let body = world.spawn_empty().id();
    world.commands().entity(body).with_brain(brains);
    world.flush();
    let draw = move |streams: ActionStreams| {
        let of = |entity, tick| {
            gaussian(&mut streams.of(entity, tick).unwrap(), [0.0], [0.0])[0].to_bits()
        };
        assert!(streams.of(brains, 0).is_none());
        let own = [of(all[0], 1), of(all[0], 2), of(all[1], 1), of(body, 1)];
        assert_eq!(own[0], of(all[0], 1), "twice the same");
        let mut sorted = own;
        sorted.sort_unstable();
        assert!(sorted.windows(2).all(|pair| pair[0] != pair[1]));
        assert_eq!(own[3], gaussian(&mut ActionStream::new(3, 3, 1), [0.0], [0.0])[0].to_bits());
    };
    world.run_system_once(draw).unwrap();
}
