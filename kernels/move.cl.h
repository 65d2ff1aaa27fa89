/* move.cl.h - ops that move data. An item per element unless said; elements are converted as `cast`
 * says. Meaning: backends/ref/move.c. */
#ifndef CX_MOVE_CL_H
#define CX_MOVE_CL_H

#include "kernels/quant.cl.h"

/* y = x element by element in row-major order; the two may have different axes. */
CX_KERNEL cx_copy_item(CX_BUF(y), CX_BUF(x), CX_PARAMS)
{
	cx_u32 i = CX_GLOBAL_ID(0);
	if (i < P.n) cx_move(y, CX_DT_0, cx_at(&P.t[0], i), x, CX_DT_1, cx_at(&P.t[1], i));
}

/* t: y, x; i[axis] elements before x; f[0] fill. */
CX_KERNEL cx_pad_item(CX_BUF(y), CX_BUF(x), CX_PARAMS)
{
	cx_u32 i = CX_GLOBAL_ID(0), left = i, from = P.t[1].off, to;
	int inside = 1;
	if (i >= P.n) return;
	to = cx_at(&P.t[0], i);
	for (int d = CX_K_RANK - 1; d >= 0; d--) {
		cx_u32 at =
			left % P.t[0].dim[d] - (cx_u32)P.i[d]; /* wraps to something large where negative */
		left /= P.t[0].dim[d];
		if (at >= P.t[1].dim[d]) inside = 0;
		from += at * P.t[1].stride[d];
	}
	if (inside) cx_move(y, CX_DT_0, to, x, CX_DT_1, from);
	else cx_store_f(y, CX_DT_0, to, P.f[0]);
}

/* t: y, x, idx; i[0] elements of x after the axis, i[1] indices, i[2] size of the axis. */
CX_KERNEL cx_gather_item(CX_BUF(y), CX_BUF(x), CX_BUF(idx), CX_PARAMS)
{
	cx_u32 i = CX_GLOBAL_ID(0), inner = (cx_u32)P.i[0], n_idx = (cx_u32)P.i[1], to, outer;
	cx_i64 row;
	if (i >= P.n) return;
	to = cx_at(&P.t[0], i);
	outer = i / inner / n_idx;
	row = cx_load_i(idx, P.t[2].dtype, cx_at(&P.t[2], i / inner % n_idx));
	if (row < 0 || row >= P.i[2]) cx_store_i(y, CX_DT_0, to, 0);
	else
		cx_move(y, CX_DT_0, to, x, CX_DT_1,
			cx_at(&P.t[1], (outer * (cx_u32)P.i[2] + (cx_u32)row) * inner + i % inner));
}

/* Rows of a dense block-format x, dequantised: an item per sixteen elements. t: y (stride 1 within
 * a row), x, idx; i[0] elements of a row, i[1] rows of x, i[2] byte offset of I8C scales, i[3]
 * elements under one of these, i[15] byte offset of x. Without idx row r is x's row r. */
CX_KERNEL cx_gather_block(CX_BUF(y), CX_BUF(x), CX_BUF(idx), CX_PARAMS)
{
	cx_u32 i = CX_GLOBAL_ID(0), n = (cx_u32)P.i[0], per_row = (n + 15) / 16, r = i / per_row,
		   k = i % per_row * 16, dt = CX_DT_1;
	cx_i64 row = r;
	cx_v16 v = cx_v16_all(0.0f);
	if (i >= P.n) return;
	x += (cx_u32)P.i[15];
	if (P.t[2].dtype != CX_K_NONE) row = cx_load_i(idx, P.t[2].dtype, cx_at(&P.t[2], r));
	if (row >= 0 && row < P.i[1]) {
		cx_u32 first = (cx_u32)row * n;
		if (dt != CX_I8C) {
			v = cx_load16(x, dt, first / cx_block_elems(dt), k, n);
		} else {
			float q[16];
			cx_v16_put(cx_load16(x, dt, first, k, n), q);
			for (cx_u32 l = 0; l < 16 && k + l < n; l++)
				q[l] *= cx_i8c_scale(x, (cx_u32)P.i[2], (first + k + l) / (cx_u32)P.i[3]);
			v = cx_v16_take(q);
		}
	}
	cx_store16(y, CX_DT_0, P.t[0].off + r * P.t[0].stride[CX_K_RANK - 2], k, n, v);
}

