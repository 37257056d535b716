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

// What rows consist of. SPARSE ones are numbers too, row i those from crow[i] to crow[i + 1] - 1.
enum Form { NUMBERS, INT8, INT16, SPARSE };

// The rows of a value. Integers have one scale a row, and of INT8 the sum of a row is at hand;
// `share` is the scale times what the node counts for in sums over edges. Rows that a pass writes
// are filled up with zeros to `stride` values, whole cache lines; those of a caller are not. Rows that
// pass by are written past the caches, which hold none of them until they are read.
struct Rows {
    int form;
    void* values;
    float* scale;
    std::int32_t* sum;
    float* share;
    std::int64_t width, stride;
    const std::int64_t *crow, *col;
    bool passes_by;
};

// round(x / s) clamped to [-high, top], with s = max(max|x| / high, eps).
struct Quantize {
    float high, top, eps;
};

// A weight (n, k): ternary, as codes of two bits in the order of `pack_codes` with a scale for each
// of the n columns of the output, or numbers in the order of `pack_numbers`. For sparse rows it is
// neither, but `by_row`: (k, n), integers of 8 bits or numbers, n filled up to a multiple of 64.
struct Weight {
    const std::uint8_t* codes;
    const float* scale;
    const float* numbers;
    const void* by_row;
    std::int64_t n, k;
};

enum Reduce { SUM, MEAN, MAX };

// Edges by target: target i receives from col[crow[i]] to col[crow[i + 1] - 1]. An edge from j to i
// counts for its weight, or for node[i] * node[j], or for 1 if there is neither.
struct Edges {
    const std::int64_t* crow;
    const std::int32_t* col;
    const float* weight;
    const float* node;
    std::int64_t rows, most;  // `most` edges of one target
    std::int64_t sources;     // nodes that `col` may name
};

// The scores of nodes as sources and as targets of an attention: (nodes, heads).
struct Scores {
    float *src, *dst;
};

// Attention of several heads over edges: a softmax over those of each target of
// leaky_relu(src + dst).
struct Heads {
    Scores scores;
    std::int64_t count;  // 0: there is none
    float slope;
    bool mean;  // of heads, instead of one beside the other
};

// One summand of what a stage computes for a row: the row itself or the sum over its edges, held in
// some form, and times a weight if there is one.
struct Term {
    Rows rows;  // without values: what the stage before has made of the same rows
    bool aggregates;
    Edges edges;
    int reduce;
    bool exact;  // a sum of integers is rounded as PyG rounds that of the numbers they stand for
    Heads heads;
    int hold;
    Quantize quantize;  // for `hold` of INT8
    Weight weight;      // n = 0: there is none
};

enum Act { IDENTITY, RELU, LEAKY_RELU, ELU };

constexpr int MOST_TERMS = 2, MOST_STAGES = 8;

// y = act(factor * (sum of terms) + bias + other), and where it goes.
struct Stage {
    Term terms[MOST_TERMS];
    int count;
    std::int64_t width;
    const float* factor;  // of each column, or null
    const float* bias;    // of each column, or null
    Rows other;           // numbers, or without values
    int act;
    float slope;  // of LEAKY_RELU, alpha of ELU

    Rows numbers, integers;  // without values: not wanted
    bool hands_on;           // to the next stage, in the form of `integers`
    const float* node;       // what each row of `integers` counts for in its `share`, or null
    Quantize quantize;       // for `integers` of INT8
    // The scores of an attention that follows: inner products of each row, of what its integers stand
    // for if `rounded`, and two vectors, head by head of its channels.
    const float* vectors;  // (2, width)
    std::int64_t attends;  // heads; 0: there is no attention
    bool rounded;
    Scores scores;
};

// All that is done for a block of rows while it is in the cache.
struct Pass {
    Stage stages[MOST_STAGES];
    int count;
    std::int64_t rows;
};

// Room for threads to work in.
struct Scratch {
    std::int8_t* bytes;
    std::int64_t each;  // bytes a thread
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

    // A ternary weight (n, k) as codes: 64 bytes for each 16 columns and 16 values of a row, both
    // rounded up.
    void (*pack_codes)(const std::int8_t* weight, std::int64_t n, std::int64_t k,
                       std::uint8_t* out);

    // Another one as numbers: 16 for each 16 columns, rounded up, and each value of a row.
    void (*pack_numbers)(const float* weight, std::int64_t n, std::int64_t k, float* out);

    // The gradient (n, k) of a linear layer's weight: grad^T x for grad (rows, n) and what rows x
    // (rows, k) stand for once they are quantized, or x if q.high is 0. Works in `room`, of as many
    // numbers as gradient_room says.
    void (*weight_gradient)(const float* x, const float* grad, std::int64_t rows, std::int64_t n,
                            std::int64_t k, Quantize q, float* room, float* out, int threads);
    std::int64_t (*gradient_room)(std::int64_t n, std::int64_t k);

    // Runs a pass, and says how many bytes of scratch a thread needs for it.
    void (*run_pass)(const Pass& pass, Scratch scratch, int threads);
    std::int64_t (*room)(const Pass& pass);
};

// The kernels of the widest vectors that this processor has.
const Kernels& kernels();

}  // namespace bitgnn
