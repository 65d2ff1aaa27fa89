/* quant.c - the quantised block formats of spec/llm.md 3.5, one function per format and direction,
 * plain loops. */
#include "graph/quant.h"

#include <math.h>

const int8_t cx__iq4_values[16] = {
	-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};
const int8_t cx__mxfp4_values[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

static uint32_t load_le32(const uint8_t *p)
{
	return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}
static void store_f16(uint8_t *p, float f)
{
	uint16_t h = cx_f32_to_f16(f);
	p[0] = (uint8_t)h;
	p[1] = (uint8_t)(h >> 8);
}
static int nibble(const uint8_t *qs, int i)
{
	return qs[i & 15] >> (4 * (i >> 4)) & 15;
}
static void set_nibble(uint8_t *qs, int i, int v)
{
	qs[i & 15] |= (uint8_t)(v << (4 * (i >> 4)));
}

/* The pair j of the 12 bytes that hold eight 6-bit scales and mins (Q4_K, Q5_K). */
static void scale_min_get(const uint8_t *s, int j, int *sc, int *mn)
{
	*sc = j < 4 ? s[j] & 63 : (s[j + 4] & 15) | (s[j - 4] >> 6) << 4;
	*mn = j < 4 ? s[j + 4] & 63 : s[j + 4] >> 4 | (s[j] >> 6) << 4;
}
static void scale_min_set(uint8_t *s, int j, int sc, int mn)
{
	if (j < 4) {
		s[j] |= (uint8_t)sc;
		s[j + 4] |= (uint8_t)mn;
	} else {
		s[j + 4] |= (uint8_t)((sc & 15) | (mn & 15) << 4);
		s[j - 4] |= (uint8_t)((sc >> 4) << 6);
		s[j] |= (uint8_t)((mn >> 4) << 6);
	}
}

/* ---- blocks to f32 ---- */

static void deq_q8_0(const uint8_t *p, float *y)
{
	float d = cx_f16_load(p);
	for (int i = 0; i < 32; i++) y[i] = d * (float)(int8_t)p[2 + i];
}
static void deq_q4_0(const uint8_t *p, float *y)
{
	float d = cx_f16_load(p);
	for (int i = 0; i < 32; i++) y[i] = d * (float)(nibble(p + 2, i) - 8);
}
static void deq_q4_1(const uint8_t *p, float *y)
{
	float d = cx_f16_load(p), m = cx_f16_load(p + 2);
	for (int i = 0; i < 32; i++) y[i] = d * (float)nibble(p + 4, i) + m;
}
static void deq_q5_0(const uint8_t *p, float *y)
{
	float d = cx_f16_load(p);
	uint32_t qh = load_le32(p + 2);
	for (int i = 0; i < 32; i++)
		y[i] = d * (float)((nibble(p + 6, i) | (int)(qh >> i & 1) << 4) - 16);
}
static void deq_q5_1(const uint8_t *p, float *y)
{
	float d = cx_f16_load(p), m = cx_f16_load(p + 2);
	uint32_t qh = load_le32(p + 4);
	for (int i = 0; i < 32; i++) y[i] = d * (float)(nibble(p + 8, i) | (int)(qh >> i & 1) << 4) + m;
}
static void deq_iq4_nl(const uint8_t *p, float *y)
{
	float d = cx_f16_load(p);
	for (int i = 0; i < 32; i++) y[i] = d * (float)cx__iq4_values[nibble(p + 2, i)];
}
static void deq_mxfp4(const uint8_t *p, float *y)
{
	float d = cx_e8m0_to_f32(p[0]); /* the table holds doubled values; 0.5 * integer is exact */
	for (int i = 0; i < 32; i++) {
		int n = nibble(p + 1, i);
		y[i] = d * (n == 8 ? -0.0f : 0.5f * (float)cx__mxfp4_values[n]);
	}
}
static void deq_q2_k(const uint8_t *p, float *y)
{
	float d = cx_f16_load(p + 80), dmin = cx_f16_load(p + 82);
	for (int i = 0; i < 256; i++) {
		int h = i >> 7, r = i & 127, s = p[i >> 4];
		int n = p[16 + 32 * h + (r & 31)] >> (2 * (r >> 5)) & 3;
		y[i] = d * (float)(s & 15) * (float)n - dmin * (float)(s >> 4);
	}
}
static int q3_k_scale(const uint8_t *sc, int t)
{
	int lo = t < 8 ? sc[t] & 15 : sc[t - 8] >> 4, hi = sc[8 + (t & 3)] >> (2 * (t >> 2)) & 3;
	return (lo | hi << 4) - 32;
}
static void deq_q3_k(const uint8_t *p, float *y)
{
	float d = cx_f16_load(p + 108);
	for (int i = 0; i < 256; i++) {
		int h = i >> 7, r = i & 127;
		int n = p[32 + 32 * h + (r & 31)] >> (2 * (r >> 5)) & 3, hb = p[r & 31] >> (i >> 5) & 1;
		y[i] = d * (float)q3_k_scale(p + 96, i >> 4) * (float)(n - (hb ? 0 : 4));
	}
}
static void deq_q45_k(const uint8_t *p, float *y, const uint8_t *qh, const uint8_t *qs)
{
	float d = cx_f16_load(p), dmin = cx_f16_load(p + 2);
	for (int i = 0; i < 256; i++) {
		int j = i >> 5, l = i & 31, sc, mn, n = qs[32 * (j >> 1) + l] >> (4 * (j & 1)) & 15;
		if (qh) n |= (qh[l] >> j & 1) << 4;
		scale_min_get(p + 4, j, &sc, &mn);
		y[i] = d * (float)sc * (float)n - dmin * (float)mn;
	}
}
static void deq_q4_k(const uint8_t *p, float *y)
{
	deq_q45_k(p, y, NULL, p + 16);
}
static void deq_q5_k(const uint8_t *p, float *y)
{
	deq_q45_k(p, y, p + 16, p + 48);
}
static void deq_q6_k(const uint8_t *p, float *y)
{
	float d = cx_f16_load(p + 208);
	for (int i = 0; i < 256; i++) {
		int h = i >> 7, r = i & 127, g = r >> 5, l = r & 31;
		int lo = p[64 * h + 32 * (g & 1) + l] >> (4 * (g >> 1)) & 15,
			hi = p[128 + 32 * h + l] >> (2 * g) & 3;
		y[i] = d * (float)(int8_t)p[192 + (i >> 4)] * (float)((lo | hi << 4) - 32);
	}
}
static void deq_iq4_xs(const uint8_t *p, float *y)
{
	float d = cx_f16_load(p);
	int sh = cx__load_le16(p + 2);
	for (int i = 0; i < 256; i++) {
		int j = i >> 5, ls = (p[4 + (j >> 1)] >> (4 * (j & 1)) & 15) | (sh >> (2 * j) & 3) << 4;
		y[i] = d * (float)(ls - 32) * (float)cx__iq4_values[nibble(p + 8 + 16 * j, i & 31)];
	}
}

/* ---- f32 to blocks ---- */

static int clamp_i(float x, int lo, int hi) /* nearest even, NaN to lo */
{
	float r = rintf(x);
	return r >= (float)hi ? hi : r > (float)lo ? (int)r : lo;
}
static float inverse(float d)
{
	return d != 0.0f ? 1.0f / d : 0.0f;
}
/* Of the largest magnitude, with its sign. */
static float extreme(const float *x, int n)
{
	float e = 0.0f;
	for (int i = 0; i < n; i++)
		if (fabsf(x[i]) > fabsf(e)) e = x[i];
	return e;
}
static void range(const float *x, int n, float *lo, float *hi)
{
	*lo = *hi = x[0];
	for (int i = 1; i < n; i++) {
		if (x[i] < *lo) *lo = x[i];
		if (x[i] > *hi) *hi = x[i];
	}
}
static int nearest(const int8_t *table, float x) /* index of the nearest of 16 values */
{
	int best = 0;
	for (int i = 1; i < 16; i++)
		if (fabsf(x - (float)table[i]) < fabsf(x - (float)table[best])) best = i;
	return best;
}

static void q_q8_0(const float *x, uint8_t *p)
{
	float d = fabsf(extreme(x, 32)) / 127.0f, inv = inverse(d);
	store_f16(p, d);
	for (int i = 0; i < 32; i++) p[2 + i] = (uint8_t)clamp_i(x[i] * inv, -127, 127);
}
static void q_q4_0(const float *x, uint8_t *p)
{
	float d = extreme(x, 32) / -8.0f, inv = inverse(d);
	store_f16(p, d);
	for (int i = 0; i < 32; i++) set_nibble(p + 2, i, clamp_i(x[i] * inv, -8, 7) + 8);
}
static void q_q4_1(const float *x, uint8_t *p)
{
	float lo, hi, d, inv;
	range(x, 32, &lo, &hi);
	d = (hi - lo) / 15.0f;
	inv = inverse(d);
	store_f16(p, d);
	store_f16(p + 2, lo);
	for (int i = 0; i < 32; i++) set_nibble(p + 4, i, clamp_i((x[i] - lo) * inv, 0, 15));
}
static void set_q5(uint8_t *qh, uint8_t *qs, int i, int v)
{
	set_nibble(qs, i, v & 15);
	qh[i >> 3] |= (uint8_t)((v >> 4) << (i & 7));
}
static void q_q5_0(const float *x, uint8_t *p)
{
	float d = extreme(x, 32) / -16.0f, inv = inverse(d);
	store_f16(p, d);
	for (int i = 0; i < 32; i++) set_q5(p + 2, p + 6, i, clamp_i(x[i] * inv, -16, 15) + 16);
}
static void q_q5_1(const float *x, uint8_t *p)
{
	float lo, hi, d, inv;
	range(x, 32, &lo, &hi);
	d = (hi - lo) / 31.0f;
	inv = inverse(d);
	store_f16(p, d);
	store_f16(p + 2, lo);
	for (int i = 0; i < 32; i++) set_q5(p + 4, p + 8, i, clamp_i((x[i] - lo) * inv, 0, 31));
}
static void q_iq4_nl(const float *x, uint8_t *p)
{
	float d = extreme(x, 32) / -127.0f, inv = inverse(d);
	store_f16(p, d);
	for (int i = 0; i < 32; i++) set_nibble(p + 2, i, nearest(cx__iq4_values, x[i] * inv));
}
static void q_mxfp4(const float *x, uint8_t *p)
{
	float a = fabsf(extreme(x, 32)), inv;
	int e = a > 0.0f && isfinite(a) ? ilogbf(a) - 2 + 127 : 0; /* the largest value is 1.5 * 2^2 */
	p[0] = (uint8_t)(e < 0 ? 0 : e > 254 ? 254 : e);
	inv = 2.0f / cx_e8m0_to_f32(p[0]);
	for (int i = 0; i < 32; i++) set_nibble(p + 1, i, nearest(cx__mxfp4_values, x[i] * inv));
}

/* K types with mins: group g of `len` has scale (hi - min) / qmax and min = -least(0, lo), both
 * quantised to smax steps of d and dmin. Gives the steps; the caller stores d and dmin as halves,
 * and q comes from the rounded halves. */
typedef struct {
	float d, dmin;
	int sc[16], mn[16];
} k_scales;
static void k_scales_min(const float *x, int n_groups, int len, int qmax, int smax, k_scales *k)
{
	float s[16], m[16], s_max = 0.0f, m_max = 0.0f;
	for (int g = 0; g < n_groups; g++) {
		float lo, hi;
		range(x + g * len, len, &lo, &hi);
		if (lo > 0.0f) lo = 0.0f;
		if (hi < lo) hi = lo;
		s[g] = (hi - lo) / (float)qmax;
		m[g] = -lo;
		s_max = s[g] > s_max ? s[g] : s_max;
		m_max = m[g] > m_max ? m[g] : m_max;
	}
	k->d = cx_f16_to_f32(cx_f32_to_f16(s_max / (float)smax));
	k->dmin = cx_f16_to_f32(cx_f32_to_f16(m_max / (float)smax));
	for (int g = 0; g < n_groups; g++) {
		k->sc[g] = clamp_i(s[g] * inverse(k->d), 0, smax);
		k->mn[g] = clamp_i(m[g] * inverse(k->dmin), 0, smax);
	}
}
static int k_value(const k_scales *k, int g, float x, int qmax)
{
	return clamp_i((x + k->dmin * (float)k->mn[g]) * inverse(k->d * (float)k->sc[g]), 0, qmax);
}
/* K types without mins: scale of group g, signed, so that its extreme value becomes -qmin. */
static void k_scales_sym(
	const float *x, int n_groups, int len, int qmin, int smin, int smax, k_scales *k)
{
	float s[16], e;
	for (int g = 0; g < n_groups; g++) s[g] = extreme(x + g * len, len) / (float)-qmin;
	e = extreme(s, n_groups);
	k->d = cx_f16_to_f32(cx_f32_to_f16(e / (float)-smin));
	for (int g = 0; g < n_groups; g++) k->sc[g] = clamp_i(s[g] * inverse(k->d), -smin, smax);
}

static void q_q2_k(const float *x, uint8_t *p)
{
	k_scales k;
	k_scales_min(x, 16, 16, 3, 15, &k);
	store_f16(p + 80, k.d);
	store_f16(p + 82, k.dmin);
	for (int g = 0; g < 16; g++) p[g] = (uint8_t)(k.sc[g] | k.mn[g] << 4);
	for (int i = 0; i < 256; i++)
		p[16 + 32 * (i >> 7) + (i & 31)] |=
			(uint8_t)(k_value(&k, i >> 4, x[i], 3) << (2 * (i >> 5 & 3)));
}
static void q_q3_k(const float *x, uint8_t *p)
{
	k_scales k;
	k_scales_sym(x, 16, 16, 4, 32, 31, &k);
	store_f16(p + 108, k.d);
	for (int t = 0; t < 16; t++) {
		int v = k.sc[t] + 32;
		p[96 + (t & 7)] |= (uint8_t)((v & 15) << (t < 8 ? 0 : 4));
		p[104 + (t & 3)] |= (uint8_t)((v >> 4) << (2 * (t >> 2)));
	}
	for (int i = 0; i < 256; i++) {
		int v = clamp_i(x[i] * inverse(k.d * (float)k.sc[i >> 4]), -4, 3) + 4;
		p[32 + 32 * (i >> 7) + (i & 31)] |= (uint8_t)((v & 3) << (2 * (i >> 5 & 3)));
		p[i & 31] |= (uint8_t)((v >> 2) << (i >> 5));
	}
}
static void q_q45_k(const float *x, uint8_t *p, uint8_t *qh, uint8_t *qs)
{
	k_scales k;
	k_scales_min(x, 8, 32, qh ? 31 : 15, 63, &k);
	store_f16(p, k.d);
	store_f16(p + 2, k.dmin);
	for (int j = 0; j < 8; j++) scale_min_set(p + 4, j, k.sc[j], k.mn[j]);
	for (int i = 0; i < 256; i++) {
		int j = i >> 5, l = i & 31, v = k_value(&k, j, x[i], qh ? 31 : 15);
		qs[32 * (j >> 1) + l] |= (uint8_t)((v & 15) << (4 * (j & 1)));
		if (qh) qh[l] |= (uint8_t)((v >> 4) << j);
	}
}
static void q_q4_k(const float *x, uint8_t *p)
{
	q_q45_k(x, p, NULL, p + 16);
}
static void q_q5_k(const float *x, uint8_t *p)
{
	q_q45_k(x, p, p + 16, p + 48);
}
static void q_q6_k(const float *x, uint8_t *p)
{
	k_scales k;
	k_scales_sym(x, 16, 16, 32, 128, 127, &k);
	store_f16(p + 208, k.d);
	for (int t = 0; t < 16; t++) p[192 + t] = (uint8_t)k.sc[t];
	for (int i = 0; i < 256; i++) {
		int h = i >> 7, g = i >> 5 & 3, l = i & 31;
		int v = clamp_i(x[i] * inverse(k.d * (float)k.sc[i >> 4]), -32, 31) + 32;
		p[64 * h + 32 * (g & 1) + l] |= (uint8_t)((v & 15) << (4 * (g >> 1)));
		p[128 + 32 * h + l] |= (uint8_t)((v >> 4) << (2 * g));
	}
}
static void q_iq4_xs(const float *x, uint8_t *p)
{
	k_scales k;
	unsigned sh = 0;
	k_scales_sym(x, 8, 32, 127, 32, 31, &k);
	store_f16(p, k.d);
	for (int j = 0; j < 8; j++) {
		int ls = k.sc[j] + 32;
		p[4 + (j >> 1)] |= (uint8_t)((ls & 15) << (4 * (j & 1)));
		sh |= (unsigned)(ls >> 4) << (2 * j);
	}
	p[2] = (uint8_t)sh;
	p[3] = (uint8_t)(sh >> 8);
	for (int i = 0; i < 256; i++) {
		int j = i >> 5;
		set_nibble(
			p + 8 + 16 * j, i & 31, nearest(cx__iq4_values, x[i] * inverse(k.d * (float)k.sc[j])));
	}
}

/* ---- rows ---- */

typedef struct {
	void (*deq)(const uint8_t *, float *);
	void (*quant)(const float *, uint8_t *);
} codec;
static const codec codecs[CX_DTYPE_COUNT] = {
	[CX_Q8_0] = {deq_q8_0, q_q8_0},
	[CX_Q4_0] = {deq_q4_0, q_q4_0},
	[CX_Q4_1] = {deq_q4_1, q_q4_1},
	[CX_Q5_0] = {deq_q5_0, q_q5_0},
	[CX_Q5_1] = {deq_q5_1, q_q5_1},
	[CX_Q2_K] = {deq_q2_k, q_q2_k},
	[CX_Q3_K] = {deq_q3_k, q_q3_k},
	[CX_Q4_K] = {deq_q4_k, q_q4_k},
	[CX_Q5_K] = {deq_q5_k, q_q5_k},
	[CX_Q6_K] = {deq_q6_k, q_q6_k},
	[CX_IQ4_NL] = {deq_iq4_nl, q_iq4_nl},
	[CX_IQ4_XS] = {deq_iq4_xs, q_iq4_xs},
	[CX_MXFP4] = {deq_mxfp4, q_mxfp4},
};

bool cx_dequant_row(cx_dtype dtype, const void *src, float *dst, int64_t n)
{
	const cx_dtype_info *t;
	const uint16_t *h = src;
	if ((unsigned)dtype >= CX_DTYPE_COUNT || n < 0) return false;
	if (dtype == CX_F32) memcpy(dst, src, (size_t)n * sizeof *dst);
	else if (dtype == CX_F16)
		for (int64_t i = 0; i < n; i++) dst[i] = cx_f16_to_f32(h[i]);
	else if (dtype == CX_BF16)
		for (int64_t i = 0; i < n; i++) dst[i] = cx_bf16_to_f32(h[i]);
	else {
		t = cx_dtype_get(dtype);
		if (!codecs[dtype].deq || n % t->block_elems) return false;
		for (int64_t i = 0; i < n / t->block_elems; i++)
			codecs[dtype].deq((const uint8_t *)src + i * t->block_bytes, dst + i * t->block_elems);
	}
	return true;
}

bool cx_quant_row(cx_dtype dtype, const float *src, void *dst, int64_t n)
{
	const cx_dtype_info *t;
	uint16_t *h = dst;
	if ((unsigned)dtype >= CX_DTYPE_COUNT || n < 0) return false;
	if (dtype == CX_F32) memcpy(dst, src, (size_t)n * sizeof *src);
	else if (dtype == CX_F16)
		for (int64_t i = 0; i < n; i++) h[i] = cx_f32_to_f16(src[i]);
	else if (dtype == CX_BF16)
		for (int64_t i = 0; i < n; i++) h[i] = cx_f32_to_bf16(src[i]);
	else {
		t = cx_dtype_get(dtype);
		if (!codecs[dtype].quant || n % t->block_elems) return false;
		memset(dst, 0, (size_t)(n / t->block_elems * t->block_bytes)); /* the codecs set bits */
		for (int64_t i = 0; i < n / t->block_elems; i++)
			codecs[dtype].quant(src + i * t->block_elems, (uint8_t *)dst + i * t->block_bytes);
	}
	return true;
}

void cx_dequant_i8c_row(const void *src, int64_t n_rows, int64_t k, int64_t row, float *dst)
{
	const int8_t *q = (const int8_t *)src + row * k;
	float d = cx_i8c_scale(src, n_rows, k, row);
	for (int64_t i = 0; i < k; i++) dst[i] = d * (float)q[i];
}

void cx_quant_i8c(const float *src, int64_t n_rows, int64_t k, void *dst)
{
	uint8_t *scales = (uint8_t *)dst + cx_i8c_scale_off(n_rows, k);
	for (int64_t r = 0; r < n_rows; r++) {
		const float *x = src + r * k;
		float a = 0.0f, d, inv;
		for (int64_t i = 0; i < k; i++)
			if (fabsf(x[i]) > a) a = fabsf(x[i]);
		d = a / 127.0f;
		inv = inverse(d);
		for (int64_t i = 0; i < k; i++)
			((int8_t *)dst)[r * k + i] = (int8_t)clamp_i(x[i] * inv, -127, 127);
		memcpy(scales + 4 * r, &d, 4);
	}
}
