/* conv_grad.c - gradient of conv1d, 16 channels at a time: once through a sequence for the gradient
 * of the sums before the activation (dz), and for taps and bias; once for that of the inputs.
 *
 * Operands x, w, state, dy, bias, dstate, off, slot. Scratch, per thread: dz of a sequence,
 * taps and their gradient, 16 channels each. */
#include "backends/cpu/isa/lane.h"
#include "backends/cpu/isa/span.h"
#include "backends/cpu/isa/vmath.h"

typedef struct conv {
	const cx_cpu_arg *x, *state, *dy, *dstate; /* dstate: NULL if there is none */
	const cx_cpu_arg *dx, *ds;
	int64_t k, ch; /* taps; first of the 16 channels */
	size_t n;      /* channels that are there */
	bool silu;
	v16 bias, dbias;
	float *dz, *w, *dw; /* [T + K - 1, 16] [K, 16] [K, 16] */
} conv;

/* 16 channels of row i, j of a state. */
CX_INLINE size_t state_at(const conv *p, const cx_cpu_arg *a, int64_t i, int64_t j)
{
	return (size_t)(i * a->d.stride[0] + j * a->d.stride[1] + p->ch);
}

/* The input at time t of the sequence; t < 0 is the window in the state. */
CX_INLINE v16 conv_input(const conv *p, const cx_span *s, int64_t t)
{
	if (t >= 0)
		return v16_load_as(
			p->x->d.dtype, p->x->p, (size_t)((s->first + t) * p->x->d.stride[0] + p->ch), p->n);
	if (s->slot < 0) return v16_zero();
	return v16_load_as(
		p->state->d.dtype, p->state->p, state_at(p, p->state, s->slot, p->k - 1 + t), p->n);
}

static void outputs(conv *p, const cx_span *s)
{
	int64_t len = s->end - s->first;
	v16 one = v16_set1(1.0f);
	for (int64_t t = 0; t < len; t++) {
		v16 d = v16_load_as(
			p->dy->d.dtype, p->dy->p, (size_t)((s->first + t) * p->dy->d.stride[0] + p->ch), p->n);
		if (p->silu) {
			v16 z = v16_zero(), g;
			for (int64_t j = 0; j < p->k; j++)
				z = v16_fma(v16_load(p->w + 16 * j), conv_input(p, s, t - p->k + 1 + j), z);
			z = v16_add(z, p->bias);
			g = v16_sigmoid(z);
			d = v16_mul(d, v16_mul(g, v16_fma(z, v16_sub(one, g), one)));
		}
		v16_store(p->dz + 16 * t, d);
		p->dbias = v16_add(p->dbias, d);
		for (int64_t j = 0; j < p->k; j++)
			v16_store(p->dw + 16 * j,
				v16_fma(d, conv_input(p, s, t - p->k + 1 + j), v16_load(p->dw + 16 * j)));
	}
}

/* Gradient of the input at time t: of the new state's window, and of the outputs that it
 * reaches. */
CX_INLINE v16 conv_into(const conv *p, const cx_span *s, int64_t t)
{
	int64_t len = s->end - s->first, i = t - (len - (p->k - 1)), most = t + p->k - 1;
	v16 sum = v16_zero();
	if (p->dstate && s->slot >= 0 && i >= 0)
		sum = v16_load_as(CX_F32, p->dstate->p, state_at(p, p->dstate, s->slot, i), p->n);
	for (int64_t j = most < len ? 0 : most - len + 1; j < p->k && j <= most; j++)
		sum = v16_fma(v16_load(p->w + 16 * j), v16_load(p->dz + 16 * (most - j)), sum);
	return sum;
}

static void inputs(const conv *p, const cx_span *s)
{
	for (int64_t t = 0; t < s->end - s->first; t++)
		v16_store_as(p->dx->d.dtype, p->dx->p,
			(size_t)((s->first + t) * p->dx->d.stride[0] + p->ch), conv_into(p, s, t), p->n);
	for (int64_t i = 0; s->slot >= 0 && i < p->k - 1; i++)
		v16_store_n(cx_f32(p->ds->p) + state_at(p, p->ds, s->slot, i),
			conv_into(p, s, i - (p->k - 1)), p->n);
}

/* What no sequence touches: rows of dx are 0, rows of the state pass their gradient on. */
static void untouched(const conv *p)
{
	const cx_desc *x = &p->dx->d, *s = &p->ds->d;
	for (int64_t r = 0; r < x->dim[0]; r++)
		v16_store_as(x->dtype, p->dx->p, (size_t)(r * x->stride[0] + p->ch), v16_zero(), p->n);
	for (int64_t i = 0; i < s->dim[0]; i++)
		for (int64_t j = 0; j < s->dim[1]; j++)
			v16_store_n(cx_f32(p->ds->p) + state_at(p, p->ds, i, j),
				p->dstate ? v16_load_as(CX_F32, p->dstate->p, state_at(p, p->dstate, i, j), p->n)
						  : v16_zero(),
				p->n);
}

static void channels(conv *p, const cx_cpu_call *c)
{
	const cx_cpu_arg *w = &c->in[1], *bias = &c->in[4];
	float b[16] = {0};
	memset(p->w, 0, 2 * 16 * (size_t)p->k * sizeof *p->w); /* dw is behind it */
	for (size_t i = 0; i < p->n; i++) {
		int64_t ch = p->ch + (int64_t)i;
		for (int64_t j = 0; j < p->k; j++)
			p->w[16 * j + (int64_t)i] =
				cx_get_f32(w->p, w->d.dtype, ch * w->d.stride[0] + j * w->d.stride[1]);
		if (cx_cpu_has(c, 4)) b[i] = cx_get_f32(bias->p, bias->d.dtype, ch * bias->d.stride[0]);
	}
	p->bias = v16_load(b);
	p->dbias = v16_zero();
	untouched(p);
	for (int64_t q = 0; q < cx_span_count(c, 6, 7); q++) {
		cx_span s = cx_span_at(c, q, 6, 7, p->x->d.dim[0], p->ds->d.dim[0]);
		if (s.end <= s.first) continue;
		outputs(p, &s);
		inputs(p, &s);
	}
	for (size_t i = 0; i < p->n; i++)
		for (int64_t j = 0; j < p->k; j++)
			cx_f32(c->out[1].p)[(p->ch + (int64_t)i) * p->k + j] = p->dw[16 * j + (int64_t)i];
	v16_store_n(cx_f32(c->out[2].p) + p->ch, p->dbias, p->n);
}

CX_CPU_FN(cx_conv1d_grad_channel_f32)
{
	int64_t ch = c->in[1].d.dim[0], k = c->in[1].d.dim[1], rows = c->in[0].d.dim[0], lo, hi;
	conv p = {.x = &c->in[0],
		.state = &c->in[2],
		.dy = &c->in[3],
		.dstate = cx_cpu_has(c, 5) ? &c->in[5] : NULL,
		.dx = &c->out[0],
		.ds = &c->out[3],
		.k = k,
		.silu = ((const cx_attr_conv1d *)c->attr)->silu};
	p.dz = cx_f32(c->scratch) + (int64_t)t->rank * 16 * (rows + 3 * k);
	p.w = p.dz + 16 * (rows + k);
	p.dw = p.w + 16 * k;
	cx_cpu_share(t, ch, 16, &lo, &hi);
	for (p.ch = lo; p.ch < hi; p.ch += 16) {
		p.n = hi - p.ch < 16 ? (size_t)(hi - p.ch) : 16;
		channels(&p, c);
	}
}
