/* shape_move.c - shape rules of views, of ops that move data, and of generators. */
#include "graph/shape.h"

#include <string.h>

/* ---- views: dims, strides and offset in the operand's storage -------------------------------- */

static cx_status need_view(cx_shape_ctx *c)
{
	if (c->in[0].dtype == CX_I8C)
		return SHAPE_FAIL(c, "i8c has no views: its scales lie behind the rows");
	return CX_OK;
}

static cx_status need_list(cx_shape_ctx *c, const char *name, const cx_list *l, int32_t n)
{
	if (l->n == n) return CX_OK;
	return SHAPE_FAIL(c, "%s has %d entries, x is of rank %d", name, l->n, n);
}

/* Dims from an attribute, 0..CX_MAX_DIM each, of which strides can be made. */
static cx_status out_dims(cx_shape_ctx *c, const cx_list *dims)
{
	uint64_t bytes;
	for (int32_t i = 0; i < dims->n; i++) {
		if (dims->v[i] < 0 || dims->v[i] > CX_MAX_DIM)
			return SHAPE_FAIL(c, "dims[%d] is %lld, out of range", i, (long long)dims->v[i]);
		c->out[0].dim[i] = dims->v[i];
	}
	c->out[0].rank = dims->n;
	if (!cx_dtype_bytes(CX_U8, dims->n, dims->v, &bytes))
		return SHAPE_FAIL(c, "dims %s: too many elements", cx__dims_text(&c->out[0]).s);
	return CX_OK;
}

/* Replaces the one -1 of reshape's dims; checks that the number of elements stays. */
static cx_status resolve_dims(cx_shape_ctx *c, cx_list *dims)
{
	int64_t n = cx__desc_elems(&c->in[0]), m = 1;
	int32_t open = -1;
	for (int32_t i = 0; i < dims->n; i++) {
		if (dims->v[i] == -1 && open < 0) {
			open = i;
			continue;
		}
		if (dims->v[i] < 0 || dims->v[i] > CX_MAX_DIM)
			return SHAPE_FAIL(c, "dims[%d] is %lld, out of range", i, (long long)dims->v[i]);
		if (!cx_mul_i64(m, dims->v[i], &m)) return SHAPE_FAIL(c, "dims: too many elements");
	}
	if (open >= 0 && m > 0 && n % m == 0) {
		dims->v[open] = n / m;
		m = n;
	} else if (open >= 0) {
		return SHAPE_FAIL(c, "dims[%d] is -1, but %lld elements do not divide into %lld", open,
			(long long)n, (long long)m);
	}
	if (m != n)
		return SHAPE_FAIL(c, "x is %s with %lld elements, dims ask for %lld",
			cx__dims_text(&c->in[0]).s, (long long)n, (long long)m);
	return CX_OK;
}

/* Strides of y over x's storage, where x's axes allow it: each maximal group of x axes that is
 * contiguous in itself must be cut into whole axes of y (NumPy's _attempt_nocopy_reshape). No zero
 * dims here. */
static bool reshape_strides(const cx_desc *x, cx_desc *y)
{
	int64_t dim[CX_MAX_RANK], stride[CX_MAX_RANK];
	int32_t n = 0, i = 0, j = 0;
	for (int32_t k = 0; k < x->rank; k++) {
		if (x->dim[k] == 1) continue;
		dim[n] = x->dim[k];
		stride[n++] = x->stride[k];
	}
	for (int32_t k = 0; k < y->rank; k++) y->stride[k] = 1;
	while (i < n && j < y->rank) {
		int32_t i_end = i + 1, j_end = j + 1;
		int64_t a = dim[i], b = y->dim[j];
		while (a != b) {
			if (a < b) a *= dim[i_end++];
			else b *= y->dim[j_end++];
		}
		for (int32_t k = i; k + 1 < i_end; k++)
			if (stride[k] != dim[k + 1] * stride[k + 1]) return false;
		y->stride[j_end - 1] = stride[i_end - 1];
		for (int32_t k = j_end - 1; k > j; k--) y->stride[k - 1] = y->stride[k] * y->dim[k];
		i = i_end;
		j = j_end;
	}
	return true;
}

