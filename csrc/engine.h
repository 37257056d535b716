// A packed model: passes over values whose memory is found once and kept.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <new>
#include <vector>

#include "kernels.h"

namespace bitgnn {

// A value by its number, where a pass has pointers; NONE is none.
constexpr int NONE = -1;

// An array that the engine keeps: its numbers are of one type, and it lives as long as `owner`.
enum Type { NO_TYPE, FLOAT32, BYTES, SIGNED_BYTES };
struct Array {
    const void* data = nullptr;
    std::int64_t count = 0;
    int type = NO_TYPE;
    std::shared_ptr<const void> owner;
};

// Memory of a caller for the time of a call.
struct Span {
    std::uintptr_t at;
    std::int64_t bytes;
};

// The pointers of `term` and `stage` to arrays are set by `Engine::add_pass`, once it has checked them.
struct TermOf {
    int value = NONE;  // none: what the stage before has made
    int edges = NONE;
    int scores = NONE;
    Array codes, scale, numbers, by_row;
    Term term{};
};

struct StageOf {
    std::vector<TermOf> terms;
    int other = NONE, numbers = NONE, integers = NONE, scores = NONE;
    int node = NONE;  // the edges whose `node` goes into the share of `integers`
    Array factor, bias, vectors;
    Stage stage{};
};

// The widest row and the most rows that there may be: products of both stay far below 2^63.
constexpr std::int64_t MOST_WIDTH = std::int64_t{1} << 28, MOST_ROWS = std::int64_t{1} << 31;

// Where the rows of a value are: in the engine's own memory, or in a caller's.
enum Place { OWN, GIVEN, WANTED };

// Everything that it is handed is checked (check.cpp): sizes that do not fit raise
// std::invalid_argument, and no kernel runs.
class Engine {
public:
    // Adds a value, of which there is one row for each node of a type, and returns its number; a
    // caller's values are numbered in the order in which `run` is given them.
    int add_value(int form, std::int64_t width, int place, int nodes);

    // Adds a pass of some stages, for the nodes of a type.
    void add_pass(std::vector<StageOf> stages, int nodes);

    // Runs all passes for `rows` nodes of each type. `edges` are those that terms have as numbers. A
    // sparse value takes three spans: where its rows begin (64 bits), columns (64) and numbers.
    void run(const std::vector<Span>& given, const std::vector<Edges>& edges,
             const std::vector<Span>& wanted, const std::vector<std::int64_t>& rows, int threads);

    // How long each pass took in the last run.
    const std::vector<double>& seconds() const { return seconds_; }

    // Bytes that it keeps.
    std::size_t bytes() const { return memory_.size(); }

private:
    struct Value {
        int form, place;
        std::int64_t width, stride;
        int nodes;
        int first = NONE, last = NONE;  // the passes between which it is needed
        int made = NONE;                // the pass that makes it
        std::int64_t at = 0, rows = 0;

        std::int64_t rows_in(const std::vector<std::int64_t>& counts) const {
            return counts[static_cast<std::size_t>(nodes)];
        }
    };

    // Memory that grows, and is given back at the end.
    class Memory {
    public:
        ~Memory();
        std::int8_t* at_least(std::size_t size);
        std::size_t size() const { return size_; }

    private:
        std::int8_t* bytes_ = nullptr;
        std::size_t size_ = 0;
        std::align_val_t aligned_{1};
    };

    // What a caller has for a value that is not the engine's own.
    struct Caller {
        void* values;
        const std::int64_t *crow, *col;  // of a sparse one
    };

    void check_value(int form, std::int64_t width, int place, int nodes) const;
    void check_stage(const StageOf& stage, const StageOf* before, int pass, int nodes) const;
    std::int64_t check_term(const TermOf& term, const StageOf* before, int pass, int nodes) const;
    void check_made(const StageOf& stage, int nodes) const;
    const Value& read(int value, int before, const char* what) const;
    void check_rows(const std::vector<std::int64_t>& rows, int threads) const;
    void check_edges(const std::vector<Edges>& edges, const std::vector<std::int64_t>& rows) const;
    void take(const std::vector<Span>& given, const std::vector<Span>& wanted);
    std::int64_t lay_out();
    Rows rows_of(int value) const;
    Scores scores_of(int value) const;
    void needed(int value, int pass);
    void add_stages(std::vector<StageOf>& stages, int pass, int nodes);

    std::vector<Value> values_;
    std::vector<std::vector<StageOf>> passes_;
    std::vector<int> nodes_;  // the type of nodes of each pass
    std::vector<double> seconds_;
    std::vector<Caller> callers_;  // of each value, in a run
    std::int8_t* base_ = nullptr;
    Memory memory_;
    std::mutex alone_;
};

}  // namespace bitgnn
