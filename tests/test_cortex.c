/* test_cortex.c - the Cortex decoder on its devices: the forward pass on every backend against
 * tests/golden (NumPy), the served plan step by step, padding and batching bit for bit, loss and
 * its gradient, dropout. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <math.h>
#include <time.h>

#include "graph/plan.h"
#include "graph/quant.h"
#include "models/decoder/runner.h"
#include "tests/cortex_make.h"
#include "tests/vulkan_env.h"

enum { REF, CPU, OPENCL, VULKAN, N_DEVICES };
static const char *const dev_name[N_DEVICES] = {"ref", "cpu", "opencl", "vulkan"};
static cx_runtime *rt;
static cx_device *dev[N_DEVICES]; /* NULL: this machine has none */

static int open_devices(void **state)
{
	cx_config config = {.n_threads = 2};
	(void)state;
	vulkan_env();
	if (cx_runtime_create(&config, &rt, NULL) != CX_OK) return -1;
	for (int i = 0; i < N_DEVICES; i++) {
		cx_err err = {0};
		if (cx_device_open(rt, dev_name[i], 0, &dev[i], &err) == CX_OK) continue;
		dev[i] = NULL;
		print_message("# without %s: %s\n", dev_name[i], err.msg);
		if (i <= CPU) return -1;
	}
	return 0;
}

static int close_devices(void **state)
{
	(void)state;
	for (int i = 0; i < N_DEVICES; i++) cx_device_close(dev[i]);
	cx_runtime_free(rt);
	return 0;
}

