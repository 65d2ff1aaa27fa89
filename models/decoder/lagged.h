/* lagged.h - sums over the bins of a session that every lagged linear decoder needs.
 *
 * Feature h * n_units + u of bin t is the count of unit u in bin t - h; bins before `first` count
 * as silent, so that a block of bins gives nothing away to its neighbours. Bins without kinematics,
 * or whose window was not wholly observed, are left out. */
#ifndef CX_DECODER_LAGGED_H
#define CX_DECODER_LAGGED_H

#include "models/decoder/events.h"
#include "models/decoder/session.h"

typedef struct cx_lagged {
	size_t history, n_units, k, d; /* k = history * n_units features, d kinematic columns */
	double n;                      /* bins */
	double *gram;                  /* [k, k] sum of x x', blocks of lag rows >= lag columns only */
	double *x;                     /* [k] sum of x */
	double *y;                     /* [d] sum of y */
	double *xy;                    /* [k, d] sum of x y' */
	double *block;                 /* the one allocation */
	cx_alloc alloc;
} cx_lagged;

cx_status cx__lagged_init(cx_lagged *l, const cx_session *s, size_t history, cx_err *err);
void cx__lagged_deinit(cx_lagged *l); /* zeroed is fine */
/* Adds bins [first, first + n). */
cx_status cx__lagged_add(cx_lagged *l, const cx_session *s, size_t first, size_t n, cx_err *err);
/* Centres, adds ridge to the diagonal, solves: w [k, d] feature by column, bias [d]. gram [k, k] is
 * scratch, so that l can be solved again. */
cx_status cx__lagged_solve(const cx_lagged *l, double ridge, double *gram, double *w, double *bias,
	const char *what, cx_err *err);
/* Does bin t count in the block that begins at first? */
bool cx__lagged_valid(const cx_session *s, size_t history, size_t first, size_t t);

#endif
