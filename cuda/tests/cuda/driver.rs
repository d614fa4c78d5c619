//! Machines without a driver, without a compiler, and what a device says of itself.

use std::path::Path;

use neurarch_cuda::cache::Cache;
use neurarch_cuda::kernel::Kernels;
use neurarch_cuda::{
    CudaError, Device, device_count, get_device_name, get_device_properties, is_available,
};
use neurarch_device::limits::DeviceLimits;

use crate::child::{Outcome, has_nvrtc, in_child, run, with_devices};
use crate::scene::{Planned, Population, Tables};

#[test]
fn without_a_driver_each_call_is_an_error() {
    with_devices("driver::without_a_driver_each_call_is_an_error", 0, |_| {
        assert!(!is_available());
        let errors = [
            device_count().map(|_| ()),
            get_device_name(0).map(|_| ()),
            get_device_properties(0).map(|_| ()),
            Device::open(0).map(|_| ()),
        ];
        for result in errors {
            let text = result.map_err(|error| error.to_string());
            let expected = "found no NVIDIA driver on your system: libcuda cannot be opened";
            assert_eq!(text, Err(expected.to_owned()));
        }
        Ok(())
    });
}

#[test]
fn a_driver_that_lacks_functions_is_an_error() {
    let name = "driver::a_driver_that_lacks_functions_is_an_error";
    let child = in_child(name, 0, |_| {
        assert!(!is_available());
        let Err(CudaError::MissingSymbol { library, symbol }) = device_count() else {
            return Err("a library without functions was taken".into());
        };
        assert_eq!((library, symbol.as_str()), ("libcuda", "cuInit"));
        Ok(())
    });
    let Some((mut command, folder)) = child else { return };
    // Any library that is not the driver.
    let other = ["/lib/x86_64-linux-gnu/libm.so.6", "/lib64/libm.so.6", "/usr/lib/libm.so.6"];
    let Some(other) = other.iter().find(|path| std::fs::exists(path).unwrap_or(false)) else {
        return;
    };
    std::fs::copy(other, folder.join("libcuda.so")).expect("there is room");
    run(&mut command);
    std::fs::remove_dir_all(&folder).expect("the folder is there");
}

#[test]
fn a_device_says_what_it_has() {
    with_devices("driver::a_device_says_what_it_has", 2, |_| {
        assert!(is_available());
        assert_eq!(device_count()?, 2);
        assert_eq!(get_device_name(1)?, "PTX interpreter");
        let properties = get_device_properties(0)?;
        assert_eq!(Some(properties.limits), DeviceLimits::of(90));
        assert_eq!((properties.major, properties.multi_processor_count), (9, 132));
        let error = Device::open(2).map(|_| ()).map_err(|error| error.to_string());
        let expected = "invalid device ordinal: device 2 was asked for, there are 2";
        assert_eq!(error, Err(expected.to_owned()));
        Device::open(0)?.synchronize()?;
        Ok(())
    });
}

/// Runs inference of a network, from a cache.
fn infer(cache: &Cache) -> Result<bool, Box<dyn std::error::Error>> {
    let device = Device::open(0)?;
    let planned = Planned::new(&[4, 16, 16, 2], 1, false);
    let recipe = planned.recipe(&device.properties()?.limits, false);
    let kernels = Kernels::new(&device, recipe, cache)?;
    let mut numbers = Population::new(&planned.plan.program, 5, 1, 2);
    let tables = Tables::upload(&device, &numbers)?;
    let mut arena = neurarch_cuda::table::Buffer::new(&device);
    kernels.run(&tables.binding(), &mut arena, 0, 1)?;
    let mut found = numbers.clone();
    tables.download(&mut found)?;
    numbers.run_on_cpu(&planned.plan);
    Ok(found == numbers)
}

#[test]
fn what_is_cached_needs_no_compiler() {
    if !has_nvrtc() {
        return;
    }
    let name = "driver::what_is_cached_needs_no_compiler";
    let child = in_child(name, 1, |folder| {
        let cache = Cache::new(folder.join("cache"));
        assert!(infer(&cache)?);
        assert_eq!(std::fs::read_dir(cache.folder())?.count(), 1);
        Ok(())
    });
    let Some((mut command, folder)) = child else { return };
    run(&mut command);
    let second = "driver::a_child_without_a_compiler";
    let program = std::env::current_exe().expect("a test is a program");
    let mut again = std::process::Command::new(program);
    again.args([second, "--exact", "--nocapture"]).env("NEURARCH_CUDA_CHILD", &folder);
    again.env("LD_LIBRARY_PATH", &folder).env("NEURARCH_NVRTC", "/nowhere");
    run(&mut again);
    std::fs::remove_dir_all(&folder).expect("the folder is there");
}

/// Runs in a child of the test above; else it does nothing.
#[test]
fn a_child_without_a_compiler() {
    let Some(folder) = std::env::var_os("NEURARCH_CUDA_CHILD") else { return };
    let folder = std::path::PathBuf::from(folder);
    assert!(infer(&Cache::new(folder.join("cache"))).expect("the kernel is cached"));
    let error = infer(&Cache::new(folder.join("other"))).map_err(|error| error.to_string());
    let error = error.expect_err("nothing is cached there");
    assert!(error.starts_with("kernel `step` is not cached, and there is no NVRTC:"), "{error}");
    damaged_files_count_as_missing(&folder).expect("files can be copied");
}

/// Changes bytes of the cached file, and cuts it.
fn damaged_files_count_as_missing(folder: &Path) -> Outcome {
    let limits = Device::open(0)?.properties()?.limits;
    let recipe = Planned::new(&[4, 16, 16, 2], 1, false).recipe(&limits, false);
    let kept = std::fs::read_dir(folder.join("cache"))?.next().ok_or("it is empty")??;
    let bytes = std::fs::read(kept.path())?;
    let cache = Cache::new(folder.join("damaged"));
    std::fs::create_dir_all(cache.folder())?;
    let path = cache.folder().join(kept.file_name());
    std::fs::write(&path, &bytes)?;
    recipe.image(&cache)?;
    let len = bytes.len();
    for at in [0, 7, 8, 40, 48, 56, len / 2, len - 40, len - 1] {
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        for damaged in [&changed[..], &bytes[..at]] {
            std::fs::write(&path, damaged)?;
            let image = recipe.image(&cache);
            assert!(matches!(image, Err(CudaError::NoNvrtc { .. })), "byte {at}");
        }
    }
    Ok(())
}
