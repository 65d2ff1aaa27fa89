/* test_grad_heavy.c - the backward ops of norms, attention, conv1d and delta rule on every device
 * against the reference (whose gradients test_grad.c checks by differences): random cases; sizes at
 * which blocks are full and scores no longer kept; the same bits on every instruction set, with one
 * thread and three, alone and in a batch; tables of offsets and slots that lie. */
#include "tests/cpu_run.h"
#include "tests/harness.h"
#include "tests/vulkan_env.h"

#include "backends/cpu/cpu.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const cx_op ops[] = {
	CX_OP_norm_grad, CX_OP_attention_grad, CX_OP_conv1d_grad, CX_OP_delta_grad};

enum { N_CPU = 6, N_DEV = 8 };
static cx_runtime *runtimes[N_DEV];
static cx_device *devices[N_DEV]; /* three instruction sets, 1 and 3 threads; opencl; vulkan */

static int open_devices(void **state)
{
	static const char *const isa[] = {"generic", "avx2", "avx512"};
	(void)state;
	vulkan_env();
	for (int i = 0; i < N_DEV; i++) {
		cx_config cfg = {.isa = i < N_CPU ? isa[i / 2] : NULL, .n_threads = i % 2 ? 3 : 1};
		const char *name = i < N_CPU ? "cpu" : i == N_CPU ? "opencl" : "vulkan";
		cx_err err = {0};
		if (cx_runtime_create(&cfg, &runtimes[i], &err) != CX_OK) return -1;
		if (cx_device_open(runtimes[i], name, 0, &devices[i], &err) != CX_OK)
			printf("# %s is not tested: %s\n", i < N_CPU ? isa[i / 2] : name, err.msg);
		else if (i < N_CPU) ((cx_cpu_device *)devices[i])->share_ns = 0;
	}
	return devices[0] ? 0 : -1;
}

static int close_devices(void **state)
{
	(void)state;
	for (int i = 0; i < N_DEV; i++) {
		cx_device_close(devices[i]);
		cx_runtime_free(runtimes[i]);
	}
	return 0;
}

/* ---- one node everywhere --------------------------------------------------------------------- */

static double tolerance(cx_op op, cx_dtype t)
{
	cx_tol tol = cx__ops[op].tol;
	return t == CX_F16 ? tol.f16 : t == CX_BF16 ? tol.bf16 : tol.f32;
}

static void check_device(const step_values *v, uint32_t id, cx_device *dev, const char *what)
{
	cx_op op = (cx_op)v->g->nodes[id].op;
	step_result r;
	step_run(dev, v, id, -1, 0, &r);
	if (!r.kernel) fail_msg("%s, %s: no kernel on %s", cx__ops[op].name, what, cx_device_name(dev));
	for (uint32_t o = 0; o < r.n_out; o++) {
		const cx_desc *d = &v->g->nodes[id + o].desc;
		double e = step_nmse(d->dtype, v->value[id + o], r.out[o], cx__desc_elems(d));
		if (!(e <= tolerance(op, d->dtype)))
			fail_msg("%s, %s on %s: output %u, nmse %g", cx__ops[op].name, what,
				cx_device_name(dev), o, e);
	}
	step_result_free(&r);
}

static void check_same(
	const step_values *v, uint32_t id, cx_device *dev, cx_device *like, const char *what)
{
	step_result a, b;
	int64_t at = 0;
	step_run(like, v, id, -1, 0, &a);
	step_run(dev, v, id, -1, 0, &b);
	for (uint32_t o = 0; o < a.n_out; o++) {
		const cx_desc *d = &v->g->nodes[id + o].desc;
		if (!step_same(d->dtype, a.out[o], b.out[o], cx__desc_elems(d), &at))
			fail_msg("%s: output %u differs at %lld between %s and %s", what, o, (long long)at,
				cx_device_name(dev), cx_device_name(like));
	}
	step_result_free(&a);
	step_result_free(&b);
}

static void check_node(const step_values *v, uint32_t id, const char *what)
{
	for (int i = 0; i < N_DEV; i++) {
		if (!devices[i]) continue;
		if (i == 0 || i >= N_CPU) check_device(v, id, devices[i], what);
		else check_same(v, id, devices[i], devices[0], what);
	}
}

/* ---- random cases ---------------------------------------------------------------------------- */

static void fill_random(void *ctx, uint32_t id, void *buf, uint64_t bytes)
{
	assert_int_equal(cx__random_fill(ctx, id, buf, bytes), CX_OK);
}

static void random_case(cx_op op, const cx_random_opts *o, const char *what)
{
	cx_random_graph *rg = NULL;
	cx_err err = {0};
	step_values v;
	uint32_t id = UINT32_MAX;
	if (cx__random_case(op, o, NULL, &rg, &err) != CX_OK)
		fail_msg("%s: %s", cx__ops[op].name, err.msg);
	for (uint32_t i = 0; i < rg->g->n_nodes; i++)
		if (rg->g->nodes[i].op == op) id = i;
	assert_true(id != UINT32_MAX);
	step_values_make(&v, rg->g, fill_random, rg);
	check_node(&v, id, what);
	step_values_free(&v);
	cx__random_graph_free(rg);
}

