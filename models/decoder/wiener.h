/* wiener.h - the Wiener (lagged linear) decoder: fit in double, decode through a graph.
 *
 *	y_t = y_mean + sum over lag h < history, unit u of W[h,u] (s[t-h,u] - x_mean[h,u])
 *
 * s before the first bin is 0. W solves the normal equations of the centred training bins with a
 * ridge penalty on every weight: (X'X + ridge I) W = X'Y. Feature k = h * n_units + u. */
#ifndef CX_DECODER_WIENER_H
#define CX_DECODER_WIENER_H

#include "graph/cx.h"
#include "models/decoder/session.h"

typedef struct cx_wiener {
	size_t history, n_units, n_out, n_features; /* n_features = history * n_units */
	double ridge;
	float *w;    /* [n_out, n_features] */
	float *bias; /* [n_out]: y_mean - W x_mean, formed in double */
	cx_alloc alloc;
} cx_wiener;

/* Fits on bins [0, n_train). history >= 1, ridge >= 0. */
cx_status cx_wiener_fit(
	const cx_session *s, size_t n_train, size_t history, double ridge, cx_wiener *out, cx_err *err);
void cx_wiener_deinit(cx_wiener *w);

/* Bins [first, first + n) without a graph, sums in double: y [n, n_out]. */
void cx_wiener_decode(const cx_wiener *w, const cx_session *s, size_t first, size_t n, double *y);

/* Features of bins [first, first + n) into x [n, n_features]. */
void cx_wiener_features(const cx_session *s, size_t history, size_t first, size_t n, float *x);

/* The graph of n windows: input "x" f32 [n, n_features], weights "wiener.w", "wiener.bias", output
 * "y" [n, n_out]. */
cx_tensor cx_wiener_build(cx_graph *g, const cx_wiener *w, size_t n);
/* Puts the weights into a store; w must outlive it. */
cx_status cx_wiener_store(const cx_wiener *w, cx_store *store, cx_err *err);

#endif
