/* test_quant.c - block formats: the vectors of spec/llm.md 3.5, real files bit for bit, round
 * trips; 16-bit floats.
 *
 * The fast conversions of every instruction set are compared with the plain ones on all 65536
 * halves and on floats around every rounding boundary. */
#include "backends/cpu/isa.h"
#include "models/files/gguf.h"
#include "tests/file_make.h"

#include <math.h>
#include <stdarg.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const char *const isa_names[] = {"generic", "avx2", "avx512"};

/* Block filled with (37 pos + 11) & 255; d = 0x2E66, m or dmin = 0x251F at these offsets (-1:
 * none); MXFP4 e = 125. */
typedef struct {
	cx_dtype dtype;
	int d, m;
	int at[10];
	double y[10];
	int n;
} vector;
#define AT32                                                                                       \
	{                                                                                              \
		0, 1, 15, 16, 17, 31                                                                       \
	}
#define AT256                                                                                      \
	{                                                                                              \
		0, 1, 31, 32, 63, 64, 127, 128, 191, 255                                                   \
	}
static const vector vectors[] = {
	{CX_Q8_0, 0, -1, AT32, {8.497925, 12.19702, -12.79688, -9.097778, -5.398682, -4.798828}, 6},
	{CX_Q4_0, 0, -1, AT32, {-0.2999268, 0.1999512, -0.7998047, -0.2999268, -0.09997559, 0}, 6},
	{CX_Q4_1, 0, 2, AT32, {1.519638, 0.4199066, 1.01976, 0.9197845, 1.219711, 1.219711}, 6},
	{CX_Q5_0, 0, -1, AT32, {0.8997803, -0.1999512, -1.199707, 1.399658, 0, 0.09997559}, 6},
	{CX_Q5_1, 0, 2, AT32, {1.91954, 2.419418, 3.019272, 1.91954, 0.5198822, 0.5198822}, 6},
	{CX_IQ4_NL, 0, -1, AT32, {-3.499146, 2.49939, -12.6969, -3.499146, -0.9997559, 0.09997559}, 6},
	{CX_MXFP4, -1, -1, AT32, {0, 0.75, -0.375, 0.375, 0.75, 0.75}, 6},
	{CX_Q2_K, 80, 82, AT256,
		{3.299194, 0, -0.06001282, 0.8997345, 0.859726, 1.319595, 4.198975, 0.8397675,
			-9.155273e-05, 0.5398407},
		10},
	{CX_Q3_K, 108, -1, AT256,
		{8.098022, -10.79736, 6.398438, -2.199463, 0.9997559, 3.39917, 7.198242, 0.1999512,
			8.098022, 4.198975},
		10},
	{CX_Q4_K, 0, 2, AT256,
		{33.07146, -1.020218, 17.57524, 1.519409, 4.718628, 43.86873, 9.117462, 42.64948, 5.398407,
			5.898239},
		10},
	{CX_Q5_K, 0, 2, AT256,
		{82.65935, -1.020218, 17.57524, 11.91687, 8.717651, 43.86873, 0.7195129, 105.0342, 65.38376,
			11.89677},
		10},
	{CX_Q6_K, 208, -1, AT256,
		{-143.0651, 169.5586, -9.597656, 23.09436, -57.98584, -303.9258, 149.9634, -35.09143,
			-97.97607, -5.998535},
		10},
	{CX_IQ4_XS, 0, -1, AT256,
		{6.498413, -0.09997559, 3.499146, 45.48889, -17.49573, 77.98096, 19.59521, -58.48572,
			124.5696, -1.599609},
		10},
};

static void test_spec_vectors(void **state)
{
	(void)state;
	for (size_t v = 0; v < sizeof vectors / sizeof *vectors; v++) {
		const vector *t = &vectors[v];
		const cx_dtype_info *info = cx_dtype_get(t->dtype);
		uint8_t b[256];
		float y[256];
		for (int i = 0; i < info->block_bytes; i++) b[i] = (uint8_t)(37 * i + 11);
		if (t->d >= 0) memcpy(b + t->d, "\x66\x2e", 2);
		if (t->m >= 0) memcpy(b + t->m, "\x1f\x25", 2);
		if (t->dtype == CX_MXFP4) b[0] = 125;
		assert_true(cx_dequant_row(t->dtype, b, y, info->block_elems));
		for (int i = 0; i < t->n; i++) { /* the table has seven digits */
			bool near_ = fabs(y[t->at[i]] - t->y[i]) <= 6e-7 * fabs(t->y[i]);
			if (!near_)
				fail_msg("%s: y[%d] is %.9g, not %.9g", info->name, t->at[i], y[t->at[i]], t->y[i]);
		}
	}
}

