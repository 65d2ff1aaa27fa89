/* tile.c - matmul and rotary embedding. */
#include "backends/ref/ref.h"

#include "graph/quant.h"

#include <math.h>

/* Sum over k in index order. */
static double dot(const double *a, const double *b, int64_t n)
{
	double sum = 0;
	for (int64_t k = 0; k < n; k++) sum += a[k] * b[k];
	return sum;
}

/* Row i of a block-format matrix [.., n, k], `off` elements into it; blocks are dequantised one
 * after the other. */
static void block_row(const cx__ref_arg *a, int64_t off, int64_t n, double *dst)
{
	const cx_dtype_info *info = cx_dtype_get(a->d.dtype);
	float v[256];
	if (a->d.dtype == CX_I8C) { /* not in blocks: element by element, each with its row's scale */
		cx__elem_row(a, off, 1, n, dst);
		return;
	}
	for (int64_t j = 0; j < n; j += info->block_elems) {
		cx_dequant_row(a->d.dtype, a->p + (off + j) / info->block_elems * info->block_bytes, v,
			info->block_elems);
		for (int64_t i = 0; i < info->block_elems; i++) dst[j + i] = v[i];
	}
}

/* Activations in steps of s as integers (a NaN stays one), weights as stored: ops.def, matmul. */
static void quantise(double *row, int64_t n, float s)
{
	const float inverse = 1.0f / s;
	for (int64_t k = 0; k < n; k++) {
		float q = (float)row[k] * inverse;
		if (q == q) row[k] = rint(q < -127.0f ? -127.0 : q > 127.0f ? 127.0 : (double)q);
	}
}

static void int8_row(const cx__ref_arg *b, int64_t off, int64_t n, double *dst)
{
	for (int64_t k = 0; k < n; k++) dst[k] = ((const int8_t *)b->p)[off + k];
}

/* The sum in real units: every step in f32. */
static double dequantise(const cx__ref_arg *b, int64_t off, int64_t k, float s, double sum)
{
	float scale = k ? s * cx_i8c_scale(b->p, cx__desc_elems(&b->d) / k, k, off / k) : 0.0f;
	return (float)sum * scale;
}

/* One product of the batch: c[m,n] with the strides of each operand's last two axes. */
static void product(
	const cx__ref_call *c, const int64_t off[3], const int64_t dims[3], const int64_t strides[3][2])
{
	const cx__ref_arg *a = &c->in[0], *b = &c->in[1];
	bool block = cx_dtype_get(b->d.dtype)->cls == CX_CLASS_BLOCK;
	const float s = ((const cx_attr_matmul *)c->attr)->act_scale;
	int64_t k = dims[2];
	double *row = c->scratch, *cols = row + k;
	for (int64_t n0 = 0; n0 < dims[1]; n0 += CX__REF_COLS) {
		int64_t n_cols = dims[1] - n0 < CX__REF_COLS ? dims[1] - n0 : CX__REF_COLS;
		for (int64_t j = 0; j < n_cols; j++) {
			int64_t at = off[2] + (n0 + j) * strides[2][1];
			if (s > 0.0f) int8_row(b, at, k, cols + j * k);
			else if (block) block_row(b, at, k, cols + j * k);
			else cx__elem_row(b, at, strides[2][0], k, cols + j * k);
		}
		for (int64_t m = 0; m < dims[0]; m++) {
			cx__elem_row(a, off[1] + m * strides[1][0], strides[1][1], k, row);
			if (s > 0.0f) quantise(row, k, s);
			for (int64_t j = 0; j < n_cols; j++) {
				double y = dot(row, cols + j * k, k);
				if (s > 0.0f) y = dequantise(b, off[2] + (n0 + j) * strides[2][1], k, s, y);
				cx__elem_put(&c->out[0], off[0] + m * strides[0][0] + (n0 + j) * strides[0][1], y);
			}
		}
	}
}

