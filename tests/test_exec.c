/* test_exec.c - store and executor: two buckets over the same weights and states, errors that name
 * what is wrong, nothing allocated per run, every allocation failing in turn, profiling. */
#include "tests/plan_graphs.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define SHAPE(...)                                                                                 \
	(int32_t)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)), (const int64_t[])               \
	{                                                                                              \
		__VA_ARGS__                                                                                \
	}

/* The program's own malloc counts, where the C library lets one put it in front of its own. */
#if defined(__GLIBC__) && !defined(__SANITIZE_ADDRESS__)
#if defined(__has_feature)
#if !__has_feature(address_sanitizer)
#define COUNTS 1
#endif
#else
#define COUNTS 1
#endif
#endif
static volatile long n_mallocs;
#ifdef COUNTS
void *__libc_malloc(size_t n);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *p, size_t n);
void *malloc(size_t n)
{
	n_mallocs++;
	return __libc_malloc(n);
}
void *calloc(size_t n, size_t size)
{
	n_mallocs++;
	return __libc_calloc(n, size);
}
void *realloc(void *p, size_t n)
{
	n_mallocs++;
	return __libc_realloc(p, n);
}
#endif

static const plan_model model = {
	.layers = 2, .tokens = 8, .width = 16, .heads = 4, .kv_heads = 2, .hidden = 24, .slots = 32};

typedef struct bench { /* all that a run needs */
	cx_fault fault;
	cx_config config;
	cx_runtime *rt;
	cx_device *dev;
	cx_graph *g;
	cx_plan *plan;
	cx_store *store;
	cx_exec *x;
	void **leaf;
	uint32_t n_leaf;
} bench;

static void make_leaves(bench *b)
{
	b->n_leaf = b->g->n_nodes;
	b->leaf = calloc(b->n_leaf, sizeof *b->leaf);
	for (uint32_t i = 0; i < b->n_leaf; i++) {
		uint64_t bytes = cx__desc_bytes(&b->g->nodes[i].desc);
		if (cx__ops[b->g->nodes[i].op].kind != CX_KIND_LEAF || b->g->nodes[i].op == CX_OP_const)
			continue;
		b->leaf[i] = calloc(bytes + 1, 1);
		assert_true(plan_fill_leaf(b->g, i, b->leaf[i], bytes));
	}
}

static void free_leaves(bench *b)
{
	for (uint32_t i = 0; i < b->n_leaf; i++) free(b->leaf[i]);
	free(b->leaf);
	b->leaf = NULL;
	b->n_leaf = 0;
}

static cx_status bind(bench *b, cx_err *err)
{
	cx_status st = CX_OK;
	for (uint32_t i = 0; i < b->g->n_nodes && st == CX_OK; i++) {
		const cx_node *n = &b->g->nodes[i];
		if (n->op == CX_OP_weight)
			st = cx_store_weight(b->store, n->name, n->desc.dtype, n->desc.rank, n->desc.dim,
				b->leaf[i], cx__desc_bytes(&n->desc), err);
	}
	return st;
}

static cx_status set_inputs(bench *b, cx_err *err)
{
	cx_status st = CX_OK;
	for (uint32_t i = 0; i < b->g->n_nodes && st == CX_OK; i++) {
		const cx_node *n = &b->g->nodes[i];
		if (n->op == CX_OP_input)
			st = cx_exec_set_input(
				b->x, cx_exec_input(b->x, n->name), b->leaf[i], cx__desc_bytes(&n->desc), err);
	}
	return st;
}

static cx_status build_all(bench *b, const char *backend, bool verify, cx_err *err)
{
	cx_plan_opts o = {.devices = &b->dev, .n_devices = 1, .verify = verify};
	cx_status st = cx_runtime_create(&b->config, &b->rt, err);
	if (st == CX_OK) st = cx_device_open(b->rt, backend, 0, &b->dev, err);
	if (st == CX_OK) st = cx_plan_build(b->g, &o, &b->plan, err);
	if (st == CX_OK) st = cx_store_create(b->rt, &b->store, err);
	if (st == CX_OK) st = bind(b, err);
	if (st == CX_OK) st = cx_exec_create(b->plan, b->store, &b->x, err);
	if (st == CX_OK) st = set_inputs(b, err);
	return st;
}

static void free_all(bench *b)
{
	cx_exec_free(b->x);
	cx_store_free(b->store);
	cx_plan_free(b->plan);
	cx_device_close(b->dev);
	cx_runtime_free(b->rt);
	b->x = NULL;
	b->store = NULL;
	b->plan = NULL;
	b->dev = NULL;
	b->rt = NULL;
}

