/* nwb.c - reads a recording from NWB. See nwb.h. */
#include "models/decoder/nwb.h"
#include "models/files/hdf5.h"
#include "models/files/map.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

/* What the child that reads first tells its parent, in shared memory: it may die at any moment. */
typedef struct probe {
	cx_status st;
	cx_err err;
	char field[96]; /* being read */
} probe;

typedef struct reader {
	const cx_h5_api *h5;
	cx_h5 *file;
	cx_recording *r;
	probe *told; /* NULL in the parent */
	const char *label;
	cx_err *err;
} reader;

static cx_status find(reader *rd, const char *name, cx_h5_object *o)
{
	if (rd->told) snprintf(rd->told->field, sizeof rd->told->field, "%s", name);
	return rd->h5->find(rd->file, name, o, rd->err);
}

/* A column of [n] or [n, 2..8] numbers. Absent and OPTIONAL: *dst stays NULL. */
static cx_status numbers(
	reader *rd, const char *name, cx_need need, bool whole, size_t *n, size_t *cols, void *dst)
{
	cx_h5_object o;
	void *p;
	cx_status st = find(rd, name, &o);
	if (st != CX_OK) return st;
	if (o.kind == CX_H5_NONE && need == CX_OPTIONAL) return CX_OK;
	if (o.kind == CX_H5_NONE)
		return CX_FAIL(rd->err, CX_ERR_FORMAT, "%s: %s is missing", rd->label, name);
	if ((o.kind != CX_H5_INT && o.kind != CX_H5_FLOAT) || (whole && o.kind != CX_H5_INT) ||
		o.rank < 1 || o.rank > (cols ? 2 : 1))
		return CX_FAIL(rd->err, CX_ERR_FORMAT, "%s: %s is no %s of %s numbers", rd->label, name,
			cols ? "table" : "column", whole ? "whole" : "real");
	if (cols) *cols = o.rank == 2 ? (size_t)o.dims[1] : 1;
	*n = (size_t)o.dims[0];
	p = cx_arena_array(&rd->r->arena, (size_t)o.n + 1, 8);
	if (!p) return CX_FAIL(rd->err, CX_ERR_MEMORY, "%s: %s: out of memory", rd->label, name);
	st = whole ? rd->h5->read_i64(rd->file, name, o.n, p, rd->err)
			   : rd->h5->read_f64(rd->file, name, o.n, p, rd->err);
	*(void **)dst = p;
	return st;
}

/* Cumulative ends of n_rows ragged rows over n_data values. */
static cx_status ragged(reader *rd, const char *name, size_t n_rows, size_t n_data, uint64_t **out)
{
	int64_t *end = NULL;
	size_t n = 0;
	cx_status st = numbers(rd, name, CX_REQUIRED, true, &n, NULL, &end);
	if (st != CX_OK) return st;
	if (n_rows && n != n_rows)
		return CX_FAIL(rd->err, CX_ERR_FORMAT, "%s: %s has %zu rows for %zu units", rd->label, name,
			n, n_rows);
	for (size_t i = 0; i < n; i++) {
		int64_t before = i ? end[i - 1] : 0;
		if (end[i] < before || (uint64_t)end[i] > n_data)
			return CX_FAIL(rd->err, CX_ERR_FORMAT,
				"%s: %s[%zu] is %lld; %lld to %zu would be valid", rd->label, name, i,
				(long long)end[i], (long long)before, n_data);
	}
	if (n && (uint64_t)end[n - 1] != n_data)
		return CX_FAIL(rd->err, CX_ERR_FORMAT, "%s: %s ends at %lld, but there are %zu values",
			rd->label, name, (long long)end[n - 1], n_data);
	*out = (uint64_t *)end;
	return CX_OK;
}

static cx_status read_heldout(reader *rd)
{
	cx_recording *r = rd->r;
	int64_t *flag = NULL;
	size_t n = 0;
	cx_status st = numbers(rd, "/units/heldout", CX_OPTIONAL, true, &n, NULL, &flag);
	if (st != CX_OK) return st;
	if (flag && n != r->n_units)
		return CX_FAIL(rd->err, CX_ERR_FORMAT, "%s: /units/heldout has %zu rows for %zu units",
			rd->label, n, r->n_units);
	r->heldout = cx_arena_array(&r->arena, r->n_units, sizeof *r->heldout);
	if (!r->heldout) return CX_FAIL(rd->err, CX_ERR_MEMORY, "%s: out of memory", rd->label);
	for (size_t u = 0; flag && u < n; u++) r->heldout[u] = flag[u] != 0;
	return CX_OK;
}

