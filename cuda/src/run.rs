//! [`Binding`]: tables that kernels run on; [`Graph`]: launches that are replayed; [`Session`]: steady steps.
#![expect(unsafe_code, reason = "launches pass addresses")]

use std::sync::Arc;

use cudarc::driver::sys::{CUgraphInstantiate_flags, CUstreamCaptureMode};
use cudarc::driver::{CudaFunction, CudaGraph, CudaStream, LaunchConfig, PushKernelArg, result};
use neurarch_device::emit::Parameter;
use neurarch_kernels::memory::padded;

use crate::device::Device;
use crate::error::CudaError;
use crate::kernel::{Compiling, Kernels, Loaded, Recipe};
use crate::table::{Buffer, Column, Memory};

/// A column with numbers of several steps: each row has all steps of a model.
#[derive(Clone, Copy, Debug)]
pub struct Stream<'a> {
    /// The rows.
    pub column: &'a Column,
    /// Bytes from step to step: a multiple of 16.
    pub step_bytes: usize,
}

/// What kernels read and write: columns of one device, with a row for each model.
///
/// The columns are borrowed shared although kernels write to them: all work on a device is done in order.
#[derive(Clone, Debug)]
pub struct Binding<'a> {
    /// How many models there are.
    pub models: usize,
    /// The program's slots.
    pub slots: Vec<&'a Column>,
    /// Its inputs.
    pub inputs: Vec<Stream<'a>>,
    /// Its outputs.
    pub outputs: Vec<Stream<'a>>,
    /// The value of scalar `s` for model `m` at `s · models + m`, in double precision.
    pub scalars: &'a Buffer,
}

impl<'b> Binding<'b> {
    /// Checks it against a program, for steps up to `steps`.
    fn check(&self, device: &Device, recipe: &Recipe, steps: usize) -> Result<(), CudaError> {
        let need = |what: &str, expected: usize, found: usize, fits: bool| {
            let what = what.to_owned();
            if fits { Ok(()) } else { Err(CudaError::Binding { what, expected, found }) }
        };
        let [slots, inputs, outputs] = &recipe.bytes;
        let most = i32::MAX as usize;
        need("models", most, self.models, self.models <= most)?;
        need("steps", most, steps, steps <= most)?;
        let column = |what: &str, column: &Column| {
            let on = column.buffer().device().index();
            need(&format!("device of {what}"), device.index(), on, device.index() == on)?;
            need(
                &format!("rows of {what}"),
                self.models,
                column.rows(),
                column.rows() >= self.models,
            )
        };
        need("slots", slots.len(), self.slots.len(), slots.len() == self.slots.len())?;
        for (i, (slot, &bytes)) in self.slots.iter().zip(slots).enumerate() {
            column(&format!("slot {i}"), slot)?;
            let row = slot.row_bytes();
            need(&format!("row bytes of slot {i}"), padded(bytes), row, row >= padded(bytes))?;
        }
        for (what, needed, given) in
            [("input", inputs, &self.inputs), ("output", outputs, &self.outputs)]
        {
            need(&format!("{what}s"), needed.len(), given.len(), needed.len() == given.len())?;
            for (i, (stream, &bytes)) in given.iter().zip(needed).enumerate() {
                let name = format!("{what} {i}");
                column(&name, stream.column)?;
                let step = stream.step_bytes;
                let fits = step.is_multiple_of(16) && step >= bytes;
                need(&format!("step bytes of {name}"), bytes.next_multiple_of(16), step, fits)?;
                let (all, row) = (step.saturating_mul(steps), stream.column.row_bytes());
                need(&format!("row bytes of {name}"), all, row, row >= all)?;
            }
        }
        let scalars = recipe.scalars * self.models * size_of::<f64>();
        let (found, on) = (self.scalars.len(), self.scalars.device().index());
        need("bytes of scalars", scalars, found, found >= scalars)?;
        need("device of scalars", device.index(), on, device.index() == on)
    }

    fn buffers(&self) -> impl Iterator<Item = &Buffer> {
        let streams = self.inputs.iter().chain(&self.outputs).map(|stream| stream.column.buffer());
        let slots = self.slots.iter().map(|column| column.buffer());
        slots.chain(streams).chain([self.scalars])
    }

    /// Returns all that a launch depends on.
    fn layout<'a>(
        &'a self,
        arena: &'a Buffer,
        first_step: usize,
        steps: usize,
    ) -> impl Iterator<Item = u64> + use<'a, 'b> {
        let addresses = self.buffers().chain([arena]).map(Buffer::address);
        let rows = self.slots.iter().map(|column| column.row_bytes() as u64);
        let streams = self.inputs.iter().chain(&self.outputs);
        let streams = streams.flat_map(|s| [s.column.row_bytes() as u64, s.step_bytes as u64]);
        let counts = [self.models, first_step, steps].map(|n| n as u64);
        counts.into_iter().chain(addresses).chain(rows).chain(streams)
    }
}

