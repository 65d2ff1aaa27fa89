/* null.c - the template for a backend: real memory, a kernel for every op, steps accepted, nothing
 * computed.
 *
 * Outputs hold whatever their memory held. Its use: plans can be built, explained, packed and timed
 * without the arithmetic, so what is left is the cost of the runtime itself. README.md beside this
 * file is the manual for making another backend of it; the comments here say what each function
 * owes to its caller. */
#include "graph/backend.h"

#include <stdio.h>
#include <string.h>

extern const cx_backend cx__backend_null;

/* A backend's structs begin with the public ones, and add what the driver needs. */
typedef struct null_buffer {
	cx_buffer base;
	unsigned char *data;
	bool owned;
} null_buffer;

struct cx_program {
	cx_device *dev;
	uint32_t n_steps; /* a real one keeps a copy of what it needs of each step */
};

/* All memory of the host comes through the runtime's allocator, so that tests can make it fail. */
static const cx_alloc *alloc_of(const cx_device *dev)
{
	return &cx_runtime_config(dev->rt)->alloc;
}

/* *out is NULL on failure. The error names the backend and the index. */
static cx_status null_open(cx_runtime *rt, int index, cx_device **out, cx_err *err)
{
	cx_device *dev;
	*out = NULL;
	if (index != 0)
		return CX_FAIL(err, CX_ERR_ARGUMENT, "backend null has one device, there is no %d", index);
	dev = cx_calloc(&cx_runtime_config(rt)->alloc, 1, sizeof *dev);
	if (!dev) return CX_FAIL(err, CX_ERR_MEMORY, "no memory for device null:0");
	dev->backend = &cx__backend_null;
	dev->rt = rt;
	snprintf(dev->name, sizeof dev->name, "null:0");
	*out = dev;
	return CX_OK;
}

static void null_close(cx_device *dev)
{
	if (dev) cx_free(alloc_of(dev), dev, sizeof *dev);
}

/* Numbers only. What the device can run is find()'s to say. */
static void null_limits(const cx_device *dev, cx_limits *out)
{
	(void)dev;
	*out = (cx_limits){.alignment = 64, .max_buffer = INT64_MAX, .n_threads = 1, .maps_host = true};
}

/* One kernel per row of ops.def. A real backend starts with none and grows; see README.md. */
static const cx_kernel kernels[CX_OP_COUNT] = {
#define CX_OP(op, ...) [CX_OP_##op] = {.name = "null_" #op},
#include "graph/ops.def"
#undef CX_OP
};

/* The kernel that will run for exactly this key, or NULL. Leaves and proj are never steps. */
static const cx_kernel *null_find(const cx_device *dev, const cx_kernel_key *key)
{
	cx_kind kind = cx__ops[key->op].kind;
	(void)dev;
	return kind == CX_KIND_LEAF || kind == CX_KIND_META ? NULL : &kernels[key->op];
}

/* Zeros, or the host's memory without a copy if limits() said maps_host. */
static cx_status null_alloc(
	cx_device *dev, uint64_t bytes, const void *host, cx_buffer **out, cx_err *err)
{
	null_buffer *b = cx_calloc(alloc_of(dev), 1, sizeof *b);
	*out = NULL;
	if (!b) return CX_FAIL(err, CX_ERR_MEMORY, "null: no memory for a buffer");
	b->base = (cx_buffer){dev, bytes};
	b->owned = host == NULL;
	b->data = host               ? (unsigned char *)host
			  : bytes > SIZE_MAX ? NULL
								 : cx_calloc(alloc_of(dev), (size_t)bytes, 1);
	if (!b->data) {
		cx_free(alloc_of(dev), b, sizeof *b);
		return CX_FAIL(err, CX_ERR_MEMORY, "null: no memory for a buffer of %llu bytes",
			(unsigned long long)bytes);
	}
	*out = &b->base;
	return CX_OK;
}

static void null_free(cx_buffer *buf)
{
	null_buffer *b = (null_buffer *)buf;
	if (!b) return;
	if (b->owned) cx_free(alloc_of(buf->dev), b->data, (size_t)buf->bytes);
	cx_free(alloc_of(buf->dev), b, sizeof *b);
}

static cx_status check_range(const cx_buffer *buf, uint64_t off, uint64_t bytes, cx_err *err)
{
	if (off <= buf->bytes && bytes <= buf->bytes - off) return CX_OK;
	return CX_FAIL(err, CX_ERR_ARGUMENT, "null: %llu bytes at %llu are outside a buffer of %llu",
		(unsigned long long)bytes, (unsigned long long)off, (unsigned long long)buf->bytes);
}

/* Both wait for the device if they must: after write() src is the caller's again, after read() dst
 * is filled. */
static cx_status null_write(
	cx_buffer *buf, uint64_t off, const void *src, uint64_t bytes, cx_err *err)
{
	cx_status st = check_range(buf, off, bytes, err);
	if (st == CX_OK && bytes) memcpy(((null_buffer *)buf)->data + off, src, (size_t)bytes);
	return st;
}

static cx_status null_read(cx_buffer *buf, uint64_t off, void *dst, uint64_t bytes, cx_err *err)
{
	cx_status st = check_range(buf, off, bytes, err);
	if (st == CX_OK && bytes) memcpy(dst, ((null_buffer *)buf)->data + off, (size_t)bytes);
	return st;
}

/* All the work that can be done before a run is done here: resolve addresses, record, capture,
 * choose sizes. */
static cx_status null_compile(cx_device *dev, const cx_step *steps, uint32_t n_steps,
	const cx_bindings *binds, cx_program **out, cx_err *err)
{
	cx_program *prog = cx_calloc(alloc_of(dev), 1, sizeof *prog);
	(void)steps;
	(void)binds;
	*out = NULL;
	if (!prog)
		return CX_FAIL(err, CX_ERR_MEMORY, "null: no memory for a program of %u steps", n_steps);
	prog->dev = dev;
	prog->n_steps = n_steps;
	*out = prog;
	return CX_OK;
}

/* Allocates nothing. A real one launches steps first..first+n-1 in order. */
static cx_status null_submit(cx_program *prog, uint32_t first, uint32_t n, cx_err *err)
{
	if (first > prog->n_steps || n > prog->n_steps - first)
		return CX_FAIL(err, CX_ERR_ARGUMENT, "null: steps %u..+%u of %u", first, n, prog->n_steps);
	return CX_OK;
}

/* Until all that was submitted has run; an error of the device comes out here and sets dev->failed.
 */
static cx_status null_wait(cx_device *dev, cx_err *err)
{
	(void)dev;
	(void)err;
	return CX_OK;
}

static void null_discard(cx_program *prog)
{
	if (prog) cx_free(alloc_of(prog->dev), prog, sizeof *prog);
}

const cx_backend cx__backend_null = {"null", null_open, null_close, null_limits, null_find,
	null_alloc, null_free, null_write, null_read, null_compile, null_submit, null_wait,
	null_discard};
