/* fuse_linear.c - products with what stands around them: linear = norm, up to three products on one
 * input, bias, activation or gating, residual; and add_norm for a sum that is normalised.
 *
 * A pattern is read off once as a `spec`; then proposals go from the largest to the smallest until
 * the device has a kernel for one. Dtypes: matmul, add and the norms give their first operand's
 * dtype, so a spec has one throughout; the shape rule of linear is asked in the end. */
#include "graph/fuse.h"
#include "graph/prog.h"

/* One product: y = x w' [+ bias] */
typedef struct arm {
	uint32_t mm, w, bias_node, bias, y;
} arm;
typedef struct spec {
	uint32_t x, norm; /* operand; norm node whose only readers are the products, or CX_NO */
	arm a[3];
	uint32_t n_w;
	uint32_t act, mul;    /* nodes: activation of arm 0, gate */
	uint32_t residual, r; /* node and its other operand */
	uint32_t y;           /* before the residual, single output */
} spec;

static bool is_product(const cx_fuser *f, uint32_t node)
{
	const cx_pnode *n = &f->p->n[node];
	const cx_attr_matmul *a = n->attr;
	if (n->op != CX_OP_matmul || n->flags) return false;
	return a->trans_b && !a->trans_a && f->p->t[n->in[1]].desc.rank == 2 &&
		   f->p->t[n->in[0]].desc.rank >= 1;
}

static float act_scale(const cx_fuser *f, uint32_t node)
{
	return ((const cx_attr_matmul *)f->p->n[node].attr)->act_scale;
}

static bool is_activation(unsigned op)
{
	return cx__prog_arity(op) == 1 && op != CX_OP_cast && op != CX_OP_clamp && op != CX_OP_not;
}

static arm arm_of(const cx_fuser *f, uint32_t mm)
{
	const cx_plan *p = f->p;
	arm a = {mm, p->n[mm].in[1], CX_NO, CX_NO, p->n[mm].out[0]};
	uint32_t add = cx__fuse_reader_op(f, a.y, CX_OP_add), b;
	if (add == CX_NO) return a;
	b = cx__fuse_other(f, add, a.y);
	if (b == CX_NO || p->t[b].desc.rank != 1 || p->t[b].desc.dim[0] != p->t[a.w].desc.dim[0])
		return a;
	if (!cx__desc_same_dims(&p->t[a.y].desc, &p->t[p->n[add].out[0]].desc)) return a;
	a.bias_node = add;
	a.bias = b;
	a.y = p->n[add].out[0];
	return a;
}

/* The norm that makes x, if all its readers are among the n_w products. */
static uint32_t norm_of(const cx_fuser *f, const spec *s)
{
	uint32_t d = cx__fuse_def(f, s->x), n = 0;
	const cx_pnode *norm;
	if (d == CX_NO || s->x >= f->rd.n_t || f->p->t[s->x].is_output) return CX_NO;
	norm = &f->p->n[d];
	if (norm->op != CX_OP_rmsnorm && norm->op != CX_OP_layernorm) return CX_NO;
	if (norm->n_in == 3 && norm->in[1] == CX_NO && norm->in[2] != CX_NO)
		return CX_NO; /* a bias alone */
	for (uint32_t i = f->rd.start[s->x]; i < f->rd.start[s->x + 1]; i++)
		for (uint32_t k = 0; k < s->n_w; k++) n += f->rd.node[i] == s->a[k].mm;
	return n == f->rd.start[s->x + 1] - f->rd.start[s->x] ? d : CX_NO;
}

static void find_residual(const cx_fuser *f, spec *s)
{
	uint32_t add = cx__fuse_reader_op(f, s->y, CX_OP_add), r;
	s->residual = CX_NO;
	if (add == CX_NO) return;
	r = cx__fuse_other(f, add, s->y);
	if (r == CX_NO || !cx__desc_same_dims(&f->p->t[r].desc, &f->p->t[s->y].desc)) return;
	s->residual = add;
	s->r = r;
}

