/* plan_emit.c - the last pass: steps with operands as buffer and offset, a binding table per
 * device, and segments: runs of steps on one device, and transfers between two. What the executor
 * and the backends see of a plan. */
#include "graph/plan.h"

#include <string.h>

typedef struct emitter {
	cx_plan *p;
	uint32_t *bind; /* [n_devs * n_mem]: row of the device's table, or CX_NO */
	cx_err *err;
} emitter;

/* Row of storage m in device d's table; made on first use. Tables have room for all. */
static uint32_t bind_of(emitter *e, uint32_t d, uint32_t m)
{
	cx_plan *p = e->p;
	cx_pdevice *dev = &p->devs[d];
	uint32_t *row = &e->bind[(size_t)d * p->n_mem + m];
	if (p->mem[m].kind == CX_MEM_SLAB) return CX_BUF_SLAB;
	if (p->mem[m].kind == CX_MEM_CONST) return 1;
	if (*row == CX_NO) {
		*row = dev->n_binds;
		dev->binds[dev->n_binds++] = (cx_bind){p->mem[m].kind, p->mem[m].what, p->mem[m].bytes};
	}
	return *row;
}

static uint64_t offset_of(const cx_ptensor *t, const cx_storage *m)
{
	const cx_dtype_info *info = cx_dtype_get(t->desc.dtype);
	uint64_t in_slab = m->kind == CX_MEM_SLAB || m->kind == CX_MEM_CONST ? m->off : 0;
	return in_slab +
		   (uint64_t)t->view_off / (uint64_t)info->block_elems * (uint64_t)info->block_bytes;
}

static void set_operand(emitter *e, uint32_t dev, uint32_t t, cx_operand *out)
{
	cx_plan *p = e->p;
	if (t == CX_NO) {
		out->desc.dtype = CX_DTYPE_COUNT;
		out->buf = CX_BUF_NONE;
		return;
	}
	out->desc = p->t[t].desc;
	out->buf = bind_of(e, dev, p->t[p->t[t].root].mem);
	out->off = offset_of(&p->t[t], &p->mem[p->t[p->t[t].root].mem]);
}

static cx_status emit_step(emitter *e, uint32_t id)
{
	cx_plan *p = e->p;
	const cx_pnode *n = &p->n[id];
	cx_step *s = &p->devs[n->dev].steps[p->devs[n->dev].n_steps];
	cx_operand *args = cx_arena_array(&p->arena, (size_t)n->n_in + n->n_out, sizeof *args);
	if (!args) return cx__plan_oom(e->err);
	for (uint32_t j = 0; j < n->n_in; j++) set_operand(e, n->dev, n->in[j], &args[j]);
	for (uint32_t o = 0; o < n->n_out; o++) set_operand(e, n->dev, n->out[o], &args[n->n_in + o]);
	*s = (cx_step){.kernel = n->kernel,
		.op = (cx_op)n->op,
		.attr = n->attr,
		.prog = n->prog,
		.n_in = n->n_in,
		.n_out = n->n_out,
		.in = args,
		.out = args + n->n_in,
		.node = n->src};
	if (!s->attr) s->attr = cx__attrs[cx__ops[n->op].attr].defaults;
	if (n->scratch_mem != CX_NO) {
		s->scratch_off = p->mem[n->scratch_mem].off;
		s->scratch_bytes = n->scratch;
	}
	p->step_node[n->pos] = p->devs[n->dev].n_steps++;
	return CX_OK;
}

/* A copy between devices: all of a root, so the bytes are in one piece on both sides. */
static void emit_transfer(emitter *e, uint32_t id)
{
	cx_plan *p = e->p;
	const cx_pnode *n = &p->n[id];
	const cx_ptensor *from = &p->t[n->in[0]], *to = &p->t[n->out[0]], *root = &p->t[from->root];
	cx_segment *s = &p->segs[p->n_segs++];
	*s = (cx_segment){.dev = n->dev, .from = root->dev, .pos = n->pos};
	s->src_buf = bind_of(e, root->dev, root->mem);
	s->dst_buf = bind_of(e, n->dev, to->mem);
	s->src_off = offset_of(from, &p->mem[root->mem]);
	s->dst_off = offset_of(to, &p->mem[to->mem]);
	s->bytes = cx__desc_bytes(&from->desc);
	p->step_node[n->pos] = CX_NO;
}

static cx_status prepare(emitter *e)
{
	cx_plan *p = e->p;
	size_t n_bind = (size_t)p->n_devs * p->n_mem;
	uint32_t *n_steps = cx_arena_array(&p->tmp, p->n_devs, sizeof *n_steps);
	e->bind = cx_arena_array(&p->tmp, n_bind, sizeof *e->bind);
	p->segs = cx_arena_array(&p->arena, p->n_order, sizeof *p->segs);
	p->step_node = cx_arena_array(&p->arena, p->n_order, sizeof *p->step_node);
	if (!e->bind || !n_steps || !p->segs || !p->step_node) return cx__plan_oom(e->err);
	memset(e->bind, 0xff, n_bind * sizeof *e->bind);
	for (uint32_t i = 0; i < p->n_order; i++) n_steps[p->n[p->order[i]].dev]++;
	for (uint32_t d = 0; d < p->n_devs; d++) {
		p->devs[d].steps = cx_arena_array(&p->arena, n_steps[d], sizeof(cx_step));
		p->devs[d].binds = cx_arena_array(&p->arena, (size_t)p->n_mem + 2, sizeof(cx_bind));
		if (!p->devs[d].steps || !p->devs[d].binds) return cx__plan_oom(e->err);
		p->devs[d].binds[0] = (cx_bind){CX_MEM_SLAB, 0, p->devs[d].slab_bytes};
		p->devs[d].binds[1] = (cx_bind){CX_MEM_CONST, 0, p->devs[d].const_bytes};
		p->devs[d].n_binds = 2;
	}
	return CX_OK;
}

cx_status cx__pass_emit(cx_plan *p, cx_err *err)
{
	emitter e = {.p = p, .err = err};
	cx_status st = prepare(&e);
	if (st != CX_OK) return st;
	for (uint32_t i = 0; i < p->n_order; i++) {
		const cx_pnode *n = &p->n[p->order[i]];
		cx_segment *last = p->n_segs ? &p->segs[p->n_segs - 1] : NULL;
		if (n->flags & CX_PNODE_XDEV) {
			emit_transfer(&e, p->order[i]);
			continue;
		}
		if (!last || last->n == 0 || last->dev != n->dev)
			p->segs[p->n_segs++] =
				(cx_segment){.dev = n->dev, .first = p->devs[n->dev].n_steps, .pos = i};
		p->segs[p->n_segs - 1].n++;
		if ((st = emit_step(&e, p->order[i])) != CX_OK) return st;
	}
	for (uint32_t i = 0; i < p->n_outs;
		 i++) { /* an output that no step touched last is still bound */
		const cx_ptensor *root = &p->t[p->t[p->outs[i].t].root];
		bind_of(&e, root->dev, root->mem);
	}
	p->stats.n_nodes = p->g->n_nodes;
	p->stats.n_steps = p->n_order;
	p->stats.n_fallback = 0; /* place counted them before some were fused */
	for (uint32_t i = 0; i < p->n_order; i++) {
		const cx_pnode *n = &p->n[p->order[i]];
		p->stats.n_fallback += n->dev != 0 && !(n->flags & CX_PNODE_XDEV);
	}
	for (uint32_t i = 0; i < p->n_order; i++)
		if (p->n[p->order[i]].n_origin > 1) p->stats.n_fused += p->n[p->order[i]].n_origin - 1;
	return CX_OK;
}
