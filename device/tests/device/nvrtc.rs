//! NVIDIA's compiler, if it is there.

use neurarch_cuda::nvrtc::Nvrtc;

/// What the compiler makes.
pub(crate) struct Compiled {
    pub(crate) ptx: String,
    /// What it says: registers and spills of each kernel.
    pub(crate) log: String,
}

/// Says whether there is a compiler; if not, that the test is skipped.
#[expect(clippy::print_stderr, reason = "whoever runs tests is told what was not tested")]
pub(crate) fn is_there() -> bool {
    let is_there = Nvrtc::find().is_ok();
    if !is_there {
        eprintln!("skipped: no NVRTC");
    }
    is_there
}

/// Compiles a source.
///
/// # Panics
///
/// If it does not compile, with the compiler's log.
pub(crate) fn compile(source: &str, architecture: u32) -> Compiled {
    let nvrtc = Nvrtc::find().expect("the caller has asked whether there is one");
    let compiled = nvrtc.compile_with("step", source, architecture, &["--ptxas-options=-v"]);
    let compiled = compiled.unwrap_or_else(|error| panic!("{error}"));
    assert!(!compiled.image.cubin.is_empty(), "NVRTC does not know sm_{architecture}");
    Compiled { ptx: compiled.image.ptx, log: compiled.log }
}
