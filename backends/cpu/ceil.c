/* ceil.c - peak arithmetic and memory bandwidth of this machine, with the pool that the kernels
 * use. */
#include "backends/cpu/ceil.h"

#include "backends/cpu/cpuid.h"

#include <string.h>
#include <sys/mman.h>
#include <time.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

enum { ROUNDS = 400000, BYTES = 512 << 20, TRIES = 5 };

static double now_us(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec * 1e6 + (double)t.tv_nsec * 1e-3;
}

typedef enum kind { KIND_FMA, KIND_BF16, KIND_DOT16, KIND_DOT8 } kind;

/* What a thread computes, written where the compiler cannot see that nobody reads it. */
typedef struct {
	double flop;
	char *buf;
	size_t bytes;
	int level;
	kind kind;
	volatile float sink[CX_POOL_MAX];
} job;

/* ---- arithmetic: twelve independent chains, more than latency times width asks for ---- */

#if defined(__x86_64__)
__attribute__((target("avx512f"))) static double fma_avx512(volatile float *sink)
{
	__m512 a[12], x = _mm512_set1_ps(0.999f), y = _mm512_set1_ps(0.001f), s;
	for (int i = 0; i < 12; i++) a[i] = _mm512_set1_ps((float)i);
	for (int r = 0; r < ROUNDS; r++) {
#pragma GCC unroll 12
		for (int i = 0; i < 12; i++) a[i] = _mm512_fmadd_ps(a[i], x, y);
	}
	s = a[0];
	for (int i = 1; i < 12; i++) s = _mm512_add_ps(s, a[i]);
	*sink = _mm512_cvtss_f32(s);
	return 2.0 * 16 * 12 * ROUNDS;
}
__attribute__((target("avx2,fma"))) static double fma_avx2(volatile float *sink)
{
	__m256 a[12], x = _mm256_set1_ps(0.999f), y = _mm256_set1_ps(0.001f), s;
	for (int i = 0; i < 12; i++) a[i] = _mm256_set1_ps((float)i);
	for (int r = 0; r < ROUNDS; r++) {
#pragma GCC unroll 12
		for (int i = 0; i < 12; i++) a[i] = _mm256_fmadd_ps(a[i], x, y);
	}
	s = a[0];
	for (int i = 1; i < 12; i++) s = _mm256_add_ps(s, a[i]);
	*sink = _mm256_cvtss_f32(s);
	return 2.0 * 8 * 12 * ROUNDS;
}
__attribute__((target("avx512f,avx512vnni"))) static double dot_avx512(volatile float *sink)
{
	__m512i a[12], x = _mm512_set1_epi16(3), y = _mm512_set1_epi16(5), s;
	for (int i = 0; i < 12; i++) a[i] = _mm512_set1_epi32(i);
	for (int r = 0; r < ROUNDS; r++) {
#pragma GCC unroll 12
		for (int i = 0; i < 12; i++) a[i] = _mm512_dpwssd_epi32(a[i], x, y);
		__asm__ volatile("" : "+v"(x), "+v"(y));
	}
	s = a[0];
	for (int i = 1; i < 12; i++) s = _mm512_add_epi32(s, a[i]);
	*sink = (float)_mm_cvtsi128_si32(_mm512_castsi512_si128(s));
	return 2.0 * 32 * 12 * ROUNDS;
}
__attribute__((target("avx512f,avx512vnni"))) static double dot8_avx512(volatile float *sink)
{
	__m512i a[12], x = _mm512_set1_epi8(3), y = _mm512_set1_epi8(5), s;
	for (int i = 0; i < 12; i++) a[i] = _mm512_set1_epi32(i);
	for (int r = 0; r < ROUNDS; r++) {
#pragma GCC unroll 12
		for (int i = 0; i < 12; i++) a[i] = _mm512_dpbusd_epi32(a[i], x, y);
		__asm__ volatile("" : "+v"(x), "+v"(y));
	}
	s = a[0];
	for (int i = 1; i < 12; i++) s = _mm512_add_epi32(s, a[i]);
	*sink = (float)_mm_cvtsi128_si32(_mm512_castsi512_si128(s));
	return 2.0 * 64 * 12 * ROUNDS;
}
__attribute__((target("avx512f,avx512bf16"))) static double bf16_avx512(volatile float *sink)
{
	__m512 a[12], s;
	__m512i x = _mm512_set1_epi16(0x3f70), y = _mm512_set1_epi16(0x3a00);
	for (int i = 0; i < 12; i++) a[i] = _mm512_set1_ps((float)i);
	for (int r = 0; r < ROUNDS; r++) {
#pragma GCC unroll 12
		for (int i = 0; i < 12; i++) a[i] = _mm512_dpbf16_ps(a[i], (__m512bh)x, (__m512bh)y);
		__asm__ volatile("" : "+v"(x), "+v"(y));
	}
	s = a[0];
	for (int i = 1; i < 12; i++) s = _mm512_add_ps(s, a[i]);
	*sink = _mm512_cvtss_f32(s);
	return 2.0 * 32 * 12 * ROUNDS;
}
__attribute__((target("avx2"))) static double dot_avx2(volatile float *sink)
{
	__m256i a[10], x = _mm256_set1_epi16(3), y = _mm256_set1_epi16(5), s;
	for (int i = 0; i < 10; i++) a[i] = _mm256_set1_epi32(i);
	for (int r = 0; r < ROUNDS; r++) {
#pragma GCC unroll 10
		for (int i = 0; i < 10; i++) {
			a[i] = _mm256_add_epi32(a[i], _mm256_madd_epi16(x, y));
			__asm__ volatile("" : "+x"(x));
		}
	}
	s = a[0];
	for (int i = 1; i < 10; i++) s = _mm256_add_epi32(s, a[i]);
	*sink = (float)_mm_cvtsi128_si32(_mm256_castsi256_si128(s));
	return 2.0 * 16 * 10 * ROUNDS;
}
#endif
/* Any machine: multiply and add, as the compiler makes them. */
static double fma_plain(volatile float *sink)
{
	float a[48], s = 0.0f;
	for (int i = 0; i < 48; i++) a[i] = (float)i;
	for (int r = 0; r < ROUNDS / 4; r++)
		for (int i = 0; i < 48; i++) a[i] = a[i] * 0.999f + 0.001f;
	for (int i = 0; i < 48; i++) s += a[i];
	*sink = s;
	return 2.0 * 48 * (ROUNDS / 4);
}

