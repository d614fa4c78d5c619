//! A population may change between the calls of a step: right numbers or a typed error.
