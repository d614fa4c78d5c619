//! Each family of opcodes against Rust's own arithmetic, or against values of the PTX manual.

use proptest::prelude::*;

use super::run::run_block;

/// Computes `out = op(in)` of numbers in pairs: `a` is in the lower half of each input, `b` in the upper one.
fn pairs(op: &str, numbers: &[(u32, u32)]) -> Vec<u64> {
    let body = format!(
        "ld.global.u64 %rd10, [%rd2]; mov.b64 {{%r10, %r11}}, %rd10; mov.b32 %f10, %r10; mov.b32 %f11, %r11;\n\
         mov.u64 %rd12, 0; mov.u32 %r12, 0;\n{op}\nst.global.u64 [%rd1], %rd12;"
    );
    let numbers: Vec<u64> =
        numbers.iter().map(|&(a, b)| u64::from(b) << 32 | u64::from(a)).collect();
    run_block(&body, &numbers).unwrap_or_else(|error| panic!("{op}: {error}")).0
}

/// As `pairs`, of an instruction whose result is `%r12`.
fn narrow(op: &str, numbers: &[(u32, u32)]) -> Vec<u32> {
    let op = format!("{op} cvt.u64.u32 %rd12, %r12;");
    pairs(&op, numbers).into_iter().map(|x| x as u32).collect()
}

fn single(op: &str, numbers: &[(f32, f32)]) -> Vec<f32> {
    let numbers: Vec<_> = numbers.iter().map(|(a, b)| (a.to_bits(), b.to_bits())).collect();
    let op = format!("{op} mov.b32 %r12, %f12;");
    narrow(&op, &numbers).into_iter().map(f32::from_bits).collect()
}

fn equal(a: f32, b: f32) -> bool {
    a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan()
}

