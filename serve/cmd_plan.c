/* cmd_plan.c - `cortex plan`: how a graph in text form would run, and why. */
#include "serve/command.h"

#include <getopt.h>
#include <stdio.h>
#include <string.h>

static const char usage[] =
	"usage: cortex plan GRAPH.cxg [OPTIONS]\n"
	"\n"
	"  --backend B        cpu, ref, ...; default: the best there is\n"
	"  --no-fuse          every node is a step of its own\n" CX_FALLBACK_USAGE
	"  --print            print the graph itself, normalised, instead of the plan\n";

typedef struct plan_args {
	const char *backend;
	bool no_fuse, fallback, print;
} plan_args;

static cx_status show(const cx_graph *g, const plan_args *a, cx_err *err)
{
	cx_host host = {0};
	cx_plan *plan = NULL;
	char *text = NULL;
	size_t bytes = 0;
	cx_status st;
	if (a->print) {
		st = cx_graph_print(g, NULL, &text, &bytes, err);
	} else if ((st = cx__host_open(a->backend, &host, err)) == CX_OK &&
			   (!a->fallback || (st = cx__host_fallback(&host, err)) == CX_OK)) {
		cx_plan_opts opts = cx__host_plan_opts(&host);
		opts.no_fuse = a->no_fuse;
		opts.verify = true;
		if ((st = cx_plan_build(g, &opts, &plan, err)) == CX_OK)
			st = cx_plan_explain(plan, NULL, &text, &bytes, err);
		cx__host_advise(&host, st, err);
	}
	if (st == CX_OK) fputs(text, stdout);
	if (plan && st == CX_OK) cx__host_report(&host, plan, stdout);
	cx_free(NULL, text, bytes + 1);
	cx_plan_free(plan);
	cx__host_close(&host);
	return st;
}

int cx__cmd_plan(int argc, char **argv)
{
	static const struct option options[] = {{"backend", required_argument, NULL, 'b'},
		{"no-fuse", no_argument, NULL, 'n'}, {"allow-fallback", no_argument, NULL, 'a'},
		{"print", no_argument, NULL, 'p'}, {"help", no_argument, NULL, 'h'}, {0}};
	plan_args a = {0};
	cx_graph *g = NULL;
	cx_err err = {0};
	cx_status st;
	int opt;
	optind = 1;
	while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (opt == 'h') return fputs(usage, stdout) < 0;
		if (opt == '?') return 1;
		if (opt == 'b') a.backend = optarg;
		if (opt == 'n') a.no_fuse = true;
		if (opt == 'a') a.fallback = true;
		if (opt == 'p') a.print = true;
	}
	if (optind + 1 != argc) return cx__cmd_usage("plan", "one graph file is wanted");
	if ((st = cx__graph_read(argv[optind], &g, &err)) == CX_OK) st = show(g, &a, &err);
	cx_graph_free(g);
	return st == CX_OK ? 0 : cx__cmd_fail("plan", &err);
}
