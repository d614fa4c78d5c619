//! Errors that several folders share, and those that name each other.

mod access;
mod init;
mod lookup;
mod parametrize;
mod sign;

pub use access::AccessError;
pub use init::{InitError, NoFans};
pub use lookup::LookupError;
pub use parametrize::ParametrizeError;
pub use sign::SignError;
