/* legalise_rules.c - ops as simpler ops, for devices that lack a kernel of their own for them.
 *
 * A rule only applies to f32, where the intermediate results are as precise as a kernel's
 * registers. It makes its nodes only if the device has a kernel for each, or a rule in turn. */
#include "graph/plan.h"

#include <string.h>

enum { MAX_NODES = 16 };

typedef struct maker {
	cx_plan *p;
	uint32_t src, last; /* source node; tensor that the rule's final op must write */
	uint32_t *made, n_made;
	bool failed; /* shapes that the rule does not understand, or: */
	bool oom;
} maker;

static const cx_desc absent = {.dtype = CX_DTYPE_COUNT};

/* op(a, b); b may be CX_NO. The op that ends the rule is given final = true. */
static uint32_t make(maker *m, cx_op op, uint32_t a, uint32_t b, const void *attr, bool final)
{
	const cx_attr_info *info = &cx__attrs[cx__ops[op].attr];
	cx_plan *p = m->p;
	uint32_t in[2] = {a, b}, n_in = b == CX_NO ? 1 : 2, out, node;
	cx_desc desc[2];
	cx_err err = {0};
	cx_shape_ctx c = {.op = op, .in = desc, .n_in = n_in, .err = &err};
	if (m->failed || m->n_made == MAX_NODES) goto fail;
	desc[0] = p->t[a].desc;
	desc[1] = b == CX_NO ? absent : p->t[b].desc;
	c.attr = cx_arena_memdup(&p->arena, attr ? attr : info->defaults, info->size);
	if (!c.attr) goto oom;
	if (cx__ops[op].shape(&c) != CX_OK) goto fail;
	out = final ? m->last : cx__plan_root(p, &c.out[0], CX_NO);
	if (out == CX_NO) goto oom;
	if (!cx__desc_same_dims(&p->t[out].desc, &c.out[0])) goto fail;
	node = cx__plan_node(p, op, in, n_in, &out, 1, c.attr, m->src);
	if (node == CX_NO) goto oom;
	p->n[node].reason = CX_WHY_RULE;
	m->made[m->n_made++] = node;
	return out;
oom:
	m->oom = true;
fail:
	m->failed = true;
	return a;
}

static uint32_t scalar(maker *m, float value)
{
	cx_desc d = {.dtype = CX_F32};
	float *data = cx_arena_memdup(&m->p->arena, &value, sizeof value);
	uint32_t t = cx__plan_root(m->p, &d, CX_NO);
	if (t == CX_NO || !data) {
		m->failed = m->oom = true;
		return 0;
	}
	m->p->t[t].leaf = CX_OP_const;
	m->p->t[t].data = data;
	return t;
}

static uint32_t along(maker *m, cx_op op, uint32_t x, int64_t axis)
{
	cx_attr_reduce a = cx_attr_reduce_default();
	a.axes.n = 1;
	a.axes.v[0] = axis;
	a.keep = true;
	return make(m, op, x, CX_NO, &a, false);
}

static void rule_silu(maker *m, const cx_pnode *n)
{
	make(m, CX_OP_mul, n->in[0], make(m, CX_OP_sigmoid, n->in[0], CX_NO, NULL, false), NULL, true);
}

static void rule_relu(maker *m, const cx_pnode *n)
{
	make(m, CX_OP_max, n->in[0], scalar(m, 0.0f), NULL, true);
}

static void rule_clamp(maker *m, const cx_pnode *n)
{
	const cx_attr_clamp *a = n->attr;
	uint32_t lo = make(m, CX_OP_max, n->in[0], scalar(m, a->lo), NULL, false);
	make(m, CX_OP_min, lo, scalar(m, a->hi), NULL, true);
}

/* y = x * rsqrt(s + eps) [* w] [+ b], s the mean or sum of squares of x. */
static void rule_scale(maker *m, const cx_pnode *n, uint32_t x, cx_op fold)
{
	const cx_attr_norm *a = n->attr;
	uint32_t w = n->n_in > 1 ? n->in[1] : CX_NO, b = n->n_in > 2 ? n->in[2] : CX_NO, y;
	int64_t axis = m->p->t[x].desc.rank - 1;
	y = along(m, fold, make(m, CX_OP_mul, x, x, NULL, false), axis);
	y = make(
		m, CX_OP_rsqrt, make(m, CX_OP_add, y, scalar(m, a->eps), NULL, false), CX_NO, NULL, false);
	y = make(m, CX_OP_mul, x, y, NULL, w == CX_NO && b == CX_NO);
	if (w != CX_NO && a->plus_one) w = make(m, CX_OP_add, w, scalar(m, 1.0f), NULL, false);
	if (w != CX_NO) y = make(m, CX_OP_mul, y, w, NULL, b == CX_NO);
	if (b != CX_NO) make(m, CX_OP_add, y, b, NULL, true);
}

