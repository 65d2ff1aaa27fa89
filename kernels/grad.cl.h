/* grad.cl.h - backward ops: norms, attention, conv1d, gated delta rule. Formulas:
 * backends/ref/grad.c.
 *
 * Sums over rows run in the order of rows, one item (or group) per result, so that no two items
 * ever add to the same place. */
#ifndef CX_GRAD_CL_H
#define CX_GRAD_CL_H

#include "kernels/keys.h"
#include "kernels/quant.cl.h"
#include "kernels/span.h"

/* ---- norms. i[0] of a layernorm, i[1] plus_one, i[2] columns; strides along the row: i[3] dx,
 * i[4] x, i[5] dy; i[6] rows; f[0] eps. t: dx, x, dy, w, statistics (f32 [rows, 3]: mean in two
 * parts and 1 / deviation), dw, db ---- */

CX_FN float cx_grad_weight(CX_BUF(w), CX_PQ const struct cx_ktensor *t, cx_u32 j, int plus_one)
{
	float v = t->dtype == CX_K_NONE ? (plus_one ? 0.0f : 1.0f)
									: cx_load_f(w, t->dtype, t->off + j * t->stride[CX_K_RANK - 1]);
	return plus_one ? 1.0f + v : v;
}

/* dx: a group per row. */
CX_KERNEL cx_norm_grad_group(CX_BUF(dx), CX_BUF(x), CX_BUF(dy), CX_BUF(w), CX_BUF(stat), CX_PARAMS)
{
	CX_LOCAL_ARRAY(cx_acc, s, CX_ROW_ITEMS);
	cx_u32 row = CX_GROUP_ID(0), l = CX_LOCAL_ID(), n = (cx_u32)P.i[2], dt = CX_DT_1;
	cx_u32 to = cx_at(&P.t[0], row), from = cx_at(&P.t[1], row), gf = cx_at(&P.t[2], row);
	cx_u32 xs = (cx_u32)P.i[4], gs = (cx_u32)P.i[5];
	cx_acc mean = 0, sq = 0, inv, sum = 0, dot = 0;
	if (P.i[0]) {
		for (cx_u32 j = l; j < n; j += CX_ROW_ITEMS) mean += cx_load_f(x, dt, from + j * xs);
		mean = cx_group_sum(s, mean) / (cx_acc)n;
	}
	for (cx_u32 j = l; j < n; j += CX_ROW_ITEMS) {
		cx_acc d = cx_load_f(x, dt, from + j * xs) - mean;
		sq += d * d;
	}
	sq = cx_group_sum(s, sq) / (cx_acc)n;
	inv = (cx_acc)1 / CX_ACC_SQRT(sq + (cx_acc)P.f[0]);
	for (cx_u32 j = l; j < n; j += CX_ROW_ITEMS) {
		cx_acc h = (cx_load_f(x, dt, from + j * xs) - mean) * inv;
		cx_acc g = (cx_acc)cx_load_f(dy, dt, gf + j * gs) * cx_grad_weight(w, &P.t[3], j, P.i[1]);
		sum += g;
		dot += g * h;
	}
	sum = cx_group_sum(s, sum) / (cx_acc)n;
	dot = cx_group_sum(s, dot) / (cx_acc)n;
	if (!P.i[0]) sum = 0;
	for (cx_u32 j = l; j < n; j += CX_ROW_ITEMS) {
		cx_acc h = (cx_load_f(x, dt, from + j * xs) - mean) * inv;
		cx_acc g = (cx_acc)cx_load_f(dy, dt, gf + j * gs) * cx_grad_weight(w, &P.t[3], j, P.i[1]);
		cx_store_f(dx, CX_DT_0, to + j * (cx_u32)P.i[3], (float)(inv * (g - sum - h * dot)));
	}
	if (l == 0) {
		CX_GLOBAL float *st = (CX_GLOBAL float *)stat + P.t[4].off + 3 * row;
		st[0] = (float)mean;
		st[1] = (float)(mean - (cx_acc)st[0]);
		st[2] = (float)inv;
	}
}

/* dw and db: an item per column. */
CX_KERNEL cx_norm_grad_column(
	CX_BUF(dw), CX_BUF(db), CX_BUF(x), CX_BUF(dy), CX_BUF(stat), CX_PARAMS)
{
	cx_u32 j = CX_GLOBAL_ID(0), dt = P.t[1].dtype;
	CX_GLOBAL const float *st = (CX_GLOBAL const float *)stat + P.t[4].off;
	cx_acc sw = 0, sb = 0;
	if (j >= P.n) return;
	for (cx_u32 row = 0; row < (cx_u32)P.i[6]; row++, st += 3) {
		cx_acc g = cx_load_f(dy, dt, cx_at(&P.t[2], row) + j * (cx_u32)P.i[5]);
		cx_acc v = cx_load_f(x, dt, cx_at(&P.t[1], row) + j * (cx_u32)P.i[4]);
		sw += g * ((v - (cx_acc)st[0] - (cx_acc)st[1]) * st[2]);
		sb += g;
	}
	((CX_GLOBAL float *)dw)[P.t[5].off + j] = (float)sw;
	if (P.i[0]) ((CX_GLOBAL float *)db)[P.t[6].off + j] = (float)sb;
}

