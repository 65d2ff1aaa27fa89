/* scan.c - ops that carry a state along a sequence: convolution window, gated delta rule, linear
 * recurrences.
 *
 * conv1d and delta_rule run over a ragged batch and update rows of a state tensor in place; inside
 * a call the state is double, and is rounded once when it is written back. spec/llm.md 2.4 to 2.5;
 * resets: spec/memory.md 1.3. */
#include "backends/ref/span.h"

#include <math.h>
#include <string.h>

static void zero_all(const cx__ref_arg *y)
{
	int64_t n = cx__desc_elems(&y->d);
	for (int64_t i = 0; i < n; i++) cx__elem_put(y, cx__elem_offset(&y->d, i), 0);
}

/* ---- conv1d ---- */

/* Input of channel ch at time t of the sequence; t < 0 is the window kept in the state. */
static double conv_input(const cx__ref_call *c, const span *s, int64_t t, int64_t ch)
{
	const cx__ref_arg *x = &c->in[0], *state = &c->out[1];
	int64_t window = state->d.dim[1];
	if (t >= 0) return cx__elem_get(x, (s->first + t) * x->d.stride[0] + ch * x->d.stride[1]);
	if (s->slot < 0) return 0;
	return cx__elem_get(state,
		s->slot * state->d.stride[0] + (window + t) * state->d.stride[1] + ch * state->d.stride[2]);
}

static void conv_sequence(const cx__ref_call *c, const span *s, int64_t ch)
{
	const cx_attr_conv1d *at = c->attr;
	const cx__ref_arg *x = &c->in[0], *w = &c->in[1], *bias = &c->in[2], *state = &c->out[1],
					  *y = &c->out[0];
	int64_t k = w->d.dim[1], n = s->end - s->first;
	for (int64_t t = 0; t < n; t++) {
		double sum = 0;
		for (int64_t j = 0; j < k; j++)
			sum += cx__elem_get(w, ch * w->d.stride[0] + j * w->d.stride[1]) *
				   conv_input(c, s, t - k + 1 + j, ch);
		if (cx__ref_has(c, 2)) sum += cx__elem_get(bias, ch * bias->d.stride[0]);
		if (at->silu) sum = (float)cx__ref_unary(CX_OP_silu, cx__elem_round(y->d.dtype, sum));
		cx__elem_put(y, (s->first + t) * y->d.stride[0] + ch * y->d.stride[1], sum);
	}
	for (int64_t i = 0; s->slot >= 0 && i < k - 1;
		 i++) { /* ascending: older entries are read before written */
		int64_t t = n - (k - 1) + i, to = s->slot * state->d.stride[0] + i * state->d.stride[1] +
										  ch * state->d.stride[2];
		if (t >= 0)
			cx__elem_move(state, to, x, (s->first + t) * x->d.stride[0] + ch * x->d.stride[1]);
		else cx__elem_put(state, to, conv_input(c, s, t, ch));
	}
}

void cx__ref_conv1d(const cx__ref_call *c)
{
	const cx__ref_arg *x = &c->in[0], *state = &c->out[1];
	zero_all(&c->out[0]); /* rows of no sequence */
	for (int64_t b = 0; b < n_sequences(c, 4, 5); b++) {
		span s = sequence_at(c, b, 4, 5, x->d.dim[0], state->d.dim[0]);
		if (s.end <= s.first) continue;
		for (int64_t ch = 0; ch < x->d.dim[1]; ch++) conv_sequence(c, &s, ch);
	}
}

/* ---- gated delta rule ---- */

/* One v-head of one sequence. Token t of head h: k(t), q(t) have dk elements, v(t) dv. */
typedef struct delta {
	const cx__ref_call *c;
	int64_t first, n, h, hk, dk, dv, n_chunk;
	double scale;
	double *s;             /* [dk,dv] */
	double *k, *q, *v, *g; /* of one chunk: [n,dk] [n,dk] [n,dv] [n]; v becomes delta */
	double *a;             /* [n]: a row of A */
} delta;

static void delta_load(const delta *d, int64_t t, double *q, double *k, double *v)
{
	const cx__ref_arg *in = d->c->in;
	int64_t row = d->first + t;
	cx__elem_row(
		&in[0], row * in[0].d.stride[0] + d->hk * in[0].d.stride[1], in[0].d.stride[2], d->dk, q);
	cx__elem_row(
		&in[1], row * in[1].d.stride[0] + d->hk * in[1].d.stride[1], in[1].d.stride[2], d->dk, k);
	cx__elem_row(
		&in[2], row * in[2].d.stride[0] + d->h * in[2].d.stride[1], in[2].d.stride[2], d->dv, v);
	for (int64_t i = 0; i < d->dk; i++) q[i] *= d->scale;
}

