/* norm.c - layernorm, rmsnorm, l2norm, groupnorm and add_norm: f32 arithmetic, one row (or group)
 * at a time.
 *
 * Scratch: rows of f32 per thread. */
#include "backends/cpu/isa/lane.h"
#include "backends/cpu/isa/norm.h"

typedef struct moments {
	float m, rest, q; /* the mean is m + rest: large offsets cost no digits */
} moments;

static moments moments_of(const float *x, int64_t n, cx_norm_kind kind)
{
	moments a = {0.0f, 0.0f, 0.0f};
	if (kind == CX_NORM_LAYER) {
		a.m = cx_sum_f32(x, n, 0.0f) / (float)n;
		a.rest = cx_sum_f32(x, n, a.m) / (float)n;
	}
	a.q = cx_sumsq_f32(x, n, a.m);
	if (kind != CX_NORM_L2) a.q /= (float)n;
	a.q -= a.rest * a.rest;
	if (a.q < 0.0f) a.q = 0.0f; /* NaN stays */
	return a;
}

void cx_norm_row(float *y, const float *x, int64_t n, const cx_norm *p)
{
	moments a = moments_of(x, n, p->kind);
	float eps = p->eps;
	v16 vm, vr, vrest, one = v16_set1(1.0f);
	if (!(a.q < INFINITY)) { /* squares overflow: a scaled row has the same norm, but for eps */
		for (int64_t i = 0; i < n; i++) y[i] = x[i] * 0x1p-76f;
		x = y;
		eps = 0x1p-126f; /* less, and not 0: a row of equal elements gives 0 */
		a = moments_of(x, n, p->kind);
	}
	vr = v16_set1(1.0f / sqrtf(a.q + eps));
	vm = v16_set1(a.m);
	vrest = v16_set1(a.rest);
	for (int64_t i = 0; i < n; i += 16) {
		size_t k = n - i < 16 ? (size_t)(n - i) : 16;
		v16 v = v16_mul(v16_sub(v16_sub(v16_load_n(x + i, k), vm), vrest), vr);
		if (p->w) {
			v16 w = v16_load_as(p->w_dtype, p->w, (size_t)i, k);
			v = v16_mul(v, p->plus_one ? v16_add(w, one) : w);
		}
		if (p->b) v = v16_add(v, v16_load_as(p->b_dtype, p->b, (size_t)i, k));
		v16_store_n(y + i, v, k);
	}
}

static void weights(cx_norm *p, const cx_cpu_call *c, uint32_t i)
{
	if (cx_cpu_has(c, i)) {
		p->w = c->in[i].p;
		p->w_dtype = c->in[i].d.dtype;
	}
	if (cx_cpu_has(c, i + 1)) {
		p->b = c->in[i + 1].p;
		p->b_dtype = c->in[i + 1].d.dtype;
	}
}

CX_CPU_FN(cx_norm_row_f32)
{
	const cx_attr_norm *at = c->attr;
	const cx_cpu_arg *x = &c->in[0], *y = &c->out[0];
	int32_t axis = x->d.rank - 1;
	int64_t n = x->d.dim[axis], rows = n ? cx__desc_elems(&x->d) / n : 0, pad = cx_pad16(n), lo, hi;
	float *buf = cx_f32(c->scratch) + (int64_t)t->rank * 2 * pad;
	cx_norm p = {c->op == CX_OP_layernorm ? CX_NORM_LAYER
				 : c->op == CX_OP_rmsnorm ? CX_NORM_RMS
										  : CX_NORM_L2,
		at->eps, at->plus_one, NULL, NULL, CX_F32, CX_F32};
	weights(&p, c, 1);
	cx_cpu_share(t, rows, 1, &lo, &hi);
	for (int64_t r = lo; r < hi; r++) {
		void *yp = cx_at_off(y, cx_cpu_off(&y->d, axis, r));
		float *yb = cx_row_target(buf + pad, yp, y->d.dtype, y->d.stride[axis]);
		cx_norm_row(yb,
			cx_row_load(
				buf, cx_at_off(x, cx_cpu_off(&x->d, axis, r)), x->d.dtype, x->d.stride[axis], n),
			n, &p);
		cx_row_store(yp, y->d.dtype, y->d.stride[axis], yb, n);
	}
}

