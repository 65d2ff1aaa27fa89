/* panel.c - products of many rows: weights packed in panels of columns, f32, pairs of bf16 or
 * bytes.
 *
 * A panel has, per step of k, the elements of 16 columns side by side, so that a lane is an output
 * and sums need no adding across lanes; an element of a row of a is broadcast to all lanes. A tile
 * of CX__P_ROWS x CX__P_VECS accumulators stays in registers. What a step is:
 *   f32   one element. The sixteen chains of isa.h are run one after the other, each over its own
 *         elements of k, in the order that lets the tree be added up as they end; a is packed too
 *   bf16  a pair of elements (AVX-512)
 *   int8  four elements, weights as unsigned bytes, q + 128 (AVX-512); else two of 16 bits
 * Layouts: isa.h. */
#include "backends/cpu/isa/kernels.h"

enum { MR = CX__P_ROWS, NR = CX__P_VECS };
enum { I8_STEP = CX_HAVE_DOT8 ? 4 : 2 }; /* elements of k per step of int8 */

/* The chain that is run c-th: bits reversed, so that neighbours in the tree follow each other. */
static const uint8_t place[16] = {0, 8, 4, 12, 2, 10, 6, 14, 1, 9, 5, 13, 3, 11, 7, 15};

/* ---- packing ---- */

/* rows: 8 pointers to k floats, NULL for zeros; out [16 chains][steps][8]. */
void CX_ISA_NAME(cx__pack_a)(const float *const rows[8], size_t k, float *out)
{
	const size_t steps = (k + 15) / 16;
	for (size_t t = 0; t < steps; t++) {
		v16 x[16];
		for (int r = 0; r < 8; r++)
			x[r] = rows[r] ? v16_load_n(rows[r] + 16 * t, k - 16 * t) : v16_zero();
		for (int r = 8; r < 16; r++) x[r] = v16_zero();
		v16_transpose(x);
		for (size_t j = 0; j < 16; j++)
			v16_store_n(out + place[j] * cx__p_a_chain(steps) + t * 8, x[j], 8);
	}
}

CX_INLINE void pack_at(
	cx_dtype t, const void *base, size_t k_stride, size_t m, size_t k, float *out)
{
	const size_t steps = (k + 15) / 16, es = t == CX_F32 ? 4 : 2;
	for (size_t e = 0; e < steps * 16; e++) {
		float *to = out + place[e % 16] * cx__p_a_chain(steps) + e / 16 * 8;
		const uint8_t *from = (const uint8_t *)base + e * k_stride * es;
		for (size_t r = 0; r < m; r += 8)
			v16_store_n(to + r / 8 * 16 * cx__p_a_chain(steps),
				e < k ? v16_load_as(t, from, r, m - r < 8 ? m - r : 8) : v16_zero(), 8);
	}
}
/* m rows of k elements, element (m, k) at base + m + k * k_stride elements: as pack_a would. */
void CX_ISA_NAME(cx__pack_at)(
	cx_dtype dtype, const void *base, size_t k_stride, size_t m, size_t k, float *out)
{
	if (dtype == CX_F32) pack_at(CX_F32, base, k_stride, m, k, out);
	else if (dtype == CX_F16) pack_at(CX_F16, base, k_stride, m, k, out);
	else pack_at(CX_BF16, base, k_stride, m, k, out);
}

