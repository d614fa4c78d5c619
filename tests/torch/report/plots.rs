//! Pictures of models: what is in them, and that any numbers can be drawn.

use ndarray::{Array2, Array3, array};
use neurarch::prelude::*;
use neurarch::report::curves::Curves;
use neurarch::report::health::GradientHealth;
use neurarch::report::histogram::{Histogram, Numbers};
use neurarch::report::plot::{plot_curves, plot_grad_flow, plot_histograms};

/// The texts of a picture, in their order.
fn texts(svg: &str) -> Vec<&str> {
    let parts = svg.split("</text>").filter_map(|part| part.rsplit_once('>'));
    parts.map(|(_, text)| text.trim()).filter(|text| !text.is_empty()).collect()
}

fn count(svg: &str, what: &str) -> usize {
    svg.matches(what).count()
}

fn health(x: f32) -> GradientHealth {
    let mut world = World::new();
    let net = Sequential::new().push(Linear::new(2, 3)).push(Tanh).push(Linear::new(3, 1));
    let mut brains = world.spawn_population(&net, 2, Seed(7)).unwrap();
    brains.forward(&Array3::from_elem((2, 4, 2), x)).unwrap();
    brains.loss::<f32, f32>(&Array3::zeros((2, 4, 1)), &MSELoss::default()).unwrap();
    brains.backward().unwrap();
    brains.as_ref().unwrap().model(1).unwrap().check_gradient_health().unwrap()
}

#[test]
fn gradient_flow_is_drawn_as_the_recipe_does() {
    let svg = plot_grad_flow(&health(1.0));
    let texts = texts(&svg);
    for text in [
        "Gradient flow",
        "Layers",
        "average gradient",
        "max-gradient",
        "mean-gradient",
        "zero-gradient",
        "0.weight",
        "2.weight",
    ] {
        assert_eq!(texts.iter().filter(|&&of| of == text).count(), 1, "{text} in {texts:?}");
    }
    assert!(!svg.contains("bias"), "the recipe leaves biases out");
    assert_eq!(count(&svg, "rotate(270"), 3, "two names and the axis's");
    // Two bars for each layer, and three lines and a frame of the legend.
    assert_eq!(count(&svg, "fill=\"#00BFBF\""), 2);
    assert_eq!(count(&svg, "fill=\"#0000FF\""), 2);
}

#[test]
fn gradients_without_a_place_are_left_out() {
    let svg = plot_grad_flow(&health(f32::NAN));
    assert!(svg.contains("0.weight"));
    assert_eq!(count(&svg, "fill=\"#00BFBF\""), 0);
    plot_grad_flow(&health(0.0));
    let mut world = World::new();
    let brains = world.spawn_population(&Linear::new(1, 1), 1, Seed(7)).unwrap();
    let none = brains.as_ref().unwrap().model(0).unwrap().check_gradient_health().unwrap();
    plot_grad_flow(&none);
}

#[test]
fn a_histogram_has_a_picture_for_each_parameter() {
    let mut world = World::new();
    let net = Sequential::new().push(Linear::new(2, 3)).push(Tanh).push(Linear::new(3, 1));
    let brains = world.spawn_population(&net, 20, Seed(7)).unwrap();
    let weights = brains.as_ref().unwrap().histograms(Numbers::Weights, 10).unwrap();
    let svg = plot_histograms(&weights);
    let texts = texts(&svg);
    for name in ["0.weight", "0.bias", "2.weight", "2.bias"] {
        assert!(texts.contains(&name), "{name} in {texts:?}");
    }
    let bars: usize = weights.iter().map(|of| of.counts.iter().filter(|n| **n > 0).count()).sum();
    assert_eq!(count(&svg, "fill=\"#2F6FB5\""), bars);
    plot_histograms(&[]);
}

#[test]
fn any_numbers_can_be_drawn() {
    let odd = [
        0.0,
        -0.0,
        1.0,
        -1.0,
        f64::MIN_POSITIVE,
        5e-324,
        1e-200,
        1e99,
        -1e99,
        1e308,
        f64::MAX,
        f64::MIN,
        f64::NAN,
        f64::INFINITY,
        f64::NEG_INFINITY,
        1.0 + f64::EPSILON,
        1e16,
        1e16 + 2.0,
    ];
    for a in odd {
        for b in odd {
            let histogram = Histogram::new("<a & b>", 7, || [a, b].into_iter());
            let svg = plot_histograms(&[histogram]);
            assert!(svg.contains("&lt;a &amp; b&gt;"), "names are text");
            plot_curves(&Curves::of(array![[a, b, a], [b, b, 1.0]].view()), "loss");
        }
    }
    plot_curves(&Curves::of(Array2::<f64>::zeros((2, 0)).view()), "loss");
}

#[test]
fn ticks_are_short() {
    let ticks = |numbers: [f64; 2]| {
        let svg = plot_curves(&Curves::of(array![numbers].view()), "loss");
        let texts = texts(&svg).into_iter().map(str::to_owned);
        texts.filter(|text| text.parse::<f64>().is_ok()).collect::<Vec<_>>()
    };
    let has = |numbers: [f64; 2], wanted: &[&str]| {
        let ticks = ticks(numbers);
        assert!(wanted.iter().all(|text| ticks.iter().any(|of| of == text)), "{ticks:?}");
    };
    // Steps of 0.1 add up to a number beside 0.
    let steps = ticks([-0.3, 0.4]).into_iter().filter(|text| text == "1" || text == "2");
    assert_eq!(steps.count(), 2, "steps are whole numbers");
    has([-0.3, 0.4], &["-0.2", "-0.1", "0", "0.1", "0.3"]);
    has([0.0, 3e-20], &["0", "1e-20", "2e-20"]);
    has([-2e12, 2e12], &["-1e12", "0", "1e12"]);
    has([10_000.0, 20_000.0], &["12000", "18000"]);
    // A long range of positive numbers has powers of ten.
    has([1e-6, 1.0], &["1e-5", "1e-4", "0.001", "0.01", "0.1"]);
}

#[test]
fn curves_have_gaps_where_models_diverge() {
    let losses =
        array![[4.0, 2.0, 1.0, 0.5], [5.0, f64::NAN, f64::INFINITY, 4.0], [4.5, 3.0, 1.5, 1.0]];
    let svg = plot_curves(&Curves::of(losses.view()), "loss");
    let texts = texts(&svg);
    for text in ["best", "median", "worst", "quartiles", "loss", "step"] {
        assert!(texts.contains(&text), "{text} in {texts:?}");
    }
    // The worst is there at the first step and at the last; the quartiles lie between numbers that are there.
    assert_eq!(count(&svg, "stroke=\"#D9572B\""), 2, "{svg}");
}
