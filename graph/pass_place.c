/* pass_place.c - a device for every node, or a refusal that names it; copies between devices.
 *
 * The first device in order of preference that has a kernel. A state lives on one device, where all
 * its updates run. A root that is read elsewhere is copied whole, once per device, just before its
 * first reader there; leaves but states are bound on every device that reads them and need no copy.
 */
#include "graph/plan.h"

#include <stdio.h>
#include <string.h>

cx_status cx__plan_refuse(cx_plan *p, const cx_pnode *n, cx_err *err)
{
	char where[160], ops[120] = "";
	size_t at = 0;
	cx__pnode_text(p, n, where, sizeof where);
	for (uint32_t j = 0; j < n->n_in && at + 40 < sizeof ops; j++) {
		char dims[80] = "-";
		cx_shape s = {0};
		if (n->in[j] == CX_NO) continue;
		s.rank = p->t[n->in[j]].desc.rank;
		memcpy(s.dim, p->t[n->in[j]].desc.dim, sizeof s.dim);
		cx_shape_text(&s, dims, sizeof dims);
		at += (size_t)snprintf(ops + at, sizeof ops - at, "%s%s%.28s", at ? ", " : "",
			cx_dtype_get(p->t[n->in[j]].desc.dtype)->name, dims);
		if (at >= sizeof ops) break;
	}
	return CX_FAIL(err, CX_ERR_UNSUPPORTED, "%s has no kernel for %s(%s): %s",
		p->devs[0].dev->backend->name, cx__ops[n->op].name, ops, where);
}

/* The state whose version output o of n is, or CX_NO. */
static uint32_t updates(const cx_plan *p, const cx_pnode *n)
{
	for (uint32_t o = 0; o < n->n_out; o++)
		if (p->t[n->out[o]].state != CX_NO) return p->t[n->out[o]].state;
	return CX_NO;
}

static uint32_t pick(cx_plan *p, const cx_pnode *n)
{
	for (uint32_t dev = 0; dev < p->n_devs; dev++)
		if (cx__plan_find(p, dev, n)) return dev;
	return CX_NO;
}

/* Puts all updates of each state, and of states updated by the same nodes, on one device. */
static cx_status settle_states(cx_plan *p, cx_err *err)
{
	bool changed = true;
	while (changed) {
		changed = false;
		for (uint32_t i = 0; i < p->n_order; i++) {
			cx_pnode *n = &p->n[p->order[i]];
			uint8_t dev = n->dev;
			if (updates(p, n) == CX_NO) continue;
			for (uint32_t o = 0; o < n->n_out; o++) {
				uint32_t s = p->t[n->out[o]].state;
				if (s != CX_NO && p->states[s].dev > dev) dev = p->states[s].dev;
			}
			while (dev < p->n_devs && !cx__plan_find(p, dev, n)) dev++;
			if (dev >= p->n_devs) return cx__plan_refuse(p, n, err);
			if (dev != n->dev) changed = true;
			n->dev = dev;
			for (uint32_t o = 0; o < n->n_out; o++) {
				uint32_t s = p->t[n->out[o]].state;
				if (s == CX_NO || p->states[s].dev == dev) continue;
				p->states[s].dev = dev;
				changed = true;
			}
		}
	}
	return CX_OK;
}

static cx_status move_root(
	cx_plan *p, uint32_t *moved, uint32_t root, uint8_t dev, uint32_t src, cx_err *err)
{
	uint32_t out = cx__plan_root(p, &p->t[root].desc, CX_NO), node;
	if (out == CX_NO) return cx__plan_oom(err);
	node = cx__plan_node(p, CX_OP_copy, &root, 1, &out, 1, NULL, src);
	if (node == CX_NO) return cx__plan_oom(err);
	p->n[node].flags |= CX_PNODE_XDEV;
	p->n[node].reason = CX_WHY_DEVICE;
	p->n[node].dev = dev;
	p->t[out].dev = dev;
	moved[root] = out;
	p->stats.n_copies++;
	return cx__plan_push(p, node, err);
}

static cx_status bring_operand(
	cx_plan *p, uint32_t **moved, uint32_t n_t, uint32_t id, uint32_t j, cx_err *err)
{
	uint32_t t = p->n[id].in[j], root, view;
	uint8_t dev = p->n[id].dev;
	cx_status st;
	if (t == CX_NO) return CX_OK;
	root = p->t[t].root;
	if (p->t[root].def == CX_NO && p->t[root].leaf != CX_OP_state) return CX_OK;
	if (p->t[root].dev == dev) return CX_OK;
	if (!moved[dev]) {
		moved[dev] = cx_arena_array(&p->tmp, n_t, sizeof **moved);
		if (!moved[dev]) return cx__plan_oom(err);
		memset(moved[dev], 0xff, n_t * sizeof **moved);
	}
	if (moved[dev][root] == CX_NO &&
		(st = move_root(p, moved[dev], root, dev, p->n[id].src, err)) != CX_OK)
		return st;
	if (t == root) {
		p->n[id].in[j] = moved[dev][root];
		return CX_OK;
	}
	view = cx__plan_view(p, moved[dev][root], p->t[t].view_off, &p->t[t].desc, p->t[t].src);
	if (view == CX_NO) return cx__plan_oom(err);
	p->n[id].in[j] = view;
	return CX_OK;
}

static cx_status insert_copies(cx_plan *p, cx_err *err)
{
	uint32_t n = p->n_order, n_t = p->n_t,
			 *old = cx_arena_memdup(&p->tmp, p->order, n * sizeof *old);
	uint32_t **moved = cx_arena_array(&p->tmp, p->n_devs, sizeof *moved);
	cx_status st;
	if (!old || !moved) return cx__plan_oom(err);
	p->n_order = 0;
	for (uint32_t i = 0; i < n; i++) {
		for (uint32_t j = 0; j < p->n[old[i]].n_in; j++)
			if ((st = bring_operand(p, moved, n_t, old[i], j, err)) != CX_OK) return st;
		if ((st = cx__plan_push(p, old[i], err)) != CX_OK) return st;
	}
	return CX_OK;
}

cx_status cx__pass_place(cx_plan *p, cx_err *err)
{
	bool elsewhere = false;
	cx_status st;
	for (uint32_t i = 0; i < p->n_order; i++) {
		cx_pnode *n = &p->n[p->order[i]];
		uint32_t dev = pick(p, n);
		if (dev == CX_NO) return cx__plan_refuse(p, n, err);
		n->dev = (uint8_t)dev;
	}
	if (p->n_devs > 1 && (st = settle_states(p, err)) != CX_OK) return st;
	for (uint32_t s = 0; s < p->n_states; s++) p->t[p->states[s].leaf].dev = p->states[s].dev;
	for (uint32_t i = 0; i < p->n_order; i++) {
		cx_pnode *n = &p->n[p->order[i]];
		for (uint32_t o = 0; o < n->n_out; o++) p->t[n->out[o]].dev = n->dev;
		n->kernel = cx__plan_find(p, n->dev, n);
		if (!n->kernel) return cx__plan_refuse(p, n, err);
		if (n->dev == 0) continue;
		elsewhere = true;
		n->reason = CX_WHY_FALLBACK;
		p->stats.n_fallback++;
	}
	return elsewhere ? insert_copies(p, err) : CX_OK;
}
