//! [`Taps`]: which numbers along an axis make each number of the new axis.

use core::fmt;

/// A sparse matrix that maps an axis of `inputs` numbers to one of `outputs`: row `i` lists what number `i` is
/// the sum of, in the order of the sum.
#[derive(Clone, PartialEq)]
pub struct Taps {
    inputs: usize,
    /// Where each row ends in `terms`.
    ends: Vec<usize>,
    /// Which number is read, and its weight.
    terms: Vec<(usize, f64)>,
}

impl Taps {
    /// Collects rows of numbers to read, each with its weight.
    pub fn new<R: IntoIterator<Item = (usize, f64)>>(
        inputs: usize,
        rows: impl IntoIterator<Item = R>,
    ) -> Self {
        let mut taps = Taps { inputs, ends: Vec::new(), terms: Vec::new() };
        for row in rows {
            taps.terms.extend(row);
            taps.ends.push(taps.terms.len());
        }
        taps
    }

    /// Reads one number for each, or none, which gives 0.
    pub fn copies(inputs: usize, sources: impl IntoIterator<Item = Option<usize>>) -> Self {
        Taps::new(inputs, sources.into_iter().map(|from| from.map(|from| (from, 1.0))))
    }

    /// Gives the size of the axis that is read.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Gives the size of the new axis.
    pub fn outputs(&self) -> usize {
        self.ends.len()
    }

    /// Lists the rows.
    pub fn rows(&self) -> impl Iterator<Item = &[(usize, f64)]> {
        let starts = [0].into_iter().chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(start, &end)| &self.terms[start..end])
    }

    /// Counts the terms of all rows.
    pub fn terms(&self) -> usize {
        self.terms.len()
    }

    /// Multiplies all weights.
    #[must_use]
    pub fn scaled(mut self, factor: f64) -> Self {
        self.terms.iter_mut().for_each(|(_, weight)| *weight *= factor);
        self
    }

    /// Gives the taps that map the new axis back: the transposed matrix.
    #[must_use]
    pub fn transposed(&self) -> Self {
        let mut rows = vec![Vec::new(); self.inputs];
        for (to, row) in self.rows().enumerate() {
            for &(from, weight) in row {
                if let Some(row) = rows.get_mut(from) {
                    row.push((to, weight));
                }
            }
        }
        Taps::new(self.outputs(), rows)
    }

    /// Says whether each number is itself.
    pub fn is_identity(&self) -> bool {
        let same = |(to, row): (usize, &[(usize, f64)])| row == [(to, 1.0)];
        self.inputs == self.outputs() && self.rows().enumerate().all(same)
    }

    /// Says whether every number that is read is there.
    pub(super) fn are_within(&self) -> bool {
        self.terms.iter().all(|&(from, _)| from < self.inputs)
    }
}

/// `4 -> [0 1 2*0.5+3*0.5 -]`: a weight of 1 is left out, `-` reads nothing.
impl fmt::Display for Taps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let term = |&(from, weight): &(usize, f64)| match weight {
            1.0 => from.to_string(),
            _ => format!("{from}*{weight}"),
        };
        let row = |row: &[(usize, f64)]| match row {
            [] => "-".to_owned(),
            _ => row.iter().map(term).collect::<Vec<_>>().join("+"),
        };
        write!(f, "{} -> [{}]", self.inputs, self.rows().map(row).collect::<Vec<_>>().join(" "))
    }
}

impl fmt::Debug for Taps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transposing_twice_gives_the_same_matrix() {
        let taps = Taps::new(3, [vec![(0, 0.5), (2, 2.0)], vec![], vec![(2, 1.0)], vec![(1, 3.0)]]);
        assert_eq!(taps.to_string(), "3 -> [0*0.5+2*2 - 2 1*3]");
        assert_eq!(taps.transposed().to_string(), "4 -> [0*0.5 3*3 0*2+2]");
        assert_eq!(taps.transposed().transposed(), taps);
        assert!(Taps::copies(2, [Some(0), Some(1)]).is_identity() && !taps.is_identity());
    }
}
