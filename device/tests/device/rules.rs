//! The update rules of optimizers, several steps of them, fused and as kernels of their own.

use neurarch_kernels::ir::dtype::Dtype;
use neurarch_kernels::ir::program::{Role, Scalar, ScalarOf, Slot};
use neurarch_kernels::ir::shape::Type;
use neurarch_kernels::ir::trace::{Trace, Var};
use neurarch_kernels::ops::update::adadelta::AdadeltaSettings;
use neurarch_kernels::ops::update::adagrad::AdagradSettings;
use neurarch_kernels::ops::update::adamax::AdamaxSettings;
use neurarch_kernels::ops::update::asgd::ASGDSettings;
use neurarch_kernels::ops::update::nadam::NAdamSettings;
use neurarch_kernels::ops::update::radam::RAdamSettings;
use neurarch_kernels::ops::update::rmsprop::RMSpropSettings;
use neurarch_kernels::ops::update::rprop::RpropSettings;
use neurarch_kernels::ops::update::rule::{UpdateInputs, Updated};
use neurarch_kernels::ops::update::sgd::{SgdMomentum, SgdRates, SgdSettings, SgdUpdate};

use crate::mlp::compare;
use crate::nvrtc;

/// Compares seven steps of `update` with `states` states, in both precisions: 50 numbers, whose gradients are inputs.
fn check(states: u8, update: impl Fn(&Var, &UpdateInputs<'_>) -> Updated) {
    if !nvrtc::is_there() {
        return;
    }
    for dtype in [Dtype::F32, Dtype::F64] {
        let trace = Trace::new();
        let ty = Type::new(dtype, [5, 10]);
        let slot = |name: &str, role, ty: &Type| {
            let (name, ty) = (name.to_owned(), ty.clone());
            trace.slot(Slot { name, role, position: 0, index: 0, ty })
        };
        let gradient = trace.input(ty.clone());
        let parameter = slot("weight", Role::Parameter, &ty);
        let states: Vec<_> =
            (0..states).map(|n| slot(&format!("state{n}"), Role::State(n), &ty)).collect();
        let steps = slot("steps", Role::Steps, &Type::new(Dtype::F32, [2]));
        let rate = |name| {
            let of = ScalarOf::Optimizer { group: 0 };
            trace.scalar(Scalar { name, of, position: 0 }, Dtype::F64)
        };
        let inputs = UpdateInputs {
            gradient: &gradient,
            states: &states,
            steps: &steps,
            index: 1,
            rate: &rate,
        };
        let updated = update(&parameter, &inputs);
        trace.store(&parameter, &updated.parameter);
        states.iter().zip(&updated.states).for_each(|(slot, state)| trace.store(slot, state));
        trace.store(&steps, &updated.steps);
        compare(trace.finish(&[]).expect("it can be recorded"), 3, 7, 2);
    }
}

/// SGD as the other rules are.
fn sgd(parameter: &Var, at: &UpdateInputs<'_>, nesterov: bool, maximize: bool) -> Updated {
    let rate = |name| (at.rate)(name);
    let rates = [rate("lr"), rate("weight_decay"), rate("momentum"), rate("dampening")];
    let [lr, weight_decay, momentum, dampening] = &rates;
    let momentum = at.states.first().map(|buffer| SgdMomentum { buffer, momentum, dampening });
    let settings = SgdSettings { index: at.index, nesterov, maximize };
    let rates = SgdRates { lr, weight_decay };
    let SgdUpdate { parameter, buffer, steps } =
        parameter.sgd(at.gradient, at.steps, &rates, momentum.as_ref(), settings);
    Updated { parameter, states: buffer.into_iter().collect(), steps }
}

#[test]
fn sgd_has_the_bits_of_the_cpu() {
    check(0, |p, at| sgd(p, at, false, false));
    check(0, |p, at| sgd(p, at, false, true));
    check(1, |p, at| sgd(p, at, false, true));
    check(1, |p, at| sgd(p, at, true, false));
}

#[test]
fn rules_of_mean_squares_have_the_bits_of_the_cpu() {
    for maximize in [false, true] {
        check(1, |p, at| p.adagrad(at, AdagradSettings { maximize }));
        check(2, |p, at| p.adadelta(at, AdadeltaSettings { maximize }));
        for (has_momentum, centered) in [(false, false), (false, true), (true, false), (true, true)]
        {
            let settings = RMSpropSettings { has_momentum, centered, maximize };
            let states = 1 + u8::from(has_momentum) + u8::from(centered);
            check(states, |p, at| p.rmsprop(at, settings));
        }
    }
}

#[test]
fn rules_of_means_have_the_bits_of_the_cpu() {
    for maximize in [false, true] {
        check(2, |p, at| p.adamax(at, AdamaxSettings { maximize }));
        check(3, |p, at| p.asgd(at, ASGDSettings { maximize }));
        for decoupled in [false, true] {
            check(3, |p, at| p.nadam(at, NAdamSettings { decoupled, maximize }));
            check(2, |p, at| p.radam(at, RAdamSettings { decoupled, maximize }));
        }
    }
}

#[test]
fn rules_of_signs_have_the_bits_of_the_cpu() {
    for maximize in [false, true] {
        check(2, |p, at| p.rprop(at, RpropSettings { maximize }));
    }
}