static void test_random(void **state)
{
	static const cx_dtype floats[] = {CX_F32, CX_F16, CX_BF16};
	char what[64];
	(void)state;
	for (size_t i = 0; i < sizeof ops / sizeof ops[0]; i++)
		for (uint64_t seed = 0; seed < 12; seed++) {
			cx_random_opts o = {.seed = 1000 * i + seed,
				.float_dtype = floats[seed % 3],
				.layout = (int)(seed / 3),
				.zeros = seed % 2};
			snprintf(what, sizeof what, "seed %llu", (unsigned long long)o.seed);
			random_case(ops[i], &o, what);
		}
}

/* ---- sizes ----------------------------------------------------------------------------------- */

/* Floats in [-1, 1], "g.." in [-1, 0]; i32: as many values as there are, from a table. */
typedef struct filler {
	const cx_graph *g;
	const int32_t *ints[4]; /* of inputs "i0" .. "i3" */
} filler;

static void fill_sized(void *ctx, uint32_t id, void *buf, uint64_t bytes)
{
	const filler *f = ctx;
	const cx_node *n = &f->g->nodes[id];
	cx_rng rng = cx__rng_make(5, id);
	if (n->desc.dtype == CX_I32) {
		memcpy(buf, f->ints[n->name[1] - '0'], bytes);
		return;
	}
	assert_int_equal(n->desc.dtype, CX_F32);
	for (uint64_t i = 0; i < bytes / 4; i++)
		((float *)buf)[i] = cx__rng_float(&rng, -1, n->name[0] == 'g' ? 0 : 1);
}

#define F(name, ...)                                                                               \
	cx_input(g, name, CX_F32, (int)(sizeof((int64_t[]){__VA_ARGS__}) / 8),                         \
		(const int64_t[]){__VA_ARGS__})
#define I(name, n) cx_input(g, name, CX_I32, 1, (const int64_t[]){n})

static cx_tensor norm(cx_graph *g)
{
	return cx_norm_grad(g, F("x", 1200, 70), F("y", 1200, 70), F("w", 70),
		&(cx_attr_norm_grad){.eps = 1e-5f, .layer = true});
}

static cx_tensor attention_of(cx_graph *g, int64_t t, int64_t s, const cx_attr_attention_grad *a)
{
	return cx_attention_grad(g, F("q", 1, t, 4, 20), F("k", 1, s, 2, 20), F("v", 1, s, 2, 33),
		F("y", 1, t, 4, 33), F("d", 1, t, 4, 33), CX_NONE, CX_NONE, CX_NONE, CX_NONE, a);
}

static cx_tensor attention_kept(cx_graph *g)
{
	return attention_of(g, 70, 131, &(cx_attr_attention_grad){.dbias = true});
}

/* More scores than are kept: 2 * 300 rows times 5 blocks of keys. */
static cx_tensor attention_again(cx_graph *g)
{
	return attention_of(g, 300, 270, &(cx_attr_attention_grad){.causal = true, .window = 150});
}

static cx_tensor attention_ragged(cx_graph *g)
{
	return cx_attention_grad(g, F("q", 150, 2, 16), F("k", 400, 1, 16), F("v", 400, 1, 16),
		F("y", 150, 2, 16), F("d", 150, 2, 16), I("i0", 5), I("i1", 5), CX_NONE, CX_NONE, NULL);
}

static cx_tensor conv(cx_graph *g)
{
	return cx_conv1d_grad(g, F("x", 150, 37), F("w", 37, 4), F("s", 5, 3, 37), F("d", 150, 37),
		F("b", 37), F("e", 5, 3, 37), I("i0", 5), I("i2", 4), &(cx_attr_conv1d){.silu = true});
}

static cx_tensor delta(cx_graph *g)
{
	return cx_delta_grad(g, F("q", 150, 2, 9), F("k", 150, 2, 9), F("v", 150, 4, 20),
		F("g", 150, 4), F("b", 150, 4), F("s", 5, 4, 9, 20), F("d", 150, 4, 20),
		F("e", 5, 4, 9, 20), I("i0", 5), I("i2", 4), &(cx_attr_delta){.scale = 0.3f});
}

typedef cx_tensor build_fn(cx_graph *g);
static const int32_t q_off[] = {0, 70, 70, 90, 150}, kv_off[] = {0, 200, 230, 230, 400},
					 slots[] = {3, 0, 1, -1};

static void sized(build_fn *build, const char *what)
{
	filler f = {NULL, {q_off, kv_off, slots, NULL}};
	cx_graph *g;
	cx_tensor y;
	cx_err err = {0};
	step_values v;
	assert_int_equal(cx_graph_create(NULL, &g, &err), CX_OK);
	y = build(g);
	cx_output(g, "y", y);
	if (cx_graph_finish(g, &err) != CX_OK) fail_msg("%s: %s", what, err.msg);
	f.g = g;
	step_values_make(&v, g, fill_sized, &f);
	check_node(&v, y.id, what);
	step_values_free(&v);
	cx_graph_free(g);
}

