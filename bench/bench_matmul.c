/* bench_matmul.c - the cpu matmul as a share of what the machine can do, measured in the same
 * process.
 *
 * bench_matmul [-t threads] [-i isa] [-r repeats] [-k substring of "dtype MxNxK"] [-s MxNxK: every
 * dtype at this shape] Each row is checked against a double product of the dequantised weights (on
 * a sample of outputs), then timed. Rows with few tokens go through several matrices in turn,
 * together larger than the last cache; a matrix below 4 MiB stays in it, which shows what the
 * arithmetic alone can do. %peak: of the read bandwidth for up to 4 tokens, else of the rate
 * of the instruction that fits: f32 FMA, for bf16*bf16 pairs of bf16, for i8c*int8 bytes. err_max:
 * largest |error| / sum |a w|. */
#include "backends/cpu/gemm.h"
#include "bench/ceil.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* a is f32; bf16 where w is BF16 and `narrow`; rounded to int8 where w is I8C and `narrow`. */
typedef struct {
	cx_dtype dtype;
	int64_t m, n, k;
	bool narrow;
} shape;
static const shape shapes[] = {
	{CX_F32, 512, 4096, 14336},
	{CX_F32, 512, 14336, 4096},
	{CX_F32, 1024, 1024, 1024},
	{CX_F32, 128, 256, 256},
	{CX_F32, 128, 768, 256},
	{CX_F32, 128, 1024, 256},
	{CX_F32, 128, 256, 1024},
	{CX_F32, 256, 512, 512},
	{CX_F32, 256, 1536, 512},
	{CX_F32, 256, 2048, 512},
	{CX_F32, 256, 512, 2048},
	{CX_F32, 1024, 1024, 256},
	{CX_F32, 8192, 2048, 512},
	{CX_F32, 8192, 768, 3072},
	{CX_BF16, 128, 256, 256, true},
	{CX_BF16, 128, 1024, 256, true},
	{CX_BF16, 128, 256, 1024, true},
	{CX_BF16, 256, 1536, 512, true},
	{CX_BF16, 256, 2048, 512, true},
	{CX_BF16, 256, 512, 2048, true},
	{CX_BF16, 1024, 1024, 1024, true},
	{CX_BF16, 8192, 2048, 512, true},
	{CX_BF16, 8192, 768, 3072, true},
	{CX_BF16, 1, 14336, 4096, true},
	{CX_BF16, 8, 4096, 4096, true},
	{CX_I8C, 128, 256, 256, true},
	{CX_I8C, 128, 1024, 256, true},
	{CX_I8C, 128, 256, 1024, true},
	{CX_I8C, 256, 1536, 512, true},
	{CX_I8C, 256, 2048, 512, true},
	{CX_I8C, 256, 512, 2048, true},
	{CX_I8C, 1024, 1024, 1024, true},
	{CX_I8C, 8192, 2048, 512, true},
	{CX_I8C, 8192, 768, 3072, true},
	{CX_I8C, 1, 14336, 4096, true},
	{CX_I8C, 8, 4096, 4096, true},
	{CX_F32, 64, 4096, 4096},
	{CX_F32, 16, 4096, 4096},
	{CX_F32, 8, 4096, 4096},
	{CX_F32, 4, 4096, 4096},
	{CX_F32, 1, 4096, 4096},
	{CX_F32, 1, 14336, 4096},
	{CX_F32, 1, 4096, 14336},
	{CX_F16, 1, 14336, 4096},
	{CX_F16, 512, 4096, 4096},
	{CX_BF16, 1, 14336, 4096},
	{CX_BF16, 512, 4096, 4096},
	{CX_Q8_0, 1, 4096, 4096},
	{CX_Q8_0, 1, 14336, 4096},
	{CX_Q8_0, 1, 4096, 14336},
	{CX_Q8_0, 4, 14336, 4096},
	{CX_Q8_0, 16, 14336, 4096},
	{CX_Q8_0, 512, 4096, 4096},
	{CX_Q4_0, 1, 14336, 4096},
	{CX_Q4_0, 1, 4096, 14336},
	{CX_Q4_0, 512, 4096, 4096},
	{CX_Q4_1, 1, 14336, 4096},
	{CX_Q5_0, 1, 14336, 4096},
	{CX_Q5_1, 1, 14336, 4096},
	{CX_Q2_K, 1, 14336, 4096},
	{CX_Q3_K, 1, 14336, 4096},
	{CX_Q4_K, 1, 14336, 4096},
	{CX_Q4_K, 1, 4096, 14336},
	{CX_Q4_K, 4, 14336, 4096},
	{CX_Q4_K, 512, 4096, 4096},
	{CX_Q5_K, 1, 14336, 4096},
	{CX_Q6_K, 1, 14336, 4096},
	{CX_Q6_K, 512, 4096, 4096},
	{CX_IQ4_NL, 1, 14336, 4096},
	{CX_IQ4_XS, 1, 14336, 4096},
	{CX_MXFP4, 1, 14336, 4096},
	{CX_I8C, 1, 14336, 4096},
	{CX_I8C, 512, 4096, 4096},
};

