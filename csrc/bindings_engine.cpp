// The engine of packed models in Python. Arrays that it keeps are handed over as they are and live as
// long as it does; those of a call are pairs of an address and a number of bytes. It checks the sizes of
// both (check.cpp).

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/vector.h>

#include <utility>

#include "bindings.h"
#include "engine.h"
#include "graph.h"
#include "spans.h"

namespace nb = nanobind;

namespace {

using namespace bitgnn;
using Address = std::uintptr_t;
using Given = nb::ndarray<nb::ro, nb::c_contig, nb::device::cpu>;

int type_of(const Given& given) {
    if (given.dtype() == nb::dtype<float>()) return FLOAT32;
    if (given.dtype() == nb::dtype<std::uint8_t>()) return BYTES;
    return given.dtype() == nb::dtype<std::int8_t>() ? SIGNED_BYTES : NO_TYPE;
}

// An array as an attribute that is written.
template <class T>
void array(nb::class_<T>& type, const char* name, Array T::* member) {
    type.def_prop_rw(
        name, [member](const T& self) { return (self.*member).count; },
        [member](T& self, Given given) {
            const auto count = static_cast<std::int64_t>(given.size());
            const auto owner = std::make_shared<Given>(given);
            self.*member = {given.data(), count, type_of(given), owner};
        });
}

// What `found(self)` is, as an attribute.
template <class T, class Found>
void attribute(nb::class_<T>& type, const char* name, Found found) {
    using Kind = std::remove_reference_t<decltype(found(std::declval<T&>()))>;
    type.def_prop_rw(
        name, [found](T& self) { return found(self); },
        [found](T& self, Kind value) { found(self) = value; });
}

void define_term(nb::module_& m) {
    nb::class_<TermOf> type(m, "Term");
    type.def(nb::init<>()).def_rw("value", &TermOf::value).def_rw("edges", &TermOf::edges);
    type.def_rw("scores", &TermOf::scores);
    attribute(type, "aggregates", [](TermOf& t) -> bool& { return t.term.aggregates; });
    attribute(type, "reduce", [](TermOf& t) -> int& { return t.term.reduce; });
    attribute(type, "exact", [](TermOf& t) -> bool& { return t.term.exact; });
    attribute(type, "heads", [](TermOf& t) -> std::int64_t& { return t.term.heads.count; });
    attribute(type, "slope", [](TermOf& t) -> float& { return t.term.heads.slope; });
    attribute(type, "mean", [](TermOf& t) -> bool& { return t.term.heads.mean; });
    attribute(type, "hold", [](TermOf& t) -> int& { return t.term.hold; });
    attribute(type, "high", [](TermOf& t) -> float& { return t.term.quantize.high; });
    attribute(type, "top", [](TermOf& t) -> float& { return t.term.quantize.top; });
    attribute(type, "eps", [](TermOf& t) -> float& { return t.term.quantize.eps; });
    attribute(type, "n", [](TermOf& t) -> std::int64_t& { return t.term.weight.n; });
    attribute(type, "k", [](TermOf& t) -> std::int64_t& { return t.term.weight.k; });
    array(type, "codes", &TermOf::codes);
    array(type, "scale", &TermOf::scale);
    array(type, "numbers", &TermOf::numbers);
    array(type, "by_row", &TermOf::by_row);
}

void define_stage(nb::module_& m) {
    nb::class_<StageOf> type(m, "Stage");
    type.def(nb::init<>()).def_rw("terms", &StageOf::terms).def_rw("other", &StageOf::other);
    type.def_rw("numbers", &StageOf::numbers).def_rw("integers", &StageOf::integers);
    type.def_rw("scores", &StageOf::scores).def_rw("node", &StageOf::node);
    attribute(type, "width", [](StageOf& s) -> std::int64_t& { return s.stage.width; });
    attribute(type, "act", [](StageOf& s) -> int& { return s.stage.act; });
    attribute(type, "slope", [](StageOf& s) -> float& { return s.stage.slope; });
    attribute(type, "hands_on", [](StageOf& s) -> bool& { return s.stage.hands_on; });
    attribute(type, "form", [](StageOf& s) -> int& { return s.stage.integers.form; });
    attribute(type, "high", [](StageOf& s) -> float& { return s.stage.quantize.high; });
    attribute(type, "top", [](StageOf& s) -> float& { return s.stage.quantize.top; });
    attribute(type, "eps", [](StageOf& s) -> float& { return s.stage.quantize.eps; });
    attribute(type, "attends", [](StageOf& s) -> std::int64_t& { return s.stage.attends; });
    attribute(type, "rounded", [](StageOf& s) -> bool& { return s.stage.rounded; });
    array(type, "factor", &StageOf::factor);
    array(type, "bias", &StageOf::bias);
    array(type, "vectors", &StageOf::vectors);
}

std::vector<Span> spans(const std::vector<Lent>& lent) {
    std::vector<Span> found;
    found.reserve(lent.size());
    for (const Lent& each : lent) found.push_back({each.first, each.second});
    return found;
}

// Edges by target. What `sort_edges` has made is looked at once: rows in their order, and `most`.
void make_edges(Edges* self, Address crow, Address col, Address weight, Address node,
                std::int64_t rows, std::int64_t most, std::int64_t sources) {
    const auto* at = reinterpret_cast<const std::int64_t*>(crow);
    bool holds = at && rows >= 0 && rows < MOST_ROWS && most >= 0 && sources >= 0 &&
                 sources < MOST_ROWS && at[0] == 0;
    for (std::int64_t row = 0; holds && row < rows; ++row) {
        const std::int64_t count = at[row + 1] - at[row];
        holds = count >= 0 && count <= most;
    }
    holds = holds && (col || at[rows] == 0) && (!node || sources <= rows);
    if (!holds) throw std::invalid_argument("bitgnn engine: edges are no edges by target");
    new (self) Edges{at, reinterpret_cast<const std::int32_t*>(col),
                     reinterpret_cast<const float*>(weight),
                     reinterpret_cast<const float*>(node), rows, most, sources};
}

template <class T>
T* at(Address address) {
    return reinterpret_cast<T*>(address);
}

// Edges that are by target already, with columns of 32 or 64 bits.
template <class Column>
void define_sort_rows(nb::module_& m, const char* name) {
    m.def(
        name,
        [](Address crow, Address col, Address weight, std::int64_t count, std::int64_t sources,
           std::int64_t targets, int left_out, bool gcn, int loops, float fill, Address to_crow,
           Address to_col, Address to_weight, Address to_node, std::int64_t room) {
            std::int64_t found = 0;
            const std::int64_t most = sort_edges(
                EdgeRows<Column>{at<const std::int64_t>(crow), at<const Column>(col),
                                 at<const float>(weight), count, sources, targets, left_out},
                {gcn, loops, fill},
                {at<std::int64_t>(to_crow), at<std::int32_t>(to_col), at<float>(to_weight),
                 at<float>(to_node), room},
                found);
            return std::make_pair(most, found);
        },
        nb::call_guard<nb::gil_scoped_release>());
}

void define_graph(nb::module_& m) {
    m.def(
        "sort_edges",
        [](Address source, Address target, Address weight, std::int64_t count,
           std::int64_t sources, std::int64_t targets, bool gcn, int loops, float fill,
           Address to_crow, Address to_col, Address to_weight, Address to_node,
           std::int64_t room) {
            std::int64_t found = 0;
            const std::int64_t most = sort_edges(
                EdgeList{at<const std::int64_t>(source), at<const std::int64_t>(target),
                         at<const float>(weight), count, sources, targets},
                {gcn, loops, fill},
                {at<std::int64_t>(to_crow), at<std::int32_t>(to_col), at<float>(to_weight),
                 at<float>(to_node), room},
                found);
            return std::make_pair(most, found);
        },
        nb::call_guard<nb::gil_scoped_release>());
    define_sort_rows<std::int32_t>(m, "sort_rows");
    define_sort_rows<std::int64_t>(m, "sort_wide_rows");
    m.def(
        "are_rows",
        [](Address crow, Address col, std::int64_t rows, std::int64_t columns,
           std::int64_t count) {
            return are_rows(at<const std::int64_t>(crow), at<const std::int64_t>(col), rows,
                            columns, count);
        },
        nb::call_guard<nb::gil_scoped_release>());
}

}  // namespace

void define_engine(nb::module_& m) {
    nb::class_<Edges> edges(m, "Edges");
    edges.def("__init__", &make_edges);
    define_graph(m);
    define_term(m);
    define_stage(m);
    nb::class_<Engine>(m, "Engine")
        .def(nb::init<>())
        .def("add_value", &Engine::add_value)
        .def("add_pass", &Engine::add_pass)
        .def(
            "run",
            [](Engine& self, const std::vector<Lent>& given, const std::vector<Edges>& edges,
               const std::vector<Lent>& wanted, const std::vector<std::int64_t>& rows,
               int threads) { self.run(spans(given), edges, spans(wanted), rows, threads); },
            nb::call_guard<nb::gil_scoped_release>())
        .def_prop_ro("seconds", &Engine::seconds)
        .def_prop_ro("bytes", &Engine::bytes);
}
