/* diff_metric.c - how far two dense tensors are apart: NMSE, extremes, ulps, the first bad element.
 */
#include "graph/diff.h"
#include "graph/quant.h"

#include <math.h>
#include <string.h>

static double float_at(cx_dtype t, const void *p, int64_t i)
{
	if (t == CX_F16) return cx_f16_to_f32(((const uint16_t *)p)[i]);
	if (t == CX_BF16) return cx_bf16_to_f32(((const uint16_t *)p)[i]);
	return ((const float *)p)[i];
}

/* Bits as an integer that counts upwards with the value. */
static int64_t ordered(cx_dtype t, const void *p, int64_t i)
{
	uint32_t u;
	if (t == CX_F32) {
		memcpy(&u, (const char *)p + 4 * i, 4);
		return u & 0x80000000u ? -(int64_t)(u & 0x7fffffffu) : (int64_t)u;
	}
	u = ((const uint16_t *)p)[i];
	return u & 0x8000u ? -(int64_t)(u & 0x7fffu) : (int64_t)u;
}

static int64_t int_at(cx_dtype t, const void *p, int64_t i)
{
	switch (t) {
	case CX_I64:
		return ((const int64_t *)p)[i];
	case CX_I32:
		return ((const int32_t *)p)[i];
	case CX_I8:
		return ((const int8_t *)p)[i];
	default:
		return ((const uint8_t *)p)[i];
	}
}

static void first(cx_metric *m, int64_t i, double want, double got)
{
	if (m->n_bad++ > 0) return;
	m->first_bad = i;
	m->want = want;
	m->got = got;
}

static void ints(cx_dtype t, const void *want, const void *got, cx_metric *m)
{
	double power = 0, error = 0;
	for (int64_t i = 0; i < m->n; i++) {
		int64_t w = int_at(t, want, i), g = int_at(t, got, i);
		uint64_t d = g > w ? (uint64_t)g - (uint64_t)w : (uint64_t)w - (uint64_t)g;
		power += (double)w * (double)w;
		if (d == 0) continue;
		error += (double)d * (double)d;
		if (d > m->max_ulp) m->max_ulp = d;
		if ((double)d > m->max_abs) m->max_abs = (double)d;
		if (w && (double)d / fabs((double)w) > m->max_rel) m->max_rel = (double)d / fabs((double)w);
		m->n_odd++;
		first(m, i, (double)w, (double)g);
	}
	m->nmse = error > 0 ? error / (power > 0 ? power : 1) : 0;
	m->inside = m->n_odd == 0;
}

static void census(cx_metric *m, double w, double g)
{
	m->nan_want += isnan(w) != 0;
	m->nan_got += isnan(g) != 0;
	m->inf_want += isinf(w) != 0;
	m->inf_got += isinf(g) != 0;
}

void cx__metric(cx_dtype t, int64_t n, const void *want, const void *got, double tol, double slack,
	cx_metric *out)
{
	cx_metric m = {.n = n, .first_bad = -1};
	double power = 0, error = 0, bound;
	int64_t n_finite = 0;
	if (cx_dtype_get(t)->cls != CX_CLASS_FLOAT) {
		ints(t, want, got, &m);
		*out = m;
		return;
	}
	for (int64_t i = 0; i < n; i++) {
		double w = float_at(t, want, i), g = float_at(t, got, i);
		census(&m, w, g);
		if (!isfinite(w) || !isfinite(g)) continue;
		n_finite++;
		power += w * w;
		error += (g - w) * (g - w);
	}
	bound = n_finite ? sqrt(fmax(tol * power / (double)n_finite, slack)) : 0;
	for (int64_t i = 0; i < n; i++) {
		double w = float_at(t, want, i), g = float_at(t, got, i), d = fabs(g - w);
		int64_t u;
		if ((isnan(w) && isnan(g)) || w == g) continue;
		if (!isfinite(w) || !isfinite(g)) {
			m.n_odd++;
			first(&m, i, w, g);
			continue;
		}
		u = ordered(t, got, i) - ordered(t, want, i);
		if ((uint64_t)(u < 0 ? -u : u) > m.max_ulp) m.max_ulp = (uint64_t)(u < 0 ? -u : u);
		m.max_abs = fmax(m.max_abs, d);
		if (w != 0) m.max_rel = fmax(m.max_rel, d / fabs(w));
		if (!(d <= bound)) first(&m, i, w, g);
	}
	/* A reference of zeros: any error is all of it. */
	m.nmse = error > 0 ? (power > 0 ? error / power : INFINITY) : 0;
	m.inside = m.n_odd == 0 && error <= fmax(tol * power, slack * (double)n_finite);
	if (m.inside) m.n_bad = 0, m.first_bad = -1;
	*out = m;
}
