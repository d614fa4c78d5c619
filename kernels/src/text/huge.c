/* Sine and cosine of numbers from 2^16 on, as in crate libm: FreeBSD's s_sin.c, s_cos.c, k_sin.c, k_cos.c, e_rem_pio2.c and
   k_rem_pio2.c without what smaller numbers need.

   Copyright (C) 1993 by Sun Microsystems, Inc. All rights reserved.

   Developed at SunPro, a Sun Microsystems, Inc. business.
   Permission to use, copy, modify, and distribute this
   software is freely granted, provided that this notice
   is preserved. */

static inline double huge_kernel_sin(double x, double y) {
    const double z = x * x, w = z * z;
    const double r = 8.33333333332248946124e-03 + z * (-1.98412698298579493134e-04 + z * 2.75573137070700676789e-06)
        + z * w * (-2.50507602534068634195e-08 + z * 1.58969099521155010221e-10);
    const double v = z * x;
    return x - ((z * (0.5 * y - v * r) - y) - v * -1.66666666666666324348e-01);
}

static inline double huge_kernel_cos(double x, double y) {
    const double z = x * x, square = z * z;
    const double r = z * (4.16666666666666019037e-02 + z * (-1.38888888888741095749e-03 + z * 2.48015872894767294178e-05))
        + square * square * (-2.75573143513906633035e-07 + z * (2.08757232129817482790e-09 + z * -1.13596475577881948265e-11));
    const double half = 0.5 * z, w = 1.0 - half;
    return w + (((1.0 - w) - half) + (z * r - x * y));
}

/* The digits of 2/pi, 24 bits each, and pi/2 in parts. */
static const int32_t huge_two_over_pi[66] = {
    0xA2F983, 0x6E4E44, 0x1529FC, 0x2757D1, 0xF534DD, 0xC0DB62, 0x95993C, 0x439041, 0xFE5163, 0xABDEBB, 0xC561B7,
    0x246E3A, 0x424DD2, 0xE00649, 0x2EEA09, 0xD1921C, 0xFE1DEB, 0x1CB129, 0xA73EE8, 0x8235F5, 0x2EBB44, 0x84E99C,
    0x7026B4, 0x5F7E41, 0x3991D6, 0x398353, 0x39F49C, 0x845F8B, 0xBDF928, 0x3B1FF8, 0x97FFDE, 0x05980F, 0xEF2F11,
    0x8B5A0A, 0x6D1F6D, 0x367ECF, 0x27CB09, 0xB74F46, 0x3F669E, 0x5FEA2D, 0x7527BA, 0xC7EBE5, 0xF17B3D, 0x0739F7,
    0x8A5292, 0xEA6BFB, 0x5FB11F, 0x8D5D08, 0x560330, 0x46FC7B, 0x6BABF0, 0xCFBC20, 0x9AF436, 0x1DA9E3, 0x91615E,
    0xE61B08, 0x659985, 0x5F14A0, 0x68408D, 0xFFD880, 0x4D7327, 0x310606, 0x1556CA, 0x73A8C9, 0x60E27B, 0xC08C6B,
};

static const double huge_pio2[8] = {
    1.57079625129699707031e+00, 7.54978941586159635335e-08, 5.39030252995776476554e-15, 3.28200341580791294123e-22,
    1.27065575308067607349e-29, 1.22933308981111328932e-36, 2.73370053816464559624e-44, 2.16741683877804819444e-51,
};

