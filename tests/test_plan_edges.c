/* test_plan_edges.c - graphs at the edge of what the planner may do: leaves, old versions and one
 * tensor twice as outputs, states that swap or are assigned to themselves, empty tensors, values
 * that disappear by simplification. Each on ref, on cpu, and with the states on another device,
 * fused and not, every pass verified, against the unplanned reference. */
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

static cx_tensor state(cx_graph *g, const char *name)
{
	return cx_state(g, name, CX_F32, SHAPE(4, 4));
}
static cx_tensor input(cx_graph *g, const char *name)
{
	return cx_input(g, name, CX_F32, SHAPE(4, 4));
}
static cx_tensor rows(cx_graph *g)
{
	return cx_input(g, "rows", CX_I32, SHAPE(2));
}
static cx_tensor some(cx_graph *g)
{
	return cx_input(g, "some", CX_F32, SHAPE(2, 4));
}
static cx_tensor turned(cx_graph *g, cx_tensor x)
{
	return cx_permute(g, x, &(cx_attr_perm){cx_list_of(2, 1, 0), 0});
}
static cx_tensor upper(cx_graph *g, cx_tensor x) /* rows 2 and 3 */
{
	return cx_slice(g, x, &(cx_attr_slice){cx_list_of(2, 2, 0), cx_list_of(2, 2, 4), {0}, 0});
}
static cx_tensor flat(cx_graph *g, cx_tensor x)
{
	return cx_reshape(g, x, &(cx_attr_dims){cx_list_of(1, 16), 0});
}
static cx_tensor twice_negated(cx_graph *g, cx_tensor x)
{
	return cx_neg(g, cx_neg(g, x));
}
static void output_twice(cx_graph *g, const char *a, const char *b, cx_tensor t)
{
	cx_output(g, a, t);
	cx_output(g, b, t);
}

/* ---- outputs ---- */

static void leaves(cx_graph *g)
{
	static const float four[4] = {1, -2, 3, -4};
	output_twice(g, "input", "input again", input(g, "x"));
	output_twice(g, "weight", "weight again", cx_weight(g, "w", CX_F16, SHAPE(3, 5)));
	output_twice(g, "const", "const again", cx_const(g, CX_F32, SHAPE(4), four));
	output_twice(g, "equal const", "equal const again", cx_const(g, CX_F32, SHAPE(4), four));
	output_twice(g, "state", "state again", state(g, "s"));
	cx_output(g, "bool", cx_input(g, "b", CX_BOOL, SHAPE(3)));
	cx_output(g, "i8", cx_weight(g, "i8", CX_I8, SHAPE(3)));
}

static void views_of_leaves(cx_graph *g)
{
	static const float four[4] = {1, -2, 3, -4};
	cx_tensor s = state(g, "s"), c = cx_const(g, CX_F32, SHAPE(1, 4), four);
	cx_output(g, "input", turned(g, input(g, "x")));
	cx_output(g, "weight", upper(g, cx_weight(g, "w", CX_F32, SHAPE(4, 4))));
	cx_output(g, "const", cx_broadcast(g, c, &(cx_attr_dims){cx_list_of(2, 3, 4), 0}));
	cx_output(g, "whole", flat(g, s));
	cx_output(g, "part", upper(g, s));
	cx_output(g, "turned", turned(g, s));
	cx_output(g, "not by strides", flat(g, turned(g, s)));
	cx_scatter(g, s, rows(g), some(g), NULL);
}

static void equal_values(cx_graph *g)
{
	cx_tensor x = input(g, "x"), y = cx_softmax(g, x, NULL);
	cx_output(g, "a", y);
	cx_output(g, "b", cx_softmax(g, x, NULL));
	cx_output(g, "c", cx_copy(g, y));
	cx_output(g, "d", flat(g, cx_softmax(g, twice_negated(g, x), NULL)));
	cx_output(g, "e", twice_negated(g, x));
}

static void folded(cx_graph *g)
{
	cx_tensor c = cx_exp(g, cx_const_f32(g, 2.0f)),
			  i = cx_iota(g, &(cx_attr_iota){.dims = cx_list_of(2, 4, 4), .axis = 1});
	output_twice(g, "exp", "exp again", c);
	cx_output(g, "iota", i);
	cx_output(g, "turned", turned(g, i));
	cx_assign(g, state(g, "s"), cx_cast(g, i, &(cx_attr_cast){.dtype = CX_F32}));
}

