/* calibrate.h - how far the activations of a layer reach, and where to cut them for int8.
 *
 * In: the activations, batch by batch. Out: thresholds; int8 is x / act_scale(threshold), and what
 * lies beyond is cut to 127. Two ways to choose:
 *	percentile  the 99th percentile of the batches' largest magnitudes (spec/decoder.md 3.2)
 *	entropy     the cut whose 128 levels tell least apart from the distribution of magnitudes, by
 *				the divergence of Kullback and Leibler (Migacz, 8-bit inference with TensorRT, 2017)
 *
 * The histogram's bins are a power of two wide, and all batches' magnitudes fill more than half of
 * them: 2049 to 4096 are in use. So its range may grow by merging pairs, and the result does not
 * depend on the order of the batches. */
#ifndef CX_DECODER_CALIBRATE_H
#define CX_DECODER_CALIBRATE_H

#include "graph/base.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { CX_CALIB_BINS = 4096, CX_CALIB_LEVELS = 128, CX_CALIB_MAX_BATCHES = 1024 };

/* Zeroed is a start: no batch seen. */
typedef struct cx_calib {
	uint32_t n_batches;
	float batch_max[CX_CALIB_MAX_BATCHES];
	float abs_max;
	float range; /* of the histogram: a power of two above abs_max; 0: abs_max is 0 */
	uint64_t bin[CX_CALIB_BINS]; /* magnitudes in [i, i + 1) * range / CX_CALIB_BINS */
} cx_calib;

/* One batch of n activations. ARGUMENT, and nothing changed: one of them is not finite, or there
 * were CX_CALIB_MAX_BATCHES batches. */
CX_API cx_status cx_calib_add(cx_calib *c, const float *x, uint64_t n, cx_err *err);
/* Of the sorted largest magnitudes number max(0, floor(0.99 n) - 1); 1 if there was no batch. */
CX_API float cx_calib_percentile(const cx_calib *c);
/* At most abs_max; 1 if there was no batch, 0 if all was 0. */
CX_API float cx_calib_entropy(const cx_calib *c);
/* max(threshold, 1e-8) / 127 */
CX_API float cx_calib_scale(float threshold);

/* The divergence for a cut behind bin n_used - 1, at least CX_CALIB_LEVELS: of P, bins 0..n_used-1
 * with all that lies beyond added to the last, from Q, what is left of the bins alone when each of
 * 128 runs of them is replaced by its mean over its bins that are not empty. Infinite where Q has
 * nothing and P has. */
CX_API double cx_calib_divergence(const cx_calib *c, uint32_t n_used);

#ifdef __cplusplus
}
#endif
#endif
