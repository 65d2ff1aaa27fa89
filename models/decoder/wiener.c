/* wiener.c - fits the lagged linear decoder and builds its graph. See wiener.h. */
#include "models/decoder/wiener.h"
#include "models/decoder/lagged.h"

#include <string.h>

/* The lagged solution, in single precision for the graph. */
static cx_status fit(const cx_session *s, size_t n_train, cx_wiener *w, cx_err *err)
{
	size_t k = w->n_features, d = w->n_out, bytes = (k * k + k * d + d) * sizeof(double);
	cx_lagged sums;
	double *gram = NULL, *xw, *bias;
	cx_status st = cx__lagged_init(&sums, s, w->history, err);
	if (st == CX_OK) st = cx__lagged_add(&sums, s, 0, n_train, err);
	if (st == CX_OK && !(gram = cx_malloc(&s->alloc, bytes)))
		st = CX_FAIL(err, CX_ERR_MEMORY, "wiener fit: %zu features do not fit in memory", k);
	if (st == CX_OK) {
		xw = gram + k * k;
		bias = xw + k * d;
		st = cx__lagged_solve(&sums, w->ridge, gram, xw, bias, "wiener fit", err);
	}
	if (st == CX_OK)
		for (size_t c = 0; c < d; c++) {
			for (size_t i = 0; i < k; i++) w->w[c * k + i] = (float)xw[i * d + c];
			w->bias[c] = (float)bias[c];
		}
	cx__lagged_deinit(&sums);
	cx_free(&s->alloc, gram, bytes);
	return st;
}

cx_status cx_wiener_fit(
	const cx_session *s, size_t n_train, size_t history, double ridge, cx_wiener *out, cx_err *err)
{
	size_t k, d = s->n_kin;
	cx_status st;
	memset(out, 0, sizeof *out);
	if (history < 1 || history > 1000)
		return CX_FAIL(err, CX_ERR_ARGUMENT, "wiener fit: history %zu is not in 1..1000", history);
	if (!(ridge >= 0 && ridge < 1e300))
		return CX_FAIL(
			err, CX_ERR_ARGUMENT, "wiener fit: ridge %g is negative or no number", ridge);
	if (n_train < 2 || n_train > s->n_bins)
		return CX_FAIL(
			err, CX_ERR_ARGUMENT, "wiener fit: %zu training bins of %zu", n_train, s->n_bins);
	k = history * s->n_units;
	if (k > 40000)
		return CX_FAIL(err, CX_ERR_ARGUMENT,
			"wiener fit: %zu features (history %zu x %zu units); 40000 at most", k, history,
			s->n_units);
	*out = (cx_wiener){.history = history,
		.n_units = s->n_units,
		.n_out = d,
		.n_features = k,
		.ridge = ridge,
		.alloc = s->alloc};
	out->w = cx_calloc(&s->alloc, d * k, sizeof *out->w);
	out->bias = cx_calloc(&s->alloc, d, sizeof *out->bias);
	st = out->w && out->bias ? fit(s, n_train, out, err)
							 : CX_FAIL(err, CX_ERR_MEMORY, "wiener fit: out of memory");
	if (st != CX_OK) cx_wiener_deinit(out);
	return st;
}

void cx_wiener_deinit(cx_wiener *w)
{
	cx_free(&w->alloc, w->w, w->n_out * w->n_features * sizeof *w->w);
	cx_free(&w->alloc, w->bias, w->n_out * sizeof *w->bias);
	memset(w, 0, sizeof *w);
}

void cx_wiener_features(const cx_session *s, size_t history, size_t first, size_t n, float *x)
{
	for (size_t i = 0; i < n; i++)
		for (size_t h = 0; h < history; h++) {
			float *row = x + (i * history + h) * s->n_units;
			for (size_t u = 0; u < s->n_units; u++)
				row[u] = first + i >= h ? s->spikes[(first + i - h) * s->n_units + u] : 0;
		}
}

cx_tensor cx_wiener_build(cx_graph *g, const cx_wiener *w, size_t n)
{
	int64_t k = (int64_t)w->n_features, d = (int64_t)w->n_out;
	cx_attr_matmul linear = {.trans_b = true};
	cx_tensor x, y;
	x = cx_input(cx_at(g), "x", CX_F32, 2, (int64_t[]){(int64_t)n, k});
	y = cx_matmul(cx_at(g), x, cx_weight(g, "wiener.w", CX_F32, 2, (int64_t[]){d, k}), &linear);
	y = cx_add(cx_at(g), y, cx_weight(g, "wiener.bias", CX_F32, 1, &d));
	cx_output(g, "y", y);
	return y;
}

cx_status cx_wiener_store(const cx_wiener *w, cx_store *store, cx_err *err)
{
	int64_t k = (int64_t)w->n_features, d = (int64_t)w->n_out;
	cx_status st = cx_store_weight(store, "wiener.w", CX_F32, 2, (int64_t[]){d, k}, w->w,
		w->n_out * w->n_features * sizeof *w->w, err);
	if (st != CX_OK) return st;
	return cx_store_weight(
		store, "wiener.bias", CX_F32, 1, &d, w->bias, w->n_out * sizeof *w->bias, err);
}

void cx_wiener_decode(const cx_wiener *w, const cx_session *s, size_t first, size_t n, double *y)
{
	for (size_t i = 0; i < n; i++) {
		double *out = y + i * w->n_out;
		for (size_t c = 0; c < w->n_out; c++) out[c] = w->bias[c];
		for (size_t h = 0; h < w->history && h <= first + i; h++) {
			const uint8_t *counts = s->spikes + (first + i - h) * s->n_units;
			for (size_t u = 0; u < s->n_units; u++)
				for (size_t c = 0; counts[u] && c < w->n_out; c++)
					out[c] += counts[u] * (double)w->w[c * w->n_features + h * s->n_units + u];
		}
	}
}
