/* faulty.c - a cpu device with one broken kernel; see faulty.h. */
#include "tests/faulty.h"
#include "graph/diff.h"
#include "graph/quant.h"
#include "tests/rng.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

const char *const fault_names[FAULT_COUNT] = {
#define X(id, text) text,
	FAULT_KINDS(X)
#undef X
};

static cx_backend faulty;
static const cx_backend *whole;
static fault *broken;

/* ---- which steps ---- */

static bool same_type(const cx_desc *a, const cx_desc *b)
{
	return a->dtype == b->dtype && (a->dtype == CX_DTYPE_COUNT || cx__desc_same_dims(a, b));
}

bool fault_hits(const fault *f, cx_op op, const void *attr, const cx_prog *prog, uint32_t n_in,
	uint32_t n_out, const cx_desc *in, const cx_desc *out)
{
	if (op == f->op && f->any) return true;
	if (op != f->op || n_in != f->n_in || n_out != f->n_out) return false;
	if (!cx__attr_equal(cx__ops[op].attr, attr, f->attr)) return false;
	if (!prog != !f->prog || (prog && memcmp(prog, f->prog, sizeof *prog) != 0)) return false;
	for (uint32_t j = 0; j < n_in; j++)
		if (!same_type(&in[j], &f->in[j])) return false;
	for (uint32_t o = 0; o < n_out; o++)
		if (!same_type(&out[o], &f->out[o])) return false;
	return true;
}

static bool hits(const cx_step *s)
{
	cx_desc in[64], out[CX_MAX_OUT];
	if (!broken->on || s->n_in > 64) return false;
	for (uint32_t j = 0; j < s->n_in; j++) in[j] = s->in[j].desc;
	for (uint32_t o = 0; o < s->n_out; o++) out[o] = s->out[o].desc;
	return fault_hits(broken, s->op, s->attr, s->prog, s->n_in, s->n_out, in, out);
}

/* ---- what happens to an output ---- */

static uint64_t span_of(const cx_operand *o)
{
	int64_t last = 0;
	for (int i = 0; i < o->desc.rank; i++) {
		if (o->desc.dim[i] == 0) return 0;
		last += (o->desc.dim[i] - 1) * o->desc.stride[i];
	}
	return (uint64_t)(last + 1) * (uint64_t)cx_dtype_get(o->desc.dtype)->block_bytes;
}

static int64_t offset_of(const cx_desc *d, int64_t i)
{
	int64_t off = 0;
	for (int k = d->rank - 1; k >= 0; k--) {
		off += i % d->dim[k] * d->stride[k];
		i /= d->dim[k];
	}
	return off;
}

static void put(cx_dtype t, unsigned char *p, double v)
{
	float f = (float)v;
	uint16_t h = t == CX_F16 ? cx_f32_to_f16(f) : cx_f32_to_bf16(f);
	if (t == CX_F32) memcpy(p, &f, 4);
	else memcpy(p, &h, 2);
}

static double get(cx_dtype t, const unsigned char *p)
{
	float f;
	uint16_t h;
	memcpy(&h, p, 2);
	if (t == CX_F16) return cx_f16_to_f32(h);
	if (t == CX_BF16) return cx_bf16_to_f32(h);
	memcpy(&f, p, 4);
	return f;
}

static double few_bits(cx_dtype t, double v)
{
	int e, bits = t == CX_F32 ? 8 : t == CX_F16 ? 6 : 4;
	double m = frexp(v, &e);
	return isfinite(v) ? ldexp(trunc(ldexp(m, bits)), e - bits) : v;
}

