//! [`RngKey`]: by what a model's random numbers are drawn.

/// The state of a model's counter-based random numbers in one step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct RngKey {
    /// The population's seed.
    pub seed: u64,
    /// The model's number, which never changes.
    pub number: u64,
    /// How many steps the model has made.
    pub step: u64,
}
