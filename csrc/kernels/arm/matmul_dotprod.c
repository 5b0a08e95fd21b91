/* matmul_dotprod.c - matmul of the quantised formats for processors with sdot (Cortex-A76, Apple and Neoverse
 * cores). */
#include "kernels/arm/target_dotprod.h"

#include "kernels/arm/dot16_dotprod.h"
#include "kernels/arm/matmul_neon.h"

#include "kernels/arm/matmul_block32.inc"
#include "kernels/arm/matmul_k.inc"

#include "kernels/arm/matmul_codebook.inc"
#include "kernels/arm/matmul_k23.inc"

#if defined(__clang__)
#pragma clang attribute pop /* of target_dotprod.h */
#endif