/* 4 MiB of constants are folded: a node whose first output just goes in, and what is equal to it */
static void folded_in_part(cx_graph *g)
{
	cx_attr_iota at = {.dims = cx_list_of(2, 128, 128), .dtype = CX_F32, .step = 0.01f};
	cx_attr_topk all = {.k = 128, .axis = 1};
	cx_attr_reduce first = {.axes = cx_list_of(1, 0)};
	cx_tensor x = cx_iota(g, &at), t, again;
	for (int i = 0; i < 62; i++) x = cx_sin(g, x);
	t = cx_topk(g, x, &all);
	cx_output(g, "values", cx_amax(g, t, &first));
	cx_output(g, "index", cx_out(g, t, 1));
	again = cx_topk(g, x, &all);
	cx_output(g, "values again", cx_amax(g, again, &first));
	cx_output(g, "index again", cx_out(g, again, 1));
	x = cx_broadcast(g, cx_const_f32(g, 0.5f), &(cx_attr_dims){cx_list_of(3, 16, 128, 128), 0});
	cx_output(g, "of many", cx_sum(g, x, &first));
}

static void old_versions(cx_graph *g)
{
	cx_tensor i = rows(g), v = some(g), s0 = state(g, "s"), s1 = cx_scatter(g, s0, i, v, NULL),
			  s2 = cx_assign(g, s1, cx_tanh(g, input(g, "x"))),
			  s3 = cx_scatter(g, s2, i, cx_neg(g, v), &(cx_attr_scatter){.add = true});
	output_twice(g, "s0", "s0 again", s0);
	cx_output(g, "s0 turned", turned(g, s0));
	output_twice(g, "s1", "s1 again", s1);
	cx_output(g, "s1 part", upper(g, s1));
	cx_output(g, "s2", s2);
	output_twice(g, "s3", "s3 again", s3);
	cx_output(g, "s3 flat", flat(g, s3));
}

/* ---- states ---- */

static void swap(cx_graph *g)
{
	cx_tensor a = state(g, "a"), b = state(g, "b"), a1 = cx_assign(g, a, b),
			  b1 = cx_assign(g, b, a);
	cx_output(g, "a", a);
	cx_output(g, "a1 - b1", cx_sub(g, a1, b1));
}

static void swap_views(cx_graph *g)
{
	cx_tensor a = state(g, "a"), b = state(g, "b");
	cx_assign(g, a, turned(g, b));
	cx_assign(g, b, turned(g, twice_negated(g, a)));
}

static void swap_values(cx_graph *g)
{
	cx_tensor a = state(g, "a"), b = state(g, "b");
	cx_assign(g, a, cx_neg(g, b));
	cx_assign(g, b, cx_neg(g, a));
}

static void rotate(cx_graph *g)
{
	cx_tensor a = state(g, "a"), b = state(g, "b"), c = state(g, "c");
	cx_assign(g, a, b);
	cx_assign(g, b, c);
	cx_assign(g, c, a);
}

static void chain(cx_graph *g) /* a delay line: no copy of an old version is needed */
{
	cx_tensor a = state(g, "a"), b = state(g, "b"), c = state(g, "c");
	cx_assign(g, a, b);
	cx_assign(g, b, c);
	cx_assign(g, c, input(g, "x"));
}

static void itself(cx_graph *g)
{
	cx_tensor s = state(g, "s");
	cx_output(g, "new", cx_assign(g, s, s));
	cx_output(g, "old", s);
}

static void itself_by_views(cx_graph *g)
{
	cx_tensor a = state(g, "a"), b = state(g, "b"), c = state(g, "c");
	cx_assign(g, a, turned(g, a));
	cx_assign(g, b, twice_negated(g, cx_copy(g, b)));
	cx_assign(
		g, c, cx_concat(g, (cx_tensor[]){upper(g, c), some(g)}, 2, &(cx_attr_axis){.axis = 0}));
}

static void leaves_assigned(cx_graph *g)
{
	static const float four[4] = {1, -2, 3, -4};
	cx_tensor x = input(g, "x");
	cx_assign(g, state(g, "a"), x);
	cx_assign(g, state(g, "b"), turned(g, x));
	cx_assign(g, state(g, "c"), cx_weight(g, "w", CX_F32, SHAPE(4, 4)));
	cx_assign(g, cx_state(g, "d", CX_F32, SHAPE(4)), cx_const(g, CX_F32, SHAPE(4), four));
}

