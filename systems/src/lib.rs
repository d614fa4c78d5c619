//! neurarch's verbs.
