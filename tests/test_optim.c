/* test_optim.c - training steps as graphs: a small regression for 200 steps beside its own forward,
 * backward, clipping and AdamW in double; accumulation over micro-batches by two plans over one
 * store; bf16 with f32 masters; dropout; no allocation after the first step. */
#include "graph/optim.h"
#include "graph/plan.h"
#include "tests/rng.h"

#include "graph/quant.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

enum { N = 16, IN = 5, HID = 8, OUT = 2, N_PARAM = 4, STEPS = 200 };
static const int64_t param_dim[N_PARAM][2] = {{HID, IN}, {HID, 1}, {OUT, HID}, {OUT, 1}};
static const int param_rank[N_PARAM] = {2, 1, 2, 1};
static const char *const param_name[N_PARAM] = {"w1", "b1", "w2", "b2"};
static const int param_size[N_PARAM] = {HID * IN, HID, OUT *HID, OUT};
static const cx_attr_adamw adamw = {.beta1 = 0.9f, .beta2 = 0.99f, .eps = 1e-5f, .decay = 0.02f};
static const float max_norm = 0.8f;

/* ---- the same in double ---------------------------------------------------------------------- */

typedef struct twin {
	double p[N_PARAM][HID * HID], g[N_PARAM][HID * HID], m[N_PARAM][HID * HID],
		v[N_PARAM][HID * HID];
	double norm;
} twin;

/* Loss, and its gradients into w->g: mean square of w2 tanh(w1 x + b1) + b2 - y. */
static double twin_loss(twin *w, const float *x, const float *y, int n)
{
	double loss = 0;
	memset(w->g, 0, sizeof w->g);
	for (int r = 0; r < n; r++) {
		double h[HID], dh[HID] = {0};
		for (int i = 0; i < HID; i++) {
			h[i] = w->p[1][i];
			for (int j = 0; j < IN; j++) h[i] += w->p[0][i * IN + j] * x[r * IN + j];
			h[i] = tanh(h[i]);
		}
		for (int o = 0; o < OUT; o++) {
			double e = w->p[3][o] - y[r * OUT + o], d;
			for (int i = 0; i < HID; i++) e += w->p[2][o * HID + i] * h[i];
			loss += e * e / (n * OUT);
			d = 2 * e / (n * OUT);
			w->g[3][o] += d;
			for (int i = 0; i < HID; i++) {
				w->g[2][o * HID + i] += d * h[i];
				dh[i] += d * w->p[2][o * HID + i];
			}
		}
		for (int i = 0; i < HID; i++) {
			double d = dh[i] * (1 - h[i] * h[i]);
			w->g[1][i] += d;
			for (int j = 0; j < IN; j++) w->g[0][i * IN + j] += d * x[r * IN + j];
		}
	}
	return loss;
}

static void twin_step(twin *w, double lr, int t)
{
	double square = 0, by;
	for (int k = 0; k < N_PARAM; k++)
		for (int i = 0; i < param_size[k]; i++) square += w->g[k][i] * w->g[k][i];
	w->norm = sqrt(square);
	by = w->norm > max_norm ? max_norm / w->norm : 1;
	for (int k = 0; k < N_PARAM; k++)
		for (int i = 0; i < param_size[k]; i++) {
			double g = w->g[k][i] * by, *m = &w->m[k][i], *v = &w->v[k][i];
			double decay = k % 2 ? 0 : adamw.decay; /* biases have none */
			*m = (double)adamw.beta1 * *m + (1 - (double)adamw.beta1) * g;
			*v = (double)adamw.beta2 * *v + (1 - (double)adamw.beta2) * g * g;
			w->p[k][i] -= lr * decay * w->p[k][i];
			w->p[k][i] -= lr * (*m / (1 - pow(adamw.beta1, t))) /
						  (sqrt(*v / (1 - pow(adamw.beta2, t))) + adamw.eps);
		}
}

/* ---- the graphs ------------------------------------------------------------------------------ */

typedef enum part { STEP, ACCUMULATE, APPLY, APPLY_ONLY } part;

typedef struct machine {
	cx_graph *g;
	cx_plan *plan;
	cx_exec *x;
	cx_param p[N_PARAM];
} machine;

static cx_tensor layer(cx_graph *g, cx_tensor x, cx_tensor w, cx_tensor b)
{
	cx_attr_matmul t = cx_attr_matmul_default();
	t.trans_b = true;
	return cx_add(g, cx_matmul(g, x, w, &t), b);
}

