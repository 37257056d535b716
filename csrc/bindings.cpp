// The kernels as Python functions on addresses (Tensor.data_ptr()): the cheapest call there is.
// bitgnn/kernels/native.py, their only caller, checks what they are given.

#include <nanobind/nanobind.h>

#include "bindings.h"
#include "kernels.h"

namespace nb = nanobind;

namespace {

using Address = std::uintptr_t;

template <class T>
T* at(Address address) {
    return reinterpret_cast<T*>(address);
}

bitgnn::Csr csr(Address crow, Address col, std::int64_t rows) {
    return {at<const std::int64_t>(crow), at<const std::int64_t>(col), rows};
}

template <class T>
void define(nb::module_& m, const bitgnn::Typed<T>& typed, const char* name) {
    nb::module_ types = m.def_submodule(name);
    const auto free = nb::call_guard<nb::gil_scoped_release>();
    types.def(
        "attention",
        [&typed](Address crow, Address col, std::int64_t rows, std::int64_t heads,
                 std::int64_t channels, Address x, Address score_src, Address score_dst,
                 double negative_slope, Address noise, double p, Address out, Address alpha,
                 Address weight, int threads) {
            typed.attention({csr(crow, col, rows), heads, channels, at<const T>(x),
                             at<const T>(score_src), at<const T>(score_dst), T(negative_slope)},
                            at<const float>(noise), float(p), at<T>(out), at<T>(alpha),
                            at<T>(weight), threads);
        },
        free);
    types.def(
        "attention_backward",
        [&typed](Address crow, Address col, std::int64_t rows, std::int64_t heads,
                 std::int64_t channels, Address x, Address score_src, Address score_dst,
                 double negative_slope, Address crow_t, Address col_t, std::int64_t rows_t,
                 Address order, Address grad, Address out, Address alpha, Address weight,
                 Address grad_edge, Address grad_x, Address grad_src, Address grad_dst,
                 int threads) {
            typed.attention_backward({csr(crow, col, rows), heads, channels, at<const T>(x),
                                      at<const T>(score_src), at<const T>(score_dst),
                                      T(negative_slope)},
                                     {csr(crow_t, col_t, rows_t), at<const std::int32_t>(order)},
                                     at<const T>(grad), at<const T>(out), at<const T>(alpha),
                                     at<const T>(weight), at<T>(grad_edge), at<T>(grad_x),
                                     at<T>(grad_src), at<T>(grad_dst), threads);
        },
        free);
    types.def(
        "quantize_rows",
        [&typed](Address x, Address offsets, std::int64_t rows, std::int64_t width, double high,
                 double top, double eps, Address x_q, Address scale, int threads) {
            typed.quantize_rows(at<const T>(x), at<const std::int64_t>(offsets), rows, width,
                                T(high), T(top), T(eps), at<T>(x_q), at<T>(scale), threads);
        },
        free);
    types.def(
        "dropout",
        [&typed](Address x, std::int64_t size, double p, std::uint64_t seed, Address out,
                 int threads) {
            typed.dropout(at<const T>(x), size, float(p), seed, at<T>(out), threads);
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
    m.def(
        "uniform",
        [&kernels](Address out, std::int64_t size, std::uint64_t seed, int threads) {
            kernels.uniform(at<float>(out), size, seed, threads);
        },
        nb::call_guard<nb::gil_scoped_release>());

    const auto free = nb::call_guard<nb::gil_scoped_release>();
    m.def(
        "pack_codes",
        [&kernels](Address weight, std::int64_t n, std::int64_t k, Address out) {
            kernels.pack_codes(at<const std::int8_t>(weight), n, k, at<std::uint8_t>(out));
        },
        free);
    m.def(
        "pack_numbers",
        [&kernels](Address weight, std::int64_t n, std::int64_t k, Address out) {
            kernels.pack_numbers(at<const float>(weight), n, k, at<float>(out));
        },
        free);
    m.def("gradient_room", [&kernels](std::int64_t n, std::int64_t k) {
        return kernels.gradient_room(n, k);
    });
    m.def(
        "weight_gradient",
        [&kernels](Address x, Address grad, std::int64_t rows, std::int64_t n, std::int64_t k,
                   double high, double top, double eps, Address room, Address out, int threads) {
            kernels.weight_gradient(at<const float>(x), at<const float>(grad), rows, n, k,
                                    {float(high), float(top), float(eps)}, at<float>(room),
                                    at<float>(out), threads);
        },
        free);
    define_engine(m);
}
