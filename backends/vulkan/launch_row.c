/* launch_row.c - reductions, softmax, norms, top-k, running sums. */
#include "backends/vulkan/emit.h"

#include <string.h>

enum { ROW = 64, ABSENT = 99, SERIAL_COLS = 32 };

/* Kept axes in front, reduced ones behind, each set merged where strides allow; the number of
 * each. */
static void split_axes(const cx_attr_reduce *at, cx_desc *x, uint32_t *n_kept, uint32_t *n_red)
{
	cx_desc part[2] = {{.dtype = x->dtype}, {.dtype = x->dtype}}, *p;
	for (int32_t k = 0; k < x->rank; k++) {
		bool gone = at->axes.n == 0;
		for (int32_t j = 0; j < at->axes.n; j++)
			if (at->axes.v[j] == k || at->axes.v[j] + x->rank == k) gone = true;
		p = &part[gone];
		p->dim[p->rank] = x->dim[k];
		p->stride[p->rank++] = x->stride[k];
	}
	for (int i = 0; i < 2; i++) {
		p = &part[i];
		if (cx__desc_elems(p)) cx__vk_collapse(&p, 1);
		if (p->rank == 0) { /* one row, or rows of one element */
			p->dim[p->rank] = 1;
			p->stride[p->rank++] = 0;
		}
	}
	*n_kept = (uint32_t)part[0].rank;
	*n_red = (uint32_t)part[1].rank;
	x->rank = 0;
	for (int i = 0; i < 2; i++)
		for (int32_t k = 0; k < part[i].rank; k++) {
			x->dim[x->rank] = part[i].dim[k];
			x->stride[x->rank++] = part[i].stride[k];
		}
}

static int64_t product(const cx_desc *d, int32_t from, int32_t end)
{
	int64_t n = 1;
	for (int32_t k = from; k < end; k++) n *= d->dim[k];
	return n;
}

static int64_t least_of(cx_dtype t)
{
	return t == CX_I32 ? INT32_MIN : t == CX_I64 ? INT64_MIN : t == CX_I8 ? INT8_MIN : 0;
}
static int64_t most_of(cx_dtype t)
{
	return t == CX_I32   ? INT32_MAX
		   : t == CX_I64 ? INT64_MAX
		   : t == CX_I8  ? INT8_MAX
		   : t == CX_U8  ? UINT8_MAX
						 : 1;
}

void cx__vk_launch_reduce(cx_vk_emit *e)
{
	const cx_step *s = e->step;
	cx_operand x = s->in[0];
	uint32_t kept, red,
		op = s->op == CX_OP_sum    ? 1
			 : s->op == CX_OP_mean ? 2
			 : s->op == CX_OP_amax ? 3
								   : 4;
	bool is_float = cx__vk_float(x.desc.dtype);
	int64_t rows = cx__desc_elems(&s->out[0].desc), cols, empty;
	cx_vk_dispatch *d;
	split_axes(s->attr, &x.desc, &kept, &red);
	cols = product(&x.desc, (int32_t)kept, x.desc.rank);
	d = cx__vk_begin(e, is_float ? CX_SHADER_reduce : CX_SHADER_reducei, ROW);
	cx__vk_spec(d, op);
	cx__vk_spec(d, (uint32_t)s->out[0].desc.dtype);
	cx__vk_spec(d, (uint32_t)x.desc.dtype);
	cx__vk_spec(d, red);
	cx__vk_spec(d, kept);
	if (is_float) cx__vk_spec(d, cols <= SERIAL_COLS);
	cx__vk_bind(e, d, 0, &s->out[0], CX_VK_WRITE, 0);
	cx__vk_bind(e, d, 1, &x, CX_VK_READ, 0);
	d->p.i[0] = (cx_i32)cols;
	empty = op == 3 ? least_of(x.desc.dtype) : op == 4 ? most_of(x.desc.dtype) : 0;
	memcpy(&d->p.i[2], &empty, sizeof empty);
	if (is_float && cols > SERIAL_COLS) cx__vk_groups(d, (uint64_t)rows);
	else cx__vk_items(d, (uint64_t)rows);
}