/* The rest of x[0] + .. + x[nx - 1], each of 24 bits, the first times 2^e0, by pi/2; gives the quarter turns, modulo 8. */
static int huge_rest_by_digits(const double *x, double *y, int e0, int nx) {
    enum { JK = 4 };
    int32_t iq[20];
    double f[20] = {0}, fq[20] = {0}, q[20] = {0};
    const int jx = nx - 1;
    int jv = (e0 - 3) / 24;
    if (jv < 0) jv = 0;
    int q0 = e0 - 24 * (jv + 1);
    for (int i = 0, j = jv - jx; i <= jx + JK; i++, j++) f[i] = j < 0 ? 0.0 : (double)huge_two_over_pi[j];
    for (int i = 0; i <= JK; i++) {
        double sum = 0.0;
        for (int j = 0; j <= jx; j++) sum += x[j] * f[jx + i - j];
        q[i] = sum;
    }
    int jz = JK, n, ih;
    double z;
    for (;;) {
        /* Distill q[] into iq[] in reverse. */
        z = q[jz];
        for (int i = 0, j = jz; j > 0; i++, j--) {
            const double high = (double)(int32_t)(0x1p-24 * z);
            iq[i] = (int32_t)(z - 0x1p24 * high);
            z = q[j - 1] + high;
        }
        z = scalbn(z, q0);
        z -= 8.0 * floor(z * 0.125);
        n = (int32_t)z;
        z -= (double)n;
        ih = 0;
        if (q0 > 0) {
            const int32_t i = iq[jz - 1] >> (24 - q0);
            n += i;
            iq[jz - 1] -= i << (24 - q0);
            ih = iq[jz - 1] >> (23 - q0);
        } else if (q0 == 0) {
            ih = iq[jz - 1] >> 23;
        } else if (z >= 0.5) {
            ih = 2;
        }
        if (ih > 0) { /* More than a half: 1 - q. */
            n += 1;
            int carry = 0;
            for (int i = 0; i < jz; i++) {
                const int32_t j = iq[i];
                if (carry == 0) {
                    if (j != 0) {
                        carry = 1;
                        iq[i] = 0x1000000 - j;
                    }
                } else {
                    iq[i] = 0xffffff - j;
                }
            }
            if (q0 == 1) iq[jz - 1] &= 0x7fffff;
            if (q0 == 2) iq[jz - 1] &= 0x3fffff;
            if (ih == 2) {
                z = 1.0 - z;
                if (carry != 0) z -= scalbn(1.0, q0);
            }
        }
        if (z != 0.0) break;
        int32_t any = 0;
        for (int i = jz - 1; i >= JK; i--) any |= iq[i];
        if (any != 0) break;
        int k = 1;
        while (iq[JK - k] == 0) k++;
        for (int i = jz + 1; i <= jz + k; i++) {
            f[jx + i] = (double)huge_two_over_pi[jv + i];
            double sum = 0.0;
            for (int j = 0; j <= jx; j++) sum += x[j] * f[jx + i - j];
            q[i] = sum;
        }
        jz += k;
    }
    if (z == 0.0) {
        jz -= 1;
        q0 -= 24;
        while (iq[jz] == 0) {
            jz -= 1;
            q0 -= 24;
        }
    } else {
        z = scalbn(z, -q0);
        if (z >= 0x1p24) {
            const double high = (double)(int32_t)(0x1p-24 * z);
            iq[jz] = (int32_t)(z - 0x1p24 * high);
            jz += 1;
            q0 += 24;
            iq[jz] = (int32_t)high;
        } else {
            iq[jz] = (int32_t)z;
        }
    }
    double unit = scalbn(1.0, q0);
    for (int i = jz; i >= 0; i--) {
        q[i] = unit * (double)iq[i];
        unit *= 0x1p-24;
    }
    for (int i = jz; i >= 0; i--) {
        double sum = 0.0;
        for (int k = 0; k <= JK && k <= jz - i; k++) sum += huge_pio2[k] * q[i + k];
        fq[jz - i] = sum;
    }
    double sum = 0.0;
    for (int i = jz; i >= 0; i--) sum += fq[i];
    y[0] = ih == 0 ? sum : -sum;
    sum = fq[0] - sum;
    for (int i = 1; i <= jz; i++) sum += fq[i];
    y[1] = ih == 0 ? sum : -sum;
    return n & 7;
}

/* The rest of a number from 2^16 on by pi/2, in two parts; gives the quarter turns. */
static int huge_rest(double x, double *y) {
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    const int is_negative = (int)(bits >> 63);
    const uint32_t high = (uint32_t)(bits >> 32) & 0x7fffffff;
    if (high < 0x413921fb) { /* Below 2^20 pi/2. */
        const double to_int = 1.5 / 2.2204460492503131e-16;
        const double fn = (x * 6.36619772367581382433e-01 + to_int) - to_int;
        double r = x - fn * 1.57079632673412561417e+00, w = fn * 6.07710050650619224932e-11;
        y[0] = r - w;
        const int ex = (int)(high >> 20);
        memcpy(&bits, &y[0], sizeof bits);
        if (ex - (int)(bits >> 52 & 0x7ff) > 16) {
            double t = r;
            w = fn * 6.07710050630396597660e-11;
            r = t - w;
            w = fn * 2.02226624879595063154e-21 - ((t - r) - w);
            y[0] = r - w;
            memcpy(&bits, &y[0], sizeof bits);
            if (ex - (int)(bits >> 52 & 0x7ff) > 49) {
                t = r;
                w = fn * 2.02226624871116645580e-21;
                r = t - w;
                w = fn * 8.47842766036889956997e-32 - ((t - r) - w);
                y[0] = r - w;
            }
        }
        y[1] = (r - y[0]) - w;
        return (int)(int32_t)fn;
    }
    bits = (bits & (uint64_t)-1 >> 12) | (uint64_t)(0x3ff + 23) << 52;
    double z, parts[3], rest[2];
    memcpy(&z, &bits, sizeof z);
    for (int i = 0; i < 2; i++) {
        parts[i] = (double)(int32_t)z;
        z = (z - parts[i]) * 0x1p24;
    }
    parts[2] = z;
    int last = 2;
    while (last != 0 && parts[last] == 0.0) last--;
    const int n = huge_rest_by_digits(parts, rest, (int)(high >> 20) - (0x3ff + 23), last + 1);
    y[0] = is_negative ? -rest[0] : rest[0];
    y[1] = is_negative ? -rest[1] : rest[1];
    return is_negative ? -n : n;
}

static double huge_sin(double x) {
    if (x - x != 0.0) return NAN;
    double y[2];
    switch (huge_rest(x, y) & 3) {
    case 0: return huge_kernel_sin(y[0], y[1]);
    case 1: return huge_kernel_cos(y[0], y[1]);
    case 2: return -huge_kernel_sin(y[0], y[1]);
    default: return -huge_kernel_cos(y[0], y[1]);
    }
}

static double huge_cos(double x) {
    if (x - x != 0.0) return NAN;
    double y[2];
    switch (huge_rest(x, y) & 3) {
    case 0: return huge_kernel_cos(y[0], y[1]);
    case 1: return -huge_kernel_sin(y[0], y[1]);
    case 2: return -huge_kernel_cos(y[0], y[1]);
    default: return huge_kernel_sin(y[0], y[1]);
    }
}
