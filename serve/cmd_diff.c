/* cmd_diff.c - `cortex diff`: one graph on several backends, and the first node where one parts
 * from the reference. */
#include "graph/diff.h"
#include "graph/plan.h"
#include "models/files/out.h"
#include "serve/command.h"
#include "serve/diff_leaves.h"

#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char usage[] =
	"usage: cortex diff --backends B[,B...] (-m MODEL | --graph FILE.cxg) [OPTIONS]\n"
	"\n"
	"Runs every node on every backend, fed with the reference's values, then every fused step,\n"
	"then the whole graph, and compares with the reference (backend `ref`, which is always it).\n"
	"\n"
	"  --backends B,..  ref,cpu,vulkan,opencl; `ref` by itself checks the planner on it\n"
	"  -m MODEL         a language model, as for `cortex run`; or a decoder: xs, s, m, nano\n"
	"                   or a checkpoint\n"
	"  --graph FILE     a graph in text form\n"
	"  --prompt TEXT    the model's input; default: 8 tokens from the seed\n"
	"  --inputs DIR     NPY files named after inputs, weights and states: DIR/x.npy\n"
	"  --seed N         for what no file, model or graph gives; default 1\n"
	"  --tol SCALE      multiplies every tolerance; default 1\n"
	"  --reduce OUT     write the smallest graph that still fails, with its operands\n"
	"  --json           one JSON object instead of the table\n"
	"  --top N          rows of the table, the worst first; default 20\n"
	"  --allow-fallback  in whole runs, what a backend has no kernel for runs on the cpu; it is\n"
	"                   listed, and is no failure\n"
	"\n"
	"Exit code 1: something is out of tolerance, refused or could not run.\n";

enum { MAX_BACKENDS = 16 };
typedef struct diff_args {
	const char *backends, *reduce;
	cx_leaves_args leaves;
	double tol;
	unsigned long long top;
	bool json, fallback;
} diff_args;

typedef struct diff_cmd {
	diff_args a;
	cx_host host[MAX_BACKENDS];
	char name[MAX_BACKENDS][40];
	cx_device *dev[MAX_BACKENDS], *other[MAX_BACKENDS];
	uint32_t n;
	cx_leaves leaves;
	cx_diff *d;
	const cx_diff_row **order; /* worst first */
} diff_cmd;

static const char *const looks[] = {"node", "fused", "whole"};

static cx_status open_backends(diff_cmd *c, cx_err *err)
{
	const char *s = c->a.backends;
	bool others = false;
	while (*s) {
		size_t n = strcspn(s, ",");
		if (c->n == MAX_BACKENDS)
			return CX_FAIL(
				err, CX_ERR_ARGUMENT, "--backends has more than %d names", (int)MAX_BACKENDS);
		if (n == 0 || n >= sizeof c->name[0])
			return CX_FAIL(err, CX_ERR_ARGUMENT, "--backends '%.60s' is no list of backends", s);
		memcpy(c->name[c->n], s, n);
		c->name[c->n++][n] = 0;
		s += n + (s[n] == ',');
	}
	for (uint32_t i = 0; i < c->n; i++) others |= strcmp(c->name[i], "ref") != 0;
	for (uint32_t i = 0; others && i < c->n; i++) {
		if (strcmp(c->name[i], "ref") != 0) continue;
		memmove(c->name[i], c->name[i + 1], (c->n - i - 1) * sizeof c->name[0]);
		c->n--;
		i--;
	}
	for (uint32_t i = 0; i < c->n; i++) {
		cx_status st = cx__host_open(c->name[i], &c->host[i], err);
		if (st == CX_OK && c->a.fallback) st = cx__host_fallback(&c->host[i], err);
		if (st != CX_OK) return st;
		c->dev[i] = c->host[i].dev;
		c->other[i] = c->host[i].devs[1];
	}
	return c->n ? CX_OK : CX_FAIL(err, CX_ERR_ARGUMENT, "--backends is empty");
}

static const void *leaf_of(void *ctx, const cx_graph *g, uint32_t id)
{
	(void)g;
	return ((cx_leaves *)ctx)->data[id];
}

