/* dotf.c - float weights and few rows of a: tiles of dot products, w read where it lies.
 *
 * A tile holds rows x columns accumulators of 16 lanes in registers and, per 16 elements of k,
 * loads each row once. Many rows: panel.c, with the same order of sums (isa.h). */
#include "backends/cpu/isa/kernels.h"

/* Rows of w at once, for 1, 2, 3, 4 rows of a. */
#if defined(CX_ISA_avx512)
enum { NR1 = 8, NR2 = 8, NR3 = 8, NR4 = 6 };
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
		dot_rows(t, 4, NR4, a, a_stride, w, n0, n, k, y, y_stride);
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
