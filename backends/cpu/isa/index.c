/* index.c - argmax, topk, cumsum along one axis. Integers are compared and summed exactly, in
 * int64.
 *
 * Order of topk and argmax: larger (or smaller) first, NaN counts as the largest, ties go to the
 * lowest index. */
#include "backends/cpu/isa/lane.h"

typedef struct item {
	float f;
	int32_t i;
	int64_t l;
} item;

/* True if a comes before b. */
CX_INLINE bool before(const item *a, const item *b, bool is_int, bool smallest)
{
	if (is_int) {
		if (a->l != b->l) return smallest ? a->l < b->l : a->l > b->l;
	} else {
		bool na = a->f != a->f, nb = b->f != b->f;
		if (na != nb) return smallest ? nb : na;
		if (!na && a->f != b->f) return smallest ? a->f < b->f : a->f > b->f;
	}
	return a->i < b->i;
}

CX_INLINE item item_at(const cx_cpu_arg *x, int64_t off, int64_t i, bool is_int)
{
	item e = {0, (int32_t)i, 0};
	if (is_int) e.l = cx_get_i64(x->p, x->d.dtype, off);
	else e.f = cx_get_f32(x->p, x->d.dtype, off);
	return e;
}

/* The lowest index of the largest of n contiguous f32: 16 lanes keep their own best. */
static int64_t argmax_f32(const float *x, int64_t n)
{
	float best[16];
	int32_t at[16];
	v16 b = v16_load_n(x, n < 16 ? (size_t)n : 16);
	v16i bi, idx;
	item e, f;
	int64_t i = 16;
	for (int j = 0; j < 16; j++) at[j] = j < n ? j : 0;
	bi = v16i_load(at);
	idx = bi;
	for (; i + 16 <= n; i += 16) {
		v16 v = v16_load(x + i);
		v16m gt = v16m_or(v16_lt(b, v), v16m_and(v16_isnan(v), v16m_not(v16_isnan(b))));
		idx = v16i_add(idx, v16i_set1(16));
		b = v16_select(gt, v, b);
		bi = v16_as_v16i(v16_select(gt, v16i_as_v16(idx), v16i_as_v16(bi)));
	}
	v16_store(best, b);
	v16i_store(at, bi);
	e = (item){best[0], at[0], 0};
	for (int j = 1; j < 16 && j < n; j++) {
		f = (item){best[j], at[j], 0};
		if (before(&f, &e, false, false)) e = f;
	}
	for (; i < n; i++) {
		f = (item){x[i], (int32_t)i, 0};
		if (before(&f, &e, false, false)) e = f;
	}
	return e.i;
}

CX_CPU_FN(cx_argmax_row_any)
{
	const cx_attr_arg *at = c->attr;
	const cx_cpu_arg *x = &c->in[0], *y = &c->out[0];
	int32_t axis = (int32_t)at->axis;
	int64_t n = x->d.dim[axis], s = x->d.stride[axis], rows = cx__desc_elems(&x->d) / n, lo, hi;
	bool is_int = cx_cpu_is_int(x->d.dtype);
	cx_cpu_share(t, rows, 1, &lo, &hi);
	for (int64_t r = lo; r < hi; r++) {
		int64_t off = cx_cpu_off(&x->d, axis, r);
		if (x->d.dtype == CX_F32 && s == 1) {
			((int32_t *)y->p)[r] = (int32_t)argmax_f32(cx_f32(x->p) + off, n);
			continue;
		}
		item best = item_at(x, off, 0, is_int);
		for (int64_t i = 1; i < n; i++) {
			item e = item_at(x, off + i * s, i, is_int);
			if (before(&e, &best, is_int, false)) best = e;
		}
		((int32_t *)y->p)[r] = best.i;
	}
}

/* Restores the heap under root i: the root is what comes last of all kept. */
static void sift(item *heap, int64_t n, int64_t i, bool is_int, bool smallest)
{
	item e = heap[i];
	for (;;) {
		int64_t child = 2 * i + 1;
		if (child >= n) break;
		if (child + 1 < n && before(&heap[child], &heap[child + 1], is_int, smallest)) child++;
		if (!before(&e, &heap[child], is_int, smallest)) break;
		heap[i] = heap[child];
		i = child;
	}
	heap[i] = e;
}