/// An argument of a kernel.
#[derive(Clone, Copy)]
enum Argument {
    Count(i32),
    Word(u64),
}

/// Launches that were captured once, and are replayed without allocating.
///
/// What it was captured on stays allocated as long as the graph lives, and its kernels stay loaded.
pub struct Graph {
    graph: CudaGraph,
    layout: Vec<u64>,
    device: Arc<Device>,
    _memory: Vec<Arc<Memory>>,
    _loaded: Arc<Loaded>,
}

impl std::fmt::Debug for Graph {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Graph").field("layout", &self.layout).finish_non_exhaustive()
    }
}

impl Graph {
    /// Replays it; it is done when the device is [synchronized](Device::synchronize).
    ///
    /// # Errors
    ///
    /// [`CudaError::Driver`] if the driver fails.
    pub fn launch(&self) -> Result<(), CudaError> {
        let device = &self.device;
        device.context.bind_to_thread().map_err(CudaError::driver("cuCtxSetCurrent"))?;
        // SAFETY: kernels and memory of the graph live. It is launched on the stream of the device and not on that of the
        // capture, so after all work that was asked for before.
        unsafe { result::graph::launch(self.graph.cu_graph_exec(), device.stream.cu_stream()) }
            .map_err(CudaError::driver("cuGraphLaunch"))
    }
}

impl Kernels {
    /// Runs steps `first_step..first_step + steps` of all models. `arena` grows to what the kernels need.
    ///
    /// # Errors
    ///
    /// [`CudaError::Binding`] if the tables do not fit the program, [`CudaError::OutOfMemory`], [`CudaError::Driver`].
    pub fn run(
        &self,
        binding: &Binding<'_>,
        arena: &mut Buffer,
        first_step: usize,
        steps: usize,
    ) -> Result<(), CudaError> {
        self.prepare(binding, arena, first_step, steps)?;
        self.launch(&self.device.stream, binding, arena, first_step, steps)
    }

    /// Captures what [`Kernels::run`] would do. Nothing runs.
    ///
    /// # Errors
    ///
    /// As [`Kernels::run`].
    pub fn capture(
        &self,
        binding: &Binding<'_>,
        arena: &mut Buffer,
        first_step: usize,
        steps: usize,
    ) -> Result<Graph, CudaError> {
        self.prepare(binding, arena, first_step, steps)?;
        // On a stream of its own: work that another thread asks for meanwhile is not captured.
        let stream =
            self.device.context.new_stream().map_err(CudaError::driver("cuStreamCreate"))?;
        let mode = CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        stream.begin_capture(mode).map_err(CudaError::driver("cuStreamBeginCapture"))?;
        let launched = self.launch(&stream, binding, arena, first_step, steps);
        let flags = CUgraphInstantiate_flags::CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH;
        let graph = stream.end_capture(flags);
        launched?;
        let failed =
            || CudaError::Binding { what: "launches to capture".to_owned(), expected: 1, found: 0 };
        let graph = graph.map_err(CudaError::driver("cuStreamEndCapture"))?.ok_or_else(failed)?;
        graph.upload().map_err(CudaError::driver("cuGraphUpload"))?;
        let memory = binding.buffers().chain([&*arena]).filter_map(Buffer::memory).collect();
        Ok(Graph {
            graph,
            layout: binding.layout(arena, first_step, steps).collect(),
            device: self.device.clone(),
            _memory: memory,
            _loaded: self.loaded.clone(),
        })
    }

    fn prepare(
        &self,
        binding: &Binding<'_>,
        arena: &mut Buffer,
        first_step: usize,
        steps: usize,
    ) -> Result<(), CudaError> {
        binding.check(&self.device, &self.recipe, first_step.saturating_add(steps))?;
        let (expected, found) = (self.device.index(), arena.device().index());
        if expected != found {
            return Err(CudaError::Binding {
                what: "device of the arena".to_owned(),
                expected,
                found,
            });
        }
        if !self.recipe.is_fused() {
            let bytes = self.arena_row().saturating_mul(binding.models);
            arena.resize(arena.len().max(bytes))?;
        }
        Ok(())
    }

    /// Returns the bytes of the arena of one model.
    fn arena_row(&self) -> usize {
        padded(self.recipe.arena_bytes.max(1))
    }

    fn launch(
        &self,
        stream: &CudaStream,
        binding: &Binding<'_>,
        arena: &Buffer,
        first_step: usize,
        steps: usize,
    ) -> Result<(), CudaError> {
        if binding.models == 0 || steps == 0 {
            return Ok(());
        }
        let of_launch = if self.recipe.is_fused() { steps } else { 1 };
        for first in (first_step..first_step + steps).step_by(of_launch) {
            let arguments = self.arguments(binding, arena, first, of_launch);
            for (function, name) in self.loaded.functions.iter().zip(&self.recipe.source.kernels) {
                self.launch_one(stream, (function, name), binding.models, &arguments)?;
            }
        }
        Ok(())
    }