/* 16 rows of w from n0 on, elements k0 to k0 + 16, as f32; rows and elements past the end are 0. */
CX_INLINE void load_f(
	cx_dtype t, const cx__wmat *w, size_t n0, size_t n, size_t k0, size_t k, v16 x[16])
{
	const size_t es = t == CX_F32 ? 4 : 2;
	const uint8_t *p = (const uint8_t *)w->base + n0 * w->n_stride * es;
	for (size_t j = 0; j < 16; j++)
		x[j] = j < n ? v16_load_as(t, p + j * w->n_stride * es, k0, k - k0) : v16_zero();
	v16_transpose(x);
}
CX_INLINE float load1(cx_dtype t, const void *p, size_t i)
{
	if (t == CX_F32) return ((const float *)p)[i];
	return t == CX_F16 ? cx_f16_to_f32(((const uint16_t *)p)[i])
					   : cx_bf16_to_f32(((const uint16_t *)p)[i]);
}
/* The same for other strides; columns side by side are read at once. */
CX_INLINE void load_t(
	cx_dtype t, const cx__wmat *w, size_t n0, size_t n, size_t k0, size_t k, v16 x[16])
{
	const size_t es = t == CX_F32 ? 4 : 2;
	for (size_t j = 0; j < 16; j++) {
		const uint8_t *p =
			(const uint8_t *)w->base + (n0 * w->n_stride + (k0 + j) * w->k_stride) * es;
		if (k0 + j >= k) x[j] = v16_zero();
		else if (w->n_stride == 1) x[j] = v16_load_as(t, p, 0, n);
		else {
			float e[16] = {0};
			for (size_t i = 0; i < n && i < 16; i++) e[i] = load1(t, p, i * w->n_stride);
			x[j] = v16_load(e);
		}
	}
}
CX_INLINE void pack_f(cx_dtype t, const cx__wmat *w, size_t n0, size_t n, size_t k, float *panel)
{
	const size_t steps = (k + 15) / 16;
	for (size_t v = 0; v * 16 < n; v++) {
		size_t first = v / NR * NR, left = (n + 15) / 16 - first, nr = left < NR ? left : NR;
		float *out = panel + first / NR * 16 * cx__p_w_chain(steps, NR) + (v - first) * 16;
		for (size_t s = 0; s < steps; s++) {
			v16 x[16];
			if (w->k_stride == 1) load_f(t, w, n0 + 16 * v, n - 16 * v, 16 * s, k, x);
			else load_t(t, w, n0 + 16 * v, n - 16 * v, 16 * s, k, x);
			for (size_t j = 0; j < 16; j++)
				v16_store(out + place[j] * cx__p_w_chain(steps, nr) + s * nr * 16, x[j]);
		}
	}
}

/* 64 bytes of a row at p, of which n are there. */
CX_INLINE v16 load_bytes(const uint8_t *p, size_t n)
{
	float t[16] = {0};
	if (n >= 64) memcpy(t, p, 64);
	else memcpy(t, p, n);
	return v16_load(t);
}
#if CX_HAVE_BF16
/* Steps of pairs. Rows of w along k are read 32 elements at a time; other strides pair by pair. */
static void pack_b(const cx__wmat *w, size_t n0, size_t n, size_t k0, size_t k, float *panel)
{
	const size_t steps = (k + 1) / 2;
	for (size_t v = 0; v * 16 < n; v++) {
		size_t first = v / NR * NR, left = (n + 15) / 16 - first, nr = left < NR ? left : NR;
		float *out = panel + first * steps * 16 + (v - first) * 16;
		const uint16_t *p =
			(const uint16_t *)w->base + (n0 + 16 * v) * w->n_stride + k0 * w->k_stride;
		size_t cols = n - 16 * v < 16 ? n - 16 * v : 16;
		for (size_t s = 0; s < steps; s += w->k_stride == 1 ? 16 : 1) {
			v16 x[16];
			if (w->k_stride == 1) {
				size_t bytes = 2 * (k - 2 * s);
				for (size_t j = 0; j < 16; j++) {
					const uint8_t *q = (const uint8_t *)(p + j * w->n_stride + 2 * s);
					if (j >= cols) x[j] = v16_zero();
					else if (bytes >= 64) x[j] = v16_load((const float *)(const void *)q);
					else x[j] = load_bytes(q, bytes);
					__builtin_prefetch((const void *)((uintptr_t)q + 16 * 2 * w->n_stride), 0, 2);
				}
				v16_transpose(x);
				for (size_t j = 0; j < 16 && s + j < steps; j++)
					v16_store(out + (s + j) * nr * 16, x[j]);
				continue;
			}
			uint16_t e[2][16] = {{0}};
			for (size_t h = 0; h < 2 && 2 * s + h < k; h++) {
				const uint16_t *q = p + (2 * s + h) * w->k_stride;
				if (w->n_stride == 1 && cols == 16) memcpy(e[h], q, sizeof e[h]);
				else
					for (size_t i = 0; i < cols; i++) e[h][i] = q[i * w->n_stride];
			}
			v16_store(out + s * nr * 16,
				v16i_as_v16(v16i_or(v16i_load_u16(e[0]), v16i_sll(v16i_load_u16(e[1]), 16))));
		}
	}
}
#endif

/* 64 weights from element k on, of which n are there, as steps of int8: 16 of four bytes, or 32 of
 * two 16-bit numbers. */
