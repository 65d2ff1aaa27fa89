/* product.c - matmul and linear: addresses into the calls that product.h prepared, and the norm in
 * front. */
#include "backends/cpu/product.h"
#include "backends/cpu/isa/lane.h"
#include "backends/cpu/isa/map_ops.h"
#include "backends/cpu/isa/norm.h"

/* Products of a batch are independent: many are dealt out to the threads whole, few are shared one
 * after the other. */
CX_CPU_FN(cx_matmul_tile_f32)
{
	const cx_cpu_arg *a = &c->in[0], *b = &c->in[1], *y = &c->out[0];
	const cx_dtype_info *info = cx_dtype_get(b->d.dtype);
	cx_cpu_batch batch;
	cx_cpu_linear l;
	bool whole;
	cx__cpu_matmul_shape(c->attr, &c->desc_in[0], &c->desc_out[0], &l, &batch);
	whole = batch.n >= t->n || t->n == 1;
	for (int64_t i = whole ? t->rank : 0; i < batch.n; i += whole ? t->n : 1) {
		int64_t rest = i, ao = 0, bo = 0;
		for (int32_t k = batch.rank - 1; k >= 0; k--) {
			ao += rest % batch.dim[k] * batch.a[k];
			bo += rest % batch.dim[k] * batch.b[k];
			rest /= batch.dim[k];
		}
		l.a = cx_at_off(a, ao);
		l.w[0].w = b->p + bo / info->block_elems * info->block_bytes;
		if (b->d.dtype == CX_I8C)
			l.w[0].scales = b->p + cx_i8c_scale_off(cx__desc_elems(&b->d) / (l.k ? l.k : 1), l.k) +
							(l.k ? bo / l.k * 4 : 0);
		l.w[0].y = cx_at_off(y, i * l.m * l.w[0].n);
		if (whole) {
			char *own = c->scratch + t->rank * cx__cpu_product_scratch1(c->isa, &l);
			cx__cpu_linear_run(c->isa, &l, own, 0, 1, NULL);
		} else {
			cx__cpu_linear_run(c->isa, &l, c->scratch, t->rank, t->n, t->pool);
			cx__pool_barrier(t->pool);
		}
	}
}

/* The norm of row m of x, for gemm.h. */
typedef struct normed {
	cx_norm norm;
	const cx_cpu_arg *x;
	int64_t stride, k_stride, k;
} normed;

static void norm_of_row(const void *ctx, int64_t m, float *out)
{
	const normed *n = ctx;
	const float *x =
		cx_row_load(out, cx_at_off(n->x, m * n->stride), n->x->d.dtype, n->k_stride, n->k);
	cx_norm_row(out, x, n->k, &n->norm);
	if (n->x->d.dtype == CX_F32) return;
	for (int64_t i = 0; i < n->k; i += 16) { /* as a norm of its own would leave it */
		size_t w = n->k - i < 16 ? (size_t)(n->k - i) : 16;
		v16_store_n(out + i, cx_round_as(n->x->d.dtype, v16_load_n(out + i, w)), w);
	}
}

CX_CPU_FN(cx_linear_tile_f32)
{
	const cx_attr_linear *at = c->attr;
	const cx_cpu_arg *w = c->in + 1 + at->norm_in, *bias = w + at->n_w;
	cx_cpu_linear l;
	normed n;
	cx__cpu_linear_shape(at, c->desc_in, c->n_in, c->desc_out, &l);
	l.a = c->in[0].p;
	for (int i = 0; i < l.n_w; i++) {
		l.w[i].w = w[i].p;
		if (w[i].d.dtype == CX_I8C) l.w[i].scales = w[i].p + cx_i8c_scale_off(l.w[i].n, l.k);
		l.w[i].y = at->glu ? c->out[0].p : c->out[i].p;
		l.w[i].bias = at->bias ? bias[i].p : NULL;
	}
	if (at->act != CX_OP_input) l.act = cx_tile_act((cx_op)at->act);
	if (at->residual) l.residual = c->in[c->n_in - 1].p;
	if (at->norm) {
		n = (normed){{at->norm == 2 ? CX_NORM_LAYER : CX_NORM_RMS, at->eps, at->plus_one, NULL,
						 NULL, CX_F32, CX_F32},
			&c->in[0], l.a_stride, l.a_k_stride, l.k};
		if (at->norm_in > 0) {
			n.norm.w = c->in[1].p;
			n.norm.w_dtype = c->in[1].d.dtype;
		}
		if (at->norm_in > 1) {
			n.norm.b = c->in[2].p;
			n.norm.b_dtype = c->in[2].d.dtype;
		}
		l.row = norm_of_row;
		l.row_ctx = &n;
	}
	cx__cpu_linear_run(c->isa, &l, c->scratch, t->rank, t->n, t->pool);
}
