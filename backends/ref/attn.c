/* attn.c - attention over dense, ragged and paged keys.
 *
 * One query row at a time: all scores into scratch, their softmax, then the weighted sum of values.
 * Sums are double; scores and weights are rounded to f32, where the matmul, scale, bias and softmax
 * that the planner replaces by this op would round them. A row that sees no key, or only keys at
 * -inf, gives 0. */
#include "backends/ref/ref.h"

#include <math.h>
#include <string.h>

/* softmax(scores) v for one row: n scores, value row s at v_off(s). out[dv] goes to `y` from y_off
 * on. */
typedef struct weighted {
	const cx__ref_arg *v, *y;
	int64_t v_stride, y_off, y_stride, dv;
	double *sum; /* [dv] */
} weighted;

static void finish_row(const weighted *w, const double *scores, const int64_t *v_off, int64_t n)
{
	double m = -INFINITY, total = 0;
	for (int64_t s = 0; s < n; s++) {
		if (isnan(scores[s])) m = NAN;
		if (scores[s] > m) m = scores[s];
	}
	memset(w->sum, 0, (size_t)w->dv * sizeof *w->sum);
	for (int64_t s = 0; m != -INFINITY && s < n; s++) total += exp(scores[s] - m);
	for (int64_t s = 0; m != -INFINITY && s < n; s++) {
		float p = (float)(exp(scores[s] - m) / total);
		if (scores[s] == -INFINITY) continue; /* not seen: its value must not count, be it NaN */
		for (int64_t j = 0; j < w->dv; j++)
			w->sum[j] += p * cx__elem_get(w->v, v_off[s] + j * w->v_stride);
	}
	for (int64_t j = 0; j < w->dv; j++) cx__elem_put(w->y, w->y_off + j * w->y_stride, w->sum[j]);
}

static float score(const cx__ref_arg *q, int64_t q_off, int64_t q_stride, const cx__ref_arg *k,
	int64_t k_off, int64_t k_stride, int64_t d)
{
	double sum = 0;
	for (int64_t j = 0; j < d; j++)
		sum += cx__elem_get(q, q_off + j * q_stride) * cx__elem_get(k, k_off + j * k_stride);
	return (float)sum;
}

/* Element of a mask or bias that broadcasts to the last axes of [B,H,T,S]. */
static int64_t mask_off(const cx_desc *d, int64_t b, int64_t h, int64_t t, int64_t s)
{
	const int64_t at[4] = {b, h, t, s};
	int64_t off = 0;
	for (int32_t k = 0; k < d->rank; k++)
		if (d->dim[k] != 1) off += at[4 - d->rank + k] * d->stride[k];
	return off;
}

/* One sequence: T query rows from q row q0, S keys from k row k0; b is the batch index of dense
 * operands. */
typedef struct sequence {
	int64_t b, q0, n_q, k0, n_k;
} sequence;

static void attend(const cx__ref_call *c, const sequence *sq, int64_t h, int64_t t)
{
	const cx_attr_attention *at = c->attr;
	const cx__ref_arg *q = &c->in[0], *k = &c->in[1], *v = &c->in[2], *y = &c->out[0];
	int32_t r =
		q->d.rank; /* axes r-3 rows, r-2 heads, r-1 elements; axis 0 is the batch when r is 4 */
	int64_t d = q->d.dim[r - 1], group = q->d.dim[r - 2] / k->d.dim[r - 2], hk = h / group,
			seen = 0;
	int64_t lead[4] = {0},
			at_pos = t + sq->n_k - sq->n_q; /* bottom-right: the last query is at the last key */
	double scale = at->scale != 0 ? at->scale : 1 / sqrt((double)d);
	void *free_at = c->scratch;
	double *scores = cx__ref_take(&free_at, (uint64_t)k->d.dim[r - 3] * 8);
	double *sum = cx__ref_take(&free_at, (uint64_t)v->d.dim[r - 1] * 8);
	int64_t *v_off = cx__ref_take(&free_at, (uint64_t)k->d.dim[r - 3] * 8);
	const cx__ref_arg *args[4] = {q, k, v, y};
	for (int i = 0; i < 4; i++) lead[i] = r == 4 ? sq->b * args[i]->d.stride[0] : 0;
	for (int64_t s = 0; s < sq->n_k; s++) {
		int64_t row = sq->k0 + s;
		float x;
		int64_t mt = r == 4 ? t : sq->q0 + t; /* masks have all rows of a ragged batch */
		if (at->causal && s > at_pos) continue;
		if (at->window > 0 && s <= at_pos - at->window) continue;
		if (cx__ref_has(c, 5) &&
			cx__elem_int(&c->in[5], mask_off(&c->in[5].d, sq->b, h, mt, s)) == 0)
			continue;
		x = (float)scale *
			score(q, lead[0] + (sq->q0 + t) * q->d.stride[r - 3] + h * q->d.stride[r - 2],
				q->d.stride[r - 1], k, lead[1] + row * k->d.stride[r - 3] + hk * k->d.stride[r - 2],
				k->d.stride[r - 1], d);
		if (cx__ref_has(c, 6))
			x += (float)cx__elem_get(&c->in[6], mask_off(&c->in[6].d, sq->b, h, mt, s));
		scores[seen] = x;
		v_off[seen++] = lead[2] + row * v->d.stride[r - 3] + hk * v->d.stride[r - 2];
	}
	finish_row(&(weighted){v, y, v->d.stride[r - 1],
				   lead[3] + (sq->q0 + t) * y->d.stride[r - 3] + h * y->d.stride[r - 2],
				   y->d.stride[r - 1], v->d.dim[r - 1], sum},
		scores, v_off, seen);
}

