/* ref.c - the reference as a backend: host memory, every op, any strides, one thread, steps run
 * inside submit(). */
#include "backends/ref/ref.h"

#include <stdio.h>
#include <string.h>

typedef struct host_buffer {
	cx_buffer base;
	unsigned char *data;
	bool owned;
} host_buffer;

/* Steps with addresses resolved; everything in one arena. */
struct cx_program {
	cx_alloc alloc;
	cx_arena arena;
	cx__ref_call *calls; /* [n_steps] */
	uint32_t n_steps;
};

static const cx_alloc *alloc_of(const cx_device *dev)
{
	return &cx_runtime_config(dev->rt)->alloc;
}

static cx_status ref_open(cx_runtime *rt, int index, cx_device **out, cx_err *err)
{
	cx_device *dev;
	*out = NULL;
	if (index != 0)
		return CX_FAIL(err, CX_ERR_ARGUMENT, "backend ref has one device, there is no %d", index);
	dev = cx_calloc(&cx_runtime_config(rt)->alloc, 1, sizeof *dev);
	if (!dev) return CX_FAIL(err, CX_ERR_MEMORY, "no memory for device ref:0");
	dev->backend = &cx__backend_ref;
	dev->rt = rt;
	snprintf(dev->name, sizeof dev->name, "ref:0");
	*out = dev;
	return CX_OK;
}

static void ref_close(cx_device *dev)
{
	if (dev) cx_free(alloc_of(dev), dev, sizeof *dev);
}

static void ref_limits(const cx_device *dev, cx_limits *out)
{
	(void)dev;
	*out = (cx_limits){.alignment = 64, .max_buffer = INT64_MAX, .n_threads = 1, .maps_host = true};
}

