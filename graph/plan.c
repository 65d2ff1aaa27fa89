/* plan.c - cx_plan_build: imports a finished graph, runs the passes, and the pieces that passes
 * build with. */
#include "graph/plan.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

static const char *const reasons[CX_WHY_COUNT] = {
#define X(name, text) text,
	CX_REASONS(X)
#undef X
};
const char *cx__reason_text(cx_reason why)
{
	return why < CX_WHY_COUNT ? reasons[why] : "?";
}

static const struct {
	const char *name, *why;
} fusions[CX_FUSION_COUNT] = {
	{"none", ""},
#define CX_FUSION(name, why) {#name, why},
#include "graph/fusions.def"
#undef CX_FUSION
};
const char *cx__fusion_name(cx_fusion f)
{
	return f < CX_FUSION_COUNT ? fusions[f].name : "?";
}
const char *cx__fusion_why(cx_fusion f)
{
	return f < CX_FUSION_COUNT ? fusions[f].why : "?";
}

cx_status cx__plan_oom(cx_err *err)
{
	return CX_FAIL(err, CX_ERR_MEMORY, "out of memory while planning");
}

uint64_t cx__desc_bytes(const cx_desc *d)
{
	uint64_t bytes = 0;
	if (!cx_dtype_bytes(d->dtype, d->rank, d->dim, &bytes))
		return 0; /* checked when the node was made */
	return bytes;
}

bool cx__desc_same_dims(const cx_desc *a, const cx_desc *b)
{
	if (a->rank != b->rank) return false;
	for (int i = 0; i < a->rank; i++)
		if (a->dim[i] != b->dim[i]) return false;
	return true;
}

/* Strides of axes of one element are never stepped along, so they do not count. */
bool cx__desc_equal(const cx_desc *a, const cx_desc *b)
{
	if (a->dtype != b->dtype || !cx__desc_same_dims(a, b)) return false;
	for (int i = 0; i < a->rank; i++)
		if (a->dim[i] > 1 && a->stride[i] != b->stride[i]) return false;
	return true;
}

/* ---- building blocks ---- */

static bool grow(cx_plan *p, void **array, uint32_t *cap, uint32_t need, size_t size)
{
	uint32_t to = *cap ? *cap * 2 : 64;
	void *mem;
	if (need <= *cap) return true;
	if (to < need) to = need;
	mem = cx_realloc(&p->alloc, *array, *cap * size, to * size);
	if (!mem) return false;
	*array = mem;
	*cap = to;
	return true;
}

static uint32_t tensor_add(cx_plan *p, const cx_desc *desc, uint32_t src)
{
	cx_ptensor *t;
	if (!grow(p, (void **)&p->t, &p->cap_t, p->n_t + 1, sizeof *p->t)) return CX_NO;
	t = &p->t[p->n_t];
	memset(t, 0, sizeof *t);
	t->desc = *desc;
	t->root = p->n_t;
	t->src = src;
	t->def = t->state = t->prev = t->same_as = t->mem = CX_NO;
	t->leaf = CX_LEAF_NONE;
	return p->n_t++;
}

uint32_t cx__plan_root(cx_plan *p, const cx_desc *desc, uint32_t src)
{
	cx_desc d = *desc;
	cx__desc_dense(&d);
	return tensor_add(p, &d, src);
}

uint32_t cx__plan_view(cx_plan *p, uint32_t root, int64_t off, const cx_desc *desc, uint32_t src)
{
	cx_desc d = *desc; /* desc may lie in p->t, which moves */
	uint32_t id = tensor_add(p, &d, src);
	if (id == CX_NO) return CX_NO;
	p->t[id].root = root;
	p->t[id].view_off = off;
	return id;
}

uint32_t cx__plan_node(cx_plan *p, cx_op op, const uint32_t *in, uint32_t n_in, const uint32_t *out,
	uint32_t n_out, void *attr, uint32_t src)
{
	uint32_t *ins = cx_arena_array(&p->arena, n_in, sizeof *ins);
	cx_pnode *n;
	if (!ins || !grow(p, (void **)&p->n, &p->cap_n, p->n_n + 1, sizeof *p->n)) return CX_NO;
	n = &p->n[p->n_n];
	memset(n, 0, sizeof *n);
	n->op = (uint16_t)op;
	n->n_in = n_in;
	n->in = ins;
	if (n_in) memcpy(ins, in, n_in * sizeof *in);
	n->n_out = (uint8_t)n_out;
	for (uint32_t o = 0; o < n_out; o++) {
		n->out[o] = out[o];
		p->t[out[o]].def = p->n_n;
	}
	n->attr = attr;
	n->src = src;
	n->inplace = -1;
	n->into = n->scratch_mem = CX_NO;
	return p->n_n++;
}

