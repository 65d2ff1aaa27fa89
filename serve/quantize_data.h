/* quantize_data.h - windows for `cortex quantize`: of a recording, a simulated one, or uniform. */
#ifndef CX_QUANTIZE_DATA_H
#define CX_QUANTIZE_DATA_H

#include "models/decoder/quantize.h"
#include "models/decoder/train_config.h"

typedef struct cx_windows_args {
	const char *path;       /* of a recording */
	bool simulate, uniform; /* or one of these; exactly one of the three */
	long events;            /* uniform: of a window */
	long seed;
	long batch, n_calib, n_eval; /* windows of a batch; batches, of eval at most */
	double bin;                  /* seconds; 0: as trained, or 0.05 */
	long window;                 /* bins; 0: as trained, or 20 */
} cx_windows_args;

/* Of a recording: batches of its train part in random order, to calibrate; all windows of its test
 * part (val, train, if there is none), or as many as n_eval has room for evenly among them.
 * Uniform: spec/decoder.md 3.6, units, bins and values all as likely, events of batch i drawn from
 * seed + i, batches to measure behind those to calibrate. */
typedef struct cx_windows {
	const cx_cortex_config *c;
	cx_windows_args a;
	cx_dataset *set; /* NULL: uniform */
	cx_part eval;
	uint32_t *order;       /* [n_windows of train] */
	uint32_t *which;       /* [batch] */
	cx_quantize_data data; /* for cx_cortex_quantize(); its ctx is this */
} cx_windows;

/* model: file that m came from, NULL: a size. What it says of its training counts where args do not
 * say otherwise. out is to be closed in every case. */
cx_status cx__windows_open(const cx_windows_args *args, const char *model, const cx_cortex *m,
	cx_windows *out, cx_err *err);
void cx__windows_close(cx_windows *w); /* zeroed is fine */
/* R2 per column of y [n_eval * batch, behavior_dim], z-scored, as decoded on `eval`; r2
 * [behavior_dim]. Returns the mean. Not for uniform windows, which have no movement. */
double cx__windows_score(const cx_windows *w, const float *y, double *r2, cx_err *err);

#endif