/* Rows along one axis: both with that axis last. */
static int64_t rows_along(cx_operand *y, cx_operand *x, int64_t axis)
{
	if (axis < 0) axis += x->desc.rank;
	if (x->desc.rank == 0) { /* a scalar is a row of one */
		x->desc.rank = y->desc.rank = 1;
		x->desc.dim[0] = y->desc.dim[0] = 1;
		x->desc.stride[0] = y->desc.stride[0] = 0;
		axis = 0;
	}
	cx__vk_axis_last(&x->desc, axis);
	cx__vk_axis_last(&y->desc, axis);
	return product(&x->desc, 0, x->desc.rank - 1);
}

void cx__vk_launch_softmax(cx_vk_emit *e)
{
	const cx_step *s = e->step;
	const cx_attr_softmax *at = s->attr;
	cx_operand x = s->in[0], y = s->out[0];
	int64_t rows = rows_along(&y, &x, at->axis);
	cx_vk_dispatch *d = cx__vk_begin(e, CX_SHADER_softmax, ROW);
	cx__vk_spec(d, (uint32_t)x.desc.dtype);
	cx__vk_spec(d, s->op == CX_OP_log_softmax);
	cx__vk_spec(d, (uint32_t)x.desc.rank);
	cx__vk_bind(e, d, 0, &y, CX_VK_WRITE, 0);
	cx__vk_bind(e, d, 1, &x, CX_VK_READ, 0);
	d->p.f[0] = at->scale;
	cx__vk_groups(d, x.desc.dim[x.desc.rank - 1] ? (uint64_t)rows : 0);
}

void cx__vk_launch_cumsum(cx_vk_emit *e)
{
	const cx_step *s = e->step;
	const cx_attr_cumsum *at = s->attr;
	cx_operand x = s->in[0], y = s->out[0];
	int64_t rows = rows_along(&y, &x, at->axis);
	cx_vk_dispatch *d = cx__vk_begin(e, CX_SHADER_cumsum, ROW);
	cx__vk_spec(d, (uint32_t)x.desc.dtype);
	cx__vk_spec(d, cx__vk_size(x.desc.dtype));
	cx__vk_spec(d, (uint32_t)x.desc.rank);
	cx__vk_bind(e, d, 0, &y, CX_VK_WRITE, 0);
	cx__vk_bind(e, d, 1, &x, CX_VK_READ, 0);
	d->p.i[0] = at->exclusive;
	d->p.i[1] = at->reverse;
	cx__vk_items(d, (uint64_t)rows);
}

/* topk: values and indices of the k first; argmax: the index of the first, in a tensor without
 * the axis. */
void cx__vk_launch_topk(cx_vk_emit *e)
{
	const cx_step *s = e->step;
	bool values = s->op == CX_OP_topk;
	int64_t axis =
		values ? ((const cx_attr_topk *)s->attr)->axis : ((const cx_attr_arg *)s->attr)->axis;
	int64_t k = values ? ((const cx_attr_topk *)s->attr)->k : 1, rows;
	cx_operand x = s->in[0], y = s->out[0], idx = s->out[values ? 1 : 0];
	cx_vk_dispatch *d = cx__vk_begin(e, CX_SHADER_topk, ROW);
	if (axis < 0) axis += x.desc.rank;
	cx__vk_axis_last(&x.desc, axis);
	rows = product(&x.desc, 0, x.desc.rank - 1);
	if (values) {
		cx__vk_axis_last(&y.desc, axis);
		cx__vk_axis_last(&idx.desc, axis);
	} else { /* dense over the other axes */
		cx_dtype t = idx.desc.dtype;
		idx.desc = x.desc;
		idx.desc.dtype = t;
		idx.desc.dim[x.desc.rank - 1] = 1;
		cx__desc_dense(&idx.desc);
	}
	cx__vk_spec(d, (uint32_t)x.desc.dtype);
	cx__vk_spec(d, cx__vk_size(x.desc.dtype));
	cx__vk_spec(d, values);
	cx__vk_spec(d, values && ((const cx_attr_topk *)s->attr)->smallest);
	cx__vk_spec(d, (uint32_t)x.desc.rank);
	cx__vk_bind(e, d, 0, &idx, CX_VK_WRITE, 0);
	if (values) cx__vk_bind(e, d, 1, &y, CX_VK_WRITE, 0);
	cx__vk_bind(e, d, 2, &x, CX_VK_READ, 0);
	d->p.i[0] = (cx_i32)k;
	cx__vk_groups(d, (uint64_t)rows);
}

