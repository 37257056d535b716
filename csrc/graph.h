// Edges by target, as a layer sums over them.
#pragma once

#include <cstdint>

namespace bitgnn {

// Edges in any order, as a caller has them.
struct EdgeList {
    const std::int64_t *source, *target;
    const float* weight;  // of each edge, or null: all are 1
    std::int64_t count, sources, targets;
};

// Edges by target: target i receives from col[crow[i]] to col[crow[i + 1] - 1 - left_out].
template <class Column>
struct EdgeRows {
    const std::int64_t* crow;
    const Column* col;
    const float* weight;
    std::int64_t count, sources, targets;
    int left_out;  // 1: the last edge of each target is a self-loop that was added to the graph
};

// The self-loops of a layer. ADDED come in addition to those of the graph; otherwise each node has
// one: REPLACED have the weight `fill`, KEPT that of the last one in the graph if there is one.
enum Loops { NO_LOOPS, ADDED, REPLACED, KEPT };

// What a layer makes of edges. `gcn` divides each weight by the square roots of the degrees of both
// ends, which are the sums of the weights of incoming edges.
struct Rule {
    bool gcn;
    int loops;
    float fill;
};

// Where the edges go: crow (targets + 1), col and weight (room; null: not wanted). Where edges have
// no weights, `gcn` fills node (targets) instead: the weight of an edge is node[i] * node[j].
struct Sorted {
    std::int64_t* crow;
    std::int32_t* col;
    float *weight, *node;
    std::int64_t room;
};

// Results of `sort_edges` that are no number of edges.
enum Fault : std::int64_t { WRONG_NODE = -1, WRONG_ROWS = -2, CHANGED = -3 };

// Sorts edges by target; those of a target keep their order, and its self-loop is the last. Returns
// the number of edges of the target that has most. Every index is checked where it is read, since
// another thread may write to the caller's memory meanwhile: nothing is written out of bounds, and a
// Fault is returned instead.
template <class Edges>
std::int64_t sort_edges(const Edges& edges, Rule rule, Sorted sorted);

// Whether the parts of a sparse matrix (CSR) are those of one: crow ascends from 0 to `count`, and
// columns are at least 0 and below `columns`.
bool are_rows(const std::int64_t* crow, const std::int64_t* col, std::int64_t rows,
              std::int64_t columns, std::int64_t count);

}  // namespace bitgnn
