//! cudarc over the driver: contexts, memory, modules, launches, graphs, several devices, faults.
//!
//! The driver must be found before a program starts, so each test runs again as a child with `LD_LIBRARY_PATH` set.
#![expect(unsafe_code, reason = "launches, and capture without events")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::error::Error;
use std::process::Command;

use cudarc::driver::{
    CudaContext, CudaModule, CudaStream, DriverError, LaunchConfig, PushKernelArg, sys,
};
use cudarc::nvrtc::Ptx;
use std::sync::Arc;

const CHILD: &str = "NEURARCH_DRIVER_CHILD";

/// Three kernels over `y[i]`: the last two are wrong.
const TEXT: &str = include_str!("kernels.ptx");

/// Runs a test in a child that finds the driver, and returns its report; in the child, runs the test itself.
fn with_driver(name: &str, devices: u32, test: fn() -> Result<(), Box<dyn Error>>) -> String {
    if std::env::var_os(CHILD).is_some() {
        test().unwrap();
        return String::new();
    }
    let folder =
        std::env::temp_dir().join(format!("neurarch_driver_{}_{name}", std::process::id()));
    neurarch_ptx_driver::install(&folder).unwrap();
    let report = folder.join("report.txt");
    let output = Command::new(std::env::current_exe().unwrap())
        .args([name, "--exact", "--nocapture"])
        .env(CHILD, "1")
        .env("LD_LIBRARY_PATH", &folder)
        .env("NEURARCH_DRIVER_DEVICES", devices.to_string())
        .env("NEURARCH_DRIVER_REPORT", &report)
        .output()
        .unwrap();
    let text = std::fs::read_to_string(&report).unwrap_or_default();
    std::fs::remove_dir_all(&folder).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    text
}

fn module(context: &Arc<CudaContext>) -> Result<Arc<CudaModule>, DriverError> {
    context.load_module(Ptx::from_src(TEXT))
}

fn run(
    stream: &Arc<CudaStream>,
    module: &Arc<CudaModule>,
    kernel: &str,
    y: &mut cudarc::driver::CudaSlice<f32>,
) -> Result<(), DriverError> {
    let function = module.load_function(kernel)?;
    let config = LaunchConfig { grid_dim: (2, 1, 1), block_dim: (50, 1, 1), shared_mem_bytes: 0 };
    let mut launch = stream.launch_builder(&function);
    launch.arg(y);
    // SAFETY: the kernel takes one pointer to a hundred numbers; where it goes beyond, that is what is tried.
    unsafe { launch.launch(config) }.map(|_| ())
}

#[test]
fn kernels_run_plainly_and_as_graphs() {
    with_driver("kernels_run_plainly_and_as_graphs", 1, || {
        let context = CudaContext::new(0)?;
        assert_eq!(context.name()?, "PTX interpreter");
        assert_eq!(context.compute_capability()?, (9, 0));
        let (free, total) = context.mem_get_info()?;
        let stream = context.new_stream()?;
        let x: Vec<f32> = (0..100).map(|i| i as f32).collect();
        let mut y = stream.clone_htod(&x)?;
        assert_eq!(context.mem_get_info()?, (free - 400, total));
        // Machine code is refused as by a device of another architecture.
        let cubin = context.load_module(Ptx::from_binary(b"\x7fELF\x02\x01\x01\0".to_vec()));
        assert_eq!(
            cubin.err().map(|error| error.0),
            Some(sys::CUresult::CUDA_ERROR_NO_BINARY_FOR_GPU)
        );
        let module = module(&context)?;
        assert_eq!(
            module.load_function("none").err().map(|error| error.0),
            Some(sys::CUresult::CUDA_ERROR_NOT_FOUND)
        );
        run(&stream, &module, "twice", &mut y)?;
        assert_eq!(stream.clone_dtoh(&y)?[..3], [0.0, 2.0, 4.0]);
        // SAFETY: there is one stream.
        unsafe { context.disable_event_tracking() };
        stream.begin_capture(sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL)?;
        run(&stream, &module, "twice", &mut y)?;
        let flags = sys::CUgraphInstantiate_flags::CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH;
        let graph = stream.end_capture(flags)?.ok_or("no graph")?;
        assert_eq!(stream.clone_dtoh(&y)?[1], 2.0, "captured work is not done");
        graph.launch()?;
        graph.launch()?;
        assert_eq!(stream.clone_dtoh(&y)?[..3], [0.0, 8.0, 16.0]);
        Ok(())
    });
}

#[test]
fn faults_come_back_as_errors_and_reports() {
    let report = with_driver("faults_come_back_as_errors_and_reports", 1, || {
        let context = CudaContext::new(0)?;
        let stream = context.default_stream();
        let mut y = stream.alloc_zeros::<f32>(100)?;
        let module = module(&context)?;
        let error = run(&stream, &module, "overrun", &mut y).unwrap_err();
        assert_eq!(error.0, sys::CUresult::CUDA_ERROR_ILLEGAL_ADDRESS);
        let error = run(&stream, &module, "collide", &mut y).unwrap_err();
        assert_eq!(error.0, sys::CUresult::CUDA_ERROR_LAUNCH_FAILED);
        assert!(error.error_string()?.to_string_lossy().contains("race"));
        Ok(())
    });
    if std::env::var_os(CHILD).is_none() {
        assert!(report.contains("overrun, line ") && report.contains("out of bounds"), "{report}");
        assert!(
            report.contains("collide, line ") && report.contains("race: write of global memory"),
            "{report}"
        );
    }
}

#[test]
fn several_devices_have_memory_of_their_own() {
    with_driver("several_devices_have_memory_of_their_own", 3, || {
        assert_eq!(CudaContext::device_count()?, 3);
        assert!(CudaContext::new(3).is_err());
        let mut all = Vec::new();
        for i in 0..3 {
            let context = CudaContext::new(i)?;
            let stream = context.default_stream();
            let mut y = stream.clone_htod(&vec![i as f32; 100])?;
            run(&stream, &module(&context)?, "twice", &mut y)?;
            all.push((stream, y));
        }
        for (i, (stream, y)) in all.iter().enumerate() {
            assert_eq!(stream.clone_dtoh(y)?[99], 2.0 * i as f32);
        }
        Ok(())
    });
}
