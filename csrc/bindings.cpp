// The kernels as Python functions. An array is a pair of an address and a number of bytes (`span` in
// bitgnn/kernels/native.py), the cheapest call there is; sizes are checked here, before a kernel runs.

#include <nanobind/nanobind.h>

#include "bindings.h"
#include "kernels.h"
#include "spans.h"

namespace nb = nanobind;

namespace {

using std::int64_t;

void require(bool holds, const char* what) {
    if (!holds) throw std::invalid_argument(what);
}

// The number of numbers of two sizes, which Python may have from anywhere.
int64_t times(int64_t a, int64_t b) {
    int64_t product = 0;
    require(a >= 0 && b >= 0 && !__builtin_mul_overflow(a, b, &product), "a size is too large");
    return product;
}

void require_threads(int threads) { require(threads >= 1, "at least one thread is needed"); }

// Offsets of rows, of which the last one is the number of values: 0 at first, and never less than the
// one before.
const int64_t* rising(const Lent& offsets, int64_t rows, int64_t count, const char* name) {
    require(rows >= 0, "there are rows");
    const int64_t* at = numbers<const int64_t>(offsets, rows + 1, name);
    bool holds = at[0] == 0 && at[rows] == count;
    for (int64_t row = 0; row < rows; ++row) holds &= at[row] <= at[row + 1];
    require(holds, "rows begin at 0, in their order, and end with the number of values");
    return at;
}

bitgnn::Csr csr(const Lent& crow, const Lent& col, int64_t rows) {
    const int64_t count = col.second / int64_t(sizeof(int64_t));
    return {rising(crow, rows, count, "crow"), numbers<const int64_t>(col, count, "col"), rows};
}

// What both passes of attention read; `sources` is the number of rows of x.
template <class T>
bitgnn::Attention<T> operands(const Lent& crow, const Lent& col, int64_t rows, int64_t sources,
                              int64_t heads, int64_t channels, const Lent& x, const Lent& src,
                              const Lent& dst, double slope) {
    require(heads >= 0 && heads <= bitgnn::MOST_HEADS, "attention has at most MOST_HEADS heads");
    return {csr(crow, col, rows),
            heads,
            channels,
            numbers<const T>(x, times(times(sources, heads), channels), "x"),
            numbers<const T>(src, times(sources, heads), "score_src"),
            numbers<const T>(dst, times(rows, heads), "score_dst"),
            T(slope)};
}

template <class T>
void define(nb::module_& m, const bitgnn::Typed<T>& typed, const char* name) {
    nb::module_ types = m.def_submodule(name);
    const auto free = nb::call_guard<nb::gil_scoped_release>();
    types.def(
        "attention",
        [&typed](Lent crow, Lent col, int64_t rows, int64_t sources, int64_t heads,
                 int64_t channels, Lent x, Lent score_src, Lent score_dst, double negative_slope,
                 Lent noise, double p, Lent out, Lent alpha, Lent weight, int threads) {
            require_threads(threads);
            const auto a = operands<T>(crow, col, rows, sources, heads, channels, x, score_src,
                                       score_dst, negative_slope);
            const int64_t edges = times(a.adj.crow[rows], heads);
            typed.attention(a, optional<const float>(noise, edges, "noise"), float(p),
                            numbers<T>(out, times(times(rows, heads), channels), "out"),
                            numbers<T>(alpha, edges, "alpha"), numbers<T>(weight, edges, "weight"),
                            threads);
        },
        free);
    types.def(
        "attention_backward",
        [&typed](Lent crow, Lent col, int64_t rows, int64_t sources, int64_t heads,
                 int64_t channels, Lent x, Lent score_src, Lent score_dst, double negative_slope,
                 Lent crow_t, Lent col_t, Lent order, Lent grad, Lent out, Lent alpha, Lent weight,
                 Lent grad_edge, Lent grad_x, Lent grad_src, Lent grad_dst, int threads) {
            require_threads(threads);
            const auto a = operands<T>(crow, col, rows, sources, heads, channels, x, score_src,
                                       score_dst, negative_slope);
            const auto transposed = csr(crow_t, col_t, sources);
            const int64_t count = a.adj.crow[rows], edges = times(count, heads);
            require(transposed.crow[sources] == count, "a transpose has as many values");
            const int64_t of_rows = times(times(rows, heads), channels);
            const int64_t of_sources = times(times(sources, heads), channels);
            typed.attention_backward(
                a, {transposed, numbers<const std::int32_t>(order, count, "order")},
                numbers<const T>(grad, of_rows, "grad"), numbers<const T>(out, of_rows, "out"),
                numbers<const T>(alpha, edges, "alpha"), numbers<const T>(weight, edges, "weight"),
                numbers<T>(grad_edge, edges, "grad_edge"), numbers<T>(grad_x, of_sources, "grad_x"),
                numbers<T>(grad_src, times(sources, heads), "grad_src"),
                numbers<T>(grad_dst, times(rows, heads), "grad_dst"), threads);
        },
        free);
    types.def(
        "quantize_rows",
        [&typed](Lent x, Lent offsets, int64_t rows, int64_t width, double high, double top,
                 double eps, Lent x_q, Lent scale, int threads) {
            require_threads(threads);
            const int64_t count = x.second / int64_t(sizeof(T));
            const bool regular = offsets.first == 0 && offsets.second == 0;
            const int64_t* at = regular ? nullptr : rising(offsets, rows, count, "offsets");
            typed.quantize_rows(numbers<const T>(x, regular ? times(rows, width) : count, "x"), at,
                                rows, width, T(high), T(top), T(eps), numbers<T>(x_q, count, "x_q"),
                                numbers<T>(scale, rows, "scale"), threads);
        },
        free);
    types.def(
        "dropout",
        [&typed](Lent x, double p, std::uint64_t seed, Lent out, int threads) {
            require_threads(threads);
            const int64_t count = x.second / int64_t(sizeof(T));
            typed.dropout(numbers<const T>(x, count, "x"), count, float(p), seed,
                          numbers<T>(out, count, "out"), threads);
        },
        free);
}

}  // namespace