CX_INLINE void pack_i_rows(
	const int8_t *p, size_t row, size_t cols, size_t n, float *out, size_t step)
{
	v16 x[16];
#if CX_HAVE_DOT8
	for (size_t j = 0; j < 16; j++) {
		const uint8_t *q = (const uint8_t *)p + j * row;
		if (j >= cols) x[j] = v16_zero();
		else if (n >= 64) x[j] = v16_load((const float *)(const void *)q);
		else x[j] = load_bytes(q, n);
		x[j] = v16i_as_v16(v16i_xor(v16_as_v16i(x[j]), v16i_set1((int32_t)0x80808080u)));
		__builtin_prefetch((const void *)((uintptr_t)q + 16 * row), 0, 2);
	}
	v16_transpose(x);
	for (size_t j = 0; j < 16 && 4 * j < n; j++) v16_store(out + j * step, x[j]);
#else
	for (size_t h = 0; h < 2 && 32 * h < n; h++) {
		for (size_t j = 0; j < 16; j++) {
			int16_t e[32] = {0};
			for (size_t i = 0; j < cols && i < 32 && 32 * h + i < n; i++)
				e[i] = p[j * row + 32 * h + i];
			memcpy(&x[j], e, sizeof x[j]);
		}
		v16_transpose(x);
		for (size_t j = 0; j < 16 && 32 * h + 2 * j < n; j++)
			v16_store(out + (16 * h + j) * step, x[j]);
	}
#endif
}
static void pack_i(const cx__wmat *w, size_t n0, size_t n, size_t k0, size_t k, float *panel)
{
	const size_t steps = (k + I8_STEP - 1) / I8_STEP;
	for (size_t v = 0; v * 16 < n; v++) {
		size_t first = v / NR * NR, left = (n + 15) / 16 - first, nr = left < NR ? left : NR;
		float *out = panel + first * steps * 16 + (v - first) * 16;
		const int8_t *p = (const int8_t *)w->base + (n0 + 16 * v) * w->n_stride + k0;
		for (size_t s = 0; s < k; s += 64)
			pack_i_rows(
				p + s, w->n_stride, n - 16 * v, k - s, out + s / I8_STEP * nr * 16, nr * 16);
	}
}

void CX_ISA_NAME(cx__pack_w)(
	cx__panel_kind kind, const cx__wmat *w, size_t n0, size_t n, size_t k0, size_t k, void *panel)
{
	if (kind == CX__PANEL_I8) pack_i(w, n0, n, k0, k, panel);
#if CX_HAVE_BF16
	else if (kind == CX__PANEL_BF16) pack_b(w, n0, n, k0, k, panel);
#endif
	else if (w->dtype == CX_F32) pack_f(CX_F32, w, n0, n, k, panel);
	else if (w->dtype == CX_F16) pack_f(CX_F16, w, n0, n, k, panel);
	else pack_f(CX_BF16, w, n0, n, k, panel);
}

/* ---- tiles ---- */

CX_INLINE v16 mac(cx__panel_kind kind, v16 acc, v16 w, v16 a)
{
	if (kind == CX__PANEL_F32) return v16_fma(a, w, acc);
#if CX_HAVE_BF16
	if (kind == CX__PANEL_BF16) return v16_dot_bf16(acc, v16_as_vb(w), v16_as_vb(a));
#endif
#if CX_HAVE_DOT8
	return v16i_as_v16(v16i_dot8(v16_as_v16i(acc), v16_as_vb(w), v16_as_vb(a)));
#else
	return v16i_as_v16(v16i_dot16(v16_as_v16i(acc), v16_as_vb(w), v16_as_vb(a)));
#endif
}

/* acc [m][nr] += steps of a, `row` bytes from row to row and `step` from step to step. */
CX_INLINE void mac_tile(cx__panel_kind kind, int m, int nr, const uint8_t *a, size_t row,
	size_t step, const float *w, size_t steps, v16 acc[MR][NR])
{
	const uint8_t *b =
		a + (m > 4 ? 4 * row : 0); /* few addresses: rows are at 0, 1, 2, 3 times row */
	for (size_t t = 0; t < steps; t++, a += step, b += step, w += 16 * nr) {
		v16 wv[NR];
		CX_UNROLL
		for (int c = 0; c < nr; c++) {
			wv[c] = v16_load(w + 16 * c);
			v16_keep(wv[c]);
		}
		CX_UNROLL
		for (int r = 0; r < m; r++) {
			float e;
			v16 av;
			memcpy(&e, (r < 4 ? a : b) + (size_t)(r % 4) * row, sizeof e);
			av = v16_set1(e);
			v16_keep(av);
			CX_UNROLL
			for (int c = 0; c < nr; c++) acc[r][c] = mac(kind, acc[r][c], wv[c], av);
		}
	}
}

