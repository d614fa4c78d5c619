//! [`Nvrtc`]: NVIDIA's compiler, opened at run time.
#![expect(unsafe_code, reason = "functions of a library that is opened at run time")]

use std::ffi::{CString, c_char, c_int, c_void};
use std::sync::OnceLock;

use libloading::Library;

use crate::error::CudaError;

/// What every source is compiled with; the architecture is given besides.
pub const OPTIONS: [&str; 2] = ["--fmad=false", "--std=c++17"];

/// A compiled source.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Image {
    /// Machine code of one architecture; empty where the compiler does not know it.
    pub cubin: Vec<u8>,
    /// PTX, which the driver compiles.
    pub ptx: String,
}

/// What the compiler made of a source, and what it said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compiled {
    /// What it made.
    pub image: Image,
    /// What it said: with `--ptxas-options=-v`, registers and spills of each kernel.
    pub log: String,
}

/// A version of the compiler.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// Major number.
    pub major: i32,
    /// Minor number.
    pub minor: i32,
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
type GetVersion = unsafe extern "C" fn(*mut c_int, *mut c_int) -> c_int;
type CountArchs = unsafe extern "C" fn(*mut c_int) -> c_int;
type GetArchs = unsafe extern "C" fn(*mut c_int) -> c_int;

/// Where the compiler writes one of its results: a size, then bytes.
#[derive(Clone, Copy)]
struct Output(Size, Get);

/// The compiler.
pub struct Nvrtc {
    create: Create,
    compile: Compile,
    destroy: Destroy,
    log: Output,
    ptx: Output,
    cubin: Output,
    version: Version,
    architectures: Vec<u32>,
}

/// It is opened once; why it could not be is kept as text.
static NVRTC: OnceLock<Result<Nvrtc, String>> = OnceLock::new();

/// A program of the compiler, destroyed at the end.
struct Owned<'a>(Program, &'a Nvrtc);

impl Drop for Owned<'_> {
    fn drop(&mut self) {
        // SAFETY: the program was created, and nobody uses it any more. It cannot be told if this fails.
        unsafe { (self.1.destroy)(&raw mut self.0) };
    }
}

