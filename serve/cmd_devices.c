/* cmd_devices.c - `cortex devices`: every device of every backend, its limits, how fast it
 * copies; or why a backend
 * cannot be used here. */
#include "graph/backend.h"
#include "serve/command.h"

#include <getopt.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

static const char usage[] = "usage: cortex devices [--json] [--quick]\n\n"
							"lists every device of every backend with its limits and the bandwidth "
							"of a copy, or why the\nbackend cannot be used\n\n"
							"      --json   an array of objects\n"
							"      --quick  no bandwidth\n";

enum { COPY_ELEMS = 8 << 20, RUNS = 4, MAX_DEVICES = 16 };

static double now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Best of a few runs of the op copy, in GB/s read and written; 0: could not be measured. */
static double copy_gb_s(cx_runtime *rt, cx_device *dev)
{
	cx_plan_opts opts = {.devices = &dev, .n_devices = 1};
	cx_graph *g = NULL;
	cx_plan *plan = NULL;
	cx_store *store = NULL;
	cx_exec *x = NULL;
	float *data = cx_calloc(NULL, COPY_ELEMS, sizeof *data);
	double best = 0;
	int64_t n = COPY_ELEMS;
	if (!data || cx_graph_create(NULL, &g, NULL) != CX_OK) goto done;
	cx_output(g, "y", cx_copy(g, cx_input(g, "x", CX_F32, 1, &n)));
	if (cx_graph_finish(g, NULL) != CX_OK || cx_plan_build(g, &opts, &plan, NULL) != CX_OK)
		goto done;
	if (cx_store_create(rt, &store, NULL) != CX_OK) goto done;
	if (cx_exec_create(plan, store, &x, NULL) != CX_OK) goto done;
	if (cx_exec_set_input(x, 0, data, COPY_ELEMS * sizeof *data, NULL) != CX_OK) goto done;
	for (int i = 0; i < RUNS; i++) {
		double t = now();
		if (cx_exec_run(x, NULL) != CX_OK) break;
		t = 2.0 * COPY_ELEMS * sizeof *data / (now() - t) * 1e-9;
		if (i > 0 && t > best) best = t; /* the first one warms up */
	}
done:
	cx_exec_free(x);
	cx_store_free(store);
	cx_plan_free(plan);
	cx_graph_free(g);
	cx_free(NULL, data, COPY_ELEMS * sizeof *data);
	return best;
}

typedef struct listing {
	cx_runtime *rt;
	bool quick;
	json_t *all; /* NULL: text */
} listing;

static void list_device(const listing *l, cx_device *dev)
{
	cx_limits lim = {0};
	bool computes = strcmp(dev->backend->name, "null") != 0;
	double gb_s = l->quick || !computes ? 0 : copy_gb_s(l->rt, dev);
	dev->backend->limits(dev, &lim);
	if (l->all) {
		json_array_append_new(l->all,
			json_pack("{s:s, s:s, s:I, s:I, s:I, s:I, s:b, s:f, s:f}", "backend",
				dev->backend->name, "name", cx_device_name(dev), "alignment",
				(json_int_t)lim.alignment, "max_buffer",
				(json_int_t)(lim.max_buffer > INT64_MAX ? INT64_MAX : lim.max_buffer), "memory",
				(json_int_t)lim.max_bytes, "threads", (json_int_t)lim.n_threads, "maps_host",
				(int)lim.maps_host, "clock_ns", lim.clock_ns, "copy_gb_s", gb_s));
		return;
	}
	printf("%-8s %s; %u threads or units, slab alignment %llu B, %s", dev->backend->name,
		cx_device_name(dev), lim.n_threads, (unsigned long long)lim.alignment,
		lim.maps_host ? "reads host memory in place" : "has memory of its own");
	if (lim.max_bytes) printf(", %.1f GiB", (double)lim.max_bytes * 0x1p-30);
	if (lim.max_buffer < (uint64_t)1 << 60)
		printf(", buffers up to %.1f GiB", (double)lim.max_buffer * 0x1p-30);
	if (lim.clock_ns > 0) printf(", clock of %g ns", lim.clock_ns);
	if (gb_s > 0) printf(", copies %.1f GB/s", gb_s);
	if (!computes) printf(", computes nothing");
	printf("\n");
}

static void list_backend(const listing *l, const char *name)
{
	for (int i = 0; i < MAX_DEVICES; i++) {
		cx_device *dev = NULL;
		cx_err err = {0};
		if (cx_device_open(l->rt, name, i, &dev, &err) == CX_OK) {
			list_device(l, dev);
			cx_device_close(dev);
			continue;
		}
		if (i > 0) return; /* there are no more */
		if (l->all)
			json_array_append_new(
				l->all, json_pack("{s:s, s:s}", "backend", name, "error", err.msg));
		else printf("%-8s not usable: %s\n", name, err.msg);
		return;
	}
}

int cx__cmd_devices(int argc, char **argv)
{
	static const struct option options[] = {{"json", no_argument, NULL, 'j'},
		{"quick", no_argument, NULL, 'q'}, {"help", no_argument, NULL, 'h'}, {0}};
	const char *const *names = cx_backend_names();
	listing l = {0};
	cx_err err = {0};
	bool json = false;
	int opt;
	optind = 1;
	while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (opt == 'h') return fputs(usage, stdout) < 0;
		if (opt == '?') return 1;
		if (opt == 'j') json = true;
		else l.quick = true;
	}
	if (optind < argc) return cx__cmd_usage("devices", "'%.60s' is no option", argv[optind]);
	if (cx_runtime_create(NULL, &l.rt, &err) != CX_OK) return cx__cmd_fail("devices", &err);
	if (json) l.all = json_array();
	for (size_t i = 0; names[i]; i++) list_backend(&l, names[i]);
	if (json) {
		json_dumpf(l.all, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(4));
		printf("\n");
		json_decref(l.all);
	}
	cx_runtime_free(l.rt);
	return 0;
}
