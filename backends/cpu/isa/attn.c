/* attn.c - attention and paged attention: softmax over blocks of 64 keys, counted from position 0,
 * with a running maximum.
 *
 * A row's arithmetic is the same whatever rows come with it: a score is one sum in the order of
 * elements, each block of 64 gives one maximum and one sum (lanes by position mod 16), values are
 * added in the order of positions. So a prompt gives the same bits whole or in any chunks. A
 * unit of
 * work is one sequence, one head of keys and up to RB rows that read it (rows of the heads in its
 * group count each); keys of a block are transposed once per unit, so that a lane is a key, and
 * 16-bit keys and values widened.
 *
 * Scratch, per thread: RB rows of q and of the result, 64 rows of keys and of values and 64 columns
 * of keys, all f32 padded to 16. */
#include "backends/cpu/isa/attn.h"
#include "backends/cpu/isa/lane.h"
#include "backends/cpu/isa/vmath.h"

enum { KB = CX_ATTN_KEYS, RB = CX_ATTN_ROWS, RB_HEADS = 32 /* rows of heads that share a unit */ };
#if defined(CX_ISA_avx512)
enum { COLS = 4 };
#else
enum { COLS = 1 };
#endif

typedef struct attn {
	const cx_cpu_arg *q, *k, *v, *y;
	const cx_cpu_arg *mask, *bias; /* NULL: none */
	int64_t ms[4], bs[4];          /* their strides over [B,H,T,S] */
	int64_t qs[3], ks[3],
		vs[3]; /* strides of [B,T,H] and [B,S,Hk]; B has stride 0 without a batch axis */
	int64_t n_heads, n_kv_heads, d, dv, dp, dvp;
	const int32_t *table; /* of this sequence, or NULL */
	int64_t table_stride, n_pages, page, n_slots;
	float scale;
	bool causal;
	int64_t window;
	float *qb, *ob, *kb, *vb, *kt; /* scratch of this thread */
	int64_t rb;                    /* rows of a unit, at most RB */
	uint64_t missing;              /* keys of the block whose page is not there */
} attn;

/* Rows [q0, q1) of sequence b, whose keys are [0, n_kv), stored from row k0 on. */
typedef struct seq {
	int64_t b, q0, q1, k0, n_kv;
} seq;

/* Up to RB rows of a unit; row i is token t[i], head h[i], and sees keys [lo, hi). */
typedef struct rows {
	int64_t n, t[RB], h[RB], lo[RB], hi[RB];
	float m[RB], l[RB];
} rows;

/* ---- products ---- */

/* s[r * KB + e] = q[r] . column e of kt [d, KB], for 16 * cols columns; r < nr. */
CX_INLINE void score_tile(
	float *s, const float *q, int64_t dp, const float *kt, int64_t d, const int nr, const int cols)
{
	v16 acc[16];
	CX_UNROLL
	for (int i = 0; i < nr * cols; i++) acc[i] = v16_zero();
	for (int64_t c = 0; c < d; c++) {
		v16 k[4];
		CX_UNROLL
		for (int e = 0; e < cols; e++) {
			k[e] = v16_load(kt + c * KB + e * 16);
			v16_keep(k[e]);
		}
		CX_UNROLL
		for (int r = 0; r < nr; r++) {
			v16 qv = v16_set1(q[r * dp + c]);
			v16_keep(qv);
			CX_UNROLL
			for (int e = 0; e < cols; e++) acc[r * cols + e] = v16_fma(qv, k[e], acc[r * cols + e]);
		}
	}
	CX_UNROLL
	for (int i = 0; i < nr * cols; i++) v16_store(s + i / cols * KB + i % cols * 16, acc[i]);
}

static void scores4(const attn *a, float *s, const float *q)
{
	for (int64_t e = 0; e < KB; e += 16 * COLS)
		score_tile(s + e, q, a->dp, a->kt + e, a->d, 4, COLS);
}
static void scores1(const attn *a, float *s, const float *q)
{
	score_tile(s, q, a->dp, a->kt, a->d, 1, 4);
}

