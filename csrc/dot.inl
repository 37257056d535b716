// Sums of products of 8-bit integers and ternary codes, as many at a time as a register holds.
//
// A ternary weight w is held as the code w + 1 in two bits. Codes have no sign, which is what the
// instructions for such products ask of one side; the sum of the row, times the 1 that is too much,
// is taken off afterwards.
#pragma once

#include "common.inl"

#if defined(__AVX512BW__) || defined(__AVX2__)
#include <immintrin.h>
#elif defined(__ARM_FEATURE_DOTPROD)
#include <arm_neon.h>
#endif

namespace bitgnn::BITGNN_ISA {

constexpr int STEP = 4;     // values of a row that each lane takes at once
constexpr int FIELDS = 4;   // codes in a byte
constexpr int GROUP = STEP * FIELDS;  // values of a row for 64 bytes of codes

// Each instruction set has here its Sums, of as many lanes as SUMS says, the Codes of as many
// columns, and the same four Values for all of them.

#if defined(__AVX512BW__)

using Sums = __m512i;
using Codes = __m512i;
using Values = __m512i;

constexpr int SUMS = 16;

BITGNN_INLINE Sums no_sums() { return _mm512_setzero_si512(); }

// Field j of each byte.
BITGNN_INLINE Codes field(const std::uint8_t* packed, int j) {
    const __m512i bytes = _mm512_loadu_si512(packed);
    return _mm512_and_si512(_mm512_srli_epi16(bytes, 2 * j), _mm512_set1_epi8(3));
}

BITGNN_INLINE Values four(const std::int8_t* x) {
    std::int32_t found;
    std::memcpy(&found, x, sizeof found);
    return _mm512_set1_epi32(found);
}

// Adds to each lane the products of its four codes and the four values.
BITGNN_INLINE void add_products(Sums& sums, Codes w, Values x) {
#if defined(__AVX512VNNI__)
    sums = _mm512_dpbusd_epi32(sums, w, x);
#else
    const __m512i pairs = _mm512_maddubs_epi16(w, x);
    sums = _mm512_add_epi32(sums, _mm512_madd_epi16(pairs, _mm512_set1_epi16(1)));
#endif
}

BITGNN_INLINE Sums times_256(Sums sums) { return _mm512_slli_epi32(sums, 8); }

BITGNN_INLINE void store(Sums sums, std::int32_t* out) { _mm512_storeu_si512(out, sums); }

#elif defined(__AVX2__)

using Sums = __m256i;
using Codes = __m256i;
using Values = __m256i;

constexpr int SUMS = 8;

BITGNN_INLINE Sums no_sums() { return _mm256_setzero_si256(); }

BITGNN_INLINE Codes field(const std::uint8_t* packed, int j) {
    const __m256i bytes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(packed));
    return _mm256_and_si256(_mm256_srli_epi16(bytes, 2 * j), _mm256_set1_epi8(3));
}

BITGNN_INLINE Values four(const std::int8_t* x) {
    std::int32_t found;
    std::memcpy(&found, x, sizeof found);
    return _mm256_set1_epi32(found);
}

BITGNN_INLINE void add_products(Sums& sums, Codes w, Values x) {
    const __m256i pairs = _mm256_maddubs_epi16(w, x);
    sums = _mm256_add_epi32(sums, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}

BITGNN_INLINE Sums times_256(Sums sums) { return _mm256_slli_epi32(sums, 8); }

BITGNN_INLINE void store(Sums sums, std::int32_t* out) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), sums);
}

#elif defined(__ARM_FEATURE_DOTPROD)

using Sums = int32x4_t;
using Codes = int8x16_t;
using Values = int8x8_t;

constexpr int SUMS = 4;

BITGNN_INLINE Sums no_sums() { return vdupq_n_s32(0); }

BITGNN_INLINE Codes field(const std::uint8_t* packed, int j) {
    const uint8x16_t bytes = vld1q_u8(packed) >> (2 * j);
    return vreinterpretq_s8_u8(vandq_u8(bytes, vdupq_n_u8(3)));
}

BITGNN_INLINE Values four(const std::int8_t* x) {
    std::int32_t found;
    std::memcpy(&found, x, sizeof found);
    return vreinterpret_s8_s32(vdup_n_s32(found));
}

BITGNN_INLINE void add_products(Sums& sums, Codes w, Values x) {
    sums = vdotq_lane_s32(sums, w, x, 0);
}

BITGNN_INLINE Sums times_256(Sums sums) { return vshlq_n_s32(sums, 8); }

BITGNN_INLINE void store(Sums sums, std::int32_t* out) { vst1q_s32(out, sums); }

#else

struct Sums {
    std::int32_t v[LANES];
};
struct Codes {
    std::uint8_t v[LANES * STEP];
};
using Values = const std::int8_t*;

constexpr int SUMS = LANES;

BITGNN_INLINE Sums no_sums() { return {}; }

BITGNN_INLINE Codes field(const std::uint8_t* packed, int j) {
    Codes out;
    for (int k = 0; k < LANES * STEP; ++k) out.v[k] = (packed[k] >> (2 * j)) & 3;
    return out;
}

BITGNN_INLINE Values four(const std::int8_t* x) { return x; }

BITGNN_INLINE void add_products(Sums& sums, const Codes& w, Values x) {
    for (int lane = 0; lane < LANES; ++lane) {
        std::int32_t sum = 0;
        for (int k = 0; k < STEP; ++k) sum += w.v[lane * STEP + k] * x[k];
        sums.v[lane] += sum;
    }
}

BITGNN_INLINE Sums times_256(Sums sums) {
    for (std::int32_t& sum : sums.v) sum *= 256;
    return sums;
}

BITGNN_INLINE void store(const Sums& sums, std::int32_t* out) {
    std::memcpy(out, sums.v, sizeof sums.v);
}

#endif

}  // namespace bitgnn::BITGNN_ISA