static double badness(const cx_diff_row *r)
{
	if (r->refused) return -1;
	if (r->m.n_odd > 0) return INFINITY;
	return r->m.nmse > 0 ? r->m.nmse / (r->tol > 0 ? r->tol : 1e-30) : 0;
}

static int worst_first(const void *a, const void *b)
{
	const cx_diff_row *x = *(const cx_diff_row *const *)a, *y = *(const cx_diff_row *const *)b;
	double p = badness(x), q = badness(y);
	if (x->bad != y->bad) return x->bad ? -1 : 1;
	if (p != q) return p > q ? -1 : 1;
	if (x->node != y->node) return x->node < y->node ? -1 : 1;
	return (int)x->dev - (int)y->dev;
}

static cx_status sort_rows(diff_cmd *c, cx_err *err)
{
	c->order = calloc((size_t)c->d->n_rows + 1, sizeof *c->order);
	if (!c->order) return CX_FAIL(err, CX_ERR_MEMORY, "out of memory");
	for (uint32_t i = 0; i < c->d->n_rows; i++) c->order[i] = &c->d->rows[i];
	qsort(c->order, c->d->n_rows, sizeof *c->order, worst_first);
	return CX_OK;
}

/* ---- text ---- */

static void print_members(const diff_cmd *c, const cx_diff_row *r)
{
	printf("        fused by %s, %u nodes:", cx__fusion_name((cx_fusion)r->fusion), r->n_member);
	for (uint32_t m = 0; m < r->n_member; m++) {
		bool alone = false;
		for (uint32_t i = 0; r->n_alone && i < c->d->n_rows; i++)
			alone |= c->d->rows[i].bad && c->d->rows[i].kind == CX_DIFF_NODE &&
					 c->d->rows[i].dev == r->dev && c->d->rows[i].node == r->member[m];
		printf(" %%%u %s%s", r->member[m], cx__ops[c->leaves.g->nodes[r->member[m]].op].name,
			alone ? " (out alone too)" : "");
	}
	printf(r->n_alone ? "\n" : "; each is inside alone: the fused kernel is at fault\n");
}

static void print_row(const diff_cmd *c, const cx_diff_row *r)
{
	const cx_desc *d = &c->leaves.g->nodes[r->node + r->out].desc;
	char text[160];
	printf("%-4s %-8s %-5s %9.2e %8.1e %9.2e %9.2e %8llu ", r->bad ? "BAD" : "ok", c->name[r->dev],
		looks[r->kind], r->m.nmse, r->tol, r->m.max_abs, r->m.max_rel,
		(unsigned long long)r->m.max_ulp);
	if (r->grown >= 0) printf("%9.2e  ", r->grown);
	else printf("%9s  ", "-");
	printf("%s %s", cx__node_text(c->leaves.g, r->node, text, sizeof text),
		cx_dtype_get(d->dtype)->name);
	if (r->m.nan_want || r->m.nan_got || r->m.inf_want || r->m.inf_got)
		printf("; NaN %lld (want %lld), Inf %lld (want %lld)", (long long)r->m.nan_got,
			(long long)r->m.nan_want, (long long)r->m.inf_got, (long long)r->m.inf_want);
	printf("\n");
	if (r->bad)
		printf("        output %u: %lld of %lld bad, first at %lld: want %.9g, got %.9g\n", r->out,
			(long long)r->m.n_bad, (long long)r->m.n, (long long)r->m.first_bad, r->m.want,
			r->m.got);
	if (r->bad && r->kind == CX_DIFF_FUSED) print_members(c, r);
}

/* What backend v has no kernel for, up to a number. */
static void print_refused(const diff_cmd *c, uint32_t v)
{
	enum { MANY = 20 };
	uint32_t n = 0;
	char text[160];
	for (uint32_t i = 0; i < c->d->n_rows; i++) {
		const cx_diff_row *r = &c->d->rows[i];
		if (r->dev != v || !r->refused || r->kind != CX_DIFF_NODE || ++n > MANY) continue;
		printf("%s: no kernel for %s%s%s\n", c->name[v],
			cx__node_text(c->leaves.g, r->node, text, sizeof text),
			c->other[v] ? "; in the whole run it was on " : "; --allow-fallback runs it elsewhere",
			c->other[v] ? cx_device_name(c->other[v]) : "");
	}
	if (n > MANY) printf("%s: and %u more\n", c->name[v], n - MANY);
}

