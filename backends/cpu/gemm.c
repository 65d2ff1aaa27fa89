/* gemm.c - the driver of the matmul kernels: prepare rows of a, share the work, block for the
 * caches, finish.
 *
 * 1. Rows of a become dense f32 or quantised chunks in shared scratch where the kernels need that;
 * then a barrier.
 * 2. Each thread takes a part of the rows of every w (so that formats of unequal cost stay
 * balanced).
 * 3. It goes through them NB at a time. Few rows of a: kernels that read w in place. More: blocks
 * of KB of k are packed into a panel, and partial sums stay in lanes between blocks.
 * 4. The block's sums, f32 and still in the cache, get bias, activation, gate and residual, and go
 * to y. */
#include "backends/cpu/gemm.h"

#include <string.h>

enum {
	MB = 512, /* rows of a per block: w is packed again for each, partial sums take MB x NB x 64
				 bytes */
	NB = 96,  /* rows of w per block, a multiple of every tile: NB x KB x 4 bytes stay in the second
				 cache */
	KB = 1024,      /* elements of k per block: a tile's rows of a stay in the first cache */
	M_DIRECT = 16,  /* up to so many rows float weights are read in place: packing would cost more
					   than it saves */
	M_ACROSS = 64,  /* rows of a transposed a that are copied side by side */
	SEGMENT = 2048, /* activations quantised at a time, a multiple of CX__QCHUNK */
	N_UNIT = 8,     /* threads get rows of w in multiples of it */
	N_LEAST = 48    /* rows of w per thread below which threads share the rows of a instead */
};

/* Where things are in the scratch of a call. */
typedef struct layout {
	bool any_float, any_block;
	size_t n_chunks;
	/* shared */
	bool copy_rows;    /* a is not dense f32 along k */
	size_t row_stride; /* floats */
	float *rows;       /* [m], or one per thread if only block formats read them */
	float *own_row;    /* that one, else NULL */
	cx__qact *chunks;  /* [m][n_chunks] */
	/* of one thread */
	uint8_t *panel;
	float *part, *out[2], *tmp;
	size_t bytes;
} layout;

static bool is_block(cx_dtype t)
{
	return cx_dtype_get(t)->cls == CX_CLASS_BLOCK;
}
static size_t elem(cx_dtype t)
{
	return t == CX_F32 ? 4 : 2;
}
static int64_t min64(int64_t a, int64_t b)
{
	return a < b ? a : b;
}

/* base + *off, and *off past it; aligned. Offsets alone when base is NULL. */
static void *take(uint8_t *base, size_t *off, size_t n, size_t size)
{
	size_t at = *off;
	*off += (n * size + 63) & ~(size_t)63;
	return base ? base + at : NULL;
}

/* Whether some block of rows goes through a packed panel; otherwise w is read in place. */
static bool packs(const cx_cpu_linear *l, const cx_cpu_weight *w)
{
	return is_block(w->dtype) ? l->m > 1 : l->m > M_DIRECT || w->k_stride != 1;
}

static layout lay_out(const cx_cpu_linear *l, void *scratch, uint32_t thread, uint32_t n_threads)
{
	layout s = {.n_chunks = ((size_t)l->k + CX__QCHUNK - 1) / CX__QCHUNK,
		.row_stride = (size_t)l->a_stride};
	uint8_t *base = scratch ? (uint8_t *)(((uintptr_t)scratch + 63) & ~(uintptr_t)63) : NULL;
	size_t m = (size_t)l->m, mb = (size_t)min64(l->m, MB), panel = 0, off = 0, shared;
	for (int i = 0; i < l->n_w; i++) {
		cx_dtype t = l->w[i].dtype;
		bool b = is_block(t);
		size_t row = b ? (KB / CX__QCHUNK) * cx__q_panel_bytes(t) : KB * sizeof(float);
		s.any_block |= b;
		s.any_float |= !b;
		if (packs(l, &l->w[i]) && row * NB > panel) panel = row * NB;
	}
	s.copy_rows = l->row || l->a_dtype != CX_F32 || l->a_k_stride != 1;
	if (s.copy_rows) {
		s.row_stride = ((size_t)l->k + 15) & ~(size_t)15;
		s.rows = take(base, &off, (s.any_float ? m : n_threads) * s.row_stride, sizeof(float));
		s.own_row = s.rows && !s.any_float ? s.rows + thread * s.row_stride : NULL;
	}
	if (s.any_block) s.chunks = take(base, &off, m * s.n_chunks, sizeof(cx__qact));
	shared = off;
	for (uint32_t i = 0; i <= thread; i++) {
		s.panel = take(base, &off, panel, 1);
		s.part = take(base, &off, panel ? (mb + 3) / 4 * 4 * NB * 16 : 0, sizeof(float));
		s.out[0] = take(base, &off, mb * NB, sizeof(float));
		s.out[1] = take(base, &off, mb * NB, sizeof(float));
		s.tmp = take(base, &off, NB, sizeof(float));
	}
	s.bytes = 64 + shared + (off - shared) / (thread + 1) * n_threads;
	return s;
}