/* Dense elements: was before the step, y after it. */
static void corrupt(const cx_desc *d, const unsigned char *was, const unsigned char *right,
	unsigned char *y, int64_t n)
{
	size_t size = (size_t)cx_dtype_get(d->dtype)->block_bytes;
	bool is_float = cx_dtype_get(d->dtype)->cls == CX_CLASS_FLOAT;
	int64_t cols = d->rank ? d->dim[d->rank - 1] : 1, rows = n / cols;
	cx_rng rng = cx__rng_make(broken->seed, 3);
	int64_t one = cx__rng_int(&rng, 0, n - 1);
	for (int64_t i = 0; i < n; i++) {
		unsigned char *p = y + (size_t)i * size;
		switch (broken->kind) {
		case FAULT_SIGN:
			if (is_float) put(d->dtype, p, -get(d->dtype, p));
			else p[0] ^= 1;
			break;
		case FAULT_TAIL:
			if (i == n - 1 && n > 1) memcpy(p, right + (size_t)(i - 1) * size, size);
			break;
		case FAULT_STRIDE:
			memcpy(p, right + (size_t)(i % rows * cols + i / rows) * size, size);
			break;
		case FAULT_HALF:
			if (is_float) put(d->dtype, p, few_bits(d->dtype, get(d->dtype, p)));
			break;
		case FAULT_MISSING:
			if (i == one) memcpy(p, was + (size_t)i * size, size);
			break;
		case FAULT_STALE:
			memcpy(p, was + (size_t)i * size, size);
			break;
		case FAULT_BARRIER:
			if (i >= (n + 1) / 2) memcpy(p, was + (size_t)i * size, size);
			break;
		case FAULT_SCALE:
			if (is_float) put(d->dtype, p, 1.01 * get(d->dtype, p));
			break;
		case FAULT_NAN:
			if (i == one && is_float) put(d->dtype, p, NAN);
			else if (i == one) p[0] ^= 1;
			break;
		case FAULT_INDEX:
			if (i / cols == one / cols)
				memcpy(p, right + (size_t)((one / cols + 1) % rows * cols + i % cols) * size, size);
			break;
		default:
			break;
		}
	}
}

static double tolerance(cx_op op, cx_dtype t)
{
	cx_tol tol = cx__ops[op].tol;
	return t == CX_F16 ? tol.f16 : t == CX_BF16 ? tol.bf16 : tol.f32;
}

static void pack(const cx_operand *o, const unsigned char *span, unsigned char *dense, bool back)
{
	size_t size = (size_t)cx_dtype_get(o->desc.dtype)->block_bytes;
	int64_t n = cx__desc_elems(&o->desc);
	for (int64_t i = 0; i < n; i++) {
		unsigned char *at = (unsigned char *)span + (size_t)offset_of(&o->desc, i) * size;
		if (back) memcpy(at, dense + (size_t)i * size, size);
		else memcpy(dense + (size_t)i * size, at, size);
	}
}

/* ---- programs ---- */

typedef struct broken_step {
	cx_step step;
	cx_operand out[CX_MAX_OUT];
	bool hit;
	unsigned char *was[CX_MAX_OUT], *right[CX_MAX_OUT]; /* dense */
} broken_step;

typedef struct program {
	cx_device *dev;
	cx_program *good, *bad; /* bad: with the wrong attributes */
	broken_step *steps;
	uint32_t n;
	cx_buffer **bufs;
	char (*attr)[256]; /* of the bad program's steps */
} program;

/* Reads (and with `to` writes back) an output as dense elements. */
static cx_status transfer(program *p, const cx_operand *o, unsigned char *dense, bool back)
{
	uint64_t bytes = span_of(o);
	unsigned char *span;
	cx_status st;
	if (bytes == 0) return CX_OK;
	span = malloc(bytes + 8);
	st = whole->read(p->bufs[o->buf], o->off, span, bytes, NULL);
	if (st == CX_OK) {
		pack(o, span, dense, back);
		if (back) st = whole->write(p->bufs[o->buf], o->off, span, bytes, NULL);
	}
	free(span);
	return st;
}

static cx_status break_outputs(program *p, broken_step *s)
{
	cx_status st = CX_OK;
	for (uint32_t o = 0; o < s->step.n_out && st == CX_OK; o++) {
		const cx_desc *d = &s->out[o].desc;
		int64_t n = cx__desc_elems(d);
		size_t bytes = (size_t)n * (size_t)cx_dtype_get(d->dtype)->block_bytes;
		double tol = tolerance(s->step.op, d->dtype);
		unsigned char *y = malloc(bytes + 8);
		cx_metric m;
		if (broken->kind == FAULT_EPSILON) {
			st = transfer(p, &s->out[o], y, false);
		} else {
			memcpy(y, s->right[o], bytes);
			if (n > 0) corrupt(d, s->was[o], s->right[o], y, n);
			st = transfer(p, &s->out[o], y, true);
		}
		cx__metric(d->dtype, n, s->right[o], y, tol, 0, &m);
		broken->n_effect += !m.inside;
		free(y);
	}
	return st;
}

static cx_status read_outputs(program *p, broken_step *s, unsigned char **to)
{
	cx_status st = CX_OK;
	for (uint32_t o = 0; o < s->step.n_out && st == CX_OK; o++)
		st = transfer(p, &s->out[o], to[o], false);
	return st;
}

