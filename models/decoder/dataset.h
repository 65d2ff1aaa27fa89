/* dataset.h - windows of spikes and the movement to decode from them, from any source, for training
 * and for tests.
 *
 * In: sessions (NWB, a folder or pair of NPY files, MATLAB, simulated). Out: three parts (train,
 * val, test) of windows; a batch of windows as ragged events, or as dense counts.
 *
 * A window is `window` consecutive bins of one session. Its events are the non-empty cells (bin,
 * unit); neuron = the unit's number plus its session's offset (sessions are numbered one after
 * another, spec/decoder.md 4.4), time = bin relative to the window's first one, in [0, window),
 * value = count cut to [1, buckets - 1]. Bins before the recording's start are silent. Windows
 * never reach past its end, over bins that were not observed, or have a target without kinematics;
 * how many were dropped for each reason is counted.
 *
 * No leakage: parts are blocks of time, and a part of earlier data gives up the windows that share
 * a bin with a later part, so that no spike is in two parts. The constants of the z-score come from
 * train alone and are stored here (spec 8, items 8, 9 and 22). */
#ifndef CX_DECODER_DATASET_H
#define CX_DECODER_DATASET_H

#include "models/decoder/recording.h"
#include "models/decoder/session.h"

typedef enum cx_part { CX_PART_TRAIN, CX_PART_VAL, CX_PART_TEST, CX_PART_COUNT } cx_part;

typedef enum cx_protocol {
	CX_PROTOCOL_CONTINUOUS, /* every stride-th bin, blocks of time; target: the decoded bin's */
	CX_PROTOCOL_TRIAL, /* spec 4.5: one window per trial around movement onset, its trial split */
	CX_PROTOCOL_NLB,   /* every bin of -250..+450 ms around onset, target lag ahead, trial split */
	CX_PROTOCOL_COUNT
} cx_protocol;

typedef struct cx_dataset_opts {
	cx_protocol protocol;
	double bin_seconds; /* of recordings in continuous time; binned sources keep their bins */
	uint32_t window;    /* bins, 1..1024 */
	uint32_t ahead;     /* bins of the window after the decoded one; 0 is causal. < window */
	uint32_t
		stride; /* bins between decoded bins of train; val and test take every bin. Trial: unused */
	uint32_t buckets;     /* value vocabulary, 2..256: a count is cut to buckets - 1 */
	uint32_t max_neurons; /* 0: no limit. More units: an error ("exceeds max_neurons") */
	double train, val;    /* fractions of time, the rest is test; continuous protocol */
	double lag_seconds;   /* NLB: the target is the movement that much later */
	bool heldout;         /* also units that the file marks as held out */
	bool all_columns;     /* decode every kinematic column; else the two of velocity */
} cx_dataset_opts;

/* Continuous, 50 ms bins, 20 of them, causal, stride 1, 8 buckets, 70/10/20 %. */
CX_API cx_dataset_opts cx_dataset_default(void);
/* The named protocol with the numbers that the specification gives it. */
CX_API cx_dataset_opts cx_dataset_protocol(cx_protocol p);

enum { CX_MAX_BEHAVIOR = 8 };

/* What a dataset is; numbers only, for configurations, checkpoints and reports. */
typedef struct cx_dataset_info {
	uint32_t n_sessions, n_units; /* of all sessions */
	uint32_t behavior_dim;
	uint32_t window, ahead, buckets;
	double bin_seconds;                                /* 0: unknown */
	char name[CX_MAX_BEHAVIOR][16];                    /* of the decoded columns */
	double mean[CX_MAX_BEHAVIOR], sd[CX_MAX_BEHAVIOR]; /* z-score: (y - mean) / sd; sd >= 1e-6 */
	uint32_t n_windows[CX_PART_COUNT];
	uint32_t max_events[CX_PART_COUNT]; /* in a window */
	uint32_t dropped_kin;               /* decoded bins without usable kinematics (a gap, NaN) */
	uint32_t dropped_obs;               /* windows over time that was not observed */
	uint32_t dropped_edge;              /* windows past the end, or trials without onset */
	uint32_t dropped_gap;               /* windows given up between parts */
} cx_dataset_info;

