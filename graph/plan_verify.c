/* plan_verify.c - is this a plan of that graph? Asked after every pass, by other means than the
 * passes use.
 *
 *   structure  every operand is a leaf or was written by an earlier node, once; views lie inside
 * their roots; each node has the shapes that its op's rule gives and, once placed, a kernel values
 * every tensor is what the source computes (verify_values.c) bytes      the schedule replayed with
 * an owner for every byte: who reads a tensor must find it still there, and no step may write what
 * it reads except as its row or kernel allows */
#include "graph/plan.h"

#include <string.h>

#define BROKEN(fmt, ...) CX_FAIL(err, CX_ERR_ARGUMENT, "verify after %s: " fmt, stage, __VA_ARGS__)

/* ---- structure ---- */

static cx_status check_tensor(const cx_plan *p, uint32_t id, const char *stage, cx_err *err)
{
	const cx_ptensor *t = &p->t[id], *root = &p->t[t->root];
	int64_t last = t->view_off;
	if (root->root != t->root) return BROKEN("tensor %u views a view", id);
	if (cx__desc_elems(&t->desc) == 0) return CX_OK;
	for (int i = 0; i < t->desc.rank; i++) last += (t->desc.dim[i] - 1) * t->desc.stride[i];
	if (t->view_off < 0 || last >= cx__desc_elems(&root->desc))
		return BROKEN("tensor %u lies outside its root", id);
	return CX_OK;
}

static cx_status check_node(cx_plan *p, uint32_t id, bool *written, const char *stage, cx_err *err)
{
	const cx_pnode *n = &p->n[id];
	char text[200];
	cx_err why = {0};
	cx_status st;
	cx__pnode_text(p, n, text, sizeof text);
	for (uint32_t j = 0; j < n->n_in; j++) {
		uint32_t t = n->in[j];
		if (t == CX_NO) continue;
		if (t >= p->n_t) return BROKEN("operand %u of %s is no tensor", j, text);
		if ((st = check_tensor(p, t, stage, err)) != CX_OK) return st;
		if (p->t[p->t[t].root].leaf == CX_LEAF_NONE && !written[p->t[t].root])
			return BROKEN("operand %u of %s is read before it is written", j, text);
	}
	for (uint32_t o = 0; o < n->n_out; o++) {
		uint32_t t = n->out[o];
		if (t >= p->n_t || p->t[t].root != t) return BROKEN("output %u of %s is no root", o, text);
		if (written[t] || p->t[t].leaf != CX_LEAF_NONE)
			return BROKEN("output %u of %s is written twice", o, text);
		if (p->t[t].def != id) return BROKEN("output %u of %s belongs to another node", o, text);
		if (!cx__desc_is_dense(&p->t[t].desc))
			return BROKEN("output %u of %s is not dense", o, text);
		written[t] = true;
	}
	if (cx__plan_shape(p, n, &why) != CX_OK) return BROKEN("%s: %s", text, why.msg);
	return CX_OK;
}

static cx_status check_structure(cx_plan *p, const char *stage, cx_err *err)
{
	bool *written = cx_arena_alloc(&p->tmp, p->n_t);
	cx_status st;
	if (!written) return cx__plan_oom(err);
	for (uint32_t i = 0; i < p->n_order; i++) {
		if (p->n[p->order[i]].flags & CX_PNODE_DEAD || p->n[p->order[i]].pos != i)
			return BROKEN("place %u of the order holds a node that is not there", i);
		if ((st = check_node(p, p->order[i], written, stage, err)) != CX_OK) return st;
	}
	for (uint32_t i = 0; i < p->n_outs; i++) {
		uint32_t t = p->outs[i].t;
		const cx_desc *want = &p->g->nodes[p->g->outputs[i].id].desc;
		if (t >= p->n_t || (p->t[p->t[t].root].leaf == CX_LEAF_NONE && !written[p->t[t].root]))
			return BROKEN("output '%s' is not computed", p->outs[i].name);
		if (p->t[t].desc.dtype != want->dtype || !cx__desc_same_dims(&p->t[t].desc, want))
			return BROKEN("output '%s' has another shape", p->outs[i].name);
		if (p->scheduled && !cx__plan_is_whole(p, t))
			return BROKEN("output '%s' is not dense", p->outs[i].name);
	}
	for (uint32_t s = 0; s < p->n_states; s++)
		if (p->states[s].last != p->states[s].leaf && !written[p->states[s].last])
			return BROKEN(
				"state '%s' is not updated", p->g->nodes[p->t[p->states[s].leaf].src].name);
	return CX_OK;
}

