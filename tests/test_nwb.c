/* test_nwb.c - NWB through the HDF5 plug-in: the original file of the fixtures, a trial in the
 * training file's layout, a simulated session there and back, and damage: by field, and at random
 * bytes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <jansson.h>
#include <math.h>
#include <unistd.h>

#include "models/decoder/nwb.h"
#include "models/decoder/protocol.h"
#include "models/decoder/simulate.h"
#include "models/files/hdf5.h"
#include "tests/file_make.h"
#include "tests/rng.h"

#define OK(call)                                                                                   \
	do {                                                                                           \
		cx_err err_ = {0}, *err = &err_;                                                           \
		cx_status st_ = (call);                                                                    \
		if (st_ != CX_OK) fail_msg("%s: %s", #call, err_.msg);                                     \
	} while (0)

static const cx_h5_api *h5;

static int load_plugin(void **state)
{
	cx_err err = {0};
	(void)state;
	if (cx_h5_load(NULL, &h5, &err) != CX_OK) print_message("# %s: skipped\n", err.msg);
	return 0;
}

static void need(const void *what)
{
	if (!what || !h5) skip();
}

static void original_file(void **state)
{
	const char *path = fixture("neural/mc_maze_small/sub-Jenkins_ses-small_desc-test_ecephys.nwb");
	cx_recording r;
	cx_session s;
	cx_err err = {0};
	(void)state;
	need(path);
	OK(cx_nwb_read(path, NULL, NULL, &r, err));
	assert_int_equal(r.n_units, 107);
	assert_int_equal(r.n_spikes, 32897);
	assert_int_equal(r.unit_end[106], 32897);
	assert_int_equal(r.n_obs, 10700);
	assert_int_equal(r.n_trials, 100);
	assert_int_equal(r.n_samples, 0);
	for (size_t i = 0; i < 100; i++) {
		assert_int_equal(r.trials[i].split, CX_TRIAL_TEST);
		assert_true(fabs(r.trials[i].stop - r.trials[i].start - 0.7) < 1e-6);
	}
	for (size_t u = 0; u < r.n_units; u++) {
		size_t n;
		const double *t = cx_recording_unit(&r, u, &n);
		assert_false(r.heldout[u]);
		for (size_t i = 1; i < n; i++) assert_true(t[i] >= t[i - 1]);
	}
	assert_int_equal(cx_session_bin(&r, 0.005, false, NULL, &s, &err), CX_ERR_FORMAT);
	assert_non_null(strstr(err.msg, "hand_vel"));
	cx_recording_deinit(&r);
}

static void trial_in_bins(void **state)
{
	const char *path = fixture("neural/mc_maze_trials/trial_748.nwb");
	const char *want = fixture("neural/mc_maze_trials/trial_748_data.bins20ms.json");
	json_t *json, *row;
	cx_recording r;
	cx_session s;
	size_t t;
	(void)state;
	need(path);
	need(want);
	OK(cx_nwb_read(path, NULL, NULL, &r, err));
	OK(cx_session_bin(&r, 0.02, true, NULL, &s, err));
	json = json_load_file(want, 0, NULL);
	assert_non_null(json);
	assert_int_equal(s.n_bins, json_integer_value(json_object_get(json, "bins")));
	assert_int_equal(s.n_units, 182);
	json_array_foreach(json_object_get(json, "spikes_per_bin"), t, row)
	{
		unsigned n = 0;
		for (size_t u = 0; u < s.n_units; u++) n += s.spikes[t * s.n_units + u];
		assert_int_equal(n, json_integer_value(row));
	}
	json_array_foreach(json_object_get(json, "spikes_per_unit"), t, row)
	{
		unsigned n = 0;
		for (size_t b = 0; b < s.n_bins; b++) n += s.spikes[b * s.n_units + t];
		assert_int_equal(n, json_integer_value(row));
	}
	json_array_foreach(json_object_get(json, "hand_vel_mean"), t, row)
	{
		assert_int_equal(s.kin_ok[t], 1);
		for (size_t c = 0; c < 2; c++)
			assert_true(fabs(s.kin[t * 2 + c] - json_number_value(json_array_get(row, c))) <= 1e-5);
	}
	assert_string_equal(s.kin_name[0], "vel_x");
	json_decref(json);
	cx_session_deinit(&s);
	cx_recording_deinit(&r);
}

static void simulated(cx_session *s, cx_recording *r, double seconds, size_t units)
{
	cx_simulate_opts o = cx_simulate_default();
	o.seconds = seconds;
	o.n_units = units;
	OK(cx_simulate(&o, NULL, NULL, NULL, s, err));
	OK(cx_simulate_recording(s, 7, NULL, r, err));
}

static void there_and_back(void **state)
{
	cx_session s, t;
	cx_recording r, q;
	char path[1024];
	size_t n_val = 0;
	(void)state;
	need(h5);
	simulated(&s, &r, 60, 12);
	snprintf(path, sizeof path, "%s", temp_path("sim.nwb"));
	OK(cx_nwb_write(path, &r, NULL, NULL, err));
	OK(cx_nwb_read(path, NULL, NULL, &q, err));
	assert_int_equal(q.n_units, r.n_units);
	assert_int_equal(q.n_spikes, r.n_spikes);
	assert_memory_equal(q.spikes, r.spikes, r.n_spikes * sizeof *r.spikes);
	assert_memory_equal(q.obs, r.obs, r.n_obs * 2 * sizeof *r.obs);
	assert_int_equal(q.n_trials, r.n_trials);
	assert_true(q.n_trials > 10);
	for (size_t i = 0; i < q.n_trials; i++) {
		assert_memory_equal(&q.trials[i], &r.trials[i], sizeof *r.trials);
		n_val += q.trials[i].split == CX_TRIAL_VAL;
	}
	assert_int_equal(n_val, q.n_trials / 4);
	OK(cx_session_bin(&q, s.bin_seconds, false, NULL, &t, err));
	assert_int_equal(t.n_bins, s.n_bins);
	assert_memory_equal(t.spikes, s.spikes, s.n_bins * s.n_units);
	for (size_t b = 0; b < s.n_bins; b++) {
		assert_true(t.kin_ok[b] && t.observed[b]);
		for (size_t c = 0; c < 2; c++)
			assert_true(fabs(t.kin[b * 2 + c] - s.kin[b * 4 + 2 + c]) < 1e-12);
	}
	print_message("# %zu spikes, %zu trials, %zu bins: the same after NWB\n", q.n_spikes,
		q.n_trials, t.n_bins);
	cx_session_deinit(&s);
	cx_session_deinit(&t);
	cx_recording_deinit(&r);
	cx_recording_deinit(&q);
}

/* ---- damage ---- */