cx_status cx__plan_push(cx_plan *p, uint32_t node, cx_err *err)
{
	if (node == CX_NO ||
		!grow(p, (void **)&p->order, &p->cap_order, p->n_order + 1, sizeof *p->order))
		return cx__plan_oom(err);
	p->n[node].pos = p->n_order;
	p->order[p->n_order++] = node;
	return CX_OK;
}

void cx__plan_compact(cx_plan *p)
{
	uint32_t n = 0;
	for (uint32_t i = 0; i < p->n_order; i++) {
		uint32_t id = p->order[i];
		if (p->n[id].flags & CX_PNODE_DEAD) continue;
		p->n[id].pos = n;
		p->order[n++] = id;
	}
	p->n_order = n;
}

cx_kernel_key cx__plan_key(cx_plan *p, const cx_pnode *n)
{
	cx_kernel_key k = {
		.op = (cx_op)n->op, .attr = n->attr, .prog = n->prog, .n_in = n->n_in, .n_out = n->n_out};
	CX_ASSERT(n->n_in + n->n_out <= p->cap_key);
	for (uint32_t i = 0; i < n->n_in; i++) {
		if (n->in[i] != CX_NO) {
			p->key[i] = p->t[n->in[i]].desc;
		} else {
			memset(&p->key[i], 0, sizeof p->key[i]);
			p->key[i].dtype = CX_DTYPE_COUNT;
		}
	}
	for (uint32_t o = 0; o < n->n_out; o++) p->key[n->n_in + o] = p->t[n->out[o]].desc;
	k.in = p->key;
	k.out = p->key + n->n_in;
	return k;
}

const cx_kernel *cx__plan_find(cx_plan *p, uint32_t dev, const cx_pnode *n)
{
	cx_device *d = p->devs[dev].dev;
	cx_kernel_key key = cx__plan_key(p, n);
	/* cppcheck-suppress returnDanglingLifetime ; kernels are static storage, not part of the key */
	return d->backend->find(d, &key);
}

cx_status cx__plan_shape(cx_plan *p, const cx_pnode *n, cx_err *err)
{
	cx_shape_ctx c = {
		.op = (cx_op)n->op, .n_in = n->n_in, .prog = n->prog, .n_out = n->n_out, .err = err};
	const cx_attr_info *info = &cx__attrs[cx__ops[n->op].attr];
	cx_kernel_key key = cx__plan_key(p, n);
	_Alignas(16) unsigned char attr[512];
	cx_err local = {0}; /* rules read back the code that they set */
	cx_status st;
	if (!err) c.err = &local;
	CX_ASSERT(info->size <= sizeof attr);
	memcpy(attr, n->attr ? n->attr : info->defaults, info->size);
	c.in = key.in;
	c.attr = attr;
	if ((st = cx__ops[n->op].shape(&c)) != CX_OK) return st;
	if (c.n_out != n->n_out)
		return CX_FAIL(err, CX_ERR_SHAPE, "%s has %u outputs, the plan has %u", cx__ops[n->op].name,
			c.n_out, n->n_out);
	for (uint32_t o = 0; o < c.n_out; o++)
		if (c.out[o].dtype != key.out[o].dtype || !cx__desc_same_dims(&c.out[o], &key.out[o]))
			return CX_FAIL(err, CX_ERR_SHAPE, "%s: output %u is not what its shape rule says",
				cx__ops[n->op].name, o);
	return CX_OK;
}

bool cx__plan_is_whole(const cx_plan *p, uint32_t t)
{
	const cx_ptensor *v = &p->t[t];
	return v->view_off == 0 && cx__desc_is_dense(&v->desc) &&
		   cx__desc_elems(&v->desc) == cx__desc_elems(&p->t[v->root].desc);
}

