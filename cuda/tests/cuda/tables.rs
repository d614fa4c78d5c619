//! Rows on a device: they grow, move, and stay what they were.

use neurarch_cuda::table::{Buffer, Column};
use neurarch_cuda::{CudaError, Device};

use crate::child::with_devices;

/// Rows of 64 bytes, each full of its number.
fn numbered(rows: std::ops::Range<u8>) -> Vec<u8> {
    rows.flat_map(|row| [row; 64]).collect()
}

/// Returns the first byte of each row.
fn numbers(column: &Column) -> Result<Vec<u8>, CudaError> {
    let mut bytes = vec![0; column.rows() * column.row_bytes()];
    column.download(0, &mut bytes)?;
    Ok(bytes.chunks(64).map(|row| row[0]).collect())
}

#[test]
fn rows_grow_move_and_go() {
    with_devices("tables::rows_grow_move_and_go", 1, |_| {
        let device = Device::open(0)?;
        let mut column = Column::new(&device, 50);
        assert_eq!((column.row_bytes(), device.memory_allocated()), (64, 0));
        column.resize(4)?;
        column.upload(0, &numbered(1..5))?;
        column.resize(6)?;
        assert_eq!(column.buffer().capacity(), 8 * 64, "it has doubled");
        assert_eq!(numbers(&column)?, [1, 2, 3, 4, 0, 0]);
        column.upload(4, &numbered(5..7))?;
        column.copy_rows(0..3, 1)?;
        assert_eq!(numbers(&column)?, [1, 1, 2, 3, 5, 6]);
        column.copy_rows(1..5, 0)?;
        assert_eq!(numbers(&column)?, [1, 2, 3, 5, 5, 6]);
        column.swap_remove(1)?;
        assert_eq!(numbers(&column)?, [1, 6, 3, 5, 5]);
        // What was there before is not seen again.
        column.resize(6)?;
        assert_eq!(numbers(&column)?, [1, 6, 3, 5, 5, 0]);
        assert_eq!(device.memory_allocated(), 8 * 64);
        Ok(())
    });
}

#[test]
fn rows_beyond_the_end_are_errors_that_change_nothing() {
    with_devices("tables::rows_beyond_the_end_are_errors_that_change_nothing", 1, |_| {
        let device = Device::open(0)?;
        let mut column = Column::new(&device, 64);
        column.resize(2)?;
        column.upload(0, &numbered(1..3))?;
        let text = |result: Result<(), CudaError>| {
            result.map_err(|error| error.to_string()).expect_err("it fails")
        };
        let beyond = "rows 1..3 of a column that has 2";
        assert_eq!(text(column.upload(1, &numbered(3..5))), beyond);
        assert_eq!(text(column.copy_rows(0..2, 1)), beyond);
        assert_eq!(text(column.upload(0, &[0; 63])), "63 bytes of the host for 64 bytes of rows");
        assert_eq!(text(column.swap_remove(2)), "rows 2..3 of a column that has 2");
        let mut buffer = Buffer::new(&device);
        assert_eq!(text(buffer.upload(0, &[1])), "rows 0..1 of a column that has 0");
        assert_eq!(numbers(&column)?, [1, 2]);
        Ok(())
    });
}

#[test]
fn too_many_rows_are_out_of_memory() {
    with_devices("tables::too_many_rows_are_out_of_memory", 1, |_| {
        let device = Device::open(0)?;
        let mut column = Column::new(&device, 64);
        column.resize(3)?;
        column.upload(0, &numbered(7..10))?;
        let (free, total) = device.mem_get_info()?;
        let error = column.resize(1 << 30).map_err(|error| error.to_string());
        let bytes = 64_u64 << 30;
        let expected = format!(
            "CUDA out of memory: tried to allocate {bytes} bytes; {free} of {total} bytes are free"
        );
        assert_eq!(error, Err(expected));
        assert!(matches!(column.resize(usize::MAX), Err(CudaError::OutOfMemory { .. })));
        assert_eq!((column.rows(), numbers(&column)?), (3, vec![7, 8, 9]));
        Ok(())
    });
}

#[test]
fn much_goes_through_staging_memory_in_parts() {
    with_devices("tables::much_goes_through_staging_memory_in_parts", 1, |_| {
        let device = Device::open(0)?;
        let mut buffer = Buffer::new(&device);
        let bytes: Vec<u8> = (0..9_u32 << 20).map(|i| (i % 251) as u8).collect();
        buffer.resize(bytes.len() + 5)?;
        buffer.upload(5, &bytes)?;
        let mut found = vec![0; bytes.len()];
        buffer.download(5, &mut found)?;
        assert!(found == bytes);
        Ok(())
    });
}
