/* attn_grad.c - gradient of attention: blocks of 64 rows by 64 keys, probabilities recomputed.
 *
 * A unit of work is one sequence and one head of keys with all rows that read it. First the scores
 * of all its rows, for their maximum and sum; few enough scores are kept, else they are computed
 * again. Then, keys block by block: P from the scores, dP = dY V', dS = P (dP - dY.Y), and
 * dV += P'dY, dK += dS'Q, dQ += dS K. All five products are one small kernel: broadcast elements of
 * the left operand times rows of the right one, added up in the order of the inner index. What a
 * unit computes depends on its own sequence alone, and the order of its sums on nothing else.
 *
 * Scratch, per thread, f32 padded to 16: see lay_out(). */
#include "backends/cpu/isa/attn_grad.h"
#include "backends/cpu/isa/lane.h"
#include "backends/cpu/isa/vmath.h"

enum { KB = CX_ATTN_GRAD_BLOCK, RB = CX_ATTN_GRAD_BLOCK };
#if defined(CX_ISA_avx512)
enum { MR = 6, NV = 4 };
#else
enum { MR = 6, NV = 1 };
#endif

/* ---- the product ---- */

/* c[r,:] = (or += with add) sum over e < k of a[r * ars + e * aks] b[e,:], r < nr, 16 * nv
 * columns. */
CX_INLINE void tile(float *c, int64_t ldc, const float *a, int64_t ars, int64_t aks, const float *b,
	int64_t ldb, int64_t k, const int nr, const int nv, bool add)
{
	v16 acc[MR * NV];
	CX_UNROLL
	for (int r = 0; r < nr; r++) {
		CX_UNROLL
		for (int v = 0; v < nv; v++)
			acc[r * nv + v] = add ? v16_load(c + r * ldc + 16 * v) : v16_zero();
	}
	for (int64_t e = 0; e < k; e++) {
		v16 bv[NV];
		CX_UNROLL
		for (int v = 0; v < nv; v++) bv[v] = v16_load(b + e * ldb + 16 * v);
		CX_UNROLL
		for (int r = 0; r < nr; r++) {
			v16 av = v16_set1(a[r * ars + e * aks]);
			CX_UNROLL
			for (int v = 0; v < nv; v++) acc[r * nv + v] = v16_fma(av, bv[v], acc[r * nv + v]);
		}
	}
	CX_UNROLL
	for (int r = 0; r < nr; r++) {
		CX_UNROLL
		for (int v = 0; v < nv; v++) v16_store(c + r * ldc + 16 * v, acc[r * nv + v]);
	}
}

/* The same for all m rows of 16 * nv columns. */
CX_INLINE void strip(float *c, int64_t ldc, const float *a, int64_t ars, int64_t aks,
	const float *b, int64_t ldb, int64_t m, int64_t k, const int nv, bool add)
{
	int64_t r = 0;
	for (; r + MR <= m; r += MR)
		tile(c + r * ldc, ldc, a + r * ars, ars, aks, b, ldb, k, MR, nv, add);
	if (r + 4 <= m) {
		tile(c + r * ldc, ldc, a + r * ars, ars, aks, b, ldb, k, 4, nv, add);
		r += 4;
	}
	if (r + 2 <= m) {
		tile(c + r * ldc, ldc, a + r * ars, ars, aks, b, ldb, k, 2, nv, add);
		r += 2;
	}
	if (r < m) tile(c + r * ldc, ldc, a + r * ars, ars, aks, b, ldb, k, 1, nv, add);
}

/* n is a multiple of 16: rows of all buffers are padded. */
static void product(float *c, int64_t ldc, const float *a, int64_t ars, int64_t aks, const float *b,
	int64_t ldb, int64_t m, int64_t n, int64_t k, bool add)
{
	int64_t j = 0;
	for (; j + 16 * NV <= n; j += 16 * NV)
		strip(c + j, ldc, a, ars, aks, b + j, ldb, m, k, NV, add);
	for (; NV > 1 && j < n; j += 16) strip(c + j, ldc, a, ars, aks, b + j, ldb, m, k, 1, add);
}

/* ---- a unit ---- */

typedef struct attn {
	const cx_cpu_arg *q, *k, *v, *y, *dy, *dq, *dk, *dv;
	const cx_cpu_arg *mask, *bias, *ds; /* NULL: none */
	int64_t ms[4], bs[4];               /* their strides over [B,H,T,S]; ds has those of its dims */
	int32_t r;                          /* rank of q: 4 with a batch axis, else 3 */
	int64_t n_heads, n_kv_heads, d, dv_n, dp, dvp;
	float scale;
	bool causal;
	int64_t window;
	cx_attn_grad_scratch s; /* of this thread */
} attn;

