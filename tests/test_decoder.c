/* test_decoder.c - the linear decoders: R2, fits against plain normal equations, simulated sessions
 * and their bound, the recording of the fixtures against its independent scores, decoding through
 * the graph on ref and cpu. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <jansson.h>
#include <math.h>

#include "models/decoder/linalg.h"
#include "models/decoder/linear.h"
#include "models/decoder/metrics.h"
#include "models/decoder/simulate.h"
#include "models/files/npy.h"
#include "tests/file_make.h"
#include "tests/rng.h"

#define OK(call)                                                                                   \
	do {                                                                                           \
		cx_err err_ = {0}, *err = &err_;                                                           \
		cx_status st_ = (call);                                                                    \
		if (st_ != CX_OK) fail_msg("%s: %s", #call, err_.msg);                                     \
	} while (0)

static cx_runtime *rt;
static cx_device *dev[2];
static const char *const dev_name[2] = {"ref", "cpu"};

static int open_devices(void **state)
{
	cx_err err = {0};
	(void)state;
	if (cx_runtime_create(NULL, &rt, &err) != CX_OK) return -1;
	for (int i = 0; i < 2; i++)
		if (cx_device_open(rt, dev_name[i], 0, &dev[i], &err) != CX_OK) return -1;
	return 0;
}

static int close_devices(void **state)
{
	(void)state;
	for (int i = 0; i < 2; i++) cx_device_close(dev[i]);
	cx_runtime_free(rt);
	return 0;
}

static void r2_rules(void **state)
{
	double y[] = {1, 5, 2, 5, 3, 5, 4, 5}, p[] = {1, 5, 2, 5, 3, 5, 4, 9},
		   q[] = {2.5, 5, 2.5, 5, 2.5, 5, 2.5, 5};
	double r2[2];
	(void)state;
	assert_true(cx_r2(y, p, 4, 2, r2) == 0.5);
	assert_true(r2[0] == 1 && r2[1] == 0); /* a constant column gives 0 */
	cx_r2(y, q, 4, 2, r2);
	assert_true(fabs(r2[0]) < 1e-15); /* the mean explains nothing */
	p[0] = NAN;
	assert_true(isnan(cx_r2(y, p, 4, 2, r2)) && isnan(r2[0]));
}

static void cholesky(void **state)
{
	double a[9] = {4, 0, 0, 2, 5, 0, 1, 2, 6},
		   b[3] = {11, 18, 23}; /* x = 1 2 3; only the lower half is read */
	double bad[4] = {1, 0, 2, 1}, c[2] = {1, 1};
	cx_err err = {0};
	(void)state;
	OK(cx__chol_solve(a, 3, b, 1, "test", err));
	for (int i = 0; i < 3; i++) assert_true(fabs(b[i] - (i + 1)) < 1e-12);
	assert_int_equal(cx__chol_solve(bad, 2, c, 1, "test", &err), CX_ERR_ARGUMENT);
	assert_non_null(strstr(err.msg, "positive definite"));
}

static void random_session(cx_session *s, size_t n, size_t units, uint64_t seed)
{
	cx_rng r = cx__rng_make(seed, 1);
	OK(cx_session_init(s, NULL, n, units, 2, false, err));
	for (size_t i = 0; i < n * units; i++)
		s->spikes[i] = (uint8_t)(cx__rng_one_in(&r, 3) ? cx__rng_int(&r, 1, 4) : 0);
	for (size_t i = 0; i < n * 2; i++) s->kin[i] = cx__rng_float(&r, -1, 1);
}

/* The sparse, Toeplitz-like sums of the fit against the definition. */
static void wiener_is_the_ridge_solution(void **state)
{
	enum { N = 90, U = 5, H = 4, K = U * H, TRAIN = 70 };
	static double g[K * K], xty[K * 2];
	static float x[N * K];
	double x_mean[K] = {0}, y_mean[2] = {0};
	cx_session s;
	cx_wiener w;
	(void)state;
	random_session(&s, N, U, 3);
	OK(cx_wiener_fit(&s, TRAIN, H, 2.5, &w, err));
	cx_wiener_features(&s, H, 0, N, x);
	for (int t = 0; t < TRAIN; t++) {
		for (int k = 0; k < K; k++) x_mean[k] += x[t * K + k] / (double)TRAIN;
		for (int c = 0; c < 2; c++) y_mean[c] += s.kin[t * 2 + c] / TRAIN;
	}
	memset(g, 0, sizeof g);
	memset(xty, 0, sizeof xty);
	for (int t = 0; t < TRAIN; t++)
		for (int i = 0; i < K; i++) {
			double xi = x[t * K + i] - x_mean[i];
			for (int j = 0; j < K; j++) g[i * K + j] += xi * (x[t * K + j] - x_mean[j]);
			for (int c = 0; c < 2; c++) xty[i * 2 + c] += xi * (s.kin[t * 2 + c] - y_mean[c]);
		}
	for (int i = 0; i < K; i++) g[i * K + i] += 2.5;
	OK(cx__chol_solve(g, K, xty, 2, "test", err));
	for (int i = 0; i < K; i++)
		for (int c = 0; c < 2; c++) assert_true(fabs(xty[i * 2 + c] - w.w[c * K + i]) < 1e-7);
	cx_wiener_deinit(&w);
	cx_session_deinit(&s);
}

