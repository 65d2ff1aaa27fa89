/* plan_run.c - see plan_run.h. */
#include "tests/plan_run.h"
#include "tests/harness.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- the reference ---- */

static const void *on_leaf(void *ctx, const cx_graph *g, uint32_t id)
{
	plan_want *w = ctx;
	return w->run == 1 && g->nodes[id].op == CX_OP_state ? w->state[0][id] : w->leaf[id];
}

static void *copy_of(const void *data, uint64_t bytes)
{
	void *p = malloc(bytes + 1);
	if (p) memcpy(p, data, bytes);
	return p;
}

static void on_node(void *ctx, const cx_graph *g, uint32_t id, const void *data, uint64_t bytes)
{
	plan_want *w = ctx;
	for (uint32_t i = 0; i < g->n_outputs; i++)
		if (g->outputs[i].id == id) w->out[w->run][i] = copy_of(data, bytes);
}

static void on_state(void *ctx, const cx_graph *g, uint32_t leaf, const void *data, uint64_t bytes)
{
	plan_want *w = ctx;
	(void)g;
	w->state[w->run][leaf] = copy_of(data, bytes);
}

static void **pointers(uint32_t n)
{
	return calloc(n + 1, sizeof(void *));
}

/* Twice, for what a state brings into the next run. */
static void mark_narrow(const cx_graph *g, bool *narrow)
{
	for (uint32_t k = 0; k < 2 * g->n_nodes; k++) {
		uint32_t i = k % g->n_nodes;
		const cx_node *n = &g->nodes[i];
		narrow[i] |= n->desc.dtype == CX_F16 || n->desc.dtype == CX_BF16;
		for (uint32_t j = 0; j < n->n_in; j++) narrow[i] |= n->in[j] != CX_NO && narrow[n->in[j]];
		if (n->state != CX_NO) narrow[n->state] |= narrow[i];
	}
}

cx_status plan_want_make(const cx_graph *g, plan_fill *fill, void *ctx, plan_want *w, cx_err *err)
{
	cx_ref_io io = {.ctx = w, .leaf = on_leaf, .node = on_node, .state = on_state};
	cx_status st = CX_OK;
	memset(w, 0, sizeof *w);
	w->g = g;
	w->bytes = calloc(g->n_nodes + 1, sizeof *w->bytes);
	w->narrow = calloc(g->n_nodes + 1, sizeof *w->narrow);
	mark_narrow(g, w->narrow);
	w->leaf = pointers(g->n_nodes);
	for (int r = 0; r < 2; r++) {
		w->out[r] = pointers(g->n_outputs);
		w->state[r] = pointers(g->n_nodes);
	}
	for (uint32_t i = 0; i < g->n_nodes; i++) {
		const cx_node *n = &g->nodes[i];
		w->bytes[i] = cx__desc_bytes(&n->desc);
		if (cx__ops[n->op].kind != CX_KIND_LEAF || n->op == CX_OP_const) continue;
		w->leaf[i] = calloc(w->bytes[i] + 1, 1);
		if (!fill(ctx, i, w->leaf[i], w->bytes[i]))
			return CX_FAIL(err, CX_ERR_ARGUMENT, "test: leaf %u has no data", i);
	}
	for (w->run = 0; w->run < 2 && st == CX_OK; w->run++) st = cx__ref_eval(g, NULL, &io, err);
	return st;
}

void plan_want_free(plan_want *w)
{
	for (uint32_t i = 0; w->g && i < w->g->n_nodes; i++) {
		free(w->leaf[i]);
		free(w->state[0][i]);
		free(w->state[1][i]);
	}
	for (uint32_t i = 0; w->g && i < w->g->n_outputs; i++) {
		free(w->out[0][i]);
		free(w->out[1][i]);
	}
	free(w->leaf);
	free(w->bytes);
	free(w->narrow);
	for (int r = 0; r < 2; r++) {
		free(w->out[r]);
		free(w->state[r]);
	}
	memset(w, 0, sizeof *w);
}

/* ---- comparison ---- */

