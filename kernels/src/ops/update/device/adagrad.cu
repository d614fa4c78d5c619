template <class R, bool MAXIMIZE> struct adagrad_rule {
    R size, decay, initial, eps;
    bool is_first;
    DEVICE adagrad_rule(double step, double lr, double lr_decay, double decay, double initial, double eps)
        : size((R)div_rn(-lr, add_rn(1.0, mul_rn(sub_rn(step, 1.0), lr_decay)))), decay((R)decay), initial((R)initial),
          eps((R)eps), is_first(step == 1.0) {}
    DEVICE void update(R &p, R g, R &sum) const {
        g = decayed<MAXIMIZE>(decay, p, g);
        const R all = fma_rn(g, g, is_first ? initial : sum);
        sum = all;
        p = fma_rn(div_rn(g, add_rn(sqrt_rn(all), eps)), size, p);
    }
};
