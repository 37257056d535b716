#include <cstdlib>
#include <cstring>

#include "kernels.h"

namespace bitgnn {

namespace portable { const Kernels& table(); }
#ifdef BITGNN_HAS_avx2
namespace avx2 { const Kernels& table(); }
namespace avx512 { const Kernels& table(); }
#endif

namespace {

const Kernels& choose() {
    const char* wanted = std::getenv("BITGNN_ISA");  // To test what another processor would run.
    auto may = [&](const char* name) { return !wanted || std::strcmp(wanted, name) == 0; };
#ifdef BITGNN_HAS_avx2
    __builtin_cpu_init();
    bool has_avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    bool has_avx512 = has_avx2 && __builtin_cpu_supports("avx512f") &&
                      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
                      __builtin_cpu_supports("avx512vl");
    if (has_avx512 && may("avx512")) return avx512::table();
    if (has_avx2 && may("avx2")) return avx2::table();
#endif
    (void)may;
    return portable::table();
}

}  // namespace

const Kernels& kernels() {
    static const Kernels& chosen = choose();
    return chosen;
}

}  // namespace bitgnn
