/* keys.h - which keys a query row sees, for the kernels of attention and of its gradient: both read
 * i[0] dense, ragged, paged; i[1] causal, i[2] window, i[3] page, i[8] sequences, i[9] rows of q
 * (dense: of a sequence), i[10] rows of k, i[11] pages per sequence; t[4] q_off, t[5] kv_off. */
#ifndef CX_KEYS_H
#define CX_KEYS_H

#include "kernels/dialect.h"

#define CX_DENSE 0
#define CX_RAGGED 1
#define CX_PAGED 2

/* The keys of one query row: positions lo..hi-1 relative to row k0, in sequence b; at is the row's
 * own position. */
struct cx_keys {
	cx_i32 b, t, k0, lo, hi;
};

CX_FN cx_i32 cx_table_at(
	CX_GLOBAL const cx_u8 *off, CX_PQ const struct cx_ktensor *t, cx_u32 i, cx_i32 lo, cx_i32 n)
{
	cx_i32 v = ((CX_GLOBAL const cx_i32 *)off)[t->off + i * t->stride[5]];
	return v < lo ? lo : v > n ? n : v;
}

/* The last sequence that has query row `row`; b is -1 if none has. */
CX_FN struct cx_keys cx_keys_of(
	CX_BUF(q_off), CX_BUF(kv_off), CX_PQ const struct cx_kparams *p, cx_u32 row)
{
	struct cx_keys r;
	cx_i32 mode = p->i[0], n_q = p->i[9], n_k = p->i[10], first = 0, end = n_q, at,
		   window = p->i[2];
	r.b = 0;
	r.k0 = 0;
	if (mode == CX_DENSE) {
		r.b = (cx_i32)row / n_q;
		row %= (cx_u32)n_q;
	} else if (p->t[4].dtype != CX_K_NONE) {
		for (r.b = p->i[8] - 1; r.b >= 0; r.b--) {
			first = cx_table_at(q_off, &p->t[4], (cx_u32)r.b, 0, n_q);
			end = cx_table_at(q_off, &p->t[4], (cx_u32)r.b + 1, first, n_q);
			if ((cx_i32)row >= first && (cx_i32)row < end) break;
		}
	}
	r.t = (cx_i32)row;
	r.lo = 0;
	r.hi = n_k;
	if (r.b < 0) {
		r.hi = 0;
		return r;
	}
	if (mode == CX_PAGED) {
		cx_i32 room = p->i[11] * p->i[3];
		at = ((CX_GLOBAL const cx_i32 *)kv_off)[p->t[5].off + (cx_u32)r.b * p->t[5].stride[5]] -
			 (end - (cx_i32)row);
		r.hi = at < room - 1 ? at + 1 : room;
	} else {
		if (p->t[5].dtype != CX_K_NONE) {
			r.k0 = cx_table_at(kv_off, &p->t[5], (cx_u32)r.b, 0, n_k);
			n_k = cx_table_at(kv_off, &p->t[5], (cx_u32)r.b + 1, r.k0, n_k) - r.k0;
		}
		at = (cx_i32)row - first + n_k - (end - first);
		r.hi = p->i[1] && at + 1 < n_k ? at + 1 : n_k;
	}
	if (window > 0 && at - window + 1 > 0) r.lo = at - window + 1;
	if (r.hi < 0) r.hi = 0;
	return r;
}

CX_FN cx_u32 cx_mask_at(
	CX_PQ const struct cx_ktensor *t, const struct cx_keys *r, cx_u32 h, cx_i32 s)
{
	return t->off + (cx_u32)r->b * t->stride[2] + h * t->stride[3] + (cx_u32)r->t * t->stride[4] +
		   (cx_u32)s * t->stride[5];
}

#endif
