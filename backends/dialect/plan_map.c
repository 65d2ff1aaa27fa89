/* plan_map.c - launches of elementwise ops and map programs. Few elements are interpreted, many get
 * a program of their own. */
#include "backends/dialect/launch.h"

#include "graph/quant.h"

#include <string.h>

/* Dims over which the program runs: the broadcast shape of the operands. */
static cx_desc space_of(const cx_step *s)
{
	cx_desc y = {0};
	for (uint32_t j = 0; j < s->n_in; j++)
		if (s->in[j].desc.rank > y.rank) y.rank = s->in[j].desc.rank;
	for (int32_t k = 0; k < y.rank; k++) y.dim[k] = 1;
	for (uint32_t j = 0; j < s->n_in; j++) {
		const cx_desc *d = &s->in[j].desc;
		for (int32_t k = 0; k < d->rank; k++)
			if (d->dim[k] != 1) y.dim[y.rank - d->rank + k] = d->dim[k];
	}
	return y;
}

static void put_code(cx_dk_builder *b, cx_dk_draft *d, const cx_prog *p, const uint8_t *dtype)
{
	uint32_t code[CX_PROG_MAX * 8];
	for (uint32_t i = 0; i < p->n_instr; i++) {
		const cx_instr *c = &p->instr[i];
		const uint32_t words[8] = {c->op, c->a, c->b, c->c, dtype[c->a], dtype[p->n_in + i],
			cx__f32_as_u32(c->p), cx__f32_as_u32(c->q)};
		memcpy(code + 8 * i, words, sizeof words);
	}
	d->p.i[12] = (cx_i32)cx__dk_const(b, d, 12, code, p->n_instr * 32u);
}

/* Bit j: tensor j of the space is read straight on; *one: it has one element. */
static uint32_t flatness(const cx_desc *d, uint32_t n, uint32_t *one)
{
	uint32_t flat = 0;
	*one = 0;
	for (uint32_t j = 0; j < n; j++) {
		bool same = true;
		for (int32_t k = 0; k < d[j].rank; k++)
			same = same && (d[j].stride[k] == 0 || d[j].dim[k] == 1);
		if (same) *one |= 1u << j;
		if (cx__desc_is_dense(&d[j])) flat |= 1u << j;
	}
	return flat;
}

static void put_text(
	cx_dk_builder *b, cx_dk_draft *d, const cx_prog *p, const cx_desc *in, const cx_desc *out)
{
	uint32_t one_in, one_out, flat_in = flatness(in, p->n_in, &one_in);
	uint32_t flat_out = out ? flatness(out, p->n_out, &one_out) : 0;
	size_t size = cx__dk_map_text(p, in, flat_in, one_in, flat_out, NULL, 0) + 1;
	char *text = cx_arena_alloc(b->arena, size);
	if (!text) {
		b->st = CX_FAIL(b->err, CX_ERR_MEMORY, "%s: no memory for a program", b->dev->base.name);
		return;
	}
	cx__dk_map_text(p, in, flat_in, one_in, flat_out, text, size);
	d->defines = text;
}

void cx__dk_plan_map(cx_dk_builder *b, const cx_step *s)
{
	cx_prog p = cx__dk_prog(s->op, s->attr, s->prog, s->n_in, s->out[0].desc.dtype);
	int64_t reduce = s->op == CX_OP_map ? ((const cx_attr_map *)s->attr)->reduce : 0;
	cx_desc space = space_of(s), all[CX_PROG_MAX_IN + CX_MAX_OUT];
	uint8_t dtype[CX_PROG_MAX_IN + CX_PROG_MAX];
	uint32_t n_all = s->n_in, n = cx__dk_elems(&space);
	cx_dk_draft *d = cx__dk_draft(b, "map", reduce ? "cx_map_row" : "cx_map_item", 13);
	for (uint32_t j = 0; j < s->n_in; j++) all[j] = cx__dk_broadcast(&s->in[j].desc, &space);
	if (!reduce)
		for (uint32_t o = 0; o < s->n_out; o++)
			all[n_all++] = cx__dk_broadcast(&s->out[o].desc, &space);
	cx__dk_merge(all, n_all);
	for (uint32_t o = 0; o < s->n_out; o++) cx__dk_tensor(b, d, (int)o, (int)o, &s->out[o]);
	for (uint32_t o = 0; o < s->n_out && !reduce; o++)
		cx__dk_desc(&d->p.t[o], &all[s->n_in + o], d->p.t[o].off);
	for (uint32_t j = 0; j < s->n_in; j++) {
		cx__dk_tensor(b, d, 4 + (int)j, 4 + (int)j, &s->in[j]);
		cx__dk_desc(&d->p.t[4 + j], &all[j], d->p.t[4 + j].off);
	}
	cx__dk_reg_dtypes(&p, all, dtype);
	d->p.i[0] = p.n_instr;
	d->p.i[1] = (cx_i32)reduce;
	d->p.i[2] = (cx_i32)s->n_in;
	for (uint32_t o = 0; o < s->n_out; o++) {
		d->p.i[4 + o] = p.out[o];
		d->p.i[8 + o] = dtype[p.out[o]];
	}
	if (n >= b->dev->text_from) put_text(b, d, &p, all, reduce ? NULL : all + s->n_in);
	else put_code(b, d, &p, dtype);
	if (reduce) {
		d->p.i[3] = (cx_i32)space.dim[space.rank - 1];
		cx__dk_groups(d, cx__dk_elems(&s->out[0].desc), 1);
	} else {
		cx__dk_items(d, n);
	}
}
