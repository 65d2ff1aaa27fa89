/* launch_map.c - elementwise ops, casts, map programs, and ops that move elements. */
#include "backends/vulkan/emit.h"

#include <string.h>

enum { LOCAL = 64 };

/* ---- pieces ---- */

/* n operands over one index space, described in it; the first axis with more than one row is
 * cut into pieces where
 * a tensor is larger than a descriptor. */
enum { MAX_OPS = CX_VK_TENSORS };
typedef struct space {
	cx_operand o[MAX_OPS];
	int access[MAX_OPS];
	uint32_t n;
	int32_t axis;
	int64_t at, piece;
} space;

static void space_add(space *s, const cx_operand *o, int access, int32_t rank, const int64_t *dim)
{
	s->o[s->n] = *o;
	cx__vk_in_space(&s->o[s->n].desc, rank, dim);
	s->access[s->n++] = access;
}

static void space_start(const cx_vk_emit *e, space *s)
{
	const cx_desc *d[MAX_OPS];
	const cx_desc *first = &s->o[0].desc;
	for (uint32_t i = 0; i < s->n; i++) d[i] = &s->o[i].desc;
	s->axis = 0;
	while (s->axis + 1 < first->rank && first->dim[s->axis] == 1) s->axis++;
	s->at = 0;
	s->piece = first->rank ? cx__vk_piece(e->dev, d, s->n, s->axis) : 1;
	CX_ASSERT(
		s->piece > 0 || (first->rank && first->dim[s->axis] == 0)); /* find() asked the same */
}

/* The next piece, its axes merged; false at the end. */
static bool space_next(space *s, cx_operand *part)
{
	int64_t all = s->o[0].desc.rank ? s->o[0].desc.dim[s->axis] : 1, n;
	cx_desc *d[MAX_OPS];
	if (s->at >= all || cx__desc_elems(&s->o[0].desc) == 0) return false;
	n = all - s->at < s->piece ? all - s->at : s->piece;
	for (uint32_t i = 0; i < s->n; i++) {
		part[i] = s->o[0].desc.rank ? cx__vk_rows(&s->o[i], s->axis, s->at, n) : s->o[i];
		d[i] = &part[i].desc;
	}
	cx__vk_collapse(d, s->n);
	s->at += n;
	return true;
}

static uint32_t space_walk(const cx_operand *part, uint32_t n)
{
	uint32_t walk = 0;
	for (uint32_t i = 0; i < n; i++)
		if (cx__vk_walk(&part[i].desc)) walk = (uint32_t)part[0].desc.rank;
	return walk;
}

/* ---- float programs ---- */

static uint32_t bits(float f)
{
	uint32_t u;
	memcpy(&u, &f, 4);
	return u;
}

/* A single op as a program of one instruction. */
static cx_prog prog_of(const cx_step *s)
{
	cx_prog p = {.n_in = (uint8_t)s->n_in, .n_instr = 1, .n_out = 1};
	p.out[0] = p.n_in;
	p.out_dtype[0] = (uint8_t)s->out[0].desc.dtype;
	p.instr[0] = (cx_instr){.op = (uint16_t)s->op, .a = 0, .b = 1, .c = 2};
	if (s->n_in < 2) p.instr[0].b = 0;
	if (s->n_in < 3) p.instr[0].c = 0;
	if (s->op == CX_OP_clamp) {
		p.instr[0].p = ((const cx_attr_clamp *)s->attr)->lo;
		p.instr[0].q = ((const cx_attr_clamp *)s->attr)->hi;
	}
	return p;
}

static void spec_program(
	const cx_vk_emit *e, cx_vk_dispatch *d, const cx_prog *p, uint32_t rank, int64_t reduce)
{
	const cx_step *s = e->step;
	cx__vk_spec(d, p->n_in);
	cx__vk_spec(d, p->n_instr);
	cx__vk_spec(d, p->n_out);
	cx__vk_spec(d, rank);
	for (uint32_t i = 0; i < CX_PROG_MAX_IN; i++)
		cx__vk_spec(d, i < p->n_in ? (uint32_t)s->in[i].desc.dtype : 0);
	for (uint32_t i = 0; i < CX_MAX_OUT; i++)
		cx__vk_spec(d, i < p->n_out ? p->out_dtype[i] | (uint32_t)p->out[i] << 8 : 0);
	cx__vk_spec(d, (uint32_t)reduce);
	cx__vk_spec(d, !e->dev->exact_div);
	for (uint32_t i = 0; i < p->n_instr; i++) {
		const cx_instr *t = &p->instr[i];
		cx__vk_spec(
			d, (uint32_t)t->op | (uint32_t)t->a << 8 | (uint32_t)t->b << 16 | (uint32_t)t->c << 24);
		cx__vk_spec(d, bits(t->p));
		cx__vk_spec(d, bits(t->q));
	}
}

