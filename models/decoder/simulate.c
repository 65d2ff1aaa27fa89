/* simulate.c - draws a reaching session and filters it exactly. See simulate.h.
 *
 * States: 0 is rest at the centre; target k (direction, distance) has a block of 2 L + 1 states: L
 * phases out, rest at the target, L phases back; L = lead + M, M bins of movement. Neural drive at
 * phase p is the velocity at phase p + lead, so the first `lead` phases of a reach are preparation
 * without movement. */
#include "models/decoder/simulate.h"

#include <math.h>
#include <string.h>

enum { N_DIRECTIONS = 16, N_DISTANCES = 2, N_TARGETS = N_DIRECTIONS * N_DISTANCES };

static const double distance_m[N_DISTANCES] = {0.08, 0.12};
static const double reach_seconds = 0.6, lead_seconds = 0.1, rest_seconds = 0.4;

typedef struct rng {
	uint64_t s;
} rng;

/* SplitMix64 (Steele, Lea, Flood 2014). */
static uint64_t rng_next(rng *r)
{
	uint64_t z = (r->s += 0x9e3779b97f4a7c15u);
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return z ^ (z >> 31);
}

static double rng_uniform(rng *r)
{
	return (double)(rng_next(r) >> 11) * 0x1p-53;
}

/* By inversion: rates are a few spikes per bin at most. */
static unsigned rng_poisson(rng *r, double rate)
{
	double p = exp(-rate), sum = p, u = rng_uniform(r);
	unsigned k = 0;
	while (u > sum && k < 255) sum += p *= rate / ++k;
	return k;
}

typedef struct world {
	size_t n_states, n_units, m, lead, len; /* len = L */
	double bin, p_leave;                    /* seconds; chance to leave a rest per bin */
	double *log_rate;                       /* [n_states, n_units] of the expected count per bin */
	double *rate_sum;                       /* [n_states] */
	double *kin;                            /* [n_states, 4] */
	double *belief, *next;                  /* [n_states] */
	size_t window;                          /* 0: all the past */
	double *rest;                           /* [n_states] stationary distribution; with a window */
	double *likely; /* [window, n_states] of the last bins' counts, a ring */
	const cx_alloc *alloc;
	double *block;
	size_t bytes;
} world;

static double minimum_jerk(double s)
{
	s = s < 0 ? 0 : s > 1 ? 1 : s;
	return s * s * s * (10 + s * (6 * s - 15));
}

/* Signed place (m) and speed (m/s) along the reach of `dist` at the end of bin i, counted from
 * movement onset. */
static void profile(const world *w, double dist, long i, double *place, double *speed)
{
	double a = minimum_jerk((double)i / (double)w->m),
		   b = minimum_jerk((double)(i + 1) / (double)w->m);
	*place = dist * b;
	*speed = dist * (b - a) / w->bin;
}

typedef struct tuning {
	double base, depth, speed, preferred;
} tuning;

static void set_state(world *w, size_t s, double angle, double place, double speed, double drive,
	double v_max, const tuning *tune)
{
	double c = cos(angle), n = sin(angle);
	double *kin = w->kin + s * 4;
	kin[0] = place * c;
	kin[1] = place * n;
	kin[2] = speed * c;
	kin[3] = speed * n;
	for (size_t u = 0; u < w->n_units; u++) {
		double rel = drive / v_max; /* signed: back is the opposite direction */
		double hz = tune[u].base + tune[u].depth * rel * cos(angle - tune[u].preferred) +
					tune[u].speed * fabs(rel);
		double mean = (hz > 0.5 ? hz : 0.5) * w->bin;
		w->log_rate[s * w->n_units + u] = log(mean);
		w->rate_sum[s] += mean;
	}
}

static void set_states(world *w, const tuning *tune)
{
	double v_max = distance_m[N_DISTANCES - 1] * 1.875 / reach_seconds; /* peak of minimum jerk */
	set_state(w, 0, 0, 0, 0, 0, v_max, tune);
	for (size_t k = 0; k < N_TARGETS; k++) {
		double angle = 2 * M_PI * (double)(k % N_DIRECTIONS) / N_DIRECTIONS;
		double dist = distance_m[k / N_DIRECTIONS], place, speed, drive, ignored;
		size_t s = 1 + k * (2 * w->len + 1);
		for (size_t p = 0; p < w->len; p++) {
			profile(w, dist, (long)p - (long)w->lead, &place, &speed);
			profile(w, dist, (long)p, &ignored, &drive);
			set_state(w, s + p, angle, place, speed, drive, v_max, tune);
			set_state(w, s + w->len + 1 + p, angle, dist - place, -speed, -drive, v_max, tune);
		}
		set_state(w, s + w->len, angle, dist, 0, 0, v_max, tune);
	}
}

