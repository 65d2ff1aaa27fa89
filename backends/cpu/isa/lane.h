/* lane.h - what the kernels of this folder share: rows of any float dtype as f32, and sums in the
 * one fixed order. */
#ifndef CX_CPU_LANE_H
#define CX_CPU_LANE_H

#include "backends/cpu/cpu.h"
#include "backends/cpu/isa/vec.h"

/* A kernel of kernels.def: CX_CPU_FN(cx_softmax_row_f32) { ... } */
#define CX_CPU_FN(name)                                                                            \
	void CX_ISA_NAME(name)(const cx_cpu_call *c, cx_cpu_team *t);                                  \
	void CX_ISA_NAME(name)(const cx_cpu_call *c, cx_cpu_team *t)

/* ---- single elements ---- */

CX_INLINE float cx_f16_get(uint16_t h)
{
	float f[16];
	v16_store(f, v16_load_f16_n(&h, 1));
	return f[0];
}
CX_INLINE float cx_bf16_get(uint16_t h)
{
	uint32_t u = (uint32_t)h << 16;
	float f;
	memcpy(&f, &u, sizeof f);
	return f;
}
/* Element i of a plain dtype as f32. */
CX_INLINE float cx_get_f32(const void *p, cx_dtype dtype, int64_t i)
{
	switch (dtype) {
	case CX_F32:
		return ((const float *)p)[i];
	case CX_F16:
		return cx_f16_get(((const uint16_t *)p)[i]);
	case CX_BF16:
		return cx_bf16_get(((const uint16_t *)p)[i]);
	case CX_I32:
		return (float)((const int32_t *)p)[i];
	case CX_I64:
		return (float)((const int64_t *)p)[i];
	case CX_I8:
		return ((const int8_t *)p)[i];
	default:
		return ((const uint8_t *)p)[i]; /* u8 and bool */
	}
}
/* Element i of an integer or bool dtype. */
CX_INLINE int64_t cx_get_i64(const void *p, cx_dtype dtype, int64_t i)
{
	switch (dtype) {
	case CX_I32:
		return ((const int32_t *)p)[i];
	case CX_I64:
		return ((const int64_t *)p)[i];
	case CX_I8:
		return ((const int8_t *)p)[i];
	case CX_BOOL:
		return ((const uint8_t *)p)[i] != 0;
	default:
		return ((const uint8_t *)p)[i];
	}
}
/* Wraps to the dtype; bool: v != 0; floats: nearest. */
CX_INLINE void cx_put_i64(void *p, cx_dtype dtype, int64_t i, int64_t v)
{
	switch (dtype) {
	case CX_I32:
		((int32_t *)p)[i] = (int32_t)(uint32_t)(uint64_t)v;
		break;
	case CX_I64:
		((int64_t *)p)[i] = v;
		break;
	case CX_BOOL:
		((uint8_t *)p)[i] = v != 0;
		break;
	case CX_F32:
		((float *)p)[i] = (float)v;
		break;
	case CX_F16:
		v16_store_f16_n((uint16_t *)p + i, v16_set1((float)v), 1);
		break;
	case CX_BF16:
		v16_store_bf16_n((uint16_t *)p + i, v16_set1((float)v), 1);
		break;
	default:
		((uint8_t *)p)[i] = (uint8_t)(uint64_t)v;
		break;
	}
}
/* Rounds to a float dtype. */
CX_INLINE void cx_put_f32(void *p, cx_dtype dtype, int64_t i, float v)
{
	v16_store_as(dtype, p, (size_t)i, v16_set1(v), 1);
}

/* To integer: truncated, saturated to the dtype's range, NaN gives 0. */
CX_INLINE int64_t cx_saturate_f64(cx_dtype t, double d)
{
	double lo = t == CX_U8 ? 0 : t == CX_I8 ? INT8_MIN : INT32_MIN;
	double hi = t == CX_U8 ? UINT8_MAX : t == CX_I8 ? INT8_MAX : INT32_MAX;
	if (d != d) return 0;
	if (t == CX_I64) {
		if (d >= 9223372036854775808.0) return INT64_MAX;
		return d <= -9223372036854775808.0 ? INT64_MIN : (int64_t)d;
	}
	d = d < lo ? lo : d > hi ? hi : d;
	return (int64_t)d;
}
CX_INLINE int64_t cx_saturate_f32(cx_dtype t, float v)
{
	return cx_saturate_f64(t, v);
}
/* Rounds a double to a float dtype once: for the 16-bit types through an f32 rounded to odd, which
 * keeps the ties. */
CX_INLINE void cx_put_f64(void *p, cx_dtype dtype, int64_t i, double v)
{
	float f = (float)v;
	uint32_t u;
	if (dtype != CX_F32 && f == f && fabsf(f) < INFINITY && (double)f != v) {
		memcpy(&u, &f, sizeof u);
		if (fabs((double)f) > fabs(v))
			u--; /* towards zero, then odd: never a tie of the narrower type */
		u |= 1;
		memcpy(&f, &u, sizeof f);
	}
	cx_put_f32(p, dtype, i, f);
}

