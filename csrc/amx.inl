// The same products on AMX, whose tiles are 16 rows of 64 bytes. It takes weights as bytes: codes
// are unpacked once a pass, into the caches of each core.
#pragma once

#include <immintrin.h>

namespace bitgnn::BITGNN_ISA {

constexpr std::int32_t OFFSET = 0;
constexpr int64_t BLOCK = 64;  // rows that a thread works on at once
constexpr int64_t TILE_ROWS = 16, TILE_BYTES = TILE_ROWS * LINE;

BITGNN_INLINE int64_t depth_of(int64_t k) { return (k + LINE - 1) / LINE; }

BITGNN_INLINE int64_t unpacked_bytes(const Weight& w) {
    return w.codes ? vectors_of(w.n) * depth_of(w.k) * TILE_BYTES : 0;
}

// For each vector of columns and each 64 values of a row a tile: four values a row, by columns.
BITGNN_INLINE void unpack(const Weight& w, std::int8_t* out) {
    const int64_t vectors = vectors_of(w.n), groups = (w.k + GROUP - 1) / GROUP;
    const int64_t all = depth_of(w.k) * (LINE / GROUP);
    const std::uint8_t* codes = w.codes;
    const __m512i three = _mm512_set1_epi8(3), one = _mm512_set1_epi8(1);
    for (int64_t panel = 0; panel < vectors; panel += PANEL) {
        const int64_t wide = smaller(PANEL, vectors - panel);
        for (int64_t group = 0; group < all; ++group) {
            for (int64_t v = 0; v < wide; ++v) {
                std::int8_t* to = out + ((panel + v) * all + group) * FIELDS * LINE;
                // Beyond the weight a row has zeros, but so must the tile: its bytes are anything.
                __m512i bytes = _mm512_set1_epi8(0x55);
                if (group < groups) bytes = _mm512_loadu_si512(codes), codes += LINE;
                for (int j = 0; j < FIELDS; ++j) {
                    const __m512i field = _mm512_and_si512(bytes, three);
                    _mm512_storeu_si512(to + j * LINE, _mm512_sub_epi8(field, one));
                    bytes = _mm512_srli_epi16(bytes, 2);
                }
            }
        }
    }
}

struct TileConfig {
    std::uint8_t palette = 1, start = 0, reserved[14] = {};
    std::uint16_t bytes[16] = {LINE, LINE, LINE, LINE, LINE, LINE, LINE, LINE};
    std::uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

BITGNN_INLINE void begin_products() {
    alignas(LINE) const TileConfig config;
    _tile_loadconfig(&config);
}
BITGNN_INLINE void end_products() { _tile_release(); }

// R tiles of rows and C of columns.
template <int R, int C>
BITGNN_INLINE void tiles(const std::int8_t* x, int64_t stride, const std::int8_t* w, int64_t depth,
                         std::int32_t* out, int64_t wide) {
    _tile_zero(0);
    if constexpr (C > 1) _tile_zero(1);
    if constexpr (R > 1) _tile_zero(2);
    if constexpr (R > 1 && C > 1) _tile_zero(3);
    for (int64_t d = 0; d < depth; ++d) {
        _tile_loadd(4, x + d * LINE, stride);
        _tile_loadd(6, w + d * TILE_BYTES, LINE);
        _tile_dpbssd(0, 4, 6);
        if constexpr (C > 1) _tile_loadd(7, w + (depth + d) * TILE_BYTES, LINE);
        if constexpr (C > 1) _tile_dpbssd(1, 4, 7);
        if constexpr (R > 1) _tile_loadd(5, x + TILE_ROWS * stride + d * LINE, stride);
        if constexpr (R > 1) _tile_dpbssd(2, 5, 6);
        if constexpr (R > 1 && C > 1) _tile_dpbssd(3, 5, 7);
    }
    const int64_t bytes = wide * int64_t(sizeof *out);
    _tile_stored(0, out, bytes);
    if constexpr (C > 1) _tile_stored(1, out + LANES, bytes);
    if constexpr (R > 1) _tile_stored(2, out + TILE_ROWS * wide, bytes);
    if constexpr (R > 1 && C > 1) _tile_stored(3, out + TILE_ROWS * wide + LANES, bytes);
}

// All rows for two vectors of columns, whose tiles stay in the cache meanwhile.
template <int C>
BITGNN_INLINE void column_tiles(const std::int8_t* x, int64_t stride, int64_t rows,
                                const std::int8_t* w, int64_t depth, std::int32_t* out,
                                int64_t wide) {
    int64_t r = 0;
    for (; r + TILE_ROWS < rows; r += 2 * TILE_ROWS) {
        tiles<2, C>(x + r * stride, stride, w, depth, out + r * wide, wide);
    }
    if (r < rows) tiles<1, C>(x + r * stride, stride, w, depth, out + r * wide, wide);
}

// Whole tiles are read and written, also where there are fewer rows: all blocks have room for that.
BITGNN_INLINE void all_tiles(const std::int8_t* x, int64_t stride, int64_t rows, const Weight& w,
                             const std::int8_t* unpacked, std::int32_t* out, int64_t wide) {
    const int64_t vectors = vectors_of(w.n), depth = depth_of(w.k);
    int64_t v = 0;
    for (; v + 2 <= vectors; v += 2, unpacked += 2 * depth * TILE_BYTES) {
        column_tiles<2>(x, stride, rows, unpacked, depth, out + v * LANES, wide);
    }
    if (v < vectors) column_tiles<1>(x, stride, rows, unpacked, depth, out + v * LANES, wide);
}

BITGNN_INLINE void integer_product(const Halves<std::int8_t>& x, int64_t rows, const Weight& w,
                                   const std::int8_t* unpacked, std::int32_t* out,
                                   std::int32_t* upper, int64_t wide) {
    all_tiles(x.low ? x.low : x.x, x.stride, rows, w, unpacked, out, wide);
    if (!x.low) return;
    all_tiles(x.x, x.stride, rows, w, unpacked, upper, wide);
    for (int64_t r = 0; r < rows; ++r) {
#pragma omp simd
        for (int64_t n = 0; n < w.n; ++n) out[r * wide + n] += 256 * upper[r * wide + n];
    }
}

}  // namespace bitgnn::BITGNN_ISA
