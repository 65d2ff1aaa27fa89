/* cpu_run.c - see cpu_run.h. */
#include "tests/cpu_run.h"

#include "graph/quant.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* ---- the reference ---- */

static const void *give_leaf(void *ctx, const cx_graph *g, uint32_t id)
{
	step_values *v = ctx;
	uint64_t bytes = 0;
	assert_true(cx_dtype_bytes(
		g->nodes[id].desc.dtype, g->nodes[id].desc.rank, g->nodes[id].desc.dim, &bytes));
	if (!v->value[id]) {
		v->value[id] = calloc(1, bytes + 64);
		v->bytes[id] = bytes;
		v->fill(v->ctx, id, v->value[id], bytes);
	}
	return v->value[id];
}

static void take_node(void *ctx, const cx_graph *g, uint32_t id, const void *data, uint64_t bytes)
{
	step_values *v = ctx;
	(void)g;
	if (v->value[id]) return; /* a leaf: kept as it was before the run */
	v->value[id] = calloc(1, bytes + 64);
	v->bytes[id] = bytes;
	if (bytes) memcpy(v->value[id], data, bytes);
}

void step_values_make(
	step_values *v, const cx_graph *g, void (*fill)(void *, uint32_t, void *, uint64_t), void *ctx)
{
	cx_err err = {0};
	cx_ref_io io = {v, give_leaf, take_node, NULL};
	*v = (step_values){.g = g, .fill = fill, .ctx = ctx};
	v->value = calloc(g->n_nodes, sizeof *v->value);
	v->bytes = calloc(g->n_nodes, sizeof *v->bytes);
	for (uint32_t i = 0; i < g->n_nodes; i++)
		if (cx__ops[g->nodes[i].op].kind == CX_KIND_LEAF && g->nodes[i].op != CX_OP_const)
			give_leaf(v, g, i);
	if (cx__ref_eval(g, NULL, &io, &err) != CX_OK) fail_msg("reference: %s", err.msg);
}

void step_values_free(step_values *v)
{
	for (uint32_t i = 0; i < v->g->n_nodes; i++) free(v->value[i]);
	free(v->value);
	free(v->bytes);
}

/* ---- one step ---- */

enum { GUARD = 128, MAX_IN = 64, MAX_BUF = 2 * MAX_IN };

typedef struct rig {
	cx_device *dev;
	cx_buffer *bufs[MAX_BUF];
	uint32_t n_bufs;
	cx_operand in[MAX_IN], out[CX_MAX_OUT];
	uint32_t n_in, n_out;
} rig;

/* A buffer with guards around `bytes` of content; returns its index. */
static uint32_t guarded(rig *r, const void *data, uint64_t bytes)
{
	cx_err err = {0};
	char guard[GUARD];
	assert_true(r->n_bufs < MAX_BUF);
	if (r->dev->backend->alloc(r->dev, bytes + 2 * GUARD, NULL, &r->bufs[r->n_bufs], &err) != CX_OK)
		fail_msg("%s", err.msg);
	memset(guard, 0x5a, sizeof guard);
	r->dev->backend->write(r->bufs[r->n_bufs], 0, guard, GUARD, &err);
	r->dev->backend->write(r->bufs[r->n_bufs], GUARD + bytes, guard, GUARD, &err);
	if (data && bytes) r->dev->backend->write(r->bufs[r->n_bufs], GUARD, data, bytes, &err);
	assert_int_equal(err.code, CX_OK);
	return r->n_bufs++;
}

static void check_guards(const rig *r)
{
	char guard[GUARD];
	cx_err err = {0};
	for (uint32_t i = 1; i < r->n_bufs; i++)
		for (int side = 0; side < 2; side++) {
			r->dev->backend->read(
				r->bufs[i], side ? r->bufs[i]->bytes - GUARD : 0, guard, GUARD, &err);
			for (int j = 0; j < GUARD; j++)
				if (guard[j] != 0x5a)
					fail_msg(
						"the kernel wrote outside buffer %u, %s it", i, side ? "after" : "before");
		}
}

static uint64_t dense_bytes(const cx_desc *d)
{
	uint64_t n = 0;
	assert_true(cx_dtype_bytes(d->dtype, d->rank, d->dim, &n));
	return n;
}

