/* verify_values.c - translation validation: what every tensor of the plan computes, written out in
 * the ops of the source graph, is what the source computes.
 *
 * Every value gets a 128-bit number: a hash of the op, its attributes and the numbers of its
 * operands. Fused nodes are expanded to the ops they stand for; copies and whole views have the
 * number of what they read; versions of states are values like others. Two values of one number are
 * the same expression, however it was derived, so this shares no rule with the passes. Not
 * expanded, and taken from the source by name: folded constants, and the fusions that change
 * rounding (attention, embed_sum, softmax_scale). What a rule of legalise puts in place of an op is
 * noted when first seen, and stands for that op from then on. Tests compare the numbers of all
 * these. */
#include "graph/plan.h"
#include "graph/prog.h"

#include <stdio.h>
#include <string.h>

typedef struct value {
	uint64_t a, b;
} value; /* bit 0 of b: negated */

static value mix(value v, uint64_t x)
{
	v.a = (v.a ^ x) * 0x9e3779b97f4a7c15u;
	v.a ^= v.a >> 31;
	v.b = (v.b + x + 0x632be59bd9b4e019u) * 0xd6e8feb86659fd93u;
	v.b ^= v.b >> 29;
	return v;
}

static value start(uint64_t x)
{
	return mix((value){0x243f6a8885a308d3u, 0x13198a2e03707344u}, x);
}
static value with(value v, value x)
{
	return mix(mix(v, x.a), x.b);
}
static value done(value v)
{
	return (value){v.a, v.b & ~(uint64_t)1};
}
static bool same(value a, value b)
{
	return a.a == b.a && a.b == b.b;
}

/* Where elements in order come from: a run of `base`, which has `elems` of them. A copy of a run is
 * that run, so that views of copies and views of what was copied have the same number. */
typedef struct window {
	value base;
	int64_t off, elems;
} window;

/* An operand: its elements, and the dims under which they are read. */
typedef struct term {
	window run;
	cx_desc d; /* dtype and dims; strides are not looked at */
	bool absent;
	const float *scalar; /* a constant f32 of one element */
} term;

/* All values without elements are one. */
static value nothing(void)
{
	return done(mix(start(0x11), 0));
}

static window whole(value v, const cx_desc *d)
{
	return (window){v, 0, cx__desc_elems(d)};
}

/* The number of n elements in order. */
static value number(window w, int64_t n)
{
	if (n == 0) return nothing();
	if (w.off == 0 && w.elems == n) return w.base;
	return done(mix(mix(with(start(0x13), w.base), (uint64_t)w.off), (uint64_t)n));
}

static value term_value(const term *t)
{
	value v = start(0x7e);
	if (t->absent) return v;
	v = with(v, number(t->run, cx__desc_elems(&t->d)));
	for (int i = 0; i < t->d.rank; i++) v = mix(v, (uint64_t)t->d.dim[i]);
	return done(v);
}

/* The elements of a view, in order: a run of the root where axes can be walked as one with stride
 * 1, else a new value made of the root's number and the layout. */
static window view_of(window root, int64_t off, const cx_desc *d)
{
	int64_t dim[CX_MAX_RANK], stride[CX_MAX_RANK];
	int n = 0;
	value v;
	if (cx__desc_elems(d) == 0) return whole(nothing(), d);
	for (int i = 0; i < d->rank; i++) {
		if (d->dim[i] == 1) continue;
		if (n > 0 && stride[n - 1] == d->stride[i] * d->dim[i]) {
			dim[n - 1] *= d->dim[i];
			stride[n - 1] = d->stride[i];
			continue;
		}
		dim[n] = d->dim[i];
		stride[n++] = d->stride[i];
	}
	if (n == 0 || (n == 1 && stride[0] == 1))
		return (window){root.base, root.off + off, root.elems};
	v = mix(with(start(0x11), root.base), (uint64_t)(root.off + off));
	for (int i = 0; i < n; i++) v = mix(mix(v, (uint64_t)dim[i]), (uint64_t)stride[i]);
	return whole(done(v), d);
}

