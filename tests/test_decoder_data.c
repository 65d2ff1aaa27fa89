/* test_decoder_data.c - from spike times to batches: binning, alignment over gaps, windows, parts
 * that share nothing, batches, and the decoders that are tuned on them (spec/decoder.md 4 and
 * 7). */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <math.h>
#include <sys/stat.h>

#include "models/decoder/dataset.h"
#include "models/decoder/events.h"
#include "models/decoder/linalg.h"
#include "models/decoder/metrics.h"
#include "models/decoder/protocol.h"
#include "models/decoder/ridge.h"
#include "models/decoder/simulate.h"
#include "models/files/npy.h"
#include "models/files/sha256.h"
#include "tests/file_make.h"
#include "tests/rng.h"

#define OK(call)                                                                                   \
	do {                                                                                           \
		cx_err err_ = {0}, *err = &err_;                                                           \
		cx_status st_ = (call);                                                                    \
		if (st_ != CX_OK) fail_msg("%s: %s", #call, err_.msg);                                     \
	} while (0)

/* ---- primitives ---- */

static void binning(void **state)
{
	const double ms[] = {0.001, 0.002, 0.006, 0.013}, edge[] = {-0.001, 0, 0.005, 0.02, 0.0201};
	int32_t n[4] = {0}, m[4] = {0};
	cx_err err = {0};
	(void)state;
	OK(cx_bin_spikes(ms, 4, 4, 0.005, 0, n, err));
	assert_true(n[0] == 2 && n[1] == 1 && n[2] == 1 && n[3] == 0);
	OK(cx_bin_spikes(edge, 5, 4, 0.005, 0, m, err)); /* the last edge of all is inside */
	assert_true(m[0] == 1 && m[1] == 1 && m[2] == 0 && m[3] == 1);
	assert_int_equal(cx_bin_spikes(ms, 4, 0, 0.005, 0, n, &err), CX_ERR_ARGUMENT);
	assert_int_equal(cx_bin_spikes(ms, 4, 4, 0, 0, n, NULL), CX_ERR_ARGUMENT);
	assert_int_equal(cx_bin_spikes(ms, 4, 4, -1, 0, n, NULL), CX_ERR_ARGUMENT);
	assert_int_equal(cx_bin_spikes(ms, 4, 4, NAN, 0, n, NULL), CX_ERR_ARGUMENT);
	/* a spike on each edge falls into the bin that begins there, whatever the quotient rounds to */
	for (int k = 0; k < 1000; k++) {
		static int32_t many[1000];
		double t = 2282.6 + k * 0.005;
		memset(many, 0, sizeof many);
		OK(cx_bin_spikes(&t, 1, 1000, 0.005, 2282.6, many, err));
		assert_int_equal(many[k], 1);
	}
}

static void buckets_events_windows(void **state)
{
	static const int64_t counts[] = {0, 1, 5, 7, 100}, want[] = {0, 1, 5, 7, 7};
	static const uint8_t cells[6] = {0, 3, 0, 9, 0, 1};
	cx_events e;
	(void)state;
	for (int i = 0; i < 5; i++) assert_int_equal(cx_bucket(counts[i], 8), want[i]);
	assert_int_equal(cx_window_count(10, 4, 2), 4); /* 0 2 4 6 */
	assert_int_equal(cx_window_count(11, 4, 3), 3); /* 0 3 6 */
	assert_int_equal(cx_window_count(3, 4, 1), 0);
	OK(cx_events_init(&e, NULL, cells, 3, 2, err));
	assert_int_equal(e.n, 3);
	assert_true(e.start[0] == 0 && e.start[1] == 1 && e.start[2] == 2 && e.start[3] == 3);
	assert_true(e.unit[0] == 1 && e.unit[1] == 1 && e.unit[2] == 1);
	assert_true(e.count[0] == 3 && e.count[1] == 9 && e.count[2] == 1);
	cx_events_deinit(&e);
}

static void cholesky_in_panels(void **state)
{
	enum { N = 107 };
	static double a[N * N], l[N * N], x[N * 2], b[N * 2];
	cx_rng g = cx__rng_make(5, 5);
	(void)state;
	for (int i = 0; i < N; i++)
		for (int j = 0; j <= i; j++)
			a[i * N + j] = a[j * N + i] = cx__rng_float(&g, -1, 1) + (i == j ? 30 : 0);
	for (int i = 0; i < 2 * N; i++) x[i] = cx__rng_float(&g, -1, 1);
	for (int i = 0; i < N; i++)
		for (int c = 0; c < 2; c++)
			for (int j = 0; j < N; j++) b[i * 2 + c] += a[i * N + j] * x[j * 2 + c];
	memcpy(l, a, sizeof a);
	for (int i = 0; i < N; i++)
		for (int j = i + 1; j < N; j++) l[i * N + j] = NAN; /* never read */
	OK(cx__chol_solve(l, N, b, 2, "test", err));
	for (int i = 0; i < 2 * N; i++) assert_true(fabs(b[i] - x[i]) < 1e-12);
}

static void sha256(void **state)
{
	char hex[65], text[200];
	(void)state;
	cx_sha256_hex("", 0, hex);
	assert_string_equal(hex, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
	cx_sha256_hex("abc", 3, hex);
	assert_string_equal(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
	memset(text, 'a', sizeof text);
	cx_sha256_hex(text, 120, hex);
	assert_string_equal(hex, "2f3d335432c70b580af0e8e1b3674a7c020d683aa5f73aaaedfdc55af904c21c");
}

/* ---- alignment ---- */

enum { GAP_SAMPLES = 3000, GAP_UNITS = 3 };

/* One second of samples, a gap of 0.35 s, two more; velocity = time, so that a shift shows; unit 0
 * fires at every 50 ms. What the caller frees is the recording. */
static void gap_recording(cx_recording *r)
{
	memset(r, 0, sizeof *r);
	r->label = "gap";
	r->n_units = GAP_UNITS;
	r->n_kin = 2;
	r->n_samples = GAP_SAMPLES;
	r->spikes = cx_arena_array(&r->arena, 64, sizeof *r->spikes);
	r->unit_end = cx_arena_array(&r->arena, GAP_UNITS, sizeof *r->unit_end);
	r->heldout = cx_arena_array(&r->arena, GAP_UNITS, sizeof *r->heldout);
	r->kin_time = cx_arena_array(&r->arena, GAP_SAMPLES, sizeof *r->kin_time);
	r->kin = cx_arena_array(&r->arena, GAP_SAMPLES * 2, sizeof *r->kin);
	r->obs = cx_arena_array(&r->arena, 2 * GAP_UNITS, sizeof *r->obs);
	r->obs_end = cx_arena_array(&r->arena, GAP_UNITS, sizeof *r->obs_end);
	assert_true(r->spikes && r->unit_end && r->heldout && r->kin_time && r->kin && r->obs);
	for (int i = 0; i < 60; i++) r->spikes[r->n_spikes++] = 100.001 + 0.05 * i;
	for (int u = 0; u < GAP_UNITS; u++) r->unit_end[u] = r->n_spikes;
	r->heldout[2] = true;
	snprintf(r->kin_name[0], 16, "vel_x");
	snprintf(r->kin_name[1], 16, "vel_y");
	for (int i = 0; i < GAP_SAMPLES; i++) {
		double t = 100 + i * 0.001 + (i >= 1000 ? 0.35 : 0);
		r->kin_time[i] = t;
		r->kin[2 * i] = t;
		r->kin[2 * i + 1] = -t;
	}
}

static void gaps(void **state)
{
	cx_recording r;
	cx_session s;
	cx_dataset_opts o = cx_dataset_default();
	cx_dataset *d;
	const cx_dataset_info *info;
	size_t with = 0;
	(void)state;
	gap_recording(&r);
	r.kin[2 * 500] = NAN; /* bin 10 */
	OK(cx_session_bin(&r, 0.05, false, NULL, &s, err));
	assert_int_equal(s.n_units, 2); /* one is held out */
	assert_int_equal(s.n_bins, 66); /* 3.349 s */
	for (size_t t = 0; t < s.n_bins; t++) {
		bool in_gap = t >= 20 && t < 27, nan = t == 10;
		assert_int_equal(s.kin_ok[t], !in_gap && !nan);
		with += s.kin_ok[t];
		/* the mean time of the bin's own samples: no drift after the gap */
		if (s.kin_ok[t]) assert_true(fabs(s.kin[2 * t] - (100 + 0.05 * t + 0.0245)) < 1e-9);
		if (t < 60) assert_int_equal(s.spikes[t * 2], 1);
	}
	cx_session_deinit(&s);
	/* observed only from 0.5 s on, by unit 1: its bins before lose their spikes and their
	 * windows */
	r.n_obs = 3;
	for (int u = 0; u < 3; u++) {
		r.obs[2 * u] = u == 1 ? 100.5 : 100;
		r.obs[2 * u + 1] = 104;
		r.obs_end[u] = (uint64_t)u + 1;
	}
	OK(cx_session_bin(&r, 0.05, false, NULL, &s, err));
	for (size_t t = 0; t < s.n_bins; t++) {
		assert_int_equal(s.observed[t], t >= 10);
		if (t < 10) assert_int_equal(s.spikes[t * 2], 0);
	}
	cx_session_deinit(&s);
	o.window = 4;
	OK(cx_dataset_create(&o, NULL, &d, err));
	OK(cx_dataset_add_recording(d, &r, err));
	OK(cx_dataset_finish(d, err));
	info = cx_dataset_get_info(d);
	assert_int_equal(info->dropped_kin, 8);  /* seven of the gap, one NaN */
	assert_int_equal(info->dropped_obs, 12); /* bins 0..12 less the NaN one, which was counted */
	cx_dataset_free(d);
	cx_recording_deinit(&r);
	print_message("# %zu of 66 bins have kinematics\n", with);
}

/* Samples rarer than bins are joined by lines, but not over a gap. */
static void rare_samples(void **state)
{
	cx_recording r;
	cx_session s;
	(void)state;
	gap_recording(&r);
	r.n_samples = 30; /* of every 20 ms, a hole of 100 ms after the 10th */
	for (int i = 0; i < 30; i++) {
		r.kin_time[i] = 100 + 0.02 * i + (i >= 10 ? 0.1 : 0);
		r.kin[2 * i] = r.kin_time[i];
		r.kin[2 * i + 1] = 1;
	}
	OK(cx_session_bin(&r, 0.005, true, NULL, &s, err));
	assert_int_equal(s.n_units, 3);
	for (size_t t = 0; t < s.n_bins; t++) {
		double middle = 100 + 0.005 * ((double)t + 0.5);
		bool hole = middle > 100.18 && middle < 100.3;
		assert_int_equal(s.kin_ok[t], !hole);
		if (!hole) assert_true(fabs(s.kin[2 * t] - middle) < 1e-9);
	}
	cx_session_deinit(&s);
	cx_recording_deinit(&r);
}

/* ---- datasets ---- */

static void random_session(cx_session *s, size_t n, size_t units, uint64_t seed)
{
	cx_rng r = cx__rng_make(seed, 1);
	OK(cx_session_init(s, NULL, n, units, 2, false, err));
	for (size_t i = 0; i < n * units; i++)
		s->spikes[i] = (uint8_t)(cx__rng_one_in(&r, 3) ? cx__rng_int(&r, 1, 12) : 0);
	for (size_t i = 0; i < n * 2; i++) s->kin[i] = cx__rng_float(&r, -3, 5);
}

static cx_dataset *open_random(const cx_dataset_opts *o, int n_sessions)
{
	cx_dataset *d;
	OK(cx_dataset_create(o, NULL, &d, err));
	for (int i = 0; i < n_sessions; i++) {
		cx_session s;
		random_session(&s, 300, 5 + (size_t)i, 40 + (uint64_t)i);
		OK(cx_dataset_add_session(d, &s, err));
		assert_null(s.spikes);
	}
	OK(cx_dataset_finish(d, err));
	return d;
}

/* No bin is in windows of two parts, test keeps all of its bins, and the counts add up. */
static void parts_share_nothing(void **state)
{
	cx_dataset_opts o = cx_dataset_default();
	(void)state;
	for (uint32_t ahead = 0; ahead < 8; ahead += 7) {
		static uint8_t used[3][300];
		uint32_t n[3] = {0}, s, bin;
		cx_dataset *d;
		const cx_dataset_info *info;
		o.window = 8;
		o.ahead = ahead;
		memset(used, 0, sizeof used);
		d = open_random(&o, 1);
		info = cx_dataset_get_info(d);
		for (int p = 0; p < CX_PART_COUNT; p++)
			for (uint32_t i = 0; i < info->n_windows[p]; i++) {
				int64_t first;
				cx_dataset_place(d, (cx_part)p, i, &s, &bin);
				first = (int64_t)bin - (7 - ahead);
				for (int64_t t = first < 0 ? 0 : first; t < first + 8; t++) used[p][t] = 1;
				n[p]++;
			}
		for (size_t t = 0; t < 300; t++) assert_true(used[0][t] + used[1][t] + used[2][t] <= 1);
		assert_int_equal(n[CX_PART_TEST], 60 - ahead);
		assert_int_equal(n[0] + n[1] + n[2] + info->dropped_gap + info->dropped_edge, 300);
		assert_int_equal(info->dropped_gap, 14);
		cx_dataset_free(d);
	}
}

/* Mean and deviation come from train alone: other parts may change without changing them. */
static void scale_is_of_train(void **state)
{
	cx_dataset_opts o = cx_dataset_default();
	cx_dataset *d[2];
	const double mean[2] = {1, 2}, sd[2] = {3, 0};
	cx_err err = {0};
	(void)state;
	for (int i = 0; i < 2; i++) {
		cx_session s;
		double sum = 0, square = 0;
		const cx_dataset_info *info;
		random_session(&s, 300, 4, 9);
		for (size_t t = 210; i == 1 && t < 300; t++) s.kin[2 * t] += 1000;
		for (size_t t = 0; t < 191; t++) sum += s.kin[2 * t]; /* 210 less the gap of 19 */
		for (size_t t = 0; t < 191; t++)
			square += (s.kin[2 * t] - sum / 191) * (s.kin[2 * t] - sum / 191);
		OK(cx_dataset_create(&o, NULL, &d[i], err));
		OK(cx_dataset_add_session(d[i], &s, err));
		OK(cx_dataset_finish(d[i], err));
		info = cx_dataset_get_info(d[i]);
		assert_int_equal(info->n_windows[CX_PART_TRAIN], 191);
		assert_true(fabs(info->mean[0] - sum / 191) < 1e-9);
		assert_true(fabs(info->sd[0] - sqrt(square / 191)) < 1e-9);
	}
	assert_int_equal(cx_dataset_set_scale(d[0], mean, sd, 2, &err), CX_ERR_ARGUMENT);
	assert_non_null(strstr(err.msg, "column 1"));
	assert_int_equal(cx_dataset_set_scale(d[0], mean, mean, 1, NULL), CX_ERR_SHAPE);
	OK(cx_dataset_set_scale(d[0], mean, mean, 2, err));
	assert_true(cx_dataset_get_info(d[0])->sd[1] == 2);
	cx_dataset_free(d[0]);
	cx_dataset_free(d[1]);
}

/* Events are exactly the non-zero cells, with unit offsets per session and times inside the window;
 * dense features are the same counts. */
static void batches(void **state)
{
	enum { B = 7, W = 6, CAP = 4000 };
	static int32_t off[B + 1], neuron[CAP], time[CAP], value[CAP];
	static float target[B * 2], dense[B * W * 11], again[B * 2];
	cx_dataset_opts o = cx_dataset_default();
	cx_dataset *d;
	const cx_dataset_info *info;
	cx_batch b = {off, neuron, time, value, target, CAP};
	cx_err err = {0};
	uint32_t which[B] = {0, 1, 2, 3, 200, 201, 0}, n_events, first_of_second = 0;
	(void)state;
	o.window = W;
	o.max_neurons = 11;
	d = open_random(&o, 2);
	info = cx_dataset_get_info(d);
	assert_int_equal(info->n_units, 11);
	for (uint32_t s, bin; first_of_second < info->n_windows[CX_PART_TRAIN]; first_of_second++) {
		cx_dataset_place(d, CX_PART_TRAIN, first_of_second, &s, &bin);
		if (s == 1) break;
	}
	which[6] = first_of_second + 50;
	OK(cx_dataset_fill(d, CX_PART_TRAIN, which, B, &b, &n_events, err));
	OK(cx_dataset_dense(d, CX_PART_TRAIN, which, B, dense, again, err));
	assert_int_equal(off[0], 0);
	assert_int_equal(off[B], n_events);
	assert_memory_equal(target, again, sizeof target);
	for (uint32_t i = 0; i < B; i++) {
		uint32_t s, bin, offset;
		int32_t e = off[i];
		double y[2];
		const cx_session *session;
		cx_dataset_place(d, CX_PART_TRAIN, which[i], &s, &bin);
		cx_dataset_truth(d, CX_PART_TRAIN, which[i], y);
		session = cx_dataset_session(d, s, &offset);
		assert_int_equal(offset, s == 0 ? 0 : 5);
		assert_true((uint32_t)(off[i + 1] - off[i]) <= info->max_events[CX_PART_TRAIN]);
		for (int t = 0; t < W; t++)
			for (uint32_t u = 0; u < 11; u++) {
				int64_t row = (int64_t)bin - (W - 1) + t;
				bool mine = row >= 0 && u >= offset && u < offset + session->n_units;
				int c = mine ? session->spikes[(size_t)row * session->n_units + u - offset] : 0;
				assert_true(dense[(i * W + (uint32_t)t) * 11 + u] == (float)c);
				if (c == 0) continue;
				assert_true(neuron[e] == (int32_t)u && time[e] == t);
				assert_int_equal(value[e++], c > 7 ? 7 : c);
			}
		assert_int_equal(e, off[i + 1]);
		for (int c = 0; c < 2; c++) {
			assert_true(y[c] == session->kin[2 * bin + (size_t)c]);
			assert_true(
				fabs(target[2 * i + (uint32_t)c] - (y[c] - info->mean[c]) / info->sd[c]) < 1e-6);
		}
	}
	b.cap_events = n_events - 1;
	off[0] = -5;
	assert_int_equal(
		cx_dataset_fill(d, CX_PART_TRAIN, which, B, &b, &n_events, &err), CX_ERR_ARGUMENT);
	assert_int_equal(off[0], -5); /* nothing was written */
	which[0] = info->n_windows[CX_PART_TRAIN];
	assert_int_equal(cx_dataset_fill(d, CX_PART_TRAIN, which, 1, &b, NULL, &err), CX_ERR_ARGUMENT);
	cx_dataset_free(d);
}

static void order_is_of_seed_and_epoch(void **state)
{
	cx_dataset_opts o = cx_dataset_default();
	cx_dataset *d = open_random(&o, 1);
	uint32_t n = cx_dataset_get_info(d)->n_windows[CX_PART_TRAIN], same[3] = {0};
	uint32_t *a = calloc(n, sizeof *a), *b = calloc(n, sizeof *b), *seen = calloc(n, sizeof *seen);
	static const uint64_t other[3][2] = {{3, 1}, {3, 2}, {4, 1}};
	(void)state;
	cx_dataset_order(d, CX_PART_TRAIN, 3, 1, a);
	for (uint32_t i = 0; i < n; i++) seen[a[i]]++;
	for (uint32_t i = 0; i < n; i++) assert_int_equal(seen[i], 1);
	for (int k = 0; k < 3; k++) {
		cx_dataset_order(d, CX_PART_TRAIN, other[k][0], other[k][1], b);
		for (uint32_t i = 0; i < n; i++) same[k] += a[i] == b[i];
	}
	assert_int_equal(same[0], n);
	assert_true(same[1] < n / 10 && same[2] < n / 10);
	free(a);
	free(b);
	free(seen);
	cx_dataset_free(d);
}

static void refusals(void **state)
{
	cx_dataset_opts o = cx_dataset_default();
	cx_dataset *d;
	cx_session s;
	cx_err err = {0};
	(void)state;
	o.ahead = 20;
	assert_int_equal(cx_dataset_create(&o, NULL, &d, &err), CX_ERR_ARGUMENT);
	assert_null(d);
	o = cx_dataset_default();
	o.train = 0.9;
	o.val = 0.2;
	assert_int_equal(cx_dataset_create(&o, NULL, &d, NULL), CX_ERR_ARGUMENT);
	o = cx_dataset_default();
	o.max_neurons = 8;
	OK(cx_dataset_create(&o, NULL, &d, err));
	random_session(&s, 300, 5, 1);
	OK(cx_dataset_add_session(d, &s, err));
	random_session(&s, 300, 4, 1);
	err = (cx_err){0};
	assert_int_equal(cx_dataset_add_session(d, &s, &err), CX_ERR_ARGUMENT);
	assert_non_null(strstr(err.msg, "exceeds max_neurons"));
	err = (cx_err){0};
	assert_int_equal(cx_dataset_add_path(d, "/nonexistent/x.nwb", &err), CX_ERR_IO);
	assert_non_null(strstr(err.msg, "x.nwb"));
	cx_dataset_free(d);
	o.protocol = CX_PROTOCOL_TRIAL;
	OK(cx_dataset_create(&o, NULL, &d, err));
	random_session(&s, 300, 4, 1);
	err = (cx_err){0};
	assert_int_equal(cx_dataset_add_session(d, &s, &err), CX_ERR_FORMAT);
	assert_non_null(strstr(err.msg, "/intervals/trials"));
	cx_dataset_free(d);
	o = cx_dataset_default();
	OK(cx_dataset_create(&o, NULL, &d, err));
	assert_int_equal(cx_dataset_finish(d, NULL), CX_ERR_ARGUMENT); /* empty */
	cx_dataset_free(d);
}

/* ---- trial protocols ---- */

static void trial_protocols(void **state)
{
	cx_simulate_opts o = cx_simulate_default();
	cx_session s;
	cx_recording r;
	cx_dataset_opts p = cx_dataset_protocol(CX_PROTOCOL_TRIAL);
	cx_dataset *d;
	const cx_dataset_info *info;
	double *taps, alpha = 0.1, alphas[CX_RIDGE_ALPHAS];
	cx_ridge_result mean_rates, lags;
	(void)state;
	assert_true(
		p.window == 120 && p.window - 1 - p.ahead == 20); /* 20 bins before onset, 100 from it on */
	o.seconds = 400;
	OK(cx_simulate(&o, NULL, NULL, NULL, &s, err));
	OK(cx_simulate_recording(&s, 1, NULL, &r, err));
	p.val = 0.1;
	OK(cx_dataset_create(&p, NULL, &d, err));
	OK(cx_dataset_add_recording(d, &r, err));
	OK(cx_dataset_finish(d, err));
	info = cx_dataset_get_info(d);
	print_message("# %zu trials: %u train, %u val, %u test\n", r.n_trials, info->n_windows[0],
		info->n_windows[1], info->n_windows[2]);
	assert_true(info->n_windows[CX_PART_TEST] + 1 >= r.n_trials / 4);
	assert_true(info->n_windows[0] > 100 && info->n_windows[1] > 5 && info->n_windows[1] < 30);
	for (uint32_t i = 0, n_val = 0; i < info->n_windows[CX_PART_TEST]; n_val++) {
		/* the i-th test window is a val trial's: decoded bin and target are those of its onset */
		const cx_trial *trial = &r.trials[4 * n_val + 3];
		uint32_t session, bin;
		double y[2];
		cx_dataset_place(d, CX_PART_TEST, i, &session, &bin);
		if (bin != (uint32_t)floor(trial->onset / 0.005)) continue; /* it left the recording */
		cx_dataset_truth(d, CX_PART_TEST, i++, y);
		for (int c = 0; c < 2; c++)
			assert_true(
				fabs(y[c] -
					 s.kin[(size_t)(trial->onset / s.bin_seconds + 0.5) * 4 + 2 + (size_t)c]) <
				1e-12);
	}
	taps = calloc(info->window * 4, sizeof *taps);
	cx_ridge_boxes(info, 1, taps);
	OK(cx_ridge_windows(d, &(cx_ridge_opts){taps, 1, &alpha, 1, true}, &mean_rates, err));
	cx_ridge_boxes(info, 4, taps);
	cx_ridge_alphas(1e-4, 1e2, alphas);
	OK(cx_ridge_windows(d, &(cx_ridge_opts){taps, 4, alphas, CX_RIDGE_ALPHAS, false}, &lags, err));
	print_message("# at onset: mean rates %.4f, four lags %.4f (cross-validated %.4f, alpha %g)\n",
		mean_rates.r2_mean, lags.r2_mean, lags.cv_r2, lags.alpha);
	assert_true(lags.r2_mean > 0.8 && lags.r2_mean > mean_rates.r2_mean && lags.cv_r2 > 0.7);
	free(taps);
	cx_dataset_free(d);
	p = cx_dataset_protocol(CX_PROTOCOL_NLB);
	p.bin_seconds = 0.05;
	p.window = 6;
	p.val = 0;
	OK(cx_dataset_create(&p, NULL, &d, err));
	OK(cx_dataset_add_recording(d, &r, err));
	OK(cx_dataset_finish(d, err));
	info = cx_dataset_get_info(d);
	for (uint32_t i = 0; i < info->n_windows[CX_PART_TEST]; i++) {
		uint32_t session, bin;
		double y[2];
		cx_dataset_place(d, CX_PART_TEST, i, &session, &bin);
		cx_dataset_truth(d, CX_PART_TEST, i, y);
		assert_true(
			fabs(y[0] - s.kin[(size_t)(bin + 2) * 4 + 2]) < 1e-12); /* 80 ms: two bins later */
	}
	assert_true(info->n_windows[CX_PART_TEST] > 10 * (r.n_trials / 4)); /* 14 bins of each */
	cx_dataset_free(d);
	cx_recording_deinit(&r);
	cx_session_deinit(&s);
}

/* ---- tuning, and the bound ---- */

static void tuned_ridge(void **state)
{
	cx_simulate_opts o = cx_simulate_default();
	cx_session s;
	cx_ridge_choice choice;
	size_t first, n;
	double *y, r2[4], worst = 1;
	(void)state;
	o.seconds = 300;
	o.n_units = 24;
	o.window = 20;
	OK(cx_simulate(&o, NULL, NULL, NULL, &s, err));
	first = cx_session_split(&s, 0.8);
	n = s.n_bins - first;
	y = malloc(n * 4 * sizeof *y);
	OK(cx_ridge_tune(&s, first, 0, NULL, NULL, &choice, err));
	OK(cx_ridge_decode(&s, first, &choice, first, n, y, err));
	cx_r2(s.kin + first * 4, y, n, 4, r2);
	for (size_t c = 2; c < 4; c++) {
		worst = fmin(worst, r2[c]);
		assert_true(choice.alpha[c] >= 10 && choice.alpha[c] <= 1e5 && choice.history[c] % 5 == 0);
		assert_true(fabs(choice.cv_r2[c] - r2[c]) < 0.15); /* it foretells the test part */
	}
	cx_r2(s.kin + first * 4, s.bayes + first * 4, n, 4, y);
	print_message("# tuned ridge %.4f %.4f (history %zu, alpha %g), best from 20 bins %.4f %.4f\n",
		r2[2], r2[3], choice.history[2], choice.alpha[2], y[2], y[3]);
	assert_true(worst > 0.5 && y[2] > r2[2] && y[3] > r2[3]);
	free(y);
	cx_session_deinit(&s);
}

/* A longer window is worth more, all the past the most; 40 bins hold nearly everything. */
static void bound_of_a_window(void **state)
{
	static const size_t windows[] = {1, 5, 40, 0};
	double before = -1, gain = 0;
	(void)state;
	for (size_t i = 0; i < 4; i++) {
		cx_simulate_opts o = cx_simulate_default();
		cx_session s;
		double r2[4];
		o.seconds = 150;
		o.n_units = 30;
		o.window = windows[i];
		OK(cx_simulate(&o, NULL, NULL, NULL, &s, err));
		cx_r2(s.kin, s.bayes, s.n_bins, 4, r2);
		gain = (r2[2] + r2[3]) / 2 - before;
		before = (r2[2] + r2[3]) / 2;
		print_message(
			"# Bayes-optimal velocity R2 from %zu bins (0: all): %.4f\n", windows[i], before);
		assert_true(gain > -0.002);
		cx_session_deinit(&s);
	}
	assert_true(gain < 0.03 && before > 0.9);
}

static void subjects_differ(void **state)
{
	cx_simulate_opts o = cx_simulate_default();
	cx_session a, b;
	(void)state;
	o.seconds = 20;
	OK(cx_simulate(&o, NULL, NULL, NULL, &a, err));
	o.subject = 1;
	OK(cx_simulate(&o, NULL, NULL, NULL, &b, err));
	assert_memory_not_equal(a.spikes, b.spikes, a.n_bins * a.n_units);
	cx_session_deinit(&a);
	cx_session_deinit(&b);
}

static void paths(void **state)
{
	cx_dataset_opts o = cx_dataset_default();
	int64_t counts[2] = {300, 2}, kin[2] = {300, 2};
	cx_session s;
	cx_dataset *d;
	cx_err err = {0};
	char dir[1024], spikes[1100], y[1100], pair[2300];
	double truth[2], best[2];
	(void)state;
	random_session(&s, 300, 2, 2);
	snprintf(dir, sizeof dir, "%s", temp_path("npy"));
	snprintf(spikes, sizeof spikes, "%s", temp_path("spikes.npy"));
	snprintf(y, sizeof y, "%s", temp_path("kinematics.npy"));
	*strrchr(strcpy(dir, spikes), '/') = 0;
	OK(cx_npy_write(NULL, spikes, CX_NPY_U1, 2, counts, s.spikes, err));
	OK(cx_dataset_create(&o, NULL, &d, err));
	assert_int_equal(cx_dataset_add_path(d, dir, &err), CX_ERR_IO);
	assert_non_null(strstr(err.msg, "kinematics*.npy"));
	OK(cx_npy_write(NULL, y, CX_NPY_F8, 2, kin, s.kin, err));
	OK(cx_npy_write(NULL, temp_path("bayes.npy"), CX_NPY_F8, 2, kin, s.kin, err));
	OK(cx_dataset_add_path(d, dir, err));
	snprintf(pair, sizeof pair, "%s,%s", spikes, y);
	OK(cx_dataset_add_path(d, pair, err));
	OK(cx_dataset_finish(d, err));
	assert_int_equal(cx_dataset_get_info(d)->n_sessions, 2);
	cx_dataset_truth(d, CX_PART_TEST, 0, truth);
	cx_dataset_bayes(d, CX_PART_TEST, 0, best);
	assert_memory_equal(truth, best, sizeof truth);
	cx_dataset_bayes(d, CX_PART_TEST, cx_dataset_get_info(d)->n_windows[CX_PART_TEST] - 1, best);
	assert_true(isnan(best[0])); /* the pair came without */
	cx_dataset_free(d);
	cx_session_deinit(&s);
}

static void every_allocation_fails_once(void **state)
{
	(void)state;
	for (long n = 0;; n++) {
		cx_fault fault = {.countdown = n};
		cx_alloc alloc = cx_alloc_fault(&fault);
		cx_dataset_opts o = cx_dataset_default();
		cx_simulate_opts sim = {.seed = 1, .n_units = 3, .seconds = 30, .bin_seconds = 0.05};
		cx_session s = {0};
		cx_recording r = {0};
		cx_dataset *d = NULL;
		cx_ridge_choice choice;
		cx_status st = cx_simulate(&sim, &alloc, NULL, NULL, &s, NULL);
		if (st == CX_OK) st = cx_simulate_recording(&s, 1, &alloc, &r, NULL);
		if (st == CX_OK) st = cx_ridge_tune(&s, 200, 1, NULL, NULL, &choice, NULL);
		if (st == CX_OK) st = cx_dataset_create(&o, &alloc, &d, NULL);
		if (st == CX_OK) st = cx_dataset_add_recording(d, &r, NULL);
		if (st == CX_OK) st = cx_dataset_add_session(d, &s, NULL);
		cx_dataset_free(d);
		cx_recording_deinit(&r);
		cx_session_deinit(&s);
		assert_int_equal(fault.n_live, 0);
		if (fault.fired) assert_int_equal(st, CX_ERR_MEMORY);
		else break;
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(binning),
		cmocka_unit_test(buckets_events_windows), cmocka_unit_test(cholesky_in_panels),
		cmocka_unit_test(sha256), cmocka_unit_test(gaps), cmocka_unit_test(rare_samples),
		cmocka_unit_test(parts_share_nothing), cmocka_unit_test(scale_is_of_train),
		cmocka_unit_test(batches), cmocka_unit_test(order_is_of_seed_and_epoch),
		cmocka_unit_test(refusals), cmocka_unit_test(trial_protocols),
		cmocka_unit_test(tuned_ridge), cmocka_unit_test(bound_of_a_window),
		cmocka_unit_test(subjects_differ), cmocka_unit_test(paths),
		cmocka_unit_test(every_allocation_fails_once)};
	return cmocka_run_group_tests_name("decoder_data", tests, NULL, NULL);
}
