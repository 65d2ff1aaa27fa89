/* linalg.c - Cholesky solve and matrix products in double. See linalg.h. */
#include "models/decoder/linalg.h"

#include <math.h>
#include <string.h>

/* Four running sums: the chain of one would be bound by the latency of an addition. */
static double dot(const double *a, const double *b, size_t n)
{
	double s0 = 0, s1 = 0, s2 = 0, s3 = 0;
	size_t i = 0;
	for (; i + 4 <= n; i += 4) {
		s0 += a[i] * b[i];
		s1 += a[i + 1] * b[i + 1];
		s2 += a[i + 2] * b[i + 2];
		s3 += a[i + 3] * b[i + 3];
	}
	for (; i < n; i++) s0 += a[i] * b[i];
	return (s0 + s1) + (s2 + s3);
}

/* Columns of L per panel, and terms of a sum that are packed at a time. */
enum { PANEL = 32, TERMS = 128 };

typedef void tile_fn(double *c, const double *a, size_t n, const double *bt, size_t n_terms);

/* 4 rows by two vectors of columns of C -= A B', A's rows n apart, B packed as bt[term][PANEL].
 * Every element is one sum in the order of its terms, so both widths give the same bits. */
#define TILE(name, vec, width)                                                                     \
	static void name(double *c, const double *a, size_t n, const double *bt, size_t n_terms)       \
	{                                                                                              \
		vec s[4][2];                                                                               \
		memset(s, 0, sizeof s);                                                                    \
		for (size_t k = 0; k < n_terms; k++) {                                                     \
			vec b0 = *(const vec *)(bt + k * PANEL), b1 = *(const vec *)(bt + k * PANEL + width);  \
			for (size_t r = 0; r < 4; r++) {                                                       \
				double x = a[r * n + k];                                                           \
				s[r][0] += x * b0;                                                                 \
				s[r][1] += x * b1;                                                                 \
			}                                                                                      \
		}                                                                                          \
		for (size_t r = 0; r < 4; r++) {                                                           \
			*(vec *)(c + r * n) -= s[r][0];                                                        \
			*(vec *)(c + r * n + width) -= s[r][1];                                                \
		}                                                                                          \
	}

/* clang-format off */
typedef double pair __attribute__((vector_size(16), aligned(8)));
TILE(tile_pair, pair, 2)
#if defined(__x86_64__)
typedef double four __attribute__((vector_size(32), aligned(8)));
__attribute__((target("avx2"))) TILE(tile_four, four, 4)
#endif
	/* clang-format on */

	static tile_fn *pick(size_t *cols)
{
#if defined(__x86_64__)
	if (__builtin_cpu_supports("avx2")) {
		*cols = 8;
		return tile_four;
	}
#endif
	*cols = 4;
	return tile_pair;
}

/* Takes the columns before j out of columns [j, j + PANEL) of rows j and below. What falls above
 * the diagonal is never read. */
static void update(double *a, size_t n, size_t j)
{
	double bt[TERMS * PANEL];
	size_t cols;
	tile_fn *tile = pick(&cols);
	for (size_t k0 = 0; k0 < j; k0 += TERMS) {
		size_t terms = j - k0 < TERMS ? j - k0 : TERMS, i = j;
		for (size_t c = 0; c < PANEL; c++)
			for (size_t k = 0; k < terms; k++) bt[k * PANEL + c] = a[(j + c) * n + k0 + k];
		for (; i + 4 <= n; i += 4)
			for (size_t c = 0; c < PANEL; c += cols)
				tile(a + i * n + j + c, a + i * n + k0, n, bt + c, terms);
		for (; i < n; i++)
			for (size_t c = 0; c < PANEL; c++)
				a[i * n + j + c] -= dot(a + i * n + k0, a + (j + c) * n + k0, terms);
	}
}

cx_status cx__chol_solve(double *a, size_t n, double *b, size_t d, const char *what, cx_err *err)
{
	for (size_t p = 0; p < n; p += PANEL) {
		size_t from = 0, end = p + PANEL; /* of the sums that are still to be taken */
		if (end <= n) update(a, n, from = p);
		else end = n;
		for (size_t i = p; i < n; i++) {
			double *row = a + i * n, pivot;
			for (size_t j = p; j < i && j < end; j++)
				row[j] = (row[j] - dot(row + from, a + j * n + from, j - from)) / a[j * n + j];
			if (i >= end) continue;
			pivot = row[i] - dot(row + from, row + from, i - from);
			if (!(pivot > 0) || isinf(pivot))
				return CX_FAIL(err, CX_ERR_ARGUMENT,
					"%s: the matrix is not positive definite (pivot %zu is %g); more data or a "
					"larger ridge is needed",
					what, i, pivot);
			row[i] = sqrt(pivot);
		}
	}
	for (size_t c = 0; c < d; c++) {
		for (size_t i = 0; i < n; i++) { /* L y = b */
			double s = b[i * d + c];
			for (size_t j = 0; j < i; j++) s -= a[i * n + j] * b[j * d + c];
			b[i * d + c] = s / a[i * n + i];
		}
		for (size_t i = n; i-- > 0;) { /* L' x = y */
			double s = b[i * d + c];
			for (size_t j = i + 1; j < n; j++) s -= a[j * n + i] * b[j * d + c];
			b[i * d + c] = s / a[i * n + i];
		}
	}
	return CX_OK;
}

void cx__mat_mul(double *c, const double *a, const double *b, size_t m, size_t k, size_t n)
{
	memset(c, 0, m * n * sizeof *c);
	for (size_t i = 0; i < m; i++)
		for (size_t l = 0; l < k; l++)
			for (size_t j = 0; j < n; j++) c[i * n + j] += a[i * k + l] * b[l * n + j];
}

void cx__mat_mul_t(double *c, const double *a, const double *b, size_t m, size_t k, size_t n)
{
	for (size_t i = 0; i < m; i++)
		for (size_t j = 0; j < n; j++) c[i * n + j] = dot(a + i * k, b + j * k, k);
}