static void test_mxfp4_scales(void **state)
{
	uint8_t b[17] = {0};
	float y[32];
	(void)state;
	b[1] = 0x87; /* -0 above, 6 below */
	b[0] = 255;
	assert_true(cx_dequant_row(CX_MXFP4, b, y, 32));
	for (int i = 0; i < 32; i++) assert_true(isnan(y[i]));
	b[0] = 0;
	assert_true(cx_dequant_row(CX_MXFP4, b, y, 32));
	assert_true(y[0] == 6.0f * 0x1p-127f && y[16] == 0.0f && signbit(y[16]) && y[1] == 0.0f &&
				!signbit(y[1]));
	b[0] = 254;
	assert_true(cx_dequant_row(CX_MXFP4, b, y, 32));
	assert_true(isinf(y[0])); /* 6 * 2^127 */
}

/* The error of a value is at most half a step of its group; the formats' steps relative to the
 * group's range. */
static void test_round_trip(void **state)
{
	static const struct {
		cx_dtype dtype;
		double nmse;
	} bars[] = {{CX_F32, 0.0}, {CX_F16, 1e-7}, {CX_BF16, 1e-5}, {CX_Q8_0, 5e-5}, {CX_Q4_0, 1.2e-2},
		{CX_Q4_1, 9e-3}, {CX_Q5_0, 3e-3}, {CX_Q5_1, 2.2e-3}, {CX_Q2_K, 1.6e-1}, {CX_Q3_K, 6e-2},
		{CX_Q4_K, 1e-2}, {CX_Q5_K, 3e-3}, {CX_Q6_K, 1e-3}, {CX_IQ4_NL, 1.2e-2}, {CX_IQ4_XS, 1.2e-2},
		{CX_MXFP4, 3e-2}};
	enum { N = 4096 };
	float x[N], y[N];
	uint8_t b[4 * N];
	uint64_t r = 1;
	(void)state;
	for (int i = 0; i < N; i++) {
		double s = 0.0;
		for (int j = 0; j < 8; j++) {
			r = r * 6364136223846793005u + 1442695040888963407u;
			s += (double)(r >> 40) * 0x1p-24 - 0.5;
		}
		x[i] = (float)s;
	}
	for (size_t k = 0; k < sizeof bars / sizeof *bars; k++) {
		double e = 0.0, p = 0.0;
		assert_true(cx_quant_row(bars[k].dtype, x, b, N));
		assert_true(cx_dequant_row(bars[k].dtype, b, y, N));
		for (int i = 0; i < N; i++) {
			e += ((double)y[i] - x[i]) * ((double)y[i] - x[i]);
			p += (double)x[i] * x[i];
		}
		print_message("%-7s round trip NMSE %.2e\n", cx_dtype_get(bars[k].dtype)->name, e / p);
		assert_true(e / p <= bars[k].nmse);
	}
	memset(x, 0, sizeof x); /* zeros stay zeros */
	for (size_t k = 0; k < sizeof bars / sizeof *bars; k++) {
		assert_true(cx_quant_row(bars[k].dtype, x, b, 512));
		assert_true(cx_dequant_row(bars[k].dtype, b, y, 512));
		for (int i = 0; i < 512; i++) assert_true(y[i] == 0.0f);
	}
	assert_false(cx_dequant_row(CX_Q4_K, b, y, 32));
	assert_false(cx_quant_row(CX_Q8_0, x, b, 33));
	assert_false(cx_dequant_row(CX_I32, b, y, 32));
	assert_false(cx_dequant_row(CX_I8C, b, y, 32));
}

static void test_i8c(void **state)
{
	enum { N = 3, K = 7 };
	float x[N * K], y[K];
	uint8_t b[N * K + 3 + 4 * N];
	(void)state;
	for (int i = 0; i < N * K; i++) x[i] = (float)(i - 10) * (i < K ? 0.0f : 0.37f);
	assert_int_equal(cx_i8c_scale_off(N, K), 24);
	cx_quant_i8c(x, N, K, b);
	for (int r = 0; r < N; r++) {
		float d = cx_i8c_scale(b, N, K, r);
		cx_dequant_i8c_row(b, N, K, r, y);
		for (int i = 0; i < K; i++) assert_true(fabsf(y[i] - x[r * K + i]) <= 0.5001f * d);
	}
}

