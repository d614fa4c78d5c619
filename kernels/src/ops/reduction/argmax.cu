// The first of the largest numbers of each line; NaN is larger than all.
template <int T, int LINES, int N, int STRIDE, class R> DEVICE void argmax(int t, const R *x, i64 *y) {
    for (int line = t; line < LINES; line += T) {
        const R *const from = x + line / STRIDE * N * STRIDE + line % STRIDE;
        int most = 0;
        for (int i = 1; i < N; ++i) {
            const R a = from[i * STRIDE], b = from[most * STRIDE];
            if (a > b || (a != a && b == b)) most = i;
        }
        y[line] = most;
    }
}
