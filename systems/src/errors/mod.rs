//! Errors that name each other: of signing, of access by name, of lookups, of parametrizations.

mod access;
mod lookup;
mod parametrize;
mod sign;

pub use access::AccessError;
pub use lookup::LookupError;
pub use parametrize::ParametrizeError;
pub use sign::SignError;
