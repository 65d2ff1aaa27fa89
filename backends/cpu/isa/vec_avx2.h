/* vec_avx2.h - vec.h for AVX2 with FMA and F16C: a v16 is two registers. */
#ifndef CX_CPU_VEC_AVX2_H
#define CX_CPU_VEC_AVX2_H

#include <immintrin.h>

typedef struct {
	__m256 a, b;
} v16;
typedef struct {
	__m256i a, b;
} v16i;
typedef struct {
	__m256 a, b;
} v16m; /* all bits of a lane set, or none */
typedef struct {
	__m256i a, b;
} vb;

#define CX_V2(T, x, y) ((T){(x), (y)})

CX_INLINE v16 v16_load(const float *p)
{
	return CX_V2(v16, _mm256_loadu_ps(p), _mm256_loadu_ps(p + 8));
}
CX_INLINE void v16_store(float *p, v16 x)
{
	_mm256_storeu_ps(p, x.a);
	_mm256_storeu_ps(p + 8, x.b);
}
CX_INLINE __m256i v16_first8(long n)
{
	return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
CX_INLINE v16 v16_load_n(const float *p, size_t n)
{
	if (n >= 16) return v16_load(p);
	return CX_V2(v16, _mm256_maskload_ps(p, v16_first8((long)n)),
		n > 8 ? _mm256_maskload_ps(p + 8, v16_first8((long)n - 8)) : _mm256_setzero_ps());
}
CX_INLINE void v16_store_n(float *p, v16 x, size_t n)
{
	if (n >= 16) {
		v16_store(p, x);
		return;
	}
	_mm256_maskstore_ps(p, v16_first8((long)n), x.a);
	if (n > 8) _mm256_maskstore_ps(p + 8, v16_first8((long)n - 8), x.b);
}
CX_INLINE v16 v16_set1(float x)
{
	return CX_V2(v16, _mm256_set1_ps(x), _mm256_set1_ps(x));
}
CX_INLINE v16 v16_add(v16 x, v16 y)
{
	return CX_V2(v16, _mm256_add_ps(x.a, y.a), _mm256_add_ps(x.b, y.b));
}
CX_INLINE v16 v16_sub(v16 x, v16 y)
{
	return CX_V2(v16, _mm256_sub_ps(x.a, y.a), _mm256_sub_ps(x.b, y.b));
}
CX_INLINE v16 v16_mul(v16 x, v16 y)
{
	return CX_V2(v16, _mm256_mul_ps(x.a, y.a), _mm256_mul_ps(x.b, y.b));
}
CX_INLINE v16 v16_div(v16 x, v16 y)
{
	return CX_V2(v16, _mm256_div_ps(x.a, y.a), _mm256_div_ps(x.b, y.b));
}
CX_INLINE v16 v16_fma(v16 x, v16 y, v16 z)
{
	return CX_V2(v16, _mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b));
}
CX_INLINE v16 v16_fnma(v16 x, v16 y, v16 z)
{
	return CX_V2(v16, _mm256_fnmadd_ps(x.a, y.a, z.a), _mm256_fnmadd_ps(x.b, y.b, z.b));
}
CX_INLINE v16 v16_max(v16 x, v16 y)
{
	return CX_V2(v16, _mm256_max_ps(x.a, y.a), _mm256_max_ps(x.b, y.b));
}
CX_INLINE v16 v16_min(v16 x, v16 y)
{
	return CX_V2(v16, _mm256_min_ps(x.a, y.a), _mm256_min_ps(x.b, y.b));
}
CX_INLINE v16 v16_sqrt(v16 x)
{
	return CX_V2(v16, _mm256_sqrt_ps(x.a), _mm256_sqrt_ps(x.b));
}
CX_INLINE v16 v16_rint(v16 x)
{
	return CX_V2(v16, _mm256_round_ps(x.a, 8), _mm256_round_ps(x.b, 8));
}
CX_INLINE v16 v16_floor(v16 x)
{
	return CX_V2(v16, _mm256_round_ps(x.a, 9), _mm256_round_ps(x.b, 9));
}
CX_INLINE v16 v16_ceil(v16 x)
{
	return CX_V2(v16, _mm256_round_ps(x.a, 10), _mm256_round_ps(x.b, 10));
}
CX_INLINE v16 v16_trunc(v16 x)
{
	return CX_V2(v16, _mm256_round_ps(x.a, 11), _mm256_round_ps(x.b, 11));
}