cx_status cx__shape_reshape(cx_shape_ctx *c)
{
	cx_attr_dims *a = c->attr;
	const cx_desc *x = &c->in[0];
	cx_desc *y = &c->out[0];
	if (need_view(c) || resolve_dims(c, &a->dims) || out_dims(c, &a->dims)) return c->err->code;
	y->dtype = x->dtype;
	if (cx__is_block(x->dtype) && (y->rank < 1 || y->dim[y->rank - 1] != x->dim[x->rank - 1]))
		return SHAPE_FAIL(c, "rows of a block format stay whole: %s to %s", cx__dims_text(x).s,
			cx__dims_text(y).s);
	if (cx__desc_is_dense(x)) {
		cx__desc_dense(y);
	} else if (!reshape_strides(x, y)) {
		if (cx__is_block(x->dtype))
			return SHAPE_FAIL(
				c, "no strides give %s from this view of a block format", cx__dims_text(y).s);
		c->materialise = true;
	}
	return CX_OK;
}

cx_status cx__shape_permute(cx_shape_ctx *c)
{
	cx_attr_perm *a = c->attr;
	const cx_desc *x = &c->in[0];
	bool used[CX_MAX_RANK] = {false};
	if (need_view(c) || need_list(c, "perm", &a->perm, x->rank)) return c->err->code;
	c->out[0] = *x;
	for (int32_t i = 0; i < x->rank; i++) {
		if (cx__need_axis(c, &a->perm.v[i], x->rank)) return c->err->code;
		if (used[a->perm.v[i]])
			return SHAPE_FAIL(c, "perm names axis %lld twice", (long long)a->perm.v[i]);
		used[a->perm.v[i]] = true;
		c->out[0].dim[i] = x->dim[a->perm.v[i]];
		c->out[0].stride[i] = x->stride[a->perm.v[i]];
	}
	if (cx__is_block(x->dtype) && a->perm.v[x->rank - 1] != x->rank - 1)
		return SHAPE_FAIL(
			c, "the last axis of %s holds its blocks and stays last", cx_dtype_get(x->dtype)->name);
	return CX_OK;
}

cx_status cx__shape_slice(cx_shape_ctx *c)
{
	cx_attr_slice *a = c->attr;
	const cx_desc *x = &c->in[0];
	bool empty = false;
	if (need_view(c) || need_list(c, "begin", &a->begin, x->rank) ||
		need_list(c, "size", &a->size, x->rank))
		return c->err->code;
	if (a->step.n == 0) {
		a->step.n = x->rank;
		for (int32_t i = 0; i < x->rank; i++) a->step.v[i] = 1;
	}
	if (need_list(c, "step", &a->step, x->rank)) return c->err->code;
	c->out[0] = *x;
	for (int32_t i = 0; i < x->rank; i++) {
		int64_t begin = a->begin.v[i], size = a->size.v[i], step = a->step.v[i], last;
		if (step < 1 || begin < 0 || size < 0 || begin > x->dim[i] ||
			(size > 0 && (!cx_mul_i64(size - 1, step, &last) || !cx_add_i64(last, begin, &last) ||
							 last >= x->dim[i])))
			return SHAPE_FAIL(c, "axis %d of %s: begin %lld, size %lld, step %lld", i,
				cx__dims_text(x).s, (long long)begin, (long long)size, (long long)step);
		if (cx__is_block(x->dtype) && i == x->rank - 1 && (begin != 0 || size != x->dim[i]))
			return SHAPE_FAIL(c, "the last axis of %s is not sliced", cx_dtype_get(x->dtype)->name);
		empty |= size == 0;
		c->out[0].dim[i] = size;
		if (size > 1)
			c->out[0].stride[i] = x->stride[i] * step; /* fits: the last element is in x */
		if (size > 0) c->view_off += begin * x->stride[i];
	}
	if (empty) c->view_off = 0;
	return CX_OK;
}