static cx_desc space_of(const cx_step *s)
{
	cx_desc y = s->in[0].desc;
	for (uint32_t i = 1; i < s->n_in; i++) {
		const cx_desc *x = &s->in[i].desc;
		int32_t rank = x->rank > y.rank ? x->rank : y.rank;
		cx_desc z = {.rank = rank};
		for (int32_t k = 1; k <= rank; k++) {
			int64_t a = k <= x->rank ? x->dim[x->rank - k] : 1,
					b = k <= y.rank ? y.dim[y.rank - k] : 1;
			z.dim[rank - k] = a == 1 ? b : a;
		}
		y = z;
	}
	return y;
}

/* Rows of the program's space, its last axis reduced: a work group per row. */
static void launch_reduced(cx_vk_emit *e, const cx_prog *p, int64_t kind)
{
	const cx_step *s = e->step;
	cx_desc all = space_of(s), rows = all;
	cx_vk_dispatch *d = cx__vk_begin(e, CX_SHADER_mapred, LOCAL);
	rows.dim[rows.rank - 1] = 1;
	cx__desc_dense(&rows);
	spec_program(e, d, p, (uint32_t)all.rank - 1, kind);
	for (uint32_t i = 0; i < p->n_out; i++) {
		cx_operand y = s->out[i];
		cx_dtype t = y.desc.dtype;
		y.desc = rows;
		y.desc.dtype = t;
		cx__vk_bind(e, d, i, &y, CX_VK_WRITE, 0);
	}
	for (uint32_t i = 0; i < p->n_in; i++) {
		cx_operand x = s->in[i];
		cx__vk_in_space(&x.desc, all.rank, all.dim);
		cx__vk_bind(e, d, 4 + i, &x, CX_VK_READ, 0);
	}
	d->p.i[0] = (cx_i32)all.dim[all.rank - 1];
	cx__vk_groups(d, (uint64_t)cx__desc_elems(&rows));
}

void cx__vk_launch_map(cx_vk_emit *e)
{
	const cx_step *s = e->step;
	cx_prog p = s->prog ? *s->prog : prog_of(s);
	int64_t reduce = s->op == CX_OP_map ? ((const cx_attr_map *)s->attr)->reduce : 0;
	bool small = p.n_out == 1 && p.n_in <= 3 && p.n_instr == 1;
	space sp = {0};
	cx_operand part[MAX_OPS];
	if (reduce) {
		launch_reduced(e, &p, reduce);
		return;
	}
	for (uint32_t i = 0; i < p.n_out; i++)
		space_add(&sp, &s->out[i], CX_VK_WRITE, s->out[0].desc.rank, s->out[0].desc.dim);
	for (uint32_t i = 0; i < p.n_in; i++)
		space_add(&sp, &s->in[i], CX_VK_READ, s->out[0].desc.rank, s->out[0].desc.dim);
	space_start(e, &sp);
	while (space_next(&sp, part)) {
		cx_vk_dispatch *d = cx__vk_begin(e,
			small            ? CX_SHADER_map1
			: p.n_instr <= 4 ? CX_SHADER_map4
							 : CX_SHADER_map24,
			LOCAL);
		spec_program(e, d, &p, space_walk(part, sp.n), 0);
		for (uint32_t i = 0; i < sp.n; i++) {
			uint32_t slot = i < p.n_out ? i : (small ? 1 : 4) + i - p.n_out;
			cx__vk_bind(e, d, slot, &part[i], sp.access[i], 0);
		}
		cx__vk_items(d, (uint64_t)cx__desc_elems(&part[0].desc));
	}
}

/* ---- integers, casts ---- */

