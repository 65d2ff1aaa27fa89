/* test_gemm.c - the cpu matmul: every weight format x rows of a x odd sizes x instruction sets x
 * threads.
 *
 * Covered: error against a double product of the dequantised weights; the same bits from every
 * instruction set, number of rows (row m of 64 equals a run of its own), number of threads and
 * blocking (k beyond KB, n beyond NB, m beyond MB); strided and transposed operands, f16 and bf16
 * in and out; bias, activation, gate, residual, computed rows; NaN and infinity; empty sizes; bf16
 * times bf16 (the same bits for a row however many there are), int8 activations (exactly the
 * formula of isa.h with every instruction set). */
#include "backends/cpu/gemm.h"

#include <math.h>
#include <stdarg.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const cx_dtype formats[] = {CX_F32, CX_F16, CX_BF16, CX_Q8_0, CX_Q4_0, CX_Q4_1, CX_Q5_0,
	CX_Q5_1, CX_Q2_K, CX_Q3_K, CX_Q4_K, CX_Q5_K, CX_Q6_K, CX_IQ4_NL, CX_IQ4_XS, CX_MXFP4, CX_I8C};
enum { N_FORMATS = sizeof formats / sizeof *formats };
static const char *const isa_names[] = {"generic", "avx2", "avx512"};

static uint64_t rng_state = 1;
static double uniform(void) /* in [-1, 1) */
{
	rng_state = rng_state * 6364136223846793005u + 1442695040888963407u;
	return (double)(int32_t)(rng_state >> 32) * 0x1p-31;
}
static float normal(void)
{
	double s = 0.0;
	for (int i = 0; i < 12; i++) s += uniform();
	return (float)(s * 0.5);
}
static void *xcalloc(size_t n, size_t size)
{
	void *p = calloc(n ? n : 1, size);
	assert_non_null(p);
	return p;
}

static bool is_block(cx_dtype t)
{
	return cx_dtype_get(t)->cls == CX_CLASS_BLOCK;
}

/* Weights [n, k] in a format, and what they are in f32. The bytes end exactly where the data does.
 */
typedef struct {
	cx_dtype dtype;
	int64_t n, k, row_bytes;
	uint8_t *data;
	float *f32;
} matrix;
static matrix matrix_make(cx_dtype t, int64_t n, int64_t k)
{
	matrix m = {.dtype = t, .n = n, .k = k};
	float *x = xcalloc((size_t)(n * k), sizeof *x);
	m.f32 = xcalloc((size_t)(n * k), sizeof *x);
	for (int64_t i = 0; i < n * k; i++) x[i] = normal() * (float)(1.0 + 0.5 * uniform());
	if (t == CX_I8C) {
		m.row_bytes = k;
		m.data = xcalloc((size_t)cx_i8c_scale_off(n, k) + 4 * (size_t)n, 1);
		cx_quant_i8c(x, n, k, m.data);
		for (int64_t r = 0; r < n; r++) cx_dequant_i8c_row(m.data, n, k, r, m.f32 + r * k);
	} else {
		m.row_bytes = k / cx_dtype_get(t)->block_elems * cx_dtype_get(t)->block_bytes;
		m.data = xcalloc((size_t)(n * m.row_bytes), 1);
		for (int64_t r = 0; r < n; r++) {
			assert_true(cx_quant_row(t, x + r * k, m.data + r * m.row_bytes, k));
			assert_true(cx_dequant_row(t, m.data + r * m.row_bytes, m.f32 + r * k, k));
		}
	}
	free(x);
	return m;
}
static void matrix_free(matrix *m)
{
	free(m->data);
	free(m->f32);
}
static cx_cpu_weight weight_of(const matrix *m, float *y)
{
	return (cx_cpu_weight){.dtype = m->dtype,
		.w = m->data,
		.n = m->n,
		.row_bytes = m->row_bytes,
		.n_stride = m->k,
		.k_stride = 1,
		.scales = m->dtype == CX_I8C ? m->data + cx_i8c_scale_off(m->n, m->k) : NULL,
		.y = y,
		.y_dtype = CX_F32,
		.y_stride = m->n};
}

