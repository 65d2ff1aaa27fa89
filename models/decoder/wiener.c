/* wiener.c - fits the lagged linear decoder and builds its graph. See wiener.h. */
#include "models/decoder/wiener.h"
#include "models/decoder/events.h"
#include "models/decoder/linalg.h"

#include <string.h>

/* Gram matrix of the lagged counts, lower triangle by blocks of lags. Block (h1, h2), h1 >= h2, is
 * the sum over t in [h1, n) of s[t-h1] s[t-h2]'; with u = t-h2 and lag = h1-h2 that is the sum over
 * u in [lag, n-h2) of s[u-lag] s[u]': block (h+1, h2+1) is block (h1, h2) less one term. So only
 * the first column is summed whole. */
static void gram(double *g, const cx_events *e, size_t n_units, size_t history)
{
	size_t k = n_units * history, n = e->n_rows;
	for (size_t lag = 0; lag < history && lag < n; lag++) {
		double *first =
			g + lag * n_units * k; /* block (lag, 0), stored transposed: rows s[u-lag] */
		for (size_t u = lag; u < n; u++)
			for (uint32_t i = e->start[u - lag]; i < e->start[u - lag + 1]; i++)
				for (uint32_t j = e->start[u]; j < e->start[u + 1]; j++)
					first[(size_t)e->unit[i] * k + e->unit[j]] += (double)e->count[i] * e->count[j];
		for (size_t h2 = 1; lag + h2 < history; h2++) {
			double *prev = g + (lag + h2 - 1) * n_units * k + (h2 - 1) * n_units;
			double *block = g + (lag + h2) * n_units * k + h2 * n_units;
			size_t u = n - h2; /* the term that falls out */
			for (size_t r = 0; r < n_units; r++)
				memcpy(block + r * k, prev + r * k, n_units * sizeof *block);
			if (h2 > n || u < lag) continue;
			for (uint32_t i = e->start[u - lag]; i < e->start[u - lag + 1]; i++)
				for (uint32_t j = e->start[u]; j < e->start[u + 1]; j++)
					block[(size_t)e->unit[i] * k + e->unit[j]] -= (double)e->count[i] * e->count[j];
		}
	}
}

/* Means of features and targets, and X'Y of the centred data. */
static void moments(const cx_session *s, const cx_events *e, size_t history, double *x_mean,
	double *y_mean, double *xty)
{
	size_t n = e->n_rows, d = s->n_kin;
	for (size_t t = 0; t < n; t++)
		for (size_t c = 0; c < d; c++) y_mean[c] += s->kin[t * d + c] / (double)n;
	for (size_t h = 0; h < history; h++)
		for (size_t t = h; t < n; t++)
			for (uint32_t i = e->start[t - h]; i < e->start[t - h + 1]; i++) {
				size_t k = h * s->n_units + e->unit[i];
				x_mean[k] += e->count[i] / (double)n;
				for (size_t c = 0; c < d; c++)
					xty[k * d + c] += e->count[i] * (s->kin[t * d + c] - y_mean[c]);
			}
	/* The targets are centred, so centring X as well changes nothing in X'Y. */
}

static cx_status fit(const cx_session *s, size_t n_train, cx_wiener *w, double *g, double *xty,
	double *x_mean, double *y_mean, cx_err *err)
{
	size_t k = w->n_features, d = w->n_out;
	cx_events e;
	cx_status st = cx_events_init(&e, &s->alloc, s->spikes, n_train, s->n_units, err);
	if (st != CX_OK) return st;
	gram(g, &e, s->n_units, w->history);
	moments(s, &e, w->history, x_mean, y_mean, xty);
	cx_events_deinit(&e);
	for (size_t i = 0; i < k; i++) {
		for (size_t j = 0; j <= i; j++) g[i * k + j] -= (double)n_train * x_mean[i] * x_mean[j];
		g[i * k + i] += w->ridge;
	}
	if ((st = cx__chol_solve(g, k, xty, d, "wiener fit", err)) != CX_OK) return st;
	for (size_t c = 0; c < d; c++) {
		double b = y_mean[c];
		for (size_t i = 0; i < k; i++) {
			b -= xty[i * d + c] * x_mean[i];
			w->w[c * k + i] = (float)xty[i * d + c];
		}
		w->bias[c] = (float)b;
	}
	return CX_OK;
}

cx_status cx_wiener_fit(
	const cx_session *s, size_t n_train, size_t history, double ridge, cx_wiener *out, cx_err *err)
{
	size_t k, d = s->n_kin;
	double *g = NULL, *xty = NULL, *x_mean = NULL, *y_mean = NULL;
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
	g = cx_calloc(&s->alloc, k * k, sizeof *g);
	xty = cx_calloc(&s->alloc, k * d, sizeof *xty);
	x_mean = cx_calloc(&s->alloc, k, sizeof *x_mean);
	y_mean = cx_calloc(&s->alloc, d, sizeof *y_mean);
	st = out->w && out->bias && g && xty && x_mean && y_mean
			 ? fit(s, n_train, out, g, xty, x_mean, y_mean, err)
			 : CX_FAIL(err, CX_ERR_MEMORY, "wiener fit: %zu features do not fit in memory", k);
	cx_free(&s->alloc, g, k * k * sizeof *g);
	cx_free(&s->alloc, xty, k * d * sizeof *xty);
	cx_free(&s->alloc, x_mean, k * sizeof *x_mean);
	cx_free(&s->alloc, y_mean, d * sizeof *y_mean);
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