static void add_norm_operands(const cx_plan *p, uint32_t norm, cx_group *g, cx_attr_linear *at)
{
	const cx_pnode *n = &p->n[norm];
	const cx_attr_norm *a = n->attr;
	at->norm = n->op == CX_OP_rmsnorm ? 1 : 2;
	at->eps = a->eps;
	at->plus_one = a->plus_one;
	for (uint32_t j = 1; j < n->n_in && n->in[j] != CX_NO; j++) {
		cx__group_in(g, n->in[j]);
		at->norm_in++;
	}
}

/* Proposes the spec with or without its optional parts; true if it became a node. */
static bool propose(cx_fuser *f, const spec *s, bool norm, bool act, bool residual, bool note)
{
	cx_attr_linear at = cx_attr_linear_default();
	cx_group g = {.op = CX_OP_linear, .attr = &at};
	bool bias = false;
	at.n_w = s->n_w;
	at.norm_in = 0;
	at.act_scale = act_scale(f, s->a[0].mm);
	if (norm) cx__group_member(&g, s->norm);
	cx__group_in(&g, norm ? f->p->n[s->norm].in[0] : s->x);
	if (norm) add_norm_operands(f->p, s->norm, &g, &at);
	for (uint32_t i = 0; i < s->n_w; i++) {
		cx__group_in(&g, s->a[i].w);
		cx__group_member(&g, s->a[i].mm);
		bias |= s->a[i].bias != CX_NO;
	}
	for (uint32_t i = 0; bias && i < s->n_w; i++) {
		cx__group_in(&g, s->a[i].bias);
		cx__group_member(&g, s->a[i].bias_node);
	}
	at.bias = bias;
	for (uint32_t i = 0; i < s->n_w; i++) g.out[i] = s->a[i].y;
	g.n_out = s->n_w;
	if (act && s->act != CX_NO) {
		at.act = f->p->n[s->act].op;
		cx__group_member(&g, s->act);
		g.out[0] = f->p->n[s->act].out[0];
	}
	if (s->mul != CX_NO) {
		at.glu = true;
		cx__group_member(&g, s->mul);
		g.out[0] = f->p->n[s->mul].out[0];
		g.n_out = 1;
	}
	if (residual && s->residual != CX_NO) {
		at.residual = true;
		cx__group_in(&g, s->r);
		cx__group_member(&g, s->residual);
		g.out[0] = f->p->n[s->residual].out[0];
	}
	return cx__fuse_commit(f, &g, note);
}

static bool propose_all(cx_fuser *f, const spec *s)
{
	bool first = true;
	for (int norm = s->norm != CX_NO; norm >= 0; norm--) {
		if (s->residual != CX_NO && propose(f, s, norm, true, true, first)) return true;
		if (propose(f, s, norm, true, false, first && s->residual == CX_NO)) return true;
		first = false;
	}
	return false;
}

/* mul(act(x W0' [+ b]), x W1' [+ b]) */
void cx__fuse_gate_up(cx_fuser *f, uint32_t node)
{
	const cx_pnode *mul = &f->p->n[node];
	if (mul->op != CX_OP_mul) return;
	for (int side = 0; side < 2; side++) {
		spec s = {.n_w = 2, .act = cx__fuse_def(f, mul->in[side]), .mul = node, .y = mul->out[0]};
		uint32_t z[2], mm;
		bool ok = s.act != CX_NO && is_activation(f->p->n[s.act].op) &&
				  cx__fuse_reader(f, mul->in[side]) == node &&
				  cx__fuse_reader(f, mul->in[1 - side]) == node;
		if (!ok) continue;
		z[0] = f->p->n[s.act].in[0];
		z[1] = mul->in[1 - side];
		for (int i = 0; ok && i < 2; i++) {
			mm = cx__fuse_def(f, z[i]);
			for (int j = 0; mm != CX_NO && f->p->n[mm].op == CX_OP_add && j < 2; j++) {
				uint32_t d = cx__fuse_def_op(f, f->p->n[mm].in[j], CX_OP_matmul);
				if (d != CX_NO) mm = d;
			}
			ok = mm != CX_NO && is_product(f, mm);
			if (!ok) break;
			s.a[i] = arm_of(f, mm);
			ok = s.a[i].y == z[i];
		}
		if (!ok || cx__fuse_reader(f, z[0]) != s.act) continue;
		s.x = f->p->n[s.a[0].mm].in[0];
		if (!cx__fuse_same(f, s.x, f->p->n[s.a[1].mm].in[0]) ||
			act_scale(f, s.a[0].mm) != act_scale(f, s.a[1].mm))
			continue;
		s.norm = norm_of(f, &s);
		find_residual(f, &s);
		if (propose_all(f, &s)) return;
	}
}

