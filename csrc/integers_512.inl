// From numbers to integers, by whole cache lines of 64 values, as AVX-512 can: what lies beyond a row
// becomes zeros, up to the line.
#pragma once

#include <immintrin.h>

#include "kernels.h"
#include "common.inl"
#include "product.inl"
#include "rows.inl"

namespace bitgnn::BITGNN_ISA {

// 16 numbers of a row of which `left` are left.
BITGNN_INLINE __m512 sixteen(const float* x, int64_t left) {
    const unsigned mask = left >= LANES ? 0xffffu : left > 0 ? (1u << left) - 1 : 0u;
    return _mm512_maskz_loadu_ps(static_cast<__mmask16>(mask), x);
}

// Calls `use` with each place of a line and the numbers left from there on. If a row is whole lines,
// that is known when this is compiled.
template <class Use>
BITGNN_INLINE void by_lines(int64_t width, const Use& use) {
    int64_t k = 0;
    for (; k + LINE <= width; k += LINE) use(k, std::integral_constant<int64_t, LINE>{});
    if (k < width) use(k, width - k);
}

// Integers of 16 bits of two times 16 of 32 bits, in quarters that have changed places; what does not
// fit becomes the largest that does. The same of 8 bits, in their order.
BITGNN_INLINE __m512i words(__m512i first, __m512i second) {
    return _mm512_packs_epi32(first, second);
}
BITGNN_INLINE __m512i in_order(__m512i bytes) {
    const __m512i from = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    return _mm512_permutexvar_epi32(from, bytes);
}

// Adds up bytes, four in a lane.
BITGNN_INLINE void add_bytes(__m512i& sums, __m512i bytes) {
    add_products(sums, _mm512_set1_epi8(1), bytes);
}

// Rounds x * by, or x / by, and writes it. Returns whether no result was in the middle of two integers,
// or about there.
template <bool DIVIDE>
BITGNN_INLINE bool round_row(const float* x, int64_t width, float by, float top, std::int8_t* to,
                             std::int32_t* sum) {
    constexpr float middle = 0.49998f;
    const __m512 factor = _mm512_set1_ps(by);
    const __m512i last = _mm512_set1_epi8(static_cast<char>(top));
    constexpr int nearest = 8, magnitude_of_larger = 2 + 1, positive = 2 << 2;
    __m512 apart = _mm512_setzero_ps();
    __m512i sums = _mm512_setzero_si512();
    by_lines(width, [&](int64_t k, auto left) __attribute__((always_inline)) {
        __m512i whole[4];
#pragma GCC unroll 4
        for (int v = 0; v < 4; ++v) {
            const __m512 number = sixteen(x + k + v * LANES, left - v * LANES);
            const __m512 ratio = DIVIDE ? number / factor : number * factor;
            // The larger magnitude of `apart` and of the distance from the next integer.
            if (!DIVIDE) {
                apart = _mm512_range_ps(apart, _mm512_reduce_ps(ratio, nearest),
                                        magnitude_of_larger | positive);
            }
            whole[v] = _mm512_cvtps_epi32(ratio);
        }
        __m512i bytes = _mm512_packs_epi16(words(whole[0], whole[1]), words(whole[2], whole[3]));
        bytes = in_order(_mm512_min_epi8(bytes, last));
        _mm512_storeu_si512(to + k, bytes);
        if (OFFSET) add_bytes(sums, bytes);
    });
    *sum = OFFSET ? _mm512_reduce_add_epi32(sums) : 0;
    return _mm512_cmp_ps_mask(apart, _mm512_set1_ps(middle), _CMP_LT_OQ) == 0xffff;
}

BITGNN_INLINE void quantize_row(const float* x, int64_t width, Scale scale, Quantize q,
                                std::int8_t* to, int64_t, std::int32_t* sum) {
    if (round_row<false>(x, width, scale.inverse, q.top, to, sum)) return;
    round_row<true>(x, width, scale.s, q.top, to, sum);
}

BITGNN_INLINE void quantize_row_16(const float* x, int64_t width, Scale scale, std::int16_t* to,
                                   int64_t stride, bool passes_by) {
    const __m512 inverse = _mm512_set1_ps(scale.inverse);
    const __m512i from = _mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7);
    for (int64_t k = 0; k < stride; k += 2 * LANES) {
        const __m512i first = _mm512_cvtps_epi32(sixteen(x + k, width - k) * inverse);
        const int64_t then = k + LANES;
        const __m512i second = _mm512_cvtps_epi32(sixteen(x + then, width - then) * inverse);
        const __m512i whole = _mm512_permutexvar_epi64(from, words(first, second));
        if (passes_by) {
            _mm512_stream_si512(reinterpret_cast<__m512i*>(to + k), whole);
        } else {
            _mm512_storeu_si512(to + k, whole);
        }
    }
}

BITGNN_INLINE void split_row(const float* x, int64_t width, Scale scale, std::int8_t* high,
                             std::int8_t* low, int64_t, std::int32_t* sum) {
    const __m512 inverse = _mm512_set1_ps(scale.inverse);
    const __m512i half = _mm512_set1_epi16(128), lower = _mm512_set1_epi16(255);
    __m512i high_sums = _mm512_setzero_si512(), low_sums = _mm512_setzero_si512();
    by_lines(width, [&](int64_t k, auto left) __attribute__((always_inline)) {
        __m512i two[2], upper[2];
#pragma GCC unroll 2
        for (int v = 0; v < 2; ++v) {
            const int64_t at = 2 * v * LANES, then = at + LANES;
            two[v] = words(_mm512_cvtps_epi32(sixteen(x + k + at, left - at) * inverse),
                           _mm512_cvtps_epi32(sixteen(x + k + then, left - then) * inverse));
            upper[v] = _mm512_srai_epi16(_mm512_add_epi16(two[v], half), 8);
        }
        const __m512i highs = in_order(_mm512_packs_epi16(upper[0], upper[1]));
        // What is left are the lower eight bits, with a sign.
        const __m512i lows = in_order(_mm512_packus_epi16(_mm512_and_si512(two[0], lower),
                                                          _mm512_and_si512(two[1], lower)));
        _mm512_storeu_si512(high + k, highs);
        _mm512_storeu_si512(low + k, lows);
        if (OFFSET) add_bytes(high_sums, highs), add_bytes(low_sums, lows);
    });
    *sum = OFFSET ? 256 * _mm512_reduce_add_epi32(high_sums) + _mm512_reduce_add_epi32(low_sums) : 0;
}

}  // namespace bitgnn::BITGNN_ISA