proptest! {
    #[test]
    fn single_precision_is_rounded_as_rust_rounds(numbers in proptest::collection::vec(any::<(f32, f32)>(), 1..40)) {
        type Binary = fn(f32, f32) -> f32;
        let cases: [(&str, Binary); 11] = [
            ("add.f32 %f12, %f10, %f11;", |a, b| a + b),
            ("sub.f32 %f12, %f10, %f11;", |a, b| a - b),
            ("mul.rn.f32 %f12, %f10, %f11;", |a, b| a * b),
            ("fma.rn.f32 %f12, %f10, %f11, %f10;", |a, b| a.mul_add(b, a)),
            ("div.rn.f32 %f12, %f10, %f11;", |a, b| a / b),
            ("sqrt.rn.f32 %f12, %f10;", |a, _| a.sqrt()),
            ("rcp.rn.f32 %f12, %f10;", |a, _| 1.0 / a),
            ("neg.f32 %f12, %f10;", |a, _| -a),
            ("abs.f32 %f12, %f10;", |a, _| a.abs()),
            ("copysign.f32 %f12, %f10, %f11;", |a, b| b.copysign(a)),
            ("cvt.f64.f32 %fd1, %f10; cvt.f64.f32 %fd2, %f11; div.rn.f64 %fd3, %fd1, %fd2; cvt.rn.f32.f64 %f12, %fd3;",
                |a, b| (f64::from(a) / f64::from(b)) as f32),
        ];
        for (op, expected) in cases {
            for (y, (a, b)) in single(op, &numbers).into_iter().zip(&numbers) {
                prop_assert!(equal(y, expected(*a, *b)), "{} of {} and {}: {}, not {}", op, a, b, y, expected(*a, *b));
            }
        }
    }

    #[test]
    fn integers_are_as_rusts(numbers in proptest::collection::vec(any::<(u32, u32)>(), 1..40)) {
        type Binary = fn(u32, u32) -> u32;
        let cases: [(&str, Binary); 26] = [
            ("add.s32 %r12, %r10, %r11;", u32::wrapping_add),
            ("sub.s32 %r12, %r10, %r11;", u32::wrapping_sub),
            ("mul.lo.s32 %r12, %r10, %r11;", u32::wrapping_mul),
            ("mul.hi.u32 %r12, %r10, %r11;", |a, b| ((u64::from(a) * u64::from(b)) >> 32) as u32),
            ("mul.hi.s32 %r12, %r10, %r11;", |a, b| ((i64::from(a as i32) * i64::from(b as i32)) >> 32) as u32),
            ("mad.lo.s32 %r12, %r10, %r11, %r10;", |a, b| a.wrapping_mul(b).wrapping_add(a)),
            ("mad.hi.u32 %r12, %r10, %r11, %r10;", |a, b| (((u64::from(a) * u64::from(b)) >> 32) as u32).wrapping_add(a)),
            ("div.u32 %r12, %r10, %r11;", |a, b| a.checked_div(b).unwrap_or(u32::MAX)),
            ("div.s32 %r12, %r10, %r11;", |a, b| if b == 0 { u32::MAX } else { (a as i32).wrapping_div(b as i32) as u32 }),
            ("rem.u32 %r12, %r10, %r11;", |a, b| a.checked_rem(b).unwrap_or(a)),
            ("rem.s32 %r12, %r10, %r11;", |a, b| if b == 0 { a } else { (a as i32).wrapping_rem(b as i32) as u32 }),
            ("min.s32 %r12, %r10, %r11;", |a, b| (a as i32).min(b as i32) as u32),
            ("max.u32 %r12, %r10, %r11;", u32::max),
            ("and.b32 %r12, %r10, %r11;", |a, b| a & b),
            ("xor.b32 %r12, %r10, %r11;", |a, b| a ^ b),
            ("not.b32 %r12, %r10;", |a, _| !a),
            ("shl.b32 %r12, %r10, %r11;", |a, b| a.checked_shl(b).unwrap_or(0)),
            ("shr.u32 %r12, %r10, %r11;", |a, b| a.checked_shr(b).unwrap_or(0)),
            ("shr.s32 %r12, %r10, %r11;", |a, b| ((a as i32) >> b.min(31)) as u32),
            ("shf.l.wrap.b32 %r12, %r10, %r10, %r11;", |a, b| a.rotate_left(b & 31)),
            ("shf.r.wrap.b32 %r12, %r10, %r10, %r11;", |a, b| a.rotate_right(b & 31)),
            ("popc.b32 %r12, %r10;", |a, _| a.count_ones()),
            ("clz.b32 %r12, %r10;", |a, _| a.leading_zeros()),
            ("brev.b32 %r12, %r10;", |a, _| a.reverse_bits()),
            ("lop3.b32 %r12, %r10, %r11, %r10, 0x96;", |a, b| a ^ b ^ a),
            ("prmt.b32 %r12, %r10, %r11, 0x0123;", |a, _| a.swap_bytes()),
        ];
        for (op, expected) in cases {
            for (y, &(a, b)) in narrow(op, &numbers).into_iter().zip(&numbers) {
                prop_assert_eq!(y, expected(a, b), "{} of {} and {}", op, a, b);
            }
        }
    }

    #[test]
    fn sixty_four_bits_are_made_of_halves(numbers in proptest::collection::vec(any::<(u32, u32)>(), 1..40)) {
        let wide = |op: &str| pairs(op, &numbers);
        let product = wide("mul.wide.u32 %rd12, %r10, %r11;");
        let signed = wide("mul.wide.s32 %rd12, %r10, %r11;");
        let high = wide("mul.hi.u64 %rd12, %rd10, %rd10;");
        let carried = wide("add.cc.u32 %r13, %r10, %r11; addc.u32 %r14, %r10, 0; mov.b64 %rd12, {%r13, %r14};");
        for (i, &(a, b)) in numbers.iter().enumerate() {
            let both = u128::from(u64::from(b) << 32 | u64::from(a));
            prop_assert_eq!(product[i], u64::from(a) * u64::from(b));
            prop_assert_eq!(signed[i], (i64::from(a as i32) * i64::from(b as i32)) as u64);
            prop_assert_eq!(high[i], ((both * both) >> 64) as u64);
            prop_assert_eq!(carried[i], (u64::from(a) << 32 | u64::from(a)).wrapping_add(u64::from(b)));
        }
    }

    #[test]
    fn halves_are_rounded_to_nearest(numbers in proptest::collection::vec(any::<(f32, f32)>(), 1..40)) {
        use half::{bf16, f16};
        let bits: Vec<_> = numbers.iter().map(|(a, b)| (a.to_bits(), b.to_bits())).collect();
        let f = narrow("cvt.rn.f16.f32 %rs1, %f10; mov.b32 %r12, {%rs1, 0};", &bits);
        let b = narrow("cvt.rn.bf16.f32 %rs1, %f10; mov.b32 %r12, {%rs1, 0};", &bits);
        let pair = narrow("cvt.rn.f16x2.f32 %r12, %f11, %f10;", &bits);
        for (i, (x, upper)) in numbers.iter().enumerate() {
            prop_assert_eq!(f[i], u32::from(f16::from_f32(*x).to_bits()));
            prop_assert_eq!(b[i], u32::from(bf16::from_f32(*x).to_bits()));
            prop_assert_eq!(pair[i], f[i] | u32::from(f16::from_f32(*upper).to_bits()) << 16);
        }
    }

    #[test]
    fn floats_become_the_integers_that_rust_makes_of_them(numbers in proptest::collection::vec(any::<(f32, f32)>(), 1..40)) {
        let bits: Vec<_> = numbers.iter().map(|(a, b)| (a.to_bits(), b.to_bits())).collect();
        let zero = narrow("cvt.rzi.s32.f32 %r12, %f10;", &bits);
        let unsigned = narrow("cvt.rzi.u32.f32 %r12, %f10;", &bits);
        let near = narrow("cvt.rni.s32.f32 %r12, %f10;", &bits);
        for (i, (x, _)) in numbers.iter().enumerate() {
            prop_assert_eq!(zero[i] as i32, *x as i32);
            prop_assert_eq!(unsigned[i], *x as u32);
            prop_assert_eq!(near[i] as i32, x.round_ties_even() as i32);
        }
    }
}