/* Keys as columns of kt; those past nk are zeros. */
static void transpose(const attn *a, const float *const *k, int64_t nk)
{
	for (int64_t j = 0; j < KB; j += 16)
		for (int64_t c = 0; c < a->d; c += 16) {
			int64_t n = a->d - c < 16 ? a->d - c : 16;
			v16 x[16];
			for (int64_t i = 0; i < 16; i++)
				x[i] = j + i >= nk ? v16_zero()
					   : n == 16   ? v16_load(k[j + i] + c)
								   : v16_load_n(k[j + i] + c, (size_t)n);
			v16_transpose(x);
			for (int64_t i = 0; i < n; i++) v16_store(a->kt + (c + i) * KB + j, x[i]);
		}
}

/* o[r] += sum over j in [j0, j1) of p[r * KB + j] * v[j], in columns c.. of which n are there (16 *
 * cols, or fewer). */
CX_INLINE void values(float *o, int64_t dvp, const float *p, const float *const *v, int64_t j0,
	int64_t j1, const int nr, const int cols, int64_t c, size_t n)
{
	v16 acc[16];
	CX_UNROLL
	for (int i = 0; i < nr * cols; i++) acc[i] = v16_load(o + i / cols * dvp + c + i % cols * 16);
	for (int64_t j = j0; j < j1; j++) {
		v16 vv[4];
		CX_UNROLL
		for (int e = 0; e < cols; e++)
			vv[e] = n < 16 ? v16_load_n(v[j] + c, n) : v16_load(v[j] + c + e * 16);
		CX_UNROLL
		for (int r = 0; r < nr; r++) {
			v16 pv = v16_set1(p[r * KB + j]);
			CX_UNROLL
			for (int e = 0; e < cols; e++)
				acc[r * cols + e] = v16_fma(pv, vv[e], acc[r * cols + e]);
		}
	}
	CX_UNROLL
	for (int i = 0; i < nr * cols; i++) v16_store(o + i / cols * dvp + c + i % cols * 16, acc[i]);
}

static void values4(
	const attn *a, float *o, const float *p, const float *const *v, int64_t j0, int64_t j1)
{
	int64_t c = 0, dv = a->dv;
	for (; c + 16 * COLS <= dv; c += 16 * COLS) values(o, a->dvp, p, v, j0, j1, 4, COLS, c, 16);
	for (; c + 16 <= dv; c += 16) values(o, a->dvp, p, v, j0, j1, 4, 1, c, 16);
	if (c < dv) values(o, a->dvp, p, v, j0, j1, 4, 1, c, (size_t)(dv - c));
}
static void values1(
	const attn *a, float *o, const float *p, const float *const *v, int64_t j0, int64_t j1)
{
	int64_t c = 0, dv = a->dv;
	if (j0 >= j1) return;
	for (; c + 64 <= dv; c += 64) values(o, a->dvp, p, v, j0, j1, 1, 4, c, 16);
	for (; c + 16 <= dv; c += 16) values(o, a->dvp, p, v, j0, j1, 1, 1, c, 16);
	if (c < dv) values(o, a->dvp, p, v, j0, j1, 1, 1, c, (size_t)(dv - c));
}

/* ---- one block of keys for one row ---- */

static uint64_t bits(int64_t lo, int64_t hi)
{
	if (lo >= hi) return 0;
	return (hi - lo == 64 ? ~0ull : (1ull << (hi - lo)) - 1) << lo;
}

/* Multiplies the running result of row i by corr. */
static void correct(const attn *a, int64_t i, float corr)
{
	float *o = a->ob + i * a->dvp;
	if (corr == 1.0f) return;
	for (int64_t c = 0; c < a->dvp; c += 16)
		v16_store(o + c, v16_mul(v16_load(o + c), v16_set1(corr)));
}

static float exp1(float x)
{
	float e[16];
	v16_store(e, v16_exp(v16_set1(x)));
	return e[0];
}

