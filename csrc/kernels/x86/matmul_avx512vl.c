/* matmul_avx512vl.c - the kernels of matmul_avxvnni.c as AVX-512 VNNI encodes them, for the few columns that its rows
 * leave to them (see matmul_avx512.h). */
#include "kernels/x86/target_avx512vnni.h"

#include "kernels/x86/matmul_avx2.h"

#define OC_ROW(suffix) oc_matmul_##suffix##_avx512vl
#include "kernels/x86/dot_avxvnni.h"

#include "kernels/x86/panel_256.inc"

#include "kernels/x86/matmul_block32.inc"
#include "kernels/x86/matmul_codebook.inc"
#include "kernels/x86/matmul_k.inc"
#include "kernels/x86/matmul_k23.inc"

#include "kernels/x86/target_end.h"
