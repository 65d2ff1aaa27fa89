/* quant.cl.h - sixteen consecutive elements of a row, of any float or block format, as f32.
 *
 * Every block format keeps sixteen elements that begin at a multiple of sixteen under one scale, in
 * sixteen consecutive bytes at one shift; so that is the unit in which weights are read. Formats
 * and order of operations: graph/quant.c, bit for bit. */
#ifndef CX_QUANT_CL_H
#define CX_QUANT_CL_H

#include "kernels/elem.cl.h"

CX_FN cx_v16 cx_v16_bf16(cx_n16 h)
{
	return cx_v16_bits(h << 16);
}

/* ---- blocks; p the block, g which sixteen of it ---- */

CX_FN float cx_block_half(CX_GLOBAL const cx_u8 *p)
{
	return cx_half_at((CX_GLOBAL const cx_u16 *)p);
}

CX_FN int cx_block_u32(CX_GLOBAL const cx_u8 *p)
{
	return (int)((cx_u32)p[0] | (cx_u32)p[1] << 8 | (cx_u32)p[2] << 16 | (cx_u32)p[3] << 24);
}

CX_FN cx_n16 cx_pick(cx_n16 bit, cx_n16 zero, cx_n16 one)
{
	return cx_n16_less(cx_n16_all(0), bit, one, zero);
}

CX_FN cx_n16 cx_pick4(cx_n16 n, int a, int b, int c, int d)
{
	cx_n16 low = cx_pick(n & 1, cx_n16_all(a), cx_n16_all(b)),
		   high = cx_pick(n & 1, cx_n16_all(c), cx_n16_all(d));
	return cx_pick(n & 2, low, high);
}

/* The table of IQ4_NL and IQ4_XS, by choices: faster than sixteen look-ups. */
CX_FN cx_n16 cx_iq4_values(cx_n16 n)
{
	cx_n16 low = cx_pick(n & 4, cx_pick4(n, -127, -104, -83, -65), cx_pick4(n, -49, -35, -22, -10));
	return cx_pick(
		n & 8, low, cx_pick(n & 4, cx_pick4(n, 1, 13, 25, 38), cx_pick4(n, 53, 69, 89, 113)));
}

CX_FN cx_v16 cx_block_q4(CX_GLOBAL const cx_u8 *p, cx_u32 dt, int g)
{
	int head = dt == CX_Q4_0 ? 2 : dt == CX_Q4_1 ? 4 : dt == CX_Q5_0 ? 6 : 8;
	cx_n16 n = (cx_n16_u8(p + head) >> (4 * g)) & 15;
	if (dt == CX_Q5_0 || dt == CX_Q5_1)
		n = n | (cx_n16_flags(cx_block_u32(p + head - 4) >> (16 * g)) << 4);
	if (dt == CX_Q4_0) n = n - 8;
	if (dt == CX_Q5_0) n = n - 16;
	if (dt == CX_Q4_0 || dt == CX_Q5_0) return cx_v16_ints(n) * cx_block_half(p);
	return cx_v16_ints(n) * cx_block_half(p) + cx_block_half(p + 2);
}

CX_FN cx_v16 cx_block_q2_k(CX_GLOBAL const cx_u8 *p, int g)
{
	cx_n16 n = (cx_n16_u8(p + 16 + 32 * (g >> 3) + 16 * (g & 1)) >> (2 * ((g & 7) >> 1))) & 3;
	float scale = cx_block_half(p + 80) * (float)(p[g] & 15),
		  low = cx_block_half(p + 82) * (float)(p[g] >> 4);
	return cx_v16_ints(n) * scale - low;
}

CX_FN cx_v16 cx_block_q3_k(CX_GLOBAL const cx_u8 *p, int g)
{
	cx_n16 n = (cx_n16_u8(p + 32 + 32 * (g >> 3) + 16 * (g & 1)) >> (2 * ((g & 7) >> 1))) & 3;
	cx_n16 high = (cx_n16_u8(p + 16 * (g & 1)) >> (g >> 1)) & 1;
	CX_GLOBAL const cx_u8 *sc = p + 96;
	int lo = g < 8 ? sc[g] & 15 : sc[g - 8] >> 4, hi = sc[8 + (g & 3)] >> (2 * (g >> 2)) & 3;
	return cx_v16_ints(n + (high << 2) - 4) *
		   (cx_block_half(p + 108) * (float)((lo | hi << 4) - 32));
}