static value attr_value(value v, cx_attr_id id, const void *attr)
{
	const cx_attr_info *info = &cx__attrs[id];
	const char *base = attr ? attr : info->defaults;
	for (int f = 0; f < info->n_fields; f++) {
		const char *at = base + info->fields[f].offset;
		uint32_t bits;
		switch (info->fields[f].kind) {
		case 'F':
			memcpy(&bits, at, sizeof bits);
			v = mix(v, bits);
			break;
		case 'B':
			v = mix(v, *(const bool *)at);
			break;
		case 'D':
			v = mix(v, *(const cx_dtype *)at);
			break;
		case 'L':
			v = mix(v, (uint64_t)((const cx_list *)at)->n);
			for (int i = 0; i < ((const cx_list *)at)->n; i++)
				v = mix(v, (uint64_t)((const cx_list *)at)->v[i]);
			break;
		default:
			v = mix(v, (uint64_t) * (const int64_t *)at);
		}
	}
	return v;
}

static bool is_one_number(const term *t, float x)
{
	return t->scalar && memcmp(t->scalar, &x, sizeof x) == 0;
}

/* Ops that give back an operand's elements: the operand, or NULL. */
static const term *passed_on(
	cx_op op, const void *attr, const term *in, uint32_t n_in, const cx_desc *out)
{
	const term *t = NULL;
	(void)attr;
	if (op == CX_OP_copy || op == CX_OP_cast || op == CX_OP_pad) t = &in[0];
	if (op == CX_OP_concat && n_in == 1) t = &in[0];
	if (op == CX_OP_assign) t = &in[1];
	if ((op == CX_OP_mul || op == CX_OP_div) && is_one_number(&in[1], 1.0f)) t = &in[0];
	if (op == CX_OP_mul && !t && is_one_number(&in[0], 1.0f)) t = &in[1];
	if (op == CX_OP_sub && is_one_number(&in[1], 0.0f)) t = &in[0];
	return t && t->d.dtype == out->dtype && cx__desc_same_dims(&t->d, out) ? t : NULL;
}

/* Elements of output o of op(in...). */
static window apply(cx_op op, const void *attr, const cx_prog *prog, const term *in, uint32_t n_in,
	uint32_t o, const cx_desc *out)
{
	const term *same_term = passed_on(op, attr, in, n_in, out);
	value v = start(op), x, y;
	cx_attr_reduce r;
	if (cx__desc_elems(out) == 0) return whole(nothing(), out);
	if (same_term) return same_term->run;
	if (op == CX_OP_neg) /* a run of the negated base: twice negated it is the same run again */
		return (window){{in[0].run.base.a, in[0].run.base.b ^ 1}, in[0].run.off, in[0].run.elems};
	while (n_in > 0 && in[n_in - 1].absent) n_in--;
	if (cx__ops[op].attr == CX_ATTR_reduce) {
		r = attr ? *(const cx_attr_reduce *)attr : cx_attr_reduce_default();
		if (r.axes.n == 0)
			for (; r.axes.n < in[0].d.rank; r.axes.n++) r.axes.v[r.axes.n] = r.axes.n;
		attr = &r;
	}
	v = attr_value(mix(v, o), cx__ops[op].attr, attr);
	if (prog) {
		char text[CX_PROG_TEXT_MAX];
		size_t n = cx__prog_print(prog, text, sizeof text);
		for (size_t i = 0; i < n; i++) v = mix(v, (unsigned char)text[i]);
	}
	if (n_in == 2 && (op == CX_OP_add || op == CX_OP_mul)) { /* either order */
		x = term_value(&in[0]);
		y = term_value(&in[1]);
		if (x.a > y.a || (x.a == y.a && x.b > y.b)) return whole(done(with(with(v, y), x)), out);
		return whole(done(with(with(v, x), y)), out);
	}
	for (uint32_t j = 0; j < n_in; j++) v = with(v, term_value(&in[j]));
	return whole(done(v), out);
}

