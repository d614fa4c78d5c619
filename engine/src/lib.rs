//! neurarch.
