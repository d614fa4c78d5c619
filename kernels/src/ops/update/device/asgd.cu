// Of the first two states, which are one number each for the parameter, the first elements are read before any is written.
template <class R, bool MAXIMIZE> struct asgd_rule {
    R decay, kept, size, fresh, next_eta, next_mu;
    bool is_copied;
    DEVICE asgd_rule(double step, double lr, double lambd, double alpha, double t0, double decay, R old_eta, R old_mu, R)
        : decay((R)decay) {
        const double eta = step == 1.0 ? (double)(float)lr : fabs((double)old_eta);
        const double mu = step == 1.0 ? 1.0 : fabs((double)old_mu);
        const double slower = power(add_rn(1.0, mul_rn(mul_rn(lambd, lr), step)), alpha);
        const double since = sub_rn(step, t0);
        kept = (R)sub_rn(1.0, mul_rn(lambd, eta));
        size = (R)-eta;
        fresh = (R)mu;
        next_eta = (R)copysign((double)(float)div_rn(lr, slower), (double)old_eta);
        next_mu = (R)copysign((double)(float)div_rn(1.0, since > 1.0 ? since : 1.0), (double)old_mu);
        is_copied = mu == 1.0;
    }
    DEVICE void update(R &p, R g, R &eta, R &mu, R &average) const {
        g = decayed<MAXIMIZE>(decay, p, g);
        const R w = fma_rn(g, size, mul_rn(p, kept));
        p = w;
        average = is_copied ? w : fma_rn(sub_rn(w, average), fresh, average);
        eta = next_eta;
        mu = next_mu;
    }
};
