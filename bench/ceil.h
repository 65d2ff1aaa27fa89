/* ceil.h - ceilings of this machine (backends/cpu/ceil.h), the clock, and quantiles. */
#ifndef CX_BENCH_CEIL_H
#define CX_BENCH_CEIL_H

#include "backends/cpu/ceil.h"

double cx__now_us(void); /* monotonic */
/* Sorts t and gives its quantile q in 0..1. */
double cx__quantile(double *t, int n, double q);

#endif
