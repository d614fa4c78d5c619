//! [`Keeper`]: the permission to change what neurarch keeps about models.
#![expect(unsafe_code, reason = "changing these lists needs trust, and says so")]

/// The permission to change what the crates keep about models: the lists of a population's groups, what the
/// columns of an entity hold, the blueprints in use, and what changed since models were last signed.
///
/// Threads write rows that these lists name, and the crates index by them. So they are for reading, and whoever
/// changes them has one of these.
#[derive(Clone, Copy, Debug)]
pub struct Keeper(());

impl Keeper {
    /// Creates one.
    ///
    /// # Safety
    ///
    /// Whoever has it keeps the lists true: each entity stands at one position of one group, at the place of the
    /// model that it is a module of; all lists of a group are of one length; a group's contents say which columns
    /// its entities have.
    pub const unsafe fn new() -> Self {
        Keeper(())
    }
}
