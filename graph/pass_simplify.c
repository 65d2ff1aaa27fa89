/* pass_simplify.c - fewer nodes, same values: folded constants, identities, equal nodes once, dead
 * nodes gone.
 *
 * One walk in order. rep[t] is the tensor that takes the place of root t; it has the same dims and
 * dtype, and is dense wherever t has views, so that these can be moved over by their offset. Only
 * rewrites that keep every bit are done here: x * 1 and x - 0 are, x + 0 is not (-0 + 0 is 0). */
#include "graph/plan.h"

#include <string.h>

typedef struct simplifier {
	cx_plan *p;
	uint32_t *rep;     /* [n_t] */
	uint8_t *has_view; /* [n_t] roots */
	uint32_t *table;   /* open addressing: node ids, or tensor ids for constants; CX_NO is free */
	uint32_t mask;
} simplifier;

static uint32_t resolve(simplifier *s, uint32_t t)
{
	cx_ptensor *all = s->p->t;
	uint32_t root;
	if (t == CX_NO) return t;
	while (s->rep[t] != CX_NO) t = s->rep[t];
	root = all[t].root;
	if (root != t && s->rep[root] != CX_NO) {
		while (s->rep[root] != CX_NO) root = s->rep[root];
		all[t].view_off += all[root].view_off;
		all[t].root = all[root].root;
	}
	return t;
}

/* ---- identities ---- */

static bool is_scalar(const cx_plan *p, uint32_t t, float value)
{
	const cx_ptensor *v = &p->t[t], *root = &p->t[v->root];
	float x;
	if (root->leaf != CX_OP_const || root->trusted)
		return false; /* folded ones are checked by name */
	if (root->desc.dtype != CX_F32 || cx__desc_elems(&root->desc) != 1) return false;
	memcpy(&x, root->data, sizeof x);
	return memcmp(&x, &value, sizeof x) == 0; /* -0 is not 0 */
}

/* Before the legaliser made x dense for someone, a copy is a value of its own name only. */
static uint32_t identity(const cx_plan *p, const cx_pnode *n)
{
	uint32_t a = n->n_in > 0 ? n->in[0] : CX_NO, b = n->n_in > 1 ? n->in[1] : CX_NO, def;
	switch (n->op) {
	case CX_OP_cast:
	case CX_OP_copy:
	case CX_OP_pad:
		return a;
	case CX_OP_concat:
		return n->n_in == 1 ? a : CX_NO;
	case CX_OP_neg:
		def = p->t[a].def;
		if (def == CX_NO || p->n[def].op != CX_OP_neg) return CX_NO;
		return p->n[def].in[0];
	case CX_OP_mul:
		if (is_scalar(p, b, 1.0f)) return a;
		return is_scalar(p, a, 1.0f) ? b : CX_NO;
	case CX_OP_div:
		return is_scalar(p, b, 1.0f) ? a : CX_NO;
	case CX_OP_sub:
		return is_scalar(p, b, 0.0f) ? a : CX_NO;
	default:
		return CX_NO;
	}
}

static bool replaceable(const simplifier *s, uint32_t t, uint32_t by)
{
	const cx_ptensor *a = &s->p->t[t], *b = &s->p->t[by];
	if (a->state != CX_NO || a->desc.dtype != b->desc.dtype ||
		!cx__desc_same_dims(&a->desc, &b->desc))
		return false;
	return !s->has_view[t] || cx__desc_is_dense(&b->desc);
}

static void replace(simplifier *s, cx_pnode *n, const uint32_t *by)
{
	for (uint32_t o = 0; o < n->n_out; o++) {
		s->rep[n->out[o]] = by[o];
		s->p->t[n->out[o]].def = CX_NO;
	}
	n->flags |= CX_PNODE_DEAD;
}

/* ---- equal nodes ---- */

static uint64_t mix(uint64_t h, uint64_t v)
{
	h = (h ^ v) * 0x9e3779b97f4a7c15u;
	return h ^ (h >> 29);
}

static uint64_t node_hash(const cx_plan *p, const cx_pnode *n)
{
	cx_attr_id attr = cx__ops[n->op].attr;
	uint64_t h = mix(mix(n->op, n->n_in),
		cx__attr_hash(attr, n->attr ? n->attr : cx__attrs[attr].defaults));
	for (uint32_t j = 0; j < n->n_in; j++) {
		if (n->in[j] == CX_NO) continue;
		h = mix(
			mix(h, p->t[n->in[j]].root + ((uint64_t)j << 32)), (uint64_t)p->t[n->in[j]].view_off);
	}
	for (int i = 0; i < p->t[n->out[0]].desc.rank; i++)
		h = mix(h, (uint64_t)p->t[n->out[0]].desc.dim[i]);
	return h;
}

static bool same_operand(const cx_plan *p, uint32_t a, uint32_t b)
{
	if (a == b) return true;
	if (a == CX_NO || b == CX_NO) return false;
	return p->t[a].root == p->t[b].root && p->t[a].view_off == p->t[b].view_off &&
		   cx__desc_equal(&p->t[a].desc, &p->t[b].desc);
}

static bool same_node(const cx_plan *p, const cx_pnode *a, const cx_pnode *b)
{
	cx_attr_id id = cx__ops[a->op].attr;
	if (a->op != b->op || a->n_in != b->n_in || a->n_out != b->n_out || a->prog != b->prog)
		return false;
	for (uint32_t j = 0; j < a->n_in; j++)
		if (!same_operand(p, a->in[j], b->in[j])) return false;
	for (uint32_t o = 0; o < a->n_out; o++)
		if (p->t[a->out[o]].desc.dtype != p->t[b->out[o]].desc.dtype ||
			!cx__desc_same_dims(&p->t[a->out[o]].desc, &p->t[b->out[o]].desc))
			return false;
	return cx__attr_equal(
		id, a->attr ? a->attr : cx__attrs[id].defaults, b->attr ? b->attr : cx__attrs[id].defaults);
}

