/* grid_run.c - one node as one step of a device, on guarded memory; see grid.h.
 *
 * All operands lie in one buffer, the slab: guard, operand, guard, operand ... scratch, guard. The
 * host keeps an image of it. After the run only the outputs may differ from the image. Guards are
 * NaN in every float dtype, so that a value read from outside shows, and those of outputs share no
 * byte with the others, so that what is copied from outside to outside shows too. Outputs are
 * poisoned with bytes 0x7a, which no result has in all bytes. */
#include "tests/grid.h"

#include "backends/cpu/cpu.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { GUARD = 128, MAX_IN = 64, OUT_GUARD = 0xff, POISON = 0x7a };

/* ---- devices ---- */

static void on_log(void *ctx, cx_log_level level, const char *where, const char *msg)
{
	grid_device *d = ctx;
	if (level < CX_LOG_WARN) return;
	if (d->n_warnings++ < 20) printf("%s: %.500s\n", where, msg);
}

cx_status grid_device_open(
	grid_device *d, const char *backend, const char *isa, int n_threads, int validate, cx_err *err)
{
	cx_config cfg = {.isa = isa, .n_threads = n_threads, .validate = validate};
	cx_status st;
	*d = (grid_device){.backend = backend};
	if (validate) {
		cfg.log = on_log;
		cfg.log_ctx = d;
	}
	snprintf(d->label, sizeof d->label, "%s%s%s", backend, isa ? " " : "", isa ? isa : "");
	st = cx_runtime_create(&cfg, &d->rt, err);
	if (st == CX_OK) st = cx_device_open(d->rt, backend, 0, &d->dev, err);
	if (st != CX_OK) {
		cx_runtime_free(d->rt);
		d->rt = NULL;
		d->dev = NULL;
	} else if (isa) {
		((cx_cpu_device *)d->dev)->share_ns = 0;
	}
	return st;
}

void grid_device_close(grid_device *d)
{
	if (!d->dev) return;
	if (d->mem) d->dev->backend->free(d->mem);
	cx_device_close(d->dev);
	cx_runtime_free(d->rt);
	free(d->image);
	free(d->after);
	memset(d, 0, sizeof *d);
}

static cx_status grow(grid_device *d, uint64_t bytes, cx_err *err)
{
	uint64_t cap = bytes < 1 << 20 ? 1 << 20 : bytes * 2;
	if (bytes <= d->cap) return CX_OK;
	if (d->mem) d->dev->backend->free(d->mem);
	d->mem = NULL;
	d->cap = 0;
	free(d->image);
	free(d->after);
	d->image = malloc(cap);
	d->after = malloc(cap);
	if (!d->image || !d->after) return CX_FAIL(err, CX_ERR_MEMORY, "grid: out of memory");
	if (d->dev->backend->alloc(d->dev, cap, NULL, &d->mem, err) != CX_OK) return CX_ERR_MEMORY;
	d->cap = cap;
	return CX_OK;
}

/* ---- one step ---- */

typedef struct rig {
	cx_operand in[MAX_IN], out[CX_MAX_OUT];
	const void *data[MAX_IN];
	uint64_t at[MAX_IN + CX_MAX_OUT], bytes[MAX_IN + CX_MAX_OUT]; /* storage of operands */
	uint32_t n_in, n_out;
	uint64_t end, align;
} rig;

static uint64_t dense_bytes(const cx_desc *d)
{
	uint64_t n = 0;
	cx_dtype_bytes(d->dtype, d->rank, d->dim, &n);
	return n;
}

/* Storage number i, of this many bytes; the slab's byte where it starts. */
static uint64_t place(rig *r, uint32_t i, uint64_t bytes)
{
	r->at[i] = (r->end + 2 * GUARD + r->align - 1) / r->align * r->align;
	r->bytes[i] = bytes;
	r->end = r->at[i] + bytes;
	return r->at[i];
}

