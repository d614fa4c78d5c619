// Softmax and its logarithm, and their gradients: a line a thread. x(line, i) reads, y(line, i, value) writes.
enum SoftmaxForm { PLAIN, SAFE, LOG };

template <int T, class R, int LINES, int N, SoftmaxForm FORM, class X, class Y> DEVICE void softmax(int t, X x, Y y) {
    for (int line = t; line < LINES; line += T) {
        R most = x(line, 0);
        for (int i = 1; i < N; ++i) {
            const R next = x(line, i);
            most = most > next ? most : next;
        }
        if (FORM == SAFE) most = most == (R)__int_as_float(0xff800000) ? R(0) : most;
        R all = sum<R, N>([&](int i) { return exp_of(sub_rn(x(line, i), most)); });
        if (FORM == SAFE) all = all == R(0) ? R(1) : all;
        const R part = FORM == LOG ? ln_of(all) : div_rn(R(1), all);
        for (int i = 0; i < N; ++i) {
            const R shifted = sub_rn(x(line, i), most);
            y(line, i, FORM == LOG ? sub_rn(shifted, part) : mul_rn(exp_of(shifted), part));
        }
    }
}

template <int T, class R, int LINES, int N, SoftmaxForm FORM, class DY, class Y, class DX>
DEVICE void softmax_gradient(int t, DY dy, Y y, DX dx) {
    for (int line = t; line < LINES; line += T) {
        const auto of_dy = [&](int i) { return dy(line, i); };
        R all;
        if constexpr (FORM == LOG) all = sum<R, N>(of_dy);
        else all = dot<R, N>(of_dy, [&](int i) { return y(line, i); });
        for (int i = 0; i < N; ++i)
            dx(line, i, FORM == LOG ? sub_rn(of_dy(i), mul_rn(exp_of(y(line, i)), all))
                                    : mul_rn(y(line, i), sub_rn(of_dy(i), all)));
    }
}
