/* linalg.h - the small dense double-precision algebra that fitting a linear decoder needs. */
#ifndef CX_DECODER_LINALG_H
#define CX_DECODER_LINALG_H

#include "graph/base.h"

/* Solves A X = B for a symmetric positive definite A [n,n] (row-major; the lower triangle is read
 * and replaced by its Cholesky factor, the upper one is scratch), B [n,d] replaced by X.
 * CX_ERR_ARGUMENT names `what` if A is not positive definite. */
cx_status cx__chol_solve(double *a, size_t n, double *b, size_t d, const char *what, cx_err *err);

/* c [m,n] = a [m,k] * b [k,n]. */
void cx__mat_mul(double *c, const double *a, const double *b, size_t m, size_t k, size_t n);
/* c [m,n] = a [m,k] * b[n,k] transposed. */
void cx__mat_mul_t(double *c, const double *a, const double *b, size_t m, size_t k, size_t n);

#endif