/* Bins spent in each state per cycle of one rest, one reach out and back. */
static void set_stationary(world *w)
{
	size_t block = 2 * w->len + 1;
	double stay = 1 / w->p_leave, total = 2 * stay + (double)(2 * w->len);
	w->rest[0] = stay / total;
	for (size_t s = 1; s < w->n_states; s++)
		w->rest[s] = ((s - 1) % block == w->len ? stay : 1) / total / N_TARGETS;
}

static cx_status world_init(
	world *w, const cx_simulate_opts *o, const cx_alloc *alloc, rng *r, cx_err *err)
{
	size_t n, total;
	tuning *tune;
	memset(w, 0, sizeof *w);
	w->alloc = alloc;
	w->n_units = o->n_units;
	w->bin = o->bin_seconds;
	w->m = (size_t)fmax(2, round(reach_seconds / w->bin));
	w->lead = (size_t)round(lead_seconds / w->bin);
	w->len = w->m + w->lead;
	w->p_leave = w->bin / rest_seconds;
	w->n_states = n = 1 + N_TARGETS * (2 * w->len + 1);
	w->window = o->window;
	total = n * o->n_units + n * 7 + (w->window ? n * (1 + w->window) : 0);
	w->bytes = total * sizeof(double);
	w->block = cx_calloc(alloc, total, sizeof(double));
	tune = cx_calloc(alloc, o->n_units, sizeof *tune);
	if (!w->block || !tune) {
		cx_free(alloc, w->block, w->bytes);
		cx_free(alloc, tune, o->n_units * sizeof *tune);
		return CX_FAIL(err, CX_ERR_MEMORY, "simulate: out of memory for %zu units", o->n_units);
	}
	w->log_rate = w->block;
	w->rate_sum = w->log_rate + n * o->n_units;
	w->kin = w->rate_sum + n;
	w->belief = w->kin + 4 * n;
	w->next = w->belief + n;
	w->rest = w->next + n;
	w->likely = w->rest + n;
	for (size_t u = 0; u < o->n_units; u++) {
		tune[u].base = 3 + 12 * rng_uniform(r);
		tune[u].depth = 3 + 17 * rng_uniform(r);
		tune[u].speed = 6 * rng_uniform(r);
		tune[u].preferred = 2 * M_PI * rng_uniform(r);
	}
	set_states(w, tune);
	cx_free(alloc, tune, o->n_units * sizeof *tune);
	w->belief[0] = 1;
	if (w->window) set_stationary(w);
	return CX_OK;
}

static size_t next_state(const world *w, size_t s, rng *r)
{
	size_t block = 2 * w->len + 1, p;
	if (s == 0) {
		if (rng_uniform(r) >= w->p_leave) return 0;
		return 1 + (size_t)(rng_uniform(r) * N_TARGETS) * block;
	}
	p = (s - 1) % block;
	if (p == w->len) return rng_uniform(r) < w->p_leave ? s + 1 : s;
	return p == block - 1 ? 0 : s + 1;
}

/* Prediction: belief -> next by the same chain as next_state(). */
static void predict(world *w)
{
	size_t block = 2 * w->len + 1;
	double home = w->belief[0];
	w->next[0] = home * (1 - w->p_leave);
	for (size_t k = 0; k < N_TARGETS; k++) {
		const double *b = w->belief + 1 + k * block;
		double *n = w->next + 1 + k * block;
		n[0] = home * w->p_leave / N_TARGETS;
		for (size_t p = 1; p < block; p++) n[p] = b[p - 1];
		n[w->len] += b[w->len] * (1 - w->p_leave);
		n[w->len + 1] = b[w->len] * w->p_leave;
		w->next[0] += b[block - 1];
	}
}

/* Update with the counts of one bin; kin gets the posterior mean. */
static void update(world *w, const uint8_t *counts, double *kin)
{
	double best = -INFINITY, total = 0;
	for (size_t s = 0; s < w->n_states; s++) w->belief[s] = -w->rate_sum[s];
	for (size_t u = 0; u < w->n_units; u++)
		if (counts[u])
			for (size_t s = 0; s < w->n_states; s++)
				w->belief[s] += counts[u] * w->log_rate[s * w->n_units + u];
	for (size_t s = 0; s < w->n_states; s++)
		if (w->next[s] > 0 && w->belief[s] > best) best = w->belief[s];
	for (size_t s = 0; s < w->n_states; s++) {
		w->belief[s] = w->next[s] * exp(w->belief[s] - best);
		total += w->belief[s];
	}
	memset(kin, 0, 4 * sizeof *kin);
	for (size_t s = 0; s < w->n_states; s++) {
		w->belief[s] /= total;
		for (size_t c = 0; c < 4; c++) kin[c] += w->belief[s] * w->kin[s * 4 + c];
	}
}

