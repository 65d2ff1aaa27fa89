/* seq.c - conv1d, scan, cscan: a state carried along a sequence; 16 channels side by side, each in
 * order of time. */
#include "backends/cpu/isa/lane.h"
#include "backends/cpu/isa/span.h"
#include "backends/cpu/isa/vmath.h"

/* ---- conv1d ---- */

enum { TILE = 256 }; /* channels that go through time together: whole cache lines, few pages */

typedef struct conv {
	const cx_cpu_arg *x, *y, *state;
	const float *w, *bias; /* [K, pad] and [pad], f32 */
	int64_t k, pad;
	bool silu;
} conv;

/* Channels c.. of the input at time t of the sequence; t < 0 is the window in the state. */
CX_INLINE v16 conv_input(const conv *p, const cx_span *s, int64_t t, int64_t c, size_t n)
{
	const cx_desc *sd = &p->state->d;
	if (t >= 0)
		return v16_load_as(
			p->x->d.dtype, p->x->p, (size_t)((s->first + t) * p->x->d.stride[0] + c), n);
	if (s->slot < 0) return v16_zero();
	return v16_load_as(sd->dtype, p->state->p,
		(size_t)(s->slot * sd->stride[0] + (p->k - 1 + t) * sd->stride[1] + c), n);
}

/* Channels [from, to) of a sequence, then their window of the state. */
static void conv_channels(const conv *p, const cx_span *s, int64_t from, int64_t to)
{
	const cx_desc *sd = &p->state->d;
	int64_t len = s->end - s->first;
	for (int64_t t = 0; t < len; t++)
		for (int64_t c = from; c < to; c += 16) {
			size_t n = to - c < 16 ? (size_t)(to - c) : 16;
			v16 sum = v16_zero();
			for (int64_t j = 0; j < p->k; j++)
				sum = v16_fma(
					v16_load(p->w + j * p->pad + c), conv_input(p, s, t - p->k + 1 + j, c, n), sum);
			if (p->bias) sum = v16_add(sum, v16_load(p->bias + c));
			if (p->silu) sum = v16_silu(sum);
			v16_store_as(
				p->y->d.dtype, p->y->p, (size_t)((s->first + t) * p->y->d.stride[0] + c), sum, n);
		}
	if (s->slot < 0) return;
	for (int64_t i = 0; i < p->k - 1; i++) /* ascending: older entries are read before written */
		for (int64_t c = from; c < to; c += 16) {
			size_t n = to - c < 16 ? (size_t)(to - c) : 16;
			v16_store_as(sd->dtype, p->state->p,
				(size_t)(s->slot * sd->stride[0] + i * sd->stride[1] + c),
				conv_input(p, s, len - (p->k - 1) + i, c, n), n);
		}
}

/* Rows of no sequence are zeros: row r, given how many sequences end before it. */
static bool conv_in_sequence(const cx_cpu_call *c, int64_t r, int64_t *done)
{
	for (; *done < cx_span_count(c, 4, 5); (*done)++) {
		cx_span s = cx_span_at(c, *done, 4, 5, c->in[0].d.dim[0], c->out[1].d.dim[0]);
		if (r < s.end) return r >= s.first;
	}
	return false;
}

/* Scratch: w as [K, pad] and bias, f32, shared: each thread fills the channels that it works on. */
CX_CPU_FN(cx_conv1d_channel_f32)
{
	const cx_cpu_arg *w = &c->in[1], *bias = &c->in[2];
	conv p = {.x = &c->in[0],
		.y = &c->out[0],
		.state = &c->out[1],
		.silu = ((const cx_attr_conv1d *)c->attr)->silu};
	int64_t ch = w->d.dim[0], lo, hi;
	float *wt = cx_f32(c->scratch), *b;
	p.k = w->d.dim[1];
	p.pad = cx_pad16(ch);
	b = wt + p.k * p.pad;
	p.w = wt;
	p.bias = cx_cpu_has(c, 2) ? b : NULL;
	cx_cpu_share(t, p.pad, 16, &lo, &hi);
	for (int64_t i = lo; i < hi; i++) {
		for (int64_t j = 0; j < p.k; j++)
			wt[j * p.pad + i] =
				i < ch ? cx_get_f32(w->p, w->d.dtype, i * w->d.stride[0] + j * w->d.stride[1])
					   : 0.0f;
		b[i] = p.bias && i < ch ? cx_get_f32(bias->p, bias->d.dtype, i * bias->d.stride[0]) : 0.0f;
	}
	hi = hi < ch ? hi : ch;
	for (int64_t i = lo; i < hi; i += TILE) {
		int64_t end = i + TILE < hi ? i + TILE : hi, done = 0;
		for (int64_t q = 0; q < cx_span_count(c, 4, 5); q++) {
			cx_span s = cx_span_at(c, q, 4, 5, p.x->d.dim[0], p.state->d.dim[0]);
			if (s.end > s.first) conv_channels(&p, &s, i, end);
		}
		for (int64_t r = 0; cx_cpu_has(c, 4) && r < p.x->d.dim[0]; r++)
			if (!conv_in_sequence(c, r, &done))
				memset(cx_at_off(p.y, r * p.y->d.stride[0] + i), 0,
					(size_t)(end - i) * cx_cpu_size(p.y->d.dtype));
	}
}