/* ---- attention. i[] as keys.h says, i[4] heads of q per head of k, i[6] width of k, i[7] of v,
 * i[5] heads of q; f[0] scale. t: dq (or dk), q, k, v, q_off, kv_off, mask, bias, y (or dv), dy,
 * statistics (f32 [rows, heads, 3]: largest score, 1 / sum of weights, dy.y), gradient of scores.
 * The grid: rows, heads ---- */

#define CX_GRAD_WIDTH 1024 /* of a head, at most */
#define CX_NO_ROW 0xffffffffu

CX_FN cx_u32 cx_row_at(CX_PQ const struct cx_ktensor *t, cx_u32 batch, cx_u32 row, cx_u32 h)
{
	return t->off + batch * t->stride[2] + row * t->stride[3] + h * t->stride[4];
}

/* A row of n elements to local memory, zeros up to a multiple of 16. */
CX_FN void cx_grad_stage(
	CX_LOCAL float *to, CX_BUF(x), cx_u32 dt, cx_u32 at, cx_u32 stride, cx_u32 n)
{
	for (cx_u32 j = CX_LOCAL_ID(); j < (n + 15) / 16 * 16; j += CX_ROW_ITEMS)
		to[j] = j < n ? cx_load_f(x, dt, at + j * stride) : 0.0f;
}

CX_FN float cx_grad_dot(
	CX_LOCAL const float *a, CX_BUF(b), cx_u32 dt, cx_u32 at, cx_u32 stride, cx_u32 n)
{
	cx_v16 sum = cx_v16_all(0.0f);
	for (cx_u32 j = 0; j < n; j += 16)
		sum = cx_v16_fma(cx_v16_load(a + j), cx_load16_by(b, dt, at, stride, j, n), sum);
	return cx_v16_sum(sum);
}

/* sum[j..] += weight[i] * row of[i] of x, for the rows that are there. */
CX_FN void cx_grad_add(CX_LOCAL float *sum, CX_LOCAL const float *weight, CX_LOCAL const cx_u32 *of,
	CX_BUF(x), cx_u32 dt, cx_u32 stride, cx_u32 n)
{
	for (cx_u32 j = 16 * CX_LOCAL_ID(); j < n; j += 16 * CX_ROW_ITEMS) {
		cx_v16 o = cx_v16_load(sum + j);
		for (cx_u32 i = 0; i < CX_ROW_ITEMS; i++)
			if (of[i] != CX_NO_ROW)
				o = cx_v16_fma(cx_load16_by(x, dt, of[i], stride, j, n), cx_v16_all(weight[i]), o);
		cx_v16_store(o, sum + j);
	}
}

/* Score of a dot product d, bias added; seen: not masked. */
CX_FN float cx_grad_score(CX_BUF(bias), CX_PQ const struct cx_kparams *p, const struct cx_keys *r,
	cx_u32 h, cx_i32 s, float d)
{
	float x = p->f[0] * d;
	if (p->t[7].dtype != CX_K_NONE)
		x += ((CX_GLOBAL const float *)bias)[cx_mask_at(&p->t[7], r, h, s)];
	return x;
}

CX_FN int cx_grad_seen(
	CX_BUF(mask), CX_PQ const struct cx_kparams *p, const struct cx_keys *r, cx_u32 h, cx_i32 s)
{
	return p->t[6].dtype == CX_K_NONE || mask[cx_mask_at(&p->t[6], r, h, s)] != 0;
}

