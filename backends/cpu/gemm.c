/* gemm.c - the driver of the matmul kernels: prepare rows of a, share the work, block for the
 * caches, finish.
 *
 * 1. MS rows of a at a time take the forms that the kernels read (f32 rows, packed f32, bf16, int8,
 * quantised chunks), in shared scratch; then a barrier. Rows that are in that form already stay.
 * 2. Each thread takes a part of the rows of every w (so that formats of unequal cost stay
 * balanced), and goes through them some at a time: these columns are packed into a panel, or read
 * in place where rows of a are few.
 * 3. Some rows of a at a time: their sums, f32 and still in the cache, get bias, activation, gate
 * and residual, and go to y. */
#include "backends/cpu/gemm.h"

#include <string.h>

enum {
	MS = 1024, /* rows of a that have their forms in scratch at a time, a multiple of MB */
	MB = 512, /* rows of a per block where w is unpacked again for each (partial sums take MB x NB x
				  64 bytes), or where the chains of long f32 panels are run one by one */
	MB_PANEL =
		32,  /* rows of a per block of a packed panel: MB_PANEL x NB x 4 bytes are finished in the
					   first cache */
	NB = 96, /* rows of w per block, a multiple of every tile */
	NB_LONG = 48,          /* the same where NB of them would take more than PANEL bytes */
	PANEL = 400 << 10,     /* a panel that stays in the second cache with what else is read */
	SLICE = 800 << 10,     /* a longer f32 panel is run some chains at a time, with panels of ... */
	SLICE_RUN = 480 << 10, /* ... so many bytes */
	KB =
		1024, /* elements of k per block of a block format: a tile's rows stay in the first cache */
	M_DIRECT =
		16,     /* up to so many rows float weights are read in place, and others packed in strips:
					   packing would cost more than it saves */
	LINES = 16, /* rows of a that a thread turns into f32 at a time, a multiple of 8 */
	M_ACROSS = 64,  /* rows of a transposed a that are packed at a time: what is contiguous in it */
	STRIP = 256,    /* words of k of such a strip of 16 columns: in the first cache */
	SEGMENT = 2048, /* activations quantised at a time, a multiple of CX__QCHUNK */
	N_UNIT = 8,     /* threads get rows of w in multiples of it; of panels, of 16 */
	N_LEAST = 48    /* rows of w per thread below which threads share the rows of a instead */
};

/* How a weight is multiplied. */
typedef enum way { IN_PLACE, PANEL_F, PANEL_B, PANEL_I, BLOCK, N_WAYS } way;