static const double good_times[6] = {0.1, 0.2, 0.3, 0.15, 0.25, 0.35};
static const double good_stamps[4] = {0, 0.1, 0.2, 0.3};

/* A small file with one thing wrong. */
typedef struct wound {
	const char *field; /* NULL: none */
	int64_t whole[6];
	double real[8];
	size_t n, cols;
	const char *want; /* in the sentence; NULL: the file is good */
} wound;

static void put(
	cx_h5 *f, const wound *w, const char *name, bool whole, size_t n, size_t cols, const void *src)
{
	uint64_t dims[2];
	if (w->field && !strcmp(w->field, name)) {
		if (w->n == 0) return; /* left out */
		n = w->n;
		cols = w->cols;
		src = whole ? (const void *)w->whole : (const void *)w->real;
	}
	dims[0] = n;
	dims[1] = cols;
	if (whole) OK(h5->write_i64(f, name, cols ? 2 : 1, dims, src, err));
	else OK(h5->write_f64(f, name, cols ? 2 : 1, dims, src, err));
}

static void write_wounded(const char *path, const wound *w)
{
	static const int64_t ends[2] = {3, 6}, ids[2] = {0, 1}, obs_ends[2] = {1, 2};
	static const double obs[4] = {0, 1, 0, 1}, vel[8] = {1, 2, 3, 4, 5, 6, 7, 8},
						start[2] = {0, 0.2}, stop[2] = {0.1, 0.3};
	const char *split[2] = {"train", "val"};
	cx_h5 *f;
	OK(h5->open(NULL, path, true, &f, err));
	put(f, w, "/units/spike_times", false, 6, 0, good_times);
	put(f, w, "/units/spike_times_index", true, 2, 0, ends);
	put(f, w, "/units/id", true, 2, 0, ids);
	put(f, w, "/units/heldout", true, 2, 0, ids);
	put(f, w, "/units/obs_intervals", false, 2, 2, obs);
	put(f, w, "/units/obs_intervals_index", true, 2, 0, obs_ends);
	put(f, w, "/processing/behavior/hand_vel/data", false, 4, 2, vel);
	put(f, w, "/processing/behavior/hand_vel/timestamps", false, 4, 0, good_stamps);
	put(f, w, "/intervals/trials/start_time", false, 2, 0, start);
	put(f, w, "/intervals/trials/stop_time", false, 2, 0, stop);
	if (w->field && !strcmp(w->field, "/intervals/trials/split")) split[1] = "maybe";
	OK(h5->write_text(f, "/intervals/trials/split", 1, 2, split, err));
	OK(h5->close(f, err));
}