#[test]
fn comparisons_know_nan() {
    let numbers = [(1.0, 2.0), (2.0, 2.0), (3.0, 2.0), (f32::NAN, 2.0), (-0.0, 0.0)];
    let bits: Vec<_> = numbers.map(|(a, b): (f32, f32)| (a.to_bits(), b.to_bits())).into();
    let holds = |relation: &str| {
        let op = format!("setp.{relation}.f32 %p1, %f10, %f11; selp.u32 %r12, 1, 0, %p1;");
        narrow(&op, &bits)
    };
    assert_eq!(holds("lt"), [1, 0, 0, 0, 0]);
    assert_eq!(holds("ltu"), [1, 0, 0, 1, 0]);
    assert_eq!(holds("eq"), [0, 1, 0, 0, 1]);
    assert_eq!(holds("ne"), [1, 0, 1, 0, 0]);
    assert_eq!(holds("neu"), [1, 0, 1, 1, 0]);
    assert_eq!(holds("ge"), [0, 1, 1, 0, 1]);
    assert_eq!(holds("num"), [1, 1, 1, 0, 1]);
    assert_eq!(holds("nan"), [0, 0, 0, 1, 0]);
    let both = "setp.lt.and.f32 %p1|%p2, %f10, %f11, %p3; selp.u32 %r12, 1, 0, %p2;";
    let both = format!("setp.ne.u32 %p3, %r11, 0; {both}");
    assert_eq!(narrow(&both, &bits), [0, 1, 1, 1, 0]);
}

#[test]
fn minima_and_nan_are_as_the_manual_says() {
    let numbers = [(1.0, f32::NAN), (f32::NAN, 1.0), (-0.0, 0.0), (0.0, -0.0)];
    let least = single("min.f32 %f12, %f10, %f11;", &numbers);
    assert_eq!(
        least.iter().map(|x| x.to_bits()).collect::<Vec<_>>(),
        [0x3f80_0000, 0x3f80_0000, 0x8000_0000, 0x8000_0000]
    );
    let nan = single("max.NaN.f32 %f12, %f10, %f11;", &numbers);
    assert!(nan[0].is_nan() && nan[1].is_nan() && nan[2].to_bits() == 0);
    // Arithmetic has one NaN.
    assert_eq!(
        single("sub.f32 %f12, %f10, %f11;", &[(f32::INFINITY, f32::INFINITY)])[0].to_bits(),
        0x7fff_ffff
    );
    assert_eq!(
        single("add.sat.f32 %f12, %f10, %f11;", &[(0.5, 3.0), (-1.0, 0.5), (f32::NAN, 0.0)]),
        [1.0, 0.0, 0.0]
    );
    assert_eq!(single("mul.ftz.f32 %f12, %f10, %f11;", &[(1e-20, 1e-20)])[0].to_bits(), 0);
}