/* Rows of sequence b: query rows from q0, keys from k0. n: query rows of a head group; keep: scores
 * stay where they are. */
typedef struct seq {
	int64_t b, q0, n_q, k0, n_kv, hk, n;
	bool keep;
} seq;

/* Element 0 of a row of q, k, v, y, dy, or of a gradient of theirs. */
static char *row_at(const attn *a, const cx_cpu_arg *x, int64_t b, int64_t row, int64_t h)
{
	const int64_t *st = x->d.stride;
	return cx_at_off(x, (a->r == 4 ? b * st[0] : 0) + row * st[a->r - 3] + h * st[a->r - 2]);
}

/* n elements of a row times f, zeros up to pad. */
static void stage(float *to, const cx_cpu_arg *x, const char *from, int64_t n, int64_t pad, float f)
{
	const float *p = cx_row_load(to, from, x->d.dtype, 1, n);
	for (int64_t j = 0; j < pad; j += 16) {
		size_t left = n - j < 16 ? (size_t)(n - j) : 16;
		v16_store(to + j, v16_mul(v16_load_n(p + j, left), v16_set1(f)));
	}
}

static void stage_rows(const attn *a, const seq *q)
{
	int64_t group = a->n_heads / a->n_kv_heads;
	for (int64_t i = 0; i < q->n; i++) {
		int64_t row = q->q0 + i / group, h = q->hk * group + i % group;
		float *dy = a->s.dy + i * a->dvp, *tmp = a->s.kt;
		stage(a->s.q + i * a->dp, a->q, row_at(a, a->q, q->b, row, h), a->d, a->dp, a->scale);
		stage(dy, a->dy, row_at(a, a->dy, q->b, row, h), a->dv_n, a->dvp, 1.0f);
		a->s.delta[i] = cx_dot_f32(dy,
			cx_row_load(tmp, row_at(a, a->y, q->b, row, h), a->y->d.dtype, 1, a->dv_n), a->dv_n);
		a->s.m[i] = -INFINITY;
		a->s.l[i] = 0.0f;
	}
	memset(a->s.dq, 0, (size_t)(q->n * a->dp) * sizeof *a->s.dq);
}

/* Keys (or values) base.. of the block: as rows in `rows`, transposed [pad, KB] in `t`; either
 * NULL. Zeros past the end. */
static void stage_keys(const attn *a, const seq *q, const cx_cpu_arg *x, int64_t base, int64_t n,
	int64_t width, int64_t pad, float *rows, float *t)
{
	int64_t nk = q->n_kv - base < KB ? q->n_kv - base : KB;
	float row[16][16];
	for (int64_t j = 0; j < n && rows; j++) {
		if (j < nk)
			stage(rows + j * pad, x, row_at(a, x, q->b, q->k0 + base + j, q->hk), width, pad, 1.0f);
		else memset(rows + j * pad, 0, (size_t)pad * sizeof *rows);
	}
	for (int64_t j = 0; j < n && t; j += 16) /* 16 keys by 16 elements at a time */
		for (int64_t e = 0; e < pad; e += 16) {
			size_t left = width - e < 16 ? (size_t)(width - e) : 16;
			for (int64_t i = 0; i < 16; i++)
				v16_store(row[i], j + i < nk ? v16_load_as(x->d.dtype,
												   row_at(a, x, q->b, q->k0 + base + j + i, q->hk),
												   (size_t)e, left)
											 : v16_zero());
			for (int64_t c = 0; c < 16; c++)
				for (int64_t i = 0; i < 16; i++) t[(e + c) * KB + j + i] = row[i][c];
		}
}

/* Keys [lo, hi) that row i of the unit sees, but for the mask. */
static void range(const attn *a, const seq *q, int64_t i, int64_t *lo, int64_t *hi)
{
	int64_t pos = i / (a->n_heads / a->n_kv_heads) - q->n_q + q->n_kv; /* bottom-right aligned */
	*lo = a->window > 0 && pos - a->window + 1 > 0 ? pos - a->window + 1 : 0;
	*hi = a->causal && pos + 1 < q->n_kv ? pos + 1 : q->n_kv;
}

/* Whether any of rows [i0, i1) sees any of the keys of a block. Ranges move on with rows. */
static bool meets(const attn *a, const seq *q, int64_t i0, int64_t i1, int64_t base)
{
	int64_t lo, hi, lo1, hi1;
	range(a, q, i0, &lo, &hi);
	range(a, q, i1 - 1, &lo1, &hi1);
	return lo < base + KB && hi1 > base;
}

