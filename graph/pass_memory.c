/* pass_memory.c - storage for every root, and offsets in one slab per device.
 *
 * In: nodes in run order.  Out: t[root].mem, and mem[] with kind, life and offset; scratch of steps
 * likewise.
 *
 * A root takes over the bytes of the operand that its op updates, or that its kernel may overwrite,
 * if that dies there; else it gets storage of its own. States, inputs, weights and outputs are
 * buffers of their own; constants share one. What is left lives in the slab from its first write to
 * its last read; cx_pack() places it. */
#include "graph/pack.h"
#include "graph/plan.h"

#include <string.h>

enum { DEFAULT_BUDGET = 2000 }; /* placements the packer's search may try: a millisecond or so */

typedef struct allocator {
	cx_plan *p;
	uint32_t *last_use; /* [n_t] by root: position of the last reader, or of its writer */
	cx_err *err;
} allocator;

static uint32_t storage_add(
	cx_plan *p, cx_mem_kind kind, uint8_t dev, uint32_t what, uint64_t bytes, uint32_t pos)
{
	if (p->n_mem == p->cap_mem) {
		uint32_t cap = p->cap_mem ? p->cap_mem * 2 : p->n_order + 64;
		void *mem =
			cx_realloc(&p->alloc, p->mem, p->cap_mem * sizeof *p->mem, cap * sizeof *p->mem);
		if (!mem) return CX_NO;
		p->mem = mem;
		p->cap_mem = cap;
	}
	p->mem[p->n_mem] = (cx_storage){
		.kind = (uint8_t)kind, .dev = dev, .what = what, .first = pos, .last = pos, .bytes = bytes};
	return p->n_mem++;
}

static cx_status find_last_uses(allocator *a)
{
	cx_plan *p = a->p;
	a->last_use = cx_arena_array(&p->tmp, p->n_t, sizeof *a->last_use);
	if (!a->last_use) return cx__plan_oom(a->err);
	for (uint32_t i = 0; i < p->n_order; i++) {
		const cx_pnode *n = &p->n[p->order[i]];
		for (uint32_t o = 0; o < n->n_out; o++) a->last_use[n->out[o]] = i;
		for (uint32_t j = 0; j < n->n_in; j++)
			if (n->in[j] != CX_NO) a->last_use[p->t[n->in[j]].root] = i;
	}
	for (uint32_t i = 0; i < p->n_outs; i++) a->last_use[p->t[p->outs[i].t].root] = p->n_order;
	return CX_OK;
}

/* ---- leaves ---- */

static cx_status place_leaf(allocator *a, uint32_t root)
{
	cx_plan *p = a->p;
	cx_ptensor *t = &p->t[root];
	static const uint8_t kinds[] = {
		[CX_OP_input] = CX_MEM_INPUT, [CX_OP_weight] = CX_MEM_WEIGHT, [CX_OP_const] = CX_MEM_CONST};
	if (t->mem != CX_NO || t->def != CX_NO || t->leaf == CX_OP_state || t->leaf == CX_LEAF_NONE)
		return CX_OK;
	t->mem = storage_add(p, (cx_mem_kind)kinds[t->leaf], 0, root, cx__desc_bytes(&t->desc), 0);
	return t->mem == CX_NO ? cx__plan_oom(a->err) : CX_OK;
}