size_t cx__cpu_linear_scratch(const cx_cpu_linear *l, uint32_t n_threads)
{
	return lay_out(l, NULL, 0, n_threads).bytes;
}

/* ---- rows of a ---- */

static float load1(cx_dtype t, const void *p, int64_t i)
{
	if (t == CX_F32) return ((const float *)p)[i];
	return t == CX_F16 ? cx_f16_to_f32(((const uint16_t *)p)[i])
					   : cx_bf16_to_f32(((const uint16_t *)p)[i]);
}

static void fill_row(const cx_cpu_isa *isa, const cx_cpu_linear *l, int64_t m, float *out)
{
	const uint8_t *a;
	if (l->row) {
		l->row(l->row_ctx, m, out);
		return;
	}
	a = (const uint8_t *)l->a + m * l->a_stride * (int64_t)elem(l->a_dtype);
	if (l->a_k_stride == 1) isa->to_f32(l->a_dtype, a, out, (size_t)l->k);
	else
		for (int64_t k = 0; k < l->k; k++) out[k] = load1(l->a_dtype, a, k * l->a_k_stride);
}

/* Rows m .. m + n of a matrix that is contiguous across rows (a transposed one): 16 by 16 elements at
 * a time, so that a line of it is read once and not once per row; and several of those side by side,
 * since the next 16 elements along k may be pages away. */
static void fill_across(const cx_cpu_linear *l, int64_t m, int64_t n, float *out, size_t stride)
{
	float t[16][16];
	for (int64_t i = 0; i < (l->k + 15) / 16 * ((n + 15) / 16); i++) {
		int64_t k = i / ((n + 15) / 16) * 16, r0 = i % ((n + 15) / 16) * 16;
		int64_t nk = min64(16, l->k - k), nr = min64(16, n - r0);
		float *to = out + (size_t)r0 * stride + (size_t)k;
		for (int64_t e = 0; e < nk; e++) {
			int64_t at = (k + e) * l->a_k_stride + m + r0;
			const float *a = (const float *)l->a + at;
			if (l->a_dtype == CX_F32 && nr == 16) memcpy(t[e], a, sizeof t[e]);
			else if (l->a_dtype == CX_F32) memcpy(t[e], a, (size_t)nr * sizeof *a);
			else
				for (int64_t r = 0; r < nr; r++) t[e][r] = load1(l->a_dtype, l->a, at + r);
		}
		for (int64_t r = 0; r < nr; r++)
			for (int64_t e = 0; e < nk; e++) to[(size_t)r * stride + (size_t)e] = t[e][r];
	}
}

static void prepare(const cx_cpu_isa *isa, const cx_cpu_linear *l, const layout *s, uint32_t thread,
	uint32_t n_threads)
{
	const bool bytes = l->m == 1 && isa->act_bytes;
	if (s->copy_rows && !s->any_block && !l->row && l->a_stride == 1 && l->a_k_stride != 1) {
		for (int64_t m = M_ACROSS * (int64_t)thread; m < l->m; m += M_ACROSS * (int64_t)n_threads)
			fill_across(l, m, min64(M_ACROSS, l->m - m), s->rows + (size_t)m * s->row_stride,
				s->row_stride);
	} else if (s->copy_rows) {
		for (int64_t m = thread; m < l->m; m += n_threads) {
			float *row = s->rows + (s->any_float ? (size_t)m : thread) * s->row_stride;
			fill_row(isa, l, m, row);
			if (s->any_block)
				isa->quant_act(row, (size_t)l->k, s->chunks + (size_t)m * s->n_chunks, bytes);
		}
	} else if (s->any_block) { /* segments, so that one long row is shared too */
		int64_t per_row = (l->k + SEGMENT - 1) / SEGMENT, n = per_row * l->m;
		for (int64_t u = n * thread / n_threads; u < n * (thread + 1) / n_threads; u++) {
			int64_t m = u / per_row, k = u % per_row * SEGMENT;
			isa->quant_act((const float *)l->a + m * l->a_stride + k,
				(size_t)min64(SEGMENT, l->k - k),
				s->chunks + (size_t)m * s->n_chunks + k / CX__QCHUNK, bytes);
		}
	}
}

