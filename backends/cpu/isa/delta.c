/* delta.c - the gated delta rule, spec/llm.md 2.4 (token by token) and 2.5 (in chunks), f32
 * throughout.
 *
 * A unit of work is one v-head; its state S [dk,dv] is updated where it lies, 16 columns side by
 * side. Sums over dk and over tokens run in index order, so neither depends on the machine.
 * Scratch, per thread: q, k, v, o of a chunk, K', P, g, and a state for sequences that keep none.
 */
#include "backends/cpu/isa/lane.h"
#include "backends/cpu/isa/span.h"
#include "backends/cpu/isa/vmath.h"

typedef struct delta {
	const cx_cpu_call *c;
	int64_t first, h, hk, dk, dv, chunk;
	float scale;
	float *s; /* [dk,dv] */
	float *q, *k, *v, *o, *kt, *p,
		*g; /* [n,dk] [n,dk] [n,dv] [n,dv] [dk,n] [n,n] [n]; v becomes delta */
} delta;

/* y[i,:] = x[i,:] s (or += with add) for i < n: x [n,k] and s [k,m], rows ldx and lds apart, y rows
 * ldy apart. */
CX_INLINE void product_tile(float *y, int64_t ldy, const float *x, int64_t ldx, const float *s,
	int64_t lds, int64_t k, size_t m, const int rows, bool add)
{
	v16 acc[4];
	CX_UNROLL
	for (int r = 0; r < rows; r++) acc[r] = add ? v16_load_n(y + r * ldy, m) : v16_zero();
	for (int64_t e = 0; e < k; e++) {
		v16 sv = v16_load_n(s + e * lds, m);
		CX_UNROLL
		for (int r = 0; r < rows; r++) acc[r] = v16_fma(v16_set1(x[r * ldx + e]), sv, acc[r]);
	}
	CX_UNROLL
	for (int r = 0; r < rows; r++) v16_store_n(y + r * ldy, acc[r], m);
}

static void product(float *y, int64_t ldy, const float *x, int64_t ldx, const float *s, int64_t lds,
	int64_t n, int64_t k, int64_t m, bool add)
{
	for (int64_t c = 0; c < m; c += 16) {
		size_t w = m - c < 16 ? (size_t)(m - c) : 16;
		int64_t i = 0;
		for (; i + 4 <= n; i += 4)
			product_tile(y + i * ldy + c, ldy, x + i * ldx, ldx, s + c, lds, k, w, 4, add);
		for (; i < n; i++)
			product_tile(y + i * ldy + c, ldy, x + i * ldx, ldx, s + c, lds, k, w, 1, add);
	}
}

static float exp1(float x)
{
	float l[16];
	v16_store(l, v16_exp(v16_set1(x)));
	return l[0];
}

/* y = y * f */
static void scale_row(float *y, float f, int64_t n)
{
	for (int64_t j = 0; j < n; j += 16) {
		size_t k = n - j < 16 ? (size_t)(n - j) : 16;
		v16_store_n(y + j, v16_mul(v16_load_n(y + j, k), v16_set1(f)), k);
	}
}

static void load_row(const cx_cpu_arg *a, int64_t t, int64_t h, int64_t n, float *y)
{
	const float *p = cx_row_load(
		y, cx_at_off(a, t * a->d.stride[0] + h * a->d.stride[1]), a->d.dtype, a->d.stride[2], n);
	if (p != y) memcpy(y, p, (size_t)n * sizeof *y);
}

/* Token t of the sequence into row i of the chunk. */
static void load_token(const delta *d, int64_t t, int64_t i)
{
	const cx_cpu_arg *in = d->c->in;
	load_row(&in[0], d->first + t, d->hk, d->dk, d->q + i * d->dk);
	load_row(&in[1], d->first + t, d->hk, d->dk, d->k + i * d->dk);
	load_row(&in[2], d->first + t, d->h, d->dv, d->v + i * d->dv);
	scale_row(d->q + i * d->dk, d->scale, d->dk);
}

/* g or beta: operands 3 and 4, [T,nv]. */
static float gate(const delta *d, uint32_t i, int64_t t)
{
	const cx_cpu_arg *a = &d->c->in[i];
	return cx_get_f32(a->p, a->d.dtype, (d->first + t) * a->d.stride[0] + d->h * a->d.stride[1]);
}

static void store_token(const delta *d, int64_t t, const float *o)
{
	const cx_cpu_arg *y = &d->c->out[0];
	cx_row_store(cx_at_off(y, (d->first + t) * y->d.stride[0] + d->h * y->d.stride[1]), y->d.dtype,
		1, o, d->dv);
}

/* S = e^g S; m = S'k; delta = beta (v - m); S += k delta'; o = S'q: two passes over 16 columns of
 * S. */
static void step(const delta *d, int64_t t)
{
	v16 decay = v16_set1(exp1(gate(d, 3, t))), beta = v16_set1(gate(d, 4, t));
	load_token(d, t, 0);
	for (int64_t c = 0; c < d->dv; c += 16) {
		size_t n = d->dv - c < 16 ? (size_t)(d->dv - c) : 16;
		float *s = d->s + c;
		v16 m = v16_zero(), o = v16_zero(), del;
		for (int64_t i = 0; i < d->dk; i++) {
			v16 x = v16_mul(v16_load_n(s + i * d->dv, n), decay);
			v16_store_n(s + i * d->dv, x, n);
			m = v16_fma(x, v16_set1(d->k[i]), m);
		}
		del = v16_mul(beta, v16_sub(v16_load_n(d->v + c, n), m));
		for (int64_t i = 0; i < d->dk; i++) {
			v16 x = v16_fma(v16_set1(d->k[i]), del, v16_load_n(s + i * d->dv, n));
			v16_store_n(s + i * d->dv, x, n);
			o = v16_fma(x, v16_set1(d->q[i]), o);
		}
		v16_store_n(d->o + c, o, n);
	}
	store_token(d, t, d->o);
}

