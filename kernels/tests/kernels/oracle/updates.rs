//! Update rules, by torch's documentation. Inputs are the parameter, its gradient, the states, the counts of
//! steps and the rates; outputs the parameter, the states and the counts.

use super::interpreter::{Call, Compute};

pub(crate) const TABLE: &[(&str, Compute)] = &[
    ("sgd", |call| match call.x.len() {
        5 => update::<0, 2>(call, |at, [lr, decay]| {
            let g = at.decayed(decay);
            (at.p - lr * g, [])
        }),
        _ => update::<1, 4>(call, |at, [lr, decay, momentum, dampening]| {
            let g = at.decayed(decay);
            let [buffer] = at.states;
            let buffer = if at.step == 1.0 { g } else { momentum * buffer + (1.0 - dampening) * g };
            let direction = if at.nesterov { g + momentum * buffer } else { buffer };
            (at.p - lr * direction, [buffer])
        }),
    }),
    ("adam", |call| adam(call, false)),
    ("adamw", |call| adam(call, true)),
    ("adagrad", |call| {
        update::<1, 5>(call, |at, [lr, lr_decay, decay, initial, eps]| {
            let g = at.decayed(decay);
            let sum = if at.step == 1.0 { initial } else { at.states[0] } + g * g;
            let lr = lr / (1.0 + (at.step - 1.0) * lr_decay);
            (at.p - lr * g / (sum.sqrt() + eps), [sum])
        })
    }),
    ("adadelta", |call| {
        update::<2, 4>(call, |at, [lr, rho, eps, decay]| {
            let g = at.decayed(decay);
            let v = rho * at.states[0] + (1.0 - rho) * g * g;
            let delta = g * (at.states[1] + eps).sqrt() / (v + eps).sqrt();
            (at.p - lr * delta, [v, rho * at.states[1] + (1.0 - rho) * delta * delta])
        })
    }),
    ("adamax", |call| {
        update::<2, 5>(call, |at, [lr, beta1, beta2, eps, decay]| {
            let g = at.decayed(decay);
            let m = beta1 * at.states[0] + (1.0 - beta1) * g;
            let u = (beta2 * at.states[1]).max(g.abs() + eps);
            (at.p - lr / (1.0 - beta1.powf(at.step)) * m / u, [m, u])
        })
    }),
    ("rmsprop", |call| match (call.has("has_momentum"), call.has("centered")) {
        (false, false) => update::<1, 5>(call, |at, rates| rmsprop(at, rates, false, false)),
        (true, false) => update::<2, 5>(call, |at, rates| rmsprop(at, rates, true, false)),
        (false, true) => update::<2, 5>(call, |at, rates| rmsprop(at, rates, false, true)),
        (true, true) => update::<3, 5>(call, |at, rates| rmsprop(at, rates, true, true)),
    }),
    ("rprop", |call| {
        update::<2, 5>(call, |at, [lr, less, more, least, most]| {
            let g = at.decayed(0.0);
            let size = if at.step == 1.0 { lr } else { at.states[1] };
            let product = g * at.states[0];
            let factor = if product > 0.0 {
                more
            } else if product < 0.0 {
                less
            } else {
                1.0
            };
            let size = (size * factor).max(least).min(most);
            let g = if product < 0.0 { 0.0 } else { g };
            let sign = if g == 0.0 { 0.0 } else { g.signum() };
            (at.p - sign * size, [g, size])
        })
    }),
];

/// One number that is updated.
struct At<const STATES: usize> {
    p: f64,
    g: f64,
    states: [f64; STATES],
    step: f64,
    nesterov: bool,
}

impl<const STATES: usize> At<STATES> {
    /// The gradient with weight decay.
    fn decayed(&self, decay: f64) -> f64 {
        self.g + decay * self.p
    }
}

/// Updates each number, and counts the step.
fn update<const STATES: usize, const RATES: usize>(
    call: &Call<'_>,
    rule: impl Fn(&At<STATES>, [f64; RATES]) -> (f64, [f64; STATES]),
) -> Vec<Vec<f64>> {
    assert_eq!(call.x.len(), 3 + STATES + RATES, "{}", call.name);
    let mut steps = call.x[2 + STATES].elements.clone();
    let count = &mut steps[call.number("index=") as usize];
    *count += 1.0;
    let step = *count;
    let rates = core::array::from_fn(|i| call.one(3 + STATES + i));
    let sign = if call.has("maximize") { -1.0 } else { 1.0 };
    let mut outputs = vec![Vec::new(); 1 + STATES];
    for i in 0..call.x[0].elements.len() {
        let at = At {
            p: call.x[0].elements[i],
            g: sign * call.x[1].elements[i],
            states: core::array::from_fn(|state| call.x[2 + state].elements[i]),
            step,
            nesterov: call.has("nesterov"),
        };
        let (p, states) = rule(&at, rates);
        outputs[0].push(p);
        outputs[1..].iter_mut().zip(states).for_each(|(all, state)| all.push(state));
    }
    outputs.push(steps);
    outputs
}

fn adam(call: &Call<'_>, is_decoupled: bool) -> Vec<Vec<f64>> {
    fn rule<const STATES: usize>(
        at: &At<STATES>,
        [lr, beta1, beta2, eps, decay]: [f64; 5],
        is_decoupled: bool,
    ) -> (f64, [f64; STATES]) {
        let (p, g) = match is_decoupled {
            true => (at.p * (1.0 - lr * decay), at.g),
            false => (at.p, at.decayed(decay)),
        };
        let mut states = at.states;
        states[0] = beta1 * at.states[0] + (1.0 - beta1) * g;
        states[1] = beta2 * at.states[1] + (1.0 - beta2) * g * g;
        if STATES == 3 {
            states[2] = states[2].max(states[1]);
        }
        let root = states[STATES - 1].sqrt() / (1.0 - beta2.powf(at.step)).sqrt() + eps;
        (p - lr / (1.0 - beta1.powf(at.step)) * states[0] / root, states)
    }
    match call.has("amsgrad") {
        true => update::<3, 5>(call, |at, rates| rule(at, rates, is_decoupled)),
        false => update::<2, 5>(call, |at, rates| rule(at, rates, is_decoupled)),
    }
}

fn rmsprop<const STATES: usize>(
    at: &At<STATES>,
    [lr, alpha, eps, decay, momentum]: [f64; 5],
    has_momentum: bool,
    is_centered: bool,
) -> (f64, [f64; STATES]) {
    let g = at.decayed(decay);
    let mut states = at.states;
    states[0] = alpha * at.states[0] + (1.0 - alpha) * g * g;
    let mut square = states[0];
    if is_centered {
        let mean = alpha * at.states[STATES - 1] + (1.0 - alpha) * g;
        states[STATES - 1] = mean;
        square -= mean * mean;
    }
    let mut direction = g / (square.sqrt() + eps);
    if has_momentum {
        direction += momentum * at.states[1];
        states[1] = direction;
    }
    (at.p - lr * direction, states)
}
