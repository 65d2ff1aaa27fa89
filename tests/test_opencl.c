/* test_opencl.c - every kernel of the opencl backend against the reference: op x dtype x layout, small random cases; then sizes at
 * which tiles, groups and chunks are full, once with programs that serve all dtypes and once with programs of their own,
 * which must give the same bits; rows alone against together; whole graphs; a device that fails; a cache that is damaged.
 * Prints pass, none or FAIL per op. Skips with a sentence where there is no OpenCL device. */
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
static struct {
	int pass, none, fail;
} grid[CX_OP_COUNT];
static int n_messages;
static bool have_device;

static int open_devices(void **state)
{
	cx_err err = {0};
	(void)state;
	if (cx_runtime_create(NULL, &runtime, &err) != CX_OK) return -1;
	if (cx_device_open(runtime, "opencl", 0, &device, &err) != CX_OK) {
		printf("no OpenCL device, its kernels are not tested: %s\n", err.msg);
		return 0;
	}
	if (cx_device_open(runtime, "opencl", 0, &own, &err) != CX_OK) return -1;
	((cx_cl_device *)own)->own_from = 0;
	((cx_cl_device *)own)->text_from = 0;
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
	grid[op].fail++;
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

static bool near_reference(const step_values *v, uint32_t id, const step_result *r, const char *what)
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
		report((cx_op)v->g->nodes[id].op, what, "output %u differs in element %lld", o, (long long)at);
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
		grid[op].none++;
		if (n_messages++ < 60) printf("none %s, %s\n", cx__ops[op].name, what);
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
	grid[op].pass += ok;
	step_result_free(&r);
}

/* ---- random cases ---- */

static void fill_random(void *ctx, uint32_t id, void *buf, uint64_t bytes)
{
	assert_int_equal(cx__random_fill(ctx, id, buf, bytes), CX_OK);
}

static void random_case(cx_op op, const cx_random_opts *o, bool with_own, const char *what)
{
	cx_random_graph *rg = NULL;
	cx_err err = {0};
	step_values v;
	uint32_t id = UINT32_MAX;
	if (cx__random_case(op, o, NULL, &rg, &err) != CX_OK)
		fail_msg("%s: %s", cx__ops[op].name, err.msg);
	for (uint32_t i = 0; i < rg->g->n_nodes; i++)
		if (rg->g->nodes[i].op == op) id = i;
	if (id != UINT32_MAX) {
		step_values_make(&v, rg->g, fill_random, rg);
		check_node(&v, id, with_own, what);
		step_values_free(&v);
	}
	cx__random_graph_free(rg);
}

static bool is_run(cx_op op)
{
	return cx__ops[op].kind != CX_KIND_LEAF && cx__ops[op].kind != CX_KIND_META;
}

static void test_grid(void **state)
{
	static const cx_dtype floats[] = {CX_F32, CX_F16, CX_BF16};
	static const char *const layouts[] = {"any", "dense", "strided", "broadcast"};
	char what[96];
	(void)state;
	if (!have_device) skip();
	for (int op = 0; op < CX_OP_COUNT; op++) {
		if (!is_run((cx_op)op)) continue;
		for (int layout = 0; layout <= CX_LAYOUT_BROADCAST; layout++)
			for (int f = 0; f < 3; f++)
				for (uint64_t seed = 1; seed <= 3; seed++) {
					cx_random_opts o = {.seed = seed * 100 + (uint64_t)(op * 7 + layout * 3 + f),
						.float_dtype = floats[f],
						.layout = layout,
						.zeros = seed == 2,
						.specials = seed == 3};
					snprintf(what, sizeof what, "%s %s seed %llu", layouts[layout],
						cx_dtype_get(floats[f])->name, (unsigned long long)o.seed);
					random_case((cx_op)op, &o, false, what);
				}
	}
}

static void test_table(void **state)
{
	int bad = 0;
	(void)state;
	if (!have_device) skip();
	printf("%-18s%10s\n", "op", "opencl");
	for (int op = 0; op < CX_OP_COUNT; op++) {
		const char *word;
		if (!is_run((cx_op)op)) continue;
		word = grid[op].fail ? "FAIL" : grid[op].none || grid[op].pass == 0 ? "none" : "pass";
		bad += strcmp(word, "pass") != 0;
		printf("%-18s%10s  %d\n", cx__ops[op].name, word, grid[op].pass);
	}
	if (bad) fail_msg("%d cells of the table are not pass", bad);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_grid),
		cmocka_unit_test(test_table),
	};
	return cmocka_run_group_tests(tests, open_devices, close_devices);
}

#else

int main(void)
{
	printf("no OpenCL headers when this was built: the backend is not tested\n");
	return 0;
}

#endif