/* dq, statistics and gradient of scores: a group per query row and head. */
CX_KERNEL cx_attention_grad_row(CX_BUF(dq), CX_BUF(q), CX_BUF(k), CX_BUF(v), CX_BUF(q_off),
	CX_BUF(kv_off), CX_BUF(mask), CX_BUF(bias), CX_BUF(y), CX_BUF(dy), CX_BUF(stat), CX_BUF(ds),
	CX_PARAMS)
{
	CX_LOCAL_ARRAY(float, sq, CX_GRAD_WIDTH);
	CX_LOCAL_ARRAY(float, sg, CX_GRAD_WIDTH);
	CX_LOCAL_ARRAY(float, so, CX_GRAD_WIDTH);
	CX_LOCAL_ARRAY(float, sp, CX_ROW_ITEMS);
	CX_LOCAL_ARRAY(cx_u32, sk, CX_ROW_ITEMS);
	CX_LOCAL_ARRAY(cx_acc, s, CX_ROW_ITEMS);
	cx_u32 l = CX_LOCAL_ID(), h = CX_GROUP_ID(1), hk = h / (cx_u32)P.i[4], width = (cx_u32)P.i[6],
		   dv = (cx_u32)P.i[7], yb, gb;
	struct cx_keys r = cx_keys_of(q_off, kv_off, &P, CX_GROUP_ID(0));
	cx_u32 batch = r.b > 0 && P.i[0] == CX_DENSE ? (cx_u32)r.b : 0;
	float m = -CX_INF, inv, delta;
	cx_acc total = 0, part = 0;
	cx_grad_stage(
		sq, q, CX_DT_1, cx_row_at(&P.t[1], batch, (cx_u32)r.t, h), P.t[1].stride[5], width);
	gb = cx_row_at(&P.t[9], batch, (cx_u32)r.t, h);
	yb = cx_row_at(&P.t[8], batch, (cx_u32)r.t, h);
	cx_grad_stage(sg, dy, CX_DT_1, gb, P.t[9].stride[5], dv);
	for (cx_u32 j = l; j < (width + 15) / 16 * 16; j += CX_ROW_ITEMS) so[j] = 0.0f;
	for (cx_u32 j = l; j < dv; j += CX_ROW_ITEMS)
		part += (cx_acc)cx_load_f(dy, CX_DT_1, gb + j * P.t[9].stride[5]) *
				cx_load_f(y, CX_DT_1, yb + j * P.t[8].stride[5]);
	delta = (float)cx_group_sum(s, part);
	for (cx_i32 s0 = r.lo; s0 < r.hi; s0 += CX_ROW_ITEMS) {
		cx_i32 key = s0 + (cx_i32)l;
		float x = -CX_INF, next;
		if (key < r.hi && cx_grad_seen(mask, &P, &r, h, key))
			x = cx_grad_score(bias, &P, &r, h, key,
				cx_grad_dot(sq, k, CX_DT_2, cx_row_at(&P.t[2], batch, (cx_u32)(r.k0 + key), hk),
					P.t[2].stride[5], width));
		next = cx_max_nan(m, cx_group_max(s, x));
		part = x == -CX_INF ? 0.0f : CX_EXP(x - next);
		total = (m == -CX_INF ? 0 : total * CX_EXP(m - next)) + cx_group_sum(s, part);
		m = next;
	}
	inv = m == -CX_INF ? 0.0f : (float)(1 / total);
	for (cx_i32 s0 = r.lo; s0 < r.hi; s0 += CX_ROW_ITEMS) {
		cx_i32 key = s0 + (cx_i32)l;
		cx_u32 row = CX_NO_ROW;
		float x = -CX_INF, g = 0.0f;
		if (key < r.hi && cx_grad_seen(mask, &P, &r, h, key)) {
			row = cx_row_at(&P.t[2], batch, (cx_u32)(r.k0 + key), hk);
			x = cx_grad_score(
				bias, &P, &r, h, key, cx_grad_dot(sq, k, CX_DT_2, row, P.t[2].stride[5], width));
			if (x == -CX_INF) row = CX_NO_ROW;
		}
		if (row != CX_NO_ROW) {
			g = CX_EXP(x - m) * inv *
				(cx_grad_dot(sg, v, CX_DT_3, cx_row_at(&P.t[3], batch, (cx_u32)(r.k0 + key), hk),
					 P.t[3].stride[5], dv) -
					delta);
			if (P.t[11].dtype != CX_K_NONE)
				((CX_GLOBAL float *)ds)[cx_mask_at(&P.t[11], &r, h, key)] = g;
		}
		sp[l] = g;
		sk[l] = row;
		CX_BARRIER();
		cx_grad_add(so, sp, sk, k, CX_DT_2, P.t[2].stride[5], width);
		CX_BARRIER(); /* before sp and sk are written again */
	}
	for (cx_u32 j = l; j < width; j += CX_ROW_ITEMS)
		cx_store_f(dq, CX_DT_0, cx_row_at(&P.t[0], batch, (cx_u32)r.t, h) + j * P.t[0].stride[5],
			P.f[0] * so[j]);
	if (l == 0) {
		CX_GLOBAL float *st =
			(CX_GLOBAL float *)stat + P.t[10].off + 3 * (CX_GROUP_ID(0) * (cx_u32)P.i[5] + h);
		st[0] = m;
		st[1] = inv;
		st[2] = delta;
	}
}

/* The sequence that key row `row` belongs to: its rows of q are q0.., its keys k0..; s: the key's
 * position. n_q is 0 if no row can see it. */
struct cx_readers {
	cx_i32 b, q0, n_q, n_k, s;
};

CX_FN struct cx_readers cx_readers_of(
	CX_BUF(q_off), CX_BUF(kv_off), CX_PQ const struct cx_kparams *p, cx_u32 row)
{
	struct cx_readers r;
	cx_i32 n_k = p->i[10], k0 = 0, end = n_k;
	r.b = 0;
	r.q0 = 0;
	r.n_q = p->i[9];
	if (p->i[0] == CX_DENSE) {
		r.b = (cx_i32)row / n_k;
		row %= (cx_u32)n_k;
	} else if (p->t[4].dtype != CX_K_NONE) {
		for (r.b = p->i[8] - 1; r.b >= 0; r.b--) {
			k0 = cx_table_at(kv_off, &p->t[5], (cx_u32)r.b, 0, n_k);
			end = cx_table_at(kv_off, &p->t[5], (cx_u32)r.b + 1, k0, n_k);
			if ((cx_i32)row >= k0 && (cx_i32)row < end) break;
		}
		r.n_q = 0;
		if (r.b >= 0) {
			r.q0 = cx_table_at(q_off, &p->t[4], (cx_u32)r.b, 0, p->i[9]);
			r.n_q = cx_table_at(q_off, &p->t[4], (cx_u32)r.b + 1, r.q0, p->i[9]) - r.q0;
		}
	}
	r.n_k = end - k0;
	r.s = (cx_i32)row - k0;
	return r;
}