/* ---- linear recurrences ---- */

/* 16 channels of one batch row; parts 1 (scan) or 2 (cscan: real, imaginary). */
CX_INLINE void recur(const cx_cpu_call *c, const int parts, int64_t r, int64_t ch, size_t n)
{
	const cx_cpu_arg *a = &c->in[0], *b = &c->in[parts], *h0 = &c->in[2 * parts], *y = &c->out[0],
					 *last = &c->out[parts];
	const cx_cpu_arg *reset = cx_cpu_has(c, 3 * (uint32_t)parts) ? &c->in[3 * parts] : NULL;
	bool reverse = ((const cx_attr_reset *)c->attr)->reverse;
	cx_dtype dt = a->d.dtype;
	int64_t steps = a->d.dim[1];
	v16 h[2] = {v16_zero(), v16_zero()}, x[2], u[2], im;
	for (int i = 0; i < parts; i++)
		h[i] = v16_load_as(dt, h0[i].p, (size_t)(r * h0[i].d.stride[0] + ch), n);
	for (int64_t s = 0; s < steps; s++) {
		int64_t t = reverse ? steps - 1 - s : s;
		if (reset && reset->p[r * reset->d.stride[0] + t * reset->d.stride[1]])
			h[0] = h[1] = v16_zero();
		for (int i = 0; i < parts; i++) {
			x[i] = v16_load_as(
				dt, a[i].p, (size_t)(r * a[i].d.stride[0] + t * a[i].d.stride[1] + ch), n);
			u[i] = v16_load_as(
				dt, b[i].p, (size_t)(r * b[i].d.stride[0] + t * b[i].d.stride[1] + ch), n);
		}
		if (parts == 2) {
			im = v16_add(v16_fma(x[0], h[1], v16_mul(x[1], h[0])), u[1]);
			h[0] = v16_add(v16_fnma(x[1], h[1], v16_mul(x[0], h[0])), u[0]);
			h[1] = im;
		} else {
			h[0] = v16_fma(x[0], h[0], u[0]);
		}
		for (int i = 0; i < parts; i++)
			v16_store_as(
				dt, y[i].p, (size_t)(r * y[i].d.stride[0] + t * y[i].d.stride[1] + ch), h[i], n);
	}
	for (int i = 0; i < parts; i++)
		v16_store_as(dt, last[i].p, (size_t)(r * last[i].d.stride[0] + ch), h[i], n);
}

static void recurrence(const cx_cpu_call *c, const cx_cpu_team *t, int parts)
{
	int64_t d = c->in[0].d.dim[2], blocks = (d + 15) / 16, lo, hi;
	cx_cpu_share(t, c->in[0].d.dim[0] * blocks, 1, &lo, &hi);
	for (int64_t u = lo; u < hi; u++) {
		int64_t ch = u % blocks * 16;
		size_t n = d - ch < 16 ? (size_t)(d - ch) : 16;
		if (parts == 1) recur(c, 1, u / blocks, ch, n);
		else recur(c, 2, u / blocks, ch, n);
	}
}

CX_CPU_FN(cx_scan_channel_f32)
{
	recurrence(c, t, 1);
}
CX_CPU_FN(cx_cscan_channel_f32)
{
	recurrence(c, t, 2);
}
