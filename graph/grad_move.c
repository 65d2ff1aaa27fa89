/* grad_move.c - gradient rules of views and of ops that move data. What was taken from somewhere
 * goes back there; what was written over is gone. Tables collect in f32 whatever their dtype. */
#include "graph/grad.h"

#include <string.h>

/* ---- views ----------------------------------------------------------------------------------- */

void cx__grad_view(cx_grad_ctx *c)
{
	cx_desc x = *cx__grad_desc(c, c->in[0]);
	cx__grad_give(c, 0, cx__grad_reshape(c, c->dout[0], x.rank, x.dim));
}

void cx__grad_permute(cx_grad_ctx *c)
{
	const cx_attr_perm *a = c->attr;
	cx_attr_perm back = {.perm = {.n = a->perm.n}};
	for (int32_t i = 0; i < a->perm.n; i++) back.perm.v[a->perm.v[i]] = i;
	cx__grad_give(c, 0, cx_permute(c->g, c->dout[0], &back));
}

/* cx__grad_give() sums. */
void cx__grad_expand(cx_grad_ctx *c)
{
	cx__grad_give(c, 0, c->dout[0]);
}

/* One slice alone; grad.c collects those of a tensor and has them joined (grad_slice.c). */
void cx__grad_slice(cx_grad_ctx *c)
{
	cx_grad_piece p = {c->attr, c->dout[0]};
	uint32_t n = 1;
	cx__grad_give(c, 0, cx__grad_join(c->g, c->g->nodes[c->node].in[0], &p, &n));
}

/* ---- copies ---------------------------------------------------------------------------------- */

void cx__grad_copy(cx_grad_ctx *c)
{
	cx__grad_give(c, 0, c->dout[0]);
}

void cx__grad_barrier(cx_grad_ctx *c)
{
	if (c->need[0]) cx__grad_give(c, 0, c->dout[0]);
}

/* The old content is overwritten whole. */
void cx__grad_assign(cx_grad_ctx *c)
{
	if (c->need[1]) cx__grad_give(c, 1, c->dout[0]);
}

void cx__grad_concat(cx_grad_ctx *c)
{
	const cx_attr_axis *a = c->attr;
	int64_t at = 0;
	for (uint32_t j = 0; j < c->n_in; j++) {
		int64_t n = cx__grad_desc(c, c->in[j])->dim[a->axis];
		if (c->need[j]) cx__grad_give(c, j, cx__grad_cut(c, c->dout[0], (int32_t)a->axis, at, n));
		at += n;
	}
}

void cx__grad_pad(cx_grad_ctx *c)
{
	const cx_attr_pad *a = c->attr;
	cx_desc x = *cx__grad_desc(c, c->in[0]);
	cx_tensor t = c->dout[0];
	for (int32_t i = 0; i < x.rank; i++) t = cx__grad_cut(c, t, i, a->before.v[i], x.dim[i]);
	cx__grad_give(c, 0, t);
}

/* ---- by index -------------------------------------------------------------------------------- */

/* Rows of src [n, ...] added up in a table [rows, ...] of zeros, at idx [n]. */
static cx_tensor collect(
	cx_grad_ctx *c, int32_t rank, const int64_t *dim, cx_tensor idx, cx_tensor src)
{
	cx_attr_scatter add = {.add = true};
	return cx_scatter(
		c->g, cx__grad_fill(c, CX_F32, rank, dim, 0), idx, cx__grad_f32(c, src), &add);
}

/* x's axis goes to the front, and the indices' axes of dout with it; back at the end. */
void cx__grad_gather(cx_grad_ctx *c)
{
	const cx_attr_axis *a = c->attr;
	cx_desc x = *cx__grad_desc(c, c->in[0]), idx = *cx__grad_desc(c, c->in[1]);
	int64_t n = cx__desc_elems(&idx), front[2] = {x.dim[a->axis], 1}, moved[CX_MAX_RANK];
	int32_t axis = (int32_t)a->axis, r = idx.rank, n_moved = 0;
	cx_attr_perm to = {.perm = {.n = x.rank - 1 + r}}, back = {.perm = {.n = x.rank}};
	cx_tensor d = c->dout[0];
	if (axis > 0) {
		for (int32_t i = 0; i < to.perm.n; i++)
			to.perm.v[i] = i < r ? axis + i : i < r + axis ? i - r : i;
		d = cx_permute(c->g, d, &to);
	}
	moved[n_moved++] = x.dim[axis];
	for (int32_t i = 0; i < x.rank; i++) {
		back.perm.v[i] = i == axis ? 0 : i < axis ? i + 1 : i;
		if (i != axis) front[1] *= moved[n_moved++] = x.dim[i];
	}
	d = cx__grad_reshape(c, d, 2, (const int64_t[]){n, front[1]});
	d = collect(c, 2, front, cx__grad_reshape(c, c->in[1], 1, &n), d);
	d = cx__grad_reshape(c, d, x.rank, moved);
	cx__grad_give(c, 0, axis > 0 ? cx_permute(c->g, d, &back) : d);
}

/* Which rows of src are still there after all were written: bool [n, 1, ...]. Each row of dst keeps
 * the number of its last writer. */
static cx_tensor survivors(cx_grad_ctx *c, const cx_desc *dst, int64_t n)
{
	cx_graph *g = c->g;
	cx_attr_iota count = {.dims = cx_list_of(1, 1), .dtype = CX_I32, .step = 1};
	cx_attr_dims room = {.dims = cx_list_of(1, 1)};
	cx_attr_scatter over = cx_attr_scatter_default();
	cx_attr_axis first = {.axis = 0};
	int32_t none = -1;
	int64_t dim[CX_MAX_RANK] = {n, 1, 1, 1, 1, 1};
	cx_tensor number, who;
	count.dims.v[0] = n;
	room.dims.v[0] = dst->dim[0];
	number = cx_iota(g, &count);
	who = cx_broadcast(g, cx_const(g, CX_I32, 0, NULL, &none), &room);
	who = cx_gather(g, cx_scatter(g, who, c->in[1], number, &over), c->in[1], &first);
	return cx__grad_reshape(c, cx_eq(g, who, number), dst->rank, dim);
}

void cx__grad_scatter(cx_grad_ctx *c)
{
	const cx_attr_scatter *a = c->attr;
	cx_graph *g = c->g;
	cx_desc dst = *cx__grad_desc(c, c->in[0]), src = *cx__grad_desc(c, c->in[2]);
	cx_attr_scatter over = cx_attr_scatter_default();
	cx_attr_axis first = {.axis = 0};
	cx_tensor d = c->dout[0], t;
	if (c->need[2]) {
		t = cx_gather(g, d, c->in[1], &first); /* 0 where nothing was written: idx out of range */
		if (!a->add)
			t = cx_where(
				g, survivors(c, &dst, src.dim[0]), t, cx__grad_fill(c, src.dtype, 0, NULL, 0));
		cx__grad_give(c, 2, t);
	}
	if (!c->need[0]) return;
	if (!a->add)
		d = cx_scatter(g, d, c->in[1], cx__grad_fill(c, src.dtype, src.rank, src.dim, 0), &over);
	cx__grad_give(c, 0, d);
}

void cx__grad_embed_sum(cx_grad_ctx *c)
{
	for (uint32_t j = 0; j < c->n_in; j += 2) {
		cx_desc table = *cx__grad_desc(c, c->in[j]);
		if (c->need[j]) cx__grad_give(c, j, collect(c, 2, table.dim, c->in[j + 1], c->dout[0]));
	}
}
