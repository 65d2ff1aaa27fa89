/* grad_row.c - gradient rules of reductions, row ops and losses. */
#include "graph/grad.h"

#include <string.h>

/* ---- reductions: what comes in is spread over the reduced axes ------------------------------- */

/* t, of the dims of the result, with the reduced axes as 1. */
static cx_tensor keep_axes(cx_grad_ctx *c, cx_tensor t)
{
	const cx_attr_reduce *a = c->attr;
	cx_desc x = *cx__grad_desc(c, c->in[0]);
	for (int32_t i = 0; i < a->axes.n; i++) x.dim[a->axes.v[i]] = 1;
	return cx__grad_reshape(c, t, x.rank, x.dim);
}

static void spread(cx_grad_ctx *c, cx_tensor t)
{
	cx_desc x = *cx__grad_desc(c, c->in[0]);
	cx__grad_give(c, 0, cx__grad_broadcast(c, keep_axes(c, t), x.rank, x.dim));
}

void cx__grad_sum(cx_grad_ctx *c)
{
	spread(c, c->dout[0]);
}

void cx__grad_mean(cx_grad_ctx *c)
{
	const cx_attr_reduce *a = c->attr;
	const cx_desc *x = cx__grad_desc(c, c->in[0]);
	double n = 1;
	for (int32_t i = 0; i < a->axes.n; i++) n *= (double)x->dim[a->axes.v[i]];
	if (n > 0) spread(c, cx__grad_scale(c, cx__grad_dout(c, 0), 1 / n));
}

/* amax and amin: an equal share to all that are equal to the result. */
void cx__grad_extreme(cx_grad_ctx *c)
{
	cx_graph *g = c->g;
	cx_attr_reduce a = *(const cx_attr_reduce *)c->attr;
	cx_attr_cast f32 = cx_attr_cast_default();
	cx_tensor hit = cx_eq(g, c->in[0], keep_axes(c, c->out[0])), share;
	a.keep = true;
	share = cx_div(g, keep_axes(c, cx__grad_dout(c, 0)), cx_sum(g, cx_cast(g, hit, &f32), &a));
	cx__grad_give(c, 0, cx_where(g, hit, share, cx__grad_k(c, 0)));
}

void cx__grad_cumsum(cx_grad_ctx *c)
{
	cx_attr_cumsum a = *(const cx_attr_cumsum *)c->attr;
	a.reverse = !a.reverse;
	cx__grad_give(c, 0, cx_cumsum(c->g, cx__grad_dout(c, 0), &a));
}

/* ---- rows ------------------------------------------------------------------------------------ */

/* scale * y (d - sum(d y)) */
void cx__grad_softmax(cx_grad_ctx *c)
{
	const cx_attr_softmax *a = c->attr;
	cx_graph *g = c->g;
	cx_tensor y = cx__grad_out(c, 0), d = cx__grad_dout(c, 0), dy = cx_mul(g, d, y), t;
	t = cx_sub(g, d, cx__grad_row_sum(c, dy, a->axis));
	cx__grad_give(c, 0, cx__grad_scale(c, cx_mul(g, y, t), a->scale));
}

/* scale * (d - e^y sum(d)) */
void cx__grad_log_softmax(cx_grad_ctx *c)
{
	const cx_attr_softmax *a = c->attr;
	cx_graph *g = c->g;
	cx_tensor d = cx__grad_dout(c, 0), p = cx_exp(g, cx__grad_out(c, 0)), t;
	t = cx_sub(g, d, cx_mul(g, p, cx__grad_row_sum(c, d, a->axis)));
	cx__grad_give(c, 0, cx__grad_scale(c, t, a->scale));
}

/* The values' gradients go to where they were taken from; the indices have none. Rows of n elements
 * are flattened, since scatter counts along axis 0. */
