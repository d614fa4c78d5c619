//! Small networks of linear layers, recorded: the tests of the printer and of the runtime, and the program that measures.

use neurarch_kernels::ir::dtype::Dtype;
use neurarch_kernels::ir::program::{Program, Role, Scalar, ScalarOf, Slot};
use neurarch_kernels::ir::shape::Type;
use neurarch_kernels::ir::trace::{Trace, Var};
use neurarch_kernels::ops::reduction::reduce::Reduction;
use neurarch_kernels::ops::update::adam::{AdamRates, AdamSettings};
use neurarch_kernels::ops::update::sgd::{SgdMomentum, SgdRates, SgdSettings};
use neurarch_kernels::passes::differentiate::backward;

/// What one step of a network does.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Does {
    Trains,
    /// With ReLU in place of tanh, and SGD with Nesterov's momentum in place of Adam.
    Descends,
    Infers,
}

/// Records a network of linear layers with tanh between them: one step of training with cross entropy and Adam, or a
/// forward pass.
pub(crate) fn program(sizes: &[usize], batch: usize, does: Does) -> Program {
    let trace = Trace::new();
    let f32s = |shape: &[usize]| Type::new(Dtype::F32, shape);
    let slot = |name: String, role, position, index, ty: &Type| {
        trace.slot(Slot { name, role, position, index, ty: ty.clone() })
    };
    let mut x = trace.input(f32s(&[batch, sizes[0]]));
    let mut parameters: Vec<(Var, usize, usize, Type)> = Vec::new();
    for (layer, pair) in sizes.windows(2).enumerate() {
        let (w, b) = (f32s(&[pair[1], pair[0]]), f32s(&[pair[1]]));
        let weight = slot(format!("{layer}.weight"), Role::Parameter, layer, 0, &w);
        let bias = slot(format!("{layer}.bias"), Role::Parameter, layer, 1, &b);
        x = x.linear(&weight, Some(&bias));
        if layer + 2 < sizes.len() {
            x = if does == Does::Descends { x.relu() } else { x.tanh() };
        }
        parameters.extend([(weight, layer, 0, w), (bias, layer, 1, b)]);
    }
    if does == Does::Infers {
        return trace.finish(&[x]).expect("it can be recorded");
    }
    let target = trace.input(Type::new(Dtype::I64, [batch]));
    let smoothing = trace.constant(0.0, Dtype::F32, []);
    let loss = x.cross_entropy(&target, None, &smoothing, -100, Reduction::Mean);
    let one = trace.constant(1.0, Dtype::F32, []);
    let wrt: Vec<_> = parameters.iter().map(|parameter| parameter.0.clone()).collect();
    let gradients = backward(&trace, &[(loss.clone(), one)], &wrt);
    let rate = |name| {
        trace.scalar(Scalar { name, of: ScalarOf::Optimizer { group: 0 }, position: 0 }, Dtype::F64)
    };
    for ((parameter, layer, index, ty), gradient) in parameters.iter().zip(gradients) {
        let state = |n| slot(format!("{layer}.{index}"), Role::State(n), *layer, *index, ty);
        let counts = f32s(&[1]);
        let steps = slot("steps".to_owned(), Role::Steps, layer * 2 + index, 0, &counts);
        let gradient = gradient.expect("each parameter has a gradient");
        if does == Does::Descends {
            let buffer = state(0);
            let [lr, decay, momentum, dampening] =
                ["lr", "weight_decay", "momentum", "dampening"].map(rate);
            let momentum =
                SgdMomentum { buffer: &buffer, momentum: &momentum, dampening: &dampening };
            let rates = SgdRates { lr: &lr, weight_decay: &decay };
            let settings = SgdSettings { nesterov: true, ..SgdSettings::default() };
            let update = parameter.sgd(&gradient, &steps, &rates, Some(&momentum), settings);
            trace.store(parameter, &update.parameter);
            trace.store(&buffer, &update.buffer.expect("it has momentum"));
            trace.store(&steps, &update.steps);
            continue;
        }
        let (mean, square) = (state(0), state(1));
        let [lr, beta1, beta2, eps, decay] =
            ["lr", "beta1", "beta2", "eps", "weight_decay"].map(rate);
        let rates =
            AdamRates { lr: &lr, beta1: &beta1, beta2: &beta2, eps: &eps, weight_decay: &decay };
        let update =
            parameter.adam(&gradient, (&mean, &square), &steps, &rates, AdamSettings::default());
        trace.store(parameter, &update.parameter);
        trace.store(&mean, &update.exp_avg);
        trace.store(&square, &update.exp_avg_sq);
        trace.store(&steps, &update.steps);
    }
    trace.finish(&[loss]).expect("it can be recorded")
}
