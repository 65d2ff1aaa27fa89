/* dotf.c - float weights: tiles of dot products.
 *
 * A tile holds rows x columns accumulators of 16 lanes in registers and, per 16 elements of k,
 * loads each row once. Few rows of a: w is read where it lies (dot_f). Many: w is packed per block
 * of k into a panel that stays in the second cache, the rows of a stay in the first, and partial
 * sums are kept as lanes (gemm_f). Order of sums: isa.h. */
#include "backends/cpu/isa/kernels.h"

enum { MR = CX__F_ROWS, NR = CX__F_COLS };
/* dot_f: rows of w at once, for 1, 2, 3 rows of a. */
#if defined(CX_ISA_avx512)
enum { NR1 = 8, NR2 = 8, NR3 = 8 };
#elif defined(CX_ISA_avx2)
enum { NR1 = 6, NR2 = 3 };
#else
enum { NR1 = 4, NR2 = 3 };
#endif
#define MAX_MR 4
#define MAX_NR 8

/* Writes m x n sums, n <= 8. */
CX_INLINE void store_sums(v16 acc[MAX_MR][MAX_NR], int m, int n, float *y, size_t y_stride)
{
	CX_UNROLL
	for (int i = 0; i < m; i++) {
		if (n > 4) {
			float s[8];
			for (int j = n; j < 8; j++) acc[i][j] = v16_zero();
			v16_sum8(s, acc[i]);
			memcpy(y + (size_t)i * y_stride, s, (size_t)n * sizeof *s);
		} else {
			for (int j = 0; j < n; j++) y[(size_t)i * y_stride + (size_t)j] = v16_sum(acc[i][j]);
		}
	}
}

/* ---- w as stored ---- */

/* n rows of w from `row` on; those past the last (n_valid of them exist) stand for it, and their
 * sums are dropped. The incomplete last step of k works on copies padded with zeros. */
CX_INLINE void dot_tile(cx_dtype t, int m, int n, const float *a, size_t a_stride,
	const uint8_t *row, size_t row_bytes, size_t n_valid, size_t k, float *y, size_t y_stride)
{
	const size_t es = t == CX_F32 ? 4 : 2, whole = k & ~(size_t)15;
	v16 acc[MAX_MR][MAX_NR], av[MAX_MR];
	const uint8_t *w[MAX_NR];
	float sums[MAX_MR * MAX_NR];
	struct {
		float a[MAX_MR][16];
		uint8_t w[MAX_NR][64];
	} pad;
	CX_UNROLL
	for (int r = 0; r < m; r++) {
		CX_UNROLL
		for (int c = 0; c < n; c++) acc[r][c] = v16_zero();
	}
	CX_UNROLL
	for (int c = 0; c < n; c++)
		w[c] = row + row_bytes * ((size_t)c < n_valid ? (size_t)c : n_valid - 1);
#define STEP(a, a_stride, w, i)                                                                    \
	CX_UNROLL                                                                                      \
	for (int r = 0; r < m; r++) av[r] = v16_load((a) + (size_t)r * (a_stride) + (i));              \
	CX_UNROLL                                                                                      \
	for (int c = 0; c < n; c++) {                                                                  \
		v16 wv = v16_load_as(t, w[c], i, 16);                                                      \
		if (m > 1) v16_keep(wv);                                                                   \
		CX_UNROLL                                                                                  \
		for (int r = 0; r < m; r++) acc[r][c] = v16_fma(av[r], wv, acc[r][c]);                     \
	}
	for (size_t i = 0; i < whole; i += 16) {
		STEP(a, a_stride, w, i)
	}
	if (whole < k) {
		memset(&pad, 0, sizeof pad);
		for (int r = 0; r < m; r++)
			memcpy(pad.a[r], a + (size_t)r * a_stride + whole, (k - whole) * 4);
		for (int c = 0; c < n; c++) memcpy(pad.w[c], w[c] + whole * es, (k - whole) * es);
		STEP(pad.a[0], 16, pad.w, 0)
	}
#undef STEP
	store_sums(acc, m, n, sums, MAX_NR);
	for (int r = 0; r < m; r++)
		memcpy(y + (size_t)r * y_stride, sums + r * MAX_NR,
			(n_valid < (size_t)n ? n_valid : (size_t)n) * 4);
}

