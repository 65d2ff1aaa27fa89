/* shape_fused.c - shape rules of the ops that the planner fuses to. Order of operands: docs/OPS.md
 * and below. */
#include "graph/prog.h"
#include "graph/shape.h"

#include <string.h>

static cx_status need_fused_norm(
	cx_shape_ctx *c, const cx_attr_linear *a, uint32_t first, int64_t cols)
{
	if (a->norm < 0 || a->norm > 2 || a->norm_in < 0 || a->norm_in > a->norm)
		return SHAPE_FAIL(
			c, "norm is %lld with %lld operands", (long long)a->norm, (long long)a->norm_in);
	for (uint32_t j = first; j < first + (uint32_t)a->norm_in; j++)
		if (cx__need_f32_or(c, j, c->in[0].dtype) ||
			cx__need_dims(c, j, CX_DTYPE_COUNT, DIMS(cols)))
			return c->err->code;
	return CX_OK;
}

/* x, norm operands, w_0.., bias_0.. (if bias; each may be absent), residual. */
cx_status cx__shape_linear(cx_shape_ctx *c)
{
	const cx_attr_linear *a = c->attr;
	const cx_desc *x = &c->in[0];
	int64_t k, n_in;
	uint32_t w;
	if (cx__need_class(c, 0, DT_FLOAT) || cx__need_rank(c, 0, 1, CX_MAX_RANK)) return c->err->code;
	k = x->dim[x->rank - 1];
	if (a->n_w < 1 || a->n_w > 3)
		return SHAPE_FAIL(c, "n_w is %lld, must be 1 to 3", (long long)a->n_w);
	if (a->glu && a->n_w != 2) return SHAPE_FAIL(c, "glu with n_w %lld", (long long)a->n_w);
	if (a->norm < 0 || a->norm > 2 || a->norm_in < 0 || a->norm_in > a->norm)
		return SHAPE_FAIL(
			c, "norm is %lld with %lld operands", (long long)a->norm, (long long)a->norm_in);
	n_in = 1 + a->norm_in + a->n_w + (a->bias ? a->n_w : 0) + a->residual;
	if (c->n_in != n_in)
		return SHAPE_FAIL(c, "%u operands, the attributes ask for %lld", c->n_in, (long long)n_in);
	if (a->act != CX_OP_input &&
		(cx__prog_arity((unsigned)a->act) != 1 || a->act == CX_OP_cast || a->act == CX_OP_clamp))
		return SHAPE_FAIL(c, "act is %s, not a function of one element", cx__ops[a->act].name);
	if (need_fused_norm(c, a, 1, k)) return c->err->code;
	w = 1 + (uint32_t)a->norm_in;
	for (uint32_t i = 0; i < a->n_w; i++) {
		uint32_t b = w + (uint32_t)a->n_w + i;
		if (cx__need_class(c, w + i, DT_FLOAT | DT_BLOCK) || cx__need_rank(c, w + i, 2, 2) ||
			cx__need_dims(c, w + i, CX_DTYPE_COUNT, DIMS(c->in[w + i].dim[0], k)) ||
			cx__need_act_scale(c, w + i, a->act_scale))
			return c->err->code;
		if (a->bias && cx__has(c, b) &&
			(cx__need_f32_or(c, b, x->dtype) ||
				cx__need_dims(c, b, CX_DTYPE_COUNT, DIMS(c->in[w + i].dim[0]))))
			return c->err->code;
		c->out[i] = *x;
		c->out[i].dim[x->rank - 1] = c->in[w + i].dim[0];
	}
	if (a->glu && cx__need_dims(c, w + 1, CX_DTYPE_COUNT, DIMS(c->in[w].dim[0], k)))
		return c->err->code;
	if (a->residual && cx__need_dims(c, c->n_in - 1, x->dtype, x->rank, c->out[0].dim))
		return c->err->code;
	c->n_out = a->glu ? 1 : (uint32_t)a->n_w;
	return CX_OK;
}