#define CX_CMP2(op) CX_V2(v16m, _mm256_cmp_ps(x.a, y.a, op), _mm256_cmp_ps(x.b, y.b, op))
CX_INLINE v16m v16_lt(v16 x, v16 y)
{
	return CX_CMP2(_CMP_LT_OQ);
}
CX_INLINE v16m v16_le(v16 x, v16 y)
{
	return CX_CMP2(_CMP_LE_OQ);
}
CX_INLINE v16m v16_eq(v16 x, v16 y)
{
	return CX_CMP2(_CMP_EQ_OQ);
}
#undef CX_CMP2
CX_INLINE v16m v16m_not(v16m m)
{
	__m256 ones = _mm256_castsi256_ps(_mm256_set1_epi32(-1));
	return CX_V2(v16m, _mm256_xor_ps(m.a, ones), _mm256_xor_ps(m.b, ones));
}
CX_INLINE v16m v16m_and(v16m x, v16m y)
{
	return CX_V2(v16m, _mm256_and_ps(x.a, y.a), _mm256_and_ps(x.b, y.b));
}
CX_INLINE v16m v16m_or(v16m x, v16m y)
{
	return CX_V2(v16m, _mm256_or_ps(x.a, y.a), _mm256_or_ps(x.b, y.b));
}
CX_INLINE int v16m_any(v16m m)
{
	return (_mm256_movemask_ps(m.a) | _mm256_movemask_ps(m.b)) != 0;
}
CX_INLINE v16 v16_select(v16m m, v16 yes, v16 no)
{
	return CX_V2(v16, _mm256_blendv_ps(no.a, yes.a, m.a), _mm256_blendv_ps(no.b, yes.b, m.b));
}

CX_INLINE v16i v16i_set1(int32_t x)
{
	return CX_V2(v16i, _mm256_set1_epi32(x), _mm256_set1_epi32(x));
}
CX_INLINE v16i v16i_load(const int32_t *p)
{
	return CX_V2(
		v16i, _mm256_loadu_si256((const __m256i *)p), _mm256_loadu_si256((const __m256i *)(p + 8)));
}
CX_INLINE void v16i_store(int32_t *p, v16i x)
{
	_mm256_storeu_si256((__m256i *)p, x.a);
	_mm256_storeu_si256((__m256i *)(p + 8), x.b);
}
#define CX_OP2(name, op)                                                                           \
	CX_INLINE v16i name(v16i x, v16i y)                                                            \
	{                                                                                              \
		return CX_V2(v16i, op(x.a, y.a), op(x.b, y.b));                                            \
	}
