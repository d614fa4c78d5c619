/* x * 2^n for whole numbers n for which 2^n is a normal number. */
static inline float scalef(float x, float n) {
    const uint32_t bits = (uint32_t)((int32_t)n + 127) << 23;
    float power;
    memcpy(&power, &bits, sizeof power);
    return x * power;
}

static inline double scale(double x, double n) {
    const uint64_t bits = (uint64_t)((int64_t)n + 1023) << 52;
    double power;
    memcpy(&power, &bits, sizeof power);
    return x * power;
}

/* The parts of positive normal numbers: a mantissa in [1, 2) and an exponent. */
static inline float mantissaf(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    bits = (bits & 0x7fffff) | (uint32_t)127 << 23;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static inline double mantissa(double x) {
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    bits = (bits & 0xfffffffffffff) | (uint64_t)1023 << 52;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static inline float exponentf(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return (float)((int32_t)(bits >> 23) - 127);
}

static inline double exponent(double x) {
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    return (double)((int64_t)(bits >> 52) - 1023);
}
