/* gen.cl.h - losses, the optimizer step, generators. Meaning: backends/ref/gen.c. */
#ifndef CX_GEN_CL_H
#define CX_GEN_CL_H

#include "kernels/elem.cl.h"

/* ---- losses. Partial sums go to `part`, cx_acc, from element i[7] on ---- */

/* t: y (absent if reduced), x [N,C], target [N]; i[0] classes, i[1] ignore. A group per row. */
CX_KERNEL cx_xent_group(CX_BUF(y), CX_BUF(x), CX_BUF(target), CX_BUF(part), CX_PARAMS)
{
	CX_LOCAL_ARRAY(cx_acc, s, CX_ROW_ITEMS);
	cx_u32 row = CX_GROUP_ID(0), l = CX_LOCAL_ID(), n = (cx_u32)P.i[0], dx = P.t[1].dtype;
	cx_u32 from = P.t[1].off + row * P.t[1].stride[4], xs = P.t[1].stride[5];
	cx_i32 t = ((CX_GLOBAL const cx_i32 *)target)[P.t[2].off + row * P.t[2].stride[5]];
	float m = -CX_INF;
	cx_acc sum = 0, loss = 0;
	for (cx_u32 j = l; j < n; j += CX_ROW_ITEMS) m = cx_max_nan(m, cx_load_f(x, dx, from + j * xs));
	m = cx_group_max(s, m);
	for (cx_u32 j = l; j < n; j += CX_ROW_ITEMS) sum += CX_EXP(cx_load_f(x, dx, from + j * xs) - m);
	sum = cx_group_sum(s, sum);
	if (l > 0) return;
	if (t != P.i[1]) {
		if (t < 0 || (cx_u32)t >= n) loss = CX_NAN;
		else loss = (cx_acc)m - cx_load_f(x, dx, from + (cx_u32)t * xs) + CX_ACC_LOG(sum);
	}
	if (P.t[0].dtype != CX_K_NONE)
		cx_store_acc(y, P.t[0].dtype, P.t[0].off + row * P.t[0].stride[5], loss);
	else ((CX_GLOBAL cx_acc *)part)[(cx_u32)P.i[7] + row] = loss;
}

/* i[2] poisson, i[3] rate; f[0] eps. */
CX_FN cx_acc cx_pair_term(CX_PQ const struct cx_kparams *p, float x, float y)
{
	cx_acc d = (cx_acc)x - y;
	if (!p->i[2]) return d * d;
	return p->i[3] ? (cx_acc)x - (cx_acc)y * CX_ACC_LOG((cx_acc)x + (cx_acc)p->f[0])
				   : CX_ACC_EXP((cx_acc)x) - (cx_acc)y * x;
}

/* t: loss, x, y, all of the same dims. */
CX_KERNEL cx_pair_item(CX_BUF(loss), CX_BUF(x), CX_BUF(y), CX_PARAMS)
{
	cx_u32 i = CX_GLOBAL_ID(0);
	if (i >= P.n) return;
	cx_store_acc(loss, P.t[0].dtype, cx_at(&P.t[0], i),
		cx_pair_term(&P, cx_load_f(x, P.t[1].dtype, cx_at(&P.t[1], i)),
			cx_load_f(y, P.t[2].dtype, cx_at(&P.t[2], i))));
}

/* Sum over elements [g*i[4], (g+1)*i[4]): a group each. */
CX_KERNEL cx_pair_group(CX_BUF(x), CX_BUF(y), CX_BUF(part), CX_PARAMS)
{
	CX_LOCAL_ARRAY(cx_acc, s, CX_ROW_ITEMS);
	cx_u32 g = CX_GROUP_ID(0), l = CX_LOCAL_ID(), end = (g + 1) * (cx_u32)P.i[4];
	cx_acc sum = 0;
	if (end > P.n) end = P.n;
	for (cx_u32 i = g * (cx_u32)P.i[4] + l; i < end; i += CX_ROW_ITEMS)
		sum += cx_pair_term(&P, cx_load_f(x, P.t[1].dtype, cx_at(&P.t[1], i)),
			cx_load_f(y, P.t[2].dtype, cx_at(&P.t[2], i)));
	sum = cx_group_sum(s, sum);
	if (l == 0) ((CX_GLOBAL cx_acc *)part)[(cx_u32)P.i[7] + g] = sum;
}

/* One group: y = sum of i[5] parts, divided by i[6], or where i[6] < 0 by the targets (t[2], n of
 * them) that are not i[1]. */
CX_KERNEL cx_loss_group(CX_BUF(y), CX_BUF(part), CX_BUF(target), CX_PARAMS)
{
	CX_LOCAL_ARRAY(cx_acc, s, CX_ROW_ITEMS);
	cx_u32 l = CX_LOCAL_ID();
	cx_acc sum = 0, kept = 0;
	for (cx_u32 i = l; i < (cx_u32)P.i[5]; i += CX_ROW_ITEMS)
		sum += ((CX_GLOBAL const cx_acc *)part)[(cx_u32)P.i[7] + i];
	sum = cx_group_sum(s, sum);
	if (P.i[6] < 0) {
		for (cx_u32 i = l; i < P.n; i += CX_ROW_ITEMS)
			kept += ((CX_GLOBAL const cx_i32 *)target)[P.t[2].off + i * P.t[2].stride[5]] != P.i[1]
						? 1.0f
						: 0.0f;
		kept = cx_group_sum(s, kept);
	} else {
		kept = (cx_acc)P.i[6];
	}
	if (l == 0) cx_store_acc(y, P.t[0].dtype, P.t[0].off, sum / kept);
}

