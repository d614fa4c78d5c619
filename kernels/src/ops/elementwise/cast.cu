// Conversions, by way of double precision; to halves by way of single precision.
DEVICE double from_f32(float x) { return x; }
DEVICE double from_f64(double x) { return x; }
DEVICE double from_i64(i64 x) { return __ll2double_rn(x); }
DEVICE double from_bool(u8 x) { return x; }
DEVICE double from_bf16(u16 x) { return __uint_as_float((u32)x << 16); }
DEVICE double from_f16(u16 x) {
    float y;
    asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x));
    return y;
}

DEVICE float to_f32(double x) { return __double2float_rn(x); }
DEVICE double to_f64(double x) { return x; }
DEVICE i64 to_i64(double x) { return x == x ? __double2ll_rz(x) : 0; }
DEVICE u8 to_bool(double x) { return !(x == 0.0); }
DEVICE u16 to_bf16(double x) {
    const float single = __double2float_rn(x);
    const u32 bits = __float_as_uint(single);
    if (single != single) return (u16)(bits >> 16 | 0x40);
    return (u16)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}
DEVICE u16 to_f16(double x) {
    u16 y;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(y) : "f"(__double2float_rn(x)));
    return y;
}
