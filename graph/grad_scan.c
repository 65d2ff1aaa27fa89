/* grad_scan.c - gradient rules of linear recurrences, scan and cscan.
 *
 * h_t = a_t h_(t-1) + b_t. With G_t the gradient of h_t, all that comes later included,
 *	G_t = dh_t + conj(a_(t+1)) G_(t+1)
 * is the same recurrence run the other way: a is moved by one step, its free place holds 1 so that
 * the last h's gradient enters there. db_t = G_t, da_t = G_t conj(h_(t-1)), dh0 = conj(a_first)
 * G_first; a reset at t cuts between t-1 and t. Computed in f32. */
#include "graph/grad.h"

#include <string.h>

typedef struct recurrence {
	cx_grad_ctx *c;
	bool reverse;
	cx_desc x;       /* a's: [B,T,D] */
	cx_tensor reset; /* bool [B,T,1], or CX_NONE */
	cx_tensor carry; /* reset, moved as a is; [B,T] */
} recurrence;

/* `last` where time is after the last step, then one earlier everywhere: t holds what t+1 held. */
static cx_tensor ahead(const recurrence *r, cx_tensor t, cx_tensor last)
{
	cx_attr_axis time = {.axis = 1};
	cx_tensor part[2] = {cx__grad_cut(r->c, t, 1, r->reverse ? 0 : 1, r->x.dim[1] - 1), last};
	if (r->reverse) {
		part[1] = part[0];
		part[0] = last;
	}
	return cx_concat(r->c->g, part, 2, &time);
}

/* What h_(t-1) was at t, 0 after a reset. */
static cx_tensor before(const recurrence *r, cx_tensor h, cx_tensor h0)
{
	cx_attr_axis time = {.axis = 1};
	cx_tensor part[2], t;
	h0 = cx__grad_reshape(r->c, h0, 3, (const int64_t[]){r->x.dim[0], 1, r->x.dim[2]});
	part[r->reverse] = h0;
	part[!r->reverse] = cx__grad_cut(r->c, h, 1, r->reverse ? 1 : 0, r->x.dim[1] - 1);
	t = cx_concat(r->c->g, part, 2, &time);
	return cx_is_none(r->reset) ? t : cx_where(r->c->g, r->reset, cx__grad_k(r->c, 0), t);
}

/* Step 0 of t [B,T,D] as [B,D], 0 where that step resets. */
static cx_tensor first(const recurrence *r, cx_tensor t)
{
	int64_t at = r->reverse ? r->x.dim[1] - 1 : 0;
	cx_tensor cut = cx__grad_cut(r->c, t, 1, at, 1), off;
	if (!cx_is_none(r->reset)) {
		off = cx__grad_cut(r->c, r->reset, 1, at, 1);
		cut = cx_where(r->c->g, off, cx__grad_k(r->c, 0), cut);
	}
	return cx__grad_reshape(r->c, cut, 2, (const int64_t[]){r->x.dim[0], r->x.dim[2]});
}

/* n: 1 for scan, 2 for cscan. */
static recurrence start(cx_grad_ctx *c, uint32_t n)
{
	recurrence r = {c, ((const cx_attr_reset *)c->attr)->reverse, *cx__grad_desc(c, c->in[0]),
		CX_NONE, CX_NONE};
	static const unsigned char no = 0;
	int64_t b = r.x.dim[0], steps = r.x.dim[1];
	if (!cx__grad_has(c, 3 * n) || steps == 0) return r;
	r.reset = cx__grad_reshape(c, c->in[3 * n], 3, (const int64_t[]){b, steps, 1});
	r.carry = ahead(&r, c->in[3 * n],
		cx__grad_broadcast(c, cx_const(c->g, CX_BOOL, 0, NULL, &no), 2, (const int64_t[]){b, 1}));
	return r;
}

/* dout[o], zeros where there is none. */
static cx_tensor dout_or_0(cx_grad_ctx *c, uint32_t o)
{
	cx_desc d = *cx__grad_desc(c, c->out[o]);
	if (!cx_is_none(c->dout[o])) return cx__grad_dout(c, o);
	return cx__grad_fill(c, CX_F32, d.rank, d.dim, 0);
}

static cx_tensor free_place(const recurrence *r, double value)
{
	return cx__grad_fill(r->c, CX_F32, 3, (const int64_t[]){r->x.dim[0], 1, r->x.dim[2]}, value);
}

void cx__grad_scan(cx_grad_ctx *c)
{
	recurrence r = start(c, 1);
	cx_attr_reset back = {.reverse = !r.reverse};
	cx_tensor a = cx__grad_in(c, 0), big;
	if (r.x.dim[1] == 0) { /* the last h is h0 */
		if (c->need[2]) cx__grad_give(c, 2, c->dout[1]);
		return;
	}
	big = cx_scan(
		c->g, ahead(&r, a, free_place(&r, 1)), dout_or_0(c, 0), dout_or_0(c, 1), r.carry, &back);
	if (c->need[0])
		cx__grad_give(c, 0, cx_mul(c->g, big, before(&r, cx__grad_out(c, 0), cx__grad_in(c, 2))));
	if (c->need[1]) cx__grad_give(c, 1, big);
	if (c->need[2]) cx__grad_give(c, 2, first(&r, cx_mul(c->g, a, big)));
}

/* re = x u + y v, im = y u - x v: (x + iy) conj(u + iv). */
static void by_conj(cx_graph *g, const cx_tensor x[2], const cx_tensor u[2], cx_tensor out[2])
{
	out[0] = cx_add(g, cx_mul(g, x[0], u[0]), cx_mul(g, x[1], u[1]));
	out[1] = cx_sub(g, cx_mul(g, x[1], u[0]), cx_mul(g, x[0], u[1]));
}

void cx__grad_cscan(cx_grad_ctx *c)
{
	cx_graph *g = c->g;
	recurrence r = start(c, 2);
	cx_attr_reset back = {.reverse = !r.reverse};
	cx_tensor a[2] = {cx__grad_in(c, 0), cx__grad_in(c, 1)}, big[2], prev[2], t[2];
	if (r.x.dim[1] == 0) {
		for (uint32_t i = 0; i < 2; i++)
			if (c->need[4 + i]) cx__grad_give(c, 4 + i, c->dout[2 + i]);
		return;
	}
	big[0] = cx_cscan(g, ahead(&r, a[0], free_place(&r, 1)),
		cx_neg(g, ahead(&r, a[1], free_place(&r, 0))), dout_or_0(c, 0), dout_or_0(c, 1),
		dout_or_0(c, 2), dout_or_0(c, 3), r.carry, &back);
	big[1] = cx_out(g, big[0], 1);
	if (c->need[0] || c->need[1]) {
		for (uint32_t i = 0; i < 2; i++)
			prev[i] = before(&r, cx__grad_out(c, i), cx__grad_in(c, 4 + i));
		by_conj(g, big, prev, t);
		for (uint32_t i = 0; i < 2; i++)
			if (c->need[i]) cx__grad_give(c, i, t[i]);
	}
	for (uint32_t i = 0; i < 2; i++)
		if (c->need[2 + i]) cx__grad_give(c, 2 + i, big[i]);
	if (!c->need[4] && !c->need[5]) return;
	by_conj(g, big, a, t);
	for (uint32_t i = 0; i < 2; i++)
		if (c->need[4 + i]) cx__grad_give(c, 4 + i, first(&r, t[i]));
}
