//! The error function.

use super::exponential::Exp;
use super::primitive::{Function, Primitive, function, odd, polynomial};

function! {
    /// The error function, `2/√π · ∫₀ˣ e^(-t²) dt`, within 2 ulp in double precision and 8 in single precision.
    Erf, "erf", erf_here
}

#[inline(always)]
fn erf_here<A: Primitive>(x: A) -> A {
    if A::IS_DOUBLE { double(x) } else { single(x) }
}

/// The rational function of XLA and Eigen, on (-4, 4), beyond which erf rounds to ±1.
#[inline(always)]
fn single<A: Primitive>(x: A) -> A {
    const P: [f64; 7] = [
        -2.726_142_3e-10,
        2.770_681_5e-8,
        -2.101_024e-6,
        -5.692_506_4e-5,
        -7.349_906e-4,
        -2.954_599_8e-3,
        -1.609_603_3e-2,
    ];
    const Q: [f64; 5] =
        [-1.456_607_2e-5, -2.133_740_5e-4, -1.682_827_0e-3, -7.373_329_2e-3, -1.426_473_9e-2];
    let c = A::splat;
    let bounded = c(4.0).min(c(-4.0).max(x));
    let r2 = bounded.mul(bounded);
    // Divided first: the product by a small x is then rounded once.
    let y = polynomial(r2, &P).div(polynomial(r2, &Q)).mul(bounded);
    // It is not 1 itself at 4, and `1 + erf(x)` times a large x would tell.
    A::select(bounded.abs().eq(c(4.0)), bounded.mul(c(0.25)), y)
}

/// The rational functions of FreeBSD's `s_erf.c` on four intervals, chosen lane by lane through their coefficients.
#[inline(always)]
fn double<A: Primitive>(x: A) -> A {
    let c = A::splat;
    // From 6 on erf rounds to 1.
    let a = x.abs().min(c(6.0));
    // Below 0.84375 x + x · P(x²) / Q(x²), below 1.25 ERX + P(x - 1) / Q(x - 1).
    let small = a.lt(c(0.843_75));
    let t = A::select(small, a.mul(a), a.sub(c(1.0)));
    let quotient = of_two(small, t, &PP, &PA).div(of_two(small, t, &QQ, &QA));
    let factor = A::select(small, a, c(1.0));
    let near = quotient.mul_add(factor, A::select(small, a, c(ERX)));
    // Above, 1 - e^(-x² - 0.5625 + R(1/x²) / S(1/x²)) / x; its coefficients change at 1/0.35.
    let far = c(1.0 / 0.35).lt(a);
    let large = a.max(c(1.0));
    let t = c(1.0).div(large.mul(large));
    let quotient = of_two(far, t, &RB, &RA).div(of_two(far, t, &SB, &SA));
    let exponent = large.mul_add(c(0.0).sub(large), quotient.sub(c(0.562_5)));
    let tail = c(1.0).sub(exponent.call(Exp).div(large));
    let y = A::select(a.lt(c(1.25)), near, tail);
    odd(x, A::select(x.lt(c(0.0)), c(0.0).sub(y), y))
}

/// The polynomial of `then` where the mask is set, of `otherwise` elsewhere.
#[inline(always)]
fn of_two<A: Primitive>(mask: A::Mask, x: A, then: &[f64], otherwise: &[f64]) -> A {
    let both = then.iter().zip(otherwise);
    both.fold(A::splat(0.0), |y, (&then, &otherwise)| {
        let c = A::select(mask, A::splat(then), A::splat(otherwise));
        y.mul_add(x, c)
    })
}

const ERX: f64 = 8.450_629_115_104_675e-1;
const PP: [f64; 7] = [
    0.0,
    0.0,
    -2.376_301_665_665_016_3e-5,
    -5.770_270_296_489_442e-3,
    -2.848_174_957_559_851e-2,
    -3.250_421_072_470_015e-1,
    1.283_791_670_955_125_6e-1,
];
const QQ: [f64; 7] = [
    0.0,
    -3.960_228_278_775_368e-6,
    1.324_947_380_043_216_4e-4,
    5.081_306_281_875_766e-3,
    6.502_224_998_876_73e-2,
    3.979_172_239_591_553_5e-1,
    1.0,
];
const PA: [f64; 7] = [
    -2.166_375_594_868_791e-3,
    3.547_830_432_561_823_6e-2,
    -1.108_946_942_823_966_8e-1,
    3.183_466_199_011_617_5e-1,
    -3.722_078_760_357_013e-1,
    4.148_561_186_837_483_3e-1,
    -2.362_118_560_752_659_4e-3,
];
const QA: [f64; 7] = [
    1.198_449_984_679_910_7e-2,
    1.363_708_391_202_905e-2,
    1.261_712_198_087_616_4e-1,
    7.182_865_441_419_627e-2,
    5.403_979_177_021_71e-1,
    1.064_208_804_008_442_3e-1,
    1.0,
];
const RA: [f64; 8] = [
    -9.814_329_344_169_145,
    -8.128_743_550_630_66e1,
    -1.846_050_929_067_110_4e2,
    -1.623_966_694_625_734_7e2,
    -6.237_533_245_032_600_6e1,
    -1.055_862_622_532_329_1e1,
    -6.938_585_727_071_818e-1,
    -9.864_944_034_847_148e-3,
];
const SA: [f64; 9] = [
    -6.042_441_521_485_81e-2,
    6.570_249_770_319_282,
    1.086_350_055_417_794_4e2,
    4.290_081_400_275_678_3e2,
    6.453_872_717_332_679e2,
    4.345_658_774_752_292_3e2,
    1.376_577_541_435_190_4e2,
    1.965_127_166_743_925_7e1,
    1.0,
];
const RB: [f64; 8] = [
    0.0,
    -4.835_191_916_086_514e2,
    -1.025_095_131_611_077_2e3,
    -6.375_664_433_683_896e2,
    -1.606_363_848_558_219_2e2,
    -1.775_795_491_775_475_2e1,
    -7.992_832_376_805_23e-1,
    -9.864_942_924_700_1e-3,
];
const SB: [f64; 9] = [
    0.0,
    -2.244_095_244_658_582e1,
    4.745_285_412_069_553_7e2,
    2.553_050_406_433_164_4e3,
    3.199_858_219_508_595_5e3,
    1.536_729_586_084_437e3,
    3.257_925_129_965_739e2,
    3.033_806_074_348_246e1,
    1.0,
];
