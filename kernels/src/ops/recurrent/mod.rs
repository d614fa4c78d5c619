//! Recurrent layers and sequences.

pub mod recurrence;
pub mod sequence;
