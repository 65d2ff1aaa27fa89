/* ridge.h - linear decoders whose settings are chosen by cross-validation on the training part
 * alone.
 *
 * Folds are blocks of time (or of windows in order), never shuffled: neighbouring bins are nearly
 * copies of each other. All have an intercept unless told otherwise. */
#ifndef CX_DECODER_RIDGE_H
#define CX_DECODER_RIDGE_H

#include "models/decoder/dataset.h"
#include "models/decoder/wiener.h"

enum { CX_RIDGE_ALPHAS = 9 };

/* 9 penalties, evenly spaced in the logarithm. */
void cx_ridge_alphas(double lo, double hi, double *alphas);

/* ---- lagged counts of a session (the tuned Wiener decoder) ---- */

typedef struct cx_ridge_choice {
	size_t history[CX_MAX_BEHAVIOR]; /* per kinematic column */
	double alpha[CX_MAX_BEHAVIOR];
	double cv_r2[CX_MAX_BEHAVIOR]; /* over the held-out blocks, pooled */
	size_t n_tried;
} cx_ridge_choice;

/* Chooses history and alpha for every column on bins [0, n_train): histories of step, 2 step, ...
 * bins while velocity still gains (any column, if none is velocity; steps of 0.25 s if step is 0;
 * at most 4000 features), the nine alphas 10 ... 1e5, four blocks. Blocks see no spikes of their
 * neighbours. progress may be NULL. */
cx_status cx_ridge_tune(const cx_session *s, size_t n_train, size_t step,
	void (*progress)(void *ctx, double done), void *ctx, cx_ridge_choice *out, cx_err *err);

/* Fits each column with its choice on [0, n_train) and decodes bins [first, first + n) into
 * y [n, n_kin]. */
cx_status cx_ridge_decode(const cx_session *s, size_t n_train, const cx_ridge_choice *choice,
	size_t first, size_t n, double *y, cx_err *err);

/* ---- windows of a dataset (trial-aligned protocols) ---- */

typedef struct cx_ridge_opts {
	const double
		*taps; /* [n_taps, window]: feature (tap, unit) is the sum over bins of tap * count */
	size_t n_taps;
	const double *alphas; /* [n_alphas]; one is taken as it is, of several the best in 5 blocks */
	size_t n_alphas;
	bool no_intercept; /* nor centring of features: spec/decoder.md 4.7, Wiener */
} cx_ridge_opts;

typedef struct cx_ridge_result {
	double alpha, cv_r2;                 /* cv_r2 NaN if there was nothing to choose */
	double r2[CX_MAX_BEHAVIOR], r2_mean; /* on the test part */
	size_t n_features;
} cx_ridge_result;

/* Fits on the train and val parts, scores the test part. Targets are z-scored. */
cx_status cx_ridge_windows(
	const cx_dataset *d, const cx_ridge_opts *opts, cx_ridge_result *out, cx_err *err);

/* Taps: `groups` equal boxes over the window, each 1 / its length (a mean count per bin); or one
 * Gaussian of sd bins around the decoded bin, cut at the window's ends, with sum 1. taps [n,
 * window]. */
void cx_ridge_boxes(const cx_dataset_info *info, size_t groups, double *taps);
void cx_ridge_gauss(const cx_dataset_info *info, double sd_bins, double *taps);

#endif
