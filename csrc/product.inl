// Products of blocks of rows and weights.
#pragma once

#include <type_traits>

#include "kernels.h"
#include "common.inl"
#include "dot.inl"

namespace bitgnn::BITGNN_ISA {

constexpr int PANEL = 4;  // vectors of columns that are worked on at once
constexpr int TILE = 6;   // rows that are worked on at once

// Vectors of columns of which the registers hold the sums of a tile, and fields of codes that the
// loop over them is unrolled for: where registers are few, more would not stay there.
#if defined(__AVX512F__)
constexpr int HELD_COLUMNS = PANEL, AT_ONCE = FIELDS;
#else
constexpr int HELD_COLUMNS = 1, AT_ONCE = 1;
#endif

BITGNN_INLINE int64_t vectors_of(int64_t n) { return (n + LANES - 1) / LANES; }

// Where the code of row n and column k of the weight stands: the byte, and the field in it.
// Columns come in panels; in a panel, for each group of 16 values of a row, a line of 64 bytes a
// vector: byte 4 i + t holds of column i the codes of values t, t + 4, t + 8 and t + 12.
void pack_codes(const std::int8_t* weight, int64_t n, int64_t k, std::uint8_t* out) {
    const int64_t vectors = vectors_of(n), groups = (k + GROUP - 1) / GROUP;
    for (int64_t panel = 0; panel < vectors; panel += PANEL) {
        const int64_t wide = smaller(PANEL, vectors - panel);
        for (int64_t group = 0; group < groups; ++group) {
            for (int64_t v = 0; v < wide; ++v) {
                for (int64_t byte = 0; byte < LINE; ++byte, ++out) {
                    const int64_t column = (panel + v) * LANES + byte / STEP;
                    unsigned codes = 0;
                    for (int64_t j = 0; j < FIELDS; ++j) {
                        const int64_t at = group * GROUP + STEP * j + byte % STEP;
                        // What lies beyond the weight is 0.
                        const int w = column < n && at < k ? weight[column * k + at] : 0;
                        codes |= static_cast<unsigned>(w + 1) << (2 * j);
                    }
                    *out = static_cast<std::uint8_t>(codes);
                }
            }
        }
    }
}

// In panels too: for each value of a row, the numbers of all columns of the panel.
void pack_numbers(const float* weight, int64_t n, int64_t k, float* out) {
    const int64_t vectors = vectors_of(n);
    for (int64_t panel = 0; panel < vectors; panel += PANEL) {
        const int64_t wide = smaller(PANEL, vectors - panel) * LANES;
        for (int64_t at = 0; at < k; ++at) {
            for (int64_t c = 0; c < wide; ++c) {
                const int64_t column = panel * LANES + c;
                *out++ = column < n ? weight[column * k + at] : 0.0f;
            }
        }
    }
}

// The products of M rows and V vectors of columns, in a panel of ALL. If there are `low` ones, a row
// is 256 times that of x and that of them.
template <int M, int V, int ALL>
__attribute__((noinline)) void tile(const std::int8_t* x, const std::int8_t* low, int64_t stride,
                                    const std::uint8_t* codes, int64_t k, std::int32_t* out,
                                    int64_t wide) {
    constexpr int PARTS = V * LANES / SUMS;
    Sums sums[M][PARTS];
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m) {
#pragma GCC unroll 4
        for (int p = 0; p < PARTS; ++p) sums[m][p] = no_sums();
    }
    for (;; x = low, low = nullptr) {
        const std::uint8_t* columns = codes;
        for (int64_t at = 0; at < k; at += GROUP, columns += ALL * LINE, x += GROUP) {
#pragma GCC unroll AT_ONCE
            for (int j = 0; j < FIELDS; ++j) {
                Codes w[PARTS];
#pragma GCC unroll 4
                for (int p = 0; p < PARTS; ++p) w[p] = field(columns + p * SUMS * STEP, j);
#pragma GCC unroll 8
                for (int m = 0; m < M; ++m) {
                    const Values values = four(x + m * stride + STEP * j);
#pragma GCC unroll 4
                    for (int p = 0; p < PARTS; ++p) add_products(sums[m][p], w[p], values);
                }
            }
        }
        if (!low) break;
#pragma GCC unroll 8
        for (int m = 0; m < M; ++m) {
#pragma GCC unroll 4
            for (int p = 0; p < PARTS; ++p) sums[m][p] = times_256(sums[m][p]);
        }
    }
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m) {
#pragma GCC unroll 4
        for (int p = 0; p < PARTS; ++p) store(sums[m][p], out + m * wide + p * SUMS);
    }
}

