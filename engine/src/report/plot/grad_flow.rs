//! [`plot_grad_flow`]: how gradients grow or vanish from layer to layer.

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::{FONT, GRID, LEAST, Paper, PlotError, has_place, svg, tick, unit_of};
use crate::report::health::{GradientHealth, ParameterHealth};

/// matplotlib's colors `c`, `b` and `k`.
const MAX: RGBColor = RGBColor(0, 191, 191);
const MEAN: RGBColor = RGBColor(0, 0, 255);
const ZERO: RGBColor = RGBColor(0, 0, 0);
/// How opaque a bar is. The recipe's bars are of 0.1, which hardly shows on paper.
const OPACITY: f64 = 0.35;
/// Half the width of a bar, in layers.
const HALF: f64 = 0.4;
/// Pixels between the middles of two bars at least, and of a letter of a name.
const BAR: u32 = 26;
const LETTER: u32 = 7;

/// Draws the mean and the greatest gradient of each layer, signs aside, as two bars over each other.
///
/// Parameters with `bias` in their names, those without a gradient and those that need none are left out, as in the recipe.
/// The recipe shows gradients up to 0.02 and half of the first bar; this shows all of them.
///
/// # Example
///
/// ```
/// use ndarray::Array3;
/// use neurarch::prelude::*;
/// use neurarch::report::plot::plot_grad_flow;
///
/// let mut world = World::new();
/// let brain = Sequential::new().push(Linear::new(2, 8)).push(Tanh).push(Linear::new(8, 1));
/// let mut brains = world.spawn_population(&brain, 10, Seed(7))?;
/// brains.forward(&Array3::<f32>::ones((10, 4, 2)))?;
/// brains.loss::<f32, f32>(&Array3::zeros((10, 4, 1)), &MSELoss::default())?;
/// brains.backward()?;
/// let health = brains.as_ref()?.model(3)?.check_gradient_health()?;
/// let svg = plot_grad_flow(&health);
/// assert!(svg.starts_with("<svg") && svg.contains("Gradient flow") && svg.contains("0.weight"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Source: the recipe `plot_grad_flow(named_parameters)` for matplotlib.
pub fn plot_grad_flow(health: &GradientHealth) -> String {
    let is_shown = |of: &&ParameterHealth| of.requires_grad && !of.name.contains("bias");
    let layers: Vec<_> = health.parameters.iter().filter(is_shown).collect();
    let longest = layers.iter().map(|of| of.name.chars().count()).max().unwrap_or(0) as u32;
    let names = 40 + LETTER * longest;
    let size = (640.max(120 + BAR * layers.len() as u32), 400 + names);
    svg(size, |paper| draw(paper, &layers, names))
}

fn draw(paper: &Paper<'_>, layers: &[&ParameterHealth], names: u32) -> Result<(), PlotError> {
    let greatest = layers.iter().map(|of| of.max).filter(|x| has_place(*x)).fold(0.0, f64::max);
    let top = if greatest < LEAST { 1.0 } else { 1.05 * greatest };
    let (count, unit) = (layers.len().max(1) as f64, unit_of(&(0.0..top)));
    let top = top / unit;
    let mut chart = ChartBuilder::on(paper)
        .caption("Gradient flow", (FONT, 22))
        .margin(12)
        .x_label_area_size(names)
        .y_label_area_size(76)
        .build_cartesian_2d(-0.5..count - 0.5, -0.05 * top..top)?;
    chart
        .configure_mesh()
        .x_labels(layers.len() + 1)
        .x_label_formatter(&|_| String::new())
        .y_label_formatter(&|y| tick(*y, unit))
        .label_style((FONT, 15))
        .axis_desc_style((FONT, 17))
        .bold_line_style(GRID)
        .max_light_lines(0)
        .x_desc("Layers")
        .y_desc("average gradient")
        .draw()?;
    let bars = |number: fn(&ParameterHealth) -> f64, color: RGBColor| {
        let numbers = layers.iter().map(move |of| number(of)).enumerate();
        let numbers = numbers.filter(|(_, number)| has_place(*number));
        numbers.map(move |(layer, number)| {
            let corners = [(layer as f64 - HALF, 0.0), (layer as f64 + HALF, number / unit)];
            Rectangle::new(corners, color.mix(OPACITY).filled())
        })
    };
    let zero = PathElement::new([(-0.5, 0.0), (count - 0.5, 0.0)], ZERO.stroke_width(2));
    let key = |color: RGBColor| {
        move |(x, y)| PathElement::new([(x, y), (x + 20, y)], color.stroke_width(4))
    };
    chart.draw_series(bars(|of| of.max, MAX))?.label("max-gradient").legend(key(MAX));
    chart.draw_series(bars(|of| of.mean, MEAN))?.label("mean-gradient").legend(key(MEAN));
    chart.draw_series([zero])?.label("zero-gradient").legend(key(ZERO));
    let vertical = (FONT, 15).into_font().transform(FontTransform::Rotate270).color(&BLACK);
    let vertical = vertical.pos(Pos::new(HPos::Right, VPos::Center));
    for (layer, of) in layers.iter().enumerate() {
        let (x, y) = chart.backend_coord(&(layer as f64, -0.05 * top));
        paper.draw(&Text::new(of.name.clone(), (x, y + 10), vertical.clone()))?;
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .label_font((FONT, 15))
        .background_style(WHITE.mix(0.8))
        .border_style(GRID)
        .draw()
}
