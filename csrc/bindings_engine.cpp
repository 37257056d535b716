// The engine of packed models in Python. Arrays that it keeps are handed over as they are and live as
// long as it does; those of a call are pairs of an address and a number of bytes. It checks the sizes of
// both (check.cpp).

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/vector.h>

#include "bindings.h"
#include "engine.h"
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

}  // namespace

void define_engine(nb::module_& m) {
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