CX_INLINE void dot_rows(cx_dtype t, int m, int n_tile, const float *a, size_t a_stride,
	const cx__wrows *w, size_t n0, size_t n, size_t k, float *y, size_t y_stride)
{
	const uint8_t *p = w->base + n0 * w->row_bytes;
	for (size_t j = 0; j < n; j += (size_t)n_tile)
		dot_tile(t, m, n_tile, a, a_stride, p + j * w->row_bytes, w->row_bytes, n - j, k, y + j,
			y_stride);
}

CX_INLINE void dot_any(cx_dtype t, const float *a, size_t a_stride, int m, const cx__wrows *w,
	size_t n0, size_t n, size_t k, float *y, size_t y_stride)
{
	switch (m) {
	case 1:
		dot_rows(t, 1, NR1, a, a_stride, w, n0, n, k, y, y_stride);
		break;
	case 2:
		dot_rows(t, 2, NR2, a, a_stride, w, n0, n, k, y, y_stride);
		break;
#if defined(CX_ISA_avx512)
	case 3:
		dot_rows(t, 3, NR3, a, a_stride, w, n0, n, k, y, y_stride);
		break;
	case 4:
		dot_rows(t, 4, NR, a, a_stride, w, n0, n, k, y, y_stride);
		break;
#endif
	default:
		break;
	}
}
#define DOT(id)                                                                                    \
	static void dot_##id(const float *a, size_t a_stride, int m, const cx__wrows *w, size_t n0,    \
		size_t n, size_t k, float *y, size_t y_stride)                                             \
	{                                                                                              \
		dot_any(CX_##id, a, a_stride, m, w, n0, n, k, y, y_stride);                                \
	}
DOT(F32)
DOT(F16)
DOT(BF16)

void CX_ISA_NAME(cx__dot_f)(const float *a, size_t a_stride, int m, const cx__wrows *w, size_t n0,
	size_t n, size_t k, float *y, size_t y_stride)
{
	if (w->dtype == CX_F32) dot_F32(a, a_stride, m, w, n0, n, k, y, y_stride);
	else if (w->dtype == CX_F16) dot_F16(a, a_stride, m, w, n0, n, k, y, y_stride);
	else dot_BF16(a, a_stride, m, w, n0, n, k, y, y_stride);
}

/* ---- panels: [n / NR][k / 16][NR][16] f32 ---- */

CX_INLINE void pack_any(
	cx_dtype t, const cx__wrows *w, size_t n0, size_t n, size_t k0, size_t k, float *panel)
{
	const size_t es = t == CX_F32 ? 4 : 2, steps = (k + 15) / 16;
	for (size_t j = 0; j < n; j += NR)
		for (size_t c = 0; c < NR; c++) {
			float *dst = panel + j * steps * 16 + c * 16;
			const uint8_t *src = w->base + (n0 + j + c) * w->row_bytes + k0 * es;
			for (size_t s = 0; s < steps; s++) {
				__builtin_prefetch(
					(const void *)((uintptr_t)src + 2 * w->row_bytes + s * 16 * es), 0, 2);
				v16_store(dst + s * NR * 16,
					j + c < n ? v16_load_as(t, src, 16 * s, k - 16 * s) : v16_zero());
			}
		}
}
void CX_ISA_NAME(cx__pack_f)(
	const cx__wrows *w, size_t n0, size_t n, size_t k0, size_t k, float *panel)
{
	if (w->dtype == CX_F32) pack_any(CX_F32, w, n0, n, k0, k, panel);
	else if (w->dtype == CX_F16) pack_any(CX_F16, w, n0, n, k0, k, panel);
	else pack_any(CX_BF16, w, n0, n, k0, k, panel);
}

CX_INLINE float load1(cx_dtype t, const void *p, size_t i)
{
	if (t == CX_F32) return ((const float *)p)[i];
	return t == CX_F16 ? cx_f16_to_f32(((const uint16_t *)p)[i])
					   : cx_bf16_to_f32(((const uint16_t *)p)[i]);
}
CX_INLINE void pack_t_any(cx_dtype t, const void *base, size_t n_stride, size_t k_stride, size_t n,
	size_t k, float *panel)
{
	const size_t steps = (k + 15) / 16;
	for (size_t j = 0; j < n; j += NR)
		for (size_t s = 0; s < steps; s++) {
			float *dst = panel + (j * steps + s * NR) * 16;
			size_t nc = n - j < NR ? n - j : NR, nk = k - 16 * s < 16 ? k - 16 * s : 16;
			if (nc < NR || nk < 16) memset(dst, 0, NR * 16 * sizeof *dst);
			for (size_t e = 0; e < nk; e++)
				for (size_t c = 0; c < nc; c++)
					dst[c * 16 + e] = load1(t, base, (j + c) * n_stride + (16 * s + e) * k_stride);
		}
}
void CX_ISA_NAME(cx__pack_t)(cx_dtype dtype, const void *base, size_t n_stride, size_t k_stride,
	size_t n, size_t k, float *panel)
{
	if (dtype == CX_F32) pack_t_any(CX_F32, base, n_stride, k_stride, n, k, panel);
	else if (dtype == CX_F16) pack_t_any(CX_F16, base, n_stride, k_stride, n, k, panel);
	else pack_t_any(CX_BF16, base, n_stride, k_stride, n, k, panel);
}

CX_INLINE void gemm_tile(
	int m, const cx__gemm *g, const float *a, const float *w, float *part, float *y, size_t n)
{
	const size_t whole = g->steps & ~(size_t)15;
	const size_t as = g->a_stride;
	v16 acc[MAX_MR][MAX_NR], av[MAX_MR];
	float sums[MAX_MR * MAX_NR], pad[MAX_MR][16];
	CX_UNROLL
	for (int r = 0; r < m; r++) {
		CX_UNROLL
		for (int c = 0; c < NR; c++)
			acc[r][c] = g->first ? v16_zero() : v16_load(part + (r * NR + c) * 16);
	}
#define STEP(a, as, w)                                                                             \
	CX_UNROLL                                                                                      \
	for (int r = 0; r < m; r++) av[r] = v16_load((a) + (size_t)r * (as));                          \
	CX_UNROLL                                                                                      \
	for (int c = 0; c < NR; c++) {                                                                 \
		v16 wv = v16_load((w) + c * 16);                                                           \
		v16_keep(wv);                                                                              \
		CX_UNROLL                                                                                  \
		for (int r = 0; r < m; r++) acc[r][c] = v16_fma(av[r], wv, acc[r][c]);                     \
	}
	for (size_t i = 0; i < whole; i += 16) {
		STEP(a + i, as, w + i * NR)
	}
	if (whole < g->steps) { /* the panel is padded already */
		memset(pad, 0, sizeof pad);
		for (int r = 0; r < m; r++)
			memcpy(pad[r], a + (size_t)r * as + whole, (g->steps - whole) * 4);
		STEP(pad[0], 16, w + whole * NR)
	}
#undef STEP
	if (!g->last) {
		CX_UNROLL
		for (int r = 0; r < m; r++) {
			CX_UNROLL
			for (int c = 0; c < NR; c++) v16_store(part + (r * NR + c) * 16, acc[r][c]);
		}
		return;
	}
	store_sums(acc, m, NR, sums, MAX_NR);
	for (int r = 0; r < m; r++)
		memcpy(y + (size_t)r * g->y_stride, sums + r * MAX_NR, n * sizeof *sums);
}

void CX_ISA_NAME(cx__gemm_f)(const cx__gemm *g)
{
	const size_t steps = (g->steps + 15) / 16, n_tiles = (g->n + NR - 1) / NR,
				 lines = (steps + n_tiles - 1) / n_tiles;
	for (size_t i = 0; i < g->m; i += MR) {
		const float *a = (const float *)g->a + i * g->a_stride;
		size_t m = g->m - i < MR ? g->m - i : MR;
		for (size_t j = 0; j < n_tiles; j++) {
			/* a part of the next rows of a, which come from memory, with every tile */
			for (size_t r = MR; r < 2 * MR && i + r < g->m; r++)
				for (size_t k = 0; k < lines; k++)
					__builtin_prefetch(a + r * g->a_stride + (j * lines + k) * 16, 0, 2);
			const float *w = (const float *)g->panel + j * NR * steps * 16;
			float *part = g->part + (i * n_tiles + j * MR) * NR * 16,
				  *y = g->y + i * g->y_stride + j * NR;
			size_t n = g->n - j * NR < NR ? g->n - j * NR : NR;
			switch (m) {
			case 1:
				gemm_tile(1, g, a, w, part, y, n);
				break;
			case 2:
				gemm_tile(2, g, a, w, part, y, n);
				break;
#if defined(CX_ISA_avx512)
			case 3:
				gemm_tile(3, g, a, w, part, y, n);
				break;
			case 4:
				gemm_tile(4, g, a, w, part, y, n);
				break;
#endif
			default:
				break;
			}
		}
	}
}