cx_status cx__shape_broadcast(cx_shape_ctx *c)
{
	const cx_attr_dims *a = c->attr;
	const cx_desc *x = &c->in[0];
	cx_desc *y = &c->out[0];
	if (need_view(c) || out_dims(c, &a->dims)) return c->err->code;
	if (y->rank < x->rank)
		return SHAPE_FAIL(c, "x is %s, dims ask for rank %d", cx__dims_text(x).s, y->rank);
	y->dtype = x->dtype;
	for (int32_t i = 0; i < y->rank; i++) {
		int32_t j = i - (y->rank - x->rank);
		if (j >= 0 && x->dim[j] != y->dim[i] && x->dim[j] != 1)
			return SHAPE_FAIL(
				c, "x is %s, dims ask for %s", cx__dims_text(x).s, cx__dims_text(y).s);
		y->stride[i] = j >= 0 && x->dim[j] == y->dim[i] ? x->stride[j] : 0;
	}
	if (cx__is_block(x->dtype) && x->dim[x->rank - 1] != y->dim[y->rank - 1])
		return SHAPE_FAIL(c, "the last axis of %s is not repeated", cx_dtype_get(x->dtype)->name);
	return CX_OK;
}

/* ---- moving data ----------------------------------------------------------------------------- */

cx_status cx__shape_copy(cx_shape_ctx *c)
{
	if (cx__need_class(c, 0, DT_PLAIN)) return c->err->code;
	c->out[0] = c->in[0];
	return CX_OK;
}

cx_status cx__shape_barrier(cx_shape_ctx *c)
{
	if (cx__need_class(c, 0, DT_PLAIN) || cx__need_class(c, 1, DT_PLAIN)) return c->err->code;
	c->out[0] = c->in[0];
	return CX_OK;
}

cx_status cx__shape_gather(cx_shape_ctx *c)
{
	cx_attr_axis *a = c->attr;
	const cx_desc *x = &c->in[0], *idx = &c->in[1];
	cx_desc *y = &c->out[0];
	if (cx__need_dtype(c, 1, CX_I32) || cx__need_rank(c, 0, 1, CX_MAX_RANK) ||
		cx__need_axis(c, &a->axis, x->rank))
		return c->err->code;
	if (x->rank - 1 + idx->rank > CX_MAX_RANK)
		return SHAPE_FAIL(c, "x is %s and idx is %s: the result's rank would be over %d",
			cx__dims_text(x).s, cx__dims_text(idx).s, CX_MAX_RANK);
	if (cx__is_block(x->dtype) && (a->axis != 0 || x->rank < 2))
		return SHAPE_FAIL(
			c, "x is %s: only whole rows (axis 0) can be taken", cx_dtype_get(x->dtype)->name);
	y->dtype = cx__is_block(x->dtype) ? CX_F32 : x->dtype;
	for (int32_t i = 0; i < a->axis; i++) y->dim[y->rank++] = x->dim[i];
	for (int32_t i = 0; i < idx->rank; i++) y->dim[y->rank++] = idx->dim[i];
	for (int32_t i = (int32_t)a->axis + 1; i < x->rank; i++) y->dim[y->rank++] = x->dim[i];
	return CX_OK;
}

cx_status cx__shape_scatter(cx_shape_ctx *c)
{
	const cx_attr_scatter *a = c->attr;
	const cx_desc *dst = &c->in[0];
	int64_t dim[CX_MAX_RANK];
	if (cx__need_class(c, 0, a->add ? DT_FLOAT | DT_INT : DT_PLAIN) ||
		cx__need_rank(c, 0, 1, CX_MAX_RANK) || cx__need_dtype(c, 1, CX_I32) ||
		cx__need_rank(c, 1, 1, 1))
		return c->err->code;
	memcpy(dim, dst->dim, sizeof dim);
	dim[0] = c->in[1].dim[0];
	if (cx__need_dims(c, 2, dst->dtype, dst->rank, dim)) return c->err->code;
	c->out[0] = *dst;
	return CX_OK;
}

