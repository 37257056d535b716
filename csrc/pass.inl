// All that is done for a block of rows while it is in the cache: sums over edges, products, biases,
// activation functions, and the integers that the next layer reads.
#pragma once

#include <cmath>

#include "kernels.h"
#include "common.inl"
#include "heads.inl"
#include "integers.inl"
#include "product.inl"
#include "sparse.inl"

#ifdef _OPENMP
#include <omp.h>
#endif

namespace bitgnn::BITGNN_ISA {

// Deals out the scratch of a thread, cache line by cache line; without any, it only counts.
struct Room {
    std::int8_t* bytes;
    int64_t used = 0;

    template <class T>
    T* take(int64_t count) {
        T* found = bytes ? reinterpret_cast<T*>(bytes + used) : nullptr;
        used += rounded_up(count * int64_t(sizeof(T)), LINE);
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
    int64_t wide, deep;  // columns of the widest stage that adds up something, values of any row
    float* result;       // (BLOCK, wide): what a stage computes
    float* part;         // (BLOCK, wide): a product of numbers
    std::int32_t *sums, *upper;  // (BLOCK, wide): a product of integers, and room for one
    float* row;                  // (BLOCK, deep)
    float* line;                 // (2, deep): rows that are being finished
    Held held;
    Rows handed[2];
    Gathering gathering[MOST_STAGES][MOST_TERMS];
    std::int8_t* unpacked[MOST_STAGES][MOST_TERMS];
};

Work lay_out(const Pass& pass, Room& room) {
    Work work{};
    int64_t edges = 0, handed = 0;
    const auto at_least = [](int64_t width, int64_t& most) { most = width > most ? width : most; };
    for (int s = 0; s < pass.count; ++s) {
        const Stage& stage = pass.stages[s];
        const Term& first = stage.terms[0];
        const bool adds = stage.count > 1 || first.aggregates || first.weight.n;
        at_least(stage.width, adds ? work.wide : work.deep);
        if (stage.hands_on) at_least(stage.width, handed);
        for (int t = 0; t < stage.count; ++t) {
            const Term& term = stage.terms[t];
            at_least(term.rows.width, work.deep);
            const int64_t heads = term.heads.count ? term.heads.count : 1;
            if (term.aggregates) at_least(term.edges.most * heads, edges);
            work.unpacked[s][t] = room.take<std::int8_t>(unpacked_bytes(term.weight));
            const int64_t heads_of = term.heads.count ? rounded_up(term.rows.width, LANES) : 0;
            work.gathering[s][t].head_of = room.take<std::int32_t>(heads_of);
        }
    }
    at_least(work.wide, work.deep);
    work.wide = rounded_up(work.wide, LINE), work.deep = rounded_up(work.deep, LINE);
    work.result = room.take<float>(BLOCK * work.wide);
    work.part = room.take<float>(BLOCK * work.wide);
    work.sums = room.take<std::int32_t>(BLOCK * work.wide);
    work.upper = room.take<std::int32_t>(BLOCK * work.wide);
    work.row = room.take<float>(BLOCK * work.deep);
    work.line = room.take<float>(2 * work.deep);
    work.held = {room.take<std::int8_t>(BLOCK * work.deep), room.take<std::int8_t>(BLOCK * work.deep),
                 room.take<float>(BLOCK), room.take<std::int32_t>(BLOCK), work.deep};
    for (Rows& rows : work.handed) {
        rows.values = room.take<float>(BLOCK * rounded_up(handed, LINE));
        rows.scale = room.take<float>(BLOCK);
        rows.sum = room.take<std::int32_t>(BLOCK);
    }
    float* share = room.take<float>(edges > ATTENDED ? edges : ATTENDED);
    for (auto& of_stage : work.gathering) {
        for (Gathering& each : of_stage) each.share = share;
    }
    return work;
}

std::int64_t room(const Pass& pass) {
    Room room{nullptr};
    lay_out(pass, room);
    return room.used;
}

// Rows from `first` on.
BITGNN_INLINE Rows rows_from(Rows rows, int64_t first) {
    if (rows.form == SPARSE) {
        rows.crow += first;
        return rows;
    }
    const int64_t size = rows.form == INT8 ? 1 : rows.form == INT16 ? 2 : 4;
    rows.values = static_cast<char*>(rows.values) + first * rows.stride * size;
    if (rows.scale) rows.scale += first;
    if (rows.sum) rows.sum += first;
    if (rows.share) rows.share += first;
    return rows;
}

// Asks memory for what lies where some rows do, a block later. The processor does that by itself, but not
// beyond the end of a page.
template <class T>
BITGNN_INLINE void expect(const T* rows, int64_t stride, int64_t count) {
    prefetch(rows + BLOCK * stride, count * stride * int64_t(sizeof(T)));
}

// The same of as many values as a sparse row has, some values later.
BITGNN_INLINE void expect_sparse(const Rows& x, int64_t r) {
    constexpr int64_t LATER = 1024;
    const int64_t from = x.crow[r] + LATER, count = x.crow[r + 1] - x.crow[r];
    prefetch(x.col + from, count * int64_t(sizeof *x.col));
    prefetch(static_cast<const float*>(x.values) + from, count * int64_t(sizeof(float)));
}

// The numbers that a row stands for.
BITGNN_INLINE void numbers_of(const Rows& rows, int64_t r, float* out) {
    // In vectors as large as they were written in: what was written just now is then at hand.
    const auto scaled = [&](const auto* from) __attribute__((always_inline)) {
        const Native scale = Native{} + rows.scale[r];
        int64_t k = 0;
        for (; k + NATIVE <= rows.width; k += NATIVE) put(scale * floats(from + k), out + k);
        for (; k < rows.width; ++k) out[k] = rows.scale[r] * static_cast<float>(from[k]);
    };
    const int64_t at = r * rows.stride;
    switch (rows.form) {
        case INT8: scaled(static_cast<const std::int8_t*>(rows.values) + at); break;
        case INT16: scaled(static_cast<const std::int16_t*>(rows.values) + at); break;
        case SPARSE: spread_row(rows, r, out); break;
        default:
            std::memcpy(out, static_cast<const float*>(rows.values) + at,
                        static_cast<std::size_t>(rows.width) * sizeof(float));
    }
}

// The scale of integers of a form: of a row whose largest |x| is known.
BITGNN_INLINE Scale scale_in(int form, float most, Quantize q) {
    return form == INT16 ? scale_for(most, HIGH_16, LEAST) : scale_for(most, q.high, q.eps);
}

// Makes rows and writes each while the processor finds the scale of the next: make(r) returns what
// write(r, made) needs to know, and leaves what it has made of the row before where it is.
template <class Make, class Write>
BITGNN_INLINE void one_behind(int64_t rows, const Make& make, const Write& write) {
    decltype(make(0)) made{};
    for (int64_t r = 0; r < rows; ++r) {
        const auto next = make(r);
        if (r) write(r - 1, made);
        made = next;
    }
    if (rows) write(rows - 1, made);
}

// Numbers of a row, and the largest |x| of them.
struct Numbers {
    const float* x;
    float most;
};

// Holds a block of rows as integers. make(r) returns the numbers of row r; see `one_behind`.
template <class Make>
BITGNN_INLINE void hold(const Term& term, int64_t width, int64_t rows, const Make& make,
                        const Held& held) {
    struct Made {
        const float* x;
        Scale scale;
    };
    const Quantize q = term.hold == INT16 ? Quantize{HIGH_SPLIT, 0, LEAST} : term.quantize;
    const auto scaled = [&](int64_t r) __attribute__((always_inline)) {
        const Numbers row = make(r);
        return Made{row.x, scale_for(row.most, q.high, q.eps)};
    };
    const auto write = [&](int64_t r, Made made) __attribute__((always_inline)) {
        std::int8_t* high = held.high + r * held.stride;
        held.scale[r] = made.scale.s;
        if (term.hold == INT16) {
            split_row(made.x, width, made.scale, high, held.low + r * held.stride, held.stride,
                      held.sum + r);
        } else {
            quantize_row(made.x, width, made.scale, q, high, held.stride, held.sum + r);
        }
    };
    one_behind(rows, scaled, write);
}

// What waits to be added by what finishes a stage, or by a term after it: a product of integers that
// is not yet scaled, numbers that lie elsewhere, or sums over edges.
struct Pending {
    const float *scale, *scales;  // of rows and columns; no product waits if there are none
    const std::int32_t* sum;
    bool first;  // whether it is the first term
    const float* elsewhere;
    int64_t stride;  // of those
    const Term* sums;
    int64_t from, last;  // of the rows that are wanted, the first and the one after them
    Gathering* room;
};

// What a row is: what is there, a product of integers, or their sum.
template <bool THERE, bool PRODUCT>
struct Row {
    const float *there, *scales;
    const std::int32_t* sums;
    float scale;
    std::int32_t off;