/* Offset i of an offset table, kept inside [lo, n]: a table that lies must not read outside. */
static int64_t table_at(const cx__ref_arg *off, int64_t i, int64_t lo, int64_t n)
{
	int64_t v = cx__elem_int(off, i * off->d.stride[0]);
	return v < lo ? lo : v > n ? n : v;
}

/* Rows of y from t on, to zero: they belong to no sequence. */
static void zero_rows(const cx__ref_arg *y, int64_t t)
{
	for (; t < y->d.dim[0]; t++)
		for (int64_t h = 0; h < y->d.dim[1]; h++)
			for (int64_t j = 0; j < y->d.dim[2]; j++)
				cx__elem_put(y, t * y->d.stride[0] + h * y->d.stride[1] + j * y->d.stride[2], 0);
}

void cx__ref_attention(const cx__ref_call *c)
{
	const cx_desc *q = &c->in[0].d, *k = &c->in[1].d;
	int32_t r = q->rank;
	int64_t n_q = q->dim[r - 3], n_k = k->dim[r - 3], n_seq = r == 4 ? q->dim[0] : 1;
	sequence sq = {0};
	if (r == 3 && cx__ref_has(c, 3)) n_seq = c->in[3].d.dim[0] - 1;
	else if (r == 3 && cx__ref_has(c, 4)) n_seq = c->in[4].d.dim[0] - 1;
	if (r == 3) zero_rows(&c->out[0], 0);
	for (int64_t b = 0; b < n_seq; b++) {
		sq = (sequence){b, 0, n_q, 0, n_k};
		if (r == 3 && cx__ref_has(c, 3)) {
			sq.q0 = table_at(&c->in[3], b, 0, n_q);
			sq.n_q = table_at(&c->in[3], b + 1, sq.q0, n_q) - sq.q0;
		}
		if (r == 3 && cx__ref_has(c, 4)) {
			sq.k0 = table_at(&c->in[4], b, 0, n_k);
			sq.n_k = table_at(&c->in[4], b + 1, sq.k0, n_k) - sq.k0;
		}
		for (int64_t t = 0; t < sq.n_q; t++)
			for (int64_t h = 0; h < q->dim[r - 2]; h++) attend(c, &sq, h, t);
	}
}

/* ---- paged ---- */

static void attend_paged(const cx__ref_call *c, int64_t b, int64_t row, int64_t pos, int64_t h)
{
	const cx_attr_paged *at = c->attr;
	const cx__ref_arg *q = &c->in[0], *k = &c->in[1], *v = &c->in[2], *table = &c->in[3],
					  *y = &c->out[0];
	int64_t d = q->d.dim[2], dv = v->d.dim[2], hk = h / (q->d.dim[1] / k->d.dim[1]), seen = 0;
	int64_t first = at->window > 0 && pos - at->window + 1 > 0 ? pos - at->window + 1 : 0;
	int64_t room = table->d.dim[1] * at->page;
	double scale = at->scale != 0 ? at->scale : 1 / sqrt((double)d);
	void *free_at = c->scratch;
	double *scores = cx__ref_take(&free_at, (uint64_t)room * 8);
	double *sum = cx__ref_take(&free_at, (uint64_t)dv * 8);
	int64_t *v_off = cx__ref_take(&free_at, (uint64_t)room * 8);
	for (int64_t p = first; p <= pos && p < room; p++) {
		int64_t page =
			cx__elem_int(table, b * table->d.stride[0] + p / at->page * table->d.stride[1]);
		int64_t slot = page * at->page + p % at->page;
		if (page < 0 || slot >= k->d.dim[0])
			continue; /* a page that is not there holds nothing to see */
		scores[seen] =
			(float)scale * score(q, row * q->d.stride[0] + h * q->d.stride[1], q->d.stride[2], k,
							   slot * k->d.stride[0] + hk * k->d.stride[1], k->d.stride[2], d);
		v_off[seen++] = slot * v->d.stride[0] + hk * v->d.stride[1];
	}
	finish_row(&(weighted){v, y, v->d.stride[2], row * y->d.stride[0] + h * y->d.stride[1],
				   y->d.stride[2], dv, sum},
		scores, v_off, seen);
}

void cx__ref_paged_attention(const cx__ref_call *c)
{
	const cx__ref_arg *q = &c->in[0], *q_off = &c->in[4], *kv_len = &c->in[5];
	int64_t n_rows = q->d.dim[0];
	zero_rows(&c->out[0], 0);
	for (int64_t b = 0; b < kv_len->d.dim[0]; b++) {
		int64_t first = table_at(q_off, b, 0, n_rows), end = table_at(q_off, b + 1, first, n_rows);
		int64_t len = cx__elem_int(kv_len, b * kv_len->d.stride[0]);
		for (int64_t row = first; row < end; row++)
			for (int64_t h = 0; h < q->d.dim[1]; h++) attend_paged(c, b, row, len - (end - row), h);
	}
}
