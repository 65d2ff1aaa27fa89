/* events.h - spike times to counts, counts to events: the primitives of spec/decoder.md 4.3. */
#ifndef CX_DECODER_EVENTS_H
#define CX_DECODER_EVENTS_H

#include "graph/base.h"

/* counts[k] += spikes in [t0 + k bin, t0 + (k+1) bin), k < n_bins; the last edge of all is
 * inclusive, spikes outside are passed over. times need no order. n_bins >= 1, bin_seconds > 0. */
cx_status cx_bin_spikes(const double *times, size_t n, size_t n_bins, double bin_seconds, double t0,
	int32_t *counts, cx_err *err);

/* clip(count, 0, buckets - 1). */
static inline int64_t cx_bucket(int64_t count, int64_t buckets)
{
	return count < 0 ? 0 : count > buckets - 1 ? buckets - 1 : count;
}

/* Windows that start at 0, stride, 2 stride ... and fit into n; 0 if none does. window, stride >=
 * 1. */
static inline size_t cx_window_count(size_t n, size_t window, size_t stride)
{
	return n < window ? 0 : (n - window) / stride + 1;
}

/* The non-zero cells of counts [n_rows, n_units], row by row: row t holds cells start[t] to
 * start[t+1]. */
typedef struct cx_events {
	uint32_t *start; /* [n_rows + 1] */
	uint16_t *unit;  /* [n], ascending in a row */
	uint8_t *count;  /* [n], at least 1 */
	size_t n, n_rows;
	cx_alloc alloc;
} cx_events;

cx_status cx_events_init(cx_events *e, const cx_alloc *alloc, const uint8_t *counts, size_t n_rows,
	size_t n_units, cx_err *err);
void cx_events_deinit(cx_events *e); /* zeroed is fine */

#endif