/* ---- one block of y: m rows from m0, n columns from n0, to out [m][NB] ---- */

typedef struct block {
	int64_t m0, m, n0, n;
} block;

/* Row m of a in f32, as prepare() saw it. */
static const float *row_again(
	const cx_cpu_isa *isa, const cx_cpu_linear *l, const layout *s, int64_t m)
{
	if (!s->copy_rows) return (const float *)l->a + m * l->a_stride;
	if (s->any_float) return s->rows + (size_t)m * s->row_stride;
	fill_row(isa, l, m, s->own_row);
	return s->own_row;
}

/* Element (m, n) in double, weights as they are: infinities keep their sign, NaN comes from where
 * it is. */
static float product_plain(const float *a, const cx_cpu_weight *w, int64_t n, int64_t k)
{
	const uint8_t *from = (const uint8_t *)w->w + n * w->row_bytes;
	const cx_dtype_info *t = cx_dtype_get(w->dtype);
	float x[256], scale = 1.0f;
	double sum = 0.0;
	if (w->dtype == CX_I8C) memcpy(&scale, (const uint8_t *)w->scales + 4 * n, 4);
	for (int64_t i = 0; i < k; i += 256) {
		int64_t c = min64(256, k - i);
		if (w->dtype == CX_I8C)
			for (int64_t j = 0; j < c; j++) x[j] = scale * (float)((const int8_t *)from)[i + j];
		else CX_ASSERT(cx_dequant_row(w->dtype, from + i / t->block_elems * t->block_bytes, x, c));
		for (int64_t j = 0; j < c; j++) sum += (double)a[i + j] * (double)x[j];
	}
	return (float)sum;
}

/* Rows with infinities or NaN have no integers: quant_act() marked their chunks with a NaN. */
static void odd_rows(const cx_cpu_isa *isa, const cx_cpu_linear *l, const layout *s,
	const cx_cpu_weight *w, const block *b, float *out)
{
	for (int64_t r = 0; r < b->m; r++) {
		const cx__qact *a = s->chunks + (size_t)(b->m0 + r) * s->n_chunks;
		const float *row;
		bool odd = false;
		for (size_t c = 0; c < s->n_chunks; c++)
			for (int i = 0; i < 16; i += 4) odd |= a[c].d[i] != a[c].d[i];
		if (!odd) continue;
		row = row_again(isa, l, s, b->m0 + r);
		for (int64_t n = 0; n < b->n; n++) out[r * NB + n] = product_plain(row, w, b->n0 + n, l->k);
	}
}

static void product_integer(const cx_cpu_isa *isa, const cx_cpu_linear *l, const layout *s,
	const cx_cpu_weight *w, const block *b, float *out)
{
	cx__wrows rows = {
		.dtype = w->dtype, .base = w->w, .row_bytes = (size_t)w->row_bytes, .scales = w->scales};
	const cx__qact *a = s->chunks + (size_t)b->m0 * s->n_chunks;
	if (l->m == 1) {
		isa->dot_q[w->dtype](a, &rows, (size_t)b->n0, (size_t)b->n, (size_t)l->k, out);
		return;
	}
	/* few rows of a: so few rows of w at a time that their panel is still in the first cache when
	 * it is read */
	const int64_t strip = b->m <= M_DIRECT ? 4 : b->n;
	for (int64_t n = 0; n < b->n; n += strip)
		for (size_t c = 0; c < s->n_chunks; c += KB / CX__QCHUNK) {
			const size_t left = s->n_chunks - c,
						 steps = left < KB / CX__QCHUNK ? left : KB / CX__QCHUNK;
			const size_t cols = (size_t)min64(strip, b->n - n);
			cx__gemm g = {.a = a + c,
				.a_stride = s->n_chunks,
				.m = (size_t)b->m,
				.n = cols,
				.panel = s->panel,
				.steps = steps,
				.part = s->part,
				.first = c == 0,
				.last = steps == left,
				.y = out + n,
				.y_stride = NB};
			isa->pack_q[w->dtype](
				&rows, (size_t)(b->n0 + n), cols, c, steps, (size_t)l->k, s->panel);
			isa->gemm_q[w->dtype](&g);
		}
}

