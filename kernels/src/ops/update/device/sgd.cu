// Gradient descent.
template <class R, bool, bool MAXIMIZE> struct sgd_rule {
    R size, decay;
    DEVICE sgd_rule(double, double lr, double decay) : size((R)-lr), decay((R)decay) {}
    DEVICE void update(R &p, R g) const { p = fma_rn(decayed<MAXIMIZE>(decay, p, g), size, p); }
};
