// Sums over the edges of a target with attention, head by head; and the one function for what any term
// makes of its edges.
#pragma once

#include <type_traits>

#include "kernels.h"
#include "common.inl"
#include "gather.inl"
#include "softmax.inl"

namespace bitgnn::BITGNN_ISA {

// What each lane of a vector counts for, where heads end within vectors.
struct HeadOfLane {
    const float* first;
    const std::int32_t* head_of;  // each channel, from this one on
    std::int64_t heads;

    BITGNN_INLINE Native operator()(int64_t e, int64_t, int at) const {
        const std::int32_t* lanes = head_of + at;
#if defined(__AVX512F__)
        if (heads <= LANES) {
            const __m512 all = _mm512_maskz_loadu_ps(first_lanes(heads), first + e * heads);
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
    // Of 32 registers, three times 8 may be sums.
    constexpr int MANY = V == 1 ? HELD_VECTORS
                         : V == 2 || (V == 3 && NATIVE == LANES) ? HELD_VECTORS / 2
                                                                 : HELD_VECTORS / 4;
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
