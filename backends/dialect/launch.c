/* launch.c - what the plans of kernels are made of: drafts of launches, parameters from operands,
 * grids. See launch.h. */
#include "backends/dialect/launch.h"

#include <stdio.h>
#include <string.h>

static void out_of_memory(cx_dk_builder *b)
{
	if (b->st == CX_OK)
		b->st = CX_FAIL(b->err, CX_ERR_MEMORY, "%s: no memory for a program", b->dev->base.name);
}

static cx_dk_draft *new_draft(cx_dk_builder *b)
{
	cx_dk_draft *d = b->st == CX_OK ? cx_arena_alloc(b->arena, sizeof *d) : NULL;
	if (!d) {
		out_of_memory(b);
		return &b->spare;
	}
	*b->last = d;
	b->last = &d->next;
	b->n_drafts++;
	return d;
}

cx_dk_draft *cx__dk_draft(cx_dk_builder *b, const char *family, const char *name, uint32_t n_args)
{
	cx_dk_draft *d = new_draft(b);
	d->kind = CX_DK_KERNEL;
	d->family = family;
	d->name = name;
	d->defines = "";
	d->n_args = n_args;
	d->p.op = (uint32_t)b->step->op;
	d->p.n_out = b->step->n_out;
	d->p.n_in = b->step->n_in;
	for (int t = 0; t < CX_K_TENSORS; t++) d->p.t[t].dtype = CX_K_NONE;
	return d;
}

void cx__dk_desc(struct cx_ktensor *t, const cx_desc *desc, uint64_t off)
{
	int32_t pad = CX_K_RANK - desc->rank, block = cx_dtype_get(desc->dtype)->block_elems;
	memset(t, 0, sizeof *t);
	t->dtype = (uint32_t)desc->dtype;
	t->off = (uint32_t)off;
	for (int32_t i = 0; i < CX_K_RANK; i++) {
		t->dim[i] = i < pad ? 1 : (uint32_t)desc->dim[i - pad];
		t->stride[i] =
			i < pad || desc->dim[i - pad] == 1 ? 0 : (uint32_t)(desc->stride[i - pad] / block);
	}
}

void cx__dk_absent(cx_dk_draft *d, int t)
{
	memset(&d->p.t[t], 0, sizeof d->p.t[t]);
	d->p.t[t].dtype = CX_K_NONE;
}

void cx__dk_tensor(cx_dk_builder *b, cx_dk_draft *d, int t, int arg, const cx_operand *o)
{
	uint64_t size;
	if (!o || o->buf == CX_BUF_NONE) {
		cx__dk_absent(d, t);
		return;
	}
	size = (uint64_t)cx_dtype_get(o->desc.dtype)->block_bytes;
	if (arg >= 0) d->buf[arg] = b->binds->bufs[o->buf];
	if (cx_dtype_get(o->desc.dtype)->cls == CX_CLASS_BLOCK) { /* may start at any byte */
		cx__dk_desc(&d->p.t[t], &o->desc, 0);
		d->p.i[CX_K_INTS - 1] = (cx_i32)o->off;
		return;
	}
	if (o->off % size != 0 && b->st == CX_OK)
		b->st =
			CX_FAIL(b->err, CX_ERR_ARGUMENT, "%s: an operand of %s at byte %llu, not at an element",
				b->dev->base.name, cx__ops[b->step->op].name, (unsigned long long)o->off);
	cx__dk_desc(&d->p.t[t], &o->desc, o->off / size);
}

cx_operand cx__dk_scratch(const cx_dk_builder *b, uint64_t off, const cx_desc *desc)
{
	cx_operand o = {*desc, CX_BUF_SLAB, b->step->scratch_off + off};
	cx__desc_dense(&o.desc);
	return o;
}

uint32_t cx__dk_const(cx_dk_builder *b, cx_dk_draft *d, int arg, const void *data, size_t bytes)
{
	const cx_alloc *alloc = &cx_runtime_config(b->dev->base.rt)->alloc;
	size_t at = b->n_consts, need = (at + bytes + 3) & ~(size_t)3;
	d->is_const |= 1u << arg;
	if (b->st != CX_OK) return 0;
	if (need > b->cap_consts) {
		size_t cap = need * 2 + 256;
		uint8_t *p = cx_realloc(alloc, b->consts, b->cap_consts, cap);
		if (!p) {
			out_of_memory(b);
			return 0;
		}
		memset(p + b->cap_consts, 0, cap - b->cap_consts);
		b->consts = p;
		b->cap_consts = cap;
	}
	memcpy(b->consts + at, data, bytes);
	b->n_consts = need;
	return (uint32_t)(at / 4);
}

