/* test_onnx.c - cross-implementation operator cases (shared/fixtures/onnx, Apache-2.0, from ONNX):
 * every case whose operators map to ours is built with our constructors and run by the reference,
 * by a plan on the reference, and by a plan on the cpu; each result is compared with the file's.
 * Prints what was applied, and what was not and why.
 *
 * The tables that map operators are in tests/onnx/. Without the fixtures the mapping is proved on a
 * model made here. */
#include "tests/onnx/onnx.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include <cmocka.h>

/* Cases that must at least be applied, so that a broken mapping does not pass unnoticed. */
enum { N_CASES = 812, MIN_APPLIED = 630 };

/* ---- the archive: USTAR in gzip, whole in memory ---- */

typedef struct member {
	char name[264];
	const uint8_t *data;
	size_t size;
} member;
typedef struct archive {
	uint8_t *bytes;
	size_t size;
	member *members;
	size_t n;
} archive;

static const char *fixture(const char *name, char *buf, size_t size)
{
	const char *root = getenv("CORTEX_FIXTURES");
	snprintf(buf, size, "%s/onnx/%s", root ? root : "../shared/fixtures", name);
	return buf;
}

static bool read_all(const char *path, archive *a)
{
	gzFile f = gzopen(path, "rb");
	size_t cap = 0;
	int got = 0;
	if (!f) return false;
	do {
		if (a->size == cap) a->bytes = realloc(a->bytes, cap = cap ? cap * 2 : 1 << 20);
		got = gzread(f, a->bytes + a->size, (unsigned)(cap - a->size));
		if (got > 0) a->size += (size_t)got;
	} while (got > 0);
	gzclose(f);
	return got == 0 && a->size > 0;
}

static bool open_archive(const char *path, archive *a)
{
	if (!read_all(path, a)) return false;
	for (size_t at = 0; at + 512 <= a->size && a->bytes[at];) {
		const char *head = (const char *)a->bytes + at;
		size_t size = (size_t)strtoull(head + 124, NULL, 8);
		member *m;
		assert_true(size <= a->size - at - 512);
		a->members = realloc(a->members, (a->n + 1) * sizeof *a->members);
		m = &a->members[a->n];
		*m = (member){.data = a->bytes + at + 512, .size = size};
		if (head[345]) snprintf(m->name, sizeof m->name, "%.155s/%.100s", head + 345, head);
		else snprintf(m->name, sizeof m->name, "%.100s", head);
		if (head[156] == '0' || head[156] == 0) a->n++;
		at += 512 + (size + 511) / 512 * 512;
	}
	return a->n > 0;
}

static const member *find_member(const archive *a, const char *name)
{
	for (size_t i = 0; i < a->n; i++)
		if (strcmp(a->members[i].name, name) == 0) return &a->members[i];
	return NULL;
}

static void close_archive(archive *a)
{
	free(a->members);
	free(a->bytes);
}

/* ---- one case ---- */

typedef struct outcome {
	const char *why, *op; /* not ours */
	char failed[320];     /* "" if all results were inside the tolerance */
	bool widened, planned_cpu;
} outcome;

static Onnx__TensorProto *read_tensor(
	const archive *a, const char *test, const char *kind, size_t i)
{
	char name[300];
	const member *m;
	snprintf(name, sizeof name, "%.250s/test_data_set_0/%s_%zu.pb", test, kind, i);
	m = find_member(a, name);
	return m ? onnx__tensor_proto__unpack(NULL, m->size, m->data) : NULL;
}

/* MANIFEST: f32 1e-3 relative and 1e-5 absolute; the 16-bit types two units in the last place. */
static bool matches(cx_dtype t, double want, double got)
{
	switch (t) {
	case CX_F32:
		return is_close(want, got, 1e-3, 1e-5);
	case CX_F16:
		return is_close(want, got, 2e-3, 1e-5);
	case CX_BF16:
		return is_close(want, got, 1.6e-2, 1e-5);
	default:
		return want == got;
	}
}

static void compare(outcome *o, const char *who, const char *name, cx_dtype t, const void *want,
	const void *got, int64_t n)
{
	for (int64_t i = 0; i < n && !o->failed[0]; i++)
		if (!matches(t, number_get(t, want, i), number_get(t, got, i)))
			snprintf(o->failed, sizeof o->failed, "%s: %.60s[%lld] is %.9g, not %.9g", who, name,
				(long long)i, number_get(t, got, i), number_get(t, want, i));
}

