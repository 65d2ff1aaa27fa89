/* reduce.c - sum, mean, amax, amin over any axes of an operand with any strides.
 *
 * Floats: if the innermost axis is reduced, lane j of 16 takes its elements j mod 16 and the lanes
 * are added at the end of all runs; if it is kept, 256 neighbouring results are accumulated side by
 * side. Long sums go through partial sums (1024 elements, or 64 rows), which keeps the rounding
 * error small. Integers: int64, one result at a time. */
#include "backends/cpu/isa/lane.h"

#include <float.h>

enum { CHUNK = 1024, WIDE = 256, FLUSH = 64 };

typedef struct walk {
	int32_t nk, nr; /* kept and reduced axes, outermost first, neighbours merged */
	int64_t kd[CX_MAX_RANK], ks[CX_MAX_RANK], rd[CX_MAX_RANK], rs[CX_MAX_RANK];
	int64_t n_out, n_red;
} walk;

static void add_axis(int64_t *dim, int64_t *stride, int32_t *n, int64_t d, int64_t s)
{
	if (d == 1) return;
	if (*n && stride[*n - 1] == d * s) {
		dim[*n - 1] *= d;
		stride[*n - 1] = s;
		return;
	}
	dim[*n] = d;
	stride[(*n)++] = s;
}

static void walk_init(walk *w, const cx_desc *x, const cx_list *axes)
{
	memset(w, 0, sizeof *w);
	w->n_out = w->n_red = 1;
	for (int32_t i = 0; i < x->rank; i++) {
		bool red = axes->n == 0;
		for (int32_t j = 0; j < axes->n; j++) red |= axes->v[j] == i;
		if (red) {
			add_axis(w->rd, w->rs, &w->nr, x->dim[i], x->stride[i]);
			w->n_red *= x->dim[i];
		} else {
			add_axis(w->kd, w->ks, &w->nk, x->dim[i], x->stride[i]);
			w->n_out *= x->dim[i];
		}
	}
}

static int64_t off_of(const int64_t *dim, const int64_t *stride, int32_t n, int64_t r)
{
	int64_t off = 0;
	for (int32_t i = n - 1; i >= 0; i--) {
		off += r % dim[i] * stride[i];
		r /= dim[i];
	}
	return off;
}

CX_INLINE v16 combine(cx_op op, v16 a, v16 b)
{
	if (op == CX_OP_amax) return v16_max_nan(a, b);
	if (op == CX_OP_amin) return v16_min_nan(a, b);
	return v16_add(a, b);
}

static float identity(cx_op op)
{
	return op == CX_OP_amax ? -INFINITY : op == CX_OP_amin ? INFINITY : 0.0f;
}

static v16 run_lanes(cx_op op, const float *x, int64_t n)
{
	v16 acc = v16_set1(identity(op));
	float tail[16];
	int64_t i = 0;
	for (; i + 16 <= n; i += 16) acc = combine(op, acc, v16_load(x + i));
	if (i < n) {
		for (int j = 0; j < 16; j++) tail[j] = identity(op);
		memcpy(tail, x + i, (size_t)(n - i) * sizeof *x);
		acc = combine(op, acc, v16_load(tail));
	}
	return acc;
}

static float finish(cx_op op, v16 acc)
{
	float l[16], r;
	if (op != CX_OP_amax && op != CX_OP_amin) return v16_sum(acc);
	v16_store(l, acc);
	r = l[0];
	for (int j = 1; j < 16; j++)
		if (op == CX_OP_amax) r = r > l[j] || r != r ? r : l[j];
		else r = r < l[j] || r != r ? r : l[j];
	return r;
}

/* One result: the last reduced axis in runs. */
static float reduce_one(cx_op op, const cx_cpu_arg *x, int64_t off, const walk *w)
{
	int64_t n = w->nr ? w->rd[w->nr - 1] : 1, s = w->nr ? w->rs[w->nr - 1] : 1;
	int64_t runs = n ? w->n_red / n : 0;
	v16 total = v16_set1(identity(op));
	float buf[CHUNK];
	for (int64_t r = 0; r < runs; r++) {
		int64_t base = off + off_of(w->rd, w->rs, w->nr - 1, r);
		for (int64_t i = 0; i < n; i += CHUNK) {
			int64_t k = n - i < CHUNK ? n - i : CHUNK;
			const float *row = cx_row_load(buf, cx_at_off(x, base + i * s), x->d.dtype, s, k);
			total = combine(op, total, run_lanes(op, row, k));
		}
	}
	return finish(op, total);
}

