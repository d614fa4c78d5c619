//! How often prey was caught, as a picture.

use std::error::Error;

use plotters::prelude::*;

/// Draws the catches a tick while both species learned, and those of trained and untrained ones against each other, as SVG.
pub(crate) fn draw(
    curve: &[f32],
    ticks: usize,
    caught: [[u64; 2]; 2],
) -> Result<String, Box<dyn Error>> {
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, (1000, 420)).into_drawing_area();
        area.fill(&WHITE)?;
        let (left, right) = area.split_horizontally(600);
        let most = curve.iter().copied().fold(0.1_f32, f32::max) * 1.1;
        let mut chart = ChartBuilder::on(&left)
            .caption("catches a tick while both learn", ("sans-serif", 18))
            .margin(10)
            .x_label_area_size(36)
            .y_label_area_size(48)
            .build_cartesian_2d(0..curve.len() * ticks, 0.0..most)?;
        chart.configure_mesh().x_desc("tick").draw()?;
        let points = curve.iter().enumerate().map(|(block, &caught)| ((block + 1) * ticks, caught));
        chart.draw_series(LineSeries::new(points, BLUE.stroke_width(2)))?;

        let bars = [
            ("neither", caught[0][0]),
            ("prey", caught[0][1]),
            ("predators", caught[1][0]),
            ("both", caught[1][1]),
        ];
        let most = bars.iter().map(|(_, caught)| *caught).max().unwrap_or(0).max(1) * 11 / 10;
        let mut chart = ChartBuilder::on(&right)
            .caption("catches, by who is trained", ("sans-serif", 18))
            .margin(10)
            .x_label_area_size(36)
            .y_label_area_size(56)
            .build_cartesian_2d(0.0..bars.len() as f64, 0..most)?;
        let label = |x: &f64| {
            let bar = bars.get(*x as usize).filter(|_| (x.fract() - 0.5).abs() < 0.01);
            bar.map_or(String::new(), |(name, _)| (*name).to_string())
        };
        chart
            .configure_mesh()
            .disable_x_mesh()
            .x_labels(2 * bars.len() + 1)
            .x_label_formatter(&label)
            .draw()?;
        chart.draw_series(bars.iter().enumerate().map(|(at, (_, caught))| {
            let at = at as f64;
            Rectangle::new([(at + 0.15, 0), (at + 0.85, *caught)], BLUE.mix(0.7).filled())
        }))?;
        area.present()?;
    }
    Ok(svg)
}
