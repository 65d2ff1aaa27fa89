/* elem.c - single elements of every dtype, and walks over strided index spaces. See ref.h. */
#include "backends/ref/ref.h"

#include "graph/quant.h"

#include <math.h>
#include <string.h>

/* ---- 16-bit floats, by their definition: value = mantissa * quantum ---- */

static double f16_value(uint16_t h)
{
	int e = h >> 10 & 31, m = h & 1023;
	double v;
	if (e == 31) v = m ? NAN : INFINITY;
	else v = e ? ldexp(1024 + m, e - 25) : ldexp(m, -24);
	return h >> 15 ? -v : v;
}

static uint16_t f16_bits(double v)
{
	uint16_t sign = signbit(v) ? 0x8000 : 0;
	double a = fabs(v);
	int e;
	if (isnan(v)) return sign | 0x7e00;
	if (a >= 65520.0)
		return sign | 0x7c00; /* half way between the largest finite and 2^16 goes up */
	if (a < ldexp(1, -14))
		return sign | (uint16_t)rint(ldexp(a, 24)); /* 1024 carries into the exponent */
	frexp(a, &e);                                   /* a = f * 2^e, f in [1/2, 1) */
	return sign | (uint16_t)(((e + 13) << 10) + (int)rint(ldexp(a, 11 - e)));
}

static uint32_t f32_bits(float f)
{
	uint32_t b;
	memcpy(&b, &f, 4);
	return b;
}

static double bf16_value(uint16_t h)
{
	uint32_t b = (uint32_t)h << 16;
	float f;
	memcpy(&f, &b, 4);
	return f;
}

static uint16_t bf16_bits(double v)
{
	float f = (float)v; /* for the exponent; the mantissa is rounded from v, once */
	double a = fabs(v), q;
	int e;
	if (isnan(v)) return (uint16_t)(f32_bits(f) >> 16 | 0x40);
	if (isinf(v)) return (uint16_t)(f32_bits(f) >> 16);
	frexp(a, &e);
	q = ldexp(
		1, e - 8 < -133 ? -133 : e - 8);     /* 8 significant bits; 2^-133 is the subnormal step */
	f = (float)copysign(rint(a / q) * q, v); /* exact, or overflows to infinity as it should */
	return (uint16_t)(f32_bits(f) >> 16);
}

/* ---- elements ---- */

static double block_value(const cx__ref_arg *a, int64_t off)
{
	const cx_dtype_info *info = cx_dtype_get(a->d.dtype);
	float v[256];
	int64_t n = a->d.dim[a->d.rank - 1], b = info->block_elems;
	if (a->d.dtype == CX_I8C) {
		float s = cx_i8c_scale(a->p, cx__desc_elems(&a->d) / n, n, off / n);
		return (float)((int8_t)a->p[off] * s);
	}
	cx_dequant_row(a->d.dtype, a->p + off / b * info->block_bytes, v, b);
	return v[off % b];
}

double cx__elem_get(const cx__ref_arg *a, int64_t off)
{
	float f;
	uint16_t h;
	switch (a->d.dtype) {
	case CX_F32:
		memcpy(&f, a->p + off * (int64_t)sizeof f, sizeof f);
		return f;
	case CX_F16:
		memcpy(&h, a->p + off * 2, 2);
		return f16_value(h);
	case CX_BF16:
		memcpy(&h, a->p + off * 2, 2);
		return bf16_value(h);
	case CX_I32:
	case CX_I64:
	case CX_U8:
	case CX_I8:
	case CX_BOOL:
		return (double)cx__elem_int(a, off);
	default:
		return block_value(a, off);
	}
}

int64_t cx__elem_int(const cx__ref_arg *a, int64_t off)
{
	int32_t i;
	int64_t l;
	switch (a->d.dtype) {
	case CX_I32:
		memcpy(&i, a->p + off * 4, 4);
		return i;
	case CX_I64:
		memcpy(&l, a->p + off * 8, 8);
		return l;
	case CX_I8:
		return (int8_t)a->p[off];
	case CX_U8:
		return a->p[off];
	case CX_BOOL:
		return a->p[off] != 0;
	default:
		CX_ASSERT(!"an integer operand");
		return 0;
	}
}

int64_t cx__elem_saturate(cx_dtype t, double v)
{
	double lo,
		hi; /* every integer type's range is [-2^n, 2^n - 1] or [0, 2^n - 1]; compare with 2^n */
	if (isnan(v)) return 0;
	v = trunc(v);
	switch (t) {
	case CX_I64:
		if (v >= 9223372036854775808.0) return INT64_MAX;
		return v <= -9223372036854775808.0 ? INT64_MIN : (int64_t)v;
	case CX_I32:
		lo = INT32_MIN, hi = INT32_MAX;
		break;
	case CX_I8:
		lo = INT8_MIN, hi = INT8_MAX;
		break;
	case CX_U8:
		lo = 0, hi = UINT8_MAX;
		break;
	default:
		CX_ASSERT(!"an integer dtype");
		return 0;
	}
	return (int64_t)(v < lo ? lo : v > hi ? hi : v);
}

