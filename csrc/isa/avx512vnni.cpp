// x86-64 with AVX-512 (F, BW, DQ, VL) and VNNI.
#define BITGNN_ISA avx512vnni
#include "../kernels.inl"
