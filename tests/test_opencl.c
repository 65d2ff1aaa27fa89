/* test_opencl.c - kernels of the opencl backend against the reference at sizes at which tiles,
 * groups and chunks are full, once with programs that serve all dtypes and once with programs of
 * their own, which must give the same bits; rows alone against together; random graphs. Skips with
 * a sentence where there is no OpenCL device. tests/test_grid.c: every op x dtype x layout. */
#include "tests/cpu_run.h"
#include "tests/harness.h"

#include "graph/quant.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#ifdef CX_HAVE_OPENCL
#include "backends/opencl/opencl.h"

static cx_runtime *runtime;
static cx_device *device, *own; /* own: every launch has a program of its own */
static int n_failed, n_passed;
static int n_messages;
static bool have_device;

static int open_devices(void **state)
{
	cx_err err = {0};
	(void)state;
	if (cx_runtime_create(NULL, &runtime, &err) != CX_OK) return -1;
	if (cx_device_open(runtime, "opencl", 0, &device, &err) != CX_OK) {
		printf("# no OpenCL device, its kernels are not tested: %s\n", err.msg);
		return 0;
	}
	if (cx_device_open(runtime, "opencl", 0, &own, &err) != CX_OK) return -1;
	((cx_cl_device *)own)->dk.own_from = 0;
	((cx_cl_device *)own)->dk.text_from = 0;
	have_device = true;
	return 0;
}

static int close_devices(void **state)
{
	(void)state;
	cx_device_close(own);
	cx_device_close(device);
	cx_runtime_free(runtime);
	return 0;
}

static void report(cx_op op, const char *what, const char *fmt, ...) CX_PRINTF(3, 4);
static void report(cx_op op, const char *what, const char *fmt, ...)
{
	va_list ap;
	n_failed++;
	if (n_messages++ >= 60) return;
	printf("FAIL %s, %s: ", cx__ops[op].name, what);
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	printf("\n");
}

static double tolerance(cx_op op, cx_dtype t)
{
	cx_tol tol = cx__ops[op].tol;
	return t == CX_F16 ? tol.f16 : t == CX_BF16 ? tol.bf16 : tol.f32;
}

static bool near_reference(
	const step_values *v, uint32_t id, const step_result *r, const char *what)
{
	for (uint32_t o = 0; o < r->n_out; o++) {
		const cx_desc *d = &v->g->nodes[id + o].desc;
		double e = step_nmse(d->dtype, v->value[id + o], r->out[o], cx__desc_elems(d));
		if (e <= tolerance((cx_op)v->g->nodes[id].op, d->dtype)) continue;
		report((cx_op)v->g->nodes[id].op, what, "%s, output %u: nmse %g", r->kernel->name, o, e);
		return false;
	}
	return true;
}

static bool same_bits(
	const step_values *v, uint32_t id, const step_result *a, const step_result *b, const char *what)
{
	int64_t at = 0;
	for (uint32_t o = 0; o < a->n_out; o++) {
		const cx_desc *d = &v->g->nodes[id + o].desc;
		if (step_same(d->dtype, a->out[o], b->out[o], cx__desc_elems(d), &at)) continue;
		report(
			(cx_op)v->g->nodes[id].op, what, "output %u differs in element %lld", o, (long long)at);
		return false;
	}
	return true;
}

/* One node on the device; in place where its kernel says so; with programs of its own. */
static void check_node(const step_values *v, uint32_t id, bool with_own, const char *what)
{
	cx_op op = (cx_op)v->g->nodes[id].op;
	step_result r, other;
	bool ok;
	step_run(device, v, id, -1, 0, &r);
	if (!r.kernel) {
		report(op, what, "no kernel");
		return;
	}
	ok = near_reference(v, id, &r, what);
	for (int j = 0; j < 3 && ok; j++) {
		if (!(r.kernel->inplace >> j & 1)) continue;
		step_run(device, v, id, j, 0, &other);
		if (other.kernel) ok = same_bits(v, id, &r, &other, "in place");
		step_result_free(&other);
	}
	if (ok && with_own) {
		step_run(own, v, id, -1, 0, &other);
		ok = other.kernel && same_bits(v, id, &r, &other, "program of its own");
		step_result_free(&other);
	}
	n_passed += ok;
	step_result_free(&r);
}

