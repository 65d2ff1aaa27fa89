/* program.c - steps to launches, and those of a whole program to one captured graph.
 *
 * Buffers keep their addresses for as long as a program lives, and parameters are copied into the
 * graph when it is captured: a replay needs no work of the host but its launch. Parts of a program
 * (profiling, single steps) are launched one by one. */
#include "backends/cuda/cuda.h"

#include <string.h>

enum { MAX_GRID_YZ = 65535 };

typedef struct launch {
	int kind;
	cx_cu_function function;
	unsigned grid[3], group[3]; /* groups; items of a group */
	cx_cu_ptr at[CX_DK_ARGS];   /* buffers of arguments; copy: to, from; fill: to */
	uint32_t n_args;
	size_t bytes;
	struct cx_kparams p;
} launch;

struct cx_program {
	cx_cu_dev *dev;
	cx_arena arena;
	launch *launches; /* [n_launches], by step */
	uint32_t *first;  /* [n_steps + 1] into launches */
	uint32_t n_steps, n_launches;
	cx_cu_ptr consts;
	cx_cu_exec graph; /* of all of it; NULL: nothing to do */
};

void cx__cu_discard(cx_program *prog)
{
	cx_cu_dev *dev;
	if (!prog) return;
	dev = prog->dev;
	dev->cu.CtxSetCurrent(dev->context);
	if (!dev->base.failed) dev->cu.StreamSynchronize(dev->stream);
	if (prog->graph) dev->cu.GraphExecDestroy(prog->graph);
	cx__cu_mem_free(dev, prog->consts);
	cx_arena_deinit(&prog->arena);
	cx_free(cx__cu_alloc_of(dev), prog, sizeof *prog);
}

/* ---- launches ---- */

static cx_cu_ptr address(const cx_buffer *buf)
{
	return buf ? ((const cx_cu_buffer *)buf)->at : 0;
}

static cx_status finish_launch(cx_program *prog, const cx_dk_draft *d, launch *l, cx_err *err)
{
	cx_cu_dev *dev = prog->dev;
	l->kind = d->kind;
	l->n_args = d->n_args;
	l->bytes = d->bytes;
	l->p = d->p;
	for (uint32_t i = 0; i < CX_DK_ARGS; i++)
		l->at[i] = d->is_const >> i & 1 ? prog->consts : address(d->buf[i]);
	if (d->kind != CX_DK_KERNEL) {
		l->at[0] += d->off[0];
		l->at[1] += d->off[1];
		return CX_OK;
	}
	for (uint32_t i = 0; i < 3; i++) {
		size_t group = i < d->n_dims ? d->group[i] : 1;
		size_t grid = i < d->n_dims ? d->grid[i] / group : 1;
		if (grid == 0) {
			l->kind = CX_DK_NOTHING;
			return CX_OK;
		}
		if (grid > (i ? (size_t)MAX_GRID_YZ : (size_t)INT32_MAX))
			return CX_FAIL(err, CX_ERR_UNSUPPORTED,
				"%s: %s needs %zu groups along axis %u, the device takes %d", dev->base.name,
				d->name, grid, (unsigned)i, i ? MAX_GRID_YZ : INT32_MAX);
		l->grid[i] = (unsigned)grid;
		l->group[i] = (unsigned)group;
	}
	return cx__cu_function(dev, d, &l->function, err);
}

static cx_status start(cx_cu_dev *dev, launch *l, cx_err *err)
{
	void *args[CX_DK_ARGS + 1];
	const char *call = "cuLaunchKernel";
	cx_cu_result code;
	if (l->kind == CX_DK_NOTHING) return CX_OK;
	if (l->kind == CX_DK_KERNEL) {
		for (uint32_t i = 0; i < l->n_args; i++) args[i] = &l->at[i];
		args[l->n_args] = &l->p;
		code = dev->cu.LaunchKernel(l->function, l->grid[0], l->grid[1], l->grid[2], l->group[0],
			l->group[1], l->group[2], 0, dev->stream, args, NULL);
	} else if (l->kind == CX_DK_COPY) {
		call = "cuMemcpyDtoDAsync";
		code = dev->cu.MemcpyDtoDAsync(l->at[0], l->at[1], l->bytes, dev->stream);
	} else {
		call = "cuMemsetD8Async";
		code = dev->cu.MemsetD8Async(l->at[0], 0, l->bytes, dev->stream);
	}
	return code == CX_CU_OK ? CX_OK : cx__cu_fail(dev, call, code, err);
}

static cx_status start_steps(cx_program *prog, uint32_t first, uint32_t n, cx_err *err)
{
	cx_status st = CX_OK;
	for (uint32_t i = prog->first[first]; i < prog->first[first + n] && st == CX_OK; i++)
		st = start(prog->dev, &prog->launches[i], err);
	return st;
}

