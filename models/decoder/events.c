/* events.c - see events.h. */
#include "models/decoder/events.h"

#include <math.h>
#include <string.h>

cx_status cx_bin_spikes(const double *times, size_t n, size_t n_bins, double bin, double t0,
	int32_t *counts, cx_err *err)
{
	double end;
	if (n_bins < 1 || n_bins > UINT32_MAX)
		return CX_FAIL(
			err, CX_ERR_ARGUMENT, "binning: n_bins is %zu; at least 1 is wanted", n_bins);
	if (!(bin > 0) || !isfinite(bin) || !isfinite(t0))
		return CX_FAIL(err, CX_ERR_ARGUMENT,
			"binning: bins of %g s from %g s; a width above 0 is wanted", bin, t0);
	end = t0 + (double)n_bins * bin;
	for (size_t i = 0; i < n; i++) {
		double t = times[i], k;
		if (!(t >= t0 && t <= end)) continue;
		k = floor((t - t0) / bin);
		/* The edges are t0 + k bin as rounded; the quotient may land one beside. */
		if (k > 0 && t < t0 + k * bin) k--;
		else if (t >= t0 + (k + 1) * bin) k++;
		if (k >= (double)n_bins) k = (double)n_bins - 1;
		if (counts[(size_t)k] < INT32_MAX) counts[(size_t)k]++;
	}
	return CX_OK;
}

cx_status cx_events_init(cx_events *e, const cx_alloc *alloc, const uint8_t *counts, size_t n_rows,
	size_t n_units, cx_err *err)
{
	size_t n = 0;
	memset(e, 0, sizeof *e);
	e->alloc = alloc ? *alloc : cx_alloc_default();
	e->n_rows = n_rows;
	for (size_t i = 0; i < n_rows * n_units; i++) n += counts[i] != 0;
	e->n = n;
	e->start = cx_malloc(&e->alloc, (n_rows + 1) * sizeof *e->start);
	e->unit = cx_malloc(&e->alloc, (n + 1) * sizeof *e->unit);
	e->count = cx_malloc(&e->alloc, n + 1);
	if (!e->start || !e->unit || !e->count || n > INT32_MAX) {
		cx_events_deinit(e);
		return CX_FAIL(err, CX_ERR_MEMORY, "events: %zu do not fit in memory", n);
	}
	n = 0;
	for (size_t t = 0; t < n_rows; t++) {
		e->start[t] = (uint32_t)n;
		for (size_t u = 0; u < n_units; u++)
			if (counts[t * n_units + u]) {
				e->unit[n] = (uint16_t)u;
				e->count[n++] = counts[t * n_units + u];
			}
	}
	e->start[n_rows] = (uint32_t)n;
	return CX_OK;
}

void cx_events_deinit(cx_events *e)
{
	cx_free(&e->alloc, e->start, (e->n_rows + 1) * sizeof *e->start);
	cx_free(&e->alloc, e->unit, (e->n + 1) * sizeof *e->unit);
	cx_free(&e->alloc, e->count, e->n + 1);
	memset(e, 0, sizeof *e);
}
