// What every processor has: SSE2 on x86-64, NEON on Arm.
#define BITGNN_ISA portable
#include "../kernels.inl"
