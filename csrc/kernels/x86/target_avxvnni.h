/* target_avxvnni.h - include first in an AVX-VNNI kernel file: everything after it is compiled for 256-bit
 * vpdpbusd beside AVX2+FMA+F16C+BMI2, for processors without AVX-512 (Alder Lake and its successors). */
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c,bmi2,avxvnni"))), apply_to = function)
#elif defined(__GNUC__)
#pragma GCC target("avx2,fma,f16c,bmi2,avxvnni")
#endif
#include <immintrin.h>