/* All launches into prog->graph; nothing runs. */
static cx_status capture(cx_program *prog, cx_err *err)
{
	cx_cu_dev *dev = prog->dev;
	cx_cu_graph graph = NULL;
	const char *call = "cuStreamEndCapture";
	bool any = false;
	cx_cu_result code;
	cx_status st;
	for (uint32_t i = 0; i < prog->n_launches; i++)
		any = any || prog->launches[i].kind != CX_DK_NOTHING;
	if (!any) return CX_OK;
	code = dev->cu.StreamBeginCapture(dev->stream, CX_CU_CAPTURE_THREAD_LOCAL);
	if (code != CX_CU_OK) return cx__cu_fail(dev, "cuStreamBeginCapture", code, err);
	st = start_steps(prog, 0, prog->n_steps, err);
	code = dev->cu.StreamEndCapture(dev->stream, &graph); /* after a failure, too */
	if (st == CX_OK && code == CX_CU_OK) {
		call = "cuGraphInstantiate";
		code = dev->cu.GraphInstantiate(&prog->graph, graph, 0);
	}
	if (graph) dev->cu.GraphDestroy(graph);
	if (st == CX_OK && code != CX_CU_OK) st = cx__cu_fail(dev, call, code, err);
	return st;
}

/* ---- compile and submit ---- */

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

static cx_status make_consts(cx_program *prog, const cx_dk_builder *b, cx_err *err)
{
	cx_status st;
	if (!b->n_consts) return CX_OK;
	st = cx__cu_mem(prog->dev, b->n_consts, &prog->consts, err);
	return st == CX_OK ? cx__cu_put(prog->dev, prog->consts, b->consts, b->n_consts, err) : st;
}

static cx_status build(cx_program *prog, cx_dk_builder *b, const cx_step *steps, cx_err *err)
{
	uint32_t row = 0;
	cx_status st;
	prog->first = cx_arena_array(&prog->arena, (size_t)prog->n_steps + 1, sizeof *prog->first);
	if (!prog->first) goto no_memory;
	draft_steps(prog, b, steps);
	if (b->st != CX_OK) return b->st;
	prog->launches = cx_arena_array(&prog->arena, b->n_drafts, sizeof *prog->launches);
	if (!prog->launches) goto no_memory;
	prog->n_launches = b->n_drafts;
	if ((st = make_consts(prog, b, err)) != CX_OK) return st;
	for (const cx_dk_draft *d = b->first; d && st == CX_OK; d = d->next, row++)
		st = finish_launch(prog, d, &prog->launches[row], err);
	return st == CX_OK ? capture(prog, err) : st;
no_memory:
	return CX_FAIL(err, CX_ERR_MEMORY, "%s: no memory for a program of %u steps",
		prog->dev->base.name, prog->n_steps);
}

cx_status cx__cu_compile(cx_device *base, const cx_step *steps, uint32_t n_steps,
	const cx_bindings *binds, cx_program **out, cx_err *err)
{
	cx_cu_dev *dev = (cx_cu_dev *)base;
	cx_arena drafts;
	cx_dk_builder b = {.dev = &dev->dk, .binds = binds, .arena = &drafts, .err = err};
	cx_program *prog;
	cx_status st = cx__cu_enter(dev, err);
	*out = NULL;
	if (st != CX_OK) return st;
	prog = cx_calloc(cx__cu_alloc_of(dev), 1, sizeof *prog);
	if (!prog) return CX_FAIL(err, CX_ERR_MEMORY, "%s: no memory for a program", base->name);
	prog->dev = dev;
	prog->n_steps = n_steps;
	cx_arena_init(&prog->arena, cx__cu_alloc_of(dev));
	cx_arena_init(&drafts, cx__cu_alloc_of(dev));
	b.last = &b.first;
	st = build(prog, &b, steps, err);
	cx_free(cx__cu_alloc_of(dev), b.consts, b.cap_consts);
	cx_arena_deinit(&drafts);
	if (st == CX_OK) *out = prog;
	else cx__cu_discard(prog);
	return st;
}

/* One step between two events. */
static cx_status submit_timed(cx_program *prog, uint32_t step, cx_err *err)
{
	cx_cu_dev *dev = prog->dev;
	cx_cu_result code = dev->cu.EventRecord(dev->event[0], dev->stream);
	cx_status st;
	if (code != CX_CU_OK) return cx__cu_fail(dev, "cuEventRecord", code, err);
	if ((st = start_steps(prog, step, 1, err)) != CX_OK) return st;
	code = dev->cu.EventRecord(dev->event[1], dev->stream);
	if (code != CX_CU_OK) return cx__cu_fail(dev, "cuEventRecord", code, err);
	dev->timing = true;
	return CX_OK;
}

cx_status cx__cu_submit(cx_program *prog, uint32_t first, uint32_t n, cx_err *err)
{
	cx_cu_dev *dev = prog->dev;
	cx_status st = cx__cu_enter(dev, err);
	cx_cu_result code;
	if (st != CX_OK) return st;
	if (first > prog->n_steps || n > prog->n_steps - first)
		return CX_FAIL(err, CX_ERR_ARGUMENT, "%s: steps %u..+%u of %u", dev->base.name, first, n,
			prog->n_steps);
	if (dev->base.timed && n == 1) return submit_timed(prog, first, err);
	if (n < prog->n_steps) return start_steps(prog, first, n, err);
	if (!prog->graph) return CX_OK;
	code = dev->cu.GraphLaunch(prog->graph, dev->stream);
	return code == CX_CU_OK ? CX_OK : cx__cu_fail(dev, "cuGraphLaunch", code, err);
}