cx_status cx__shape_assign(cx_shape_ctx *c)
{
	if (cx__need_class(c, 0, DT_PLAIN) || cx__need_same(c, 1, 0)) return c->err->code;
	c->out[0] = c->in[0];
	return CX_OK;
}

cx_status cx__shape_concat(cx_shape_ctx *c)
{
	cx_attr_axis *a = c->attr;
	cx_desc *y = &c->out[0];
	if (cx__need_class(c, 0, DT_PLAIN) || cx__need_axis(c, &a->axis, c->in[0].rank))
		return c->err->code;
	*y = c->in[0];
	for (uint32_t j = 1; j < c->n_in; j++) {
		int64_t dim[CX_MAX_RANK];
		memcpy(dim, y->dim, sizeof dim);
		if (cx__need_rank(c, j, y->rank, y->rank)) return c->err->code;
		dim[a->axis] = c->in[j].dim[a->axis];
		if (cx__need_dims(c, j, y->dtype, y->rank, dim)) return c->err->code;
		y->dim[a->axis] += dim[a->axis]; /* at most 2^31 operands of 2^31 */
	}
	return CX_OK;
}

cx_status cx__shape_pad(cx_shape_ctx *c)
{
	const cx_attr_pad *a = c->attr;
	const cx_desc *x = &c->in[0];
	if (cx__need_class(c, 0, DT_PLAIN) || need_list(c, "before", &a->before, x->rank) ||
		need_list(c, "after", &a->after, x->rank))
		return c->err->code;
	c->out[0] = *x;
	for (int32_t i = 0; i < x->rank; i++) {
		int64_t before = a->before.v[i], after = a->after.v[i];
		if (before < 0 || after < 0 || before > CX_MAX_DIM || after > CX_MAX_DIM)
			return SHAPE_FAIL(
				c, "axis %d: before %lld, after %lld", i, (long long)before, (long long)after);
		c->out[0].dim[i] += before + after;
	}
	return CX_OK;
}

cx_status cx__shape_embed_sum(cx_shape_ctx *c)
{
	if (c->n_in % 2 != 0)
		return SHAPE_FAIL(c, "%u operands: each table needs its indices", c->n_in);
	if (cx__need_class(c, 0, DT_FLOAT) || cx__need_rank(c, 0, 2, 2) || cx__need_rank(c, 1, 1, 1))
		return c->err->code;
	for (uint32_t j = 0; j < c->n_in; j += 2)
		if (cx__need_rank(c, j, 2, 2) ||
			cx__need_dims(c, j, c->in[0].dtype, DIMS(c->in[j].dim[0], c->in[0].dim[1])) ||
			cx__need_dims(c, j + 1, CX_I32, DIMS(c->in[1].dim[0])))
			return c->err->code;
	c->out[0] = (cx_desc){c->in[0].dtype, 2, {c->in[1].dim[0], c->in[0].dim[1]}, {0}};
	return CX_OK;
}

/* ---- generators ------------------------------------------------------------------------------ */

cx_status cx__shape_random(cx_shape_ctx *c)
{
	const cx_attr_random *a = c->attr;
	if (cx__need_dims(c, 0, CX_I32, DIMS(4)) || out_dims(c, &a->dims)) return c->err->code;
	if (a->kind < 0 || a->kind > 2)
		return SHAPE_FAIL(c, "kind is %lld, must be 0, 1 or 2", (long long)a->kind);
	c->out[0].dtype = a->kind == 2 ? CX_I32 : CX_F32;
	return CX_OK;
}

cx_status cx__shape_iota(cx_shape_ctx *c)
{
	cx_attr_iota *a = c->attr;
	if (!cx__is_float(a->dtype) && !cx__is_int(a->dtype))
		return SHAPE_FAIL(
			c, "dtype is %s, not a float or integer type", cx_dtype_get(a->dtype)->name);
	if (out_dims(c, &a->dims)) return c->err->code;
	if (a->dims.n == 0) a->axis = 0; /* a scalar: the first value */
	else if (cx__need_axis(c, &a->axis, a->dims.n)) return c->err->code;
	c->out[0].dtype = a->dtype;
	return CX_OK;
}
