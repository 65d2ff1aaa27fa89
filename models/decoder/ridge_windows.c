/* ridge_windows.c - ridge regression from windows of a dataset. See ridge.h.
 *
 * Rows of features are made from a batch of events, added to the sums of their fold, and forgotten:
 * memory holds one matrix per fold, whatever the number of windows. */
#include "models/decoder/linalg.h"
#include "models/decoder/metrics.h"
#include "models/decoder/ridge.h"

#include <math.h>
#include <string.h>

enum { FOLDS = 5, BATCH = 256, MAX_FEATURES = 6000 };

typedef struct sums {
	double n, *g, *x, *y, *xy; /* [k,k] lower half, [k], [d], [k,d] */
} sums;

typedef struct work {
	const cx_dataset *d;
	const cx_ridge_opts *o;
	const cx_dataset_info *info;
	size_t k, dim;
	cx_arena arena;
	sums fold[FOLDS], rest;
	double *gram, *w, bias[CX_MAX_BEHAVIOR];
	double *row; /* [BATCH, k] */
	cx_batch batch;
	cx_err *err;
} work;

void cx_ridge_boxes(const cx_dataset_info *info, size_t groups, double *taps)
{
	size_t n = info->window;
	memset(taps, 0, groups * n * sizeof *taps);
	for (size_t g = 0; g < groups; g++) {
		size_t a = n * g / groups, b = n * (g + 1) / groups;
		for (size_t t = a; t < b; t++) taps[g * n + t] = 1 / (double)(b - a);
	}
}

void cx_ridge_gauss(const cx_dataset_info *info, double sd, double *taps)
{
	double sum = 0, middle = (double)(info->window - 1 - info->ahead);
	for (size_t t = 0; t < info->window; t++)
		sum += taps[t] = exp(-0.5 * ((double)t - middle) * ((double)t - middle) / (sd * sd));
	for (size_t t = 0; t < info->window; t++) taps[t] /= sum;
}

static bool sums_init(work *w, sums *s)
{
	s->g = cx_arena_array(&w->arena, w->k * w->k, sizeof *s->g);
	s->x = cx_arena_array(&w->arena, w->k, sizeof *s->x);
	s->y = cx_arena_array(&w->arena, w->dim, sizeof *s->y);
	s->xy = cx_arena_array(&w->arena, w->k * w->dim, sizeof *s->xy);
	return s->g && s->x && s->y && s->xy;
}

static void sums_add(work *w, sums *s, const sums *other)
{
	s->n += other->n;
	for (size_t i = 0; i < w->k * w->k; i++) s->g[i] += other->g[i];
	for (size_t i = 0; i < w->k; i++) s->x[i] += other->x[i];
	for (size_t i = 0; i < w->dim; i++) s->y[i] += other->y[i];
	for (size_t i = 0; i < w->k * w->dim; i++) s->xy[i] += other->xy[i];
}

/* Features of windows [first, first + n) of a part into rows, their targets into batch.target. */
static cx_status rows(work *w, cx_part part, uint32_t first, uint32_t n)
{
	uint32_t which[BATCH];
	size_t units = w->info->n_units;
	cx_status st;
	for (uint32_t i = 0; i < n; i++) which[i] = first + i;
	st = cx_dataset_fill(w->d, part, which, n, &w->batch, NULL, w->err);
	if (st != CX_OK) return st;
	memset(w->row, 0, n * w->k * sizeof *w->row);
	for (uint32_t i = 0; i < n; i++)
		for (int32_t e = w->batch.off[i]; e < w->batch.off[i + 1]; e++)
			for (size_t g = 0; g < w->o->n_taps; g++)
				w->row[i * w->k + g * units + (size_t)w->batch.neuron[e]] +=
					w->o->taps[g * w->info->window + (size_t)w->batch.time[e]] * w->batch.value[e];
	return CX_OK;
}

static void add_rows(work *w, sums *s, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++) {
		const double *x = w->row + i * w->k;
		const float *y = w->batch.target + i * w->dim;
		s->n++;
		for (size_t c = 0; c < w->dim; c++) s->y[c] += y[c];
		for (size_t a = 0; a < w->k; a++) {
			if (x[a] == 0) continue;
			s->x[a] += x[a];
			for (size_t c = 0; c < w->dim; c++) s->xy[a * w->dim + c] += x[a] * y[c];
			for (size_t b = 0; b <= a; b++) s->g[a * w->k + b] += x[a] * x[b];
		}
	}
}

