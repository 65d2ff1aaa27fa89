/* prog.c - map programs: check, print, parse. See prog.h. */
#include "graph/prog.h"
#include "graph/attr.h"

#include <stdio.h>
#include <string.h>

int cx__prog_arity(unsigned op)
{
	static const uint8_t arity[CX_OP_COUNT] = {
#define CX_MAP1(name, ...) [CX_OP_##name] = 1,
#define CX_MAP1P(name, ...) [CX_OP_##name] = 1,
#define CX_MAP2(name, ...) [CX_OP_##name] = 2,
#include "graph/scalar.def"
#undef CX_MAP1
#undef CX_MAP1P
#undef CX_MAP2
		[CX_OP_cast] = 1,
		[CX_OP_where] = 3,
	};
	return op < CX_OP_COUNT ? arity[op] : 0;
}

static bool is_plain(unsigned dtype)
{
	return dtype < CX_DTYPE_COUNT && cx_dtype_get((cx_dtype)dtype)->cls != CX_CLASS_BLOCK;
}

cx_status cx__prog_check(const cx_prog *p, cx_err *err)
{
	if (p->n_in < 1 || p->n_in > CX_PROG_MAX_IN || p->n_instr > CX_PROG_MAX || p->n_out < 1 ||
		p->n_out > CX_MAX_OUT)
		return CX_FAIL(err, CX_ERR_ARGUMENT, "program has %d operands, %d instructions, %d outputs",
			p->n_in, p->n_instr, p->n_out);
	for (int i = 0; i < p->n_instr; i++) {
		const cx_instr *t = &p->instr[i];
		int n = cx__prog_arity(t->op), limit = p->n_in + i;
		if (n == 0)
			return CX_FAIL(
				err, CX_ERR_ARGUMENT, "instruction %d: op %d is not elementwise", i, t->op);
		if (t->a >= limit || (n > 1 && t->b >= limit) || (n > 2 && t->c >= limit))
			return CX_FAIL(
				err, CX_ERR_ARGUMENT, "instruction %d reads a register from %d on", i, limit);
		if (t->op == CX_OP_cast &&
			!(t->p >= 0 && t->p < (float)CX_DTYPE_COUNT && is_plain((unsigned)t->p)))
			return CX_FAIL(err, CX_ERR_ARGUMENT, "instruction %d casts to no plain dtype", i);
	}
	for (int o = 0; o < p->n_out; o++)
		if (p->out[o] >= p->n_in + p->n_instr || !is_plain(p->out_dtype[o]))
			return CX_FAIL(err, CX_ERR_ARGUMENT, "program output %d: register %d, dtype %d", o,
				p->out[o], p->out_dtype[o]);
	return CX_OK;
}

size_t cx__prog_print(const cx_prog *p, char *buf, size_t size)
{
	size_t at = 0;
	for (int i = 0; i < p->n_instr; i++) {
		const cx_instr *t = &p->instr[i];
		int n = cx__prog_arity(t->op);
		at += (size_t)snprintf(
			buf + at, size - at, "r%d=%s r%d", p->n_in + i, cx__ops[t->op].name, t->a);
		if (n > 1) at += (size_t)snprintf(buf + at, size - at, " r%d", t->b);
		if (n > 2) at += (size_t)snprintf(buf + at, size - at, " r%d", t->c);
		if (t->op == CX_OP_cast)
			at += (size_t)snprintf(buf + at, size - at, " %s", cx_dtype_get((cx_dtype)t->p)->name);
		if (t->op == CX_OP_clamp) {
			buf[at++] = ' ';
			at += cx__float_print(t->p, buf + at, size - at);
			buf[at++] = ' ';
			at += cx__float_print(t->q, buf + at, size - at);
		}
		buf[at++] = ';';
	}
	at += (size_t)snprintf(buf + at, size - at, "out");
	for (int o = 0; o < p->n_out; o++)
		at += (size_t)snprintf(buf + at, size - at, " r%d:%s", p->out[o],
			cx_dtype_get((cx_dtype)p->out_dtype[o])->name);
	return at;
}

/* ---- parse: words separated by single spaces, '=' or ':' ------------------------------------- */

typedef struct cursor {
	const char *p, *end;
} cursor;

static bool eat(cursor *c, const char *s)
{
	size_t n = strlen(s);
	if ((size_t)(c->end - c->p) < n || memcmp(c->p, s, n) != 0) return false;
	c->p += n;
	return true;
}

static size_t word(const cursor *c)
{
	size_t n = 0;
	while (c->p + n < c->end && !strchr(" =:;", c->p[n])) n++;
	return n;
}

static bool reg(cursor *c, uint8_t *out)
{
	int64_t x;
	size_t n;
	if (!eat(c, "r")) return false;
	n = word(c);
	if (!cx__int_parse(c->p, n, &x) || x < 0 || x > 255) return false;
	c->p += n;
	*out = (uint8_t)x;
	return true;
}

static bool number(cursor *c, float *out)
{
	size_t n = word(c);
	if (!cx__float_parse(c->p, n, out)) return false;
	c->p += n;
	return true;
}

static bool dtype(cursor *c, cx_dtype *out)
{
	char name[16];
	size_t n = word(c);
	if (n >= sizeof name) return false;
	memcpy(name, c->p, n);
	name[n] = 0;
	c->p += n;
	return cx_dtype_parse(name, out);
}

static bool instr(cursor *c, unsigned dst, cx_instr *t)
{
	uint8_t r;
	size_t n;
	cx_op op;
	cx_dtype to;
	if (!reg(c, &r) || r != dst || !eat(c, "=")) return false;
	n = word(c);
	if (n == 0 || !cx__op_by_name(c->p, n, &op)) return false;
	c->p += n;
	t->op = (uint16_t)op;
	n = (size_t)cx__prog_arity(op);
	if (n == 0 || !eat(c, " ") || !reg(c, &t->a)) return false;
	if (n > 1 && (!eat(c, " ") || !reg(c, &t->b))) return false;
	if (n > 2 && (!eat(c, " ") || !reg(c, &t->c))) return false;
	if (op == CX_OP_clamp &&
		(!eat(c, " ") || !number(c, &t->p) || !eat(c, " ") || !number(c, &t->q)))
		return false;
	if (op == CX_OP_cast) {
		if (!eat(c, " ") || !dtype(c, &to)) return false;
		t->p = (float)to;
	}
	return eat(c, ";");
}

bool cx__prog_parse(const char *text, size_t n, uint32_t n_in, cx_prog *out)
{
	cursor c = {text, text + n};
	cx_dtype to;
	memset(out, 0, sizeof *out);
	if (n_in > CX_PROG_MAX_IN) return false;
	out->n_in = (uint8_t)n_in;
	while (!eat(&c, "out")) {
		if (out->n_instr == CX_PROG_MAX ||
			!instr(&c, n_in + out->n_instr, &out->instr[out->n_instr]))
			return false;
		out->n_instr++;
	}
	while (c.p < c.end) {
		if (out->n_out == CX_MAX_OUT || !eat(&c, " ") || !reg(&c, &out->out[out->n_out]) ||
			!eat(&c, ":") || !dtype(&c, &to))
			return false;
		out->out_dtype[out->n_out++] = (uint8_t)to;
	}
	return true;
}