void cx__grad_topk(cx_grad_ctx *c)
{
	const cx_attr_topk *a = c->attr;
	cx_graph *g = c->g;
	cx_desc x = *cx__grad_desc(c, c->in[0]), y = *cx__grad_desc(c, c->out[0]);
	int32_t last = x.rank - 1, axis = (int32_t)a->axis, n = (int32_t)x.dim[axis];
	int64_t size = cx__desc_elems(&y), rows = size / a->k, all = rows * x.dim[axis];
	cx_attr_iota count = {.dims = cx_list_of(2, 1, 1), .dtype = CX_I32, .step = 1};
	cx_attr_perm perm = {.perm = {.n = x.rank}};
	cx_attr_scatter over = cx_attr_scatter_default();
	cx_tensor d = c->dout[0], idx = c->out[1], to;
	for (int32_t i = 0; i < x.rank; i++) perm.perm.v[i] = i == axis ? last : i == last ? axis : i;
	if (cx_is_none(d) || size == 0) return;
	if (axis != last) { /* the axis last, and back; the exchange is its own inverse */
		d = cx_permute(g, d, &perm);
		idx = cx_permute(g, idx, &perm);
		x.dim[axis] = x.dim[last];
		x.dim[last] = n;
	}
	count.dims.v[0] = rows;
	to = cx_mul(g, cx_iota(g, &count), cx_const(g, CX_I32, 0, NULL, &n));
	idx = cx_add(g, cx__grad_reshape(c, idx, 2, (const int64_t[]){rows, a->k}), to);
	d = cx_scatter(g, cx__grad_fill(c, y.dtype, 1, &all, 0), cx__grad_reshape(c, idx, 1, &size),
		cx__grad_reshape(c, d, 1, &size), &over);
	d = cx__grad_reshape(c, d, x.rank, x.dim);
	cx__grad_give(c, 0, axis == last ? d : cx_permute(g, d, &perm));
}

/* y = x r, r = rsqrt(sum x^2 + eps): r (d - y sum(d y)) */
void cx__grad_l2norm(cx_grad_ctx *c)
{
	const cx_attr_norm *a = c->attr;
	cx_graph *g = c->g;
	int32_t axis = cx__grad_desc(c, c->in[0])->rank - 1;
	cx_tensor x = cx__grad_in(c, 0), d = cx__grad_dout(c, 0), r, y, t;
	r = cx__grad_row_sum(c, cx_mul(g, x, x), axis);
	r = cx_rsqrt(g, cx_add(g, r, cx__grad_k(c, a->eps)));
	y = cx_mul(g, x, r);
	t = cx_mul(g, y, cx__grad_row_sum(c, cx_mul(g, d, y), axis));
	cx__grad_give(c, 0, cx_mul(g, r, cx_sub(g, d, t)));
}

static cx_tensor row_mean(cx_grad_ctx *c, cx_tensor t)
{
	const int64_t axis = 2;
	cx_attr_reduce a = {.axes = cx_list_from(1, &axis), .keep = true};
	return cx_mean(c->g, t, &a);
}

/* A group as one row: xhat = (x - mean) r; dxhat = d w; dx = r (dxhat - mean(dxhat) - xhat
 * mean(dxhat xhat)). */
void cx__grad_groupnorm(cx_grad_ctx *c)
{
	const cx_attr_groupnorm *a = c->attr;
	cx_graph *g = c->g;
	cx_desc x = *cx__grad_desc(c, c->in[0]);
	int64_t n = cx__desc_elems(&x), ch = x.dim[1], inner;
	int64_t rows[3], full[3], ones[3] = {1, ch, 1};
	cx_attr_reduce over = {.axes = cx_list_of(2, 0, 2)};
	cx_tensor t, r, xhat, d = cx__grad_dout(c, 0), dxhat;
	if (n == 0) return;
	inner = n / (x.dim[0] * ch);
	memcpy(rows, (const int64_t[]){x.dim[0], a->groups, ch / a->groups * inner}, sizeof rows);
	memcpy(full, (const int64_t[]){x.dim[0], ch, inner}, sizeof full);
	t = cx__grad_reshape(c, cx__grad_in(c, 0), 3, rows);
	t = cx_sub(g, t, row_mean(c, t));
	r = cx_rsqrt(g, cx_add(g, row_mean(c, cx_mul(g, t, t)), cx__grad_k(c, a->eps)));
	xhat = cx_mul(g, t, r);
	d = cx__grad_reshape(c, d, 3, full);
	if (cx__grad_has(c, 1) && c->need[1])
		cx__grad_give(c, 1, cx_sum(g, cx_mul(g, d, cx__grad_reshape(c, xhat, 3, full)), &over));
	if (cx__grad_has(c, 2) && c->need[2]) cx__grad_give(c, 2, cx_sum(g, d, &over));
	if (!c->need[0]) return;
	if (cx__grad_has(c, 1)) d = cx_mul(g, d, cx__grad_reshape(c, cx__grad_in(c, 1), 3, ones));
	dxhat = cx__grad_reshape(c, d, 3, rows);
	t = cx_mul(g, xhat, row_mean(c, cx_mul(g, dxhat, xhat)));
	t = cx_mul(g, r, cx_sub(g, cx_sub(g, dxhat, row_mean(c, dxhat)), t));
	cx__grad_give(c, 0, cx__grad_reshape(c, t, x.rank, x.dim));
}

