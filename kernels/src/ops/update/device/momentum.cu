// Gradient descent with momentum.
template <class R, bool NESTEROV, bool MAXIMIZE> struct momentum_rule {
    R size, decay, momentum, fresh;
    bool is_first;
    DEVICE momentum_rule(double step, double lr, double decay, double momentum, double dampening)
        : size((R)-lr), decay((R)decay), momentum((R)momentum), fresh((R)sub_rn(1.0, dampening)), is_first(step == 1.0) {}
    DEVICE void update(R &p, R g, R &b) const {
        g = decayed<MAXIMIZE>(decay, p, g);
        const R mean = is_first ? g : fma_rn(g, fresh, mul_rn(b, momentum));
        b = mean;
        p = fma_rn(NESTEROV ? fma_rn(mean, momentum, g) : mean, size, p);
    }
};
