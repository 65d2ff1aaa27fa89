/* test_dump.c - dumps of plans: at every stage the text reads back and computes the same, JSON has
 * what docs/DUMP_JSON.md says, dot is well formed, names that look like markup stay names; 50,000
 * nodes; and, through the binary, the page and the profile. */
#include "graph/dump.h"
#include "tests/file_make.h"
#include "tests/plan_graphs.h"
#include "tests/random_graph.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>

#include <jansson.h>

#define HOSTILE "</script><img/src=x/onerror=alert(1)>&amp;%s{}"

static cx_runtime *rt;
static cx_device *ref, *cpu;

static int setup(void **state)
{
	(void)state;
	return cx_runtime_create(NULL, &rt, NULL) || cx_device_open(rt, "ref", 0, &ref, NULL) ||
		   cx_device_open(rt, "cpu", 0, &cpu, NULL);
}

static int teardown(void **state)
{
	(void)state;
	cx_device_close(ref);
	cx_device_close(cpu);
	cx_runtime_free(rt);
	return 0;
}

static cx_plan *plan_to(const cx_graph *g, cx_device *dev, cx_stage stage)
{
	cx_plan_opts opts = {.devices = &dev, .n_devices = 1, .verify = g->n_nodes < 2000};
	cx_plan *plan = NULL;
	cx_err err = {0};
	if (cx__plan_build_to(g, &opts, stage, &plan, &err) != CX_OK) fail_msg("%s", err.msg);
	return plan;
}

static char *dump_as(const cx_plan *p, cx_dump_format format, const double *seconds, size_t *n)
{
	char *text = NULL;
	cx_err err = {0};
	if (cx__plan_dump(p, format, seconds, NULL, &text, n, &err) != CX_OK) fail_msg("%s", err.msg);
	assert_int_equal(strlen(text), *n);
	return text;
}

/* ---- text ---- */

/* Results of one evaluation, in the order of outputs, then of states. */
typedef struct results {
	const cx_random_graph *rg;
	void *data[64];
	uint64_t bytes[64];
	uint32_t n_states;
	void *leaf; /* the one asked for last */
	void *keep[256];
	uint32_t n_keep;
} results;

static const void *leaf_by_name(void *ctx, const cx_graph *g, uint32_t id)
{
	results *r = ctx;
	const cx_graph *src = r->rg->g;
	for (uint32_t i = 0; i < src->n_nodes; i++) {
		uint64_t bytes = cx__desc_bytes(&src->nodes[i].desc);
		void *data;
		if (src->nodes[i].op != g->nodes[id].op || strcmp(src->nodes[i].name, g->nodes[id].name))
			continue;
		assert_true(r->n_keep < 256);
		data = r->keep[r->n_keep++] = calloc(1, bytes + 16);
		assert_non_null(data);
		assert_int_equal(cx__random_fill(r->rg, i, data, bytes), CX_OK);
		return data;
	}
	return NULL;
}

static void *copied(const void *data, uint64_t bytes)
{
	void *p = malloc(bytes + 1);
	assert_non_null(p);
	memcpy(p, data, bytes);
	return p;
}

static void on_node(void *ctx, const cx_graph *g, uint32_t id, const void *data, uint64_t bytes)
{
	results *r = ctx;
	for (uint32_t o = 0; o < g->n_outputs && o < 32; o++) {
		if (g->outputs[o].id != id) continue;
		r->data[o] = copied(data, bytes);
		r->bytes[o] = bytes;
	}
}

static void on_state(void *ctx, const cx_graph *g, uint32_t leaf, const void *data, uint64_t bytes)
{
	results *r = ctx;
	uint32_t at = 32;
	(void)g;
	for (uint32_t i = 0; i < leaf; i++) at += g->nodes[i].op == CX_OP_state;
	if (at >= 64) return;
	r->data[at] = copied(data, bytes);
	r->bytes[at] = bytes;
	r->n_states++;
}

