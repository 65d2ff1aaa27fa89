/* grad.c - backward ops of norms, attention, convolution and gated delta rule.
 *
 * Each is the derivative of the forward op's formula by the chain rule, in double throughout: what
 * the forward op rounds in between (scores, weights, a convolution before its silu) is not rounded
 * here. Results that are sums over rows are summed in the order of rows. */
#include "backends/ref/span.h"

#include <math.h>
#include <string.h>

/* ---- norms ---- */

/* h = (x - m) r, dh = dy w; dx = r (dh - [mean of dh] - h mean of (dh h)); dw = sum of dy h; db =
 * sum of dy. m and the part in brackets are the layernorm's. */
void cx__ref_norm_grad(const cx__ref_call *c)
{
	const cx_attr_norm_grad *at = c->attr;
	const cx__ref_arg *x = &c->in[0], *dy = &c->in[1], *w = &c->in[2], *dx = &c->out[0];
	int64_t n = x->d.dim[x->d.rank - 1], rows = n ? cx__desc_elems(&x->d) / n : 0;
	void *at_scratch = c->scratch;
	double *row = cx__ref_take(&at_scratch, (uint64_t)n * 8);
	double *grow = cx__ref_take(&at_scratch, (uint64_t)n * 8);
	double *dw = cx__ref_take(&at_scratch, (uint64_t)n * 8);
	double *db = cx__ref_take(&at_scratch, (uint64_t)n * 8);
	memset(dw, 0, (size_t)n * sizeof *dw);
	memset(db, 0, (size_t)n * sizeof *db);
	for (int64_t r = 0; r < rows; r++) {
		double mean = 0, var = 0, sum = 0, dot = 0, inv;
		for (int64_t j = 0; j < n; j++) {
			row[j] = cx__elem_get(x, cx__elem_offset(&x->d, r * n + j));
			mean += row[j];
		}
		mean = at->layer ? mean / (double)n : 0;
		for (int64_t j = 0; j < n; j++) var += (row[j] - mean) * (row[j] - mean);
		inv = 1 / sqrt(var / (double)n + at->eps);
		for (int64_t j = 0; j < n; j++) {
			double g = cx__elem_get(dy, cx__elem_offset(&dy->d, r * n + j));
			double wj = cx__ref_has(c, 2) ? cx__elem_get(w, j * w->d.stride[0])
						: at->plus_one    ? 0
										  : 1;
			row[j] = (row[j] - mean) * inv;
			dw[j] += g * row[j];
			db[j] += g;
			grow[j] = g * (at->plus_one ? 1 + wj : wj);
			sum += grow[j];
			dot += grow[j] * row[j];
		}
		sum = at->layer ? sum / (double)n : 0;
		dot /= (double)n;
		for (int64_t j = 0; j < n; j++)
			cx__elem_put(
				dx, cx__elem_offset(&dx->d, r * n + j), inv * (grow[j] - sum - row[j] * dot));
	}
	for (int64_t j = 0; j < n; j++) {
		cx__elem_put(&c->out[1], j * c->out[1].d.stride[0], dw[j]);
		if (c->n_out > 2) cx__elem_put(&c->out[2], j * c->out[2].d.stride[0], db[j]);
	}
}

/* ---- attention ---- */

/* Element of a mask or bias that broadcasts to the last axes of [B,H,T,S]. */
static int64_t score_off(const cx_desc *d, int64_t b, int64_t h, int64_t t, int64_t s)
{
	const int64_t at[4] = {b, h, t, s};
	int64_t off = 0;
	for (int32_t k = 0; k < d->rank; k++)
		if (d->dim[k] != 1) off += at[4 - d->rank + k] * d->stride[k];
	return off;
}

/* One sequence: n_q query rows from q0, n_k keys from k0; b is the batch index of dense
 * operands. */
typedef struct sequence {
	int64_t b, q0, n_q, k0, n_k;
} sequence;

typedef struct attn {
	const cx__ref_call *c;
	int32_t r; /* axes r-3 rows, r-2 heads, r-1 elements; axis 0 is the batch when r is 4 */
	int64_t d, dv, hk;
	double scale;
	double *p, *dk, *dv_sum; /* [n_k] weights; of all keys and values, in their dense order */
} attn;