/* The k first of a row, in order: a heap of the best so far, then heap sort. Scratch: k items per
 * thread. */
CX_CPU_FN(cx_topk_row_any)
{
	const cx_attr_topk *at = c->attr;
	const cx_cpu_arg *x = &c->in[0], *y = &c->out[0], *yi = &c->out[1];
	int32_t axis = (int32_t)at->axis;
	int64_t n = x->d.dim[axis], s = x->d.stride[axis], k = at->k, rows = cx__desc_elems(&x->d) / n,
			lo, hi;
	bool is_int = cx_cpu_is_int(x->d.dtype), small = at->smallest;
	uint32_t size = cx_cpu_size(x->d.dtype);
	item *heap = (item *)(void *)(c->scratch + (uint64_t)t->rank *
												   (((uint64_t)k * sizeof(item) + 63) / 64 * 64));
	cx_cpu_share(t, rows, 1, &lo, &hi);
	for (int64_t r = lo; r < hi; r++) {
		int64_t off = cx_cpu_off(&x->d, axis, r), yo = cx_cpu_off(&y->d, axis, r),
				io = cx_cpu_off(&yi->d, axis, r);
		for (int64_t i = 0; i < k; i++) heap[i] = item_at(x, off + i * s, i, is_int);
		for (int64_t i = k / 2 - 1; i >= 0; i--) sift(heap, k, i, is_int, small);
		for (int64_t i = k; i < n; i++) {
			item e = item_at(x, off + i * s, i, is_int);
			if (!before(&e, &heap[0], is_int, small)) continue;
			heap[0] = e;
			sift(heap, k, 0, is_int, small);
		}
		for (int64_t m = k - 1; m > 0; m--) {
			item last = heap[0];
			heap[0] = heap[m];
			heap[m] = last;
			sift(heap, m, 0, is_int, small);
		}
		for (int64_t i = 0; i < k; i++) {
			memcpy(cx_at_off(y, yo + i * y->d.stride[axis]), x->p + (off + heap[i].i * s) * size,
				size);
			((int32_t *)yi->p)[io + i * yi->d.stride[axis]] = heap[i].i;
		}
	}
}

/* One row after the other. Integers are summed in int64 and wrapped. */
CX_CPU_FN(cx_cumsum_row_any)
{
	const cx_attr_cumsum *at = c->attr;
	const cx_cpu_arg *x = &c->in[0], *y = &c->out[0];
	int32_t axis = (int32_t)at->axis;
	int64_t n = x->d.dim[axis], xs = x->d.stride[axis], ys = y->d.stride[axis], lo, hi;
	bool is_int = cx_cpu_is_int(x->d.dtype);
	cx_cpu_share(t, n ? cx__desc_elems(&x->d) / n : 0, 1, &lo, &hi);
	for (int64_t r = lo; r < hi; r++) {
		int64_t xo = cx_cpu_off(&x->d, axis, r), yo = cx_cpu_off(&y->d, axis, r);
		double f = 0.0; /* costs nothing here, and long rows keep their last digits */
		uint64_t l = 0;
		for (int64_t i = 0; i < n; i++) {
			int64_t j = at->reverse ? n - 1 - i : i;
			double df = is_int ? 0.0 : (double)cx_get_f32(x->p, x->d.dtype, xo + j * xs);
			uint64_t dl = is_int ? (uint64_t)cx_get_i64(x->p, x->d.dtype, xo + j * xs) : 0;
			if (!at->exclusive) {
				f += df;
				l += dl;
			}
			if (is_int) cx_put_i64(y->p, y->d.dtype, yo + j * ys, (int64_t)l);
			else cx_put_f32(y->p, y->d.dtype, yo + j * ys, (float)f);
			if (at->exclusive) {
				f += df;
				l += dl;
			}
		}
	}
}
