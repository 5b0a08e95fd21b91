/* matmul_neon.c - matmul of the quantised formats for any ARMv8 processor. */
#include "kernels/arm/dot16_neon.h"

#include "kernels/arm/matmul_neon.h"

#include "kernels/arm/matmul_block32.inc"
#include "kernels/arm/matmul_k.inc"

#include "kernels/arm/matmul_codebook.inc"
#include "kernels/arm/matmul_k23.inc"