/* An output of the file: its content in our type, and the tensor that computes it. */
typedef struct wanted {
	const char *name;
	cx_tensor t;
	cx_dtype dtype;
	cx_list dims;
	void *data;
} wanted;
enum { MAX_OUT = 32 };
typedef struct wanted_list {
	wanted w[MAX_OUT];
	size_t n;
} wanted_list;

static bool read_inputs(onnx_ctx *c, const archive *a, const char *test, const Onnx__GraphProto *g)
{
	size_t file = 0;
	for (size_t i = 0; i < g->n_input; i++) {
		const Onnx__ValueInfoProto *v = g->input[i];
		Onnx__TensorProto *t;
		cx_dtype dtype;
		cx_list dims;
		void *data;
		for (size_t j = 0; j < g->n_initializer; j++)
			if (strcmp(g->initializer[j]->name, v->name) == 0) v = NULL, j = g->n_initializer - 1;
		if (!v) continue; /* has its value in the model */
		c->op = "(input)";
		if (!v->type || !v->type->tensor_type) return onnx_not_ours(c, "sequence, map or optional");
		t = read_tensor(a, test, "input", file++);
		if (!t) return onnx_not_ours(c, "input that is no tensor");
		data = onnx_tensor_data(t, &dtype, &dims, &c->widened, &c->why);
		if (data) onnx_set(c, v->name, ref_run_bytes(c->r, false, dtype, dims, data));
		free(data);
		onnx__tensor_proto__free_unpacked(t, NULL);
		if (c->why) return false;
	}
	return true;
}

static bool read_outputs(
	onnx_ctx *c, const archive *a, const char *test, const Onnx__GraphProto *g, wanted_list *l)
{
	c->op = "(output)";
	for (size_t i = 0; i < g->n_output && i < MAX_OUT; i++) {
		wanted *w = &l->w[l->n];
		Onnx__TensorProto *t;
		if (!g->output[i]->type || !g->output[i]->type->tensor_type)
			return onnx_not_ours(c, "sequence, map or optional");
		t = read_tensor(a, test, "output", i);
		if (!t) return onnx_not_ours(c, "output that is no tensor");
		w->name = g->output[i]->name;
		w->data = onnx_tensor_data(t, &w->dtype, &w->dims, &c->widened, &c->why);
		onnx__tensor_proto__free_unpacked(t, NULL);
		if (!w->data) return false;
		l->n++;
	}
	return true;
}

static int64_t elems(const cx_list *l)
{
	int64_t n = 1;
	for (int32_t i = 0; i < l->n; i++) n *= l->v[i];
	return n;
}

/* Dtype and dims are right, and the values that the reference gives. */
static void check_reference(onnx_ctx *c, wanted_list *l, outcome *o)
{
	cx_err err = {0};
	for (size_t i = 0; i < l->n; i++) {
		wanted *w = &l->w[i];
		w->t = onnx_find(c, w->name);
		if (cx_is_none(w->t))
			snprintf(o->failed, sizeof o->failed, "nothing computes '%.60s'", w->name);
		else cx_output(c->g, w->name, w->t);
	}
	if (o->failed[0]) return;
	if (cx_graph_finish(c->g, &err) != CX_OK || ref_run_try(c->r, NULL, &err) != CX_OK) {
		snprintf(o->failed, sizeof o->failed, "%s", err.msg);
		return;
	}
	for (size_t i = 0; i < l->n; i++) {
		wanted *w = &l->w[i];
		cx_shape s = cx_tensor_shape(c->g, w->t), want = {.rank = w->dims.n};
		memcpy(want.dim, w->dims.v, sizeof want.dim);
		if (cx_tensor_dtype(c->g, w->t) != w->dtype || !cx_shape_equal(&s, &want)) {
			snprintf(o->failed, sizeof o->failed, "'%.60s' has dtype %s, or other dims", w->name,
				cx_dtype_get(cx_tensor_dtype(c->g, w->t))->name);
			return;
		}
		compare(o, "reference", w->name, w->dtype, w->data, c->r->value[w->t.id], elems(&w->dims));
	}
}

