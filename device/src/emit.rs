//! [`Source`]: the CUDA C++ of a program.

use std::collections::HashSet;
use std::fmt::Write;

use neurarch_kernels::device::PRELUDE;
use neurarch_kernels::device::code::type_of;
use neurarch_kernels::ir::program::Program;
use neurarch_kernels::plan::on_device::{DevicePlan, DeviceStep, Location, PlacedView};

use crate::plan::{Placement, Shared, Way};

/// A source, and how its kernels are launched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// CUDA C++.
    pub text: String,
    /// The kernels, to be launched one after the other for each step. A fused program has one, which takes several steps.
    pub kernels: Vec<String>,
    /// What each kernel takes, in order.
    pub parameters: Vec<Parameter>,
}

/// A parameter of all kernels of a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parameter {
    /// `int`: how many models there are.
    Models,
    /// `int`: the first step.
    FirstStep,
    /// `int`: how many steps.
    Steps,
    /// Address, bytes from model to model (a multiple of 64) of a slot.
    Slot(usize),
    /// Address, bytes from model to model, bytes from step to step (multiples of 16) of an input.
    Input(usize),
    /// The same of an output.
    Output(usize),
    /// Address: the value of scalar `s` for model `m` at `s · models + m`, in double precision.
    Scalars,
    /// Address, bytes from model to model of the arena. Only a batched program uses it.
    Arena,
}

/// Copies rows; 16 bytes at a time between places that are aligned to them.
const COPY: &str = "\
template <int T, class W, int N> DEVICE void copy(int t, const void *from, void *to) {
    for (int i = t; i < N; i += T) ((W *)to)[i] = ((const W *)from)[i];
}
";

impl Source {
    /// Prints a program as it was placed; `name` begins the names of its kernels.
    pub fn new(program: &Program, plan: &DevicePlan, placement: &Placement, name: &str) -> Source {
        let parameters = parameters(program);
        let mut text = PRELUDE.to_owned() + COPY;
        let mut known = HashSet::new();
        for definition in plan.steps.iter().flat_map(|step| &step.code.definitions) {
            if known.insert(&definition.name) {
                text += "\n";
                text += &definition.text;
            }
        }
        text += &constants(plan);
        let emitter = Emitter { program, plan, placement, parameters: &parameters };
        let kernels = match &placement.way {
            Way::Fused(shared) => {
                text += &emitter.fused(shared, name);
                vec![name.to_owned()]
            }
            Way::Batched => emitter.batched(name, &mut text),
        };
        Source { text, kernels, parameters }
    }
}

fn parameters(program: &Program) -> Vec<Parameter> {
    let counts = [Parameter::Models, Parameter::FirstStep, Parameter::Steps];
    let slots = (0..program.slots.len()).map(Parameter::Slot);
    let inputs = (0..program.inputs.len()).map(Parameter::Input);
    let outputs = (0..program.outputs.len()).map(Parameter::Output);
    let all = counts.into_iter().chain(slots).chain(inputs).chain(outputs);
    all.chain([Parameter::Scalars, Parameter::Arena]).collect()
}

/// Prints the numbers known while tracing.
fn constants(plan: &DevicePlan) -> String {
    if plan.constants.is_empty() {
        return String::new();
    }
    let words = plan.constants.chunks(8).map(|chunk| {
        let mut bytes = [0; 8];
        bytes[..chunk.len()].copy_from_slice(chunk);
        format!("{:#x}ull", u64::from_le_bytes(bytes))
    });
    let words = words.collect::<Vec<_>>().join(", ");
    format!("\nstatic __device__ const __align__(16) u64 constants[] = {{{words}}};\n")
}

struct Emitter<'a> {
    program: &'a Program,
    plan: &'a DevicePlan,
    placement: &'a Placement,
    parameters: &'a [Parameter],
}

