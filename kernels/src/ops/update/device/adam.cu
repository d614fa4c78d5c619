// Adam, in place. What is the same for all elements is computed in double precision by one thread, which also counts the
// step, then rounded.
template <class R> struct AdamStep {
    R new_mean, old_square, new_square, correction, eps, size, decay;
    // So that wide loads read what was written.
    R unused;
};

template <int T, class R, int N, bool DECOUPLED, bool MAXIMIZE, bool AMSGRAD>
DEVICE void adam(int t, R *p, const R *gradient, R *mean, R *square, R *greatest, float *count, double lr, double beta1,
                 double beta2, double eps, double weight_decay, AdamStep<R> *by) {
    if (t == 0) {
        const float step = __fadd_rn(*count, 1.0f);
        *count = step;
        const double of_mean = __dsub_rn(1.0, power(beta1, step));
        const double of_square = __ddiv_rn(1.0, __dsqrt_rn(__dsub_rn(1.0, power(beta2, step))));
        *by = {(R)__dsub_rn(1.0, beta1), (R)beta2, (R)__dsub_rn(1.0, beta2), (R)of_square, (R)eps,
               (R)__ddiv_rn(-lr, of_mean),
               (R)(DECOUPLED ? __dsub_rn(1.0, __dmul_rn(lr, weight_decay)) : weight_decay), R(0)};
    }
    sync<T>();
    const AdamStep<R> is = *by;
    for (int i = t; i < N; i += T) {
        R w = p[i], g = gradient[i], m = mean[i];
        if (MAXIMIZE) g = sub_rn(R(0), g);
        if (DECOUPLED) w = mul_rn(w, is.decay);
        else g = fma_rn(w, is.decay, g);
        m = fma_rn(sub_rn(g, m), is.new_mean, m);
        m = abs_of(m) < (R)__int_as_float(0x00800000) ? R(0) : m;
        const R v = fma_rn(mul_rn(g, g), is.new_square, mul_rn(square[i], is.old_square));
        mean[i] = m;
        square[i] = v;
        R most = v;
        if constexpr (AMSGRAD) {
            const R before = greatest[i];
            most = v == v ? (before == before ? (before > v ? before : v) : before) : v;
            greatest[i] = most;
        }
        const R root = fma_rn(sqrt_rn(most), is.correction, is.eps);
        p[i] = add_rn(w, div_rn(mul_rn(m, is.size), root));
    }
}