/* The loop of each kind: plain ones stand in where a level has no instruction of its own. */
static double flops_of(kind k, int level, volatile float *sink)
{
#if defined(__x86_64__)
	if (level == 2)
		return k == KIND_FMA     ? fma_avx512(sink)
			   : k == KIND_BF16  ? bf16_avx512(sink)
			   : k == KIND_DOT16 ? dot_avx512(sink)
								 : dot8_avx512(sink);
	if (level == 1) return k == KIND_FMA || k == KIND_BF16 ? fma_avx2(sink) : dot_avx2(sink);
#endif
	(void)k;
	(void)level;
	return fma_plain(sink);
}
static void run_flops(void *ctx, uint32_t thread, uint32_t n)
{
	job *j = ctx;
	double flop = flops_of(j->kind, j->level, &j->sink[thread]);
	(void)n;
	if (thread == 0) j->flop = flop;
}

/* ---- memory ---- */

#if defined(__x86_64__)
__attribute__((target("avx2"))) static uint64_t read_avx2(const char *p, size_t stream)
{
	__m256i s[8];
	for (int i = 0; i < 8; i++) s[i] = _mm256_setzero_si256();
	for (size_t i = 0; i < stream; i += 64) {
#pragma GCC unroll 8
		for (size_t k = 0; k < 8; k++) {
			const __m256i *l = (const __m256i *)(const void *)(p + k * stream + i);
			s[k] = _mm256_xor_si256(
				s[k], _mm256_xor_si256(_mm256_load_si256(l), _mm256_load_si256(l + 1)));
		}
	}
	for (int i = 1; i < 8; i++) s[0] = _mm256_xor_si256(s[0], s[i]);
	return (uint64_t)_mm256_extract_epi64(s[0], 0);
}
#endif
static uint64_t read_plain(const char *p, size_t bytes)
{
	const uint64_t *q = (const uint64_t *)(const void *)p;
	uint64_t s[8] = {0};
	for (size_t i = 0; i + 8 <= bytes / 8; i += 8)
		for (int e = 0; e < 8; e++) s[e] ^= q[i + (size_t)e];
	return s[0] ^ s[1] ^ s[2] ^ s[3] ^ s[4] ^ s[5] ^ s[6] ^ s[7];
}
static void run_read(void *ctx, uint32_t thread, uint32_t n)
{
	job *j = ctx;
	size_t part = j->bytes / n / 512 * 512;
	const char *p = j->buf + part * thread;
#if defined(__x86_64__)
	if (j->level > 0) {
		j->sink[thread] = (float)read_avx2(p, part / 8);
		return;
	}
#endif
	j->sink[thread] = (float)read_plain(p, part);
}
static void run_copy(void *ctx, uint32_t thread, uint32_t n)
{
	job *j = ctx;
	size_t half = j->bytes / 2, part = half / n;
	memcpy(j->buf + half + part * thread, j->buf + part * thread, part);
}
static void run_touch(void *ctx, uint32_t thread, uint32_t n)
{
	job *j = ctx;
	memset(j->buf + j->bytes / n * thread, 1, j->bytes / n);
}

static double best_us(cx_pool *pool, cx_pool_fn fn, job *j)
{
	double best = 1e30;
	for (int i = 0; i < TRIES; i++) {
		double t = now_us();
		cx__pool_run(pool, 0, fn, j);
		t = now_us() - t;
		best = t < best ? t : best;
	}
	return best;
}

bool cx__ceilings_measure(cx_pool *pool, cx_ceilings *out)
{
	enum { ALIGN = 2 << 20 };
	uint32_t n = cx__pool_size(pool);
	double us;
	job *j = cx_calloc(NULL, 1, sizeof *j);
	char *mem = cx_malloc(NULL, (size_t)BYTES + ALIGN);
	bool ok = j && mem;
	if (ok) {
		j->bytes = BYTES;
		j->buf = mem + (ALIGN - (uintptr_t)mem % ALIGN);
		(void)madvise(j->buf, j->bytes, MADV_HUGEPAGE);
		j->level = cx__cpuid_has("avx512") ? 2 : cx__cpuid_has("avx2") ? 1 : 0;
		for (kind k = KIND_FMA; k <= KIND_DOT8; k++) {
			double *rate[] = {
				&out->fma_gflops, &out->bf16_gflops, &out->dot16_gops, &out->dot8_gops};
			j->kind = k;
			us = best_us(pool, run_flops, j);
			*rate[k] = j->flop * n / us * 1e-3;
		}
		cx__pool_run(pool, 0, run_touch, j);
		us = best_us(pool, run_read, j);
		out->read_gbs = (double)j->bytes / us * 1e-3;
		us = best_us(pool, run_copy, j);
		out->copy_gbs = (double)j->bytes / us * 1e-3;
	}
	cx_free(NULL, mem, (size_t)BYTES + ALIGN);
	cx_free(NULL, j, sizeof *j);
	return ok;
}
