/* harness_plan.c - runs random graphs through the planner and compares with the reference. */
#include "tests/harness.h"

#include <stdio.h>
#include <string.h>

/* How far the end of a graph may be from the reference, by cx_rvalue.prec. One op is held to its
 * row's tolerance (cx_plan_check.tol); here errors of many ops, and of 16-bit roundings that fell
 * the other way, have come together. */
static const double end_tol[4] = {1e-12, 1e-7, 1e-4, 1e-2};

typedef struct run {
	const cx_random_graph *rg;
	const cx_values *want;
	const cx_plan_check *check;
	cx_store *store;
	cx_plan *plan;
	cx_exec *exec;
	cx_alloc alloc;
	void **first; /* [n_outputs] what the first run gave */
	cx_err *err;
} run;

static cx_status set_leaves(run *r)
{
	const cx_graph *g = r->rg->g;
	cx_status st = CX_OK;
	for (uint32_t i = 0; i < g->n_nodes && st == CX_OK; i++) {
		const cx_node *n = &g->nodes[i];
		if (n->op == CX_OP_weight)
			st = cx_store_weight(r->store, n->name, n->desc.dtype, n->desc.rank, n->desc.dim,
				r->want->leaf[i], r->want->bytes[i], r->err);
	}
	return st;
}

/* Inputs that the planner found unused are not there. */
static cx_status set_inputs(run *r)
{
	const cx_graph *g = r->rg->g;
	cx_status st = CX_OK;
	for (uint32_t i = 0; i < g->n_nodes && st == CX_OK; i++) {
		const cx_node *n = &g->nodes[i];
		int input = n->op == CX_OP_input ? cx_exec_input(r->exec, n->name) : -1;
		if (input >= 0)
			st = cx_exec_set_input(r->exec, input, r->want->leaf[i], r->want->bytes[i], r->err);
		if (n->op == CX_OP_state) {
			cx_err none = {0}; /* a state that nothing uses need not exist */
			cx_store_state_write(r->store, n->name, r->want->leaf[i], r->want->bytes[i], &none);
		}
	}
	return st;
}

static cx_status compare(run *r, const char *what, const char *name, uint32_t id, const void *want,
	const void *got, uint8_t prec)
{
	const cx_desc *d = &r->rg->g->nodes[id].desc;
	const cx_tol *tol = r->check->tol;
	double limit = end_tol[prec], floor = r->check->floor > 0 ? r->check->floor : 1e-3;
	char node[120];
	cx_close c;
	if (tol) limit = d->dtype == CX_F16 ? tol->f16 : d->dtype == CX_BF16 ? tol->bf16 : tol->f32;
	if (r->check->same_bits) limit = 0;
	if (cx__is_inside(d->dtype, cx__desc_elems(d), want, got, limit, floor, &c)) return CX_OK;
	return CX_FAIL(r->err, CX_ERR_ARGUMENT,
		"seed %llu: %s '%s' (%s): nmse %.3g (limit %.3g), %lld odd; [%lld] is %.9g, must be %.9g",
		(unsigned long long)r->rg->opts.seed, what, name,
		cx__node_text(r->rg->g, id, node, sizeof node), c.nmse, limit, (long long)c.n_odd,
		(long long)c.at, c.got, c.want);
}

static cx_status check_outputs(run *r, void *buf, bool again)
{
	const cx_graph *g = r->rg->g;
	cx_status st;
	for (uint32_t o = 0; o < g->n_outputs; o++) {
		uint32_t id = g->outputs[o].id;
		int output = cx_exec_output(r->exec, g->outputs[o].name);
		uint64_t bytes = r->want->bytes[id];
		if (output < 0)
			return CX_FAIL(r->err, CX_ERR_ARGUMENT, "output '%s' is lost", g->outputs[o].name);
		memset(buf, 0x5a, bytes); /* so that what is not written shows */
		if ((st = cx_exec_get_output(r->exec, output, buf, bytes, r->err)) != CX_OK) return st;
		if (again && memcmp(buf, r->first[o], bytes) != 0)
			return CX_FAIL(r->err, CX_ERR_ARGUMENT,
				"seed %llu: output '%s' differs in the second run",
				(unsigned long long)r->rg->opts.seed, g->outputs[o].name);
		if (again) continue;
		memcpy(r->first[o], buf, bytes);
		st =
			compare(r, "output", g->outputs[o].name, id, r->want->node[id], buf, r->rg->v[id].prec);
		if (st != CX_OK) return st;
	}
	return CX_OK;
}