/* rows of the mini-batch; scale of an accumulated gradient. */
static void make_graph(machine *m, part what, cx_dtype dtype, int rows, float scale)
{
	cx_graph *g;
	cx_tensor wrt[N_PARAM], grads[N_PARAM], loss, x, y, t;
	cx_attr_cast to = {.dtype = dtype};
	cx_err err = {0};
	assert_int_equal(cx_graph_create(NULL, &g, &err), CX_OK);
	m->g = g;
	for (int k = 0; k < N_PARAM; k++) {
		m->p[k] = cx_param_state(g, param_name[k], dtype, param_rank[k], param_dim[k]);
		m->p[k].no_decay = k % 2;
		if (what != STEP) cx_param_accumulator(g, &m->p[k]);
		wrt[k] = m->p[k].value;
		grads[k] = CX_NONE;
	}
	if (what != APPLY_ONLY) {
		x = cx_input(g, "x", CX_F32, 2, (const int64_t[]){rows, IN});
		y = cx_input(g, "y", CX_F32, 2, (const int64_t[]){rows, OUT});
		t = layer(g, dtype == CX_F32 ? x : cx_cast(g, x, &to), wrt[0], wrt[1]);
		t = layer(g, cx_tanh(g, t), wrt[2], wrt[3]);
		to.dtype = CX_F32;
		loss = cx_mse(g, dtype == CX_F32 ? t : cx_cast(g, t, &to), y, NULL);
		cx_graph_grad(g, loss, wrt, N_PARAM, NULL, grads);
		cx_output(g, "loss", loss);
	}
	if (what == ACCUMULATE) cx_accumulate(g, m->p, grads, N_PARAM, scale);
	if (what == APPLY || what == APPLY_ONLY) cx_accumulate_take(g, m->p, grads, N_PARAM, scale);
	if (what != ACCUMULATE) {
		cx_tensor lr = cx_input(g, "lr", CX_F32, 1, (const int64_t[]){1});
		cx_output(g, "norm", cx_clip_global_norm(g, grads, N_PARAM, max_norm));
		cx_adamw_step(g, m->p, grads, N_PARAM, &adamw, lr, cx_step_count(g, "t"));
	}
	if (cx_graph_finish(g, &err) != CX_OK) fail_msg("%s", err.msg);
}

static void machine_open(machine *m, cx_device *dev, cx_store *store)
{
	cx_plan_opts opts = {.devices = &dev, .n_devices = 1, .verify = true};
	cx_err err = {0};
	if (cx_plan_build(m->g, &opts, &m->plan, &err) != CX_OK ||
		cx_exec_create(m->plan, store, &m->x, &err) != CX_OK)
		fail_msg("%s", err.msg);
}

static void machine_close(machine *m)
{
	cx_exec_free(m->x);
	cx_plan_free(m->plan);
	cx_graph_free(m->g);
}

static void set(machine *m, const char *name, const void *data, size_t bytes)
{
	int i = cx_exec_input(m->x, name);
	cx_err err = {0};
	if (i >= 0 && cx_exec_set_input(m->x, i, data, bytes, &err) != CX_OK) fail_msg("%s", err.msg);
}

static float run(machine *m, const float *x, const float *y, int rows, float lr)
{
	cx_err err = {0};
	float loss = 0;
	set(m, "x", x, (size_t)rows * IN * 4);
	set(m, "y", y, (size_t)rows * OUT * 4);
	set(m, "lr", &lr, 4);
	if (cx_exec_run(m->x, &err) != CX_OK) fail_msg("%s", err.msg);
	if (cx_exec_output(m->x, "loss") >= 0)
		assert_int_equal(
			cx_exec_get_output(m->x, cx_exec_output(m->x, "loss"), &loss, 4, &err), CX_OK);
	return loss;
}

static float norm_of(machine *m)
{
	float norm = 0;
	assert_int_equal(cx_exec_get_output(m->x, cx_exec_output(m->x, "norm"), &norm, 4, NULL), CX_OK);
	return norm;
}

