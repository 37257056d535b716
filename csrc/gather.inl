// Sums over the edges of a target.
#pragma once

#include <cmath>
#include <type_traits>

#include "kernels.h"
#include "common.inl"
#include "rows.inl"

#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace bitgnn::BITGNN_ISA {

// Vectors of sums that fit the registers.
#if defined(__AVX512F__)
constexpr int HELD = 16;
#else
constexpr int HELD = 4;
#endif

constexpr int HELD_VECTORS = HELD * LANES / NATIVE;

template <int FORM>
using Value = std::conditional_t<FORM == INT8, std::int8_t,
                                 std::conditional_t<FORM == INT16, std::int16_t, float>>;

BITGNN_INLINE Native floats(const float* x) { return native(x); }

template <class T>
BITGNN_INLINE Native floats(const T* x) {
    Native out;
#if defined(__AVX512F__)
    __m512i wide;
    if constexpr (sizeof(T) == 1) {
        wide = _mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(x)));
    } else {
        wide = _mm512_cvtepi16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(x)));
    }
    out = (Native)_mm512_cvtepi32_ps(wide);
#elif defined(__AVX2__)
    __m256i wide;
    if constexpr (sizeof(T) == 1) {
        wide = _mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(x)));
    } else {
        wide = _mm256_cvtepi16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(x)));
    }
    out = (Native)_mm256_cvtepi32_ps(wide);
#else
    for (int k = 0; k < NATIVE; ++k) out[k] = x[k];
#endif
    return out;
}

// How values meet in a row: as their sum, as their largest, or as a sum of numbers that are rounded
// before they are added, as PyG adds them.
enum Meet { ADD, MOST, ADD_ROUNDED };

// Keeps the compiler from one instruction that multiplies, adds, and rounds once.
BITGNN_INLINE void round_now(Native& x) {
#if defined(__AVX512F__)
    asm("" : "+v"(x));
#elif defined(__x86_64__)
    asm("" : "+x"(x));
#elif defined(__aarch64__)
    asm("" : "+w"(x));
#endif
}

// Writes `whole` times x, and finds what is largest.
template <int MEET>
BITGNN_INLINE void put_whole(Native x, float whole, NativeInts& most, float* out) {
    if constexpr (MEET == ADD) x *= whole;
    put(x, out);
    rise_to(x, most);
}

// `whole` times the sums of V vectors of channels: share(edge, source, at) is what those from one of
// these channels on count for. `near` is what else it reads of each source, if anything. `most` holds
// what is largest.
template <int FORM, int V, int MEET, class Share>
BITGNN_INLINE void gather_vectors(const Rows& x, const Edges& edges, int64_t target,
                                  int64_t channel, const float* near, const Share& share,
                                  float whole, NativeInts& most, float* out) {
    using T = Value<FORM>;
    const T* values = static_cast<const T*>(x.values) + channel;
    const int64_t begin = edges.crow[target], end = edges.crow[target + 1];
    const int64_t last = edges.crow[edges.rows];
    const float start = MEET == MOST && begin < end ? -INFINITY : 0.0f;
    constexpr int PARTS = V * LANES / NATIVE;
    Native sums[PARTS];
#pragma GCC unroll 16
    for (int p = 0; p < PARTS; ++p) sums[p] = Native{} + start;
    for (int64_t e = begin; e < end; ++e) {
        if (e + AHEAD < last) {
            const int64_t next = edges.col[e + AHEAD];
            prefetch(values + next * x.stride, V * LANES * int64_t(sizeof(T)));
            if (near) __builtin_prefetch(near + next);
        }
        const int64_t source = edges.col[e];
        const T* row = values + source * x.stride;
#pragma GCC unroll 16
        for (int p = 0; p < PARTS; ++p) {
            Native one = share(e, source, p * NATIVE) * floats(row + p * NATIVE);
            if constexpr (MEET == ADD_ROUNDED) round_now(one);
            if constexpr (MEET == MOST) {
                sums[p] = one > sums[p] ? one : sums[p];
            } else {
                sums[p] += one;
            }
        }
    }
#pragma GCC unroll 16
    for (int p = 0; p < PARTS; ++p) put_whole<MEET>(sums[p], whole, most, out + p * NATIVE);
}

