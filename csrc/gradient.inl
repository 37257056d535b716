// The gradient of the weight of a linear layer whose rows are quantized, or not.
#pragma once

#include "kernels.h"
#include "common.inl"
#include "product.inl"
#include "rows.inl"

namespace bitgnn::BITGNN_ISA {

constexpr int64_t DEPTH = 64;  // rows that are summed up at once
constexpr int64_t PARTS = 16;  // of all rows, whatever the number of threads: so are the sums

// Adds to sums (M, V vectors) the products of M columns of grad and V vectors of columns of x.
template <int M, int V>
__attribute__((noinline)) void add_outer(const float* grad, int64_t grad_stride, const float* x,
                                         int64_t stride, int64_t rows, float* sums, int64_t wide) {
    constexpr int PARTS = V * LANES / NATIVE;
    Native own[M][PARTS];
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m) {
#pragma GCC unroll 4
        for (int p = 0; p < PARTS; ++p) own[m][p] = native(sums + m * wide + p * NATIVE);
    }
    for (int64_t r = 0; r < rows; ++r, grad += grad_stride, x += stride) {
        Native columns[PARTS];
#pragma GCC unroll 4
        for (int p = 0; p < PARTS; ++p) columns[p] = native(x + p * NATIVE);
#pragma GCC unroll 8
        for (int m = 0; m < M; ++m) {
#pragma GCC unroll 4
            for (int p = 0; p < PARTS; ++p) own[m][p] += grad[m] * columns[p];
        }
    }
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m) {
#pragma GCC unroll 4
        for (int p = 0; p < PARTS; ++p) put(own[m][p], sums + m * wide + p * NATIVE);
    }
}

template <int V>
BITGNN_INLINE void add_outer(const float* grad, int64_t n, const float* x, int64_t stride,
                             int64_t rows, float* sums, int64_t wide) {
    int64_t m = 0;
    for (; m + TILE <= n; m += TILE) {
        add_outer<TILE, V>(grad + m, n, x, stride, rows, sums + m * wide, wide);
    }
    for (; m < n; ++m) add_outer<1, V>(grad + m, n, x, stride, rows, sums + m * wide, wide);
}

// What a row stands for once it is quantized; itself, if it is not. Filled up with zeros.
BITGNN_INLINE void rounded_row(const float* x, int64_t width, Quantize q, float* out,
                               int64_t stride) {
    std::memset(out + width, 0, static_cast<std::size_t>(stride - width) * sizeof *out);
    if (q.high == 0) {
        std::memcpy(out, x, static_cast<std::size_t>(width) * sizeof *out);
        return;
    }
    constexpr float rounding = Bits<float>::rounding;
    const float s = scale_of(largest(x, width), q.high, q.eps), top = q.top;
#pragma omp simd
    for (int64_t k = 0; k < width; ++k) {
        const float whole = (x[k] / s + rounding) - rounding;
        out[k] = s * (whole > top ? top : whole);
    }
}

// out (n, k) = grad^T x.
void weight_gradient(const float* x, const float* grad, int64_t rows, int64_t n, int64_t k,
                     Quantize q, float* room, float* out, int threads) {
    const int64_t wide = rounded_up(k, LANES), vectors = wide / LANES;
    const int64_t part = (rows + PARTS - 1) / PARTS, each = n * wide + DEPTH * wide;
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads) if (threads > 1)
    for (int64_t p = 0; p < PARTS; ++p) {
        float *sums = room + p * each, *block = sums + n * wide;
        std::memset(sums, 0, static_cast<std::size_t>(n * wide) * sizeof *sums);
        const int64_t end = smaller(rows, (p + 1) * part);
        for (int64_t from = p * part; from < end; from += DEPTH) {
            const int64_t these = smaller(DEPTH, end - from);
            for (int64_t r = 0; r < these; ++r) {
                rounded_row(x + (from + r) * k, k, q, block + r * wide, wide);
            }
            const float* g = grad + from * n;
            for (int64_t v = 0; v < vectors; v += HELD_COLUMNS) {
                const float* columns = block + v * LANES;
                float* to = sums + v * LANES;
                switch (smaller(HELD_COLUMNS, vectors - v)) {
                    case 1: add_outer<1>(g, n, columns, wide, these, to, wide); break;
                    case 2: add_outer<2>(g, n, columns, wide, these, to, wide); break;
                    case 3: add_outer<3>(g, n, columns, wide, these, to, wide); break;
                    default: add_outer<4>(g, n, columns, wide, these, to, wide);
                }
            }
        }
    }
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
    for (int64_t row = 0; row < n; ++row) {
        float* to = out + row * k;
        std::memcpy(to, room + row * wide, static_cast<std::size_t>(k) * sizeof *to);
        for (int64_t p = 1; p < PARTS; ++p) {
            const float* sums = room + p * each + row * wide;
#pragma omp simd
            for (int64_t c = 0; c < k; ++c) to[c] += sums[c];
        }
    }
}

int64_t gradient_room(int64_t n, int64_t k) { return PARTS * (n + DEPTH) * rounded_up(k, LANES); }

}  // namespace bitgnn::BITGNN_ISA
