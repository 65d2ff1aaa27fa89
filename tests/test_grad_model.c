/* test_grad_model.c - the gradient of a whole model: a small Cortex decoder with dropout, both
 * heads,
 * a window without events and padding, every parameter against central differences in double; the
 * same with checkpoints; its training graph planned for each backend against the reference. */
#include "models/decoder/cortex.h"
#include "tests/plan_run.h"
#include "tests/ref_run.h"
#include "tests/rng.h"
#include "tests/vulkan_env.h"
#include "tests/wide.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { B = 3, E = 12, Q = 4, MAX_PARAM = 96 };

typedef struct model {
	cx_graph *g;
	cx_cortex_config c;
	cx_tensor loss, param[MAX_PARAM], grad[MAX_PARAM];
	uint32_t used[MAX_PARAM], n_used, n_nodes;
	/* a run */
	double **v; /* [n_nodes] of leaves */
	void **raw; /* likewise, in the leaf's dtype */
	void **got; /* [n_nodes] of gradients */
	double value;
	bool wide;
} model;

static const struct {
	const char *name;
	int n;
	double v[16];
} inputs[] = {
	{"neuron", E, {0, 3, 1, 4, 2, 2, 0, 1, 3, -1, -1, -1}},
	{"time", E, {0, 1, 1, 3, 0, 2, 2, 3, 3, -1, -1, -1}},
	{"value", E, {0, 1, 2, 0, 1, 0, 0, 2, 1, -1, -1, -1}},
	{"off", B + 1, {0, 4, 4, 9}},
	{"query_neuron", Q, {1, 0, 4, -1}},
	{"query_time", Q, {2, 3, 0, -1}},
	{"query_off", B + 1, {0, 2, 2, 3}},
	{"key", 4, {12, 5, 3, 0}},
	{"target", 2 * B, {0.5, -1, 0.25, 2, -0.75, 1}},
	{"window_weight", B, {1, 1, 0}},
	{"query_target", Q, {1, 0, 2, -100}},
	{"loss_scale", 2, {0.25, 0.125}},
};

static cx_cortex_config tiny(cx_cortex_norm norm)
{
	cx_cortex_config c = cx_cortex_config_size(CX_CORTEX_NANO);
	c.hidden_dim = c.latent_dim = 8;
	c.num_layers = 3;
	c.num_heads = c.cross_attn_heads = 2;
	c.head_dim = 4;
	c.mlp_ratio = 2;
	c.dropout = 0.2;
	c.num_latents = 3;
	c.max_neurons = 5;
	c.max_time_bins = 4;
	c.spike_value_buckets = 3;
	c.behavior_dim = 2;
	c.use_masked_spike_head = true;
	c.norm = norm;
	return c;
}

static void fill_leaf(model *m, uint32_t id)
{
	const cx_node *n = &m->g->nodes[id];
	int64_t count = cx__desc_elems(&n->desc);
	cx_rng rng = cx__rng_make(17, id);
	bool norm = strstr(n->name, "norm") && strstr(n->name, "weight");
	m->v[id] = calloc((size_t)count + 1, sizeof(double));
	m->raw[id] = calloc((size_t)count + 1, sizeof(double));
	for (int64_t i = 0; i < count; i++)
		m->v[id][i] = (norm ? 1 : 0) + cx__rng_float(&rng, -0.6f, 0.6f);
	for (size_t k = 0; n->op == CX_OP_input && k < sizeof inputs / sizeof inputs[0]; k++)
		if (strcmp(n->name, inputs[k].name) == 0) {
			assert_int_equal(count, inputs[k].n);
			memcpy(m->v[id], inputs[k].v, (size_t)count * sizeof(double));
			return;
		}
	assert_int_not_equal(n->op, CX_OP_input);
}

