//! Losses that are ops of their own.

use super::interpreter::{Call, Compute, coordinates, place};

pub(crate) const TABLE: &[(&str, Compute)] = &[
    ("cross_entropy", |call| vec![CrossEntropy::of(call).loss()]),
    ("cross_entropy_gradient", |call| vec![CrossEntropy::of(call).gradient()]),
    ("cross_entropy_with_gradient", |call| {
        let of = CrossEntropy::of(call);
        vec![of.loss(), of.gradient()]
    }),
    ("cross_entropy_scale", |call| vec![CrossEntropy::of(call).scales()]),
];

/// The numbers of one loss.
struct CrossEntropy<'a> {
    call: &'a Call<'a>,
    classes: usize,
    /// The places of each item's logits.
    items: Vec<Vec<usize>>,
    smoothing: f64,
    weights: Vec<f64>,
    /// What the sum of losses is divided by.
    divisor: f64,
    dloss: Option<&'a [f64]>,
}

impl<'a> CrossEntropy<'a> {
    fn of(call: &'a Call<'a>) -> Self {
        let shape = &call.x[0].ty.shape;
        let axis = usize::from(shape.rank() > 1);
        let classes = shape[axis];
        let rest: Vec<_> = (0..shape.rank()).filter(|&i| i != axis).map(|i| shape[i]).collect();
        let line = |at: Vec<usize>| {
            let at = |class: usize| [&at[..axis], &[class], &at[axis..]].concat();
            (0..classes).map(|class| place(shape, &at(class))).collect()
        };
        let is_weighted = call.has("weighted");
        let weights = match is_weighted {
            true => call.x[3].elements.clone(),
            false => vec![1.0; classes],
        };
        let dloss = call.x.get(if is_weighted { 4 } else { 3 });
        let mut of = CrossEntropy {
            call,
            classes,
            items: coordinates(&rest).into_iter().map(line).collect(),
            smoothing: call.one(2),
            weights,
            divisor: 1.0,
            dloss: dloss.map(|dloss| &dloss.elements[..]),
        };
        if call.after("reduction=").starts_with("mean") {
            let weight = |item| of.target(item).map_or(0.0, |target| of.weight(target));
            of.divisor = (0..of.items.len()).map(weight).sum();
        }
        of
    }

    /// An item's target, if it counts; an index that is no class is a class too.
    fn target(&self, item: usize) -> Option<i64> {
        let target = self.call.x[1].elements[item] as i64;
        (target != self.call.number("ignore_index=")).then_some(target)
    }

    /// The weight of a class, NaN of what is none.
    fn weight(&self, target: i64) -> f64 {
        let class = usize::try_from(target).ok();
        class.and_then(|class| self.weights.get(class)).copied().unwrap_or(f64::NAN)
    }

    fn is_reduced(&self) -> bool {
        !self.call.after("reduction=").starts_with("none")
    }

    /// The logarithms of an item's probabilities.
    fn logs(&self, item: usize) -> Vec<f64> {
        let x: Vec<_> = self.items[item].iter().map(|&i| self.call.x[0].elements[i]).collect();
        let most = x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = x.iter().map(|x| (x - most).exp()).sum();
        x.iter().map(|x| x - most - sum.ln()).collect()
    }

    fn loss(&self) -> Vec<f64> {
        let of = |item: usize| {
            let Some(target) = self.target(item) else { return 0.0 };
            let logs = self.logs(item);
            let own = usize::try_from(target).ok().and_then(|class| logs.get(class));
            let own = self.weight(target) * own.copied().unwrap_or(f64::NAN);
            let all: f64 = logs.iter().zip(&self.weights).map(|(log, weight)| log * weight).sum();
            -(1.0 - self.smoothing) * own - self.smoothing / self.classes as f64 * all
        };
        let losses = (0..self.items.len()).map(of);
        match self.is_reduced() {
            true => vec![losses.sum::<f64>() / self.divisor],
            false => losses.collect(),
        }
    }

    /// The gradient of an item's loss.
    fn dloss(&self, item: usize) -> f64 {
        let dloss = self.dloss.expect("there is a gradient");
        if self.is_reduced() { dloss[0] / self.divisor } else { dloss[item] }
    }

    fn scale(&self, item: usize) -> f64 {
        let all: f64 = self.weights.iter().sum();
        self.target(item).map_or(0.0, |target| {
            let own = (1.0 - self.smoothing) * self.weight(target);
            self.dloss(item) * (own + self.smoothing / self.classes as f64 * all)
        })
    }

    fn scales(&self) -> Vec<f64> {
        (0..self.items.len()).map(|item| self.scale(item)).collect()
    }

    fn gradient(&self) -> Vec<f64> {
        let mut gradient = vec![0.0; self.call.x[0].elements.len()];
        for (item, places) in self.items.iter().enumerate() {
            let Some(target) = self.target(item) else { continue };
            let logs = self.logs(item);
            for (class, &at) in places.iter().enumerate() {
                let own = match class as i64 == target {
                    true => (1.0 - self.smoothing) * self.weight(target),
                    false => 0.0,
                };
                let all = self.smoothing / self.classes as f64 * self.weights[class];
                gradient[at] =
                    logs[class].exp() * self.scale(item) - self.dloss(item) * (own + all);
            }
        }
        gradient
    }
}