NB_MODULE(_native, m) {
    const bitgnn::Kernels& kernels = bitgnn::kernels();
    m.attr("isa") = kernels.name;
    m.attr("most_heads") = bitgnn::MOST_HEADS;
    define(m, kernels.f32, "f32");
    define(m, kernels.f64, "f64");
    const auto free = nb::call_guard<nb::gil_scoped_release>();
    m.def(
        "uniform",
        [&kernels](Lent out, std::uint64_t seed, int threads) {
            require_threads(threads);
            const int64_t count = out.second / int64_t(sizeof(float));
            kernels.uniform(numbers<float>(out, count, "out"), count, seed, threads);
        },
        free);
    m.def(
        "pack_codes",
        [&kernels](Lent weight, int64_t n, int64_t k, Lent out) {
            const int64_t bytes = times(times((n + 15) / 16, (k + 15) / 16), 64);
            kernels.pack_codes(numbers<const std::int8_t>(weight, times(n, k), "weight"), n, k,
                               numbers<std::uint8_t>(out, bytes, "out"));
        },
        free);
    m.def(
        "pack_numbers",
        [&kernels](Lent weight, int64_t n, int64_t k, Lent out) {
            const int64_t count = times(times((n + 15) / 16, 16), k);
            kernels.pack_numbers(numbers<const float>(weight, times(n, k), "weight"), n, k,
                                 numbers<float>(out, count, "out"));
        },
        free);
    m.def("gradient_room", [&kernels](int64_t n, int64_t k) {
        require(n >= 0 && k >= 0 && n < 1 << 28 && k < 1 << 28, "a weight is too large");
        return kernels.gradient_room(n, k);
    });
    m.def(
        "weight_gradient",
        [&kernels](Lent x, Lent grad, int64_t rows, int64_t n, int64_t k, double high, double top,
                   double eps, Lent room, Lent out, int threads) {
            require_threads(threads);
            require(n >= 0 && k >= 0 && n < 1 << 28 && k < 1 << 28, "a weight is too large");
            const int64_t working = kernels.gradient_room(n, k);
            kernels.weight_gradient(numbers<const float>(x, times(rows, k), "x"),
                                    numbers<const float>(grad, times(rows, n), "grad"), rows, n, k,
                                    {float(high), float(top), float(eps)},
                                    numbers<float>(room, working, "room"),
                                    numbers<float>(out, times(n, k), "out"), threads);
        },
        free);
    define_graph(m);
    define_engine(m);
}