static bool is_nan(cx_dtype t, const void *p, int64_t i)
{
	uint32_t u32;
	uint16_t u16;
	if (t == CX_F32) {
		memcpy(&u32, (const char *)p + 4 * i, 4);
		return (u32 & 0x7fffffffu) > 0x7f800000u;
	}
	memcpy(&u16, (const char *)p + 2 * i, 2);
	return (u16 & 0x7fffu) > (t == CX_F16 ? 0x7c00u : 0x7f80u);
}

static bool same_bits(cx_dtype t, const void *a, const void *b, uint64_t bytes)
{
	int64_t size = cx_dtype_get(t)->block_bytes;
	if (memcmp(a, b, bytes) == 0) return true;
	if (cx_dtype_get(t)->cls != CX_CLASS_FLOAT) return false;
	for (int64_t i = 0; i < (int64_t)bytes / size; i++) {
		if (memcmp((const char *)a + i * size, (const char *)b + i * size, (size_t)size) == 0)
			continue;
		if (!is_nan(t, a, i) || !is_nan(t, b, i)) return false;
	}
	return true;
}

static cx_status compare(const plan_want *w, uint32_t id, const char *what, const char *name,
	int run, const void *want, const void *got, const plan_check *c, bool exact, cx_err *err)
{
	const cx_node *n = &w->g->nodes[id];
	uint64_t bytes = w->bytes[id];
	double tol = w->narrow[id] && c->tol_narrow ? c->tol_narrow : c->tol;
	cx_close d = {0};
	if (exact && tol == 0) {
		if (same_bits(n->desc.dtype, want, got, bytes)) return CX_OK;
		cx__is_inside(n->desc.dtype, cx__desc_elems(&n->desc), want, got, 0, 0, &d);
		return CX_FAIL(err, CX_ERR_ARGUMENT,
			"run %d: %s '%s' (%s): bits differ; worst at %lld: want %g, got %g", run + 1, what,
			name, cx_dtype_get(n->desc.dtype)->name, (long long)d.at, d.want, d.got);
	}
	if (tol == 0) tol = w->narrow[id] ? 1e-4 : 1e-7;
	if (cx__is_inside(n->desc.dtype, cx__desc_elems(&n->desc), want, got, tol,
			c->floor > 0 ? c->floor : 1e-3, &d))
		return CX_OK;
	return CX_FAIL(err, CX_ERR_ARGUMENT,
		"run %d: %s '%s': nmse %g, %lld odd; at %lld: want %g, got %g", run + 1, what, name, d.nmse,
		(long long)d.n_odd, (long long)d.at, d.want, d.got);
}

static cx_status compare_run(const plan_want *w, cx_exec *x, cx_store *s, int run,
	const plan_check *c, bool exact, cx_err *err)
{
	cx_status st = CX_OK;
	for (uint32_t i = 0; i < w->g->n_outputs && st == CX_OK; i++) {
		uint32_t id = w->g->outputs[i].id;
		const char *name = w->g->outputs[i].name;
		void *got = calloc(w->bytes[id] + 1, 1);
		st = cx_exec_get_output(x, cx_exec_output(x, name), got, w->bytes[id], err);
		if (st == CX_OK)
			st = compare(w, id, "output", name, run, w->out[run][i], got, c, exact, err);
		free(got);
	}
	for (uint32_t i = 0; i < w->g->n_nodes && st == CX_OK; i++) {
		const char *name = w->g->nodes[i].name;
		void *got;
		if (w->g->nodes[i].op != CX_OP_state) continue;
		got = calloc(w->bytes[i] + 1, 1);
		st = cx_store_state_read(s, name, got, w->bytes[i], err);
		if (st == CX_OK)
			st = compare(w, i, "state", name, run, w->state[run][i], got, c, exact, err);
		free(got);
	}
	return st;
}

/* ---- running ---- */

static cx_status bind_weights(const plan_want *w, cx_store *s, cx_err *err)
{
	cx_status st = CX_OK;
	for (uint32_t i = 0; i < w->g->n_nodes && st == CX_OK; i++) {
		const cx_node *n = &w->g->nodes[i];
		if (n->op == CX_OP_weight)
			st = cx_store_weight(
				s, n->name, n->desc.dtype, n->desc.rank, n->desc.dim, w->leaf[i], w->bytes[i], err);
	}
	return st;
}

