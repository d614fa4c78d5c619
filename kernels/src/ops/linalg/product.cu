// Products of matrices. A sum is cut into blocks of 256 products and groups of 65,536, as the CPU's: a block is the chain
// fma(a_k, b_k, ... fma(a_0, b_0, 0)), the sums of blocks are added in order, then those of groups.

template <int R, int C> struct Strides {
    static constexpr int row = R, column = C;
};

// Reads N numbers that lie STRIDE apart; four singles at once where they lie side by side.
template <bool FOUR, int N, int STRIDE, class R> DEVICE void read(const R *from, R (&to)[N]) {
    if constexpr (FOUR) {
        const float4 four = *(const float4 *)from;
        to[0] = four.x, to[1] = four.y, to[2] = four.z, to[3] = four.w;
    } else {
        #pragma unroll
        for (int i = 0; i < N; ++i) to[i] = from[i * STRIDE];
    }
}

// C[M, N] = finish(A[M, K] · B[K, N]): a thread holds TM · TN sums in registers; neighbors hold neighboring rows.
// finish(m, n, sum) may add a bias.
template <int T, class R, int M, int N, int K, class A, class B, class C, int TM, int TN, class Finish>
DEVICE void product(int t, const R *a, const R *b, R *c, Finish finish) {
    constexpr int MS = (M + TM - 1) / TM, NS = (N + TN - 1) / TN, CHAIN = 256, GROUP = 65536;
    constexpr bool SINGLES = sizeof(R) == 4;
    constexpr bool A4 = SINGLES && K % 4 == 0 && A::column == 1 && A::row % 4 == 0;
    constexpr bool B4 = SINGLES && K % 4 == 0 && B::row == 1 && B::column % 4 == 0;
    constexpr int STEP = A4 || B4 ? 4 : 1;
    for (int item = t; item < MS * NS; item += T) {
        const int m0 = item % MS, n0 = item / MS;
        R all[TM][TN], group[TM][TN], sums[TM][TN];
        for (int first = 0; first < K || first == 0; first += CHAIN) {
            #pragma unroll
            for (int i = 0; i < TM; ++i)
                #pragma unroll
                for (int j = 0; j < TN; ++j) sums[i][j] = R(0);
            const int end = first + CHAIN < K ? first + CHAIN : K;
            #pragma unroll 2
            for (int k = first; k < end; k += STEP) {
                R x[TM][STEP], y[TN][STEP];
                #pragma unroll
                for (int i = 0; i < TM; ++i) {
                    const int m = m0 + i * MS;
                    read<A4, STEP, A::column>(M % TM == 0 || m < M ? a + m * A::row + k * A::column : a, x[i]);
                }
                #pragma unroll
                for (int j = 0; j < TN; ++j) {
                    const int n = n0 + j * NS;
                    read<B4, STEP, B::row>(N % TN == 0 || n < N ? b + k * B::row + n * B::column : b, y[j]);
                }
                #pragma unroll
                for (int s = 0; s < STEP; ++s)
                    #pragma unroll
                    for (int i = 0; i < TM; ++i)
                        #pragma unroll
                        for (int j = 0; j < TN; ++j) sums[i][j] = fma_rn(x[i][s], y[j][s], sums[i][j]);
            }
            if constexpr (K > CHAIN) {
                #pragma unroll
                for (int i = 0; i < TM; ++i)
                    #pragma unroll
                    for (int j = 0; j < TN; ++j) {
                        group[i][j] = first % GROUP == 0 ? sums[i][j] : add_rn(group[i][j], sums[i][j]);
                        if ((first + CHAIN) % GROUP == 0 || end == K)
                            all[i][j] = first < GROUP ? group[i][j] : add_rn(all[i][j], group[i][j]);
                    }
            }
        }
        #pragma unroll
        for (int i = 0; i < TM; ++i)
            #pragma unroll
            for (int j = 0; j < TN; ++j) {
                const int m = m0 + i * MS, n = n0 + j * NS;
                if ((M % TM == 0 || m < M) && (N % TN == 0 || n < N))
                    c[m * C::row + n * C::column] = finish(m, n, K > CHAIN ? all[i][j] : sums[i][j]);
            }
    }
}

// The same of few rows: dot products, in the order of sums.
template <int T, class R, int M, int N, int K, class A, class B, class C, class Finish>
DEVICE void dots(int t, const R *a, const R *b, R *c, Finish finish) {
    for (int item = t; item < M * N; item += T) {
        const int m = item / N, n = item % N;
        const R total = dot<R, K>([&](int k) { return a[m * A::row + k * A::column]; },
                                  [&](int k) { return b[k * B::row + n * B::column]; });
        c[m * C::row + n * C::column] = finish(m, n, total);
    }
}
