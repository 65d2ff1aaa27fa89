/* grad_map.c - gradient rules of elementwise ops. Each is a chain of maps, which the planner makes
 * one launch of. Choices (relu, max, where ...) are made with `where`, not by multiplying with 0
 * and 1, so that an infinity on one side does not spoil the other. */
#include "graph/grad.h"

/* The result of a unary op in f32: the forward's, or computed again where that was rounded to 16
 * bits. */
static cx_tensor result(cx_grad_ctx *c)
{
	cx_tensor x = c->in[0];
	if (cx__grad_desc(c, c->out[0])->dtype == CX_F32) return c->out[0];
	x = cx__grad_f32(c, x);
	return cx_node_add(c->g, (cx_op)c->g->nodes[c->node].op, &x, 1, c->attr);
}

/* A constant in the dtype of t. */
static cx_tensor like(cx_grad_ctx *c, cx_tensor t, double value)
{
	return cx__grad_fill(c, cx__grad_desc(c, t)->dtype, 0, NULL, value);
}

/* din of the one operand: dout * slope. */
static void times(cx_grad_ctx *c, cx_tensor slope)
{
	cx__grad_give(c, 0, cx_mul(c->g, cx__grad_dout(c, 0), slope));
}

static cx_tensor one_minus(cx_grad_ctx *c, cx_tensor t)
{
	return cx_sub(c->g, cx__grad_k(c, 1), t);
}

/* ---- one operand ----------------------------------------------------------------------------- */

void cx__grad_neg(cx_grad_ctx *c)
{
	cx__grad_give(c, 0, cx_neg(c->g, c->dout[0]));
}

void cx__grad_abs(cx_grad_ctx *c)
{
	cx__grad_give(c, 0, cx_mul(c->g, c->dout[0], cx_sign(c->g, c->in[0])));
}

void cx__grad_exp(cx_grad_ctx *c)
{
	times(c, result(c));
}

void cx__grad_log(cx_grad_ctx *c)
{
	cx__grad_give(c, 0, cx_div(c->g, cx__grad_dout(c, 0), cx__grad_in(c, 0)));
}

void cx__grad_sqrt(cx_grad_ctx *c)
{
	cx__grad_give(c, 0, cx_div(c->g, cx__grad_scale(c, cx__grad_dout(c, 0), 0.5), result(c)));
}

/* y = x^(-1/2): dy/dx = -y / (2x) */
void cx__grad_rsqrt(cx_grad_ctx *c)
{
	times(c, cx__grad_scale(c, cx_div(c->g, result(c), cx__grad_in(c, 0)), -0.5));
}

void cx__grad_sin(cx_grad_ctx *c)
{
	times(c, cx_cos(c->g, cx__grad_in(c, 0)));
}

void cx__grad_cos(cx_grad_ctx *c)
{
	times(c, cx_neg(c->g, cx_sin(c->g, cx__grad_in(c, 0))));
}

void cx__grad_tanh(cx_grad_ctx *c)
{
	cx_tensor y = result(c);
	times(c, one_minus(c, cx_mul(c->g, y, y)));
}

/* e^(-x^2 * by) * scale */
static cx_tensor bell(cx_grad_ctx *c, cx_tensor x, double by, double scale)
{
	return cx__grad_scale(c, cx_exp(c->g, cx__grad_scale(c, cx_mul(c->g, x, x), -by)), scale);
}

void cx__grad_erf(cx_grad_ctx *c)
{
	times(c, bell(c, cx__grad_in(c, 0), 1, 1.12837916709551257));
}

void cx__grad_sigmoid(cx_grad_ctx *c)
{
	cx_tensor y = result(c);
	times(c, cx_mul(c->g, y, one_minus(c, y)));
}

/* s (1 + x (1 - s)), s = sigmoid(x) */
void cx__grad_silu(cx_grad_ctx *c)
{
	cx_tensor x = cx__grad_in(c, 0), s = cx_sigmoid(c->g, x);
	cx_tensor t = cx_add(c->g, cx_mul(c->g, x, one_minus(c, s)), cx__grad_k(c, 1));
	times(c, cx_mul(c->g, s, t));
}

/* P(x) + x p(x), normal distribution and density */
void cx__grad_gelu(cx_grad_ctx *c)
{
	cx_tensor x = cx__grad_in(c, 0);
	cx_tensor e = cx_erf(c->g, cx__grad_scale(c, x, 0.70710678118654752));
	cx_tensor p = cx__grad_scale(c, cx_add(c->g, e, cx__grad_k(c, 1)), 0.5);
	times(c, cx_add(c->g, p, cx_mul(c->g, x, bell(c, x, 0.5, 0.39894228040143268))));
}

