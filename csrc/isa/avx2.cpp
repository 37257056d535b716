// x86-64 with AVX2 and FMA.
#define BITGNN_ISA avx2
#include "../kernels.inl"
