//! Tests that run again as a child which finds the driver, or none.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;

use neurarch_cuda::nvrtc::Nvrtc;

/// Set in the child: a folder for its files.
const CHILD: &str = "NEURARCH_CUDA_CHILD";

/// What a test returns.
pub(crate) type Outcome = Result<(), Box<dyn Error>>;

/// Says whether there is a compiler; if not, that the test is skipped.
#[expect(clippy::print_stderr, reason = "whoever runs tests is told what was not tested")]
pub(crate) fn has_nvrtc() -> bool {
    let found = Nvrtc::find().is_ok();
    if !found {
        eprintln!("skipped: no NVRTC");
    }
    found
}

/// Runs a test in a child with an empty folder, and with so many devices of the interpreter, or without a driver for 0.
pub(crate) fn with_devices(name: &str, devices: usize, test: fn(&Path) -> Outcome) {
    let child = in_child(name, devices, test);
    let Some((mut command, folder)) = child else { return };
    run(&mut command);
    std::fs::remove_dir_all(&folder).expect("the folder is there");
}

/// Runs a child, which must run one test and pass it.
pub(crate) fn run(command: &mut Command) {
    let output = command.output().expect("the test can be run again");
    let [said, errors] = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
    assert!(output.status.success() && said.contains("1 passed"), "{said}{errors}");
}

/// In the child, runs the test; else returns the command that does, and the folder.
pub(crate) fn in_child(
    name: &str,
    devices: usize,
    test: fn(&Path) -> Outcome,
) -> Option<(Command, PathBuf)> {
    if let Some(folder) = std::env::var_os(CHILD) {
        test(Path::new(&folder)).unwrap_or_else(|error| panic!("{error}"));
        return None;
    }
    let (process, last) = (std::process::id(), name.replace("::", "_"));
    let folder = std::env::temp_dir().join(format!("neurarch_cuda_{process}_{last}"));
    std::fs::create_dir_all(&folder).expect("there is room for a folder");
    if devices > 0 {
        neurarch_ptx_driver::install(&folder).expect("the driver was built");
    }
    let program = std::env::current_exe().expect("a test is a program");
    let mut command = Command::new(program);
    command.args([name, "--exact", "--nocapture"]);
    command.env(CHILD, &folder).env("LD_LIBRARY_PATH", &folder);
    command.env("NEURARCH_DRIVER_DEVICES", devices.to_string());
    command.env("NEURARCH_DRIVER_REPORT", folder.join("report.txt"));
    Some((command, folder))
}
