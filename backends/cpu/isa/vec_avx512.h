/* vec_avx512.h - vec.h for AVX-512 F, BW, DQ, VL with VNNI and VBMI. */
#ifndef CX_CPU_VEC_AVX512_H
#define CX_CPU_VEC_AVX512_H

#include <immintrin.h>

typedef __m512 v16;
typedef __m512i v16i;
typedef __mmask16 v16m;
typedef __m512i vb;

CX_INLINE v16 v16_load(const float *p)
{
	return _mm512_loadu_ps(p);
}
CX_INLINE void v16_store(float *p, v16 x)
{
	_mm512_storeu_ps(p, x);
}
CX_INLINE __mmask16 v16_first(size_t n)
{
	return (__mmask16)(n >= 16 ? 0xffffu : (1u << n) - 1u);
}
CX_INLINE v16 v16_load_n(const float *p, size_t n)
{
	return _mm512_maskz_loadu_ps(v16_first(n), p);
}
CX_INLINE void v16_store_n(float *p, v16 x, size_t n)
{
	_mm512_mask_storeu_ps(p, v16_first(n), x);
}
CX_INLINE v16 v16_set1(float x)
{
	return _mm512_set1_ps(x);
}
CX_INLINE v16 v16_add(v16 a, v16 b)
{
	return _mm512_add_ps(a, b);
}
CX_INLINE v16 v16_sub(v16 a, v16 b)
{
	return _mm512_sub_ps(a, b);
}
CX_INLINE v16 v16_mul(v16 a, v16 b)
{
	return _mm512_mul_ps(a, b);
}
CX_INLINE v16 v16_div(v16 a, v16 b)
{
	return _mm512_div_ps(a, b);
}
CX_INLINE v16 v16_fma(v16 a, v16 b, v16 c)
{
	return _mm512_fmadd_ps(a, b, c);
}
CX_INLINE v16 v16_fnma(v16 a, v16 b, v16 c)
{
	return _mm512_fnmadd_ps(a, b, c);
}
CX_INLINE v16 v16_max(v16 a, v16 b)
{
	return _mm512_max_ps(a, b);
}
CX_INLINE v16 v16_min(v16 a, v16 b)
{
	return _mm512_min_ps(a, b);
}
CX_INLINE v16 v16_sqrt(v16 a)
{
	return _mm512_sqrt_ps(a);
}
CX_INLINE v16 v16_rint(v16 a)
{
	return _mm512_roundscale_ps(a, 8);
}
#define CX_HAVE_SCALE 1
CX_INLINE v16 v16_scale(v16 a, v16 n) /* a 2^n, n whole, rounded once */
{
	return _mm512_scalef_ps(a, n);
}
CX_INLINE v16 v16_floor(v16 a)
{
	return _mm512_roundscale_ps(a, 9);
}
CX_INLINE v16 v16_ceil(v16 a)
{
	return _mm512_roundscale_ps(a, 10);
}
CX_INLINE v16 v16_trunc(v16 a)
{
	return _mm512_roundscale_ps(a, 11);
}

CX_INLINE v16m v16_lt(v16 a, v16 b)
{
	return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ);
}
CX_INLINE v16m v16_le(v16 a, v16 b)
{
	return _mm512_cmp_ps_mask(a, b, _CMP_LE_OQ);
}
CX_INLINE v16m v16_eq(v16 a, v16 b)
{
	return _mm512_cmp_ps_mask(a, b, _CMP_EQ_OQ);
}
CX_INLINE v16m v16m_not(v16m m)
{
	return _knot_mask16(m);
}
CX_INLINE v16m v16m_and(v16m a, v16m b)
{
	return _kand_mask16(a, b);
}
CX_INLINE v16m v16m_or(v16m a, v16m b)
{
	return _kor_mask16(a, b);
}
CX_INLINE int v16m_any(v16m m)
{
	return m != 0;
}
CX_INLINE v16 v16_select(v16m m, v16 yes, v16 no)
{
	return _mm512_mask_blend_ps(m, no, yes);
}