const char *cx__pnode_text(const cx_plan *p, const cx_pnode *n, char *buf, size_t size)
{
	char where[160] = "";
	if (n->src != CX_NO) cx__node_text(p->g, n->src, where, sizeof where);
	if (n->src != CX_NO && p->g->nodes[n->src].op == n->op) snprintf(buf, size, "%s", where);
	else snprintf(buf, size, "%s for %s", cx__ops[n->op].name, where);
	return buf;
}

enum { MAX_MISSES = 4096 }; /* enough for a reader; a bound on memory */
cx_status cx__plan_miss(cx_plan *p, cx_fusion f, uint32_t src, cx_reason why)
{
	if (p->n_misses >= MAX_MISSES) return CX_OK;
	if (p->n_misses && p->misses[p->n_misses - 1].src == src &&
		p->misses[p->n_misses - 1].fusion == f)
		return CX_OK;
	if (!grow(p, (void **)&p->misses, &p->cap_misses, p->n_misses + 1, sizeof *p->misses))
		return CX_ERR_MEMORY;
	p->misses[p->n_misses++] = (cx_miss){src, (uint8_t)f, (uint8_t)why};
	return CX_OK;
}

cx_status cx__plan_readers(cx_plan *p, cx_readers *out, cx_err *err)
{
	uint32_t *at, total = 0;
	out->n_t = p->n_t;
	out->start = cx_arena_array(&p->tmp, (size_t)p->n_t + 1, sizeof *out->start);
	if (!out->start) return cx__plan_oom(err);
	for (uint32_t i = 0; i < p->n_order; i++) {
		const cx_pnode *n = &p->n[p->order[i]];
		for (uint32_t j = 0; j < n->n_in; j++) {
			if (n->in[j] == CX_NO) continue;
			out->start[p->t[n->in[j]].root]++;
			total++;
		}
	}
	for (uint32_t t = 0, sum = 0; t <= p->n_t; t++) {
		uint32_t c = t < p->n_t ? out->start[t] : 0;
		out->start[t] = sum;
		sum += c;
	}
	out->node = cx_arena_array(&p->tmp, total, sizeof *out->node);
	at = cx_arena_memdup(&p->tmp, out->start, ((size_t)p->n_t + 1) * sizeof *at);
	if (!out->node || !at) return cx__plan_oom(err);
	for (uint32_t i = 0; i < p->n_order; i++) {
		const cx_pnode *n = &p->n[p->order[i]];
		for (uint32_t j = 0; j < n->n_in; j++)
			if (n->in[j] != CX_NO) out->node[at[p->t[n->in[j]].root]++] = p->order[i];
	}
	return CX_OK;
}

/* ---- import ---- */

static cx_status import_leaf(cx_plan *p, uint32_t id, cx_err *err)
{
	const cx_node *s = &p->g->nodes[id];
	(void)err;
	p->t[id].leaf = (uint8_t)s->op;
	p->t[id].data = s->data;
	if (s->op == CX_OP_state) {
		p->t[id].state = p->n_states;
		p->states[p->n_states++] = (cx_pstate){id, id, 0};
	}
	return CX_OK;
}

/* A reshape that strides cannot express: a dense copy of the operand, and a view of that. */
static cx_status import_copy(cx_plan *p, uint32_t id, cx_err *err)
{
	uint32_t in = p->g->nodes[id].in[0], out = cx__plan_root(p, &p->t[in].desc, CX_NO), node;
	if (out == CX_NO) return cx__plan_oom(err);
	node = cx__plan_node(p, CX_OP_copy, &in, 1, &out, 1, NULL, id);
	if (node == CX_NO) return cx__plan_oom(err);
	p->n[node].reason = CX_WHY_RESHAPE;
	p->t[id].root = out;
	return cx__plan_push(p, node, err);
}

static cx_status import_node(cx_plan *p, uint32_t id, cx_err *err)
{
	const cx_node *s = &p->g->nodes[id];
	uint32_t out[CX_MAX_OUT], n_out = s->n_out ? s->n_out : 1, node;
	for (uint32_t o = 0; o < n_out; o++) out[o] = id + o;
	node = cx__plan_node(p, (cx_op)s->op, s->in, s->n_in, out, n_out, s->attr, id);
	if (node == CX_NO) return cx__plan_oom(err);
	p->n[node].prog = s->prog;
	for (uint32_t o = 0; o < n_out; o++) {
		uint32_t leaf = p->g->nodes[id + o].state;
		if (leaf == CX_NO) continue;
		p->t[id + o].state = p->t[leaf].state;
		p->t[id + o].prev = p->states[p->t[leaf].state].last;
		p->states[p->t[leaf].state].last = id + o;
	}
	return cx__plan_push(p, node, err);
}

