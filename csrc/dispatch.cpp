#include <cstdlib>
#include <cstring>

#include "kernels.h"

#ifdef BITGNN_HAS_amx
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif
#if defined(BITGNN_HAS_neon) && defined(__linux__)
#include <sys/auxv.h>
#endif

namespace bitgnn {

namespace portable { const Kernels& table(); }
#ifdef BITGNN_HAS_avx2
namespace avx2 { const Kernels& table(); }
namespace avx512 { const Kernels& table(); }
namespace avx512vnni { const Kernels& table(); }
#ifdef BITGNN_HAS_amx
namespace amx { const Kernels& table(); }
#endif
#endif
#ifdef BITGNN_HAS_neon
namespace neon { const Kernels& table(); }
#endif

namespace {

#ifdef BITGNN_HAS_amx
// Whether there are tiles of 8-bit integers, and the system lets this process use them: it keeps
// their large state only for processes that have asked.
bool may_use_tiles() {
    unsigned a = 0, b = 0, c = 0, d = 0;
    constexpr unsigned tiles = 1u << 24, integers = 1u << 25;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(d & tiles) || !(d & integers)) return false;
    constexpr long ask = 0x1023, tile_data = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
    return syscall(SYS_arch_prctl, ask, tile_data) == 0;
}
#endif

#ifdef BITGNN_HAS_neon
bool has_dot_products() {
#if defined(__ARM_FEATURE_DOTPROD) || defined(__APPLE__)
    return true;  // All of this is compiled for them, or it is a Mac, which has them.
#elif defined(__linux__)
    constexpr unsigned long dot_products = 1ul << 20;  // HWCAP_ASIMDDP, which old headers lack
    return getauxval(AT_HWCAP) & dot_products;
#else
    return false;
#endif
}
#endif

const Kernels& choose() {
    const char* wanted = std::getenv("BITGNN_ISA");  // To test what another processor would run.
    auto may = [&](const char* name) { return !wanted || std::strcmp(wanted, name) == 0; };
#ifdef BITGNN_HAS_avx2
    __builtin_cpu_init();
    bool has_avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    bool has_avx512 = has_avx2 && __builtin_cpu_supports("avx512f") &&
                      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
                      __builtin_cpu_supports("avx512vl");
    bool has_vnni = has_avx512 && __builtin_cpu_supports("avx512vnni");
#ifdef BITGNN_HAS_amx
    if (has_vnni && may("amx") && may_use_tiles()) return amx::table();
#endif
    if (has_vnni && may("avx512vnni")) return avx512vnni::table();
    if (has_avx512 && may("avx512")) return avx512::table();
    if (has_avx2 && may("avx2")) return avx2::table();
#endif
#ifdef BITGNN_HAS_neon
    if (may("neon") && has_dot_products()) return neon::table();
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