/* Rounded to a float dtype and back. */
CX_INLINE v16 cx_round_as(cx_dtype dtype, v16 v)
{
	uint16_t h[16];
	if (dtype == CX_F16) {
		v16_store_f16(h, v);
		return v16_load_f16(h);
	}
	if (dtype == CX_BF16) {
		v16_store_bf16(h, v);
		return v16_load_bf16(h);
	}
	return v;
}

/* ---- rows ---- */

/* cx_row_load.c's: n elements of a float dtype, `stride` apart, widened into buf; or, when they
 * already are f32 next to each other, their own address. p is the first one's address. */
const float *CX_ISA_NAME(cx__row_load)(
	float *buf, const void *p, cx_dtype dtype, int64_t stride, int64_t n);
/* Narrows y into n elements `stride` apart; y may be their own address (then nothing is done). */
void CX_ISA_NAME(cx__row_store)(void *p, cx_dtype dtype, int64_t stride, const float *y, int64_t n);
#define cx_row_load CX_ISA_NAME(cx__row_load)
#define cx_row_store CX_ISA_NAME(cx__row_store)

/* Bytes of an f32 operand or of scratch, which are aligned for it. */
CX_INLINE float *cx_f32(void *p) { return p; }
/* Where to compute a row that will be stored at p: in place if it is f32 and contiguous, else in
 * buf. */
CX_INLINE float *cx_row_target(float *buf, void *p, cx_dtype dtype, int64_t stride)
{
	return dtype == CX_F32 && stride == 1 ? (float *)p : buf;
}
/* Address of element `off` of an operand. */
CX_INLINE char *cx_at_off(const cx_cpu_arg *a, int64_t off)
{
	return a->p + off * cx_cpu_size(a->d.dtype);
}
/* Rows of buffers in scratch begin on cache lines: n f32 rounded up. */
CX_INLINE int64_t cx_pad16(int64_t n)
{
	return (n + 15) & ~(int64_t)15;
}

/* ---- sums ---- */

/* Sum of x - m. */
CX_INLINE float cx_sum_f32(const float *x, int64_t n, float m)
{
	v16 s = v16_zero(), vm = v16_set1(m);
	int64_t i = 0;
	for (; i + 16 <= n; i += 16) s = v16_add(s, v16_sub(v16_load(x + i), vm));
	if (i < n) {
		float tail[16];
		for (int j = 0; j < 16; j++) tail[j] = m;
		memcpy(tail, x + i, (size_t)(n - i) * sizeof *x);
		s = v16_add(s, v16_sub(v16_load(tail), vm)); /* lanes past the end are m - m */
	}
	return v16_sum(s);
}
/* Sum of (x - m)^2. */
CX_INLINE float cx_sumsq_f32(const float *x, int64_t n, float m)
{
	v16 s = v16_zero(), vm = v16_set1(m), d;
	int64_t i = 0;
	for (; i + 16 <= n; i += 16) {
		d = v16_sub(v16_load(x + i), vm);
		s = v16_fma(d, d, s);
	}
	if (i < n) {
		float tail[16];
		for (int j = 0; j < 16; j++) tail[j] = m;
		memcpy(tail, x + i, (size_t)(n - i) * sizeof *x);
		d = v16_sub(v16_load(tail),
			vm); /* lanes past the end are m - m: 0 for a finite m, and NaN already else */
		s = v16_fma(d, d, s);
	}
	return v16_sum(s);
}
/* Maximum, NaN if any element is; -inf when n == 0. */
CX_INLINE float cx_max_f32(const float *x, int64_t n)
{
	v16 m = v16_set1(-INFINITY);
	float l[16], r;
	int64_t i = 0;
	for (; i + 16 <= n; i += 16) m = v16_max_nan(m, v16_load(x + i));
	if (i < n) {
		for (int j = 0; j < 16; j++) l[j] = -INFINITY;
		memcpy(l, x + i, (size_t)(n - i) * sizeof *x);
		m = v16_max_nan(m, v16_load(l));
	}
	v16_store(l, m);
	r = l[0];
	for (int j = 1; j < 16; j++) r = r > l[j] || r != r ? r : l[j];
	return r;
}
/* Dot product of n elements, lanes by k mod 16. */
CX_INLINE float cx_dot_f32(const float *a, const float *b, int64_t n)
{
	v16 s = v16_zero();
	int64_t i = 0;
	for (; i + 16 <= n; i += 16) s = v16_fma(v16_load(a + i), v16_load(b + i), s);
	if (i < n)
		s = v16_fma(v16_load_n(a + i, (size_t)(n - i)), v16_load_n(b + i, (size_t)(n - i)), s);
	return v16_sum(s);
}

#endif
