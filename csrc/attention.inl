// Attention over the neighbors of each target (GAT): scores, softmax and the weighted sum in one
// pass, and its gradients in two, one over targets and one over sources.
#pragma once

#include <cmath>
#include <type_traits>

#include "kernels.h"
#include "common.inl"

namespace bitgnn::BITGNN_ISA {

constexpr int64_t TARGETS = 16;  // that a thread takes at once

BITGNN_INLINE double exponential(double x) { return std::exp(x); }

// 2^n of n + 1.5 * 2^23, in whose bits n stands: no conversion to integers, which NaN does not have.
BITGNN_INLINE float power_of_two(float shifted) {
    std::uint32_t bits;
    std::memcpy(&bits, &shifted, sizeof bits);
    bits = (bits + 127) << 23;  // Nothing else of 1.5 * 2^23 is left.
    float power;
    std::memcpy(&power, &bits, sizeof power);
    return power;
}
BITGNN_INLINE Native power_of_two(Native shifted) {
    typedef std::uint32_t NativeBits __attribute__((vector_size(NATIVE * sizeof(float))));
    return (Native)(((NativeBits)shifted + 127) << 23);
}

// e^(x - n ln(2)) for the n that leaves least, by its Taylor polynomial.
template <class T>
BITGNN_INLINE T rest_of_power(T x, T n) {
    const T r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
    T sum = T{} + 1.0f / 5040;
    sum = sum * r + 1.0f / 720;
    sum = sum * r + 1.0f / 120;
    sum = sum * r + 1.0f / 24;
    sum = sum * r + 1.0f / 6;
    sum = sum * r + 0.5f;
    sum = sum * r + 1.0f;
    return sum * r + 1.0f;
}

// exp(x) for x <= 88 to 2 units in the last place: 2^n e^r with |r| <= ln(2) / 2. Of a number, or of
// each one in a vector; in a loop over numbers, the compiler makes vectors of it.
template <class T>
BITGNN_INLINE T exponential(T x) {
    constexpr float lowest = -87.0f, highest = 88.0f, rounding = 0x1.8p23f;
    T bounded = x < lowest ? T{} + lowest : x;  // NaN stays
    bounded = bounded > highest ? T{} + highest : bounded;
    const T shifted = bounded * 1.44269504f + rounding;
    return rest_of_power(bounded, shifted - rounding) * power_of_two(shifted);
}

#if defined(__AVX512F__)
BITGNN_INLINE Native exponential(Native x) {
    const __m512 n = _mm512_roundscale_ps((__m512)(x * 1.44269504f), _MM_FROUND_TO_NEAREST_INT);
    return (Native)_mm512_scalef_ps((__m512)rest_of_power(x, (Native)n), n);
}
#endif

// The inner products of two rows, head by head.
template <class T, int H, int C>
BITGNN_INLINE void inner_products(const T* a, const T* b, int64_t heads, int64_t channels, T* out) {
    if constexpr (H > 1 && C > 0) {
        // Across heads, as many sums at once as there are lanes, instead of along their channels.
        T products[H * C];
#pragma omp simd
        for (int k = 0; k < H * C; ++k) products[k] = a[k] * b[k];
#pragma omp simd
        for (int h = 0; h < H; ++h) {
            T sum = 0;
#pragma GCC unroll 32
            for (int c = 0; c < C; ++c) sum += products[h * C + c];
            out[h] = sum;
        }
    } else {
        for (int64_t h = 0; h < heads; ++h) {
            T sum = 0;
#pragma omp simd reduction(+ : sum)
            for (int64_t c = 0; c < channels; ++c) sum += a[h * channels + c] * b[h * channels + c];
            out[h] = sum;
        }
    }
}

// Makes coefficients of the scores of `count` edges, head by head, of which score_of(e)(h) is one before
// leaky_relu: (count, heads). H heads, or as many as `all` says.
template <int H, class T, class Scores>
BITGNN_INLINE void softmax(int64_t all, int64_t count, T slope, const Scores& score_of, T* share) {
    const int64_t heads = H ? H : all;
    T top[H ? H : MOST_HEADS], sums[H ? H : MOST_HEADS];
    for (int64_t h = 0; h < heads; ++h) top[h] = -INFINITY, sums[h] = 0;
    for (int64_t e = 0; e < count; ++e) {
        const auto score_at = score_of(e);
#pragma omp simd
        for (int64_t h = 0; h < heads; ++h) {
            const T score = score_at(h);
            const T s = score * (score > 0 ? T(1) : slope);
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
#pragma omp simd
        for (int64_t h = 0; h < heads; ++h) share[e * heads + h] *= sums[h];
    }
}

// The coefficients of the edges of one target: softmax over its neighbors, head by head.
template <class T, int H>
BITGNN_INLINE void coefficients(const Attention<T>& a, int64_t target, T* alpha) {
    const int64_t heads = H ? H : a.heads, begin = a.adj.crow[target], end = a.adj.crow[target + 1];
    const T* dst = a.score_dst + target * heads;
    const auto score_of = [&](int64_t e) __attribute__((always_inline)) {
        const T* src = a.score_src + a.adj.col[begin + e] * heads;
        return [=](int64_t h) __attribute__((always_inline)) { return src[h] + dst[h]; };
    };
    softmax<H>(heads, end - begin, a.negative_slope, score_of, alpha + begin * heads);
}

// H heads of C channels; 0 is a number that is not known at compile time.
template <class T, int H, int C>
struct Forward {
    static void run(Attention<T> a, const float* noise, float p, T* out, T* alpha, T* weight,
                    int threads);
};

template <class T, int H, int C>
void Forward<T, H, C>::run(Attention<T> a, const float* noise, float p, T* out, T* alpha,
                           T* weight, int threads) {
    const int64_t heads = H ? H : a.heads, channels = C ? C : a.channels, width = heads * channels;
    const int64_t last = a.adj.crow[a.adj.rows];
    const T kept = 1 / (1 - T(p));
#pragma omp parallel for schedule(dynamic, TARGETS) num_threads(threads) if (threads > 1)
    for (int64_t target = 0; target < a.adj.rows; ++target) {
        const int64_t begin = a.adj.crow[target], end = a.adj.crow[target + 1];
        coefficients<T, H>(a, target, alpha);
        if (noise) {
#pragma omp simd
            for (int64_t k = begin * heads; k < end * heads; ++k) {
                weight[k] = alpha[k] * (noise[k] >= p ? kept : T(0));
            }
        }
        const T* share = noise ? weight : alpha;
        T* to = out + target * width;
        std::memset(to, 0, static_cast<std::size_t>(width) * sizeof(T));
        for (int64_t e = begin; e < end; ++e) {
            if (e + AHEAD < last) {
                prefetch(a.x + a.adj.col[e + AHEAD] * width, width * int64_t(sizeof(T)));
            }
            const T* from = a.x + a.adj.col[e] * width;
            for (int64_t h = 0; h < heads; ++h) {
                const T w = share[e * heads + h];
#pragma omp simd
                for (int64_t c = 0; c < channels; ++c) {
                    to[h * channels + c] += w * from[h * channels + c];
                }
            }
        }
    }
}

template <class T, int H, int C>
struct Backward {
    static void run(Attention<T> a, Transposed t, const T* grad, const T* out, const T* alpha,
                    const T* weight, T* grad_edge, T* grad_x, T* grad_src, T* grad_dst,
                    int threads);
};

template <class T, int H, int C>
void Backward<T, H, C>::run(Attention<T> a, Transposed t, const T* grad, const T* out,
                            const T* alpha, const T* weight, T* grad_edge, T* grad_x, T* grad_src,
                            T* grad_dst, int threads) {
    const int64_t heads = H ? H : a.heads, channels = C ? C : a.channels, width = heads * channels;
    const int64_t last = a.adj.crow[a.adj.rows];
    const T slope = a.negative_slope;
#pragma omp parallel for schedule(dynamic, TARGETS) num_threads(threads) if (threads > 1)
    for (int64_t target = 0; target < a.adj.rows; ++target) {
        const T* g = grad + target * width;
        const T* o = out + target * width;
        const T* dst = a.score_dst + target * heads;
        T inner[H ? H : MOST_HEADS], sum[H ? H : MOST_HEADS], products[H ? H : MOST_HEADS];
        inner_products<T, H, C>(g, o, heads, channels, inner);
        for (int64_t h = 0; h < heads; ++h) sum[h] = 0;
        for (int64_t e = a.adj.crow[target]; e < a.adj.crow[target + 1]; ++e) {
            if (e + AHEAD < last) {
                prefetch(a.x + a.adj.col[e + AHEAD] * width, width * int64_t(sizeof(T)));
            }
            const T* from = a.x + a.adj.col[e] * width;
            const T* src = a.score_src + a.adj.col[e] * heads;
            inner_products<T, H, C>(g, from, heads, channels, products);
#pragma omp simd
            for (int64_t h = 0; h < heads; ++h) {
                const int64_t at = e * heads + h;
                const T all = weight[at] * products[h] - alpha[at] * inner[h];
                const T of_score = all * (src[h] + dst[h] > 0 ? T(1) : slope);
                grad_edge[at] = of_score;
                sum[h] += of_score;
            }
        }
        std::memcpy(grad_dst + target * heads, sum, static_cast<std::size_t>(heads) * sizeof(T));
    }
#pragma omp parallel for schedule(dynamic, TARGETS) num_threads(threads) if (threads > 1)
    for (int64_t source = 0; source < t.csr.rows; ++source) {
        T* to = grad_x + source * width;
        T* sum = grad_src + source * heads;
        std::memset(to, 0, static_cast<std::size_t>(width) * sizeof(T));
        std::memset(sum, 0, static_cast<std::size_t>(heads) * sizeof(T));
        for (int64_t k = t.csr.crow[source]; k < t.csr.crow[source + 1]; ++k) {
            if (k + AHEAD < last) {
                const int64_t edge = t.order[k + AHEAD] * heads;
                prefetch(grad + t.csr.col[k + AHEAD] * width, width * int64_t(sizeof(T)));
                prefetch(weight + edge, heads * int64_t(sizeof(T)));
                prefetch(grad_edge + edge, heads * int64_t(sizeof(T)));
            }
            const T* g = grad + t.csr.col[k] * width;
            const T* share = weight + t.order[k] * heads;
            const T* of_score = grad_edge + t.order[k] * heads;
#pragma omp simd
            for (int64_t h = 0; h < heads; ++h) sum[h] += of_score[h];
            for (int64_t h = 0; h < heads; ++h) {
                const T w = share[h];
#pragma omp simd
                for (int64_t c = 0; c < channels; ++c) {
                    to[h * channels + c] += w * g[h * channels + c];
                }
            }
        }
    }
}

// Small numbers of channels, and the usual numbers of heads, are known to the compiler.
template <template <class, int, int> class Pass, class T, int H>
auto with_channels(int64_t channels) {
    switch (channels) {
        case 1: return Pass<T, H, 1>::run;
        case 2: return Pass<T, H, 2>::run;
        case 3: return Pass<T, H, 3>::run;
        case 4: return Pass<T, H, 4>::run;
        case 5: return Pass<T, H, 5>::run;
        case 6: return Pass<T, H, 6>::run;
        case 7: return Pass<T, H, 7>::run;
        case 8: return Pass<T, H, 8>::run;
        case 16: return Pass<T, H, 16>::run;
        case 32: return Pass<T, H, 32>::run;
        default: return Pass<T, H, 0>::run;
    }
}
template <template <class, int, int> class Pass, class T>
auto fitting(const Attention<T>& a) {
    if constexpr (std::is_same_v<T, float>) {
        switch (a.heads) {
            case 1: return with_channels<Pass, T, 1>(a.channels);
            case 2: return with_channels<Pass, T, 2>(a.channels);
            case 4: return with_channels<Pass, T, 4>(a.channels);
            case 8: return with_channels<Pass, T, 8>(a.channels);
            default: break;
        }
    }
    return Pass<T, 0, 0>::run;
}

template <class T>
void attention(Attention<T> a, const float* noise, float p, T* out, T* alpha, T* weight,
               int threads) {
    fitting<Forward>(a)(a, noise, p, out, alpha, weight, threads);
}

template <class T>
void attention_backward(Attention<T> a, Transposed t, const T* grad, const T* out, const T* alpha,
                        const T* weight, T* grad_edge, T* grad_x, T* grad_src, T* grad_dst,
                        int threads) {
    fitting<Backward>(a)(a, t, grad, out, alpha, weight, grad_edge, grad_x, grad_src, grad_dst,
                         threads);
}

}  // namespace bitgnn::BITGNN_ISA
