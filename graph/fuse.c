/* fuse.c - the fuse pass: walks the nodes once per row of fusions.def, lets its pattern propose,
 * and decides.
 *
 * A group may become one node if: all members run on one device; a value that stays inside is read
 * by members only, and is neither output nor state; there is a place in the order after all that it
 * reads and before all that reads it (so no cycle arises), and on the right side of state updates;
 * op and shapes agree with the op's row; and find() has a kernel. plan_verify.c checks the outcome
 * by comparing what is computed, not by these rules. */
#include "graph/fuse.h"
#include "graph/quant.h"

#include <string.h>

uint32_t cx__fuse_def(const cx_fuser *f, uint32_t t)
{
	uint32_t d;
	if (t == CX_NO || f->p->t[t].root != t || f->p->t[t].def == CX_NO) return CX_NO;
	d = cx__plan_live(f->p, f->p->t[t].def);
	return f->p->n[d].flags & CX_PNODE_DEAD ? CX_NO : d;
}

uint32_t cx__fuse_def_op(const cx_fuser *f, uint32_t t, cx_op op)
{
	uint32_t d = cx__fuse_def(f, t);
	return d != CX_NO && f->p->n[d].op == op && f->p->n[d].n_out == 1 && f->p->n[d].out[0] == t
			   ? d
			   : CX_NO;
}

uint32_t cx__fuse_reader(const cx_fuser *f, uint32_t t)
{
	uint32_t d;
	if (t >= f->rd.n_t || f->p->t[t].is_output || f->p->t[t].state != CX_NO) return CX_NO;
	if (f->rd.start[t + 1] - f->rd.start[t] != 1) return CX_NO;
	d = cx__plan_live(f->p, f->rd.node[f->rd.start[t]]);
	return f->p->n[d].flags & CX_PNODE_DEAD ? CX_NO : d;
}

uint32_t cx__fuse_reader_op(const cx_fuser *f, uint32_t t, cx_op op)
{
	uint32_t d = cx__fuse_reader(f, t);
	return d != CX_NO && f->p->n[d].op == op ? d : CX_NO;
}

bool cx__fuse_same(const cx_fuser *f, uint32_t a, uint32_t b)
{
	const cx_ptensor *x, *y;
	if (a == b) return true;
	if (a == CX_NO || b == CX_NO) return false;
	x = &f->p->t[a];
	y = &f->p->t[b];
	return x->root == y->root && x->view_off == y->view_off && cx__desc_equal(&x->desc, &y->desc);
}

bool cx__fuse_scalar(const cx_fuser *f, uint32_t t, float *value)
{
	const cx_ptensor *root;
	uint16_t half;
	if (t == CX_NO) return false;
	root = &f->p->t[f->p->t[t].root];
	if (root->leaf != CX_OP_const || cx__desc_elems(&root->desc) != 1) return false;
	if (root->desc.dtype == CX_F32) {
		memcpy(value, root->data, sizeof *value);
		return true;
	}
	if (root->desc.dtype != CX_F16 && root->desc.dtype != CX_BF16) return false;
	memcpy(&half, root->data, sizeof half);
	*value = root->desc.dtype == CX_F16 ? cx_f16_to_f32(half) : cx_bf16_to_f32(half);
	return true;
}

uint32_t cx__fuse_other(const cx_fuser *f, uint32_t node, uint32_t t)
{
	const cx_pnode *n = &f->p->n[node];
	if (n->in[0] == t) return n->in[1] == t ? CX_NO : n->in[1];
	return n->in[1] == t ? n->in[0] : CX_NO;
}

/* ---- legality ---- */

static bool is_out(const cx_group *g, uint32_t t)
{
	for (uint32_t o = 0; o < g->n_out; o++)
		if (g->out[o] == t) return true;
	return false;
}

/* Whether node n makes the next version of root r, in place. */
static bool updates_root(const cx_plan *p, const cx_pnode *n, uint32_t r)
{
	for (uint32_t o = 0; o < n->n_out; o++) {
		int j = cx__pnode_alias(n, o);
		if (j >= 0 && (uint32_t)j < n->n_in && n->in[j] != CX_NO && p->t[n->in[j]].root == r &&
			p->t[n->out[o]].state != CX_NO)
			return true;
	}
	return false;
}

enum { MANY_READERS = 256 }; /* of one value; past that a fusion around it is not looked for */

/* Updates lo (slots from there on) and hi (slots before it) for what reads root r, which member m
 * makes. */
