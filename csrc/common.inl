// What kernels have in common.
#pragma once

#include <cstdint>
#include <cstring>

#define BITGNN_INLINE inline __attribute__((always_inline))

namespace bitgnn::BITGNN_ISA {

using std::int64_t;

constexpr int64_t LINE = 64;   // bytes of a cache line
constexpr int64_t AHEAD = 64;  // edges between what is asked of memory and what is worked on

constexpr int LANES = 16;  // numbers in a vector

typedef float Floats __attribute__((vector_size(64)));

BITGNN_INLINE int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

BITGNN_INLINE int64_t rounded_up(int64_t size, int64_t multiple) {
    return (size + multiple - 1) / multiple * multiple;
}

typedef std::int32_t Ints __attribute__((vector_size(64)));

BITGNN_INLINE float largest_of(Floats x) {
    for (int half = LANES / 2; half; half /= 2) {
        for (int k = 0; k < half; ++k) x[k] = x[k] > x[k + half] ? x[k] : x[k + half];
    }
    return x[0];
}

BITGNN_INLINE Floats load(const float* x) {
    Floats out;
    std::memcpy(&out, x, sizeof out);
    return out;
}

// Asks memory for `bytes` from an address on.
BITGNN_INLINE void prefetch(const void* from, int64_t bytes) {
    const char* at = static_cast<const char*>(from);
    for (int64_t k = 0; k < bytes; k += LINE) __builtin_prefetch(at + k);
}

}  // namespace bitgnn::BITGNN_ISA