void cx__elem_put(const cx__ref_arg *a, int64_t off, double v)
{
	float f = (float)v;
	uint16_t h;
	switch (a->d.dtype) {
	case CX_F32:
		memcpy(a->p + off * (int64_t)sizeof f, &f, sizeof f);
		break;
	case CX_F16:
		h = f16_bits(v);
		memcpy(a->p + off * 2, &h, 2);
		break;
	case CX_BF16:
		h = bf16_bits(v);
		memcpy(a->p + off * 2, &h, 2);
		break;
	case CX_BOOL:
		a->p[off] = v != 0;
		break;
	default:
		cx__elem_put_int(a, off, cx__elem_saturate(a->d.dtype, v));
	}
}

void cx__elem_put_int(const cx__ref_arg *a, int64_t off, cx__ref_int v)
{
	uint64_t u = (uint64_t)v; /* modulo 2^64 */
	uint32_t u32 = (uint32_t)u;
	float f;
	switch (a->d.dtype) {
	case CX_I32:
		memcpy(a->p + off * 4, &u32, 4);
		break;
	case CX_I64:
		memcpy(a->p + off * 8, &u, 8);
		break;
	case CX_I8:
	case CX_U8:
		a->p[off] = (unsigned char)u;
		break;
	case CX_BOOL:
		a->p[off] = v != 0;
		break;
	case CX_F32: /* straight from the integer: through double an i64 would round twice */
		f = (float)(int64_t)u;
		memcpy(a->p + off * (int64_t)sizeof f, &f, sizeof f);
		break;
	default: /* the 16-bit types are narrowed from the f32 register, as elementwise results are */
		cx__elem_put(a, off, (float)(int64_t)u);
	}
}

double cx__elem_round(cx_dtype t, double v)
{
	switch (t) {
	case CX_F16:
		return f16_value(f16_bits(v));
	case CX_BF16:
		return bf16_value(bf16_bits(v));
	default:
		return (float)v;
	}
}

void cx__elem_row(const cx__ref_arg *a, int64_t off, int64_t stride, int64_t n, double *dst)
{
	float f;
	if (a->d.dtype == CX_F32) {
		for (int64_t i = 0; i < n; i++) {
			memcpy(&f, a->p + (off + i * stride) * (int64_t)sizeof f, sizeof f);
			dst[i] = f;
		}
		return;
	}
	for (int64_t i = 0; i < n; i++) dst[i] = cx__elem_get(a, off + i * stride);
}

void cx__elem_move(const cx__ref_arg *dst, int64_t dst_off, const cx__ref_arg *src, int64_t src_off)
{
	if (cx_dtype_get(src->d.dtype)->cls == CX_CLASS_INT || src->d.dtype == CX_BOOL)
		cx__elem_put_int(dst, dst_off, cx__elem_int(src, src_off));
	else cx__elem_put(dst, dst_off, cx__elem_get(src, src_off));
}

/* ---- walks ---- */

bool cx__walk_init(cx__ref_walk *w, int32_t rank, const int64_t *dim)
{
	bool some = true;
	memset(w, 0, sizeof *w);
	w->rank = rank;
	for (int32_t i = 0; i < rank; i++) {
		w->dim[i] = dim[i];
		if (dim[i] == 0) some = false;
	}
	return some;
}

void cx__walk_add(cx__ref_walk *w, const cx_desc *d)
{
	int32_t shift = w->rank - d->rank;
	CX_ASSERT(w->n < CX__REF_WALK && shift >= 0);
	for (int32_t i = 0; i < d->rank; i++)
		w->stride[w->n][shift + i] = d->dim[i] == 1 ? 0 : d->stride[i];
	w->n++;
}

bool cx__walk_next(cx__ref_walk *w)
{
	for (int32_t i = w->rank - 1; i >= 0; i--) {
		for (int32_t j = 0; j < w->n; j++) w->off[j] += w->stride[j][i];
		if (++w->at[i] < w->dim[i]) return true;
		for (int32_t j = 0; j < w->n; j++) w->off[j] -= w->stride[j][i] * w->dim[i];
		w->at[i] = 0;
	}
	return false;
}

int64_t cx__elem_offset(const cx_desc *d, int64_t i)
{
	int64_t off = 0;
	for (int32_t k = d->rank - 1; k >= 0; k--) {
		off += i % d->dim[k] * d->stride[k];
		i /= d->dim[k];
	}
	return off;
}
