/* program.c - steps to launches: kernels with their arguments set, in order; and starting them.
 *
 * Parameters of all launches lie in one buffer, which each kernel is given with the number of its
 * row; what compile() made for kernels to read (rotary frequencies, map programs) lies in another.
 */
#include "backends/opencl/opencl.h"

#include <string.h>

typedef struct launch {
	int kind;
	cl_kernel kernel;
	cl_mem mem[2];
	cl_uint n_dims;
	size_t grid[3], group[3];
	size_t off[2], bytes;
	uint32_t step;
} launch;

struct cx_program {
	cx_cl_device *dev;
	cx_arena arena;
	launch *launches; /* [n_launches], by step */
	uint32_t *first;  /* [n_steps + 1] into launches */
	uint32_t n_steps, n_launches;
	cl_mem params, consts;
};

void cx__cl_discard(cx_program *prog)
{
	cx_cl_device *dev;
	if (!prog) return;
	dev = prog->dev;
	if (dev->queue && !dev->base.failed) dev->cl.Finish(dev->queue);
	if (dev->timing && !dev->base.failed) dev->cl.Finish(dev->times);
	for (uint32_t i = 0; prog->launches && i < prog->n_launches; i++)
		if (prog->launches[i].kernel) dev->cl.ReleaseKernel(prog->launches[i].kernel);
	if (prog->params) dev->cl.ReleaseMemObject(prog->params);
	if (prog->consts) dev->cl.ReleaseMemObject(prog->consts);
	cx_arena_deinit(&prog->arena);
	cx_free(cx__cl_alloc_of(dev), prog, sizeof *prog);
}

static cx_status make_buffer(
	cx_cl_device *dev, const void *data, size_t bytes, cl_mem *out, cx_err *err)
{
	static const uint32_t nothing = 0;
	cl_int code = CL_SUCCESS;
	*out = dev->cl.CreateBuffer(dev->context, CL_MEM_READ_ONLY | CL_MEM_COPY_HOST_PTR,
		bytes ? bytes : sizeof nothing, (void *)(uintptr_t)(bytes ? data : &nothing), &code);
	return *out ? CX_OK : cx__cl_fail(dev, "clCreateBuffer", code, err);
}

/* All parameter rows into one buffer. */
static cx_status make_params(cx_program *prog, const cx_dk_builder *b, cx_err *err)
{
	const cx_alloc *alloc = cx__cl_alloc_of(prog->dev);
	size_t bytes = (size_t)b->n_drafts * sizeof(struct cx_kparams);
	struct cx_kparams *rows = cx_calloc(alloc, b->n_drafts + 1, sizeof *rows);
	cx_status st;
	uint32_t i = 0;
	if (!rows)
		return CX_FAIL(err, CX_ERR_MEMORY, "%s: no memory for parameters", prog->dev->base.name);
	for (const cx_dk_draft *d = b->first; d; d = d->next) rows[i++] = d->p;
	st = make_buffer(prog->dev, rows, bytes, &prog->params, err);
	cx_free(alloc, rows, (b->n_drafts + 1) * sizeof *rows);
	return st;
}

static cl_mem mem_of(const cx_buffer *buf)
{
	return buf ? ((const cx_cl_buffer *)buf)->mem : NULL;
}

static cx_status set_args(
	cx_program *prog, const cx_dk_draft *d, cl_kernel k, cl_uint row, cx_err *err)
{
	cx_cl_device *dev = prog->dev;
	cl_int code = CL_SUCCESS;
	cl_uint n = d->n_args;
	for (cl_uint i = 0; i < n && code == CL_SUCCESS; i++) {
		cl_mem mem = d->is_const >> i & 1 ? prog->consts : mem_of(d->buf[i]);
		code = dev->cl.SetKernelArg(k, i, sizeof mem, mem ? &mem : NULL);
	}
	if (code == CL_SUCCESS) code = dev->cl.SetKernelArg(k, n, sizeof prog->params, &prog->params);
	if (code == CL_SUCCESS) code = dev->cl.SetKernelArg(k, n + 1, sizeof row, &row);
	return code == CL_SUCCESS ? CX_OK : cx__cl_fail(dev, "clSetKernelArg", code, err);
}

static cx_status finish_launch(
	cx_program *prog, const cx_dk_draft *d, launch *l, cl_uint row, cx_err *err)
{
	cx_cl_device *dev = prog->dev;
	cl_program p = NULL;
	cl_int code = CL_SUCCESS;
	cx_status st;
	l->kind = d->kind;
	for (uint32_t i = 0; d->kind == CX_DK_KERNEL && i < d->n_dims; i++)
		if (d->grid[i] == 0) l->kind = CX_DK_NOTHING;
	l->n_dims = d->n_dims;
	memcpy(l->grid, d->grid, sizeof l->grid);
	memcpy(l->group, d->group, sizeof l->group);
	for (int i = 0; i < 2; i++) l->mem[i] = mem_of(d->buf[i]);
	memcpy(l->off, d->off, sizeof l->off);
	l->bytes = d->bytes;
	if (l->kind != CX_DK_KERNEL) return CX_OK;
	if ((st = cx__cl_build(dev, d->family, d->defines, &p, err)) != CX_OK) return st;
	l->kernel = dev->cl.CreateKernel(p, d->name, &code);
	if (!l->kernel) return cx__cl_fail(dev, "clCreateKernel", code, err);
	return set_args(prog, d, l->kernel, row, err);
}

/* Drafts of all steps; first[] counts those before each. */
static void draft_steps(cx_program *prog, cx_dk_builder *b, const cx_step *steps)
{
	for (uint32_t i = 0; i < prog->n_steps && b->st == CX_OK; i++) {
		b->step = &steps[i];
		prog->first[i] = b->n_drafts;
		((const cx_dk_kernel *)steps[i].kernel)->plan(b, &steps[i]);
	}
	prog->first[prog->n_steps] = b->n_drafts;
}