/* Scores of row i with the block's keys: bias added, -inf where it does not see. */
static void limit(const attn *a, const seq *q, int64_t i, int64_t base, float *s)
{
	int64_t group = a->n_heads / a->n_kv_heads, lo, hi, h = q->hk * group + i % group;
	int64_t t = i / group + (a->r == 4 ? 0 : q->q0);
	range(a, q, i, &lo, &hi);
	lo = lo > base ? lo - base : 0;
	hi = hi - base < KB ? hi - base : KB;
	for (int64_t j = lo; a->bias && j < hi; j++)
		s[j] += cx_f32(
			a->bias->p)[q->b * a->bs[0] + h * a->bs[1] + t * a->bs[2] + (base + j) * a->bs[3]];
	for (int64_t j = lo; a->mask && j < hi; j++)
		if (!a->mask->p[q->b * a->ms[0] + h * a->ms[1] + t * a->ms[2] + (base + j) * a->ms[3]])
			s[j] = -INFINITY;
	for (int64_t j = 0; j < KB; j++)
		if (j < lo || j >= hi) s[j] = -INFINITY;
}

/* s [n][KB]: scores of rows i0.. with the block's keys. */
static void score(const attn *a, const seq *q, int64_t i0, int64_t n, int64_t base, float *s)
{
	product(s, KB, a->s.q + i0 * a->dp, a->dp, 1, a->s.kt, KB, n, KB, a->d, false);
	for (int64_t i = 0; i < n; i++) {
		int64_t lo, hi;
		range(a, q, i0 + i, &lo, &hi);
		if (a->bias || a->mask || lo > base || hi < base + KB)
			limit(a, q, i0 + i, base, s + i * KB);
	}
}

/* Maximum and sum of one more block of a row. */
static void gather_sum(float *m, float *l, const float *s)
{
	float m0 = *m, m1 = cx_max_f32(s, KB), corr[16];
	v16 sum = v16_zero();
	if (m0 > m1 || m0 != m0) m1 = m0;
	*m = m1;
	if (m1 == -INFINITY) return;
	for (int64_t j = 0; j < KB; j += 16)
		sum = v16_add(sum, v16_exp(v16_sub(v16_load(s + j), v16_set1(m1))));
	v16_store(corr, v16_exp(v16_set1(m0 - m1)));
	*l = *l * corr[0] + v16_sum(sum);
}

/* All blocks of a row are there, `step` apart: its maximum, sum, and e^(score - maximum) in
 * place. */
static void weigh_row(float *m, float *l, float *s, int64_t step, int64_t n_blocks)
{
	float m1;
	v16 sum = v16_zero(), most = v16_set1(-INFINITY);
	for (int64_t b = 0; b < n_blocks; b++)
		for (int64_t j = 0; j < KB; j += 16) most = v16_max_nan(most, v16_load(s + b * step + j));
	m1 = v16m_any(v16_isnan(most)) ? NAN : v16_hmax(most);
	*m = m1;
	for (int64_t b = 0; b < n_blocks; b++)
		for (int64_t j = 0; j < KB; j += 16) {
			float *p = s + b * step + j;
			v16 e = m1 == -INFINITY ? v16_zero() : v16_exp(v16_sub(v16_load(p), v16_set1(m1)));
			v16_store(p, e);
			sum = v16_add(sum, e);
		}
	*l = v16_sum(sum);
}

/* Maximum and 1 / sum of every row, in m and l; with keep, weights before that division. */
static void first_pass(const attn *a, const seq *q)
{
	int64_t n_blocks = (q->n_kv + KB - 1) / KB, step = q->n * KB;
	for (int64_t kb = 0; kb < n_blocks; kb++) {
		stage_keys(a, q, a->k, kb * KB, KB, a->d, a->dp, NULL, a->s.kt);
		for (int64_t i0 = 0; i0 < q->n; i0 += RB) {
			int64_t n = q->n - i0 < RB ? q->n - i0 : RB;
			float *s = q->keep ? a->s.p + kb * step + i0 * KB : a->s.p;
			if (!meets(a, q, i0, i0 + n, kb * KB)) {
				for (int64_t j = 0; q->keep && j < n * KB; j++) s[j] = -INFINITY;
				continue;
			}
			score(a, q, i0, n, kb * KB, s);
			for (int64_t i = 0; i < n && !q->keep; i++)
				gather_sum(&a->s.m[i0 + i], &a->s.l[i0 + i], s + i * KB);
		}
	}
	for (int64_t i = 0; i < q->n; i++) {
		if (q->keep) weigh_row(&a->s.m[i], &a->s.l[i], a->s.p + i * KB, step, n_blocks);
		a->s.l[i] = a->s.m[i] == -INFINITY ? 0.0f : 1.0f / a->s.l[i];
	}
}

