//! Each fault, planted: it is found, and where it is.

use neurarch_ptx::{
    Access, Argument, FaultKind, Launch, LaunchError, Memory, ParseErrorKind, Program, Space,
    Thread,
};

use super::run::{kernel, mistake, run_block};

#[test]
fn an_access_behind_an_allocation_is_found() {
    let (line, kind) = mistake("ld.global.u64 %rd4, [%rd2+8];", 40);
    // All threads but the last have a neighbor.
    let FaultKind::OutOfBounds { space: Space::Global, bytes: 8, .. } = kind else {
        panic!("{kind:?}")
    };
    assert_eq!(line, 10);
    let (_, kind) = mistake("st.shared.u32 [tile+4096], %r1;", 1);
    assert_eq!(kind, FaultKind::OutOfBounds { space: Space::Shared, address: 4096, bytes: 4 });
    let (_, kind) = mistake("mov.u64 %rd4, 0; ld.u32 %r2, [%rd4];", 1);
    assert_eq!(kind, FaultKind::OutOfBounds { space: Space::Global, address: 0, bytes: 4 });
}

#[test]
fn freed_memory_is_out_of_bounds() {
    let program = Program::parse(&kernel("ld.global.u64 %rd4, [%rd2];")).unwrap();
    let mut memory = Memory::new();
    let [a, b] = [memory.allocate_from(&[1_u64]), memory.allocate_from(&[1_u64])];
    memory.free(b).unwrap();
    assert!(memory.free(b).is_err());
    let launch = Launch { grid: [1, 1, 1], block: [1, 1, 1], shared_bytes: 0 };
    let error = program.launch("f", launch, &[a.into(), b.into()], &mut memory).unwrap_err();
    assert_eq!(
        error.fault().unwrap().kind,
        FaultKind::OutOfBounds { space: Space::Global, address: b, bytes: 8 }
    );
}

#[test]
fn a_misaligned_access_is_found() {
    let (_, kind) = mistake("mov.u32 %r2, tile; st.shared.u32 [%r2+2], %r1;", 1);
    assert_eq!(kind, FaultKind::Misaligned { space: Space::Shared, address: 2, bytes: 4 });
    let (_, kind) = mistake("ld.global.v4.u32 {%r2, %r3, %r4, %r5}, [%rd2];", 3);
    assert!(matches!(kind, FaultKind::Misaligned { bytes: 16, .. }), "{kind:?}");
}

#[test]
fn a_read_of_unwritten_memory_is_found() {
    let (_, kind) = mistake("ld.shared.u32 %r2, [tile+16];", 1);
    assert_eq!(kind, FaultKind::Unwritten { space: Space::Shared, address: 16, bytes: 4 });
    let (_, kind) = mistake("atom.shared.add.u32 %r2, [tile], 1;", 1);
    assert_eq!(kind, FaultKind::Unwritten { space: Space::Shared, address: 0, bytes: 4 });
    let half = "st.shared.u8 [tile], %r1; ld.shared.u16 %r2, [tile];";
    assert_eq!(
        mistake(half, 1).1,
        FaultKind::Unwritten { space: Space::Shared, address: 0, bytes: 2 }
    );
    let local = ".local .align 4 .b8 stack[8]; ld.local.u32 %r2, [stack+4];";
    assert_eq!(
        mistake(local, 1).1,
        FaultKind::Unwritten { space: Space::Local, address: 4, bytes: 4 }
    );
}

/// Each thread writes its word of shared memory and reads the word of another one.
fn exchange(between: &str, other: &str) -> String {
    format!(
        "mul.lo.u32 %r2, %r1, 4; mov.u32 %r3, tile; add.u32 %r4, %r3, %r2; st.shared.u32 [%r4], %r1;\n{between}\n\
         {other} mul.lo.u32 %r6, %r5, 4; add.u32 %r6, %r3, %r6;\nld.shared.u32 %r7, [%r6];\n\
         cvt.u64.u32 %rd4, %r7; st.global.u64 [%rd1], %rd4;"
    )
}