/* weigh() for a row that sees all keys of a block, none of them NaN or -inf. False: it is not one,
 * and nothing was done. */
CX_INLINE bool weigh_all(const attn *a, rows *w, int64_t i, float *s)
{
	const v16 scale = v16_set1(a->scale), low = v16_set1(-INFINITY);
	v16 x[KB / 16], top, sum, vm;
	float m, m0 = w->m[i], corr = 0.0f;
	CX_UNROLL
	for (int j = 0; j < KB / 16; j++) x[j] = v16_mul(v16_load(s + 16 * j), scale);
	top = v16_max(v16_max(x[0], x[1]), v16_max(x[2], x[3]));
	vm = v16_min(v16_min(x[0], x[1]), v16_min(x[2], x[3]));
	if (v16m_any(v16m_not(v16_gt(vm, low))) || m0 != m0) return false;
	sum = v16_add(v16_add(x[0], x[1]), v16_add(x[2], x[3])); /* NaN where one of them is */
	if (v16m_any(v16_isnan(sum))) return false;
	sum = v16_zero();
	m = v16_hmax(top);
	if (m0 > m) m = m0;
	w->m[i] = m;
	vm = v16_set1(m);
	CX_UNROLL
	for (int j = 0; j < KB / 16; j++) {
		x[j] = v16_exp(v16_sub(x[j], vm));
		v16_store(s + 16 * j, x[j]);
		sum = v16_add(sum, x[j]);
	}
	if (m0 == m) corr = 1.0f;
	else if (m0 != -INFINITY) corr = exp1(m0 - m);
	w->l[i] = w->l[i] * corr + v16_sum(sum);
	if (m0 != -INFINITY) correct(a, i, corr);
	return true;
}

/* Scores of keys [base, base + KB) to weights: scale, bias, mask, running maximum and sum. False:
 * the row sees none of them. Masked keys get -inf in s, and so weight 0; `sees` has a bit per key
 * that counts, a score of -inf does not. */
static bool weigh(
	const attn *a, const seq *q, rows *w, int64_t i, int64_t base, float *s, uint64_t *sees)
{
	int64_t lo = w->lo[i] > base ? w->lo[i] - base : 0,
			hi = w->hi[i] - base < KB ? w->hi[i] - base : KB;
	int64_t row = a->mask || a->bias ? w->t[i] - (a->q->d.rank == 4 ? q->q0 : 0) : 0;
	float m, m0 = w->m[i], corr;
	int lost = 0;
	v16 scale = v16_set1(a->scale), sum = v16_zero(), vm;
	if (lo >= hi) return false;
	if (!a->bias && !a->mask && !a->missing && hi - lo == KB && weigh_all(a, w, i, s)) {
		*sees = ~0ull;
		return true;
	}
	for (int64_t j = 0; j < KB; j += 16) v16_store(s + j, v16_mul(v16_load(s + j), scale));
	for (int64_t j = lo; a->bias && j < hi; j++)
		s[j] += cx_f32(a->bias->p)[q->b * a->bs[0] + w->h[i] * a->bs[1] + row * a->bs[2] +
								   (base + j) * a->bs[3]];
	*sees = bits(lo, hi) & ~a->missing;
	for (int64_t j = lo; a->mask && j < hi; j++)
		if (!a->mask
				 ->p[q->b * a->ms[0] + w->h[i] * a->ms[1] + row * a->ms[2] + (base + j) * a->ms[3]])
			*sees &= ~(1ull << j);
	for (int64_t j = 0; j < KB; j++) lost |= s[j] == -INFINITY; /* by bias, or an infinite key */
	for (int64_t j = lo; lost && j < hi; j++)
		if (s[j] == -INFINITY) *sees &= ~(1ull << j);
	if (*sees == 0) return false;
	if (*sees != ~0ull)
		for (int64_t j = 0; j < KB; j++)
			if (!(*sees >> j & 1)) s[j] = -INFINITY;
	m = cx_max_f32(s, KB);
	if (m0 > m || m0 != m0) m = m0;
	w->m[i] = m;
	if (m == -INFINITY) return false; /* every score it has seen is -inf: no weight to give yet */
	vm = v16_set1(m);
	for (int64_t j = 0; j < KB; j += 16) {
		v16 e = v16_exp(v16_sub(v16_load(s + j), vm));
		v16_store(s + j, e);
		sum = v16_add(sum, e);
	}
	corr = exp1(m0 - m);
	w->l[i] = w->l[i] * corr + v16_sum(sum);
	correct(a, i, corr);
	return true;
}