static void wounds(void **state)
{
	static const wound cases[] = {{NULL, {0}, {0}, 0, 0, NULL},
		{"/units/spike_times_index", {4, 3}, {0}, 2, 0, "/units/spike_times_index[1] is 3"},
		{"/units/spike_times_index", {3, 7}, {0}, 2, 0, "/units/spike_times_index[1] is 7"},
		{"/units/spike_times_index", {-1, 6}, {0}, 2, 0, "/units/spike_times_index[0] is -1"},
		{"/units/spike_times_index", {3, 5}, {0}, 2, 0, "ends at 5"},
		{"/units/spike_times_index", {3, 4, 6}, {0}, 3, 0, "3 rows for 2 units"},
		{"/units/spike_times_index", {0}, {0}, 0, 0, "/units/spike_times_index is missing"},
		{"/units/spike_times", {0}, {0}, 0, 0, "/units/spike_times is missing"},
		{"/units/spike_times", {0}, {1, 2, NAN, 4, 5, 6}, 6, 0, "/units/spike_times[2] is nan"},
		{"/units/spike_times", {0}, {1, 2, 3, 4, 5, 6}, 3, 2, "is no column of real numbers"},
		{"/units/heldout", {1}, {0}, 1, 0, "/units/heldout has 1 rows for 2 units"},
		{"/units/obs_intervals", {0}, {0, 1, 2, 1}, 2, 2, "/units/obs_intervals[1] is 2 to 1"},
		{"/units/obs_intervals", {0}, {0, 1, 2}, 3, 0, "1 columns"},
		{"/units/obs_intervals_index", {0}, {0}, 0, 0, "obs_intervals_index is missing"},
		{"/processing/behavior/hand_vel/data", {0}, {0}, 0, 0, "hand_vel/data is missing"},
		{"/processing/behavior/hand_vel/data", {0}, {1, 2, 3, 4, 5, 6}, 3, 2, "the data 3 rows"},
		{"/processing/behavior/hand_vel/timestamps", {0}, {0}, 0, 0, "neither timestamps"},
		{"/processing/behavior/hand_vel/timestamps", {0}, {0, 1, 1, 2}, 4, 0, "timestamps[2] is 1"},
		{"/processing/behavior/hand_vel/timestamps", {0}, {0, NAN, 1, 2}, 4, 0,
			"timestamps[1] is n"},
		{"/intervals/trials/stop_time", {0}, {0.1, 0.1}, 2, 0, "stop_time[1] is before"},
		{"/intervals/trials/stop_time", {0}, {0.1}, 1, 0, "1 rows for 2 trials"},
		{"/intervals/trials/split", {0}, {0}, 0, 0, "split[1] is 'maybe'"}};
	(void)state;
	need(h5);
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		cx_recording r;
		cx_err err = {0};
		char path[1024];
		cx_status st;
		snprintf(path, sizeof path, "%s", temp_path("wound.nwb"));
		write_wounded(path, &cases[i]);
		st = cx_nwb_read(path, NULL, NULL, &r, &err);
		if (!cases[i].want) {
			if (st != CX_OK) fail_msg("the good file: %s", err.msg);
			assert_true(r.heldout[1] && !r.heldout[0]);
			cx_recording_deinit(&r);
			continue;
		}
		assert_int_equal(st, CX_ERR_FORMAT);
		assert_null(r.spikes);
		if (!strstr(err.msg, cases[i].want) || !strstr(err.msg, "wound.nwb"))
			fail_msg("'%s' does not say '%s'", err.msg, cases[i].want);
	}
}