/* dk and dv, after the rows: a group per key row and head of keys. */
CX_KERNEL cx_attention_grad_key(CX_BUF(dk), CX_BUF(q), CX_BUF(k), CX_BUF(v), CX_BUF(q_off),
	CX_BUF(kv_off), CX_BUF(mask), CX_BUF(bias), CX_BUF(dvb), CX_BUF(dy), CX_BUF(stat), CX_PARAMS)
{
	CX_LOCAL_ARRAY(float, sk, CX_GRAD_WIDTH);
	CX_LOCAL_ARRAY(float, sv, CX_GRAD_WIDTH);
	CX_LOCAL_ARRAY(float, sdk, CX_GRAD_WIDTH);
	CX_LOCAL_ARRAY(float, sdv, CX_GRAD_WIDTH);
	CX_LOCAL_ARRAY(float, sp, CX_ROW_ITEMS);
	CX_LOCAL_ARRAY(float, sg, CX_ROW_ITEMS);
	CX_LOCAL_ARRAY(cx_u32, rq, CX_ROW_ITEMS);
	CX_LOCAL_ARRAY(cx_u32, ry, CX_ROW_ITEMS);
	cx_u32 l = CX_LOCAL_ID(), hk = CX_GROUP_ID(1), width = (cx_u32)P.i[6], dv = (cx_u32)P.i[7];
	struct cx_readers r = cx_readers_of(q_off, kv_off, &P, CX_GROUP_ID(0));
	int dense = P.i[0] == CX_DENSE;
	cx_u32 batch = dense ? (cx_u32)r.b : 0,
		   row = dense ? (cx_u32)r.s : CX_GROUP_ID(0); /* of k and v */
	cx_grad_stage(sk, k, CX_DT_2, cx_row_at(&P.t[2], batch, row, hk), P.t[2].stride[5], width);
	cx_grad_stage(sv, v, CX_DT_3, cx_row_at(&P.t[3], batch, row, hk), P.t[3].stride[5], dv);
	for (cx_u32 j = l; j < (width + 15) / 16 * 16; j += CX_ROW_ITEMS) sdk[j] = 0.0f;
	for (cx_u32 j = l; j < (dv + 15) / 16 * 16; j += CX_ROW_ITEMS) sdv[j] = 0.0f;
	CX_BARRIER();
	for (cx_u32 h = hk * (cx_u32)P.i[4]; h < (hk + 1) * (cx_u32)P.i[4]; h++)
		for (cx_i32 t0 = 0; t0 < r.n_q; t0 += CX_ROW_ITEMS) {
			cx_i32 t = t0 + (cx_i32)l, at = t + r.n_k - r.n_q;
			struct cx_keys key;
			int see = t < r.n_q && (!P.i[1] || r.s <= at) && (P.i[2] <= 0 || r.s > at - P.i[2]);
			cx_u32 qa = CX_NO_ROW, ya = CX_NO_ROW;
			float x, p = 0.0f, g = 0.0f;
			key.b = r.b;
			key.t = r.q0 + t;
			key.k0 = key.lo = key.hi = 0;
			if (see && cx_grad_seen(mask, &P, &key, h, r.s)) {
				CX_GLOBAL const float *st =
					(CX_GLOBAL const float *)stat + P.t[10].off +
					3 * ((batch * (cx_u32)P.i[9] + (cx_u32)key.t) * (cx_u32)P.i[5] + h);
				qa = cx_row_at(&P.t[1], batch, (cx_u32)key.t, h);
				ya = cx_row_at(&P.t[9], batch, (cx_u32)key.t, h);
				x = cx_grad_score(bias, &P, &key, h, r.s,
					cx_grad_dot(sk, q, CX_DT_1, qa, P.t[1].stride[5], width));
				if (x != -CX_INF) p = CX_EXP(x - st[0]) * st[1];
				g = p * (cx_grad_dot(sv, dy, CX_DT_1, ya, P.t[9].stride[5], dv) - st[2]);
			}
			sp[l] = p;
			sg[l] = g;
			rq[l] = qa;
			ry[l] = ya;
			CX_BARRIER();
			cx_grad_add(sdk, sg, rq, q, CX_DT_1, P.t[1].stride[5], width);
			cx_grad_add(sdv, sp, ry, dy, CX_DT_1, P.t[9].stride[5], dv);
			CX_BARRIER();
		}
	for (cx_u32 j = l; j < width; j += CX_ROW_ITEMS)
		cx_store_f(dk, CX_DT_0, cx_row_at(&P.t[0], batch, row, hk) + j * P.t[0].stride[5],
			P.f[0] * sdk[j]);
	for (cx_u32 j = l; j < dv; j += CX_ROW_ITEMS)
		cx_store_f(dvb, CX_DT_3, cx_row_at(&P.t[8], batch, row, hk) + j * P.t[8].stride[5], sdv[j]);
}

