// Sparse rows, such as bags of words, as numbers and as one side of products.
#pragma once

#include "kernels.h"
#include "common.inl"
#include "rows.inl"

#if defined(__AVX512VNNI__)
#include "sparse_vnni.inl"
#endif

namespace bitgnn::BITGNN_ISA {

// All numbers of a sparse row.
BITGNN_INLINE void spread_row(const Rows& x, int64_t r, float* out) {
    const float* values = static_cast<const float*>(x.values);
    std::memset(out, 0, static_cast<std::size_t>(x.width) * sizeof *out);
    for (int64_t e = x.crow[r]; e < x.crow[r + 1]; ++e) out[x.col[e]] += values[e];
}

// The scale of a sparse row.
BITGNN_INLINE float sparse_scale(const Rows& x, int64_t r, Quantize q) {
    const float* values = static_cast<const float*>(x.values) + x.crow[r];
    return scale_of(largest(values, x.crow[r + 1] - x.crow[r]), q.high, q.eps);
}

// The product of a sparse row as integers of a scale, see `bitgnn.quant.quantize_rows`, and a ternary
// weight.
BITGNN_INLINE void sparse_product(const Rows& x, int64_t r, float s, const Weight& w, Quantize q,
                                  std::int32_t* out) {
    constexpr float rounding = Bits<float>::rounding;
    typedef std::int16_t Words __attribute__((vector_size(64)));
    typedef std::int8_t Bytes __attribute__((vector_size(32)));
    const int64_t begin = x.crow[r], count = x.crow[r + 1] - begin;
    const int64_t stride = rounded_up(w.n, LINE);
    const float* values = static_cast<const float*>(x.values) + begin;
    const auto* by_row = static_cast<const std::int8_t*>(w.by_row);
    if (count == 0) std::memset(out, 0, static_cast<std::size_t>(stride) * sizeof *out);
    std::int16_t integers[TOGETHER];
    for (int64_t from = 0; from < count; from += TOGETHER) {
        const int64_t these = smaller(TOGETHER, count - from);
        const std::int64_t* col = x.col + begin + from;
#if defined(__AVX512VNNI__)
        const bool added = add_positive(values + from, col, these, s, q.top, by_row, stride,
                                        from == 0, out);
        if (added) continue;
#endif
#pragma omp simd
        for (int64_t e = 0; e < these; ++e) {
            const float whole = (values[from + e] / s + rounding) - rounding;
            integers[e] = static_cast<std::int16_t>(
                static_cast<std::int32_t>(whole < q.top ? whole : q.top));  // NaN: any integer
        }
        for (int64_t n = 0; n < stride; n += LINE) {
            const std::int8_t* columns = by_row + n;
            Words sums[2] = {};
            for (int64_t e = 0; e < these; ++e) {
                Bytes halves[2];
                std::memcpy(halves, columns + col[e] * stride, sizeof halves);
                sums[0] += integers[e] * __builtin_convertvector(halves[0], Words);
                sums[1] += integers[e] * __builtin_convertvector(halves[1], Words);
            }
            std::int16_t words[LINE];
            std::memcpy(words, sums, sizeof words);
#pragma omp simd
            for (int64_t k = 0; k < LINE; ++k) out[n + k] = (from ? out[n + k] : 0) + words[k];
        }
    }
}

// The product of a sparse row and a weight of numbers.
BITGNN_INLINE void sparse_product(const Rows& x, int64_t r, const Weight& w, float* out) {
    const int64_t stride = rounded_up(w.n, LINE);
    const float* values = static_cast<const float*>(x.values);
    for (int64_t n = 0; n < stride; n += LINE) {
        const float* columns = static_cast<const float*>(w.by_row) + n;
        Native sums[LINE / NATIVE] = {};
        for (int64_t e = x.crow[r]; e < x.crow[r + 1]; ++e) {
            const float* row = columns + x.col[e] * stride;
#pragma GCC unroll 16
            for (int p = 0; p < LINE / NATIVE; ++p) sums[p] += values[e] * native(row + p * NATIVE);
        }
        std::memcpy(out + n, sums, sizeof sums);
    }
}

}  // namespace bitgnn::BITGNN_ISA