/* Values of a block for rows [i, i + n), n <= 4, in the order of keys for each. */
static void add_values(const attn *a, const rows *w, int64_t i, int64_t n, int64_t base,
	const float *s, const float *const *vp, const uint64_t *sees, const bool *live)
{
	int64_t lo[4], hi[4], j0 = 0, j1 = KB;
	bool joint = n == 4;
	for (int64_t r = 0; r < n; r++) {
		lo[r] = w->lo[i + r] > base ? w->lo[i + r] - base : 0;
		hi[r] = w->hi[i + r] - base < KB ? w->hi[i + r] - base : KB;
		j0 = lo[r] > j0 ? lo[r] : j0;
		j1 = hi[r] < j1 ? hi[r] : j1;
		joint &= live[r] && sees[r] == bits(lo[r], hi[r]);
	}
	if (joint && j0 < j1) {
		for (int64_t r = 0; r < n; r++)
			values1(a, a->ob + (i + r) * a->dvp, s + r * KB, vp, lo[r], j0);
		values4(a, a->ob + i * a->dvp, s, vp, j0, j1);
		for (int64_t r = 0; r < n; r++)
			values1(a, a->ob + (i + r) * a->dvp, s + r * KB, vp, j1, hi[r]);
		return;
	}
	for (int64_t r = 0; r < n; r++) {
		if (!live[r]) continue;
		for (int64_t j = lo[r]; j < hi[r];) { /* runs of keys that it sees */
			int64_t e = j;
			while (e < hi[r] && (sees[r] >> e & 1)) e++;
			values1(a, a->ob + (i + r) * a->dvp, s + r * KB, vp, j, e);
			j = e + 1;
		}
	}
}

/* Rows [from, to) of w against one block: GROUP at a time, so that keys, and then values, are read
 * from the first cache. */
static void block(const attn *a, const seq *q, rows *w, int64_t from, int64_t to, int64_t base,
	const float *const *vp)
{
	enum { GROUP = 16 };
	float s[GROUP * KB] __attribute__((aligned(64)));
	uint64_t sees[GROUP];
	bool live[GROUP];
	for (int64_t g = from; g < to; g += GROUP) {
		int64_t end = to - g < GROUP ? to : g + GROUP;
		for (int64_t i = g; i < end; i += 4) {
			int64_t n = end - i < 4 ? end - i : 4, at = i - g;
			bool any = false;
			for (int64_t r = 0; r < n; r++) {
				live[at + r] = false;
				any |= w->lo[i + r] < base + KB && w->hi[i + r] > base;
			}
			if (!any) continue;
			if (n == 4) scores4(a, s + at * KB, a->qb + i * a->dp);
			for (int64_t r = 0; r < n; r++) {
				float *sr = s + (at + r) * KB;
				if (n < 4) scores1(a, sr, a->qb + (i + r) * a->dp);
				live[at + r] = weigh(a, q, w, i + r, base, sr, &sees[at + r]);
			}
		}
		for (int64_t i = g; i < end; i += 4)
			add_values(a, w, i, end - i < 4 ? end - i : 4, base, s + (i - g) * KB, vp,
				sees + (i - g), live + (i - g));
	}
}

/* ---- a unit ---- */

/* Where the keys [base, base + nk) are: rows of k and v; -1 if the page is missing, which sets a
 * bit in a->missing. */