static cx_status read_units(reader *rd)
{
	cx_recording *r = rd->r;
	cx_h5_object o;
	int64_t *id = NULL;
	size_t n_id = 0, cols = 0;
	cx_status st;
	if ((st = find(rd, "/units", &o)) != CX_OK) return st;
	if (o.kind != CX_H5_GROUP)
		return CX_FAIL(rd->err, CX_ERR_FORMAT,
			"%s: /units is missing: the file has no sorted spikes", rd->label);
	if ((st = numbers(rd, "/units/id", CX_OPTIONAL, true, &n_id, NULL, &id)) != CX_OK ||
		(st = numbers(rd, "/units/spike_times", CX_REQUIRED, false, &r->n_spikes, NULL,
			 &r->spikes)) != CX_OK)
		return st;
	st = ragged(rd, "/units/spike_times_index", n_id, r->n_spikes, &r->unit_end);
	if (st != CX_OK || (st = find(rd, "/units/spike_times_index", &o)) != CX_OK) return st;
	r->n_units = (size_t)o.n;
	if (r->n_units < 1 || r->n_units > 65535)
		return CX_FAIL(rd->err, CX_ERR_FORMAT, "%s: /units has %zu rows; 1 to 65535 are read",
			rd->label, r->n_units);
	for (size_t i = 0; i < r->n_spikes; i++)
		if (!isfinite(r->spikes[i]))
			return CX_FAIL(rd->err, CX_ERR_FORMAT, "%s: /units/spike_times[%zu] is %g, no time",
				rd->label, i, r->spikes[i]);
	if ((st = read_heldout(rd)) != CX_OK) return st;
	st = numbers(rd, "/units/obs_intervals", CX_OPTIONAL, false, &r->n_obs, &cols, &r->obs);
	if (st != CX_OK || !r->obs) return st;
	if (cols != 2)
		return CX_FAIL(rd->err, CX_ERR_FORMAT,
			"%s: /units/obs_intervals has %zu columns; start and stop are wanted", rd->label, cols);
	for (size_t i = 0; i < r->n_obs; i++)
		if (!(r->obs[2 * i] <= r->obs[2 * i + 1]))
			return CX_FAIL(rd->err, CX_ERR_FORMAT,
				"%s: /units/obs_intervals[%zu] is %g to %g, no interval", rd->label, i,
				r->obs[2 * i], r->obs[2 * i + 1]);
	return ragged(rd, "/units/obs_intervals_index", r->n_units, r->n_obs, &r->obs_end);
}

/* Time stamps of a series: a column of its own, or a start and a rate. */
static cx_status read_time(reader *rd, const char *series)
{
	cx_recording *r = rd->r;
	char name[96];
	double rate = 0, start = 0;
	size_t n = 0;
	cx_h5_object o;
	cx_status st;
	snprintf(name, sizeof name, "%s/timestamps", series);
	if ((st = numbers(rd, name, CX_OPTIONAL, false, &n, NULL, &r->kin_time)) != CX_OK) return st;
	if (r->kin_time && n != r->n_samples)
		return CX_FAIL(rd->err, CX_ERR_FORMAT, "%s: %s has %zu values, but the data %zu rows",
			rd->label, name, n, r->n_samples);
	if (!r->kin_time) {
		snprintf(name, sizeof name, "%s/starting_time", series);
		if ((st = find(rd, name, &o)) != CX_OK) return st;
		if (o.kind != CX_H5_FLOAT || o.n != 1)
			return CX_FAIL(rd->err, CX_ERR_FORMAT,
				"%s: %s has neither timestamps nor starting_time", rd->label, series);
		if ((st = rd->h5->read_f64(rd->file, name, 1, &start, rd->err)) != CX_OK ||
			(st = rd->h5->read_attr_f64(rd->file, name, "rate", &rate, rd->err)) != CX_OK)
			return st;
		if (!(rate > 0 && rate < 1e9) || !isfinite(start))
			return CX_FAIL(rd->err, CX_ERR_FORMAT, "%s: %s: start %g s, rate %g Hz", rd->label,
				name, start, rate);
		r->kin_time = cx_arena_array(&r->arena, r->n_samples, sizeof *r->kin_time);
		if (!r->kin_time) return CX_FAIL(rd->err, CX_ERR_MEMORY, "%s: out of memory", rd->label);
		for (size_t i = 0; i < r->n_samples; i++) r->kin_time[i] = start + (double)i / rate;
	}
	for (size_t i = 0; i < r->n_samples; i++)
		if (!isfinite(r->kin_time[i]) || (i && !(r->kin_time[i] > r->kin_time[i - 1])))
			return CX_FAIL(rd->err, CX_ERR_FORMAT, "%s: %s[%zu] is %.9g, not after the one before",
				rd->label, name, i, r->kin_time[i]);
	return CX_OK;
}