CX_INLINE v16i v16i_set1(int32_t x)
{
	return _mm512_set1_epi32(x);
}
CX_INLINE v16i v16i_load(const int32_t *p)
{
	return _mm512_loadu_si512(p);
}
CX_INLINE void v16i_store(int32_t *p, v16i x)
{
	_mm512_storeu_si512(p, x);
}
CX_INLINE v16i v16i_add(v16i a, v16i b)
{
	return _mm512_add_epi32(a, b);
}
CX_INLINE v16i v16i_sub(v16i a, v16i b)
{
	return _mm512_sub_epi32(a, b);
}
CX_INLINE v16i v16i_mul(v16i a, v16i b)
{
	return _mm512_mullo_epi32(a, b);
}
CX_INLINE v16i v16i_and(v16i a, v16i b)
{
	return _mm512_and_si512(a, b);
}
CX_INLINE v16i v16i_or(v16i a, v16i b)
{
	return _mm512_or_si512(a, b);
}
CX_INLINE v16i v16i_xor(v16i a, v16i b)
{
	return _mm512_xor_si512(a, b);
}
CX_INLINE v16i v16i_sll(v16i a, int n)
{
	return _mm512_slli_epi32(a, (unsigned)n);
}
CX_INLINE v16i v16i_srl(v16i a, int n)
{
	return _mm512_srli_epi32(a, (unsigned)n);
}
CX_INLINE v16i v16i_sra(v16i a, int n)
{
	return _mm512_srai_epi32(a, (unsigned)n);
}
CX_INLINE v16m v16i_eq(v16i a, v16i b)
{
	return _mm512_cmpeq_epi32_mask(a, b);
}
CX_INLINE v16m v16i_gt(v16i a, v16i b)
{
	return _mm512_cmpgt_epi32_mask(a, b);
}
CX_INLINE v16i v16_to_i(v16 a)
{
	return _mm512_cvtps_epi32(a);
} /* nearest even; |a| < 2^31 */
CX_INLINE v16 v16i_to_f(v16i a)
{
	return _mm512_cvtepi32_ps(a);
}
CX_INLINE v16i v16_as_v16i(v16 a)
{
	return _mm512_castps_si512(a);
}
CX_INLINE v16 v16i_as_v16(v16i a)
{
	return _mm512_castsi512_ps(a);
}

CX_INLINE v16 v16_load_f16(const uint16_t *p)
{
	return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p));
}
CX_INLINE void v16_store_f16(uint16_t *p, v16 x)
{
	_mm256_storeu_si256(
		(__m256i *)p, _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
CX_INLINE v16i v16i_load_u16(const uint16_t *p)
{
	return _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p));
}
CX_INLINE void v16i_store_u16(uint16_t *p, v16i x)
{
	_mm256_storeu_si256((__m256i *)p, _mm512_cvtepi32_epi16(x));
}

CX_INLINE float v16_sum(v16 x)
{
	__m256 a = _mm256_add_ps(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps(x, 1));
	__m128 b = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
	b = _mm_add_ps(b, _mm_movehl_ps(b, b));
	return _mm_cvtss_f32(_mm_add_ss(b, _mm_movehdup_ps(b)));
}
CX_INLINE float v16_hmax(v16 x) /* no NaN in x */
{
	return _mm512_reduce_max_ps(x);
}
/* y[i] = v16_sum(x[i]), eight at once: the same tree, transposed. */
CX_INLINE void v16_sum8(float *y, const v16 *x)
{
	__m256 s[8], q[4], d[2];
	CX_UNROLL
	for (int i = 0; i < 8; i++)
		s[i] = _mm256_add_ps(_mm512_castps512_ps256(x[i]), _mm512_extractf32x8_ps(x[i], 1));
	CX_UNROLL
	for (int i = 0; i < 4; i++)
		q[i] = _mm256_add_ps(_mm256_permute2f128_ps(s[i], s[i + 4], 0x20),
			_mm256_permute2f128_ps(s[i], s[i + 4], 0x31));
	CX_UNROLL
	for (int i = 0; i < 2; i++) {
		__m256d a = _mm256_castps_pd(q[2 * i]), b = _mm256_castps_pd(q[2 * i + 1]);
		d[i] = _mm256_add_ps(
			_mm256_castpd_ps(_mm256_unpacklo_pd(a, b)), _mm256_castpd_ps(_mm256_unpackhi_pd(a, b)));
	}
	_mm256_storeu_ps(
		y, _mm256_add_ps(_mm256_shuffle_ps(d[0], d[1], 0x88), _mm256_shuffle_ps(d[0], d[1], 0xdd)));
}

/* One half, little-endian, at p. */
CX_INLINE float cx__f16_at(const uint8_t *p)
{
	return _cvtsh_ss(cx__load_le16(p));
}