static int64_t saturate(cx_dtype t, float v)
{
	double lo = t == CX_I64 ? -0x1p63 : t == CX_I32 ? -0x1p31 : t == CX_I8 ? -128 : 0;
	double hi = t == CX_I64 ? 0x1p63 : t == CX_I32 ? 0x1p31 : t == CX_I8 ? 128 : 256;
	if (t == CX_BOOL) return v > 0;
	if (v != v) return 0;
	if (v <= lo) return t == CX_I64 ? INT64_MIN : (int64_t)lo;
	if (v >= hi) return t == CX_I64 ? INT64_MAX : (int64_t)hi - 1;
	return (int64_t)v;
}

void cx__vk_launch_mapi(cx_vk_emit *e)
{
	const cx_step *s = e->step;
	space sp = {0};
	cx_operand part[MAX_OPS];
	space_add(&sp, &s->out[0], CX_VK_WRITE, s->out[0].desc.rank, s->out[0].desc.dim);
	for (uint32_t i = 0; i < s->n_in; i++)
		space_add(&sp, &s->in[i], CX_VK_READ, s->out[0].desc.rank, s->out[0].desc.dim);
	space_start(e, &sp);
	while (space_next(&sp, part)) {
		cx_vk_dispatch *d = cx__vk_begin(e, CX_SHADER_mapi, LOCAL);
		cx__vk_spec(d, (uint32_t)s->op);
		cx__vk_spec(d, space_walk(part, sp.n));
		for (uint32_t i = 0; i < 4; i++)
			cx__vk_spec(d, i < sp.n ? (uint32_t)part[i].desc.dtype : 0);
		cx__vk_spec(d, s->n_in);
		if (s->op == CX_OP_clamp) {
			const cx_attr_clamp *at = s->attr;
			int64_t bound[2] = {
				saturate(part[1].desc.dtype, at->lo), saturate(part[1].desc.dtype, at->hi)};
			memcpy(d->p.i, bound, sizeof bound);
		}
		for (uint32_t i = 0; i < sp.n; i++) cx__vk_bind(e, d, i, &part[i], sp.access[i], 0);
		cx__vk_items(d, (uint64_t)cx__desc_elems(&part[0].desc));
	}
}

void cx__vk_launch_cast(cx_vk_emit *e)
{
	const cx_step *s = e->step;
	space sp = {0};
	cx_operand part[MAX_OPS];
	space_add(&sp, &s->out[0], CX_VK_WRITE, s->out[0].desc.rank, s->out[0].desc.dim);
	space_add(&sp, &s->in[0], CX_VK_READ, s->out[0].desc.rank, s->out[0].desc.dim);
	space_start(e, &sp);
	while (space_next(&sp, part)) {
		cx_vk_dispatch *d = cx__vk_begin(e, CX_SHADER_cast, LOCAL);
		cx__vk_spec(d, space_walk(part, 2));
		cx__vk_spec(d, (uint32_t)part[0].desc.dtype);
		cx__vk_spec(d, (uint32_t)part[1].desc.dtype);
		cx__vk_bind(e, d, 0, &part[0], CX_VK_WRITE, 0);
		cx__vk_bind(e, d, 1, &part[1], CX_VK_READ, 0);
		cx__vk_items(d, (uint64_t)cx__desc_elems(&part[0].desc));
	}
}

/* ---- moving ---- */

/* y = x, x of y's dims up to broadcasting. */
static void move(cx_vk_emit *e, const cx_operand *y, const cx_operand *x)
{
	space sp = {0};
	cx_operand part[MAX_OPS];
	space_add(&sp, y, CX_VK_WRITE, y->desc.rank, y->desc.dim);
	space_add(&sp, x, CX_VK_READ, y->desc.rank, y->desc.dim);
	space_start(e, &sp);
	while (space_next(&sp, part)) {
		cx_vk_dispatch *d;
		if (!space_walk(part, 2)) {
			cx__vk_copy(e, &part[0], &part[1],
				(uint64_t)cx__desc_elems(&part[0].desc) * cx__vk_size(y->desc.dtype));
			continue;
		}
		d = cx__vk_begin(e, CX_SHADER_move, LOCAL);
		cx__vk_spec(d, cx__vk_size(y->desc.dtype));
		cx__vk_spec(d, cx__vk_walk(&part[0].desc));
		cx__vk_spec(d, cx__vk_walk(&part[1].desc));
		cx__vk_bind(e, d, 0, &part[0], CX_VK_WRITE, 0);
		cx__vk_bind(e, d, 1, &part[1], CX_VK_READ, 0);
		cx__vk_items(d, (uint64_t)cx__desc_elems(&part[0].desc));
	}
}

