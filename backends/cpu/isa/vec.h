/* vec.h - 16 f32 lanes, written once for every instruction set: what all CPU kernels are built on.
 *
 * v16   16 f32       v16i   16 int32       v16m   16 truth values       vb   64 bytes (four groups
 * of 16)
 *
 * Every operation gives the same bits with every implementation (AVX-512, AVX2 + FMA + F16C, plain
 * vectors), NaN payloads aside: fma rounds once, min/max return the second operand when either is
 * NaN or both are zero, conversions round to nearest even, subnormals are kept. Sums across lanes
 * use one fixed tree: l[j]+l[j+8], then +4, +2, +1. A file in this folder is compiled once per
 * instruction set and chosen at run time; CX_ISA_NAME(f) is f's name there. */
#ifndef CX_CPU_VEC_H
#define CX_CPU_VEC_H

#include "graph/quant.h"

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define CX_ISA_CAT2(a, b) a##_##b
#define CX_ISA_CAT(a, b) CX_ISA_CAT2(a, b)
#define CX_ISA_NAME(f) CX_ISA_CAT(f, CX_ISA)

#if defined(CX_ISA_avx512) || defined(CX_ISA_avx2)
#define CX_INLINE static inline __attribute__((always_inline, unused))
#if defined(__clang__)
#define CX_UNROLL _Pragma("clang loop unroll(full)")
#else
#define CX_UNROLL _Pragma("GCC unroll 16")
#endif
#else
/* Plain code is the fallback: forced into one another and unrolled, its loops over lanes become
 * megabytes that take minutes to compile. */
#define CX_INLINE static inline __attribute__((unused))
#define CX_UNROLL
#endif

#if defined(CX_ISA_avx512)
#include "backends/cpu/isa/vec_avx512.h"
#elif defined(CX_ISA_avx2)
#include "backends/cpu/isa/vec_avx2.h"
#else
#include "backends/cpu/isa/vec_generic.h"
#endif

/* ---- the same for all ---- */

CX_INLINE v16 v16_zero(void)
{
	return v16_set1(0.0f);
}
CX_INLINE v16 v16_bits(uint32_t u)
{
	return v16i_as_v16(v16i_set1((int32_t)u));
}
CX_INLINE v16 v16_neg(v16 a)
{
	return v16i_as_v16(v16i_xor(v16_as_v16i(a), v16i_set1(INT32_MIN)));
}
CX_INLINE v16 v16_abs(v16 a)
{
	return v16i_as_v16(v16i_and(v16_as_v16i(a), v16i_set1(INT32_MAX)));
}
/* Magnitude of a, sign of b. */
CX_INLINE v16 v16_copysign(v16 a, v16 b)
{
	v16i s = v16i_and(v16_as_v16i(b), v16i_set1(INT32_MIN));
	return v16i_as_v16(v16i_or(v16_as_v16i(v16_abs(a)), s));
}
CX_INLINE v16m v16_gt(v16 a, v16 b)
{
	return v16_lt(b, a);
}
CX_INLINE v16m v16_ge(v16 a, v16 b)
{
	return v16_le(b, a);
}
CX_INLINE v16m v16_isnan(v16 a)
{
	return v16m_not(v16_eq(a, a));
}
/* min and max that give NaN when either operand is NaN. */
CX_INLINE v16 v16_max_nan(v16 a, v16 b)
{
	return v16_select(v16_isnan(a), a, v16_max(a, b));
}
CX_INLINE v16 v16_min_nan(v16 a, v16 b)
{
	return v16_select(v16_isnan(a), a, v16_min(a, b));
}

/* bf16 <-> f32, 16 at a time. A NaN stays a NaN (made quiet). */
CX_INLINE v16 v16_load_bf16(const uint16_t *p)
{
	return v16i_as_v16(v16i_sll(v16i_load_u16(p), 16));
}
CX_INLINE void v16_store_bf16(uint16_t *p, v16 x)
{
	v16i u = v16_as_v16i(x), lsb = v16i_and(v16i_srl(u, 16), v16i_set1(1));
	v16i r = v16i_srl(v16i_add(v16i_add(u, lsb), v16i_set1(0x7fff)), 16);
	v16i q = v16i_or(v16i_srl(u, 16), v16i_set1(0x40));
	v16i_store_u16(p, v16_as_v16i(v16_select(v16_isnan(x), v16i_as_v16(q), v16i_as_v16(r))));
}

/* The first n of 16 lanes, 0 <= n <= 16; the others read as +0 and are not touched in memory. */
CX_INLINE v16 v16_load_f16_n(const uint16_t *p, size_t n)
{
	uint16_t t[16] = {0};
	memcpy(t, p, n * sizeof *t);
	return v16_load_f16(t);
}
CX_INLINE v16 v16_load_bf16_n(const uint16_t *p, size_t n)
{
	uint16_t t[16] = {0};
	memcpy(t, p, n * sizeof *t);
	return v16_load_bf16(t);
}
CX_INLINE void v16_store_f16_n(uint16_t *p, v16 x, size_t n)
{
	uint16_t t[16];
	v16_store_f16(t, x);
	memcpy(p, t, n * sizeof *t);
}
CX_INLINE void v16_store_bf16_n(uint16_t *p, v16 x, size_t n)
{
	uint16_t t[16];
	v16_store_bf16(t, x);
	memcpy(p, t, n * sizeof *t);
}

/* 16 elements of a float type at element i of base, n <= 16 of them valid. dtype is a constant in
 * every caller. */
CX_INLINE v16 v16_load_as(cx_dtype dtype, const void *base, size_t i, size_t n)
{
	if (dtype == CX_F32)
		return n >= 16 ? v16_load((const float *)base + i) : v16_load_n((const float *)base + i, n);
	if (dtype == CX_F16)
		return n >= 16 ? v16_load_f16((const uint16_t *)base + i)
					   : v16_load_f16_n((const uint16_t *)base + i, n);
	return n >= 16 ? v16_load_bf16((const uint16_t *)base + i)
				   : v16_load_bf16_n((const uint16_t *)base + i, n);
}
CX_INLINE void v16_store_as(cx_dtype dtype, void *base, size_t i, v16 x, size_t n)
{
	if (dtype == CX_F32) v16_store_n((float *)base + i, x, n);
	else if (dtype == CX_F16) v16_store_f16_n((uint16_t *)base + i, x, n);
	else v16_store_bf16_n((uint16_t *)base + i, x, n);
}

/* Bytes: x >> n within each byte, n constant 0..7. */
CX_INLINE vb vb_shr(vb x, int n)
{
	return vb_and(vb_srl4(x, n, n, n, n), vb_set1((uint8_t)(0xff >> n)));
}

#endif
