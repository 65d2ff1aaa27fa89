/* norm_grad.c - gradient of layernorm and rmsnorm, one row at a time.
 *
 * With h the normalised row and g = dy w: dx = r (g - mean of g - h mean of (g h)), without the
 * mean of g in an rmsnorm. dw and db are sums over rows: of each block of rows in their order,
 * then over the blocks, which the number of rows alone decides, so that threads do not matter.
 *
 * Scratch: dw and db of every block, shared; per thread a row of x, dy, dx and w. */
#include "backends/cpu/isa/lane.h"
#include "backends/cpu/isa/norm_grad.h"

typedef struct norm_grad {
	const float *w; /* [pad] what h is multiplied with */
	int64_t n;
	float eps;
	bool layer;
} norm_grad;

/* One row: dx, and dw += dy h, db += dy. dx may be dy's own place. */
static void row(
	const norm_grad *p, float *dx, const float *x, const float *dy, float *dw, float *db)
{
	float m = 0.0f, rest = 0.0f, q, r;
	v16 sum = v16_zero(), dot = v16_zero(), vm, vrest, vr, a, b;
	if (p->layer) { /* the mean is m + rest: large offsets cost no digits */
		m = cx_sum_f32(x, p->n, 0.0f) / (float)p->n;
		rest = cx_sum_f32(x, p->n, m) / (float)p->n;
	}
	q = cx_sumsq_f32(x, p->n, m) / (float)p->n - rest * rest;
	if (q < 0.0f) q = 0.0f; /* NaN stays */
	r = 1.0f / sqrtf(q + p->eps);
	vm = v16_set1(m);
	vrest = v16_set1(rest);
	vr = v16_set1(r);
	for (int64_t i = 0; i < p->n; i += 16) {
		size_t k = p->n - i < 16 ? (size_t)(p->n - i) : 16;
		v16 h = v16_mul(v16_sub(v16_sub(v16_load_n(x + i, k), vm), vrest), vr);
		v16 d = v16_load_n(dy + i, k), g = v16_mul(d, v16_load(p->w + i));
		v16_store(dw + i, v16_fma(d, h, v16_load(dw + i)));
		if (p->layer) {
			v16_store(db + i, v16_add(v16_load(db + i), d));
			sum = v16_add(sum, g);
		}
		dot = v16_fma(g, h, dot);
	}
	a = v16_set1(v16_sum(sum) / (float)p->n);
	b = v16_set1(v16_sum(dot) / (float)p->n);
	for (int64_t i = 0; i < p->n; i += 16) {
		size_t k = p->n - i < 16 ? (size_t)(p->n - i) : 16;
		v16 h = v16_mul(v16_sub(v16_sub(v16_load_n(x + i, k), vm), vrest), vr);
		v16 g = v16_mul(v16_load_n(dy + i, k), v16_load(p->w + i));
		v16_store_n(dx + i, v16_mul(vr, v16_sub(v16_sub(g, a), v16_mul(h, b))), k);
	}
}

static void sum_blocks(
	const cx_cpu_arg *y, const float *part, int64_t step, int64_t n_blocks, int64_t lo, int64_t hi)
{
	for (int64_t i = lo; i < hi; i += 16) {
		v16 s = v16_zero();
		for (int64_t b = 0; b < n_blocks; b++) s = v16_add(s, v16_load(part + b * step + i));
		v16_store_n(cx_f32(y->p) + i, s, hi - i < 16 ? (size_t)(hi - i) : 16);
	}
}

CX_CPU_FN(cx_norm_grad_row_f32)
{
	const cx_attr_norm_grad *at = c->attr;
	const cx_cpu_arg *x = &c->in[0], *dy = &c->in[1], *dx = &c->out[0];
	int32_t axis = x->d.rank - 1;
	int64_t n = x->d.dim[axis], pad = cx_pad16(n), rows = n ? cx__desc_elems(&x->d) / n : 0, lo, hi,
			per = cx_norm_grad_rows(rows), blocks = (rows + per - 1) / per;
	float *part = cx_f32(c->scratch), *buf = part + blocks * 2 * pad + (int64_t)t->rank * 4 * pad,
		  *w = buf + 3 * pad;
	norm_grad p = {.w = w, .n = n, .eps = at->eps, .layer = at->layer};
	for (int64_t j = 0; j < pad; j++) {
		w[j] = at->plus_one ? 0.0f : 1.0f;
		if (j < n && cx_cpu_has(c, 2)) w[j] = cx_get_f32(c->in[2].p, c->in[2].d.dtype, j);
		if (at->plus_one) w[j] += 1.0f;
	}
	cx_cpu_share(t, blocks, 1, &lo, &hi);
	for (int64_t b = lo; b < hi; b++) {
		float *dw = part + b * 2 * pad, *db = dw + pad;
		memset(dw, 0, 2 * (size_t)pad * sizeof *dw);
		for (int64_t r = b * per; r < rows && r < (b + 1) * per; r++) {
			const float *xb = cx_row_load(
				buf, cx_at_off(x, cx_cpu_off(&x->d, axis, r)), x->d.dtype, x->d.stride[axis], n);
			const float *gb = cx_row_load(buf + pad, cx_at_off(dy, cx_cpu_off(&dy->d, axis, r)),
				dy->d.dtype, dy->d.stride[axis], n);
			void *to = cx_at_off(dx, r * n);
			float *yb = cx_row_target(buf + 2 * pad, to, dx->d.dtype, 1);
			row(&p, yb, xb, gb, dw, db);
			cx_row_store(to, dx->d.dtype, 1, yb, n);
		}
	}
	if (t->n > 1) cx__pool_barrier(t->pool);
	cx_cpu_share(t, n, 16, &lo, &hi);
	sum_blocks(&c->out[1], part, 2 * pad, blocks, lo, hi);
	if (at->layer) sum_blocks(&c->out[2], part + pad, 2 * pad, blocks, lo, hi);
}