typedef struct {
	const cx_cpu_isa *isa;
	const cx_cpu_linear *l;
	void *scratch;
	cx_pool *pool;
} job;
static void job_run(void *ctx, uint32_t thread, uint32_t n)
{
	job *j = ctx;
	cx__cpu_linear_run(j->isa, j->l, j->scratch, thread, n, j->pool);
}
static void linear(const cx_cpu_isa *isa, const cx_cpu_linear *l, uint32_t n_threads)
{
	size_t bytes = cx__cpu_linear_scratch(isa, l, n_threads);
	job j = {.isa = isa, .l = l, .scratch = xcalloc(bytes, 1)};
	if (n_threads > 1) {
		assert_int_equal(cx__pool_create(NULL, n_threads, false, &j.pool, NULL), CX_OK);
		cx__pool_run(j.pool, n_threads, job_run, &j);
		cx__pool_free(j.pool);
	} else job_run(&j, 0, 1);
	free(j.scratch);
}

static double nmse(const float *y, const double *want, int64_t n)
{
	double e = 0.0, s = 0.0;
	for (int64_t i = 0; i < n; i++) {
		e += (y[i] - want[i]) * (y[i] - want[i]);
		s += want[i] * want[i];
	}
	return e / (s > 0.0 ? s : 1.0);
}
static void assert_bits(const float *x, const float *y, int64_t n, const char *what)
{
	for (int64_t i = 0; i < n; i++)
		if (memcmp(&x[i], &y[i], sizeof *x) != 0)
			fail_msg("%s: element %ld is %.9g and %.9g", what, (long)i, x[i], y[i]);
}

/* ---- every format ---- */

static void check_format(cx_dtype t, int64_t n, int64_t k, const int64_t *ms, int n_ms)
{
	int64_t m_max = ms[n_ms - 1];
	matrix w = matrix_make(t, n, k);
	float *a = xcalloc((size_t)(m_max * k), sizeof *a),
		  *y = xcalloc((size_t)(m_max * n), sizeof *y), *first = NULL;
	double *want = xcalloc((size_t)(m_max * n), sizeof *want), bar = is_block(t) ? 1e-8 : 1e-12,
		   worst = 0.0;
	char what[96];
	for (int64_t i = 0; i < m_max * k; i++) a[i] = normal() * (i / k % 7 == 3 ? 1e-3f : 1.0f);
	for (int64_t i = 0; i < m_max; i++)
		for (int64_t j = 0; j < n; j++)
			for (int64_t e = 0; e < k; e++)
				want[i * n + j] += (double)a[i * k + e] * w.f32[j * k + e];
	for (int s = 0; s < 3; s++) {
		const cx_cpu_isa *isa = cx__cpu_isa_named(isa_names[s]);
		for (int i = n_ms - 1; isa && i >= 0; i--)
			for (uint32_t threads = 1; threads <= 3; threads += 2) {
				/* rows ms[i].. of a end at the last: a different first row each time */
				int64_t m0 = m_max - ms[i];
				cx_cpu_linear l = {.m = ms[i],
					.k = k,
					.a_dtype = CX_F32,
					.a = a + m0 * k,
					.a_stride = k,
					.a_k_stride = 1,
					.n_w = 1,
					.w = {weight_of(&w, y + m0 * n)}};
				memset(y, 0xff, (size_t)(m_max * n) * sizeof *y);
				linear(isa, &l, threads);
				if (!first) {
					first = xcalloc((size_t)(m_max * n), sizeof *y);
					memcpy(first, y, (size_t)(m_max * n) * sizeof *y);
				}
				snprintf(what, sizeof what, "%s %s m=%ld n=%ld k=%ld threads=%u", isa->name,
					cx_dtype_get(t)->name, (long)ms[i], (long)n, (long)k, threads);
				assert_bits(y + m0 * n, first + m0 * n, ms[i] * n, what);
				for (int64_t r = m0; r < m_max;
					 r++) { /* row by row: small rows must be right too */
					double e = nmse(y + r * n, want + r * n, n);
					if (!(e <= bar))
						fail_msg("%s: row %ld has NMSE %g, allowed %g", what, (long)r, e, bar);
					worst = e > worst ? e : worst;
				}
			}
	}
	print_message("%-7s n=%-4ld k=%-5ld worst row NMSE %.1e\n", cx_dtype_get(t)->name, (long)n,
		(long)k, worst);
	free(a);
	free(y);
	free(first);
	free(want);
	matrix_free(&w);
}

