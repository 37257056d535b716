// Sums of products of 8-bit integers and ternary codes, sixteen at a time.
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

#if defined(__AVX512BW__)

struct Sums {
    __m512i v;
};
struct Codes {
    __m512i v;
};

BITGNN_INLINE Sums no_sums() { return {_mm512_setzero_si512()}; }

// Field j of each byte.
template <int J>
BITGNN_INLINE Codes field(const std::uint8_t* packed) {
    const __m512i bytes = _mm512_loadu_si512(packed);
    return {_mm512_and_si512(_mm512_srli_epi16(bytes, 2 * J), _mm512_set1_epi8(3))};
}

// Adds to each lane the products of its four codes and the four values at x.
BITGNN_INLINE void add_products(Sums& sums, Codes w, const std::int8_t* x) {
    std::int32_t four;
    std::memcpy(&four, x, sizeof four);
    const __m512i all = _mm512_set1_epi32(four);
#if defined(__AVX512VNNI__)
    sums.v = _mm512_dpbusd_epi32(sums.v, w.v, all);
#else
    const __m512i pairs = _mm512_maddubs_epi16(w.v, all);
    sums.v = _mm512_add_epi32(sums.v, _mm512_madd_epi16(pairs, _mm512_set1_epi16(1)));
#endif
}

BITGNN_INLINE void store(const Sums& sums, std::int32_t* out) {
    _mm512_storeu_si512(out, sums.v);
}

#elif defined(__AVX2__)

struct Sums {
    __m256i low, high;
};
struct Codes {
    __m256i low, high;
};

BITGNN_INLINE Sums no_sums() { return {_mm256_setzero_si256(), _mm256_setzero_si256()}; }

template <int J>
BITGNN_INLINE Codes field(const std::uint8_t* packed) {
    const __m256i* at = reinterpret_cast<const __m256i*>(packed);
    const __m256i three = _mm256_set1_epi8(3);
    return {_mm256_and_si256(_mm256_srli_epi16(_mm256_loadu_si256(at), 2 * J), three),
            _mm256_and_si256(_mm256_srli_epi16(_mm256_loadu_si256(at + 1), 2 * J), three)};
}

BITGNN_INLINE void add_products(Sums& sums, Codes w, const std::int8_t* x) {
    std::int32_t four;
    std::memcpy(&four, x, sizeof four);
    const __m256i all = _mm256_set1_epi32(four), one = _mm256_set1_epi16(1);
    const __m256i low = _mm256_maddubs_epi16(w.low, all), high = _mm256_maddubs_epi16(w.high, all);
    sums.low = _mm256_add_epi32(sums.low, _mm256_madd_epi16(low, one));
    sums.high = _mm256_add_epi32(sums.high, _mm256_madd_epi16(high, one));
}

BITGNN_INLINE void store(const Sums& sums, std::int32_t* out) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), sums.low);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out) + 1, sums.high);
}

#elif defined(__ARM_FEATURE_DOTPROD)

struct Sums {
    int32x4_t v[4];
};
struct Codes {
    int8x16_t v[4];
};

BITGNN_INLINE Sums no_sums() {
    return {{vdupq_n_s32(0), vdupq_n_s32(0), vdupq_n_s32(0), vdupq_n_s32(0)}};
}

template <int J>
BITGNN_INLINE Codes field(const std::uint8_t* packed) {
    Codes out;
#pragma GCC unroll 4
    for (int k = 0; k < 4; ++k) {
        uint8x16_t bytes = vld1q_u8(packed + 16 * k);
        if constexpr (J > 0) bytes = vshrq_n_u8(bytes, 2 * J);
        out.v[k] = vreinterpretq_s8_u8(vandq_u8(bytes, vdupq_n_u8(3)));
    }
    return out;
}

BITGNN_INLINE void add_products(Sums& sums, Codes w, const std::int8_t* x) {
    std::int32_t four;
    std::memcpy(&four, x, sizeof four);
    const int8x16_t all = vreinterpretq_s8_s32(vdupq_n_s32(four));
#pragma GCC unroll 4
    for (int k = 0; k < 4; ++k) sums.v[k] = vdotq_s32(sums.v[k], w.v[k], all);
}

BITGNN_INLINE void store(const Sums& sums, std::int32_t* out) {
    for (int k = 0; k < 4; ++k) vst1q_s32(out + 4 * k, sums.v[k]);
}

#else

struct Sums {
    std::int32_t v[LANES];
};
struct Codes {
    std::uint8_t v[LANES * STEP];
};

BITGNN_INLINE Sums no_sums() { return {}; }

template <int J>
BITGNN_INLINE Codes field(const std::uint8_t* packed) {
    Codes out;
    for (int k = 0; k < LANES * STEP; ++k) out.v[k] = (packed[k] >> (2 * J)) & 3;
    return out;
}

BITGNN_INLINE void add_products(Sums& sums, Codes w, const std::int8_t* x) {
    for (int lane = 0; lane < LANES; ++lane) {
        std::int32_t sum = 0;
        for (int k = 0; k < STEP; ++k) sum += w.v[lane * STEP + k] * x[k];
        sums.v[lane] += sum;
    }
}

BITGNN_INLINE void store(const Sums& sums, std::int32_t* out) {
    std::memcpy(out, sums.v, sizeof sums.v);
}

#endif

}  // namespace bitgnn::BITGNN_ISA