static void product_block(const cx_cpu_isa *isa, const cx_cpu_linear *l, const layout *s,
	const cx_cpu_weight *w, const block *b, float *out)
{
	product_integer(isa, l, s, w, b, out);
	odd_rows(isa, l, s, w, b, out);
}

static void product_float(const cx_cpu_isa *isa, const cx_cpu_linear *l, const layout *s,
	const cx_cpu_weight *w, const block *b, float *out)
{
	const float *a = (s->copy_rows ? s->rows : (const float *)l->a) + (size_t)b->m0 * s->row_stride;
	cx__wrows rows = {
		.dtype = w->dtype, .base = w->w, .row_bytes = (size_t)w->n_stride * elem(w->dtype)};
	if (b->m <= M_DIRECT && w->k_stride == 1) {
		const int64_t strip =
			24; /* few enough rows of w to be in the second cache for the next rows of a */
		for (int64_t n = 0; n < b->n; n += b->m <= isa->f_rows ? b->n : strip)
			for (int64_t m = 0; m < b->m; m += isa->f_rows)
				isa->dot_f(a + (size_t)m * s->row_stride, s->row_stride,
					(int)min64(isa->f_rows, b->m - m), &rows, (size_t)(b->n0 + n),
					(size_t)min64(b->m <= isa->f_rows ? b->n : strip, b->n - n), (size_t)l->k,
					out + m * NB + n, NB);
		return;
	}
	for (int64_t k = 0; k < l->k; k += KB) {
		int64_t steps = min64(KB, l->k - k);
		cx__gemm g = {.a = a + k,
			.a_stride = s->row_stride,
			.m = (size_t)b->m,
			.n = (size_t)b->n,
			.panel = s->panel,
			.steps = (size_t)steps,
			.part = s->part,
			.first = k == 0,
			.last = k + steps == l->k,
			.y = out,
			.y_stride = NB};
		if (w->k_stride == 1)
			isa->pack_f(&rows, (size_t)b->n0, (size_t)b->n, (size_t)k, (size_t)steps,
				(float *)(void *)s->panel);
		else
			isa->pack_t(w->dtype,
				(const uint8_t *)w->w +
					(b->n0 * w->n_stride + k * w->k_stride) * (int64_t)elem(w->dtype),
				w->n_stride, w->k_stride, (size_t)b->n, (size_t)steps, (float *)(void *)s->panel);
		isa->gemm_f(&g);
	}
}

static void product(const cx_cpu_isa *isa, const cx_cpu_linear *l, const layout *s,
	const cx_cpu_weight *w, const block *b, float *out)
{
	if (l->k == 0)
		for (int64_t r = 0; r < b->m; r++) memset(out + r * NB, 0, (size_t)b->n * sizeof *out);
	else if (is_block(w->dtype)) product_block(isa, l, s, w, b, out);
	else product_float(isa, l, s, w, b, out);
}

/* n elements at index i of a float vector: itself, or widened in tmp. */
static const float *as_f32(
	const cx_cpu_isa *isa, cx_dtype t, const void *p, int64_t i, size_t n, float *tmp)
{
	if (t == CX_F32) return (const float *)p + i;
	isa->to_f32(t, (const uint16_t *)p + i, tmp, n);
	return tmp;
}

/* Rounds to y's type between the stages, as the ops that this call replaces would: fused or not
 * gives the same bits. */
static void settle(const cx_cpu_isa *isa, cx_dtype t, float *x, size_t n, float *tmp)
{
	if (t == CX_F32) return;
	isa->from_f32(t, x, tmp, n);
	isa->to_f32(t, tmp, x, n);
}

