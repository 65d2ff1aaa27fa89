/* product.c - see product.h. */
#include "tests/product.h"

#include "graph/plan.h"
#include "graph/quant.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <time.h>

#include <cmocka.h>

#define OK(call)                                                                                   \
	do {                                                                                           \
		cx_err err_ = {0}, *err = &err_;                                                           \
		cx_status st_ = (call);                                                                    \
		if (st_ != CX_OK) fail_msg("%s: %s", #call, err_.msg);                                     \
	} while (0)

static float noise(uint64_t *s)
{
	*s = *s * 6364136223846793005u + 1442695040888963407u;
	return (float)(int32_t)(*s >> 33) * 0x1p-31f;
}

product product_make(cx_dtype t, int64_t m, int64_t n, int64_t k)
{
	product p = {t, CX_F32, m, n, k, NULL, 0, malloc((size_t)(m * k) * 4)};
	float *w = malloc((size_t)(n * k) * 4);
	uint64_t seed = 7;
	assert_true(cx_dtype_bytes(t, 2, (int64_t[]){n, k}, &p.w_bytes));
	p.w = malloc(p.w_bytes);
	assert_true(p.w && w && p.x);
	for (int64_t i = 0; i < n * k; i++) w[i] = noise(&seed);
	for (int64_t i = 0; i < m * k; i++) p.x[i] = noise(&seed);
	if (t == CX_I8C) cx_quant_i8c(w, n, k, p.w);
	else assert_true(cx_quant_row(t, w, p.w, n * k));
	free(w);
	return p;
}

void product_free(product *p)
{
	free(p->w);
	free(p->x);
}

static cx_graph *graph_of(const product *p, int64_t rows)
{
	cx_graph *g = NULL;
	cx_attr_matmul trans = {.trans_b = true};
	cx_tensor x, y;
	OK(cx_graph_create(NULL, &g, err));
	x = cx_input(g, "x", CX_F32, 2, (int64_t[]){rows, p->k});
	if (p->x_dtype != CX_F32) x = cx_cast(g, x, &(cx_attr_cast){.dtype = p->x_dtype});
	y = cx_matmul(g, x, cx_weight(g, "w", p->dtype, 2, (int64_t[]){p->n, p->k}), &trans);
	if (p->x_dtype != CX_F32) y = cx_cast(g, y, &(cx_attr_cast){.dtype = CX_F32});
	cx_output(g, "y", y);
	OK(cx_graph_finish(g, err));
	return g;
}

float *product_run(cx_runtime *rt, cx_device *on, const product *p, int64_t rows)
{
	float *y = malloc((size_t)(rows * p->n) * 4);
	cx_graph *g = graph_of(p, rows);
	cx_plan *plan = NULL;
	cx_store *store = NULL;
	cx_exec *x = NULL;
	cx_plan_opts opts = {.devices = &on, .n_devices = 1};
	OK(cx_plan_build(g, &opts, &plan, err));
	OK(cx_store_create(rt, &store, err));
	OK(cx_store_weight(store, "w", p->dtype, 2, (int64_t[]){p->n, p->k}, p->w, p->w_bytes, err));
	OK(cx_exec_create(plan, store, &x, err));
	OK(cx_exec_set_input(x, 0, p->x, (uint64_t)(rows * p->k) * 4, err));
	OK(cx_exec_run(x, err));
	OK(cx_exec_get_output(x, 0, y, (uint64_t)(rows * p->n) * 4, err));
	cx_exec_free(x);
	cx_store_free(store);
	cx_plan_free(plan);
	cx_graph_free(g);
	return y;
}

static double now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

void product_check_times(cx_runtime *rt, cx_device *on, const product *p)
{
	cx_graph *g = graph_of(p, p->m);
	cx_plan *plan = NULL;
	cx_store *store = NULL;
	cx_exec *x = NULL;
	cx_plan_opts opts = {.devices = &on, .n_devices = 1, .no_fuse = true};
	OK(cx_plan_build(g, &opts, &plan, err));
	OK(cx_store_create(rt, &store, err));
	OK(cx_store_weight(store, "w", p->dtype, 2, (int64_t[]){p->n, p->k}, p->w, p->w_bytes, err));
	OK(cx_exec_create(plan, store, &x, err));
	OK(cx_exec_set_input(x, 0, p->x, (uint64_t)(p->m * p->k) * 4, err));
	assert_true(plan->n_order > 0 && plan->n_order <= 8);
	assert_true(plan->devs[0].limits.clock_ns > 0);
	for (int run = 0; run < 5; run++) {
		double steps[8] = {0}, sum = 0, start = now(), host;
		OK(cx_exec_profile(x, steps, plan->n_order, err));
		host = now() - start;
		for (uint32_t i = 0; i < plan->n_order; i++) {
			assert_true(steps[i] >= 0);
			sum += steps[i];
		}
		if (!(sum > 0 && sum <= host))
			fail_msg("%s: %u steps of %g s in all, the host saw %g s", on->name, plan->n_order, sum,
				host);
		OK(cx_exec_run(x, err)); /* runs in between are not timed */
		assert_false(on->timed);
	}
	cx_exec_free(x);
	cx_store_free(store);
	cx_plan_free(plan);
	cx_graph_free(g);
}

const char *product_kernel(cx_device *on, const product *p, int64_t rows)
{
	cx_graph *g = graph_of(p, rows);
	const cx_kernel *k = NULL;
	for (uint32_t i = 0; i < g->n_nodes; i++) {
		const cx_node *n = &g->nodes[i];
		cx_desc in[2];
		cx_kernel_key key = {
			.op = CX_OP_matmul, .attr = n->attr, .in = in, .n_in = 2, .out = &n->desc, .n_out = 1};
		if (n->op != CX_OP_matmul) continue;
		for (int j = 0; j < 2; j++) in[j] = g->nodes[n->in[j]].desc;
		k = on->backend->find(on, &key);
	}
	cx_graph_free(g);
	return k ? k->name : NULL;
}
