// The quantization of rows.
#pragma once

#include <cmath>

#include "kernels.h"
#include "common.inl"

namespace bitgnn::BITGNN_ISA {

template <class T>
struct Bits;
template <>
struct Bits<float> {
    using type = std::uint32_t;
    static constexpr float rounding = 0x1.8p23f;
};
template <>
struct Bits<double> {
    using type = std::uint64_t;
    static constexpr double rounding = 0x1.8p52;
};

// The largest |x|, NaN if there is one: among numbers without a sign, the order of their bits is
// their own, and NaN comes last.
template <class T>
BITGNN_INLINE T largest(const T* x, int64_t count) {
    using U = typename Bits<T>::type;
    constexpr U magnitude = static_cast<U>(~U{0}) >> 1;
    U most = 0;
#pragma omp simd reduction(max : most)
    for (int64_t k = 0; k < count; ++k) {
        U bits;
        std::memcpy(&bits, x + k, sizeof bits);
        bits &= magnitude;
        most = bits > most ? bits : most;
    }
    T out;
    std::memcpy(&out, &most, sizeof out);
    return out;
}

// Makes the bits of numbers without a sign those of |x| where these are larger.
BITGNN_INLINE void rise_to(Native x, NativeInts& most) {
    const NativeInts bits = (NativeInts)x & 0x7fffffff;
    most = bits > most ? bits : most;
}

// The largest of numbers of which these are the bits.
BITGNN_INLINE float magnitude(NativeInts most) {
    const std::int32_t bits = largest_of(most);
    float out;
    std::memcpy(&out, &bits, sizeof out);
    return out;
}

#if defined(__AVX512F__)
BITGNN_INLINE float largest(const float* x, int64_t count) {
    NativeInts most = NativeInts{};
    by_vectors(count, [&](int64_t k, auto n) __attribute__((always_inline)) {
        rise_to(native(x + k, n), most);
    });
    return magnitude(most);
}
#endif

// The scale of a row: at least eps, and NaN if a number of the row is not finite, so that nothing
// of the row is.
BITGNN_INLINE float scale_of(float most, float high, float eps) {
    const float s = most / high;
    return s < eps ? eps : s < INFINITY ? s : NAN;
}

constexpr float LEAST = 1e-30f;  // of a scale of 16 bits
constexpr float HIGH_16 = 32767, HIGH_SPLIT = 127 * 256 + 127;  // see split_row

// The scale of a row that is not written yet. It takes the processor a while, in which another row
// can be written.
struct Scale {
    float s, inverse;
};

BITGNN_INLINE Scale scale_for(float most, float high, float eps) {
    const float s = scale_of(most, high, eps);
    return {s, 1 / s};
}

template <class T>
void quantize_rows(const T* x, const int64_t* offsets, int64_t rows, int64_t width, T high, T top,
                   T eps, T* x_q, T* scale, int threads) {
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
    for (int64_t row = 0; row < rows; ++row) {
        const int64_t begin = offsets ? offsets[row] : row * width;
        const int64_t count = offsets ? offsets[row + 1] - begin : width;
        const T* from = x + begin;
        T* to = x_q + begin;
        T s = largest(from, count) / high;
        s = s < eps ? eps : s;  // NaN stays
        scale[row] = s;
        // What is so large that it has no digits behind the point rounds to even when it is added.
        constexpr T rounding = Bits<T>::rounding;
#pragma omp simd
        for (int64_t k = 0; k < count; ++k) {
            const T whole = (from[k] / s + rounding) - rounding;
            to[k] = whole > top ? top : whole;
        }
    }
}

}  // namespace bitgnn::BITGNN_ISA
