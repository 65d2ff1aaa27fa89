/* row.c - reductions and ops that look at whole rows: sums, extrema, softmax, norms, top-k, running
 * sums.
 *
 * All go over "rows": an outer walk over the axes that are kept, an inner loop over the ones that
 * are not. Sums run in index order in double, means and variances in two passes. */
#include "backends/ref/ref.h"

#include <math.h>

/* ---- reductions over any axes ---- */

typedef struct folded {
	double f;
	cx__ref_int i;
} folded;

static folded fold_start(cx_op op, cx_dtype t)
{
	static const int64_t least[CX_DTYPE_COUNT] = {
		[CX_I32] = INT32_MIN, [CX_I64] = INT64_MIN, [CX_I8] = INT8_MIN};
	static const int64_t most[CX_DTYPE_COUNT] = {[CX_I32] = INT32_MAX,
		[CX_I64] = INT64_MAX,
		[CX_I8] = INT8_MAX,
		[CX_U8] = UINT8_MAX,
		[CX_BOOL] = 1};
	if (op == CX_OP_amax) return (folded){-INFINITY, least[t]};
	if (op == CX_OP_amin) return (folded){INFINITY, most[t]};
	return (folded){0, 0};
}

static void fold(cx_op op, folded *acc, const cx__ref_arg *x, int64_t off)
{
	bool is_float = cx__ref_is_float(x->d.dtype);
	double v = is_float ? cx__elem_get(x, off) : 0;
	cx__ref_int i = is_float ? 0 : cx__elem_int(x, off);
	switch (op) {
	case CX_OP_amax:
		if (v > acc->f || isnan(v)) acc->f = isnan(acc->f) ? acc->f : v;
		if (i > acc->i) acc->i = i;
		break;
	case CX_OP_amin:
		if (v < acc->f || isnan(v)) acc->f = isnan(acc->f) ? acc->f : v;
		if (i < acc->i) acc->i = i;
		break;
	default:
		acc->f += v;
		acc->i += i;
	}
}

static void reduce(const cx__ref_call *c)
{
	const cx_attr_reduce *at = c->attr;
	const cx__ref_arg *x = &c->in[0], *y = &c->out[0];
	int64_t outer[CX_MAX_RANK], inner[CX_MAX_RANK], row = 0;
	cx__ref_walk rows, cols;
	for (int32_t k = 0; k < x->d.rank; k++) {
		bool gone = at->axes.n == 0;
		for (int32_t j = 0; j < at->axes.n; j++)
			if (at->axes.v[j] == k || at->axes.v[j] + x->d.rank == k) gone = true;
		outer[k] = gone ? 1 : x->d.dim[k];
		inner[k] = gone ? x->d.dim[k] : 1;
	}
	if (!cx__walk_init(&rows, x->d.rank, outer)) return;
	cx__walk_add(&rows, &x->d);
	do {
		folded acc = fold_start(c->op, x->d.dtype);
		int64_t n = 0;
		if (cx__walk_init(&cols, x->d.rank, inner)) {
			cx__walk_add(&cols, &x->d);
			do {
				fold(c->op, &acc, x, rows.off[0] + cols.off[0]);
				n++;
			} while (cx__walk_next(&cols));
		}
		if (c->op == CX_OP_mean) acc.f /= (double)n; /* 0/0 is NaN, as promised */
		if (cx__ref_is_float(x->d.dtype)) cx__elem_put(y, cx__elem_offset(&y->d, row++), acc.f);
		else cx__elem_put_int(y, cx__elem_offset(&y->d, row++), acc.i);
	} while (cx__walk_next(&rows));
}

void cx__ref_sum(const cx__ref_call *c)
{
	reduce(c);
}
void cx__ref_mean(const cx__ref_call *c)
{
	reduce(c);
}
void cx__ref_amax(const cx__ref_call *c)
{
	reduce(c);
}
void cx__ref_amin(const cx__ref_call *c)
{
	reduce(c);
}

/* ---- rows along one axis ---- */

/* The walk visits every row of in[0] along `axis`; operand 0 is in[0], operand 1 out[0] of the same
 * rank. */
typedef struct rows {
	cx__ref_walk w;
	int64_t n, xs, ys;
	bool some;
} rows;

static rows rows_along(const cx__ref_arg *x, const cx__ref_arg *y, int64_t axis)
{
	rows r = {0};
	int64_t dim[CX_MAX_RANK] = {0};
	if (axis < 0) axis += x->d.rank;
	for (int32_t k = 0; k < x->d.rank; k++) dim[k] = k == axis ? 1 : x->d.dim[k];
	r.some = cx__walk_init(&r.w, x->d.rank, dim);
	cx__walk_add(&r.w, &x->d);
	r.n = x->d.rank ? x->d.dim[axis] : 1;
	r.xs = x->d.rank ? x->d.stride[axis] : 0;
	if (y) {
		cx__walk_add(&r.w, &y->d);
		r.ys = y->d.rank ? y->d.stride[axis] : 0;
	}
	return r;
}