/* Where things are in the scratch of a call. */
typedef struct layout {
	way way[3];
	bool any[N_WAYS];
	int64_t m, mb, nb; /* rows of a at a time; rows of a and of w per block */
	size_t n_chunks, steps,
		words; /* of k: chunks of 128, of 16 rounded up; words of rows of PANEL_B, _I */
	/* shared; [m] rows each */
	bool own_rows;     /* a is not dense f32 along k */
	size_t row_stride; /* floats */
	float *rows;       /* for IN_PLACE */
	float *packed;     /* for PANEL_F */
	uint8_t *words_of; /* for PANEL_B unless a is that, for PANEL_I: rows of `words` */
	int32_t *start;    /* for PANEL_I */
	float *scale;
	cx__qact *chunks; /* for BLOCK: [m][n_chunks] */
	/* of one thread */
	float *line; /* LINES rows in f32 */
	uint8_t *panel[2];
	float *part, *out[2], *tmp, *w_scale;
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
static size_t max_size(size_t a, size_t b)
{
	return a > b ? a : b;
}

/* base + *off, and *off past it; aligned. Offsets alone when base is NULL. */
static void *take(uint8_t *base, size_t *off, size_t n, size_t size)
{
	size_t at = *off;
	*off += (n * size + 63) & ~(size_t)63;
	return base ? base + at : NULL;
}

static way way_of(const cx_cpu_isa *isa, const cx_cpu_linear *l, const cx_cpu_weight *w)
{
	if (l->act_scale > 0.0f) return PANEL_I;
	if (is_block(w->dtype)) return BLOCK;
	if (isa->bf16_dot && w->dtype == CX_BF16 && l->a_dtype == CX_BF16) return PANEL_B;
	return l->m > M_DIRECT || w->k_stride != 1 ? PANEL_F : IN_PLACE;
}
static bool is_panel(way w)
{
	return w == PANEL_F || w == PANEL_B || w == PANEL_I;
}
/* Elements of k per word. */
static size_t per_word(const cx_cpu_isa *isa, way w)
{
	return w == PANEL_B ? 2 : w == PANEL_I ? (size_t)isa->p_i8_step : 1;
}
/* Rows of PANEL_B read where they lie: pairs must end with the row. */
static bool bf16_rows(const cx_cpu_linear *l)
{
	return !l->row && l->a_dtype == CX_BF16 && l->a_k_stride == 1 && l->k % 2 == 0;
}
/* Bytes of a column of a panel. */
static size_t column_bytes(const cx_cpu_isa *isa, const cx_cpu_linear *l, way w)
{
	size_t k = (size_t)l->k;
	return w == PANEL_F ? ((k + 15) / 16 + 16) * 64
						: (k + per_word(isa, w) - 1) / per_word(isa, w) * 4;
}
/* Chains of an f32 panel run at a time. */
static int n_chains(const layout *s)
{
	size_t bytes = s->steps * 64 * (size_t)s->nb;
	int n = 16;
	if (bytes <= SLICE) return n;
	while (n > 4 && bytes / 16 * (size_t)n > SLICE_RUN) n /= 2;
	return n;
}

/* Sizes of blocks, and the bytes of a panel and of the partial sums. */
static void size_blocks(
	const cx_cpu_isa *isa, const cx_cpu_linear *l, layout *s, size_t *panel, size_t *part)
{
	s->nb = NB;
	s->mb = MB_PANEL;
	for (int i = 0; i < l->n_w; i++)
		if (is_panel(s->way[i]) && column_bytes(isa, l, s->way[i]) * NB > PANEL) s->nb = NB_LONG;
	if (s->any[BLOCK] || s->any[IN_PLACE] || (s->any[PANEL_F] && n_chains(s) < 16)) s->mb = MB;
	for (int i = 0; i < l->n_w; i++) {
		size_t p = 0, q = 0;
		if (s->way[i] == BLOCK && l->m > 1) {
			p = (KB / CX__QCHUNK) * cx__q_panel_bytes(l->w[i].dtype) * NB;
			q = (size_t)(min64(s->m, MB) + 3) / 4 * 4 * NB * 64;
		} else if (s->way[i] == PANEL_F) {
			p = column_bytes(isa, l, PANEL_F) * (size_t)s->nb;
			if (n_chains(s) < 16) q = (size_t)min64(s->m, MB) * (size_t)s->nb * 16;
		} else if (is_panel(s->way[i])) {
			p = l->m > M_DIRECT ? column_bytes(isa, l, s->way[i]) * (size_t)s->nb : STRIP * 64;
			if (l->m <= M_DIRECT) q = M_DIRECT * 64;
		}
		*panel = max_size(*panel, p);
		*part = max_size(*part, q);
	}
}

static layout lay_out(const cx_cpu_isa *isa, const cx_cpu_linear *l, void *scratch, uint32_t thread,
	uint32_t n_threads)
{
	layout s = {.m = min64(l->m, MS),
		.n_chunks = ((size_t)l->k + CX__QCHUNK - 1) / CX__QCHUNK,
		.steps = ((size_t)l->k + 15) / 16,
		.row_stride = (size_t)l->a_stride};
	uint8_t *base = scratch ? (uint8_t *)(((uintptr_t)scratch + 63) & ~(uintptr_t)63) : NULL;
	size_t m = (size_t)s.m, panel = 0, part = 0, off = 0, shared, mb;
	for (int i = 0; i < l->n_w; i++) s.any[s.way[i] = way_of(isa, l, &l->w[i])] = true;
	size_blocks(isa, l, &s, &panel, &part);
	mb = (size_t)min64(s.m, s.mb);
	s.own_rows = l->row || l->a_dtype != CX_F32 || l->a_k_stride != 1;
	if (s.own_rows) s.row_stride = s.steps * 16;
	if (s.any[IN_PLACE] && s.own_rows) s.rows = take(base, &off, m * s.row_stride, sizeof(float));
	if (s.any[PANEL_F])
		s.packed = take(base, &off, (m + 7) / 8 * 16 * cx__p_a_chain(s.steps), sizeof(float));
	if (s.any[BLOCK]) s.chunks = take(base, &off, m * s.n_chunks, sizeof(cx__qact));
	if ((s.any[PANEL_B] && !bf16_rows(l)) || s.any[PANEL_I]) {
		s.words = s.steps * 16 / per_word(isa, s.any[PANEL_I] ? PANEL_I : PANEL_B);
		s.words_of = take(base, &off, m * s.words, 4);
	}
	if (s.any[PANEL_I]) {
		s.start = take(base, &off, m, sizeof *s.start);
		s.scale = take(base, &off, m, sizeof *s.scale);
	}
	shared = off;
	for (uint32_t i = 0; i <= thread; i++) {
		if (s.own_rows) s.line = take(base, &off, LINES * s.row_stride, sizeof(float));
		for (int j = 0; j < (l->glu ? 2 : 1); j++) s.panel[j] = take(base, &off, panel, 1);
		s.part = take(base, &off, part, 1);
		s.out[0] = take(base, &off, mb * NB, sizeof(float));
		s.out[1] = take(base, &off, l->glu ? mb * NB : 0, sizeof(float));
		s.tmp = take(base, &off, NB, sizeof(float));
		s.w_scale = take(base, &off, 2 * NB, sizeof(float));
	}
	s.bytes = 64 + shared + (off - shared) / (thread + 1) * n_threads;
	return s;
}

size_t cx__cpu_linear_scratch(const cx_cpu_isa *isa, const cx_cpu_linear *l, uint32_t n_threads)
{
	return lay_out(isa, l, NULL, 0, n_threads).bytes;
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

/* Rows m .. m + n of a matrix that is contiguous across rows (a transposed one): 16 by 16 elements
 * at a time, so that a line of it is read once and not once per row. */
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

/* Row i of the block in the forms that one row has, from its floats. */
static void form_row(
	const cx_cpu_isa *isa, const cx_cpu_linear *l, const layout *s, size_t i, const float *row)
{
	const size_t k = (size_t)l->k;
	uint8_t *words = s->words_of ? s->words_of + i * s->words * 4 : NULL;
	if (s->any[BLOCK] && s->own_rows)
		isa->quant_act(row, k, s->chunks + i * s->n_chunks, l->m == 1 && isa->act_bytes);
	if (s->any[PANEL_I]) {
		bool ok = isa->quant_i8(row, k, 1.0f / l->act_scale, words, &s->start[i]);
		s->scale[i] = ok ? l->act_scale : cx__u32_as_f32(0x7fc00000u);
	} else if (words) {
		isa->from_f32(CX_BF16, row, words, k);
		if (k % 2) memset(words + 2 * k, 0, 2);
	}
}

/* Chunks of rows that are dense f32: segments, so that one long row is shared too. */
static void form_chunks(const cx_cpu_isa *isa, const cx_cpu_linear *l, const layout *s, int64_t m0,
	int64_t m, uint32_t thread, uint32_t n_threads)
{
	int64_t per_row = (l->k + SEGMENT - 1) / SEGMENT, n = per_row * m;
	for (int64_t u = n * thread / n_threads; u < n * (thread + 1) / n_threads; u++) {
		int64_t i = u / per_row, k = u % per_row * SEGMENT;
		isa->quant_act((const float *)l->a + (m0 + i) * l->a_stride + k,
			(size_t)min64(SEGMENT, l->k - k), s->chunks + (size_t)i * s->n_chunks + k / CX__QCHUNK,
			l->m == 1 && isa->act_bytes);
	}
}

/* The packed form of rows i.. of the block, i a multiple of 8. */
static float *packed_row(const layout *s, size_t i)
{
	return s->packed + i / 8 * 16 * cx__p_a_chain(s->steps);
}

/* Rows m0.. of a, m of them, in the forms that the products read; false: nothing to do. */
static bool prepare(const cx_cpu_isa *isa, const cx_cpu_linear *l, const layout *s, int64_t m0,
	int64_t m, uint32_t thread, uint32_t n_threads)
{
	const bool chunks = s->any[BLOCK] && !s->own_rows,
			   across = !l->row && l->a_stride == 1 && l->a_k_stride != 1,
			   straight = across && s->packed && !s->rows && !s->words_of && !s->any[BLOCK];
	const int64_t unit = straight ? M_ACROSS : across ? LINES : s->packed ? 8 : 1;
	if (chunks) form_chunks(isa, l, s, m0, m, thread, n_threads);
	if (!s->rows && !s->packed && !s->words_of && !(s->any[BLOCK] && s->own_rows)) return chunks;
	for (int64_t i = thread * unit; i < m; i += n_threads * unit) {
		const int64_t n = min64(unit, m - i);
		const float *rows[LINES] = {NULL};
		float *own = s->rows ? s->rows + (size_t)i * s->row_stride : s->line;
		float *packed = s->packed ? packed_row(s, (size_t)i) : NULL;
		if (straight) {
			isa->pack_at(l->a_dtype, (const uint8_t *)l->a + (m0 + i) * (int64_t)elem(l->a_dtype),
				(size_t)l->a_k_stride, (size_t)n, (size_t)l->k, packed);
			continue;
		}
		if (across) fill_across(l, m0 + i, n, own, s->row_stride);
		for (int64_t r = 0; r < n; r++) {
			float *row = own + (size_t)r * s->row_stride;
			if (s->own_rows && !across) fill_row(isa, l, m0 + i + r, row);
			rows[r] = s->own_rows ? row : (const float *)l->a + (m0 + i + r) * l->a_stride;
			form_row(isa, l, s, (size_t)(i + r), rows[r]);
		}
		for (int64_t r = 0; packed && r < n; r += 8)
			isa->pack_a(rows + r, (size_t)l->k, packed_row(s, (size_t)(i + r)));
	}
	return true;
}

/* ---- one block of y: m rows from m0, n columns from n0, to out [m][NB] ---- */

typedef struct block {
	int64_t first; /* row of a that the forms in scratch begin with */
	int64_t m0, m, n0, n;
	float *out; /* sums of the first arm, where they are finished: scratch, or y itself */
	int64_t stride;
} block;

/* Row m of a in f32, as prepare() saw it. */
static const float *row_again(
	const cx_cpu_isa *isa, const cx_cpu_linear *l, const layout *s, int64_t m, int64_t first)
{
	if (!s->own_rows) return (const float *)l->a + m * l->a_stride;
	if (s->rows) return s->rows + (size_t)(m - first) * s->row_stride;
	fill_row(isa, l, m, s->line);
	return s->line;
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
		const cx__qact *a = s->chunks + (size_t)(b->m0 - b->first + r) * s->n_chunks;
		const float *row;
		bool odd = false;
		for (size_t c = 0; c < s->n_chunks; c++)
			for (int i = 0; i < 16; i += 4) odd |= a[c].d[i] != a[c].d[i];
		if (!odd) continue;
		row = row_again(isa, l, s, b->m0 + r, b->first);
		for (int64_t n = 0; n < b->n; n++) out[r * NB + n] = product_plain(row, w, b->n0 + n, l->k);
	}
}

static void product_integer(const cx_cpu_isa *isa, const cx_cpu_linear *l, const layout *s, int arm,
	const cx_cpu_weight *w, const block *b)
{
	float *out = s->out[arm];
	cx__wrows rows = {
		.dtype = w->dtype, .base = w->w, .row_bytes = (size_t)w->row_bytes, .scales = w->scales};
	const cx__qact *a = s->chunks + (size_t)(b->m0 - b->first) * s->n_chunks;
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
				.panel = s->panel[arm],
				.steps = steps,
				.part = s->part,
				.first = c == 0,
				.last = steps == left,
				.y = out + n,
				.y_stride = NB};
			isa->pack_q[w->dtype](
				&rows, (size_t)(b->n0 + n), cols, c, steps, (size_t)l->k, s->panel[arm]);
			isa->gemm_q[w->dtype](&g);
		}
}

