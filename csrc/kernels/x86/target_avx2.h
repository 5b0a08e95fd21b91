/* target_avx2.h - include first in an AVX2 kernel file: everything after it is compiled for AVX2+FMA+F16C+BMI2,
 * so no compiler flag is needed and one binary carries every level. */
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c,bmi2"))), apply_to = function)
#elif defined(__GNUC__)
#pragma GCC target("avx2,fma,f16c,bmi2")
#endif
#include <immintrin.h>
