//! Training and inference: the CPU's bits, through tables, graphs, and on several devices.

use std::sync::Arc;

use neurarch_cuda::cache::Cache;
use neurarch_cuda::kernel::Kernels;
use neurarch_cuda::run::Session;
use neurarch_cuda::split::split;
use neurarch_cuda::table::Buffer;
use neurarch_cuda::{CudaError, Device};

use crate::child::{Outcome, has_nvrtc, with_devices};
use crate::scene::{Planned, Population, Tables};

const MODELS: usize = 20;
const STEPS: usize = 3;

fn tiny() -> (Planned, Population) {
    let planned = Planned::new(&[4, 16, 16, 2], 8, true);
    let numbers = Population::new(&planned.plan.program, MODELS, STEPS, 2);
    (planned, numbers)
}

/// Counts the columns that differ.
fn differing(a: &Population, b: &Population) -> usize {
    let pairs = a.columns.iter().flatten().zip(b.columns.iter().flatten());
    pairs.filter(|(a, b)| a != b).count()
}

#[test]
fn a_population_learns_with_the_bits_of_the_cpu() {
    if !has_nvrtc() {
        return;
    }
    with_devices("steps::a_population_learns_with_the_bits_of_the_cpu", 1, |folder| {
        let device = Device::open(0)?;
        let cache = Cache::new(folder.join("cache"));
        let (planned, start) = tiny();
        let mut expected = start.clone();
        expected.run_on_cpu(&planned.plan);
        let mut after_two = expected.clone();
        after_two.run_on_cpu(&planned.plan);
        assert_ne!(differing(&start, &expected), 0, "nothing was learned");
        for batched in [false, true] {
            let recipe = planned.recipe(&device.properties()?.limits, batched);
            assert_eq!(recipe.is_fused(), !batched);
            let mut session = Session::new(Kernels::new(&device, recipe, &cache)?);
            let tables = Tables::upload(&device, &start)?;
            session.run(&tables.binding(), STEPS)?;
            let mut found = start.clone();
            tables.download(&mut found)?;
            assert_eq!(differing(&found, &expected), 0, "batched: {batched}");
            // The second time, the graph is replayed, and nothing is allocated.
            let allocated = device.memory_allocated();
            session.run(&tables.binding(), STEPS)?;
            tables.download(&mut found)?;
            assert_eq!(differing(&found, &after_two), 0, "batched: {batched}");
            assert_eq!((session.captures(), device.memory_allocated()), (1, allocated));
        }
        assert_eq!(device.memory_allocated(), 0, "all was freed");
        assert!(device.max_memory_allocated() > 0);
        device.reset_peak_memory_stats();
        assert_eq!(device.max_memory_allocated(), 0);
        Ok(())
    });
}

#[test]
fn batched_kernels_run_until_the_fused_one_is_compiled() {
    if !has_nvrtc() {
        return;
    }
    with_devices("steps::batched_kernels_run_until_the_fused_one_is_compiled", 1, |folder| {
        let device = Device::open(0)?;
        let cache = Cache::new(folder.join("cache"));
        let limits = device.properties()?.limits;
        let (planned, start) = tiny();
        let batched = Kernels::new(&device, planned.recipe(&limits, true), &cache)?;
        let fused = planned.recipe(&limits, false).compile_in_background(&cache)?;
        let mut session = Session::until(batched, fused);
        let tables = Tables::upload(&device, &start)?;
        let mut expected = start.clone();
        let begin = std::time::Instant::now();
        while !session.kernels().recipe().is_fused() {
            assert!(begin.elapsed().as_secs() < 120, "the kernel was never taken");
            session.run(&tables.binding(), STEPS)?;
            expected.run_on_cpu(&planned.plan);
        }
        let mut found = start.clone();
        tables.download(&mut found)?;
        assert_eq!(differing(&found, &expected), 0);
        Ok(())
    });
}

#[test]
fn tables_that_do_not_fit_are_errors() {
    if !has_nvrtc() {
        return;
    }
    with_devices("steps::tables_that_do_not_fit_are_errors", 2, |folder| {
        let device = Device::open(0)?;
        let (planned, start) = tiny();
        let recipe = planned.recipe(&device.properties()?.limits, false);
        let kernels = Kernels::new(&device, recipe, &Cache::new(folder.join("cache")))?;
        let tables = Tables::upload(&device, &start)?;
        let mut arena = Buffer::new(&device);
        let mut binding = tables.binding();
        let mut fails = |binding: &_, steps| {
            let result: Result<(), CudaError> = kernels.run(binding, &mut arena, 0, steps);
            result.map_err(|error| error.to_string()).expect_err("it does not fit")
        };
        binding.models = MODELS + 1;
        let expected = format!("rows of slot 0: the program needs {}, got {MODELS}", MODELS + 1);
        assert_eq!(fails(&binding, 1), expected);
        binding.models = MODELS;
        let error = fails(&binding, 100 * STEPS);
        assert!(error.starts_with("row bytes of input 0: the program needs "), "{error}");
        let removed = binding.slots.pop();
        assert!(fails(&binding, 1).starts_with("slots: the program needs "));
        binding.slots.extend(removed);
        let elsewhere = Tables::upload(&Device::open(1)?, &start)?;
        let error = fails(&elsewhere.binding(), 1);
        assert_eq!(error, "device of slot 0: the program needs 0, got 1");
        let mut found = start.clone();
        tables.download(&mut found)?;
        assert_eq!(found, start, "nothing ran");
        Ok(())
    });
}

/// Returns the numbers of some models.
fn rows(numbers: &Population, models: std::ops::Range<usize>) -> Population {
    let mut columns = numbers.columns.clone();
    for column in columns.iter_mut().flatten() {
        column.bytes = column.bytes[models.start * column.row..models.end * column.row].to_vec();
    }
    let scalars = numbers.scalars.chunks(numbers.models.max(1));
    let scalars = scalars.flat_map(|of_models| of_models[models.clone()].to_vec()).collect();
    Population { columns, scalars, models: models.len(), steps: numbers.steps }
}

fn on_two_devices(folder: &std::path::Path) -> Outcome {
    let cache = Cache::new(folder.join("cache"));
    let (planned, start) = tiny();
    let mut expected = start.clone();
    expected.run_on_cpu(&planned.plan);
    let parts = split(MODELS, 2);
    assert_eq!(parts, [0..16, 16..20]);
    let mut running = Vec::new();
    for (index, models) in parts.into_iter().enumerate() {
        let device: Arc<Device> = Device::open(index)?;
        let recipe = planned.recipe(&device.properties()?.limits, false);
        let mut session = Session::new(Kernels::new(&device, recipe, &cache)?);
        let part = rows(&start, models.clone());
        let tables = Tables::upload(&device, &part)?;
        session.run(&tables.binding(), STEPS)?;
        running.push((models, part, tables, session));
    }
    for (models, mut part, tables, _session) in running {
        tables.download(&mut part)?;
        assert_eq!(differing(&part, &rows(&expected, models)), 0);
    }
    Ok(())
}

#[test]
fn two_devices_learn_what_one_does() {
    if has_nvrtc() {
        with_devices("steps::two_devices_learn_what_one_does", 2, on_two_devices);
    }
}