static cx_status place_leaves(allocator *a)
{
	cx_plan *p = a->p;
	uint64_t at = 0;
	cx_status st;
	for (uint32_t s = 0; s < p->n_states; s++) {
		uint32_t leaf = p->states[s].leaf, mem;
		mem =
			storage_add(p, CX_MEM_STATE, p->states[s].dev, s, cx__desc_bytes(&p->t[leaf].desc), 0);
		if (mem == CX_NO) return cx__plan_oom(a->err);
		p->t[leaf].mem = mem;
	}
	for (uint32_t i = 0; i < p->n_order; i++) {
		const cx_pnode *n = &p->n[p->order[i]];
		for (uint32_t j = 0; j < n->n_in; j++)
			if (n->in[j] != CX_NO && (st = place_leaf(a, p->t[n->in[j]].root)) != CX_OK) return st;
	}
	for (uint32_t m = 0; m < p->n_mem; m++) { /* constants: one buffer, the same on every device */
		if (p->mem[m].kind != CX_MEM_CONST) continue;
		for (uint32_t d = 0; d < p->n_devs; d++)
			if (!cx_align_u64(at, p->devs[d].limits.alignment, &at)) return cx__plan_oom(a->err);
		p->mem[m].off = at;
		at += p->mem[m].bytes;
	}
	for (uint32_t d = 0; d < p->n_devs; d++) p->devs[d].const_bytes = at;
	return CX_OK;
}

/* ---- results ---- */

/* Operand whose bytes output 0 of n may take, or -1: it dies here, and nothing else that n reads
 * lies in them. */
static int dying_operand(const allocator *a, const cx_pnode *n)
{
	const cx_plan *p = a->p;
	uint64_t bytes = cx__desc_bytes(&p->t[n->out[0]].desc);
	if (!n->kernel || bytes == 0) return -1;
	for (uint32_t j = 0; j < n->n_in && j < 32; j++) {
		uint32_t t = n->in[j], root;
		bool ok = true;
		if (t == CX_NO || !(n->kernel->inplace >> j & 1)) continue;
		root = p->t[t].root;
		if (p->t[root].def == CX_NO || p->t[root].state != CX_NO || a->last_use[root] != n->pos)
			continue;
		if (p->mem[p->t[root].mem].kind != CX_MEM_SLAB || !cx__plan_is_whole(p, t)) continue;
		/* Equal bytes are not enough: i32 [1,1] is as long as bool [1,4], but read again for each
		 * element. */
		if (!cx__desc_same_dims(&p->t[t].desc, &p->t[n->out[0]].desc)) continue;
		if (cx__desc_bytes(&p->t[t].desc) != bytes || p->mem[p->t[root].mem].bytes != bytes)
			continue;
		for (uint32_t k = 0; ok && k < n->n_in; k++) {
			uint32_t u = n->in[k];
			if (k == j || u == CX_NO || p->t[p->t[u].root].mem != p->t[root].mem) continue;
			ok = k < 32 && n->kernel->inplace >> k & 1 &&
				 cx__desc_equal(&p->t[u].desc, &p->t[t].desc) && cx__plan_is_whole(p, u);
		}
		if (ok) return (int)j;
	}
	return -1;
}

static cx_status place_out(allocator *a, cx_pnode *n, uint32_t o)
{
	cx_plan *p = a->p;
	uint32_t t = n->out[o];
	cx_ptensor *y = &p->t[t];
	int j = cx__pnode_alias(n, o);
	if (y->state != CX_NO) {
		y->mem = p->t[p->states[y->state].leaf].mem;
		return CX_OK;
	}
	if (j < 0 && o == 0) {
		j = dying_operand(a, n);
		if (j >= 0) n->inplace = (int8_t)j;
	}
	if (j >= 0) {
		y->mem = p->t[p->t[n->in[j]].root].mem;
		CX_ASSERT(p->mem[y->mem].kind == CX_MEM_SLAB);
		if (y->is_output) { /* the whole chain lives in the output's buffer */
			p->mem[y->mem].kind = CX_MEM_OUTPUT;
			p->mem[y->mem].what = t;
		}
	} else {
		y->mem = storage_add(p, y->is_output ? CX_MEM_OUTPUT : CX_MEM_SLAB, n->dev, t,
			cx__desc_bytes(&y->desc), n->pos);
		if (y->mem == CX_NO) return cx__plan_oom(a->err);
	}
	if (a->last_use[t] > p->mem[y->mem].last) p->mem[y->mem].last = a->last_use[t];
	return CX_OK;
}

