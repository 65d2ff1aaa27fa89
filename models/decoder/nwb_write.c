/* nwb_write.c - writes a recording as NWB 2. See nwb.h. */
#include "models/decoder/nwb.h"
#include "models/files/hdf5.h"
#include "models/files/map.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

typedef struct writer {
	const cx_h5_api *h5;
	cx_h5 *file;
	const cx_recording *r;
	cx_arena arena; /* for columns being put together */
	cx_status st;   /* the first failure */
	cx_err *err;
} writer;

static void attr(writer *w, const char *name, const char *key, const char *value)
{
	if (w->st == CX_OK) w->st = w->h5->write_attr(w->file, name, key, value, w->err);
}

/* What NWB's readers ask of an object: its type and where that is defined. */
static void type(writer *w, const char *name, const char *space, const char *type)
{
	attr(w, name, "namespace", space);
	attr(w, name, "neurodata_type", type);
}

static void f64(writer *w, const char *name, uint64_t rows, uint64_t cols, const double *src)
{
	if (w->st == CX_OK)
		w->st =
			w->h5->write_f64(w->file, name, cols ? 2 : 1, (uint64_t[]){rows, cols}, src, w->err);
}

static void i64(writer *w, const char *name, uint64_t n, const int64_t *src)
{
	if (w->st == CX_OK) w->st = w->h5->write_i64(w->file, name, 1, &n, src, w->err);
}

static void text(writer *w, const char *name, const char *value)
{
	if (w->st == CX_OK) w->st = w->h5->write_text(w->file, name, 0, 1, &value, w->err);
}

/* n values of 8 bytes. */
static void *column(writer *w, size_t n)
{
	void *p = cx_arena_array(&w->arena, n + 1, 8);
	if (!p && w->st == CX_OK) w->st = CX_FAIL(w->err, CX_ERR_MEMORY, "NWB: out of memory");
	return p;
}

static void write_units(writer *w)
{
	const cx_recording *r = w->r;
	int64_t *id = column(w, r->n_units);
	if (w->st != CX_OK) return;
	f64(w, "/units/spike_times", r->n_spikes, 0, r->spikes);
	i64(w, "/units/spike_times_index", r->n_units, (const int64_t *)r->unit_end);
	if (r->n_obs) {
		f64(w, "/units/obs_intervals", r->n_obs, 2, r->obs);
		i64(w, "/units/obs_intervals_index", r->n_units, (const int64_t *)r->obs_end);
	}
	for (size_t u = 0; u < r->n_units; u++) id[u] = r->heldout ? r->heldout[u] : 0;
	i64(w, "/units/heldout", r->n_units, id);
	for (size_t u = 0; u < r->n_units; u++) id[u] = (int64_t)u;
	i64(w, "/units/id", r->n_units, id);
	type(w, "/units", "core", "Units");
	type(w, "/units/id", "hdmf-common", "ElementIdentifiers");
	type(w, "/units/spike_times", "hdmf-common", "VectorData");
	type(w, "/units/spike_times_index", "hdmf-common", "VectorIndex");
}

/* Columns whose name begins with `prefix` as one series. */
static void write_series(writer *w, const char *prefix, const char *series, const char *unit)
{
	const cx_recording *r = w->r;
	size_t which[8], n = 0;
	char name[96];
	double *data;
	for (size_t c = 0; c < r->n_kin; c++)
		if (!strncmp(r->kin_name[c], prefix, strlen(prefix))) which[n++] = c;
	if (n == 0 || !(data = column(w, r->n_samples * n))) return;
	for (size_t i = 0; i < r->n_samples; i++)
		for (size_t c = 0; c < n; c++) data[i * n + c] = r->kin[i * r->n_kin + which[c]];
	snprintf(name, sizeof name, "/processing/behavior/%s/data", series);
	f64(w, name, r->n_samples, n, data);
	attr(w, name, "unit", unit);
	snprintf(name, sizeof name, "/processing/behavior/%s/timestamps", series);
	f64(w, name, r->n_samples, 0, r->kin_time);
	attr(w, name, "unit", "seconds");
	snprintf(name, sizeof name, "/processing/behavior/%s", series);
	type(w, name, "core", "TimeSeries");
}

static void write_trials(writer *w)
{
	const cx_recording *r = w->r;
	double *x = column(w, r->n_trials);
	const char **split = column(w, r->n_trials);
	int64_t *id = column(w, r->n_trials);
	static const char *const name[] = {"/intervals/trials/start_time",
		"/intervals/trials/stop_time", "/intervals/trials/move_onset_time"};
	if (w->st != CX_OK || r->n_trials == 0) return;
	for (size_t c = 0; c < 3; c++) {
		for (size_t i = 0; i < r->n_trials; i++)
			x[i] = c == 0 ? r->trials[i].start : c == 1 ? r->trials[i].stop : r->trials[i].onset;
		f64(w, name[c], r->n_trials, 0, x);
		type(w, name[c], "hdmf-common", "VectorData");
	}
	for (size_t i = 0; i < r->n_trials; i++) {
		split[i] = cx_trial_split_name(r->trials[i].split);
		id[i] = (int64_t)i;
	}
	i64(w, "/intervals/trials/id", r->n_trials, id);
	if (w->st == CX_OK)
		w->st =
			w->h5->write_text(w->file, "/intervals/trials/split", 1, r->n_trials, split, w->err);
	type(w, "/intervals/trials", "core", "TimeIntervals");
}

static void write_all(writer *w)
{
	attr(w, "/", "namespace", "core");
	attr(w, "/", "neurodata_type", "NWBFile");
	attr(w, "/", "nwb_version", "2.4.0");
	text(w, "/session_description", "simulated reaching with known Bayes-optimal decoding");
	write_units(w);
	write_series(w, "pos_", "hand_pos", "m");
	write_series(w, "vel_", "hand_vel", "m/s");
	write_trials(w);
}

/* On disk, and under its name. */
static cx_status publish(const char *temp, const char *path, cx_err *err)
{
	int fd = open(temp, O_RDONLY);
	bool ok = fd >= 0 && fsync(fd) == 0;
	if (fd >= 0) close(fd);
	if (ok && rename(temp, path) == 0) return CX_OK;
	return CX_FAIL(err, CX_ERR_IO, "%s: %s", cx_path_tail(path), strerror(errno));
}

cx_status cx_nwb_write(const char *path, const cx_recording *r, const cx_nwb_opts *opts,
	const cx_alloc *alloc, cx_err *err)
{
	writer w = {.r = r, .err = err};
	char temp[1100];
	cx_status st;
	if (snprintf(temp, sizeof temp, "%s.%ld.tmp", path, (long)getpid()) >= (int)sizeof temp)
		return CX_FAIL(err, CX_ERR_ARGUMENT, "the path of an NWB file is too long");
	if ((st = cx_h5_load(opts ? opts->plugin_folder : NULL, &w.h5, err)) != CX_OK) return st;
	if ((st = w.h5->open(alloc, temp, true, &w.file, err)) != CX_OK) return st;
	cx_arena_init(&w.arena, alloc);
	write_all(&w);
	cx_arena_deinit(&w.arena);
	st = w.h5->close(w.file, w.st == CX_OK ? err : NULL);
	if (w.st != CX_OK) st = w.st;
	if (st == CX_OK) st = publish(temp, path, err);
	if (st != CX_OK) unlink(temp);
	return st;
}
