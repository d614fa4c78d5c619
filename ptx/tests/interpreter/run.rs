//! Runs small kernels whose bodies are written here.

use neurarch_ptx::{Argument, Counts, FaultKind, Launch, LaunchError, Memory, Program};

/// A kernel `f(out, in)` around a body; `%rd1` points to the thread's own eight bytes of `out`, `%rd2` to those of `in`.
pub(crate) fn kernel(body: &str) -> String {
    format!(
        ".version 9.0\n.target sm_90\n.address_size 64\n\
         .visible .entry f(.param .u64 out, .param .u64 in)\n{{\n\
         .reg .pred %p<10>; .reg .b16 %rs<20>; .reg .b32 %r<40>; .reg .f32 %f<40>; .reg .b64 %rd<40>; .reg .f64 %fd<40>;\n\
         .shared .align 16 .b8 tile[4096];\n\
         ld.param.u64 %rd1, [out]; ld.param.u64 %rd2, [in]; mov.u32 %r1, %tid.x;\n\
         mul.wide.u32 %rd3, %r1, 8; add.s64 %rd1, %rd1, %rd3; add.s64 %rd2, %rd2, %rd3;\n\
         {body}\nret;\n}}\n"
    )
}

/// Runs one block of the kernel over `numbers`, and returns what it wrote: eight bytes a thread.
pub(crate) fn run_block(body: &str, numbers: &[u64]) -> Result<(Vec<u64>, Counts), LaunchError> {
    let program =
        Program::parse(&kernel(body)).unwrap_or_else(|error| panic!("{error}\n{}", kernel(body)));
    let mut memory = Memory::new();
    let input = memory.allocate_from(numbers);
    let output = memory.allocate_from(&vec![0_u64; numbers.len()]);
    let launch = Launch { grid: [1, 1, 1], block: [numbers.len() as u32, 1, 1], shared_bytes: 0 };
    let counts =
        program.launch("f", launch, &[output.into(), Argument::from(input)], &mut memory)?;
    Ok((memory.read_vec(output, numbers.len()).unwrap(), counts))
}

/// Returns the mistake that a block of so many threads makes.
pub(crate) fn mistake(body: &str, threads: usize) -> (u32, FaultKind) {
    match run_block(body, &vec![1; threads]) {
        Err(LaunchError::Fault(fault)) => (fault.line, fault.kind),
        other => panic!("{other:?}"),
    }
}