// `whole` times the sums of all channels, of which the largest |x| is returned; `share_at(channel)`
// makes such a function for those from there on.
template <int FORM, int MEET, class ShareAt>
BITGNN_INLINE float gather_row(const Rows& x, const Edges& edges, int64_t target,
                               const float* near, const ShareAt& share_at, float whole,
                               float* out) {
    NativeInts most = NativeInts{};
    // Rows of a caller end where they end.
    const int64_t width = x.stride % LANES ? x.width / LANES * LANES : rounded_up(x.width, LANES);
    int64_t channel = 0;
    const auto take = [&](auto several) __attribute__((always_inline)) {
        constexpr int V = decltype(several)::value;
        for (; channel + V * LANES <= width; channel += V * LANES) {
            gather_vectors<FORM, V, MEET>(x, edges, target, channel, near, share_at(channel), whole,
                                          most, out + channel);
        }
    };
    take(std::integral_constant<int, HELD>{});
    take(std::integral_constant<int, HELD / 2>{});
    take(std::integral_constant<int, HELD / 4>{});
    if constexpr (HELD > 4) take(std::integral_constant<int, 3>{});
    if constexpr (HELD > 4) take(std::integral_constant<int, 2>{});
    if constexpr (HELD > 4) take(std::integral_constant<int, 1>{});
    const int64_t begin = edges.crow[target], end = edges.crow[target + 1];
    for (; channel < x.width; channel += NATIVE) {
        Native sums = Native{};
        const auto share = share_at(channel);
        for (int64_t e = begin; e < end; ++e) {
            const int64_t source = edges.col[e];
            const float* from = static_cast<const float*>(x.values) + source * x.stride + channel;
            const Native row = native(from, smaller(x.width - channel, NATIVE));
            const Native one = share(e, source, 0) * row;
            if (MEET == MOST && e > begin) {
                sums = one > sums ? one : sums;
            } else {
                sums += one;
            }
        }
        put_whole<MEET>(sums, whole, most, out + channel);
    }
    // Integers are filled up with zeros; after numbers there may be anything.
    return FORM == NUMBERS ? largest(out, x.width) : magnitude(most);
}

// The weighted sum, mean or maximum.
template <int FORM>
BITGNN_INLINE float aggregate_row(const Term& term, int64_t target, float* out) {
    const Rows& x = term.rows;
    const Edges& edges = term.edges;
    const float* of_source = !edges.node ? x.scale : FORM == NUMBERS ? edges.node : x.share;
    const auto share_at = [&](int64_t) __attribute__((always_inline)) {
        return [=, weight = edges.weight](int64_t e, int64_t source, int)
            __attribute__((always_inline)) {
            const float share = of_source ? of_source[source] : 1.0f;
            return weight ? share * weight[e] : share;
        };
    };
    if (term.reduce == MAX) {
        return gather_row<FORM, MOST>(x, edges, target, of_source, share_at, 1.0f, out);
    }
    const int64_t edges_here = edges.crow[target + 1] - edges.crow[target];
    const float count = term.reduce == MEAN && edges_here > 1 ? static_cast<float>(edges_here) : 1.0f;
    if (FORM == INT8 && term.exact && !edges.node) {
        const float most =
            gather_row<FORM, ADD_ROUNDED>(x, edges, target, of_source, share_at, 1.0f, out);
#pragma omp simd
        for (int64_t k = 0; k < x.width; ++k) out[k] /= count;
        return most / count;
    }
    const float whole = (edges.node ? edges.node[target] : 1.0f) / count;
    return gather_row<FORM, ADD>(x, edges, target, of_source, share_at, whole, out);
}

}  // namespace bitgnn::BITGNN_ISA