CX_OP2(v16i_add, _mm256_add_epi32)
CX_OP2(v16i_sub, _mm256_sub_epi32)
CX_OP2(v16i_mul, _mm256_mullo_epi32)
CX_OP2(v16i_and, _mm256_and_si256)
CX_OP2(v16i_or, _mm256_or_si256)
CX_OP2(v16i_xor, _mm256_xor_si256)
#undef CX_OP2
CX_INLINE v16i v16i_sll(v16i x, int n)
{
	return CX_V2(v16i, _mm256_slli_epi32(x.a, n), _mm256_slli_epi32(x.b, n));
}
CX_INLINE v16i v16i_srl(v16i x, int n)
{
	return CX_V2(v16i, _mm256_srli_epi32(x.a, n), _mm256_srli_epi32(x.b, n));
}
CX_INLINE v16i v16i_sra(v16i x, int n)
{
	return CX_V2(v16i, _mm256_srai_epi32(x.a, n), _mm256_srai_epi32(x.b, n));
}
CX_INLINE v16m v16i_eq(v16i x, v16i y)
{
	return CX_V2(v16m, _mm256_castsi256_ps(_mm256_cmpeq_epi32(x.a, y.a)),
		_mm256_castsi256_ps(_mm256_cmpeq_epi32(x.b, y.b)));
}
CX_INLINE v16m v16i_gt(v16i x, v16i y)
{
	return CX_V2(v16m, _mm256_castsi256_ps(_mm256_cmpgt_epi32(x.a, y.a)),
		_mm256_castsi256_ps(_mm256_cmpgt_epi32(x.b, y.b)));
}
CX_INLINE v16i v16_to_i(v16 x)
{
	return CX_V2(v16i, _mm256_cvtps_epi32(x.a), _mm256_cvtps_epi32(x.b));
}
CX_INLINE v16 v16i_to_f(v16i x)
{
	return CX_V2(v16, _mm256_cvtepi32_ps(x.a), _mm256_cvtepi32_ps(x.b));
}
CX_INLINE v16i v16_as_v16i(v16 x)
{
	return CX_V2(v16i, _mm256_castps_si256(x.a), _mm256_castps_si256(x.b));
}
CX_INLINE v16 v16i_as_v16(v16i x)
{
	return CX_V2(v16, _mm256_castsi256_ps(x.a), _mm256_castsi256_ps(x.b));
}

CX_INLINE v16 v16_load_f16(const uint16_t *p)
{
	return CX_V2(v16, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p)),
		_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(p + 8))));
}
CX_INLINE void v16_store_f16(uint16_t *p, v16 x)
{
	_mm_storeu_si128(
		(__m128i *)p, _mm256_cvtps_ph(x.a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
	_mm_storeu_si128(
		(__m128i *)(p + 8), _mm256_cvtps_ph(x.b, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
CX_INLINE v16i v16i_load_u16(const uint16_t *p)
{
	return CX_V2(v16i, _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)p)),
		_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)(p + 8))));
}
CX_INLINE void v16i_store_u16(uint16_t *p, v16i x) /* low halves */
{
	__m256i m = _mm256_set1_epi32(0xffff);
	__m256i r = _mm256_packus_epi32(_mm256_and_si256(x.a, m), _mm256_and_si256(x.b, m));
	_mm256_storeu_si256((__m256i *)p, _mm256_permute4x64_epi64(r, 0xd8));
}

CX_INLINE float v16_sum(v16 x)
{
	__m256 a = _mm256_add_ps(x.a, x.b);
	__m128 b = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
	b = _mm_add_ps(b, _mm_movehl_ps(b, b));
	return _mm_cvtss_f32(_mm_add_ss(b, _mm_movehdup_ps(b)));
}
CX_INLINE float v16_hmax(v16 x) /* no NaN in x */
{
	__m256 a = _mm256_max_ps(x.a, x.b);
	__m128 b = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
	b = _mm_max_ps(b, _mm_movehl_ps(b, b));
	return _mm_cvtss_f32(_mm_max_ss(b, _mm_movehdup_ps(b)));
}
CX_INLINE void v16_sum8(float *y, const v16 *x)
{
	for (int i = 0; i < 8; i++) y[i] = v16_sum(x[i]);
}

/* One half, little-endian, at p. */
CX_INLINE float cx__f16_at(const uint8_t *p)
{
	return _cvtsh_ss(cx__load_le16(p));
}

/* ---- bytes and integer products (quantised weights) ---- */

CX_INLINE vb vb_set1(uint8_t x)
{
	return CX_V2(vb, _mm256_set1_epi8((char)x), _mm256_set1_epi8((char)x));
}
#define CX_OP2(name, op)                                                                           \
	CX_INLINE vb name(vb x, vb y)                                                                  \
	{                                                                                              \
		return CX_V2(vb, op(x.a, y.a), op(x.b, y.b));                                              \
	}
