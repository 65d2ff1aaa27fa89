/* test_vulkan.c - a sample of every op and dtype on the vulkan backend at three subgroup sizes,
 * under the Khronos validation layer with its synchronization checks; every message is an error.
 * Prints a table of pass, none, FAIL. tests/test_grid.c has all cases, at one width and without
 * the layer.
 *
 * The driver is lavapipe unless VK_DRIVER_FILES says otherwise, and its vector width decides the
 * subgroup size, so the program runs itself once per width (LP_NATIVE_VECTOR_WIDTH 128, 256,
 * 512: subgroups of 4, 8, 16). CORTEX_FILTER=name limits the ops, for work on one of them.
 * tests/test_vulkan_run.c: plans, models, errors. */
#include "tests/cpu_run.h"
#include "tests/random_graph.h"
#include "tests/vulkan_env.h"

#include "backends/vulkan/vk.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

typedef struct tally {
	int pass, none, fail;
} tally;
static tally grid[CX_OP_COUNT];
static int n_messages, n_cases;
static cx_runtime *rt;
static cx_device *dev;
static bool sample; /* one dtype for each layout */

static int open_device(void **state)
{
	(void)state;
	return vulkan_open(1, &rt, &dev) ? 0 : -1;
}

static int close_device(void **state)
{
	(void)state;
	cx_device_close(dev);
	cx_runtime_free(rt);
	return 0;
}

static void report(cx_op op, const char *what, const char *fmt, ...) CX_PRINTF(3, 4);
static void report(cx_op op, const char *what, const char *fmt, ...)
{
	va_list ap;
	grid[op].fail++;
	if (n_messages++ >= 40) return;
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
	const cx_node *n = &v->g->nodes[id];
	for (uint32_t o = 0; o < r->n_out; o++) {
		const cx_desc *d = &v->g->nodes[id + o].desc;
		double e = step_nmse(d->dtype, v->value[id + o], r->out[o], cx__desc_elems(d));
		if (e <= tolerance((cx_op)n->op, d->dtype)) continue;
		report((cx_op)n->op, what, "%s, output %u %s: nmse %g", r->kernel->name, o,
			cx_dtype_get(d->dtype)->name, e);
		return false;
	}
	return true;
}

/* As it is, and once more in place of each operand where the kernel says that it can. */
static void check_node(const step_values *v, uint32_t id, const char *what)
{
	cx_op op = (cx_op)v->g->nodes[id].op;
	uint32_t seen = ((cx_vk_device *)dev)->n_messages;
	step_result r;
	bool ok;
	n_cases++;
	step_run(dev, v, id, -1, 0, &r);
	if (!r.kernel) {
		grid[op].none++;
		if (n_messages++ < 40) printf("none %s, %s\n", cx__ops[op].name, what);
		return;
	}
	ok = near_reference(v, id, &r, what);
	for (int j = 0; j < (int)v->g->nodes[id].n_in && ok; j++) {
		step_result in_place = {0};
		if (!(r.kernel->inplace >> j & 1)) continue;
		step_run(dev, v, id, j, STEP_DENSE, &in_place);
		if (in_place.kernel) ok = near_reference(v, id, &in_place, "in place");
		step_result_free(&in_place);
	}
	if (((cx_vk_device *)dev)->n_messages != seen) {
		report(op, what, "the validation layer complains");
		ok = false;
	}
	grid[op].pass += ok;
	step_result_free(&r);
}

static void fill_random(void *ctx, uint32_t id, void *buf, uint64_t bytes)
{
	assert_int_equal(cx__random_fill(ctx, id, buf, bytes), CX_OK);
}

static void random_case(cx_op op, const cx_random_opts *o, const char *what)
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
		check_node(&v, id, what);
		step_values_free(&v);
	}
	cx__random_graph_free(rg);
}

static bool is_run(cx_op op)
{
	const char *only = getenv("CORTEX_FILTER");
	if (only && !strstr(cx__ops[op].name, only)) return false;
	return cx__ops[op].kind != CX_KIND_LEAF && cx__ops[op].kind != CX_KIND_META;
}

static void test_grid(void **state)
{
	static const cx_dtype floats[] = {CX_F32, CX_F16, CX_BF16};
	static const char *const layouts[] = {"any", "dense", "strided", "broadcast"};
	char what[96];
	(void)state;
	for (int op = 0; op < CX_OP_COUNT; op++) {
		double t0 = vulkan_seconds();
		if (!is_run((cx_op)op)) continue;
		for (int layout = 0; layout <= CX_LAYOUT_BROADCAST; layout++)
			for (int f = 0; f < 3; f++) {
				cx_random_opts o = {.seed = 100 + (uint64_t)(op * 7 + layout * 3 + f),
					.float_dtype = floats[f],
					.layout = layout,
					.zeros = (layout + 1) % 3 == 0,
					.specials = (f + 1) % 3 == 0};
				if (sample && layout != (op + f) % 4) continue;
				snprintf(what, sizeof what, "%s %s seed %llu", layouts[layout],
					cx_dtype_get(floats[f])->name, (unsigned long long)o.seed);
				random_case((cx_op)op, &o, what);
			}
		if (vulkan_seconds() - t0 > 3)
			printf("%s took %.1f s\n", cx__ops[op].name, vulkan_seconds() - t0);
	}
}

static void test_table(void **state)
{
	int bad = 0;
	(void)state;
	printf("%-18s %6s %6s %6s\n", "op", "pass", "none", "FAIL");
	for (int op = 0; op < CX_OP_COUNT; op++) {
		const tally *t = &grid[op];
		if (!is_run((cx_op)op)) continue;
		bad += t->fail || t->none || t->pass == 0;
		printf("%-18s %6d %6d %6d\n", cx__ops[op].name, t->pass, t->none, t->fail);
	}
	printf("# vulkan: %d cases, subgroups of %u, %u validation messages\n", n_cases,
		((cx_vk_device *)dev)->subgroup_size, ((cx_vk_device *)dev)->n_messages);
	if (bad) fail_msg("%d rows of the table are not pass", bad);
}

static int child(const char *width)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_grid), cmocka_unit_test(test_table)};
	sample = strcmp(width, "256") != 0;
	return cmocka_run_group_tests_name("grid", tests, open_device, close_device);
}

static const char *program;
static void __attribute__((unused)) test_128(void **state)
{
	(void)state;
	vulkan_child(program, "128");
}
static void test_256(void **state)
{
	(void)state;
	vulkan_child(program, "256");
}
static void __attribute__((unused)) test_512(void **state)
{
	(void)state;
	vulkan_child(program, "512");
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_256),
#if !defined(__SANITIZE_ADDRESS__) /* looks at host code, which the width does not change */
		cmocka_unit_test(test_128),
		cmocka_unit_test(test_512),
#endif
	};
	program = argv[0];
	vulkan_env();
	if (argc == 2) return child(argv[1]);
	return cmocka_run_group_tests_name("vulkan", tests, NULL, NULL);
}