typedef struct {
	const cx_cpu_isa *isa;
	cx_cpu_linear l;
	void *scratch;
	cx_pool *pool;
	const float *a; /* what the product stands for: rows as rounded */
} job;

static void run(void *ctx, uint32_t thread, uint32_t n)
{
	job *j = ctx;
	cx__cpu_linear_run(j->isa, &j->l, j->scratch, thread, n, j->pool);
}

static uint64_t rng = 88172645463325252u;
static float noise(void)
{
	rng ^= rng << 13;
	rng ^= rng >> 7;
	rng ^= rng << 17;
	return (float)(int32_t)(rng >> 32) * 0x1p-31f;
}
static void *big(size_t bytes)
{
	void *p = NULL;
	if (posix_memalign(&p, 2 << 20, (bytes + 4095) & ~(size_t)4095) != 0) {
		fprintf(stderr, "no memory for %zu bytes\n", bytes);
		exit(1);
	}
	(void)madvise(p, bytes, MADV_HUGEPAGE);
	return p;
}

/* One matrix: 64 random rows, repeated with changes of place; quantising every row would take
 * longer than the test. */
static void fill(cx_dtype t, uint8_t *w, int64_t n, int64_t k, size_t row_bytes)
{
	enum { ROWS = 64 };
	float *x = malloc((size_t)k * ROWS * sizeof *x);
	uint8_t *few = malloc(row_bytes * ROWS + 4 * ROWS + 4), *scales;
	if (!x || !few) exit(1);
	for (int64_t i = 0; i < k * ROWS; i++) x[i] = noise();
	if (t == CX_I8C) cx_quant_i8c(x, ROWS, k, few);
	else
		for (int64_t r = 0; r < ROWS; r++)
			cx_quant_row(t, x + r * k, few + (size_t)r * row_bytes, k);
	scales = few + cx_i8c_scale_off(ROWS, k);
	for (int64_t r = 0; r < n; r++) {
		int64_t from = (r * 29 + r / ROWS) % ROWS;
		memcpy(w + (size_t)r * row_bytes, few + (size_t)from * row_bytes, row_bytes);
		if (t == CX_I8C) memcpy(w + cx_i8c_scale_off(n, k) + 4 * r, scales + 4 * from, 4);
	}
	free(x);
	free(few);
}

static double check(const job *j, const shape *s)
{
	double worst = 0.0;
	float *row = malloc((size_t)s->k * sizeof *row);
	const cx_cpu_weight *w = &j->l.w[0];
	if (!row) exit(1);
	for (int i = 0; i < 64; i++) {
		int64_t n = (i * 2654435761u) % (uint64_t)s->n, m = (i * 40503u) % (uint64_t)s->m;
		const float *a = j->a + m * s->k;
		double want = 0.0, size = 0.0, e;
		if (s->dtype == CX_I8C) cx_dequant_i8c_row(w->w, s->n, s->k, n, row);
		else cx_dequant_row(s->dtype, (const uint8_t *)w->w + n * w->row_bytes, row, s->k);
		for (int64_t k = 0; k < s->k; k++) {
			want += (double)a[k] * row[k];
			size += fabs((double)a[k] * row[k]);
		}
		e = fabs(((const float *)w->y)[m * s->n + n] - want) / size;
		if (!(e <= worst)) worst = e; /* NaN too */
	}
	free(row);
	return worst;
}

