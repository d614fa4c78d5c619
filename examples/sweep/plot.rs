//! The picture: learning rate against validation accuracy, as an SVG that stands by itself.

use std::fmt::Write;

use super::results::{Outcome, Results, grouped, median};
use super::settings::Settings;

const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 620.0;
/// Edges of the field in which the models lie.
const LEFT: f64 = 88.0;
const RIGHT: f64 = WIDTH - 36.0;
const TOP: f64 = 132.0;
const BOTTOM: f64 = HEIGHT - 76.0;

const INK: &str = "#1f2933";
const FAINT: &str = "#66727f";
const GRID: &str = "#e6eaee";
const DOT: &str = "#2f6fb5";
const LINE: &str = "#d9572b";
/// Colors from the least to the greatest probability of dropout.
const RAMP: [[f64; 3]; 3] = [[46.0, 58.0, 135.0], [38.0, 145.0, 140.0], [240.0, 190.0, 50.0]];

/// Draws a dot for each model and a line through the median of neighbors.
pub fn draw(results: &Results, settings: &Settings) -> String {
    let field = Field::around(&results.outcomes);
    let mut svg = format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" font-family="Inter, 'Helvetica Neue', Helvetica, Arial, 'DejaVu Sans', sans-serif" font-size="14" fill="{INK}">
<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>
"##
    );
    titles(&mut svg, results, settings);
    field.axes(&mut svg);
    field.dots(&mut svg, results, settings.dropout());
    field.median_line(&mut svg, &results.outcomes);
    field.best(&mut svg, results.ranked()[0]);
    legend(&mut svg, settings.dropout());
    svg.push_str("</svg>\n");
    svg
}

/// Where numbers lie on the paper.
struct Field {
    /// Ends of the horizontal axis: decimal logarithms of learning rates.
    x: [f64; 2],
    /// Ends of the vertical axis: accuracies.
    y: [f64; 2],
    /// From one label of the vertical axis to the next.
    step: f64,
}

impl Field {
    /// Makes room for all models.
    fn around(outcomes: &[Outcome]) -> Self {
        let rates = outcomes.iter().map(|outcome| outcome.learning_rate.log10());
        let [low, high] = ends(rates);
        // One learning rate alone lies in the middle of an axis that has some length all the same.
        let margin = ((high - low) * 0.025).max(0.1);
        let [worst, best] = ends(outcomes.iter().map(|outcome| outcome.accuracy));
        let steps = [0.01, 0.02, 0.05, 0.1, 0.2];
        let fits = |step: &&f64| (best - worst) / **step <= 7.0;
        let step = *steps.iter().find(fits).unwrap_or(&0.2);
        let bottom = ((worst / step - 0.25).floor() * step).max(0.0);
        let top = ((best / step + 0.25).ceil() * step).min(1.0);
        Field { x: [low - margin, high + margin], y: [bottom, top], step }
    }

    fn x(&self, learning_rate: f64) -> f64 {
        let [low, high] = self.x;
        LEFT + (learning_rate.log10() - low) / (high - low) * (RIGHT - LEFT)
    }

    fn y(&self, accuracy: f64) -> f64 {
        let [low, high] = self.y;
        BOTTOM - (accuracy - low) / (high - low) * (BOTTOM - TOP)
    }

