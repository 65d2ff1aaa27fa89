/* dotq.c - quantised weights: integer dot products, scales per chunk of 128, exact order of sums in
 * isa.h.
 *
 * One row of a (dot_q): four rows of w at a time, read where they lie and unpacked in registers; on
 * AVX-512 the nibbles stay bytes and each 16-bit activation is two bytes, 256*hi + lo, so that
 * vpdpbusd needs no widening. More rows (pack_q, gemm_q): w is unpacked once per block of k to
 * 16-bit integers with their scales, then every row of a uses it. */
/* gcc would gather the scalar decoding of scales from several rows in vectors, and put loads right
 * before their use: with the options below Q4_K takes 8 % less time. */
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("no-tree-slp-vectorize", "schedule-insns", "sched-pressure")
#endif

#include "backends/cpu/isa/kernels.h"
#include "backends/cpu/isa/qunpack.h"

/* Rows of w at once: as many as leave the activations of a chunk in registers, or one. */
enum { R_MAX = CX_HAVE_DOT8 ? 4 : 1 };

/* The same chunk of the rows that come next: rows are too short for the hardware to see where they
 * go on (without it Q4_0 and Q8_0 from memory take twice as long). Past the end of the matrix it
 * does nothing. */
CX_INLINE void prefetch(cx_dtype t, const uint8_t *p, size_t ahead)
{
	const size_t bytes = cx__q_super(t) ? cx__q_block(t) : 4 * cx__q_block(t);
	CX_UNROLL
	for (size_t o = 0; o < bytes; o += 64)
		__builtin_prefetch((const void *)((uintptr_t)p + ahead + o), 0, 2);
}

/* What the row of a contributes to a chunk, in registers. */
typedef struct {
	vb q[4];
	v16 d, dsum;
	v16i zero_lo, zero_hi; /* minus zero point times sums: all in zero_lo unless sub-scales */
	v16i sum_lo, sum_hi;
} act;

CX_INLINE act act_load(cx_dtype t, const cx__qact *a)
{
	act r;
	CX_UNROLL
	for (int i = 0; i < 4; i++) r.q[i] = vb_load(a->q.b8[i]);
	r.d = v16_load(a->d);
	r.dsum = v16_load(a->dsum);
	r.sum_lo = v16i_load(a->sum_lo);
	r.sum_hi = v16i_load(a->sum_hi);
	CX_UNROLL
	for (int i = 0; i < 4; i++) vb_keep(r.q[i]);
	v16_keep(r.d);
	r.zero_lo = r.zero_hi = v16i_set1(0);
	if (CX_HAVE_DOT8 && cx__q_zero(t) > 0) { /* a power of two */
		const int sh = __builtin_ctz((unsigned)cx__q_zero(t));
		if (cx__q_sub(t)) {
			r.zero_hi = v16i_sub(r.zero_hi, v16i_sll(r.sum_hi, sh));
			r.zero_lo = v16i_sub(r.zero_lo, v16i_sll(r.sum_lo, sh));
		} else r.zero_lo = v16i_sub(r.zero_lo, v16i_sll(v16i_add(r.sum_lo, r.sum_hi), sh));
	}
	return r;
}

/* Bytes 0..15 of each block (lo) and 16..31 (hi) as pairs of 16 bits, zero point taken off,
 * sub-scales multiplied in. */
CX_INLINE void widen(cx_dtype t, const cx__qchunk *q, vb w[4])
{
	const int16_t z = (int16_t)cx__q_zero(t);
	w[0] = vb_even16(q->lo);
	w[1] = vb_odd16(q->lo);
	w[2] = vb_even16(q->hi);
	w[3] = vb_odd16(q->hi);
	if (z) {
		CX_UNROLL
		for (int i = 0; i < 4; i++) w[i] = vb_sub16(w[i], z);
	}
	if (cx__q_sub(t)) {
		CX_UNROLL
		for (int i = 0; i < 4; i++) w[i] = vb_mul16(w[i], i < 2 ? q->s_lo : q->s_hi);
	}
}