static void one_value_twice(cx_graph *g)
{
	cx_tensor x = input(g, "x"), y = cx_softmax(g, x, NULL);
	cx_assign(g, state(g, "a"), y);
	cx_assign(g, state(g, "b"), cx_softmax(g, x, NULL));
	cx_output(g, "new", cx_assign(g, state(g, "c"), cx_tanh(g, x)));
	cx_output(g, "y", y);
}

/* One fused step makes both: only one of them may be written straight into the state. */
static void versions_of_one_step(cx_graph *g)
{
	cx_tensor s = state(g, "s"), b = state(g, "b"), x = input(g, "x"), y = cx_tanh(g, x), s1;
	s1 = cx_assign(g, s, y);
	s1 = cx_assign(g, s1, cx_neg(g, y));
	cx_output(g, "s", cx_cumsum(g, s1, NULL));
	y = cx_tanh(g, cx_sub(g, b, x)); /* in place, and into another state as well */
	cx_assign(g, state(g, "c"), cx_abs(g, y));
	cx_assign(g, b, y);
}

static void gradient_is_state(cx_graph *g)
{
	cx_tensor p = state(g, "p"), m = state(g, "m"), v = state(g, "v"),
			  t = cx_input(g, "t", CX_F32, SHAPE(1)), lr = cx_input(g, "lr", CX_F32, SHAPE(1)),
			  p1 = cx_adamw(g, p, m, m, v, lr, cx_exp(g, t), NULL);
	cx_adamw(g, p1, p1, cx_out(g, p1, 1), cx_abs(g, input(g, "x")), lr, cx_exp(g, t), NULL);
	cx_output(g, "p", p);
}

static void value_updated_twice(cx_graph *g)
{
	cx_tensor x = cx_softmax(g, input(g, "x"), NULL), i = rows(g), v = some(g);
	cx_output(g, "a", cx_scatter(g, x, i, v, NULL));
	cx_output(g, "b", cx_scatter(g, x, i, cx_neg(g, v), NULL));
	cx_output(g, "c", cx_scatter(g, turned(g, x), i, upper(g, x), NULL));
	cx_output(g, "x", x);
}

/* ---- values that disappear ---- */

static void negated_view(cx_graph *g) /* what stands for the value is part of a state, and viewed */
{
	cx_tensor s = cx_state(g, "s", CX_F32, SHAPE(7)),
			  one = cx_slice(g, s, &(cx_attr_slice){cx_list_of(1, 5), cx_list_of(1, 1), {0}, 0}),
			  two = cx_slice(g, s, &(cx_attr_slice){cx_list_of(1, 3), cx_list_of(1, 3), {0}, 0}),
			  y = cx_broadcast(
				  g, twice_negated(g, one), &(cx_attr_dims){cx_list_of(4, 1, 1, 3, 1), 0});
	y = cx_clamp(g, y, &(cx_attr_clamp){-1, 1, 0});
	cx_output(g, "y", cx_matmul(g, y, y, &(cx_attr_matmul){.trans_b = true}));
	y = cx_reshape(g, twice_negated(g, two), &(cx_attr_dims){cx_list_of(2, 3, 1), 0});
	y = cx_broadcast(g, y, &(cx_attr_dims){cx_list_of(2, 3, 2), 0});
	cx_output(g, "z", cx_clamp(g, y, &(cx_attr_clamp){-1, 1, 0}));
	y = cx_mul(g, cx_sub(g, cx_neg(g, two), cx_const_f32(g, 0.0f)), cx_const_f32(g, 1.0f));
	y = cx_slice(g, cx_neg(g, y), &(cx_attr_slice){cx_list_of(1, 1), cx_list_of(1, 2), {0}, 0});
	cx_output(g, "part", cx_tanh(g, y));
	cx_output(g, "part itself", y);
}

/* ---- nothing in them ---- */

