/* fuse_map.c - map programs: elementwise nodes over one index space become one pass, with an
 * optional reduction along the last axis at the end.
 *
 * Grown backwards from a node that no group has taken: producers join while the limits of cx_prog
 * hold, the values have the same dims, and the group stays legal. A value with readers outside
 * becomes a further output. Registers are floating, so only float and bool values take part. An
 * instruction rounds nothing: where a node's result is narrower than f32 and is used inside, a cast
 * rounds it as its own store would have. */
#include "graph/fuse.h"
#include "graph/prog.h"

#include <string.h>

typedef struct grower {
	cx_fuser *f;
	cx_group g;      /* members, latest first; in and out are made with the program */
	cx_desc space;   /* dims of every member's value */
	uint32_t reduce; /* node, or CX_NO */
	cx_attr_map attr;
	cx_prog prog;
} grower;

static bool register_type(cx_dtype t)
{
	return t == CX_F32 || t == CX_F16 || t == CX_BF16 || t == CX_BOOL;
}

static bool is_elementwise(const cx_plan *p, const cx_pnode *n)
{
	if (n->flags || n->fusion != CX_FUSION_none || cx__prog_arity(n->op) == 0 || n->n_out != 1)
		return false;
	if (!register_type(p->t[n->out[0]].desc.dtype) || p->t[n->out[0]].state != CX_NO) return false;
	for (uint32_t j = 0; j < n->n_in; j++)
		if (!register_type(p->t[n->in[j]].desc.dtype)) return false;
	return true;
}

/* A reduction that a program can end with: of floats, along the last axis alone. */
static bool is_reduction(const cx_plan *p, const cx_pnode *n, cx_attr_map *out)
{
	const cx_attr_reduce *a = n->attr;
	const cx_desc *x;
	switch (n->op) {
	case CX_OP_sum:
		out->reduce = 1;
		break;
	case CX_OP_mean:
		out->reduce = 2;
		break;
	case CX_OP_amax:
		out->reduce = 3;
		break;
	case CX_OP_amin:
		out->reduce = 4;
		break;
	default:
		return false;
	}
	x = &p->t[n->in[0]].desc;
	out->keep = a->keep;
	if (n->flags || x->rank < 1 || !register_type(x->dtype) || x->dtype == CX_BOOL) return false;
	return (a->axes.n == 1 && a->axes.v[0] == x->rank - 1) || (a->axes.n == 0 && x->rank == 1);
}

static bool has_member(const grower *w, uint32_t node)
{
	for (uint32_t i = 0; i < w->g.n_member; i++)
		if (w->g.member[i] == node) return true;
	return false;
}

static bool read_outside(const grower *w, uint32_t t)
{
	const cx_fuser *f = w->f;
	if (f->p->t[t].is_output || t >= f->rd.n_t) return true;
	for (uint32_t i = f->rd.start[t]; i < f->rd.start[t + 1]; i++)
		if (!has_member(w, cx__plan_live(f->p, f->rd.node[i]))) return true;
	return false;
}

/* ---- the program ---- */

static int find_in(grower *w, uint32_t t)
{
	for (uint32_t i = 0; i < w->g.n_in; i++)
		if (cx__fuse_same(w->f, w->g.in[i], t)) return (int)i;
	if (w->g.n_in == CX_PROG_MAX_IN) return -1;
	w->g.in[w->g.n_in] = t;
	return (int)w->g.n_in++;
}

static bool add_instr(cx_prog *pr, cx_instr in)
{
	if (pr->n_instr == CX_PROG_MAX) return false;
	pr->instr[pr->n_instr++] = in;
	return true;
}

/* Registers in instructions are counted from n_in, which is known last: until then, the result of
 * instruction i is CX_PROG_MAX_IN + i. */
static int reg_of(grower *w, uint32_t t, const uint32_t *order, const uint8_t *reg, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++)
		if (w->f->p->n[order[i]].out[0] == t) return reg[i];
	return find_in(w, t);
}

static bool used_inside(const grower *w, uint32_t t)
{
	const cx_plan *p = w->f->p;
	for (uint32_t i = 0; i < w->g.n_member; i++) {
		const cx_pnode *n = &p->n[w->g.member[i]];
		for (uint32_t j = 0; j < n->n_in; j++)
			if (n->in[j] == t) return true;
	}
	return false;
}

/* One member's instructions; its register, or -1 if the program is full. */
static int emit_member(
	grower *w, const cx_pnode *n, const uint32_t *order, const uint8_t *reg, uint32_t done)
{
	const cx_ptensor *y = &w->f->p->t[n->out[0]];
	cx_instr in = {.op = n->op};
	int r[3] = {0, 0, 0}, self;
	for (uint32_t j = 0; j < n->n_in; j++)
		if ((r[j] = reg_of(w, n->in[j], order, reg, done)) < 0) return -1;
	in.a = (uint8_t)r[0];
	in.b = (uint8_t)r[1];
	in.c = (uint8_t)r[2];
	if (n->op == CX_OP_clamp) {
		in.p = ((const cx_attr_clamp *)n->attr)->lo;
		in.q = ((const cx_attr_clamp *)n->attr)->hi;
	}
	if (n->op == CX_OP_cast) in.p = (float)y->desc.dtype;
	if (!add_instr(&w->prog, in)) return -1;
	self = CX_PROG_MAX_IN + w->prog.n_instr - 1;
	if (n->op == CX_OP_cast || (y->desc.dtype != CX_F16 && y->desc.dtype != CX_BF16)) return self;
	if (!used_inside(w, n->out[0])) return self;
	if (!add_instr(
			&w->prog, (cx_instr){.op = CX_OP_cast, .a = (uint8_t)self, .p = (float)y->desc.dtype}))
		return -1;
	return self + 1;
}

