/* attn.cl.h - attention over dense, ragged and paged keys: a group per query row and head.
 *
 * Keys go by in chunks of CX_ROW_ITEMS: a score per item, then the running maximum and sum are
 * brought up to date and each item adds sixteen elements of the values. A row's result depends on
 * its own keys alone, in their order. Scores are f32; a key that is masked or at -inf does not
 * count, be its value NaN; a row that sees none gives 0. Meaning: backends/ref/attn.c. */
#ifndef CX_ATTN_CL_H
#define CX_ATTN_CL_H

#include "kernels/keys.h"
#include "kernels/quant.cl.h"

#define CX_ATTN_WIDTH 1024 /* of a head, at most */

/* Row of k and v for key s, or none. */
CX_FN cx_u32 cx_key_row(
	CX_BUF(table), CX_PQ const struct cx_kparams *p, const struct cx_keys *r, cx_i32 s)
{
	CX_PQ const struct cx_ktensor *t = &p->t[6];
	cx_i32 page, size = p->i[3];
	if (p->i[0] != CX_PAGED) return (cx_u32)(r->k0 + s);
	page = ((CX_GLOBAL const cx_i32 *)
			table)[t->off + (cx_u32)r->b * t->stride[4] + (cx_u32)(s / size) * t->stride[5]];
	if (page < 0 || (cx_i64)page * size + s % size >= p->i[10]) return 0xffffffffu;
	return (cx_u32)(page * size + s % size);
}

/* i[0] dense, ragged, paged; i[1] causal, i[2] window, i[3] page, i[4] heads of q per head of k,
 * i[6] width of k, i[7] of v, i[8] sequences, i[9] rows of q (dense: of a sequence), i[10] rows of
 * k, i[11] pages per sequence; f[0] scale. t: y, q, k, v with axes [batch, rows, heads, width];
 * q_off, kv_off (paged: kv_len); mask (paged: table), bias over [batch, heads, rows, keys]. The
 * grid: rows, heads. */
CX_KERNEL cx_attention_group(CX_BUF(y), CX_BUF(q), CX_BUF(k), CX_BUF(v), CX_BUF(q_off),
	CX_BUF(kv_off), CX_BUF(mask), CX_BUF(bias), CX_PARAMS)
{
	CX_LOCAL_ARRAY(float, sq, CX_ATTN_WIDTH);
	CX_LOCAL_ARRAY(float, so, CX_ATTN_WIDTH);
	CX_LOCAL_ARRAY(float, sp, CX_ROW_ITEMS);
	CX_LOCAL_ARRAY(cx_u32, sv, CX_ROW_ITEMS);
	CX_LOCAL_ARRAY(cx_acc, s, CX_ROW_ITEMS);
	cx_u32 l = CX_LOCAL_ID(), h = CX_GROUP_ID(1), hk = h / (cx_u32)P.i[4];
	cx_u32 width = (cx_u32)P.i[6], dv = (cx_u32)P.i[7], dq = CX_DT_1, dk = CX_DT_2, dtv = CX_DT_3;
	cx_u32 ks = P.t[2].stride[5], vs = P.t[3].stride[5], vr = P.t[3].stride[3], qb, kb, vb, yb, row;
	struct cx_keys r = cx_keys_of(q_off, kv_off, &P, CX_GROUP_ID(0));
	float m = -CX_INF, scale = P.f[0];
	cx_acc total = 0;
	cx_u32 batch = r.b > 0 && P.i[0] == CX_DENSE ? (cx_u32)r.b : 0;
	qb = P.t[1].off + batch * P.t[1].stride[2] + (cx_u32)r.t * P.t[1].stride[3] +
		 h * P.t[1].stride[4];
	kb = P.t[2].off + batch * P.t[2].stride[2] + hk * P.t[2].stride[4];
	vb = P.t[3].off + batch * P.t[3].stride[2] + hk * P.t[3].stride[4];
	yb = P.t[0].off + batch * P.t[0].stride[2] + (cx_u32)r.t * P.t[0].stride[3] +
		 h * P.t[0].stride[4];
	for (cx_u32 j = l; j < (width + 15) / 16 * 16; j += CX_ROW_ITEMS)
		sq[j] = j < width ? cx_load_f(q, dq, qb + j * P.t[1].stride[5]) : 0.0f;
	for (cx_u32 j = l; j < (dv + 15) / 16 * 16; j += CX_ROW_ITEMS) so[j] = 0.0f;
	CX_BARRIER();
	for (cx_i32 s0 = r.lo; s0 < r.hi; s0 += CX_ROW_ITEMS) {
		cx_i32 key = s0 + (cx_i32)l;
		float x = -CX_INF, next, corr, pr;
		row = key < r.hi ? cx_key_row(mask, &P, &r, key) : 0xffffffffu;
		if (row != 0xffffffffu && P.i[0] != CX_PAGED && P.t[6].dtype != CX_K_NONE &&
			mask[cx_mask_at(&P.t[6], &r, h, key)] == 0)
			row = 0xffffffffu;
		if (row != 0xffffffffu) {
			cx_v16 acc = cx_v16_all(0.0f);
			for (cx_u32 j = 0; j < width; j += 16)
				acc = cx_v16_fma(cx_v16_load(sq + j),
					cx_load16_by(k, dk, kb + row * P.t[2].stride[3], ks, j, width), acc);
			x = scale * cx_v16_sum(acc);
			if (P.i[0] != CX_PAGED && P.t[7].dtype != CX_K_NONE)
				x += ((CX_GLOBAL const float *)bias)[cx_mask_at(&P.t[7], &r, h, key)];
			if (x == -CX_INF) row = 0xffffffffu;
		}
		next = cx_max_nan(m, cx_group_max(s, x));
		corr = m == -CX_INF ? 0.0f : CX_EXP(m - next);
		pr = row != 0xffffffffu ? CX_EXP(x - next) : 0.0f;
		sp[l] = pr;
		sv[l] = row;
		total = total * corr + cx_group_sum(s, pr); /* its barriers make sp and sv visible */
		for (cx_u32 j = 16 * l; j < dv; j += 16 * CX_ROW_ITEMS) {
			cx_v16 o = cx_v16_load(so + j) * corr;
			for (cx_u32 i = 0; i < CX_ROW_ITEMS; i++)
				if (sv[i] != 0xffffffffu)
					o = cx_v16_fma(
						cx_load16_by(v, dtv, vb + sv[i] * vr, vs, j, dv), cx_v16_all(sp[i]), o);
			cx_v16_store(o, so + j);
		}
		m = next;
		CX_BARRIER(); /* before sp and sv are written again */
	}
	for (cx_u32 j = l; j < dv; j += CX_ROW_ITEMS)
		cx_store_f(
			y, CX_DT_0, yb + j * P.t[0].stride[5], m == -CX_INF ? 0.0f : (float)(so[j] / total));
}

#endif
