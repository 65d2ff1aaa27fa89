/* calibrate.c - see calibrate.h.
 *
 * The divergence needs no pass over the bins: with T counts in all, C of them inside the cut, p in
 * its last bin with all beyond, and of run l the counts s, the bins that are not empty z, and s'
 * the counts with all beyond in the last run,
 *	KL = (sum c ln c of the bins before the last + p ln p) / T - ln T
 *		- sum over l of s' ln(s / z) / T + ln C
 * and sums over bins are differences of running sums. So every cut is tried. */
#include "models/decoder/calibrate.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- collecting ---- */

static void double_range(cx_calib *c)
{
	for (int i = 0; i < CX_CALIB_BINS / 2; i++) c->bin[i] = c->bin[2 * i] + c->bin[2 * i + 1];
	memset(c->bin + CX_CALIB_BINS / 2, 0, sizeof c->bin / 2);
	c->range *= 2;
}

/* Smallest power of two above x > 0; an infinite one would be of no use, and FLT_MAX's is. */
static float power_above(float x)
{
	int e;
	(void)frexpf(x, &e); /* x < 2^e */
	return e > 127 ? 0x1p127f : ldexpf(1, e < -110 ? -110 : e);
}

cx_status cx_calib_add(cx_calib *c, const float *x, uint64_t n, cx_err *err)
{
	float top = 0, per;
	if (c->n_batches == CX_CALIB_MAX_BATCHES)
		return CX_FAIL(
			err, CX_ERR_ARGUMENT, "calibration: more than %d batches", (int)CX_CALIB_MAX_BATCHES);
	for (uint64_t i = 0; i < n; i++) {
		float a = fabsf(x[i]);
		if (!(a < INFINITY))
			return CX_FAIL(err, CX_ERR_ARGUMENT, "calibration: activation %llu of batch %u is %g",
				(unsigned long long)i, c->n_batches, (double)x[i]);
		top = a > top ? a : top;
	}
	c->batch_max[c->n_batches++] = top;
	if (top > c->abs_max) {
		float range = power_above(top);
		c->abs_max = top;
		if (c->range == 0) c->range = range; /* zeros are in bin 0 of any range */
		while (c->range < range) double_range(c);
	}
	per = c->range > 0 ? CX_CALIB_BINS / c->range : 0; /* exact: powers of two */
	for (uint64_t i = 0; i < n; i++) {
		float at = fabsf(x[i]) * per;
		c->bin[at < CX_CALIB_BINS ? (int)at : CX_CALIB_BINS - 1]++;
	}
	return CX_OK;
}

/* ---- percentile ---- */

static int by_size(const void *a, const void *b)
{
	float x = *(const float *)a, y = *(const float *)b;
	return (x > y) - (x < y);
}

float cx_calib_percentile(const cx_calib *c)
{
	float sorted[CX_CALIB_MAX_BATCHES];
	uint32_t at = c->n_batches * 99 / 100;
	if (c->n_batches == 0) return 1;
	memcpy(sorted, c->batch_max, sizeof sorted);
	qsort(sorted, c->n_batches, sizeof *sorted, by_size);
	return sorted[at > 0 ? at - 1 : 0];
}

/* ---- entropy ---- */

typedef struct sums { /* of bins 0..i-1 */
	double count[CX_CALIB_BINS + 1], log[CX_CALIB_BINS + 1];
	uint32_t full[CX_CALIB_BINS + 1];
} sums;

static double x_log_x(double x)
{
	return x > 0 ? x * log(x) : 0;
}

static void sum_up(const cx_calib *c, sums *s)
{
	s->count[0] = s->log[0] = 0;
	s->full[0] = 0;
	for (int i = 0; i < CX_CALIB_BINS; i++) {
		s->count[i + 1] = s->count[i] + (double)c->bin[i];
		s->log[i + 1] = s->log[i] + x_log_x((double)c->bin[i]);
		s->full[i + 1] = s->full[i] + (c->bin[i] > 0);
	}
}

static double divergence(const cx_calib *c, const sums *s, uint32_t n)
{
	double total = s->count[CX_CALIB_BINS], beyond = total - s->count[n], cross = 0, p;
	p = (double)c->bin[n - 1] + beyond;
	if (s->count[n] == 0 || (c->bin[n - 1] == 0 && beyond > 0)) return INFINITY;
	for (uint32_t l = 0; l < CX_CALIB_LEVELS; l++) {
		uint32_t from = l * n / CX_CALIB_LEVELS, to = (l + 1) * n / CX_CALIB_LEVELS;
		double in = s->count[to] - s->count[from];
		double more = l + 1 == CX_CALIB_LEVELS ? beyond : 0;
		if (in > 0) cross += (in + more) * log(in / (s->full[to] - s->full[from]));
	}
	return (s->log[n - 1] + x_log_x(p) - cross) / total - log(total) + log(s->count[n]);
}

double cx_calib_divergence(const cx_calib *c, uint32_t n_used)
{
	sums s;
	CX_ASSERT(n_used >= CX_CALIB_LEVELS && n_used <= CX_CALIB_BINS);
	sum_up(c, &s);
	return divergence(c, &s, n_used);
}

float cx_calib_entropy(const cx_calib *c)
{
	double least = INFINITY;
	uint32_t best = CX_CALIB_BINS, last = CX_CALIB_BINS;
	float cut;
	sums s;
	if (c->n_batches == 0) return 1;
	if (c->range == 0) return 0;
	sum_up(c, &s);
	while (last > CX_CALIB_LEVELS && c->bin[last - 1] == 0) last--;
	for (uint32_t n = CX_CALIB_LEVELS; n <= last; n++) {
		double d = divergence(c, &s, n);
		if (d < least) {
			least = d;
			best = n;
		}
	}
	cut = ((float)best + 0.5f) * (c->range / CX_CALIB_BINS);
	return cut < c->abs_max ? cut : c->abs_max;
}

float cx_calib_scale(float threshold)
{
	return (threshold > 1e-8f ? threshold : 1e-8f) / 127;
}
