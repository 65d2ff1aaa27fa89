/* test_plan_random.c - random graphs through the planner: what a plan computes is what the
 * unplanned reference computes, bit for bit on `ref` (outputs and states, two runs in a row), with
 * fusion on and off, every pass verified; some of them on a device that lacks ops and strides, with
 * `ref` to fall back on. The cpu backend has the like in test_cpu_plan.c. CORTEX_PLAN_GRAPHS sets
 * how many, CORTEX_PLAN_SEED the first seed. */
#include "tests/plan_graphs.h"
#include "tests/random_graph.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#if defined(__SANITIZE_ADDRESS__)
enum { N_GRAPHS = 1500 }; /* several times slower there */
#else
enum { N_GRAPHS = 10000 };
#endif

static uint64_t number_from(const char *name, uint64_t def)
{
	const char *s = getenv(name);
	return s ? strtoull(s, NULL, 10) : def;
}

static bool fill(void *ctx, uint32_t id, void *buf, uint64_t bytes)
{
	return cx__random_fill(ctx, id, buf, bytes) == CX_OK;
}

/* Totals over all graphs, so that one sees that the test reaches what it is about. */
typedef struct tally {
	uint64_t nodes, steps, fused[CX_FUSION_COUNT], copies[CX_WHY_COUNT], in_place, exact, n,
		excused;
} tally;

static void count(tally *t, const cx_plan *p)
{
	t->n++;
	t->nodes += p->stats.n_nodes;
	t->steps += p->stats.n_steps;
	t->exact += plan_is_exact(p);
	for (uint32_t i = 0; i < p->n_order; i++) {
		t->fused[p->n[p->order[i]].fusion]++;
		t->copies[p->n[p->order[i]].reason]++;
		t->in_place += p->n[p->order[i]].inplace >= 0;
	}
}

static void print_tally(const tally *t)
{
	print_message("%llu plans, %llu nodes, %llu steps, %llu in place, %llu compared by bits, "
				  "%llu excused (attention of infinities)\n",
		(unsigned long long)t->n, (unsigned long long)t->nodes, (unsigned long long)t->steps,
		(unsigned long long)t->in_place, (unsigned long long)t->exact,
		(unsigned long long)t->excused);
	for (int f = 1; f < CX_FUSION_COUNT; f++)
		print_message(
			"  %-14s %llu\n", cx__fusion_name((cx_fusion)f), (unsigned long long)t->fused[f]);
	for (int r = 1; r < CX_WHY_FUSED; r++)
		print_message(
			"  %-70s %llu\n", cx__reason_text((cx_reason)r), (unsigned long long)t->copies[r]);
}

static void options(uint64_t seed, cx_random_opts *o)
{
	*o = (cx_random_opts){.seed = seed, .n_nodes = 2 + (uint32_t)(seed % 17)};
	o->f32_only = seed % 3 == 0;
	o->zeros = seed % 5 == 0;
	o->specials = seed % 7 == 0;
	o->fused = seed % 11 == 0;
}

static void run_one(const cx_random_graph *rg, const plan_want *w, cx_runtime *rt,
	const cx_plan_opts *o, uint64_t seed, const char *how, tally *t)
{
	plan_check c = {.opts = *o};
	cx_plan *plan = NULL;
	cx_err err = {0};
	if (plan_run_check(w, rt, &c, &plan, &err) != CX_OK && rg->opts.specials && plan &&
		plan_count_fused(plan, CX_FUSION_attention) > 0) {
		t->excused++; /* scores that are -inf throughout, from infinite q or k: NaN spelled out, 0
						 as attention */
		err = (cx_err){0};
	}
	if (err.code != CX_OK) {
		char *text = NULL;
		size_t n = 0;
		if (cx_graph_print(rg->g, NULL, &text, &n, NULL) == CX_OK) fprintf(stderr, "%s\n", text);
		if (plan && cx_plan_explain(plan, NULL, &text, &n, NULL) == CX_OK)
			fprintf(stderr, "%s\n", text);
		fail_msg("seed %llu, %s: %s", (unsigned long long)seed, how, err.msg);
	}
	count(t, plan);
	cx_plan_free(plan);
}

/* Every third graph: a device without some ops, which have no simpler ones by rule, and perhaps
 * without strides. */