static void product_block(const cx_cpu_isa *isa, const cx_cpu_linear *l, const layout *s, int arm,
	const cx_cpu_weight *w, const block *b)
{
	product_integer(isa, l, s, arm, w, b);
	odd_rows(isa, l, s, w, b, s->out[arm]);
}

static void product_in_place(const cx_cpu_isa *isa, const cx_cpu_linear *l, const layout *s,
	const cx_cpu_weight *w, const block *b, float *out)
{
	const float *a = s->rows ? s->rows + (size_t)(b->m0 - b->first) * s->row_stride
							 : (const float *)l->a + (size_t)b->m0 * s->row_stride;
	cx__wrows rows = {
		.dtype = w->dtype, .base = w->w, .row_bytes = (size_t)w->n_stride * elem(w->dtype)};
	const int64_t strip =
		24; /* few enough rows of w to be in the second cache for the next rows of a */
	for (int64_t n = 0; n < b->n; n += b->m <= isa->f_rows ? b->n : strip)
		for (int64_t m = 0; m < b->m; m += isa->f_rows)
			isa->dot_f(a + (size_t)m * s->row_stride, s->row_stride,
				(int)min64(isa->f_rows, b->m - m), &rows, (size_t)(b->n0 + n),
				(size_t)min64(b->m <= isa->f_rows ? b->n : strip, b->n - n), (size_t)l->k,
				out + m * NB + n, NB);
}

