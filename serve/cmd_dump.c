/* cmd_dump.c - `cortex dump`: a graph at any stage of planning, as text, JSON, Graphviz or a page.
 */
#include "graph/dump.h"
#include "models/files/out.h"
#include "serve/profile.h"
#include "serve/subject.h"

#include <getopt.h>
#include <stdio.h>
#include <string.h>

static const char usage[] =
	"usage: cortex dump (-m MODEL | --graph FILE.cxg) [OPTIONS]\n"
	"\n" CX_SUBJECT_USAGE
	"  --stage S          built, simplified, placed, fused, scheduled, planned (default)\n"
	"  --format F         text (default): a graph that cortex reads again; json: as\n"
	"                     docs/DUMP_JSON.md says; dot: for Graphviz; html: one page to look at\n"
	"  --profile          with times: runs the plan, 20 times (json, dot, html; stage planned)\n"
	"  -o, --out FILE     instead of standard output\n";

/* serve/dump.html, cut where the data goes; made by serve/embed.awk. */
extern const char *const cx__dump_html[2];

typedef struct dump_args {
	cx_subject_opts subject;
	cx_stage stage;
	cx_dump_format format;
	bool html, profile;
	const char *out;
} dump_args;

static cx_status write_file(
	const char *path, const char *const *part, const size_t *n, size_t n_parts, cx_err *err)
{
	cx_file_out *o = NULL;
	cx_status st = cx_file_out_open(NULL, path, &o, err);
	for (size_t i = 0; i < n_parts && st == CX_OK; i++)
		st = cx_file_out_write(o, part[i], n[i], err);
	if (st == CX_OK) return cx_file_out_commit(o, err);
	cx_file_out_discard(o);
	return st;
}

static cx_status write_out(const dump_args *a, const char *text, size_t n, cx_err *err)
{
	const char *const part[3] = {cx__dump_html[0], text, cx__dump_html[1]};
	const size_t size[3] = {strlen(part[0]), n, strlen(part[2])};
	size_t first = a->html ? 0 : 1, n_parts = a->html ? 3 : 1;
	if (a->out) return write_file(a->out, part + first, size + first, n_parts, err);
	for (size_t i = first; i < first + n_parts; i++) fwrite(part[i], 1, size[i], stdout);
	return CX_OK;
}

static cx_status dump(const dump_args *a, cx_subject *s, cx_err *err)
{
	cx_plan *plan = NULL;
	cx_exec *x = NULL;
	cx_profile profile = {0};
	char *text = NULL;
	size_t n = 0;
	cx_status st;
	if ((st = cx__subject_plan(s, &a->subject, a->stage, &plan, err)) != CX_OK) return st;
	if (a->profile && (st = cx__subject_exec(s, plan, &x, err)) == CX_OK)
		st = cx__profile_run(plan, x, 20, &profile, err);
	if (st == CX_OK) st = cx__plan_dump(plan, a->format, profile.seconds, NULL, &text, &n, err);
	if (st == CX_OK) st = write_out(a, text, n, err);
	cx_free(NULL, text, n + 1);
	cx__profile_free(&profile);
	cx_exec_free(x);
	cx_plan_free(plan);
	return cx__host_advise(&s->host, st, err);
}

static bool set_stage(dump_args *a, const char *name)
{
	static const char *const names[CX_STAGE_COUNT] = {
#define X(name, n_passes, doc) #name,
		CX_STAGES(X)
#undef X
	};
	for (int i = 0; i < CX_STAGE_COUNT; i++) {
		if (strcmp(names[i], name) != 0) continue;
		a->stage = (cx_stage)i;
		return true;
	}
	cx__cmd_usage("dump",
		"--stage '%.40s' is none of built, simplified, placed, fused, scheduled, "
		"planned",
		name);
	return false;
}

static bool set_format(dump_args *a, const char *name)
{
	a->html = strcmp(name, "html") == 0;
	if (a->html || strcmp(name, "json") == 0) a->format = CX_DUMP_json;
	else if (strcmp(name, "text") == 0) a->format = CX_DUMP_text;
	else if (strcmp(name, "dot") == 0) a->format = CX_DUMP_dot;
	else
		return cx__cmd_usage("dump", "--format '%.40s' is none of text, json, dot, html", name) < 0;
	return true;
}

int cx__cmd_dump(int argc, char **argv)
{
	static const struct option options[] = {CX_SUBJECT_OPTIONS,
		{"stage", required_argument, NULL, 'S'}, {"format", required_argument, NULL, 'f'},
		{"profile", no_argument, NULL, 'P'}, {"out", required_argument, NULL, 'o'},
		{"help", no_argument, NULL, 'h'}, {0}};
	dump_args a = {.stage = CX_STAGE_planned, .format = CX_DUMP_text, .subject = {.seed = 1}};
	cx_subject s = {0};
	cx_err err = {0};
	cx_status st;
	int opt;
	optind = 1;
	while ((opt = getopt_long(argc, argv, "m:o:h", options, NULL)) != -1) {
		int taken = cx__subject_option(&a.subject, "dump", opt, optarg);
		if (opt == 'h') return fputs(usage, stdout) < 0;
		if (opt == '?' || taken < 0) return 1;
		if (opt == 'S' && !set_stage(&a, optarg)) return 1;
		if (opt == 'f' && !set_format(&a, optarg)) return 1;
		if (opt == 'P') a.profile = true;
		if (opt == 'o') a.out = optarg;
	}
	if (optind < argc) return cx__cmd_usage("dump", "'%.60s' is no option", argv[optind]);
	if (a.profile && a.stage != CX_STAGE_planned)
		return cx__cmd_usage("dump", "--profile runs the plan: it needs --stage planned");
	if (a.profile && a.format == CX_DUMP_text)
		return cx__cmd_usage("dump", "--profile has no place in text: json, dot and html show it");
	if ((st = cx__subject_open(&a.subject, &s, &err)) == CX_OK) st = dump(&a, &s, &err);
	cx__subject_close(&s);
	return st == CX_OK ? 0 : cx__cmd_fail("dump", &err);
}
