/* exec.c - a plan ready to run: buffers bound, programs compiled, inputs in, outputs out.
 *
 * All memory is taken in cx_exec_create(). A run goes through the plan's segments: steps on one
 * device are submitted and waited for; a transfer reads from one device into the staging buffer and
 * writes to the other. */
#include "graph/plan.h"
#include "graph/store.h"

#include <string.h>
#include <time.h>

typedef struct device_side {
	cx_buffer **bufs; /* [n_binds] */
	bool *owned;      /* [n_binds] freed with the exec; the others are the store's */
	cx_program *prog;
} device_side;

typedef struct input_side {
	const char *name;
	uint64_t bytes;
	bool set;
	cx_buffer **bufs; /* [n_devs], NULL where it is not read */
} input_side;

typedef struct output_side {
	const char *name;
	cx_buffer *buf;
	uint64_t bytes;
} output_side;

struct cx_exec {
	cx_alloc alloc;
	cx_arena arena;
	const cx_plan *plan;
	cx_store *store;
	device_side *dev; /* [plan->n_devs] */
	input_side *in;
	uint32_t n_in;
	output_side *out; /* [plan->n_outs] */
	void *staging;
	uint64_t staging_bytes;
};

static cx_status no_memory(cx_err *err)
{
	return CX_FAIL(err, CX_ERR_MEMORY, "out of memory for an exec");
}

/* ---- create ---- */

static cx_status fill_constants(cx_exec *x, cx_device *dev, cx_buffer *buf, cx_err *err)
{
	const cx_plan *p = x->plan;
	for (uint32_t m = 0; m < p->n_mem; m++) {
		cx_status st;
		if (p->mem[m].kind != CX_MEM_CONST || p->mem[m].bytes == 0) continue;
		st = dev->backend->write(
			buf, p->mem[m].off, p->t[p->mem[m].what].data, p->mem[m].bytes, err);
		if (st != CX_OK) return st;
	}
	return CX_OK;
}

static cx_status bind_row(cx_exec *x, uint32_t d, uint32_t row, cx_err *err)
{
	const cx_plan *p = x->plan;
	const cx_bind *b = &p->devs[d].binds[row];
	cx_device *dev = p->devs[d].dev;
	cx_buffer **buf = &x->dev[d].bufs[row];
	uint32_t t = b->what;
	cx_status st;
	switch ((cx_mem_kind)b->kind) {
	case CX_MEM_WEIGHT:
		return cx__store_weight_on(
			x->store, p->g->nodes[p->t[t].src].name, &p->t[t].desc, dev, buf, err);
	case CX_MEM_STATE:
		t = p->states[b->what].leaf;
		return cx__store_state_on(
			x->store, p->g->nodes[p->t[t].src].name, &p->t[t].desc, dev, buf, err);
	default:
		break;
	}
	if ((st = dev->backend->alloc(dev, b->bytes, NULL, buf, err)) != CX_OK) return st;
	x->dev[d].owned[row] = true;
	if (b->kind == CX_MEM_CONST) return fill_constants(x, dev, *buf, err);
	if (b->kind == CX_MEM_INPUT)
		for (uint32_t i = 0; i < x->n_in; i++)
			if (p->g->nodes[p->t[t].src].name == x->in[i].name) x->in[i].bufs[d] = *buf;
	return CX_OK;
}

static cx_status list_inputs(cx_exec *x, cx_err *err)
{
	const cx_graph *g = x->plan->g;
	uint32_t n = 0;
	for (uint32_t i = 0; i < g->n_nodes; i++) n += g->nodes[i].op == CX_OP_input;
	x->in = cx_arena_array(&x->arena, n, sizeof *x->in);
	if (!x->in) return no_memory(err);
	for (uint32_t i = 0; i < g->n_nodes; i++) {
		input_side *in = &x->in[x->n_in];
		if (g->nodes[i].op != CX_OP_input) continue;
		in->name = g->nodes[i].name;
		in->bytes = cx__desc_bytes(&g->nodes[i].desc);
		in->bufs = cx_arena_array(&x->arena, x->plan->n_devs, sizeof *in->bufs);
		if (!in->bufs) return no_memory(err);
		x->n_in++;
	}
	return CX_OK;
}

static cx_status list_outputs(cx_exec *x, cx_err *err)
{
	const cx_plan *p = x->plan;
	x->out = cx_arena_array(&x->arena, p->n_outs, sizeof *x->out);
	if (!x->out) return no_memory(err);
	for (uint32_t i = 0; i < p->n_outs; i++) {
		const cx_ptensor *root = &p->t[p->t[p->outs[i].t].root];
		const cx_storage *m = &p->mem[root->mem];
		x->out[i] = (output_side){p->outs[i].name, NULL, cx__desc_bytes(&p->t[p->outs[i].t].desc)};
		for (uint32_t b = 0; b < p->devs[root->dev].n_binds; b++)
			if (p->devs[root->dev].binds[b].kind == m->kind &&
				p->devs[root->dev].binds[b].what == m->what)
				x->out[i].buf = x->dev[root->dev].bufs[b];
		CX_ASSERT(x->out[i].buf);
	}
	return CX_OK;
}