/* ---- sizes at which tiles, groups and chunks are full ---- */

typedef struct filler {
	const cx_graph *g;
	uint64_t seed;
} filler;

/* Floats in [-1, 1], "a.." in [0.5, 1]; i32 by name: "o" 0, 32, 64..; "i" mod 7; others i; weights
 * of blocks from floats. */
static void fill_sized(void *ctx, uint32_t id, void *buf, uint64_t bytes)
{
	const filler *f = ctx;
	const cx_node *n = &f->g->nodes[id];
	int64_t elems = cx__desc_elems(&n->desc), k = n->desc.rank ? n->desc.dim[n->desc.rank - 1] : 1;
	cx_rng rng = cx__rng_make(f->seed, id);
	float *x = malloc((size_t)elems * sizeof *x + 4);
	(void)bytes;
	for (int64_t i = 0; i < elems; i++)
		x[i] = cx__rng_float(&rng, n->name[0] == 'a' ? 0.5f : -1.0f, 1.0f);
	for (int64_t i = 0; i < elems && n->desc.dtype == CX_I32; i++)
		((int32_t *)buf)[i] = (int32_t)(n->name[0] == 'o' ? i * 32 : n->name[0] == 'i' ? i % 7 : i);
	for (int64_t i = 0; i < elems && n->desc.dtype == CX_BOOL; i++)
		((uint8_t *)buf)[i] = x[i] > -0.5f;
	if (n->desc.dtype == CX_I8C) cx_quant_i8c(x, elems / k, k, buf);
	else if (n->desc.dtype != CX_I32 && n->desc.dtype != CX_BOOL)
		cx_quant_row(n->desc.dtype, x, buf, elems);
	free(x);
}

#define DIMS(...)                                                                                  \
	(int)(sizeof((int64_t[]){__VA_ARGS__}) / 8), (const int64_t[])                                 \
	{                                                                                              \
		__VA_ARGS__                                                                                \
	}
#define LEAF(name, t, ...) cx_weight(g, name, t, DIMS(__VA_ARGS__))
#define F(name, ...) LEAF(name, CX_F32, __VA_ARGS__)
#define H(name, ...) LEAF(name, CX_F16, __VA_ARGS__)
#define I(name, ...) LEAF(name, CX_I32, __VA_ARGS__)
#define AXES(...)                                                                                  \
	&(cx_attr_reduce)                                                                              \
	{                                                                                              \
		.axes = cx_list_of((int)(sizeof((int[]){__VA_ARGS__}) / sizeof(int)), __VA_ARGS__)         \
	}
typedef cx_tensor build_fn(cx_graph *g);
#define BUILD(name, expr)                                                                          \
	static cx_tensor build_##name(cx_graph *g)                                                     \
	{                                                                                              \
		return expr;                                                                               \
	}
