/* grad_slice.c - the gradient of a tensor that was cut into slices.
 *
 * In: the slices' gradients.   Out: a tensor of the whole's dims, zeros where no slice was.
 *
 * Slices that differ along one axis alone (q, k, v of one product; gates; the steps of a sequence)
 * are put side by side by one concat, in order; overlapping ones take several rounds. Any other
 * slice is padded. */
#include "graph/grad.h"

#include <string.h>

/* step - 1 zeros between the elements of an axis. */
static cx_tensor stretch(cx_grad_ctx *c, cx_tensor t, cx_desc *d, int32_t axis, int64_t step)
{
	cx_attr_pad a = cx_attr_pad_default();
	int64_t n = d->dim[axis], before = 1, after = 1;
	if (n <= 1 || step == 1) return t;
	for (int32_t i = 0; i < axis; i++) before *= d->dim[i];
	for (int32_t i = axis + 1; i < d->rank; i++) after *= d->dim[i];
	a.before = cx_list_of(4, 0, 0, 0, 0);
	a.after = a.before;
	a.after.v[2] = step - 1;
	t = cx_pad(c->g, cx__grad_reshape(c, t, 4, (const int64_t[]){before, n, 1, after}), &a);
	t = cx__grad_reshape(c, t, 3, (const int64_t[]){before, n * step, after});
	d->dim[axis] = (n - 1) * step + 1;
	t = cx__grad_cut(c, t, 1, 0, d->dim[axis]);
	return cx__grad_reshape(c, t, d->rank, d->dim);
}

static cx_tensor padded(cx_grad_ctx *c, const cx_desc *x, const cx_grad_piece *p)
{
	const cx_attr_slice *a = p->attr;
	cx_desc d = *cx__grad_desc(c, p->grad);
	cx_attr_pad pad = cx_attr_pad_default();
	cx_tensor t = p->grad;
	bool all = true;
	if (cx__desc_elems(&d) == 0) return CX_NONE;
	pad.before.n = pad.after.n = x->rank;
	for (int32_t i = 0; i < x->rank; i++) {
		t = stretch(c, t, &d, i, a->step.v[i]);
		pad.before.v[i] = a->begin.v[i];
		pad.after.v[i] = x->dim[i] - a->begin.v[i] - d.dim[i];
		all &= d.dim[i] == x->dim[i];
	}
	return all ? t : cx_pad(c->g, t, &pad);
}

/* The one axis along which the slice is less than the whole, without steps; -1 if there is none
 * such. */
static int32_t cut_axis(const cx_desc *x, const cx_attr_slice *a)
{
	int32_t axis = -1;
	for (int32_t i = 0; i < x->rank; i++) {
		if (a->size.v[i] == x->dim[i]) continue;
		if (axis >= 0 || (a->step.v[i] != 1 && a->size.v[i] > 1)) return -1;
		axis = i;
	}
	return axis >= 0 && a->size.v[axis] > 0 ? axis : -1;
}

static void sort(cx_grad_piece *p, uint32_t n, int32_t axis)
{
	for (uint32_t i = 1; i < n; i++) {
		cx_grad_piece t = p[i];
		uint32_t j = i;
		for (; j > 0 && p[j - 1].attr->begin.v[axis] > t.attr->begin.v[axis]; j--) p[j] = p[j - 1];
		p[j] = t;
	}
}

static cx_tensor gap(cx_grad_ctx *c, cx_desc x, int32_t axis, int64_t size)
{
	x.dim[axis] = size;
	return cx__grad_fill(c, x.dtype, x.rank, x.dim, 0);
}

/* Side by side, zeros between; what overlaps an earlier one stays in p. part: room for 2 n + 1. */
static cx_tensor join(
	cx_grad_ctx *c, const cx_desc *x, int32_t axis, cx_grad_piece *p, uint32_t *n, cx_tensor *part)
{
	cx_attr_axis along = {.axis = axis};
	uint32_t left = 0, n_part = 0;
	int64_t at = 0;
	sort(p, *n, axis);
	for (uint32_t i = 0; i < *n; i++) {
		const cx_attr_slice *a = p[i].attr;
		if (a->begin.v[axis] < at) {
			p[left++] = p[i];
			continue;
		}
		if (a->begin.v[axis] > at) part[n_part++] = gap(c, *x, axis, a->begin.v[axis] - at);
		part[n_part++] = p[i].grad;
		at = a->begin.v[axis] + a->size.v[axis];
	}
	if (at < x->dim[axis]) part[n_part++] = gap(c, *x, axis, x->dim[axis] - at);
	*n = left;
	return cx_concat(c->g, part, n_part, &along);
}

cx_tensor cx__grad_join(cx_graph *g, uint32_t id, cx_grad_piece *p, uint32_t *n)
{
	cx_grad_ctx c = {.g = g};
	cx_desc x = g->nodes[id].desc;
	int32_t axis = cut_axis(&x, p[0].attr);
	uint32_t same = 1;
	cx_tensor t, *part = NULL;
	for (; same < *n && axis >= 0 && cut_axis(&x, p[same].attr) == axis; same++) {
	}
	if (same > 1 && same == *n) {
		part = cx_malloc(&g->arena.alloc, (2 * (size_t)*n + 1) * sizeof *part);
		if (!part) {
			CX_FAIL(&g->first_error, CX_ERR_MEMORY, "gradient: out of memory");
			return CX_NONE;
		}
		t = join(&c, &x, axis, p, n, part);
		cx_free(&g->arena.alloc, part, (2 * (size_t)same + 1) * sizeof *part);
		return t;
	}
	t = padded(&c, &x, &p[0]);
	memmove(p, p + 1, (*n - 1) * sizeof *p);
	--*n;
	return t;
}
