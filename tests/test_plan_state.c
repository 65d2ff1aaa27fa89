/* test_plan_state.c - states, updates in place, outputs, devices: who may overwrite what, and when
 * a copy is made. */
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

static cx_runtime *rt;
static cx_device *ref;

static int open_devices(void **state)
{
	(void)state;
	return cx_runtime_create(NULL, &rt, NULL) != CX_OK ||
		   cx_device_open(rt, "ref", 0, &ref, NULL) != CX_OK;
}

static int close_devices(void **state)
{
	(void)state;
	cx_device_close(ref);
	cx_runtime_free(rt);
	return 0;
}

static cx_tensor state(cx_graph *g, const char *name)
{
	return cx_state(g, name, CX_F32, SHAPE(6, 4));
}
static cx_tensor input(cx_graph *g, const char *name)
{
	return cx_input(g, name, CX_F32, SHAPE(6, 4));
}
static cx_tensor rows(cx_graph *g)
{
	return cx_input(g, "rows", CX_I32, SHAPE(3));
}
static cx_tensor some(cx_graph *g)
{
	return cx_input(g, "some", CX_F32, SHAPE(3, 4));
}

static void elided(cx_graph *g) /* the producer writes straight into the state */
{
	cx_assign(g, state(g, "s"), cx_softmax(g, input(g, "x"), NULL));
}

static void accumulate(cx_graph *g) /* in place, element by element */
{
	cx_tensor s = state(g, "s");
	cx_assign(g, s, cx_add(g, cx_mul(g, s, cx_const_f32(g, 0.5f)), input(g, "x")));
}

static void not_elementwise(
	cx_graph *g) /* softmax reads what it would overwrite: a copy step remains */
{
	cx_tensor s = state(g, "s");
	cx_assign(g, s, cx_softmax(g, s, NULL));
}

static void old_after_new(
	cx_graph *g) /* readers of the old version stand after the update but can run before */
{
	cx_tensor s = state(g, "s"), next = cx_assign(g, s, input(g, "x"));
	cx_output(g, "old", cx_neg(g, s));
	cx_output(g, "new", cx_neg(g, next));
}

static void needs_both(
	cx_graph *g) /* needs the new version's sum and the old content: a copy of the old one */
{
	cx_tensor s = state(g, "s"), next = cx_scatter(g, s, rows(g), some(g), NULL);
	cx_output(g, "y", cx_cumsum(g, cx_add(g, s, cx_softmax(g, next, NULL)), NULL));
}

static void output_old(cx_graph *g)
{
	cx_tensor s = state(g, "s");
	cx_scatter(g, s, rows(g), some(g), NULL);
	cx_output(g, "old", s);
}

static void output_new(cx_graph *g)
{
	cx_tensor s = cx_scatter(g, state(g, "s"), rows(g), some(g), NULL);
	cx_output(g, "new", s);
	cx_output(g, "part",
		cx_slice(g, s, &(cx_attr_slice){cx_list_of(2, 1, 1), cx_list_of(2, 2, 3), {0}, 0}));
}

static void self_read(cx_graph *g) /* rows of the state itself are written elsewhere in it */
{
	cx_tensor s = state(g, "s");
	cx_scatter(g, s, rows(g),
		cx_slice(g, s, &(cx_attr_slice){cx_list_of(2, 3, 0), cx_list_of(2, 3, 4), {0}, 0}), NULL);
}

static void crossed(
	cx_graph *g) /* two states that swap: each update waits for the other's reader */
{
	cx_tensor a = state(g, "a"), b = state(g, "b");
	cx_assign(g, a, b);
	cx_assign(g, b, a);
}

static void versions(cx_graph *g)
{
	cx_tensor s = state(g, "s"), i = rows(g), v = some(g), s1, s2, s3;
	s1 = cx_scatter(g, s, i, v, NULL);
	s2 = cx_assign(g, s1, cx_tanh(g, s1));
	s3 = cx_scatter(g, s2, i, cx_neg(g, v), &(cx_attr_scatter){.add = true});
	cx_output(g, "y", cx_sub(g, cx_add(g, s, s1), cx_mul(g, s2, s3)));
}

static void no_state(
	cx_graph *g) /* an update of a value: in place when it dies, a copy when it is read later */
{
	cx_tensor x = cx_softmax(g, input(g, "x"), NULL), i = rows(g), v = some(g),
			  y = cx_scatter(g, x, i, v, NULL);
	cx_tensor z = cx_scatter(g, y, i, cx_neg(g, v), NULL);
	cx_output(g, "z", z);
	cx_output(g, "y", cx_cumsum(g, y, NULL));
}

