/* recurrent.c - references of ops conv and delta. */
#define CONV oc_conv_generic
#define DELTA oc_delta_generic
#define LANES 4
#include "kernels/recurrent.inc"