/* Data, and a start that both sides share. */
static void make_data(float *x, float *y, twin *w, cx_store *s, bool master)
{
	cx_rng rng = cx__rng_make(5, 0);
	memset(w, 0, sizeof *w);
	for (int r = 0; r < N; r++) {
		for (int j = 0; j < IN; j++) x[r * IN + j] = cx__rng_float(&rng, -1, 1);
		y[r * OUT] = sinf(2 * x[r * IN]) + x[r * IN + 1] * x[r * IN + 2];
		y[r * OUT + 1] = 3 * x[r * IN + 3] - 1;
	}
	for (int k = 0; k < N_PARAM; k++) {
		float start[HID * HID];
		uint16_t narrow[HID * HID];
		char name[32];
		for (int i = 0; i < param_size[k]; i++) {
			start[i] = k % 2 ? 0 : cx__rng_float(&rng, -0.6f, 0.6f);
			w->p[k][i] = start[i];
			narrow[i] = cx_f32_to_bf16(start[i]);
		}
		snprintf(name, sizeof name, "%s%s", param_name[k], master ? ".master" : "");
		assert_int_equal(
			cx_store_state_write(s, name, start, (uint64_t)param_size[k] * 4, NULL), CX_OK);
		if (!master) continue;
		assert_int_equal(
			cx_store_state_write(s, param_name[k], narrow, (uint64_t)param_size[k] * 2, NULL),
			CX_OK);
	}
}

static double worst(cx_store *s, const twin *w)
{
	double most = 0;
	for (int k = 0; k < N_PARAM; k++) {
		float got[HID * HID];
		assert_int_equal(
			cx_store_state_read(s, param_name[k], got, (uint64_t)param_size[k] * 4, NULL), CX_OK);
		for (int i = 0; i < param_size[k]; i++) {
			double d = fabs(got[i] - w->p[k][i]);
			if (!(d <= most)) most = d; /* NaN sticks */
		}
	}
	return most;
}

/* ---- tests ----------------------------------------------------------------------------------- */

static void regression(const char *backend)
{
	machine m;
	cx_fault fault = {.countdown = -1};
	cx_config config = {.alloc = cx_alloc_fault(&fault), .n_threads = 1};
	cx_runtime *rt;
	cx_device *dev;
	cx_store *s;
	float x[N * IN], y[N * OUT], first = 0, last = 0;
	double most = 0;
	long calls = 0;
	int n_clipped = 0;
	twin w;
	assert_int_equal(cx_runtime_create(&config, &rt, NULL), CX_OK);
	assert_int_equal(cx_device_open(rt, backend, 0, &dev, NULL), CX_OK);
	assert_int_equal(cx_store_create(rt, &s, NULL), CX_OK);
	make_graph(&m, STEP, CX_F32, N, 1);
	machine_open(&m, dev, s);
	make_data(x, y, &w, s, false);
	for (int t = 1; t <= STEPS; t++) {
		float lr = 0.03f * (t < 10 ? (float)t / 10 : 1), loss = run(&m, x, y, N, lr);
		double want = twin_loss(&w, x, y, N), d;
		twin_step(&w, lr, t);
		n_clipped += w.norm > max_norm;
		if (t == 1) {
			first = loss;
			calls = fault.n_calls;
		}
		last = loss;
		if (!(fabs(loss - want) <= 1e-5 * fabs(want) + 1e-7))
			fail_msg("%s, step %d: loss %.9g, in double %.9g", backend, t, loss, want);
		if (!(fabs(norm_of(&m) - w.norm) <= 1e-4 * w.norm))
			fail_msg("%s, step %d: norm %.9g, in double %.9g", backend, t, norm_of(&m), w.norm);
		d = worst(s, &w);
		if (!(d <= 1e-5)) fail_msg("%s, step %d: parameters differ by %g", backend, t, d);
		most = d > most ? d : most;
	}
	assert_int_equal(fault.n_calls, calls);
	assert_true(last < 0.05f * first);
	assert_true(n_clipped > 0 && n_clipped < STEPS);
	printf("# %s: loss %.3g to %.3g in %d steps, %d clipped, parameters within %.1e of double\n",
		backend, first, last, STEPS, n_clipped, most);
	machine_close(&m);
	cx_store_free(s);
	cx_device_close(dev);
	cx_runtime_free(rt);
	assert_int_equal(fault.n_live, 0);
}

static void test_regression(void **state)
{
	(void)state;
	regression("ref");
	regression("cpu");
}

