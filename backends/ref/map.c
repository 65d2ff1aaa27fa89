/* map.c - elementwise ops: graph/scalar.def in double and in integers, clamp, cast, where, and map
 * programs.
 *
 * A float result is rounded to f32 first (the register of scalar.def) and then to its own dtype, so
 * that a chain of ops gives the same bits node by node as in one map program, whose registers are
 * f32. Integers wrap. */
#include "backends/ref/ref.h"

#include <math.h>

#define CX_K(v) v
#define CX_EXP exp
#define CX_LOG log
#define CX_LOG1P log1p
#define CX_SQRT sqrt
#define CX_SIN sin
#define CX_COS cos
#define CX_TANH tanh
#define CX_ERF erf
#define CX_ERFCN(x) erfc((x) * -0.70710678118654752)
#define CX_FLOOR floor
#define CX_CEIL ceil
#define CX_ROUND rint
#define CX_FABS fabs
#define CX_POW pow
#define CX_IDIV(a, b) ((b) == 0 ? 0 : (a) / (b))
#define CX_NOINT 0

/* Attributes of clamp ride along; every other op ignores them. */
typedef struct operands {
	double a, b, p, q;
} operands;
typedef struct int_operands {
	cx__ref_int a, b, p, q;
} int_operands;
typedef double float_fn(operands o);
typedef cx__ref_int int_fn(int_operands o);

#define CX_MAP1(name, fexpr, iexpr)                                                                \
	static double float_##name(operands o)                                                         \
	{                                                                                              \
		const double x = o.a;                                                                      \
		return fexpr;                                                                              \
	}                                                                                              \
	static cx__ref_int int_##name(int_operands o)                                                  \
	{                                                                                              \
		const cx__ref_int x = o.a;                                                                 \
		(void)x;                                                                                   \
		return iexpr;                                                                              \
	}
#define CX_MAP1P(name, fexpr, iexpr)                                                               \
	static double float_##name(operands o)                                                         \
	{                                                                                              \
		const double x = o.a, p = o.p, q = o.q;                                                    \
		return fexpr;                                                                              \
	}                                                                                              \
	static cx__ref_int int_##name(int_operands o)                                                  \
	{                                                                                              \
		const cx__ref_int x = o.a, p = o.p, q = o.q;                                               \
		return iexpr;                                                                              \
	}
#define CX_MAP2(name, fexpr, iexpr)                                                                \
	static double float_##name(operands o)                                                         \
	{                                                                                              \
		const double a = o.a, b = o.b;                                                             \
		return fexpr;                                                                              \
	}                                                                                              \
	static cx__ref_int int_##name(int_operands o)                                                  \
	{                                                                                              \
		const cx__ref_int a = o.a, b = o.b;                                                        \
		(void)a;                                                                                   \
		(void)b;                                                                                   \
		return iexpr;                                                                              \
	}
#include "graph/scalar.def"
#undef CX_MAP1
#undef CX_MAP1P
#undef CX_MAP2

static const struct {
	float_fn *f;
	int_fn *i;
	uint8_t n;
} scalars[CX_OP_COUNT] = {
#define CX_MAP1(name, ...) [CX_OP_##name] = {float_##name, int_##name, 1},
#define CX_MAP1P(name, ...) [CX_OP_##name] = {float_##name, int_##name, 1},
#define CX_MAP2(name, ...) [CX_OP_##name] = {float_##name, int_##name, 2},
#include "graph/scalar.def"
#undef CX_MAP1
#undef CX_MAP1P
#undef CX_MAP2
};

double cx__ref_unary(cx_op op, double v)
{
	return op == CX_OP_input ? v : scalars[op].f((operands){.a = v});
}

/* ---- node by node ---- */