/* k neighbouring results at y (k <= WIDE, stride 1 in x). */
static void reduce_wide(
	cx_op op, const cx_cpu_arg *x, int64_t off, const walk *w, float *y, int64_t k)
{
	float acc[WIDE], buf[WIDE];
	for (int64_t i = 0; i < k; i++) y[i] = identity(op);
	for (int64_t r0 = 0; r0 < w->n_red; r0 += FLUSH) {
		int64_t r1 = r0 + FLUSH < w->n_red ? r0 + FLUSH : w->n_red;
		for (int64_t i = 0; i < k; i++) acc[i] = identity(op);
		for (int64_t r = r0; r < r1; r++) {
			const float *row = cx_row_load(
				buf, cx_at_off(x, off + off_of(w->rd, w->rs, w->nr, r)), x->d.dtype, 1, k);
			for (int64_t i = 0; i < k; i += 16) {
				size_t m = k - i < 16 ? (size_t)(k - i) : 16;
				v16_store_n(
					acc + i, combine(op, v16_load_n(acc + i, m), v16_load_n(row + i, m)), m);
			}
		}
		for (int64_t i = 0; i < k; i += 16) {
			size_t m = k - i < 16 ? (size_t)(k - i) : 16;
			v16_store_n(y + i, combine(op, v16_load_n(y + i, m), v16_load_n(acc + i, m)), m);
		}
	}
}

CX_CPU_FN(cx_reduce_axes_f32)
{
	const cx_attr_reduce *at = c->attr;
	const cx_cpu_arg *x = &c->in[0], *y = &c->out[0];
	walk w;
	int64_t lo, hi;
	float buf[WIDE];
	bool wide;
	walk_init(&w, &x->d, &at->axes);
	wide = w.nk && w.ks[w.nk - 1] == 1 && w.n_red > 0;
	cx_cpu_share(t, w.n_out, wide ? 16 : 1, &lo, &hi);
	for (int64_t o = lo; o < hi;) {
		int64_t k = 1, off = off_of(w.kd, w.ks, w.nk, o);
		if (wide) {
			int64_t left = w.kd[w.nk - 1] - o % w.kd[w.nk - 1];
			k = hi - o < WIDE ? hi - o : WIDE;
			k = left < k ? left : k;
			reduce_wide(c->op, x, off, &w, buf, k);
		} else {
			buf[0] = reduce_one(c->op, x, off, &w);
		}
		if (c->op == CX_OP_mean)
			for (int64_t i = 0; i < k; i++) buf[i] /= (float)w.n_red;
		cx_row_store(cx_at_off(y, o), y->d.dtype, 1, buf, k);
		o += k;
	}
}

static int64_t least(cx_dtype t)
{
	switch (t) {
	case CX_I32:
		return INT32_MIN;
	case CX_I64:
		return INT64_MIN;
	case CX_I8:
		return INT8_MIN;
	default:
		return 0;
	}
}
static int64_t greatest(cx_dtype t)
{
	switch (t) {
	case CX_I32:
		return INT32_MAX;
	case CX_I64:
		return INT64_MAX;
	case CX_I8:
		return INT8_MAX;
	case CX_BOOL:
		return 1;
	default:
		return UINT8_MAX;
	}
}

CX_CPU_FN(cx_reduce_axes_i64)
{
	const cx_attr_reduce *at = c->attr;
	const cx_cpu_arg *x = &c->in[0], *y = &c->out[0];
	cx_dtype dt = x->d.dtype;
	walk w;
	int64_t lo, hi, n, s;
	walk_init(&w, &x->d, &at->axes);
	n = w.nr ? w.rd[w.nr - 1] : 1;
	s = w.nr ? w.rs[w.nr - 1] : 1;
	cx_cpu_share(t, w.n_out, 1, &lo, &hi);
	for (int64_t o = lo; o < hi; o++) {
		int64_t off = off_of(w.kd, w.ks, w.nk, o);
		int64_t acc = c->op == CX_OP_amax ? least(dt) : c->op == CX_OP_amin ? greatest(dt) : 0;
		for (int64_t r = 0; n && r < w.n_red / n; r++) {
			int64_t base = off + off_of(w.rd, w.rs, w.nr - 1, r);
			for (int64_t i = 0; i < n; i++) {
				int64_t v = cx_get_i64(x->p, dt, base + i * s);
				if (c->op == CX_OP_amax) acc = v > acc ? v : acc;
				else if (c->op == CX_OP_amin) acc = v < acc ? v : acc;
				else acc = (int64_t)((uint64_t)acc + (uint64_t)v);
			}
		}
		cx_put_i64(y->p, y->d.dtype, o, acc);
	}
}