/* The worst precision among the versions of a state. */
static uint8_t state_prec(const cx_random_graph *rg, uint32_t leaf)
{
	uint8_t prec = 0;
	for (uint32_t i = 0; i < rg->g->n_nodes; i++)
		if (rg->g->nodes[i].state == leaf && rg->v[i].prec > prec) prec = rg->v[i].prec;
	return prec;
}

static cx_status check_states(run *r, void *buf)
{
	const cx_graph *g = r->rg->g;
	cx_status st;
	for (uint32_t i = 0; i < g->n_nodes; i++) {
		if (g->nodes[i].op != CX_OP_state || !(g->nodes[i].flags & CX_NODE_STATE_UPDATED)) continue;
		st = cx_store_state_read(r->store, g->nodes[i].name, buf, r->want->bytes[i], r->err);
		if (st == CX_OK)
			st = compare(
				r, "state", g->nodes[i].name, i, r->want->state[i], buf, state_prec(r->rg, i));
		if (st != CX_OK) return st;
	}
	return CX_OK;
}

static cx_status run_twice(run *r, void *buf)
{
	cx_status st = set_leaves(r);
	if (st == CX_OK) st = cx_exec_create(r->plan, r->store, &r->exec, r->err);
	for (int i = 0; i < 2 && st == CX_OK; i++) {
		if ((st = set_inputs(r)) != CX_OK) break;
		if ((st = cx_exec_run(r->exec, r->err)) != CX_OK) break;
		if ((st = check_outputs(r, buf, i > 0)) != CX_OK) break;
		st = check_states(r, buf);
	}
	return st;
}

cx_status cx__harness_plan(cx_runtime *rt, const cx_random_graph *rg, const cx_values *want,
	const cx_plan_check *check, cx_plan_stats *stats, cx_err *err)
{
	run r = {.rg = rg, .want = want, .check = check, .alloc = want->alloc, .err = err};
	cx_plan_opts opts = {.devices = check->devices,
		.n_devices = check->n_devices,
		.allow_fallback = check->allow_fallback,
		.no_fuse = check->no_fuse,
		.verify = true};
	const cx_graph *g = rg->g;
	uint64_t most = 1;
	void *buf = NULL;
	cx_status st = CX_OK;
	for (uint32_t i = 0; i < want->n; i++)
		if (want->bytes[i] > most) most = want->bytes[i];
	buf = cx_malloc(&r.alloc, most);
	r.first = cx_calloc(&r.alloc, g->n_outputs + 1, sizeof r.first[0]);
	if (!buf || !r.first) st = CX_FAIL(err, CX_ERR_MEMORY, "harness: out of memory");
	for (uint32_t o = 0; o < g->n_outputs && st == CX_OK; o++) {
		r.first[o] = cx_malloc(&r.alloc, want->bytes[g->outputs[o].id] + 1);
		if (!r.first[o]) st = CX_FAIL(err, CX_ERR_MEMORY, "harness: out of memory");
	}
	if (st == CX_OK) st = cx_plan_build(g, &opts, &r.plan, err);
	if (st == CX_OK && stats) cx_plan_get_stats(r.plan, stats);
	if (st == CX_OK) st = cx_store_create(rt, &r.store, err);
	if (st == CX_OK) st = run_twice(&r, buf);
	cx_exec_free(r.exec);
	cx_store_free(r.store);
	cx_plan_free(r.plan);
	for (uint32_t o = 0; o < g->n_outputs && r.first; o++)
		cx_free(&r.alloc, r.first[o], want->bytes[g->outputs[o].id] + 1);
	cx_free(&r.alloc, r.first, (g->n_outputs + 1) * sizeof r.first[0]);
	cx_free(&r.alloc, buf, most);
	return st;
}