/* ---- bytes ---- */

typedef struct span {
	uint64_t lo, hi;
	uint32_t owner;
} span; /* owner: root, CX_NO for scratch */
/* One device's slab: disjoint spans in order. */
typedef struct ledger {
	span *s;
	uint32_t n, cap;
} ledger;
typedef struct replay {
	cx_plan *p;
	ledger *slab;    /* [n_devs] */
	uint32_t *owner; /* [n_mem] of storage outside the slab: root, CX_NO if nobody yet */
	const char *stage;
	cx_err *err;
} replay;
typedef struct place {
	uint32_t mem;
	uint8_t kind, dev;
	uint64_t lo, hi;
} place;

static place place_of(const cx_plan *p, uint32_t root)
{
	const cx_storage *m = &p->mem[p->t[root].mem];
	uint64_t at = m->kind == CX_MEM_SLAB ? m->off : 0;
	return (place){p->t[root].mem, m->kind, m->dev, at, at + cx__desc_bytes(&p->t[root].desc)};
}

static bool overlap(const place *a, const place *b)
{
	if (a->lo == a->hi || b->lo == b->hi || a->kind != b->kind) return false;
	if (a->kind == CX_MEM_SLAB ? a->dev != b->dev : a->mem != b->mem) return false;
	return a->lo < b->hi && b->lo < a->hi;
}

static uint32_t first_past(const ledger *l, uint64_t lo)
{
	uint32_t a = 0, b = l->n;
	while (a < b) {
		uint32_t mid = a + (b - a) / 2;
		if (l->s[mid].hi <= lo) a = mid + 1;
		else b = mid;
	}
	return a;
}

static bool owns(const replay *r, const place *at, uint32_t root)
{
	const ledger *l = &r->slab[at->dev];
	uint64_t lo = at->lo;
	if (at->lo == at->hi) return true;
	if (at->kind != CX_MEM_SLAB) return r->owner[at->mem] == root;
	for (uint32_t i = first_past(l, lo); i < l->n && lo < at->hi; i++) {
		if (l->s[i].lo > lo || l->s[i].owner != root) return false;
		lo = l->s[i].hi;
	}
	return lo >= at->hi;
}

static cx_status claim(replay *r, const place *at, uint32_t root)
{
	ledger *l = &r->slab[at->dev];
	span left = {0}, right = {0};
	uint32_t from, to, put = 0, n_new;
	if (at->lo == at->hi) return CX_OK;
	if (at->kind != CX_MEM_SLAB) {
		r->owner[at->mem] = root;
		return CX_OK;
	}
	if (l->n + 3 > l->cap) {
		uint32_t cap = l->cap ? l->cap * 2 : 64;
		span *s = cx_arena_array(&r->p->tmp, cap, sizeof *s);
		if (!s) return cx__plan_oom(r->err);
		if (l->n) memcpy(s, l->s, l->n * sizeof *s);
		l->s = s;
		l->cap = cap;
	}
	from = to = first_past(l, at->lo);
	while (to < l->n && l->s[to].lo < at->hi) to++;
	if (from < to) {
		left = l->s[from];
		right = l->s[to - 1];
	}
	left.hi = left.hi < at->lo ? left.hi : at->lo;
	right.lo = right.lo > at->hi ? right.lo : at->hi;
	n_new = 1 + (left.lo < left.hi) + (from < to && right.lo < right.hi);
	memmove(&l->s[from + n_new], &l->s[to], (l->n - to) * sizeof *l->s);
	l->n = l->n - (to - from) + n_new;
	if (left.lo < left.hi) l->s[from + put++] = left;
	l->s[from + put++] = (span){at->lo, at->hi, root};
	if (put < n_new) l->s[from + put] = right;
	return CX_OK;
}

