//! Promises of `docs/design.md` and `docs/architecture.md`, a module each.
//!
//! Here belongs what holds whatever is called: the same bits, errors instead of panics, no allocations, one hash, and a tree
//! that is as the documents say. All but `tidy` use the public API alone.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../bits/mod.rs"]
mod bits;
#[path = "../known/mod.rs"]
mod known;

mod allocations;
mod borders;
mod call_sequences;
mod errors;
mod foreign_edits;
mod long_graphs;
mod neighbours;
mod one_hash;
mod products;
mod sizes;
mod storm;
mod sums;
mod sweep;
mod tidy;
mod torch_words;
mod whole_files;