/* g or beta, operands 3 and 4, [T,nv]. */
static double delta_gate(const delta *d, uint32_t operand, int64_t t)
{
	const cx__ref_arg *a = &d->c->in[operand];
	return cx__elem_get(a, (d->first + t) * a->d.stride[0] + d->h * a->d.stride[1]);
}

static void delta_store(const delta *d, int64_t t, const double *o)
{
	const cx__ref_arg *y = &d->c->out[0];
	for (int64_t j = 0; j < d->dv; j++)
		cx__elem_put(
			y, (d->first + t) * y->d.stride[0] + d->h * y->d.stride[1] + j * y->d.stride[2], o[j]);
}

/* out[j] = sum over i of s[i,j] x[i]. */
static void state_read(const delta *d, const double *x, double *out)
{
	for (int64_t j = 0; j < d->dv; j++) {
		out[j] = 0;
		for (int64_t i = 0; i < d->dk; i++) out[j] += d->s[i * d->dv + j] * x[i];
	}
}

static double dot(const double *a, const double *b, int64_t n)
{
	double sum = 0;
	for (int64_t i = 0; i < n; i++) sum += a[i] * b[i];
	return sum;
}

/* Token by token, in the order of spec/llm.md 2.4: decay, read, correct, write, read with q. */
static void delta_recurrent(const delta *d)
{
	double *m = d->a; /* [dv] */
	for (int64_t t = 0; t < d->n; t++) {
		double decay = exp(delta_gate(d, 3, t)), beta = delta_gate(d, 4, t);
		delta_load(d, t, d->q, d->k, d->v);
		for (int64_t i = 0; i < d->dk * d->dv; i++) d->s[i] *= decay;
		state_read(d, d->k, m);
		for (int64_t j = 0; j < d->dv; j++) m[j] = beta * (d->v[j] - m[j]);
		for (int64_t i = 0; i < d->dk; i++)
			for (int64_t j = 0; j < d->dv; j++) d->s[i * d->dv + j] += d->k[i] * m[j];
		state_read(d, d->q, m);
		delta_store(d, t, m);
	}
}

/* Tokens t0..t0+n-1 at once, spec/llm.md 2.5: (I+A) D = diag(beta) V - diag(beta e^G) K S by
 * forward substitution, O = diag(e^G) Q S + P D, S = e^G_last S + (diag(e^(G_last-G)) K)' D. Decays
 * are formed from differences of G. */
static void delta_chunk(const delta *d, int64_t t0, int64_t n)
{
	int64_t dk = d->dk, dv = d->dv;
	double *o = d->a + d->n_chunk; /* [dv] */
	for (int64_t i = 0; i < n; i++) {
		double beta = delta_gate(d, 4, t0 + i), *v = d->v + i * dv, *k = d->k + i * dk;
		delta_load(d, t0 + i, d->q + i * dk, k, v);
		d->g[i] = delta_gate(d, 3, t0 + i) + (i ? d->g[i - 1] : 0);
		state_read(d, k, o);
		for (int64_t j = 0; j < dv; j++) v[j] = beta * (v[j] - exp(d->g[i]) * o[j]);
		for (int64_t p = 0; p < i; p++) {
			d->a[p] = beta * exp(d->g[i] - d->g[p]) * dot(k, d->k + p * dk, dk);
			for (int64_t j = 0; j < dv; j++) v[j] -= d->a[p] * d->v[p * dv + j];
		}
	}
	for (int64_t i = 0; i < n; i++) {
		const double *q = d->q + i * dk;
		state_read(d, q, o);
		for (int64_t j = 0; j < dv; j++) o[j] *= exp(d->g[i]);
		for (int64_t p = 0; p <= i; p++) {
			double w = exp(d->g[i] - d->g[p]) * dot(q, d->k + p * dk, dk);
			for (int64_t j = 0; j < dv; j++) o[j] += w * d->v[p * dv + j];
		}
		delta_store(d, t0 + i, o);
	}
	for (int64_t i = 0; i < dk * dv; i++) d->s[i] *= exp(d->g[n - 1]);
	for (int64_t p = 0; p < n; p++) {
		double decay = exp(d->g[n - 1] - d->g[p]);
		for (int64_t i = 0; i < dk; i++)
			for (int64_t j = 0; j < dv; j++)
				d->s[i * dv + j] += decay * d->k[p * dk + i] * d->v[p * dv + j];
	}
}

static void delta_head(delta *d, int64_t slot)
{
	const cx_attr_delta *at = d->c->attr;
	const cx__ref_arg *state = &d->c->out[1];
	for (int64_t i = 0; i < d->dk * d->dv; i++)
		d->s[i] = slot < 0
					  ? 0
					  : cx__elem_get(state, slot * state->d.stride[0] + d->h * state->d.stride[1] +
												i / d->dv * state->d.stride[2] +
												i % d->dv * state->d.stride[3]);
	if (at->chunk == 0) {
		delta_recurrent(d);
	} else {
		for (int64_t t = 0; t < d->n; t += d->n_chunk)
			delta_chunk(d, t, d->n - t < d->n_chunk ? d->n - t : d->n_chunk);
	}
	for (int64_t i = 0; slot >= 0 && i < d->dk * d->dv; i++)
		cx__elem_put(state,
			slot * state->d.stride[0] + d->h * state->d.stride[1] + i / d->dv * state->d.stride[2] +
				i % d->dv * state->d.stride[3],
			d->s[i]);
}

