//! Barriers, divergence, asynchronous copies.

use neurarch_ptx::{FaultKind, Space};

use super::run::{mistake, run_block};

#[test]
fn branches_come_together_again() {
    let body = "setp.lt.u32 %p1, %r1, 10; @%p1 bra $small; mov.u32 %r2, 7; bra.uni $both;
        $small: mov.u32 %r2, 5; $both: cvt.u64.u32 %rd4, %r2; st.global.u64 [%rd1], %rd4;";
    let (out, counts) = run_block(body, &[0; 32]).unwrap();
    assert_eq!((out[9], out[10]), (5, 7));
    assert_eq!(counts.opcodes["st.global.u64"], 1, "one store for both sides");
}

#[test]
fn loops_run_as_often_as_each_lane_needs() {
    let body = "mov.u32 %r2, 0; $again: add.u32 %r2, %r2, %r1; add.u32 %r3, %r3, 1; setp.le.u32 %p1, %r3, %r1; @%p1 bra $again;
        cvt.u64.u32 %rd4, %r2; st.global.u64 [%rd1], %rd4;";
    let (out, _) = run_block(&format!("mov.u32 %r3, 0; {body}"), &[0; 40]).unwrap();
    assert_eq!(out, (0..40).map(|i| i * (i + 1)).collect::<Vec<_>>());
}

#[test]
fn a_table_of_branches_is_followed() {
    let body = "and.b32 %r2, %r1, 1; $table: .branchtargets $a, $b; brx.idx %r2, $table;
        $a: mov.u64 %rd4, 10; bra $end; $b: mov.u64 %rd4, 20; $end: st.global.u64 [%rd1], %rd4;";
    assert_eq!(run_block(body, &[0; 4]).unwrap().0, [10, 20, 10, 20]);
}

#[test]
fn a_barrier_that_half_a_warp_skips_is_divergence() {
    // Half of the warp has ended.
    let ended = "setp.ge.u32 %p1, %r1, 16; @%p1 exit; bar.sync 0;";
    assert_eq!(mistake(ended, 32).1, FaultKind::Divergence { barrier: 0 });
    // Each half waits at a barrier of its own.
    let apart =
        "setp.ge.u32 %p1, %r1, 16; @%p1 bra $else; bar.sync 0; bra $end; $else: bar.sync 0; $end:";
    assert_eq!(mistake(apart, 32).1, FaultKind::Divergence { barrier: 0 });
    // Which is allowed where the barrier is not `aligned`.
    assert!(run_block(&apart.replace("bar.sync", "barrier.sync"), &[0; 32]).is_ok());
}

#[test]
fn a_barrier_that_other_warps_never_reach_is_found() {
    let body = "setp.ge.u32 %p1, %r1, 32; @%p1 bra $end; bar.sync 0; $end:";
    assert_eq!(mistake(body, 96).1, FaultKind::Barrier { barrier: 0, waiting: 32, expected: 96 });
}

#[test]
fn barriers_of_some_warps_order_those_alone() {
    // Warps 0 and 1 meet at barrier 1; warp 2 takes no part.
    let meet = |reader: u32| {
        format!(
            "mul.lo.u32 %r2, %r1, 4; mov.u32 %r3, tile; add.u32 %r4, %r3, %r2; st.shared.u32 [%r4], %r1;
             setp.ge.u32 %p1, %r1, 64; @%p1 bra $else; bar.sync 1, 64; bra $end;
             $else: bar.sync 2, 32; $end:
             setp.ne.u32 %p2, %r1, {reader}; @%p2 bra $out; ld.shared.u32 %r5, [tile+4]; $out:"
        )
    };
    assert!(run_block(&meet(40), &[0; 96]).is_ok());
    let (_, kind) = mistake(&meet(70), 96);
    assert!(matches!(kind, FaultKind::Race { space: Space::Shared, .. }), "{kind:?}");
}

#[test]
fn who_arrives_without_waiting_is_seen_by_who_waits() {
    // Warp 0 produces and goes on; warp 1 waits and reads. What warp 0 writes after its arrival is not seen.
    let body = |later: &str| {
        format!(
            "mov.u32 %r3, tile; setp.ge.u32 %p1, %r1, 32; @%p1 bra $wait;
             shl.b32 %r2, %r1, 2; add.u32 %r4, %r3, %r2; st.shared.u32 [%r4], %r1; st.shared.u32 [%r4+512], %r1;
             bar.arrive 1, 64; {later} bra $end;
             $wait: bar.sync 1, 64; sub.u32 %r2, %r1, 32; shl.b32 %r2, %r2, 2; add.u32 %r4, %r3, %r2;
             ld.shared.u32 %r5, [%r4]; cvt.u64.u32 %rd4, %r5; st.global.u64 [%rd1], %rd4; $end:"
        )
    };
    assert_eq!(run_block(&body(""), &[0; 64]).unwrap().0[40], 8);
    assert!(run_block(&body("st.shared.u32 [%r4+512], 1;"), &[0; 64]).is_ok());
    assert!(matches!(mistake(&body("st.shared.u32 [%r4], 1;"), 64).1, FaultKind::Race { .. }));
}

