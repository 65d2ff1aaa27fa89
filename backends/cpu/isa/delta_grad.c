/* delta_grad.c - gradient of the gated delta rule: backwards through a sequence, token by
 * token, f32 throughout.
 *
 * A unit of work is one sequence and one head of keys with the heads of values that read it.
 * The state before a token is wanted in reverse order: it is kept at every n-th token, n about
 * the root of the number of tokens, and made again between those. Formulas:
 * backends/ref/grad.c.
 *
 * Operands q, k, v, g, beta, state, dy, dstate, off, slot. Scratch, per thread: see lay_out(). */
#include "backends/cpu/isa/delta_grad.h"
#include "backends/cpu/isa/lane.h"
#include "backends/cpu/isa/span.h"
#include "backends/cpu/isa/vmath.h"

typedef struct delta {
	const cx_cpu_call *c;
	int64_t first, len, slot, h, hk, dk, dv, dvp; /* rows of states are padded to dvp, zeros */
	float scale;
	cx_delta_grad_scratch s;
} delta;

static float exp1(float x)
{
	float l[16];
	v16_store(l, v16_exp(v16_set1(x)));
	return l[0];
}

static void load_row(const cx_cpu_arg *a, int64_t t, int64_t h, int64_t n, float *y)
{
	const float *p = cx_row_load(
		y, cx_at_off(a, t * a->d.stride[0] + h * a->d.stride[1]), a->d.dtype, a->d.stride[2], n);
	if (p != y) memcpy(y, p, (size_t)n * sizeof *y);
}

static float gate(const delta *d, uint32_t i, int64_t t)
{
	const cx_cpu_arg *a = &d->c->in[i];
	return cx_get_f32(a->p, a->d.dtype, (d->first + t) * a->d.stride[0] + d->h * a->d.stride[1]);
}

/* k, and v, of token t; with the backward ones q (scaled) and dy. */
static void load_token(const delta *d, int64_t t, bool all)
{
	const cx_cpu_arg *in = d->c->in;
	load_row(&in[1], d->first + t, d->hk, d->dk, d->s.k);
	load_row(&in[2], d->first + t, d->h, d->dv, d->s.v);
	if (!all) return;
	load_row(&in[0], d->first + t, d->hk, d->dk, d->s.q);
	load_row(&in[6], d->first + t, d->h, d->dv, d->s.dy);
	for (int64_t i = 0; i < d->dk; i++) d->s.q[i] *= d->scale;
}

/* rest = v - (e^g S)' k */
static void residual(const delta *d, const float *s, float decay)
{
	for (int64_t j = 0; j < d->dvp; j += 16) {
		v16 m = v16_zero();
		for (int64_t i = 0; i < d->dk; i++)
			m = v16_fma(v16_load(s + i * d->dvp + j), v16_set1(d->s.k[i]), m);
		v16_store(d->s.rest + j, v16_sub(v16_load(d->s.v + j), v16_mul(m, v16_set1(decay))));
	}
}

/* to = e^g from + k (beta rest)' */
static void advance(const delta *d, float *to, const float *from, int64_t t)
{
	float decay = exp1(gate(d, 3, t)), beta = gate(d, 4, t);
	load_token(d, t, false);
	residual(d, from, decay);
	for (int64_t i = 0; i < d->dk; i++) {
		v16 kb = v16_set1(d->s.k[i] * beta), f = v16_set1(decay);
		for (int64_t j = i * d->dvp; j < (i + 1) * d->dvp; j += 16)
			v16_store(to + j,
				v16_fma(kb, v16_load(d->s.rest + j - i * d->dvp), v16_mul(v16_load(from + j), f)));
	}
}