static void test_halves(void **state)
{
	float want[16], got[16];
	uint16_t in[16], out[16], plain[16];
	(void)state;
	assert_true(cx_f16_to_f32(0x3c00) == 1.0f && cx_f16_to_f32(0xc000) == -2.0f &&
				cx_f16_to_f32(1) == 0x1p-24f);
	assert_int_equal(cx_f32_to_f16(65519.99f), 0x7bff);
	assert_int_equal(cx_f32_to_f16(65520.0f), 0x7c00);
	assert_int_equal(cx_f32_to_f16(0x1p-25f), 0);
	assert_int_equal(cx_f32_to_f16(0x1.000002p-25f), 1);
	assert_int_equal(cx_f32_to_bf16(1.00390625f), 0x3f80); /* a tie, to even */
	for (int s = 0; s < 3; s++) {
		const cx_cpu_isa *isa = cx__cpu_isa_named(isa_names[s]);
		for (uint32_t h = 0; isa && h < 65536; h += 16)
			for (int bf = 0; bf < 2; bf++) {
				cx_dtype t = bf ? CX_BF16 : CX_F16;
				for (uint32_t i = 0; i < 16; i++) in[i] = (uint16_t)(h + i);
				assert_true(cx_dequant_row(t, in, want, 16));
				isa->to_f32(t, in, got, 16);
				assert_memory_equal(want, got, sizeof want);
				/* back, and with values next to the halfway points */
				for (int near_ = -1; near_ <= 1; near_++) {
					for (int i = 0; i < 16; i++) {
						uint32_t u = cx__f32_as_u32(want[i]);
						u += bf ? 0x8000 : 0x1000;
						want[i] = cx__u32_as_f32(u + (uint32_t)near_);
					}
					assert_true(cx_quant_row(t, want, plain, 16));
					isa->from_f32(t, want, out, 16);
					assert_memory_equal(plain, out, sizeof out);
					memset(out, 0, sizeof out);
					isa->from_f32(t, want, out, 5);
					assert_memory_equal(plain, out, 10);
					assert_int_equal(out[5], 0);
					assert_true(cx_dequant_row(t, in, want, 16));
				}
				assert_true(cx_quant_row(t, want, plain, 16));
				for (int i = 0; i < 16; i++)
					if (!isnan(want[i])) assert_int_equal(plain[i], in[i]);
			}
	}
}

/* llama.cpp's own dequantisation of real files: the same bits. */
static void test_real_files(void **state)
{
	static const char *const names[] = {"Q4_K_M", "Q5_K_M", "Q6_K"};
	int n_seen = 0;
	(void)state;
	for (int f = 0; f < 3; f++) {
		char a[96], b[96];
		cx_gguf *q = NULL, *d = NULL;
		const cx_tensor_list *l;
		const char *path;
		cx_err err = {0};
		snprintf(a, sizeof a, "llm/stories260K/stories260K-%s.gguf", names[f]);
		snprintf(b, sizeof b, "llm/stories260K/stories260K-%s.dequant_f32.gguf", names[f]);
		if (!(path = fixture(a)) || cx_gguf_open(NULL, path, &q, &err) != CX_OK) continue;
		assert_non_null(path = fixture(b));
		assert_int_equal(cx_gguf_open(NULL, path, &d, &err), CX_OK);
		l = cx_gguf_tensors(q);
		for (size_t i = 0; i < l->n; i++) {
			const cx_file_tensor *t = &l->at[i],
								 *w = cx_tensor_list_find(cx_gguf_tensors(d), t->name);
			int64_t n = 1;
			float *y;
			assert_non_null(w);
			assert_int_equal(w->dtype, CX_F32);
			for (int32_t r = 0; r < t->rank; r++) n *= t->dims[r];
			assert_int_equal(w->bytes, 4 * n);
			assert_non_null(y = malloc((size_t)n * 4));
			assert_true(cx_dequant_row(t->dtype, t->data, y, n));
			assert_memory_equal(y, w->data, (size_t)n * 4);
			free(y);
			n_seen++;
		}
		cx_gguf_close(q);
		cx_gguf_close(d);
	}
	print_message("%d tensors of real files\n", n_seen);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_spec_vectors),
		cmocka_unit_test(test_mxfp4_scales),
		cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_i8c),
		cmocka_unit_test(test_halves),
		cmocka_unit_test(test_real_files),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
