// 64-bit Arm with dot products of 8-bit integers (Armv8.2).
#define BITGNN_ISA neon
#include "../kernels.inl"
