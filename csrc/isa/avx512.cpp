// x86-64 with AVX-512 (F, BW, DQ, VL).
#define BITGNN_ISA avx512
#include "../kernels.inl"