/* Whether the step may write output o where it reads operand j. */
static bool may_share(const cx_plan *p, const cx_pnode *n, uint32_t o, uint32_t j)
{
	const cx_ptensor *a, *b;
	uint32_t with = n->inplace >= 0 ? (uint32_t)n->inplace : 0;
	if (cx__pnode_alias(n, o) == (int)j) return true;
	if (n->inplace < 0 || !n->kernel || j >= 32 || !(n->kernel->inplace >> j & 1)) return false;
	if (o != 0 || with >= n->n_in) return false;
	a = &p->t[n->in[j]];
	b = &p->t[n->in[with]];
	return a->root == b->root && a->view_off == b->view_off && cx__desc_equal(&a->desc, &b->desc) &&
		   cx__desc_same_dims(&a->desc, &p->t[n->out[0]].desc) && cx__desc_is_dense(&a->desc) &&
		   cx__desc_bytes(&a->desc) == cx__desc_bytes(&p->t[n->out[0]].desc);
}

static cx_status replay_reads(const replay *r, const cx_pnode *n, const char *text)
{
	const cx_plan *p = r->p;
	const char *stage = r->stage;
	cx_err *err = r->err;
	for (uint32_t j = 0; j < n->n_in; j++) {
		place at;
		if (n->in[j] == CX_NO) continue;
		at = place_of(p, p->t[n->in[j]].root);
		if (!owns(r, &at, p->t[n->in[j]].root))
			return BROKEN("operand %u of %s was overwritten before it is read", j, text);
	}
	return CX_OK;
}

static cx_status check_writes(
	const replay *r, const cx_pnode *n, const place *out, const char *text)
{
	const cx_plan *p = r->p;
	const char *stage = r->stage;
	cx_err *err = r->err;
	for (uint32_t o = 0; o < n->n_out + (n->scratch_mem != CX_NO ? 1u : 0u); o++) {
		for (uint32_t j = 0; j < n->n_in; j++) {
			place in;
			if (n->in[j] == CX_NO) continue;
			in = place_of(p, p->t[n->in[j]].root);
			if (!overlap(&out[o], &in)) continue;
			if (o == n->n_out || !may_share(p, n, o, j) || in.lo != out[o].lo)
				return BROKEN("%s writes over its operand %u", text, j);
		}
		for (uint32_t k = 0; k < o; k++)
			if (overlap(&out[o], &out[k])) return BROKEN("two results of %s share bytes", text);
		if (o == n->n_out) continue;
		if (p->t[n->out[o]].prev != CX_NO && !owns(r, &out[o], p->t[n->out[o]].prev))
			return BROKEN("%s updates a state that is at another version", text);
		if (out[o].kind == CX_MEM_INPUT || out[o].kind == CX_MEM_WEIGHT ||
			out[o].kind == CX_MEM_CONST)
			return BROKEN("%s writes over a leaf", text);
	}
	return CX_OK;
}

static cx_status replay_node(replay *r, const cx_pnode *n)
{
	const cx_plan *p = r->p;
	place out[CX_MAX_OUT + 1];
	char text[200];
	cx_status st;
	cx__pnode_text(p, n, text, sizeof text);
	if ((st = replay_reads(r, n, text)) != CX_OK) return st;
	for (uint32_t o = 0; o < n->n_out; o++) out[o] = place_of(p, n->out[o]);
	if (n->scratch_mem != CX_NO) {
		const cx_storage *m = &p->mem[n->scratch_mem];
		out[n->n_out] = (place){n->scratch_mem, m->kind, m->dev, m->off, m->off + n->scratch};
	}
	if ((st = check_writes(r, n, out, text)) != CX_OK) return st;
	for (uint32_t o = 0; o < n->n_out; o++)
		if ((st = claim(r, &out[o], n->out[o])) != CX_OK) return st;
	return n->scratch_mem != CX_NO ? claim(r, &out[n->n_out], CX_NO) : CX_OK;
}

static cx_status check_steps(cx_plan *p, const char *stage, cx_err *err);

