//! How much memory models take: [`memory_profiler`], [`detailed_memory_analysis`].

use core::fmt;

use bevy_ecs::prelude::*;

use crate::handles::TargetMut;
use crate::kernels::ir::dtype::Element;
use crate::systems::compile::array::Input;
use crate::systems::execute::step::StepError;
use crate::systems::execute::step::memory::{self, CallMemory};

/// What is printed as a MB: a mebibyte, as where torch's recipes divide by 1024².
const MEBIBYTE: f64 = 1_048_576.0;

/// The memory of all models before, while and after a function ran, in bytes.
///
/// It prints as the recipes do:
///
/// ```text
/// Function train:
///   Initial memory: 1.50 MB
///   Final memory: 4.50 MB
///   Peak memory: 6.25 MB
///   Memory increase: 3.00 MB
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryProfile {
    /// The function's name.
    pub name: String,
    /// Columns and tapes before.
    pub initial_memory: usize,
    /// Columns and tapes afterwards.
    pub final_memory: usize,
    /// The same at the most, with the arenas in which plans compute.
    pub peak_memory: usize,
}

impl MemoryProfile {
    /// Returns how many bytes more, or less, there are afterwards.
    pub fn memory_increase(&self) -> i64 {
        self.final_memory as i64 - self.initial_memory as i64
    }
}

impl fmt::Display for MemoryProfile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = |bytes: usize| bytes as f64 / MEBIBYTE;
        writeln!(f, "Function {}:", self.name)?;
        writeln!(f, "  Initial memory: {:.2} MB", of(self.initial_memory))?;
        writeln!(f, "  Final memory: {:.2} MB", of(self.final_memory))?;
        writeln!(f, "  Peak memory: {:.2} MB", of(self.peak_memory))?;
        write!(f, "  Memory increase: {:.2} MB", self.memory_increase() as f64 / MEBIBYTE)
    }
}

/// Runs `f`, and says how much memory the models of the world take before, while and after it.
///
/// Counted is what columns and plans know: parameters, buffers, gradients and optimizer state, what forward passes keep for
/// `backward`, and the arenas in which plans compute. What a pass keeps that runs op by op is not counted, nor are arrays of the
/// caller's.
///
/// # Example
///
/// ```
/// use neurarch::prelude::*;
/// use neurarch::utils::memory_profiler;
///
/// let mut world = World::new();
/// let brains = world.spawn_population(&Linear::new(64, 64), 100, Seed(0))?.id();
/// let x = ndarray::Array3::<f32>::ones((100, 8, 64));
/// let (y, profile) = memory_profiler(&mut world, |world| world.population_mut(brains)?.forward(&x));
/// assert_eq!(y?.shape(), [100, 8, 64]);
/// // The tape has a copy of x, and there is the result.
/// assert!(profile.memory_increase() >= 2 * 4 * 100 * 8 * 64);
/// assert!(profile.to_string().contains("\n  Initial memory: 1.59 MB\n"), "{profile}");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Source: the decorator `memory_profiler` of PyTorch's recipes, over `torch.cuda.memory_allocated` and
/// `torch.cuda.max_memory_allocated`.
pub fn memory_profiler<R, F: FnOnce(&mut World) -> R>(
    world: &mut World,
    f: F,
) -> (R, MemoryProfile) {
    let (calls, initial_memory) = (memory::calls(world), memory::held_bytes(world));
    let result = f(world);
    let final_memory = memory::held_bytes(world);
    let workspace = memory::workspace_bytes_since(world, calls);
    let peak_memory = initial_memory.max(final_memory) + workspace;
    let name = name_of::<F>();
    (result, MemoryProfile { name, initial_memory, final_memory, peak_memory })
}

/// Returns the name of a function, or of that in which a closure stands.
fn name_of<F>() -> String {
    let path = core::any::type_name::<F>();
    let path = path.split('<').next().unwrap_or(path);
    let mut names = path.rsplit("::").filter(|name| !name.starts_with('{'));
    names.next().unwrap_or(path).to_owned()
}

/// What each module of a forward pass leaves in memory.
///
/// It prints as the recipes do, a line for each module without children:
///
/// ```text
/// === Memory Analysis Results ===
/// 0                              | Memory Δ:     0.05 MB | Output Size:     0.05 MB
/// 1                              | Memory Δ:     0.00 MB | Output Size:     0.05 MB
/// Peak Memory Usage: 0.17 MB
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryAnalysis(pub CallMemory);

impl fmt::Display for MemoryAnalysis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "=== Memory Analysis Results ===")?;
        for module in &self.0.modules {
            let delta = module.memory_delta as f64 / MEBIBYTE;
            let output = module.output_size as f64 / MEBIBYTE;
            let name = &module.name;
            writeln!(f, "{name:30} | Memory Δ: {delta:8.2} MB | Output Size: {output:8.2} MB")?;
        }
        write!(f, "Peak Memory Usage: {:.2} MB", self.0.peak as f64 / MEBIBYTE)
    }
}

/// Says what a forward pass would leave in memory, module by module, and what it takes at the most.
///
/// The pass is planned, not run: nothing is changed, and no hook is called. A module that the plan joins with the one behind it,
/// as a layer with its activation, leaves nothing of its own. In a pass that `backward` may follow, the tape is counted.
///
/// # Shape
///
/// `x` is `[models, ..]` or shared; of one model, without the axis of models.
///
/// # Errors
///
/// As `forward`. Before anything is allocated, if the activations do not fit the memory that is free.
///
/// # Example
///
/// ```
/// use neurarch::prelude::*;
/// use neurarch::utils::detailed_memory_analysis;
///
/// let mut world = World::new();
/// let brain = Sequential::new().push(Linear::new(32, 128)).push(Tanh).push(Linear::new(128, 1));
/// let mut brains = world.spawn_population(&brain, 10, Seed(0))?;
/// let analysis = detailed_memory_analysis(&mut brains, &ndarray::Array3::<f32>::ones((10, 64, 32)))?;
/// let tanh = &analysis.0.modules[1];
/// assert_eq!((tanh.name.as_str(), tanh.output_size), ("1", 4 * 10 * 64 * 128));
/// assert!(analysis.to_string().starts_with("=== Memory Analysis Results ==="));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Source: `detailed_memory_analysis(model, input)` of PyTorch's recipes, whose forward hooks read
/// `torch.cuda.memory_allocated`.
pub fn detailed_memory_analysis<'a, X: Element>(
    model: &mut TargetMut<'_>,
    x: impl Into<Input<'a, X>>,
) -> Result<MemoryAnalysis, StepError> {
    memory::of_call(model.world, model.target.clone(), x).map(MemoryAnalysis)
}
