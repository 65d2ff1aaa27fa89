/* move.c - ops that move data: views that had to become copies, copy, gather, scatter, concat, pad,
 * embed_sum. */
#include "backends/ref/ref.h"

/* y = x, both of the same dims up to broadcasting. */
static void move_all(const cx__ref_arg *y, const cx__ref_arg *x)
{
	cx__ref_walk w;
	if (!cx__walk_init(&w, y->d.rank, y->d.dim)) return;
	cx__walk_add(&w, &y->d);
	cx__walk_add(&w, &x->d);
	do cx__elem_move(y, w.off[0], x, w.off[1]);
	while (cx__walk_next(&w));
}

void cx__ref_reshape(const cx__ref_call *c)
{
	const cx__ref_arg *x = &c->in[0], *y = &c->out[0];
	int64_t n = cx__desc_elems(&y->d);
	for (int64_t i = 0; i < n; i++)
		cx__elem_move(y, cx__elem_offset(&y->d, i), x, cx__elem_offset(&x->d, i));
}

void cx__ref_permute(const cx__ref_call *c)
{
	const cx_attr_perm *at = c->attr;
	cx__ref_arg x = c->in[0];
	for (int32_t i = 0; i < x.d.rank; i++) {
		x.d.dim[i] = c->in[0].d.dim[at->perm.v[i]];
		x.d.stride[i] = c->in[0].d.stride[at->perm.v[i]];
	}
	move_all(&c->out[0], &x);
}

void cx__ref_slice(const cx__ref_call *c)
{
	const cx_attr_slice *at = c->attr;
	const cx__ref_arg *y = &c->out[0];
	cx__ref_walk w;
	cx_desc d = c->in[0].d;
	int64_t first = 0;
	for (int32_t i = 0; i < d.rank; i++) {
		first += at->begin.v[i] * d.stride[i];
		d.dim[i] = at->size.v[i];
		if (at->step.n) d.stride[i] *= at->step.v[i];
	}
	if (!cx__walk_init(&w, y->d.rank, y->d.dim)) return;
	cx__walk_add(&w, &y->d);
	cx__walk_add(&w, &d);
	do cx__elem_move(y, w.off[0], &c->in[0], first + w.off[1]);
	while (cx__walk_next(&w));
}

void cx__ref_broadcast(const cx__ref_call *c)
{
	move_all(&c->out[0], &c->in[0]);
}
void cx__ref_copy(const cx__ref_call *c)
{
	move_all(&c->out[0], &c->in[0]);
}

void cx__ref_barrier(const cx__ref_call *c)
{
	move_all(&c->out[0], &c->in[0]);
}
void cx__ref_assign(const cx__ref_call *c)
{
	move_all(&c->out[0], &c->in[1]);
}

/* Row-major index of y: the axes before `axis` and after it are x's, those between are idx's. */
void cx__ref_gather(const cx__ref_call *c)
{
	const cx_attr_axis *at = c->attr;
	const cx__ref_arg *x = &c->in[0], *idx = &c->in[1], *y = &c->out[0];
	int64_t n = cx__desc_elems(&y->d), n_idx = cx__desc_elems(&idx->d), inner = 1;
	for (int32_t k = (int32_t)at->axis + 1; k < x->d.rank; k++) inner *= x->d.dim[k];
	for (int64_t i = 0; i < n; i++) {
		int64_t row = cx__elem_int(idx, cx__elem_offset(&idx->d, i / inner % n_idx));
		int64_t to = cx__elem_offset(&y->d, i), outer = i / inner / n_idx;
		if (row < 0 || row >= x->d.dim[at->axis]) cx__elem_put_int(y, to, 0);
		else
			cx__elem_move(y, to, x,
				cx__elem_offset(&x->d, (outer * x->d.dim[at->axis] + row) * inner + i % inner));
	}
}

/* dst (output 0) holds the old content already. */
void cx__ref_scatter(const cx__ref_call *c)
{
	const cx_attr_scatter *at = c->attr;
	const cx__ref_arg *y = &c->out[0], *idx = &c->in[1], *src = &c->in[2];
	int64_t n = idx->d.dim[0], inner = 1;
	for (int32_t k = 1; k < y->d.rank; k++) inner *= y->d.dim[k];
	for (int64_t i = 0; i < n; i++) {
		int64_t row = cx__elem_int(idx, i * idx->d.stride[0]);
		if (row < 0 || row >= y->d.dim[0]) continue;
		for (int64_t j = 0; j < inner; j++) {
			int64_t from = cx__elem_offset(&src->d, i * inner + j),
					to = cx__elem_offset(&y->d, row * inner + j);
			if (!at->add) cx__elem_move(y, to, src, from);
			else if (cx__ref_is_float(y->d.dtype))
				cx__elem_put(y, to, cx__elem_get(y, to) + cx__elem_get(src, from));
			else
				cx__elem_put_int(y, to, (cx__ref_int)cx__elem_int(y, to) + cx__elem_int(src, from));
		}
	}
}

/* Writes x into the part of y that starts at `first` elements. */
static void move_into(const cx__ref_arg *y, int64_t first, const cx__ref_arg *x)
{
	cx__ref_walk w;
	cx_desc part = x->d;
	for (int32_t i = 0; i < part.rank; i++) part.stride[i] = y->d.stride[i];
	if (!cx__walk_init(&w, x->d.rank, x->d.dim)) return;
	cx__walk_add(&w, &part);
	cx__walk_add(&w, &x->d);
	do cx__elem_move(y, first + w.off[0], x, w.off[1]);
	while (cx__walk_next(&w));
}

void cx__ref_concat(const cx__ref_call *c)
{
	const cx_attr_axis *at = c->attr;
	int64_t done = 0;
	for (uint32_t i = 0; i < c->n_in; i++) {
		move_into(&c->out[0], done * c->out[0].d.stride[at->axis], &c->in[i]);
		done += c->in[i].d.dim[at->axis];
	}
}

void cx__ref_pad(const cx__ref_call *c)
{
	const cx_attr_pad *at = c->attr;
	const cx__ref_arg *y = &c->out[0];
	int64_t first = 0;
	cx__ref_walk w;
	if (!cx__walk_init(&w, y->d.rank, y->d.dim)) return;
	cx__walk_add(&w, &y->d);
	do cx__elem_put(y, w.off[0], at->value);
	while (cx__walk_next(&w));
	for (int32_t i = 0; i < y->d.rank; i++) first += at->before.v[i] * y->d.stride[i];
	move_into(y, first, &c->in[0]);
}

/* Rounded after every addition, as the gathers and adds that the planner replaces by it would be.
 */
void cx__ref_embed_sum(const cx__ref_call *c)
{
	const cx__ref_arg *y = &c->out[0];
	for (int64_t e = 0; e < y->d.dim[0]; e++)
		for (int64_t j = 0; j < y->d.dim[1]; j++) {
			double sum = 0;
			for (uint32_t i = 0; i + 1 < c->n_in; i += 2) {
				const cx__ref_arg *table = &c->in[i], *idx = &c->in[i + 1];
				int64_t row = cx__elem_int(idx, e * idx->d.stride[0]);
				double v = 0;
				if (row >= 0 && row < table->d.dim[0])
					v = cx__elem_get(table, row * table->d.stride[0] + j * table->d.stride[1]);
				sum = i == 0 ? v : cx__elem_round(y->d.dtype, (float)(sum + v));
			}
			cx__elem_put(y, e * y->d.stride[0] + j * y->d.stride[1], sum);
		}
}