static cx_status make_staging(cx_exec *x, cx_err *err)
{
	for (uint32_t i = 0; i < x->plan->n_segs; i++)
		if (x->plan->segs[i].n == 0 && x->plan->segs[i].bytes > x->staging_bytes)
			x->staging_bytes = x->plan->segs[i].bytes;
	if (x->staging_bytes == 0) return CX_OK;
	if (x->staging_bytes > SIZE_MAX ||
		!(x->staging = cx_malloc(&x->alloc, (size_t)x->staging_bytes)))
		return no_memory(err);
	return CX_OK;
}

static cx_status exec_fill(cx_exec *x, cx_err *err)
{
	const cx_plan *p = x->plan;
	cx_status st;
	x->dev = cx_arena_array(&x->arena, p->n_devs, sizeof *x->dev);
	if (!x->dev) return no_memory(err);
	if ((st = list_inputs(x, err)) != CX_OK) return st;
	for (uint32_t d = 0; d < p->n_devs; d++) {
		x->dev[d].bufs = cx_arena_array(&x->arena, p->devs[d].n_binds, sizeof(cx_buffer *));
		x->dev[d].owned = cx_arena_array(&x->arena, p->devs[d].n_binds, sizeof(bool));
		if (!x->dev[d].bufs || !x->dev[d].owned) return no_memory(err);
		for (uint32_t b = 0; b < p->devs[d].n_binds; b++)
			if ((st = bind_row(x, d, b, err)) != CX_OK) return st;
	}
	for (uint32_t s = 0; s < p->n_states; s++) { /* also those that no step touches */
		const cx_ptensor *t = &p->t[p->states[s].leaf];
		cx_buffer *buf;
		st = cx__store_state_on(
			x->store, p->g->nodes[t->src].name, &t->desc, p->devs[p->states[s].dev].dev, &buf, err);
		if (st != CX_OK) return st;
	}
	if ((st = list_outputs(x, err)) != CX_OK) return st;
	for (uint32_t d = 0; d < p->n_devs; d++) {
		cx_bindings binds = {x->dev[d].bufs, p->devs[d].n_binds};
		const cx_pdevice *pd = &p->devs[d];
		if (pd->n_steps == 0) continue;
		st = pd->dev->backend->compile(
			pd->dev, pd->steps, pd->n_steps, &binds, &x->dev[d].prog, err);
		if (st != CX_OK) return st;
	}
	return make_staging(x, err);
}

cx_status cx_exec_create(const cx_plan *plan, cx_store *store, cx_exec **out, cx_err *err)
{
	cx_exec *x;
	cx_status st;
	*out = NULL;
	if (!plan || !store)
		return CX_FAIL(err, CX_ERR_ARGUMENT, "cx_exec_create: plan and store are needed");
	x = cx_calloc(&plan->alloc, 1, sizeof *x);
	if (!x) return no_memory(err);
	x->alloc = plan->alloc;
	cx_arena_init(&x->arena, &x->alloc);
	x->plan = plan;
	x->store = store;
	if ((st = exec_fill(x, err)) != CX_OK) {
		cx_exec_free(x);
		return st;
	}
	*out = x;
	return CX_OK;
}

void cx_exec_free(cx_exec *x)
{
	cx_alloc alloc;
	if (!x) return;
	alloc = x->alloc;
	for (uint32_t d = 0; x->dev && d < x->plan->n_devs; d++) {
		const cx_backend *b = x->plan->devs[d].dev->backend;
		if (x->dev[d].prog) b->discard(x->dev[d].prog);
		for (uint32_t r = 0; x->dev[d].owned && r < x->plan->devs[d].n_binds; r++)
			if (x->dev[d].owned[r] && x->dev[d].bufs[r]) b->free(x->dev[d].bufs[r]);
	}
	if (x->staging) cx_free(&alloc, x->staging, (size_t)x->staging_bytes);
	cx_arena_deinit(&x->arena);
	cx_free(&alloc, x, sizeof *x);
}

/* ---- use ---- */

int cx_exec_input(const cx_exec *x, const char *name)
{
	for (uint32_t i = 0; name && i < x->n_in; i++)
		if (strcmp(x->in[i].name, name) == 0) return (int)i;
	return -1;
}

int cx_exec_output(const cx_exec *x, const char *name)
{
	for (uint32_t i = 0; name && i < x->plan->n_outs; i++)
		if (strcmp(x->out[i].name, name) == 0) return (int)i;
	return -1;
}

