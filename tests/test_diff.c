/* test_diff.c - cortex diff: metrics, clean runs, seeded faults in a cpu device, reducing, 6,000
 * nodes in time, fills that fit their readers. */
#include "graph/diff.h"
#include "tests/faulty.h"
#include "tests/plan_graphs.h"
#include "tests/random_graph.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

static cx_runtime *rt;
static cx_err error;
#define OK(call)                                                                                   \
	do {                                                                                           \
		error = (cx_err){0};                                                                       \
		if ((call) != CX_OK) fail_msg("%s", error.msg);                                            \
	} while (0)

/* ---- graphs with content ---- */

typedef struct subject {
	cx_graph *g;
	cx_random_graph *rg; /* owns g; NULL: g is ours */
	void **leaf;
	bool from_reduce;
} subject;

static const void *leaf_of(void *ctx, const cx_graph *g, uint32_t id)
{
	subject *s = ctx;
	return s->from_reduce ? cx__diff_data(g, id) : s->leaf[id];
}

static void fill(subject *s, uint64_t seed)
{
	s->leaf = calloc(s->g->n_nodes + 1, sizeof *s->leaf);
	for (uint32_t i = 0; i < s->g->n_nodes; i++) {
		const cx_node *n = &s->g->nodes[i];
		uint64_t bytes = cx__desc_bytes(&n->desc);
		if (cx__ops[n->op].kind != CX_KIND_LEAF || n->op == CX_OP_const) continue;
		s->leaf[i] = calloc(bytes + 8, 1);
		if (s->rg) OK(cx__random_fill(s->rg, i, s->leaf[i], bytes));
		else if (n->op != CX_OP_state) cx__diff_fill(s->g, i, seed, s->leaf[i], bytes);
	}
}

static void subject_random(subject *s, uint64_t seed)
{
	cx_random_opts o = {.seed = seed, .n_nodes = 14, .f32_only = seed % 3 != 0};
	memset(s, 0, sizeof *s);
	OK(cx__random_graph(&o, NULL, &s->rg, &error));
	s->g = s->rg->g;
	fill(s, seed);
}

static void subject_model(subject *s, uint64_t seed)
{
	plan_model m = {.layers = 2,
		.tokens = 8,
		.width = 64,
		.heads = 4,
		.kv_heads = 2,
		.hidden = 96,
		.slots = 32};
	memset(s, 0, sizeof *s);
	OK(cx_graph_create(NULL, &s->g, &error));
	plan_build_model(s->g, &m);
	OK(cx_graph_finish(s->g, &error));
	fill(s, seed);
}

static void subject_free(subject *s)
{
	for (uint32_t i = 0; s->leaf && i < s->g->n_nodes; i++) free(s->leaf[i]);
	free(s->leaf);
	if (s->rg) cx__random_graph_free(s->rg);
	else cx_graph_free(s->g);
	memset(s, 0, sizeof *s);
}

static cx_diff *run(subject *s, cx_device *dev)
{
	cx_diff_opts o = {.devices = &dev, .n_devices = 1, .leaf = leaf_of, .ctx = s};
	cx_diff *d = NULL;
	OK(cx__diff_run(s->g, &o, &d, &error));
	return d;
}

static void print_bad(const cx_diff *d, const char *what)
{
	char text[160];
	for (uint32_t i = 0; i < d->n_rows; i++) {
		const cx_diff_row *r = &d->rows[i];
		if (r->bad)
			print_message("# %s: look %d, %s: nmse %g (tol %g), %lld odd, want %g, got %g\n", what,
				r->kind, cx__node_text(d->g, r->node, text, sizeof text), r->m.nmse, r->tol,
				(long long)r->m.n_odd, r->m.want, r->m.got);
	}
}

/* ---- metrics ---- */

static void metrics(void **state)
{
	const float want[5] = {1, -2, NAN, INFINITY, 4}, same[5] = {1, -2, NAN, INFINITY, 4};
	float got[5];
	int32_t a[3] = {1, 2, 3}, b[3] = {1, 7, 3};
	cx_metric m;
	(void)state;
	cx__metric(CX_F32, 5, want, same, 0, 0, &m);
	assert_true(m.inside && m.nmse == 0 && m.first_bad == -1 && m.nan_want == 1 && m.inf_got == 1);
	memcpy(got, want, sizeof got);
	got[1] = nextafterf(-2, 0);
	cx__metric(CX_F32, 5, want, got, 1e-10, 0, &m);
	assert_true(m.inside && m.max_ulp == 1 && m.nmse > 0);
	cx__metric(CX_F32, 5, want, got, 0, 0, &m);
	assert_true(!m.inside && m.first_bad == 1 && m.n_bad == 1);
	got[0] = NAN; /* never passes, whatever the tolerance */
	cx__metric(CX_F32, 5, want, got, 1e30, 1e30, &m);
	assert_true(!m.inside && m.n_odd == 1 && m.first_bad == 0 && m.nan_got == 2);
	got[0] = 1;
	got[3] = -INFINITY;
	cx__metric(CX_F32, 5, want, got, 1e30, 1e30, &m);
	assert_true(!m.inside && m.first_bad == 3);
	cx__metric(CX_I32, 3, a, b, 1, 0, &m);
	assert_true(!m.inside && m.first_bad == 1 && m.max_ulp == 5 && m.want == 2 && m.got == 7);
}