cx_status cx__cl_compile(cx_device *base, const cx_step *steps, uint32_t n_steps,
	const cx_bindings *binds, cx_program **out, cx_err *err)
{
	cx_cl_device *dev = (cx_cl_device *)base;
	cx_arena drafts;
	cx_dk_builder b = {.dev = &dev->dk, .binds = binds, .arena = &drafts, .err = err};
	cx_program *prog;
	uint32_t row = 0;
	cx_status st;
	*out = NULL;
	if ((st = cx__cl_usable(dev, err)) != CX_OK) return st;
	prog = cx_calloc(cx__cl_alloc_of(dev), 1, sizeof *prog);
	if (!prog) return CX_FAIL(err, CX_ERR_MEMORY, "%s: no memory for a program", base->name);
	prog->dev = dev;
	prog->n_steps = n_steps;
	cx_arena_init(&prog->arena, cx__cl_alloc_of(dev));
	cx_arena_init(&drafts, cx__cl_alloc_of(dev));
	b.last = &b.first;
	prog->first = cx_arena_array(&prog->arena, (size_t)n_steps + 1, sizeof *prog->first);
	if (!prog->first) goto no_memory;
	draft_steps(prog, &b, steps);
	if ((st = b.st) != CX_OK) goto done;
	prog->launches = cx_arena_array(&prog->arena, b.n_drafts, sizeof *prog->launches);
	if (!prog->launches) goto no_memory;
	prog->n_launches = b.n_drafts;
	if ((st = make_params(prog, &b, err)) != CX_OK) goto done;
	if ((st = make_buffer(dev, b.consts, b.n_consts, &prog->consts, err)) != CX_OK) goto done;
	for (const cx_dk_draft *d = b.first; d && st == CX_OK; d = d->next, row++)
		st = finish_launch(prog, d, &prog->launches[row], row, err);
	goto done;
no_memory:
	st =
		CX_FAIL(err, CX_ERR_MEMORY, "%s: no memory for a program of %u steps", base->name, n_steps);
done:
	cx_free(cx__cl_alloc_of(dev), b.consts, b.cap_consts);
	cx_arena_deinit(&drafts);
	if (st == CX_OK) *out = prog;
	else cx__cl_discard(prog);
	return st;
}

/* event: NULL, or where to leave that of the launch. */
static cx_status start(
	cx_cl_device *dev, cl_command_queue queue, const launch *l, cl_event *event, cx_err *err)
{
	static const cl_uchar zero = 0;
	const char *call = "clEnqueueNDRangeKernel";
	cl_int code;
	if (l->kind == CX_DK_NOTHING) return CX_OK;
	if (l->kind == CX_DK_KERNEL) {
		code = dev->cl.EnqueueNDRangeKernel(
			queue, l->kernel, l->n_dims, NULL, l->grid, l->group, 0, NULL, event);
	} else if (l->kind == CX_DK_COPY) {
		call = "clEnqueueCopyBuffer";
		code = dev->cl.EnqueueCopyBuffer(
			queue, l->mem[1], l->mem[0], l->off[1], l->off[0], l->bytes, 0, NULL, event);
	} else {
		call = "clEnqueueFillBuffer";
		code = dev->cl.EnqueueFillBuffer(
			queue, l->mem[0], &zero, sizeof zero, l->off[0], l->bytes, 0, NULL, event);
	}
	return code == CL_SUCCESS ? CX_OK : cx__cl_fail(dev, call, code, err);
}

/* One step, through the queue that keeps times, behind all that the other one has to do. */
static cx_status submit_timed(cx_program *prog, uint32_t step, cx_err *err)
{
	cx_cl_device *dev = prog->dev;
	cl_int code = dev->cl.Finish(dev->queue);
	cx_status st = CX_OK;
	if (code != CL_SUCCESS) return cx__cl_fail(dev, "clFinish", code, err);
	cx__cl_drop_events(dev);
	dev->timing = true;
	for (uint32_t i = prog->first[step]; i < prog->first[step + 1] && st == CX_OK; i++) {
		cl_event *event = dev->event[0] ? &dev->event[1] : &dev->event[0];
		if (*event) dev->cl.ReleaseEvent(*event); /* another came after it */
		*event = NULL;
		st = start(dev, dev->times, &prog->launches[i], event, err);
	}
	if (st != CX_OK) return st;
	code = dev->cl.Flush(dev->times);
	return code == CL_SUCCESS ? CX_OK : cx__cl_fail(dev, "clFlush", code, err);
}

cx_status cx__cl_submit(cx_program *prog, uint32_t first, uint32_t n, cx_err *err)
{
	cx_cl_device *dev = prog->dev;
	cx_status st = cx__cl_usable(dev, err);
	cl_int code;
	if (st != CX_OK) return st;
	if (first > prog->n_steps || n > prog->n_steps - first)
		return CX_FAIL(err, CX_ERR_ARGUMENT, "%s: steps %u..+%u of %u", dev->base.name, first, n,
			prog->n_steps);
	if (dev->base.timed && n == 1 && dev->times) return submit_timed(prog, first, err);
	for (uint32_t i = prog->first[first]; i < prog->first[first + n] && st == CX_OK; i++)
		st = start(dev, dev->queue, &prog->launches[i], NULL, err);
	if (st != CX_OK) return st;
	code = dev->cl.Flush(dev->queue);
	return code == CL_SUCCESS ? CX_OK : cx__cl_fail(dev, "clFlush", code, err);
}
