/* map.c - elementwise ops and map programs: tiles of 512 elements go through the program one
 * instruction at a time.
 *
 * Operands that are f32 and lie as the result does are read where they are, and the last
 * instruction writes straight into an f32 result; everything else passes through slots, which stay
 * in the first-level cache. An operand with inner stride 0 is spread once per row. A reduction adds
 * the tile's elements to 16 lanes: element i of a row to lane i mod 16. */
#include "backends/cpu/map.h"
#include "backends/cpu/isa/lane.h"
#include "backends/cpu/isa/map_ops.h"

enum { TILE = CX_MAP_TILE };

typedef struct tile {
	const cx_cpu_call *c;
	const cx_map_plan *p;
	char *slots;
	const void *at[CX_MAP_REGS];       /* where each register's tile is now */
	int64_t row, col, n_rows, n;       /* n elements: one row from col on, or n_rows whole rows */
	int64_t splat_off[CX_PROG_MAX_IN]; /* element that the slot of an operand with inner stride 0 is
										  filled with, -1: none */
} tile;

static void *slot_of(const tile *t, uint32_t reg)
{
	return t->slots + (size_t)t->p->slot[reg] * t->p->slot_bytes;
}

/* ---- elements ---- */

/* k elements of memory, `stride` apart, into a register's slot at element i. */
static void widen(void *slot, int64_t i, const void *p, cx_dtype dtype, int64_t stride, int64_t k)
{
	float *f = (float *)slot + i;
	int64_t *l = (int64_t *)slot + i;
	if (cx_map_is_int(dtype)) {
		for (int64_t j = 0; j < k; j++) l[j] = cx_get_i64(p, dtype, j * stride);
	} else if (dtype == CX_BOOL) {
		for (int64_t j = 0; j < k; j++) f[j] = ((const uint8_t *)p)[j * stride] != 0;
	} else {
		const float *r = cx_row_load(f, p, dtype, stride, k);
		if (r != f) memcpy(f, r, (size_t)k * sizeof *f);
	}
}

static void wrap(int64_t *y, cx_dtype t, int64_t n)
{
	if (t == CX_I32)
		for (int64_t i = 0; i < n; i++) y[i] = (int32_t)(uint32_t)(uint64_t)y[i];
	if (t == CX_U8)
		for (int64_t i = 0; i < n; i++) y[i] = (uint8_t)(uint64_t)y[i];
	if (t == CX_I8)
		for (int64_t i = 0; i < n; i++) y[i] = (int8_t)(uint8_t)(uint64_t)y[i];
}

/* Rounds f32 registers to a 16-bit type and back. */
static void round_to(float *y, const float *x, cx_dtype t, int64_t n)
{
	for (int64_t i = 0; i < n; i += 16) {
		size_t k = n - i < 16 ? (size_t)(n - i) : 16;
		v16_store_n(y + i, cx_round_as(t, v16_load_n(x + i, k)), k);
	}
}

/* A register of type `from` as one of type `to`. */
static void convert(void *y, cx_dtype to, const void *x, cx_dtype from, int64_t n)
{
	const int64_t *l = x;
	const float *f = x;
	if (cx_map_is_int(from)) {
		if (cx_map_is_int(to)) {
			memmove(y, x, (size_t)n * 8);
			wrap(y, to, n);
		} else if (to == CX_BOOL) {
			for (int64_t i = 0; i < n; i++) ((float *)y)[i] = l[i] != 0;
		} else {
			for (int64_t i = 0; i < n; i++) ((float *)y)[i] = (float)l[i];
			if (to != CX_F32) round_to(y, y, to, n);
		}
	} else if (cx_map_is_int(to)) {
		for (int64_t i = 0; i < n; i++) ((int64_t *)y)[i] = cx_saturate_f32(to, f[i]);
	} else if (to == CX_BOOL) {
		for (int64_t i = 0; i < n; i++) ((float *)y)[i] = f[i] != 0.0f;
	} else {
		round_to(y, f, to, n);
	}
}

/* A register of type `from` to memory of type `to`, n elements next to each other. */
static void narrow(void *p, cx_dtype to, const void *x, cx_dtype from, int64_t n)
{
	int64_t l[TILE];
	if (cx_map_is_int(to)) {
		if (!cx_map_is_int(from)) {
			convert(l, to, x, from, n);
			x = l;
		}
		for (int64_t i = 0; i < n; i++) cx_put_i64(p, to, i, ((const int64_t *)x)[i]);
		return;
	}
	if (cx_map_is_int(from)) {
		float f[TILE];
		convert(f, to, x, from, n);
		narrow(p, to, f, to, n);
	} else if (to == CX_BOOL) {
		for (int64_t i = 0; i < n; i++) ((uint8_t *)p)[i] = ((const float *)x)[i] != 0.0f;
	} else {
		cx_row_store(p, to, 1, x, n);
	}
}

/* ---- a tile ---- */

