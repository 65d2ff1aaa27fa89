/* cmd_decoder.h - what the two files of `cortex decoder` share: options, and the evaluation itself.
 */
#ifndef CX_CMD_DECODER_H
#define CX_CMD_DECODER_H

#include "models/decoder/linear.h"
#include "models/decoder/simulate.h"
#include "serve/command.h"

typedef struct decoder_args {
	const char *data, *out, *spikes, *kin, *backend;
	cx_linear_opts fit;
	cx_simulate_opts sim;
	double fraction;
	double bin; /* seconds per bin as told; 0: not told */
	bool json, markdown, table;
	const char *protocol;      /* of the table: continuous, trial, nlb, all; NULL: what there is */
	const char *model;         /* demo: trains this; NULL: a linear decoder */
	const char *checkpoint[8]; /* of the table: files with commas between, a row each */
	int n_checkpoints;
	const char *subjects; /* simulate: units of each, with commas */
} decoder_args;

/* Fits, decodes the test part, prints R2, plan and latency; draws a->out/decoded.svg if asked. */
cx_status cx__decoder_eval(const decoder_args *a, const cx_session *s, bool draw, cx_err *err);
/* Trains a->model, decodes the test part, draws a->out/decoded.svg. */
cx_status cx__decoder_demo(const decoder_args *a, cx_err *err);
/* Writes sessions to a->out: spikes, kinematics and the best decoding as NPY, all but that as
 * NWB. */
cx_status cx__decoder_simulate(decoder_args *a, cx_err *err);
/* One session by a->sim, and a line about it on stdout. */
cx_status cx__simulate_session(const decoder_args *a, uint64_t subject, cx_session *s, cx_err *err);
cx_status cx__make_folder(const char *path, cx_err *err); /* and those above it */
/* `cortex decoder info`, with options of its own; argv[0] is "info". Gives the exit code. */
int cx__decoder_info(int argc, char **argv);
/* `cortex decoder train`, likewise. */
int cx__decoder_train(int argc, char **argv);
/* Progress callback: `what` is a label. Draws only on a terminal. */
void cx__progress(void *what, double done);

#endif
