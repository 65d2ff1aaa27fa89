/* decoder_simulate.c - `cortex decoder simulate`: sessions whose best decoding is known, as NPY and
 * NWB. */
#include "models/decoder/metrics.h"
#include "models/decoder/nwb.h"
#include "models/files/npy.h"
#include "serve/cmd_decoder.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

cx_status cx__make_folder(const char *path, cx_err *err)
{
	char part[1024];
	if (snprintf(part, sizeof part, "%s", path) >= (int)sizeof part)
		return CX_FAIL(err, CX_ERR_ARGUMENT, "--out: the path is too long");
	for (char *c = part + 1; *c; c++)
		if (*c == '/') {
			*c = 0;
			mkdir(part, 0777); /* an error shows in the last one */
			*c = '/';
		}
	if (mkdir(part, 0777) != 0 && errno != EEXIST)
		return CX_FAIL(err, CX_ERR_IO, "%.120s: %s", path, strerror(errno));
	return CX_OK;
}

static cx_status write_session(const cx_session *s, const char *dir, cx_err *err)
{
	int64_t counts[2] = {(int64_t)s->n_bins, (int64_t)s->n_units};
	int64_t kin[2] = {(int64_t)s->n_bins, (int64_t)s->n_kin};
	char path[1100];
	cx_status st;
	snprintf(path, sizeof path, "%s/spikes.npy", dir);
	if ((st = cx_npy_write(NULL, path, CX_NPY_U1, 2, counts, s->spikes, err)) != CX_OK) return st;
	snprintf(path, sizeof path, "%s/kinematics.npy", dir);
	if ((st = cx_npy_write(NULL, path, CX_NPY_F8, 2, kin, s->kin, err)) != CX_OK) return st;
	snprintf(path, sizeof path, "%s/bayes.npy", dir);
	return cx_npy_write(NULL, path, CX_NPY_F8, 2, kin, s->bayes, err);
}

cx_status cx__simulate_session(const decoder_args *a, uint64_t subject, cx_session *s, cx_err *err)
{
	double r2[8];
	size_t first;
	char seen[40] = "";
	cx_simulate_opts o = a->sim;
	cx_status st;
	o.subject = subject;
	st = cx_simulate(&o, NULL, cx__progress, (void *)"simulating", s, err);
	if (st != CX_OK) return st;
	if (o.window) snprintf(seen, sizeof seen, " from %zu bins", o.window);
	first = cx_session_split(s, a->fraction);
	cx_r2(s->kin + first * s->n_kin, s->bayes + first * s->n_kin, s->n_bins - first, s->n_kin, r2);
	printf("simulated %zu units, %zu bins of %g ms, seed %llu; Bayes-optimal R2%s on the last %zu "
		   "bins:",
		s->n_units, s->n_bins, 1e3 * s->bin_seconds, (unsigned long long)a->sim.seed, seen,
		s->n_bins - first);
	for (size_t c = 0; c < s->n_kin; c++) printf(" %s %.4f", s->kin_name[c], r2[c]);
	printf("\n");
	return CX_OK;
}

/* NPY always; NWB where the plug-in is. */
static cx_status write_all(const decoder_args *a, const cx_session *s, const char *dir, cx_err *err)
{
	cx_recording r = {0};
	cx_err why = {0};
	char path[1100];
	cx_status st = write_session(s, dir, err);
	if (st != CX_OK) return st;
	printf("wrote %s/{spikes,kinematics,bayes}.npy\n", dir);
	if ((st = cx_simulate_recording(s, a->sim.seed, NULL, &r, err)) != CX_OK) return st;
	snprintf(path, sizeof path, "%s/session.nwb", dir);
	st = cx_nwb_write(path, &r, NULL, NULL, &why);
	if (st == CX_OK) {
		printf("wrote %s: %zu units, %zu spikes, %zu trials\n", path, r.n_units, r.n_spikes,
			r.n_trials);
	} else if (st == CX_ERR_UNSUPPORTED) {
		printf("no session.nwb: %s\n", why.msg);
		st = CX_OK;
	} else if (err) {
		*err = why;
	}
	cx_recording_deinit(&r);
	return st;
}

static cx_status one(decoder_args *a, uint64_t subject, const char *dir, cx_err *err)
{
	cx_session s = {0};
	cx_status st = cx__make_folder(dir, err);
	if (st == CX_OK) st = cx__simulate_session(a, subject, &s, err);
	if (st == CX_OK) st = write_all(a, &s, dir, err);
	cx_session_deinit(&s);
	return st;
}

/* The next number of a list with commas; 0 where there is none that will do. */
static size_t take(const char **list)
{
	char *end;
	unsigned long n = strtoul(*list, &end, 10);
	bool good = end != *list && n >= 1 && n <= 1000 && (!*end || (*end == ',' && end[1]));
	*list = end + (*end == ',');
	return good ? n : 0;
}

cx_status cx__decoder_simulate(decoder_args *a, cx_err *err)
{
	char dir[1024];
	const char *list = a->subjects;
	cx_status st = CX_OK;
	if (!a->out) return CX_FAIL(err, CX_ERR_ARGUMENT, "simulate needs --out DIR");
	if (!list || !strchr(list, ',')) return one(a, 0, a->out, err);
	while (*list)
		if (take(&list) == 0)
			return CX_FAIL(err, CX_ERR_ARGUMENT,
				"--units '%.60s' is no list of whole numbers in 1..1000", a->subjects);
	list = a->subjects;
	for (uint64_t subject = 1; st == CX_OK && *list; subject++) {
		a->sim.n_units = take(&list);
		if (snprintf(dir, sizeof dir, "%s/subject_%llu", a->out, (unsigned long long)subject) >=
			(int)sizeof dir)
			return CX_FAIL(err, CX_ERR_ARGUMENT, "--out: the path is too long");
		st = one(a, subject, dir, err);
	}
	return st;
}