static cx_status solve(work *w, double alpha)
{
	const sums *s = &w->rest;
	double shift = w->o->no_intercept ? 0 : 1 / s->n;
	cx_status st;
	for (size_t a = 0; a < w->k; a++) {
		for (size_t b = 0; b <= a; b++)
			w->gram[a * w->k + b] = s->g[a * w->k + b] - shift * s->x[a] * s->x[b];
		w->gram[a * w->k + a] += alpha;
		for (size_t c = 0; c < w->dim; c++)
			w->w[a * w->dim + c] = s->xy[a * w->dim + c] - shift * s->x[a] * s->y[c];
	}
	st = cx__chol_solve(w->gram, w->k, w->w, w->dim, "ridge", w->err);
	if (st != CX_OK) return st;
	for (size_t c = 0; c < w->dim; c++) {
		double b = s->y[c];
		for (size_t a = 0; a < w->k; a++) b -= w->w[a * w->dim + c] * s->x[a];
		w->bias[c] = shift * b;
	}
	return CX_OK;
}

/* The fold of a window: a block of its part, so that the parts need not be of one length. */
static size_t fold_of(uint32_t i, uint32_t n)
{
	return (size_t)i * FOLDS / n;
}

/* Truth and decoding of windows [first, end) of a part, [end - first, dim] each. */
static cx_status decode(
	work *w, cx_part part, uint32_t first, uint32_t end, double *truth, double *y)
{
	for (uint32_t i = first; i < end; i += BATCH) {
		uint32_t n = end - i < BATCH ? end - i : BATCH;
		cx_status st = rows(w, part, i, n);
		if (st != CX_OK) return st;
		for (uint32_t r = 0; r < n; r++)
			for (size_t c = 0; c < w->dim; c++) {
				double sum = w->bias[c];
				for (size_t a = 0; a < w->k; a++)
					sum += w->row[r * w->k + a] * w->w[a * w->dim + c];
				y[(i - first + r) * w->dim + c] = sum;
				truth[(i - first + r) * w->dim + c] = w->batch.target[r * w->dim + c];
			}
	}
	return CX_OK;
}

/* The alpha with the best mean R2 over the held-out blocks of train. */
static cx_status choose(work *w, cx_ridge_result *out)
{
	uint32_t n = w->info->n_windows[CX_PART_TRAIN];
	double *truth = cx_arena_array(&w->arena, (size_t)n * w->dim, sizeof *truth);
	double *y = cx_arena_array(&w->arena, (size_t)n * w->dim, sizeof *y);
	double mean[64] = {0}, r2[CX_MAX_BEHAVIOR];
	cx_status st;
	out->alpha = w->o->alphas[0];
	out->cv_r2 = NAN;
	if (w->o->n_alphas == 1) return CX_OK;
	if (!truth || !y) return CX_FAIL(w->err, CX_ERR_MEMORY, "ridge: out of memory");
	for (size_t f = 0; f < FOLDS; f++) {
		uint32_t first = 0, end;
		while (first < n && fold_of(first, n) < f) first++;
		for (end = first; end < n && fold_of(end, n) == f;) end++;
		const sums rest = w->rest; /* the same arrays */
		memset(rest.g, 0, w->k * w->k * sizeof *rest.g);
		memset(rest.x, 0, w->k * sizeof *rest.x);
		memset(rest.y, 0, w->dim * sizeof *rest.y);
		memset(rest.xy, 0, w->k * w->dim * sizeof *rest.xy);
		w->rest.n = 0;
		for (size_t k = 0; k < FOLDS; k++)
			if (k != f) sums_add(w, &w->rest, &w->fold[k]);
		for (size_t a = 0; a < w->o->n_alphas; a++) {
			if ((st = solve(w, w->o->alphas[a])) != CX_OK ||
				(st = decode(w, CX_PART_TRAIN, first, end, truth, y)) != CX_OK)
				return st;
			mean[a] += cx_r2(truth, y, end - first, w->dim, r2) / FOLDS;
		}
	}
	out->cv_r2 = -INFINITY;
	for (size_t a = 0; a < w->o->n_alphas; a++)
		if (mean[a] > out->cv_r2) {
			out->cv_r2 = mean[a];
			out->alpha = w->o->alphas[a];
		}
	return CX_OK;
}

