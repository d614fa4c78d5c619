template <class R, bool MAXIMIZE> struct rprop_rule {
    R initial, less, more, least, most;
    bool is_first;
    DEVICE rprop_rule(double step, double lr, double less, double more, double least, double most)
        : initial((R)lr), less((R)less), more((R)more), least((R)least), most((R)most), is_first(step == 1.0) {}
    DEVICE void update(R &p, R g, R &before, R &size) const {
        g = climbed<MAXIMIZE>(g);
        const R product = mul_rn(g, before);
        const bool turned = product < R(0);
        R by = mul_rn(is_first ? initial : size, turned ? less : product > R(0) ? more : R(1));
        by = by > least ? by : least;
        by = by < most ? by : most;
        g = turned ? R(0) : g;
        before = g;
        size = by;
        p = g < R(0) ? add_rn(p, by) : g > R(0) ? sub_rn(p, by) : p;
    }
};