static cx_reason check_value(
	cx_fuser *f, const cx_group *g, uint32_t t, uint32_t mark, uint32_t *hi)
{
	const cx_plan *p = f->p;
	bool out = is_out(g, t);
	if (t >= f->rd.n_t) return CX_WHY_MISS_READER;
	if (!out && (p->t[t].is_output || p->t[t].state != CX_NO)) return CX_WHY_MISS_OUTPUT;
	if (f->rd.start[t + 1] - f->rd.start[t] > MANY_READERS) return CX_WHY_MISS_LIMIT;
	for (uint32_t i = f->rd.start[t]; i < f->rd.start[t + 1]; i++) {
		const cx_pnode *r = &p->n[cx__plan_live(p, f->rd.node[i])];
		if (r->mark == mark || r->flags & CX_PNODE_DEAD) continue;
		if (!out) return CX_WHY_MISS_READER;
		if (r->pos < *hi) *hi = r->pos;
	}
	return CX_WHY_FUSED;
}

/* The same for an operand of member m: its producer, and updates of a state that it reads or makes.
 */
static cx_reason check_operand(
	cx_fuser *f, const cx_pnode *m, uint32_t t, uint32_t mark, uint32_t *lo, uint32_t *hi)
{
	const cx_plan *p = f->p;
	uint32_t r = p->t[t].root;
	bool m_updates;
	if (p->t[r].def != CX_NO) {
		const cx_pnode *d = &p->n[cx__plan_live(p, p->t[r].def)];
		if (d->mark != mark && d->pos + 1 > *lo) *lo = d->pos + 1;
	}
	if (p->t[r].state == CX_NO || r >= f->rd.n_t) return CX_WHY_FUSED;
	m_updates = updates_root(p, m, r);
	if (f->rd.start[r + 1] - f->rd.start[r] > MANY_READERS) return CX_WHY_MISS_LIMIT;
	for (uint32_t i = f->rd.start[r]; i < f->rd.start[r + 1]; i++) {
		const cx_pnode *o = &p->n[cx__plan_live(p, f->rd.node[i])];
		if (o == m || o->flags & CX_PNODE_DEAD) continue;
		if (o->mark == mark) { /* a member that updates what another one reads */
			if (m_updates || updates_root(p, o, r)) return CX_WHY_MISS_ORDER;
		} else if (m_updates && o->pos < m->pos) {
			if (o->pos + 1 > *lo) *lo = o->pos + 1;
		} else if (o->pos > m->pos && updates_root(p, o, r)) {
			if (o->pos < *hi) *hi = o->pos;
		}
	}
	return CX_WHY_FUSED;
}

cx_reason cx__fuse_check(cx_fuser *f, const cx_group *g, uint32_t *slot)
{
	cx_plan *p = f->p;
	uint32_t lo = 0, hi = CX_NO, best = CX_NO, mark = ++p->mark;
	cx_reason why;
	if (g->n_member >= CX_GROUP_MEMBERS || g->n_in >= CX_GROUP_IN) return CX_WHY_MISS_LIMIT;
	for (uint32_t i = 0; i < g->n_member; i++) {
		cx_pnode *m = &p->n[g->member[i]];
		if (m->flags || m->dev != p->n[g->member[0]].dev) return CX_WHY_MISS_READER;
		m->mark = mark;
	}
	for (uint32_t j = 0; j < g->n_in;
		 j++) { /* a view of an inner value would be read before it is written */
		uint32_t r = g->in[j] == CX_NO ? CX_NO : p->t[g->in[j]].root;
		if (r != CX_NO && p->t[r].def != CX_NO && p->n[cx__plan_live(p, p->t[r].def)].mark == mark)
			return CX_WHY_MISS_ORDER;
	}
	for (uint32_t i = 0; i < g->n_member; i++) {
		const cx_pnode *m = &p->n[g->member[i]];
		for (uint32_t o = 0; o < m->n_out; o++)
			if ((why = check_value(f, g, m->out[o], mark, &hi)) != CX_WHY_FUSED) return why;
		for (uint32_t j = 0; j < m->n_in; j++)
			if (m->in[j] != CX_NO &&
				(why = check_operand(f, m, m->in[j], mark, &lo, &hi)) != CX_WHY_FUSED)
				return why;
	}
	for (uint32_t i = 0; i < g->n_member; i++) { /* only a member's own place is free */
		uint32_t pos = p->n[g->member[i]].pos;
		if (pos >= lo && pos < hi && pos < best) best = pos;
	}
	*slot = best;
	return best == CX_NO ? CX_WHY_MISS_ORDER : CX_WHY_FUSED;
}

/* ---- commit ---- */

static bool take_origins(cx_plan *p, const cx_group *g, cx_pnode *node)
{
	uint32_t n = 0, last = 0;
	for (uint32_t i = 0; i < g->n_member; i++)
		n += p->n[g->member[i]].origin ? p->n[g->member[i]].n_origin : 1;
	node->origin = cx_arena_array(&p->arena, n, sizeof *node->origin);
	if (!node->origin) return false;
	for (uint32_t i = 0; i < g->n_member; i++) {
		const cx_pnode *m = &p->n[g->member[i]];
		if (m->origin)
			memcpy(node->origin + node->n_origin, m->origin, m->n_origin * sizeof *m->origin);
		else node->origin[node->n_origin] = m->src;
		node->n_origin += m->origin ? m->n_origin : 1;
		if (m->src >= last) last = m->src;
	}
	node->src = last;
	return true;
}