BUILD(add_row, cx_add(g, F("x", 3, 50, 300), F("y", 300)))
BUILD(gelu, cx_gelu(g, H("x", 4099)))
BUILD(where, cx_where(g, LEAF("c", CX_BOOL, 5, 600), F("x", 600), F("y", 5, 1)))
BUILD(sum_last, cx_sum(g, F("x", 9, 5003), AXES(1)))
BUILD(sum_first, cx_mean(g, F("x", 403, 31), AXES(0)))
BUILD(max_all, cx_amax(g, H("x", 50, 77), NULL))
BUILD(topk, cx_topk(g, F("x", 5, 3001), &(cx_attr_topk){.axis = 1, .k = 60}))
BUILD(argmax, cx_argmax(g, F("x", 5, 3001), &(cx_attr_arg){.axis = 1}))
BUILD(softmax, cx_softmax(g, F("x", 5, 3001), &(cx_attr_softmax){.axis = 1, .scale = 3}))
BUILD(log_softmax, cx_log_softmax(g, F("x", 300, 31), &(cx_attr_softmax){.axis = 0, .scale = 1}))
BUILD(layernorm, cx_layernorm(g, F("x", 5, 1027), F("w", 1027), F("b", 1027), NULL))
BUILD(rmsnorm, cx_rmsnorm(g, H("x", 5, 1027), F("w", 1027), NULL))
BUILD(groupnorm, cx_groupnorm(g, F("x", 3, 12, 33, 5), F("w", 12), F("b", 12),
					 &(cx_attr_groupnorm){.groups = 4, .eps = 1e-5f}))
BUILD(matmul_nt, cx_matmul(g, F("x", 37, 300), F("y", 75, 300), &(cx_attr_matmul){.trans_b = true}))
BUILD(matmul_nn, cx_matmul(g, F("x", 3, 4, 20, 70), F("y", 4, 70, 83), NULL))
BUILD(matmul_tn,
	cx_matmul(g, F("x", 2, 70, 20), F("y", 2, 70, 33), &(cx_attr_matmul){.trans_a = true}))
BUILD(matmul_tt, cx_matmul(g, F("x", 2, 70, 20), F("y", 2, 33, 70),
					 &(cx_attr_matmul){.trans_a = true, .trans_b = true}))
BUILD(matmul_block, cx_matmul(g, F("x", 512, 21), LEAF("w", CX_Q4_K, 30, 512),
						&(cx_attr_matmul){.trans_a = true, .trans_b = true}))
BUILD(rope, cx_rope(g, F("x", 6, 4, 80), I("p", 6), CX_NONE, CX_NONE, CX_NONE, NULL))
BUILD(attention, cx_attention(g, F("x", 2, 70, 6, 48), F("k", 2, 150, 2, 48), F("v", 2, 150, 2, 40),
					 CX_NONE, CX_NONE, CX_NONE, CX_NONE, &(cx_attr_attention){.causal = true}))
BUILD(
	attention_mask, cx_attention(g, F("x", 2, 70, 6, 64), F("k", 2, 150, 2, 64),
						F("v", 2, 150, 2, 64), CX_NONE, CX_NONE, LEAF("m", CX_BOOL, 2, 1, 70, 150),
						F("b", 6, 1, 150), &(cx_attr_attention){.window = 90}))
BUILD(attention_ragged, cx_attention(g, F("x", 96, 4, 33), H("k", 96, 2, 33), H("v", 96, 2, 20),
							I("o", 4), I("o2", 4), CX_NONE, CX_NONE, NULL))
BUILD(paged, cx_paged_attention(g, F("x", 64, 4, 64), F("k", 160, 2, 64), F("v", 160, 2, 64),
				 I("i", 2, 10), I("o", 3), I("p", 2), &(cx_attr_paged){.page = 16}))
BUILD(copy,
	cx_copy(g, cx_permute(g, F("x", 5, 67, 43), &(cx_attr_perm){.perm = cx_list_of(3, 2, 0, 1)})))
BUILD(
	gather_block, cx_gather(g, LEAF("x", CX_Q6_K, 9, 1024), I("i", 40), &(cx_attr_axis){.axis = 0}))
BUILD(scatter, cx_scatter(g, F("x", 9, 100), I("i", 400), F("y", 400, 100), NULL))
BUILD(conv1d, cx_conv1d(g, F("x", 96, 75), F("w", 75, 4), F("b", 75), F("s", 5, 3, 75), I("o", 4),
				  I("t", 3), &(cx_attr_conv1d){.silu = true}))
