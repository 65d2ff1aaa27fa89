/* kalman.h - the Kalman decoder: movement is a linear-Gaussian state, counts are its noisy linear
 * image.
 *
 *	x_t = A x_{t-1} + w, w ~ N(0, W)        z_t = C x_t + q, q ~ N(0, Q)       (x, z centred)
 *
 * A, W by least squares of x_{t+1} on x_t (W: residual second moment / (n-1)); C, Q by least
 * squares of z_t on x_t (Q: residual second moment / n, plus 1e-6 I); Wu et al. 2006. The filter
 * starts from the last training state with P = 0. Its gains do not depend on the data, so they are
 * computed once and the run is x_t = M_t x_{t-1} + K_t z_t, M_t = (I - K_t C) A as a graph with the
 * state x; after n_gain steps the gain has converged and stays. */
#ifndef CX_DECODER_KALMAN_H
#define CX_DECODER_KALMAN_H

#include "graph/cx.h"
#include "models/decoder/session.h"

typedef struct cx_kalman {
	size_t n_state, n_units, n_gain;
	float *m;      /* [n_gain, n_state, n_state] */
	float *k;      /* [n_gain, n_state, n_units] */
	float *z_mean; /* [n_units] */
	float *x_mean; /* [n_state] */
	float *x0;     /* [n_state] centred state before the first decoded bin */
	cx_alloc alloc;
} cx_kalman;

/* Fits on bins [0, n_train). The state is all kinematic columns. */
cx_status cx_kalman_fit(const cx_session *s, size_t n_train, cx_kalman *out, cx_err *err);
void cx_kalman_deinit(cx_kalman *k);

/* One bin per run: inputs "z" f32 [1, n_units] counts and "step" i32 [1] (min(bins so far, n_gain -
 * 1)), state "kalman.x" [1, n_state] (write x0 before the first run), output "y" [1, n_state]. */
cx_tensor cx_kalman_build(cx_graph *g, const cx_kalman *k);
cx_status cx_kalman_store(const cx_kalman *k, cx_store *store, cx_err *err);

#endif
