//! Summaries as text: torchinfo's table, letter by letter.

use core::fmt;
use core::fmt::Write;

use super::options::Column;
use super::parameters::sum;
use super::rows::{KernelSize, Row, Trainable};
use super::{PopulationSummary, Summary};
use crate::kernels::ir::shape::Shape;

/// How wide columns are.
const WIDTH: usize = 25;
/// How wide the names of layers are at least; they grow by steps of [`INDENT`].
const NAME_WIDTH: usize = 40;
/// How far a level is to the right of the one above.
const INDENT: usize = 5;

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name_width = self.name_width();
        let divider = "=".repeat(self.shown.columns.len() * WIDTH + name_width);
        self.table(f, name_width, &divider)?;
        let Summary { total_params, trainable_params, param_bytes, .. } = self;
        params(f, [*total_params, *trainable_params, self.non_trainable_params()])?;
        writeln!(f, "Total mult-adds {}\n{divider}", readable(self.total_mult_adds))?;
        writeln!(f, "Input size (MB): {}", megabytes(self.input_bytes))?;
        writeln!(f, "Forward/backward pass size (MB): {}", megabytes(self.output_bytes))?;
        writeln!(f, "Params size (MB): {}", megabytes(*param_bytes))?;
        let all = sum([self.input_bytes, self.output_bytes, *param_bytes].into_iter());
        write!(f, "Estimated Total Size (MB): {}\n{divider}", megabytes(all))
    }
}

/// The table of each structure, and the totals of all models.
impl fmt::Display for PopulationSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for structure in &self.structures {
            let all = if structure.models == 1 { "model" } else { "models" };
            writeln!(
                f,
                "{} {all} of this structure:\n{structure}",
                grouped(structure.models as u64)
            )?;
        }
        writeln!(f, "All {} models:", grouped(self.models as u64))?;
        params(f, [self.total_params, self.trainable_params, self.non_trainable_params()])?;
        writeln!(f, "Total mult-adds {}", readable(self.total_mult_adds))?;
        write!(f, "Params size (MB): {}", megabytes(self.param_bytes))
    }
}

fn params(f: &mut fmt::Formatter<'_>, [all, trainable, others]: [u64; 3]) -> fmt::Result {
    writeln!(f, "Total params: {}", grouped(all))?;
    writeln!(f, "Trainable params: {}", grouped(trainable))?;
    writeln!(f, "Non-trainable params: {}", grouped(others))
}

impl Summary {
    fn name_width(&self) -> usize {
        let longest =
            self.rows.iter().map(|row| label(row).chars().count() + row.depth * INDENT + 1);
        match longest.max() {
            Some(longest) if longest >= NAME_WIDTH => longest.next_multiple_of(INDENT),
            _ => NAME_WIDTH,
        }
    }

    fn table(&self, f: &mut fmt::Formatter<'_>, name_width: usize, divider: &str) -> fmt::Result {
        let titles = self.shown.columns.iter().map(|column| column.title().to_owned());
        let header = line("Layer (type:depth-idx)", name_width, titles)?;
        writeln!(f, "{divider}\n{header}\n{divider}")?;
        for (place, row) in self.rows.iter().enumerate() {
            if row.depth > self.shown.depth {
                continue;
            }
            let cells = self.shown.columns.iter().map(|column| self.cell(place, *column));
            let start = match row.depth {
                0 => String::new(),
                1 => "├─".to_owned(),
                depth => "│    ".repeat(depth - 1) + "└─",
            };
            let name = format!("{start}{}", label(row));
            writeln!(f, "{}", line(&name, name_width, cells)?)?;
        }
        writeln!(f, "{divider}")
    }