static void run_crippled(const cx_random_graph *rg, const plan_want *w, cx_runtime *rt,
	cx_device *const *devs, plan_cripple *cripple, uint64_t seed, tally *t)
{
	static const cx_op keep[] = {CX_OP_copy, CX_OP_silu, CX_OP_relu, CX_OP_clamp, CX_OP_layernorm,
		CX_OP_rmsnorm, CX_OP_l2norm, CX_OP_softmax, CX_OP_log_softmax};
	cx_plan_opts o = {.devices = devs, .n_devices = 2, .verify = true, .allow_fallback = true};
	cx_rng rng = cx__rng_make(seed, 99);
	for (int op = 0; op < CX_OP_COUNT; op++) cripple->lacks[op] = cx__rng_one_in(&rng, 4);
	for (size_t i = 0; i < sizeof keep / sizeof keep[0]; i++) cripple->lacks[keep[i]] = false;
	cripple->wants_dense = cx__rng_one_in(&rng, 2);
	o.no_fuse = cx__rng_one_in(&rng, 3);
	run_one(rg, w, rt, &o, seed, "crippled", t);
}

static void check_one(
	cx_runtime *rt, cx_device *ref, cx_device *less, plan_cripple *cripple, uint64_t seed, tally *t)
{
	cx_device *devs[2] = {less, ref};
	cx_random_graph *rg = NULL;
	cx_random_opts o;
	plan_want w = {0};
	cx_err err = {0};
	options(seed, &o);
	if (cx__random_graph(&o, NULL, &rg, &err) != CX_OK)
		fail_msg("seed %llu: %s", (unsigned long long)seed, err.msg);
	if (plan_want_make(rg->g, fill, rg, &w, &err) != CX_OK)
		fail_msg("seed %llu: %s", (unsigned long long)seed, err.msg);
	for (int fuse = 0; fuse < 2; fuse++) {
		cx_plan_opts opts = {.devices = &ref, .n_devices = 1, .no_fuse = !fuse, .verify = true};
		run_one(rg, &w, rt, &opts, seed, fuse ? "fused" : "not fused", t);
	}
	if (seed % 3 == 0) run_crippled(rg, &w, rt, devs, cripple, seed, t);
	plan_want_free(&w);
	cx__random_graph_free(rg);
}

/* ---- states ---- */

enum { MAX_VALUES = 64, MAX_STATES = 4 };
/* Values of one shape; any may be read at any time, newest versions of states may be updated. */
typedef struct mixer {
	cx_graph *g;
	cx_rng rng;
	cx_tensor v[MAX_VALUES], last[MAX_STATES], rows;
	uint32_t n, n_states;
} mixer;

static uint32_t below(mixer *m, uint32_t n)
{
	return (uint32_t)cx__rng_int(&m->rng, 0, n - 1);
}

static cx_tensor any(mixer *m)
{
	uint32_t n = m->n < 6 || cx__rng_one_in(&m->rng, 3) ? m->n : 6; /* rather a recent one */
	return m->v[m->n - 1 - below(m, n)];
}

static cx_tensor half(mixer *m, cx_tensor x)
{
	cx_attr_slice a = {cx_list_of(2, (int)below(m, 3), 0), cx_list_of(2, 2, 4), {0}, 0};
	return cx_slice(m->g, x, &a);
}

static cx_tensor update(mixer *m)
{
	static const float lr = 1;
	uint32_t s = below(m, m->n_states);
	cx_tensor t, one;
	switch (below(m, 5)) {
	case 0:
		t = cx_scatter(m->g, m->last[s], m->rows, half(m, any(m)), NULL);
		break;
	case 1:
		if (m->n_states < 3) return m->v[0];
		one = cx_const(m->g, CX_F32, 1, (const int64_t[]){1}, &lr);
		t = cx_adamw(m->g, m->last[0], any(m), m->last[1], m->last[2], one, one, NULL);
		for (int k = 0; k < 3; k++) m->last[k] = cx_out(m->g, t, (int)k);
		return m->last[below(m, 3)];
	default:
		t = cx_assign(m->g, m->last[s], any(m));
	}
	return m->last[s] = t;
}