static void evaluate(const cx_graph *g, const cx_random_graph *rg, results *r)
{
	cx_ref_io io = {r, leaf_by_name, on_node, on_state};
	cx_err err = {0};
	memset(r, 0, sizeof *r);
	r->rg = rg;
	if (cx__ref_eval(g, NULL, &io, &err) != CX_OK) fail_msg("%s", err.msg);
	for (uint32_t i = 0; i < r->n_keep; i++) free(r->keep[i]);
}

static void free_results(results *r)
{
	for (int i = 0; i < 64; i++) free(r->data[i]);
}

/* Same outputs and states, bit for bit. */
static void compare(const results *a, const results *b, const char *what, uint64_t seed)
{
	for (int i = 0; i < 64; i++) {
		if (!a->data[i] && !b->data[i]) continue;
		if (!a->data[i] || !b->data[i] || a->bytes[i] != b->bytes[i] ||
			memcmp(a->data[i], b->data[i], a->bytes[i]) != 0)
			fail_msg("seed %llu, stage %s: result %d differs", (unsigned long long)seed, what, i);
	}
}

static const char *const stages[CX_STAGE_COUNT] = {
#define X(name, n_passes, doc) #name,
	CX_STAGES(X)
#undef X
};

static void check_text(
	const cx_random_graph *rg, cx_stage stage, const results *want, uint32_t *n_same)
{
	cx_plan *p = plan_to(rg->g, ref, stage);
	cx_graph *back = NULL;
	char *text, *again;
	size_t n, m;
	cx_err err = {0};
	results got;
	text = dump_as(p, CX_DUMP_text, NULL, &n);
	if (cx_graph_parse(text, n, NULL, &back, &err) != CX_OK)
		fail_msg("seed %llu, %s: %s", (unsigned long long)rg->opts.seed, stages[stage], err.msg);
	assert_int_equal(cx_graph_print(back, NULL, &again, &m, &err), CX_OK);
	assert_string_equal(text, again);
	if (plan_is_exact(p)) {
		evaluate(back, rg, &got);
		compare(want, &got, stages[stage], rg->opts.seed);
		free_results(&got);
		++*n_same;
	}
	cx_graph_free(back);
	cx_free(NULL, text, n + 1);
	cx_free(NULL, again, m + 1);
	cx_plan_free(p);
}

static void text_reads_back(void **state)
{
	enum { N_GRAPHS = 150 };
	uint32_t n_same = 0;
	(void)state;
	for (uint64_t seed = 1; seed <= N_GRAPHS; seed++) {
		cx_random_opts opts = {.seed = seed, .n_nodes = 4 + seed % 24};
		cx_random_graph *rg = NULL;
		cx_err err = {0};
		results want;
		if (cx__random_graph(&opts, NULL, &rg, &err) != CX_OK) fail_msg("%s", err.msg);
		evaluate(rg->g, rg, &want);
		for (int s = 0; s < CX_STAGE_COUNT; s++) check_text(rg, (cx_stage)s, &want, &n_same);
		free_results(&want);
		cx__random_graph_free(rg);
	}
	printf("%d graphs at %d stages read back; evaluated with the same bits: %u\n", N_GRAPHS,
		CX_STAGE_COUNT, n_same);
	assert_in_range(n_same, N_GRAPHS * 3, N_GRAPHS * CX_STAGE_COUNT);
}

static void built_is_the_graph(void **state)
{
	cx_graph *g = NULL;
	char *want, *got;
	size_t n, m;
	cx_plan *p;
	(void)state;
	assert_int_equal(cx_graph_create(NULL, &g, NULL), CX_OK);
	plan_build_model(g, &(plan_model){2, 8, 32, 4, 2, 48, 32});
	assert_int_equal(cx_graph_finish(g, NULL), CX_OK);
	p = plan_to(g, cpu, CX_STAGE_built);
	got = dump_as(p, CX_DUMP_text, NULL, &n);
	assert_int_equal(cx_graph_print(g, NULL, &want, &m, NULL), CX_OK);
	assert_string_equal(got, want);
	cx_free(NULL, got, n + 1);
	cx_free(NULL, want, m + 1);
	cx_plan_free(p);
	cx_graph_free(g);
}

/* ---- JSON ---- */

static bool is_member(const json_t *v, const char *const *keys)
{
	for (; *keys; keys++)
		if (!json_object_get(v, *keys)) return false;
	return true;
}