static cx_status import_one(cx_plan *p, uint32_t id, cx_err *err)
{
	const cx_node *s = &p->g->nodes[id];
	switch (cx__ops[s->op].kind) {
	case CX_KIND_LEAF:
		return import_leaf(p, id, err);
	case CX_KIND_META:
		return CX_OK; /* its tensor was given to the node before it */
	case CX_KIND_VIEW:
		if (s->root == id) return import_copy(p, id, err);
		p->t[id].root = p->t[s->root].root;
		p->t[id].view_off = s->view_off;
		return CX_OK;
	default:
		return import_node(p, id, err);
	}
}

/* Room for the key of any node, so that asking for a kernel cannot run out of memory. */
enum { MAX_FUSED_ARGS = 96 };

static cx_status import_graph(cx_plan *p, cx_err *err)
{
	const cx_graph *g = p->g;
	uint32_t n_states = 0, n_args = MAX_FUSED_ARGS;
	cx_status st;
	for (uint32_t i = 0; i < g->n_nodes; i++)
		if (g->nodes[i].n_in + CX_MAX_OUT + 1 > n_args) n_args = g->nodes[i].n_in + CX_MAX_OUT + 1;
	if (!grow(p, (void **)&p->key, &p->cap_key, n_args, sizeof *p->key)) return cx__plan_oom(err);
	if (!grow(p, (void **)&p->t, &p->cap_t, g->n_nodes + g->n_nodes / 4 + 16, sizeof *p->t) ||
		!grow(p, (void **)&p->n, &p->cap_n, g->n_nodes + g->n_nodes / 4 + 16, sizeof *p->n) ||
		!grow(p, (void **)&p->order, &p->cap_order, g->n_nodes + g->n_nodes / 4 + 16,
			sizeof *p->order))
		return cx__plan_oom(err);
	for (uint32_t i = 0; i < g->n_nodes; i++) {
		if (tensor_add(p, &g->nodes[i].desc, i) == CX_NO) return cx__plan_oom(err);
		n_states += g->nodes[i].op == CX_OP_state;
	}
	p->states = cx_arena_array(&p->arena, n_states, sizeof *p->states);
	p->outs = cx_arena_array(&p->arena, g->n_outputs, sizeof *p->outs);
	if (!p->states || !p->outs) return cx__plan_oom(err);
	for (uint32_t i = 0; i < g->n_nodes; i++)
		if ((st = import_one(p, i, err)) != CX_OK) return st;
	for (uint32_t i = 0; i < g->n_outputs; i++)
		p->outs[i] = (cx_pout){g->outputs[i].name, g->outputs[i].id};
	p->n_outs = g->n_outputs;
	return CX_OK;
}

/* ---- build ---- */

static cx_status plan_create(
	const cx_graph *g, const cx_plan_opts *opts, cx_plan **out, cx_err *err)
{
	cx_runtime *rt;
	cx_plan *p;
	if (!g || !g->finished || g->first_error.code != CX_OK)
		return CX_FAIL(err, CX_ERR_ARGUMENT, "cx_plan_build: the graph is not finished");
	if (!opts || !opts->devices || opts->n_devices == 0 || opts->n_devices > 254)
		return CX_FAIL(err, CX_ERR_ARGUMENT, "cx_plan_build: no devices to plan for");
	for (uint32_t i = 0; i < opts->n_devices; i++)
		if (!opts->devices[i])
			return CX_FAIL(err, CX_ERR_ARGUMENT, "cx_plan_build: device %u is NULL", i);
	rt = opts->devices[0]->rt;
	p = cx_calloc(&cx_runtime_config(rt)->alloc, 1, sizeof *p);
	if (!p) return cx__plan_oom(err);
	p->alloc = cx_runtime_config(rt)->alloc;
	p->rt = rt;
	p->g = g;
	cx_arena_init(&p->arena, &p->alloc);
	cx_arena_init(&p->tmp, &p->alloc);
	*out = p;
	p->opts = *opts;
	p->n_devs = opts->allow_fallback ? opts->n_devices : 1;
	p->opts.devices = NULL; /* the caller's array need not live on */
	p->devs = cx_arena_array(&p->arena, p->n_devs, sizeof *p->devs);
	if (!p->devs) return cx__plan_oom(err);
	for (uint32_t i = 0; i < p->n_devs; i++) {
		p->devs[i].dev = opts->devices[i];
		opts->devices[i]->backend->limits(opts->devices[i], &p->devs[i].limits);
		if (p->devs[i].limits.alignment == 0) p->devs[i].limits.alignment = 1;
	}
	return import_graph(p, err);
}