static void rule_rmsnorm(maker *m, const cx_pnode *n)
{
	rule_scale(m, n, n->in[0], CX_OP_mean);
}
static void rule_l2norm(maker *m, const cx_pnode *n)
{
	rule_scale(m, n, n->in[0], CX_OP_sum);
}

static void rule_layernorm(maker *m, const cx_pnode *n)
{
	uint32_t mu = along(m, CX_OP_mean, n->in[0], m->p->t[n->in[0]].desc.rank - 1);
	rule_scale(m, n, make(m, CX_OP_sub, n->in[0], mu, NULL, false), CX_OP_mean);
}

/* scale * x - max */
static uint32_t shifted(maker *m, const cx_pnode *n)
{
	const cx_attr_softmax *a = n->attr;
	uint32_t x = n->in[0];
	if (a->scale != 1.0f) x = make(m, CX_OP_mul, x, scalar(m, a->scale), NULL, false);
	return make(m, CX_OP_sub, x, along(m, CX_OP_amax, x, a->axis), NULL, false);
}

static void rule_softmax(maker *m, const cx_pnode *n)
{
	const cx_attr_softmax *a = n->attr;
	uint32_t e = make(m, CX_OP_exp, shifted(m, n), CX_NO, NULL, false);
	make(m, CX_OP_div, e, along(m, CX_OP_sum, e, a->axis), NULL, true);
}

static void rule_log_softmax(maker *m, const cx_pnode *n)
{
	const cx_attr_softmax *a = n->attr;
	uint32_t z = shifted(m, n), e = make(m, CX_OP_exp, z, CX_NO, NULL, false);
	make(m, CX_OP_sub, z, make(m, CX_OP_log, along(m, CX_OP_sum, e, a->axis), CX_NO, NULL, false),
		NULL, true);
}

static const struct {
	uint16_t op;
	void (*run)(maker *, const cx_pnode *);
} rules[] = {
	{CX_OP_silu, rule_silu},
	{CX_OP_relu, rule_relu},
	{CX_OP_clamp, rule_clamp},
	{CX_OP_rmsnorm, rule_rmsnorm},
	{CX_OP_l2norm, rule_l2norm},
	{CX_OP_layernorm, rule_layernorm},
	{CX_OP_softmax, rule_softmax},
	{CX_OP_log_softmax, rule_log_softmax},
};

static bool has_rule(unsigned op)
{
	for (size_t i = 0; i < sizeof rules / sizeof rules[0]; i++)
		if (rules[i].op == op) return true;
	return false;
}

static bool device_has_all(cx_plan *p, uint32_t dev, const maker *m)
{
	for (uint32_t i = 0; i < m->n_made; i++) {
		const cx_pnode *n = &p->n[m->made[i]];
		uint64_t set;
		if (!cx__plan_find(p, dev, n) && !cx__plan_dense_set(p, dev, n, &set) && !has_rule(n->op))
			return false;
	}
	return true;
}

cx_status cx__plan_rule(
	cx_plan *p, uint32_t dev, uint32_t node, uint32_t *made, uint32_t *n_made, cx_err *err)
{
	cx_pnode n = p->n[node]; /* p->n moves */
	maker m = {.p = p, .src = n.src, .last = n.out[0], .made = made};
	*n_made = 0;
	if (!has_rule(n.op) || p->t[n.in[0]].desc.dtype != CX_F32) return CX_OK;
	for (uint32_t j = 1; j < n.n_in; j++)
		if (n.in[j] != CX_NO && p->t[n.in[j]].desc.dtype != CX_F32) return CX_OK;
	for (size_t i = 0; i < sizeof rules / sizeof rules[0]; i++)
		if (rules[i].op == n.op) rules[i].run(&m, &n);
	if (m.failed || !device_has_all(p, dev, &m)) {
		for (uint32_t i = 0; i < m.n_made; i++) p->n[made[i]].flags |= CX_PNODE_DEAD;
		p->t[n.out[0]].def = node;
		return m.oom ? cx__plan_oom(err) : CX_OK;
	}
	p->n[node].flags |= CX_PNODE_DEAD;
	p->t[n.out[0]].trusted = 1;
	*n_made = m.n_made;
	return CX_OK;
}