static bool out_of_memory(cx_fuser *f)
{
	f->st = cx__plan_oom(f->err);
	return false;
}

/* Tensors whose node this would be, as cx__plan_node() sets them; put back if there is no kernel.
 */
static void restore_defs(cx_plan *p, const cx_pnode *n, const uint32_t *def)
{
	for (uint32_t o = 0; o < n->n_out; o++) p->t[n->out[o]].def = def[o];
}

bool cx__fuse_commit(cx_fuser *f, const cx_group *g, bool note)
{
	cx_plan *p = f->p;
	size_t attr_size = cx__attrs[cx__ops[g->op].attr].size;
	uint32_t slot = 0, id, def[CX_MAX_OUT];
	cx_reason why;
	cx_pnode probe = {
		.op = (uint16_t)g->op, .n_in = g->n_in, .n_out = (uint8_t)g->n_out, .prog = g->prog};
	void *attr;
	if (f->st != CX_OK || g->n_member < 2) return false;
	if ((why = cx__fuse_check(f, g, &slot)) != CX_WHY_FUSED) goto miss;
	probe.in = (uint32_t *)g->in;
	probe.attr = (void *)g->attr;
	memcpy(probe.out, g->out, sizeof probe.out);
	probe.dev = p->n[g->member[0]].dev;
	probe.kernel = cx__plan_find(p, probe.dev, &probe);
	why = CX_WHY_MISS_KERNEL;
	if (!probe.kernel) goto miss;
	why = CX_WHY_MISS_SHAPE;
	if (cx__plan_shape(p, &probe, NULL) != CX_OK) goto miss;
	attr = cx_arena_memdup(&p->arena, g->attr, attr_size);
	probe.prog = g->prog ? cx_arena_memdup(&p->arena, g->prog, sizeof *g->prog) : NULL;
	if (!attr || (g->prog && !probe.prog)) return out_of_memory(f);
	for (uint32_t o = 0; o < g->n_out; o++) def[o] = p->t[g->out[o]].def;
	id = cx__plan_node(p, g->op, g->in, g->n_in, g->out, g->n_out, attr, CX_NO);
	if (id == CX_NO) return out_of_memory(f);
	if (!take_origins(p, g, &p->n[id])) {
		restore_defs(p, &p->n[id], def);
		return out_of_memory(f);
	}
	p->n[id].prog = probe.prog;
	p->n[id].kernel = probe.kernel;
	p->n[id].dev = probe.dev;
	p->n[id].fusion = (uint8_t)f->kind;
	p->n[id].reason = CX_WHY_FUSED;
	p->n[id].pos = slot;
	p->order[slot] = id;
	f->changed = true;
	for (uint32_t i = 0; i < g->n_member; i++) {
		p->n[g->member[i]].flags |= CX_PNODE_DEAD;
		p->n[g->member[i]].into = id;
	}
	return true;
miss:
	if (note && cx__plan_miss(p, f->kind, p->n[g->member[0]].src, why) != CX_OK) out_of_memory(f);
	return false;
}

/* ---- the pass ---- */

static const struct {
	cx_fusion kind;
	void (*run)(cx_fuser *, uint32_t);
	bool backwards;
} rows[] = {
#define CX_FUSION(name, why) {CX_FUSION_##name, cx__fuse_##name, CX_FUSION_##name == CX_FUSION_map},
#include "graph/fusions.def"
#undef CX_FUSION
};

cx_status cx__pass_fuse(cx_plan *p, cx_err *err)
{
	cx_fuser f = {.p = p, .err = err, .changed = true};
	for (uint32_t i = 0; i < p->n_outs; i++) p->t[p->t[p->outs[i].t].root].is_output = 1;
	if (p->opts.no_fuse) return CX_OK;
	for (size_t r = 0; r < sizeof rows / sizeof rows[0]; r++) {
		cx_status st;
		f.kind = rows[r].kind;
		if (f.changed) { /* by the row before: who reads what is counted again */
			cx_arena_reset(&p->tmp);
			cx__plan_compact(p);
			if ((st = cx__plan_readers(p, &f.rd, err)) != CX_OK) return st;
			f.changed = false;
		}
		for (uint32_t i = 0, n = p->n_order; i < n; i++) {
			uint32_t id = p->order[rows[r].backwards ? n - 1 - i : i];
			if (p->n[id].flags) continue;
			rows[r].run(&f, id);
			if (f.st != CX_OK) return f.st;
		}
	}
	cx__plan_compact(p);
	return cx__plan_drop_dead(p, err); /* dense copies that attention does not need */
}
