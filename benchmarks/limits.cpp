// What this machine can do at most, as JSON: bytes read in order, rows of memory read in any order,
// and multiply-adds. benchmarks/roofline.py compiles it for the processor at hand.

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <vector>

#include <immintrin.h>
#include <omp.h>
#if defined(__linux__)
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace {

constexpr std::int64_t LINE = 64, PAGE = 1 << 21, NODES = 169343, EDGES = 2484941;
constexpr int REPEATS = 9;
volatile std::int64_t kept;  // keeps what nobody reads from being left out

char* memory(std::size_t bytes) {
    const std::size_t whole = (bytes + PAGE - 1) / PAGE * PAGE;
    char* found = static_cast<char*>(std::aligned_alloc(PAGE, whole));
#if defined(__linux__)
    madvise(found, whole, MADV_HUGEPAGE);
#endif
    std::memset(found, 1, whole);
    return found;
}

// The least time of some runs, in seconds: a limit is what is ever reached.
template <class Work>
double least(const Work& work) {
    double found = 1e9;
    for (int k = 0; k < REPEATS; ++k) {
        const auto start = std::chrono::steady_clock::now();
        work();
        const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
        found = std::min(found, took.count());
    }
    return found;
}

// Bytes a second, read from one end to the other.
double reading(int threads) {
    const std::int64_t size = 256 << 20;
    char* from = memory(size);
    const double seconds = least([&] {
        std::int64_t total = 0;
#pragma omp parallel for reduction(+ : total) schedule(static) num_threads(threads)
        for (std::int64_t at = 0; at < size; at += 4 * LINE) {
            __m256i sum = _mm256_setzero_si256();
            for (int k = 0; k < 8; ++k) {
                sum = _mm256_xor_si256(sum, _mm256_load_si256((const __m256i*)(from + at) + k));
            }
            total += _mm256_extract_epi64(sum, 0);
        }
        kept = total;
    });
    std::free(from);
    return double(size) / seconds;
}

// Bytes a second, read as rows of so many cache lines in the order of a graph's sources.
template <int LINES>
double gathering(int threads, const std::vector<std::int32_t>& order) {
    char* rows = memory(std::size_t(NODES * LINES * LINE));
    double best = 1e9;
    for (const std::int64_t ahead : {0, 8, 16, 32, 64}) {
        best = std::min(best, least([&] {
            std::int64_t total = 0;
#pragma omp parallel for reduction(+ : total) schedule(static) num_threads(threads)
            for (std::int64_t e = 0; e < EDGES; ++e) {
                if (ahead) {
                    const char* next = rows + order[std::min(e + ahead, EDGES - 1)] * (LINES * LINE);
                    for (int k = 0; k < LINES; ++k) __builtin_prefetch(next + k * LINE);
                }
                const auto* row = (const __m256i*)(rows + order[e] * (LINES * LINE));
                __m256i sum = _mm256_setzero_si256();
                for (int k = 0; k < 2 * LINES; ++k) sum = _mm256_xor_si256(sum, _mm256_load_si256(row + k));
                total += _mm256_extract_epi64(sum, 0);
            }
            kept = total;
        }));
    }
    std::free(rows);
    return double(EDGES * LINES * LINE) / best;
}

constexpr std::int64_t ROUNDS = 1 << 20;
constexpr int SUMS = 12;  // that do not wait for each other

#if defined(__AMX_INT8__)
// All eight tiles have 16 rows of 64 bytes.
struct Tiles {
    std::uint8_t palette = 1, start = 0, reserved[14] = {};
    std::uint16_t bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
    std::uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};
alignas(64) extern const Tiles TILES;
const Tiles TILES;
#endif

// Multiply-adds a second, of which add(sum, x) makes `each`.
template <class Vector, class Add>
double multiply_adds(int threads, double each, const Add& add) {
    const double seconds = least([&] {
#pragma omp parallel num_threads(threads)
        {
            Vector sums[SUMS] = {}, x = {};
            for (std::int64_t k = 0; k < ROUNDS; ++k) {
#pragma GCC unroll 12
                for (int s = 0; s < SUMS; ++s) add(sums[s], x);
            }
        }
    });
    return each * SUMS * double(ROUNDS) * threads / seconds;
}

// Multiply-adds a second of 8-bit integers, with the widest instruction that there is.
double integers(int threads) {
#if defined(__AMX_INT8__)
    syscall(SYS_arch_prctl, 0x1023, 18);
    constexpr double each = 4.0 * 16 * 16 * 64;
    const double seconds = least([&] {
#pragma omp parallel num_threads(threads)
        {
            _tile_loadconfig(&TILES);
            _tile_zero(0); _tile_zero(1); _tile_zero(2); _tile_zero(3);
            _tile_zero(4); _tile_zero(5); _tile_zero(6); _tile_zero(7);
            for (std::int64_t k = 0; k < ROUNDS / 16; ++k) {
                _tile_dpbssd(0, 4, 6); _tile_dpbssd(1, 4, 7);
                _tile_dpbssd(2, 5, 6); _tile_dpbssd(3, 5, 7);
            }
            _tile_release();
        }
    });
    return each * double(ROUNDS / 16) * threads / seconds;
#elif defined(__AVX512VNNI__)
    return multiply_adds<__m512i>(threads, 64, [](__m512i& sum, __m512i x) {
        asm volatile("vpdpbusd %1, %1, %0" : "+v"(sum) : "v"(x));
    });
#else
    return multiply_adds<__m256i>(threads, 32, [](__m256i& sum, __m256i x) {
        asm volatile("vpmaddubsw %1, %1, %0" : "+v"(sum) : "v"(x));
    });
#endif
}

// Multiply-adds a second of numbers of 32 bits.
double numbers(int threads) {
#if defined(__AVX512F__)
    typedef __m512 Vector;
#else
    typedef __m256 Vector;
#endif
    return multiply_adds<Vector>(threads, sizeof(Vector) / 4.0, [](Vector& sum, Vector x) {
        asm volatile("vfmadd231ps %1, %1, %0" : "+v"(sum) : "v"(x));
    });
}

}  // namespace

int main(int, char** arguments) {
    const int threads = std::atoi(arguments[1]);
    // Sources as in bitgnn.experiment.speed.graphs: rank r in proportion to r^(-2/3).
    std::mt19937_64 random(0);
    std::uniform_real_distribution<double> uniform(0, 1);
    std::vector<std::int32_t> called(NODES), order(EDGES);
    for (std::int64_t k = 0; k < NODES; ++k) called[std::size_t(k)] = std::int32_t(k);
    std::shuffle(called.begin(), called.end(), random);
    for (auto& source : order) {
        const double u = uniform(random);
        source = called[std::size_t(double(NODES) * u * u * u)];
    }
    std::printf("{\"read\": %.4g, \"gather\": {\"1\": %.4g, \"2\": %.4g, \"4\": %.4g, \"8\": %.4g, "
                "\"16\": %.4g}, \"int8\": %.4g, \"fp32\": %.4g}\n",
                reading(threads), gathering<1>(threads, order), gathering<2>(threads, order),
                gathering<4>(threads, order), gathering<8>(threads, order),
                gathering<16>(threads, order), integers(threads), numbers(threads));
}
