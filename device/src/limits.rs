//! [`DeviceLimits`]: what a device has room for.

/// What the planner takes into account of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DeviceLimits {
    /// The compute capability, ten times the major number and the minor one: 90.
    pub architecture: u32,
    /// Bytes of shared memory that a block may have, if it asks for them.
    pub opt_in_shared_bytes: usize,
    /// The most threads of a block that a program uses.
    pub threads: usize,
}

impl DeviceLimits {
    /// Returns the limits of an architecture, if this crate knows it.
    ///
    /// Source: CUDA C++ programming guide, technical specifications per compute capability.
    ///
    /// ```
    /// # use neurarch_device::limits::DeviceLimits;
    /// assert_eq!(DeviceLimits::of(90).map(|limits| limits.opt_in_shared_bytes), Some(227 << 10));
    /// ```
    pub fn of(architecture: u32) -> Option<DeviceLimits> {
        let kibibytes = match architecture {
            75 => 64,
            80 | 87 => 163,
            86 | 89 | 120 | 121 => 99,
            90 | 100 | 103 | 110 => 227,
            _ => return None,
        };
        let opt_in_shared_bytes = kibibytes << 10;
        Some(DeviceLimits { architecture, opt_in_shared_bytes, threads: 256 })
    }
}
