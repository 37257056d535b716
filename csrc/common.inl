// What kernels have in common.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

#if defined(__AVX512F__)
#include <immintrin.h>
#endif

#define BITGNN_INLINE inline __attribute__((always_inline))

namespace bitgnn::BITGNN_ISA {

using std::int64_t;

constexpr int64_t LINE = 64;   // bytes of a cache line
constexpr int64_t AHEAD = 64;  // edges between what is asked of memory and what is worked on
constexpr int64_t TOGETHER = 128;  // values of a sparse row whose products add up in 16 bits

constexpr int LANES = 16;  // numbers in a vector

BITGNN_INLINE constexpr int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

BITGNN_INLINE int64_t rounded_up(int64_t size, int64_t multiple) {
    return (size + multiple - 1) / multiple * multiple;
}

// As many numbers as a register holds. The compiler keeps larger vectors in memory.
#if defined(__AVX512F__)
constexpr int NATIVE = 16;
#elif defined(__AVX2__)
constexpr int NATIVE = 8;
#else
constexpr int NATIVE = 4;
#endif
typedef float Native __attribute__((vector_size(NATIVE * sizeof(float))));
typedef std::int32_t NativeInts __attribute__((vector_size(NATIVE * sizeof(float))));

#if defined(__AVX512F__)
// A mask of the first lanes of a vector.
BITGNN_INLINE __mmask16 first_lanes(int64_t count) {
    return static_cast<__mmask16>((1u << count) - 1);
}
BITGNN_INLINE std::int32_t largest_of(NativeInts x) { return _mm512_reduce_max_epi32((__m512i)x); }
#else
template <class Vector>
BITGNN_INLINE auto largest_of(Vector x) {
    for (int half = sizeof x / 8; half; half /= 2) {
        for (int k = 0; k < half; ++k) x[k] = x[k] > x[k + half] ? x[k] : x[k + half];
    }
    return x[0];
}
template <class Vector>
BITGNN_INLINE std::int32_t sum_of(Vector x) {
    std::int32_t sum = 0;
    for (unsigned k = 0; k < sizeof x / sizeof sum; ++k) sum += x[k];
    return sum;
}
#endif

BITGNN_INLINE Native native(const float* x) {
    Native out;
    std::memcpy(&out, x, sizeof out);
    return out;
}
BITGNN_INLINE NativeInts native(const std::int32_t* x) {
    NativeInts out;
    std::memcpy(&out, x, sizeof out);
    return out;
}
BITGNN_INLINE void put(Native x, float* to) { std::memcpy(to, &x, sizeof x); }

// The first `count` numbers alone.
BITGNN_INLINE void put(Native x, float* to, std::integral_constant<int64_t, NATIVE>) { put(x, to); }
BITGNN_INLINE void put(Native x, float* to, int64_t count) {
#if defined(__AVX512F__)
    _mm512_mask_storeu_ps(to, first_lanes(count), (__m512)x);
#else
    std::memcpy(to, &x, static_cast<std::size_t>(count) * sizeof *to);
#endif
}

// A vector whose numbers beyond the first `count` are 0.
BITGNN_INLINE Native native(const float* x, std::integral_constant<int64_t, NATIVE>) {
    return native(x);
}
BITGNN_INLINE Native native(const float* x, int64_t count) {
#if defined(__AVX512F__)
    return (Native)_mm512_maskz_loadu_ps(first_lanes(count), x);
#else
    Native out = Native{};
    std::memcpy(&out, x, static_cast<std::size_t>(count) * sizeof *x);
    return out;
#endif
}

BITGNN_INLINE float sum_of(Native x) {
#if defined(__AVX512F__)
    return _mm512_reduce_add_ps((__m512)x);
#else
    for (int half = NATIVE / 2; half; half /= 2) {
        for (int k = 0; k < half; ++k) x[k] += x[k + half];
    }
    return x[0];
#endif
}

// The sum of each of as many vectors as a vector has numbers.
BITGNN_INLINE Native sums_of(const Native (&x)[NATIVE]) {
#if defined(__AVX512F__)
    __m512 two[8], four[4];
#pragma GCC unroll 8
    for (int k = 0; k < 8; ++k) {
        const __m512 a = (__m512)x[2 * k], b = (__m512)x[2 * k + 1];
        two[k] = _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
    }
#pragma GCC unroll 4
    for (int k = 0; k < 4; ++k) {
        const __m512d a = _mm512_castps_pd(two[2 * k]), b = _mm512_castps_pd(two[2 * k + 1]);
        four[k] = _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(a, b)),
                                _mm512_castpd_ps(_mm512_unpackhi_pd(a, b)));
    }
    // Each quarter of these holds the sums of its own quarter, of four vectors.
    const auto joined = [](__m512 a, __m512 b) __attribute__((always_inline)) {
        return _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x88), _mm512_shuffle_f32x4(a, b, 0xdd));
    };
    return (Native)joined(joined(four[0], four[1]), joined(four[2], four[3]));
#else
    Native out;
    for (int k = 0; k < NATIVE; ++k) out[k] = sum_of(x[k]);
    return out;
#endif
}

// Calls `use` with the place of each vector of a row, and how many numbers of it are the row's.
template <class Use>
BITGNN_INLINE void by_vectors(int64_t width, const Use& use) {
    int64_t k = 0;
    for (; k + NATIVE <= width; k += NATIVE) use(k, std::integral_constant<int64_t, NATIVE>{});
    if (k < width) use(k, width - k);
}

// Asks memory for `bytes` from an address on.
BITGNN_INLINE void prefetch(const void* from, int64_t bytes) {
    const char* at = static_cast<const char*>(from);
    for (int64_t k = 0; k < bytes; k += LINE) __builtin_prefetch(at + k);
}

}  // namespace bitgnn::BITGNN_ISA