    // Its numbers from k on, as many as there are.
    template <class Count>
    BITGNN_INLINE Native operator()(int64_t k, Count count) const {
        if constexpr (!PRODUCT) return native(there + k, count);
        const Native numbers = __builtin_convertvector(native(sums + k) - off, Native);
        const Native out = (numbers * scale) * native(scales + k, count);
        return THERE ? native(there + k, count) + out : out;
    }
};

// Calls `use` with what row r is.
template <class Use>
BITGNN_INLINE auto with_row(const Work& work, const Pending& pending, int64_t r, const Use& use) {
    const float* there = work.result + r * work.wide;
    if (pending.elsewhere) {
        there = pending.elsewhere + r * pending.stride;
        expect(there, pending.stride, 1);
    }
    if (pending.sums) {
        gather(*pending.sums, pending.from + r, pending.last, *pending.room, work.row);
        there = work.row;
    }
    if (!pending.scales) return use(Row<true, false>{there, {}, {}, {}, {}});
    const std::int32_t* sums = work.sums + r * work.wide;
    const std::int32_t off = OFFSET ? OFFSET * pending.sum[r] : 0;
    const float scale = pending.scale[r];
    if (pending.first) return use(Row<false, true>{there, pending.scales, sums, scale, off});
    return use(Row<true, true>{there, pending.scales, sums, scale, off});
}

// Adds what waits to what is there.
BITGNN_INLINE void settle(const Work& work, Pending& pending, int64_t width, int64_t rows) {
    if (!pending.scales && !pending.elsewhere && !pending.sums) return;
    for (int64_t r = 0; r < rows; ++r) {
        float* to = work.result + r * work.wide;
        with_row(work, pending, r, [&](const auto row) __attribute__((always_inline)) {
            by_vectors(width, [&](int64_t k, auto count) __attribute__((always_inline)) {
                put(row(k, count), to + k);
            });
        });
    }
    pending = {};
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

// Adds the product of sparse rows and a weight.
BITGNN_INLINE void add_sparse_product(const Term& term, const Rows& x, int64_t rows, bool first,
                                      const Work& work, Pending& pending) {
    const Weight& w = term.weight;
    for (int64_t r = 0; w.scale && r < rows; ++r) {
        work.held.scale[r] = sparse_scale(x, r, term.quantize);
    }
    for (int64_t r = 0; r < rows; ++r) {
        expect_sparse(x, r);
        if (w.scale) {
            sparse_product(x, r, work.held.scale[r], w, term.quantize, work.sums + r * work.wide);
            work.held.sum[r] = 0;  // These weights have no offset.
        } else {
            sparse_product(x, r, w, work.part + r * work.wide);
        }
    }
    if (w.scale) {
        pending.scale = work.held.scale, pending.scales = w.scale, pending.sum = work.held.sum;
        pending.first = first;
    } else {
        add_numbers(work, work.part, work.wide, w.n, rows, first);
    }
}

// Adds term t of a stage for `rows` rows from `from` on.
BITGNN_INLINE void add_term(const Stage& stage, int t, const std::int8_t* unpacked,
                            const Rows& handed, int64_t from, int64_t rows, Gathering& room,
                            Work& work, Pending& pending) {
    const Term& term = stage.terms[t];
    const Weight& w = term.weight;
    const bool first = t == 0;
    settle(work, pending, stage.width, rows);
    const Rows own = term.rows.values ? rows_from(term.rows, from) : handed;
    if (w.by_row) return add_sparse_product(term, own, rows, first, work, pending);
    const bool integers = w.n && w.codes;
    Held held = work.held;
    const float* numbers = work.row;
    int64_t width = own.width, stride = work.deep;
    room.first = room.last = from;
    if (term.aggregates && first && !w.n) {
        pending.sums = &term, pending.from = from, pending.last = from + rows;
        pending.room = &room;
        return;
    }
    if (term.aggregates) {
        width = gathered_width(term);
        const auto gathered = [&](int64_t r, int64_t place) __attribute__((always_inline)) {
            float* row = work.row + place * work.deep;
            const float most = gather(term, from + r, from + rows, room, row);
            return Numbers{row, most};
        };
        if (integers) {
            hold(term, width, rows, [&](int64_t r) { return gathered(r, r % 2); }, held);
        } else {
            for (int64_t r = 0; r < rows; ++r) gathered(r, r);
        }
    } else if (integers && own.form == INT8) {
        held = {static_cast<std::int8_t*>(own.values), nullptr, own.scale, own.sum, own.stride};
        if (term.rows.values) expect(held.high, own.stride, BLOCK);
    } else if (own.form == NUMBERS) {
        numbers = static_cast<const float*>(own.values), stride = own.stride;
        if (integers) {
            const auto row = [&](int64_t r) __attribute__((always_inline)) {
                const float* x = numbers + r * stride;
                expect(x, stride, 1);
                return Numbers{x, largest(x, width)};
            };
            hold(term, width, rows, row, held);
        }
    } else {
        for (int64_t r = 0; r < rows; ++r) numbers_of(own, r, work.row + r * work.deep);
    }
    if (integers) {
        const bool two = held.low && term.hold == INT16;
        const Halves<std::int8_t> x{held.high, two ? held.low : nullptr, held.stride};
        integer_product(x, rows, w, unpacked, work.sums, work.upper, work.wide);
        pending.scale = held.scale, pending.scales = w.scale, pending.sum = held.sum;
        pending.first = first;
    } else if (w.n) {
        number_product(numbers, stride, rows, w, work.part, work.wide);
        add_numbers(work, work.part, work.wide, w.n, rows, first);
    } else if (first) {
        pending.elsewhere = numbers, pending.stride = stride;
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

// Finishes a row and returns the largest |y|; see `largest`.
template <int ACT, class X>
BITGNN_INLINE float finish_row(const Stage& stage, const float* other, const X& row, float* y) {
    const float *factor = stage.factor, *bias = stage.bias, slope = stage.slope;
    NativeInts most = NativeInts{};
    by_vectors(stage.width, [&](int64_t k, auto count) __attribute__((always_inline)) {
        Native v = row(k, count);
        if (factor) v *= native(factor + k, count);
        if (bias) v += native(bias + k, count);
        if (other) v += native(other + k, count);
        if (ACT == RELU) v = v < 0 ? Native{} : v;  // NaN stays
        if (ACT == LEAKY_RELU) v *= v < 0 ? Native{} + slope : Native{} + 1.0f;
        put(v, y + k);
        rise_to(v, most);
    });
    if (ACT == ELU) {
        elu(y, stage.width, slope);
        return largest(y, stage.width);
    }
    return magnitude(most);
}

// Writes a row, by the caches or not.
BITGNN_INLINE void write_row(const float* y, int64_t width, bool passes_by, float* to) {
#if defined(__AVX2__)
    constexpr int64_t EACH = 8;
    if (passes_by && width % EACH == 0 && reinterpret_cast<std::uintptr_t>(to) % 32 == 0) {
        for (int64_t k = 0; k < width; k += EACH) _mm256_stream_ps(to + k, _mm256_loadu_ps(y + k));
        return;
    }
#else
    (void)passes_by;
#endif
    std::memcpy(to, y, static_cast<std::size_t>(width) * sizeof *y);
}

// The scores of as many heads of a row, V vectors each, as can be summed up together. Returns how many
// that are.
template <int V>
BITGNN_INLINE int64_t score_heads(const Stage& stage, const float* y, float* src, float* dst) {
    constexpr int HALF = NATIVE / 2;
    const float *of_src = stage.vectors, *of_dst = stage.vectors + stage.width;
    int64_t head = 0, k = 0;
    for (; head + HALF <= stage.attends; head += HALF) {
        Native all[NATIVE];
#pragma GCC unroll 8
        for (int h = 0; h < HALF; ++h) {
            all[h] = all[HALF + h] = Native{};
#pragma GCC unroll 4
            for (int v = 0; v < V; ++v, k += NATIVE) {
                all[h] += native(y + k) * native(of_src + k);
                all[HALF + h] += native(y + k) * native(of_dst + k);
            }
        }
        float sums[NATIVE];
        put(sums_of(all), sums);
        std::memcpy(src + head, sums, sizeof sums / 2);
        std::memcpy(dst + head, sums + HALF, sizeof sums / 2);
    }
    return head;
}

// The scores of row r.
BITGNN_INLINE void score_row(const Stage& stage, const float* y, int64_t r) {
    const int64_t heads = stage.attends, width = stage.width, channels = width / heads;
    float *src = stage.scores.src + r * heads, *dst = stage.scores.dst + r * heads;
    int64_t head = 0;
    if (channels == NATIVE) head = score_heads<1>(stage, y, src, dst);
    if (channels == 2 * NATIVE) head = score_heads<2>(stage, y, src, dst);
    if (channels == 4 * NATIVE) head = score_heads<4>(stage, y, src, dst);
    for (; head < heads; ++head) {
        const float *row = y + head * channels, *vector = stage.vectors + head * channels;
        Native of_src = Native{}, of_dst = Native{};
        by_vectors(channels, [&](int64_t k, auto count) __attribute__((always_inline)) {
            const Native x = native(row + k, count);
            of_src += x * native(vector + k, count);
            of_dst += x * native(vector + width + k, count);
        });
        src[head] = sum_of(of_src), dst[head] = sum_of(of_dst);
    }
}

// Finishes the rows of a stage and writes them. What it hands on is `handed` afterwards.
BITGNN_INLINE void finish(const Stage& stage, int64_t from, int64_t rows, Work& work,
                          const Pending& pending, Rows& handed) {
    const int64_t width = stage.width;
    if (stage.hands_on) {
        handed.form = stage.integers.form, handed.width = width;
        handed.stride = stage.integers.stride;
    }
    if (stage.integers.values) {
        const Rows own = rows_from(stage.integers, from);
        handed = stage.hands_on ? own : handed;
    }
    const auto place = [&](int64_t r) __attribute__((always_inline)) {
        return work.line + r % 2 * work.deep;
    };
    const auto finished = [&](int64_t r) __attribute__((always_inline)) {
        const float* other = nullptr;
        if (stage.other.values) {
            other = static_cast<const float*>(stage.other.values) + (from + r) * stage.other.stride;
        }
        float* y = place(r);
        const float most = with_row(work, pending, r, [&](const auto row)
                                                          __attribute__((always_inline)) {
            switch (stage.act) {
                case RELU: return finish_row<RELU>(stage, other, row, y);
                case LEAKY_RELU: return finish_row<LEAKY_RELU>(stage, other, row, y);
                case ELU: return finish_row<ELU>(stage, other, row, y);
                default: return finish_row<IDENTITY>(stage, other, row, y);
            }
        });
        return scale_in(stage.integers.form, most, stage.quantize);
    };
    const auto write_all = [&](int64_t r, Scale scale) __attribute__((always_inline)) {
        float* y = place(r);
        const auto write = [&](const Rows& to, int64_t at) __attribute__((always_inline)) {
            if (to.form == INT8) {
                quantize_row(y, width, scale, stage.quantize,
                             static_cast<std::int8_t*>(to.values) + at * to.stride, to.stride,
                             to.sum + at);
                to.scale[at] = scale.s;
            } else if (to.form == INT16) {
                quantize_row_16(y, width, scale,
                                static_cast<std::int16_t*>(to.values) + at * to.stride, to.stride,
                                to.passes_by);
                to.scale[at] = scale.s;
            } else {
                write_row(y, width, to.passes_by, static_cast<float*>(to.values) + at * to.stride);
            }
        };
        if (stage.numbers.values) write(stage.numbers, from + r);
        if (stage.integers.values) {
            const Rows& to = stage.integers;
            write(to, from + r);
            if (stage.node) to.share[from + r] = scale.s * stage.node[from + r];
        } else if (stage.hands_on) {
            write(handed, r);
        }
        if (stage.attends && !stage.rounded) score_row(stage, y, from + r);
    };
    one_behind(rows, finished, write_all);
    // Not right after each was written: the processor may wait until what is read has left its queue.
    for (int64_t r = 0; stage.rounded && r < rows; ++r) {
        numbers_of(stage.integers, from + r, work.line);
        score_row(stage, work.line, from + r);
    }
}

void run_pass(const Pass& pass, Scratch scratch, int threads) {
    const int64_t blocks = (pass.rows + BLOCK - 1) / BLOCK;
    // Whoever goes on where it was finds in the cache what comes next.
    const int64_t chunk = blocks / (32 * threads) + 1;
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
#pragma omp for schedule(dynamic, chunk)
        for (int64_t b = 0; b < blocks; ++b) {
            const int64_t from = b * BLOCK, rows = smaller(BLOCK, pass.rows - from);
            Rows handed{};
            for (int s = 0; s < pass.count; ++s) {
                const Stage& stage = pass.stages[s];
                Pending pending{};
                for (int t = 0; t < stage.count; ++t) {
                    add_term(stage, t, work.unpacked[s][t], handed, from, rows,
                             work.gathering[s][t], work, pending);
                }
                handed = work.handed[s % 2];
                finish(stage, from, rows, work, pending, handed);
            }
        }
        end_products();
#if defined(__AVX2__)
        _mm_sfence();  // What went by the caches is there for all.
#endif
    }
}

}  // namespace bitgnn::BITGNN_ISA