static void locate(attn *a, const seq *q, int64_t base, int64_t nk, int64_t *row)
{
	a->missing = 0;
	if (!a->table) {
		for (int64_t n = 0; n < nk; n++) row[n] = q->k0 + base + n;
		return;
	}
	for (int64_t n = 0; n < nk;) {
		int64_t pg = (base + n) / a->page, in = (base + n) % a->page, left = a->page - in;
		int64_t slot = pg < a->n_pages ? a->table[pg * a->table_stride] : -1;
		for (; left > 0 && n < nk; left--, n++, in++) {
			row[n] = slot < 0 || slot * a->page + in >= a->n_slots ? -1 : slot * a->page + in;
			if (row[n] < 0) a->missing |= 1ull << n;
		}
	}
}

/* Addresses of these rows as f32: where they are, or widened into buf; missing ones are zeros.
 * gather: f32 goes there too, since rows a whole number of pages apart would push each other out of
 * the first cache. */
static void stage(const seq *q, const cx_cpu_arg *x, const int64_t *st, int64_t head,
	const int64_t *row, int64_t nk, int64_t width, int64_t pad, bool gather, float *buf,
	const float **ptr)
{
	int64_t size = cx_cpu_size(x->d.dtype);
	const char *from = x->p + (q->b * st[0] + head * st[2]) * size;
	for (int64_t n = 0; n < nk; n++) {
		ptr[n] = buf + n * pad;
		if (row[n] < 0) memset(buf + n * pad, 0, (size_t)width * sizeof *buf);
		else if (x->d.dtype == CX_F32) {
			ptr[n] = (const float *)(const void *)(from + row[n] * st[1] * 4);
			if (!gather) continue;
			for (int64_t c = 0; c < width; c += 16)
				v16_store(buf + n * pad + c, v16_load_n(ptr[n] + c, (size_t)(width - c)));
			ptr[n] = buf + n * pad;
		} else cx_row_load(buf + n * pad, from + row[n] * st[1] * size, x->d.dtype, 1, width);
	}
}

/* Row i of a unit: row r of key head hk, which is token r / group of head hk * group + r % group.
 */
static void begin_row(attn *a, const seq *q, rows *w, int64_t i, int64_t hk, int64_t r)
{
	int64_t group = a->n_heads / a->n_kv_heads;
	int64_t t = q->q0 + r / group, h = hk * group + r % group;
	int64_t pos = t - q->q1 + q->n_kv; /* bottom-right aligned */
	float *qb = a->qb + i * a->dp;
	const char *from = cx_at_off(a->q, q->b * a->qs[0] + t * a->qs[1] + h * a->qs[2]);
	const float *p = cx_row_load(qb, from, a->q->d.dtype, 1, a->d);
	if (p != qb) memcpy(qb, p, (size_t)a->d * sizeof *p);
	memset(qb + a->d, 0, (size_t)(a->dp - a->d) * sizeof *qb);
	w->t[i] = t;
	w->h[i] = h;
	w->lo[i] = a->window > 0 && pos - a->window + 1 > 0 ? pos - a->window + 1 : 0;
	w->hi[i] = a->causal && pos + 1 < q->n_kv ? pos + 1 : q->n_kv;
	w->m[i] = -INFINITY;
	w->l[i] = 0.0f;
}

static void end_row(const attn *a, const seq *q, const rows *w, int64_t i)
{
	float *o = a->ob + i * a->dvp;
	int64_t batch = a->q->d.rank == 4 ? q->b * a->q->d.dim[1] : 0;
	v16 l = v16_set1(w->l[i]);
	if (w->m[i] == -INFINITY && w->l[i] == 0.0f) memset(o, 0, (size_t)a->dv * sizeof *o);
	else
		for (int64_t c = 0; c < a->dvp; c += 16) v16_store(o + c, v16_div(v16_load(o + c), l));
	cx_row_store(cx_at_off(a->y, ((batch + w->t[i]) * a->n_heads + w->h[i]) * a->dv), a->y->d.dtype,
		1, o, a->dv);
}

