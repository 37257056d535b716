#include "graph.h"

#include <algorithm>
#include <cmath>
#include <vector>

namespace bitgnn {

namespace {

// One read of memory that another thread may write: what was checked is what is used.
template <class T>
T once(const T* at) {
    return __atomic_load_n(at, __ATOMIC_RELAXED);
}

bool below(std::int64_t index, std::int64_t size) {
    return static_cast<std::uint64_t>(index) < static_cast<std::uint64_t>(size);
}

// Calls each(e, target) for every edge.
template <class Each>
Fault by_target(const EdgeList& edges, const Each& each) {
    for (std::int64_t e = 0; e < edges.count; ++e) {
        const std::int64_t target = once(edges.target + e);
        if (!below(target, edges.targets)) return WRONG_NODE;
        if (!each(e, target)) return WRONG_NODE;
    }
    return Fault{};
}

template <class Column, class Each>
Fault by_target(const EdgeRows<Column>& edges, const Each& each) {
    std::int64_t begin = once(edges.crow);
    if (begin != 0) return WRONG_ROWS;
    for (std::int64_t i = 0; i < edges.targets; ++i) {
        const std::int64_t end = once(edges.crow + i + 1);
        if (end < begin || end > edges.count) return WRONG_ROWS;
        for (std::int64_t e = begin; e < end - edges.left_out; ++e) {
            if (!each(e, i)) return WRONG_NODE;
        }
        begin = end;
    }
    return begin == edges.count ? Fault{} : WRONG_ROWS;
}

std::int64_t source_of(const EdgeList& edges, std::int64_t e) { return once(edges.source + e); }

template <class Column>
std::int64_t source_of(const EdgeRows<Column>& edges, std::int64_t e) {
    return once(edges.col + e);
}

// Divides weights by the square roots of the degrees of both ends, or finds those of nodes.
void normalize(std::int64_t nodes, const Sorted& sorted) {
    const std::int64_t* crow = sorted.crow;
    float* weight = sorted.weight;
    std::vector<float> inverse(weight ? std::size_t(nodes) : 0);
    float* node = weight ? inverse.data() : sorted.node;
    for (std::int64_t i = 0; i < nodes; ++i) {
        float degree = weight ? 0 : static_cast<float>(crow[i + 1] - crow[i]);
        for (std::int64_t k = crow[i]; weight && k < crow[i + 1]; ++k) degree += weight[k];
        node[i] = degree == 0 ? 0.0f : 1 / std::sqrt(degree);
    }
    for (std::int64_t i = 0; weight && i < nodes; ++i) {
        for (std::int64_t k = crow[i]; k < crow[i + 1]; ++k) {
            weight[k] *= node[sorted.col[k]] * node[i];
        }
    }
}

}  // namespace

template <class Edges>
std::int64_t sort_edges(const Edges& edges, Rule rule, Sorted sorted) {
    const std::int64_t nodes = edges.targets;
    if ((rule.gcn || rule.loops) && edges.sources != nodes) return WRONG_NODE;
    const bool drops = rule.loops == REPLACED || rule.loops == KEPT;
    std::int64_t* crow = sorted.crow;
    std::fill(crow, crow + nodes + 1, 0);
    Fault fault = by_target(edges, [=](std::int64_t e, std::int64_t target) {
        crow[target + 1] += !drops || source_of(edges, e) != target;
        return true;
    });
    if (fault) return fault;
    const std::int64_t at_end = rule.loops != NO_LOOPS;
    std::int64_t most = 0;
    for (std::int64_t i = 0; i < nodes; ++i) {
        crow[i + 1] += at_end;
        most = std::max(most, crow[i + 1]);
        crow[i + 1] += crow[i];
    }
    if (crow[nodes] > sorted.room) return CHANGED;
    const std::int64_t end = crow[nodes];
    std::vector<std::int64_t> places(crow, crow + nodes);
    std::vector<float> own(sorted.weight && rule.loops ? std::size_t(nodes) : 0, rule.fill);
    std::int64_t* const next = places.data();
    float* const loop = rule.loops == KEPT && sorted.weight ? own.data() : nullptr;
    std::int32_t* const col = sorted.col;
    float* const weight = sorted.weight;
    fault = by_target(edges, [=](std::int64_t e, std::int64_t target) {
        const std::int64_t source = source_of(edges, e);
        if (!below(source, edges.sources)) return false;
        if (drops && source == target) {
            if (loop) loop[target] = edges.weight ? edges.weight[e] : 1.0f;
            return true;
        }
        const std::int64_t at = next[target]++;
        if (at >= end) return false;
        col[at] = static_cast<std::int32_t>(source);
        if (weight) weight[at] = edges.weight ? edges.weight[e] : 1.0f;
        return true;
    });
    if (fault) return fault;
    for (std::int64_t i = 0; i < nodes; ++i) {  // Each target has all its edges, and no others.
        if (next[i] != crow[i + 1] - at_end) return CHANGED;
    }
    for (std::int64_t i = 0; rule.loops && i < nodes; ++i) {
        const std::int64_t at = crow[i + 1] - 1;
        col[at] = static_cast<std::int32_t>(i);
        if (weight) weight[at] = own[std::size_t(i)];
    }
    if (rule.gcn) normalize(nodes, sorted);
    return most;
}

template std::int64_t sort_edges(const EdgeList&, Rule, Sorted);
template std::int64_t sort_edges(const EdgeRows<std::int32_t>&, Rule, Sorted);
template std::int64_t sort_edges(const EdgeRows<std::int64_t>&, Rule, Sorted);

// Where the loader can choose, wider vectors halve the time of a check that each call makes.
#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__)
__attribute__((target_clones("avx2", "default")))
#endif
bool are_rows(const std::int64_t* crow, const std::int64_t* col, std::int64_t rows,
              std::int64_t columns, std::int64_t count) {
    // A negative difference of two numbers that are not negative shows in its sign bit: that of all
    // of them together is found without a branch.
    std::uint64_t signs = 0;
    const auto above = [&](std::int64_t low, std::int64_t high) {
        signs |= std::uint64_t(low) | std::uint64_t(high) | (std::uint64_t(high) - std::uint64_t(low));
    };
    for (std::int64_t i = 0; i < rows; ++i) above(crow[i], crow[i + 1]);
    if (signs >> 63 || crow[0] != 0 || crow[rows] != count) return false;
    for (std::int64_t e = 0; e < count; ++e) above(col[e], columns - 1);
    return !(signs >> 63);
}

}  // namespace bitgnn