/* Rows [i0, i0 + n): scores, or kept weights, in p, and dP in ds become P and dS. */
static void differentiate(
	const attn *a, const seq *q, int64_t i0, int64_t n, int64_t base, float *p, float *ds)
{
	int64_t group = a->n_heads / a->n_kv_heads;
	for (int64_t i = 0; i < n; i++) {
		float m = a->s.m[i0 + i];
		v16 inv = v16_set1(a->s.l[i0 + i]), delta = v16_set1(a->s.delta[i0 + i]);
		for (int64_t j = i * KB; j < (i + 1) * KB; j += 16) {
			v16 e = v16_load(p + j);
			if (!q->keep) e = m == -INFINITY ? v16_zero() : v16_exp(v16_sub(e, v16_set1(m)));
			e = v16_mul(e, inv);
			v16_store(p + j, e);
			v16_store(ds + j, v16_mul(e, v16_sub(v16_load(ds + j), delta)));
		}
		if (a->ds) {
			const cx_desc *d = &a->ds->d;
			int64_t row = (i0 + i) / group + (a->r == 4 ? 0 : q->q0),
					h = q->hk * group + (i0 + i) % group;
			int64_t nk = q->n_kv - base < KB ? q->n_kv - base : KB;
			memcpy(cx_at_off(a->ds, (a->r == 4 ? q->b * d->stride[0] : 0) +
										h * d->stride[a->r - 3] + row * d->stride[a->r - 2] + base),
				ds + i * KB, (size_t)nk * sizeof *ds);
		}
	}
}

static void second_pass(const attn *a, const seq *q)
{
	for (int64_t base = 0; base < q->n_kv; base += KB) {
		int64_t nk = q->n_kv - base < KB ? q->n_kv - base : KB;
		stage_keys(a, q, a->k, base, nk, a->d, a->dp, a->s.k, q->keep ? NULL : a->s.kt);
		stage_keys(a, q, a->v, base, KB, a->dv_n, a->dvp, NULL, a->s.vt);
		memset(a->s.dk, 0, (size_t)(KB * a->dp) * sizeof *a->s.dk);
		memset(a->s.dv, 0, (size_t)(KB * a->dvp) * sizeof *a->s.dv);
		for (int64_t i0 = 0; i0 < q->n; i0 += RB) {
			int64_t n = q->n - i0 < RB ? q->n - i0 : RB;
			float *p = q->keep ? a->s.p + base * q->n + i0 * KB : a->s.p, *ds = a->s.ds;
			const float *dy = a->s.dy + i0 * a->dvp;
			if (!meets(a, q, i0, i0 + n, base)) continue;
			if (!q->keep) score(a, q, i0, n, base, p);
			product(ds, KB, dy, a->dvp, 1, a->s.vt, KB, n, KB, a->dv_n, false);
			differentiate(a, q, i0, n, base, p, ds);
			product(a->s.dv, a->dvp, p, 1, KB, dy, a->dvp, nk, a->dvp, n, true);
			product(a->s.dk, a->dp, ds, 1, KB, a->s.q + i0 * a->dp, a->dp, nk, a->dp, n, true);
			product(a->s.dq + i0 * a->dp, a->dp, ds, KB, 1, a->s.k, a->dp, n, a->dp, nk, true);
		}
		for (int64_t j = 0; j < nk; j++) {
			int64_t row = q->k0 + base + j;
			cx_row_store(
				row_at(a, a->dk, q->b, row, q->hk), a->dk->d.dtype, 1, a->s.dk + j * a->dp, a->d);
			cx_row_store(row_at(a, a->dv, q->b, row, q->hk), a->dv->d.dtype, 1,
				a->s.dv + j * a->dvp, a->dv_n);
		}
	}
}

static void unit(const attn *a, seq *q)
{
	int64_t group = a->n_heads / a->n_kv_heads;
	q->n = q->n_q * group;
	q->keep = q->n * ((q->n_kv + KB - 1) / KB) <= a->s.keep_rows;
	stage_rows(a, q);
	first_pass(a, q);
	second_pass(a, q);
	for (int64_t i = 0; i < q->n; i++) {
		float *dq = a->s.dq + i * a->dp;
		for (int64_t j = 0; j < a->dp; j += 16)
			v16_store(dq + j, v16_mul(v16_load(dq + j), v16_set1(a->scale)));
		cx_row_store(row_at(a, a->dq, q->b, q->q0 + i / group, q->hk * group + i % group),
			a->dq->d.dtype, 1, dq, a->d);
	}
}