CX_FN void cx_scatter_one(
	CX_BUF(y), CX_BUF(src), CX_PQ const struct cx_kparams *p, cx_u32 i, cx_u32 row, cx_u32 j)
{
	cx_u32 inner = (cx_u32)p->i[1], dt = p->t[0].dtype;
	cx_u32 to = cx_at(&p->t[0], row * inner + j), from = cx_at(&p->t[2], i * inner + j);
	if (!p->i[3]) cx_move(y, dt, to, src, p->t[2].dtype, from);
	else if (cx_is_float(dt))
		cx_store_f(y, dt, to, cx_load_f(y, dt, to) + cx_load_f(src, p->t[2].dtype, from));
	else cx_store_i(y, dt, to, cx_load_i(y, dt, to) + cx_load_i(src, p->t[2].dtype, from));
}

CX_FN cx_i32 cx_scatter_row(CX_BUF(idx), CX_PQ const struct cx_kparams *p, cx_u32 i)
{
	return ((CX_GLOBAL const cx_i32 *)idx)[p->t[1].off + i * p->t[1].stride[CX_K_RANK - 1]];
}

/* t: y, which holds the old content, idx, src; i[0] indices, i[1] elements of a row, i[2] rows of
 * y, i[3] add. An item per element of a row goes through the indices in order: so sums have one
 * order, and of equal indices the last one stays. */
CX_KERNEL cx_scatter_column(CX_BUF(y), CX_BUF(idx), CX_BUF(src), CX_PARAMS)
{
	cx_u32 j = CX_GLOBAL_ID(0), n = (cx_u32)P.i[0];
	if (j >= P.n) return;
	for (cx_u32 i = 0; i < n; i++) {
		cx_i32 row = cx_scatter_row(idx, &P, i);
		if (row >= 0 && row < P.i[2]) cx_scatter_one(y, src, &P, i, (cx_u32)row, j);
	}
}

/* The same without add, for few indices: an item per element of src, unless a later index writes
 * that row again. */
CX_KERNEL cx_scatter_item(CX_BUF(y), CX_BUF(idx), CX_BUF(src), CX_PARAMS)
{
	cx_u32 e = CX_GLOBAL_ID(0), n = (cx_u32)P.i[0], inner = (cx_u32)P.i[1], i = e / inner;
	cx_i32 row;
	if (e >= P.n) return;
	row = cx_scatter_row(idx, &P, i);
	if (row < 0 || row >= P.i[2]) return;
	for (cx_u32 u = i + 1; u < n; u++)
		if (cx_scatter_row(idx, &P, u) == row) return;
	cx_scatter_one(y, src, &P, i, (cx_u32)row, e % inner);
}

/* One table of embed_sum: t: y [E,D], table, idx; i[0] D, i[1] first table, i[2] rows of the table.
 * Rounded after each addition. */
CX_KERNEL cx_embed_item(CX_BUF(y), CX_BUF(table), CX_BUF(idx), CX_PARAMS)
{
	cx_u32 i = CX_GLOBAL_ID(0), e = i / (cx_u32)P.i[0], j = i % (cx_u32)P.i[0], to;
	cx_i32 row;
	float v = 0.0f;
	if (i >= P.n) return;
	to = P.t[0].off + e * P.t[0].stride[4] + j * P.t[0].stride[5];
	row = ((CX_GLOBAL const cx_i32 *)idx)[P.t[2].off + e * P.t[2].stride[5]];
	if (row >= 0 && row < P.i[2])
		v = cx_load_f(
			table, CX_DT_1, P.t[1].off + (cx_u32)row * P.t[1].stride[4] + j * P.t[1].stride[5]);
	if (!P.i[1]) v = cx_load_f(y, CX_DT_0, to) + v;
	cx_store_f(y, CX_DT_0, to, v);
}

/* ---- rotary embedding: backends/ref/tile.c ---- */

/* cos and sin of pair j of the token with offset `token`, times the amplitude. t[4], t[5]: tables
 * by position, or else t[3] frequencies. i[4] rows of the tables. */
CX_FN void cx_rope_angle(CX_BUF(freqs), CX_BUF(cosine), CX_BUF(sine),
	CX_PQ const struct cx_kparams *p, cx_i32 pos, cx_u32 j, float *c, float *s)
{
	CX_PQ const struct cx_ktensor *t = p->t;
	if (t[4].dtype != CX_K_NONE) {
		int inside = pos >= 0 && pos < p->i[4];
		*c = inside ? cx_load_f(cosine, t[4].dtype,
						  t[4].off + (cx_u32)pos * t[4].stride[4] + j * t[4].stride[5])
					: 0.0f;
		*s = inside ? cx_load_f(sine, t[5].dtype,
						  t[5].off + (cx_u32)pos * t[5].stride[4] + j * t[5].stride[5])
					: 0.0f;
	} else {
		float angle = (float)pos * ((CX_GLOBAL const float *)freqs)[t[3].off + j * t[3].stride[5]];
		*c = CX_COS(angle);
		*s = CX_SIN(angle);
	}
	*c *= p->f[0];
	*s *= p->f[0];
}

