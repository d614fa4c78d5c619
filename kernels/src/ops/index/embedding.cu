// A sum whose number of terms is known at its end, in the order of sums.
template <class R> struct Running {
    R parts[16], runs[32];
    int terms = 0, blocks = 0, waiting = 0;
    DEVICE void clear() {
        #pragma unroll
        for (int i = 0; i < 16; ++i) parts[i] = R(0);
    }
    DEVICE Running() { clear(); }
    DEVICE void end_block() {
        R run = join_halves<Add>(parts);
        for (int c = ++blocks; c % 2 == 0; c /= 2) run = add_rn(runs[--waiting], run);
        runs[waiting++] = run;
        clear();
    }
    DEVICE void add(R x) {
        parts[terms % 16] = add_rn(parts[terms % 16], x);
        if (++terms % 256 == 0) end_block();
    }
    DEVICE R finish() {
        if (terms % 256 != 0 || terms == 0) end_block();
        R all = runs[--waiting];
        while (waiting > 0) all = add_rn(runs[--waiting], all);
        return add_rn(all, R(0));
    }
};

// How often a row is named.
template <int N, class R> DEVICE R times(const i64 *indices, int row) {
    int n = 0;
    for (int k = 0; k < N; ++k) n += indices[k] == row;
    return R(n);
}

// N rows of a table. As its gradient's gradient, rows times what their gradients count.
template <int T, int N, int ROWS, int COLUMNS, bool SECOND, bool BY_FREQUENCY, int PADDING, class R>
DEVICE void embedding(int t, const i64 *indices, const R *table, R *y) {
    for (int i = t; i < N * COLUMNS; i += T) {
        const i64 row = indices[i / COLUMNS];
        if (row < 0 || row >= ROWS) {
            y[i] = nan_of<R>();
            continue;
        }
        R x = table[row * COLUMNS + i % COLUMNS];
        if (SECOND && row == PADDING) x = mul_rn(x, R(0));
        else if (SECOND && BY_FREQUENCY) x = mul_rn(x, div_rn(R(1), times<N, R>(indices, (int)row)));
        y[i] = x;
    }
}

// The gradient of the table: those of each row, in the order of the indices.
template <int T, int N, int ROWS, int COLUMNS, bool BY_FREQUENCY, int PADDING, class R>
DEVICE void embedding_gradient(int t, const i64 *indices, const R *dy, R *table) {
    for (int i = t; i < ROWS * COLUMNS; i += T) {
        const int row = i / COLUMNS;
        const R part = BY_FREQUENCY ? div_rn(R(1), times<N, R>(indices, row)) : R(1);
        Running<R> sum;
        for (int k = 0; k < N; ++k)
            if (indices[k] == row && row != PADDING) sum.add(mul_rn(dy[k * COLUMNS + i % COLUMNS], part));
        table[i] = sum.finish();
    }
}
