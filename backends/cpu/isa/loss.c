/* loss.c - cross_entropy, mse, poisson_nll and the adamw step.
 *
 * Every thread leaves partial sums in scratch (one per row, or per 4096 elements), then one thread
 * adds them in order. What a partial sum holds does not depend on the threads. */
#include "backends/cpu/isa/lane.h"
#include "backends/cpu/isa/vmath.h"

enum { PART = 4096 };

/* The end of every reduced loss: one thread adds what all left. */
static void sum_parts(const cx_cpu_call *c, const cx_cpu_team *t)
{
	const cx_cpu_arg *x = &c->in[0], *y = &c->out[0];
	const double *part = (const double *)(const void *)c->scratch;
	int64_t reduction, n = cx__desc_elems(&x->d), n_part = (n + PART - 1) / PART, kept = n;
	double total = 0.0;
	cx__pool_barrier(t->pool);
	if (t->rank != 0) return;
	if (c->op == CX_OP_poisson_nll) {
		reduction = ((const cx_attr_poisson *)c->attr)->reduction;
	} else {
		reduction = ((const cx_attr_loss *)c->attr)->reduction;
	}
	if (c->op == CX_OP_cross_entropy) {
		const cx_cpu_arg *target = &c->in[1];
		n_part = x->d.dim[0];
		kept = 0;
		for (int64_t r = 0; r < n_part; r++)
			kept += ((const int32_t *)target->p)[r * target->d.stride[0]] !=
					((const cx_attr_loss *)c->attr)->ignore;
	}
	if (reduction == 0) return;
	for (int64_t i = 0; i < n_part; i++) total += part[i];
	if (reduction == 1) total /= (double)kept;
	cx_put_f32(y->p, y->d.dtype, 0, (float)total);
}

/* ---- cross entropy ---- */

/* m + ln(sum exp(x - m)) - x[target]. */
static float xent_row(const float *x, int64_t n, int64_t target)
{
	float m = cx_max_f32(x, n), l[16];
	v16 sum = v16_zero(), vm = v16_set1(m);
	if (target < 0 || target >= n) return NAN;
	for (int64_t i = 0; i < n; i += 16) {
		if (n - i >= 16) {
			sum = v16_add(sum, v16_exp(v16_sub(v16_load(x + i), vm)));
			continue;
		}
		v16_store(l, v16_exp(v16_sub(v16_load_n(x + i, (size_t)(n - i)), vm)));
		for (int64_t j = n - i; j < 16; j++) l[j] = 0.0f;
		sum = v16_add(sum, v16_load(l));
	}
	v16_store(l, v16_log(v16_set1(v16_sum(sum))));
	return l[0] + (m - x[target]);
}

/* Scratch: a double per row, its part of the sum, and one row of f32 per thread. */
CX_CPU_FN(cx_cross_entropy_row_f32)
{
	const cx_attr_loss *at = c->attr;
	const cx_cpu_arg *x = &c->in[0], *target = &c->in[1], *y = &c->out[0];
	int64_t rows = x->d.dim[0], n = x->d.dim[1], lo, hi;
	double *part = (double *)(void *)c->scratch;
	float *buf = cx_f32(c->scratch) + cx_pad16(2 * rows) + t->rank * cx_pad16(n);
	cx_cpu_share(t, rows, 1, &lo, &hi);
	for (int64_t r = lo; r < hi; r++) {
		int64_t k = ((const int32_t *)target->p)[r * target->d.stride[0]];
		float loss = 0.0f;
		if (k != at->ignore)
			loss = xent_row(
				cx_row_load(buf, cx_at_off(x, r * x->d.stride[0]), x->d.dtype, x->d.stride[1], n),
				n, k);
		part[r] = loss;
		if (at->reduction == 0) cx_put_f32(y->p, y->d.dtype, r, loss);
	}
	sum_parts(c, t);
}

/* ---- losses of pairs ---- */

/* e^x and y x nearly cancel where the model is good, so the Poisson loss is computed in double, one
 * by one. */