/* The exact integer I of isa.h. */
CX_INLINE v16i chunk_dot(cx_dtype t, const cx__qchunk *q, const act *a)
{
	v16i none = v16i_set1(0);
#if CX_HAVE_DOT8
	if (cx__q_sub(t)) {
		v16i lo = v16i_add(
			v16i_sll(v16i_dot8(none, q->lo, a->q[0]), 8), v16i_dot8(a->zero_lo, q->lo, a->q[2]));
		v16i hi = v16i_add(
			v16i_sll(v16i_dot8(none, q->hi, a->q[1]), 8), v16i_dot8(a->zero_hi, q->hi, a->q[3]));
		return v16i_add(v16i_mul(lo, q->s_lo), v16i_mul(hi, q->s_hi));
	}
	return v16i_add(v16i_sll(v16i_dot8(v16i_dot8(none, q->lo, a->q[0]), q->hi, a->q[1]), 8),
		v16i_dot8(v16i_dot8(a->zero_lo, q->lo, a->q[2]), q->hi, a->q[3]));
#else
	vb w[4];
	widen(t, q, w);
	CX_UNROLL
	for (int i = 0; i < 4; i++) none = v16i_dot16(none, w[i], a->q[i]);
	return none;
#endif
}

CX_INLINE v16 chunk_add(cx_dtype t, const uint8_t *p, int h, float row_scale, const act *a, v16 acc)
{
	cx__qchunk q;
	cx__q_unpack(t, p, h, row_scale, &q);
	acc = v16_fma(v16i_to_f(chunk_dot(t, &q, a)), v16_mul(q.d, a->d), acc);
	if (cx__q_min_kind(t) == CX__Q_MIN_F) acc = v16_fma(q.m, a->dsum, acc);
	if (cx__q_min_kind(t) == CX__Q_MIN_I) {
		v16i j = v16i_add(v16i_mul(a->sum_lo, q.n_lo), v16i_mul(a->sum_hi, q.n_hi));
		acc = v16_fnma(v16i_to_f(j), v16_mul(q.m, a->d), acc);
	}
	return acc;
}

/* The weights of a row's last, incomplete chunk, followed by zeros; 4 blocks of the largest
 * 32-weight format. */
typedef struct {
	uint8_t b[4 * 34 + 64];
} tail_chunk;
CX_INLINE size_t tail_bytes(cx_dtype t, size_t k) /* 0: the last chunk is whole */
{
	if (t == CX_I8C) return k % CX__QCHUNK;
	return cx__q_super(t) ? 0 : k % CX__QCHUNK / 32 * cx__q_block(t);
}
CX_INLINE void tail_load(cx_dtype t, const uint8_t *row, size_t k, tail_chunk *out)
{
	memset(out, 0, sizeof *out);
	memcpy(out->b, cx__q_at(t, row, k / CX__QCHUNK), tail_bytes(t, k));
}
CX_INLINE float row_scale(cx_dtype t, const cx__wrows *w, size_t n)
{
	float s = 0.0f;
	if (t == CX_I8C) memcpy(&s, w->scales + 4 * n, 4);
	return s;
}

/* R rows of w from n0 on; rows past the last (n of them exist) stand for it, and their sums are
 * dropped. */
CX_INLINE void dot_rows(cx_dtype t, int R, const cx__qact *a, const cx__wrows *w, size_t n0,
	size_t n, size_t k, float *y)
{
	const uint8_t *row[R_MAX];
	float rs[R_MAX];
	v16 acc[R_MAX];
	const size_t whole = k / CX__QCHUNK, ahead = (size_t)R * w->row_bytes;
	tail_chunk tail[R_MAX];
	CX_UNROLL
	for (int r = 0; r < R; r++) {
		size_t at = n0 + ((size_t)r < n ? (size_t)r : n - 1);
		row[r] = w->base + at * w->row_bytes;
		rs[r] = row_scale(t, w, at);
		acc[r] = v16_zero();
		if (tail_bytes(t, k)) tail_load(t, row[r], k, &tail[r]);
	}
	if (cx__q_super(t)) { /* k is a multiple of 256 */
		for (size_t c = 0; c < whole; c += 2) {
			CX_UNROLL
			for (int r = 0; r < R; r++) prefetch(t, cx__q_at(t, row[r], c), ahead);
			CX_UNROLL
			for (int h = 0; h < 2; h++) {
				act x = act_load(t, a + c + h);
				CX_UNROLL
				for (int r = 0; r < R; r++)
					acc[r] = chunk_add(t, cx__q_at(t, row[r], c), h, rs[r], &x, acc[r]);
			}
		}
	} else {
		for (size_t c = 0, end = whole;; c++) {
			if (c == end) {
				if (end > whole || !tail_bytes(t, k)) break;
				end = whole + 1;
				CX_UNROLL
				for (int r = 0; r < R; r++) row[r] = tail[r].b;
			}
			act x = act_load(t, a + c);
			CX_UNROLL
			for (int r = 0; r < R; r++) {
				prefetch(t, row[r], ahead);
				acc[r] = chunk_add(t, row[r], 0, rs[r], &x, acc[r]);
				row[r] += 4 * cx__q_block(t);
			}
		}
	}
	CX_UNROLL
	for (int r = 0; r < R; r++)
		if ((size_t)r < n) y[r] = v16_sum(acc[r]);
}

