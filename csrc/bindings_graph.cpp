// Graphs in Python: edges by target, made of a caller's edges. Arrays are pairs of an address and a
// number of bytes, which is checked; bitgnn/packed/graph.py keeps what they point to.

#include <nanobind/nanobind.h>

#include <stdexcept>

#include "bindings.h"
#include "engine.h"
#include "graph.h"
#include "spans.h"

namespace nb = nanobind;

namespace {

using namespace bitgnn;

constexpr std::int64_t MOST_EDGES = std::int64_t{1} << 40;

// Edges by target in one piece of memory, as `Rows` in bitgnn/packed/graph.py has them: crow
// (targets + 1) of 64 bits, then col (room), the weights (room) of edges if they have any, and the
// numbers (targets) of nodes if these normalize edges, of 32 bits.
Sorted parts_of(const Lent& memory, std::int64_t targets, std::int64_t room, bool weighted,
                bool noded) {
    if (targets < 0 || targets >= MOST_ROWS || room < 0 || room >= MOST_EDGES) {
        throw std::invalid_argument("bitgnn graph: too many nodes or edges");
    }
    const std::int64_t rest = room * (1 + weighted) + targets * noded;
    const std::int64_t size = targets + 1 + (rest + 1) / 2;
    if (memory.second < 8 * size) throw std::invalid_argument("bitgnn graph: too little memory");
    auto* crow = numbers<std::int64_t>({memory.first, 8 * size}, size, "memory");
    auto* col = reinterpret_cast<std::int32_t*>(crow + targets + 1);
    auto* weight = reinterpret_cast<float*>(col + room);
    return {crow, col, weighted ? weight : nullptr, noded ? weight + room * weighted : nullptr, room};
}

// What `sort_edges` has made is looked at once: rows in their order, and `most`.
void make_edges(Edges* self, const Lent& memory, std::int64_t targets, std::int64_t room,
                bool weighted, bool noded, std::int64_t most, std::int64_t sources) {
    const Sorted parts = parts_of(memory, targets, room, weighted, noded);
    bool holds = most >= 0 && sources >= 0 && sources < MOST_ROWS && parts.crow[0] == 0;
    for (std::int64_t row = 0; holds && row < targets; ++row) {
        const std::int64_t count = parts.crow[row + 1] - parts.crow[row];
        holds = count >= 0 && count <= most;
    }
    holds = holds && parts.crow[targets] <= room && (!noded || sources <= targets);
    if (!holds) throw std::invalid_argument("bitgnn graph: edges are no edges by target");
    new (self) Edges{parts.crow, parts.col, parts.weight, parts.node, targets, most, sources};
}

std::int64_t sort_list(const Lent& source, const Lent& target, const Lent& weight,
                       std::int64_t count, std::int64_t sources, std::int64_t targets, bool gcn,
                       int loops, float fill, const Lent& memory, std::int64_t room, bool weighted,
                       bool noded) {
    const EdgeList edges{numbers<const std::int64_t>(source, count, "source"),
                         numbers<const std::int64_t>(target, count, "target"),
                         optional<const float>(weight, count, "weight"), count, sources, targets};
    const Sorted sorted = parts_of(memory, targets, room, weighted, noded);
    return sort_edges(edges, {gcn, loops, fill}, sorted);
}

template <class Column>
std::int64_t sort_rows(const Lent& crow, const Lent& col, const Lent& weight, std::int64_t count,
                       bool left_out, std::int64_t sources, std::int64_t targets, bool gcn, int loops, float fill,
                       const Lent& memory, std::int64_t room, bool weighted, bool noded) {
    const Sorted sorted = parts_of(memory, targets, room, weighted, noded);
    const EdgeRows<Column> edges{numbers<const std::int64_t>(crow, targets + 1, "crow"),
                                 numbers<const Column>(col, count, "col"),
                                 optional<const float>(weight, count, "weight"), count, sources,
                                 targets, left_out};
    return sort_edges(edges, {gcn, loops, fill}, sorted);
}

bool rows_hold(const Lent& crow, const Lent& col, std::int64_t rows, std::int64_t columns,
               std::int64_t count) {
    if (rows < 0) throw std::invalid_argument("bitgnn graph: a negative number of rows");
    return are_rows(numbers<const std::int64_t>(crow, rows + 1, "crow"),
                    numbers<const std::int64_t>(col, count, "col"), rows, columns, count);
}

}  // namespace

void define_graph(nb::module_& m) {
    const auto free = nb::call_guard<nb::gil_scoped_release>();
    nb::class_<Edges>(m, "Edges").def("__init__", &make_edges);
    m.def("sort_edges", &sort_list, free);
    m.def("sort_rows", &sort_rows<std::int32_t>, free);
    m.def("sort_wide_rows", &sort_rows<std::int64_t>, free);
    m.def("are_rows", &rows_hold, free);
}