#[test]
fn fields_are_taken_and_put() {
    let of = |op: &str, a: u32, b: u32| narrow(op, &[(a, b)])[0];
    assert_eq!(of("bfe.u32 %r12, %r10, 4, 8;", 0xabcd_ef12, 0), 0xf1);
    assert_eq!(of("bfe.s32 %r12, %r10, 4, 8;", 0xabcd_ef12, 0), 0xffff_fff1);
    assert_eq!(of("bfi.b32 %r12, %r10, %r11, 8, 8;", 0xff, 0x1234_5678), 0x1234_ff78);
    assert_eq!(of("bfind.u32 %r12, %r10;", 0x0010_0000, 0), 20);
    assert_eq!(of("bfind.u32 %r12, %r10;", 0, 0), u32::MAX);
    assert_eq!(of("sad.u32 %r12, %r10, %r11, 1;", 5, 9), 5);
    assert_eq!(of("dp4a.u32.u32 %r12, %r10, %r11, 7;", 0x0102_0304, 0x0101_0101), 17);
    assert_eq!(of("bmsk.clamp.b32 %r12, %r10, %r11;", 4, 8), 0xff0);
    assert_eq!(of("slct.u32.s32 %r12, 1, 2, %r10;", 0xffff_fff0, 0), 2);
    assert_eq!(of("cnot.b32 %r12, %r10;", 0, 0), 1);
    assert_eq!(of("cvt.s32.s8 %r12, %r10;", 0x80, 0), 0xffff_ff80);
    assert_eq!(of("cvt.sat.u8.s32 %r12, %r10;", 300, 0), 255);
    assert_eq!(of("prmt.b32.rc16 %r12, %r10, %r11, 1;", 0xabcd_ef12, 0), 0xabcd_abcd);
}

#[test]
fn halves_compute_with_one_rounding() {
    use half::f16;
    let two = |a: f32, b: f32| {
        u32::from(f16::from_f32(a).to_bits()) | u32::from(f16::from_f32(b).to_bits()) << 16
    };
    let of = |op: &str| narrow(op, &[(two(1.5, 2.25), two(0.1, 1000.0))])[0];
    assert_eq!(of("add.f16x2 %r12, %r10, %r11;"), two(1.5 + f16::from_f32(0.1).to_f32(), 1002.25));
    assert_eq!(
        of("fma.rn.f16x2 %r12, %r10, %r11, %r10;"),
        two(f16::from_f32(0.1).to_f32().mul_add(1.5, 1.5), 2252.25)
    );
    assert_eq!(of("neg.f16x2 %r12, %r10;"), two(-1.5, -2.25));
    let compared =
        "mov.b32 {%rs1, %rs2}, %r10; setp.gt.f16 %p1, %rs2, %rs1; selp.u32 %r12, 1, 0, %p1;";
    assert_eq!(of(compared), 1);
}

#[test]
fn vectors_cross_memory_whole() {
    let body = "ld.global.v2.u32 {%r10, %r11}, [%rd2];
        mul.lo.u32 %r12, %r1, 16; mov.u32 %r13, tile; add.u32 %r14, %r13, %r12;
        st.shared.v4.u32 [%r14], {%r10, %r11, %r11, %r10};
        ld.shared.v2.u64 {%rd10, %rd11}, [%r14];
        ld.shared.u8 %rs1, [%r14+3]; ld.shared.s8 %r15, [%r14+3];
        xor.b64 %rd12, %rd10, %rd11;
        cvt.u64.u32 %rd13, %r15; shl.b64 %rd13, %rd13, 32; xor.b64 %rd12, %rd12, %rd13;
        st.global.u64 [%rd1], %rd12;";
    let (out, counts) = run_block(body, &[0x1122_3344_f566_7788, 1]).unwrap();
    let both = 0x1122_3344_u64 ^ 0xf566_7788;
    assert_eq!(out[0], (both << 32 | both) ^ 0xffff_fff5 << 32);
    assert_eq!(counts.opcodes["st.shared.v4.u32"], 1);
}

#[test]
fn calls_pass_and_return_through_parameters() {
    let text = super::run::kernel(
        "{ .param .b64 a; .param .b64 r; ld.global.u64 %rd10, [%rd2]; st.param.b64 [a], %rd10;
           call.uni (r), twice, (a); ld.param.b64 %rd11, [r]; st.global.u64 [%rd1], %rd11; }",
    );
    let function = ".func (.param .b64 out) twice(.param .b64 x) { .reg .b64 %rd<3>; .local .align 8 .b8 stack[8]; .reg .b64 %SP;
        mov.b64 %SP, stack; ld.param.u64 %rd0, [x]; st.local.u64 [%SP], %rd0; ld.local.u64 %rd1, [%SP];
        add.u64 %rd2, %rd0, %rd1; st.param.b64 [out], %rd2; ret; }\n";
    let text = text.replacen(".visible", &format!("{function}.visible"), 1);
    let program = neurarch_ptx::Program::parse(&text).unwrap();
    let mut memory = neurarch_ptx::Memory::new();
    let input = memory.allocate_from(&[21_u64, 4]);
    let output = memory.allocate(16);
    let launch = neurarch_ptx::Launch { grid: [1, 1, 1], block: [2, 1, 1], shared_bytes: 0 };
    program.launch("f", launch, &[output.into(), input.into()], &mut memory).unwrap();
    assert_eq!(memory.read_vec::<u64>(output, 2).unwrap(), [42, 8]);
}