void cx__ref_delta_rule(const cx__ref_call *c)
{
	const cx_attr_delta *at = c->attr;
	const cx_desc *q = &c->in[0].d, *v = &c->in[2].d;
	int64_t n_rows = q->dim[0], nk = q->dim[1], nv = v->dim[1];
	delta d = {.c = c, .dk = q->dim[2], .dv = v->dim[2]};
	void *at_scratch = c->scratch;
	d.n_chunk = at->chunk == 0 ? 1 : at->chunk < n_rows ? at->chunk : n_rows;
	d.scale = at->scale != 0 ? at->scale : 1 / sqrt((double)d.dk);
	d.s = cx__ref_take(&at_scratch, (uint64_t)(d.dk * d.dv) * 8);
	d.k = cx__ref_take(&at_scratch, (uint64_t)(d.n_chunk * d.dk) * 8);
	d.q = cx__ref_take(&at_scratch, (uint64_t)(d.n_chunk * d.dk) * 8);
	d.v = cx__ref_take(&at_scratch, (uint64_t)(d.n_chunk * d.dv) * 8);
	d.g = cx__ref_take(&at_scratch, (uint64_t)d.n_chunk * 8);
	d.a = cx__ref_take(&at_scratch, (uint64_t)(d.n_chunk + d.dv) * 8);
	zero_all(&c->out[0]);
	for (int64_t b = 0; b < n_sequences(c, 6, 7); b++) {
		span s = sequence_at(c, b, 6, 7, n_rows, c->out[1].d.dim[0]);
		d.first = s.first;
		d.n = s.end - s.first;
		for (d.h = 0; d.n > 0 && d.h < nv; d.h++) {
			d.hk = at->tiled ? d.h % nk : d.h / (nv / nk);
			delta_head(&d, s.slot);
		}
	}
}

/* ---- linear recurrences ---- */

/* scan and cscan share the loop: h = a h + b per batch row and channel, with n = 1 or 2 components.
 */
static void recurrence(const cx__ref_call *c, int n)
{
	const cx_attr_reset *at = c->attr;
	const cx__ref_arg *a = &c->in[0], *b = &c->in[n], *h0 = &c->in[2 * n], *y = &c->out[0],
					  *last = &c->out[n];
	const cx__ref_arg *reset = cx__ref_has(c, 3 * (uint32_t)n) ? &c->in[3 * n] : NULL;
	int64_t n_batch = y->d.dim[0], n_steps = y->d.dim[1], n_chan = y->d.dim[2];
	for (int64_t r = 0; r < n_batch; r++)
		for (int64_t ch = 0; ch < n_chan; ch++) {
			double h[2] = {0}, x[2] = {0}, u[2] = {0};
			for (int i = 0; i < n; i++)
				h[i] = cx__elem_get(&h0[i], r * h0[i].d.stride[0] + ch * h0[i].d.stride[1]);
			for (int64_t s = 0; s < n_steps; s++) {
				int64_t t = at->reverse ? n_steps - 1 - s : s;
				if (reset && cx__elem_int(reset, r * reset->d.stride[0] + t * reset->d.stride[1]))
					h[0] = h[1] = 0;
				for (int i = 0; i < n; i++) {
					const int64_t *as = a[i].d.stride, *bs = b[i].d.stride;
					x[i] = cx__elem_get(&a[i], r * as[0] + t * as[1] + ch * as[2]);
					u[i] = cx__elem_get(&b[i], r * bs[0] + t * bs[1] + ch * bs[2]);
				}
				double im = n == 2 ? x[0] * h[1] + x[1] * h[0] + u[1] : 0;
				h[0] = n == 2 ? x[0] * h[0] - x[1] * h[1] + u[0] : x[0] * h[0] + u[0];
				h[1] = im;
				for (int i = 0; i < n; i++) {
					const int64_t *ys = y[i].d.stride;
					cx__elem_put(&y[i], r * ys[0] + t * ys[1] + ch * ys[2], h[i]);
				}
			}
			for (int i = 0; i < n; i++)
				cx__elem_put(&last[i], r * last[i].d.stride[0] + ch * last[i].d.stride[1], h[i]);
		}
}

void cx__ref_scan(const cx__ref_call *c)
{
	recurrence(c, 1);
}
void cx__ref_cscan(const cx__ref_call *c)
{
	recurrence(c, 2);
}
