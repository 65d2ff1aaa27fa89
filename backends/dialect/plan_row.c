/* plan_row.c - launches of reductions and row ops: kernels/reduce.cl.h and row.cl.h. */
#include "backends/dialect/launch.h"

#include <string.h>

/* Elements of a row from which a group shares it. Of the row alone: a row's sum must not depend on
 * how many rows there are. */
enum { GROUP_FROM = 256 };

static int32_t axis_of(int64_t axis, const cx_desc *d)
{
	return (int32_t)(axis < 0 ? axis + d->rank : axis);
}

static cx_i32 stride_of(const cx_desc *d, int32_t axis)
{
	return d->rank ? (cx_i32)d->stride[axis] : 0;
}

static cx_i32 size_of(const cx_desc *d, int32_t axis)
{
	return d->rank ? (cx_i32)d->dim[axis] : 1;
}

/* Tensor t as the index space of its rows: without `axis`. */
static void rows_of(
	cx_dk_builder *b, cx_dk_draft *d, int t, int arg, const cx_operand *o, int32_t axis)
{
	cx_desc outer;
	cx__dk_tensor(b, d, t, arg, o);
	if (!o || o->buf == CX_BUF_NONE) return;
	outer = cx__dk_without(&o->desc, o->desc.rank ? 1u << axis : 0);
	cx__dk_merge(&outer, 1);
	cx__dk_desc(&d->p.t[t], &outer, d->p.t[t].off);
}

static uint32_t n_rows(const cx_desc *d, int32_t axis)
{
	cx_desc outer = cx__dk_without(d, d->rank ? 1u << axis : 0);
	return cx__dk_elems(&outer);
}

void cx__dk_plan_reduce(cx_dk_builder *b, const cx_step *s)
{
	static const int kinds[CX_OP_COUNT] = {[CX_OP_mean] = 1, [CX_OP_amax] = 2, [CX_OP_amin] = 3};
	const cx_attr_reduce *at = s->attr;
	const cx_desc *x = &s->in[0].desc;
	uint32_t gone = at->axes.n ? 0 : (1u << x->rank) - 1;
	cx_desc outer, inner;
	cx_dk_draft *d;
	for (int32_t i = 0; i < at->axes.n; i++) gone |= 1u << axis_of(at->axes.v[i], x);
	outer = cx__dk_without(x, gone);
	inner = cx__dk_without(x, ~gone);
	uint32_t n = cx__dk_elems(&inner), rows = cx__dk_elems(&outer);
	d = cx__dk_draft(b, "reduce", n < GROUP_FROM ? "cx_reduce_item" : "cx_reduce_group", 2);
	cx__dk_tensor(b, d, 0, 0, &s->out[0]);
	cx__dk_tensor(b, d, 1, 1, &s->in[0]);
	cx__dk_merge(&outer, 1);
	cx__dk_merge(&inner, 1);
	cx__dk_desc(&d->p.t[1], &outer, d->p.t[1].off);
	cx__dk_desc(&d->p.t[2], &inner, 0);
	d->p.i[0] = kinds[s->op];
	d->p.i[1] = (cx_i32)n;
	if (n < GROUP_FROM) cx__dk_items(d, rows);
	else cx__dk_groups(d, rows, 1);
	cx__dk_specialise(b, d, 2, (double)n * rows);
}

static void plan_topk(cx_dk_builder *b, const cx_step *s, int64_t k, int64_t at_axis, bool smallest,
	const cx_operand *values, const cx_operand *indices)
{
	const cx_desc *x = &s->in[0].desc;
	int32_t axis = axis_of(at_axis, x);
	cx_dk_draft *d = cx__dk_draft(b, "reduce", "cx_topk_group", 3);
	rows_of(b, d, 0, 0, values, axis);
	if (values) rows_of(b, d, 1, 1, indices, axis);
	else cx__dk_tensor(b, d, 1, 1, indices);
	rows_of(b, d, 2, 2, &s->in[0], axis);
	d->p.i[0] = (cx_i32)k;
	d->p.i[1] = size_of(x, axis);
	d->p.i[2] = smallest;
	d->p.i[3] = values ? stride_of(&values->desc, axis) : 0;
	d->p.i[4] = values ? stride_of(&indices->desc, axis) : 0;
	d->p.i[5] = stride_of(x, axis);
	cx__dk_groups(d, n_rows(x, axis), 1);
	cx__dk_specialise(b, d, 3, (double)cx__dk_elems(x) * (double)k);
}

void cx__dk_plan_argmax(cx_dk_builder *b, const cx_step *s)
{
	plan_topk(b, s, 1, ((const cx_attr_arg *)s->attr)->axis, false, NULL, &s->out[0]);
}

void cx__dk_plan_topk(cx_dk_builder *b, const cx_step *s)
{
	const cx_attr_topk *at = s->attr;
	plan_topk(b, s, at->k, at->axis, at->smallest, &s->out[0], &s->out[1]);
}

void cx__dk_plan_cumsum(cx_dk_builder *b, const cx_step *s)
{
	const cx_attr_cumsum *at = s->attr;
	const cx_desc *x = &s->in[0].desc;
	int32_t axis = axis_of(at->axis, x);
	cx_dk_draft *d = cx__dk_draft(b, "reduce", "cx_cumsum_item", 2);
	rows_of(b, d, 0, 0, &s->out[0], axis);
	rows_of(b, d, 1, 1, &s->in[0], axis);
	d->p.i[0] = at->exclusive;
	d->p.i[1] = at->reverse;
	d->p.i[2] = size_of(x, axis);
	d->p.i[3] = stride_of(&s->out[0].desc, axis);
	d->p.i[4] = stride_of(x, axis);
	cx__dk_items(d, n_rows(x, axis));
}