/* a in the form that the row asks for. */
static void narrow(job *j, const shape *s, float *a)
{
	uint16_t *half = s->dtype == CX_BF16 ? big((size_t)(s->m * s->k) * sizeof *half) : NULL;
	if (!half) j->l.act_scale = 1.0f / 127.0f;
	for (int64_t i = 0; i < s->m * s->k; i++) {
		if (half) a[i] = cx_bf16_to_f32(half[i] = cx_f32_to_bf16(a[i]));
		else a[i] = rintf(a[i] * (1.0f / j->l.act_scale)) * j->l.act_scale;
	}
	if (!half) return;
	j->l.a_dtype = CX_BF16;
	j->l.a = half;
}

static void bench(
	const cx_cpu_isa *isa, cx_pool *pool, const shape *s, const cx_ceilings *top, int repeats)
{
	const cx_dtype_info *d = cx_dtype_get(s->dtype);
	size_t row_bytes = (size_t)(s->k / d->block_elems * d->block_bytes);
	size_t bytes = row_bytes * (size_t)s->n + (s->dtype == CX_I8C ? 4 * (size_t)s->n + 4 : 0),
		   step = (bytes + 4095) & ~(size_t)4095;
	int copies = s->m > 16 || step < 4 << 20 ? 1 : (int)(((size_t)256 << 20) / step) + 1;
	uint8_t *w = big(step * (size_t)copies);
	float *a = big((size_t)(s->m * s->k) * sizeof *a), *y = big((size_t)(s->m * s->n) * sizeof *y);
	double t[200], err, moved, macs, med, rate;
	job j = {.isa = isa,
		.pool = pool,
		.a = a,
		.l = {.m = s->m,
			.k = s->k,
			.a_dtype = CX_F32,
			.a = a,
			.a_stride = s->k,
			.a_k_stride = 1,
			.n_w = 1}};
	double work = (double)s->m * (double)s->n * (double)s->k, peak = top->fma_gflops;
	int n = work > 2e9 ? repeats : repeats * 10 < 200 ? repeats * 10 : 200;
	fill(s->dtype, w, s->n, s->k, row_bytes);
	for (int i = 1; i < copies; i++) memcpy(w + (size_t)i * step, w, bytes);
	for (int64_t i = 0; i < s->m * s->k; i++) a[i] = noise();
	if (s->narrow) narrow(&j, s, a);
	j.l.w[0] = (cx_cpu_weight){.dtype = s->dtype,
		.w = w,
		.n = s->n,
		.row_bytes = (int64_t)row_bytes,
		.n_stride = s->k,
		.k_stride = 1,
		.scales = w + cx_i8c_scale_off(s->n, s->k),
		.y = y,
		.y_dtype = CX_F32,
		.y_stride = s->n};
	j.scratch = big(cx__cpu_linear_scratch(isa, &j.l, cx__pool_size(pool)));
	cx__pool_run(pool, 0, run, &j);
	err = check(&j, s);
	for (int i = 0; i < n; i++) {
		uint8_t *at = w + (size_t)(i % copies) * step;
		double t0 = cx__now_us();
		j.l.w[0].w = at;
		j.l.w[0].scales = at + cx_i8c_scale_off(s->n, s->k);
		cx__pool_run(pool, 0, run, &j);
		t[i] = cx__now_us() - t0;
	}
	cx__cpu_linear_cost(&j.l, &moved, &macs);
	med = cx__quantile(t, n, 0.5);
	if (s->narrow) peak = s->dtype == CX_BF16 ? top->bf16_gflops : top->dot8_gops;
	rate = s->m <= 4 ? moved / med * 1e-3 / top->read_gbs : 2.0 * macs / med * 1e-3 / peak;
	printf("linear\t%ldx%ldx%ld\t%s%s\tcpu/%s\t%.1f\t%.1f\t%.1f\t%.1f\t%.1f\t%.1f\t%.1e\n",
		(long)s->m, (long)s->n, (long)s->k, d->name,
		s->narrow ? s->dtype == CX_BF16 ? "*bf16" : "*int8" : "", isa->name, med,
		cx__quantile(t, n, 0.1), cx__quantile(t, n, 0.9), moved / med * 1e-3,
		2.0 * macs / med * 1e-3, 100.0 * rate, err);
	fflush(stdout);
	free(w);
	free(a);
	free(y);
	if (j.l.a != a) free((void *)(uintptr_t)j.l.a);
	free(j.scratch);
}