static cx_status read_kinematics(reader *rd, const char *wanted)
{
	static const char *const known[] = {"hand_vel", "finger_vel", "cursor_vel"};
	cx_recording *r = rd->r;
	char series[64], name[80];
	cx_h5_object o = {0};
	cx_status st;
	for (size_t i = 0; i < (wanted ? 1 : sizeof known / sizeof *known); i++) {
		snprintf(series, sizeof series, "/processing/behavior/%.40s", wanted ? wanted : known[i]);
		if ((st = find(rd, series, &o)) != CX_OK) return st;
		if (o.kind != CX_H5_NONE) break;
	}
	if (o.kind == CX_H5_NONE && !wanted) return CX_OK;
	if (o.kind != CX_H5_GROUP)
		return CX_FAIL(rd->err, CX_ERR_FORMAT, "%s: %s is missing", rd->label, series);
	snprintf(name, sizeof name, "%s/data", series);
	st = numbers(rd, name, CX_REQUIRED, false, &r->n_samples, &r->n_kin, &r->kin);
	if (st != CX_OK) return st;
	if (r->n_samples < 1 || r->n_kin < 1 || r->n_kin > 8)
		return CX_FAIL(rd->err, CX_ERR_FORMAT,
			"%s: %s is [%zu, %zu]; at least one sample of 1 to 8 columns is wanted", rd->label,
			name, r->n_samples, r->n_kin);
	for (size_t c = 0; c < r->n_kin; c++) {
		size_t len = strlen(series);
		bool vel = r->n_kin == 2 && len > 4 && !strcmp(series + len - 4, "_vel");
		snprintf(r->kin_name[c], sizeof r->kin_name[c], "%s%c", vel ? "vel_" : "y",
			vel ? "xy"[c] : (char)('0' + c));
	}
	return read_time(rd, series);
}

static cx_status read_split(reader *rd)
{
	static const char name[] = "/intervals/trials/split";
	enum { WIDTH = 16 };
	cx_recording *r = rd->r;
	cx_h5_object o;
	char *text;
	cx_status st = find(rd, name, &o);
	if (st != CX_OK || o.kind == CX_H5_NONE) return st;
	if (o.kind != CX_H5_TEXT || o.rank != 1 || o.n != r->n_trials)
		return CX_FAIL(rd->err, CX_ERR_FORMAT, "%s: %s is no column of %zu words", rd->label, name,
			r->n_trials);
	text = cx_arena_array(&r->arena, r->n_trials + 1, WIDTH);
	if (!text) return CX_FAIL(rd->err, CX_ERR_MEMORY, "%s: out of memory", rd->label);
	if ((st = rd->h5->read_text(rd->file, name, o.n, WIDTH, text, rd->err)) != CX_OK) return st;
	for (size_t i = 0; i < r->n_trials; i++) {
		cx_trial_split s = CX_TRIAL_TRAIN;
		while (s < CX_TRIAL_NONE && strcmp(text + i * WIDTH, cx_trial_split_name(s)) != 0) s++;
		r->trials[i].split = s;
		if (s == CX_TRIAL_NONE && strcmp(text + i * WIDTH, "none") != 0)
			return CX_FAIL(rd->err, CX_ERR_FORMAT,
				"%s: %s[%zu] is '%.15s', none of train, val, test, none", rd->label, name, i,
				text + i * WIDTH);
	}
	return CX_OK;
}

static cx_status read_trials(reader *rd)
{
	static const char *const column[] = {"start_time", "stop_time", "move_onset_time"};
	cx_recording *r = rd->r;
	cx_status st;
	for (size_t c = 0; c < 3; c++) {
		double *x = NULL;
		size_t n = 0;
		char name[64];
		snprintf(name, sizeof name, "/intervals/trials/%s", column[c]);
		if ((st = numbers(rd, name, CX_OPTIONAL, false, &n, NULL, &x)) != CX_OK) return st;
		if (!x && c == 0) return CX_OK; /* no trials */
		if (c == 0) {
			r->n_trials = n;
			r->trials = cx_arena_array(&r->arena, n + 1, sizeof *r->trials);
			if (!r->trials) return CX_FAIL(rd->err, CX_ERR_MEMORY, "%s: out of memory", rd->label);
		} else if (x && n != r->n_trials) {
			return CX_FAIL(rd->err, CX_ERR_FORMAT, "%s: %s has %zu rows for %zu trials", rd->label,
				name, n, r->n_trials);
		}
		for (size_t i = 0; i < r->n_trials; i++) {
			double v = x ? x[i] : NAN;
			if (isinf(v))
				return CX_FAIL(
					rd->err, CX_ERR_FORMAT, "%s: %s[%zu] is %g, no time", rd->label, name, i, v);
			*(c == 0 ? &r->trials[i].start : c == 1 ? &r->trials[i].stop : &r->trials[i].onset) = v;
			r->trials[i].split = CX_TRIAL_NONE;
		}
	}
	for (size_t i = 0; i < r->n_trials; i++)
		if (r->trials[i].stop < r->trials[i].start)
			return CX_FAIL(rd->err, CX_ERR_FORMAT,
				"%s: /intervals/trials/stop_time[%zu] is before the start", rd->label, i);
	return read_split(rd);
}

