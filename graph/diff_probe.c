/* diff_probe.c - some nodes of a graph as a graph of their own, planned once per device and text;
 * see diff.h. */
#include "graph/diff.h"
#include "graph/plan.h"

#include <stdio.h>
#include <string.h>

static cx_status no_memory(cx_err *err)
{
	return CX_FAIL(err, CX_ERR_MEMORY, "diff: out of memory");
}

static bool is_view(const cx_graph *g, uint32_t id)
{
	return g->nodes[id].root != id;
}

/* ---- prober ---- */

static bool list_readers(cx_prober *p)
{
	const cx_graph *g = p->src;
	uint32_t total = 0;
	p->reader_start = cx_arena_array(&p->arena, (size_t)g->n_nodes + 2, sizeof(uint32_t));
	if (!p->reader_start) return false;
	for (int fill = 0; fill < 2; fill++) {
		for (uint32_t i = 0; i < g->n_nodes; i++) {
			const cx_node *n = &g->nodes[i];
			if (is_view(g, i) || n->op == CX_OP_proj) continue;
			for (uint32_t j = 0; j < n->n_in; j++) {
				uint32_t r;
				if (n->in[j] == CX_NO) continue;
				r = g->nodes[n->in[j]].root;
				if (fill) p->reader[p->reader_start[r + 1]++] = i;
				else p->reader_start[r + 2]++, total++;
			}
		}
		if (fill) break;
		for (uint32_t i = 0; i < g->n_nodes; i++) p->reader_start[i + 2] += p->reader_start[i + 1];
		if (!(p->reader = cx_arena_array(&p->arena, (size_t)total + 1, sizeof(uint32_t))))
			return false;
	}
	return true;
}

cx_status cx__prober_init(cx_prober *p, const cx_graph *src, const cx_alloc *alloc, cx_err *err)
{
	size_t n = (size_t)src->n_nodes + 1;
	memset(p, 0, sizeof *p);
	p->src = src;
	p->alloc = alloc;
	cx_arena_init(&p->arena, alloc);
	cx_arena_init(&p->tmp, alloc);
	p->to = cx_arena_array(&p->arena, n, sizeof *p->to);
	p->stamp = cx_arena_array(&p->arena, n, sizeof *p->stamp);
	p->chain = cx_arena_array(&p->arena, n, sizeof *p->chain);
	if (!p->to || !p->stamp || !p->chain || !list_readers(p)) {
		cx__prober_deinit(p);
		return no_memory(err);
	}
	return CX_OK;
}

void cx__prober_deinit(cx_prober *p)
{
	cx_arena_deinit(&p->arena);
	cx_arena_deinit(&p->tmp);
	memset(p, 0, sizeof *p);
}

/* ---- building ---- */

typedef struct build {
	cx_prober *p;
	cx_probe *out;
	const uint32_t *member;
	uint32_t n_member;
	int flags;
} build;

static bool is_member(const build *b, uint32_t id)
{
	uint32_t lo = 0, hi = b->n_member;
	if (b->p->src->nodes[id].op == CX_OP_proj) id = b->p->src->nodes[id].in[0];
	while (lo < hi) {
		uint32_t mid = lo + (hi - lo) / 2;
		if (b->member[mid] < id) lo = mid + 1;
		else hi = mid;
	}
	return lo < b->n_member && b->member[lo] == id;
}

/* A version of a state that some member makes into the next one. */
static bool is_updated(const build *b, uint32_t root)
{
	const cx_graph *g = b->p->src;
	for (uint32_t r = b->p->reader_start[root]; r < b->p->reader_start[root + 1]; r++) {
		const cx_node *n = &g->nodes[b->p->reader[r]];
		for (uint32_t o = 0; o < n->n_out; o++) {
			int alias = cx__ops[n->op].alias[o];
			if (alias >= 0 && n->in[alias] == root && is_member(b, b->p->reader[r])) return true;
		}
	}
	return false;
}