cx_status cx_exec_set_input(cx_exec *x, int input, const void *data, uint64_t bytes, cx_err *err)
{
	input_side *in;
	if (input < 0 || (uint32_t)input >= x->n_in)
		return CX_FAIL(err, CX_ERR_ARGUMENT, "there is no input %d", input);
	in = &x->in[input];
	if (bytes != in->bytes || (!data && bytes))
		return CX_FAIL(err, CX_ERR_ARGUMENT, "input '%.100s' takes %llu bytes, not %llu", in->name,
			(unsigned long long)in->bytes, (unsigned long long)bytes);
	for (uint32_t d = 0; d < x->plan->n_devs && bytes; d++) {
		cx_status st;
		if (!in->bufs[d]) continue;
		st = x->plan->devs[d].dev->backend->write(in->bufs[d], 0, data, bytes, err);
		if (st != CX_OK) return st;
	}
	in->set = true;
	return CX_OK;
}

static cx_status transfer(cx_exec *x, const cx_segment *s, cx_err *err)
{
	cx_buffer *from = x->dev[s->from].bufs[s->src_buf], *to = x->dev[s->dev].bufs[s->dst_buf];
	cx_status st;
	if (s->bytes == 0) return CX_OK;
	st = from->dev->backend->read(from, s->src_off, x->staging, s->bytes, err);
	return st != CX_OK ? st : to->dev->backend->write(to, s->dst_off, x->staging, s->bytes, err);
}

static cx_status run_steps(cx_exec *x, uint32_t d, uint32_t first, uint32_t n, cx_err *err)
{
	cx_device *dev = x->plan->devs[d].dev;
	cx_status st = dev->backend->submit(x->dev[d].prog, first, n, err);
	return st != CX_OK ? st : dev->backend->wait(dev, err);
}

static cx_status inputs_are_set(const cx_exec *x, cx_err *err)
{
	for (uint32_t i = 0; i < x->n_in; i++)
		if (!x->in[i].set)
			return CX_FAIL(err, CX_ERR_ARGUMENT, "input '%.100s' was never set", x->in[i].name);
	return CX_OK;
}

cx_status cx_exec_run(cx_exec *x, cx_err *err)
{
	cx_status st = inputs_are_set(x, err);
	for (uint32_t i = 0; i < x->plan->n_segs && st == CX_OK; i++) {
		const cx_segment *s = &x->plan->segs[i];
		st = s->n ? run_steps(x, s->dev, s->first, s->n, err) : transfer(x, s, err);
	}
	return st;
}

cx_status cx_exec_get_output(cx_exec *x, int output, void *data, uint64_t bytes, cx_err *err)
{
	const output_side *o;
	if (output < 0 || (uint32_t)output >= x->plan->n_outs)
		return CX_FAIL(err, CX_ERR_ARGUMENT, "there is no output %d", output);
	o = &x->out[output];
	if (bytes != o->bytes || (!data && bytes))
		return CX_FAIL(err, CX_ERR_ARGUMENT, "output '%.100s' has %llu bytes, not %llu", o->name,
			(unsigned long long)o->bytes, (unsigned long long)bytes);
	return bytes ? o->buf->dev->backend->read(o->buf, 0, data, bytes, err) : CX_OK;
}

static double now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* By the device's clock where it has one, else by the host's, launch and wait included. */
static cx_status time_step(cx_exec *x, uint32_t d, uint32_t step, double *seconds, cx_err *err)
{
	const cx_pdevice *pd = &x->plan->devs[d];
	double t = now();
	cx_status st;
	pd->dev->seconds = 0;
	pd->dev->timed = true;
	st = run_steps(x, d, step, 1, err);
	pd->dev->timed = false;
	*seconds += pd->limits.clock_ns > 0 ? pd->dev->seconds : now() - t;
	return st;
}

cx_status cx_exec_profile(cx_exec *x, double *seconds, uint32_t n_steps, cx_err *err)
{
	cx_status st = inputs_are_set(x, err);
	if (n_steps != x->plan->n_order)
		return CX_FAIL(err, CX_ERR_ARGUMENT, "cx_exec_profile: the plan has %u steps, not %u",
			x->plan->n_order, n_steps);
	for (uint32_t i = 0; i < x->plan->n_segs && st == CX_OK; i++) {
		const cx_segment *s = &x->plan->segs[i];
		for (uint32_t k = 0; k < s->n && st == CX_OK; k++)
			st = time_step(x, s->dev, s->first + k, &seconds[s->pos + k], err);
		if (s->n == 0) {
			double t = now();
			st = transfer(x, s, err);
			seconds[s->pos] += now() - t;
		}
	}
	return st;
}
