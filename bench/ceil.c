/* ceil.c - clock and quantiles of the benchmarks; the ceilings themselves are backends/cpu/ceil.c.
 */
#include "bench/ceil.h"

#include <stdlib.h>
#include <time.h>

double cx__now_us(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec * 1e6 + (double)t.tv_nsec * 1e-3;
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return (x > y) - (x < y);
}
double cx__quantile(double *t, int n, double q)
{
	qsort(t, (size_t)n, sizeof *t, by_value);
	return t[(int)(q * (n - 1) + 0.5)];
}