static cx_status run_exec(
	onnx_ctx *c, cx_exec *x, const wanted_list *l, const char *backend, outcome *o, cx_err *err)
{
	cx_status st;
	for (uint32_t id = 0; id < c->g->n_nodes; id++) {
		uint64_t bytes = 0;
		const cx_node *n = &c->g->nodes[id];
		int at = n->op == CX_OP_input ? cx_exec_input(x, n->name) : -1;
		if (at < 0) continue; /* simplified away, or no input */
		cx_dtype_bytes(n->desc.dtype, n->desc.rank, n->desc.dim, &bytes);
		if ((st = cx_exec_set_input(x, at, c->r->leaf[id], bytes, err)) != CX_OK) return st;
	}
	if ((st = cx_exec_run(x, err)) != CX_OK) return st;
	for (size_t i = 0; i < l->n; i++) {
		const wanted *w = &l->w[i];
		uint64_t bytes = 0;
		void *got;
		cx_dtype_bytes(w->dtype, w->dims.n, w->dims.v, &bytes);
		got = malloc(bytes ? bytes : 1);
		st = cx_exec_get_output(x, cx_exec_output(x, w->name), got, bytes, err);
		if (st == CX_OK) compare(o, backend, w->name, w->dtype, w->data, got, elems(&w->dims));
		free(got);
		if (st != CX_OK) return st;
	}
	return CX_OK;
}

static void check_plan(onnx_ctx *c, cx_runtime *rt, cx_device *dev, const wanted_list *l,
	const char *backend, outcome *o)
{
	cx_plan_opts opts = {.devices = &dev, .n_devices = 1, .verify = true};
	cx_plan *plan = NULL;
	cx_store *store = NULL;
	cx_exec *x = NULL;
	cx_err err = {0};
	if (o->failed[0]) return;
	if (cx_plan_build(c->g, &opts, &plan, &err) == CX_OK &&
		cx_store_create(rt, &store, &err) == CX_OK &&
		cx_exec_create(plan, store, &x, &err) == CX_OK)
		run_exec(c, x, l, backend, o, &err);
	if (err.code) snprintf(o->failed, sizeof o->failed, "%s: %s", backend, err.msg);
	cx_exec_free(x);
	cx_store_free(store);
	cx_plan_free(plan);
}

static outcome run_case(const archive *a, const char *test, cx_runtime *rt, cx_device *const *dev)
{
	ref_run *r = malloc(sizeof *r);
	onnx_ctx *c = calloc(1, sizeof *c);
	wanted_list l = {.n = 0};
	outcome o = {0};
	char name[300];
	const member *m;
	Onnx__ModelProto *model;
	snprintf(name, sizeof name, "%.255s/model.onnx", test);
	m = find_member(a, name);
	assert_non_null(m);
	model = onnx__model_proto__unpack(NULL, m->size, m->data);
	assert_non_null(model);
	ref_run_start(r);
	c->r = r;
	c->g = r->g;
	for (size_t i = 0; i < model->n_opset_import; i++)
		if (!model->opset_import[i]->domain || !model->opset_import[i]->domain[0])
			c->opset = model->opset_import[i]->version;
	if (read_inputs(c, a, test, model->graph) && read_outputs(c, a, test, model->graph, &l) &&
		onnx_import(c, model->graph)) {
		check_reference(c, &l, &o);
		for (int i = 0; dev[i]; i++) check_plan(c, rt, dev[i], &l, cx_device_name(dev[i]), &o);
	}
	o.why = c->why;
	o.op = c->why ? strdup(c->op) : NULL;
	o.widened = c->widened;
	for (size_t i = 0; i < l.n; i++) free(l.w[i].data);
	ref_run_end(r);
	onnx__model_proto__free_unpacked(model, NULL);
	free(r);
	free(c);
	return o;
}

/* ---- all cases ---- */

typedef struct group {
	char text[128];
	int n;
} group;
typedef struct groups {
	group *g;
	size_t n;
} groups;

static void count(groups *all, const char *op, const char *why)
{
	char text[128];
	snprintf(text, sizeof text, "%.40s: %.80s", op, why);
	for (size_t i = 0; i < all->n; i++)
		if (strcmp(all->g[i].text, text) == 0) {
			all->g[i].n++;
			return;
		}
	all->g = realloc(all->g, (all->n + 1) * sizeof *all->g);
	all->g[all->n].n = 1;
	snprintf(all->g[all->n++].text, sizeof text, "%s", text);
}

static int by_text(const void *a, const void *b)
{
	return strcmp(((const group *)a)->text, ((const group *)b)->text);
}

static void print_groups(groups *all)
{
	if (all->n) qsort(all->g, all->n, sizeof *all->g, by_text);
	for (size_t i = 0; i < all->n; i++) printf("  not ours %3d  %s\n", all->g[i].n, all->g[i].text);
	free(all->g);
}