static cx__wmat matrix_of(const cx_cpu_weight *w, const cx_cpu_linear *l)
{
	bool i8c = w->dtype == CX_I8C;
	return (cx__wmat){
		w->dtype, w->w, (size_t)(i8c ? l->k : w->n_stride), (size_t)(i8c ? 1 : w->k_stride)};
}
static cx__panel_kind panel_kind(way w)
{
	return w == PANEL_F ? CX__PANEL_F32 : w == PANEL_B ? CX__PANEL_BF16 : CX__PANEL_I8;
}
/* What the calls of gemm_p for a block have in common. */
static cx__panel panel_of(const cx_cpu_linear *l, const layout *s, int arm, way way, const block *b)
{
	const size_t i = (size_t)(b->m0 - b->first);
	cx__panel g = {.m = (size_t)b->m,
		.n = (size_t)b->n,
		.first = true,
		.last = true,
		.part = s->part,
		.n_c = 16,
		.panel = s->panel[arm],
		.w_scale = s->w_scale + arm * NB,
		.y = arm == 0 ? b->out : s->out[1],
		.y_stride = arm == 0 ? (size_t)b->stride : NB};
	if (way == PANEL_F) g.a = packed_row(s, i);
	else if (s->words_of) {
		g.a = s->words_of + i * s->words * 4;
		g.a_stride = s->words * 4;
	} else {
		g.a = (const uint16_t *)l->a + b->m0 * l->a_stride;
		g.a_stride = (size_t)l->a_stride * 2;
	}
	if (way == PANEL_I) {
		g.a_start = s->start + i;
		g.a_scale = s->scale + i;
	}
	return g;
}