CX_INLINE void load_tile(int m, int nr, const float *from, v16 acc[MR][NR])
{
	CX_UNROLL
	for (int r = 0; r < m; r++) {
		CX_UNROLL
		for (int c = 0; c < nr; c++) acc[r][c] = v16_load(from + (r * nr + c) * 16);
	}
}
CX_INLINE void add_tile(int m, int nr, const float *from, v16 acc[MR][NR])
{
	CX_UNROLL
	for (int r = 0; r < m; r++) {
		CX_UNROLL
		for (int c = 0; c < nr; c++)
			acc[r][c] = v16_add(acc[r][c], v16_load(from + (r * nr + c) * 16));
	}
}
CX_INLINE void store_tile(int m, int nr, float *to, v16 acc[MR][NR])
{
	CX_UNROLL
	for (int r = 0; r < m; r++) {
		CX_UNROLL
		for (int c = 0; c < nr; c++) v16_store(to + (r * nr + c) * 16, acc[r][c]);
	}
}
/* y [m, n] from row r0 of g on. */
CX_INLINE void write_tile(
	cx__panel_kind kind, int m, int nr, const cx__panel *g, size_t r0, size_t n0, v16 acc[MR][NR])
{
#if CX_HAVE_BF16
	const v16 low = v16_set1(CX__BF16_LOW);
	v16m tiny = 0;
#endif
	CX_UNROLL
	for (int c = 0; c < nr; c++) {
		size_t j = n0 + 16 * (size_t)c, left = g->n - j;
		v16 scale = kind == CX__PANEL_I8 ? v16_load_n(g->w_scale + j, left) : v16_zero();
		CX_UNROLL
		for (int r = 0; r < m; r++) {
			size_t i = r0 + (size_t)r;
			v16 x = acc[r][c];
			if (kind == CX__PANEL_I8)
				x = v16_mul(v16i_to_f(v16_as_v16i(x)), v16_mul(v16_set1(g->a_scale[i]), scale));
#if CX_HAVE_BF16
			if (kind == CX__PANEL_BF16)
				tiny = v16m_or(tiny, v16m_and(v16_lt(v16_abs(x), low), v16_first(left)));
#endif
			v16_store_n(g->y + i * g->y_stride + j, x, left);
		}
	}
#if CX_HAVE_BF16
	if (kind == CX__PANEL_BF16 && v16m_any(tiny)) *g->tiny = true;
#endif
}

CX_INLINE void zero_tile(int m, int nr, v16 acc[MR][NR])
{
	CX_UNROLL
	for (int r = 0; r < m; r++) {
		CX_UNROLL
		for (int i = 0; i < nr; i++) acc[r][i] = v16_zero();
	}
}

/* Chain c of a panel's row r0, and of its columns from vector v on. */
CX_INLINE const uint8_t *a_chain(const cx__panel *g, size_t r0, int c)
{
	size_t chain = cx__p_a_chain(g->steps);
	return (const uint8_t *)((const float *)g->a + (r0 / 8 * 16 + (size_t)c) * chain + r0 % 8);
}
CX_INLINE const float *w_chain(const cx__panel *g, size_t v, int nr, int c)
{
	return (const float *)g->panel + v / NR * 16 * cx__p_w_chain(g->steps, NR) +
		   (size_t)c * cx__p_w_chain(g->steps, (size_t)nr);
}

/* The chains c0.. of a tile, in fours or alone. Sums of finished pairs, fours and eights wait in
 * part [4][m][nr][16] for what they are added to. */
CX_INLINE void chains(int m, int nr, const cx__panel *g, size_t r0, size_t v, float *part)
{
	const size_t size = (size_t)(m * nr) * 16;
/* the barrier: sums that wait are read from part, not kept in registers that are needed */
#define CHAIN(c)                                                                                   \
	__asm__ volatile("" : : : "memory");                                                           \
	zero_tile(m, nr, acc);                                                                         \
	mac_tile(CX__PANEL_F32, m, nr, a_chain(g, r0, c), 4, 32, w_chain(g, v, nr, c), g->steps, acc);
	for (int c = g->c0; c < g->c0 + g->n_c; c += 4) {
		v16 acc[MR][NR];
		CHAIN(c)
		store_tile(m, nr, part, acc);
		CHAIN(c + 1)
		add_tile(m, nr, part, acc);
		store_tile(m, nr, part + size, acc);
		CHAIN(c + 2)
		store_tile(m, nr, part, acc);
		CHAIN(c + 3)
		add_tile(m, nr, part, acc);
		add_tile(m, nr, part + size, acc);
		if (c & 4) add_tile(m, nr, part + 2 * size, acc);
		if (c == 12) {
			add_tile(m, nr, part + 3 * size, acc);
			write_tile(CX__PANEL_F32, m, nr, g, r0, v * 16, acc);
		} else store_tile(m, nr, part + (c & 4 ? 3 : 2) * size, acc);
	}
#undef CHAIN
}

