/* linear.h - a fitted linear decoder (Wiener or Kalman) ready to run on a device, one bin per step.
 *
 * The same step serves offline evaluation and real time: it reads the counts of the bin (and, for
 * Wiener, of the history before it) and gives the decoded movement, in order, without allocating.
 */
#ifndef CX_DECODER_LINEAR_H
#define CX_DECODER_LINEAR_H

#include "models/decoder/kalman.h"
#include "models/decoder/wiener.h"

typedef enum cx_linear_method { CX_LINEAR_WIENER, CX_LINEAR_KALMAN } cx_linear_method;

typedef struct cx_linear_opts {
	cx_linear_method method;
	size_t history; /* Wiener: bins per window, 10 if 0 */
	double ridge;   /* Wiener */
	size_t n_train; /* fit on bins [0, n_train); decoding starts at n_train */
} cx_linear_opts;

typedef struct cx_linear_decoder cx_linear_decoder;

/* Fits on s, builds and plans the graph for dev. s must outlive the decoder. */
CX_API cx_status cx_linear_open(const cx_session *s, const cx_linear_opts *opts, cx_runtime *rt,
	cx_device *dev, cx_linear_decoder **out, cx_err *err);
CX_API void cx_linear_close(cx_linear_decoder *d);

/* Decodes the next bin (n_train, n_train + 1, ...) into y [s->n_kin]. */
CX_API cx_status cx_linear_step(cx_linear_decoder *d, double *y, cx_err *err);
CX_API const cx_plan *cx_linear_plan(const cx_linear_decoder *d);

#endif