/* ---- norms ---- */

/* y = norm(x), or with x2 of x + x2, whose sum goes to `sum`. kind: 0 layernorm, 1 rmsnorm, 2
 * l2norm, 3 groupnorm. */
cx_vk_dispatch *cx__vk_norm(cx_vk_emit *e, uint32_t kind, const cx_operand *y,
	const cx_operand *sum, const cx_operand *x, const cx_operand *x2, const cx_operand *w,
	const cx_operand *b, bool plus_one, float eps)
{
	cx_vk_dispatch *d = cx__vk_begin(e, CX_SHADER_norm, ROW);
	int64_t cols = x->desc.dim[x->desc.rank - 1];
	cx__vk_spec(d, kind);
	cx__vk_spec(d, (uint32_t)x->desc.dtype);
	cx__vk_spec(d, w ? (uint32_t)w->desc.dtype : ABSENT);
	cx__vk_spec(d, b ? (uint32_t)b->desc.dtype : ABSENT);
	cx__vk_spec(d, plus_one);
	cx__vk_spec(d, x2 != NULL);
	cx__vk_spec(d, (uint32_t)x->desc.rank);
	cx__vk_spec(d, sum != NULL);
	cx__vk_bind(e, d, 0, y, CX_VK_WRITE, 0);
	if (sum) cx__vk_bind(e, d, 1, sum, CX_VK_WRITE, 0);
	cx__vk_bind(e, d, 2, x, CX_VK_READ, 0);
	if (x2) cx__vk_bind(e, d, 3, x2, CX_VK_READ, 0);
	if (w) cx__vk_bind(e, d, 4, w, CX_VK_READ, 0);
	if (b) cx__vk_bind(e, d, 5, b, CX_VK_READ, 0);
	d->p.i[0] = (cx_i32)cols;
	d->p.f[0] = eps;
	cx__vk_groups(d, cols ? (uint64_t)(cx__desc_elems(&x->desc) / cols) : 0);
	return d;
}

static const cx_operand *operand(const cx_step *s, uint32_t i)
{
	return cx__vk_has(s, i) ? &s->in[i] : NULL;
}

void cx__vk_launch_norm(cx_vk_emit *e)
{
	const cx_step *s = e->step;
	const cx_attr_norm *at = s->attr;
	uint32_t kind = s->op == CX_OP_layernorm ? 0 : s->op == CX_OP_rmsnorm ? 1 : 2;
	cx__vk_norm(e, kind, &s->out[0], NULL, &s->in[0], NULL, operand(s, 1), operand(s, 2),
		kind < 2 && at->plus_one, at->eps);
}

void cx__vk_launch_add_norm(cx_vk_emit *e)
{
	const cx_step *s = e->step;
	const cx_attr_linear *at = s->attr;
	cx__vk_norm(e, at->norm == 1 ? 1 : 0, &s->out[1], &s->out[0], &s->in[0], &s->in[1],
		at->norm_in > 0 ? operand(s, 2) : NULL, at->norm_in > 1 ? operand(s, 3) : NULL,
		at->plus_one, at->eps);
}

void cx__vk_launch_groupnorm(cx_vk_emit *e)
{
	const cx_step *s = e->step;
	const cx_attr_groupnorm *at = s->attr;
	const cx_desc *x = &s->in[0].desc;
	int64_t behind = product(x, 2, x->rank), size = x->dim[1] / at->groups * behind;
	cx_vk_dispatch *d = cx__vk_norm(
		e, 3, &s->out[0], NULL, &s->in[0], NULL, operand(s, 1), operand(s, 2), false, at->eps);
	d->p.i[0] = (cx_i32)size;
	d->p.i[1] = (cx_i32)behind;
	d->p.i[2] = (cx_i32)x->dim[1];
	cx__vk_groups(d, size ? (uint64_t)(x->dim[0] * at->groups) : 0);
}
