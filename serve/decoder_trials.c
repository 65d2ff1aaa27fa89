/* decoder_trials.c - the MC_Maze protocols on a recording with trials: the trial-aligned one of
 * spec/decoder.md 4.5 and the benchmark's own, with linear decoders. */
#include "models/decoder/dataset.h"
#include "models/decoder/ridge.h"
#include "serve/decoder_table.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct trials {
	const decoder_args *a;
	const char *path;
	cx_table *t;
	cx_dataset *d;
	const cx_dataset_info *info;
	double *taps;
	char protocol[32];
	cx_err *err;
} trials;

static cx_status open_protocol(trials *r, cx_dataset_opts o)
{
	cx_status st;
	cx_dataset_free(r->d);
	r->d = NULL;
	o.val = 0;       /* what to choose is chosen inside train */
	o.buckets = 256; /* counts as they are */
	if ((st = cx_dataset_create(&o, NULL, &r->d, r->err)) != CX_OK) return st;
	if ((st = cx_dataset_add_path(r->d, r->path, r->err)) != CX_OK) return st;
	if ((st = cx_dataset_finish(r->d, r->err)) != CX_OK) return st;
	r->info = cx_dataset_get_info(r->d);
	if (r->t->n_cols == 0) {
		r->t->n_cols = r->info->behavior_dim;
		memcpy(r->t->col, r->info->name, sizeof r->t->col);
	}
	free(r->taps);
	r->taps = calloc((size_t)r->info->window * r->info->window, sizeof *r->taps);
	return r->taps ? CX_OK : CX_FAIL(r->err, CX_ERR_MEMORY, "out of memory");
}

static cx_status ridge(trials *r, const char *name, const char *what, size_t n_taps,
	const double *alphas, size_t n_alphas, bool bare)
{
	cx_ridge_opts o = {.taps = r->taps,
		.n_taps = n_taps,
		.alphas = alphas,
		.n_alphas = n_alphas,
		.no_intercept = bare};
	cx_ridge_result res;
	cx_table_row row = {0};
	double start = cx__seconds();
	cx_status st = cx_ridge_windows(r->d, &o, &res, r->err);
	if (st != CX_OK) return st;
	snprintf(row.protocol, sizeof row.protocol, "%s", r->protocol);
	snprintf(row.decoder, sizeof row.decoder, "%s", name);
	snprintf(row.settings, sizeof row.settings, "%s, alpha %.3g", what, res.alpha);
	memcpy(row.r2, res.r2, sizeof row.r2);
	row.seconds = cx__seconds() - start;
	cx__table_add(r->t, &row);
	cx__progress((void *)r->protocol, 1);
	return CX_OK;
}

/* One target per trial, at onset, from -100..+500 ms: acausal by definition. */
static cx_status at_onset(trials *r)
{
	static const double one = 1;
	static const size_t groups[] = {1, 4, 12};
	double alphas[CX_RIDGE_ALPHAS];
	char what[60];
	cx_status st = open_protocol(r, cx_dataset_protocol(CX_PROTOCOL_TRIAL));
	if (st != CX_OK) return st;
	snprintf(r->protocol, sizeof r->protocol, "onset, -100..+500 ms");
	cx_ridge_boxes(r->info, 1, r->taps);
	st = ridge(r, "Wiener, mean rates", "no intercept", 1, &one, 1, true);
	cx_ridge_alphas(1e-4, 1e2, alphas);
	for (size_t i = 0; st == CX_OK && i < sizeof groups / sizeof *groups; i++) {
		cx_ridge_boxes(r->info, groups[i], r->taps);
		snprintf(what, sizeof what, "%zu lag%s of %g ms", groups[i], groups[i] > 1 ? "s" : "",
			600.0 / (double)groups[i]);
		st = ridge(r, "ridge, tuned", what, groups[i], alphas, CX_RIDGE_ALPHAS, false);
	}
	return st;
}

/* Every bin of -250..+450 ms, movement 80 ms later, ridge over the toolkit's nine alphas. */
static cx_status benchmark(trials *r, double bin_seconds)
{
	double alphas[CX_RIDGE_ALPHAS], wide[CX_RIDGE_ALPHAS];
	cx_dataset_opts o = cx_dataset_protocol(CX_PROTOCOL_NLB);
	size_t lags = 12;
	char what[60];
	cx_status st;
	o.bin_seconds = bin_seconds;
	o.window = (uint32_t)lround(0.3 / bin_seconds); /* the Gaussian of 50 ms reaches 3 sd back */
	o.ahead = o.window / 2;
	if ((st = open_protocol(r, o)) != CX_OK) return st;
	snprintf(r->protocol, sizeof r->protocol, "NLB, bins of %.3g ms", 1e3 * bin_seconds);
	cx_ridge_alphas(1e-4, 1, alphas);
	cx_ridge_alphas(1e-3, 1e4, wide);
	cx_ridge_gauss(r->info, 0.05 / bin_seconds, r->taps);
	st = ridge(r, "ridge, smoothed rates", "Gaussian of 50 ms", 1, alphas, CX_RIDGE_ALPHAS, false);
	if (st != CX_OK) return st;
	o.window = (uint32_t)lround(0.48 / bin_seconds);
	o.ahead = 0;
	if ((st = open_protocol(r, o)) != CX_OK) return st;
	cx_ridge_boxes(r->info, lags, r->taps);
	snprintf(what, sizeof what, "%zu lags of 40 ms, causal", lags);
	return ridge(r, "ridge, tuned", what, lags, wide, CX_RIDGE_ALPHAS, false);
}

cx_status cx__decoder_trials(const decoder_args *a, const char *path, cx_table *t, cx_err *err)
{
	trials r = {.a = a, .path = path, .t = t, .err = err};
	bool all = !a->protocol || !strcmp(a->protocol, "all");
	cx_status st = CX_OK;
	if (all || !strcmp(a->protocol, "trial")) st = at_onset(&r);
	if (st == CX_OK && (all || !strcmp(a->protocol, "nlb"))) {
		if (a->bin > 0) {
			st = benchmark(&r, a->bin);
		} else {
			st = benchmark(&r, 0.02);
			if (st == CX_OK && !strcmp(a->protocol ? a->protocol : "", "nlb"))
				st = benchmark(&r, 0.005);
		}
	}
	cx_dataset_free(r.d);
	free(r.taps);
	return st;
}