static void print_table(const diff_cmd *c)
{
	const cx_diff *d = c->d;
	printf("%-4s %-8s %-5s %9s %8s %9s %9s %8s %9s  node\n", "", "backend", "look", "nmse", "tol",
		"max abs", "max rel", "ulp", "grown");
	for (uint32_t i = 0; i < d->n_rows; i++)
		if (!c->order[i]->refused && i < c->a.top) print_row(c, c->order[i]);
	for (uint32_t v = 0; v < c->n; v++) {
		uint32_t n[3] = {0}, bad[3] = {0}, refused = 0;
		double grown = 0;
		for (uint32_t i = 0; i < d->n_rows; i++) {
			const cx_diff_row *r = &d->rows[i];
			if (r->dev != v) continue;
			n[r->kind]++;
			bad[r->kind] += r->bad;
			refused += r->refused;
			if (r->grown > grown) grown = r->grown;
		}
		printf("%s: %u of %u nodes out of tolerance, %u of %u fused steps, %u more in the whole "
			   "run; %u refused; largest error in the whole run %.2e\n",
			c->name[v], bad[0], n[0], bad[1], n[1], bad[2], refused, grown);
		print_refused(c, v);
		if (d->notes[v].code != CX_OK) printf("%s: %s\n", c->name[v], d->notes[v].msg);
	}
}

static void print_first(const diff_cmd *c)
{
	const cx_diff_row *r = c->d->first;
	char text[160];
	if (!r) {
		printf("first diverging node: none\n");
		return;
	}
	printf("first diverging node: %s on %s (%s)\n",
		cx__node_text(c->leaves.g, r->node, text, sizeof text), c->name[r->dev],
		r->kind == CX_DIFF_NODE    ? "alone, on the reference's operands"
		: r->kind == CX_DIFF_FUSED ? "in a fused step, on the reference's operands"
								   : "in the whole run only");
}

/* ---- JSON ---- */

static void json_text(const char *s)
{
	putchar('"');
	for (; *s; s++) {
		if (*s == '"' || *s == '\\') printf("\\%c", *s);
		else if ((unsigned char)*s < 32) printf("\\u%04x", *s);
		else putchar(*s);
	}
	putchar('"');
}

static void json_number(const char *name, double v)
{
	printf(", \"%s\": ", name);
	if (isfinite(v)) printf("%.9g", v);
	else printf(isnan(v) ? "\"nan\"" : v > 0 ? "\"inf\"" : "\"-inf\"");
}

static void json_row(const diff_cmd *c, const cx_diff_row *r)
{
	const cx_node *n = &c->leaves.g->nodes[r->node];
	printf("{\"backend\": ");
	json_text(c->name[r->dev]);
	printf(", \"look\": \"%s\", \"node\": %u, \"op\": \"%s\", \"name\": ", looks[r->kind], r->node,
		cx__ops[n->op].name);
	json_text(n->name);
	printf(", \"scope\": ");
	json_text(n->scope ? n->scope : "");
	printf(", \"file\": ");
	json_text(n->file ? n->file : "");
	printf(", \"line\": %d, \"dtype\": \"%s\", \"output\": %u, \"bad\": %s, \"refused\": %s",
		n->line, cx_dtype_get(c->leaves.g->nodes[r->node + r->out].desc.dtype)->name, r->out,
		r->bad ? "true" : "false", r->refused ? "true" : "false");
	json_number("tol", r->tol);
	json_number("nmse", r->m.nmse);
	json_number("max_abs", r->m.max_abs);
	json_number("max_rel", r->m.max_rel);
	printf(", \"max_ulp\": %llu, \"n\": %lld, \"n_bad\": %lld, \"first_bad\": %lld",
		(unsigned long long)r->m.max_ulp, (long long)r->m.n, (long long)r->m.n_bad,
		(long long)r->m.first_bad);
	if (r->m.first_bad >= 0) {
		json_number("want", r->m.want);
		json_number("got", r->m.got);
	}
	printf(", \"nan\": %lld, \"nan_want\": %lld, \"inf\": %lld, \"inf_want\": %lld",
		(long long)r->m.nan_got, (long long)r->m.nan_want, (long long)r->m.inf_got,
		(long long)r->m.inf_want);
	if (r->grown >= 0) json_number("grown", r->grown);
	if (r->kind == CX_DIFF_FUSED) {
		printf(", \"fusion\": \"%s\", \"bad_alone\": %u, \"members\": [",
			cx__fusion_name((cx_fusion)r->fusion), r->n_alone);
		for (uint32_t m = 0; m < r->n_member; m++) printf("%s%u", m ? ", " : "", r->member[m]);
		printf("]");
	}
	printf("}");
}