/* ---- faults ---- */

typedef struct target {
	bool fused;
	uint32_t node; /* or the step's last node */
} target;

static bool fault_from_node(fault *f, const cx_graph *g, uint32_t id)
{
	const cx_node *n = &g->nodes[id];
	if (n->root != id || n->op == CX_OP_proj || cx__ops[n->op].kind == CX_KIND_LEAF ||
		cx__ops[n->op].kind == CX_KIND_VIEW || n->op == CX_OP_copy || n->n_in > 64)
		return false;
	f->op = (cx_op)n->op;
	f->attr = n->attr;
	f->prog = n->prog;
	f->n_in = n->n_in;
	f->n_out = n->n_out;
	for (uint32_t j = 0; j < n->n_in; j++)
		f->in[j] = n->in[j] == CX_NO ? (cx_desc){.dtype = CX_DTYPE_COUNT} : g->nodes[n->in[j]].desc;
	for (uint32_t o = 0; o < n->n_out; o++) f->out[o] = g->nodes[id + o].desc;
	return true;
}

/* Whether this node's own step is one that the fault breaks. */
static bool node_is_hit(const fault *f, const cx_graph *g, uint32_t id)
{
	fault like = *f;
	return fault_from_node(&like, g, id) &&
		   fault_hits(f, like.op, like.attr, like.prog, like.n_in, like.n_out, like.in, like.out);
}

static bool has_epsilon(cx_op op)
{
	const cx_attr_info *info = &cx__attrs[cx__ops[op].attr];
	for (uint16_t i = 0; i < info->n_fields; i++)
		if (strcmp(info->fields[i].name, "eps") == 0 && op != CX_OP_adamw) return true;
	return false;
}

static bool step_desc(const cx_plan *p, const cx_pnode *n, fault *f)
{
	if (n->n_in > 64) return false;
	f->op = (cx_op)n->op;
	f->attr = n->attr;
	f->prog = n->prog;
	f->n_in = n->n_in;
	f->n_out = n->n_out;
	for (uint32_t j = 0; j < n->n_in; j++)
		f->in[j] = n->in[j] == CX_NO ? (cx_desc){.dtype = CX_DTYPE_COUNT} : p->t[n->in[j]].desc;
	for (uint32_t o = 0; o < n->n_out; o++) f->out[o] = p->t[n->out[o]].desc;
	return true;
}

typedef struct tally {
	int n, located, silent, by_kind[FAULT_COUNT], n_fused;
} tally;

static void judge(subject *s, cx_device *dev, fault *f, const char *fused_of, tally *t)
{
	cx_diff *d;
	bool right = false;
	f->on = true;
	f->n_effect = 0;
	d = run(s, dev);
	f->on = false;
	if (f->n_effect == 0) {
		t->silent++;
		cx__diff_free(d);
		return;
	}
	t->n++;
	t->by_kind[f->kind]++;
	t->n_fused += fused_of != NULL;
	if (d->first && !fused_of)
		right = d->first->kind == CX_DIFF_NODE && node_is_hit(f, s->g, d->first->node);
	if (d->first && fused_of)
		right =
			d->first->kind == CX_DIFF_FUSED && d->first->n_alone == 0 && fused_of[d->first->node];
	t->located += right;
	if (!right) {
		char text[160];
		print_message("# not located: %s in %s %s; first: %s, look %d\n", fault_names[f->kind],
			fused_of ? "fused" : "node", cx__ops[f->op].name,
			d->first ? cx__node_text(s->g, d->first->node, text, sizeof text) : "none",
			d->first ? (int)d->first->kind : -1);
	}
	cx__diff_free(d);
}

