//! Texts with mistakes end in errors, never in panics.

use neurarch_ptx::{Launch, Memory, Options, Program};
use proptest::prelude::*;

use super::run::kernel;

/// One text with most of what there is.
fn text() -> String {
    kernel(
        "ld.global.v2.u32 {%r2, %r3}, [%rd2]; mov.u32 %r4, tile; mad.lo.s32 %r5, %r1, 4, %r4;
        st.shared.u32 [%r5], %r2; bar.sync 0; ld.shared.u32 %r6, [%r5]; setp.lt.and.s32 %p1|%p2, %r6, %r3, %p3;
        @!%p1 bra $skip; shfl.sync.bfly.b32 %r7|%p3, %r6, 1, 31, -1; fma.rn.f32 %f1, %f2, %f3, 0f3F800000; bra $both;
        $skip: cvt.rn.f16.f32 %rs1, %f1; div.s32 %r8, %r6, %r3; bfe.u32 %r9, %r8, 4, %r6; $both: bar.warp.sync -1;
        { .param .b64 a; st.param.b64 [a], %rd1; call.uni g, (a); }
        atom.global.cas.b32 %r10, [%rd1], 0, %r9; vote.sync.ballot.b32 %r11, %p1, -1; prmt.b32 %r12, %r10, %r11, %r9;
        cp.async.ca.shared.global [%r4+512], [%rd2], 8; cp.async.wait_all; shf.l.wrap.b32 %r13, %r9, %r8, %r7;
        cvta.shared.u64 %rd5, %rd4; sqrt.rn.f64 %fd1, %fd2; cvt.rzi.u64.f64 %rd6, %fd1; bar.red.popc.u32 %r14, 1, 64, %p1;",
    )
    .replacen(".visible", ".const .align 4 .f32 k[3] = {0f3F800000, 1, 2};\n.func g(.param .b64 a) { .local .b32 x; ret; }\n.visible", 1)
}

fn try_out(text: &str) {
    let Ok(program) = Program::parse(text) else { return };
    let mut memory = Memory::new();
    let pointers =
        [memory.allocate_from(&[3_u64; 64]).into(), memory.allocate_from(&[7_u64; 64]).into()];
    let launch = Launch { grid: [2, 1, 1], block: [64, 1, 1], shared_bytes: 64 };
    let options = Options { limit: 20_000, ..Options::default() };
    for kernel in program.kernels() {
        // What comes of it does not matter.
        let _ = program.launch_with(&kernel.name, launch, &pointers, &mut memory, options);
    }
}

#[test]
fn the_text_itself_parses() {
    Program::parse(&text()).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn characters_may_be_anything(changes in proptest::collection::vec((any::<proptest::sample::Index>(), "[ -~\u{e9}\n]{0,3}"), 1..6)) {
        let mut text: Vec<char> = text().chars().collect();
        for (at, new) in changes {
            let at = at.index(text.len());
            text.splice(at..at + 1, new.chars());
        }
        try_out(&text.into_iter().collect::<String>());
    }

    #[test]
    fn words_may_stand_for_others(changes in proptest::collection::vec(any::<[proptest::sample::Index; 2]>(), 1..6)) {
        let text = text();
        let mut words: Vec<&str> = text.split_inclusive([' ', '\n', ',', ';', '[', '.']).collect();
        for [at, from] in changes {
            let (at, from) = (at.index(words.len()), from.index(words.len()));
            words[at] = words[from];
        }
        try_out(&words.concat());
    }

    #[test]
    fn numbers_may_be_any(number in any::<u64>(), at in any::<proptest::sample::Index>()) {
        let text = text();
        let places: Vec<_> = text.match_indices(|c: char| c.is_ascii_digit()).map(|(at, _)| at).collect();
        let at = places[at.index(places.len())];
        try_out(&format!("{}{number}{}", &text[..at], &text[at + 1..]));
    }
}
