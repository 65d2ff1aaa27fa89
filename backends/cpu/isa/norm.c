/* norm.c - layernorm, rmsnorm, l2norm, groupnorm and add_norm: f32 arithmetic, one row (or group) at a time.
 *
 * Scratch: rows of f32 per thread: x, y, and the widened weights, which every row shares. */
#include "backends/cpu/isa/lane.h"

enum norm_kind { NORM_RMS = 1, NORM_LAYER = 2, NORM_L2 = 3 };
typedef struct norm {
	enum norm_kind kind;
	float eps;
	bool plus_one;
	const float *w, *b; /* [n] or NULL */
} norm;

static void norm_row(float *y, const float *x, int64_t n, const norm *p)
{
	float m = 0.0f, q;
	v16 vm, vr, one = v16_set1(1.0f);
	if (p->kind == NORM_LAYER) m = cx_sum_f32(x, n) / (float)n;
	q = cx_sumsq_f32(x, n, m);
	if (p->kind != NORM_L2) q /= (float)n;
	vr = v16_set1(1.0f / sqrtf(q + p->eps));
	vm = v16_set1(m);
	for (int64_t i = 0; i < n; i += 16) {
		size_t k = n - i < 16 ? (size_t)(n - i) : 16;
		v16 v = v16_mul(v16_sub(v16_load_n(x + i, k), vm), vr);
		if (p->w) {
			v16 w = v16_load_n(p->w + i, k);
			v = v16_mul(v, p->plus_one ? v16_add(w, one) : w);
		}
		if (p->b) v = v16_add(v, v16_load_n(p->b + i, k));
		v16_store_n(y + i, v, k);
	}
}

/* Operand i as a row of n f32, or NULL if it is absent. */
static const float *weights(const cx_cpu_call *c, uint32_t i, float *buf, int64_t n)
{
	if (!cx_cpu_has(c, i)) return NULL;
	return cx_row_load(buf, c->in[i].p, c->in[i].d.dtype, c->in[i].d.stride[0], n);
}

CX_CPU_FN(cx_norm_row_f32)
{
	const cx_attr_norm *at = c->attr;
	const cx_cpu_arg *x = &c->in[0], *y = &c->out[0];
	int32_t axis = x->d.rank - 1;
	int64_t n = x->d.dim[axis], rows = n ? cx__desc_elems(&x->d) / n : 0, pad = cx_pad16(n), lo, hi;
	float *buf = (float *)c->scratch + (int64_t)t->rank * 4 * pad;
	norm p = {c->op == CX_OP_layernorm ? NORM_LAYER : c->op == CX_OP_rmsnorm ? NORM_RMS : NORM_L2, at->eps,
		at->plus_one, weights(c, 1, buf + 2 * pad, n), weights(c, 2, buf + 3 * pad, n)};
	cx_cpu_share(t, rows, 1, &lo, &hi);
	for (int64_t r = lo; r < hi; r++) {
		void *yp = cx_at_off(y, cx_cpu_off(&y->d, axis, r));
		float *yb = cx_row_target(buf + pad, yp, y->d.dtype, y->d.stride[axis]);
		norm_row(yb, cx_row_load(buf, cx_at_off(x, cx_cpu_off(&x->d, axis, r)), x->d.dtype,
			x->d.stride[axis], n), n, &p);
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
	float *buf = (float *)c->scratch + (int64_t)t->rank * 5 * pad;
	norm p = {at->norm == 2 ? NORM_LAYER : NORM_RMS, at->eps, at->plus_one,
		weights(c, 2, buf + 3 * pad, n), weights(c, 3, buf + 4 * pad, n)};
	cx_cpu_share(t, rows, 1, &lo, &hi);
	for (int64_t r = lo; r < hi; r++) {
		const float *ab = cx_row_load(buf, cx_at_off(a, cx_cpu_off(&a->d, axis, r)), a->d.dtype, a->d.stride[axis], n);
		const float *bb = cx_row_load(buf + pad, cx_at_off(b, cx_cpu_off(&b->d, axis, r)), b->d.dtype,
			b->d.stride[axis], n);
		void *sp = cx_at_off(s, cx_cpu_off(&s->d, axis, r)), *yp = cx_at_off(y, cx_cpu_off(&y->d, axis, r));
		float *sb = cx_row_target(buf + 2 * pad, sp, s->d.dtype, s->d.stride[axis]);
		float *yb = cx_row_target(buf, yp, y->d.dtype, y->d.stride[axis]);
		for (int64_t i = 0; i < n; i += 16) {
			size_t k = n - i < 16 ? (size_t)(n - i) : 16;
			v16_store_n(sb + i, v16_add(v16_load_n(ab + i, k), v16_load_n(bb + i, k)), k);
		}
		cx_row_store(sp, s->d.dtype, s->d.stride[axis], sb, n);
		norm_row(yb, cx_row_load(buf + 2 * pad, sp, s->d.dtype, s->d.stride[axis], n), n, &p);
		cx_row_store(yp, y->d.dtype, y->d.stride[axis], yb, n);
	}
}

/* x [N,C,...] dense after axis 0: one group of C/groups channels is a contiguous run. */
CX_CPU_FN(cx_groupnorm_group_f32)
{
	const cx_attr_groupnorm *at = c->attr;
	const cx_cpu_arg *x = &c->in[0], *y = &c->out[0];
	int64_t total = cx__desc_elems(&x->d), nb = x->d.dim[0], ch = x->d.dim[1], groups = at->groups;
	int64_t inner = total ? total / nb / ch : 0, per = groups ? ch / groups : 0, n = per * inner, pad = cx_pad16(n);
	int64_t lo, hi, cpad = cx_pad16(ch);
	float *buf = (float *)c->scratch + (int64_t)t->rank * (2 * pad + 2 * cpad);
	const float *w = weights(c, 1, buf + 2 * pad, ch), *b = weights(c, 2, buf + 2 * pad + cpad, ch);
	norm p = {NORM_LAYER, at->eps, false, NULL, NULL};
	cx_cpu_share(t, total ? nb * groups : 0, 1, &lo, &hi);
	for (int64_t r = lo; r < hi; r++) {
		int64_t g = r % groups, off = r / groups * x->d.stride[0] + g * n;
		int64_t yoff = r / groups * y->d.stride[0] + g * n;
		void *yp = cx_at_off(y, yoff);
		float *yb = cx_row_target(buf + pad, yp, y->d.dtype, 1);
		norm_row(yb, cx_row_load(buf, cx_at_off(x, off), x->d.dtype, 1, n), n, &p);
		for (int64_t j = 0; j < per && (w || b); j++) {
			float wj = w ? w[g * per + j] : 1.0f, bj = b ? b[g * per + j] : 0.0f, *row = yb + j * inner;
			for (int64_t i = 0; i < inner; i++) row[i] = row[i] * wj + bj;
		}
		cx_row_store(yp, y->d.dtype, 1, yb, n);
	}
}
