//! Values too large for memory are errors while tracing, which name the module and what was asked for.

use neurarch_kernels::ir::dtype::Dtype;
use neurarch_kernels::ir::shape::Type;
use neurarch_kernels::ir::trace::{Trace, Var};

/// The error of a module's `forward` on an input of this shape.
fn error(shape: &[usize], forward: impl Fn(&Var) -> Var) -> String {
    let trace = Trace::new();
    let x = trace.input(Type::new(Dtype::F32, shape));
    let y = trace.call("body.0", "Layer", &x, |x| forward(&x));
    trace.finish(&[y]).expect_err("no machine has that much memory").to_string()
}

#[test]
fn a_value_that_cannot_be_allocated_is_an_error() {
    let bytes = 4_usize << 50;
    let words = format!(
        "body.0 (Layer): f32[{}, 4]: can't allocate memory: you tried to allocate {bytes} bytes",
        1_usize << 48
    );
    assert_eq!(error(&[1, 4], |x| x.expand([1_usize << 48, 4])), words);
    let constant = |x: &Var| x.trace().constant(1.0, x.dtype(), [1_usize << 48, 4]);
    assert_eq!(error(&[1, 4], constant), words);
}

#[test]
fn a_size_that_overflows_is_an_error_in_torchs_words() {
    let large = 1_usize << 40;
    let words = format!(
        "body.0 (Layer): Storage size calculation overflowed with sizes=[{large}, {large}]"
    );
    assert_eq!(error(&[1, 1], |x| x.expand([large, large])), words);
    let product = |x: &Var| {
        let column = x.expand([large, 1]);
        let row = x.expand([1, large]);
        column.matmul(&row)
    };
    assert!(error(&[1, 1], product).contains("memory: you tried to allocate"));
    let words = "Storage size calculation overflowed with sizes=[18446744073709551615, 2]";
    assert_eq!(error(&[usize::MAX, 2], Var::relu), words);
}