/* ---- bytes and integer products (quantised weights) ---- */

CX_INLINE vb vb_set1(uint8_t x)
{
	return _mm512_set1_epi8((char)x);
}
CX_INLINE vb vb_and(vb a, vb b)
{
	return _mm512_and_si512(a, b);
}
CX_INLINE vb vb_or(vb a, vb b)
{
	return _mm512_or_si512(a, b);
}
CX_INLINE vb vb_xor(vb a, vb b)
{
	return _mm512_xor_si512(a, b);
}
CX_INLINE vb vb_sll(vb a, int n)
{
	return _mm512_slli_epi16(a, (unsigned)n);
} /* bits cross bytes: mask first */
/* Group i shifted right by n_i as 64-bit words: mask after. */
CX_INLINE vb vb_srl4(vb a, int n0, int n1, int n2, int n3)
{
	if (n0 == n1 && n0 == n2 && n0 == n3) return n0 ? _mm512_srli_epi16(a, (unsigned)n0) : a;
	return _mm512_srlv_epi64(a, _mm512_setr_epi64(n0, n0, n1, n1, n2, n2, n3, n3));
}
CX_INLINE vb vb_table(const uint8_t *t16, vb idx)
{
	return _mm512_shuffle_epi8(_mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)t16)), idx);
}
/* x | val in the bytes whose bit in m is set; x has none of the bits of val. */
CX_INLINE vb vb_or_bits(vb x, uint64_t m, uint8_t val)
{
	return _mm512_mask_add_epi8(x, m, x, vb_set1(val));
}

/* Four groups of 16 bytes at constant, rising offsets from p, where `size` bytes may be read. Two
 * loads and one permutation where that fits; the first load is at p, to be shared with v16_f16x4().
 */
CX_INLINE vb vb_gather16(const uint8_t *p, int size, int o0, int o1, int o2, int o3)
{
	if (o1 == o0 + 16 && o2 == o0 + 32 && o3 == o0 + 48) return _mm512_loadu_si512(p + o0);
	if (o0 == o3) return _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)(p + o0)));
	int from = o1 + 16 <= 64 ? 0 : o0,
		then = from == 0 && o2 >= 64 && o3 + 16 <= 128 && size >= 128 ? 64 : o3 - 48;
	__m512i a = _mm512_loadu_si512(p + from), b = _mm512_loadu_si512(p + then);
	int i0 = o0 - from, i1 = o1 - from, i2 = o2 >= then ? 64 + o2 - then : o2 - from,
		i3 = 64 + o3 - then;
#define Q8B(s) ((int64_t)(((uint64_t)(s)*0x0101010101010101u) + 0x0706050403020100u))
	__m512i idx = _mm512_setr_epi64(
		Q8B(i0), Q8B(i0 + 8), Q8B(i1), Q8B(i1 + 8), Q8B(i2), Q8B(i2 + 8), Q8B(i3), Q8B(i3 + 8));
#undef Q8B
	return _mm512_permutex2var_epi8(a, idx, b);
}
/* Groups i0..i3 of the eight of a (0..3) and b (4..7). */
CX_INLINE vb vb_pick(vb a, vb b, int i0, int i1, int i2, int i3)
{
	return _mm512_permutex2var_epi64(a,
		_mm512_setr_epi64(
			2 * i0, 2 * i0 + 1, 2 * i1, 2 * i1 + 1, 2 * i2, 2 * i2 + 1, 2 * i3, 2 * i3 + 1),
		b);
}
/* x | (bits of the 16 bytes at p, the one at n_i moved to position `up` in group i) & mask << up.
 */
CX_INLINE vb vb_or_field(
	vb x, const uint8_t *p, int n0, int n1, int n2, int n3, uint8_t mask, int up)
{
#define SH(n)                                                                                      \
	((int64_t)(0x3830282018100800u + 0x0101010101010101u * (uint64_t)(64 + (n)-up)) &              \
		0x3f3f3f3f3f3f3f3f)
	__m512i idx = _mm512_setr_epi64(SH(n0), SH(n0), SH(n1), SH(n1), SH(n2), SH(n2), SH(n3), SH(n3));
#undef SH
	__m512i f = _mm512_multishift_epi64_epi8(idx, vb_gather16(p, 16, 0, 0, 0, 0));
	return _mm512_ternarylogic_epi64(x, f, vb_set1((uint8_t)(mask << up)), 0xf8);
}
/* Four halves at constant, rising offsets from p, each to four lanes; at least 64 bytes of `size`
 * may be read. */
