/* grad_help.c - the helpers of grad.h. Constants and views are cheap: the planner merges and folds
 * them. */
#include "graph/grad.h"
#include "graph/shape.h"

#include <string.h>

static cx_tensor cast_to(cx_graph *g, cx_tensor t, cx_dtype dtype)
{
	cx_attr_cast a = {.dtype = dtype};
	if (t.id >= g->n_nodes || g->nodes[t.id].desc.dtype == dtype) return t;
	return cx_cast(g, t, &a);
}

cx_tensor cx__grad_f32(cx_grad_ctx *c, cx_tensor t)
{
	return cast_to(c->g, t, CX_F32);
}

cx_tensor cx__grad_in(cx_grad_ctx *c, uint32_t j)
{
	return cx__grad_f32(c, c->in[j]);
}

cx_tensor cx__grad_out(cx_grad_ctx *c, uint32_t o)
{
	return cx__grad_f32(c, c->out[o]);
}

cx_tensor cx__grad_dout(cx_grad_ctx *c, uint32_t o)
{
	return cx__grad_f32(c, c->dout[o]);
}

cx_tensor cx__grad_k(cx_grad_ctx *c, double value)
{
	return cx_const_f32(c->g, (float)value);
}

cx_tensor cx__grad_scale(cx_grad_ctx *c, cx_tensor t, double by)
{
	return by == 1 ? t : cx_mul(c->g, t, cx__grad_k(c, by));
}

static bool same_dims(const cx_desc *d, int32_t rank, const int64_t *dim)
{
	return d->rank == rank && (rank == 0 || memcmp(d->dim, dim, (size_t)rank * sizeof *dim) == 0);
}

cx_tensor cx__grad_reshape(cx_grad_ctx *c, cx_tensor t, int32_t rank, const int64_t *dim)
{
	cx_attr_dims a = {.dims = cx_list_from(rank, dim)};
	const cx_desc *d;
	if (t.id >= c->g->n_nodes) return t;
	d = &c->g->nodes[t.id].desc;
	if (same_dims(d, rank, dim)) return t;
	return cx_reshape(c->g, t, &a);
}

cx_tensor cx__grad_broadcast(cx_grad_ctx *c, cx_tensor t, int32_t rank, const int64_t *dim)
{
	cx_attr_dims a = {.dims = cx_list_from(rank, dim)};
	const cx_desc *d;
	if (t.id >= c->g->n_nodes) return t;
	d = &c->g->nodes[t.id].desc;
	if (same_dims(d, rank, dim)) return t;
	return cx_broadcast(c->g, t, &a);
}

cx_tensor cx__grad_fill(
	cx_grad_ctx *c, cx_dtype dtype, int32_t rank, const int64_t *dim, double value)
{
	return cx__grad_broadcast(c, cast_to(c->g, cx__grad_k(c, value), dtype), rank, dim);
}

cx_tensor cx__grad_row_sum(cx_grad_ctx *c, cx_tensor t, int64_t axis)
{
	cx_attr_reduce a = {.axes = cx_list_from(1, &axis), .keep = true};
	return cx_sum(c->g, t, &a);
}

cx_tensor cx__grad_cut(cx_grad_ctx *c, cx_tensor t, int32_t axis, int64_t begin, int64_t size)
{
	cx_attr_slice a = cx_attr_slice_default();
	const cx_desc *d;
	if (t.id >= c->g->n_nodes) return t;
	d = &c->g->nodes[t.id].desc;
	if (begin == 0 && size == d->dim[axis]) return t;
	a.begin.n = a.size.n = d->rank;
	for (int32_t i = 0; i < d->rank; i++) a.size.v[i] = d->dim[i];
	a.begin.v[axis] = begin;
	a.size.v[axis] = size;
	return cx_slice(c->g, t, &a);
}

/* Sum over what was broadcast from `to`'s dims to t's; in f32. */
static cx_tensor sum_to(cx_grad_ctx *c, cx_tensor t, const cx_desc *to)
{
	cx_attr_reduce a = cx_attr_reduce_default();
	cx_desc d = c->g->nodes[t.id].desc;
	int32_t lead = d.rank - to->rank;
	for (int32_t i = 0; i < d.rank; i++) {
		bool spread = i < lead || to->dim[i - lead] == 1;
		if (spread && d.dim[i] != 1) a.axes.v[a.axes.n++] = i;
	}
	if (a.axes.n > 0) t = cx_sum(c->g, cx__grad_f32(c, t), &a);
	return cx__grad_reshape(c, t, to->rank, to->dim);
}

void cx__grad_give(cx_grad_ctx *c, uint32_t j, cx_tensor t)
{
	cx_desc to;
	if (t.id >= c->g->n_nodes) return; /* zero, or an error */
	to = c->g->nodes[c->in[j].id].desc;
	c->din[j] = cast_to(c->g, sum_to(c, t, &to), to.dtype);
}

/* Rows whose derivative is 0 wherever it exists. */
void cx__grad_zero(cx_grad_ctx *c)
{
	(void)c;
}