/* Operand j: as the graph has it (its root's storage and strides), or dense. */
static void add_operand(rig *r, const step_values *v, uint32_t id, bool dense)
{
	cx_operand *o = &r->in[r->n_in++];
	const cx_node *n;
	*o = (cx_operand){.desc.dtype = CX_DTYPE_COUNT, .buf = CX_BUF_NONE};
	if (id == UINT32_MAX) return;
	n = &v->g->nodes[id];
	o->desc = n->desc;
	if (dense) {
		cx__desc_dense(&o->desc);
		o->buf = guarded(r, v->value[id], v->bytes[id]);
		o->off = GUARD;
		return;
	}
	o->buf = guarded(r, v->value[n->root], v->bytes[n->root]);
	o->off = GUARD + (uint64_t)n->view_off / (uint64_t)cx_dtype_get(n->desc.dtype)->block_elems *
						 (uint64_t)cx_dtype_get(n->desc.dtype)->block_bytes;
}

static void keys_of(const rig *r, cx_desc *in, cx_desc *out)
{
	for (uint32_t i = 0; i < r->n_in; i++) in[i] = r->in[i].desc;
	for (uint32_t i = 0; i < r->n_out; i++) out[i] = r->out[i].desc;
}

/* Buffers of operands and outputs for node n; false: inplace does not apply. */
static bool lay_out(
	rig *r, const step_values *v, const cx_node *n, uint32_t id, int inplace, bool dense)
{
	for (uint32_t j = 0; j < n->n_in; j++) {
		bool aliased = false;
		for (uint32_t o = 0; o < n->n_out; o++) aliased |= cx__ops[n->op].alias[o] == (int)j;
		add_operand(r, v, n->in[j], dense || aliased);
	}
	r->n_out = n->n_out;
	for (uint32_t o = 0; o < n->n_out; o++) {
		int alias = cx__ops[n->op].alias[o];
		cx_operand *y = &r->out[o];
		y->desc = v->g->nodes[id + o].desc;
		cx__desc_dense(&y->desc);
		y->off = GUARD;
		if (alias >= 0) {
			y->buf = r->in[alias].buf;
		} else if (o == 0 && inplace >= 0) {
			if ((uint32_t)inplace >= r->n_in || r->in[inplace].buf == CX_BUF_NONE ||
				!cx__desc_is_dense(&r->in[inplace].desc) || r->in[inplace].off != GUARD ||
				y->desc.rank != r->in[inplace].desc.rank ||
				memcmp(y->desc.dim, r->in[inplace].desc.dim, sizeof y->desc.dim) != 0 ||
				dense_bytes(&y->desc) != r->bufs[r->in[inplace].buf]->bytes - 2 * GUARD)
				return false;
			y->buf = r->in[inplace].buf;
		} else {
			y->buf = guarded(r, NULL, dense_bytes(&y->desc));
		}
	}
	return true;
}

static void drop(rig *r)
{
	for (uint32_t i = 0; i < r->n_bufs; i++) r->dev->backend->free(r->bufs[i]);
	*r = (rig){.dev = r->dev};
}

static void launch(
	rig *r, const cx_node *n, const cx_kernel *kernel, const cx_kernel_key *key, uint32_t id)
{
	const cx_backend *b = r->dev->backend;
	cx_err err = {0};
	cx_program *prog = NULL;
	cx_step step = {.kernel = kernel,
		.op = (cx_op)n->op,
		.attr = n->attr,
		.prog = n->prog,
		.n_in = r->n_in,
		.n_out = r->n_out,
		.in = r->in,
		.out = r->out,
		.node = id};
	cx_bindings binds;
	step.scratch_bytes = kernel->scratch ? kernel->scratch(r->dev, key) : 0;
	if (b->alloc(r->dev, step.scratch_bytes + GUARD, NULL, &r->bufs[0], &err) != CX_OK)
		fail_msg("%s", err.msg);
	for (int i = 0; i < GUARD; i += 8)
		b->write(r->bufs[0], step.scratch_bytes + (uint64_t)i, "\x5a\x5a\x5a\x5a\x5a\x5a\x5a\x5a",
			8, &err);
	binds = (cx_bindings){r->bufs, r->n_bufs};
	if (b->compile(r->dev, &step, 1, &binds, &prog, &err) != CX_OK)
		fail_msg("compile: %s", err.msg);
	if (b->submit(prog, 0, 1, &err) != CX_OK) fail_msg("submit: %s", err.msg);
	if (b->wait(r->dev, &err) != CX_OK) fail_msg("wait: %s", err.msg);
	b->discard(prog);
	check_guards(r);
	for (int i = 0; i < GUARD; i++) {
		char c = 0;
		b->read(r->bufs[0], step.scratch_bytes + (uint64_t)i, &c, 1, &err);
		if (c != 0x5a)
			fail_msg("%s wrote past its scratch of %llu bytes", kernel->name,
				(unsigned long long)step.scratch_bytes);
	}
}

