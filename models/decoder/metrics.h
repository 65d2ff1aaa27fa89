/* metrics.h - how well a decoded movement fits the true one. */
#ifndef CX_DECODER_METRICS_H
#define CX_DECODER_METRICS_H

#include "graph/base.h"

/* R2 per output column (spec/decoder.md 4.6): 1 - SSE / max(SST, 1e-8), SST around the mean of
 * `truth`; 0 where SST < 1e-12. truth, decoded [n,d] row-major; r2 [d]. Returns the plain mean over
 * columns. NaN anywhere in a column gives NaN for it; n == 0 gives 0. */
double cx_r2(const double *truth, const double *decoded, size_t n, size_t d, double *r2);

#endif