static void finish(const cx_cpu_isa *isa, const cx_cpu_linear *l, const layout *s,
	const cx_cpu_weight *w, const block *b)
{
	const size_t n = (size_t)b->n;
	for (int64_t r = 0; r < b->m; r++) {
		int64_t m = b->m0 + r;
		float *x = s->out[0] + r * NB, *u = s->out[1] + r * NB;
		settle(isa, w->y_dtype, x, n, s->tmp);
		if (w->bias) {
			isa->add(x, as_f32(isa, w->bias_dtype, w->bias, b->n0, n, s->tmp), n);
			settle(isa, w->y_dtype, x, n, s->tmp);
		}
		if (l->act) {
			l->act(x, n);
			settle(isa, w->y_dtype, x, n, s->tmp);
		}
		if (l->glu) {
			settle(isa, w->y_dtype, u, n, s->tmp);
			if (w[1].bias) {
				isa->add(u, as_f32(isa, w[1].bias_dtype, w[1].bias, b->n0, n, s->tmp), n);
				settle(isa, w->y_dtype, u, n, s->tmp);
			}
			isa->mul(x, u, n);
			settle(isa, w->y_dtype, x, n, s->tmp);
		}
		if (l->residual && w == l->w)
			isa->add(x,
				as_f32(
					isa, l->residual_dtype, l->residual, m * l->residual_stride + b->n0, n, s->tmp),
				n);
		isa->from_f32(w->y_dtype, x,
			(uint8_t *)w->y + (m * w->y_stride + b->n0) * (int64_t)elem(w->y_dtype), n);
	}
}

/* ---- a thread's share ---- */

static void share(int64_t n, int64_t unit, uint32_t part, uint32_t parts, int64_t *lo, int64_t *hi)
{
	int64_t units = (n + unit - 1) / unit;
	*lo = min64(n, units * part / parts * unit);
	*hi = min64(n, units * (part + 1) / parts * unit);
}

void cx__cpu_linear_run(const cx_cpu_isa *isa, const cx_cpu_linear *l, void *scratch,
	uint32_t thread, uint32_t n_threads, cx_pool *pool)
{
	layout s = lay_out(l, scratch, thread, n_threads);
	int64_t n_max = 0, m0, m1;
	uint32_t tn = n_threads, tm;
	if (s.copy_rows || s.any_block) {
		prepare(isa, l, &s, thread, n_threads);
		if (n_threads > 1) cx__pool_barrier(pool);
	}
	for (int i = 0; i < l->n_w; i++) n_max = l->w[i].n > n_max ? l->w[i].n : n_max;
	if (l->m > 1 && n_max < (int64_t)tn * N_LEAST)
		tn = n_max < N_LEAST ? 1 : (uint32_t)(n_max / N_LEAST);
	tm = n_threads / tn;
	if (thread >= tm * tn) return;
	share(l->m, 4, thread % tm, tm, &m0, &m1);
	for (int i = 0; i < (l->glu ? 1 : l->n_w); i++) {
		const cx_cpu_weight *w = &l->w[i];
		int64_t n0, n1;
		share(w->n, N_UNIT, thread / tm, tn, &n0, &n1);
		for (int64_t n = n0; n < n1; n += NB)
			for (int64_t m = m0; m < m1; m += MB) {
				block b = {.m0 = m, .m = min64(MB, m1 - m), .n0 = n, .n = min64(NB, n1 - n)};
				product(isa, l, &s, w, &b, s.out[0]);
				if (l->glu) product(isa, l, &s, w + 1, &b, s.out[1]);
				finish(isa, l, &s, w, &b);
			}
	}
}

void cx__cpu_linear_cost(const cx_cpu_linear *l, double *bytes, double *macs)
{
	*bytes = (double)l->m * (double)l->k * (l->row ? 4.0 : (double)elem(l->a_dtype));
	*macs = 0.0;
	for (int i = 0; i < l->n_w; i++) {
		const cx_cpu_weight *w = &l->w[i];
		double row =
			is_block(w->dtype) ? (double)w->row_bytes : (double)l->k * (double)elem(w->dtype);
		*macs += (double)l->m * (double)w->n * (double)l->k;
		*bytes += (double)w->n * row +
				  (l->glu && i > 0 ? 0.0 : (double)l->m * (double)w->n * (double)elem(w->y_dtype));
	}
}