static double poisson_part(const cx_cpu_call *c, int64_t i, int64_t end)
{
	const cx_attr_poisson *at = c->attr;
	const cx_cpu_arg *x = &c->in[0], *y = &c->in[1], *out = &c->out[0];
	double sum = 0.0;
	for (; i < end; i++) {
		double a = cx_get_f32(x->p, x->d.dtype, i), b = cx_get_f32(y->p, y->d.dtype, i);
		double v = at->rate ? a - b * log(a + at->eps) : exp(a) - b * a;
		if (at->reduction == 0) cx_put_f64(out->p, out->d.dtype, i, v);
		sum += v;
	}
	return sum;
}

/* x and y dense. Scratch: a double per PART elements. */
CX_CPU_FN(cx_pair_loss_part_f32)
{
	const cx_cpu_arg *x = &c->in[0], *y = &c->in[1], *out = &c->out[0];
	int64_t reduction = c->op == CX_OP_mse ? ((const cx_attr_loss *)c->attr)->reduction : 0,
			n = cx__desc_elems(&x->d), lo, hi;
	double *part = (double *)(void *)c->scratch;
	cx_cpu_share(t, (n + PART - 1) / PART, 1, &lo, &hi);
	for (int64_t u = lo; u < hi; u++) {
		int64_t end = (u + 1) * PART < n ? (u + 1) * PART : n;
		v16 sum = v16_zero();
		if (c->op == CX_OP_poisson_nll) {
			part[u] = poisson_part(c, u * PART, end);
			continue;
		}
		for (int64_t i = u * PART; i < end; i += 16) {
			size_t k = end - i < 16 ? (size_t)(end - i) : 16;
			v16 d = v16_sub(v16_load_as(x->d.dtype, x->p, (size_t)i, k),
				v16_load_as(y->d.dtype, y->p, (size_t)i, k));
			v16 v = v16_mul(d, d);
			float l[16];
			if (reduction == 0) {
				v16_store_as(out->d.dtype, out->p, (size_t)i, v, k);
				continue;
			}
			if (k < 16) {
				v16_store(l, v);
				for (size_t j = k; j < 16; j++) l[j] = 0.0f;
				v = v16_load(l);
			}
			sum = v16_add(sum, v);
		}
		part[u] = v16_sum(sum);
	}
	sum_parts(c, t);
}

/* ---- adamw ---- */

/* p, m, v (outputs, updated where they are), g; all dense. */
CX_CPU_FN(cx_adamw_line_f32)
{
	const cx_attr_adamw *at = c->attr;
	const cx_cpu_arg *p = &c->out[0], *m = &c->out[1], *v = &c->out[2], *g = &c->in[1];
	float lr = *cx_f32(c->in[4].p),
		  step = *cx_f32(c->in[5].p);
	v16 b1 = v16_set1(at->beta1), b2 = v16_set1(at->beta2), eps = v16_set1(at->eps);
	v16 a1 = v16_set1((float)(1.0 - (double)at->beta1)),
		a2 = v16_set1((float)(1.0 - (double)at->beta2));
	v16 c1 = v16_set1((float)(1.0 - pow(at->beta1, step))),
		c2 = v16_set1((float)(1.0 - pow(at->beta2, step)));
	v16 decay = v16_set1(at->decay), rate = v16_set1(lr);
	int64_t lo, hi;
	cx_cpu_share(t, cx__desc_elems(&p->d), 64, &lo, &hi);
	for (int64_t i = lo; i < hi; i += 16) {
		size_t k = hi - i < 16 ? (size_t)(hi - i) : 16;
		v16 grad = v16_load_as(g->d.dtype, g->p, (size_t)i, k),
			old = v16_load_as(p->d.dtype, p->p, (size_t)i, k);
		v16 mean = v16_add(v16_mul(b1, v16_load_as(CX_F32, m->p, (size_t)i, k)), v16_mul(a1, grad));
		v16 sq = v16_add(
			v16_mul(b2, v16_load_as(CX_F32, v->p, (size_t)i, k)), v16_mul(v16_mul(a2, grad), grad));
		v16 u = v16_div(v16_div(mean, c1), v16_add(v16_sqrt(v16_div(sq, c2)), eps));
		u = v16_add(u, v16_mul(decay, old));
		v16_store_as(p->d.dtype, p->p, (size_t)i, v16_sub(old, v16_mul(rate, u)), k);
		v16_store_as(CX_F32, m->p, (size_t)i, mean, k);
		v16_store_as(CX_F32, v->p, (size_t)i, sq, k);
	}
}
