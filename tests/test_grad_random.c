/* test_grad_random.c - gradients of random graphs of all ops, states and views among them: with
 * random checkpoints they must be the same bits as without, evaluated node by node and planned for
 * the reference, fused and not, with every pass verified. CORTEX_GRAD_GRAPHS says how many. */
#include "tests/harness.h"
#include "tests/plan_run.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { MAX_WRT = 128 };

typedef struct graded {
	cx_random_graph *rg;
	uint32_t n, first_out; /* gradients, and the index of the first as an output */
	bool none;             /* nothing can be differentiated */
} graded;

static cx_tensor make_loss(cx_graph *g)
{
	cx_attr_cast f32 = {.dtype = CX_F32};
	uint32_t n = g->n_outputs;
	cx_tensor loss = CX_NONE;
	for (uint32_t i = 0; i < n; i++) {
		cx_tensor t = {g->outputs[i].id};
		if (cx_dtype_get(cx_tensor_dtype(g, t))->cls != CX_CLASS_FLOAT) continue;
		t = cx_tensor_dtype(g, t) == CX_F32 ? t : cx_cast(g, t, &f32);
		t = cx_sum(g, cx_mul(g, t, cx_const_f32(g, 0.25f + 0.5f * (float)(i % 3))), NULL);
		loss = cx_is_none(loss) ? t : cx_add(g, loss, t);
	}
	return loss;
}

/* Differentiates with respect to all float leaves that have a gradient. */
static void build(graded *r, uint64_t seed, bool checkpoints)
{
	cx_random_opts o = {.seed = seed,
		.n_nodes = 4 + (uint32_t)(seed % 24),
		.smooth = true,
		.zeros = seed % 8 == 0,
		.f32_only = seed % 2 == 0};
	cx_tensor wrt[MAX_WRT], grads[MAX_WRT], *keep, loss;
	cx_grad_opts opts = {0};
	cx_rng rng = cx__rng_make(seed, 1);
	cx_err err = {0};
	cx_graph *g;
	memset(r, 0, sizeof *r);
	if (cx__random_graph(&o, NULL, &r->rg, &err) != CX_OK) fail_msg("%s", err.msg);
	g = r->rg->g;
	g->finished = false;
	keep = calloc(g->n_nodes + 1, sizeof *keep);
	opts.checkpoints = keep;
	for (uint32_t i = 0; i < g->n_nodes; i++) {
		const cx_node *n = &g->nodes[i];
		bool leaf = n->op == CX_OP_input || n->op == CX_OP_weight || n->op == CX_OP_state;
		if (leaf && cx_dtype_get(n->desc.dtype)->cls == CX_CLASS_FLOAT && r->n < MAX_WRT)
			wrt[r->n++].id = i;
		if (cx__rng_one_in(&rng, 3)) keep[opts.n_checkpoints++].id = i;
	}
	loss = make_loss(g);
	for (; r->n > 0 && !cx_is_none(loss);) {
		unsigned bad;
		cx_graph_grad(g, loss, wrt, r->n, checkpoints ? &opts : NULL, grads);
		if (g->first_error.code == CX_OK) break;
		if (!strstr(g->first_error.msg, "enter")) { /* an op without a gradient is on the way */
			assert_non_null(strstr(g->first_error.msg, "is an op without a gradient"));
			r->n = 0;
			break;
		}
		assert_int_equal(sscanf(g->first_error.msg, "gradient: %%%u", &bad), 1);
		for (uint32_t i = 0; i < r->n; i++)
			if (wrt[i].id == bad) wrt[i--] = wrt[--r->n];
		memset(&g->first_error, 0, sizeof g->first_error);
	}
	r->none = r->n == 0 || cx_is_none(loss);
	r->first_out = g->n_outputs;
	for (uint32_t i = 0; !r->none && i < r->n; i++) {
		char name[16];
		snprintf(name, sizeof name, "grad%u", i);
		cx_output(g, name, grads[i]);
	}
	if (!r->none && cx_graph_finish(g, &err) != CX_OK)
		fail_msg("seed %u: %s", (unsigned)seed, err.msg);
	free(keep);
}

static bool fill(void *ctx, uint32_t id, void *buf, uint64_t bytes)
{
	const graded *r = ctx;
	return cx__random_fill(r->rg, id, buf, bytes) == CX_OK;
}

static void check_one(cx_runtime *rt, cx_device *dev, uint64_t seed, uint32_t *n_grads)
{
	graded r[2];
	plan_want want[2];
	cx_err err = {0};
	build(&r[0], seed, false);
	build(&r[1], seed, true);
	assert_int_equal(r[0].n, r[1].n);
	if (r[0].none) goto done;
	for (int k = 0; k < 2; k++)
		if (plan_want_make(r[k].rg->g, fill, &r[k], &want[k], &err) != CX_OK)
			fail_msg("seed %llu: %s", (unsigned long long)seed, err.msg);
	for (uint32_t i = r[0].first_out; i < r[0].rg->g->n_outputs; i++) {
		cx_tensor t = {r[0].rg->g->outputs[i].id};
		cx_shape s = cx_tensor_shape(r[0].rg->g, t);
		cx_close close;
		for (int run = 0; run < 2; run++)
			if (!cx__is_inside(cx_tensor_dtype(r[0].rg->g, t), cx_shape_elems(&s),
					want[0].out[run][i], want[1].out[run][i], 0, 0, &close))
				fail_msg("seed %llu, %s, element %lld: %.9g, with checkpoints %.9g",
					(unsigned long long)seed, r[0].rg->g->outputs[i].name, (long long)close.at,
					close.want, close.got);
	}
	for (int k = 0; k < 4; k++) {
		plan_check c = {.opts = {.devices = &dev, .n_devices = 1, .no_fuse = k / 2, .verify = true},
			.tol = 0,
			.floor = 1e-3};
		if (plan_run_check(&want[k % 2], rt, &c, NULL, &err) != CX_OK)
			fail_msg("seed %llu, checkpoints %d, fusion %d: %s", (unsigned long long)seed, k % 2,
				k < 2, err.msg);
	}
	*n_grads += r[0].n;
	plan_want_free(&want[0]);
	plan_want_free(&want[1]);
done:
	cx__random_graph_free(r[0].rg);
	cx__random_graph_free(r[1].rg);
}

static void test_random(void **state)
{
	const char *count = getenv("CORTEX_GRAD_GRAPHS");
	uint64_t n = count ? strtoull(count, NULL, 10) : 300;
	uint32_t n_grads = 0;
	cx_runtime *rt;
	cx_device *dev;
	(void)state;
	assert_int_equal(cx_runtime_create(NULL, &rt, NULL), CX_OK);
	assert_int_equal(cx_device_open(rt, "ref", 0, &dev, NULL), CX_OK);
	for (uint64_t seed = 1; seed <= n; seed++) check_one(rt, dev, seed, &n_grads);
	printf("# %u graphs, %u gradients\n", (unsigned)n, n_grads);
	if (n >= 100) assert_true(n_grads > n);
	cx_device_close(dev);
	cx_runtime_free(rt);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_random)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
