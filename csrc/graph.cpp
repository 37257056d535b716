#include "graph.h"

#include <algorithm>
#include <cmath>
#include <vector>

namespace bitgnn {

std::int64_t sort_edges(EdgeList edges, Rule rule, std::int64_t* crow, std::int32_t* col,
                        float* weight, float* node) {
    const std::int64_t nodes = edges.nodes;
    const auto dropped = [&](std::int64_t e) {
        return rule.loops && edges.source[e] == edges.target[e];
    };
    std::fill(crow, crow + nodes + 1, 0);
    for (std::int64_t e = 0; e < edges.count; ++e) {
        if (!dropped(e)) ++crow[edges.target[e] + 1];
    }
    std::int64_t most = 0;
    for (std::int64_t i = 0; i < nodes; ++i) {
        crow[i + 1] += rule.loops;
        most = std::max(most, crow[i + 1]);
        crow[i + 1] += crow[i];
    }
    std::vector<std::int64_t> next(crow, crow + nodes);
    std::vector<float> loop(weight && rule.loops ? std::size_t(nodes) : 0, rule.fill);
    for (std::int64_t e = 0; e < edges.count; ++e) {
        const std::int64_t to = edges.target[e];
        const float value = edges.weight ? edges.weight[e] : 1.0f;
        if (dropped(e)) {
            if (weight && rule.keeps) loop[std::size_t(to)] = value;
            continue;
        }
        const std::int64_t at = next[std::size_t(to)]++;
        col[at] = static_cast<std::int32_t>(edges.source[e]);
        if (weight) weight[at] = value;
    }
    for (std::int64_t i = 0; rule.loops && i < nodes; ++i) {
        const std::int64_t at = crow[i + 1] - 1;
        col[at] = static_cast<std::int32_t>(i);
        if (weight) weight[at] = loop[std::size_t(i)];
    }
    if (!rule.gcn) return most;
    std::vector<float> inverse(weight ? std::size_t(nodes) : 0);
    if (weight) node = inverse.data();
    for (std::int64_t i = 0; i < nodes; ++i) {
        float degree = weight ? 0 : static_cast<float>(crow[i + 1] - crow[i]);
        for (std::int64_t k = crow[i]; weight && k < crow[i + 1]; ++k) degree += weight[k];
        node[i] = degree == 0 ? 0.0f : 1 / std::sqrt(degree);
    }
    for (std::int64_t i = 0; weight && i < nodes; ++i) {
        for (std::int64_t k = crow[i]; k < crow[i + 1]; ++k) weight[k] *= node[col[k]] * node[i];
    }
    return most;
}

}  // namespace bitgnn
