/* grad_heavy.c - gradients of ops that have a backward op of their own: norms, attention, and
 * sequences with a carried state. Operands are passed on as they are, in their own dtype: those
 * kernels compute in f32 inside. */
#include "graph/grad.h"

/* The gradient of result o; zeros where none came. */
static cx_tensor dout_or_zero(cx_grad_ctx *c, uint32_t o)
{
	cx_desc d = *cx__grad_desc(c, c->out[o]);
	return cx_is_none(c->dout[o]) ? cx__grad_fill(c, d.dtype, d.rank, d.dim, 0) : c->dout[o];
}

static cx_tensor operand(const cx_grad_ctx *c, uint32_t j)
{
	return j < c->n_in ? c->in[j] : CX_NONE;
}

/* Result o of node y is the gradient of operand j. */
static void give(cx_grad_ctx *c, uint32_t j, cx_tensor y, int o)
{
	if (cx__grad_has(c, j) && c->need[j]) cx__grad_give(c, j, cx_out(c->g, y, o));
}

static void norm(cx_grad_ctx *c, bool layer)
{
	const cx_attr_norm *at = c->attr;
	cx_attr_norm_grad a = {.eps = at->eps, .plus_one = at->plus_one, .layer = layer};
	cx_tensor y = cx_norm_grad(c->g, c->in[0], c->dout[0], operand(c, 1), &a);
	for (uint32_t j = 0; j < (layer ? 3u : 2u); j++) give(c, j, y, (int)j);
}

void cx__grad_layernorm(cx_grad_ctx *c)
{
	norm(c, true);
}

void cx__grad_rmsnorm(cx_grad_ctx *c)
{
	norm(c, false);
}

void cx__grad_attention(cx_grad_ctx *c)
{
	const cx_attr_attention *at = c->attr;
	cx_attr_attention_grad a = {.scale = at->scale, .causal = at->causal, .window = at->window};
	cx_tensor y;
	a.dbias = cx__grad_has(c, 6) && c->need[6];
	y = cx_attention_grad(c->g, c->in[0], c->in[1], c->in[2], c->out[0], c->dout[0], operand(c, 3),
		operand(c, 4), operand(c, 5), operand(c, 6), &a);
	for (uint32_t j = 0; j < 3; j++) give(c, j, y, (int)j);
	if (a.dbias) give(c, 6, y, 3);
}

/* x, w, bias, state, off, slot */
void cx__grad_conv1d(cx_grad_ctx *c)
{
	cx_tensor dy = dout_or_zero(c, 0), ds = cx__grad_dout(c, 1), y;
	y = cx_conv1d_grad(c->g, c->in[0], c->in[1], c->in[3], dy, operand(c, 2), ds, operand(c, 4),
		operand(c, 5), c->attr);
	give(c, 0, y, 0);
	give(c, 1, y, 1);
	give(c, 2, y, 2);
	give(c, 3, y, 3);
}

/* Half `i` of a result [2, ...] of node y. */
static cx_tensor half(cx_grad_ctx *c, cx_tensor y, int o, int64_t i)
{
	cx_tensor t = cx_out(c->g, y, o);
	cx_desc d;
	if (t.id >= c->g->n_nodes) return t; /* an error */
	d = *cx__grad_desc(c, t);
	return cx__grad_reshape(c, cx__grad_cut(c, t, 0, i, 1), d.rank - 1, d.dim + 1);
}

/* q, k, v, g, beta, state, off, slot */
void cx__grad_delta_rule(cx_grad_ctx *c)
{
	cx_tensor dy = dout_or_zero(c, 0), ds = cx__grad_dout(c, 1), y;
	y = cx_delta_grad(c->g, c->in[0], c->in[1], c->in[2], c->in[3], c->in[4], c->in[5], dy, ds,
		operand(c, 6), operand(c, 7), c->attr);
	for (uint32_t j = 0; j < 2; j++) {
		if (c->need[j]) cx__grad_give(c, j, half(c, y, 0, j));
		if (c->need[3 + j]) cx__grad_give(c, 3 + j, half(c, y, 2, j));
	}
	give(c, 2, y, 1);
	give(c, 5, y, 3);
}
