/* cmd_pack.c - cortex pack: packs the buffers of a CSV file (id,lower,upper,size) into as few bytes
 * as possible, or into a given number of bytes, and says how good the packing is. */
#include "graph/pack.h"
#include "models/files/csv.h"
#include "models/files/out.h"
#include "serve/command.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef struct pack_args {
	const char *in, *out;
	uint64_t capacity, budget_ms, nodes;
	bool json, help;
} pack_args;

enum { COL_ID, COL_LOWER, COL_UPPER, COL_SIZE, N_COLS };

static void print_help(void)
{
	printf(
		"usage: cortex pack FILE.csv [--capacity N] [--budget MS] [--nodes N] [-o OUT.csv] "
		"[--json]\n"
		"\n"
		"FILE.csv has the columns id,lower,upper,size: a buffer of `size` bytes is alive at lower "
		"<= t < upper.\n"
		"Gives every buffer an offset so that no two that are alive at once share a byte.\n"
		"\n"
		"  --capacity N  stop at the first packing into N bytes; exit code 1 if none was found\n"
		"                (default: minimise the highest byte used)\n"
		"  --budget MS   time to search, in milliseconds (default 5000; 0: greedy packing only)\n"
		"  --nodes N     search at most N steps (a step is about a microsecond); with --budget 0 "
		"the result does not depend on the "
		"machine\n"
		"  -o OUT.csv    write the buffers with a further column, offset\n"
		"  --json        print the figures as one JSON object\n");
}

static bool parse_u64(const char *text, uint64_t *out)
{
	char *end;
	errno = 0;
	*out = strtoull(text, &end, 10);
	return text[0] >= '0' && text[0] <= '9' && !*end && !errno;
}

/* 0, or the exit code. */
static int parse_args(int argc, char **argv, pack_args *a)
{
	*a = (pack_args){.budget_ms = 5000};
	for (int i = 1; i < argc; i++) {
		const char *arg = argv[i];
		uint64_t *number = !strcmp(arg, "--capacity") ? &a->capacity
						   : !strcmp(arg, "--budget") ? &a->budget_ms
						   : !strcmp(arg, "--nodes")  ? &a->nodes
													  : NULL;
		if (!strcmp(arg, "--help") || !strcmp(arg, "-h")) {
			a->help = true;
			return 0;
		}
		if (number || !strcmp(arg, "-o")) {
			if (i + 1 == argc) return cx__cmd_usage("pack", "%s needs a value", arg);
			i++;
			if (!number) a->out = argv[i];
			else if (!parse_u64(argv[i], number) || *number > UINT64_MAX / 1000)
				return cx__cmd_usage(
					"pack", "%s is '%.40s', which is not a number that makes sense", arg, argv[i]);
			if (number == &a->capacity && !*number)
				return cx__cmd_usage("pack", "--capacity must be above 0");
		} else if (!strcmp(arg, "--json")) {
			a->json = true;
		} else if (arg[0] == '-' && arg[1]) {
			return cx__cmd_usage("pack", "there is no option '%.40s'", arg);
		} else if (a->in) {
			return cx__cmd_usage(
				"pack", "one file at a time: '%.60s' and '%.60s' given", a->in, arg);
		} else {
			a->in = arg;
		}
	}
	return a->in ? 0 : cx__cmd_usage("pack", "name a CSV file");
}

static cx_status read_items(const char *path, cx_pack_item **out, size_t *n_out, cx_err *err)
{
	cx_csv_col cols[N_COLS] = {
		{"id", CX_CSV_I64}, {"lower", CX_CSV_I64}, {"upper", CX_CSV_I64}, {"size", CX_CSV_I64}};
	cx_pack_item *items = NULL;
	size_t n = 0;
	cx_status st;
	if ((st = cx_csv_read(NULL, path, cols, N_COLS, &n, err)) != CX_OK) return st;
	if (!(items = cx_calloc(NULL, n, sizeof *items)))
		st = CX_FAIL(err, CX_ERR_MEMORY, "%s: no memory for %zu rows", path, n);
	for (size_t i = 0; st == CX_OK && i < n; i++) {
		if (cols[COL_SIZE].i64[i] < 0)
			st = CX_FAIL(err, CX_ERR_FORMAT, "%s: buffer %" PRId64 " has size %" PRId64, path,
				cols[COL_ID].i64[i], cols[COL_SIZE].i64[i]);
		items[i] = (cx_pack_item){.id = cols[COL_ID].i64[i],
			.lower = cols[COL_LOWER].i64[i],
			.upper = cols[COL_UPPER].i64[i],
			.size = (uint64_t)cols[COL_SIZE].i64[i]};
	}
	cx_csv_free(NULL, cols, N_COLS, n);
	if (st != CX_OK) {
		cx_free(NULL, items, n * sizeof *items);
		return st;
	}
	*out = items;
	*n_out = n;
	return CX_OK;
}

