// Cross entropy with class indices: an item a thread. x(item, class), dx(item, class, value) and dloss(item) say where
// numbers lie; LOSS and GRADIENT what is computed. Losses of items wait in scratch memory.
enum Reduction { NONE, MEAN, SUM };

template <int T, class R, int ITEMS, int CLASSES, Reduction REDUCTION, bool WEIGHTED, bool LOSS, bool GRADIENT, class X,
          class DX, class DLoss>
DEVICE void cross_entropy(int t, X x, const i64 *targets, R smoothing_given, const R *class_weights, i64 ignore_index,
                          R *losses, R *loss, DLoss dloss, DX dx) {
    const double smoothing = smoothing_given;
    const auto weight_of = [&](int item) {
        const i64 target = targets[item];
        if (target == ignore_index) return R(0);
        return target >= 0 && target < CLASSES ? class_weights[target] : nan_of<R>();
    };
    R total;
    double all_weights = CLASSES;
    if constexpr (WEIGHTED) {
        total = sum<R, ITEMS>(weight_of);
        all_weights = sum<R, CLASSES>([&](int c) { return class_weights[c]; });
    } else {
        total = (R)count<T, ITEMS>(t, [&](int item) { return targets[item] != ignore_index; });
    }
    const auto class_weight = [&](int c) { return WEIGHTED ? (double)class_weights[c] : 1.0; };
    R scale_of_all = R(0);
    if constexpr (GRADIENT && REDUCTION != NONE) {
        scale_of_all = dloss(0);
        if (REDUCTION == MEAN) scale_of_all = div_rn(scale_of_all, total);
    }
    for (int item = t; item < ITEMS; item += T) {
        const i64 target = targets[item];
        const bool ignored = target == ignore_index, is_class = target >= 0 && target < CLASSES;
        const R nan_or_0 = ignored || is_class ? R(0) : nan_of<R>();
        const R weight = WEIGHTED ? weight_of(item) : ignored ? R(0) : R(1);
        R most = x(item, 0);
        for (int c = 1; c < CLASSES; ++c) {
            const R next = x(item, c);
            most = most > next ? most : next;
        }
        const R total_e = sum<R, CLASSES>([&](int c) { return exp_of(sub_rn(x(item, c), most)); });
        const R of_target = !ignored && is_class ? sub_rn(x(item, (int)target), most) : nan_or_0;
        const R log_sum = ln_of(total_e);
        R item_loss = mul_rn(sub_rn(log_sum, of_target), weight);
        if (smoothing != 0.0) {
            const R of_all = dot<R, CLASSES>([&](int c) { return sub_rn(x(item, c), most); },
                                             [&](int c) { return (R)class_weight(c); });
            const R smooth = sub_rn(mul_rn(log_sum, (R)all_weights), of_all);
            item_loss = fma_rn(smooth, (R)__ddiv_rn(smoothing, CLASSES), mul_rn(item_loss, (R)__dsub_rn(1.0, smoothing)));
        }
        if (ignored) item_loss = R(0);
        if constexpr (LOSS) {
            if constexpr (REDUCTION == NONE) loss[item] = item_loss;
            else losses[item] = item_loss;
        }
        if constexpr (GRADIENT) {
            const R scale = REDUCTION == NONE ? dloss(item) : scale_of_all;
            const double share = __ddiv_rn(smoothing, CLASSES);
            R at_target = weight, at_all = add_rn(weight, nan_or_0);
            if (smoothing != 0.0) {
                at_target = mul_rn(weight, (R)__dsub_rn(1.0, smoothing));
                at_all = add_rn(add_rn(at_target, nan_or_0), (R)__dmul_rn(share, all_weights));
            }
            at_all = mul_rn(at_all, div_rn(R(1), total_e));
            for (int c = 0; c < CLASSES; ++c) {
                const R e = exp_of(sub_rn(x(item, c), most));
                R d = fma_rn(e, at_all, sub_rn(R(0), !ignored && c == target ? at_target : R(0)));
                if (smoothing != 0.0) d = sub_rn(d, (R)__dmul_rn(share, class_weight(c)));
                dx(item, c, ignored ? R(0) : mul_rn(d, scale));
            }
        }
    }
    if constexpr (LOSS && REDUCTION != NONE) {
        sync<T>();
        if (t == 0) {
            const R all = sum<R, ITEMS>([&](int item) { return losses[item]; });
            *loss = REDUCTION == MEAN ? div_rn(all, total) : all;
        }
    }
}
