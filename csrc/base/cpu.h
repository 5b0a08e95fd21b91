/* cpu.h - what the processor can do, after the mask of OLLAMACORE_CPU (generic, avx2, ...). */
#ifndef OC_BASE_CPU_H
#define OC_BASE_CPU_H

/* Instruction-set levels in rising order of preference within one architecture. */
typedef enum oc_isa {
    OC_ISA_GENERIC = 0,
    OC_ISA_AVX2,       /* AVX2 + FMA + F16C + BMI2 */
    OC_ISA_AVXVNNI,    /* AVX2 + AVX-VNNI: 256-bit vpdpbusd without AVX-512 */
    OC_ISA_AVX512VNNI, /* AVX-512 F/BW/DQ/VL + VNNI */
    OC_ISA_NEON,
    OC_ISA_DOTPROD,
    OC_ISA_I8MM,
    OC_ISA_COUNT
} oc_isa;

const char *oc_isa_name(oc_isa isa);
/* 1 if this processor and operating system can run `isa` and the mask allows it. */
int oc_cpu_has(oc_isa isa);
/* Lowers what oc_cpu_has allows: "generic" leaves the reference only; NULL or an unknown name allows all. */
void oc_cpu_mask(const char *name);

#endif
