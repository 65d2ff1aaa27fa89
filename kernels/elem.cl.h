/* elem.cl.h - single elements of every plain dtype, offsets of strided tensors, the elementwise
 * functions, sums over a group. Meaning: backends/ref/elem.c and map.c. */
#ifndef CX_ELEM_CL_H
#define CX_ELEM_CL_H

#include "kernels/dialect.h"

/* ---- 16-bit floats: to nearest even; subnormals, infinities and NaN are kept ---- */

CX_FN float cx_half_value(cx_u32 h)
{
	cx_u32 sign = (h & 0x8000u) << 16, a = h & 0x7fffu;
	if (a >= 0x7c00u) return cx_bits_f32(sign | 0x7f800000u | (a & 0x3ffu) << 13);
	if (a < 0x400u)
		return cx_bits_f32(sign | cx_f32_bits((float)a * 5.9604644775390625e-8f)); /* 2^-24 */
	return cx_bits_f32(sign | ((a << 13) + (112u << 23)));
}

CX_FN cx_u32 cx_half_bits(float f)
{
	cx_u32 u = cx_f32_bits(f), sign = u >> 16 & 0x8000u, a = u & 0x7fffffffu;
	if (a > 0x7f800000u) return sign | 0x7e00u;
	if (a >= 0x47800000u) return sign | 0x7c00u; /* 65536 and above */
	if (a < 0x38800000u) return sign | (cx_f32_bits(cx_bits_f32(a) + 0.5f) - 0x3f000000u);
	a += 0xfffu + (a >> 13 & 1u); /* may carry up to infinity, as it should */
	return sign | ((a >> 13) - (112u << 10));
}

CX_FN float cx_bf16_value(cx_u32 h)
{
	return cx_bits_f32(h << 16);
}

CX_FN cx_u32 cx_bf16_bits(float f)
{
	cx_u32 u = cx_f32_bits(f);
	if ((u & 0x7fffffffu) > 0x7f800000u) return u >> 16 | 0x40u;
	return (u + 0x7fffu + (u >> 16 & 1u)) >> 16;
}

/* v as it reads back from this float dtype. */
CX_FN float cx_round_to(cx_u32 dt, float v)
{
	if (dt == CX_F16) return cx_half_value(cx_half_bits(v));
	if (dt == CX_BF16) return cx_bf16_value(cx_bf16_bits(v));
	return v;
}

CX_FN int cx_is_float(cx_u32 dt)
{
	return dt <= CX_BF16;
}

/* ---- loads and stores; o counts elements ---- */

CX_FN cx_i64 cx_load_i(CX_GLOBAL const cx_u8 *b, cx_u32 dt, cx_u32 o)
{
	if (dt == CX_I32) return ((CX_GLOBAL const cx_i32 *)b)[o];
	if (dt == CX_I64) return ((CX_GLOBAL const cx_i64 *)b)[o];
	if (dt == CX_I8) return ((CX_GLOBAL const cx_i8 *)b)[o];
	if (dt == CX_U8) return b[o];
	return b[o] != 0;
}

CX_FN float cx_load_f(CX_GLOBAL const cx_u8 *b, cx_u32 dt, cx_u32 o)
{
	if (dt == CX_F32) return ((CX_GLOBAL const float *)b)[o];
	if (dt == CX_F16) return cx_half_value(((CX_GLOBAL const cx_u16 *)b)[o]);
	if (dt == CX_BF16) return cx_bf16_value(((CX_GLOBAL const cx_u16 *)b)[o]);
	return (float)cx_load_i(b, dt, o);
}

/* Truncated and saturated to the dtype's range; NaN gives 0. */
CX_FN cx_i64 cx_saturate(cx_u32 dt, cx_acc v)
{
	cx_i64 lo = 0, hi = 255;
	if (v != v) return 0;
	if (dt == CX_I64) {
		if (v >= (cx_acc)9223372036854775808.0f) return 0x7fffffffffffffff;
		return v <= (cx_acc)-9223372036854775808.0f ? -0x7fffffffffffffff - 1 : (cx_i64)v;
	}
	if (dt == CX_I32) {
		lo = -2147483647 - 1;
		hi = 2147483647;
	} else if (dt == CX_I8) {
		lo = -128;
		hi = 127;
	}
	/* the bounds are powers of two, or one less: compare so that rounding them up to a float does
	 * no harm */
	if (v >= (cx_acc)(hi + 1)) return hi;
	return v <= (cx_acc)lo ? lo : (cx_i64)v;
}

/* To the dtype modulo 2^bits. */
CX_FN cx_i64 cx_wrap(cx_u32 dt, cx_i64 v)
{
	if (dt == CX_I32) return (cx_i32)v;
	if (dt == CX_I8) return (cx_i8)v;
	if (dt == CX_U8) return (cx_u8)v;
	if (dt == CX_BOOL) return v != 0;
	return v;
}

CX_FN void cx_store_i(CX_GLOBAL cx_u8 *b, cx_u32 dt, cx_u32 o, cx_i64 v)
{
	if (dt == CX_F32) ((CX_GLOBAL float *)b)[o] = (float)v;
	else if (dt == CX_F16) ((CX_GLOBAL cx_u16 *)b)[o] = (cx_u16)cx_half_bits((float)v);
	else if (dt == CX_BF16) ((CX_GLOBAL cx_u16 *)b)[o] = (cx_u16)cx_bf16_bits((float)v);
	else if (dt == CX_I32) ((CX_GLOBAL cx_i32 *)b)[o] = (cx_i32)v;
	else if (dt == CX_I64) ((CX_GLOBAL cx_i64 *)b)[o] = v;
	else if (dt == CX_BOOL) b[o] = v != 0;
	else b[o] = (cx_u8)v;
}

