//! NVIDIA's compiler, opened at run time: the library that `NEURARCH_NVRTC` names, or one of the usual names.
#![expect(unsafe_code, reason = "functions of a library that is opened at run time")]

use std::ffi::{CString, c_char, c_int, c_void};
use std::sync::OnceLock;

use libloading::Library;

/// What the compiler makes.
pub(crate) struct Compiled {
    pub(crate) ptx: String,
    /// What it says: registers and spills of each kernel.
    pub(crate) log: String,
}

static LIBRARY: OnceLock<Option<Library>> = OnceLock::new();

fn library() -> Option<&'static Library> {
    let open = || {
        let given = std::env::var("NEURARCH_NVRTC").ok();
        let usual = ["libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so"].map(str::to_owned);
        let names = given.map_or_else(|| usual.to_vec(), |path| vec![path]);
        // SAFETY: the initializers of NVIDIA's library set up tables and nothing else.
        names.iter().find_map(|name| unsafe { Library::new(name) }.ok())
    };
    LIBRARY.get_or_init(open).as_ref()
}

/// Says whether there is a compiler; if not, that the test is skipped.
#[expect(clippy::print_stderr, reason = "whoever runs tests is told what was not tested")]
pub(crate) fn is_there() -> bool {
    if library().is_none() {
        eprintln!("skipped: no NVRTC");
    }
    library().is_some()
}

type Program = *mut c_void;
type Strings = *const *const c_char;
type Create = unsafe extern "C" fn(
    *mut Program,
    *const c_char,
    *const c_char,
    c_int,
    Strings,
    Strings,
) -> c_int;
type Compile = unsafe extern "C" fn(Program, c_int, Strings) -> c_int;
type Size = unsafe extern "C" fn(Program, *mut usize) -> c_int;
type Get = unsafe extern "C" fn(Program, *mut c_char) -> c_int;
type Destroy = unsafe extern "C" fn(*mut Program) -> c_int;

/// Finds a function of the library.
fn function<F: Copy>(name: &str) -> F {
    let library = library().expect("the caller has asked whether there is one");
    // SAFETY: `F` is the function's type, which `nvrtc.h` declares so since its first release.
    *unsafe { library.get::<F>(name) }.unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Reads a text of the program.
fn text(program: Program, size: &str, get: &str) -> String {
    let mut len = 0;
    // SAFETY: the program lives, and `len` can be written.
    assert_eq!(unsafe { function::<Size>(size)(program, &raw mut len) }, 0, "{size}");
    let mut bytes = vec![0_u8; len];
    // SAFETY: as above; the buffer is as long as the library says.
    assert_eq!(unsafe { function::<Get>(get)(program, bytes.as_mut_ptr().cast()) }, 0, "{get}");
    bytes.retain(|&byte| byte != 0);
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Compiles a source.
///
/// # Panics
///
/// If it does not compile, with the compiler's log.
pub(crate) fn compile(source: &str, architecture: u32) -> Compiled {
    let source = CString::new(source).expect("a source has no NUL");
    let options = [
        format!("--gpu-architecture=sm_{architecture}"),
        "--fmad=false".to_owned(),
        "--std=c++17".to_owned(),
        "--ptxas-options=-v".to_owned(),
    ];
    let options = options.map(|option| CString::new(option).expect("an option has no NUL"));
    let options: Vec<_> = options.iter().map(|option| option.as_ptr()).collect();
    let mut program: Program = std::ptr::null_mut();
    let (create, none) = (function::<Create>("nvrtcCreateProgram"), std::ptr::null());
    // SAFETY: the texts end with NUL and outlive the call; there are no headers.
    let created =
        unsafe { create(&raw mut program, source.as_ptr(), std::ptr::null(), 0, none, none) };
    assert_eq!(created, 0, "nvrtcCreateProgram");
    let compile = function::<Compile>("nvrtcCompileProgram");
    // SAFETY: the program was made above, and there are as many options as it is told.
    let compiled = unsafe { compile(program, options.len() as c_int, options.as_ptr()) };
    let log = text(program, "nvrtcGetProgramLogSize", "nvrtcGetProgramLog");
    assert_eq!(compiled, 0, "{log}");
    let ptx = text(program, "nvrtcGetPTXSize", "nvrtcGetPTX");
    // SAFETY: nobody uses the program any more.
    unsafe { function::<Destroy>("nvrtcDestroyProgram")(&raw mut program) };
    Compiled { ptx, log }
}