/* One fault in a single node's kernel. */
static void fault_in_node(subject *s, cx_device *dev, fault *f, cx_rng *rng, tally *t)
{
	for (int tries = 0; tries < 200; tries++) {
		uint32_t id = (uint32_t)cx__rng_int(rng, 0, s->g->n_nodes - 1);
		if (!fault_from_node(f, s->g, id)) continue;
		if (cx__desc_elems(&f->out[0]) < 2) continue;
		f->kind = (fault_kind)cx__rng_int(rng, 0, FAULT_COUNT - 1);
		if (has_epsilon(f->op) && tries % 3 == 0) f->kind = FAULT_EPSILON;
		if (f->kind == FAULT_EPSILON && !has_epsilon(f->op)) continue;
		f->seed = cx__rng_u64(rng);
		judge(s, dev, f, NULL, t);
		return;
	}
}

/* One fault in a fused kernel of the plan. */
static void fault_in_step(subject *s, cx_device *dev, fault *f, cx_rng *rng, tally *t)
{
	cx_plan_opts o = {.devices = &dev, .n_devices = 1};
	cx_plan *p = NULL;
	char *of = calloc(s->g->n_nodes + 1, 1);
	OK(cx_plan_build(s->g, &o, &p, &error));
	for (int tries = 0; tries < 100; tries++) {
		const cx_pnode *n = &p->n[p->order[cx__rng_int(rng, 0, p->n_order - 1)]];
		if (n->n_origin < 2 || cx__ops[n->op].kind != CX_KIND_FUSED || !step_desc(p, n, f))
			continue;
		if (cx__desc_elems(&f->out[0]) < 2) continue;
		for (uint32_t i = 0; i < p->n_order; i++) {
			const cx_pnode *m = &p->n[p->order[i]];
			fault like = *f;
			uint32_t last = 0;
			if (!step_desc(p, m, &like) || !fault_hits(f, like.op, like.attr, like.prog, like.n_in,
											   like.n_out, like.in, like.out))
				continue;
			for (uint32_t k = 0; k < m->n_origin; k++)
				if (m->origin[k] > last && s->g->nodes[m->origin[k]].root == m->origin[k])
					last = m->origin[k];
			if (s->g->nodes[last].op == CX_OP_proj) last = s->g->nodes[last].in[0];
			of[last] = 1;
		}
		f->kind = (fault_kind)cx__rng_int(rng, 0, FAULT_INDEX);
		f->seed = cx__rng_u64(rng);
		judge(s, dev, f, of, t);
		break;
	}
	cx_plan_free(p);
	free(of);
}

static void seeded_faults(void **state)
{
	enum { WANT = 100 };
	fault f = {0};
	cx_device *dev = faulty_open(rt, &f);
	tally t = {0};
	int n_clean = 0, dirty = 0;
	(void)state;
	assert_non_null(dev);
	for (uint64_t seed = 0; t.n < WANT && seed < 200; seed++) {
		cx_rng rng = cx__rng_make(seed, 11);
		subject s;
		cx_diff *d;
		if (seed % 2) subject_model(&s, seed);
		else subject_random(&s, seed);
		d = run(&s, dev);
		n_clean++;
		dirty += d->n_bad > 0 || d->n_refused > 0 || d->notes[0].code != CX_OK;
		if (d->n_bad) print_bad(d, "clean run");
		if (d->notes[0].code != CX_OK) print_message("# clean run: %s\n", d->notes[0].msg);
		cx__diff_free(d);
		fault_in_node(&s, dev, &f, &rng, &t);
		if (t.n < WANT) fault_in_node(&s, dev, &f, &rng, &t);
		if (t.n < WANT && seed % 3 == 0) fault_in_step(&s, dev, &f, &rng, &t);
		subject_free(&s);
	}
	print_message(
		"# %d of %d faults located (%d of them in fused kernels); %d more changed nothing "
		"beyond the tolerance; %d of %d clean runs reported something\n",
		t.located, t.n, t.n_fused, t.silent, dirty, n_clean);
	for (int k = 0; k < FAULT_COUNT; k++)
		print_message("#   %2d %s\n", t.by_kind[k], fault_names[k]);
	assert_int_equal(t.n, WANT);
	assert_true(t.located >= 98);
	assert_int_equal(dirty, 0);
	cx_device_close(dev);
}

/* ---- reduce ---- */

/* The reduced graph, printed and parsed, fails in the same op on the same device, and not without
 * the fault. */