/* G += q dy'; dd = G'k; dq += scale (S dy + k (delta.dy)); dk += G delta. */
static void before_step(
	const delta *d, const float *s, float decay, float beta, float *dq, float *dk)
{
	float dot = beta * cx_dot_f32(d->s.rest, d->s.dy, d->dvp);
	memset(d->s.dd, 0, (size_t)d->dvp * sizeof *d->s.dd);
	for (int64_t i = 0; i < d->dk; i++) {
		v16 q = v16_set1(d->s.q[i]), k = v16_set1(d->s.k[i]), a = v16_zero(), b = v16_zero();
		float *g = d->s.grad + i * d->dvp;
		for (int64_t j = 0; j < d->dvp; j += 16) {
			v16 dy = v16_load(d->s.dy + j), gv = v16_fma(q, dy, v16_load(g + j));
			v16_store(g + j, gv);
			v16_store(d->s.dd + j, v16_fma(k, gv, v16_load(d->s.dd + j)));
			a = v16_fma(v16_load(s + i * d->dvp + j), dy, a);
			b = v16_fma(gv, v16_load(d->s.rest + j), b);
		}
		dq[i] += d->scale * (decay * v16_sum(a) + d->s.k[i] * dot);
		dk[i] += beta * v16_sum(b);
	}
}

/* dd is beta dd by now. G -= k dd'; dk -= S dd; G = e^g G; gives the sum of G S, times e^g both. */
static float after_step(const delta *d, const float *s, float decay, float *dk)
{
	v16 f = v16_set1(decay), dg = v16_zero();
	for (int64_t i = 0; i < d->dk; i++) {
		v16 k = v16_set1(-d->s.k[i]), a = v16_zero();
		float *g = d->s.grad + i * d->dvp;
		for (int64_t j = 0; j < d->dvp; j += 16) {
			v16 dd = v16_load(d->s.dd + j), sv = v16_load(s + i * d->dvp + j),
				gv = v16_mul(v16_fma(k, dd, v16_load(g + j)), f);
			v16_store(g + j, gv);
			a = v16_fma(sv, dd, a);
			dg = v16_fma(gv, sv, dg);
		}
		dk[i] -= decay * v16_sum(a);
	}
	return v16_sum(dg);
}

/* Token t, given the state before it. */
static void token(const delta *d, const float *s, int64_t t)
{
	const cx_cpu_arg *dv = &d->c->out[1], *gates = &d->c->out[2];
	float decay = exp1(gate(d, 3, t)), beta = gate(d, 4, t), *dk = d->s.dk_sum + t * d->dk, dg,
		  dbeta;
	int64_t row = d->first + t, nv = dv->d.dim[1], rows = dv->d.dim[0];
	load_token(d, t, true);
	residual(d, s, decay);
	before_step(d, s, decay, beta, d->s.dq_sum + t * d->dk, dk);
	dbeta = cx_dot_f32(d->s.dd, d->s.rest, d->dvp);
	for (int64_t j = 0; j < d->dvp; j += 16)
		v16_store(d->s.dd + j, v16_mul(v16_load(d->s.dd + j), v16_set1(beta)));
	dg = after_step(d, s, decay, dk);
	cx_row_store(cx_at_off(dv, (row * nv + d->h) * d->dv), dv->d.dtype, 1, d->s.dd, d->dv);
	cx_f32(gates->p)[row * nv + d->h] = dg;
	cx_f32(gates->p)[(rows + row) * nv + d->h] = dbeta;
}

/* A state of the slot, rows padded; zeros without one. */
static void load_state(const delta *d, const cx_cpu_arg *a, bool there, float *to)
{
	memset(to, 0, (size_t)(d->dk * d->dvp) * sizeof *to);
	for (int64_t i = 0; there && d->slot >= 0 && i < d->dk; i++) {
		const int64_t *st = a->d.stride;
		const float *p = cx_row_load(to + i * d->dvp,
			cx_at_off(a, d->slot * st[0] + d->h * st[1] + i * st[2]), CX_F32, st[3], d->dv);
		if (p != to + i * d->dvp) memcpy(to + i * d->dvp, p, (size_t)d->dv * sizeof *to);
	}
}