/* True if element a comes before b in the order of topk: larger (or smaller) first, NaN as the
 * largest. */
static bool before(const cx__ref_arg *x, int64_t a, int64_t b, bool smallest)
{
	double fa, fb;
	if (!cx__ref_is_float(x->d.dtype)) {
		int64_t ia = cx__elem_int(x, a), ib = cx__elem_int(x, b);
		return smallest ? ia < ib : ia > ib;
	}
	fa = cx__elem_get(x, a);
	fb = cx__elem_get(x, b);
	if (isnan(fa) || isnan(fb)) return smallest ? !isnan(fa) && isnan(fb) : isnan(fa) && !isnan(fb);
	return smallest ? fa < fb : fa > fb;
}

void cx__ref_argmax(const cx__ref_call *c)
{
	const cx_attr_arg *at = c->attr;
	rows r = rows_along(&c->in[0], NULL, at->axis);
	int64_t row = 0;
	if (!r.some) return;
	do {
		int64_t best = 0;
		for (int64_t j = 1; j < r.n; j++)
			if (before(&c->in[0], r.w.off[0] + j * r.xs, r.w.off[0] + best * r.xs, false)) best = j;
		cx__elem_put_int(&c->out[0], cx__elem_offset(&c->out[0].d, row++), best);
	} while (cx__walk_next(&r.w));
}

void cx__ref_topk(const cx__ref_call *c)
{
	const cx_attr_topk *at = c->attr;
	const cx__ref_arg *x = &c->in[0];
	rows r = rows_along(x, &c->out[0], at->axis);
	int64_t axis = at->axis < 0 ? at->axis + x->d.rank : at->axis;
	if (!r.some) return;
	cx__walk_add(&r.w, &c->out[1].d);
	do {
		int64_t last = -1; /* taken last: the next one is the first of those that come after it */
		for (int64_t k = 0; k < at->k; k++) {
			int64_t best = -1;
			for (int64_t j = 0; j < r.n; j++) {
				int64_t here = r.w.off[0] + j * r.xs;
				if (last >= 0) {
					int64_t prev = r.w.off[0] + last * r.xs;
					bool tie = !before(x, prev, here, at->smallest);
					if (before(x, here, prev, at->smallest) || (tie && j <= last)) continue;
				}
				if (best < 0 || before(x, here, r.w.off[0] + best * r.xs, at->smallest)) best = j;
			}
			cx__elem_move(&c->out[0], r.w.off[1] + k * r.ys, x, r.w.off[0] + best * r.xs);
			cx__elem_put_int(&c->out[1], r.w.off[2] + k * c->out[1].d.stride[axis], best);
			last = best;
		}
	} while (cx__walk_next(&r.w));
}

void cx__ref_cumsum(const cx__ref_call *c)
{
	const cx_attr_cumsum *at = c->attr;
	const cx__ref_arg *x = &c->in[0], *y = &c->out[0];
	rows r = rows_along(x, y, at->axis);
	bool is_float = cx__ref_is_float(x->d.dtype);
	if (!r.some) return;
	do {
		double f = 0;
		cx__ref_int i = 0;
		for (int64_t t = 0; t < r.n; t++) {
			int64_t j = at->reverse ? r.n - 1 - t : t;
			int64_t from = r.w.off[0] + j * r.xs, to = r.w.off[1] + j * r.ys;
			double v = is_float ? cx__elem_get(x, from) : 0;
			cx__ref_int iv = is_float ? 0 : cx__elem_int(x, from);
			if (!at->exclusive) f += v, i += iv;
			if (is_float) cx__elem_put(y, to, f);
			else cx__elem_put_int(y, to, i);
			if (at->exclusive) f += v, i += iv;
		}
	} while (cx__walk_next(&r.w));
}

/* scale * x is rounded to f32, as the product that the planner may have taken in would be. */
static void softmax(const cx__ref_call *c, bool logarithm)
{
	const cx_attr_softmax *at = c->attr;
	const cx__ref_arg *x = &c->in[0];
	rows r = rows_along(x, &c->out[0], at->axis);
	if (!r.some) return;
	do {
		double m = -INFINITY, sum = 0;
		for (int64_t j = 0; j < r.n; j++) {
			double v = at->scale * (float)cx__elem_get(x, r.w.off[0] + j * r.xs);
			if (v > m || isnan(v)) m = v;
			if (isnan(m)) break;
		}
		for (int64_t j = 0; j < r.n; j++)
			sum += exp((double)(at->scale * (float)cx__elem_get(x, r.w.off[0] + j * r.xs)) - m);
		for (int64_t j = 0; j < r.n; j++) {
			double v = (double)(at->scale * (float)cx__elem_get(x, r.w.off[0] + j * r.xs)) - m;
			cx__elem_put(
				&c->out[0], r.w.off[1] + j * r.ys, logarithm ? v - log(sum) : exp(v) / sum);
		}
	} while (cx__walk_next(&r.w));
}

