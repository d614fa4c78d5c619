// Of the last state, which is one number for the parameter, the first element is read before any is written.
template <class R, bool DECOUPLED, bool MAXIMIZE> struct nadam_rule {
    R new_mean, old_square, new_square, correction, eps, decay, of_gradient, of_mean, product;
    DEVICE static double mu(double beta1, double step, double momentum_decay) {
        return mul_rn(beta1, sub_rn(1.0, mul_rn(0.5, power(0.96, mul_rn(step, momentum_decay)))));
    }
    DEVICE nadam_rule(double step, double lr, double beta1, double beta2, double eps, double decay, double momentum_decay,
                      R, R, R before)
        : new_mean((R)sub_rn(1.0, beta1)), old_square((R)beta2), new_square((R)sub_rn(1.0, beta2)),
          correction((R)div_rn(1.0, sub_rn(1.0, power(beta2, step)))), eps((R)eps),
          decay((R)(DECOUPLED ? sub_rn(1.0, mul_rn(lr, decay)) : decay)) {
        const double now = mu(beta1, step, momentum_decay), next = mu(beta1, add_rn(step, 1.0), momentum_decay);
        const double known = before;
        // In single precision, or in the parameter's once it was loaded: the sign tells.
        const double all = step == 1.0 ? (double)(float)now
                           : signbit(known) ? mul_rn(-known, now)
                                            : (double)mul_rn((float)known, (float)now);
        of_gradient = (R)div_rn(mul_rn(-lr, sub_rn(1.0, now)), sub_rn(1.0, all));
        of_mean = (R)div_rn(mul_rn(-lr, next), sub_rn(1.0, mul_rn(all, next)));
        product = (R)(step == 1.0 ? all : copysign(all, known));
    }
    DEVICE void update(R &p, R g, R &mean, R &square, R &kept) const {
        R w = p;
        if constexpr (DECOUPLED) w = mul_rn(w, decay), g = climbed<MAXIMIZE>(g);
        else g = decayed<MAXIMIZE>(decay, w, g);
        const R m = fma_rn(sub_rn(g, mean), new_mean, mean);
        const R v = fma_rn(mul_rn(g, g), new_square, mul_rn(square, old_square));
        mean = m;
        square = v;
        kept = product;
        const R root = add_rn(sqrt_rn(mul_rn(v, correction)), eps);
        p = add_rn(w, div_rn(fma_rn(g, of_gradient, mul_rn(m, of_mean)), root));
    }
};