/* i[0] rotated width r, i[1] adjacent pairs, i[2] heads, i[3] head size; f[0] amplitude. t: y, x by
 * (row, head, element), pos by row. Items: per row and head r/2 pairs, then the elements that are
 * not rotated. */
CX_KERNEL cx_rope_item(
	CX_BUF(y), CX_BUF(x), CX_BUF(pos), CX_BUF(freqs), CX_BUF(cosine), CX_BUF(sine), CX_PARAMS)
{
	cx_u32 hd = (cx_u32)P.i[3], n_pairs = (cx_u32)P.i[0] / 2, per = hd - n_pairs,
		   i = CX_GLOBAL_ID(0), head = i / per, j = i % per;
	cx_u32 lo, hi;
	float a, b, c, s;
	if (i >= P.n) return;
	if (j >= n_pairs) {
		lo = head * hd + n_pairs + j;
		cx_move(y, CX_DT_0, cx_at(&P.t[0], lo), x, CX_DT_1, cx_at(&P.t[1], lo));
		return;
	}
	lo = head * hd + (P.i[1] ? 2 * j : j);
	hi = head * hd + (P.i[1] ? 2 * j + 1 : j + n_pairs);
	a = cx_load_f(x, CX_DT_1, cx_at(&P.t[1], lo));
	b = cx_load_f(x, CX_DT_1, cx_at(&P.t[1], hi));
	cx_rope_angle(freqs, cosine, sine, &P,
		((CX_GLOBAL const cx_i32 *)pos)[cx_at(&P.t[2], head / (cx_u32)P.i[2])], j, &c, &s);
	cx_store_f(y, CX_DT_0, cx_at(&P.t[0], lo), a * c - b * s);
	cx_store_f(y, CX_DT_0, cx_at(&P.t[0], hi), b * c + a * s);
}

/* As above for k, which goes with v to row slot[t] of the caches; i[5] rows of these. t: kcache,
 * vcache, k, freqs, absent, absent, v, pos, slot. A slot out of range is skipped; of equal slots
 * the last stays. */
CX_KERNEL cx_rope_kv_item(CX_BUF(kc), CX_BUF(vc), CX_BUF(k), CX_BUF(freqs), CX_BUF(v), CX_BUF(pos),
	CX_BUF(slot), CX_PARAMS)
{
	cx_u32 heads = (cx_u32)P.i[2], hd = (cx_u32)P.i[3], n_pairs = (cx_u32)P.i[0] / 2,
		   per = hd - n_pairs, i = CX_GLOBAL_ID(0);
	cx_u32 head = i / per, j = i % per, row = head / heads, h = head % heads, lo, hi,
		   dk = P.t[2].dtype;
	CX_GLOBAL const cx_i32 *slots = (CX_GLOBAL const cx_i32 *)slot + P.t[8].off;
	cx_i32 to;
	float a, b, c, s;
	if (i >= P.n) return;
	to = slots[row * P.t[8].stride[5]];
	if (to < 0 || to >= P.i[5]) return;
	for (cx_u32 u = row + 1; u < P.t[8].dim[5]; u++)
		if (slots[u * P.t[8].stride[5]] == to) return;
	lo = j >= n_pairs ? n_pairs + j : P.i[1] ? 2 * j : j;
	hi = j >= n_pairs ? lo : P.i[1] ? 2 * j + 1 : j + n_pairs;
	a = cx_load_f(k, dk, cx_at(&P.t[2], head * hd + lo));
	b = cx_load_f(k, dk, cx_at(&P.t[2], head * hd + hi));
	if (j < n_pairs) {
		float a0 = a;
		cx_rope_angle(freqs, freqs, freqs, &P, ((CX_GLOBAL const cx_i32 *)pos)[cx_at(&P.t[7], row)],
			j, &c, &s);
		a = cx_round_to(dk, a0 * c - b * s);
		b = cx_round_to(dk, b * c + a0 * s);
	}
	cx_store_f(kc, P.t[0].dtype, cx_at(&P.t[0], ((cx_u32)to * heads + h) * hd + lo), a);
	cx_move(vc, P.t[1].dtype, cx_at(&P.t[1], ((cx_u32)to * heads + h) * hd + lo), v, dk,
		cx_at(&P.t[6], head * hd + lo));
	if (j >= n_pairs) return;
	cx_store_f(kc, P.t[0].dtype, cx_at(&P.t[0], ((cx_u32)to * heads + h) * hd + hi), b);
	cx_move(vc, P.t[1].dtype, cx_at(&P.t[1], ((cx_u32)to * heads + h) * hd + hi), v, dk,
		cx_at(&P.t[6], head * hd + hi));
}

#endif