    fn launch_one(
        &self,
        stream: &CudaStream,
        (function, name): (&CudaFunction, &str),
        models: usize,
        arguments: &[Argument],
    ) -> Result<(), CudaError> {
        let placement = &self.recipe.placement;
        let config = LaunchConfig {
            grid_dim: (models.div_ceil(placement.models) as u32, 1, 1),
            block_dim: ((placement.threads * placement.models) as u32, 1, 1),
            shared_mem_bytes: self.recipe.shared_bytes as u32,
        };
        let mut launch = stream.launch_builder(function);
        for argument in arguments {
            match argument {
                Argument::Count(count) => launch.arg(count),
                Argument::Word(word) => launch.arg(word),
            };
        }
        // SAFETY: the arguments are those that the source lists, in order. Addresses are those of columns with as many
        // rows and bytes as the program touches: `Binding::check`, in `prepare`.
        unsafe { launch.launch(config) }
            .map_err(CudaError::driver(format!("launching `{name}`")))?;
        Ok(())
    }

    fn arguments(
        &self,
        binding: &Binding<'_>,
        arena: &Buffer,
        first_step: usize,
        steps: usize,
    ) -> Vec<Argument> {
        let stream = |stream: &Stream<'_>| {
            let Stream { column, step_bytes } = *stream;
            vec![column.buffer().address(), column.row_bytes() as u64, step_bytes as u64]
        };
        let mut arguments = Vec::new();
        for parameter in &self.recipe.source.parameters {
            let count = match *parameter {
                Parameter::Models => binding.models,
                Parameter::FirstStep => first_step,
                Parameter::Steps => steps,
                parameter => {
                    let words = match parameter {
                        Parameter::Slot(i) => {
                            let column = binding.slots[i];
                            vec![column.buffer().address(), column.row_bytes() as u64]
                        }
                        Parameter::Input(i) => stream(&binding.inputs[i]),
                        Parameter::Output(i) => stream(&binding.outputs[i]),
                        Parameter::Scalars => vec![binding.scalars.address()],
                        _ => vec![arena.address(), self.arena_row() as u64],
                    };
                    arguments.extend(words.into_iter().map(Argument::Word));
                    continue;
                }
            };
            arguments.push(Argument::Count(count as i32));
        }
        arguments
    }
}

/// A program that runs again and again: as a graph, captured when the tables changed and replayed else.
///
/// Until its fused kernel is compiled, the batched ones run, if they were given.
#[derive(Debug)]
pub struct Session {
    kernels: Kernels,
    better: Option<Compiling>,
    graph: Option<Graph>,
    arena: Buffer,
    captures: usize,
}

impl Session {
    /// Runs these kernels.
    pub fn new(kernels: Kernels) -> Session {
        let arena = Buffer::new(&kernels.device);
        Session { kernels, better: None, graph: None, arena, captures: 0 }
    }

    /// Runs these kernels until others, which do the same, are compiled.
    pub fn until(kernels: Kernels, better: Compiling) -> Session {
        Session { better: Some(better), ..Session::new(kernels) }
    }

    /// Returns the kernels that run.
    pub fn kernels(&self) -> &Kernels {
        &self.kernels
    }

    /// Returns how often a graph was captured.
    pub fn captures(&self) -> usize {
        self.captures
    }

    /// Runs steps `0..steps` of all models. It is done when the device is [synchronized](Device::synchronize).
    ///
    /// If the awaited kernels do not compile or load, a warning says so, and the others go on.
    ///
    /// # Errors
    ///
    /// As [`Kernels::run`].
    pub fn run(&mut self, binding: &Binding<'_>, steps: usize) -> Result<(), CudaError> {
        if let Some(better) = self.better.take_if(|better| better.is_finished()) {
            match better.join(&self.kernels.device) {
                Ok(kernels) => {
                    self.kernels = kernels;
                    self.graph = None;
                }
                Err(error) => tracing::warn!("the batched kernels go on: {error}"),
            }
        }
        if binding.models == 0 || steps == 0 {
            return binding.check(&self.kernels.device, &self.kernels.recipe, steps);
        }
        let layout = || binding.layout(&self.arena, 0, steps);
        let is_current = |graph: &Graph| graph.layout.iter().copied().eq(layout());
        if !self.graph.as_ref().is_some_and(is_current) {
            self.graph = None;
            self.graph = Some(self.kernels.capture(binding, &mut self.arena, 0, steps)?);
            self.captures += 1;
        }
        self.graph.as_ref().map_or(Ok(()), Graph::launch)
    }
}