impl Emitter<'_> {
    fn head(&self, name: &str) -> String {
        let one = |parameter: &Parameter| match *parameter {
            Parameter::Models => "int models".to_owned(),
            Parameter::FirstStep => "int first_step".to_owned(),
            Parameter::Steps => "int steps".to_owned(),
            Parameter::Slot(i) => {
                let slot = &self.program.slots[i];
                format!("char *slot{i}, u64 slot{i}_row /* {} {} */", slot.role, slot.name)
            }
            Parameter::Input(i) => {
                format!("const char *input{i}, u64 input{i}_row, u64 input{i}_step")
            }
            Parameter::Output(i) => {
                format!("char *output{i}, u64 output{i}_row, u64 output{i}_step")
            }
            Parameter::Scalars => "const double *scalars".to_owned(),
            Parameter::Arena => "char *arenas, u64 arena_row".to_owned(),
        };
        let parameters: Vec<_> = self.parameters.iter().map(one).collect();
        let (threads, models) = (self.placement.threads, self.placement.models);
        format!(
            "\nextern \"C\" __global__ void __launch_bounds__({}) {name}(\n    {}) {{\n    \
             constexpr int T = {threads};\n    extern __shared__ int4 memory[];\n    \
             const int t = threadIdx.x % T, group = threadIdx.x / T;\n    \
             const u64 model = (u64)blockIdx.x * {models} + group;\n    if (model >= models) return;\n",
            threads * models,
            parameters.join(",\n    ")
        )
    }

    /// Returns a typed address.
    fn address(&self, view: &PlacedView, shared: Option<&Shared>) -> String {
        let ty = type_of(view.dtype);
        let own = |place: Option<usize>| place.map(|at| format!("({ty} *)(arena + {at})"));
        let address = match view.place {
            Location::Arena(at) | Location::Scalar32(_, at) => format!("({ty} *)(arena + {at})"),
            Location::Slot(i) => own(shared.and_then(|shared| shared.slots[i]))
                .unwrap_or_else(|| format!("({ty} *)(slot{i} + model * slot{i}_row)")),
            Location::Input(i) => {
                own(shared.and_then(|shared| shared.inputs[i])).unwrap_or_else(|| {
                    format!(
                        "(const {ty} *)(input{i} + model * input{i}_row + step * input{i}_step)"
                    )
                })
            }
            Location::Output(i) => {
                format!("({ty} *)(output{i} + model * output{i}_row + step * output{i}_step)")
            }
            Location::Constant(at) => format!("(const {ty} *)((const char *)constants + {at})"),
            Location::Scalar(i) => format!("(scalars + {i} * (u64)models + model)"),
            Location::Elsewhere => "nullptr".to_owned(),
        };
        format!("({address})")
    }

    fn call(&self, step: &DeviceStep, shared: Option<&Shared>, scratch: &str) -> String {
        let operands: Vec<_> =
            step.operands.iter().map(|view| self.address(view, shared)).collect();
        step.code.call_with(&operands, scratch)
    }

    /// Lists the scalars that the program reads in single precision, with their places in the arena.
    fn scalars_in_arena(&self) -> Vec<(usize, usize)> {
        let views = self.plan.steps.iter().flat_map(|step| &step.operands);
        let mut found: Vec<_> = views
            .filter_map(|view| match view.place {
                Location::Scalar32(scalar, at) => Some((scalar, at)),
                _ => None,
            })
            .collect();
        found.sort_unstable();
        found.dedup();
        found
    }

    fn fused(&self, shared: &Shared, name: &str) -> String {
        let mut text = self.head(name);
        // Writing to a string does not fail.
        let _ =
            writeln!(text, "    char *const arena = (char *)memory + group * {};", shared.bytes);
        let stored = |slot| self.program.stores.iter().any(|&(of, _)| of == slot);
        let mut stores = String::new();
        for (i, at) in shared.slots.iter().enumerate() {
            let Some(at) = at else { continue };
            let wide = self.program.slots[i].ty.size_bytes().div_ceil(16);
            let row = format!("slot{i} + model * slot{i}_row");
            let _ = writeln!(text, "    copy<T, int4, {wide}>(t, {row}, arena + {at});");
            if stored(i) {
                let _ = writeln!(stores, "    copy<T, int4, {wide}>(t, arena + {at}, {row});");
            }
        }
        for (scalar, at) in self.scalars_in_arena() {
            let value = format!("(float)scalars[{scalar} * (u64)models + model]");
            let _ = writeln!(text, "    if (t == 0) *(float *)(arena + {at}) = {value};");
        }
        text += "    for (u64 step = first_step; step < first_step + steps; ++step) {\n";
        for (i, at) in shared.inputs.iter().enumerate() {
            let Some(at) = at else { continue };
            let bytes = self.program.inputs[i].size_bytes();
            let (word, n) = match bytes {
                bytes if bytes % 16 == 0 => ("int4", bytes / 16),
                bytes if bytes % 4 == 0 => ("int", bytes / 4),
                bytes => ("u16", bytes / 2),
            };
            let from = format!("input{i} + model * input{i}_row + step * input{i}_step");
            let _ = writeln!(text, "        copy<T, {word}, {n}>(t, {from}, arena + {at});");
        }
        text += "        sync<T>();\n";
        let scratch = format!("(arena + {})", shared.scratch);
        for step in &self.plan.steps {
            let call = self.call(step, Some(shared), &scratch);
            let _ = writeln!(text, "        // {}\n        {call}\n        sync<T>();", step.op);
        }
        text + "    }\n" + &stores + "}\n"
    }

    fn batched(&self, name: &str, text: &mut String) -> Vec<String> {
        let mut kernels = Vec::new();
        let mut kernel = |name: String, body: String| {
            *text += &self.head(&name);
            *text += "    char *const arena = arenas + model * arena_row;\n    const u64 step = first_step;\n    ";
            *text += &body;
            *text += "\n}\n";
            kernels.push(name);
        };
        let scalars = self.scalars_in_arena().into_iter().map(|(scalar, at)| {
            format!(
                "if (t == 0) *(float *)(arena + {at}) = (float)scalars[{scalar} * (u64)models + model];"
            )
        });
        let scalars: Vec<_> = scalars.collect();
        if !scalars.is_empty() {
            kernel(format!("{name}_scalars"), scalars.join("\n    "));
        }
        for (number, step) in self.plan.steps.iter().enumerate() {
            kernel(format!("{name}_{number}_{}", step.op), self.call(step, None, "memory"));
        }
        kernels
    }
}
