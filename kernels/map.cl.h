/* map.cl.h - map programs: a chain of elementwise ops in one pass, with or without a reduction of
 * the last axis.
 *
 * Two forms of the same arithmetic. Where the host defines CX_MAP_BODY (straight-line text made
 * from the program, for launches with much work) cx_map_eval() is that; else it interprets the
 * program from a buffer, so that one build serves all programs. Both give the same bits.
 *
 * Params: n items or rows; i[0] instructions, i[1] reduce as in cx_attr_map, i[2] operands, i[3]
 * columns, i[4+o] register of output o, i[8+o] its dtype, i[12] where the code starts. All tensors
 * have the dims of the broadcast space (outputs of a reduction: without columns). Code: 8 words per
 * instruction: op, a, b, c, dtype of a, dtype of the result, bits of p, bits of q. */
#ifndef CX_MAP_CL_H
#define CX_MAP_CL_H

#include "kernels/elem.cl.h"

#define CX_MAP_BUFS                                                                                \
	CX_BUF(y0), CX_BUF(y1), CX_BUF(y2), CX_BUF(y3), CX_BUF(x0), CX_BUF(x1), CX_BUF(x2),            \
		CX_BUF(x3), CX_BUF(x4), CX_BUF(x5), CX_BUF(x6), CX_BUF(x7), CX_GLOBAL const cx_i32 *code
#define CX_MAP_PASS y0, y1, y2, y3, x0, x1, x2, x3, x4, x5, x6, x7, code
#define CX_MAP_X 4 /* tensors of operands start here, whatever the number of outputs */
#define CX_MAP_REGS 32

/* A bound of clamp for integers. */
CX_FN cx_i64 cx_map_bound(cx_u32 dt, float b)
{
	return dt == CX_BOOL ? b > 0.0f : cx_saturate(dt, b);
}

#ifdef CX_MAP_BODY

CX_FN void cx_map_eval(
	CX_MAP_BUFS, CX_PQ const struct cx_kparams *p, cx_u32 i, float *f, cx_i64 *v){CX_MAP_BODY}

#else

CX_FN float cx_scalar_f(int op, float ra, float rb, float rp, float rq)
{
	switch (op) {
#define CX_MAP1(name, ...)                                                                         \
	case CX_OP_##name:                                                                             \
		return cx_f_##name(ra);
#define CX_MAP1P(name, ...)                                                                        \
	case CX_OP_##name:                                                                             \
		return cx_f_##name(ra, rp, rq);
#define CX_MAP2(name, ...)                                                                         \
	case CX_OP_##name:                                                                             \
		return cx_f_##name(ra, rb);
#include "graph/scalar.def"
#undef CX_MAP1
#undef CX_MAP1P
#undef CX_MAP2
	default:
		return ra;
	}
}

CX_FN cx_i64 cx_scalar_i(int op, cx_i64 ra, cx_i64 rb, cx_i64 rp, cx_i64 rq)
{
	switch (op) {
#define CX_MAP1(name, ...)                                                                         \
	case CX_OP_##name:                                                                             \
		return cx_i_##name(ra);
#define CX_MAP1P(name, ...)                                                                        \
	case CX_OP_##name:                                                                             \
		return cx_i_##name(ra, rp, rq);
#define CX_MAP2(name, ...)                                                                         \
	case CX_OP_##name:                                                                             \
		return cx_i_##name(ra, rb);
#include "graph/scalar.def"
#undef CX_MAP1
#undef CX_MAP1P
#undef CX_MAP2
	default:
		return ra;
	}
}

CX_FN void cx_map_cast(cx_u32 from, cx_u32 to, float a, cx_i64 n, float *f, cx_i64 *v)
{
	if (cx_is_float(from)) {
		if (cx_is_float(to)) *f = cx_round_to(to, a);
		else *v = to == CX_BOOL ? a != 0.0f : cx_saturate(to, a);
	} else if (cx_is_float(to)) {
		*f = cx_round_to(to, (float)n);
	} else {
		*v = cx_wrap(to, n);
	}
}

CX_FN void cx_map_instr(CX_GLOBAL const cx_i32 *c, float *f, cx_i64 *v, cx_u32 r)
{
	cx_u32 a = (cx_u32)c[1], b = (cx_u32)c[2], from = (cx_u32)c[4], to = (cx_u32)c[5];
	float p = cx_bits_f32((cx_u32)c[6]), q = cx_bits_f32((cx_u32)c[7]);
	if (c[0] == CX_OP_cast) {
		cx_map_cast(from, to, f[a], v[a], &f[r], &v[r]);
	} else if (c[0] == CX_OP_where) {
		cx_u32 s = (cx_is_float(from) ? f[a] != 0.0f : v[a] != 0) ? b : (cx_u32)c[3];
		f[r] = f[s];
		v[r] = v[s];
	} else if (cx_is_float(from)) {
		f[r] = cx_scalar_f(c[0], f[a], f[b], p, q);
		v[r] = f[r] != 0.0f; /* where the result is a bool */
	} else {
		v[r] = cx_wrap(
			to, cx_scalar_i(c[0], v[a], v[b], cx_map_bound(from, p), cx_map_bound(from, q)));
	}
}