/* Operand j: as the graph has it (its root's storage and strides), or dense. */
static void add_operand(rig *r, const grid_case *c, uint32_t id, bool dense, bool shifted)
{
	uint32_t j = r->n_in++;
	cx_operand *o = &r->in[j];
	const cx_node *n;
	const cx_dtype_info *t;
	uint64_t shift = 0;
	uint32_t from;
	*o = (cx_operand){.desc.dtype = CX_DTYPE_COUNT, .buf = CX_BUF_NONE};
	if (id == UINT32_MAX) return;
	n = &c->rg->g->nodes[id];
	t = cx_dtype_get(n->desc.dtype);
	from = dense ? id : n->root;
	o->desc = n->desc;
	o->buf = CX_BUF_SLAB;
	if (dense) cx__desc_dense(&o->desc);
	/* as views are: not where a buffer may begin, and each a little further */
	if (shifted && t->cls != CX_CLASS_BLOCK)
		shift = (uint64_t)(j % 5 + 1) * (uint64_t)t->block_bytes;
	r->end += shift ? r->align : 0;
	r->data[j] = c->want.leaf[from] ? c->want.leaf[from] : c->want.node[from];
	o->off = place(r, j, c->want.bytes[from]) + shift;
	r->at[j] += shift;
	r->end += shift;
	if (!dense)
		o->off += (uint64_t)n->view_off / (uint64_t)t->block_elems * (uint64_t)t->block_bytes;
}

static bool takes_over(const cx_operand *x, const cx_desc *y)
{
	return x->buf != CX_BUF_NONE && cx__desc_is_dense(&x->desc) && x->desc.rank == y->rank &&
		   memcmp(x->desc.dim, y->dim, sizeof y->dim) == 0 &&
		   cx_dtype_get(x->desc.dtype)->block_bytes == cx_dtype_get(y->dtype)->block_bytes &&
		   cx_dtype_get(x->desc.dtype)->cls != CX_CLASS_BLOCK;
}

/* Offsets of operands and outputs; false: inplace does not apply. */
static bool lay_out(rig *r, const grid_case *c, int inplace, bool dense)
{
	const cx_node *n = &c->rg->g->nodes[c->node];
	for (uint32_t j = 0; j < n->n_in; j++) {
		bool aliased = (int)j == inplace;
		for (uint32_t o = 0; o < n->n_out; o++) aliased |= cx__ops[n->op].alias[o] == (int)j;
		add_operand(r, c, n->in[j], dense || aliased,
			!aliased && c->index / GRID_PER_GROUP / 3 != CX_LAYOUT_DENSE);
	}
	r->n_out = n->n_out;
	for (uint32_t o = 0; o < n->n_out; o++) {
		int alias = cx__ops[n->op].alias[o];
		cx_operand *y = &r->out[o];
		y->desc = c->rg->g->nodes[c->node + o].desc;
		y->buf = CX_BUF_SLAB;
		cx__desc_dense(&y->desc);
		if (o == 0 && inplace >= 0) {
			if (!takes_over(&r->in[inplace], &y->desc)) return false;
			alias = inplace;
		}
		if (alias >= 0) {
			y->off = r->in[alias].off;
			r->at[MAX_IN + o] = y->off;
			r->bytes[MAX_IN + o] = dense_bytes(&y->desc);
		} else {
			y->off = place(r, MAX_IN + o, dense_bytes(&y->desc));
		}
	}
	return true;
}

/* The whole slab as it is before the run. */
static void fill_image(grid_device *d, const rig *r, uint64_t bytes)
{
	for (uint64_t i = 0; i < bytes; i++) d->image[i] = i % 2 ? 0x7f : 0xfe;
	for (uint32_t o = 0; o < r->n_out; o++)
		memset(d->image + r->at[MAX_IN + o] - GUARD, OUT_GUARD, r->bytes[MAX_IN + o] + 2 * GUARD);
	for (uint32_t o = 0; o < r->n_out; o++)
		if (r->bytes[MAX_IN + o])
			memset(d->image + r->at[MAX_IN + o], POISON, r->bytes[MAX_IN + o]);
	for (uint32_t j = 0; j < r->n_in; j++)
		if (r->in[j].buf != CX_BUF_NONE && r->bytes[j])
			memcpy(d->image + r->at[j], r->data[j], r->bytes[j]);
}