static void reduce_one(subject *s, cx_device *dev, fault *f, int *n_reduced)
{
	cx_diff *d, *again;
	cx_graph *small = NULL;
	subject t = {.from_reduce = true};
	char *text = NULL;
	size_t n = 0;
	uint16_t op;
	f->on = true;
	d = run(s, dev);
	if (!d->first) goto done;
	op = s->g->nodes[d->first->node].op;
	OK(cx__diff_reduce(d, d->first, &small, &error));
	OK(cx_graph_print(small, NULL, &text, &n, &error));
	cx_graph_free(small);
	OK(cx_graph_parse(text, n, NULL, &t.g, &error));
	again = run(&t, dev);
	assert_non_null(again->first);
	assert_int_equal(again->first->kind, d->first->kind);
	assert_int_equal(t.g->nodes[again->first->node].op, op);
	assert_true(t.g->n_nodes < s->g->n_nodes);
	cx__diff_free(again);
	f->on = false;
	again = run(&t, dev);
	if (again->n_bad) print_bad(again, "reduced, clean");
	assert_int_equal(again->n_bad, 0);
	cx__diff_free(again);
	cx_graph_free(t.g);
	cx_free(NULL, text, n + 1);
	++*n_reduced;
done:
	f->on = false;
	cx__diff_free(d);
}

static void reduce(void **state)
{
	static const cx_op ops[] = {CX_OP_rmsnorm, CX_OP_matmul, CX_OP_rope, CX_OP_scatter,
		CX_OP_paged_attention, CX_OP_silu, CX_OP_gather};
	fault f = {0};
	cx_device *dev = faulty_open(rt, &f);
	int n_reduced = 0;
	subject s;
	(void)state;
	assert_non_null(dev);
	subject_model(&s, 5);
	for (size_t k = 0; k < sizeof ops / sizeof *ops; k++) {
		uint32_t id = 0;
		while (s.g->nodes[id].op != ops[k]) id++;
		assert_true(fault_from_node(&f, s.g, id));
		f.kind = FAULT_SCALE;
		reduce_one(&s, dev, &f, &n_reduced);
	}
	assert_int_equal(n_reduced, sizeof ops / sizeof *ops);
	subject_free(&s);
	cx_device_close(dev);
}

/* A fault that no node alone shows: wrong only in programs of many steps. It is charged to the node
 * where the run goes wrong, and the reduced graph keeps enough around it. */
static void whole_run(void **state)
{
	fault f = {.kind = FAULT_BARRIER};
	cx_device *dev = faulty_open(rt, &f);
	uint32_t id = 0;
	int n_reduced = 0;
	subject s;
	cx_diff *d;
	(void)state;
	assert_non_null(dev);
	subject_model(&s, 9);
	d = run(&s, dev);
	for (uint32_t i = 0; i < d->n_rows; i++) {
		if (d->rows[i].kind != CX_DIFF_NODE) continue;
		assert_true(d->rows[i].grown >= 0 && d->rows[i].grown <= 1e-9);
	}
	cx__diff_free(d);
	while (s.g->nodes[id].op != CX_OP_paged_attention) id++;
	assert_true(fault_from_node(&f, s.g, id));
	f.min_steps = 6;
	f.on = true;
	d = run(&s, dev);
	f.on = false;
	assert_non_null(d->first);
	assert_int_equal(d->first->kind, CX_DIFF_WHOLE);
	assert_int_equal(d->first->node, id);
	assert_true(d->first->grown > d->first->tol);
	for (uint32_t i = 0; i < d->n_rows; i++) /* what grew from it is not charged */
		if (d->rows[i].bad) assert_true(node_is_hit(&f, s.g, d->rows[i].node));
	cx__diff_free(d);
	reduce_one(&s, dev, &f, &n_reduced);
	assert_int_equal(n_reduced, 1);
	subject_free(&s);
	cx_device_close(dev);
}

/* ---- content for leaves that nobody gave ---- */

static void fills(void **state)
{
	cx_device *dev = NULL;
	int n_wrong = 0;
	(void)state;
	OK(cx_device_open(rt, "cpu", 0, &dev, &error));
	for (int op = 0; op < CX_OP_COUNT; op++) { /* every op takes what its leaves get */
		cx_random_opts o = {.seed = 40 + (uint64_t)op, .f32_only = true, .fused = true};
		cx_random_graph *rg = NULL;
		subject s = {0};
		cx_diff *d;
		if (cx__ops[op].kind == CX_KIND_LEAF || cx__ops[op].kind == CX_KIND_META) continue;
		OK(cx__random_case((cx_op)op, &o, NULL, &rg, &error));
		s.g = rg->g;
		fill(&s, 3);
		for (uint32_t i = 0; i < s.g->n_nodes; i++) {
			const cx_node *n = &s.g->nodes[i];
			if (n->op != CX_OP_gather) continue;
			for (int64_t k = 0; s.leaf[n->in[1]] && k < cx__desc_elems(&s.g->nodes[n->in[1]].desc);
				 k++) {
				const cx_desc *x = &s.g->nodes[n->in[0]].desc;
				int32_t v = ((const int32_t *)s.leaf[n->in[1]])[k];
				assert_in_range(v, 0, x->dim[((const cx_attr_axis *)n->attr)->axis] - 1);
			}
		}
		d = run(&s, dev);
		if (d->n_bad) print_bad(d, cx__ops[op].name);
		n_wrong += d->n_bad > 0;
		cx__diff_free(d);
		for (uint32_t i = 0; i < s.g->n_nodes; i++) free(s.leaf[i]);
		free(s.leaf);
		cx__random_graph_free(rg);
	}
	assert_int_equal(n_wrong, 0);
	cx_device_close(dev);
}

