// Update rules, in place. A rule is a struct made of the number of the step and the rates, which it rounds once; its update
// changes one element of the parameter and of each state.

// Counts the step: all threads get its number.
template <int T> DEVICE double next_step(int t, float *count) {
    const float step = __fadd_rn(*count, 1.0f);
    sync<T>();
    if (t == 0) *count = step;
    return step;
}

template <int T, int N, bool READS_STATES, class Rule, class R, class... States>
DEVICE void update(int t, const Rule rule, R *parameter, const R *gradient, States *...states) {
    if constexpr (READS_STATES) sync<T>();
    for (int i = t; i < N; i += T) rule.update(parameter[i], gradient[i], states[i]...);
}

template <bool MAXIMIZE, class R> DEVICE R climbed(R g) { return MAXIMIZE ? sub_rn(R(0), g) : g; }

// The gradient with the weight's decay.
template <bool MAXIMIZE, class R> DEVICE R decayed(R decay, R p, R g) { return fma_rn(p, decay, climbed<MAXIMIZE>(g)); }

// The greater, or NaN if one is.
template <class R> DEVICE R maximum(R a, R b) { return b == b ? (a == a ? (a > b ? a : b) : a) : b; }