CX_OP2(vb_and, _mm256_and_si256)
CX_OP2(vb_or, _mm256_or_si256)
CX_OP2(vb_xor, _mm256_xor_si256)
#undef CX_OP2
CX_INLINE vb vb_sll(vb x, int n)
{
	return CX_V2(vb, _mm256_slli_epi16(x.a, n), _mm256_slli_epi16(x.b, n));
}
CX_INLINE vb vb_srl4(vb x, int n0, int n1, int n2, int n3)
{
	return CX_V2(vb, _mm256_srlv_epi64(x.a, _mm256_setr_epi64x(n0, n0, n1, n1)),
		_mm256_srlv_epi64(x.b, _mm256_setr_epi64x(n2, n2, n3, n3)));
}
CX_INLINE vb vb_table(const uint8_t *t16, vb idx)
{
	__m256i t = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)t16));
	return CX_V2(vb, _mm256_shuffle_epi8(t, idx.a), _mm256_shuffle_epi8(t, idx.b));
}
CX_INLINE __m256i vb_bits32(uint32_t m, uint8_t val)
{
	__m256i x = _mm256_shuffle_epi8(_mm256_set1_epi32((int)m),
		_mm256_setr_epi64x(0, 0x0101010101010101, 0x0202020202020202, 0x0303030303030303));
	__m256i bit = _mm256_set1_epi64x((long long)0x8040201008040201ull);
	return _mm256_and_si256(
		_mm256_cmpeq_epi8(_mm256_and_si256(x, bit), bit), _mm256_set1_epi8((char)val));
}
CX_INLINE vb vb_or_bits(vb x, uint64_t m, uint8_t val)
{
	return CX_V2(vb, _mm256_or_si256(x.a, vb_bits32((uint32_t)m, val)),
		_mm256_or_si256(x.b, vb_bits32((uint32_t)(m >> 32), val)));
}
CX_INLINE vb vb_gather16(const uint8_t *p, int size, int o0, int o1, int o2, int o3)
{
	(void)size;
#define LD(o) _mm_loadu_si128((const __m128i *)(p + (o)))
	return CX_V2(vb, _mm256_inserti128_si256(_mm256_castsi128_si256(LD(o0)), LD(o1), 1),
		_mm256_inserti128_si256(_mm256_castsi128_si256(LD(o2)), LD(o3), 1));
#undef LD
}
CX_INLINE v16 v16_spread4(float f0, float f1, float f2, float f3)
{
	return CX_V2(v16, _mm256_setr_ps(f0, f0, f0, f0, f1, f1, f1, f1),
		_mm256_setr_ps(f2, f2, f2, f2, f3, f3, f3, f3));
}
CX_INLINE v16 v16_f16x4(const uint8_t *p, int size, int o0, int o1, int o2, int o3)
{
	(void)size;
	uint16_t h[4];
	float f[4];
	memcpy(&h[0], p + o0, 2);
	memcpy(&h[1], p + o1, 2);
	memcpy(&h[2], p + o2, 2);
	memcpy(&h[3], p + o3, 2);
	_mm_storeu_ps(f, _mm_cvtph_ps(_mm_setr_epi16(
						 (short)h[0], (short)h[1], (short)h[2], (short)h[3], 0, 0, 0, 0)));
	return v16_spread4(f[0], f[1], f[2], f[3]);
}
CX_INLINE v16i v16i_spread(uint64_t x, int i0, int i1, int i2, int i3)
{
#define D2(i) ((long long)(((uint64_t)(i) << 24 | 0x808080u) * 0x100000001u))
	__m256i v = _mm256_set1_epi64x((long long)x);
	__m256i a = _mm256_shuffle_epi8(v, _mm256_setr_epi64x(D2(i0), D2(i0), D2(i1), D2(i1)));
	__m256i b = _mm256_shuffle_epi8(v, _mm256_setr_epi64x(D2(i2), D2(i2), D2(i3), D2(i3)));
#undef D2
	return CX_V2(v16i, _mm256_srai_epi32(a, 24), _mm256_srai_epi32(b, 24));
}