static cx_status faulty_submit(cx_program *prog, uint32_t first, uint32_t n, cx_err *err)
{
	program *p = (program *)prog;
	cx_status st = CX_OK;
	for (uint32_t i = first; i < first + n && st == CX_OK; i++) {
		broken_step *s = &p->steps[i];
		if (s->hit) st = read_outputs(p, s, s->was);
		if (st == CX_OK) st = whole->submit(p->good, i, 1, err);
		if (st == CX_OK) st = whole->wait(p->dev, err);
		if (!s->hit || st != CX_OK) continue;
		st = read_outputs(p, s, s->right);
		if (st == CX_OK && p->bad) {
			st = whole->submit(p->bad, i, 1, err);
			if (st == CX_OK) st = whole->wait(p->dev, err);
		}
		if (st == CX_OK) st = break_outputs(p, s);
	}
	return st;
}

static void faulty_discard(cx_program *prog)
{
	program *p = (program *)prog;
	for (uint32_t i = 0; i < p->n; i++)
		for (uint32_t o = 0; o < CX_MAX_OUT; o++) {
			free(p->steps[i].was[o]);
			free(p->steps[i].right[o]);
		}
	if (p->good) whole->discard(p->good);
	if (p->bad) whole->discard(p->bad);
	free(p->steps);
	free(p->attr);
	free(p->bufs);
	free(p);
}

/* Steps with a wrong epsilon where they are hit. */
static cx_status compile_wrong(program *p, const cx_step *steps, const cx_bindings *b, cx_err *err)
{
	cx_step *copy = malloc((p->n + 1) * sizeof *copy);
	char(*attr)[256] = p->attr = calloc(p->n + 1, sizeof *attr);
	cx_status st;
	for (uint32_t i = 0; i < p->n; i++) {
		const cx_attr_info *info = &cx__attrs[cx__ops[steps[i].op].attr];
		copy[i] = steps[i];
		if (!p->steps[i].hit || info->size > sizeof attr[i]) continue;
		memcpy(attr[i], steps[i].attr, info->size);
		for (uint16_t k = 0; k < info->n_fields; k++)
			if (strcmp(info->fields[k].name, "eps") == 0) {
				float eps;
				memcpy(&eps, attr[i] + info->fields[k].offset, sizeof eps);
				eps = 0.05f + 100 * eps;
				memcpy(attr[i] + info->fields[k].offset, &eps, sizeof eps);
			}
		copy[i].attr = attr[i];
	}
	st = whole->compile(p->dev, copy, p->n, b, &p->bad, err);
	free(copy);
	return st;
}

static cx_status faulty_compile(cx_device *dev, const cx_step *steps, uint32_t n,
	const cx_bindings *binds, cx_program **out, cx_err *err)
{
	program *p = calloc(1, sizeof *p);
	bool any = false;
	cx_status st;
	p->dev = dev;
	p->n = n;
	p->steps = calloc(n + 1, sizeof *p->steps);
	p->bufs = malloc((binds->n_bufs + 1) * sizeof *p->bufs);
	memcpy(p->bufs, binds->bufs, binds->n_bufs * sizeof *p->bufs);
	for (uint32_t i = 0; i < n; i++) {
		broken_step *s = &p->steps[i];
		s->step = steps[i];
		s->hit = n >= broken->min_steps && hits(&steps[i]);
		any |= s->hit;
		for (uint32_t o = 0; s->hit && o < steps[i].n_out; o++) {
			size_t bytes = (size_t)cx__desc_bytes(&steps[i].out[o].desc) + 8;
			s->out[o] = steps[i].out[o];
			s->was[o] = calloc(bytes, 1);
			s->right[o] = calloc(bytes, 1);
		}
	}
	st = whole->compile(dev, steps, n, binds, &p->good, err);
	if (st == CX_OK && any && broken->kind == FAULT_EPSILON)
		st = compile_wrong(p, steps, binds, err);
	if (st == CX_OK) *out = (cx_program *)p;
	else faulty_discard((cx_program *)p);
	return st;
}

cx_device *faulty_open(cx_runtime *rt, fault *what)
{
	cx_device *dev;
	if (cx_device_open(rt, "cpu", 0, &dev, NULL) != CX_OK) return NULL;
	broken = what;
	whole = dev->backend;
	faulty = *whole;
	faulty.name = "faulty";
	faulty.compile = faulty_compile;
	faulty.submit = faulty_submit;
	faulty.discard = faulty_discard;
	dev->backend = &faulty;
	strcpy(dev->name, "faulty:0");
	return dev;
}
