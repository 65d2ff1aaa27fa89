/* product.c - shapes of matmul and linear steps. See product.h. */
#include "backends/cpu/product.h"

#include <string.h>

bool cx__cpu_rows(const cx_desc *d, int64_t *n_rows, int64_t *stride)
{
	int64_t n = 1, s = 0;
	for (int32_t i = d->rank - 2; i >= 0; i--) {
		if (d->dim[i] == 1) continue;
		if (n == 1) s = d->stride[i];
		else if (d->stride[i] != n * s) {
			if (cx__desc_elems(d) != 0) return false;
		}
		n *= d->dim[i];
	}
	*n_rows = n;
	*stride = s;
	return true;
}

/* Weights [n,k] with strides; block formats are whole rows. */
static void weight(
	cx_cpu_weight *w, const cx_desc *d, int64_t n, int64_t k, int64_t n_stride, int64_t k_stride)
{
	const cx_dtype_info *info = cx_dtype_get(d->dtype);
	w->dtype = d->dtype;
	w->n = n;
	w->n_stride = n_stride;
	w->k_stride = k_stride;
	w->row_bytes = k / info->block_elems * info->block_bytes;
}

bool cx__cpu_linear_shape(const cx_attr_linear *at, const cx_desc *in, uint32_t n_in,
	const cx_desc *out, cx_cpu_linear *l)
{
	const cx_desc *x = &in[0], *w = in + 1 + at->norm_in, *bias = w + at->n_w, *res = &in[n_in - 1];
	int64_t rows;
	memset(l, 0, sizeof *l);
	if (!cx__cpu_rows(x, &l->m, &l->a_stride)) return false;
	l->k = x->dim[x->rank - 1];
	l->a_dtype = x->dtype;
	l->a_k_stride = x->stride[x->rank - 1];
	l->n_w = (int)at->n_w;
	l->glu = at->glu;
	l->act_scale = at->act_scale;
	for (int64_t i = 0; i < at->norm_in; i++)
		if (in[1 + i].dim[0] > 1 && in[1 + i].stride[0] != 1) return false;
	for (int i = 0; i < l->n_w; i++) {
		const cx_desc *y = &out[at->glu ? 0 : i];
		weight(&l->w[i], &w[i], w[i].dim[0], l->k, w[i].stride[0], w[i].stride[1]);
		l->w[i].y_dtype = y->dtype;
		l->w[i].y_stride = w[i].dim[0];
		if (!at->bias || bias[i].dtype == CX_DTYPE_COUNT) continue;
		l->w[i].bias_dtype = bias[i].dtype;
		if (bias[i].dim[0] > 1 && bias[i].stride[0] != 1) return false;
	}
	if (!at->residual) return true;
	l->residual_dtype = res->dtype;
	if (res->dim[res->rank - 1] > 1 && res->stride[res->rank - 1] != 1) return false;
	return cx__cpu_rows(res, &rows, &l->residual_stride);
}

/* Leading axes of a and b against those of the result. */
static void lead_strides(const cx_desc *d, const cx_desc *y, int64_t *st)
{
	for (int32_t i = 0; i < y->rank - 2; i++) {
		int32_t j = i - (y->rank - d->rank);
		st[i] = j < 0 || d->dim[j] == 1 ? 0 : d->stride[j];
	}
}

bool cx__cpu_matmul_shape(const cx_attr_matmul *at, const cx_desc *in, const cx_desc *out,
	cx_cpu_linear *l, cx_cpu_batch *batch)
{
	const cx_desc *a = &in[0], *b = &in[1], *y = &out[0];
	int32_t ra = a->rank, rb = b->rank, am = at->trans_a ? ra - 1 : ra - 2,
			bn = at->trans_b ? rb - 2 : rb - 1;
	int64_t rows, stride;
	bool shared = true;
	memset(l, 0, sizeof *l);
	memset(batch, 0, sizeof *batch);
	l->m = a->dim[am];
	l->a_stride = a->stride[am];
	l->k = a->dim[at->trans_a ? ra - 2 : ra - 1];
	l->a_k_stride = a->stride[at->trans_a ? ra - 2 : ra - 1];
	l->a_dtype = a->dtype;
	l->act_scale = at->act_scale;
	l->n_w = 1;
	weight(&l->w[0], b, b->dim[bn], l->k, b->stride[bn], b->stride[at->trans_b ? rb - 1 : rb - 2]);
	l->w[0].y_dtype = y->dtype;
	l->w[0].y_stride = l->w[0].n;
	batch->n = 1;
	batch->rank = y->rank - 2;
	for (int32_t i = 0; i < batch->rank; i++) {
		batch->dim[i] = y->dim[i];
		batch->n *= y->dim[i];
	}
	lead_strides(a, y, batch->a);
	lead_strides(b, y, batch->b);
	for (int32_t i = 0; i < batch->rank; i++) shared &= batch->b[i] == 0;
	/* One matrix for the whole batch: its rows are rows of one product. */
	if (shared && batch->n > 1 && !at->trans_a && ra == y->rank &&
		cx__cpu_rows(a, &rows, &stride) && rows == batch->n * l->m) {
		l->m = rows;
		l->a_stride = stride;
		batch->n = 1;
		batch->rank = 0;
	}
	return true;
}

uint64_t cx__cpu_product_scratch1(const cx_cpu_isa *isa, const cx_cpu_linear *l)
{
	return (cx__cpu_linear_scratch(isa, l, 1) + 63) & ~(uint64_t)63;
}

uint64_t cx__cpu_product_scratch(
	const cx_cpu_isa *isa, const cx_cpu_linear *l, int64_t n_batch, uint32_t n_threads)
{
	uint64_t together = cx__cpu_linear_scratch(isa, l, n_threads),
			 alone = cx__cpu_product_scratch1(isa, l) * n_threads;
	if (n_batch <= 1) alone = cx__cpu_product_scratch1(isa, l);
	return together > alone ? together : alone;
}
