/* cpuid.h - which instruction sets this processor and its operating system run. */
#ifndef CX_CPU_CPUID_H
#define CX_CPU_CPUID_H

#include <stdbool.h>

/* "generic", "avx2" (AVX2, FMA, F16C, BMI) or "avx512" (F, BW, CD, DQ, VL, VNNI, BF16, VBMI):
 * everything that the Makefile lets the compiler use in the files of that name, and registers saved
 * by the system. */
bool cx__cpuid_has(const char *isa);

#endif
