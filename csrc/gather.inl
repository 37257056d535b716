// Sums over the edges of a target.
#pragma once

#include <cmath>
#include <type_traits>

#include "kernels.h"
#include "common.inl"
#include "attention.inl"
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
    const NativeInts bits = (NativeInts)x & 0x7fffffff;
    most = bits > most ? bits : most;
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

// What attention reads of the sources of as many edges as there are, at most those of a vector: the
// scores of their H heads, and for each head the scale of the row.
template <int H>
struct Sources {
    static constexpr int EDGES = LANES / H;
    const float *of_heads, *of_row;  // (nodes, 2 H) and (nodes), the latter or null

    BITGNN_INLINE void prefetch(std::int32_t source) const {
        __builtin_prefetch(of_heads + int64_t(source) * 2 * H);
        if (of_row) __builtin_prefetch(of_row + source);
    }
#if defined(__AVX512F__)
    // What lies in a table of rows of that many bytes, of which each head reads a number of its own
    // or all the same.
    template <int BYTES>
    BITGNN_INLINE static Floats gathered(const float* table, const std::int32_t* col,
                                         int64_t count) {
        const auto mask = static_cast<__mmask16>((1u << count) - 1);
        const __m512i sources = _mm512_maskz_loadu_epi32(mask, col);
        return (Floats)_mm512_mask_i32gather_ps(_mm512_setzero_ps(), mask, sources, table, BYTES);
    }
    BITGNN_INLINE static Floats both(__m256 first, __m256 second) {
        return (Floats)_mm512_insertf32x8(_mm512_castps256_ps512(first), second, 1);
    }
#endif

    BITGNN_INLINE Floats scores(const std::int32_t* col, int64_t count) const {
#if defined(__AVX512F__)
        if constexpr (H == 1) return gathered<8>(of_heads, col, count);
        if constexpr (H == 8) {
            const std::int32_t other = col[count > 1];
            return both(_mm256_loadu_ps(of_heads + int64_t(*col) * 2 * H),
                        _mm256_loadu_ps(of_heads + int64_t(other) * 2 * H));
        }
#endif
        float out[LANES] = {};
        for (int64_t e = 0; e < count; ++e) {
            for (int h = 0; h < H; ++h) out[e * H + h] = of_heads[int64_t(col[e]) * 2 * H + h];
        }
        return load(out);
    }

    BITGNN_INLINE Floats scales(const std::int32_t* col, int64_t count) const {
#if defined(__AVX512F__)
        if constexpr (H == 1) return gathered<4>(of_row, col, count);
        if constexpr (H == 8) {
            return both(_mm256_set1_ps(of_row[*col]), _mm256_set1_ps(of_row[col[count > 1]]));
        }
#endif
        float out[LANES] = {};
        for (int64_t e = 0; e < count; ++e) {
            for (int h = 0; h < H; ++h) out[e * H + h] = of_row[col[e]];
        }
        return load(out);
    }
};