/* ---- conv1d. i[] as span.h says, i[3] taps, i[4] silu, i[5] channels. t: dx, dw, db, dstate
 * before, x, w, state, dy, bias, dstate after, off, slot, dz (f32 [T,C]). All take the same
 * buffers ---- */

#define CX_CONV_GRAD_BUFS                                                                          \
	CX_BUF(dx), CX_BUF(dw), CX_BUF(db), CX_BUF(ds), CX_BUF(x), CX_BUF(w), CX_BUF(state),           \
		CX_BUF(dy), CX_BUF(bias), CX_BUF(dsa), CX_BUF(off), CX_BUF(slot), CX_BUF(dz)

CX_FN cx_u32 cx_conv_at(CX_PQ const struct cx_ktensor *t, cx_i32 row, cx_u32 ch)
{
	return t->off + (cx_u32)row * t->stride[4] + ch * t->stride[5];
}

/* Input at time t of a sequence; t < 0 is the window in the state before it. */
CX_FN float cx_conv_input(CX_BUF(x), CX_BUF(state), CX_PQ const struct cx_kparams *p,
	const struct cx_span *s, cx_i32 t, cx_u32 ch)
{
	if (t >= 0) return cx_load_f(x, p->t[4].dtype, cx_conv_at(&p->t[4], s->first + t, ch));
	if (s->slot < 0) return 0.0f;
	return cx_load_f(state, p->t[6].dtype, cx_state_at(&p->t[6], s->slot, p->i[3] - 1 + t, ch));
}

CX_FN float cx_conv_tap(CX_BUF(w), CX_PQ const struct cx_kparams *p, cx_i32 j, cx_u32 ch)
{
	return cx_load_f(w, p->t[5].dtype, cx_conv_at(&p->t[5], (cx_i32)ch, (cx_u32)j));
}

/* The last sequence of a row; false: none has it. */
CX_FN int cx_conv_span(
	CX_BUF(off), CX_BUF(slot), CX_PQ const struct cx_kparams *p, cx_i32 row, struct cx_span *s)
{
	for (cx_i32 b = p->i[0] - 1; b >= 0; b--) {
		*s = cx_span_of(off, &p->t[10], slot, &p->t[11], p, b);
		if (row >= s->first && row < s->end) return 1;
	}
	return 0;
}

/* dz: gradient of the sums before the activation. An item per row and channel. */
CX_KERNEL cx_conv1d_grad_sum(CX_CONV_GRAD_BUFS, CX_PARAMS)
{
	cx_u32 i = CX_GLOBAL_ID(0), ch = i % (cx_u32)P.i[5];
	cx_i32 row = (cx_i32)(i / (cx_u32)P.i[5]);
	struct cx_span s;
	float d = 0.0f;
	if (i >= P.n) return;
	if (cx_conv_span(off, slot, &P, row, &s)) {
		d = cx_load_f(dy, P.t[7].dtype, cx_conv_at(&P.t[7], row, ch));
		if (P.i[4]) {
			cx_acc z = P.t[8].dtype == CX_K_NONE
						   ? 0
						   : cx_load_f(bias, P.t[8].dtype, P.t[8].off + ch * P.t[8].stride[5]);
			float g, zf;
			for (cx_i32 j = 0; j < P.i[3]; j++)
				z += (cx_acc)cx_conv_tap(w, &P, j, ch) *
					 cx_conv_input(x, state, &P, &s, row - s.first - P.i[3] + 1 + j, ch);
			zf = (float)z;
			g = cx_f_sigmoid(zf);
			d = d * (g * (1.0f + zf * (1.0f - g)));
		}
	}
	((CX_GLOBAL float *)dz)[P.t[12].off + i] = d;
}

/* Gradient of the input at time t: of the outputs that it reaches, and of the state after it. */
CX_FN float cx_conv_into(CX_BUF(w), CX_BUF(dz), CX_BUF(dsa), CX_PQ const struct cx_kparams *p,
	const struct cx_span *s, cx_i32 t, cx_u32 ch)
{
	cx_i32 n = s->end - s->first, taps = p->i[3], i = t - (n - (taps - 1));
	cx_acc sum = 0;
	if (s->slot >= 0 && i >= 0 && p->t[9].dtype != CX_K_NONE)
		sum = ((CX_GLOBAL const float *)dsa)[cx_state_at(&p->t[9], s->slot, i, ch)];
	for (cx_i32 j = 0; j < taps; j++) {
		cx_i32 at = t + taps - 1 - j;
		if (at >= 0 && at < n)
			sum += (cx_acc)cx_conv_tap(w, p, j, ch) *
				   ((CX_GLOBAL const float *)
						   dz)[p->t[12].off + (cx_u32)(s->first + at) * (cx_u32)p->i[5] + ch];
	}
	return (float)sum;
}

/* dx: an item per row and channel. */
CX_KERNEL cx_conv1d_grad_item(CX_CONV_GRAD_BUFS, CX_PARAMS)
{
	cx_u32 i = CX_GLOBAL_ID(0), ch = i % (cx_u32)P.i[5];
	cx_i32 row = (cx_i32)(i / (cx_u32)P.i[5]);
	struct cx_span s;
	float d = 0.0f;
	if (i >= P.n) return;
	if (cx_conv_span(off, slot, &P, row, &s))
		d = cx_conv_into(w, dz, dsa, &P, &s, row - s.first, ch);
	cx_store_f(dx, P.t[0].dtype, cx_conv_at(&P.t[0], row, ch), d);
}