static cx_status launch(grid_device *d, const cx_step *step, uint64_t bytes, cx_err *err)
{
	const cx_backend *b = d->dev->backend;
	cx_bindings binds = {&d->mem, 1};
	cx_program *prog = NULL;
	cx_status st = b->write(d->mem, 0, d->image, bytes, err);
	if (st == CX_OK) st = b->compile(d->dev, step, 1, &binds, &prog, err);
	if (st == CX_OK) st = b->submit(prog, 0, 1, err);
	if (st == CX_OK) st = b->wait(d->dev, err);
	if (prog) b->discard(prog);
	if (st == CX_OK) st = b->read(d->mem, 0, d->after, bytes, err);
	return st;
}

/* ---- what came out ---- */

/* Which operand byte i is near, in words. */
static void where_is(const rig *r, uint64_t i, char *buf, size_t size)
{
	for (uint32_t k = 0; k < MAX_IN + CX_MAX_OUT; k++) {
		bool out = k >= MAX_IN;
		uint32_t n = out ? k - MAX_IN : k;
		if (out ? n >= r->n_out : (n >= r->n_in || r->in[n].buf == CX_BUF_NONE)) continue;
		if (i + GUARD < r->at[k] || i >= r->at[k] + r->bytes[k] + GUARD) continue;
		snprintf(buf, size, "%s %s %u",
			i < r->at[k]                 ? "before"
			: i < r->at[k] + r->bytes[k] ? "into"
										 : "after",
			out ? "output" : "operand", n);
		return;
	}
	snprintf(buf, size, "at byte %llu of the slab", (unsigned long long)i);
}

static bool only_outputs(const grid_device *d, const rig *r, const cx_step *step, uint64_t bytes,
	char *why, size_t why_size)
{
	char where[64];
	for (uint64_t i = 0; i < bytes; i++) {
		bool mine = i >= step->scratch_off && i < step->scratch_off + step->scratch_bytes;
		if (d->image[i] == d->after[i]) continue;
		for (uint32_t o = 0; o < r->n_out; o++)
			mine |= i >= r->at[MAX_IN + o] && i < r->at[MAX_IN + o] + r->bytes[MAX_IN + o];
		if (mine) continue;
		where_is(r, i, where, sizeof where);
		snprintf(why, why_size, "%s wrote %s", step->kernel->name, where);
		return false;
	}
	return true;
}

static double tolerance(cx_op op, cx_dtype t)
{
	cx_tol tol = cx__ops[op].tol;
	return t == CX_F16 ? tol.f16 : t == CX_BF16 ? tol.bf16 : tol.f32;
}

/* A result among denormals cannot be nearer than their spacing: 256 of them, in the end, for sums;
 * adamw divides by as little as 1e-8; beside block formats activations below 2^-111 are zeros;
 * in products of
 * bf16 pairs denormals are. */
static double floor_of(cx_op op, cx_dtype t, double tol)
{
	double least = t == CX_F16 ? 0x1p-24 : t == CX_BF16 ? 0x1p-133 : 0x1p-149 * 256;
	if (op == CX_OP_adamw) least *= 1e8;
	if (cx__ops[op].tol.f32 > 1e-10 && t != CX_F16) least = t == CX_F32 ? 1e-32 : 1e-35;
	return tol > 0 ? 2 * least / sqrt(tol) : 0;
}

/* Each element of a function of elements by itself: one wrong among many must not be averaged away.
 */