CX_INLINE v16 v16_f16x4(const uint8_t *p, int size, int o0, int o1, int o2, int o3)
{
	__m512i a = _mm512_loadu_si512(p), idx, w;
	int then = o3 + 2 <= 64 ? 0 : o2 >= 64 && size >= 128 ? 64 : o3 + 2 - 64;
	int i2 = o2 + 2 <= 64 ? o2 / 2 : 32 + (o2 - then) / 2,
		i3 = then ? 32 + (o3 - then) / 2 : o3 / 2;
#define Q4W(s) ((int64_t)((uint64_t)(s)*0x0001000100010001u))
	idx = _mm512_setr_epi64(Q4W(o0 / 2), Q4W(o1 / 2), Q4W(i2), Q4W(i3), 0, 0, 0, 0);
#undef Q4W
	w = then ? _mm512_permutex2var_epi16(a, idx, _mm512_loadu_si512(p + then))
			 : _mm512_permutexvar_epi16(idx, a);
	return _mm512_cvtph_ps(_mm512_castsi512_si256(w));
}
/* Eight scales and mins, one per byte, times d and -dmin (halves at p): those of blocks j..j+3 to
 * lanes. */
CX_INLINE void v16_scale_min(const uint8_t *p, uint64_t sc, uint64_t mn, int j, v16 *d, v16 *m)
{
	uint32_t h = (uint32_t)cx__load_le16(p) | (uint32_t)(cx__load_le16(p + 2) ^ 0x8000) << 16;
	__m512 f = _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_set_epi64x((int64_t)mn, (int64_t)sc)));
	__m512 s =
		_mm512_permutexvar_ps(_mm512_setr_epi32(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1),
			_mm512_castps128_ps512(_mm_cvtph_ps(_mm_cvtsi32_si128((int32_t)h))));
	f = _mm512_mul_ps(f, s);
#define IDX(j)                                                                                     \
	_mm512_setr_epi32(j, j, j, j, j + 1, j + 1, j + 1, j + 1, j + 2, j + 2, j + 2, j + 2, j + 3,   \
		j + 3, j + 3, j + 3)
	*d = _mm512_permutexvar_ps(IDX(j), f);
	*m = _mm512_permutexvar_ps(IDX(8 + j), f);
#undef IDX
}
/* Stays in a register: the compiler would otherwise load it again for every use. */
#define vb_keep(x) __asm__("" : "+v"(x))
#define v16_keep(x) __asm__("" : "+v"(x))
CX_INLINE v16 v16_spread4(float f0, float f1, float f2, float f3)
{
	__m512 x = _mm512_castps128_ps512(_mm_setr_ps(f0, f1, f2, f3));
	return _mm512_permutexvar_ps(
		_mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3), x);
}
/* Signed byte i_g of x to the four lanes of group g. */
CX_INLINE v16i v16i_spread(uint64_t x, int i0, int i1, int i2, int i3)
{
#define D2(i) ((int64_t)(((uint64_t)(i) << 24 | 0x808080u) * 0x100000001u))
	__m512i idx = _mm512_setr_epi64(D2(i0), D2(i0), D2(i1), D2(i1), D2(i2), D2(i2), D2(i3), D2(i3));
#undef D2
	return _mm512_srai_epi32(_mm512_shuffle_epi8(_mm512_set1_epi64((int64_t)x), idx), 24);
}