/* Element 0 of a row of q, k, v, y or dy. */
static int64_t row_off(const attn *a, const cx__ref_arg *x, int64_t b, int64_t row, int64_t h)
{
	const int64_t *st = x->d.stride;
	return (a->r == 4 ? b * st[0] : 0) + row * st[a->r - 3] + h * st[a->r - 2];
}

static double row_dot(
	const attn *a, const cx__ref_arg *x, int64_t xo, const cx__ref_arg *y, int64_t yo, int64_t n)
{
	int64_t xs = x->d.stride[a->r - 1], ys = y->d.stride[a->r - 1];
	double sum = 0;
	for (int64_t j = 0; j < n; j++)
		sum += cx__elem_get(x, xo + j * xs) * cx__elem_get(y, yo + j * ys);
	return sum;
}

/* p[s] = softmax weight of key s for row t; 0 where it is not seen. */
static void weights(const attn *a, const sequence *q, int64_t h, int64_t t)
{
	const cx__ref_call *c = a->c;
	const cx_attr_attention_grad *at = c->attr;
	int64_t pos = t + q->n_k - q->n_q, mt = a->r == 4 ? t : q->q0 + t;
	int64_t qo = row_off(a, &c->in[0], q->b, q->q0 + t, h);
	int64_t hk = h / (c->in[0].d.dim[a->r - 2] / a->hk);
	double m = -INFINITY, sum = 0;
	for (int64_t s = 0; s < q->n_k; s++) {
		double x = -INFINITY;
		bool sees = !(at->causal && s > pos) && !(at->window > 0 && s <= pos - at->window);
		if (sees && cx__ref_has(c, 7))
			sees = cx__elem_int(&c->in[7], score_off(&c->in[7].d, q->b, h, mt, s)) != 0;
		if (sees)
			x = a->scale * row_dot(a, &c->in[0], qo, &c->in[1],
							   row_off(a, &c->in[1], q->b, q->k0 + s, hk), a->d);
		if (sees && cx__ref_has(c, 8))
			x += cx__elem_get(&c->in[8], score_off(&c->in[8].d, q->b, h, mt, s));
		a->p[s] = x;
		if (x > m || isnan(x)) m = x;
	}
	for (int64_t s = 0; s < q->n_k; s++) {
		a->p[s] = a->p[s] == -INFINITY ? 0 : exp(a->p[s] - m);
		sum += a->p[s];
	}
	for (int64_t s = 0; s < q->n_k && sum != 0; s++) a->p[s] /= sum;
}

/* ds = p (dy.v - dy.y); dq = scale sum of ds k; dk += scale ds q; dv += p dy. */
static void attend(const attn *a, const sequence *q, int64_t h, int64_t t)
{
	const cx__ref_call *c = a->c;
	const cx__ref_arg *qa = &c->in[0], *k = &c->in[1], *v = &c->in[2], *dy = &c->in[4];
	int64_t row = q->q0 + t, hk = h / (qa->d.dim[a->r - 2] / a->hk), last = a->r - 1;
	int64_t qo = row_off(a, qa, q->b, row, h), go = row_off(a, dy, q->b, row, h),
			to = row_off(a, &c->out[0], q->b, row, h), n_k = k->d.dim[a->r - 3];
	double delta = row_dot(a, dy, go, &c->in[3], row_off(a, &c->in[3], q->b, row, h), a->dv);
	weights(a, q, h, t);
	for (int64_t s = 0; s < q->n_k; s++) {
		double p = a->p[s], ds;
		int64_t at = ((q->b * (a->r == 4) * n_k + q->k0 + s) * a->hk + hk);
		if (p == 0) continue; /* not seen, or as good as */
		ds = p * (row_dot(a, dy, go, v, row_off(a, v, q->b, q->k0 + s, hk), a->dv) - delta);
		for (int64_t j = 0; j < a->d; j++)
			a->dk[at * a->d + j] += a->scale * ds * cx__elem_get(qa, qo + j * qa->d.stride[last]);
		for (int64_t j = 0; j < a->dv; j++)
			a->dv_sum[at * a->dv + j] += p * cx__elem_get(dy, go + j * dy->d.stride[last]);
		if (c->n_out > 3)
			cx__elem_put(&c->out[3], score_off(&c->out[3].d, q->b, h, a->r == 4 ? t : row, s), ds);
		a->p[s] = ds;
	}
	for (int64_t j = 0; j < a->d; j++) {
		double sum = 0;
		for (int64_t s = 0; s < q->n_k; s++)
			if (a->p[s] != 0)
				sum += a->p[s] *
					   cx__elem_get(k, row_off(a, k, q->b, q->k0 + s, hk) + j * k->d.stride[last]);
		cx__elem_put(&c->out[0], to + j * c->out[0].d.stride[last], a->scale * sum);
	}
}