static void test_sizes(void **state)
{
	(void)state;
	sized(norm, "norm");
	sized(attention_kept, "attention, scores kept");
	sized(attention_again, "attention, scores computed again");
	sized(attention_ragged, "attention, ragged");
	sized(conv, "conv1d");
	sized(delta, "delta rule");
}

/* ---- alone and in a batch -------------------------------------------------------------------- */

/* Sequence b of attention_ragged() alone: n rows of q from q0, keys from k0. */
static cx_tensor alone(cx_graph *g, int b)
{
	int64_t nq = q_off[b + 1] - q_off[b], nk = kv_off[b + 1] - kv_off[b];
	return cx_attention_grad(g, F("q", nq, 2, 16), F("k", nk, 1, 16), F("v", nk, 1, 16),
		F("y", nq, 2, 16), F("d", nq, 2, 16), CX_NONE, CX_NONE, CX_NONE, CX_NONE, NULL);
}

typedef struct part {
	const step_values *whole;
	const cx_graph *g;
	int b;
} part;

static void fill_part(void *ctx, uint32_t id, void *buf, uint64_t bytes)
{
	const part *p = ctx;
	const cx_node *n = &p->g->nodes[id];
	bool keys = n->name[0] == 'k' || n->name[0] == 'v';
	int64_t row = n->desc.dim[1] * n->desc.dim[2], first = keys ? kv_off[p->b] : q_off[p->b];
	uint32_t i = 0;
	while (strcmp(p->whole->g->nodes[i].name, n->name) != 0) i++;
	memcpy(buf, (const float *)p->whole->value[i] + first * row, bytes);
}

static void test_alone(void **state)
{
	filler f = {NULL, {q_off, kv_off, slots, NULL}};
	cx_graph *g, *one;
	cx_err err = {0};
	cx_tensor y, z;
	step_values v, w;
	step_result all, r;
	cx_device *dev = devices[5] ? devices[5] : devices[1];
	(void)state;
	assert_int_equal(cx_graph_create(NULL, &g, &err), CX_OK);
	y = attention_ragged(g);
	cx_output(g, "y", y);
	assert_int_equal(cx_graph_finish(g, &err), CX_OK);
	f.g = g;
	step_values_make(&v, g, fill_sized, &f);
	step_run(dev, &v, y.id, -1, 0, &all);
	for (int b = 0; b < 4; b++) {
		part p = {&v, NULL, b};
		int64_t at = 0;
		assert_int_equal(cx_graph_create(NULL, &one, &err), CX_OK);
		z = alone(one, b);
		cx_output(one, "y", z);
		assert_int_equal(cx_graph_finish(one, &err), CX_OK);
		p.g = one;
		step_values_make(&w, one, fill_part, &p);
		step_run(dev, &w, z.id, -1, 0, &r);
		for (uint32_t o = 0; o < 3; o++) {
			int64_t row = o ? 16 : 32, first = o ? kv_off[b] : q_off[b];
			if (!step_same(CX_F32, (const float *)all.out[o] + first * row, r.out[o],
					cx__desc_elems(&one->nodes[z.id + o].desc), &at))
				fail_msg("sequence %d alone: output %u differs at %lld", b, o, (long long)at);
		}
		step_result_free(&r);
		step_values_free(&w);
		cx_graph_free(one);
	}
	step_result_free(&all);
	step_values_free(&v);
	cx_graph_free(g);
}

/* ---- tables that lie ------------------------------------------------------------------------- */

static void lies(build_fn *build)
{
	static const int32_t bad[][5] = {{-5, 10, 4, 900, 150}, {150, 100, 50, 20, 0},
		{1 << 30, -(1 << 30), 0, 0, 7}, {0, 150, 150, 150, 2000000000}};
	for (int i = 0; i < 4; i++) {
		filler f = {NULL, {bad[i], bad[(i + 1) % 4], bad[(i + 2) % 4], NULL}};
		cx_graph *g;
		cx_tensor y;
		cx_err err = {0};
		step_values v;
		assert_int_equal(cx_graph_create(NULL, &g, &err), CX_OK);
		y = build(g);
		cx_output(g, "y", y);
		assert_int_equal(cx_graph_finish(g, &err), CX_OK);
		f.g = g;
		step_values_make(&v, g, fill_sized, &f);
		for (int k = 0; k < N_DEV; k++) {
			step_result r;
			if (!devices[k]) continue;
			step_run(devices[k], &v, y.id, -1, 0, &r); /* looks at the bytes around every result */
			assert_non_null(r.kernel);
			step_result_free(&r);
		}
		step_values_free(&v);
		cx_graph_free(g);
	}
}

static void test_lies(void **state)
{
	(void)state;
	lies(attention_ragged);
	lies(conv);
	lies(delta);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_random), cmocka_unit_test(test_sizes),
		cmocka_unit_test(test_alone), cmocka_unit_test(test_lies)};
	return cmocka_run_group_tests(tests, open_devices, close_devices);
}
