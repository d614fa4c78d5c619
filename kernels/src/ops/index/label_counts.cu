// How often each class is listed in its line, up to the first number below 0; NaN if one that there is not is.
template <int T, int LINES, int N, class R> DEVICE void label_counts(int t, const i64 *labels, R *counts) {
    for (int i = t; i < LINES * N; i += T) {
        const i64 *const line = labels + i / N * N;
        R count = R(0);
        for (int k = 0; k < N && line[k] >= 0; ++k) {
            if (line[k] >= N) count = nan_of<R>();
            if (line[k] == i % N) count = add_rn(count, R(1));
        }
        counts[i] = count;
    }
}