/* Offset i of an offset table, kept inside [lo, n]: a table that lies must not read outside. */
static int64_t table_at(const cx__ref_arg *off, int64_t i, int64_t lo, int64_t n)
{
	int64_t v = cx__elem_int(off, i * off->d.stride[0]);
	return v < lo ? lo : v > n ? n : v;
}

static void put_all(const cx__ref_arg *y, const double *v)
{
	int64_t n = cx__desc_elems(&y->d);
	for (int64_t i = 0; i < n; i++) cx__elem_put(y, cx__elem_offset(&y->d, i), v ? v[i] : 0);
}

void cx__ref_attention_grad(const cx__ref_call *c)
{
	const cx_attr_attention_grad *at = c->attr;
	const cx_desc *q = &c->in[0].d, *k = &c->in[1].d, *v = &c->in[2].d;
	int32_t r = q->rank;
	int64_t n_q = q->dim[r - 3], n_k = k->dim[r - 3], n_seq = r == 4 ? q->dim[0] : 1;
	bool ragged = cx__ref_has(c, 5);
	void *at_scratch = c->scratch;
	attn a = {.c = c, .r = r, .d = q->dim[r - 1], .dv = v->dim[r - 1], .hk = k->dim[r - 2]};
	a.scale = at->scale != 0 ? at->scale : 1 / sqrt((double)a.d);
	a.p = cx__ref_take(&at_scratch, (uint64_t)n_k * 8);
	a.dk = cx__ref_take(&at_scratch, (uint64_t)cx__desc_elems(k) * 8);
	a.dv_sum = cx__ref_take(&at_scratch, (uint64_t)cx__desc_elems(v) * 8);
	memset(a.dk, 0, (size_t)cx__desc_elems(k) * 8);
	memset(a.dv_sum, 0, (size_t)cx__desc_elems(v) * 8);
	put_all(&c->out[0], NULL);
	if (c->n_out > 3) put_all(&c->out[3], NULL);
	if (ragged) n_seq = c->in[5].d.dim[0] - 1;
	for (int64_t b = 0; b < n_seq; b++) {
		sequence sq = {b, 0, n_q, 0, n_k};
		if (ragged) {
			sq.q0 = table_at(&c->in[5], b, 0, n_q);
			sq.n_q = table_at(&c->in[5], b + 1, sq.q0, n_q) - sq.q0;
			sq.k0 = table_at(&c->in[6], b, 0, n_k);
			sq.n_k = table_at(&c->in[6], b + 1, sq.k0, n_k) - sq.k0;
		}
		for (int64_t t = 0; t < sq.n_q; t++)
			for (int64_t h = 0; h < q->dim[r - 2]; h++) attend(&a, &sq, h, t);
	}
	put_all(&c->out[1], a.dk);
	put_all(&c->out[2], a.dv_sum);
}

/* ---- conv1d: operands x, w, state, dy, bias, dstate, off, slot ---- */

static double at2(const cx__ref_arg *a, int64_t i, int64_t j)
{
	return cx__elem_get(a, i * a->d.stride[0] + j * a->d.stride[1]);
}
static double at3(const cx__ref_arg *a, int64_t i, int64_t j, int64_t k)
{
	return cx__elem_get(a, i * a->d.stride[0] + j * a->d.stride[1] + k * a->d.stride[2]);
}
static int64_t to3(const cx__ref_arg *a, int64_t i, int64_t j, int64_t k)
{
	return i * a->d.stride[0] + j * a->d.stride[1] + k * a->d.stride[2];
}

