/* quant.glsl - eight elements of a block-format row at once, as graph/quant.c dequantises them: products and sums in f32,
 * (d * scale) * q - (dmin * min), rounded one by one.
 *
 * CX_BLOCKS(i) makes void cx_deq<i>(dt, base, k, out w[8]): elements k..k+7 (k a multiple of 8) of the row that
 * starts at byte `base` of tensor i, and float cx_i8<i>(o), the byte of an I8C row, without its scale. Half words are read where the format keeps
 * them aligned; MXFP4 blocks have an odd size. */
const int cx_nl[16] =
	int[16](-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113);
const int cx_f4[16] =
	int[16](0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12); /* doubled */

#define CX_BLOCKS(i)                                                                               \
	uint cx_u8##i(uint o)                                                                          \
	{                                                                                              \
		return uint(cx_b8_##i.v[o]);                                                               \
	}                                                                                              \
	float cx_i8##i(uint o)                                                                         \
	{                                                                                              \
		return float(int(uint(cx_b8_##i.v[o]) << 24) >> 24);                                       \
	}                                                                                              \
	uint cx_u16##i(uint o)                                                                         \
	{                                                                                              \
		return uint(cx_b16_##i.v[o >> 1]);                                                         \
	}                                                                                              \
	float cx_h##i(uint o)                                                                          \
	{                                                                                              \
		return cx_f16_to_f32(uint(cx_b16_##i.v[o >> 1]));                                          \
	}                                                                                              \
	/* byte j of the 8 at o, an even address, already loaded as half words */                      \
	void cx_bytes##i(uint o, out uint b[8])                                                        \
	{                                                                                              \
		[[unroll]] for (uint j = 0; j < 4; j++)                                                    \
		{                                                                                          \
			uint h = cx_u16##i(o + 2u * j);                                                        \
			b[2u * j] = h & 255u;                                                                  \
			b[2u * j + 1u] = h >> 8;                                                               \
		}                                                                                          \
	}                                                                                              \
	/* the pair j of the 12 bytes of eight 6-bit scales and mins at s */                           \
	uvec2 cx_pair##i(uint s, uint j)                                                               \
	{                                                                                              \
		uint lo = cx_u8##i(s + j), hi = cx_u8##i(s + j + 4u),                                      \
			 old = j < 4u ? 0u : cx_u8##i(s + j - 4u);                                             \
		return j < 4u ? uvec2(lo & 63u, hi & 63u)                                                  \
					  : uvec2((hi & 15u) | (old >> 6) << 4, hi >> 4 | (lo >> 6) << 4);             \
	}                                                                                              \
	void cx_deq_small##i(const uint dt, uint p, uint l, out float w[8])                            \
	{                                                                                              \
		uint b[8],                                                                                 \
			head = dt == CX_Q4_1   ? 4u                                                            \
				   : dt == CX_Q5_0 ? 6u                                                            \
				   : dt == CX_Q5_1 ? 8u                                                            \
								   : 2u,                                                           \
			qh = 0u;                                                                               \
		float d, m = 0.0;                                                                          \
		if (dt == CX_MXFP4) {                                                                      \
			uint e = cx_u8##i(p);                                                                  \
			d = uintBitsToFloat(e == 255u ? CX_NAN_BITS : e == 0u ? 0x400000u : e << 23);          \
			[[unroll]] for (uint j = 0; j < 8; j++) b[j] = cx_u8##i(p + 1u + (l & 15u) + j);       \
		} else {                                                                                   \
			d = cx_h##i(p);                                                                        \
			cx_bytes##i(p + head + (dt == CX_Q8_0 ? l : l & 15u), b);                              \
		}                                                                                          \
		if (dt == CX_Q4_1 || dt == CX_Q5_1) m = cx_h##i(p + 2u);                                   \
		if (dt == CX_Q5_0) qh = cx_u16##i(p + 2u) | cx_u16##i(p + 4u) << 16;                       \
		if (dt == CX_Q5_1) qh = cx_u16##i(p + 4u) | cx_u16##i(p + 6u) << 16;                       \
		[[unroll]] for (uint j = 0; j < 8; j++)                                                    \
		{                                                                                          \
			uint n = b[j] >> (l < 16u ? 0u : 4u) & 15u;                                            \
			int v = int(n);                                                                        \
			precise float r;                                                                       \
			if (dt == CX_Q8_0) v = int(b[j] << 24) >> 24;                                          \
			if (dt == CX_Q4_0) v = v - 8;                                                          \
			if (dt == CX_Q5_0 || dt == CX_Q5_1) v = int(n | (qh >> (l + j) & 1u) << 4);            \
			if (dt == CX_Q5_0) v = v - 16;                                                         \
			if (dt == CX_IQ4_NL) v = cx_nl[n];                                                     \
			if (dt == CX_MXFP4) v = cx_f4[n];                                                      \
			r = d * (dt == CX_MXFP4 ? 0.5 * float(v) : float(v));                                  \
			if (dt == CX_Q4_1 || dt == CX_Q5_1) r = r + m;                                         \
			w[j] = r;                                                                              \
		}                                                                                          \
	}                                                                                              \
	void cx_deq_k##i(const uint dt, uint p, uint l, out float w[8])                                \
	{                                                                                              \
		uint b[8], c[8], h = l >> 7, r = l & 127u, g = l >> 5;                                     \
		float s, mn = 0.0;                                                                         \
		int zero = 0;                                                                              \
		[[unroll]] for (uint j = 0; j < 8; j++) c[j] = 0u;                                         \
		if (dt == CX_Q2_K) {                                                                       \
			uint t = cx_u8##i(p + (l >> 4));                                                       \
			precise float a = cx_h##i(p + 80u) * float(t & 15u),                                   \
						  e = cx_h##i(p + 82u) * float(t >> 4);                                    \
			s = a, mn = e;                                                                         \
			cx_bytes##i(p + 16u + 32u * h + (r & 31u), b);                                         \
			[[unroll]] for (uint j = 0; j < 8; j++) b[j] = b[j] >> (2u * (r >> 5)) & 3u;           \
		} else if (dt == CX_Q3_K) {                                                                \
			uint t = l >> 4, lo = cx_u8##i(p + 96u + (t & 7u)) >> (t < 8u ? 0u : 4u) & 15u;        \
			uint hi = cx_u8##i(p + 104u + (t & 3u)) >> (2u * (t >> 2)) & 3u;                       \
			precise float a = cx_h##i(p + 108u) * float(int(lo | hi << 4) - 32);                   \
			s = a;                                                                                 \
			zero = 4;                                                                              \
			cx_bytes##i(p + 32u + 32u * h + (r & 31u), b);                                         \
			cx_bytes##i(p + (r & 31u), c);                                                         \
			[[unroll]] for (uint j = 0; j < 8; j++) b[j] =                                         \
				(b[j] >> (2u * (r >> 5)) & 3u) + (c[j] >> g & 1u) * 4u;                            \
		} else if (dt == CX_Q4_K || dt == CX_Q5_K) {                                               \
			uvec2 t = cx_pair##i(p + 4u, g);                                                       \
			precise float a = cx_h##i(p) * float(t.x), e = cx_h##i(p + 2u) * float(t.y);           \
			s = a, mn = e;                                                                         \
			cx_bytes##i(p + (dt == CX_Q4_K ? 16u : 48u) + 32u * (g >> 1) + (l & 31u), b);          \
			if (dt == CX_Q5_K) cx_bytes##i(p + 16u + (l & 31u), c);                                \
			[[unroll]] for (uint j = 0; j < 8; j++) b[j] =                                         \
				(b[j] >> (4u * (g & 1u)) & 15u) | (c[j] >> g & 1u) << 4;                           \
		} else if (dt == CX_Q6_K) {                                                                \
			uint q = r >> 5;                                                                       \
			int t = int(cx_u8##i(p + 192u + (l >> 4)) << 24) >> 24;                                \
			precise float a = cx_h##i(p + 208u) * float(t);                                        \
			s = a;                                                                                 \
			zero = 32;                                                                             \
			cx_bytes##i(p + 64u * h + 32u * (q & 1u) + (l & 31u), b);                              \
			cx_bytes##i(p + 128u + 32u * h + (l & 31u), c);                                        \
			[[unroll]] for (uint j = 0; j < 8; j++) b[j] =                                         \
				(b[j] >> (4u * (q >> 1)) & 15u) | (c[j] >> (2u * q) & 3u) << 4;                    \
		} else { /* IQ4_XS */                                                                      \
			uint ls = (cx_u8##i(p + 4u + (g >> 1)) >> (4u * (g & 1u)) & 15u) |                     \
					  (cx_u16##i(p + 2u) >> (2u * g) & 3u) << 4;                                   \
			precise float a = cx_h##i(p) * float(int(ls) - 32);                                    \
			s = a;                                                                                 \
			cx_bytes##i(p + 8u + 16u * g + (l & 15u), b);                                          \
			[[unroll]] for (uint j = 0; j < 8; j++) b[j] =                                         \
				b[j] >> ((l & 16u) != 0u ? 4u : 0u) & 15u;                                         \
		}                                                                                          \
		[[unroll]] for (uint j = 0; j < 8; j++)                                                    \
		{                                                                                          \
			int v = dt == CX_IQ4_XS ? cx_nl[b[j] & 15u] : int(b[j]) - zero;                        \
			precise float x = s * float(v);                                                        \
			if (dt == CX_Q2_K || dt == CX_Q4_K || dt == CX_Q5_K) x = x - mn;                       \
			w[j] = x;                                                                              \
		}                                                                                          \
	}                                                                                              \
	void cx_deq##i(const uint dt, uint base, uint k, out float w[8])                               \
	{                                                                                              \
		if (cx_block_elems(dt) == 32u) {                                                           \
			cx_deq_small##i(dt, base + (k >> 5) * cx_block_bytes(dt), k & 31u, w);                 \
		} else {                                                                                   \
			cx_deq_k##i(dt, base + (k >> 8) * cx_block_bytes(dt), k & 255u, w);                    \
		}                                                                                          \
	}

const uint cx_elems_of[] = uint[](
#define CX_DTYPE(id, name, elems, bytes, cls, gguf, doc) elems,
#include "graph/dtype.def"
#undef CX_DTYPE
	0u);
const uint cx_bytes_of[] = uint[](
#define CX_DTYPE(id, name, elems, bytes, cls, gguf, doc) bytes,
#include "graph/dtype.def"
#undef CX_DTYPE
	0u);
uint cx_block_elems(const uint dt)
{
	return cx_elems_of[dt];
}
uint cx_block_bytes(const uint dt)
{
	return cx_bytes_of[dt];
}