void step_run(
	cx_device *dev, const step_values *v, uint32_t id, int inplace, int flags, step_result *res)
{
	const cx_node *n = &v->g->nodes[id];
	rig r = {.dev = dev};
	cx_desc in[MAX_IN], out[CX_MAX_OUT];
	cx_kernel_key key;
	cx_err err = {0};
	*res = (step_result){0};
	assert_true(n->n_in <= MAX_IN);
	for (int dense = flags & STEP_DENSE ? 1 : 0; dense < 2; dense++) {
		drop(&r);
		r.n_bufs = 1; /* the slab */
		if (!lay_out(&r, v, n, id, inplace, dense)) break;
		keys_of(&r, in, out);
		key = (cx_kernel_key){(cx_op)n->op, n->attr, n->prog, in, r.n_in, out, r.n_out};
		res->kernel = dev->backend->find(dev, &key);
		res->copied = dense;
		if (inplace >= 0 && res->kernel && !(res->kernel->inplace >> inplace & 1))
			res->kernel = NULL;
		if (res->kernel) break;
	}
	if (res->kernel) {
		launch(&r, n, res->kernel, &key, id);
		res->n_out = r.n_out;
		for (uint32_t o = 0; o < r.n_out; o++) {
			res->bytes[o] = dense_bytes(&r.out[o].desc);
			res->out[o] = calloc(1, res->bytes[o] + 64);
			if (dev->backend->read(
					r.bufs[r.out[o].buf], r.out[o].off, res->out[o], res->bytes[o], &err) != CX_OK)
				fail_msg("%s", err.msg);
		}
	}
	drop(&r);
}

void step_result_free(step_result *r)
{
	for (uint32_t o = 0; o < r->n_out; o++) free(r->out[o]);
	*r = (step_result){0};
}

/* ---- comparing ---- */

static double number(cx_dtype t, const void *p, int64_t i)
{
	if (t == CX_F32) return ((const float *)p)[i];
	return t == CX_F16 ? cx_f16_to_f32(((const uint16_t *)p)[i])
					   : cx_bf16_to_f32(((const uint16_t *)p)[i]);
}

double step_nmse(cx_dtype dtype, const void *want, const void *got, int64_t n)
{
	double err = 0, ref = 0;
	if (cx_dtype_get(dtype)->cls != CX_CLASS_FLOAT)
		return memcmp(want, got, (size_t)n * (size_t)cx_dtype_get(dtype)->block_bytes) == 0
				   ? 0
				   : INFINITY;
	for (int64_t i = 0; i < n; i++) {
		double a = number(dtype, want, i), b = number(dtype, got, i);
		if (isnan(a) && isnan(b)) continue;
		if (isinf(a) && a == b) continue;
		if (!isfinite(a) || !isfinite(b)) return INFINITY;
		err += (a - b) * (a - b);
		ref += a * a;
	}
	return err == 0 ? 0 : ref == 0 ? INFINITY : err / ref;
}

bool step_same(cx_dtype dtype, const void *a, const void *b, int64_t n, int64_t *at)
{
	size_t size = (size_t)cx_dtype_get(dtype)->block_bytes;
	bool is_float = cx_dtype_get(dtype)->cls == CX_CLASS_FLOAT;
	for (int64_t i = 0; i < n; i++) {
		if (memcmp((const char *)a + (size_t)i * size, (const char *)b + (size_t)i * size, size) ==
			0)
			continue;
		if (is_float && isnan(number(dtype, a, i)) && isnan(number(dtype, b, i))) continue;
		*at = i;
		return false;
	}
	return true;
}