/* Input of channel ch at time t of the sequence; t < 0 is the window kept in the state. */
static double conv_input(const cx__ref_call *c, const span *s, int64_t t, int64_t ch)
{
	if (t >= 0) return at2(&c->in[0], s->first + t, ch);
	return s->slot < 0 ? 0 : at3(&c->in[2], s->slot, c->in[2].d.dim[1] + t, ch);
}

/* dz[t]: gradient of the sum before the activation. */
static void conv_before(const cx__ref_call *c, const span *s, int64_t ch, double *dz)
{
	const cx_attr_conv1d *at = c->attr;
	int64_t k = c->in[1].d.dim[1], n = s->end - s->first;
	for (int64_t t = 0; t < n; t++) {
		double z = cx__ref_has(c, 4) ? cx__elem_get(&c->in[4], ch * c->in[4].d.stride[0]) : 0,
			   f = 1;
		for (int64_t j = 0; j < k; j++)
			z += at2(&c->in[1], ch, j) * conv_input(c, s, t - k + 1 + j, ch);
		if (at->silu) {
			double g = 1 / (1 + exp(-z));
			f = g * (1 + z * (1 - g));
		}
		dz[t] = f * at2(&c->in[3], s->first + t, ch);
	}
}

/* Gradient of the input at time t, t >= -(K-1): of the outputs it reaches, and of the new state. */
static double conv_into(
	const cx__ref_call *c, const span *s, int64_t t, int64_t ch, const double *dz)
{
	int64_t k = c->in[1].d.dim[1], n = s->end - s->first, i = t - (n - (k - 1));
	double sum = s->slot >= 0 && i >= 0 && cx__ref_has(c, 5) ? at3(&c->in[5], s->slot, i, ch) : 0;
	for (int64_t j = 0; j < k; j++)
		if (t + k - 1 - j >= 0 && t + k - 1 - j < n)
			sum += at2(&c->in[1], ch, j) * dz[t + k - 1 - j];
	return sum;
}

void cx__ref_conv1d_grad(const cx__ref_call *c)
{
	const cx__ref_arg *dx = &c->out[0], *dw = &c->out[1], *db = &c->out[2], *ds = &c->out[3];
	int64_t rows = c->in[0].d.dim[0], n_ch = c->in[0].d.dim[1], k = c->in[1].d.dim[1];
	void *at_scratch = c->scratch;
	double *dz = cx__ref_take(&at_scratch, (uint64_t)(rows + k) * 8);
	double *sum = cx__ref_take(&at_scratch, (uint64_t)(k + 1) * 8);
	put_all(dx, NULL);
	put_all(ds, NULL);
	for (int64_t i = 0; i < cx__desc_elems(&ds->d) && cx__ref_has(c, 5); i++) /* rows not touched */
		cx__elem_move(ds, cx__elem_offset(&ds->d, i), &c->in[5], cx__elem_offset(&c->in[5].d, i));
	for (int64_t ch = 0; ch < n_ch; ch++) {
		memset(sum, 0, (size_t)(k + 1) * sizeof *sum);
		for (int64_t b = 0; b < n_sequences(c, 6, 7); b++) {
			span s = sequence_at(c, b, 6, 7, rows, ds->d.dim[0]);
			if (s.end <= s.first) continue;
			conv_before(c, &s, ch, dz);
			for (int64_t t = 0; t < s.end - s.first; t++) {
				for (int64_t j = 0; j < k; j++)
					sum[j] += dz[t] * conv_input(c, &s, t - k + 1 + j, ch);
				sum[k] += dz[t];
				cx__elem_put(dx, (s.first + t) * dx->d.stride[0] + ch * dx->d.stride[1],
					conv_into(c, &s, t, ch, dz));
			}
			for (int64_t i = 0; s.slot >= 0 && i < k - 1; i++)
				cx__elem_put(ds, to3(ds, s.slot, i, ch), conv_into(c, &s, i - (k - 1), ch, dz));
		}
		for (int64_t j = 0; j < k; j++)
			cx__elem_put(dw, ch * dw->d.stride[0] + j * dw->d.stride[1], sum[j]);
		cx__elem_put(db, ch * db->d.stride[0], sum[k]);
	}
}

/* ---- gated delta rule: operands q, k, v, g, beta, state, dy, dstate, off, slot ---- */

