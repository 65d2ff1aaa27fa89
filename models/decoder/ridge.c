/* ridge.c - history and penalty of the lagged decoder by blocked cross-validation. See ridge.h. */
#include "models/decoder/ridge.h"
#include "models/decoder/lagged.h"

#include <math.h>
#include <string.h>

enum { FOLDS = 4, MAX_FEATURES = 4000, MAX_STEPS = 20 };

void cx_ridge_alphas(double lo, double hi, double *alphas)
{
	for (int i = 0; i < CX_RIDGE_ALPHAS; i++)
		alphas[i] = lo * pow(hi / lo, (double)i / (CX_RIDGE_ALPHAS - 1));
}

typedef struct tuner {
	const cx_session *s;
	size_t n_train, history, k, d;
	cx_lagged all, rest; /* of the training part; of it without one block */
	double *gram, *w, *bias;
	double sse[CX_RIDGE_ALPHAS][CX_MAX_BEHAVIOR], sst[CX_MAX_BEHAVIOR];
	double alphas[CX_RIDGE_ALPHAS];
	bool wanted[CX_MAX_BEHAVIOR]; /* columns whose gain is worth a longer history */
} tuner;

static size_t block_start(const tuner *t, size_t fold)
{
	return t->n_train * fold / FOLDS;
}

/* Squared errors of one block's bins under the weights in hand. */
static void score(tuner *t, const cx_events *e, size_t first, size_t n, double *sse)
{
	const cx_session *s = t->s;
	double y[CX_MAX_BEHAVIOR];
	for (size_t b = 0; b < n; b++) {
		if (!cx__lagged_valid(s, t->history, first, first + b)) continue;
		memcpy(y, t->bias, t->d * sizeof *y);
		for (size_t h = 0; h < t->history && h <= b; h++)
			for (uint32_t i = e->start[b - h]; i < e->start[b - h + 1]; i++) {
				const double *w = t->w + (h * s->n_units + e->unit[i]) * t->d;
				for (size_t c = 0; c < t->d; c++) y[c] += e->count[i] * w[c];
			}
		for (size_t c = 0; c < t->d; c++) {
			double r = s->kin[(first + b) * t->d + c] - y[c];
			sse[c] += r * r;
		}
	}
}

/* Everything but one block: the whole sums less that block's. */
static void leave_out(tuner *t)
{
	size_t n = t->k * t->k + t->k + t->d + t->k * t->d;
	for (size_t i = 0; i < n; i++) t->rest.block[i] = t->all.block[i] - t->rest.block[i];
	t->rest.n = t->all.n - t->rest.n;
}

static cx_status fold(tuner *t, size_t f, cx_err *err)
{
	const cx_session *s = t->s;
	size_t first = block_start(t, f), n = block_start(t, f + 1) - first;
	cx_events e;
	cx_status st;
	memset(t->rest.block, 0, (t->k * t->k + t->k + t->d + t->k * t->d) * sizeof(double));
	t->rest.n = 0;
	if ((st = cx__lagged_add(&t->rest, s, first, n, err)) != CX_OK) return st;
	if ((st = cx_events_init(&e, &s->alloc, s->spikes + first * s->n_units, n, s->n_units, err)) !=
		CX_OK)
		return st;
	leave_out(t);
	for (size_t a = 0; st == CX_OK && a < CX_RIDGE_ALPHAS; a++) {
		st = cx__lagged_solve(
			&t->rest, t->alphas[a], t->gram, t->w, t->bias, "ridge, cross-validation", err);
		if (st == CX_OK) score(t, &e, first, n, t->sse[a]);
	}
	cx_events_deinit(&e);
	return st;
}

/* Total sum of squares of the bins that are scored, around their mean. */
static void total(tuner *t)
{
	double mean[CX_MAX_BEHAVIOR] = {0};
	for (size_t c = 0; c < t->d; c++) mean[c] = t->all.y[c] / t->all.n;
	memset(t->sst, 0, sizeof t->sst);
	for (size_t f = 0; f < FOLDS; f++)
		for (size_t b = block_start(t, f); b < block_start(t, f + 1); b++)
			for (size_t c = 0; c < t->d && cx__lagged_valid(t->s, t->history, block_start(t, f), b);
				 c++) {
				double r = t->s->kin[b * t->d + c] - mean[c];
				t->sst[c] += r * r;
			}
}

