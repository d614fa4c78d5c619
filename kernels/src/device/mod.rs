//! Device code: what ops compute, as CUDA C++. Always compiled; it needs no CUDA.
//!
//! [`Cuda`](code::Cuda) is a back end that ops [give](crate::ir::op::Ask::give) [`DeviceCode`](code::DeviceCode) to: named
//! definitions and one call. The same call serves in a kernel that runs a whole program, its operands in shared memory, and
//! in a kernel of its own, its operands in global memory.
//!
//! Elementwise ops are [printed](formula) from the formulas that the CPU's kernels are made of. Other ops bring a `.cu` file
//! beside them. All follow [`PRELUDE`], and all add in the CPU's [order of sums](crate::cpu::sum).

pub mod code;
pub mod formula;
pub(crate) mod offset;

/// What every source begins with: names of types, exactly rounded operations for both precisions, sums in their order.
pub const PRELUDE: &str = include_str!("prelude.cuh");

/// `power(x, y)`, crate `libm`'s bits.
pub(crate) const POWER: &str = include_str!("power.cuh");
