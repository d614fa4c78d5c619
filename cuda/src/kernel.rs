//! [`Recipe`]: a program printed for a device; [`Kernels`]: the same, loaded; [`Compiling`]: while a thread compiles it.

use std::sync::Arc;
use std::thread::JoinHandle;

use cudarc::driver::sys::{CUfunction_attribute, CUresult};
use cudarc::driver::{CudaFunction, CudaModule};
use cudarc::nvrtc::Ptx;
use neurarch_device::emit::Source;
use neurarch_device::limits::DeviceLimits;
use neurarch_device::plan::{Placement, Way};
use neurarch_kernels::ir::program::Program;
use neurarch_kernels::plan::on_device::DevicePlan;

use crate::cache::Cache;
use crate::device::Device;
use crate::error::CudaError;
use crate::nvrtc::Image;

/// Shared memory that a block has without asking for it.
const SHARED_BYTES: usize = 48 << 10;

/// A program printed for a device, and what its launches need.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// The text, its kernels and their parameters.
    pub source: Source,
    /// Threads of a model, models of a block, one kernel or many.
    pub placement: Placement,
    /// Bytes of each slot, input and output of one model and step.
    pub(crate) bytes: [Vec<usize>; 3],
    /// How many scalars each model has.
    pub(crate) scalars: usize,
    pub(crate) arena_bytes: usize,
    pub(crate) shared_bytes: usize,
    name: String,
    architecture: u32,
}

impl Recipe {
    /// Prints a program as it was placed; `name` begins the names of its kernels.
    pub fn new(
        program: &Program,
        plan: &DevicePlan,
        placement: Placement,
        limits: &DeviceLimits,
        name: &str,
    ) -> Recipe {
        let slots = program.slots.iter().map(|slot| slot.ty.size_bytes()).collect();
        let inputs = program.inputs.iter().map(|ty| ty.size_bytes()).collect();
        let outputs = program.outputs.iter().map(|&id| program.ty(id).size_bytes()).collect();
        Recipe {
            source: Source::new(program, plan, &placement, name),
            bytes: [slots, inputs, outputs],
            scalars: program.scalars.len(),
            arena_bytes: plan.arena_bytes,
            shared_bytes: placement.shared_bytes(plan),
            placement,
            name: name.to_owned(),
            architecture: limits.architecture,
        }
    }

    /// Says whether one kernel runs several steps.
    pub fn is_fused(&self) -> bool {
        matches!(self.placement.way, Way::Fused(_))
    }

    /// Returns the compiled source, from the cache if it is there.
    ///
    /// # Errors
    ///
    /// As [`Cache::get_or_compile`].
    pub fn image(&self, cache: &Cache) -> Result<Image, CudaError> {
        cache.get_or_compile(&self.name, &self.source.text, self.architecture)
    }

    /// Begins to compile on a thread of its own.
    ///
    /// # Errors
    ///
    /// [`CudaError::Thread`] if no thread can be started.
    pub fn compile_in_background(&self, cache: &Cache) -> Result<Compiling, CudaError> {
        let (recipe, cache) = (self.clone(), cache.clone());
        let compile = move || recipe.image(&cache).map(|image| (recipe, image));
        let thread = std::thread::Builder::new().name(format!("compiling {}", self.name));
        let thread = thread.spawn(compile);
        let thread =
            thread.map_err(|source| CudaError::Thread { kernel: self.name.clone(), source })?;
        Ok(Compiling { thread })
    }
}

/// A source that a thread compiles.
#[derive(Debug)]
pub struct Compiling {
    thread: JoinHandle<Result<(Recipe, Image), CudaError>>,
}

impl Compiling {
    /// Says whether it is done.
    pub fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }

    /// Waits for it, and loads the kernels.
    ///
    /// # Errors
    ///
    /// As [`Recipe::image`] and [`Kernels::load`].
    pub fn join(self, device: &Arc<Device>) -> Result<Kernels, CudaError> {
        let (recipe, image) = self.thread.join().unwrap_or_else(|_| {
            let log = "the compiling thread panicked".to_owned();
            Err(CudaError::Compile { kernel: String::new(), log })
        })?;
        Kernels::load(device, recipe, &image)
    }
}

/// A program's kernels on a device.
#[derive(Debug)]
pub struct Kernels {
    pub(crate) device: Arc<Device>,
    pub(crate) recipe: Recipe,
    pub(crate) loaded: Arc<Loaded>,
}

/// Functions of a module, which is unloaded with the last one who may launch them.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) functions: Vec<CudaFunction>,
    device: Arc<Device>,
}

impl Drop for Loaded {
    /// Waits until none of them runs.
    fn drop(&mut self) {
        if let Err(error) = self.device.synchronize() {
            tracing::warn!("before kernels are unloaded: {error}");
        }
    }
}

impl Kernels {
    /// Compiles a program, or reads it from the cache, and loads it.
    ///
    /// # Errors
    ///
    /// As [`Recipe::image`] and [`Kernels::load`].
    pub fn new(device: &Arc<Device>, recipe: Recipe, cache: &Cache) -> Result<Kernels, CudaError> {
        let image = recipe.image(cache)?;
        Kernels::load(device, recipe, &image)
    }

    /// Loads a compiled program: its machine code, or its PTX where the device does not take that.
    ///
    /// # Errors
    ///
    /// [`CudaError::Driver`] if the driver refuses it.
    pub fn load(device: &Arc<Device>, recipe: Recipe, image: &Image) -> Result<Kernels, CudaError> {
        let module =
            load(device, image).map_err(CudaError::driver(format!("loading `{}`", recipe.name)))?;
        let mut functions = Vec::new();
        for kernel in &recipe.source.kernels {
            let failed = || CudaError::driver(format!("`{kernel}`"));
            let function = module.load_function(kernel).map_err(failed())?;
            if recipe.shared_bytes > SHARED_BYTES {
                let most = CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
                function.set_attribute(most, recipe.shared_bytes as i32).map_err(failed())?;
            }
            functions.push(function);
        }
        let loaded = Arc::new(Loaded { functions, device: device.clone() });
        Ok(Kernels { device: device.clone(), recipe, loaded })
    }

    /// Returns what they were made from.
    pub fn recipe(&self) -> &Recipe {
        &self.recipe
    }
}

fn load(device: &Device, image: &Image) -> Result<Arc<CudaModule>, cudarc::driver::DriverError> {
    let ptx = || device.context.load_module(Ptx::from_src(image.ptx.as_str()));
    if image.cubin.is_empty() {
        return ptx();
    }
    match device.context.load_module(Ptx::from_binary(image.cubin.clone())) {
        Err(error) if error.0 == CUresult::CUDA_ERROR_NO_BINARY_FOR_GPU => ptx(),
        loaded => loaded,
    }
}