static void simulation(void **state)
{
	cx_simulate_opts o = cx_simulate_default();
	cx_session a, b;
	double r2[4], wiener[4], *y;
	size_t first, n;
	cx_linear_opts fit = {.method = CX_LINEAR_WIENER, .history = 10, .ridge = 10};
	cx_linear_decoder *d;
	(void)state;
	o.seconds = 200;
	o.n_units = 40;
	OK(cx_simulate(&o, NULL, NULL, NULL, &a, err));
	OK(cx_simulate(&o, NULL, NULL, NULL, &b, err));
	assert_memory_equal(a.spikes, b.spikes, a.n_bins * a.n_units);
	assert_memory_equal(a.bayes, b.bayes, a.n_bins * 4 * sizeof *a.bayes);
	cx_session_deinit(&b);
	first = cx_session_split(&a, 0.8);
	n = a.n_bins - first;
	cx_r2(a.kin + first * 4, a.bayes + first * 4, n, 4, r2);
	y = malloc(n * 4 * sizeof *y);
	fit.n_train = first;
	OK(cx_linear_open(&a, &fit, rt, dev[1], &d, err));
	for (size_t i = 0; i < n; i++) OK(cx_linear_step(d, y + i * 4, err));
	cx_r2(a.kin + first * 4, y, n, 4, wiener);
	print_message("# simulated: Bayes-optimal velocity R2 %.4f %.4f, Wiener %.4f %.4f\n", r2[2],
		r2[3], wiener[2], wiener[3]);
	/* The exact filter beats the linear decoder, and both beat the mean. */
	for (int c = 2; c < 4; c++)
		assert_true(r2[c] > 0.9 && r2[c] <= 1 && wiener[c] > 0.5 && wiener[c] < r2[c]);
	{
		cx_err err = {0};
		assert_int_equal(cx_linear_step(d, y, &err), CX_ERR_ARGUMENT); /* past the end */
	}
	cx_linear_close(d);
	free(y);
	cx_session_deinit(&a);
}

/* ---- the recording ---- */

/* R2 of each column of the test part, decoded through the graph. */
static void score(const cx_session *s, const cx_linear_opts *opts, cx_device *device, double *r2)
{
	cx_linear_opts o = *opts;
	cx_linear_decoder *d;
	size_t n;
	double *y;
	o.n_train = cx_session_split(s, 0.8);
	n = s->n_bins - o.n_train;
	y = malloc(n * s->n_kin * sizeof *y);
	OK(cx_linear_open(s, &o, rt, device, &d, err));
	for (size_t i = 0; i < n; i++) OK(cx_linear_step(d, y + i * s->n_kin, err));
	cx_r2(s->kin + o.n_train * s->n_kin, y, n, s->n_kin, r2);
	cx_linear_close(d);
	free(y);
}

static void compare(
	const cx_session *s, const json_t *want, const double *r2, double tol, const char *what)
{
	for (size_t c = 0; c < s->n_kin; c++) {
		double w = json_number_value(json_object_get(want, s->kin_name[c]));
		if (!(fabs(w - r2[c]) <= tol))
			fail_msg("%s: R2 of %s is %.5f, not %.5f", what, s->kin_name[c], r2[c], w);
	}
	print_message("# %s: R2 %.5f %.5f %.5f %.5f\n", what, r2[0], r2[1], r2[2], r2[3]);
}

static void recording(void **state)
{
	const char *spikes = fixture("neural/m1_stevenson_2011/spikes.u8.npy");
	const char *kin = fixture("neural/m1_stevenson_2011/kinematics.f64.npy");
	cx_session s;
	json_t *json, *row;
	double r2[8];
	char what[64];
	size_t i;
	(void)state;
	if (!spikes || !kin) skip();
	OK(cx_session_load(spikes, kin, NULL, &s, err));
	json = json_load_file(fixture("neural/m1_stevenson_2011/baseline.json"), 0, NULL);
	assert_non_null(json);
	for (int d = 0; d < 2; d++) {
		json_array_foreach(json_object_get(json, "wiener"), i, row)
		{
			cx_linear_opts o = {.method = CX_LINEAR_WIENER,
				.history = (size_t)json_integer_value(json_object_get(row, "hist")),
				.ridge = json_number_value(json_object_get(row, "lam"))};
			snprintf(what, sizeof what, "wiener, history %zu, on %s", o.history, dev_name[d]);
			score(&s, &o, dev[d], r2);
			compare(&s, json_object_get(row, "r2"), r2, 0.001, what);
		}
		assert_int_equal(i, 3);
		snprintf(what, sizeof what, "kalman on %s", dev_name[d]);
		score(&s, &(cx_linear_opts){.method = CX_LINEAR_KALMAN}, dev[d], r2);
		compare(&s, json_object_get(json_object_get(json, "kalman"), "r2"), r2, 0.005, what);
	}
	json_decref(json);
	cx_session_deinit(&s);
}