static void make_graph(bench *b, void (*build)(cx_graph *))
{
	cx_err err = {0};
	memset(b, 0, sizeof *b);
	assert_int_equal(cx_graph_create(NULL, &b->g, NULL), CX_OK);
	build(b->g);
	if (cx_graph_finish(b->g, &err) != CX_OK) fail_msg("%s", err.msg);
	make_leaves(b);
}

static void build_model(cx_graph *g)
{
	plan_build_model(g, &model);
}

/* A bit of everything that allocates: folding, rules, reshapes by copy, state copies, map programs.
 */
static void build_varied(cx_graph *g)
{
	cx_tensor x = cx_input(g, "x", CX_F32, SHAPE(4, 6)), s = cx_state(g, "s", CX_F32, SHAPE(4, 6)),
			  y, c;
	c = cx_exp(g, cx_add(g, cx_const_f32(g, 1.0f), cx_const_f32(g, 2.0f)));
	y = cx_tanh(g, cx_mul(g, cx_add(g, x, s), c));
	y = cx_reshape(g, cx_permute(g, y, &(cx_attr_perm){cx_list_of(2, 1, 0), 0}),
		&(cx_attr_dims){cx_list_of(2, 4, 6), 0});
	cx_output(g, "old", s);
	cx_assign(g, s, cx_softmax(g, y, NULL));
	cx_output(g, "y", y);
}

/* ---- allocation ---- */

static void no_allocation_on(const char *backend, void (*build)(cx_graph *))
{
	bench b;
	cx_err err = {0};
	float out[8 * 32];
	long before, mallocs;
	make_graph(&b, build);
	b.fault.countdown = -1;
	b.config.alloc = cx_alloc_fault(&b.fault);
	if (build_all(&b, backend, true, &err) != CX_OK) fail_msg("%s: %s", backend, err.msg);
	assert_int_equal(cx_exec_run(b.x, &err), CX_OK); /* a backend may still do something once */
	before = b.fault.n_calls;
	mallocs = n_mallocs;
	for (int i = 0; i < 20; i++) {
		assert_int_equal(set_inputs(&b, &err), CX_OK);
		assert_int_equal(cx_exec_run(b.x, &err), CX_OK);
		assert_int_equal(cx_exec_get_output(b.x, 0, out,
							 cx__desc_bytes(&b.g->nodes[b.g->outputs[0].id].desc), &err),
			CX_OK);
	}
	mallocs = n_mallocs - mallocs;
	print_message("%s: 20 runs: %ld allocations through the hooks, %ld calls of malloc\n", backend,
		b.fault.n_calls - before, mallocs);
	assert_int_equal(b.fault.n_calls, before);
	assert_int_equal(mallocs, 0);
	free_all(&b);
	assert_int_equal(b.fault.n_live, 0);
	free_leaves(&b);
	cx_graph_free(b.g);
}

static void test_no_allocation(void **state)
{
	(void)state;
	/* drivers of other backends may allocate inside; their own tests say what the backend itself
	 * does */
	no_allocation_on("ref", build_model);
	no_allocation_on("ref", build_varied);
	no_allocation_on("cpu", build_model);
	no_allocation_on("cpu", build_varied);
}

static void every_failure(const char *backend, void (*build)(cx_graph *), bool verify)
{
	bench b;
	long n;
	make_graph(&b, build);
	for (n = 0;; n++) {
		cx_err err = {0};
		cx_status st;
		char *text = NULL;
		size_t bytes = 0;
		b.fault = (cx_fault){.countdown = n};
		b.config = (cx_config){.alloc = cx_alloc_fault(&b.fault), .n_threads = 1};
		st = build_all(&b, backend, verify, &err);
		if (st == CX_OK) st = cx_exec_run(b.x, &err);
		if (st == CX_OK) st = cx_plan_explain(b.plan, &b.config.alloc, &text, &bytes, &err);
		if (text) cx_free(&b.config.alloc, text, bytes + 1);
		free_all(&b);
		if (b.fault.n_live != 0)
			fail_msg("%s: allocation %ld fails: %ld blocks leak", backend, n, b.fault.n_live);
		if (st != (b.fault.fired ? CX_ERR_MEMORY : CX_OK) || (st != CX_OK) != (err.code != CX_OK))
			fail_msg("%s: allocation %ld fails: status %s, '%s'", backend, n, cx_status_name(st),
				err.msg);
		if (!b.fault.fired) break;
	}
	print_message("%s: %ld allocations failed in turn\n", backend, n);
	free_leaves(&b);
	cx_graph_free(b.g);
}

static void test_every_failure(void **state)
{
	(void)state;
	every_failure("ref", build_model, false);
	every_failure("ref", build_varied, true);
}

/* ---- buckets ---- */