/* ---- losses ---------------------------------------------------------------------------------- */

/* (softmax - 1 at the target) * d, over the number of rows that count; 0 in rows left out. */
void cx__grad_cross_entropy(cx_grad_ctx *c)
{
	const cx_attr_loss *a = c->attr;
	cx_graph *g = c->g;
	int64_t n = cx__grad_desc(c, c->in[0])->dim[0], classes = cx__grad_desc(c, c->in[0])->dim[1];
	cx_attr_softmax row = cx_attr_softmax_default();
	cx_attr_cast f32 = cx_attr_cast_default();
	cx_attr_iota count = {.dims = cx_list_of(1, 1), .dtype = CX_I32, .step = 1};
	int32_t ignore = (int32_t)a->ignore;
	cx_tensor d = cx__grad_dout(c, 0), kept, hot;
	count.dims.v[0] = classes;
	kept = cx_ne(g, c->in[1], cx_const(g, CX_I32, 0, NULL, &ignore));
	if (a->reduction == 1) d = cx_div(g, d, cx_sum(g, cx_cast(g, kept, &f32), NULL));
	d = cx_where(g, kept, d, cx__grad_k(c, 0));
	hot = cx__grad_reshape(c, c->in[1], 2, (const int64_t[]){n, 1});
	hot = cx_cast(g, cx_eq(g, cx_iota(g, &count), hot), &f32);
	hot = cx_sub(g, cx_softmax(g, cx__grad_in(c, 0), &row), hot);
	cx__grad_give(c, 0, cx_mul(g, hot, cx__grad_reshape(c, d, 2, (const int64_t[]){n, 1})));
}

/* dout over the number of elements that were averaged. */
static cx_tensor pair_dout(cx_grad_ctx *c, int64_t reduction, double by)
{
	double n = (double)cx__desc_elems(cx__grad_desc(c, c->in[0]));
	return cx__grad_scale(c, cx__grad_dout(c, 0), reduction == 1 && n > 0 ? by / n : by);
}

void cx__grad_mse(cx_grad_ctx *c)
{
	const cx_attr_loss *a = c->attr;
	cx_tensor t = cx_sub(c->g, cx__grad_in(c, 0), cx__grad_in(c, 1));
	t = cx_mul(c->g, t, pair_dout(c, a->reduction, 2));
	if (c->need[0]) cx__grad_give(c, 0, t);
	if (c->need[1]) cx__grad_give(c, 1, cx_neg(c->g, t));
}

/* e^x - y and -x; with rate 1 - y / (x + eps) and -ln(x + eps). */
void cx__grad_poisson_nll(cx_grad_ctx *c)
{
	const cx_attr_poisson *a = c->attr;
	cx_graph *g = c->g;
	cx_tensor x = cx__grad_in(c, 0), y = cx__grad_in(c, 1), d = pair_dout(c, a->reduction, 1), t;
	if (a->rate) x = cx_add(g, x, cx__grad_k(c, a->eps));
	if (c->need[0]) {
		t = a->rate ? cx_sub(g, cx__grad_k(c, 1), cx_div(g, y, x)) : cx_sub(g, cx_exp(g, x), y);
		cx__grad_give(c, 0, cx_mul(g, d, t));
	}
	if (c->need[1]) cx__grad_give(c, 1, cx_neg(g, cx_mul(g, d, a->rate ? cx_log(g, x) : x)));
}
