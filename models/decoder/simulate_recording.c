/* simulate_recording.c - a simulated session in continuous time. See simulate.h. */
#include "models/decoder/simulate.h"

#include <math.h>
#include <string.h>

enum { PER_BIN = 10 };

/* SplitMix64 (Steele, Lea, Flood 2014). */
static double uniform(uint64_t *s)
{
	uint64_t z = (*s += 0x9e3779b97f4a7c15u);
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return (double)((z ^ (z >> 31)) >> 11) * 0x1p-53;
}

static void fill_spikes(const cx_session *s, uint64_t seed, cx_recording *r)
{
	size_t n = 0;
	for (size_t u = 0; u < s->n_units; u++) {
		for (size_t t = 0; t < s->n_bins; t++) {
			size_t first = n;
			for (unsigned k = s->spikes[t * s->n_units + u]; k > 0; k--) {
				/* inside the bin, whatever the product rounds to */
				double at = 1e-6 + (1 - 2e-6) * uniform(&seed);
				size_t i = n++;
				for (; i > first && r->spikes[i - 1] > ((double)t + at) * s->bin_seconds; i--)
					r->spikes[i] = r->spikes[i - 1];
				r->spikes[i] = ((double)t + at) * s->bin_seconds;
			}
		}
		r->unit_end[u] = n;
		r->obs[2 * u] = 0;
		r->obs[2 * u + 1] = (double)(s->n_bins + 1) * s->bin_seconds;
		r->obs_end[u] = u + 1;
	}
}

static bool at_centre(const cx_session *s, size_t t)
{
	const double *k = s->kin + t * s->n_kin;
	return fabs(k[0]) < 1e-9 && fabs(k[1]) < 1e-9 && fabs(k[2]) < 1e-9 && fabs(k[3]) < 1e-9;
}

/* Reaches that begin and end inside the session; trials may be NULL, to count. */
static size_t find_trials(const cx_session *s, cx_trial *trials)
{
	size_t n = 0, onset = 0;
	for (size_t t = 1; t < s->n_bins; t++) {
		if (at_centre(s, t - 1) && !at_centre(s, t)) onset = t;
		if (onset && !at_centre(s, t - 1) && at_centre(s, t)) {
			double at = (double)onset * s->bin_seconds;
			if (trials)
				trials[n] = (cx_trial){.start = fmax(at - 0.1, 0),
					.stop = (double)t * s->bin_seconds,
					.onset = at,
					.split = n % 4 == 3 ? CX_TRIAL_VAL : CX_TRIAL_TRAIN};
			n++;
			onset = 0;
		}
	}
	return n;
}

cx_status cx_simulate_recording(
	const cx_session *s, uint64_t seed, const cx_alloc *alloc, cx_recording *r, cx_err *err)
{
	cx_arena *a = &r->arena;
	size_t units = s->n_units;
	memset(r, 0, sizeof *r);
	cx_arena_init(a, alloc);
	if (s->n_kin != 4 || !(s->bin_seconds > 0))
		return CX_FAIL(err, CX_ERR_ARGUMENT, "simulate: that is no simulated session");
	for (size_t i = 0; i < s->n_bins * units; i++) r->n_spikes += s->spikes[i];
	r->n_units = r->n_obs = units;
	r->n_kin = 4;
	r->n_samples =
		s->n_bins * PER_BIN + 2; /* two more: the last bin is whole only with a later one */
	r->n_trials = find_trials(s, NULL);
	r->label = "simulated";
	r->spikes = cx_arena_array(a, r->n_spikes + 1, sizeof *r->spikes);
	r->unit_end = cx_arena_array(a, units, sizeof *r->unit_end);
	r->heldout = cx_arena_array(a, units, sizeof *r->heldout);
	r->obs = cx_arena_array(a, 2 * units, sizeof *r->obs);
	r->obs_end = cx_arena_array(a, units, sizeof *r->obs_end);
	r->kin_time = cx_arena_array(a, r->n_samples, sizeof *r->kin_time);
	r->kin = cx_arena_array(a, r->n_samples * 4, sizeof *r->kin);
	r->trials = cx_arena_array(a, r->n_trials + 1, sizeof *r->trials);
	if (!r->spikes || !r->unit_end || !r->heldout || !r->obs || !r->obs_end || !r->kin_time ||
		!r->kin || !r->trials) {
		cx_recording_deinit(r);
		return CX_FAIL(err, CX_ERR_MEMORY, "simulate: out of memory");
	}
	memcpy(r->kin_name, s->kin_name, sizeof r->kin_name);
	fill_spikes(s, seed, r);
	for (size_t i = 0; i < r->n_samples; i++) {
		size_t t = i / PER_BIN < s->n_bins ? i / PER_BIN : s->n_bins - 1;
		r->kin_time[i] = (double)i * s->bin_seconds / PER_BIN;
		memcpy(r->kin + i * 4, s->kin + t * 4, 4 * sizeof *r->kin);
	}
	find_trials(s, r->trials);
	return CX_OK;
}