static cx_tensor combine(mixer *m)
{
	cx_tensor x = any(m), two[2];
	switch (below(m, 9)) {
	case 0:
		return cx_neg(m->g, x);
	case 1:
		return cx_softmax(m->g, x, NULL);
	case 2:
		return cx_permute(m->g, x, &(cx_attr_perm){cx_list_of(2, 1, 0), 0});
	case 3:
		return cx_copy(m->g, x);
	case 4:
		return cx_cumsum(m->g, x, NULL);
	case 5: /* an update of a value, or of a copy of a version that is not to change */
		two[0] = cx_tanh(m->g, x);
		two[1] = half(m, any(m));
		return cx_scatter(m->g, two[0], m->rows, two[1], NULL);
	case 6:
		two[0] = half(m, x);
		two[1] = half(m, any(m));
		return cx_concat(m->g, two, 2, &(cx_attr_axis){.axis = 0});
	default:
		return cx_tanh(m->g, cx_sub(m->g, x, any(m)));
	}
}

static cx_graph *mix_states(uint64_t seed)
{
	static const int64_t dims[] = {4, 4}, two[] = {2};
	mixer m = {.rng = cx__rng_make(seed, 5)};
	uint32_t n_ops = 3 + below(&m, 28);
	cx_err err = {0};
	char name[12] = "s0";
	assert_int_equal(cx_graph_create(NULL, &m.g, NULL), CX_OK);
	m.n_states = 1 + below(&m, MAX_STATES);
	m.v[m.n++] = cx_input(m.g, "x", CX_F32, 2, dims);
	m.rows = cx_input(m.g, "rows", CX_I32, 1, two);
	for (uint32_t s = 0; s < m.n_states; s++, name[1]++)
		m.v[m.n++] = m.last[s] = cx_state(m.g, name, CX_F32, 2, dims);
	for (uint32_t i = 0; i < n_ops; i++)
		m.v[m.n++] = cx__rng_one_in(&m.rng, 3) ? update(&m) : combine(&m);
	cx_output(m.g, "y", m.v[m.n - 1]);
	for (uint32_t i = 0; i + 1 < m.n; i++) {
		snprintf(name, sizeof name, "y%u", i);
		if (cx__rng_one_in(&m.rng, 6)) cx_output(m.g, name, m.v[i]);
	}
	if (cx_graph_finish(m.g, &err) != CX_OK)
		fail_msg("seed %llu: %s", (unsigned long long)seed, err.msg);
	return m.g;
}

static void check_states(
	cx_runtime *rt, cx_device *ref, cx_device *less, plan_cripple *cripple, uint64_t seed, tally *t)
{
	cx_device *devs[2] = {less, ref};
	cx_random_graph rg = {.g = mix_states(seed)};
	plan_want w = {0};
	cx_err err = {0};
	if (plan_want_make(rg.g, plan_fill_leaf, rg.g, &w, &err) != CX_OK)
		fail_msg("seed %llu: %s", (unsigned long long)seed, err.msg);
	for (int fuse = 0; fuse < 2; fuse++) {
		cx_plan_opts opts = {.devices = &ref, .n_devices = 1, .no_fuse = !fuse, .verify = true};
		run_one(&rg, &w, rt, &opts, seed, fuse ? "states, fused" : "states, not fused", t);
	}
	run_crippled(&rg, &w, rt, devs, cripple, seed, t);
	plan_want_free(&w);
	cx_graph_free(rg.g);
}

typedef void check_fn(cx_runtime *rt, cx_device *ref, cx_device *less, plan_cripple *cripple,
	uint64_t seed, tally *t);

static void check_all(check_fn *check, bool reach)
{
	uint64_t n = number_from("CORTEX_PLAN_GRAPHS", N_GRAPHS),
			 first = number_from("CORTEX_PLAN_SEED", 1);
	cx_runtime *rt;
	cx_device *dev, *less;
	plan_cripple cripple = {0};
	tally t = {0};
	assert_int_equal(cx_runtime_create(NULL, &rt, NULL), CX_OK);
	assert_int_equal(cx_device_open(rt, "ref", 0, &dev, NULL), CX_OK);
	less = plan_cripple_open(rt, &cripple);
	assert_non_null(less);
	for (uint64_t i = 0; i < n; i++) check(rt, dev, less, &cripple, first + i, &t);
	print_tally(&t);
	assert_true(t.excused * 1000 <= t.n);
	if (n >= 2000 && reach)
		for (int f = 1; f < CX_FUSION_COUNT; f++) assert_true(t.fused[f] > 0);
	cx_device_close(less);
	cx_device_close(dev);
	cx_runtime_free(rt);
}

static void test_ref(void **state)
{
	(void)state;
	check_all(check_one, true);
}

static void test_states(void **state)
{
	(void)state;
	check_all(check_states, false);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_ref), cmocka_unit_test(test_states)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
