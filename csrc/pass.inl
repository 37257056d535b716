// All that is done for a block of rows while it is in the cache: sums over edges, products, biases,
// activation functions, and the integers that the next layer reads.
#pragma once

#include <cmath>

#include "kernels.h"
#include "common.inl"
#include "gather.inl"
#include "integers.inl"
#include "product.inl"

#ifdef _OPENMP
#include <omp.h>
#endif

namespace bitgnn::BITGNN_ISA {

// Deals out the scratch of a thread, cache line by cache line.
struct Room {
    std::int8_t* at;

    template <class T>
    T* take(int64_t count) {
        T* found = reinterpret_cast<T*>(at);
        at += rounded_up(count * int64_t(sizeof(T)), LINE);
        return found;
    }
};

// A block of rows, held as the operand of a product.
struct Held {
    std::int8_t *high, *low;  // `low` in 16 bits
    float* scale;
    std::int32_t* sum;
    int64_t stride;
};

struct Work {
    int64_t wide, deep;  // columns of the widest stage, values of the longest row
    float* result;       // (BLOCK, wide): what a stage computes
    float* part;         // (BLOCK, wide): a product of numbers
    std::int32_t *sums, *upper;  // (BLOCK, wide)
    float* row;                  // (BLOCK, deep)
    Held held;
    Rows handed[2];
    Gathering gathering[MOST_STAGES][MOST_TERMS];
    std::int8_t* unpacked[MOST_STAGES][MOST_TERMS];
};

Work lay_out(const Pass& pass, Room& room) {
    Work work{};
    int64_t edges = 0;
    for (int s = 0; s < pass.count; ++s) {
        const Stage& stage = pass.stages[s];
        if (stage.width > work.wide) work.wide = stage.width;
        if (stage.attends > work.wide) work.wide = stage.attends;
        for (int t = 0; t < stage.count; ++t) {
            const Term& term = stage.terms[t];
            if (term.rows.width > work.deep) work.deep = term.rows.width;
            const int64_t heads = term.heads.count ? term.heads.count : 1;
            const int64_t of_one = term.edges.most * heads;
            if (term.aggregates && of_one > edges) edges = of_one;
            work.unpacked[s][t] = room.take<std::int8_t>(unpacked_bytes(term.weight));
            const int64_t heads_of = term.heads.count ? rounded_up(term.rows.width, LANES) : 0;
            work.gathering[s][t].head_of = room.take<std::int32_t>(heads_of);
        }
    }
    work.wide = rounded_up(work.wide, LINE);
    work.deep = rounded_up(work.deep > work.wide ? work.deep : work.wide, LINE);
    work.result = room.take<float>(BLOCK * work.wide);
    work.part = room.take<float>(BLOCK * work.wide);
    work.sums = room.take<std::int32_t>(BLOCK * work.wide);
    work.upper = room.take<std::int32_t>(BLOCK * work.wide);
    work.row = room.take<float>(BLOCK * work.deep);
    work.held = {room.take<std::int8_t>(BLOCK * work.deep), room.take<std::int8_t>(BLOCK * work.deep),
                 room.take<float>(BLOCK), room.take<std::int32_t>(BLOCK), work.deep};
    for (Rows& rows : work.handed) {
        rows.values = room.take<float>(BLOCK * work.deep);
        rows.scale = room.take<float>(BLOCK);
        rows.sum = room.take<std::int32_t>(BLOCK);
    }
    float* share = room.take<float>(edges + LANES);
    for (auto& of_stage : work.gathering) {
        for (Gathering& each : of_stage) each.share = share;
    }
    return work;
}

std::int64_t room(const Pass& pass) {
    Room room{nullptr};
    lay_out(pass, room);
    return room.at - static_cast<std::int8_t*>(nullptr);
}

// Rows from `first` on.
BITGNN_INLINE Rows rows_from(Rows rows, int64_t first) {
    const int64_t size = rows.form == INT8 ? 1 : rows.form == INT16 ? 2 : 4;
    rows.values = static_cast<char*>(rows.values) + first * rows.stride * size;
    if (rows.scale) rows.scale += first;
    if (rows.sum) rows.sum += first;
    return rows;
}

// The numbers that a row stands for.
BITGNN_INLINE void numbers_of(const Rows& rows, int64_t r, float* out) {
    const auto scaled = [&](const auto* from) __attribute__((always_inline)) {
        const float scale = rows.scale[r];
#pragma omp simd
        for (int64_t k = 0; k < rows.width; ++k) out[k] = scale * static_cast<float>(from[k]);
    };
    const int64_t at = r * rows.stride;
    switch (rows.form) {
        case INT8: scaled(static_cast<const std::int8_t*>(rows.values) + at); break;
        case INT16: scaled(static_cast<const std::int16_t*>(rows.values) + at); break;
        default:
            std::memcpy(out, static_cast<const float*>(rows.values) + at,
                        static_cast<std::size_t>(rows.width) * sizeof(float));
    }
}

BITGNN_INLINE void hold(const Term& term, const float* row, int64_t width, int64_t r, Held& held) {
    std::int8_t* high = held.high + r * held.stride;
    if (term.hold == INT16) {
        split_row(row, width, high, held.low + r * held.stride, held.stride, held.scale + r,
                  held.sum + r);
    } else {
        quantize_row(row, width, largest(row, width), term.quantize, high, held.stride, held.scale + r, held.sum + r);
    }
}

// Adds a product of integers, to nothing if it is the first.
BITGNN_INLINE void add_scaled(const Work& work, const Held& held, bool two, const Weight& w,
                              int64_t rows, bool first) {
    for (int64_t r = 0; r < rows; ++r) {
        const std::int32_t* sums = work.sums + r * work.wide;
        const std::int32_t* upper = work.upper + r * work.wide;
        float* to = work.result + r * work.wide;
        const float scale = held.scale[r], *scales = w.scale;
        const std::int32_t off = OFFSET ? OFFSET * held.sum[r] : 0;
        const auto run = [&](auto is_first, auto has_two) __attribute__((always_inline)) {
#pragma omp simd
            for (int64_t n = 0; n < w.n; ++n) {
                const std::int32_t sum = has_two ? 256 * upper[n] + sums[n] : sums[n];
                const float product = static_cast<float>(sum - off) * (scale * scales[n]);
                to[n] = is_first ? product : to[n] + product;
            }
        };
        if (two) {
            first ? run(std::true_type{}, std::true_type{}) : run(std::false_type{}, std::true_type{});
        } else {
            first ? run(std::true_type{}, std::false_type{})
                  : run(std::false_type{}, std::false_type{});
        }
    }
}

BITGNN_INLINE void add_numbers(const Work& work, const float* from, int64_t stride, int64_t width,
                               int64_t rows, bool first) {
    for (int64_t r = 0; r < rows; ++r) {
        float* to = work.result + r * work.wide;
        const float* row = from + r * stride;
#pragma omp simd
        for (int64_t n = 0; n < width; ++n) to[n] = first ? row[n] : to[n] + row[n];
    }
}

// Adds a term for `rows` rows from `from` on.
BITGNN_INLINE void add_term(const Term& term, const std::int8_t* unpacked, const Rows& handed,
                            int64_t from, int64_t rows, bool first, const Gathering& room,
                            Work& work) {
    const Weight& w = term.weight;
    const Rows own = term.rows.values ? rows_from(term.rows, from) : handed;
    const bool integers = w.n && w.codes;
    Held held = work.held;
    const float* numbers = work.row;
    int64_t width = own.width, stride = work.deep;
    if (term.aggregates) {
        width = gathered_width(term);
        for (int64_t r = 0; r < rows; ++r) {
            float* row = work.row + (integers ? 0 : r * work.deep);
            gather(term, from + r, room, row);
            if (integers) hold(term, row, width, r, held);
        }
    } else if (integers && own.form == INT8) {
        held = {static_cast<std::int8_t*>(own.values), nullptr, own.scale, own.sum, own.stride};
    } else if (own.form == NUMBERS) {
        numbers = static_cast<const float*>(own.values), stride = own.stride;
        for (int64_t r = 0; integers && r < rows; ++r) {
            hold(term, numbers + r * stride, width, r, held);
        }
    } else {
        for (int64_t r = 0; r < rows; ++r) numbers_of(own, r, work.row + r * work.deep);
    }
    if (integers) {
        const bool two = held.low && term.hold == INT16;
        if (two) integer_product(held.high, held.stride, rows, w, unpacked, work.upper, work.wide);
        integer_product(two ? held.low : held.high, held.stride, rows, w, unpacked, work.sums,
                        work.wide);
        add_scaled(work, held, two, w, rows, first);
    } else if (w.n) {
        number_product(numbers, stride, rows, w, work.part, work.wide);
        add_numbers(work, work.part, work.wide, w.n, rows, first);
    } else {
        add_numbers(work, numbers, stride, width, rows, first);
    }
}

BITGNN_INLINE void elu(float* x, int64_t count, float alpha) {
    // Near zero e^x - 1 loses digits, and the series has them.
#pragma omp simd
    for (int64_t k = 0; k < count; ++k) {
        const float v = x[k], below = v < 0 ? v : 0.0f;
        const float series = below + below * below * (0.5f + below * (1.0f / 6));
        const float power = below > -0.01f ? series : exponential(below) - 1.0f;
        x[k] = v < 0 ? alpha * power : v;
    }
}

// Finishes a row, in place, and returns the largest |y|.
template <int ACT>
BITGNN_INLINE float finish_row(const Stage& stage, const float* other, float* y) {
    const float *factor = stage.factor, *bias = stage.bias, slope = stage.slope;
    const int64_t width = stage.width;
    const auto run = [&](auto with_other) __attribute__((always_inline)) {
#pragma omp simd
        for (int64_t k = 0; k < width; ++k) {
            float x = factor ? y[k] * factor[k] : y[k];
            x += bias ? bias[k] : 0.0f;
            x += with_other ? other[k] : 0.0f;
            if (ACT == RELU) x = x < 0 ? 0.0f : x;  // NaN stays
            if (ACT == LEAKY_RELU) x *= x < 0 ? slope : 1.0f;
            y[k] = x;
        }
    };
    if (factor || bias || other || ACT == RELU || ACT == LEAKY_RELU) {
        other ? run(std::true_type{}) : run(std::false_type{});
    }
    if (ACT == ELU) elu(y, width, slope);
    return largest(y, width);
}

// Finishes the rows of a stage and writes them. What it hands on is `handed` afterwards.
BITGNN_INLINE void finish(const Stage& stage, int64_t from, int64_t rows, Work& work,
                          Rows& handed) {
    const int64_t width = stage.width;
    if (stage.hands_on) {
        handed.form = stage.integers.form, handed.width = width;
        handed.stride = stage.integers.stride;
    }
    if (stage.integers.values) {
        const Rows own = rows_from(stage.integers, from);
        handed = stage.hands_on ? own : handed;
    }
    for (int64_t r = 0; r < rows; ++r) {
        float* y = work.result + r * work.wide;
        const float* other = nullptr;
        if (stage.other.values) {
            other = static_cast<const float*>(stage.other.values) + (from + r) * stage.other.stride;
        }
        const float most = stage.act == RELU         ? finish_row<RELU>(stage, other, y)
                           : stage.act == LEAKY_RELU ? finish_row<LEAKY_RELU>(stage, other, y)
                           : stage.act == ELU        ? finish_row<ELU>(stage, other, y)
                                                     : finish_row<IDENTITY>(stage, other, y);
        const auto write = [&](const Rows& to, int64_t at) __attribute__((always_inline)) {
            if (to.form == INT8) {
                quantize_row(y, width, most, stage.quantize,
                             static_cast<std::int8_t*>(to.values) + at * to.stride, to.stride,
                             to.scale + at, to.sum + at);
            } else if (to.form == INT16) {
                quantize_row_16(y, width, static_cast<std::int16_t*>(to.values) + at * to.stride,
                                to.stride, to.scale + at);
            } else {
                std::memcpy(static_cast<float*>(to.values) + at * to.stride, y,
                            static_cast<std::size_t>(width) * sizeof(float));
            }
            if (stage.rounded) numbers_of(to, at, y);
        };
        if (stage.numbers.values) write(stage.numbers, from + r);
        if (stage.integers.values) {
            write(stage.integers, from + r);
        } else if (stage.hands_on) {
            write(handed, r);
        }
    }
    if (stage.attends) {
        Weight vectors{};
        vectors.numbers = stage.vectors, vectors.n = stage.attends, vectors.k = width;
        number_product(work.result, work.wide, rows, vectors, work.part, work.wide);
        for (int64_t r = 0; r < rows; ++r) {
            std::memcpy(stage.scores + (from + r) * stage.attends, work.part + r * work.wide,
                        static_cast<std::size_t>(stage.attends) * sizeof(float));
        }
    }
}

void run_pass(const Pass& pass, Scratch scratch, int threads) {
    const int64_t blocks = (pass.rows + BLOCK - 1) / BLOCK;
#pragma omp parallel num_threads(threads) if (threads > 1 && blocks > 1)
    {
#ifdef _OPENMP
        Room room{scratch.bytes + omp_get_thread_num() * scratch.each};
#else
        Room room{scratch.bytes};
#endif
        Work work = lay_out(pass, room);
        begin_products();
        for (int s = 0; s < pass.count; ++s) {
            for (int t = 0; t < pass.stages[s].count; ++t) {
                const Term& term = pass.stages[s].terms[t];
                if (term.weight.codes) unpack(term.weight, work.unpacked[s][t]);
                if (term.heads.count) list_heads(term, work.gathering[s][t].head_of);
            }
        }
#pragma omp for schedule(dynamic, 4)
        for (int64_t b = 0; b < blocks; ++b) {
            const int64_t from = b * BLOCK, rows = smaller(BLOCK, pass.rows - from);
            Rows handed{};
            for (int s = 0; s < pass.count; ++s) {
                const Stage& stage = pass.stages[s];
                for (int t = 0; t < stage.count; ++t) {
                    add_term(stage.terms[t], work.unpacked[s][t], handed, from, rows, t == 0,
                             work.gathering[s][t], work);
                }
                handed = work.handed[s % 2];
                finish(stage, from, rows, work, handed);
            }
        }
        end_products();
    }
}

}  // namespace bitgnn::BITGNN_ISA