static uint8_t final_reg(const cx_prog *pr, uint8_t r)
{
	return r >= CX_PROG_MAX_IN ? (uint8_t)(r - CX_PROG_MAX_IN + pr->n_in) : r;
}

static void renumber(cx_prog *pr, uint32_t n_in)
{
	pr->n_in = (uint8_t)n_in;
	for (uint32_t i = 0; i < pr->n_instr; i++) {
		cx_instr *in = &pr->instr[i];
		int n = cx__prog_arity(in->op);
		in->a = final_reg(pr, in->a);
		in->b = n > 1 ? final_reg(pr, in->b) : 0;
		in->c = n > 2 ? final_reg(pr, in->c) : 0;
	}
	for (uint32_t o = 0; o < pr->n_out; o++) pr->out[o] = final_reg(pr, pr->out[o]);
}

/* Members in run order; the reduction is not an instruction. */
static uint32_t sorted(const grower *w, uint32_t *order)
{
	const cx_plan *p = w->f->p;
	uint32_t n = 0;
	for (uint32_t i = 0; i < w->g.n_member; i++) {
		uint32_t at = n;
		if (w->g.member[i] == w->reduce) continue;
		for (; at > 0 && p->n[order[at - 1]].pos > p->n[w->g.member[i]].pos; at--)
			order[at] = order[at - 1];
		order[at] = w->g.member[i];
		n++;
	}
	return n;
}

/* Writes the program, operands and outputs of the group as it stands; false: limits are exceeded.
 */
static bool build(grower *w)
{
	cx_plan *p = w->f->p;
	uint32_t order[CX_GROUP_MEMBERS], n = sorted(w, order);
	uint8_t reg[CX_GROUP_MEMBERS];
	w->g.n_in = w->g.n_out = 0;
	memset(&w->prog, 0, sizeof w->prog);
	for (uint32_t i = 0; i < n; i++) {
		uint32_t t = p->n[order[i]].out[0];
		int r = emit_member(w, &p->n[order[i]], order, reg, i);
		if (r < 0) return false;
		reg[i] = (uint8_t)r;
		if (w->reduce != CX_NO ? t != p->n[w->reduce].in[0]
							   : !read_outside(w, t) && used_inside(w, t))
			continue;
		if (w->g.n_out == CX_MAX_OUT) return false;
		w->prog.out[w->g.n_out] = reg[i];
		w->prog.out_dtype[w->g.n_out] = (uint8_t)p->t[t].desc.dtype;
		w->g.out[w->g.n_out++] = w->reduce != CX_NO ? p->n[w->reduce].out[0] : t;
	}
	w->prog.n_out = (uint8_t)w->g.n_out;
	if (w->g.n_in == 0) return false;
	renumber(&w->prog, w->g.n_in);
	w->g.prog = &w->prog;
	w->g.attr = &w->attr;
	w->g.op = CX_OP_map;
	return true;
}

/* ---- growing ---- */

/* The producer that comes last among those that may join, and that was not tried before (below
 * `limit`). */
static uint32_t next_producer(const grower *w, uint32_t limit)
{
	const cx_fuser *f = w->f;
	uint32_t best = CX_NO;
	for (uint32_t i = 0; i < w->g.n_member; i++) {
		const cx_pnode *n = &f->p->n[w->g.member[i]];
		for (uint32_t j = 0; j < n->n_in; j++) {
			uint32_t d = cx__fuse_def(f, n->in[j]);
			if (d == CX_NO || f->p->n[d].pos >= limit || has_member(w, d)) continue;
			if (best != CX_NO && f->p->n[d].pos <= f->p->n[best].pos) continue;
			if (!is_elementwise(f->p, &f->p->n[d])) continue;
			if (!cx__desc_same_dims(&f->p->t[f->p->n[d].out[0]].desc, &w->space)) continue;
			best = d;
		}
	}
	return best;
}

/* A value that is also read outside joins only as a further output. */
static void grow(grower *w, bool extra_outputs)
{
	uint32_t limit = CX_NO, d, slot;
	while (w->g.n_member < CX_GROUP_MEMBERS - 1 && (d = next_producer(w, limit)) != CX_NO) {
		limit = w->f->p->n[d].pos;
		if (read_outside(w, w->f->p->n[d].out[0]) && !extra_outputs) continue;
		w->g.member[w->g.n_member++] = d;
		if (!build(w) || cx__fuse_check(w->f, &w->g, &slot) != CX_WHY_FUSED) w->g.n_member--;
	}
}

void cx__fuse_map(cx_fuser *f, uint32_t node)
{
	cx_plan *p = f->p;
	cx_attr_map attr = cx_attr_map_default();
	bool reduces = is_reduction(p, &p->n[node], &attr), mapped = is_elementwise(p, &p->n[node]);
	if (!reduces && !mapped) return;
	for (int extra = !reduces; extra >= 0; extra--) {
		grower w = {.f = f, .reduce = reduces ? node : CX_NO, .attr = attr};
		w.space = p->t[reduces ? p->n[node].in[0] : p->n[node].out[0]].desc;
		w.g.member[w.g.n_member++] = node;
		grow(&w, extra);
		if (w.g.n_member < 2 || !build(&w)) continue;
		if (cx__fuse_commit(f, &w.g, extra || reduces)) return;
	}
}
