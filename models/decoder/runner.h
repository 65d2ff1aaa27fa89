/* runner.h - decodes ragged batches of any size with a Cortex decoder: a plan per bucket, made when
 * first needed, over one store.
 *
 * A batch is cut into runs of 2^k windows, so no window is computed that was not asked for; room
 * for events is rounded up by an eighth at most. What a window decodes to does not depend on its
 * batch, bit for bit, on devices whose kernels promise that (ref and cpu). */
#ifndef CX_DECODER_RUNNER_H
#define CX_DECODER_RUNNER_H

#include "models/decoder/cortex.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct cx_cortex_runner cx_cortex_runner;

/* src: weights of a bound model (cx_cortex_bind, cx_cortex_get_source), or the states of a trainer
 * that lives on dev; its ctx, dev and store must outlive the runner. max_windows: of one run, at
 * least 1; larger batches take several. */
CX_API cx_status cx_cortex_runner_create(const cx_cortex_config *c, const cx_cortex_source *src,
	cx_device *dev, cx_store *store, int64_t max_windows, const cx_alloc *alloc,
	cx_cortex_runner **out, cx_err *err);
CX_API void cx_cortex_runner_free(cx_cortex_runner *r); /* NULL is fine */

/* behavior [n_windows, behavior_dim], z-scored. Window w has events off[w] to off[w+1]-1; events
 * that the model cannot take are an error that names window, event and field, and nothing is run.
 * Allocates only for a bucket that was not there yet. */
CX_API cx_status cx_cortex_runner_run(cx_cortex_runner *r, const int32_t *off, int64_t n_windows,
	const int32_t *neuron, const int32_t *time, const int32_t *value, float *behavior, cx_err *err);
/* Makes the buckets of a batch of this size, so that the first run of it is like any other. */
CX_API cx_status cx_cortex_runner_warm(
	cx_cortex_runner *r, int64_t n_windows, int64_t n_events, cx_err *err);
/* Plan of the bucket for so many windows (the largest 2^k of them) and events; NULL: not made. */
CX_API const cx_plan *cx_cortex_runner_plan(
	const cx_cortex_runner *r, int64_t n_windows, int64_t n_events);
CX_API size_t cx_cortex_runner_n_buckets(const cx_cortex_runner *r);

#ifdef __cplusplus
}
#endif
#endif
