/* cmd_devices.c - `cortex devices`: what there is to run on. */
#include "graph/backend.h"
#include "serve/command.h"

#include <getopt.h>
#include <stdio.h>
#include <string.h>

static const char usage[] =
	"usage: cortex devices [--json]\n\nlists the first device of every backend, or why it "
	"cannot be used\n";

static void print_one(
	const char *backend, const cx_device *dev, const cx_err *err, bool json, bool first)
{
	cx_limits limits = {0};
	if (dev) dev->backend->limits(dev, &limits);
	if (json) {
		printf("%s{\"backend\": \"%s\", ", first ? "" : ", ", backend);
		if (dev)
			printf("\"name\": \"%s\", \"alignment\": %llu, \"max_buffer\": %llu, \"threads\": %u, "
				   "\"maps_host\": %s}",
				cx_device_name(dev), (unsigned long long)limits.alignment,
				(unsigned long long)limits.max_buffer, limits.n_threads,
				limits.maps_host ? "true" : "false");
		else printf("\"error\": \"%s\"}", err->msg);
	} else if (dev) {
		printf("%-8s %s; %u threads, slab alignment %llu B, %s\n", backend, cx_device_name(dev),
			limits.n_threads, (unsigned long long)limits.alignment,
			limits.maps_host ? "reads host memory in place" : "has memory of its own");
	} else {
		printf("%-8s not usable: %s\n", backend, err->msg);
	}
}

int cx__cmd_devices(int argc, char **argv)
{
	static const struct option options[] = {
		{"json", no_argument, NULL, 'j'}, {"help", no_argument, NULL, 'h'}, {0}};
	const char *const *names = cx_backend_names();
	bool json = false;
	cx_runtime *rt = NULL;
	cx_err err = {0};
	int opt;
	optind = 1;
	while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (opt == 'h') return fputs(usage, stdout) < 0;
		if (opt == '?') return 1;
		json = true;
	}
	if (optind < argc) return cx__cmd_usage("devices", "'%.60s' is no option", argv[optind]);
	if (cx_runtime_create(NULL, &rt, &err) != CX_OK) return cx__cmd_fail("devices", &err);
	if (json) printf("[");
	for (size_t i = 0; names[i]; i++) {
		cx_device *dev = NULL;
		cx_err why = {0};
		cx_device_open(rt, names[i], 0, &dev, &why);
		print_one(names[i], dev, &why, json, i == 0);
		cx_device_close(dev);
	}
	if (json) printf("]\n");
	cx_runtime_free(rt);
	return 0;
}