static cx_status place_results(allocator *a)
{
	cx_plan *p = a->p;
	cx_status st;
	for (uint32_t i = 0; i < p->n_order; i++) {
		cx_pnode *n = &p->n[p->order[i]];
		for (uint32_t o = 0; o < n->n_out; o++)
			if ((st = place_out(a, n, o)) != CX_OK) return st;
		if (!n->kernel || !n->kernel->scratch) continue;
		cx_kernel_key key = cx__plan_key(p, n);
		n->scratch = n->kernel->scratch(p->devs[n->dev].dev, &key);
		if (n->scratch == 0) continue;
		n->scratch_mem = storage_add(p, CX_MEM_SLAB, n->dev, CX_NO, n->scratch, i);
		if (n->scratch_mem == CX_NO) return cx__plan_oom(a->err);
	}
	return CX_OK;
}

/* ---- packing ---- */

static cx_status pack_device(cx_plan *p, uint32_t dev, cx_err *err)
{
	cx_pack_opts opts = {.max_nodes = p->opts.pack_budget ? p->opts.pack_budget : DEFAULT_BUDGET};
	uint32_t n = 0, *which = cx_arena_array(&p->tmp, p->n_mem, sizeof *which);
	cx_pack_item *items = cx_arena_array(&p->tmp, p->n_mem, sizeof *items);
	uint64_t align = p->devs[dev].limits.alignment, max = p->devs[dev].limits.max_buffer;
	cx_pack_result r = {0};
	cx_status st;
	if (!items || !which) return cx__plan_oom(err);
	for (uint32_t m = 0; m < p->n_mem; m++) {
		uint64_t size;
		if (p->mem[m].kind != CX_MEM_SLAB || p->mem[m].dev != dev || p->mem[m].bytes == 0) continue;
		if (!cx_align_u64(p->mem[m].bytes, align, &size))
			return CX_FAIL(
				err, CX_ERR_MEMORY, "a value of %llu bytes", (unsigned long long)p->mem[m].bytes);
		items[n] = (cx_pack_item){.lower = p->mem[m].first,
			.upper = (int64_t)p->mem[m].last + 1,
			.size = size,
			.align = align,
			.id = m};
		which[n++] = m;
	}
	if (n == 0) return CX_OK;
	if ((st = cx_pack(&p->alloc, items, n, &opts, &r, err)) != CX_OK) return st;
	for (uint32_t i = 0; i < n; i++) p->mem[which[i]].off = items[i].offset;
	p->devs[dev].slab_bytes = r.peak;
	p->devs[dev].slab_bound = r.bound;
	if (max && r.peak > max)
		return CX_FAIL(err, CX_ERR_MEMORY,
			"intermediates need %llu bytes, the largest buffer of %s is %llu",
			(unsigned long long)r.peak, p->devs[dev].dev->name, (unsigned long long)max);
	return CX_OK;
}

cx_status cx__pass_memory(cx_plan *p, cx_err *err)
{
	allocator a = {.p = p, .err = err};
	cx_status st;
	if ((st = find_last_uses(&a)) != CX_OK) return st;
	if ((st = place_leaves(&a)) != CX_OK) return st;
	if ((st = place_results(&a)) != CX_OK) return st;
	for (uint32_t d = 0; d < p->n_devs; d++) {
		if ((st = pack_device(p, d, err)) != CX_OK) return st;
		p->stats.slab_bytes += p->devs[d].slab_bytes;
		p->stats.slab_bound += p->devs[d].slab_bound;
	}
	for (uint32_t m = 0; m < p->n_mem; m++) {
		if (p->mem[m].kind == CX_MEM_WEIGHT) p->stats.weight_bytes += p->mem[m].bytes;
		if (p->mem[m].kind == CX_MEM_STATE) p->stats.state_bytes += p->mem[m].bytes;
		if (p->mem[m].kind == CX_MEM_INPUT || p->mem[m].kind == CX_MEM_OUTPUT)
			p->stats.io_bytes += p->mem[m].bytes;
	}
	p->placed_mem = true;
	return CX_OK;
}