static void head(const delta *d)
{
	const cx_cpu_arg *ds = &d->c->out[3];
	int64_t size = d->dk * d->dvp, n = d->s.every;
	float *mark = d->s.marks;
	load_state(d, &d->c->in[5], true, mark);
	load_state(d, &d->c->in[7], cx_cpu_has(d->c, 7), d->s.grad);
	for (int64_t t = 0; t < (d->len - 1) / n * n; t++) { /* states before tokens 0, n, 2n ... */
		const float *from = t % n == 0 ? mark : d->s.states + (t % n - 1) * size;
		float *to = (t + 1) % n == 0 ? mark + size : d->s.states + t % n * size;
		advance(d, to, from, t);
		if ((t + 1) % n == 0) mark += size;
	}
	for (int64_t t0 = (d->len - 1) / n * n; t0 >= 0; t0 -= n) {
		int64_t end = t0 + n < d->len ? t0 + n : d->len;
		mark = d->s.marks + t0 / n * size;
		for (int64_t t = t0; t + 1 < end; t++)
			advance(d, d->s.states + (t - t0) * size,
				t == t0 ? mark : d->s.states + (t - t0 - 1) * size, t);
		for (int64_t t = end - 1; t >= t0; t--)
			token(d, t == t0 ? mark : d->s.states + (t - t0 - 1) * size, t);
	}
	for (int64_t i = 0; d->slot >= 0 && i < d->dk; i++)
		memcpy(cx_at_off(ds, ((d->slot * ds->d.dim[1] + d->h) * d->dk + i) * d->dv),
			d->s.grad + i * d->dvp, (size_t)d->dv * sizeof(float));
}

/* All heads of values that read head hk of keys. */
static void unit(delta *d, bool tiled)
{
	const cx_desc *q = &d->c->in[0].d;
	const cx_cpu_arg *y = &d->c->out[0];
	int64_t nk = q->dim[1], nv = d->c->in[2].d.dim[1];
	memset(d->s.dq_sum, 0, (size_t)(d->len * d->dk) * sizeof(float));
	memset(d->s.dk_sum, 0, (size_t)(d->len * d->dk) * sizeof(float));
	for (d->h = 0; d->h < nv; d->h++)
		if ((tiled ? d->h % nk : d->h / (nv / nk)) == d->hk) head(d);
	for (int64_t t = 0; t < d->len; t++)
		for (int64_t i = 0; i < 2; i++)
			cx_row_store(cx_at_off(y, ((i * q->dim[0] + d->first + t) * nk + d->hk) * d->dk),
				y->d.dtype, 1, (i ? d->s.dk_sum : d->s.dq_sum) + t * d->dk, d->dk);
}

/* What no sequence touches: zeros, and rows of the state that pass their gradient on. */
static void untouched(const cx_cpu_call *c)
{
	const cx_cpu_arg *ds = &c->out[3], *in = &c->in[7];
	int64_t n = cx__desc_elems(&ds->d), cols = ds->d.dim[3];
	for (int o = 0; o < 4; o++)
		memset(
			c->out[o].p, 0, (size_t)cx__desc_elems(&c->out[o].d) * cx_cpu_size(c->out[o].d.dtype));
	for (int64_t r = 0; cx_cpu_has(c, 7) && n && r < n / cols; r++) {
		float *to = cx_f32(ds->p) + r * cols;
		const float *p =
			cx_row_load(to, cx_at_off(in, cx_cpu_off(&in->d, 3, r)), CX_F32, in->d.stride[3], cols);
		if (p != to) memcpy(to, p, (size_t)cols * sizeof *to);
	}
}

CX_CPU_FN(cx_delta_grad_head_f32)
{
	const cx_attr_delta *at = c->attr;
	const cx_desc *q = &c->in[0].d, *v = &c->in[2].d;
	int64_t n_seq = cx_span_count(c, 8, 9), nk = q->dim[1];
	delta d = {.c = c, .dk = q->dim[2], .dv = v->dim[2], .dvp = cx_pad16(v->dim[2])};
	d.scale = at->scale != 0.0f ? at->scale : 1.0f / sqrtf((float)d.dk);
	cx_delta_grad_lay_out(&d.s, cx_f32(c->scratch), c->desc_in, t->rank);
	if (t->rank == 0) untouched(c);
	if (t->n > 1) cx__pool_barrier(t->pool);
	/* pads of these are never written again, and must not be NaN */
	memset(d.s.v, 0, (size_t)d.dvp * sizeof(float));
	memset(d.s.dy, 0, (size_t)d.dvp * sizeof(float));
	for (int64_t u = 0; u < n_seq * nk; u++) {
		cx_span s = cx_span_at(c, u / nk, 8, 9, q->dim[0], c->in[5].d.dim[0]);
		if (s.end <= s.first || u % t->n != t->rank) continue;
		d.first = s.first;
		d.len = s.end - s.first;
		d.slot = s.slot;
		d.hk = u % nk;
		unit(&d, at->tiled);
	}
}