template <int M, int V, int ALL>
__attribute__((noinline)) void tile(const float* x, const float*, int64_t stride, const float* w,
                                    int64_t k, float* out, int64_t wide) {
    constexpr int PARTS = V * LANES / NATIVE;
    Native sums[M][PARTS] = {};
    for (int64_t at = 0; at < k; ++at, w += ALL * LANES) {
        Native columns[PARTS];
#pragma GCC unroll 4
        for (int p = 0; p < PARTS; ++p) columns[p] = native(w + p * NATIVE);
#pragma GCC unroll 8
        for (int m = 0; m < M; ++m) {
#pragma GCC unroll 4
            for (int p = 0; p < PARTS; ++p) sums[m][p] += x[m * stride + at] * columns[p];
        }
    }
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m) {
#pragma GCC unroll 4
        for (int p = 0; p < PARTS; ++p) put(sums[m][p], out + m * wide + p * NATIVE);
    }
}

// Rows, or the upper and the lower halves of rows, one as far from the next as `stride` says.
template <class X>
struct Halves {
    const X *x, *low;
    int64_t stride;

    BITGNN_INLINE Halves from(int64_t m) const {
        return {x + m * stride, low ? low + m * stride : nullptr, stride};
    }
};

template <int M, int ALL, class X, class W, class Y>
BITGNN_INLINE void panel_rows(const Halves<X>& x, const W* w, int64_t k, Y* out, int64_t wide) {
    constexpr int V = smaller(ALL, HELD_COLUMNS);
    for (int v = 0; v < ALL; v += V) {
        tile<M, V, ALL>(x.x, x.low, x.stride, w + v * LINE / int64_t(sizeof(W)), k, out + v * LANES,
                        wide);
    }
}

template <int V, class X, class W, class Y>
BITGNN_INLINE void panel_product(const Halves<X>& x, int64_t rows, const W* w, int64_t k, Y* out,
                                 int64_t wide) {
    int64_t m = 0;
    for (; m + TILE <= rows; m += TILE) {
        panel_rows<TILE, V>(x.from(m), w, k, out + m * wide, wide);
    }
    for (; m < rows; ++m) panel_rows<1, V>(x.from(m), w, k, out + m * wide, wide);
}

// The products of a block of rows and a weight (n, k), packed so that a vector of columns takes
// `each` values: rows of `wide` columns.
template <class X, class W, class Y>
BITGNN_INLINE void block_product(const Halves<X>& x, int64_t rows, const W* w, int64_t n, int64_t k,
                                 int64_t each, Y* out, int64_t wide) {
    const int64_t vectors = vectors_of(n);
    for (int64_t v = 0; v < vectors; v += PANEL, out += PANEL * LANES, w += PANEL * each) {
        switch (vectors - v) {
            case 1: panel_product<1>(x, rows, w, k, out, wide); break;
            case 2: panel_product<2>(x, rows, w, k, out, wide); break;
            case 3: panel_product<3>(x, rows, w, k, out, wide); break;
            default: panel_product<4>(x, rows, w, k, out, wide);
        }
    }
}

BITGNN_INLINE void number_product(const float* x, int64_t stride, int64_t rows, const Weight& w,
                                  float* out, int64_t wide) {
    const Halves<float> whole{x, nullptr, stride};
    block_product(whole, rows, w.numbers, w.n, w.k, w.k * LANES, out, wide);
}

#if !defined(__AMX_INT8__)

// Codes are taken as they are: they are one too large, and the sum of a row is taken off later.
constexpr std::int32_t OFFSET = 1;
constexpr int64_t BLOCK = 24;  // rows that a thread works on at once

BITGNN_INLINE int64_t unpacked_bytes(const Weight&) { return 0; }
BITGNN_INLINE void unpack(const Weight&, std::int8_t*) {}
BITGNN_INLINE void begin_products() {}
BITGNN_INLINE void end_products() {}

BITGNN_INLINE void integer_product(const Halves<std::int8_t>& x, int64_t rows, const Weight& w,
                                   const std::int8_t*, std::int32_t* out, std::int32_t*,
                                   int64_t wide) {
    const int64_t groups = (w.k + GROUP - 1) / GROUP;
    block_product(x, rows, w.codes, w.n, w.k, groups * LINE, out, wide);
}

#endif

}  // namespace bitgnn::BITGNN_ISA

#if defined(__AMX_INT8__)
#include "amx.inl"
#endif