static void print_json(const diff_cmd *c)
{
	const cx_diff *d = c->d;
	printf("{\"n_nodes\": %u, \"n_bad\": %u, \"n_refused\": %u, \"notes\": [", d->g->n_nodes,
		d->n_bad, d->n_refused);
	for (uint32_t v = 0, n = 0; v < c->n; v++) {
		if (d->notes[v].code == CX_OK) continue;
		printf("%s{\"backend\": ", n++ ? ", " : "");
		json_text(c->name[v]);
		printf(", \"message\": ");
		json_text(d->notes[v].msg);
		printf("}");
	}
	printf("],\n \"rows\": [");
	for (uint32_t i = 0; i < d->n_rows; i++) {
		printf("%s", i ? ",\n  " : "\n  ");
		json_row(c, c->order[i]);
	}
	printf("],\n \"first\": ");
	if (d->first) json_row(c, d->first);
	else printf("null");
	printf("}\n");
}

/* ---- the command ---- */

static cx_status write_reduced(diff_cmd *c, cx_err *err)
{
	cx_graph *g = NULL;
	char *text = NULL;
	size_t n = 0;
	cx_file_out *out = NULL;
	cx_status st = cx__diff_reduce(c->d, c->d->first, &g, err);
	if (st == CX_OK) st = cx_graph_print(g, NULL, &text, &n, err);
	if (st == CX_OK) st = cx_file_out_open(NULL, c->a.reduce, &out, err);
	if (st == CX_OK && (st = cx_file_out_write(out, text, n, err)) == CX_OK)
		st = cx_file_out_commit(out, err);
	else cx_file_out_discard(out);
	if (st == CX_OK)
		fprintf(stderr, "%s: %u nodes, %zu bytes\n", c->a.reduce, cx_graph_n_nodes(g), n);
	cx_free(NULL, text, n + 1);
	cx_graph_free(g);
	return st;
}

static cx_status run(diff_cmd *c, cx_err *err)
{
	cx_diff_opts o = {.devices = c->dev, .tol_scale = c->a.tol, .leaf = leaf_of, .ctx = &c->leaves};
	cx_status st;
	if (c->a.reduce) { /* not after a long run: can it be written at all? */
		cx_file_out *probe;
		if ((st = cx_file_out_open(NULL, c->a.reduce, &probe, err)) != CX_OK) return st;
		cx_file_out_discard(probe);
	}
	if ((st = open_backends(c, err)) != CX_OK) return st;
	if ((st = cx__leaves_open(&c->a.leaves, &c->leaves, err)) != CX_OK) return st;
	o.n_devices = c->n;
	if (c->a.fallback) o.fallback = c->other;
	if ((st = cx__diff_run(c->leaves.g, &o, &c->d, err)) != CX_OK)
		return cx__host_advise(&c->host[0], st, err);
	if ((st = sort_rows(c, err)) != CX_OK) return st;
	if (c->a.reduce && c->d->first && (st = write_reduced(c, err)) != CX_OK) return st;
	if (c->a.reduce && !c->d->first)
		fprintf(stderr, "%s: not written, since nothing is out of tolerance\n", c->a.reduce);
	if (c->a.json) {
		print_json(c);
		return CX_OK;
	}
	if (c->leaves.n_files || c->leaves.n_seeded)
		printf("inputs: %u from files, %u from seed %llu\n", c->leaves.n_files, c->leaves.n_seeded,
			(unsigned long long)c->a.leaves.seed);
	print_table(c);
	print_first(c);
	return CX_OK;
}

