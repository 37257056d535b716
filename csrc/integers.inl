// From numbers to integers with a scale, row by row.
#pragma once

#include "kernels.h"
#include "common.inl"
#include "product.inl"
#include "rows.inl"

#if defined(__AVX512DQ__) && defined(__AVX512BW__)
#include "integers_512.inl"
#else

namespace bitgnn::BITGNN_ISA {

BITGNN_INLINE void store_bytes(NativeInts x, std::int8_t* out) {
    typedef std::int8_t Bytes __attribute__((vector_size(NATIVE)));
    const Bytes bytes = __builtin_convertvector(x, Bytes);
    std::memcpy(out, &bytes, sizeof bytes);
}
BITGNN_INLINE NativeInts rounded(Native x) {
    constexpr float rounding = Bits<float>::rounding;
    return __builtin_convertvector((x + rounding) - rounding, NativeInts);
}
BITGNN_INLINE Native farther(Native apart, Native x) {
    constexpr float rounding = Bits<float>::rounding;
    const Native rest = x - ((x + rounding) - rounding), positive = rest > 0 ? rest : -rest;
    return apart > positive ? apart : positive;
}

// Whether a row has no integers: a number of it is not finite, its scale is therefore NaN (scale_of), and
// so is everything that zeros stand for. No number is converted that has no integer.
template <class T>
BITGNN_INLINE bool not_finite(Scale scale, int64_t stride, T* to) {
    if (scale.s < INFINITY) return false;
    std::memset(to, 0, static_cast<std::size_t>(stride) * sizeof *to);
    return true;
}

// What `bitgnn.quant.quantize_rows` makes of a row whose scale is known, to the last bit.
// x / s is x * (1 / s) but for its last digits, which decide nothing unless it lies in the middle of
// two integers.
BITGNN_INLINE void quantize_row(const float* x, int64_t width, Scale scale, Quantize q,
                                std::int8_t* to, int64_t stride, std::int32_t* sum) {
    *sum = 0;
    if (not_finite(scale, stride, to)) return;
    constexpr float rounding = Bits<float>::rounding, middle = 0.49995f;
    const float s = scale.s, inverse = scale.inverse, top = q.top;
    const int64_t whole_vectors = width / NATIVE * NATIVE;
    Native apart = Native{};
    NativeInts total = NativeInts{};
    const NativeInts last = NativeInts{} + static_cast<std::int32_t>(top);
    for (int64_t k = 0; k < whole_vectors; k += NATIVE) {
        const Native ratio = native(x + k) * inverse;
        apart = farther(apart, ratio);
        NativeInts integers = rounded(ratio);
        if (top < q.high) integers = integers > last ? last : integers;
        store_bytes(integers, to + k);
        if (OFFSET) total += integers;
    }
    std::int32_t all = OFFSET ? sum_of(total) : 0;
    const auto divide = [&](int64_t from) __attribute__((always_inline)) {
        for (int64_t k = from; k < width; ++k) {
            const float whole = (x[k] / s + rounding) - rounding;
            to[k] = static_cast<std::int8_t>(static_cast<std::int32_t>(whole > top ? top : whole));
            all += to[k];
        }
    };
    if (largest_of(apart) < middle) {
        divide(whole_vectors);
    } else {
        all = 0;
        divide(0);
    }
    for (int64_t k = width; k < stride; ++k) to[k] = 0;
    *sum = all;
}

BITGNN_INLINE void quantize_row_16(const float* x, int64_t width, Scale scale, std::int16_t* to,
                                   int64_t stride, bool) {
    if (not_finite(scale, stride, to)) return;
    constexpr float rounding = Bits<float>::rounding;
    const float inverse = scale.inverse;
#pragma omp simd
    for (int64_t k = 0; k < width; ++k) {
        const float whole = (x[k] * inverse + rounding) - rounding;
        to[k] = static_cast<std::int16_t>(static_cast<std::int32_t>(whole));
    }
    for (int64_t k = width; k < stride; ++k) to[k] = 0;
}

// 16 bits as two integers of 8: 256 * high + low. So a product in 16 bits is two of those in 8 that
// there are anyway.
BITGNN_INLINE void split_row(const float* x, int64_t width, Scale scale, std::int8_t* high,
                             std::int8_t* low, int64_t stride, std::int32_t* sum) {
    *sum = 0;
    if (not_finite(scale, stride, high) && not_finite(scale, stride, low)) return;
    constexpr float rounding = Bits<float>::rounding;
    const float inverse = scale.inverse;
    const int64_t whole_vectors = width / NATIVE * NATIVE;
    NativeInts sums = NativeInts{};
    for (int64_t k = 0; k < whole_vectors; k += NATIVE) {
        const Native ratio = native(x + k) * inverse;
        const NativeInts integers = rounded(ratio);
        const NativeInts upper = (integers + 128) >> 8;
        store_bytes(upper, high + k);
        store_bytes(integers - 256 * upper, low + k);
        if (OFFSET) sums += integers;
    }
    std::int32_t total = OFFSET ? sum_of(sums) : 0;
    for (int64_t k = whole_vectors; k < width; ++k) {
        const float whole = (x[k] * inverse + rounding) - rounding;
        const std::int32_t integer = static_cast<std::int32_t>(whole);
        const std::int32_t upper = (integer + 128) >> 8;
        high[k] = static_cast<std::int8_t>(upper);
        low[k] = static_cast<std::int8_t>(integer - 256 * upper);
        total += integer;
    }
    for (int64_t k = width; k < stride; ++k) high[k] = 0, low[k] = 0;
    *sum = total;
}

}  // namespace bitgnn::BITGNN_ISA

#endif
