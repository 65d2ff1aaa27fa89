/* qunpack.h - 128 weights of any block format as small integers and scales: the one place that
 * knows the layouts.
 *
 * A chunk is four blocks (or groups) of 32 consecutive weights. lo holds elements 0..15 of each
 * block, hi 16..31, one byte each, block i in bytes 16i..16i+15. The weight of a byte b in block i
 * is, l = 4i..4i+3 the lanes of block i, plain formats          d[l] * (b - zero) + m[l] (m only
 * with CX__Q_MIN_F) formats with sub-scales  d[l] * s[l] * (b - zero) - m[l] * n[l] (n only with
 * CX__Q_MIN_I) where s is s_lo or s_hi and n is n_lo or n_hi: scales that hold for 16 weights. */
#ifndef CX_CPU_QUNPACK_H
#define CX_CPU_QUNPACK_H

#include "backends/cpu/isa/vec.h"

typedef struct {
	vb lo, hi;
	v16 d, m;
	v16i s_lo, s_hi, n_lo, n_hi;
} cx__qchunk;

typedef enum { CX__Q_MIN_NONE, CX__Q_MIN_F, CX__Q_MIN_I } cx__q_min;

/* dtype is a constant wherever these are used, so that the branches vanish. */
CX_INLINE int cx__q_zero(cx_dtype t)
{
	return t == CX_Q4_0                                                                   ? 8
		   : t == CX_Q5_0                                                                 ? 16
		   : t == CX_Q6_K                                                                 ? 32
		   : t == CX_Q3_K                                                                 ? 4
		   : t == CX_Q4_1 || t == CX_Q5_1 || t == CX_Q4_K || t == CX_Q5_K || t == CX_Q2_K ? 0
																						  : 128;
}
CX_INLINE bool cx__q_sub(cx_dtype t)
{
	return t == CX_Q2_K || t == CX_Q3_K || t == CX_Q6_K;
}
CX_INLINE cx__q_min cx__q_min_kind(cx_dtype t)
{
	return t == CX_Q2_K                                                   ? CX__Q_MIN_I
		   : t == CX_Q4_1 || t == CX_Q5_1 || t == CX_Q4_K || t == CX_Q5_K ? CX__Q_MIN_F
																		  : CX__Q_MIN_NONE;
}
CX_INLINE bool cx__q_super(cx_dtype t) /* blocks of 256: a chunk is half of one */
{
	return t == CX_Q2_K || t == CX_Q3_K || t == CX_Q4_K || t == CX_Q5_K || t == CX_Q6_K ||
		   t == CX_IQ4_XS;
}
CX_INLINE size_t cx__q_block(cx_dtype t) /* bytes of a block of 32 or 256; I8C: of 32 weights */
{
	switch (t) {
#define CX_DTYPE(id, name, elems, bytes, cls, gguf, doc)                                           \
	case CX_##id:                                                                                  \
		return (elems) == 1 ? 32 * (bytes) : (bytes);
#include "graph/dtype.def"
#undef CX_DTYPE
	default:
		return 0;
	}
}
/* Where chunk c of a row starts; for super blocks the block that holds it. */
CX_INLINE const uint8_t *cx__q_at(cx_dtype t, const uint8_t *row, size_t c)
{
	return row + (cx__q_super(t) ? c / 2 : c * 4) * cx__q_block(t);
}

CX_INLINE uint32_t cx__le32(const uint8_t *p)
{
	return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}
CX_INLINE uint64_t cx__le64(const uint8_t *p)
{
	return cx__le32(p) | (uint64_t)cx__le32(p + 4) << 32;
}
CX_INLINE uint64_t cx__le16x4(const uint8_t *p, size_t step)
{
	return cx__load_le16(p) | (uint64_t)cx__load_le16(p + step) << 16 |
		   (uint64_t)cx__load_le16(p + 2 * step) << 32 |
		   (uint64_t)cx__load_le16(p + 3 * step) << 48;
}

/* ---- blocks of 32: p is at four of them ---- */

CX_INLINE void cx__q_nibbles(cx__qchunk *q, vb x)
{
	q->lo = vb_and(x, vb_set1(15));
	q->hi = vb_shr(x, 4);
}
/* cx__iq4_values and cx__mxfp4_values plus 128. */
static const uint8_t cx__iq4_bytes[16] = {
	1, 24, 45, 63, 79, 93, 106, 118, 129, 141, 153, 166, 181, 197, 217, 241};
static const uint8_t cx__mxfp4_bytes[16] = {
	128, 129, 130, 131, 132, 134, 136, 140, 128, 127, 126, 125, 124, 122, 120, 116};
CX_INLINE void cx__q_lookup(cx__qchunk *q, const uint8_t *table)
{
	q->lo = vb_table(table, q->lo);
	q->hi = vb_table(table, q->hi);
}
/* Scales of MXFP4, halved, as the table holds doubled values: 2^(e-128), subnormal for e < 2, NaN
 * for 255. */
