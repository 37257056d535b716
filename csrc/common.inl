// What kernels have in common.
#pragma once

#include <cstdint>
#include <cstring>

#define BITGNN_INLINE inline __attribute__((always_inline))

namespace bitgnn::BITGNN_ISA {

using std::int64_t;

constexpr int64_t LINE = 64;   // bytes of a cache line
constexpr int64_t AHEAD = 64;  // edges between what is asked of memory and what is worked on

// Asks memory for `bytes` from an address on.
BITGNN_INLINE void prefetch(const void* from, int64_t bytes) {
    const char* at = static_cast<const char*>(from);
    for (int64_t k = 0; k < bytes; k += LINE) __builtin_prefetch(at + k);
}

}  // namespace bitgnn::BITGNN_ISA