static window leaf_value(const cx_desc *d, cx_op op, uint32_t id, const void *data)
{
	value v = mix(start(0x5eed), op);
	uint64_t bytes = cx__desc_bytes(d);
	if (op != CX_OP_const) return whole(done(mix(v, id)), d);
	v = mix(v, d->dtype);
	for (uint64_t i = 0; i < bytes; i++) v = mix(v, ((const unsigned char *)data)[i]);
	return whole(done(mix(v, bytes)), d);
}

/* ---- the source ---- */

typedef struct checker {
	cx_plan *p;
	window *src;  /* [g->n_nodes] elements of each root */
	window *plan; /* [n_t] the same of the plan's roots */
	term *terms;  /* [cap] scratch for operands */
	uint32_t cap;
	bool again; /* a rule was noted: number the source anew */
	const char *stage;
	cx_err *err;
} checker;

static term source_term(const checker *c, uint32_t id)
{
	const cx_node *n;
	term t = {.absent = true};
	if (id == CX_NO) return t;
	n = &c->p->g->nodes[id];
	t.absent = false;
	t.d = n->desc;
	t.run = view_of(c->src[n->root], n->view_off, &n->desc);
	n = &c->p->g->nodes[n->root];
	if (n->op == CX_OP_const && n->desc.dtype == CX_F32 && cx__desc_elems(&n->desc) == 1)
		t.scalar = n->data;
	return t;
}

static void number_source(checker *c)
{
	const cx_graph *g = c->p->g;
	for (uint32_t i = 0; i < g->n_nodes; i++) {
		const cx_node *n = &g->nodes[i];
		cx_kind kind = cx__ops[n->op].kind;
		if (kind == CX_KIND_META || (kind == CX_KIND_VIEW && n->root != i)) continue;
		if (kind == CX_KIND_LEAF) {
			c->src[i] = leaf_value(&n->desc, (cx_op)n->op, i, n->data);
			continue;
		}
		for (uint32_t j = 0; j < n->n_in; j++) c->terms[j] = source_term(c, n->in[j]);
		if (kind == CX_KIND_VIEW) { /* a reshape by copy: the same elements in order */
			c->src[i] = c->terms[0].run;
			continue;
		}
		if (c->p->t[i].trusted == 2) {
			c->src[i] = whole((value){c->p->t[i].expr[0], c->p->t[i].expr[1]}, &n->desc);
			continue;
		}
		for (uint32_t o = 0; o < n->n_out; o++)
			c->src[i + o] =
				apply((cx_op)n->op, n->attr, n->prog, c->terms, n->n_in, o, &g->nodes[i + o].desc);
	}
}

/* ---- the plan: fused nodes are expanded ---- */

static term plan_term(const checker *c, uint32_t id)
{
	const cx_ptensor *t, *root;
	term r = {.absent = true};
	if (id == CX_NO) return r;
	t = &c->p->t[id];
	root = &c->p->t[t->root];
	r.absent = false;
	r.d = t->desc;
	r.run = view_of(c->plan[t->root], t->view_off, &t->desc);
	if (root->leaf == CX_OP_const && !root->trusted && root->desc.dtype == CX_F32 &&
		cx__desc_elems(&root->desc) == 1)
		r.scalar = root->data;
	return r;
}

/* op(a, b, c) as a term of these dims. */
static term expand(cx_op op, const void *attr, const term *in, uint32_t n_in, const cx_desc *d)
{
	term t = {.d = *d};
	t.run = apply(op, attr, NULL, in, n_in, 0, d);
	return t;
}

static term expand_norm(const cx_attr_linear *a, const term *x, const term *operands)
{
	cx_attr_norm at = {.eps = a->eps, .plus_one = a->plus_one};
	term in[3] = {*x};
	for (int64_t i = 0; i < a->norm_in; i++) in[1 + i] = operands[i];
	return expand(
		a->norm == 1 ? CX_OP_rmsnorm : CX_OP_layernorm, &at, in, 1 + (uint32_t)a->norm_in, &x->d);
}