static void bad_sessions(void **state)
{
	double kin[6] = {1, 2, 3, NAN, 5, 6}, huge[6] = {1, 2, 3, 4, 5, -1e300},
		   counts[6] = {0, 1, 2, 2.5, 0, 1};
	uint8_t good[6] = {0, 1, 2, 3, 4, 5};
	int64_t three_two[2] = {3, 2}, two_three[2] = {2, 3}, six = 6;
	const struct {
		const char *spikes, *kin, *want;
	} cases[] = {{"good.npy", "nan.npy", "column 1: nan is not"},
		{"good.npy", "huge.npy", "column 1: -1e+300 is not"}, {"half.npy", "nan.npy", "2.5"},
		{"good.npy", "wide.npy", "bins"}, {"flat.npy", "nan.npy", "rank"},
		{"none.npy", "nan.npy", "none.npy"}};
	(void)state;
	OK(cx_npy_write(NULL, temp_path("good.npy"), CX_NPY_U1, 2, three_two, good, err));
	OK(cx_npy_write(NULL, temp_path("flat.npy"), CX_NPY_U1, 1, &six, good, err));
	OK(cx_npy_write(NULL, temp_path("half.npy"), CX_NPY_F8, 2, three_two, counts, err));
	OK(cx_npy_write(NULL, temp_path("nan.npy"), CX_NPY_F8, 2, three_two, kin, err));
	OK(cx_npy_write(NULL, temp_path("huge.npy"), CX_NPY_F8, 2, three_two, huge, err));
	OK(cx_npy_write(NULL, temp_path("wide.npy"), CX_NPY_F8, 2, two_three, kin, err));
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		cx_session s;
		cx_err err = {0};
		char spikes[1200];
		snprintf(spikes, sizeof spikes, "%s", temp_path(cases[i].spikes));
		assert_int_not_equal(
			cx_session_load(spikes, temp_path(cases[i].kin), NULL, &s, &err), CX_OK);
		if (!strstr(err.msg, cases[i].want))
			fail_msg("'%s' does not say '%s'", err.msg, cases[i].want);
		assert_null(s.spikes);
	}
}

static void bad_fits(void **state)
{
	cx_session s;
	cx_wiener w;
	cx_kalman k;
	cx_err err = {0};
	(void)state;
	random_session(&s, 40, 3, 8);
	assert_int_equal(cx_wiener_fit(&s, 30, 0, 1, &w, &err), CX_ERR_ARGUMENT);
	assert_int_equal(cx_wiener_fit(&s, 30, 2, -1, &w, &err), CX_ERR_ARGUMENT);
	assert_int_equal(cx_wiener_fit(&s, 30, 2, NAN, &w, &err), CX_ERR_ARGUMENT);
	assert_int_equal(cx_wiener_fit(&s, 41, 2, 1, &w, &err), CX_ERR_ARGUMENT);
	assert_int_equal(cx_kalman_fit(&s, 3, &k, &err), CX_ERR_ARGUMENT);
	memset(s.spikes, 0,
		s.n_bins * s.n_units); /* silent units: only the ridge keeps the matrix regular */
	OK(cx_wiener_fit(&s, 30, 2, 1, &w, err));
	cx_wiener_deinit(&w);
	err.code = CX_OK;
	assert_int_equal(cx_wiener_fit(&s, 30, 2, 0, &w, &err), CX_ERR_ARGUMENT);
	cx_session_deinit(&s);
}

static void every_allocation_fails_once(void **state)
{
	cx_session s;
	(void)state;
	for (long n = 0;; n++) {
		cx_fault fault = {.countdown = n};
		cx_alloc alloc = cx_alloc_fault(&fault);
		cx_simulate_opts o = {.seed = 1, .n_units = 3, .seconds = 5, .bin_seconds = 0.05};
		cx_wiener w = {0};
		cx_kalman k = {0};
		cx_status st = cx_simulate(&o, &alloc, NULL, NULL, &s, NULL);
		if (st == CX_OK) st = cx_wiener_fit(&s, 80, 2, 1, &w, NULL);
		if (st == CX_OK) st = cx_kalman_fit(&s, 80, &k, NULL);
		cx_wiener_deinit(&w);
		cx_kalman_deinit(&k);
		cx_session_deinit(&s);
		assert_int_equal(fault.n_live, 0);
		assert_int_equal(st, fault.fired ? CX_ERR_MEMORY : CX_OK);
		if (!fault.fired) break;
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(r2_rules), cmocka_unit_test(cholesky),
		cmocka_unit_test(wiener_is_the_ridge_solution), cmocka_unit_test(simulation),
		cmocka_unit_test(recording), cmocka_unit_test(bad_sessions), cmocka_unit_test(bad_fits),
		cmocka_unit_test(every_allocation_fails_once)};
	return cmocka_run_group_tests_name("decoder", tests, open_devices, close_devices);
}
