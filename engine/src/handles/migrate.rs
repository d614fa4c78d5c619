//! [`Migrate`]: `to` and its relatives, of a population, one position of all models, or one module.

use std::ops::DerefMut;

use crate::handles::TargetMut;
use crate::kernels::ir::device::Device;
use crate::kernels::ir::dtype::Dtype;
use crate::state::Tensor;
use crate::systems::migrate::{self, MigrateError, To};

/// Converts modules, and all below them, to other element types or devices. Each call returns the handle:
/// `brains.bfloat16()?.eval()?`.
///
/// # Example
///
/// ```
/// use neurarch::prelude::*;
///
/// let mut world = World::new();
/// let brain = Sequential::new().push(Linear::new(2, 8)).push(Tanh).push(Linear::new(8, 1));
/// let mut brains = world.spawn_population(&brain, 100, Seed(1))?;
/// brains.double()?;
/// let y = brains.forward(&ndarray::Array2::<f64>::ones((100, 2)))?; // [100, 1], f64
/// brains.at("2").to(Dtype::F32)?;
/// let mut first = brains.model(0)?;
/// assert_eq!(first.parameter::<f64>("0.weight")?.shape(), [8, 2]);
/// assert_eq!(first.parameter::<f32>("2.weight")?.shape(), [1, 8]);
/// # let _ = y;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Source: `torch.nn.Module._apply` and what calls it.
pub trait Migrate<'w>: DerefMut<Target = TargetMut<'w>> + Sized {
    /// Moves and converts floating parameters and buffers: [`migrate::to`]. Takes a [`Dtype`], a [`Device`], both, or a
    /// [`To`].
    ///
    /// # Errors
    ///
    /// As [`migrate::to`].
    fn to(&mut self, to: impl Into<To>) -> Result<&mut Self, MigrateError> {
        let target = self.target().clone();
        migrate::to(self.world_mut(), target, to)?;
        Ok(self)
    }

    /// Moves and converts to where a tensor is, and to its element type.
    ///
    /// # Errors
    ///
    /// As [`migrate::to`].
    ///
    /// Source: `torch.nn.Module.to(tensor)`.
    fn to_like(&mut self, tensor: &Tensor) -> Result<&mut Self, MigrateError> {
        self.to((Device::Cpu, tensor.dtype()))
    }

    /// Converts to single precision.
    ///
    /// # Errors
    ///
    /// As [`migrate::to`].
    fn float(&mut self) -> Result<&mut Self, MigrateError> {
        self.to(Dtype::F32)
    }

    /// Converts to double precision.
    ///
    /// # Errors
    ///
    /// As [`migrate::to`].
    fn double(&mut self) -> Result<&mut Self, MigrateError> {
        self.to(Dtype::F64)
    }

    /// Converts to half precision.
    ///
    /// # Errors
    ///
    /// As [`migrate::to`].
    fn half(&mut self) -> Result<&mut Self, MigrateError> {
        self.to(Dtype::F16)
    }

    /// Converts to bfloat16.
    ///
    /// # Errors
    ///
    /// As [`migrate::to`].
    fn bfloat16(&mut self) -> Result<&mut Self, MigrateError> {
        self.to(Dtype::BF16)
    }

    /// Converts all parameters and buffers, also those of whole numbers: [`migrate::to_type`]. torch's name is a word of
    /// Rust's.
    ///
    /// # Errors
    ///
    /// As [`migrate::to_type`].
    ///
    /// Source: `torch.nn.Module.type`.
    fn type_(&mut self, dtype: Dtype) -> Result<&mut Self, MigrateError> {
        let target = self.target().clone();
        migrate::to_type(self.world_mut(), target, dtype)?;
        Ok(self)
    }

    /// Moves to the CPU.
    ///
    /// # Errors
    ///
    /// If there is no such module.
    fn cpu(&mut self) -> Result<&mut Self, MigrateError> {
        self.to(Device::Cpu)
    }

    /// Moves to the CUDA device of that index.
    ///
    /// # Errors
    ///
    /// If there is none.
    fn cuda(&mut self, index: usize) -> Result<&mut Self, MigrateError> {
        self.to(Device::Cuda(index))
    }

    /// Puts every parameter, gradient and buffer through a function: [`migrate::apply`].
    ///
    /// # Errors
    ///
    /// As [`migrate::apply`].
    fn _apply(
        &mut self,
        function: impl Fn(Tensor) -> Tensor + Sync,
    ) -> Result<&mut Self, MigrateError> {
        let target = self.target().clone();
        migrate::apply(self.world_mut(), target, function)?;
        Ok(self)
    }
}

impl<'w, T: DerefMut<Target = TargetMut<'w>>> Migrate<'w> for T {}