/* ---- size ---- */

static double now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void six_thousand_nodes(void **state)
{
	cx_device *dev = NULL;
	subject s = {0};
	cx_diff *d;
	double t;
	(void)state;
	OK(cx_device_open(rt, "cpu", 0, &dev, &error));
	OK(cx_graph_create(NULL, &s.g, &error));
	plan_build_mixed(s.g, 6000);
	OK(cx_graph_finish(s.g, &error));
	fill(&s, 1);
	t = now();
	d = run(&s, dev);
	t = now() - t;
	print_message("# %u nodes, %u rows, %u plans of single nodes: %.2f s; %u out of tolerance\n",
		s.g->n_nodes, d->n_rows, d->n_plans, t, d->n_bad);
	if (d->n_bad) print_bad(d, "6,000 nodes");
	assert_int_equal(d->n_bad, 0);
	assert_true(d->n_plans <= 100);
	assert_true(t <= 120);
	cx__diff_free(d);
	subject_free(&s);
	cx_device_close(dev);
}

/* Every allocation may fail: a status, nothing left behind. */
static void memory(void **state)
{
	cx_device *dev = NULL;
	long n_calls = 0;
	int n_failed = 0;
	subject s;
	(void)state;
	OK(cx_device_open(rt, "cpu", 0, &dev, &error));
	subject_random(&s, 4);
	for (long k = -1; k < n_calls; k += k < 40 ? 1 : 1 + n_calls / 60) {
		cx_fault fault = {.countdown = k};
		cx_diff_opts o = {.devices = &dev,
			.n_devices = 1,
			.leaf = leaf_of,
			.ctx = &s,
			.alloc = cx_alloc_fault(&fault)};
		cx_diff *d = NULL;
		cx_err e = {0};
		cx_status st = cx__diff_run(s.g, &o, &d, &e);
		if (k < 0) n_calls = fault.n_calls;
		if (st != CX_OK) assert_true(st == CX_ERR_MEMORY && fault.fired && d == NULL);
		n_failed += st != CX_OK;
		cx__diff_free(d);
		assert_int_equal(fault.n_live, 0);
	}
	print_message("# %ld allocations, %d refusals\n", n_calls, n_failed);
	assert_true(n_failed > 20);
	subject_free(&s);
	cx_device_close(dev);
}

static void refused(void **state)
{
	plan_cripple lacks = {0};
	cx_device *dev;
	subject s;
	cx_diff *d;
	uint32_t n = 0;
	(void)state;
	lacks.lacks[CX_OP_paged_attention] = true;
	dev = plan_cripple_open(rt, &lacks);
	assert_non_null(dev);
	subject_model(&s, 2);
	d = run(&s, dev);
	for (uint32_t i = 0; i < d->n_rows; i++) n += d->rows[i].refused;
	assert_int_equal(n, 2); /* one per layer; the others are compared */
	assert_int_equal(d->n_refused, 2);
	assert_true(d->n_bad == 0 && d->first == NULL);
	assert_non_null(strstr(d->notes[0].msg, "paged_attention"));
	cx__diff_free(d);
	subject_free(&s);
	cx_device_close(dev);
}

static int setup(void **state)
{
	(void)state;
	return cx_runtime_create(&(cx_config){.n_threads = 2}, &rt, NULL) == CX_OK ? 0 : -1;
}

static int teardown(void **state)
{
	(void)state;
	cx_runtime_free(rt);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(metrics), cmocka_unit_test(whole_run),
		cmocka_unit_test(seeded_faults), cmocka_unit_test(reduce), cmocka_unit_test(fills),
		cmocka_unit_test(six_thousand_nodes), cmocka_unit_test(memory), cmocka_unit_test(refused)};
	return cmocka_run_group_tests_name("diff", tests, setup, teardown);
}