void cx__dk_plan_softmax(cx_dk_builder *b, const cx_step *s)
{
	const cx_attr_softmax *at = s->attr;
	const cx_desc *x = &s->in[0].desc;
	int32_t axis = axis_of(at->axis, x);
	cx_dk_draft *d = cx__dk_draft(b, "row", "cx_softmax_group", 2);
	rows_of(b, d, 0, 0, &s->out[0], axis);
	rows_of(b, d, 1, 1, &s->in[0], axis);
	d->p.i[0] = s->op == CX_OP_log_softmax;
	d->p.i[1] = size_of(x, axis);
	d->p.i[2] = stride_of(&s->out[0].desc, axis);
	d->p.i[3] = stride_of(x, axis);
	d->p.f[0] = at->scale;
	cx__dk_groups(d, x->dim[axis] ? n_rows(x, axis) : 0, 1);
	cx__dk_specialise(b, d, 2, cx__dk_elems(x));
}

/* y = norm(x) of this kind; w, bias may be NULL; with x2: sum = x + x2, y = norm(sum). */
static void plan_norm(cx_dk_builder *b, int kind, float eps, bool plus_one, const cx_operand *y,
	const cx_operand *x, const cx_operand *w, const cx_operand *bias, const cx_operand *x2,
	const cx_operand *sum)
{
	int32_t axis = x->desc.rank - 1;
	cx_dk_draft *d = cx__dk_draft(b, "row", "cx_norm_group", 6);
	rows_of(b, d, 0, 0, y, axis);
	rows_of(b, d, 1, 1, x, axis);
	cx__dk_tensor(b, d, 2, 2, w);
	cx__dk_tensor(b, d, 3, 3, bias);
	rows_of(b, d, 4, 4, x2, axis);
	rows_of(b, d, 5, 5, sum, axis);
	d->p.i[0] = kind;
	d->p.i[1] = plus_one;
	d->p.i[2] = size_of(&x->desc, axis);
	d->p.i[3] = stride_of(&y->desc, axis);
	d->p.i[4] = stride_of(&x->desc, axis);
	d->p.i[5] = x2 ? stride_of(&x2->desc, axis) : 0;
	d->p.i[6] = sum ? stride_of(&sum->desc, axis) : 0;
	d->p.f[0] = eps;
	cx__dk_groups(d, x->desc.dim[axis] ? n_rows(&x->desc, axis) : 0, 1);
	cx__dk_specialise(b, d, 2, cx__dk_elems(&x->desc));
}

void cx__dk_plan_norm(cx_dk_builder *b, const cx_step *s)
{
	const cx_attr_norm *at = s->attr;
	int kind = s->op == CX_OP_rmsnorm ? 1 : s->op == CX_OP_layernorm ? 2 : 3;
	plan_norm(b, kind, at->eps, at->plus_one, &s->out[0], &s->in[0],
		cx__dk_has(s, 1) ? &s->in[1] : NULL, cx__dk_has(s, 2) ? &s->in[2] : NULL, NULL, NULL);
}

void cx__dk_plan_add_norm(cx_dk_builder *b, const cx_step *s)
{
	const cx_attr_linear *at = s->attr;
	plan_norm(b, (int)at->norm, at->eps, at->plus_one, &s->out[1], &s->in[0],
		cx__dk_has(s, 2) ? &s->in[2] : NULL, cx__dk_has(s, 3) ? &s->in[3] : NULL, &s->in[1],
		&s->out[0]);
}

void cx__dk_linear_norm(cx_dk_builder *b, const cx_step *s, const cx_operand *h)
{
	const cx_attr_linear *at = s->attr;
	plan_norm(b, (int)at->norm, at->eps, at->plus_one, h, &s->in[0],
		at->norm_in > 0 ? &s->in[1] : NULL, at->norm_in > 1 ? &s->in[2] : NULL, NULL, NULL);
}

void cx__dk_plan_groupnorm(cx_dk_builder *b, const cx_step *s)
{
	const cx_attr_groupnorm *at = s->attr;
	const cx_desc *x = &s->in[0].desc;
	cx_dk_draft *d = cx__dk_draft(b, "row", "cx_groupnorm_group", 4);
	int64_t inner = 1, per = x->dim[1] / at->groups;
	for (int32_t k = 2; k < x->rank; k++) inner *= x->dim[k];
	cx__dk_tensor(b, d, 0, 0, &s->out[0]);
	cx__dk_tensor(b, d, 1, 1, &s->in[0]);
	cx__dk_tensor(b, d, 2, 2, cx__dk_has(s, 1) ? &s->in[1] : NULL);
	cx__dk_tensor(b, d, 3, 3, cx__dk_has(s, 2) ? &s->in[2] : NULL);
	d->p.i[0] = (cx_i32)(per * inner);
	d->p.i[1] = (cx_i32)inner;
	d->p.i[2] = (cx_i32)x->dim[1];
	d->p.f[0] = at->eps;
	cx__dk_groups(d, per * inner > 0 ? (uint64_t)(x->dim[0] * at->groups) : 0, 1);
	cx__dk_specialise(b, d, 2, cx__dk_elems(x));
}