/* Rows [r0, r0 + n) of n_hk key heads from hk on. Several heads go through a block together, so
 * that keys, which lie head by head in a row, are fetched in order. */
static void unit(attn *a, const seq *q, int64_t hk, int64_t n_hk, int64_t r0, int64_t n)
{
	int64_t first = INT64_MAX, last = 0, row[KB];
	const float *kp[KB], *vp[KB];
	rows w = {.n = n * n_hk};
	for (int64_t i = 0; i < w.n; i++) {
		begin_row(a, q, &w, i, hk + i / n, r0 + i % n);
		if (w.lo[i] >= w.hi[i]) continue;
		first = w.lo[i] < first ? w.lo[i] : first;
		last = w.hi[i] > last ? w.hi[i] : last;
	}
	memset(a->ob, 0, (size_t)(w.n * a->dvp) * sizeof *a->ob);
	for (int64_t base = first / KB * KB; base < last; base += KB) {
		int64_t nk = last - base < KB ? last - base : KB;
		locate(a, q, base, nk, row);
		for (int64_t g = 0; g < n_hk; g++) {
			stage(q, a->k, a->ks, hk + g, row, nk, a->d, a->dp, false, a->kb, kp);
			stage(q, a->v, a->vs, hk + g, row, nk, a->dv, a->dvp, n >= 16, a->vb, vp);
			transpose(a, kp, nk);
			block(a, q, &w, g * n, (g + 1) * n, base, vp);
		}
	}
	for (int64_t i = 0; i < w.n; i++) end_row(a, q, &w, i);
}

/* All units of one sequence; *turn counts units over sequences, each thread takes every n-th. */
static void sequence(attn *a, const seq *q, const cx_cpu_team *t, int64_t *turn)
{
	int64_t rows = (q->q1 - q->q0) * (a->n_heads / (a->n_kv_heads ? a->n_kv_heads : 1)), step = 1;
	if (rows > 0 && rows < RB_HEADS) step = RB_HEADS / rows;
	if (step > a->n_kv_heads / t->n) step = a->n_kv_heads / t->n; /* something for every thread */
	if (step < 1) step = 1;
	for (int64_t r = 0; r < rows; r += a->rb)
		for (int64_t hk = 0; hk < a->n_kv_heads; hk += step) {
			int64_t n_hk = a->n_kv_heads - hk < step ? a->n_kv_heads - hk : step;
			if ((*turn)++ % t->n == t->rank)
				unit(a, q, hk, n_hk, r, rows - r < a->rb ? rows - r : a->rb);
		}
}

/* ---- the ops ---- */

static void init(attn *a, const cx_cpu_call *c, const cx_cpu_team *t)
{
	int32_t r = c->in[0].d.rank;
	memset(a, 0, sizeof *a);
	a->q = &c->in[0];
	a->k = &c->in[1];
	a->v = &c->in[2];
	a->y = &c->out[0];
	for (int i = r == 4 ? 0 : 1; i < 3; i++) {
		a->qs[i] = a->q->d.stride[r - 4 + i];
		a->ks[i] = a->k->d.stride[r - 4 + i];
		a->vs[i] = a->v->d.stride[r - 4 + i];
	}
	a->n_heads = a->q->d.dim[r - 2];
	a->n_kv_heads = a->k->d.dim[r - 2];
	a->d = a->q->d.dim[r - 1];
	a->dv = a->v->d.dim[r - 1];
	a->dp = cx_pad16(a->d);
	a->dvp = cx_pad16(a->dv);
	a->rb = RB; /* fewer, where threads would have nothing to do */
	while (a->rb > 32 && cx__desc_elems(&a->q->d) < 2 * t->n * a->rb * a->d) a->rb /= 2;
	a->qb = cx_f32(c->scratch) + t->rank * cx_attn_scratch(a->d, a->dv);
	a->ob = a->qb + RB * a->dp;
	a->kb = a->ob + RB * a->dvp;
	a->vb = a->kb + KB * a->dp;
	a->kt = a->vb + KB * a->dvp;
}