/* Rounds to a float dtype; saturates to an integer one. */
CX_FN void cx_store_f(CX_GLOBAL cx_u8 *b, cx_u32 dt, cx_u32 o, float v)
{
	if (dt == CX_F32) ((CX_GLOBAL float *)b)[o] = v;
	else if (dt == CX_F16) ((CX_GLOBAL cx_u16 *)b)[o] = (cx_u16)cx_half_bits(v);
	else if (dt == CX_BF16) ((CX_GLOBAL cx_u16 *)b)[o] = (cx_u16)cx_bf16_bits(v);
	else if (dt == CX_BOOL) b[o] = v != 0.0f;
	else cx_store_i(b, dt, o, cx_saturate(dt, v));
}

CX_FN void cx_store_acc(CX_GLOBAL cx_u8 *b, cx_u32 dt, cx_u32 o, cx_acc v)
{
	if (dt <= CX_BF16) cx_store_f(b, dt, o, (float)v);
	else if (dt == CX_BOOL) b[o] = v != (cx_acc)0;
	else cx_store_i(b, dt, o, cx_saturate(dt, v));
}

/* An element of any plain dtype to any, as the op `cast` says. */
CX_FN void cx_move(
	CX_GLOBAL cx_u8 *d, cx_u32 dt, cx_u32 to, CX_GLOBAL const cx_u8 *s, cx_u32 st, cx_u32 from)
{
	if (st <= CX_BF16) cx_store_f(d, dt, to, cx_load_f(s, st, from));
	else cx_store_i(d, dt, to, cx_load_i(s, st, from));
}

/* ---- offsets ---- */

/* Offset of row-major index i; the axes may be any that t has, so a tensor of few axes costs few
 * divisions. */
CX_FN cx_u32 cx_at(CX_PQ const struct cx_ktensor *t, cx_u32 i)
{
	cx_u32 o = t->off;
	for (int d = CX_K_RANK - 1; d >= 0; d--) {
		cx_u32 n = t->dim[d];
		if (i < n || d == 0) return o + i * t->stride[d];
		o += i % n * t->stride[d];
		i /= n;
	}
	return o;
}

/* ---- elementwise functions: graph/scalar.def ---- */

CX_FN cx_i64 cx_idiv(cx_i64 a, cx_i64 b)
{
	if (b == 0) return 0;
	return b == -1 ? (cx_i64)(0 - (cx_u64)a) : a / b;
}
#define CX_IDIV(a, b) cx_idiv(a, b)
#define CX_NOINT 0

#define CX_MAP1(name, fexpr, iexpr)                                                                \
	CX_FN float cx_f_##name(float x)                                                               \
	{                                                                                              \
		return fexpr;                                                                              \
	}                                                                                              \
	CX_FN cx_i64 cx_i_##name(cx_i64 x)                                                             \
	{                                                                                              \
		return iexpr;                                                                              \
	}
#define CX_MAP1P(name, fexpr, iexpr)                                                               \
	CX_FN float cx_f_##name(float x, float p, float q)                                             \
	{                                                                                              \
		return fexpr;                                                                              \
	}                                                                                              \
	CX_FN cx_i64 cx_i_##name(cx_i64 x, cx_i64 p, cx_i64 q)                                         \
	{                                                                                              \
		return iexpr;                                                                              \
	}
#define CX_MAP2(name, fexpr, iexpr)                                                                \
	CX_FN float cx_f_##name(float a, float b)                                                      \
	{                                                                                              \
		return fexpr;                                                                              \
	}                                                                                              \
	CX_FN cx_i64 cx_i_##name(cx_i64 a, cx_i64 b)                                                   \
	{                                                                                              \
		return iexpr;                                                                              \
	}
#include "graph/scalar.def"
#undef CX_MAP1
#undef CX_MAP1P
#undef CX_MAP2

/* ---- sums over a group of CX_ROW_ITEMS: always the same tree ---- */

CX_FN cx_acc cx_group_sum(CX_LOCAL cx_acc *s, cx_acc v)
{
	cx_u32 l = CX_LOCAL_ID();
	s[l] = v;
	CX_BARRIER();
	for (cx_u32 w = CX_ROW_ITEMS / 2; w > 0; w >>= 1) {
		if (l < w) s[l] += s[l + w];
		CX_BARRIER();
	}
	v = s[0];
	CX_BARRIER(); /* before s is used again */
	return v;
}

/* NaN if either is. */
CX_FN float cx_max_nan(float a, float b)
{
	return a != a || b < a ? a : b;
}

CX_FN float cx_group_max(CX_LOCAL cx_acc *s, float v)
{
	cx_u32 l = CX_LOCAL_ID();
	s[l] = v;
	CX_BARRIER();
	for (cx_u32 w = CX_ROW_ITEMS / 2; w > 0; w >>= 1) {
		if (l < w) s[l] = cx_max_nan((float)s[l], (float)s[l + w]);
		CX_BARRIER();
	}
	v = (float)s[0];
	CX_BARRIER();
	return v;
}

#endif