/* Micro-batches of N/4 against the whole batch in double; apply with its own backward, or alone. */
static void accumulation(const char *backend, bool alone)
{
	enum { MICRO = 4, ROWS = N / MICRO };
	machine add, apply;
	cx_runtime *rt;
	cx_device *dev;
	cx_store *s;
	float x[N * IN], y[N * OUT];
	twin w;
	assert_int_equal(cx_runtime_create(NULL, &rt, NULL), CX_OK);
	assert_int_equal(cx_device_open(rt, backend, 0, &dev, NULL), CX_OK);
	assert_int_equal(cx_store_create(rt, &s, NULL), CX_OK);
	make_graph(&add, ACCUMULATE, CX_F32, ROWS, 1.0f / MICRO);
	make_graph(&apply, alone ? APPLY_ONLY : APPLY, CX_F32, ROWS, 1.0f / MICRO);
	machine_open(&add, dev, s);
	machine_open(&apply, dev, s);
	make_data(x, y, &w, s, false);
	for (int t = 1; t <= 20; t++) {
		for (int i = 0; i < MICRO; i++) {
			bool last = i == MICRO - 1 && !alone;
			run(last ? &apply : &add, x + i * ROWS * IN, y + i * ROWS * OUT, ROWS, 0.02f);
		}
		if (alone) run(&apply, NULL, NULL, 0, 0.02f);
		twin_loss(&w, x, y, N);
		twin_step(&w, 0.02f, t);
		assert_true(fabs(norm_of(&apply) - w.norm) <= 1e-5 * w.norm);
		if (!(worst(s, &w) <= 1e-5)) fail_msg("%s, step %d: %g", backend, t, worst(s, &w));
	}
	machine_close(&add);
	machine_close(&apply);
	cx_store_free(s);
	cx_device_close(dev);
	cx_runtime_free(rt);
}

static void test_accumulation(void **state)
{
	(void)state;
	accumulation("ref", false);
	accumulation("cpu", false);
	accumulation("cpu", true);
}

static void test_bf16(void **state)
{
	machine m;
	cx_runtime *rt;
	cx_device *dev;
	cx_store *s;
	float x[N * IN], y[N * OUT], first = 0, last = 0;
	twin w;
	(void)state;
	assert_int_equal(cx_runtime_create(NULL, &rt, NULL), CX_OK);
	assert_int_equal(cx_device_open(rt, "cpu", 0, &dev, NULL), CX_OK);
	assert_int_equal(cx_store_create(rt, &s, NULL), CX_OK);
	make_graph(&m, STEP, CX_BF16, N, 1);
	machine_open(&m, dev, s);
	make_data(x, y, &w, s, true);
	for (int t = 1; t <= STEPS; t++) {
		last = run(&m, x, y, N, 0.003f); /* smaller than half a unit of bf16 at 1 */
		if (t == 1) first = last;
	}
	assert_true(last < 0.2f * first);
	for (int k = 0; k < N_PARAM; k++) { /* values are the masters, rounded; masters are finer */
		float master[HID * HID];
		uint16_t value[HID * HID];
		char name[32];
		int n_finer = 0;
		snprintf(name, sizeof name, "%s.master", param_name[k]);
		assert_int_equal(
			cx_store_state_read(s, name, master, (uint64_t)param_size[k] * 4, NULL), CX_OK);
		assert_int_equal(
			cx_store_state_read(s, param_name[k], value, (uint64_t)param_size[k] * 2, NULL), CX_OK);
		for (int i = 0; i < param_size[k]; i++) {
			assert_int_equal(value[i], cx_f32_to_bf16(master[i]));
			n_finer += cx_bf16_to_f32(value[i]) != master[i];
		}
		assert_true(n_finer > 0);
	}
	printf("# cpu, bf16 with f32 masters: loss %.3g to %.3g\n", first, last);
	machine_close(&m);
	cx_store_free(s);
	cx_device_close(dev);
	cx_runtime_free(rt);
}

/* ---- dropout --------------------------------------------------------------------------------- */

enum { WIDE = 4096 };

