//! The line search for the strong Wolfe conditions.

/// How much of the slope the loss has to fall by.
const FALL: f64 = 1e-4;
/// How much of the slope may be left.
const LEFT: f64 = 0.9;

/// A place on the line: how far along the direction, the loss, the gradient and the slope there.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Point {
    pub(super) size: f64,
    pub(super) loss: f64,
    pub(super) gradient: Vec<f64>,
    pub(super) slope: f64,
}

/// What a search begins with.
pub(super) struct Search<'a> {
    /// Where the line begins.
    pub(super) start: &'a Point,
    /// The first size to try.
    pub(super) first: f64,
    /// The greatest number of the direction.
    pub(super) reach: f64,
    pub(super) tolerance_change: f64,
    /// The most sizes to try after the first.
    pub(super) max_ls: usize,
}

/// The answers to what was asked, in order.
struct Oracle<'a>(core::slice::Iter<'a, Point>);

impl Oracle<'_> {
    /// Gives the point at a size, or the size if there is no answer yet.
    fn ask(&mut self, size: f64) -> Result<Point, f64> {
        self.0.next().map(|point| Point { size, ..point.clone() }).ok_or(size)
    }
}

/// Gives the place of the least of the cubic through two points with their slopes, within bounds.
fn interpolate(a: &Point, b: &Point, bounds: Option<(f64, f64)>) -> f64 {
    let (x1, x2) = (a.size, b.size);
    let (least, most) = bounds.unwrap_or(if x1 <= x2 { (x1, x2) } else { (x2, x1) });
    let (g1, g2) = (a.slope, b.slope);
    let d1 = g1 + g2 - 3.0 * (a.loss - b.loss) / (x1 - x2);
    let square = d1 * d1 - g1 * g2;
    if square.is_nan() || square < 0.0 {
        return (least + most) / 2.0;
    }
    let d2 = square.sqrt();
    let place = match x1 <= x2 {
        true => x2 - (x2 - x1) * ((g2 + d2 - d1) / (g2 - g1 + 2.0 * d2)),
        false => x1 - (x1 - x2) * ((g1 + d2 - d1) / (g1 - g2 + 2.0 * d2)),
    };
    place.max(least).min(most)
}

/// Searches with the answers so far: gives the size that is to be tried next as an error, or the point found.
///
/// Source: `_strong_wolfe` of `torch/optim/lbfgs.py`.
pub(super) fn strong_wolfe(search: &Search<'_>, answers: &[Point]) -> Result<Point, f64> {
    let Search { start, first, reach, tolerance_change, max_ls } = *search;
    let mut oracle = Oracle(answers.iter());
    let is_high = |point: &Point| point.loss > start.loss + FALL * point.size * start.slope;
    let is_flat = |point: &Point| point.slope.abs() <= -LEFT * start.slope;

    let mut new = oracle.ask(first)?;
    let mut last = start.clone();
    let mut tries = 0;
    let mut bracket = loop {
        if tries >= max_ls {
            break [start.clone(), new];
        }
        if is_high(&new) || (tries > 1 && new.loss >= last.loss) {
            break [last, new];
        }
        if is_flat(&new) {
            return Ok(new);
        }
        if new.slope >= 0.0 {
            break [last, new];
        }
        let bounds = (new.size + 0.01 * (new.size - last.size), new.size * 10.0);
        let size = interpolate(&last, &new, Some(bounds));
        last = core::mem::replace(&mut new, oracle.ask(size)?);
        tries += 1;
    };

    // Between the two there is a point to be found; `low` is where the lower one is.
    let lower = |bracket: &[Point; 2]| usize::from(bracket[0].loss > bracket[1].loss);
    let mut low = lower(&bracket);
    let mut is_slow = false;
    while tries < max_ls {
        let (least, most) =
            (bracket[0].size.min(bracket[1].size), bracket[0].size.max(bracket[1].size));
        if (most - least) * reach < tolerance_change {
            break;
        }
        let mut size = interpolate(&bracket[0], &bracket[1], None);
        // Too close to a border twice, or on it, is no progress: a tenth away from it then.
        let tenth = 0.1 * (most - least);
        let is_close = (most - size).min(size - least) < tenth;
        if is_close && (is_slow || size >= most || size <= least) {
            let is_above = (size - most).abs() < (size - least).abs();
            size = if is_above { most - tenth } else { least + tenth };
            is_slow = false;
        } else {
            is_slow = is_close;
        }
        let new = oracle.ask(size)?;
        tries += 1;
        if is_high(&new) || new.loss >= bracket[low].loss {
            bracket[1 - low] = new;
            low = lower(&bracket);
            continue;
        }
        if is_flat(&new) {
            return Ok(new);
        }
        if new.slope * (bracket[1 - low].size - bracket[low].size) >= 0.0 {
            bracket[1 - low] = bracket[low].clone();
        }
        bracket[low] = new;
    }
    Ok(bracket[low].clone())
}
