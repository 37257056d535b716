#include "engine.h"

#include <algorithm>
#include <chrono>
#include <stdexcept>

#ifdef __linux__
#include <sys/mman.h>
#endif

namespace bitgnn {

namespace {

constexpr std::int64_t LINE = 64, PAGE = 1 << 21;
// Bytes from which on rows pass by the caches: an output, and rows of 16 bits that a later pass reads. To
// rows of 8 bits, of which caches hold more, it is no gain.
constexpr std::int64_t WANTED_BY = 8 << 20, OWN_BY = 32 << 20;
constexpr std::size_t LARGE = 4 * PAGE;  // bytes from which on huge pages are worth what they round up
constexpr std::int64_t SPARE = 64;  // rows that a kernel may read beyond the last one

std::int64_t rounded_up(std::int64_t size, std::int64_t multiple) {
    return (size + multiple - 1) / multiple * multiple;
}

std::int64_t size_of(int form) { return form == INT8 ? 1 : form == INT16 ? 2 : 4; }

// The bytes of the parts of a value: its rows, and the scale, the sum and the share of each.
std::int64_t part(std::int64_t bytes) { return rounded_up(bytes, LINE); }

// Asks for huge pages within a range: fresh memory then takes one fault instead of 512.
void use_huge_pages(void* from, std::int64_t size) {
#ifdef __linux__
    const std::int64_t at = std::int64_t(reinterpret_cast<std::uintptr_t>(from));
    const std::int64_t first = rounded_up(at, PAGE), last = (at + size) / PAGE * PAGE;
    if (first < last) {
        madvise(reinterpret_cast<void*>(first), std::size_t(last - first), MADV_HUGEPAGE);
    }
#else
    (void)from, (void)size;
#endif
}

}  // namespace

Engine::Memory::~Memory() { ::operator delete(bytes_, aligned_); }

std::int8_t* Engine::Memory::at_least(std::size_t size) {
    if (size > size_) {
        ::operator delete(bytes_, aligned_);
        bytes_ = nullptr, size_ = 0;
        aligned_ = std::align_val_t(size < LARGE ? LINE : PAGE);
        bytes_ = static_cast<std::int8_t*>(::operator new(size, aligned_));
        size_ = size;
        if (size >= LARGE) use_huge_pages(bytes_, std::int64_t(size));
    }
    return bytes_;
}

int Engine::add_value(int form, std::int64_t width, int place, int nodes) {
    check_value(form, width, place, nodes);
    // What the engine writes for itself is filled up to whole cache lines.
    const std::int64_t stride = place == OWN ? rounded_up(width, LINE / size_of(form)) : width;
    values_.push_back({form, place, width, stride, nodes});
    return static_cast<int>(values_.size()) - 1;
}

void Engine::needed(int value, int pass) {
    if (value == NONE) return;
    Value& found = values_.at(static_cast<std::size_t>(value));
    if (found.first == NONE) found.first = pass;
    found.last = pass;
}

void Engine::add_pass(std::vector<StageOf> stages, int nodes) {
    const int pass = static_cast<int>(passes_.size());
    std::vector<Value> before = values_;
    try {
        add_stages(stages, pass, nodes);
    } catch (...) {
        values_ = std::move(before);
        throw;
    }
    passes_.push_back(std::move(stages));
    nodes_.push_back(nodes);
}

void Engine::add_stages(std::vector<StageOf>& stages, int pass, int nodes) {
    if (stages.empty() || stages.size() > MOST_STAGES) {
        throw std::invalid_argument("a pass has 1 to " + std::to_string(MOST_STAGES) + " stages");
    }
    const StageOf* before = nullptr;
    for (StageOf& stage : stages) {
        check_stage(stage, before, pass, nodes);
        for (TermOf& term : stage.terms) {
            Weight& w = term.term.weight;
            w.codes = static_cast<const std::uint8_t*>(term.codes.data);
            w.scale = static_cast<const float*>(term.scale.data);
            w.numbers = static_cast<const float*>(term.numbers.data);
            w.by_row = term.by_row.data;
            needed(term.value, pass), needed(term.scores, pass);
        }
        stage.stage.factor = static_cast<const float*>(stage.factor.data);
        stage.stage.bias = static_cast<const float*>(stage.bias.data);
        stage.stage.vectors = static_cast<const float*>(stage.vectors.data);
        const int size = static_cast<int>(size_of(stage.stage.integers.form));
        stage.stage.integers.stride = rounded_up(stage.stage.width, LINE / size);
        needed(stage.other, pass);
        for (int made : {stage.numbers, stage.integers, stage.scores}) {
            needed(made, pass);
            if (made != NONE) values_[static_cast<std::size_t>(made)].made = pass;
        }
        before = &stage;
    }
}

// Puts each value where no other is that is needed at the same time; the largest first, as small ones
// find room between them.
std::int64_t Engine::lay_out() {
    std::int64_t all = 0;
    std::vector<Value*> own;
    std::vector<const Value*> placed;
    const auto bytes = [](const Value& value) {
        const std::int64_t room = value.rows + SPARE;
        return part(room * value.stride * size_of(value.form)) + 3 * part(room * 4);
    };
    for (Value& value : values_) {
        if (value.place == OWN && value.first != NONE) own.push_back(&value);
    }
    std::stable_sort(own.begin(), own.end(), [&](const Value* a, const Value* b) {
        return bytes(*a) > bytes(*b);
    });
    for (Value* each : own) {
        Value& value = *each;
        std::vector<const Value*> beside;
        for (const Value* other : placed) {
            if (other->first <= value.last && value.first <= other->last) beside.push_back(other);
        }
        std::sort(beside.begin(), beside.end(),
                  [](const Value* a, const Value* b) { return a->at < b->at; });
        value.at = 0;
        for (const Value* other : beside) {
            if (value.at + bytes(value) <= other->at) break;
            value.at = std::max(value.at, other->at + bytes(*other));
        }
        all = std::max(all, value.at + bytes(value));
        placed.push_back(&value);
    }
    return all;
}

Rows Engine::rows_of(int number) const {
    if (number == NONE) return Rows{};
    const Value& value = values_[static_cast<std::size_t>(number)];
    Rows found{};
    found.form = value.form, found.width = value.width, found.stride = value.stride;
    const std::int64_t size = value.rows * value.stride * size_of(value.form);
    found.passes_by = value.place == WANTED ? size > WANTED_BY
                                            : value.form == INT16 && size > OWN_BY;
    if (value.place != OWN) {
        const Caller& caller = callers_[static_cast<std::size_t>(number)];
        found.values = caller.values, found.crow = caller.crow, found.col = caller.col;
        return found;
    }
    const std::int64_t room = value.rows + SPARE;
    std::int8_t* at = base_ + value.at;
    found.values = at;
    if (value.form != NUMBERS) {
        at += part(room * value.stride * size_of(value.form));
        found.scale = reinterpret_cast<float*>(at);
        found.sum = reinterpret_cast<std::int32_t*>(at + part(room * 4));
        found.share = reinterpret_cast<float*>(at + 2 * part(room * 4));
    }
    return found;
}

Scores Engine::scores_of(int number) const {
    if (number == NONE) return Scores{};
    const Value& value = values_[static_cast<std::size_t>(number)];
    float* src = static_cast<float*>(rows_of(number).values);
    return {src, src + value.rows * value.width / 2};
}

void Engine::run(const std::vector<Span>& given, const std::vector<Edges>& edges,
                 const std::vector<Span>& wanted, const std::vector<std::int64_t>& rows,
                 int threads) {
    std::lock_guard<std::mutex> only(alone_);
    check_rows(rows, threads);
    check_edges(edges, rows);
    for (Value& value : values_) value.rows = rows[static_cast<std::size_t>(value.nodes)];
    take(given, wanted);
    for (std::size_t k = 0; k < values_.size(); ++k) {
        if (values_[k].place != WANTED) continue;
        use_huge_pages(callers_[k].values,
                       values_[k].rows * values_[k].width * size_of(values_[k].form));
    }
    const std::int64_t own = lay_out();
    std::vector<Pass> passes;
    const auto bind = [&] {
        passes.clear();
        for (std::size_t p = 0; p < passes_.size(); ++p) {
            const std::vector<StageOf>& stages = passes_[p];
            Pass pass{};
            pass.count = static_cast<int>(stages.size());
            pass.rows = rows.at(static_cast<std::size_t>(nodes_[p]));
            for (std::size_t s = 0; s < stages.size(); ++s) {
                const StageOf& from = stages[s];
                Stage& stage = pass.stages[s];
                stage = from.stage;
                stage.count = static_cast<int>(from.terms.size());
                stage.other = rows_of(from.other);
                stage.numbers = rows_of(from.numbers);
                const Rows form = stage.integers;  // of what is handed on
                stage.integers = from.integers == NONE ? form : rows_of(from.integers);
                stage.scores = scores_of(from.scores);
                if (from.node != NONE) stage.node = edges.at(std::size_t(from.node)).node;
                for (std::size_t t = 0; t < from.terms.size(); ++t) {
                    const TermOf& term = from.terms[t];
                    stage.terms[t] = term.term;
                    if (term.value != NONE) stage.terms[t].rows = rows_of(term.value);
                    if (term.edges != NONE) {
                        stage.terms[t].edges = edges.at(static_cast<std::size_t>(term.edges));
                    }
                    stage.terms[t].heads.scores = scores_of(term.scores);
                }
            }
            passes.push_back(pass);
        }
    };
    base_ = nullptr;
    bind();
    std::int64_t each = 0;
    for (const Pass& pass : passes) each = std::max(each, kernels().room(pass));
    const std::int64_t apart = rounded_up(each, LINE) + LINE;
    base_ = memory_.at_least(static_cast<std::size_t>(own + apart * threads));
    bind();
    const Scratch scratch{base_ + own, apart};
    seconds_.clear();
    for (const Pass& pass : passes) {
        const auto start = std::chrono::steady_clock::now();
        kernels().run_pass(pass, scratch, threads);
        const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
        seconds_.push_back(took.count());
    }
}

}  // namespace bitgnn
