/* recurrent_avx2.c - conv and delta. */
#include "kernels/x86/target_avx2.h"

#define CONV oc_conv_avx2
#define DELTA oc_delta_avx2
#define LANES 8
#include "kernels/recurrent.inc"

#include "kernels/x86/target_end.h"
