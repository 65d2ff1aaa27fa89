/* protocol.c - where movement is decoded. See protocol.h.
 *
 * Places are collected with their part, then those of an earlier part whose window shares a bin
 * with a later part's are given up: test keeps all, val what does not touch test, train what
 * touches neither. */
#include "models/decoder/protocol.h"

#include <math.h>
#include <string.h>

/* NLB, move_onset_time: what the benchmark's toolkit takes for MC_Maze. */
static const double nlb_before = 0.25, nlb_after = 0.45;

typedef struct cutter {
	const cx_dataset_opts *o;
	const cx_session *s;
	const cx_recording *r;
	const uint32_t *column;
	uint32_t n_column;
	const uint32_t *unobserved; /* [n_bins + 1] unobserved bins before each; NULL: none */
	cx_places *out;
	cx_err *err;
} cutter;

void cx_places_deinit(cx_places *p)
{
	cx_free(&p->alloc, p->at, p->cap * sizeof *p->at);
	memset(p, 0, sizeof *p);
}

static cx_status add(cutter *c, const cx_place *p)
{
	cx_places *out = c->out;
	if (out->n == out->cap) {
		size_t cap = out->cap ? out->cap * 2 : 1024;
		cx_place *at = cx_realloc(&out->alloc, out->at, out->cap * sizeof *at, cap * sizeof *at);
		if (!at) return CX_FAIL(c->err, CX_ERR_MEMORY, "windows: out of memory");
		out->at = at;
		out->cap = cap;
	}
	out->at[out->n++] = *p;
	return CX_OK;
}

static int64_t first_bin(const cutter *c, int64_t bin)
{
	return bin - (int64_t)(c->o->window - 1 - c->o->ahead);
}

/* Was all of [a, b) recorded? Bins before the recording count as recorded: they are silent. */
static bool was_observed(const cutter *c, int64_t a, int64_t b)
{
	if (!c->unobserved) return true;
	a = a < 0 ? 0 : a;
	return c->unobserved[b] == c->unobserved[a];
}

/* Kinematics of a bin into y; false where there are none. */
static bool movement(const cutter *c, int64_t bin, double *y)
{
	if (bin < 0 || bin >= (int64_t)c->s->n_bins) return false;
	if (c->s->kin_ok && !c->s->kin_ok[bin]) return false;
	for (uint32_t k = 0; k < c->n_column; k++)
		y[k] = c->s->kin[(size_t)bin * c->s->n_kin + c->column[k]];
	return true;
}

static cx_status cut_continuous(cutter *c)
{
	int64_t n = (int64_t)c->s->n_bins;
	/* 0.7 + 0.1 is not quite 0.8 */
	int64_t val = (int64_t)floor((double)n * c->o->train + 1e-9);
	int64_t test = (int64_t)floor((double)n * (c->o->train + c->o->val) + 1e-6);
	for (int64_t b = 0; b < n; b++) {
		cx_place p = {.bin = (int32_t)b,
			.part = b < val    ? CX_PART_TRAIN
					: b < test ? CX_PART_VAL
							   : CX_PART_TEST};
		cx_status st;
		if (p.part == CX_PART_TRAIN && b % c->o->stride) continue;
		if (b + c->o->ahead >= n) c->out->dropped_edge++;
		else if (!movement(c, b, p.y)) c->out->dropped_kin++;
		else if (!was_observed(c, first_bin(c, b), b + c->o->ahead + 1)) c->out->dropped_obs++;
		else if ((st = add(c, &p)) != CX_OK) return st;
	}
	return CX_OK;
}

/* The first sample at or after a time, or the last one. */
static bool sample_at(const cutter *c, double time, double *y)
{
	const cx_recording *r = c->r;
	size_t lo = 0, hi = r->n_samples;
	bool ok = true;
	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;
		if (r->kin_time[mid] < time) lo = mid + 1;
		else hi = mid;
	}
	if (lo == r->n_samples) lo--;
	for (uint32_t k = 0; k < c->n_column; k++) {
		y[k] = r->kin[lo * r->n_kin + c->column[k]];
		ok = ok && isfinite(y[k]);
	}
	return ok;
}