static void dropout_run(
	cx_runtime *rt, cx_device *dev, float p, const int32_t key[4], float *y, float *dx)
{
	machine m = {0};
	cx_store *s;
	cx_tensor x, k, t, grad;
	cx_err err = {0};
	float ones[WIDE];
	assert_int_equal(cx_store_create(rt, &s, NULL), CX_OK);
	assert_int_equal(cx_graph_create(NULL, &m.g, NULL), CX_OK);
	x = cx_input(m.g, "x", CX_F32, 1, (const int64_t[]){WIDE});
	k = cx_input(m.g, "key", CX_I32, 1, (const int64_t[]){4});
	t = cx_dropout(m.g, x, p, cx_random_site(m.g, k, 3));
	cx_graph_grad(m.g, cx_sum(m.g, t, NULL), &x, 1, NULL, &grad);
	cx_output(m.g, "y", t);
	cx_output(m.g, "dx", grad);
	if (cx_graph_finish(m.g, &err) != CX_OK) fail_msg("%s", err.msg);
	machine_open(&m, dev, s);
	for (int i = 0; i < WIDE; i++) ones[i] = 1;
	set(&m, "x", ones, sizeof ones);
	set(&m, "key", key, 16);
	assert_int_equal(cx_exec_run(m.x, NULL), CX_OK);
	assert_int_equal(cx_exec_get_output(m.x, 0, y, sizeof ones, NULL), CX_OK);
	assert_int_equal(cx_exec_get_output(m.x, 1, dx, sizeof ones, NULL), CX_OK);
	machine_close(&m);
	cx_store_free(s);
}

static void test_dropout(void **state)
{
	static float a[WIDE], b[WIDE], da[WIDE], db[WIDE];
	const int32_t key[4] = {7, 1, 2, 0}, other[4] = {7, 1, 3, 0};
	cx_runtime *rt;
	cx_device *dev;
	int kept = 0, both = 0;
	(void)state;
	assert_int_equal(cx_runtime_create(NULL, &rt, NULL), CX_OK);
	assert_int_equal(cx_device_open(rt, "cpu", 0, &dev, NULL), CX_OK);
	dropout_run(rt, dev, 0.25f, key, a, da);
	dropout_run(rt, dev, 0.25f, key, b, db);
	assert_memory_equal(a, b, sizeof a);
	assert_memory_equal(a, da, sizeof a); /* of a sum, at ones: the mask itself */
	dropout_run(rt, dev, 0.25f, other, b, db);
	for (int i = 0; i < WIDE; i++) {
		assert_true(a[i] == 0 || fabsf(a[i] - 4.0f / 3) < 1e-6f);
		kept += a[i] != 0;
		both += a[i] != 0 && b[i] != 0;
	}
	/* binomial, within 5 standard deviations */
	assert_true(fabs(kept - 0.75 * WIDE) < 5 * sqrt(WIDE * 0.75 * 0.25));
	assert_true(fabs(both - 0.5625 * WIDE) < 5 * sqrt(WIDE * 0.5625 * 0.4375));
	dropout_run(rt, dev, 0, key, a, da);
	for (int i = 0; i < WIDE; i++) assert_true(a[i] == 1 && da[i] == 1);
	cx_device_close(dev);
	cx_runtime_free(rt);
}

static void refused(float p, const char *sentence)
{
	const int64_t four = 4;
	cx_graph *g;
	cx_err err = {0};
	assert_int_equal(cx_graph_create(NULL, &g, NULL), CX_OK);
	cx_output(g, "y",
		cx_dropout(g, cx_input(g, "x", CX_F32, 1, &four), p, cx_input(g, "k", CX_I32, 1, &four)));
	assert_int_not_equal(cx_graph_finish(g, &err), CX_OK);
	assert_string_equal(err.msg, sentence);
	cx_graph_free(g);
}

static void test_bad(void **state)
{
	machine m;
	cx_err err = {0};
	(void)state;
	refused(1, "dropout: p is 1, must be in [0, 1)");
	refused(-0.5f, "dropout: p is -0.5, must be in [0, 1)");
	refused(NAN, "dropout: p is nan, must be in [0, 1)");
	assert_int_equal(cx_graph_create(NULL, &m.g, NULL), CX_OK); /* no accumulator was made */
	m.p[0] = cx_param_state(m.g, "w", CX_F32, 2, param_dim[0]);
	cx_accumulate(m.g, m.p, &m.p[0].value, 1, 1);
	assert_int_not_equal(cx_graph_finish(m.g, &err), CX_OK);
	assert_non_null(strstr(err.msg, "operand 0 (a) is missing"));
	cx_graph_free(m.g);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_regression),
		cmocka_unit_test(test_accumulation), cmocka_unit_test(test_bf16),
		cmocka_unit_test(test_dropout), cmocka_unit_test(test_bad)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