void cx__ref_softmax(const cx__ref_call *c)
{
	softmax(c, false);
}
void cx__ref_log_softmax(const cx__ref_call *c)
{
	softmax(c, true);
}

/* ---- norms ---- */

/* Weight of a norm at column j; 1 if there is none. */
static double norm_weight(const cx__ref_call *c, int64_t j, bool plus_one)
{
	double w = cx__ref_has(c, 1) ? cx__elem_get(&c->in[1], j * c->in[1].d.stride[0])
			   : plus_one        ? 0
								 : 1;
	return plus_one ? 1 + w : w;
}

static double norm_bias(const cx__ref_call *c, int64_t j)
{
	return cx__ref_has(c, 2) ? cx__elem_get(&c->in[2], j * c->in[2].d.stride[0]) : 0;
}

void cx__ref_layernorm(const cx__ref_call *c)
{
	const cx_attr_norm *at = c->attr;
	const cx__ref_arg *x = &c->in[0];
	rows r = rows_along(x, &c->out[0], -1);
	if (!r.some) return;
	do {
		double mean = 0, var = 0;
		for (int64_t j = 0; j < r.n; j++) mean += cx__elem_get(x, r.w.off[0] + j * r.xs);
		mean /= (double)r.n;
		for (int64_t j = 0; j < r.n; j++) {
			double d = cx__elem_get(x, r.w.off[0] + j * r.xs) - mean;
			var += d * d;
		}
		var /= (double)r.n;
		for (int64_t j = 0; j < r.n; j++) {
			double v = (cx__elem_get(x, r.w.off[0] + j * r.xs) - mean) / sqrt(var + at->eps);
			cx__elem_put(&c->out[0], r.w.off[1] + j * r.ys,
				v * norm_weight(c, j, at->plus_one) + norm_bias(c, j));
		}
	} while (cx__walk_next(&r.w));
}

/* rmsnorm divides by the root of the mean square, l2norm by that of the sum. */
static void square_norm(const cx__ref_call *c, bool mean)
{
	const cx_attr_norm *at = c->attr;
	const cx__ref_arg *x = &c->in[0];
	rows r = rows_along(x, &c->out[0], -1);
	if (!r.some) return;
	do {
		double ss = 0;
		for (int64_t j = 0; j < r.n; j++) {
			double v = cx__elem_get(x, r.w.off[0] + j * r.xs);
			ss += v * v;
		}
		if (mean) ss /= (double)r.n;
		for (int64_t j = 0; j < r.n; j++) {
			double v = cx__elem_get(x, r.w.off[0] + j * r.xs) / sqrt(ss + at->eps);
			cx__elem_put(
				&c->out[0], r.w.off[1] + j * r.ys, mean ? v * norm_weight(c, j, at->plus_one) : v);
		}
	} while (cx__walk_next(&r.w));
}

void cx__ref_rmsnorm(const cx__ref_call *c)
{
	square_norm(c, true);
}
void cx__ref_l2norm(const cx__ref_call *c)
{
	square_norm(c, false);
}

/* x [N,C,...]: group g of sample n is a block of C/groups channels and all inner elements. */
void cx__ref_groupnorm(const cx__ref_call *c)
{
	const cx_attr_groupnorm *at = c->attr;
	const cx__ref_arg *x = &c->in[0], *y = &c->out[0];
	int64_t n_samples = x->d.dim[0], channels = x->d.dim[1], inner = 1, size;
	for (int32_t k = 2; k < x->d.rank; k++) inner *= x->d.dim[k];
	size =
		channels / at->groups * inner; /* elements of a group are consecutive in row-major order */
	for (int64_t g = 0; g < n_samples * at->groups; g++) {
		double mean = 0, var = 0;
		for (int64_t j = 0; j < size; j++)
			mean += cx__elem_get(x, cx__elem_offset(&x->d, g * size + j));
		mean /= (double)size;
		for (int64_t j = 0; j < size; j++) {
			double d = cx__elem_get(x, cx__elem_offset(&x->d, g * size + j)) - mean;
			var += d * d;
		}
		var /= (double)size;
		for (int64_t j = 0; j < size; j++) {
			int64_t i = g * size + j, ch = i / inner % channels;
			double v = (cx__elem_get(x, cx__elem_offset(&x->d, i)) - mean) / sqrt(var + at->eps);
			v = v * norm_weight(c, ch, false) + norm_bias(c, ch);
			cx__elem_put(y, cx__elem_offset(&y->d, i), v);
		}
	}
}
