/* row.cl.h - softmax and norms: a group per row, statistics in cx_acc, two passes for a variance.
 * Meaning: backends/ref/row.c. Rows are t[]'s index space; i[] has the strides along the row. */
#ifndef CX_ROW_CL_H
#define CX_ROW_CL_H

#include "kernels/quant.cl.h"

/* i[0] logarithm, i[1] elements of a row, i[2] stride of y, i[3] of x; f[0] scale. scale * x is
 * rounded to f32 first. Sixteen at a time where both run along the row, the rest one at a time. */
CX_KERNEL cx_softmax_group(CX_BUF(y), CX_BUF(x), CX_PARAMS)
{
	CX_LOCAL_ARRAY(cx_acc, s, CX_ROW_ITEMS);
	cx_u32 row = CX_GROUP_ID(0), l = CX_LOCAL_ID(), dy = CX_DT_0, dx = CX_DT_1, n = (cx_u32)P.i[1];
	cx_u32 to = cx_at(&P.t[0], row), from = cx_at(&P.t[1], row), ys = (cx_u32)P.i[2],
		   xs = (cx_u32)P.i[3], wide = xs == 1 && ys == 1 ? n / 16 * 16 : 0;
	int logarithm = P.i[0];
	float scale = P.f[0], m = -CX_INF, total, ln;
	float lane[16];
	cx_v16 most = cx_v16_all(-CX_INF), some = cx_v16_all(0.0f);
	cx_acc sum;
	for (cx_u32 j = 16 * l; j < wide; j += 16 * CX_ROW_ITEMS)
		most = cx_v16_max_nan(most, cx_load16_full(x, dx, from, j) * scale);
	cx_v16_put(most, lane);
	for (int i = 0; i < 16; i++) m = cx_max_nan(m, lane[i]);
	for (cx_u32 j = wide + l; j < n; j += CX_ROW_ITEMS)
		m = cx_max_nan(m, scale * cx_load_f(x, dx, from + j * xs));
	m = cx_group_max(s, m);
	for (cx_u32 j = 16 * l; j < wide; j += 16 * CX_ROW_ITEMS)
		some = some + cx_v16_exp(cx_load16_full(x, dx, from, j) * scale - m);
	sum = cx_v16_sum(some);
	for (cx_u32 j = wide + l; j < n; j += CX_ROW_ITEMS)
		sum += CX_EXP(scale * cx_load_f(x, dx, from + j * xs) - m);
	sum = cx_group_sum(s, sum);
	total = (float)sum;
	ln = logarithm ? (float)CX_ACC_LOG(sum) : 0.0f;
	for (cx_u32 j = 16 * l; j < wide; j += 16 * CX_ROW_ITEMS) {
		cx_v16 v = cx_load16_full(x, dx, from, j) * scale - m;
		cx_store16(y, dy, to, j, n, logarithm ? v - ln : cx_v16_exp(v) / total);
	}
	for (cx_u32 j = wide + l; j < n; j += CX_ROW_ITEMS) {
		float v = scale * cx_load_f(x, dx, from + j * xs) - m;
		cx_store_f(y, dy, to + j * ys, logarithm ? v - ln : CX_EXP(v) / total);
	}
}

/* Weight of a norm at column j. */
CX_FN float cx_norm_weight(CX_BUF(w), CX_PQ const struct cx_ktensor *t, cx_u32 j, int plus_one)
{
	float v = t->dtype == CX_K_NONE ? (plus_one ? 0.0f : 1.0f)
									: cx_load_f(w, t->dtype, t->off + j * t->stride[CX_K_RANK - 1]);
	return plus_one ? 1.0f + v : v;
}

CX_FN float cx_norm_bias(CX_BUF(b), CX_PQ const struct cx_ktensor *t, cx_u32 j)
{
	return t->dtype == CX_K_NONE ? 0.0f
								 : cx_load_f(b, t->dtype, t->off + j * t->stride[CX_K_RANK - 1]);
}

/* i[0] 1 rmsnorm, 2 layernorm, 3 l2norm; i[1] plus_one; i[2] columns; f[0] eps; strides along the
 * row: i[3] y, i[4] x, i[5] the second addend, i[6] the sum. t: y, x, w, bias, second addend, sum;
 * the last four may be absent. With a second addend the sum, rounded to its dtype, is stored and
 * normalised. */