#[test]
fn a_race_between_warps_is_found_and_a_barrier_ends_it() {
    let other = "xor.b32 %r5, %r1, 32;";
    let error = run_block(&exchange("", other), &[0; 64]);
    // The second warp reads what the first one wrote; the first one read what was not there yet.
    assert!(matches!(error.unwrap_err().fault().unwrap().kind, FaultKind::Unwritten { .. }));
    // Written before, the race itself is seen.
    let written = exchange("", other)
        .replacen("st.shared", "st.shared.u32 [%r4+256], %r1; bar.sync 0;\nst.shared", 1)
        .replace("[%r6]", "[%r6+0]");
    let before = written.replace("[%r4+256]", "[%r4]");
    let error = run_block(&before, &[0; 64]).unwrap_err();
    let fault = error.fault().unwrap();
    let FaultKind::Race { space: Space::Shared, access, earlier, other: by, .. } = &fault.kind
    else {
        panic!("{fault}")
    };
    assert_eq!((*access, *earlier), (Access::Write, Access::Read));
    assert_eq!(*by, Some(Thread { block: [0; 3], thread: [0, 0, 0] }));
    assert!(
        fault
            .to_string()
            .contains("race: write of shared memory at 0x80 after a read by thread (0, 0, 0)"),
        "{fault}"
    );
    let (out, counts) = run_block(&exchange("bar.sync 0;", other), &[0; 64]).unwrap();
    assert_eq!((out[0], out[40], counts.barriers), (32, 8, 1));
}

#[test]
fn lanes_of_a_warp_race_without_a_barrier_of_the_warp() {
    let other = "xor.b32 %r5, %r1, 1;";
    let error = run_block(&exchange("", other), &[0; 32]).unwrap_err();
    let FaultKind::Race { access: Access::Read, earlier: Access::Write, other: by, .. } =
        error.fault().unwrap().kind
    else {
        panic!("{error}");
    };
    assert_eq!(by.unwrap().thread, [1, 0, 0]);
    assert!(run_block(&exchange("bar.warp.sync -1;", other), &[0; 32]).is_ok());
    // A shuffle orders no memory.
    let shuffled = exchange("shfl.sync.idx.b32 %r9, %r1, 0, 31, -1;", other);
    assert!(matches!(
        run_block(&shuffled, &[0; 32]).unwrap_err().fault().unwrap().kind,
        FaultKind::Race { .. }
    ));
}

#[test]
fn two_writes_race_and_atomics_do_not() {
    let (_, kind) = mistake("st.shared.u32 [tile], %r1;", 2);
    assert!(
        matches!(kind, FaultKind::Race { access: Access::Write, earlier: Access::Write, .. }),
        "{kind:?}"
    );
    let zero = "setp.eq.u32 %p1, %r1, 0; @%p1 st.shared.u32 [tile], 0; bar.sync 0;";
    assert!(run_block(&format!("{zero} red.shared.add.u32 [tile], 1;"), &[0; 64]).is_ok());
    let read = format!("{zero} red.shared.add.u32 [tile], 1; ld.shared.u32 %r2, [tile];");
    assert!(matches!(mistake(&read, 64).1, FaultKind::Race { access: Access::Read, .. }));
}

#[test]
fn neighbors_in_a_word_do_not_race() {
    let body = "mov.u32 %r3, tile; add.u32 %r4, %r3, %r1; st.shared.u8 [%r4], %r1; ld.shared.u8 %r5, [%r4];";
    assert!(run_block(body, &[0; 64]).is_ok());
}

/// Runs `grid` blocks of one thread whose kernel has `counter` at `%rd6` and `flag` at `%rd7`.
fn blocks(body: &str, grid: u32) -> Result<u32, LaunchError> {
    let text = kernel(&format!("ld.param.u64 %rd6, [out]; ld.param.u64 %rd7, [in]; {body}"));
    let program = Program::parse(&text).unwrap();
    let mut memory = Memory::new();
    let [a, b] = [memory.allocate_from(&[0_u32; 2]), memory.allocate_from(&[0_u32; 64])];
    let launch = Launch { grid: [grid, 1, 1], block: [1, 1, 1], shared_bytes: 0 };
    program.launch("f", launch, &[a.into(), b.into()], &mut memory)?;
    Ok(memory.read_vec(a, 1).unwrap()[0])
}

#[test]
fn blocks_race_in_global_memory() {
    let error = blocks("st.global.u32 [%rd6], 1;", 2).unwrap_err();
    let fault = error.fault().unwrap();
    assert_eq!(fault.thread.block, [1, 0, 0]);
    assert!(matches!(
        fault.kind,
        FaultKind::Race { space: Space::Global, other: Some(Thread { block: [0, 0, 0], .. }), .. }
    ));
    assert_eq!(blocks("red.global.add.u32 [%rd6], 3;", 5).unwrap(), 15);
}

