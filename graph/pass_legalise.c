/* pass_legalise.c - makes every node one that a device has a kernel for: dense copies of strided
 * operands that kernels refuse, and by rule simpler ops in place of one that is missing.
 *
 * What cannot be helped is left as it is: place refuses it by name. With fallback allowed, a later
 * device that runs the node as it stands comes after copies and rules on an earlier one. */
#include "graph/plan.h"

#include <string.h>

enum { MAX_DEPTH = 4, MAX_RULE_NODES = 16 };

typedef struct legaliser {
	cx_plan *p;
	uint32_t *dense; /* [n_t] at the start: dense copy of a tensor, or CX_NO */
	uint32_t n_t;
	cx_err *err;
} legaliser;

/* A dense copy of t, made once, just before its first reader. */
static cx_status make_dense(legaliser *l, uint32_t t, uint32_t src, uint32_t *out)
{
	cx_plan *p = l->p;
	uint32_t node;
	if (t < l->n_t && l->dense[t] != CX_NO) {
		*out = l->dense[t];
		return CX_OK;
	}
	*out = cx__plan_root(p, &p->t[t].desc, CX_NO);
	if (*out == CX_NO) return cx__plan_oom(l->err);
	node = cx__plan_node(p, CX_OP_copy, &t, 1, out, 1, NULL, src);
	if (node == CX_NO) return cx__plan_oom(l->err);
	p->n[node].reason = CX_WHY_DENSE;
	if (t < l->n_t) l->dense[t] = *out;
	return cx__plan_push(p, node, l->err);
}

/* Which operands must be dense for the kernel of this device: bits by position, up to 64; false:
 * none helps. */
bool cx__plan_dense_set(cx_plan *p, uint32_t dev, const cx_pnode *n, uint64_t *set)
{
	const cx_backend *b = p->devs[dev].dev->backend;
	cx_kernel_key key = cx__plan_key(p, n);
	uint32_t n_in = n->n_in < 64 ? n->n_in : 64;
	*set = 0;
	for (uint32_t j = 0; j < n_in; j++) {
		if (n->in[j] == CX_NO || cx__desc_is_dense(&p->key[j])) continue;
		cx__desc_dense(&p->key[j]);
		*set |= (uint64_t)1 << j;
	}
	if (!*set || !b->find(p->devs[dev].dev, &key)) return false;
	for (uint32_t j = 0; j < n_in; j++) { /* give back what it can read as it is */
		if (!(*set >> j & 1)) continue;
		p->key[j] = p->t[n->in[j]].desc;
		if (b->find(p->devs[dev].dev, &key)) *set &= ~((uint64_t)1 << j);
		else cx__desc_dense(&p->key[j]);
	}
	return true;
}

static cx_status legalise_node(legaliser *l, uint32_t id, int depth);

static cx_status by_rule(legaliser *l, uint32_t dev, uint32_t id, int depth, bool *done)
{
	uint32_t made[MAX_RULE_NODES], n = 0;
	cx_status st = cx__plan_rule(l->p, dev, id, made, &n, l->err);
	*done = n > 0;
	for (uint32_t i = 0; i < n && st == CX_OK; i++) st = legalise_node(l, made[i], depth + 1);
	return st;
}

static cx_status legalise_node(legaliser *l, uint32_t id, int depth)
{
	cx_plan *p = l->p;
	cx_status st;
	for (uint32_t o = 0; o < p->n[id].n_out; o++) { /* what is updated in place must be in order */
		int j = cx__pnode_alias(&p->n[id], o);
		uint32_t dense, t = j >= 0 ? p->n[id].in[j] : CX_NO;
		if (t == CX_NO || cx__desc_is_dense(&p->t[t].desc)) continue;
		if ((st = make_dense(l, t, p->n[id].src, &dense)) != CX_OK) return st;
		p->n[id].in[j] = dense;
	}
	for (uint32_t dev = 0; dev < p->n_devs; dev++) {
		uint64_t set;
		bool done = false;
		if (cx__plan_find(p, dev, &p->n[id])) break;
		if (cx__plan_dense_set(p, dev, &p->n[id], &set)) {
			for (uint32_t j = 0; j < p->n[id].n_in && j < 64; j++) {
				uint32_t dense;
				if (!(set >> j & 1)) continue;
				if ((st = make_dense(l, p->n[id].in[j], p->n[id].src, &dense)) != CX_OK) return st;
				p->n[id].in[j] = dense;
			}
			break;
		}
		if (depth < MAX_DEPTH && (st = by_rule(l, dev, id, depth, &done)) != CX_OK) return st;
		if (done) return CX_OK;
	}
	return cx__plan_push(p, id, l->err);
}

cx_status cx__pass_legalise(cx_plan *p, cx_err *err)
{
	legaliser l = {.p = p, .n_t = p->n_t, .err = err};
	uint32_t n = p->n_order, *old = cx_arena_memdup(&p->tmp, p->order, n * sizeof *old);
	cx_status st;
	l.dense = cx_arena_array(&p->tmp, p->n_t, sizeof *l.dense);
	if (!old || !l.dense) return cx__plan_oom(err);
	memset(l.dense, 0xff, p->n_t * sizeof *l.dense);
	p->n_order = 0;
	for (uint32_t i = 0; i < n; i++)
		if ((st = legalise_node(&l, old[i], 0)) != CX_OK) return st;
	return CX_OK;
}
