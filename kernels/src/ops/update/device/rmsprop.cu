template <class R, bool MOMENTUM, bool CENTERED, bool MAXIMIZE> struct rmsprop_rule {
    R size, old, fresh, eps, decay, momentum;
    DEVICE rmsprop_rule(double, double lr, double alpha, double eps, double decay, double momentum)
        : size((R)-lr), old((R)alpha), fresh((R)sub_rn(1.0, alpha)), eps((R)eps), decay((R)decay), momentum((R)momentum) {}
    // Behind the mean square are the buffer of the momentum and the mean, as there are.
    template <class... More> DEVICE void update(R &p, R g, R &square, More &...more) const {
        R *const others[] = {&more..., nullptr};
        g = decayed<MAXIMIZE>(decay, p, g);
        const R v = fma_rn(mul_rn(g, g), fresh, mul_rn(square, old));
        square = v;
        R root = v;
        if constexpr (CENTERED) {
            R &mean = *others[MOMENTUM];
            const R a = fma_rn(sub_rn(g, mean), fresh, mean);
            mean = a;
            root = sub_rn(v, mul_rn(a, a));
        }
        R direction = div_rn(g, add_rn(sqrt_rn(root), eps));
        if constexpr (MOMENTUM) {
            direction = fma_rn(*others[0], momentum, direction);
            *others[0] = direction;
        }
        p = fma_rn(direction, size, p);
    }
};