/* The likelihood of one bin's counts in every state, up to a factor. The floor keeps a belief alive
 * that all of many units contradict. */
static void likelihood(const world *w, const uint8_t *counts, double *out)
{
	double best = -INFINITY;
	for (size_t s = 0; s < w->n_states; s++) out[s] = -w->rate_sum[s];
	for (size_t u = 0; u < w->n_units; u++)
		if (counts[u])
			for (size_t s = 0; s < w->n_states; s++)
				out[s] += counts[u] * w->log_rate[s * w->n_units + u];
	for (size_t s = 0; s < w->n_states; s++) best = fmax(best, out[s]);
	for (size_t s = 0; s < w->n_states; s++) out[s] = fmax(exp(out[s] - best), 1e-280);
}

/* The mean given the last bins only: bin t's counts join the ring, and the filter runs over it. */
static void window_mean(world *w, const uint8_t *counts, size_t t, double *kin)
{
	size_t first = t + 1 < w->window ? 0 : t + 1 - w->window;
	likelihood(w, counts, w->likely + t % w->window * w->n_states);
	memcpy(w->next, w->rest, w->n_states * sizeof *w->next);
	for (size_t b = first; b <= t; b++) {
		const double *l = w->likely + b % w->window * w->n_states;
		double total = 0;
		if (b > first) predict(w);
		for (size_t s = 0; s < w->n_states; s++) total += w->belief[s] = w->next[s] * l[s];
		for (size_t s = 0; s < w->n_states; s++) w->belief[s] /= total;
	}
	memset(kin, 0, 4 * sizeof *kin);
	for (size_t s = 0; s < w->n_states; s++)
		for (size_t c = 0; c < 4; c++) kin[c] += w->belief[s] * w->kin[s * 4 + c];
}

cx_simulate_opts cx_simulate_default(void)
{
	return (cx_simulate_opts){.seed = 1, .n_units = 64, .seconds = 600, .bin_seconds = 0.05};
}

cx_status cx_simulate(const cx_simulate_opts *o, const cx_alloc *alloc,
	void (*progress)(void *ctx, double done), void *ctx, cx_session *out, cx_err *err)
{
	rng r = {o->seed ^ o->subject * 0xd1342543de82ef95u};
	world w;
	size_t n, state = 0;
	cx_status st;
	memset(out, 0, sizeof *out);
	if (o->n_units < 1 || o->n_units > 1000)
		return CX_FAIL(
			err, CX_ERR_ARGUMENT, "simulate: %zu units; 1..1000 are possible", o->n_units);
	if (!(o->bin_seconds >= 0.005 && o->bin_seconds <= 0.2))
		return CX_FAIL(err, CX_ERR_ARGUMENT, "simulate: bins of %g s; 0.005..0.2 are possible",
			o->bin_seconds);
	if (!(o->seconds >= 10 * o->bin_seconds && o->seconds <= 86400))
		return CX_FAIL(
			err, CX_ERR_ARGUMENT, "simulate: %g s; ten bins to a day are possible", o->seconds);
	n = (size_t)(o->seconds / o->bin_seconds + 0.5);
	if (o->window > 1024 || (double)n * (double)o->window > 4e7)
		return CX_FAIL(err, CX_ERR_ARGUMENT,
			"simulate: the exact decoding of %zu bins from windows of %zu takes too long", n,
			o->window);
	if ((st = world_init(&w, o, alloc, &r, err)) != CX_OK) return st;
	if ((st = cx_session_init(out, alloc, n, o->n_units, 4, true, err)) != CX_OK) goto done;
	out->bin_seconds = o->bin_seconds;
	for (size_t t = 0; t < n; t++) {
		uint8_t *counts = out->spikes + t * o->n_units;
		state = next_state(&w, state, &r);
		memcpy(out->kin + t * 4, w.kin + state * 4, 4 * sizeof(double));
		for (size_t u = 0; u < o->n_units; u++)
			counts[u] = (uint8_t)rng_poisson(&r, exp(w.log_rate[state * o->n_units + u]));
		if (w.window) {
			window_mean(&w, counts, t, out->bayes + t * 4);
		} else {
			predict(&w);
			update(&w, counts, out->bayes + t * 4);
		}
		if (progress && t % 256 == 0) progress(ctx, (double)t / (double)n);
	}
	if (progress) progress(ctx, 1);
done:
	cx_free(alloc, w.block, w.bytes);
	return st;
}
