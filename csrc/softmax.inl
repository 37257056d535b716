// What edges count for in attention: a softmax over those of each target, head by head.
#pragma once

#include <cmath>

#include "kernels.h"
#include "common.inl"
#include "attention.inl"

namespace bitgnn::BITGNN_ISA {

// So many numbers of edges are worked on together, and those of one target in any case: what one
// target waits for, another does not.
constexpr int64_t ATTENDED = 128;

// The numbers that a table has for nodes.
template <class Count>
BITGNN_INLINE Native looked_up(const float* table, const std::int32_t* nodes, Count count) {
#if defined(__AVX512F__)
    const __mmask16 here = first_lanes(count);
    return (Native)_mm512_mask_i32gather_ps(_mm512_setzero_ps(), here,
                                            _mm512_maskz_loadu_epi32(here, nodes), table, 4);
#else
    Native out = Native{};
    for (int64_t k = 0; k < count; ++k) out[k] = table[nodes[k]];
    return out;
#endif
}

// In each lane the sum of those that are a multiple of H away from it.
template <int H>
BITGNN_INLINE Native folded(Native x) {
    for (int by = NATIVE / 2; by >= H; by /= 2) {
        Native turned;
#if defined(__AVX512F__)
        const __m512i lanes =
            _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
        turned = (Native)_mm512_permutexvar_ps(_mm512_add_epi32(lanes, _mm512_set1_epi32(by)),
                                               (__m512)x);
#else
        for (int k = 0; k < NATIVE; ++k) turned[k] = x[(k + by) % NATIVE];
#endif
        x += turned;
    }
    return x;
}

// Whether all numbers of a vector lie between two others.
BITGNN_INLINE bool all_between(Native x, float least, float most) {
    const NativeInts here = (x > Native{} + least) & (x < Native{} + most);
#if defined(__AVX512DQ__)
    return _mm512_movepi32_mask((__m512i)here) == 0xffff;
#else
    bool all = true;
    for (int k = 0; k < NATIVE; ++k) all &= here[k] != 0;
    return all;
#endif
}

// The scores of the edges of a target, before leaky_relu: (edges, heads). H heads; 0 is a number that
// is not known here.
template <int H>
BITGNN_INLINE void read_scores(const Term& term, int64_t target, float* to) {
    const Edges& edges = term.edges;
    const int64_t heads = H ? H : term.heads.count, begin = edges.crow[target];
    const int64_t end = edges.crow[target + 1], last = edges.crow[edges.rows];
    const float *src = term.heads.scores.src, *dst = term.heads.scores.dst + target * heads;
    if constexpr (H == 1) {
        by_vectors(end - begin, [&](int64_t k, auto n) __attribute__((always_inline)) {
            put(looked_up(src, edges.col + begin + k, n) + *dst, to + k, n);
        });
        return;
    }
    for (int64_t e = begin; e < end; ++e, to += heads) {
        if (e + AHEAD < last) {
            const int64_t next = edges.col[e + AHEAD];
            prefetch(src + next * heads, heads * int64_t(sizeof *src));
            if (term.rows.scale) __builtin_prefetch(term.rows.scale + next);
        }
        const float* from = src + edges.col[e] * heads;
#pragma omp simd
        for (int64_t h = 0; h < heads; ++h) to[h] = from[h] + dst[h];
    }
}

// Makes coefficients of the scores of `count` edges that stand where those will, for any number of
// heads.
BITGNN_INLINE void softmax_here(const Heads& heads, int64_t count, float* share) {
    const auto score_of = [&](int64_t e) __attribute__((always_inline)) {
        const float* scores = share + e * heads.count;
        return [=](int64_t h) __attribute__((always_inline)) { return scores[h]; };
    };
    softmax<0>(heads.count, count, heads.slope, score_of, share);
}

// Divides powers of `count` edges by their sum, for each of H heads. Returns whether that is a sum to
// divide by: unless scores are large, there is no need to take the largest of them off before.
template <int H>
BITGNN_INLINE bool divide_by_sum(int64_t count, float* share) {
    Native sums = Native{};
    by_vectors(count * H, [&](int64_t k, auto n) __attribute__((always_inline)) {
        sums += native(share + k, n);
    });
    sums = folded<H>(sums);
    const Native inverse = (Native{} + 1.0f) / sums;
    by_vectors(count * H, [&](int64_t k, auto n) __attribute__((always_inline)) {
        put(native(share + k, n) * inverse, share + k, n);
    });
    return count == 0 || all_between(sums, 1e-18f, 1e18f);
}

// Makes coefficients of the scores of all edges of targets from `first` to `last` - 1.
template <int H>
BITGNN_INLINE void softmaxes(const Term& term, int64_t first, int64_t last, float* share) {
    const int64_t *crow = term.edges.crow, begin = crow[first];
    const Native slope = Native{} + term.heads.slope, one = Native{} + 1.0f;
    by_vectors((crow[last] - begin) * H, [&](int64_t k, auto n) __attribute__((always_inline)) {
        const Native sum = native(share + k, n);
        put(exponential(sum * (sum > 0 ? one : slope)), share + k, n);
    });
    for (int64_t target = first; target < last; ++target) {
        const int64_t count = crow[target + 1] - crow[target];
        float* here = share + (crow[target] - begin) * H;
        if (!divide_by_sum<H>(count, here)) {
            read_scores<H>(term, target, here);
            softmax_here(term.heads, count, here);
        }
    }
}

template <>
BITGNN_INLINE void softmaxes<0>(const Term& term, int64_t first, int64_t last, float* share) {
    const int64_t* crow = term.edges.crow;
    for (int64_t target = first; target < last; ++target) {
        const int64_t count = crow[target + 1] - crow[target];
        softmax_here(term.heads, count, share + (crow[target] - crow[first]) * term.heads.count);
    }
}

// What the edges of these targets count for: (edges, heads), each times the scale of its source's
// row, if there is one.
template <int H>
__attribute__((noinline)) void attend(const Term& term, int64_t first, int64_t last,
                                      float* share) {
    const int64_t heads = H ? H : term.heads.count;
    const int64_t *crow = term.edges.crow, begin = crow[first], edges = crow[last] - begin;
    for (int64_t target = first; target < last; ++target) {
        read_scores<H>(term, target, share + (crow[target] - begin) * heads);
    }
    softmaxes<H>(term, first, last, share);
    const float* scale = term.rows.scale;
    const std::int32_t* col = term.edges.col + begin;
    if (!scale) return;
    if constexpr (H == 1) {
        by_vectors(edges, [&](int64_t k, auto n) __attribute__((always_inline)) {
            put(native(share + k, n) * looked_up(scale, col + k, n), share + k, n);
        });
        return;
    }
    for (int64_t e = 0; e < edges; ++e) {
        const float each = scale[col[e]];
#pragma omp simd
        for (int64_t h = 0; h < heads; ++h) share[e * heads + h] *= each;
    }
}

// The same, of as many targets as there is room for. Returns the one after them.
BITGNN_INLINE int64_t attend(const Term& term, int64_t first, int64_t last, float* share) {
    const int64_t *crow = term.edges.crow, heads = term.heads.count;
    int64_t until = first + 1;
    while (until < last && (crow[until + 1] - crow[first]) * heads <= ATTENDED) ++until;
    switch (heads <= NATIVE ? heads : 0) {
        case 1: attend<1>(term, first, until, share); break;
        case 2: attend<2>(term, first, until, share); break;
        case 4: attend<4>(term, first, until, share); break;
        case 8: attend<8>(term, first, until, share); break;
        default: attend<0>(term, first, until, share);
    }
    return until;
}

}  // namespace bitgnn::BITGNN_ISA
