//! Pictures of models as SVG that stands by itself: [`plot_grad_flow`], [`plot_histograms`], [`plot_curves`]. With the feature
//! `plot`.
//!
//! Numbers that are NaN, infinite or larger than 1e100 are left out of a picture: nothing has a place for them.

mod curves;
mod grad_flow;
mod histograms;

use core::ops::Range;

use plotters::coord::Shift;
use plotters::drawing::DrawingAreaErrorKind;
use plotters::prelude::*;

pub use curves::plot_curves;
pub use grad_flow::plot_grad_flow;
pub use histograms::plot_histograms;

/// What is drawn on.
type Paper<'a> = DrawingArea<SVGBackend<'a>, Shift>;
/// Why nothing is drawn. A string has no such reason.
type PlotError = DrawingAreaErrorKind<std::io::Error>;

/// The greatest number that has a place in a picture: ranges and steps of axes stay finite.
const GREATEST: f64 = 1e100;
/// Ranges of axes are no shorter.
const LEAST: f64 = 1e-60;
/// What is smaller in the unit of an axis is 0.
const NOTHING: f64 = 1e-10;
const FONT: &str = "sans-serif";
const GRID: RGBColor = RGBColor(222, 222, 222);

/// Draws a picture of so many pixels on white.
fn svg(size: (u32, u32), draw: impl FnOnce(&Paper<'_>) -> Result<(), PlotError>) -> String {
    let mut text = String::new();
    {
        let paper = SVGBackend::with_string(&mut text, size).into_drawing_area();
        let drawn = paper.fill(&WHITE).and_then(|()| draw(&paper)).and_then(|()| paper.present());
        drawn.expect("a string takes what is drawn, and axes have ranges");
    }
    text
}

fn has_place(x: f64) -> bool {
    x.abs() <= GREATEST
}

/// Finds the range of an axis with a place for each number; from 0 to 1 if there is none.
fn range_of(numbers: impl Iterator<Item = f64>) -> Range<f64> {
    let around = |[low, high]: [f64; 2], x: f64| [low.min(x), high.max(x)];
    let [low, high] =
        numbers.filter(|x| has_place(*x)).fold([f64::INFINITY, f64::NEG_INFINITY], around);
    if low > high {
        return 0.0..1.0;
    }
    let size = low.abs().max(high.abs());
    if high - low > LEAST.max(1e-9 * size) {
        return low..high;
    }
    let margin = if size < LEAST { 0.5 } else { 0.1 * size };
    low - margin..high + margin
}

/// Returns the power of ten in which an axis is measured: ticks are only found on axes that are neither very short nor very
/// long.
fn unit_of(range: &Range<f64>) -> f64 {
    let length = range.end - range.start;
    if (1e-6..1e9).contains(&length) {
        return 1.0;
    }
    let text = format!("{length:e}");
    let power = text.split_once('e').and_then(|(_, exponent)| format!("1e{exponent}").parse().ok());
    power.unwrap_or(1.0)
}

/// Writes the number at a tick of an axis that is measured in `unit`: `0.25`, `1e-7`.
fn tick(x: f64, unit: f64) -> String {
    // Ticks are sums of steps, so that of 0 may be a rounding away from it.
    let x = if x.abs() < NOTHING { 0.0 } else { x * unit };
    let trimmed = |text: &str| text.trim_end_matches('0').trim_end_matches('.').to_owned();
    match x.abs() {
        0.0 => "0".to_owned(),
        1e-3..1e5 => trimmed(&format!("{x:.6}")),
        _ => {
            let text = format!("{x:.3e}");
            let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
            format!("{}e{exponent}", trimmed(digits))
        }
    }
}