static void build_bucket(cx_graph *g, int64_t n)
{
	cx_tensor x = cx_input(g, "x", CX_F32, SHAPE(n, 4)),
			  slot = cx_input(g, "slot", CX_I32, SHAPE(n));
	cx_tensor s = cx_state(g, "cache", CX_F32, SHAPE(8, 4)),
			  w = cx_weight(g, "w", CX_F32, SHAPE(4, 4));
	s = cx_scatter(g, s, slot, cx_matmul(g, x, w, &(cx_attr_matmul){.trans_b = true}), NULL);
	cx_output(g, "sum", cx_sum(g, s, &(cx_attr_reduce){.axes = cx_list_of(1, 0)}));
}

static void test_buckets(void **state)
{
	static const float w[16] = {1, 0, 0, 0, 0, 2, 0, 0, 0, 0, 3, 0, 0, 0, 0, 4};
	float x[8] = {1, 1, 1, 1, 2, 2, 2, 2}, sum[4], cache[32], zeros[32] = {0};
	int32_t slots[2] = {0, 5};
	cx_runtime *rt;
	cx_device *dev;
	cx_store *store;
	cx_graph *g[2];
	cx_plan *p[2];
	cx_exec *e[2];
	cx_err err = {0};
	(void)state;
	assert_int_equal(cx_runtime_create(NULL, &rt, NULL), CX_OK);
	assert_int_equal(cx_device_open(rt, "ref", 0, &dev, NULL), CX_OK);
	assert_int_equal(cx_store_create(rt, &store, NULL), CX_OK);
	assert_int_equal(cx_store_weight(store, "w", CX_F32, SHAPE(4, 4), w, sizeof w, &err), CX_OK);
	for (int i = 0; i < 2; i++) {
		cx_plan_opts o = {.devices = &dev, .n_devices = 1, .verify = true};
		assert_int_equal(cx_graph_create(NULL, &g[i], NULL), CX_OK);
		build_bucket(g[i], i + 1);
		assert_int_equal(cx_graph_finish(g[i], NULL), CX_OK);
		assert_int_equal(cx_plan_build(g[i], &o, &p[i], &err), CX_OK);
		assert_int_equal(cx_exec_create(p[i], store, &e[i], &err), CX_OK);
		assert_int_equal(cx_exec_run(e[i], &err), CX_ERR_ARGUMENT); /* inputs were not set */
		err = (cx_err){0};
		assert_int_equal(
			cx_exec_set_input(e[i], cx_exec_input(e[i], "x"), x, (uint64_t)(i + 1) * 16, &err),
			CX_OK);
		assert_int_equal(cx_exec_set_input(
							 e[i], cx_exec_input(e[i], "slot"), slots, (uint64_t)(i + 1) * 4, &err),
			CX_OK);
	}
	assert_int_equal(cx_exec_run(e[1], &err), CX_OK); /* rows 0 and 5 */
	slots[0] = 7;
	assert_int_equal(cx_exec_set_input(e[0], cx_exec_input(e[0], "slot"), slots, 4, &err), CX_OK);
	assert_int_equal(cx_exec_run(e[0], &err), CX_OK); /* row 7, by the other plan */
	assert_int_equal(
		cx_exec_get_output(e[0], cx_exec_output(e[0], "sum"), sum, sizeof sum, &err), CX_OK);
	for (int k = 0; k < 4; k++) assert_true(sum[k] == (float)(k + 1) * 4); /* 1 + 2 + 1 */
	assert_int_equal(cx_store_state_read(store, "cache", cache, sizeof cache, &err), CX_OK);
	assert_true(cache[3] == 4 && cache[5 * 4 + 3] == 8 && cache[7 * 4 + 3] == 4 && cache[4] == 0);
	assert_int_equal(cx_store_state_clear(store, &err), CX_OK);
	assert_int_equal(cx_store_state_read(store, "cache", cache, sizeof cache, &err), CX_OK);
	assert_memory_equal(cache, zeros, sizeof cache);
	for (int i = 0; i < 2; i++) {
		cx_exec_free(e[i]);
		cx_plan_free(p[i]);
		cx_graph_free(g[i]);
	}
	cx_store_free(store);
	cx_device_close(dev);
	cx_runtime_free(rt);
}

/* ---- errors ---- */

static void expect(cx_status got, cx_status want, const cx_err *err, const char *says)
{
	if (got != want || !strstr(err->msg, says))
		fail_msg("status %s, '%s'; expected %s and '%s'", cx_status_name(got), err->msg,
			cx_status_name(want), says);
}
#define EXPECT(call, want, says)                                                                   \
	do {                                                                                           \
		cx_err err = {0};                                                                          \
		cx_status st_ = (call);                                                                    \
		expect(st_, want, &err, says);                                                             \
	} while (0)