/* dstate: an item per row of the state, element of the window and channel. */
CX_KERNEL cx_conv1d_grad_state(CX_CONV_GRAD_BUFS, CX_PARAMS)
{
	cx_u32 item = CX_GLOBAL_ID(0), ch = item % (cx_u32)P.i[5];
	cx_i32 window = P.i[3] - 1, i, row;
	struct cx_span s;
	float d = 0.0f;
	int found = 0;
	if (item >= P.n) return;
	i = (cx_i32)(item / (cx_u32)P.i[5]) % window;
	row = (cx_i32)(item / (cx_u32)P.i[5]) / window;
	for (cx_i32 b = P.i[0] - 1; b >= 0 && !found; b--) {
		s = cx_span_of(off, &P.t[10], slot, &P.t[11], &P, b);
		found = s.slot == row && s.end > s.first;
	}
	if (found) d = cx_conv_into(w, dz, dsa, &P, &s, i - window, ch);
	else if (P.t[9].dtype != CX_K_NONE)
		d = ((CX_GLOBAL const float *)dsa)[cx_state_at(&P.t[9], row, i, ch)];
	((CX_GLOBAL float *)ds)[P.t[3].off + item] = d;
}

/* dw and db: an item per channel and tap, and one more for the bias. */
CX_KERNEL cx_conv1d_grad_tap(CX_CONV_GRAD_BUFS, CX_PARAMS)
{
	cx_u32 item = CX_GLOBAL_ID(0), taps = (cx_u32)P.i[3], j = item % (taps + 1),
		   ch = item / (taps + 1);
	cx_acc sum = 0;
	if (item >= P.n) return;
	for (cx_i32 b = 0; b < P.i[0]; b++) {
		struct cx_span s = cx_span_of(off, &P.t[10], slot, &P.t[11], &P, b);
		for (cx_i32 t = 0; t < s.end - s.first; t++) {
			float d = ((CX_GLOBAL const float *)
					dz)[P.t[12].off + (cx_u32)(s.first + t) * (cx_u32)P.i[5] + ch];
			sum += j == taps ? (cx_acc)d
							 : (cx_acc)d * cx_conv_input(x, state, &P, &s,
											   t - (cx_i32)taps + 1 + (cx_i32)j, ch);
		}
	}
	if (j == taps) ((CX_GLOBAL float *)db)[P.t[2].off + ch] = (float)sum;
	else ((CX_GLOBAL float *)dw)[P.t[1].off + ch * taps + j] = (float)sum;
}

/* ---- gated delta rule. i[] as span.h says, i[3] heads of v, i[4] of k, i[5] tiled, i[6] dk,
 * i[7] dv; f[0] scale. t: dv, dgates, dstate (dense: holds the gradient of the state after the
 * sequences, and is worked on in place), q, k, v, g, beta, state, dy, off, slot, scratch. A
 * group per sequence and head of keys; an item owns columns of the state, and in between rows
 * of it.
 *
 * Scratch, floats: dq and dk [2,T,nk,dk], then states [.., nk, dk, dv]: those before tokens 0,
 * C, 2C .. of every sequence (i[8] of them in all), those of the C tokens after one, C per
 * sequence, and a gradient for a sequence without a slot, one each. ---- */

#define CX_DELTA_EVERY 16
#define CX_DELTA_WIDTH 1024 /* dv, at most */

struct cx_dgrad {
	CX_GLOBAL float *acc, *marks, *states; /* of this head: rows of [nk] apart */
	cx_u32 h, hk, size, step;              /* dk * dv; floats from one state to the next */
};

CX_FN float cx_gate_at(CX_BUF(x), CX_PQ const struct cx_ktensor *t, cx_u32 row, cx_u32 h)
{
	return cx_load_f(x, t->dtype, t->off + row * t->stride[4] + h * t->stride[5]);
}

/* v - (e^g S)'k for column j; the state at from. */
CX_FN float cx_delta_rest(CX_GLOBAL const float *from, CX_BUF(k), CX_BUF(v),
	CX_PQ const struct cx_kparams *p, const struct cx_dgrad *d, cx_u32 row, cx_u32 j, float decay)
{
	cx_u32 ka = cx_head_at(&p->t[4], row, d->hk), dv = (cx_u32)p->i[7];
	float m = 0.0f;
	for (cx_u32 i = 0; i < (cx_u32)p->i[6]; i++)
		m = cx_fma(from[i * dv + j], cx_load_f(k, p->t[4].dtype, ka + i * p->t[4].stride[5]), m);
	return cx_load_f(v, p->t[5].dtype, cx_head_at(&p->t[5], row, d->h) + j * p->t[5].stride[5]) -
		   decay * m;
}

