/* session_mat.c - a binned recording from a MATLAB 5 file. See session.h. */
#include "models/decoder/session.h"
#include "models/files/mat5.h"

#include <math.h>
#include <string.h>

/* A matrix as doubles, [bins, cols] once its longer side is taken for the bins. */
typedef struct table {
	const char *name;
	double *x; /* column-major as stored, [n] */
	size_t bins, cols, n;
	bool bins_first; /* stored [bins, cols]: element (b, c) at b + c bins */
} table;

static double at(const table *t, size_t bin, size_t col)
{
	return t->x[t->bins_first ? bin + col * t->bins : col + bin * t->cols];
}

static cx_status get(const cx_mat5 *m, const char *const *names, cx_need need, cx_arena *arena,
	table *t, cx_err *err)
{
	const cx_mat5_array *a = NULL;
	cx_status st;
	memset(t, 0, sizeof *t);
	for (size_t i = 0; names[i] && !a; i++) {
		t->name = names[i];
		if ((st = cx_mat5_get(m, names[i], CX_OPTIONAL, &a, err)) != CX_OK) return st;
	}
	if (!a && need == CX_OPTIONAL) return CX_OK;
	if (!a) return cx_mat5_get(m, names[0], need, &a, err);
	if (a->rank != 2 || a->n < 1)
		return CX_FAIL(err, CX_ERR_SHAPE, "%s: '%s' is empty or has rank %d; a matrix is wanted",
			m->label, t->name, (int)a->rank);
	t->n = (size_t)a->n;
	t->bins_first = a->dims[0] >= a->dims[1];
	t->bins = (size_t)a->dims[t->bins_first ? 0 : 1];
	t->cols = (size_t)a->dims[t->bins_first ? 1 : 0];
	t->x = cx_arena_array(arena, t->n, sizeof *t->x);
	if (!t->x) return CX_FAIL(err, CX_ERR_MEMORY, "%s: out of memory", m->label);
	cx_mat5_to_f64(a, t->x);
	return CX_OK;
}

static cx_status copy(const cx_mat5 *m, const table *spikes, const table *pos, const table *vel,
	cx_session *s, cx_err *err)
{
	size_t n_vel = vel->cols < 2 ? vel->cols : 2, n_pos = s->n_kin - n_vel;
	for (size_t t = 0; t < s->n_bins; t++) {
		for (size_t u = 0; u < s->n_units; u++) {
			double c = at(spikes, t, u);
			if (!(c >= 0 && c <= 255 && c == floor(c)))
				return CX_FAIL(err, CX_ERR_FORMAT,
					"%s: '%s': bin %zu, unit %zu: %g is no spike count (a whole number in 0..255)",
					m->label, spikes->name, t, u, c);
			s->spikes[t * s->n_units + u] = (uint8_t)c;
		}
		for (size_t c = 0; c < s->n_kin; c++) {
			const table *from = c < n_pos ? pos : vel;
			double v = at(from, t, c < n_pos ? c : c - n_pos);
			if (!(fabs(v) <= 1e15))
				return CX_FAIL(err, CX_ERR_FORMAT,
					"%s: '%s': bin %zu, column %zu: %g is not a number in -1e15..1e15", m->label,
					from->name, t, c < n_pos ? c : c - n_pos, v);
			s->kin[t * s->n_kin + c] = v;
		}
	}
	return CX_OK;
}

static cx_status load(
	const cx_mat5 *m, const cx_alloc *alloc, cx_arena *arena, cx_session *out, cx_err *err)
{
	static const char *const spike_names[] = {"spikes", "spike_counts", "counts", NULL};
	static const char *const pos_names[] = {"handPos", "pos", "position", NULL};
	static const char *const vel_names[] = {"handVel", "vel", "velocity", NULL};
	static const char *const time_names[] = {"time", NULL};
	table spikes, pos, vel, time;
	size_t n_pos;
	cx_status st;
	if ((st = get(m, spike_names, CX_REQUIRED, arena, &spikes, err)) != CX_OK ||
		(st = get(m, vel_names, CX_REQUIRED, arena, &vel, err)) != CX_OK ||
		(st = get(m, pos_names, CX_OPTIONAL, arena, &pos, err)) != CX_OK ||
		(st = get(m, time_names, CX_OPTIONAL, arena, &time, err)) != CX_OK)
		return st;
	if (vel.bins != spikes.bins || (pos.x && pos.bins != spikes.bins))
		return CX_FAIL(err, CX_ERR_SHAPE, "%s: '%s' has %zu bins, but '%s' %zu", m->label,
			spikes.name, spikes.bins, vel.bins != spikes.bins ? vel.name : pos.name,
			vel.bins != spikes.bins ? vel.bins : pos.bins);
	n_pos = vel.cols < 2 || !pos.x ? 0 : pos.cols < 2 ? pos.cols : 2;
	st = cx_session_init(
		out, alloc, spikes.bins, spikes.cols, n_pos + (vel.cols < 2 ? vel.cols : 2), false, err);
	if (st != CX_OK) return st;
	if (time.x && time.n == spikes.bins && time.n > 1) {
		double width = (time.x[time.n - 1] - time.x[0]) / (double)(time.n - 1);
		if (width > 0 && isfinite(width)) out->bin_seconds = width;
	}
	return copy(m, &spikes, &pos, &vel, out, err);
}

cx_status cx_session_load_mat(const char *path, const cx_alloc *alloc, cx_session *out, cx_err *err)
{
	cx_mat5 m;
	cx_arena arena;
	cx_status st;
	memset(out, 0, sizeof *out);
	if ((st = cx_mat5_open(alloc, path, &m, err)) != CX_OK) return st;
	cx_arena_init(&arena, alloc);
	st = load(&m, alloc, &arena, out, err);
	if (st != CX_OK) cx_session_deinit(out);
	cx_arena_deinit(&arena);
	cx_mat5_close(&m);
	return st;
}
