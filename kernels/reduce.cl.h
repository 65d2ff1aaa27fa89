/* reduce.cl.h - sums and extrema over any axes, largest elements, running sums. Meaning:
 * backends/ref/row.c.
 *
 * A tensor is seen as rows: t[1] has the axes that stay (one index per row), t[2] the axes that go
 * (offsets relative to the row's start; the same buffer). Floats are summed in cx_acc, integers in
 * 64 bits. */
#ifndef CX_REDUCE_CL_H
#define CX_REDUCE_CL_H

#include "kernels/elem.cl.h"

#define CX_SUM 0
#define CX_MEAN 1
#define CX_AMAX 2
#define CX_AMIN 3

CX_FN cx_acc cx_fold_f(int kind, cx_acc acc, cx_acc v)
{
	if (kind <= CX_MEAN) return acc + v;
	if (acc != acc) return acc;
	if (kind == CX_AMAX) return v > acc || v != v ? v : acc;
	return v < acc || v != v ? v : acc;
}

CX_FN cx_i64 cx_fold_i(int kind, cx_i64 acc, cx_i64 v)
{
	if (kind <= CX_MEAN) return acc + v;
	return (kind == CX_AMAX) == (v > acc) ? v : acc;
}

CX_FN cx_i64 cx_fold_start(int kind, cx_u32 dt)
{
	if (kind <= CX_MEAN) return 0;
	return cx_saturate(dt, kind == CX_AMAX ? -CX_INF : CX_INF);
}

CX_FN void cx_fold_store(
	CX_BUF(y), CX_PQ const struct cx_kparams *p, cx_u32 row, cx_acc f, cx_i64 v)
{
	cx_u32 to = cx_at(&p->t[0], row);
	if (p->i[0] == CX_MEAN) f /= (cx_acc)(cx_u32)p->i[1];
	if (cx_is_float(p->t[1].dtype)) cx_store_acc(y, p->t[0].dtype, to, f);
	else cx_store_i(y, p->t[0].dtype, to, v);
}

/* i[0] kind, i[1] elements of a row. An item per row: for short rows. */
CX_KERNEL cx_reduce_item(CX_BUF(y), CX_BUF(x), CX_PARAMS)
{
	cx_u32 row = CX_GLOBAL_ID(0), dt = CX_DT_1, n = (cx_u32)P.i[1], base;
	int kind = P.i[0];
	cx_acc f = kind == CX_AMAX ? -CX_INF : kind == CX_AMIN ? CX_INF : 0.0f;
	cx_i64 v = cx_fold_start(kind, dt);
	if (row >= P.n) return;
	base = cx_at(&P.t[1], row);
	for (cx_u32 j = 0; j < n; j++) {
		cx_u32 o = base + cx_at(&P.t[2], j);
		if (cx_is_float(dt)) f = cx_fold_f(kind, f, cx_load_f(x, dt, o));
		else v = cx_fold_i(kind, v, cx_load_i(x, dt, o));
	}
	cx_fold_store(y, &P, row, f, v);
}

/* The same, a group per row. */
CX_KERNEL cx_reduce_group(CX_BUF(y), CX_BUF(x), CX_PARAMS)
{
	CX_LOCAL_ARRAY(cx_acc, sf, CX_ROW_ITEMS);
	CX_LOCAL_ARRAY(cx_i64, sv, CX_ROW_ITEMS);
	cx_u32 row = CX_GROUP_ID(0), l = CX_LOCAL_ID(), dt = CX_DT_1, n = (cx_u32)P.i[1],
		   base = cx_at(&P.t[1], row);
	int kind = P.i[0];
	cx_acc f = kind == CX_AMAX ? -CX_INF : kind == CX_AMIN ? CX_INF : 0.0f;
	cx_i64 v = cx_fold_start(kind, dt);
	for (cx_u32 j = l; j < n; j += CX_ROW_ITEMS) {
		cx_u32 o = base + cx_at(&P.t[2], j);
		if (cx_is_float(dt)) f = cx_fold_f(kind, f, cx_load_f(x, dt, o));
		else v = cx_fold_i(kind, v, cx_load_i(x, dt, o));
	}
	sf[l] = f;
	sv[l] = v;
	CX_BARRIER();
	for (cx_u32 w = CX_ROW_ITEMS / 2; w > 0; w >>= 1) {
		if (l < w) {
			sf[l] = cx_fold_f(kind, sf[l], sf[l + w]);
			sv[l] = cx_fold_i(kind, sv[l], sv[l + w]);
		}
		CX_BARRIER();
	}
	if (l == 0) cx_fold_store(y, &P, row, sf[0], sv[0]);
}

