template <class R, bool MAXIMIZE> struct adamax_rule {
    R new_mean, old, eps, decay, size;
    DEVICE adamax_rule(double step, double lr, double beta1, double beta2, double eps, double decay)
        : new_mean((R)sub_rn(1.0, beta1)), old((R)beta2), eps((R)eps), decay((R)decay),
          size((R)div_rn(-lr, sub_rn(1.0, power(beta1, step)))) {}
    DEVICE void update(R &p, R g, R &mean, R &most) const {
        g = decayed<MAXIMIZE>(decay, p, g);
        const R m = fma_rn(sub_rn(g, mean), new_mean, mean);
        const R u = maximum(mul_rn(most, old), add_rn(abs_of(g), eps));
        mean = m;
        most = u;
        p = add_rn(p, div_rn(mul_rn(m, size), u));
    }
};
