// Edges by target, as a layer sums over them.
#pragma once

#include <cstdint>

namespace bitgnn {

struct EdgeList {
    const std::int64_t *source, *target;
    const float* weight;  // of each edge, or null: all are 1
    std::int64_t count, nodes;
};

// What a layer makes of edges. With self-loops each node gets one edge to itself: with the weight
// `fill`, or, if `keeps`, that of the one it has already. `gcn` divides each weight by the square
// roots of the degrees of both ends, which are the sums of the weights of incoming edges.
struct Rule {
    bool gcn, loops, keeps;
    float fill;
};

// Fills crow (nodes + 1), col and weight (count, and one more for each node with self-loops;
// null: not wanted). Where edges have no weights, `gcn` fills node (nodes) instead: the weight of an
// edge is node[i] * node[j] of its ends. Returns the number of edges of the target that has most.
// Those of a target keep their order, and its self-loop is the last.
std::int64_t sort_edges(EdgeList edges, Rule rule, std::int64_t* crow, std::int32_t* col,
                        float* weight, float* node);

}  // namespace bitgnn