/* Other products on x, in order, up to three with this one. */
static void find_siblings(const cx_fuser *f, spec *s)
{
	uint32_t root = f->p->t[s->x].root;
	if (root >= f->rd.n_t) return;
	for (uint32_t i = f->rd.start[root]; i < f->rd.start[root + 1] && s->n_w < 3; i++) {
		uint32_t id = f->rd.node[i];
		if (id == s->a[0].mm || !is_product(f, id) || !cx__fuse_same(f, f->p->n[id].in[0], s->x))
			continue;
		if (f->p->n[id].in[1] != CX_NO && f->p->t[f->p->n[id].in[1]].root == root) continue;
		if (act_scale(f, id) != act_scale(f, s->a[0].mm)) continue;
		s->a[s->n_w++] = arm_of(f, id);
	}
}

void cx__fuse_linear(cx_fuser *f, uint32_t node)
{
	spec s = {.n_w = 1, .act = CX_NO, .mul = CX_NO, .residual = CX_NO};
	uint32_t act;
	if (!is_product(f, node)) return;
	s.x = f->p->n[node].in[0];
	s.a[0] = arm_of(f, node);
	find_siblings(f, &s);
	for (; s.n_w > 1; s.n_w--) {
		s.norm = norm_of(f, &s);
		if (propose_all(f, &s)) return;
	}
	s.norm = norm_of(f, &s);
	s.y = s.a[0].y;
	act = cx__fuse_reader(f, s.y);
	if (act != CX_NO && is_activation(f->p->n[act].op) && f->p->n[act].in[0] == s.y) {
		s.act = act;
		s.y = f->p->n[act].out[0];
	}
	find_residual(f, &s);
	if (propose_all(f, &s) || s.act == CX_NO) return;
	s.act = CX_NO;
	s.y = s.a[0].y;
	find_residual(f, &s);
	propose_all(f, &s);
}

/* norm(a + b): the sum stays an output, since others usually read it too. */
void cx__fuse_add_norm(cx_fuser *f, uint32_t node)
{
	const cx_pnode *n = &f->p->n[node], *add;
	cx_attr_linear at = cx_attr_linear_default();
	cx_group g = {.op = CX_OP_add_norm, .attr = &at};
	uint32_t id;
	if (n->op != CX_OP_rmsnorm && n->op != CX_OP_layernorm) return;
	if (n->n_in == 3 && n->in[1] == CX_NO && n->in[2] != CX_NO) return;
	id = cx__fuse_def_op(f, n->in[0], CX_OP_add);
	if (id == CX_NO) return;
	add = &f->p->n[id];
	if (!cx__desc_same_dims(&f->p->t[add->in[0]].desc, &f->p->t[add->in[1]].desc)) return;
	cx__group_in(&g, add->in[0]);
	cx__group_in(&g, add->in[1]);
	at.norm_in = 0;
	add_norm_operands(f->p, node, &g, &at);
	cx__group_member(&g, id);
	cx__group_member(&g, node);
	g.out[0] = add->out[0];
	g.out[1] = n->out[0];
	g.n_out = 2;
	cx__fuse_commit(f, &g, true);
}
