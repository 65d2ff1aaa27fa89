/* quant.h - 16-bit floats and the quantised block formats of spec/llm.md 3.5, in plain C: the
 * reference for all kernels.
 *
 * Dequantising is exact: products and sums are f32, in the order (d * scale) * q - (dmin * min),
 * one rounding each, which is also what the makers of these files compute. Quantising is round to
 * nearest with one pass over each group; it gives usable weights, not the best possible ones. Bytes
 * are little-endian on every machine. */
#ifndef CX_QUANT_H
#define CX_QUANT_H

#include "graph/cx.h"

#include <string.h>

/* ---- 16-bit floats: nearest even; infinities, subnormals and NaN (made quiet) are kept ---- */

static inline float cx__u32_as_f32(uint32_t u)
{
	float f;
	memcpy(&f, &u, sizeof f);
	return f;
}
static inline uint32_t cx__f32_as_u32(float f)
{
	uint32_t u;
	memcpy(&u, &f, sizeof u);
	return u;
}

static inline float cx_f16_to_f32(uint16_t h)
{
	uint32_t sign = (uint32_t)(h & 0x8000) << 16, e = h >> 10 & 31, m = h & 0x3ff;
	if (e == 31) return cx__u32_as_f32(sign | 0x7f800000u | m << 13 | (m ? 0x400000u : 0));
	if (e == 0) { /* m * 2^-24, exact */
		float f = (float)m * 0x1p-24f;
		return sign ? -f : f;
	}
	return cx__u32_as_f32(sign | (e + 112) << 23 | m << 13);
}

static inline uint16_t cx_f32_to_f16(float f)
{
	uint32_t u = cx__f32_as_u32(f), sign = u >> 16 & 0x8000, a = u & 0x7fffffff;
	if (a > 0x7f800000u) return (uint16_t)(sign | 0x7e00 | (a >> 13 & 0x3ff));
	if (a >= 0x47800000u) return (uint16_t)(sign | 0x7c00); /* 65536 and above */
	if (a < 0x38800000u) { /* below 2^-14: a multiple of 2^-24, rounded by adding 0.5 */
		uint32_t r = cx__f32_as_u32(cx__u32_as_f32(a) + 0.5f) - 0x3f000000u;
		return (uint16_t)(sign | r);
	}
	a += 0xfff + (a >> 13 & 1); /* may carry into the exponent, up to infinity: as it should */
	return (uint16_t)(sign | ((a >> 13) - (112u << 10)));
}

static inline float cx_bf16_to_f32(uint16_t h)
{
	return cx__u32_as_f32((uint32_t)h << 16);
}
static inline uint16_t cx_f32_to_bf16(float f)
{
	uint32_t u = cx__f32_as_u32(f);
	if ((u & 0x7fffffff) > 0x7f800000u) return (uint16_t)(u >> 16 | 0x40);
	return (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}

static inline uint16_t cx__load_le16(const void *p)
{
	const uint8_t *b = p;
	return (uint16_t)(b[0] | b[1] << 8);
}
static inline float cx_f16_load(const void *p)
{
	return cx_f16_to_f32(cx__load_le16(p));
}

/* MXFP4's scale: 2^(e-127), subnormal for e = 0, NaN for e = 255. */
static inline float cx_e8m0_to_f32(uint8_t e)
{
	return e == 255 ? cx__u32_as_f32(0x7fc00000u)
					: cx__u32_as_f32(e ? (uint32_t)e << 23 : 0x400000u);
}

/* ---- rows ---- */

extern const int8_t cx__iq4_values[16];   /* the table NL of IQ4_NL and IQ4_XS */
extern const int8_t cx__mxfp4_values[16]; /* twice the table F4 of MXFP4; -0 is 0 here */

/* n elements of src [n] as f32. n is a multiple of the dtype's block. False: dtype is not F32, F16,
 * BF16 or a block format with whole blocks (I8C has its own functions), or n is not a multiple;
 * nothing is written then. */
CX_API bool cx_dequant_row(cx_dtype dtype, const void *src, float *dst, int64_t n);
/* The inverse, for the same dtypes. A block whose largest magnitude is not finite becomes
 * unspecified numbers. */
CX_API bool cx_quant_row(cx_dtype dtype, const float *src, void *dst, int64_t n);

/* I8C, a whole matrix [n_rows, k]: int8 rows, then at the next multiple of 4 bytes one f32 scale
 * per row. */
static inline uint64_t cx_i8c_scale_off(int64_t n_rows, int64_t k)
{
	return ((uint64_t)n_rows * (uint64_t)k + 3) & ~(uint64_t)3;
}
static inline float cx_i8c_scale(const void *w, int64_t n_rows, int64_t k, int64_t row)
{
	float s;
	memcpy(&s, (const uint8_t *)w + cx_i8c_scale_off(n_rows, k) + 4 * (uint64_t)row, 4);
	return s;
}
CX_API void cx_dequant_i8c_row(const void *src, int64_t n_rows, int64_t k, int64_t row, float *dst);
/* dst has cx_i8c_scale_off() + 4 * n_rows bytes; scale = largest magnitude of the row / 127. */
CX_API void cx_quant_i8c(const float *src, int64_t n_rows, int64_t k, void *dst);

#endif
