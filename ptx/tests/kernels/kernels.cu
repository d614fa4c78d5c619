// Kernels of the kinds that a training step has. DROP leaves out one of the barriers.
#ifndef DROP
#define DROP -1
#endif
#define BARRIER(n) if (DROP != n) __syncthreads()

extern "C" __global__ void gemm(const float *a, const float *b, float *c, int m, int n, int k) {
    __shared__ float ta[16][17], tb[16][16];
    const int row = blockIdx.y * 16 + threadIdx.y, col = blockIdx.x * 16 + threadIdx.x;
    float sum = 0.0f;
    for (int t = 0; t < k; t += 16) {
        ta[threadIdx.y][threadIdx.x] = row < m && t + threadIdx.x < k ? a[row * k + t + threadIdx.x] : 0.0f;
        tb[threadIdx.y][threadIdx.x] = col < n && t + threadIdx.y < k ? b[(t + threadIdx.y) * n + col] : 0.0f;
        BARRIER(0);
        for (int i = 0; i < 16; ++i) sum = __fmaf_rn(ta[threadIdx.y][i], tb[i][threadIdx.x], sum);
        BARRIER(1);
    }
    if (row < m && col < n) c[row * n + col] = sum;
}

__device__ float warp_sum(float x) {
    for (int d = 16; d > 0; d /= 2) x += __shfl_xor_sync(0xffffffffu, x, d);
    return x;
}

__device__ float block_sum(float x, float *scratch) {
    x = warp_sum(x);
    if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32] = x;
    BARRIER(2);
    x = threadIdx.x < blockDim.x / 32 ? scratch[threadIdx.x] : 0.0f;
    if (threadIdx.x < 32) {
        x = warp_sum(x);
        if (threadIdx.x == 0) scratch[0] = x;
    }
    BARRIER(3);
    x = scratch[0];
    BARRIER(4);
    return x;
}

extern "C" __global__ void softmax(const float *x, float *y, int n) {
    __shared__ float scratch[32];
    x += blockIdx.x * n;
    y += blockIdx.x * n;
    float sum = 0.0f;
    for (int i = threadIdx.x; i < n; i += blockDim.x) sum += expf(x[i]);
    sum = block_sum(sum, scratch);
    for (int i = threadIdx.x; i < n; i += blockDim.x) y[i] = expf(x[i]) / sum;
}

extern "C" __global__ void layer_norm(const float *x, float *y, int n) {
    __shared__ float scratch[32];
    x += blockIdx.x * n;
    y += blockIdx.x * n;
    float sum = 0.0f, square = 0.0f;
    for (int i = threadIdx.x; i < n; i += blockDim.x) sum += x[i];
    const float mean = block_sum(sum, scratch) / n;
    for (int i = threadIdx.x; i < n; i += blockDim.x) square += (x[i] - mean) * (x[i] - mean);
    const float scale = rsqrtf(block_sum(square, scratch) / n + 1e-5f);
    for (int i = threadIdx.x; i < n; i += blockDim.x) y[i] = (x[i] - mean) * scale;
}

// Philox 4x32, ten rounds: random numbers by counter.
extern "C" __global__ void philox(unsigned *out, unsigned long long seed) {
    unsigned c0 = blockIdx.x * blockDim.x + threadIdx.x, c1 = 0, c2 = 0, c3 = 0;
    unsigned k0 = (unsigned)seed, k1 = (unsigned)(seed >> 32);
    const unsigned at = c0;
    for (int round = 0; round < 10; ++round) {
        const unsigned h0 = __umulhi(0xD2511F53u, c0), l0 = 0xD2511F53u * c0;
        const unsigned h1 = __umulhi(0xCD9E8D57u, c2), l1 = 0xCD9E8D57u * c2;
        c0 = h1 ^ c1 ^ k0;
        c1 = l1;
        c2 = h0 ^ c3 ^ k1;
        c3 = l0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    ((uint4 *)out)[at] = make_uint4(c0, c1, c2, c3);
}

extern "C" __global__ void scatter(const float *dy, const long long *index, float *dw, int n, int width) {
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n * width; i += gridDim.x * blockDim.x)
        atomicAdd(&dw[index[i / width] * width + i % width], dy[i]);
}

extern "C" __global__ void convolve(const float *x, const float *w, float *y, int height, int width) {
    extern __shared__ float4 dynamic[];
    float *tile = (float *)dynamic;
    for (int i = threadIdx.x; i < height * width; i += blockDim.x) tile[i] = x[i];
    BARRIER(5);
    for (int i = threadIdx.x; i < (height - 2) * (width - 2); i += blockDim.x) {
        const int r = i / (width - 2), c = i % (width - 2);
        float sum = 0.0f;
        for (int a = 0; a < 3; ++a)
            for (int b = 0; b < 3; ++b) sum = __fmaf_rn(w[a * 3 + b], tile[(r + a) * width + c + b], sum);
        y[i] = sum;
    }
}

// Halves in memory, single precision in registers.
extern "C" __global__ void scale_halves(unsigned short *x, float by, int n) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) {
        float value;
        asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(x[i]));
        value *= by;
        asm("cvt.rn.f16.f32 %0, %1;" : "=h"(x[i]) : "f"(value));
    }
}

// What the device's libraries of functions need: tables, calls, slow paths.
extern "C" __global__ void functions(const double *x, double *y) {
    const int i = threadIdx.x;
    const double a = x[i];
    double *out = y + i * 8;
    out[0] = exp(a); out[1] = log(fabs(a) + 1.0); out[2] = sin(a); out[3] = tanh(a);
    out[4] = pow(fabs(a), 1.75); out[5] = erf(a);
    out[6] = sinf((float)a * 1e6f); out[7] = log1pf((float)fabs(a));
}

extern "C" __global__ void adam(float *w, const float *g, float *m, float *v, float lr, float c1, float c2, int n) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    m[i] = m[i] + 0.1f * (g[i] - m[i]);
    v[i] = 0.999f * v[i] + 0.001f * g[i] * g[i];
    w[i] -= lr / c1 * m[i] / (sqrtf(v[i]) / sqrtf(c2) + 1e-8f);
}