cx_status cx__shape_add_norm(cx_shape_ctx *c)
{
	const cx_attr_linear *a = c->attr;
	const cx_desc *x = &c->in[0];
	if (cx__need_class(c, 0, DT_FLOAT) || cx__need_rank(c, 0, 1, CX_MAX_RANK) ||
		cx__need_same(c, 1, 0))
		return c->err->code;
	if (a->norm != 1 && a->norm != 2)
		return SHAPE_FAIL(c, "norm is %lld, must be 1 or 2", (long long)a->norm);
	if (a->norm_in < 0 || c->n_in != 2 + a->norm_in)
		return SHAPE_FAIL(c, "%u operands, norm_in is %lld", c->n_in, (long long)a->norm_in);
	if (need_fused_norm(c, a, 2, x->dim[x->rank - 1])) return c->err->code;
	c->out[0] = c->out[1] = *x;
	return CX_OK;
}

/* k, v, pos, slot, kcache, vcache, [freqs] */
cx_status cx__shape_rope_kv(cx_shape_ctx *c)
{
	const cx_attr_rope *a = c->attr;
	const cx_desc *k = &c->in[0], *cache = &c->in[4];
	int64_t r;
	if (cx__need_class(c, 0, DT_FLOAT) || cx__need_rank(c, 0, 3, 3) || cx__need_same(c, 1, 0) ||
		cx__need_dims(c, 2, CX_I32, DIMS(k->dim[0])) ||
		cx__need_dims(c, 3, CX_I32, DIMS(k->dim[0])) || cx__need_class(c, 4, DT_FLOAT) ||
		cx__need_rank(c, 4, 3, 3) ||
		cx__need_dims(c, 4, cache->dtype, DIMS(cache->dim[0], k->dim[1], k->dim[2])) ||
		cx__need_class(c, 5, DT_FLOAT) || cx__need_same(c, 5, 4))
		return c->err->code;
	r = a->n_rot ? a->n_rot : k->dim[2];
	if (r < 0 || r > k->dim[2] || r % 2 != 0)
		return SHAPE_FAIL(
			c, "rotated width is %lld of a head of %lld", (long long)r, (long long)k->dim[2]);
	if (cx__has(c, 6) && cx__need_dims(c, 6, CX_F32, DIMS(r / 2))) return c->err->code;
	c->out[0] = c->in[4];
	c->out[1] = c->in[5];
	return CX_OK;
}

cx_status cx__shape_map(cx_shape_ctx *c)
{
	const cx_attr_map *a = c->attr;
	const cx_prog *p = c->prog;
	cx_desc y = c->in[0];
	if (!p) return CX_FAIL(c->err, CX_ERR_ARGUMENT, "a map node needs a program");
	if (cx__prog_check(p, c->err)) return c->err->code;
	if (p->n_in != c->n_in)
		return SHAPE_FAIL(c, "%u operands, the program has %d", c->n_in, p->n_in);
	if (a->reduce < 0 || a->reduce > 4)
		return SHAPE_FAIL(c, "reduce is %lld, must be 0 to 4", (long long)a->reduce);
	for (uint32_t j = 0; j < c->n_in; j++) {
		if (cx__need_class(c, j, DT_PLAIN)) return c->err->code;
		if (!cx__broadcast(&y, &c->in[j]))
			return SHAPE_FAIL(c, "operands do not broadcast: %s and %s", cx__dims_text(&y).s,
				cx__dims_text(&c->in[j]).s);
	}
	if (a->reduce) {
		if (y.rank < 1) return SHAPE_FAIL(c, "a scalar has no last axis to reduce");
		if (a->keep) y.dim[y.rank - 1] = 1;
		else y.dim[--y.rank] = 0;
	}
	c->n_out = p->n_out;
	for (uint32_t o = 0; o < c->n_out; o++) {
		c->out[o] = y;
		c->out[o].dtype = (cx_dtype)p->out_dtype[o];
	}
	return CX_OK;
}
