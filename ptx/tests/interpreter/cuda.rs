//! CUDA C++ through NVRTC: kernels of the kinds that a training step has.

use std::time::Instant;

use neurarch_ptx::{Argument, Counts, FaultKind, Launch, LaunchError, Memory, Program};

use super::compiler::compile;

fn program(definitions: &[&str]) -> Option<Program> {
    let text = compile(include_str!("../kernels/kernels.cu"), definitions)?;
    Some(Program::parse(&text).unwrap_or_else(|error| {
        panic!("{error}: {}", text.lines().nth(error.line as usize - 1).unwrap_or_default())
    }))
}

fn launch(grid: [u32; 3], block: [u32; 3]) -> Launch {
    Launch { grid, block, shared_bytes: 0 }
}

/// Numbers between -1 and 1.
fn numbers(len: usize) -> Vec<f32> {
    let mut state = 1_u32;
    let next = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / 8_388_608.0 - 1.0
    };
    (0..len).map(next).collect()
}

/// Multiplies a matrix of 33 x 40 and one of 40 x 20.
fn gemm(program: &Program) -> Result<(Vec<f32>, Counts), LaunchError> {
    let (m, n, k) = (33, 20, 40);
    let mut memory = Memory::new();
    let a = memory.allocate_from(&numbers(m * k));
    let b = memory.allocate_from(&numbers(k * n));
    let c = memory.allocate(m * n * 4);
    let sizes = [m, n, k].map(|n| Argument::from(n as i32));
    let arguments: Vec<_> = [a, b, c].map(Argument::from).into_iter().chain(sizes).collect();
    let counts = program.launch("gemm", launch([2, 3, 1], [16, 16, 1]), &arguments, &mut memory)?;
    Ok((memory.read_vec(c, m * n).unwrap(), counts))
}

#[test]
fn a_tiled_product_has_the_bits_of_its_chain() {
    let Some(program) = program(&[]) else { return };
    let (c, counts) = gemm(&program).unwrap();
    let (a, b) = (numbers(33 * 40), numbers(40 * 20));
    for (i, c) in c.iter().enumerate() {
        let (row, col) = (i / 20, i % 20);
        let sum = (0..40).fold(0.0_f32, |sum, k| a[row * 40 + k].mul_add(b[k * 20 + col], sum));
        assert_eq!(c.to_bits(), sum.to_bits());
    }
    // Six blocks of eight warps, three tiles: all barriers, and the products of all tiles.
    assert_eq!(counts.barriers, 6 * 3 * 2);
    assert_eq!(counts.opcodes["fma.rn.f32"], 6 * 8 * 3 * 16);
    assert!(counts.to_string().contains("fma.rn.f32"));
}

/// Runs the softmax of three rows.
fn softmax(program: &Program, kernel: &str, n: usize) -> Result<Vec<f32>, LaunchError> {
    let mut memory = Memory::new();
    let x = memory.allocate_from(&numbers(3 * n));
    let y = memory.allocate(3 * n * 4);
    let arguments = [x.into(), y.into(), (n as i32).into()];
    program.launch(kernel, launch([3, 1, 1], [128, 1, 1]), &arguments, &mut memory)?;
    Ok(memory.read_vec(y, 3 * n).unwrap())
}

#[test]
fn rows_are_normalized() {
    let Some(program) = program(&[]) else { return };
    let n = 300;
    let y = softmax(&program, "softmax", n).unwrap();
    let x = numbers(3 * n);
    for (x, y) in x.chunks(n).zip(y.chunks(n)) {
        let sum: f64 = x.iter().map(|x| f64::from(*x).exp()).sum();
        for (x, y) in x.iter().zip(y) {
            assert!((f64::from(*x).exp() / sum - f64::from(*y)).abs() < 1e-8);
        }
    }
    for row in softmax(&program, "layer_norm", n).unwrap().chunks(n) {
        let mean = row.iter().sum::<f32>() / n as f32;
        let variance = row.iter().map(|y| y * y).sum::<f32>() / n as f32;
        assert!(mean.abs() < 1e-5 && (variance - 1.0).abs() < 1e-3, "{mean} {variance}");
    }
}

#[test]
fn each_barrier_that_is_left_out_is_missed() {
    for dropped in 0..6 {
        let Some(program) = program(&[&format!("DROP={dropped}")]) else { return };
        let result = match dropped {
            0 | 1 => gemm(&program).map(|_| ()),
            5 => convolve(&program).map(|_| ()),
            // The last barrier of a sum is needed where another one follows.
            _ => softmax(&program, "layer_norm", 300).map(|_| ()),
        };
        let Err(error) = result else { panic!("barrier {dropped} is not missed") };
        let kind = &error.fault().expect("a mistake of the kernel").kind;
        assert!(
            matches!(kind, FaultKind::Race { .. } | FaultKind::Unwritten { .. }),
            "{dropped}: {error}"
        );
    }
}

#[test]
fn random_numbers_are_philoxs() {
    let Some(program) = program(&[]) else { return };
    let mut memory = Memory::new();
    let out = memory.allocate(64 * 16);
    program
        .launch("philox", launch([2, 1, 1], [32, 1, 1]), &[out.into(), 0_u64.into()], &mut memory)
        .unwrap();
    // The known answer of Random123 for counter 0 and key 0.
    assert_eq!(
        memory.read_vec::<u32>(out, 4).unwrap(),
        [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]
    );
}

