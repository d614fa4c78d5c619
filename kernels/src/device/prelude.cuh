// What every source begins with. A model is computed by a group of T threads, all of which call every function; t is the
// number of the caller. Every operation rounds once, to nearest; sums are taken in the CPU's order.

#define DEVICE __device__ __forceinline__

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef long long i64;

DEVICE float add_rn(float a, float b) { return __fadd_rn(a, b); }
DEVICE float sub_rn(float a, float b) { return __fsub_rn(a, b); }
DEVICE float mul_rn(float a, float b) { return __fmul_rn(a, b); }
DEVICE float div_rn(float a, float b) { return __fdiv_rn(a, b); }
DEVICE float fma_rn(float a, float b, float c) { return __fmaf_rn(a, b, c); }
DEVICE float sqrt_rn(float a) { return __fsqrt_rn(a); }
DEVICE float abs_of(float a) { return fabsf(a); }
DEVICE float round_of(float a) { return rintf(a); }
DEVICE float trunc_of(float a) { return truncf(a); }
DEVICE double add_rn(double a, double b) { return __dadd_rn(a, b); }
DEVICE double sub_rn(double a, double b) { return __dsub_rn(a, b); }
DEVICE double mul_rn(double a, double b) { return __dmul_rn(a, b); }
DEVICE double div_rn(double a, double b) { return __ddiv_rn(a, b); }
DEVICE double fma_rn(double a, double b, double c) { return __fma_rn(a, b, c); }
DEVICE double sqrt_rn(double a) { return __dsqrt_rn(a); }
DEVICE double abs_of(double a) { return fabs(a); }
DEVICE double round_of(double a) { return rint(a); }
DEVICE double trunc_of(double a) { return trunc(a); }

// x * 2^n for whole numbers n for which 2^n is a normal number.
DEVICE float scale(float x, float n) { return mul_rn(x, __int_as_float(((int)n + 127) << 23)); }
DEVICE double scale(double x, double n) { return mul_rn(x, __longlong_as_double(((i64)n + 1023) << 52)); }

// The parts of positive normal numbers: a mantissa in [1, 2) and an exponent.
DEVICE float mantissa(float x) { return __int_as_float((__float_as_int(x) & 0x7fffff) | 0x3f800000); }
DEVICE double mantissa(double x) {
    return __longlong_as_double((__double_as_longlong(x) & 0xfffffffffffffll) | 0x3ff0000000000000ll);
}
DEVICE float exponent(float x) { return (float)((__float_as_int(x) >> 23) - 127); }
DEVICE double exponent(double x) { return (double)((__double_as_longlong(x) >> 52) - 1023); }

template <class R> DEVICE R nan_of() { return (R)__int_as_float(0x7fffffff); }

// Waits for all threads of the group.
template <int T> DEVICE void sync() {
    if constexpr (T <= 32) __syncwarp();
    else __syncthreads();
}

// How many of N items have what `is` asks for: all threads get the number.
template <int T, int N, class Is> DEVICE int count(int t, Is is) {
    int n = 0;
    for (int first = 0; first < N; first += T) {
        const bool yes = first + t < N && is(first + t);
        if constexpr (T <= 32) n += __popc(__ballot_sync(0xffffffffu, yes));
        else n += __syncthreads_count(yes);
    }
    return n;
}

struct Add {
    template <class R> static DEVICE R nothing() { return R(0); }
    template <class R> static DEVICE R join(R a, R b) { return add_rn(a, b); }
};

// The larger; NaN if either is.
struct Larger {
    template <class R> static DEVICE R nothing() { return (R)__int_as_float(0xff800000); }
    template <class R> static DEVICE R join(R a, R b) { return a == a ? (a > b ? a : b) : a; }
};

// Joins 16 partial results by halves.
template <class Fold, class R> DEVICE R join_halves(R (&parts)[16]) {
    #pragma unroll
    for (int half = 8; half > 0; half /= 2)
        #pragma unroll
        for (int i = 0; i < half; ++i) parts[i] = Fold::join(parts[i], parts[i + half]);
    return parts[0];
}

// Joins the results of blocks of 256 terms as a binary counter carries: of two runs of one length, the earlier on the left.
template <class Fold, class R, int N, class Block> DEVICE R join_blocks(Block block) {
    constexpr int BLOCKS = (N + 255) / 256;
    if constexpr (BLOCKS == 0) {
        return Fold::template nothing<R>();
    } else if constexpr (BLOCKS == 1) {
        return block(0);
    } else {
        R runs[32];
        int n = 0;
        for (int b = 0; b < BLOCKS; ++b) {
            R run = block(b);
            for (int c = b + 1; c % 2 == 0; c /= 2) run = Fold::join(runs[--n], run);
            runs[n++] = run;
        }
        R all = runs[--n];
        while (n > 0) all = Fold::join(runs[--n], all);
        return all;
    }
}

// Joins N terms, term(i), in the order of sums: term i belongs to block i / 256 and within it to partial result i mod 16.
template <class Fold, class R, int N, class Term> DEVICE R fold(Term term) {
    return join_blocks<Fold, R, N>([&](int block) {
        R parts[16];
        #pragma unroll
        for (int i = 0; i < 16; ++i) parts[i] = Fold::template nothing<R>();
        const int end = block * 256 + 256 < N ? block * 256 + 256 : N;
        for (int first = block * 256; first < end; first += 16)
            #pragma unroll
            for (int i = 0; i < 16; ++i)
                if (N % 16 == 0 || first + i < end) parts[i] = Fold::join(parts[i], (R)term(first + i));
        return join_halves<Fold>(parts);
    });
}

template <class R, int N, class Term> DEVICE R sum(Term term) { return fold<Add, R, N>(term); }

// The dot product of N pairs, a(i) and b(i).
template <class R, int N, class A, class B> DEVICE R dot(A a, B b) {
    const R total = join_blocks<Add, R, N>([&](int block) {
        R parts[16];
        #pragma unroll
        for (int i = 0; i < 16; ++i) parts[i] = R(0);
        const int end = block * 256 + 256 < N ? block * 256 + 256 : N;
        for (int first = block * 256; first < end; first += 16)
            #pragma unroll
            for (int i = 0; i < 16; ++i)
                if (N % 16 == 0 || first + i < end) parts[i] = fma_rn(a(first + i), b(first + i), parts[i]);
        return join_halves<Add>(parts);
    });
    return add_rn(total, R(0));
}
