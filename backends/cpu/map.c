/* map.c - makes an elementwise step ready: see map.h. */
#include "backends/cpu/map.h"

#include <string.h>

/* The broadcast shape of the operands. */
static cx_desc space_of(const cx_cpu_call *c)
{
	cx_desc s = {.dtype = CX_F32};
	for (uint32_t i = 0; i < c->n_in; i++)
		if (c->in[i].d.rank > s.rank) s.rank = c->in[i].d.rank;
	for (int32_t k = 0; k < s.rank; k++) s.dim[k] = 1;
	for (uint32_t i = 0; i < c->n_in; i++) {
		const cx_desc *d = &c->in[i].d;
		for (int32_t k = 0; k < d->rank; k++)
			if (d->dim[k] != 1) s.dim[s.rank - d->rank + k] = d->dim[k];
	}
	return s;
}

/* Strides of operand i along the axes of the space, then merged axes: fills plan's dims and the
 * operands' walks. */
static void collapse(cx_map_plan *p, const cx_cpu_call *c, const cx_desc *space)
{
	int64_t dim[CX_MAX_RANK], str[CX_PROG_MAX_IN][CX_MAX_RANK];
	int32_t n = 0;
	for (int32_t k = 0; k < space->rank; k++) {
		bool last = k == space->rank - 1, merge = n > 0 && !(last && p->reduce);
		int64_t s[CX_PROG_MAX_IN];
		if (space->dim[k] == 1 && !(last && (p->reduce || n == 0))) continue;
		for (uint32_t i = 0; i < c->n_in; i++) {
			const cx_desc *d = &c->in[i].d;
			int32_t j = k - (space->rank - d->rank);
			s[i] = j < 0 || d->dim[j] == 1 ? 0 : d->stride[j];
			if (n > 0 && str[i][n - 1] != s[i] * space->dim[k]) merge = false;
		}
		if (merge) {
			dim[n - 1] *= space->dim[k];
		} else {
			dim[n++] = space->dim[k];
		}
		for (uint32_t i = 0; i < c->n_in; i++) str[i][n - 1] = s[i];
	}
	p->n_inner = n ? dim[n - 1] : 1;
	p->n_outer = 1;
	p->rank = n ? n - 1 : 0;
	for (int32_t k = 0; k < p->rank; k++) {
		p->dim[k] = dim[k];
		p->n_outer *= dim[k];
	}
	for (uint32_t i = 0; i < c->n_in; i++) {
		int64_t dense = p->n_inner;
		bool linear = true, scalar = true;
		p->in[i].inner = n ? str[i][n - 1] : 0;
		if (p->n_inner > 1 && p->in[i].inner != 1) linear = false;
		for (int32_t k = p->rank - 1; k >= 0; k--) {
			p->in[i].stride[k] = str[i][k];
			if (p->dim[k] > 1 && str[i][k] != dense) linear = false;
			dense *= p->dim[k];
			scalar &= str[i][k] == 0;
		}
		scalar &= p->in[i].inner == 0;
		p->in[i].how = linear                ? CX_MAP_LINEAR
					   : scalar              ? CX_MAP_SCALAR
					   : p->in[i].inner == 1 ? CX_MAP_ROWS
					   : p->in[i].inner == 0 ? CX_MAP_SPLAT
											 : CX_MAP_STRIDED;
	}
}

/* A single op as a program of one instruction. */
static void single(cx_prog *g, const cx_cpu_call *c)
{
	cx_instr *in = &g->instr[0];
	memset(g, 0, sizeof *g);
	g->n_in = (uint8_t)c->n_in;
	g->n_instr = 1;
	g->n_out = 1;
	g->out[0] = (uint8_t)c->n_in;
	g->out_dtype[0] = (uint8_t)c->out[0].d.dtype;
	in->op = (uint16_t)c->op;
	in->b = c->n_in > 1 ? 1 : 0;
	in->c = c->n_in > 2 ? 2 : 0;
	if (c->op == CX_OP_clamp) {
		in->p = ((const cx_attr_clamp *)c->attr)->lo;
		in->q = ((const cx_attr_clamp *)c->attr)->hi;
	} else if (c->op == CX_OP_cast) {
		in->p = (float)((const cx_attr_cast *)c->attr)->dtype;
	} else if (c->op == CX_OP_copy) {
		in->op = CX_OP_cast;
		in->p = (float)c->in[0].d.dtype;
	}
}