#[test]
fn gradients_of_an_embedding_are_added_up() {
    let Some(program) = program(&[]) else { return };
    let (rows, width) = (50, 8);
    let index: Vec<i64> = (0..rows as i64).map(|i| i * 7 % 5).collect();
    let dy: Vec<f32> = (0..rows * width).map(|i| (i % 13) as f32).collect();
    let mut memory = Memory::new();
    let (a, b) = (memory.allocate_from(&dy), memory.allocate_from(&index));
    let dw = memory.allocate_from(&vec![0.0_f32; 5 * width]);
    let arguments = [a.into(), b.into(), dw.into(), (rows as i32).into(), (width as i32).into()];
    program.launch("scatter", launch([2, 1, 1], [64, 1, 1]), &arguments, &mut memory).unwrap();
    let mut expected = vec![0.0; 5 * width];
    dy.iter()
        .enumerate()
        .for_each(|(i, dy)| expected[index[i / width] as usize * width + i % width] += dy);
    assert_eq!(memory.read_vec::<f32>(dw, 5 * width).unwrap(), expected);
}

fn convolve(program: &Program) -> Result<Vec<f32>, LaunchError> {
    let (height, width) = (12, 10);
    let mut memory = Memory::new();
    let x = memory.allocate_from(&numbers(height * width));
    let w = memory.allocate_from(&numbers(9));
    let y = memory.allocate((height - 2) * (width - 2) * 4);
    let arguments = [x.into(), w.into(), y.into(), (height as i32).into(), (width as i32).into()];
    let launch = Launch { grid: [1, 1, 1], block: [64, 1, 1], shared_bytes: height * width * 4 };
    program.launch("convolve", launch, &arguments, &mut memory)?;
    Ok(memory.read_vec(y, (height - 2) * (width - 2)).unwrap())
}

#[test]
fn a_convolution_reads_dynamic_shared_memory() {
    let Some(program) = program(&[]) else { return };
    let y = convolve(&program).unwrap();
    let (x, w) = (numbers(120), numbers(9));
    let at = |r: usize, c: usize| {
        (0..9).fold(0.0_f32, |sum, i| w[i].mul_add(x[(r + i / 3) * 10 + c + i % 3], sum))
    };
    assert!(y.iter().enumerate().all(|(i, y)| *y == at(i / 8, i % 8)));
}

#[test]
fn halves_of_neighbors_do_not_race() {
    let Some(program) = program(&[]) else { return };
    let halves: Vec<half::f16> = (0..70).map(|i| half::f16::from_f32(i as f32)).collect();
    let mut memory = Memory::new();
    let x = memory.allocate_from(&halves);
    program
        .launch(
            "scale_halves",
            launch([3, 1, 1], [32, 1, 1]),
            &[x.into(), 0.1_f32.into(), 70.into()],
            &mut memory,
        )
        .unwrap();
    let y: Vec<half::f16> = memory.read_vec(x, 70).unwrap();
    assert!(y.iter().enumerate().all(|(i, y)| *y == half::f16::from_f32(i as f32 * 0.1)));
}

#[test]
fn the_devices_functions_are_near_rusts() {
    let Some(program) = program(&[]) else { return };
    let x: Vec<f64> = numbers(32).into_iter().map(|x| f64::from(x) * 3.0).collect();
    let mut memory = Memory::new();
    let (a, y) = (memory.allocate_from(&x), memory.allocate(32 * 8 * 8));
    program
        .launch("functions", launch([1, 1, 1], [32, 1, 1]), &[a.into(), y.into()], &mut memory)
        .unwrap();
    let y: Vec<f64> = memory.read_vec(y, 32 * 8).unwrap();
    for (a, y) in x.iter().zip(y.chunks(8)) {
        let exact = [a.exp(), (a.abs() + 1.0).ln(), a.sin(), a.tanh(), a.abs().powf(1.75)];
        for (exact, y) in exact.iter().zip(y) {
            assert!((exact - y).abs() <= 4e-15 * exact.abs().max(1e-3), "{a}: {exact} {y}");
        }
        // Large arguments take the slow path; single precision.
        assert!((f64::from(*a as f32 * 1e6).sin() - y[6]).abs() < 3e-7, "{a}: {}", y[6]);
        assert!(
            (f64::from(a.abs() as f32).ln_1p() - y[7]).abs() < 2e-7 * y[7].max(1.0),
            "{a}: {}",
            y[7]
        );
    }
}

/// Prints how long a warp instruction takes, with all checks.
#[test]
#[expect(clippy::print_stderr, reason = "a measurement, which says what it saw")]
fn speed_is_measured() {
    let Some(program) = program(&[]) else { return };
    let n = 20_000;
    let mut memory = Memory::new();
    let state: Vec<_> = (0..4)
        .map(|_| memory.allocate_from(&numbers(n).iter().map(|x| x.abs()).collect::<Vec<_>>()))
        .collect();
    let arguments: Vec<Argument> = state
        .into_iter()
        .map(Argument::from)
        .chain([0.01_f32, 0.1, 0.001].map(Argument::from))
        .chain([Argument::from(n as i32)])
        .collect();
    for (name, run) in [("gemm", None), ("adam", Some(&arguments))] {
        let start = Instant::now();
        let counts = match run {
            Some(arguments) => program
                .launch(name, launch([157, 1, 1], [128, 1, 1]), arguments, &mut memory)
                .unwrap(),
            None => gemm(&program).unwrap().1,
        };
        let each = start.elapsed().as_nanos() as f64 / counts.warp_instructions as f64;
        eprintln!("{name}: {} warp instructions, {each:.0} ns each", counts.warp_instructions);
    }
}
