/* test_vulkan.c - the whole op grid on the vulkan backend at three subgroup sizes, under the
 * Khronos validation layer with its synchronization checks; every message is an error.
 *
 * The driver is lavapipe unless VK_DRIVER_FILES says otherwise, and its vector width decides the
 * subgroup size, so the grid's own program, test_grid, runs once per width: LP_NATIVE_VECTOR_WIDTH
 * 128, 256, 512 are subgroups of 4, 8, 16. tests/test_vulkan_run.c: plans, models, errors. */
#include "tests/vulkan_env.h"

#include <libgen.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static char grid[4096]; /* the program test_grid */

static void run_width(const char *width)
{
	cx_runtime *rt;
	cx_device *dev;
	char line[512];
	FILE *out;
	int pipes[2], status = -1;
	pid_t pid;
	if (!vulkan_open(1, &rt, &dev)) skip();
	cx_device_close(dev);
	cx_runtime_free(rt);
	fflush(NULL);
	assert_int_equal(pipe(pipes), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		setenv("LP_NATIVE_VECTOR_WIDTH", width, 1);
		setenv("CX_GRID_BACKENDS", "vulkan", 1);
		setenv("CX_GRID_VALIDATE", "1", 1);
		dup2(pipes[1], STDOUT_FILENO);
		dup2(pipes[1], STDERR_FILENO);
		close(pipes[0]);
		close(pipes[1]);
		execl(grid, grid, (char *)NULL);
		_exit(127);
	}
	close(pipes[1]);
	out = fdopen(pipes[0], "r");
	assert_non_null(out);
	while (fgets(line, sizeof line, out)) /* all but what cmocka says there, and the table */
		if (line[0] == '#' || strstr(line, "FAIL") || strncmp(line, "  ", 2) == 0)
			fputs(line, stdout);
	fclose(out);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
		fail_msg("the grid at width %s failed (status %d)", width, status);
}

static void __attribute__((unused)) test_128(void **state)
{
	(void)state;
	run_width("128");
}
static void test_256(void **state)
{
	(void)state;
	run_width("256");
}
static void __attribute__((unused)) test_512(void **state)
{
	(void)state;
	run_width("512");
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
	char self[sizeof grid - 16];
	(void)argc;
	snprintf(self, sizeof self, "%s", argv[0]);
	snprintf(grid, sizeof grid, "%s/test_grid", dirname(self));
	vulkan_env();
	return cmocka_run_group_tests_name("vulkan", tests, NULL, NULL);
}
