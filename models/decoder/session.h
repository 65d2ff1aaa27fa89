/* session.h - a recording: binned spike counts and what the hand did. */
#ifndef CX_DECODER_SESSION_H
#define CX_DECODER_SESSION_H

#include "graph/base.h"

typedef struct cx_session {
	size_t n_bins, n_units, n_kin;
	double bin_seconds;   /* 0 if unknown */
	uint8_t *spikes;      /* [n_bins, n_units] counts per bin */
	double *kin;          /* [n_bins, n_kin] */
	char kin_name[8][16]; /* "pos_x" ... ; n_kin <= 8 */
	double *bayes; /* [n_bins, n_kin] Bayes-optimal causal decoding, simulated sessions only, else
					  NULL */
	uint8_t
		*kin_ok; /* [n_bins] 0: no kinematics in that bin, kin is 0 there; NULL: all have them */
	uint8_t
		*observed; /* [n_bins] 0: spikes were not recorded, counts are 0; NULL: always recorded */
	double t0;     /* time of the first bin's start on the recording's clock */
	cx_alloc alloc;
} cx_session;

/* Allocates the arrays, zeroed. with_bayes: also `bayes`. */
cx_status cx_session_init(cx_session *s, const cx_alloc *alloc, size_t n_bins, size_t n_units,
	size_t n_kin, bool with_bayes, cx_err *err);
void cx_session_deinit(cx_session *s); /* zeroed or half-built is fine */

/* From two NPY files: counts [n_bins, n_units] of any integer or float type with values 0..255
 * (whole numbers), kinematics [n_bins, 1..8] of any float type, within 1e15. Four columns are named
 * pos_x pos_y vel_x vel_y, two are named vel_x vel_y, others y0 y1 ... Errors name the file and the
 * offending row. */
cx_status cx_session_load(const char *spikes_path, const char *kin_path, const cx_alloc *alloc,
	cx_session *out, cx_err *err);

/* From a MATLAB 5 file: counts "spikes" (or spike_counts, counts), and kinematics "handPos" and
 * "handVel" (or pos, position; vel, velocity), each [bins, columns] or [columns, bins]; of more
 * than two columns of a kind the first two. At least velocity must be there; "time" [bins] gives
 * the bin width. */
cx_status cx_session_load_mat(
	const char *path, const cx_alloc *alloc, cx_session *out, cx_err *err);

/* Puts the Bayes-optimal decoding of an NPY file beside the session: shape of its kinematics. */
cx_status cx_session_load_bayes(cx_session *s, const char *path, cx_err *err);

/* Index of the first bin of the test part: floor(n_bins * fraction). */
size_t cx_session_split(const cx_session *s, double train_fraction);

#endif