/* *turn counts units over sequences; each thread takes every n-th. */
static void sequence(const attn *a, seq q, const cx_cpu_team *t, int64_t *turn)
{
	for (q.hk = 0; q.hk < a->n_kv_heads; q.hk++)
		if ((*turn)++ % t->n == t->rank) unit(a, &q);
}

/* ---- the op ---- */

static const cx_cpu_arg *aligned(const cx_cpu_call *c, uint32_t i, int64_t *st)
{
	const cx_desc *d = &c->in[i].d;
	if (!cx_cpu_has(c, i)) return NULL;
	for (int32_t k = 0; k < d->rank; k++) st[4 - d->rank + k] = d->dim[k] == 1 ? 0 : d->stride[k];
	return &c->in[i];
}

static int64_t clampi(int64_t x, int64_t lo, int64_t hi)
{
	return x < lo ? lo : x > hi ? hi : x;
}

/* Rows that no sequence has are zeros. */
static void zero_rows(const cx_cpu_arg *y, const cx_cpu_team *t, int64_t from, int64_t to)
{
	uint64_t row = (uint64_t)(y->d.dim[1] * y->d.dim[2]) * cx_cpu_size(y->d.dtype);
	if (t->rank == 0 && to > from)
		memset(y->p + (uint64_t)from * row, 0, (uint64_t)(to - from) * row);
}

static void ragged(const attn *a, const cx_cpu_call *c, const cx_cpu_team *t)
{
	const int32_t *qo = (const int32_t *)c->in[5].p, *ko = (const int32_t *)c->in[6].p;
	int64_t n = c->in[5].d.dim[0] - 1, total = a->q->d.dim[0], keys = a->k->d.dim[0], turn = 0;
	for (int64_t b = 0; b < n; b++) {
		seq q = {.b = 0, .q0 = clampi(qo[b], 0, total), .k0 = clampi(ko[b], 0, keys)};
		q.n_q = clampi(qo[b + 1], q.q0, total) - q.q0;
		q.n_kv = clampi(ko[b + 1], q.k0, keys) - q.k0;
		sequence(a, q, t, &turn);
	}
	zero_rows(a->dq, t, 0, clampi(qo[0], 0, total));
	zero_rows(a->dq, t, clampi(qo[n], 0, total), total);
	for (int i = 0; i < 2; i++) {
		zero_rows(i ? a->dv : a->dk, t, 0, clampi(ko[0], 0, keys));
		zero_rows(i ? a->dv : a->dk, t, clampi(ko[n], 0, keys), keys);
	}
}

static void init(attn *a, const cx_cpu_call *c, const cx_cpu_team *t)
{
	const cx_attr_attention_grad *at = c->attr;
	const cx_cpu_arg *in = c->in, *out = c->out;
	*a = (attn){.q = &in[0], .k = &in[1], .v = &in[2], .y = &in[3], .dy = &in[4]};
	a->dq = &out[0];
	a->dk = &out[1];
	a->dv = &out[2];
	a->ds = c->n_out > 3 ? &out[3] : NULL;
	a->r = in[0].d.rank;
	a->n_heads = in[0].d.dim[a->r - 2];
	a->n_kv_heads = in[1].d.dim[a->r - 2];
	a->d = in[0].d.dim[a->r - 1];
	a->dv_n = in[2].d.dim[a->r - 1];
	a->dp = cx_pad16(a->d);
	a->dvp = cx_pad16(a->dv_n);
	a->scale = at->scale != 0.0f ? at->scale : 1.0f / sqrtf((float)a->d);
	a->causal = at->causal;
	a->window = at->window;
	a->mask = aligned(c, 7, a->ms);
	a->bias = aligned(c, 8, a->bs);
	cx_attn_grad_lay_out(&a->s, cx_f32(c->scratch), c->desc_in, t->rank);
}

CX_CPU_FN(cx_attention_grad_block_f32)
{
	int64_t turn = 0;
	attn a;
	init(&a, c, t);
	if (a.ds) {
		if (t->rank == 0) memset(a.ds->p, 0, (size_t)cx__desc_elems(&a.ds->d) * 4);
		if (t->n > 1) cx__pool_barrier(t->pool);
	}
	if (a.r == 3 && cx_cpu_has(c, 5)) {
		ragged(&a, c, t);
		return;
	}
	for (int64_t b = 0; b < (a.r == 4 ? a.q->d.dim[0] : 1); b++)
		sequence(
			&a, (seq){.b = b, .n_q = a.q->d.dim[a.r - 3], .n_kv = a.k->d.dim[a.r - 3]}, t, &turn);
}