CX_KERNEL cx_norm_group(
	CX_BUF(y), CX_BUF(x), CX_BUF(w), CX_BUF(bias), CX_BUF(x2), CX_BUF(sum), CX_PARAMS)
{
	CX_LOCAL_ARRAY(cx_acc, s, CX_ROW_ITEMS);
	cx_u32 row = CX_GROUP_ID(0), l = CX_LOCAL_ID(), n = (cx_u32)P.i[2], dx = CX_DT_1, dy = CX_DT_0;
	cx_u32 to = cx_at(&P.t[0], row), from = cx_at(&P.t[1], row), ys = (cx_u32)P.i[3],
		   xs = (cx_u32)P.i[4];
	CX_GLOBAL cx_u8 *b = x;
	int kind = P.i[0], plus_one = P.i[1];
	cx_acc mean = 0, sq = 0, inv;
	if (P.t[4].dtype != CX_K_NONE) { /* each item reads back only what it stored */
		cx_u32 from2 = cx_at(&P.t[4], row), at = cx_at(&P.t[5], row), x2s = (cx_u32)P.i[5],
			   ss = (cx_u32)P.i[6];
		for (cx_u32 j = l; j < n; j += CX_ROW_ITEMS)
			cx_store_f(sum, dx, at + j * ss,
				cx_load_f(x, dx, from + j * xs) + cx_load_f(x2, dx, from2 + j * x2s));
		b = sum;
		from = at;
		xs = ss;
	}
	if (kind == 2) {
		for (cx_u32 j = l; j < n; j += CX_ROW_ITEMS) mean += cx_load_f(b, dx, from + j * xs);
		mean = cx_group_sum(s, mean) / (cx_acc)n;
	}
	for (cx_u32 j = l; j < n; j += CX_ROW_ITEMS) {
		cx_acc d = cx_load_f(b, dx, from + j * xs) - mean;
		sq += d * d;
	}
	sq = cx_group_sum(s, sq);
	if (kind != 3) sq /= (cx_acc)n;
	inv = (cx_acc)1 / CX_ACC_SQRT(sq + (cx_acc)P.f[0]);
	for (cx_u32 j = l; j < n; j += CX_ROW_ITEMS) {
		cx_acc v = (cx_load_f(b, dx, from + j * xs) - mean) * inv;
		if (kind != 3)
			v = v * cx_norm_weight(w, &P.t[2], j, plus_one) + cx_norm_bias(bias, &P.t[3], j);
		cx_store_f(y, dy, to + j * ys, (float)v);
	}
}

/* A group per sample and group of channels: i[0] elements of it (consecutive in row-major order),
 * i[1] elements of a channel, i[2] channels; f[0] eps. t: y, x, w, bias. */
CX_KERNEL cx_groupnorm_group(CX_BUF(y), CX_BUF(x), CX_BUF(w), CX_BUF(bias), CX_PARAMS)
{
	CX_LOCAL_ARRAY(cx_acc, s, CX_ROW_ITEMS);
	cx_u32 l = CX_LOCAL_ID(), n = (cx_u32)P.i[0], first = CX_GROUP_ID(0) * n, dx = CX_DT_1;
	cx_acc mean = 0, sq = 0, inv;
	for (cx_u32 j = l; j < n; j += CX_ROW_ITEMS)
		mean += cx_load_f(x, dx, cx_at(&P.t[1], first + j));
	mean = cx_group_sum(s, mean) / (cx_acc)n;
	for (cx_u32 j = l; j < n; j += CX_ROW_ITEMS) {
		cx_acc d = cx_load_f(x, dx, cx_at(&P.t[1], first + j)) - mean;
		sq += d * d;
	}
	sq = cx_group_sum(s, sq) / (cx_acc)n;
	inv = (cx_acc)1 / CX_ACC_SQRT(sq + (cx_acc)P.f[0]);
	for (cx_u32 j = l; j < n; j += CX_ROW_ITEMS) {
		cx_u32 i = first + j, ch = i / (cx_u32)P.i[1] % (cx_u32)P.i[2];
		cx_acc v = (cx_load_f(x, dx, cx_at(&P.t[1], i)) - mean) * inv;
		v = v * cx_norm_weight(w, &P.t[2], ch, 0) + cx_norm_bias(bias, &P.t[3], ch);
		cx_store_f(y, CX_DT_0, cx_at(&P.t[0], i), (float)v);
	}
}

#endif
