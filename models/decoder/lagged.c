/* lagged.c - see lagged.h. Spike trains are sparse, so sums over bins walk lists of events. */
#include "models/decoder/lagged.h"
#include "models/decoder/linalg.h"

#include <string.h>

static size_t doubles(const cx_lagged *l)
{
	return l->k * l->k + l->k + l->d + l->k * l->d;
}

cx_status cx__lagged_init(cx_lagged *l, const cx_session *s, size_t history, cx_err *err)
{
	size_t k = history * s->n_units;
	*l = (cx_lagged){
		.history = history, .n_units = s->n_units, .k = k, .d = s->n_kin, .alloc = s->alloc};
	l->block = cx_calloc(&l->alloc, doubles(l), sizeof *l->block);
	if (!l->block)
		return CX_FAIL(err, CX_ERR_MEMORY, "wiener fit: %zu features do not fit in memory", k);
	l->gram = l->block;
	l->x = l->gram + k * k;
	l->y = l->x + k;
	l->xy = l->y + l->d;
	return CX_OK;
}

void cx__lagged_deinit(cx_lagged *l)
{
	cx_free(&l->alloc, l->block, doubles(l) * sizeof *l->block);
	memset(l, 0, sizeof *l);
}

bool cx__lagged_valid(const cx_session *s, size_t history, size_t first, size_t t)
{
	if (s->kin_ok && !s->kin_ok[t]) return false;
	if (!s->observed) return true;
	for (size_t h = 0; h < history && t - h + 1 > first; h++)
		if (!s->observed[t - h]) return false;
	return true;
}

/* Adds the outer product of two bins to a block of the matrix: rows a's units, columns b's. */
static void outer(double *block, size_t k, const cx_events *e, size_t a, size_t b, double sign)
{
	for (uint32_t i = e->start[a]; i < e->start[a + 1]; i++) {
		double *row = block + (size_t)e->unit[i] * k, c = sign * e->count[i];
		for (uint32_t j = e->start[b]; j < e->start[b + 1]; j++) row[e->unit[j]] += c * e->count[j];
	}
}

/* Block (h1, h2), h1 >= h2, is the sum over t in [h1, n) of s[t-h1] s[t-h2]'; with u = t-h2 and lag
 * = h1-h2 that is the sum over u in [lag, n-h2) of s[u-lag] s[u]': block (h+1, h2+1) is block (h1,
 * h2) less one term. So only the first column is summed whole. All bins must count. */
static cx_status gram_toeplitz(cx_lagged *l, const cx_events *e, cx_err *err)
{
	size_t k = l->k, units = l->n_units, n = e->n_rows;
	double *g = l->gram;
	for (size_t lag = 0; lag < l->history && lag < n; lag++) {
		double *now = cx_calloc(&l->alloc, units * units, sizeof *now);
		if (!now) return CX_FAIL(err, CX_ERR_MEMORY, "wiener fit: out of memory");
		for (size_t u = lag; u < n; u++) outer(now, units, e, u - lag, u, 1);
		for (size_t h2 = 0; lag + h2 < l->history; h2++) {
			double *block = g + (lag + h2) * units * k + h2 * units;
			size_t gone = n - h2; /* the term that falls out */
			if (h2 > 0 && h2 <= n && gone >= lag) outer(now, units, e, gone - lag, gone, -1);
			for (size_t r = 0; r < units; r++)
				for (size_t c = 0; c < units; c++) block[r * k + c] += now[r * units + c];
		}
		cx_free(&l->alloc, now, units * units * sizeof *now);
	}
	return CX_OK;
}

cx_status cx__lagged_add(cx_lagged *l, const cx_session *s, size_t first, size_t n, cx_err *err)
{
	bool all = !s->kin_ok && !s->observed;
	size_t d = l->d;
	cx_events e;
	cx_status st =
		cx_events_init(&e, &l->alloc, s->spikes + first * s->n_units, n, s->n_units, err);
	if (st != CX_OK) return st;
	if (all) st = gram_toeplitz(l, &e, err);
	for (size_t t = 0; st == CX_OK && t < n; t++) {
		const double *y = s->kin + (first + t) * d;
		if (!cx__lagged_valid(s, l->history, first, first + t)) continue;
		l->n++;
		for (size_t c = 0; c < d; c++) l->y[c] += y[c];
		for (size_t h = 0; h < l->history && h <= t; h++) {
			for (uint32_t i = e.start[t - h]; i < e.start[t - h + 1]; i++) {
				size_t f = h * l->n_units + e.unit[i];
				l->x[f] += e.count[i];
				for (size_t c = 0; c < d; c++) l->xy[f * d + c] += e.count[i] * y[c];
			}
			for (size_t h2 = 0; !all && h2 <= h; h2++)
				outer(
					l->gram + h * l->n_units * l->k + h2 * l->n_units, l->k, &e, t - h, t - h2, 1);
		}
	}
	cx_events_deinit(&e);
	return st;
}

cx_status cx__lagged_solve(const cx_lagged *l, double ridge, double *gram, double *w, double *bias,
	const char *what, cx_err *err)
{
	size_t k = l->k, d = l->d;
	cx_status st;
	if (!(l->n >= 2))
		return CX_FAIL(err, CX_ERR_ARGUMENT, "%s: %g bins with movement are too few", what, l->n);
	for (size_t i = 0; i < k; i++) {
		for (size_t j = 0; j <= i; j++)
			gram[i * k + j] = l->gram[i * k + j] - l->x[i] * l->x[j] / l->n;
		gram[i * k + i] += ridge;
		for (size_t c = 0; c < d; c++) w[i * d + c] = l->xy[i * d + c] - l->x[i] * l->y[c] / l->n;
	}
	if ((st = cx__chol_solve(gram, k, w, d, what, err)) != CX_OK) return st;
	for (size_t c = 0; c < d; c++) {
		double b = l->y[c];
		for (size_t i = 0; i < k; i++) b -= w[i * d + c] * l->x[i];
		bias[c] = b / l->n;
	}
	return CX_OK;
}
