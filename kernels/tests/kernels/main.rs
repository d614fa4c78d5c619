//! Ops, programs and plans by the public API of this crate: against plain loops, the slope of their own forward, a second
//! back end and a C compiler.
//!
//! Tests of one file lie in it; here belongs what is about several, or what a user of the crate meets.

/// Functions with any input: none panics, and each has the same bits in every instruction set.
mod any_input;
/// Ops, in families.
mod ops {
    mod convolution;
    mod elementwise;
    mod empty;
    mod halves;
    mod large;
    mod loss_family;
    mod losses;
    mod matrices;
    mod normalize;
    mod products;
    mod spatial;
    mod updates;
}
mod oracle;
/// What becomes of whole programs: passes and plans.
mod programs {
    mod halves_in_plans;
    mod passes;
    mod planned_equals_eager;
    mod split;
}
mod second_gradients;
mod text;
mod user_op;
