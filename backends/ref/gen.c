/* gen.c - generators, losses, the optimizer step.
 *
 * Random numbers: Philox4x32-10 (Salmon, Moraes, Dror, Shaw: Parallel Random Numbers: As Easy as 1,
 * 2, 3, SC 2011). */
#include "backends/ref/ref.h"

#include <math.h>
#include <string.h>

/* ---- random ---- */

void cx__ref_philox(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4])
{
	uint32_t c[4], k[2] = {key[0], key[1]};
	memcpy(c, counter, sizeof c);
	for (int round = 0; round < 10; round++) {
		uint64_t p0 = (uint64_t)0xD2511F53u * c[0], p1 = (uint64_t)0xCD9E8D57u * c[2];
		uint32_t next[4] = {(uint32_t)(p1 >> 32) ^ c[1] ^ k[0], (uint32_t)p1,
			(uint32_t)(p0 >> 32) ^ c[3] ^ k[1], (uint32_t)p0};
		memcpy(c, next, sizeof c);
		k[0] += 0x9E3779B9u; /* golden ratio */
		k[1] += 0xBB67AE85u; /* sqrt(3) - 1 */
	}
	memcpy(out, c, sizeof c);
}

/* Element i is word i%4 of counter i/4. Uniform: 24 high bits. Normal: Box-Muller, words (0,1) give
 * elements 0 and 1 (cosine and sine), words (2,3) elements 2 and 3; the radius comes from the first
 * of them, kept off zero. */
void cx__ref_random(const cx__ref_call *c)
{
	const cx_attr_random *at = c->attr;
	const cx__ref_arg *key = &c->in[0], *y = &c->out[0];
	int64_t n = cx__desc_elems(&y->d);
	uint32_t words[4], k[4];
	for (int j = 0; j < 4; j++) k[j] = (uint32_t)cx__elem_int(key, j * key->d.stride[0]);
	for (int64_t i = 0; i < n; i++) {
		uint64_t block = (uint64_t)i / 4;
		uint32_t counter[4] = {(uint32_t)block, (uint32_t)(block >> 32), k[2], k[3]}, word;
		int64_t to = cx__elem_offset(&y->d, i);
		cx__ref_philox(counter, k, words);
		word = words[i % 4];
		if (at->kind == 2) {
			cx__elem_put_int(y, to, (int32_t)word);
		} else if (at->kind == 0) {
			cx__elem_put(y, to, (word >> 8) * 0x1p-24);
		} else {
			const uint32_t *pair = words + i % 4 / 2 * 2;
			double radius = sqrt(-2 * log(((pair[0] >> 8) + 1) * 0x1p-24));
			double angle = 6.283185307179586 * ((pair[1] >> 8) * 0x1p-24);
			cx__elem_put(y, to, radius * (i % 2 ? sin(angle) : cos(angle)));
		}
	}
}

void cx__ref_iota(const cx__ref_call *c)
{
	const cx_attr_iota *at = c->attr;
	const cx__ref_arg *y = &c->out[0];
	cx__ref_walk w;
	if (!cx__walk_init(&w, y->d.rank, y->d.dim)) return;
	cx__walk_add(&w, &y->d);
	do
		cx__elem_put(
			y, w.off[0], at->start + (double)at->step * (double)(y->d.rank ? w.at[at->axis] : 0));
	while (cx__walk_next(&w));
}

/* ---- losses ---- */

/* A row whose target is neither `ignore` nor a class gives NaN: an error that cannot be overlooked.
 */
