//! Ops one by one: each computes the CPU's bits.
