// A packed model: passes over values whose memory is found once and kept.
#pragma once

#include <cstddef>
#include <cstdint>
#include <mutex>
#include <new>
#include <vector>

#include "kernels.h"

namespace bitgnn {

// A value by its number, where a pass has pointers; NONE is none.
constexpr int NONE = -1;

struct TermOf {
    int value = NONE;  // none: what the stage before has made
    int edges = NONE;
    int scores = NONE;
    Term term{};
};

struct StageOf {
    std::vector<TermOf> terms;
    int other = NONE, numbers = NONE, integers = NONE, scores = NONE;
    int node = NONE;  // the edges whose `node` goes into the share of `integers`
    Stage stage{};
};

// Where the rows of a value are: in the engine's own memory, or in a caller's.
enum Place { OWN, GIVEN, WANTED };

class Engine {
public:
    // Adds a value, of which there is one row for each node of a type, and returns its number; a
    // caller's values are numbered in the order in which `run` is given them.
    int add_value(int form, std::int64_t width, int place, int nodes);

    // Adds a pass of some stages, for the nodes of a type.
    void add_pass(const std::vector<StageOf>& stages, int nodes);

    // Runs all passes for `rows` nodes of each type. `edges` are those that terms have as numbers.
    void run(const std::vector<std::uintptr_t>& given, const std::vector<Edges>& edges,
             const std::vector<std::uintptr_t>& wanted, const std::vector<std::int64_t>& rows,
             int threads);

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
        std::int64_t at = 0, rows = 0;
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

    std::int64_t lay_out();
    Rows rows_of(int value) const;
    Scores scores_of(int value) const;
    void needed(int value, int pass);

    std::vector<Value> values_;
    std::vector<std::vector<StageOf>> passes_;
    std::vector<int> nodes_;  // the type of nodes of each pass
    std::vector<double> seconds_;
    std::vector<void*> callers_;  // of each value that is a caller's, in a run
    std::int8_t* base_ = nullptr;
    Memory memory_;
    std::mutex alone_;
};

}  // namespace bitgnn
