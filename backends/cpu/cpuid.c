/* cpuid.c - run-time choice of the instruction set. */
#include "backends/cpu/cpuid.h"

#include "backends/cpu/isa.h"

#include <string.h>

#if defined(__x86_64__)
#include <cpuid.h>

static unsigned long long xgetbv0(void)
{
	unsigned lo, hi;
	__asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
	return (unsigned long long)hi << 32 | lo;
}

#define ALL(reg, mask) (((reg) & (mask)) == (mask))

static bool has_x86(bool avx512)
{
	unsigned a, b, c, d, c1, b7, c7, d7, a71;
	const unsigned fma = 1u << 12, movbe = 1u << 22, osxsave = 1u << 27, avx = 1u << 28,
				   f16c = 1u << 29, popcnt = 1u << 23;
	const unsigned bmi1 = 1u << 3, avx2 = 1u << 5, bmi2 = 1u << 8;
	const unsigned f = 1u << 16, dq = 1u << 17, cd = 1u << 28, bw = 1u << 30, vl = 1u << 31;
	const unsigned vbmi = 1u << 1, vnni = 1u << 11;
	if (!__get_cpuid(1, &a, &b, &c1, &d)) return false;
	if (!ALL(c1, fma | movbe | osxsave | avx | f16c | popcnt)) return false;
	if (!ALL(xgetbv0(), 0x06)) return false; /* xmm, ymm */
	if (!__get_cpuid_count(7, 0, &a71, &b7, &c7, &d7)) return false;
	if (!ALL(b7, bmi1 | avx2 | bmi2)) return false;
	if (!__get_cpuid(0x80000001, &a, &b, &c, &d) || !(c & 1u << 5)) return false; /* lzcnt */
	if (!avx512) return true;
	if (!ALL(xgetbv0(), 0xe6)) return false; /* masks, zmm */
	if (!ALL(b7, f | dq | cd | bw | vl) || !ALL(c7, vbmi | vnni)) return false;
	return a71 >= 1 && __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a & 1u << 5); /* bf16 */
}
#endif

bool cx__cpuid_has(const char *isa)
{
	if (!strcmp(isa, "generic")) return true;
#if defined(__x86_64__)
	if (!strcmp(isa, "avx2")) return has_x86(false);
	if (!strcmp(isa, "avx512")) return has_x86(true);
#endif
	return false;
}

const cx_cpu_isa *cx__cpu_isa_named(const char *name)
{
	if (!cx__cpuid_has(name)) return NULL;
#if defined(__x86_64__)
	if (!strcmp(name, "avx2")) return &cx__cpu_isa_avx2;
	if (!strcmp(name, "avx512")) return &cx__cpu_isa_avx512;
#endif
	return &cx__cpu_isa_generic;
}

const cx_cpu_isa *cx__cpu_isa_best(void)
{
	const cx_cpu_isa *isa = cx__cpu_isa_named("avx512");
	if (!isa) isa = cx__cpu_isa_named("avx2");
	return isa ? isa : &cx__cpu_isa_generic;
}