#[test]
fn lanes_exchange_values() {
    let of = |op: &str| -> Vec<u64> {
        let body = format!(
            "ld.global.u32 %r10, [%rd2]; {op} cvt.u64.u32 %rd12, %r12; st.global.u64 [%rd1], %rd12;"
        );
        run_block(&body, &(0..32).collect::<Vec<_>>()).unwrap().0
    };
    assert_eq!(of("shfl.sync.down.b32 %r12, %r10, 1, 31, -1;")[..3], [1, 2, 3]);
    assert_eq!(of("shfl.sync.down.b32 %r12, %r10, 1, 31, -1;")[31], 31);
    assert_eq!(of("shfl.sync.up.b32 %r12|%p1, %r10, 2, 0, -1;")[..4], [0, 1, 0, 1]);
    assert_eq!(of("shfl.sync.bfly.b32 %r12, %r10, 16, 31, -1;")[..2], [16, 17]);
    assert_eq!(of("shfl.sync.idx.b32 %r12, %r10, 5, 31, -1;"), [5; 32]);
    // Segments of eight lanes: the C operand of `__shfl_sync(.., width = 8)`.
    assert_eq!(of("shfl.sync.idx.b32 %r12, %r10, 5, 0x181f, -1;")[8..10], [13, 13]);
    assert_eq!(of("setp.lt.u32 %p1, %r10, 4; vote.sync.ballot.b32 %r12, %p1, -1;"), [15; 32]);
    assert_eq!(
        of("setp.lt.u32 %p1, %r10, 4; vote.sync.any.pred %p2, %p1, -1; selp.u32 %r12, 1, 0, %p2;"),
        [1; 32]
    );
    assert_eq!(
        of("setp.lt.u32 %p1, %r10, 4; vote.sync.all.pred %p2, %p1, -1; selp.u32 %r12, 1, 0, %p2;"),
        [0; 32]
    );
    assert_eq!(of("redux.sync.add.u32 %r12, %r10, -1;"), [496; 32]);
    assert_eq!(
        of("and.b32 %r11, %r10, 1; match.any.sync.b32 %r12, %r11, -1;")[..2],
        [0x5555_5555, 0xaaaa_aaaa]
    );
    assert_eq!(of("activemask.b32 %r12;"), [0xffff_ffff; 32]);
    assert_eq!(of("elect.sync %r12|%p1, -1;"), [0; 32]);
}

#[test]
fn atomics_return_the_old_value() {
    let body = "mov.u32 %r13, tile; setp.eq.u32 %p1, %r1, 0; @%p1 st.shared.v2.u32 [%r13], {0, 5}; bar.sync 0;
        atom.shared.add.u32 %r10, [%r13], 2; atom.shared.max.s32 %r11, [%r13+4], %r1; bar.sync 0;
        ld.shared.u32 %r14, [%r13+4]; mov.b64 %rd12, {%r10, %r14}; st.global.u64 [%rd1], %rd12;";
    let (out, _) = run_block(body, &[0; 64]).unwrap();
    let mut olds: Vec<u32> = out.iter().map(|x| *x as u32).collect();
    olds.sort_unstable();
    assert_eq!(olds, (0..64).map(|i| 2 * i).collect::<Vec<_>>());
    assert!(out.iter().all(|x| x >> 32 == 63));
    let of = |op: &str, old: u32| {
        narrow(
            &format!("st.global.u32 [%rd1], %r10; {op} ld.global.u32 %r12, [%rd1];"),
            &[(old, 3)],
        )[0]
    };
    assert_eq!(of("atom.global.cas.b32 %r13, [%rd1], 7, %r11;", 7), 3);
    assert_eq!(of("atom.global.cas.b32 %r13, [%rd1], 7, %r11;", 8), 8);
    assert_eq!(of("atom.global.exch.b32 %r13, [%rd1], %r11;", 8), 3);
    assert_eq!(of("red.global.xor.b32 [%rd1], %r11;", 8), 11);
    assert_eq!(of("atom.global.inc.u32 %r13, [%rd1], %r11;", 3), 0);
    assert_eq!(of("atom.global.dec.u32 %r13, [%rd1], %r11;", 0), 3);
    assert_eq!(of("red.global.add.f32 [%rd1], 0f3F800000;", 1.5_f32.to_bits()), 2.5_f32.to_bits());
}