CX_INLINE v16i v16i_dot16(v16i acc, vb w, vb a)
{
	return CX_V2(v16i, _mm256_add_epi32(acc.a, _mm256_madd_epi16(w.a, a.a)),
		_mm256_add_epi32(acc.b, _mm256_madd_epi16(w.b, a.b)));
}
#define CX_HAVE_DOT8 0
#define CX_HAVE_BF16 0
CX_INLINE vb v16_as_vb(v16 x)
{
	return CX_V2(vb, _mm256_castps_si256(x.a), _mm256_castps_si256(x.b));
}
CX_INLINE void v16__transpose8(__m256 x[8])
{
	__m256 t[8];
	CX_UNROLL
	for (int i = 0; i < 8; i += 4) {
		__m256 a = _mm256_unpacklo_ps(x[i], x[i + 1]), b = _mm256_unpackhi_ps(x[i], x[i + 1]);
		__m256 c = _mm256_unpacklo_ps(x[i + 2], x[i + 3]),
			   d = _mm256_unpackhi_ps(x[i + 2], x[i + 3]);
		t[i] = _mm256_shuffle_ps(a, c, 0x44);
		t[i + 1] = _mm256_shuffle_ps(a, c, 0xee);
		t[i + 2] = _mm256_shuffle_ps(b, d, 0x44);
		t[i + 3] = _mm256_shuffle_ps(b, d, 0xee);
	}
	CX_UNROLL
	for (int i = 0; i < 4; i++) {
		x[i] = _mm256_permute2f128_ps(t[i], t[4 + i], 0x20);
		x[4 + i] = _mm256_permute2f128_ps(t[i], t[4 + i], 0x31);
	}
}
/* Lane j of x[i] and lane i of x[j] change places. */
CX_INLINE void v16_transpose(v16 x[16])
{
	for (int h = 0; h < 4; h++) { /* quarters of 8 x 8 */
		__m256 t[8];
		if (h == 2) continue; /* together with 1 */
		for (int i = 0; i < 8; i++) t[i] = h == 0 ? x[i].a : h == 1 ? x[i].b : x[8 + i].b;
		v16__transpose8(t);
		if (h == 1) {
			__m256 u[8];
			for (int i = 0; i < 8; i++) u[i] = x[8 + i].a;
			v16__transpose8(u);
			for (int i = 0; i < 8; i++) x[i].b = u[i];
			for (int i = 0; i < 8; i++) x[8 + i].a = t[i];
		} else
			for (int i = 0; i < 8; i++) {
				if (h == 0) x[i].a = t[i];
				else x[8 + i].b = t[i];
			}
	}
}
CX_INLINE vb vb_even16(vb x)
{
	__m256i m = _mm256_set1_epi16(0xff);
	return CX_V2(vb, _mm256_and_si256(x.a, m), _mm256_and_si256(x.b, m));
}
CX_INLINE vb vb_odd16(vb x)
{
	return CX_V2(vb, _mm256_srli_epi16(x.a, 8), _mm256_srli_epi16(x.b, 8));
}
CX_INLINE vb vb_sub16(vb x, int16_t z)
{
	__m256i v = _mm256_set1_epi16(z);
	return CX_V2(vb, _mm256_sub_epi16(x.a, v), _mm256_sub_epi16(x.b, v));
}
CX_INLINE vb vb_mul16(vb x, v16i s)
{
	v16i p = v16i_or(v16i_and(s, v16i_set1(0xffff)), v16i_sll(s, 16));
	return CX_V2(vb, _mm256_mullo_epi16(x.a, p.a), _mm256_mullo_epi16(x.b, p.b));
}
CX_INLINE vb vb_load(const void *p)
{
	return CX_V2(
		vb, _mm256_loadu_si256((const __m256i *)p), _mm256_loadu_si256((const __m256i *)p + 1));
}
CX_INLINE void vb_store(void *p, vb x)
{
	_mm256_storeu_si256((__m256i *)p, x.a);
	_mm256_storeu_si256((__m256i *)p + 1, x.b);
}
CX_INLINE void v16i_sum_groups(int32_t *out, v16i x)
{
	__m256i h = _mm256_hadd_epi32(x.a, x.b); /* a01 a23 b01 b23 | a45 a67 b45 b67 */
	h = _mm256_hadd_epi32(h, h);
	_mm_storeu_si128((__m128i *)out,
		_mm_unpacklo_epi32(_mm256_castsi256_si128(h), _mm256_extracti128_si256(h, 1)));
}
CX_INLINE void v16i_store_pairs(int16_t *even, int16_t *odd, v16i x)
{
	__m256i lo = _mm256_set1_epi64x(0xffff), e, o;
	__m256i ea = _mm256_and_si256(x.a, lo),
			eb = _mm256_and_si256(x.b, lo); /* one value in 64 bits */
	__m256i oa = _mm256_and_si256(_mm256_srli_epi64(x.a, 32), lo),
			ob = _mm256_and_si256(_mm256_srli_epi64(x.b, 32), lo);
	e = _mm256_packus_epi32(ea, eb); /* a0 0 a1 0 b0 0 b1 0 | a2 .. */
	o = _mm256_packus_epi32(oa, ob);
	e = _mm256_permute4x64_epi64(
		_mm256_packus_epi32(e, o), 0xd8); /* a0 a1 b0 b1 of e, of o | ... */
	e = _mm256_permutevar8x32_epi32(e, _mm256_setr_epi32(0, 2, 1, 3, 4, 6, 5, 7));
	_mm_storeu_si128((__m128i *)even, _mm256_castsi256_si128(e));
	_mm_storeu_si128((__m128i *)odd, _mm256_extracti128_si256(e, 1));
}
CX_INLINE void v16i_store_i8(void *p, v16i x)
{
	__m256i m = _mm256_set1_epi32(0xff);
	__m256i r = _mm256_packus_epi32(_mm256_and_si256(x.a, m), _mm256_and_si256(x.b, m));
	r = _mm256_permute4x64_epi64(r, 0xd8);
	_mm_storeu_si128(
		(__m128i *)p, _mm_packus_epi16(_mm256_castsi256_si128(r), _mm256_extracti128_si256(r, 1)));
}
/* Groups i0..i3 of the eight of a (0..3) and b (4..7). */
CX_INLINE vb vb_pick(vb a, vb b, int i0, int i1, int i2, int i3)
{
	uint8_t t[128];
	vb_store(t, a);
	vb_store(t + 64, b);
	return vb_gather16(t, 128, 16 * i0, 16 * i1, 16 * i2, 16 * i3);
}
/* x | (bits of the 16 bytes at p, the one at n_i moved to position `up` in group i) & mask << up.
 */
CX_INLINE vb vb_or_field(
	vb x, const uint8_t *p, int n0, int n1, int n2, int n3, uint8_t mask, int up)
{
	vb f = vb_and(vb_srl4(vb_gather16(p, 16, 0, 0, 0, 0), n0, n1, n2, n3), vb_set1(mask));
	return vb_or(x, up ? vb_sll(f, up) : f);
}
/* Eight scales and mins, one per byte, times d and -dmin (halves at p): those of blocks j..j+3 to
 * lanes. */
CX_INLINE void v16_scale_min(const uint8_t *p, uint64_t sc, uint64_t mn, int j, v16 *d, v16 *m)
{
	*d = v16_mul(v16i_to_f(v16i_spread(sc, j, j + 1, j + 2, j + 3)), v16_set1(cx__f16_at(p)));
	*m = v16_mul(v16i_to_f(v16i_spread(mn, j, j + 1, j + 2, j + 3)), v16_set1(-cx__f16_at(p + 2)));
}
#define vb_keep(x) ((void)0)
#define v16_keep(x) ((void)0)
#undef CX_V2

#endif