    /// Writes a cell. The last rows that are shown speak of all that is below them.
    fn cell(&self, place: usize, column: Column) -> String {
        let row = &self.rows[place];
        let is_whole = row.is_leaf || row.depth == self.shown.depth;
        let nothing = || "--".to_owned();
        let size = |size: &[usize]| match size {
            [] => nothing(),
            size => Shape::from(size).to_string(),
        };
        let own = if is_whole { row.num_params } else { row.own_params };
        match column {
            Column::InputSize => size(&row.input_size),
            Column::OutputSize => size(&row.output_size),
            Column::NumParams => match own {
                _ if row.num_params == 0 => nothing(),
                _ if row.is_recursive => "(recursive)".to_owned(),
                0 => nothing(),
                own if is_whole && row.trainable_params == 0 => format!("({})", grouped(own)),
                own => grouped(own),
            },
            Column::ParamsPercent if self.total_params == 0 => format!("{:>7}", "--"),
            Column::ParamsPercent if row.is_recursive => "(recursive)".to_owned(),
            Column::ParamsPercent => {
                let below =
                    self.rows[place + 1..].iter().take_while(|below| below.depth > row.depth);
                let below = below.filter(|_| is_whole).map(|row| row.own_params);
                match row.own_params + below.sum::<u64>() {
                    0 => format!("{:>7}", "--"),
                    own => format!("{:>6.2}%", 100.0 * own as f64 / self.total_params as f64),
                }
            }
            Column::KernelSize => match &row.kernel_size {
                None => nothing(),
                Some(KernelSize::All(size)) => size.to_string(),
                Some(KernelSize::Each(sizes)) => size(sizes),
            },
            Column::MultAdds if is_whole && row.mult_adds > 0 => grouped(row.mult_adds),
            Column::MultAdds => nothing(),
            Column::Trainable => match row.trainable {
                Trainable::Nothing => nothing(),
                trainable => format!("{trainable:?}"),
            },
            Column::ParamBytes if row.param_bytes > 0 => grouped(row.param_bytes),
            Column::OutputBytes if row.output_bytes > 0 => grouped(row.output_bytes),
            Column::ParamBytes | Column::OutputBytes => nothing(),
            Column::Time => row.time.map_or_else(nothing, |time| format!("{time:.1?}")),
        }
    }
}

/// Writes a line without blanks at its end.
fn line(
    name: &str,
    name_width: usize,
    cells: impl Iterator<Item = String>,
) -> Result<String, fmt::Error> {
    let mut line = format!("{name:<name_width$} ");
    for cell in cells {
        write!(line, "{cell:<WIDTH$} ")?;
    }
    line.truncate(line.trim_end().len());
    Ok(line)
}

impl Column {
    fn title(self) -> &'static str {
        match self {
            Column::InputSize => "Input Shape",
            Column::OutputSize => "Output Shape",
            Column::NumParams => "Param #",
            Column::ParamsPercent => "Param %",
            Column::KernelSize => "Kernel Shape",
            Column::MultAdds => "Mult-Adds",
            Column::Trainable => "Trainable",
            Column::ParamBytes => "Param Bytes",
            Column::OutputBytes => "Output Bytes",
            Column::Time => "Time",
        }
    }
}

/// Names a row: `Linear: 1-2`.
fn label(row: &Row) -> String {
    match row.depth {
        0 => row.class_name.clone(),
        depth => format!("{}: {depth}-{}", row.class_name, row.depth_index),
    }
}

/// Writes a number with commas between thousands: Python's `{:,}`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Writes a number in millions, from a billion on in billions, then in trillions: `(M): 3.38`.
fn readable(number: u64) -> String {
    let (unit, size) = match number {
        1_000_000_000_000.. => ('T', 1e12),
        1_000_000_000.. => ('G', 1e9),
        _ => ('M', 1e6),
    };
    let number = number as f64 / size;
    match number.fract() == 0.0 {
        true => format!("({unit}): {}", grouped(number as u64)),
        false => format!("({unit}): {number:.2}"),
    }
}

fn megabytes(bytes: u64) -> String {
    format!("{:.2}", bytes as f64 / 1e6)
}