void cx__ref_matmul(const cx__ref_call *c)
{
	const cx_attr_matmul *at = c->attr;
	const cx_desc *a = &c->in[0].d, *b = &c->in[1].d, *y = &c->out[0].d;
	int32_t ra = a->rank, rb = b->rank, ry = y->rank;
	int64_t dims[3] = {y->dim[ry - 2], y->dim[ry - 1], a->dim[at->trans_a ? ra - 2 : ra - 1]};
	int64_t strides[3][2] = {
		{y->stride[ry - 2], y->stride[ry - 1]},
		{a->stride[at->trans_a ? ra - 1 : ra - 2],
			a->stride[at->trans_a ? ra - 2 : ra - 1]}, /* m, k */
		{b->stride[at->trans_b ? rb - 1 : rb - 2],
			b->stride[at->trans_b ? rb - 2 : rb - 1]}, /* k, n */
	};
	cx_desc lead[3] = {*y, *a, *b};
	cx__ref_walk w;
	for (int i = 0; i < 3; i++) lead[i].rank -= 2;
	if (!cx__walk_init(&w, ry - 2, y->dim)) return;
	for (int i = 0; i < 3; i++) cx__walk_add(&w, &lead[i]);
	do product(c, w.off, dims, strides);
	while (cx__walk_next(&w));
}

/* ---- rope ---- */

/* Frequency and angle are f32 numbers (spec/llm.md 1.4: "angles in f32"), sine and cosine of that
 * angle exact. */
static void rope_angle(
	const cx__ref_call *c, const cx_attr_rope *at, int64_t pos, int64_t j, int64_t r, double cs[2])
{
	if (cx__ref_has(c, 3)) {
		const cx__ref_arg *cosine = &c->in[3], *sine = &c->in[4];
		bool inside = pos >= 0 && pos < cosine->d.dim[0];
		cs[0] =
			inside ? cx__elem_get(cosine, pos * cosine->d.stride[0] + j * cosine->d.stride[1]) : 0;
		cs[1] = inside ? cx__elem_get(sine, pos * sine->d.stride[0] + j * sine->d.stride[1]) : 0;
	} else {
		float freq = cx__ref_has(c, 2) ? (float)cx__elem_get(&c->in[2], j * c->in[2].d.stride[0])
									   : (float)pow(at->theta, -2.0 * (double)j / (double)r);
		float angle = (float)pos * freq;
		cs[0] = cos(angle);
		cs[1] = sin(angle);
	}
	cs[0] *= at->amplitude;
	cs[1] *= at->amplitude;
}

void cx__ref_rope(const cx__ref_call *c)
{
	const cx_attr_rope *at = c->attr;
	const cx__ref_arg *x = &c->in[0], *y = &c->out[0], *pos = &c->in[1];
	int32_t rank = x->d.rank;
	int64_t hd = x->d.dim[rank - 1], heads = x->d.dim[rank - 2], r = at->n_rot ? at->n_rot : hd;
	int64_t xs = x->d.stride[rank - 1], ys = y->d.stride[rank - 1], token = 0;
	cx__ref_walk w;
	if (!cx__walk_init(&w, rank - 1, x->d.dim)) return;
	cx_desc xd = x->d, yd = y->d;
	xd.rank = yd.rank = rank - 1;
	cx__walk_add(&w, &xd);
	cx__walk_add(&w, &yd);
	do {
		int64_t p = cx__elem_int(pos, cx__elem_offset(&pos->d, token++ / heads));
		for (int64_t j = 0; j < r / 2; j++) {
			int64_t lo = at->pairs ? 2 * j : j, hi = at->pairs ? 2 * j + 1 : j + r / 2;
			double a = cx__elem_get(x, w.off[0] + lo * xs), b = cx__elem_get(x, w.off[0] + hi * xs),
				   cs[2];
			rope_angle(c, at, p, j, r, cs);
			cx__elem_put(y, w.off[1] + lo * ys, a * cs[0] - b * cs[1]);
			cx__elem_put(y, w.off[1] + hi * ys, b * cs[0] + a * cs[1]);
		}
		for (int64_t j = r; j < hd; j++) cx__elem_move(y, w.off[1] + j * ys, x, w.off[0] + j * xs);
	} while (cx__walk_next(&w));
}