static void test_formats(void **state)
{
	static const int64_t ms[] = {1, 2, 3, 5, 16, 17, 64};
	(void)state;
	for (int f = 0; f < N_FORMATS; f++) {
		int64_t be = cx_dtype_get(formats[f])->block_elems;
		check_format(formats[f], 37, be == 1 ? 77 : be * 3, ms, 7);
		check_format(formats[f], 11, be == 1 ? 1 : be, ms, 3);
	}
}

/* Past every blocking limit of gemm.c: k > 1024, n > 96, m > 512. */
static void test_blocking(void **state)
{
	static const int64_t few[] = {1, 4, 18}, many[] = {2, 517};
	(void)state;
	check_format(CX_F32, 101, 2051, few, 3);
	check_format(CX_BF16, 99, 1040, few, 3);
	check_format(CX_Q8_0, 101, 2080, few, 3);
	check_format(CX_Q4_K, 105, 1280, few, 3);
	check_format(CX_Q2_K, 98, 1280, few, 3);
	check_format(CX_I8C, 97, 1111, few, 3);
	check_format(CX_F32, 9, 70, many, 2);
	check_format(CX_Q6_K, 7, 256, many, 2);
}

/* Random bytes are legal blocks too: extreme scales and every bit pattern. Bits equal everywhere;
 * error where finite. */
static void test_random_bytes(void **state)
{
	enum { N = 6, M = 5 };
	(void)state;
	for (int f = 3; f < N_FORMATS; f++) {
		cx_dtype t = formats[f];
		int64_t k = cx_dtype_get(t)->block_elems == 256 ? 512 : 160;
		matrix w = matrix_make(t, N, k);
		float *a = xcalloc((size_t)(M * k), sizeof *a), y[M * N], first[M * N];
		for (int64_t i = 0; i < M * k; i++) a[i] = normal();
		for (int64_t i = 0; i < N * w.row_bytes; i++)
			w.data[i] = (uint8_t)(uniform() * 128.0 + 128.0);
		for (int s = 0, n_first = 0; s < 3; s++)
			for (int m = M; m >= 1; m -= 4) {
				const cx_cpu_isa *isa = cx__cpu_isa_named(isa_names[s]);
				cx_cpu_linear l = {.m = m,
					.k = k,
					.a_dtype = CX_F32,
					.a = a,
					.a_stride = k,
					.a_k_stride = 1,
					.n_w = 1,
					.w = {weight_of(&w, y)}};
				if (!isa) continue;
				linear(isa, &l, 1);
				if (!n_first++) memcpy(first, y, sizeof y);
				for (int i = 0; i < m * N; i++) {
					assert_int_equal(isnan(y[i]), isnan(first[i]));
					if (!isnan(y[i])) assert_memory_equal(&y[i], &first[i], sizeof *y);
				}
			}
		for (int j = 0; j < N; j++) {
			float *x = w.f32 + j * k;
			double want[M] = {0}, size = 0.0;
			if (t == CX_I8C) cx_dequant_i8c_row(w.data, N, k, j, x);
			else assert_true(cx_dequant_row(t, w.data + j * w.row_bytes, x, k));
			for (int64_t e = 0; e < k; e++) size += fabs((double)x[e]);
			for (int i = 0; i < M && isfinite(size); i++) {
				for (int64_t e = 0; e < k; e++) want[i] += (double)a[i * k + e] * x[e];
				assert_true(
					fabs(first[i * N + j] - want[i]) <= 2e-4 * size); /* |a| < 6, 1.5e-5 each way */
			}
		}
		free(a);
		matrix_free(&w);
	}
}

/* ---- bf16 times bf16, int8 activations ---- */