static void test_cases(void **state)
{
	archive a = {0};
	groups others = {0};
	char path[512], line[4096];
	int total = 0, ours = 0, passed = 0, widened = 0;
	cx_runtime *rt = NULL;
	cx_device *dev[3] = {NULL};
	cx_config config = {.n_threads = 1};
	FILE *index = fopen(fixture("index.csv", path, sizeof path), "r");
	(void)state;
	if (!index || !open_archive(fixture("onnx-node-cases.tar.gz", path, sizeof path), &a)) {
		printf("no ONNX fixtures at %s: set CORTEX_FIXTURES\n", path);
		if (index) fclose(index);
		close_archive(&a);
		skip();
	}
	assert_int_equal(cx_runtime_create(&config, &rt, NULL), CX_OK);
	assert_int_equal(cx_device_open(rt, "ref", 0, &dev[0], NULL), CX_OK);
	assert_int_equal(cx_device_open(rt, "cpu", 0, &dev[1], NULL), CX_OK);
	assert_non_null(fgets(line, sizeof line, index)); /* the header */
	while (fgets(line, sizeof line, index)) {
		outcome o;
		*strchr(line, ',') = 0;
		o = run_case(&a, line, rt, dev);
		total++;
		if (o.why) {
			count(&others, o.op, o.why);
		} else {
			ours++;
			passed += !o.failed[0];
			widened += o.widened;
			if (o.failed[0]) printf("  FAIL %s: %s\n", line, o.failed);
		}
		free((char *)o.op);
	}
	fclose(index);
	close_archive(&a);
	print_groups(&others);
	printf("ONNX cases: %d in all, %d ours, %d passed (%d of ours in a wider or narrower type)\n",
		total, ours, passed, widened);
	cx_device_close(dev[0]);
	cx_device_close(dev[1]);
	cx_runtime_free(rt);
	assert_int_equal(total, N_CASES);
	assert_int_equal(passed, ours);
	assert_true(ours >= MIN_APPLIED);
}

/* ---- without fixtures: a model of two nodes, through the file format and back ---- */

static void test_own_model(void **state)
{
	char *in[] = {(char *)"x", (char *)"w"}, *mid[] = {(char *)"z"}, *outs[] = {(char *)"y"};
	int64_t dims[] = {2, 2};
	float w[] = {1, 2, 3, 4};
	uint8_t *bytes;
	size_t size;
	ref_run r;
	onnx_ctx *c = calloc(1, sizeof *c);
	Onnx__TensorProto t = ONNX__TENSOR_PROTO__INIT, *init[] = {&t};
	Onnx__NodeProto a = ONNX__NODE_PROTO__INIT, b = ONNX__NODE_PROTO__INIT,
					bad = ONNX__NODE_PROTO__INIT;
	Onnx__NodeProto *nodes[] = {&a, &b, &bad};
	Onnx__GraphProto g = ONNX__GRAPH_PROTO__INIT, *back;
	(void)state;
	t.n_dims = 2, t.dims = dims, t.has_data_type = 1, t.data_type = 1, t.name = (char *)"w";
	t.n_float_data = 4, t.float_data = w;
	a.op_type = (char *)"MatMul", a.n_input = 2, a.input = in, a.n_output = 1, a.output = mid;
	b.op_type = (char *)"Relu", b.n_input = 1, b.input = mid, b.n_output = 1, b.output = outs;
	bad.op_type = (char *)"Cheese", bad.n_output = 1, bad.output = outs;
	g.n_initializer = 1, g.initializer = init, g.n_node = 2, g.node = nodes;
	size = onnx__graph_proto__get_packed_size(&g);
	bytes = malloc(size);
	assert_int_equal(onnx__graph_proto__pack(&g, bytes), size);
	back = onnx__graph_proto__unpack(NULL, size, bytes);
	assert_non_null(back);
	ref_run_start(&r);
	c->r = &r;
	c->g = r.g;
	c->opset = 25;
	onnx_set(c, "x", ref_run_in(&r, CX_F32, DIMS_(1, 2), NUMS(1, -1)));
	assert_true(onnx_import(c, back));
	ref_run_eval(&r);
	EXPECT(&r, onnx_find(c, "y"), 0, 0, 0);
	EXPECT(&r, onnx_find(c, "z"), 0, -2, -2);
	g.n_node = 3;
	assert_false(onnx_import(c, &g));
	assert_string_equal(c->op, "Cheese");
	ref_run_end(&r);
	onnx__graph_proto__free_unpacked(back, NULL);
	free(bytes);
	free(c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_own_model), cmocka_unit_test(test_cases)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