static void number_linear(checker *c, const cx_pnode *n)
{
	const cx_attr_linear *a = n->attr;
	const cx_attr_matmul by_rows = {.trans_b = true, .act_scale = a->act_scale};
	const term *in = c->terms, *w = in + 1 + a->norm_in, *bias = w + a->n_w;
	term x = a->norm ? expand_norm(a, &in[0], in + 1) : in[0], y[3], pair[2];
	for (int64_t i = 0; i < a->n_w; i++) {
		cx_desc d = x.d;
		d.dim[d.rank - 1] = w[i].d.dim[0];
		pair[0] = x;
		pair[1] = w[i];
		y[i] = expand(CX_OP_matmul, &by_rows, pair, 2, &d);
		pair[0] = y[i];
		pair[1] = bias[i];
		if (a->bias && !bias[i].absent) y[i] = expand(CX_OP_add, NULL, pair, 2, &d);
		if (a->act != CX_OP_input && !(a->glu && i == 1))
			y[i] = expand((cx_op)a->act, NULL, &y[i], 1, &d);
	}
	if (a->glu) y[0] = expand(CX_OP_mul, NULL, y, 2, &y[0].d);
	pair[0] = y[0];
	pair[1] = in[n->n_in - 1];
	if (a->residual) y[0] = expand(CX_OP_add, NULL, pair, 2, &y[0].d);
	for (uint32_t o = 0; o < n->n_out; o++) c->plan[n->out[o]] = y[o].run;
}

static void number_add_norm(checker *c, const cx_pnode *n)
{
	term s = expand(CX_OP_add, NULL, c->terms, 2, &c->p->t[n->out[0]].desc);
	c->plan[n->out[0]] = s.run;
	c->plan[n->out[1]] = expand_norm(n->attr, &s, c->terms + 2).run;
}

static void number_rope_kv(checker *c, const cx_pnode *n)
{
	const term *in = c->terms;
	term k[3] = {in[0], in[2], n->n_in > 6 ? in[6] : (term){.absent = true}}, write[3],
		 src[2] = {in[0], in[1]};
	src[0] = expand(CX_OP_rope, n->attr, k, 3, &in[0].d);
	for (int i = 0; i < 2; i++) {
		cx_attr_cast to = {.dtype = in[4].d.dtype};
		cx_desc d = src[i].d;
		d.dtype = to.dtype;
		write[0] = in[4 + i];
		write[1] = in[3];
		write[2] = src[i].d.dtype == to.dtype ? src[i] : expand(CX_OP_cast, &to, &src[i], 1, &d);
		c->plan[n->out[i]] = apply(CX_OP_scatter, NULL, NULL, write, 3, 0, &write[0].d);
	}
}

static void number_conv(checker *c, const cx_pnode *n)
{
	cx_attr_conv1d a = *(const cx_attr_conv1d *)n->attr;
	term y = {.d = c->p->t[n->out[0]].desc};
	a.silu = false;
	y.run = apply(CX_OP_conv1d, &a, NULL, c->terms, n->n_in, 0, &y.d);
	c->plan[n->out[0]] = apply(CX_OP_silu, NULL, NULL, &y, 1, 0, &y.d);
	c->plan[n->out[1]] =
		apply(CX_OP_conv1d, &a, NULL, c->terms, n->n_in, 1, &c->p->t[n->out[1]].desc);
}

static void widen(cx_desc *d, const cx_desc *by)
{
	cx_desc y = by->rank > d->rank ? *by : *d;
	const cx_desc *low = by->rank > d->rank ? d : by;
	for (int i = 0; i < low->rank; i++)
		if (y.dim[y.rank - low->rank + i] == 1) y.dim[y.rank - low->rank + i] = low->dim[i];
	y.dtype = d->dtype;
	*d = y;
}