CX_INLINE v16 cx__q_e8m0(const uint8_t *p, int step)
{
	uint32_t b = (uint32_t)p[0] | (uint32_t)p[step] << 8 | (uint32_t)p[2 * step] << 16 |
				 (uint32_t)p[3 * step] << 24;
	v16i e = v16i_and(v16i_spread(b, 0, 1, 2, 3), v16i_set1(255)), two = v16i_set1(2);
	v16 s = v16i_as_v16(v16i_sll(v16i_sub(e, v16i_set1(1)), 23));
	v16 tiny = v16i_as_v16(v16i_sll(v16i_add(e, v16i_set1(1)), 21));
	s = v16_select(v16i_gt(two, e), tiny, s);
	return v16_select(v16i_eq(e, v16i_set1(255)), v16_bits(0x7fc00000u), s);
}

CX_INLINE void cx__q_unpack32(cx_dtype t, const uint8_t *p, float row_scale, cx__qchunk *q)
{
	const int B = (int)cx__q_block(t);
	switch (t) {
	case CX_Q8_0:
		q->lo = vb_xor(vb_gather16(p, 4 * B, 2, 2 + B, 2 + 2 * B, 2 + 3 * B), vb_set1(128));
		q->hi = vb_xor(vb_gather16(p, 4 * B, 18, 18 + B, 18 + 2 * B, 18 + 3 * B), vb_set1(128));
		break;
	case CX_I8C:
		q->lo = vb_xor(vb_gather16(p, 128, 0, 32, 64, 96), vb_set1(128));
		q->hi = vb_xor(vb_gather16(p, 128, 16, 48, 80, 112), vb_set1(128));
		q->d = v16_set1(row_scale);
		return;
	case CX_Q4_0:
		cx__q_nibbles(q, vb_gather16(p, 4 * B, 2, 2 + B, 2 + 2 * B, 2 + 3 * B));
		break;
	case CX_Q4_1:
		cx__q_nibbles(q, vb_gather16(p, 4 * B, 4, 4 + B, 4 + 2 * B, 4 + 3 * B));
		break;
	case CX_Q5_0:
	case CX_Q5_1: {
		const int at = t == CX_Q5_0 ? 2 : 4, qs = at + 4;
		cx__q_nibbles(q, vb_gather16(p, 4 * B, qs, qs + B, qs + 2 * B, qs + 3 * B));
		q->lo = vb_or_bits(q->lo, cx__le16x4(p + at, (size_t)B), 16);
		q->hi = vb_or_bits(q->hi, cx__le16x4(p + at + 2, (size_t)B), 16);
		break;
	}
	case CX_IQ4_NL:
		cx__q_nibbles(q, vb_gather16(p, 4 * B, 2, 2 + B, 2 + 2 * B, 2 + 3 * B));
		cx__q_lookup(q, cx__iq4_bytes);
		break;
	default: /* MXFP4 */
		cx__q_nibbles(q, vb_gather16(p, 4 * B, 1, 1 + B, 1 + 2 * B, 1 + 3 * B));
		cx__q_lookup(q, cx__mxfp4_bytes);
		q->d = cx__q_e8m0(p, B);
		return;
	}
	q->d = v16_f16x4(p, 4 * B, 0, B, 2 * B, 3 * B);
	if (t == CX_Q4_1 || t == CX_Q5_1) q->m = v16_f16x4(p, 4 * B, 2, 2 + B, 2 + 2 * B, 2 + 3 * B);
}

/* ---- super blocks of 256: p is at the block, h the half ---- */

/* Eight 6-bit scales and eight mins of Q4_K and Q5_K, one per byte. */
CX_INLINE void cx__q_scales6(const uint8_t *s, uint64_t *sc, uint64_t *mn)
{
	uint32_t s0 = cx__le32(s), s4 = cx__le32(s + 4), s8 = cx__le32(s + 8);
	*sc = (s0 & 0x3f3f3f3f) | (uint64_t)((s8 & 0x0f0f0f0f) | (s0 >> 2 & 0x30303030)) << 32;
	*mn = (s4 & 0x3f3f3f3f) | (uint64_t)((s8 >> 4 & 0x0f0f0f0f) | (s4 >> 2 & 0x30303030)) << 32;
}
/* Eight scales (two per block of the half) to lanes. */
CX_INLINE void cx__q_sub_scales(uint64_t s, v16i *lo, v16i *hi)
{
	*lo = v16i_spread(s, 0, 2, 4, 6);
	*hi = v16i_spread(s, 1, 3, 5, 7);
}