static void empty(cx_graph *g)
{
	cx_tensor x = cx_input(g, "x", CX_F32, SHAPE(0, 4)), w = cx_weight(g, "w", CX_F32, SHAPE(4, 0)),
			  s = cx_state(g, "s", CX_F32, SHAPE(0, 4)), a = state(g, "a"), y;
	cx_output(g, "x", x);
	cx_output(g, "w", w);
	cx_output(g, "old", s);
	cx_output(g, "new", cx_assign(g, s, cx_softmax(g, x, NULL)));
	cx_output(g, "none to sum", cx_matmul(g, w, x, NULL));
	cx_output(g, "const", cx_const(g, CX_F32, SHAPE(0), NULL));
	cx_output(g, "sum", cx_sum(g, x, &(cx_attr_reduce){.axes = cx_list_of(1, 0)}));
	y = cx_scatter(g, a, cx_input(g, "i", CX_I32, SHAPE(0)), x, NULL);
	cx_output(g, "nothing written", y);
	cx_output(g, "a", a);
	cx_output(g, "joined",
		cx_concat(g, (cx_tensor[]){x, a, turned(g, w)}, 3, &(cx_attr_axis){.axis = 0}));
	cx_output(g, "view", cx_tanh(g, turned(g, twice_negated(g, x))));
	cx_output(g, "broadcast", cx_broadcast(g, x, &(cx_attr_dims){cx_list_of(3, 2, 0, 4), 0}));
}

static const struct {
	const char *name;
	void (*build)(cx_graph *);
} cases[] = {
	{"leaves as outputs", leaves},
	{"views of leaves as outputs", views_of_leaves},
	{"equal values as outputs", equal_values},
	{"folded values as outputs", folded},
	{"values folded in part", folded_in_part},
	{"old versions as outputs", old_versions},
	{"states that swap", swap},
	{"states that swap, turned", swap_views},
	{"states that swap, negated", swap_values},
	{"states that rotate", rotate},
	{"a delay line", chain},
	{"a state assigned to itself", itself},
	{"a state assigned to itself by views", itself_by_views},
	{"leaves assigned to states", leaves_assigned},
	{"one value assigned twice", one_value_twice},
	{"versions that one step makes", versions_of_one_step},
	{"gradients that are states", gradient_is_state},
	{"a value updated twice", value_updated_twice},
	{"a negated view of a state", negated_view},
	{"empty tensors", empty},
};
enum { N_CASES = sizeof cases / sizeof cases[0] };

static void check_case(size_t i, cx_runtime *rt, const cx_plan_opts *opts, const char *how)
{
	bool ref = strncmp(cx_device_name(opts->devices[0]), "cpu", 3) != 0;
	plan_check c = {.opts = *opts, .tol = ref ? 0 : 1e-9};
	cx_graph *g;
	plan_want w;
	cx_err err = {0};
	assert_int_equal(cx_graph_create(NULL, &g, NULL), CX_OK);
	cases[i].build(g);
	if (cx_graph_finish(g, &err) != CX_OK) fail_msg("%s: %s", cases[i].name, err.msg);
	if (plan_want_make(g, plan_fill_leaf, g, &w, &err) != CX_OK)
		fail_msg("%s: %s", cases[i].name, err.msg);
	c.opts.verify = true;
	for (int fuse = 0; fuse < 2; fuse++) {
		c.opts.no_fuse = !fuse;
		if (plan_run_check(&w, rt, &c, NULL, &err) != CX_OK)
			fail_msg(
				"%s, on %s, %s: %s", cases[i].name, how, fuse ? "fused" : "not fused", err.msg);
	}
	plan_want_free(&w);
	cx_graph_free(g);
}

static void test_edges(void **unused)
{
	plan_cripple less = {.wants_dense = true};
	cx_runtime *rt;
	cx_device *ref, *cpu, *two[2];
	(void)unused;
	less.lacks[CX_OP_assign] = less.lacks[CX_OP_scatter] = less.lacks[CX_OP_tanh] = true;
	assert_int_equal(cx_runtime_create(NULL, &rt, NULL), CX_OK);
	assert_int_equal(cx_device_open(rt, "ref", 0, &ref, NULL), CX_OK);
	assert_int_equal(cx_device_open(rt, "cpu", 0, &cpu, NULL), CX_OK);
	assert_non_null(two[0] = plan_cripple_open(rt, &less));
	two[1] = ref;
	for (size_t i = 0; i < N_CASES; i++) {
		check_case(i, rt, &(cx_plan_opts){.devices = &ref, .n_devices = 1}, "ref");
		check_case(i, rt, &(cx_plan_opts){.devices = &cpu, .n_devices = 1}, "cpu");
		check_case(i, rt, &(cx_plan_opts){.devices = two, .n_devices = 2, .allow_fallback = true},
			"two devices");
	}
	cx_device_close(two[0]);
	cx_device_close(cpu);
	cx_device_close(ref);
	cx_runtime_free(rt);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_edges)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
