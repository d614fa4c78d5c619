//! Sums are as close to the true ones at 2²⁶ numbers as at 2⁴, and their order follows from the length alone.
