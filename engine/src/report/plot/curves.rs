//! [`plot_curves`]: how a population learns.

use plotters::coord::ranged1d::{AsRangedCoord, ValueFormatter};
use plotters::prelude::*;

use super::{FONT, GRID, NOTHING, Paper, PlotError, has_place, range_of, svg, tick, unit_of};
use crate::report::curves::Curves;

const SIZE: (u32, u32) = (760, 460);
const BEST: RGBColor = RGBColor(44, 140, 80);
const MIDDLE: RGBColor = RGBColor(47, 111, 181);
const WORST: RGBColor = RGBColor(217, 87, 43);
/// How many steps have their number below them at most.
const MOST_TICKS: usize = 10;
/// An axis is logarithmic if its last number is so many times its first.
const LONG: f64 = 50.0;

/// Draws the best, the median and the worst of a population, step after step, and a band between the quartiles. `label` says
/// what of: `loss`.
///
/// The vertical axis is logarithmic if all numbers are positive and the greatest is more than 50 times the least. Where a
/// number has no place, as of models that diverged, its curve has a gap.
///
/// # Example
///
/// ```
/// use neurarch::report::plot::plot_curves;
/// use neurarch::report::curves::Curves;
///
/// let losses = ndarray::array![[4.0, 2.0, 1.0], [5.0, 4.0, 4.0], [4.5, 3.0, 1.5]]; // [models, steps]
/// let svg = plot_curves(&Curves::of(losses.view()), "loss");
/// assert!(svg.contains("median") && svg.contains("loss"));
/// ```
pub fn plot_curves(curves: &Curves, label: &str) -> String {
    let Curves { best, lower, median, upper, worst } = curves;
    let all = [best, lower, median, upper, worst].into_iter().flatten().copied();
    let range = range_of(all);
    let unit = unit_of(&range);
    svg(SIZE, |paper| match range.start > NOTHING && range.end > LONG * range.start {
        true => draw(paper, (range.start..range.end).log_scale(), 1.0, curves, label),
        false => draw(paper, range.start / unit..range.end / unit, unit, curves, label),
    })
}

/// Draws on an axis of that range, measured in `unit`.
fn draw<Y>(
    paper: &Paper<'_>,
    range: Y,
    unit: f64,
    curves: &Curves,
    label: &str,
) -> Result<(), PlotError>
where
    Y: AsRangedCoord<Value = f64>,
    Y::CoordDescType: ValueFormatter<f64>,
{
    let steps = curves.steps();
    let mut chart = ChartBuilder::on(paper)
        .margin(12)
        .x_label_area_size(44)
        .y_label_area_size(76)
        .build_cartesian_2d(1.0..steps.max(2) as f64, range)?;
    chart
        .configure_mesh()
        .x_labels(steps.clamp(2, MOST_TICKS))
        .x_label_formatter(&|x| tick(*x, 1.0))
        .y_label_formatter(&|y| tick(*y, unit))
        .label_style((FONT, 15))
        .axis_desc_style((FONT, 17))
        .bold_line_style(GRID)
        .max_light_lines(0)
        .x_desc("step")
        .y_desc(label)
        .draw()?;
    let key = |style: ShapeStyle| {
        move |(x, y): (i32, i32)| Rectangle::new([(x, y - 2), (x + 20, y + 2)], style)
    };
    let both = curves.lower.iter().zip(&curves.upper);
    let both: Vec<_> = both.map(|(low, high)| has_place(*low) && has_place(*high)).collect();
    let bands = runs(&both).map(|steps| {
        let point = |curve: &[f64], step: usize| ((step + 1) as f64, curve[step] / unit);
        let there = steps.clone().map(|step| point(&curves.lower, step));
        let back = steps.rev().map(|step| point(&curves.upper, step));
        Polygon::new(there.chain(back).collect::<Vec<_>>(), MIDDLE.mix(0.2).filled())
    });
    let bands: Vec<_> = bands.collect();
    chart.draw_series(bands)?.label("quartiles").legend(key(MIDDLE.mix(0.2).filled()));
    let lines = [
        (&curves.worst, WORST, "worst"),
        (&curves.median, MIDDLE, "median"),
        (&curves.best, BEST, "best"),
    ];
    for (curve, color, name) in lines {
        let there: Vec<_> = curve.iter().map(|x| has_place(*x)).collect();
        let parts: Vec<_> = runs(&there)
            .map(|steps| {
                let points = steps.map(|step| ((step + 1) as f64, curve[step] / unit));
                PathElement::new(points.collect::<Vec<_>>(), color.stroke_width(2))
            })
            .collect();
        chart.draw_series(parts)?.label(name).legend(key(color.filled()));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::LowerLeft)
        .label_font((FONT, 15))
        .background_style(WHITE.mix(0.8))
        .border_style(GRID)
        .draw()
}

/// Lists the stretches of steps at which there is something.
fn runs(is_there: &[bool]) -> impl Iterator<Item = core::ops::Range<usize>> {
    let mut end = 0;
    let stretches = is_there.chunk_by(|a, b| a == b).map(move |stretch| {
        end += stretch.len();
        (stretch[0], end - stretch.len()..end)
    });
    stretches.filter(|(is_there, _)| *is_there).map(|(_, steps)| steps)
}
