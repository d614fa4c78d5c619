//! Runs printed functions: one C program, compiled by gcc, that reads inputs and writes outputs.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use neurarch_kernels::ir::dtype::Dtype;
use neurarch_kernels::text::c;

/// A printed function and its inputs, row-major.
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) source: String,
    pub(crate) inputs: Vec<Vec<f64>>,
    /// The number of elements of each output.
    pub(crate) outputs: Vec<usize>,
}

/// Gives the outputs of each function, which are all of one type.
pub(crate) fn run(dtype: Dtype, cases: &[Case]) -> Vec<Vec<Vec<f64>>> {
    static RUNS: AtomicUsize = AtomicUsize::new(0);
    let run = RUNS.fetch_add(1, Ordering::Relaxed);
    let folder =
        Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("text-{}-{run}", std::process::id()));
    fs::create_dir_all(&folder).expect("there is a folder for tests");
    let at = |name: &str| folder.join(name);
    fs::write(at("program.c"), program(dtype, cases)).expect("it is ours");
    let numbers = cases.iter().flat_map(|case| case.inputs.iter().flatten());
    let bytes: Vec<u8> = match dtype {
        Dtype::F64 => numbers.flat_map(|x| x.to_ne_bytes()).collect(),
        _ => numbers.flat_map(|&x| (x as f32).to_ne_bytes()).collect(),
    };
    fs::write(at("inputs"), bytes).expect("it is ours");
    let gcc = Command::new("gcc")
        .args(["-std=c11", "-O2", "-ffp-contract=off", "-Wall", "-Wno-unused-function", "-Werror"])
        .args([at("program.c"), "-o".into(), at("program"), "-lm".into()])
        .output()
        .expect("gcc is there");
    assert!(gcc.status.success(), "{}", String::from_utf8_lossy(&gcc.stderr));
    let status = Command::new(at("program"))
        .stdin(File::open(at("inputs")).expect("it was written"))
        .stdout(File::create(at("outputs")).expect("it is ours"))
        .status()
        .expect("it was compiled");
    assert!(status.success());
    let bytes = fs::read(at("outputs")).expect("it was written");
    fs::remove_dir_all(&folder).expect("it is ours");
    let mut numbers: Box<dyn Iterator<Item = f64>> = match dtype {
        Dtype::F64 => Box::new(
            bytes.chunks_exact(8).map(|x| f64::from_ne_bytes(x.try_into().expect("eight"))),
        ),
        _ => Box::new(
            bytes.chunks_exact(4).map(|x| f32::from_ne_bytes(x.try_into().expect("four")).into()),
        ),
    };
    cases
        .iter()
        .map(|case| case.outputs.iter().map(|&n| numbers.by_ref().take(n).collect()).collect())
        .collect()
}

/// Prints the program.
fn program(dtype: Dtype, cases: &[Case]) -> String {
    let number = if dtype == Dtype::F64 { "double" } else { "float" };
    let mut text = format!("#include <stdio.h>\n{}", c::PRELUDE);
    let mut main = String::new();
    for case in cases {
        text += &case.source;
        let (mut x, mut y) = (Vec::new(), Vec::new());
        let mut array = |name: &str, place: usize, n: usize| {
            let name = format!("{}_{name}{place}", case.name);
            let _ = writeln!(text, "static {number} {name}[{}];", n.max(1));
            name
        };
        for (place, input) in case.inputs.iter().enumerate() {
            x.push(array("x", place, input.len()));
        }
        for (place, &n) in case.outputs.iter().enumerate() {
            y.push(array("y", place, n));
        }
        for (x, input) in x.iter().zip(&case.inputs) {
            let n = input.len();
            let _ = writeln!(main, "    if (fread({x}, sizeof *{x}, {n}, stdin) != {n}) return 1;");
        }
        let (inputs, outputs) = (x.join(", "), y.join(", "));
        let _ = writeln!(
            main,
            "    {}((const {number} *const[]){{{inputs}}}, ({number} *const[]){{{outputs}}});",
            case.name
        );
        for (y, n) in y.iter().zip(&case.outputs) {
            let _ =
                writeln!(main, "    if (fwrite({y}, sizeof *{y}, {n}, stdout) != {n}) return 1;");
        }
    }
    text + "int main(void) {\n" + &main + "    return 0;\n}\n"
}
