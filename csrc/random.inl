// Random numbers by counting: any of them can be had without those before, on any thread.
#pragma once

#include "kernels.h"
#include "common.inl"

namespace bitgnn::BITGNN_ISA {

constexpr int64_t COUNTERS = 64;            // that are drawn side by side
constexpr int64_t CHUNK = 4 * COUNTERS;     // numbers of them
constexpr int64_t CHUNKS_OF_A_THREAD = 64;  // at least: less is not worth a thread

// Four words each of the counters from `first` on, word by word.
BITGNN_INLINE void philox(std::uint64_t first, std::uint64_t seed, std::uint32_t words[4][COUNTERS]) {
    constexpr std::uint64_t M0 = 0xD2511F53, M1 = 0xCD9E8D57;
    for (int64_t k = 0; k < COUNTERS; ++k) {
        const std::uint64_t counter = first + static_cast<std::uint64_t>(k);
        words[0][k] = static_cast<std::uint32_t>(counter);
        words[1][k] = static_cast<std::uint32_t>(counter >> 32);
        words[2][k] = words[3][k] = 0;
    }
    std::uint32_t key0 = static_cast<std::uint32_t>(seed);
    std::uint32_t key1 = static_cast<std::uint32_t>(seed >> 32);
    for (int round = 0; round < 10; ++round, key0 += 0x9E3779B9, key1 += 0xBB67AE85) {
#pragma omp simd
        for (int64_t k = 0; k < COUNTERS; ++k) {
            const std::uint64_t a = M0 * words[0][k], b = M1 * words[2][k];
            words[0][k] = static_cast<std::uint32_t>(b >> 32) ^ words[1][k] ^ key0;
            words[1][k] = static_cast<std::uint32_t>(b);
            words[2][k] = static_cast<std::uint32_t>(a >> 32) ^ words[3][k] ^ key1;
            words[3][k] = static_cast<std::uint32_t>(a);
        }
    }
}

// Calls `use(k, noise, count)` for chunks of the noise, from number k on.
template <class Use>
BITGNN_INLINE void for_noise(int64_t size, std::uint64_t seed, int threads, Use use) {
    const int64_t chunks = (size + CHUNK - 1) / CHUNK;
    if (chunks < threads * CHUNKS_OF_A_THREAD) threads = 1;
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
    for (int64_t chunk = 0; chunk < chunks; ++chunk) {
        std::uint32_t words[4][COUNTERS];
        float noise[CHUNK];
        philox(static_cast<std::uint64_t>(chunk * COUNTERS), seed, words);
        for (int64_t k = 0; k < COUNTERS; ++k) {
            for (int word = 0; word < 4; ++word) {
                noise[4 * k + word] = static_cast<float>(words[word][k] >> 8) * 0x1p-24f;
            }
        }
        const int64_t start = chunk * CHUNK;
        use(start, noise, size - start < CHUNK ? size - start : CHUNK);
    }
}

inline void uniform(float* out, int64_t size, std::uint64_t seed, int threads) {
    for_noise(size, seed, threads, [=](int64_t start, const float* noise, int64_t count) {
        std::memcpy(out + start, noise, static_cast<std::size_t>(count) * sizeof(float));
    });
}

template <class T>
void dropout(const T* x, int64_t size, float p, std::uint64_t seed, T* out, int threads) {
    const T kept = T(1) / (T(1) - T(p));
    for_noise(size, seed, threads, [=](int64_t start, const float* noise, int64_t count) {
#pragma omp simd
        for (int64_t k = 0; k < count; ++k) {
            out[start + k] = x[start + k] * (noise[k] >= p ? kept : T(0));
        }
    });
}

}  // namespace bitgnn::BITGNN_ISA