static const struct {
	const char *name;
	cx_status (*run)(cx_plan *, cx_err *);
} passes[] = {
	{"simplify",
		cx__pass_simplify}, /* constants, identities, common sub-expressions, nodes nobody reads */
	{"legalise",
		cx__pass_legalise},    /* dense copies where a kernel wants them; simpler ops by rule */
	{"place", cx__pass_place}, /* a device per node, or a refusal that names the node */
	{"fuse", cx__pass_fuse},   /* groups for which find() has one kernel */
	{"schedule", cx__pass_schedule}, /* run order, states updated after their old readers */
	{"memory", cx__pass_memory},     /* storage, offsets in the slab */
	{"emit", cx__pass_emit},         /* steps, binding tables, segments */
};

enum { N_PASSES = sizeof passes / sizeof passes[0] };
static const uint8_t passes_of[CX_STAGE_COUNT] = {
#define X(name, n_passes, doc) n_passes,
	CX_STAGES(X)
#undef X
};

static cx_status run_passes(cx_plan *p, cx_err *err)
{
	cx_status st;
	if (p->opts.verify && (st = cx__plan_verify(p, "import", err)) != CX_OK) return st;
	for (size_t i = 0; i < passes_of[p->stage] && i < N_PASSES; i++) {
		if ((st = passes[i].run(p, err)) != CX_OK) return st;
		cx__plan_compact(p);
		cx_arena_reset(&p->tmp);
		if (p->opts.verify && (st = cx__plan_verify(p, passes[i].name, err)) != CX_OK) return st;
		cx_arena_reset(&p->tmp);
	}
	return CX_OK;
}

cx_status cx_plan_build(const cx_graph *g, const cx_plan_opts *opts, cx_plan **out, cx_err *err)
{
	return cx__plan_build_to(g, opts, CX_STAGE_planned, out, err);
}

cx_status cx__plan_build_to(
	const cx_graph *g, const cx_plan_opts *opts, cx_stage stage, cx_plan **out, cx_err *err)
{
	struct timespec a, b;
	cx_plan *p = NULL;
	cx_status st;
	*out = NULL;
	clock_gettime(CLOCK_MONOTONIC, &a);
	if ((st = plan_create(g, opts, &p, err)) != CX_OK) goto fail;
	p->stage = stage;
	if ((st = run_passes(p, err)) != CX_OK) goto fail;
	cx_arena_deinit(&p->tmp);
	cx_arena_init(&p->tmp, &p->alloc);
	clock_gettime(CLOCK_MONOTONIC, &b);
	p->stats.build_seconds = (double)(b.tv_sec - a.tv_sec) + 1e-9 * (double)(b.tv_nsec - a.tv_nsec);
	*out = p;
	return CX_OK;
fail:
	cx_plan_free(p);
	return st;
}

void cx_plan_free(cx_plan *p)
{
	cx_alloc alloc;
	if (!p) return;
	alloc = p->alloc;
	cx_free(&alloc, p->t, p->cap_t * sizeof *p->t);
	cx_free(&alloc, p->n, p->cap_n * sizeof *p->n);
	cx_free(&alloc, p->order, p->cap_order * sizeof *p->order);
	cx_free(&alloc, p->misses, p->cap_misses * sizeof *p->misses);
	cx_free(&alloc, p->mem, p->cap_mem * sizeof *p->mem);
	cx_free(&alloc, p->key, p->cap_key * sizeof *p->key);
	cx_arena_deinit(&p->arena);
	cx_arena_deinit(&p->tmp);
	cx_free(&alloc, p, sizeof *p);
}

void cx_plan_get_stats(const cx_plan *p, cx_plan_stats *out)
{
	*out = p->stats;
}