static bool each_inside(cx_dtype t, int64_t n, const void *want, const void *got, double tol,
	double floor, cx_close *close)
{
	size_t size = (size_t)cx_dtype_get(t)->block_bytes;
	for (int64_t i = 0; i < n; i++)
		if (!cx__is_inside(t, 1, (const char *)want + (size_t)i * size,
				(const char *)got + (size_t)i * size, tol, floor, close)) {
			close->at = i;
			return false;
		}
	return true;
}

static bool is_poison(const unsigned char *got, size_t size, int64_t at)
{
	for (size_t i = 0; i < size; i++)
		if (got[(size_t)at * size + i] != POISON) return false;
	return true;
}

static bool near_reference(
	const grid_case *c, uint32_t o, const unsigned char *got, char *why, size_t why_size)
{
	const cx_desc *d = &c->rg->g->nodes[c->node + o].desc;
	const void *want = c->want.node[c->node + o];
	double tol = tolerance(c->op, d->dtype), floor = floor_of(c->op, d->dtype, tol);
	int64_t n = cx__desc_elems(d);
	cx_close e;
	bool alone = cx__ops[c->op].kind == CX_KIND_MAP && tol > 0 && cx__ops[c->op].tol.f32 <= 1e-12;
	bool ok = alone ? each_inside(d->dtype, n, want, got, tol, floor, &e)
					: cx__is_inside(d->dtype, n, want, got, tol, floor, &e);
	if (ok) return true;
	snprintf(why, why_size,
		"output %u %s: nmse %.3g (limit %.3g), %lld odd; [%lld] %s %.9g, not %.9g", o,
		cx_dtype_get(d->dtype)->name, e.nmse, tol, (long long)e.n_odd, (long long)e.at,
		is_poison(got, (size_t)cx_dtype_get(d->dtype)->block_bytes, e.at) ? "never written," : "is",
		e.got, e.want);
	return false;
}

/* Runs it in the given way. *kernel NULL: there is none, or inplace does not apply. */
static bool run_once(grid_device *d, const grid_case *c, int inplace, bool dense,
	const cx_kernel **kernel, rig *r, char *why, size_t why_size)
{
	const cx_node *n = &c->rg->g->nodes[c->node];
	cx_desc in[MAX_IN], out[CX_MAX_OUT];
	cx_limits limits;
	cx_kernel_key key;
	cx_step step;
	cx_err err = {0};
	uint64_t bytes;
	d->dev->backend->limits(d->dev, &limits);
	*kernel = NULL;
	memset(r, 0, sizeof *r);
	r->align = limits.alignment > 64 ? limits.alignment : 64;
	if (n->n_in > MAX_IN || !lay_out(r, c, inplace, dense)) return true;
	for (uint32_t i = 0; i < r->n_in; i++) in[i] = r->in[i].desc;
	for (uint32_t i = 0; i < r->n_out; i++) out[i] = r->out[i].desc;
	key = (cx_kernel_key){(cx_op)n->op, n->attr, n->prog, in, r->n_in, out, r->n_out};
	*kernel = d->dev->backend->find(d->dev, &key);
	if (*kernel && inplace >= 0 && !((*kernel)->inplace >> inplace & 1)) *kernel = NULL;
	if (!*kernel) return true;
	step = (cx_step){.kernel = *kernel,
		.op = (cx_op)n->op,
		.attr = n->attr,
		.prog = n->prog,
		.n_in = r->n_in,
		.n_out = r->n_out,
		.in = r->in,
		.out = r->out,
		.node = c->node};
	step.scratch_bytes = (*kernel)->scratch ? (*kernel)->scratch(d->dev, &key) : 0;
	step.scratch_off = (r->end + 2 * GUARD + r->align - 1) / r->align * r->align;
	bytes = step.scratch_off + step.scratch_bytes + GUARD;
	if (grow(d, bytes, &err) != CX_OK) {
		snprintf(why, why_size, "%s", err.msg);
		return false;
	}
	fill_image(d, r, bytes);
	if (launch(d, &step, bytes, &err) != CX_OK) {
		snprintf(why, why_size, "%s: %s", (*kernel)->name, err.msg);
		return false;
	}
	if (!only_outputs(d, r, &step, bytes, why, why_size)) return false;
	for (uint32_t o = 0; o < r->n_out; o++)
		if (!near_reference(c, o, d->after + r->at[MAX_IN + o], why, why_size)) return false;
	return true;
}

