/* move.c - ops that copy elements unchanged: copy, assign, views made dense, concat, pad. */
#include "backends/cpu/isa/lane.h"
#include "backends/cpu/isa/nd.h"

/* y = the view of x that d describes; y dense or of d's own dims. */
static void copy_view(const cx_cpu_team *t, const cx_cpu_arg *y, const cx_desc *d, const char *from)
{
	cx_desc to = *d;
	cx_nd nd;
	if ((const char *)y->p == from) return; /* a barrier that took over its operand's bytes */
	if (cx__desc_is_dense(&y->d)) cx__desc_dense(&to);
	else memcpy(to.stride, y->d.stride, sizeof to.stride);
	if (cx_nd_init(&nd, d->rank, d->dim, to.stride, d->stride))
		cx_nd_copy(&nd, cx_cpu_size(y->d.dtype), y->p, from, t);
}

CX_CPU_FN(cx_copy_line_any)
{
	copy_view(t, &c->out[0], &c->in[0].d, c->in[0].p);
}
CX_CPU_FN(cx_assign_line_any)
{
	copy_view(t, &c->out[0], &c->in[1].d, c->in[1].p);
}

/* permute, slice, broadcast as steps of their own: the view that they stand for, made dense. */
CX_CPU_FN(cx_view_line_any)
{
	const cx_cpu_arg *x = &c->in[0];
	cx_desc d = c->out[0].d;
	int64_t off = 0;
	for (int32_t i = 0; i < d.rank; i++) {
		if (c->op == CX_OP_permute) {
			d.stride[i] = x->d.stride[((const cx_attr_perm *)c->attr)->perm.v[i]];
		} else if (c->op == CX_OP_slice) {
			const cx_attr_slice *at = c->attr;
			off += at->begin.v[i] * x->d.stride[i];
			d.stride[i] = x->d.stride[i] * (at->step.n ? at->step.v[i] : 1);
		} else {
			int32_t j = i - (d.rank - x->d.rank);
			d.stride[i] = j < 0 || x->d.dim[j] == 1 ? 0 : x->d.stride[j];
		}
	}
	copy_view(t, &c->out[0], &d, cx_at_off(x, off));
}

CX_CPU_FN(cx_concat_line_any)
{
	const cx_attr_axis *at = c->attr;
	const cx_cpu_arg *y = &c->out[0];
	int64_t done = 0;
	for (uint32_t i = 0; i < c->n_in; i++) {
		const cx_cpu_arg *x = &c->in[i];
		cx_nd nd;
		if (cx_nd_init(&nd, x->d.rank, x->d.dim, y->d.stride, x->d.stride))
			cx_nd_copy(
				&nd, cx_cpu_size(y->d.dtype), cx_at_off(y, done * y->d.stride[at->axis]), x->p, t);
		done += x->d.dim[at->axis];
	}
}

/* The fill value in the dtype of p, n times. */
static void fill(char *p, cx_dtype dtype, float value, int64_t n)
{
	char e[8];
	uint32_t size = cx_cpu_size(dtype);
	if (n <= 0) return;
	if (cx_cpu_is_float(dtype)) cx_put_f32(e, dtype, 0, value);
	else if (dtype == CX_BOOL) e[0] = value != 0.0f;
	else cx_put_i64(e, dtype, 0, cx_saturate_f32(dtype, value));
	cx_nd_line(p, e, 0, n, size);
}

/* Row by row of the result: all fill, or fill, a row of x, fill. */
CX_CPU_FN(cx_pad_row_any)
{
	const cx_attr_pad *at = c->attr;
	const cx_cpu_arg *x = &c->in[0], *y = &c->out[0];
	int32_t rank = y->d.rank, last = rank - 1;
	int64_t n = rank ? y->d.dim[last] : 1, total = cx__desc_elems(&y->d), lo, hi;
	uint32_t size = cx_cpu_size(y->d.dtype);
	if (total == 0) return;
	cx_cpu_share(t, total / n, 1, &lo, &hi);
	for (int64_t r = lo; r < hi; r++) {
		char *yp = cx_at_off(y, r * n);
		int64_t rest = r, off = 0, nx = rank ? x->d.dim[last] : 1;
		bool inside = true;
		for (int32_t i = last - 1; i >= 0; i--) {
			int64_t j = rest % y->d.dim[i] - at->before.v[i];
			rest /= y->d.dim[i];
			inside &= j >= 0 && j < x->d.dim[i];
			off += j * x->d.stride[i];
		}
		if (!inside) {
			fill(yp, y->d.dtype, at->value, n);
			continue;
		}
		int64_t before = rank ? at->before.v[last] : 0;
		fill(yp, y->d.dtype, at->value, before);
		if (nx)
			cx_nd_line(
				yp + before * size, cx_at_off(x, off), rank ? x->d.stride[last] : 1, nx, size);
		fill(yp + (before + nx) * size, y->d.dtype, at->value, n - before - nx);
	}
}
