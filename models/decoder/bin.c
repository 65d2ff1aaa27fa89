/* bin.c - a recording on a grid of bins. See protocol.h, cx_session_bin(). */
#include "models/decoder/events.h"
#include "models/decoder/protocol.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* A sample on an edge belongs to the bin that begins there, however its time was rounded. */
#define EDGE 1e-6

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return (x > y) - (x < y);
}

/* Median of the first 1000 intervals between samples. */
static double sample_seconds(const cx_recording *r)
{
	double d[1000];
	size_t n = r->n_samples - 1 < 1000 ? r->n_samples - 1 : 1000;
	for (size_t i = 0; i < n; i++) d[i] = r->kin_time[i + 1] - r->kin_time[i];
	if (n == 0) return 0;
	qsort(d, n, sizeof *d, by_value);
	return d[n / 2];
}

/* Marks the bins that lie in an interval of every kept unit. */
static cx_status observed(const cx_recording *r, bool heldout, cx_session *s, cx_err *err)
{
	uint32_t *stamp, *units; /* per bin: the last unit that covered it, and how many did */
	size_t n = s->n_bins, u = 0;
	cx_status st = CX_OK;
	if (r->n_obs == 0) return CX_OK;
	stamp = cx_calloc(&s->alloc, n, sizeof *stamp);
	units = cx_calloc(&s->alloc, n, sizeof *units);
	s->observed = cx_calloc(&s->alloc, n, 1);
	if (!stamp || !units || !s->observed) {
		st = CX_FAIL(err, CX_ERR_MEMORY, "%s: out of memory", r->label);
		goto done;
	}
	for (size_t i = 0; i < r->n_units; i++) {
		uint64_t first = i ? r->obs_end[i - 1] : 0;
		if (r->heldout[i] && !heldout) continue;
		u++;
		for (uint64_t k = first; k < r->obs_end[i]; k++) {
			double a = ceil((r->obs[2 * k] - s->t0) / s->bin_seconds - EDGE);
			double b = floor((r->obs[2 * k + 1] - s->t0) / s->bin_seconds + EDGE);
			for (double t = a > 0 ? a : 0; t < b && t < (double)n; t++) {
				size_t j = (size_t)t;
				if (stamp[j] == u) continue;
				stamp[j] = (uint32_t)u;
				units[j]++;
			}
		}
	}
	for (size_t t = 0; t < n; t++) {
		s->observed[t] = units[t] == u;
		if (!s->observed[t]) memset(s->spikes + t * s->n_units, 0, s->n_units);
	}
done:
	cx_free(&s->alloc, stamp, n * sizeof *stamp);
	cx_free(&s->alloc, units, n * sizeof *units);
	return st;
}

static cx_status counts(const cx_recording *r, bool heldout, cx_session *s, cx_err *err)
{
	int32_t *bins = cx_malloc(&s->alloc, s->n_bins * sizeof *bins);
	size_t u = 0;
	cx_status st = CX_OK;
	if (!bins) return CX_FAIL(err, CX_ERR_MEMORY, "%s: out of memory", r->label);
	for (size_t i = 0; st == CX_OK && i < r->n_units; i++) {
		size_t n;
		const double *times = cx_recording_unit(r, i, &n);
		if (r->heldout[i] && !heldout) continue;
		memset(bins, 0, s->n_bins * sizeof *bins);
		st = cx_bin_spikes(times, n, s->n_bins, s->bin_seconds, s->t0, bins, err);
		for (size_t t = 0; st == CX_OK && t < s->n_bins; t++) {
			if (bins[t] > 255)
				st = CX_FAIL(err, CX_ERR_ARGUMENT,
					"%s: unit %zu fires %d times in bin %zu; 255 fit, so take shorter bins",
					r->label, i, (int)bins[t], t);
			s->spikes[t * s->n_units + u] = (uint8_t)bins[t];
		}
		u++;
	}
	cx_free(&s->alloc, bins, s->n_bins * sizeof *bins);
	return st;
}