static bool gives_bool(unsigned op)
{
	switch (op) {
	case CX_OP_not:
	case CX_OP_eq:
	case CX_OP_ne:
	case CX_OP_lt:
	case CX_OP_le:
	case CX_OP_gt:
	case CX_OP_ge:
	case CX_OP_and:
	case CX_OP_or:
	case CX_OP_xor:
		return true;
	default:
		return false;
	}
}

static term expand_instr(const cx_instr *in, const term *regs)
{
	uint32_t n = (uint32_t)cx__prog_arity(in->op);
	term args[3] = {regs[in->a], regs[in->b], regs[in->c]};
	cx_attr_clamp clamp = {.lo = in->p, .hi = in->q};
	cx_attr_cast cast = {.dtype = (cx_dtype)in->p};
	const void *attr = in->op == CX_OP_clamp  ? (void *)&clamp
					   : in->op == CX_OP_cast ? (void *)&cast
											  : NULL;
	cx_desc d = args[0].d;
	for (uint32_t j = 1; j < n; j++) widen(&d, &args[j].d);
	d.dtype = in->op == CX_OP_where ? args[1].d.dtype : args[0].d.dtype;
	if (in->op == CX_OP_cast)
		d.dtype = cast.dtype; /* to its own dtype: only rounds, the same value */
	if (gives_bool(in->op)) d.dtype = CX_BOOL;
	return expand((cx_op)in->op, attr, args, n, &d);
}

static void number_map(checker *c, const cx_pnode *n)
{
	static const uint16_t folds[] = {CX_OP_sum, CX_OP_sum, CX_OP_mean, CX_OP_amax, CX_OP_amin};
	const cx_attr_map *a = n->attr;
	cx_attr_reduce r = cx_attr_reduce_default();
	term regs[CX_PROG_MAX_IN + CX_PROG_MAX];
	for (uint32_t i = 0; i < n->n_in; i++) regs[i] = c->terms[i];
	for (uint32_t i = 0; i < n->prog->n_instr; i++)
		regs[n->n_in + i] = expand_instr(&n->prog->instr[i], regs);
	for (uint32_t o = 0; o < n->n_out; o++) {
		const term *t = &regs[n->prog->out[o]];
		c->plan[n->out[o]] = t->run;
		if (!a->reduce) continue;
		r.axes.n = 1;
		r.axes.v[0] = t->d.rank - 1;
		r.keep = a->keep;
		c->plan[n->out[o]] =
			apply((cx_op)folds[a->reduce], &r, NULL, t, 1, 0, &c->p->t[n->out[o]].desc);
	}
}

static window by_name(const checker *c, uint32_t t)
{
	uint32_t src = c->p->t[t].src;
	return src == CX_NO ? whole(start(0xbad), &c->p->t[t].desc) : c->src[c->p->g->nodes[src].root];
}

static void number_node(checker *c, const cx_pnode *n)
{
	for (uint32_t j = 0; j < n->n_in; j++) c->terms[j] = plan_term(c, n->in[j]);
	switch (n->fusion) {
	case CX_FUSION_gate_up:
	case CX_FUSION_linear:
		number_linear(c, n);
		return;
	case CX_FUSION_add_norm:
		number_add_norm(c, n);
		return;
	case CX_FUSION_rope_kv:
		number_rope_kv(c, n);
		return;
	case CX_FUSION_conv_silu:
		number_conv(c, n);
		return;
	case CX_FUSION_map:
		number_map(c, n);
		return;
	case CX_FUSION_embed_sum:
	case CX_FUSION_softmax_scale:
		c->plan[n->out[0]] = by_name(c, n->out[0]);
		return;
	case CX_FUSION_attention:
		if (c->p->t[n->out[0]].same_as != CX_NO) {
			uint32_t view = c->p->t[n->out[0]].same_as;
			c->plan[c->p->t[view].root] = by_name(c, c->p->t[view].root);
			c->plan[n->out[0]] = plan_term(c, view).run;
		} else {
			c->plan[n->out[0]] = by_name(c, n->out[0]);
		}
		return;
	default:
		break;
	}
	for (uint32_t o = 0; o < n->n_out; o++) {
		cx_ptensor *t = &c->p->t[n->out[o]];
		window w = apply((cx_op)n->op, n->attr, n->fusion == CX_FUSION_none ? n->prog : NULL,
			c->terms, n->n_in, o, &t->desc);
		value v = number(w, cx__desc_elems(&t->desc));
		c->plan[n->out[o]] = t->trusted ? whole(v, &t->desc) : w; /* as number_source() has it */
		if (t->trusted != 1) continue;
		t->trusted = 2;
		t->expr[0] = v.a;
		t->expr[1] = v.b;
		c->again = true;
	}
}