static bool column_is_zero(const cx_cpu_linear *l, const cx_cpu_weight *w, int64_t n)
{
	for (int64_t k = 0; k < l->k; k++)
		if (load1(w->dtype, w->w, n * w->n_stride + k * w->k_stride) != 0.0f) return false;
	return true;
}
static bool row_is_zero(const float *row, int64_t k)
{
	for (int64_t i = 0; i < k; i++)
		if (row[i] != 0.0f) return false;
	return true;
}

/* Sums of bf16 pairs that are so small that subnormals may count, again; isa.h. Zeros of rows and
 * columns of zeros are right. */
static void tiny_sums(const cx_cpu_isa *isa, const cx_cpu_linear *l, const layout *s,
	const cx_cpu_weight *w, const block *b, float *out, int64_t stride)
{
	bool known[NB] = {false}, zero[NB] = {false};
	for (int64_t r = 0; r < b->m; r++) {
		bool have_row = false, skip = false;
		for (int64_t n = 0; n < b->n && !skip; n++) {
			double sum = 0.0;
			if (!(out[r * stride + n] > -CX__BF16_LOW && out[r * stride + n] < CX__BF16_LOW))
				continue;
			if (!have_row) {
				fill_row(isa, l, b->m0 + r, s->line);
				have_row = true;
				if ((skip = row_is_zero(s->line, l->k))) break;
			}
			if (!known[n]) zero[n] = column_is_zero(l, w, b->n0 + n);
			known[n] = true;
			for (int64_t k = 0; k < l->k && !zero[n]; k++)
				sum += (double)s->line[k] *
					   load1(w->dtype, w->w, (b->n0 + n) * w->n_stride + k * w->k_stride);
			out[r * stride + n] = (float)sum;
		}
	}
}