/* Rows of m_max, in runs of some of them, have the same bits; want [m_max, n] within bar. */
static void check_rows(const cx_cpu_isa *isa, cx_cpu_linear l, const matrix *w, int64_t m_max,
	const double *want, double bar, const char *what)
{
	static const int64_t ms[] = {1, 2, 3, 7, 16, 17, 64, 1030};
	float *first = xcalloc((size_t)(m_max * w->n), sizeof *first),
		  *y = xcalloc((size_t)(m_max * w->n), sizeof *y);
	const uint8_t *a = l.a;
	size_t row = (size_t)l.a_stride * (l.a_dtype == CX_F32 ? 4 : 2);
	l.n_w = 1;
	l.m = m_max;
	l.w[0] = weight_of(w, first);
	linear(isa, &l, 1);
	for (int64_t r = 0; r < m_max; r++)
		assert_true(nmse(first + r * w->n, want + r * w->n, w->n) <= bar);
	for (size_t i = 0; i < sizeof ms / sizeof *ms; i++)
		for (uint32_t threads = 1; threads <= 3 && ms[i] <= m_max; threads += 2) {
			int64_t m0 = m_max - ms[i];
			l.m = ms[i];
			l.a = a + (size_t)m0 * row;
			l.w[0].y = y;
			memset(y, 0xff, (size_t)(ms[i] * w->n) * sizeof *y);
			linear(isa, &l, threads);
			assert_bits(y, first + m0 * w->n, ms[i] * w->n, what);
		}
	free(first);
	free(y);
}

static const struct {
	int64_t m, n, k;
} narrow_shapes[] = {{64, 37, 77}, {17, 50, 1}, {20, 101, 2300}, {1030, 7, 65}, {64, 96, 256}};

static void test_bf16_rows(void **state)
{
	(void)state;
	for (size_t c = 0; c < sizeof narrow_shapes / sizeof *narrow_shapes; c++) {
		int64_t m = narrow_shapes[c].m, n = narrow_shapes[c].n, k = narrow_shapes[c].k;
		matrix a = matrix_make(CX_BF16, m, k), w = matrix_make(CX_BF16, n, k);
		double *want = xcalloc((size_t)(m * n), sizeof *want);
		for (int64_t i = 0; i < m * n; i++)
			for (int64_t e = 0; e < k; e++)
				want[i] += (double)a.f32[i / n * k + e] * w.f32[i % n * k + e];
		for (int s = 0; s < 3; s++) {
			const cx_cpu_isa *isa = cx__cpu_isa_named(isa_names[s]);
			cx_cpu_linear l = {
				.k = k, .a_dtype = CX_BF16, .a = a.data, .a_stride = k, .a_k_stride = 1};
			if (isa) check_rows(isa, l, &w, m, want, 1e-12, "bf16 times bf16");
		}
		free(want);
		matrix_free(&a);
		matrix_free(&w);
	}
}

/* (float)sum * (s * scale[n]), by hand. */
static void int8_product(const float *a, const matrix *w, int64_t m, float s, double *want)
{
	for (int64_t i = 0; i < m * w->n; i++) {
		int32_t sum = 0;
		for (int64_t e = 0; e < w->k; e++) {
			float q = rintf(a[i / w->n * w->k + e] * (1.0f / s));
			sum += (int32_t)(q > 127    ? 127
							 : q < -127 ? -127
										: q) *
				   ((const int8_t *)w->data)[i % w->n * w->k + e];
		}
		want[i] = (float)sum * (s * cx_i8c_scale(w->data, w->n, w->k, i % w->n));
	}
}