    fn axes(&self, svg: &mut String) {
        let steps = ((self.y[1] - self.y[0]) / self.step).round() as usize;
        for accuracy in (0..=steps).map(|i| self.y[0] + i as f64 * self.step) {
            let y = self.y(accuracy);
            line(svg, [LEFT, y, RIGHT, y], GRID);
            let label = format!("{:.0} %", 100.0 * accuracy);
            text(svg, [LEFT - 12.0, y + 5.0], "end", INK, &label);
        }
        let decades = self.x[0].floor() as i32..=self.x[1].ceil() as i32;
        // Less than a decade and a half would show one label or none, dozens of them no gap between.
        let is_narrow = self.x[1] - self.x[0] < 1.5;
        let every = 1 + (self.x[1] - self.x[0]) as i32 / 12;
        for (decade, digit) in decades.flat_map(|decade| (1..10).map(move |digit| (decade, digit)))
        {
            let rate = f64::from(digit) * 10_f64.powi(decade);
            let x = self.x(rate);
            if !(LEFT..=RIGHT).contains(&x) {
                continue;
            }
            let is_labeled =
                digit == 1 && decade % every == 0 || is_narrow && matches!(digit, 2 | 5);
            if is_labeled {
                line(svg, [x, TOP, x, BOTTOM + 8.0], GRID);
                text(svg, [x, BOTTOM + 26.0], "middle", INK, &power_of_ten(digit.into(), decade));
            }
            if every > 1 && !is_labeled {
                continue;
            }
            let length = if is_labeled { 8.0 } else { 4.0 };
            line(svg, [x, BOTTOM, x, BOTTOM + length], FAINT);
        }
        line(svg, [LEFT, BOTTOM, RIGHT, BOTTOM], FAINT);
        let middle = f64::midpoint(LEFT, RIGHT);
        text(svg, [middle, HEIGHT - 22.0], "middle", INK, "learning rate (logarithmic)");
        let (x, y) = (28.0, f64::midpoint(TOP, BOTTOM));
        let _ = writeln!(
            svg,
            r#"<text transform="translate({x},{y}) rotate(-90)" text-anchor="middle">validation accuracy</text>"#
        );
    }