#define DOT(id, kind)                                                                              \
	void CX_ISA_NAME(cx__dot_##id)(                                                                \
		const cx__qact *a, const cx__wrows *w, size_t n0, size_t n, size_t k, float *y)            \
	{                                                                                              \
		for (size_t j = 0; j < n; j += R_MAX)                                                      \
			dot_rows(CX_##id, R_MAX, a, w, n0 + j, n - j, k, y + j);                               \
	}
CX_Q_FORMATS(DOT)

/* ---- panels: [n / 2][chunk][2] packed chunks ---- */

/* w16 256 bytes, d 64, then m 64 if the format has mins, then n_lo and n_hi 64 each for Q2_K. */
CX_INLINE void pack_chunk(cx_dtype t, const uint8_t *p, int h, float rs, uint8_t *out)
{
	cx__qchunk q;
	vb w[4];
	cx__q_unpack(t, p, h, rs, &q);
	widen(t, &q, w);
	CX_UNROLL
	for (int i = 0; i < 4; i++) vb_store(out + 64 * i, w[i]);
	v16_store((float *)(void *)(out + 256), q.d);
	if (cx__q_min_kind(t) != CX__Q_MIN_NONE) v16_store((float *)(void *)(out + 320), q.m);
	if (cx__q_min_kind(t) == CX__Q_MIN_I) {
		v16i_store((int32_t *)(void *)(out + 384), q.n_lo);
		v16i_store((int32_t *)(void *)(out + 448), q.n_hi);
	}
}

CX_INLINE void pack_rows(cx_dtype t, const cx__wrows *w, size_t n0, size_t n, size_t c0,
	size_t n_chunks, size_t k, uint8_t *panel)
{
	const size_t pb = cx__q_panel_bytes(t), whole = k / CX__QCHUNK;
	for (size_t j = 0; j < (n + 1) / 2 * 2; j++) {
		uint8_t *out = panel + (j / 2 * n_chunks * 2 + j % 2) * pb;
		const uint8_t *row = w->base + (n0 + j) * w->row_bytes;
		float rs = j < n ? row_scale(t, w, n0 + j) : 0.0f;
		for (size_t c = c0; c < c0 + n_chunks; c++, out += 2 * pb) {
			if (j >= n) memset(out, 0, pb);
			else if (cx__q_super(t) && (c & 1)) pack_chunk(t, cx__q_at(t, row, c), 1, rs, out);
			else {
				tail_chunk b;
				const uint8_t *p = cx__q_at(t, row, c);
				prefetch(t, p, 4 * w->row_bytes);
				if (!cx__q_super(t) && c == whole) {
					tail_load(t, row, k, &b);
					p = b.b;
				}
				pack_chunk(t, p, 0, rs, out);
			}
		}
	}
}
#define PACK(id, kind)                                                                             \
	void CX_ISA_NAME(cx__pack_##id)(const cx__wrows *w, size_t n0, size_t n, size_t c0,            \
		size_t n_chunks, size_t k, uint8_t *panel)                                                 \
	{                                                                                              \
		pack_rows(CX_##id, w, n0, n, c0, n_chunks, k, panel);                                      \
	}
CX_Q_FORMATS(PACK)

CX_INLINE void gemm_tile(cx__q_min kind, int m, const cx__gemm *g, const cx__qact *a,
	const uint8_t *w, float *part, float *y, size_t n)
{
	const size_t pb = kind == CX__Q_MIN_NONE ? 320 : kind == CX__Q_MIN_F ? 384 : 512;
	v16 acc[CX__Q_ROWS][2];
	CX_UNROLL
	for (int r = 0; r < m; r++) {
		CX_UNROLL
		for (int j = 0; j < 2; j++)
			acc[r][j] = g->first ? v16_zero() : v16_load(part + (r * 2 + j) * 16);
	}
	for (size_t c = 0; c < g->steps; c++, w += 2 * pb) {
		vb wq[2][4];
		v16 wd[2];
		CX_UNROLL
		for (int j = 0; j < 2; j++) {
			CX_UNROLL
			for (int i = 0; i < 4; i++) wq[j][i] = vb_load(w + (size_t)j * pb + 64 * i);
			wd[j] = v16_load((const float *)(const void *)(w + (size_t)j * pb + 256));
		}
		CX_UNROLL
		for (int r = 0; r < m; r++) {
			const cx__qact *x = a + (size_t)r * g->a_stride + c;
			v16 xd = v16_load(x->d);
			vb xq[4];
			CX_UNROLL
			for (int i = 0; i < 4; i++) {
				xq[i] = vb_load(x->q.w16[i]);
				vb_keep(xq[i]);
			}
			CX_UNROLL
			for (int j = 0; j < 2; j++) {
				const uint8_t *wj = w + (size_t)j * pb;
				v16i s = v16i_set1(0);
				CX_UNROLL
				for (int i = 0; i < 4; i++) s = v16i_dot16(s, wq[j][i], xq[i]);
				acc[r][j] = v16_fma(v16i_to_f(s), v16_mul(wd[j], xd), acc[r][j]);
				if (kind == CX__Q_MIN_F)
					acc[r][j] = v16_fma(v16_load((const float *)(const void *)(wj + 320)),
						v16_load(x->dsum), acc[r][j]);
				if (kind == CX__Q_MIN_I) {
					v16i u = v16i_add(v16i_mul(v16i_load(x->sum_lo),
										  v16i_load((const int32_t *)(const void *)(wj + 384))),
						v16i_mul(v16i_load(x->sum_hi),
							v16i_load((const int32_t *)(const void *)(wj + 448))));
					v16 md = v16_mul(v16_load((const float *)(const void *)(wj + 320)), xd);
					acc[r][j] = v16_fnma(v16i_to_f(u), md, acc[r][j]);
				}
			}
		}
	}
	CX_UNROLL
	for (int r = 0; r < m; r++) {
		CX_UNROLL
		for (int j = 0; j < 2; j++) {
			if (!g->last) v16_store(part + (r * 2 + j) * 16, acc[r][j]);
			else if ((size_t)j < n) y[(size_t)r * g->y_stride + (size_t)j] = v16_sum(acc[r][j]);
		}
	}
}

CX_INLINE void gemm_any(cx__q_min kind, const cx__gemm *g)
{
	const size_t pb = kind == CX__Q_MIN_NONE ? 320
					  : kind == CX__Q_MIN_F  ? 384
											 : 512,
				 n_tiles = (g->n + 1) / 2;
	for (size_t i = 0; i < g->m; i += CX__Q_ROWS) {
		const cx__qact *a = (const cx__qact *)g->a + i * g->a_stride;
		size_t m = g->m - i < CX__Q_ROWS ? g->m - i : CX__Q_ROWS;
		for (size_t j = 0; j < n_tiles; j++) {
			const uint8_t *w = (const uint8_t *)g->panel + j * g->steps * 2 * pb;
			float *part = g->part + (i * n_tiles + j * CX__Q_ROWS) * 2 * 16,
				  *y = g->y + i * g->y_stride + j * 2;
			size_t n = g->n - 2 * j;
			switch (m) {
			case 1:
				gemm_tile(kind, 1, g, a, w, part, y, n);
				break;
			case 2:
				gemm_tile(kind, 2, g, a, w, part, y, n);
				break;
			case 3:
				gemm_tile(kind, 3, g, a, w, part, y, n);
				break;
			default:
				gemm_tile(kind, 4, g, a, w, part, y, n);
				break;
			}
		}
	}
}
void CX_ISA_NAME(cx__gemm_q_none)(const cx__gemm *g)
{
	gemm_any(CX__Q_MIN_NONE, g);
}
void CX_ISA_NAME(cx__gemm_q_f)(const cx__gemm *g)
{
	gemm_any(CX__Q_MIN_F, g);
}
void CX_ISA_NAME(cx__gemm_q_i)(const cx__gemm *g)
{
	gemm_any(CX__Q_MIN_I, g);
}
