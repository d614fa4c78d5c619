//! Errors that several folders share, and those that name each other.

mod access;
mod bind;
mod init;
mod lookup;
mod parametrize;
pub mod room;
mod sign;
mod step;

pub use access::AccessError;
pub use bind::BindError;
pub use init::{InitError, NoFans};
pub use lookup::LookupError;
pub use parametrize::ParametrizeError;
pub use room::{NoRoom, RoomError};
pub use sign::SignError;
pub(crate) use step::NOT_SCALAR;
pub use step::StepError;
