//! Parking: dead brains keep their rows, and births take them over.

#[doc(inline)]
pub use crate::components::population::parking::{Parked, Parking};
#[doc(inline)]
pub use crate::systems::evolve::park::{Birth, bear, park, stock, unpark};