static cx_dtype result_dtype(const cx_instr *in, const cx_dtype *reg)
{
	cx_op op = (cx_op)in->op;
	if (op == CX_OP_cast) return (cx_dtype)in->p;
	if (op == CX_OP_where) return reg[in->b];
	if (op == CX_OP_not || (op >= CX_OP_eq && op <= CX_OP_xor)) return CX_BOOL;
	return reg[in->a];
}

/* Slots by lifetime: an operand lives from the start of a tile to its last reader, a result from
 * its instruction. */
static void assign_slots(cx_map_plan *p, const cx_cpu_call *c)
{
	const cx_prog *g = &p->prog;
	uint32_t n_regs = (uint32_t)g->n_in + g->n_instr, n_last = 0;
	uint8_t last[CX_MAP_REGS] = {0};
	bool busy[CX_MAP_REGS + 2] = {false}, freed[CX_MAP_REGS] = {false};
	for (uint32_t i = 0; i < g->n_instr; i++) {
		last[g->instr[i].a] = (uint8_t)i;
		last[g->instr[i].b] = (uint8_t)i;
		last[g->instr[i].c] = (uint8_t)i;
	}
	for (uint32_t o = 0; o < g->n_out; o++) last[g->out[o]] = 255;
	for (uint32_t i = 0; i < g->n_in; i++) /* spread once for many tiles */
		if (p->in[i].how == CX_MAP_SCALAR || p->in[i].how == CX_MAP_SPLAT) last[i] = 255;
	for (uint32_t r = 0; r < n_regs; r++) {
		uint8_t s = 0;
		if (r >= g->n_in) /* what the instructions before this one read last is free again */
			for (uint32_t k = 0; k < r; k++) {
				if (freed[k] || last[k] == 255 || last[k] >= r - g->n_in) continue;
				busy[p->slot[k]] = false;
				freed[k] = true;
			}
		while (busy[s]) s++;
		busy[s] = true;
		p->slot[r] = s;
		if (s + 1 > p->n_slots) p->n_slots = (uint8_t)(s + 1);
		if (cx_map_is_int(p->dtype[r])) p->slot_bytes = CX_MAP_TILE * 8;
	}
	p->direct = 255;
	if (p->reduce || g->n_instr == 0) return;
	for (uint32_t o = 0; o < g->n_out; o++) {
		if (g->out[o] != n_regs - 1) continue;
		n_last++;
		if (c->out[o].d.dtype == CX_F32 && p->dtype[n_regs - 1] == CX_F32) p->direct = (uint8_t)o;
	}
	if (n_last > 1) p->direct = 255;
}

cx_status cx__cpu_map_prepare(const cx_cpu_call *c, cx_arena *a, const void **plan, cx_err *err)
{
	cx_map_plan *p = cx_arena_alloc(a, sizeof *p);
	cx_desc space = space_of(c);
	if (!p) return CX_FAIL(err, CX_ERR_MEMORY, "cpu: no memory for a program");
	if (c->op == CX_OP_map) {
		p->prog = *c->prog;
		p->reduce = ((const cx_attr_map *)c->attr)->reduce;
	} else {
		single(&p->prog, c);
	}
	collapse(p, c, &space);
	p->rows_per_tile = p->n_inner > 0 && p->n_inner < CX_MAP_TILE ? CX_MAP_TILE / p->n_inner : 1;
	p->tiles_per_row = (p->n_inner + CX_MAP_TILE - 1) / CX_MAP_TILE;
	for (uint32_t i = 0; i < c->n_in; i++) p->dtype[i] = c->in[i].d.dtype;
	for (uint32_t i = 0; i < p->prog.n_instr; i++)
		p->dtype[c->n_in + i] = result_dtype(&p->prog.instr[i], p->dtype);
	p->slot_bytes = CX_MAP_TILE * 4;
	assign_slots(p, c);
	*plan = p;
	return CX_OK;
}