/* Tokens t0 .. t0+n-1: (I+A) D = diag(beta) V - diag(beta e^G) K S by forward substitution; O =
 * diag(e^G) Q S + P D; S = e^G_last S + (diag(e^(G_last-G)) K)' D. Decays are formed from
 * differences of G, which are at most 0. */
static void chunk(const delta *d, int64_t t0, int64_t n)
{
	int64_t dk = d->dk, dv = d->dv;
	for (int64_t i = 0; i < n; i++) {
		load_token(d, t0 + i, i);
		d->g[i] = gate(d, 3, t0 + i) + (i ? d->g[i - 1] : 0.0f);
	}
	product(d->o, dv, d->k, dk, d->s, dv, n, dk, dv, false);
	for (int64_t i = 0; i < n; i++) {
		float beta = gate(d, 4, t0 + i), eg = exp1(d->g[i]), *v = d->v + i * dv;
		for (int64_t j = 0; j < dv; j++) v[j] = beta * (v[j] - eg * d->o[i * dv + j]);
		for (int64_t p = 0; p < i; p++)
			d->p[p] =
				-beta * exp1(d->g[i] - d->g[p]) * cx_dot_f32(d->k + i * dk, d->k + p * dk, dk);
		product(v, dv, d->p, n, d->v, dv, 1, i, dv, true);
	}
	product(d->o, dv, d->q, dk, d->s, dv, n, dk, dv, false);
	for (int64_t i = 0; i < n; i++) {
		scale_row(d->o + i * dv, exp1(d->g[i]), dv);
		for (int64_t p = 0; p <= i; p++)
			d->p[p] = exp1(d->g[i] - d->g[p]) * cx_dot_f32(d->q + i * dk, d->k + p * dk, dk);
		product(d->o + i * dv, dv, d->p, n, d->v, dv, 1, i + 1, dv, true);
		store_token(d, t0 + i, d->o + i * dv);
	}
	scale_row(d->s, exp1(d->g[n - 1]), dk * dv);
	for (int64_t p = 0; p < n; p++) {
		float decay = exp1(d->g[n - 1] - d->g[p]);
		for (int64_t i = 0; i < dk; i++) d->kt[i * n + p] = decay * d->k[p * dk + i];
	}
	product(d->s, dv, d->kt, n, d->v, dv, dk, n, dv, true);
}

CX_CPU_FN(cx_delta_rule_head_f32)
{
	const cx_attr_delta *at = c->attr;
	const cx_desc *q = &c->in[0].d, *v = &c->in[2].d;
	const cx_cpu_arg *state = &c->out[1], *y = &c->out[0];
	int64_t n_rows = q->dim[0], nk = q->dim[1], nv = v->dim[1], n_seq = cx_span_count(c, 6, 7), n,
			used = 0;
	delta d = {.c = c, .dk = q->dim[2], .dv = v->dim[2]};
	d.chunk = at->chunk == 0 ? 1 : at->chunk < n_rows ? at->chunk : n_rows;
	n = d.chunk;
	d.scale = at->scale != 0.0f ? at->scale : 1.0f / sqrtf((float)d.dk);
	d.q =
		cx_f32(c->scratch) + t->rank * (cx_pad16(n * d.dk) * 3 + cx_pad16(n * d.dv) * 2 +
											cx_pad16(n) + cx_pad16(n * n) + cx_pad16(d.dk * d.dv));
	d.k = d.q + cx_pad16(n * d.dk);
	d.kt = d.k + cx_pad16(n * d.dk);
	d.v = d.kt + cx_pad16(n * d.dk);
	d.o = d.v + cx_pad16(n * d.dv);
	d.g = d.o + cx_pad16(n * d.dv);
	d.p = d.g + cx_pad16(n);
	for (int64_t u = 0; u < n_seq * nv;
		 u++) { /* a head stays with one thread: sequences may share a slot */
		cx_span s = cx_span_at(c, u / nv, 6, 7, n_rows, state->d.dim[0]);
		d.h = u % nv;
		if (s.end <= s.first || d.h % t->n != t->rank) continue;
		d.first = s.first;
		d.hk = at->tiled ? d.h % nk : d.h / (nv / nk);
		d.s = d.p + cx_pad16(n * n);
		if (s.slot >= 0)
			d.s =
				cx_f32(state->p) + s.slot * state->d.stride[0] + d.h * state->d.stride[1];
		else memset(d.s, 0, (size_t)(d.dk * d.dv) * sizeof *d.s);
		for (int64_t i = 0; i < s.end - s.first; i += at->chunk ? d.chunk : 1)
			if (at->chunk)
				chunk(&d, i, s.end - s.first - i < d.chunk ? s.end - s.first - i : d.chunk);
			else step(&d, i);
	}
	for (int64_t r = 0; r < n_rows && t->rank == 0 && cx_cpu_has(c, 6);
		 r++) { /* rows of no sequence */
		cx_span s = {0, 0, 0};
		for (; used < n_seq; used++) {
			s = cx_span_at(c, used, 6, 7, n_rows, state->d.dim[0]);
			if (r < s.end) break;
		}
		if (used == n_seq || r < s.first)
			memset(cx_at_off(y, r * nv * d.dv), 0, (size_t)(nv * d.dv) * cx_cpu_size(y->d.dtype));
	}
}
