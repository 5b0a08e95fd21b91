/* target_avx512vnni.h - include first in an AVX-512 VNNI kernel file: everything after it is compiled for
 * AVX-512 F/BW/DQ/VL + VNNI beside AVX2+FMA+F16C+BMI2. */
#if defined(__clang__)
#pragma clang attribute push(                                                                                \
    __attribute__((target("avx2,fma,f16c,bmi2,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni"))),             \
    apply_to = function)
#elif defined(__GNUC__)
#pragma GCC target("avx2,fma,f16c,bmi2,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")
#endif
#include <immintrin.h>