static cx_status collect(work *w)
{
	for (int part = CX_PART_TRAIN; part <= CX_PART_VAL; part++) {
		uint32_t n = w->info->n_windows[part];
		for (uint32_t i = 0; i < n; i++) {
			cx_status st = rows(w, (cx_part)part, i, 1);
			if (st != CX_OK) return st;
			/* val windows take part in the last fit only */
			add_rows(w, part == CX_PART_TRAIN ? &w->fold[fold_of(i, n)] : &w->rest, 1);
		}
	}
	return CX_OK;
}

static cx_status run(work *w, cx_ridge_result *out)
{
	uint32_t n = w->info->n_windows[CX_PART_TEST], most = 0;
	double *truth, *y;
	sums val = {0};
	cx_status st;
	bool ok = sums_init(w, &w->rest) && sums_init(w, &val);
	for (size_t f = 0; f < FOLDS; f++) ok = ok && sums_init(w, &w->fold[f]);
	for (int p = 0; p < CX_PART_COUNT; p++)
		if (w->info->max_events[p] > most) most = w->info->max_events[p];
	w->batch.cap_events = most * BATCH;
	w->batch.off = cx_arena_array(&w->arena, BATCH + 1, sizeof *w->batch.off);
	w->batch.neuron = cx_arena_array(&w->arena, w->batch.cap_events + 1, sizeof(int32_t));
	w->batch.time = cx_arena_array(&w->arena, w->batch.cap_events + 1, sizeof(int32_t));
	w->batch.value = cx_arena_array(&w->arena, w->batch.cap_events + 1, sizeof(int32_t));
	w->batch.target = cx_arena_array(&w->arena, BATCH * w->dim, sizeof(float));
	w->row = cx_arena_array(&w->arena, BATCH * w->k, sizeof *w->row);
	w->gram = cx_arena_array(&w->arena, w->k * w->k, sizeof *w->gram);
	w->w = cx_arena_array(&w->arena, w->k * w->dim, sizeof *w->w);
	truth = cx_arena_array(&w->arena, (size_t)n * w->dim, sizeof *truth);
	y = cx_arena_array(&w->arena, (size_t)n * w->dim, sizeof *y);
	if (!ok || !w->batch.off || !w->batch.neuron || !w->batch.time || !w->batch.value ||
		!w->batch.target || !w->row || !w->gram || !w->w || !truth || !y)
		return CX_FAIL(w->err, CX_ERR_MEMORY, "ridge: %zu features do not fit in memory", w->k);
	if ((st = collect(w)) != CX_OK) return st;
	sums_add(w, &val, &w->rest);
	if ((st = choose(w, out)) != CX_OK) return st;
	w->rest = val;
	for (size_t f = 0; f < FOLDS; f++) sums_add(w, &w->rest, &w->fold[f]);
	if ((st = solve(w, out->alpha)) != CX_OK) return st;
	if ((st = decode(w, CX_PART_TEST, 0, n, truth, y)) != CX_OK) return st;
	out->r2_mean = cx_r2(truth, y, n, w->dim, out->r2);
	out->n_features = w->k;
	return CX_OK;
}

cx_status cx_ridge_windows(
	const cx_dataset *d, const cx_ridge_opts *opts, cx_ridge_result *out, cx_err *err)
{
	work w = {.d = d, .o = opts, .info = cx_dataset_get_info(d), .err = err};
	cx_status st;
	memset(out, 0, sizeof *out);
	w.k = opts->n_taps * w.info->n_units;
	w.dim = w.info->behavior_dim;
	if (w.k < 1 || w.k > MAX_FEATURES || opts->n_alphas < 1 || opts->n_alphas > 64)
		return CX_FAIL(err, CX_ERR_ARGUMENT,
			"ridge: %zu features (1 to %d are possible), %zu penalties (1 to 64)", w.k,
			MAX_FEATURES, opts->n_alphas);
	if (w.info->n_windows[CX_PART_TRAIN] < FOLDS || w.info->n_windows[CX_PART_TEST] < 1)
		return CX_FAIL(err, CX_ERR_ARGUMENT, "ridge: %u windows to train on, %u to test",
			w.info->n_windows[CX_PART_TRAIN], w.info->n_windows[CX_PART_TEST]);
	st = run(&w, out);
	cx_arena_deinit(&w.arena);
	return st;
}