/* Exact whatever the instruction set; a NaN spoils its row and no other. */
static void test_int8_rows(void **state)
{
	const float s = 0.02f;
	(void)state;
	for (size_t c = 0; c < sizeof narrow_shapes / sizeof *narrow_shapes; c++) {
		int64_t m = narrow_shapes[c].m, n = narrow_shapes[c].n, k = narrow_shapes[c].k;
		matrix w = matrix_make(CX_I8C, n, k);
		float *a = xcalloc((size_t)(m * k), sizeof *a), *y = xcalloc((size_t)(2 * n), sizeof *y);
		double *want = xcalloc((size_t)(m * n), sizeof *want);
		for (int64_t i = 0; i < m * k; i++) a[i] = normal(); /* beyond 127 * s now and then */
		if (k > 70) a[5] = INFINITY;
		if (k > 70) a[6] = -INFINITY;
		a[0] = 2.5f * s; /* halfway, or next to it: as rint */
		int8_product(a, &w, m, s, want);
		for (int t = 0; t < 3; t++) {
			const cx_cpu_isa *isa = cx__cpu_isa_named(isa_names[t]);
			float keep = a[k];
			cx_cpu_linear l = {
				.k = k, .a_dtype = CX_F32, .a = a, .a_stride = k, .a_k_stride = 1, .act_scale = s};
			if (!isa) continue;
			check_rows(isa, l, &w, m, want, 0.0, "int8 activations");
			l.m = 2;
			l.n_w = 1;
			l.w[0] = weight_of(&w, y);
			a[k] = NAN;
			linear(isa, &l, 1);
			for (int64_t j = 0; j < n; j++) assert_true((double)y[j] == want[j] && isnan(y[n + j]));
			a[k] = keep;
		}
		free(a);
		free(y);
		free(want);
		matrix_free(&w);
	}
}

/* ---- operands and ends of the product ---- */

static void test_layouts(void **state)
{
	enum { M = 19, N = 50, K = 83 };
	static const cx_dtype floats[] = {CX_F32, CX_F16, CX_BF16};
	(void)state;
	for (int s = 0; s < 3; s++) {
		const cx_cpu_isa *isa = cx__cpu_isa_named(isa_names[s]);
		for (int ta = 0; isa && ta < 3; ta++)
			for (int trans = 0; trans < 4; trans++) {
				cx_dtype t = floats[ta];
				matrix a = matrix_make(t, M, K), at = matrix_make(t, K, M),
					   b = matrix_make(t, N, K), bt = matrix_make(t, K, N);
				float want[M * N], y[M * N];
				size_t e = t == CX_F32 ? 4 : 2;
				for (int64_t k = 0; k < K; k++) { /* the transposes hold the same values */
					for (int64_t m = 0; m < M; m++)
						memcpy(
							at.data + e * (size_t)(k * M + m), a.data + e * (size_t)(m * K + k), e);
					for (int64_t n = 0; n < N; n++)
						memcpy(
							bt.data + e * (size_t)(k * N + n), b.data + e * (size_t)(n * K + k), e);
				}
				cx_cpu_linear l = {.m = M,
					.k = K,
					.a_dtype = CX_F32,
					.a = a.f32,
					.a_stride = K,
					.a_k_stride = 1,
					.n_w = 1};
				l.w[0] = weight_of(&b, want);
				if (t == CX_BF16 && isa->bf16_dot) { /* a sum of its own: the plain layout's */
					l.a_dtype = t;
					l.a = a.data;
				}
				linear(isa, &l, 1); /* else widened by hand */
				l.a_dtype = t;
				l.a = trans & 1 ? at.data : a.data;
				l.a_stride = trans & 1 ? 1 : K;
				l.a_k_stride = trans & 1 ? M : 1;
				l.w[0].y = y;
				if (trans & 2) {
					l.w[0].w = bt.data;
					l.w[0].n_stride = 1;
					l.w[0].k_stride = N;
				}
				for (uint32_t threads = 1; threads <= 2; threads++) {
					memset(y, 0xff, sizeof y);
					linear(isa, &l, threads);
					assert_bits(y, want, M * N, "layout");
				}
				matrix_free(&a);
				matrix_free(&at);
				matrix_free(&b);
				matrix_free(&bt);
			}
	}
}

static void twice(const void *ctx, int64_t m, float *out)
{
	const float *a = ctx;
	for (int k = 0; k < 64; k++) out[k] = 2.0f * a[m * 64 + k];
}