/* 32 int16 pairs: lane j += w[2j]*a[2j] + w[2j+1]*a[2j+1]. */
CX_INLINE v16i v16i_dot16(v16i acc, vb w, vb a)
{
	return _mm512_dpwssd_epi32(acc, w, a);
}
/* Unsigned bytes of w times signed bytes of a: lane j += the four products of bytes 4j..4j+3. */
#define CX_HAVE_DOT8 1
CX_INLINE v16i v16i_dot8(v16i acc, vb w, vb a)
{
	return _mm512_dpbusd_epi32(acc, w, a);
}
/* Pairs of bf16: lane j += w[2j+1]*a[2j+1], then += w[2j]*a[2j]; subnormals count as 0. */
#define CX_HAVE_BF16 1
CX_INLINE v16 v16_dot_bf16(v16 acc, vb w, vb a)
{
	return _mm512_dpbf16_ps(acc, (__m512bh)w, (__m512bh)a);
}
CX_INLINE vb v16_as_vb(v16 x)
{
	return _mm512_castps_si512(x);
}
/* Lane j of x[i] and lane i of x[j] change places. */
CX_INLINE void v16_transpose(v16 x[16])
{
	__m512 t[16];
	CX_UNROLL
	for (int i = 0; i < 16; i += 4) {
		__m512 a = _mm512_unpacklo_ps(x[i], x[i + 1]), b = _mm512_unpackhi_ps(x[i], x[i + 1]);
		__m512 c = _mm512_unpacklo_ps(x[i + 2], x[i + 3]),
			   d = _mm512_unpackhi_ps(x[i + 2], x[i + 3]);
		t[i] = _mm512_shuffle_ps(a, c, 0x44);
		t[i + 1] = _mm512_shuffle_ps(a, c, 0xee);
		t[i + 2] = _mm512_shuffle_ps(b, d, 0x44);
		t[i + 3] = _mm512_shuffle_ps(b, d, 0xee);
	}
	CX_UNROLL
	for (int i = 0; i < 4; i++) { /* t[4g+i]: lanes i, 4+i, 8+i, 12+i of rows 4g.. */
		__m512 a = _mm512_shuffle_f32x4(t[i], t[4 + i], 0x88),
			   b = _mm512_shuffle_f32x4(t[8 + i], t[12 + i], 0x88);
		__m512 c = _mm512_shuffle_f32x4(t[i], t[4 + i], 0xdd),
			   d = _mm512_shuffle_f32x4(t[8 + i], t[12 + i], 0xdd);
		x[i] = _mm512_shuffle_f32x4(a, b, 0x88);
		x[8 + i] = _mm512_shuffle_f32x4(a, b, 0xdd);
		x[4 + i] = _mm512_shuffle_f32x4(c, d, 0x88);
		x[12 + i] = _mm512_shuffle_f32x4(c, d, 0xdd);
	}
}
/* Even and odd bytes as 32 unsigned 16-bit values; 16-bit difference and product. */
CX_INLINE vb vb_even16(vb x)
{
	return _mm512_and_si512(x, _mm512_set1_epi16(0xff));
}
CX_INLINE vb vb_odd16(vb x)
{
	return _mm512_srli_epi16(x, 8);
}
CX_INLINE vb vb_sub16(vb x, int16_t z)
{
	return _mm512_sub_epi16(x, _mm512_set1_epi16(z));
}
CX_INLINE vb vb_mul16(vb x, v16i s) /* s: 16-bit factors, one per lane of 32 bits */
{
	v16i p =
		_mm512_or_si512(_mm512_and_si512(s, _mm512_set1_epi32(0xffff)), _mm512_slli_epi32(s, 16));
	return _mm512_mullo_epi16(x, p);
}
CX_INLINE vb vb_load(const void *p)
{
	return _mm512_loadu_si512(p);
}
CX_INLINE void vb_store(void *p, vb x)
{
	_mm512_storeu_si512(p, x);
}
/* out[j] = lanes 4j + 4j+1 + 4j+2 + 4j+3. */
CX_INLINE void v16i_sum_groups(int32_t *out, v16i x)
{
	x = _mm512_add_epi32(x, _mm512_shuffle_epi32(x, _MM_PERM_CDAB));
	x = _mm512_add_epi32(x, _mm512_shuffle_epi32(x, _MM_PERM_BADC));
	_mm_storeu_si128(
		(__m128i *)out, _mm512_castsi512_si128(_mm512_maskz_compress_epi32(0x1111, x)));
}
/* Lanes 0, 2 .. 14 and 1, 3 .. 15 as eight 16-bit values each. */
CX_INLINE void v16i_store_pairs(int16_t *even, int16_t *odd, v16i x)
{
	__m256i h = _mm512_cvtepi32_epi16(x);
	h = _mm256_permutexvar_epi16(
		_mm256_setr_epi16(0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15), h);
	_mm_storeu_si128((__m128i *)even, _mm256_castsi256_si128(h));
	_mm_storeu_si128((__m128i *)odd, _mm256_extracti128_si256(h, 1));
}
/* Low byte of each lane, 16 bytes. */
CX_INLINE void v16i_store_i8(void *p, v16i x)
{
	_mm_storeu_si128((__m128i *)p, _mm512_cvtepi32_epi8(x));
}

#endif