#[test]
fn barriers_count_predicates() {
    let of = |op: &str| {
        let body = format!(
            "setp.lt.u32 %p1, %r1, 40; {op} cvt.u64.u32 %rd4, %r2; st.global.u64 [%rd1], %rd4;"
        );
        run_block(&body, &[0; 70]).unwrap().0
    };
    assert_eq!(of("bar.red.popc.u32 %r2, 0, %p1;"), [40; 70]);
    assert_eq!(of("bar.red.or.pred %p2, 0, %p1; selp.u32 %r2, 1, 0, %p2;"), [1; 70]);
    assert_eq!(of("bar.red.and.pred %p2, 0, %p1; selp.u32 %r2, 1, 0, %p2;"), [0; 70]);
}

#[test]
fn wrong_barriers_are_refused() {
    assert_eq!(
        mistake("bar.sync 16;", 32).1,
        FaultKind::BarrierOperand { barrier: 16, threads: 32 }
    );
    assert_eq!(
        mistake("bar.sync 1, 33;", 64).1,
        FaultKind::BarrierOperand { barrier: 1, threads: 33 }
    );
}

#[test]
fn a_shuffle_waits_for_the_lanes_that_it_names() {
    let together = "setp.lt.u32 %p1, %r1, 16; @%p1 bra $skip; add.u32 %r1, %r1, 1; $skip: shfl.sync.idx.b32 %r2, %r1, 0, 31, -1;";
    assert!(run_block(together, &[0; 32]).is_ok());
    let apart = "setp.lt.u32 %p1, %r1, 16; @%p1 bra $other; shfl.sync.idx.b32 %r2, %r1, 0, 31, -1; bra $end;
        $other: shfl.sync.idx.b32 %r2, %r1, 0, 31, -1; $end:";
    let (_, kind) = mistake(apart, 32);
    assert!(matches!(kind, FaultKind::Convergence { expected: u32::MAX, .. }), "{kind:?}");
    let (_, kind) =
        mistake("setp.lt.u32 %p1, %r1, 16; @%p1 shfl.sync.idx.b32 %r2, %r1, 20, 31, 0xffff;", 32);
    assert_eq!(kind, FaultKind::InactiveLane { lane: 20 });
}

#[test]
fn copies_are_done_after_their_wait() {
    let copy = |wait: &str| {
        format!(
            "mul.lo.u32 %r2, %r1, 8; mov.u32 %r3, tile; add.u32 %r4, %r3, %r2;
             cp.async.ca.shared.global [%r4], [%rd2], 8; cp.async.commit_group; {wait}
             ld.shared.u64 %rd4, [%r4]; st.global.u64 [%rd1], %rd4;"
        )
    };
    assert_eq!(run_block(&copy("cp.async.wait_group 0;"), &[5, 6, 7]).unwrap().0, [5, 6, 7]);
    assert_eq!(run_block(&copy("cp.async.wait_all;"), &[5, 6, 7]).unwrap().0, [5, 6, 7]);
    assert!(matches!(
        mistake(&copy("cp.async.wait_group 1;"), 3).1,
        FaultKind::Unwritten { space: Space::Shared, .. }
    ));
}

#[test]
fn all_who_read_may_come_without_waiting() {
    // Warps 0 and 1 read a word and say so; warp 2 overwrites it after both.
    let body = "setp.eq.u32 %p1, %r1, 64; @%p1 st.shared.u32 [tile], 1; bar.sync 0; setp.ge.u32 %p2, %r1, 64; @%p2 bra $write;
        ld.shared.u32 %r2, [tile]; bar.arrive 1, 96; bra $end; $write: bar.sync 1, 96; @%p1 st.shared.u32 [tile], 2; $end:";
    assert!(run_block(body, &[0; 96]).is_ok());
    let early = body.replace(
        "ld.shared.u32 %r2, [tile]; bar.arrive 1, 96;",
        "bar.arrive 1, 96; ld.shared.u32 %r2, [tile];",
    );
    assert!(matches!(mistake(&early, 96).1, FaultKind::Race { .. }));
}