static int64_t row_off(const tile *t, uint32_t i, int64_t row)
{
	int64_t off = 0;
	for (int32_t k = t->p->rank - 1; k >= 0 && row > 0; k--) {
		off += row % t->p->dim[k] * t->p->in[i].stride[k];
		row /= t->p->dim[k];
	}
	return off;
}

static void load_operand(tile *t, uint32_t i)
{
	const cx_map_plan *p = t->p;
	const cx_cpu_arg *a = &t->c->in[i];
	cx_dtype dt = a->d.dtype;
	void *slot = slot_of(t, i);
	int64_t s = p->in[i].inner, k = t->n_rows > 1 ? p->n_inner : t->n;
	t->at[i] = slot;
	if (p->in[i].how == CX_MAP_LINEAR) {
		const char *q = cx_at_off(a, t->row * p->n_inner + t->col);
		if (dt == CX_F32) t->at[i] = q;
		else widen(slot, 0, q, dt, 1, t->n);
		return;
	}
	if (s == 0 && (t->n_rows == 1 || p->in[i].how == CX_MAP_SCALAR)) {
		int64_t off = row_off(t, i, t->row);
		if (t->splat_off[i] != off) widen(slot, 0, cx_at_off(a, off), dt, 0, TILE);
		t->splat_off[i] = off;
		return;
	}
	t->splat_off[i] = -1;
	for (int64_t r = 0; r < t->n_rows; r++) {
		const char *q = cx_at_off(a, row_off(t, i, t->row + r) + t->col * s);
		if (p->in[i].how == CX_MAP_ROWS && dt == CX_F32 && t->n_rows == 1) {
			t->at[i] = q;
		} else {
			widen(slot, r * k, q, dt, s, k);
		}
	}
}

/* A register read as the other kind: bools are f32, but may meet integers. */
static const void *as_kind(const tile *t, uint32_t reg, bool want_int, int64_t *tmp)
{
	cx_dtype dt = t->p->dtype[reg];
	if (cx_map_is_int(dt) == want_int) return t->at[reg];
	convert(tmp, want_int ? CX_I64 : CX_F32, t->at[reg], dt, t->n);
	return tmp;
}

static void choose(tile *t, const cx_instr *in, void *y)
{
	int64_t tmp[TILE];
	const float *m = as_kind(t, in->a, false, tmp);
	if (cx_map_is_int(t->p->dtype[in->b])) {
		const int64_t *a = t->at[in->b], *b = t->at[in->c];
		for (int64_t i = 0; i < t->n; i++) ((int64_t *)y)[i] = m[i] != 0.0f ? a[i] : b[i];
		return;
	}
	const float *a = t->at[in->b], *b = t->at[in->c];
	for (int64_t i = 0; i < t->n; i += 16) {
		size_t k = t->n - i < 16 ? (size_t)(t->n - i) : 16;
		v16 v = v16_select(
			v16_eq(v16_load_n(m + i, k), v16_zero()), v16_load_n(b + i, k), v16_load_n(a + i, k));
		v16_store_n((float *)y + i, v, k);
	}
}

static void run_instr(tile *t, uint32_t i, void *y)
{
	const cx_instr *in = &t->p->prog.instr[i];
	const cx_dtype *dt = t->p->dtype;
	uint32_t reg = t->p->prog.n_in + i;
	int64_t tmp[TILE], out[TILE];
	bool is_int = cx_map_is_int(dt[in->a]);
	cx_tile_args o = {t->at[in->a], t->at[in->b], in->p, in->q, 0, 0};
	t->at[reg] = y;
	if (in->op == CX_OP_cast) {
		convert(y, dt[reg], t->at[in->a], dt[in->a], t->n);
	} else if (in->op == CX_OP_where) {
		choose(t, in, y);
	} else if (!is_int) {
		if (cx_map_is_int(dt[in->b])) o.b = as_kind(t, in->b, false, tmp);
		cx_tile_float((cx_op)in->op)(y, &o, t->n);
	} else {
		o.b = as_kind(t, in->b, true, tmp);
		o.ip = cx_saturate_f32(dt[in->a], in->p);
		o.iq = cx_saturate_f32(dt[in->a], in->q);
		if (cx_map_is_int(dt[reg])) {
			cx_tile_int((cx_op)in->op)(y, &o, t->n);
			wrap(y, dt[reg], t->n);
		} else { /* a comparison: truth values are f32 */
			cx_tile_int((cx_op)in->op)(out, &o, t->n);
			for (int64_t j = 0; j < t->n; j++) ((float *)y)[j] = (float)out[j];
		}
	}
}

