/* protocol.h - from a recording in continuous time to bins, and from bins to the places where
 * movement is decoded (spec/decoder.md 4.3 to 4.5, with the defects of section 8 mended). */
#ifndef CX_DECODER_PROTOCOL_H
#define CX_DECODER_PROTOCOL_H

#include "models/decoder/dataset.h"

/* Bins of bin_seconds from the first kinematic sample on, floor((last - first) / bin_seconds) of
 * them.
 *
 * Counts: cx_bin_spikes() of every unit that is not held out (of all with `heldout`). Observed:
 * bins that lie in an observation interval of every unit; elsewhere counts are 0. Kinematics: the
 * mean of the samples whose time stamps lie in the bin, so that a gap moves nothing; a bin with
 * less than half of the samples that the rate promises, or with a NaN in one, has none. Where
 * samples are rarer than bins: linear between the two around the bin's middle, unless they are more
 * than 1.5 sample intervals apart. Rate: 1 / median of the first 1000 intervals. */
cx_status cx_session_bin(const cx_recording *r, double bin_seconds, bool heldout,
	const cx_alloc *alloc, cx_session *out, cx_err *err);

/* A place to decode: the window [bin - (window - 1 - ahead), bin + ahead] and what is true
 * there. */
typedef struct cx_place {
	int32_t bin;
	uint32_t part; /* cx_part */
	double y[CX_MAX_BEHAVIOR];
} cx_place;

typedef struct cx_places {
	cx_place *at;
	size_t n, cap;
	cx_alloc alloc;
	uint32_t dropped_kin, dropped_obs, dropped_edge, dropped_gap;
} cx_places;

void cx_places_deinit(cx_places *p); /* zeroed is fine */

/* Every place of a session, part by part in ascending time. column[n_column]: the kinematic columns
 * that become y. r: where the session comes from, wanted by the trial protocols only.
 *
 * TRIAL: bin = floor((onset - t0) / bin_seconds), y the first sample at or after onset (the last
 * one if there is none). NLB: bins from -250 to +450 ms around it, y the mean over the bin that is
 * lag later. In both, trials marked val are the test part, as the benchmark scores them; the last
 * opts->val of the trials marked train are the val part. A window may begin before the recording
 * only in CONTINUOUS. */
cx_status cx_protocol_cut(const cx_dataset_opts *opts, const cx_session *s, const cx_recording *r,
	const uint32_t *column, uint32_t n_column, cx_places *out, cx_err *err);

#endif