static void input_updated(cx_graph *g) /* an input keeps its content for the next run */
{
	cx_output(g, "y", cx_scatter(g, input(g, "x"), rows(g), some(g), NULL));
}

static void outputs(cx_graph *g)
{
	cx_tensor x = input(g, "x"), y = cx_softmax(g, x, NULL);
	cx_output(g, "x", x);
	cx_output(g, "y", y);
	cx_output(g, "y again", y);
	cx_output(g, "flat", cx_reshape(g, y, &(cx_attr_dims){cx_list_of(1, 24), 0}));
	cx_output(g, "turned", cx_permute(g, y, &(cx_attr_perm){cx_list_of(2, 1, 0), 0}));
	cx_output(g, "one", cx_const_f32(g, 1.0f));
}

static const struct {
	const char *name;
	void (*build)(cx_graph *);
	uint32_t n_copy, n_assign; /* steps */
} cases[] = {
	{"producer into the state", elided, 0, 0},
	{"accumulate in the state", accumulate, 0, 0},
	{"producer that is not elementwise", not_elementwise, 0, 1},
	{"old readers after the update", old_after_new, 0, 1},
	{"old and new content at once", needs_both, 1, 0},
	{"old version as output", output_old, 1, 0},
	{"new version and part of it as outputs", output_new, 2, 0},
	{"update from the state's own rows", self_read, 1, 0},
	{"two states that swap", crossed, 1, 2},
	{"several versions", versions, 0, 0},
	{"update of a value", no_state, 1, 0},
	{"update of an input", input_updated, 1, 0},
	{"leaves, views and one tensor twice as outputs", outputs, 3, 0},
};

static void test_states(void **unused)
{
	(void)unused;
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		plan_check c = {.opts = {.devices = &ref, .n_devices = 1, .verify = true}};
		cx_graph *g;
		cx_plan *p = NULL;
		plan_want w;
		cx_err err = {0};
		assert_int_equal(cx_graph_create(NULL, &g, NULL), CX_OK);
		cases[i].build(g);
		if (cx_graph_finish(g, &err) != CX_OK) fail_msg("%s: %s", cases[i].name, err.msg);
		if (plan_want_make(g, plan_fill_leaf, g, &w, &err) != CX_OK)
			fail_msg("%s: %s", cases[i].name, err.msg);
		c.opts.no_fuse = true;
		if (plan_run_check(&w, rt, &c, NULL, &err) != CX_OK)
			fail_msg("%s, not fused: %s", cases[i].name, err.msg);
		c.opts.no_fuse = false;
		if (plan_run_check(&w, rt, &c, &p, &err) != CX_OK)
			fail_msg("%s: %s", cases[i].name, err.msg);
		if (cases[i].build != versions && (plan_count(p, CX_OP_copy) != cases[i].n_copy ||
											  plan_count(p, CX_OP_assign) != cases[i].n_assign)) {
			char *text;
			size_t n;
			assert_int_equal(cx_plan_explain(p, NULL, &text, &n, NULL), CX_OK);
			fputs(text, stdout);
			fail_msg("%s: %u copies, %u assigns; expected %u, %u", cases[i].name,
				plan_count(p, CX_OP_copy), plan_count(p, CX_OP_assign), cases[i].n_copy,
				cases[i].n_assign);
		}
		cx_plan_free(p);
		plan_want_free(&w);
		cx_graph_free(g);
	}
}

/* ---- corruption ---- */

static cx_plan *model_plan(cx_graph **g, bool fuse)
{
	plan_model m = {.layers = 2,
		.tokens = 8,
		.width = 16,
		.heads = 4,
		.kv_heads = 2,
		.hidden = 24,
		.slots = 32};
	cx_plan_opts o = {.devices = &ref, .n_devices = 1, .no_fuse = !fuse};
	cx_plan *p = NULL;
	cx_err err = {0};
	assert_int_equal(cx_graph_create(NULL, g, NULL), CX_OK);
	plan_build_model(*g, &m);
	assert_int_equal(cx_graph_finish(*g, NULL), CX_OK);
	if (cx_plan_build(*g, &o, &p, &err) != CX_OK) fail_msg("%s", err.msg);
	assert_int_equal(cx__plan_verify(p, "test", &err), CX_OK);
	return p;
}