/* Output 0 may have taken over an operand's bytes, so it is written last. */
static void run_tile(tile *t)
{
	const cx_map_plan *p = t->p;
	const cx_prog *g = &p->prog;
	int64_t at = t->row * p->n_inner + t->col;
	uint32_t n = p->direct == 255 ? g->n_instr : g->n_instr - 1u;
	for (uint32_t i = 0; i < g->n_in; i++) load_operand(t, i);
	for (uint32_t i = 0; i < n; i++) run_instr(t, i, slot_of(t, g->n_in + i));
	if (p->reduce) return;
	for (uint32_t o = g->n_out; o-- > 0;) {
		const cx_cpu_arg *y = &t->c->out[o];
		if (o == p->direct) run_instr(t, n, cx_at_off(y, at));
		else narrow(cx_at_off(y, at), y->d.dtype, t->at[g->out[o]], p->dtype[g->out[o]], t->n);
	}
}

/* ---- reductions ---- */

CX_INLINE v16 fold(int64_t kind, v16 acc, v16 x)
{
	if (kind == 3) return v16_max_nan(acc, x);
	if (kind == 4) return v16_min_nan(acc, x);
	return v16_add(acc, x);
}

static v16 fold_run(int64_t kind, v16 acc, const float *x, int64_t n)
{
	float start = kind == 3 ? -INFINITY : kind == 4 ? INFINITY : 0.0f, tail[16];
	int64_t i = 0;
	for (; i + 16 <= n; i += 16) acc = fold(kind, acc, v16_load(x + i));
	if (i < n) {
		for (int j = 0; j < 16; j++) tail[j] = start;
		memcpy(tail, x + i, (size_t)(n - i) * sizeof *x);
		acc = fold(kind, acc, v16_load(tail));
	}
	return acc;
}

static void put_result(const tile *t, uint32_t o, int64_t row, v16 acc)
{
	const cx_map_plan *p = t->p;
	const cx_cpu_arg *y = &t->c->out[o];
	float l[16], r;
	v16_store(l, acc);
	r = l[0];
	if (p->reduce <= 2) r = v16_sum(acc);
	for (int j = 1; j < 16 && p->reduce > 2; j++)
		if (p->reduce == 3) r = r > l[j] || r != r ? r : l[j];
		else r = r < l[j] || r != r ? r : l[j];
	if (p->reduce == 2) r /= (float)p->n_inner;
	narrow(cx_at_off(y, row), y->d.dtype, &r, CX_F32, 1);
}

/* Rows [row, row + n_rows), which the tile holds whole, or one row in tiles. */
static void reduce_rows(tile *t)
{
	const cx_map_plan *p = t->p;
	float start = p->reduce == 3 ? -INFINITY : p->reduce == 4 ? INFINITY : 0.0f;
	int64_t tmp[TILE];
	v16 acc[CX_MAX_OUT];
	if (t->n_rows > 1) {
		run_tile(t);
		for (uint32_t o = p->prog.n_out; o-- > 0;) {
			const float *x = as_kind(t, p->prog.out[o], false, tmp);
			for (int64_t r = 0; r < t->n_rows; r++)
				put_result(t, o, t->row + r,
					fold_run(p->reduce, v16_set1(start), x + r * p->n_inner, p->n_inner));
		}
		return;
	}
	for (uint32_t o = 0; o < p->prog.n_out; o++) acc[o] = v16_set1(start);
	for (t->col = 0; t->col < p->n_inner; t->col += TILE) {
		t->n = p->n_inner - t->col < TILE ? p->n_inner - t->col : TILE;
		run_tile(t);
		for (uint32_t o = 0; o < p->prog.n_out; o++)
			acc[o] = fold_run(p->reduce, acc[o], as_kind(t, p->prog.out[o], false, tmp), t->n);
	}
	t->col = 0;
	for (uint32_t o = p->prog.n_out; o-- > 0;) put_result(t, o, t->row, acc[o]);
}

CX_CPU_FN(cx_map_tile_any)
{
	const cx_map_plan *p = c->plan;
	char slots[CX_MAP_REGS * TILE * 8] __attribute__((aligned(64)));
	tile m = {.c = c, .p = p, .slots = slots};
	bool by_rows = p->reduce || p->rows_per_tile > 1;
	int64_t units = by_rows ? (p->n_outer + p->rows_per_tile - 1) / p->rows_per_tile
							: p->n_outer * p->tiles_per_row;
	int64_t lo, hi;
	for (uint32_t i = 0; i < CX_PROG_MAX_IN; i++) m.splat_off[i] = -1;
	cx_cpu_share(t, units, 1, &lo, &hi);
	for (int64_t u = lo; u < hi; u++) {
		if (by_rows) {
			m.row = u * p->rows_per_tile;
			m.n_rows =
				p->n_outer - m.row < p->rows_per_tile ? p->n_outer - m.row : p->rows_per_tile;
			m.n = m.n_rows * p->n_inner;
		} else {
			m.row = u / p->tiles_per_row;
			m.col = u % p->tiles_per_row * TILE;
			m.n_rows = 1;
			m.n = p->n_inner - m.col < TILE ? p->n_inner - m.col : TILE;
		}
		if (p->reduce) reduce_rows(&m);
		else run_tile(&m);
	}
}