static void map_scalar(const cx__ref_call *c)
{
	const cx__ref_arg *y = &c->out[0], *a = &c->in[0], *b = &c->in[c->n_in - 1];
	const cx_attr_clamp *bounds = c->op == CX_OP_clamp ? c->attr : NULL;
	bool is_float = cx__ref_is_float(a->d.dtype);
	operands o = {0};
	int_operands io = {0};
	cx__ref_walk w;
	if (!cx__walk_init(&w, y->d.rank, y->d.dim)) return;
	cx__walk_add(&w, &y->d);
	cx__walk_add(&w, &a->d);
	cx__walk_add(&w, &b->d);
	if (bounds && is_float) {
		o.p = bounds->lo;
		o.q = bounds->hi;
	} else if (bounds) {
		io.p = a->d.dtype == CX_BOOL ? bounds->lo > 0 : cx__elem_saturate(a->d.dtype, bounds->lo);
		io.q = a->d.dtype == CX_BOOL ? bounds->hi > 0 : cx__elem_saturate(a->d.dtype, bounds->hi);
	}
	do {
		if (is_float) {
			o.a = cx__elem_get(a, w.off[1]);
			o.b = cx__elem_get(b, w.off[2]);
			cx__elem_put(y, w.off[0], (float)scalars[c->op].f(o));
		} else {
			io.a = cx__elem_int(a, w.off[1]);
			io.b = cx__elem_int(b, w.off[2]);
			cx__elem_put_int(y, w.off[0], scalars[c->op].i(io));
		}
	} while (cx__walk_next(&w));
}

#define CX_MAP1(name, ...)                                                                         \
	void cx__ref_##name(const cx__ref_call *c)                                                     \
	{                                                                                              \
		map_scalar(c);                                                                             \
	}
#define CX_MAP1P(name, ...)                                                                        \
	void cx__ref_##name(const cx__ref_call *c)                                                     \
	{                                                                                              \
		map_scalar(c);                                                                             \
	}
#define CX_MAP2(name, ...)                                                                         \
	void cx__ref_##name(const cx__ref_call *c)                                                     \
	{                                                                                              \
		map_scalar(c);                                                                             \
	}
#include "graph/scalar.def"
#undef CX_MAP1
#undef CX_MAP1P
#undef CX_MAP2

void cx__ref_cast(const cx__ref_call *c)
{
	cx__ref_walk w;
	if (!cx__walk_init(&w, c->out[0].d.rank, c->out[0].d.dim)) return;
	cx__walk_add(&w, &c->out[0].d);
	cx__walk_add(&w, &c->in[0].d);
	do cx__elem_move(&c->out[0], w.off[0], &c->in[0], w.off[1]);
	while (cx__walk_next(&w));
}

void cx__ref_where(const cx__ref_call *c)
{
	cx__ref_walk w;
	if (!cx__walk_init(&w, c->out[0].d.rank, c->out[0].d.dim)) return;
	cx__walk_add(&w, &c->out[0].d);
	for (uint32_t i = 0; i < 3; i++) cx__walk_add(&w, &c->in[i].d);
	do {
		int pick = cx__elem_get(&c->in[0], w.off[1]) != 0 ? 1 : 2;
		cx__elem_move(&c->out[0], w.off[0], &c->in[pick], w.off[1 + pick]);
	} while (cx__walk_next(&w));
}

/* ---- map programs ---- */

/* A register: float ones hold an f32 value (or what `cast` rounded it to), the others a wrapped
 * integer. */
typedef struct reg {
	cx_dtype dtype;
	double f;
	cx__ref_int i;
} reg;

static reg reg_load(const cx__ref_arg *a, int64_t off)
{
	reg r = {.dtype = a->d.dtype};
	if (cx__ref_is_float(r.dtype)) r.f = cx__elem_get(a, off);
	else r.i = cx__elem_int(a, off);
	return r;
}

static void reg_store(const cx__ref_arg *a, int64_t off, const reg *r)
{
	if (cx__ref_is_float(r->dtype)) cx__elem_put(a, off, r->f);
	else cx__elem_put_int(a, off, r->i);
}

/* Through memory of the type, so that it is exactly what a node's output would read back as. */
static reg reg_as(cx_dtype dtype, const reg *r)
{
	unsigned char bytes[8];
	cx__ref_arg cell = {.d = {.dtype = dtype}, .p = bytes};
	reg_store(&cell, 0, r);
	return reg_load(&cell, 0);
}

static bool gives_bool(cx_op op)
{
	return op == CX_OP_not || (op >= CX_OP_eq && op <= CX_OP_xor);
}