/* Every reference of the schema leads somewhere. */
static void check_schema(const json_t *d, cx_stage stage, bool timed)
{
	static const char *const top[] = {"format", "version", "stage", "devices", "stats", "reasons",
		"fusions", "tensors", "steps", "memory", "not_fused", "outputs", NULL};
	static const char *const step_keys[] = {
		"pos", "op", "name", "scope", "reason", "in", "out", "bytes", "flops", NULL};
	static const char *const tensor_keys[] = {"id", "kind", "dtype", "dims", "bytes", NULL};
	const json_t *memory = json_object_get(d, "memory"), *v, *id;
	size_t i, k;
	char known[4096] = {0};
	assert_true(is_member(d, top));
	assert_string_equal(json_string_value(json_object_get(d, "stage")), stages[stage]);
	assert_int_equal(json_array_size(memory) > 0, stage == CX_STAGE_planned);
	json_array_foreach(json_object_get(d, "tensors"), i, v)
	{
		assert_true(is_member(v, tensor_keys));
		known[json_integer_value(json_object_get(v, "id")) % 4096] = 1;
		if ((id = json_object_get(v, "memory")))
			assert_in_range(json_integer_value(id), 0, json_array_size(memory) - 1);
	}
	json_array_foreach(json_object_get(d, "steps"), i, v)
	{
		const char *why = json_string_value(json_object_get(v, "reason"));
		assert_true(is_member(v, step_keys));
		assert_int_equal(json_integer_value(json_object_get(v, "pos")), i);
		assert_non_null(json_object_get(json_object_get(d, "reasons"), why));
		assert_int_equal(json_object_get(v, "kernel") != NULL, stage >= CX_STAGE_placed);
		assert_int_equal(json_object_get(v, "seconds") != NULL, timed);
		json_array_foreach(json_object_get(v, "in"), k, id)
			assert_true(json_is_null(id) || known[json_integer_value(id) % 4096]);
		json_array_foreach(json_object_get(v, "out"), k, id)
			assert_true(known[json_integer_value(id) % 4096]);
	}
}

static void json_has_the_schema(void **state)
{
	cx_graph *g = NULL;
	(void)state;
	assert_int_equal(cx_graph_create(NULL, &g, NULL), CX_OK);
	plan_build_model(g, &(plan_model){2, 8, 32, 4, 2, 48, 32});
	assert_int_equal(cx_graph_finish(g, NULL), CX_OK);
	for (int s = 0; s < CX_STAGE_COUNT; s++) {
		cx_plan *p = plan_to(g, cpu, (cx_stage)s);
		double seconds[512] = {1e-6};
		size_t n;
		char *text;
		json_error_t e;
		json_t *d;
		assert_in_range(p->n_order, 1, 512);
		text = dump_as(p, CX_DUMP_json, s == CX_STAGE_planned ? seconds : NULL, &n);
		if (!(d = json_loadb(text, n, JSON_REJECT_DUPLICATES, &e)))
			fail_msg("%s: line %d: %s", stages[s], e.line, e.text);
		check_schema(d, (cx_stage)s, s == CX_STAGE_planned);
		assert_int_equal(json_array_size(json_object_get(d, "steps")), p->n_order);
		json_decref(d);
		cx_free(NULL, text, n + 1);
		cx_plan_free(p);
	}
	cx_graph_free(g);
}

static cx_graph *hostile_graph(void)
{
	cx_graph *g = NULL;
	int64_t dim[2] = {2, 3};
	assert_int_equal(cx_graph_create(NULL, &g, NULL), CX_OK);
	cx_scope_push(g, "%s", HOSTILE);
	cx_output(g, HOSTILE, cx_named(g, cx_exp(g, cx_input(g, HOSTILE, CX_F32, 2, dim)), HOSTILE));
	cx_scope_pop(g);
	assert_int_equal(cx_graph_finish(g, NULL), CX_OK);
	return g;
}