static cx_status bind_rest(const plan_want *w, cx_store *s, cx_exec *x, cx_err *err)
{
	cx_status st = CX_OK;
	for (uint32_t i = 0; i < w->g->n_nodes && st == CX_OK; i++) {
		const cx_node *n = &w->g->nodes[i];
		if (n->op == CX_OP_input)
			st = cx_exec_set_input(x, cx_exec_input(x, n->name), w->leaf[i], w->bytes[i], err);
		if (n->op == CX_OP_state)
			st = cx_store_state_write(s, n->name, w->leaf[i], w->bytes[i], err);
	}
	return st;
}

cx_status plan_run_check(
	const plan_want *w, cx_runtime *rt, const plan_check *c, cx_plan **out_plan, cx_err *err)
{
	cx_plan *plan = NULL;
	cx_store *store = NULL;
	cx_exec *x = NULL;
	cx_status st = cx_plan_build(w->g, &c->opts, &plan, err);
	if (st == CX_OK) st = cx_store_create(rt, &store, err);
	if (st == CX_OK) st = bind_weights(w, store, err);
	if (st == CX_OK) st = cx_exec_create(plan, store, &x, err);
	if (st == CX_OK) st = bind_rest(w, store, x, err);
	for (int run = 0; run < 2 && st == CX_OK; run++) {
		st = cx_exec_run(x, err);
		if (st == CX_OK) st = compare_run(w, x, store, run, c, plan_is_exact(plan), err);
	}
	cx_exec_free(x);
	cx_store_free(store);
	if (out_plan) *out_plan = plan;
	else cx_plan_free(plan);
	return st;
}

bool plan_is_exact(const cx_plan *p)
{
	for (uint32_t i = 0; i < p->n_order; i++) {
		switch (p->n[p->order[i]].fusion) {
		case CX_FUSION_attention:
		case CX_FUSION_softmax_scale:
		case CX_FUSION_conv_silu:
		case CX_FUSION_embed_sum:
			return false;
		default:
			break;
		}
		if (p->n[p->order[i]].reason == CX_WHY_RULE) return false;
	}
	return true;
}

uint32_t plan_count(const cx_plan *p, cx_op op)
{
	uint32_t n = 0;
	for (uint32_t i = 0; i < p->n_order; i++) n += p->n[p->order[i]].op == op;
	return n;
}

uint32_t plan_count_fused(const cx_plan *p, cx_fusion fusion)
{
	uint32_t n = 0;
	for (uint32_t i = 0; i < p->n_order; i++) n += p->n[p->order[i]].fusion == fusion;
	return n;
}

bool plan_missed(const cx_plan *p, cx_fusion fusion, cx_reason why)
{
	for (uint32_t i = 0; i < p->n_misses; i++)
		if (p->misses[i].fusion == fusion && p->misses[i].reason == why) return true;
	return false;
}

/* ---- a device that can do less ---- */

static cx_backend crippled;
static const cx_backend *whole;
static plan_cripple *lacking;

static const cx_kernel *crippled_find(const cx_device *dev, const cx_kernel_key *key)
{
	if (lacking->lacks[key->op]) return NULL;
	for (uint32_t j = 0; lacking->wants_dense && key->op != CX_OP_copy && j < key->n_in; j++)
		if (key->in[j].dtype != CX_DTYPE_COUNT && !cx__desc_is_dense(&key->in[j])) return NULL;
	return whole->find(dev, key);
}

cx_device *plan_cripple_open(cx_runtime *rt, plan_cripple *what)
{
	cx_device *dev;
	if (cx_device_open(rt, "ref", 0, &dev, NULL) != CX_OK) return NULL;
	lacking = what;
	whole = dev->backend;
	crippled = *whole;
	crippled.name = "crippled";
	crippled.find = crippled_find;
	dev->backend = &crippled;
	strcpy(dev->name, "crippled:0");
	return dev;
}
