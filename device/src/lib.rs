//! Programs on a GPU: [laid out](neurarch_kernels::plan::on_device::DevicePlan) as on the CPU, printed as CUDA C++ and
//! launched by whoever has a device. This crate needs no CUDA: it makes text.
//!
//! * [`limits`]: what a device has room for.
//! * [`plan`]: one kernel for a whole program, or one for each op, and why.
//! * [`emit`]: the text.
//!
//! Compile it with `--fmad=false`: each operation then rounds once, and single precision has the CPU's bits.

pub mod emit;
pub mod limits;
pub mod plan;