/* s = a + b is rounded to its dtype; the norm is taken of what was stored. */
CX_CPU_FN(cx_add_norm_row_f32)
{
	const cx_attr_linear *at = c->attr;
	const cx_cpu_arg *a = &c->in[0], *b = &c->in[1], *s = &c->out[0], *y = &c->out[1];
	int32_t axis = a->d.rank - 1;
	int64_t n = a->d.dim[axis], rows = n ? cx__desc_elems(&a->d) / n : 0, pad = cx_pad16(n), lo, hi;
	float *buf = cx_f32(c->scratch) + (int64_t)t->rank * 3 * pad;
	cx_norm p = {at->norm == 2 ? CX_NORM_LAYER : CX_NORM_RMS, at->eps, at->plus_one, NULL, NULL,
		CX_F32, CX_F32};
	weights(&p, c, 2);
	cx_cpu_share(t, rows, 1, &lo, &hi);
	for (int64_t r = lo; r < hi; r++) {
		const float *ab = cx_row_load(
			buf, cx_at_off(a, cx_cpu_off(&a->d, axis, r)), a->d.dtype, a->d.stride[axis], n);
		const float *bb = cx_row_load(
			buf + pad, cx_at_off(b, cx_cpu_off(&b->d, axis, r)), b->d.dtype, b->d.stride[axis], n);
		void *sp = cx_at_off(s, cx_cpu_off(&s->d, axis, r)),
			 *yp = cx_at_off(y, cx_cpu_off(&y->d, axis, r));
		float *sb = cx_row_target(buf + 2 * pad, sp, s->d.dtype, s->d.stride[axis]);
		float *yb = cx_row_target(buf, yp, y->d.dtype, y->d.stride[axis]);
		for (int64_t i = 0; i < n; i += 16) {
			size_t k = n - i < 16 ? (size_t)(n - i) : 16;
			v16_store_n(sb + i, v16_add(v16_load_n(ab + i, k), v16_load_n(bb + i, k)), k);
		}
		cx_row_store(sp, s->d.dtype, s->d.stride[axis], sb, n);
		cx_norm_row(yb, cx_row_load(buf + 2 * pad, sp, s->d.dtype, s->d.stride[axis], n), n, &p);
		cx_row_store(yp, y->d.dtype, y->d.stride[axis], yb, n);
	}
}

/* x [N,C,...] dense after axis 0: one group of C/groups channels is a contiguous run. */
CX_CPU_FN(cx_groupnorm_group_f32)
{
	const cx_attr_groupnorm *at = c->attr;
	const cx_cpu_arg *x = &c->in[0], *y = &c->out[0];
	int64_t total = cx__desc_elems(&x->d), nb = x->d.dim[0], ch = x->d.dim[1], groups = at->groups;
	int64_t inner = total ? total / nb / ch : 0, per = groups ? ch / groups : 0, n = per * inner,
			pad = cx_pad16(n);
	int64_t lo, hi;
	float *buf = cx_f32(c->scratch) + (int64_t)t->rank * 2 * pad;
	cx_norm p = {CX_NORM_LAYER, at->eps, false, NULL, NULL, CX_F32, CX_F32};
	const cx_cpu_arg *w = cx_cpu_has(c, 1) ? &c->in[1] : NULL,
					 *b = cx_cpu_has(c, 2) ? &c->in[2] : NULL;
	cx_cpu_share(t, total ? nb * groups : 0, 1, &lo, &hi);
	for (int64_t r = lo; r < hi; r++) {
		int64_t g = r % groups, off = r / groups * x->d.stride[0] + g * n;
		int64_t yoff = r / groups * y->d.stride[0] + g * n;
		void *yp = cx_at_off(y, yoff);
		float *yb = cx_row_target(buf + pad, yp, y->d.dtype, 1);
		cx_norm_row(yb, cx_row_load(buf, cx_at_off(x, off), x->d.dtype, 1, n), n, &p);
		for (int64_t j = 0; j < per && (w || b); j++) {
			float wj = w ? cx_get_f32(w->p, w->d.dtype, g * per + j) : 1.0f, *row = yb + j * inner;
			float bj = b ? cx_get_f32(b->p, b->d.dtype, g * per + j) : 0.0f;
			for (int64_t i = 0; i < inner; i++) row[i] = row[i] * wj + bj;
		}
		cx_row_store(yp, y->d.dtype, 1, yb, n);
	}
}