static void hostile_names_are_names(void **state)
{
	cx_graph *g = hostile_graph();
	cx_plan *p = plan_to(g, ref, CX_STAGE_planned);
	size_t n;
	char *text = dump_as(p, CX_DUMP_json, NULL, &n);
	json_t *d = json_loadb(text, n, 0, NULL), *out;
	cx_text_out t = {0};
	(void)state;
	assert_non_null(d);
	assert_null(strpbrk(text, "<>&"));
	out = json_array_get(json_object_get(d, "outputs"), 0);
	assert_string_equal(json_string_value(json_object_get(out, "name")), HOSTILE);
	json_decref(d);
	cx_free(NULL, text, n + 1);
	cx__put_json(&t, "\x01\"\\\xff\n"); /* no graph has such names; the writer holds all the same */
	assert_int_equal(cx__text_out_take(&t, &text, &n, NULL), CX_OK);
	assert_string_equal(text, "\"\\u0001\\\"\\\\\\ufffd\\u000a\"");
	cx_free(NULL, text, n + 1);
	cx_plan_free(p);
	cx_graph_free(g);
}

/* ---- dot ---- */

/* Quotes in pairs, braces outside of them balanced. */
static void check_dot(const char *s)
{
	int depth = 0;
	bool quoted = false;
	assert_int_equal(strncmp(s, "digraph cortex {", 16), 0);
	for (; *s; s++) {
		if (quoted && *s == '\\' && s[1]) s++;
		else if (*s == '"') quoted = !quoted;
		else if (!quoted && *s == '{') depth++;
		else if (!quoted && *s == '}') depth--;
		assert_in_range(depth, 0, 2);
	}
	assert_false(quoted);
	assert_int_equal(depth, 0);
}

static void dot_is_well_formed(void **state)
{
	cx_graph *g[2] = {hostile_graph(), NULL};
	bool have = system("command -v dot >/dev/null 2>&1") == 0;
	(void)state;
	assert_int_equal(cx_graph_create(NULL, &g[1], NULL), CX_OK);
	plan_build_model(g[1], &(plan_model){2, 8, 32, 4, 2, 48, 32});
	assert_int_equal(cx_graph_finish(g[1], NULL), CX_OK);
	for (int i = 0; i < 2; i++) {
		cx_plan *p = plan_to(g[i], cpu, CX_STAGE_planned);
		size_t n;
		char *text = dump_as(p, CX_DUMP_dot, NULL, &n);
		check_dot(text);
		if (have) {
			FILE *f = popen("dot -Tcanon >/dev/null", "w");
			assert_non_null(f);
			assert_int_equal(fwrite(text, 1, n, f), n);
			assert_int_equal(pclose(f), 0);
		}
		cx_free(NULL, text, n + 1);
		cx_plan_free(p);
		cx_graph_free(g[i]);
	}
	printf("dot: structure checked%s\n", have ? ", and by Graphviz" : "; Graphviz is not here");
}

/* ---- memory ---- */

static void every_allocation_may_fail(void **state)
{
	cx_graph *g = NULL;
	cx_plan *p;
	(void)state;
	assert_int_equal(cx_graph_create(NULL, &g, NULL), CX_OK);
	plan_build_model(g, &(plan_model){1, 4, 16, 2, 1, 24, 16});
	assert_int_equal(cx_graph_finish(g, NULL), CX_OK);
	p = plan_to(g, cpu, CX_STAGE_planned);
	for (int f = CX_DUMP_text; f <= CX_DUMP_dot; f++) {
		cx_fault fault = {.fired = true};
		for (long k = 0; fault.fired; k++) {
			cx_alloc alloc;
			char *text = NULL;
			size_t n = 0;
			cx_err err = {0};
			cx_status st;
			fault = (cx_fault){.countdown = k};
			alloc = cx_alloc_fault(&fault);
			st = cx__plan_dump(p, (cx_dump_format)f, NULL, &alloc, &text, &n, &err);
			assert_int_equal(st, fault.fired ? CX_ERR_MEMORY : CX_OK);
			assert_int_equal(text != NULL, st == CX_OK);
			if (text) cx_free(&alloc, text, n + 1);
			assert_int_equal(fault.n_live, 0);
			assert_in_range(k, 0, 10000);
		}
	}
	cx_plan_free(p);
	cx_graph_free(g);
}

