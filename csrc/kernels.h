// The kernels of one instruction set, as a table of functions; T is float or double.
#pragma once

#include <cstdint>

namespace bitgnn {

// A sparse matrix by rows (CSR): row i has the values from crow[i] to crow[i + 1].
struct Csr {
    const std::int64_t* crow;
    const std::int64_t* col;
    std::int64_t rows;
};

// The transpose of such a matrix: its value k is value order[k] of the matrix.
struct Transposed {
    Csr csr;
    const std::int32_t* order;
};

constexpr std::int64_t MOST_HEADS = 256;

// Attention of several heads, at most MOST_HEADS. Scores are (nodes, heads); what belongs to edges
// is (edges, heads).
template <class T>
struct Attention {
    Csr adj;
    std::int64_t heads;
    std::int64_t channels;  // of a head
    const T* x;             // (sources, heads * channels)
    const T* score_src;
    const T* score_dst;
    T negative_slope;
};

template <class T>
struct Typed {
    // out (targets, heads * channels), the coefficients alpha and, if there is noise, what dropout
    // with the probability p makes of them: weight.
    void (*attention)(Attention<T>, const float* noise, float p, T* out, T* alpha, T* weight,
                      int threads);

    // The gradients of x and of both scores, from that of `out`; weight is alpha without dropout,
    // and grad_edge (edges, heads) is room to work in.
    void (*attention_backward)(Attention<T>, Transposed, const T* grad, const T* out,
                               const T* alpha, const T* weight, T* grad_edge, T* grad_x,
                               T* grad_src, T* grad_dst, int threads);

    // x_q = round(x / s) clamped to [-high, top], s = max(max|x| / high, eps) of each row: of
    // `width` numbers, or, if there are offsets, from offsets[row] to offsets[row + 1].
    void (*quantize_rows)(const T* x, const std::int64_t* offsets, std::int64_t rows,
                          std::int64_t width, T high, T top, T eps, T* x_q, T* scale, int threads);

    // out = x * (noise >= p) / (1 - p), with the noise of `uniform`.
    void (*dropout)(const T* x, std::int64_t size, float p, std::uint64_t seed, T* out,
                    int threads);
};

struct Kernels {
    const char* name;
    Typed<float> f32;
    Typed<double> f64;

    // Numbers from [0, 1), of 24 bits, drawn by Philox4x32-10 (Salmon et al., "Parallel random
    // numbers: as easy as 1, 2, 3"): number i is word i % 4 of counter i / 4 under the key `seed`.
    void (*uniform)(float* out, std::int64_t size, std::uint64_t seed, int threads);
};

// The kernels of the widest vectors that this processor has.
const Kernels& kernels();

}  // namespace bitgnn
