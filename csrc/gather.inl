// Sums over the edges of a target.
#pragma once

#include <cmath>
#include <type_traits>

#include "kernels.h"
#include "common.inl"
#include "rows.inl"
#include "softmax.inl"

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

// What a thread needs for its sums over edges: room for what edges count for, here those of targets
// from `first` to `last` - 1, and the head of each channel.
struct Gathering {
    float* share;
    int64_t first, last;
    std::int32_t* head_of;
};

// Where vector v of the V of a head begins: the last one ends where the head does.
template <int V>
BITGNN_INLINE int64_t place_in_head(int v, int64_t channels) {
    return v + 1 < V ? v * NATIVE : channels - NATIVE;
}

// The sums of K heads from `head` on, each as V vectors. `share` is what the first edge of all counts
// for.
template <int FORM, int V, int K, bool WHOLE>
BITGNN_INLINE void gather_some(const Term& term, int64_t target, int64_t head, const float* share,
                               Native (&sums)[K][V]) {
    using T = Value<FORM>;
    const Rows& x = term.rows;
    const Edges& edges = term.edges;
    const int64_t heads = term.heads.count, channels = WHOLE ? V * NATIVE : x.width / heads;
    const int64_t last = edges.crow[edges.rows], bytes = K * channels * int64_t(sizeof(T));
    const T* values = static_cast<const T*>(x.values) + head * channels;
#pragma GCC unroll 16
    for (int k = 0; k < K; ++k) {
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) sums[k][v] = Native{};
    }
    for (int64_t e = edges.crow[target]; e < edges.crow[target + 1]; ++e) {
        if (e + AHEAD < last) prefetch(values + edges.col[e + AHEAD] * x.stride, bytes);
        const T* row = values + edges.col[e] * x.stride;
        const float* each = share + e * heads + head;
#pragma GCC unroll 16
        for (int k = 0; k < K; ++k, row += channels) {
#pragma GCC unroll 4
            for (int v = 0; v < V; ++v) {
                sums[k][v] += each[k] * floats(row + place_in_head<V>(v, channels));
            }
        }
    }
}

// The sums of all heads, or their mean, where V vectors hold the channels of a head.
template <int FORM, int V>
BITGNN_INLINE float gather_by_head(const Term& term, int64_t target, const float* share,
                                   float* out) {
    const int64_t heads = term.heads.count, channels = term.rows.width / heads;
    NativeInts most = NativeInts{};
    const auto write = [&](const Native (&head)[V], float whole, float* to)
        __attribute__((always_inline)) {
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) {
            put_whole<ADD>(head[v], whole, most, to + place_in_head<V>(v, channels));
        }
    };
    Native all[V] = {};
    int64_t head = 0;
    const auto take = [&](auto several) __attribute__((always_inline)) {
        constexpr int K = decltype(several)::value;
        for (; head + K <= heads; head += K) {
            Native sums[K][V];
            if (channels == V * NATIVE) {
                gather_some<FORM, V, K, true>(term, target, head, share, sums);
            } else {
                gather_some<FORM, V, K, false>(term, target, head, share, sums);
            }
#pragma GCC unroll 16
            for (int k = 0; k < K; ++k) {
                if (!term.heads.mean) write(sums[k], 1.0f, out + (head + k) * channels);
#pragma GCC unroll 4
                for (int v = 0; v < V; ++v) all[v] += sums[k][v];
            }
        }
    };
    constexpr int MANY = V == 1 ? HELD_VECTORS : V < 4 && NATIVE == LANES ? HELD_VECTORS / 2 : HELD_VECTORS / 4;
    take(std::integral_constant<int, MANY>{});
    take(std::integral_constant<int, MANY / 2>{});
    if constexpr (MANY > 2) take(std::integral_constant<int, 1>{});
    if (term.heads.mean) write(all, 1.0f / static_cast<float>(heads), out);
    return magnitude(most);
}

// The sums of all channels, with what each edge counts for, head by head, in `room`.
template <int FORM>
BITGNN_INLINE float gather_heads(const Term& term, int64_t target, const Gathering& room,
                                 float* out) {
    const Rows& x = term.rows;
    const int64_t heads = term.heads.count, channels = x.width / heads;
    const float* first = room.share - term.edges.crow[room.first] * heads;
    if (heads == 1) {
        const auto share_at = [&](int64_t) {
            return [=](int64_t e, int64_t, int) { return first[e]; };
        };
        return gather_row<FORM, ADD>(x, term.edges, target, nullptr, share_at, 1.0f, out);
    }
    if (channels >= NATIVE) {
        switch ((channels + NATIVE - 1) / NATIVE) {
            case 1: return gather_by_head<FORM, 1>(term, target, first, out);
            case 2: return gather_by_head<FORM, 2>(term, target, first, out);
            case 3: return gather_by_head<FORM, 3>(term, target, first, out);
            case 4: return gather_by_head<FORM, 4>(term, target, first, out);
            default: break;
        }
    }
    const auto share_at = [&](int64_t channel) {
        return HeadOfLane{first, room.head_of + channel, heads};
    };
    const float most =
        gather_row<FORM, ADD>(x, term.edges, target, nullptr, share_at, 1.0f, out);
    if (!term.heads.mean) return most;
    for (int64_t c = 0; c < channels; ++c) {
        float sum = 0;
        for (int64_t h = 0; h < heads; ++h) sum += out[h * channels + c];
        out[c] = sum / static_cast<float>(heads);
    }
    return largest(out, channels);
}

// Attention. `last` is the target after those that will be asked for.
template <int FORM>
BITGNN_INLINE float attention_row(const Term& term, int64_t target, int64_t last, Gathering& room,
                                  float* out) {
    if (target >= room.last) {
        room.first = target, room.last = attend(term, target, last, room.share);
    }
    return gather_heads<FORM>(term, target, room, out);
}

// The width of what a term makes of its edges.
BITGNN_INLINE int64_t gathered_width(const Term& term) {
    return term.heads.count && term.heads.mean ? term.rows.width / term.heads.count
                                               : term.rows.width;
}

template <int FORM>
BITGNN_INLINE float gathered(const Term& term, int64_t target, int64_t last, Gathering& room,
                             float* out) {
    return term.heads.count ? attention_row<FORM>(term, target, last, room, out)
                            : aggregate_row<FORM>(term, target, out);
}

// What a term makes of the edges of a target, one of those up to `last`, that are asked for one after
// the other. Returns the largest |x| of it.
__attribute__((noinline)) float gather(const Term& term, int64_t target, int64_t last,
                                       Gathering& room, float* out) {
    switch (term.rows.form) {
        case INT8: return gathered<INT8>(term, target, last, room, out);
        case INT16: return gathered<INT16>(term, target, last, room, out);
        default: return gathered<NUMBERS>(term, target, last, room, out);
    }
}

}  // namespace bitgnn::BITGNN_ISA
