/* test_cpu_plan.c - random graphs planned for the cpu backend, fused and not, against the unplanned
 * reference: every output and state, twice in a row with the same bits. CORTEX_CPU_GRAPHS and
 * CORTEX_CPU_SEED change how many and which. */
#include "tests/harness.h"

#include "backends/cpu/cpu.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static uint64_t number_from(const char *name, uint64_t fallback)
{
	const char *s = getenv(name);
	return s ? strtoull(s, NULL, 10) : fallback;
}

static void check_one(cx_runtime *rt, cx_device *dev, uint64_t seed, uint32_t *n_steps)
{
	cx_random_opts o = {.seed = seed,
		.n_nodes = 4 + (uint32_t)(seed % 40),
		.smooth = true,
		.zeros = seed % 8 == 0,
		.f32_only = seed % 2 == 0,
		.fused = seed % 5 == 0};
	cx_random_graph *rg = NULL;
	cx_values want = {0};
	cx_err err = {0};
	if (cx__random_graph(&o, NULL, &rg, &err) != CX_OK)
		fail_msg("seed %llu: %s", (unsigned long long)seed, err.msg);
	if (cx__harness_reference(rg, NULL, &want, &err) != CX_OK)
		fail_msg("seed %llu: %s", (unsigned long long)seed, err.msg);
	for (int no_fuse = 0; no_fuse < 2; no_fuse++) {
		cx_plan_check c = {.devices = &dev,
			.n_devices = 1,
			.no_fuse = no_fuse,
			.floor = 1e-2 /* sums that cancel: rows after a layernorm, say */};
		cx_plan_stats stats = {0};
		if (cx__harness_plan(rt, rg, &want, &c, &stats, &err) != CX_OK) {
			char *text = NULL;
			size_t n = 0;
			if (cx_graph_print(rg->g, NULL, &text, &n, NULL) == CX_OK)
				fprintf(stderr, "%s\n", text);
			fail_msg("seed %llu, fusion %d: %s", (unsigned long long)seed, !no_fuse, err.msg);
		}
		*n_steps += stats.n_steps;
	}
	cx__values_free(&want);
	cx__random_graph_free(rg);
}

static void test_graphs(void **state)
{
	uint64_t n = number_from("CORTEX_CPU_GRAPHS", 1500), first = number_from("CORTEX_CPU_SEED", 1);
	(void)state;
	for (int wide = 0; wide < 2;
		 wide++) { /* as it comes, and with every step shared by three threads */
		cx_config cfg = {.n_threads = wide ? 3 : 0};
		cx_runtime *rt;
		cx_device *dev;
		uint32_t n_steps = 0;
		assert_int_equal(cx_runtime_create(&cfg, &rt, NULL), CX_OK);
		assert_int_equal(cx_device_open(rt, "cpu", 0, &dev, NULL), CX_OK);
		if (wide) ((cx_cpu_device *)dev)->share_ns = 0;
		for (uint64_t i = 0; i < (wide ? n / 5 : n); i++) check_one(rt, dev, first + i, &n_steps);
		printf("%s: %u steps\n", cx_device_name(dev), n_steps);
		cx_device_close(dev);
		cx_runtime_free(rt);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_graphs)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