/* q, k, v at once have the bits of one at a time. */
static void check_three(const cx_cpu_isa *isa, int64_t m, const float *a, const matrix *const w[3])
{
	int64_t k = w[0]->k;
	float *q[3], *q1[3];
	cx_cpu_linear l = {
		.m = m, .k = k, .a_dtype = CX_F32, .a = a, .a_stride = k, .a_k_stride = 1, .n_w = 3};
	for (int i = 0; i < 3; i++) {
		q[i] = xcalloc((size_t)(m * w[i]->n), sizeof **q);
		q1[i] = xcalloc((size_t)(m * w[i]->n), sizeof **q);
		l.w[i] = weight_of(w[i], q[i]);
	}
	linear(isa, &l, 3);
	for (int i = 0; i < 3; i++) {
		cx_cpu_linear one = l;
		one.n_w = 1;
		one.w[0] = l.w[i];
		one.w[0].y = q1[i];
		linear(isa, &one, 1);
		assert_bits(q[i], q1[i], m * l.w[i].n, "three at once");
		free(q[i]);
		free(q1[i]);
	}
}

/* Gate and up of different formats on computed rows, biases, silu, residual in place, f16 out;
 * three outputs at once. */
static void test_ends(void **state)
{
	enum { N = 33, K = 64 };
	(void)state;
	for (int s = 0; s < 3; s++) {
		const cx_cpu_isa *isa = cx__cpu_isa_named(isa_names[s]);
		for (int64_t m = 1; isa && m <= 20; m += 19) {
			matrix g = matrix_make(CX_Q8_0, N, K), u = matrix_make(CX_F16, N, K),
				   v = matrix_make(CX_Q4_0, 2 * N, K);
			float *a = xcalloc((size_t)(m * K), sizeof *a),
				  *a2 = xcalloc((size_t)(m * K), sizeof *a), bias[2 * N];
			uint16_t *y = xcalloc((size_t)(m * N), sizeof *y),
					 *r = xcalloc((size_t)(m * N), sizeof *r);
			uint16_t bias16[N];
			for (int64_t i = 0; i < m * K; i++) a2[i] = 2.0f * (a[i] = normal());
			for (int i = 0; i < 2 * N; i++) bias[i] = normal();
			for (int i = 0; i < N; i++) bias16[i] = cx_f32_to_bf16(bias[i]);
			for (int64_t i = 0; i < m * N; i++) y[i] = r[i] = cx_f32_to_f16(normal());
			cx_cpu_linear l = {.m = m,
				.k = K,
				.row = twice,
				.row_ctx = a,
				.n_w = 2,
				.glu = true,
				.act = isa->silu,
				.w = {weight_of(&g, NULL), weight_of(&u, NULL)},
				.residual = y,
				.residual_dtype = CX_F16,
				.residual_stride = N};
			l.w[0].y = y;
			l.w[0].y_dtype = CX_F16;
			l.w[0].bias = bias;
			l.w[0].bias_dtype = CX_F32;
			l.w[1].bias = bias16;
			l.w[1].bias_dtype = CX_BF16;
			linear(isa, &l, 2);
			for (int64_t i = 0; i < m; i++)
				for (int64_t j = 0; j < N; j++) {
					double x0 = bias[j], x1 = cx_bf16_to_f32(bias16[j]), want;
					for (int64_t k = 0; k < K; k++) {
						x0 += (double)a2[i * K + k] * g.f32[j * K + k];
						x1 += (double)a2[i * K + k] * u.f32[j * K + k];
					}
					want = x0 / (1.0 + exp(-x0)) * x1 + cx_f16_to_f32(r[i * N + j]);
					double settled =
						fabs(x0) + fabs(x1) + fabs(x0 * x1); /* each stage rounds to f16 */
					assert_true(fabs(cx_f16_to_f32(y[i * N + j]) - want) <=
								1e-2 + 1e-3 * (fabs(want) + settled));
				}
			check_three(isa, m, a, (const matrix *[]){&g, &u, &v});
			free(a);
			free(a2);
			free(y);
			free(r);
			matrix_free(&g);
			matrix_free(&u);
			matrix_free(&v);
		}
	}
}

