/* vulkan_env.c - see vulkan_env.h. */
#include "tests/vulkan_env.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

void vulkan_env(void)
{
	setenv("VK_DRIVER_FILES", "/usr/share/vulkan/icd.d/lvp_icd.x86_64.json", 0);
	setenv("VK_ICD_FILENAMES", "/usr/share/vulkan/icd.d/lvp_icd.x86_64.json", 0);
	setenv("XDG_RUNTIME_DIR", "/tmp", 0);
}

double vulkan_seconds(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void on_log(void *ctx, cx_log_level level, const char *where, const char *msg)
{
	int *n = ctx;
	if (level >= CX_LOG_WARN && (*n)++ < 20) printf("%s: %.500s\n", where, msg);
}

bool vulkan_open(int validate, cx_runtime **rt, cx_device **dev)
{
	static int n_printed;
	cx_config cfg = {.log = on_log, .log_ctx = &n_printed, .validate = validate};
	cx_err err = {0};
	*rt = NULL;
	*dev = NULL;
	if (cx_runtime_create(&cfg, rt, &err) == CX_OK &&
		cx_device_open(*rt, "vulkan", 0, dev, &err) == CX_OK)
		return true;
	printf("# skipped: %s\n", err.msg);
	cx_runtime_free(*rt);
	*rt = NULL;
	return false;
}