/* Own columns of the state after a token. */
CX_FN void cx_delta_next(CX_GLOBAL float *to, CX_GLOBAL const float *from, CX_BUF(k), CX_BUF(v),
	CX_BUF(g), CX_BUF(beta), CX_PQ const struct cx_kparams *p, const struct cx_dgrad *d, cx_u32 row)
{
	cx_u32 ka = cx_head_at(&p->t[4], row, d->hk), dv = (cx_u32)p->i[7];
	float decay = CX_EXP(cx_gate_at(g, &p->t[6], row, d->h)),
		  bt = cx_gate_at(beta, &p->t[7], row, d->h);
	for (cx_u32 j = CX_LOCAL_ID(); j < dv; j += CX_ROW_ITEMS) {
		float delta = bt * cx_delta_rest(from, k, v, p, d, row, j, decay);
		for (cx_u32 i = 0; i < (cx_u32)p->i[6]; i++)
			to[i * dv + j] = cx_fma(cx_load_f(k, p->t[4].dtype, ka + i * p->t[4].stride[5]), delta,
				decay * from[i * dv + j]);
	}
}

/* One token backwards: S is the state before it, G the gradient of the state after it. */
CX_FN void cx_delta_back(CX_LOCAL float *rest, CX_LOCAL float *dd, CX_LOCAL cx_acc *s,
	CX_GLOBAL const float *st, CX_GLOBAL float *gr, CX_BUF(dvb), CX_BUF(dgates), CX_BUF(q),
	CX_BUF(k), CX_BUF(v), CX_BUF(g), CX_BUF(beta), CX_BUF(dy), CX_PQ const struct cx_kparams *p,
	const struct cx_dgrad *d, cx_u32 row, int first)
{
	cx_u32 l = CX_LOCAL_ID(), n_i = (cx_u32)p->i[6], dv = (cx_u32)p->i[7],
		   n_acc = (cx_u32)(p->i[1] * p->i[4]) * n_i;
	cx_u32 qa = cx_head_at(&p->t[3], row, d->hk), ka = cx_head_at(&p->t[4], row, d->hk),
		   ya = cx_head_at(&p->t[9], row, d->h), va = cx_head_at(&p->t[0], row, d->h);
	cx_u32 qs = p->t[3].stride[5], ks = p->t[4].stride[5], ys = p->t[9].stride[5];
	cx_u32 dt = p->t[3].dtype;
	float decay = CX_EXP(cx_gate_at(g, &p->t[6], row, d->h)),
		  bt = cx_gate_at(beta, &p->t[7], row, d->h), dot;
	cx_acc part = 0, dbeta = 0, dg = 0;
	for (cx_u32 j = l; j < dv; j += CX_ROW_ITEMS) { /* columns: G += q dy', dd = G'k */
		float y = cx_load_f(dy, dt, ya + j * ys), sum = 0.0f;
		rest[j] = cx_delta_rest(st, k, v, p, d, row, j, decay);
		for (cx_u32 i = 0; i < n_i; i++) {
			float x = cx_fma(p->f[0] * cx_load_f(q, dt, qa + i * qs), y, gr[i * dv + j]);
			gr[i * dv + j] = x;
			sum = cx_fma(x, cx_load_f(k, dt, ka + i * ks), sum);
		}
		dd[j] = sum;
		part += (cx_acc)rest[j] * y;
		dbeta += (cx_acc)rest[j] * sum;
	}
	dot = bt * (float)cx_group_sum(s, part);
	dbeta = cx_group_sum(s, dbeta);
	CX_BARRIER_ALL();
	for (cx_u32 i = l; i < n_i; i += CX_ROW_ITEMS) { /* rows: dq, dk */
		float a = 0.0f, b = 0.0f, c = 0.0f;
		CX_GLOBAL float *to = d->acc + (row * (cx_u32)p->i[4] + d->hk) * n_i + i;
		for (cx_u32 j = 0; j < dv; j++) {
			float x = st[i * dv + j];
			a = cx_fma(x, cx_load_f(dy, dt, ya + j * ys), a);
			b = cx_fma(gr[i * dv + j], rest[j], b);
			c = cx_fma(x, dd[j], c);
		}
		a = p->f[0] * (decay * a + cx_load_f(k, dt, ka + i * ks) * dot);
		b = bt * (b - decay * c);
		to[0] = first ? a : to[0] + a;
		to[n_acc] = first ? b : to[n_acc] + b;
	}
	CX_BARRIER_ALL();
	for (cx_u32 j = l; j < dv; j += CX_ROW_ITEMS) { /* columns: G = e^g (G - k dv') */
		float x = bt * dd[j];
		cx_store_f(dvb, dt, va + j * p->t[0].stride[5], x);
		for (cx_u32 i = 0; i < n_i; i++) {
			float y = decay * cx_fma(-cx_load_f(k, dt, ka + i * ks), x, gr[i * dv + j]);
			gr[i * dv + j] = y;
			dg += (cx_acc)y * st[i * dv + j];
		}
	}
	dg = cx_group_sum(s, dg);
	if (l == 0) {
		CX_GLOBAL float *to = (CX_GLOBAL float *)dgates + p->t[1].off;
		to[row * (cx_u32)p->i[3] + d->h] = (float)dg;
		to[((cx_u32)p->i[1] + row) * (cx_u32)p->i[3] + d->h] = (float)dbeta;
	}
}

