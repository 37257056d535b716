// What the engine is handed, checked before a kernel sees it: a mistake of the caller ends in
// std::invalid_argument (ValueError in Python) and never beyond the end of an array.
#include <cmath>
#include <stdexcept>
#include <string>

#include "engine.h"

namespace bitgnn {

namespace {

// The largest array that is the engine's own; with as many values as there can be, sizes stay in 64 bits.
constexpr std::int64_t MOST_BYTES = std::int64_t{1} << 46;
constexpr int MOST_VALUES = 1 << 16, MOST_THREADS = 1 << 12;

void require(bool holds, const char* what) {
    if (!holds) throw std::invalid_argument(std::string("bitgnn engine: ") + what);
}

std::int64_t up(std::int64_t size, std::int64_t multiple) {
    return (size + multiple - 1) / multiple;
}

void require_array(const Array& array, int type, std::int64_t count, const char* name) {
    if (array.data && array.type == type && array.count == count) return;
    throw std::invalid_argument(
        "bitgnn engine: '" + std::string(name) + "' has " + std::to_string(array.count) +
        " numbers where " + std::to_string(count) + " of another size or type are needed");
}

void require_optional(const Array& array, std::int64_t count, const char* name) {
    if (array.data || array.count) require_array(array, FLOAT32, count, name);
}

void require_range(const Quantize& q) {
    require(q.high >= 1 && std::isfinite(q.high), "integers of a row reach from -high to top");
    require(q.top >= 0 && q.top <= 127, "integers of a row have 8 bits");
    require(q.eps > 0 && std::isfinite(q.eps), "a scale is above 0");
}

void require_weight(const TermOf& of, int form, std::int64_t width) {
    const Weight& w = of.term.weight;
    require(w.n >= 0 && w.n <= MOST_WIDTH && w.k >= 0 && w.k <= MOST_WIDTH, "a weight is too large");
    const int kinds = bool(of.codes.data) + bool(of.numbers.data) + bool(of.by_row.data);
    if (w.n == 0) return require(kinds == 0, "a weight has rows");
    require(kinds == 1, "a weight has codes, numbers or rows for sparse features");
    require(w.k == width, "a weight has other columns than what it is multiplied by");
    const bool integers = of.codes.data || of.by_row.type == SIGNED_BYTES;
    if (integers) require_array(of.scale, FLOAT32, w.n, "scale");
    require(integers || !of.scale.data, "only integer weights have a scale");
    require((form == SPARSE) == bool(of.by_row.data), "sparse features have a weight by rows");
    const std::int64_t vectors = up(w.n, 16), line = 64;
    if (of.by_row.data) {
        require(!of.term.aggregates, "sparse features are not summed up over edges");
        require_array(of.by_row, integers ? SIGNED_BYTES : FLOAT32, w.k * up(w.n, line) * line,
                      "by_row");
        if (integers) require_range(of.term.quantize);
    } else if (of.codes.data) {
        require_array(of.codes, BYTES, vectors * up(w.k, 16) * line, "codes");
        if (form == INT8 && !of.term.aggregates) return;
        require(form != INT16 || of.term.aggregates, "rows of 16 bits are no operand");
        require(of.term.hold == INT8 || of.term.hold == INT16, "rows are held as integers");
        if (of.term.hold == INT8) require_range(of.term.quantize);
    } else {
        require_array(of.numbers, FLOAT32, vectors * 16 * w.k, "numbers");
    }
}

void* checked(const Span& span, std::int64_t bytes, const char* what) {
    require(span.bytes == bytes, what);
    require(span.at != 0 || bytes == 0, "an array has no address");
    return reinterpret_cast<void*>(span.at);
}

}  // namespace

void Engine::check_value(int form, std::int64_t width, int place, int nodes) const {
    require(values_.size() < MOST_VALUES, "there are too many values");
    require(width >= 1 && width <= MOST_WIDTH, "a row has 1 to 2^28 columns");
    require(nodes >= 0 && nodes < MOST_VALUES, "a value is of no type of nodes");
    switch (place) {
        case OWN: return require(form == NUMBERS || form == INT8 || form == INT16, "unknown form");
        case GIVEN: return require(form == NUMBERS || form == SPARSE, "callers have no integers");
        case WANTED: return require(form == NUMBERS, "callers want numbers");
        default: require(false, "a value has no place");
    }
}

// A value that a stage of pass `before` or of one before reads.
const Engine::Value& Engine::read(int value, int before, const char* what) const {
    require(value >= 0 && value < static_cast<int>(values_.size()), what);
    const Value& found = values_[static_cast<std::size_t>(value)];
    require(found.place == GIVEN || (found.made != NONE && found.made <= before),
            "a value is read before it is made");
    return found;
}

// Returns the width of what a term adds.
std::int64_t Engine::check_term(const TermOf& of, const StageOf* before, int pass,
                                int nodes) const {
    const Term& term = of.term;
    const std::int64_t heads = term.heads.count;
    std::int64_t width = 0;
    int form = NUMBERS;
    if (of.value == NONE) {
        require(before && before->stage.hands_on, "no stage hands on what a term reads");
        require(!term.aggregates, "what is handed on is of the same rows");
        width = before->stage.width, form = before->stage.integers.form;
    } else {
        const Value& value = read(of.value, term.aggregates ? pass - 1 : pass, "no such value");
        require(term.aggregates || value.nodes == nodes, "a value is of other nodes");
        width = value.width, form = value.form;
    }
    require(term.aggregates || heads == 0, "attention is over edges");
    if (term.aggregates) {
        require(of.edges >= 0, "a sum needs edges");
        require(form != SPARSE, "sparse features are not summed up over edges");
        require(term.reduce >= SUM && term.reduce <= MAX, "no such reduction");
    }
    if (heads != 0) {
        require(heads > 0 && heads <= MOST_HEADS && width % heads == 0,
                "attention has 1 to MOST_HEADS heads, which divide the columns");
        const Value& scores = read(of.scores, pass - 1, "attention needs scores");
        require(scores.form == NUMBERS && scores.place == OWN && scores.width == 2 * heads,
                "scores do not fit the heads");
        const Value& value = values_[static_cast<std::size_t>(of.value)];
        require(scores.nodes == nodes && value.nodes == nodes, "attention is of one type of nodes");
        if (term.heads.mean) width /= heads;
    }
    require_weight(of, form, width);
    return term.weight.n ? term.weight.n : width;
}

// What a stage writes.
void Engine::check_made(const StageOf& of, int nodes) const {
    const Stage& stage = of.stage;
    const auto written = [&](int value, std::int64_t width) -> const Value* {
        if (value == NONE) return nullptr;
        require(value >= 0 && value < static_cast<int>(values_.size()), "no such value");
        const Value& found = values_[static_cast<std::size_t>(value)];
        require(found.place != GIVEN, "a caller's value is not written");
        require(found.width == width && found.nodes == nodes, "a value has another width");
        return &found;
    };
    const Value* numbers = written(of.numbers, stage.width);
    require(!numbers || numbers->form == NUMBERS, "numbers are no integers");
    const Value* integers = written(of.integers, stage.width);
    require(!integers || integers->form == INT8 || integers->form == INT16, "integers have a form");
    require(!integers || !stage.hands_on, "integers are written or handed on");
    const int form = integers ? integers->form : stage.hands_on ? stage.integers.form : NUMBERS;
    require(form == NUMBERS || form == INT8 || form == INT16, "unknown form");
    if (form == INT8) require_range(stage.quantize);
    require(of.node == NONE || of.node >= 0, "no such edges");
    require(stage.attends >= 0, "a negative number of heads");
    if (stage.attends == 0) return require(of.scores == NONE, "scores are of an attention");
    require(stage.attends <= MOST_HEADS && stage.width % stage.attends == 0,
            "attention has 1 to MOST_HEADS heads, which divide the columns");
    require_array(of.vectors, FLOAT32, 2 * stage.width, "vectors");
    const Value* scores = written(of.scores, 2 * stage.attends);
    require(scores && scores->form == NUMBERS && scores->place == OWN, "attention needs scores");
    require(!stage.rounded || integers, "scores of rounded rows need integers");
}

void Engine::check_stage(const StageOf& of, const StageOf* before, int pass, int nodes) const {
    const Stage& stage = of.stage;
    require(nodes >= 0 && nodes < MOST_VALUES, "a pass is of no type of nodes");
    require(!of.terms.empty() && of.terms.size() <= MOST_TERMS, "a stage has 1 or 2 terms");
    require(stage.width >= 1 && stage.width <= MOST_WIDTH, "a row has 1 to 2^28 columns");
    require(stage.act >= IDENTITY && stage.act <= ELU, "no such activation function");
    for (const TermOf& term : of.terms) {
        require(check_term(term, before, pass, nodes) == stage.width, "a term has another width");
    }
    require_optional(of.factor, stage.width, "factor");
    require_optional(of.bias, stage.width, "bias");
    if (of.other != NONE) {
        const Value& other = read(of.other, pass, "no such value");
        require(other.form == NUMBERS && other.width == stage.width && other.nodes == nodes,
                "a value that is added has another width");
    }
    check_made(of, nodes);
}

void Engine::check_rows(const std::vector<std::int64_t>& rows, int threads) const {
    require(threads >= 1 && threads <= MOST_THREADS, "a run takes 1 to 4096 threads");
    for (std::int64_t count : rows) require(count >= 0 && count < MOST_ROWS, "too many rows");
    for (const Value& value : values_) {
        require(value.nodes < static_cast<int>(rows.size()), "a type of nodes has no rows");
        require((rows[std::size_t(value.nodes)] + 1) * (value.stride + 1) < MOST_BYTES / 4,
                "a value is too large");
    }
}

void Engine::check_edges(const std::vector<Edges>& edges,
                         const std::vector<std::int64_t>& rows) const {
    const auto of_rows = [&](int number, int nodes) -> const Edges& {
        require(number < static_cast<int>(edges.size()), "edges are missing");
        const Edges& found = edges[static_cast<std::size_t>(number)];
        require(nodes < static_cast<int>(rows.size()), "a type of nodes has no rows");
        require(found.rows == rows[static_cast<std::size_t>(nodes)],
                "edges have other targets than there are rows");
        return found;
    };
    for (std::size_t p = 0; p < passes_.size(); ++p) {
        require(nodes_[p] < static_cast<int>(rows.size()), "a type of nodes has no rows");
        for (const StageOf& stage : passes_[p]) {
            if (stage.node != NONE) of_rows(stage.node, nodes_[p]);
            for (const TermOf& term : stage.terms) {
                if (!term.term.aggregates) continue;
                const Value& value = values_[static_cast<std::size_t>(term.value)];
                require(of_rows(term.edges, nodes_[p]).sources <= value.rows_in(rows),
                        "edges have other sources than there are rows");
            }
        }
    }
}

void Engine::take(const std::vector<Span>& given, const std::vector<Span>& wanted) {
    callers_.assign(values_.size(), Caller{});
    std::size_t next_given = 0, next_wanted = 0;
    const auto next = [](const std::vector<Span>& spans, std::size_t& at) -> const Span& {
        require(at < spans.size(), "an array is missing");
        return spans[at++];
    };
    for (std::size_t k = 0; k < values_.size(); ++k) {
        const Value& value = values_[k];
        Caller& caller = callers_[k];
        if (value.place == OWN) continue;
        if (value.form != SPARSE) {
            const Span& span = value.place == GIVEN ? next(given, next_given)
                                                    : next(wanted, next_wanted);
            caller.values = checked(span, value.rows * value.width * 4,
                                    "a matrix has other bytes than its rows and columns need");
            continue;
        }
        const Span &crow = next(given, next_given), &col = next(given, next_given);
        const Span& numbers = next(given, next_given);
        const auto sized = "a sparse matrix has other bytes than its rows and numbers need";
        caller.crow = static_cast<const std::int64_t*>(checked(crow, (value.rows + 1) * 8, sized));
        const std::int64_t count = caller.crow[value.rows];
        require(caller.crow[0] == 0 && count >= 0 && count < MOST_BYTES / 8,
                "rows of a sparse matrix begin at 0 and end with its numbers");
        caller.col = static_cast<const std::int64_t*>(checked(col, count * 8, sized));
        caller.values = checked(numbers, count * 4, sized);
        // Without any numbers, there still are rows.
        if (!caller.values) caller.values = reinterpret_cast<void*>(crow.at);
    }
    require(next_given == given.size() && next_wanted == wanted.size(), "too many arrays");
}

}  // namespace bitgnn