CX_FN cx_v16 cx_block_q45_k(CX_GLOBAL const cx_u8 *p, int five, int g)
{
	CX_GLOBAL const cx_u8 *s = p + 4;
	int j = g >> 1;
	int sc = j < 4 ? s[j] & 63 : (s[j + 4] & 15) | (s[j - 4] >> 6) << 4;
	int mn = j < 4 ? s[j + 4] & 63 : s[j + 4] >> 4 | (s[j] >> 6) << 4;
	cx_n16 n =
		(cx_n16_u8(p + (five ? 48 : 16) + 32 * (j >> 1) + 16 * (g & 1)) >> (4 * (j & 1))) & 15;
	if (five) n = n | (((cx_n16_u8(p + 16 + 16 * (g & 1)) >> j) & 1) << 4);
	return cx_v16_ints(n) * (cx_block_half(p) * (float)sc) - cx_block_half(p + 2) * (float)mn;
}

CX_FN cx_v16 cx_block_q6_k(CX_GLOBAL const cx_u8 *p, int g)
{
	int h = g >> 3, q = (g & 7) >> 1;
	cx_n16 lo = (cx_n16_u8(p + 64 * h + 32 * (q & 1) + 16 * (g & 1)) >> (4 * (q >> 1))) & 15;
	cx_n16 hi = (cx_n16_u8(p + 128 + 32 * h + 16 * (g & 1)) >> (2 * q)) & 3;
	return cx_v16_ints((lo | (hi << 4)) - 32) * (cx_block_half(p + 208) * (float)(cx_i8)p[192 + g]);
}

CX_FN cx_v16 cx_block_iq4(CX_GLOBAL const cx_u8 *p, int xs, int g)
{
	int j = g >> 1, sh = p[2] | p[3] << 8, ls;
	float d = cx_block_half(p);
	if (!xs) return cx_v16_ints(cx_iq4_values((cx_n16_u8(p + 2) >> (4 * g)) & 15)) * d;
	ls = (p[4 + (j >> 1)] >> (4 * (j & 1)) & 15) | (sh >> (2 * j) & 3) << 4;
	return cx_v16_ints(cx_iq4_values((cx_n16_u8(p + 8 + 16 * j) >> (4 * (g & 1))) & 15)) *
		   (d * (float)(ls - 32));
}

CX_FN cx_v16 cx_block_mxfp4(CX_GLOBAL const cx_u8 *p, int g)
{
	float d = cx_bits_f32(p[0] == 255 ? 0x7fc00000u : p[0] ? (cx_u32)p[0] << 23 : 0x400000u);
	cx_n16 n = (cx_n16_u8(p + 1) >> (4 * g)) & 15, e2m1 = n & 7;
	/* twice the value: 0, 1, then 2 or 3 shifted by the exponent less one */
	cx_n16 twice = cx_n16_less(e2m1, cx_n16_all(2), e2m1, (((e2m1 & 1) | 2) << (e2m1 >> 1)) >> 1);
	return cx_v16_bits(cx_n16_bits(cx_v16_ints(twice) * 0.5f) | ((n & 8) << 28)) * d;
}

/* Elements and bytes of a block. */
CX_FN cx_u32 cx_block_elems(cx_u32 dt)
{
	switch (dt) {
#define CX_DTYPE(id, name, elems, bytes, cls, gguf, doc)                                           \
	case CX_##id:                                                                                  \
		return elems;
#include "graph/dtype.def"
#undef CX_DTYPE
	default:
		return 1;
	}
}

CX_FN cx_u32 cx_block_bytes(cx_u32 dt)
{
	switch (dt) {
#define CX_DTYPE(id, name, elems, bytes, cls, gguf, doc)                                           \
	case CX_##id:                                                                                  \
		return bytes;
#include "graph/dtype.def"
#undef CX_DTYPE
	default:
		return 1;
	}
}