/* Few rows: 16 columns and part of k at a time, packed and used at once. */
static void product_strips(const cx_cpu_isa *isa, const cx_cpu_linear *l, const layout *s, int arm,
	way way, const cx_cpu_weight *w, const block *b, bool *tiny)
{
	const cx__wmat mat = matrix_of(w, l);
	const size_t per = per_word(isa, way), k = (size_t)l->k;
	for (int64_t n = 0; n < b->n; n += 16)
		for (size_t k0 = 0; k0 < k; k0 += STRIP * per) {
			size_t part = k - k0 < STRIP * per ? k - k0 : STRIP * per;
			cx__panel g = panel_of(l, s, arm, way, b);
			g.tiny = tiny;
			g.a = (const uint8_t *)g.a + k0 / per * 4;
			g.n = (size_t)min64(16, b->n - n);
			g.y += n;
			g.w_scale += n;
			g.steps = (part + per - 1) / per;
			g.first = k0 == 0;
			g.last = k0 + part == k;
			isa->pack_w(panel_kind(way), &mat, (size_t)(b->n0 + n), g.n, k0, part, s->panel[arm]);
			isa->gemm_p(panel_kind(way), &g);
		}
}

static void product_panel(const cx_cpu_isa *isa, const cx_cpu_linear *l, const layout *s, int arm,
	way way, const block *b, bool *tiny)
{
	const size_t per = per_word(isa, way);
	cx__panel g = panel_of(l, s, arm, way, b);
	g.tiny = tiny;
	g.steps = way == PANEL_F ? s->steps : ((size_t)l->k + per - 1) / per;
	if (way == PANEL_F) g.n_c = n_chains(s);
	for (g.c0 = 0; g.c0 < 16; g.c0 += g.n_c) isa->gemm_p(panel_kind(way), &g);
}

static bool packs_ahead(const cx_cpu_linear *l, way way)
{
	return l->k > 0 && (way == PANEL_F || (is_panel(way) && l->m > M_DIRECT));
}

/* Columns n0.. of w, which the rows of a then go through: the panel and the scales. */
static void pack_columns(const cx_cpu_isa *isa, const cx_cpu_linear *l, const layout *s, int arm,
	const cx_cpu_weight *w, int64_t n0, int64_t n)
{
	const way way = way_of(isa, l, w);
	const cx__wmat mat = matrix_of(w, l);
	if (way == PANEL_I)
		memcpy(s->w_scale + arm * NB, (const uint8_t *)w->scales + 4 * n0, 4 * (size_t)n);
	if (packs_ahead(l, way))
		isa->pack_w(panel_kind(way), &mat, (size_t)n0, (size_t)n, 0, (size_t)l->k, s->panel[arm]);
}