static cx_status write_items(const char *path, const cx_pack_item *items, size_t n, cx_err *err)
{
	static const char header[] = "id,lower,upper,size,offset\n";
	cx_file_out *o;
	char line[160];
	cx_status st;
	if ((st = cx_file_out_open(NULL, path, &o, err)) != CX_OK) return st;
	st = cx_file_out_write(o, header, sizeof header - 1, err);
	for (size_t i = 0; st == CX_OK && i < n; i++) {
		int len = snprintf(line, sizeof line,
			"%" PRId64 ",%" PRId64 ",%" PRId64 ",%" PRIu64 ",%" PRIu64 "\n", items[i].id,
			items[i].lower, items[i].upper, items[i].size, items[i].offset);
		st = cx_file_out_write(o, line, (size_t)len, err);
	}
	if (st == CX_OK) return cx_file_out_commit(o, err);
	cx_file_out_discard(o);
	return st;
}

static void print_result(const pack_args *a, size_t n, const cx_pack_result *r, double ms)
{
	double ratio = r->bound ? (double)r->peak / (double)r->bound : 1.0;
	if (a->json) {
		printf("{\"buffers\": %zu, \"peak\": %" PRIu64 ", \"bound\": %" PRIu64
			   ", \"ratio\": %.6f, \"capacity\": %" PRIu64
			   ", \"fits\": %s, \"optimal\": %s, \"impossible\": %s"
			   ", \"ms\": %.3f, \"best_ms\": %.3f, \"steps\": %" PRIu64 "}\n",
			n, r->peak, r->bound, ratio, a->capacity, r->fits ? "true" : "false",
			r->optimal ? "true" : "false", r->impossible ? "true" : "false", ms,
			(double)r->best_us / 1e3, r->n_nodes);
		return;
	}
	printf("buffers         %zu\n"
		   "peak            %" PRIu64 "\n"
		   "liveness bound  %" PRIu64 "\n"
		   "ratio           %.4f\n"
		   "optimal         %s\n"
		   "time            %.1f ms, best packing after %.1f ms, %" PRIu64 " search steps\n",
		n, r->peak, r->bound, ratio, r->optimal ? "yes, proven" : "not proven", ms,
		(double)r->best_us / 1e3, r->n_nodes);
	if (a->capacity)
		printf("capacity        %" PRIu64 ": %s\n", a->capacity, r->fits ? "fits" : "does not fit");
}

static double now_ms(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

int cx__cmd_pack(int argc, char **argv)
{
	pack_args a;
	cx_err err = {0};
	cx_pack_item *items = NULL;
	cx_pack_result res = {0};
	cx_pack_opts opts;
	size_t n = 0;
	double start;
	int code = parse_args(argc, argv, &a);
	if (code) return code;
	if (a.help) {
		print_help();
		return 0;
	}
	if (read_items(a.in, &items, &n, &err) != CX_OK) return cx__cmd_fail("pack", &err);
	opts = (cx_pack_opts){
		.capacity = a.capacity, .max_nodes = a.nodes, .budget_us = a.budget_ms * 1000};
	start = now_ms();
	code = 1;
	if (cx_pack(NULL, items, n, &opts, &res, &err) != CX_OK) {
		cx__err_in(a.in, &err);
		goto fail;
	}
	start = now_ms() - start;
	/* never print a packing that was not checked by other means */
	if (cx_pack_check(NULL, items, n, res.peak, &err) != CX_OK) goto fail;
	if (a.out && write_items(a.out, items, n, &err) != CX_OK) goto fail;
	print_result(&a, n, &res, start);
	code = res.fits ? 0 : 1;
	if (!res.fits) {
		CX_FAIL(&err, CX_ERR_ARGUMENT,
			"%s: %s into %" PRIu64 " bytes; the best found takes %" PRIu64, a.in,
			res.impossible ? "no packing exists" : "no packing was found in time", a.capacity,
			res.peak);
		goto fail;
	}
	cx_free(NULL, items, n * sizeof *items);
	return code;
fail:
	cx_free(NULL, items, n * sizeof *items);
	return cx__cmd_fail("pack", &err);
}
