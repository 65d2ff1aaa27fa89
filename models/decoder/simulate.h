/* simulate.h - a reaching session whose best possible decoding is known.
 *
 * The hand rests at the centre, reaches to one of n_directions targets at one of two distances,
 * rests there, and comes back. Rests have geometric length; reaches follow the minimum-jerk profile
 * (Flash and Hogan 1985): x(s) = 10 s^3 - 15 s^4 + 6 s^5. Each unit fires as a Poisson process
 * whose rate is cosine-tuned to the hand's velocity lead_bins later (Georgopoulos et al. 1982;
 * Moran and Schwartz 1999): rate = max(base + depth * |v|/v_max * cos(direction of v - preferred) +
 * speed * |v|/v_max, floor) Movement is then a hidden Markov chain with a few hundred states,
 * position and velocity functions of the state, and the exact Bayes-optimal causal decoding
 * E[kinematics_t | counts up to t] is the mean under its forward filter. No causal decoder has a
 * smaller expected squared error; its R2 on a test part is the bound to quote.
 *
 * A decoder that sees a window of W bins has a bound of its own, E[kinematics_t | the last W
 * counts]: the same filter, started W bins back from the chain's stationary distribution. Ask for
 * it with `window`. Its first W - 1 bins condition on the bins that there are. */
#ifndef CX_DECODER_SIMULATE_H
#define CX_DECODER_SIMULATE_H

#include "models/decoder/recording.h"
#include "models/decoder/session.h"

typedef struct cx_simulate_opts {
	uint64_t seed;
	size_t n_units;     /* 1..1000 */
	double seconds;     /* > 0, at most a day */
	double bin_seconds; /* 0.005..0.2 */
	uint64_t subject;   /* another brain and another session of the same seed */
	size_t window;      /* bins that the Bayes-optimal decoding may see; 0: all the past */
} cx_simulate_opts;

CX_API cx_simulate_opts cx_simulate_default(void); /* seed 1, 64 units, 600 s, 50 ms */

/* Columns pos_x pos_y (m) vel_x vel_y (m/s); out->bayes is filled. Same options, same bytes.
 * progress (may be NULL) is called with 0..1. */
CX_API cx_status cx_simulate(const cx_simulate_opts *opts, const cx_alloc *alloc,
	void (*progress)(void *ctx, double done), void *ctx, cx_session *out, cx_err *err);

/* The same in continuous time, as a file would have it: spikes spread evenly over their bins (which
 * is the Poisson process given its counts), ten samples of the kinematics per bin, one observation
 * interval per unit, and a trial per reach: from 0.1 s before to the return to the centre, onset
 * where the hand begins to move, three trials of train and one of val in turn. s: from
 * cx_simulate(). */
CX_API cx_status cx_simulate_recording(
	const cx_session *s, uint64_t seed, const cx_alloc *alloc, cx_recording *out, cx_err *err);

#endif
