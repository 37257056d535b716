// x86-64 with AVX-512, VNNI and AMX (tiles of 8-bit integers), on Linux.
#define BITGNN_ISA amx
#include "../kernels.inl"