/* In place only where element i of the result needs nothing but element i of the operands. */
#define INPLACE_MAP ((1u << CX_PROG_MAX_IN) - 1)
#define INPLACE_LEAF 0
#define INPLACE_META 0
#define INPLACE_VIEW 0
#define INPLACE_ROW 0
#define INPLACE_TILE 0
#define INPLACE_MOVE 0
#define INPLACE_SCAN 0
#define INPLACE_ATTN 0
#define INPLACE_LOSS 0
#define INPLACE_GEN 0
#define INPLACE_FUSED 0
static const cx_kernel kernels[CX_OP_COUNT] = {
#define CX_OP(op, n_min, n_max, n_out, attr, shape, grad, kind, ...)                               \
	[CX_OP_##op] = {.name = "cx__ref_" #op, .inplace = INPLACE_##kind, .scratch = cx__ref_scratch},
#include "graph/ops.def"
#undef CX_OP
};
/* Of the MAP kind, but it reads other elements, or has aliases of its own. */
static const cx_kernel no_inplace[] = {
	{.name = "cx__ref_rope", .scratch = cx__ref_scratch},
	{.name = "cx__ref_adamw", .scratch = cx__ref_scratch},
};

/* A program without reduction reads all operands at an index before it writes there. */
static const cx_kernel map_inplace = {
	.name = "cx__ref_map", .inplace = INPLACE_MAP, .scratch = cx__ref_scratch};

static const cx_kernel *ref_find(const cx_device *dev, const cx_kernel_key *key)
{
	(void)dev;
	if (!cx__ref_fns[key->op]) return NULL;
	if (key->op == CX_OP_rope) return &no_inplace[0];
	if (key->op == CX_OP_adamw) return &no_inplace[1];
	if (key->op == CX_OP_map && !((const cx_attr_map *)key->attr)->reduce) return &map_inplace;
	return &kernels[key->op];
}

/* ---- memory ---- */

static cx_status ref_alloc(
	cx_device *dev, uint64_t bytes, const void *host, cx_buffer **out, cx_err *err)
{
	host_buffer *b = cx_calloc(alloc_of(dev), 1, sizeof *b);
	*out = NULL;
	if (!b) return CX_FAIL(err, CX_ERR_MEMORY, "ref: no memory for a buffer");
	b->base = (cx_buffer){dev, bytes};
	b->owned = host == NULL;
	b->data = host               ? (unsigned char *)host
			  : bytes > SIZE_MAX ? NULL
								 : cx_calloc(alloc_of(dev), (size_t)bytes, 1);
	if (!b->data) {
		cx_free(alloc_of(dev), b, sizeof *b);
		return CX_FAIL(err, CX_ERR_MEMORY, "ref: no memory for a buffer of %llu bytes",
			(unsigned long long)bytes);
	}
	*out = &b->base;
	return CX_OK;
}

static void ref_free(cx_buffer *buf)
{
	host_buffer *b = (host_buffer *)buf;
	if (!b) return;
	if (b->owned) cx_free(alloc_of(buf->dev), b->data, (size_t)buf->bytes);
	cx_free(alloc_of(buf->dev), b, sizeof *b);
}

static cx_status check_range(const cx_buffer *buf, uint64_t off, uint64_t bytes, cx_err *err)
{
	if (off <= buf->bytes && bytes <= buf->bytes - off) return CX_OK;
	return CX_FAIL(err, CX_ERR_ARGUMENT, "ref: %llu bytes at %llu are outside a buffer of %llu",
		(unsigned long long)bytes, (unsigned long long)off, (unsigned long long)buf->bytes);
}

static cx_status ref_write(
	cx_buffer *buf, uint64_t off, const void *src, uint64_t bytes, cx_err *err)
{
	cx_status st = check_range(buf, off, bytes, err);
	if (st == CX_OK && bytes) memcpy(((host_buffer *)buf)->data + off, src, (size_t)bytes);
	return st;
}

static cx_status ref_read(cx_buffer *buf, uint64_t off, void *dst, uint64_t bytes, cx_err *err)
{
	cx_status st = check_range(buf, off, bytes, err);
	if (st == CX_OK && bytes) memcpy(dst, ((host_buffer *)buf)->data + off, (size_t)bytes);
	return st;
}

/* ---- programs ---- */

static cx__ref_arg *resolve(
	cx_arena *arena, const cx_operand *ops, uint32_t n, const cx_bindings *binds)
{
	cx__ref_arg *args = cx_arena_array(arena, n, sizeof *args);
	for (uint32_t i = 0; args && i < n; i++) {
		args[i].d = ops[i].desc;
		if (ops[i].buf == CX_BUF_NONE) args[i].d.dtype = CX_DTYPE_COUNT;
		else args[i].p = ((host_buffer *)binds->bufs[ops[i].buf])->data + ops[i].off;
	}
	return args;
}

static bool keep_step(cx_program *prog, cx__ref_call *c, const cx_step *s, const cx_bindings *binds)
{
	const cx_attr_info *attr = &cx__attrs[cx__ops[s->op].attr];
	c->op = s->op;
	c->n_in = s->n_in;
	c->n_out = s->n_out;
	c->in = resolve(&prog->arena, s->in, s->n_in, binds);
	c->out = resolve(&prog->arena, s->out, s->n_out, binds);
	c->attr = s->attr ? cx_arena_memdup(&prog->arena, s->attr, attr->size) : NULL;
	c->prog = s->prog ? cx_arena_memdup(&prog->arena, s->prog, sizeof *s->prog) : NULL;
	if (s->scratch_bytes)
		c->scratch = ((host_buffer *)binds->bufs[CX_BUF_SLAB])->data + s->scratch_off;
	return c->in && c->out && (c->attr || !s->attr) && (c->prog || !s->prog);
}

static void ref_discard(cx_program *prog)
{
	cx_alloc alloc;
	if (!prog) return;
	alloc = prog->alloc;
	cx_arena_deinit(&prog->arena);
	cx_free(&alloc, prog, sizeof *prog);
}

static cx_status ref_compile(cx_device *dev, const cx_step *steps, uint32_t n_steps,
	const cx_bindings *binds, cx_program **out, cx_err *err)
{
	cx_program *prog = cx_calloc(alloc_of(dev), 1, sizeof *prog);
	*out = NULL;
	if (!prog) goto fail;
	prog->alloc = *alloc_of(dev);
	cx_arena_init(&prog->arena, &prog->alloc);
	prog->n_steps = n_steps;
	prog->calls = cx_arena_array(&prog->arena, n_steps, sizeof *prog->calls);
	if (!prog->calls) goto fail;
	for (uint32_t i = 0; i < n_steps; i++)
		if (!keep_step(prog, &prog->calls[i], &steps[i], binds)) goto fail;
	*out = prog;
	return CX_OK;
fail:
	ref_discard(prog);
	return CX_FAIL(err, CX_ERR_MEMORY, "ref: no memory for a program of %u steps", n_steps);
}

static cx_status ref_submit(cx_program *prog, uint32_t first, uint32_t n, cx_err *err)
{
	if (first > prog->n_steps || n > prog->n_steps - first)
		return CX_FAIL(err, CX_ERR_ARGUMENT, "ref: steps %u..+%u of %u", first, n, prog->n_steps);
	for (uint32_t i = first; i < first + n; i++) cx__ref_fns[prog->calls[i].op](&prog->calls[i]);
	return CX_OK;
}

static cx_status ref_wait(cx_device *dev, cx_err *err)
{
	(void)dev;
	(void)err;
	return CX_OK;
}

const cx_backend cx__backend_ref = {"ref", ref_open, ref_close, ref_limits, ref_find, ref_alloc,
	ref_free, ref_write, ref_read, ref_compile, ref_submit, ref_wait, ref_discard};
