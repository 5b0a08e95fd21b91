/* target_dotprod.h - include first in a dotprod kernel file: everything after it is compiled for ARMv8.2 with
 * the dot product instructions, so no compiler flag is needed and one binary carries every level. NEON itself
 * is part of the base architecture. */
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("dotprod"))), apply_to = function)
#if !defined(__ARM_FEATURE_DOTPROD)
#define __ARM_FEATURE_DOTPROD 1 /* before clang 16 the intrinsics are declared only where this is defined */
#endif
#elif defined(__GNUC__)
#pragma GCC target("arch=armv8.2-a+dotprod")
#endif
#include <arm_neon.h>