/* checkpoints: the outputs of the residual additions, which are what blocks hand on. */
static void build(model *m, cx_cortex_norm norm, bool mean, bool grad, bool checkpoints)
{
	cx_cortex_config c = tiny(norm);
	cx_cortex_bucket b = {B, E, Q, mean, true};
	cx_cortex_source src = cx_cortex_weights();
	cx_cortex_graph cg;
	cx_tensor keep[64], wrt[MAX_PARAM], grads[MAX_PARAM];
	cx_grad_opts opts = {keep, 0};
	cx_err err = {0};
	size_t n = cx_cortex_n_params(&c);
	memset(m, 0, sizeof *m);
	m->c = c;
	assert_true(n <= MAX_PARAM);
	assert_int_equal(cx_graph_create(NULL, &m->g, NULL), CX_OK);
	cx_cortex_build(&c, &src, &b, m->g, &cg, m->param);
	m->loss = cx_cortex_loss_build(&c, &b, m->g, &cg).loss;
	cx_output(m->g, "loss", m->loss);
	for (uint32_t i = 0; i < m->g->n_nodes; i++) {
		const cx_node *a = &m->g->nodes[i];
		if (a->op == CX_OP_add && a->desc.rank == 2 && a->desc.dim[0] == B * c.num_latents &&
			opts.n_checkpoints < 64)
			keep[opts.n_checkpoints++].id = i;
	}
	for (uint32_t i = 0; i < n; i++)
		if (!cx_is_none(m->param[i])) m->used[m->n_used++] = i;
	for (uint32_t i = 0; i < m->n_used; i++) wrt[i] = m->param[m->used[i]];
	if (grad) cx_graph_grad(m->g, m->loss, wrt, m->n_used, checkpoints ? &opts : NULL, grads);
	for (uint32_t i = 0; grad && i < m->n_used; i++) {
		char name[16];
		snprintf(name, sizeof name, "g%u", i);
		m->grad[i] = grads[i];
		cx_output(m->g, name, grads[i]);
	}
	if (cx_graph_finish(m->g, &err) != CX_OK) fail_msg("%s", err.msg);
	m->n_nodes = m->g->n_nodes;
	m->v = calloc(m->n_nodes, sizeof *m->v);
	m->raw = calloc(m->n_nodes, sizeof *m->raw);
	m->got = calloc(m->n_nodes, sizeof *m->got);
	for (uint32_t i = 0; i < m->n_nodes; i++)
		if (m->g->nodes[i].op == CX_OP_input || m->g->nodes[i].op == CX_OP_weight) fill_leaf(m, i);
}

static void drop(model *m)
{
	for (uint32_t i = 0; i < m->n_nodes; i++) {
		free(m->v[i]);
		free(m->raw[i]);
		free(m->got[i]);
	}
	free(m->v);
	free(m->raw);
	free(m->got);
	cx_graph_free(m->g);
}

static const void *give(void *ctx, const cx_graph *g, uint32_t id)
{
	model *m = ctx;
	const cx_desc *d = &g->nodes[id].desc;
	if (m->wide && d->dtype == CX_F32) return m->v[id];
	for (int64_t i = 0; i < cx__desc_elems(d); i++)
		number_put(d->dtype, m->raw[id], i, m->v[id][i]);
	return m->raw[id];
}

static void take(void *ctx, const cx_graph *g, uint32_t id, const void *data, uint64_t bytes)
{
	model *m = ctx;
	(void)g;
	if (id == m->loss.id) m->value = m->wide ? *(const double *)data : *(const float *)data;
	for (uint32_t i = 0; i < m->n_used; i++) {
		if (m->grad[i].id != id) continue;
		free(m->got[id]);
		m->got[id] = malloc(bytes + 1);
		memcpy(m->got[id], data, bytes);
	}
}

static double run(model *m, bool wide)
{
	cx_ref_io io = {m, give, take, NULL};
	cx_err err = {0};
	m->wide = wide;
	if ((wide ? wide_eval(m->g, give, take, NULL, m, &err) : cx__ref_eval(m->g, NULL, &io, &err)) !=
		CX_OK)
		fail_msg("%s", err.msg);
	return m->value;
}

static double slope(model *f, double *v)
{
	double at = *v, d[2];
	for (int i = 0; i < 2; i++) {
		double h = i == 0 ? 1e-3 : 5e-4, up;
		*v = at + h;
		up = run(f, true);
		*v = at - h;
		d[i] = (up - run(f, true)) / (2 * h);
	}
	*v = at;
	return (4 * d[1] - d[0]) / 3;
}

static void differences(cx_cortex_norm norm, bool mean, bool checkpoints)
{
	model f, b;
	cx_rng rng = cx__rng_make(23, 0);
	double worst = 0;
	uint32_t n = 0, n_zero = 0;
	build(&f, norm, mean, false, false);
	build(&b, norm, mean, true, checkpoints);
	run(&b, true);
	for (uint32_t i = 0; i < b.n_used; i++) {
		uint32_t at = f.param[b.used[i]].id;
		int64_t size = cx__desc_elems(&f.g->nodes[at].desc);
		const double *got = b.got[b.grad[i].id];
		double scale = 0;
		for (int64_t e = 0; e < size; e++) scale = fmax(scale, fabs(got[e]));
		n_zero += scale == 0;
		for (int k = 0; k < 4; k++) {
			int64_t e = cx__rng_int(&rng, 0, size - 1);
			double want = slope(&f, &f.v[at][e]), d = fabs(want - got[e]);
			if (!(d <= 2e-6 * (fabs(want) + 0.1 * scale) + 1e-9))
				fail_msg("%s element %lld: difference quotient %.12g, gradient %.12g",
					f.g->nodes[at].name, (long long)e, want, got[e]);
			worst = fmax(worst, d / (scale + 1e-9));
			n++;
		}
	}
	assert_int_equal(n_zero, 0);
	printf("# %s%s%s: %u parameters, %u differences, worst %.1e of the largest gradient\n",
		norm == CX_CORTEX_RMSNORM ? "rmsnorm" : "layernorm", mean ? ", mean logits" : "",
		checkpoints ? ", checkpoints" : "", b.n_used, n, worst);
	drop(&f);
	drop(&b);
}

