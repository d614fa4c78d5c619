template <class R, bool DECOUPLED, bool MAXIMIZE> struct radam_rule {
    R new_mean, old_square, new_square, eps, decay, size;
    bool is_adaptive;
    DEVICE radam_rule(double step, double lr, double beta1, double beta2, double eps, double decay)
        : new_mean((R)sub_rn(1.0, beta1)), old_square((R)beta2), new_square((R)sub_rn(1.0, beta2)), eps((R)eps),
          decay((R)(DECOUPLED ? sub_rn(1.0, mul_rn(lr, decay)) : decay)) {
        const double power2 = power(beta2, step);
        const double of_mean = sub_rn(1.0, power(beta1, step)), of_square = sub_rn(1.0, power2);
        const double longest = sub_rn(div_rn(2.0, sub_rn(1.0, beta2)), 1.0);
        const double rho = sub_rn(longest, div_rn(mul_rn(mul_rn(2.0, step), power2), of_square));
        is_adaptive = rho > 5.0;
        const double above = mul_rn(mul_rn(sub_rn(rho, 4.0), sub_rn(rho, 2.0)), longest);
        const double below = mul_rn(mul_rn(sub_rn(longest, 4.0), sub_rn(longest, 2.0)), rho);
        const double rectified = is_adaptive ? sqrt_rn(mul_rn(div_rn(above, below), of_square)) : 1.0;
        size = (R)mul_rn(div_rn(-lr, of_mean), rectified);
    }
    DEVICE void update(R &p, R g, R &mean, R &square) const {
        R w = p;
        if constexpr (DECOUPLED) w = mul_rn(w, decay), g = climbed<MAXIMIZE>(g);
        else g = decayed<MAXIMIZE>(decay, w, g);
        const R m = fma_rn(sub_rn(g, mean), new_mean, mean);
        const R v = fma_rn(mul_rn(g, g), new_square, mul_rn(square, old_square));
        mean = m;
        square = v;
        p = add_rn(w, div_rn(mul_rn(m, size), is_adaptive ? add_rn(sqrt_rn(v), eps) : R(1)));
    }
};