// What the edges of a target count for: (edges, heads), filled up to a vector. A vector holds all H
// heads of several edges.
template <int H>
__attribute__((noinline)) void attend(const Term& term, int64_t target, float* share) {
    constexpr int EDGES = Sources<H>::EDGES;
    const Edges& edges = term.edges;
    const int64_t begin = edges.crow[target], count = edges.crow[target + 1] - begin;
    const int64_t rest = edges.crow[edges.rows] - begin;
    const std::int32_t* col = edges.col + begin;
    const Sources<H> sources{term.heads.scores, term.rows.scale};
    const Floats slope = Floats{} + term.heads.slope, one = Floats{} + 1.0f;
    const Floats below = Floats{} - INFINITY, lane = counted();
    float own[LANES];
    for (int k = 0; k < LANES; ++k) own[k] = term.heads.scores[target * 2 * H + H + k % H];
    const Floats dst = load(own);
    Floats top = below;
    for (int64_t e = 0; e < count; e += EDGES) {
        for (int64_t k = e + AHEAD; k < smaller(e + AHEAD + EDGES, rest); ++k) {
            sources.prefetch(col[k]);
        }
        const int64_t these = smaller(EDGES, count - e);
        Floats score = sources.scores(col + e, these) + dst;
        score *= score > 0 ? one : slope;
        score = lane < static_cast<float>(these * H) ? score : below;
        store(score, share + e * H);
        top = score > top ? score : top;
    }
    top = folded<H>(top, [](Floats a, Floats b) { return a > b ? a : b; });
    Floats sums = Floats{};
    for (int64_t e = 0; e < count; e += EDGES) {
        Floats power = exponential(load(share + e * H) - top);
        sums += power;
        if (sources.of_row) power *= sources.scales(col + e, smaller(EDGES, count - e));
        store(power, share + e * H);
    }
    const Floats inverse = one / folded<H>(sums, [](Floats a, Floats b) { return a + b; });
    for (int64_t e = 0; e < count; e += EDGES) store(load(share + e * H) * inverse, share + e * H);
}

// The same for any number of heads, edge by edge.
template <>
__attribute__((noinline)) void attend<0>(const Term& term, int64_t target, float* share) {
    const Edges& edges = term.edges;
    const int64_t heads = term.heads.count, begin = edges.crow[target];
    const int64_t count = edges.crow[target + 1] - begin, last = edges.crow[edges.rows];
    const std::int32_t* col = edges.col + begin;
    const float *scores = term.heads.scores, *scale = term.rows.scale;
    const float* dst = scores + target * 2 * heads + heads;
    const float slope = term.heads.slope;
    float top[MOST_HEADS], sums[MOST_HEADS];
    for (int64_t h = 0; h < heads; ++h) top[h] = -INFINITY, sums[h] = 0;
    for (int64_t e = 0; e < count; ++e) {
        if (begin + e + AHEAD < last) {
            __builtin_prefetch(scores + col[e + AHEAD] * 2 * heads);
            if (scale) __builtin_prefetch(scale + col[e + AHEAD]);
        }
        const float* src = scores + int64_t(col[e]) * 2 * heads;
#pragma omp simd
        for (int64_t h = 0; h < heads; ++h) {
            const float score = src[h] + dst[h];
            const float s = score * (score > 0 ? 1.0f : slope);
            share[e * heads + h] = s;
            top[h] = s > top[h] ? s : top[h];
        }
    }
    for (int64_t e = 0; e < count; ++e) {
#pragma omp simd
        for (int64_t h = 0; h < heads; ++h) share[e * heads + h] -= top[h];
    }
#pragma omp simd
    for (int64_t k = 0; k < count * heads; ++k) share[k] = exponential(share[k]);
    for (int64_t e = 0; e < count; ++e) {
#pragma omp simd
        for (int64_t h = 0; h < heads; ++h) sums[h] += share[e * heads + h];
    }
    for (int64_t h = 0; h < heads; ++h) sums[h] = 1 / sums[h];
    for (int64_t e = 0; e < count; ++e) {
        const float s = scale ? scale[col[e]] : 1.0f;
#pragma omp simd
        for (int64_t h = 0; h < heads; ++h) share[e * heads + h] *= s * sums[h];
    }
}

// What each lane of a vector counts for, where heads end within vectors.
struct HeadOfLane {
    const float* first;
    const std::int32_t* head_of;  // each channel, from this one on
    std::int64_t heads;

    BITGNN_INLINE Native operator()(int64_t e, int64_t, int at) const {
        const std::int32_t* lanes = head_of + at;
#if defined(__AVX512F__)
        if (heads <= LANES) {
            const auto here = static_cast<__mmask16>((1u << heads) - 1);
            const __m512 all = _mm512_maskz_loadu_ps(here, first + e * heads);
            return (Native)_mm512_permutexvar_ps(_mm512_loadu_si512(lanes), all);
        }
#endif
        Native each;
        for (int k = 0; k < NATIVE; ++k) each[k] = first[e * heads + lanes[k]];
        return each;
    }
};

