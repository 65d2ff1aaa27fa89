/* recording.h - a recording in continuous time: when each unit fired, and samples of what the hand
 * did.
 *
 * Times are seconds on one clock. Kinematic samples are in ascending time and may have gaps. */
#ifndef CX_DECODER_RECORDING_H
#define CX_DECODER_RECORDING_H

#include "graph/base.h"

typedef enum cx_trial_split {
	CX_TRIAL_TRAIN,
	CX_TRIAL_VAL,
	CX_TRIAL_TEST,
	CX_TRIAL_NONE
} cx_trial_split;

typedef struct cx_trial {
	double start, stop, onset; /* NaN: not in the file. start <= stop where both are */
	cx_trial_split split;
} cx_trial;

typedef struct cx_recording {
	cx_arena arena;    /* owns every pointer below */
	const char *label; /* for messages */
	size_t n_units, n_spikes;
	double *spikes;     /* [n_spikes] of unit 0, then 1 ... */
	uint64_t *unit_end; /* [n_units] end offset in spikes */
	bool *heldout;      /* [n_units] */
	size_t n_obs;
	double *obs; /* [n_obs, 2] of unit 0, then 1 ...; start <= end. n_obs 0: observed throughout */
	uint64_t *obs_end;       /* [n_units] */
	size_t n_samples, n_kin; /* 0: no kinematics in the file */
	double *kin_time;        /* [n_samples], strictly ascending */
	double *kin;             /* [n_samples, n_kin]; NaN where the file has NaN */
	char kin_name[8][16];
	size_t n_trials;
	cx_trial *trials;
} cx_recording;

CX_API void cx_recording_deinit(cx_recording *r);         /* zeroed is fine */
CX_API const char *cx_trial_split_name(cx_trial_split s); /* "train" */

/* Spike times of unit u: [*n]. */
static inline const double *cx_recording_unit(const cx_recording *r, size_t u, size_t *n)
{
	uint64_t first = u ? r->unit_end[u - 1] : 0;
	*n = (size_t)(r->unit_end[u] - first);
	return r->spikes + first;
}

#endif
