/* decoder_run.h - a training run in a folder: its files, its progress, its end.
 *
 * The folder gets last.safetensors (everything that the next step depends on), best.safetensors and
 * final.safetensors (weights, with configuration and z-score), train.tsv and train.svg. Each is
 * replaced whole or not at all; last.safetensors is written after what it speaks of, so a run that
 * is killed goes on from it to the same bytes as one that was not. */
#ifndef CX_DECODER_RUN_H
#define CX_DECODER_RUN_H

#include "models/decoder/train_config.h"
#include "serve/cmd_decoder.h"

typedef struct cx_run_args {
	const char *out, *backend;
	bool resume;    /* go on from out/last.safetensors */
	bool overwrite; /* begin anew though the folder holds a run */
	bool quiet;     /* no summary on stdout */
} cx_run_args;

/* Trains by config; data as opened by cx_train_config_open(). */
cx_status cx__run_train(
	const cx_run_args *a, const cx_train_config *config, cx_dataset *data, cx_err *err);
/* The configuration of the run in folder `out`. */
cx_status cx__run_config(const char *out, cx_train_config *config, cx_err *err);

/* One row per logged step: of train.tsv, and in the metadata of last.safetensors. */
typedef struct cx_run_row {
	int64_t step;
	double epoch, loss, mse, xent, norm, rate;
	double val; /* mean R2, NaN where it was not taken */
} cx_run_row;
typedef struct cx_run_log {
	cx_run_row *row; /* [n] */
	size_t n, cap;
	double best;       /* of val; NaN: none yet */
	int64_t best_step; /* 0: none */
	int64_t waited;    /* scores since then */
	double sum[4];     /* loss, mse, xent, steps since the last row */
} cx_run_log;
cx_status cx__run_log_add(cx_run_log *l, const cx_run_row *row, cx_err *err);
void cx__run_log_deinit(cx_run_log *l);
/* The log as text and back; *text is to be freed by free(). */
cx_status cx__run_log_print(const cx_run_log *l, char **text, cx_err *err);
cx_status cx__run_log_parse(cx_run_log *l, const char *text, const char *label, cx_err *err);
cx_status cx__run_log_write(const cx_run_log *l, const char *path, cx_err *err); /* train.tsv */
/* train.svg, if there are two rows to draw; log_every: steps between rows. */
cx_status cx__run_log_draw(
	const cx_run_log *l, int64_t log_every, const char *title, const char *path, cx_err *err);

#endif