BUILD(delta, cx_delta_rule(g, F("x", 96, 2, 40), F("k", 96, 2, 40), F("v", 96, 4, 50),
				 F("g", 96, 4), F("y", 96, 4), F("s", 5, 4, 40, 50), I("o", 4), I("t", 3), NULL))
BUILD(delta_chunk, cx_delta_rule(g, F("x", 150, 2, 16), F("k", 150, 2, 16), F("v", 150, 4, 20),
					   F("g", 150, 4), F("y", 150, 4), F("s", 1, 4, 16, 20), CX_NONE, CX_NONE,
					   &(cx_attr_delta){.chunk = 64, .scale = 0.2f}))
BUILD(xent, cx_cross_entropy(g, F("x", 40, 1003), I("i", 40), NULL))
BUILD(mse, cx_mse(g, F("x", 40, 1003), F("y", 40, 1003), NULL))
BUILD(random, cx_random(g, I("p", 4), &(cx_attr_random){.dims = cx_list_of(1, 5001), .kind = 1}))
#define NT(t)                                                                                      \
	BUILD(weight_##t, cx_matmul(g, F("x", 6, 512), LEAF("w", CX_##t, 37, 512),                     \
						  &(cx_attr_matmul){.trans_b = true}))
#define WEIGHTS(X)                                                                                 \
	X(F16)                                                                                         \
	X(BF16)                                                                                        \
	X(I8C)                                                                                         \
	X(Q8_0) X(Q4_0) X(Q4_1) X(Q5_0) X(Q5_1) X(Q2_K) X(Q3_K) X(Q4_K) X(Q5_K) X(Q6_K) X(IQ4_NL)      \
		X(IQ4_XS) X(MXFP4)
WEIGHTS(NT)

static const struct {
	const char *name;
	build_fn *build;
} sized[] = {
#define ROW(name)                                                                                  \
	{                                                                                              \
#name, build_##name                                                                        \
	}
	ROW(add_row), ROW(gelu), ROW(where), ROW(sum_last), ROW(sum_first), ROW(max_all), ROW(topk),
	ROW(argmax), ROW(softmax), ROW(log_softmax), ROW(layernorm), ROW(rmsnorm), ROW(groupnorm),
	ROW(matmul_nt), ROW(matmul_nn), ROW(matmul_tn), ROW(matmul_tt), ROW(matmul_block), ROW(rope),
	ROW(attention), ROW(attention_mask), ROW(attention_ragged), ROW(paged), ROW(copy),
	ROW(gather_block), ROW(scatter), ROW(conv1d), ROW(delta), ROW(delta_chunk), ROW(xent), ROW(mse),
	ROW(random),
#undef ROW
#define ROW(t) {"weight " #t, build_weight_##t},
	WEIGHTS(ROW)
#undef ROW
};

static void with_graph(
	build_fn *build, const char *name, uint64_t seed, step_values *v, uint32_t *id)
{
	cx_graph *g = NULL;
	cx_err err = {0};
	cx_tensor t;
	filler f;
	assert_int_equal(cx_graph_create(NULL, &g, &err), CX_OK);
	t = build(g);
	cx_output(g, "out", t);
	if (cx_graph_finish(g, &err) != CX_OK) fail_msg("%s: %s", name, err.msg);
	f = (filler){g, seed};
	step_values_make(v, g, fill_sized, &f);
	*id = t.id;
}

static void done_with(step_values *v)
{
	cx_graph *g = (cx_graph *)(uintptr_t)v->g;
	step_values_free(v);
	cx_graph_free(g);
}

static void test_sizes(void **state)
{
	(void)state;
	if (!have_device) skip();
	for (size_t i = 0; i < sizeof sized / sizeof sized[0]; i++) {
		step_values v;
		uint32_t id;
		with_graph(sized[i].build, sized[i].name, i + 1, &v, &id);
		check_node(&v, id, true, sized[i].name);
		done_with(&v);
	}
	print_message("# %d sized cases on %s\n", n_passed, cx_device_name(device));
	if (n_failed) fail_msg("%d sized cases are wrong", n_failed);
}