/* y = x s, s = sigmoid(u), u = 2 sqrt(2/pi) (x + 0.044715 x^3): s + x s (1 - s) u' */
void cx__grad_gelu_tanh(cx_grad_ctx *c)
{
	cx_graph *g = c->g;
	cx_tensor x = cx__grad_in(c, 0), xx = cx_mul(g, x, x), one = cx__grad_k(c, 1), u, du, s;
	u = cx_mul(g, x, cx_add(g, cx__grad_scale(c, xx, 0.044715), one));
	s = cx_sigmoid(g, cx__grad_scale(c, u, 1.59576912160573072));
	du = cx__grad_scale(c, cx_add(g, cx__grad_scale(c, xx, 0.134145), one), 1.59576912160573072);
	du = cx_mul(g, cx_mul(g, x, du), cx_sub(g, one, s));
	times(c, cx_mul(g, s, cx_add(g, du, one)));
}

/* 0 at 0. */
void cx__grad_relu(cx_grad_ctx *c)
{
	cx_tensor zero = like(c, c->in[0], 0);
	cx__grad_give(c, 0, cx_where(c->g, cx_gt(c->g, c->in[0], zero), c->dout[0], zero));
}

void cx__grad_softplus(cx_grad_ctx *c)
{
	times(c, cx_sigmoid(c->g, cx__grad_in(c, 0)));
}

/* Passes where nothing was cut off, so at the bounds too. */
void cx__grad_clamp(cx_grad_ctx *c)
{
	cx_tensor in = cx_eq(c->g, c->in[0], c->out[0]);
	cx__grad_give(c, 0, cx_where(c->g, in, c->dout[0], like(c, c->in[0], 0)));
}

void cx__grad_cast(cx_grad_ctx *c)
{
	cx__grad_give(c, 0, c->dout[0]);
}

/* ---- two and three --------------------------------------------------------------------------- */

void cx__grad_add(cx_grad_ctx *c)
{
	for (uint32_t j = 0; j < 2; j++)
		if (c->need[j]) cx__grad_give(c, j, c->dout[0]);
}

void cx__grad_sub(cx_grad_ctx *c)
{
	if (c->need[0]) cx__grad_give(c, 0, c->dout[0]);
	if (c->need[1]) cx__grad_give(c, 1, cx_neg(c->g, c->dout[0]));
}

void cx__grad_mul(cx_grad_ctx *c)
{
	for (uint32_t j = 0; j < 2; j++)
		if (c->need[j])
			cx__grad_give(c, j, cx_mul(c->g, cx__grad_dout(c, 0), cx__grad_in(c, 1 - j)));
}

void cx__grad_div(cx_grad_ctx *c)
{
	cx_tensor a = cx__grad_in(c, 0), b = cx__grad_in(c, 1);
	cx_tensor d = cx_div(c->g, cx__grad_dout(c, 0), b);
	if (c->need[0]) cx__grad_give(c, 0, d);
	if (c->need[1]) cx__grad_give(c, 1, cx_neg(c->g, cx_mul(c->g, d, cx_div(c->g, a, b))));
}

/* To a: b a^(b-1), and 0 for b = 0 also where a is 0. To b: a^b ln a, and 0 for a = 0 <= b. */
void cx__grad_pow(cx_grad_ctx *c)
{
	cx_graph *g = c->g;
	cx_tensor a = cx__grad_in(c, 0), b = cx__grad_in(c, 1), d = cx__grad_dout(c, 0), t, none;
	cx_tensor zero = cx__grad_k(c, 0);
	if (c->need[0]) {
		t = cx_mul(g, b, cx_pow(g, a, cx_sub(g, b, cx__grad_k(c, 1))));
		cx__grad_give(c, 0, cx_where(g, cx_eq(g, b, zero), zero, cx_mul(g, d, t)));
	}
	if (c->need[1]) {
		none = cx_and(g, cx_eq(g, a, zero), cx_ge(g, b, zero));
		t = cx_mul(g, cx_pow(g, a, b), cx_log(g, a));
		cx__grad_give(c, 1, cx_where(g, none, zero, cx_mul(g, d, t)));
	}
}

/* To the one that was taken, half to each where they are equal, to both where one is NaN. */
static void choose(cx_grad_ctx *c, bool larger)
{
	cx_graph *g = c->g;
	cx_tensor half = cx_mul(g, c->dout[0], like(c, c->dout[0], 0.5)), t, lost;
	for (uint32_t j = 0; j < 2; j++) {
		if (!c->need[j]) continue;
		t = cx_where(g, cx_eq(g, c->in[0], c->in[1]), half, c->dout[0]);
		lost = larger == (j == 0) ? cx_lt(g, c->in[0], c->in[1]) : cx_gt(g, c->in[0], c->in[1]);
		cx__grad_give(c, j, cx_where(g, lost, like(c, c->dout[0], 0), t));
	}
}

void cx__grad_min(cx_grad_ctx *c)
{
	choose(c, false);
}
void cx__grad_max(cx_grad_ctx *c)
{
	choose(c, true);
}

void cx__grad_where(cx_grad_ctx *c)
{
	cx_tensor zero = like(c, c->dout[0], 0), d = c->dout[0];
	if (c->need[1]) cx__grad_give(c, 1, cx_where(c->g, c->in[0], d, zero));
	if (c->need[2]) cx__grad_give(c, 2, cx_where(c->g, c->in[0], zero, d));
}