static cx_tensor make_leaf(build *b, uint32_t src)
{
	const cx_node *n = &b->p->src->nodes[src];
	const cx_desc *d = &n->desc;
	bool kinds = (b->flags & CX_PROBE_KINDS) != 0;
	cx_graph *g = b->out->g;
	char name[24];
	cx_tensor t;
	if (kinds && n->op == CX_OP_const) return cx_const(g, d->dtype, d->rank, d->dim, n->data);
	snprintf(name, sizeof name, "i%u", b->out->n_leaf);
	if (cx_dtype_get(d->dtype)->cls == CX_CLASS_BLOCK || (kinds && n->op == CX_OP_weight))
		t = cx_weight(g, name, d->dtype, d->rank, d->dim);
	else if (kinds && n->state != CX_NO && (n->op == CX_OP_state || is_updated(b, src)))
		t = cx_state(g, name, d->dtype, d->rank, d->dim);
	else t = cx_input(g, name, d->dtype, d->rank, d->dim);
	b->out->leaf[b->out->n_leaf] = t.id;
	b->out->leaf_src[b->out->n_leaf++] = src;
	return t;
}

static void remember(build *b, uint32_t src, cx_tensor t)
{
	b->p->to[src] = t.id;
	b->p->stamp[src] = b->p->now;
}

/* The tensor of the new graph that is `src`: made already, a leaf, or views rebuilt on one. */
static cx_tensor tensor_of(build *b, uint32_t src)
{
	const cx_graph *g = b->p->src;
	uint32_t n = 0, id = src;
	cx_tensor t;
	while (b->p->stamp[id] != b->p->now && is_view(g, id)) {
		b->p->chain[n++] = id;
		id = g->nodes[id].in[0];
	}
	if (b->p->stamp[id] != b->p->now) {
		const cx_node *p = &g->nodes[id];
		if (p->op == CX_OP_proj && is_member(b, id))
			t = cx_out(b->out->g, (cx_tensor){b->p->to[p->in[0]]},
				(int)((const cx_attr_proj *)p->attr)->index);
		else t = make_leaf(b, id);
		remember(b, id, t);
	}
	t.id = b->p->to[id];
	while (n > 0) {
		const cx_node *v = &g->nodes[b->p->chain[--n]];
		t = cx_node_add(b->out->g, (cx_op)v->op, &t, 1, v->attr);
		remember(b, b->p->chain[n], t);
	}
	return t;
}

static cx_status add_member(build *b, uint32_t id, cx_err *err)
{
	const cx_node *n = &b->p->src->nodes[id];
	cx_tensor *in = cx_arena_array(&b->p->tmp, (size_t)n->n_in + 1, sizeof *in), t;
	if (!in) return no_memory(err);
	for (uint32_t j = 0; j < n->n_in; j++)
		in[j] = n->in[j] == CX_NO ? CX_NONE : tensor_of(b, n->in[j]);
	t = cx__node_add(b->out->g, (cx_op)n->op, in, n->n_in, n->attr, n->prog);
	if (b->flags & CX_PROBE_LABELS) {
		char label[120];
		if (n->name[0]) snprintf(label, sizeof label, "%.60s%.50s", n->scope, n->name);
		else snprintf(label, sizeof label, "node.%u", id);
		cx_named(b->out->g, t, label);
	}
	remember(b, id, t);
	return CX_OK;
}

/* Whether anything outside reads this value. */
static bool escapes(const build *b, uint32_t root)
{
	const cx_graph *g = b->p->src;
	if (b->flags & CX_PROBE_ALL) return true;
	if (g->nodes[root].state != CX_NO) return true;
	for (uint32_t r = b->p->reader_start[root]; r < b->p->reader_start[root + 1]; r++)
		if (!is_member(b, b->p->reader[r])) return true;
	for (uint32_t i = 0; i < g->n_outputs; i++)
		if (g->nodes[g->outputs[i].id].root == root) return true;
	return b->p->reader_start[root] == b->p->reader_start[root + 1];
}

static void add_outputs(build *b)
{
	const cx_graph *g = b->p->src;
	char name[24];
	for (uint32_t m = 0; m < b->n_member; m++) {
		for (uint32_t o = 0; o < g->nodes[b->member[m]].n_out; o++) {
			uint32_t id = b->member[m] + o;
			if (!escapes(b, id)) continue;
			snprintf(name, sizeof name, "o%u", b->out->n_out);
			cx_output(b->out->g, name, tensor_of(b, id));
			b->out->out_src[b->out->n_out++] = id;
		}
	}
}