/* Means of the samples in each bin. */
static void average(const cx_recording *r, double seconds, cx_session *s)
{
	size_t d = s->n_kin, need = (size_t)ceil(0.5 * s->bin_seconds / seconds - EDGE), i = 0;
	for (size_t t = 0; t < s->n_bins; t++) {
		double *y = s->kin + t * d, end = (double)(t + 1) - EDGE;
		size_t n = 0;
		bool whole = true;
		for (; i < r->n_samples && (r->kin_time[i] - s->t0) / s->bin_seconds < end; i++, n++)
			for (size_t c = 0; c < d; c++) {
				y[c] += r->kin[i * d + c];
				whole = whole && isfinite(r->kin[i * d + c]);
			}
		s->kin_ok[t] = n > 0 && n >= need && whole;
		for (size_t c = 0; c < d; c++) y[c] = s->kin_ok[t] ? y[c] / (double)n : 0;
	}
}

/* For samples rarer than bins. */
static void interpolate(const cx_recording *r, double seconds, cx_session *s)
{
	size_t d = s->n_kin, i = 0;
	for (size_t t = 0; t < s->n_bins; t++) {
		double middle = s->t0 + ((double)t + 0.5) * s->bin_seconds, a, gap;
		bool ok;
		while (i + 1 < r->n_samples && r->kin_time[i + 1] <= middle) i++;
		ok = i + 1 < r->n_samples;
		gap = ok ? r->kin_time[i + 1] - r->kin_time[i] : 0;
		ok = ok && gap <= 1.5 * seconds;
		a = ok ? (middle - r->kin_time[i]) / gap : 0;
		for (size_t c = 0; c < d; c++) {
			double y = ok ? (1 - a) * r->kin[i * d + c] + a * r->kin[(i + 1) * d + c] : 0;
			ok = ok && isfinite(y);
			s->kin[t * d + c] = y;
		}
		s->kin_ok[t] = ok;
		if (!ok) memset(s->kin + t * d, 0, d * sizeof *s->kin);
	}
}

cx_status cx_session_bin(const cx_recording *r, double bin_seconds, bool heldout,
	const cx_alloc *alloc, cx_session *s, cx_err *err)
{
	size_t units = 0;
	double seconds, n;
	cx_status st;
	memset(s, 0, sizeof *s);
	for (size_t u = 0; u < r->n_units; u++) units += heldout || !r->heldout[u];
	if (!(bin_seconds >= 1e-4 && bin_seconds <= 10))
		return CX_FAIL(
			err, CX_ERR_ARGUMENT, "bins of %g s; 0.0001 to 10 are possible", bin_seconds);
	if (r->n_samples < 2)
		return CX_FAIL(err, CX_ERR_FORMAT,
			"%s: there is no movement in it (/processing/behavior/hand_vel): nothing to decode",
			r->label);
	if (units == 0) return CX_FAIL(err, CX_ERR_FORMAT, "%s: every unit is held out", r->label);
	n = floor((r->kin_time[r->n_samples - 1] - r->kin_time[0]) / bin_seconds);
	if (!(n < 1e9))
		return CX_FAIL(err, CX_ERR_FORMAT, "%s: time stamps from %g to %g s make too many bins",
			r->label, r->kin_time[0], r->kin_time[r->n_samples - 1]);
	st = cx_session_init(s, alloc, n < 1 ? 1 : (size_t)n, units, r->n_kin, false, err);
	if (st != CX_OK) return st;
	s->bin_seconds = bin_seconds;
	s->t0 = r->kin_time[0];
	memcpy(s->kin_name, r->kin_name, sizeof s->kin_name);
	s->kin_ok = cx_calloc(&s->alloc, s->n_bins, 1);
	if (!s->kin_ok) st = CX_FAIL(err, CX_ERR_MEMORY, "%s: out of memory", r->label);
	if (st == CX_OK) st = counts(r, heldout, s, err);
	if (st == CX_OK) st = observed(r, heldout, s, err);
	if (st != CX_OK) {
		cx_session_deinit(s);
		return st;
	}
	seconds = sample_seconds(r);
	if (seconds <= bin_seconds * (1 + EDGE)) average(r, seconds, s);
	else interpolate(r, seconds, s);
	return CX_OK;
}