/* ---- without a kernel: planned ---- */

static grid_verdict run_planned(grid_device *d, const grid_case *c, char *why, size_t why_size)
{
	cx_plan_check check = {.devices = &d->dev,
		.n_devices = 1,
		.no_fuse = true,
		.tol = &cx__ops[c->op].tol,
		.floor = floor_of(c->op, CX_F32, cx__ops[c->op].tol.f32)};
	cx_err err = {0};
	cx_status st = cx__harness_plan(d->rt, c->rg, &c->want, &check, NULL, &err);
	if (st == CX_OK) return GRID_PLAN;
	snprintf(why, why_size, "planned: %s", err.msg);
	return st == CX_ERR_UNSUPPORTED ? GRID_NONE : GRID_FAIL;
}

/* ---- all of a case ---- */

static void keep_bits(const grid_device *d, const rig *r, grid_bits *b)
{
	b->n_out = r->n_out;
	for (uint32_t o = 0; o < r->n_out; o++) {
		b->bytes[o] = r->bytes[MAX_IN + o];
		b->out[o] = malloc(b->bytes[o] + 1);
		if (b->out[o] && b->bytes[o]) memcpy(b->out[o], d->after + r->at[MAX_IN + o], b->bytes[o]);
	}
}

void grid_bits_free(grid_bits *b)
{
	for (uint32_t o = 0; o < b->n_out; o++) free(b->out[o]);
	memset(b, 0, sizeof *b);
}

bool grid_bits_same(const grid_case *c, const grid_bits *a, const grid_bits *b, char *why, size_t n)
{
	const cx_node *node = &c->rg->g->nodes[c->node];
	/* AVX-512 multiplies bf16 in pairs, see backends/cpu/isa.h */
	if (cx__ops[c->op].tol.f32 > 1e-10 && node->n_in > 1 &&
		c->rg->g->nodes[node->in[0]].desc.dtype == CX_BF16)
		return true;
	for (uint32_t o = 0; o < a->n_out; o++) {
		const cx_desc *d = &c->rg->g->nodes[c->node + o].desc;
		cx_close e;
		if (a->bytes[o] == 0 || memcmp(a->out[o], b->out[o], a->bytes[o]) == 0) continue;
		if (cx__is_inside(d->dtype, cx__desc_elems(d), a->out[o], b->out[o], 0, 0, &e))
			continue; /* NaN of other bits */
		snprintf(why, n, "output %u: element %lld is %.9g, on the first instruction set %.9g", o,
			(long long)e.at, e.got, e.want);
		return false;
	}
	return true;
}

grid_verdict grid_case_run(
	grid_device *d, const grid_case *c, grid_bits *bits, char *why, size_t why_size)
{
	const cx_kernel *kernel, *other;
	bool dense = false, ok;
	size_t n;
	rig r;
	why[0] = 0;
	ok = run_once(d, c, -1, false, &kernel, &r, why, why_size);
	if (!kernel) {
		dense = true; /* the planner asks again so, and copies */
		ok = run_once(d, c, -1, true, &kernel, &r, why, why_size);
	}
	if (!kernel) return run_planned(d, c, why, why_size);
	if (!ok) return GRID_FAIL;
	if (bits) keep_bits(d, &r, bits);
	for (int j = 0; j < 32; j++) {
		if (!(kernel->inplace >> j & 1) || (uint32_t)j >= r.n_in) continue;
		n = (size_t)snprintf(why, why_size, "in place of operand %d: ", j);
		if (!run_once(d, c, j, dense, &other, &r, why + n, why_size - n)) return GRID_FAIL;
	}
	why[0] = 0;
	return GRID_PASS;
}
