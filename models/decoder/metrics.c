/* metrics.c - R2 of decoded movement. See metrics.h. */
#include "models/decoder/metrics.h"

#include <math.h>

double cx_r2(const double *truth, const double *decoded, size_t n, size_t d, double *r2)
{
	double total = 0;
	for (size_t c = 0; c < d; c++) {
		double mean = 0, sse = 0, sst = 0;
		for (size_t i = 0; i < n; i++) mean += truth[i * d + c];
		mean = n ? mean / (double)n : 0;
		for (size_t i = 0; i < n; i++) {
			double e = truth[i * d + c] - decoded[i * d + c], s = truth[i * d + c] - mean;
			sse += e * e;
			sst += s * s;
		}
		if (isnan(sse) || isnan(sst)) r2[c] = NAN;
		else r2[c] = sst < 1e-12 ? 0 : 1 - sse / (sst > 1e-8 ? sst : 1e-8);
		total += r2[c];
	}
	return d ? total / (double)d : 0;
}