CX_FN void cx_map_take(
	CX_GLOBAL const cx_u8 *b, CX_PQ const struct cx_ktensor *t, cx_u32 i, float *f, cx_i64 *v)
{
	cx_u32 o = cx_at(t, i);
	if (cx_is_float(t->dtype)) *f = cx_load_f(b, t->dtype, o);
	else *v = cx_load_i(b, t->dtype, o);
}

CX_FN void cx_map_eval(CX_MAP_BUFS, CX_PQ const struct cx_kparams *p, cx_u32 i, float *f, cx_i64 *v)
{
	float rf[CX_MAP_REGS];
	cx_i64 rv[CX_MAP_REGS];
	cx_u32 n_in = (cx_u32)p->i[2];
	for (cx_u32 j = 0; j < n_in; j++) {
		CX_GLOBAL const cx_u8 *b = j < 4 ? (j < 2 ? (j == 0 ? x0 : x1) : (j == 2 ? x2 : x3))
										 : (j < 6 ? (j == 4 ? x4 : x5) : (j == 6 ? x6 : x7));
		rf[j] = 0.0f;
		rv[j] = 0;
		cx_map_take(b, &p->t[CX_MAP_X + j], i, &rf[j], &rv[j]);
	}
	for (int n = 0; n < p->i[0]; n++)
		cx_map_instr(code + p->i[12] + 8 * n, rf, rv, n_in + (cx_u32)n);
	for (cx_u32 o = 0; o < p->n_out; o++) {
		f[o] = rf[p->i[4 + o]];
		v[o] = rv[p->i[4 + o]];
	}
}

#endif

CX_FN void cx_map_give(
	CX_GLOBAL cx_u8 *y, CX_PQ const struct cx_kparams *p, cx_u32 o, cx_u32 i, float f, cx_i64 v)
{
	cx_u32 to = cx_at(&p->t[o], i), dt = p->t[o].dtype;
	if (cx_is_float((cx_u32)p->i[8 + o])) cx_store_f(y, dt, to, f);
	else cx_store_i(y, dt, to, v);
}

/* An item per element. */
CX_KERNEL cx_map_item(CX_MAP_BUFS, CX_PARAMS)
{
	cx_u32 i = CX_GLOBAL_ID(0);
	float f[4] = {0.0f, 0.0f, 0.0f, 0.0f};
	cx_i64 v[4] = {0, 0, 0, 0};
	if (i >= P.n) return;
	cx_map_eval(CX_MAP_PASS, &P, i, f, v);
#ifdef CX_MAP_GIVE
	CX_MAP_GIVE
#else
	cx_map_give(y0, &P, 0, i, f[0], v[0]);
	if (P.n_out > 1) cx_map_give(y1, &P, 1, i, f[1], v[1]);
	if (P.n_out > 2) cx_map_give(y2, &P, 2, i, f[2], v[2]);
	if (P.n_out > 3) cx_map_give(y3, &P, 3, i, f[3], v[3]);
#endif
}

/* Reduction of the last axis: a group per row. */
CX_KERNEL cx_map_row(CX_MAP_BUFS, CX_PARAMS)
{
	CX_LOCAL_ARRAY(cx_acc, s, CX_ROW_ITEMS);
	cx_u32 row = CX_GROUP_ID(0), cols = (cx_u32)P.i[3], n_out = P.n_out;
	int kind = P.i[1];
	cx_acc acc[4];
	float f[4] = {0.0f, 0.0f, 0.0f, 0.0f};
	cx_i64 v[4] = {0, 0, 0, 0};
	for (cx_u32 o = 0; o < 4; o++) acc[o] = kind == 3 ? -CX_INF : kind == 4 ? CX_INF : 0.0f;
	for (cx_u32 c = CX_LOCAL_ID(); c < cols; c += CX_ROW_ITEMS) {
		cx_map_eval(CX_MAP_PASS, &P, row * cols + c, f, v);
		for (cx_u32 o = 0; o < n_out; o++) {
			cx_acc x = cx_is_float((cx_u32)P.i[8 + o]) ? (cx_acc)f[o] : (cx_acc)v[o];
			if (kind <= 2) acc[o] += x;
			else
				acc[o] = kind == 3 ? cx_max_nan((float)acc[o], (float)x)
								   : -cx_max_nan(-(float)acc[o], -(float)x);
		}
	}
	for (cx_u32 o = 0; o < n_out; o++) {
		cx_acc r;
		if (kind <= 2) r = cx_group_sum(s, acc[o]);
		else if (kind == 3) r = cx_group_max(s, (float)acc[o]);
		else r = -cx_group_max(s, -(float)acc[o]);
		if (kind == 2) r /= (cx_acc)cols;
		if (CX_LOCAL_ID() == 0)
			cx_store_acc(o < 2 ? (o == 0 ? y0 : y1) : (o == 2 ? y2 : y3), P.t[o].dtype,
				cx_at(&P.t[o], row), r);
	}
}

#endif
