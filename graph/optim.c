/* optim.c - see optim.h: a training step as nodes of a graph, made of the public ops. */
#include "graph/optim.h"

#include "graph/graph.h"

#include <stdio.h>
#include <string.h>

static cx_tensor cast_to(cx_graph *g, cx_tensor t, cx_dtype dtype)
{
	cx_attr_cast a = {.dtype = dtype};
	return cx_is_none(t) || cx_tensor_dtype(g, t) == dtype ? t : cx_cast(g, t, &a);
}

static cx_tensor scaled(cx_graph *g, cx_tensor t, float by)
{
	t = cast_to(g, t, CX_F32);
	return by == 1 ? t : cx_mul(g, t, cx_const_f32(g, by));
}

/* ---- parameters ------------------------------------------------------------------------------ */

static cx_tensor side_state(
	cx_graph *g, const char *name, const char *suffix, int32_t rank, const int64_t *dim)
{
	char full[160];
	snprintf(full, sizeof full, "%.140s%s", name, suffix);
	return cx_state(g, full, CX_F32, rank, dim);
}

cx_param cx_param_state(
	cx_graph *g, const char *name, cx_dtype dtype, int32_t rank, const int64_t *dim)
{
	cx_param p = {.master = CX_NONE, .acc = CX_NONE, .name = name};
	p.value = cx_state(g, name, dtype, rank, dim);
	if (dtype != CX_F32) p.master = side_state(g, name, ".master", rank, dim);
	p.m = side_state(g, name, ".m", rank, dim);
	p.v = side_state(g, name, ".v", rank, dim);
	return p;
}

void cx_param_accumulator(cx_graph *g, cx_param *p)
{
	cx_shape s = cx_tensor_shape(g, p->value);
	p->acc = side_state(g, p->name, ".acc", s.rank, s.dim);
}

/* ---- clipping -------------------------------------------------------------------------------- */

/* Sums of squares of t's rows, as f32 [rows]: rows are shared by threads, one long sum is not. */
static cx_tensor row_squares(cx_graph *g, cx_tensor t)
{
	const int64_t last = 1;
	cx_attr_reduce row = {.axes = cx_list_from(1, &last)};
	cx_shape s = cx_tensor_shape(g, t);
	cx_attr_dims two = {.dims = cx_list_of(2, 1, 1)};
	two.dims.v[1] = s.rank > 0 ? s.dim[s.rank - 1] : 1;
	two.dims.v[0] = two.dims.v[1] > 0 ? cx_shape_elems(&s) / two.dims.v[1] : 0;
	t = cast_to(g, cx_reshape(g, t, &two), CX_F32);
	return cx_sum(g, cx_mul(g, t, t), &row);
}

cx_tensor cx_clip_global_norm(cx_graph *g, cx_tensor *grads, uint32_t n, float max_norm)
{
	cx_attr_axis first = {.axis = 0};
	cx_arena tmp;
	cx_tensor *rows, norm = CX_NONE, by;
	if (n == 0) return cx_const_f32(g, 0);
	cx_arena_init(&tmp, &g->arena.alloc);
	rows = cx_arena_array(&tmp, n, sizeof *rows);
	if (!rows) {
		CX_FAIL(&g->first_error, CX_ERR_MEMORY, "clip: out of memory");
		goto done;
	}
	for (uint32_t i = 0; i < n; i++) rows[i] = row_squares(g, grads[i]);
	norm = cx_sqrt(g, cx_sum(g, cx_concat(g, rows, n, &first), NULL));
	by = cx_div(g, cx_const_f32(g, max_norm), cx_add(g, norm, cx_const_f32(g, 1e-6f)));
	by = cx_min(g, by, cx_const_f32(g, 1));
	for (uint32_t i = 0; i < n; i++) grads[i] = cx_mul(g, cast_to(g, grads[i], CX_F32), by);
done:
	cx_arena_deinit(&tmp);
	return norm;
}

/* ---- updates --------------------------------------------------------------------------------- */

void cx_adamw_step(cx_graph *g, cx_param *p, const cx_tensor *grads, uint32_t n,
	const cx_attr_adamw *attr, cx_tensor lr, cx_tensor t)
{
	for (uint32_t i = 0; i < n; i++) {
		cx_attr_adamw a = attr ? *attr : cx_attr_adamw_default();
		bool twice = !cx_is_none(p[i].master);
		cx_tensor next;
		if (p[i].no_decay) a.decay = 0;
		next = cx_adamw(g, twice ? p[i].master : p[i].value, grads[i], p[i].m, p[i].v, lr, t, &a);
		p[i].m = cx_out(g, next, 1);
		p[i].v = cx_out(g, next, 2);
		if (!twice) {
			p[i].value = next;
			continue;
		}
		p[i].master = next;
		p[i].value = cx_assign(g, p[i].value, cast_to(g, next, cx_tensor_dtype(g, p[i].value)));
	}
}

cx_tensor cx_step_count(cx_graph *g, const char *name)
{
	const int64_t one = 1;
	cx_tensor s = cx_state(g, name, CX_F32, 1, &one);
	return cx_assign(g, s, cx_add(g, s, cx_const_f32(g, 1)));
}

/* ---- accumulation ---------------------------------------------------------------------------- */

static cx_tensor total(cx_graph *g, const cx_param *p, cx_tensor grad, float scale)
{
	return cx_is_none(grad) ? p->acc : cx_add(g, p->acc, scaled(g, grad, scale));
}

void cx_accumulate(cx_graph *g, cx_param *p, const cx_tensor *grads, uint32_t n, float scale)
{
	for (uint32_t i = 0; i < n; i++)
		p[i].acc = cx_assign(g, p[i].acc, total(g, &p[i], grads[i], scale));
}

void cx_accumulate_take(cx_graph *g, cx_param *p, cx_tensor *grads, uint32_t n, float scale)
{
	for (uint32_t i = 0; i < n; i++) {
		cx_shape s = cx_tensor_shape(g, p[i].value);
		cx_attr_dims full = {.dims = cx_list_from(s.rank, s.dim)};
		grads[i] = total(g, &p[i], grads[i], scale);
		p[i].acc = cx_assign(g, p[i].acc, cx_broadcast(g, cx_const_f32(g, 0), &full));
	}
}

/* ---- dropout --------------------------------------------------------------------------------- */

cx_tensor cx_random_site(cx_graph *g, cx_tensor key, int32_t site)
{
	const int32_t add[4] = {0, 0, 0, site};
	const int64_t four = 4;
	return cx_add(g, key, cx_const(g, CX_I32, 1, &four, add));
}

cx_tensor cx_dropout(cx_graph *g, cx_tensor x, float p, cx_tensor key)
{
	cx_shape s = cx_tensor_shape(g, x);
	cx_attr_random uniform = {.dims = cx_list_from(s.rank, s.dim)};
	cx_dtype dtype = cx_tensor_dtype(g, x);
	cx_tensor drop;
	if (p == 0) return x;
	if (!(p > 0 && p < 1) && g->first_error.code == CX_OK)
		CX_FAIL(&g->first_error, CX_ERR_ARGUMENT, "dropout: p is %g, must be in [0, 1)", (double)p);
	drop = cx_lt(g, cx_random(g, key, &uniform), cx_const_f32(g, p));
	x = cx_mul(g, x, cast_to(g, cx_const_f32(g, 1 / (1 - p)), dtype));
	return cx_where(g, drop, cast_to(g, cx_const_f32(g, 0), dtype), x);
}