    fn dots(&self, svg: &mut String, results: &Results, dropout: Option<(f64, f64)>) {
        let n = results.outcomes.len();
        let (radius, opacity) = if n > 3_000 { (2.0, 0.3) } else { (3.2, 0.45) };
        let _ = writeln!(svg, r#"<g fill-opacity="{opacity}">"#);
        for outcome in &results.outcomes {
            let (x, y) = (self.x(outcome.learning_rate), self.y(outcome.accuracy));
            let color = match (dropout, outcome.dropout) {
                (Some((min, max)), Some(p)) if min < max => ramp((p - min) / (max - min)),
                _ => DOT.to_owned(),
            };
            let _ =
                writeln!(svg, r#"<circle cx="{x:.1}" cy="{y:.1}" r="{radius}" fill="{color}"/>"#);
        }
        svg.push_str("</g>\n");
    }

    /// Models are in order of learning rates, so neighbors in the list are neighbors on the axis.
    fn median_line(&self, svg: &mut String, outcomes: &[Outcome]) {
        let window = (outcomes.len() / 20).max(9);
        if outcomes.len() < 2 * window {
            return;
        }
        let points: Vec<_> = outcomes
            .windows(window)
            .map(|near| {
                let rate = near[window / 2].learning_rate;
                let accuracy = median(near.iter().map(|outcome| outcome.accuracy));
                format!("{:.1},{:.1}", self.x(rate), self.y(accuracy))
            })
            .collect();
        let points = points.join(" ");
        for (color, width) in [("#ffffff", 6.0), (LINE, 3.0)] {
            let _ = writeln!(
                svg,
                r#"<polyline points="{points}" fill="none" stroke="{color}" stroke-width="{width}" stroke-linejoin="round" stroke-linecap="round"/>"#
            );
        }
    }

    /// Rings the best model and writes its numbers beside it.
    fn best(&self, svg: &mut String, best: &Outcome) {
        let (x, y) = (self.x(best.learning_rate), self.y(best.accuracy));
        let _ = writeln!(
            svg,
            r#"<circle cx="{x:.1}" cy="{y:.1}" r="7" fill="none" stroke="{INK}" stroke-width="1.8"/>"#
        );
        let decade = best.learning_rate.log10().floor() as i32;
        let rate = power_of_ten(best.learning_rate / 10_f64.powi(decade), decade);
        let label = format!("best: {:.1} % at {rate}", 100.0 * best.accuracy);
        let (anchor, offset) =
            if x > f64::midpoint(LEFT, RIGHT) { ("end", -12.0) } else { ("start", 12.0) };
        text(svg, [x + offset, y - 12.0], anchor, INK, &label);
    }
}

fn titles(svg: &mut String, results: &Results, settings: &Settings) {
    let Settings { hidden, epochs, batch, .. } = settings;
    let _ = writeln!(
        svg,
        r#"<text x="{LEFT}" y="42" font-size="22" font-weight="600">Learning rate against validation accuracy</text>"#
    );
    let models = grouped(results.outcomes.len() as u64);
    let subtitle = format!(
        "Classifiers 64-{hidden}-10 of handwritten digits. Models: {models}. Epochs of Adam: {epochs}. Batch: {batch}."
    );
    text(svg, [LEFT, 68.0], "start", FAINT, &subtitle);
}

/// Explains dots and line, under the titles.
fn legend(svg: &mut String, dropout: Option<(f64, f64)>) {
    let (y, middle) = (98.0, 93.0);
    let _ = writeln!(
        svg,
        r#"<path d="M{LEFT},{middle}h26" stroke="{LINE}" stroke-width="3" stroke-linecap="round"/>"#
    );
    text(svg, [LEFT + 36.0, y], "start", INK, "running median");
    let dot = LEFT + 176.0;
    let _ = writeln!(
        svg,
        r#"<circle cx="{dot}" cy="{middle}" r="4" fill="{DOT}" fill-opacity="0.6"/>"#
    );
    text(svg, [dot + 12.0, y], "start", INK, "one model");
    if let Some((min, max)) = dropout.filter(|(min, max)| min < max) {
        let [low, half, high] = [0.0, 0.5, 1.0].map(ramp);
        let from = dot + 196.0;
        text(svg, [from - 8.0, y], "end", INK, &format!("dropout {min}"));
        let _ = writeln!(
            svg,
            r#"<linearGradient id="dropout"><stop stop-color="{low}"/><stop offset="0.5" stop-color="{half}"/><stop offset="1" stop-color="{high}"/></linearGradient>
<rect x="{from}" y="{}" width="120" height="10" rx="2" fill="url(#dropout)"/>"#,
            middle - 5.0,
        );
        text(svg, [from + 128.0, y], "start", INK, &max.to_string());
    }
}

fn line(svg: &mut String, [x1, y1, x2, y2]: [f64; 4], color: &str) {
    let _ = writeln!(
        svg,
        r#"<line x1="{x1:.1}" y1="{y1:.1}" x2="{x2:.1}" y2="{y2:.1}" stroke="{color}"/>"#
    );
}

fn text(svg: &mut String, [x, y]: [f64; 2], anchor: &str, color: &str, text: &str) {
    let _ = writeln!(
        svg,
        r#"<text x="{x:.1}" y="{y:.1}" text-anchor="{anchor}" fill="{color}">{text}</text>"#
    );
}

/// Writes a number as it is read: 10⁻², 7.4 · 10⁻³.
fn power_of_ten(factor: f64, decade: i32) -> String {
    let superscript = |c| match c {
        '-' => '⁻',
        c => ['⁰', '¹', '²', '³', '⁴', '⁵', '⁶', '⁷', '⁸', '⁹'][c as usize - '0' as usize],
    };
    let power: String = decade.to_string().chars().map(superscript).collect();
    let factor = (factor * 10.0).round() / 10.0;
    if factor == 1.0 { format!("10{power}") } else { format!("{factor} · 10{power}") }
}

/// Mixes the color at a place between 0 and 1 on [`RAMP`].
fn ramp(place: f64) -> String {
    let along = place.clamp(0.0, 1.0) * (RAMP.len() - 1) as f64;
    let first = (along as usize).min(RAMP.len() - 2);
    let [r, g, b] = std::array::from_fn(|channel| {
        let (from, to) = (RAMP[first][channel], RAMP[first + 1][channel]);
        (from + (to - from) * (along - first as f64)).round()
    });
    format!("rgb({r},{g},{b})")
}

/// Gives the least and the greatest of some numbers.
fn ends(numbers: impl Iterator<Item = f64>) -> [f64; 2] {
    numbers.fold([f64::INFINITY, f64::NEG_INFINITY], |[low, high], n| [low.min(n), high.max(n)])
}
