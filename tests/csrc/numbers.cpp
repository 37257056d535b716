// Prints which instruction set is in use and what its kernels compute, as lines of a name and
// numbers; first those that are the same on every processor, then those that are only close.

#include <cstdio>
#include <cstdlib>
#include <vector>

#include "engine.h"
#include "kernels.h"

using namespace bitgnn;

namespace {

// Any numbers, but the same everywhere.
struct Source {
    std::uint64_t state = 1;

    std::uint32_t next() {
        state = state * 6364136223846793005u + 1442695040888963407u;
        return static_cast<std::uint32_t>(state >> 33);
    }
    template <class T>
    std::vector<T> numbers(std::int64_t size) {  // from -4 to 4
        std::vector<T> out(static_cast<std::size_t>(size));
        for (T& x : out) x = T(std::int32_t(next() % 8193) - 4096) / T(1024);
        return out;
    }
    std::vector<std::int8_t> ternary(std::int64_t size) {
        std::vector<std::int8_t> out(static_cast<std::size_t>(size));
        for (std::int8_t& x : out) x = static_cast<std::int8_t>(std::int32_t(next() % 3) - 1);
        return out;
    }
};

template <class T>
void print(const char* name, const std::vector<T>& numbers) {
    std::printf("%s", name);
    for (T x : numbers) std::printf(" %.17g", double(x));
    std::printf("\n");
}

template <class T>
Span span(const std::vector<T>& of) {
    return {reinterpret_cast<std::uintptr_t>(of.data()), std::int64_t(of.size() * sizeof(T))};
}

template <class T>
Array array(const std::vector<T>& of) {
    const int type = sizeof(T) == 4 ? FLOAT32 : T(-1) < T(0) ? SIGNED_BYTES : BYTES;
    return {of.data(), std::int64_t(of.size()), type, nullptr};
}

std::vector<float> product(TermOf of, const std::vector<float>& x, std::int64_t rows) {
    Engine engine;
    StageOf stage;
    const Weight& weight = of.term.weight;
    of.value = engine.add_value(NUMBERS, weight.k, GIVEN, 0);
    stage.terms = {of};
    stage.stage.width = weight.n;
    stage.numbers = engine.add_value(NUMBERS, weight.n, WANTED, 0);
    engine.add_pass({stage}, 0);
    std::vector<float> out(static_cast<std::size_t>(rows * weight.n));
    engine.run({span(x)}, {}, {span(out)}, {rows}, 1);
    return out;
}

// Rows times a ternary weight, by hand: integers are small enough for sums of floats to be exact.
std::vector<float> by_hand(const std::vector<float>& x_q, const std::vector<float>& scale,
                           const std::vector<std::int8_t>& weight, std::int64_t n,
                           std::int64_t k) {
    std::vector<float> out;
    for (std::size_t row = 0; row < scale.size(); ++row) {
        for (std::int64_t column = 0; column < n; ++column) {
            float sum = 0;
            for (std::int64_t at = 0; at < k; ++at) {
                sum += x_q[row * std::size_t(k) + std::size_t(at)] *
                       float(weight[std::size_t(column * k + at)]);
            }
            out.push_back(sum * scale[row]);
        }
    }
    return out;
}

template <class T>
void print_rows(const Typed<T>& typed, const char* name, std::int64_t rows, std::int64_t width) {
    Source source;
    const std::vector<T> x = source.numbers<T>(rows * width);
    std::vector<T> x_q(x.size()), scale(static_cast<std::size_t>(rows)), kept(x.size());
    typed.quantize_rows(x.data(), nullptr, rows, width, 127, 127, T(1e-5), x_q.data(),
                        scale.data(), 1);
    typed.dropout(x.data(), std::int64_t(x.size()), 0.3f, 7, kept.data(), 1);
    print(name, x_q), print(name, scale), print(name, kept);
}

void print_products(const Kernels& k, std::int64_t rows, std::int64_t width, std::int64_t n) {
    Source source;
    const std::vector<float> x = source.numbers<float>(rows * width);
    const std::vector<float> numbers = source.numbers<float>(n * width);
    const std::vector<std::int8_t> weight = source.ternary(n * width);
    std::vector<std::uint8_t> codes(std::size_t((n + 15) / 16 * ((width + 15) / 16) * 64));
    k.pack_codes(weight.data(), n, width, codes.data());
    print("same:codes", codes);
    const std::vector<float> ones(std::size_t(n), 1.0f);
    TermOf term;
    term.term.weight.n = n, term.term.weight.k = width;
    term.codes = array(codes), term.scale = array(ones);
    term.term.hold = INT8, term.term.quantize = {127, 127, 1e-5f};
    const std::vector<float> found = product(term, x, rows);
    std::vector<float> x_q(x.size()), scale(static_cast<std::size_t>(rows));
    k.f32.quantize_rows(x.data(), nullptr, rows, width, 127, 127, 1e-5f, x_q.data(), scale.data(),
                        1);
    print("same:product", found);
    if (found != by_hand(x_q, scale, weight, n, width)) {
        std::fprintf(stderr, "a product of %d x %d x %d is wrong\n", int(rows), int(width), int(n));
        std::exit(1);
    }
    term.term.hold = INT16;
    print("close:16_bits", product(term, x, rows));
    std::vector<float> packed(std::size_t((n + 15) / 16 * 16 * width));
    k.pack_numbers(numbers.data(), n, width, packed.data());
    print("same:numbers", packed);
    TermOf dense;
    dense.term.weight.n = n, dense.term.weight.k = width, dense.numbers = array(packed);
    print("close:product", product(dense, x, rows));
    const std::vector<float> grad = source.numbers<float>(rows * n);
    std::vector<float> room(std::size_t(k.gradient_room(n, width)));
    std::vector<float> gradient(std::size_t(n * width));
    k.weight_gradient(x.data(), grad.data(), rows, n, width, {127, 127, 1e-5f}, room.data(),
                      gradient.data(), 1);
    print("close:gradient", gradient);
}

// A layer that rounds its rows, and sums over edges of them.
void print_sums(const Kernels& k, int form, int reduce, std::int64_t rows, std::int64_t width) {
    Source source;
    const std::vector<float> x = source.numbers<float>(rows * width);
    const std::vector<float> weight = source.numbers<float>(width * width);
    const std::vector<float> counts = source.numbers<float>(3 * rows);
    std::vector<float> packed(std::size_t((width + 15) / 16 * 16 * width));
    k.pack_numbers(weight.data(), width, width, packed.data());
    std::vector<std::int64_t> crow{0};
    std::vector<std::int32_t> col;
    for (std::int64_t row = 0; row < rows; ++row) {
        for (std::int64_t edge = 0; edge < row % 4; ++edge) {
            col.push_back(std::int32_t(source.next() % std::uint32_t(rows)));
        }
        crow.push_back(std::int64_t(col.size()));
    }
    Engine engine;
    const int given = engine.add_value(NUMBERS, width, GIVEN, 0);
    const int rounded = engine.add_value(form, width, OWN, 0);
    const int wanted = engine.add_value(NUMBERS, width, WANTED, 0);
    StageOf first, second;
    TermOf product, sum;
    product.value = given;
    product.term.weight.n = product.term.weight.k = width;
    product.numbers = array(packed);
    first.terms = {product}, first.integers = rounded;
    first.stage.width = width, first.stage.act = ELU, first.stage.slope = 1;
    first.stage.quantize = {127, 127, 1e-5f};
    sum.value = rounded, sum.edges = 0;
    sum.term.aggregates = true, sum.term.reduce = reduce;
    second.terms = {sum}, second.numbers = wanted;
    second.stage.width = width, second.stage.act = LEAKY_RELU, second.stage.slope = 0.1f;
    engine.add_pass({first}, 0), engine.add_pass({second}, 0);
    std::vector<float> out(x.size());
    const Edges edges{crow.data(), col.data(), counts.data(), nullptr, rows, 3, rows};
    engine.run({span(x)}, {edges}, {span(out)}, {rows}, 1);
    print("close:sums", out);
}

template <class T>
void print_attention(const Typed<T>& typed, std::int64_t heads, std::int64_t channels) {
    const std::vector<std::int64_t> crow{0, 3, 3, 7, 8}, col{0, 1, 4, 0, 1, 2, 3, 4};
    const std::vector<std::int64_t> crow_t{0, 2, 4, 5, 6, 8}, col_t{0, 2, 0, 2, 2, 2, 0, 3};
    const std::vector<std::int32_t> order{0, 3, 1, 4, 5, 6, 2, 7};
    Source source;
    const std::vector<T> x = source.numbers<T>(5 * heads * channels);
    const std::vector<T> src = source.numbers<T>(5 * heads), dst = source.numbers<T>(4 * heads);
    const std::vector<T> grad = source.numbers<T>(4 * heads * channels);
    const Attention<T> a{{crow.data(), col.data(), 4}, heads, channels, x.data(), src.data(),
                         dst.data(), T(0.2)};
    std::vector<T> out(grad.size()), alpha(std::size_t(8 * heads)), room(alpha.size());
    std::vector<T> grad_x(x.size()), grad_src(src.size()), grad_dst(dst.size());
    typed.attention(a, nullptr, 0, out.data(), alpha.data(), alpha.data(), 1);
    typed.attention_backward(a, {{crow_t.data(), col_t.data(), 5}, order.data()}, grad.data(),
                             out.data(), alpha.data(), alpha.data(), room.data(), grad_x.data(),
                             grad_src.data(), grad_dst.data(), 1);
    print("close:attention", out), print("close:alpha", alpha), print("close:grad_x", grad_x);
    print("close:grad_src", grad_src), print("close:grad_dst", grad_dst);
}

}  // namespace

int main() {
    const Kernels& k = kernels();
    std::printf("%s\n", k.name);
    std::vector<float> noise(1001);
    k.uniform(noise.data(), std::int64_t(noise.size()), 12345, 1);
    print("same:noise", noise);
    for (std::int64_t width : {1, 7, 16, 70}) {
        print_rows(k.f32, "same:rows", 5, width);
        print_rows(k.f64, "same:rows", 5, width);
    }
    const std::int64_t shapes[][3] = {{1, 1, 1}, {5, 7, 3}, {6, 16, 16}, {25, 70, 50}, {13, 33, 81}};
    for (const auto& shape : shapes) print_products(k, shape[0], shape[1], shape[2]);
    for (int form : {INT8, INT16}) {
        for (int reduce : {SUM, MEAN, MAX}) {
            for (std::int64_t width : {5, 16, 70}) print_sums(k, form, reduce, 30, width);
        }
    }
    const std::int64_t heads[][2] = {{1, 1}, {1, 7}, {3, 5}, {8, 8}};
    for (const auto& each : heads) {
        print_attention(k.f32, each[0], each[1]);
        print_attention(k.f64, each[0], each[1]);
    }
}