impl Nvrtc {
    /// Returns the compiler: the library that `NEURARCH_NVRTC` names, or the first that opens under a usual name.
    ///
    /// # Errors
    ///
    /// Why there is none, as text.
    pub fn find() -> Result<&'static Nvrtc, String> {
        NVRTC.get_or_init(Nvrtc::open).as_ref().map_err(Clone::clone)
    }

    fn open() -> Result<Nvrtc, String> {
        let usual = if cfg!(windows) {
            ["nvrtc64_130_0.dll", "nvrtc64_120_0.dll", "nvrtc64.dll"]
        } else {
            ["libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so"]
        };
        let given = std::env::var_os("NEURARCH_NVRTC").filter(|path| !path.is_empty());
        let names = given.map_or_else(|| usual.map(Into::into).to_vec(), |path| vec![path]);
        let mut reason = String::new();
        for name in names {
            // SAFETY: the initializers of NVIDIA's library set up tables and nothing else.
            match unsafe { Library::new(&name) } {
                // It stays open as long as the process: its functions are kept.
                Ok(library) => return Nvrtc::from_library(Box::leak(Box::new(library))),
                Err(error) => reason = error.to_string(),
            }
        }
        Err(reason)
    }

    fn from_library(library: &'static Library) -> Result<Nvrtc, String> {
        fn function<F: Copy>(library: &Library, name: &str) -> Result<F, String> {
            // SAFETY: `F` is the function's type, which `nvrtc.h` declares so since it has the function.
            unsafe { library.get::<F>(name) }.map(|f| *f).map_err(|error| error.to_string())
        }
        let output = |what: &str| -> Result<Output, String> {
            let size = function(library, &format!("nvrtcGet{what}Size"))?;
            Ok(Output(size, function(library, &format!("nvrtcGet{what}"))?))
        };
        let get_version: GetVersion = function(library, "nvrtcVersion")?;
        let (mut major, mut minor) = (0, 0);
        // SAFETY: two numbers are written.
        if unsafe { get_version(&raw mut major, &raw mut minor) } != 0 {
            return Err("nvrtcVersion failed".to_owned());
        }
        let count: CountArchs = function(library, "nvrtcGetNumSupportedArchs")?;
        let get: GetArchs = function(library, "nvrtcGetSupportedArchs")?;
        let mut n = 0;
        // SAFETY: a number is written.
        if unsafe { count(&raw mut n) } != 0 {
            return Err("nvrtcGetNumSupportedArchs failed".to_owned());
        }
        let mut architectures = vec![0; n.max(0) as usize];
        // SAFETY: there is room for as many numbers as the library says.
        if unsafe { get(architectures.as_mut_ptr()) } != 0 {
            return Err("nvrtcGetSupportedArchs failed".to_owned());
        }
        Ok(Nvrtc {
            create: function(library, "nvrtcCreateProgram")?,
            compile: function(library, "nvrtcCompileProgram")?,
            destroy: function(library, "nvrtcDestroyProgram")?,
            log: output("ProgramLog")?,
            ptx: output("PTX")?,
            cubin: output("CUBIN")?,
            version: Version { major, minor },
            architectures: architectures.into_iter().map(|x| x as u32).collect(),
        })
    }

    /// Returns its version.
    pub fn version(&self) -> Version {
        self.version
    }

    /// Compiles a source for an architecture; for PTX of the next older one where it does not know that.
    ///
    /// # Errors
    ///
    /// [`CudaError::Compile`] with the compiler's log.
    pub fn compile(&self, kernel: &str, text: &str, architecture: u32) -> Result<Image, CudaError> {
        Ok(self.compile_with(kernel, text, architecture, &[])?.image)
    }

    /// Compiles a source as [`compile`](Nvrtc::compile) does, with options besides [`OPTIONS`].
    ///
    /// # Errors
    ///
    /// [`CudaError::Compile`] with the compiler's log.
    pub fn compile_with(
        &self,
        kernel: &str,
        text: &str,
        architecture: u32,
        options: &[&str],
    ) -> Result<Compiled, CudaError> {
        let failed = |log: String| CudaError::Compile { kernel: kernel.to_owned(), log };
        let is_known = self.architectures.contains(&architecture);
        let older = self.architectures.iter().copied().filter(|&known| known <= architecture).max();
        let target = match (is_known, older) {
            (true, _) => format!("--gpu-architecture=sm_{architecture}"),
            (false, Some(older)) => format!("--gpu-architecture=compute_{older}"),
            (false, None) => {
                return Err(failed(format!(
                    "NVRTC does not know compute capability {architecture}"
                )));
            }
        };
        let c_string = |text: &str| CString::new(text).map_err(|error| failed(error.to_string()));
        let source = c_string(text)?;
        let options = [target.as_str()].into_iter().chain(OPTIONS).chain(options.iter().copied());
        let options = options.map(c_string).collect::<Result<Vec<_>, _>>()?;
        let options: Vec<_> = options.iter().map(|option| option.as_ptr()).collect();
        let (mut program, none) = (std::ptr::null_mut(), std::ptr::null());
        // SAFETY: the texts end with NUL and outlive the call; there are no headers.
        let created = unsafe {
            (self.create)(&raw mut program, source.as_ptr(), std::ptr::null(), 0, none, none)
        };
        if created != 0 {
            return Err(failed(format!("nvrtcCreateProgram failed with {created}")));
        }
        let program = Owned(program, self);
        // SAFETY: the program was created above, and there are as many options as it is told.
        let compiled =
            unsafe { (self.compile)(program.0, options.len() as c_int, options.as_ptr()) };
        let text = |output| -> Result<String, CudaError> {
            let mut bytes = read(program.0, output).map_err(failed)?;
            bytes.retain(|&byte| byte != 0);
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        let log = text(self.log)?;
        if compiled != 0 {
            return Err(failed(log));
        }
        let cubin =
            if is_known { read(program.0, self.cubin).map_err(failed)? } else { Vec::new() };
        Ok(Compiled { image: Image { cubin, ptx: text(self.ptx)? }, log })
    }
}

/// Reads one of a program's results.
fn read(program: Program, Output(size, get): Output) -> Result<Vec<u8>, String> {
    let mut len = 0;
    // SAFETY: the program lives, and a number is written.
    let mut status = unsafe { size(program, &raw mut len) };
    let mut bytes = vec![0_u8; len];
    if status == 0 {
        // SAFETY: the program lives, and there is room for as many bytes as the library says.
        status = unsafe { get(program, bytes.as_mut_ptr().cast()) };
    }
    if status == 0 { Ok(bytes) } else { Err(format!("NVRTC failed with {status}")) }
}