/* ---- adamw: t: p, m, v (updated where they are), g, lr, t. f: beta1, beta2, eps, decay, ln beta1,
 * ln beta2 ---- */

CX_KERNEL cx_adamw_item(
	CX_BUF(p), CX_BUF(m), CX_BUF(v), CX_BUF(g), CX_BUF(lr), CX_BUF(step), CX_PARAMS)
{
	cx_u32 i = CX_GLOBAL_ID(0), dp, po, mo, vo;
	cx_acc grad, old, mean, square, b1 = P.f[0], b2 = P.f[1], up;
	float t, rate;
	if (i >= P.n) return;
	dp = P.t[0].dtype;
	po = cx_at(&P.t[0], i);
	mo = cx_at(&P.t[1], i);
	vo = cx_at(&P.t[2], i);
	rate = ((CX_GLOBAL const float *)lr)[P.t[4].off];
	t = ((CX_GLOBAL const float *)step)[P.t[5].off];
	grad = cx_load_f(g, P.t[3].dtype, cx_at(&P.t[3], i));
	old = cx_load_f(p, dp, po);
	mean = b1 * ((CX_GLOBAL const float *)m)[mo] + ((cx_acc)1 - b1) * grad;
	square = b2 * ((CX_GLOBAL const float *)v)[vo] + ((cx_acc)1 - b2) * grad * grad;
	up = mean / -CX_EXPM1(t * P.f[4]) /
		 (CX_ACC_SQRT(square / -CX_EXPM1(t * P.f[5])) + (cx_acc)P.f[2]);
	cx_store_acc(p, dp, po, old - rate * (up + (cx_acc)P.f[3] * old));
	((CX_GLOBAL float *)m)[mo] = (float)mean;
	((CX_GLOBAL float *)v)[vo] = (float)square;
}

/* ---- generators ---- */

CX_FN cx_u32 cx_high(cx_u32 a, cx_u32 b)
{
	return (cx_u32)((cx_u64)a * b >> 32);
}

/* Philox4x32-10. t: y, key; i[0] kind. An item per element. */
CX_KERNEL cx_random_item(CX_BUF(y), CX_BUF(key), CX_PARAMS)
{
	cx_u32 i = CX_GLOBAL_ID(0), c[4], k[4], to;
	if (i >= P.n) return;
	to = cx_at(&P.t[0], i);
	for (cx_u32 j = 0; j < 4; j++)
		k[j] = ((CX_GLOBAL const cx_u32 *)key)[P.t[1].off + j * P.t[1].stride[5]];
	c[0] = i / 4;
	c[1] = 0;
	c[2] = k[2];
	c[3] = k[3];
	for (int round = 0; round < 10; round++) {
		cx_u32 h0 = cx_high(0xD2511F53u, c[0]), l0 = 0xD2511F53u * c[0];
		cx_u32 h1 = cx_high(0xCD9E8D57u, c[2]), l1 = 0xCD9E8D57u * c[2];
		c[0] = h1 ^ c[1] ^ k[0];
		c[1] = l1;
		c[2] = h0 ^ c[3] ^ k[1];
		c[3] = l0;
		k[0] += 0x9E3779B9u; /* golden ratio */
		k[1] += 0xBB67AE85u; /* sqrt(3) - 1 */
	}
	if (P.i[0] == 2) {
		cx_store_i(y, P.t[0].dtype, to, (cx_i32)c[i % 4]);
	} else if (P.i[0] == 0) {
		cx_store_f(
			y, P.t[0].dtype, to, (float)(c[i % 4] >> 8) * 5.9604644775390625e-8f); /* 2^-24 */
	} else {                                                                       /* Box-Muller */
		cx_u32 w = i % 4 / 2 * 2;
		float r = CX_SQRT(-2.0f * CX_LOG((float)((c[w] >> 8) + 1) * 5.9604644775390625e-8f));
		float turn = (float)(c[w + 1] >> 8) * 1.1920928955078125e-7f; /* of half circles: 2^-23 */
		cx_store_f(y, P.t[0].dtype, to, r * (i % 2 ? CX_SINPI(turn) : CX_COSPI(turn)));
	}
}

#ifdef CX_HAVE_F64
/* To nearest even in a 16-bit float needs one rounding: the way through f32 goes to odd. */
CX_FN float cx_to_odd(double v)
{
	float f = (float)v;
	cx_u32 u = cx_f32_bits(f);
	if ((double)f == v || f != f || (u & 0x7fffffffu) == 0x7f800000u) return f;
	if ((v < 0 ? -(double)f : (double)f) > (v < 0 ? -v : v)) u--;
	return cx_bits_f32(u | 1u);
}

/* t: y; i[0] size of the axis, i[1] elements after it; f: start, step. */
CX_KERNEL cx_iota_item(CX_BUF(y), CX_PARAMS)
{
	cx_u32 i = CX_GLOBAL_ID(0), dt = P.t[0].dtype, to;
	double v;
	if (i >= P.n) return;
	to = cx_at(&P.t[0], i);
	v = (double)P.f[0] + (double)P.f[1] * (double)(i / (cx_u32)P.i[1] % (cx_u32)P.i[0]);
	if (dt == CX_F16 || dt == CX_BF16) cx_store_f(y, dt, to, cx_to_odd(v));
	else cx_store_acc(y, dt, to, v);
}
#endif

#endif
