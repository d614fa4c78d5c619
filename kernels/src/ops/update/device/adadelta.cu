template <class R, bool MAXIMIZE> struct adadelta_rule {
    R size, old, fresh, eps, decay;
    DEVICE adadelta_rule(double, double lr, double rho, double eps, double decay)
        : size((R)-lr), old((R)rho), fresh((R)sub_rn(1.0, rho)), eps((R)eps), decay((R)decay) {}
    DEVICE void update(R &p, R g, R &square, R &change) const {
        g = decayed<MAXIMIZE>(decay, p, g);
        const R v = fma_rn(mul_rn(g, g), fresh, mul_rn(square, old)), d = change;
        const R delta = mul_rn(div_rn(sqrt_rn(add_rn(d, eps)), sqrt_rn(add_rn(v, eps))), g);
        square = v;
        change = fma_rn(mul_rn(delta, delta), fresh, mul_rn(d, old));
        p = fma_rn(delta, size, p);
    }
};