CX_KERNEL cx_delta_grad_group(CX_BUF(dvb), CX_BUF(dgates), CX_BUF(ds), CX_BUF(q), CX_BUF(k),
	CX_BUF(v), CX_BUF(g), CX_BUF(beta), CX_BUF(state), CX_BUF(dy), CX_BUF(off), CX_BUF(slot),
	CX_BUF(scratch), CX_PARAMS)
{
	CX_LOCAL_ARRAY(float, rest, CX_DELTA_WIDTH);
	CX_LOCAL_ARRAY(float, dd, CX_DELTA_WIDTH);
	CX_LOCAL_ARRAY(cx_acc, s, CX_ROW_ITEMS);
	cx_u32 l = CX_LOCAL_ID(), b = CX_GROUP_ID(0), nk = (cx_u32)P.i[4], nv = (cx_u32)P.i[3],
		   n_i = (cx_u32)P.i[6], dv = (cx_u32)P.i[7];
	struct cx_span sp = cx_span_of(off, &P.t[10], slot, &P.t[11], &P, (cx_i32)b);
	cx_i32 n = sp.end - sp.first, last = (n - 1) / CX_DELTA_EVERY * CX_DELTA_EVERY;
	CX_GLOBAL float *base = (CX_GLOBAL float *)scratch + P.t[12].off, *none;
	struct cx_dgrad d;
	int first = 1;
	if (n <= 0) return;
	d.hk = CX_GROUP_ID(1);
	d.size = n_i * dv;
	d.step = nk * d.size;
	d.acc = base;
	base += 2 * (cx_u32)P.i[1] * nk * n_i + d.hk * d.size;
	d.marks = base + (cx_u32)(sp.first / CX_DELTA_EVERY + (cx_i32)b) * d.step;
	d.states = base + ((cx_u32)P.i[8] + b * CX_DELTA_EVERY) * d.step;
	none = base + ((cx_u32)P.i[8] + (cx_u32)P.i[0] * CX_DELTA_EVERY + b) * d.step;
	for (d.h = 0; d.h < nv; d.h++) {
		CX_GLOBAL float *gr = none;
		if ((P.i[5] ? d.h % nk : d.h / (nv / nk)) != d.hk) continue;
		if (sp.slot >= 0)
			gr = (CX_GLOBAL float *)ds + P.t[2].off + ((cx_u32)sp.slot * nv + d.h) * d.size;
		for (cx_u32 j = l; j < dv; j += CX_ROW_ITEMS)
			for (cx_u32 i = 0; i < n_i; i++) {
				cx_u32 at = P.t[8].off + (cx_u32)(sp.slot < 0 ? 0 : sp.slot) * P.t[8].stride[2] +
							d.h * P.t[8].stride[3] + i * P.t[8].stride[4] + j * P.t[8].stride[5];
				d.marks[i * dv + j] = sp.slot < 0 ? 0.0f : ((CX_GLOBAL const float *)state)[at];
				if (sp.slot < 0) gr[i * dv + j] = 0.0f;
			}
		for (cx_i32 t = 0; t < last; t++) {
			cx_i32 in = t % CX_DELTA_EVERY;
			CX_GLOBAL float *mark = d.marks + (cx_u32)(t / CX_DELTA_EVERY) * d.step;
			cx_delta_next(in + 1 == CX_DELTA_EVERY ? mark + d.step : d.states + (cx_u32)in * d.step,
				in == 0 ? mark : d.states + (cx_u32)(in - 1) * d.step, k, v, g, beta, &P, &d,
				(cx_u32)(sp.first + t));
		}
		for (cx_i32 t0 = last; t0 >= 0; t0 -= CX_DELTA_EVERY) {
			CX_GLOBAL float *mark = d.marks + (cx_u32)(t0 / CX_DELTA_EVERY) * d.step;
			cx_i32 end = t0 + CX_DELTA_EVERY < n ? t0 + CX_DELTA_EVERY : n;
			for (cx_i32 t = t0; t + 1 < end; t++)
				cx_delta_next(d.states + (cx_u32)(t - t0) * d.step,
					t == t0 ? mark : d.states + (cx_u32)(t - t0 - 1) * d.step, k, v, g, beta, &P,
					&d, (cx_u32)(sp.first + t));
			for (cx_i32 t = end - 1; t >= t0; t--)
				cx_delta_back(rest, dd, s,
					t == t0 ? mark : d.states + (cx_u32)(t - t0 - 1) * d.step, gr, dvb, dgates, q,
					k, v, g, beta, dy, &P, &d, (cx_u32)(sp.first + t), first);
			CX_BARRIER_ALL(); /* rows of the states have been read */
		}
		first = 0;
	}
}

/* dq and dk to their dtype. t: result, scratch. An item per element; rows of no sequence were
 * set to zero before. */
CX_KERNEL cx_delta_grad_item(CX_BUF(dqk), CX_BUF(scratch), CX_PARAMS)
{
	cx_u32 i = CX_GLOBAL_ID(0);
	if (i >= P.n) return;
	cx_store_f(
		dqk, P.t[0].dtype, P.t[0].off + i, ((CX_GLOBAL const float *)scratch)[P.t[1].off + i]);
}

#endif