#[test]
fn the_last_block_may_read_what_others_published() {
    // Each block writes its number; the last to count sums them.
    let sum = |fence: &str| {
        format!(
            "mov.u32 %r2, %ctaid.x; mul.wide.u32 %rd8, %r2, 4; add.s64 %rd9, %rd7, %rd8; st.global.u32 [%rd9], %r2;
             {fence} atom.global.add.u32 %r3, [%rd6], 1; mov.u32 %r4, %nctaid.x; sub.u32 %r4, %r4, 1;
             setp.ne.u32 %p1, %r3, %r4; @%p1 bra $end;
             ld.global.u32 %r5, [%rd7]; ld.global.u32 %r6, [%rd7+4]; ld.global.u32 %r7, [%rd7+8];
             add.u32 %r5, %r5, %r6; add.u32 %r5, %r5, %r7; atom.global.exch.b32 %r8, [%rd6], %r5;
             $end:"
        )
    };
    assert_eq!(blocks(&sum("membar.gl;"), 3).unwrap(), 3);
    let error = blocks(&sum(""), 3).unwrap_err();
    assert!(
        matches!(error.fault().unwrap().kind, FaultKind::Race { space: Space::Global, .. }),
        "{error}"
    );
}

#[test]
fn a_later_launch_sees_everything() {
    let program =
        Program::parse(&kernel("st.global.u64 [%rd1], %rd3; ld.global.u64 %rd4, [%rd2];")).unwrap();
    let mut memory = Memory::new();
    let a = memory.allocate_from(&[0_u64; 64]);
    let b = memory.allocate_from(&[0_u64; 64]);
    let launch = Launch { grid: [1, 1, 1], block: [64, 1, 1], shared_bytes: 0 };
    for [x, y] in [[a, b], [b, a], [a, b]] {
        program.launch("f", launch, &[x.into(), y.into()], &mut memory).unwrap();
    }
}

#[test]
fn launches_that_cannot_be_say_why() {
    let program = Program::parse(&kernel("")).unwrap();
    let mut memory = Memory::new();
    let mut launch = |name: &str, threads: u32, shared_bytes: usize, arguments: &[Argument]| {
        let launch = Launch { grid: [1, 1, 1], block: [threads, 1, 1], shared_bytes };
        program.launch(name, launch, arguments, &mut memory).unwrap_err().to_string()
    };
    let two = [Argument::from(0_u64), Argument::from(0_u64)];
    assert_eq!(launch("g", 1, 0, &two), "no kernel `g`");
    assert_eq!(launch("f", 1, 0, &two[..1]), "`f` takes 2 arguments, got 1");
    assert_eq!(
        launch("f", 1, 0, &[two[0].clone(), 1_u32.into()]),
        "argument 1 of `f` has 8 bytes, got 4"
    );
    assert_eq!(launch("f", 2048, 0, &two), "`f` runs in blocks of 1 to 1024 threads, got 2048");
    assert_eq!(
        launch("f", 1, 1 << 20, &two),
        "`f` needs 1052672 bytes of shared memory, a block has at most 232448"
    );
}

#[test]
fn what_is_not_supported_is_named() {
    let error = |body: &str| Program::parse(&kernel(body)).unwrap_err();
    let mma =
        error("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%f1}, {%f2}, {%f3}, {%f4};");
    assert!(
        matches!(&mma.kind, ParseErrorKind::Unsupported(word) if word.starts_with("mma.sync")),
        "{mma}"
    );
    assert_eq!(
        error("\nadd.odd.f32 %f1, %f2, %f3;").to_string(),
        "line 11: `add.odd.f32` is not supported"
    );
    assert_eq!(error("add.f32 %f1, %f2;").to_string(), "line 10: wrong operands of `add.f32`");
    assert_eq!(error("add.f32 %f1, %f2, %g3;").to_string(), "line 10: unknown name `%g3`");
    assert_eq!(
        error(".shared .b8 big[9999999];").to_string(),
        "line 10: bytes of shared memory: 10004095, at most 233472"
    );
    let end = Program::parse(".entry f() { ").unwrap_err();
    assert_eq!(end.kind, ParseErrorKind::End);
}

#[test]
fn traps_and_endless_loops_end() {
    assert_eq!(mistake("trap;", 1).1, FaultKind::Trap);
    let program = Program::parse(&kernel("$again: bra $again;")).unwrap();
    let mut memory = Memory::new();
    let options = neurarch_ptx::Options { limit: 1000, ..Default::default() };
    let launch = Launch { grid: [1, 1, 1], block: [1, 1, 1], shared_bytes: 0 };
    let error =
        program.launch_with("f", launch, &[0_u64.into(), 0_u64.into()], &mut memory, options);
    assert_eq!(error.unwrap_err().fault().unwrap().kind, FaultKind::InstructionLimit);
    let recursion =
        kernel("call.uni g;").replacen(".visible", ".func g() { call.uni g; ret; }\n.visible", 1);
    let program = Program::parse(&recursion).unwrap();
    let error = program.launch("f", launch, &[0_u64.into(), 0_u64.into()], &mut memory);
    assert_eq!(error.unwrap_err().fault().unwrap().kind, FaultKind::StackOverflow);
    assert_eq!(mistake("call.uni elsewhere;", 1).1, FaultKind::NoBody);
}