cx_status cx__probe_build(
	cx_prober *p, const uint32_t *member, uint32_t n_member, int flags, cx_probe *out, cx_err *err)
{
	build b = {p, out, member, n_member, flags};
	size_t n_leaf = 1, n_out = 1;
	cx_status st;
	memset(out, 0, sizeof *out);
	cx_arena_reset(&p->tmp);
	p->now++;
	for (uint32_t m = 0; m < n_member; m++) {
		n_leaf += p->src->nodes[member[m]].n_in;
		n_out += p->src->nodes[member[m]].n_out;
	}
	out->leaf = cx_arena_array(&p->tmp, n_leaf, sizeof(uint32_t));
	out->leaf_src = cx_arena_array(&p->tmp, n_leaf, sizeof(uint32_t));
	out->out_src = cx_arena_array(&p->tmp, n_out, sizeof(uint32_t));
	if (!out->leaf || !out->leaf_src || !out->out_src) return no_memory(err);
	if ((st = cx_graph_create(p->alloc, &out->g, err)) != CX_OK) return st;
	for (uint32_t m = 0; m < n_member && st == CX_OK; m++) st = add_member(&b, member[m], err);
	if (st == CX_OK) {
		add_outputs(&b);
		st = cx_graph_finish(out->g, err);
	}
	if (st != CX_OK) {
		cx_graph_free(out->g);
		out->g = NULL;
	}
	return st;
}

/* ---- running ---- */

typedef struct entry {
	struct entry *next;
	char *text;
	size_t n_text;
	int how;
	cx_graph *g;
	cx_plan *plan;
	cx_store *store;
	cx_exec *exec;  /* NULL: weights are bound anew for every run */
	cx_err refused; /* code 0: planned */
} entry;

enum { N_BUCKETS = 4096 };
struct cx_probe_cache {
	const cx_alloc *alloc;
	cx_device *devs[2]; /* the second may be NULL */
	uint32_t n;
	entry *bucket[N_BUCKETS];
};

cx_status cx__probe_cache_create(
	cx_device *dev, cx_device *fallback, const cx_alloc *alloc, cx_probe_cache **out, cx_err *err)
{
	*out = cx_calloc(alloc, 1, sizeof **out);
	if (!*out) return no_memory(err);
	(*out)->alloc = alloc;
	(*out)->devs[0] = dev;
	(*out)->devs[1] = fallback;
	return CX_OK;
}

static void entry_free(const cx_alloc *alloc, entry *e)
{
	cx_exec_free(e->exec);
	cx_store_free(e->store);
	cx_plan_free(e->plan);
	cx_graph_free(e->g);
	cx_free(alloc, e->text, e->n_text + 1);
	cx_free(alloc, e, sizeof *e);
}

void cx__probe_cache_free(cx_probe_cache *c)
{
	if (!c) return;
	for (int i = 0; i < N_BUCKETS; i++)
		for (entry *e = c->bucket[i], *next; e; e = next) {
			next = e->next;
			entry_free(c->alloc, e);
		}
	cx_free(c->alloc, c, sizeof *c);
}

uint32_t cx__probe_cache_plans(const cx_probe_cache *c)
{
	return c->n;
}