CX_INLINE void cx__q_unpack_k45(cx_dtype t, const uint8_t *p, int h, cx__qchunk *q)
{
	const int j = 4 * h;
	uint64_t sc, mn;
	cx__qchunk x;
	cx__q_nibbles(&x, vb_load(p + (t == CX_Q4_K ? 16 : 48) + 64 * h));
	q->lo = vb_pick(x.lo, x.hi, 0, 4, 2, 6);
	q->hi = vb_pick(x.lo, x.hi, 1, 5, 3, 7);
	if (t == CX_Q5_K) {
		q->lo = vb_or_field(q->lo, p + 16, j, j + 1, j + 2, j + 3, 1, 4);
		q->hi = vb_or_field(q->hi, p + 32, j, j + 1, j + 2, j + 3, 1, 4);
	}
	cx__q_scales6(p + 4, &sc, &mn);
	v16_scale_min(p, sc, mn, j, &q->d, &q->m);
}

CX_INLINE void cx__q_unpack_k23(cx_dtype t, const uint8_t *p, int h, cx__qchunk *q)
{
	const uint8_t *qs = p + (t == CX_Q2_K ? 16 : 32) + 32 * h;
	const int j = 4 * h;
	q->lo = vb_or_field(vb_set1(0), qs, 0, 2, 4, 6, 3, 0);
	q->hi = vb_or_field(vb_set1(0), qs + 16, 0, 2, 4, 6, 3, 0);
	if (t == CX_Q2_K) {
		uint64_t s = cx__le64(p + 8 * h);
		cx__q_sub_scales(s & 0x0f0f0f0f0f0f0f0f, &q->s_lo, &q->s_hi);
		cx__q_sub_scales(s >> 4 & 0x0f0f0f0f0f0f0f0f, &q->n_lo, &q->n_hi);
		q->d = v16_set1(cx__f16_at(p + 80));
		q->m = v16_set1(cx__f16_at(p + 82));
	} else {
		/* scale t of 0..15 is lo nibble of sc[t] or hi of sc[t-8], and two bits of sc[8 + t mod 4]
		 */
		uint64_t lo = cx__le64(p + 96) >> 4 * h & 0x0f0f0f0f0f0f0f0f,
				 hi = cx__le32(p + 104) >> 4 * h;
		lo |= (hi & 0x03030303) << 4 | (hi >> 2 & 0x03030303) << 36;
		/* minus 32 in every byte, without borrows */
		lo = ((lo | 0x8080808080808080u) - 0x2020202020202020u) ^ 0x8080808080808080u;
		cx__q_sub_scales(lo, &q->s_lo, &q->s_hi);
		q->lo = vb_or_field(q->lo, p, j, j + 1, j + 2, j + 3, 1, 2);
		q->hi = vb_or_field(q->hi, p + 16, j, j + 1, j + 2, j + 3, 1, 2);
		q->d = v16_set1(cx__f16_at(p + 108));
	}
}

CX_INLINE void cx__q_unpack_q6(const uint8_t *p, int h, cx__qchunk *q)
{
	cx__qchunk x;
	cx__q_nibbles(&x, vb_load(p + 64 * h));
	q->lo = vb_or_field(vb_pick(x.lo, x.hi, 0, 2, 4, 6), p + 128 + 32 * h, 0, 2, 4, 6, 3, 4);
	q->hi = vb_or_field(vb_pick(x.lo, x.hi, 1, 3, 5, 7), p + 144 + 32 * h, 0, 2, 4, 6, 3, 4);
	cx__q_sub_scales(cx__le64(p + 192 + 8 * h), &q->s_lo, &q->s_hi);
	q->d = v16_set1(cx__f16_at(p + 208));
}

CX_INLINE void cx__q_unpack_iq4xs(const uint8_t *p, int h, cx__qchunk *q)
{
	uint32_t sl = (uint32_t)cx__load_le16(p + 4 + 2 * h), sh = p[2 + h], s;
	s = (sl & 15) | (sl & 0xf0) << 4 | (sl & 0xf00) << 8 | (sl & 0xf000) << 12;
	s |= (sh & 3) << 4 | (sh & 12) << 10 | (sh & 48) << 16 | (sh & 192) << 22;
	s = ((s | 0x80808080u) - 0x20202020u) ^ 0x80808080u; /* minus 32 in every byte */
	cx__q_nibbles(q, vb_load(p + 8 + 64 * h));
	cx__q_lookup(q, cx__iq4_bytes);
	q->d = v16_mul(v16i_to_f(v16i_spread(s, 0, 1, 2, 3)), v16_set1(cx__f16_at(p)));
}

/* Chunk with index parity h (only super blocks look at it). row_scale: I8C only. */
CX_INLINE void cx__q_unpack(cx_dtype t, const uint8_t *p, int h, float row_scale, cx__qchunk *q)
{
	switch (t) {
	case CX_Q4_K:
	case CX_Q5_K:
		cx__q_unpack_k45(t, p, h, q);
		break;
	case CX_Q2_K:
	case CX_Q3_K:
		cx__q_unpack_k23(t, p, h, q);
		break;
	case CX_Q6_K:
		cx__q_unpack_q6(p, h, q);
		break;
	case CX_IQ4_XS:
		cx__q_unpack_iq4xs(p, h, q);
		break;
	default:
		cx__q_unpack32(t, p, row_scale, q);
		break;
	}
}

#endif
