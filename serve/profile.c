/* profile.c - medians of step times, and ceilings measured through the same public calls. See
 * profile.h. */
#include "serve/profile.h"

#include "backends/cpu/ceil.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { WARM_UP = 2 };

static double now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return (x > y) - (x < y);
}

static double median(double *v, long n)
{
	qsort(v, (size_t)n, sizeof *v, by_value);
	return n % 2 ? v[n / 2] : 0.5 * (v[n / 2 - 1] + v[n / 2]);
}

static cx_status time_runs(cx_exec *x, long runs, double *t, double *out, cx_err *err)
{
	cx_status st = CX_OK;
	for (long r = -WARM_UP; r < runs && st == CX_OK; r++) {
		double start = now();
		st = cx_exec_run(x, err);
		if (r >= 0) t[r] = now() - start;
	}
	if (st == CX_OK) *out = median(t, runs);
	return st;
}

/* all is [runs, n + 1], column is [runs]. */
static cx_status time_steps(
	cx_exec *x, uint32_t n, long runs, double *all, double *column, double *out, cx_err *err)
{
	cx_status st = CX_OK;
	for (long r = -1; r < runs && st == CX_OK; r++) {
		double *row = all + (size_t)(r < 0 ? 0 : r) * n;
		memset(row, 0, n * sizeof *row);
		st = cx_exec_profile(x, row, n, err);
	}
	for (uint32_t i = 0; i < n && st == CX_OK; i++) {
		for (long r = 0; r < runs; r++) column[r] = all[(size_t)r * n + i];
		out[i] = median(column, runs);
	}
	return st;
}

cx_status cx__profile_run(const cx_plan *plan, cx_exec *x, long runs, cx_profile *out, cx_err *err)
{
	uint32_t n = plan->n_order;
	double *all = calloc((size_t)runs, ((size_t)n + 1) * sizeof *all);
	double *column = calloc((size_t)runs, sizeof *column);
	cx_status st = CX_OK;
	out->n_steps = n;
	out->seconds = calloc((size_t)n + 1, sizeof *out->seconds);
	if (!all || !column || !out->seconds)
		st = CX_FAIL(err, CX_ERR_MEMORY, "out of memory for %ld runs of %u steps", runs, n);
	if (st == CX_OK) st = time_runs(x, runs, column, &out->run_seconds, err);
	if (st == CX_OK) st = time_steps(x, n, runs, all, column, out->seconds, err);
	free(all);
	free(column);
	return st;
}

void cx__profile_free(cx_profile *p)
{
	free(p->seconds);
	memset(p, 0, sizeof *p);
}

/* ---- ceilings ---- */

typedef enum probe { PROBE_LAUNCH, PROBE_COPY, PROBE_MATMUL } probe;
enum { COPY_ROWS = 4096, COPY_COLS = 4096, MATMUL_N = 512, N_TRIES = 9 };

static void probe_graph(cx_graph *g, probe what)
{
	int64_t copy[2] = {COPY_ROWS, COPY_COLS}, square[2] = {MATMUL_N, MATMUL_N}, one[1] = {1};
	cx_attr_matmul by_rows = cx_attr_matmul_default();
	cx_tensor y;
	by_rows.trans_b = true;
	if (what == PROBE_COPY) y = cx_copy(g, cx_input(g, "x", CX_F32, 2, copy));
	else if (what == PROBE_LAUNCH) y = cx_neg(g, cx_input(g, "x", CX_F32, 1, one));
	else
		y = cx_matmul(
			g, cx_input(g, "x", CX_F32, 2, square), cx_input(g, "w", CX_F32, 2, square), &by_rows);
	cx_output(g, "y", y);
}

/* Median seconds of the one step of a probe. */
static cx_status run_probe(cx_runtime *rt, cx_device *dev, probe what, double *out, cx_err *err)
{
	cx_plan_opts opts = {.devices = &dev, .n_devices = 1};
	cx_graph *g = NULL;
	cx_plan *plan = NULL;
	cx_store *store = NULL;
	cx_exec *x = NULL;
	void *zeros = NULL;
	double t[N_TRIES], step = 0;
	cx_status st;
	if ((st = cx_graph_create(NULL, &g, err)) != CX_OK) goto done;
	probe_graph(g, what);
	if ((st = cx_graph_finish(g, err)) != CX_OK) goto done;
	if ((st = cx_plan_build(g, &opts, &plan, err)) != CX_OK) goto done;
	if ((st = cx_store_create(rt, &store, err)) != CX_OK) goto done;
	if ((st = cx_exec_create(plan, store, &x, err)) != CX_OK) goto done;
	zeros = calloc((size_t)COPY_ROWS * COPY_COLS, sizeof(float));
	if (!zeros) st = CX_FAIL(err, CX_ERR_MEMORY, "out of memory for ceilings");
	for (uint32_t i = 0; i < g->n_nodes && st == CX_OK; i++)
		if (g->nodes[i].op == CX_OP_input)
			st = cx_exec_set_input(x, cx_exec_input(x, g->nodes[i].name), zeros,
				cx__desc_bytes(&g->nodes[i].desc), err);
	for (int i = -WARM_UP; i < N_TRIES && st == CX_OK; i++) {
		double start = now();
		step = 0;
		st = what == PROBE_LAUNCH ? cx_exec_run(x, err) : cx_exec_profile(x, &step, 1, err);
		if (i >= 0) t[i] = what == PROBE_LAUNCH ? now() - start : step;
	}
	if (st == CX_OK) *out = median(t, N_TRIES);
done:
	cx_exec_free(x);
	cx_store_free(store);
	cx_plan_free(plan);
	cx_graph_free(g);
	free(zeros);
	return st;
}

static cx_status cpu_ceilings(cx_device *dev, cx_profile *out, cx_err *err)
{
	cx_limits limits = {0};
	cx_ceilings c = {0};
	cx_pool *pool = NULL;
	cx_status st;
	dev->backend->limits(dev, &limits);
	if ((st = cx__pool_create(NULL, limits.n_threads, false, &pool, err)) != CX_OK) return st;
	if (!cx__ceilings_measure(pool, &c))
		st = CX_FAIL(err, CX_ERR_MEMORY, "out of memory for the copy that measures bandwidth");
	cx__pool_free(pool);
	out->copy_gbs = c.copy_gbs;
	out->peak_gflops = c.fma_gflops;
	out->peak_how = "f32 multiply-adds in registers, all threads";
	return st;
}

cx_status cx__profile_ceilings(cx_runtime *rt, cx_device *dev, cx_profile *out, cx_err *err)
{
	double copy = 0, product = 0;
	cx_status st;
	if ((st = run_probe(rt, dev, PROBE_LAUNCH, &out->launch, err)) != CX_OK) return st;
	if (strcmp(dev->backend->name, "cpu") == 0) return cpu_ceilings(dev, out, err);
	if ((st = run_probe(rt, dev, PROBE_COPY, &copy, err)) != CX_OK) return st;
	if ((st = run_probe(rt, dev, PROBE_MATMUL, &product, err)) != CX_OK) return st;
	out->copy_gbs = copy > 0 ? 8e-9 * COPY_ROWS * COPY_COLS / copy : 0;
	out->peak_gflops = product > 0 ? 2e-9 * MATMUL_N * MATMUL_N * MATMUL_N / product : 0;
	out->peak_how = "an f32 product of 512x512x512, as this backend runs it";
	return CX_OK;
}