void cx__ref_cross_entropy(const cx__ref_call *c)
{
	const cx_attr_loss *at = c->attr;
	const cx__ref_arg *x = &c->in[0], *target = &c->in[1], *y = &c->out[0];
	int64_t rows = x->d.dim[0], n = x->d.dim[1], kept = 0;
	double total = 0;
	for (int64_t i = 0; i < rows; i++) {
		int64_t t = cx__elem_int(target, i * target->d.stride[0]), row = i * x->d.stride[0];
		double m = -INFINITY, sum = 0, loss = 0;
		if (t != at->ignore) {
			kept++;
			for (int64_t j = 0; j < n; j++) {
				double v = cx__elem_get(x, row + j * x->d.stride[1]);
				if (v > m || isnan(v)) m = v;
				if (isnan(m)) break;
			}
			for (int64_t j = 0; j < n; j++)
				sum += exp(cx__elem_get(x, row + j * x->d.stride[1]) - m);
			loss = t < 0 || t >= n ? NAN : m - cx__elem_get(x, row + t * x->d.stride[1]) + log(sum);
		}
		if (at->reduction == 0) cx__elem_put(y, i * y->d.stride[0], loss);
		total += loss;
	}
	if (at->reduction == 1) cx__elem_put(y, 0, total / (double)kept);
	if (at->reduction == 2) cx__elem_put(y, 0, total);
}

static double mse_term(const cx__ref_call *c, double x, double y)
{
	(void)c;
	return (x - y) * (x - y);
}

static double poisson_term(const cx__ref_call *c, double x, double y)
{
	const cx_attr_poisson *at = c->attr;
	return at->rate ? x - y * log(x + at->eps) : exp(x) - y * x;
}

/* Reductions as in cx_attr_loss, over all elements. */
static void pair_loss(
	const cx__ref_call *c, double (*term)(const cx__ref_call *, double, double), int64_t reduction)
{
	const cx__ref_arg *x = &c->in[0], *t = &c->in[1], *y = &c->out[0];
	int64_t n = cx__desc_elems(&x->d);
	double total = 0;
	for (int64_t i = 0; i < n; i++) {
		double v = term(c, cx__elem_get(x, cx__elem_offset(&x->d, i)),
			cx__elem_get(t, cx__elem_offset(&t->d, i)));
		if (reduction == 0) cx__elem_put(y, cx__elem_offset(&y->d, i), v);
		total += v;
	}
	if (reduction == 1) cx__elem_put(y, 0, total / (double)n);
	if (reduction == 2) cx__elem_put(y, 0, total);
}

void cx__ref_mse(const cx__ref_call *c)
{
	pair_loss(c, mse_term, ((const cx_attr_loss *)c->attr)->reduction);
}

void cx__ref_poisson_nll(const cx__ref_call *c)
{
	pair_loss(c, poisson_term, ((const cx_attr_poisson *)c->attr)->reduction);
}

/* ---- adamw ---- */

/* p, m and v are updated where they are: outputs 0..2 hold the old content. */
void cx__ref_adamw(const cx__ref_call *c)
{
	const cx_attr_adamw *at = c->attr;
	const cx__ref_arg *p = &c->out[0], *m = &c->out[1], *v = &c->out[2], *g = &c->in[1];
	int64_t n = cx__desc_elems(&p->d);
	double lr = cx__elem_get(&c->in[4], 0), t = cx__elem_get(&c->in[5], 0), b1 = at->beta1,
		   b2 = at->beta2;
	for (int64_t i = 0; i < n; i++) {
		int64_t po = cx__elem_offset(&p->d, i), mo = cx__elem_offset(&m->d, i),
				vo = cx__elem_offset(&v->d, i);
		double grad = cx__elem_get(g, cx__elem_offset(&g->d, i)), old = cx__elem_get(p, po);
		double mean = b1 * cx__elem_get(m, mo) + (1 - b1) * grad;
		double square = b2 * cx__elem_get(v, vo) + (1 - b2) * grad * grad;
		double step = mean / (1 - pow(b1, t)) / (sqrt(square / (1 - pow(b2, t))) + at->eps);
		cx__elem_put(p, po, old - lr * (step + at->decay * old));
		cx__elem_put(m, mo, mean);
		cx__elem_put(v, vo, square);
	}
}