/* ---- a row does not depend on how many there are ---- */

static int64_t n_rows_built;
static cx_dtype row_weight;
static cx_tensor build_rows_nt(cx_graph *g)
{
	return cx_matmul(g, F("x", n_rows_built, 512), LEAF("w", row_weight, 37, 512),
		&(cx_attr_matmul){.trans_b = true});
}
static cx_tensor build_rows_nn(cx_graph *g)
{
	return cx_matmul(g, F("x", n_rows_built, 512), F("w", 512, 37), NULL);
}
static cx_tensor build_rows_norm(cx_graph *g)
{
	return cx_rmsnorm(g, F("x", n_rows_built, 512), F("w", 512), NULL);
}
static cx_tensor build_rows_softmax(cx_graph *g)
{
	return cx_softmax(g, F("x", n_rows_built, 512), NULL);
}

static void test_rows(void **state)
{
	static const struct {
		build_fn *build;
		cx_dtype weight;
		int64_t cols;
	} cases[] = {{build_rows_nt, CX_F32, 37}, {build_rows_nt, CX_BF16, 37},
		{build_rows_nt, CX_Q4_K, 37}, {build_rows_nn, CX_F32, 37}, {build_rows_norm, CX_F32, 512},
		{build_rows_softmax, CX_F32, 512}};
	(void)state;
	if (!have_device) skip();
	for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
		step_values all, some;
		step_result r, few;
		uint32_t id;
		row_weight = cases[c].weight;
		n_rows_built = 19;
		with_graph(cases[c].build, "rows", 5, &all, &id);
		step_run(device, &all, id, -1, 0, &r);
		for (int64_t n = 1; n < 4; n++) { /* the first rows are filled alike; weights too */
			n_rows_built = n;
			with_graph(cases[c].build, "rows", 5, &some, &id);
			step_run(device, &some, id, -1, 0, &few);
			assert_memory_equal(r.out[0], few.out[0], (size_t)(n * cases[c].cols) * 4);
			step_result_free(&few);
			done_with(&some);
		}
		step_result_free(&r);
		done_with(&all);
	}
}

/* ---- whole graphs ---- */

enum { N_GRAPHS = 60 };

static void test_graphs(void **state)
{
	int n_fused = 0;
	(void)state;
	if (!have_device) skip();
	for (uint64_t seed = 1; seed <= N_GRAPHS; seed++) {
		cx_random_opts o = {.seed = seed,
			.n_nodes = 3 + (uint32_t)(seed % 12),
			.smooth = true,
			.fused = seed % 7 == 0,
			.zeros = seed % 5 == 0};
		cx_plan_check check = {.devices = &device, .n_devices = 1};
		cx_random_graph *rg = NULL;
		cx_plan_stats stats = {0};
		cx_values want;
		cx_err err = {0};
		if (cx__random_graph(&o, NULL, &rg, &err) != CX_OK) fail_msg("%s", err.msg);
		if (cx__harness_reference(rg, NULL, &want, &err) != CX_OK) fail_msg("%s", err.msg);
		if (cx__harness_plan(runtime, rg, &want, &check, &stats, &err) != CX_OK)
			fail_msg("%s", err.msg);
		n_fused += (int)stats.n_fused;
		cx__values_free(&want);
		cx__random_graph_free(rg);
	}
	print_message("# %d graphs on opencl, %d nodes fused into others\n", N_GRAPHS, n_fused);
	assert_true(n_fused > 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_sizes),
		cmocka_unit_test(test_rows),
		cmocka_unit_test(test_graphs),
	};
	return cmocka_run_group_tests(tests, open_devices, close_devices);
}

#else

static void test_none(void **state)
{
	(void)state;
	printf("# no OpenCL headers when this was built: the backend is not tested\n");
	skip();
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_none)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

#endif