/* A NaN or infinity in a row of a spoils that row and no other; in a weight, that column. */
static void test_not_finite(void **state)
{
	enum { M = 18, N = 9 };
	(void)state;
	for (int s = 0; s < 3; s++)
		for (int f = 0; f < N_FORMATS; f++)
			for (int64_t m = 1; m <= M; m += 17) {
				const cx_cpu_isa *isa = cx__cpu_isa_named(isa_names[s]);
				cx_dtype t = formats[f];
				int64_t k = cx_dtype_get(t)->block_elems == 256 ? 512 : 96;
				matrix w;
				float *a, y[M * N];
				if (!isa) continue;
				w = matrix_make(t, N, k);
				a = xcalloc((size_t)(m * k), sizeof *a);
				for (int64_t i = 0; i < m * k; i++) a[i] = normal();
				cx_cpu_linear l = {.m = m,
					.k = k,
					.a_dtype = CX_F32,
					.a = a,
					.a_stride = k,
					.a_k_stride = 1,
					.n_w = 1,
					.w = {weight_of(&w, y)}};
				a[(m - 1) * k + 40] = NAN;
				linear(isa, &l, 1);
				for (int64_t i = 0; i < m * N; i++)
					assert_int_equal(isnan(y[i]) != 0, i / N == m - 1);
				a[(m - 1) * k + 40] = -INFINITY;
				linear(isa, &l, 1);
				for (int64_t i = 0; i < m * N; i++)
					assert_int_equal(isfinite(y[i]) == 0, i / N == m - 1);
				a[(m - 1) * k + 40] = 0.5f;
				if (t == CX_MXFP4) w.data[3 * w.row_bytes + 17] = 255;
				else if (t == CX_I8C) memset(w.data + cx_i8c_scale_off(N, k) + 12, 0xff, 4);
				else if (t == CX_F32) memset(w.data + 3 * w.row_bytes + 4, 0xff, 4);
				else if (t == CX_F16 || t == CX_BF16) memset(w.data + 3 * w.row_bytes + 2, 0xff, 2);
				if (!is_block(t) || t == CX_MXFP4 || t == CX_I8C) {
					linear(isa, &l, 1);
					for (int64_t i = 0; i < m * N; i++)
						assert_int_equal(isnan(y[i]) != 0, i % N == 3);
				}
				free(a);
				matrix_free(&w);
			}
}

static void test_empty_and_small(void **state)
{
	const cx_cpu_isa *isa = cx__cpu_isa_best();
	matrix w = matrix_make(CX_Q8_0, 3, 32);
	float a[64], y[8], tiny[32];
	cx_cpu_linear l = {.m = 0,
		.k = 32,
		.a_dtype = CX_F32,
		.a = a,
		.a_stride = 32,
		.a_k_stride = 1,
		.n_w = 1,
		.w = {weight_of(&w, y)}};
	(void)state;
	for (int i = 0; i < 64; i++) a[i] = normal();
	for (int i = 0; i < 8; i++) y[i] = 7.0f;
	linear(isa, &l, 2);
	l.m = 2;
	l.w[0].n = 0;
	linear(isa, &l, 2);
	for (int i = 0; i < 8; i++) assert_true(y[i] == 7.0f);
	l.w[0].n = 3;
	l.k = 0;
	linear(isa, &l, 2);
	for (int i = 0; i < 8; i++) assert_true(y[i] == (i < 6 ? 0.0f : 7.0f));
	/* small activations keep their precision, down to 2^-111 */
	for (int i = 0; i < 32; i++) tiny[i] = a[i] * 0x1p-100f;
	l = (cx_cpu_linear){.m = 1,
		.k = 32,
		.a_dtype = CX_F32,
		.a = tiny,
		.a_stride = 32,
		.a_k_stride = 1,
		.n_w = 1,
		.w = {weight_of(&w, y)}};
	linear(isa, &l, 1);
	for (int j = 0; j < 3; j++) {
		double want = 0.0, size = 0.0;
		for (int k = 0; k < 32; k++) {
			want += (double)tiny[k] * w.f32[j * 32 + k];
			size += fabs((double)tiny[k] * w.f32[j * 32 + k]);
		}
		assert_true(fabs(y[j] - want) <= 1e-4 * size);
	}
	matrix_free(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_formats),
		cmocka_unit_test(test_blocking),
		cmocka_unit_test(test_random_bytes),
		cmocka_unit_test(test_bf16_rows),
		cmocka_unit_test(test_int8_rows),
		cmocka_unit_test(test_layouts),
		cmocka_unit_test(test_ends),
		cmocka_unit_test(test_not_finite),
		cmocka_unit_test(test_empty_and_small),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