CX_INLINE void dots(cx__panel_kind kind, int m, int nr, const cx__panel *g, size_t r0, size_t v)
{
	float *part = g->part ? g->part + (r0 * ((g->n + 15) / 16) + v * (size_t)m) * 16 : NULL;
	v16 acc[MR][NR];
	if (!g->first) load_tile(m, nr, part, acc);
	else {
		CX_UNROLL
		for (int r = 0; r < m; r++) {
			v16 start = v16_zero();
			if (kind == CX__PANEL_I8) start = v16i_as_v16(v16i_set1(g->a_start[r0 + (size_t)r]));
			CX_UNROLL
			for (int c = 0; c < nr; c++) acc[r][c] = start;
		}
	}
	mac_tile(kind, m, nr, (const uint8_t *)g->a + r0 * g->a_stride, g->a_stride, 4,
		(const float *)g->panel + v * g->steps * 16, g->steps, acc);
	if (!g->last) store_tile(m, nr, part, acc);
	else write_tile(kind, m, nr, g, r0, v * 16, acc);
}

CX_INLINE void tile(cx__panel_kind kind, int m, int nr, const cx__panel *g, size_t r0, size_t v)
{
	_Alignas(64) float own[4 * MR * NR * 16];
	if (kind != CX__PANEL_F32) dots(kind, m, nr, g, r0, v);
	else if (g->n_c == 16) chains(m, nr, g, r0, v, own);
	else chains(m, nr, g, r0, v, g->part + (r0 * ((g->n + 15) / 16) + v * (size_t)m) * 64);
}

/* Rows in tiles of MR, then 4, 2, 1: a row's sums do not depend on the tile that it is in. */
CX_INLINE void panel(cx__panel_kind kind, const cx__panel *g)
{
	const size_t vecs = (g->n + 15) / 16;
	for (size_t r = 0, m; r < g->m; r += m) {
		size_t left = g->m - r;
		m = left >= 4 ? 4 : left >= 2 ? 2 : 1;
		if (left >= MR) m = MR;
		for (size_t v = 0; v < vecs; v += NR) {
			size_t nr = vecs - v < NR ? vecs - v : NR;
#define TILE(m_, nr_)                                                                              \
	if (m == (m_) && nr == (nr_)) {                                                                \
		tile(kind, m_, nr_, g, r, v);                                                              \
		continue;                                                                                  \
	}
#if CX__HAVE_BIG_TILES
			TILE(8, 3)
			TILE(8, 2)
			TILE(8, 1)
			TILE(4, 3)
			TILE(4, 2)
			TILE(2, 3)
			TILE(2, 2)
			TILE(1, 3)
			TILE(1, 2)
#endif
			TILE(4, 1)
			TILE(2, 1)
			TILE(1, 1)
#undef TILE
		}
	}
}
static void panel_f(const cx__panel *g)
{
	panel(CX__PANEL_F32, g);
}
static void panel_i(const cx__panel *g)
{
	panel(CX__PANEL_I8, g);
}
#if CX_HAVE_BF16
static void panel_b(const cx__panel *g)
{
	panel(CX__PANEL_BF16, g);
}
#endif
void CX_ISA_NAME(cx__gemm_p)(cx__panel_kind kind, const cx__panel *g)
{
	if (kind == CX__PANEL_I8) panel_i(g);
#if CX_HAVE_BF16
	else if (kind == CX__PANEL_BF16) panel_b(g);
#endif
	else panel_f(g);
}

/* ---- activations to int8 ---- */

bool CX_ISA_NAME(cx__quant_i8)(const float *x, size_t k, float inverse, void *out, int32_t *start)
{
	const v16 inv = v16_set1(inverse), top = v16_set1(127.0f), low = v16_set1(-127.0f);
	v16i sum = v16i_set1(0);
	bool bad = false;
	int32_t lanes[16], s = 0;
	for (size_t i = 0; i < k; i += 16) {
		v16 v = v16_mul(v16_load_n(x + i, k - i), inv);
		v16m nan = v16_isnan(v);
		v16i q;
		if (v16m_any(nan)) {
			bad = true;
			v = v16_select(nan, v16_zero(), v);
		}
		q = v16_to_i(v16_min(v16_max(v, low), top));
		sum = v16i_add(sum, q);
#if CX_HAVE_DOT8
		v16i_store_i8((int8_t *)out + i, q);
#else
		v16i_store_u16((uint16_t *)out + i, q);
#endif
	}
	v16i_store(lanes, sum);
	for (int i = 0; i < 16; i++) s += lanes[i];
	*start = CX_HAVE_DOT8 ? -128 * s : 0;
	return !bad;
}