/* Strides of a mask or bias over [B,H,T,S]; NULL if it is absent. */
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
static void zero_rows(const attn *a, const cx_cpu_team *t, int64_t from, int64_t to)
{
	uint64_t row = (uint64_t)(a->n_heads * a->dv) * cx_cpu_size(a->y->d.dtype);
	if (t->rank == 0 && to > from)
		memset(a->y->p + (uint64_t)from * row, 0, (uint64_t)(to - from) * row);
}

CX_CPU_FN(cx_attention_block_f32)
{
	const cx_attr_attention *at = c->attr;
	const int32_t *qo = cx_cpu_has(c, 3) ? (const int32_t *)c->in[3].p : NULL;
	const int32_t *ko = cx_cpu_has(c, 4) ? (const int32_t *)c->in[4].p : NULL;
	int64_t turn = 0, total, total_k;
	attn a;
	init(&a, c, t);
	a.scale = at->scale != 0.0f ? at->scale : 1.0f / sqrtf((float)a.d);
	a.causal = at->causal;
	a.window = at->window;
	a.mask = aligned(c, 5, a.ms);
	a.bias = aligned(c, 6, a.bs);
	if (cx__desc_elems(&a.y->d) == 0) return;
	if (a.q->d.rank == 4) {
		for (int64_t b = 0; b < a.q->d.dim[0]; b++) {
			seq q = {b, 0, a.q->d.dim[1], 0, a.k->d.dim[1]};
			sequence(&a, &q, t, &turn);
		}
		return;
	}
	total = a.q->d.dim[0];
	total_k = a.k->d.dim[0];
	if (!qo) {
		seq q = {0, 0, total, 0, total_k};
		sequence(&a, &q, t, &turn);
		return;
	}
	for (int64_t b = 0; b + 1 < c->in[3].d.dim[0]; b++) {
		seq q = {0, clampi(qo[b], 0, total), clampi(qo[b + 1], 0, total), 0, 0};
		q.k0 = clampi(ko ? ko[b] : qo[b], 0, total_k);
		q.n_kv = clampi(ko ? ko[b + 1] : qo[b + 1], q.k0, total_k) - q.k0;
		sequence(&a, &q, t, &turn);
	}
	zero_rows(&a, t, 0, clampi(qo[0], 0, total));
	zero_rows(&a, t, clampi(qo[c->in[3].d.dim[0] - 1], 0, total), total);
}

CX_CPU_FN(cx_paged_attention_block_f32)
{
	const cx_attr_paged *at = c->attr;
	const cx_cpu_arg *table = &c->in[3];
	const int32_t *qo = (const int32_t *)c->in[4].p, *len = (const int32_t *)c->in[5].p;
	int64_t turn = 0, total = c->in[0].d.dim[0], nb = c->in[5].d.dim[0];
	attn a;
	init(&a, c, t);
	a.scale = at->scale != 0.0f ? at->scale : 1.0f / sqrtf((float)a.d);
	a.causal = true;
	a.window = at->window;
	a.page = at->page;
	a.n_slots = a.k->d.dim[0];
	a.n_pages = table->d.dim[1];
	a.table_stride = table->d.stride[1];
	if (cx__desc_elems(&a.y->d) == 0) return;
	for (int64_t b = 0; b < nb; b++) {
		seq q = {
			0, clampi(qo[b], 0, total), clampi(qo[b + 1], 0, total), 0, len[b] < 0 ? 0 : len[b]};
		a.table = (const int32_t *)table->p + b * table->d.stride[0];
		sequence(&a, &q, t, &turn);
	}
	zero_rows(&a, t, 0, nb ? clampi(qo[0], 0, total) : total);
	if (nb) zero_rows(&a, t, clampi(qo[nb], 0, total), total);
}