static void no_file_no_plugin(void **state)
{
	const cx_nwb_opts nowhere = {.plugin_folder = "/nonexistent"}, series = {.series = "toe_vel"};
	const wound none = {0};
	cx_recording r;
	cx_err err = {0};
	bytes junk = {0};
	char path[1024];
	(void)state;
	snprintf(path, sizeof path, "%s", temp_path("junk.nwb"));
	bytes_text(&junk, "no HDF5 at all");
	bytes_save(&junk, path);
	bytes_free(&junk);
	assert_int_equal(cx_nwb_read(path, &nowhere, NULL, &r, &err), CX_ERR_UNSUPPORTED);
	assert_non_null(strstr(err.msg, "cortex-nwb.so"));
	err = (cx_err){0};
	assert_int_equal(cx_nwb_read(temp_path("none.nwb"), NULL, NULL, &r, &err), CX_ERR_IO);
	need(h5);
	err = (cx_err){0};
	assert_int_equal(cx_nwb_read(path, NULL, NULL, &r, &err), CX_ERR_FORMAT);
	assert_non_null(strstr(err.msg, "not an HDF5 file"));
	write_wounded(path, &none);
	err = (cx_err){0};
	assert_int_equal(cx_nwb_read(path, &series, NULL, &r, &err), CX_ERR_FORMAT);
	assert_non_null(strstr(err.msg, "toe_vel is missing"));
}

/* Bytes changed, cut off, or doubled anywhere: a sentence or a recording, and the program lives. */
static void random_damage(void **state)
{
	cx_session s;
	cx_recording r;
	char path[1024];
	bytes good;
	cx_rng g = cx__rng_make(11, 1);
	unsigned refused = 0, died = 0, runs = 120;
	(void)state;
	need(h5);
	simulated(&s, &r, 10, 4);
	snprintf(path, sizeof path, "%s", temp_path("damaged.nwb"));
	OK(cx_nwb_write(path, &r, NULL, NULL, err));
	cx_recording_deinit(&r);
	cx_session_deinit(&s);
	good = bytes_load(path);
	for (unsigned i = 0; i < runs; i++) {
		bytes bad = {0};
		cx_err err = {0};
		size_t n = i % 8 == 7 ? (size_t)cx__rng_int(&g, 1, (int64_t)good.n) : good.n;
		bytes_put(&bad, good.p, n);
		for (int64_t k = cx__rng_int(&g, 1, 12); k > 0; k--)
			bad.p[cx__rng_int(&g, 0, (int64_t)n - 1)] = (unsigned char)cx__rng_int(&g, 0, 255);
		bytes_save(&bad, path);
		if (cx_nwb_read(path, NULL, NULL, &r, &err) == CX_OK) {
			assert_true(r.n_units >= 1);
			cx_recording_deinit(&r);
		} else {
			refused++;
			died += strstr(err.msg, "library died") != NULL;
			assert_true(err.msg[0] != 0 && strstr(err.msg, "damaged.nwb"));
			assert_null(r.spikes);
		}
		bytes_free(&bad);
	}
	bytes_free(&good);
	print_message("# %u damaged files: %u refused, %u of them killed the library in the child\n",
		runs, refused, died);
	assert_true(refused > runs / 4);
}

static void every_allocation_fails_once(void **state)
{
	const wound none = {0};
	char path[1024];
	(void)state;
	need(h5);
	snprintf(path, sizeof path, "%s", temp_path("alloc.nwb"));
	write_wounded(path, &none);
	for (long n = 0;; n++) {
		cx_fault fault = {.countdown = n};
		cx_alloc alloc = cx_alloc_fault(&fault);
		cx_recording r;
		cx_session s = {0};
		cx_status st = cx_nwb_read(path, NULL, &alloc, &r, NULL);
		if (st == CX_OK) st = cx_session_bin(&r, 0.1, true, &alloc, &s, NULL);
		cx_session_deinit(&s);
		cx_recording_deinit(&r);
		assert_int_equal(fault.n_live, 0);
		assert_int_equal(st, fault.fired ? CX_ERR_MEMORY : CX_OK);
		if (!fault.fired) break;
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(original_file),
		cmocka_unit_test(trial_in_bins), cmocka_unit_test(there_and_back), cmocka_unit_test(wounds),
		cmocka_unit_test(no_file_no_plugin), cmocka_unit_test(random_damage),
		cmocka_unit_test(every_allocation_fails_once)};
	return cmocka_run_group_tests_name("nwb", tests, load_plugin, NULL);
}
