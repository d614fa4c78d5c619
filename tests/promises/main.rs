//! Promises of `docs/design.md`, a module each; all use the public API alone.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod borders;
mod call_sequences;
mod foreign_edits;
mod long_graphs;
mod one_hash;
mod products;
mod sums;
mod torch_words;