/* The entry of this probe's text; p->g is taken over. */
static cx_status look_up(cx_probe_cache *c, cx_probe *p, int how, entry **out, cx_err *err)
{
	cx_plan_opts opts = {.devices = c->devs,
		.n_devices = c->devs[1] ? 2 : 1,
		.allow_fallback = how & CX_RUN_FALLBACK,
		.no_fuse = !(how & CX_RUN_FUSE)};
	cx_graph *g = p->g;
	char *text = NULL;
	size_t n = 0;
	uint32_t h = 2166136261u;
	entry *e;
	cx_status st = cx_graph_print(g, c->alloc, &text, &n, err);
	p->g = NULL;
	if (st != CX_OK) goto fail;
	for (size_t i = 0; i < n; i++) h = (h ^ (unsigned char)text[i]) * 16777619u;
	h = (h ^ h >> 15) % N_BUCKETS;
	for (e = c->bucket[h]; e; e = e->next)
		if (e->how == how && e->n_text == n && memcmp(e->text, text, n) == 0) break;
	*out = e;
	if (e) goto fail;
	if (!(e = cx_calloc(c->alloc, 1, sizeof *e))) {
		st = no_memory(err);
		goto fail;
	}
	*e = (entry){.next = c->bucket[h], .text = text, .n_text = n, .how = how, .g = g};
	c->bucket[h] = e;
	c->n++;
	*out = e;
	cx_plan_build(g, &opts, &e->plan, &e->refused);
	return CX_OK;
fail:
	cx_graph_free(g);
	cx_free(c->alloc, text, n + 1);
	return st;
}

static cx_status open_exec(const entry *e, const cx_probe *p, cx_probe_cache *c, cx_store **store,
	cx_exec **exec, const cx_probe_io *io, cx_err *err)
{
	cx_status st = cx_store_create(c->devs[0]->rt, store, err);
	for (uint32_t i = 0; i < p->n_leaf && st == CX_OK; i++) {
		const cx_node *n = &e->g->nodes[p->leaf[i]];
		if (n->op != CX_OP_weight) continue;
		st = cx_store_weight(*store, n->name, n->desc.dtype, n->desc.rank, n->desc.dim,
			io->value(io->ctx, p->leaf_src[i]), cx__desc_bytes(&n->desc), err);
	}
	return st == CX_OK ? cx_exec_create(e->plan, *store, exec, err) : st;
}

static cx_status run_exec(cx_probe_cache *c, const entry *e, const cx_probe *p, cx_store *store,
	cx_exec *x, const cx_probe_io *io, cx_err *err)
{
	cx_status st = CX_OK;
	for (uint32_t i = 0; i < p->n_leaf && st == CX_OK; i++) {
		const cx_node *n = &e->g->nodes[p->leaf[i]];
		const void *data = io->value(io->ctx, p->leaf_src[i]);
		uint64_t bytes = cx__desc_bytes(&n->desc);
		if (n->op == CX_OP_input)
			st = cx_exec_set_input(x, cx_exec_input(x, n->name), data, bytes, err);
		if (n->op == CX_OP_state) st = cx_store_state_write(store, n->name, data, bytes, err);
	}
	if (st == CX_OK) st = cx_exec_run(x, err);
	for (uint32_t o = 0; o < p->n_out && st == CX_OK; o++) {
		uint64_t bytes = cx__desc_bytes(&e->g->nodes[e->g->outputs[o].id].desc);
		void *got = cx_malloc(c->alloc, bytes + 1);
		if (!got) return no_memory(err);
		st = cx_exec_get_output(x, (int)o, got, bytes, err);
		if (st == CX_OK) io->take(io->ctx, p->out_src[o], got, bytes);
		cx_free(c->alloc, got, bytes + 1);
	}
	return st;
}

cx_status cx__probe_run(cx_probe_cache *c, cx_probe *p, int how, const cx_probe_io *io, cx_err *err)
{
	bool weights = false;
	cx_store *store = NULL;
	cx_exec *x = NULL;
	entry *e = NULL;
	cx_status st = look_up(c, p, how, &e, err);
	if (st != CX_OK) return st;
	if (e->refused.code != CX_OK) {
		if (err) *err = e->refused;
		return e->refused.code;
	}
	for (uint32_t i = 0; i < p->n_leaf; i++) weights |= e->g->nodes[p->leaf[i]].op == CX_OP_weight;
	if (!weights) {
		if (!e->exec) {
			st = open_exec(e, p, c, &e->store, &e->exec, io, err);
			if (st != CX_OK) {
				cx_store_free(e->store);
				e->store = NULL;
				return st;
			}
		}
		return run_exec(c, e, p, e->store, e->exec, io, err);
	}
	st = open_exec(e, p, c, &store, &x, io, err);
	if (st == CX_OK) st = run_exec(c, e, p, store, x, io, err);
	cx_exec_free(x);
	cx_store_free(store);
	return st;
}