/* ---- grids ---- */

void cx__dk_items(cx_dk_draft *d, uint64_t n)
{
	d->p.n = (uint32_t)n;
	d->n_dims = 1;
	d->group[0] = CX_DK_ITEMS;
	d->grid[0] = (size_t)((n + CX_DK_ITEMS - 1) / CX_DK_ITEMS * CX_DK_ITEMS);
}

void cx__dk_groups(cx_dk_draft *d, uint64_t n, uint64_t m)
{
	d->p.n = (uint32_t)n;
	d->n_dims = m == 1 ? 1 : 2;
	d->group[0] = CX_DK_ITEMS;
	d->group[1] = 1;
	d->grid[0] = (size_t)n * CX_DK_ITEMS;
	d->grid[1] = (size_t)m;
}

void cx__dk_specialise(cx_dk_builder *b, cx_dk_draft *d, uint32_t n, double work)
{
	char text[256];
	size_t at = 0;
	char *defines;
	if (work < b->dev->own_from) return;
	d->n_own = n;
	for (uint32_t i = 0; i < n; i++)
		at += (size_t)snprintf(text + at, sizeof text - at, "#define CX_DT_%u %uu\n", (unsigned)i,
			(unsigned)d->p.t[i].dtype);
	defines = cx_arena_strdup(b->arena, text);
	if (defines) d->defines = defines;
	else out_of_memory(b);
}

void cx__dk_copy_bytes(
	cx_dk_builder *b, const cx_operand *to, const cx_operand *from, uint64_t bytes)
{
	cx_dk_draft *d;
	if (!bytes) return;
	d = new_draft(b);
	d->kind = CX_DK_COPY;
	d->buf[0] = b->binds->bufs[to->buf];
	d->buf[1] = b->binds->bufs[from->buf];
	d->off[0] = (size_t)to->off;
	d->off[1] = (size_t)from->off;
	d->bytes = (size_t)bytes;
}

void cx__dk_zero(cx_dk_builder *b, const cx_operand *to)
{
	cx_dk_draft *d;
	uint64_t bytes = 0;
	cx_dtype_bytes(to->desc.dtype, to->desc.rank, to->desc.dim, &bytes);
	if (!bytes) return;
	d = new_draft(b);
	d->kind = CX_DK_FILL;
	d->buf[0] = b->binds->bufs[to->buf];
	d->off[0] = (size_t)to->off;
	d->bytes = (size_t)bytes;
}

/* ---- descriptions ---- */

cx_desc cx__dk_without(const cx_desc *d, uint32_t drop)
{
	cx_desc r = {.dtype = d->dtype};
	for (int32_t i = 0; i < d->rank; i++) {
		if (drop >> i & 1) continue;
		r.dim[r.rank] = d->dim[i];
		r.stride[r.rank++] = d->stride[i];
	}
	return r;
}

/* Whether axes i and i+1 of d can be one. */
static bool joins(const cx_desc *d, int32_t i)
{
	return d->dim[i] == 1 || d->dim[i + 1] == 1 || d->stride[i] == d->stride[i + 1] * d->dim[i + 1];
}

static void join(cx_desc *d, int32_t i)
{
	if (d->dim[i + 1] == 1) d->stride[i + 1] = d->stride[i];
	d->dim[i + 1] *= d->dim[i];
	for (int32_t k = i; k + 1 < d->rank; k++) {
		d->dim[k] = d->dim[k + 1];
		d->stride[k] = d->stride[k + 1];
	}
	d->rank--;
	d->dim[d->rank] = d->stride[d->rank] = 0;
}

void cx__dk_merge(cx_desc *d, uint32_t n)
{
	for (int32_t i = d[0].rank - 2; i >= 0; i--) {
		bool all = true;
		for (uint32_t j = 0; j < n; j++) all = all && joins(&d[j], i);
		for (uint32_t j = 0; all && j < n; j++) join(&d[j], i);
	}
}

cx_desc cx__dk_broadcast(const cx_desc *d, const cx_desc *space)
{
	cx_desc r = *space;
	int32_t pad = space->rank - d->rank;
	r.dtype = d->dtype;
	for (int32_t i = 0; i < space->rank; i++)
		r.stride[i] = i < pad || d->dim[i - pad] == 1 ? 0 : d->stride[i - pad];
	return r;
}