static bool set_number(diff_args *a, int opt)
{
	char *end = NULL;
	bool ok = *optarg != '-' && *optarg != ' ';
	errno = 0;
	if (opt == 's') a->leaves.seed = strtoull(optarg, &end, 10);
	else if (opt == 'n') a->top = strtoull(optarg, &end, 10);
	else a->tol = strtod(optarg, &end);
	ok = ok && end != optarg && !*end && !errno;
	if (opt == 't' && !(ok && a->tol > 0 && isfinite(a->tol)))
		cx__cmd_usage("diff", "--tol '%.40s' is not a number above 0", optarg);
	else if (!ok)
		cx__cmd_usage("diff", "%s '%.40s' is not a whole number, 0 or more",
			opt == 's' ? "--seed" : "--top", optarg);
	else return true;
	return false;
}

static bool set_option(diff_args *a, int opt)
{
	if (opt == 'b') a->backends = optarg;
	if (opt == 'm') a->leaves.model = optarg;
	if (opt == 'g') a->leaves.graph = optarg;
	if (opt == 'p') a->leaves.prompt = optarg;
	if (opt == 'i') a->leaves.inputs = optarg;
	if (opt == 'r') a->reduce = optarg;
	if (opt == 'j') a->json = true;
	if (opt == 'a') a->fallback = true;
	return (opt != 's' && opt != 'n' && opt != 't') || set_number(a, opt);
}

int cx__cmd_diff(int argc, char **argv)
{
	static const struct option options[] = {{"backends", required_argument, NULL, 'b'},
		{"model", required_argument, NULL, 'm'}, {"graph", required_argument, NULL, 'g'},
		{"prompt", required_argument, NULL, 'p'}, {"inputs", required_argument, NULL, 'i'},
		{"seed", required_argument, NULL, 's'}, {"tol", required_argument, NULL, 't'},
		{"reduce", required_argument, NULL, 'r'}, {"top", required_argument, NULL, 'n'},
		{"allow-fallback", no_argument, NULL, 'a'}, {"json", no_argument, NULL, 'j'},
		{"help", no_argument, NULL, 'h'}, {0}};
	diff_cmd *c;
	cx_err err = {0};
	cx_status st;
	int opt, code;
	diff_args a = {.leaves.seed = 1, .tol = 1, .top = 20};
	optind = 1;
	while ((opt = getopt_long(argc, argv, "m:p:h", options, NULL)) != -1) {
		if (opt == 'h') return fputs(usage, stdout) < 0;
		if (opt == '?' || !set_option(&a, opt)) return 1;
	}
	if (optind < argc) return cx__cmd_usage("diff", "'%.60s' is no option", argv[optind]);
	if (!a.backends) return cx__cmd_usage("diff", "--backends is missing");
	if (a.leaves.model && a.leaves.graph)
		return cx__cmd_usage("diff", "-m and --graph are both given; one of them is the subject");
	if (!a.leaves.model && !a.leaves.graph)
		return cx__cmd_usage("diff", "one of -m MODEL and --graph FILE is wanted");
	if (a.leaves.prompt && !a.leaves.model) return cx__cmd_usage("diff", "--prompt is for models");
	if (!(c = calloc(1, sizeof *c))) return 1;
	c->a = a;
	st = run(c, &err);
	code = st != CX_OK ? cx__cmd_fail("diff", &err) : 0;
	for (uint32_t v = 0; code == 0 && c->d && v < c->n; v++) code = c->d->notes[v].code != CX_OK;
	if (c->d && (c->d->n_bad || (c->d->n_refused && !a.fallback))) code = 1;
	cx__diff_free(c->d);
	free(c->order);
	cx__leaves_close(&c->leaves);
	for (uint32_t v = 0; v < MAX_BACKENDS; v++) cx__host_close(&c->host[v]);
	free(c);
	return code;
}