/* ---- order of topk and argmax: as unsigned keys, larger first; NaN is the largest, zeros are
 * equal ---- */

CX_FN cx_u64 cx_order_key(CX_GLOBAL const cx_u8 *x, cx_u32 dt, cx_u32 o, int smallest)
{
	cx_u64 key;
	if (cx_is_float(dt)) {
		float f = cx_load_f(x, dt, o);
		cx_u32 u = cx_f32_bits(f == 0.0f ? 0.0f : f);
		key = f != f ? 0xffffffffu : (u & 0x80000000u) != 0 ? ~u : u | 0x80000000u;
	} else {
		key = (cx_u64)cx_load_i(x, dt, o) ^ (cx_u64)1 << 63;
	}
	return smallest ? ~key : key;
}

/* Whether (key, index) comes before the other. */
CX_FN int cx_order_before(cx_u64 ka, cx_u32 ia, cx_u64 kb, cx_u32 ib)
{
	return ka > kb || (ka == kb && ia < ib);
}

/* i[0] how many, i[1] elements of a row, i[2] smallest, i[3], i[4] strides of outputs 0 and 1 along
 * the axis, i[5] stride of x. t[0] values, t[1] indices (either may be absent), t[2] x, all by row.
 * A group per row: one pass for each element taken. */
CX_KERNEL cx_topk_group(CX_BUF(y), CX_BUF(idx), CX_BUF(x), CX_PARAMS)
{
	CX_LOCAL_ARRAY(cx_u64, sk, CX_ROW_ITEMS);
	CX_LOCAL_ARRAY(cx_u32, si, CX_ROW_ITEMS);
	cx_u32 row = CX_GROUP_ID(0), l = CX_LOCAL_ID(), dt = CX_DT_2, n = (cx_u32)P.i[1];
	cx_u32 base = cx_at(&P.t[2], row), xs = (cx_u32)P.i[5], none = 0xffffffffu, last = none;
	cx_u64 last_key = 0;
	for (cx_u32 k = 0; k < (cx_u32)P.i[0]; k++) {
		cx_u32 best = none;
		cx_u64 best_key = 0;
		for (cx_u32 j = l; j < n; j += CX_ROW_ITEMS) {
			cx_u64 key = cx_order_key(x, dt, base + j * xs, P.i[2]);
			if (last != none && !cx_order_before(last_key, last, key, j)) continue;
			if (best == none || cx_order_before(key, j, best_key, best)) {
				best = j;
				best_key = key;
			}
		}
		sk[l] = best_key;
		si[l] = best;
		CX_BARRIER();
		for (cx_u32 w = CX_ROW_ITEMS / 2; w > 0; w >>= 1) {
			if (l < w && si[l + w] != none &&
				(si[l] == none || cx_order_before(sk[l + w], si[l + w], sk[l], si[l]))) {
				sk[l] = sk[l + w];
				si[l] = si[l + w];
			}
			CX_BARRIER();
		}
		last = si[0];
		last_key = sk[0];
		CX_BARRIER();
		if (l == 0 && P.t[0].dtype != CX_K_NONE)
			cx_move(
				y, P.t[0].dtype, cx_at(&P.t[0], row) + k * (cx_u32)P.i[3], x, dt, base + last * xs);
		if (l == 0 && P.t[1].dtype != CX_K_NONE)
			cx_store_i(idx, P.t[1].dtype, cx_at(&P.t[1], row) + k * (cx_u32)P.i[4], last);
	}
}

/* i[0] exclusive, i[1] reverse, i[2] elements of a row, i[3] stride of y, i[4] of x. An item per
 * row. */
CX_KERNEL cx_cumsum_item(CX_BUF(y), CX_BUF(x), CX_PARAMS)
{
	cx_u32 row = CX_GLOBAL_ID(0), dt = CX_DT_1, n = (cx_u32)P.i[2], from, to;
	cx_acc f = 0;
	cx_i64 v = 0;
	if (row >= P.n) return;
	to = cx_at(&P.t[0], row);
	from = cx_at(&P.t[1], row);
	for (cx_u32 t = 0; t < n; t++) {
		cx_u32 j = P.i[1] ? n - 1 - t : t, at = to + j * (cx_u32)P.i[3],
			   o = from + j * (cx_u32)P.i[4];
		if (cx_is_float(dt)) {
			cx_acc u = cx_load_f(x, dt, o);
			cx_store_acc(y, dt, at, P.i[0] ? f : f + u);
			f += u;
		} else {
			cx_i64 u = cx_load_i(x, dt, o);
			cx_store_i(y, dt, at, P.i[0] ? v : v + u);
			v += u;
		}
	}
}

#endif
