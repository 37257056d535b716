// Products of sparse rows whose values have no sign, four of them at a time.
#pragma once

#include <immintrin.h>

#include "common.inl"

namespace bitgnn::BITGNN_ISA {

// Of 64 columns: adds x_q[e] times row col[e] of a weight for `count` values, filled up to fours.
BITGNN_INLINE void add_fours(const std::uint8_t* x_q, const std::int32_t* col, int64_t count,
                             const std::int8_t* columns, int64_t stride, bool first,
                             std::int32_t* out) {
    __m512i sums[4] = {};
    for (int64_t e = 0; e < count; e += 4) {
        std::int32_t values;
        std::memcpy(&values, x_q + e, sizeof values);
        const __m512i x = _mm512_set1_epi32(values);
        __m512i row[4];
#pragma GCC unroll 4
        for (int k = 0; k < 4; ++k) {
            row[k] = _mm512_loadu_si512(columns + int64_t(col[e + k]) * stride);
        }
        // Four neighbouring bytes are then those of one column.
        const __m512i low = _mm512_unpacklo_epi8(row[0], row[1]);
        const __m512i high = _mm512_unpackhi_epi8(row[0], row[1]);
        const __m512i other_low = _mm512_unpacklo_epi8(row[2], row[3]);
        const __m512i other_high = _mm512_unpackhi_epi8(row[2], row[3]);
        sums[0] = _mm512_dpbusd_epi32(sums[0], x, _mm512_unpacklo_epi16(low, other_low));
        sums[1] = _mm512_dpbusd_epi32(sums[1], x, _mm512_unpackhi_epi16(low, other_low));
        sums[2] = _mm512_dpbusd_epi32(sums[2], x, _mm512_unpacklo_epi16(high, other_high));
        sums[3] = _mm512_dpbusd_epi32(sums[3], x, _mm512_unpackhi_epi16(high, other_high));
    }
    // Vector k has columns 4 k to 4 k + 3 of each 16: quarters change places.
    const __m512i a = _mm512_shuffle_i32x4(sums[0], sums[1], 0x44);
    const __m512i b = _mm512_shuffle_i32x4(sums[2], sums[3], 0x44);
    const __m512i c = _mm512_shuffle_i32x4(sums[0], sums[1], 0xee);
    const __m512i d = _mm512_shuffle_i32x4(sums[2], sums[3], 0xee);
    const __m512i in_order[4] = {_mm512_shuffle_i32x4(a, b, 0x88), _mm512_shuffle_i32x4(a, b, 0xdd),
                                 _mm512_shuffle_i32x4(c, d, 0x88), _mm512_shuffle_i32x4(c, d, 0xdd)};
#pragma GCC unroll 4
    for (int k = 0; k < 4; ++k) {
        std::int32_t* to = out + k * LANES;
        const __m512i there = first ? _mm512_setzero_si512() : _mm512_loadu_si512(to);
        _mm512_storeu_si512(to, _mm512_add_epi32(there, in_order[k]));
    }
}

// Adds the products of `count` values, at most TOGETHER, and a weight of rows; or says that there is
// a sign among them.
BITGNN_INLINE bool add_positive(const float* values, const int64_t* col, int64_t count, float s,
                                float top, const std::int8_t* by_row, int64_t stride, bool first,
                                std::int32_t* out) {
    std::uint8_t x_q[TOGETHER];
    std::int32_t rows[TOGETHER];
    const __m512 scale = _mm512_set1_ps(s);
    const __m512i zero = _mm512_setzero_si512(), last = _mm512_set1_epi32(int(top));
    __mmask16 negative = 0;
    for (int64_t e = 0; e < count; e += LANES) {
        const int64_t left = count - e;
        const unsigned here = left >= LANES ? 0xffffu : (1u << left) - 1;
        const __m512 number = _mm512_maskz_loadu_ps(static_cast<__mmask16>(here), values + e);
        const __m512i whole = _mm512_cvtps_epi32(_mm512_div_ps(number, scale));
        negative |= _mm512_cmplt_epi32_mask(whole, zero);
        _mm_storeu_si128(reinterpret_cast<__m128i*>(x_q + e),
                         _mm512_cvtepi32_epi8(_mm512_min_epi32(whole, last)));
        // What is beyond the row counts for nothing, whichever row of the weight it meets.
        const auto first_half = static_cast<__mmask8>(here), second_half = static_cast<__mmask8>(here >> 8);
        const __m512i low = _mm512_maskz_loadu_epi64(first_half, col + e);
        const __m512i high = _mm512_maskz_loadu_epi64(second_half, col + e + LANES / 2);
        auto* to = reinterpret_cast<__m256i*>(rows + e);
        _mm256_storeu_si256(to, _mm512_cvtepi64_epi32(low));
        _mm256_storeu_si256(to + 1, _mm512_cvtepi64_epi32(high));
    }
    if (negative) return false;
    for (int64_t n = 0; n < stride; n += LINE) {
        add_fours(x_q, rows, count, by_row + n, stride, first, out + n);
    }
    return true;
}

}  // namespace bitgnn::BITGNN_ISA
