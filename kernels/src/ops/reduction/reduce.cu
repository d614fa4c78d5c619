// Reductions: a thread an output, its N terms joined in the order of sums. line(o) is where the terms of output o begin,
// term(i) how far behind it the term of number i lies.
template <int T, class R, int OUT, int N, class Fold, class Line, class Term, class Finish>
DEVICE void reduce(int t, const R *x, R *y, Line line, Term term, Finish finish) {
    for (int o = t; o < OUT; o += T) {
        const R *const from = x + line(o);
        y[o] = finish(fold<Fold, R, N>([&](int i) { return from[term(i)]; }));
    }
}
