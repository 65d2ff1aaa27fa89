/* dataset_path.c - a session from whatever a path names. See dataset.h, cx_dataset_add_path(). */
#include "models/decoder/dataset.h"
#include "models/decoder/nwb.h"
#include "models/files/map.h"

#include <errno.h>
#include <glob.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

static bool ends(const char *s, const char *end)
{
	size_t n = strlen(s), k = strlen(end);
	return n >= k && !strcmp(s + n - k, end);
}

static cx_status add_nwb(cx_dataset *d, const char *path, cx_err *err)
{
	cx_recording r;
	cx_status st = cx_nwb_read(path, NULL, NULL, &r, err);
	if (st == CX_OK) st = cx_dataset_add_recording(d, &r, err);
	cx_recording_deinit(&r);
	return st;
}

/* Two NPY files, and the best decoding where `bayes` names a file that is there. */
static cx_status add_npy(
	cx_dataset *d, const char *spikes, const char *kin, const char *bayes, cx_err *err)
{
	struct stat info;
	cx_session s;
	cx_status st = cx_session_load(spikes, kin, NULL, &s, err);
	if (st == CX_OK && bayes && stat(bayes, &info) == 0) st = cx_session_load_bayes(&s, bayes, err);
	if (st == CX_OK) return cx_dataset_add_session(d, &s, err);
	cx_session_deinit(&s);
	return st;
}

/* The files in a folder that match, sorted. *n is 0 if there are none. */
static bool matches(const char *folder, const char *pattern, glob_t *g)
{
	char path[1200];
	memset(g, 0, sizeof *g);
	if (snprintf(path, sizeof path, "%s/%s", folder, pattern) >= (int)sizeof path) return false;
	return glob(path, 0, NULL, g) == 0 && g->gl_pathc > 0;
}

static cx_status add_folder(cx_dataset *d, const char *path, cx_err *err)
{
	/* Behaviour is not in every file of a data set: those that have it, or else all. */
	static const char *const patterns[] = {
		"*behavior*.nwb", "*/*behavior*.nwb", "*/*/*behavior*.nwb", "*.nwb"};
	glob_t spikes, kin, bayes, nwb;
	bool has_bayes, found = false;
	cx_status st = CX_OK;
	if (matches(path, "spikes*.npy", &spikes)) {
		has_bayes = matches(path, "bayes*.npy", &bayes);
		if (matches(path, "kinematics*.npy", &kin))
			st = add_npy(
				d, spikes.gl_pathv[0], kin.gl_pathv[0], has_bayes ? bayes.gl_pathv[0] : NULL, err);
		else
			st = CX_FAIL(
				err, CX_ERR_IO, "%s has spikes*.npy, but no kinematics*.npy", cx_path_tail(path));
		globfree(&kin);
		globfree(&bayes);
		globfree(&spikes);
		return st;
	}
	globfree(&spikes);
	for (size_t i = 0; !found && i < sizeof patterns / sizeof *patterns; i++) {
		if (i > 0) globfree(&nwb);
		found = matches(path, patterns[i], &nwb);
	}
	if (!found)
		st = CX_FAIL(err, CX_ERR_IO, "%s has neither spikes*.npy and kinematics*.npy nor *.nwb",
			cx_path_tail(path));
	for (size_t i = 0; st == CX_OK && i < nwb.gl_pathc; i++) st = add_nwb(d, nwb.gl_pathv[i], err);
	globfree(&nwb);
	return st;
}

cx_status cx_dataset_add_path(cx_dataset *d, const char *path, cx_err *err)
{
	const char *comma = strchr(path, ',');
	struct stat info;
	cx_session s;
	cx_status st;
	if (stat(path, &info) != 0) {
		char spikes[1024];
		if (!comma || (size_t)(comma - path) >= sizeof spikes)
			return CX_FAIL(err, CX_ERR_IO, "%s: %s", cx_path_tail(path), strerror(errno));
		snprintf(spikes, sizeof spikes, "%.*s", (int)(comma - path), path);
		return add_npy(d, spikes, comma + 1, NULL, err);
	}
	if (S_ISDIR(info.st_mode)) return add_folder(d, path, err);
	if (ends(path, ".nwb") || ends(path, ".h5")) return add_nwb(d, path, err);
	if (!ends(path, ".mat"))
		return CX_FAIL(err, CX_ERR_ARGUMENT,
			"%s is no recording: *.nwb, *.mat, a folder, or SPIKES.npy,KINEMATICS.npy is wanted",
			cx_path_tail(path));
	if ((st = cx_session_load_mat(path, NULL, &s, err)) != CX_OK) return st;
	return cx_dataset_add_session(d, &s, err);
}
