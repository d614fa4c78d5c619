//! Compiles CUDA C++ to PTX, if NVRTC is there.
#![expect(unsafe_code, reason = "libraries are opened by name or by path")]

use std::sync::OnceLock;

use cudarc::nvrtc::{CompileOptions, compile_ptx_with_opts};

/// Opens NVRTC: at the path in `NEURARCH_NVRTC`, or by its usual names.
fn is_there() -> bool {
    static THERE: OnceLock<bool> = OnceLock::new();
    *THERE.get_or_init(|| {
        if let Ok(path) = std::env::var("NEURARCH_NVRTC") {
            // SAFETY: opening NVIDIA's compiler runs nothing that depends on this program.
            let library = unsafe { libloading::Library::new(&path) };
            // Once it is open, it is found by its name.
            std::mem::forget(
                library.unwrap_or_else(|error| panic!("NEURARCH_NVRTC={path}: {error}")),
            );
        }
        // SAFETY: as above.
        unsafe { cudarc::nvrtc::sys::is_culib_present() }
    })
}

/// Returns the PTX of a source, or nothing if there is no NVRTC, which it says.
#[expect(clippy::print_stderr, reason = "a test says that it was skipped")]
pub(crate) fn compile(source: &str, definitions: &[&str]) -> Option<String> {
    if !is_there() {
        eprintln!("skipped: no NVRTC");
        return None;
    }
    let mut options = vec!["--gpu-architecture=compute_90".to_owned(), "--fmad=false".to_owned()];
    options.extend(definitions.iter().map(|name| format!("--define-macro={name}")));
    let options = CompileOptions { options, ..CompileOptions::default() };
    match compile_ptx_with_opts(source, options) {
        Ok(ptx) => Some(ptx.to_src()),
        Err(error) => panic!("{error:?}"),
    }
}