static cx_status cut_trial(cutter *c, const cx_trial *trial, cx_part part)
{
	const cx_session *s = c->s;
	cx_places *out = c->out;
	double onset = floor((trial->onset - s->t0) / s->bin_seconds);
	int64_t n = (int64_t)s->n_bins, before = 0, after = 1, lag = 0;
	if (!(onset > -1e9 && onset < 1e9)) {
		out->dropped_edge++;
		return CX_OK;
	}
	if (c->o->protocol == CX_PROTOCOL_NLB) {
		before = llround(nlb_before / s->bin_seconds);
		after = llround(nlb_after / s->bin_seconds);
		lag = llround(c->o->lag_seconds / s->bin_seconds);
	}
	for (int64_t b = (int64_t)onset - before; b < (int64_t)onset + after; b++) {
		cx_place p = {.bin = (int32_t)b, .part = (uint32_t)part};
		bool trial_only = c->o->protocol == CX_PROTOCOL_TRIAL;
		int64_t from = trial_only ? first_bin(c, b) : b, end = b + c->o->ahead + 1;
		cx_status st;
		if (first_bin(c, b) < 0 || end > n) out->dropped_edge++;
		else if (!was_observed(c, from, trial_only ? end : b + 1)) out->dropped_obs++;
		else if (!(trial_only ? sample_at(c, trial->onset, p.y) : movement(c, b + lag, p.y)))
			out->dropped_kin++;
		else if ((st = add(c, &p)) != CX_OK) return st;
	}
	return CX_OK;
}

static cx_status cut_trials(cutter *c)
{
	size_t n_train = 0, seen = 0;
	cx_status st;
	if (!c->r || c->r->n_trials == 0)
		return CX_FAIL(c->err, CX_ERR_FORMAT,
			"%s: the trial protocols need /intervals/trials with move_onset_time and split",
			c->r ? c->r->label : "a binned session");
	for (size_t i = 0; i < c->r->n_trials; i++) n_train += c->r->trials[i].split == CX_TRIAL_TRAIN;
	for (size_t i = 0; i < c->r->n_trials; i++) {
		const cx_trial *t = &c->r->trials[i];
		cx_part part = CX_PART_TEST;
		if (t->split != CX_TRIAL_TRAIN && t->split != CX_TRIAL_VAL) continue;
		if (t->split == CX_TRIAL_TRAIN)
			part = (double)seen++ < (double)n_train * (1 - c->o->val) - 1e-9 ? CX_PART_TRAIN
																			 : CX_PART_VAL;
		if ((st = cut_trial(c, t, part)) != CX_OK) return st;
	}
	if (c->out->n == 0)
		return CX_FAIL(c->err, CX_ERR_FORMAT,
			"%s: no trial of /intervals/trials can be used: of %zu, %zu are marked train, and %u "
			"windows left the recording, %u the observed time, %u had no movement",
			c->r->label, c->r->n_trials, n_train, c->out->dropped_edge, c->out->dropped_obs,
			c->out->dropped_kin);
	return CX_OK;
}

/* Windows of earlier parts that share a bin with a later part's. used [n_bins + 1]: how many bins
 * before each are in a later part. */
static void keep_apart(cutter *c, uint8_t *mark, uint32_t *used)
{
	size_t n = c->s->n_bins, kept;
	memset(mark, 0, n);
	for (int part = CX_PART_TEST; part >= CX_PART_TRAIN; part--) {
		used[0] = 0;
		for (size_t t = 0; t < n; t++) used[t + 1] = used[t] + mark[t];
		kept = 0;
		for (size_t i = 0; i < c->out->n; i++) {
			const cx_place *p = &c->out->at[i];
			int64_t a = first_bin(c, p->bin), b = p->bin + (int64_t)c->o->ahead + 1;
			a = a < 0 ? 0 : a;
			if ((int)p->part == part && used[b] != used[a]) {
				c->out->dropped_gap++;
				continue;
			}
			if ((int)p->part == part) memset(mark + a, 1, (size_t)(b - a));
			c->out->at[kept++] = *p;
		}
		c->out->n = kept;
	}
}

cx_status cx_protocol_cut(const cx_dataset_opts *opts, const cx_session *s, const cx_recording *r,
	const uint32_t *column, uint32_t n_column, cx_places *out, cx_err *err)
{
	cutter c = {opts, s, r, column, n_column, NULL, out, err};
	size_t n = s->n_bins;
	uint32_t *sums = cx_calloc(&s->alloc, 2 * (n + 1), sizeof *sums);
	uint8_t *mark = cx_malloc(&s->alloc, n);
	cx_status st;
	memset(out, 0, sizeof *out);
	out->alloc = s->alloc;
	if (!sums || !mark) {
		st = CX_FAIL(err, CX_ERR_MEMORY, "windows: out of memory");
		goto done;
	}
	if (s->observed) {
		for (size_t t = 0; t < n; t++) sums[t + 1] = sums[t] + !s->observed[t];
		c.unobserved = sums;
	}
	st = opts->protocol == CX_PROTOCOL_CONTINUOUS ? cut_continuous(&c) : cut_trials(&c);
	if (st == CX_OK) keep_apart(&c, mark, sums + n + 1);
done:
	cx_free(&s->alloc, sums, 2 * (n + 1) * sizeof *sums);
	cx_free(&s->alloc, mark, n);
	if (st != CX_OK) cx_places_deinit(out);
	return st;
}
