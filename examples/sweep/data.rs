//! The digits: 8×8 images of handwriting with their labels, from a CSV file.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::bufread::MultiGzDecoder;
use ndarray::{Array1, Array2, ArrayView1, ArrayView2, s};

/// Pixels of an image.
pub(crate) const PIXELS: usize = 64;
/// Digits to tell apart.
pub(crate) const CLASSES: usize = 10;
/// Pixels are given as 0 to 16, and scaled to 0 to 1.
const BRIGHTEST: f32 = 16.0;

/// Images with their labels: the first four fifths to train with, the rest to validate with.
#[derive(Debug)]
pub(crate) struct Digits {
    /// `[images, PIXELS]`, from 0 to 1.
    images: Array2<f32>,
    /// `[images]`, the digit shown.
    labels: Array1<i64>,
}

/// The data cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DataError {
    #[error("{}: {source}", .path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{}: the file is empty", .path.display())]
    Empty { path: PathBuf },
    #[error("{}: expected at least 2 images, one to train with and one to validate with, got 1", .path.display())]
    One { path: PathBuf },
    #[error("{}: line {line}: expected {} columns, got {found}", .path.display(), PIXELS + 1)]
    Columns { path: PathBuf, line: usize, found: usize },
    #[error("{}: line {line}, column {column}: expected {expected}, got {found:?}", .path.display())]
    Cell { path: PathBuf, line: usize, column: usize, expected: &'static str, found: String },
}

impl Digits {
    /// Reads a file, compressed with gzip or not.
    pub(crate) fn read(path: &Path) -> Result<Self, DataError> {
        let failed = |source| DataError::Read { path: path.to_owned(), source };
        let mut file = BufReader::new(File::open(path).map_err(failed)?);
        let is_gzip = file.fill_buf().map_err(failed)?.starts_with(&[0x1f, 0x8b]);
        let text: Box<dyn Read> =
            if is_gzip { Box::new(MultiGzDecoder::new(file)) } else { Box::new(file) };
        Self::parse(BufReader::new(text), path)
    }

    fn parse(text: impl BufRead, path: &Path) -> Result<Self, DataError> {
        let (mut pixels, mut labels) = (Vec::new(), Vec::new());
        for (line, text) in text.lines().enumerate() {
            let text = text.map_err(|source| DataError::Read { path: path.to_owned(), source })?;
            let cells: Vec<_> = text.split(',').map(str::trim).collect();
            let (path, line) = (path.to_owned(), line + 1);
            if cells.len() != PIXELS + 1 {
                return Err(DataError::Columns { path, line, found: cells.len() });
            }
            let wrong = |column: usize, expected| DataError::Cell {
                path: path.clone(),
                line,
                column: column + 1,
                expected,
                // Enough to find it by; a file of another kind may be one cell of megabytes.
                found: cells[column].chars().take(20).collect(),
            };
            for (column, cell) in cells[..PIXELS].iter().enumerate() {
                let pixel = cell.parse().ok().filter(|pixel| (0.0..=BRIGHTEST).contains(pixel));
                pixels
                    .push(pixel.ok_or_else(|| wrong(column, "a pixel from 0 to 16"))? / BRIGHTEST);
            }
            let label =
                cells[PIXELS].parse().ok().filter(|label| (0..CLASSES as i64).contains(label));
            labels.push(label.ok_or_else(|| wrong(PIXELS, "a digit from 0 to 9"))?);
        }
        match labels.len() {
            0 => Err(DataError::Empty { path: path.to_owned() }),
            1 => Err(DataError::One { path: path.to_owned() }),
            n => Ok(Digits {
                images: Array2::from_shape_vec((n, PIXELS), pixels)
                    .expect("each line gave as many pixels"),
                labels: labels.into(),
            }),
        }
    }

    /// Counts the images to train with: 1,437 of the 1,797.
    pub(crate) fn n_train(&self) -> usize {
        self.labels.len() * 4 / 5
    }

    /// Gives the images to train with and their labels.
    pub(crate) fn train(&self) -> (ArrayView2<'_, f32>, ArrayView1<'_, i64>) {
        let n = self.n_train();
        (self.images.slice(s![..n, ..]), self.labels.slice(s![..n]))
    }

    /// Gives the images to validate with and their labels.
    pub(crate) fn validation(&self) -> (ArrayView2<'_, f32>, ArrayView1<'_, i64>) {
        let n = self.n_train();
        (self.images.slice(s![n.., ..]), self.labels.slice(s![n..]))
    }
}
