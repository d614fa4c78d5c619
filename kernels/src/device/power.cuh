// x to the power of y in double precision: the operations of crate libm's pow, which is FreeBSD's e_pow.c, one for one.
//
// Copyright (C) 2004 by Sun Microsystems, Inc. All rights reserved. Permission to use, copy, modify, and distribute this
// software is freely granted, provided that this notice is preserved.
DEVICE double with_low(double x, int low) { return __hiloint2double(__double2hiint(x), low); }
DEVICE double with_high(double x, int high) { return __hiloint2double(high, __double2loint(x)); }

DEVICE double scale_by(double x, int n) {
    if (n > 1023) {
        x *= 0x1p1023, n -= 1023;
        if (n > 1023) { x *= 0x1p1023, n -= 1023; if (n > 1023) n = 1023; }
    } else if (n < -1022) {
        x *= 0x1p-1022 * 0x1p53, n += 1022 - 53;
        if (n < -1022) { x *= 0x1p-1022 * 0x1p53, n += 1022 - 53; if (n < -1022) n = -1022; }
    }
    return x * __longlong_as_double((i64)(0x3ff + n) << 52);
}

static __device__ __noinline__ double power(double x, double y) {
    const double HUGE_ONE = 1.0e300, TINY = 1.0e-300;
    const int hx = __double2hiint(x), hy = __double2hiint(y);
    const u32 lx = __double2loint(x), ly = __double2loint(y);
    int ix = hx & 0x7fffffff;
    const int iy = hy & 0x7fffffff;
    if (((u32)iy | ly) == 0) return 1.0;
    if (hx == 0x3ff00000 && lx == 0) return 1.0;
    if (ix > 0x7ff00000 || (ix == 0x7ff00000 && lx != 0) || iy > 0x7ff00000 || (iy == 0x7ff00000 && ly != 0)) return x + y;
    // 0 if y is no whole number, 1 if it is odd, 2 if it is even.
    int whole = 0;
    if (hx < 0) {
        if (iy >= 0x43400000) {
            whole = 2;
        } else if (iy >= 0x3ff00000) {
            const int k = (iy >> 20) - 0x3ff;
            if (k > 20) {
                const int j = (int)(ly >> (52 - k));
                if ((j << (52 - k)) == (int)ly) whole = 2 - (j & 1);
            } else if (ly == 0) {
                const int j = iy >> (20 - k);
                if ((j << (20 - k)) == iy) whole = 2 - (j & 1);
            }
        }
    }
    if (ly == 0) {
        if (iy == 0x7ff00000) {
            if (((ix - 0x3ff00000) | (int)lx) == 0) return 1.0;
            if (ix >= 0x3ff00000) return hy >= 0 ? y : 0.0;
            return hy >= 0 ? 0.0 : -y;
        }
        if (iy == 0x3ff00000) return hy >= 0 ? x : __ddiv_rn(1.0, x);
        if (hy == 0x40000000) return x * x;
        if (hy == 0x3fe00000 && hx >= 0) return __dsqrt_rn(x);
    }
    double ax = fabs(x);
    if (lx == 0 && (ix == 0x7ff00000 || ix == 0 || ix == 0x3ff00000)) {
        double z = ax;
        if (hy < 0) z = __ddiv_rn(1.0, z);
        if (hx < 0) {
            if (((ix - 0x3ff00000) | whole) == 0) z = __ddiv_rn(z - z, z - z);
            else if (whole == 1) z = -z;
        }
        return z;
    }
    double s = 1.0;
    if (hx < 0) {
        if (whole == 0) return __ddiv_rn(x - x, x - x);
        if (whole == 1) s = -1.0;
    }
    double t1, t2;
    if (iy > 0x41e00000) {
        if (iy > 0x43f00000) {
            if (ix <= 0x3fefffff) return hy < 0 ? HUGE_ONE * HUGE_ONE : TINY * TINY;
            if (ix >= 0x3ff00000) return hy > 0 ? HUGE_ONE * HUGE_ONE : TINY * TINY;
        }
        if (ix < 0x3fefffff) return hy < 0 ? s * HUGE_ONE * HUGE_ONE : s * TINY * TINY;
        if (ix > 0x3ff00000) return hy > 0 ? s * HUGE_ONE * HUGE_ONE : s * TINY * TINY;
        const double t = ax - 1.0;
        const double w = (t * t) * (0.5 - t * (0.3333333333333333333333 - t * 0.25));
        const double u = 1.44269502162933349609e+00 * t;
        const double v = t * 1.92596299112661746887e-08 - w * 1.44269504088896338700e+00;
        t1 = with_low(u + v, 0);
        t2 = v - (t1 - u);
    } else {
        int n = 0;
        if (ix < 0x00100000) {
            ax *= 9007199254740992.0;
            n -= 53;
            ix = __double2hiint(ax);
        }
        n += (ix >> 20) - 0x3ff;
        const int j = ix & 0x000fffff;
        int k;
        ix = j | 0x3ff00000;
        if (j <= 0x3988E) {
            k = 0;
        } else if (j < 0xBB67A) {
            k = 1;
        } else {
            k = 0;
            n += 1;
            ix -= 0x00100000;
        }
        ax = with_high(ax, ix);
        const double bp = k == 0 ? 1.0 : 1.5;
        const double dp_h = k == 0 ? 0.0 : 5.84962487220764160156e-01, dp_l = k == 0 ? 0.0 : 1.35003920212974897128e-08;
        double u = ax - bp;
        double v = __ddiv_rn(1.0, ax + bp);
        const double ss = u * v;
        const double s_h = with_low(ss, 0);
        double t_h = with_high(0.0, (int)((((u32)ix >> 1) | 0x20000000u) + 0x00080000u + ((u32)k << 18)));
        double t_l = ax - (t_h - bp);
        const double s_l = v * ((u - s_h * t_h) - s_h * t_l);
        double s2 = ss * ss;
        double r = s2 * s2
            * (5.99999999999994648725e-01
               + s2 * (4.28571428578550184252e-01
                       + s2 * (3.33333329818377432918e-01
                               + s2 * (2.72728123808534006489e-01
                                       + s2 * (2.30660745775561754067e-01 + s2 * 2.06975017800338417784e-01)))));
        r += s_l * (s_h + ss);
        s2 = s_h * s_h;
        t_h = with_low(3.0 + s2 + r, 0);
        t_l = r - ((t_h - 3.0) - s2);
        u = s_h * t_h;
        v = s_l * t_h + t_l * ss;
        const double p_h = with_low(u + v, 0);
        const double p_l = v - (p_h - u);
        const double z_h = 9.61796700954437255859e-01 * p_h;
        const double z_l = -7.02846165095275826516e-09 * p_h + p_l * 9.61796693925975554329e-01 + dp_l;
        const double t = n;
        t1 = with_low(((z_h + z_l) + dp_h) + t, 0);
        t2 = z_l - (((t1 - t) - dp_h) - z_h);
    }
    const double y1 = with_low(y, 0);
    const double p_l = (y - y1) * t1 + y * t2;
    double p_h = y1 * t1;
    double z = p_l + p_h;
    int j = __double2hiint(z);
    const int low = __double2loint(z);
    if (j >= 0x40900000) {
        if (((j - 0x40900000) | low) != 0) return s * HUGE_ONE * HUGE_ONE;
        if (p_l + 8.0085662595372944372e-017 > z - p_h) return s * HUGE_ONE * HUGE_ONE;
    } else if ((j & 0x7fffffff) >= 0x4090cc00) {
        if ((((u32)j - 0xc090cc00u) | (u32)low) != 0) return s * TINY * TINY;
        if (p_l <= z - p_h) return s * TINY * TINY;
    }
    const int i = j & 0x7fffffff;
    int k = (i >> 20) - 0x3ff;
    int n = 0;
    if (i > 0x3fe00000) {
        n = j + (0x00100000 >> (k + 1));
        k = ((n & 0x7fffffff) >> 20) - 0x3ff;
        const double t = with_high(0.0, n & ~(0x000fffff >> k));
        n = ((n & 0x000fffff) | 0x00100000) >> (20 - k);
        if (j < 0) n = -n;
        p_h -= t;
    }
    const double t = with_low(p_l + p_h, 0);
    const double u = t * 6.93147182464599609375e-01;
    const double v = (p_l - (t - p_h)) * 6.93147180559945286227e-01 + t * -1.90465429995776804525e-09;
    z = u + v;
    const double w = v - (z - u);
    const double zz = z * z;
    const double q = z
        - zz * (1.66666666666666019037e-01
                + zz * (-2.77777777770155933842e-03
                        + zz * (6.61375632143793436117e-05
                                + zz * (-1.65339022054652515390e-06 + zz * 4.13813679705723846039e-08))));
    const double r = __ddiv_rn(z * q, q - 2.0) - (w + z * w);
    z = 1.0 - (r - z);
    j = __double2hiint(z) + (n << 20);
    z = (j >> 20) <= 0 ? scale_by(z, n) : with_high(z, j);
    return s * z;
}
