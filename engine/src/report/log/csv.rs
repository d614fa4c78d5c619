//! [`CsvWriter`]: a table with a row a step.

use std::collections::HashMap;
use std::fs::OpenOptions;
use std::path::Path;

use super::file::LogFile;
use crate::report::log::{Entry, LogError, Logger, Value};

/// Writes a table: a row for each step, with the columns `step`, `wall_time` and one for each tag.
///
/// The header is written with the first row and stays as it is: a tag that comes later is an error. So either every step
/// logs what the first one did, or all columns are named before, by [`with_columns`](CsvWriter::with_columns). A cell
/// without a number is empty; `NaN`, `inf` and `-inf` are written so. A row ends when another step is logged, when a
/// column has its number already, and at a flush. Histograms are left out.
#[derive(Debug)]
pub struct CsvWriter {
    file: LogFile,
    /// The columns behind the first two.
    header: Vec<String>,
    places: HashMap<String, usize>,
    /// Whether another column is an error.
    is_closed: bool,
    is_written: bool,
    row: Option<Row>,
}

/// A row that may get more numbers.
#[derive(Debug)]
struct Row {
    step: u64,
    wall_time: f64,
    /// As long as the header or shorter.
    cells: Vec<Option<String>>,
}

impl CsvWriter {
    /// Creates a file whose columns are those of the first step. One that was there is overwritten.
    ///
    /// # Errors
    ///
    /// [`LogError::Write`] if it cannot be made.
    pub fn create(path: impl AsRef<Path>) -> Result<Self, LogError> {
        let options = OpenOptions::new().write(true).create(true).truncate(true).clone();
        Ok(CsvWriter {
            file: LogFile::open(path.as_ref(), &options)?,
            header: Vec::new(),
            places: HashMap::new(),
            is_closed: false,
            is_written: false,
            row: None,
        })
    }

    /// Creates a file with these columns behind `step` and `wall_time`: tags, and for the numbers of all models
    /// [`Quantiles::columns`](super::Quantiles::columns).
    ///
    /// # Errors
    ///
    /// As [`create`](CsvWriter::create).
    pub fn with_columns<S: Into<String>>(
        path: impl AsRef<Path>,
        columns: impl IntoIterator<Item = S>,
    ) -> Result<Self, LogError> {
        let mut writer = CsvWriter::create(path)?;
        for column in columns {
            writer.add_column(column.into());
        }
        writer.is_closed = true;
        Ok(writer)
    }

    fn add_column(&mut self, column: String) {
        if !self.places.contains_key(&column) {
            self.places.insert(column.clone(), self.header.len());
            self.header.push(column);
        }
    }

    /// Returns whether a row of this step has no number in those columns.
    fn has_room(&self, step: u64, numbers: &[(String, String)]) -> bool {
        let Some(row) = &self.row else { return false };
        let is_full = |column: &String| {
            let place = self.places.get(column);
            place.and_then(|&place| row.cells.get(place)).is_some_and(Option::is_some)
        };
        row.step == step && !numbers.iter().any(|(column, _)| is_full(column))
    }

    /// Appends the row, and before the first one the header.
    fn end_row(&mut self) -> Result<(), LogError> {
        let Some(row) = self.row.take() else { return Ok(()) };
        let mut text = String::new();
        if !self.is_written {
            let first = ["step", "wall_time"].into_iter();
            line(&mut text, first.chain(self.header.iter().map(String::as_str)));
            (self.is_written, self.is_closed) = (true, true);
        }
        let first = [row.step.to_string(), row.wall_time.to_string()];
        let cell = |place| row.cells.get(place).and_then(Option::as_deref).unwrap_or_default();
        line(&mut text, first.iter().map(String::as_str).chain((0..self.header.len()).map(cell)));
        self.file.append(text.as_bytes())
    }
}

impl Logger for CsvWriter {
    fn log(&mut self, entry: &Entry<'_>) -> Result<(), LogError> {
        let tag = entry.tag;
        let numbers: Vec<_> = match entry.value {
            Value::Scalar(number) => vec![(tag.to_owned(), number.to_string())],
            Value::Models(all) => all
                .scalars()
                .map(|(name, number)| (format!("{tag}/{name}"), number.to_string()))
                .collect(),
            Value::Text(text) => vec![(tag.to_owned(), text.to_owned())],
            Value::Histogram(_) => return Ok(()),
        };
        if !self.has_room(entry.step, &numbers) {
            self.end_row()?;
        }
        let unknown = |(column, _): &&(String, String)| !self.places.contains_key(column);
        if let Some((column, _)) = numbers.iter().find(unknown).filter(|_| self.is_closed) {
            let (path, header) = (self.file.path.clone(), self.header.join(", "));
            return Err(LogError::NoColumn { path, header, column: column.clone() });
        }
        for (column, _) in &numbers {
            self.add_column(column.clone());
        }
        let Entry { step, wall_time, .. } = *entry;
        let row = self.row.get_or_insert_with(|| Row { step, wall_time, cells: Vec::new() });
        row.cells.resize(self.header.len(), None);
        for (column, number) in numbers {
            row.cells[self.places[&column]] = Some(number);
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), LogError> {
        self.end_row()?;
        self.file.flush()
    }
}

impl Drop for CsvWriter {
    fn drop(&mut self) {
        // Who wants to know of errors flushes before.
        let _ = self.end_row();
    }
}

/// Writes a line. Cells with commas, quotes or line breaks are quoted.
///
/// Source: RFC 4180.
fn line<'a>(text: &mut String, cells: impl Iterator<Item = &'a str>) {
    for (place, cell) in cells.enumerate() {
        if place > 0 {
            text.push(',');
        }
        if cell.contains([',', '"', '\n', '\r']) {
            text.extend(["\"", &cell.replace('"', "\"\""), "\""]);
        } else {
            text.push_str(cell);
        }
    }
    text.push('\n');
}
