/* mask.h - what the masked-spike head is trained on: events dropped from a batch, and silent cells
 * (spec/decoder.md 1.8; the head itself is in cortex.h). */
#ifndef CX_DECODER_MASK_H
#define CX_DECODER_MASK_H

#include "graph/base.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct cx_mask_opts {
	double fraction; /* of a window's events that are dropped and asked for, 0..1; each by itself */
	double silent;   /* silent cells that are asked for, per dropped event, 0..16 */
	int32_t n_time;  /* bins of a window: silent cells are drawn from [0, n_time) */
	int32_t n_neurons; /* and from neurons [0, n_neurons), unless a window says otherwise */
	uint64_t seed;
} cx_mask_opts;
CX_API cx_mask_opts cx_mask_default(void); /* 0.15, 1, and the caller's n_time and n_neurons */

/* A ragged batch, cut down in place. A cell (neuron, time) has at most one event in a window. */
typedef struct cx_mask_batch {
	uint32_t n_windows;
	int32_t *off;                   /* [n_windows + 1] */
	int32_t *neuron, *time, *value; /* [off[n_windows]] */
	/* May be NULL: the draw of window b is a function of seed and id[b] alone (default: b), so that
	 * it does not depend on batches or processes. */
	const uint64_t *id;
	const int32_t *first_neuron, *window_neurons; /* may be NULL: the units of b's session */
} cx_mask_batch;

typedef struct cx_mask_queries {
	uint32_t cap;                    /* room */
	int32_t *off;                    /* [n_windows + 1] */
	int32_t *neuron, *time, *target; /* [cap]; target: the event's value, 0 for a silent cell */
} cx_mask_queries;

/* Drops and draws. The k-th dropped event brings floor(k silent) - floor((k-1) silent) silent
 * cells, fewer if eight draws in a row hit cells with events. With too little room, or options out
 * of range: ARGUMENT, and nothing was changed. (1 + silent) * events is room enough. */
CX_API cx_status cx_mask_apply(
	const cx_mask_opts *opts, cx_mask_batch *batch, cx_mask_queries *out, cx_err *err);

#ifdef __cplusplus
}
#endif
#endif