static void test_errors(void **state)
{
	static const float w[16];
	float x[8];
	bench b;
	cx_exec *y;
	cx_device *dev;
	cx_graph *g;
	cx_plan *p;
	cx_plan_opts o = {0};
	(void)state;
	make_graph(&b, build_model);
	assert_int_equal(build_all(&b, "ref", true, NULL), CX_OK);
	EXPECT(cx_device_open(b.rt, "abacus", 0, &dev, &err), CX_ERR_ARGUMENT, "no backend 'abacus'");
	EXPECT(cx_plan_build(b.g, &o, &p, &err), CX_ERR_ARGUMENT, "no devices");
	EXPECT(cx_exec_set_input(b.x, 99, x, 4, &err), CX_ERR_ARGUMENT, "no input 99");
	EXPECT(cx_exec_set_input(b.x, cx_exec_input(b.x, "ids"), x, 4, &err), CX_ERR_ARGUMENT,
		"'ids' takes 32 bytes, not 4");
	EXPECT(
		cx_exec_get_output(b.x, 0, x, 4, &err), CX_ERR_ARGUMENT, "'logits' has 1024 bytes, not 4");
	EXPECT(cx_exec_get_output(b.x, -1, x, 4, &err), CX_ERR_ARGUMENT, "no output -1");
	assert_int_equal(cx_exec_input(b.x, "nobody"), -1);
	assert_int_equal(cx_exec_output(b.x, "nobody"), -1);
	EXPECT(cx_store_weight(b.store, "norm", CX_F32, SHAPE(16), w, 64, &err), CX_ERR_ARGUMENT,
		"'norm' is in the store already");
	EXPECT(cx_store_weight(b.store, "n", CX_F32, SHAPE(16), w, 60, &err), CX_ERR_ARGUMENT,
		"'n': 60 bytes given, its dims take 64");
	EXPECT(cx_store_state_read(b.store, "ghost", x, 4, &err), CX_ERR_ARGUMENT, "no state 'ghost'");
	EXPECT(cx_store_state_write(b.store, "blk.0.kc", x, 4, &err), CX_ERR_ARGUMENT,
		"state 'blk.0.kc' has 1024 bytes, not 4");
	cx_exec_free(b.x);
	b.x = NULL;
	cx_store_free(b.store);
	assert_int_equal(cx_store_create(b.rt, &b.store, NULL), CX_OK);
	EXPECT(cx_exec_create(b.plan, b.store, &y, &err), CX_ERR_ARGUMENT, "is not in the store");
	assert_int_equal(cx_store_weight(b.store, "embed", CX_F32, SHAPE(4, 4), w, 64, NULL), CX_OK);
	EXPECT(cx_exec_create(b.plan, b.store, &y, &err), CX_ERR_SHAPE,
		"weight 'embed' is f32[4,4] in the store, the graph wants f32[32,16]");
	free_all(&b);
	free_leaves(&b);
	cx_graph_free(b.g);
	assert_int_equal(cx_graph_create(NULL, &g, NULL), CX_OK);
	EXPECT(cx_plan_build(g, &o, &p, &err), CX_ERR_ARGUMENT, "not finished");
	cx_graph_free(g);
}

static void test_profile(void **state)
{
	bench b;
	cx_plan_stats s;
	double seconds[64] = {0}, sum = 0;
	float want[256], got[256];
	(void)state;
	make_graph(&b, build_model);
	assert_int_equal(build_all(&b, "ref", false, NULL), CX_OK);
	cx_plan_get_stats(b.plan, &s);
	assert_int_equal(s.n_nodes, b.g->n_nodes);
	assert_true(s.n_steps > 10 && s.n_steps <= 64);
	assert_int_equal(cx_exec_run(b.x, NULL), CX_OK);
	assert_int_equal(cx_exec_get_output(b.x, 0, want, sizeof want, NULL), CX_OK);
	assert_int_equal(cx_exec_profile(b.x, seconds, s.n_steps, NULL), CX_OK);
	assert_int_equal(cx_exec_get_output(b.x, 0, got, sizeof got, NULL), CX_OK);
	assert_memory_equal(want, got, sizeof got);
	for (uint32_t i = 0; i < s.n_steps; i++) {
		assert_true(seconds[i] > 0);
		sum += seconds[i];
	}
	print_message("%u steps, %.1f us on ref\n", s.n_steps, sum * 1e6);
	EXPECT(cx_exec_profile(b.x, seconds, 3, &err), CX_ERR_ARGUMENT, "steps, not 3");
	free_all(&b);
	free_leaves(&b);
	cx_graph_free(b.g);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_no_allocation),
		cmocka_unit_test(test_every_failure),
		cmocka_unit_test(test_buckets),
		cmocka_unit_test(test_errors),
		cmocka_unit_test(test_profile),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