/* One v-head of one sequence. */
typedef struct delta {
	const cx__ref_call *c;
	int64_t first, n, h, hk, dk, dv;
	double scale;
	double *s;                       /* [n+1][dk,dv]: the state before each token, and the last */
	double *grad;                    /* [dk,dv] of the state after the token at hand */
	double *q, *k, *v, *dy, *m, *dd; /* of one token; m = S'k, dd = gradient of delta */
	double *dq_sum, *dk_sum;         /* of all rows [T,nk,dk] */
} delta;

static void delta_row(const delta *d, uint32_t i, int64_t t, int64_t h, int64_t n, double *to)
{
	const cx__ref_arg *a = &d->c->in[i];
	cx__elem_row(a, (d->first + t) * a->d.stride[0] + h * a->d.stride[1], a->d.stride[2], n, to);
}

static void delta_load(const delta *d, int64_t t)
{
	delta_row(d, 0, t, d->hk, d->dk, d->q);
	delta_row(d, 1, t, d->hk, d->dk, d->k);
	delta_row(d, 2, t, d->h, d->dv, d->v);
	delta_row(d, 6, t, d->h, d->dv, d->dy);
	for (int64_t i = 0; i < d->dk; i++) d->q[i] *= d->scale;
}

/* m = (e^g S)' k */
static void delta_read(const delta *d, const double *s, double decay)
{
	for (int64_t j = 0; j < d->dv; j++) d->m[j] = 0;
	for (int64_t i = 0; i < d->dk; i++)
		for (int64_t j = 0; j < d->dv; j++) d->m[j] += decay * s[i * d->dv + j] * d->k[i];
}

static void delta_forward(const delta *d)
{
	int64_t size = d->dk * d->dv;
	for (int64_t t = 0; t < d->n; t++) {
		const double *s = d->s + t * size;
		double decay = exp(at2(&d->c->in[3], d->first + t, d->h)),
			   beta = at2(&d->c->in[4], d->first + t, d->h), *next = d->s + (t + 1) * size;
		delta_load(d, t);
		delta_read(d, s, decay);
		for (int64_t i = 0; i < size; i++)
			next[i] = decay * s[i] + d->k[i / d->dv] * beta * (d->v[i % d->dv] - d->m[i % d->dv]);
	}
}

/* Token t, with S = e^g S_before, delta = beta (v - S'k), S_after = S + k delta', o = S_after' q:
 *   G += q do'; dq = S_after do; ddelta = G'k; dk = G delta; dv = beta ddelta;
 *   dbeta = ddelta.(v - S'k); G -= k dv'; dk -= S dv; dg = sum of G S; G = e^g G. */
static void delta_backward(const delta *d, int64_t t)
{
	const cx__ref_arg *dv_out = &d->c->out[1], *gates = &d->c->out[2];
	int64_t dv = d->dv, nk = d->c->in[0].d.dim[1], row = d->first + t;
	const double *s = d->s + t * d->dk * dv, *after = s + d->dk * dv;
	double decay = exp(at2(&d->c->in[3], row, d->h)), beta = at2(&d->c->in[4], row, d->h);
	double dbeta = 0, dg = 0;
	double *dq = d->dq_sum + (row * nk + d->hk) * d->dk,
		   *dk = d->dk_sum + (row * nk + d->hk) * d->dk;
	delta_load(d, t);
	delta_read(d, s, decay);
	for (int64_t j = 0; j < dv; j++) d->dd[j] = 0;
	for (int64_t i = 0; i < d->dk; i++)
		for (int64_t j = 0; j < dv; j++) {
			double *g = &d->grad[i * dv + j];
			*g += d->q[i] * d->dy[j];
			dq[i] += d->scale * after[i * dv + j] * d->dy[j];
			d->dd[j] += *g * d->k[i];
			dk[i] += *g * beta * (d->v[j] - d->m[j]);
		}
	for (int64_t j = 0; j < dv; j++) dbeta += d->dd[j] * (d->v[j] - d->m[j]);
	for (int64_t i = 0; i < d->dk; i++)
		for (int64_t j = 0; j < dv; j++) {
			double *g = &d->grad[i * dv + j], before = decay * s[i * dv + j];
			*g -= d->k[i] * beta * d->dd[j];
			dk[i] -= before * beta * d->dd[j];
			dg += *g * before;
			*g *= decay;
		}
	for (int64_t j = 0; j < dv; j++)
		cx__elem_put(dv_out, to3(dv_out, row, d->h, j), beta * d->dd[j]);
	cx__elem_put(gates, to3(gates, 0, row, d->h), dg);
	cx__elem_put(gates, to3(gates, 1, row, d->h), dbeta);
}