static bool refused(cx_plan *p, const char *because)
{
	cx_err err = {0};
	bool yes = cx__plan_verify(p, "test", &err) != CX_OK && strstr(err.msg, because);
	if (!yes) print_message("verify said '%s', not '%s'\n", err.msg, because);
	return yes;
}

static void test_offsets_caught(void **unused)
{
	cx_graph *g;
	cx_plan *p = model_plan(&g, false);
	uint32_t n = 0, caught = 0;
	(void)unused;
	for (uint32_t i = 0; i < p->n_mem;
		 i++) { /* each storage in turn on top of each that lives at the same time */
		cx_storage *a = &p->mem[i];
		if (a->kind != CX_MEM_SLAB || a->bytes == 0) continue;
		for (uint32_t k = 0; k < p->n_mem; k++) {
			const cx_storage *b = &p->mem[k];
			uint64_t off = a->off;
			cx_err err = {0};
			if (k == i || b->kind != CX_MEM_SLAB || b->bytes == 0 || a->first > b->last ||
				b->first > a->last)
				continue;
			if (b->off + a->bytes > p->devs[0].slab_bytes) continue;
			a->off = b->off;
			n++;
			caught += cx__verify_bytes(p, "test", &err) != CX_OK;
			a->off = off;
		}
	}
	print_message("%u of %u planted overlaps caught\n", caught, n);
	assert_true(n > 50);
	assert_int_equal(caught, n);
	cx_plan_free(p);
	cx_graph_free(g);
}

static uint32_t node_of(const cx_plan *p, cx_op op)
{
	for (uint32_t i = 0; i < p->n_order; i++)
		if (p->n[p->order[i]].op == op) return p->order[i];
	fail_msg("the plan has no %s", cx__ops[op].name);
	return 0;
}

static void test_rewrites_caught(void **unused)
{
	cx_graph *g;
	cx_plan *p = model_plan(&g, true);
	cx_pnode *n = &p->n[node_of(p, CX_OP_rope_kv)];
	cx_attr_linear *lin;
	uint32_t t;
	(void)unused;
	t = n->in[0]; /* keys and values exchanged: the same shapes */
	n->in[0] = n->in[1];
	n->in[1] = t;
	assert_true(refused(p, "computes something else"));
	n->in[1] = n->in[0];
	n->in[0] = t;
	assert_int_equal(cx__plan_verify(p, "test", NULL), CX_OK);
	lin = p->n[node_of(p, CX_OP_linear)].attr;
	lin->eps *= 2;
	assert_true(refused(p, "computes something else"));
	lin->eps /= 2;
	t = p->order[3]; /* two steps exchanged, one of which reads the other */
	p->order[3] = p->order[4];
	p->order[4] = t;
	p->n[p->order[3]].pos = 3;
	p->n[p->order[4]].pos = 4;
	assert_true(refused(p, "before it is written"));
	cx_plan_free(p);
	cx_graph_free(g);
}

/* ---- devices that can do less ---- */

static plan_cripple crippled;

static void check_on(cx_graph *g, const cx_plan_opts *opts, double tol, cx_plan **out)
{
	plan_check c = {.opts = *opts, .tol = tol};
	plan_want w;
	cx_err err = {0};
	if (cx_graph_finish(g, &err) != CX_OK) fail_msg("%s", err.msg);
	if (plan_want_make(g, plan_fill_leaf, g, &w, &err) != CX_OK) fail_msg("%s", err.msg);
	if (plan_run_check(&w, rt, &c, out, &err) != CX_OK) fail_msg("%s", err.msg);
	plan_want_free(&w);
}