static void test_differences(void **state)
{
	(void)state;
	differences(CX_CORTEX_LAYERNORM, false, false);
	differences(CX_CORTEX_RMSNORM, false, false);
	differences(CX_CORTEX_LAYERNORM, true, false);
	differences(CX_CORTEX_LAYERNORM, false, true);
}

static void test_checkpoints(void **state)
{
	model a, b;
	(void)state;
	build(&a, CX_CORTEX_LAYERNORM, false, true, false);
	build(&b, CX_CORTEX_LAYERNORM, false, true, true);
	run(&a, false);
	run(&b, false);
	assert_true(b.n_nodes > a.n_nodes + 20);
	for (uint32_t i = 0; i < a.n_used; i++) {
		const cx_desc *d = &a.g->nodes[a.grad[i].id].desc;
		assert_memory_equal(
			a.got[a.grad[i].id], b.got[b.grad[i].id], (size_t)cx__desc_elems(d) * 4);
	}
	drop(&a);
	drop(&b);
}

/* ---- devices --------------------------------------------------------------------------------- */

static bool plan_leaf(void *ctx, uint32_t id, void *buf, uint64_t bytes)
{
	model *m = ctx;
	m->wide = false;
	if (bytes) memcpy(buf, give(m, m->g, id), bytes);
	return true;
}

static void on_device(const char *backend, bool both)
{
	cx_runtime *rt;
	cx_device *devs[2];
	cx_err err = {0};
	assert_int_equal(cx_runtime_create(NULL, &rt, &err), CX_OK);
	if (cx_device_open(rt, backend, 0, &devs[0], &err) != CX_OK) {
		printf("# no %s device: %s\n", backend, err.msg);
		cx_runtime_free(rt);
		skip();
	}
	assert_int_equal(cx_device_open(rt, "ref", 0, &devs[1], &err), CX_OK);
	for (int no_fuse = 0; no_fuse < (both ? 2 : 1); no_fuse++)
		for (int checkpoints = both ? 0 : 1; checkpoints < 2; checkpoints++) {
			plan_check c = {.opts = {.devices = devs,
								.n_devices = 2,
								.allow_fallback = true,
								.no_fuse = no_fuse,
								.verify = true},
				.tol = 1e-8,
				.floor = 1e-4};
			plan_want want;
			cx_plan *plan = NULL;
			cx_plan_stats stats;
			model m;
			build(&m, CX_CORTEX_LAYERNORM, false, true, checkpoints);
			if (plan_want_make(m.g, plan_leaf, &m, &want, &err) != CX_OK ||
				plan_run_check(&want, rt, &c, &plan, &err) != CX_OK)
				fail_msg(
					"%s, checkpoints %d, fusion %d: %s", backend, checkpoints, !no_fuse, err.msg);
			cx_plan_get_stats(plan, &stats);
			printf("# %s%s%s: %u nodes in %u steps, %u not on it\n", cx_device_name(devs[0]),
				no_fuse ? ", not fused" : "", checkpoints ? ", checkpoints" : "", stats.n_nodes,
				stats.n_steps, stats.n_fallback);
			cx_plan_free(plan);
			plan_want_free(&want);
			drop(&m);
		}
	cx_device_close(devs[1]);
	cx_device_close(devs[0]);
	cx_runtime_free(rt);
}

static void test_ref_planned(void **state)
{
	(void)state;
	on_device("ref", true);
}
static void test_cpu(void **state)
{
	(void)state;
	on_device("cpu", true);
}
static void test_opencl(void **state)
{
	(void)state;
	on_device("opencl", false);
}
static void test_vulkan(void **state)
{
	(void)state;
	vulkan_env();
	on_device("vulkan", false);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_differences),
		cmocka_unit_test(test_checkpoints), cmocka_unit_test(test_ref_planned),
		cmocka_unit_test(test_cpu), cmocka_unit_test(test_opencl), cmocka_unit_test(test_vulkan)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