static bool same_dims(const cx_desc *a, const cx_desc *b)
{
	if (a->rank != b->rank) return false;
	for (int32_t i = 0; i < a->rank; i++)
		if (a->dim[i] != b->dim[i]) return false;
	return true;
}

/* The same elements in the same order, whatever the dims: copy, and reshape where strides could
 * not do it. */
void cx__vk_launch_copy(cx_vk_emit *e)
{
	cx_operand y = e->step->out[0], x = e->step->in[0];
	cx_desc *dy = &y.desc, *dx = &x.desc;
	cx_vk_dispatch *d;
	if (same_dims(dy, dx)) {
		move(e, &y, &x);
		return;
	}
	if (cx__desc_elems(dy) == 0) return;
	cx__vk_collapse(&dy, 1);
	cx__vk_collapse(&dx, 1);
	d = cx__vk_begin(e, CX_SHADER_move, LOCAL);
	cx__vk_spec(d, cx__vk_size(dy->dtype));
	cx__vk_spec(d, cx__vk_walk(dy));
	cx__vk_spec(d, cx__vk_walk(dx));
	cx__vk_bind(e, d, 0, &y, CX_VK_WRITE, 0);
	cx__vk_bind(e, d, 1, &x, CX_VK_READ, 0);
	cx__vk_items(d, (uint64_t)cx__desc_elems(dy));
}

void cx__vk_launch_permute(cx_vk_emit *e)
{
	const cx_attr_perm *at = e->step->attr;
	cx_operand x = e->step->in[0];
	for (int32_t i = 0; i < x.desc.rank; i++) {
		x.desc.dim[i] = e->step->in[0].desc.dim[at->perm.v[i]];
		x.desc.stride[i] = e->step->in[0].desc.stride[at->perm.v[i]];
	}
	move(e, &e->step->out[0], &x);
}

void cx__vk_launch_slice(cx_vk_emit *e)
{
	const cx_attr_slice *at = e->step->attr;
	cx_operand x = e->step->in[0];
	for (int32_t i = 0; i < x.desc.rank; i++) {
		x.off += (uint64_t)(at->begin.v[i] * x.desc.stride[i]) * cx__vk_size(x.desc.dtype);
		x.desc.dim[i] = at->size.v[i];
		if (at->step.n) x.desc.stride[i] *= at->step.v[i];
	}
	move(e, &e->step->out[0], &x);
}

void cx__vk_launch_broadcast(cx_vk_emit *e)
{
	move(e, &e->step->out[0], &e->step->in[0]);
}
void cx__vk_launch_assign(cx_vk_emit *e)
{
	move(e, &e->step->out[0], &e->step->in[1]);
}

void cx__vk_launch_concat(cx_vk_emit *e)
{
	const cx_attr_axis *at = e->step->attr;
	int64_t done = 0;
	for (uint32_t i = 0; i < e->step->n_in; i++) {
		int64_t n = e->step->in[i].desc.dim[at->axis];
		cx_operand y = cx__vk_rows(&e->step->out[0], (int32_t)at->axis, done, n);
		if (n) move(e, &y, &e->step->in[i]);
		done += n;
	}
}

/* One row of values along the axis, made here in double, and broadcast. */
void cx__vk_launch_iota(cx_vk_emit *e)
{
	const cx_attr_iota *at = e->step->attr;
	const cx_desc *y = &e->step->out[0].desc;
	int64_t n = y->rank ? y->dim[at->axis] : 1;
	cx_operand row;
	unsigned char *data = cx__vk_table(e, y->dtype, n, &row);
	if (!data) return;
	for (int64_t i = 0; i < n; i++)
		cx__vk_put(y->dtype, data, i, at->start + (double)at->step * (double)i);
	row.desc.rank = y->rank;
	for (int32_t k = 0; k < y->rank; k++) {
		row.desc.dim[k] = y->dim[k];
		row.desc.stride[k] = k == at->axis;
	}
	move(e, &e->step->out[0], &row);
}