typedef struct cx_dataset cx_dataset;

/* Adds sources one by one, then closes the list. Paths: FILE.nwb, FILE.mat, a folder with
 * spikes*.npy and kinematics*.npy (or with *.nwb files: all of them, sorted), or
 * "SPIKES.npy,KINEMATICS.npy". On failure the dataset stays usable only for cx_dataset_free(). */
CX_API cx_status cx_dataset_create(
	const cx_dataset_opts *opts, const cx_alloc *alloc, cx_dataset **out, cx_err *err);
CX_API cx_status cx_dataset_add_path(cx_dataset *d, const char *path, cx_err *err);
/* Takes s over and leaves it zeroed, also on failure. */
CX_API cx_status cx_dataset_add_session(cx_dataset *d, cx_session *s, cx_err *err);
/* Bins the recording, which stays the caller's. */
CX_API cx_status cx_dataset_add_recording(cx_dataset *d, const cx_recording *r, cx_err *err);
/* Cuts the windows and takes the z-score. An error if there is no train window, units are missing,
 * or sessions differ in bins or columns. */
CX_API cx_status cx_dataset_finish(cx_dataset *d, cx_err *err);
CX_API void cx_dataset_free(cx_dataset *d); /* NULL and half-built are fine */

CX_API const cx_dataset_info *cx_dataset_get_info(const cx_dataset *d);
/* Replaces the constants (those of a checkpoint, say). */
CX_API cx_status cx_dataset_set_scale(
	cx_dataset *d, const double *mean, const double *sd, uint32_t n, cx_err *err);
/* The sessions, in order of adding; offset: number of their first unit. Owned by the dataset. */
CX_API const cx_session *cx_dataset_session(const cx_dataset *d, uint32_t i, uint32_t *offset);

/* A permutation of [0, n_windows(part)) into order: a function of (seed, epoch) alone. */
CX_API void cx_dataset_order(
	const cx_dataset *d, cx_part part, uint64_t seed, uint64_t epoch, uint32_t *order);

/* Ragged batch. off, neuron, time, value are the caller's; off[0] = 0. */
typedef struct cx_batch {
	int32_t *off;                   /* [B + 1] */
	int32_t *neuron, *time, *value; /* [cap_events]; time-major in a window, then unit */
	float *target;                  /* [B, behavior_dim], z-scored */
	uint32_t cap_events;
} cx_batch;

/* Windows which[0..n) of a part. n_events (may be NULL) is how many there are in all; with too
 * little room nothing but n_events is written and the result is ARGUMENT. B * max_events
 * suffices. */
CX_API cx_status cx_dataset_fill(const cx_dataset *d, cx_part part, const uint32_t *which,
	uint32_t n, cx_batch *out, uint32_t *n_events, cx_err *err);
/* The same windows dense: x [n, window, n_units] f32 counts (not cut), target [n, behavior_dim]
 * z-scored; either may be NULL. */
CX_API cx_status cx_dataset_dense(const cx_dataset *d, cx_part part, const uint32_t *which,
	uint32_t n, float *x, float *target, cx_err *err);
/* Where window i lies: its session and decoded bin (trial protocol: the bin of onset). */
CX_API void cx_dataset_place(
	const cx_dataset *d, cx_part part, uint32_t i, uint32_t *session, uint32_t *bin);
/* True movement of window i in the recording's units; y [behavior_dim]. */
CX_API void cx_dataset_truth(const cx_dataset *d, cx_part part, uint32_t i, double *y);
/* Bayes-optimal decoding of the same, NaN where it is not known. */
CX_API void cx_dataset_bayes(const cx_dataset *d, cx_part part, uint32_t i, double *y);

#endif
