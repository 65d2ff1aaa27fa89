/* shape_grad.c - shape rules of the backward ops of norms, attention and sequences with state.
 *
 * Gradients with respect to parameters (norm weights, convolution taps, gates) are f32 whatever
 * the parameters are, since they are sums over many rows; those of activations have the
 * activation's dtype. */
#include "graph/shape.h"

/* x, dy, w: dx, dw [cols], and db [cols] of a layernorm. */
cx_status cx__shape_norm_grad(cx_shape_ctx *c)
{
	const cx_attr_norm_grad *a = c->attr;
	const cx_desc *x = &c->in[0];
	int64_t cols;
	if (cx__need_class(c, 0, DT_FLOAT) || cx__need_rank(c, 0, 1, CX_MAX_RANK) ||
		cx__need_same(c, 1, 0))
		return c->err->code;
	cols = x->dim[x->rank - 1];
	if (cx__has(c, 2) &&
		(cx__need_class(c, 2, DT_FLOAT) || cx__need_dims(c, 2, CX_DTYPE_COUNT, DIMS(cols))))
		return c->err->code;
	c->out[0] = *x;
	c->out[1] = c->out[2] = (cx_desc){CX_F32, 1, {cols}, {0}};
	c->n_out = a->layer ? 3 : 2;
	return CX_OK;
}

/* q, k, v, y, dy, q_off, kv_off, mask, bias: the forward op sees q, k, v and what follows dy. */
cx_status cx__shape_attention_grad(cx_shape_ctx *c)
{
	const cx_attr_attention_grad *a = c->attr;
	cx_attr_attention at = {a->scale, a->causal, a->window, 0};
	cx_desc in[7];
	cx_shape_ctx f = {.op = CX_OP_attention, .in = in, .n_in = 7, .attr = &at, .err = c->err};
	const cx_desc *q = &c->in[0], *k = &c->in[1];
	int32_t r = q->rank;
	for (uint32_t j = 0; j < 7; j++) {
		uint32_t from = j < 3 ? j : j + 2;
		in[j] = from < c->n_in ? c->in[from] : (cx_desc){.dtype = CX_DTYPE_COUNT};
	}
	if (cx__shape_attention(&f)) return c->err->code;
	for (uint32_t j = 3; j < 5; j++)
		if (cx__need_dims(c, j, q->dtype, r, f.out[0].dim)) return c->err->code;
	for (int o = 0; o < 3; o++) c->out[o] = c->in[o];
	c->out[3] = (cx_desc){CX_F32, r, {q->dim[0]}, {0}};
	c->out[3].dim[r - 3] = q->dim[r - 2];
	c->out[3].dim[r - 2] = q->dim[r - 3];
	c->out[3].dim[r - 1] = k->dim[r - 3];
	c->n_out = a->dbias ? 4 : 3;
	return CX_OK;
}

/* x, w, state, dy, bias, dstate, off, slot: the forward op has x, w, bias, state, off, slot. */
cx_status cx__shape_conv1d_grad(cx_shape_ctx *c)
{
	static const uint32_t from[6] = {0, 1, 4, 2, 6, 7};
	cx_desc in[6];
	cx_shape_ctx f = {.op = CX_OP_conv1d, .in = in, .n_in = 6, .attr = c->attr, .err = c->err};
	for (uint32_t j = 0; j < 6; j++)
		in[j] = from[j] < c->n_in ? c->in[from[j]] : (cx_desc){.dtype = CX_DTYPE_COUNT};
	if (cx__shape_conv1d(&f) || cx__need_same(c, 3, 0)) return c->err->code;
	if (cx__has(c, 5) && cx__need_dims(c, 5, CX_F32, 3, c->in[2].dim)) return c->err->code;
	c->out[0] = c->in[0];
	c->out[1] = c->in[1];
	c->out[2] = (cx_desc){CX_F32, 1, {c->in[0].dim[1]}, {0}};
	c->out[3] = c->in[2];
	c->out[1].dtype = c->out[3].dtype = CX_F32;
	return CX_OK;
}

/* q, k, v, g, beta, state, dy, dstate, off, slot */
cx_status cx__shape_delta_grad(cx_shape_ctx *c)
{
	cx_desc in[8];
	cx_shape_ctx f = {.op = CX_OP_delta_rule, .in = in, .n_in = 8, .attr = c->attr, .err = c->err};
	const cx_desc *q = &c->in[0], *v = &c->in[2];
	for (uint32_t j = 0; j < 8; j++) {
		uint32_t i = j < 6 ? j : j + 2;
		in[j] = i < c->n_in ? c->in[i] : (cx_desc){.dtype = CX_DTYPE_COUNT};
	}
	if (cx__shape_delta(&f) || cx__need_same(c, 6, 2)) return c->err->code;
	if (cx__has(c, 7) && cx__need_same(c, 7, 5)) return c->err->code;
	c->out[0] = (cx_desc){q->dtype, 4, {2, q->dim[0], q->dim[1], q->dim[2]}, {0}};
	c->out[1] = *v;
	c->out[2] = (cx_desc){CX_F32, 3, {2, v->dim[0], v->dim[1]}, {0}};
	c->out[3] = c->in[5];
	return CX_OK;
}