#define OK(call)                                                                                   \
	do {                                                                                           \
		cx_err err_ = {0}, *err = &err_;                                                           \
		cx_status st_ = (call);                                                                    \
		if (st_ != CX_OK) fail_msg("%s: %s", #call, err_.msg);                                     \
	} while (0)

static double now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* ---- running ---- */

typedef struct runner {
	cx_graph *g;
	cx_plan *plan;
	cx_store *store;
	cx_exec *x;
	cx_cortex_graph m;
} runner;

enum { FOLD = 1, ALL_OUTPUTS = 2, HALF = 4 /* activations bf16 */ };

static void runner_open(
	runner *r, cx_cortex *model, cx_device *d, const cx_cortex_bucket *b, int flags)
{
	const cx_cortex_config *c = cx_cortex_get_config(model);
	cx_plan_opts opts = {.devices = &d, .n_devices = 1, .verify = true};
	cx_cortex_source src;
	memset(r, 0, sizeof *r);
	OK(cx_store_create(rt, &r->store, err));
	OK(cx_cortex_bind(model, rt, d, r->store, err));
	src = cx_cortex_get_source(model);
	assert_true(src.folded);
	src.folded = (flags & FOLD) != 0;
	if (flags & HALF) src.act = CX_BF16;
	OK(cx_graph_create(NULL, &r->g, err));
	cx_cortex_build(c, &src, b, r->g, &r->m, NULL);
	cx_output(r->g, "behavior", r->m.behavior);
	if (flags & ALL_OUTPUTS) {
		cx_output(r->g, "latents", r->m.latents);
		cx_output(r->g, "masked", r->m.masked_logits);
		cx_output(r->g, "mean", r->m.mean_logits);
	}
	OK(cx_graph_finish(r->g, err));
	OK(cx_plan_build(r->g, &opts, &r->plan, err));
	OK(cx_exec_create(r->plan, r->store, &r->x, err));
}

static void runner_close(runner *r)
{
	cx_exec_free(r->x);
	cx_store_free(r->store);
	cx_plan_free(r->plan);
	cx_graph_free(r->g);
}

static void set(runner *r, const char *name, const void *data, int64_t n)
{
	int i = cx_exec_input(r->x, name);
	if (i >= 0) OK(cx_exec_set_input(r->x, i, data, 4 * (uint64_t)n, err));
}

static void run_batch(runner *r, const golden_batch *b)
{
	const cx_cortex_bucket *k = &b->bucket;
	set(r, "neuron", b->neuron, k->n_events);
	set(r, "time", b->time, k->n_events);
	set(r, "value", b->value, k->n_events);
	set(r, "off", b->off, k->n_windows + 1);
	set(r, "query_neuron", b->query_neuron, k->n_queries);
	set(r, "query_time", b->query_time, k->n_queries);
	set(r, "query_off", b->query_off, k->n_windows + 1);
	OK(cx_exec_run(r->x, err));
}

static float *output(runner *r, const char *name, size_t n)
{
	float *v = calloc(n + 1, sizeof *v);
	OK(cx_exec_get_output(r->x, cx_exec_output(r->x, name), v, n * sizeof *v, err));
	return v;
}

/* Largest difference from the golden rows; NaN if there is one. stride: of the values compared. */
static double against_golden(const char *name, const char *tensor, const float *v, int n)
{
	double worst = 0;
	assert_int_equal(golden_count(name, tensor), n);
	for (int i = 0; i < n; i++) {
		double d = fabs((double)v[i] - golden_value(name, tensor, i));
		if (!(d <= worst)) worst = d;
	}
	return worst;
}

/* latents[:, ::L/4, ::D/8] of the golden file. */
static double against_latents(const golden_case *k, const cx_cortex_config *c, const float *z)
{
	int64_t rows = c->num_latents / 4, cols = c->latent_dim / 8;
	float v[GOLDEN_WINDOWS * 4 * 8];
	int n = 0;
	for (int w = 0; w < k->n_windows; w++)
		for (int64_t l = 0; l < 4; l++)
			for (int64_t d = 0; d < 8; d++)
				v[n++] = z[(w * c->num_latents + l * rows) * c->latent_dim + d * cols];
	return against_golden(k->name, "latents", v, n);
}

static void golden_on(int device, const golden_case *k, double limit)
{
	cx_cortex_config c = golden_config(k);
	cx_cortex *m = golden_model(&c);
	golden_batch b;
	runner r;
	double t = now(), worst[4];
	float *v[4];
	size_t n[4];
	golden_batch_make(k, 3, &b);
	b.bucket.mean_logits = true;
	runner_open(&r, m, dev[device], &b.bucket, FOLD | ALL_OUTPUTS);
	run_batch(&r, &b);
	n[0] = (size_t)(k->n_windows * c.behavior_dim);
	n[1] = (size_t)(k->n_windows * c.num_latents * c.latent_dim);
	n[2] = (size_t)(b.bucket.n_queries * c.spike_value_buckets);
	n[3] = (size_t)(k->n_windows * c.spike_value_buckets);
	v[0] = output(&r, "behavior", n[0]);
	v[1] = output(&r, "latents", n[1]);
	v[2] = output(&r, "masked", n[2]);
	v[3] = output(&r, "mean", n[3]);
	worst[0] = against_golden(k->name, "behavior", v[0], (int)n[0]);
	worst[1] = against_latents(k, &c, v[1]);
	worst[2] = against_golden(
		k->name, "masked", v[2], b.query_off[k->n_windows] * (int)c.spike_value_buckets);
	worst[3] = against_golden(k->name, "mean", v[3], (int)n[3]);
	print_message("# %-9s on %-6s: largest difference %.1e behavior, %.1e latents, %.1e masked "
				  "spikes, %.1e mean head; %.1f s\n",
		k->name, dev_name[device], worst[0], worst[1], worst[2], worst[3], now() - t);
	for (int i = 0; i < 4; i++) {
		for (size_t e = 0; e < n[i]; e++) assert_true(isfinite(v[i][e]));
		assert_true(worst[i] <= limit);
		free(v[i]);
	}
	runner_close(&r);
	golden_batch_free(&b);
	cx_cortex_close(m);
}

static void golden_ref(void **state)
{
	(void)state;
	for (int i = 0; i < 3; i++) golden_on(REF, &golden_cases[i], 1e-4);
	golden_on(REF, &golden_cases[4], 1e-4); /* xs, one window */
}

static void golden_cpu(void **state)
{
	(void)state;
	for (int i = 0; i < GOLDEN_CASES; i++) golden_on(CPU, &golden_cases[i], 1e-4);
}

static void golden_others(void **state)
{
	(void)state;
	for (int i = 0; i < 5 && dev[OPENCL]; i++) golden_on(OPENCL, &golden_cases[i], 1e-3);
	/* lavapipe takes seconds to compile each pipeline: one case, which has everything */
	if (dev[VULKAN]) golden_on(VULKAN, &golden_cases[3], 1e-3);
	if (!dev[OPENCL] && !dev[VULKAN]) skip();
}

/* ---- the served plan ---- */

static int steps_of(const cx_plan *p, cx_op op)
{
	int n = 0;
	for (uint32_t i = 0; i < p->n_order; i++) n += p->n[p->order[i]].op == op;
	return n;
}

static void plan_on(int device, int n_windows, cx_cortex_norm norm)
{
	cx_cortex_config c = cx_cortex_config_size(CX_CORTEX_NANO);
	cx_cortex_bucket b = {.n_windows = n_windows, .n_events = 64};
	int layers = (int)c.num_layers, n_norm = 0, n_gelu = 0, n_residual = 0;
	cx_cortex *m;
	runner r;
	c.norm = norm;
	OK(cx_cortex_create(&c, 1, NULL, &m, err));
	runner_open(&r, m, dev[device], &b, FOLD);
	for (uint32_t i = 0; i < r.plan->n_order; i++) {
		const cx_pnode *n = &r.plan->n[r.plan->order[i]];
		const cx_attr_linear *a = n->attr;
		if (n->op != CX_OP_linear) continue;
		n_norm += a->norm == (norm == CX_CORTEX_RMSNORM ? 1 : 2);
		n_gelu += a->act == CX_OP_gelu;
		n_residual += a->residual;
	}
	print_message("# %s, %d windows: %u steps for %u nodes\n", dev_name[device], n_windows,
		r.plan->n_order, cx_graph_n_nodes(r.g));
	assert_int_equal(steps_of(r.plan, CX_OP_embed_sum), 1);
	assert_int_equal(steps_of(r.plan, CX_OP_attention), layers + 2);
	assert_int_equal(n_norm, 2 * layers + 2); /* events, both of a block, behaviour head */
	assert_int_equal(n_gelu, layers);
	assert_int_equal(n_residual, 2 * layers + 1);
	/* nothing else but the final norm, the last product, and the latents repeated per window; the
	 * queries of both attentions are not computed */
	assert_int_equal(steps_of(r.plan, CX_OP_linear), 4 * layers + 3);
	assert_int_equal(r.plan->n_order, 5 * layers + 3 + 3 + 2 - (n_windows == 1 ? 2 : 0) + 2);
	runner_close(&r);
	cx_cortex_close(m);
}

static void served_plan(void **state)
{
	(void)state;
	for (int d = CPU; d < N_DEVICES; d++) {
		if (!dev[d]) continue;
		plan_on(d, 1, CX_CORTEX_LAYERNORM);
		plan_on(d, 3, CX_CORTEX_LAYERNORM);
		plan_on(d, 3, CX_CORTEX_RMSNORM);
	}
}

static void folded_or_not(void **state)
{
	golden_batch b;
	cx_cortex_config c = golden_config(&golden_cases[0]);
	cx_cortex *m = golden_model(&c);
	float *v[2];
	size_t n;
	uint32_t steps[2];
	(void)state;
	golden_batch_make(&golden_cases[0], 0, &b);
	n = (size_t)(b.bucket.n_windows * c.behavior_dim);
	for (int fold = 0; fold < 2; fold++) {
		runner r;
		runner_open(&r, m, dev[CPU], &b.bucket, fold ? FOLD : 0);
		run_batch(&r, &b);
		v[fold] = output(&r, "behavior", n);
		steps[fold] = r.plan->n_order;
		runner_close(&r);
	}
	assert_memory_equal(v[0], v[1], n * sizeof **v); /* the same kernels on the same device */
	assert_int_equal(steps[0], steps[1] + 2);
	free(v[0]);
	free(v[1]);
	golden_batch_free(&b);
	cx_cortex_close(m);
}

/* Linears and activations bf16: near what activations of f32 give with the same weights, and the
 * same on both devices but for sums in another order. */
static void bf16_activations(void **state)
{
	static const char *const names[] = {"behavior", "latents", "masked"};
	golden_batch b;
	cx_cortex_config c = golden_config(&golden_cases[0]);
	cx_cortex *m = golden_model(&c);
	double worst = 0, apart = 0;
	(void)state;
	golden_batch_make(&golden_cases[0], 0, &b);
	b.bucket.mean_logits = true;
	for (size_t i = 0; i < m->n; i++) {
		uint64_t n = cx_cortex_param_elems(&m->w[i].p);
		uint16_t *half = malloc((size_t)n * 2);
		cx_quant_row(CX_BF16, m->w[i].data, half, (int64_t)n);
		if (m->w[i].p.linear) OK(cx_cortex_set(m, i, CX_BF16, half, 2 * n, err));
		free(half);
	}
	for (size_t o = 0; o < sizeof names / sizeof *names; o++) {
		size_t n[] = {(size_t)(b.bucket.n_windows * c.behavior_dim),
			(size_t)(b.bucket.n_windows * c.num_latents * c.latent_dim),
			(size_t)(b.query_off[b.bucket.n_windows] * c.spike_value_buckets)};
		float *v[3];
		for (int i = 0; i < 3; i++) { /* f32, then bf16 on each */
			runner r;
			runner_open(&r, m, dev[i == 1 ? REF : CPU], &b.bucket, ALL_OUTPUTS | (i ? HALF : 0));
			run_batch(&r, &b);
			v[i] = output(&r, names[o], n[o]);
			runner_close(&r);
		}
		for (size_t j = 0; j < n[o]; j++) {
			double scale = 0.3 + fabs(v[0][j]);
			assert_true(fabs(v[2][j] - v[0][j]) <= 0.12 * scale);
			assert_true(fabs(v[2][j] - v[1][j]) <= 0.12 * scale);
			worst = fmax(worst, fabs(v[2][j] - v[0][j]) / scale);
			apart = fmax(apart, fabs(v[2][j] - v[1][j]) / scale);
		}
		for (int i = 0; i < 3; i++) free(v[i]);
	}
	assert_true(worst > 0); /* they were rounded */
	printf("  # bf16 activations: %.4f from f32, ref and cpu %.4f apart\n", worst, apart);
	golden_batch_free(&b);
	cx_cortex_close(m);
}

/* Room in the bucket, and who else is in the batch, change no bit of a window's output. */
static void padding_and_batching(void **state)
{
	cx_cortex_config c = golden_config(&golden_cases[0]);
	cx_cortex *m = golden_model(&c);
	float *whole;
	golden_batch b;
	runner r;
	(void)state;
	golden_batch_make(&golden_cases[0], 0, &b);
	runner_open(&r, m, dev[CPU], &b.bucket, FOLD);
	run_batch(&r, &b);
	whole = output(&r, "behavior", (size_t)(5 * c.behavior_dim));
	runner_close(&r);
	for (int w = 0; w < 5; w++) {
		static const int spares[] = {0, 1, 90};
		for (int s = 0; s < 3; s++) {
			golden_case alone = golden_cases[0];
			golden_batch one;
			int n = alone.n_events[w];
			float *v;
			alone.n_windows = 1;
			alone.n_events[0] = n;
			golden_batch_make(&alone, spares[s], &one);
			memcpy(one.neuron, b.neuron + b.off[w], (size_t)n * 4);
			memcpy(one.time, b.time + b.off[w], (size_t)n * 4);
			memcpy(one.value, b.value + b.off[w], (size_t)n * 4);
			runner_open(&r, m, dev[CPU], &one.bucket, FOLD);
			run_batch(&r, &one);
			v = output(&r, "behavior", (size_t)c.behavior_dim);
			assert_memory_equal(v, whole + w * c.behavior_dim, (size_t)c.behavior_dim * 4);
			free(v);
			runner_close(&r);
			golden_batch_free(&one);
		}
	}
	free(whole);
	golden_batch_free(&b);
	cx_cortex_close(m);
}

/* Batches of any size through buckets: the bits of one big run, from weights as from states. */
static void any_batch(void **state)
{
	const golden_case *k = &golden_cases[0];
	cx_cortex_config c = golden_config(k);
	cx_cortex *m = golden_model(&c);
	cx_cortex_source src = cx_cortex_states();
	cx_cortex_runner *run, *trained;
	cx_store *store;
	golden_batch b;
	runner r;
	float *whole, v[10], y[10];
	int32_t odd[3] = {0, 1, 2};
	cx_tensor param[64];
	cx_err err = {0};
	(void)state;
	golden_batch_make(k, 0, &b);
	runner_open(&r, m, dev[CPU], &b.bucket, FOLD);
	run_batch(&r, &b);
	whole = output(&r, "behavior", 10);
	OK(cx_store_create(rt, &store, err));
	OK(cx_cortex_bind(m, rt, dev[CPU], store, err));
	{
		cx_cortex_source weights = cx_cortex_get_source(m);
		OK(cx_cortex_runner_create(&c, &weights, dev[CPU], store, 4, NULL, &run, err));
	}
	OK(cx_cortex_runner_create(&c, &src, dev[CPU], store, 2, NULL, &trained, err));
	OK(cx_cortex_runner_run(run, b.off, 5, b.neuron, b.time, b.value, v, err));
	assert_memory_equal(v, whole, sizeof v);
	assert_int_equal(cx_cortex_runner_n_buckets(run), 2); /* 4 and 1 windows */
	assert_non_null(cx_cortex_runner_plan(run, 5, 46));
	assert_null(cx_cortex_runner_plan(run, 2, 46));
	for (int w = 0; w < 5; w++) /* off need not begin at the arrays' start */
		OK(cx_cortex_runner_run(run, (int32_t[]){0, b.off[w + 1] - b.off[w]}, 1,
			b.neuron + b.off[w], b.time + b.off[w], b.value + b.off[w], v + 2 * w, err));
	assert_memory_equal(v, whole, sizeof v);
	OK(cx_cortex_runner_warm(trained, 5, 46, err)); /* makes the states */
	for (size_t i = 0; i < m->n; i++)               /* this graph has no masked-spike head */
		param[i] = strstr(m->w[i].p.name, "masked") ? CX_NONE : (cx_tensor){0};
	OK(cx_cortex_write_states(m, store, param, err));
	OK(cx_cortex_runner_run(trained, b.off, 5, b.neuron, b.time, b.value, y, err));
	assert_memory_equal(y, whole, sizeof y);
	assert_int_equal(
		cx_cortex_runner_run(run, odd, 2, b.neuron, (int32_t[]){3, 128}, b.value, v, &err),
		CX_ERR_ARGUMENT);
	assert_string_equal(err.msg, "events: window 1, event 0: time is 128, must be in 0..127");
	OK(cx_cortex_runner_run(run, odd, 0, b.neuron, b.time, b.value, v, err));
	{ /* and back */
		cx_cortex *again;
		OK(cx_cortex_create(&c, 1, NULL, &again, err));
		OK(cx_cortex_read_states(again, store, param, err));
		for (size_t i = 0; i < m->n; i++) {
			bool same = memcmp(again->w[i].data, m->w[i].data, m->w[i].bytes) == 0;
			assert_true(same == !cx_is_none(param[i]));
		}
		cx_cortex_close(again);
	}
	cx_cortex_runner_free(run);
	cx_cortex_runner_free(trained);
	cx_store_free(store);
	free(whole);
	runner_close(&r);
	golden_batch_free(&b);
	cx_cortex_close(m);
}

/* ---- loss and gradient ---- */

typedef struct trainer {
	runner r;
	size_t n;
	cx_tensor param[512], grad[512];
	cx_cortex_loss loss;
} trainer;

static void trainer_open(trainer *t, const cx_cortex *m, const cx_cortex_bucket *b)
{
	const cx_cortex_config *c = cx_cortex_get_config(m);
	cx_cortex_source src = cx_cortex_states();
	cx_plan_opts opts = {.devices = &dev[CPU], .n_devices = 1};
	runner *r = &t->r;
	char name[32];
	memset(t, 0, sizeof *t);
	t->n = cx_cortex_n_params(c);
	OK(cx_store_create(rt, &r->store, err));
	OK(cx_graph_create(NULL, &r->g, err));
	cx_cortex_build(c, &src, b, r->g, &r->m, t->param);
	t->loss = cx_cortex_loss_build(c, b, r->g, &r->m);
	cx_graph_grad(r->g, t->loss.loss, t->param, (uint32_t)t->n, NULL, t->grad);
	cx_output(r->g, "loss", t->loss.loss);
	cx_output(r->g, "behavior", r->m.behavior);
	cx_output(r->g, "masked", r->m.masked_logits);
	for (size_t i = 0; i < t->n; i++) {
		snprintf(name, sizeof name, "g%zu", i);
		cx_output(r->g, name, t->grad[i]);
	}
	OK(cx_graph_finish(r->g, err));
	OK(cx_plan_build(r->g, &opts, &r->plan, err));
	OK(cx_exec_create(r->plan, r->store, &r->x, err));
}

static double loss_of(trainer *t, const cx_cortex *m, const golden_batch *b)
{
	float *v;
	double loss;
	OK(cx_cortex_write_states(m, t->r.store, t->param, err));
	run_batch(&t->r, b);
	v = output(&t->r, "loss", 1);
	loss = v[0];
	free(v);
	return loss;
}

/* The loss by its definition, from the outputs of the graph. */
static double loss_by_hand(trainer *t, const golden_batch *b, const float *target,
	const float *weight, const int32_t *classes, const float *scale)
{
	size_t nb = (size_t)b->bucket.n_windows * 2, nq = (size_t)b->bucket.n_queries;
	float *y = output(&t->r, "behavior", nb), *z = output(&t->r, "masked", nq * 8);
	double sse = 0, xent = 0;
	for (size_t i = 0; i < nb; i++) sse += weight[i / 2] * pow((double)y[i] - target[i], 2);
	for (size_t i = 0; i < nq; i++) {
		double sum = 0;
		if (classes[i] < 0) continue;
		for (int k = 0; k < 8; k++) sum += exp(z[i * 8 + (size_t)k]);
		xent += log(sum) - z[i * 8 + (size_t)classes[i]];
	}
	free(y);
	free(z);
	return scale[0] * sse + scale[1] * xent;
}

static void loss_and_gradient(void **state)
{
	cx_cortex_config c = golden_config(&golden_cases[0]);
	cx_cortex *m;
	golden_batch b;
	trainer *t = malloc(sizeof *t);
	float target[10], weight[5] = {1, 1, 0, 1, 1}, scale[2] = {1.0f / 8, 0.1f / 9};
	int32_t classes[12];
	double base, by_hand, slope = 0, up, down, step = 2e-3;
	(void)state;
	OK(cx_cortex_create(&c, 11, NULL, &m, err));
	golden_batch_make(&golden_cases[0], 2, &b);
	b.bucket.train = true;
	for (int i = 0; i < 10; i++) target[i] = (float)sin(i);
	for (int i = 0; i < 12; i++) classes[i] = i < 9 ? i % 8 : -100; /* 10 queries and 2 spare */
	trainer_open(t, m, &b.bucket);
	set(&t->r, "target", target, 10);
	set(&t->r, "window_weight", weight, 5);
	set(&t->r, "loss_scale", scale, 2);
	set(&t->r, "query_target", classes, 12);
	base = loss_of(t, m, &b);
	by_hand = loss_by_hand(t, &b, target, weight, classes, scale);
	print_message("# loss %.6f, by hand %.6f\n", base, by_hand);
	assert_true(fabs(base - by_hand) <= 1e-5 * by_hand);
	for (size_t i = 0; i < t->n; i++) { /* along the gradient, each tensor scaled to its size */
		char name[32];
		size_t n = cx_cortex_param_elems(&m->w[i].p);
		float *g;
		double norm = 0;
		snprintf(name, sizeof name, "g%zu", i);
		g = output(&t->r, name, n);
		for (size_t k = 0; k < n; k++) norm += (double)g[k] * g[k];
		if (!(norm > 0)) fail_msg("no gradient for %s", m->w[i].p.name);
		slope += norm;
		free(g);
	}
	up = down = 0;
	for (int sign = 1; sign >= -1; sign -= 2) {
		cx_cortex *moved;
		double l;
		OK(cx_cortex_create(&c, 11, NULL, &moved, err));
		loss_of(t, m, &b); /* gradients at m */
		for (size_t i = 0; i < t->n; i++) {
			char name[32];
			size_t n = cx_cortex_param_elems(&m->w[i].p);
			float *g, *w = (float *)(uintptr_t)moved->w[i].data;
			snprintf(name, sizeof name, "g%zu", i);
			g = output(&t->r, name, n);
			for (size_t k = 0; k < n; k++) w[k] += (float)(sign * step / sqrt(slope) * g[k]);
			free(g);
		}
		l = loss_of(t, moved, &b);
		if (sign > 0) up = l;
		else down = l;
		cx_cortex_close(moved);
	}
	print_message("# slope along the gradient %.6f, by differences %.6f\n", sqrt(slope),
		(up - down) / (2 * step));
	assert_true(fabs((up - down) / (2 * step) / sqrt(slope) - 1) < 1e-2);
	runner_close(&t->r);
	golden_batch_free(&b);
	cx_cortex_close(m);
	free(t);
}

/* Same key, same loss; another key, another; no key at all without dropout. */
static void dropout(void **state)
{
	cx_cortex_config c = golden_config(&golden_cases[0]);
	cx_cortex *m;
	golden_batch b;
	trainer *t = malloc(sizeof *t);
	float target[10] = {0}, weight[5] = {1, 1, 1, 1, 1}, scale[2] = {0.1f, 0};
	int32_t classes[10] = {0}, key[4] = {1, 2, 3, 0};
	double loss[3];
	(void)state;
	c.dropout = 0.25;
	OK(cx_cortex_create(&c, 11, NULL, &m, err));
	golden_batch_make(&golden_cases[0], 0, &b);
	b.bucket.train = true;
	trainer_open(t, m, &b.bucket);
	set(&t->r, "target", target, 10);
	set(&t->r, "window_weight", weight, 5);
	set(&t->r, "loss_scale", scale, 2);
	set(&t->r, "query_target", classes, 10);
	for (int i = 0; i < 3; i++) {
		key[2] = i == 2 ? 4 : 3;
		set(&t->r, "key", key, 4);
		loss[i] = loss_of(t, m, &b);
	}
	assert_true(loss[0] == loss[1]);
	assert_true(isfinite(loss[2]) && loss[2] != loss[0]);
	runner_close(&t->r);
	golden_batch_free(&b);
	cx_cortex_close(m);
	free(t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(golden_ref), cmocka_unit_test(golden_cpu),
		cmocka_unit_test(golden_others), cmocka_unit_test(served_plan),
		cmocka_unit_test(folded_or_not), cmocka_unit_test(bf16_activations),
		cmocka_unit_test(padding_and_batching), cmocka_unit_test(any_batch),
		cmocka_unit_test(loss_and_gradient), cmocka_unit_test(dropout)};
	return cmocka_run_group_tests_name("cortex", tests, open_devices, close_devices);
}
