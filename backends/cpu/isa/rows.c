/* rows.c - rows of elements: conversions, quantised activations, and the elementwise ends of a
 * matmul. */
#include "backends/cpu/isa/kernels.h"
#include "backends/cpu/isa/vmath.h"

CX_INLINE void convert_to(cx_dtype t, const void *src, float *dst, size_t n)
{
	for (size_t i = 0; i < n; i += 16)
		v16_store_n(dst + i, v16_load_as(t, src, i, n - i), n - i < 16 ? n - i : 16);
}
void CX_ISA_NAME(cx__to_f32)(cx_dtype dtype, const void *src, float *dst, size_t n)
{
	if (dtype == CX_F32) memmove(dst, src, n * sizeof *dst);
	else if (dtype == CX_F16) convert_to(CX_F16, src, dst, n);
	else if (dtype == CX_BF16) convert_to(CX_BF16, src, dst, n);
	else CX_ASSERT(cx_dequant_row(dtype, src, dst, (int64_t)n));
}
void CX_ISA_NAME(cx__from_f32)(cx_dtype dtype, const float *src, void *dst, size_t n)
{
	if (dtype == CX_F32) {
		memmove(dst, src, n * sizeof *src);
		return;
	}
	for (size_t i = 0; i < n; i += 16) {
		size_t c = n - i < 16 ? n - i : 16;
		v16 x = v16_load_n(src + i, c);
		if (c == 16 && dtype == CX_F16) v16_store_f16((uint16_t *)dst + i, x);
		else if (c == 16) v16_store_bf16((uint16_t *)dst + i, x);
		else v16_store_as(dtype, dst, i, x, c);
	}
}

#define ROW2(name, f)                                                                              \
	void CX_ISA_NAME(name)(float *x, const float *y, size_t n)                                     \
	{                                                                                              \
		for (size_t i = 0; i < n; i += 16) {                                                       \
			size_t c = n - i < 16 ? n - i : 16;                                                    \
			v16_store_n(x + i, f(v16_load_n(x + i, c), v16_load_n(y + i, c)), c);                  \
		}                                                                                          \
	}
ROW2(cx__row_add, v16_add)
ROW2(cx__row_mul, v16_mul)

#define ROW1(f)                                                                                    \
	void CX_ISA_NAME(cx__row_##f)(float *x, size_t n)                                              \
	{                                                                                              \
		for (size_t i = 0; i < n; i += 16) {                                                       \
			size_t c = n - i < 16 ? n - i : 16;                                                    \
			v16_store_n(x + i, v16_##f(v16_load_n(x + i, c)), c);                                  \
		}                                                                                          \
	}
CX_CPU_ROW1(ROW1)

/* ---- activations to integers ---- */

/* 16 integers of half `hi` of block i. */
CX_INLINE void put_half(cx__qact *o, int i, int hi, v16i q, bool bytes)
{
	if (bytes) { /* q = 256 * upper + lower, both signed bytes */
		v16i_store_i8(&o->q.b8[hi][16 * i], v16i_sra(v16i_add(q, v16i_set1(128)), 8));
		v16i_store_i8(&o->q.b8[2 + hi][16 * i], q);
	} else v16i_store_pairs(&o->q.w16[2 * hi][8 * i], &o->q.w16[2 * hi + 1][8 * i], q);
	v16i_sum_groups((hi ? o->sum_hi : o->sum_lo) + 4 * i, q);
}

void CX_ISA_NAME(cx__quant_act)(const float *x, size_t k, cx__qact *out, bool bytes)
{
	for (size_t b = 0; b < (k + CX__QCHUNK - 1) / CX__QCHUNK * 4; b++) {
		cx__qact *o = out + b / 4;
		size_t n = b * 32 < k ? k - b * 32 : 0;
		v16 lo = v16_load_n(x + b * 32, n < 16 ? n : 16),
			hi = v16_load_n(x + b * 32 + 16, n > 32   ? 16
											 : n > 16 ? n - 16
													  : 0);
		v16 a = v16_abs(lo), c = v16_abs(hi), inf = v16_set1(INFINITY);
		float m, d = 0.0f, inv = 0.0f;
		int i = (int)(b % 4);
		if (v16m_any(v16m_not(v16m_and(v16_lt(a, inf), v16_lt(c, inf))))) {
			d = NAN;
			lo = hi = v16_zero();
		} else if ((m = v16_hmax(v16_max(a, c))) >= 0x1p-111f) {
			d = m * (1.0f / 32639.0f);
			inv = 32639.0f / m;
		}
		put_half(o, i, 0, v16_to_i(v16_mul(lo, v16_set1(inv))), bytes);
		put_half(o, i, 1, v16_to_i(v16_mul(hi, v16_set1(inv))), bytes);
		for (int j = 4 * i; j < 4 * i + 4; j++) {
			o->d[j] = d;
			o->dsum[j] = d * (float)(o->sum_lo[j] + o->sum_hi[j]);
		}
	}
}