static int64_t state_at(const cx_desc *d, int64_t slot, int64_t h, int64_t i)
{
	return slot * d->stride[0] + h * d->stride[1] + i / d->dim[3] * d->stride[2] +
		   i % d->dim[3] * d->stride[3];
}

static void delta_head(const delta *d, int64_t slot)
{
	const cx__ref_call *c = d->c;
	const cx__ref_arg *state = &c->in[5], *ds = &c->out[3];
	int64_t size = d->dk * d->dv;
	for (int64_t i = 0; i < size; i++) {
		d->s[i] = slot < 0 ? 0 : cx__elem_get(state, state_at(&state->d, slot, d->h, i));
		d->grad[i] = slot < 0 || !cx__ref_has(c, 7)
						 ? 0
						 : cx__elem_get(&c->in[7], state_at(&c->in[7].d, slot, d->h, i));
	}
	delta_forward(d);
	for (int64_t t = d->n - 1; t >= 0; t--) delta_backward(d, t);
	for (int64_t i = 0; slot >= 0 && i < size; i++)
		cx__elem_put(ds, state_at(&ds->d, slot, d->h, i), d->grad[i]);
}

static void delta_scratch(delta *d, void *scratch)
{
	const cx_desc *q = &d->c->in[0].d;
	uint64_t size = (uint64_t)(d->dk * d->dv) * 8, dk = (uint64_t)d->dk * 8,
			 dv = (uint64_t)d->dv * 8;
	d->s = cx__ref_take(&scratch, (uint64_t)(q->dim[0] + 1) * size);
	d->grad = cx__ref_take(&scratch, size);
	d->q = cx__ref_take(&scratch, dk);
	d->k = cx__ref_take(&scratch, dk);
	d->v = cx__ref_take(&scratch, dv);
	d->dy = cx__ref_take(&scratch, dv);
	d->m = cx__ref_take(&scratch, dv);
	d->dd = cx__ref_take(&scratch, dv);
	d->dq_sum = cx__ref_take(&scratch, 2 * (uint64_t)cx__desc_elems(q) * 8);
	d->dk_sum = d->dq_sum + cx__desc_elems(q);
	memset(d->dq_sum, 0, 2 * (size_t)cx__desc_elems(q) * sizeof(double));
}

void cx__ref_delta_grad(const cx__ref_call *c)
{
	const cx_attr_delta *at = c->attr;
	const cx_desc *q = &c->in[0].d, *v = &c->in[2].d, *st = &c->in[5].d;
	const cx__ref_arg *ds = &c->out[3];
	int64_t n_rows = q->dim[0], nk = q->dim[1], nv = v->dim[1];
	delta d = {.c = c, .dk = q->dim[2], .dv = v->dim[2]};
	d.scale = at->scale != 0 ? at->scale : 1 / sqrt((double)d.dk);
	delta_scratch(&d, c->scratch);
	put_all(&c->out[1], NULL);
	put_all(&c->out[2], NULL);
	put_all(ds, NULL);
	for (int64_t i = 0; i < cx__desc_elems(st) && cx__ref_has(c, 7); i++) /* rows not touched */
		cx__elem_move(ds, cx__elem_offset(&ds->d, i), &c->in[7], cx__elem_offset(&c->in[7].d, i));
	for (int64_t b = 0; b < n_sequences(c, 8, 9); b++) {
		span s = sequence_at(c, b, 8, 9, n_rows, st->dim[0]);
		d.first = s.first;
		d.n = s.end - s.first;
		for (d.h = 0; d.n > 0 && d.h < nv; d.h++) {
			d.hk = at->tiled ? d.h % nk : d.h / (nv / nk);
			delta_head(&d, s.slot);
		}
	}
	put_all(&c->out[0], d.dq_sum);
}
