/* matmul_avx2.c - matmul of the quantised formats with the multiplications of AVX2. */
#include "kernels/x86/target_avx2.h"

#include "kernels/x86/matmul_avx2.h"

#include "kernels/x86/dot_avx2.h"

#include "kernels/x86/panel_256.inc"

#include "kernels/x86/matmul_block32.inc"
#include "kernels/x86/matmul_codebook.inc"
#include "kernels/x86/matmul_k.inc"
#include "kernels/x86/matmul_k23.inc"

#include "kernels/x86/target_end.h"
