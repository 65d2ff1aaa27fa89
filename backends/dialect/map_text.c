/* map_text.c - map programs as OpenCL C: each instruction one line, registers typed, dtypes written
 * out. The functions that it calls are those of kernels/elem.cl.h, so the bits are those of the
 * interpreter in kernels/map.cl.h. */
#include "backends/dialect/launch.h"

#include "graph/quant.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static bool is_float(unsigned dtype)
{
	return dtype <= CX_BF16;
}

static bool gives_bool(unsigned op)
{
	return op == CX_OP_not || (op >= CX_OP_eq && op <= CX_OP_xor);
}

cx_prog cx__dk_prog(cx_op op, const void *attr, const cx_prog *prog, uint32_t n_in, cx_dtype out)
{
	cx_prog p = {.n_in = (uint8_t)n_in, .n_instr = 1, .n_out = 1};
	if (prog) return *prog;
	p.out[0] = (uint8_t)n_in;
	p.out_dtype[0] = (uint8_t)out;
	p.instr[0] =
		(cx_instr){.op = (uint16_t)op, .a = 0, .b = n_in > 1 ? 1 : 0, .c = n_in > 2 ? 2 : 0};
	if (op == CX_OP_clamp) {
		p.instr[0].p = ((const cx_attr_clamp *)attr)->lo;
		p.instr[0].q = ((const cx_attr_clamp *)attr)->hi;
	} else if (op == CX_OP_cast) {
		p.instr[0].p = (float)((const cx_attr_cast *)attr)->dtype;
	}
	return p;
}

void cx__dk_reg_dtypes(const cx_prog *p, const cx_desc *in, uint8_t *dtype)
{
	for (uint32_t j = 0; j < p->n_in; j++) dtype[j] = (uint8_t)in[j].dtype;
	for (uint32_t i = 0; i < p->n_instr; i++) {
		const cx_instr *c = &p->instr[i];
		uint8_t r = dtype[c->a];
		if (c->op == CX_OP_cast) r = (uint8_t)c->p;
		else if (c->op == CX_OP_where) r = dtype[c->b];
		else if (gives_bool(c->op)) r = CX_BOOL;
		dtype[p->n_in + i] = r;
	}
}

typedef struct writer {
	char *at;
	size_t left, need;
} writer;

static void put(writer *w, const char *fmt, ...) CX_PRINTF(2, 3);
static void put(writer *w, const char *fmt, ...)
{
	va_list ap;
	int n;
	va_start(ap, fmt);
	n = vsnprintf(w->at, w->left, fmt, ap);
	va_end(ap);
	if (n < 0) return;
	w->need += (size_t)n;
	if ((size_t)n >= w->left) n = w->left ? (int)w->left - 1 : 0;
	w->at += n;
	w->left -= (size_t)n;
}

static void put_cast(writer *w, unsigned a, unsigned from, unsigned to)
{
	if (is_float(from) && is_float(to)) put(w, "cx_round_to(%uu, r%u)", to, a);
	else if (is_float(from) && to == CX_BOOL) put(w, "r%u != 0.0f", a);
	else if (is_float(from)) put(w, "cx_saturate(%uu, r%u)", to, a);
	else if (is_float(to)) put(w, "cx_round_to(%uu, (float)r%u)", to, a);
	else put(w, "cx_wrap(%uu, r%u)", to, a);
}

static void put_bound(writer *w, unsigned dtype, float v)
{
	uint32_t bits = cx__f32_as_u32(v);
	if (is_float(dtype)) put(w, ", cx_bits_f32(0x%xu)", (unsigned)bits);
	else put(w, ", cx_map_bound(%uu, cx_bits_f32(0x%xu))", dtype, (unsigned)bits);
}

static void put_instr(writer *w, const cx_prog *p, uint32_t i, const uint8_t *dtype)
{
	const cx_instr *c = &p->instr[i];
	unsigned r = p->n_in + i, from = dtype[c->a], to = dtype[r];
	const char *name = cx__ops[c->op].name;
	bool two = cx__ops[c->op].n_min == 2;
	put(w, "%s r%u = ", is_float(to) ? "float" : "cx_i64", r);
	if (c->op == CX_OP_cast) {
		put_cast(w, c->a, from, to);
	} else if (c->op == CX_OP_where) {
		put(w, "r%u != 0 ? r%u : r%u", c->a, c->b, c->c);
	} else {
		if (!is_float(from)) put(w, "cx_wrap(%uu, ", to);
		put(w, "cx_%c_%s(r%u", is_float(from) ? 'f' : 'i', name, c->a);
		if (two) put(w, ", r%u", c->b);
		if (c->op == CX_OP_clamp) {
			put_bound(w, from, c->p);
			put_bound(w, from, c->q);
		}
		put(w, is_float(from) ? ")" : "))");
		if (is_float(from) && !is_float(to)) put(w, " != 0.0f");
	}
	put(w, "; ");
}

size_t cx__dk_map_text(const cx_prog *p, const cx_desc *in, uint32_t flat, uint32_t one,
	uint32_t flat_out, char *text, size_t size)
{
	uint8_t dtype[CX_PROG_MAX_IN + CX_PROG_MAX];
	writer w = {text, size, 0};
	cx__dk_reg_dtypes(p, in, dtype);
	put(&w, "#define CX_MAP_BODY ");
	for (unsigned j = 0; j < p->n_in; j++) {
		put(&w, "%s r%u = cx_load_%c(x%u, %uu, ", is_float(dtype[j]) ? "float" : "cx_i64", j,
			is_float(dtype[j]) ? 'f' : 'i', j, dtype[j]);
		if (one >> j & 1) put(&w, "p->t[%u].off); ", 4 + j);
		else if (flat >> j & 1) put(&w, "p->t[%u].off + i); ", 4 + j);
		else put(&w, "cx_at(&p->t[%u], i)); ", 4 + j);
	}
	for (uint32_t i = 0; i < p->n_instr; i++) put_instr(&w, p, i, dtype);
	for (unsigned o = 0; o < p->n_out; o++)
		put(&w, "%c[%u] = r%u; ", is_float(dtype[p->out[o]]) ? 'f' : 'v', o, p->out[o]);
	put(&w, "\n#define CX_MAP_GIVE ");
	for (unsigned o = 0; o < p->n_out; o++) {
		char kind = is_float(dtype[p->out[o]]) ? 'f' : 'i';
		put(&w, "cx_store_%c(y%u, %uu, ", kind, o, p->out_dtype[o]);
		if (flat_out >> o & 1) put(&w, "P.t[%u].off + i", o);
		else put(&w, "cx_at(&P.t[%u], i)", o);
		put(&w, ", %c[%u]); ", kind == 'f' ? 'f' : 'v', o);
	}
	put(&w, "\n");
	return w.need;
}