cx_status cx__verify_bytes(cx_plan *p, const char *stage, cx_err *err)
{
	replay r = {.p = p, .stage = stage, .err = err};
	cx_status st;
	r.slab = cx_arena_array(&p->tmp, p->n_devs, sizeof *r.slab);
	r.owner = cx_arena_array(&p->tmp, p->n_mem, sizeof *r.owner);
	if (!r.slab || !r.owner) return cx__plan_oom(err);
	memset(r.owner, 0xff, p->n_mem * sizeof *r.owner);
	for (uint32_t t = 0; t < p->n_t; t++)
		if (p->t[t].root == t && p->t[t].leaf != CX_LEAF_NONE && p->t[t].mem != CX_NO)
			r.owner[p->t[t].mem] = t;
	for (uint32_t m = 0; m < p->n_mem; m++) {
		const cx_pdevice *d = &p->devs[p->mem[m].dev];
		if (p->mem[m].kind != CX_MEM_SLAB) continue;
		if (p->mem[m].off % d->limits.alignment != 0 || p->mem[m].bytes > d->slab_bytes ||
			p->mem[m].off > d->slab_bytes - p->mem[m].bytes)
			return BROKEN("storage %u is not inside the slab, or not aligned", m);
	}
	for (uint32_t i = 0; i < p->n_order; i++)
		if ((st = replay_node(&r, &p->n[p->order[i]])) != CX_OK) return st;
	for (uint32_t i = 0; i < p->n_outs; i++) {
		place at = place_of(p, p->t[p->outs[i].t].root);
		if (!owns(&r, &at, p->t[p->outs[i].t].root) || at.kind != CX_MEM_OUTPUT)
			return BROKEN("output '%s' does not survive the run", p->outs[i].name);
	}
	for (uint32_t s = 0; s < p->n_states; s++) {
		place at = place_of(p, p->states[s].last);
		if (!owns(&r, &at, p->states[s].last) || at.kind != CX_MEM_STATE)
			return BROKEN("state '%s' does not end with its last version",
				p->g->nodes[p->t[p->states[s].leaf].src].name);
	}
	return check_steps(p, stage, err);
}

/* ---- steps ---- */

static bool operand_is(const cx_plan *p, uint32_t dev, const cx_operand *a, uint32_t t)
{
	const cx_dtype_info *info;
	const cx_storage *m;
	const cx_bind *b;
	uint64_t off;
	if (t == CX_NO) return a->buf == CX_BUF_NONE;
	if (a->buf >= p->devs[dev].n_binds) return false;
	info = cx_dtype_get(p->t[t].desc.dtype);
	m = &p->mem[p->t[p->t[t].root].mem];
	b = &p->devs[dev].binds[a->buf];
	off = (uint64_t)(p->t[t].view_off / info->block_elems) * (uint64_t)info->block_bytes;
	if (m->kind == CX_MEM_SLAB || m->kind == CX_MEM_CONST) off += m->off;
	if (b->kind != m->kind || a->off != off || !cx__desc_equal(&a->desc, &p->t[t].desc))
		return false;
	return m->kind == CX_MEM_SLAB ? m->dev == dev : m->kind == CX_MEM_CONST || b->what == m->what;
}

static cx_status check_steps(cx_plan *p, const char *stage, cx_err *err)
{
	if (!p->step_node) return CX_OK;
	for (uint32_t i = 0; i < p->n_order; i++) {
		const cx_pnode *n = &p->n[p->order[i]];
		const cx_step *s;
		bool ok;
		if (n->flags & CX_PNODE_XDEV) continue;
		if (p->step_node[i] >= p->devs[n->dev].n_steps) return BROKEN("node at %u has no step", i);
		s = &p->devs[n->dev].steps[p->step_node[i]];
		ok = s->kernel && s->kernel == n->kernel && s->op == (cx_op)n->op && s->n_in == n->n_in &&
			 s->n_out == n->n_out;
		for (uint32_t j = 0; ok && j < n->n_in; j++)
			ok = operand_is(p, n->dev, &s->in[j], n->in[j]);
		for (uint32_t o = 0; ok && o < n->n_out; o++)
			ok = operand_is(p, n->dev, &s->out[o], n->out[o]);
		if (!ok) return BROKEN("step %u of device %u is not its node", p->step_node[i], n->dev);
	}
	return CX_OK;
}

cx_status cx__plan_verify(cx_plan *p, const char *stage, cx_err *err)
{
	cx_status st = check_structure(p, stage, err);
	if (st == CX_OK) st = cx__verify_values(p, stage, err);
	if (st == CX_OK && p->placed_mem) st = cx__verify_bytes(p, stage, err);
	return st;
}
