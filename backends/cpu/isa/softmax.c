/* softmax.c - softmax and log_softmax along one axis: a row at a time in f32, any strides.
 *
 * Scratch: two rows of f32 per thread. */
#include "backends/cpu/isa/lane.h"
#include "backends/cpu/isa/vmath.h"

/* y = scale * x, its maximum. */
static float scale_row(float *y, const float *x, float scale, int64_t n)
{
	v16 s = v16_set1(scale);
	for (int64_t i = 0; i < n; i += 16) {
		size_t k = n - i < 16 ? (size_t)(n - i) : 16;
		v16_store_n(y + i, v16_mul(v16_load_n(x + i, k), s), k);
	}
	return cx_max_f32(y, n);
}

/* The sum of exp(y - m); the terms go to y if keep. */
static float exp_row(float *y, float m, int64_t n, bool keep)
{
	v16 sum = v16_zero(), vm = v16_set1(m), e;
	int64_t i = 0;
	for (; i + 16 <= n; i += 16) {
		e = v16_exp(v16_sub(v16_load(y + i), vm));
		if (keep) v16_store(y + i, e);
		sum = v16_add(sum, e);
	}
	if (i < n) {
		float tail[16];
		size_t k = (size_t)(n - i);
		for (int j = 0; j < 16; j++) tail[j] = -INFINITY;
		memcpy(tail, y + i, k * sizeof *y);
		if (m == -INFINITY)
			for (size_t j = k; j < 16; j++) tail[j] = 0.0f; /* -inf + inf: any term makes it NaN */
		e = v16_exp(v16_sub(v16_load(tail), vm));
		if (keep) v16_store_n(y + i, e, k);
		v16_store(tail, e);
		for (size_t j = k; j < 16; j++) tail[j] = 0.0f;
		sum = v16_add(sum, v16_load(tail));
	}
	return v16_sum(sum);
}

static void softmax_row(float *y, const float *x, float scale, int64_t n)
{
	float m = scale_row(y, x, scale, n);
	v16 sum = v16_set1(exp_row(y, m, n, true));
	for (int64_t i = 0; i < n; i += 16) {
		size_t k = n - i < 16 ? (size_t)(n - i) : 16;
		v16_store_n(y + i, v16_div(v16_load_n(y + i, k), sum), k);
	}
}

static void log_softmax_row(float *y, const float *x, float scale, int64_t n)
{
	float m = scale_row(y, x, scale, n), l[16];
	v16 vm = v16_set1(m), ls;
	v16_store(l, v16_log(v16_set1(exp_row(y, m, n, false))));
	ls = v16_set1(l[0]);
	for (int64_t i = 0; i < n; i += 16) {
		size_t k = n - i < 16 ? (size_t)(n - i) : 16;
		v16_store_n(y + i, v16_sub(v16_sub(v16_load_n(y + i, k), vm), ls), k);
	}
}

CX_CPU_FN(cx_softmax_row_f32)
{
	const cx_attr_softmax *at = c->attr;
	const cx_cpu_arg *x = &c->in[0], *y = &c->out[0];
	int32_t axis = (int32_t)at->axis;
	int64_t n = x->d.dim[axis], rows = n ? cx__desc_elems(&x->d) / n : 0, lo, hi, pad = cx_pad16(n);
	float *buf = cx_f32(c->scratch) + (int64_t)t->rank * 2 * pad;
	cx_cpu_share(t, rows, 1, &lo, &hi);
	for (int64_t r = lo; r < hi; r++) {
		void *yp = cx_at_off(y, cx_cpu_off(&y->d, axis, r));
		float *yb = cx_row_target(buf + pad, yp, y->d.dtype, y->d.stride[axis]);
		const float *xb = cx_row_load(
			buf, cx_at_off(x, cx_cpu_off(&x->d, axis, r)), x->d.dtype, x->d.stride[axis], n);
		if (c->op == CX_OP_softmax) softmax_row(yb, xb, at->scale, n);
		else log_softmax_row(yb, xb, at->scale, n);
		cx_row_store(yp, y->d.dtype, y->d.stride[axis], yb, n);
	}
}
