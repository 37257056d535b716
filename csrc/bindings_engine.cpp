// The engine of packed models in Python. Pointers are addresses (Tensor.data_ptr()), and whoever
// hands one over keeps what it points to; bitgnn/packed/native.py, their only caller, does.

#include <nanobind/nanobind.h>
#include <nanobind/stl/vector.h>

#include "bindings.h"
#include "engine.h"
#include "graph.h"

namespace nb = nanobind;

namespace {

using namespace bitgnn;
using Address = std::uintptr_t;

// A pointer as an attribute: found(self) is the pointer.
template <class T, class Found>
void address(nb::class_<T>& type, const char* name, Found found) {
    type.def_prop_rw(
        name, [found](T& self) { return reinterpret_cast<Address>(found(self)); },
        [found](T& self, Address value) {
            using Pointer = std::remove_reference_t<decltype(found(self))>;
            found(self) = reinterpret_cast<Pointer>(value);
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
    address(type, "codes", [](TermOf& t) -> auto& { return t.term.weight.codes; });
    address(type, "scale", [](TermOf& t) -> auto& { return t.term.weight.scale; });
    address(type, "numbers", [](TermOf& t) -> auto& { return t.term.weight.numbers; });
    address(type, "by_row", [](TermOf& t) -> auto& { return t.term.weight.by_row; });
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
    attribute(type, "stride", [](StageOf& s) -> std::int64_t& { return s.stage.integers.stride; });
    attribute(type, "high", [](StageOf& s) -> float& { return s.stage.quantize.high; });
    attribute(type, "top", [](StageOf& s) -> float& { return s.stage.quantize.top; });
    attribute(type, "eps", [](StageOf& s) -> float& { return s.stage.quantize.eps; });
    attribute(type, "attends", [](StageOf& s) -> std::int64_t& { return s.stage.attends; });
    attribute(type, "rounded", [](StageOf& s) -> bool& { return s.stage.rounded; });
    address(type, "factor", [](StageOf& s) -> auto& { return s.stage.factor; });
    address(type, "bias", [](StageOf& s) -> auto& { return s.stage.bias; });
    address(type, "vectors", [](StageOf& s) -> auto& { return s.stage.vectors; });
}

}  // namespace

void define_engine(nb::module_& m) {
    nb::class_<Edges> edges(m, "Edges");
    edges.def("__init__", [](Edges* self, Address crow, Address col, Address weight, Address node,
                             std::int64_t rows, std::int64_t most) {
        new (self) Edges{reinterpret_cast<const std::int64_t*>(crow),
                         reinterpret_cast<const std::int32_t*>(col),
                         reinterpret_cast<const float*>(weight),
                         reinterpret_cast<const float*>(node), rows, most};
    });
    m.def(
        "sort_edges",
        [](Address source, Address target, Address weight, std::int64_t count, std::int64_t nodes,
           bool gcn, bool loops, bool keeps, float fill, Address crow, Address col, Address out,
           Address node) {
            return sort_edges({reinterpret_cast<const std::int64_t*>(source),
                               reinterpret_cast<const std::int64_t*>(target),
                               reinterpret_cast<const float*>(weight), count, nodes},
                              {gcn, loops, keeps, fill}, reinterpret_cast<std::int64_t*>(crow),
                              reinterpret_cast<std::int32_t*>(col), reinterpret_cast<float*>(out),
                              reinterpret_cast<float*>(node));
        },
        nb::call_guard<nb::gil_scoped_release>());
    define_term(m);
    define_stage(m);
    nb::class_<Engine>(m, "Engine")
        .def(nb::init<>())
        .def("add_value", &Engine::add_value)
        .def("add_pass", &Engine::add_pass)
        .def("run", &Engine::run, nb::call_guard<nb::gil_scoped_release>())
        .def_prop_ro("seconds", &Engine::seconds)
        .def_prop_ro("bytes", &Engine::bytes);
}