// The head of each channel, and of those that fill up a vector.
BITGNN_INLINE void list_heads(const Term& term, std::int32_t* head_of) {
    const int64_t heads = term.heads.count, channels = term.rows.width / heads;
    for (int64_t k = 0; k < rounded_up(term.rows.width, LANES); ++k) {
        head_of[k] = static_cast<std::int32_t>(smaller(k / channels, heads - 1));
    }
}

// What a thread needs for its sums over edges: room for what the edges of a target count for, and
// the head of each channel.
struct Gathering {
    float* share;
    std::int32_t* head_of;
};

// The sums of all channels, with what each edge counts for, head by head, in `room`.
template <int FORM>
BITGNN_INLINE float gather_heads(const Term& term, int64_t target, const Gathering& room,
                                 float* out) {
    const Rows& x = term.rows;
    const int64_t heads = term.heads.count, channels = x.width / heads;
    const float* first = room.share - term.edges.crow[target] * heads;
    if (heads == 1) {
        const auto share_at = [&](int64_t) {
            return [=](int64_t e, int64_t, int) { return first[e]; };
        };
        return gather_row<FORM, ADD>(x, term.edges, target, nullptr, share_at, 1.0f, out);
    }
    if (channels % LANES == 0) {
        const auto share_at = [&](int64_t channel) {
            return [=](int64_t e, int64_t, int at) {
                return first[e * heads + (channel + at) / channels];
            };
        };
        return gather_row<FORM, ADD>(x, term.edges, target, nullptr, share_at, 1.0f, out);
    }
    const auto share_at = [&](int64_t channel) {
        return HeadOfLane{first, room.head_of + channel, heads};
    };
    return gather_row<FORM, ADD>(x, term.edges, target, nullptr, share_at, 1.0f, out);
}

// Attention.
template <int FORM>
BITGNN_INLINE float attention_row(const Term& term, int64_t target, const Gathering& room,
                                  float* out) {
    const int64_t heads = term.heads.count, channels = term.rows.width / heads;
    switch (heads) {
        case 1: attend<1>(term, target, room.share); break;
        case 2: attend<2>(term, target, room.share); break;
        case 4: attend<4>(term, target, room.share); break;
        case 8: attend<8>(term, target, room.share); break;
        default: attend<0>(term, target, room.share);
    }
    const float most = gather_heads<FORM>(term, target, room, out);
    if (!term.heads.mean || heads == 1) return most;
    for (int64_t c = 0; c < channels; ++c) {
        float sum = 0;
        for (int64_t h = 0; h < heads; ++h) sum += out[h * channels + c];
        out[c] = sum / static_cast<float>(heads);
    }
    return largest(out, channels);
}

// The width of what a term makes of its edges.
BITGNN_INLINE int64_t gathered_width(const Term& term) {
    return term.heads.count && term.heads.mean ? term.rows.width / term.heads.count
                                               : term.rows.width;
}

template <int FORM>
BITGNN_INLINE float gathered(const Term& term, int64_t target, const Gathering& room, float* out) {
    return term.heads.count ? attention_row<FORM>(term, target, room, out)
                            : aggregate_row<FORM>(term, target, out);
}

// What a term makes of the edges of a target. Returns the largest |x| of it.
__attribute__((noinline)) float gather(const Term& term, int64_t target, const Gathering& room,
                                       float* out) {
    switch (term.rows.form) {
        case INT8: return gathered<INT8>(term, target, room, out);
        case INT16: return gathered<INT16>(term, target, room, out);
        default: return gathered<NUMBERS>(term, target, room, out);
    }
}

}  // namespace bitgnn::BITGNN_ISA