/* ---- size ---- */

static double now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void fifty_thousand_nodes(void **state)
{
	cx_graph *g = NULL;
	cx_plan_opts opts = {.devices = &ref, .n_devices = 1, .no_fuse = true};
	cx_plan *p = NULL;
	(void)state;
	assert_int_equal(cx_graph_create(NULL, &g, NULL), CX_OK);
	plan_build_mixed(g, 50000);
	assert_int_equal(cx_graph_finish(g, NULL), CX_OK);
	assert_int_equal(cx_plan_build(g, &opts, &p, NULL), CX_OK);
	for (int f = CX_DUMP_text; f <= CX_DUMP_dot; f++) {
		static const char *const names[] = {"text", "json", "dot"};
		double t = now();
		size_t n;
		char *text = dump_as(p, (cx_dump_format)f, NULL, &n);
		t = now() - t;
		printf(
			"%u steps as %s: %.0f ms, %.1f MB\n", p->n_order, names[f], t * 1e3, 1e-6 * (double)n);
		assert_in_range(n, 1 << 20, 40 << 20);
		cx_free(NULL, text, n + 1);
	}
	cx_plan_free(p);
	cx_graph_free(g);
}

static void costs_are_the_definitions(void **state)
{
	cx_graph *g = NULL;
	int64_t x[2] = {5, 7}, w[2] = {11, 7};
	cx_attr_matmul a = cx_attr_matmul_default();
	cx_plan *p;
	const cx_pnode *n;
	(void)state;
	a.trans_b = true;
	assert_int_equal(cx_graph_create(NULL, &g, NULL), CX_OK);
	cx_output(
		g, "y", cx_matmul(g, cx_input(g, "x", CX_F32, 2, x), cx_weight(g, "w", CX_F32, 2, w), &a));
	assert_int_equal(cx_graph_finish(g, NULL), CX_OK);
	for (int s = CX_STAGE_built; s < CX_STAGE_COUNT; s++) { /* fused or not */
		p = plan_to(g, cpu, (cx_stage)s);
		assert_int_equal(p->n_order, 1);
		n = &p->n[p->order[0]];
		assert_int_equal((long)cx__pnode_flops(p, n), 2 * 5 * 7 * 11);
		assert_int_equal(cx__pnode_bytes(p, n), 4 * (5 * 7 + 11 * 7 + 5 * 11));
		cx_plan_free(p);
	}
	cx_graph_free(g);
}

/* ---- the binary ---- */

/* stdout of `<build>/cortex <args>`; the caller frees it. NULL if the binary is not there. */
static char *cortex(const char *args, int *rc)
{
	char exe[1024], cmd[4096];
	ssize_t n = readlink("/proc/self/exe", exe, sizeof exe - 1);
	size_t size = 0;
	char *out = NULL, buf[4096];
	FILE *f, *to;
	assert_in_range(n, 1, sizeof exe - 1);
	exe[n] = 0;
	for (int up = 0; up < 2; up++) *strrchr(exe, '/') = 0;
	snprintf(cmd, sizeof cmd, "%s/cortex", exe);
	if (access(cmd, X_OK) != 0) return NULL;
	snprintf(cmd, sizeof cmd, "'%s/cortex' %s", exe, args);
	f = popen(cmd, "r");
	to = open_memstream(&out, &size);
	assert_non_null(f);
	assert_non_null(to);
	while ((n = (ssize_t)fread(buf, 1, sizeof buf, f)) > 0) fwrite(buf, 1, (size_t)n, to);
	*rc = pclose(f);
	fclose(to);
	return out;
}

static const char *save_graph(cx_graph *g, const char *name)
{
	const char *path = temp_path(name);
	char *text = NULL;
	size_t n;
	FILE *f = fopen(path, "wb");
	assert_non_null(f);
	assert_int_equal(cx_graph_print(g, NULL, &text, &n, NULL), CX_OK);
	assert_int_equal(fwrite(text, 1, n, f), n);
	fclose(f);
	cx_free(NULL, text, n + 1);
	cx_graph_free(g);
	return path;
}