/* Finds an equal earlier node, or enters this one. */
static uint32_t intern_node(simplifier *s, uint32_t id)
{
	const cx_plan *p = s->p;
	uint32_t at = (uint32_t)(node_hash(p, &p->n[id]) >> 32) & s->mask;
	for (; s->table[at] != CX_NO; at = (at + 1) & s->mask)
		if (same_node(p, &p->n[s->table[at]], &p->n[id])) return s->table[at];
	s->table[at] = id;
	return CX_NO;
}

static void simplify_node(simplifier *s, uint32_t id)
{
	cx_plan *p = s->p;
	cx_pnode *n = &p->n[id];
	uint32_t by, twin;
	for (uint32_t j = 0; j < n->n_in; j++) n->in[j] = resolve(s, n->in[j]);
	by = identity(p, n);
	if (by != CX_NO && replaceable(s, n->out[0], by)) {
		replace(s, n, &by);
		return;
	}
	for (uint32_t o = 0; o < n->n_out; o++)
		if (p->t[n->out[o]].state != CX_NO) return; /* each update happens */
	twin = intern_node(s, id);
	if (twin != CX_NO) replace(s, n, p->n[twin].out);
}

/* ---- small constants ---- */

enum { SMALL_CONST = 16 }; /* bytes; scalars and eps, of which model code makes hundreds */

static void merge_constants(simplifier *s)
{
	cx_plan *p = s->p;
	for (uint32_t t = 0; t < p->g->n_nodes; t++) {
		uint64_t bytes, h;
		uint32_t at;
		if (p->t[t].leaf != CX_OP_const || p->t[t].root != t || p->t[t].trusted)
			continue; /* folded: by name */
		bytes = cx__desc_bytes(&p->t[t].desc);
		if (bytes == 0 || bytes > SMALL_CONST) continue;
		h = mix(p->t[t].desc.dtype, bytes);
		for (uint64_t i = 0; i < bytes; i++) h = mix(h, ((const unsigned char *)p->t[t].data)[i]);
		for (at = (uint32_t)(h >> 32) & s->mask; s->table[at] != CX_NO; at = (at + 1) & s->mask) {
			const cx_ptensor *u = &p->t[s->table[at]];
			if (u->desc.dtype == p->t[t].desc.dtype &&
				cx__desc_same_dims(&u->desc, &p->t[t].desc) &&
				memcmp(u->data, p->t[t].data, bytes) == 0)
				break;
		}
		if (s->table[at] == CX_NO) s->table[at] = t;
		else s->rep[t] = s->table[at];
	}
	memset(s->table, 0xff, ((size_t)s->mask + 1) * sizeof *s->table);
}

/* ---- dead nodes ---- */

cx_status cx__plan_drop_dead(cx_plan *p, cx_err *err)
{
	uint8_t *live = cx_arena_alloc(&p->tmp, p->n_t);
	if (!live) return cx__plan_oom(err);
	for (uint32_t i = 0; i < p->n_outs; i++) live[p->t[p->outs[i].t].root] = 1;
	for (uint32_t i = p->n_order; i-- > 0;) {
		cx_pnode *n = &p->n[p->order[i]];
		bool keep = false;
		if (n->flags & CX_PNODE_DEAD) continue;
		for (uint32_t o = 0; o < n->n_out; o++) {
			const cx_ptensor *t = &p->t[n->out[o]]; /* folded away: def is no longer this */
			keep |= t->def == p->order[i] && (live[n->out[o]] || t->state != CX_NO);
		}
		if (!keep) {
			n->flags |= CX_PNODE_DEAD;
			for (uint32_t o = 0; o < n->n_out; o++) p->t[n->out[o]].def = CX_NO;
			continue;
		}
		for (uint32_t j = 0; j < n->n_in; j++)
			if (n->in[j] != CX_NO) live[p->t[n->in[j]].root] = 1;
	}
	return CX_OK;
}

cx_status cx__pass_simplify(cx_plan *p, cx_err *err)
{
	simplifier s = {.p = p, .mask = 63};
	cx_status st;
	if ((st = cx__plan_fold(p, err)) != CX_OK) return st;
	if ((st = cx__plan_drop_dead(p, err)) != CX_OK) return st; /* what is folded is no twin */
	while (s.mask < 2 * (p->g->n_nodes + p->n_order)) s.mask = s.mask * 2 + 1;
	s.rep = cx_arena_array(&p->tmp, p->n_t, sizeof *s.rep);
	s.has_view = cx_arena_alloc(&p->tmp, p->n_t);
	s.table = cx_arena_array(&p->tmp, (size_t)s.mask + 1, sizeof *s.table);
	if (!s.rep || !s.has_view || !s.table) return cx__plan_oom(err);
	memset(s.rep, 0xff, p->n_t * sizeof *s.rep);
	memset(s.table, 0xff, ((size_t)s.mask + 1) * sizeof *s.table);
	for (uint32_t t = 0; t < p->n_t; t++)
		if (p->t[t].root != t) s.has_view[p->t[t].root] = 1;
	merge_constants(&s);
	for (uint32_t i = 0; i < p->n_order; i++)
		if (!(p->n[p->order[i]].flags & CX_PNODE_DEAD)) simplify_node(&s, p->order[i]);
	for (uint32_t i = 0; i < p->n_outs; i++) p->outs[i].t = resolve(&s, p->outs[i].t);
	return cx__plan_drop_dead(p, err);
}