CX_FN_BIG cx_v16 cx_block16(CX_GLOBAL const cx_u8 *p, cx_u32 dt, int g)
{
	switch (dt) {
	case CX_Q8_0:
		return cx_v16_ints(cx_n16_i8(p + 2 + 16 * g)) * cx_block_half(p);
	case CX_Q4_0:
	case CX_Q4_1:
	case CX_Q5_0:
	case CX_Q5_1:
		return cx_block_q4(p, dt, g);
	case CX_Q2_K:
		return cx_block_q2_k(p, g);
	case CX_Q3_K:
		return cx_block_q3_k(p, g);
	case CX_Q4_K:
		return cx_block_q45_k(p, 0, g);
	case CX_Q5_K:
		return cx_block_q45_k(p, 1, g);
	case CX_Q6_K:
		return cx_block_q6_k(p, g);
	case CX_IQ4_NL:
		return cx_block_iq4(p, 0, g);
	case CX_IQ4_XS:
		return cx_block_iq4(p, 1, g);
	case CX_MXFP4:
		return cx_block_mxfp4(p, g);
	default:
		return cx_v16_all(CX_NAN);
	}
}

/* ---- rows ---- */

/* Elements k..k+15 (k a multiple of 16) of a row that starts `row` elements, or blocks, into b, all
 * of them there. I8C gives its integers: the caller applies the row's scale. */
CX_FN cx_v16 cx_load16_full(CX_GLOBAL const cx_u8 *b, cx_u32 dt, cx_u32 row, cx_u32 k)
{
	cx_u32 per;
	if (dt == CX_F32) return cx_v16_load((CX_GLOBAL const float *)b + row + k);
	if (dt == CX_F16) return cx_v16_halves((CX_GLOBAL const cx_u16 *)b + row + k);
	if (dt == CX_BF16) return cx_v16_bf16(cx_n16_u16((CX_GLOBAL const cx_u16 *)b + row + k));
	if (dt == CX_I8C) return cx_v16_ints(cx_n16_i8(b + row + k));
	per = cx_block_elems(dt);
	return cx_block16(b + (cx_u64)(row + k / per) * cx_block_bytes(dt), dt, (int)(k % per / 16));
}

/* The same of a row of n; zeros past its end. */
CX_FN cx_v16 cx_load16(CX_GLOBAL const cx_u8 *b, cx_u32 dt, cx_u32 row, cx_u32 k, cx_u32 n)
{
	float v[16];
	if (k + 16 <= n) return cx_load16_full(b, dt, row, k);
	for (cx_u32 l = 0; l < 16; l++)
		v[l] = k + l < n ? cx_load_f(b, dt == CX_I8C ? CX_I8 : dt, row + k + l) : 0.0f;
	return cx_v16_take(v);
}

/* The same of a plain row with any stride. */
CX_FN cx_v16 cx_load16_by(
	CX_GLOBAL const cx_u8 *b, cx_u32 dt, cx_u32 row, cx_u32 stride, cx_u32 k, cx_u32 n)
{
	float v[16];
	if (stride == 1) return cx_load16(b, dt, row, k, n);
	for (cx_u32 l = 0; l < 16; l++)
		v[l] = k + l < n ? cx_load_f(b, dt, row + (k + l) * stride) : 0.0f;
	return cx_v16_take(v);
}

/* Writes those of the sixteen that are inside a plain row of n. */
CX_FN void cx_store16(CX_GLOBAL cx_u8 *b, cx_u32 dt, cx_u32 row, cx_u32 k, cx_u32 n, cx_v16 x)
{
	float v[16];
	if (dt == CX_F32 && k + 16 <= n) {
		cx_v16_store(x, (CX_GLOBAL float *)b + row + k);
		return;
	}
	cx_v16_put(x, v);
	for (cx_u32 l = 0; l < 16 && k + l < n; l++) cx_store_f(b, dt, row + k + l, v[l]);
}

/* Scale of row r of an I8C matrix whose scales start `at` bytes into b. */
CX_FN float cx_i8c_scale(CX_GLOBAL const cx_u8 *b, cx_u32 at, cx_u32 r)
{
	return ((CX_GLOBAL const float *)(b + at))[r];
}

#endif