static void print_head(cx_pool *pool, const cx_ceilings *top)
{
	char line[256], cpu[200] = "unknown";
	FILE *f = fopen("/proc/cpuinfo", "r");
	while (f && fgets(line, sizeof line, f))
		if (!strncmp(line, "model name", 10) && strchr(line, ':'))
			snprintf(cpu, sizeof cpu, "%s", strchr(line, ':') + 2);
	if (f) fclose(f);
	cpu[strcspn(cpu, "\n")] = 0;
	printf("# device %s, %u threads\n# compiler %s\n", cpu, cx__pool_size(pool), __VERSION__);
#ifdef CX_COMMIT
	printf("# commit %s\n", CX_COMMIT);
#endif
	printf("# ceilings: fma %.0f GFLOP/s, bf16 %.0f GFLOP/s, dot16 %.0f GOP/s, dot8 %.0f GOP/s, "
		   "read %.1f GB/s, copy %.1f GB/s\n",
		top->fma_gflops, top->bf16_gflops, top->dot16_gops, top->dot8_gops, top->read_gbs,
		top->copy_gbs);
	printf(
		"op\tshape\tdtype\tbackend\tmedian_us\tp10_us\tp90_us\tGB/s\tGFLOP/s\t%%peak\terr_max\n");
}

int main(int argc, char **argv)
{
	const cx_cpu_isa *isa = cx__cpu_isa_best();
	const char *only = NULL;
	uint32_t threads = 0;
	long m = 0, n = 0, k = 0;
	int repeats = 5, c;
	cx_pool *pool;
	cx_ceilings top;
	cx_err err = {0};
	while ((c = getopt(argc, argv, "t:i:r:k:s:")) != -1) {
		if (c == 't') threads = (uint32_t)atoi(optarg);
		else if (c == 'i') isa = cx__cpu_isa_named(optarg);
		else if (c == 'r') repeats = atoi(optarg);
		else if (c == 'k') only = optarg;
		else if (c != 's' || sscanf(optarg, "%ldx%ldx%ld", &m, &n, &k) != 3 || m < 1 || n < 1 ||
				 k < 256 || k % 256)
			return 2;
	}
	if (!isa || repeats < 1 || repeats > 200) {
		fprintf(stderr, "bench_matmul: no such instruction set here, or repeats not in 1..200\n");
		return 2;
	}
	if (cx__pool_create(NULL, threads, false, &pool, &err) != CX_OK ||
		!cx__ceilings_measure(pool, &top)) {
		fprintf(stderr, "bench_matmul: %s\n", err.msg[0] ? err.msg : "no memory");
		return 1;
	}
	print_head(pool, &top);
	for (size_t i = 0; i < (m ? (size_t)CX_DTYPE_COUNT : sizeof shapes / sizeof *shapes); i++) {
		char name[64];
		const shape own = {(cx_dtype)i, m, n, k}, *s = m ? &own : &shapes[i];
		if (m && (i == CX_I32 || i == CX_I64 || i == CX_U8 || i == CX_I8 || i == CX_BOOL)) continue;
		snprintf(name, sizeof name, "%s %ldx%ldx%ld", cx_dtype_get(s->dtype)->name, (long)s->m,
			(long)s->n, (long)s->k);
		if (!only || strstr(name, only)) bench(isa, pool, s, &top, repeats);
	}
	cx__pool_free(pool);
	return 0;
}