static void product(const cx_cpu_isa *isa, const cx_cpu_linear *l, const layout *s, int arm,
	const cx_cpu_weight *w, const block *b)
{
	const way way = way_of(isa, l, w);
	bool tiny = false;
	if (l->k == 0)
		for (int64_t r = 0; r < b->m; r++)
			memset(s->out[arm] + r * NB, 0, (size_t)b->n * sizeof(float));
	else if (way == BLOCK) product_block(isa, l, s, arm, w, b);
	else if (way == IN_PLACE) product_in_place(isa, l, s, w, b, s->out[arm]);
	else if (packs_ahead(l, way)) product_panel(isa, l, s, arm, way, b, &tiny);
	else product_strips(isa, l, s, arm, way, w, b, &tiny);
	if (tiny) tiny_sums(isa, l, s, w, b, arm == 0 ? b->out : s->out[1], arm == 0 ? b->stride : NB);
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
	const bool adds = l->residual && w == l->w; /* what comes last is rounded where it is stored */
	for (int64_t r = 0; r < b->m; r++) {
		int64_t m = b->m0 + r;
		float *x = b->out + r * b->stride, *u = s->out[1] + r * NB;
		if (w->bias || l->act || l->glu || adds) settle(isa, w->y_dtype, x, n, s->tmp);
		if (w->bias) {
			isa->add(x, as_f32(isa, w->bias_dtype, w->bias, b->n0, n, s->tmp), n);
			if (l->act || l->glu || adds) settle(isa, w->y_dtype, x, n, s->tmp);
		}
		if (l->act) {
			l->act(x, n);
			if (l->glu || adds) settle(isa, w->y_dtype, x, n, s->tmp);
		}
		if (l->glu) {
			settle(isa, w->y_dtype, u, n, s->tmp);
			if (w[1].bias) {
				isa->add(u, as_f32(isa, w[1].bias_dtype, w[1].bias, b->n0, n, s->tmp), n);
				settle(isa, w->y_dtype, u, n, s->tmp);
			}
			isa->mul(x, u, n);
			if (adds) settle(isa, w->y_dtype, x, n, s->tmp);
		}
		if (adds)
			isa->add(x,
				as_f32(
					isa, l->residual_dtype, l->residual, m * l->residual_stride + b->n0, n, s->tmp),
				n);
		if (b->out == s->out[0])
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

/* Rows m0 to m1 of a with the thread's rows of every w. */
static void run_rows(const cx_cpu_isa *isa, const cx_cpu_linear *l, const layout *s, int64_t first,
	int64_t m0, int64_t m1, uint32_t part, uint32_t parts)
{
	const bool panels = s->any[PANEL_F] || s->any[PANEL_B] || s->any[PANEL_I];
	for (int i = 0; i < (l->glu ? 1 : l->n_w); i++) {
		const cx_cpu_weight *w = &l->w[i];
		int64_t n0, n1;
		const bool direct = !l->glu && w->y_dtype == CX_F32 && l->residual != w->y && l->k > 0 &&
							packs_ahead(l, way_of(isa, l, w));
		share(w->n, panels ? 16 : N_UNIT, part, parts, &n0, &n1);
		for (int64_t n = n0; n < n1; n += s->nb) {
			block b = {.first = first,
				.n0 = n,
				.n = min64(s->nb, n1 - n),
				.stride = direct ? w->y_stride : NB};
			pack_columns(isa, l, s, 0, w, n, b.n);
			if (l->glu) pack_columns(isa, l, s, 1, w + 1, n, b.n);
			for (b.m0 = m0; b.m0 < m1; b.m0 += s->mb) {
				b.m = min64(s->mb, m1 - b.m0);
				b.out = direct ? (float *)w->y + b.m0 * w->y_stride + n : s->out[0];
				product(isa, l, s, 0, w, &b);
				if (l->glu) product(isa, l, s, 1, w + 1, &b);
				finish(isa, l, s, w, &b);
			}
		}
	}
}

void cx__cpu_linear_run(const cx_cpu_isa *isa, const cx_cpu_linear *l, void *scratch,
	uint32_t thread, uint32_t n_threads, cx_pool *pool)
{
	layout s = lay_out(isa, l, scratch, thread, n_threads);
	int64_t n_max = 0;
	uint32_t tn = n_threads, tm;
	for (int i = 0; i < l->n_w; i++) n_max = l->w[i].n > n_max ? l->w[i].n : n_max;
	if (l->m > 1 && n_max < (int64_t)tn * N_LEAST)
		tn = n_max < N_LEAST ? 1 : (uint32_t)(n_max / N_LEAST);
	tm = n_threads / tn;
	for (int64_t first = 0; first < l->m; first += s.m) {
		int64_t m = min64(s.m, l->m - first), m0, m1;
		if (first > 0 && n_threads > 1) cx__pool_barrier(pool); /* the forms are read no more */
		if (prepare(isa, l, &s, first, m, thread, n_threads) && n_threads > 1)
			cx__pool_barrier(pool);
		if (thread >= tm * tn) continue;
		share(m, 8, thread % tm, tm, &m0, &m1);
		run_rows(isa, l, &s, first, first + m0, first + m1, thread / tm, tn);
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
