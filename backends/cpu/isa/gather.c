/* gather.c - rows by index: gather (also out of block formats), scatter, embed_sum; cast of block
 * formats. */
#include "backends/cpu/isa/kernels.h"
#include "backends/cpu/isa/lane.h"
#include "backends/cpu/isa/nd.h"

/* `n` elements of a block format from element `off` on (whole rows of `cols`) as f32. */
static void unblock(const cx_cpu_arg *x, int64_t off, int64_t n, float *y)
{
	const cx_dtype_info *info = cx_dtype_get(x->d.dtype);
	int64_t cols = x->d.dim[x->d.rank - 1], rows = cx__desc_elems(&x->d) / (cols ? cols : 1);
	if (x->d.dtype == CX_I8C) {
		for (int64_t i = 0; i < n; i += cols)
			cx_dequant_i8c_row(x->p, rows, cols, (off + i) / cols, y + i);
		return;
	}
	CX_ISA_NAME(cx__to_f32)
	(x->d.dtype, x->p + off / info->block_elems * info->block_bytes, y, (size_t)n);
}

CX_CPU_FN(cx_cast_row_block)
{
	const cx_cpu_arg *x = &c->in[0], *y = &c->out[0];
	int64_t cols = x->d.dim[x->d.rank - 1], rows = cols ? cx__desc_elems(&x->d) / cols : 0, lo, hi;
	float *buf = cx_f32(c->scratch) + t->rank * cx_pad16(cols);
	cx_cpu_share(t, rows, 1, &lo, &hi);
	for (int64_t r = lo; r < hi; r++) {
		void *yp = cx_at_off(y, r * cols);
		float *yb = cx_row_target(buf, yp, y->d.dtype, 1);
		unblock(x, r * cols, cols, yb);
		cx_row_store(yp, y->d.dtype, 1, yb, cols);
	}
}

/* What follows the axis is one contiguous run in x (kernels.c sees to it). */
CX_CPU_FN(cx_gather_row_any)
{
	const cx_attr_axis *at = c->attr;
	const cx_cpu_arg *x = &c->in[0], *idx = &c->in[1], *y = &c->out[0];
	int32_t axis = (int32_t)at->axis;
	bool block = cx_dtype_get(x->d.dtype)->cls == CX_CLASS_BLOCK;
	int64_t n_idx = cx__desc_elems(&idx->d), inner = 1, total = cx__desc_elems(&y->d), lo, hi;
	uint32_t size = cx_cpu_size(y->d.dtype);
	cx_desc lead = x->d;
	lead.rank = axis;
	for (int32_t k = axis + 1; k < x->d.rank; k++) inner *= x->d.dim[k];
	if (total == 0) return;
	cx_cpu_share(t, total / inner, 1, &lo, &hi);
	for (int64_t r = lo; r < hi; r++) {
		int64_t row = ((const int32_t *)idx->p)[cx_cpu_off(&idx->d, -1, r % n_idx)];
		char *yp = cx_at_off(y, r * inner);
		if (row < 0 || row >= x->d.dim[axis]) memset(yp, 0, (size_t)inner * size);
		else if (block) unblock(x, row * inner, inner, (float *)(void *)yp);
		else
			memcpy(yp, cx_at_off(x, cx_cpu_off(&lead, -1, r / n_idx) + row * x->d.stride[axis]),
				(size_t)inner * size);
	}
}

/* One dst row updated with part of a src row: dst += src, rounded to their type. */
static void add_row(const cx_cpu_arg *y, int64_t to, const cx_cpu_arg *x, int64_t from, int64_t n)
{
	cx_dtype dt = y->d.dtype;
	if (!cx_cpu_is_float(dt)) {
		for (int64_t j = 0; j < n; j++)
			cx_put_i64(y->p, dt, to + j,
				(int64_t)((uint64_t)cx_get_i64(y->p, dt, to + j) +
						  (uint64_t)cx_get_i64(x->p, dt, from + j)));
		return;
	}
	for (int64_t j = 0; j < n; j += 16) {
		size_t k = n - j < 16 ? (size_t)(n - j) : 16;
		v16 v = v16_add(v16_load_as(dt, y->p, (size_t)(to + j), k),
			v16_load_as(dt, x->p, (size_t)(from + j), k));
		v16_store_as(dt, y->p, (size_t)(to + j), v, k);
	}
}

/* Threads share the columns, so that rows are written in the order of i. */
CX_CPU_FN(cx_scatter_row_any)
{
	const cx_attr_scatter *at = c->attr;
	const cx_cpu_arg *y = &c->out[0], *idx = &c->in[1], *src = &c->in[2];
	int64_t n = idx->d.dim[0], inner = 1, lo, hi;
	uint32_t size = cx_cpu_size(y->d.dtype);
	for (int32_t k = 1; k < y->d.rank; k++) inner *= y->d.dim[k];
	cx_cpu_share(t, inner, 64, &lo, &hi);
	for (int64_t i = 0; i < n && lo < hi; i++) {
		int64_t row = ((const int32_t *)idx->p)[i * idx->d.stride[0]];
		int64_t to = row * inner + lo, from = i * src->d.stride[0] + lo;
		if (row < 0 || row >= y->d.dim[0]) continue;
		if (at->add) add_row(y, to, src, from, hi - lo);
		else memcpy(cx_at_off(y, to), cx_at_off(src, from), (size_t)(hi - lo) * size);
	}
}

CX_CPU_FN(cx_embed_sum_row_f32)
{
	const cx_cpu_arg *y = &c->out[0];
	int64_t n = y->d.dim[1], lo, hi, pad = cx_pad16(n);
	float *buf = cx_f32(c->scratch) + t->rank * 2 * pad;
	cx_cpu_share(t, y->d.dim[0], 1, &lo, &hi);
	for (int64_t e = lo; e < hi; e++) {
		void *yp = cx_at_off(y, e * n);
		float *sum = cx_row_target(buf, yp, y->d.dtype, 1);
		memset(sum, 0, (size_t)n * sizeof *sum);
		for (uint32_t i = 0; i + 1 < c->n_in; i += 2) {
			const cx_cpu_arg *table = &c->in[i], *idx = &c->in[i + 1];
			int64_t row = ((const int32_t *)idx->p)[e * idx->d.stride[0]];
			const float *x;
			if (row < 0 || row >= table->d.dim[0]) continue;
			x = cx_row_load(buf + pad, cx_at_off(table, row * table->d.stride[0]), table->d.dtype,
				table->d.stride[1], n);
			for (int64_t j = 0; j < n; j += 16) {
				size_t k = n - j < 16 ? (size_t)(n - j) : 16;
				v16_store_n(sum + j, v16_add(v16_load_n(sum + j, k), v16_load_n(x + j, k)), k);
			}
		}
		cx_row_store(yp, y->d.dtype, 1, sum, n);
	}
}
