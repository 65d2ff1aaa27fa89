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

cx_status cx__chol_solve(double *a, size_t n, double *b, size_t d, const char *what, cx_err *err)
{
	for (size_t i = 0; i < n; i++) {
		double *row = a + i * n, pivot;
		for (size_t j = 0; j < i; j++) row[j] = (row[j] - dot(row, a + j * n, j)) / a[j * n + j];
		pivot = row[i] - dot(row, row, i);
		if (!(pivot > 0) || isinf(pivot))
			return CX_FAIL(err, CX_ERR_ARGUMENT,
				"%s: the matrix is not positive definite (pivot %zu is %g); more data or a larger "
				"ridge is "
				"needed",
				what, i, pivot);
		row[i] = sqrt(pivot);
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
