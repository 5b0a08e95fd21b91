/* matmul_avxvnni.c - matmul of the quantised formats with 256-bit vpdpbusd. */
#include "kernels/kernels.h"

#if defined(OC_BUILDS_AVXVNNI)
#include "kernels/x86/target_avxvnni.h"

#include "kernels/x86/matmul_avx2.h"

#include "kernels/x86/dot_avxvnni.h"

#include "kernels/x86/panel_256.inc"

#include "kernels/x86/matmul_block32.inc"
#include "kernels/x86/matmul_codebook.inc"
#include "kernels/x86/matmul_k.inc"
#include "kernels/x86/matmul_k23.inc"

#include "kernels/x86/target_end.h"
#endif