/* One history: sums, then every fold and alpha. *better: a column has gained. */
static cx_status try_history(tuner *t, cx_ridge_choice *out, bool *better,
	void (*progress)(void *, double), void *ctx, cx_err *err)
{
	cx_status st;
	size_t bytes = (t->k * t->k + t->k * t->d + t->d) * sizeof(double);
	if ((st = cx__lagged_init(&t->all, t->s, t->history, err)) != CX_OK ||
		(st = cx__lagged_init(&t->rest, t->s, t->history, err)) != CX_OK)
		goto done;
	if (!(t->gram = cx_malloc(&t->s->alloc, bytes))) {
		st = CX_FAIL(err, CX_ERR_MEMORY, "ridge: out of memory");
		goto done;
	}
	t->w = t->gram + t->k * t->k;
	t->bias = t->w + t->k * t->d;
	memset(t->sse, 0, sizeof t->sse);
	for (size_t f = 0; st == CX_OK && f < FOLDS; f++)
		st = cx__lagged_add(
			&t->all, t->s, block_start(t, f), block_start(t, f + 1) - block_start(t, f), err);
	for (size_t f = 0; st == CX_OK && f < FOLDS; f++) {
		if (progress) progress(ctx, (double)f / FOLDS);
		st = fold(t, f, err);
	}
	if (st != CX_OK) goto done;
	total(t);
	*better = false;
	for (size_t c = 0; c < t->d; c++)
		for (size_t a = 0; a < CX_RIDGE_ALPHAS; a++) {
			double r2 = 1 - t->sse[a][c] / fmax(t->sst[c], 1e-8);
			if (!(r2 > out->cv_r2[c])) continue;
			*better = *better || t->wanted[c];
			out->cv_r2[c] = r2;
			out->alpha[c] = t->alphas[a];
			out->history[c] = t->history;
		}
	out->n_tried += CX_RIDGE_ALPHAS;
done:
	cx__lagged_deinit(&t->all);
	cx__lagged_deinit(&t->rest);
	cx_free(&t->s->alloc, t->gram, bytes);
	t->gram = NULL;
	return st;
}

cx_status cx_ridge_tune(const cx_session *s, size_t n_train, size_t step,
	void (*progress)(void *ctx, double done), void *ctx, cx_ridge_choice *out, cx_err *err)
{
	tuner t = {.s = s, .n_train = n_train, .d = s->n_kin};
	bool better = true;
	size_t n_vel = 0;
	memset(out, 0, sizeof *out);
	for (size_t c = 0; c < CX_MAX_BEHAVIOR; c++) out->cv_r2[c] = -INFINITY;
	if (n_train < 10 * FOLDS || n_train > s->n_bins)
		return CX_FAIL(
			err, CX_ERR_ARGUMENT, "ridge: %zu bins are too few for %d blocks", n_train, FOLDS);
	if (step == 0) step = s->bin_seconds > 0 ? (size_t)fmax(1, round(0.25 / s->bin_seconds)) : 5;
	if (step * s->n_units > MAX_FEATURES)
		step = s->n_units < MAX_FEATURES ? MAX_FEATURES / s->n_units : 1;
	cx_ridge_alphas(10, 1e5, t.alphas);
	for (size_t c = 0; c < t.d; c++) n_vel += t.wanted[c] = !strncmp(s->kin_name[c], "vel", 3);
	for (size_t c = 0; n_vel == 0 && c < t.d; c++) t.wanted[c] = true;
	for (size_t i = 1; i <= MAX_STEPS && better; i++) {
		cx_status st;
		t.history = i * step;
		t.k = t.history * s->n_units;
		if (i > 1 && t.k > MAX_FEATURES) break;
		if ((st = try_history(&t, out, &better, progress, ctx, err)) != CX_OK) return st;
	}
	if (progress) progress(ctx, 1);
	return CX_OK;
}

cx_status cx_ridge_decode(const cx_session *s, size_t n_train, const cx_ridge_choice *choice,
	size_t first, size_t n, double *y, cx_err *err)
{
	size_t d = s->n_kin;
	double *all = cx_malloc(&s->alloc, n * d * sizeof *all);
	cx_status st = all ? CX_OK : CX_FAIL(err, CX_ERR_MEMORY, "ridge: out of memory");
	for (size_t c = 0; st == CX_OK && c < d; c++) {
		cx_wiener w;
		bool done = false; /* with an earlier column's choice */
		for (size_t b = 0; b < c; b++)
			done = done || (choice->history[b] == choice->history[c] &&
							   choice->alpha[b] == choice->alpha[c]);
		if (done) continue;
		st = cx_wiener_fit(s, n_train, choice->history[c], choice->alpha[c], &w, err);
		if (st != CX_OK) break;
		cx_wiener_decode(&w, s, first, n, all);
		for (size_t b = c; b < d; b++)
			if (choice->history[b] == choice->history[c] && choice->alpha[b] == choice->alpha[c])
				for (size_t i = 0; i < n; i++) y[i * d + b] = all[i * d + b];
		cx_wiener_deinit(&w);
	}
	cx_free(&s->alloc, all, n * d * sizeof *all);
	return st;
}