static void page_is_self_contained(void **state)
{
	static const char *const outside[] = {"http:", "https:", "<link", "@import", "url(",
		" src=", "<iframe", "fetch(", "innerHTML", NULL};
	static const char open[] = "<script id=\"data\" type=\"application/json\">";
	char args[1200], *page, *data, *end;
	json_t *d;
	int rc = -1;
	(void)state;
	snprintf(args, sizeof args, "dump --graph '%s' --format html --profile",
		save_graph(hostile_graph(), "hostile.cxg"));
	page = cortex(args, &rc);
	if (!page) {
		printf("the binary is not built: its page is not looked at\n");
		skip();
	}
	assert_int_equal(rc, 0);
	for (int i = 0; outside[i]; i++)
		if (strstr(page, outside[i])) fail_msg("the page has '%s'", outside[i]);
	data = strstr(page, open);
	assert_non_null(data);
	end = strstr(data, "</script>");
	assert_non_null(end);
	data += sizeof open - 1;
	d = json_loadb(data, (size_t)(end - data), 0, NULL);
	assert_non_null(d);
	check_schema(d, CX_STAGE_planned, true);
	json_decref(d);
	end = strstr(end + 9, "</script>"); /* of the page's own code; then there is no more */
	assert_non_null(end);
	assert_null(strstr(end + 9, "<script"));
	assert_non_null(strstr(end, "</html>"));
	free(page);
}

static void profile_adds_up(void **state)
{
	const char *trace = temp_path("trace.json");
	char args[2400], *text;
	cx_graph *g = NULL;
	json_t *d, *v;
	size_t i, n_spans = 0;
	double steps = 0, ops = 0, all;
	int rc = -1;
	(void)state;
	assert_int_equal(cx_graph_create(NULL, &g, NULL), CX_OK);
	plan_build_mixed(g, 200);
	assert_int_equal(cx_graph_finish(g, NULL), CX_OK);
	snprintf(args, sizeof args, "profile --graph '%s' --runs 3 --json --trace '%s'",
		save_graph(g, "mixed.cxg"), trace);
	text = cortex(args, &rc);
	if (!text) skip();
	assert_int_equal(rc, 0);
	d = json_loads(text, 0, NULL);
	assert_non_null(d);
	json_array_foreach(json_object_get(d, "steps"), i, v)
	{
		double t = json_number_value(json_object_get(v, "seconds"));
		assert_true(t > 0);
		steps += t;
	}
	json_array_foreach(json_object_get(d, "ops"), i, v) ops +=
		json_number_value(json_object_get(v, "seconds"));
	all = json_number_value(json_object_get(d, "steps_seconds"));
	assert_true(all > 0 && steps > all * 0.99 && steps < all * 1.01);
	assert_true(ops > all * 0.99 && ops < all * 1.01);
	v = json_object_get(d, "ceilings");
	assert_true(json_number_value(json_object_get(v, "copy_gbs")) > 0);
	assert_true(json_number_value(json_object_get(v, "peak_gflops")) > 0);
	assert_true(json_number_value(json_object_get(d, "launch_seconds")) > 0);
	i = json_array_size(json_object_get(d, "steps"));
	json_decref(d);
	free(text);
	d = json_load_file(trace, 0, NULL);
	assert_non_null(d);
	for (size_t k = 0; k < json_array_size(json_object_get(d, "traceEvents")); k++) {
		v = json_array_get(json_object_get(d, "traceEvents"), k);
		if (strcmp(json_string_value(json_object_get(v, "ph")), "X") != 0) continue;
		assert_true(json_number_value(json_object_get(v, "dur")) > 0);
		n_spans++;
	}
	assert_int_equal(n_spans, i);
	json_decref(d);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(text_reads_back),
		cmocka_unit_test(built_is_the_graph),
		cmocka_unit_test(json_has_the_schema),
		cmocka_unit_test(hostile_names_are_names),
		cmocka_unit_test(dot_is_well_formed),
		cmocka_unit_test(every_allocation_may_fail),
		cmocka_unit_test(fifty_thousand_nodes),
		cmocka_unit_test(costs_are_the_definitions),
		cmocka_unit_test(page_is_self_contained),
		cmocka_unit_test(profile_adds_up),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