static cx_status read_all(const cx_h5_api *h5, const char *path, const cx_nwb_opts *opts,
	const cx_alloc *alloc, probe *told, cx_recording *out, cx_err *err)
{
	reader rd = {.h5 = h5, .r = out, .told = told, .label = cx_path_tail(path), .err = err};
	cx_status st;
	cx_arena_init(&out->arena, alloc);
	if ((st = h5->open(alloc, path, false, &rd.file, err)) != CX_OK) goto done;
	out->label = cx_arena_strdup(&out->arena, rd.label);
	if (!out->label) {
		st = CX_FAIL(err, CX_ERR_MEMORY, "%s: out of memory", rd.label);
		goto done;
	}
	if ((st = read_units(&rd)) != CX_OK || (st = read_kinematics(&rd, opts->series)) != CX_OK)
		goto done;
	st = read_trials(&rd);
done:
	(void)h5->close(rd.file, NULL); /* read only: nothing can be lost */
	if (st != CX_OK) cx_recording_deinit(out);
	return st;
}

/* Never returns. Limits: a damaged file can also send the library round in a circle. */
static void child(const cx_h5_api *h5, const char *path, const cx_nwb_opts *opts, probe *told)
{
	struct rlimit no_core = {0, 0}, seconds = {120, 120};
	static const int signals[] = {SIGABRT, SIGSEGV, SIGBUS, SIGFPE, SIGXCPU, SIGALRM};
	int null = open("/dev/null", O_RDWR);
	cx_recording r = {0};
	for (size_t i = 0; i < sizeof signals / sizeof *signals; i++) signal(signals[i], SIG_DFL);
	setrlimit(RLIMIT_CORE, &no_core);
	setrlimit(RLIMIT_CPU, &seconds);
	alarm(600);
	if (null >= 0) {
		dup2(null, 1);
		dup2(null, 2);
	}
	told->st = read_all(h5, path, opts, NULL, told, &r, &told->err);
	_exit(0);
}

/* Reads in a child first: CX_OK if the parent may do the same. */
static cx_status survive(
	const cx_h5_api *h5, const char *path, const cx_nwb_opts *opts, cx_err *err)
{
	probe *told =
		mmap(NULL, sizeof *told, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	int status = 0;
	cx_status st = CX_OK;
	pid_t pid;
	if (told == MAP_FAILED) return CX_FAIL(err, CX_ERR_MEMORY, "NWB: out of memory");
	pid = fork();
	if (pid == 0) child(h5, path, opts, told);
	while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR) {
	}
	if (pid < 0) {
		st = CX_FAIL(err, CX_ERR_MEMORY, "%s: no process to read it in: %s", cx_path_tail(path),
			strerror(errno));
	} else if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
		st = CX_FAIL(err, CX_ERR_FORMAT,
			"%s: damaged so badly at %s that the HDF5 library died of it (%s)", cx_path_tail(path),
			told->field[0] ? told->field : "its head",
			WIFSIGNALED(status) ? strsignal(WTERMSIG(status)) : "memory fault");
	} else if (told->st != CX_OK && told->st != CX_ERR_MEMORY) {
		st = told->st; /* with the sentence as it was */
		if (err && err->code == CX_OK) *err = told->err;
	}
	munmap(told, sizeof *told);
	return st;
}

cx_status cx_nwb_read(const char *path, const cx_nwb_opts *opts, const cx_alloc *alloc,
	cx_recording *out, cx_err *err)
{
	static const cx_nwb_opts usual = {0};
	const cx_h5_api *h5;
	cx_file_map *map;
	cx_status st;
	memset(out, 0, sizeof *out);
	if (!opts) opts = &usual;
	/* The file first: "no such file" is worth more than "no plug-in". */
	if ((st = cx_file_map_open(alloc, path, &map, err)) != CX_OK) return st;
	cx_file_map_close(map);
	if ((st = cx_h5_load(opts->plugin_folder, &h5, err)) != CX_OK) return st;
	if ((st = survive(h5, path, opts, err)) != CX_OK) return st;
	return read_all(h5, path, opts, alloc, NULL, out, err);
}
