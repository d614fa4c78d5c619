//! [`plot_histograms`]: how the numbers of each parameter are distributed.

use plotters::prelude::*;

use super::{FONT, GRID, Paper, PlotError, has_place, range_of, svg, tick, unit_of};
use crate::report::histogram::Histogram;

const BAR: RGBColor = RGBColor(47, 111, 181);
/// Pixels of each picture, and how many are side by side at most.
const SIZE: (u32, u32) = (300, 220);
const COLUMNS: usize = 4;

/// Draws histograms side by side, four in a row, each with its name.
///
/// # Example
///
/// ```
/// use neurarch::prelude::*;
/// use neurarch::report::histogram::Numbers;
/// use neurarch::report::plot::plot_histograms;
///
/// let mut world = World::new();
/// let brains = world.spawn_population(&Linear::new(20, 10), 100, Seed(7))?;
/// let weights = brains.as_ref()?.histograms(Numbers::Weights, 40)?;
/// assert!(plot_histograms(&weights).contains("weight"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Source: `plt.hist(parameter.flatten(), bins)`, one after the other.
pub fn plot_histograms(histograms: &[Histogram]) -> String {
    let columns = histograms.len().clamp(1, COLUMNS);
    let rows = histograms.len().div_ceil(columns).max(1);
    let size = (columns as u32 * SIZE.0, rows as u32 * SIZE.1);
    svg(size, |paper| {
        let parts = paper.split_evenly((rows, columns));
        parts.iter().zip(histograms).try_for_each(|(part, of)| draw(part, of))
    })
}

fn draw(paper: &Paper<'_>, of: &Histogram) -> Result<(), PlotError> {
    let range = range_of(of.edges.iter().copied());
    let unit = unit_of(&range);
    let most = of.counts.iter().copied().max().unwrap_or(0).max(1) as f64;
    let name = match of.not_finite {
        0 => of.name.clone(),
        count => format!("{} ({count} not finite)", of.name),
    };
    let mut chart = ChartBuilder::on(paper)
        .caption(name, (FONT, 16))
        .margin(8)
        .x_label_area_size(24)
        .y_label_area_size(52)
        .build_cartesian_2d(range.start / unit..range.end / unit, 0.0..1.05 * most)?;
    chart
        .configure_mesh()
        .x_labels(5)
        .y_labels(5)
        .x_label_formatter(&|x| tick(*x, unit))
        .y_label_formatter(&|y| tick(*y, 1.0))
        .label_style((FONT, 13))
        .bold_line_style(GRID)
        .max_light_lines(0)
        .draw()?;
    let is_there = |edges: &[f64]| edges.iter().all(|&edge| has_place(edge));
    let bars = of.edges.windows(2).zip(&of.counts);
    let bars = bars.filter(|(edges, count)| is_there(edges) && **count > 0);
    chart.draw_series(bars.map(|(edges, &count)| {
        let corners = [(edges[0] / unit, 0.0), (edges[1] / unit, count as f64)];
        Rectangle::new(corners, BAR.mix(0.8).filled())
    }))?;
    Ok(())
}