static void test_fallback(void **unused)
{
	cx_device *devs[2] = {plan_cripple_open(rt, &crippled), ref};
	cx_plan_opts o = {.devices = devs, .n_devices = 2, .verify = true};
	plan_model m = {.layers = 2,
		.tokens = 8,
		.width = 16,
		.heads = 4,
		.kv_heads = 2,
		.hidden = 24,
		.slots = 32};
	cx_graph *g;
	cx_plan *p = NULL;
	cx_err err = {0};
	char *text;
	size_t n;
	(void)unused;
	assert_non_null(devs[0]);
	memset(&crippled, 0, sizeof crippled);
	crippled.lacks[CX_OP_paged_attention] = crippled.lacks[CX_OP_rope] =
		crippled.lacks[CX_OP_rope_kv] = true;
	assert_int_equal(cx_graph_create(NULL, &g, NULL), CX_OK);
	plan_build_model(g, &m);
	assert_int_equal(cx_graph_finish(g, NULL), CX_OK);
	assert_int_equal(cx_plan_build(g, &o, &p, &err), CX_ERR_UNSUPPORTED);
	print_message("%s\n", err.msg);
	assert_non_null(strstr(err.msg, "crippled has no kernel for rope(f32[8,4,4], i32[8])"));
	o.allow_fallback = true;
	check_on(g, &o, 0, &p);
	assert_true(p->stats.n_fallback >= 6 && p->stats.n_copies >= 6);
	assert_int_equal(cx_plan_explain(p, NULL, &text, &n, NULL), CX_OK);
	assert_non_null(strstr(text, "fallback to ref:0: "));
	cx_free(NULL, text, n + 1);
	cx_plan_free(p);
	cx_graph_free(g);
	crippled.lacks[CX_OP_scatter] = true; /* the caches now live on the other device */
	assert_int_equal(cx_graph_create(NULL, &g, NULL), CX_OK);
	plan_build_model(g, &m);
	check_on(g, &o, 0, &p);
	cx_plan_free(p);
	cx_graph_free(g);
	cx_device_close(devs[0]);
}

static void build_rules(cx_graph *g)
{
	cx_tensor x = input(g, "x"), w = cx_weight(g, "w", CX_F32, SHAPE(4)),
			  b = cx_weight(g, "b", CX_F32, SHAPE(4));
	cx_attr_norm plus = {.eps = 1e-3f, .plus_one = true};
	cx_output(g, "silu", cx_silu(g, x));
	cx_output(g, "relu", cx_relu(g, x));
	cx_output(g, "clamp", cx_clamp(g, x, &(cx_attr_clamp){-0.25f, 0.5f, 0}));
	cx_output(g, "layernorm", cx_layernorm(g, x, w, b, NULL));
	cx_output(g, "layernorm of a view",
		cx_layernorm(g,
			cx_permute(
				g, cx_input(g, "z", CX_F32, SHAPE(4, 3)), &(cx_attr_perm){cx_list_of(2, 1, 0), 0}),
			CX_NONE, CX_NONE, NULL));
	cx_output(g, "rmsnorm", cx_rmsnorm(g, x, w, &plus));
	cx_output(g, "l2norm", cx_l2norm(g, x, NULL));
	cx_output(g, "softmax", cx_softmax(g, x, &(cx_attr_softmax){0, 0.5f, 0}));
	cx_output(g, "log_softmax", cx_log_softmax(g, x, NULL));
}

static void test_rules(void **unused)
{
	static const cx_op ops[] = {CX_OP_silu, CX_OP_relu, CX_OP_clamp, CX_OP_layernorm, CX_OP_rmsnorm,
		CX_OP_l2norm, CX_OP_softmax, CX_OP_log_softmax};
	cx_device *dev = plan_cripple_open(rt, &crippled);
	cx_plan_opts o = {.devices = &dev, .n_devices = 1, .verify = true};
	(void)unused;
	assert_non_null(dev);
	memset(&crippled, 0, sizeof crippled);
	for (int pass = 0; pass < 4; pass++) { /* ops missing, no strides, neither, and with fusion */
		cx_graph *g;
		cx_plan *p;
		for (size_t i = 0; i < sizeof ops / sizeof ops[0]; i++) crippled.lacks[ops[i]] = pass != 1;
		crippled.wants_dense = pass >= 1;
		o.no_fuse = pass < 3;
		assert_int_equal(cx_graph_create(NULL, &g, NULL), CX_OK);
		build_rules(g);
		check_on(g, &o, pass == 1 ? 0 : 1e-10, &p);
		for (size_t i = 0; pass != 1 && i < sizeof ops / sizeof ops[0]; i++)
			assert_int_equal(plan_count(p, ops[i]), 0);
		if (pass == 1) assert_int_equal(plan_count(p, CX_OP_copy), 1);
		cx_plan_free(p);
		cx_graph_free(g);
	}
	cx_device_close(dev);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_states),
		cmocka_unit_test(test_offsets_caught),
		cmocka_unit_test(test_rewrites_caught),
		cmocka_unit_test(test_fallback),
		cmocka_unit_test(test_rules),
	};
	return cmocka_run_group_tests(tests, open_devices, close_devices);
}
