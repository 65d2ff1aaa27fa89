/* test_grad.c - gradients of every op: rules against central differences in double for every layout
 * of the operands, f32 and 16-bit runs against those, and the planned graphs of every backend
 * against the reference. A row of ops.def whose rule no case uses fails. */
#include "tests/grad_cases.h"
#include "tests/vulkan_env.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static bool covered[CX_OP_COUNT];

static void differences(const grad_row *rows, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++)
		for (int layout = 0; layout < GRAD_LAYOUTS; layout++)
			grad_check_differences(&rows[i], (grad_layout)layout, covered);
}

static void test_map(void **state)
{
	(void)state;
	differences(grad_map_rows, grad_n_map_rows);
}

static void test_rows(void **state)
{
	(void)state;
	differences(grad_row_rows, grad_n_row_rows);
}

static void test_move(void **state)
{
	(void)state;
	differences(grad_move_rows, grad_n_move_rows);
}

static void test_heavy(void **state)
{
	(void)state;
	differences(grad_heavy_rows, grad_n_heavy_rows);
}

static void narrow(const grad_row *rows, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++) {
		if (rows[i].f32_only) continue;
		grad_check_narrow(&rows[i], CX_BF16, 0.04);
		grad_check_narrow(&rows[i], CX_F16, 0.005);
	}
}

static void test_narrow(void **state)
{
	(void)state;
	narrow(grad_map_rows, grad_n_map_rows);
	narrow(grad_row_rows, grad_n_row_rows);
	narrow(grad_move_rows, grad_n_move_rows);
	narrow(grad_heavy_rows, grad_n_heavy_rows);
}

static void test_complete(void **state)
{
	int n = 0;
	(void)state;
	for (int i = 0; i < CX_OP_COUNT; i++) {
		if (!cx__ops[i].grad) continue;
		if (!covered[i]) fail_msg("the gradient of %s has no case", cx__ops[i].name);
		n++;
	}
	printf("# %d ops with a gradient, %u cases, %d layouts\n", n,
		grad_n_map_rows + grad_n_row_rows + grad_n_move_rows + grad_n_heavy_rows,
		(int)GRAD_LAYOUTS);
}

/* ---- devices --------------------------------------------------------------------------------- */

static void on_device(const char *backend, int n_layouts, int n_fuse)
{
	cx_runtime *rt;
	cx_device *devs[2];
	cx_err err = {0};
	assert_int_equal(cx_runtime_create(NULL, &rt, &err), CX_OK);
	if (cx_device_open(rt, backend, 0, &devs[0], &err) != CX_OK) {
		printf("# no %s device: %s\n", backend, err.msg);
		cx_runtime_free(rt);
		skip();
	}
	assert_int_equal(cx_device_open(rt, "ref", 0, &devs[1], &err), CX_OK);
	for (int layout = 0; layout < n_layouts; layout++)
		for (int no_fuse = 0; no_fuse < n_fuse; no_fuse++) {
			grad_check_device(grad_map_rows, grad_n_map_rows, rt, devs, 2, layout, no_fuse);
			grad_check_device(grad_row_rows, grad_n_row_rows, rt, devs, 2, layout, no_fuse);
			grad_check_device(grad_move_rows, grad_n_move_rows, rt, devs, 2, layout, no_fuse);
			grad_check_device(grad_heavy_rows, grad_n_heavy_rows, rt, devs, 2, layout, no_fuse);
		}
	cx_device_close(devs[1]);
	cx_device_close(devs[0]);
	cx_runtime_free(rt);
}

static void test_ref_planned(void **state)
{
	(void)state;
	on_device("ref", GRAD_LAYOUTS, 2);
}

static void test_cpu(void **state)
{
	(void)state;
	on_device("cpu", GRAD_LAYOUTS, 2);
}

static void test_opencl(void **state)
{
	(void)state;
	on_device("opencl", 1, 1);
}

static void test_vulkan(void **state)
{
	(void)state;
	vulkan_env();
	on_device("vulkan", 1, 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_map), cmocka_unit_test(test_rows),
		cmocka_unit_test(test_move), cmocka_unit_test(test_heavy), cmocka_unit_test(test_narrow),
		cmocka_unit_test(test_complete), cmocka_unit_test(test_ref_planned),
		cmocka_unit_test(test_cpu), cmocka_unit_test(test_opencl), cmocka_unit_test(test_vulkan)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
