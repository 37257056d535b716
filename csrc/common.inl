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

constexpr int LANES = 16;  // numbers in a vector

typedef float Floats __attribute__((vector_size(64)));

BITGNN_INLINE constexpr int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

BITGNN_INLINE int64_t rounded_up(int64_t size, int64_t multiple) {
    return (size + multiple - 1) / multiple * multiple;
}

typedef std::int32_t Ints __attribute__((vector_size(64)));

#if defined(__AVX512F__)
BITGNN_INLINE float largest_of(Floats x) { return _mm512_reduce_max_ps((__m512)x); }
BITGNN_INLINE std::int32_t largest_of(Ints x) { return _mm512_reduce_max_epi32((__m512i)x); }
BITGNN_INLINE std::int32_t sum_of(Ints x) { return _mm512_reduce_add_epi32((__m512i)x); }
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

BITGNN_INLINE Floats load(const float* x) {
    Floats out;
    std::memcpy(&out, x, sizeof out);
    return out;
}
BITGNN_INLINE void store(Floats x, float* to) { std::memcpy(to, &x, sizeof x); }

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

// A vector whose numbers beyond the first `count` are 0.
BITGNN_INLINE Floats load(const float* x, int64_t count) {
#if defined(__AVX512F__)
    return (Floats)_mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << count) - 1), x);
#else
    Floats out = Floats{};
    std::memcpy(&out, x, static_cast<std::size_t>(count) * sizeof *x);
    return out;
#endif
}

BITGNN_INLINE Native native(const float* x, std::integral_constant<int64_t, NATIVE>) {
    return native(x);
}
BITGNN_INLINE Native native(const float* x, int64_t count) {
#if defined(__AVX512F__)
    return load(x, count);
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

// 0, 1, 2 and so on.
BITGNN_INLINE Floats counted() {
    Floats out;
    for (int k = 0; k < LANES; ++k) out[k] = static_cast<float>(k);
    return out;
}

// In each lane what `join` makes of those that are a multiple of H away from it.
template <int H, class Join>
BITGNN_INLINE Floats folded(Floats x, const Join& join) {
    for (int by = LANES / 2; by >= H; by /= 2) {
        Floats turned;
#if defined(__AVX512F__)
        const Ints from = (__builtin_convertvector(counted(), Ints) + by) & (LANES - 1);
        turned = (Floats)_mm512_permutexvar_ps((__m512i)from, (__m512)x);
#else
        for (int k = 0; k < LANES; ++k) turned[k] = x[(k + by) % LANES];
#endif
        x = join(x, turned);
    }
    return x;
}

// Asks memory for `bytes` from an address on.
BITGNN_INLINE void prefetch(const void* from, int64_t bytes) {
    const char* at = static_cast<const char*>(from);
    for (int64_t k = 0; k < bytes; k += LINE) __builtin_prefetch(at + k);
}

}  // namespace bitgnn::BITGNN_ISA
