/* cpu.c - asks the processor once, keeps the mask. The only file that executes CPUID-like instructions. */
#include "base/cpu.h"

#include <string.h>

static const char *const isa_names[OC_ISA_COUNT] = {"generic", "avx2",    "avxvnni", "avx512vnni",
                                                    "neon",    "dotprod", "i8mm"};
static int mask_level = OC_ISA_COUNT; /* levels >= this are masked off */

const char *oc_isa_name(oc_isa isa) { return isa >= 0 && isa < OC_ISA_COUNT ? isa_names[isa] : "unknown"; }

void oc_cpu_mask(const char *name) {
    mask_level = OC_ISA_COUNT;
    for (int isa = 0; name && isa < OC_ISA_COUNT; isa++)
        if (strcmp(name, isa_names[isa]) == 0) mask_level = isa + 1;
}

#if defined(__x86_64__) || defined(__i386__)
#include <cpuid.h>

/* Not every compiler knows "f16c" and "avxvnni". The operating system's part of the check is that for AVX2. */
static int has_f16c(void) {
    unsigned eax, ebx, ecx, edx;
    return __get_cpuid(1, &eax, &ebx, &ecx, &edx) && (ecx & bit_F16C);
}

static int has_avxvnni(void) {
    unsigned eax, ebx, ecx, edx;
    return __get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) && (eax >> 4 & 1);
}

static int cpu_supports(oc_isa isa) {
    __builtin_cpu_init(); /* also checks that the operating system saves the wide registers */
    int avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c() &&
               __builtin_cpu_supports("bmi2");
    int avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                 __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    switch (isa) {
    case OC_ISA_AVX2: return avx2;
    case OC_ISA_AVXVNNI: return avx2 && has_avxvnni();
    case OC_ISA_AVX512VNNI: return avx512 && __builtin_cpu_supports("avx512vnni");
    default: return 0;
    }
}
#elif defined(__aarch64__)
#if defined(__linux__)
#include <sys/auxv.h>
#endif
static int cpu_supports(oc_isa isa) {
#if defined(__linux__)
    unsigned long cap = getauxval(AT_HWCAP), cap2 = getauxval(AT_HWCAP2);
    if (isa == OC_ISA_DOTPROD) return (cap >> 20) & 1;
    if (isa == OC_ISA_I8MM) return ((cap >> 20) & 1) && ((cap2 >> 13) & 1);
#endif
#if defined(__ARM_FEATURE_DOTPROD)
    if (isa == OC_ISA_DOTPROD) return 1; /* the compiler takes it for granted, as on macOS */
#endif
    return isa == OC_ISA_NEON; /* part of the base architecture */
}
#else
static int cpu_supports(oc_isa isa) {
    (void)isa;
    return 0;
}
#endif

int oc_cpu_has(oc_isa isa) {
    if (isa == OC_ISA_GENERIC) return 1;
    return (int)isa < mask_level && cpu_supports(isa);
}