static value root_number(window w, const cx_desc *d)
{
	return number(w, cx__desc_elems(d));
}

static cx_status compare(checker *c)
{
	const cx_plan *p = c->p;
	char text[160];
	for (uint32_t t = 0; t < p->g->n_nodes; t++) { /* the first in order names the culprit */
		if (p->t[t].root != t || p->t[t].def == CX_NO || p->n[p->t[t].def].flags & CX_PNODE_DEAD)
			continue;
		if (!same(root_number(c->plan[t], &p->t[t].desc),
				root_number(c->src[p->g->nodes[t].root], &p->t[t].desc)))
			return CX_FAIL(c->err, CX_ERR_ARGUMENT,
				"verify after %s: the plan computes something else for %s", c->stage,
				cx__node_text(p->g, t, text, sizeof text));
	}
	for (uint32_t i = 0; i < p->n_outs; i++) {
		term a = plan_term(c, p->outs[i].t), b = source_term(c, p->g->outputs[i].id);
		if (!same(term_value(&a), term_value(&b)))
			return CX_FAIL(c->err, CX_ERR_ARGUMENT,
				"verify after %s: output '%s' is not what the graph says", c->stage,
				p->outs[i].name);
	}
	for (uint32_t s = 0; s < p->n_states; s++)
		if (!same(root_number(c->plan[p->states[s].last], &p->t[p->states[s].leaf].desc),
				root_number(c->src[p->states[s].last], &p->t[p->states[s].leaf].desc)))
			return CX_FAIL(c->err, CX_ERR_ARGUMENT,
				"verify after %s: state '%s' ends with another value", c->stage,
				p->g->nodes[p->t[p->states[s].leaf].src].name);
	return CX_OK;
}

cx_status cx__verify_values(cx_plan *p, const char *stage, cx_err *err)
{
	checker c = {.p = p, .stage = stage, .err = err, .cap = 1};
	for (uint32_t i = 0; i < p->g->n_nodes; i++)
		if (p->g->nodes[i].n_in > c.cap) c.cap = p->g->nodes[i].n_in;
	for (uint32_t i = 0; i < p->n_order; i++)
		if (p->n[p->order[i]].n_in > c.cap) c.cap = p->n[p->order[i]].n_in;
	c.src = cx_arena_array(&p->tmp, p->g->n_nodes, sizeof *c.src);
	c.plan = cx_arena_array(&p->tmp, p->n_t, sizeof *c.plan);
	c.terms = cx_arena_array(&p->tmp, (size_t)c.cap + 8, sizeof *c.terms);
	if (!c.src || !c.plan || !c.terms) return cx__plan_oom(err);
	number_source(&c);
	for (uint32_t t = 0; t < p->n_t; t++)
		if (p->t[t].root == t && p->t[t].leaf != CX_LEAF_NONE)
			c.plan[t] = p->t[t].trusted ? by_name(&c, t)
										: leaf_value(&p->t[t].desc, (cx_op)p->t[t].leaf,
											  p->t[t].src, p->t[t].data);
	for (uint32_t i = 0; i < p->n_order; i++) number_node(&c, &p->n[p->order[i]]);
	if (c.again) number_source(&c);
	return compare(&c);
}