static reg run_instr(const cx_instr *in, const reg *regs)
{
	const reg *a = &regs[in->a], *b = &regs[in->b], *third = &regs[in->c];
	cx_op op = (cx_op)in->op;
	reg r = {.dtype = a->dtype};
	if (op == CX_OP_cast) return reg_as((cx_dtype)in->p, a);
	if (op == CX_OP_where)
		return (cx__ref_is_float(a->dtype) ? a->f != 0 : a->i != 0) ? *b : *third;
	CX_ASSERT(scalars[op].n != 0);
	if (cx__ref_is_float(a->dtype)) {
		r.f = (float)scalars[op].f((operands){a->f, b->f, in->p, in->q});
		if (gives_bool(op)) return reg_as(CX_BOOL, &r);
		return r;
	}
	int_operands o = {a->i, b->i, 0, 0};
	if (op == CX_OP_clamp && a->dtype != CX_BOOL) {
		o.p = cx__elem_saturate(a->dtype, in->p);
		o.q = cx__elem_saturate(a->dtype, in->q);
	} else if (op == CX_OP_clamp) {
		o.p = in->p > 0;
		o.q = in->q > 0;
	}
	r.i = scalars[op].i(o);
	return reg_as(gives_bool(op) ? CX_BOOL : r.dtype, &r);
}

/* Folds v into the accumulator of a row reduction; kinds as in cx_attr_map. */
static double fold(int64_t kind, double acc, double v)
{
	if (kind <= 2) return acc + v;
	return (kind == 3 ? scalars[CX_OP_max].f : scalars[CX_OP_min].f)((operands){.a = v, .b = acc});
}

/* Runs the program at the walk's position; regs[n_in...] are filled. */
static void run_prog(const cx__ref_call *c, const cx__ref_walk *w, reg *regs)
{
	for (uint32_t i = 0; i < c->n_in; i++) regs[i] = reg_load(&c->in[i], w->off[i]);
	for (uint32_t i = 0; i < c->prog->n_instr; i++)
		regs[c->n_in + i] = run_instr(&c->prog->instr[i], regs);
}

/* Dims over which the program runs: the broadcast shape of the operands. */
static cx_shape space_of(const cx__ref_call *c)
{
	cx_shape s = {0};
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

/* One row: the walk stands at its first column and is left at the last. */
static void reduce_row(const cx__ref_call *c, cx__ref_walk *w, int64_t cols, int64_t row, reg *regs)
{
	const cx_attr_map *at = c->attr;
	double acc[CX_MAX_OUT], start = at->reduce == 3 ? -INFINITY : at->reduce == 4 ? INFINITY : 0;
	for (uint32_t o = 0; o < c->n_out; o++) acc[o] = start;
	for (int64_t j = 0; j < cols; j++) {
		run_prog(c, w, regs);
		for (uint32_t o = 0; o < c->n_out; o++) {
			const reg *r = &regs[c->prog->out[o]];
			acc[o] = fold(at->reduce, acc[o], cx__ref_is_float(r->dtype) ? r->f : (double)r->i);
		}
		if (j + 1 < cols) cx__walk_next(w);
	}
	for (uint32_t o = 0; o < c->n_out; o++)
		cx__elem_put(&c->out[o], cx__elem_offset(&c->out[o].d, row),
			at->reduce == 2 ? acc[o] / cols : acc[o]);
}

void cx__ref_map(const cx__ref_call *c)
{
	const cx_attr_map *at = c->attr;
	reg regs[CX_PROG_MAX_IN + CX_PROG_MAX];
	cx_shape space = space_of(c);
	int64_t cols = space.rank ? space.dim[space.rank - 1] : 1;
	cx__ref_walk w;
	bool some = cx__walk_init(&w, space.rank, space.dim);
	for (uint32_t i = 0; i < c->n_in; i++) cx__walk_add(&w, &c->in[i].d);
	if (at->reduce) { /* rows of no columns still have a value */
		int64_t rows = cx__desc_elems(&c->out[0].d);
		for (int64_t row = 0; row < rows; row++) {
			reduce_row(c, &w, cols, row, regs);
			if (cols) cx__walk_next(&w);
		}
		return;
	}
	if (!some) return;
	for (uint32_t o = 0; o < c->n_out; o++) cx__walk_add(&w, &c->out[o].d);
	do {
		run_prog(c, &w, regs);
		for (uint32_t o = 0; o < c->n_out; o++)
			reg_store(&c->out[o], w.off[c->n_in + o], &regs[c->prog->out[o]]);
	} while (cx__walk_next(&w));
}
